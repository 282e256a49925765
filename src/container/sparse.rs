//! What few of a table's slots have: by slot, as far as any ever had it.
//!
//! A record of which one field in ten is in use costs its bytes a million times. Here a slot that never
//! had anything costs nothing unless a later one has, and reading it takes no look at memory.

use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(crate) struct Sparse<T> {
    slots: Vec<T>,
    /// What a slot has that never had anything.
    nothing: T,
}

impl<T: Clone> Sparse<T> {
    pub(crate) const fn new(nothing: T) -> Self {
        Self { slots: Vec::new(), nothing }
    }

    /// Makes room for so many slots in all, so that growing never takes long.
    pub(crate) fn reserve(&mut self, slots: usize) {
        self.slots.reserve_exact(slots.saturating_sub(self.slots.len()));
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &T {
        self.slots.get(slot as usize).unwrap_or(&self.nothing)
    }

    /// What the slot has, to be changed; `None` if neither it nor a later one ever had anything.
    #[inline]
    pub(crate) fn if_any(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)
    }

    /// What the slot has, or will have from now on.
    #[expect(clippy::indexing_slicing, reason = "grown to it in the lines above")]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut T {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, self.nothing.clone());
        }
        &mut self.slots[index]
    }

    /// Takes what the slot has.
    pub(crate) fn take(&mut self, slot: u32) -> T {
        let nothing = self.nothing.clone();
        match self.if_any(slot) {
            Some(own) => core::mem::replace(own, nothing),
            None => nothing,
        }
    }
}

impl<T: Clone + PartialEq> Sparse<T> {
    /// Sets what the slot has; nothing is not kept where there never was anything.
    pub(crate) fn set(&mut self, slot: u32, to: T) {
        if to != self.nothing || self.if_any(slot).is_some() {
            *self.get_mut(slot) = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_takes_room() {
        let mut sparse = Sparse::new(7);
        sparse.set(1_000, 7);
        assert_eq!((*sparse.get(1_000), sparse.slots.len()), (7, 0));
        sparse.set(3, 1);
        *sparse.get_mut(4) += 1;
        assert_eq!((0..6).map(|slot| *sparse.get(slot)).sum::<i32>(), 7 + 7 + 7 + 1 + 8 + 7);
        assert_eq!((sparse.take(3), sparse.take(3), sparse.take(9)), (1, 7, 7));
        assert_eq!(sparse.slots.len(), 5);
    }
}
