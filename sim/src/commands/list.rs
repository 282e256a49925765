//! `steadfast list` and `explain`: what there is, and what it is about.

use std::fmt::Write;
use std::process::ExitCode;

use steadfast_sim::{find_with, policy};

use super::{Failure, print};

pub(crate) fn list() -> Result<ExitCode, Failure> {
    let mut text = String::from("scenarios\n");
    for scenario in steadfast_sim::built_in_scenarios() {
        let scenario = scenario?;
        let _ = writeln!(text, "  {:<27} {}", scenario.name, scenario.about);
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
