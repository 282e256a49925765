//! The leaves' configurations put together, and validated once.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::backoff::{BackoffConfig, BackoffPolicy};
use crate::breaker::{BreakerConfig, BreakerPolicy};
use crate::bucket::{BucketConfig, BucketPolicy, Rate};
use crate::error::ConfigError;
use crate::id::{BreakerProfileId, MAX_SLOTS, PeerProfileId};
use crate::phi::{PhiConfig, PhiPolicy};
use crate::probe::{ProbeConfig, ProbePolicy};
use crate::ratio::Ratio;
use crate::time::nanos;

/// Everything that a manager is told once.
///
/// Start from [`Config::new`], which has one peer profile and one breaker profile, both named
/// `default`, and change what must differ. [`Manager::new`](crate::Manager::new) validates it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Config {
    /// What all jitter is drawn from. It has no default: it must differ between processes, or
    /// their jitter is the same. It may be logged.
    pub seed: u64,
    /// Bounds on memory and work.
    pub limits: Limits,
    /// What bounds dials over all breakers together.
    pub pacer: PacerConfig,
    /// What happens when the driver comes back late.
    pub sleep: SleepConfig,
    /// The settings that peers refer to by place.
    pub peer_profiles: Vec<PeerProfile>,
    /// The settings that breakers refer to by place.
    pub breaker_profiles: Vec<BreakerProfile>,
}

impl Config {
    /// The defaults, with one peer profile and one breaker profile.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            limits: Limits::default(),
            pacer: PacerConfig::default(),
            sleep: SleepConfig::default(),
            peer_profiles: vec![PeerProfile::default()],
            breaker_profiles: vec![BreakerProfile::default()],
        }
    }

    /// The peer profile of that name.
    #[must_use]
    pub fn peer_profile(&self, name: &str) -> Option<PeerProfileId> {
        let place = self.peer_profiles.iter().position(|profile| profile.name == name)?;
        u16::try_from(place).ok().map(PeerProfileId)
    }

    /// The breaker profile of that name.
    #[must_use]
    pub fn breaker_profile(&self, name: &str) -> Option<BreakerProfileId> {
        let place = self.breaker_profiles.iter().position(|profile| profile.name == name)?;
        u16::try_from(place).ok().map(BreakerProfileId)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that is refused, by its path, as `peer_profiles.iot.backoff.cap`.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Policies::new(self).map(|_| ())
    }
}

/// Bounds on memory and on the work of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Limits {
    /// Peers at once; 1,000,000. At most 2²⁷.
    pub max_peers: u32,
    /// Breakers at once; 1,000,000. At most 2²⁷.
    pub max_breakers: u32,
    /// Endpoints of one peer; 16. At most 64.
    pub max_endpoints: u32,
    /// Work that one step does beyond the direct answer to its event, in timers fired and queue
    /// places moved; 4,096. What is left stays due, and `next_deadline()` says "now".
    pub max_work_per_step: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_peers: 1_000_000,
            max_breakers: 1_000_000,
            max_endpoints: 16,
            max_work_per_step: 4_096,
        }
    }
}

/// What bounds dials over all breakers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct PacerConfig {
    /// Dials in flight at once over all breakers; 256.
    pub max_in_flight: u32,
    /// Dials per second over all breakers, for those who know what their own host bears.
    pub rate: Option<BucketConfig>,
    /// The rate from which the first retry after a mass loss is spread where neither the breaker
    /// nor the pacer is told one; 500 a second.
    pub assumed_rate: Rate,
}

impl Default for PacerConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            rate: None,
            assumed_rate: Rate { count: 500, per: Duration::from_secs(1) },
        }
    }
}

/// What happens when the driver comes back later than `next_deadline()` asked for.
///
/// Then *we* were asleep (a stalled process, a suspended laptop), and silence proves nothing until
/// the I/O that waits has been fed.
///
/// Source: Cassandra's local pause, by lateness instead of by the gap between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct SleepConfig {
    /// Lateness from which we count as asleep; 250 ms.
    pub late_after: Duration,
    /// The longest time for which judgement then holds (never longer than the lateness); 5 s.
    /// Zero: never hold.
    pub max_hold: Duration,
}

