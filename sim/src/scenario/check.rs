//! What the types of a scenario cannot say: names that must exist, numbers that must not be zero.

mod calls;
mod faults;

use std::collections::BTreeSet;

use toml::Spanned;

use super::source::Source;
use super::{Peers, Scenario, ScenarioError, Server};
use crate::chaos;
use crate::contention;
use crate::expect;
use crate::marks;
use crate::policy::{self, CallSettings, PeerSettings, Settings, is_empty};
use crate::reference::Table;
use crate::trace;
use crate::units::Span;

/// What fits into the memory of a large machine.
const MOST_PEERS: u64 = 10_000_000;
/// The same, for managers.
const MOST_MANAGERS: u32 = 1_000_000;
/// How many instances a server may have.
const MOST_INSTANCES: u32 = 1_000;
/// The longest that a scenario may last.
const LONGEST: Span = Span::from_secs(366 * 24 * 3_600);
/// How many heartbeats a scenario may have, and how many connections its faults may hit: what takes
/// minutes to live through.
const MOST_EVENTS: u64 = 1_000_000_000;
/// Over how many seeds a row of a table may be run.
const MOST_SEEDS: u32 = 1_000_000;

/// Refuses what makes no sense, at its place.
pub(super) fn check(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    check_size(scenario, source)?;
    check_numeric(scenario, source)?;
    for (name, group) in &scenario.peers {
        check_peers(scenario, source, name, group)?;
    }
    for server in scenario.servers.values() {
        check_instances(source, server)?;
    }
    calls::check(scenario, source)?;
    let links = link_names(scenario);
    for name in scenario.links.keys() {
        if !links.contains(name.get_ref()) {
            return Err(source.unknown("link", name, links.iter().map(String::as_str)));
        }
    }
    for fault in &scenario.faults {
        faults::check(scenario, source, fault)?;
    }
    check_links(scenario, source)?;
    check_chaos(scenario, source)?;
    for (name, settings) in &scenario.policies {
        check_policy(scenario, source, name, settings)?;
        check_config(scenario, source, name.get_ref(), Some(name))?;
    }
    // Groups that make sense under no policy make none; under one of them, the run will say.
    let under = |policy| check_config(scenario, source, policy, None);
    let names = policy::names(scenario);
    if let Some(first) = names.first()
        && !names.iter().any(|policy| under(policy).is_ok())
    {
        under(first)?;
    }
    calls::check_highest(scenario, source)?;
    check_expect(scenario, source)
}

/// Refuses a balancer in front of nothing, and of more than it can look through for each dial.
fn check_instances(source: &Source<'_>, server: &Server) -> Result<(), ScenarioError> {
    match &server.instances {
        Some(instances) if !(1..=MOST_INSTANCES).contains(instances.get_ref()) => {
            let problem = format!("{} instances, from 1 to {MOST_INSTANCES}", instances.get_ref());
            Err(source.error(problem, &instances.span()))
        }
        _ => Ok(()),
    }
}

/// Refuses what would run for ever or not fit into memory.
fn check_size(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    let managers = &scenario.managers;
    match *managers.get_ref() {
        0 => return Err(source.error("managers is 0, must be at least 1", &managers.span())),
        1..=MOST_MANAGERS => {}
        many => {
            let problem = format!("{many} managers, at most {MOST_MANAGERS}");
            return Err(source.error(problem, &managers.span()));
        }
    }
    let (duration, span) = (*scenario.duration.get_ref(), scenario.duration.span());
    if span.is_empty() && scenario.contention.is_none() {
        return Err(source.error("missing field `duration`", &(0..0)));
    }
    if duration == Span::ZERO && !span.is_empty() {
        return Err(source.error("duration is 0s, must be longer", &span));
    }
    if duration > LONGEST {
        let days = LONGEST.as_nanos() / Span::from_secs(24 * 3_600).as_nanos();
        let problem = format!("a duration of {duration}, at most {days} days");
        return Err(source.error(problem, &span));
    }
    let peers: u64 = scenario.peers.values().map(|group| u64::from(group.count())).sum();
    if peers > MOST_PEERS {
        let largest = scenario.peers.iter().max_by_key(|(_, group)| group.count());
        let place = largest.map_or(0..0, |(name, group)| {
            group.count.as_ref().map_or_else(|| name.span(), Spanned::span)
        });
        return Err(source.error(format!("{peers} peers, at most {MOST_PEERS}"), &place));
    }
    let beats = |(_, group): (_, &Peers)| {
        let heartbeat = group.heartbeat.as_ref()?;
        let period = heartbeat.get_ref().as_nanos().max(1);
        let beats = u64::from(group.count()).saturating_mul(duration.as_nanos() / period);
        Some((beats, heartbeat.span()))
    };
    let beats: Vec<_> = scenario.peers.iter().filter_map(beats).collect();
    let all = beats.iter().fold(0_u64, |sum, (beats, _)| sum.saturating_add(*beats));
    match beats.into_iter().max_by_key(|(beats, _)| *beats) {
        Some((_, place)) if all > MOST_EVENTS => {
            let problem = format!("{all} heartbeats, at most {MOST_EVENTS}");
            Err(source.error(problem, &place))
        }
        _ => Ok(()),
    }
}

