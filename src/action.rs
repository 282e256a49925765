//! What the manager answers: orders to carry out, and notices that only tell.

use core::time::Duration;

use crate::breaker;
use crate::event::{CallFailure, DialCause, LossCause};
use crate::id::{AttemptId, BreakerId, CallId, ConnId, EndpointId, PeerId, PingId, Tag};
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
    /// Make the request, and report exactly one of [`Succeeded`](crate::Event::Succeeded),
    /// [`Failed`](crate::Event::Failed) and [`Dropped`](crate::Event::Dropped), unless
    /// [`CancelAttempt`](Action::CancelAttempt) comes first. The manager has a timeout of its own.
    StartAttempt {
        /// The attempt's name.
        attempt: AttemptId,
        /// Which call it is for.
        call: CallId,
        /// Over which connection, for a call to a peer.
        conn: Option<ConnId>,
    },
    /// Drop the attempt; its id is dead.
    CancelAttempt {
        /// Which.
        attempt: AttemptId,
    },
    /// The call is refused: no attempt of it was made.
    Reject {
        /// Which.
        call: CallId,
        /// Why.
        reason: RejectReason,
        /// When this reason ends at the earliest, where time alone ends it. Everybody who was refused
        /// is told the same moment and not all will be let through then: add jitter of your own.
        retry_after: Option<Duration>,
    },
    /// The call has failed: there were attempts, or it is no longer wanted.
    GiveUp {
        /// Which.
        call: CallId,
        /// Why there is no further attempt.
        reason: GiveUpReason,
        /// How its last attempt failed.
        last: Option<CallFailure>,
    },
    /// The call succeeded.
    Done {
        /// Which.
        call: CallId,
    },
    /// Nothing to do: it tells.
    Notice(Notice),
}

/// Why a call was refused before any attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RejectReason {
    /// Its deadline has passed, or would before it could begin.
    Deadline,
    /// The peer has no connection, and the profile does not wait for one, or its next dial comes
    /// too late.
    NotConnected,
    /// As many run as may, and as many wait as may.
    BulkheadFull,
    /// The rate has no token within the time that it may wait, or as many wait for one as may.
    RateLimited,
    /// It has waited as long as it may.
    WaitedTooLong,
    /// The server takes too few of our requests, and this one was left out.
    Throttled,
    /// The breaker admits nothing, or no more.
    BreakerOpen,
    /// The breaker has closed and lets the load grow again.
    RampingUp,
    /// There are as many calls as the configuration allows.
    TooManyCalls,
    /// No such peer.
    UnknownPeer,
    /// No such breaker.
    UnknownBreaker,
    /// No call profile of that number.
    UnknownProfile,
    /// The peer was removed while the call waited.
    PeerRemoved,
}

/// Why a call has no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum GiveUpReason {
    /// As many attempts failed as the profile allows.
    TooManyAttempts,
    /// The next attempt would begin, or this one would end, after the deadline.
    Deadline,
    /// The failure is not of a kind that is retried.
    NotRetryable,
    /// The retry budget is used up.
    BudgetExhausted,
    /// The server asked not to be tried again, or for longer than the profile waits.
    ServerSaidNo,
    /// A gate refused the retry.
    Refused(RejectReason),
    /// The driver cancelled it.
    Cancelled,
    /// Its caller went away.
    Dropped,
    /// The peer was removed.
    PeerRemoved,
    /// It belongs to an earlier process.
    Restarted,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WaitsFor {
    /// The peer's connection.
    Connection,
    /// Its turn at the bulkhead and the rate.
    Turn,
    /// The end of its backoff.
    Backoff,
    /// The end of an open breaker.
    Breaker,
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

/// Why a connection was replaced while it lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum MoveCause {
    /// An endpoint that the peer prefers is well again.
    FailedBack,
    /// Its server said that it would leave.
    Drained,
    /// It was silent, and the other one spoke first.
    Raced,
}

/// Something that happened inside, for logs, metrics and people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
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
    /// The server of this connection will leave.
    Draining {
        /// Whose.
        peer: PeerId,
        /// Which.
        conn: ConnId,
        /// When it leaves, if it said so.
        leaves_at: Option<Time>,
        /// When another one will be dialed; `None` if none is wanted or there is nothing to dial.
        replace_at: Option<Time>,
    },
    /// The connection was replaced by another one, without a moment in between.
    Moved {
        /// Whose.
        peer: PeerId,
        /// Where it led; `None` if that endpoint is gone or the peer had dialed us.
        from: Option<EndpointId>,
        /// Where it leads.
        to: EndpointId,
        /// Why.
        cause: MoveCause,
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
    /// A call waits.
    CallWaits {
        /// Which.
        call: CallId,
        /// For what.
        on: WaitsFor,
        /// Until when at the longest.
        until: Option<Time>,
    },
    /// An attempt failed and the call will be tried again.
    CallRetries {
        /// Which.
        call: CallId,
        /// How its attempt failed.
        failure: CallFailure,
        /// When its next attempt is due.
        at: Time,
    },
    /// A breaker now only watches, or no longer.
    WatchOnly {
        /// Which.
        breaker: BreakerId,
        /// Whether it only watches.
        on: bool,
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
    /// The attempt is over, or never was.
    StaleAttempt(AttemptId),
    /// No such call, or no longer.
    UnknownCall(CallId),
    /// The name is in use.
    CallExists(CallId),
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
    /// An endpoint names the breaker, or a call passes it.
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
