//! Hosts that come and go: by a recording, or by spells that chance draws.

use std::path::Path;

use crate::dist::Dist;
use crate::scenario::{Fault, Gone, ScenarioError};
use crate::trace;
use crate::units::Span;

/// What a `churn` does to the hosts of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Churn {
    pub(crate) gone: Gone,
    pub(crate) spells: Spells,
}

/// When hosts are here and when they are away.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Spells {
    /// Each stays and is away for as long as chance has it.
    Drawn { stays: Dist, away: Dist },
    /// By place of the peer in its group: when its host goes and comes in turn, going first.
    Recorded(Vec<Vec<Span>>),
}

impl Churn {
    /// # Errors
    ///
    /// A recording that cannot be read.
    pub(super) fn new(fault: &Fault, folder: &Path) -> Result<Self, ScenarioError> {
        let spells = match &fault.trace {
            Some(trace) => {
                let turns = trace::hosts(trace.get_ref(), folder).map_err(ScenarioError::plain)?;
                Spells::Recorded(turns)
            }
            None => Spells::Drawn {
                stays: fault.stays.unwrap_or_default(),
                away: fault.away.unwrap_or_default(),
            },
        };
        Ok(Self { gone: fault.gone.unwrap_or_default(), spells })
    }
}
