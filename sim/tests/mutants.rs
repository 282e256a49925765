//! The rules are worth something if they catch bugs: each of these is let loose, found, and shrunk.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that goes wrong should stop there")]

use steadfast::mutant::{Mutant, let_loose};
use steadfast_sim::{Simulation, SweepOptions, Twin};

fn of(seeds: &str) -> SweepOptions {
    SweepOptions::new(seeds.parse().unwrap())
}

/// One test, since a bug is loose in the whole process.
#[test]
fn each_bug_is_caught_within_a_thousand_seeds_and_shrunk() {
    let world = Simulation::from_scenario("small-world").unwrap();
    let world = world.set("chaos.level=2").unwrap();
    let mut told = String::new();
    for mutant in Mutant::ALL {
        assert!(let_loose(Some(mutant)), "a build without bugs");
        let name = mutant.name();
        let seeds = SweepOptions { until_failure: true, jobs: 2, ..of("1..1001") };
        let found = world.sweep(&seeds, &|_| false).unwrap();
        let failure = found.failures.first();
        let failure = failure.unwrap_or_else(|| panic!("{name} lives after {} seeds", found.seeds));
        let shrunk = world.shrink(failure.seed, &mut |runs| runs < 300).unwrap().unwrap();
        assert_eq!(shrunk.kind, failure.kind, "{name}");
        assert!(shrunk.is_minimal, "{name}: {shrunk}");
        assert!(shrunk.faults.1 <= 3, "{name}: {}", shrunk.file());
        // What was found fails by itself, from its text, without the bug's knowledge.
        let again = Simulation::from_toml(&shrunk.file()).unwrap().run(shrunk.seed).unwrap();
        let kind = again.violation().map(|violation| violation.kind());
        assert_eq!(kind.as_ref(), Some(&shrunk.kind), "{name}");
        assert!(shrunk.test().contains("#[test]"));
        told += &format!(
            "{name:<20} seed {:<4} {:<32} {} of {} faults, {} runs\n",
            failure.seed, failure.kind, shrunk.faults.1, shrunk.faults.0, shrunk.runs
        );
        // Without the bug it is no failure: nothing else was kept.
        assert!(let_loose(None));
        let healthy = Simulation::from_toml(&shrunk.file()).unwrap().run(shrunk.seed).unwrap();
        assert_eq!(healthy.violation(), None, "{name}");
    }
    insta::assert_snapshot!(told);
    the_first_step_that_differs_is_told();
}

/// A restored manager that knows of no dials in flight: the twin says where it shows.
fn the_first_step_that_differs_is_told() {
    assert!(let_loose(Some(Mutant::ForgottenFlight)));
    let world = Simulation::from_scenario("flapping-link").unwrap();
    let world = world.set("peers.device.count=5").unwrap();
    let verified = world.verify(1).unwrap();
    assert!(let_loose(None));
    let restored = verified.iter().find(|one| one.twin == Twin::Restored).unwrap();
    let divergence = restored.found.clone().unwrap_err();
    assert!(divergence.run.starts_with("manager 0 at "), "{divergence}");
    assert_eq!(divergence.twin, "it is over", "{divergence}");
    assert!(verified.iter().filter(|one| one.found.is_ok()).count() >= 3);
}
