//! The same outage under several policies, side by side.
//!
//! Each row is lived through under the same seeds, and what chance decides is drawn for each peer,
//! link and fault by itself: one seed is the same luck in every row. So a row is compared with the
//! first seed by seed, and the luck that both had cancels out of the difference.
//!
//! What a run did not come to the end of (peers that never were all up again) is no number, and is
//! counted instead of averaged. Rejected: to take the end of the scenario in its place, which makes a
//! policy that never recovers look like a slow one, and the better the shorter the scenario is.

mod column;
mod interval;
mod rows;
mod text;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::Serialize;

use crate::expect::{self, Measured};
use crate::parallel;
use crate::scenario::ScenarioError;
use crate::seeds::Seeds;
use crate::simulation::{Run, Simulation, Verdict, fold_digests, reproduce_line, shell_word};

use column::{Better, Column};
use rows::Row;

/// Each run leaves a few numbers; so many seeds are more than enough to tell anything apart.
const MAX_SEEDS: u64 = 10_000;

/// What is compared, and how often.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// The policies, the one that the others are compared with first; all that the scenario can
    /// run under if there are none.
    pub policies: Vec<String>,
    /// Settings and the values that they take, as `peers.device.count=100,200`: with each policy each
    /// combination of values is a row. Commas within brackets or quotes are part of a value.
    pub vary: Vec<String>,
    /// The seeds that each row is run under.
    pub seeds: Seeds,
    /// What is measured, by the names of `[expect]`; chosen by what the scenario has if there is nothing.
    pub measures: Vec<String>,
    /// How many runs go on at once; one for each core if not told.
    pub jobs: Option<NonZeroUsize>,
}

/// Several policies through the same outage.
///
/// Prints as a table. Depends on the scenario, the rows and the seeds alone, so it can be the
/// snapshot of a test.
///
/// # Examples
///
/// ```
/// use steadfast_sim::{CompareOptions, Simulation};
///
/// let outage = Simulation::from_scenario("herd-queueing")?
///     .set_all(&["peers.device.count=60".to_owned(), "servers.broker.accept=5/s".to_owned()])?;
/// let comparison = outage.compare(&CompareOptions {
///     policies: vec!["ours".to_owned(), "naive".to_owned()],
///     seeds: "3".parse().unwrap(),
///     ..CompareOptions::default()
/// })?;
/// let dials = &comparison.rows[1].cells["dials_per_peer"];
/// assert!(dials.difference.is_some_and(|difference| difference.significant));
/// println!("{comparison}");
/// # Ok::<(), steadfast_sim::ScenarioError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The scenario.
    pub scenario: String,
    /// The first seed.
    pub first_seed: u64,
    /// How many seeds each row was run under, one after the other.
    pub seeds: u64,
    /// A [fold](fold_digests) over the digests of all runs, in hexadecimal.
    pub digest: String,
    /// The measures that have a value in some row, in the order of the table's columns.
    pub measures: Vec<String>,
    /// The policies and variations; the first is the one that the others are compared with.
    pub rows: Vec<ComparisonRow>,
    /// The command that makes all of it again.
    pub reproduce: String,
    #[serde(skip)]
    columns: Vec<Column>,
    #[serde(skip)]
    colour: bool,
}

/// One policy under one variation.
///
/// Its first run again, with everything that a run can tell:
/// `simulation.set_all(&row.varied)?.policy(&row.policy)?.run(row.first_seed)`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparisonRow {
    /// The policy.
    pub policy: String,
    /// The changes that make this row, each `PATH=VALUE`.
    pub varied: Vec<String>,
    /// All changes to the scenario, those included.
    pub sets: Vec<String>,
    /// The first seed that it was run under.
    pub first_seed: u64,
    /// The command that makes the run under that seed again.
    pub reproduce: String,
    /// In how many runs what is expected of the policy held.
    pub verdicts: Verdicts,
    /// What was violated, and under which seeds: expectations, or rules that no run may break.
    pub violated: BTreeMap<String, Vec<u64>>,
    /// What was measured, by the names of `[expect]`.
    pub cells: BTreeMap<String, ComparisonCell>,
}

/// How many runs had which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// All expectations held.
    pub held: u64,
    /// One did not, or a rule was broken.
    pub violated: u64,
    /// None was violated, but one could not be told.
    pub unknown: u64,
    /// Nothing is expected of this policy.
    pub not_judged: u64,
}

/// One measure in one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ComparisonCell {
    /// The mean over the runs that came to a value, in seconds, per second, or plain.
    pub mean: Option<f64>,
    /// How many did.
    pub known: u64,
    /// How many ended before what is measured did: peers that never were all up again.
    pub never: u64,
    /// How many say nothing of it.
    pub unknown: u64,
    /// Whether no row has a better mean. A row in which something never came to an end is never the
    /// best: what it did not do, it did cheaply.
    pub best: bool,
    /// This row's value less the first row's under the same seed, where both have one.
    pub difference: Option<Difference>,
}

