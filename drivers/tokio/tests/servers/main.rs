//! Two thousand real connections each to a real Redis and a real NATS that is killed and started
//! again, or frozen; a Redis that hangs; a network that loses packets, and one that loses all.
//!
//! Needs `redis-server` and `nats-server`, 5,000 file descriptors, and for the networks `ip`, `nft`
//! and the rights of root. What was measured is printed; what was recorded lies in the target folder
//! under `tmp/recordings`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "for tests")]

#[path = "../real/mod.rs"]
mod real;
#[path = "../../examples/redis/resp.rs"]
#[allow(dead_code, reason = "an example's")]
mod resp;

mod callers;
mod counter;
mod loss;
mod namespace;
mod nats;
mod outage;
mod recorded;
mod redis;
mod server;
