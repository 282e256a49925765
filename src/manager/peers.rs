//! The peers, and in which phase each one is.

use core::time::Duration;

use crate::action::PeerState;
use crate::container::list::Lists;
use crate::container::map::{Map, Named};
use crate::container::slab::Slab;
use crate::container::sparse::Sparse;
use crate::id::PeerId;
use crate::time::Time;

/// No endpoint, no breaker.
pub(crate) const NONE: u32 = u32::MAX;

/// What moves a peer on; each phase has the one timer or queue place that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub(crate) enum Phase {
    /// Nothing is wanted and nothing is there.
    Idle,
    /// Given up.
    Failed,
    /// Its timer moves it on.
    BackingOff {
        /// When.
        until: Time,
    },
    /// It has a place in the queue of one breaker, or of all its breakers while none admits.
    Waiting,
    /// The dial's answer or timeout moves it on.
    Dialing {
        /// The slot of the dial.
        conn: u32,
    },
    /// It has a connection.
    Up {
        /// The slot of the connection.
        conn: u32,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) profile: u16,
    /// Whether the driver wants a connection.
    pub(crate) wanted: bool,
    /// Whether a dial failed or a connection was lost since it became wanted.
    pub(crate) coming_back: bool,
    /// Whether the last failure was peer-specific, so that the backoff's cap is longer.
    pub(crate) slow_lane: bool,
    /// Whether the last dial timed out, so that the next may take longer.
    pub(crate) timed_out: bool,
    pub(crate) degraded: bool,
    /// The state that was last told.
    pub(crate) told: PeerState,
    pub(crate) phase: Phase,
    /// When the phase began.
    pub(crate) since: Time,
    /// Since when it is wanted and without a connection.
    pub(crate) without_since: Time,
    /// How long the network had been down until then, all in all.
    pub(crate) offline_before: u64,
    /// When it was last connected; the epoch of time if never.
    pub(crate) connected_at: Time,
    /// Until when the server keeps the session of the last connection.
    pub(crate) session_until: Time,
    pub(crate) backoff_draws: u32,
    pub(crate) retry_draws: u32,
    /// The first endpoint in order of preference; each names the next.
    pub(crate) first_endpoint: u32,
    /// The endpoint of the last dial.
    pub(crate) last_endpoint: u32,
}

/// What has failed for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Failed rounds of dials since the last stable connection, as of `epoch`.
    pub(crate) failures: u32,
    /// How many of them befell every peer alike, and so give none up.
    pub(crate) excused: u32,
    /// The network epoch in which `failures` were counted.
    pub(crate) epoch: u32,
    /// Dials in a row that failed by our own fault.
    pub(crate) own_failures: u32,
    /// The last backoff, for decorrelated jitter.
    pub(crate) previous_delay: Duration,
}

impl Trouble {
    pub(crate) const NONE: Self =
        Self { failures: 0, excused: 0, epoch: 0, own_failures: 0, previous_delay: Duration::ZERO };
}

/// What is to take the place of a peer's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Succession {
    /// The slot of the replacement.
    pub(crate) replacement: u32,
    pub(crate) replacement_draws: u32,
}

/// What was measured on a peer's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quality {
    /// Smoothed latency in nanoseconds and loss in parts per million.
    pub(crate) measured: Option<(u64, u32)>,
}

impl Named for Peer {
    fn id(&self) -> u64 {
        self.id.0
    }
}

impl Peer {
    pub(crate) const fn state(&self) -> PeerState {
        match self.phase {
            Phase::Idle => PeerState::Disconnected,
            Phase::Failed => PeerState::Failed,
            Phase::Up { .. } => PeerState::Connected,
            Phase::BackingOff { .. } | Phase::Waiting | Phase::Dialing { .. } => {
                if self.coming_back { PeerState::Reconnecting } else { PeerState::Connecting }
            }
        }
    }
}

/// The list of peers in backoff.
pub(crate) const BACKING_OFF: u32 = 0;
/// The list of peers to be brought out of backoff or out of failure, a few at a time.
pub(crate) const WOKEN: u32 = 1;
/// The list of peers given up.
pub(crate) const FAILED: u32 = 2;

#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) slab: Slab<Peer>,
    pub(crate) map: Map,
    pub(crate) lists: Lists,
    /// Beside the records, by slot, what few peers have.
    pub(crate) troubles: Sparse<Trouble>,
    pub(crate) successions: Sparse<Succession>,
    pub(crate) qualities: Sparse<Quality>,
}

impl Peers {
    pub(crate) fn new(hash_key: u64) -> Self {
        Self {
            slab: Slab::new(),
            map: Map::new(hash_key),
            lists: Lists::new(),
            troubles: Sparse::new(Trouble::NONE),
            successions: Sparse::new(Succession { replacement: NONE, replacement_draws: 0 }),
            qualities: Sparse::new(Quality { measured: None }),
        }
    }

    pub(crate) fn reserve(&mut self, peers: usize) {
        self.slab.reserve(peers);
        self.map.reserve(peers, &self.slab);
        self.lists.reserve(peers);
    }

    pub(crate) fn find(&self, id: PeerId) -> Option<u32> {
        self.map.find(id.0, &self.slab)
    }

    pub(crate) fn insert(&mut self, peer: Peer) -> u32 {
        let slot = self.slab.insert(peer);
        self.map.insert(slot, &self.slab);
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.troubles.take(slot);
        self.successions.take(slot);
        self.qualities.take(slot);
        self.map.remove(slot, &self.slab);
        self.slab.remove(slot);
    }
}
