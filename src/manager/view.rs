//! What can be asked of a manager; nothing here changes it.

use crate::action::{PeerState, WaitsFor};
use crate::breaker::State;
use crate::config::Config;
use crate::container::timers::TimerKind;
use crate::digest::Digest;
use crate::event::CallFailure;
use crate::id::{BreakerId, CallId, ConnId, PeerId};
use crate::manager::Manager;
use crate::manager::calls::CallPhase;
use crate::manager::conns::ConnPhase;
use crate::manager::endpoints::EndpointRecord;
use crate::manager::gates::Gates;
use crate::manager::peers::Phase;
use crate::stats::Stats;
use crate::time::Time;

/// Why a peer is not connected, or since when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Why {
    /// Its state.
    pub state: PeerState,
    /// Since when it has been in its phase.
    pub since: Time,
    /// When the phase ends by itself, if that is known.
    pub until: Option<Time>,
    /// What it waits for; `None` when connected or not wanted.
    pub blocked: Option<Blocked>,
    /// Failed rounds since the last stable connection, forgotten when such a one is lost.
    pub failures: u32,
}

/// What a call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WhyCall {
    /// When it was asked for.
    pub since: Time,
    /// When it must be over.
    pub deadline: Option<Time>,
    /// What it waits for; `None` while an attempt runs.
    pub waits: Option<WaitsFor>,
    /// When that ends by itself: the wait; or, while attempts run, the first timeout among them or
    /// the moment at which another one joins, where that is possible then.
    pub until: Option<Time>,
    /// Attempts begun.
    pub attempts: u32,
    /// How the last one failed.
    pub last: Option<CallFailure>,
}

/// What a breaker's gates hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GateView {
    /// Calls that pass it and are not over.
    pub calls: u32,
    /// Attempts that run.
    pub running: u32,
    /// How many may run at once.
    pub limit: u32,
    /// Calls in line.
    pub waiting: u32,
    /// What the retry budget holds, in thousandths of a token; `None` without one.
    pub budget: Option<u64>,
}

/// What a peer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Blocked {
    /// Its own backoff.
    Backoff,
    /// The answer to a dial.
    Dial(ConnId),
    /// A breaker that lets nobody through, or probes only.
    Breaker {
        /// Which; of several the one of the endpoint it prefers.
        breaker: BreakerId,
        /// What that one is doing.
        state: State,
        /// How many stand in line before it, at most.
        ahead: u64,
    },
    /// Its turn: the breaker admits, and others come first or a limit is reached.
    Turn {
        /// Which.
        breaker: BreakerId,
        /// How many stand in line before it, at most.
        ahead: u64,
    },
    /// The network.
    Network,
    /// The app's return to the foreground.
    Pause,
    /// An operator: the peer gave up.
    Revival,
}

