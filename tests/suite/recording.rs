//! Runs written and lived through again, cut off, altered and damaged.

use std::collections::BTreeMap;
use std::io::{Error, Write};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use steadfast::config::BreakerProfile;
use steadfast::recording::{Difference, End, Next, Recorder, Replay, Start};
use steadfast::strategy::{Act, Address, Op, Shape, World};
use steadfast::{Action, BreakerId, CallFailure, Config, DialCause, Event, LossCause, Manager};
use steadfast::{PeerId, Time};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/recording.txt");

fn about() -> BTreeMap<String, String> {
    BTreeMap::from([("driver".to_owned(), "test".to_owned())])
}

/// Two peers, of which one is refused, and two calls, of which one is tried again.
fn ops() -> Vec<Op> {
    let address = |breaker| vec![Address { id: 0, breaker }];
    let call = || Act::Call { peer: Some(0), breaker: 1, profile: 0, within: None };
    let acts = [
        (0, Act::AddBreaker { breaker: 0, profile: 0 }),
        (0, Act::AddBreaker { breaker: 1, profile: 1 }),
        (0, Act::AddPeer { peer: 0, profile: 0, endpoints: address(0) }),
        (0, Act::AddPeer { peer: 1, profile: 0, endpoints: address(0) }),
        (5, Act::Connect { peer: 0 }),
        (5, Act::Connect { peer: 1 }),
        (20, Act::Connected { dial: 0, resumed: false }),
        (20, Act::DialFailed { dial: 0, cause: DialCause::Refused, retry_after: None }),
        (1, call()),
        (9, Act::Failed { attempt: 0, kind: CallFailure::Error, retry_after: None }),
        (9, call()),
        (2_000, Act::Succeeded { attempt: 0 }),
        (1, Act::Lost { conn: 0, cause: LossCause::Reset }),
        (4_000, Act::Connected { dial: 0, resumed: false }),
        (1_000, Act::Tick),
    ];
    acts.into_iter().map(|(ms, act)| Op { after: Duration::from_millis(ms), act }).collect()
}

fn config() -> Config {
    let mut config = Config::new(9);
    config.breaker_profiles.push(BreakerProfile::for_calls());
    config
}

/// Plays the script in front of a recorder.
fn record(world: &mut World, start: &Start, ops: &[Op]) -> String {
    let mut recorder = Recorder::new(Vec::new(), &about(), start).unwrap();
    for op in ops {
        world.play_watched(op, |_, step| {
            recorder.step(0, step.at, &step.event, &step.actions).unwrap();
        });
    }
    let text = recorder.finish(&[world.manager().run_digest()]).unwrap();
    String::from_utf8(text).unwrap()
}

fn recorded() -> String {
    let mut world = World::new(Manager::new(config(), 1).unwrap());
    record(&mut world, &Start::new(&config()), &ops())
}

/// What became of it: the steps made, and how it ended or what differed.
type Outcome = (u64, Result<End, Box<Difference>>);

fn outcome(text: &[u8]) -> Result<Outcome, String> {
    let mut replay = Replay::new(text).map_err(|error| error.to_string())?;
    loop {
        match replay.next_step().map_err(|error| error.to_string())? {
            Next::Same(_) => {}
            Next::Differs(difference) => return Ok((replay.steps(), Err(difference))),
            Next::End(end) => return Ok((replay.steps(), Ok(end))),
        }
    }
}

fn complete() -> End {
    End::Complete { differing: vec![] }
}

fn error(text: &str) -> String {
    outcome(text.as_bytes()).unwrap_err()
}

#[test]
fn a_run_replays_to_the_same_actions_digests_and_state() {
    let mut world = World::new(Manager::new(config(), 1).unwrap());
    let text = record(&mut world, &Start::new(&config()), &ops());
    assert!(text.contains("start_attempt") && text.contains("dial_failed"), "{text}");
    let mut replay = Replay::new(text.as_bytes()).unwrap();
    assert_eq!((replay.about(), replay.is_restored()), (&about(), false));
    assert_eq!(replay.version(), env!("CARGO_PKG_VERSION"));
    let mut actions = 0;
    loop {
        let next_at = replay.next_at().unwrap();
        match replay.next_step().unwrap() {
            Next::Same(step) => {
                assert_eq!((next_at, step.line), (Some(step.at), replay.steps() + 1));
                actions += step.actions.len() as u64;
            }
            Next::Differs(difference) => panic!("{difference}"),
            Next::End(end) => {
                assert_eq!((next_at, end), (None, complete()));
                break;
            }
        }
    }
    assert_eq!((replay.steps(), replay.actions()), (text.lines().count() as u64 - 2, actions));
    assert_eq!(replay.managers()[0].snapshot(), world.manager().snapshot());
    assert_eq!(replay.next_step().unwrap(), Next::End(complete()), "the end stays the end");
}

