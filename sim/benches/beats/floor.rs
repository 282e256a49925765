//! The least that a simulator of steady beats must do: a queue, a number for each peer, a digest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

/// So many peers, one beat of each in a period, for so long.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) peers: u32,
    pub(crate) period: u64,
    pub(crate) seconds: u64,
}

/// A time, and a peer with a bit for what it is: its timer, or the delivery of what it sent.
type Entry = (u64, u32);

pub(crate) trait Queue {
    fn push(&mut self, entry: Entry);
    fn pop(&mut self) -> Option<Entry>;
}

impl Load {
    /// Two of each beat.
    pub(crate) fn events(&self) -> u64 {
        2 * u64::from(self.peers) * self.seconds * 1_000_000_000 / self.period
    }

    /// Delivers all beats; the digest of their order.
    pub(crate) fn run(&self, mut queue: impl Queue) -> u64 {
        let end = self.seconds * 1_000_000_000;
        let mut peers = vec![(0_u64, 0_u32); self.peers as usize];
        let mut digest = 0_u64;
        for peer in 0..self.peers {
            queue.push((mix(peer.into()) % self.period, 2 * peer));
        }
        while let Some((now, what)) = queue.pop() {
            let (peer, delivery) = (what / 2, what % 2 == 1);
            let (last_heard, beats) = &mut peers[peer as usize];
            if delivery {
                *last_heard = now;
                digest = (digest.rotate_left(5) ^ now ^ u64::from(peer)).wrapping_mul(MIX);
                continue;
            }
            *beats += 1;
            let latency = 10_000_000 + mix(u64::from(peer) << 32 | u64::from(*beats)) % 10_000_000;
            queue.push((now + latency, what + 1));
            if now + self.period < end {
                queue.push((now + self.period, what));
            }
        }
        black_box(&peers);
        digest
    }
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(number: u64) -> u64 {
    let mixed = (number ^ 0x5eed).wrapping_mul(MIX);
    (mixed ^ mixed >> 29).wrapping_mul(MIX) >> 20
}

/// The standard library's heap.
#[derive(Default)]
pub(crate) struct Heap(BinaryHeap<Reverse<Entry>>);

impl Queue for Heap {
    fn push(&mut self, entry: Entry) {
        self.0.push(Reverse(entry));
    }

    fn pop(&mut self) -> Option<Entry> {
        self.0.pop().map(|entry| entry.0)
    }
}

const DAY_BITS: u32 = 20;

/// Days of a millisecond in a ring that is longer than the load's period; the present day is sorted,
/// latest first.
pub(crate) struct Calendar {
    days: Vec<Vec<Entry>>,
    today: u64,
    run: Vec<Entry>,
    len: usize,
}

impl Calendar {
    pub(crate) fn for_load(load: &Load) -> Self {
        let days = ((load.period >> DAY_BITS) as usize + 32).next_power_of_two().max(4_096);
        Self { days: vec![Vec::new(); days], today: 0, run: Vec::new(), len: 0 }
    }
}

impl Queue for Calendar {
    fn push(&mut self, entry: Entry) {
        let day = entry.0 >> DAY_BITS;
        if day < self.today {
            let place = self.run.partition_point(|other| *other > entry);
            return self.run.insert(place, entry);
        }
        self.len += 1;
        let place = day as usize & (self.days.len() - 1);
        self.days[place].push(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        while self.run.is_empty() {
            if self.len == 0 {
                return None;
            }
            let place = self.today as usize & (self.days.len() - 1);
            std::mem::swap(&mut self.run, &mut self.days[place]);
            self.today += 1;
            self.len -= self.run.len();
            self.run.sort_unstable_by(|one, other| other.cmp(one));
        }
        self.run.pop()
    }
}

/// Both deliver the same beats in the same order.
pub(crate) fn agree(load: &Load) -> bool {
    load.run(Calendar::for_load(load)) == load.run(Heap::default())
}
