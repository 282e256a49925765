//! A sweep: the same scenario under many seeds, and what they found together.
//!
//! What it says depends on the seeds alone, not on how they were dealt over threads or machines:
//! parts that were swept elsewhere add up to the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::expect::Measured;
use crate::marks::{self, Marks};
use crate::report::grouped;
use crate::scenario::ScenarioError;
use crate::seeds::Seeds;
use crate::simulation::{OURS, Simulation, Verdict, reproduce_line};
use crate::verify::Twin;
use crate::world::Options;

/// How many failures are told; there may be millions.
const MOST_FAILURES: usize = 100;
/// How many seeds a thread takes at a time.
const CHUNK: u64 = 16;

/// What one seed did.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    digest: u64,
    steps: u64,
    marks: Marks,
    /// Whether somebody who was waited for was down at the heal.
    covered: bool,
    promised: bool,
    bound_used: Option<f64>,
    pub(crate) failure: Option<(String, String)>,
}

/// A seed that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Failure {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Which rule, and of what: two failures of one kind are the same bug, as far as can be told.
    pub kind: String,
    /// The whole story: what was seen, where and when.
    pub rule: String,
    /// The kinds of faults that were drawn, and how often.
    pub faults: String,
    /// The line that makes it happen again.
    pub reproduce: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "FAIL {} seed {}  {}", self.scenario, self.seed, self.rule)?;
        writeln!(f, "  drawn:     {}", self.faults)?;
        writeln!(f, "  reproduce: {}", self.reproduce)?;
        write!(f, "  shrink:    {}", self.reproduce.replacen(" run ", " shrink ", 1))
    }
}

/// What many seeds found together, or a part of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// How many seeds.
    pub seeds: u64,
    /// How many of them broke a rule.
    pub failed: u64,
    /// In how many nobody who was waited for was down when all healed: they say little.
    pub uncovered: u64,
    /// In how many nothing promises anybody a connection by some moment.
    pub unpromised: u64,
    /// Events that managers answered, each followed by a check of the invariants of those whom it
    /// concerned, every 128th of all.
    pub steps: u64,
    /// The largest share of a bound that was used, and the smallest seed that did.
    pub most_used: Option<(f64, u64)>,
    /// What was met, by name.
    pub marks: Vec<String>,
    /// What had to be.
    pub wanted: Vec<String>,
    /// One number for the digests of all runs.
    pub digest: u64,
    /// The failures with the smallest seeds.
    pub failures: Vec<Failure>,
}

/// Which seeds are swept, and on how many threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepOptions {
    /// The seeds.
    pub seeds: Seeds,
    /// Only every so many of them, from that one on: part `k` of `n`, from 1.
    pub part: (u64, u64),
    /// Whether it ends with the first that fails.
    pub until_failure: bool,
    /// Whether each run is made again in every other way, see [`Twin`].
    pub verify: bool,
    /// On how many threads; at least one.
    pub jobs: usize,
}

impl SweepOptions {
    /// These, all of them, on one thread.
    #[must_use]
    pub const fn new(seeds: Seeds) -> Self {
        Self { seeds, part: (1, 1), until_failure: false, verify: false, jobs: 1 }
    }

    /// How many seeds this part has.
    #[must_use]
    pub fn count(&self) -> u64 {
        let (part, of) = self.part;
        self.seeds.count().saturating_sub(part.saturating_sub(1)).div_ceil(of.max(1))
    }

    fn seed(&self, place: u64) -> u64 {
        let (part, of) = self.part;
        self.seeds.first() + part.saturating_sub(1) + place * of.max(1)
    }
}

/// What a thread has found.
#[derive(Debug, Default)]
struct Part {
    /// What is not added up yet: whether it counts is known when the first failure is.
    trials: Vec<(u64, Trial)>,
    sum: Sweep,
    marks: Marks,
    failures: BTreeMap<u64, (String, String)>,
}

impl Part {
    fn add_up(&mut self, options: &SweepOptions, last: u64) {
        for (place, trial) in std::mem::take(&mut self.trials) {
            if place <= last {
                self.count(options.seed(place), trial);
            }
        }
    }

