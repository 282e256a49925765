//! What the types cannot say about calls and requests.

use toml::Spanned;

use super::{MOST_EVENTS, MOST_MANAGERS};
use crate::plan::MOST_TRIES;
use crate::policy::{self, Settings};
use crate::scenario::source::Source;
use crate::scenario::{Calls, Name, Scenario, ScenarioError, Server};
use crate::trace;

/// Callers of one workload that ask, wait and ask again.
const MOST_CALLERS: u32 = 1_000_000;

/// How many keys a cache may have.
const MOST_KEYS: u32 = 100_000_000;

pub(super) fn check(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    for server in scenario.servers.values() {
        check_requests(scenario, source, server)?;
    }
    for (name, calls) in &scenario.calls {
        check_servers(scenario, source, name, calls)?;
        check_load(scenario, source, name, calls)?;
    }
    Ok(())
}

fn check_requests(
    scenario: &Scenario,
    source: &Source<'_>,
    server: &Server,
) -> Result<(), ScenarioError> {
    let requests = &server.requests;
    if let (Some(rate), Some(_)) = (&requests.rate, requests.turn) {
        return Err(source.error("either `rate` or `turn`", &rate.span()));
    }
    let Some(cache) = &requests.cache else { return Ok(()) };
    if !(1..=MOST_KEYS).contains(cache.keys.get_ref()) {
        let problem = format!("{} keys, from 1 to {MOST_KEYS}", cache.keys.get_ref());
        return Err(source.error(problem, &cache.keys.span()));
    }
    known_server(scenario, source, &cache.behind)
}

fn known_server(
    scenario: &Scenario,
    source: &Source<'_>,
    server: &Name,
) -> Result<(), ScenarioError> {
    if scenario.servers.contains_key(server.get_ref().as_str()) {
        return Ok(());
    }
    let known = scenario.servers.keys().map(|name| name.get_ref().as_str());
    Err(source.unknown("server", server, known))
}

fn check_servers(
    scenario: &Scenario,
    source: &Source<'_>,
    name: &Name,
    calls: &Calls,
) -> Result<(), ScenarioError> {
    if let Some(peers) = &calls.peers {
        if !scenario.peers.contains_key(peers.get_ref().as_str()) {
            let known = scenario.peers.keys().map(|name| name.get_ref().as_str());
            return Err(source.unknown("group of peers", peers, known));
        }
        let count = calls.clients.as_ref().map(Spanned::span);
        if let Some(place) = calls.servers.first().map(Spanned::span).or(count) {
            let problem = "calls over the connections of peers need neither servers nor clients";
            return Err(source.error(problem, &place));
        }
    } else if calls.servers.is_empty() {
        let problem = format!("`{}` has no servers to call", name.get_ref());
        return Err(source.error(problem, &name.span()));
    }
    for (place, server) in calls.servers.iter().enumerate() {
        let twin = |earlier: &Name| earlier.get_ref() == server.get_ref();
        if calls.servers.iter().take(place).any(twin) {
            let problem = format!("`{}` is among the servers already", server.get_ref());
            return Err(source.error(problem, &server.span()));
        }
        known_server(scenario, source, server)?;
    }
    if scenario.peers.contains_key(name.get_ref().as_str()) {
        let problem = format!("a group of peers is called `{}` too", name.get_ref());
        return Err(source.error(problem, &name.span()));
    }
    match &calls.clients {
        Some(clients) if !(1..=MOST_MANAGERS).contains(clients.get_ref()) => {
            let problem = format!("{} clients, from 1 to {MOST_MANAGERS}", clients.get_ref());
            Err(source.error(problem, &clients.span()))
        }
        _ => Ok(()),
    }
}

fn check_load(
    scenario: &Scenario,
    source: &Source<'_>,
    name: &Name,
    calls: &Calls,
) -> Result<(), ScenarioError> {
    let rate = calls.rate.as_ref().map(Spanned::span);
    let closed = calls.closed.as_ref().map(Spanned::span);
    let arrivals = calls.arrivals.as_ref().map(Spanned::span);
    let given: Vec<_> = [rate, closed, arrivals].into_iter().flatten().collect();
    if given.len() != 1 {
        let place = given.last().cloned().unwrap_or_else(|| name.span());
        let problem = "calls need exactly one of `rate`, `closed` and `arrivals`";
        return Err(source.error(problem, &place));
    }
    if let Some(closed) = calls.closed.as_ref().filter(|callers| *callers.get_ref() == 0) {
        return Err(source.error("no callers at all", &closed.span()));
    }
    if let Some(closed) = calls.closed.as_ref().filter(|callers| *callers.get_ref() > MOST_CALLERS)
    {
        let problem = format!("{} callers, at most {MOST_CALLERS}", closed.get_ref());
        return Err(source.error(problem, &closed.span()));
    }
    if let Some(trace) = &calls.arrivals {
        trace::arrivals_of_calls(trace.get_ref(), source.folder())
            .map_err(|error| source.error(error, &trace.span()))?;
    }
    let Some(rate) = &calls.rate else { return Ok(()) };
    let until = calls.until.unwrap_or(*scenario.duration.get_ref());
    let all = until.as_nanos() / rate.get_ref().period().as_nanos();
    if all > MOST_EVENTS / 10 {
        let problem = format!("{all} calls, at most {}", MOST_EVENTS / 10);
        return Err(source.error(problem, &rate.span()));
    }
    Ok(())
}

/// Refuses to ask about loads and policies that are none.
pub(super) fn check_highest(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    let Some(asked) = &scenario.highest_load else { return Ok(()) };
    let Some(calls) = scenario.calls.get(asked.calls.get_ref().as_str()) else {
        let known = scenario.calls.keys().map(|name| name.get_ref().as_str());
        return Err(source.unknown("workload", &asked.calls, known));
    };
    if calls.rate.is_none() {
        return Err(source.error("only the rate of calls can be varied", &asked.calls.span()));
    }
    if asked.from.get_ref().per_second() >= asked.to.get_ref().per_second() {
        return Err(source.error("it must be above `from`", &asked.to.span()));
    }
    let names = policy::names(scenario);
    match asked.policies.iter().find(|policy| !names.contains(&policy.get_ref().as_str())) {
        Some(policy) => Err(source.unknown("policy", policy, names)),
        None => Ok(()),
    }
}

/// Refuses a retry layer that is none.
pub(super) fn check_policy(source: &Source<'_>, settings: &Settings) -> Result<(), ScenarioError> {
    let outer = &settings.outer;
    let Some(attempts) = &outer.attempts else { return Ok(()) };
    if !(1..=MOST_TRIES).contains(attempts.get_ref()) {
        let problem = format!("{} attempts, from 1 to {MOST_TRIES}", attempts.get_ref());
        return Err(source.error(problem, &attempts.span()));
    }
    outer
        .backoff()
        .validate()
        .map(|_| ())
        .map_err(|error| source.error(format!("outer.backoff.{error}"), &attempts.span()))
}
