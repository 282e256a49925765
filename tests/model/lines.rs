//! A script of acts as the lines of a golden script, so that what a property test has found can be read
//! and be kept as a story.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use steadfast::strategy::{Act, Op, World, Wrong};
use steadfast::{Config, Endpoint, Event, Manager, RetryAfter, Target, Time};

/// One line for each act that has anything to happen to.
pub(crate) fn lines(script: &[Op], config: &Config) -> String {
    let mut world = World::new(Manager::new(config.clone(), 7).unwrap());
    let mut text = String::new();
    for op in script {
        let (before, mut told) = (world.now(), None);
        // The act itself is the last step; the ticks before it come by themselves.
        world.play_watched(op, |_, step| told = Some(step));
        let told = told.filter(|step| step.event != Event::Tick);
        let slept = world.now().since(before);
        let line = match (&op.act, told) {
            (Act::Oversleep { .. }, _) => format!("sleep {}", span(slept)),
            (Act::Wrong(Wrong::Backwards { by }), _) => {
                format!("+{} back {}", span(op.after), span(*by))
            }
            (_, Some(step)) => {
                format!("+{} {}", span(op.after), event(&step.event, step.at, config))
            }
            // A tick, or nothing to happen to: time passes.
            (Act::Tick, None) => format!("+{} wait", span(op.after)),
            (_, None) => format!("+{} pass", span(op.after)),
        };
        writeln!(text, "{line}").unwrap();
    }
    text.replace("+0s ", "")
}

fn event(event: &Event, at: Time, config: &Config) -> String {
    match event {
        Event::AddBreaker { breaker, profile } => {
            let found = config.breaker_profiles.get(usize::from(profile.0));
            format!("breaker {breaker} as {}", name(found.map(|found| &found.name), profile.0))
        }
        Event::RemoveBreaker { breaker } => format!("remove-breaker {breaker}"),
        Event::AddPeer { peer, profile, endpoints } => {
            let found = config.peer_profiles.get(usize::from(profile.0));
            let name = name(found.map(|found| &found.name), profile.0);
            format!("peer {peer}{} as {name}", addresses(endpoints))
        }
        Event::SetEndpoints { peer, endpoints } => {
            format!("endpoints {peer}{}", addresses(endpoints))
        }
        Event::RemovePeer { peer } => format!("remove {peer}"),
        Event::Connect { peer } => format!("connect {peer}"),
        Event::Disconnect { peer } => format!("disconnect {peer}"),
        Event::Call { call, target, profile, deadline } => {
            let target = match target {
                Target::Peer { peer, breaker } => format!("{peer}@{breaker}"),
                Target::Breaker(breaker) => breaker.to_string(),
            };
            let found = config.call_profiles.get(usize::from(profile.0));
            let name = name(found.map(|found| &found.name), profile.0);
            let by = deadline.map(|deadline| format!(" by {}", span(deadline.since(at))));
            format!("call {call} {target} as {name}{}", by.unwrap_or_default())
        }
        Event::CancelCall { call } => format!("cancel {call}"),
        Event::Connected { conn, resumed } => {
            format!("connected {conn}{}", if *resumed { " resumed" } else { "" })
        }
        Event::DialFailed { conn, cause, retry_after } => {
            let hint = retry_after.map(|after| format!(" {}", span(after)));
            format!("dial-failed {conn} {}{}", word(cause), hint.unwrap_or_default())
        }
        Event::Lost { conn, cause } => format!("lost {conn} {}", word(cause)),
        Event::Heard { conn } => format!("heard {conn}"),
        Event::Heartbeat { conn } => format!("heartbeat {conn}"),
        Event::GoAway { conn, leaves_in, reconnect_in } => {
            let leaves = leaves_in.map(|leaves| format!(" in {}", span(leaves)));
            let leaves = leaves.unwrap_or_default();
            format!("go-away {conn}{leaves} not-before {}", span(*reconnect_in))
        }
        Event::Pong { ping } => format!("pong {ping}"),
        Event::Metrics { conn, latency, loss } => {
            format!("metrics {conn} {} {loss}ppm", span(*latency))
        }
        Event::Accepted { peer, tag } => format!("accepted {peer} {tag}"),
        Event::Succeeded { attempt } => format!("succeeded {attempt}"),
        Event::Failed { attempt, kind, retry_after } => {
            let hint = retry_after.map(|hint| match hint {
                RetryAfter::After(after) => format!(" {}", span(after)),
                RetryAfter::Never => " never".into(),
            });
            format!("failed {attempt} {}{}", word(kind), hint.unwrap_or_default())
        }
        Event::Dropped { attempt } => format!("dropped {attempt}"),
        Event::NetworkDown => "network down".into(),
        Event::NetworkUp => "network up".into(),
        Event::NetworkChanged => "network changed".into(),
        Event::Paused => "paused".into(),
        Event::Resumed => "resumed".into(),
        Event::Load { load } => format!("load {load}ppm"),
        Event::Restarted => "restarted".into(),
        Event::Tick => "wait".into(),
        Event::ForceOpen { breaker } => format!("force-open {breaker}"),
        Event::Disable { breaker } => format!("disable {breaker}"),
        Event::WatchOnly { breaker, on } => {
            format!("watch-only {breaker} {}", if *on { "on" } else { "off" })
        }
        Event::ResetBreaker { breaker } => format!("reset {breaker}"),
        Event::Revive { peer: Some(peer) } => format!("revive {peer}"),
        Event::Revive { peer: None } => "revive all".into(),
    }
}

/// A profile's name, or its place if it has none.
fn name(found: Option<&String>, place: u16) -> String {
    found.map_or_else(|| place.to_string(), String::clone)
}

fn addresses(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(|endpoint| format!(" {}@{}", endpoint.id, endpoint.breaker)).collect()
}

fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value).unwrap() {
        Value::String(word) => word.replace('_', "-"),
        other => panic!("no word: {other}"),
    }
}

fn span(span: Duration) -> String {
    match span.as_nanos() {
        nanos if nanos % 1_000_000_000 == 0 => format!("{}s", nanos / 1_000_000_000),
        nanos if nanos % 1_000_000 == 0 => format!("{}ms", nanos / 1_000_000),
        nanos => format!("{nanos}ns"),
    }
}