#[test]
fn the_lines_are_short() {
    let text = recorded();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("{\"steadfast_log\":3,\"version\":\""), "{}", lines[0]);
    assert_eq!(lines[1], "{\"t\":0,\"event\":{\"add_breaker\":{\"breaker\":0,\"profile\":0}}}");
    let dialed = lines.iter().find(|line| line.contains("\"dial\"")).unwrap();
    assert_eq!(
        *dialed,
        "{\"t\":5000000,\"event\":{\"connect\":{\"peer\":0}},\"actions\":[\
         {\"notice\":{\"peer\":{\"peer\":0,\"from\":\"disconnected\",\"to\":\"connecting\",\"cause\":\"asked\"}}},\
         {\"dial\":{\"conn\":0,\"peer\":0,\"endpoint\":0,\"resume\":false}}]}"
    );
}

#[test]
fn a_recording_can_begin_in_the_middle_of_a_run() {
    let mut world = World::new(Manager::new(config(), 1).unwrap());
    let whole = record(&mut world, &Start::new(&config()), &ops());
    for cut in 0..ops().len() {
        let (before, after) = (&ops()[..cut], &ops()[cut..]);
        let mut world = World::new(Manager::new(config(), 1).unwrap());
        record(&mut world, &Start::new(&config()), before);
        let start = Start::restored([world.manager()]);
        let rest = record(&mut world, &start, after);
        assert!(Replay::new(rest.as_bytes()).unwrap().is_restored());
        assert_eq!(outcome(rest.as_bytes()).unwrap().1, Ok(complete()));
        let digests = |text: &str| text.split("\"digests\"").nth(1).unwrap().to_owned();
        assert_eq!(digests(&rest), digests(&whole));
    }
}

#[test]
fn several_managers_share_a_recording() {
    let start = Start::New { config: Box::new(config()), seeds: vec![1, 2, 3] };
    let mut recorder = Recorder::new(Vec::new(), &about(), &start).unwrap();
    let managers = [1, 2, 3].map(|seed| Manager::new(Config { seed, ..config() }, seed));
    let mut worlds = managers.map(|manager| World::new(manager.unwrap()));
    for op in ops() {
        for (place, world) in worlds.iter_mut().enumerate() {
            world.play_watched(&op, |_, step| {
                recorder.step(place, step.at, &step.event, &step.actions).unwrap();
            });
        }
    }
    let digests: Vec<u64> = worlds.iter().map(|world| world.manager().run_digest()).collect();
    let text = recorder.finish(&digests).unwrap();
    let (_, end) = outcome(&text).unwrap();
    assert_eq!(end, Ok(complete()));
    let swapped = String::from_utf8(text).unwrap();
    let swapped = swapped.replacen("\"seeds\":[1,2,3]", "\"seeds\":[1,3,2]", 1);
    let difference = outcome(swapped.as_bytes()).unwrap().1.unwrap_err();
    assert!(difference.manager > 0, "{difference}");
}

#[test]
fn what_is_written_can_be_taken_away_in_pieces() {
    let mut world = World::new(Manager::new(config(), 1).unwrap());
    let mut recorder = Recorder::new(Vec::new(), &about(), &Start::new(&config())).unwrap();
    let mut taken = Vec::new();
    for op in ops() {
        world.play_watched(&op, |_, step| {
            recorder.step(0, step.at, &step.event, &step.actions).unwrap();
        });
        assert_eq!(recorder.get_ref().last().copied().unwrap_or(b'\n'), b'\n', "whole lines");
        taken.append(recorder.get_mut());
    }
    let steps = recorder.steps();
    taken.extend(recorder.finish(&[world.manager().run_digest()]).unwrap());
    assert_eq!(String::from_utf8(taken).unwrap(), recorded());
    assert_eq!(outcome(recorded().as_bytes()).unwrap().0, steps);
}

