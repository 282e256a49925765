//! A numeric scenario held to its table: many runs of each row, and how far ours are from theirs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::contention::Contention;
use crate::draws::{Draws, Purpose};
use crate::log::Forget;
use crate::plan::Plan;
use crate::reference::{Reference, Table, filled, placeholders};
use crate::scenario::{Scenario, ScenarioError};
use crate::simulation::{Simulation, Verdict, reproduce_line};
use crate::world::{Options, World};
use crate::{expect, parallel, units};

/// A figure may be so many combined standard errors off,
const FAR: f64 = 4.5;
/// and only so small a share of them by so many.
const NEAR: f64 = 3.0;
const SHARE_BEYOND_NEAR: f64 = 0.02;
/// What a combined standard error is at least: tables are rounded.
const SMALLEST_ERROR: f64 = 5e-4;

/// One figure of a row, ours and theirs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What is measured.
    pub name: String,
    /// Our mean.
    pub ours: f64,
    /// Its standard error.
    pub ours_error: f64,
    /// Their mean, or what a closed form says.
    pub theirs: Option<f64>,
    /// The standard error of the difference of the two.
    pub error: Option<f64>,
    /// How many of those the two are apart.
    pub distance: Option<f64>,
    /// Whether theirs is a closed form.
    pub exact: bool,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyRow {
    /// The cells that tell it from the others.
    pub row: String,
    /// What was compared.
    pub figures: Vec<Figure>,
}

/// All rows, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Study {
    /// The scenario.
    pub scenario: String,
    /// The seed that all runs' seeds are drawn from.
    pub seed: u64,
    /// Over how many runs ours are.
    pub seeds: u32,
    /// A fold over the digests of all runs, in hexadecimal.
    pub digest: String,
    /// How many runs there were.
    pub runs: u64,
    /// Row by row.
    pub rows: Vec<StudyRow>,
    /// What was wrong, in words; nothing if all held.
    pub problems: Vec<String>,
    #[serde(skip)]
    reproduce: String,
    #[serde(skip)]
    colour: bool,
}

/// What is run over and over.
#[derive(Debug)]
enum Subject {
    Contention(Contention),
    World(Box<Plan>),
}

/// The mean and the standard deviation of a figure over the runs.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sample {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.squares += value * value;
    }

    fn mean(self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    /// Whether all values are 0 or 1, so that the mean is a share.
    fn is_share(self) -> bool {
        libm::fabs(self.sum - self.squares) < 1e-9 && self.mean() <= 1.0
    }

    fn variance(self) -> f64 {
        let off = self.squares - self.sum * self.mean();
        (off / (self.count - 1.0).max(1.0)).max(0.0)
    }
}

/// What the runs of one subject came to.
#[derive(Clone, Debug, Default)]
struct Came {
    samples: Vec<Sample>,
    /// Calls in all of them.
    calls: f64,
    digest: u64,
}

/// What one run came to.
#[derive(Clone, Debug)]
struct Ran {
    figures: Vec<Option<f64>>,
    calls: f64,
    digest: u64,
}

impl Came {
    fn add(&mut self, run: Ran) {
        self.digest = fold(self.digest, run.digest);
        self.calls += run.calls;
        for (sample, figure) in self.samples.iter_mut().zip(run.figures) {
            figure.into_iter().for_each(|value| sample.add(value));
        }
    }
}

