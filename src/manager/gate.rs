//! The way of a call through the gates: deadline, connection, line, throttle, breaker.

use core::time::Duration;

use crate::action::{Action, GiveUpReason, Notice, RejectReason, WaitsFor};
use crate::breaker::{Admission, State};
use crate::bucket::Acquire;
use crate::bulkhead::Joined;
use crate::config::NotConnected;
use crate::container::timers::TimerKind;
use crate::draw::{Draws, Purpose};
use crate::id::ConnId;
use crate::manager::Manager;
use crate::manager::attempt::Verdict;
use crate::manager::calls::{Attempt, CallPhase, MOVING};
use crate::manager::out::Out;
use crate::manager::peers::{NONE, Phase};
use crate::throttle::Throttled;
use crate::time::Time;

/// How long a retry that a gate refused waits at least, so that it does not come back at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Why a gate let nobody through, and when it would.
type Refusal = (RejectReason, Option<Time>);

impl Manager {
    /// Brings the call to its next attempt, into a wait, or to its end.
    pub(crate) fn pass_gates(&mut self, slot: u32, out: &mut Out<'_>) {
        if !self.is_ready(slot, out) {
            return;
        }
        let breaker = self.calls.slab[slot].breaker;
        let state = self.breakers.slab[breaker].breaker.state();
        if opens_at(state).is_some_and(|until| until <= self.now) && !self.network.is_still() {
            // Whoever was told to come back at this moment must not be told so again.
            self.on_breaker_timer(breaker, out);
        }
        match self.approach(slot) {
            Ok(None) => self.take_turn(slot, out),
            Ok(Some(wait)) => {
                self.enter_call(slot, wait, out);
                self.refresh_line(self.calls.slab[slot].breaker);
            }
            Err((reason, retry_at)) => self.refuse_call(slot, reason, retry_at, out),
        }
    }

    /// Whether the call has time left and its peer is connected; otherwise it is refused or waits.
    fn is_ready(&mut self, slot: u32, out: &mut Out<'_>) -> bool {
        if !self.has_time(slot, self.now) {
            self.refuse_call(slot, RejectReason::Deadline, None, out);
            return false;
        }
        let call = &self.calls.slab[slot];
        if call.peer == NONE {
            return true;
        }
        let up = self.peer_of(call).map(|_| self.connection_to(call.peer).is_some());
        match up {
            Some(true) => {}
            Some(false) => self.await_connection(slot, out),
            None => self.doom(slot, out),
        }
        up == Some(true)
    }

    /// Whether an attempt that begins then is worth it before the deadline.
    pub(crate) fn has_time(&self, slot: u32, at: Time) -> bool {
        let call = &self.calls.slab[slot];
        let left = call.deadline.since(at);
        !left.is_zero() && left >= self.policies.call(call.profile).profile.min_attempt
    }

    /// The peer is not connected: wait, or not, as the profile says and as far as it can help.
    fn await_connection(&mut self, slot: u32, out: &mut Out<'_>) {
        let call = &self.calls.slab[slot];
        let policy = &self.policies.call(call.profile).profile;
        let until = call.deadline.min(self.now + policy.max_wait);
        let (peer, id, wish) = (call.peer, call.peer_id, policy.not_connected);
        let record = &self.peers.slab[peer];
        let idle = matches!(record.phase, Phase::Idle | Phase::Failed);
        let may_dial_us = self.policies.peer(record.profile).profile.inbound;
        let retry_at = self.dials_at(peer);
        // Only a fresh call wants the peer anew: one that waits does not undo its giving up.
        let connects = wish == NotConnected::Connect
            && call.phase == CallPhase::Asked
            && record.first_endpoint != NONE;
        if idle && connects {
            self.on_connect(id, out);
        }
        // The network's return may end a backoff early; nothing else that we know of does.
        let hopeless = if idle {
            !connects
        } else {
            !self.network.is_still() && retry_at.is_some_and(|retry_at| retry_at >= until)
        };
        if wish == NotConnected::Reject || hopeless && !may_dial_us {
            return self.refuse_call(slot, RejectReason::NotConnected, retry_at, out);
        }
        self.enter_call(slot, CallPhase::Connection { until }, out);
    }

    /// The earliest moment of the peer's next dial, as far as it is known: when it has backed off, or
    /// when the first of its breakers opens; long past if one of them is open to it.
    fn dials_at(&self, peer: u32) -> Option<Time> {
        let record = &self.peers.slab[peer];
        match record.phase {
            Phase::BackingOff { until } => Some(until),
            Phase::Waiting => {
                let endpoints = self.endpoints.chain(record.first_endpoint);
                let dialed_at = endpoints.map(|(_, endpoint)| {
                    let breaker = &self.breakers.slab[endpoint.breaker].breaker;
                    let opens_at = opens_at(breaker.state()).filter(|_| !breaker.admits());
                    opens_at.unwrap_or(Time::ZERO)
                });
                dialed_at.min()
            }
            _ => None,
        }
    }

