//! What is due when: at most one deadline for each key, popped in (deadline, arming) order.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::container::calendar::{Calendar, Place, Places};
use crate::mutant::Mutant;
use crate::time::Time;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub(crate) enum TimerKind {
    /// A peer's backoff, or the moment at which it gives up.
    Peer = 0,
    /// A breaker's rate has a token again.
    Pace = 1,
    /// The global rate has a token again.
    Pacer = 2,
    /// A connection's dial timeout, ping or suspicion.
    Conn = 3,
    /// A breaker's end of open, a probe's timeout, or an attempt that has become slow.
    Breaker = 4,
    /// A call's deadline, the end of its wait or backoff, or its hedge.
    Call = 5,
    /// An attempt's timeout.
    Attempt = 6,
    /// A breaker's rate of calls has a token again.
    CallPace = 7,
    /// The budget for pings has a token again.
    PingPace = 8,
}

const KINDS: usize = 9;

/// The calendar of timers that concern nobody else.
const OWN: usize = 0;
/// The calendar of timers that judge the other side: they wait for the I/O, and stand still while the
/// network is down.
const JUDGING: usize = 1;
/// The calendar of timers that somebody waits for: they wait for the I/O and for nothing else.
const PROMISED: usize = 2;

impl TimerKind {
    const fn calendar(self) -> usize {
        match self {
            Self::Peer | Self::Pace | Self::Pacer | Self::CallPace | Self::PingPace => OWN,
            Self::Conn | Self::Breaker | Self::Attempt => JUDGING,
            Self::Call => PROMISED,
        }
    }
}

/// One armed timer; they are in the order in which they are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Timer {
    /// When it is due.
    pub deadline: Time,
    /// When it was armed, in the order of all armings.
    pub sequence: u64,
    /// What it is for.
    pub kind: TimerKind,
    /// Whose.
    pub slot: u32,
}

impl Timer {
    /// The order in which timers are due, as one number: compared without a branch.
    #[inline]
    const fn order(&self) -> u128 {
        (self.deadline.as_nanos() as u128) << 64 | self.sequence as u128
    }
}

impl Ord for Timer {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Timer {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }

    #[inline]
    fn lt(&self, other: &Self) -> bool {
        self.order() < other.order()
    }
}

/// Where each key stands in its calendar, by kind and slot.
#[derive(Clone, Debug, Default)]
struct Keys([Vec<Place>; KINDS]);

impl Keys {
    #[inline]
    fn place(&self, kind: TimerKind, slot: u32) -> Option<Place> {
        let place = self.0[kind as usize].get(slot as usize).copied();
        place.filter(|place| *place != Place::NOWHERE)
    }
}

impl Places for Keys {
    fn put(&mut self, timer: &Timer, place: Place) {
        let places = &mut self.0[timer.kind as usize];
        let index = timer.slot as usize;
        if places.len() <= index {
            places.resize(index + 1, Place::NOWHERE);
        }
        places[index] = place;
    }

    fn get(&self, timer: &Timer) -> Place {
        self.place(timer.kind, timer.slot).unwrap_or(Place::NOWHERE)
    }
}

/// When the timers are due, by whose they are.
pub(crate) type Table = BTreeMap<(TimerKind, u32), Time>;

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// This one is due, and was taken out.
    Now(Timer),
    /// Perhaps one is: so many units of work went into finding out, and not all is done yet.
    Unknown(u32),
    Nothing,
}