const fn fold(digest: u64, next: u64) -> u64 {
    (digest.rotate_left(5) ^ next).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Subject {
    fn new(scenario: &Scenario, policy: &str) -> Result<Self, ScenarioError> {
        Ok(match &scenario.contention {
            Some(contention) => Self::Contention(contention.clone()),
            None => Self::World(Box::new(Plan::new(scenario, policy)?)),
        })
    }

    /// What makes two rows one and the same experiment.
    fn key(&self) -> String {
        match self {
            Self::Contention(contention) => {
                let Contention { clients, jitter, base, cap, latency } = contention;
                let (clients, cap) = (clients.get_ref(), cap.get_ref());
                format!("{clients} {jitter:?} {base} {cap} {latency}")
            }
            Self::World(plan) => format!("{plan:?}"),
        }
    }

    /// So many runs, in order, on all cores: each depends on its own seed alone.
    fn run_all(
        &self,
        seed: u64,
        number: u64,
        runs: u32,
        names: &[&str],
    ) -> Result<Vec<Ran>, ScenarioError> {
        let runs: Vec<u32> = (0..runs).collect();
        let one =
            |run: &u32| self.run(Draws::new(seed).draw(Purpose::Run, number, (*run).into()), names);
        parallel::in_order(&runs, parallel::cores(), one, &mut |_| {})
    }

    /// One run.
    fn run(&self, seed: u64, names: &[&str]) -> Result<Ran, ScenarioError> {
        match self {
            Self::Contention(contention) => {
                let run = contention.run(seed);
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let figure = |name: &&str| match *name {
                    "elapsed" => Some(units::seconds(run.time_ns)),
                    "writes" => Some(run.writes as f64),
                    _ => None,
                };
                let figures = names.iter().map(figure).collect();
                Ok(Ran { figures, calls: 0.0, digest: run.time_ns.rotate_left(20) ^ run.writes })
            }
            Self::World(plan) => {
                let options =
                    Options { invariants: Some(false), ledger: false, ..Options::default() };
                let outcome = World::new(plan, seed, options, &mut Forget)?.run(&mut |_| {});
                if let Some(violation) = outcome.violation {
                    return Err(ScenarioError::plain(format!("seed {seed}: {violation}")));
                }
                let figures = names.iter().map(|name| expect::value(name, &outcome.facts));
                let calls = expect::value("calls", &outcome.facts).unwrap_or(0.0);
                Ok(Ran { figures: figures.collect(), calls, digest: outcome.digest })
            }
        }
    }
}

impl Study {
    /// Runs every row of the table.
    ///
    /// # Errors
    ///
    /// A row that makes no sense of the scenario, or a run that broke a rule.
    pub(crate) fn run(
        simulation: &Simulation,
        reference: &Reference,
        seed: u64,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Self, ScenarioError> {
        let scenario = simulation.scenario();
        let table = Table::load(reference.table.get_ref(), &scenario.folder)
            .map_err(ScenarioError::plain)?;
        check_cells(reference, &table).map_err(ScenarioError::plain)?;
        let names: Vec<&str> =
            reference.figures.keys().map(|name| name.get_ref().as_str()).collect();
        let seeds = *reference.seeds.get_ref();
        let mut known: BTreeMap<String, (usize, Came)> = BTreeMap::new();
        let mut study = Self {
            scenario: scenario.name.clone(),
            seed,
            seeds,
            digest: String::new(),
            runs: 0,
            rows: Vec::new(),
            problems: Vec::new(),
            reproduce: reproduce_line(simulation, seed),
            colour: false,
        };
        let mut digest = 0_u64;
        let total = table.rows.len().max(1);
        for (place, row) in table.rows.iter().enumerate() {
            let sets: Vec<_> = reference.set.iter().map(|set| filled(set.get_ref(), row)).collect();
            let policy = match &reference.policy {
                Some(policy) => filled(policy.get_ref(), row),
                None => simulation.policy_name().to_owned(),
            };
            let own = simulation.clone().set_all(&sets)?.policy(&policy)?;
            let subject = Subject::new(own.scenario(), &policy)?;
            let key = subject.key();
            if !known.contains_key(&key) {
                let number = known.len();
                let mut came =
                    Came { samples: vec![Sample::default(); names.len()], ..Came::default() };
                #[expect(clippy::cast_precision_loss, reason = "for a progress bar")]
                progress(place as f64 / total as f64);
                for run in subject.run_all(seed, number as u64, seeds, &names)? {
                    came.add(run);
                    study.runs += 1;
                }
                digest = fold(digest, came.digest);
                known.insert(key.clone(), (number, came));
            }
            let Some((_, came)) = known.get(&key) else { continue };
            let mut figures = compare(reference, row, &came.samples);
            if let Subject::World(plan) = &subject {
                figures.extend(exact(plan, &names, came));
            }
            study.rows.push(StudyRow { row: label(reference, row), figures });
        }
        study.digest = format!("{digest:016x}");
        study.problems = study.problems();
        Ok(study)
    }

    fn figures(&self) -> impl Iterator<Item = (&StudyRow, &Figure)> {
        self.rows.iter().flat_map(|row| row.figures.iter().map(move |figure| (row, figure)))
    }

    /// What is further off than chance explains.
    #[expect(clippy::cast_precision_loss, reason = "some hundred figures")]
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (mut compared, mut beyond) = (0, 0);
        for (row, figure) in self.figures() {
            let Some(distance) = figure.distance else { continue };
            let limit = if figure.exact { NEAR } else { FAR };
            if distance > limit {
                let (row, name) = (&row.row, &figure.name);
                problems.push(format!("{name} of {row} is {distance:.2} standard errors off"));
            }
            if !figure.exact {
                compared += 1;
                beyond += usize::from(distance > NEAR);
            }
        }
        if beyond as f64 > SHARE_BEYOND_NEAR * compared as f64 {
            problems.push(format!(
                "{beyond} of {compared} figures are more than {NEAR} standard errors off"
            ));
        }
        problems
    }

    /// With terminal colours.
    #[must_use]
    pub const fn colour(mut self, colour: bool) -> Self {
        self.colour = colour;
        self
    }

    /// Whether all figures are as near as chance allows.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let compared = self.figures().any(|(_, figure)| figure.distance.is_some());
        match (self.problems.is_empty(), compared) {
            (false, _) => Verdict::Violated,
            (true, true) => Verdict::Held,
            (true, false) => Verdict::Unknown,
        }
    }
}

