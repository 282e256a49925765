//! Calls under faults: the built-in scenarios, and what they are made of.

use std::fmt::Write as _;

use steadfast_sim::{Options, Run, Simulation, Verdict};

fn run(scenario: &str, policy: &str, seed: u64, sets: &[&str]) -> Run {
    let simulation = Simulation::from_scenario(scenario).unwrap();
    let set = |simulation: Simulation, set: &&str| simulation.set(set).unwrap();
    sets.iter().fold(simulation, set).policy(policy).unwrap().run(seed).unwrap()
}

fn holds(scenario: &str, policy: &str, sets: &[&str]) {
    for seed in 1..=3 {
        let run = run(scenario, policy, seed, sets);
        assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    }
}

/// Without the search for the highest load.
const STORM: [&str; 1] = ["highest_load.policies=[]"];

#[test]
fn a_storm_of_retries_passes_where_they_are_paid_for() {
    holds("retry-storm", "ours", &STORM);
    holds("retry-storm", "naive", &STORM);
}

#[test]
fn without_budget_and_breaker_the_storm_stays() {
    let text = Simulation::from_scenario("retry-storm").unwrap().scenario().to_string();
    let mine = "[policies.mine]\nbase = \"ours\"\ngate = { budget = \"off\", trip = \"off\" }\n";
    let simulation = Simulation::from_toml(&format!("{text}\n{mine}")).unwrap();
    let run = simulation.set(STORM[0]).unwrap().policy("mine").unwrap().run(1).unwrap();
    let calls = run.summary().calls.unwrap();
    assert!(calls.tail_vs_twin.unwrap() < 0.5, "{}", run.timeline());
    assert_eq!(calls.bound_s, None);
}

#[test]
fn the_highest_load_falls_where_retries_are_free() {
    let sets = ["highest_load.policies=[\"ours\", \"naive\"]"];
    let run = run("retry-storm", "ours", 1, &sets);
    let found = run.summary().highest_load;
    assert!(found[0].all, "{}", run.timeline());
    assert!(found[1].per_second.unwrap() < 150.0, "{}", run.timeline());
}

#[test]
fn a_bad_node_is_left_out_and_its_neighbours_are_not() {
    holds("bad-node-in-shared-breaker", "ours", &[]);
    let shared = run("bad-node-in-shared-breaker", "ours", 1, &["calls.web.breaker=shared"]);
    let healthy = shared.expects().iter().find(|expect| expect.name == "healthy_served").unwrap();
    // Retries go where the call went, so five failures in a row are no rare luck.
    assert!(healthy.value.unwrap() < 0.85, "{}", shared.timeline());
}

#[test]
fn slow_calls_give_a_brownout_away() {
    holds("grey-brownout", "slow-calls", &[]);
    holds("grey-brownout", "ours", &[]);
}

#[test]
fn a_cold_cache_fills_at_the_pace_of_its_database() {
    holds("cold-cache", "limited", &["duration=3m"]);
}

#[test]
fn a_storm_reads_like_a_story() {
    let run = run("retry-storm", "ours", 1, &[&STORM[..], &["duration=60s"]].concat());
    insta::assert_snapshot!(run.timeline());
}

#[test]
fn nothing_that_only_checks_changes_what_happens() {
    let sets = [&STORM[..], &["duration=40s", "calls.web.rate=100/s", "managers=2"]].concat();
    let simulation = Simulation::from_scenario("retry-storm").unwrap();
    let set = |simulation: Simulation, set: &&str| simulation.set(set).unwrap();
    let simulation = sets.iter().fold(simulation, set);
    let plain = simulation.run(1).unwrap();
    let twins = [
        Options { extra_ticks: 0.3, ..Options::default() },
        Options { restores: 0.02, ..Options::default() },
        Options { hash_key: 7, ledger: false, invariants: Some(false), ..Options::default() },
    ];
    for options in twins {
        let twin = simulation.clone().options(options).run(1).unwrap();
        assert_eq!(twin.violation(), None, "{options:?}");
        assert_eq!(twin.digest(), plain.digest(), "{options:?}");
        assert_eq!(twin.summary().calls, plain.summary().calls, "{options:?}");
    }
}

#[test]
fn another_workload_changes_nobodys_luck() {
    let text = Simulation::from_scenario("retry-storm").unwrap().scenario().to_string();
    let more = format!("{text}\n[servers.b]\n[calls.other]\nservers = [\"b\"]\nrate = \"10/s\"\n");
    let run = |text: &str| {
        let simulation = Simulation::from_toml(text).unwrap().set(STORM[0]).unwrap();
        simulation.set("duration=40s").unwrap().run(1).unwrap().summary().calls.unwrap()
    };
    let (one, two) = (run(&text), run(&more));
    assert_eq!(two.attempts_per_call.map(|_| ()), Some(()));
    let added = two.calls - one.calls;
    assert!((350..450).contains(&added), "{added}");
    assert_eq!(two.attempts - one.attempts, added);
}

const WORLD: &str = r#"name = "good"
about = "calls of every kind"
duration = "60s"

[servers.api.requests]
rate = "100/s"

[servers.cache.requests]
cache = { behind = "api", keys = 10 }

[calls.web]
servers = ["api"]
rate = "50/s"

[[faults]]
kind = "stall"
on = "servers.api"
at = "1s"
for = "5s"
"#;

