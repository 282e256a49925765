//! Containers that know nothing of resilience.

pub(crate) mod list;
pub(crate) mod map;
pub(crate) mod slab;
#[expect(clippy::indexing_slicing, reason = "a heap's own arithmetic, below its length")]
pub(crate) mod timers;
