//! Scenario files, and changes to the built-in ones.

use steadfast_sim::scenario::Scenario;
use steadfast_sim::units::Span;
use steadfast_sim::{Options, ScenarioError, Simulation, built_in_names};

/// A scenario file; or, after a zero byte and one that chooses a built-in scenario, changes to it, a
/// line each.
///
/// What is wrong with it is told; what makes sense is planned under every policy of its own. A world
/// is lived through only where it is small in all that the file says, since a run has no other bound
/// than its scenario: nothing stops one that dials a billion times a second and says so.
///
/// # Panics
///
/// If a promise is broken.
pub fn scenarios(bytes: &[u8]) {
    let simulation = match bytes {
        [0, chosen, changes @ ..] => changed(*chosen, &String::from_utf8_lossy(changes)),
        _ => Simulation::from_toml(&String::from_utf8_lossy(bytes)),
    };
    if let Err(error) = simulation.and_then(|simulation| plan(&simulation)) {
        told(&error);
    }
}

fn changed(chosen: u8, changes: &str) -> Result<Simulation, ScenarioError> {
    let names: Vec<_> = built_in_names().collect();
    let simulation = Simulation::from_scenario(names[usize::from(chosen) % names.len()])?;
    let changes: Vec<String> = changes.lines().take(16).map(str::to_owned).collect();
    simulation.set_all(&changes)
}

fn plan(simulation: &Simulation) -> Result<(), ScenarioError> {
    let scenario = simulation.scenario();
    let text = scenario.to_string();
    let again = Simulation::from_toml(&text).inspect_err(|error| panic!("{error}"))?;
    assert_eq!(again.scenario().to_string(), text);
    // A managers' plan is as large as its world.
    if scenario.peer_count() > 10_000 || *scenario.managers.get_ref() > 10_000 {
        return Ok(());
    }
    let _ = simulation.bounds()?;
    if is_small(scenario) {
        let options = Options { invariants: Some(true), until_well: true, ..Options::default() };
        let run = simulation.clone().options(options).run(1)?;
        assert!(run.violation().is_none(), "{}", run.timeline());
    }
    Ok(())
}

/// Whether some thousands of events are all that can happen.
fn is_small(scenario: &Scenario) -> bool {
    let most = |rate: f64| rate <= 20.0;
    let peers = scenario.peers.values().all(|group| {
        let beats = group.heartbeat.as_ref().map(|period| *period.get_ref());
        group.heartbeat_trace.is_none() && beats.is_none_or(|beats| beats >= Span::from_secs(1))
    });
    let calls = scenario.calls.values().all(|calls| {
        let rate = calls.rate.as_ref().map(|rate| rate.get_ref().per_second());
        calls.closed.is_none() && calls.arrivals.is_none() && rate.is_none_or(most)
    });
    let faults = scenario.faults.iter().all(|fault| {
        fault.until.is_none()
            && fault.times <= 10
            && fault.rate.is_none_or(|rate| most(rate.per_second()))
    });
    let own_numbers = ["policies", "profile", "detectors"];
    *scenario.duration.get_ref() <= Span::from_secs(60)
        && *scenario.managers.get_ref() <= 4
        && scenario.peer_count() <= 20
        && scenario.contention.is_none()
        && scenario.reference.is_none()
        && scenario.highest_load.is_none()
        && scenario.chaos.is_none()
        && scenario.faults.len() <= 10
        && peers
        && calls
        && faults
        && !own_numbers.iter().any(|name| scenario.to_string().contains(name))
}

fn told(error: &ScenarioError) {
    assert!(!error.render(false).is_empty() && !error.render(true).is_empty());
}
