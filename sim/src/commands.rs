//! What the command can do: a file each, and what they share.

use std::io::Write;

use steadfast::mutant::{Mutant, let_loose};
use steadfast_sim::ScenarioError;

pub(crate) mod compare;
pub(crate) mod list;
mod output;
mod progress;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod sweep;
mod verify;

/// Why a command came to nothing.
pub(crate) enum Failure {
    Scenario(ScenarioError),
    Io(String, std::io::Error),
    Usage(String),
}

impl From<ScenarioError> for Failure {
    fn from(error: ScenarioError) -> Self {
        Self::Scenario(error)
    }
}

/// Writes to the standard output; a reader that has gone away is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Io("the standard output".to_owned(), error))
        }
        _ => Ok(()),
    }
}

/// Lets a bug loose in all managers, where this build has any.
pub(crate) fn mutant(name: &str) -> Result<(), Failure> {
    let Some(mutant) = Mutant::ALL.into_iter().find(|mutant| mutant.name() == name) else {
        let known = Mutant::ALL.map(Mutant::name).join(", ");
        return Err(Failure::Usage(format!("--mutant: `{name}` is none of {known}")));
    };
    if let_loose(Some(mutant)) {
        return Ok(());
    }
    let build = "cargo run -p steadfast-sim --features mutants";
    Err(Failure::Usage(format!("--mutant: this build has no bugs on purpose; {build} has")))
}
