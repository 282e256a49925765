//! What the fuzz targets do, as plain functions: bytes in, a panic where a promise is broken.
//!
//! Each target is one of these functions and nothing else, so plain `cargo test` goes through the
//! corpus with stable Rust, and a finding is reproduced without a fuzzer.
//!
//! - [`events`]: a driver that keeps to the contract but for what it is told to do wrong, and one that
//!   says anything at all.
//! - [`snapshots`]: texts, and damaged snapshots of managers in the middle of things.
//! - [`recordings`]: the same for recordings.
//! - [`scenarios`]: scenario files, and changes to the built-in ones.
//!
//! Texts come as they are. What begins with a zero byte, as no text does, is read as choices instead:
//! which lively state to begin with and what to do to it.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a finding is told"
)]

mod configs;
mod damage;
mod raw;
mod recordings;
mod scenarios;
mod script;
mod snapshots;
mod states;

use std::io;

use arbitrary::Unstructured;
use serde_json::Value;
use steadfast::{Event, Manager, RestoreError, Snapshot, Time};

pub use recordings::recordings;
pub use scenarios::scenarios;
pub use snapshots::snapshots;
pub use states::lively;

/// Events against a manager: after every step all invariants hold, a snapshot restores to the same
/// state, and a twin that is told the same answers the same.
///
/// The first byte chooses between scripts, which a `World` plays, and raw events.
///
/// # Panics
///
/// If a promise is broken.
pub fn events(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let played = match bytes.arbitrary::<bool>() {
        Ok(true) => raw::play(&mut bytes),
        _ => script::play(&mut bytes),
    };
    // What is too short for one more event ends there.
    let _ = played;
}

/// Ticks in a row at one moment, after which a manager of this size can have nothing left to do.
const MAX_TICKS: u32 = 1_000;

/// What must hold after every step.
fn check(manager: &Manager, last: &dyn std::fmt::Debug) {
    if let Err(violation) = manager.check() {
        panic!("{violation} after {last:?}");
    }
    let next = manager.next_deadline();
    assert!(next.is_none_or(|next| next >= manager.now()), "{next:?} after {last:?}");
}

/// As recordings write theirs: the code for that is there, and need not be generated again.
fn written(snapshot: &Snapshot) -> Vec<u8> {
    let mut text = Vec::new();
    let to: &mut dyn io::Write = &mut text;
    serde_json::to_writer(to, snapshot).unwrap();
    text
}

/// A snapshot as a tree.
fn tree(snapshot: &Snapshot) -> Value {
    serde_json::from_slice(&written(snapshot)).unwrap()
}

/// The manager after it was written and read again.
fn restored(manager: &Manager, hash_key: u64) -> Manager {
    try_restored(manager, hash_key).unwrap()
}

/// Likewise, of a manager that was made from a snapshot of nobody knows whom.
fn try_restored(manager: &Manager, hash_key: u64) -> Result<Manager, RestoreError> {
    let snapshot = serde_json::from_slice(&written(&manager.snapshot())).unwrap();
    let restored = Manager::restore(snapshot, hash_key)?;
    assert_eq!(restored.state_digest(), manager.state_digest());
    assert_eq!(restored.next_deadline(), manager.next_deadline());
    Ok(restored)
}

/// A manager that is told the same must have come to the same.
fn compare_with_twin(mut twin: Manager, told: Vec<(Event, Time)>, manager: &Manager) {
    for (event, at) in told {
        let _ = twin.step(event, at);
    }
    assert_eq!(twin.run_digest(), manager.run_digest());
    assert_eq!(twin.state_digest(), manager.state_digest());
}
