//! The peers' endpoints: what each remembers, and its place in its breaker's queue.

use crate::container::list::Lists;
use crate::container::slab::Slab;
use crate::id::EndpointId;
use crate::manager::peers::NONE;
use crate::phi::Phi;
use crate::time::Time;

#[derive(Clone, Debug)]
pub(crate) struct EndpointRecord {
    pub(crate) id: EndpointId,
    pub(crate) peer: u32,
    pub(crate) breaker: u32,
    /// The next one in the peer's order of preference.
    pub(crate) next: u32,
    /// Whether it was dialed in this round.
    pub(crate) tried: bool,
    /// Failures in a row; survives success elsewhere.
    pub(crate) failures: u32,
    pub(crate) failed_at: Time,
    /// Until when its server asked to be left alone.
    pub(crate) not_before: Time,
    /// The number of its place in the queue, from its breaker's counter.
    pub(crate) ticket: u64,
    /// Whether its peer has other endpoints.
    pub(crate) several: bool,
    /// What the detector learned on the last connection to it.
    pub(crate) rhythm: Option<Phi>,
}

/// The list of endpoints whose breaker opened while their peer has another one to try.
pub(crate) const DISPLACED: u32 = 0;

/// The list of endpoints that wait for the breaker in `slot`: those whose peer has no other one, or
/// those whose peer has `several`. Together, by their tickets, they are the breaker's line; apart,
/// so that only the second need be moved when the breaker opens.
pub(crate) const fn queue(slot: u32, several: bool) -> u32 {
    2 * slot + 1 + several as u32
}

#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    pub(crate) slab: Slab<EndpointRecord>,
    pub(crate) queues: Lists,
}

impl Endpoints {
    pub(crate) const fn new() -> Self {
        Self { slab: Slab::new(), queues: Lists::new() }
    }

    /// The chain that begins at `first`, in order of preference.
    pub(crate) fn chain(&self, first: u32) -> impl Iterator<Item = (u32, &EndpointRecord)> {
        let at = |slot: u32| self.slab.get(slot).map(|endpoint| (slot, endpoint));
        core::iter::successors(at(first), move |(_, endpoint)| at(endpoint.next))
    }

    /// Calls `change` on each endpoint of the chain that begins at `first`.
    pub(crate) fn each(&mut self, first: u32, mut change: impl FnMut(u32, &mut EndpointRecord)) {
        let mut slot = first;
        while slot != NONE {
            let Some(endpoint) = self.slab.get_mut(slot) else { return };
            let next = endpoint.next;
            change(slot, endpoint);
            slot = next;
        }
    }

    /// The first endpoint that waits for the breaker.
    pub(crate) fn first_waiting(&self, breaker: u32) -> Option<u32> {
        self.line(breaker).next()
    }

    /// All that wait for the breaker, the first to come first.
    pub(crate) fn line(&self, breaker: u32) -> impl Iterator<Item = u32> {
        let mut single = self.queues.iter(queue(breaker, false)).peekable();
        let mut several = self.queues.iter(queue(breaker, true)).peekable();
        let ticket = |endpoint: u32| self.slab[endpoint].ticket;
        core::iter::from_fn(move || match (single.peek(), several.peek()) {
            (Some(&one), Some(&other)) if ticket(one) > ticket(other) => several.next(),
            (None, Some(_)) => several.next(),
            _ => single.next(),
        })
    }
}
