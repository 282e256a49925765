//! Events, actions and what somebody waits for, as a person would say them.

use std::time::Duration;

use steadfast::breaker::State;
use steadfast::{
    Action, Blocked, Endpoint, Event, GiveUpReason, Ignored, Notice, PeerCause, PeerState,
    RetryAfter, Target, Time, Why,
};

/// A variant without fields, by its name.
fn word(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), |name| name.replace('_', " "))
}

pub(super) fn peer_state(state: PeerState) -> String {
    word(state)
}

pub(super) fn breaker(state: State) -> String {
    match state {
        State::Closed => "closed".into(),
        State::Open { until } => format!("open until {until}"),
        State::HalfOpen => "half-open, probing".into(),
        State::ForcedOpen => "forced open, until an operator resets it".into(),
        State::Disabled => "disabled: admits all, until an operator resets it".into(),
    }
}

/// Where a peer stands, since when, and what would move it on.
pub(super) fn why(why: &Why) -> String {
    let until = why.until.map(|until| format!(" until {until}")).unwrap_or_default();
    let line = |ahead: u64| match ahead {
        0 => "first in line".to_owned(),
        1 => "at most 1 ahead of it".to_owned(),
        _ => format!("at most {ahead} ahead of it"),
    };
    let blocked = match why.blocked {
        None => String::new(),
        Some(Blocked::Backoff) => format!(": in its own backoff{until}"),
        Some(Blocked::Dial(conn)) => {
            format!(": dials as {conn}, which times out{until}").replace(" until ", " at ")
        }
        Some(Blocked::Breaker { breaker: id, state, ahead }) => {
            format!(": behind {id}, which is {}; {}", breaker(state), line(ahead))
        }
        Some(Blocked::Turn { breaker, ahead }) => {
            format!(": waits for its turn at {breaker}; {}", line(ahead))
        }
        Some(Blocked::Network) => ": this host has no network".into(),
        Some(Blocked::Pause) => ": the app is paused".into(),
        Some(Blocked::Revival) => ": gave up, until somebody revives it".into(),
        Some(other) => format!(": {other:?}{until}"),
    };
    let failures = match why.failures {
        0 => String::new(),
        1 => "; 1 failed round".into(),
        more => format!("; {more} failed rounds"),
    };
    format!("{} since {}{blocked}{failures}", peer_state(why.state), why.since)
}

pub(super) fn event(event: &Event) -> String {
    let places = |endpoints: &[Endpoint]| {
        let places = endpoints.iter().map(|one| format!("{} behind {}", one.id, one.breaker));
        places.collect::<Vec<_>>().join(", ")
    };
    match event {
        Event::AddBreaker { breaker, profile } => format!("add {breaker}, {profile}"),
        Event::RemoveBreaker { breaker } => format!("remove {breaker}"),
        Event::AddPeer { peer, profile, endpoints } => {
            format!("add {peer}, {profile}: {}", places(endpoints))
        }
        Event::SetEndpoints { peer, endpoints } => {
            format!("endpoints of {peer}: {}", places(endpoints))
        }
        Event::RemovePeer { peer } => format!("remove {peer}"),
        Event::Connect { peer } => format!("connect {peer}"),
        Event::Disconnect { peer } => format!("disconnect {peer}"),
        Event::Call { call, target, profile, deadline } => {
            let target = match target {
                Target::Breaker(breaker) => format!("behind {breaker}"),
                Target::Peer { peer, breaker } => format!("to {peer} behind {breaker}"),
            };
            let deadline = deadline.map(|at| format!(", deadline {at}")).unwrap_or_default();
            format!("call {call} {target}, {profile}{deadline}")
        }
        Event::CancelCall { call } => format!("cancel call {call}"),
        Event::Connected { conn, resumed } => {
            format!("connected {conn}{}", if *resumed { ", session taken up" } else { "" })
        }
        Event::DialFailed { conn, cause, retry_after } => {
            format!("dial failed {conn}: {}{}", word(cause), after(*retry_after))
        }
        Event::Lost { conn, cause } => format!("lost {conn}: {}", word(cause)),
        Event::Heard { conn } => format!("heard {conn}"),
        Event::Heartbeat { conn } => format!("heartbeat {conn}"),
        Event::GoAway { conn, leaves_in, reconnect_in } => {
            let leaves = leaves_in.map(|leaves| format!(", it leaves in {leaves:?}"));
            let wait = (!reconnect_in.is_zero()).then(|| format!(", wait for {reconnect_in:?}"));
            format!("go away {conn}{}{}", leaves.unwrap_or_default(), wait.unwrap_or_default())
        }
        Event::Pong { ping } => format!("pong {ping}"),
        Event::Metrics { conn, latency, loss } => {
            format!("metrics {conn}: {latency:?}, {loss} ppm lost")
        }
        Event::Accepted { peer, tag } => format!("accepted {tag} from {peer}"),
        Event::Succeeded { attempt } => format!("succeeded {attempt}"),
        Event::Failed { attempt, kind, retry_after } => {
            let after = match retry_after {
                None => String::new(),
                Some(RetryAfter::After(span)) => after(Some(*span)),
                Some(RetryAfter::Never) => ", never again".into(),
            };
            format!("failed {attempt}: {}{after}", word(kind))
        }
        Event::Dropped { attempt } => format!("dropped {attempt}"),
        Event::NetworkDown => "network down".into(),
        Event::NetworkUp => "network up".into(),
        Event::NetworkChanged => "network changed".into(),
        Event::Paused => "app paused".into(),
        Event::Resumed => "app resumed".into(),
        Event::Load { load } => format!("load {load} ppm"),
        Event::Restarted => "restarted".into(),
        Event::Tick => "tick".into(),
        Event::ForceOpen { breaker } => format!("force open {breaker}"),
        Event::Disable { breaker } => format!("disable {breaker}"),
        Event::WatchOnly { breaker, on: true } => format!("only watch with {breaker}"),
        Event::WatchOnly { breaker, on: false } => format!("no longer only watch with {breaker}"),
        Event::ResetBreaker { breaker } => format!("reset {breaker}"),
        Event::Revive { peer: Some(peer) } => format!("revive {peer}"),
        Event::Revive { peer: None } => "revive all".into(),
    }
}

