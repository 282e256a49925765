//! Durations counted in fixed memory, to within a sixteenth.
//!
//! A percentile needs all values, and there are too many of them; but nobody cares whether it is
//! 103 ms or 105 ms. So each power of two of nanoseconds is cut into sixteen buckets of equal
//! width, and values are counted per bucket:
//!
//! ```text
//! v < 16:          bucket v, exact
//! 2^e ≤ v < 2^e+1: bucket 16·(e − 3) + ⌊v / 2^(e−4)⌋ mod 16, of width 2^(e−4) ≤ v/16
//! ```
//!
//! 976 buckets hold everything from a nanosecond to 584 years. The sum is kept exactly, so the mean
//! is exact; so is the longest. Two histograms merge by addition, without any further error.
//!
//! Rejected: a sample of the values (the tail is what is wanted), t-digest and P² (floats, and what
//! they answer depends on the order), adjustable precision (nobody has asked for it).
//!
//! Source: Gil Tene's `HdrHistogram`, with four bits of precision.

use crate::ratio::Ratio;
use crate::time::nanos;
use alloc::boxed::Box;
use alloc::vec;
#[cfg(feature = "serde")]
use alloc::vec::Vec;
use core::time::Duration;

/// Buckets in a power of two, as a power of two.
const BITS: u32 = 4;
/// 16 exact ones, and 16 for each of the powers 4 to 63.
const BUCKETS: usize = 976;

/// A count of durations; 8 KB, allocated once.
///
/// # Examples
///
/// ```
/// use core::time::Duration;
/// use steadfast::{Ratio, histogram::Histogram};
///
/// let mut latencies = Histogram::new();
/// for millis in 1..=100 {
///     latencies.record(Duration::from_millis(millis));
/// }
/// let p90 = latencies.quantile(Ratio::percent(90)).as_millis();
/// assert!((90..=95).contains(&p90));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "Sparse", try_from = "Sparse"))]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum_ns: u128,
    longest_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let counts = vec![0; BUCKETS].into_boxed_slice();
        Self { counts, count: 0, sum_ns: 0, longest_ns: 0 }
    }

    /// Counts a duration; one beyond 584 years as that. O(1), no allocation.
    pub fn record(&mut self, span: Duration) {
        let span = nanos(span);
        if let Some(count) = self.counts.get_mut(bucket_of(span)) {
            *count = count.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.sum_ns = self.sum_ns.saturating_add(u128::from(span));
        self.longest_ns = self.longest_ns.max(span);
    }

    /// How many were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly; zero if there is none.
    #[must_use]
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.longest_ns)
    }

    /// The mean, rounded down to a nanosecond; zero if there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let mean = self.sum_ns.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The shortest duration that at least this share did not exceed; zero if there is none.
    ///
    /// Never less than the true one and less than 1/16 more. A share of 0 asks for the shortest
    /// of all, one of 1 or more (or without a denominator) for the longest. O(976).
    #[must_use]
    pub fn quantile(&self, share: Ratio) -> Duration {
        let part = u128::from(self.count) * u128::from(share.numerator);
        let rank = match share.denominator {
            0 => u128::from(self.count),
            denominator => part.div_ceil(u128::from(denominator)).max(1),
        };
        let mut passed = 0_u128;
        for (bucket, &count) in self.counts.iter().enumerate() {
            passed += u128::from(count);
            if passed >= rank {
                return Duration::from_nanos(bounds_of(bucket).1.min(self.longest_ns));
            }
        }
        self.max()
    }

    /// The buckets that are not empty, in order: the longest duration that each counts, and how many
    /// it has counted. For other histograms to take over; O(976).
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + use<'_> {
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(bucket, &count)| (Duration::from_nanos(bounds_of(bucket).1), count))
    }

    /// Counts what the other has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.count = self.count.saturating_add(other.count);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }

    /// Forgets everything; its memory is kept.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.sum_ns, self.longest_ns) = (0, 0, 0);
    }

    /// Whether its sums agree with its buckets. One that was read from outside has been checked.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let (mut count, mut least, mut most) = (0_u128, 0_u128, 0_u128);
        let mut top = (0, 0);
        for (bucket, &inside) in self.counts.iter().enumerate().filter(|(_, inside)| **inside > 0) {
            top = bounds_of(bucket);
            count += u128::from(inside);
            least = least.saturating_add(u128::from(inside) * u128::from(top.0));
            most = most.saturating_add(u128::from(inside) * u128::from(top.1));
        }
        count == u128::from(self.count)
            && (least..=most).contains(&self.sum_ns)
            && (top.0..=top.1).contains(&self.longest_ns)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most 975")]
