//! Faults that overlap: each is over for itself.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that goes wrong should stop there"
)]

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
