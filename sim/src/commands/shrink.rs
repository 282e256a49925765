//! `steadfast shrink`: from a failing run to the smallest that fails so.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use steadfast_sim::find_with;
use steadfast_sim::units::Span;

use super::progress::bar;
use super::{Failure, mutant, print};

/// Exit codes: 0 it fails and was shrunk, 2 it does not fail, 3 bad usage.
#[derive(Args, Debug)]
pub(crate) struct ShrinkArgs {
    /// A TOML file, or the name of a built-in scenario
    scenario: String,
    /// The seed that fails
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Changes a setting of the file; see `run`
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// How the clients behave; see `run`
    #[arg(long, value_name = "NAME", default_value = "ours")]
    policy: String,
    /// Ends after so many runs; what comes out depends on them and not on the clock
    #[arg(long, value_name = "N", default_value_t = 300)]
    runs: u32,
    /// Ends after that time, if that comes first
    #[arg(long, value_name = "TIME")]
    budget: Option<Span>,
    /// Lets a bug loose in the managers; see `sweep`
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Writes the scenario to a file, in place of the standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Prints it as a test in Rust, too
    #[arg(long)]
    test: bool,
}

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the budget of whoever waits for it"
)]
pub(crate) fn shrink(args: &ShrinkArgs) -> Result<ExitCode, Failure> {
    if let Some(name) = &args.mutant {
        mutant(name)?;
    }
    let simulation = find_with(&args.scenario, &args.set)?.policy(&args.policy)?;
    let began = std::time::Instant::now();
    let budget = args.budget.map(std::time::Duration::from);
    let bar = bar(args.runs.into(), "{wide_bar} {pos} runs  {elapsed}");
    let mut goes_on = |runs: u32| {
        bar.set_position(runs.into());
        runs < args.runs && budget.is_none_or(|budget| began.elapsed() < budget)
    };
    let shrunk = simulation.shrink(args.seed, &mut goes_on)?;
    bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        print(&format!("seed {} of {} does not fail", args.seed, args.scenario))?;
        return Ok(ExitCode::from(2));
    };
    anstream::eprintln!("{:.2}s", began.elapsed().as_secs_f64());
    let mut text = shrunk.to_string();
    match &args.out {
        Some(path) => {
            let wrong = |error| Failure::Io(path.display().to_string(), error);
            std::fs::write(path, shrunk.file()).map_err(wrong)?;
            let path = path.display();
            text += &format!("\nreproduce: steadfast run {path} --seed {}", args.seed);
        }
        None => text = format!("{}\n{text}", shrunk.file()),
    }
    if args.test {
        text += &format!("\n\n{}", shrunk.test());
    }
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
