//! A bulkhead: so many at once, a bounded line for the others, and a longest wait.
//!
//! Without a bound, a slow server takes all of its caller's memory and time. With one, what is too
//! much waits in line or is refused at once, and the rest of the ship stays afloat:
//!
//! ```text
//! enter    in_use < limit and nobody waits          a slot that comes free goes to the first in line
//! wait     waiting < max_waiting                    for `max_wait` at most
//! full     otherwise
//! ```
//!
//! The limit is an argument, so that it may be the policy's or one that adapts; where it falls below
//! what is in use, nobody enters until what is in use fits. The line is strictly first come, first
//! served. Whoever gives up leaves a gap that is skipped later, so it costs the same wherever it
//! stood; gaps never outnumber those who wait.
//!
//! Rejected: a semaphore without order (resilience4j; who comes late may enter first, and a waiter
//! starve), last come first served (fair to nobody whose deadline counts), a line without bound.
//!
//! Source: Nygard, *Release It!* 2nd ed., "Bulkheads"; Failsafe and cockatiel for the line.

use crate::container::queue::Queue;
use crate::error::ConfigError;
use crate::time::Time;
use alloc::format;
use core::time::Duration;

/// What a bulkhead is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BulkheadConfig {
    /// How many may be inside at once; default 1,000, at least 1.
    pub max_concurrent: u32,
    /// How many may wait; default none.
    pub max_waiting: u32,
    /// How long one waits at most. `None` (default): until the caller's own deadline.
    pub max_wait: Option<Duration>,
}

/// Source: resilience4j's 25 and Polly's one are for threads; these are slots of a few bytes, and
/// the bound is there for the server's sake. No line, as in both: waiting hides an overload.
impl Default for BulkheadConfig {
    fn default() -> Self {
        Self { max_concurrent: 1_000, max_waiting: 0, max_wait: None }
    }
}

impl BulkheadConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// `max_concurrent` is 0; `max_wait` is 0, or set where nobody may wait.
    pub fn validate(self) -> Result<BulkheadPolicy, ConfigError> {
        if self.max_concurrent == 0 {
            return Err(ConfigError::new("max_concurrent", "is 0, must be at least 1"));
        }
        if let Some(max_wait) = self.max_wait {
            if max_wait == Duration::ZERO {
                return Err(ConfigError::new("max_wait", "is 0ns, must be at least 1ns"));
            }
            if self.max_waiting == 0 {
                let problem = format!("is {max_wait:?}, but max_waiting is 0");
                return Err(ConfigError::new("max_wait", problem));
            }
        }
        Ok(BulkheadPolicy(self))
    }
}

/// The checked settings of a bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BulkheadPolicy(BulkheadConfig);

impl BulkheadPolicy {
    /// How many may be inside at once.
    #[must_use]
    pub const fn max_concurrent(&self) -> u32 {
        self.0.max_concurrent
    }

    /// How many may wait.
    #[must_use]
    pub const fn max_waiting(&self) -> u32 {
        self.0.max_waiting
    }

    /// How long one waits at most.
    #[must_use]
    pub const fn max_wait(&self) -> Option<Duration> {
        self.0.max_wait
    }
}

/// Whether there was a place in the line.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Joined {
    /// There was: at the end of it.
    Wait {
        /// The name of the place, never given twice.
        ticket: u64,
        /// When the wait has been too long.
        until: Option<Time>,
    },
    /// There was not.
    Full,
}

/// What became of someone who wants in.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acquired {
    /// It is inside, to [`Bulkhead::leave`] again.
    Entered,
    /// It waits in line.
    Waiting {
        /// The name of its place, never given twice.
        ticket: u64,
        /// When its wait has been too long.
        until: Option<Time>,
    },
    /// It is refused: the line is full as well.
    Full,
}

