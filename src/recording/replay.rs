//! Reading a recording: one line, one step, one comparison at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Read};

use serde::Deserialize;

use super::{Footer, Header, RecordingError, Start, StepIn, Totals, VERSION};
use crate::action::Action;
use crate::config::Config;
use crate::event::Event;
use crate::manager::Manager;
use crate::time::Time;

/// How every recording begins, so that another file is known after its first bytes.
const BEGINNING: &[u8] = b"{\"steadfast_log\":";
/// The longest line; more is not read into memory. A million peers' snapshot is shorter.
const MAX_LINE: u64 = 1 << 30;
/// About what a new manager takes, beside its configuration.
const MANAGER_BYTES: usize = 32 << 10;
/// What the managers of one recording may take before its first step: 32,000 of them.
const MAX_BYTES: usize = 1 << 30;
/// The key of the id tables; any will do.
const HASH_KEY: u64 = 0x5eed;

/// A step of a recording, which the replay has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The line of the recording, counted from 1.
    pub line: u64,
    /// When.
    pub at: Time,
    /// Which manager.
    pub manager: usize,
    /// What it was told.
    pub event: Event,
    /// What it answers.
    pub actions: Vec<Action>,
}

/// A step that a manager answered otherwise than when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The line of the recording, counted from 1.
    pub line: u64,
    /// When.
    pub at: Time,
    /// Which manager.
    pub manager: usize,
    /// What it was told.
    pub event: Event,
    /// What it answered then.
    pub recorded: Vec<Action>,
    /// What it answers now.
    pub replayed: Vec<Action>,
}

impl Difference {
    /// The place of the first action that differs.
    #[must_use]
    pub fn place(&self) -> usize {
        let pairs = self.recorded.iter().zip(&self.replayed);
        pairs.take_while(|(recorded, replayed)| recorded == replayed).count()
    }

    /// The first action that differs: as recorded, and as replayed; `None` where there is none.
    #[must_use]
    pub fn actions(&self) -> (Option<&Action>, Option<&Action>) {
        (self.recorded.get(self.place()), self.replayed.get(self.place()))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, at, manager, event, .. } = self;
        write!(f, "line {line}, {at}, manager {manager}, {event:?}: ")?;
        let place = self.place() + 1;
        match self.actions() {
            (Some(recorded), Some(replayed)) => {
                write!(f, "action {place} was {recorded:?} and is {replayed:?}")
            }
            (Some(recorded), None) => write!(f, "action {place} was {recorded:?} and is missing"),
            (None, Some(replayed)) => write!(f, "action {place} is {replayed:?} and was not there"),
            (None, None) => f.write_str("no difference"),
        }
    }
}

/// How a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// As it should.
    Complete {
        /// The managers whose run digest is not the recorded one, although each of their actions
        /// was: digests are computed otherwise now. Not compared after a difference.
        differing: Vec<usize>,
    },
    /// In the middle: whoever wrote it was killed.
    CutOff {
        /// Whether a piece of a line is left, which tells nothing.
        torn: bool,
    },
}

/// What comes next in a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A step with the recorded answer.
    Same(Step),
    /// A step with another one. The steps after it can be asked for all the same.
    Differs(Box<Difference>),
    /// Nothing.
    End(End),
}

/// Lives through a recording again.
///
/// It reads a line at a time, so a recording may be longer than memory.
#[derive(Debug)]
pub struct Replay<R> {
    from: R,
    version: String,
    about: BTreeMap<String, String>,
    restored: bool,
    managers: Vec<Manager>,
    /// The line that was read last.
    text: Vec<u8>,
    line: u64,
    /// The step that was read and not yet made.
    ahead: Option<StepIn>,
    end: Option<End>,
    steps: u64,
    actions: u64,
    differs: bool,
}

