//! Deadlines in exact order, any of which may be taken back: a calendar whose days are sorted when
//! they come.
//!
//! A few stand in one heap. Once they are many, each millisecond of the next two seconds has a bag of
//! its own, each second of the next half hour has one, and each quarter of an hour of the next weeks:
//! a deadline goes to the finest that reaches so far, and whoever takes it back takes it out of there.
//! When a day comes it is sorted into the run, from whose front deadlines are taken; what is set for a
//! day that has come goes to the heap, and the first of all is the lesser of two. What is taken back
//! from these two stays as a dead entry until it would come next, which is soon.
//!
//! Each deadline taken moves a few of the next second to their days, so that a second that comes is
//! mostly empty. What is left of it, and a day to be sorted, is [`catch_up`](Calendar::catch_up)'s
//! work: in pieces, because a million deadlines of one moment must not hold one step up. Until it is
//! done nothing is taken, so pieces change no order.
//!
//! The next deadline is exact while few stand in a bag; of a crowded one whose earliest was taken back
//! it may be too early, by less than what the bag spans. Of what lies further ahead than the bags
//! reach, it is the end of the last of them.
//!
//! Rejected: one heap (a cache miss a level, ten of them at a million); heaps in place of bags (each
//! move within one writes down where the moved one is: a cache miss a level again); a wheel that
//! leaves what was taken back where it is (a flapper with long timeouts piles it up without bound).
//!
//! Source: Brown, *Calendar Queues*, CACM 31(10), 1988; Tang, Goh and Thng, *Ladder Queue*, 2005.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::container::blocks::{Bags, Spot};
use crate::container::timers::{Timer, TimerKind};
use crate::time::Time;

/// A day has 2^20 ns, about a millisecond.
const DAY_BITS: u32 = 20;
/// 2^10 days make a month, 2^10 months a year.
const LEVEL_BITS: u32 = 10;
/// Days, months, years.
const LEVELS: usize = 3;
/// The bags of a level. Two of the next level's, so that the bags of what comes next are there before
/// it begins.
const RING: usize = 2 << LEVEL_BITS;
/// The words of a bit for each.
const WORDS: usize = RING / 64;
/// So many are more than one heap does best.
const MANY: usize = if cfg!(test) { 256 } else { 4_096 };
/// The most of one day that are sorted; of a herd the others go to the heap.
const SORTED: u32 = 4_096;
/// What is looked through for its earliest.
const LOOKED_THROUGH: u32 = 32;
/// How many of the next month one that is taken moves, and half as many of the next year: so many can
/// be fetched from memory at once.
const MOVES: u32 = 4;
/// How many deadlines are moved for one unit of work.
const MOVES_A_UNIT: u32 = 32;
/// How many are sorted for one.
const SORTS_A_UNIT: u32 = 64;
/// So many dead entries are not worth a sweep.
const FEW_DEAD: usize = 32;
/// How many dead entries one look skips.
const SKIPS: u32 = 64;

/// Where a deadline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    const SORTED: u32 = 1 << 31;

    /// Nowhere: not armed.
    pub(crate) const NOWHERE: Self = Self(u32::MAX);

    /// In the run or in the heap, under the lowest bits of its sequence.
    #[expect(clippy::cast_possible_truncation, reason = "less than the modulus")]
    const fn sorted(timer: &Timer) -> Self {
        Self((timer.sequence % (Self::SORTED as u64 - 1)) as u32 | Self::SORTED)
    }

    const fn spot(self) -> Option<Spot> {
        if self.0 < Self::SORTED { Some(Spot(self.0)) } else { None }
    }
}

/// Keeps note of where each deadline stands.
pub(crate) trait Places {
    fn put(&mut self, timer: &Timer, place: Place);
    fn get(&self, timer: &Timer) -> Place;
}

