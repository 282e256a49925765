//! Active checks: when a peer has been silent for a while, ask whether it is there.
//!
//! ```text
//! silent for `interval` ──▶ ping ──▶ heard anything within `timeout`: fine, the silence begins anew
//!                             ▲            │
//!                             └── missed ◀─┘   `unhealthy_threshold` in a row: unhealthy
//! ```
//!
//! The silence is measured from what was last *heard*, so a peer that talks is never pinged; and
//! anything heard settles a ping, since it proves the same. Only a pong is a round-trip time. After
//! a missed ping the next one is due at once: what is doubted is asked again, not waited for.
//!
//! Rejected: pinging by the clock (a million peers with traffic need no pings), counting from the
//! last ping sent (a talking peer is pinged all the same), one missed ping as proof (loss of 1 %
//! would drop each connection every hundred pings).
//!
//! Source: gRPC A8 (keepalive from the last byte read) and Envoy's active health checks
//! (`unhealthy_threshold`, `healthy_threshold`).

use crate::draw::uniform;
use crate::error::ConfigError;
use crate::time::{Time, nanos};
use core::time::Duration;

/// What active checks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ProbeConfig {
    /// After how much silence a ping is due; default 10 s.
    pub interval: Duration,
    /// How long an answer may take; default 10 s.
    pub timeout: Duration,
    /// How many pings in a row must be missed for the peer to be unhealthy; default 2.
    pub unhealthy_threshold: u32,
    /// How many pings must then be answered for it to be healthy again; default 1.
    pub healthy_threshold: u32,
    /// Whether the first ping to one that has not spoken yet comes at a moment of the interval that is
    /// its own, so that a million who came up together are not pinged together; default yes.
    pub spread: bool,
}

/// Source: gRPC A8 for the 10 s floor of the interval; twice 10 s of timeout after 10 s of silence
/// makes the 30 s of the deadline detector; tower-resilience for two bad and one good.
impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            unhealthy_threshold: 2,
            healthy_threshold: 1,
            spread: true,
        }
    }
}

impl ProbeConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// Any of the four is zero.
    pub fn validate(self) -> Result<ProbePolicy, ConfigError> {
        for (field, span) in [("interval", self.interval), ("timeout", self.timeout)] {
            if span == Duration::ZERO {
                return Err(ConfigError::new(field, "is 0ns, must be at least 1ns"));
            }
        }
        for (field, count) in [
            ("unhealthy_threshold", self.unhealthy_threshold),
            ("healthy_threshold", self.healthy_threshold),
        ] {
            if count == 0 {
                return Err(ConfigError::new(field, "is 0, must be at least 1"));
            }
        }
        Ok(ProbePolicy(self))
    }
}

/// The checked settings of active checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbePolicy(ProbeConfig);

impl ProbePolicy {
    /// After how much silence a ping is due.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.0.interval
    }

    /// How long an answer may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// How long it takes until one who falls silent is unhealthy: the interval, and each ping's timeout.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.0.interval.saturating_add(self.0.timeout.saturating_mul(self.0.unhealthy_threshold))
    }

    /// The same checks with another timeout, for an observer who has reason to be patient.
    #[must_use]
    pub const fn with_timeout(&self, timeout: Duration) -> Self {
        Self(ProbeConfig { timeout, ..self.0 })
    }

    /// After how much silence the first ping is due to one who has not spoken at all: uniform over
    /// the interval, if it is spread.
    #[must_use]
    pub fn first_after(&self, random: u64) -> Duration {
        let interval = nanos(self.0.interval);
        let after = if self.0.spread { uniform(random, 1, interval) } else { interval };
        Duration::from_nanos(after)
    }
}

/// What is to be done about a silence.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeVerdict {
    /// Nothing yet.
    Wait,
    /// Send a ping, and say so by [`Probe::pinged`] when it is sent.
    Ping,
    /// A ping was missed, and that changes nothing so far; the next one is due.
    Missed,
    /// A ping was missed, and with it the peer has become unhealthy.
    Unhealthy,
}

/// What hearing from the peer meant.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heard {
    /// No change: it was healthy, or still is unhealthy.
    Unchanged,
    /// It answered often enough to be healthy again.
    Recovered,
}

/// The checks of one connection: 16 bytes.
///
/// When it was last heard from is the caller's to know, so that hearing costs one write there.
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::probe::{Probe, ProbeConfig, ProbeVerdict};
///
/// let policy = ProbeConfig::default().validate().unwrap();
/// let (mut probe, last_heard) = (Probe::default(), Time::ZERO);
/// let now = probe.deadline(&policy, last_heard);
/// assert_eq!(now, Time::from_secs(10));
/// assert_eq!(probe.expire(&policy, last_heard, now), ProbeVerdict::Ping);
/// probe.pinged(now);
/// assert_eq!(probe.deadline(&policy, last_heard), Time::from_secs(20));
/// assert_eq!(probe.pong(Time::from_millis(10_080)).unwrap().as_millis(), 80);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Probe {
    /// When the ping that is out was sent; [`Time::MAX`] if none is.
    sent_at: Time,
    /// Pings missed in a row while healthy; answers still needed while unhealthy.
    count: u32,
    unhealthy: bool,
    /// Whether no pong has come yet.
    timed: bool,
}

