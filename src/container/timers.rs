//! What is due when: at most one deadline for each key, popped in (deadline, arming) order.
//!
//! An indexed four-ary heap. Rejected: a heap with stale entries (a flapper with long timeouts piles
//! them up without bound), and a wheel with ticks (order within a tick is lost).

use alloc::vec::Vec;

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

/// The heap of timers that concern nobody else.
const OWN: usize = 0;
/// The heap of timers that judge the other side: they wait for the I/O, and stand still while the
/// network is down.
const JUDGING: usize = 1;
/// The heap of timers that somebody waits for: they wait for the I/O and for nothing else.
const PROMISED: usize = 2;

impl TimerKind {
    const fn heap(self) -> usize {
        match self {
            Self::Peer | Self::Pace | Self::Pacer | Self::CallPace | Self::PingPace => OWN,
            Self::Conn | Self::Breaker | Self::Attempt => JUDGING,
            Self::Call => PROMISED,
        }
    }
}

/// One armed timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// No place in a heap.
const NOWHERE: u32 = u32::MAX;
/// Children of a heap's node.
const ARITY: usize = 4;

/// All timers of a manager, in three heaps: those that judge the other side have their own, which is
/// stopped in one move.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    heaps: [Vec<Timer>; 3],
    /// Where each key stands in its heap, by kind and slot.
    places: [Vec<u32>; KINDS],
    sequence: u64,
    stopped: bool,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self::default()
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
        let fresh = self.deadline(timer.kind, timer.slot).is_none();
        if fresh {
            self.insert(timer);
            self.sequence = self.sequence.max(timer.sequence.saturating_add(1));
        }
        fresh
    }

    fn insert(&mut self, timer: Timer) {
        let heap = timer.kind.heap();
        self.heaps[heap].push(timer);
        self.sift_up(heap, self.heaps[heap].len() - 1);
    }

    /// Disarms the timer if it is armed.
    pub(crate) fn disarm(&mut self, kind: TimerKind, slot: u32) {
        let Some(place) = self.place(kind, slot) else { return };
        self.remove(kind.heap(), place);
    }

    /// When the timer is due, if it is armed.
    pub(crate) fn deadline(&self, kind: TimerKind, slot: u32) -> Option<Time> {
        let place = self.place(kind, slot)?;
        Some(self.heaps[kind.heap()].get(place)?.deadline)
    }

    /// Stops or starts those that judge.
    pub(crate) const fn stop(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// When the first is due.
    #[inline]
    pub(crate) fn next(&self) -> Option<Time> {
        let own = self.heaps[OWN].first();
        let verdict = self.first_verdict(Time::MAX, Time::MAX);
        own.into_iter().chain(verdict).map(|first| first.deadline).min()
    }

    /// The first that is due of those that wait for the I/O: by `judged` of those that judge, by
    /// `promised` of those that somebody waits for.
    #[inline]
    fn first_verdict(&self, judged: Time, promised: Time) -> Option<&Timer> {
        let judging = self.heaps[JUDGING].first().filter(|_| !self.stopped);
        let judging = judging.filter(|first| first.deadline <= judged);
        let waited_for = self.heaps[PROMISED].first().filter(|first| first.deadline <= promised);
        judging.into_iter().chain(waited_for).min_by_key(|first| order(first))
    }

    /// Takes out the first that is due at `now`, of those that wait for nothing else.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        self.pop(OWN, now)
    }

    /// Takes out the first that is due of those that wait for the I/O: by `judged` of those that
    /// judge, by `promised` of those that somebody waits for.
    #[inline]
    pub(crate) fn pop_verdict(&mut self, judged: Time, promised: Time) -> Option<Timer> {
        let heap = self.first_verdict(judged, promised)?.kind.heap();
        self.pop(heap, Time::MAX)
    }

    #[inline]
    fn pop(&mut self, heap: usize, now: Time) -> Option<Timer> {
        let first = *self.heaps[heap].first().filter(|first| first.deadline <= now)?;
        self.remove(heap, 0);
        Some(first)
    }

    /// All armed timers, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Timer> {
        self.heaps.iter().flatten()
    }

    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) const fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    fn place(&self, kind: TimerKind, slot: u32) -> Option<usize> {
        let place = *self.places[kind as usize].get(slot as usize)?;
        (place != NOWHERE).then_some(place as usize)
    }

    fn set_place(&mut self, timer: Timer, place: u32) {
        let places = &mut self.places[timer.kind as usize];
        let index = timer.slot as usize;
        if places.len() <= index {
            places.resize(index + 1, NOWHERE);
        }
        places[index] = place;
    }

    fn remove(&mut self, heap: usize, place: usize) {
        let timers = &mut self.heaps[heap];
        if place >= timers.len() {
            return;
        }
        let gone = timers.swap_remove(place);
        self.set_place(gone, NOWHERE);
        if place < self.heaps[heap].len() {
            let place = self.sift_up(heap, place);
            self.sift_down(heap, place);
        }
    }
    fn sift_up(&mut self, heap: usize, mut place: usize) -> usize {
        let moving = self.heaps[heap][place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            let above = self.heaps[heap][parent];
            if order(&above) <= order(&moving) {
                break;
            }
            self.put(heap, place, above);
            place = parent;
        }
        self.put(heap, place, moving);
        place
    }
    fn sift_down(&mut self, heap: usize, mut place: usize) {
        let moving = self.heaps[heap][place];
        loop {
            let first = place * ARITY + 1;
            let last = (first + ARITY).min(self.heaps[heap].len());
            let smallest = (first..last).min_by_key(|&child| order(&self.heaps[heap][child]));
            let Some(child) = smallest else { break };
            let below = self.heaps[heap][child];
            if order(&moving) <= order(&below) {
                break;
            }
            self.put(heap, place, below);
            place = child;
        }
        self.put(heap, place, moving);
    }
    fn put(&mut self, heap: usize, place: usize, timer: Timer) {
        self.heaps[heap][place] = timer;
        self.set_place(timer, u32::try_from(place).unwrap_or(NOWHERE));
    }
}

