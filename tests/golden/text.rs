//! Snapshots and configurations as text, written and read the way recordings write and read theirs.
//!
//! That code the crate brings along. For any other writer or reader all of it is generated again, in
//! each binary of tests, and that takes longer than most of them do otherwise.
#![allow(dead_code, clippy::unwrap_used, reason = "not all need all of it, and tests may stop")]

use std::io::Write;

use serde_json::Value;
use steadfast::{Config, Snapshot};

pub(crate) fn written(snapshot: &Snapshot) -> Vec<u8> {
    let mut text = Vec::new();
    let to: &mut dyn Write = &mut text;
    serde_json::to_writer(to, snapshot).unwrap();
    text
}

pub(crate) fn read(text: &[u8]) -> serde_json::Result<Snapshot> {
    serde_json::from_slice(text)
}

/// As a tree, to be damaged.
pub(crate) fn tree(snapshot: &Snapshot) -> Value {
    serde_json::from_slice(&written(snapshot)).unwrap()
}

/// Of a damaged tree. Through its text, as it would come: a tree hides what a parser refuses.
pub(crate) fn read_tree(tree: &Value) -> serde_json::Result<Snapshot> {
    read(tree.to_string().as_bytes())
}

pub(crate) fn tree_of(config: &Config) -> Value {
    serde_json::from_slice(&serde_json::to_vec(config).unwrap()).unwrap()
}

pub(crate) fn read_config(tree: &Value) -> serde_json::Result<Config> {
    serde_json::from_slice(tree.to_string().as_bytes())
}
