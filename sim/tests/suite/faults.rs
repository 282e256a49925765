//! Faults that overlap: each is over for itself.

use steadfast_sim::{Run, Simulation, Verdict};

const WORLD: &str = r#"
    name = "overlap"
    about = ""
    duration = "60s"
    [servers.api]
    accept = "10/s"
    [peers.worker]
    count = 40
    endpoints = ["api"]
    heartbeat = "1s"
"#;

/// The run of a world with these faults, each a kind, its target, when and for how long.
fn run(faults: &[(&str, &str, &str, &str)]) -> Run {
    let fault = |(kind, on, at, lasts): &(&str, &str, &str, &str)| {
        format!("[[faults]]\nkind = {kind}\non = \"{on}\"\nat = \"{at}\"\nfor = \"{lasts}\"\n")
    };
    let faults: String = faults.iter().map(fault).collect();
    let run = Simulation::from_toml(&format!("{WORLD}{faults}")).unwrap().run(1).unwrap();
    assert_eq!(run.violation(), None);
    run
}

#[test]
fn of_a_world_that_never_heals_nothing_is_known_after_the_heal() {
    let text =
        format!("{WORLD}[expect.every]\nall_up = \"<= 60s\"\nopen_after_heal = \"<= 60s\"\n");
    let fault = "[[faults]]\nkind = \"down\"\non = \"servers.api\"\nat = \"5s\"\nfor = \"56s\"\n";
    let run = Simulation::from_toml(&format!("{text}{fault}")).unwrap().run(1).unwrap();
    let summary = run.summary();
    assert_eq!((summary.healed_at_s, summary.all_up_s, summary.p50_s), (None, None, None));
    assert_eq!(run.verdict(), Verdict::Unknown);
    assert!(run.timeline().to_string().contains(", never healed\n"), "{}", run.timeline());
}

#[test]
fn offline_within_offline_ends_with_the_outer_one() {
    let outer = ("\"offline\"", "managers", "5s", "20s");
    // The news of this waits until the network is back.
    let lost = ("\"down\"", "servers.api", "6s", "1s");
    let inner = ("\"offline\"", "managers", "8s", "4s");
    let (one, two) = (run(&[outer, lost]), run(&[outer, lost, inner]));
    assert_eq!(one.digests(), two.digests());
    assert!(two.summary().lost_at_s >= Some(25.0), "{}", two.timeline());
}

#[test]
fn a_pause_within_a_pause_ends_with_the_outer_one() {
    let outer = ("\"pause\"\nwake = \"tick-first\"", "managers", "5s", "20s");
    let (one, two) = (run(&[outer]), run(&[outer, ("\"pause\"", "managers", "8s", "4s")]));
    assert_eq!(one.digests(), two.digests());
}

#[test]
fn a_process_that_sleeps_again_before_it_reads_goes_on_sleeping() {
    let first = ("\"pause\"\nwake = \"tick-first\"", "managers", "5s", "10s");
    let again = ("\"pause\"", "managers", "15000500us", "10s");
    let events = |run: &Run| run.summary().events;
    let one = run(&[first, again]);
    let whole = run(&[("\"pause\"", "managers", "5s", "20000500us")]);
    // Nothing but the tick between the two.
    assert_eq!(events(&one), events(&whole) + 1);
}

#[test]
fn a_capacity_within_a_capacity_leaves_the_outer_one() {
    let lost = ("\"down\"", "servers.api", "5s", "5s");
    let outer = ("\"capacity\"\naccept = \"1/s\"", "servers.api", "5s", "30s");
    let inner = ("\"capacity\"\naccept = \"5/s\"", "servers.api", "6s", "2s");
    let (one, two) = (run(&[lost, outer]), run(&[lost, outer, inner]));
    assert_eq!(one.digests(), two.digests());
    let crossing = ("\"capacity\"\naccept = \"1/m\"", "servers.api", "4s", "2s");
    assert_eq!(one.digests(), run(&[lost, crossing, outer]).digests());
}

