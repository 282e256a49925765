//! `steadfast run`: a scenario, its timeline, its files.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use steadfast_sim::{Run, Simulation, Verdict, find_with};

use super::output::{Json, create};
use super::progress::timed;
use super::{Failure, print};

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// A TOML file, or the name of a built-in scenario
    scenario: String,
    /// The seed: the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Changes a setting of the file, as peers.device.count=100; may be given many times. Items of
    /// a list go by their place, as faults.0.for=5s, and a key with dots in it by its quotes
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// How the clients behave: a built-in policy, as `list` shows them, or one of the file's own
    #[arg(long, value_name = "NAME", default_value = "ours")]
    policy: String,
    /// Writes the summary as JSON; - is the standard output, in place of the timeline
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Writes a recording to a file, not to -: every event and its answer; `replay` reads it
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Draws the timeline with plain characters
    #[arg(long)]
    ascii: bool,
}

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let simulation = find_with(&args.scenario, &args.set)?.policy(&args.policy)?;
    let studies = simulation.scenario().reference.is_some();
    if studies && args.log.is_some() {
        return Err(Failure::Usage(
            "--log is for a single run; this scenario makes many".to_owned(),
        ));
    }
    let mut files = Files::open(args)?;
    if studies {
        return study(args, &simulation, files);
    }
    let (run, wall) = watched(&simulation, args.seed, files.log.take())?;
    if !files.json.is_stdout() {
        let colour = std::io::stdout().is_terminal();
        print(&run.timeline().ascii(args.ascii).colour(colour).to_string())?;
    }
    files.json.write(&run.summary())?;
    let events = run.summary().events;
    #[expect(clippy::cast_precision_loss, reason = "for printing")]
    let rate = events as f64 / wall.max(1e-9) / 1e6;
    anstream::eprintln!("{wall:.2}s, {rate:.2}M events/s");
    Ok(exit_code(run.verdict()))
}

pub(crate) fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Held => ExitCode::SUCCESS,
        Verdict::Violated => ExitCode::from(1),
        Verdict::Unknown => ExitCode::from(2),
    }
}

/// Runs a scenario that is held to a table, every row of it.
fn study(args: &RunArgs, simulation: &Simulation, files: Files) -> Result<ExitCode, Failure> {
    let (study, wall) = timed(|progress| simulation.study_watched(args.seed, progress))?;
    let verdict = study.verdict();
    let quiet = files.json.is_stdout();
    files.json.write(&study)?;
    if !quiet {
        print(&study.colour(std::io::stdout().is_terminal()).to_string())?;
    }
    anstream::eprintln!("{wall:.2}s");
    Ok(exit_code(verdict))
}

/// What a run writes beside its timeline, opened before it begins: a wrong name is known at once.
#[derive(Default)]
struct Files {
    json: Json,
    log: Option<File>,
}

impl Files {
    fn open(args: &RunArgs) -> Result<Self, Failure> {
        let mut files = Self { json: Json::open(args.json.as_deref())?, log: None };
        if let Some(path) = &args.log {
            if path.as_os_str() == "-" {
                return Err(Failure::Usage("--log needs a file, not -".to_owned()));
            }
            // Both exist by now, or one of them has no other name.
            let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
            if args.json.as_deref().is_some_and(|json| whole(json) == whole(path)) {
                return Err(Failure::Usage("--json and --log name the same file".to_owned()));
            }
            files.log = Some(create(path)?.1);
        }
        Ok(files)
    }
}

fn watched(simulation: &Simulation, seed: u64, log: Option<File>) -> Result<(Run, f64), Failure> {
    timed(|progress| match log {
        None => simulation.run_watched(seed, progress),
        Some(file) => simulation.run_logged(seed, BufWriter::new(file), progress),
    })
}
