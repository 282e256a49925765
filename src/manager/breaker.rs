//! What the breakers' transitions do to those who wait behind them.

use core::time::Duration;

use crate::action::Notice;
use crate::breaker::{Outcome, Permit, State, Transition};
use crate::container::timers::TimerKind;
use crate::draw::Draws;
use crate::event::DialCause;
use crate::limit::Sample;
use crate::manager::Manager;
use crate::manager::breakers::{HELD_BACK, RING};
use crate::manager::endpoints::EndpointRecord;
use crate::manager::out::Out;
use crate::manager::refusals::Reason;
use crate::mutant::Mutant;
use crate::time::{Time, nanos, smooth};

impl Manager {
    /// What a failed dial counts as behind the endpoint's breaker, and whether its cause is the
    /// peer's own.
    ///
    /// A cause that tells about one peer must not count against a breaker that others share, or a
    /// peer with a bad certificate keeps 100,000 out; unless one after the other has it.
    pub(crate) fn outcome_of(
        &mut self,
        endpoint: u32,
        cause: DialCause,
        out: &mut Out<'_>,
    ) -> (Outcome, bool) {
        if cause.is_ours() {
            return (Outcome::Dropped, false);
        }
        if !cause.is_peer_specific() {
            return (Outcome::Failure, false);
        }
        if !self.is_shared(endpoint) {
            return (Outcome::Failure, true);
        }
        let EndpointRecord { breaker, peer, .. } = self.endpoints.slab[endpoint];
        let peer = self.peers.slab[peer].id;
        let record = &mut self.breakers.slab[breaker];
        if !self.policies.breaker(record.profile).common_refusals {
            return (Outcome::Ignored, true);
        }
        match record.refusals.record(peer) {
            Reason::Own => (Outcome::Ignored, true),
            Reason::Common => (Outcome::Failure, false),
            Reason::BecameCommon(before) => {
                let breaker = record.id;
                for id in before {
                    if let Some(peer) = self.peers.find(id) {
                        self.peers.slab[peer].slow_lane = false;
                    }
                }
                self.stats.common_refusals += 1;
                out.notice(Notice::CommonRefusal { breaker, cause });
                (Outcome::Failure, false)
            }
        }
    }

    /// Whether endpoints of other peers are guarded by the same breaker.
    fn is_shared(&self, endpoint: u32) -> bool {
        let endpoint = &self.endpoints.slab[endpoint];
        let own = self.endpoints.chain(self.peers.slab[endpoint.peer].first_endpoint);
        let own = own.filter(|(_, own)| own.breaker == endpoint.breaker).count();
        self.breakers.slab[endpoint.breaker].endpoints as usize > own
    }

    /// A dial has ended: its place in flight and its permit come back.
    pub(crate) fn settle_dial(
        &mut self,
        slot: u32,
        permit: Permit,
        outcome: Outcome,
        dialed_at: Time,
        retry_after: Option<Duration>,
        out: &mut Out<'_>,
    ) {
        self.pacer.in_flight -= 1;
        self.stats.dials_in_flight = self.pacer.in_flight;
        let took = self.now.since(dialed_at);
        let mode = self.mode(slot);
        let record = &mut self.breakers.slab[slot];
        let profile = self.policies.breaker(record.profile);
        let sample = match outcome {
            Outcome::Success => Some(Sample::Ok),
            Outcome::Failure | Outcome::OpenFor(_) => Some(Sample::Dropped),
            Outcome::Ignored | Outcome::Dropped => None,
        };
        if let (Some(window), Some(limit), Some(sample), State::Closed) =
            (&mut record.window, &profile.window, sample, record.breaker.state())
        {
            window.record(limit, sample, dialed_at, record.in_flight, self.now);
        }
        record.in_flight -= 1;
        if outcome == Outcome::Success {
            record.refusals.clear();
            let took = nanos(took);
            let first = record.dial_ns == 0;
            record.dial_ns = if first { took } else { smooth(record.dial_ns, took) };
        }
        let policy = profile.at(mode);
        let draws = Draws::new(self.policies.config.seed, record.id.0);
        let (_, transition) =
            record.breaker.record(policy, permit, outcome, took, retry_after, self.now, &draws);
        if !self.is_scarce() {
            self.breakers.ring.splice(HELD_BACK, RING);
        } else if !self.holds_much(slot) && self.breakers.ring.unlink(slot) {
            self.breakers.ring.push_back(RING, slot);
        }
        self.breaker_moved(slot, transition, out);
    }

