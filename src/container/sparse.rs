//! What few of a table's slots have: by slot, a page at a time.
//!
//! A record of which one field in ten is in use costs its bytes a million times. Here slots that never
//! had anything cost nothing but their page's entry, and while none has, asking takes no look at
//! memory. A page is made when the first of its slots gets something, and stays.
//!
//! What a slot has may equal what it had before it had anything, and then there must be no telling the
//! two apart: whoever changes what is there [`if_any`](Sparse::if_any) leaves nothing as nothing.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Slots in a page: so few that the page of one is soon written, and so many that a herd's are few.
const PAGE: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Sparse<T> {
    /// Empty where no slot ever had anything.
    pages: Vec<Box<[T]>>,
    /// What a slot has that never had anything.
    nothing: T,
}

impl<T: Clone> Sparse<T> {
    pub(crate) const fn new(nothing: T) -> Self {
        Self { pages: Vec::new(), nothing }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &T {
        let page = self.pages.get(slot as usize / PAGE);
        page.and_then(|page| page.get(slot as usize % PAGE)).unwrap_or(&self.nothing)
    }

    /// What the slot has, to be changed; `None` if none of its page ever had anything.
    #[inline]
    pub(crate) fn if_any(&mut self, slot: u32) -> Option<&mut T> {
        self.pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)
    }

    /// What the slot has, or will have from now on.
    #[expect(clippy::indexing_slicing, reason = "made in the lines above")]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut T {
        let (page, index) = (slot as usize / PAGE, slot as usize % PAGE);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, Box::default);
        }
        let page = &mut self.pages[page];
        if page.is_empty() {
            *page = vec![self.nothing.clone(); PAGE].into_boxed_slice();
        }
        &mut page[index]
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
        if let Some(own) = self.if_any(slot) {
            *own = to;
        } else if to != self.nothing {
            *self.get_mut(slot) = to;
        }
    }

    /// The slots that have something.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        let pages = (0_u32..).step_by(PAGE).zip(&self.pages);
        pages.flat_map(|(from, page)| {
            let some = (from..).zip(page).filter(|(_, own)| **own != self.nothing);
            some.map(|(slot, _)| slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_takes_room() {
        let mut sparse = Sparse::new(7);
        sparse.set(1_000, 7);
        assert_eq!((*sparse.get(1_000), sparse.pages.len()), (7, 0));
        sparse.set(66, 1);
        *sparse.get_mut(127) += 1;
        let read = [0, 63, 64, 66, 127, 128, u32::MAX].map(|slot| *sparse.get(slot));
        assert_eq!(read, [7, 7, 7, 1, 8, 7, 7]);
        assert_eq!(sparse.slots().collect::<Vec<_>>(), [66, 127]);
        assert_eq!(sparse.pages.iter().map(|page| page.len()).collect::<Vec<_>>(), [0, PAGE]);
        assert_eq!((sparse.take(66), sparse.take(66), sparse.take(9)), (1, 7, 7));
        assert!(sparse.if_any(9).is_none() && sparse.if_any(65).is_some());
    }
}
