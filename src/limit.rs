//! An adaptive limit: find out how much a server takes at once, and stay there.
//!
//! Additive increase, multiplicative decrease, as TCP does it: while all goes well and the limit is
//! what holds us back it creeps up; at the first sign of too much it falls by a tenth.
//!
//! ```text
//! success, in_flight · 2 ≥ limit     successes += 1; a limit-full of them: limit += 1
//! drop                               limit = max(min, min(⌊limit · decrease⌋, limit − 1))
//! started at or before the last decrease: neither, whatever it was
//! ```
//!
//! The last line is what makes one bad moment one decrease: what was under way then tells of the
//! limit as it was, and without it N drops at once would leave 0.9^N of the limit. What started at
//! the very moment of the decrease cannot be told from what started before it.
//!
//! The increase is the calmer of the two in use, one for each limit-full of successes (so one for
//! each round trip, however large the limit); concurrency-limits adds one for each success. The
//! signal is a drop (a timeout, a refusal for overload); a success slower than `latency` is one.
//!
//! Rejected: growing while idle (tower-resilience; the first burst then meets no limit), delay
//! gradients (Vegas, Gradient2: the shortest delay seen grows stale, and measuring it anew means
//! throttling), floats.
//!
//! Source: Netflix concurrency-limits, `AIMDLimit`; RFC 5681 for one decrease per round trip.

use crate::error::ConfigError;
use crate::ratio::Ratio;
use crate::time::{Time, nanos};
use alloc::format;
use core::time::Duration;

/// What an adaptive limit is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct LimitConfig {
    /// Where it starts; default 20, from `min` to `max`.
    pub initial: u32,
    /// Where it ends falling; default 1, at least 1. A high one keeps an overload alive.
    pub min: u32,
    /// Where it ends growing; default 1,000, at least `min`.
    pub max: u32,
    /// What a drop leaves of it; default 9/10, above 0 and below 1.
    pub decrease: Ratio,
    /// A success that took longer counts as a drop; default never.
    pub latency: Option<Duration>,
}

/// Source: concurrency-limits for 20 and 0.9; its floor of 20 is not taken over, since a floor
/// above what the server takes never recovers (envoy#38338).
impl Default for LimitConfig {
    fn default() -> Self {
        Self { initial: 20, min: 1, max: 1_000, decrease: Ratio::new(9, 10), latency: None }
    }
}

impl LimitConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// `min` is 0, `max` below it, or `initial` not between; a `decrease` that is none, or leaves
    /// nothing; a `latency` of 0.
    pub fn validate(self) -> Result<LimitPolicy, ConfigError> {
        let Self { initial, min, max, decrease, latency } = self;
        if min == 0 {
            return Err(ConfigError::new("min", "is 0, must be at least 1"));
        }
        if max < min {
            return Err(ConfigError::new("max", format!("is {max}, must be at least min, {min}")));
        }
        if !(min..=max).contains(&initial) {
            let problem = format!("is {initial}, must be from min to max, {min} to {max}");
            return Err(ConfigError::new("initial", problem));
        }
        if decrease.numerator == 0 || decrease.is_at_least_one() {
            let problem = format!("is {decrease}, must be above 0 and below 1");
            return Err(ConfigError::new("decrease", problem));
        }
        if latency == Some(Duration::ZERO) {
            return Err(ConfigError::new("latency", "is 0ns, must be at least 1ns"));
        }
        Ok(LimitPolicy(self))
    }
}

/// The checked settings of an adaptive limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitPolicy(LimitConfig);

impl LimitPolicy {
    /// Where the limit starts.
    #[must_use]
    pub const fn initial(&self) -> u32 {
        self.0.initial
    }

    /// The limit's lower and upper end.
    #[must_use]
    pub const fn bounds(&self) -> (u32, u32) {
        (self.0.min, self.0.max)
    }

    /// The limit after a drop.
    fn decreased(&self, limit: u32) -> u32 {
        let left = u32::try_from(self.0.decrease.of(u64::from(limit))).unwrap_or(u32::MAX);
        left.min(limit.saturating_sub(1)).max(self.0.min)
    }
}

/// What a unit of work told of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Sample {
    /// It was done.
    Ok,
    /// It was too much: it timed out, or was refused for overload.
    Dropped,
}