    fn count(&mut self, seed: u64, trial: Trial) {
        let sum = &mut self.sum;
        sum.seeds += 1;
        sum.steps += trial.steps;
        sum.uncovered += u64::from(!trial.covered);
        sum.unpromised += u64::from(!trial.promised);
        sum.digest = sum.digest.wrapping_add(mixed(seed, trial.digest));
        sum.most_used = more(sum.most_used, trial.bound_used.map(|used| (used, seed)));
        self.marks.add(trial.marks);
        if let Some(failure) = trial.failure {
            sum.failed += 1;
            self.failures.insert(seed, failure);
            if self.failures.len() > MOST_FAILURES {
                self.failures.pop_last();
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.sum.add(&other.sum);
        self.marks.add(other.marks);
        self.failures.extend(other.failures);
    }
}

/// One number for a run and its seed, so that their sum depends on which run was whose.
const fn mixed(seed: u64, digest: u64) -> u64 {
    let mixed = (digest ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// The larger share; of two alike the one of the smaller seed.
fn more(one: Option<(f64, u64)>, other: Option<(f64, u64)>) -> Option<(f64, u64)> {
    let order = |(used, seed): &(f64, u64)| (used.to_bits(), u64::MAX - seed);
    one.into_iter().chain(other).max_by_key(order)
}

impl Sweep {
    /// Adds what another part of the same sweep found.
    pub fn add(&mut self, other: &Self) {
        self.seeds = self.seeds.saturating_add(other.seeds);
        self.failed = self.failed.saturating_add(other.failed);
        self.uncovered = self.uncovered.saturating_add(other.uncovered);
        self.unpromised = self.unpromised.saturating_add(other.unpromised);
        self.steps = self.steps.saturating_add(other.steps);
        self.digest = self.digest.wrapping_add(other.digest);
        self.most_used = more(self.most_used, other.most_used);
        for (own, others) in [(&mut self.marks, &other.marks), (&mut self.wanted, &other.wanted)] {
            own.extend_from_slice(others);
            let known = marks::all().map(|mark| mark.name);
            *own = known.filter(|name| own.iter().any(|own| own == name)).map(Into::into).collect();
        }
        self.failures.extend_from_slice(&other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
        self.failures.truncate(MOST_FAILURES);
    }

    /// The marks that had to be met and were not.
    pub fn missed(&self) -> impl Iterator<Item = &str> {
        self.wanted.iter().filter(|name| !self.marks.contains(name)).map(String::as_str)
    }

    /// Whether all held; unknown if marks were missed, or no seed says anything.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.failed > 0 {
            Verdict::Violated
        } else if self.missed().next().is_some() || self.uncovered == self.seeds {
            Verdict::Unknown
        } else {
            Verdict::Held
        }
    }
}

/// The failures, and below them what the seeds found together.
impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        for failure in self.failures.iter().take(SHOWN) {
            writeln!(f, "{failure}")?;
        }
        let more = self.failed.saturating_sub(SHOWN as u64);
        if more > 0 {
            writeln!(f, "and {} more that failed", grouped(more))?;
        }
        let (seeds, failed, steps) = (self.seeds, self.failed, self.steps);
        write!(f, "sweep    {} seeds, {} failed", grouped(seeds), grouped(failed))?;
        writeln!(f, ", {} steps, each checked, digest {:016x}", grouped(steps), self.digest)?;
        write!(
            f,
            "covered  {} had somebody down at the heal",
            grouped(seeds.saturating_sub(self.uncovered))
        )?;
        writeln!(f, ", {} promise nobody a connection", grouped(self.unpromised))?;
        match self.most_used {
            Some((used, seed)) => {
                let note = match used {
                    ..0.2 => ": it is too wide to tell much",
                    0.9.. => ": it is near",
                    _ => "",
                };
                writeln!(f, "bound    at most {:.0} % used, by seed {seed}{note}", used * 100.0)?;
            }
            None => writeln!(f, "bound    never used")?,
        }
        let hit = self.wanted.iter().filter(|name| self.marks.contains(name)).count();
        write!(f, "marks    {hit} of {} wanted met", self.wanted.len())?;
        let missed: Vec<_> = self.missed().collect();
        if !missed.is_empty() {
            write!(f, ", never: {}", missed.join(", "))?;
        }
        writeln!(f, "; {} in all", self.marks.len())?;
        write!(f, "verdict  {}", self.verdict())
    }
}

impl Simulation {
    /// Lives through it under many seeds. After every step the invariants of those whom it concerned
    /// are checked, after every 128th all.
    ///
    /// `progress` is told how many seeds are done, and answers whether to stop.
    ///
    /// # Errors
    ///
    /// A policy or a fault that makes no sense here.
    pub fn sweep(
        &self,
        options: &SweepOptions,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Sweep, ScenarioError> {
        let shared = Shared {
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            last: AtomicU64::new(u64::MAX),
            stopped: AtomicBool::new(false),
            options,
            progress,
        };
        let simulation = self.checked();
        let parts: Result<Vec<Part>, ScenarioError> = std::thread::scope(|scope| {
            let work = || shared.work(&simulation);
            let of_use = usize::try_from(options.count().div_ceil(CHUNK)).unwrap_or(usize::MAX);
            let jobs = options.jobs.clamp(1, of_use.max(1));
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let threads: Vec<_> = (0..jobs).filter_map(spawn).collect();
            let lost = || ScenarioError::plain("no thread could be started, or one was lost");
            let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| lost())?);
            joined.collect()
        });
        let mut whole = Part::default();
        for mut part in parts? {
            part.add_up(options, shared.last.load(Ordering::Relaxed));
            whole.merge(part);
        }
        let Part { mut sum, marks, failures, .. } = whole;
        sum.marks = marks.names().map(Into::into).collect();
        let chaos = self.scenario().chaos.as_ref();
        let wanted = chaos.map(|chaos| chaos.marks.as_slice()).unwrap_or_default();
        sum.wanted = wanted.iter().map(|mark| mark.get_ref().clone()).collect();
        for (seed, (kind, rule)) in failures.into_iter().take(MOST_FAILURES) {
            sum.failures.push(self.failure(seed, kind, rule)?);
        }
        Ok(sum)
    }

