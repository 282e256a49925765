//! Scripts of events, for property tests of policies of your own.
//!
//! A [`Script`] tells a story in relative terms: *a second later the third dial fails*. Moments are
//! spans since the line before and names are places, so a script from which proptest has taken half
//! the lines still tells a story, and a failure shrinks to one that can be read.
//!
//! A [`World`] plays it against a manager as a driver would: it sleeps exactly until each deadline,
//! carries out what it is told, and answers the dials, connections and pings that it really has.
//! About one line in eight is *wrong*: a fact about a connection that is gone, an answer given
//! twice, a clock that goes back. A manager must bear those; a driver must not send them.
//!
//! # Examples
//!
//! Whatever happens, with this policy everybody is back ten minutes after the faults stop (a server
//! may have sent somebody away for five):
//!
//! ```
//! use core::time::Duration;
//! use proptest::prelude::*;
//! use steadfast::strategy::{Shape, World};
//! use steadfast::{Config, Manager};
//!
//! let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) };
//! proptest!(config, |(script in Shape::default().script())| {
//!     let mut policy = Config::new(42);
//!     policy.peer_profiles[0].backoff.cap = Duration::from_secs(20);
//!     let mut world = World::new(Manager::new(policy, 7)?);
//!     for op in &script {
//!         world.play(op);
//!         world.manager().check()?;
//!     }
//!     world.heal(Duration::from_secs(600));
//!     let peers = world.manager().stats().peers;
//!     prop_assert_eq!(peers.connecting + peers.reconnecting + peers.failed, 0);
//! });
//! ```
mod shape;
mod world;

use alloc::vec::Vec;
use core::time::Duration;

use crate::event::{CallFailure, DialCause, Event, LossCause, RetryAfter};
use crate::id::ConnId;

pub use shape::Shape;
pub use world::{Step, World};

/// A story, line by line.
pub type Script = Vec<Op>;

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The time since the line before.
    pub after: Duration,
    /// What happens then.
    pub act: Act,
}

/// What happens. Peers, breakers and addresses go by number; dials, connections, pings, calls and
/// attempts by their place among those that are there, counted round and round. Where there is none
/// nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the event of its name")]
#[non_exhaustive]
pub enum Act {
    AddBreaker {
        breaker: u8,
        profile: u8,
    },
    RemoveBreaker {
        breaker: u8,
    },
    AddPeer {
        peer: u8,
        profile: u8,
        endpoints: Vec<Address>,
    },
    SetEndpoints {
        peer: u8,
        endpoints: Vec<Address>,
    },
    RemovePeer {
        peer: u8,
    },
    Connect {
        peer: u8,
    },
    Disconnect {
        peer: u8,
    },
    Connected {
        dial: u8,
        resumed: bool,
    },
    DialFailed {
        dial: u8,
        cause: DialCause,
        retry_after: Option<Duration>,
    },
    Lost {
        conn: u8,
        cause: LossCause,
    },
    Heard {
        conn: u8,
    },
    Heartbeat {
        conn: u8,
    },
    GoAway {
        conn: u8,
        leaves_in: Option<Duration>,
        reconnect_in: Duration,
    },
    Pong {
        ping: u8,
    },
    Metrics {
        conn: u8,
        latency: Duration,
        loss: u32,
    },
    Accepted {
        peer: u8,
    },
    /// A call of a new name.
    Call {
        /// The peer that it goes to, if it goes to one.
        peer: Option<u8>,
        breaker: u8,
        profile: u8,
        /// The time until its deadline, if it brings one.
        within: Option<Duration>,
    },
    CancelCall {
        call: u8,
    },
    Succeeded {
        attempt: u8,
    },
    Failed {
        attempt: u8,
        kind: CallFailure,
        retry_after: Option<RetryAfter>,
    },
    Dropped {
        attempt: u8,
    },
    NetworkDown,
    NetworkUp,
    NetworkChanged,
    Paused,
    Resumed,
    Load {
        load: u32,
    },
    Restarted,
    Tick,
    ForceOpen {
        breaker: u8,
    },
    Disable {
        breaker: u8,
    },
    WatchOnly {
        breaker: u8,
        on: bool,
    },
    ResetBreaker {
        breaker: u8,
    },
    Revive {
        peer: Option<u8>,
    },
    /// The driver sleeps past the next deadline by that much, and then ticks.
    Oversleep {
        late: Duration,
    },
    /// What a driver must not do.
    Wrong(Wrong),
}

/// An address of a peer: its number and the number of the breaker that guards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The endpoint's id.
    pub id: u8,
    /// The breaker's.
    pub breaker: u8,
}

/// What a driver must not do, and a manager must bear.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// A fact about a connection that is gone.
    Dead {
        /// Its place among those that are gone.
        conn: u8,
        /// What is said of it.
        fact: Fact,
    },
    /// A fact about a connection that never was.
    Unborn {
        /// Its id.
        raw: u64,
        /// What is said of it.
        fact: Fact,
    },
    /// A fact about a connection that is up, as if it were still being dialed.
    Up {
        /// Its place.
        conn: u8,
        /// Whether it is said to be connected (again), or to have failed.
        connected: bool,
    },
    /// Something heard on a dial.
    Dialing {
        /// Its place.
        dial: u8,
        /// What is said of it.
        fact: Fact,
    },
    /// A pong for a ping that is not out.
    Pong {
        /// The ping's id.
        raw: u64,
    },
    /// An answer to an attempt that is over.
    DeadAttempt {
        /// Its place among those that are over.
        attempt: u8,
        /// Whether it is said to have succeeded, or to have failed.
        succeeded: bool,
    },
    /// A call under a name in use.
    CallAgain {
        /// The call's place.
        call: u8,
    },
    /// Nothing, at a moment that is past.
    Backwards {
        /// How long past.
        by: Duration,
    },
}

/// What can be said of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the event of its name")]
pub enum Fact {
    Connected,
    DialFailed,
    Lost,
    Heard,
    Heartbeat,
    GoAway,
    Metrics,
}

impl Fact {
    fn about(self, conn: ConnId) -> Event {
        match self {
            Self::Connected => Event::Connected { conn, resumed: false },
            Self::DialFailed => {
                Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None }
            }
            Self::Lost => Event::Lost { conn, cause: LossCause::Reset },
            Self::Heard => Event::Heard { conn },
            Self::Heartbeat => Event::Heartbeat { conn },
            Self::GoAway => Event::GoAway { conn, leaves_in: None, reconnect_in: Duration::ZERO },
            Self::Metrics => {
                Event::Metrics { conn, latency: Duration::from_millis(3), loss: 1_000 }
            }
        }
    }
}
