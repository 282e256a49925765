//! The built-in scenarios, small enough for a debug build, and what they must show.
//!
//! The full ones run in release from the gate.

use steadfast_sim::{Run, Simulation, Verdict, built_in_names, built_in_scenarios};

fn run(scenario: &str, policy: &str, seed: u64, sets: &[&str]) -> Run {
    let simulation = Simulation::from_scenario(scenario).unwrap();
    let set = |simulation: Simulation, set: &&str| simulation.set(set).unwrap();
    sets.iter().fold(simulation, set).policy(policy).unwrap().run(seed).unwrap()
}

fn holds(scenario: &str, policy: &str, sets: &[&str]) {
    for seed in 1..=3 {
        holds_at(seed, scenario, policy, sets);
    }
}

fn holds_at(seed: u64, scenario: &str, policy: &str, sets: &[&str]) {
    let run = run(scenario, policy, seed, sets);
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
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
        "peers.device.count=400",
        "servers.lb.accept=20/s",
        "servers.lb.queue=20",
        "expect.ours-told.peak_dials=<= 21/s",
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

#[test]
fn a_server_that_sheds_early_is_not_asked_twice() {
    for scenario in ["herd-shedding", "herd-shedding-down60"] {
        let sets =
            ["peers.device.count=2000", "servers.broker.accept=50/s", "servers.broker.queue=250"];
        let sets = [&sets[..], &["duration=3m"]].concat();
        holds(scenario, "ours", &sets);
        let run = run(scenario, "grpc", 1, &sets);
        assert!(run.summary().dials_per_peer > 3.0, "{}", run.timeline());
    }
}

#[test]
fn a_one_way_partition_is_found_and_sets_off_no_storm() {
    let sets = ["peers.deaf.count=100", "peers.mute.count=100", "servers.core.accept=25/s"];
    let sets = [&sets[..], &["expect.ours.outage_dials_per_peer=<= 2"]].concat();
    let sets = [&sets[..], &["expect.ours.dials_per_peer=<= 3"]].concat();
    holds_at(1, "one-way-partition", "ours", &sets);
    holds_at(2, "one-way-partition", "naive", &sets);
}

#[test]
fn a_second_wave_is_recovered_as_fast_as_the_first() {
    let sets =
        ["peers.session.count=1000", "servers.gateway.accept=20/s", "servers.gateway.queue=320"];
    let loose =
        ["expect.ours.all_up=<= 1.3x ideal after heal", "expect.ours.dials_per_peer=<= 2.5"];
    holds("second-wave", "ours", &[&sets[..], &loose].concat());
}

#[test]
fn slow_clients_do_not_come_last_for_being_slow() {
    let sets = ["peers.fast.count=1900", "peers.slow.count=100", "servers.next.accept=20/s"];
    let loose = ["expect.ours.\"all_up.slow\"=<= 1.5x ideal after heal"];
    holds("slow-honest-clients", "ours", &[&sets[..], &loose].concat());
}

#[test]
fn an_expired_certificate_is_outlasted_without_giving_up() {
    for cause in ["tls", "auth"] {
        let cause = format!("faults.1.cause={cause}");
        // The probes of half an hour, shared among fewer.
        let loose = "expect.ours.outage_dials_per_peer=<= 6";
        holds("expired-certificate", "ours", &["peers.device.count=200", &cause, loose]);
    }
}

#[test]
fn names_that_are_gone_are_asked_for_once_not_by_each() {
    let sets =
        ["peers.device.count=5000", "servers.region.accept=100/s", "servers.region.queue=200"];
    let loose = ["expect.ours.outage_dials_per_peer=<= 2"];
    holds("regional-dns", "ours", &[&sets[..], &loose].concat());
    let grpc =
        run("regional-dns", "grpc", 1, &["peers.device.count=50", "servers.region.accept=1/s"]);
    assert_eq!(grpc.verdict(), Verdict::Held, "{}", grpc.timeline());
}

#[test]
fn hosts_that_come_and_go_as_measured_are_never_forgotten() {
    holds("churn-spot", "ours", &[]);
    holds("churn-web", "ours", &["peers.site.count=20", "faults.0.for=24h", "duration=26h"]);
}

#[test]
fn a_day_of_a_fleet_ends_with_everybody_back() {
    let sets = ["peers.eastern.count=100", "servers.east.accept=2/s", "servers.east.queue=4"];
    let west = ["peers.western.count=100", "servers.west.accept=2/s", "servers.west.queue=4"];
    let sets = [&sets[..], &west].concat();
    // A hundred are few for a share of a hundredth.
    let loose = ["expect.ours.\"p99.eastern\"=<= 17m"];
    holds("fleet-day", "ours", &[&sets[..], &loose].concat());
    holds_at(1, "fleet-day", "nats", &sets);
}

#[test]
fn a_process_that_stalls_again_and_again_blames_the_dead_alone() {
    let sets = ["peers.device.count=20", "faults.2.stays=exp(4h)"];
    holds("observer-stalls", "ours", &sets);
    let naive = run("observer-stalls", "naive", 1, &["peers.device.count=20"]);
    assert!(naive.expects().iter().any(|expect| expect.value > Some(20.0)), "{}", naive.timeline());
}

#[test]
fn a_rolling_deploy_leaves_nobody_without_a_connection_who_heeds_the_notice() {
    let sets = ["peers.device.count=1000", "servers.web.accept=50/s", "links.device-web.loss=0"];
    let sets = [&sets[..], &["faults.0.times=3", "duration=4m"]].concat();
    holds_at(1, "rolling-deploy", "ours", &sets);
    holds_at(2, "rolling-deploy", "naive", &sets);
}

#[test]
fn phones_that_listen_to_their_hosts_are_back_at_once() {
    let sets = ["managers=100", "peers.phone.count=100", "servers.gateway.accept=50/s"];
    holds("mobile-switch", "ours", &sets);
}
