//! What is compared: measures, chosen by what the scenario has.

use crate::expect::{self, Unit};
use crate::scenario::{Scenario, ScenarioError};

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
    /// That depends.
    Neither,
}

/// A column of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    /// Its measure, as `[expect]` names it.
    pub(super) measure: String,
    /// What stands above it.
    pub(super) title: String,
    pub(super) better: Better,
    pub(super) unit: Unit,
}

type Known = (&'static str, &'static str, Better);

const OF_PEERS: [Known; 5] = [
    ("all_up", "all_up", Better::Less),
    ("p99", "p99", Better::Less),
    ("dials_per_peer", "dials/peer", Better::Less),
    ("peak_dials", "peak dials", Better::Less),
    ("efficiency", "efficiency", Better::More),
];

/// Of peers with recorded heartbeats, which are never lost.
const OF_RECORDED: [Known; 2] = [
    ("false_suspicions", "false_suspicions", Better::Less),
    ("suspected", "suspected", Better::Less),
];

// Fewer attempts are not better by themselves: a client that does nothing makes none.
const OF_CALLS: [Known; 5] = [
    ("success", "success", Better::More),
    ("back_to_twin", "back_to_twin", Better::Less),
    ("attempts_per_call", "attempts/call", Better::Neither),
    ("outage_attempts_per_call", "in the outage", Better::Neither),
    ("latency_p99", "latency_p99", Better::Less),
];

impl Column {
    fn new((measure, title, better): Known) -> Option<Self> {
        let unit = expect::resolve(measure)?.0.unit;
        Some(Self { measure: measure.to_owned(), title: title.to_owned(), better, unit })
    }
}

/// The columns that are asked for, or those that the scenario can fill.
pub(super) fn columns(scenario: &Scenario, asked: &[String]) -> Result<Vec<Column>, ScenarioError> {
    if !asked.is_empty() {
        return asked.iter().map(|measure| named(scenario, measure)).collect();
    }
    let has_recorded = |recorded: bool| {
        scenario.peers.values().any(|group| group.heartbeat_trace.is_some() == recorded)
    };
    let mut known: Vec<Known> = Vec::new();
    if has_recorded(false) {
        known.extend(OF_PEERS);
    }
    if has_recorded(true) {
        known.extend(OF_RECORDED);
    }
    if !scenario.calls.is_empty() {
        known.extend(OF_CALLS);
    }
    Ok(known.into_iter().filter_map(Column::new).collect())
}

/// The column of a measure, which may be asked of one group or server.
fn named(scenario: &Scenario, name: &str) -> Result<Column, ScenarioError> {
    let Some((measure, of)) = expect::resolve(name) else {
        let known: Vec<_> = expect::measures().map(|known| known.name).collect();
        return Err(ScenarioError::unknown("measure", name, &known));
    };
    if measure.timed {
        let problem = format!("`{name}` is asked of a moment, which a column has none of");
        return Err(ScenarioError::plain(problem));
    }
    if let Some(of) = of
        && !measure.can_be_asked_of(scenario, of)
    {
        let problem = format!("`{}` cannot be asked of `{of}`", measure.name);
        return Err(ScenarioError::plain(problem));
    }
    let known = [OF_PEERS.as_slice(), &OF_RECORDED, &OF_CALLS].concat();
    let known = known.into_iter().find(|(known, ..)| *known == measure.name);
    let better = known.map_or(Better::Neither, |(.., better)| better);
    Ok(Column { measure: name.to_owned(), title: name.to_owned(), better, unit: measure.unit })
}
