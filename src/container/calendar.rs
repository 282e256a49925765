//! Deadlines in exact order, any of which may be taken back: a calendar of heaps.
//!
//! A few stand in one heap. Once they are many, each millisecond of the next four seconds has a heap
//! of its own, each two seconds of the next two hours has one, and what comes later shares the last.
//! The first of all is the least of three heads. As time goes on, each deadline taken moves a few of
//! the next two seconds to their milliseconds; one that was not moved in time is taken from where it
//! is. So nothing ever waits for a sort or a cascade. The two rings take 200 KB, once, when the 257th
//! deadline comes. A heap that empties leaves its memory to the next; one that gets longer than any
//! before grows, so that growing becomes rare and never quite ends.
//!
//! Rejected: one heap (a cache miss a level, ten of them at a million); a hierarchical wheel (its
//! worst step moves a whole slot, and its next deadline is only a guess once one was taken back); a
//! heap with stale entries (a flapper with long timeouts piles them up without bound).

use alloc::vec::Vec;

use crate::container::timers::Timer;
use crate::time::Time;

/// A day has 2^20 ns, about a millisecond.
const DAY_BITS: u32 = 20;
/// A month has 2^11 days, about two seconds.
const MONTH_BITS: u32 = 11;
/// The days, and likewise the months, that have heaps of their own. Two months of days, so that the
/// next month's days are there before it begins.
const RING: usize = 4_096;
/// The words of a bit for each.
const WORDS: usize = RING / 64;
/// The heap of what is later than all months, and of all while there are few.
const LATER: usize = 0;
/// So many are more than one heap does best.
const MANY: usize = 256;
/// An emptied heap keeps its memory for the next one that is needed, up to so many timers or a part of
/// all that there are: what a herd made longer gives it back.
const KEPT: usize = 1_024;
const KEPT_DAY: usize = 256;
const KEPT_MONTH: usize = 2;
/// How many one step moves to their days: four can be fetched from memory at once.
const MOVES: usize = 4;
/// Children of a heap's node.
const ARITY: usize = 4;

/// Where a deadline stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    heap: u32,
    index: u32,
}

impl Place {
    /// In no heap.
    pub(crate) const NOWHERE: Self = Self { heap: u32::MAX, index: u32::MAX };

    pub(crate) const fn is_somewhere(self) -> bool {
        self.heap != u32::MAX
    }
}

/// Keeps note of where each deadline stands.
pub(crate) trait Places {
    fn put(&mut self, timer: &Timer, place: Place);
}

#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    /// [`LATER`], then the days, then the months; only the first while there are few.
    heaps: Vec<Vec<Timer>>,
    days: Ring,
    months: Ring,
    /// Where the rings begin. Insertions move it on, never past the first deadline and never back;
    /// what is due before lies in its heap.
    today: u64,
    /// The least of the heads, at all times.
    first: Option<Timer>,
    len: usize,
}

impl Default for Calendar {
    fn default() -> Self {
        let heaps = alloc::vec![Vec::new()];
        let (days, months) = (Ring::default(), Ring::default());
        Self { heaps, days, months, today: 0, first: None, len: 0 }
    }
}

impl Calendar {
    /// The first of all. O(1).
    #[inline]
    pub(crate) const fn first(&self) -> Option<&Timer> {
        self.first.as_ref()
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Timer> {
        self.heaps.get(place.heap as usize)?.get(place.index as usize)
    }

    /// All, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Timer> {
        self.heaps.iter().flatten()
    }

    /// Takes in a timer.
    pub(crate) fn insert(&mut self, timer: Timer, now: Time, places: &mut impl Places) {
        let first = self.first.map_or(u64::MAX, |first| day(first.deadline));
        self.today = self.today.max(day(now).min(first));
        self.push(self.heap_of(timer.deadline), timer, places);
        if self.first.is_none_or(|first| order(&timer) < order(&first)) {
            self.first = Some(timer);
        }
        self.len += 1;
        if self.heaps.len() == 1 && self.len > MANY {
            self.spread(places);
        }
    }

    /// Takes out the first, which stands there, and moves some of those that follow to their days.
    pub(crate) fn pop(&mut self, place: Place, places: &mut impl Places) {
        self.remove(place, places);
        if !self.months.is_used() {
            return;
        }
        let month = self.today >> MONTH_BITS;
        let mut left = MOVES;
        for month in [month, month + 1] {
            let heap = month_heap(month);
            while left > 0
                && self.months.has(month)
                && let Some(timer) = self.heaps.get_mut(heap).and_then(Vec::pop)
            {
                left -= 1;
                self.mark(heap);
                self.push(self.heap_of(timer.deadline), timer, places);
            }
        }
    }

    /// Takes out the one that stands there.
    pub(crate) fn remove(&mut self, place: Place, places: &mut impl Places) {
        let (heap, index) = (place.heap as usize, place.index as usize);
        let Some(timers) = self.heaps.get_mut(heap) else { return };
        if index >= timers.len() {
            return;
        }
        let gone = timers.swap_remove(index);
        places.put(&gone, Place::NOWHERE);
        if index < timers.len() {
            let index = sift_up(timers, heap, index, places);
            sift_down(timers, heap, index, places);
        } else {
            self.mark(heap);
        }
        self.len -= 1;
        if self.first.is_some_and(|first| order(&first) == order(&gone)) {
            self.first = self.least();
        }
    }

    /// The least of the heads.
    fn least(&self) -> Option<Timer> {
        let head = |heap: usize| self.heaps.get(heap)?.first();
        let day = self.days.first_from(self.today);
        let month = self.months.first_from(self.today >> MONTH_BITS);
        // A month that begins after the day has nothing to say, and mostly it does.
        let month = month.filter(|month| day.is_none_or(|day| *month <= day >> MONTH_BITS));
        let mut least = head(LATER);
        for heap in [day.map(day_heap), month.map(month_heap)].into_iter().flatten() {
            let own = head(heap);
            if least.is_none_or(|least| own.is_some_and(|own| order(own) < order(least))) {
                least = own;
            }
        }
        least.copied()
    }

