//! Standing in line: behind which breaker a peer waits, and which endpoint it prefers.

use crate::action::PeerCause;
use crate::breaker::State;
use crate::manager::Manager;
use crate::manager::endpoints::{EndpointRecord, queue};
use crate::manager::out::Out;
use crate::manager::peers::{NONE, Phase};

impl Manager {
    /// Gives the peer its place in line: behind the breaker of the endpoint it prefers among those
    /// that admit, or behind all of its breakers while none does (the first to admit it wins).
    pub(crate) fn enqueue(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        let first = self.peers.slab[slot].first_endpoint;
        if self.network.down {
            // A round ends by what the other side does, and now it can do nothing.
            self.endpoints.each(first, |_, endpoint| endpoint.tried = false);
        }
        let choice = self.choose(first);
        if choice.is_none() && self.endpoints.chain(first).any(|(_, endpoint)| endpoint.tried) {
            // The endpoint that was left to try has shut meanwhile: that ends the round.
            return self.end_round(slot, cause, out);
        }
        self.enter(slot, Phase::Waiting, cause, out);
        match choice {
            Some(endpoint) => {
                if let Some(probed) = self.probed_before(first, endpoint) {
                    self.line_up(probed);
                }
                self.line_up(endpoint);
            }
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
        let (breaker, several) = (endpoint.breaker, endpoint.several);
        self.endpoints.queues.push_back(queue(breaker, several), slot);
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

    /// An endpoint that comes before the chosen one and whose breaker has room for a probe. Without
    /// it a server that healed would never be asked again by those who have another one.
    fn probed_before(&self, first: u32, choice: u32) -> Option<u32> {
        let mut preferred = self.endpoints.chain(first).take_while(|(slot, _)| *slot != choice);
        let is_probed = |endpoint: &EndpointRecord| {
            let record = &self.breakers.slab[endpoint.breaker];
            let policy = &self.policies.breaker(record.profile).normal;
            record.breaker.state() == State::HalfOpen
                && !record.breaker.admits()
                && record.breaker.has_room(policy)
        };
        let (slot, _) = preferred.find(|(_, endpoint)| {
            !endpoint.tried && endpoint.not_before <= self.now && is_probed(endpoint)
        })?;
        Some(slot)
    }

    /// Whether a peer that stands in line at this endpoint stands right: it is the one to dial
    /// next, or a probe of one that is preferred to that.
    pub(crate) fn is_in_place(&self, first: u32, slot: u32) -> bool {
        let Some(choice) = self.choose(first) else { return true };
        let mut up_to_choice = self.endpoints.chain(first).take_while(|(at, _)| *at != choice);
        choice == slot
            || up_to_choice.any(|(at, endpoint)| at == slot && !self.admits(endpoint.breaker))
    }

    /// Whether the endpoint is left to try in this round.
    pub(crate) fn is_open_to(&self, endpoint: &EndpointRecord) -> bool {
        !endpoint.tried && endpoint.not_before <= self.now && self.admits(endpoint.breaker)
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
