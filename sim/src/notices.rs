//! Kinds of notices, as a person asks for them: `breaker`, or finer `breaker.open`.

use serde::Serialize;
use steadfast::breaker::State;
use steadfast::{Action, Notice};

use crate::scenario::ScenarioError;

/// Kinds, each with what it may be followed by: where to, why, for what.
const KINDS: [(&str, &[&str]); 23] = [
    ("peer", &["disconnected", "connecting", "connected", "reconnecting", "failed"]),
    ("retry_at", &[]),
    ("failed_over", &[]),
    ("draining", &[]),
    ("moved", &["failed_back", "drained", "raced"]),
    ("session_lost", &[]),
    ("suspected", &["silence", "pings"]),
    ("doubted", &[]),
    ("trusted", &[]),
    ("mass_suspicion", &[]),
    ("self_health", &[]),
    ("cleared", &[]),
    ("degraded", &[]),
    ("recovered", &[]),
    ("breaker", &["closed", "open", "half_open", "forced_open", "disabled"]),
    ("common_refusal", &[]),
    ("call_waits", &["connection", "turn", "backoff", "breaker"]),
    ("call_retries", &["error", "timeout", "throttled", "unavailable", "disconnected", "local"]),
    ("watch_only", &["on", "off"]),
    ("load", &["relaxed", "normal"]),
    ("slept", &[]),
    (
        "ignored",
        &[
            "stale_conn",
            "stale_ping",
            "stale_attempt",
            "unknown_call",
            "call_exists",
            "already_up",
            "not_up",
            "unknown_peer",
            "unknown_breaker",
            "unknown_peer_profile",
            "unknown_breaker_profile",
            "peer_exists",
            "breaker_exists",
            "breaker_in_use",
            "too_many",
            "duplicate_endpoint",
            "no_endpoints",
            "already_so",
            "not_inbound",
        ],
    ),
    ("any", &[]),
];

/// A kind of notice to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeKind {
    kind: &'static str,
    finer: Option<&'static str>,
}

impl NoticeKind {
    /// The kind of that name: as a notice is called in recordings (`breaker`, `retry_at`), `any`, or
    /// finer: `breaker.open`, `peer.failed`, `ignored.stale_conn`.
    ///
    /// # Errors
    ///
    /// No kind has that name; tells the nearest one, and all.
    pub fn parse(name: &str) -> Result<Self, ScenarioError> {
        let (kind, finer) = name.split_once('.').map_or((name, None), |(a, b)| (a, Some(b)));
        let known = KINDS.iter().find(|(known, _)| *known == kind);
        match (known, finer) {
            (Some((kind, _)), None) => return Ok(Self { kind, finer: None }),
            (Some((kind, finer_ones)), Some(finer)) => {
                if let Some(finer) = finer_ones.iter().find(|known| **known == finer) {
                    return Ok(Self { kind, finer: Some(finer) });
                }
            }
            (None, _) => {}
        }
        let all = all();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let error = ScenarioError::unknown("kind of notice", name, &names);
        Err(error.with_help(&listed()))
    }

    /// Whether the answer holds such a notice.
    #[must_use]
    pub fn is_in(&self, actions: &[Action]) -> bool {
        actions.iter().any(|action| match action {
            Action::Notice(notice) => self.is(notice),
            _ => false,
        })
    }

    fn is(&self, notice: &Notice) -> bool {
        if self.kind == "any" {
            return true;
        }
        let (kind, finer) = told(notice);
        kind == self.kind && self.finer.is_none_or(|wanted| finer.as_deref() == Some(wanted))
    }
}

/// All names.
fn all() -> Vec<String> {
    let names = KINDS.iter().flat_map(|(kind, finer)| {
        let finer = finer.iter().map(move |finer| format!("{kind}.{finer}"));
        [(*kind).to_owned()].into_iter().chain(finer)
    });
    names.collect()
}