/// All timers of a manager, in three calendars: those that judge the other side have their own,
/// which is stopped in one move.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    calendars: [Calendar; 3],
    keys: Keys,
    sequence: u64,
    stopped: bool,
    /// The present, which the calendars are laid out by; it changes no answer.
    now: Time,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Notes that it is later.
    #[inline]
    pub(crate) const fn advance(&mut self, now: Time) {
        self.now = now;
    }

    /// Arms the timer, or moves it; it goes behind all that are due at the same moment.
    pub(crate) fn arm(&mut self, kind: TimerKind, slot: u32, deadline: Time) {
        self.disarm(kind, slot);
        let deadline = deadline.plus_nanos(u64::from(Mutant::LateTimer.lives()));
        let timer = Timer { deadline, sequence: self.sequence, kind, slot };
        self.sequence += 1;
        self.insert(timer);
    }

    /// Puts back a timer of a snapshot; `false` if its key is armed already.
    pub(crate) fn restore(&mut self, timer: Timer) -> bool {
        let fresh = self.keys.place(timer.kind, timer.slot).is_none();
        if fresh {
            self.insert(timer);
            self.sequence = self.sequence.max(timer.sequence.saturating_add(1));
        }
        fresh
    }

    fn insert(&mut self, timer: Timer) {
        self.calendars[timer.kind.calendar()].insert(timer, self.now, &mut self.keys);
    }

    /// Disarms the timer if it is armed; mostly it is not.
    #[inline]
    pub(crate) fn disarm(&mut self, kind: TimerKind, slot: u32) {
        if let Some(place) = self.keys.place(kind, slot) {
            self.take_back(kind, slot, place);
        }
    }

    fn take_back(&mut self, kind: TimerKind, slot: u32, place: Place) {
        let key = Timer { deadline: Time::ZERO, sequence: 0, kind, slot };
        self.calendars[kind.calendar()].remove(&key, place, &mut self.keys);
    }

    pub(crate) fn is_armed(&self, kind: TimerKind, slot: u32) -> bool {
        self.keys.place(kind, slot).is_some()
    }

    /// When the timer is due, if it is armed. O(1) as a rule, O(n) if it is due within a millisecond
    /// or all are few: for those who look, not for steps.
    pub(crate) fn deadline(&self, kind: TimerKind, slot: u32) -> Option<Time> {
        let place = self.keys.place(kind, slot)?;
        Some(self.calendars[kind.calendar()].find((kind, slot), place)?.deadline)
    }

    /// Stops or starts those that judge.
    pub(crate) const fn stop(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// When the first is due; see [`calendar`](crate::container::calendar) for when it is too early.
    #[inline]
    pub(crate) fn next(&self) -> Option<Time> {
        let of = |kind: usize| self.calendars[kind].next_or_end();
        let first = of(OWN).min(of(PROMISED));
        let first = if self.stopped { first } else { first.min(of(JUDGING)) };
        if first < Time::MAX { Some(first) } else { self.never() }
    }

    /// What is next, if that is the end of time or nothing at all.
    #[cold]
    fn never(&self) -> Option<Time> {
        let some = (0..self.calendars.len()).filter(|&kind| !self.stopped || kind != JUDGING);
        some.filter_map(|kind| self.calendars[kind].next()).min()
    }

    /// The first that is due at `now`, of those that wait for nothing else.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Time) -> Due {
        let own = &mut self.calendars[OWN];
        if own.is_quiet(now) {
            return Due::Nothing;
        }
        if own.is_behind(now) {
            return Due::Unknown(own.catch_up(now, &mut self.keys));
        }
        own.pop(self.now, &mut self.keys).map_or(Due::Nothing, Due::Now)
    }

    /// The first that is due of those that wait for the I/O: by `judged` of those that judge, by
    /// `promised` of those that somebody waits for.
    #[inline]
    pub(crate) fn pop_verdict(&mut self, judged: Time, promised: Time) -> Due {
        let mut first: Option<(Timer, usize)> = None;
        for (place, until) in [(JUDGING, judged), (PROMISED, promised)] {
            let calendar = &mut self.calendars[place];
            if calendar.is_quiet(until) || place == JUDGING && self.stopped {
                continue;
            }
            if calendar.is_behind(until) {
                return Due::Unknown(calendar.catch_up(until, &mut self.keys));
            }
            let own = calendar.first().filter(|own| own.deadline <= until);
            if let Some(own) = own.filter(|own| first.is_none_or(|(first, _)| **own < first)) {
                first = Some((*own, place));
            }
        }
        let Some((_, place)) = first else { return Due::Nothing };
        self.calendars[place].pop(self.now, &mut self.keys).map_or(Due::Nothing, Due::Now)
    }

    /// Those in the calendar of the kind that will be taken next, as far as they are in order.
    pub(crate) fn upcoming(&self, kind: TimerKind) -> &[Timer] {
        self.calendars[kind.calendar()].upcoming()
    }

    /// Whether it is time to read so many of them ahead again.
    #[inline]
    pub(crate) const fn are_untouched(&mut self, kind: TimerKind, ahead: usize) -> bool {
        self.calendars[kind.calendar()].are_untouched(ahead)
    }

    /// Reads where the timer stands, so that this is near when it is moved.
    pub(crate) fn touch(&self, kind: TimerKind, slot: u32) -> u64 {
        let place = self.keys.place(kind, slot);
        place.map_or(0, |place| self.calendars[kind.calendar()].touch(place))
    }

    /// Makes room for a timer of each kind for so many peers and their connections.
    pub(crate) fn reserve(&mut self, peers: usize) {
        for kind in [TimerKind::Peer, TimerKind::Conn] {
            self.calendars[kind.calendar()].reserve(peers);
            let keys = &mut self.keys.0[kind as usize];
            let _ = keys.try_reserve_exact(peers.saturating_sub(keys.len()));
        }
    }

    /// When each is due, looked up in O(log n).
    pub(crate) fn table(&self) -> Table {
        self.iter().map(|timer| ((timer.kind, timer.slot), timer.deadline)).collect()
    }

    /// All armed timers, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Timer> {
        self.calendars.iter().flat_map(|calendar| calendar.iter(&self.keys))
    }

    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) const fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Arm(TimerKind, u32, u64),
        Disarm(TimerKind, u32),
        /// At a moment, whether of those that wait for the I/O.
        Pop(u64, bool),
        Stop(bool),
        /// Many at once, so that the calendars are laid out.
        Crowd(u64),
    }

    /// Moments that lie close together, some seconds apart and some hours.
    fn at() -> impl Strategy<Value = u64> {
        prop_oneof![
            3 => 0..50_u64,
            3 => 0..20_000_000_000_u64,
            2 => 1_700_000_000_000_000..6_000_000_000_000_000_u64,
            1 => 0..40_000_000_000_000_u64,
            1 => Just(u64::MAX),
        ]
    }

    fn kind() -> impl Strategy<Value = TimerKind> {
        use TimerKind::{Attempt, Breaker, Call, CallPace, Conn, Pace, Pacer, Peer};
        prop::sample::select(alloc::vec![Peer, Pace, Pacer, Conn, Breaker, Call, Attempt, CallPace])
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (kind(), 0..20_u32, at()).prop_map(|(kind, slot, at)| Op::Arm(kind, slot, at)),
            1 => (kind(), 0..20_u32).prop_map(|(kind, slot)| Op::Disarm(kind, slot)),
            3 => (at(), any::<bool>()).prop_map(|(now, judges)| Op::Pop(now, judges)),
            1 => any::<bool>().prop_map(Op::Stop),
            1 => at().prop_map(Op::Crowd),
        ]
    }

    /// Takes out what is due, however many pieces of work that needs.
    fn pop(timers: &mut Timers, now: Time, waits: bool) -> Option<Timer> {
        for _ in 0..100_000 {
            let due = if waits { timers.pop_verdict(now, now) } else { timers.pop_due(now) };
            match due {
                Due::Now(timer) => return Some(timer),
                Due::Unknown(units) => assert!(units <= 64, "{units} units at once"),
                Due::Nothing => return None,
            }
        }
        panic!("it never ends");
    }

    /// Two thousand detectors that find their peers alive, for three hours, and then once more with
    /// a herd in between.
    #[test]
    fn memory_stays_in_proportion() {
        let mut timers = Timers::new();
        let peers = 2_000_u32;
        let arm = |timers: &mut Timers, slot: u32, at: u64| {
            timers.arm(TimerKind::Conn, slot, Time::from_nanos(at));
        };
        let deadline = |slot: u32| 40_000_000_000 + u64::from(slot) * 5_000_000;
        (0..peers).for_each(|slot| arm(&mut timers, slot, deadline(slot)));
        for herd in [None, Some(20_000_u32)] {
            let (mut now, mut herds) = (0, 0);
            let start = timers.next().map_or(0, Time::as_nanos);
            while now < start + 3 * 3_600_000_000_000 {
                let next = timers.next().unwrap();
                timers.advance(next);
                let Some(first) = pop(&mut timers, next, true) else { continue };
                now = first.deadline.as_nanos();
                arm(
                    &mut timers,
                    first.slot,
                    now + 17_000_000_000 + u64::from(first.slot) * 5_000_000,
                );
                let due = (now - start) / 600_000_000_000;
                if let Some(herd) = herd.filter(|_| due > herds) {
                    herds = due;
                    for slot in peers..herd {
                        arm(&mut timers, slot, now + 20_000_000_000);
                    }
                    (peers..herd).for_each(|slot| timers.disarm(TimerKind::Conn, slot));
                }
            }
            let capacity: usize = timers.calendars.iter().map(Calendar::capacity).sum();
            // A block for each bag in use, and what the largest crowd needed.
            let most = 20_000 + 2 * herd.unwrap_or(peers) as usize;
            assert!(capacity < most, "memory for {capacity} timers, herd {herd:?}");
        }
    }

    #[test]
    fn what_is_due_at_the_end_of_time_is_still_something() {
        let mut timers = Timers::new();
        assert_eq!(timers.next(), None);
        timers.arm(TimerKind::Conn, 1, Time::MAX);
        assert_eq!(timers.next(), Some(Time::MAX));
        timers.stop(true);
        assert_eq!(timers.next(), None);
        timers.arm(TimerKind::Peer, 1, Time::MAX);
        assert_eq!(timers.next(), Some(Time::MAX));
    }

    proptest! {
        #[test]
        fn it_answers_as_a_sorted_map_would(ops in prop::collection::vec(op(), 0..200)) {
            let mut timers = Timers::new();
            let mut model: BTreeMap<(Time, u64), (TimerKind, u32)> = BTreeMap::new();
            let (mut stopped, mut crowded) = (false, false);
            for op in ops {
                match op {
                    Op::Arm(kind, slot, at) => {
                        model.retain(|_, key| *key != (kind, slot));
                        model.insert((Time::from_nanos(at), timers.sequence()), (kind, slot));
                        timers.arm(kind, slot, Time::from_nanos(at));
                    }
                    Op::Disarm(kind, slot) => {
                        model.retain(|_, key| *key != (kind, slot));
                        timers.disarm(kind, slot);
                    }
                    Op::Pop(now, waits) => {
                        let now = Time::from_nanos(now);
                        // The present may be any moment: no answer depends on it.
                        timers.advance(Time::from_nanos(now.as_nanos() % 5_000_000_000_000_000));
                        let is_asked = |kind: TimerKind| match kind.calendar() {
                            OWN => !waits,
                            JUDGING => waits && !stopped,
                            _ => waits,
                        };
                        let first = model
                            .iter()
                            .map(|(order, key)| (*order, *key))
                            .find(|(_, (kind, _))| is_asked(*kind))
                            .filter(|((deadline, _), _)| *deadline <= now);
                        if let Some((order, _)) = first {
                            model.remove(&order);
                        }
                        let popped = pop(&mut timers, now, waits);
                        let popped = popped.map(|timer| (timer.kind, timer.slot));
                        prop_assert_eq!(popped, first.map(|(_, key)| key));
                    }
                    Op::Crowd(at) => {
                        crowded = true;
                        // Sequences of its own, behind all others of their moment.
                        for place in 0..300_u32 {
                            let slot = 1_000 + place;
                            let deadline = at.saturating_add(u64::from(place % 7) << (place % 40));
                            model.retain(|_, key| *key != (TimerKind::Conn, slot));
                            let order = (Time::from_nanos(deadline), timers.sequence());
                            model.insert(order, (TimerKind::Conn, slot));
                            timers.arm(TimerKind::Conn, slot, Time::from_nanos(deadline));
                        }
                    }
                    Op::Stop(stop) => {
                        stopped = stop;
                        timers.stop(stop);
                    }
                }
                prop_assert_eq!(timers.iter().count(), model.len());
                let next = model.iter().find(|(_, (kind, _))| !stopped || kind.calendar() != JUDGING);
                let next = next.map(|((deadline, _), _)| *deadline);
                prop_assert_eq!(timers.next().is_some(), next.is_some());
                // Of a crowded bag it may be early.
                prop_assert!(timers.next() <= next, "{:?} after {next:?}", timers.next());
                if !crowded {
                    prop_assert_eq!(timers.next(), next);
                }
            }
        }
    }
}