/// Refuses a model that makes no sense, and figures that its table does not have.
fn check_numeric(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    if let Some(contention) = &scenario.contention {
        if let Some((problem, place)) = contention.problem() {
            return Err(source.error(problem, &place));
        }
        let others = [scenario.peers.keys().next(), scenario.servers.keys().next()];
        if let Some(other) = others.into_iter().flatten().next() {
            let problem = "either a contention or a world of peers and servers";
            return Err(source.error(problem, &other.span()));
        }
    }
    let Some(reference) = &scenario.reference else {
        let lonely = scenario.contention.as_ref().map(|contention| contention.clients.span());
        let problem = "a contention is only run against a [reference]";
        return lonely.map_or(Ok(()), |place| Err(source.error(problem, &place)));
    };
    let table = Table::load(reference.table.get_ref(), source.folder())
        .map_err(|error| source.error(error, &reference.table.span()))?;
    if !(2..=MOST_SEEDS).contains(reference.seeds.get_ref()) {
        let problem = format!("{} seeds, from 2 to {MOST_SEEDS}", reference.seeds.get_ref());
        return Err(source.error(problem, &reference.seeds.span()));
    }
    if reference.runs.is_some() == reference.runs_in.is_some() {
        let problem = "it needs either `runs` or `runs_in`, to tell over how many runs theirs are";
        return Err(source.error(problem, &reference.table.span()));
    }
    for (column, place) in reference.wanted() {
        if !table.columns.iter().any(|known| known == column) {
            let mut name = place.clone();
            column.clone_into(name.get_mut());
            return Err(source.unknown("column", &name, table.columns.iter().map(String::as_str)));
        }
    }
    for name in reference.figures.keys() {
        let known = expect::measures().map(|known| known.name);
        let known: Vec<_> = match scenario.contention {
            Some(_) => contention::FIGURES.to_vec(),
            None => known.collect(),
        };
        if !known.contains(&name.get_ref().as_str()) {
            return Err(source.unknown("measure", name, known));
        }
    }
    Ok(())
}

/// Refuses chaos of no known level, in no time, or with marks that nothing leaves.
fn check_chaos(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    let Some(chaos) = &scenario.chaos else { return Ok(()) };
    if *chaos.level.get_ref() > chaos::HOSTILE {
        let problem = format!("a level of {}, from 0 to {}", chaos.level.get_ref(), chaos::HOSTILE);
        return Err(source.error(problem, &chaos.level.span()));
    }
    if let Some(reference) = &scenario.reference {
        let problem = "figures of others are not held to in chaos";
        return Err(source.error(problem, &reference.table.span()));
    }
    if let Some(span) = chaos.span.as_ref().filter(|span| *span.get_ref() == Span::ZERO) {
        return Err(source.error("chaos within 0s", &span.span()));
    }
    let duration = scenario.duration.get_ref();
    if let Some(span) = chaos.span.as_ref().filter(|span| span.get_ref() > duration) {
        let problem = format!("chaos for longer than the scenario, which lasts {duration}");
        return Err(source.error(problem, &span.span()));
    }
    let known = || marks::all().map(|mark| mark.name);
    match chaos.marks.iter().find(|mark| known().all(|name| name != mark.get_ref())) {
        Some(mark) => Err(source.unknown("mark", mark, known())),
        None => Ok(()),
    }
}