/// An adaptive limit: 24 bytes.
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::limit::{Limit, LimitConfig, Sample};
///
/// let policy = LimitConfig { initial: 10, ..Default::default() }.validate().unwrap();
/// let mut limit = Limit::new(&policy);
/// let (started, now) = (Time::ZERO, Time::from_millis(50));
/// (0..10).for_each(|_| limit.record(&policy, Sample::Ok, started, 10, now));
/// assert_eq!(limit.current(), 11);
/// (0..10).for_each(|_| limit.record(&policy, Sample::Dropped, started, 10, now));
/// assert_eq!(limit.current(), 9); // once: all ten had started before
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Limit {
    limit: u32,
    /// Since the limit last changed.
    successes: u32,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    decreased_at: Option<Time>,
}

impl Limit {
    /// A limit where the policy starts it.
    #[must_use]
    pub const fn new(policy: &LimitPolicy) -> Self {
        Self { limit: policy.initial(), successes: 0, decreased_at: None }
    }

    /// How much may be in flight.
    #[must_use]
    pub const fn current(&self) -> u32 {
        self.limit
    }

    /// Learns from a unit of work that has ended.
    ///
    /// `in_flight`: with this one. `started` and `now` bound its duration; if they are the wrong
    /// way round it took no time. O(1).
    pub fn record(
        &mut self,
        policy: &LimitPolicy,
        sample: Sample,
        started: Time,
        in_flight: u32,
        now: Time,
    ) {
        if self.decreased_at.is_some_and(|decreased_at| started <= decreased_at) {
            return;
        }
        let slow = policy.0.latency.is_some_and(|latency| now.since(started) > latency);
        if sample == Sample::Dropped || slow {
            self.limit = policy.decreased(self.limit);
            self.successes = 0;
            self.decreased_at = self.decreased_at.max(Some(now));
        } else if u64::from(in_flight) * 2 >= u64::from(self.limit) {
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.limit {
                self.successes = 0;
                self.limit = self.limit.saturating_add(1).min(policy.0.max);
            }
        }
    }

    /// The same with its times relative to `now`.
    pub(crate) fn shape(&mut self, now: Time) {
        self.decreased_at = self.decreased_at.map(|at| Time::from_nanos(nanos(now.since(at))));
    }

    /// Whether this limit could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, policy: &LimitPolicy) -> bool {
        (policy.0.min..=policy.0.max).contains(&self.limit) && self.successes < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> LimitPolicy {
        let latency = Some(Duration::from_secs(1));
        LimitConfig { initial: 10, min: 2, max: 20, latency, ..Default::default() }
            .validate()
            .unwrap()
    }

    /// Records samples of work that started and ended in the same second.
    fn record(limit: &mut Limit, sample: Sample, times: u32, in_flight: u32, second: u64) {
        let started = Time::from_secs(second);
        let now = Time::from_millis(second * 1_000 + 500);
        (0..times).for_each(|_| limit.record(&policy(), sample, started, in_flight, now));
    }

    #[test]
    fn it_grows_by_one_for_each_limit_full_of_successes() {
        let mut limit = Limit::new(&policy());
        record(&mut limit, Sample::Ok, 9, 10, 1);
        assert_eq!(limit.current(), 10);
        record(&mut limit, Sample::Ok, 1, 10, 1);
        assert_eq!(limit.current(), 11);
        record(&mut limit, Sample::Ok, 11, 10, 1);
        assert_eq!(limit.current(), 12);
        record(&mut limit, Sample::Ok, 10_000, 20, 2);
        assert_eq!(limit.current(), 20);
    }

    #[test]
    fn it_does_not_grow_while_less_than_half_of_it_is_used() {
        let mut limit = Limit::new(&policy());
        record(&mut limit, Sample::Ok, 10_000, 4, 1);
        assert_eq!(limit, Limit::new(&policy()));
        record(&mut limit, Sample::Ok, 10, 5, 1);
        assert_eq!(limit.current(), 11);
        // At 11, five and a half would be half.
        record(&mut limit, Sample::Ok, 10_000, 5, 2);
        assert_eq!(limit.current(), 11);
    }

    #[test]
    fn one_bad_moment_of_many_is_one_decrease() {
        let mut limit = Limit::new(&policy());
        record(&mut limit, Sample::Dropped, 1_000, 10, 1);
        assert_eq!(limit.current(), 9);
        // Begun in the second before the decrease: it tells nothing new, for good or ill.
        record(&mut limit, Sample::Ok, 1_000, 10, 1);
        assert_eq!(limit.current(), 9);
        record(&mut limit, Sample::Dropped, 1, 10, 2);
        assert_eq!(limit.current(), 8);
    }

    #[test]
    fn what_starts_at_the_moment_of_the_decrease_does_not_count_either() {
        let (mut limit, policy) = (Limit::new(&policy()), policy());
        let now = Time::from_secs(1);
        for _ in 0..1_000 {
            limit.record(&policy, Sample::Dropped, now, 10, now);
        }
        assert_eq!(limit.current(), 9);
        limit.record(&policy, Sample::Dropped, now.plus_nanos(1), 10, now.plus_nanos(1));
        assert_eq!(limit.current(), 8);
    }

