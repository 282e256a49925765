//! Records in numbered slots, with the free list as plain data.
//!
//! A library's slab rebuilds its free list on load, so a restored manager would issue other slots
//! than the original; here the list is part of the state.

use alloc::vec::Vec;
#[cfg(test)]
use core::cell::Cell;
use core::ops::{Index, IndexMut};

use crate::id::MAX_SLOTS;

/// Records in slots; a freed slot is the next one taken.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    len: u32,
    /// How often a record was looked at, for tests on the work of a step.
    #[cfg(test)]
    pub(crate) visits: Cell<u64>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
            #[cfg(test)]
            visits: Cell::new(0),
        }
    }

    /// The slab with these slots; `None` if `free` names a slot that is in use, absent or named
    /// before. An empty slot that it does not name is retired.
    pub(crate) fn from_parts(slots: Vec<Option<T>>, free: Vec<u32>) -> Option<Self> {
        let mut listed = alloc::vec![false; slots.len()];
        for &slot in &free {
            let index = usize::try_from(slot).ok()?;
            let (entry, listed) = (slots.get(index)?, listed.get_mut(index)?);
            if entry.is_some() || core::mem::replace(listed, true) {
                return None;
            }
        }
        let len = u32::try_from(slots.iter().flatten().count()).ok()?;
        (slots.len() <= MAX_SLOTS as usize).then_some(Self {
            slots,
            free,
            len,
            #[cfg(test)]
            visits: Cell::new(0),
        })
    }

    /// The slab with each record turned into another.
    pub(crate) fn map<R>(self, mut turn: impl FnMut(T) -> R) -> Slab<R> {
        let slots = self.slots.into_iter().map(|entry| entry.map(&mut turn)).collect();
        Slab {
            slots,
            free: self.free,
            len: self.len,
            #[cfg(test)]
            visits: self.visits,
        }
    }

    /// Makes room for so many records in all.
    pub(crate) fn reserve(&mut self, records: usize) {
        let _ = self.slots.try_reserve_exact(records.saturating_sub(self.slots.len()));
        let _ = self.free.try_reserve_exact(records.saturating_sub(self.free.len()));
    }

    /// All slots, and the free ones in the order of their release.
    pub(crate) fn parts(&self) -> (&[Option<T>], &[u32]) {
        (&self.slots, &self.free)
    }

    /// Records held.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// The slot that the next insertion takes.
    pub(crate) fn next_slot(&self) -> u32 {
        let fresh = u32::try_from(self.slots.len()).unwrap_or(MAX_SLOTS);
        self.free.last().copied().unwrap_or(fresh)
    }

    /// Puts a record into [`next_slot`](Self::next_slot).
    ///
    /// The caller has checked its own bound, which lies below [`MAX_SLOTS`].
    pub(crate) fn insert(&mut self, record: T) -> u32 {
        let slot = self.next_slot();
        match self.free.pop() {
            Some(_) => {
                if let Some(entry) = self.slots.get_mut(slot as usize) {
                    *entry = Some(record);
                }
            }
            None => self.slots.push(Some(record)),
        }
        self.len += 1;
        slot
    }

    /// Takes the record out; its slot may be taken again.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let record = self.retire(slot)?;
        self.free.push(slot);
        Some(record)
    }

    /// Takes the record out; its slot is never taken again.
    pub(crate) fn retire(&mut self, slot: u32) -> Option<T> {
        let record = self.slots.get_mut(slot as usize)?.take()?;
        self.len -= 1;
        Some(record)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.visit();
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.visit();
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The records in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    #[cfg(test)]
    fn visit(&self) {
        self.visits.set(self.visits.get() + 1);
    }

    #[cfg(not(test))]
    #[inline]
    #[expect(clippy::unused_self, reason = "counts in tests")]
    const fn visit(&self) {}
}

/// A record that the caller knows to be there: slots inside the manager come from its own queues
/// and records, which `check()` holds to it.
impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[expect(clippy::expect_used, reason = "a broken invariant of ours, not an input")]
    fn index(&self, slot: u32) -> &T {
        self.get(slot).expect("slot in use")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[expect(clippy::expect_used, reason = "a broken invariant of ours, not an input")]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.get_mut(slot).expect("slot in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_made_where_there_is_no_memory_for_it() {
        let mut slab = Slab::<[u64; usize::MAX >> 8]>::new();
        slab.reserve(1 << 27);
        assert_eq!((slab.len(), slab.slots.capacity()), (0, 0));
    }

    #[test]
    fn a_freed_slot_is_the_next_one_taken() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.next_slot(), a);
        assert_eq!(slab.insert('c'), a);
        assert_eq!((slab[a], slab[b], slab.len()), ('c', 'b', 2));
    }

    #[test]
    fn it_is_rebuilt_from_its_parts_and_from_no_others() {
        let mut slab = Slab::new();
        for letter in ['a', 'b', 'c'] {
            slab.insert(letter);
        }
        slab.remove(2);
        slab.remove(0);
        let (slots, free) = slab.parts();
        let mut copy = Slab::from_parts(slots.to_vec(), free.to_vec()).unwrap();
        assert_eq!((copy.insert('x'), copy.insert('y'), copy.insert('z')), (0, 2, 3));
        for free in [&[0, 0][..], &[1], &[0, 2, 2], &[9]] {
            assert!(Slab::from_parts(slots.to_vec(), free.to_vec()).is_none(), "{free:?}");
        }
    }
}