fn after(span: Option<Duration>) -> String {
    span.map(|span| format!(", retry after {span:?}")).unwrap_or_default()
}

pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Dial { conn, peer, endpoint, resume } => {
            let resume = if *resume { ", to take up its session" } else { "" };
            format!("dial {peer} at {endpoint} as {conn}{resume}")
        }
        Action::CancelDial { conn } => format!("cancel dial {conn}"),
        Action::Close { conn } => format!("close {conn}"),
        Action::Ping { ping, conn } => format!("ping {conn} as {ping}"),
        Action::Adopt { conn, peer, tag } => format!("adopt {tag} of {peer} as {conn}"),
        Action::Refuse { tag } => format!("refuse {tag}"),
        Action::StartAttempt { attempt, call, conn } => {
            let over = conn.map(|conn| format!(" over {conn}")).unwrap_or_default();
            format!("start {attempt} of {call}{over}")
        }
        Action::CancelAttempt { attempt } => format!("cancel {attempt}"),
        Action::Reject { call, reason, retry_after } => {
            format!("reject {call}: {}{}", word(reason), after(*retry_after))
        }
        Action::GiveUp { call, reason, last } => {
            let reason = match reason {
                GiveUpReason::Refused(reason) => format!("refused, {}", word(reason)),
                other => word(other),
            };
            let last = last.map(|last| format!("; its last attempt: {}", word(last)));
            format!("give up {call}: {reason}{}", last.unwrap_or_default())
        }
        Action::Done { call } => format!("done {call}"),
        Action::Notice(told) => notice(told),
    }
}

