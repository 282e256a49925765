//! What the manager answers: orders to carry out, and notices that only tell.

use core::time::Duration;

use crate::breaker;
use crate::event::{DialCause, LossCause};
use crate::id::{BreakerId, ConnId, EndpointId, PeerId, PingId, Tag};
use crate::time::Time;

/// One order to the driver, or one notice.
///
/// Orders are carried out in the order given. Exhaustive on purpose: a driver that drops a new
/// order with `_` is broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Action {
    /// Begin to connect, and report exactly one of [`Connected`](crate::Event::Connected) and
    /// [`DialFailed`](crate::Event::DialFailed), unless [`CancelDial`](Action::CancelDial) comes
    /// first. The manager has a timeout of its own.
    Dial {
        /// The attempt's name, and the connection's if it succeeds.
        conn: ConnId,
        /// To whom.
        peer: PeerId,
        /// Over which of its addresses.
        endpoint: EndpointId,
        /// Whether to ask the server to take up the old session.
        resume: bool,
    },
    /// Drop the attempt; its id is dead.
    CancelDial {
        /// Which.
        conn: ConnId,
    },
    /// Close the connection; its id is dead. Also the answer to a success that came too late, so
    /// that a driver which obeys leaks no socket.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Send a ping and report [`Pong`](crate::Event::Pong) when it is answered.
    Ping {
        /// The ping's name.
        ping: PingId,
        /// Over which connection.
        conn: ConnId,
    },
    /// Keep the inbound connection; from now on it is `conn`.
    Adopt {
        /// Its name.
        conn: ConnId,
        /// Whose it is.
        peer: PeerId,
        /// The mark that the driver had put on it.
        tag: Tag,
    },
    /// Close the inbound connection.
    Refuse {
        /// The mark that the driver had put on it.
        tag: Tag,
    },
    /// Nothing to do: it tells.
    Notice(Notice),
}

/// Where a peer stands, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum PeerState {
    /// No connection, and none wanted.
    Disconnected,
    /// Its first connection is on the way.
    Connecting,
    /// It has one.
    Connected,
    /// It was lost or refused and is coming back.
    Reconnecting,
    /// It gave up; left only by [`Revive`](crate::Event::Revive) or a fresh
    /// [`Connect`](crate::Event::Connect).
    Failed,
}

/// Why a peer's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PeerCause {
    /// The driver wanted it so.
    Asked,
    /// The dial succeeded.
    Dialed,
    /// The peer dialed us.
    Accepted,
    /// A dial failed.
    DialFailed(DialCause),
    /// The connection ended.
    Lost(LossCause),
    /// As many rounds of dials failed as the profile allows.
    TooManyAttempts,
    /// It went without a connection for longer than the profile allows.
    TooLong,
    /// An operator revived it.
    Revived,
}

/// Something that happened inside, for logs, metrics and people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Notice {
    /// A peer's state changed.
    Peer {
        /// Whose.
        peer: PeerId,
        /// From.
        from: PeerState,
        /// To.
        to: PeerState,
        /// Why.
        cause: PeerCause,
    },
    /// A peer will stand in line for its next dial at that moment.
    RetryAt {
        /// Who.
        peer: PeerId,
        /// When.
        at: Time,
        /// Rounds of dials that failed since the last stable connection.
        failures: u32,
    },
    /// The dial goes to another endpoint than the peer's last one.
    FailedOver {
        /// Who.
        peer: PeerId,
        /// The endpoint of the last dial.
        from: EndpointId,
        /// The endpoint of this one.
        to: EndpointId,
    },
    /// The server did not take up a session that should still have been alive.
    SessionLost {
        /// Whose.
        peer: PeerId,
    },
    /// A connection has been silent for too long.
    Suspected {
        /// Whose.
        peer: PeerId,
        /// Which.
        conn: ConnId,
        /// For how long it has been silent.
        silence: Duration,
        /// Phi at this moment in thousandths; `None` without a phi detector.
        phi: Option<u32>,
        /// The mean interval between heartbeats, as far as known.
        mean: Option<Duration>,
        /// Its standard deviation.
        std: Option<Duration>,
    },
    /// A suspected connection spoke again.
    Cleared {
        /// Whose.
        peer: PeerId,
        /// Which.
        conn: ConnId,
        /// How long it was under suspicion.
        suspected_for: Duration,
    },
    /// Latency or loss passed the profile's limits; ended by [`Recovered`](Notice::Recovered) or by
    /// the end of the connection.
    Degraded {
        /// Who.
        peer: PeerId,
        /// Smoothed latency.
        latency: Duration,
        /// Smoothed loss in parts per million.
        loss: u32,
    },
    /// Latency and loss are well within the limits again.
    Recovered {
        /// Who.
        peer: PeerId,
    },
    /// A breaker's state changed.
    Breaker {
        /// Which.
        breaker: BreakerId,
        /// From.
        from: breaker::State,
        /// To.
        to: breaker::State,
    },
    /// The host is now under so much load, or so little, that adaptive breakers change their
    /// thresholds.
    Load {
        /// Whether thresholds are relaxed from now on.
        relaxed: bool,
    },
    /// The driver came back much later than it was asked to: judgement waits until then.
    Slept {
        /// By how much it was late.
        late: Duration,
        /// Until when detectors, probes and dial timeouts hold.
        hold_until: Time,
    },
    /// The event changed nothing.
    Ignored(Ignored),
}

/// Why an event changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Ignored {
    /// The connection is gone, or never was.
    StaleConn(ConnId),
    /// The ping is no longer out, or never was.
    StalePing(PingId),
    /// The connection is up already.
    AlreadyUp(ConnId),
    /// The connection is still being dialed, so nothing can have been heard on it.
    NotUp(ConnId),
    /// No such peer.
    UnknownPeer(PeerId),
    /// No such breaker.
    UnknownBreaker(BreakerId),
    /// No peer profile of that number.
    UnknownPeerProfile(PeerId),
    /// No breaker profile of that number.
    UnknownBreakerProfile(BreakerId),
    /// The name is in use.
    PeerExists(PeerId),
    /// The name is in use.
    BreakerExists(BreakerId),
    /// An endpoint names the breaker.
    BreakerInUse(BreakerId),
    /// The bound on peers, breakers or endpoints is reached.
    TooMany,
    /// Two endpoints of one peer have the same id.
    DuplicateEndpoint(PeerId),
    /// The peer has no endpoint to dial.
    NoEndpoints(PeerId),
    /// It is so already: wanted, not wanted, not failed, network up, …
    AlreadySo,
    /// The profile takes no inbound connections.
    NotInbound(PeerId),
}
