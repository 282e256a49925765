//! The settings of peers: how each is dialed and watched.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::{positive, within};
use crate::backoff::{BackoffConfig, BackoffPolicy};
use crate::error::ConfigError;
use crate::phi::{PhiConfig, PhiPolicy};
use crate::probe::{ProbeConfig, ProbePolicy};
use crate::ratio::Ratio;
use crate::time::nanos;

/// When a peer tries again after the loss of a stable connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FirstRetry {
    /// Uniform in \[0, spread\], spread = recent losses behind the same breaker ÷ dial rate, at
    /// least the backoff's base and at most `max`: a lone loss is back within a second, a mass
    /// loss spreads by itself.
    Spread {
        /// The widest spread.
        max: Duration,
    },
    /// Like any other retry: the backoff's first delay.
    Backoff,
    /// At once, as most clients of the field do.
    Immediate,
}

/// Who dials first, of those that wait for one breaker.
///
/// Whoever has waited for 30 s counts as one class higher, so that nobody starves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Priority {
    /// Before all others.
    Important,
    /// In between.
    #[default]
    Normal,
    /// After all others; so are connections that only replace one which works.
    Background,
}

impl Priority {
    /// All of them, the first to dial first.
    pub const ALL: [Self; 3] = [Self::Important, Self::Normal, Self::Background];
}

/// Where a connection's signs of life come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Signs {
    /// Nowhere: silence means nothing. A driver that reports none must not lose idle connections.
    #[default]
    Unmonitored,
    /// The peer sends something of its own accord.
    Heartbeats,
    /// We ask, after silence.
    Pings(ProbeConfig),
}

/// How silence is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Detector {
    /// Silence longer than this is suspect.
    Deadline(Duration),
    /// Phi accrual: the deadline follows the heartbeats' own mean and deviation.
    Phi(PhiConfig),
}

/// What to do with a suspected connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnSuspect {
    /// Close it and dial again.
    #[default]
    Drop,
    /// Only tell.
    Notify,
    /// Dial a second one at once and keep whichever speaks first; the silent one is closed when
    /// the other one is up, or when that cannot be had either. A peer without endpoints: drop.
    ///
    /// Source: gRPC A8.
    Race,
}

/// How connections of a profile are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct HealthConfig {
    /// Where signs of life come from; nowhere by default.
    pub signs: Signs,
    /// How silence is judged, where there are signs; a deadline of 30 s.
    pub detector: Detector,
    /// What to do then; drop.
    pub on_suspect: OnSuspect,
    /// Whether to tell when a silence is on the way to suspicion
    /// ([`Notice::Doubted`](crate::Notice::Doubted)); yes. That is after two thirds of a deadline, at
    /// phi 3 and half the pause, or with the first ping that is missed.
    pub tell_doubts: bool,
    /// Smoothed latency from which a peer counts as degraded.
    pub max_latency: Option<Duration>,
    /// Smoothed loss, in parts per million, from which a peer counts as degraded.
    pub max_loss: Option<u32>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            signs: Signs::Unmonitored,
            detector: Detector::Deadline(Duration::from_secs(30)),
            on_suspect: OnSuspect::Drop,
            tell_doubts: true,
            max_latency: None,
            max_loss: None,
        }
    }
}

/// The settings of peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct PeerProfile {
    /// The name by which [`Config::peer_profile`](crate::Config::peer_profile) finds it.
    pub name: String,
    /// Who of those that wait for one breaker dials first; normal. Within a class those go first
    /// whose session would still be resumed, by its end.
    pub priority: Priority,
    /// The delay after each failed round of dials; 1 s, doubling to 120 s, full jitter (AWS CRT).
    pub backoff: BackoffConfig,
    /// How many times longer the backoff's cap is after a failure that tells of this peer alone (a
    /// certificate, a password), which passes no sooner for being asked again; 10. From 1 to 1,000.
    pub slow_lane: u32,
    /// The retry after the loss of a stable connection; spread, at most 120 s (Elastic Agent).
    pub first_retry: FirstRetry,
    /// How long a dial may take; 20 s (gRPC).
    pub dial_timeout: Duration,
    /// How long it may take while another endpoint is left to try; 5 s.
    pub failover_timeout: Duration,
    /// After a timeout the next dial may take as long as the backoff's delay has become, but no
    /// longer than this; 60 s. Otherwise a fleet keeps a slow server busy with dials that nobody
    /// waits for.
    pub max_dial_timeout: Duration,
    /// The pause before the next endpoint is tried; 250 ms (RFC 8305).
    pub attempt_delay: Duration,
    /// How long a connection must last, and be heard where it is monitored, before failures are
    /// forgotten; 10 s.
    pub stable_after: Duration,
    /// How long after it came up on another endpoint than the one it prefers the peer tries that one
    /// again, while its connection lasts; 60 s, ± 50 %, doubling to 10 min while it fails. After all
    /// who have no connection, and not while the preferred one's breaker is open or has been closed
    /// again for less than `stable_after`; while that is half-open, as one of its probes. `None`:
    /// never.
    pub failback_after: Option<Duration>,
    /// How long the server keeps the session of a lost connection; none by default.
    pub session_ttl: Option<Duration>,
    /// Failed rounds in a row after which the peer is given up; never by default. A connection that
    /// did not last counts as one; what our own network, host or restart did does not.
    pub max_attempts: Option<u32>,
    /// Time without a connection after which it is given up; never by default. Time without a
    /// network does not count, and after an outage it may take an eighth longer.
    pub give_up_after: Option<Duration>,
    /// Whether the peer may dial us; it may not by default.
    pub inbound: bool,
    /// How its connections are watched.
    pub health: HealthConfig,
}

