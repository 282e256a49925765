//! Golden digests: every scenario that comes with the simulator, in a small world, under three seeds.
//!
//! A change that moves one of them changes what managers do, or what happens to them. That may be
//! meant; it is never without a word in the changelog.

use std::fmt::Write as _;

use steadfast_sim::{Options, Simulation, built_in_names};

/// So many peers stay of the largest group.
const PEERS: u32 = 20;

/// Everything that counts divided by the same.
fn small(name: &str) -> Simulation {
    let world = Simulation::from_scenario(name).unwrap();
    let scenario = world.scenario();
    let most = scenario.peers.values().map(|group| group.count()).max().unwrap_or(0);
    let by = most.div_ceil(PEERS).max(1);
    let slower = |rate: steadfast_sim::units::Rate| {
        format!("{}/{}ns", rate.count, rate.per.as_nanos() * u64::from(by))
    };
    let mut sets = vec![format!("managers={}", (scenario.managers.get_ref() / by).max(1))];
    for (name, group) in scenario.peers.iter().filter(|(_, group)| group.count.is_some()) {
        sets.push(format!("peers.{name}.count={}", (group.count() / by).max(1)));
    }
    for (name, server) in &scenario.servers {
        sets.extend(server.accept.map(|rate| format!("servers.{name}.accept={}", slower(rate))));
        sets.push(format!("servers.{name}.queue={}", (server.queue / by).max(1)));
    }
    for (place, fault) in scenario.faults.iter().enumerate() {
        sets.extend(fault.accept.map(|rate| format!("faults.{place}.accept={}", slower(rate))));
    }
    if scenario.highest_load.is_some() {
        sets.push("highest_load.policies=[]".to_owned());
    }
    if scenario.reference.is_some() {
        sets.push("reference.seeds=2".to_owned());
    }
    if name == "brooker-retries" {
        sets.extend(["duration=4s", "calls.client.until=2s"].map(str::to_owned));
    }
    let options = Options { invariants: Some(false), ledger: false, ..Options::default() };
    world.set_all(&sets).unwrap_or_else(|error| panic!("{error}")).options(options)
}

#[test]
fn no_scenario_comes_to_anything_else() {
    let digests = |name: &str| {
        let world = small(name);
        [1, 2, 3].map(|seed| match world.scenario().reference {
            // All rows of its table, each run twice.
            Some(_) => world.study(seed).unwrap().digest,
            None => format!("{:016x}", world.run(seed).unwrap().digest()),
        })
    };
    let mut told = String::new();
    // Together they take longer than any other test, so each has a thread.
    std::thread::scope(|scope| {
        let run = |name| (name, scope.spawn(move || digests(name)));
        for (name, thread) in built_in_names().map(run).collect::<Vec<_>>() {
            writeln!(told, "{name:<26} {}", thread.join().unwrap().join(" ")).unwrap();
        }
    });
    insta::assert_snapshot!(told);
}