const fn bucket_of(nanos: u64) -> usize {
    match nanos.checked_ilog2() {
        None | Some(0..BITS) => nanos as usize,
        Some(power) => {
            let sixteenth = nanos >> (power - BITS);
            (((power - BITS) as u64) << BITS) as usize + sixteenth as usize
        }
    }
}

/// The least and the greatest that a bucket counts.
const fn bounds_of(bucket: usize) -> (u64, u64) {
    let group = bucket as u64 >> BITS;
    let sixteenth = bucket as u64 & 15;
    if group == 0 {
        return (sixteenth, sixteenth);
    }
    let shift = group - 1;
    let low = (16 + sixteenth) << shift;
    (low, low + ((1 << shift) - 1))
}

/// How it is written: the buckets that are not empty, in order.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Sparse {
    sum_ns: u128,
    longest_ns: u64,
    counts: Vec<(u16, u64)>,
}

#[cfg(feature = "serde")]
impl From<Histogram> for Sparse {
    fn from(from: Histogram) -> Self {
        let counts = (0_u16..).zip(from.counts).filter(|(_, count)| *count > 0).collect();
        Self { sum_ns: from.sum_ns, longest_ns: from.longest_ns, counts }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Sparse> for Histogram {
    type Error = &'static str;

    fn try_from(from: Sparse) -> Result<Self, &'static str> {
        let mut histogram = Self::new();
        let mut last = None;
        for (bucket, count) in from.counts {
            if count == 0 || last.is_some_and(|last| last >= bucket) {
                return Err("the buckets of a histogram must be in order and not empty");
            }
            last = Some(bucket);
            *histogram
                .counts
                .get_mut(usize::from(bucket))
                .ok_or("a histogram has 976 buckets")? = count;
            histogram.count =
                histogram.count.checked_add(count).ok_or("a histogram counts below 2^64")?;
        }
        histogram.sum_ns = from.sum_ns;
        histogram.longest_ns = from.longest_ns;
        if histogram.is_valid() {
            Ok(histogram)
        } else {
            Err("the sum and the longest of a histogram must agree with its buckets")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn of(spans: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        spans.iter().for_each(|&span| histogram.record(Duration::from_nanos(span)));
        histogram
    }

    #[test]
    fn the_buckets_join_without_gap_or_overlap_and_reach_the_end() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, high) = bounds_of(bucket);
            assert_eq!(low, next, "bucket {bucket}");
            assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
            assert!((high - low) * 16 <= low, "within a sixteenth");
            next = high.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the last number");
    }

    #[test]
    fn an_empty_one_answers_zero() {
        let empty = Histogram::default();
        assert_eq!(empty.quantile(Ratio::percent(50)), Duration::ZERO);
        assert_eq!((empty.mean(), empty.max(), empty.count()), (Duration::ZERO, Duration::ZERO, 0));
        assert!(empty.is_valid());
        for share in [Ratio::new(0, 1), Ratio::new(1, 1), Ratio::new(1, 0), Ratio::new(0, 0)] {
            assert_eq!(empty.quantile(share), Duration::ZERO);
        }
        let mut cleared = of(&[1, 2, 3_000]);
        cleared.clear();
        assert_eq!(cleared, empty);
    }

    #[test]
    fn the_shares_at_the_ends_are_the_shortest_and_the_longest() {
        let histogram = of(&[3, 7, 1_000]);
        assert_eq!(histogram.quantile(Ratio::new(0, 1)), Duration::from_nanos(3));
        for all in [Ratio::new(1, 1), Ratio::new(7, 1), Ratio::new(0, 0), Ratio::new(5, 0)] {
            assert_eq!(histogram.quantile(all), Duration::from_nanos(1_000));
        }
        assert_eq!(histogram.quantile(Ratio::new(1, 3)), Duration::from_nanos(3));
        assert_eq!(histogram.quantile(Ratio::new(34, 100)), Duration::from_nanos(7));
    }

    #[test]
    fn its_buckets_are_listed_in_order_with_the_longest_that_each_counts() {
        let listed: Vec<_> = of(&[100, 3, 3, 101]).buckets().collect();
        assert_eq!(listed, [(Duration::from_nanos(3), 2), (Duration::from_nanos(103), 2)]);
        assert_eq!(of(&[]).buckets().count(), 0);
    }

    #[test]
    fn the_longest_span_there_is_can_be_counted() {
        let mut histogram = of(&[u64::MAX]);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(Ratio::percent(50)), Duration::from_nanos(u64::MAX));
        assert_eq!(histogram.mean(), Duration::from_nanos(u64::MAX));
        assert!(histogram.is_valid());
    }

