//! The driver over a world without sockets, under a paused clock. One binary, since each costs a link.
//!
//! Of their own are `tcp`, which takes real time that these would disturb; `tracing`, whose cache of
//! who wants which event is the process's; and what needs servers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "for tests")]

mod calls;
mod cancellation;
mod chaos;
mod connections;
mod ends;
#[cfg(feature = "metrics")]
mod metrics;
mod recording;
mod reentry;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "tower")]
mod tower_policy;