    /// Whether it is the call's turn at once (`None`), or the phase in which it waits for it.
    fn approach(&mut self, slot: u32) -> Result<Option<CallPhase>, Refusal> {
        let now = self.now;
        let call = &self.calls.slab[slot];
        let record = &mut self.breakers.slab[call.breaker];
        let profile = self.policies.breaker(record.profile);
        let policy = &profile.gates;
        let Some(gates) = &mut record.gates else { return Ok(None) };
        let room = gates.has_room(policy);
        let waiting = gates.bulkhead.waiting();
        let turn_at = gates.turn_at(policy, waiting.saturating_add(1), now);
        if waiting == 0 && room && turn_at == Some(now) {
            return Ok(None);
        }
        if !record.breaker.has_room(&profile.normal) {
            return Err((RejectReason::BreakerOpen, opens_at(record.breaker.state())));
        }
        if policy.bulkhead.max_waiting() == 0 {
            let full = (RejectReason::BulkheadFull, None);
            return Err(if room { (RejectReason::RateLimited, turn_at) } else { full });
        }
        let longest = policy.bulkhead.max_wait().map_or(Time::MAX, |max_wait| now + max_wait);
        let until = call.deadline.min(longest);
        if turn_at.is_none_or(|turn_at| turn_at > until) {
            return Err((RejectReason::RateLimited, turn_at));
        }
        match gates.bulkhead.join(&policy.bulkhead, u64::from(slot), now) {
            Joined::Full if room => Err((RejectReason::RateLimited, turn_at)),
            Joined::Full => Err((RejectReason::BulkheadFull, None)),
            Joined::Wait { ticket, .. } => Ok(Some(CallPhase::Turn { ticket, until })),
        }
    }

    /// Begins an attempt if the throttle and, last, the breaker let it: a slot, a token and a permit
    /// are taken only then.
    pub(crate) fn start(&mut self, slot: u32, out: &mut Out<'_>) -> Result<(), Refusal> {
        let now = self.now;
        let call = &self.calls.slab[slot];
        let (breaker, peer) = (call.breaker, call.peer);
        let conn = self.connection_to(peer);
        let profile = &self.policies.call(call.profile).profile;
        let deadline = call.deadline.min(now + profile.attempt_timeout);
        let record = &mut self.breakers.slab[breaker];
        let guard = self.policies.breaker(record.profile);
        let Some(gates) = &mut record.gates else { return Ok(()) };
        if !record.breaker.has_room(&guard.normal) {
            // What nobody would send must not count as sent.
            return Err((RejectReason::BreakerOpen, opens_at(record.breaker.state())));
        }
        if let (Some(throttle), Some(policy)) = (&mut gates.throttle, &guard.gates.throttle) {
            let draws = Draws::new(self.policies.config.seed, record.id.0);
            let random = draws.draw(Purpose::Throttle, gates.throttle_draws);
            gates.throttle_draws = gates.throttle_draws.wrapping_add(1);
            let shed = throttle.admit(policy, random, now) == Throttled::Shed;
            if shed && gates.refused_at.is_some_and(|at| now.since(at) < policy.window()) {
                return Err((RejectReason::Throttled, None));
            }
        }
        let permit = match record.breaker.admit_within(&guard.normal, deadline.since(now), now) {
            Admission::Admit(permit) => permit,
            Admission::Reject { retry_at } => {
                if let Some(throttle) = &mut gates.throttle {
                    throttle.accepted(now);
                }
                let ramps = record.breaker.state() == State::Closed;
                let reason =
                    if ramps { RejectReason::RampingUp } else { RejectReason::BreakerOpen };
                return Err((reason, retry_at));
            }
        };
        gates.bulkhead.enter();
        if let (Some(bucket), Some(rate)) = (&mut gates.rate, &guard.gates.rate) {
            // It was ready a moment ago; but at the end of time all that is to come is now.
            let _: Acquire = bucket.acquire(rate, now);
        }
        let hedge_at = match (&gates.hedge, &guard.gates.hedge) {
            (Some(hedge), Some(policy))
                if profile.hedged
                    && call.hedges < policy.max_hedges()
                    && call.attempts + 1 < profile.max_attempts =>
            {
                now + hedge.delay(policy)
            }
            _ => Time::MAX,
        };
        let paid = core::mem::take(&mut self.calls.slab[slot].paid);
        self.calls.slab[slot].attempts += 1;
        let attempt = self.calls.begin(slot, |id, next| Attempt {
            id,
            call: slot,
            next,
            permit,
            since: now,
            paid,
            // A retry begins where nothing runs any more.
            hedge: next != NONE,
        });
        self.enter_call(slot, CallPhase::Running { hedge_at }, out);
        if deadline < self.calls.slab[slot].deadline {
            // Otherwise the call's own timer comes first.
            self.timers.arm(TimerKind::Attempt, attempt, deadline);
        }
        self.breaker_moved(breaker, None, out);
        self.stats.attempts += 1;
        self.stats.attempts_in_flight += 1;
        let (attempt, call) = (self.calls.attempts[attempt].id, self.calls.slab[slot].id);
        out.push(Action::StartAttempt { attempt, call, conn });
        Ok(())
    }

