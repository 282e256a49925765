//! One seed, one run: whatever else is done meanwhile.

use steadfast_sim::{Options, Run, Simulation};

/// Small variants of the scenarios that come with the simulator, each with what makes it small.
const SMALL: [(&str, &[&str]); 11] = [
    ("herd-lb-restart", &["peers.device.count=120", "servers.lb.accept=8/s"]),
    ("herd-queueing", &["peers.device.count=120", "servers.broker.queue=20", "duration=5m"]),
    ("herd-queueing-down60", &["peers.device.count=120", "duration=5m"]),
    ("herd-fleet", &["peers.device.count=60", "managers=60", "servers.broker.accept=2/s"]),
    ("half-open-stampede", &["peers.device.count=120", "servers.api.accept=8/s"]),
    ("flapping-link", &["peers.device.count=20"]),
    ("suspend-resume", &["peers.device.count=100"]),
    ("one-way-partition", &["peers.deaf.count=20", "peers.mute.count=20", "duration=7m"]),
    ("expired-certificate", &["peers.device.count=8"]),
    ("churn-web", &["peers.site.count=4", "faults.0.for=4h", "duration=5h"]),
    (
        "observer-stalls",
        &[
            "peers.device.count=10",
            "duration=20m",
            "faults.0.until=8m",
            "faults.1.at=8m",
            "faults.1.until=15m",
            "faults.2.stays=exp(10m)",
            "faults.2.away=1m",
            "faults.2.for=15m",
        ],
    ),
];

fn run(scenario: &str, sets: &[&str], policy: &str, options: Options) -> Run {
    let simulation = Simulation::from_scenario(scenario).unwrap().policy(policy).unwrap();
    // Together, since some make no sense alone.
    let sets: Vec<_> = sets.iter().map(ToString::to_string).collect();
    let run = simulation.set_all(&sets).unwrap().options(options).run(7).unwrap();
    assert_eq!(run.violation(), None, "{}", run.timeline());
    run
}

fn for_each_run(options: Options) {
    for (scenario, sets) in SMALL {
        for policy in ["ours", "naive"] {
            let plain = run(scenario, sets, policy, Options::default());
            let other = run(scenario, sets, policy, options);
            assert_eq!(plain.digests(), other.digests(), "{scenario} under {policy}");
            let (mut plain, mut other) = (plain.summary(), other.summary());
            for summary in [&mut plain, &mut other] {
                summary.invariant_checks = 0;
                summary.events = 0;
            }
            assert_eq!(plain, other, "{scenario} under {policy}");
        }
    }
}

#[test]
fn twice_is_the_same() {
    for_each_run(Options::default());
}

#[test]
fn checking_the_invariants_changes_nothing() {
    for_each_run(Options { invariants: Some(false), ..Options::default() });
}

#[test]
fn another_key_of_the_id_tables_changes_nothing() {
    for_each_run(Options { hash_key: 0xdead_beef, ..Options::default() });
}

#[test]
fn ticks_that_are_not_due_change_nothing() {
    for_each_run(Options { extra_ticks: 0.3, ..Options::default() });
}

#[test]
fn going_on_from_a_snapshot_changes_nothing() {
    for_each_run(Options { restores: 0.005, ..Options::default() });
}

#[test]
fn another_seed_is_another_run() {
    let simulation = Simulation::from_scenario("herd-queueing").unwrap();
    let simulation = simulation.set("peers.device.count=50").unwrap();
    assert_ne!(simulation.run(1).unwrap().digest(), simulation.run(2).unwrap().digest());
}

/// A world of one peer.
const ONE: &str = r#"
    name = "one"
    about = ""
    duration = "60s"
    [servers.left]
    accept = "5/s"
    [servers.right]
    accept = "5/s"
    [peers.a]
    endpoints = ["left"]
    heartbeat = "1s"
    [links.a-left]
    latency = "lognormal(p50=20ms, p99=200ms)"
    loss = 0.05
    [[faults]]
    kind = "down"
    on = "servers.left"
    at = "1s"
    for = "9s"
"#;

#[test]
fn another_group_server_link_and_fault_leave_everybody_elses_luck_alone() {
    let more = r#"
        [peers.b]
        endpoints = ["right"]
        heartbeat = "1s"
        [links.b-right]
        latency = "exp(20ms)"
        loss = 0.2
        [[faults]]
        kind = "silent"
        on = "servers.right"
        at = "5s"
        for = "7s"
    "#;
    let digests = |text: &str| {
        let run = Simulation::from_toml(text).unwrap().run(3).unwrap();
        assert_eq!(run.violation(), None);
        run.digests().to_vec()
    };
    let two = format!("managers = 2\n{ONE}{more}");
    // The first peer is the first manager's in both.
    assert_eq!(digests(ONE)[0], digests(&two)[0]);
}

/// The digests themselves: equal in debug and release, on every platform.
#[test]
fn the_digests_are_pinned() {
    let mut pinned = String::new();
    for (scenario, sets) in SMALL {
        let run = run(scenario, sets, "ours", Options::default());
        pinned += &format!("{scenario} {:016x}\n", run.digest());
    }
    insta::assert_snapshot!(pinned);
}
