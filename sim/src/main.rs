//! The `steadfast` command.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::Failure;
use commands::compare::CompareArgs;
use commands::replay::ReplayArgs;
use commands::run::RunArgs;
use commands::shrink::ShrinkArgs;
use commands::sweep::SweepArgs;

/// Lives through outages in virtual time, with the real reconnect and breaker logic.
///
/// Exit codes: 0 what was expected held, 1 it did not, 2 the run could not tell, 3 bad usage.
/// A replay: 0 the same, 1 another one, 2 the step or notice that was asked for is not in it.
/// A comparison: 0 all ran, whatever came of it.
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
    /// Runs a scenario under several policies or settings and many seeds, and prints them side by side
    Compare(CompareArgs),
    /// Runs scenarios under many seeds, each with faults and settings of its own
    Sweep(SweepArgs),
    /// Makes a failing run as small as it can be, and keeps the failure
    Shrink(ShrinkArgs),
    /// Lives through a recording again and compares each action, or stops at a moment to look
    Replay(ReplayArgs),
    /// Lists the built-in scenarios, policies and measures
    List,
    /// Tells what a scenario is about, and prints it with all defaults filled in
    Explain {
        /// A TOML file, or the name of a built-in scenario
        scenario: String,
        /// Changes a setting of the file, as peers.device.count=100; may be given many times. Items of
        /// a list go by their place, as faults.0.for=5s, and a key with dots in it by its quotes
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
        /// Writes out what this seed draws, where the scenario has a chaos.level above 0
        #[arg(long)]
        seed: Option<u64>,
    },
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
        Command::Run(args) => commands::run::run(&args),
        Command::Compare(args) => commands::compare::compare(&args),
        Command::Replay(args) => commands::replay::replay(&args),
        Command::List => commands::list::list(),
        Command::Shrink(args) => commands::shrink::shrink(&args),
        Command::Sweep(args) => commands::sweep::sweep(&args),
        Command::Explain { scenario, set, seed } => commands::list::explain(&scenario, &set, seed),
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
        Err(Failure::Usage(problem)) => {
            anstream::eprintln!("error: {problem}");
            ExitCode::from(USAGE)
        }
    }
}
