//! The scenarios that come with the simulator.

use crate::scenario::{Scenario, ScenarioError};

/// Names and texts, as `list` shows them.
const BUILT_IN: [(&str, &str); 29] = [
    ("herd-lb-restart", include_str!("../scenarios/herd-lb-restart.toml")),
    ("herd-queueing", include_str!("../scenarios/herd-queueing.toml")),
    ("herd-queueing-down60", include_str!("../scenarios/herd-queueing-down60.toml")),
    ("herd-shedding", include_str!("../scenarios/herd-shedding.toml")),
    ("herd-shedding-down60", include_str!("../scenarios/herd-shedding-down60.toml")),
    ("herd-fleet", include_str!("../scenarios/herd-fleet.toml")),
    ("second-wave", include_str!("../scenarios/second-wave.toml")),
    ("slow-honest-clients", include_str!("../scenarios/slow-honest-clients.toml")),
    ("half-open-stampede", include_str!("../scenarios/half-open-stampede.toml")),
    ("expired-certificate", include_str!("../scenarios/expired-certificate.toml")),
    ("regional-dns", include_str!("../scenarios/regional-dns.toml")),
    ("rolling-deploy", include_str!("../scenarios/rolling-deploy.toml")),
    ("one-way-partition", include_str!("../scenarios/one-way-partition.toml")),
    ("flapping-link", include_str!("../scenarios/flapping-link.toml")),
    ("suspend-resume", include_str!("../scenarios/suspend-resume.toml")),
    ("mobile-switch", include_str!("../scenarios/mobile-switch.toml")),
    ("observer-stalls", include_str!("../scenarios/observer-stalls.toml")),
    ("churn-spot", include_str!("../scenarios/churn-spot.toml")),
    ("churn-web", include_str!("../scenarios/churn-web.toml")),
    ("fleet-day", include_str!("../scenarios/fleet-day.toml")),
    ("retry-storm", include_str!("../scenarios/retry-storm.toml")),
    ("bad-node-in-shared-breaker", include_str!("../scenarios/bad-node-in-shared-breaker.toml")),
    ("grey-brownout", include_str!("../scenarios/grey-brownout.toml")),
    ("cold-cache", include_str!("../scenarios/cold-cache.toml")),
    ("brooker-retries", include_str!("../scenarios/brooker-retries.toml")),
    ("brooker-collapse", include_str!("../scenarios/brooker-collapse.toml")),
    ("aws-backoff", include_str!("../scenarios/aws-backoff.toml")),
    ("small-world", include_str!("../scenarios/small-world.toml")),
    ("trace-5g", include_str!("../scenarios/trace-5g.toml")),
];

/// The names of the built-in scenarios.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The text of a built-in scenario.
///
/// # Errors
///
/// A name that is none of them, with the one that was most likely meant.
pub(crate) fn text(name: &str) -> Result<&'static str, ScenarioError> {
    let found = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let unknown = || ScenarioError::unknown("scenario", name, &names().collect::<Vec<_>>());
    found.ok_or_else(unknown)
}

/// All built-in scenarios, read.
pub fn all() -> impl Iterator<Item = Result<Scenario, ScenarioError>> {
    BUILT_IN.iter().map(|(name, text)| Scenario::parse(text, &format!("{name}.toml")))
}
