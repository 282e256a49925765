//! Hedging: ask a second time when the first answer takes unusually long.
//!
//! Most slow answers are slow by bad luck (a queue, a pause, a lost packet), and a second attempt
//! would be fast. Sent after the delay that 95 % of the answers beat, it costs 5 % more requests
//! and cuts off the tail:
//!
//! ```text
//! delay = After(d):                  d
//!         Percentile(share, …):      the latency that `share` of the last 1,000 to 2,000 did not
//!                                    exceed, counted up to a sixteenth too long, never too short
//! ```
//!
//! The percentile follows the server: every 1,000 samples the older half is forgotten. It is worked
//! out again every 64 samples, so reading it costs nothing. What hedges took is not to be among the
//! samples: those that win are the fast ones, and with each the delay would shrink.
//!
//! A hedge is an attempt like a retry, and is to be paid from the same [`budget`](crate::budget):
//! when everything is slow, a percentile of yesterday would double the load.
//!
//! Rejected: a fixed share of the timeout (knows nothing of the server), percentiles over all time
//! (a server that has become slower is hedged for ever), a decaying average (the tail is what counts).
//!
//! Source: Dean and Barroso, *The Tail at Scale* (2013); gRPC A6 for the fixed delay, tower's
//! `hedge` for two histograms that are rotated.

use crate::error::ConfigError;
use crate::histogram::Histogram;
use crate::ratio::Ratio;
use alloc::boxed::Box;
use alloc::format;
use core::mem;
use core::time::Duration;

/// After how many samples the older half is forgotten.
const WINDOW: u32 = 1_000;
/// After how many samples the percentile is worked out again.
const REFRESH: u64 = 64;
/// The most hedges of one call.
const MAX_HEDGES: u32 = 10;

/// After how long without an answer another attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub enum HedgeDelay {
    /// After so long; zero makes all attempts at once.
    After(Duration),
    /// After what a share of the answers did not take longer than.
    Percentile {
        /// The share, above 0 and below 1.
        share: Ratio,
        /// How many answers there must be first; from 1 to 1,000.
        min_samples: u32,
        /// After how long until there are that many.
        before: Duration,
    },
}

/// What hedging is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct HedgeConfig {
    /// When to hedge; default at the 95th percentile of at least 100 answers, after 1 s before.
    pub delay: HedgeDelay,
    /// How often one call is hedged, each after another delay; default 1, from 1 to 10.
    pub max_hedges: u32,
}

/// Source: *The Tail at Scale* for one hedge at the 95th percentile, which costs about 5 %.
impl Default for HedgeConfig {
    fn default() -> Self {
        let (share, before) = (Ratio::percent(95), Duration::from_secs(1));
        Self { delay: HedgeDelay::Percentile { share, min_samples: 100, before }, max_hedges: 1 }
    }
}

impl HedgeConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// A share that is none or all; a `min_samples` or `max_hedges` out of bounds.
    pub fn validate(self) -> Result<HedgePolicy, ConfigError> {
        if let HedgeDelay::Percentile { share, min_samples, .. } = self.delay {
            if share.numerator == 0 || share.is_at_least_one() {
                let problem = format!("is {share}, must be above 0 and below 1");
                return Err(ConfigError::new("delay.share", problem));
            }
            if min_samples == 0 || min_samples > WINDOW {
                let problem = format!("is {min_samples}, must be from 1 to {WINDOW}");
                return Err(ConfigError::new("delay.min_samples", problem));
            }
        }
        if self.max_hedges == 0 || self.max_hedges > MAX_HEDGES {
            let problem = format!("is {}, must be from 1 to {MAX_HEDGES}", self.max_hedges);
            return Err(ConfigError::new("max_hedges", problem));
        }
        Ok(HedgePolicy(self))
    }
}

/// The checked settings of hedging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HedgePolicy(HedgeConfig);