/// The cells of a row that change the scenario.
fn label(reference: &Reference, row: &BTreeMap<String, String>) -> String {
    let templates = reference.policy.iter().chain(&reference.set);
    let columns = templates.flat_map(|name| placeholders(name.get_ref()));
    let cells: Vec<_> = columns.filter_map(|column| row.get(column)).map(String::as_str).collect();
    cells.join(" ")
}

/// Refuses what is no number where one is compared; an empty cell is not compared.
fn check_cells(reference: &Reference, table: &Table) -> Result<(), String> {
    let figures = reference.figures.values();
    let columns = figures.flat_map(|columns| [Some(&columns.mean), columns.sd.as_ref()]).flatten();
    let columns: Vec<&str> = columns.map(|column| column.get_ref().as_str()).collect();
    let runs = reference.runs_in.as_ref().map(|column| column.get_ref().as_str());
    for (place, row) in (1..).zip(&table.rows) {
        for column in columns.iter().copied().chain(runs) {
            let Some(cell) = row.get(column).filter(|cell| !cell.is_empty()) else { continue };
            let number = cell.parse::<f64>().ok().filter(|number| number.is_finite());
            let counts = |number: f64| Some(column) != runs || number >= 1.0;
            if !number.is_some_and(counts) {
                let table = reference.table.get_ref();
                let asked = if Some(column) == runs { "number of runs" } else { "number" };
                return Err(format!(
                    "{table}, row {place}, column `{column}`: `{cell}` is no {asked}"
                ));
            }
        }
    }
    Ok(())
}

fn compare(
    reference: &Reference,
    row: &BTreeMap<String, String>,
    samples: &[Sample],
) -> Vec<Figure> {
    let cell = |column: &str| row.get(column).and_then(|cell| cell.parse::<f64>().ok());
    let column = reference.runs_in.as_ref().and_then(|column| cell(column.get_ref()));
    let runs = column.or(reference.runs.map(f64::from));
    let figure = |((name, columns), sample): ((&crate::scenario::Name, &_), &Sample)| {
        let columns: &crate::reference::Columns = columns;
        let unit = columns.unit.map_or(1.0, units::Span::as_secs_f64);
        let (ours, variance) = (sample.mean() / unit, sample.variance() / (unit * unit));
        let theirs = cell(columns.mean.get_ref());
        // A share of runs varies as the share of ours and theirs together says: none of 200 may well be
        // one of 60 elsewhere.
        let pooled = |theirs: f64, runs: f64| {
            let share = (sample.sum + theirs * runs) / (sample.count + runs);
            share * (1.0 - share)
        };
        let is_share = columns.sd.is_none() && sample.is_share();
        let variance = match theirs.zip(runs) {
            Some((theirs, runs)) if is_share && (0.0..=1.0).contains(&theirs) => {
                pooled(theirs, runs)
            }
            _ => variance,
        };
        let their_variance = match &columns.sd {
            Some(sd) => cell(sd.get_ref()).map(|sd| sd * sd),
            None => Some(variance),
        };
        let ours_error = libm::sqrt(variance / sample.count.max(1.0));
        let error =
            their_variance.zip(runs).filter(|(_, runs)| *runs > 0.0).map(|(their, runs)| {
                libm::sqrt(ours_error * ours_error + their / runs).max(SMALLEST_ERROR)
            });
        let distance = theirs.zip(error).map(|(theirs, error)| libm::fabs(ours - theirs) / error);
        let (name, exact) = (name.get_ref().clone(), false);
        Figure { name, ours, ours_error, theirs, error, distance, exact }
    };
    reference.figures.iter().zip(samples).map(figure).collect()
}

