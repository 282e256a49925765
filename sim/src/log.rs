//! A run as a file: the events of every manager, so that it can be lived through again.
//!
//! JSON Lines. The first line says what the log is and how the managers were configured, each
//! further line is one event, the last one says how the run ended:
//!
//! ```json
//! {"steadfast_log":2,"version":"0.1.0","scenario":"…","policy":"ours","seed":1,"config":{…},"seeds":[7]}
//! {"t":0,"manager":0,"event":{"connect":{"peer":1}}}
//! {"end":{"events":1,"digests":["5f3c91d20b7a44e1"]}}
//! ```
//!
//! Times are nanoseconds. The key of the managers' id tables is a secret of the process and is not
//! in the log; it changes nothing.

use std::fmt;
use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use steadfast::config::Config;
use steadfast::{Event, Manager, Time};

/// The version of the format that this reads and writes.
const VERSION: u64 = 2;

/// Somebody who is told all that reaches the managers.
pub(crate) trait Recorder {
    /// The run begins with managers of this configuration and these seeds.
    fn begin(&mut self, config: &Config, seeds: &[u64]);
    /// An event reaches a manager.
    fn record(&mut self, manager: usize, now: Time, event: &Event);
    /// The run is over.
    fn end(&mut self, events: u64, digests: &[u64]);
}

/// A recorder that forgets.
#[derive(Debug)]
pub(crate) struct Forget;

impl Recorder for Forget {
    fn begin(&mut self, _: &Config, _: &[u64]) {}
    fn record(&mut self, _: usize, _: Time, _: &Event) {}
    fn end(&mut self, _: u64, _: &[u64]) {}
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    steadfast_log: u64,
    version: String,
    scenario: String,
    policy: String,
    seed: u64,
    config: Config,
    seeds: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    t: Time,
    manager: usize,
    event: Event,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    end: End,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    events: u64,
    digests: Vec<String>,
}

/// Writes a run into a file.
pub(crate) struct Writer<W> {
    to: W,
    scenario: String,
    policy: String,
    seed: u64,
    failed: Option<std::io::Error>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(to: W, scenario: &str, policy: &str, seed: u64) -> Self {
        let (scenario, policy) = (scenario.to_owned(), policy.to_owned());
        Self { to, scenario, policy, seed, failed: None }
    }

    /// Whether all was written.
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        match self.failed {
            Some(error) => Err(error),
            None => self.to.flush(),
        }
    }

    fn line(&mut self, value: &impl Serialize) {
        if self.failed.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut self.to, value).map_err(std::io::Error::from);
        self.failed = written.and_then(|()| self.to.write_all(b"\n")).err();
    }
}

impl<W: Write> Recorder for Writer<W> {
    fn begin(&mut self, config: &Config, seeds: &[u64]) {
        let header = Header {
            steadfast_log: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: self.scenario.clone(),
            policy: self.policy.clone(),
            seed: self.seed,
            config: config.clone(),
            seeds: seeds.to_vec(),
        };
        self.line(&header);
    }

    fn record(&mut self, manager: usize, now: Time, event: &Event) {
        self.line(&Entry { t: now, manager, event: event.clone() });
    }

    fn end(&mut self, events: u64, digests: &[u64]) {
        let digests = digests.iter().map(|digest| format!("{digest:016x}")).collect();
        self.line(&Footer { end: End { events, digests } });
    }
}

/// What is wrong with a log, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    line: usize,
    problem: String,
}

impl LogError {
    fn new(line: usize, problem: impl fmt::Display) -> Self {
        Self { line, problem: problem.to_string() }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the log: {}", self.line, self.problem)
    }
}

impl std::error::Error for LogError {}

/// A log that was read.
#[derive(Debug)]
pub struct Log {
    header: Header,
    entries: Vec<Entry>,
    end: End,
}

/// How a replay went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// How many events were fed.
    pub events: u64,
    /// The managers whose digest is not the recorded one: they answered otherwise.
    pub differing: Vec<usize>,
}

impl Log {
    /// Reads a log.
    ///
    /// # Errors
    ///
    /// The first line that is not as it must be: another version, an unknown field, garbage, or an
    /// end that is missing because the file was cut off.
    pub fn read(from: impl BufRead) -> Result<Self, LogError> {
        let mut lines = from.lines().enumerate().map(|(place, line)| match line {
            Ok(line) => Ok((place + 1, line)),
            Err(error) => Err(LogError::new(place + 1, error)),
        });
        let (_, first) = lines.next().ok_or_else(|| LogError::new(1, "the log is empty"))??;
        let header = read_header(&first)?;
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(line) = lines.next() {
            let (place, line) = line?;
            let wrong = |error: serde_json::Error| LogError::new(place, error);
            if line.starts_with("{\"end\"") {
                let Footer { end } = serde_json::from_str(&line).map_err(wrong)?;
                if lines.next().is_some() {
                    return Err(LogError::new(place + 1, "there is more after the end"));
                }
                return Self { header, entries, end }.checked(place);
            }
            let entry: Entry = serde_json::from_str(&line).map_err(wrong)?;
            if entry.manager >= header.seeds.len() {
                return Err(LogError::new(place, format!("there is no manager {}", entry.manager)));
            }
            entries.push(entry);
        }
        let problem = "the log ends without its last line: it was cut off";
        Err(LogError::new(entries.len() + 2, problem))
    }

    fn checked(self, place: usize) -> Result<Self, LogError> {
        if self.end.events != self.entries.len() as u64 {
            let (told, found) = (self.end.events, self.entries.len());
            return Err(LogError::new(
                place,
                format!("it tells of {told} events, there are {found}"),
            ));
        }
        if self.end.digests.len() != self.header.seeds.len() {
            return Err(LogError::new(place, "there is not one digest for each manager"));
        }
        Ok(self)
    }

    /// The scenario, policy and seed that were recorded.
    #[must_use]
    pub fn recorded(&self) -> (&str, &str, u64) {
        (&self.header.scenario, &self.header.policy, self.header.seed)
    }

    /// Feeds the events to new managers and compares what became of them.
    ///
    /// # Errors
    ///
    /// A configuration that this version refuses.
    pub fn replay(&self) -> Result<Replay, LogError> {
        let managers = self.header.seeds.iter().map(|seed| {
            let config = Config { seed: *seed, ..self.header.config.clone() };
            Manager::new(config, *seed).map_err(|error| LogError::new(1, error))
        });
        let mut managers = managers.collect::<Result<Vec<_>, _>>()?;
        let mut actions = Vec::new();
        for entry in &self.entries {
            if let Some(manager) = managers.get_mut(entry.manager) {
                actions.clear();
                manager.step_into(entry.event.clone(), entry.t, &mut actions);
            }
        }
        let digests = managers.iter().map(|manager| format!("{:016x}", manager.run_digest()));
        let pairs = (0..).zip(digests.zip(&self.end.digests));
        let differing = pairs.filter(|(_, (now, then))| now != *then).map(|(manager, _)| manager);
        Ok(Replay { events: self.end.events, differing: differing.collect() })
    }
}

fn read_header(line: &str) -> Result<Header, LogError> {
    let value: serde_json::Value = serde_json::from_str(line)
        .map_err(|error| LogError::new(1, format!("this is no log of ours: {error}")))?;
    match value.get("steadfast_log").and_then(serde_json::Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => {
            let problem = format!("a log of version {other}; this program reads version {VERSION}");
            return Err(LogError::new(1, problem));
        }
        None => return Err(LogError::new(1, "this is no log of ours")),
    }
    serde_json::from_str(line).map_err(|error| LogError::new(1, error))
}