#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    /// What stands in no bag: all while they are few, then what was set for a day that had come, and
    /// of a herd's day what was not sorted.
    heap: BinaryHeap<Reverse<Timer>>,
    /// The days that have come, in order, from `taken` on.
    run: Vec<Timer>,
    taken: usize,
    /// How far somebody has read ahead in it.
    touched: usize,
    /// By level and place in its ring.
    bags: Bags,
    rings: [Ring; LEVELS],
    /// The day that the rings begin with: no bag is of an earlier one.
    today: u64,
    /// When the first bag that has anything begins, or earlier; never if none has.
    begins: Time,
    /// The earliest deadline in a bag, or earlier.
    earliest: Time,
    /// The least of that and of the first entry's deadline.
    next: Time,
    /// How many entries of the heap and the run are dead.
    dead: usize,
    /// Whether the first entry of the heap or of the run may be dead.
    is_stale: bool,
}

impl Default for Calendar {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            run: Vec::new(),
            taken: 0,
            touched: 0,
            bags: Bags::default(),
            rings: Default::default(),
            today: 0,
            begins: Time::MAX,
            earliest: Time::MAX,
            next: Time::MAX,
            dead: 0,
            is_stale: false,
        }
    }
}

impl Calendar {
    /// The first of the days that have come, and of what stands in no bag. Right once
    /// [`is_behind`](Self::is_behind) says no.
    #[inline]
    pub(crate) fn first(&self) -> Option<&Timer> {
        let heap = self.heap.peek().map(|Reverse(timer)| timer);
        match (self.run.get(self.taken), heap) {
            (Some(run), Some(heap)) => Some(run.min(heap)),
            (run, heap) => run.or(heap),
        }
    }

    /// When the first of all is due; see the module for when it is too early.
    pub(crate) fn next(&self) -> Option<Time> {
        let any = self.next < Time::MAX || self.first().is_some() || self.has_bags();
        any.then_some(self.next)
    }

    /// The same; the end of time also if there is none.
    #[inline]
    pub(crate) const fn next_or_end(&self) -> Time {
        self.next
    }

    /// Whether nothing is due at `now`, nor any work.
    #[inline]
    pub(crate) const fn is_quiet(&self, now: Time) -> bool {
        self.next.as_nanos() > now.as_nanos() && !self.is_behind(now)
    }

    /// Whether there is work to do before what is due at `now` can be taken.
    #[inline]
    pub(crate) const fn is_behind(&self, now: Time) -> bool {
        let has_begun = self.begins.as_nanos() <= now.as_nanos();
        self.is_stale || has_begun && self.has_bags()
    }

    /// Whether any bag has anything.
    const fn has_bags(&self) -> bool {
        self.begins.as_nanos() < Time::MAX.as_nanos()
    }

    /// Does a piece of that work and returns how many units it was: of what has come, in order of its
    /// beginning, years and months are moved to finer bags and days are sorted.
    pub(crate) fn catch_up(&mut self, now: Time, places: &mut impl Places) -> u32 {
        if self.is_stale {
            self.skip(places);
            self.look();
            return 1;
        }
        let (first, level) = self.first_bag();
        if first > day(now) {
            // The month that had begun was emptied in the meantime.
            self.refresh();
            return 1;
        }
        self.today = self.today.max(first);
        let units = match level {
            0 => self.open(first, places),
            _ => {
                self.disperse(level, first >> shift(level), MOVES_A_UNIT, now, places);
                1
            }
        };
        self.refresh();
        units
    }

    /// The day with which the first bag that has anything begins, and its level: the coarsest of
    /// those that begin with this day.
    fn first_bag(&self) -> (u64, usize) {
        let mut first = (u64::MAX, 0);
        for level in (0..LEVELS).rev() {
            if let Some(number) = self.first_of(level)
                && number << shift(level) < first.0
            {
                first = (number << shift(level), level);
            }
        }
        first
    }

