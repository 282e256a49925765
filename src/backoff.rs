//! How long to wait before trying again.
//!
//! Somebody who failed just now will most likely fail again at once, and everybody who failed with
//! them will try again at the same moment. So each further failure waits longer, up to a cap, and
//! chance spreads those who failed together:
//!
//! ```text
//! delay(k) = min(cap, base · factor^k)          k = failures before this one
//! wait     = uniform over an interval below delay(k), or around it
//! ```
//!
//! Everything is integer nanoseconds and the factor is a ratio, so `1.6` is exact and a delay is
//! the same on every platform. No interval passes the cap and none has an atom at it: jitter added
//! after the cap passes it (gRPC, by 20 %), and clipping that puts half of a fleet (proportional)
//! or a third of it (AWS's decorrelated form) on one and the same instant. Where the interval would
//! pass the cap it is moved below it, at its full width.
//!
//! Rejected: an iterated floor from the start (1 ns × 3/2 would stay 1 ns for ever), Polly's smooth
//! decorrelated form (transcendental functions for the sake of a prettier histogram) and a stored
//! generator (a draw is the caller's, see [`draw`](crate::draw)).

use crate::draw::uniform;
use crate::error::ConfigError;
use crate::mutant::Mutant;
use crate::ratio::Ratio;
use crate::time::nanos;
use alloc::format;
use core::time::Duration;

/// How chance spreads a delay.
///
/// Source: AWS Architecture Blog, *Exponential Backoff And Jitter*, for full, equal and
/// decorrelated; gRPC's connection backoff for the proportional one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Jitter {
    /// The delay itself: whoever failed together tries again together.
    None,
    /// Uniform over `delay ± r·delay`, moved below the cap where it would pass it: at the cap
    /// `[(1 − 2r)·cap, cap]`. `r` is at most 1/2.
    Proportional(Ratio),
    /// Uniform over `[min_delay, delay]`: the fewest calls for the work done.
    Full,
    /// Uniform over `[delay/2, delay]`: never less than half.
    Equal,
    /// Uniform over `[base, min(cap, 3·previous)]`, where `previous` is the wait before this one.
    ///
    /// The cap bounds the interval and not, as with AWS, the number drawn from it: that form puts
    /// 31 % of all waits exactly at the cap.
    Decorrelated,
}

/// What a backoff is made of.
///
/// Defaults: 1 s, doubling, up to 120 s, full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BackoffConfig {
    /// The delay after the first failure; default 1 s. Zero means no delay at all.
    pub base: Duration,
    /// By what the delay grows; default 2. Exactly 1 (a constant delay), or at least 1.001.
    pub factor: Ratio,
    /// What no wait ever exceeds; default 120 s, at least `base`.
    pub cap: Duration,
    /// The floor of full jitter, at most `base`; `None` (default) is the smaller of `base`/10 and
    /// 100 ms. Zero allows a retry at once.
    pub min_delay: Option<Duration>,
    /// How chance spreads the delay; default [`Jitter::Full`].
    pub jitter: Jitter,
}

/// Source: gRPC `connection-backoff.md` for base and cap, AWS CRT for the factor, the AWS figures
/// for the jitter (fewest calls of all).
impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            factor: Ratio::new(2, 1),
            cap: Duration::from_secs(120),
            min_delay: None,
            jitter: Jitter::Full,
        }
    }
}

