//! Faults: what each kind needs, and when it comes.

use toml::Spanned;

use super::super::source::Source;
use super::super::{Fault, FaultKind, Peers, Scenario, ScenarioError};
use super::{MOST_EVENTS, link_names};
use crate::dist::Dist;
use crate::schedule::Schedule;
use crate::trace;
use crate::units::Span;

/// How often a fault may come.
const MOST_TIMES: u32 = 1_000_000;

/// Refuses a fault that lacks something, has too much, or never happens.
pub(super) fn check(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    use FaultKind as Kind;
    let kind = *fault.kind.get_ref();
    let target = match kind {
        Kind::Down | Kind::Silent | Kind::ResetAll | Kind::Capacity => "servers",
        Kind::Reject | Kind::DnsFail | Kind::Drain => "servers",
        Kind::Failing | Kind::Sluggish | Kind::RequestCapacity | Kind::Stall | Kind::Cold => {
            "servers"
        }
        Kind::Slow | Kind::Lossy | Kind::Partition | Kind::Cut => "links",
        Kind::Churn | Kind::Resolve | Kind::Leave => "peers",
        Kind::Surge | Kind::HangUp => "calls",
        Kind::Pause | Kind::Offline | Kind::Switch | Kind::Background => "managers",
    };
    let known: Vec<String> = match target {
        "servers" => scenario.servers.keys().map(|name| format!("servers.{name}")).collect(),
        "peers" => scenario.peers.keys().map(|name| format!("peers.{name}")).collect(),
        "calls" => scenario.calls.keys().map(|name| format!("calls.{name}")).collect(),
        "links" => link_names(scenario).iter().map(|name| format!("links.{name}")).collect(),
        _ => vec!["managers".to_owned()],
    };
    if !known.contains(fault.on.get_ref()) {
        return Err(source.unknown("target", &fault.on, known.iter().map(String::as_str)));
    }
    let span = fault.kind.span();
    let lasts = fault.lasts.is_some();
    let instant = matches!(kind, Kind::ResetAll | Kind::Cold | Kind::HangUp);
    let shared = matches!(kind, Kind::Failing | Kind::DnsFail | Kind::Leave | Kind::HangUp);
    let shared = shared || kind.is_of_managers();
    check_heals(source, fault)?;
    let needed = [
        ("latency", fault.latency.is_some(), kind == Kind::Slow),
        ("loss", fault.loss.is_some(), kind == Kind::Lossy),
        ("accept", fault.accept.is_some(), kind == Kind::Capacity),
        ("rate", fault.rate.is_some(), matches!(kind, Kind::RequestCapacity | Kind::Surge)),
        ("cause", fault.cause.is_some(), kind == Kind::Reject),
        ("notice", fault.notice.is_some(), kind == Kind::Drain),
        ("times_slower", fault.times_slower.is_some(), kind == Kind::Sluggish),
        ("for", lasts, fault.heals && !instant && (lasts || kind != Kind::Switch)),
    ];
    let churns = kind == Kind::Churn;
    let drains = kind == Kind::Drain;
    let allowed = [
        ("wake", fault.wake.is_some(), kind == Kind::Pause),
        ("direction", fault.direction.is_some(), kind == Kind::Partition),
        ("share", fault.share.is_some(), shared),
        ("spread", fault.spread.is_some(), kind.is_of_managers()),
        ("stays", fault.stays.is_some(), churns),
        ("away", fault.away.is_some(), churns),
        ("trace", fault.trace.is_some(), churns),
        ("as", fault.gone.is_some(), churns),
        ("every", fault.every.is_some(), !churns),
        ("until", fault.until.is_some(), !churns && !drains),
    ];
    let missing = needed.iter().find(|(_, given, wanted)| *wanted && !given);
    let failing = (kind == Kind::Failing && fault.share.is_none()).then_some("share");
    if let Some(name) = missing.map(|(name, ..)| *name).or(failing) {
        return Err(source.error(format!("`{kind}` needs `{name}`"), &span));
    }
    let ignored = needed.iter().chain(&allowed).find(|(_, given, fits)| *given && !fits);
    if let Some((name, ..)) = ignored {
        return Err(source.error(format!("`{kind}` takes no `{name}`"), &span));
    }
    match kind {
        Kind::Churn => check_churn(scenario, source, fault)?,
        Kind::Drain => check_drain(scenario, source, fault)?,
        Kind::Switch => check_switch(scenario, source, fault)?,
        Kind::Surge => check_surge(scenario, source, fault)?,
        Kind::Resolve | Kind::Leave => check_members(scenario, source, fault)?,
        _ => check_requests(scenario, source, fault)?,
    }
    check_each(scenario, source, fault)?;
    check_schedule(scenario, source, fault)
}

