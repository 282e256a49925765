//! Standing in line: behind which breaker a peer waits, and which endpoint it prefers.

use crate::action::PeerCause;
use crate::manager::Manager;
use crate::manager::endpoints::{EndpointRecord, queue};
use crate::manager::out::Out;
use crate::manager::peers::{NONE, Phase};

impl Manager {
    /// Gives the peer its place in line: behind the breaker of the endpoint it prefers among those
    /// that admit, or behind all of its breakers while none does (the first to admit it wins).
    pub(crate) fn enqueue(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        let first = self.peers.slab[slot].first_endpoint;
        let choice = self.choose(first);
        if choice.is_none() && self.endpoints.chain(first).any(|(_, endpoint)| endpoint.tried) {
            // The endpoint that was left to try has shut meanwhile: that ends the round.
            return self.end_round(slot, None, cause, out);
        }
        self.enter(slot, Phase::Waiting, cause, out);
        match choice {
            Some(endpoint) => self.line_up(endpoint),
            None => {
                let mut endpoint = first;
                while endpoint != NONE {
                    let next = self.endpoints.slab[endpoint].next;
                    self.line_up(endpoint);
                    endpoint = next;
                }
            }
        }
    }

    fn line_up(&mut self, slot: u32) {
        let endpoint = &mut self.endpoints.slab[slot];
        let breaker = &mut self.breakers.slab[endpoint.breaker];
        endpoint.ticket = breaker.tickets;
        breaker.tickets += 1;
        let breaker = endpoint.breaker;
        self.endpoints.queues.push_back(queue(breaker), slot);
        self.refresh_ring(breaker);
    }

    /// The endpoint to dial next: the first that was not yet tried in this round and whose breaker
    /// admits; one that failed a short while ago comes after those that did not.
    pub(crate) fn choose(&self, first: u32) -> Option<u32> {
        let mut second_choice = None;
        for (slot, endpoint) in self.endpoints.chain(first) {
            if !self.is_open_to(endpoint) {
                continue;
            }
            if !self.is_avoided(endpoint) {
                return Some(slot);
            }
            second_choice = second_choice.or(Some(slot));
        }
        second_choice
    }

    /// Whether the endpoint is left to try in this round.
    pub(crate) fn is_open_to(&self, endpoint: &EndpointRecord) -> bool {
        !endpoint.tried && self.admits(endpoint.breaker)
    }

    fn is_avoided(&self, endpoint: &EndpointRecord) -> bool {
        let Some(failures) = endpoint.failures.checked_sub(1) else { return false };
        let peer = &self.peers.slab[endpoint.peer];
        let delay = self.policies.peer(peer.profile).backoff.delay(failures);
        self.now < endpoint.failed_at + delay
    }

    /// Finds another place for a peer whose breaker opened while it has other endpoints.
    pub(crate) fn place_again(&mut self, endpoint: u32, out: &mut Out<'_>) {
        let peer = self.endpoints.slab[endpoint].peer;
        self.enqueue(peer, PeerCause::Asked, out);
    }
}
