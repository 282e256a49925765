//! A dial: begun, answered, timed out, called off.

use core::time::Duration;

use crate::action::{Action, Notice, PeerCause};
use crate::breaker::{Admission, Outcome};
use crate::bucket::Acquire;
use crate::container::timers::TimerKind;
use crate::event::DialCause;
use crate::id::ConnId;
use crate::manager::Manager;
use crate::manager::conns::{Conn, ConnPhase};
use crate::manager::endpoints::EndpointRecord;
use crate::manager::out::Out;
use crate::manager::peers::{Peer, Phase};
use crate::time::Time;

/// An endpoint's failures are forgotten when the last one is older than this.
const MEMORY: Duration = Duration::from_secs(600);

impl Manager {
    /// Dials the endpoint if its breaker admits it; the breaker is asked last.
    pub(crate) fn dial(&mut self, slot: u32, out: &mut Out<'_>) {
        let now = self.now;
        let EndpointRecord { id: to, breaker, peer, .. } = self.endpoints.slab[slot];
        let timeout = self.dial_timeout(slot);
        let record = &mut self.breakers.slab[breaker];
        let profile = self.policies.breaker(record.profile);
        let admission = record.breaker.admit_paced(&profile.normal, timeout, now);
        let Admission::Admit(permit) = admission else { return };
        let own = record.bucket.as_mut().zip(profile.rate.as_ref());
        let global = self.pacer.bucket.as_mut().zip(self.policies.pacer_rate.as_ref());
        for (bucket, rate) in own.into_iter().chain(global) {
            // It was ready a moment ago; but at the end of time all that is to come is now.
            let _: Acquire = bucket.acquire(rate, now);
        }
        record.in_flight += 1;
        let replaces = self.has_replacement(peer);
        let resume = if replaces { self.keeps_session(peer) } else { self.can_resume(peer) };
        let deadline = now + timeout;
        let phase = ConnPhase::Dialing { permit, resume, deadline };
        let conn = self.conns.insert(peer, self.peers.slab[peer].profile, slot, phase, now);
        self.timers.arm(TimerKind::Conn, conn, deadline);
        self.pacer.in_flight += 1;
        self.stats.dials_in_flight = self.pacer.in_flight;
        self.stats.dials += 1;
        self.breaker_moved(breaker, None, out);
        let id = self.peers.slab[peer].id;
        if replaces {
            self.replacement_dials(peer, conn);
        } else {
            self.endpoints.slab[slot].tried = true;
            let from = core::mem::replace(&mut self.peers.slab[peer].last_endpoint, slot);
            self.enter(peer, Phase::Dialing { conn }, PeerCause::Asked, out);
            if let Some(from) = self.endpoints.slab.get(from).map(|from| from.id)
                && from != to
            {
                out.notice(Notice::FailedOver { peer: id, from, to });
            }
        }
        let conn = self.conns.id(conn);
        out.push(Action::Dial { conn, peer: id, endpoint: to, resume });
    }

    /// How long the dial about to begin may take. After a timeout as long as the backoff has
    /// become: a fleet must not keep a slow server busy with dials that nobody waits for.
    fn dial_timeout(&self, endpoint: u32) -> Duration {
        let slot = self.endpoints.slab[endpoint].peer;
        let peer = &self.peers.slab[slot];
        let policy = self.policies.peer(peer.profile);
        if self.has_replacement(slot) {
            return policy.profile.dial_timeout;
        }
        let mut others = self.endpoints.chain(peer.first_endpoint);
        if others.any(|(other, record)| other != endpoint && self.is_open_to(other, record)) {
            return policy.profile.failover_timeout;
        }
        if !peer.timed_out {
            return policy.profile.dial_timeout;
        }
        let delay = policy.backoff.delay(self.failures(slot));
        delay.clamp(policy.profile.dial_timeout, policy.profile.max_dial_timeout)
    }

    pub(crate) fn on_dial_failed(
        &mut self,
        id: ConnId,
        cause: DialCause,
        retry_after: Option<Duration>,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.find_conn(id, out) else { return };
        match self.conns.slab[slot].phase() {
            ConnPhase::Dialing { .. } => self.fail_dial(slot, cause, retry_after, out),
            ConnPhase::Up => self.lose(slot, crate::LossCause::Protocol, out),
        }
    }

    /// The dial's time is up, unless judgement holds or the network went away under it.
    pub(crate) fn on_dial_timer(&mut self, slot: u32, deadline: Time, out: &mut Out<'_>) {
        let hold_until = self.sleep.hold_until.max(deadline);
        if self.now < hold_until {
            return self.timers.arm(TimerKind::Conn, slot, hold_until);
        }
        let conn = &self.conns.slab[slot];
        let before_outage = conn.since < self.network.up_at;
        out.push(Action::CancelDial { conn: self.conns.id(slot) });
        self.stats.dials_cancelled += 1;
        if before_outage {
            self.void_dial(slot, PeerCause::Asked, out);
        } else {
            self.fail_dial(slot, DialCause::Timeout, None, out);
        }
    }

