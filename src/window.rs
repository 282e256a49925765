//! What went wrong lately: outcomes counted over the last N or the last T.
//!
//! A breaker asks for shares ("half of the last hundred calls failed"), so it needs three sums that
//! old outcomes really leave again. Over the last N that is a ring with two bits per outcome. Over
//! the last T it is ten buckets of T/10:
//!
//! ```text
//! index(t) = ⌊(t − start) / (T/10)⌋        an outcome counts while index(now) − index(t) < 10
//! ```
//!
//! An outcome exactly T old no longer counts; as whole buckets leave at once, what counts is the
//! last 9/10·T to T. Reading expires too, without changing anything: after an hour of silence the
//! answer is zero although nothing was recorded.
//!
//! Rejected: a list of timed outcomes (memory grows with traffic), rotating by one bucket per event
//! (after silence old outcomes stay, cockatiel), expiring on record alone (reads lie, Failsafe),
//! running float averages (a lone failure after idling weighs too much).

use crate::time::{Time, nanos};
use alloc::boxed::Box;
use alloc::vec;
use core::time::Duration;

/// How far back a window looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Span {
    /// The last so many outcomes.
    Count(u32),
    /// The outcomes of the last so long.
    Time(Duration),
}

/// The outcomes in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Totals {
    /// All of them.
    pub calls: u32,
    /// Those that failed, slow or not.
    pub failures: u32,
    /// Those that were slow, failed or not.
    pub slow: u32,
    /// Those that failed or were slow; both counts once.
    pub unhealthy: u32,
}

impl Totals {
    fn add(&mut self, failed: bool, slow: bool) {
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failed));
        self.slow = self.slow.saturating_add(u32::from(slow));
        self.unhealthy = self.unhealthy.saturating_add(u32::from(failed || slow));
    }

    /// Counts one outcome, failed or slow, in the place of another.
    fn exchange(&mut self, old: (bool, bool), new: (bool, bool)) {
        let exchange = |count: &mut u32, old: bool, new: bool| {
            *count = count.saturating_add(u32::from(new)).saturating_sub(u32::from(old));
        };
        exchange(&mut self.failures, old.0, new.0);
        exchange(&mut self.slow, old.1, new.1);
        exchange(&mut self.unhealthy, old.0 || old.1, new.0 || new.1);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
            slow: self.slow.saturating_add(other.slow),
            unhealthy: self.unhealthy.saturating_add(other.unhealthy),
        }
    }

    const fn is_possible(&self) -> bool {
        let either = self.failures.saturating_add(self.slow);
        self.unhealthy <= self.calls
            && self.failures <= self.unhealthy
            && self.slow <= self.unhealthy
            && self.unhealthy <= either
    }
}

/// A sliding count of outcomes.
///
/// `now` may be any time; one earlier than the latest recorded counts as that. Memory is two bits
/// per outcome of a [`Span::Count`], or ten buckets; nothing is allocated after [`Window::new`].
///
/// # Examples
///
/// ```
/// use core::time::Duration;
/// use steadfast::Time;
/// use steadfast::window::{Span, Window};
///
/// let mut window = Window::new(Span::Time(Duration::from_secs(10)));
/// window.record(true, false, Time::from_secs(3));
/// assert_eq!(window.totals(Time::from_millis(12_999)).failures, 1);
/// assert_eq!(window.totals(Time::from_secs(13)).failures, 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Window(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Kind {
    Count(Last),
    Time(Buckets),
}

impl Window {
    /// An empty window. A span of zero counts as the smallest: one outcome, or ten nanoseconds.
    #[must_use]
    pub fn new(span: Span) -> Self {
        Self(match span {
            Span::Count(size) => Kind::Count(Last::new(size.max(1))),
            Span::Time(length) => Kind::Time(Buckets::new(width_of(length), Time::ZERO)),
        })
    }

    /// The same with its times relative to `now`.
    pub(crate) fn shape(&mut self, now: Time) {
        if let Kind::Time(buckets) = &mut self.0 {
            buckets.shape(now);
        }
    }

    /// Counts an outcome. O(1); after a silence of a whole time window, ten steps.
    #[inline]
    pub fn record(&mut self, failed: bool, slow: bool, now: Time) {
        match &mut self.0 {
            Kind::Count(last) => last.record(failed, slow),
            Kind::Time(buckets) => buckets.record(failed, slow, now),
        }
    }

    /// What the window holds at `now`. O(1), ten steps for a time window.
    #[must_use]
    pub fn totals(&self, now: Time) -> Totals {
        self.look(now, Totals::clone)
    }

