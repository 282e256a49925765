//! The work that is out behind a closed breaker, so that what hangs counts before it ends.
//!
//! Work begins in the order of time and is slow after the same span, so it becomes slow in the order
//! in which it began: a queue of moments, the first of which is the next. What ends before its
//! moment is struck out where it stands; what has become slow has left the queue, and is known by a
//! number below those in it. Each place is written twice and read once, whatever is in flight.

use crate::time::Time;
use alloc::collections::VecDeque;

/// The moment of what has ended: no work is slow at the epoch.
const ENDED: Time = Time::ZERO;

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

/// When each unit of work that is out becomes slow; 8 bytes for each that began lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(super) struct InFlight {
    /// By number, the first still out; in order of time but for those that have ended.
    slow_at: VecDeque<Time>,
    /// The number of the first.
    first: u64,
    /// Before this nothing is judged.
    hold_until: Time,
}

impl InFlight {
    /// Notes work that becomes slow then, and numbers it.
    pub(super) fn begin(&mut self, slow_at: Time) -> u64 {
        let number = self.first.saturating_add(self.slow_at.len() as u64);
        let last = self.slow_at.back().copied().unwrap_or(ENDED);
        // Never before its predecessor, should the clock have gone back.
        self.slow_at.push_back(slow_at.max(last).max(ENDED.plus_nanos(1)));
        number
    }

    /// Strikes out work that has ended. O(1), amortised.
    pub(super) fn end(&mut self, number: u64) -> Ended {
        let Some(at) = number.checked_sub(self.first) else { return Ended::Slow };
        let place = usize::try_from(at).ok().and_then(|at| self.slow_at.get_mut(at));
        match place {
            Some(slow_at) if *slow_at != ENDED => *slow_at = ENDED,
            _ => return Ended::Unknown,
        }
        self.skip_ended();
        Ended::InTime
    }

    /// Lets go of the first that is slow by now; whether there was one. O(1), amortised.
    pub(super) fn take_slow(&mut self, now: Time) -> bool {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return false;
        }
        self.slow_at.pop_front();
        self.first = self.first.saturating_add(1);
        self.skip_ended();
        true
    }

    /// Lets go of all that become slow by then, as if that had been counted.
    pub(super) fn excuse(&mut self, slow_at: Time) {
        while self.slow_at.front().is_some_and(|front| *front <= slow_at) {
            self.slow_at.pop_front();
            self.first = self.first.saturating_add(1);
            self.skip_ended();
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
        self.first = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slow_at.is_empty()
    }

    pub(super) fn is_valid(&self) -> bool {
        self.slow_at.front() != Some(&ENDED)
            && self.slow_at.iter().filter(|slow_at| **slow_at != ENDED).is_sorted()
            // More than anybody can use up; it leaves room to go on.
            && self.first <= u64::MAX / 2
    }

    /// The same with its times relative to `now`, and its numbers to the first.
    pub(super) fn shape(&mut self, now: Time) {
        for slow_at in self.slow_at.iter_mut().filter(|slow_at| **slow_at != ENDED) {
            *slow_at = slow_at.ahead_of(now).plus_nanos(1);
        }
        self.first = 0;
        self.hold_until = self.hold_until.ahead_of(now);
    }

    /// A number as it is told from others: by its place, or as that of slow work.
    pub(super) fn shape_of(&self, number: u64) -> u64 {
        number.checked_sub(self.first).map_or(0, |place| place.saturating_add(1))
    }

    fn skip_ended(&mut self) {
        while self.slow_at.front() == Some(&ENDED) {
            self.slow_at.pop_front();
            self.first = self.first.saturating_add(1);
        }
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
    fn a_million_out_are_each_written_once_and_then_nothing_grows() {
        let mut out = InFlight::default();
        for begun in 1..=1_000_000 {
            out.begin(at(begun));
        }
        let capacity = out.slow_at.capacity();
        for begun in 1_000_001..3_000_000 {
            assert!(out.take_slow(at(begun - 1_000_000)));
            out.begin(at(begun));
            assert_eq!(out.deadline(), Some(at(begun - 999_999)));
        }
        assert_eq!((out.slow_at.len(), out.slow_at.capacity()), (1_000_000, capacity));
    }
}