    /// Adjusts the breaker's timer and its place in the ring, and tells of a transition.
    ///
    /// Whoever waits is not touched: parked or paced is read off the breaker's state. Only those
    /// that have another endpoint to try are moved, in one splice, and placed again a few at a time.
    pub(crate) fn breaker_moved(
        &mut self,
        slot: u32,
        transition: Option<Transition>,
        out: &mut Out<'_>,
    ) {
        let record = &self.breakers.slab[slot];
        match record.breaker.deadline() {
            Some(deadline) if deadline < Time::MAX => {
                self.timers.arm(TimerKind::Breaker, slot, deadline);
            }
            _ => self.timers.disarm(TimerKind::Breaker, slot),
        }
        if let Some(Transition { from, to }) = transition {
            let (breaker, profile) = (record.id, record.profile);
            let admitted = admits(from) || record.breaker.is_watch_only();
            if admitted && !record.breaker.admits() {
                self.endpoints.displace(slot);
            }
            if let Some(group) = self.group_of(profile) {
                group.leave(from);
                group.join(to);
            }
            *self.stats.breakers.of(from) -= 1;
            *self.stats.breakers.of(to) += 1;
            out.notice(Notice::Breaker { breaker, from, to });
        }
        let closes = transition.is_some_and(|moved| moved.to == State::Closed);
        if !(closes && Mutant::LostWakeUp.lives()) {
            self.refresh_ring(slot);
        }
        self.refresh_line(slot);
    }

    /// The end of open has come, or a probe's time is up.
    pub(crate) fn on_breaker_timer(&mut self, slot: u32, out: &mut Out<'_>) {
        let (now, hold_until) = (self.now, self.sleep.hold_until);
        let mode = self.mode(slot);
        let record = &mut self.breakers.slab[slot];
        if now < hold_until {
            // Just after the dials themselves: they know which of them an outage of ours cut off.
            record.breaker.postpone_probes(hold_until.plus_nanos(1));
        }
        let policy = self.policies.breaker(record.profile).at(mode);
        record.breaker.excuse_before(policy, self.network.up_at);
        let draws = Draws::new(self.policies.config.seed, record.id.0);
        let transition = record.breaker.expire(policy, now, &draws);
        self.breaker_moved(slot, transition, out);
    }

    pub(crate) fn disarm_breaker(&mut self, slot: u32) {
        self.timers.disarm(TimerKind::Breaker, slot);
        self.timers.disarm(TimerKind::Pace, slot);
        self.timers.disarm(TimerKind::CallPace, slot);
        self.calls.lines.unlink(slot);
        self.breakers.ring.unlink(slot);
    }

    /// Whether the breaker lets work through as a matter of course.
    pub(crate) fn admits(&self, slot: u32) -> bool {
        self.breakers.slab[slot].breaker.admits()
    }

    /// Whether the breaker is half-open and has room for one more probe.
    pub(crate) fn wants_probe(&self, breaker: u32) -> bool {
        let record = &self.breakers.slab[breaker];
        let policy = &self.policies.breaker(record.profile).normal;
        record.breaker.state() == State::HalfOpen && record.breaker.has_room(policy)
    }

    /// Links the breaker into the ring if somebody waits for it and it could let a dial through
    /// now, and takes it out otherwise. Releasing 100,000 is this one link.
    pub(crate) fn refresh_ring(&mut self, slot: u32) {
        let linked = self.breakers.ring.is_linked(slot);
        if !linked && !self.endpoints.is_awaited(slot) {
            // Most breakers guard calls, and nobody waits for them here.
            return;
        }
        if self.is_runnable(slot) == linked {
            return;
        }
        if linked {
            self.breakers.ring.unlink(slot);
        } else {
            self.breakers.ring.push_back(RING, slot);
        }
    }

    pub(crate) fn is_runnable(&self, slot: u32) -> bool {
        let record = &self.breakers.slab[slot];
        let profile = self.policies.breaker(record.profile);
        record.in_flight < record.max_in_flight(profile)
            && self.endpoints.is_awaited(slot)
            && !self.timers.is_armed(TimerKind::Pace, slot)
            && record.breaker.has_room(&profile.normal)
    }
}

const fn admits(state: State) -> bool {
    matches!(state, State::Closed | State::Disabled)
}