    #[test]
    fn it_falls_by_at_least_one_and_never_below_its_floor() {
        let mut limit = Limit::new(&policy());
        let mut falls = [0; 10];
        for (second, fall) in (1..).zip(&mut falls) {
            record(&mut limit, Sample::Dropped, 1, 10, second);
            *fall = limit.current();
        }
        assert_eq!(falls, [9, 8, 7, 6, 5, 4, 3, 2, 2, 2]);
    }

    #[test]
    fn a_success_slower_than_the_latency_is_a_drop() {
        let (mut limit, policy) = (Limit::new(&policy()), policy());
        limit.record(&policy, Sample::Ok, Time::from_secs(1), 10, Time::from_secs(2));
        assert_eq!(limit.current(), 10);
        let late = Time::from_nanos(3_000_000_001);
        limit.record(&policy, Sample::Ok, Time::from_secs(2), 10, late);
        assert_eq!(limit.current(), 9);
    }

    #[test]
    fn a_drop_makes_the_way_up_begin_anew() {
        let mut limit = Limit::new(&policy());
        record(&mut limit, Sample::Ok, 9, 10, 1);
        record(&mut limit, Sample::Dropped, 1, 10, 1);
        record(&mut limit, Sample::Ok, 8, 10, 2);
        assert_eq!(limit.current(), 9);
        record(&mut limit, Sample::Ok, 1, 10, 2);
        assert_eq!(limit.current(), 10);
    }

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let field = |config: LimitConfig| config.validate().map_err(|e| e.field().to_owned());
        let default = LimitConfig::default();
        assert_eq!(field(LimitConfig { min: 0, ..default }), Err("min".into()));
        assert_eq!(field(LimitConfig { min: 9, max: 8, ..default }), Err("max".into()));
        assert_eq!(field(LimitConfig { min: 21, ..default }), Err("initial".into()));
        assert_eq!(field(LimitConfig { max: 19, ..default }), Err("initial".into()));
        for decrease in [Ratio::new(0, 1), Ratio::new(1, 1), Ratio::new(2, 1), Ratio::new(1, 0)] {
            assert_eq!(field(LimitConfig { decrease, ..default }), Err("decrease".into()));
        }
        let latency = Some(Duration::ZERO);
        assert_eq!(field(LimitConfig { latency, ..default }), Err("latency".into()));
        let fixed = LimitConfig { initial: 9, min: 9, max: 9, ..default };
        assert_eq!(
            fixed.validate().map(|policy| (policy.initial(), policy.bounds())),
            Ok((9, (9, 9)))
        );
        assert_eq!(policy().bounds(), (2, 20));
    }

    #[test]
    fn it_is_small_and_what_could_not_have_arisen_is_not_valid() {
        assert!(size_of::<Limit>() <= 24);
        let policy = policy();
        let limit = Limit::new(&policy);
        let json = serde_json::to_string(&limit).unwrap();
        assert_eq!(json, r#"{"limit":10,"successes":0,"decreased_at":null}"#);
        assert_eq!(serde_json::from_str::<Limit>(&json).unwrap(), limit);
        for (limit, successes) in [(0, 0), (1, 0), (21, 0), (10, 10), (u32::MAX, u32::MAX)] {
            let mut hostile = Limit { limit, successes, decreased_at: None };
            assert!(!hostile.is_valid(&policy));
            hostile.record(&policy, Sample::Ok, Time::ZERO, u32::MAX, Time::ZERO);
            hostile.record(&policy, Sample::Dropped, Time::ZERO, 0, Time::MAX);
        }
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_falls_once_for_each_round_trip(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..20, 0_u32..40, 0_u64..9), 1..300),
        ) {
            let (policy, mut limit) = (policy(), Limit::new(&policy()));
            let mut now = Time::ZERO;
            let mut last_fall: Option<Time> = None;
            for (dropped, took, in_flight, gap) in steps {
                now += Duration::from_millis(gap * 100);
                let started = now.minus_nanos(took * 100_000_000);
                let before = limit.current();
                let sample = if dropped { Sample::Dropped } else { Sample::Ok };
                limit.record(&policy, sample, started, in_flight, now);
                if limit.current() < before {
                    prop_assert!(last_fall.is_none_or(|fall| started > fall));
                    last_fall = Some(now);
                }
                prop_assert!(limit.current() <= before + 1 && limit.is_valid(&policy));
            }
        }
    }
}
