//! Promises of the crate, a file for each kind. One binary, since each costs a link; those are their own
//! that count what the process allocates or break a rule in all of it, and the large ones in folders.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod batches;
mod cited_claims;
mod cited_phi;
mod config;
mod detection;
mod direction;
mod recording;
#[path = "../golden/render.rs"]
mod render;
mod restore;
mod returning;
mod tables;
#[path = "../golden/text.rs"]
mod text;
