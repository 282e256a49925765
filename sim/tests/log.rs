//! A run as a file, and the file lived through again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that goes wrong should stop there"
)]

use steadfast_sim::{Log, Simulation};

fn logged() -> (String, u64) {
    let simulation = Simulation::from_scenario("herd-fleet")
        .and_then(|simulation| simulation.set("peers.device.count=40"))
        .and_then(|simulation| simulation.set("managers=3"))
        .and_then(|simulation| simulation.set("duration=30s"))
        .unwrap();
    let mut log = Vec::new();
    let run = simulation.run_logged(5, &mut log, &mut |_| {}).unwrap();
    (String::from_utf8(log).unwrap(), run.summary().events)
}

fn error(log: &str) -> String {
    Log::read(log.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_log_replays_to_the_same_digests() {
    let (text, events) = logged();
    let log = Log::read(text.as_bytes()).unwrap();
    assert_eq!(log.recorded(), ("herd-fleet", "ours", 5));
    let replay = log.replay().unwrap();
    assert_eq!((replay.events, replay.differing), (events, vec![]));
}

#[test]
fn the_secret_key_is_not_in_the_log() {
    assert!(!logged().0.contains("hash_key"));
}

#[test]
fn a_changed_event_shows_in_the_managers_digest() {
    let (text, _) = logged();
    let changed = text.replacen("\"cause\":\"reset\"", "\"cause\":\"eof\"", 1);
    assert_ne!(text, changed);
    assert_eq!(Log::read(changed.as_bytes()).unwrap().replay().unwrap().differing.len(), 1);
}

#[test]
fn a_damaged_log_is_refused_with_the_line() {
    let (text, events) = logged();
    let lines: Vec<_> = text.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    assert_eq!(
        error(&cut),
        format!(
            "line {} of the log: the log ends without its last line: it was cut off",
            events + 2
        )
    );
    assert!(error(&text[..text.len() - 20]).starts_with(&format!("line {}", events + 2)));
    let missing = text.replacen(&format!("{}\n", lines[5]), "", 1);
    assert!(error(&missing).contains("events, there are"), "{}", error(&missing));
    let garbage = text.replacen(lines[3], "{\"t\":5,\"manager\":0,\"event\":\"bang\"}", 1);
    assert!(error(&garbage).starts_with("line 4 of the log: unknown variant `bang`"));
    let unknown = text.replacen("{\"t\":0,", "{\"t\":0,\"u\":1,", 1);
    assert!(error(&unknown).starts_with("line 2 of the log: unknown field `u`"));
    let nobody = text.replacen("\"manager\":0", "\"manager\":9", 1);
    assert!(error(&nobody).contains("there is no manager 9"));
    assert_eq!(error(""), "line 1 of the log: the log is empty");
    assert!(error("hello").starts_with("line 1 of the log: this is no log of ours"));
    assert_eq!(error("{\"a\":1}"), "line 1 of the log: this is no log of ours");
}

#[test]
fn a_log_of_another_version_is_refused() {
    let (text, _) = logged();
    let other = text.replacen("\"steadfast_log\":2", "\"steadfast_log\":1", 1);
    assert_eq!(
        error(&other),
        "line 1 of the log: a log of version 1; this program reads version 2"
    );
}