impl HedgePolicy {
    /// How often one call is hedged.
    #[must_use]
    pub const fn max_hedges(&self) -> u32 {
        self.0.max_hedges
    }
}

/// When to hedge: what is known of a server's latency.
///
/// 16 KB with a percentile, allocated once; nothing with a fixed delay.
///
/// # Examples
///
/// ```
/// use core::time::Duration;
/// use steadfast::hedge::{Hedge, HedgeConfig};
///
/// let policy = HedgeConfig::default().validate().unwrap();
/// let mut hedge = Hedge::new(&policy);
/// assert_eq!(hedge.delay(&policy), Duration::from_secs(1));
/// (1..=100).for_each(|millis| hedge.record(&policy, Duration::from_millis(millis)));
/// assert!((95..=100).contains(&hedge.delay(&policy).as_millis()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Hedge {
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    seen: Option<Box<Seen>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Seen {
    /// The samples since the last rotation.
    current: Histogram,
    /// The same, and the 1,000 before it.
    recent: Histogram,
    /// The percentile of `recent` as it was lately; `None` while there are too few.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    delay: Option<Duration>,
}

impl Hedge {
    /// Nothing known.
    #[must_use]
    pub fn new(policy: &HedgePolicy) -> Self {
        let seen = match policy.0.delay {
            HedgeDelay::After(_) => None,
            HedgeDelay::Percentile { .. } => {
                let (current, recent) = (Histogram::new(), Histogram::new());
                Some(Box::new(Seen { current, recent, delay: None }))
            }
        };
        Self { seen }
    }

    /// Counts how long the answer to an attempt that is no hedge took, or how long it had taken when a
    /// hedge was faster. O(1); O(976) every 64 samples.
    pub fn record(&mut self, policy: &HedgePolicy, took: Duration) {
        let HedgeDelay::Percentile { share, min_samples, .. } = policy.0.delay else { return };
        let Some(seen) = &mut self.seen else { return };
        seen.current.record(took);
        seen.recent.record(took);
        let full = seen.current.count() >= u64::from(WINDOW);
        if full {
            // What is current becomes all that is recent, and what was before is gone.
            mem::swap(&mut seen.current, &mut seen.recent);
            seen.current.clear();
        }
        let samples = seen.recent.count();
        let enough = u64::from(min_samples);
        if samples >= enough && (samples == enough || full || samples % REFRESH == 0) {
            seen.delay = Some(seen.recent.quantile(share));
        }
    }

    /// After how long without an answer another attempt is to be made. O(1).
    #[must_use]
    pub fn delay(&self, policy: &HedgePolicy) -> Duration {
        match policy.0.delay {
            HedgeDelay::After(delay) => delay,
            HedgeDelay::Percentile { before, .. } => {
                self.seen.as_ref().and_then(|seen| seen.delay).unwrap_or(before)
            }
        }
    }