impl Default for SleepConfig {
    fn default() -> Self {
        Self { late_after: Duration::from_millis(250), max_hold: Duration::from_secs(5) }
    }
}

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
    /// The name by which [`Config::peer_profile`] finds it.
    pub name: String,
    /// The delay after each failed round of dials; 1 s, doubling to 120 s, full jitter (AWS CRT).
    pub backoff: BackoffConfig,
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
            backoff: BackoffConfig::default(),
            first_retry: FirstRetry::Spread { max: Duration::from_secs(120) },
            dial_timeout: Duration::from_secs(20),
            failover_timeout: Duration::from_secs(5),
            max_dial_timeout: Duration::from_secs(60),
            attempt_delay: Duration::from_millis(250),
            stable_after: Duration::from_secs(10),
            session_ttl: None,
            max_attempts: None,
            give_up_after: None,
            inbound: false,
            health: HealthConfig::default(),
        }
    }
}

/// The settings of breakers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BreakerProfile {
    /// The name by which [`Config::breaker_profile`] finds it.
    pub name: String,
    /// When it opens, for how long, and what closes it again.
    pub breaker: BreakerConfig,
    /// Dials in flight at once; 64. The herd protection: keep it below the server's capacity per
    /// second × the dial timeout, or nothing is ever served in time.
    pub max_in_flight: u32,
    /// Dials per second, for those who know their server.
    pub rate: Option<BucketConfig>,
    /// Whether thresholds relax while this host is under load ([`Event::Load`](crate::Event::Load)).
    pub adaptive: bool,
}

impl Default for BreakerProfile {
    fn default() -> Self {
        Self {
            name: String::from("default"),
            breaker: BreakerConfig::for_dials(),
            max_in_flight: 64,
            rate: None,
            adaptive: false,
        }
    }
}

/// By how much the slow lane's cap is longer.
const SLOW_LANE: u32 = 10;

/// A validated configuration, in the form that the flows use.
#[derive(Clone, Debug)]
pub(crate) struct Policies {
    pub(crate) config: Config,
    pub(crate) peers: Vec<PeerPolicy>,
    pub(crate) breakers: Vec<BreakerProfilePolicy>,
    pub(crate) pacer_rate: Option<BucketPolicy>,
}

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
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum DetectorPolicy {
    Deadline(Duration),
    Phi(PhiPolicy),
}

#[derive(Clone, Debug)]
pub(crate) struct BreakerProfilePolicy {
    pub(crate) normal: BreakerPolicy,
    /// Thresholds while the host is under load; equal to `normal` unless adaptive.
    pub(crate) relaxed: BreakerPolicy,
    pub(crate) max_in_flight: u32,
    pub(crate) rate: Option<BucketPolicy>,
    /// What the first retry after a mass loss is spread by.
    pub(crate) spread_rate: Rate,
}

impl Policies {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let limits = &config.limits;
        within("limits.max_peers", limits.max_peers, 1, MAX_SLOTS / 2)?;
        within("limits.max_breakers", limits.max_breakers, 1, MAX_SLOTS / 2)?;
        within("limits.max_endpoints", limits.max_endpoints, 1, 64)?;
        within("limits.max_work_per_step", limits.max_work_per_step, 16, u32::MAX)?;
        within("pacer.max_in_flight", config.pacer.max_in_flight, 1, u32::MAX)?;
        let pacer = |error: ConfigError| error.within("pacer");
        let pacer_rate = match config.pacer.rate {
            Some(rate) => Some(rate.validate().map_err(|error| pacer(error.within("rate")))?),
            None => None,
        };
        positive_rate(config.pacer.assumed_rate)
            .map_err(|error| pacer(error.within("assumed_rate")))?;
        within("peer_profiles", count(config.peer_profiles.len()), 1, u32::from(u16::MAX))?;
        within("breaker_profiles", count(config.breaker_profiles.len()), 1, u32::from(u16::MAX))?;
        unique("peer_profiles", config.peer_profiles.iter().map(|profile| &profile.name))?;
        unique("breaker_profiles", config.breaker_profiles.iter().map(|profile| &profile.name))?;
        let peers = config.peer_profiles.iter().map(|profile| {
            PeerPolicy::new(profile)
                .map_err(|error| error.within(&profile.name).within("peer_profiles"))
        });
        let breakers = config.breaker_profiles.iter().map(|profile| {
            BreakerProfilePolicy::new(profile, &config.pacer)
                .map_err(|error| error.within(&profile.name).within("breaker_profiles"))
        });
        Ok(Self {
            peers: peers.collect::<Result<_, _>>()?,
            breakers: breakers.collect::<Result<_, _>>()?,
            pacer_rate,
            config: config.clone(),
        })
    }
}