const fn order(timer: &Timer) -> (Time, u64) {
    (timer.deadline, timer.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Arm(TimerKind, u32, u64),
        Disarm(TimerKind, u32),
        /// At a moment, whether of those that wait for the I/O.
        Pop(u64, bool),
        Stop(bool),
    }

    fn kind() -> impl Strategy<Value = TimerKind> {
        use TimerKind::{Attempt, Breaker, Call, CallPace, Conn, Pace, Pacer, Peer};
        prop::sample::select(alloc::vec![Peer, Pace, Pacer, Conn, Breaker, Call, Attempt, CallPace])
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (kind(), 0..20_u32, 0..50_u64).prop_map(|(kind, slot, at)| Op::Arm(kind, slot, at)),
            1 => (kind(), 0..20_u32).prop_map(|(kind, slot)| Op::Disarm(kind, slot)),
            3 => (0..50_u64, any::<bool>()).prop_map(|(now, judges)| Op::Pop(now, judges)),
            1 => any::<bool>().prop_map(Op::Stop),
        ]
    }

    proptest! {
        #[test]
        fn it_answers_as_a_sorted_map_would(ops in prop::collection::vec(op(), 0..200)) {
            let mut timers = Timers::new();
            let mut model: BTreeMap<(Time, u64), (TimerKind, u32)> = BTreeMap::new();
            let mut stopped = false;
            for (sequence, op) in (0..).zip(ops) {
                match op {
                    Op::Arm(kind, slot, at) => {
                        model.retain(|_, key| *key != (kind, slot));
                        model.insert((Time::from_nanos(at), sequence), (kind, slot));
                        timers.arm(kind, slot, Time::from_nanos(at));
                    }
                    Op::Disarm(kind, slot) => {
                        model.retain(|_, key| *key != (kind, slot));
                        timers.disarm(kind, slot);
                    }
                    Op::Pop(now, waits) => {
                        let now = Time::from_nanos(now);
                        let is_asked = |kind: TimerKind| match kind.heap() {
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
                        let popped =
                            if waits { timers.pop_verdict(now, now) } else { timers.pop_due(now) };
                        let popped = popped.map(|timer| (timer.kind, timer.slot));
                        prop_assert_eq!(popped, first.map(|(_, key)| key));
                    }
                    Op::Stop(stop) => {
                        stopped = stop;
                        timers.stop(stop);
                    }
                }
                prop_assert_eq!(timers.iter().count(), model.len());
            }
        }
    }
}
