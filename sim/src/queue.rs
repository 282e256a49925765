//! What is yet to happen, in the order in which it will.
//!
//! By a key packed into one integer: time, then rank, then sequence. Things of one moment come in the
//! order in which they were scheduled, but a wake-up comes after all I/O of its moment, because a
//! driver feeds the waiting I/O before it ticks.
//!
//! A few things stand in one heap. Once they are many, the heap keeps those of the current
//! millisecond, the next four seconds lie in a ring by the millisecond, unsorted, and what comes
//! later has a heap of its own: a calendar queue whose order is exact.
//!
//! The core's timers are a calendar too, with bags for days, months and years: what is scheduled here
//! is never taken back, and seldom far ahead.
//!
//! Source: R. Brown, Calendar queues, 1988. The width and the ring are fixed, since what a world
//! waits for (a network, a server) takes milliseconds whatever its size.

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

/// A key, and where what is to happen stays meanwhile.
type Entry = (Reverse<u128>, u32);

/// The queue of a world. It moves keys and places only; what is to happen stays where it is.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// What is due in a day before `edge`.
    near: BinaryHeap<Entry>,
    ring: Ring,
    /// What is due in a day that the ring does not reach.
    far: BinaryHeap<Entry>,
    /// The first day of the ring; while few things wait it lies beyond all time.
    edge: u64,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
    /// What ties are shuffled by, if they are.
    shuffle: Option<u64>,
}

const RANK_BIT: u32 = 63;
/// A day of the calendar has 2^20 ns, about a millisecond.
const DAY_BITS: u32 = 20;
/// The days of the ring: 4.3 s.
const DAYS: usize = 4_096;
/// So many things are more than a heap does best.
///
/// Source: measured, the two are even between 100 and 300.
const MANY: usize = 256;
/// What an emptied day keeps memory for.
const LONG: usize = 1_024;

impl<T: Tied> Queue<T> {
    pub(crate) fn new(shuffle: Option<u64>) -> Self {
        Self {
            near: BinaryHeap::new(),
            ring: Ring::default(),
            far: BinaryHeap::new(),
            edge: u64::MAX,
            items: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            shuffle,
        }
    }

    /// Schedules `item`. O(1) if it is due within the ring, else O(log n).
    pub(crate) fn push(&mut self, at: Time, rank: Rank, item: T) {
        let order = match self.shuffle {
            Some(seed) if item.is_free() => shuffled(self.sequence, seed),
            _ => self.sequence,
        };
        let tail = (rank as u128) << RANK_BIT | u128::from(order);
        self.sequence += 1;
        let key = Reverse(u128::from(at.as_nanos()) << 64 | tail);
        let place = self.keep(item);
        self.place((key, place));
        if self.edge == u64::MAX && self.near.len() > MANY {
            self.spread();
        } else if self.near.is_empty() {
            self.turn();
        }
    }

    fn place(&mut self, entry: Entry) {
        let day = day(&entry);
        match day.checked_sub(self.edge) {
            None => self.near.push(entry),
            Some(ahead) if ahead < DAYS as u64 => self.ring.push(day, entry),
            Some(_) => self.far.push(entry),
        }
    }

    /// From now on only the first day is near.
    fn spread(&mut self) {
        let all = std::mem::take(&mut self.near);
        self.edge = all.peek().map_or(0, day) + 1;
        all.into_iter().for_each(|entry| self.place(entry));
    }

    /// Goes on to the next day that has anything.
    fn turn(&mut self) {
        let next = self.ring.first_from(self.edge).or_else(|| self.far.peek().map(day));
        let Some(next) = next else { return };
        self.edge = next + 1;
        self.ring.take(next, &mut self.near);
        while let Some(entry) = self.far.peek().copied() {
            if day(&entry) >= self.edge.saturating_add(DAYS as u64) {
                break;
            }
            self.far.pop();
            self.place(entry);
        }
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

    /// When the next thing is due. O(1).
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.near.peek().map(|(key, _)| at(key.0))
    }

