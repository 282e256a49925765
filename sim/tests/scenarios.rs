//! The built-in scenarios, small enough for a debug build, and what they must show.
//!
//! The full ones run in release from the gate.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that goes wrong should stop there"
)]

use steadfast_sim::{Run, Simulation, Verdict, built_in_names, built_in_scenarios};

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

#[test]
fn every_built_in_scenario_is_called_as_it_says() {
    let named: Vec<_> = built_in_scenarios().map(|scenario| scenario.unwrap().name).collect();
    assert_eq!(named, built_in_names().collect::<Vec<_>>());
}

#[test]
fn a_scenario_printed_with_its_defaults_is_the_same_scenario() {
    for name in built_in_names() {
        let simulation = Simulation::from_scenario(name).unwrap();
        let printed = simulation.scenario().to_string();
        let again = Simulation::from_toml(&printed).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.scenario().to_string(), printed);
    }
}

#[test]
fn ours_brings_a_herd_back_at_the_servers_pace() {
    for (policy, seed) in [("ours", 1), ("ours", 2), ("ours-told", 3)] {
        let run = run("herd-queueing", policy, seed, &["duration=5m"]);
        assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    }
}

#[test]
fn nats_keeps_a_slow_server_busy_with_dials_that_it_has_given_up() {
    let sets = ["peers.device.count=4000", "duration=620s"];
    let run = run("herd-queueing", "nats", 1, &sets);
    assert!(run.summary().server_wasted > 20_000, "{}", run.timeline());
    assert!(run.summary().recovered < 1_000, "{}", run.timeline());
}

#[test]
fn ours_waits_for_a_server_that_refuses_for_a_minute() {
    for seed in 1..=2 {
        let run = run("herd-queueing-down60", "ours", seed, &["duration=5m"]);
        assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    }
}

#[test]
fn a_told_client_never_dials_faster_than_its_server_accepts() {
    let sets = [
        "peers.device.count=1000",
        "servers.lb.accept=50/s",
        "servers.lb.queue=50",
        "expect.ours-told.peak_dials=<= 52/s",
    ];
    holds("herd-lb-restart", "ours-told", &sets);
}

#[test]
fn the_naive_client_arrives_all_at_once() {
    let run = run("herd-lb-restart", "naive", 1, &["peers.device.count=1000"]);
    assert_eq!(run.summary().peak_dials_per_s, 1_000);
    assert!(run.summary().dials_per_peer >= 8.0, "{}", run.timeline());
}

#[test]
fn a_half_open_breaker_admits_its_probes_and_nobody_else() {
    holds("half-open-stampede", "ours", &["peers.device.count=1000"]);
}

#[test]
fn a_link_that_flaps_is_dialed_less_and_less() {
    holds("flapping-link", "ours", &["peers.device.count=100"]);
    let grpc = run("flapping-link", "grpc", 1, &["peers.device.count=20"]);
    assert!(grpc.summary().dials_per_peer > 240.0, "{}", grpc.timeline());
}

#[test]
fn a_process_that_slept_blames_nobody_unless_it_is_naive() {
    holds("suspend-resume", "ours", &["peers.device.count=200"]);
    let sets = ["peers.device.count=200", "expect.naive.false_losses=>= 200"];
    holds("suspend-resume", "naive", &sets);
}

#[test]
fn a_fleet_of_small_clients_comes_back_too() {
    let sets = ["peers.device.count=400", "managers=400", "servers.broker.accept=2/s"];
    holds("herd-fleet", "ours", &[&sets[..], &["servers.broker.queue=32"]].concat());
}
