//! Dials and connections: the records that the hottest events touch.

use alloc::vec::Vec;

use crate::breaker::Permit;
use crate::container::list::Lists;
use crate::container::slab::Slab;
use crate::id::{ConnId, MAX_GENERATION, PingId};
use crate::manager::crowd::Trust;
use crate::phi::Phi;
use crate::probe::Probe;
use crate::time::Time;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub(crate) enum ConnPhase {
    /// The dial is in flight, under the breaker's permit.
    Dialing {
        /// The permit of the endpoint's breaker.
        permit: Permit,
        /// Whether we asked for the old session.
        resume: bool,
        /// When it times out.
        deadline: Time,
    },
    /// It is up.
    Up,
}

#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    /// When anything was last heard on it.
    pub(crate) last_heard: Time,
    /// When the last periodic sign of life came that the next one is measured from.
    pub(crate) last_beat: Option<Time>,
    pub(crate) peer: u32,
    /// The endpoint it leads to; none when the peer dialed us or the endpoint is gone.
    pub(crate) endpoint: u32,
    /// The process that it belongs to; see [`Conns::restart`].
    pub(crate) process: u32,
    /// Whether anything was heard since it came up.
    pub(crate) heard: bool,
    /// Whether hearing from it means more than noting the moment: it is doubted, or a ping is out or
    /// due.
    pub(crate) attentive: bool,
    /// Whether a failback made it.
    pub(crate) failed_back: bool,
    pub(crate) phase: ConnPhase,
    /// When it was dialed, then when it came up.
    pub(crate) since: Time,
    /// What speaks against it.
    pub(crate) trust: Trust,
    /// Before this moment its silence does not count: it was to be pinged and was not.
    pub(crate) excused: Time,
    pub(crate) rhythm: Option<Phi>,
    pub(crate) probe: Probe,
    /// The ping that is out.
    pub(crate) ping: Option<PingId>,
    /// Pings that the slot had had before.
    pub(crate) pings_before: u64,
}

impl Conn {
    /// A connection that begins now, on which nothing was heard yet.
    pub(crate) fn new(
        id: ConnId,
        process: u32,
        peer: u32,
        endpoint: u32,
        phase: ConnPhase,
        now: Time,
    ) -> Self {
        Self {
            id,
            last_heard: now,
            last_beat: None,
            peer,
            endpoint,
            process,
            heard: false,
            attentive: false,
            failed_back: false,
            phase,
            since: now,
            trust: Trust::Full,
            excused: Time::ZERO,
            rhythm: None,
            probe: Probe::default(),
            ping: None,
            pings_before: 0,
        }
    }
}

/// The list of this process's connections.
pub(crate) const LIVE: u32 = 0;
/// The list of the connections that an earlier process took down with it.
pub(crate) const ORPHANS: u32 = 1;
/// The list of the connections that are to be looked at because the network is another one.
pub(crate) const UNCHECKED: u32 = 2;

#[derive(Clone, Debug)]
pub(crate) struct Conns {
    pub(crate) slab: Slab<Conn>,
    pub(crate) lists: Lists,
    /// How many connections each slot has had.
    pub(crate) generations: Vec<u64>,
    /// How many pings each slot has had.
    pub(crate) pings: Vec<u64>,
    pub(crate) process: u32,
}

impl Conns {
    pub(crate) const fn new() -> Self {
        Self {
            slab: Slab::new(),
            lists: Lists::new(),
            generations: Vec::new(),
            pings: Vec::new(),
            process: 0,
        }
    }

    /// The slot of a connection that is there and belongs to this process.
    #[inline]
    pub(crate) fn find(&self, id: ConnId) -> Option<u32> {
        let conn = self.slab.get(id.slot())?;
        (conn.id == id && conn.process == self.process).then_some(id.slot())
    }

    /// The slot of the connection that the ping was sent on.
    pub(crate) fn find_ping(&self, id: PingId) -> Option<u32> {
        let conn = self.slab.get(id.slot())?;
        let next = self.pings.get(id.slot() as usize).copied()?;
        let own = (conn.pings_before..next).contains(&id.generation());
        (own && conn.process == self.process).then_some(id.slot())
    }

    /// Takes a slot for a connection that `make` builds under its id.
    pub(crate) fn insert(&mut self, make: impl FnOnce(ConnId, u32) -> Conn) -> u32 {
        let slot = self.slab.next_slot();
        let index = slot as usize;
        if self.generations.len() <= index {
            self.generations.resize(index + 1, 0);
            self.pings.resize(index + 1, 0);
        }
        let generation = self.generations.get(index).copied().unwrap_or_default();
        let mut conn = make(ConnId::new(slot, generation), self.process);
        conn.pings_before = self.pings.get(index).copied().unwrap_or_default();
        let slot = self.slab.insert(conn);
        self.lists.push_back(LIVE, slot);
        slot
    }

    /// Takes the connection out; its id is dead.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Conn> {
        self.lists.unlink(slot);
        let generation = self.generations.get_mut(slot as usize)?;
        let exhausted = *generation >= MAX_GENERATION;
        *generation = generation.saturating_add(1).min(MAX_GENERATION);
        let worn = self.pings.get(slot as usize).is_some_and(|&pings| pings > MAX_GENERATION);
        if exhausted || worn { self.slab.retire(slot) } else { self.slab.remove(slot) }
    }

    /// The next ping's id on the connection in `slot`; `None` once the slot has had them all.
    pub(crate) fn next_ping(&mut self, slot: u32) -> Option<PingId> {
        let pings = self.pings.get_mut(slot as usize).filter(|pings| **pings <= MAX_GENERATION)?;
        let ping = PingId::new(slot, *pings);
        *pings += 1;
        Some(ping)
    }

    /// A new process begins: all connections are orphans, and whatever is said of them is stale.
    pub(crate) fn restart(&mut self) {
        self.process = self.process.wrapping_add(1);
        self.lists.splice(LIVE, ORPHANS);
        self.lists.splice(UNCHECKED, ORPHANS);
    }
}
