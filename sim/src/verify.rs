//! Twins: the same run in another way, which must come to the same, step by step.
//!
//! Every step of a run goes into a chain, of which each 4,096th link is kept. Where a twin's last link
//! differs, the first kept one that does is found by bisection, both run once more, and the first step
//! between it and the one before that is not the same is told, from both sides.
//!
//! Ticks that do nothing are left out: a driver may tick as often as it likes.
//!
//! Source: `OMNeT++`'s fingerprints, `FoundationDB`'s second run of 5 % of its tests; both say that two runs
//! differ, not where.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use steadfast::config::Config;
use steadfast::{Action, Event, Time};

use crate::log::Log;
use crate::plan::Plan;
use crate::report::grouped;
use crate::scenario::ScenarioError;
use crate::simulation::Simulation;
use crate::world::{Options, World};

/// How many steps lie between two links that are kept.
const LINKS: u64 = 4_096;

/// Another way to make the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// Once more.
    Again,
    /// Managers go on from their own snapshots now and then, as new processes would.
    Restored,
    /// Drivers tick between events.
    Ticked,
    /// Ids are hashed with another key, and nothing is checked.
    Rekeyed,
    /// What happens in one moment happens in another order. That may come to something else, but no
    /// rule may break.
    Shuffled,
}

impl Twin {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Again, Self::Restored, Self::Ticked, Self::Rekeyed, Self::Shuffled];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Again => "run again",
            Self::Restored => "snapshots restored",
            Self::Ticked => "extra ticks",
            Self::Rekeyed => "another hash key",
            Self::Shuffled => "ties shuffled",
        }
    }

    /// How it is made, where the run itself has so many steps.
    #[expect(clippy::cast_precision_loss, reason = "a chance")]
    pub(crate) fn options(self, own: Options, steps: u64) -> Options {
        let about = |times: f64, most: f64| (times / steps.max(1) as f64).min(most);
        match self {
            Self::Again => own,
            // Each goes through text and back.
            Self::Restored => Options { restores: about(20.0, 0.05), ..own },
            Self::Ticked => Options { extra_ticks: about(2_000.0, 0.2), ..own },
            Self::Rekeyed => {
                Options { hash_key: !own.hash_key, ledger: false, invariants: Some(false), ..own }
            }
            Self::Shuffled => Options { shuffles_ties: true, ..own },
        }
    }
}

/// What came of a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which.
    pub twin: Twin,
    /// The first step that differs, or the rule that was broken.
    pub found: Result<(), Divergence>,
    /// How many steps were compared.
    pub steps: u64,
}

/// Where two runs that should be the same part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Which step it is, ticks that do nothing left out.
    pub step: u64,
    /// That step of the run.
    pub run: String,
    /// The same of its twin.
    pub twin: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = grouped(self.step);
        write!(f, "at step {step}\n  the run:  {}\n  its twin: {}", self.run, self.twin)
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, steps) = (self.twin.name(), grouped(self.steps));
        match &self.found {
            Ok(()) if self.twin == Twin::Shuffled => {
                write!(f, "verify   ok    {name}: no rule broken")
            }
            Ok(()) => write!(f, "verify   ok    {name}: {steps} steps are the same"),
            Err(divergence) => write!(f, "verify   FAIL  {name}: {divergence}"),
        }
    }
}

impl Simulation {
    /// Makes the run again in every other way.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn verify(&self, seed: u64) -> Result<Vec<Verified>, ScenarioError> {
        let own = self.under(seed)?;
        let plan = own.plan()?;
        let mut chain = Chain::default();
        own.chained(&plan, seed, own.chosen_options(), &mut chain)?;
        Twin::ALL.into_iter().map(|twin| own.verified(&plan, seed, twin, &chain)).collect()
    }

    fn verified(
        &self,
        plan: &Plan,
        seed: u64,
        twin: Twin,
        chain: &Chain,
    ) -> Result<Verified, ScenarioError> {
        let own = self.chosen_options();
        let options = twin.options(own, chain.steps);
        let mut other = Chain::default();
        let broken = self.chained(plan, seed, options, &mut other)?;
        let steps = other.steps;
        if twin == Twin::Shuffled {
            let found = broken.map_or(Ok(()), |rule| {
                let run = "no rule broken".to_owned();
                Err(Divergence { step: steps, run, twin: rule })
            });
            return Ok(Verified { twin, found, steps });
        }
        let Some(from) = chain.parts_from(&other) else {
            return Ok(Verified { twin, found: Ok(()), steps });
        };
        let [mut run, mut same] = [Window::new(from), Window::new(from)];
        self.chained(plan, seed, own, &mut run)?;
        self.chained(plan, seed, options, &mut same)?;
        Ok(Verified { twin, found: Err(run.differs(same)), steps })
    }

    /// Lives through it once more, under the eyes of `log`; the rule that was broken, if one was.
    fn chained(
        &self,
        plan: &Plan,
        seed: u64,
        options: Options,
        log: &mut dyn Log,
    ) -> Result<Option<String>, ScenarioError> {
        let outcome = World::new(plan, seed, options, log)?.run(&mut |_| {});
        Ok(outcome.violation.map(|violation| violation.to_string()))
    }
}