/// A disk on which so many bytes fit.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let fit = bytes.len().min(self.0);
        self.0 -= fit;
        if fit == 0 { Err(Error::other("the disk is full")) } else { Ok(fit) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn nothing_follows_a_line_that_could_not_be_written() {
    let start = Start::new(&config());
    let header = Recorder::new(Vec::new(), &about(), &start).unwrap().get_ref().len();
    assert!(Recorder::new(Disk(header - 1), &about(), &start).is_err());
    let mut recorder = Recorder::new(Disk(header + 10), &about(), &start).unwrap();
    let tick = |recorder: &mut Recorder<Disk>| recorder.step(0, Time::ZERO, &Event::Tick, &[]);
    assert_eq!(tick(&mut recorder).unwrap_err().to_string(), "the disk is full");
    recorder.get_mut().0 = 1_000;
    let refused = "an earlier line of the recording could not be written";
    assert_eq!(tick(&mut recorder).unwrap_err().to_string(), refused);
    assert_eq!((recorder.get_ref().0, recorder.steps()), (1_000, 0));
    assert_eq!(recorder.finish(&[0]).err().unwrap().to_string(), refused);
}

#[test]
fn a_run_that_was_killed_replays_as_far_as_it_was_written() {
    let text = recorded();
    let steps = text.lines().count() as u64 - 2;
    let ends: Vec<usize> = text.match_indices('\n').map(|(place, _)| place + 1).collect();
    let [.., before_last, last, whole] = ends[..] else { panic!() };
    for cut in before_last..=whole {
        let piece = &text.as_bytes()[..cut];
        let (made, end) = outcome(piece).unwrap_or_else(|error| panic!("{cut}: {error}"));
        // A line without its end is whole if all else of it is there.
        let torn = !(cut == before_last || cut == last || cut == last - 1);
        let expected = match cut {
            _ if cut >= whole - 1 => complete(),
            _ => End::CutOff { torn },
        };
        assert_eq!(end, Ok(expected), "cut at {cut} of {whole}");
        assert_eq!(made, if cut < last - 1 { steps - 1 } else { steps }, "cut at {cut}");
        // A file that had grown before the power went.
        if cut < whole - 1 {
            let hole = [piece, &[0; 100]].concat();
            let (_, end) = outcome(&hole).unwrap_or_else(|error| panic!("{cut}: {error}"));
            assert_eq!(end, Ok(End::CutOff { torn }), "cut at {cut} of {whole}, and a hole");
        }
    }
}

#[test]
fn a_header_that_was_cut_off_is_an_error() {
    let text = recorded();
    for cut in 0..text.lines().next().unwrap().len() {
        let problem = match cut {
            0 => "the file is empty",
            1..=16 => "this is no recording",
            _ => "it was cut off before the end of its header",
        };
        assert_eq!(error(&text[..cut]), format!("line 1 of the recording: {problem}"));
    }
}

#[test]
fn an_altered_action_is_found_with_its_line() {
    let text = recorded();
    let altered =
        text.replacen("\"endpoint\":0,\"resume\":false", "\"endpoint\":1,\"resume\":false", 1);
    assert_ne!(altered, text);
    let line = text.lines().position(|line| line.contains("\"dial\"")).unwrap() as u64 + 1;
    let (steps, difference) = outcome(altered.as_bytes()).unwrap();
    let difference = difference.unwrap_err();
    assert_eq!((difference.line, difference.place(), steps), (line, 1, line - 1));
    assert!(matches!(difference.actions(), (Some(Action::Dial { .. }), Some(Action::Dial { .. }))));
    assert_eq!((difference.at, difference.manager), (Time::from_millis(5), 0));
    assert_eq!(
        difference.to_string(),
        format!(
            "line {line}, 0.005s, manager 0, Connect {{ peer: PeerId(0) }}: action 2 was \
             Dial {{ conn: ConnId(0), peer: PeerId(0), endpoint: EndpointId(1), resume: false }} and is \
             Dial {{ conn: ConnId(0), peer: PeerId(0), endpoint: EndpointId(0), resume: false }}"
        )
    );
}

#[test]
fn an_action_that_is_missing_or_too_many_is_found() {
    let text = recorded();
    let dial = ",{\"dial\":{\"conn\":0,\"peer\":0,\"endpoint\":0,\"resume\":false}}";
    let less = outcome(text.replacen(dial, "", 1).as_bytes()).unwrap().1.unwrap_err();
    assert!(matches!(less.actions(), (None, Some(Action::Dial { .. }))), "{less}");
    assert!(less.to_string().ends_with("resume: false } and was not there"), "{less}");
    let more = text.replacen(dial, &format!("{dial}{dial}"), 1);
    let more = outcome(more.as_bytes()).unwrap().1.unwrap_err();
    assert!(matches!(more.actions(), (Some(Action::Dial { .. }), None)), "{more}");
    assert!(more.to_string().ends_with("resume: false } and is missing"), "{more}");
}

#[test]
fn an_altered_event_shows_in_what_is_answered() {
    for (from, to) in [
        ("\"cause\":\"refused\"", "\"cause\":\"local\""),
        ("{\"connect\":{\"peer\":1}}", "{\"connect\":{\"peer\":7}}"),
        ("\"kind\":\"error\"", "\"kind\":\"fatal\""),
        ("\"t\":5000000,", "\"t\":2505000000,"),
    ] {
        let altered = recorded().replacen(from, to, 1);
        assert_ne!(altered, recorded(), "{from}");
        let (_, difference) = outcome(altered.as_bytes()).unwrap();
        assert!(difference.is_err(), "{from} → {to}");
    }
}

#[test]
fn one_can_go_on_after_a_difference() {
    let altered = recorded().replacen("\"resume\":false", "\"resume\":true", 1);
    let mut replay = Replay::new(altered.as_bytes()).unwrap();
    let mut differences = 0;
    let end = loop {
        match replay.next_step().unwrap() {
            Next::Same(_) => {}
            Next::Differs(_) => differences += 1,
            Next::End(end) => break end,
        }
    };
    assert_eq!((differences, end), (1, complete()));
}

#[test]
fn a_digest_that_differs_although_no_action_does_is_told() {
    let text = recorded();
    let digest = text.lines().last().unwrap().split('"').nth(7).unwrap().to_owned();
    let other = text.replace(&digest, "0123456789abcdef");
    assert_eq!(outcome(other.as_bytes()).unwrap().1, Ok(End::Complete { differing: vec![0] }));
}

#[test]
fn each_damage_is_named_with_its_line() {
    let text = recorded();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len();
    let end = lines[last - 1];
    let with = |line: usize, other: &str| {
        let mut lines = lines.clone();
        lines[line - 1] = other;
        lines.join("\n") + "\n"
    };
    let check = |text: &str, expected: &str| {
        let error = error(text);
        assert!(
            error.starts_with(&format!("line {expected}")),
            "{error}\ninstead of\nline {expected}"
        );
    };
    check(&with(1, "hello"), "1 of the recording: this is no recording");
    check(&with(1, "{\"a\":1}"), "1 of the recording: this is no recording");
    check(
        &text.replacen("_log\":3", "_log\":2", 1),
        "1 of the recording: a recording of version 2; this crate reads version 3",
    );
    check(
        &text.replacen("_log\":3", "_log\":-3", 1),
        "1 of the recording: invalid value: integer `-3`, expected u64, at column 19",
    );
    check(
        &text.replacen("\"about\"", "\"abuot\"", 1),
        "1 of the recording: unknown field `abuot`, expected one of `steadfast_log`, `version`, \
         `about`, `start`",
    );
    check(
        &text.replacen("\"new\"", "\"old\"", 1),
        "1 of the recording: unknown variant `old`, expected `new` or `restored`",
    );
    check(
        &text.replacen("\"max_work_per_step\":", "\"max_work_per_step\":0", 1),
        "1 of the recording: invalid number",
    );
    check(&with(3, ""), "3 of the recording: EOF while parsing a value, at column 0");
    check(&with(3, "garbage"), "3 of the recording: expected value, at column 1");
    let damaged = with(3, "garbage");
    let mut replay = Replay::new(damaged.as_bytes()).unwrap();
    assert!(replay.next_step().is_ok());
    let error = replay.next_step().unwrap_err();
    assert_eq!((error.line(), error.problem()), (3, "expected value, at column 1"));
    check(&with(3, "\0\0\0"), "3 of the recording: expected value, at column 1");
    check(
        &with(3, &lines[2][..lines[2].len() - 1]),
        "3 of the recording: EOF while parsing an object",
    );
    check(
        &with(3, "{\"t\":-5,\"event\":\"tick\"}"),
        "3 of the recording: invalid value: integer `-5`, expected u64, at column 7",
    );
    check(
        &with(3, "{\"t\":5.5,\"event\":\"tick\"}"),
        "3 of the recording: invalid type: floating point `5.5`, expected u64",
    );
    check(
        &with(3, "{\"t\":5,\"event\":\"bang\"}"),
        "3 of the recording: unknown variant `bang`, expected one of `add_breaker`, ",
    );
    check(
        &with(3, "{\"t\":5,\"event\":\"tick\",\"u\":1}"),
        "3 of the recording: unknown field `u`, expected one of `t`, `manager`, `event`, `actions`",
    );
    check(
        &with(3, "{\"t\":5,\"t\":6,\"event\":\"tick\"}"),
        "3 of the recording: duplicate field `t`",
    );
    check(
        &with(3, "{\"t\":5,\"event\":{\"connect\":{\"peer\":1,\"pear\":1}}}"),
        "3 of the recording: unknown field `pear`, expected `peer`",
    );
    check(
        &with(
            3,
            "{\"t\":5,\"event\":\"tick\",\"actions\":[{\"notice\":{\"recovered\":{\"peer\":1,\"x\":1}}}]}",
        ),
        "3 of the recording: unknown field `x`, expected `peer`",
    );
    check(
        &with(3, "{\"t\":5,\"actions\":[]}"),
        "3 of the recording: missing field `event`, at column 20",
    );
    check(
        &with(3, "{\"t\":5,\"manager\":1,\"event\":\"tick\"}"),
        "3 of the recording: there is no manager 1",
    );
    check(
        &with(3, end),
        &format!("3 of the recording: it tells of {} steps, there are 1", last - 2),
    );
    check(
        &with(3, &format!("{{\"t\":0,\"event\":\"tick\"}}\n{}", lines[2])),
        &format!(
            "{} of the recording: it tells of {} steps, there are {}",
            last + 1,
            last - 2,
            last - 1
        ),
    );
    for more in ["\n", "x", "{\"end\":{\"steps\":1,\"digests\":[]}}\n"] {
        check(
            &(text.clone() + more),
            &format!("{} of the recording: there is more after the end", last + 1),
        );
    }
    let totals = |digests: &str| format!("{{\"end\":{{\"steps\":{},{digests}}}}}", last - 2);
    for (digests, problem) in [
        ("\"digests\":[]", "0 digests of 1 managers"),
        ("\"digests\":[\"12\"]", "a digest has 16 hexadecimal digits"),
        ("\"digests\":[\"+123456789abcdef\"]", "a digest has 16 hexadecimal digits"),
        ("\"digests\":[],\"u\":1", "unknown field `u`, expected `steps` or `digests`"),
    ] {
        check(&with(last, &totals(digests)), &format!("{last} of the recording: {problem}"));
    }
}

#[test]
fn no_number_is_so_absurd_that_a_replay_panics() {
    let text = recorded();
    let digit = |place: usize| text.as_bytes().get(place).is_some_and(u8::is_ascii_digit);
    let first = |place: &usize| digit(*place) && !digit(place.wrapping_sub(1));
    for start in (0..text.len()).filter(first) {
        let rest = &text[start..];
        let end = start + rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let with = |other: &str| format!("{}{other}{}", &text[..start], &text[end..]);
        for other in ["18446744073709551615", "9223372036854775808", "4294967295"] {
            let _ = outcome(with(other).as_bytes());
        }
        for other in ["1e999", "NaN"] {
            let damaged = with(other);
            let line = damaged[..start].lines().count().max(1);
            let is_text =
                text[..start].ends_with(['"', '.']) || text[end..].starts_with(['"', '.']);
            match outcome(damaged.as_bytes()) {
                Err(error) => assert!(error.starts_with(&format!("line {line} of ")), "{error}"),
                Ok(_) => assert!(is_text, "{other} was taken in line {line}"),
            }
        }
    }
}

#[test]
fn no_flipped_bit_makes_a_replay_panic() {
    let text = recorded().into_bytes();
    for place in (0..text.len()).step_by(7) {
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[place] ^= 1 << bit;
            let _ = outcome(&flipped);
        }
    }
}

