//! A token bucket: so many per so long, with a burst, and a refusal that says when.
//!
//! A bucket holds at most `burst` tokens and gains `count` of them every `per`; whoever wants to
//! act takes one. So in any window of length w at most `burst + ⌊w · count / per⌋` are granted:
//!
//! ```text
//! credit  = min(burst · per, credit + elapsed · count)       in units of 1/per of a token
//! granted = credit ≥ per, and then costs per
//! wait    = ⌈(per − credit) / count⌉
//! ```
//!
//! With these units a nanosecond earns a whole number of them, so nothing is ever rounded and the
//! wait named is exactly the wait needed: a nanosecond earlier is refused again.
//!
//! Rejected: fixed cycles, as resilience4j's (two cycles' worth pass around an edge); GCRA, whose
//! single "theoretical arrival time" divides `per` by `count` and so rounds the rate (governor
//! granted burst + 1 after idling until its #251); floats.

use crate::error::ConfigError;
use crate::time::{Time, nanos};
use alloc::format;
use core::time::Duration;

/// So many per so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In how long; at least a nanosecond.
    pub per: Duration,
}

impl Rate {
    /// `count` in each second.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }
}

/// What a bucket is made of.
///
/// Defaults: 500 a second, with a burst of 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BucketConfig {
    /// How fast tokens come; default 500 a second.
    pub rate: Rate,
    /// How many tokens the bucket holds; default 100, at least 1.
    pub burst: u32,
}

/// Source: a dial rate that a small server of today survives; measured on the herd of 20,000 peers
/// that the reconnect scenarios of the simulator replay.
impl Default for BucketConfig {
    fn default() -> Self {
        Self { rate: Rate::per_second(500), burst: 100 }
    }
}

impl BucketConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// A zero in `rate.count`, `rate.per` or `burst`; a `burst` that takes longer than 584 years
    /// to fill, one token at a time.
    pub fn validate(self) -> Result<BucketPolicy, ConfigError> {
        let Self { rate, burst } = self;
        if rate.count == 0 {
            return Err(ConfigError::new("rate.count", "is 0, must be at least 1"));
        }
        let per = nanos(rate.per);
        if per == 0 {
            return Err(ConfigError::new("rate.per", "is 0ns, must be at least 1ns"));
        }
        if burst == 0 {
            return Err(ConfigError::new("burst", "is 0, must be at least 1"));
        }
        let common = gcd(per, u64::from(rate.count));
        let token = per / common;
        let Some(capacity) = token.checked_mul(u64::from(burst)) else {
            let problem = format!("is {burst}, must be at most {} at this rate", u64::MAX / token);
            return Err(ConfigError::new("burst", problem));
        };
        Ok(BucketPolicy { rate, earn: u64::from(rate.count) / common, token, capacity })
    }
}

/// The greatest common divisor of two numbers that are not 0.
const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A checked rate and burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketPolicy {
    rate: Rate,
    /// Units earned in a nanosecond.
    earn: u64,
    /// Units in a token.
    token: u64,
    /// Units in a full bucket.
    capacity: u64,
}

impl BucketPolicy {
    /// How fast tokens come.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// How many tokens a full bucket holds.
    #[must_use]
    pub fn burst(&self) -> u32 {
        tokens_of(self.capacity, self)
    }
}

/// Whether a token was there.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acquire {
    /// It was, and is taken.
    Granted,
    /// It was not, and nothing is taken.
    Wait {
        /// The first moment at which one will be there, if nobody else takes it.
        until: Time,
    },
}