#[test]
fn callers_who_wait_and_recorded_arrivals_are_workloads_too() {
    let closed = WORLD.replace("rate = \"50/s\"", "closed = 20\nthink = \"exp(200ms)\"");
    let run = Simulation::from_toml(&closed).unwrap().run(1).unwrap();
    let calls = run.summary().calls.unwrap();
    assert!((4_000..6_000).contains(&calls.calls), "{}", run.timeline());
    let hasty = WORLD.replace("rate = \"50/s\"", "closed = 20");
    let run = Simulation::from_toml(&hasty).unwrap().run(1).unwrap();
    assert!(run.summary().calls.unwrap().calls < 20 * 60_000, "{}", run.timeline());
    let recorded = WORLD.replace("rate = \"50/s\"", "arrivals = \"azure_llm_code\"");
    let run = Simulation::from_toml(&recorded).unwrap().run(1).unwrap();
    let calls = run.summary().calls.unwrap();
    assert!((50..1_000).contains(&calls.calls), "{}", run.timeline());
    let even = WORLD.replace("rate = \"50/s\"", "rate = \"50/s\"\nspacing = \"even\"");
    let run = Simulation::from_toml(&even).unwrap().run(1).unwrap();
    assert_eq!(run.summary().calls.unwrap().calls, 2_999);
}

#[test]
fn calls_go_over_the_connections_of_peers_and_wait_for_them() {
    let text = r#"name = "over"
about = "calls over connections that are lost and come back"
duration = "60s"
managers = 2
[servers.api]
accept = "100/s"
[servers.api.requests]
time = "exp(20ms)"
[peers.device]
count = 20
endpoints = ["api"]
[links.device-api]
latency = "5ms"
[calls.web]
peers = "device"
rate = "200/s"
[[faults]]
kind = "down"
on = "servers.api"
at = "10s"
for = "5s"
[expect.ours]
all_up = "<= 20s after heal"
back_to_twin = "<= 20s after heal"
"#;
    for options in [Options::default(), Options { restores: 0.01, ..Options::default() }] {
        let run = Simulation::from_toml(text).unwrap().options(options).run(1).unwrap();
        assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
        let calls = run.summary().calls.unwrap();
        assert!(calls.success.unwrap() > 0.8, "{}", run.timeline());
    }
}

#[test]
fn a_wrong_workload_is_refused_at_its_place() {
    let changes = [
        ("servers = [\"api\"]", "servers = []"),
        ("servers = [\"api\"]", "servers = [\"apy\"]"),
        ("servers = [\"api\"]", "peers = \"device\""),
        ("servers = [\"api\"]", "servers = [\"api\", \"api\"]"),
        ("rate = \"50/s\"", ""),
        ("rate = \"50/s\"", "rate = \"50/s\"\nclosed = 5"),
        ("rate = \"50/s\"", "closed = 0"),
        ("rate = \"50/s\"", "rate = \"500000000/s\""),
        ("rate = \"50/s\"", "arrivals = \"nowhere.csv\""),
        ("rate = \"50/s\"", "rate = \"50/s\"\nclients = 0"),
        ("rate = \"50/s\"", "rate = \"50/s\"\nbreaker = \"per-clint\""),
        ("rate = \"50/s\"", "rate = \"50/s\"\nprofile = { max_attempts = 0 }"),
        ("rate = \"50/s\"", "rate = \"50/s\"\nprofile = { attempts = 3 }"),
        ("rate = \"100/s\"", "rate = \"100/s\"\nturn = \"5ms\""),
        ("rate = \"100/s\"", "fails = 2"),
        ("rate = \"100/s\"", ""),
        ("keys = 10", "keys = 0"),
        ("behind = \"api\"", "behind = \"ap\""),
        ("\"stall\"", "\"surge\""),
        (
            "\"stall\"\non = \"servers.api\"",
            "\"surge\"\non = \"calls.web\"\nrate = \"1000000/1ms\"",
        ),
        ("\"stall\"", "\"failing\""),
        ("\"stall\"", "\"cold\""),
        ("\"stall\"", "\"stall\"\nshare = 0.5"),
        ("for = \"5s\"", "for = \"5s\"\n[policies.ours]\nouter = { attempts = 100 }"),
        ("for = \"5s\"", "for = \"5s\"\n[policies.ours]\nouter.budget = \"fineagle\""),
        ("for = \"5s\"", "for = \"5s\"\n[policies.ours]\ngate.burst = 5"),
        ("for = \"5s\"", "for = \"5s\"\n[policies.ours]\ngate.budget = \"earned(capacity=0)\""),
        (
            "for = \"5s\"",
            "for = \"5s\"\n[policies.ours]\ngate.trip = \"rate(last=10, min=20, failed=50%)\"",
        ),
        ("for = \"5s\"", "for = \"5s\"\n[expect.ours]\n\"peak_requests.apy\" = \"<= 5/s\""),
        ("for = \"5s\"", "for = \"5s\"\n[expect.ours]\nback_to_twin = \"<= 1 bound\""),
        (
            "for = \"5s\"",
            "for = \"5s\"\n[highest_load]\ncalls = \"wbe\"\nfrom = \"1/s\"\nto = \"2/s\"\npolicies = []",
        ),
        (
            "for = \"5s\"",
            "for = \"5s\"\n[highest_load]\ncalls = \"web\"\nfrom = \"3/s\"\nto = \"2/s\"\npolicies = []",
        ),
    ];
    let mut errors = String::new();
    for (from, to) in changes {
        assert!(WORLD.contains(from), "{from}");
        let error = Simulation::from_toml(&WORLD.replacen(from, to, 1));
        let error = error.err().unwrap_or_else(|| panic!("{to} is taken"));
        let _ = writeln!(errors, "{error}\n");
    }
    insta::assert_snapshot!(errors);
}