/// # Reading
impl Manager {
    /// The counts. O(1).
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What it was configured with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.policies.config
    }

    /// The latest moment seen.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// How much speaks against ourselves at the latest moment seen; see
    /// [`self_health`](crate::self_health). O(1).
    #[must_use]
    pub fn self_health(&self) -> u8 {
        let policy = self.policies.self_health.as_ref();
        policy.map_or(0, |policy| self.self_health.score(policy, self.now))
    }

    /// How many dials may be in flight behind the breaker, as far as that is known by now; `None` if
    /// there is no such breaker. O(1).
    #[must_use]
    pub fn dial_window(&self, breaker: BreakerId) -> Option<u32> {
        let record = self.breakers.slab.get(self.breakers.find(breaker)?)?;
        Some(record.max_in_flight(self.policies.breaker(record.profile)))
    }

    /// The peers, in an order that the same events always give. O(n) for all.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + use<'_> {
        self.peers.slab.iter().map(|(_, peer)| peer.id)
    }

    /// The breakers, likewise.
    pub fn breakers(&self) -> impl Iterator<Item = BreakerId> + use<'_> {
        self.breakers.slab.iter().map(|(_, breaker)| breaker.id)
    }

    /// The peer's connection, or the dial that may become it; `None` without one. O(1).
    #[must_use]
    pub fn conn(&self, peer: PeerId) -> Option<ConnId> {
        match self.peers.slab[self.peers.find(peer)?].phase {
            Phase::Dialing { conn } | Phase::Up { conn } => Some(self.conns.id(conn)),
            Phase::Idle | Phase::Failed | Phase::BackingOff { .. } | Phase::Waiting => None,
        }
    }

    /// Where the peer stands; `None` if there is no such peer. O(1).
    #[must_use]
    pub fn peer_state(&self, peer: PeerId) -> Option<PeerState> {
        Some(self.peers.slab[self.peers.find(peer)?].state())
    }

    /// What the breaker is doing; `None` if there is no such breaker. O(1).
    #[must_use]
    pub fn breaker_state(&self, breaker: BreakerId) -> Option<State> {
        Some(self.breakers.slab[self.breakers.find(breaker)?].breaker.state())
    }

    /// Why the peer is not connected; `None` if there is no such peer. O(endpoints).
    #[must_use]
    pub fn why(&self, peer: PeerId) -> Option<Why> {
        let slot = self.peers.find(peer)?;
        let peer = &self.peers.slab[slot];
        let (until, blocked) = match peer.phase {
            Phase::Idle | Phase::Up { .. } => (None, None),
            Phase::Failed => (None, Some(Blocked::Revival)),
            Phase::BackingOff { until } => (Some(until), Some(Blocked::Backoff)),
            Phase::Dialing { conn } => {
                let until = match self.conns.slab[conn].phase() {
                    ConnPhase::Dialing { deadline, .. } => Some(deadline),
                    ConnPhase::Up => None,
                };
                (until, Some(Blocked::Dial(self.conns.id(conn))))
            }
            Phase::Waiting if self.network.down => (None, Some(Blocked::Network)),
            Phase::Waiting if self.network.paused => (None, Some(Blocked::Pause)),
            Phase::Waiting => self.place_in_line(peer.first_endpoint),
        };
        let failures = self.failures(slot);
        Some(Why { state: peer.state(), since: peer.since, until, blocked, failures })
    }

    /// Behind which breaker a waiting peer stands, and how far back at most.
    fn place_in_line(&self, first: u32) -> (Option<Time>, Option<Blocked>) {
        let waits = |(slot, _): &(u32, &EndpointRecord)| self.endpoints.queues.is_linked(*slot);
        let Some((slot, endpoint)) = self.endpoints.chain(first).find(waits) else {
            return (None, None);
        };
        let ahead = self.ahead_of(slot);
        let record = &self.breakers.slab[endpoint.breaker];
        let (breaker, state) = (record.id, record.breaker.state());
        match state {
            _ if record.breaker.admits() => (None, Some(Blocked::Turn { breaker, ahead })),
            State::Closed | State::Disabled => (None, Some(Blocked::Turn { breaker, ahead })),
            State::Open { until } => {
                (Some(until), Some(Blocked::Breaker { breaker, state, ahead }))
            }
            State::HalfOpen | State::ForcedOpen => {
                (None, Some(Blocked::Breaker { breaker, state, ahead }))
            }
        }
    }

    /// What the call is doing; `None` if there is no such call. O(1).
    #[must_use]
    pub fn why_call(&self, call: CallId) -> Option<WhyCall> {
        let slot = self.calls.find(call)?;
        let call = &self.calls.slab[slot];
        let (waits, until) = match call.phase {
            CallPhase::Asked => (None, None),
            CallPhase::Connection { until } => (Some(WaitsFor::Connection), Some(until)),
            CallPhase::Turn { until, .. } => (Some(WaitsFor::Turn), Some(until)),
            CallPhase::BackingOff { until } => {
                let admits = self.breakers.slab[call.breaker].breaker.admits();
                let waits = if admits { WaitsFor::Backoff } else { WaitsFor::Breaker };
                (Some(waits), Some(until))
            }
            CallPhase::Running { hedge_at } => {
                let attempts = self.calls.attempts_of(slot);
                let timeouts = attempts
                    .filter_map(|(attempt, _)| self.timers.deadline(TimerKind::Attempt, attempt));
                (None, timeouts.chain([hedge_at]).min())
            }
        };
        let until = until.map(|until| until.min(call.deadline)).filter(|until| *until < Time::MAX);
        Some(WhyCall {
            since: call.since,
            deadline: Some(call.deadline).filter(|deadline| *deadline < Time::MAX),
            waits,
            until,
            attempts: call.attempts,
            last: call.last,
        })
    }

    /// What the breaker's gates hold; `None` if there is no such breaker. O(1).
    #[must_use]
    pub fn gates(&self, breaker: BreakerId) -> Option<GateView> {
        let record = &self.breakers.slab[self.breakers.find(breaker)?];
        let policy = &self.policies.breaker(record.profile).gates;
        let fresh;
        let gates = match &record.gates {
            Some(gates) => gates,
            None => {
                fresh = Gates::new(policy, self.now);
                &fresh
            }
        };
        let budget = gates.budget.as_ref().zip(policy.budget.as_ref());
        Some(GateView {
            calls: record.calls,
            running: gates.bulkhead.in_use(),
            limit: gates.limit(policy),
            waiting: gates.bulkhead.waiting(),
            budget: budget.map(|(budget, policy)| budget.balance(policy, self.now)),
        })
    }

    /// Phi of the connection's silence at the latest moment seen, in thousandths; `None` if the
    /// connection is gone or its profile has no phi detector. O(1).
    #[must_use]
    pub fn phi(&self, conn: ConnId) -> Option<u32> {
        let conn = &self.conns.slab[self.conns.find(conn)?];
        self.phi_of(conn, self.peers.slab[conn.peer].profile)
    }

    /// One number for the run so far: every event but ticks, every action, and when.
    ///
    /// Ticks are left out, and so is the way in which work was split over steps, so two drivers
    /// that wake at different moments have the same digest if they caused the same actions. O(1).
    #[must_use]
    pub const fn run_digest(&self) -> u64 {
        self.run.value()
    }

    /// One number for the whole state. O(n).
    #[must_use]
    pub fn state_digest(&self) -> u64 {
        Digest::of(&self.snapshot())
    }

    /// One number for the shape of the state: times are relative to now, names are replaced by
    /// places, statistics and counters are left out. Two states of one shape behave alike up to
    /// their jitter; for exploring small worlds. O(n).
    #[must_use]
    pub fn shape_digest(&self) -> u64 {
        Digest::of(&self.snapshot().into_shape(&self.policies))
    }
}