/// Refuses groups and servers whose links could not be told apart by name.
fn check_links(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    let mut known = BTreeSet::new();
    let of_peers = scenario.peers.iter().map(|(name, group)| (name, &group.endpoints));
    let of_calls = scenario.calls.iter().map(|(name, calls)| (name, &calls.servers));
    for (name, servers) in of_peers.chain(of_calls) {
        for server in servers {
            let link = format!("{}-{}", name.get_ref(), server.get_ref());
            if known.contains(&link) {
                let problem = format!("two links would be called `{link}`; rename the group");
                return Err(source.error(problem, &name.span()));
            }
            known.insert(link);
        }
    }
    Ok(())
}

/// Refuses a policy that is nothing, and settings that would be ignored.
fn check_policy(
    scenario: &Scenario,
    source: &Source<'_>,
    name: &Spanned<String>,
    settings: &Settings,
) -> Result<(), ScenarioError> {
    if name.get_ref() == "every" {
        let problem = "`every` stands for all policies in [expect]; call this one otherwise";
        return Err(source.error(problem, &name.span()));
    }
    let built_in = policy::BUILT_IN.map(|known| known.name);
    if policy::built_in(name.get_ref()).is_none() {
        if source.is_change(&name.span()) {
            let others = scenario.policies.keys().filter(|other| !source.is_change(&other.span()));
            let others = others.map(|other| other.get_ref().as_str());
            return Err(source.unknown("policy", name, built_in.into_iter().chain(others)));
        }
        if settings.base.is_none() {
            let known = built_in.join("`, `");
            let problem = format!(
                "`{}` is no built-in policy, so it needs a `base`: one of `{known}`",
                name.get_ref()
            );
            return Err(source.error(problem, &name.span()));
        }
    }
    if let Some(base) = &settings.base
        && policy::built_in(base.get_ref()).is_none()
    {
        return Err(source.unknown("policy", base, built_in));
    }
    let whole = policy::settings(scenario, name.get_ref())?;
    calls::check_policy(source, &whole)?;
    let bursts = [
        (whole.breaker.rate, &whole.breaker.burst),
        (whole.pacer.rate, &whole.pacer.burst),
        (whole.gate.rate, &whole.gate.burst),
    ];
    for (rate, burst) in bursts {
        if let (None, Some(burst)) = (rate, burst) {
            return Err(source.error("`burst` needs `rate`", &burst.span()));
        }
    }
    Ok(())
}

/// Refuses what the core refuses under a policy: at the group whose own settings are to blame, or
/// at the policy's name, where it has one.
pub(super) fn check_config(
    scenario: &Scenario,
    source: &Source<'_>,
    policy: &str,
    name: Option<&Spanned<String>>,
) -> Result<(), ScenarioError> {
    let Err(error) = policy::config(scenario, policy) else { return Ok(()) };
    for (group, calls) in &scenario.calls {
        if is_empty(calls.profile.get_ref()) {
            continue;
        }
        let mut without = scenario.clone();
        if let Some(calls) = without.calls.get_mut(group.get_ref().as_str()) {
            calls.profile = Spanned::new(0..0, CallSettings::default());
        }
        if policy::config(&without, policy).err().as_ref() != Some(&error) {
            return Err(source.error(error.message(), &calls.profile.span()));
        }
    }
    for (group, peers) in &scenario.peers {
        if is_empty(peers.profile.get_ref()) {
            continue;
        }
        let mut without = scenario.clone();
        if let Some(peers) = without.peers.get_mut(group.get_ref().as_str()) {
            peers.profile = Spanned::new(0..0, PeerSettings::default());
        }
        if policy::config(&without, policy).err().as_ref() != Some(&error) {
            return Err(source.error(error.message(), &peers.profile.span()));
        }
    }
    Err(match name {
        Some(name) => source.error(error.message(), &name.span()),
        None => error,
    })
}