impl BackoffConfig {
    /// gRPC's connection backoff: 1 s × 1.6 up to 120 s, ± 20 %, but never beyond the cap.
    ///
    /// Source: gRPC `doc/connection-backoff.md`.
    #[must_use]
    pub fn grpc() -> Self {
        Self {
            factor: Ratio::new(8, 5),
            jitter: Jitter::Proportional(Ratio::percent(20)),
            ..Self::default()
        }
    }

    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// `factor` neither 1 nor in 1.001..=1000000, `cap` below `base`, `min_delay` above `base`, a
    /// proportional jitter above 1/2: each with its field, value and bound.
    pub fn validate(self) -> Result<BackoffPolicy, ConfigError> {
        let Self { base, factor, cap, jitter, .. } = self;
        let (num, den) = (u64::from(factor.numerator), u64::from(factor.denominator));
        if den == 0 || num < den || num > den.saturating_mul(1_000_000) {
            return Err(ConfigError::new(
                "factor",
                format!("is {factor}, must be from 1 to 1000000"),
            ));
        }
        // Between the two a walk to the cap would take too many steps to be bounded in practice.
        if num > den && num * 1000 < den * 1001 {
            return Err(ConfigError::new(
                "factor",
                format!("is {factor}, must be exactly 1 or at least 1001/1000"),
            ));
        }
        if cap < base {
            return Err(ConfigError::new(
                "cap",
                format!("is {cap:?}, must be at least the base, {base:?}"),
            ));
        }
        let min_delay = self.min_delay.unwrap_or((base / 10).min(Duration::from_millis(100)));
        if min_delay > base {
            return Err(ConfigError::new(
                "min_delay",
                format!("is {min_delay:?}, must be at most the base, {base:?}"),
            ));
        }
        if let Jitter::Proportional(share) = jitter {
            let doubled = u64::from(share.numerator) * 2;
            if share.denominator == 0 || doubled > u64::from(share.denominator) {
                return Err(ConfigError::new(
                    "jitter",
                    format!("is proportional by {share}, must be from 0 to 1/2"),
                ));
            }
        }
        let mut policy = BackoffPolicy {
            base_ns: nanos(base),
            factor,
            cap_ns: nanos(cap),
            min_delay_ns: nanos(min_delay),
            jitter,
            capped_from: None,
        };
        policy.capped_from = policy.walk(u32::MAX).0;
        Ok(policy)
    }
}

/// A checked backoff; it has no state, so one serves any number of peers.
///
/// # Examples
///
/// ```
/// use core::time::Duration;
/// use steadfast::backoff::BackoffConfig;
///
/// let policy = BackoffConfig::default().validate().unwrap();
/// assert_eq!(policy.delay(3), Duration::from_secs(8));
/// assert_eq!(policy.delay(u32::MAX), Duration::from_secs(120));
/// let wait = policy.jittered(3, Duration::ZERO, 0x8000_0000_0000_0000);
/// assert_eq!(wait, Duration::from_millis(4_050));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackoffPolicy {
    base_ns: u64,
    factor: Ratio,
    cap_ns: u64,
    min_delay_ns: u64,
    jitter: Jitter,
    /// The first k whose delay is the cap, if there is one.
    capped_from: Option<u32>,
}

impl BackoffPolicy {
    /// The delay without jitter after `k` failures before this one: ⌊base · factor^k⌋, at most the
    /// cap; it never falls as `k` grows.
    ///
    /// Exact while factor^k has a denominator below 2⁶⁴ (for 1.6: up to k = 27), thereafter with
    /// 64 binary places of a nanosecond. O(k) below the cap and O(1) from there on: with the
    /// defaults seven steps at most, with a factor of 1.001 some thousands.
    #[must_use]
    pub fn delay(&self, k: u32) -> Duration {
        Duration::from_nanos(self.delay_ns(k))
    }

    /// The wait after `k` failures before this one, `random` being 64 uniform bits.
    ///
    /// `previous` is the wait before this one and matters to [`Jitter::Decorrelated`] alone; less
    /// than the base (zero, if there was none) counts as the base. The result lies within
    /// [`bounds`](Self::bounds) and reaches both of them.
    #[must_use]
    pub fn jittered(&self, k: u32, previous: Duration, random: u64) -> Duration {
        if Mutant::JitterBeforeCap.lives() {
            let mut uncapped = *self;
            (uncapped.cap_ns, uncapped.capped_from) = (u64::MAX / 4, None);
            let (low, high) = uncapped.bounds_ns(k, previous);
            return Duration::from_nanos(uniform(random, low, high).min(self.cap_ns));
        }
        let (low, high) = self.bounds_ns(k, previous);
        Duration::from_nanos(uniform(random, low, high))
    }

    /// The shortest and the longest wait that [`jittered`](Self::jittered) can return.
    #[must_use]
    pub fn bounds(&self, k: u32, previous: Duration) -> (Duration, Duration) {
        let (low, high) = self.bounds_ns(k, previous);
        (Duration::from_nanos(low), Duration::from_nanos(high))
    }

    /// The same backoff with its cap multiplied, saturating: the slow lane, for failures that are
    /// not expected to pass. 0 counts as 1.
    #[must_use]
    pub fn with_cap_times(&self, times: u32) -> Self {
        let cap_ns = self.cap_ns.saturating_mul(u64::from(times.max(1)));
        let mut slower = Self { cap_ns, ..*self };
        slower.capped_from = slower.walk(u32::MAX).0;
        slower
    }