impl Default for PeerProfile {
    fn default() -> Self {
        Self {
            name: String::from("default"),
            priority: Priority::Normal,
            backoff: BackoffConfig::default(),
            slow_lane: 10,
            first_retry: FirstRetry::Spread { max: Duration::from_secs(120) },
            dial_timeout: Duration::from_secs(20),
            failover_timeout: Duration::from_secs(5),
            max_dial_timeout: Duration::from_secs(60),
            attempt_delay: Duration::from_millis(250),
            stable_after: Duration::from_secs(10),
            failback_after: Some(Duration::from_secs(60)),
            session_ttl: None,
            max_attempts: None,
            give_up_after: None,
            inbound: false,
            health: HealthConfig::default(),
        }
    }
}

/// The share of a deadline after which a silence is doubted.
const DOUBT: Ratio = Ratio::new(2, 3);

#[derive(Clone, Debug)]
pub(crate) struct PeerPolicy {
    pub(crate) profile: PeerProfile,
    pub(crate) backoff: BackoffPolicy,
    pub(crate) slow_lane: BackoffPolicy,
    pub(crate) watch: Option<WatchPolicy>,
}

/// How a monitored connection is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchPolicy {
    pub(crate) pings: Option<ProbePolicy>,
    pub(crate) detector: DetectorPolicy,
    /// The same detector read early.
    pub(crate) doubt: DetectorPolicy,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum DetectorPolicy {
    Deadline(Duration),
    Phi(PhiPolicy),
}

impl PeerPolicy {
    pub(super) fn new(profile: &PeerProfile) -> Result<Self, ConfigError> {
        let backoff = profile.backoff.validate().map_err(|error| error.within("backoff"))?;
        within("slow_lane", profile.slow_lane, 1, 1_000)?;
        positive("dial_timeout", profile.dial_timeout)?;
        positive("failover_timeout", profile.failover_timeout)?;
        if profile.max_dial_timeout < profile.dial_timeout {
            return Err(ConfigError::new(
                "max_dial_timeout",
                format!(
                    "{:?} is less than dial_timeout, {:?}",
                    profile.max_dial_timeout, profile.dial_timeout
                ),
            ));
        }
        if let Some(max_attempts) = profile.max_attempts {
            within("max_attempts", max_attempts, 1, u32::MAX)?;
        }
        if let Some(give_up_after) = profile.give_up_after {
            positive("give_up_after", give_up_after)?;
        }
        if let Some(failback_after) = profile.failback_after {
            positive("failback_after", failback_after)?;
        }
        if let Some(max_loss) = profile.health.max_loss {
            within("health.max_loss", max_loss, 1, 1_000_000)?;
        }
        if let Some(max_latency) = profile.health.max_latency {
            positive("health.max_latency", max_latency)?;
        }
        let watch = WatchPolicy::new(&profile.health).map_err(|error| error.within("health"))?;
        Ok(Self {
            profile: profile.clone(),
            backoff,
            slow_lane: backoff.with_cap_times(profile.slow_lane),
            watch,
        })
    }
}

impl WatchPolicy {
    fn new(health: &HealthConfig) -> Result<Option<Self>, ConfigError> {
        let detector = match health.detector {
            Detector::Deadline(deadline) => {
                positive("detector.deadline", deadline)?;
                DetectorPolicy::Deadline(deadline)
            }
            Detector::Phi(phi) => DetectorPolicy::Phi(
                phi.validate().map_err(|error| error.within("phi").within("detector"))?,
            ),
        };
        let pings = match health.signs {
            Signs::Unmonitored => return Ok(None),
            Signs::Heartbeats => None,
            Signs::Pings(probe) => {
                Some(probe.validate().map_err(|error| error.within("pings").within("signs"))?)
            }
        };
        let doubt = match detector {
            DetectorPolicy::Deadline(deadline) => {
                DetectorPolicy::Deadline(Duration::from_nanos(DOUBT.of(nanos(deadline))))
            }
            DetectorPolicy::Phi(phi) => DetectorPolicy::Phi(phi.doubting()),
        };
        Ok(Some(Self { pings, detector, doubt }))
    }
}