impl<R: BufRead> Replay<R> {
    /// Reads the header and makes the managers.
    ///
    /// # Errors
    ///
    /// No recording, one of another version, or managers that cannot be: a configuration that is
    /// refused, a damaged snapshot, more managers than fit into a gigabyte.
    pub fn new(from: R) -> Result<Self, RecordingError> {
        let mut replay = Self {
            from,
            version: String::new(),
            about: BTreeMap::new(),
            restored: false,
            managers: Vec::new(),
            text: Vec::new(),
            line: 0,
            ahead: None,
            end: None,
            steps: 0,
            actions: 0,
            differs: false,
        };
        let header = replay.read_header()?;
        (replay.version, replay.about) = (header.version, header.about);
        replay.restored = matches!(header.start, Start::Restored { .. });
        replay.managers = managers(header.start).map_err(|problem| replay.wrong(problem))?;
        Ok(replay)
    }

    /// Makes the next step and compares its answer with the recorded one.
    ///
    /// After the end it answers with the end again.
    ///
    /// # Errors
    ///
    /// A line that makes no sense. What is torn at the very end is no error but a
    /// [cut](End::CutOff). It makes no sense to go on after an error.
    pub fn next_step(&mut self) -> Result<Next, RecordingError> {
        self.look_ahead()?;
        let Some(StepIn { t: at, manager, event, actions: recorded }) = self.ahead.take() else {
            return Ok(Next::End(self.end.clone().unwrap_or(End::CutOff { torn: false })));
        };
        let line = self.line;
        let Some(stepped) = self.managers.get_mut(manager) else {
            return Err(self.wrong(format_args!("there is no manager {manager}")));
        };
        let actions = stepped.step(event.clone(), at);
        self.steps += 1;
        self.actions += actions.len() as u64;
        if actions == recorded {
            return Ok(Next::Same(Step { line, at, manager, event, actions }));
        }
        self.differs = true;
        let replayed = actions;
        Ok(Next::Differs(Box::new(Difference { line, at, manager, event, recorded, replayed })))
    }

    /// When the next step is, without making it; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`next_step`](Self::next_step).
    pub fn next_at(&mut self) -> Result<Option<Time>, RecordingError> {
        self.look_ahead()?;
        Ok(self.ahead.as_ref().map(|step| step.t))
    }

    fn look_ahead(&mut self) -> Result<(), RecordingError> {
        if self.ahead.is_some() || self.end.is_some() {
            return Ok(());
        }
        let whole = self.read_line()?;
        if self.text.is_empty() && !whole {
            self.end = Some(End::CutOff { torn: false });
        } else if self.text.starts_with(b"{\"end\"") {
            if let Some(Footer { end }) = self.parse(whole, Footer::parse)? {
                self.end = Some(self.compare(&end)?);
            }
        } else if let Some(step) = self.parse(whole, StepIn::parse)? {
            if step.manager >= self.managers.len() {
                return Err(self.wrong(format_args!("there is no manager {}", step.manager)));
            }
            self.ahead = Some(step);
        }
        Ok(())
    }

    /// The line as what it should be; `None` if only a piece of it is there.
    fn parse<T>(
        &mut self,
        whole: bool,
        parse: fn(&[u8]) -> serde_json::Result<T>,
    ) -> Result<Option<T>, RecordingError> {
        match parse(&self.text) {
            Ok(value) => Ok(Some(value)),
            Err(error) if !whole && error.is_eof() => {
                self.end = Some(End::CutOff { torn: true });
                Ok(None)
            }
            Err(error) => Err(RecordingError::unreadable(self.line, &error)),
        }
    }

    /// Compares what the last line says with what happened.
    fn compare(&mut self, end: &Totals) -> Result<End, RecordingError> {
        let (told, found) = (end.steps, self.steps);
        if told != found {
            return Err(self.wrong(format_args!("it tells of {told} steps, there are {found}")));
        }
        if end.digests.len() != self.managers.len() {
            let (digests, managers) = (end.digests.len(), self.managers.len());
            return Err(self.wrong(format_args!("{digests} digests of {managers} managers")));
        }
        let mut differing = Vec::new();
        for (place, (manager, text)) in self.managers.iter().zip(&end.digests).enumerate() {
            let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let digest = u64::from_str_radix(text, 16).ok().filter(|_| digits);
            let wrong = || self.wrong("a digest has 16 hexadecimal digits");
            if digest.ok_or_else(wrong)? != manager.run_digest() && !self.differs {
                differing.push(place);
            }
        }
        if self.read_line()? || !self.text.is_empty() {
            return Err(self.wrong("there is more after the end"));
        }
        Ok(End::Complete { differing })
    }

