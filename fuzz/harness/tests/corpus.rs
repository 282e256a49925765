//! Every case of the corpus, through the functions that the fuzz targets are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that goes wrong should stop there")]

use std::fs;
use std::path::{Path, PathBuf};

/// Goes through a target's folder; what panics is told with its file.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let cases = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut cases: Vec<PathBuf> = cases.map(|case| case.unwrap().path()).collect();
    assert!(!cases.is_empty(), "{folder:?} is empty");
    cases.sort();
    for case in cases {
        let bytes = fs::read(&case).unwrap();
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            panic!("{}", case.display());
        }
    }
}

#[test]
fn no_corpus_of_events_breaks_a_promise() {
    replay("events", steadfast_fuzz::events);
}

#[test]
fn no_corpus_of_snapshots_breaks_a_promise() {
    replay("snapshots", steadfast_fuzz::snapshots);
}

#[test]
fn no_corpus_of_recordings_breaks_a_promise() {
    replay("recordings", steadfast_fuzz::recordings);
}

#[test]
fn no_corpus_of_scenarios_breaks_a_promise() {
    replay("scenarios", steadfast_fuzz::scenarios);
}
