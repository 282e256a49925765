//! Intrusive first-in first-out lists over numbered nodes.
//!
//! Each list hangs in a ring from its anchor, so a node leaves whichever list holds it without
//! being told which, and a list of 100,000 moves to another anchor in one splice.

use alloc::vec::Vec;

/// Anchors are numbered from here, nodes below.
const ANCHOR: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    previous: u32,
    next: u32,
}

/// Lists over one kind of node; a node is on at most one of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    /// A node that links to itself is on no list.
    nodes: Vec<Link>,
    /// An anchor that links to itself holds an empty list.
    anchors: Vec<Link>,
    /// Which of the first 64 anchors hold anything, a bit for each, so that asking needs no more.
    first_used: u64,
    /// Likewise of those that follow.
    used: Vec<u64>,
}

impl Lists {
    pub(crate) const fn new() -> Self {
        Self { nodes: Vec::new(), anchors: Vec::new(), first_used: 0, used: Vec::new() }
    }

    /// Makes room for so many nodes in all.
    pub(crate) fn reserve(&mut self, nodes: usize) {
        let _ = self.nodes.try_reserve_exact(nodes.saturating_sub(self.nodes.len()));
    }

    /// Reads the node and its neighbours, so that they are near when it leaves.
    pub(crate) fn touch(&self, node: u32) -> u64 {
        let Link { previous, next } = self.link(node);
        u64::from(self.link(previous).next ^ self.link(next).previous)
    }

    fn link(&self, place: u32) -> Link {
        let links = if place < ANCHOR { &self.nodes } else { &self.anchors };
        links
            .get((place & !ANCHOR) as usize)
            .copied()
            .unwrap_or(Link { previous: place, next: place })
    }

    fn link_mut(&mut self, place: u32) -> &mut Link {
        let (links, base) =
            if place < ANCHOR { (&mut self.nodes, 0) } else { (&mut self.anchors, ANCHOR) };
        let index = (place & !ANCHOR) as usize;
        if links.len() <= index {
            grow(links, base, index);
        }
        #[expect(clippy::indexing_slicing, reason = "grown to it in the lines above")]
        &mut links[index]
    }

    fn join(&mut self, previous: u32, next: u32) {
        self.link_mut(previous).next = next;
        self.link_mut(next).previous = previous;
    }

    /// Puts `node` at the end of the list at `anchor`; it must be on no list.
    pub(crate) fn push_back(&mut self, anchor: u32, node: u32) {
        debug_assert!(!self.is_linked(node), "{node} is on a list already");
        self.mark(anchor, true);
        let anchor = anchor | ANCHOR;
        let end = self.link_mut(anchor);
        let last = core::mem::replace(&mut end.previous, node);
        *self.link_mut(node) = Link { previous: last, next: anchor };
        self.link_mut(last).next = node;
    }

    /// Takes `node` off whichever list holds it; `false` if none does.
    #[inline]
    pub(crate) fn unlink(&mut self, node: u32) -> bool {
        let linked = self.is_linked(node);
        if linked {
            self.take_off(node);
        }
        linked
    }

    fn take_off(&mut self, node: u32) {
        let Link { previous, next } = self.link(node);
        if previous == next {
            // It was the only one, between the two sides of its anchor.
            self.mark(next & !ANCHOR, false);
        }
        self.join(previous, next);
        *self.link_mut(node) = Link { previous: node, next: node };
    }

    #[inline]
    pub(crate) fn is_linked(&self, node: u32) -> bool {
        self.link(node).next != node
    }

    /// The first node of the list at `anchor`.
    #[inline]
    pub(crate) fn front(&self, anchor: u32) -> Option<u32> {
        (self.used_from(anchor, 1) != 0).then(|| self.link(anchor | ANCHOR).next)
    }

    /// Which of so many anchors from this one on hold anything, a bit for each; up to 64.
    #[inline]
    pub(crate) fn used_from(&self, anchor: u32, anchors: u32) -> u64 {
        let (word, bit) = ((anchor / 64) as usize, anchor % 64);
        let here = self.used_word(word) >> bit;
        let bits =
            if bit + anchors > 64 { here | self.used_word(word + 1) << (64 - bit) } else { here };
        bits & (u64::MAX >> (64 - anchors))
    }

