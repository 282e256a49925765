//! What the driver tells the manager.

use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{
    AttemptId, BreakerId, BreakerProfileId, CallId, CallProfileId, ConnId, EndpointId, PeerId,
    PeerProfileId, PingId, Tag,
};
use crate::time::Time;

/// One of a peer's addresses, and the breaker that guards dials to it.
///
/// The manager never sees the address itself; [`Action::Dial`](crate::Action::Dial) names it by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Endpoint {
    /// The driver's name for the address, unique within the peer.
    pub id: EndpointId,
    /// The breaker that its dials pass; it must have been added before.
    pub breaker: BreakerId,
}

/// Where a call goes, and the breaker whose gates it passes.
///
/// The breaker guards calls and is best not one that guards dials: a server that refuses
/// connections and one that fails requests fail in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Target {
    /// Whatever the driver reaches behind this breaker, over connections of its own.
    Breaker(BreakerId),
    /// A peer, over its connection.
    Peer {
        /// Which peer.
        peer: PeerId,
        /// The breaker that guards the call.
        breaker: BreakerId,
    },
}

impl Target {
    /// The breaker that guards the call.
    #[must_use]
    pub const fn breaker(self) -> BreakerId {
        match self {
            Self::Breaker(breaker) | Self::Peer { breaker, .. } => breaker,
        }
    }
}

/// How long a server asked callers to stay away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum RetryAfter {
    /// At least this long; a little jitter comes on top, since everybody is told the same.
    After(Duration),
    /// For good: the call is not to be tried again.
    Never,
}