    #[test]
    fn it_is_written_sparsely_and_hostile_texts_are_refused() {
        let histogram = of(&[3, 3, 20]);
        let json = serde_json::to_string(&histogram).unwrap();
        assert_eq!(json, r#"{"sum_ns":26,"longest_ns":20,"counts":[[3,2],[20,1]]}"#);
        assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram);
        for (from, to) in [
            ("[20,1]", "[976,1]"),
            ("[20,1]", "[3,1]"),
            ("[20,1]", "[2,1]"),
            ("[20,1]", "[20,0]"),
            ("[20,1]", "[20,18446744073709551615]"),
            ("\"sum_ns\":26", "\"sum_ns\":27"),
            ("\"longest_ns\":20", "\"longest_ns\":21"),
            // Of the right sums all the same.
            ("[[3,2],[20,1]]", "[[20,1],[3,2]]"),
            ("[[3,2],[20,1]]", "[[3,2],[4,0],[20,1]]"),
        ] {
            assert!(json.contains(from));
            assert!(serde_json::from_str::<Histogram>(&json.replace(from, to)).is_err(), "{to}");
        }
    }

    proptest! {
        #[test]
        fn it_answers_as_a_sorted_list_would_to_within_a_sixteenth(
            shifts in proptest::collection::vec((any::<u64>(), 0_u32..64), 1..200),
            cut in any::<prop::sample::Index>(),
            share in 0_u32..=1_000,
        ) {
            let mut spans: Vec<u64> = shifts.iter().map(|(n, shift)| n >> shift).collect();
            let (one, other) = spans.split_at(cut.index(spans.len()));
            let mut histogram = of(one);
            histogram.merge(&of(other));
            prop_assert_eq!(&histogram, &of(&spans));
            prop_assert!(histogram.is_valid());
            spans.sort_unstable();
            let rank = (spans.len() * share as usize).div_ceil(1_000).max(1);
            let exact = spans[rank - 1];
            let answer = nanos(histogram.quantile(Ratio::new(share, 1_000)));
            prop_assert!(exact <= answer && answer - exact <= exact / 16);
            let sum: u128 = spans.iter().map(|&span| u128::from(span)).sum();
            let mean = u128::from(nanos(histogram.mean()));
            prop_assert_eq!(mean, sum / spans.len() as u128);
            let json = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), histogram);
        }
    }
}
