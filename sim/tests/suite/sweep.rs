//! Sweeps: many seeds, each with faults and settings of its own.

use steadfast_sim::{Options, Simulation, Sweep, SweepOptions, Verdict, marks};

fn small_world() -> Simulation {
    let world = Simulation::from_scenario("small-world").unwrap();
    world.set("chaos.level=2").unwrap()
}

fn of(seeds: &str) -> SweepOptions {
    SweepOptions::new(seeds.parse().unwrap())
}

fn sweep(seeds: &SweepOptions) -> Sweep {
    small_world().sweep(seeds, &|_| false).unwrap()
}

#[test]
fn what_comes_out_depends_on_the_seeds_alone() {
    let one = sweep(&of("1..61"));
    assert_eq!(one.seeds, 60);
    assert_eq!(one.failed, 0, "{one}");
    assert_eq!(one, sweep(&SweepOptions { jobs: 3, ..of("1..61") }));
    let mut parts = Sweep::default();
    for part in 1..=7 {
        let text = serde_json::to_string(&sweep(&SweepOptions { part: (part, 7), ..of("1..61") }));
        parts.add(&serde_json::from_str(&text.unwrap()).unwrap());
    }
    assert_eq!(one.to_string(), parts.to_string());
    assert_ne!(one.digest, sweep(&of("2..62")).digest);
}

#[test]
fn what_a_seed_draws_can_be_written_down_and_run_again() {
    for level in 1..=3 {
        let world = small_world().set(&format!("chaos.level={level}")).unwrap();
        for seed in 1..=12 {
            let drawn = world.materialised(seed).unwrap();
            let text = drawn.scenario().to_string();
            let again = Simulation::from_toml(&text)
                .unwrap_or_else(|error| panic!("{seed}: {error}\n{text}"));
            let digest = world.run(seed).unwrap().digest();
            assert_eq!(again.run(seed).unwrap().digest(), digest, "seed {seed}\n{text}");
        }
    }
}

#[test]
fn the_world_is_plain_without_chaos() {
    let world = Simulation::from_scenario("small-world").unwrap();
    let run = world.run(1).unwrap();
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
    assert!(run.scenario().faults.is_empty());
}

#[test]
fn seeds_together_meet_what_the_scenario_wants() {
    let found = sweep(&SweepOptions { jobs: 2, ..of("1..401") });
    assert_eq!(found.missed().collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(found.verdict(), Verdict::Held, "{found}");
    assert!(found.uncovered < found.seeds * 9 / 10, "{found}");
    let known: Vec<_> = marks::all().map(|mark| mark.name).collect();
    assert!(found.marks.iter().all(|name| known.contains(&name.as_str())));
}

#[test]
fn who_missed_a_mark_is_no_pass() {
    let found = sweep(&of("1..3"));
    assert!(found.missed().count() > 0);
    assert_eq!(found.verdict(), Verdict::Unknown);
}

#[test]
fn checks_change_nothing() {
    let world = small_world();
    for seed in 1..=8 {
        let plain = world.run(seed).unwrap().digest();
        let options = Options { invariants: Some(true), concerned: true, ..Options::default() };
        assert_eq!(world.clone().options(options).run(seed).unwrap().digest(), plain);
    }
}

#[test]
fn a_fault_that_never_heals_leaves_the_core_alone() {
    let world = r#"
        name = "frozen"
        about = "one of two servers is gone for good"
        duration = "5m"
        [servers.one]
        [servers.two]
        [peers.both]
        count = 5
        endpoints = ["one", "two"]
        breaker = "per-endpoint"
        [peers.lonely]
        endpoints = ["one"]
        [[faults]]
        kind = "down"
        on = "servers.one"
        at = "5s"
        heals = false
        [expect.ours]
        "all_up.both" = "<= 60s"
        "recovered.both" = ">= 100%"
        "recovered.lonely" = "< 100%"
    "#;
    let run = Simulation::from_toml(world).unwrap().run(1).unwrap();
    assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
}

#[test]
fn no_twin_differs() {
    let found = sweep(&SweepOptions { verify: true, jobs: 2, ..of("1..41") });
    assert_eq!(found.failed, 0, "{found}");
    let plain = Simulation::from_scenario("flapping-link").unwrap();
    let plain = plain.set("peers.device.count=10").unwrap();
    for verified in plain.verify(3).unwrap() {
        assert_eq!(verified.found, Ok(()), "{verified}");
        assert!(verified.steps > 100, "{verified}");
    }
}
