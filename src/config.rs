//! The leaves' configurations put together, and validated once.

mod breakers;
mod calls;
mod peers;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::bucket::{BucketConfig, BucketPolicy, Rate};
use crate::error::ConfigError;
use crate::id::{BreakerProfileId, CallProfileId, MAX_SLOTS, PeerProfileId};
use crate::ratio::Ratio;
use crate::self_health::{SelfHealthConfig, SelfHealthPolicy};

pub use breakers::{BreakerGroup, BreakerProfile};
pub(crate) use breakers::{BreakerProfilePolicy, Mode};
pub(crate) use calls::{CallPolicy, GatePolicy};
pub use calls::{CallProfile, GateConfig, NotConnected, OpenOn};
pub use peers::{Detector, FirstRetry, HealthConfig, OnSuspect, PeerProfile, Priority, Signs};
pub(crate) use peers::{DetectorPolicy, PeerPolicy, WatchPolicy};

/// Everything that a manager is told once.
///
/// Start from [`Config::new`], which has one peer profile, one breaker profile and one call profile,
/// all named `default`, and change what must differ. [`Manager::new`](crate::Manager::new) validates it.
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
    /// What happens when this host's network comes back or becomes another one.
    #[cfg_attr(feature = "serde", serde(default))]
    pub network: NetworkConfig,
    /// How we doubt ourselves; `None`: never.
    #[cfg_attr(feature = "serde", serde(default = "default_self_health"))]
    pub self_health: Option<SelfHealthConfig>,
    /// What happens when many fall silent at once; `None`: nothing in particular.
    #[cfg_attr(feature = "serde", serde(default = "default_mass_guard"))]
    pub mass_guard: Option<MassGuardConfig>,
    /// Pings per second over all connections; `None` by default, no bound. A million peers that are
    /// silent for 30 s each are 33,000 pings a second. A rate below the number of such peers by their
    /// ping interval makes checks that much rarer: an overdue ping waits, and its peer is not judged
    /// for what it was not asked.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ping_rate: Option<BucketConfig>,
    /// The settings that peers refer to by place.
    pub peer_profiles: Vec<PeerProfile>,
    /// The settings that breakers refer to by place.
    pub breaker_profiles: Vec<BreakerProfile>,
    /// The settings that calls refer to by place.
    #[cfg_attr(feature = "serde", serde(default = "default_call_profiles"))]
    pub call_profiles: Vec<CallProfile>,
    /// Sets of breakers of which only a share may be open at once; none by default.
    #[cfg_attr(feature = "serde", serde(default))]
    pub breaker_groups: Vec<BreakerGroup>,
}

impl Config {
    /// The defaults, with one profile of each kind.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            limits: Limits::default(),
            pacer: PacerConfig::default(),
            sleep: SleepConfig::default(),
            network: NetworkConfig::default(),
            self_health: default_self_health(),
            mass_guard: default_mass_guard(),
            ping_rate: None,
            peer_profiles: vec![PeerProfile::default()],
            breaker_profiles: vec![BreakerProfile::default()],
            call_profiles: default_call_profiles(),
            breaker_groups: vec![],
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

    /// The call profile of that name.
    #[must_use]
    pub fn call_profile(&self, name: &str) -> Option<CallProfileId> {
        let place = self.call_profiles.iter().position(|profile| profile.name == name)?;
        u16::try_from(place).ok().map(CallProfileId)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that is refused, by its path, as `peer_profiles.iot.backoff.cap`.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Policies::new(self).map(|_| ())
    }