    /// Looks at what the window holds at `now` where it stands: what was just counted is not in
    /// memory yet, and a copy would wait for it.
    #[inline]
    pub(crate) fn look<R>(&self, now: Time, judge: impl FnOnce(&Totals) -> R) -> R {
        match &self.0 {
            Kind::Count(last) => judge(&last.totals),
            Kind::Time(buckets) => judge(&buckets.totals(now)),
        }
    }

    /// Forgets everything; the first bucket of a time window begins at `now`.
    pub fn clear(&mut self, now: Time) {
        match &mut self.0 {
            Kind::Count(last) => last.clear(),
            Kind::Time(buckets) => *buckets = Buckets::new(buckets.width_ns, now),
        }
    }

    /// Whether this window could have arisen with `span`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, span: Span) -> bool {
        match (&self.0, span) {
            (Kind::Count(last), Span::Count(size)) => last.is_valid(size.max(1)),
            (Kind::Time(buckets), Span::Time(length)) => buckets.is_valid(width_of(length)),
            _ => false,
        }
    }
}

/// The last so many outcomes, as a ring of bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Last {
    size: u32,
    /// Where the next outcome goes, over the oldest if the ring is full.
    next: u32,
    totals: Totals,
    /// Outcome i in bits 2·(i mod 32), failed, and the one above it, slow, of word i/32.
    bits: Box<[u64]>,
}

impl Last {
    fn new(size: u32) -> Self {
        let bits = vec![0; words_of(size)].into_boxed_slice();
        Self { size, next: 0, totals: Totals::default(), bits }
    }

    #[inline]
    fn record(&mut self, failed: bool, slow: bool) {
        let shift = self.next % 32 * 2;
        let Some(word) = self.bits.get_mut(self.next as usize / 32) else { return };
        // A place that was never written holds an outcome that was neither.
        let oldest = *word >> shift & 3;
        let outcome = u64::from(failed) | u64::from(slow) << 1;
        *word ^= (oldest ^ outcome) << shift;
        self.next = if self.next + 1 >= self.size { 0 } else { self.next + 1 };
        self.totals.calls += u32::from(self.totals.calls < self.size);
        if oldest != outcome {
            self.totals.exchange((oldest & 1 != 0, oldest & 2 != 0), (failed, slow));
        }
    }

    fn clear(&mut self) {
        self.bits.fill(0);
        self.totals = Totals::default();
        self.next = 0;
    }

    fn recount(&self) -> Totals {
        let mut totals = Totals { calls: self.totals.calls, ..Totals::default() };
        for &word in &self.bits {
            let (failed, slow) = (word & EVEN, word >> 1 & EVEN);
            totals.failures += failed.count_ones();
            totals.slow += slow.count_ones();
            totals.unhealthy += (failed | slow).count_ones();
        }
        totals
    }

    fn is_valid(&self, size: u32) -> bool {
        let calls = self.totals.calls;
        let used = u64::from(calls) * 2;
        self.size == size
            && self.next < size
            && calls <= size
            && (calls == size || self.next == calls)
            && self.bits.len() == words_of(size)
            && self.totals == self.recount()
            && self.bits.iter().zip((0_u64..).step_by(64)).all(|(&word, from)| {
                match used.saturating_sub(from) {
                    64.. => true,
                    bits => word >> bits == 0,
                }
            })
    }
}

const EVEN: u64 = 0x5555_5555_5555_5555;

const fn words_of(size: u32) -> usize {
    size.div_ceil(32) as usize
}

const BUCKETS: u64 = 10;

fn width_of(length: Duration) -> u64 {
    (nanos(length) / BUCKETS).max(1)
}

/// The outcomes of the last ten times `width_ns`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Buckets {
    width_ns: u64,
    start: Time,
    /// The index of the newest bucket; bucket i is in place i mod 10.
    newest: u64,
    buckets: [Totals; 10],
}

impl Buckets {
    fn new(width_ns: u64, start: Time) -> Self {
        Self { width_ns, start, newest: 0, buckets: Default::default() }
    }

    fn index(&self, now: Time) -> u64 {
        let passed = nanos(now.since(self.start));
        let ends = (self.newest.saturating_add(1)).saturating_mul(self.width_ns);
        // Mostly the newest bucket goes on, and a division takes longer than all the rest.
        if passed < ends {
            return self.newest;
        }
        (passed / self.width_ns.max(1)).max(self.newest)
    }