/// Healthy, with no ping out.
impl Default for Probe {
    fn default() -> Self {
        Self::NEW
    }
}

impl Probe {
    /// Healthy, with no ping out.
    pub(crate) const NEW: Self =
        Self { sent_at: Time::MAX, count: 0, unhealthy: false, timed: false };

    /// When [`expire`](Self::expire) has something to do: when the answer to the ping that is out
    /// is late, or else when the next ping is due. An unhealthy peer is asked again at once, since
    /// its traffic alone would put off for ever the pings that it must answer.
    #[must_use]
    pub fn deadline(&self, policy: &ProbePolicy, last_heard: Time) -> Time {
        match self.sent_at() {
            Some(sent_at) => sent_at + policy.timeout(),
            None if self.unhealthy => last_heard,
            None => last_heard + policy.interval(),
        }
    }

    /// Judges the silence since `last_heard`.
    ///
    /// [`ProbeVerdict::Ping`] is said again until [`pinged`](Self::pinged): a caller with a budget
    /// for pings may send it later, and its timeout begins when it is sent. After a missed ping
    /// the next one is due unless something was heard meanwhile.
    pub fn expire(&mut self, policy: &ProbePolicy, last_heard: Time, now: Time) -> ProbeVerdict {
        if now < self.deadline(policy, last_heard) {
            return ProbeVerdict::Wait;
        }
        if self.sent_at().is_none() {
            return ProbeVerdict::Ping;
        }
        self.sent_at = Time::MAX;
        self.timed = false;
        if self.unhealthy {
            self.count = policy.0.healthy_threshold;
            return ProbeVerdict::Missed;
        }
        self.count = self.count.saturating_add(1);
        if self.count < policy.0.unhealthy_threshold {
            return ProbeVerdict::Missed;
        }
        self.unhealthy = true;
        self.count = policy.0.healthy_threshold;
        ProbeVerdict::Unhealthy
    }

    /// Notes that a ping was sent; while one is out, nothing.
    pub fn pinged(&mut self, now: Time) {
        if self.sent_at().is_none() {
            self.sent_at = now;
            // One that is sent at the end of time counts as none.
            self.timed = now != Time::MAX;
        }
    }

    /// Notes that something was heard: it settles the ping that is out and ends a run of missed
    /// ones. An unhealthy peer needs `healthy_threshold` pings settled in a row.
    pub fn heard(&mut self) -> Heard {
        let answered = self.sent_at().is_some();
        self.sent_at = Time::MAX;
        self.timed = false;
        if !self.unhealthy {
            self.count = 0;
        } else if answered {
            self.count = self.count.saturating_sub(1);
            if self.count == 0 {
                self.unhealthy = false;
                return Heard::Recovered;
            }
        }
        Heard::Unchanged
    }

    /// The round-trip time of the ping that is out, which its pong has just ended.
    ///
    /// To be asked before [`heard`](Self::heard), which the pong is as well. `None` if no ping is
    /// out any more or its pong has come already.
    pub fn pong(&mut self, now: Time) -> Option<Duration> {
        let sent_at = self.sent_at().filter(|_| self.timed)?;
        self.timed = false;
        Some(now.since(sent_at))
    }

    /// When the ping that is out was sent.
    #[must_use]
    pub fn sent_at(&self) -> Option<Time> {
        (self.sent_at != Time::MAX).then_some(self.sent_at)
    }

    /// The same with its times relative.
    pub(crate) fn shape(&mut self, relative: impl Fn(&mut Time)) {
        if self.sent_at != Time::MAX {
            relative(&mut self.sent_at);
        }
    }

    /// Whether it has missed too many pings and not yet answered enough.
    #[must_use]
    pub const fn is_unhealthy(&self) -> bool {
        self.unhealthy
    }

    /// How many pings were missed in a row, while it is healthy.
    #[must_use]
    pub const fn missed(&self) -> u32 {
        if self.unhealthy { 0 } else { self.count }
    }

