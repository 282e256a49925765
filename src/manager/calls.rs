//! Calls and their attempts: the records, and the lists that they stand on.

use core::time::Duration;

use alloc::vec::Vec;

use crate::breaker::Permit;
use crate::container::list::Lists;
use crate::container::map::{Map, Named};
use crate::container::slab::Slab;
use crate::event::CallFailure;
use crate::id::{AttemptId, CallId, MAX_GENERATION, PeerId};
use crate::manager::peers::NONE;
use crate::stats::CallCounts;
use crate::time::Time;

/// What moves a call on; each phase has the one timer or list place that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub(crate) enum CallPhase {
    /// Only within a step: nothing has been decided yet.
    Asked,
    /// The peer's connection moves it on, or its timer.
    Connection {
        /// Until when it waits.
        until: Time,
    },
    /// Its place in the line moves it on, or its timer.
    Turn {
        /// Its place, as the bulkhead knows it.
        ticket: u64,
        /// Until when it waits.
        until: Time,
    },
    /// Its timer moves it on.
    BackingOff {
        /// When.
        until: Time,
    },
    /// The answer to one of its attempts, or a timeout.
    Running {
        /// When it is joined by another attempt; the end of time if never.
        hedge_at: Time,
    },
}

impl CallPhase {
    /// Where a call in this phase is counted; `None` for one that no call is in between two steps.
    pub(crate) const fn count(self, counts: &mut CallCounts) -> Option<&mut u32> {
        match self {
            Self::Asked => None,
            Self::Connection { .. } => Some(&mut counts.connection),
            Self::Turn { .. } => Some(&mut counts.turn),
            Self::BackingOff { .. } => Some(&mut counts.backing_off),
            Self::Running { .. } => Some(&mut counts.running),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) profile: u16,
    /// The breaker whose gates it passes.
    pub(crate) breaker: u32,
    /// The peer that it goes to; none if it only passes a breaker.
    pub(crate) peer: u32,
    /// That peer's name, since its slot may be another's by now.
    pub(crate) peer_id: PeerId,
    /// The process that it belongs to; see [`Calls::restart`].
    pub(crate) process: u32,
    pub(crate) since: Time,
    pub(crate) deadline: Time,
    pub(crate) phase: CallPhase,
    /// Attempts begun.
    pub(crate) attempts: u32,
    /// Of those, the hedges.
    pub(crate) hedges: u32,
    /// The latest of its attempts that run; each names the next.
    pub(crate) first_attempt: u32,
    /// How its last attempt failed.
    pub(crate) last: Option<CallFailure>,
    /// Whether its next attempt has been paid for.
    pub(crate) paid: bool,
    /// Until when its server asked to be left alone; the end of time if for good, or for longer
    /// than the profile waits.
    pub(crate) not_before: Time,
    /// The last backoff, for decorrelated jitter.
    pub(crate) previous_delay: Duration,
    /// Numbers drawn for it.
    pub(crate) draws: u32,
}

impl Named for Call {
    fn id(&self) -> u64 {
        self.id.0
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) call: u32,
    /// The next attempt of the same call.
    pub(crate) next: u32,
    pub(crate) permit: Permit,
    pub(crate) since: Time,
    /// Whether it was paid for from the budget.
    pub(crate) paid: bool,
    /// Whether it joined another that was slow.
    pub(crate) hedge: bool,
}

/// The list of this process's calls.
pub(crate) const LIVE: u32 = 0;
/// The list of the calls whose process is gone.
pub(crate) const ORPHANS: u32 = 1;

/// The list of calls whose peer has come up: they go to the gates, a few at a time.
pub(crate) const RELEASED: u32 = 0;
/// The list of calls whose peer was removed: they end, a few at a time.
pub(crate) const DOOMED: u32 = 1;

/// The list of calls that wait for the connection of the peer in `slot`.
pub(crate) const fn waiting_for(slot: u32) -> u32 {
    2 * slot + 2
}

/// The list of the other calls to the peer in `slot`.
pub(crate) const fn bound_for(slot: u32) -> u32 {
    2 * slot + 3
}

/// The list of breakers whose line of waiting calls could move.
pub(crate) const MOVING: u32 = 0;

#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) slab: Slab<Call>,
    pub(crate) map: Map,
    /// By process.
    pub(crate) lists: Lists,
    /// By peer: a call to a peer is on exactly one of these.
    pub(crate) places: Lists,
    /// The breakers whose line could move.
    pub(crate) lines: Lists,
    pub(crate) attempts: Slab<Attempt>,
    /// How many attempts each slot has had.
    pub(crate) generations: Vec<u64>,
    pub(crate) process: u32,
}