/// Refuses to leave broken for ever what nobody could get around, or what has no such state.
fn check_heals(source: &Source<'_>, fault: &Fault) -> Result<(), ScenarioError> {
    use FaultKind as Kind;
    let kind = *fault.kind.get_ref();
    if fault.heals {
        return Ok(());
    }
    let one_way = matches!(kind, Kind::Down | Kind::Silent | Kind::Reject | Kind::DnsFail)
        || matches!(kind, Kind::Partition | Kind::Cut);
    if !one_way || fault.share.is_some() {
        let problem = format!("`{kind}` must heal: only a server or a link can be gone for good");
        return Err(source.error(problem, &fault.kind.span()));
    }
    match fault.every.as_ref().map(Spanned::span).or(fault.until.as_ref().map(Spanned::span)) {
        Some(span) => Err(source.error("it never heals, so it comes once", &span)),
        None => Ok(()),
    }
}

/// Refuses to take endpoints from those who have one, and peers from those who need them.
fn check_members(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    let kind = *fault.kind.get_ref();
    let name = fault.on.get_ref().strip_prefix("peers.").unwrap_or_default();
    let twins = scenario
        .faults
        .iter()
        .filter(|other| *other.kind.get_ref() == kind && other.on.get_ref() == fault.on.get_ref());
    if twins.count() > 1 {
        let problem = format!("a group has one `{kind}` only; it may come again with `every`");
        return Err(source.error(problem, &fault.on.span()));
    }
    let Some(group) = scenario.peers.get(name) else { return Ok(()) };
    if group.heartbeat_trace.is_some() {
        let problem = "that group follows a recording of heartbeats";
        return Err(source.error(problem, &fault.on.span()));
    }
    if kind == FaultKind::Resolve && group.endpoints.len() < 2 {
        return Err(source.error("that group has no second endpoint", &fault.on.span()));
    }
    let mut calls = scenario.calls.values().filter_map(|calls| calls.peers.as_ref());
    if kind == FaultKind::Leave && calls.any(|peers| peers.get_ref() == name) {
        let problem = "calls go to that group's peers, and would find nobody";
        return Err(source.error(problem, &fault.on.span()));
    }
    Ok(())
}

/// Refuses a switch under requests, whose connections are not the managers'.
fn check_switch(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    if scenario.calls.is_empty() {
        return Ok(());
    }
    let problem = "there are calls, which would not notice";
    Err(source.error(problem, &fault.kind.span()))
}

/// Refuses what would come to some managers too late, and too many moments of too many managers.
fn check_each(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    let schedule = Schedule::of(fault);
    if !schedule.is_each() {
        return Ok(());
    }
    let managers = u64::from(*scenario.managers.get_ref());
    let moments = schedule.about_times().saturating_mul(managers);
    if moments > MOST_EVENTS / 100 {
        let problem = format!("{moments} times over all managers, at most {}", MOST_EVENTS / 100);
        return Err(source.error(problem, &fault.kind.span()));
    }
    let Some(spread) = &fault.spread else { return Ok(()) };
    let end = fault.until.as_ref().unwrap_or(&scenario.duration).get_ref();
    let last = fault.at.get_ref().as_nanos().saturating_add(spread.get_ref().as_nanos());
    if last >= end.as_nanos() {
        let problem = format!("it comes to some managers only when all is over, at {end}");
        return Err(source.error(problem, &spread.span()));
    }
    Ok(())
}

