//! A run as a file, and the file lived through again.

use steadfast::recording::{End, Next, Replay};
use steadfast_sim::{Options, Run, Simulation, fold_digests};

fn simulation(scenario: &str, sets: &[&str]) -> Simulation {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    Simulation::from_scenario(scenario).and_then(|one| one.set_all(&sets)).unwrap()
}

fn logged(simulation: &Simulation) -> (String, Run) {
    let mut log = Vec::new();
    let run = simulation.run_logged(5, &mut log, &mut |_| {}).unwrap();
    (String::from_utf8(log).unwrap(), run)
}

fn fleet() -> Simulation {
    simulation("herd-fleet", &["peers.device.count=40", "managers=3", "duration=30s"])
}

/// Lives through it, to its end.
fn replayed(text: &str) -> (Replay<&[u8]>, End) {
    let mut replay = Replay::new(text.as_bytes()).unwrap();
    loop {
        match replay.next_step().unwrap() {
            Next::Same(_) => {}
            Next::Differs(difference) => panic!("{difference}"),
            Next::End(end) => return (replay, end),
        }
    }
}

#[track_caller]
fn holds(text: &str, run: &Run) {
    let (replay, end) = replayed(text);
    assert_eq!(end, End::Complete { differing: vec![] });
    let summary = run.summary();
    assert_eq!((replay.steps(), replay.actions()), (summary.events, summary.actions));
    let digests: Vec<u64> = replay.managers().iter().map(|one| one.run_digest()).collect();
    assert_eq!(digests, run.digests());
    assert_eq!(fold_digests(&digests), run.digest());
}

#[test]
fn a_log_replays_action_by_action() {
    let (text, run) = logged(&fleet());
    holds(&text, &run);
    let (replay, _) = replayed(&text);
    let about: Vec<_> = replay.about().iter().map(|(key, value)| (&**key, &**value)).collect();
    let command = "steadfast run herd-fleet --seed 5 --policy ours --set peers.device.count=40 \
                   --set managers=3 --set duration=30s";
    let expected =
        [("command", command), ("policy", "ours"), ("scenario", "herd-fleet"), ("seed", "5")];
    assert_eq!(about, expected);
}

#[test]
fn managers_that_slept_or_made_calls_replay() {
    for simulation in [
        simulation("suspend-resume", &["peers.device.count=100"]),
        simulation("retry-storm", &["highest_load.policies=[]", "calls.web.rate=30/s"])
            .policy("naive")
            .unwrap(),
    ] {
        let (text, run) = logged(&simulation);
        assert!(text.contains("start_attempt") || text.contains("slept"), "{}", &text[..3_000]);
        holds(&text, &run);
    }
}

#[test]
fn managers_that_went_on_from_a_snapshot_on_the_way_replay() {
    let options = Options { restores: 0.1, extra_ticks: 0.1, ..Options::default() };
    let (text, run) = logged(&fleet().options(options));
    holds(&text, &run);
}

#[test]
fn the_secret_key_is_not_in_the_log() {
    assert!(!logged(&fleet()).0.contains("hash_key"));
}

#[test]
fn a_log_that_cannot_be_written_is_told_of() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = fleet().run_logged(5, Full, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot write the log: the disk is full"), "{error}");
}