    /// Apart, so that a ring of bits does not pay for what this saves and restores.
    #[inline(never)]
    fn record(&mut self, failed: bool, slow: bool, now: Time) {
        let index = self.index(now);
        if index - self.newest >= BUCKETS {
            self.buckets = Default::default();
        } else {
            for before in self.newest..index {
                if let Some(bucket) = self.buckets.get_mut(place(before + 1)) {
                    *bucket = Totals::default();
                }
            }
        }
        self.newest = index;
        if let Some(bucket) = self.buckets.get_mut(place(index)) {
            bucket.add(failed, slow);
        }
    }

    #[inline(never)]
    fn totals(&self, now: Time) -> Totals {
        let expired = self.index(now) - self.newest;
        if expired == 0 {
            return sum(&self.buckets);
        }
        // The place after the newest holds the oldest, so the last ones here are the newest.
        let (newer, older) = self.buckets.split_at(place(self.newest) + 1);
        let skipped = usize::try_from(expired).unwrap_or(usize::MAX);
        let kept = |buckets: &[Totals], skipped: usize| {
            buckets.get(skipped..).map_or(Totals::default(), sum)
        };
        kept(older, skipped).plus(kept(newer, skipped.saturating_sub(older.len())))
    }

    /// The newest bucket first, and in place of the start how long that one has lasted; if all have
    /// passed, how long the one would have that goes on now.
    fn shape(&mut self, now: Time) {
        let (newest, width_ns) = (self.newest, self.width_ns);
        if self.index(now) - newest >= BUCKETS {
            let lasts = nanos(now.since(self.start)) % width_ns.max(1);
            *self = Self::new(width_ns, Time::from_nanos(lasts));
        } else {
            let began = newest.saturating_mul(width_ns);
            self.start = Time::from_nanos(nanos(now.since(self.start)).saturating_sub(began));
            self.buckets.rotate_left(place(newest));
            self.newest = 0;
        }
    }

    fn is_valid(&self, width_ns: u64) -> bool {
        let reachable = nanos(Time::MAX.since(self.start)) / width_ns;
        self.width_ns == width_ns
            && self.newest <= reachable
            && self.buckets.iter().all(Totals::is_possible)
            // Before the ring has gone round once, the places ahead are empty.
            && (self.newest.saturating_add(1)..BUCKETS)
                .filter_map(|ahead| self.buckets.get(place(ahead)))
                .all(|bucket| *bucket == Totals::default())
    }
}

fn sum(buckets: &[Totals]) -> Totals {
    buckets.iter().fold(Totals::default(), |sum, &bucket| sum.plus(bucket))
}

const fn place(index: u64) -> usize {
    (index % BUCKETS) as usize
}

const RECENT: u64 = 5;

/// How often something happened in the last five seconds, in steps of a second.
///
/// What counts is the current second of the clock and the four before it, so an event counts for
/// four to five seconds. 32 bytes, no allocation.
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::window::Recent;
///
/// let mut losses = Recent::default();
/// losses.record(Time::from_secs(10));
/// assert_eq!(losses.count(Time::from_millis(14_999)), 1);
/// assert_eq!(losses.count(Time::from_secs(15)), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Recent {
    newest: u64,
    seconds: [u32; 5],
}

impl Recent {
    /// Counts one at `now`, or at the latest second seen if that is later.
    pub fn record(&mut self, now: Time) {
        let second = self.second(now);
        for before in (self.newest..second).take(self.seconds.len()) {
            // Clears the places passed over; of a longer silence all five, in whatever order.
            if let Some(count) = self.seconds.get_mut(recent_place(before + 1)) {
                *count = 0;
            }
        }
        self.newest = second;
        if let Some(count) = self.seconds.get_mut(recent_place(second)) {
            *count = count.saturating_add(1);
        }
    }

    /// The newest second first, and in its place how long ago it began; if all have passed, how long
    /// ago the one did that goes on now.
    pub(crate) fn shape(&mut self, now: Time) {
        if self.count(now) == 0 {
            *self = Self { newest: now.as_nanos() % 1_000_000_000, ..Self::default() };
        } else {
            self.seconds.rotate_left(recent_place(self.newest));
            self.newest = nanos(now.since(Time::from_secs(self.newest)));
        }
    }

    /// How many there were in the five seconds that end with the one of `now`.
    #[must_use]
    pub fn count(&self, now: Time) -> u32 {
        let expired = self.second(now) - self.newest;
        if expired == 0 {
            return self.seconds.iter().fold(0, |sum, &count| sum.saturating_add(count));
        }
        (1..=RECENT)
            .map(|after| recent_place(self.newest.wrapping_add(after)))
            .skip(usize::try_from(expired).unwrap_or(usize::MAX))
            .filter_map(|place| self.seconds.get(place))
            .fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Whether this count could have arisen; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.newest <= Time::MAX.as_nanos() / 1_000_000_000
            && (self.newest.saturating_add(1)..RECENT)
                .filter_map(|ahead| self.seconds.get(recent_place(ahead)))
                .all(|&count| count == 0)
    }