#[test]
fn managers_that_cannot_be_are_refused() {
    let header = |start: &Start| {
        let recorder = Recorder::new(Vec::new(), &about(), start).unwrap();
        String::from_utf8(recorder.get_ref().clone()).unwrap()
    };
    let mut refused = config();
    refused.peer_profiles[0].backoff.cap = Duration::ZERO;
    assert_eq!(
        error(&header(&Start::new(&refused))),
        format!("line 1 of the recording: {}", refused.validate().unwrap_err())
    );
    // A small header that asks for much.
    let many = Start::New { config: Box::new(config()), seeds: vec![0; 100_000] };
    assert_eq!(error(&header(&many)), "line 1 of the recording: 100000 managers are too many");
    let none = Start::New { config: Box::new(config()), seeds: vec![] };
    assert_eq!(outcome(header(&none).as_bytes()).unwrap().1, Ok(End::CutOff { torn: false }));
    let mut world = World::new(Manager::new(config(), 1).unwrap());
    ops().iter().take(7).for_each(|op| world.play_watched(op, |_, _| {}));
    let whole = header(&Start::restored([world.manager()]));
    assert!(outcome(whole.as_bytes()).is_ok());
    for (from, to, problem) in [
        (
            "\"snapshots\":[{\"version\":6",
            "\"snapshots\":[{\"version\":1",
            "the snapshot is of version 1",
        ),
        ("\"backing_off\":[]", "\"backing_off\":[77]", "manager 0: the snapshot is damaged at "),
    ] {
        assert!(whole.contains(from), "{whole}");
        let error = error(&whole.replacen(from, to, 1));
        assert!(error.starts_with(&format!("line 1 of the recording: {problem}")), "{error}");
    }
}

