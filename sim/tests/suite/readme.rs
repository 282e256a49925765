//! What the README shows is a scenario.

use steadfast_sim::{Simulation, Verdict};

/// The TOML blocks of the README.
fn blocks() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_readmes_scenario_holds() {
    let text = blocks().into_iter().find(|block| block.starts_with("name = ")).unwrap();
    let run = Simulation::from_toml(&text).unwrap().policy("mine").unwrap().run(1).unwrap();
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}

#[test]
fn the_readmes_faults_happen() {
    let text = blocks().into_iter().find(|block| block.starts_with("name = ")).unwrap();
    let faults = blocks().into_iter().find(|block| block.starts_with("[[faults]]")).unwrap();
    let text = text.replace("\"60s\"", "\"10m\"");
    let (world, _) = text.split_once("[[faults]]").unwrap();
    let run = Simulation::from_toml(&format!("{world}{faults}"))
        .unwrap_or_else(|error| panic!("{error}"))
        .policy("mine")
        .unwrap()
        .run(1)
        .unwrap();
    assert_eq!(run.violation(), None, "{}", run.timeline());
    assert!(run.summary().all_up_s.is_some(), "{}", run.timeline());
}

#[test]
fn the_readmes_calls_run() {
    let text = blocks().into_iter().find(|block| block.starts_with("[servers.db.req")).unwrap();
    let head = "name = \"calls\"\nabout = \"all of it\"\nduration = \"60s\"\nmanagers = 4\n";
    let text = format!("{head}{text}\n[servers.store]\n");
    let simulation = Simulation::from_toml(&text).unwrap_or_else(|error| panic!("{error}"));
    let run = simulation.policy("mine").unwrap().run(1).unwrap();
    assert_eq!(run.violation(), None, "{}", run.timeline());
    assert_eq!(run.summary().highest_load.len(), 2);
}