/// Refuses faults with requests that their server does not have.
fn check_requests(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    use FaultKind as Kind;
    let kind = *fault.kind.get_ref();
    let requests = fault.on.get_ref().strip_prefix("servers.");
    let requests = requests.and_then(|name| scenario.servers.get(name));
    let requests = requests.map(|server| &server.requests);
    if kind == Kind::Cold && requests.is_some_and(|requests| requests.cache.is_none()) {
        return Err(source.error("that server has no cache", &fault.on.span()));
    }
    if matches!(kind, Kind::Stall | Kind::RequestCapacity)
        && requests.is_some_and(|requests| requests.rate.is_none() && requests.turn.is_none())
    {
        let problem = format!("`{kind}` needs a server with `requests.rate` or `requests.turn`");
        return Err(source.error(problem, &fault.on.span()));
    }
    if fault.times_slower.is_some_and(|times| !(0.0..=1e6).contains(&times)) {
        let problem = "`times_slower` must be from 0 to 1000000";
        return Err(source.error(problem, &fault.kind.span()));
    }
    Ok(())
}

fn check_surge(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    let name = fault.on.get_ref().strip_prefix("calls.").unwrap_or_default();
    if scenario.calls.get(name).is_some_and(|calls| calls.rate.is_none()) {
        return Err(source.error("only calls with a `rate` can surge", &fault.on.span()));
    }
    let period = fault.rate.map_or(Span::ZERO, crate::units::Rate::period).as_nanos().max(1);
    let lasts = fault.lasts.as_ref().map_or(0, |lasts| lasts.get_ref().mean().as_nanos());
    let calls = (lasts / period).saturating_mul(Schedule::of(fault).about_times());
    if calls > MOST_EVENTS / 10 {
        let problem = format!("{calls} calls, at most {}", MOST_EVENTS / 10);
        return Err(source.error(problem, &fault.kind.span()));
    }
    Ok(())
}

/// Refuses to drain what has no instances, and two drains of one server.
fn check_drain(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    let server = fault.on.get_ref().strip_prefix("servers.").unwrap_or_default();
    if scenario.servers.get(server).is_some_and(|server| server.instances.is_none()) {
        return Err(source.error("that server has no `instances` to drain", &fault.on.span()));
    }
    let twins = scenario.faults.iter().filter(|other| {
        *other.kind.get_ref() == FaultKind::Drain && other.on.get_ref() == fault.on.get_ref()
    });
    if twins.count() > 1 {
        let problem = "the instances of a server are drained in one way only";
        return Err(source.error(problem, &fault.on.span()));
    }
    Ok(())
}

/// Refuses hosts that come and go in no way, in two ways, or without end.
fn check_churn(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    let span = fault.kind.span();
    let group = fault.on.get_ref().strip_prefix("peers.").unwrap_or_default();
    let twins = scenario.faults.iter().filter(|other| {
        *other.kind.get_ref() == FaultKind::Churn && other.on.get_ref() == fault.on.get_ref()
    });
    if twins.count() > 1 {
        return Err(source.error("the hosts of a group churn in one way only", &fault.on.span()));
    }
    if scenario.peers.get(group).is_some_and(|group| group.heartbeat_trace.is_some()) {
        let problem = "that group follows a recording of heartbeats";
        return Err(source.error(problem, &fault.on.span()));
    }
    let mut calls = scenario.calls.values().filter_map(|calls| calls.peers.as_ref());
    if calls.any(|peers| peers.get_ref() == group) {
        let problem = "calls go over that group's connections, and would not notice";
        return Err(source.error(problem, &fault.on.span()));
    }
    match (&fault.trace, fault.stays, fault.away) {
        (Some(trace), None, None) => {
            let turns = trace::hosts(trace.get_ref(), source.folder());
            let turns = turns.map_err(|error| source.error(error, &trace.span()))?;
            if turns.is_empty() {
                return Err(source.error("the trace is empty", &trace.span()));
            }
        }
        (None, Some(stays), Some(away)) => {
            let both = stays.mean().as_nanos().saturating_add(away.mean().as_nanos());
            let lasts = fault.lasts.as_ref().map_or(0, |lasts| lasts.get_ref().mean().as_nanos());
            let hosts = u64::from(scenario.peers.get(group).map_or(0, Peers::count));
            let spells = (lasts / both.max(1)).saturating_mul(hosts);
            if spells > MOST_EVENTS {
                let problem = format!("{spells} times that hosts go, at most {MOST_EVENTS}");
                return Err(source.error(problem, &span));
            }
        }
        _ => {
            let problem = "`churn` needs either `trace`, or `stays` and `away`";
            return Err(source.error(problem, &span));
        }
    }
    match &fault.lasts {
        Some(lasts) if lasts.get_ref().is_chance() => {
            Err(source.error("`churn` has a fixed end", &lasts.span()))
        }
        _ => Ok(()),
    }
}