    pub(crate) fn fail_dial(
        &mut self,
        slot: u32,
        cause: DialCause,
        retry_after: Option<Duration>,
        out: &mut Out<'_>,
    ) {
        *self.stats.dial_failures.of(cause) += 1;
        let told = PeerCause::DialFailed(cause);
        let (conn, replaces) = (&self.conns.slab[slot], self.replaces(slot));
        if self.network.is_still() || conn.since < self.network.up_at {
            self.peers.slab[conn.peer].coming_back |= !replaces;
            return self.void_dial(slot, told, out);
        }
        let endpoint = self.conns.slab[slot].endpoint;
        let (outcome, own_cause) = self.outcome_of(endpoint, cause, out);
        let breaker = self.breakers.slab[self.endpoints.slab[endpoint].breaker].profile;
        let longest = self.policies.breaker(breaker).normal.max_retry_after();
        let retry_after = retry_after.map(|hint| hint.min(longest));
        if replaces {
            return self.fail_replacement(slot, cause, retry_after, out);
        }
        let Some(conn) = self.end_dial(slot, outcome, retry_after, out) else { return };
        let peer = &mut self.peers.slab[conn.peer];
        peer.coming_back = true;
        if cause.is_ours() {
            // It counts against nobody, but a host without sockets must not be asked faster.
            let trouble = self.peers.troubles.get_mut(conn.peer);
            let own_failures = trouble.own_failures;
            trouble.own_failures = own_failures.saturating_add(1);
            let delay = self.draw_backoff(conn.peer, own_failures);
            self.untry(conn.endpoint);
            return self.back_off_until(conn.peer, self.now + delay, told, out);
        }
        if let Some(trouble) = self.peers.troubles.if_any(conn.peer) {
            trouble.own_failures = 0;
        }
        peer.timed_out = cause == DialCause::Timeout;
        peer.slow_lane = own_cause;
        self.try_another(conn.peer, conn.endpoint, retry_after, told, out);
    }

    /// The endpoint failed, which it is to remember: another one is tried, or the round ends.
    pub(crate) fn try_another(
        &mut self,
        peer: u32,
        endpoint: u32,
        retry_after: Option<Duration>,
        told: PeerCause,
        out: &mut Out<'_>,
    ) {
        self.remember_failure(endpoint, retry_after);
        self.endpoints.slab[endpoint].tried = true;
        let Peer { profile, first_endpoint, .. } = self.peers.slab[peer];
        if self.is_any_left(first_endpoint) {
            let at = self.now + self.policies.peer(profile).profile.attempt_delay;
            self.back_off_until(peer, at, told, out);
        } else {
            self.end_round(peer, told, out);
        }
    }

    pub(crate) fn remember_failure(&mut self, endpoint: u32, retry_after: Option<Duration>) {
        let past = self.endpoints.pasts.get_mut(endpoint);
        let forgotten = self.now.since(past.failed_at) > MEMORY;
        past.failed_at = self.now;
        past.not_before = self.now + retry_after.unwrap_or_default();
        let endpoint = &mut self.endpoints.slab[endpoint];
        endpoint.failures = if forgotten { 1 } else { endpoint.failures.saturating_add(1) };
    }

    /// Ends a dial as if it had not been: nothing counts, and the peer stands in line again.
    pub(crate) fn void_dial(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        if self.replaces(slot) {
            return self.void_replacement(slot, out);
        }
        let Some(conn) = self.end_dial(slot, Outcome::Dropped, None, out) else { return };
        self.untry(conn.endpoint);
        self.enqueue(conn.peer, cause, out);
    }

    /// Cancels the dial; the peer's phase is for the caller to set.
    pub(crate) fn cancel_dial(&mut self, slot: u32, out: &mut Out<'_>) {
        let id = self.conns.id(slot);
        if self.conns.find(id).is_some() {
            out.push(Action::CancelDial { conn: id });
            self.stats.dials_cancelled += 1;
        }
        let ended = self.end_dial(slot, Outcome::Dropped, None, out);
        if let Some(conn) = ended {
            self.untry(conn.endpoint);
        }
    }

    /// Takes the dial out and gives back its permit and its places in flight.
    pub(crate) fn end_dial(
        &mut self,
        slot: u32,
        outcome: Outcome,
        retry_after: Option<Duration>,
        out: &mut Out<'_>,
    ) -> Option<Conn> {
        self.timers.disarm(TimerKind::Conn, slot);
        let conn = self.conns.remove(slot)?;
        if let ConnPhase::Dialing { permit, .. } = conn.phase() {
            let breaker = self.endpoints.slab[conn.endpoint].breaker;
            self.settle_dial(breaker, permit, outcome, conn.since, retry_after, out);
        }
        Some(conn)
    }

    fn untry(&mut self, endpoint: u32) {
        if let Some(endpoint) = self.endpoints.slab.get_mut(endpoint) {
            endpoint.tried = false;
        }
    }
}
