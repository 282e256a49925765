//! Traces in the Chrome trace event format: what Perfetto asks of them.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that goes wrong should stop there"
)]

use std::collections::BTreeMap;

use serde_json::Value;
use steadfast_sim::{Options, Records, Simulation};

fn trace(scenario: &str, policy: &str, sets: &[&str]) -> Value {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let simulation = Simulation::from_scenario(scenario)
        .and_then(|one| one.set_all(&sets))
        .and_then(|one| one.policy(policy))
        .unwrap()
        .options(Options { invariants: Some(false), ledger: false, ..Options::default() });
    let mut text = Vec::new();
    let records = Records { trace: Some(Box::new(&mut text)), ..Records::default() };
    let traced = simulation.run_recorded(1, records, &mut |_| {}).unwrap();
    assert_eq!(traced.digest(), simulation.run(1).unwrap().digest(), "to trace changes nothing");
    serde_json::from_slice(&text).unwrap()
}

/// An event's time and end, in whole nanoseconds.
fn times(event: &Value) -> (u64, u64) {
    let nanos = |key: &str| {
        let micros = event[key].as_f64().unwrap_or(0.0);
        assert!(micros >= 0.0, "{event}");
        (micros * 1e3).round() as u64
    };
    (nanos("ts"), nanos("ts") + nanos("dur"))
}

/// Checks what the format asks for, and counts events by kind and process.
#[track_caller]
fn check(trace: &Value) -> BTreeMap<String, usize> {
    assert_eq!(trace["displayTimeUnit"], "ms");
    let (mut last, mut counts) = (0, BTreeMap::new());
    let mut ends: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut named = BTreeMap::new();
    for event in trace["traceEvents"].as_array().unwrap() {
        let id = |key: &str| event[key].as_u64().filter(|id| *id <= u64::from(u32::MAX)).unwrap();
        let (pid, tid, phase) = (id("pid"), id("tid"), event["ph"].as_str().unwrap());
        *counts.entry(format!("{phase} {pid}")).or_insert(0) += 1;
        if phase == "M" {
            if event["args"]["name"].is_string() {
                named.insert((pid, tid), event["args"]["name"].as_str().unwrap().to_owned());
            }
            continue;
        }
        let (from, to) = times(event);
        assert!(from >= last, "times rise: {event}");
        last = from;
        assert!(!event["name"].as_str().unwrap().is_empty());
        assert!(named.contains_key(&(pid, 0)), "its process has a name: {event}");
        match phase {
            "X" => {
                let end = ends.entry((pid, tid)).or_insert(0);
                assert!(from >= *end, "one begins when the one before is over: {event}");
                *end = to;
            }
            "C" => assert!(event["args"]["value"].is_number(), "{event}"),
            "i" => assert_eq!(event["s"], "t"),
            other => panic!("{other}"),
        }
    }
    counts
}

#[test]
fn a_herd_has_its_faults_breakers_peers_and_counters() {
    let sets = ["peers.device.count=300", "servers.lb.accept=60/s", "duration=60s"];
    let counts = check(&trace("herd-lb-restart", "ours", &sets));
    assert_eq!(counts["X 1"], 1, "a fault");
    assert!(counts["X 2"] >= 3, "a breaker opens, probes, closes: {counts:?}");
    assert_eq!(counts["M 3"], 2 + 2 * 200, "the first 200 peers have tracks");
    assert_eq!(counts["C 4"], 3 * 240);
}

#[test]
fn many_faults_and_breakers_stay_within_bounds() {
    let sets = ["peers.device.count=100"];
    let trace = trace("flapping-link", "naive", &sets);
    let counts = check(&trace);
    assert_eq!(counts["X 1"], 120);
    assert!(trace["traceEvents"].as_array().unwrap().len() <= 200_000 + 500);
    assert!(trace["otherData"]["events that did not fit"].is_u64());
}

#[test]
fn calls_and_sleeps_are_traced_too() {
    let sets = ["highest_load.policies=[]", "managers=3", "duration=60s"];
    let counts = check(&trace("retry-storm", "ours", &sets));
    assert!(counts["X 2"] >= 9, "{counts:?}");
    let counts = check(&trace("suspend-resume", "ours", &["peers.device.count=50"]));
    assert!(counts["i 5"] >= 1, "{counts:?}");
    assert!(check(&trace("trace-5g", "ours", &["duration=60s"])).contains_key("C 4"));
}

#[test]
fn a_trace_that_cannot_be_written_is_told_of() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let simulation = Simulation::from_scenario("herd-queueing")
        .and_then(|one| one.set("peers.device.count=20"))
        .unwrap();
    let records = Records { trace: Some(Box::new(Full)), ..Records::default() };
    let error = simulation.run_recorded(1, records, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot write the trace: the disk is full"), "{error}");
}