    fn read_header(&mut self) -> Result<Header, RecordingError> {
        // Not a byte more than this is read of a file that is something else.
        let mut from = (&mut self.from).take(BEGINNING.len() as u64);
        let read = from.read_to_end(&mut self.text);
        self.line = 1;
        read.map_err(|error| self.wrong(error))?;
        if self.text.is_empty() {
            return Err(self.wrong("the file is empty"));
        }
        if self.text != BEGINNING {
            return Err(self.wrong("this is no recording"));
        }
        if !self.read_rest()? {
            return Err(self.wrong("it was cut off before the end of its header"));
        }
        #[derive(Deserialize)]
        struct Format {
            steadfast_log: u64,
        }
        let unreadable = |error| RecordingError::unreadable(1, &error);
        let format: Format = serde_json::from_slice(&self.text).map_err(unreadable)?;
        if format.steadfast_log != VERSION {
            let found = format.steadfast_log;
            let problem =
                format!("a recording of version {found}; this crate reads version {VERSION}");
            return Err(self.wrong(problem));
        }
        Header::parse(&self.text).map_err(unreadable)
    }

    /// Reads one line, without its end; whether it had one.
    fn read_line(&mut self) -> Result<bool, RecordingError> {
        self.text.clear();
        self.line += 1;
        self.read_rest()
    }

    fn read_rest(&mut self) -> Result<bool, RecordingError> {
        let read = (&mut self.from).take(MAX_LINE).read_until(b'\n', &mut self.text);
        let read = read.map_err(|error| self.wrong(error))?;
        if self.text.last() == Some(&b'\n') {
            self.text.pop();
            return Ok(true);
        }
        if read as u64 == MAX_LINE {
            return Err(self.wrong("it is longer than a gigabyte"));
        }
        // A power cut may leave a hole where the file had grown and nothing was written yet.
        let written = self.text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        self.text.truncate(written);
        Ok(false)
    }

    fn wrong(&self, problem: impl fmt::Display) -> RecordingError {
        RecordingError::new(self.line, problem)
    }
}

/// # Reading
impl<R> Replay<R> {
    /// The managers as they are after the last step.
    #[must_use]
    pub fn managers(&self) -> &[Manager] {
        &self.managers
    }

    /// What whoever wrote it says about it.
    #[must_use]
    pub const fn about(&self) -> &BTreeMap<String, String> {
        &self.about
    }

    /// The version of this crate that wrote it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it begins in the middle of a run, with snapshots.
    #[must_use]
    pub const fn is_restored(&self) -> bool {
        self.restored
    }

    /// Steps made.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Actions answered.
    #[must_use]
    pub const fn actions(&self) -> u64 {
        self.actions
    }
}

fn managers(start: Start) -> Result<Vec<Manager>, String> {
    match start {
        Start::New { config, seeds } => {
            config.validate().map_err(|error| error.to_string())?;
            let size = serde_json::to_vec(&config).map_err(|error| error.to_string())?.len();
            if seeds.len().saturating_mul(MANAGER_BYTES.saturating_add(size)) > MAX_BYTES {
                return Err(format!("{} managers are too many", seeds.len()));
            }
            let managers = seeds.iter().map(|&seed| {
                let config = Config { seed, ..Config::clone(&config) };
                Manager::new(config, HASH_KEY).map_err(|error| error.to_string())
            });
            managers.collect()
        }
        Start::Restored { snapshots } => {
            let managers = (0..).zip(snapshots).map(|(place, snapshot)| {
                Manager::restore(snapshot, HASH_KEY)
                    .map_err(|error| format!("manager {place}: {error}"))
            });
            managers.collect()
        }
    }
}