/// A bucket of tokens.
///
/// `now` may be any time; one earlier than the latest seen counts as the latest seen.
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::bucket::{Acquire, Bucket, BucketConfig, Rate};
///
/// let config = BucketConfig { rate: Rate::per_second(2), burst: 1 };
/// let policy = config.validate().unwrap();
/// let mut bucket = Bucket::full(&policy, Time::ZERO);
/// assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Granted);
/// let until = Time::from_millis(500);
/// assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Wait { until });
/// assert_eq!(bucket.acquire(&policy, until), Acquire::Granted);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Bucket {
    credit: u64,
    at: Time,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn full(policy: &BucketPolicy, now: Time) -> Self {
        Self { credit: policy.capacity, at: now }
    }

    /// Takes a token if there is one, and otherwise says when there will be. O(1).
    pub fn acquire(&mut self, policy: &BucketPolicy, now: Time) -> Acquire {
        self.credit = self.credit_at(policy, now);
        self.at = self.at.max(now);
        match self.credit.checked_sub(policy.token) {
            Some(rest) => {
                self.credit = rest;
                Acquire::Granted
            }
            None => Acquire::Wait { until: self.ready_at(policy, now) },
        }
    }

    /// Puts back a token that was taken and not used; a full bucket stays full.
    pub fn give_back(&mut self, policy: &BucketPolicy) {
        self.credit = self.credit.saturating_add(policy.token).min(policy.capacity);
    }

    /// The first moment, from `now` on, at which a token is there.
    #[must_use]
    pub fn ready_at(&self, policy: &BucketPolicy, now: Time) -> Time {
        let missing = policy.token.saturating_sub(self.credit_at(policy, now));
        self.at.max(now).plus_nanos(missing.div_ceil(policy.earn.max(1)))
    }

    /// The first moment, from `now` on, at which the last of `n` takers in line gets its token, if
    /// each takes one as soon as it is there; `None` if that is never.
    ///
    /// `n` may exceed the burst. Exact at rates up to one a nanosecond; O(1).
    #[must_use]
    pub fn ready_for(&self, policy: &BucketPolicy, n: u32, now: Time) -> Option<Time> {
        let (token, earn) = (u128::from(policy.token), u128::from(policy.earn.max(1)));
        let credit = u128::from(self.credit_at(policy, now));
        let wait = if policy.capacity == policy.token && n > 0 {
            // What comes beyond the only token, in the nanosecond that completes it, is lost.
            let others = u128::from(n - 1) * token.div_ceil(earn);
            token.saturating_sub(credit).div_ceil(earn) + others
        } else {
            (token * u128::from(n)).saturating_sub(credit).div_ceil(earn)
        };
        let wait = u64::try_from(wait).ok()?;
        Some(self.at.max(now).plus_nanos(wait)).filter(|&at| at < Time::MAX)
    }

    /// How many whole tokens are there.
    #[must_use]
    pub fn tokens(&self, policy: &BucketPolicy, now: Time) -> u32 {
        tokens_of(self.credit_at(policy, now), policy)
    }

    /// Whether this bucket could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub const fn is_valid(&self, policy: &BucketPolicy) -> bool {
        self.credit <= policy.capacity
    }

    /// The same as of `now`, which becomes the beginning of time.
    pub(crate) fn shape(&mut self, policy: &BucketPolicy, now: Time) {
        *self = Self { credit: self.credit_at(policy, now), at: Time::ZERO };
    }

    fn credit_at(&self, policy: &BucketPolicy, now: Time) -> u64 {
        let elapsed = u128::from(nanos(now.since(self.at)));
        let credit = u128::from(self.credit) + elapsed * u128::from(policy.earn);
        u64::try_from(credit).unwrap_or(u64::MAX).min(policy.capacity)
    }
}