    /// Whether this state could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, policy: &HedgePolicy) -> bool {
        match (&self.seen, policy.0.delay) {
            (None, HedgeDelay::After(_)) => true,
            (Some(seen), HedgeDelay::Percentile { min_samples, .. }) => {
                let (current, recent) = (seen.current.count(), seen.recent.count());
                let whole = match recent.checked_sub(current) {
                    Some(0) => seen.current == seen.recent,
                    Some(before) => before == u64::from(WINDOW),
                    None => false,
                };
                let known = seen.delay.is_none_or(|delay| delay <= seen.recent.max());
                let enough = recent >= u64::from(min_samples);
                whole && current < u64::from(WINDOW) && known && seen.delay.is_some() == enough
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn policy(min_samples: u32) -> HedgePolicy {
        let delay =
            HedgeDelay::Percentile { share: Ratio::percent(50), min_samples, before: ms(7) };
        HedgeConfig { delay, ..Default::default() }.validate().unwrap()
    }

    #[test]
    fn a_fixed_delay_learns_nothing_and_allocates_nothing() {
        let delay = HedgeDelay::After(ms(10));
        let policy = HedgeConfig { delay, max_hedges: 2 }.validate().unwrap();
        let mut hedge = Hedge::new(&policy);
        hedge.record(&policy, ms(500));
        assert_eq!((hedge.delay(&policy), policy.max_hedges()), (ms(10), 2));
        assert!(hedge.seen.is_none() && hedge.is_valid(&policy));
    }

    #[test]
    fn the_percentile_counts_from_the_first_moment_there_are_enough() {
        let policy = policy(3);
        let mut hedge = Hedge::new(&policy);
        for millis in [100, 200] {
            hedge.record(&policy, ms(millis));
            assert_eq!(hedge.delay(&policy), ms(7));
        }
        hedge.record(&policy, ms(300));
        assert!((200..=213).contains(&hedge.delay(&policy).as_millis()));
        assert!(hedge.is_valid(&policy));
    }

    #[test]
    fn it_follows_a_server_that_has_become_slower_and_forgets_how_it_was() {
        let policy = policy(100);
        let mut hedge = Hedge::new(&policy);
        let near = |hedge: &Hedge, millis| {
            let delay = hedge.delay(&policy);
            assert!(delay >= ms(millis) && delay <= ms(millis) * 17 / 16, "{delay:?}");
        };
        (0..1_500).for_each(|_| hedge.record(&policy, ms(10)));
        near(&hedge, 10);
        // Half of what is recent is not yet slow, then more than half is.
        (0..400).for_each(|_| hedge.record(&policy, ms(1_000)));
        near(&hedge, 10);
        (0..600).for_each(|_| hedge.record(&policy, ms(1_000)));
        near(&hedge, 1_000);
        // And back: with the second rotation nothing is left of the slow ones.
        let longest = |hedge: &Hedge| hedge.seen.as_ref().unwrap().recent.max();
        (0..1_499).for_each(|_| hedge.record(&policy, ms(10)));
        assert_eq!(longest(&hedge), ms(1_000));
        hedge.record(&policy, ms(10));
        assert_eq!(longest(&hedge), ms(10));
    }

    #[test]
    fn the_percentile_is_worked_out_again_every_64_samples_and_at_a_rotation() {
        let policy = policy(70);
        let mut hedge = Hedge::new(&policy);
        let mut changes = Vec::new();
        for sample in 1..=1_100 {
            let before = hedge.delay(&policy);
            // Ever longer, and twice as long after twenty: no percentile is what it was.
            hedge.record(&policy, Duration::from_nanos((20 + sample % 20) << (sample / 20)));
            let seen = hedge.seen.as_ref().unwrap();
            let percentile = seen.recent.quantile(Ratio::percent(50));
            if hedge.delay(&policy) != before {
                assert_eq!(hedge.delay(&policy), percentile, "{sample}");
                changes.push(sample);
            }
        }
        let due =
            [70, 128].into_iter().chain((192..1_000).step_by(64)).chain([1_000, 1_024, 1_088]);
        assert_eq!(changes, due.collect::<Vec<_>>());
    }

    #[test]
    fn the_cached_percentile_is_never_older_than_64_samples() {
        let policy = policy(1);
        let mut hedge = Hedge::new(&policy);
        let mut changed_at = 0;
        for sample in 1..5_000 {
            let before = hedge.delay(&policy);
            hedge.record(&policy, Duration::from_nanos(sample << 20));
            if hedge.delay(&policy) != before {
                changed_at = sample;
            }
            // The values double their bucket's width slowly; a sixteenth of those there are.
            assert!(sample - changed_at <= 64 + sample / 8, "{sample}");
            assert!(hedge.is_valid(&policy), "{sample}");
        }
    }

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let field = |config: HedgeConfig| config.validate().map_err(|e| e.field().to_owned());
        for max_hedges in [0, 11] {
            let config = HedgeConfig { max_hedges, ..Default::default() };
            assert_eq!(field(config), Err("max_hedges".into()));
        }
        let percentile = |share, min_samples| HedgeConfig {
            delay: HedgeDelay::Percentile { share, min_samples, before: ms(1) },
            ..Default::default()
        };
        for share in [Ratio::new(0, 1), Ratio::new(1, 1), Ratio::new(1, 0)] {
            assert_eq!(field(percentile(share, 1)), Err("delay.share".into()));
        }
        for min_samples in [0, 1_001] {
            let config = percentile(Ratio::percent(99), min_samples);
            assert_eq!(field(config), Err("delay.min_samples".into()));
        }
        for min_samples in [1, 1_000] {
            assert!(field(percentile(Ratio::percent(99), min_samples)).is_ok());
        }
        for max_hedges in [1, 10] {
            assert!(field(HedgeConfig { max_hedges, ..Default::default() }).is_ok());
        }
        let at_once = HedgeDelay::After(Duration::ZERO);
        assert!(field(HedgeConfig { delay: at_once, ..Default::default() }).is_ok());
    }

    #[test]
    fn what_could_not_have_arisen_is_not_valid() {
        let policy = policy(2);
        let mut hedge = Hedge::new(&policy);
        (0..2).for_each(|_| hedge.record(&policy, Duration::from_nanos(3)));
        let json = serde_json::to_string(&hedge).unwrap();
        assert_eq!(serde_json::from_str::<Hedge>(&json).unwrap(), hedge);
        for (from, to) in [
            ("\"nanos\":3", "\"nanos\":4"),
            ("{\"secs\":0,\"nanos\":3}", "null"),
            ("\"current\":{\"sum_ns\":6", "\"current\":{\"sum_ns\":7"),
            (
                "\"recent\":{\"sum_ns\":6,\"longest_ns\":3,\"counts\":[[3,2]]}",
                "\"recent\":{\"sum_ns\":3,\"longest_ns\":3,\"counts\":[[3,1]]}",
            ),
        ] {
            assert!(json.contains(from), "{json}");
            let hostile = serde_json::from_str::<Hedge>(&json.replace(from, to));
            assert!(!hostile.is_ok_and(|hostile| hostile.is_valid(&policy)), "{to}");
        }
        // So many since the last rotation, so many in all, and a percentile.
        let counted = |current: u32, recent: u32, delay: Option<u32>| {
            let histogram = |count: u32| match count {
                0 => String::from(r#"{"sum_ns":0,"longest_ns":0,"counts":[]}"#),
                _ => format!(
                    r#"{{"sum_ns":{0},"longest_ns":3,"counts":[[3,{1}]]}}"#,
                    3 * count,
                    count
                ),
            };
            let delay = match delay {
                Some(nanos) => format!(r#"{{"secs":0,"nanos":{nanos}}}"#),
                None => "null".into(),
            };
            let (current, recent) = (histogram(current), histogram(recent));
            let text =
                format!(r#"{{"seen":{{"current":{current},"recent":{recent},"delay":{delay}}}}}"#);
            serde_json::from_str::<Hedge>(&text).unwrap().is_valid(&policy)
        };
        assert!(counted(0, 0, None) && counted(1, 1, None) && counted(2, 2, Some(3)));
        assert!(counted(999, 999, Some(3)) && counted(0, 1_000, Some(3)));
        assert!(counted(999, 1_999, Some(2)));
        assert!(!counted(1, 1, Some(3)), "too early");
        assert!(!counted(2, 2, None), "too late");
        assert!(!counted(2, 2, Some(4)), "longer than any");
        assert!(!counted(2, 3, Some(3)), "one from before a rotation");
        assert!(!counted(3, 2, Some(3)), "more lately than in all");
        assert!(!counted(1_000, 1_000, Some(3)), "not rotated");
        assert!(!counted(1_000, 2_000, Some(3)), "not rotated");
        let fixed = HedgeConfig { delay: HedgeDelay::After(ms(1)), ..Default::default() };
        assert!(!hedge.is_valid(&fixed.validate().unwrap()));
    }
}