/// The mean of paired differences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The mean.
    pub mean: f64,
    /// How far the ends of its 95 % interval are from it, by Student's t; none for a single pair.
    pub plus_minus: Option<f64>,
    /// Over how many seeds: those under which both rows have a value.
    pub pairs: u64,
    /// Whether the interval leaves out 0.
    pub significant: bool,
}

impl Difference {
    /// Whether the two rows had the same value under each seed.
    fn is_nothing(&self) -> bool {
        self.mean == 0.0 && self.plus_minus == Some(0.0)
    }
}

/// What one run came to.
#[derive(Clone, Debug)]
struct Came {
    seen: Vec<Measured>,
    verdict: Option<Verdict>,
    violated: Vec<String>,
    digest: u64,
}

impl Came {
    fn of(run: &Run, columns: &[Column]) -> Self {
        let broken = run.violation().map(|violation| violation.rule.clone());
        // A run that broke a rule ended there; what it measured until then is no comparison.
        let seen = columns.iter().map(|column| match broken {
            Some(_) => Measured::Unknown,
            None => expect::measured(&column.measure, run.facts()),
        });
        let missed = run.expects().iter().filter(|expect| expect.held == Some(false));
        let missed = missed.map(|expect| format!("{} {}", expect.name, expect.bound));
        let judged = broken.is_some() || !run.expects().is_empty();
        Self {
            seen: seen.collect(),
            verdict: judged.then(|| run.verdict()),
            violated: missed.chain(broken.clone()).collect(),
            digest: run.digest(),
        }
    }
}

impl Simulation {
    /// Lives through it under several policies, or with several values of a setting.
    ///
    /// The policy of this simulation plays no part in it. Invariants are checked at a few moments
    /// of each run only.
    ///
    /// # Errors
    ///
    /// A scenario that is held to a table, a policy or change that makes no sense, too many rows
    /// or seeds.
    pub fn compare(&self, options: &CompareOptions) -> Result<Comparison, ScenarioError> {
        self.compare_watched(options, &mut |_| {})
    }

    /// The same; `progress` is told the share of the runs that is over.
    ///
    /// # Errors
    ///
    /// As [`compare`](Self::compare).
    pub fn compare_watched(
        &self,
        options: &CompareOptions,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Comparison, ScenarioError> {
        if self.scenario().reference.is_some() {
            let problem = format!(
                "`{0}` is held to a table, which brings its own policies and seeds: there is nothing to \
                 compare; see `steadfast run {0}`",
                self.asked_for()
            );
            return Err(ScenarioError::plain(problem));
        }
        let count = options.seeds.count();
        if count > MAX_SEEDS {
            let problem = format!("{count} seeds are more than {MAX_SEEDS}");
            return Err(ScenarioError::plain(problem));
        }
        let rows = rows::rows(self, options)?;
        let columns = column::columns(self.scenario(), &options.measures)?;
        let runs = rows.iter().flat_map(|row| options.seeds.iter().map(move |seed| (row, seed)));
        let runs: Vec<_> = runs.collect();
        let one = |(row, seed): &(&Row, u64)| {
            row.simulation.run_one_of_many(*seed).map(|run| Came::of(&run, &columns))
        };
        let jobs = options.jobs.map_or_else(parallel::cores, NonZeroUsize::get);
        let came = parallel::in_order(&runs, jobs, one, progress)?;
        let seeds = runs.len() / rows.len().max(1);
        let came: Vec<_> = rows.iter().zip(came.chunks(seeds.max(1))).collect();
        Ok(Comparison::new(self, options, columns, &came))
    }
}

impl Comparison {
    fn new(
        simulation: &Simulation,
        options: &CompareOptions,
        columns: Vec<Column>,
        came: &[(&Row, &[Came])],
    ) -> Self {
        let first_seed = options.seeds.first();
        let base = came.first().map(|(_, runs)| *runs).unwrap_or_default();
        let rows = came.iter().enumerate().map(|(place, (row, runs))| ComparisonRow {
            policy: row.policy.clone(),
            varied: row.varied.clone(),
            sets: row.simulation.sets().to_vec(),
            first_seed,
            reproduce: reproduce_line(&row.simulation, first_seed),
            verdicts: Verdicts::of(runs),
            violated: violated(first_seed, runs),
            cells: cells(&columns, runs, (place > 0).then_some(base)),
        });
        let digests: Vec<_> =
            came.iter().flat_map(|(_, runs)| runs.iter().map(|run| run.digest)).collect();
        let mut comparison = Self {
            scenario: simulation.scenario().name.clone(),
            first_seed,
            seeds: options.seeds.count(),
            digest: format!("{:016x}", fold_digests(&digests)),
            measures: Vec::new(),
            rows: rows.collect(),
            reproduce: reproduce(simulation, options, came),
            columns,
            colour: false,
        };
        comparison.drop_empty();
        comparison.find_best();
        comparison
    }