#[test]
fn peers_behind_a_recorded_group_count_as_lost() {
    let recorded = "[peers.a]\nendpoints = [\"api\"]\nheartbeat_trace = \"cicv_rural_v0_01\"\n\
                    detectors = [\"deadline(1s)\", \"deadline(2s)\"]\n";
    let fault = "[[faults]]\nkind = \"reset-all\"\non = \"servers.api\"\nat = \"5s\"\n";
    let text = format!("{WORLD}{recorded}{fault}");
    let run = Simulation::from_toml(&text).unwrap().run(1).unwrap();
    assert_eq!(run.summary().recovered, 40, "{}", run.timeline());
}

#[test]
fn a_half_open_breaker_that_nobody_waits_for_is_not_open() {
    let policy = "[policies.ours]\nbreaker = { trip = \"consecutive(1)\", close_after = 3 }\n\
                  [expect.ours]\nopen_after_heal = \"<= 60s\"\n";
    let fault = "[[faults]]\nkind = \"down\"\non = \"servers.api\"\nat = \"5s\"\nfor = \"5s\"\n";
    let text = format!("{}{policy}{fault}", WORLD.replace("count = 40", "count = 1"));
    let text = text.replace("\"60s\"\n    [servers", "\"5m\"\n    [servers");
    let run = Simulation::from_toml(&text).unwrap().run(1).unwrap();
    let lane = run.timeline().to_string();
    assert!(
        lane.lines().any(|line| line.starts_with("breaker") && line.contains("HHHH")),
        "{lane}"
    );
    assert_eq!(run.expects()[0].value, run.summary().all_up_s, "{lane}");
    assert_eq!(run.verdict(), Verdict::Held, "{lane}");
}

/// The run of a world with these faults, written out, and that much of the scenario.
fn run_of(faults: &str, sets: &[&str]) -> Run {
    let simulation = Simulation::from_toml(&format!("{WORLD}{faults}")).unwrap();
    let set = |simulation: Simulation, set: &&str| simulation.set(set).unwrap();
    let run = sets.iter().fold(simulation, set).run(1).unwrap();
    assert_eq!(run.violation(), None);
    run
}

/// What the expectation of that name measured.
fn value(run: &Run, name: &str) -> f64 {
    let expect = run.expects().iter().find(|expect| expect.name == name).unwrap();
    expect.value.unwrap_or_else(|| panic!("{}", run.timeline()))
}

const PINGS: [&str; 3] = [
    "peers.worker.profile.signs=pings(interval=1s, timeout=1s)",
    "servers.api.accept=500/s",
    // All are silent at once: each gets as long again before it is given up.
    "expect.every.detection_max=<= 6s",
];

#[test]
fn a_partition_of_either_direction_is_found_by_asking_and_only_one_by_listening() {
    let world = WORLD.replace("heartbeat = \"1s\"", "");
    for direction in ["to-server", "from-server"] {
        let fault = format!(
            "[[faults]]\nkind = \"partition\"\non = \"links.worker-api\"\n\
             direction = \"{direction}\"\nat = \"5s\"\nfor = \"20s\"\n"
        );
        let simulation = Simulation::from_toml(&format!("{world}{fault}")).unwrap();
        let set = |simulation: Simulation, set: &&str| simulation.set(set).unwrap();
        let asking = PINGS.iter().fold(simulation, set).run(1).unwrap();
        assert_eq!(asking.verdict(), Verdict::Held, "{}", asking.timeline());
        let listening = run_of(&fault, &["peers.worker.profile.detector=deadline(3s)"]);
        let lost = listening.summary().lost_at_s.is_some();
        assert_eq!(lost, direction == "from-server", "{}", listening.timeline());
    }
}

#[test]
fn both_directions_are_a_partition() {
    let fault = |direction: &str| {
        format!(
            "[[faults]]\nkind = \"partition\"\non = \"links.worker-api\"\n{direction}\
             at = \"5s\"\nfor = \"45s\"\n"
        )
    };
    let whole = run_of(&fault(""), &[]);
    let halves = ["to-server", "from-server"].map(|way| fault(&format!("direction = \"{way}\"\n")));
    assert_eq!(whole.digests(), run_of(&halves.concat(), &[]).digests());
}

#[test]
fn a_certificate_that_is_not_valid_takes_no_connection_and_lets_none_be_made() {
    let reject = "[[faults]]\nkind = \"reject\"\non = \"servers.api\"\ncause = \"tls\"\n\
                  at = \"5s\"\nfor = \"30s\"\n";
    assert_eq!(run_of(reject, &[]).summary().lost_at_s, None);
    let reset = "[[faults]]\nkind = \"reset-all\"\non = \"servers.api\"\nat = \"6s\"\n";
    let run = run_of(&format!("{reject}{reset}"), &["expect.ours.up_share=== 0% at 0s after heal"]);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}