/// One thing that happened or that somebody wants: the first argument of
/// [`Manager::step`](crate::Manager::step).
///
/// Any event may come at any time. One that makes no sense (an unknown peer, a connection that is
/// gone) changes nothing and is answered by [`Notice::Ignored`](crate::Notice::Ignored).
///
/// Exhaustive on purpose, like [`Action`](crate::Action): a new kind is a breaking change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Event {
    // Membership.
    /// A breaker comes to be, closed.
    AddBreaker {
        /// Its name, not in use.
        breaker: BreakerId,
        /// Its settings.
        profile: BreakerProfileId,
    },
    /// A breaker goes; refused while an endpoint names it or a call passes it.
    RemoveBreaker {
        /// Its name.
        breaker: BreakerId,
    },
    /// A peer comes to be, without an intent to connect.
    AddPeer {
        /// Its name, not in use.
        peer: PeerId,
        /// Its settings.
        profile: PeerProfileId,
        /// Its addresses in order of preference. None: the peer can only dial us.
        endpoints: Vec<Endpoint>,
    },
    /// The peer's addresses are now these (its name was resolved again).
    ///
    /// An endpoint that keeps id and breaker keeps its memory. A dial to one that is gone is
    /// cancelled, uncounted; a connection to it stays. Refused when empty.
    SetEndpoints {
        /// Whose.
        peer: PeerId,
        /// All of them, in order of preference.
        endpoints: Vec<Endpoint>,
    },
    /// The peer goes: its dial is cancelled, its connection closed, its calls end.
    RemovePeer {
        /// Which.
        peer: PeerId,
    },

    // Intents.
    /// From now on we want a connection to the peer; revives a failed one.
    ///
    /// A peer in backoff stays there: pressing the button again must not make a herd. (After
    /// [`Disconnect`](Event::Disconnect) it is a fresh intent, and starts at once.)
    Connect {
        /// To whom.
        peer: PeerId,
    },
    /// We no longer want one; an existing one is closed.
    Disconnect {
        /// From whom.
        peer: PeerId,
    },

    /// Somebody wants a request made; answered by exactly one of
    /// [`Done`](crate::Action::Done), [`GiveUp`](crate::Action::GiveUp) and
    /// [`Reject`](crate::Action::Reject), now or later. A name in use is ignored with a notice.
    Call {
        /// Its name, not in use.
        call: CallId,
        /// Where it goes.
        target: Target,
        /// How it is tried and retried.
        profile: CallProfileId,
        /// When it must be over; `None`: as the profile says.
        deadline: Option<Time>,
    },
    /// It is no longer wanted: its attempts are cancelled, and it is given up.
    CancelCall {
        /// Which.
        call: CallId,
    },

    // Facts of connections.
    /// The dial succeeded, the handshake included.
    Connected {
        /// The dial.
        conn: ConnId,
        /// Whether the server took up the old session; its word is final.
        resumed: bool,
    },
    /// The dial failed.
    DialFailed {
        /// The dial.
        conn: ConnId,
        /// Why.
        cause: DialCause,
        /// How long the server asked us to stay away; jitter comes on top.
        retry_after: Option<Duration>,
    },
    /// The connection ended and we did not order it.
    Lost {
        /// Which.
        conn: ConnId,
        /// Why.
        cause: LossCause,
    },
    /// The server will leave: HTTP/2's `GOAWAY`, a lame duck, a drain. Another connection is made
    /// before it does, and then this one is closed; also a sign of life.
    GoAway {
        /// Over which connection it said so.
        conn: ConnId,
        /// How long it will still serve; `None` if it did not say. More than an hour is taken for one.
        leaves_in: Option<Duration>,
        /// How long it asked us to wait before we dial it again, even if it goes before; zero if it
        /// did not say. At most the breaker's `max_retry_after`.
        reconnect_in: Duration,
    },
    /// Anything at all came in over the connection. The hottest event: an index and a comparison.
    Heard {
        /// Which.
        conn: ConnId,
    },
    /// A *periodic* sign of life: heard, and a sample for the failure detector.
    Heartbeat {
        /// Which.
        conn: ConnId,
    },
    /// The answer to [`Action::Ping`](crate::Action::Ping).
    Pong {
        /// Which ping.
        ping: PingId,
    },
    /// What the driver measured on the connection; also a sign of life.
    Metrics {
        /// Which.
        conn: ConnId,
        /// Round-trip or request latency.
        latency: Duration,
        /// Loss in parts per million; above 1,000,000 counts as that.
        loss: u32,
    },
    /// The peer dialed us; answered by [`Action::Adopt`](crate::Action::Adopt) or
    /// [`Action::Refuse`](crate::Action::Refuse).
    Accepted {
        /// Who, as the handshake told.
        peer: PeerId,
        /// The driver's mark on the connection.
        tag: Tag,
    },

    // Facts of calls.
    /// The attempt was answered well, and so its call is done.
    Succeeded {
        /// Which.
        attempt: AttemptId,
    },
    /// The attempt failed. When a connection ends, the driver reports this for each attempt that ran
    /// over it: as [`Disconnected`](CallFailure::Disconnected), or as [`Local`](CallFailure::Local) if
    /// it was ended by [`Close`](crate::Action::Close), which is nobody's fault.
    Failed {
        /// Which.
        attempt: AttemptId,
        /// How.
        kind: CallFailure,
        /// How long the server asked us to stay away.
        retry_after: Option<RetryAfter>,
    },
    /// The caller went away while the attempt ran: the call and all its attempts end, uncounted. A
    /// caller's timeout is not this but a failure.
    Dropped {
        /// Which.
        attempt: AttemptId,
    },

    // Environment.
    /// This host has no network: no dials, no pings, detectors and breakers stand still.
    NetworkDown,
    /// It has one again. After more than a moment
    /// ([`debounce`](crate::config::NetworkConfig::debounce)) failures are forgotten, dials begin anew,
    /// those who back off come soon, and connections with pings are asked soon whether they live.
    NetworkUp,
    /// It has another one (a new address, another route): as after an outage. What is lost with the
    /// old address the driver reports as [`Lost`](Event::Lost).
    NetworkChanged,
    /// The app is in the background and must not use the network: everything stands still.
    Paused,
    /// It is back; who knows over what network.
    Resumed,
    /// How busy this host is.
    Load {
        /// In parts per million; above 1,000,000 counts as that.
        load: u32,
    },
    /// This is a new process that restored a snapshot: every connection and dial of the old one is
    /// gone, and so are its calls, whose attempts count against nobody. Sessions, backoffs, breakers
    /// and budgets are kept.
    Restarted,
    /// Nothing happened but time.
    Tick,

    // Operator.
    /// The breaker admits nothing until reset.
    ForceOpen {
        /// Which.
        breaker: BreakerId,
    },
    /// The breaker admits everything and counts nothing until reset.
    Disable {
        /// Which.
        breaker: BreakerId,
    },
    /// From now on the breaker only watches: it decides and reports as ever, and admits all. Or no
    /// longer.
    WatchOnly {
        /// Which.
        breaker: BreakerId,
        /// Whether it only watches.
        on: bool,
    },
    /// The breaker is closed and as new, whatever it was; watching only stays as it is.
    ResetBreaker {
        /// Which.
        breaker: BreakerId,
    },
    /// A peer that gave up, or is in backoff, tries again now and as if it had never failed.
    Revive {
        /// Which; `None` for all that gave up.
        peer: Option<PeerId>,
    },
}

