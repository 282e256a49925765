//! What is written down of a run beside its result: a recording, a trace, what a page draws.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use crate::chrome::Tracer;
use crate::draws::Draws;
use crate::log::{Log, Record, Several};
use crate::plan::Plan;
use crate::scenario::ScenarioError;
use crate::schedule::Schedule;
use crate::series::Plotter;
use crate::simulation::{Run, Simulation, reproduce_line};
use crate::story::{Hero, Narrator};
use crate::units::Span;
use crate::world::World;

/// What is to be written down of a run. None of it changes what happens.
#[derive(Default)]
pub struct Records<'a> {
    /// Where a [recording](steadfast::recording) goes.
    pub log: Option<Box<dyn Write + 'a>>,
    /// Where a trace in the Chrome trace event format goes, as Perfetto opens it: the faults, the
    /// first 200 breakers that move and peers that are lost, notices and counters; at most 200,000
    /// events.
    pub trace: Option<Box<dyn Write + 'a>>,
    /// Whether the run keeps what a [`Page`](crate::Page) draws, and whose story that tells.
    pub page: Option<Follow>,
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (log, trace) = (self.log.is_some(), self.trace.is_some());
        let page = &self.page;
        write!(f, "Records {{ log: {log}, trace: {trace}, page: {page:?} }}")
    }
}

/// Whose story a page tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// The peer's that came back last, for which the run is lived through twice; without peers that
    /// of the first call after half of the first fault.
    #[default]
    Last,
    /// This peer's, by its group and its place in it: `device.7`.
    Peer(String),
}

impl Run {
    /// Whose story a page tells of this run, so that the same can be asked of another one; `None` if
    /// nothing was kept for a page, or nobody was lost.
    #[must_use]
    pub fn followed(&self) -> Option<Follow> {
        Some(match (self.hero?, &self.story) {
            (Hero::Peer(_), Some(story)) => Follow::Peer(story.who.clone()),
            _ => Follow::Last,
        })
    }
}

impl Simulation {
    /// The same as [`run`](Self::run), and writes down what is asked for.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), a peer that there is not, or that something could not be written.
    pub fn run_recorded(
        &self,
        seed: u64,
        records: Records<'_>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Run, ScenarioError> {
        let own = self.under(seed)?;
        let plan = own.plan()?;
        let hero = records.page.as_ref().map(|follow| own.hero(&plan, follow)).transpose()?;
        own.run_with(&plan, seed, (records, hero.flatten()), progress, None)
    }

    /// The same, and then under other policies; the page tells the same peer's story in each run.
    ///
    /// # Errors
    ///
    /// As [`run_recorded`](Self::run_recorded), or a policy that there is not.
    pub fn run_beside(
        &self,
        others: &[String],
        seed: u64,
        records: Records<'_>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Run>, ScenarioError> {
        let others = others.iter().map(|policy| self.clone().policy(policy));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let page = records.page.clone();
        #[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
        let (all, mut over) = (1.0 + others.len() as f64, 0.0);
        let run = self.run_recorded(seed, records, &mut |share| progress(share / all))?;
        let (hero, highest) = (run.hero, run.highest.clone());
        let mut runs = vec![run];
        for other in others {
            over += 1.0;
            let records = Records { page: page.clone(), ..Records::default() };
            let other = other.under(seed)?;
            let run = other.run_with(
                &other.plan()?,
                seed,
                (records, hero),
                &mut |share| progress((over + share) / all),
                Some(&highest),
            )?;
            runs.push(run);
        }
        Ok(runs)
    }

    /// Whom the page follows, as far as that is known before the run.
    fn hero(&self, plan: &Plan, follow: &Follow) -> Result<Option<Hero>, ScenarioError> {
        match follow {
            Follow::Peer(name) => {
                let index = plan.peer_named(name);
                let none = || ScenarioError::plain(format!("there is no peer `{name}`"));
                Ok(Some(Hero::Peer(index.ok_or_else(none)?)))
            }
            Follow::Last if plan.peers > 0 || plan.workloads.is_empty() => Ok(None),
            Follow::Last => {
                let faults = self.scenario().faults.iter();
                let first = faults
                    .filter_map(|fault| Schedule::of(fault).spans(Draws::new(1)).next())
                    .min();
                let middle = first.map_or(plan.duration.as_nanos() / 2, |(from, to)| {
                    from.as_nanos() + to.as_nanos().saturating_sub(from.as_nanos()) / 2
                });
                Ok(Some(Hero::Call(Span::from_nanos(middle))))
            }
        }
    }

    fn run_with(
        &self,
        plan: &Plan,
        seed: u64,
        (records, hero): (Records<'_>, Option<Hero>),
        progress: &mut dyn FnMut(f64),
        highest: Option<&[crate::Highest]>,
    ) -> Result<Run, ScenarioError> {
        let draws = records.page.is_some();
        let mut log = records.log.map(|to| Record::new(to, self.about(seed)));
        let trace = records.trace;
        let mut trace = trace.map(|to| Tracer::new(plan, self.scenario(), seed, to));
        let mut plotter = draws.then(|| Plotter::new(plan));
        let mut narrator = hero.filter(|_| draws).map(|hero| Narrator::new(plan, hero));
        let mut logs: Vec<&mut dyn Log> = Vec::new();
        logs.extend(log.as_mut().map(|log| log as &mut dyn Log));
        logs.extend(trace.as_mut().map(|trace| trace as &mut dyn Log));
        logs.extend(plotter.as_mut().map(|plotter| plotter as &mut dyn Log));
        logs.extend(narrator.as_mut().map(|narrator| narrator as &mut dyn Log));
        let twice = draws && hero.is_none();
        let part = if twice { 0.5 } else { 1.0 };
        let mut first = |share| progress(share * part);
        let mut run = self.run_on(plan, seed, &mut Several(logs), &mut first, highest)?;
        let failed =
            |what, error| ScenarioError::plain(format!("cannot write the {what}: {error}"));
        log.map_or(Ok(()), Record::finish).map_err(|error| failed("log", error))?;
        trace.map_or(Ok(()), Tracer::finish).map_err(|error| failed("trace", error))?;
        run.series = plotter.map(Plotter::finish);
        run.story = narrator.and_then(Narrator::finish);
        run.hero = hero;
        if let (true, Some(last)) = (twice, run.facts().last_back()) {
            let hero = Hero::Peer(last);
            let mut narrator = Narrator::new(plan, hero);
            let world = World::new(plan, seed, self.unchecked(), &mut narrator)?;
            world.run(&mut |share| progress(0.5 + share / 2.0));
            (run.hero, run.story) = (Some(hero), narrator.finish());
        }
        Ok(run)
    }

    fn about(&self, seed: u64) -> BTreeMap<String, String> {
        let about = [
            ("command", reproduce_line(self, seed)),
            ("policy", self.policy_name().to_owned()),
            ("scenario", self.scenario().name.clone()),
            ("seed", seed.to_string()),
        ];
        about.map(|(key, value)| (key.to_owned(), value)).into()
    }
}