#[test]
fn a_name_that_is_not_found_costs_the_server_nothing() {
    let gone = "[[faults]]\nkind = \"reset-all\"\non = \"servers.api\"\nat = \"5s\"\n\
                [[faults]]\nkind = \"dns-fail\"\non = \"servers.api\"\nat = \"5s\"\nfor = \"30s\"\n";
    let sets = ["expect.ours.up_share=== 0% at 0s after heal", "expect.ours.refused=== 0"];
    let run = run_of(gone, &sets);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    // Half of the look-ups: some get through.
    let run = run_of(gone, &["faults.1.share=50%", "expect.ours.up_share=> 0% at 0s after heal"]);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}

#[test]
fn hosts_that_go_are_found_and_hosts_that_come_back_are_awaited() {
    let churn = "[[faults]]\nkind = \"churn\"\non = \"peers.worker\"\nstays = \"10s..20s\"\n\
                 away = \"30s\"\nat = \"0s\"\nfor = \"60s\"\n";
    let sets = [
        "duration=3m",
        "peers.worker.breaker=per-peer",
        "peers.worker.profile.detector=deadline(3s)",
        "expect.ours.detection_max=<= 3s",
        "expect.ours.losses_per_peer=<= 3",
        "expect.ours.false_losses=== 0",
        "expect.ours.recovered=== 100%",
        "expect.ours.return_max=> 0s",
        "expect.ours.healthy_opens=== 0",
    ];
    let silent = run_of(churn, &sets);
    assert_eq!(silent.verdict(), Verdict::Held, "{}", silent.timeline());
    assert!(value(&silent, "losses_per_peer") >= 1.0, "{}", silent.timeline());
    // The same spells, but their ends are told: nothing is left to detect.
    let down = run_of(&churn.replace("[[faults]]\n", "[[faults]]\nas = \"down\"\n"), &sets);
    assert!(down.summary().lost_at_s < silent.summary().lost_at_s);
    let detected = down.expects().iter().find(|expect| expect.name == "detection_max").unwrap();
    assert_eq!(detected.value, None, "{}", down.timeline());
}

#[test]
fn a_host_that_is_replaced_before_anybody_notices_is_noticed_all_the_same() {
    let churn = "[[faults]]\nkind = \"churn\"\non = \"peers.worker\"\nstays = \"10s\"\n\
                 away = \"100ms\"\nat = \"0s\"\nfor = \"15s\"\n";
    let sets = [
        "peers.worker.profile.detector=deadline(3s)",
        "expect.ours.losses_per_peer=== 1",
        "expect.ours.false_losses=== 0",
        "expect.ours.recovered=== 100%",
    ];
    let run = run_of(churn, &sets);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}

#[test]
fn what_comes_by_chance_is_over_when_it_says() {
    let pause = "[[faults]]\nkind = \"pause\"\non = \"managers\"\nat = \"5s\"\nfor = \"exp(1s)\"\n\
                 every = \"exp(3s)\"\nuntil = \"40s\"\n";
    let run = run_of(pause, &["expect.ours.false_losses=== 0"]);
    assert_eq!(run.summary().healed_at_s, Some(40.0));
    let lane = run.timeline().to_string();
    let faults = lane.lines().find(|line| line.starts_with("faults")).unwrap();
    let active = faults.chars().filter(|mark| *mark == 'x').count();
    assert!((5..36).contains(&active) && faults.contains("times"), "{lane}");
}

const DRAIN: &str = "[[faults]]\nkind = \"drain\"\non = \"servers.api\"\nnotice = \"5s\"\n\
                     at = \"5s\"\nfor = \"2s\"\nevery = \"10s\"\ntimes = 4\n";

fn run_of_drain(instances: u32, sets: &[&str]) -> Run {
    let server = format!("[servers.api]\ninstances = {instances}");
    let world = WORLD.replace("[servers.api]", &server);
    let simulation = Simulation::from_toml(&format!("{world}{DRAIN}")).unwrap();
    let set = |simulation: Simulation, set: &&str| simulation.set(set).unwrap();
    let run = sets.iter().fold(simulation, set).run(1).unwrap();
    assert_eq!(run.violation(), None);
    run
}