    /// Looks anew for when the bags begin.
    fn refresh(&mut self) {
        (self.begins, self.earliest) = (Time::MAX, Time::MAX);
        for level in 0..LEVELS {
            if let Some(number) = self.first_of(level) {
                let begins = Time::from_nanos(number << bits(level));
                self.begins = self.begins.min(begins);
                // The last bag also holds what comes later than it ends, and there what comes first
                // may be in another one.
                let ends = Time::from_nanos((number << bits(level)) | ((1 << bits(level)) - 1));
                let earliest = self.bags.bag(bag_of(level, number)).earliest;
                self.earliest = self.earliest.min(earliest.min(ends));
            }
        }
        self.look();
    }

    /// Looks anew for what is next.
    #[inline]
    fn look(&mut self) {
        self.next = self.first().map_or(self.earliest, |first| first.deadline.min(self.earliest));
    }

    /// Takes in a timer.
    pub(crate) fn insert(&mut self, timer: Timer, now: Time, places: &mut impl Places) {
        if !self.bags.are_laid_out() {
            if self.heap.len() < MANY + self.dead {
                return self.push_sorted(timer, places);
            }
            self.lay_out();
        }
        self.roll(now);
        self.place(timer, now, places);
    }

    /// Lets the rings begin as late as they can.
    fn roll(&mut self, now: Time) {
        if self.today < day(now) {
            self.today = self.today.max(day(self.begins.min(now)));
        }
    }

    /// Takes out the first, which the caller has just seen, and moves some of those that follow.
    pub(crate) fn pop(&mut self, now: Time, places: &mut impl Places) -> Option<Timer> {
        let timer = self.pop_entry()?;
        places.put(&timer, Place::NOWHERE);
        if self.dead > 0 {
            self.skip(places);
        }
        self.advance(1, MOVES, now, places);
        self.advance(2, MOVES / 2, now, places);
        self.look();
        Some(timer)
    }

    /// Moves up to so many of what comes next on a level to finer bags.
    #[inline]
    fn advance(&mut self, level: usize, most: u32, now: Time, places: &mut impl Places) {
        if self.rings[level].words != 0 {
            let here = self.today >> shift(level);
            let moved = self.disperse(level, here, most, now, places);
            self.disperse(level, here + 1, most - moved, now, places);
        }
    }

    /// Takes out the one that stands there.
    pub(crate) fn remove(&mut self, timer: &Timer, place: Place, places: &mut impl Places) {
        places.put(timer, Place::NOWHERE);
        let Some(spot) = place.spot() else {
            self.dead += 1;
            self.skip(places);
            return self.look();
        };
        let (bag, moved) = self.bags.take(spot);
        if let Some(moved) = moved {
            places.put(&moved, place);
        }
        let own = self.bags.bag(bag);
        if own.len == 0 {
            self.rings[bag / RING].mark(bag % RING, false);
        } else if own.is_rough && own.len <= LOOKED_THROUGH {
            self.bags.refine(bag);
        } else if !own.is_rough {
            return;
        }
        self.refresh();
    }

    /// The one that stands there, which has this kind and slot. O(1) in a bag; otherwise it is looked
    /// for.
    pub(crate) fn find(&self, key: (TimerKind, u32), place: Place) -> Option<&Timer> {
        match place.spot() {
            Some(spot) => self.bags.get(spot),
            None => self
                .sorted()
                .find(|timer| (timer.kind, timer.slot) == key && Place::sorted(timer) == place),
        }
    }

    /// Reads what stands there, if it is in a bag.
    pub(crate) fn touch(&self, place: Place) -> u64 {
        let timer = place.spot().and_then(|spot| self.bags.get(spot));
        timer.map_or(0, |timer| timer.sequence)
    }

    /// All, in no order that means anything.
    pub(crate) fn iter(&self, places: &impl Places) -> impl Iterator<Item = &Timer> {
        let alive = self.sorted().filter(|timer| places.get(timer) == Place::sorted(timer));
        alive.chain(self.bags.iter_all())
    }

    /// Makes room for so many in all.
    pub(crate) fn reserve(&mut self, timers: usize) {
        if timers > MANY {
            self.lay_out();
            self.bags.reserve(timers);
            let _ = self.run.try_reserve(SORTED as usize);
        }
    }

