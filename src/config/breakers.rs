//! The settings of breakers: their thresholds, what they bound, and the groups that they form.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::{Config, GateConfig, GatePolicy, within};
use crate::breaker::{BreakerConfig, BreakerPolicy};
use crate::bucket::{BucketConfig, BucketPolicy, Rate};
use crate::error::ConfigError;
use crate::limit::{LimitConfig, LimitPolicy};
use crate::ratio::Ratio;
use crate::time::nanos;

/// The settings of breakers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BreakerProfile {
    /// The name by which [`Config::breaker_profile`] finds it.
    pub name: String,
    /// When it opens, for how long, and what closes it again.
    pub breaker: BreakerConfig,
    /// Dials in flight at once, at most; 256, of which the pacer's default leaves 224 to one breaker
    /// alone ([`PacerConfig::max_in_flight`](super::PacerConfig::max_in_flight)). Where the window is
    /// off this is the herd protection: keep it below the server's capacity per second × the dial
    /// timeout, or nothing is ever served in time.
    pub max_in_flight: u32,
    /// Finds, below that bound, how many dials in flight the server takes: more while all of them
    /// succeed and are all used, fewer when dials time out or are refused. What happens while the
    /// breaker is open or probing tells nothing of the pace. From 64 on, between 1 and 256. `None`:
    /// always `max_in_flight`.
    ///
    /// Source: measured, 64 and 256 of six policies (20,000 peers, a server of 100 handshakes/s).
    pub window: Option<LimitConfig>,
    /// Dials per second, for those who know their server.
    pub rate: Option<BucketConfig>,
    /// Whether thresholds relax while this host is under load ([`Event::Load`](crate::Event::Load)).
    pub adaptive: bool,
    /// Whether it only watches at first, see [`Event::WatchOnly`](crate::Event::WatchOnly); no. The
    /// way to bring a breaker into production.
    pub watch_only: bool,
    /// Whether it counts what is usually a peer's own fault (a certificate, a password) once three
    /// different peers in a row were refused for it; yes. No where peers of many owners share a
    /// breaker and bad ones among them are normal. A breaker that one peer alone uses counts all.
    pub common_refusals: bool,
    /// The group that it belongs to, by name; none.
    pub group: Option<String>,
    /// The gates of the calls that it guards.
    pub calls: GateConfig,
}

impl Default for BreakerProfile {
    fn default() -> Self {
        Self {
            name: String::from("default"),
            breaker: BreakerConfig::for_dials(),
            max_in_flight: 256,
            window: Some(LimitConfig { initial: 64, max: 256, ..LimitConfig::default() }),
            rate: None,
            adaptive: false,
            watch_only: false,
            common_refusals: true,
            group: None,
            calls: GateConfig::default(),
        }
    }
}

impl BreakerProfile {
    /// For a breaker that guards calls: one probe decides, and it stays open for 5 s to 60 s.
    #[must_use]
    pub fn for_calls() -> Self {
        Self { name: String::from("calls"), breaker: BreakerConfig::default(), ..Self::default() }
    }
}

/// A set of breakers of which only a share may be open at once.
///
/// For servers that share what they depend on: when that fails they all look broken, and shutting
/// all of them out helps nobody. A breaker that would open beyond the share stays closed, goes on
/// counting, and opens with its next outcome once there is room.
///
/// Source: Envoy's `max_ejection_percent`, checked with the one about to be ejected included, and
/// its `always_eject_one_host`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BreakerGroup {
    /// The name by which breaker profiles refer to it.
    pub name: String,
    /// The share of its breakers that may be open, half-open or forced open; a half. Above 0 and at
    /// most 1.
    pub max_open: Ratio,
    /// Whether one may open even if it alone is more than the share; yes.
    pub always_one: bool,
}

impl Default for BreakerGroup {
    fn default() -> Self {
        Self { name: String::from("default"), max_open: Ratio::percent(50), always_one: true }
    }
}