    fn second(&self, now: Time) -> u64 {
        (now.as_nanos() / 1_000_000_000).max(self.newest)
    }
}

const fn recent_place(second: u64) -> usize {
    (second % RECENT) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const TEN_SECONDS: Span = Span::Time(Duration::from_secs(10));

    fn totals(calls: u32, failures: u32, slow: u32, unhealthy: u32) -> Totals {
        Totals { calls, failures, slow, unhealthy }
    }

    #[test]
    fn slow_and_failed_counts_in_both_and_once_as_unhealthy() {
        for span in [Span::Count(9), TEN_SECONDS] {
            let mut window = Window::new(span);
            for (failed, slow) in [(true, true), (true, false), (false, true), (false, false)] {
                window.record(failed, slow, Time::ZERO);
            }
            assert_eq!(window.totals(Time::ZERO), totals(4, 2, 2, 3));
        }
    }

    #[test]
    fn the_oldest_outcome_leaves_when_one_too_many_comes() {
        let mut window = Window::new(Span::Count(3));
        for failed in [true, false, false] {
            window.record(failed, false, Time::ZERO);
        }
        assert_eq!(window.totals(Time::MAX), totals(3, 1, 0, 1));
        window.record(false, true, Time::ZERO);
        assert_eq!(window.totals(Time::MAX), totals(3, 0, 1, 1));
    }

    #[test]
    fn an_outcome_exactly_as_old_as_the_window_no_longer_counts() {
        let mut window = Window::new(TEN_SECONDS);
        window.clear(Time::from_millis(500));
        window.record(true, false, Time::from_millis(3_500));
        assert_eq!(window.totals(Time::from_millis(13_499)).calls, 1);
        assert_eq!(window.totals(Time::from_millis(13_500)).calls, 0);
        // The bucket's last moment leaves with its first.
        window.record(true, false, Time::from_millis(24_499));
        assert_eq!(window.totals(Time::from_millis(33_500)).calls, 0);
    }

    #[test]
    fn reading_late_answers_zero_and_changes_nothing() {
        let mut window = Window::new(TEN_SECONDS);
        window.record(true, false, Time::from_secs(1));
        let before = window.clone();
        assert_eq!(window.totals(Time::MAX), Totals::default());
        assert_eq!(window, before);
        assert_eq!(window.totals(Time::from_secs(1)).calls, 1);
    }

    #[test]
    fn a_long_silence_empties_a_time_window_but_not_a_count_window() {
        let fifty_days = Time::from_secs(50 * 86_400);
        let mut window = Window::new(TEN_SECONDS);
        let mut last = Window::new(Span::Count(10));
        for second in 0..10 {
            window.record(true, false, Time::from_secs(second));
            last.record(true, false, Time::from_secs(second));
        }
        window.record(false, false, fifty_days);
        last.record(false, false, fifty_days);
        assert_eq!(window.totals(fifty_days), totals(1, 0, 0, 0));
        assert_eq!(last.totals(fifty_days), totals(10, 9, 0, 9));
    }

    #[test]
    fn a_clock_that_goes_back_counts_as_the_latest_seen() {
        let mut window = Window::new(TEN_SECONDS);
        window.record(true, false, Time::from_secs(100));
        window.record(true, false, Time::from_secs(1));
        assert_eq!(window.totals(Time::ZERO).calls, 2);
        assert_eq!(window.totals(Time::from_secs(109)).calls, 2);
    }

    #[test]
    fn the_end_of_time_and_windows_of_nothing_are_survived() {
        for span in [Span::Count(0), Span::Time(Duration::ZERO), Span::Time(Duration::MAX)] {
            let mut window = Window::new(span);
            window.record(true, true, Time::MAX);
            window.record(true, true, Time::MAX);
            assert!(window.totals(Time::MAX).calls >= 1);
            assert!(window.is_valid(span), "{window:?}");
            window.clear(Time::MAX);
            assert_eq!(window.totals(Time::MAX), Totals::default());
        }
    }

    #[test]
    fn what_could_not_have_arisen_is_not_valid() {
        let span = Span::Count(3);
        let mut window = Window::new(span);
        window.record(true, false, Time::ZERO);
        let json = serde_json::to_string(&window).unwrap();
        let edited = |from: &str, to: &str| {
            assert!(json.contains(from), "{json}");
            serde_json::from_str::<Window>(&json.replace(from, to)).unwrap().is_valid(span)
        };
        assert!(edited("[1]", "[1]"));
        assert!(!edited("[1]", "[0]"));
        assert!(!edited("[1]", "[4]"));
        assert!(!edited("[1]", "[]"));
        assert!(!edited("\"next\":1", "\"next\":3"));
        assert!(!edited("\"calls\":1", "\"calls\":2"));
        assert!(!edited("\"size\":3", "\"size\":4000000000"));
        assert!(!window.is_valid(Span::Count(4)));
        assert!(!window.is_valid(TEN_SECONDS));

        window.record(false, false, Time::ZERO);
        window.record(false, false, Time::ZERO);
        let json = serde_json::to_string(&window).unwrap();
        let goes_on_at = |next: &str| {
            assert!(json.contains("\"next\":0"), "{json}");
            let read = serde_json::from_str::<Window>(&json.replace("\"next\":0", next)).unwrap();
            read.is_valid(span)
        };
        assert!(goes_on_at("\"next\":0") && goes_on_at("\"next\":2"));
        assert!(!goes_on_at("\"next\":3"), "beyond the ring");

        let mut window = Window::new(TEN_SECONDS);
        window.record(true, false, Time::ZERO);
        assert!(window.is_valid(TEN_SECONDS));
        assert!(!window.is_valid(Span::Time(Duration::from_secs(20))));
        let json = serde_json::to_string(&window).unwrap();
        let hostile = json.replace("\"newest\":0", "\"newest\":18446744073709551615");
        let mut hostile: Window = serde_json::from_str(&hostile).unwrap();
        assert!(!hostile.is_valid(TEN_SECONDS));
        hostile.record(true, true, Time::MAX);
        assert!(hostile.totals(Time::MAX).calls > 0);
    }

    #[test]
    fn recent_counts_five_seconds_and_forgets_the_sixth() {
        let mut recent = Recent::default();
        for second in 0..20 {
            recent.record(Time::from_secs(second));
            recent.record(Time::from_secs(second));
        }
        assert_eq!(recent.count(Time::from_secs(19)), 10);
        assert_eq!(recent.count(Time::from_secs(21)), 6);
        assert_eq!(recent.count(Time::from_secs(24)), 0);
        assert_eq!(recent.count(Time::ZERO), 10);
        recent.record(Time::MAX);
        assert_eq!(recent.count(Time::MAX), 1);
        assert!(recent.is_valid());
        let newest = recent.newest + 1;
        assert!(!Recent { newest, ..recent }.is_valid(), "after the end of time");
        assert!(!Recent { newest, seconds: [0; 5] }.is_valid(), "and of nothing");
        let second = Recent { newest: 1, seconds: [7, 7, 0, 0, 0] };
        assert!(second.is_valid());
        assert!(!Recent { newest: 0, ..second }.is_valid(), "counted before it came");
    }

    proptest! {
        #[test]
        fn a_window_equals_a_list_that_is_counted_again(
            size in 1_u32..70,
            steps in proptest::collection::vec((0_u64..40, any::<bool>(), any::<bool>()), 1..300),
        ) {
            let (count, time) = (Span::Count(size), Span::Time(Duration::from_nanos(100)));
            let (mut last, mut window) = (Window::new(count), Window::new(time));
            let mut recent = Recent::default();
            let mut all: Vec<(u64, bool, bool)> = Vec::new();
            let mut now = 0;
            let sum = |outcomes: &[(u64, bool, bool)]| {
                let mut totals = Totals::default();
                outcomes.iter().for_each(|&(_, failed, slow)| totals.add(failed, slow));
                totals
            };
            for (gap, failed, slow) in steps {
                now += if gap > 35 { gap * 10 } else { gap };
                let at = Time::from_nanos(now);
                last.record(failed, slow, at);
                window.record(failed, slow, at);
                recent.record(Time::from_millis(now * 100));
                all.push((now, failed, slow));
                let tail = all.len().saturating_sub(size as usize);
                prop_assert_eq!(last.totals(at), sum(&all[tail..]));
                for later in [now, now + 55, now + 99, now + 100] {
                    let live = all.partition_point(|&(at, ..)| later / 10 - at / 10 >= 10);
                    prop_assert_eq!(window.totals(Time::from_nanos(later)), sum(&all[live..]));
                    let live = all.partition_point(|&(at, ..)| later / 10 - at / 10 >= 5);
                    prop_assert_eq!(
                        recent.count(Time::from_millis(later * 100)) as usize,
                        all.len() - live
                    );
                }
                prop_assert!(last.is_valid(count) && window.is_valid(time) && recent.is_valid());
            }
        }
    }
}
