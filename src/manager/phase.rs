//! From phase to phase: the one door through which a peer's phase changes, and giving up.

use crate::action::{Notice, PeerCause};
use crate::container::timers::TimerKind;
use crate::manager::Manager;
use crate::manager::calls::{RELEASED, waiting_for};
use crate::manager::endpoints::EndpointRecord;
use crate::manager::out::Out;
use crate::manager::peers::{BACKING_OFF, FAILED, NONE, Phase};
use crate::time::Time;

impl Manager {
    /// Puts the peer into a phase, with the timer that this phase has, and tells what changed.
    pub(crate) fn enter(&mut self, slot: u32, phase: Phase, cause: PeerCause, out: &mut Out<'_>) {
        self.leave(slot);
        let peer = &mut self.peers.slab[slot];
        if core::mem::discriminant(&peer.phase) != core::mem::discriminant(&phase) {
            peer.since = self.now;
        }
        peer.phase = phase;
        let to = peer.state();
        let from = core::mem::replace(&mut peer.told, to);
        let peer = peer.id;
        match phase {
            Phase::BackingOff { .. } => self.peers.lists.push_back(BACKING_OFF, slot),
            Phase::Failed => self.peers.lists.push_back(FAILED, slot),
            Phase::Idle | Phase::Waiting | Phase::Dialing { .. } | Phase::Up { .. } => {}
        }
        if matches!(phase, Phase::Up { .. } | Phase::Idle | Phase::Failed) {
            // To go on, or to be told that there is nothing to wait for.
            self.calls.places.splice(waiting_for(slot), RELEASED);
        }
        self.arm_peer(slot);
        if from != to {
            *self.stats.peers.of(from) -= 1;
            *self.stats.peers.of(to) += 1;
            out.notice(Notice::Peer { peer, from, to, cause });
        }
    }

    /// Gives up the timer and the queue places of the peer's phase.
    fn leave(&mut self, slot: u32) {
        self.timers.disarm(TimerKind::Peer, slot);
        self.peers.lists.unlink(slot);
        if self.peers.slab[slot].phase != Phase::Waiting {
            return;
        }
        let mut endpoint = self.peers.slab[slot].first_endpoint;
        while endpoint != NONE {
            let EndpointRecord { next, breaker, .. } = self.endpoints.slab[endpoint];
            if self.leave_line(endpoint) {
                self.refresh_ring(breaker);
            }
            endpoint = next;
        }
    }

    pub(crate) fn arm_peer(&mut self, slot: u32) {
        if matches!(self.peers.slab[slot].phase, Phase::Up { .. }) {
            return match self.replacement_due_at(slot) {
                Some(at) => self.timers.arm(TimerKind::Peer, slot, at),
                None => self.timers.disarm(TimerKind::Peer, slot),
            };
        }
        let mut give_up_at = self.give_up_at(slot);
        if self.network.is_still() && give_up_at < Time::MAX {
            // That moment moves away as long as the network is down: look again after a while.
            let span = self.policies.peer(self.peers.slab[slot].profile).profile.give_up_after;
            give_up_at = give_up_at.max(self.now + span.unwrap_or_default() / 8);
        }
        let deadline = match self.peers.slab[slot].phase {
            Phase::Idle | Phase::Failed | Phase::Up { .. } => return,
            Phase::BackingOff { until } => until.min(give_up_at),
            Phase::Waiting | Phase::Dialing { .. } if give_up_at == Time::MAX => return,
            Phase::Waiting | Phase::Dialing { .. } => give_up_at,
        };
        self.timers.arm(TimerKind::Peer, slot, deadline);
    }

    /// Time without a network does not count.
    fn give_up_at(&self, slot: u32) -> Time {
        let peer = &self.peers.slab[slot];
        let profile = &self.policies.peer(peer.profile).profile;
        profile.give_up_after.map_or(Time::MAX, |span| {
            let offline = self.network.offline_ns(self.now).saturating_sub(peer.offline_before);
            (peer.without_since + span).plus_nanos(offline)
        })
    }

    pub(crate) fn on_peer_timer(&mut self, slot: u32, out: &mut Out<'_>) {
        if matches!(self.peers.slab[slot].phase, Phase::Up { .. }) {
            return self.on_replacement_due(slot, out);
        }
        if self.give_up_at(slot) <= self.now {
            if let Phase::Dialing { conn } = self.peers.slab[slot].phase {
                self.cancel_dial(conn, out);
            }
            return self.give_up(slot, PeerCause::TooLong, out);
        }
        match self.peers.slab[slot].phase {
            Phase::BackingOff { until } if until <= self.now => {
                self.enqueue(slot, PeerCause::Asked, out);
            }
            _ => self.arm_peer(slot),
        }
    }

    /// Its dial, if it had one, is over.
    pub(crate) fn give_up(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        self.stats.given_up += 1;
        self.enter(slot, Phase::Failed, cause, out);
    }
}