    /// The same, with everything checked and nothing waited for.
    pub(crate) fn checked(&self) -> Self {
        let own = self.chosen_options();
        let options = Options { invariants: Some(true), concerned: true, until_well: true, ..own };
        self.clone().options(options)
    }

    fn failure(&self, seed: u64, kind: String, rule: String) -> Result<Failure, ScenarioError> {
        let own = self.under(seed)?;
        let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
        for fault in &own.scenario().faults {
            *kinds.entry(fault.kind.get_ref().to_string()).or_default() += 1;
        }
        let faults = kinds.into_iter().map(|(kind, count)| match count {
            1 => kind,
            count => format!("{kind} x{count}"),
        });
        Ok(Failure {
            scenario: self.scenario().name.clone(),
            seed,
            kind,
            rule,
            faults: faults.collect::<Vec<_>>().join(", "),
            reproduce: reproduce_line(self, seed),
        })
    }

    /// Whether a twin of a trial came to something else, or broke a rule.
    fn diverges(
        &self,
        seed: u64,
        trial: &Trial,
    ) -> Result<Option<(String, String)>, ScenarioError> {
        for twin in Twin::ALL {
            let options = twin.options(self.chosen_options(), trial.steps);
            let other = self.clone().options(options).outcome(seed)?;
            let name = twin.name();
            let rule = match (other.violation, twin) {
                (Some(violation), _) => violation.to_string(),
                (None, Twin::Shuffled) => continue,
                (None, _) if other.digest == trial.digest => continue,
                (None, _) => format!("digest {:016x}, here {:016x}", other.digest, trial.digest),
            };
            return Ok(Some((format!("divergence, {name}"), format!("{name}: {rule}"))));
        }
        Ok(None)
    }

