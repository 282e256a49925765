//! The faults that a seed draws.

use toml::Spanned;

use super::Chance;
use crate::dist::Dist;
use crate::scenario::{
    BreakerScope, Direction, Fault, FaultKind, Peers, RejectCause, Scenario, WakeOrder,
};
use crate::units::{Rate, Share, Span};

/// Something that can go wrong, and where.
type Candidate = (FaultKind, String);

/// How many faults at most, and how long one lasts at most, by level.
const MOST: [(u64, u64); 4] = [(0, 0), (2, 2_000), (8, 15_000), (16, 40_000)];

pub(super) fn draw(scenario: &mut Scenario, level: u32, span: Span, chance: &mut Chance) {
    let place = usize::try_from(level).unwrap_or(usize::MAX).min(MOST.len() - 1);
    let (most, longest_ms) = MOST.get(place).copied().unwrap_or_default();
    let frozen = if level > 1 && chance.once_in(3) { freeze(scenario, span, chance) } else { 0 };
    let all = candidates(scenario);
    let mut kinds: Vec<FaultKind> = all.iter().map(|(kind, _)| *kind).collect();
    kinds.dedup();
    if chance.once_in(8) {
        // Then whoever is blamed is innocent.
        kinds.retain(|kind| !touches_others(*kind));
    } else {
        kinds.retain(|_| chance.once_in(2));
    }
    let on: Vec<Candidate> = all.into_iter().filter(|(kind, _)| kinds.contains(kind)).collect();
    let wanted = chance.within(u64::from(frozen == 0), most);
    for _ in 0..wanted {
        let Some((kind, target)) = chance.pick(&on).cloned() else { return };
        let twin = |other: &Fault| {
            *other.kind.get_ref() == kind && *other.on.get_ref() == target && comes_once(kind)
        };
        if !scenario.faults.iter().any(twin) {
            let fault = fault(scenario, kind, target, span, longest_ms, chance);
            scenario.faults.push(fault);
        }
    }
}

/// Whether a fault is more than what our own process does.
const fn touches_others(kind: FaultKind) -> bool {
    use FaultKind as Kind;
    !matches!(kind, Kind::Pause | Kind::Resolve | Kind::Leave | Kind::HangUp)
}

/// Whether a target can have one of the kind only.
const fn comes_once(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Churn | FaultKind::Drain | FaultKind::Resolve | FaultKind::Leave)
}

/// Everything that can go wrong here, kind by kind.
fn candidates(scenario: &Scenario) -> Vec<Candidate> {
    use FaultKind as Kind;
    let mut all = Vec::new();
    let mut add = |kinds: &[Kind], target: &str| {
        all.extend(kinds.iter().map(|kind| (*kind, target.to_owned())));
    };
    let dialed = |server: &str| {
        let mut groups = scenario.peers.values();
        groups.any(|group| group.endpoints.iter().any(|name| name.get_ref() == server))
    };
    let asked = |server: &str| {
        let mut calls = scenario.calls.values();
        calls.any(|calls| calls.servers.iter().any(|name| name.get_ref() == server))
    };
    for (name, server) in &scenario.servers {
        let target = format!("servers.{name}");
        add(&[Kind::Down, Kind::Silent, Kind::ResetAll], &target);
        if dialed(name.get_ref()) {
            add(&[Kind::Reject, Kind::DnsFail], &target);
        }
        if server.accept.is_some() {
            add(&[Kind::Capacity], &target);
        }
        if server.instances.is_some() {
            add(&[Kind::Drain], &target);
        }
        if asked(name.get_ref()) {
            add(&[Kind::Failing, Kind::Sluggish], &target);
        }
        if server.requests.rate.is_some() || server.requests.turn.is_some() {
            add(&[Kind::RequestCapacity, Kind::Stall], &target);
        }
        if server.requests.cache.is_some() {
            add(&[Kind::Cold], &target);
        }
    }
    for (name, _) in ways(scenario) {
        add(&[Kind::Slow, Kind::Lossy, Kind::Partition, Kind::Cut], &format!("links.{name}"));
    }
    for (name, group) in &scenario.peers {
        let target = format!("peers.{name}");
        let called = |calls: &crate::scenario::Calls| {
            calls.peers.as_ref().is_some_and(|peers| peers.get_ref() == name.get_ref())
        };
        let recorded = group.heartbeat_trace.is_some();
        if !scenario.calls.values().any(called) && !recorded {
            add(&[Kind::Churn, Kind::Leave], &target);
        }
        if group.endpoints.len() > 1 && !recorded {
            add(&[Kind::Resolve], &target);
        }
    }
    for (name, calls) in &scenario.calls {
        let target = format!("calls.{name}");
        add(&[Kind::HangUp], &target);
        if calls.rate.is_some() {
            add(&[Kind::Surge], &target);
        }
    }
    add(&[Kind::Pause, Kind::Offline, Kind::Background], "managers");
    if scenario.calls.is_empty() {
        add(&[Kind::Switch], "managers");
    }
    all.sort_by_key(|(kind, _)| *kind as usize);
    all
}

