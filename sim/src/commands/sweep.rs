//! `steadfast sweep`: many seeds, and what they found together.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};
use steadfast_sim::{Seeds, Simulation, Sweep, SweepOptions, Verdict, find_with};

use super::progress::bar;
use super::run::exit_code;
use super::{Failure, mutant, print};

/// How many seeds there are in a sweep that is not told.
const SEEDS: u64 = 1_000;
/// The level of chaos, likewise, where the scenario names none.
const LEVEL: &str = "chaos.level=2";

/// Exit codes: 0 all held, 1 a seed broke a rule, 2 none did but marks were missed or nobody was ever
/// down, 3 bad usage.
#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    /// TOML files, or names of built-in scenarios
    #[arg(required_unless_present = "merge")]
    scenario: Vec<String>,
    /// The seeds: N for 1 to N, or A..B without B [default: 1000 of them, by the clock]
    #[arg(long, value_name = "N|A..B")]
    seeds: Option<Seeds>,
    /// Goes on for so long instead, as 60s or 5m
    #[arg(long = "for", value_name = "TIME", conflicts_with = "seeds")]
    lasts: Option<steadfast_sim::units::Span>,
    /// How many seeds at once; what comes out does not depend on it [default: all cores]
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// From 0, nothing but the scenario's own faults, to 3 [default: the scenario's, or 2]
    #[arg(long, value_name = "LEVEL")]
    chaos: Option<u32>,
    /// Changes a setting of the file; see `run`
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// How the clients behave; see `run`
    #[arg(long, value_name = "NAME", default_value = "ours")]
    policy: String,
    /// Ends with the first seed that fails
    #[arg(long)]
    until_failure: bool,
    /// Makes each run again in other ways, which must come to the same; see `run --verify`
    #[arg(long)]
    verify: bool,
    /// Only every Nth of the seeds, from the Kth on
    #[arg(
        long,
        value_name = "K/N",
        env = "STEADFAST_PARTITION",
        requires = "seeds",
        conflicts_with = "until_failure"
    )]
    partition: Option<Partition>,
    /// Prints a line of JSON for each scenario instead, for --merge
    #[arg(long)]
    json: bool,
    /// Adds up what sweeps of parts wrote with --json, from files, or - for the standard input
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["scenario", "seeds"])]
    merge: Vec<PathBuf>,
    /// Lets a bug loose in the managers, as `list` names them; only a build for tests has any
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Writes each failure as a scenario with all that its seed drew, to a folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// `K/N`, from 1.
#[derive(Clone, Copy, Debug)]
struct Partition(u64, u64);

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no part; write it as 3/16, from 1/16 to 16/16");
        let (part, of) = text.split_once('/').ok_or_else(wrong)?;
        let part = part.trim().parse::<u64>().map_err(|_| wrong())?;
        let of = of.trim().parse::<u64>().map_err(|_| wrong())?;
        if (1..=of).contains(&part) { Ok(Self(part, of)) } else { Err(wrong()) }
    }
}

/// A line of `--json`.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    #[serde(flatten)]
    what: What,
    /// Which parts of how many.
    parts: BTreeSet<u64>,
    of: u64,
    sweep: Sweep,
}

/// What was swept: parts of the same belong together.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct What {
    version: String,
    scenario: String,
    policy: String,
    sets: Vec<String>,
    seeds: String,
}

pub(crate) fn sweep(args: &SweepArgs) -> Result<ExitCode, Failure> {
    if !args.merge.is_empty() {
        return tell(&merged(&args.merge)?, false);
    }
    if let Some(name) = &args.mutant {
        mutant(name)?;
    }
    let options = options(args);
    let mut lines = Vec::new();
    for name in &args.scenario {
        let (simulation, sets) = simulation(args, name)?;
        if simulation.scenario().reference.is_some() {
            let problem = "is held to a table, seed by seed; `run` does that";
            return Err(Failure::Usage(format!("{name} {problem}")));
        }
        let sweep = watched(args, &simulation, &options)?;
        if let Some(folder) = &args.keep {
            keep(folder, &simulation, &sweep)?;
        }
        let what = What {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: simulation.scenario().name.clone(),
            policy: args.policy.clone(),
            sets,
            seeds: options.seeds.to_string(),
        };
        let (part, of) = options.part;
        lines.push(Line { what, parts: BTreeSet::from([part]), of, sweep });
    }
    tell(&lines, args.json)
}

/// The scenario with its chaos.
fn simulation(args: &SweepArgs, name: &str) -> Result<(Simulation, Vec<String>), Failure> {
    let mut sets = args.set.clone();
    let own = find_with(name, &sets)?;
    let level = own.scenario().chaos.as_ref().map_or(0, |chaos| *chaos.level.get_ref());
    match args.chaos {
        Some(level) => sets.push(format!("chaos.level={level}")),
        None if level == 0 => sets.push(LEVEL.to_owned()),
        None => {}
    }
    let simulation = find_with(name, &sets)?.policy(&args.policy)?;
    Ok((simulation, sets))
}

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "seeds that nobody has tried, for people"
)]
fn options(args: &SweepArgs) -> SweepOptions {
    let by_the_clock = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let start = now.map_or(0, |now| now.as_secs()) * 1_000;
        Seeds::starting(start, if args.lasts.is_some() { u64::MAX } else { SEEDS })
    };
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    SweepOptions {
        seeds: args.seeds.clone().unwrap_or_else(by_the_clock),
        part: args.partition.map_or((1, 1), |Partition(part, of)| (part, of)),
        until_failure: args.until_failure,
        verify: args.verify,
        jobs: args.jobs.map_or_else(cores, std::num::NonZeroUsize::get),
    }
}