    /// Whether the call goes to no peer, or to one that is connected.
    pub(crate) fn has_connection(&self, slot: u32) -> bool {
        let call = &self.calls.slab[slot];
        call.peer == NONE || self.peer_of(call).is_some() && self.connection_to(call.peer).is_some()
    }

    fn connection_to(&self, peer: u32) -> Option<ConnId> {
        match self.peers.slab.get(peer)?.phase {
            // Not over what an earlier process left, for as long as that is not buried.
            Phase::Up { conn } => {
                Some(self.conns.id(conn)).filter(|id| self.conns.find(*id).is_some())
            }
            _ => None,
        }
    }

    /// A gate lets the call not through: it is rejected or, after an attempt, waits as long as time
    /// alone may help and there is some, and is given up otherwise.
    pub(crate) fn refuse_call(
        &mut self,
        slot: u32,
        reason: RejectReason,
        retry_at: Option<Time>,
        out: &mut Out<'_>,
    ) {
        // One that is past belongs to a breaker that stands still with the network.
        let retry_at = retry_at.filter(|retry_at| *retry_at > self.now);
        if self.calls.slab[slot].attempts > 0
            && let Some((from, on)) = self.worth_waiting(slot, reason, retry_at)
        {
            let until = from + self.draw_retry(slot).max(SHORTEST_WAIT);
            let call = &self.calls.slab[slot];
            if until < call.deadline {
                let call = call.id;
                out.notice(Notice::CallWaits { call, on, until: Some(until) });
                return self.enter_call(slot, CallPhase::BackingOff { until }, out);
            }
        }
        let end = self.end_for(slot, reason, GiveUpReason::Refused(reason), retry_at);
        self.end_call(slot, Verdict::Dropped, end, out);
    }

    /// From when a retry that was refused so may be let through, and what it waits for.
    fn worth_waiting(
        &self,
        slot: u32,
        reason: RejectReason,
        retry_at: Option<Time>,
    ) -> Option<(Time, WaitsFor)> {
        let record = &self.breakers.slab[self.calls.slab[slot].breaker];
        match reason {
            // Probes are out: after a while they have decided.
            RejectReason::BreakerOpen if record.breaker.state() == State::HalfOpen => {
                Some((self.now, WaitsFor::Breaker))
            }
            RejectReason::BreakerOpen | RejectReason::RampingUp => {
                Some((retry_at?, WaitsFor::Breaker))
            }
            RejectReason::RateLimited => Some((retry_at?, WaitsFor::Backoff)),
            _ => None,
        }
    }

    /// Whether the first in line could go on: to its attempt, or to a refusal.
    pub(crate) fn is_moving(&self, breaker: u32) -> bool {
        let record = &self.breakers.slab[breaker];
        let Some(gates) = &record.gates else { return false };
        if gates.bulkhead.waiting() == 0 {
            return false;
        }
        let profile = self.policies.breaker(record.profile);
        let shut = !record.breaker.has_room(&profile.normal);
        let paced = self.timers.is_armed(TimerKind::CallPace, breaker);
        shut || !paced && gates.has_room(&profile.gates)
    }

    /// Links the breaker among those whose line moves, or takes it out; exactly while it could.
    pub(crate) fn refresh_line(&mut self, breaker: u32) {
        let moving = self.is_moving(breaker);
        if moving != self.calls.lines.is_linked(breaker) {
            if moving {
                self.calls.lines.push_back(MOVING, breaker);
            } else {
                self.calls.lines.unlink(breaker);
            }
        }
    }

    /// Moves the line of a breaker by one call, and the breaker behind the others.
    pub(crate) fn move_line(&mut self, breaker: u32, out: &mut Out<'_>) {
        self.calls.lines.unlink(breaker);
        let record = &mut self.breakers.slab[breaker];
        let profile = self.policies.breaker(record.profile);
        if let Some(gates) = &mut record.gates {
            let shut = !record.breaker.has_room(&profile.normal);
            let turn_at = gates.turn_at(&profile.gates, 1, self.now);
            let later = turn_at.filter(|turn_at| *turn_at > self.now);
            let never = turn_at.is_none();
            if let (false, Some(later)) = (shut, later) {
                self.timers.arm(TimerKind::CallPace, breaker, later);
            } else if let Some(call) = gates.bulkhead.pop() {
                let call = u32::try_from(call).unwrap_or(NONE);
                let state = record.breaker.state();
                if shut {
                    self.refuse_call(call, RejectReason::BreakerOpen, opens_at(state), out);
                } else if never {
                    self.refuse_call(call, RejectReason::RateLimited, None, out);
                } else if self.is_ready(call, out) {
                    self.take_turn(call, out);
                }
            }
        }
        self.refresh_line(breaker);
    }

    fn take_turn(&mut self, slot: u32, out: &mut Out<'_>) {
        if let Err((reason, retry_at)) = self.start(slot, out) {
            self.refuse_call(slot, reason, retry_at, out);
        }
    }
}

const fn opens_at(state: State) -> Option<Time> {
    match state {
        State::Open { until } => Some(until),
        _ => None,
    }
}
