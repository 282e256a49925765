//! What if the managers of a recording had been configured otherwise?
//!
//! The same events reach managers with other settings. What was wanted (peers, calls, operators) and
//! what happened around (networks, ticks) is told as it was recorded. Facts (a dial succeeded, a
//! connection was lost) were answers to what the *recorded* manager did, under ids that it had given
//! out, so they are told about what the other manager has in their place:
//!
//! - A dial, ping or attempt that the other manager orders in the same step, for the same peer and
//!   endpoint, connection or call, *is* the recorded one, and gets its facts.
//! - Any other dial is answered as the recorded one was that is nearest in time, its own peer's
//!   counting as four times nearer than others behind the same breaker, up to 2 s away; else, while
//!   its peer has a recorded connection, as the dial that made that, but not before that speaks again
//!   if it is silent; else as the nearest dial up to 30 s away; else as one that made a connection
//!   which is up behind the breaker; else never. Attempts go by call, up to 30 s.
//! - A connection that is not the recorded one gets the facts of its peer's recorded connection while
//!   there is one; else the signs of life of another one behind the same breaker, and it is lost when
//!   that of the dial was whose answer it got.
//! - A fact about what the other manager does not have is dropped, and counted.
//!
//! Between the recorded steps the other manager is woken at its own deadlines, while the recorded
//! driver was awake. With the recorded configuration itself all that comes to the recorded answers,
//! byte for byte, which is how one knows that nothing is lost on the way.
//!
//! Not in any recording is how the servers would have done under fewer or more dials: that is what
//! [`Simulation`](crate::Simulation) is for.

mod bonds;
mod counts;
mod facts;
mod known;
mod lane;
mod orders;
mod pairs;
mod recorded;
mod samples;
mod settings;
mod text;

use std::fmt;
use std::io::BufRead;

use steadfast::breaker::State;
use steadfast::config::Config;
use steadfast::recording::{Difference, End, Next, RecordingError, Replay, Step};
use steadfast::{Action, Manager, Notice, Stats, Time};

use crate::scenario::ScenarioError;
use crate::simulation::fold_digests;
use counts::{Counts, Curve, Shape};
use known::Known;
use lane::Lane;
use settings::WhatIfSettings;

/// The key of the id tables; any will do.
const HASH_KEY: u64 = 0x5eed;
/// Into how many parts the time of a recording is cut to be drawn.
const PARTS: u32 = 60;

/// Other settings for the managers of a recording.
#[derive(Clone, Debug)]
pub struct WhatIf {
    settings: WhatIfSettings,
    origin: String,
}

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum WhatIfError {
    /// The recording cannot be read.
    Recording(RecordingError),
    /// The recording's managers cannot be configured so.
    Settings(ScenarioError),
    /// The recorded configuration itself comes to other answers in this version, so another one would
    /// be compared with something that is not there.
    Differs(Box<Difference>),
    /// The recording begins in the middle of a run, with managers that were formed by the recorded
    /// configuration.
    Restored,
}

impl From<RecordingError> for WhatIfError {
    fn from(error: RecordingError) -> Self {
        Self::Recording(error)
    }
}

impl From<ScenarioError> for WhatIfError {
    fn from(error: ScenarioError) -> Self {
        Self::Settings(error)
    }
}

impl fmt::Display for WhatIfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recording(error) => error.fmt(f),
            Self::Settings(error) => error.fmt(f),
            Self::Differs(difference) => {
                write!(f, "this version does not answer as was recorded: {difference}")
            }
            Self::Restored => f.write_str(
                "it begins in the middle of a run, with managers whose backoffs, breakers and \
                 connections came of the recorded configuration; a what-if needs a recording that \
                 begins with new ones",
            ),
        }
    }
}

impl std::error::Error for WhatIfError {}

/// What came of it, beside what was recorded. Prints as text.
#[derive(Debug)]
pub struct WhatIfReport {
    /// What was laid over what.
    done: Vec<String>,
    begin: Time,
    end: Time,
    cut_off: bool,
    steps: u64,
    recorded: Side,
    other: Side,
    counts: Counts,
}

/// One of the two.
#[derive(Debug)]
struct Side {
    stats: Stats,
    opens: u64,
    shape: Shape,
    digest: u64,
}