impl BreakerGroup {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Ratio { numerator, denominator } = self.max_open;
        if numerator == 0 || numerator > denominator {
            let problem = format!("is {}, must be above 0 and at most 1", self.max_open);
            return Err(ConfigError::new("max_open", problem));
        }
        Ok(())
    }

    /// Whether one more of `members` may open while `open` are.
    pub(crate) fn has_room(&self, open: u32, members: u32) -> bool {
        let more = open.saturating_add(1);
        let Ratio { numerator, denominator } = self.max_open;
        (open == 0 && self.always_one)
            || u64::from(more) * u64::from(denominator) <= u64::from(members) * u64::from(numerator)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct BreakerProfilePolicy {
    pub(crate) normal: BreakerPolicy,
    /// Thresholds while the host is under load; equal to `normal` unless adaptive.
    pub(crate) relaxed: BreakerPolicy,
    /// For one that its group keeps closed.
    pub(crate) held: BreakerPolicy,
    pub(crate) max_in_flight: u32,
    pub(crate) window: Option<LimitPolicy>,
    pub(crate) rate: Option<BucketPolicy>,
    /// What the first retry after a mass loss is spread by.
    pub(crate) spread_rate: Rate,
    pub(crate) watch_only: bool,
    pub(crate) common_refusals: bool,
    /// The place of its group.
    pub(crate) group: Option<usize>,
    pub(crate) gates: GatePolicy,
}

/// Which of a breaker's thresholds are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// The host is under load.
    pub(crate) relaxed: bool,
    /// Too many of its group are open for another one.
    pub(crate) held: bool,
}

impl BreakerProfilePolicy {
    pub(super) fn new(profile: &BreakerProfile, config: &Config) -> Result<Self, ConfigError> {
        let pacer = &config.pacer;
        let normal = profile.breaker.clone().validate().map_err(|error| error.within("breaker"))?;
        within("max_in_flight", profile.max_in_flight, 1, u32::MAX)?;
        let window = match profile.window {
            Some(window) => Some(window.validate().map_err(|error| error.within("window"))?),
            None => None,
        };
        let rate = match profile.rate {
            Some(rate) => Some(rate.validate().map_err(|error| error.within("rate"))?),
            None => None,
        };
        let spread_rate = match (profile.rate, pacer.rate) {
            (Some(told), _) | (None, Some(told)) => told.rate,
            (None, None) => pacer.assumed_rate,
        };
        let relaxed = if profile.adaptive { normal.relaxed() } else { normal };
        let group = match &profile.group {
            None => None,
            Some(name) => {
                let place = config.breaker_groups.iter().position(|group| group.name == *name);
                let unknown = || ConfigError::new("group", format!("{name:?} is no breaker group"));
                Some(place.ok_or_else(unknown)?)
            }
        };
        let gates =
            GatePolicy::new(&profile.calls, &normal).map_err(|error| error.within("calls"))?;
        Ok(Self {
            normal,
            relaxed,
            held: normal.held(),
            max_in_flight: profile.max_in_flight,
            window,
            rate,
            spread_rate,
            watch_only: profile.watch_only,
            common_refusals: profile.common_refusals,
            group,
            gates,
        })
    }

    /// The thresholds in force.
    pub(crate) const fn at(&self, mode: Mode) -> &BreakerPolicy {
        match mode {
            Mode { held: true, .. } => &self.held,
            Mode { relaxed: true, .. } => &self.relaxed,
            Mode { .. } => &self.normal,
        }
    }

    /// How long `dials` dials take at the rate that is told or assumed.
    pub(crate) fn time_for(&self, dials: u64) -> Duration {
        let total = u128::from(dials) * u128::from(nanos(self.spread_rate.per));
        let count = u64::from(self.spread_rate.count.max(1));
        // A division of 128 bits takes several times as long, and is as good as never needed.
        let span = match u64::try_from(total) {
            Ok(total) => total / count,
            Err(_) => u64::try_from(total / u128::from(count)).unwrap_or(u64::MAX),
        };
        Duration::from_nanos(span)
    }
}
