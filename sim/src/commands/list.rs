//! `steadfast list` and `explain`: what there is, and what it is about.

use std::fmt::Write;
use std::process::ExitCode;

use steadfast_sim::scenario::Scenario;
use steadfast_sim::{find_with, policy};

use super::{Failure, print};

pub(crate) fn list() -> Result<ExitCode, Failure> {
    let mut text = String::from("scenarios\n");
    for scenario in steadfast_sim::built_in_scenarios() {
        let scenario = scenario?;
        let _ = writeln!(text, "  {:<27} {}", scenario.name, scenario.about);
        let told = [
            ("faults", faults(&scenario)),
            ("passes if", passes(&scenario)),
            ("source", scenario.source.clone()),
        ];
        for (what, told) in told.iter().filter(|(_, told)| !told.is_empty()) {
            let _ = writeln!(text, "  {:<27} {what}: {told}", "");
        }
    }
    text.push_str("\npolicies\n");
    for policy in policy::BUILT_IN {
        let _ = writeln!(text, "  {:<27} {}", policy.name, policy.about);
    }
    text.push_str("\nmeasures, for [expect]\n");
    for measure in steadfast_sim::expect::measures() {
        let _ = writeln!(text, "  {:<27} {}", measure.name, measure.about);
    }
    text.push_str("\nmarks, for [chaos]\n");
    for mark in steadfast_sim::marks::all() {
        let _ = writeln!(text, "  {:<27} {}", mark.name, mark.about);
    }
    text.push_str("\nmutants, for sweep --mutant in builds for tests\n");
    for mutant in steadfast::mutant::Mutant::ALL {
        let _ = writeln!(text, "  {:<27} {}", mutant.name(), mutant.about());
    }
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// How many pass marks of a policy are told in one line; `explain` tells all.
const MOST_MARKS: usize = 4;

/// What goes wrong, fault by fault.
fn faults(scenario: &Scenario) -> String {
    let faults = scenario.faults.iter().map(|fault| {
        let mut told =
            format!("{} on {} at {}", fault.kind.get_ref(), fault.on.get_ref(), fault.at.get_ref());
        if let Some(lasts) = &fault.lasts {
            told += &format!(" for {}", lasts.get_ref());
        }
        told
    });
    let drawn = scenario.chaos.iter().map(|_| "drawn by the seed".to_owned());
    faults.chain(drawn).collect::<Vec<_>>().join("; ")
}

/// What each policy is held to.
fn passes(scenario: &Scenario) -> String {
    let expects = scenario.expect.iter().map(|(policy, bounds)| {
        let marks =
            bounds.iter().map(|(name, bound)| format!("{} {}", name.get_ref(), bound.get_ref()));
        let mut marks: Vec<_> = marks.collect();
        let more = marks.len().saturating_sub(MOST_MARKS);
        if more > 0 {
            marks.truncate(MOST_MARKS);
            marks.push(format!("{more} more"));
        }
        format!("{}: {}", policy.get_ref(), marks.join(", "))
    });
    let table = scenario
        .reference
        .iter()
        .map(|held| format!("all rows of table {} are met", held.table.get_ref()));
    let clean = scenario
        .chaos
        .iter()
        .map(|_| "no rule is broken, and all are up within the bound".to_owned());
    expects.chain(table).chain(clean).collect::<Vec<_>>().join("; ")
}

pub(crate) fn explain(
    scenario: &str,
    sets: &[String],
    seed: Option<u64>,
) -> Result<ExitCode, Failure> {
    let simulation = find_with(scenario, sets)?;
    let simulation = match seed {
        Some(seed) => simulation.materialised(seed)?,
        None => simulation,
    };
    let scenario = simulation.scenario();
    let mut text = format!("# {}\n#\n# {}\n", scenario.name, scenario.about);
    if !scenario.source.is_empty() {
        let _ = writeln!(text, "# Source: {}", scenario.source);
    }
    let _ = writeln!(text, "# Policies: {}", policy::names(scenario).join(", "));
    for (policy, group, bound) in simulation.bounds()? {
        let _ =
            writeln!(text, "# Under {policy} each {group} is up, after the heal, within {bound}");
    }
    text.push('\n');
    let _ = write!(text, "{scenario}");
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
