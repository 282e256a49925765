//! Containers that know nothing of resilience.

#[expect(clippy::indexing_slicing, reason = "a heap's own arithmetic, below its length")]
pub(crate) mod calendar;
pub(crate) mod list;
pub(crate) mod map;
pub(crate) mod slab;
#[expect(clippy::indexing_slicing, reason = "arrays by kind, as long as there are kinds")]
pub(crate) mod timers;