    /// What no wait exceeds.
    #[must_use]
    pub fn cap(&self) -> Duration {
        Duration::from_nanos(self.cap_ns)
    }

    /// The delay after the first failure.
    #[must_use]
    pub fn base(&self) -> Duration {
        Duration::from_nanos(self.base_ns)
    }

    fn bounds_ns(&self, k: u32, previous: Duration) -> (u64, u64) {
        match self.jitter {
            Jitter::None => {
                let delay = self.delay_ns(k);
                (delay, delay)
            }
            Jitter::Proportional(share) => {
                let delay = self.delay_ns(k);
                let half = share.of(delay);
                let high = delay.saturating_add(half).min(self.cap_ns);
                (high.saturating_sub(half).saturating_sub(half), high)
            }
            Jitter::Full => (self.min_delay_ns, self.delay_ns(k)),
            Jitter::Equal => {
                let delay = self.delay_ns(k);
                (delay / 2, delay)
            }
            Jitter::Decorrelated => {
                let tripled = nanos(previous).max(self.base_ns).saturating_mul(3);
                (self.base_ns, tripled.min(self.cap_ns))
            }
        }
    }

    fn delay_ns(&self, k: u32) -> u64 {
        match self.capped_from {
            Some(first) if k >= first => self.cap_ns,
            _ => self.walk(k).1,
        }
    }

    /// Grows the base up to `k` times, but not beyond the cap: when it got there, and how far.
    fn walk(&self, k: u32) -> (Option<u32>, u64) {
        let (num, den) = (self.factor.numerator, self.factor.denominator);
        if self.base_ns >= self.cap_ns {
            return (Some(0), self.cap_ns);
        }
        if self.base_ns == 0 || num <= den {
            return (None, self.base_ns);
        }
        let mut value = Growing::Exact { over: u128::from(self.base_ns), under: 1 };
        for step in 0..k {
            if value.floor() >= u128::from(self.cap_ns) {
                return (Some(step), self.cap_ns);
            }
            value = value.times(num, den);
        }
        let floor = u64::try_from(value.floor()).unwrap_or(u64::MAX);
        (None, floor.min(self.cap_ns))
    }
}

/// A number of nanoseconds below 2⁶⁴ before each multiplication, and below 2⁸⁴ after it.
#[derive(Clone, Copy)]
enum Growing {
    /// `over / under`, with `under` below 2⁶⁴.
    Exact { over: u128, under: u128 },
    /// Whole nanoseconds and 2⁻⁶⁴ parts.
    Fixed { whole: u128, parts: u128 },
}

impl Growing {
    fn floor(self) -> u128 {
        match self {
            Self::Exact { over, under } => over / under,
            Self::Fixed { whole, .. } => whole,
        }
    }

    fn times(self, num: u32, den: u32) -> Self {
        let (num, den) = (u128::from(num), u128::from(den));
        match self {
            Self::Exact { over, under } => {
                let grown = over.checked_mul(num);
                match (grown, under * den) {
                    (Some(over), under) if under >> 64 == 0 => Self::Exact { over, under },
                    // The remainder is below `under`, so 64 places more still fit.
                    _ => Self::Fixed { whole: over / under, parts: ((over % under) << 64) / under }
                        .times_fixed(num, den),
                }
            }
            Self::Fixed { .. } => self.times_fixed(num, den),
        }
    }