    /// The heap of a deadline; of one that has passed, today's.
    fn heap_of(&self, deadline: Time) -> usize {
        if self.heaps.len() == 1 {
            return LATER;
        }
        let day = day(deadline).max(self.today);
        let month = day >> MONTH_BITS;
        if day - self.today < RING as u64 {
            day_heap(day)
        } else if month - (self.today >> MONTH_BITS) < RING as u64 {
            month_heap(month)
        } else {
            LATER
        }
    }

    fn push(&mut self, heap: usize, timer: Timer, places: &mut impl Places) {
        if heap != LATER
            && let Some(timers) = self.heaps.get_mut(heap).filter(|timers| timers.capacity() == 0)
            && let Some(spare) = ring_of(heap, &mut self.days, &mut self.months).0.spare.pop()
        {
            *timers = spare;
        }
        let Some(timers) = self.heaps.get_mut(heap) else { return };
        timers.push(timer);
        let last = timers.len() - 1;
        sift_up(timers, heap, last, places);
        if last == 0 {
            self.mark(heap);
        }
    }

    /// Notes whether the heap has anything; if not, its memory is for others.
    fn mark(&mut self, heap: usize) {
        let Some(timers) = self.heaps.get_mut(heap).filter(|_| heap != LATER) else { return };
        let (ring, place, part) = ring_of(heap, &mut self.days, &mut self.months);
        ring.mark(place, !timers.is_empty());
        if timers.is_empty() {
            let spare = core::mem::take(timers);
            if spare.capacity() <= KEPT.max(self.len / part) {
                ring.spare.push(spare);
            }
        }
    }

    /// For how many timers it has memory.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        let spare = self.days.spare.iter().chain(&self.months.spare);
        self.heaps.iter().chain(spare).map(Vec::capacity).sum()
    }

    /// Every deadline gets the heap of its own day or month.
    fn spread(&mut self, places: &mut impl Places) {
        let all = self.heaps.first_mut().map(core::mem::take).unwrap_or_default();
        self.heaps.resize_with(1 + 2 * RING, Vec::new);
        (self.days, self.months) = (Ring::empty(), Ring::empty());
        for timer in all {
            self.push(self.heap_of(timer.deadline), timer, places);
        }
    }
}

const fn day(deadline: Time) -> u64 {
    deadline.as_nanos() >> DAY_BITS
}

const fn day_heap(day: u64) -> usize {
    1 + ring_place(day)
}

const fn month_heap(month: u64) -> usize {
    1 + RING + ring_place(month)
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are meant")]
const fn ring_place(number: u64) -> usize {
    number as usize % RING
}

pub(crate) const fn order(timer: &Timer) -> (Time, u64) {
    (timer.deadline, timer.sequence)
}

fn put(timers: &mut [Timer], heap: usize, index: usize, timer: Timer, places: &mut impl Places) {
    timers[index] = timer;
    let place = |number| u32::try_from(number).unwrap_or(u32::MAX);
    places.put(&timer, Place { heap: place(heap), index: place(index) });
}

fn sift_up(timers: &mut [Timer], heap: usize, mut index: usize, places: &mut impl Places) -> usize {
    let moving = timers[index];
    while index > 0 {
        let parent = (index - 1) / ARITY;
        let above = timers[parent];
        if order(&above) <= order(&moving) {
            break;
        }
        put(timers, heap, index, above, places);
        index = parent;
    }
    put(timers, heap, index, moving, places);
    index
}

fn sift_down(timers: &mut [Timer], heap: usize, mut index: usize, places: &mut impl Places) {
    let moving = timers[index];
    loop {
        let first = index * ARITY + 1;
        let last = (first + ARITY).min(timers.len());
        let least = (first..last).min_by_key(|&child| order(&timers[child]));
        let Some(child) = least.filter(|&child| order(&timers[child]) < order(&moving)) else {
            break;
        };
        put(timers, heap, index, timers[child], places);
        index = child;
    }
    put(timers, heap, index, moving, places);
}

/// The ring of a heap that is not [`LATER`], its place there, and which part of all a spare may hold.
const fn ring_of<'a>(
    heap: usize,
    days: &'a mut Ring,
    months: &'a mut Ring,
) -> (&'a mut Ring, usize, usize) {
    if heap <= RING { (days, heap - 1, KEPT_DAY) } else { (months, heap - 1 - RING, KEPT_MONTH) }
}

/// Which heaps of a ring have anything: a bit for each, and a bit for each word of those.
#[derive(Clone, Debug, Default)]
struct Ring {
    used: Vec<u64>,
    words: u64,
    /// The memory of emptied heaps, by which a month passes it on to the next one.
    spare: Vec<Vec<Timer>>,
}

impl Ring {
    fn empty() -> Self {
        Self { used: alloc::vec![0; WORDS], words: 0, spare: Vec::new() }
    }

    const fn is_used(&self) -> bool {
        self.words != 0
    }

    fn has(&self, number: u64) -> bool {
        let place = ring_place(number);
        self.used[place / 64] & 1 << (place % 64) != 0
    }

    fn mark(&mut self, place: usize, used: bool) {
        let (index, bit) = (place / 64, 1 << (place % 64));
        let word = &mut self.used[index];
        *word = if used { *word | bit } else { *word & !bit };
        let bit = 1 << index;
        self.words = if *word != 0 { self.words | bit } else { self.words & !bit };
    }

    /// The first day or month from `start` on whose heap has anything. O(1).
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
