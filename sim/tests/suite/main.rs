//! The simulator as its users have it, from a library and from a shell. One binary, since each costs
//! a link; what lets bugs loose in the whole process is one of its own, `mutants`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that goes wrong should stop there"
)]

mod calls;
mod cli;
mod compare;
mod determinism;
mod digests;
mod errors;
mod faults;
mod html;
mod log;
mod numeric;
mod phi;
mod readme;
mod replay;
mod scenarios;
mod sweep;
mod timeline;
mod trace;
mod trace_format;
mod what_if;