/// Refuses a fault that never happens, not as often as it says, or without end.
fn check_schedule(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    let span = fault.kind.span();
    let is_chance = |dist: &&Spanned<Dist>| dist.get_ref().is_chance();
    let by_chance = fault.every.as_ref().filter(is_chance);
    let by_chance = by_chance.or(fault.lasts.as_ref().filter(is_chance));
    match (&fault.until, by_chance) {
        (None, Some(chance)) => {
            return Err(source.error("what comes by chance needs `until`", &chance.span()));
        }
        (Some(until), None) if fault.every.is_none() => {
            let problem = "`until` needs `every`, or a `for` by chance";
            return Err(source.error(problem, &until.span()));
        }
        (Some(until), _) if fault.times > 1 => {
            return Err(source.error("either `until` or `times`", &until.span()));
        }
        (Some(until), _) if until.get_ref() <= fault.at.get_ref() => {
            return Err(source.error("it is over before it begins", &until.span()));
        }
        _ => {}
    }
    let times = Schedule::of(fault).about_times();
    if fault.times == 0 {
        return Err(source.error("a fault that comes 0 times", &span));
    }
    if times > MOST_TIMES.into() {
        return Err(source.error(format!("it comes {times} times, at most {MOST_TIMES}"), &span));
    }
    let Some(every) = &fault.every else {
        if times > 1 {
            return Err(source.error("`times` needs `every`", &span));
        }
        return check_begins(scenario, source, fault);
    };
    let notice = fault.notice.unwrap_or_default().as_nanos();
    let lasts = fault.lasts.as_ref().map(|lasts| lasts.get_ref().mean().as_nanos());
    let lasts = lasts.map(|lasts| lasts.saturating_add(notice));
    if by_chance.is_none() && lasts.is_some_and(|lasts| lasts >= every.get_ref().mean().as_nanos())
    {
        return Err(source.error("it must be over before it comes again", &every.span()));
    }
    let hits = times.saturating_mul(scenario.peer_count().into());
    // A pause touches the managers only.
    if hits > MOST_EVENTS && *fault.kind.get_ref() != FaultKind::Pause {
        let problem = format!("{hits} connections that it may hit, at most {MOST_EVENTS}");
        return Err(source.error(problem, &every.span()));
    }
    check_begins(scenario, source, fault)
}

/// Refuses a fault that never happens, or not as often as it says.
fn check_begins(
    scenario: &Scenario,
    source: &Source<'_>,
    fault: &Fault,
) -> Result<(), ScenarioError> {
    let duration = *scenario.duration.get_ref();
    if *fault.at.get_ref() >= duration {
        let problem = format!("it never happens: the scenario ends at {duration}");
        return Err(source.error(problem, &fault.at.span()));
    }
    let Some(every) = fault.every.as_ref().filter(|_| fault.until.is_none()) else {
        return Ok(());
    };
    let left = duration.as_nanos() - fault.at.get_ref().as_nanos();
    let fit = left.div_ceil(every.get_ref().mean().as_nanos().max(1));
    if u64::from(fault.times) > fit {
        let problem = format!(
            "it comes {} times, but only {fit} begin before the scenario ends at {duration}",
            fault.times
        );
        return Err(source.error(problem, &every.span()));
    }
    Ok(())
}
