//! Every order of events of small worlds, as many events as the depth says: no sample, all of them.
//!
//! Breadth first from the beginning; a state whose shape was seen is not gone into again. In each state
//! the invariants hold, what no driver would say changes nothing, and once everything goes well everybody
//! who wants a connection has one and the call is over. Of some it is also held that a restored manager
//! is as the original, and that all states of one shape have the same shapes after them.
//!
//! `EVERY_ORDER_DEPTH=6 cargo test --release --test every_order -- --nocapture` goes deeper.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod explorer;
mod world;

use explorer::Explorer;
use world::Cast;

/// As deep as `EVERY_ORDER_DEPTH` says, or else as deep as takes seconds.
fn explore(cast: Cast, depth: usize) {
    let told = std::env::var("EVERY_ORDER_DEPTH").ok();
    let depth = told.map_or(depth, |depth| depth.parse().unwrap());
    let mut explorer = Explorer::new(cast);
    let new = explorer.explore(depth).unwrap_or_else(|problem| panic!("{problem}"));
    let (states, transitions) = (explorer.seen.len(), explorer.transitions);
    assert!(states > 1_000 || depth < 4, "{states} states are no world");
    println!("{cast:?}: {states} states by {transitions} moves; new at each depth {new:?}");
}

#[test]
fn in_every_order_of_events_all_holds_and_ends_well() {
    explore(Cast::All, 4);
}

#[test]
fn with_fewer_kinds_of_events_deeper() {
    explore(Cast::Dials, 5);
}