/// The links that there are, each with the server at its end.
fn ways(scenario: &Scenario) -> Vec<(String, String)> {
    let of_peers = scenario.peers.iter().map(|(name, group)| (name, &group.endpoints));
    let of_calls = scenario.calls.iter().map(|(name, calls)| (name, &calls.servers));
    let ways = of_peers.chain(of_calls).flat_map(|(name, servers)| {
        servers.iter().map(move |server| (format!("{name}-{server}"), server.get_ref().clone()))
    });
    ways.collect()
}

/// Leaves some servers and links broken for ever, but for one way of one group; how many.
fn freeze(scenario: &mut Scenario, span: Span, chance: &mut Chance) -> usize {
    use FaultKind as Kind;
    let groups: Vec<(&str, &Peers)> =
        scenario.peers.iter().map(|(name, group)| (name.get_ref().as_str(), group)).collect();
    let Some((name, core)) = chance.pick(&groups) else { return 0 };
    let kept: Vec<String> = match core.breaker {
        BreakerScope::PerEndpoint => chance.pick(&core.endpoints).into_iter().cloned().collect(),
        // Behind one breaker with a server that is gone nobody is promised anything.
        BreakerScope::Shared | BreakerScope::PerPeer => core.endpoints.clone(),
    }
    .into_iter()
    .map(Spanned::into_inner)
    .collect();
    let links: Vec<String> = kept.iter().map(|server| format!("{name}-{server}")).collect();
    let mut targets: Vec<(String, &[Kind])> = Vec::new();
    for server in scenario.servers.keys().filter(|name| !kept.contains(name.get_ref())) {
        let kinds = &[Kind::Down, Kind::Silent, Kind::Reject, Kind::DnsFail];
        targets.push((format!("servers.{server}"), kinds));
    }
    for (link, _) in ways(scenario).into_iter().filter(|(link, _)| !links.contains(link)) {
        targets.push((format!("links.{link}"), &[Kind::Partition, Kind::Cut]));
    }
    targets.retain(|_| chance.once_in(3));
    let mut frozen = Vec::new();
    for (target, kinds) in targets {
        let Some(kind) = chance.pick(kinds).copied() else { continue };
        let fault = fault(scenario, kind, target, span, 1, chance);
        frozen.push(Fault {
            lasts: None,
            every: None,
            times: 1,
            share: None,
            heals: false,
            ..fault
        });
    }
    let count = frozen.len();
    scenario.faults.extend(frozen);
    count
}

fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

