//! `steadfast run`: a scenario, its timeline, its files.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use steadfast_sim::{Run, ScenarioError, Simulation, Verdict, find_with};

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
    if !files.json_is_stdout {
        let colour = std::io::stdout().is_terminal();
        print(&run.timeline().ascii(args.ascii).colour(colour).to_string())?;
    }
    files.write_summary(&run.summary())?;
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
    files.write_summary(&study)?;
    if args.json.as_deref().is_none_or(|path| path.as_os_str() != "-") {
        print(&study.colour(std::io::stdout().is_terminal()).to_string())?;
    }
    anstream::eprintln!("{wall:.2}s");
    Ok(exit_code(verdict))
}

/// What a run writes beside its timeline, opened before it begins: a wrong name is known at once.
#[derive(Default)]
struct Files {
    json_is_stdout: bool,
    json: Option<(String, File)>,
    log: Option<File>,
}

impl Files {
    fn open(args: &RunArgs) -> Result<Self, Failure> {
        let create = |path: &Path| {
            let name = path.display().to_string();
            match File::create(path) {
                Ok(file) => Ok((name, file)),
                Err(error) => Err(Failure::Io(name, error)),
            }
        };
        let mut files = Self::default();
        if let Some(path) = &args.json {
            files.json_is_stdout = path.as_os_str() == "-";
            if !files.json_is_stdout {
                files.json = Some(create(path)?);
            }
        }
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

    fn write_summary(self, summary: &impl serde::Serialize) -> Result<(), Failure> {
        if !self.json_is_stdout && self.json.is_none() {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(summary)
            .map_err(|error| Failure::Io("the summary".to_owned(), error.into()))?;
        match self.json {
            None => print(&text),
            Some((name, mut file)) => {
                writeln!(file, "{text}").map_err(|error| Failure::Io(name, error))
            }
        }
    }
}

fn watched(simulation: &Simulation, seed: u64, log: Option<File>) -> Result<(Run, f64), Failure> {
    timed(|progress| match log {
        None => simulation.run_watched(seed, progress),
        Some(file) => simulation.run_logged(seed, BufWriter::new(file), progress),
    })
}

/// Does it with a progress bar, where somebody can see it and for whom it takes a while; and how
/// long it took.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long it took, for people"
)]
fn timed<T>(
    work: impl FnOnce(&mut dyn FnMut(f64)) -> Result<T, ScenarioError>,
) -> Result<(T, f64), Failure> {
    let began = std::time::Instant::now();
    let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr_with_hz(8));
    let style = ProgressStyle::with_template("{wide_bar} {percent}%  {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let visible = std::io::stderr().is_terminal();
    let mut progress = |share: f64| {
        if visible && began.elapsed().as_millis() > 500 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 1000"
            )]
            bar.set_position((share * 1_000.0) as u64);
        }
    };
    let done = work(&mut progress)?;
    bar.finish_and_clear();
    Ok((done, began.elapsed().as_secs_f64()))
}