    /// The bags are there from now on.
    fn lay_out(&mut self) {
        if !self.bags.are_laid_out() {
            self.bags.lay_out(LEVELS * RING);
            self.rings = [Ring::new(), Ring::new(), Ring::new()];
        }
    }

    /// Those that will be taken next, as far as they are sorted.
    pub(crate) fn upcoming(&self) -> &[Timer] {
        self.run.get(self.taken..).unwrap_or_default()
    }

    /// Whether the next in the run are others than when it was last asked, by so many.
    #[inline]
    pub(crate) const fn are_untouched(&mut self, ahead: usize) -> bool {
        let are = self.taken >= self.touched;
        if are {
            self.touched = self.taken + ahead;
        }
        are
    }

    /// For how many timers it has memory.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.heap.capacity() + self.run.capacity() + self.bags.capacity()
    }

    /// The first of a level's bags that has anything.
    #[inline]
    fn first_of(&self, level: usize) -> Option<u64> {
        self.rings[level].first_from(self.today >> shift(level))
    }

    fn sorted(&self) -> impl Iterator<Item = &Timer> {
        self.upcoming().iter().chain(self.heap.iter().map(|Reverse(timer)| timer))
    }

    /// Puts a timer where it belongs.
    fn place(&mut self, timer: Timer, now: Time, places: &mut impl Places) {
        let due = day(timer.deadline);
        if due <= day(now) || due < self.today || self.bags.are_full() {
            return self.push_sorted(timer, places);
        }
        let last = (self.today >> shift(LEVELS - 1)) + RING as u64 - 1;
        let of = |level: usize| (level, due >> shift(level));
        let reaches =
            |&(level, number): &(usize, u64)| number - (self.today >> shift(level)) < RING as u64;
        let finest = (0..LEVELS).map(of).find(reaches);
        let (level, number) = finest.unwrap_or((LEVELS - 1, last));
        let bag = bag_of(level, number);
        if self.bags.bag(bag).len == 0 {
            self.rings[level].mark(bag % RING, true);
        }
        let spot = self.bags.push(bag, timer);
        places.put(&timer, Place(spot.0));
        self.begins = self.begins.min(Time::from_nanos(number << bits(level)));
        self.earliest = self.earliest.min(timer.deadline);
        self.next = self.next.min(timer.deadline);
    }

    fn push_sorted(&mut self, timer: Timer, places: &mut impl Places) {
        places.put(&timer, Place::sorted(&timer));
        self.heap.push(Reverse(timer));
        self.next = self.next.min(timer.deadline);
    }

    /// Moves up to so many from a bag to finer ones, and returns how many it moved.
    fn disperse(
        &mut self,
        level: usize,
        number: u64,
        most: u32,
        now: Time,
        places: &mut impl Places,
    ) -> u32 {
        let bag = bag_of(level, number);
        let moves = most.min(self.bags.bag(bag).len);
        if moves == 0 {
            return 0;
        }
        for _ in 0..moves {
            let Some(timer) = self.bags.pop(bag) else { break };
            if self.bags.bag(bag).len == 0 {
                self.rings[level].mark(bag % RING, false);
            }
            self.place(timer, now, places);
        }
        moves
    }

    /// Sorts what is left of a day that has come; of a herd it moves a part to the heap first.
    fn open(&mut self, day: u64, places: &mut impl Places) -> u32 {
        let bag = bag_of(0, day);
        let len = self.bags.bag(bag).len;
        let moves = len.min(SORTED);
        let herd = len > SORTED;
        if !herd && self.taken > self.run.len() / 2 {
            self.touched = 0;
            self.run.drain(..core::mem::take(&mut self.taken));
        }
        let start = self.run.len();
        for _ in 0..if herd { MOVES_A_UNIT } else { moves } {
            let Some(timer) = self.bags.pop(bag) else { break };
            places.put(&timer, Place::sorted(&timer));
            if herd {
                self.heap.push(Reverse(timer));
            } else {
                self.run.push(timer);
            }
        }
        if herd {
            return 1;
        }
        self.rings[0].mark(bag % RING, false);
        self.run[start..].sort_unstable();
        1 + moves / SORTS_A_UNIT
    }

    /// Drops dead entries from the front, a few at a time.
    fn skip(&mut self, places: &impl Places) {
        let mut left = SKIPS;
        self.is_stale = false;
        while self.dead > 0
            && let Some(first) = self.first().copied()
            && places.get(&first) != Place::sorted(&first)
        {
            if left == 0 {
                self.is_stale = true;
                return;
            }
            left -= 1;
            self.dead -= 1;
            self.pop_entry();
        }
        // Where nothing comes next any more, as while the calendar is stopped, they would pile up.
        if self.dead > FEW_DEAD && self.dead > (self.heap.len() + self.upcoming().len()) / 2 {
            let is_alive = |timer: &Timer| places.get(timer) == Place::sorted(timer);
            self.heap.retain(|Reverse(timer)| is_alive(timer));
            self.touched = 0;
            self.run.drain(..core::mem::take(&mut self.taken));
            self.run.retain(is_alive);
            self.dead = 0;
        }
    }

    /// Takes out the first entry, dead or alive.
    #[inline]
    fn pop_entry(&mut self) -> Option<Timer> {
        let Some(&timer) = self.run.get(self.taken) else {
            return self.heap.pop().map(|Reverse(timer)| timer);
        };
        if self.heap.peek().is_some_and(|Reverse(first)| *first < timer) {
            return self.heap.pop().map(|Reverse(timer)| timer);
        }
        self.taken += 1;
        if self.taken == self.run.len() {
            self.run.clear();
            (self.taken, self.touched) = (0, 0);
        }
        Some(timer)
    }
}