impl WhatIf {
    /// Settings as a scenario's `[policies.NAME]` may hold: `peer`, `breaker`, `call`, `gate`, `pacer`
    /// and `sleep`. `origin` is what errors call the text.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, at its place.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ScenarioError> {
        let settings = WhatIfSettings::parse(text, origin)?;
        Ok(Self { settings, origin: origin.to_owned() })
    }

    /// Lives through a recording, which must be given twice: once to learn what it knows.
    ///
    /// # Errors
    ///
    /// A recording that cannot be read, begins in the middle, or is answered otherwise in this version;
    /// settings that make no sense over its own.
    pub fn run<R: BufRead>(
        &self,
        mut first: Replay<R>,
        mut second: Replay<R>,
    ) -> Result<WhatIfReport, WhatIfError> {
        if first.is_restored() {
            return Err(WhatIfError::Restored);
        }
        let known = Known::learn(&mut first)?;
        let (others, done) = self.managers(second.managers(), &known)?;
        let late_after =
            |place: usize| second.managers().get(place).map(|one| one.config().sleep.late_after);
        let lanes = others.into_iter().enumerate().map(|(place, manager)| {
            Lane::new(&known, place, manager, late_after(place).unwrap_or_default())
        });
        let mut lanes: Vec<Lane<'_>> = lanes.collect();
        let mut recorded = Recorded::new(&second);
        while let Next::Same(step) = second.next_step()? {
            recorded.step(&step, second.managers());
            let deadline = second.managers().get(step.manager).and_then(Manager::next_deadline);
            if let Some(lane) = lanes.get_mut(step.manager) {
                lane.step(&step, deadline);
            }
        }
        for lane in &mut lanes {
            lane.finish(recorded.end, recorded.line + 1);
        }
        Ok(self.report(&known, done, &second, &recorded, lanes))
    }

    /// The other managers, and in words how they are others.
    fn managers(
        &self,
        recorded: &[Manager],
        known: &Known,
    ) -> Result<(Vec<Manager>, Vec<String>), WhatIfError> {
        let Some(first) = recorded.first() else { return Ok((Vec::new(), Vec::new())) };
        let mut config = first.config().clone();
        let done = self.settings.lay_over(&mut config, known);
        let refused = |error| {
            let problem =
                format!("{}: the recording's configuration with these settings", self.origin);
            ScenarioError::plain(format!("{problem} is refused: {error}"))
        };
        let others = recorded.iter().map(|one| {
            let config = Config { seed: one.config().seed, ..config.clone() };
            Manager::new(config, HASH_KEY).map_err(refused)
        });
        Ok((others.collect::<Result<_, _>>()?, done))
    }

    fn report<R>(
        &self,
        known: &Known,
        done: Vec<String>,
        replay: &Replay<R>,
        recorded: &Recorded,
        lanes: Vec<Lane<'_>>,
    ) -> WhatIfReport {
        let (begin, end) = (recorded.begin.unwrap_or_default(), recorded.end);
        let mut counts = Counts::default();
        lanes.iter().for_each(|lane| counts.add(&lane.counts));
        let (others, curves): (Vec<Manager>, Vec<Curve>) =
            lanes.into_iter().map(|lane| (lane.manager, lane.curve)).unzip();
        let side = |managers: &[Manager], curves: &[Curve], opens| {
            let mut stats = Stats::default();
            managers.iter().for_each(|manager| stats.merge(manager.stats()));
            let digests: Vec<u64> = managers.iter().map(Manager::run_digest).collect();
            let shape = Curve::shape(curves, begin, end, PARTS);
            Side { stats, opens, shape, digest: fold_digests(&digests) }
        };
        WhatIfReport {
            done,
            begin,
            end,
            cut_off: matches!(known.end, End::CutOff { .. }),
            steps: replay.steps(),
            recorded: side(replay.managers(), &recorded.curves, recorded.opens),
            other: side(&others, &curves, counts.opens),
            counts,
        }
    }
}

/// What is counted of the recorded managers.
#[derive(Debug)]
struct Recorded {
    begin: Option<Time>,
    end: Time,
    line: u64,
    opens: u64,
    curves: Vec<Curve>,
}

impl Recorded {
    fn new<R>(replay: &Replay<R>) -> Self {
        let curves = replay.managers().iter().map(|_| Curve::default()).collect();
        Self { begin: None, end: Time::ZERO, line: 1, opens: 0, curves }
    }

    fn step(&mut self, step: &Step, managers: &[Manager]) {
        self.begin.get_or_insert(step.at);
        (self.end, self.line) = (self.end.max(step.at), step.line);
        let opened = |action: &&Action| {
            matches!(action, Action::Notice(Notice::Breaker { to: State::Open { .. }, .. }))
        };
        self.opens += step.actions.iter().filter(opened).count() as u64;
        if let (Some(curve), Some(manager)) =
            (self.curves.get_mut(step.manager), managers.get(step.manager))
        {
            curve.note(step.at, manager.stats());
        }
    }
}
