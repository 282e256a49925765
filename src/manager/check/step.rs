//! The invariants of those whom one step concerned.

use super::Violation;
use crate::action::{Action, Notice};
use crate::container::timers::TimerKind;
use crate::event::{Event, Target};
use crate::id::{AttemptId, BreakerId, CallId, ConnId, PeerId};
use crate::manager::Manager;

/// # Checking
impl Manager {
    /// Verifies what [`check`](Self::check) does of those alone whom a step concerned: whom the event
    /// and the actions name, and what they stand behind. O(named).
    ///
    /// What a step does to others it does not see; a full check now and then does.
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check_step(&self, event: &Event, actions: &[Action]) -> Result<(), Violation> {
        self.check_deadline()?;
        self.check_sums()?;
        self.check_event(event)?;
        let mut last = None;
        for action in actions {
            // What happens to a peer is told in several notices, one after the other.
            let own = peer_of(action);
            if own.is_none() || own != last {
                self.check_action(action)?;
            }
            last = own;
        }
        Ok(())
    }

    fn check_event(&self, event: &Event) -> Result<(), Violation> {
        if let Some(conn) = event.conn() {
            return self.check_conn_of(conn);
        }
        match event {
            Event::AddPeer { peer, .. }
            | Event::SetEndpoints { peer, .. }
            | Event::Connect { peer }
            | Event::Disconnect { peer }
            | Event::Accepted { peer, .. } => self.check_peer_of(*peer),
            Event::Pong { ping } => match self.conns.find_ping(*ping) {
                Some(conn) => self.check_connection(conn),
                None => Ok(()),
            },
            Event::Call { call, target, .. } => {
                let (Target::Breaker(breaker) | Target::Peer { breaker, .. }) = target;
                self.check_call_of(*call)?;
                self.check_breaker_of(*breaker)
            }
            Event::Succeeded { attempt }
            | Event::Failed { attempt, .. }
            | Event::Dropped { attempt } => self.check_attempt_of(*attempt),
            Event::AddBreaker { breaker, .. }
            | Event::ForceOpen { breaker, .. }
            | Event::Disable { breaker }
            | Event::WatchOnly { breaker, .. }
            | Event::ResetBreaker { breaker } => self.check_breaker_of(*breaker),
            _ => Ok(()),
        }
    }

    fn check_action(&self, action: &Action) -> Result<(), Violation> {
        match action {
            Action::Dial { conn, peer, .. } => {
                self.check_conn_of(*conn)?;
                self.check_peer_of(*peer)
            }
            Action::Adopt { conn, .. } | Action::Ping { conn, .. } => self.check_conn_of(*conn),
            Action::StartAttempt { attempt, call, .. } => {
                self.check_attempt_of(*attempt)?;
                self.check_call_of(*call)
            }
            Action::Notice(notice) => match notice {
                Notice::Peer { peer, .. }
                | Notice::RetryAt { peer, .. }
                | Notice::Draining { peer, .. }
                | Notice::Moved { peer, .. }
                | Notice::Suspected { peer, .. }
                | Notice::Cleared { peer, .. }
                | Notice::Doubted { peer, .. } => self.check_peer_of(*peer),
                Notice::Breaker { breaker, .. } => self.check_breaker_of(*breaker),
                Notice::CallWaits { call, .. } | Notice::CallRetries { call, .. } => {
                    self.check_call_of(*call)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The peer, its connection, and the breakers that it stands behind.
    fn check_peer_of(&self, id: PeerId) -> Result<(), Violation> {
        let Some(slot) = self.peers.find(id) else { return Ok(()) };
        self.check_peer(slot, self.timers.deadline(TimerKind::Peer, slot))?;
        if let Some(conn) = self.conn_of(slot) {
            self.check_connection(conn)?;
        }
        let mut endpoints = self.endpoints.chain(self.peers.slab[slot].first_endpoint);
        endpoints.try_for_each(|(_, endpoint)| self.check_breaker_at(endpoint.breaker))
    }

    fn check_conn_of(&self, id: ConnId) -> Result<(), Violation> {
        let Some(slot) = self.conns.find(id) else { return Ok(()) };
        self.check_connection(slot)?;
        let peer = self.conns.slab[slot].peer;
        self.check_peer(peer, self.timers.deadline(TimerKind::Peer, peer))
    }

    fn check_breaker_of(&self, id: BreakerId) -> Result<(), Violation> {
        self.breakers.find(id).map_or(Ok(()), |slot| self.check_breaker_at(slot))
    }

    fn check_breaker_at(&self, slot: u32) -> Result<(), Violation> {
        self.check_breaker(slot, self.timers.deadline(TimerKind::Breaker, slot))
    }

    fn check_call_of(&self, id: CallId) -> Result<(), Violation> {
        let Some(slot) = self.calls.find(id) else { return Ok(()) };
        let call = &self.calls.slab[slot];
        self.check_call(slot, call, self.timers.deadline(TimerKind::Call, slot))?;
        self.check_breaker_at(call.breaker)
    }

    fn check_attempt_of(&self, id: AttemptId) -> Result<(), Violation> {
        let Some(slot) = self.calls.find_attempt(id) else { return Ok(()) };
        let call = self.calls.attempts[slot].call;
        let timer = self.timers.deadline(TimerKind::Call, call);
        self.check_call(call, &self.calls.slab[call], timer)?;
        self.check_breaker_at(self.calls.slab[call].breaker)
    }
}

/// Whom a notice is about, if it is about a peer.
const fn peer_of(action: &Action) -> Option<PeerId> {
    match action {
        Action::Notice(Notice::Peer { peer, .. } | Notice::RetryAt { peer, .. }) => Some(*peer),
        _ => None,
    }
}