impl Calls {
    pub(crate) fn new(hash_key: u64) -> Self {
        Self {
            slab: Slab::new(),
            map: Map::new(hash_key),
            lists: Lists::new(),
            places: Lists::new(),
            lines: Lists::new(),
            attempts: Slab::new(),
            generations: Vec::new(),
            process: 0,
        }
    }

    /// The slot of the call of that name, of this process or an earlier one.
    pub(crate) fn find_any(&self, id: CallId) -> Option<u32> {
        self.map.find(id.0, &self.slab)
    }

    /// The slot of the call of that name, of this process.
    pub(crate) fn find(&self, id: CallId) -> Option<u32> {
        self.find_any(id).filter(|&slot| self.is_live(slot))
    }

    /// Whether the call belongs to this process.
    pub(crate) fn is_live(&self, slot: u32) -> bool {
        self.slab[slot].process == self.process
    }

    /// The slot of an attempt that is there and belongs to this process.
    pub(crate) fn find_attempt(&self, id: AttemptId) -> Option<u32> {
        let attempt = self.attempts.get(id.slot())?;
        (attempt.id == id && self.is_live(attempt.call)).then_some(id.slot())
    }

    /// Takes in a call whose name nobody has.
    pub(crate) fn insert(&mut self, call: Call) -> u32 {
        let slot = self.slab.insert(call);
        self.map.insert_fresh(slot, &self.slab);
        self.lists.push_back(LIVE, slot);
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Call> {
        self.lists.unlink(slot);
        self.places.unlink(slot);
        self.map.remove(slot, &self.slab);
        self.slab.remove(slot)
    }

    /// Takes a slot for an attempt that `make` builds under its id, and puts it first of its call's.
    pub(crate) fn begin(&mut self, call: u32, make: impl FnOnce(AttemptId, u32) -> Attempt) -> u32 {
        let slot = self.attempts.next_slot();
        let index = slot as usize;
        if self.generations.len() <= index {
            self.generations.resize(index + 1, 0);
        }
        let generation = self.generations.get(index).copied().unwrap_or_default();
        let next = core::mem::replace(&mut self.slab[call].first_attempt, slot);
        self.attempts.insert(make(AttemptId::new(slot, generation), next))
    }

    /// Takes the attempt out of its slot and of its call; its id is dead.
    pub(crate) fn end(&mut self, slot: u32) -> Option<Attempt> {
        let Attempt { call, next, .. } = *self.attempts.get(slot)?;
        if self.slab[call].first_attempt == slot {
            self.slab[call].first_attempt = next;
        } else {
            let mut before = self.slab[call].first_attempt;
            while before != NONE && self.attempts[before].next != slot {
                before = self.attempts[before].next;
            }
            if before != NONE {
                self.attempts[before].next = next;
            }
        }
        let generation = self.generations.get_mut(slot as usize)?;
        let exhausted = *generation >= MAX_GENERATION;
        *generation = generation.saturating_add(1).min(MAX_GENERATION);
        if exhausted { self.attempts.retire(slot) } else { self.attempts.remove(slot) }
    }

    /// The attempts of the call that run, the latest first.
    pub(crate) fn attempts_of(&self, call: u32) -> impl Iterator<Item = (u32, &Attempt)> {
        let at = |slot: u32| self.attempts.get(slot).map(|attempt| (slot, attempt));
        let first = self.slab.get(call).map_or(NONE, |call| call.first_attempt);
        core::iter::successors(at(first), move |(_, attempt)| at(attempt.next))
    }

    /// A new process begins: all calls are orphans, and whatever is said of them is stale.
    pub(crate) fn restart(&mut self) {
        self.process = self.process.wrapping_add(1);
        self.lists.splice(LIVE, ORPHANS);
    }
}