    /// Settings that are legal and most likely not meant, by their path; for whoever starts a
    /// program to print. Empty for the defaults.
    #[must_use]
    pub fn warnings(&self) -> Vec<ConfigError> {
        let calls = self.call_profiles.iter().filter_map(|profile| {
            let deadline = profile.deadline.filter(|deadline| *deadline < profile.attempt_timeout);
            let problem = format!("{:?} is never reached", profile.attempt_timeout);
            deadline.map(|_| {
                ConfigError::new("attempt_timeout", problem + ", since deadline comes first")
                    .within(&profile.name)
                    .within("call_profiles")
            })
        });
        let longest = self.call_profiles.iter().map(|profile| profile.attempt_timeout).max();
        let breakers = self.breaker_profiles.iter().flat_map(|profile| {
            let breaker = &profile.breaker;
            let slow = breaker.slow_after.filter(|slow| Some(*slow) >= longest).map(|slow| {
                let problem = format!("no call is slower than {slow:?} without timing out");
                ConfigError::new("slow_after", problem)
            });
            let restless = breaker.stable_after < breaker.open_for.base;
            let restless = restless.then(|| {
                let problem = format!(
                    "{:?} is less than open_for.base, {:?}: its growth is soon forgotten",
                    breaker.stable_after, breaker.open_for.base
                );
                ConfigError::new("stable_after", problem)
            });
            let found = slow.into_iter().chain(restless);
            found.map(|warning| {
                warning.within("breaker").within(&profile.name).within("breaker_profiles")
            })
        });
        let knows_when = self.breaker_profiles.iter().any(|guard| guard.calls.hedge.is_some());
        let hedged = self.call_profiles.iter().filter(|profile| profile.hedged && !knows_when);
        let hedged = hedged.map(|profile| {
            ConfigError::new("hedged", "true, but no breaker profile has calls.hedge")
                .within(&profile.name)
                .within("call_profiles")
        });
        let unasked = self.peer_profiles.iter().filter_map(|profile| {
            let HealthConfig { signs, detector, .. } = profile.health;
            let (Signs::Pings(pings), Detector::Deadline(deadline)) = (signs, detector) else {
                return None;
            };
            let problem = format!(
                "{deadline:?} is over before an answer that is asked for after {:?} may take {:?}",
                pings.interval, pings.timeout
            );
            (deadline < pings.interval.saturating_add(pings.timeout)).then(|| {
                ConfigError::new("deadline", problem)
                    .within("detector")
                    .within("health")
                    .within(&profile.name)
                    .within("peer_profiles")
            })
        });
        calls.chain(hedged).chain(breakers).chain(unasked).collect()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the default of a field that is optional")]
fn default_self_health() -> Option<SelfHealthConfig> {
    Some(SelfHealthConfig::default())
}

#[expect(clippy::unnecessary_wraps, reason = "the default of a field that is optional")]
fn default_mass_guard() -> Option<MassGuardConfig> {
    Some(MassGuardConfig::default())
}

/// Also those of a configuration that was written before there were calls.
fn default_call_profiles() -> Vec<CallProfile> {
    vec![CallProfile::default()]
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
    /// Calls at once, waiting ones included; 1,000,000. At most 2²⁷.
    pub max_calls: u32,
    /// Work that one step does beyond the direct answer to its event, in timers fired and queue
    /// places moved; 256, which keeps a step at a millisecond or so with a million peers. What is
    /// left stays due, and `next_deadline()` says so.
    pub max_work_per_step: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_peers: 1_000_000,
            max_breakers: 1_000_000,
            max_endpoints: 16,
            max_calls: 1_000_000,
            max_work_per_step: 256,
        }
    }
}

/// What bounds dials over all breakers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct PacerConfig {
    /// Dials in flight at once over all breakers; 256. The last eighth is for breakers that hold
    /// few, so that one whose servers hang does not keep all others out; one breaker alone has 224.
    pub max_in_flight: u32,
    /// Dials per second over all breakers, for those who know what their own host bears.
    pub rate: Option<BucketConfig>,
    /// The rate from which the first retry after a mass loss is spread where neither the breaker
    /// nor the pacer is told one; 5,000 a second. It keeps managers apart that lost the same server;
    /// what protects the server are the dials in flight.
    pub assumed_rate: Rate,
    /// How many managers like this one have peers behind the same servers; 1. The first retry after
    /// a mass loss is spread over what all of them lose.
    pub fleet_size: u32,
}

impl Default for PacerConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            rate: None,
            assumed_rate: Rate { count: 5_000, per: Duration::from_secs(1) },
            fleet_size: 1,
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

/// When many fall silent at once, it may be us.
///
/// If so many of the connections behind one breaker are doubted or worse, those that are to be
/// suspected get one more detection time, once, and a ping where their profile has pings. A dead
/// region is thus found after twice the time, once; an observer that was cut off loses nobody.
///
/// Source: Eureka, which stops expiring when too many of its clients fall silent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct MassGuardConfig {
    /// With how many connections behind a breaker it begins; 20.
    pub min_peers: u32,
    /// How many may be silent at once without meaning anything; 10.
    pub min_silent: u32,
    /// Which share of them may be; 25 %. At most 1.
    pub share: Ratio,
    /// For how long, after silent ones were given up all the same, others are not waited for again
    /// behind the same breaker; 60 s.
    pub believe_for: Duration,
}

impl Default for MassGuardConfig {
    fn default() -> Self {
        Self {
            min_peers: 20,
            min_silent: 10,
            share: Ratio::percent(25),
            believe_for: Duration::from_secs(60),
        }
    }
}