/// What is known exactly about calls that fail by chance and are retried without a limit.
fn exact(plan: &Plan, names: &[&str], came: &Came) -> Vec<Figure> {
    let Some(closed) = plan.closed_form() else { return Vec::new() };
    let figures = names.iter().zip(&came.samples).filter_map(|(name, sample)| {
        let (theirs, variance) = match *name {
            "success" => closed.success,
            "attempts_per_call" => closed.attempts,
            _ => return None,
        };
        let ours = sample.mean();
        // No finer than one call.
        let error = libm::sqrt(variance / came.calls.max(1.0)).max(1.0 / came.calls.max(1.0));
        Some(Figure {
            name: format!("{name} (closed form)"),
            ours,
            ours_error: error,
            theirs: Some(theirs),
            error: Some(error),
            distance: Some(libm::fabs(ours - theirs) / error),
            exact: true,
        })
    });
    figures.collect()
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bold = if self.colour { Style::new().bold() } else { Style::new() };
        let (name, seed, digest) = (&self.scenario, self.seed, &self.digest);
        write!(f, "{bold}{name}{bold:#}  seed {seed}  {} seeds a row", self.seeds)?;
        writeln!(f, "  {} rows  digest {digest}", self.rows.len())?;
        let width = self.rows.iter().map(|row| row.row.len()).max().unwrap_or(0);
        let column = self.figures().map(|(_, figure)| figure.name.len()).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:column$}  {:>12}  {:>12}  {:>10}  {:>8}",
            "", "", "ours", "theirs", "s.e.", "distance"
        )?;
        for (row, figure) in self.figures() {
            let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
            let mut line = format!("{:width$}  {:column$}", row.row, figure.name);
            let _ = write!(line, "  {:>12}  {:>12}", short(figure.ours), known(figure.theirs));
            let _ = write!(line, "  {:>10}", known(figure.error));
            let limit = if figure.exact { NEAR } else { FAR };
            let far = figure.distance.is_some_and(|distance| distance > limit);
            let distance =
                figure.distance.map_or_else(|| "-".to_owned(), |far| format!("{far:.2}"));
            let style = match (self.colour, far) {
                (true, true) => AnsiColor::Red.on_default().bold(),
                _ => Style::new(),
            };
            writeln!(f, "{line}  {style}{distance:>8}{style:#}")?;
        }
        let distances = || self.figures().filter_map(|(_, figure)| figure.distance);
        let far = distances().fold(0.0, f64::max);
        let beyond = distances().filter(|distance| *distance > NEAR).count();
        let (all, runs) = (distances().count(), self.runs);
        writeln!(
            f,
            "{all} figures, {beyond} beyond {NEAR} standard errors, the farthest {far:.2}; {runs} runs"
        )?;
        for problem in &self.problems {
            writeln!(f, "FAIL     {problem}")?;
        }
        writeln!(f, "reproduce: {}", self.reproduce)?;
        write!(f, "verdict  {}", self.verdict())
    }
}

/// A figure with about six digits.
fn short(value: f64) -> String {
    match libm::fabs(value) {
        large if large >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 100.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    }
}
