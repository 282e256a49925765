//! Bags of timers in blocks of one size, so that no bag has memory of its own.
//!
//! A bag is a chain of blocks, all full but the last; the blocks of all bags come from one pool and go
//! back to it. Who leaves is replaced by the last, so a bag has no order. Steady work allocates
//! nothing once the pool is as large as it ever was.

use alloc::vec::Vec;

use crate::container::timers::{Timer, TimerKind};
use crate::time::Time;

/// Timers in a block: four cache lines with its links.
const BLOCK: usize = 10;
/// No block.
const NONE: u32 = u32::MAX;
/// The bits of a spot that count within its block.
const INDEX_BITS: u32 = 4;
/// The most blocks that a spot can tell apart, with a bit to spare.
const MAX_BLOCKS: usize = 1 << 27;

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Block {
    timers: [Timer; BLOCK],
    /// The bag that it is part of.
    bag: u32,
    /// The block before it in its bag, or in the pool.
    previous: u32,
}

impl Block {
    const EMPTY: Self = Self {
        timers: [Timer { deadline: Time::ZERO, sequence: 0, kind: TimerKind::Peer, slot: 0 };
            BLOCK],
        bag: NONE,
        previous: NONE,
    };
}

/// One of the bags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bag {
    /// No deadline in it is earlier.
    pub(crate) earliest: Time,
    /// The last block.
    tail: u32,
    pub(crate) len: u32,
    /// Whether the one that `earliest` is of may have been taken out.
    pub(crate) is_rough: bool,
}

impl Bag {
    pub(crate) const EMPTY: Self =
        Self { earliest: Time::MAX, tail: NONE, len: 0, is_rough: false };

    /// The place of the last in the last block.
    const fn last(&self) -> usize {
        (self.len as usize).wrapping_sub(1) % BLOCK
    }
}

/// Where in the blocks a timer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot(pub(crate) u32);

impl Spot {
    #[expect(clippy::cast_possible_truncation, reason = "an index within a block")]
    const fn new(block: u32, index: usize) -> Self {
        Self(block << INDEX_BITS | index as u32)
    }

    const fn block(self) -> usize {
        (self.0 >> INDEX_BITS) as usize
    }

    const fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize
    }
}

/// All bags, and the blocks that they are made of.
#[derive(Clone, Debug)]
pub(crate) struct Bags {
    bags: Vec<Bag>,
    pool: Vec<Block>,
    /// The first block that no bag has; each names the next.
    free: u32,
}

impl Default for Bags {
    fn default() -> Self {
        Self { bags: Vec::new(), pool: Vec::new(), free: NONE }
    }
}

impl Bags {
    /// There are so many bags from now on.
    pub(crate) fn lay_out(&mut self, bags: usize) {
        self.bags = alloc::vec![Bag::EMPTY; bags];
    }

    pub(crate) const fn are_laid_out(&self) -> bool {
        !self.bags.is_empty()
    }

    pub(crate) fn bag(&self, bag: usize) -> &Bag {
        &self.bags[bag]
    }

    /// Whether another block could be needed and not be had.
    pub(crate) const fn are_full(&self) -> bool {
        self.free == NONE && self.pool.len() >= MAX_BLOCKS
    }

    pub(crate) fn get(&self, spot: Spot) -> Option<&Timer> {
        self.pool.get(spot.block())?.timers.get(spot.index())
    }

    /// Puts a timer into a bag.
    pub(crate) fn push(&mut self, bag: usize, timer: Timer) -> Spot {
        let own = &mut self.bags[bag];
        own.earliest = own.earliest.min(timer.deadline);
        own.len += 1;
        let index = own.last();
        if index == 0 {
            let previous = own.tail;
            let block = self.take_block();
            self.bags[bag].tail = block;
            let fresh = &mut self.pool[block as usize];
            (fresh.bag, fresh.previous) = (u32::try_from(bag).unwrap_or(NONE), previous);
        }
        let tail = self.bags[bag].tail;
        self.pool[tail as usize].timers[index] = timer;
        Spot::new(tail, index)
    }

    /// Takes a timer out of its bag, which it names; and the one that stands there now, if another
    /// does.
    pub(crate) fn take(&mut self, spot: Spot) -> (usize, Option<Timer>) {
        let bag = self.pool[spot.block()].bag as usize;
        let own = self.bags[bag];
        let gone = self.pool[spot.block()].timers[spot.index()];
        let moved = self.pop(bag).filter(|_| Spot::new(own.tail, own.last()) != spot);
        if let Some(moved) = moved {
            self.pool[spot.block()].timers[spot.index()] = moved;
            self.bags[bag].is_rough = own.is_rough || gone.deadline <= own.earliest;
        }
        (bag, moved)
    }

    /// Takes out the last of a bag.
    pub(crate) fn pop(&mut self, bag: usize) -> Option<Timer> {
        let own = &mut self.bags[bag];
        if own.len == 0 {
            return None;
        }
        let (tail, index) = (own.tail, own.last());
        own.len -= 1;
        let block = &mut self.pool[tail as usize];
        let timer = block.timers[index];
        if index == 0 {
            self.bags[bag].tail = block.previous;
            (block.bag, block.previous) = (NONE, self.free);
            self.free = tail;
        }
        let own = &mut self.bags[bag];
        own.is_rough |= timer.deadline <= own.earliest;
        if own.len == 0 {
            *own = Bag::EMPTY;
        }
        Some(timer)
    }

    /// Looks for the earliest of a bag anew.
    pub(crate) fn refine(&mut self, bag: usize) {
        let earliest = self.iter(bag).map(|timer| timer.deadline).min();
        let own = &mut self.bags[bag];
        (own.earliest, own.is_rough) = (earliest.unwrap_or(Time::MAX), false);
    }

    /// The timers of a bag.
    pub(crate) fn iter(&self, bag: usize) -> impl Iterator<Item = &Timer> {
        let own = self.bags[bag];
        let mut used = own.last() + 1;
        let mut block = own.tail;
        core::iter::from_fn(move || {
            let own = self.pool.get(block as usize)?;
            block = own.previous;
            Some(&own.timers[..core::mem::replace(&mut used, BLOCK)])
        })
        .flatten()
    }

    /// The timers of all bags.
    pub(crate) fn iter_all(&self) -> impl Iterator<Item = &Timer> {
        let used = (0..self.bags.len()).filter(|&bag| self.bags[bag].len > 0);
        used.flat_map(|bag| self.iter(bag))
    }

    /// Makes room for so many timers in all, and for a block of each bag that is not full.
    pub(crate) fn reserve(&mut self, timers: usize) {
        let blocks = timers.div_ceil(BLOCK) + self.bags.len();
        let _ = self.pool.try_reserve_exact(blocks.saturating_sub(self.pool.len()));
    }

    /// For how many timers there is memory.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.pool.capacity() * BLOCK
    }

    fn take_block(&mut self) -> u32 {
        match self.pool.get(self.free as usize) {
            Some(block) => core::mem::replace(&mut self.free, block.previous),
            None => {
                self.pool.push(Block::EMPTY);
                u32::try_from(self.pool.len() - 1).unwrap_or(NONE)
            }
        }
    }
}
