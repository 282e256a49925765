//! Orders of a person: breakers forced, disabled and reset, peers revived.

use crate::action::{Ignored, Notice, PeerCause};
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
        if !self.order(slot, Breaker::force_open, out) {
            self.ignore(Ignored::AlreadySo, out);
        }
    }

    pub(crate) fn on_disable(&mut self, breaker: BreakerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_breaker(breaker, out) else { return };
        if !self.order(slot, Breaker::disable, out) {
            self.ignore(Ignored::AlreadySo, out);
        }
    }

    pub(crate) fn on_reset_breaker(&mut self, breaker: BreakerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_breaker(breaker, out) else { return };
        // A closed one begins anew as well, though that is no transition.
        self.order(slot, Breaker::reset, out);
    }

    pub(crate) fn on_watch_only(&mut self, id: BreakerId, on: bool, out: &mut Out<'_>) {
        let Some(slot) = self.find_breaker(id, out) else { return };
        let breaker = &mut self.breakers.slab[slot].breaker;
        let admitted = breaker.admits();
        if !breaker.watch_only(on) {
            return self.ignore(Ignored::AlreadySo, out);
        }
        if admitted && !breaker.admits() {
            self.endpoints.displace(slot);
        }
        out.notice(Notice::WatchOnly { breaker: id, on });
        self.breaker_moved(slot, None, out);
    }

    /// Carries the order out; whether that was a transition.
    fn order(&mut self, slot: u32, order: Order, out: &mut Out<'_>) -> bool {
        let now = self.now;
        let record = &mut self.breakers.slab[slot];
        let policy = &self.policies.breaker(record.profile).normal;
        let transition = order(&mut record.breaker, policy, now);
        self.breaker_moved(slot, transition, out);
        transition.is_some()
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
        self.endpoints.let_in(first);
        self.enqueue(slot, PeerCause::Revived, out);
    }
}