const fn day(deadline: Time) -> u64 {
    deadline.as_nanos() >> DAY_BITS
}

#[expect(clippy::cast_possible_truncation, reason = "there are three levels")]
const fn shift(level: usize) -> u32 {
    LEVEL_BITS * level as u32
}

/// The bits of a moment that a bag of this level spans.
const fn bits(level: usize) -> u32 {
    shift(level) + DAY_BITS
}

const fn bag_of(level: usize, number: u64) -> usize {
    level * RING + ring_place(number)
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are meant")]
const fn ring_place(number: u64) -> usize {
    number as usize % RING
}

/// Which bags of a level have anything: a bit for each, and a bit for each word of those.
#[derive(Clone, Debug, Default)]
struct Ring {
    used: Vec<u64>,
    words: u64,
}

impl Ring {
    fn new() -> Self {
        Self { used: alloc::vec![0; WORDS], words: 0 }
    }

    fn mark(&mut self, place: usize, used: bool) {
        let (index, bit) = (place / 64, 1 << (place % 64));
        let word = &mut self.used[index];
        *word = if used { *word | bit } else { *word & !bit };
        let bit = 1 << index;
        self.words = if *word != 0 { self.words | bit } else { self.words & !bit };
    }

    /// The first from `start` on that has anything. O(1).
    #[inline]
    fn first_from(&self, start: u64) -> Option<u64> {
        if self.words == 0 {
            return None;
        }
        let place = ring_place(start);
        let (index, bit) = (place / 64, place % 64);
        let here = self.used[index] >> bit;
        if here != 0 {
            return Some(start + u64::from(here.trailing_zeros()));
        }
        // From the word that follows, once around and back to this one.
        let next = (index + 1) % WORDS;
        let after = self.words >> next;
        let word = match after {
            0 => self.words.trailing_zeros() as usize,
            _ => next + after.trailing_zeros() as usize,
        };
        let first = word * 64 + self.used[word].trailing_zeros() as usize;
        let steps = (first + RING - place) % RING;
        Some(start + steps as u64)
    }
}