/// A bulkhead: its slots and its line.
///
/// Those who wait are known by a number of the caller's choice, their `key`. Its owner lets in the
/// first in line whenever there is room ([`has_room`](Self::has_room), [`pop`](Self::pop),
/// [`enter`](Self::enter)). Memory: 32 bytes for each of at most twice as many as have waited at
/// once; nothing is allocated while that number does not grow.
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::bulkhead::{Acquired, Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig { max_concurrent: 1, max_waiting: 1, max_wait: None };
/// let (policy, mut bulkhead, now) = (config.validate().unwrap(), Bulkhead::new(), Time::ZERO);
/// assert_eq!(bulkhead.acquire(&policy, 1, 7, now), Acquired::Entered);
/// assert!(matches!(bulkhead.acquire(&policy, 1, 8, now), Acquired::Waiting { .. }));
/// assert_eq!(bulkhead.acquire(&policy, 1, 9, now), Acquired::Full);
/// bulkhead.leave();
/// assert_eq!((bulkhead.has_room(1), bulkhead.pop()), (true, Some(8)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Bulkhead {
    in_use: u32,
    line: Queue<Waiter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Waiter {
    key: u64,
    /// [`Time::MAX`]: as long as it likes.
    until: Time,
}

// Slots.
impl Bulkhead {
    /// Nobody inside, nobody in line.
    #[must_use]
    pub const fn new() -> Self {
        Self { in_use: 0, line: Queue::new() }
    }

    /// Whether a slot is free below `limit`.
    #[must_use]
    pub const fn has_room(&self, limit: u32) -> bool {
        self.in_use < limit
    }

    /// Takes a slot. Whether there is room, and nobody waits before, is the caller's to know.
    pub const fn enter(&mut self) {
        self.in_use = self.in_use.saturating_add(1);
    }

    /// Gives a slot back; where none is taken, nothing.
    pub const fn leave(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    /// Takes a slot if there is one and nobody waits for it, and otherwise a place in the line.
    pub fn acquire(
        &mut self,
        policy: &BulkheadPolicy,
        limit: u32,
        key: u64,
        now: Time,
    ) -> Acquired {
        if self.has_room(limit) && self.line.is_empty() {
            self.enter();
            return Acquired::Entered;
        }
        match self.join(policy, key, now) {
            Joined::Wait { ticket, until } => Acquired::Waiting { ticket, until },
            Joined::Full => Acquired::Full,
        }
    }

    /// How many are inside.
    #[must_use]
    pub const fn in_use(&self) -> u32 {
        self.in_use
    }
}

// The line.
impl Bulkhead {
    /// Goes to the end of the line, if it has a place. O(1), amortised.
    pub fn join(&mut self, policy: &BulkheadPolicy, key: u64, now: Time) -> Joined {
        if self.waiting() >= policy.max_waiting() {
            return Joined::Full;
        }
        let until = policy.max_wait().map(|longest| now + longest);
        let ticket = self.line.push(Waiter { key, until: until.unwrap_or(Time::MAX) });
        Joined::Wait { ticket, until }
    }

    /// Who is first in line.
    #[must_use]
    pub fn front(&self) -> Option<u64> {
        self.line.front().map(|waiter| waiter.key)
    }

    /// Takes the first out of the line, to let it in or to refuse it. O(1), amortised.
    pub fn pop(&mut self) -> Option<u64> {
        self.line.pop().map(|waiter| waiter.key)
    }

    /// Takes the one with this ticket out of the line, wherever it stands; whether it stood there.
    /// O(log n), amortised.
    pub fn withdraw(&mut self, ticket: u64) -> bool {
        self.line.remove(ticket)
    }

    /// How many are in line.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.line.len()
    }

    /// Those in line with their tickets and keys, the first first.
    pub fn waiters(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.line.iter().map(|(ticket, waiter)| (ticket, waiter.key))
    }
}

// Time: what is due when.
impl Bulkhead {
    /// When [`expire`](Self::expire) has something to do: when the first has waited too long.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let until = self.line.front()?.until;
        (until != Time::MAX).then_some(until)
    }

    /// Takes the first out of the line if it has waited too long; to be called until `None`.
    ///
    /// All wait equally long, so whoever came first is also the first to have waited too long.
    pub fn expire(&mut self, now: Time) -> Option<u64> {
        if self.deadline()? > now { None } else { self.pop() }
    }

    /// The same with its times relative to `now`, without those of its line who have gone.
    pub(crate) fn shape(&mut self, now: Time) {
        self.line.shape(|waiter| waiter.until = waiter.until.ahead_of(now));
    }

    /// Whether this bulkhead could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, policy: &BulkheadPolicy) -> bool {
        self.waiting() <= policy.max_waiting() && self.line.is_valid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn policy(max_waiting: u32, max_wait: Option<u64>) -> BulkheadPolicy {
        let max_wait = max_wait.map(Duration::from_secs);
        BulkheadConfig { max_concurrent: 2, max_waiting, max_wait }.validate().unwrap()
    }

    /// The ticket of `key` at the end of the line.
    fn join(bulkhead: &mut Bulkhead, policy: &BulkheadPolicy, key: u64) -> u64 {
        match bulkhead.join(policy, key, Time::ZERO) {
            Joined::Wait { ticket, .. } => ticket,
            Joined::Full => panic!("full"),
        }
    }

    #[test]
    fn nobody_enters_before_those_who_wait() {
        let policy = policy(2, None);
        let mut bulkhead = Bulkhead::new();
        for key in 0..2 {
            assert_eq!(bulkhead.acquire(&policy, 2, key, Time::ZERO), Acquired::Entered);
        }
        let waits = Acquired::Waiting { ticket: 0, until: None };
        assert_eq!(bulkhead.acquire(&policy, 2, 2, Time::ZERO), waits);
        bulkhead.leave();
        assert!(bulkhead.has_room(2));
        let waits = Acquired::Waiting { ticket: 1, until: None };
        assert_eq!(bulkhead.acquire(&policy, 2, 3, Time::ZERO), waits);
        assert_eq!(bulkhead.acquire(&policy, 2, 4, Time::ZERO), Acquired::Full);
        assert_eq!(
            (bulkhead.front(), bulkhead.pop(), bulkhead.front()),
            (Some(2), Some(2), Some(3))
        );
    }

    #[test]
    fn a_limit_below_what_is_in_use_admits_none_until_it_fits() {
        let mut bulkhead = Bulkhead::new();
        (0..5).for_each(|_| bulkhead.enter());
        for _ in 0..3 {
            assert!(!bulkhead.has_room(3));
            bulkhead.leave();
        }
        assert!(bulkhead.has_room(3));
        (0..5).for_each(|_| bulkhead.leave());
        assert_eq!(bulkhead.in_use(), 0);
        assert!(!bulkhead.has_room(0));
    }

    #[test]
    fn whoever_gives_up_frees_its_place_at_once_and_is_passed_over() {
        let policy = policy(3, None);
        let mut bulkhead = Bulkhead::new();
        let tickets: Vec<u64> = (10..13).map(|key| join(&mut bulkhead, &policy, key)).collect();
        assert!(bulkhead.withdraw(tickets[1]));
        assert!(!bulkhead.withdraw(tickets[1]), "once");
        assert_eq!(bulkhead.waiting(), 2);
        assert_eq!(join(&mut bulkhead, &policy, 13), 3);
        assert!(bulkhead.withdraw(tickets[0]));
        assert_eq!(bulkhead.waiters().collect::<Vec<_>>(), [(2, 12), (3, 13)]);
        assert_eq!([(); 3].map(|()| bulkhead.pop()), [Some(12), Some(13), None]);
        assert!(!bulkhead.withdraw(3) && !bulkhead.withdraw(99));
    }

    #[test]
    fn the_longest_wait_ends_at_its_very_moment() {
        let policy = policy(9, Some(5));
        let mut bulkhead = Bulkhead::new();
        for second in 0..2 {
            let until = Some(Time::from_secs(second + 5));
            let joined = bulkhead.join(&policy, second, Time::from_secs(second));
            assert_eq!(joined, Joined::Wait { ticket: second, until });
        }
        assert_eq!(bulkhead.deadline(), Some(Time::from_secs(5)));
        assert_eq!(bulkhead.expire(Time::from_nanos(4_999_999_999)), None);
        assert_eq!(bulkhead.expire(Time::from_secs(5)), Some(0));
        assert_eq!(bulkhead.expire(Time::from_secs(5)), None);
        assert!(bulkhead.withdraw(1));
        assert_eq!(bulkhead.deadline(), None);
    }

    #[test]
    fn settings_that_contradict_are_refused_by_name() {
        let field = |config: BulkheadConfig| config.validate().map_err(|e| e.field().to_owned());
        let default = BulkheadConfig::default();
        assert_eq!(
            field(BulkheadConfig { max_concurrent: 0, ..default }),
            Err("max_concurrent".into())
        );
        let max_wait = Some(Duration::from_secs(1));
        assert_eq!(field(BulkheadConfig { max_wait, ..default }), Err("max_wait".into()));
        assert!(field(BulkheadConfig { max_wait, max_waiting: 1, ..default }).is_ok());
        let max_wait = Some(Duration::ZERO);
        let config = BulkheadConfig { max_wait, max_waiting: 1, ..default };
        assert_eq!(field(config), Err("max_wait".into()));
    }

    #[test]
    fn what_could_not_have_arisen_is_not_valid_and_harms_nobody() {
        let policy = policy(3, None);
        let mut bulkhead = Bulkhead::new();
        let tickets: Vec<u64> = (10..13).map(|key| join(&mut bulkhead, &policy, key)).collect();
        assert!(bulkhead.withdraw(tickets[1]) && bulkhead.is_valid(&policy));
        let json = serde_json::to_string(&bulkhead).unwrap();
        assert_eq!(serde_json::from_str::<Bulkhead>(&json).unwrap(), bulkhead);
        for (from, to) in [
            ("\"gaps\":1", "\"gaps\":4000000000"),
            ("\"next\":3", "\"next\":18446744073709551615"),
            ("\"next\":3", "\"next\":2"),
            ("\"number\":0", "\"number\":2"),
            ("\"gone\":true", "\"gone\":false"),
            ("\"gone\":false", "\"gone\":true"),
        ] {
            assert!(json.contains(from), "{json}");
            let mut hostile: Bulkhead = serde_json::from_str(&json.replace(from, to)).unwrap();
            assert!(!hostile.is_valid(&policy), "{to}");
            let _ = hostile.join(&policy, 1, Time::MAX);
            let _ = (hostile.withdraw(2), hostile.pop(), hostile.expire(Time::MAX));
        }
        let small = BulkheadConfig { max_waiting: 1, ..Default::default() }.validate().unwrap();
        assert!(!bulkhead.is_valid(&small));
    }

    proptest! {
        #[test]
        fn the_line_is_that_of_a_list(
            steps in proptest::collection::vec((0_u8..4, any::<prop::sample::Index>()), 1..300),
        ) {
            let policy = policy(8, Some(3));
            let mut bulkhead = Bulkhead::new();
            let mut list: Vec<(u64, u64, Time)> = Vec::new();
            for (second, (verb, which)) in (0_u64..).zip(steps) {
                let now = Time::from_secs(second / 4);
                match verb {
                    0 | 1 => match bulkhead.join(&policy, second, now) {
                        Joined::Wait { ticket, until } => list.push((ticket, second, until.unwrap())),
                        Joined::Full => prop_assert_eq!(list.len(), 8),
                    },
                    2 if !list.is_empty() => {
                        let (ticket, ..) = list.remove(which.index(list.len()));
                        prop_assert!(bulkhead.withdraw(ticket));
                    }
                    _ => {
                        let late = list.first().is_some_and(|&(.., until)| until <= now);
                        let expected = late.then(|| list.remove(0).1);
                        prop_assert_eq!(bulkhead.expire(now), expected);
                    }
                }
                let pairs: Vec<(u64, u64)> = list.iter().map(|&(ticket, key, _)| (ticket, key)).collect();
                prop_assert_eq!(bulkhead.waiters().collect::<Vec<_>>(), pairs);
                prop_assert_eq!(bulkhead.waiting() as usize, list.len());
                prop_assert_eq!(bulkhead.deadline(), list.first().map(|&(.., until)| until));
                prop_assert!(bulkhead.is_valid(&policy));
            }
        }
    }
}
