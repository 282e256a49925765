//! The recording of a run, lived through again.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use steadfast_tokio::Record;
use steadfast_tokio::steadfast::recording::{End, Next, Replay};
use steadfast_tokio::steadfast::{Action, Time};

/// Where the recordings of these tests lie, for whoever wants to replay them too.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("recordings")
}

fn file(name: &str) -> PathBuf {
    folder().join(format!("{name}.0.000001.jsonl"))
}

/// A recording in one file of that name, in place of the one of an earlier run.
pub(crate) fn anew(name: &str) -> Record {
    fs::create_dir_all(folder()).unwrap();
    // It may not be there.
    let _ = fs::remove_file(file(name));
    Record::to(folder().join(name))
}

/// Replays the run, which must be complete, come to the same actions and to that digest; when it
/// dialed.
pub(crate) fn replayed(name: &str, digest: u64) -> Vec<Time> {
    let mut replay = Replay::new(BufReader::new(File::open(file(name)).unwrap())).unwrap();
    let mut dials = vec![];
    loop {
        match replay.next_step().unwrap() {
            Next::Same(step) => {
                let dialed = |action: &&Action| matches!(action, Action::Dial { .. });
                dials.extend(step.actions.iter().filter(dialed).map(|_| step.at));
            }
            Next::Differs(difference) => panic!("{difference}"),
            Next::End(end) => {
                assert_eq!(end, End::Complete { differing: vec![] });
                assert_eq!(replay.managers()[0].run_digest(), digest);
                return dials;
            }
        }
    }
}

/// Panics if more dials began within any window than `bound` allows for its length.
pub(crate) fn assert_within(dials: &[Time], bound: impl Fn(Duration) -> u64) {
    for (place, first) in dials.iter().enumerate() {
        for (number, last) in (1..).zip(&dials[place..]) {
            let window = last.since(*first);
            assert!(number <= bound(window), "{number} dials within {window:?}");
        }
    }
}
