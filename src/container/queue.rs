//! A queue that may be left from any place.
//!
//! Whoever leaves before its turn leaves a gap, so that it costs the same wherever it stood. The
//! first in line is never a gap, and there are never more gaps than there are in line: memory is
//! that of twice as many as have been in line at once, however many come and go.

use alloc::collections::VecDeque;

/// Those in line, the first first, each known by a number that is never given twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Queue<T> {
    /// The number that comes next.
    next: u64,
    gaps: u32,
    /// By number.
    places: VecDeque<Place<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Place<T> {
    number: u64,
    gone: bool,
    value: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { next: 0, gaps: 0, places: VecDeque::new() }
    }

    /// Goes to the end of the line. O(1), amortised.
    pub(crate) fn push(&mut self, value: T) -> u64 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.places.push_back(Place { number, gone: false, value });
        number
    }

    /// Who is first in line.
    pub(crate) fn front(&self) -> Option<&T> {
        self.places.front().map(|place| &place.value)
    }

    /// Who came last, of those in line and those whose gap is still there.
    pub(crate) fn back(&self) -> Option<&T> {
        self.places.back().map(|place| &place.value)
    }

    /// Takes the first out of the line. O(1), amortised.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let place = self.places.pop_front()?;
        self.close_gaps();
        Some(place.value)
    }

    /// Takes the one with this number out of the line, wherever it stands; whether it stood there.
    /// O(log n), amortised.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let Ok(at) = self.places.binary_search_by_key(&number, |place| place.number) else {
            return false;
        };
        match self.places.get_mut(at) {
            Some(place) if !place.gone => place.gone = true,
            _ => return false,
        }
        self.gaps = self.gaps.saturating_add(1);
        self.close_gaps();
        true
    }

    /// The number of the first in line, or of the next to come: whoever has a lower one, and has not
    /// left before its turn, has had it.
    pub(crate) fn turn(&self) -> u64 {
        self.places.front().map_or(self.next, |first| first.number)
    }

    /// How many are in line.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX).saturating_sub(self.gaps)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Those in line with their numbers, the first first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.places.iter().filter(|place| !place.gone).map(|place| (place.number, &place.value))
    }

    /// Sends everybody away; the memory is kept, and no number is given twice.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.gaps = 0;
    }

    /// The same line without its gaps, numbered from 0.
    pub(crate) fn shape(&mut self, mut value: impl FnMut(&mut T)) {
        self.places.retain(|place| !place.gone);
        (self.gaps, self.next) = (0, 0);
        for place in &mut self.places {
            (place.number, self.next) = (self.next, self.next + 1);
            value(&mut place.value);
        }
    }

    /// Whether this queue could have arisen; for what was read from outside.
    pub(crate) fn is_valid(&self) -> bool {
        self.places.iter().filter(|place| place.gone).count() == self.gaps as usize
            && self.gaps <= self.len()
            && self.places.front().is_none_or(|first| !first.gone)
            && self.places.iter().is_sorted_by(|one, next| one.number < next.number)
            && self.places.back().is_none_or(|last| last.number < self.next)
            // More than anybody can use up; it leaves room to go on.
            && self.next <= u64::MAX / 2
    }

    /// Keeps the first in line no gap, and the gaps no more than those in line.
    fn close_gaps(&mut self) {
        while self.places.front().is_some_and(|first| first.gone) {
            self.places.pop_front();
            self.gaps = self.gaps.saturating_sub(1);
        }
        if self.gaps > self.len() {
            self.places.retain(|place| !place.gone);
            self.gaps = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn memory_is_bounded_by_those_in_line_however_many_come_and_go() {
        let mut queue = Queue::new();
        queue.push(0);
        let mut capacity = 0;
        for value in 1..10_000 {
            let number = queue.push(value);
            assert!(queue.remove(number) && queue.places.len() <= 2);
            if value == 10 {
                capacity = queue.places.capacity();
            }
        }
        assert_eq!(queue.places.capacity(), capacity);
        assert_eq!((queue.len(), queue.front(), queue.turn()), (1, Some(&0), 0));
    }

    #[test]
    fn whose_turn_has_come_is_told_by_its_number() {
        let mut queue = Queue::new();
        let numbers = [10, 20, 30].map(|value| queue.push(value));
        assert!(queue.remove(numbers[1]) && !queue.remove(numbers[1]));
        assert_eq!((queue.turn(), queue.pop(), queue.turn()), (0, Some(10), 2));
        assert_eq!((queue.pop(), queue.turn(), queue.push(40)), (Some(30), 3, 3));
        queue.clear();
        assert_eq!((queue.turn(), queue.is_empty(), queue.push(50)), (4, true, 4));
    }

    proptest! {
        #[test]
        fn the_line_is_that_of_a_list(
            steps in proptest::collection::vec((0_u8..5, any::<prop::sample::Index>()), 1..300),
        ) {
            let mut queue = Queue::new();
            let mut list: Vec<(u64, usize)> = Vec::new();
            for (value, (verb, which)) in steps.into_iter().enumerate() {
                match verb {
                    0 | 1 => list.push((queue.push(value), value)),
                    2 | 3 if !list.is_empty() => {
                        let (number, _) = list.remove(which.index(list.len()));
                        prop_assert!(queue.remove(number) && !queue.remove(number));
                    }
                    _ => {
                        let expected = (!list.is_empty()).then(|| list.remove(0).1);
                        prop_assert_eq!(queue.pop(), expected);
                    }
                }
                let pairs: Vec<_> = queue.iter().map(|(number, value)| (number, *value)).collect();
                prop_assert_eq!(&pairs, &list);
                prop_assert_eq!(queue.front(), list.first().map(|(_, value)| value));
                prop_assert_eq!(queue.is_empty(), list.is_empty());
                prop_assert!(queue.places.len() <= 2 * list.len() && queue.is_valid());
                let mut shape = queue.clone();
                shape.shape(|_| {});
                prop_assert!(shape.is_valid());
                prop_assert!(shape.iter().map(|(_, value)| value).eq(queue.iter().map(|(_, value)| value)));
            }
        }
    }
}