    /// With terminal colours.
    #[must_use]
    pub const fn colour(mut self, colour: bool) -> Self {
        self.colour = colour;
        self
    }

    fn column<'a>(&'a self, measure: &'a str) -> impl Iterator<Item = &'a ComparisonCell> {
        self.rows.iter().filter_map(move |row| row.cells.get(measure))
    }

    /// Leaves out the measures that no run says anything of.
    fn drop_empty(&mut self) {
        let says = |column: &Column| {
            self.column(&column.measure).any(|cell| cell.known > 0 || cell.never > 0)
        };
        let columns: Vec<_> = self.columns.iter().filter(|column| says(column)).cloned().collect();
        self.measures = columns.iter().map(|column| column.measure.clone()).collect();
        for row in &mut self.rows {
            row.cells.retain(|measure, _| self.measures.contains(measure));
        }
        self.columns = columns;
    }

    /// Marks the best of each column: all that print as the best one does, unless that are all.
    fn find_best(&mut self) {
        for column in &self.columns {
            let scale = text::Scale::of(column, self.column(&column.measure));
            let rows = self.rows.iter();
            let shown: Vec<_> = rows.map(|row| row.candidate(column)).collect();
            let means = shown.iter().flatten().copied();
            let best = match column.better {
                Better::Less => means.min_by(f64::total_cmp),
                Better::More => means.max_by(f64::total_cmp),
                Better::Neither => None,
            };
            let Some(best) = best.map(|best| scale.shown(best)) else { continue };
            let is_best = |mean: &Option<f64>| mean.is_some_and(|mean| scale.shown(mean) == best);
            if shown.iter().all(is_best) {
                continue;
            }
            for (row, mean) in self.rows.iter_mut().zip(&shown) {
                if let Some(cell) = row.cells.get_mut(&column.measure) {
                    cell.best = is_best(mean);
                }
            }
        }
    }
}

impl ComparisonRow {
    /// Whether something that is measured did not come to its end in some run.
    fn is_unfinished(&self) -> bool {
        self.cells.values().any(|cell| cell.never > 0)
    }

    /// Its mean, if it may be the best of the column.
    fn candidate(&self, column: &Column) -> Option<f64> {
        let cell = self.cells.get(&column.measure)?;
        cell.mean.filter(|_| cell.unknown == 0 && !self.is_unfinished())
    }

    /// What tells it from the others, as the table does: the policy and the values.
    fn label(&self) -> String {
        let values = self.varied.iter().map(|change| text::halves(change).1);
        [self.policy.as_str()].into_iter().chain(values).collect::<Vec<_>>().join("  ")
    }
}

impl Verdicts {
    fn of(runs: &[Came]) -> Self {
        let mut verdicts = Self::default();
        for run in runs {
            *match run.verdict {
                Some(Verdict::Held) => &mut verdicts.held,
                Some(Verdict::Violated) => &mut verdicts.violated,
                Some(Verdict::Unknown) => &mut verdicts.unknown,
                None => &mut verdicts.not_judged,
            } += 1;
        }
        verdicts
    }
}

fn violated(first_seed: u64, runs: &[Came]) -> BTreeMap<String, Vec<u64>> {
    let mut violated: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (seed, run) in (first_seed..).zip(runs) {
        for what in &run.violated {
            violated.entry(what.clone()).or_default().push(seed);
        }
    }
    violated
}

/// A row's cells, compared with the runs of the first row.
fn cells(
    columns: &[Column],
    runs: &[Came],
    base: Option<&[Came]>,
) -> BTreeMap<String, ComparisonCell> {
    let cells = columns.iter().enumerate().map(|(place, column)| {
        let seen = |run: &Came| run.seen.get(place).copied().unwrap_or(Measured::Unknown);
        let own: Vec<_> = runs.iter().map(seen).collect();
        let theirs: Option<Vec<_>> = base.map(|base| base.iter().map(seen).collect());
        (column.measure.clone(), interval::cell(&own, theirs.as_deref()))
    });
    cells.collect()
}

/// The command that makes the comparison again.
fn reproduce(
    simulation: &Simulation,
    options: &CompareOptions,
    came: &[(&Row, &[Came])],
) -> String {
    let mut policies: Vec<&str> = came.iter().map(|(row, _)| row.policy.as_str()).collect();
    policies.dedup();
    let mut line = format!("steadfast compare {}", shell_word(simulation.asked_for()));
    line += &format!(" --policy {} --seeds {}", shell_word(&policies.join(",")), options.seeds);
    if !options.measures.is_empty() {
        line += &format!(" --measure {}", shell_word(&options.measures.join(",")));
    }
    let varied = options.vary.iter().map(|vary| ("vary", vary));
    for (option, value) in varied.chain(simulation.sets().iter().map(|set| ("set", set))) {
        line += &format!(" --{option} {}", shell_word(value));
    }
    line
}