    /// How one seed fails, if it does: by which rule, and the whole story.
    pub(crate) fn fails(&self, seed: u64) -> Result<Option<(String, String)>, ScenarioError> {
        watched(|| self.trial(seed)).map(|trial| trial.failure)
    }

    /// One seed of a sweep.
    fn trial(&self, seed: u64) -> Result<Trial, ScenarioError> {
        let mut outcome = self.outcome(seed)?;
        if self.chosen_options().concerned && outcome.violation.is_some() {
            // Once more, with everything checked after every step: it may have been earlier.
            let options = Options { concerned: false, ..self.chosen_options() };
            let again = self.clone().options(options).outcome(seed)?;
            if again.violation.is_some() {
                outcome = again;
            }
        }
        let used = outcome.facts.bound_used(None);
        let broken = outcome.violation.as_ref();
        let broken = broken.map(|violation| (violation.kind(), violation.to_string()));
        let late = match used {
            _ if !OURS.contains(&self.policy_name()) => None,
            Measured::AtLeast(share) if share >= 1.0 => Some("is still down".to_owned()),
            Measured::Value(share) if share > 1.0 => {
                Some(format!("came after {:.0} % of the bound", 100.0 * share))
            }
            _ => None,
        };
        let late = late.map(|how| {
            (
                "liveness".to_owned(),
                format!("liveness: a peer that was promised a connection {how}"),
            )
        });
        Ok(Trial {
            digest: outcome.digest,
            steps: outcome.events,
            marks: outcome.marks,
            covered: outcome.was_down,
            promised: outcome.facts.groups.iter().any(|group| group.bound.is_some()),
            bound_used: match used {
                Measured::Value(share) => Some(share),
                Measured::AtLeast(_) | Measured::Unknown => None,
            },
            failure: broken.or(late),
        })
    }
}

/// What the threads of a sweep share.
struct Shared<'a> {
    next: AtomicU64,
    done: AtomicU64,
    /// The first place that failed, where that is the end.
    last: AtomicU64,
    stopped: AtomicBool,
    options: &'a SweepOptions,
    progress: &'a (dyn Fn(u64) -> bool + Sync),
}

impl Shared<'_> {
    fn work(&self, simulation: &Simulation) -> Result<Part, ScenarioError> {
        let mut own = Part::default();
        let count = self.options.count();
        while !self.stopped.load(Ordering::Relaxed) {
            let from = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= count || from > self.last.load(Ordering::Relaxed) {
                break;
            }
            let to = from.saturating_add(CHUNK).min(count);
            for place in from..to {
                if place > self.last.load(Ordering::Relaxed) {
                    break;
                }
                let trial = watched(|| simulation.trial(self.options.seed(place)));
                let stop = |_: &ScenarioError| self.stopped.store(true, Ordering::Relaxed);
                let mut trial = trial.inspect_err(stop)?;
                if self.options.verify && trial.failure.is_none() {
                    let seed = self.options.seed(place);
                    trial.failure = simulation.diverges(seed, &trial).inspect_err(stop)?;
                }
                if trial.failure.is_some() && self.options.until_failure {
                    self.last.fetch_min(place, Ordering::Relaxed);
                }
                own.trials.push((place, trial));
            }
            if !self.options.until_failure {
                own.add_up(self.options, u64::MAX);
            }
            let done = self.done.fetch_add(to - from, Ordering::Relaxed) + (to - from);
            if (self.progress)(done) {
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
        Ok(own)
    }
}

/// What a trial came to; one that panics has failed, and the others go on.
fn watched(trial: impl FnOnce() -> Result<Trial, ScenarioError>) -> Result<Trial, ScenarioError> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(trial));
    caught.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no word");
        let failure = ("panic".to_owned(), format!("panic: {text}"));
        let nothing = Trial {
            digest: 0,
            steps: 0,
            marks: Marks::default(),
            covered: false,
            promised: false,
            bound_used: None,
            failure: None,
        };
        Ok(Trial { failure: Some(failure), ..nothing })
    })
}
