//! `steadfast run --verify`: the same run in other ways.

use std::path::Path;
use std::process::{Command, Stdio};

use steadfast_sim::Simulation;

use super::run::RunArgs;
use super::{Failure, print};

/// Prints what came of each twin of a run with that digest; whether all are the same.
pub(crate) fn verify(
    args: &RunArgs,
    simulation: &Simulation,
    digest: u64,
) -> Result<bool, Failure> {
    let mut holds = true;
    for verified in simulation.verify(args.seed)? {
        holds &= verified.found.is_ok();
        print(&verified.to_string())?;
    }
    let (wanted, found) = (format!("{digest:016x}"), elsewhere(args)?);
    let same = wanted == found;
    print(&match same {
        true => "verify   ok    a process of its own: the same digest".to_owned(),
        false => format!("verify   FAIL  a process of its own: digest {found}, here {wanted}"),
    })?;
    Ok(holds && same)
}

/// The digest of the run in a process of its own, elsewhere: another folder, another time zone, another
/// language.
fn elsewhere(args: &RunArgs) -> Result<String, Failure> {
    let wrong = |error| Failure::Io("a process of its own".to_owned(), error);
    let own = std::env::current_exe().map_err(wrong)?;
    let mut command = Command::new(own);
    let scenario = Path::new(&args.scenario).canonicalize();
    let scenario =
        scenario.map_or_else(|_| args.scenario.clone(), |path| path.display().to_string());
    command.args(["run", &scenario, "--seed", &args.seed.to_string(), "--policy", &args.policy]);
    command.args(args.set.iter().flat_map(|set| ["--set", set]));
    command.args(["--json", "-"]).current_dir(std::env::temp_dir());
    command.env("TZ", "Pacific/Chatham").env("LC_ALL", "tr_TR.UTF-8").env("NO_COLOR", "1");
    let output = command.stderr(Stdio::null()).output().map_err(wrong)?;
    let summary: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| wrong(error.into()))?;
    let digest = summary.get("digest").and_then(serde_json::Value::as_str);
    Ok(digest.unwrap_or("none").to_owned())
}