/// A fault of that kind, somewhere within the span.
fn fault(
    scenario: &Scenario,
    kind: FaultKind,
    target: String,
    span: Span,
    longest_ms: u64,
    chance: &mut Chance,
) -> Fault {
    use FaultKind as Kind;
    let span_ms = (span.as_nanos() / 1_000_000).max(1);
    let at_ms = chance.within(0, span_ms - 1);
    let left_ms = span_ms - at_ms;
    let lasts = chance.span(50, longest_ms.max(50)).min(Span::from_nanos(left_ms * 1_000_000));
    let lasts = lasts.max(Span::from_nanos(1_000_000));
    let mut fault = Fault {
        kind: unplaced(kind),
        on: unplaced(target.clone()),
        at: unplaced(Span::from_nanos(at_ms * 1_000_000)),
        lasts: Some(unplaced(Dist::Fixed(lasts))),
        every: None,
        times: 1,
        until: None,
        latency: None,
        loss: None,
        accept: None,
        rate: None,
        direction: None,
        cause: None,
        notice: None,
        stays: None,
        away: None,
        trace: None,
        gone: None,
        share: None,
        spread: None,
        times_slower: None,
        wake: None,
        heals: true,
    };
    repeat(&mut fault, lasts, left_ms, chance);
    let percent = |percent: u64| Share::new(percent as f64 / 100.0);
    match kind {
        Kind::Slow => fault.latency = Some(Dist::Fixed(chance.span(5, 8_000))),
        Kind::Lossy => fault.loss = percent(chance.within(1, 60)),
        Kind::Capacity => fault.accept = Some(per_second(chance.within(1, 20))),
        Kind::RequestCapacity => fault.rate = Some(per_second(chance.within(1, 20))),
        Kind::Surge => fault.rate = Some(per_second(chance.within(1, 40))),
        Kind::Reject => {
            use RejectCause as Cause;
            let causes = [Cause::Throttled, Cause::Auth, Cause::Incompatible, Cause::NotFound];
            fault.cause = chance.pick(&causes).copied();
        }
        Kind::Partition => {
            let ways = [None, Some(Direction::ToServer), Some(Direction::FromServer)];
            fault.direction = chance.pick(&ways).copied().flatten();
        }
        Kind::Drain => {
            fault.notice = Some(chance.span(50, 2_000));
            (fault.every, fault.times) = (None, 1);
        }
        Kind::Churn => {
            (fault.every, fault.times) = (None, 1);
            fault.stays = Some(Dist::Exp(chance.span(200, 10_000)));
            fault.away = Some(Dist::Exp(chance.span(200, 10_000)));
        }
        Kind::DnsFail | Kind::Failing | Kind::Leave | Kind::HangUp => {
            fault.share = percent(chance.within(1, 10) * 10);
        }
        Kind::Sluggish => fault.times_slower = Some(chance.within(2, 100) as f64),
        Kind::Pause => {
            // Longer than anything takes to be found dead.
            let lasts = chance.span(50, 4 * longest_ms.max(50));
            fault.lasts = Some(unplaced(Dist::Fixed(lasts)));
            (fault.every, fault.times) = (None, 1);
            let orders = [None, Some(WakeOrder::TickFirst)];
            fault.wake = chance.pick(&orders).copied().flatten();
        }
        _ => {}
    }
    if matches!(kind, Kind::ResetAll | Kind::Cold | Kind::HangUp) {
        fault.lasts = None;
    }
    if kind.is_of_managers() && *scenario.managers.get_ref() > 1 && chance.once_in(2) {
        fault.share = percent(50);
    }
    fault
}

/// Some come again and again, as far as there is time.
fn repeat(fault: &mut Fault, lasts: Span, left_ms: u64, chance: &mut Chance) {
    let gap = chance.span(50, 5_000);
    let every = lasts.as_nanos().saturating_add(gap.as_nanos());
    let fit = left_ms.saturating_mul(1_000_000) / every.max(1);
    if fit >= 2 && chance.once_in(4) {
        fault.every = Some(unplaced(Dist::Fixed(Span::from_nanos(every))));
        fault.times = u32::try_from(chance.within(2, fit.min(8))).unwrap_or(2);
    }
}

fn per_second(count: u64) -> Rate {
    Rate { count: u32::try_from(count).unwrap_or(u32::MAX), per: Span::from_secs(1) }
}
