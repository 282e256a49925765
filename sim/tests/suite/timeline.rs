//! Timelines as snapshots, as a user's own tests would have them.

use steadfast_sim::Simulation;

#[test]
fn an_outage_reads_like_a_story() {
    let run = Simulation::from_scenario("herd-queueing-down60")
        .and_then(|simulation| simulation.set("duration=5m"))
        .and_then(|simulation| simulation.run(1))
        .unwrap();
    insta::assert_snapshot!(run.timeline());
}

#[test]
fn plain_characters_will_do() {
    let run = Simulation::from_scenario("half-open-stampede")
        .and_then(|simulation| simulation.set("peers.device.count=500"))
        .and_then(|simulation| simulation.set("servers.api.accept=10/s"))
        .and_then(|simulation| simulation.run(1))
        .unwrap();
    insta::assert_snapshot!(run.timeline().ascii(true));
}

#[test]
fn the_summary_has_the_keys_that_machines_rely_on() {
    let run = Simulation::from_scenario("herd-queueing")
        .and_then(|simulation| simulation.set("peers.device.count=100"))
        .and_then(|simulation| simulation.run(1))
        .unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&run.summary()).unwrap());
}
