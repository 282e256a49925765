//! Steadfast: resilience as a pure state machine.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]

extern crate alloc;

mod action;
mod container;
mod digest;
mod error;
mod event;
mod id;
mod ledger;
mod manager;
mod ratio;
mod stats;
mod time;

pub mod backoff;
pub mod breaker;
pub mod bucket;
pub mod config;
pub mod draw;
pub mod histogram;
pub mod phi;
pub mod probe;
#[cfg(feature = "proptest")]
#[cfg_attr(docsrs, doc(cfg(feature = "proptest")))]
pub mod strategy;
pub mod window;

pub use action::{Action, Ignored, Notice, PeerCause, PeerState};
pub use config::Config;
pub use error::ConfigError;
pub use event::{DialCause, Endpoint, Event, LossCause};
pub use id::{BreakerId, BreakerProfileId, ConnId, EndpointId, PeerId, PeerProfileId, PingId, Tag};
pub use ledger::{Breach, Ledger};
pub use manager::{Blocked, Manager, RestoreError, Snapshot, Violation, Why};
pub use ratio::{ParseRatioError, Ratio};
pub use stats::{BreakerCounts, DialFailures, Losses, PeerCounts, Stats};
pub use time::Time;
