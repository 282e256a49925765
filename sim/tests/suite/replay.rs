//! `steadfast replay`, from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use steadfast::recording::{Recorder, Start};
use steadfast::{Config, Manager};

const PEER: &str = "15019635543329734656";

/// What it printed, if it ended with that code and said nothing else.
#[track_caller]
fn printed(args: &[&str], code: i32) -> String {
    let output = steadfast(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*stderr), (Some(code), ""), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(args: &[&str]) -> String {
    let output = steadfast(args);
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b""[..]), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn steadfast(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_steadfast")).args(args).output().unwrap()
}

/// A file of this text, which goes with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("steadfast-replay-{}-{name}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        std::fs::write(&file.0, text).unwrap();
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Three devices behind a link that flaps.
fn recorded(sets: &[&str]) -> String {
    let sets: Vec<&str> = ["peers.device.count=3"].iter().chain(sets).copied().collect();
    recorded_of("flapping-link", &sets)
}

fn recorded_of(scenario: &str, sets: &[&str]) -> String {
    let file = File::new(&format!("log-{:?}", std::thread::current().id()), "");
    let sets = sets.iter().flat_map(|&set| ["--set", set]);
    let args: Vec<&str> = ["run", scenario, "--log", file.path()].into_iter().chain(sets).collect();
    // What was expected of the whole world need not hold in a small one.
    assert!(steadfast(&args).status.code() < Some(3));
    std::fs::read_to_string(&file.0).unwrap()
}

macro_rules! assert_text {
    ($text:expr) => {
        insta::with_settings!({ filters => [(r"version \d\S*", "version X")] }, {
            insta::assert_snapshot!($text);
        });
    };
}

#[test]
fn what_is_the_same_says_so_with_the_digest_of_the_run() {
    let file = File::new("same", &recorded(&[]));
    assert_text!(printed(&["replay", file.path()], 0));
    let run = printed_digest(&["run", "flapping-link", "--set", "peers.device.count=3"]);
    let replay = printed_digest(&["replay", file.path()]);
    assert_eq!(run, replay);
}

fn printed_digest(args: &[&str]) -> String {
    let text = String::from_utf8(steadfast(args).stdout).unwrap();
    text.split_once("digest ").unwrap().1[..16].to_owned()
}

#[test]
fn a_fleet_has_the_digest_of_its_run_too() {
    let sets = ["managers=3", "duration=60s", "faults.0.times=5"];
    let file = File::new("fleet", &recorded(&sets));
    let text = printed(&["replay", file.path(), "--at", "25s", "--peer", PEER], 0);
    assert_text!(text);
    let sets = sets.iter().flat_map(|&set| ["--set", set]);
    let args = ["run", "flapping-link", "--set", "peers.device.count=3"].into_iter().chain(sets);
    let run = printed_digest(&args.collect::<Vec<_>>());
    assert_eq!(run, printed_digest(&["replay", file.path()]));
}

#[test]
fn a_moment_shows_who_waits_for_what() {
    let file = File::new("at", &recorded(&[]));
    assert_text!(printed(&["replay", file.path(), "--at", "21s"], 0));
}

#[test]
fn a_moment_before_the_beginning_and_one_after_the_end() {
    let file = File::new("ends", &recorded(&[]));
    let all = printed(&["replay", file.path(), "--at", "2h"], 0);
    assert!(all.contains("\nat 7200.000s; nothing follows\n"), "{all}");
    assert!(all.contains("\nwaiting    nobody for a connection\n"), "{all}");
    let text = std::fs::read_to_string(&file.0).unwrap();
    let late = File::new("late", &text.replace("{\"t\":0,", "{\"t\":5,"));
    let none = printed(&["replay", late.path(), "--at", "0s"], 0);
    assert!(none.contains("\nsame:      0 steps, 0 actions, digest "), "{none}");
    assert!(none.contains("\nat 0.000s; the next step is at 0.000000005s\n"), "{none}");
    assert!(none.ends_with("\nthe last 0 events\n"), "{none}");
}

#[test]
fn a_peer_has_a_history() {
    let file = File::new("peer", &recorded(&[]));
    let path = file.path();
    assert_text!(printed(&["replay", path, "--at", "22s", "--peer", PEER, "--peer", "7"], 0));
    let whole = printed(&["replay", path, "--peer", PEER], 0);
    assert!(whole.contains(&format!("\n  p{PEER} is connected since ")), "{whole}");
}

#[test]
fn a_step_is_shown_with_its_event_and_its_answer() {
    let file = File::new("step", &recorded(&[]));
    let path = file.path();
    assert_text!(printed(&["replay", path, "--step", "22", "--peer", PEER], 0));
    // The same moment, asked for otherwise.
    let by_step = printed(&["replay", path, "--step", "24"], 0);
    let by_time = printed(&["replay", path, "--at", "21s"], 0);
    let state = |text: &str| text.split_once("\npeers ").unwrap().1[..400].to_owned();
    assert_eq!(state(&by_step), state(&by_time));
}

#[test]
fn a_step_that_is_not_there_is_told_with_how_many_there_are() {
    let file = File::new("no-step", &recorded(&[]));
    let text = printed(&["replay", file.path(), "--step", "123456"], 2);
    assert!(text.contains("\nnone:      there is no step 123456: the recording has "), "{text}");
    let refused_text = refused(&["replay", file.path(), "--step", "1", "--at", "1s"]);
    assert!(refused_text.contains("cannot be used with"), "{refused_text}");
    assert!(refused(&["replay", file.path(), "--step", "0"]).contains("invalid value '0'"));
}

#[test]
fn the_first_notice_of_a_kind_stops_the_replay() {
    let file = File::new("notice", &recorded(&[]));
    let path = file.path();
    let args = ["replay", path, "--until-notice", "breaker.open", "--peer", PEER];
    let text = printed(&args, 0);
    assert_text!(text);
    // From a moment, or a step, on.
    let first = printed(&["replay", path, "--until-notice", "breaker"], 0);
    let later = printed(&["replay", path, "--until-notice", "breaker", "--at", "21s"], 0);
    assert_ne!(first, later);
    for (step, text) in [("23", first), ("24", later)] {
        let from = printed(&["replay", path, "--until-notice", "breaker", "--step", step], 0);
        assert_eq!(from, text, "from step {step} on");
    }
}

#[test]
fn a_notice_that_never_comes_is_told_and_a_misspelt_one_refused() {
    let file = File::new("no-notice", &recorded(&[]));
    let path = file.path();
    let text = printed(&["replay", path, "--until-notice", "mass_suspicion", "--at", "10s"], 2);
    assert!(text.contains("\nnone:      no notice `mass_suspicion` from 10.000s on in "), "{text}");
    insta::assert_snapshot!(refused(&["replay", path, "--until-notice", "braeker.open"]));
}

#[test]
fn the_first_difference_is_shown_with_who_is_concerned() {
    let text = recorded(&[]);
    let altered = text.replacen("\"failures\":2", "\"failures\":3", 1);
    assert_ne!(altered, text);
    let file = File::new("differs", &altered);
    assert_text!(printed(&["replay", file.path()], 1));
    // Asking for a moment before it, nobody has seen it yet.
    assert!(printed(&["replay", file.path(), "--at", "1s"], 0).contains("\nsame: "));
    let altered = text.replacen("\"cause\":\"unreachable\"", "\"cause\":\"local\"", 1);
    let file = File::new("event", &altered);
    assert_text!(printed(&["replay", file.path()], 1));
}

#[test]
fn a_digest_alone_can_differ() {
    let text = recorded(&[]);
    let digest = text.rsplit('"').nth(1).unwrap();
    let file = File::new("digest", &text.replace(digest, "0123456789abcdef"));
    assert_text!(printed(&["replay", file.path()], 1));
}

#[test]
fn what_another_version_recorded_is_replayed_and_told() {
    let own = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
    let file = File::new("version", &recorded(&[]).replacen(own, "\"version\":\"0.0.7\"", 1));
    let text = printed(&["replay", file.path()], 0);
    assert!(text.contains("written    by version 0.0.7; this is "), "{text}");
}

#[test]
fn what_was_cut_off_replays_as_far_as_it_goes() {
    let text = recorded(&[]);
    let lines: Vec<&str> = text.lines().collect();
    let missing = lines[..40].join("\n") + "\n";
    let file = File::new("missing", &missing);
    let printed_text = printed(&["replay", file.path()], 0);
    let cut =
        "\ncut off:   its last line is missing: whoever wrote it was killed, or still writes\n";
    assert!(printed_text.contains(cut), "{printed_text}");
    assert!(printed_text.contains("\nsame:      39 steps from 0.000s to "), "{printed_text}");
    let file = File::new("torn", &(missing + "{\"t\":12"));
    let printed_text = printed(&["replay", file.path()], 0);
    let cut = "\ncut off:   its last line is torn: whoever wrote it was killed, or still writes\n";
    assert!(printed_text.contains(cut), "{printed_text}");
}

#[test]
fn what_is_no_recording_is_one_clear_line() {
    let text = recorded(&[]);
    let garbage = text.replacen("\n{\"t\":0,", "\nhello\n{\"t\":0,", 1);
    let old = text.replacen("\"steadfast_log\":3", "\"steadfast_log\":2", 1);
    for (name, text, problem) in [
        ("empty", "", "line 1 of the recording: the file is empty"),
        ("toml", "name = \"x\"\n", "line 1 of the recording: this is no recording"),
        (
            "old",
            &old,
            "line 1 of the recording: a recording of version 2; this crate reads version 3",
        ),
        ("garbage", &garbage, "line 2 of the recording: expected value, at column 1"),
    ] {
        let file = File::new(name, text);
        let line = format!("error: {}: {problem}\n", file.path());
        assert_eq!(refused(&["replay", file.path()]), line);
    }
    assert!(refused(&["replay", "/nowhere/at-all"]).starts_with("error: /nowhere/at-all: "));
    let file = File::new("bad-time", &text);
    assert_eq!(
        refused(&["replay", file.path(), "--at", "noon"]),
        "error: --at: `noon` is no span of time; write it as 250ms, 1.5s or 2m\n"
    );
    assert!(refused(&["replay", file.path(), "--peer", "x"]).contains("invalid value 'x'"));
}

/// What `replay --policy` prints of this recording under these settings.
fn what_if(name: &str, recording: &str, settings: &str) -> String {
    let log = File::new(&format!("what-if-{name}"), recording);
    let policy = File::new(&format!("what-if-{name}-toml"), settings);
    printed(&["replay", log.path(), "--policy", policy.path()], 0)
}

/// The numbers of a row: recorded, and what if.
fn row(text: &str, name: &str) -> (f64, f64) {
    let line = text.lines().find(|line| line.starts_with(&format!("{name}  "))).unwrap();
    let line = line.replace([',', 's'], "");
    let mut numbers = line.split_whitespace().rev().map(|word| word.parse().unwrap());
    let other = numbers.next().unwrap();
    (numbers.next().unwrap(), other)
}

#[test]
fn without_other_settings_a_what_if_comes_to_the_recorded_answers() {
    let storm = ["duration=25s", "calls.web.rate=100/s"];
    let worlds: [(&str, &[&str]); 7] = [
        ("flapping-link", &["peers.device.count=20"]),
        ("suspend-resume", &["peers.device.count=20"]),
        ("retry-storm", &storm),
        ("rolling-deploy", &["peers.device.count=20"]),
        ("mobile-switch", &["peers.phone.count=20"]),
        ("herd-fleet", &["peers.device.count=12", "managers=3", "duration=60s"]),
        ("one-way-partition", &["peers.deaf.count=10", "peers.mute.count=10", "duration=60s"]),
    ];
    for (scenario, sets) in worlds {
        let text = what_if(scenario, &recorded_of(scenario, sets), "");
        let (_, digests) = text.split_once("\ndigests    recorded ").unwrap();
        let (recorded, other) = (&digests[..16], &digests[26..42]);
        assert_eq!(recorded, other, "{scenario}: {text}");
        assert!(text.contains("steps have the recorded answers"), "{scenario}: {text}");
        assert!(text.contains(", 0 were never answered"), "{scenario}: {text}");
        assert!(text.contains(" recorded facts 0 had nobody to be told to"), "{scenario}: {text}");
    }
}

#[test]
fn a_what_if_shows_both_side_by_side() {
    let text = what_if("both", &recorded(&[]), "peer.backoff.cap = \"5s\"\n");
    assert_text!(text);
}

#[test]
fn a_patient_policy_makes_fewer_dials_and_a_forgetful_one_more() {
    let recording = recorded_of("flapping-link", &["peers.device.count=20"]);
    let patient = what_if("patient", &recording, "peer.backoff = { base = \"10s\", cap = \"5m\" }");
    let (dials, fewer) = row(&patient, "dials");
    assert!(fewer < 0.8 * dials, "{patient}");
    // The world itself, with that setting, makes 1,148.
    let eager = what_if("eager", &recording, "peer.backoff.cap = \"5s\"");
    let (_, more) = row(&eager, "dials");
    assert!((1_000.0..1_300.0).contains(&more), "{eager}");
}

#[test]
fn what_if_the_detector_were_too_eager() {
    let recording = recorded_of("suspend-resume", &["peers.device.count=20"]);
    let text = what_if("eager-detector", &recording, "peer.detector = \"deadline(4s)\"");
    assert!(row(&text, "suspicions").1 > 0.0, "{text}");
    assert!(row(&text, "dials").1 > row(&text, "dials").0, "{text}");
}

#[test]
fn settings_of_calls_reach_those_that_guard_calls() {
    let recording = recorded_of("retry-storm", &["duration=30s"]);
    let text = what_if("calls", &recording, "call.max_attempts = 1\ngate.trip = \"off\"\n");
    let over = "what if    gate.* over the breaker profiles `calls.web`, which guard calls\n";
    assert!(text.contains(over), "{text}");
    let (recorded, other) = row(&text, "breakers opened");
    assert!(recorded > 0.0 && other == 0.0, "{text}");
    let text = what_if("no-dials", &recording, "breaker.trip = \"off\"\n");
    let nothing = "what if    breaker.* over nothing: no breaker of the recording guards dials\n";
    assert!(text.contains(nothing), "{text}");
}

#[test]
fn wrong_settings_are_refused_at_their_place() {
    let log = File::new("wrong-log", &recorded(&[]));
    let cases = [
        "peer.backof.cap = \"5s\"\n",
        "base = \"grpc\"\n",
        "peer.dial_timeout = \"soon\"\n",
        "pacer.burst = 3\n",
        "peer.max_dial_timeout = \"5s\"\n",
        "peer = \n",
    ];
    let mut text = String::new();
    for case in cases {
        let policy = File::new("wrong.toml", case);
        let line = refused(&["replay", log.path(), "--policy", policy.path()]);
        text += &(line.replace(policy.path(), "policy.toml") + "\n");
    }
    insta::assert_snapshot!(text);
    let nowhere = refused(&["replay", log.path(), "--policy", "/nowhere/at-all"]);
    assert!(nowhere.starts_with("error: /nowhere/at-all: "), "{nowhere}");
    let both = refused(&["replay", log.path(), "--policy", "x.toml", "--at", "1s"]);
    assert!(both.contains("cannot be used with"), "{both}");
}

#[test]
fn a_what_if_needs_a_recording_that_it_can_trust() {
    let text = recorded(&[]);
    let policy = File::new("trust.toml", "peer.backoff.cap = \"5s\"\n");
    let of = |log: &File| ["replay", log.path(), "--policy", policy.path()].map(str::to_owned);
    // Torn: as far as it goes.
    let lines: Vec<&str> = text.lines().collect();
    let torn = File::new("what-if-torn", &(lines[..60].join("\n") + "\n{\"t\":12"));
    let args = of(&torn);
    let printed_text = printed(&args.each_ref().map(String::as_str), 0);
    let cut = "\ncut off:   the recording has no end; it goes as far as that\n";
    assert!(printed_text.contains(cut), "{printed_text}");
    // Another one's answers.
    let altered =
        File::new("what-if-altered", &text.replacen("\"failures\":2", "\"failures\":3", 1));
    let args = of(&altered);
    let printed_text = printed(&args.each_ref().map(String::as_str), 1);
    assert!(printed_text.contains("\ndiffers:   this version does not answer"), "{printed_text}");
    let garbage =
        File::new("what-if-garbage", &text.replacen("\n{\"t\":0,", "\nhello\n{\"t\":0,", 1));
    let args = of(&garbage);
    let line = refused(&args.each_ref().map(String::as_str));
    assert!(line.contains("line 2 of the recording: expected value"), "{line}");
}

#[test]
fn a_recording_that_begins_in_the_middle_has_no_what_if() {
    let config = Config::new(3);
    let manager = Manager::new(config, 7).unwrap();
    let start = Start::restored([&manager]);
    let recorder = Recorder::new(Vec::new(), &BTreeMap::new(), &start).unwrap();
    let text = recorder.finish(&[manager.run_digest()]).unwrap();
    let log = File::new("restored", &String::from_utf8(text).unwrap());
    let policy = File::new("restored.toml", "peer.backoff.cap = \"5s\"\n");
    let line = refused(&["replay", log.path(), "--policy", policy.path()]);
    assert!(line.contains(": it begins in the middle of a run, with managers whose "), "{line}");
}
