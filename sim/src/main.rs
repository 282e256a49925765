//! The `steadfast` command.

use std::fmt::Write as _;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use steadfast_sim::{Run, ScenarioError, Simulation, Verdict, find, policy};

/// Lives through outages in virtual time, with the real reconnect and breaker logic.
///
/// Exit codes: 0 what was expected held, 1 it did not, 2 the run could not tell, 3 bad usage.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario and prints its timeline
    Run(RunArgs),
    /// Lists the built-in scenarios, policies and measures
    List,
    /// Tells what a scenario is about, and prints it with all defaults filled in
    Explain {
        /// A TOML file, or the name of a built-in scenario
        scenario: String,
        /// Changes a setting of the file, as peers.device.count=100
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// A TOML file, or the name of a built-in scenario
    scenario: String,
    /// The seed: the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Changes a setting of the file, as peers.device.count=100
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// How the clients behave
    #[arg(long, value_name = "NAME", default_value = "ours")]
    policy: String,
    /// Writes the summary as JSON; - is the standard output, in place of the timeline
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Writes every event, so that the run can be replayed
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Draws the timeline with plain characters
    #[arg(long)]
    ascii: bool,
}

const USAGE: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let done = match cli.command {
        Command::Run(args) => run(&args),
        Command::List => list(),
        Command::Explain { scenario, set } => explain(&scenario, &set),
    };
    match done {
        Ok(code) => code,
        Err(Failure::Scenario(error)) => {
            let colour = anstream::stderr().is_terminal();
            anstream::eprintln!("{}", error.render(colour));
            ExitCode::from(USAGE)
        }
        Err(Failure::Io(what, error)) => {
            anstream::eprintln!("error: {what}: {error}");
            ExitCode::from(USAGE)
        }
    }
}

enum Failure {
    Scenario(ScenarioError),
    Io(String, std::io::Error),
}

impl From<ScenarioError> for Failure {
    fn from(error: ScenarioError) -> Self {
        Self::Scenario(error)
    }
}

/// Writes to the standard output; a reader that has gone away is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Io("the standard output".to_owned(), error))
        }
        _ => Ok(()),
    }
}

fn simulation(scenario: &str, sets: &[String]) -> Result<Simulation, ScenarioError> {
    sets.iter().try_fold(find(scenario)?, |simulation, set| simulation.set(set))
}

fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let simulation = simulation(&args.scenario, &args.set)?.policy(&args.policy)?;
    let (run, wall) = watched(&simulation, args)?;
    let json = args.json.as_deref();
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&run.summary())
            .map_err(|error| Failure::Io("the summary".to_owned(), error.into()))?;
        if path.as_os_str() == "-" {
            print(&text)?;
        } else {
            let failed = |error| Failure::Io(path.display().to_string(), error);
            std::fs::write(path, text + "\n").map_err(failed)?;
        }
    }
    if json.is_none_or(|path| path.as_os_str() != "-") {
        let colour = std::io::stdout().is_terminal();
        print(&run.timeline().ascii(args.ascii).colour(colour).to_string())?;
    }
    let events = run.summary().events;
    #[expect(clippy::cast_precision_loss, reason = "for printing")]
    let rate = events as f64 / wall.max(1e-9) / 1e6;
    anstream::eprintln!("{wall:.2}s, {rate:.2}M events/s");
    Ok(match run.verdict() {
        Verdict::Held => ExitCode::SUCCESS,
        Verdict::Violated => ExitCode::from(1),
        Verdict::Unknown => ExitCode::from(2),
    })
}

/// Runs with a progress bar, where somebody can see it and for whom it takes a while.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long it took, for people"
)]
fn watched(simulation: &Simulation, args: &RunArgs) -> Result<(Run, f64), Failure> {
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
    let run = match &args.log {
        None => simulation.run_watched(args.seed, &mut progress)?,
        Some(path) => {
            let failed = |error| Failure::Io(path.display().to_string(), error);
            let file = BufWriter::new(std::fs::File::create(path).map_err(failed)?);
            simulation.run_logged(args.seed, file, &mut progress)?
        }
    };
    bar.finish_and_clear();
    Ok((run, began.elapsed().as_secs_f64()))
}

fn list() -> Result<ExitCode, Failure> {
    let mut text = String::from("scenarios\n");
    for scenario in steadfast_sim::built_in_scenarios() {
        let scenario = scenario?;
        let _ = writeln!(text, "  {:<22} {}", scenario.name, scenario.about);
    }
    text.push_str("\npolicies\n");
    for policy in policy::BUILT_IN {
        let _ = writeln!(text, "  {:<22} {}", policy.name, policy.about);
    }
    text.push_str("\nmeasures, for [expect]\n");
    for measure in steadfast_sim::expect::measures() {
        let _ = writeln!(text, "  {:<22} {}", measure.name, measure.about);
    }
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn explain(scenario: &str, sets: &[String]) -> Result<ExitCode, Failure> {
    let simulation = simulation(scenario, sets)?;
    let scenario = simulation.scenario();
    let mut text = format!("# {}\n#\n# {}\n", scenario.name, scenario.about);
    if !scenario.source.is_empty() {
        let _ = writeln!(text, "# Source: {}", scenario.source);
    }
    let _ = writeln!(text, "# Policies: {}\n", policy::names(scenario).join(", "));
    let _ = write!(text, "{scenario}");
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
