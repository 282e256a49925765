//! The breakers, and which of them can let a dial through right now.

use alloc::boxed::Box;

use crate::breaker::Breaker;
use crate::bucket::Bucket;
use crate::config::BreakerProfilePolicy;
use crate::container::list::Lists;
use crate::container::map::{Map, Named};
use crate::container::slab::Slab;
use crate::id::BreakerId;
use crate::limit::Limit;
use crate::manager::gates::Gates;
use crate::window::Recent;

#[derive(Clone, Debug)]
pub(crate) struct BreakerRecord {
    pub(crate) id: BreakerId,
    pub(crate) profile: u16,
    pub(crate) breaker: Breaker,
    /// Dials in flight behind it.
    pub(crate) in_flight: u32,
    /// How long a dial that succeeds takes, smoothed, in nanoseconds.
    pub(crate) dial_ns: u64,
    /// How many there may be, as far as that is found out.
    pub(crate) window: Option<Limit>,
    /// Tokens of its rate, if it has one.
    pub(crate) bucket: Option<Bucket>,
    /// Connections lost behind it in the last seconds.
    pub(crate) losses: Recent,
    /// Endpoints that name it.
    pub(crate) endpoints: u32,
    /// Calls that pass it.
    pub(crate) calls: u32,
    /// The gates of its calls, from the first one on.
    pub(crate) gates: Option<Box<Gates>>,
    /// Queue places given out so far.
    pub(crate) tickets: u64,
}

impl BreakerRecord {
    /// How many dials may be in flight behind it.
    pub(crate) fn max_in_flight(&self, profile: &BreakerProfilePolicy) -> u32 {
        let found = self.window.as_ref().map_or(u32::MAX, Limit::current);
        found.min(profile.max_in_flight)
    }
}

impl Named for BreakerRecord {
    fn id(&self) -> u64 {
        self.id.0
    }
}

/// The ring of the runnable breakers.
pub(crate) const RING: u32 = 0;
/// The list of those among them that hold many of the last places in flight, which are for others.
pub(crate) const HELD_BACK: u32 = 1;

#[derive(Clone, Debug)]
pub(crate) struct Breakers {
    pub(crate) slab: Slab<BreakerRecord>,
    pub(crate) map: Map,
    /// A breaker is on one of them while somebody waits for it and it could let a dial through.
    pub(crate) ring: Lists,
}

impl Breakers {
    pub(crate) fn new(hash_key: u64) -> Self {
        Self { slab: Slab::new(), map: Map::new(hash_key), ring: Lists::new() }
    }

    pub(crate) fn find(&self, id: BreakerId) -> Option<u32> {
        self.map.find(id.0, &self.slab)
    }

    pub(crate) fn insert(&mut self, breaker: BreakerRecord) -> u32 {
        let slot = self.slab.insert(breaker);
        self.map.insert(slot, &self.slab);
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.map.remove(slot, &self.slab);
        self.slab.remove(slot);
    }
}
