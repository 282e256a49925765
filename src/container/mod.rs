//! Containers that know nothing of resilience.

pub(crate) mod list;
pub(crate) mod map;
pub(crate) mod slab;
pub(crate) mod timers;
