//! Steadfast: resilience as a pure state machine.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]

extern crate alloc;

mod action;
mod config;
mod error;
mod event;
mod id;
mod ratio;
mod time;

pub mod backoff;
pub mod breaker;
pub mod bucket;
pub mod draw;
pub mod histogram;
pub mod phi;
pub mod probe;
pub mod window;

pub use error::ConfigError;
pub use ratio::{ParseRatioError, Ratio};
pub use time::Time;
