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

/// What happens in one moment, in the order in which it was scheduled unless that is to be shuffled.
pub(crate) trait Tied {
    /// Whether it may as well happen after what happens in the same moment.
    fn is_free(&self) -> bool {
        false
    }
}

/// The queue of a world. The heap moves keys and places only; what is to happen stays where it is.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<(Reverse<u128>, u32)>,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
    /// What ties are shuffled by, if they are.
    shuffle: Option<u64>,
}

const RANK_BIT: u32 = 63;

impl<T: Tied> Queue<T> {
    pub(crate) fn new(shuffle: Option<u64>) -> Self {
        let (heap, items, free) = (BinaryHeap::new(), Vec::new(), Vec::new());
        Self { heap, items, free, sequence: 0, shuffle }
    }

    /// Schedules `item`. O(log n).
    pub(crate) fn push(&mut self, at: Time, rank: Rank, item: T) {
        let order = match self.shuffle {
            Some(seed) if item.is_free() => shuffled(self.sequence, seed),
            _ => self.sequence,
        };
        let tail = (rank as u128) << RANK_BIT | u128::from(order);
        self.sequence += 1;
        let key = Reverse(u128::from(at.as_nanos()) << 64 | tail);
        let place = self.keep(item);
        self.heap.push((key, place));
    }

    /// Puts an item where a gone one was, or at the end.
    fn keep(&mut self, item: T) -> u32 {
        if let Some(place) = self.free.pop() {
            if let Some(kept) = self.items.get_mut(place as usize) {
                *kept = Some(item);
            }
            return place;
        }
        self.items.push(Some(item));
        u32::try_from(self.items.len() - 1).unwrap_or(u32::MAX)
    }

    /// When the next thing is due.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|(key, _)| at(key.0))
    }

    /// Takes the next thing. O(log n).
    pub(crate) fn pop(&mut self) -> Option<(Time, T)> {
        let (key, place) = self.heap.pop()?;
        let item = self.items.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some((at(key.0), item))
    }
}

/// A place below the rank's bit that has nothing of the order.
const fn shuffled(sequence: u64, seed: u64) -> u64 {
    let mixed = (sequence ^ seed.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 2
}

fn at(key: u128) -> Time {
    Time::from_nanos((key >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Tied for &str {
        fn is_free(&self) -> bool {
            true
        }
    }

    #[test]
    fn ties_are_shuffled_by_the_seed_and_nothing_else_is() {
        let order = |seed| {
            let mut queue = Queue::new(Some(seed));
            for name in ["a", "b", "c", "d", "e", "f"] {
                queue.push(Time::from_secs(1), Rank::World, name);
            }
            queue.push(Time::from_secs(1), Rank::Wake, "alarm");
            queue.push(Time::ZERO, Rank::Wake, "first");
            std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_eq!((order(1)[0], order(1)[7]), ("first", "alarm"));
    }

    #[test]
    fn things_come_by_time_then_io_before_alarms_then_in_order() {
        let mut queue = Queue::new(None);
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
