//! Bugs on purpose, found by going through every order of events.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod explorer;
mod world;

use std::fmt::Write as _;

use explorer::Explorer;
use steadfast::mutant::{Mutant, let_loose};
use world::Cast;

/// One test, since a bug is loose in the whole process.
#[test]
fn a_rule_that_is_broken_on_purpose_is_found() {
    let mut told = String::new();
    for mutant in Mutant::ALL {
        assert!(let_loose(Some(mutant)), "a build without bugs");
        let found = Explorer::new(Cast::All).explore(3);
        let found = found.map_or_else(|story| story, |_| "lives".to_owned());
        let found = found.trim_end();
        writeln!(told, "{}: {found}\n", mutant.name()).unwrap();
    }
    assert!(let_loose(None));
    insta::assert_snapshot!(told);
}