/// What happens when this host's network comes back or becomes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct NetworkConfig {
    /// A network that was gone for less than this was not gone: no failure is forgotten, no dial
    /// begun anew, nobody asked; 1 s.
    pub debounce: Duration,
    /// Within what time every connection with pings is asked whether it lives, each at a moment of
    /// its own and as the budget of pings allows; 3 s (Tailscale's rebind).
    pub check_within: Duration,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { debounce: Duration::from_secs(1), check_within: Duration::from_secs(3) }
    }
}

/// A validated configuration, in the form that the flows use.
#[derive(Clone, Debug)]
pub(crate) struct Policies {
    pub(crate) config: Config,
    pub(crate) peers: Vec<PeerPolicy>,
    pub(crate) breakers: Vec<BreakerProfilePolicy>,
    pub(crate) calls: Vec<CallPolicy>,
    pub(crate) pacer_rate: Option<BucketPolicy>,
    pub(crate) ping_rate: Option<BucketPolicy>,
    pub(crate) self_health: Option<SelfHealthPolicy>,
}

impl Policies {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let limits = &config.limits;
        within("limits.max_peers", limits.max_peers, 1, MAX_SLOTS / 2)?;
        within("limits.max_breakers", limits.max_breakers, 1, MAX_SLOTS / 2)?;
        within("limits.max_endpoints", limits.max_endpoints, 1, 64)?;
        within("limits.max_calls", limits.max_calls, 1, MAX_SLOTS / 2)?;
        within("limits.max_work_per_step", limits.max_work_per_step, 16, u32::MAX)?;
        within("pacer.max_in_flight", config.pacer.max_in_flight, 1, u32::MAX)?;
        let pacer = |error: ConfigError| error.within("pacer");
        let pacer_rate = match config.pacer.rate {
            Some(rate) => Some(rate.validate().map_err(|error| pacer(error.within("rate")))?),
            None => None,
        };
        positive_rate(config.pacer.assumed_rate)
            .map_err(|error| pacer(error.within("assumed_rate")))?;
        within("pacer.fleet_size", config.pacer.fleet_size, 1, u32::MAX)?;
        let ping_rate = match config.ping_rate {
            Some(rate) => Some(rate.validate().map_err(|error| error.within("ping_rate"))?),
            None => None,
        };
        let self_health = match config.self_health {
            Some(health) => Some(health.validate().map_err(|error| error.within("self_health"))?),
            None => None,
        };
        if let Some(MassGuardConfig { share, .. }) = config.mass_guard
            && (share.denominator == 0 || share.numerator > share.denominator)
        {
            let problem = format!("is {share}, must be at most 1");
            return Err(ConfigError::new("share", problem).within("mass_guard"));
        }
        within("peer_profiles", count(config.peer_profiles.len()), 1, u32::from(u16::MAX))?;
        within("breaker_profiles", count(config.breaker_profiles.len()), 1, u32::from(u16::MAX))?;
        within("call_profiles", count(config.call_profiles.len()), 1, u32::from(u16::MAX))?;
        unique("peer_profiles", config.peer_profiles.iter().map(|profile| &profile.name))?;
        unique("breaker_profiles", config.breaker_profiles.iter().map(|profile| &profile.name))?;
        unique("call_profiles", config.call_profiles.iter().map(|profile| &profile.name))?;
        unique("breaker_groups", config.breaker_groups.iter().map(|group| &group.name))?;
        for group in &config.breaker_groups {
            group.check().map_err(|error| error.within(&group.name).within("breaker_groups"))?;
        }
        let peers = config.peer_profiles.iter().map(|profile| {
            PeerPolicy::new(profile)
                .map_err(|error| error.within(&profile.name).within("peer_profiles"))
        });
        let breakers = config.breaker_profiles.iter().map(|profile| {
            BreakerProfilePolicy::new(profile, config)
                .map_err(|error| error.within(&profile.name).within("breaker_profiles"))
        });
        let calls = config.call_profiles.iter().map(|profile| {
            CallPolicy::new(profile)
                .map_err(|error| error.within(&profile.name).within("call_profiles"))
        });
        Ok(Self {
            peers: peers.collect::<Result<_, _>>()?,
            breakers: breakers.collect::<Result<_, _>>()?,
            calls: calls.collect::<Result<_, _>>()?,
            pacer_rate,
            ping_rate,
            self_health,
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

    #[inline]
    pub(crate) fn call(&self, profile: u16) -> &CallPolicy {
        &self.calls[usize::from(profile)]
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
