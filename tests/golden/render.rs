//! Actions and notices as a person would say them.

use std::fmt::Write as _;
use std::time::Duration;

use steadfast::breaker::State;
use steadfast::{Action, Conviction, GiveUpReason, Ignored, Notice, PeerCause, PeerState, Time};

pub(crate) fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().replace('_', " ")
}

pub(crate) fn state(state: PeerState) -> String {
    word(state)
}

pub(crate) fn breaker_state(state: State) -> String {
    match state {
        State::Closed => "closed".into(),
        State::Open { until } => format!("open until {}", at(until)),
        State::HalfOpen => "half-open".into(),
        State::ForcedOpen => "forced open".into(),
        State::Disabled => "disabled".into(),
    }
}

pub(crate) fn render(action: &Action) -> String {
    match action {
        Action::Dial { conn, peer, endpoint, resume } => {
            format!("dial {peer}/{endpoint} {conn}{}", if *resume { " resume" } else { "" })
        }
        Action::CancelDial { conn } => format!("cancel {conn}"),
        Action::Close { conn } => format!("close {conn}"),
        Action::Ping { ping, conn } => format!("ping {conn} {ping}"),
        Action::Adopt { conn, tag, .. } => format!("adopt {tag} as {conn}"),
        Action::Refuse { tag } => format!("refuse {tag}"),
        Action::StartAttempt { attempt, call, conn } => match conn {
            Some(conn) => format!("start {attempt} of {call} over {conn}"),
            None => format!("start {attempt} of {call}"),
        },
        Action::CancelAttempt { attempt } => format!("cancel {attempt}"),
        Action::Reject { call, reason, retry_after } => {
            let after = retry_after.map(|after| format!(", retry after {}", long(&after)));
            format!("reject {call}: {}{}", word(reason), after.unwrap_or_default())
        }
        Action::GiveUp { call, reason, last } => {
            let reason = match reason {
                GiveUpReason::Refused(reason) => format!("refused: {}", word(reason)),
                other => word(other),
            };
            let last = last.map(|last| format!(", last {}", word(last)));
            format!("give up {call}: {reason}{}", last.unwrap_or_default())
        }
        Action::Done { call } => format!("done {call}"),
        Action::Notice(notice) => render_notice(notice),
    }
}

fn render_notice(notice: &Notice) -> String {
    match notice {
        Notice::Peer { peer, from, to, cause } => {
            let cause = match cause {
                PeerCause::DialFailed(cause) => format!("dial failed: {}", word(cause)),
                PeerCause::Lost(cause) => format!("lost: {}", word(cause)),
                other => word(other),
            };
            format!("{peer} {}→{} ({cause})", state(*from), state(*to))
        }
        Notice::RetryAt { peer, at: until, failures } => {
            format!("{peer} waits until {}, failures {failures}", at(*until))
        }
        Notice::FailedOver { peer, from, to } => format!("{peer} goes over {from}→{to}"),
        Notice::Draining { conn, leaves_at, replace_at, .. } => {
            let leaves = leaves_at.map(|leaves| format!(" {}", at(leaves))).unwrap_or_default();
            let then = replace_at.map(|then| format!(", replaced from {}", at(then)));
            format!("server of {conn} leaves{leaves}{}", then.unwrap_or_default())
        }
        Notice::Moved { peer, from, to, cause } => {
            let from = from.map(|from| from.to_string()).unwrap_or_default();
            format!("{peer} moved {from}→{to} ({})", word(cause))
        }
        Notice::SessionLost { peer } => format!("session of {peer} lost"),
        Notice::Suspected { conn, silence, phi, mean, std, self_health, by, .. } => {
            let mut text = format!("suspect {conn}, silent for {}", long(silence));
            if let (Some(phi), Some(mean), Some(std)) = (phi, mean, std) {
                let phi = format!("{}.{:03}", phi / 1_000, phi % 1_000);
                write!(text, ", phi {phi}, mean {} ± {}", long(mean), long(std)).unwrap();
            }
            if *by == Conviction::Pings {
                text.push_str(", by its pings");
            }
            if *self_health > 0 {
                write!(text, ", {self_health} against us").unwrap();
            }
            text
        }
        Notice::Doubted { conn, silence, .. } => {
            format!("doubt {conn}, silent for {}", long(silence))
        }
        Notice::Trusted { conn, doubted_for, .. } => {
            format!("trust {conn} after {}", long(doubted_for))
        }
        Notice::MassSuspicion { breaker, silent, connected } => {
            format!("{breaker}: {silent} of {connected} silent, each gets as long again")
        }
        Notice::SelfHealth { score } => format!("{score} against us"),
        Notice::Cleared { conn, suspected_for, .. } => {
            format!("clear {conn} after {}", long(suspected_for))
        }
        Notice::Degraded { peer, latency, loss } => {
            format!("{peer} degraded: {latency:?}, {loss} ppm lost")
        }
        Notice::Recovered { peer } => format!("{peer} recovered"),
        Notice::Breaker { breaker, from, to } => {
            // Where it came from has had its `until` told when it went there.
            let from = match from {
                State::Open { .. } => "open".into(),
                from => breaker_state(*from),
            };
            format!("{breaker} {from}→{}", breaker_state(*to))
        }
        Notice::CommonRefusal { breaker, cause } => {
            format!("{breaker}: everybody is refused ({})", word(cause))
        }
        Notice::CallWaits { call, on, until } => {
            let until = until.map(|until| format!(" until {}", at(until))).unwrap_or_default();
            format!("{call} waits for {}{until}", word(on))
        }
        Notice::CallRetries { call, failure, at: moment } => {
            format!("{call} failed: {}, again {}", word(failure), at(*moment))
        }
        Notice::WatchOnly { breaker, on } => {
            format!("{breaker} {}", if *on { "only watches" } else { "decides again" })
        }
        Notice::Load { relaxed: true } => "thresholds relaxed".into(),
        Notice::Load { relaxed: false } => "thresholds as configured".into(),
        Notice::Slept { late, hold_until } => {
            format!("slept {}, judgement holds until {}", long(late), at(*hold_until))
        }
        Notice::Ignored(reason) => format!("ignored: {}", ignored(reason)),
        other => format!("{other:?}"),
    }
}

fn ignored(reason: &Ignored) -> String {
    match reason {
        Ignored::StaleConn(conn) => format!("{conn} is gone"),
        Ignored::StalePing(ping) => format!("{ping} is gone"),
        Ignored::StaleAttempt(attempt) => format!("{attempt} is gone"),
        Ignored::AlreadyUp(conn) => format!("{conn} is up already"),
        Ignored::NotUp(conn) => format!("{conn} is not up"),
        other => format!("{other:?}"),
    }
}

/// A moment, to the millisecond.
pub(crate) fn at(time: Time) -> String {
    let millis = Time::from_millis(time.as_nanos() / 1_000_000);
    if time == Time::MAX { "never".into() } else { format!("+{millis}") }
}

/// A span, to the millisecond.
fn long(span: &Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap();
    format!("{:?}", Duration::from_millis(millis))
}
