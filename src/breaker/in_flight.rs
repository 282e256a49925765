//! The work that is out behind a closed breaker, so that what hangs counts before it ends.
//!
//! Work begins in the order of time and is slow after the same span, so it becomes slow in the order
//! in which it began: a queue of moments, the first of which is the next. What ends before its
//! moment leaves the queue from where it stands; what has become slow has left it in its turn, and is
//! known by a number below those in it.

use crate::container::queue::Queue;
use crate::time::Time;

/// No work is slow before.
const SOONEST: Time = Time::from_nanos(1);

/// What was known of work that has ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was out and had not become slow.
    InTime,
    /// It had become slow, and that was counted.
    Slow,
    /// It had ended before, or never begun.
    Unknown,
}

/// When each unit of work that is out becomes slow: 24 bytes for each of at most twice as many as
/// have been out at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(super) struct InFlight {
    /// In order of time.
    slow_at: Queue<Time>,
    /// Before this nothing is judged.
    hold_until: Time,
}

impl InFlight {
    /// Notes work that becomes slow then, and numbers it. Apart, so that where nothing is watched
    /// nothing is paid for it.
    #[inline(never)]
    pub(super) fn begin(&mut self, slow_at: Time) -> u64 {
        let last = self.slow_at.back().copied().unwrap_or(SOONEST);
        // Never before its predecessor, should the clock have gone back.
        self.slow_at.push(slow_at.max(last).max(SOONEST))
    }

    /// Strikes out work that has ended. O(log n), amortised.
    pub(super) fn end(&mut self, number: u64) -> Ended {
        if number < self.slow_at.turn() {
            Ended::Slow
        } else if self.slow_at.remove(number) {
            Ended::InTime
        } else {
            Ended::Unknown
        }
    }

    /// Lets go of the first that is slow by now; whether there was one. O(1), amortised.
    pub(super) fn take_slow(&mut self, now: Time) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now) && self.slow_at.pop().is_some()
    }

    /// Lets go of all that become slow by then, as if that had been counted.
    pub(super) fn excuse(&mut self, slow_at: Time) {
        while self.slow_at.front().is_some_and(|front| *front <= slow_at) {
            self.slow_at.pop();
        }
    }

    /// When the next one is to be judged; `None` if that is never.
    pub(super) fn deadline(&self) -> Option<Time> {
        let slow_at = self.slow_at.front()?.max(&self.hold_until);
        (*slow_at < Time::MAX).then_some(*slow_at)
    }

    pub(super) fn hold(&mut self, until: Time) {
        self.hold_until = self.hold_until.max(until);
    }

    /// Forgets all that is out; the memory is kept.
    pub(super) fn clear(&mut self) {
        self.slow_at.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slow_at.is_empty()
    }

    pub(super) fn is_valid(&self) -> bool {
        self.slow_at.is_valid()
            && self.slow_at.front().is_none_or(|front| *front >= SOONEST)
            && self.slow_at.iter().is_sorted_by_key(|(_, slow_at)| *slow_at)
    }

    /// The same with its times relative to `now`, and its numbers to the first.
    pub(super) fn shape(&mut self, now: Time) {
        self.slow_at.shape(|slow_at| *slow_at = slow_at.ahead_of(now).plus_nanos(1));
        self.hold_until = self.hold_until.ahead_of(now);
    }

    /// A number as it is told from others: by its place in the queue, or as that of slow work. O(n).
    pub(super) fn shape_of(&self, number: u64) -> u64 {
        let before = self.slow_at.iter().take_while(|(other, _)| *other <= number);
        before.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn the_next_to_be_slow_is_the_first_still_out() {
        let mut out = InFlight::default();
        assert_eq!([10, 20, 30, 40].map(|nanos| out.begin(at(nanos))), [0, 1, 2, 3]);
        assert_eq!((out.end(1), out.deadline()), (Ended::InTime, Some(at(10))));
        assert_eq!((out.end(0), out.deadline()), (Ended::InTime, Some(at(30))));
        assert!(!out.take_slow(at(29)) && out.take_slow(at(30)) && !out.take_slow(at(30)));
        assert_eq!(
            [2, 3, 3, 9].map(|n| out.end(n)),
            [Ended::Slow, Ended::InTime, Ended::Slow, Ended::Unknown]
        );
        assert_eq!((out.deadline(), out.begin(at(50))), (None, 4));
    }

    #[test]
    fn what_ends_twice_in_its_place_is_known_once() {
        let mut out = InFlight::default();
        let numbers = [10, 20].map(|nanos| out.begin(at(nanos)));
        assert_eq!(out.end(numbers[1]), Ended::InTime);
        let before = out.clone();
        assert_eq!(out.end(numbers[1]), Ended::Unknown);
        assert_eq!(out, before);
    }

    #[test]
    fn a_clock_that_goes_back_and_the_ends_of_time_keep_the_order() {
        let mut out = InFlight::default();
        let late = out.begin(at(20));
        out.begin(at(5));
        assert!(out.is_valid());
        assert_eq!((out.end(late), out.deadline()), (Ended::InTime, Some(at(20))));
        let mut out = InFlight::default();
        let epoch = out.begin(Time::ZERO);
        out.begin(Time::MAX);
        assert_eq!((out.deadline(), out.end(epoch)), (Some(at(1)), Ended::InTime));
        assert_eq!(out.deadline(), None, "never");
        assert!(!out.take_slow(Time::MAX) && out.is_valid());
    }

    #[test]
    fn a_million_out_become_slow_in_their_turn() {
        let mut out = InFlight::default();
        for begun in 1..=1_000_000 {
            out.begin(at(begun));
        }
        for begun in 1_000_001..3_000_000 {
            assert!(out.take_slow(at(begun - 1_000_000)));
            out.begin(at(begun));
            assert_eq!(out.deadline(), Some(at(begun - 999_999)));
        }
        assert_eq!(out.slow_at.len(), 1_000_000);
    }

    #[test]
    fn what_ends_behind_one_that_hangs_is_forgotten() {
        let mut out = InFlight::default();
        let hangs = out.begin(at(5));
        for moment in 6..1_000 {
            let number = out.begin(at(moment));
            assert_eq!((out.end(number), out.end(number)), (Ended::InTime, Ended::Unknown));
            assert!(out.is_valid() && out.shape_of(hangs) == 1);
        }
        assert_eq!((out.slow_at.len(), out.deadline()), (1, Some(at(5))));
    }
}
