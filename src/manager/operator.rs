//! Orders of a person: breakers forced, disabled and reset, peers revived.

use crate::action::{Ignored, PeerCause};
use crate::breaker::{Breaker, BreakerPolicy, Transition};
use crate::id::{BreakerId, PeerId};
use crate::manager::Manager;
use crate::manager::out::Out;
use crate::manager::peers::{FAILED, Phase, WOKEN};
use crate::time::Time;

/// One of a breaker's verbs for operators.
type Order = fn(&mut Breaker, &BreakerPolicy, Time) -> Option<Transition>;

impl Manager {
    pub(crate) fn on_force_open(&mut self, breaker: BreakerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_breaker(breaker, out) else { return };
        self.order(slot, Breaker::force_open, out);
    }

    pub(crate) fn on_disable(&mut self, breaker: BreakerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_breaker(breaker, out) else { return };
        self.order(slot, Breaker::disable, out);
    }

    pub(crate) fn on_reset_breaker(&mut self, breaker: BreakerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_breaker(breaker, out) else { return };
        self.order(slot, Breaker::reset, out);
    }

    fn order(&mut self, slot: u32, order: Order, out: &mut Out<'_>) {
        let now = self.now;
        let record = &mut self.breakers.slab[slot];
        let policy = &self.policies.breaker(record.profile).normal;
        let transition = order(&mut record.breaker, policy, now);
        if transition.is_none() {
            self.ignore(Ignored::AlreadySo, out);
        }
        self.breaker_moved(slot, transition, out);
    }

    pub(crate) fn on_revive(&mut self, peer: Option<PeerId>, out: &mut Out<'_>) {
        let Some(peer) = peer else {
            return self.peers.lists.splice(FAILED, WOKEN);
        };
        let Some(slot) = self.find_peer(peer, out) else { return };
        match self.peers.slab[slot].phase {
            Phase::Failed | Phase::BackingOff { .. } => self.revive(slot, out),
            _ => self.ignore(Ignored::AlreadySo, out),
        }
    }

    /// Starts the peer again as if it had never failed.
    pub(crate) fn revive(&mut self, slot: u32, out: &mut Out<'_>) {
        self.forget_failures(slot);
        let peer = &mut self.peers.slab[slot];
        peer.without_since = self.now;
        peer.offline_before = self.network.offline_ns(self.now);
        let first = peer.first_endpoint;
        self.endpoints.each(first, |_, endpoint| endpoint.not_before = Time::ZERO);
        self.enqueue(slot, PeerCause::Revived, out);
    }
}