/// Why a dial failed, in classes that differ in what they count against.
///
/// Source: the error classes that Azure `IoT`, async-nats and Discord's gateway tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DialCause {
    /// Nobody listens, or the listener's queue is full.
    Refused,
    /// No answer in time. The manager's own timeout comes first unless the driver has a shorter one.
    Timeout,
    /// No route.
    Unreachable,
    /// The name did not resolve.
    Resolve,
    /// The TLS handshake failed. Peer-specific.
    Tls,
    /// The server said "not now".
    Throttled,
    /// The server knows us and says no. Peer-specific.
    Auth,
    /// The two do not speak the same protocol. Peer-specific.
    Incompatible,
    /// The server does not know what we ask for. Peer-specific.
    NotFound,
    /// Our own fault: no sockets, no ports, no memory. Counts against nobody.
    Local,
    /// The driver gave it up. Counts against nobody.
    Cancelled,
}

impl DialCause {
    /// Whether it tells about this peer rather than about the server behind the breaker.
    #[must_use]
    pub const fn is_peer_specific(self) -> bool {
        matches!(self, Self::Tls | Self::Auth | Self::Incompatible | Self::NotFound)
    }

    /// Whether it tells nothing about the other side at all.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Local | Self::Cancelled)
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LossCause {
    /// The other side closed it.
    Eof,
    /// It was reset.
    Reset,
    /// Another connection of the same peer took its place.
    Replaced,
    /// The server threw us out.
    Kicked,
    /// One of the two broke the protocol.
    Protocol,
    /// Our failure detector gave it up.
    Suspected,
    /// Our own side ended it, a restart included.
    Local,
}

/// How an attempt failed, in classes that differ in what they count against and in whether another
/// attempt can help.
///
/// Source: the classes that gRPC's status codes, HTTP and the AWS SDKs' retry modes tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CallFailure {
    /// The server failed (500, `INTERNAL`).
    Error,
    /// No answer in time; also what the manager's own timeout counts as.
    Timeout,
    /// The server said "not now" (429, `RESOURCE_EXHAUSTED`).
    Throttled,
    /// The server said that it is away (503, `UNAVAILABLE`).
    Unavailable,
    /// The connection broke under it.
    Disconnected,
    /// The caller's own fault (4xx, `INVALID_ARGUMENT`): counts against nobody, never retried.
    Invalid,
    /// The server failed, and trying again would do harm or cannot help: counts, never retried.
    Fatal,
    /// Our own fault: no sockets, no memory. Counts against nobody.
    Local,
}

impl CallFailure {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Timeout,
        Self::Throttled,
        Self::Unavailable,
        Self::Disconnected,
        Self::Invalid,
        Self::Fatal,
        Self::Local,
    ];

    /// Whether no profile may have it retried.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Invalid | Self::Fatal)
    }
}

impl Event {
    /// The connection that it is about, if it names one.
    pub(crate) const fn conn(&self) -> Option<ConnId> {
        match *self {
            Self::Connected { conn, .. }
            | Self::DialFailed { conn, .. }
            | Self::Lost { conn, .. }
            | Self::GoAway { conn, .. }
            | Self::Heard { conn }
            | Self::Heartbeat { conn }
            | Self::Metrics { conn, .. } => Some(conn),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_connection_names_it_and_nothing_else_does() {
        let conn = ConnId::new(3, 1);
        let named = [
            Event::Connected { conn, resumed: false },
            Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None },
            Event::Lost { conn, cause: LossCause::Eof },
            Event::GoAway { conn, leaves_in: None, reconnect_in: Duration::ZERO },
            Event::Heard { conn },
            Event::Heartbeat { conn },
            Event::Metrics { conn, latency: Duration::ZERO, loss: 0 },
        ];
        for event in named {
            assert_eq!(event.conn(), Some(conn), "{event:?}");
        }
        assert_eq!(Event::Tick.conn(), None);
        assert_eq!(Event::Pong { ping: PingId::new(3, 1) }.conn(), None);
    }
}