fn tokens_of(credit: u64, policy: &BucketPolicy) -> u32 {
    u32::try_from(credit / policy.token.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn policy(count: u32, per: Duration, burst: u32) -> BucketPolicy {
        BucketConfig { rate: Rate { count, per }, burst }.validate().unwrap()
    }

    #[test]
    fn a_full_bucket_grants_its_burst_at_once_and_no_more() {
        let policy = policy(10, Duration::from_secs(1), 3);
        assert_eq!(policy.burst(), 3);
        let mut bucket = Bucket::full(&policy, Time::ZERO);
        for left in (0..3).rev() {
            assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Granted);
            assert_eq!(bucket.tokens(&policy, Time::ZERO), left);
        }
        let until = Time::from_millis(100);
        assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Wait { until });
    }

    #[test]
    fn the_wait_named_is_exactly_the_wait_needed() {
        // A third of a second is no whole number of nanoseconds.
        let policy = policy(3, Duration::from_secs(1), 2);
        let mut bucket = Bucket::full(&policy, Time::ZERO);
        assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Granted);
        assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Granted);
        let until = Time::from_nanos(333_333_334);
        assert_eq!(bucket.ready_at(&policy, Time::ZERO), until);
        let early = Time::from_nanos(333_333_333);
        assert_eq!(bucket.acquire(&policy, early), Acquire::Wait { until });
        assert_eq!(bucket.acquire(&policy, until), Acquire::Granted);
        // What was earned beyond the token is not lost: three tokens take one second.
        assert_eq!(bucket.ready_at(&policy, until), Time::from_nanos(666_666_667));
    }

    #[test]
    fn the_last_in_line_is_told_its_moment_however_long_the_line() {
        let policy = policy(3, Duration::from_secs(1), 2);
        let bucket = Bucket::full(&policy, Time::from_secs(1));
        let ready = |n| bucket.ready_for(&policy, n, Time::ZERO);
        assert_eq!([0, 1, 2].map(ready), [Some(Time::from_secs(1)); 3]);
        assert_eq!(ready(3), Some(Time::from_nanos(1_333_333_334)));
        assert_eq!(ready(4), Some(Time::from_nanos(1_666_666_667)));
        assert_eq!(ready(5), Some(Time::from_secs(2)));
        assert_eq!(ready(302), Some(Time::from_secs(101)));
        let slow = BucketConfig { rate: Rate { count: 1, per: Duration::MAX }, burst: 1 };
        let slow = slow.validate().unwrap();
        let bucket = Bucket::full(&slow, Time::ZERO);
        assert_eq!([0, 1].map(|n| bucket.ready_for(&slow, n, Time::ZERO)), [Some(Time::ZERO); 2]);
        assert_eq!(bucket.ready_for(&slow, 2, Time::ZERO), None);
        assert_eq!(bucket.ready_for(&slow, u32::MAX, Time::ZERO), None);
    }

    #[test]
    fn idling_never_earns_more_than_the_burst() {
        let policy = policy(1, Duration::from_millis(1), 5);
        let mut bucket = Bucket::full(&policy, Time::ZERO);
        assert_eq!(bucket.tokens(&policy, Time::MAX), 5);
        for _ in 0..5 {
            assert_eq!(bucket.acquire(&policy, Time::from_secs(9_999)), Acquire::Granted);
        }
        let until = Time::from_secs(9_999) + Duration::from_millis(1);
        assert_eq!(bucket.acquire(&policy, Time::from_secs(9_999)), Acquire::Wait { until });
    }

    #[test]
    fn a_token_given_back_is_there_again_but_overfills_nothing() {
        let policy = policy(1, Duration::from_secs(1), 1);
        let mut bucket = Bucket::full(&policy, Time::ZERO);
        assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Granted);
        bucket.give_back(&policy);
        bucket.give_back(&policy);
        assert_eq!(bucket, Bucket::full(&policy, Time::ZERO));
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let policy = policy(1, Duration::from_secs(1), 1);
        let mut bucket = Bucket::full(&policy, Time::from_secs(10));
        assert_eq!(bucket.acquire(&policy, Time::from_secs(10)), Acquire::Granted);
        let until = Time::from_secs(11);
        assert_eq!(bucket.acquire(&policy, Time::ZERO), Acquire::Wait { until });
        assert_eq!(bucket.tokens(&policy, Time::from_secs(10)), 0);
    }

    #[test]
    fn the_end_of_time_is_never() {
        let policy = policy(1, Duration::MAX, 1);
        let mut bucket = Bucket::full(&policy, Time::from_secs(1));
        assert_eq!(bucket.acquire(&policy, Time::from_secs(1)), Acquire::Granted);
        assert_eq!(bucket.ready_at(&policy, Time::from_secs(1)), Time::MAX);
    }

    #[test]
    fn zeros_and_bursts_beyond_counting_are_refused_by_name() {
        let field = |count, per, burst| {
            let config = BucketConfig { rate: Rate { count, per }, burst };
            config.validate().map_err(|error| error.field().to_owned())
        };
        let second = Duration::from_secs(1);
        assert_eq!(field(0, second, 1), Err("rate.count".into()));
        assert_eq!(field(1, Duration::ZERO, 1), Err("rate.per".into()));
        assert_eq!(field(1, second, 0), Err("burst".into()));
        assert_eq!(field(1, second * 86_400, u32::MAX), Err("burst".into()));
        assert!(field(1, Duration::MAX, 1).is_ok());
        assert_eq!(field(1, Duration::MAX, 2), Err("burst".into()));
        // One each millisecond, and so seven weeks, however the rate is written.
        assert!(field(86_400_000, second * 86_400, u32::MAX).is_ok());
        assert!(field(u32::MAX, Duration::from_nanos(1), u32::MAX).is_ok());
    }

    #[test]
    fn a_bucket_too_full_is_not_valid() {
        let policy = policy(1, Duration::from_secs(1), 1);
        let full = Bucket::full(&policy, Time::ZERO);
        let json = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<Bucket>(&json).unwrap(), full);
        assert!(full.is_valid(&policy));
        let hostile: Bucket = serde_json::from_str(r#"{"credit":1000000001,"at":0}"#).unwrap();
        assert!(!hostile.is_valid(&policy));
    }

    proptest! {
        #[test]
        fn no_window_grants_more_than_burst_and_rate(
            count in 1_u32..50,
            per in 1_u64..2_000,
            burst in 1_u32..8,
            steps in proptest::collection::vec((0_u64..400, any::<bool>()), 1..200),
        ) {
            let policy = policy(count, Duration::from_nanos(per), burst);
            let mut bucket = Bucket::full(&policy, Time::ZERO);
            let mut now = Time::ZERO;
            let mut grants: Vec<u64> = Vec::new();
            for (gap, patient) in steps {
                now = now.plus_nanos(gap);
                match bucket.acquire(&policy, now) {
                    Acquire::Granted => grants.push(now.as_nanos()),
                    Acquire::Wait { until } if patient => {
                        let early = Time::from_nanos(until.as_nanos() - 1);
                        prop_assert_eq!(bucket.acquire(&policy, early), Acquire::Wait { until });
                        now = until;
                        prop_assert_eq!(bucket.acquire(&policy, now), Acquire::Granted);
                        grants.push(now.as_nanos());
                    }
                    Acquire::Wait { until } => prop_assert!(until > now),
                }
                prop_assert!(bucket.is_valid(&policy));
            }
            // A line of ten from here on: each gets its token at the moment that it was told.
            let told: Vec<_> = (1..=10).map(|n| bucket.ready_for(&policy, n, now)).collect();
            let mut line = bucket;
            for told in told.into_iter().take_while(|_| u64::from(count) <= per) {
                let at = line.ready_at(&policy, now);
                prop_assert_eq!(told, Some(at));
                prop_assert_eq!(line.acquire(&policy, at), Acquire::Granted);
            }
            for (first, &start) in grants.iter().enumerate() {
                for (last, &end) in grants.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (end - start) * u64::from(count) / per;
                    prop_assert!((last - first + 1) as u64 <= allowed);
                }
            }
        }
    }
}