    /// Whether these checks could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, policy: &ProbePolicy) -> bool {
        let count = if self.unhealthy {
            (1..=policy.0.healthy_threshold).contains(&self.count)
        } else {
            self.count < policy.0.unhealthy_threshold
        };
        count && (!self.timed || self.sent_at != Time::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Time {
        Time::from_secs(secs)
    }

    fn policy() -> ProbePolicy {
        ProbeConfig { healthy_threshold: 2, ..Default::default() }.validate().unwrap()
    }

    /// Misses pings until unhealthy: silent since 0, pinged at 10 and 20.
    fn unhealthy() -> Probe {
        let (mut probe, policy) = (Probe::default(), policy());
        probe.pinged(secs(10));
        assert_eq!(probe.expire(&policy, Time::ZERO, secs(20)), ProbeVerdict::Missed);
        assert_eq!(probe.expire(&policy, Time::ZERO, secs(20)), ProbeVerdict::Ping);
        probe.pinged(secs(20));
        assert_eq!(probe.expire(&policy, Time::ZERO, secs(30)), ProbeVerdict::Unhealthy);
        assert!(probe.is_unhealthy() && probe.is_valid(&policy));
        probe
    }

    #[test]
    fn a_peer_that_talks_is_never_pinged() {
        let (mut probe, policy) = (Probe::default(), policy());
        for second in 1..100 {
            let heard = Time::from_millis(second * 1_000 - 500);
            assert_eq!(probe.expire(&policy, heard, secs(second)), ProbeVerdict::Wait);
        }
        assert_eq!(probe.expire(&policy, secs(90), secs(100)), ProbeVerdict::Ping);
    }

    #[test]
    fn a_ping_at_the_end_of_time_is_none() {
        let mut probe = Probe::default();
        probe.pinged(Time::MAX);
        assert_eq!((probe.sent_at(), probe.pong(Time::MAX)), (None, None));
        assert!(probe.is_valid(&policy()));
    }

    #[test]
    fn thirty_seconds_of_silence_and_two_missed_pings_make_it_unhealthy() {
        let _ = unhealthy();
    }

    #[test]
    fn an_answer_at_the_last_moment_is_in_time_and_ends_the_run() {
        let (mut probe, policy) = (Probe::default(), policy());
        probe.pinged(secs(10));
        assert_eq!(probe.expire(&policy, Time::ZERO, secs(20)), ProbeVerdict::Missed);
        assert_eq!(probe.missed(), 1);
        probe.pinged(secs(20));
        assert_eq!(probe.heard(), Heard::Unchanged);
        assert_eq!(probe.missed(), 0);
        assert_eq!(probe.expire(&policy, secs(30), secs(30)), ProbeVerdict::Wait);
    }

    #[test]
    fn an_unhealthy_peer_recovers_by_answering_in_a_row_and_not_by_talking() {
        let (mut probe, policy) = (unhealthy(), policy());
        for _ in 0..10 {
            assert_eq!(probe.heard(), Heard::Unchanged);
        }
        probe.pinged(secs(40));
        assert_eq!(probe.heard(), Heard::Unchanged);
        probe.pinged(secs(50));
        assert_eq!(probe.expire(&policy, secs(40), secs(60)), ProbeVerdict::Missed);
        assert!(probe.is_valid(&policy));
        for second in [60, 70] {
            assert!(probe.is_unhealthy());
            probe.pinged(secs(second));
            let expected = if second == 70 { Heard::Recovered } else { Heard::Unchanged };
            assert_eq!(probe.heard(), expected);
        }
        assert!(!probe.is_unhealthy() && probe.is_valid(&policy));
    }

    #[test]
    fn only_the_first_pong_of_the_ping_that_is_out_is_a_round_trip() {
        let mut probe = Probe::default();
        assert_eq!(probe.pong(secs(5)), None);
        probe.pinged(secs(10));
        probe.pinged(secs(11));
        assert_eq!(probe.pong(secs(12)), Some(Duration::from_secs(2)));
        assert_eq!(probe.pong(secs(13)), None);
        let _ = probe.heard();
        probe.pinged(secs(20));
        let _ = probe.heard();
        assert_eq!(probe.pong(secs(21)), None);
    }

    #[test]
    fn zeros_are_refused_by_name() {
        let field = |config: ProbeConfig| config.validate().map_err(|e| e.field().to_owned());
        let default = ProbeConfig::default();
        let zero = Duration::ZERO;
        assert_eq!(field(ProbeConfig { interval: zero, ..default }), Err("interval".into()));
        assert_eq!(field(ProbeConfig { timeout: zero, ..default }), Err("timeout".into()));
        let config = ProbeConfig { unhealthy_threshold: 0, ..default };
        assert_eq!(field(config), Err("unhealthy_threshold".into()));
        let config = ProbeConfig { healthy_threshold: 0, ..default };
        assert_eq!(field(config), Err("healthy_threshold".into()));
    }

    #[test]
    fn it_is_small_and_what_could_not_have_arisen_is_not_valid() {
        assert!(size_of::<Probe>() <= 24);
        let policy = policy();
        let json = serde_json::to_string(&unhealthy()).unwrap();
        assert_eq!(serde_json::from_str::<Probe>(&json).unwrap(), unhealthy());
        for (from, to) in [
            ("\"count\":2", "\"count\":3"),
            ("\"count\":2", "\"count\":0"),
            ("\"unhealthy\":true", "\"unhealthy\":false"),
            ("\"timed\":false", "\"timed\":true"),
        ] {
            assert!(json.contains(from), "{json}");
            let hostile: Probe = serde_json::from_str(&json.replace(from, to)).unwrap();
            assert!(!hostile.is_valid(&policy), "{to}");
        }
    }
}
