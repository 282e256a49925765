//! A call's story: asked for, waiting, ended.

use core::time::Duration;

use crate::action::{Action, GiveUpReason, Ignored, Notice, RejectReason, WaitsFor};
use crate::container::timers::TimerKind;
use crate::event::{CallFailure, Target};
use crate::id::{CallId, CallProfileId, PeerId};
use crate::manager::Manager;
use crate::manager::attempt::Verdict;
use crate::manager::calls::{Call, CallPhase, DOOMED, bound_for, waiting_for};
use crate::manager::gates::Gates;
use crate::manager::out::Out;
use crate::manager::peers::{NONE, Peer};
use crate::time::Time;

/// How a call ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Done,
    GiveUp(GiveUpReason),
    Reject {
        reason: RejectReason,
        retry_at: Option<Time>,
    },
    /// Given up with its process, and nobody is told.
    Forgotten,
}

impl Manager {
    pub(crate) fn on_call(
        &mut self,
        id: CallId,
        target: Target,
        profile: CallProfileId,
        deadline: Option<Time>,
        out: &mut Out<'_>,
    ) {
        if let Some(slot) = self.calls.find_any(id) {
            if self.calls.is_live(slot) {
                return self.ignore(Ignored::CallExists(id), out);
            }
            // Only an earlier process still uses the name: its end must not look like this one's.
            self.end_call(slot, Verdict::Dropped, End::Forgotten, out);
        }
        self.stats.calls += 1;
        let (breaker, peer) = match self.find_target(target, profile) {
            Ok(found) => found,
            Err(reason) => {
                *self.stats.rejections.of(reason) += 1;
                return out.push(Action::Reject { call: id, reason, retry_after: None });
            }
        };
        let policy = &self.policies.call(profile.0).profile;
        let deadline = match (deadline, policy.deadline) {
            (Some(deadline), _) => deadline,
            (None, Some(span)) => self.now + span,
            (None, None) => Time::MAX,
        };
        let peer_id = self.peers.slab.get(peer).map_or(PeerId(0), |peer| peer.id);
        let record = &mut self.breakers.slab[breaker];
        record.calls += 1;
        if record.gates.is_none() {
            let gates = Gates::new(&self.policies.breaker(record.profile).gates, self.now);
            record.gates = Some(gates.into());
        }
        let slot = self.calls.insert(Call {
            id,
            profile: profile.0,
            breaker,
            peer,
            peer_id,
            process: self.calls.process,
            since: self.now,
            deadline,
            phase: CallPhase::Asked,
            attempts: 0,
            hedges: 0,
            first_attempt: NONE,
            last: None,
            paid: false,
            not_before: Time::ZERO,
            previous_delay: Duration::ZERO,
            draws: 0,
        });
        self.pass_gates(slot, out);
    }

    /// The slots of the target's breaker and of its peer, or why there can be no such call.
    fn find_target(
        &self,
        target: Target,
        profile: CallProfileId,
    ) -> Result<(u32, u32), RejectReason> {
        let breaker = self.breakers.find(target.breaker()).ok_or(RejectReason::UnknownBreaker)?;
        let peer = match target {
            Target::Breaker(_) => NONE,
            Target::Peer { peer, .. } => self.peers.find(peer).ok_or(RejectReason::UnknownPeer)?,
        };
        if usize::from(profile.0) >= self.policies.calls.len() {
            return Err(RejectReason::UnknownProfile);
        }
        if self.calls.slab.len() >= self.policies.config.limits.max_calls {
            return Err(RejectReason::TooManyCalls);
        }
        Ok((breaker, peer))
    }

    pub(crate) fn on_cancel_call(&mut self, id: CallId, out: &mut Out<'_>) {
        let Some(slot) = self.calls.find(id) else {
            return self.ignore(Ignored::UnknownCall(id), out);
        };
        self.end_call(slot, Verdict::Dropped, End::GiveUp(GiveUpReason::Cancelled), out);
    }

    /// The call's peer, if it goes to one and that is still there.
    pub(crate) fn peer_of(&self, call: &Call) -> Option<&Peer> {
        self.peers.slab.get(call.peer).filter(|peer| peer.id == call.peer_id)
    }

    /// Puts the call into a phase, with the timer and the place that this phase has.
    pub(crate) fn enter_call(&mut self, slot: u32, phase: CallPhase, out: &mut Out<'_>) {
        if self.calls.slab[slot].phase != CallPhase::Asked {
            self.leave_call(slot);
        }
        let call = &self.calls.slab[slot];
        if call.peer != NONE {
            let place = match (self.peer_of(call), phase) {
                (None, _) => DOOMED,
                (Some(_), CallPhase::Connection { .. }) => waiting_for(call.peer),
                (Some(_), _) => bound_for(call.peer),
            };
            self.calls.places.push_back(place, slot);
        }
        let call = &mut self.calls.slab[slot];
        call.phase = phase;
        if let Some(count) = phase.count(&mut self.stats.calls_now) {
            *count += 1;
        }
        let waits = match phase {
            CallPhase::Connection { until } => Some((WaitsFor::Connection, until)),
            CallPhase::Turn { until, .. } => Some((WaitsFor::Turn, until)),
            CallPhase::Asked | CallPhase::BackingOff { .. } | CallPhase::Running { .. } => None,
        };
        if let Some((on, until)) = waits {
            let until = Some(until.min(call.deadline)).filter(|until| *until < Time::MAX);
            out.notice(Notice::CallWaits { call: call.id, on, until });
        }
        self.arm_call(slot);
    }