/// # The policies of those that are there: their profiles were checked when they came.
#[expect(clippy::indexing_slicing, reason = "a profile that was checked when its user came")]
impl Policies {
    #[inline]
    pub(crate) fn peer(&self, profile: u16) -> &PeerPolicy {
        &self.peers[usize::from(profile)]
    }

    #[inline]
    pub(crate) fn breaker(&self, profile: u16) -> &BreakerProfilePolicy {
        &self.breakers[usize::from(profile)]
    }
}

impl PeerPolicy {
    fn new(profile: &PeerProfile) -> Result<Self, ConfigError> {
        let backoff = profile.backoff.validate().map_err(|error| error.within("backoff"))?;
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
            slow_lane: backoff.with_cap_times(SLOW_LANE),
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
        Ok(Some(Self { pings, detector }))
    }
}

impl BreakerProfilePolicy {
    fn new(profile: &BreakerProfile, pacer: &PacerConfig) -> Result<Self, ConfigError> {
        let normal = profile.breaker.clone().validate().map_err(|error| error.within("breaker"))?;
        within("max_in_flight", profile.max_in_flight, 1, u32::MAX)?;
        let rate = match profile.rate {
            Some(rate) => Some(rate.validate().map_err(|error| error.within("rate"))?),
            None => None,
        };
        let spread_rate = match (profile.rate, pacer.rate) {
            (Some(told), _) | (None, Some(told)) => told.rate,
            (None, None) => pacer.assumed_rate,
        };
        let relaxed = if profile.adaptive { normal.relaxed() } else { normal };
        Ok(Self { normal, relaxed, max_in_flight: profile.max_in_flight, rate, spread_rate })
    }

    /// The thresholds in force.
    pub(crate) const fn at(&self, relaxed: bool) -> &BreakerPolicy {
        if relaxed { &self.relaxed } else { &self.normal }
    }

    /// How long `dials` dials take at the rate that is told or assumed.
    pub(crate) fn time_for(&self, dials: u32) -> Duration {
        let rate = Ratio::new(dials, self.spread_rate.count);
        Duration::from_nanos(rate.of(nanos(self.spread_rate.per)))
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn within(field: &str, value: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if value < min {
        return Err(ConfigError::new(field, format!("{value} is less than {min}")));
    }
    if value > max {
        return Err(ConfigError::new(field, format!("{value} is more than {max}")));
    }
    Ok(())
}

fn positive(field: &str, span: Duration) -> Result<(), ConfigError> {
    if span.is_zero() {
        return Err(ConfigError::new(field, "zero; it must be longer"));
    }
    Ok(())
}

fn positive_rate(rate: Rate) -> Result<(), ConfigError> {
    within("count", rate.count, 1, u32::MAX)?;
    positive("per", rate.per)
}

fn unique<'a>(field: &str, names: impl Iterator<Item = &'a String>) -> Result<(), ConfigError> {
    let mut seen: Vec<&String> = names.collect();
    seen.sort_unstable();
    let twice = seen.windows(2).find(|pair| pair.first() == pair.last());
    match twice.and_then(<[_]>::first) {
        Some(name) => Err(ConfigError::new(field, format!("the name {name:?} twice"))),
        None => Ok(()),
    }
}