#[test]
fn no_file_is_read_further_than_it_takes_to_know_it() {
    let endless = std::io::BufReader::new(std::io::repeat(0));
    let error = Replay::new(endless).err().unwrap();
    assert_eq!((error.line(), error.problem()), (1, "this is no recording"));
}

#[test]
fn the_managers_can_be_asked_at_any_moment() {
    let text = recorded();
    let mut replay = Replay::new(text.as_bytes()).unwrap();
    while replay.next_at().unwrap().is_some_and(|at| at <= Time::from_millis(10)) {
        replay.next_step().unwrap();
    }
    let manager = &replay.managers()[0];
    assert_eq!(manager.peers().collect::<Vec<_>>(), [PeerId(0), PeerId(1)]);
    assert_eq!(manager.breakers().collect::<Vec<_>>(), [BreakerId(0), BreakerId(1)]);
    assert!(manager.conn(PeerId(0)).is_some() && manager.conn(PeerId(7)).is_none());
    assert_eq!(manager.stats().dials_in_flight, 2);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        ..ProptestConfig::with_cases(64)
    })]

    #[test]
    fn whatever_happens_can_be_lived_through_again(
        script in Shape::default().script(),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(script.len() + 1);
        let mut world = World::new(Manager::new(Config::new(3), 1).unwrap());
        let first = record(&mut world, &Start::new(&Config::new(3)), &script[..cut]);
        prop_assert_eq!(outcome(first.as_bytes()).unwrap().1, Ok(complete()));
        let start = Start::restored([world.manager()]);
        let second = record(&mut world, &start, &script[cut..]);
        prop_assert_eq!(outcome(second.as_bytes()).unwrap().1, Ok(complete()));
    }

    #[test]
    fn no_damage_makes_a_replay_panic(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut text = recorded().into_bytes();
        let place = place.index(text.len());
        text[place] = byte;
        let _ = outcome(&text);
    }
}
