//! What is yet to happen, in the order in which it will.
//!
//! A binary heap with the key packed into one integer: time, then rank, then sequence. Things of
//! one moment come in the order in which they were scheduled, but a wake-up comes after all I/O of
//! its moment, because a driver feeds the waiting I/O before it ticks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use steadfast::Time;

/// What is due in one moment goes by rank first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// What happens by itself: packets, faults, a server that is done with one.
    World = 0,
    /// A manager's alarm.
    Wake = 1,
}

/// The queue of a world.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    key: Reverse<u128>,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

const RANK_BIT: u32 = 63;

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }

    /// Schedules `item`. O(log n).
    pub(crate) fn push(&mut self, at: Time, rank: Rank, item: T) {
        let tail = (rank as u128) << RANK_BIT | u128::from(self.sequence);
        self.sequence += 1;
        self.heap.push(Entry { key: Reverse(u128::from(at.as_nanos()) << 64 | tail), item });
    }

    /// When the next thing is due.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|entry| at(entry.key.0))
    }

    /// Takes the next thing. O(log n).
    pub(crate) fn pop(&mut self) -> Option<(Time, T)> {
        self.heap.pop().map(|entry| (at(entry.key.0), entry.item))
    }
}

fn at(key: u128) -> Time {
    Time::from_nanos((key >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_by_time_then_io_before_alarms_then_in_order() {
        let mut queue = Queue::new();
        let (early, late) = (Time::from_secs(1), Time::from_secs(2));
        queue.push(late, Rank::World, "d");
        queue.push(early, Rank::Wake, "c");
        queue.push(early, Rank::World, "a");
        queue.push(early, Rank::World, "b");
        assert_eq!(queue.next_at(), Some(early));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(early, "a"), (early, "b"), (early, "c"), (late, "d")]);
    }
}