/// Sweeps, with a progress bar where somebody can see it.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long it took, for people, and for --for"
)]
fn watched(
    args: &SweepArgs,
    simulation: &Simulation,
    options: &SweepOptions,
) -> Result<Sweep, Failure> {
    let began = std::time::Instant::now();
    let lasts = args.lasts.map(std::time::Duration::from);
    let template = match lasts {
        None => "{wide_bar} {pos} seeds  {per_sec}  {elapsed}",
        Some(_) => "{spinner} {pos} seeds  {per_sec}  {elapsed}",
    };
    let bar = bar(options.count(), template);
    let progress = |done| {
        bar.set_position(done);
        lasts.is_some_and(|lasts| began.elapsed() >= lasts)
    };
    let sweep = simulation.sweep(options, &progress)?;
    bar.finish_and_clear();
    let wall = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for printing")]
    let rate = sweep.seeds as f64 / wall.max(1e-9);
    anstream::eprintln!("{}: {wall:.2}s, {rate:.0} seeds/s", simulation.scenario().name);
    Ok(sweep)
}

/// Prints what came out, and turns it into an exit code: the worst of all.
fn tell(lines: &[Line], json: bool) -> Result<ExitCode, Failure> {
    let mut worst = Verdict::Held;
    for line in lines {
        if json {
            let wrong = |error: serde_json::Error| Failure::Io("the sweep".into(), error.into());
            print(&serde_json::to_string(line).map_err(wrong)?)?;
        } else {
            print(&format!("{}\n{}", line.what.scenario, line.sweep))?;
        }
        // Of a part nobody can say what the others have met.
        let verdict = match line.sweep.verdict() {
            Verdict::Unknown if json => Verdict::Held,
            verdict => verdict,
        };
        worst = match (worst, verdict) {
            (Verdict::Violated, _) | (_, Verdict::Violated) => Verdict::Violated,
            (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
            _ => Verdict::Held,
        };
    }
    Ok(exit_code(worst))
}

/// What the parts found together, scenario by scenario in the order in which they come.
fn merged(files: &[PathBuf]) -> Result<Vec<Line>, Failure> {
    let mut whole: Vec<Line> = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let reader: Box<dyn BufRead> = match name.as_str() {
            "-" => Box::new(std::io::stdin().lock()),
            _ => match File::open(path) {
                Ok(file) => Box::new(BufReader::new(file)),
                Err(error) => return Err(Failure::Io(name, error)),
            },
        };
        for (number, text) in (1..).zip(reader.lines()) {
            let text = text.map_err(|error| Failure::Io(name.clone(), error))?;
            if text.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&text)
                .map_err(|error| Failure::Usage(format!("{name}, line {number}: {error}")))?;
            let wrong =
                |problem: &str| Err(Failure::Usage(format!("{name}, line {number}: {problem}")));
            let within = line.parts.iter().all(|part| (1..=line.of).contains(part));
            if !within || line.sweep.uncovered > line.sweep.seeds {
                return wrong("no part of a sweep counts like this");
            }
            match whole.iter_mut().find(|known| known.what.scenario == line.what.scenario) {
                None => whole.push(line),
                Some(known) if (&known.what, known.of) != (&line.what, line.of) => {
                    return wrong("this is a part of another sweep than those before");
                }
                Some(known) if !known.parts.is_disjoint(&line.parts) => {
                    return wrong("this part was there before");
                }
                Some(known) => {
                    known.parts.extend(&line.parts);
                    known.sweep.add(&line.sweep);
                }
            }
        }
    }
    if whole.is_empty() {
        return Err(Failure::Usage("nothing to merge: the files are empty".to_owned()));
    }
    for line in &whole {
        let missing = (1..=line.of).filter(|part| !line.parts.contains(part)).take(20);
        let missing: Vec<_> = missing.map(|part| part.to_string()).collect();
        if !missing.is_empty() {
            let (scenario, of) = (&line.what.scenario, line.of);
            let missing = missing.join(", ");
            let problem = format!("{scenario}: of {of} parts these are missing: {missing}");
            return Err(Failure::Usage(problem));
        }
    }
    Ok(whole)
}

/// Writes the scenarios that failed, all drawn, to be run and read.
fn keep(folder: &Path, simulation: &Simulation, sweep: &Sweep) -> Result<(), Failure> {
    let wrong = |error| Failure::Io(folder.display().to_string(), error);
    if sweep.failures.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(wrong)?;
    for failure in &sweep.failures {
        let drawn = simulation.materialised(failure.seed)?;
        let story = failure.to_string().replace('\n', "\n# ");
        let text = format!("# {story}\n\n{}", drawn.scenario());
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = failure.scenario.chars().map(plain).collect();
        let path = folder.join(format!("{name}-{}.toml", failure.seed));
        std::fs::write(path, text).map_err(wrong)?;
    }
    Ok(())
}
