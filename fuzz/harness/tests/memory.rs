//! What a hostile file takes is bounded by its size, whatever it says.
//!
//! Its own binary with a counting allocator, and one test, so that nobody else allocates meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::alloc::System;
use std::collections::BTreeSet;
use std::io::Write;

use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use steadfast::recording::Replay;
use steadfast::{Manager, Snapshot};
use steadfast_sim::Simulation;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// All that was allocated on the way, the freed included.
fn taken(work: impl FnOnce()) -> usize {
    let region = Region::new(GLOBAL);
    work();
    region.change().bytes_allocated
}

fn restore(text: &str) {
    if let Ok(snapshot) = serde_json::from_slice::<Snapshot>(text.as_bytes()) {
        drop(Manager::restore(snapshot, 1));
    }
}

/// Written as recordings write theirs: the code for that is there, and need not be generated again.
fn tree(snapshot: &Snapshot) -> Value {
    let mut text = Vec::new();
    let to: &mut dyn Write = &mut text;
    serde_json::to_writer(to, snapshot).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The pointers of all values of a kind; of many slots one is enough.
fn pointers(tree: &Value, keep: fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut left = vec![(String::new(), tree)];
    while let Some((at, value)) = left.pop() {
        let alike = at.replace(|digit: char| digit.is_ascii_digit(), "");
        if keep(value) && seen.insert(alike) {
            found.push(at.clone());
        }
        match value {
            Value::Object(fields) => {
                left.extend(fields.iter().map(|(name, field)| (format!("{at}/{name}"), field)));
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                left.extend(items.map(|(place, item)| (format!("{at}/{place}"), item)));
            }
            _ => {}
        }
    }
    found
}

const ABSURD: [u64; 3] = [u64::MAX, u32::MAX as u64, 1 << 27];

#[test]
fn no_count_in_a_file_is_believed() {
    let whole = tree(&steadfast_fuzz::lively(20));
    let usual = taken(|| restore(&whole.to_string()));
    for at in pointers(&whole, Value::is_number) {
        for absurd in ABSURD {
            let mut changed = whole.clone();
            *changed.pointer_mut(&at).unwrap() = json!(absurd);
            let text = changed.to_string();
            let bytes = taken(|| restore(&text));
            assert!(bytes < 2 * usual + 10_000, "{at} = {absurd}: {bytes} B, not {usual}");
        }
    }
    // What is long takes so much more.
    for at in pointers(&whole, Value::is_array) {
        for item in [json!(null), json!(0), json!([]), json!({})] {
            let mut changed = whole.clone();
            changed.pointer_mut(&at).unwrap().as_array_mut().unwrap().resize(4_000, item);
            let text = changed.to_string();
            let bytes = taken(|| restore(&text));
            assert!(bytes < 300 * text.len(), "{at}: {bytes} B of {}", text.len());
        }
    }
    let config = json!({"steadfast_log": 3, "version": "", "about": {}, "start": {"new": {
        "config": whole["config"], "seeds": [1, 2]}}});
    let usual = taken(|| drop(Replay::new(format!("{config}\n").as_bytes())));
    for at in pointers(&config, Value::is_number) {
        for absurd in ABSURD {
            let mut changed = config.clone();
            *changed.pointer_mut(&at).unwrap() = json!(absurd);
            let text = format!("{changed}\n");
            let bytes = taken(|| drop(Replay::new(text.as_bytes())));
            assert!(bytes < 2 * usual + 10_000, "{at} = {absurd}: {bytes} B, not {usual}");
        }
    }
    let text = include_str!("../../../sim/scenarios/small-world.toml");
    let usual = taken(|| drop(Simulation::from_toml(text)));
    let digit = |place: usize| text.as_bytes().get(place).is_some_and(u8::is_ascii_digit);
    for start in (0..text.len()).filter(|&place| digit(place) && !digit(place - 1)) {
        let (before, rest) = text.split_at(start);
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        for absurd in ABSURD {
            let text = format!("{before}{absurd}{rest}");
            let bytes = taken(|| drop(Simulation::from_toml(&text)));
            assert!(bytes < 10 * usual, "{before}{absurd}: {bytes} B, not {usual}");
        }
    }
}
