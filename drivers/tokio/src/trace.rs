//! One event of `tracing` for each notice.
//!
//! - *warn*: a breaker opened; a peer gave up; a session, a heartbeat or the host's own time was
//!   lost; a connection became bad.
//! - *info*: what ends these, what an operator did, and a peer that is connected or no longer is: a
//!   server that dies takes all of its peers with it, and its breaker's warning is enough.
//! - *debug*: what one peer or call does on its way. There may be thousands a second of them just
//!   when something is wrong, so they are not louder.
//!
//! Under the lock only an atomic is read, which says how loud an event must be for anybody to want
//! it: a subscriber is the program's code.

use std::time::Duration;

use ::tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use ::tracing::{Level, event};
use steadfast::breaker::State;
use steadfast::{Notice, PeerState};

use crate::core::Noticed;

/// Whether anybody listens to such notices.
pub(crate) fn is_wanted(notice: &Notice) -> bool {
    let level = level(notice);
    level <= STATIC_MAX_LEVEL && level <= LevelFilter::current()
}

const fn level(notice: &Notice) -> Level {
    match notice {
        Notice::Peer { to: PeerState::Failed, .. }
        | Notice::Breaker { to: State::Open { .. } | State::ForcedOpen, .. }
        | Notice::SessionLost { .. }
        | Notice::Suspected { .. }
        | Notice::Degraded { .. }
        | Notice::Slept { .. } => Level::WARN,
        Notice::Peer {
            to: PeerState::Connected | PeerState::Reconnecting | PeerState::Disconnected,
            ..
        }
        | Notice::Breaker { .. }
        | Notice::FailedOver { .. }
        | Notice::Draining { .. }
        | Notice::Moved { .. }
        | Notice::Cleared { .. }
        | Notice::Recovered { .. }
        | Notice::WatchOnly { .. }
        | Notice::Load { .. } => Level::INFO,
        _ => Level::DEBUG,
    }
}

/// An event whose level is known at run time only, under the name of the crate.
macro_rules! tell {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::WARN => event!(target: "steadfast_tokio", Level::WARN, $($fields)*),
            Level::INFO => event!(target: "steadfast_tokio", Level::INFO, $($fields)*),
            _ => event!(target: "steadfast_tokio", Level::DEBUG, $($fields)*),
        }
    };
}

/// Tells whoever listens. Not under the lock.
pub(crate) fn tell((now, notice): Noticed) {
    let level = level(&notice);
    match notice {
        Notice::Peer { peer, from, to, cause } => {
            tell!(level, peer = peer.0, ?from, ?to, ?cause, "peer changed its state");
        }
        Notice::RetryAt { peer, at, failures } => {
            let wait_ms = millis(at.since(now));
            tell!(level, peer = peer.0, wait_ms, failures, "peer will be dialed again");
        }
        Notice::FailedOver { peer, from, to } => {
            tell!(level, peer = peer.0, from = from.0, to = to.0, "peer changed its endpoint");
        }
        Notice::Draining { peer, conn: _, leaves_at, replace_at } => {
            let leaves_ms = leaves_at.map(|at| millis(at.since(now)));
            let replace_ms = replace_at.map(|at| millis(at.since(now)));
            tell!(level, peer = peer.0, leaves_ms, replace_ms, "peer's server will leave");
        }
        Notice::Moved { peer, from, to, cause } => {
            let from = from.map(|from| from.0);
            tell!(
                level,
                peer = peer.0,
                from,
                to = to.0,
                ?cause,
                "peer moved to another connection"
            );
        }
        Notice::SessionLost { peer } => tell!(level, peer = peer.0, "session is lost"),
        Notice::Suspected { peer, conn, silence, phi, mean, std } => {
            let silence_ms = millis(silence);
            let (mean_ms, std_ms) = (mean.map(millis), std.map(millis));
            tell!(
                level,
                peer = peer.0,
                %conn,
                silence_ms,
                phi_thousandths = phi,
                mean_ms,
                std_ms,
                "connection is silent"
            );
        }
        Notice::Cleared { peer, conn, suspected_for } => {
            let suspected_for_ms = millis(suspected_for);
            tell!(level, peer = peer.0, %conn, suspected_for_ms, "connection spoke again");
        }
        Notice::Degraded { peer, latency, loss } => {
            let latency_ms = millis(latency);
            tell!(level, peer = peer.0, latency_ms, loss_ppm = loss, "connection is bad");
        }
        Notice::Recovered { peer } => tell!(level, peer = peer.0, "connection is good again"),
        Notice::Breaker { breaker, from, to } => {
            let open_for_ms = match to {
                State::Open { until } => Some(millis(until.since(now))),
                _ => None,
            };
            let (from, to) = (name(from), name(to));
            tell!(level, breaker = breaker.0, from, to, open_for_ms, "breaker changed its state");
        }
        Notice::CallWaits { call, on, until } => {
            let at_most_ms = until.map(|until| millis(until.since(now)));
            tell!(level, call = call.0, ?on, at_most_ms, "call waits");
        }
        Notice::CallRetries { call, failure, at } => {
            let wait_ms = millis(at.since(now));
            tell!(level, call = call.0, ?failure, wait_ms, "call will be tried again");
        }
        Notice::WatchOnly { breaker, on } => {
            tell!(level, breaker = breaker.0, on, "breaker only watches, or no longer");
        }
        Notice::Load { relaxed } => tell!(level, relaxed, "load changed thresholds"),
        Notice::Slept { late, hold_until } => {
            let (late_ms, hold_ms) = (millis(late), millis(hold_until.since(now)));
            tell!(level, late_ms, hold_ms, "driver came back late");
        }
        Notice::Ignored(reason) => tell!(level, ?reason, "event was ignored"),
        other => tell!(level, notice = ?other, "notice"),
    }
}

/// As in metrics and statistics.
const fn name(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open { .. } => "open",
        State::HalfOpen => "half_open",
        State::ForcedOpen => "forced_open",
        State::Disabled => "disabled",
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