fn notice(notice: &Notice) -> String {
    match notice {
        Notice::Peer { peer, from, to, cause } => {
            let cause = match cause {
                PeerCause::DialFailed(cause) => format!("dial failed, {}", word(cause)),
                PeerCause::Lost(cause) => format!("lost, {}", word(cause)),
                other => word(other),
            };
            format!("{peer} {} → {} ({cause})", peer_state(*from), peer_state(*to))
        }
        Notice::RetryAt { peer, at, failures } => {
            let rounds = if *failures == 1 { "round" } else { "rounds" };
            format!("{peer} backs off until {at}, {failures} failed {rounds}")
        }
        Notice::FailedOver { peer, from, to } => format!("{peer} goes over from {from} to {to}"),
        Notice::Draining { conn, leaves_at, .. } => match leaves_at {
            Some(leaves_at) => format!("the server of {conn} leaves at {leaves_at}"),
            None => format!("the server of {conn} leaves"),
        },
        Notice::Moved { peer, from: Some(from), to, cause } => {
            format!("{peer} moved {from}→{to}: {}", word(cause))
        }
        Notice::Moved { peer, from: None, to, cause } => {
            format!("{peer} moved to {to}: {}", word(cause))
        }
        Notice::SessionLost { peer } => format!("{peer} lost its session"),
        Notice::Suspected { peer, conn, silence, phi, .. } => {
            let phi = phi.map(|phi| format!(", phi {}.{:03}", phi / 1_000, phi % 1_000));
            let phi = phi.unwrap_or_default();
            format!("{peer} suspected: {conn} silent for {silence:?}{phi}")
        }
        Notice::Cleared { peer, conn, suspected_for } => {
            format!("{peer} cleared: {conn} spoke after {suspected_for:?}")
        }
        Notice::Doubted { peer, conn, silence } => {
            format!("{peer} doubted: {conn} silent for {silence:?}")
        }
        Notice::Trusted { peer, conn, doubted_for } => {
            format!("{peer} trusted again: {conn} spoke after {doubted_for:?}")
        }
        Notice::MassSuspicion { breaker, silent, connected } => {
            format!("{silent} of {connected} behind {breaker} silent: each gets as long again")
        }
        Notice::SelfHealth { score } => format!("{score} against ourselves"),
        Notice::CommonRefusal { breaker, cause } => {
            format!("{breaker} refuses everybody: {}", word(cause))
        }
        Notice::Degraded { peer, latency, loss } => {
            format!("{peer} degraded: {latency:?}, {loss} ppm lost")
        }
        Notice::Recovered { peer } => format!("{peer} recovered"),
        Notice::Breaker { breaker: id, from, to } => {
            // Until when it was open has been told when it opened.
            let from = match from {
                State::Open { .. } => "open".into(),
                other => breaker(*other),
            };
            format!("{id} {from} → {}", breaker(*to))
        }
        Notice::CallWaits { call, on, until } => {
            let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
            format!("{call} waits for {}{until}", word(on))
        }
        Notice::CallRetries { call, failure, at } => {
            format!("{call} failed, {}; again at {at}", word(failure))
        }
        Notice::WatchOnly { breaker, on: true } => format!("{breaker} only watches"),
        Notice::WatchOnly { breaker, on: false } => format!("{breaker} decides again"),
        Notice::Load { relaxed: true } => "busy: thresholds relaxed".into(),
        Notice::Load { relaxed: false } => "no longer busy: thresholds as configured".into(),
        Notice::Slept { late, hold_until } => {
            format!("slept {late:?}, judges nobody until {hold_until}")
        }
        Notice::Ignored(reason) => format!("ignored: {}", ignored(*reason)),
        other => format!("{other:?}"),
    }
}

fn ignored(reason: Ignored) -> String {
    match reason {
        Ignored::StaleConn(conn) => format!("{conn} is gone"),
        Ignored::StalePing(ping) => format!("{ping} is gone"),
        Ignored::StaleAttempt(attempt) => format!("{attempt} is over"),
        Ignored::UnknownCall(call) => format!("there is no {call}"),
        Ignored::CallExists(call) => format!("{call} is in use"),
        Ignored::AlreadyUp(conn) => format!("{conn} is up already"),
        Ignored::NotUp(conn) => format!("{conn} is still dialed"),
        Ignored::UnknownPeer(peer) => format!("there is no {peer}"),
        Ignored::UnknownBreaker(breaker) => format!("there is no {breaker}"),
        Ignored::UnknownPeerProfile(peer) => format!("{peer} names a profile that is not there"),
        Ignored::UnknownBreakerProfile(breaker) => {
            format!("{breaker} names a profile that is not there")
        }
        Ignored::PeerExists(peer) => format!("{peer} is in use"),
        Ignored::BreakerExists(breaker) => format!("{breaker} is in use"),
        Ignored::BreakerInUse(breaker) => format!("{breaker} is needed"),
        Ignored::TooMany => "as many as there may be".into(),
        Ignored::DuplicateEndpoint(peer) => format!("{peer} names an endpoint twice"),
        Ignored::NoEndpoints(peer) => format!("{peer} has no endpoint"),
        Ignored::AlreadySo => "it is so already".into(),
        Ignored::NotInbound(peer) => format!("{peer} takes no inbound connections"),
        other => format!("{other:?}"),
    }
}

/// A moment, or that there is none.
pub(super) fn moment(at: Option<Time>) -> String {
    at.map_or_else(|| "none".to_owned(), |at| at.to_string())
}