    /// Takes the next thing. O(log of those of its day).
    pub(crate) fn pop(&mut self) -> Option<(Time, T)> {
        let (key, place) = self.near.pop()?;
        if self.near.is_empty() {
            self.turn();
        }
        let item = self.items.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some((at(key.0), item))
    }
}

/// The days of the calendar after the current one, each unsorted; none until the first is used.
#[derive(Debug, Default)]
struct Ring {
    days: Vec<Vec<Entry>>,
    /// A bit for each day that has anything.
    used: Vec<u64>,
    len: usize,
}

impl Ring {
    fn push(&mut self, day: u64, entry: Entry) {
        if self.days.is_empty() {
            self.days.resize_with(DAYS, Vec::new);
            self.used.resize(DAYS / 64, 0);
        }
        let place = Self::place(day);
        if let (Some(entries), Some(used)) =
            (self.days.get_mut(place), self.used.get_mut(place / 64))
        {
            entries.push(entry);
            *used |= 1 << (place % 64);
            self.len += 1;
        }
    }

    /// The first day that has anything, of those from `edge` on.
    fn first_from(&self, edge: u64) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let start = Self::place(edge);
        let (word, bit) = (start / 64, start % 64);
        // The word of the edge comes twice: first what is from the edge on, last what is before.
        let words = (0..=self.used.len()).map(|step| {
            let used = self.used.get((word + step) % self.used.len()).copied().unwrap_or(0);
            let masked = if step == 0 { used & u64::MAX << bit } else { used };
            (step * 64, masked)
        });
        let found = words.into_iter().find(|(_, used)| *used != 0);
        found.map(|(ahead, used)| {
            edge - bit as u64 + (ahead as u64) + u64::from(used.trailing_zeros())
        })
    }

    /// Moves what a day has into an empty heap.
    fn take(&mut self, day: u64, into: &mut BinaryHeap<Entry>) {
        let place = Self::place(day);
        if let (Some(entries), Some(used)) =
            (self.days.get_mut(place), self.used.get_mut(place / 64))
        {
            self.len -= entries.len();
            *used &= !(1 << (place % 64));
            // The memory of the one is the other's from now on, unless a herd made it long.
            let mut empty = std::mem::take(into).into_vec();
            if empty.capacity() > LONG {
                empty = Vec::new();
            }
            *into = std::mem::replace(entries, empty).into();
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are meant")]
    const fn place(day: u64) -> usize {
        day as usize % DAYS
    }
}

fn day(entry: &Entry) -> u64 {
    at(entry.0.0).as_nanos() >> DAY_BITS
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
    use std::collections::BTreeMap;

    use super::*;

    impl Tied for u64 {}

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

    /// Bursts, ties and long waits, each alone and mixed, with few and with many waiting.
    #[test]
    fn it_gives_what_a_sorted_map_would() {
        const SPANS: [u64; 6] = [0, 1, 900_000, 20_000_000, 4_290_000_000, 9_000_000_000];
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for (count, spread) in [(30, 1), (400, 1), (3_000, 1), (3_000, 4_000), (20_000, 50_000)] {
            let (mut queue, mut model) = (Queue::new(None), BTreeMap::new());
            let mut now = 0;
            for n in 0..30_000_u64 {
                while model.len() < count && n < 20_000 || model.is_empty() {
                    let place = usize::try_from(random(6)).unwrap();
                    let span = SPANS[place] * spread / 4;
                    let at = now + random(1 + span);
                    let rank = if random(4) == 0 { Rank::Wake } else { Rank::World };
                    let name = queue.sequence;
                    queue.push(Time::from_nanos(at), rank, name);
                    model.insert((at, rank as u8, name), ());
                }
                let ((at, _, name), ()) = model.pop_first().unwrap();
                assert_eq!(queue.next_at(), Some(Time::from_nanos(at)));
                assert_eq!(queue.pop(), Some((Time::from_nanos(at), name)));
                now = at;
            }
        }
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