    #[inline]
    fn used_word(&self, word: usize) -> u64 {
        match word.checked_sub(1) {
            None => self.first_used,
            Some(place) => self.used.get(place).copied().unwrap_or_default(),
        }
    }

    fn mark(&mut self, anchor: u32, used: bool) {
        let (word, bit) = ((anchor / 64) as usize, 1 << (anchor % 64));
        if self.used.len() < word {
            self.used.resize(word, 0);
        }
        let word = match word.checked_sub(1) {
            None => Some(&mut self.first_used),
            Some(place) => self.used.get_mut(place),
        };
        if let Some(word) = word {
            *word = if used { *word | bit } else { *word & !bit };
        }
    }

    /// Moves the whole list at `from` to the end of the one at `to`, in one link.
    pub(crate) fn splice(&mut self, from: u32, to: u32) {
        let (from, to) = (from | ANCHOR, to | ANCHOR);
        let Link { previous: last, next: first } = self.link(from);
        if first == from || from == to {
            return;
        }
        self.mark(from & !ANCHOR, false);
        self.mark(to & !ANCHOR, true);
        let tail = self.link(to).previous;
        self.join(from, from);
        self.join(tail, first);
        self.join(last, to);
    }

    /// The nodes of the list at `anchor`, in order.
    pub(crate) fn iter(&self, anchor: u32) -> impl Iterator<Item = u32> {
        core::iter::successors(self.front(anchor), |&node| {
            Some(self.link(node).next).filter(|&next| next < ANCHOR)
        })
    }
}

/// Adds links that link to themselves, up to this one.
#[cold]
fn grow(links: &mut Vec<Link>, base: u32, index: usize) {
    while links.len() <= index {
        let own = base | u32::try_from(links.len()).unwrap_or(ANCHOR - 1);
        links.push(Link { previous: own, next: own });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(lists: &Lists, anchor: u32) -> Vec<u32> {
        lists.iter(anchor).collect()
    }

    #[test]
    fn nodes_come_out_in_the_order_they_went_in_and_leave_from_anywhere() {
        let mut lists = Lists::new();
        for node in [3, 1, 4, 5] {
            lists.push_back(0, node);
        }
        assert!(lists.unlink(4));
        assert!(!lists.unlink(4));
        assert!(!lists.unlink(2));
        assert_eq!(nodes(&lists, 0), [3, 1, 5]);
        assert_eq!(lists.front(0), Some(3));
        assert!(lists.is_linked(5) && !lists.is_linked(4) && !lists.is_linked(99));
    }

    #[test]
    fn a_range_of_anchors_is_seen_across_words() {
        let mut lists = Lists::new();
        for (node, anchor) in [(1, 62), (2, 63), (3, 64), (4, 127), (5, 128)] {
            lists.push_back(anchor, node);
            assert_eq!(lists.front(anchor), Some(node));
        }
        assert_eq!((lists.used_from(60, 6), lists.used_from(64, 6)), (0b01_1100, 1));
        assert_eq!((lists.used_from(126, 6), lists.used_from(200, 6)), (0b110, 0));
        assert!(lists.unlink(2) && lists.unlink(3));
        assert_eq!((lists.front(63), lists.front(64), lists.used_from(60, 6)), (None, None, 4));
    }

    #[test]
    fn a_spliced_list_follows_what_was_there_and_its_nodes_still_leave() {
        let mut lists = Lists::new();
        for (anchor, node) in [(0, 1), (0, 2), (7, 3), (7, 4)] {
            lists.push_back(anchor, node);
        }
        lists.splice(7, 0);
        lists.splice(7, 0);
        lists.splice(0, 0);
        assert_eq!((nodes(&lists, 0), nodes(&lists, 7)), (alloc::vec![1, 2, 3, 4], Vec::new()));
        lists.unlink(4);
        lists.unlink(1);
        lists.push_back(0, 9);
        assert_eq!(nodes(&lists, 0), [2, 3, 9]);
    }
}
