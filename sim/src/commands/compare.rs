//! `steadfast compare`: the same outage under several policies, side by side.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use steadfast_sim::{
    CompareOptions, ComparisonRow, Follow, Page, Records, Seeds, Simulation, find_with,
};

use super::output::{Json, create};
use super::progress::timed;
use super::{Failure, print};

#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 all ran, whatever came of it; 3 bad usage.")]
pub(crate) struct CompareArgs {
    /// A TOML file, or the name of a built-in scenario
    scenario: String,
    /// The policies, the one that the others are compared with first; all that fit if left out
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    policy: Vec<String>,
    /// Makes a row for each value of a setting, under each policy; may be given many times, each
    /// combination is a row then. Commas within brackets or quotes are part of a value
    #[arg(long, value_name = "PATH=V1,V2,..")]
    vary: Vec<String>,
    /// The seeds that each row is run under: 30 for the seeds 1 to 30, 5..10 for 5 to 9
    #[arg(long, value_name = "N|A..B", default_value = "30")]
    seeds: Seeds,
    /// The columns, as `list` shows measures; left out, those that fit what the scenario has
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    measure: Vec<String>,
    /// Changes a setting of the file in all rows, as peers.device.count=100; may be given many times.
    /// Items of a list go by their place, as faults.0.for=5s, and a key with dots in it by its quotes
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// How many runs go on at once, each in its own memory; one for each core if left out
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Writes the comparison as JSON; - is the standard output, in place of the table
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Writes a page with charts to a file: the first seed under each row, at most eight, one beside
    /// the other. It needs no network and no other file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) fn compare(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let simulation = find_with(&args.scenario, &args.set)?;
    let json = Json::open(args.json.as_deref())?;
    let html = args.html.as_deref().map(create).transpose()?;
    let options = CompareOptions {
        policies: args.policy.clone(),
        vary: args.vary.clone(),
        seeds: args.seeds.clone(),
        measures: args.measure.clone(),
        jobs: args.jobs,
    };
    let (comparison, wall) = timed(|progress| simulation.compare_watched(&options, progress))?;
    let quiet = json.is_stdout();
    json.write(&comparison)?;
    if !quiet {
        let colour = std::io::stdout().is_terminal();
        print(&comparison.clone().colour(colour).to_string())?;
    }
    anstream::eprintln!("{wall:.2}s");
    if let Some((name, mut file)) = html {
        let page = page(&simulation, &comparison.rows)?;
        file.write_all(page.as_bytes()).map_err(|error| Failure::Io(name, error))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first seed under each row, as a page; it tells the story of the same peer in all of them.
fn page(simulation: &Simulation, rows: &[ComparisonRow]) -> Result<String, Failure> {
    let mut follow = Follow::Last;
    let (mut runs, mut names) = (Vec::new(), Vec::new());
    for row in rows.iter().take(Page::MOST) {
        let own = simulation.clone().set_all(&row.varied)?.policy(&row.policy)?;
        let records = Records { page: Some(follow.clone()), ..Records::default() };
        let (run, _) = timed(|progress| own.run_recorded(row.first_seed, records, progress))?;
        follow = run.followed().filter(|_| runs.is_empty()).unwrap_or(follow);
        names.push([std::slice::from_ref(&row.policy), &row.varied].concat().join(" "));
        runs.push(run);
    }
    Ok(Page::new(&runs.iter().collect::<Vec<_>>()).names(&names).to_string())
}
