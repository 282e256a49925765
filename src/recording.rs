//! A run as a file: what reached the managers and what they answered, to be lived through again.
//!
//! A manager is a function of its inputs, so whoever has those has the whole run: every driver can
//! write them down with a [`Recorder`], and a [`Replay`] feeds them to new managers, checks each
//! answer against the recorded one, and can be stopped at any moment to ask what everybody waits
//! for.
//!
//! The format is JSON Lines. The first line says what the recording is and how it begins, each
//! further one is a step, the last one says how it ended:
//!
//! ```json
//! {"steadfast_log":3,"version":"0.1.0","about":{"driver":"poll"},"start":{"new":{"config":{…},"seeds":[7]}}}
//! {"t":0,"event":{"connect":{"peer":1}},"actions":[{"dial":{"conn":0,"peer":1,"endpoint":0,"resume":false}}]}
//! {"t":1500000,"event":{"heard":{"conn":0}}}
//! {"end":{"steps":2,"digests":["5f3c91d20b7a44e1"]}}
//! ```
//!
//! `t` is in nanoseconds and is the `now` of the step, whatever it was. `manager` is left out for
//! the first one, `actions` where there are none. A recording may begin in the middle of a run,
//! with the managers' snapshots, so that each piece of a file that is rotated can be replayed alone.
//! The key of the managers' id tables is a secret of the process and not in it; it changes nothing.
//!
//! # Examples
//!
//! ```
//! use std::collections::BTreeMap;
//! use steadfast::recording::{End, Next, Recorder, Replay, Start};
//! use steadfast::{BreakerId, Config, Event, Manager, Time};
//!
//! let config = Config::new(42);
//! let about = BTreeMap::from([("driver".into(), "example".into())]);
//! let mut recorder = Recorder::new(Vec::new(), &about, &Start::new(&config))?;
//! let profile = config.breaker_profile("default").unwrap();
//! let mut manager = Manager::new(config, 7)?;
//! for (now, breaker) in [(Time::ZERO, BreakerId(1)), (Time::from_secs(1), BreakerId(2))] {
//!     let event = Event::AddBreaker { breaker, profile };
//!     let actions = manager.step(event.clone(), now);
//!     recorder.step(0, now, &event, &actions)?;
//! }
//! let recording = recorder.finish(&[manager.run_digest()])?;
//!
//! let mut replay = Replay::new(recording.as_slice())?;
//! let end = loop {
//!     match replay.next_step()? {
//!         Next::Same(step) => println!("{} {:?}", step.at, step.event),
//!         Next::Differs(difference) => panic!("{difference}"),
//!         Next::End(end) => break end,
//!     }
//! };
//! assert_eq!(end, End::Complete { differing: vec![] });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod record;
mod replay;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::config::Config;
use crate::event::Event;
use crate::manager::{Manager, Snapshot};
use crate::time::Time;

pub use record::{Recorder, write_header};
pub use replay::{Difference, End, Next, Replay, Step};

/// The version of the format that this crate writes and reads.
///
/// 2 had no actions and was the simulator's alone; 1 knew no calls.
pub const VERSION: u64 = 3;

/// With what managers a recording begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// With new ones, which differ only in their seed.
    New {
        /// How they are configured; its seed is not used.
        config: Box<Config>,
        /// Of each manager, in order.
        seeds: Vec<u64>,
    },
    /// With those that these were taken of, in order: it begins in the middle of a run.
    Restored {
        /// Each with its own configuration and seed.
        snapshots: Vec<Snapshot>,
    },
}

impl Start {
    /// With one new manager.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::New { config: Box::new(config.clone()), seeds: vec![config.seed] }
    }

    /// With these managers as they are now. O(n).
    #[must_use]
    pub fn restored<'a>(managers: impl IntoIterator<Item = &'a Manager>) -> Self {
        Self::Restored { snapshots: managers.into_iter().map(Manager::snapshot).collect() }
    }
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    steadfast_log: u64,
    version: &'a str,
    about: &'a BTreeMap<String, String>,
    start: &'a Start,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    #[serde(rename = "steadfast_log")]
    _format: u64,
    version: String,
    about: BTreeMap<String, String>,
    start: Start,
}

#[derive(Serialize)]
struct StepOut<'a> {
    t: Time,
    #[serde(skip_serializing_if = "is_first")]
    manager: usize,
    event: &'a Event,
    #[serde(skip_serializing_if = "<[Action]>::is_empty")]
    actions: &'a [Action],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_first(manager: &usize) -> bool {
    *manager == 0
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepIn {
    t: Time,
    #[serde(default)]
    manager: usize,
    event: Event,
    #[serde(default)]
    actions: Vec<Action>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    end: Totals,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    steps: u64,
    digests: Vec<String>,
}

// Reader and writer are generic; what becomes of each line is not, so that its code is made once and
// not again in every crate that records or replays.

impl HeaderOut<'_> {
    /// As it goes: the snapshots may be large.
    fn write_to(&self, to: &mut dyn Write) -> serde_json::Result<()> {
        serde_json::to_writer(to, self)
    }
}

impl StepOut<'_> {
    fn write_to(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(text, self)
    }
}

impl Footer {
    fn write_to(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(text, self)
    }

    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }
}

impl Header {
    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }
}

impl StepIn {
    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }
}

/// What is wrong with a recording, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordingError {
    line: u64,
    problem: String,
}

impl RecordingError {
    fn new(line: u64, problem: impl fmt::Display) -> Self {
        Self { line, problem: problem.to_string() }
    }

    /// A line that is not what it should be. The parser knows of one line only, so its number is
    /// replaced by ours.
    fn unreadable(line: u64, error: &serde_json::Error) -> Self {
        let (text, column) = (error.to_string(), error.column());
        let place = format!(" at line {} column {column}", error.line());
        match text.strip_suffix(&place) {
            Some(problem) => Self::new(line, format_args!("{problem}, at column {column}")),
            None => Self::new(line, text),
        }
    }

    /// The line, counted from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// What is wrong with it.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the recording: {}", self.line, self.problem)
    }
}

impl std::error::Error for RecordingError {}