    fn times_fixed(self, num: u128, den: u128) -> Self {
        let Self::Fixed { whole, parts } = self else { return self };
        let grown = whole * num;
        let parts = (((grown % den) << 64) + parts * num) / den;
        Self::Fixed { whole: grown / den + (parts >> 64), parts: parts & u128::from(u64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn policy(jitter: Jitter) -> BackoffPolicy {
        BackoffConfig { jitter, ..Default::default() }.validate().unwrap()
    }

    fn with_factor(base: Duration, factor: Ratio, cap: Duration) -> BackoffPolicy {
        BackoffConfig { base, factor, cap, ..Default::default() }.validate().unwrap()
    }

    #[test]
    fn the_delay_doubles_up_to_the_cap_and_stays_there() {
        let policy = policy(Jitter::None);
        let secs: Vec<_> = (0..9).map(|k| policy.delay(k).as_secs()).collect();
        assert_eq!(secs, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        assert_eq!(policy.delay(u32::MAX), policy.cap());
    }

    #[test]
    fn a_factor_that_binary_cannot_write_is_exact() {
        let policy = with_factor(
            Duration::from_nanos(1_000_000_000),
            Ratio::new(8, 5),
            Duration::from_secs(1_000_000),
        );
        for k in 0..27 {
            let exact = 1_000_000_000 * 8_u128.pow(k) / 5_u128.pow(k);
            assert_eq!(policy.delay(k).as_nanos(), exact, "k = {k}");
        }
    }

    #[test]
    fn what_is_a_whole_number_but_for_the_last_place_is_not_rounded_below_it() {
        let base = 88_834_270_304_976;
        let over = u128::from(base) * 7_u128.pow(24);
        assert_eq!(over % 5_u128.pow(24), 1, "64 binary places would lose this");
        let policy = with_factor(Duration::from_nanos(base), Ratio::new(7, 5), Duration::MAX);
        assert_eq!(policy.delay(24).as_nanos(), over / 5_u128.pow(24));
    }

    #[test]
    fn grpc_grows_by_eight_fifths_and_strays_a_fifth_but_not_beyond_the_cap() {
        let policy = BackoffConfig::grpc().validate().unwrap();
        let bounds = |k| {
            let (low, high) = policy.bounds(k, Duration::ZERO);
            (low.as_millis(), high.as_millis())
        };
        assert_eq!([0, 1, 2].map(bounds), [(800, 1_200), (1_280, 1_920), (2_048, 3_072)]);
        assert_eq!(bounds(11), (72_000, 120_000));
    }

    #[test]
    fn a_base_of_one_nanosecond_still_grows() {
        let policy = with_factor(Duration::from_nanos(1), Ratio::new(3, 2), Duration::MAX);
        assert_eq!(policy.delay(1).as_nanos(), 1);
        assert_eq!(policy.delay(2).as_nanos(), 2);
        assert_eq!(policy.delay(10).as_nanos(), 57);
        // 1.5^100, beyond what is exact.
        assert_eq!(policy.delay(100).as_nanos(), 406_561_177_535_215_237);
        let slow = with_factor(Duration::from_nanos(1), Ratio::new(1001, 1000), Duration::MAX);
        assert_eq!(slow.delay(1_000).as_nanos(), 2);
        assert_eq!(slow.delay(10_000).as_nanos(), 21_916);
    }

    #[test]
    fn extreme_factors_and_counts_end_soon_and_at_the_cap() {
        let ends = [Ratio::new(1001, 1000), Ratio::new(1_000_000, 1), Ratio::new(u32::MAX, 4_295)];
        for factor in ends {
            let policy = with_factor(Duration::from_nanos(1), factor, Duration::MAX);
            assert_eq!(policy.delay(u32::MAX), Duration::from_nanos(u64::MAX), "{factor}");
        }
        let constant =
            with_factor(Duration::from_secs(3), Ratio::new(7, 7), Duration::from_secs(9));
        assert_eq!(constant.delay(u32::MAX), Duration::from_secs(3));
        let none = with_factor(Duration::ZERO, Ratio::new(2, 1), Duration::from_secs(9));
        assert_eq!(none.delay(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn each_jitter_fills_its_interval_from_end_to_end() {
        let ms = Duration::from_millis;
        let spread = |jitter, k, previous| policy(jitter).bounds(k, previous);
        assert_eq!(spread(Jitter::None, 2, ms(0)), (ms(4_000), ms(4_000)));
        assert_eq!(spread(Jitter::Full, 2, ms(0)), (ms(100), ms(4_000)));
        assert_eq!(spread(Jitter::Equal, 2, ms(0)), (ms(2_000), ms(4_000)));
        let tenth = Jitter::Proportional(Ratio::percent(10));
        assert_eq!(spread(tenth, 2, ms(0)), (ms(3_600), ms(4_400)));
        assert_eq!(spread(Jitter::Decorrelated, 9, ms(0)), (ms(1_000), ms(3_000)));
        assert_eq!(spread(Jitter::Decorrelated, 0, ms(2_500)), (ms(1_000), ms(7_500)));
        assert_eq!(spread(Jitter::Decorrelated, 0, ms(60_000)), (ms(1_000), ms(120_000)));
        let full = policy(Jitter::Full);
        assert_eq!(full.jittered(2, ms(0), 0), ms(100));
        assert_eq!(full.jittered(2, ms(0), u64::MAX), ms(4_000));
    }

    #[test]
    fn proportional_jitter_moves_below_the_cap_instead_of_being_clipped() {
        let policy = policy(Jitter::Proportional(Ratio::percent(15)));
        let (low, high) = policy.bounds(20, Duration::ZERO);
        assert_eq!((low, high), (Duration::from_secs(84), Duration::from_secs(120)));
    }

    #[test]
    fn the_slow_lane_goes_on_growing_to_its_own_cap() {
        let slow = policy(Jitter::None).with_cap_times(10);
        assert_eq!(slow.delay(10), Duration::from_secs(1_024));
        assert_eq!(slow.delay(11), Duration::from_secs(1_200));
        assert_eq!(policy(Jitter::None).with_cap_times(0), policy(Jitter::None));
        let huge = with_factor(Duration::from_secs(1), Ratio::new(2, 1), Duration::MAX);
        assert_eq!(huge.with_cap_times(u32::MAX).cap(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let default = BackoffConfig::default();
        let field = |config: BackoffConfig| config.validate().map_err(|e| e.field().to_owned());
        let secs = Duration::from_secs;
        for factor in [
            Ratio::new(1, 0),
            Ratio::new(0, 1),
            Ratio::new(9, 10),
            Ratio::new(10_001, 10_000),
            Ratio::new(1_000_001, 1),
        ] {
            assert_eq!(field(BackoffConfig { factor, ..default }), Err("factor".into()));
        }
        assert_eq!(field(BackoffConfig { cap: secs(0), ..default }), Err("cap".into()));
        let min_delay = Some(secs(2));
        assert_eq!(field(BackoffConfig { min_delay, ..default }), Err("min_delay".into()));
        for share in [Ratio::percent(51), Ratio::new(1, 0), Ratio::new(u32::MAX, u32::MAX)] {
            let jitter = Jitter::Proportional(share);
            assert_eq!(field(BackoffConfig { jitter, ..default }), Err("jitter".into()));
        }
        let error = BackoffConfig { cap: secs(0), ..default }.validate().unwrap_err();
        assert_eq!(error.problem(), "is 0ns, must be at least the base, 1s");
        assert!(BackoffConfig { base: secs(120), ..default }.validate().is_ok());
        let half = Jitter::Proportional(Ratio::new(1, 2));
        assert!(BackoffConfig { jitter: half, ..default }.validate().is_ok());
    }

    #[test]
    fn a_configuration_is_read_with_defaults_and_without_unknown_names() {
        let config: BackoffConfig = serde_json::from_str(r#"{"jitter":"Equal"}"#).unwrap();
        assert_eq!(config, BackoffConfig { jitter: Jitter::Equal, ..Default::default() });
        assert!(serde_json::from_str::<BackoffConfig>(r#"{"jiter":"Equal"}"#).is_err());
    }

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::None),
            (0_u32..=50).prop_map(|percent| Jitter::Proportional(Ratio::percent(percent))),
            Just(Jitter::Full),
            Just(Jitter::Equal),
            Just(Jitter::Decorrelated),
        ]
    }

    proptest! {
        #[test]
        fn a_wait_lies_within_its_bounds_and_below_the_cap(
            base in 0_u64..10_000_000_000,
            more in 0_u64..1_000_000_000_000,
            num in 1001_u32..5000,
            k in prop_oneof![0_u32..40, any::<u32>()],
            jitter in any_jitter(),
            previous in any::<u64>(),
            random in any::<u64>(),
        ) {
            let policy = BackoffConfig {
                base: Duration::from_nanos(base),
                factor: Ratio::new(num, 1000),
                cap: Duration::from_nanos(base + more),
                min_delay: None,
                jitter,
            }
            .validate()
            .unwrap();
            let previous = Duration::from_nanos(previous);
            let (low, high) = policy.bounds(k, previous);
            prop_assert!(low <= high && high <= policy.cap());
            let wait = policy.jittered(k, previous, random);
            prop_assert!(low <= wait && wait <= high);
            prop_assert!(policy.delay(k) <= policy.delay(k.saturating_add(1)));
        }
    }
}