/// The names that links can have: each group with each of its servers.
pub(super) fn link_names(scenario: &Scenario) -> Vec<String> {
    let of_group = |(name, group): (&Spanned<String>, &Peers)| {
        let name = name.get_ref().clone();
        let servers: Vec<_> =
            group.endpoints.iter().map(|server| server.get_ref().clone()).collect();
        servers.into_iter().map(move |server| format!("{name}-{server}"))
    };
    let of_calls = scenario.calls.iter().flat_map(|(name, calls)| {
        let servers = calls.servers.iter();
        servers.map(move |server| format!("{}-{}", name.get_ref(), server.get_ref()))
    });
    scenario.peers.iter().flat_map(of_group).chain(of_calls).collect()
}

fn check_peers(
    scenario: &Scenario,
    source: &Source<'_>,
    name: &Spanned<String>,
    group: &Peers,
) -> Result<(), ScenarioError> {
    if let Some(count) = group.count.as_ref().filter(|count| *count.get_ref() == 0) {
        return Err(source.error("a group of no peers", &count.span()));
    }
    if let Some(heartbeat) = &group.heartbeat
        && heartbeat.get_ref().as_nanos() == 0
    {
        return Err(source.error("a heartbeat every 0s", &heartbeat.span()));
    }
    if group.endpoints.is_empty() {
        let problem = format!("`{}` has no endpoints to connect to", name.get_ref());
        return Err(source.error(problem, &name.span()));
    }
    for (place, server) in group.endpoints.iter().enumerate() {
        let twin = |earlier: &Spanned<String>| earlier.get_ref() == server.get_ref();
        if group.endpoints.iter().take(place).any(twin) {
            let problem = format!("`{}` is among the endpoints already", server.get_ref());
            return Err(source.error(problem, &server.span()));
        }
        if !scenario.servers.contains_key(server.get_ref().as_str()) {
            let known = scenario.servers.keys().map(|name| name.get_ref().as_str());
            return Err(source.unknown("server", server, known));
        }
    }
    let beats = group.heartbeat.as_ref().map(Spanned::span);
    let beats = beats.or_else(|| group.heartbeat_trace.as_ref().map(Spanned::span));
    if let Some(place) = beats.filter(|_| group.profile.get_ref().signs.is_some()) {
        let problem = "either heartbeats or other signs of life: `profile.signs` is set too";
        return Err(source.error(problem, &place));
    }
    if let Some(trace) = &group.heartbeat_trace {
        trace::arrivals(trace.get_ref(), source.folder())
            .map_err(|error| source.error(error, &trace.span()))?;
        if group.heartbeat.is_some() {
            return Err(source.error("either a heartbeat or a trace of them", &trace.span()));
        }
    }
    Ok(())
}

/// Refuses to look at a moment that the run under this policy never reaches.
pub(super) fn check_moments(
    scenario: &Scenario,
    source: &Source<'_>,
    policy: &str,
    heal: Span,
) -> Result<(), ScenarioError> {
    let duration = *scenario.duration.get_ref();
    let tables = ["every", policy].into_iter().filter_map(|name| scenario.expect.get(name));
    for bound in tables.flat_map(|bounds| bounds.values()) {
        let Some(at) = bound.get_ref().at() else { continue };
        if heal.as_nanos().saturating_add(at.as_nanos()) > duration.as_nanos() {
            let problem = format!(
                "{at} after the heal at {heal} is after the end of the scenario at {duration}"
            );
            return Err(source.error(problem, &bound.span()));
        }
    }
    Ok(())
}

fn check_expect(scenario: &Scenario, source: &Source<'_>) -> Result<(), ScenarioError> {
    let mut policies = policy::names(scenario);
    policies.push("every");
    for (policy, bounds) in &scenario.expect {
        if !policies.contains(&policy.get_ref().as_str()) {
            return Err(source.unknown("policy", policy, policies));
        }
        for (name, bound) in bounds {
            let Some((measure, group)) = expect::resolve(name.get_ref()) else {
                let known = expect::measures().map(|known| known.name);
                return Err(source.unknown("measure", name, known));
            };
            if let Some(group) = group
                && !measure.can_be_asked_of(scenario, group)
            {
                let problem = format!("`{}` cannot be asked of `{group}`", measure.name);
                return Err(source.error(problem, &name.span()));
            }
            if let Some(problem) = bound.get_ref().problem(measure) {
                return Err(source.error(problem, &bound.span()));
            }
        }
    }
    Ok(())
}