/// The chain over all steps.
#[derive(Clone, Debug, Default)]
struct Chain {
    steps: u64,
    last: u64,
    links: Vec<u64>,
}

/// Whether a step counts.
fn counts(event: &Event, actions: &[Action]) -> bool {
    *event != Event::Tick || !actions.is_empty()
}

impl Chain {
    /// From which step on the two are not the same any more; at most [`LINKS`] before it.
    fn parts_from(&self, other: &Self) -> Option<u64> {
        if (self.steps, self.last) == (other.steps, other.last) {
            return None;
        }
        // Each link holds all before it, so once they differ they do for good.
        let (mut same, mut differs) = (0, self.links.len().min(other.links.len()));
        while same < differs {
            let middle = usize::midpoint(same, differs);
            if self.links.get(middle) == other.links.get(middle) {
                same = middle + 1;
            } else {
                differs = middle;
            }
        }
        Some(same as u64 * LINKS)
    }
}

impl Log for Chain {
    fn begin(&mut self, _: &Config, _: &[u64]) {}

    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        if !counts(event, actions) {
            return;
        }
        let mut hasher = DefaultHasher::new();
        (self.last, manager as u64, now, event, actions).hash(&mut hasher);
        self.last = hasher.finish();
        self.steps += 1;
        if self.steps.is_multiple_of(LINKS) {
            self.links.push(self.last);
        }
    }

    fn end(&mut self, _: Time, _: &[u64]) {}
}

/// The steps of a part of a run, in words.
#[derive(Debug)]
struct Window {
    from: u64,
    steps: u64,
    told: Vec<String>,
}

impl Window {
    const fn new(from: u64) -> Self {
        Self { from, steps: 0, told: Vec::new() }
    }

    fn differs(self, other: Self) -> Divergence {
        let end = || "it is over".to_owned();
        let longest = self.told.len().max(other.told.len());
        let place = (0..longest).find(|&place| self.told.get(place) != other.told.get(place));
        let place = place.unwrap_or(longest);
        let at = |window: &Self| window.told.get(place).cloned().unwrap_or_else(end);
        Divergence { step: self.from + place as u64 + 1, run: at(&self), twin: at(&other) }
    }
}

impl Log for Window {
    fn begin(&mut self, _: &Config, _: &[u64]) {}

    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        if !counts(event, actions) {
            return;
        }
        self.steps += 1;
        if self.steps > self.from && self.told.len() as u64 <= LINKS {
            self.told.push(format!("manager {manager} at {now}: {event:?} -> {actions:?}"));
        }
    }

    fn end(&mut self, _: Time, _: &[u64]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(steps: u64, changed: Option<u64>) -> Chain {
        let mut chain = Chain::default();
        for step in 0..steps {
            let now = Time::from_nanos(step + u64::from(changed.is_some_and(|at| step >= at)));
            chain.step(0, now, &Event::NetworkUp, &[]);
        }
        chain
    }

    #[test]
    fn the_part_where_two_runs_part_is_found() {
        let run = chain(20_000, None);
        assert_eq!(run.parts_from(&chain(20_000, None)), None);
        for at in [0, 1, 4_095, 4_096, 8_191, 12_288, 19_999] {
            let from = run.parts_from(&chain(20_000, Some(at))).unwrap();
            assert!(from <= at && at < from + LINKS, "{at}: {from}");
        }
        assert_eq!(run.parts_from(&chain(19_000, None)), Some(16_384));
    }
}