#[test]
fn whoever_is_told_of_a_drain_is_elsewhere_before_it_and_nobody_is_down() {
    let sets = [
        "expect.ours.most_down=== 0%",
        "expect.ours.losses_per_peer=== 0",
        "expect.ours.dials_per_move=== 1",
        // The last one is back and empty, the others have a third each, but for one connection.
        "expect.ours.skew=<= 1.4",
        "expect.ours.\"skew.api\"=>= 1.3",
    ];
    let run = run_of_drain(4, &sets);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    // 10 of the first; a third of the others' is what each of those has by then.
    let told = run.timeline().to_string();
    assert!(told.contains("connections told to move 5"), "{told}");
}

#[test]
fn whoever_does_nothing_about_a_drain_is_thrown_out_at_its_end() {
    let sets = [
        "policies.ours.drains=false",
        "expect.ours.most_down=>= 25%",
        "expect.ours.losses_per_peer=>= 1",
        "expect.ours.recovered=== 100%",
    ];
    let run = run_of_drain(4, &sets);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    assert!(run.summary().lost_at_s >= Some(10.0), "{}", run.timeline());
}

#[test]
fn a_balancer_without_an_instance_that_serves_refuses() {
    let sets = ["expect.ours.refused=>= 1", "expect.ours.recovered=== 100%"];
    let run = run_of_drain(1, &sets);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}

/// Phones that ask whether their connections live.
const PHONES: [&str; 5] = [
    "managers=40",
    "duration=3m",
    "servers.api.accept=500/s",
    "peers.worker.session_ttl=2m",
    "peers.worker.profile.signs=pings(interval=10s, timeout=2s)",
];

fn phones(fault: &str, sets: &[&str]) -> Run {
    let world = WORLD.replace("heartbeat = \"1s\"", "");
    let fault = format!("[[faults]]\non = \"managers\"\nat = \"5s\"\nspread = \"20s\"\n{fault}");
    let simulation = Simulation::from_toml(&format!("{world}{fault}")).unwrap();
    let sets: Vec<_> = PHONES.iter().chain(sets).map(ToString::to_string).collect();
    let run = simulation.set_all(&sets).unwrap().run(1).unwrap();
    assert_eq!(run.violation(), None);
    run
}

#[test]
fn another_address_is_found_out_by_asking_and_the_session_is_kept() {
    for fault in ["kind = \"switch\"\n", "kind = \"switch\"\nfor = \"2s..9s\"\nuntil = \"60s\"\n"] {
        let sets = [
            "expect.ours.losses_per_peer=== 1",
            "expect.ours.false_losses=== 0",
            "expect.ours.resumed=== 100%",
            "expect.ours.dials_while_offline=== 0",
            "expect.ours.reconnect_max=<= 10s",
            "expect.ours.recovered=== 100%",
        ];
        let run = phones(fault, &sets);
        assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    }
}

#[test]
fn a_client_that_does_not_listen_to_its_host_dials_without_a_network() {
    let fault = "kind = \"offline\"\nfor = \"60s\"\n";
    let heard = ["expect.ours.losses_per_peer=== 0", "expect.ours.dials_while_offline=== 0"];
    let run = phones(fault, &heard);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    let deaf = [
        "policies.ours.network=false",
        "expect.ours.false_losses=>= 40",
        "expect.ours.dials_while_offline=>= 40",
        "expect.ours.recovered=== 100%",
    ];
    let run = phones(fault, &deaf);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}

#[test]
fn an_app_in_the_background_neither_dials_nor_blames() {
    // The server goes while some are in the background: they come back when the app does.
    let down = "[[faults]]\nkind = \"down\"\non = \"servers.api\"\nat = \"40s\"\nfor = \"2s\"\n";
    let fault = format!("kind = \"background\"\nshare = 0.5\nfor = \"60s\"\n{down}");
    let sets = [
        "expect.ours.losses_per_peer=== 1",
        "expect.ours.dials_while_offline=== 0",
        "expect.ours.false_losses=== 0",
        "expect.ours.reconnect_p50=<= 10s",
        "expect.ours.recovered=== 100%",
    ];
    let run = phones(&fault, &sets);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}