/// All names, a line for each kind that has finer ones.
fn listed() -> String {
    let plain = KINDS.iter().filter(|(_, finer)| finer.is_empty()).map(|(kind, _)| *kind);
    let mut lines = vec![format!("kinds: {}", plain.collect::<Vec<_>>().join(", "))];
    for (kind, finer) in KINDS.iter().filter(|(_, finer)| !finer.is_empty()) {
        lines.push(format!("{kind}, or finer {kind}.{}", finer.join(", .")));
    }
    lines.join("\n")
}

/// What a notice is called.
fn told(notice: &Notice) -> (&'static str, Option<String>) {
    match notice {
        Notice::Peer { to, .. } => ("peer", variant(to)),
        Notice::RetryAt { .. } => ("retry_at", None),
        Notice::FailedOver { .. } => ("failed_over", None),
        Notice::Draining { .. } => ("draining", None),
        Notice::Moved { cause, .. } => ("moved", variant(cause)),
        Notice::SessionLost { .. } => ("session_lost", None),
        Notice::Suspected { by, .. } => ("suspected", variant(by)),
        Notice::Doubted { .. } => ("doubted", None),
        Notice::Trusted { .. } => ("trusted", None),
        Notice::MassSuspicion { .. } => ("mass_suspicion", None),
        Notice::SelfHealth { .. } => ("self_health", None),
        Notice::Cleared { .. } => ("cleared", None),
        Notice::Degraded { .. } => ("degraded", None),
        Notice::Recovered { .. } => ("recovered", None),
        Notice::Breaker { to, .. } => ("breaker", Some(state(*to).to_owned())),
        Notice::CommonRefusal { .. } => ("common_refusal", None),
        Notice::CallWaits { on, .. } => ("call_waits", variant(on)),
        Notice::CallRetries { failure, .. } => ("call_retries", variant(failure)),
        Notice::WatchOnly { on, .. } => {
            ("watch_only", Some(if *on { "on" } else { "off" }.to_owned()))
        }
        Notice::Load { relaxed } => {
            ("load", Some(if *relaxed { "relaxed" } else { "normal" }.to_owned()))
        }
        Notice::Slept { .. } => ("slept", None),
        Notice::Ignored(reason) => ("ignored", variant(reason)),
        _ => ("any", None),
    }
}

const fn state(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open { .. } => "open",
        State::HalfOpen => "half_open",
        State::ForcedOpen => "forced_open",
        State::Disabled => "disabled",
    }
}

/// The name of a variant, with or without fields, as recordings have it.
fn variant(value: &impl Serialize) -> Option<String> {
    match serde_json::to_value(value).ok()? {
        serde_json::Value::String(name) => Some(name),
        serde_json::Value::Object(fields) => fields.keys().next().cloned(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast::{BreakerId, ConnId, Ignored, PeerCause, PeerId, PeerState, Time};

    #[test]
    fn a_notice_has_a_coarse_name_and_a_finer_one() {
        let opened = Notice::Breaker {
            breaker: BreakerId(1),
            from: State::Closed,
            to: State::Open { until: Time::ZERO },
        };
        let (peer, cause) = (PeerId(1), PeerCause::Asked);
        let (from, to) = (PeerState::Connecting, PeerState::Failed);
        let failed = Notice::Peer { peer, from, to, cause };
        let stale = Notice::Ignored(Ignored::StaleConn(ConnId::from_raw(7)));
        let cases = [
            (&opened, "breaker", "breaker.open", "breaker.closed"),
            (&failed, "peer", "peer.failed", "peer.connected"),
            (&stale, "ignored", "ignored.stale_conn", "ignored.too_many"),
        ];
        for (notice, coarse, finer, other) in cases {
            for (name, is) in [(coarse, true), (finer, true), ("any", true), (other, false)] {
                let kind = NoticeKind::parse(name).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(kind.is_in(&[Action::Notice(notice.clone())]), is, "{name}");
            }
        }
    }

    #[test]
    fn every_name_is_one() {
        for name in all() {
            assert!(NoticeKind::parse(&name).is_ok(), "{name}");
        }
    }
}