    /// Gives up the timer and the place of the call's phase.
    fn leave_call(&mut self, slot: u32) {
        self.timers.disarm(TimerKind::Call, slot);
        self.calls.places.unlink(slot);
        let Call { phase, breaker, .. } = self.calls.slab[slot];
        if let Some(count) = phase.count(&mut self.stats.calls_now) {
            *count -= 1;
        }
        if let CallPhase::Turn { ticket, .. } = phase
            && let Some(gates) = &mut self.breakers.slab[breaker].gates
        {
            // Already out of the line if it left by the front.
            gates.bulkhead.withdraw(ticket);
            self.refresh_line(breaker);
        }
    }

    fn arm_call(&mut self, slot: u32) {
        let call = &self.calls.slab[slot];
        let at = match call.phase {
            CallPhase::Asked => Time::MAX,
            CallPhase::Connection { until }
            | CallPhase::Turn { until, .. }
            | CallPhase::BackingOff { until } => until,
            CallPhase::Running { hedge_at } => hedge_at,
        };
        let at = at.min(call.deadline);
        if at < Time::MAX {
            self.timers.arm(TimerKind::Call, slot, at);
        }
    }

    pub(crate) fn on_call_timer(&mut self, slot: u32, out: &mut Out<'_>) {
        let call = &self.calls.slab[slot];
        if call.deadline <= self.now {
            return self.miss_deadline(slot, out);
        }
        // Its timer is due when its phase says, so there is nothing left to ask.
        match call.phase {
            CallPhase::Asked => {}
            CallPhase::Connection { .. } | CallPhase::Turn { .. } => {
                self.refuse_call(slot, RejectReason::WaitedTooLong, None, out);
            }
            CallPhase::BackingOff { .. } => self.pass_gates(slot, out),
            CallPhase::Running { .. } => self.hedge(slot, out),
        }
    }

    /// The caller's time is up: whatever still runs has timed out, also against the server unless
    /// judgement holds.
    fn miss_deadline(&mut self, slot: u32, out: &mut Out<'_>) {
        let call = &mut self.calls.slab[slot];
        if let CallPhase::Running { .. } = call.phase {
            call.last = Some(CallFailure::Timeout);
        }
        let end = self.end_for(slot, RejectReason::Deadline, GiveUpReason::Deadline, None);
        let holds = self.now < self.sleep.hold_until;
        let timed_out = Verdict::Failed(CallFailure::Timeout);
        self.end_call(slot, if holds { Verdict::Dropped } else { timed_out }, end, out);
    }

    /// Rejection while there was no attempt, giving up afterwards.
    pub(crate) fn end_for(
        &self,
        slot: u32,
        reason: RejectReason,
        later: GiveUpReason,
        retry_at: Option<Time>,
    ) -> End {
        if self.calls.slab[slot].attempts == 0 {
            End::Reject { reason, retry_at }
        } else {
            End::GiveUp(later)
        }
    }

    /// Ends the call: attempts that still run are cancelled and settled with `verdict`, and all that
    /// it holds comes back.
    pub(crate) fn end_call(&mut self, slot: u32, verdict: Verdict, end: End, out: &mut Out<'_>) {
        let live = self.calls.is_live(slot);
        let mut attempt = self.calls.slab[slot].first_attempt;
        while attempt != NONE {
            if live {
                out.push(Action::CancelAttempt { attempt: self.calls.attempts[attempt].id });
                self.stats.attempts_cancelled += 1;
            }
            self.settle_attempt(attempt, verdict, None, out);
            attempt = self.calls.slab[slot].first_attempt;
        }
        self.give_back_token(slot);
        self.leave_call(slot);
        let Some(call) = self.calls.remove(slot) else { return };
        self.breakers.slab[call.breaker].calls -= 1;
        match end {
            End::Done => {
                self.stats.calls_done += 1;
                self.stats.call_time.record(self.now.since(call.since));
                out.push(Action::Done { call: call.id });
            }
            End::GiveUp(reason) => {
                *self.stats.give_ups.of(reason) += 1;
                out.push(Action::GiveUp { call: call.id, reason, last: call.last });
            }
            End::Forgotten => *self.stats.give_ups.of(GiveUpReason::Restarted) += 1,
            End::Reject { reason, retry_at } => {
                *self.stats.rejections.of(reason) += 1;
                let retry_after = retry_at.map(|at| at.since(self.now));
                out.push(Action::Reject { call: call.id, reason, retry_after });
            }
        }
    }

    /// A token that was paid for an attempt which never began comes back.
    pub(crate) fn give_back_token(&mut self, slot: u32) {
        let call = &mut self.calls.slab[slot];
        if !core::mem::take(&mut call.paid) {
            return;
        }
        let record = &mut self.breakers.slab[call.breaker];
        let policy = &self.policies.breaker(record.profile).gates;
        let budget = record.gates.as_mut().and_then(|gates| gates.budget.as_mut());
        if let (Some(budget), Some(policy)) = (budget, &policy.budget) {
            budget.give_back(policy);
        }
    }

    /// Ends a call whose peer is gone.
    pub(crate) fn doom(&mut self, slot: u32, out: &mut Out<'_>) {
        let end = self.end_for(slot, RejectReason::PeerRemoved, GiveUpReason::PeerRemoved, None);
        self.end_call(slot, Verdict::Dropped, end, out);
    }

    /// Takes leave of a call whose process is gone.
    pub(crate) fn bury_call(&mut self, slot: u32, out: &mut Out<'_>) {
        self.end_call(slot, Verdict::Dropped, End::GiveUp(GiveUpReason::Restarted), out);
    }
}
