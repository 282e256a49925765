//! Containers that know nothing of resilience.

#[expect(clippy::indexing_slicing, reason = "spots within blocks that it has itself handed out")]
mod blocks;
#[expect(clippy::indexing_slicing, reason = "a calendar's own arithmetic")]
pub(crate) mod calendar;
pub(crate) mod list;
pub(crate) mod map;
pub(crate) mod queue;
pub(crate) mod slab;
pub(crate) mod sparse;
#[expect(clippy::indexing_slicing, reason = "arrays by kind, as long as there are kinds")]
pub(crate) mod timers;
