//! A discrete-event simulator of outages around real Steadfast managers.
//!
//! A scenario says what there is (peers, servers, links), what goes wrong when, and what must hold.
//! The simulator lives through it in virtual time: the managers are the shipped ones, everything
//! around them is simulated. One seed gives one run, byte for byte.
//!
//! As a development dependency it turns an outage into a test, and the timeline into a snapshot:
//!
//! ```
//! use steadfast_sim::{Simulation, Verdict};
//!
//! let outage = r#"
//!     name = "restart"
//!     about = "our server restarts and is gone for five seconds"
//!     duration = "60s"
//!     [servers.api]
//!     accept = "200/s"
//!     [peers.worker]
//!     count = 50
//!     endpoints = ["api"]
//!     [links."worker-api"]
//!     latency = "lognormal(p50=5ms, p99=40ms)"
//!     [[faults]]
//!     kind = "down"
//!     on = "servers.api"
//!     at = "1s"
//!     for = "5s"
//!     [expect.ours]
//!     all_up = "<= 20s after heal"
//!     server_wasted = "== 0"
//! "#;
//! let run = Simulation::from_toml(outage)?.run(1)?;
//! assert_eq!(run.verdict(), Verdict::Held, "{}", run.timeline());
//! // insta::assert_snapshot!(run.timeline());
//! # Ok::<(), steadfast_sim::ScenarioError>(())
//! ```
//!
//! The modules, in reading order: [`units`] and [`dist`] are the grammar of a scenario's texts,
//! [`scenario`] its shape, [`policy`] what the clients are, [`outer`] what other libraries put around
//! them, [`expect`] what must hold; `plan` turns names into numbers, `driver` surrounds one manager,
//! `world` lets things happen, `measure` and `tally` count them, `twin` and `highest` compare with
//! other runs, `report` prints; [`Simulation`] puts them together; `log` makes a run a file, a
//! [recording](steadfast::recording). `phases`, `series` and `story` listen to a run as `log` does, for
//! `html` and `chrome`, which draw it; `records` says what is listened for. `what_if` lives
//! through a recording with other settings.
//! [`mod@reference`] and `study` hold many runs to a table of other people's figures; `compare` puts
//! many runs under several policies side by side ([`Comparison`]); `chaos` makes faults up, `sweep` runs
//! many seeds of it, `shrink` makes one that fails small; `parallel` deals runs to threads.

#![deny(missing_docs)]

mod catalog;
mod chaos;
mod chrome;
mod compare;
mod contention;
mod draws;
mod driver;
mod highest;
mod html;
mod log;
mod measure;
mod notices;
mod parallel;
mod phases;
mod plan;
mod queue;
mod records;
mod report;
mod schedule;
mod seeds;
mod series;
mod shrink;
mod simulation;
mod story;
mod study;
mod sweep;
mod tally;
mod twin;
mod verify;
mod what_if;
mod world;

pub mod dist;
pub mod expect;
pub mod marks;
pub mod outer;
pub mod policy;
pub mod reference;
pub mod scenario;
pub mod trace;
pub mod units;

pub use catalog::{all as built_in_scenarios, names as built_in_names};
pub use compare::{
    CompareOptions, Comparison, ComparisonCell, ComparisonRow, Difference, Verdicts,
};
pub use contention::{Contention, ContentionJitter};
pub use expect::Expectation;
pub use highest::{Highest, HighestLoad};
pub use html::Page;
pub use notices::NoticeKind;
pub use records::{Follow, Records};
pub use report::Timeline;
pub use scenario::{Scenario, ScenarioError};
pub use seeds::Seeds;
pub use shrink::Shrunk;
pub use simulation::{
    Run, Simulation, Summary, Verdict, WatchedPeer, find, find_with, fold_digests,
};
pub use study::{Figure, Study, StudyRow};
pub use sweep::{Failure, Sweep, SweepOptions};
pub use tally::CallSummary;
pub use verify::{Divergence, Twin, Verified};
pub use what_if::{WhatIf, WhatIfError, WhatIfReport};
pub use world::{Options, Violation};
