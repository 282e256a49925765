//! Resilience as a pure state machine.
//!
//! A program that holds many connections loses them all in one second one day, and brings them back
//! as a herd that keeps the server down. Steadfast decides, for one to millions of peers, when to
//! dial, when to wait, when to stop asking and when to try again:
//!
//! ```text
//! let actions = manager.step(event, now);     // what happened → what to do about it
//! let wake    = manager.next_deadline();      // sleep at most until then, then step(Tick, now)
//! ```
//!
//! It opens no socket, reads no clock, draws no ambient randomness, spawns nothing, locks nothing.
//! The program around it (the *driver*) carries out the actions and reports what happened. So the
//! same code runs under tokio, a poll loop, a thread, in a browser or on bare metal; an outage can be
//! lived through a million times in virtual time; and a failing run is one seed.
//!
//! # Examples
//!
//! A driver in miniature. The network here refuses everybody for two seconds:
//!
//! ```
//! use std::collections::VecDeque;
//! use steadfast::{
//!     Action, BreakerId, Config, DialCause, Endpoint, EndpointId, Event, Manager, PeerId, Time,
//! };
//!
//! let config = Config::new(42); // the seed of all jitter; must differ between processes
//! let (peers, breakers) = (config.peer_profile("default"), config.breaker_profile("default"));
//! let (peer, breaker) = (PeerId(7), BreakerId(1));
//! let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
//! let mut events = VecDeque::from([
//!     Event::AddBreaker { breaker, profile: breakers.unwrap() },
//!     Event::AddPeer { peer, profile: peers.unwrap(), endpoints },
//!     Event::Connect { peer },
//! ]);
//! let mut manager = Manager::new(config, 0xfeed)?;
//! let mut now = Time::ZERO;
//! while manager.stats().peers.connected == 0 {
//!     let event = events.pop_front().unwrap_or_else(|| {
//!         now = manager.next_deadline().unwrap(); // a real driver sleeps here
//!         Event::Tick
//!     });
//!     for action in manager.step(event, now) {
//!         match action {
//!             Action::Dial { conn, .. } if now < Time::from_secs(2) => {
//!                 events.push_back(Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None });
//!             }
//!             Action::Dial { conn, .. } => events.push_back(Event::Connected { conn, resumed: false }),
//!             Action::Notice(notice) => println!("{now} {notice:?}"),
//!             other => unreachable!("{other:?}"),
//!         }
//!     }
//! }
//! # Ok::<(), steadfast::ConfigError>(())
//! ```
//!
//! # The map
//!
//! - [`Manager`] is the machine; [`Event`] goes in, [`Action`] comes out; [`config`] is told once.
//!   [`Manager::why`] tells what a peer waits for, [`Manager::stats`] how all are doing,
//!   [`Manager::snapshot`] takes the whole state along.
//! - [`Ledger`] checks that a driver keeps its side of the contract.
//! - The parts are useful alone: [`backoff`], [`breaker`], [`bucket`], [`budget`],
//!   [`bulkhead`], [`hedge`], [`histogram`], [`limit`], [`phi`], [`probe`], [`self_health`],
//!   [`throttle`], [`window`], and [`draw`] for their jitter. Each takes `now` as an argument and knows nothing
//!   of the others' users.
//! - `recording` (feature `recording`) writes runs into files and lives through them again.
//! - `strategy` (feature `proptest`) generates scripts of events and a world to play them in.
//!
//! # Features
//!
//! - `std` (default): nothing but implementations for types of `std`. Without it the crate is
//!   `no_std` and needs `alloc`.
//! - `serde`: events, actions, configurations and snapshots can be written and read.
//! - `recording`: runs as files, written step by step and replayed.
//! - `proptest`: strategies for scripts of events, to property-test a policy of one's own.
//!
//! Features add; they never change what the machine does.
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
#[expect(
    clippy::indexing_slicing,
    reason = "slots in the manager come from its own queues and records, which check() holds to it"
)]
mod manager;
#[doc(hidden)]
pub mod mutant;
mod ratio;
mod stats;
mod time;

pub mod backoff;
pub mod breaker;
pub mod bucket;
pub mod budget;
pub mod bulkhead;
pub mod config;
pub mod draw;
pub mod hedge;
pub mod histogram;
pub mod limit;
pub mod phi;
pub mod probe;
#[cfg(feature = "recording")]
#[cfg_attr(docsrs, doc(cfg(feature = "recording")))]
pub mod recording;
pub mod self_health;
#[cfg(feature = "proptest")]
#[cfg_attr(docsrs, doc(cfg(feature = "proptest")))]
pub mod strategy;
pub mod throttle;
pub mod window;

pub use action::{
    Action, Conviction, GiveUpReason, Ignored, MoveCause, Notice, PeerCause, PeerState,
    RejectReason, WaitsFor,
};
pub use config::Config;
pub use error::ConfigError;
pub use event::{CallFailure, DialCause, Endpoint, Event, LossCause, RetryAfter, Target};
pub use id::{
    AttemptId, BreakerId, BreakerProfileId, CallId, CallProfileId, ConnId, EndpointId, PeerId,
    PeerProfileId, PingId, Tag,
};
pub use ledger::{Breach, Ledger};
pub use manager::{Blocked, GateView, Manager, RestoreError, Snapshot, Violation, Why, WhyCall};
pub use ratio::{ParseRatioError, Ratio};
pub use stats::{
    AttemptFailures, BreakerCounts, CallCounts, DialFailures, GiveUps, Losses, Moves, PeerCounts,
    Rejections, Stats,
};
pub use time::Time;

/// The README's examples, compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What only the benches may see; not part of the API.
#[cfg(feature = "__bench")]
#[doc(hidden)]
pub mod __bench {
    use crate::container::timers::{Due, TimerKind, Timers};
    use crate::time::Time;

    /// The timer queue.
    #[derive(Debug, Default)]
    pub struct Hold(Timers);

    impl Hold {
        /// Arms the timer of `slot`.
        pub fn arm(&mut self, slot: u32, deadline: u64) {
            self.0.arm(TimerKind::Peer, slot, Time::from_nanos(deadline));
        }

        /// Takes out the first, whenever it is due.
        pub fn pop(&mut self) -> Option<(u64, u32)> {
            let now = self.0.next()?.as_nanos();
            self.pop_due(now).or_else(|| self.pop())
        }

        /// Takes out the first that is due.
        pub fn pop_due(&mut self, now: u64) -> Option<(u64, u32)> {
            let now = Time::from_nanos(now);
            self.0.advance(now);
            loop {
                match self.0.pop_due(now) {
                    Due::Now(timer) => return Some((timer.deadline.as_nanos(), timer.slot)),
                    Due::Unknown(_) => {}
                    Due::Nothing => return None,
                }
            }
        }
    }
}
