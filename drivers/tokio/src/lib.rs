//! Steadfast under tokio. (Front page to be written.)
#![deny(missing_docs)]

mod builder;
mod call;
mod calls;
mod connection;
mod conns;
mod core;
mod divide;
mod error;
mod handle;
mod inner;
mod link;
mod transport;

pub mod tcp;

pub use builder::{Builder, config, random_seed};
pub use call::{Attempt, Call};
pub use core::Noticed;
pub use error::{CallError, Failure, Refused, StartError};
pub use handle::{Endpoint, Handle, Shutdown, Underway};
pub use link::Link;
pub use transport::{Dial, DialError, Established, Transport};

pub use steadfast;
pub use steadfast::{
    BreakerId, CallFailure, CallProfileId, DialCause, EndpointId, LossCause, PeerId, PeerState,
    RetryAfter,
};
