//! An attempt's end, and what comes after it: success, another try, a hedge, or giving up.

use core::time::Duration;

use crate::action::{Action, GiveUpReason, Ignored, Notice};
use crate::breaker::{Outcome, State};
use crate::budget::Withdrawal;
use crate::container::timers::TimerKind;
use crate::draw::{Draws, Purpose, uniform};
use crate::event::{CallFailure, RetryAfter};
use crate::id::AttemptId;
use crate::limit::Sample;
use crate::manager::Manager;
use crate::manager::call::End;
use crate::manager::calls::{Attempt, CallPhase};
use crate::manager::out::Out;
use crate::mutant::Mutant;
use crate::time::{Time, nanos};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Succeeded,
    Failed(CallFailure),
    /// Another attempt of the call was faster.
    Outrun,
    /// Nobody waits for it any more, and nothing is known.
    Dropped,
}

/// By how much a server's hint is lengthened at most: everybody was given the same one.
const HINT_JITTER: u64 = 10;

impl Manager {
    /// The call's slot and the attempt's, or a notice that it is gone.
    fn find_attempt(&mut self, id: AttemptId, out: &mut Out<'_>) -> Option<(u32, u32)> {
        let Some(slot) = self.calls.find_attempt(id) else {
            self.stats.stale += 1;
            out.notice(Notice::Ignored(Ignored::StaleAttempt(id)));
            return None;
        };
        Some((self.calls.attempts[slot].call, slot))
    }

    pub(crate) fn on_succeeded(&mut self, id: AttemptId, out: &mut Out<'_>) {
        let Some((call, attempt)) = self.find_attempt(id, out) else { return };
        let paid = self.calls.attempts[attempt].paid;
        self.settle_attempt(attempt, Verdict::Succeeded, None, out);
        self.earn(call, paid);
        self.end_call(call, Verdict::Outrun, End::Done, out);
    }

    /// What a call's success adds to its target's budget.
    fn earn(&mut self, call: u32, paid: bool) {
        let now = self.now;
        let record = &mut self.breakers.slab[self.calls.slab[call].breaker];
        let policy = &self.policies.breaker(record.profile).gates;
        let budget = record.gates.as_mut().and_then(|gates| gates.budget.as_mut());
        if let (Some(budget), Some(policy)) = (budget, &policy.budget) {
            // A retry that succeeded gives its token back instead of earning a part of one.
            if !paid || !budget.refund(policy, now) {
                budget.deposit(policy, now);
            }
        }
    }

    pub(crate) fn on_failed(
        &mut self,
        id: AttemptId,
        kind: CallFailure,
        retry_after: Option<RetryAfter>,
        out: &mut Out<'_>,
    ) {
        let Some((call, attempt)) = self.find_attempt(id, out) else { return };
        self.fail_attempt(call, attempt, kind, retry_after, out);
    }

    pub(crate) fn on_dropped(&mut self, id: AttemptId, out: &mut Out<'_>) {
        let Some((call, attempt)) = self.find_attempt(id, out) else { return };
        self.settle_attempt(attempt, Verdict::Dropped, None, out);
        self.end_call(call, Verdict::Dropped, End::GiveUp(GiveUpReason::Dropped), out);
    }

    /// The attempt's time is up, unless judgement holds.
    pub(crate) fn on_attempt_timer(&mut self, slot: u32, out: &mut Out<'_>) {
        if self.now < self.sleep.hold_until {
            return self.timers.arm(TimerKind::Attempt, slot, self.sleep.hold_until);
        }
        let Attempt { id, call, .. } = self.calls.attempts[slot];
        out.push(Action::CancelAttempt { attempt: id });
        self.stats.attempts_cancelled += 1;
        self.fail_attempt(call, slot, CallFailure::Timeout, None, out);
    }

    fn fail_attempt(
        &mut self,
        call: u32,
        attempt: u32,
        kind: CallFailure,
        retry_after: Option<RetryAfter>,
        out: &mut Out<'_>,
    ) {
        let hint = match retry_after {
            Some(RetryAfter::After(hint)) => Some(hint),
            Some(RetryAfter::Never) | None => None,
        };
        self.settle_attempt(attempt, Verdict::Failed(kind), hint, out);
        if Mutant::EarnsOnFailure.lives() {
            self.earn(call, false);
        }
        let longest = self.policies.call(self.calls.slab[call].profile).profile.max_retry_after;
        let not_before = match retry_after {
            None => Time::ZERO,
            Some(RetryAfter::After(hint)) if hint <= longest => self.now + hint,
            Some(RetryAfter::After(_) | RetryAfter::Never) => Time::MAX,
        };
        let record = &mut self.calls.slab[call];
        record.last = Some(kind);
        record.not_before = record.not_before.max(not_before);
        if kind.is_final() {
            let end = End::GiveUp(GiveUpReason::NotRetryable);
            return self.end_call(call, Verdict::Dropped, end, out);
        }
        if self.calls.attempts_of(call).next().is_none() {
            self.retry(call, kind, out);
        }
    }

    /// Tries again after a while, or gives up at once if that cannot help.
    fn retry(&mut self, slot: u32, kind: CallFailure, out: &mut Out<'_>) {
        match self.next_try(slot, kind) {
            Ok(at) => {
                self.stats.retries += 1;
                let call = self.calls.slab[slot].id;
                out.notice(Notice::CallRetries { call, failure: kind, at });
                self.enter_call(slot, CallPhase::BackingOff { until: at }, out);
                if at <= self.now {
                    self.pass_gates(slot, out);
                }
            }
            Err(reason) => self.end_call(slot, Verdict::Dropped, End::GiveUp(reason), out),
        }
    }

    /// When the next attempt is due, paid for; or why there is none.
    fn next_try(&mut self, slot: u32, kind: CallFailure) -> Result<Time, GiveUpReason> {
        let call = &self.calls.slab[slot];
        let profile = &self.policies.call(call.profile).profile;
        if !profile.retry_on.contains(&kind) {
            return Err(GiveUpReason::NotRetryable);
        }
        if call.attempts >= profile.max_attempts {
            return Err(GiveUpReason::TooManyAttempts);
        }
        if call.not_before == Time::MAX {
            return Err(GiveUpReason::ServerSaidNo);
        }
        let hint = call.not_before.since(self.now);
        let delay = self.draw_retry(slot).max(self.lengthen(slot, hint));
        let at = self.now + delay;
        if !self.has_time(slot, at) {
            return Err(GiveUpReason::Deadline);
        }
        if !self.pay(slot) {
            return Err(GiveUpReason::BudgetExhausted);
        }
        self.calls.slab[slot].paid = true;
        Ok(at)
    }

    /// Draws the delay after the attempts so far.
    pub(crate) fn draw_retry(&mut self, slot: u32) -> Duration {
        let random = self.draw_for_call(slot, Purpose::CallBackoff);
        let call = &mut self.calls.slab[slot];
        let policy = &self.policies.call(call.profile).backoff;
        let delay = policy.jittered(call.attempts.saturating_sub(1), call.previous_delay, random);
        call.previous_delay = delay;
        delay
    }

    /// The hint and up to a tenth more.
    fn lengthen(&mut self, slot: u32, hint: Duration) -> Duration {
        if hint.is_zero() {
            return hint;
        }
        let random = self.draw_for_call(slot, Purpose::RetryAfter);
        hint.saturating_add(Duration::from_nanos(uniform(random, 0, nanos(hint) / HINT_JITTER)))
    }

    fn draw_for_call(&mut self, slot: u32, purpose: Purpose) -> u64 {
        let call = &mut self.calls.slab[slot];
        let draws = Draws::new(self.policies.config.seed, call.id.0);
        let random = draws.draw(purpose, u64::from(call.draws));
        call.draws = call.draws.wrapping_add(1);
        random
    }

    /// Pays for one more attempt of the call; `false` if the budget has no token.
    fn pay(&mut self, slot: u32) -> bool {
        let record = &mut self.breakers.slab[self.calls.slab[slot].breaker];
        let policy = &self.policies.breaker(record.profile).gates;
        let budget = record.gates.as_mut().and_then(|gates| gates.budget.as_mut());
        let (Some(budget), Some(policy)) = (budget, &policy.budget) else { return true };
        let granted = budget.withdraw(policy, self.now) == Withdrawal::Granted;
        self.stats.budget_refusals += u64::from(!granted);
        granted
    }

    /// The call's attempt is slow: another joins it if there is room, time, a token and a closed
    /// breaker, and no server asked to be left alone.
    ///
    /// A hedge waits for nothing, is not tried again later, and never is a probe.
    pub(crate) fn hedge(&mut self, slot: u32, out: &mut Out<'_>) {
        self.enter_call(slot, CallPhase::Running { hedge_at: Time::MAX }, out);
        let record = &self.breakers.slab[self.calls.slab[slot].breaker];
        let policy = &self.policies.breaker(record.profile).gates;
        let ready = record.gates.as_ref().is_some_and(|gates| {
            gates.bulkhead.waiting() == 0
                && gates.has_room(policy)
                && gates.turn_at(policy, 1, self.now) == Some(self.now)
        });
        let ready = ready
            && matches!(record.breaker.state(), State::Closed | State::Disabled)
            && self.has_connection(slot)
            && self.has_time(slot, self.now)
            && self.calls.slab[slot].not_before <= self.now;
        if !ready || !self.pay(slot) {
            return;
        }
        let call = &mut self.calls.slab[slot];
        call.paid = true;
        call.hedges += 1;
        match self.start(slot, out) {
            Ok(()) => self.stats.hedges += 1,
            Err(_) => {
                self.calls.slab[slot].hedges -= 1;
                self.give_back_token(slot);
            }
        }
    }

    /// Takes the attempt out: its permit and its slot come back, and its outcome is recorded.
    pub(crate) fn settle_attempt(
        &mut self,
        slot: u32,
        verdict: Verdict,
        retry_after: Option<Duration>,
        out: &mut Out<'_>,
    ) {
        self.timers.disarm(TimerKind::Attempt, slot);
        let Some(attempt) = self.calls.end(slot) else { return };
        self.stats.attempts_in_flight -= 1;
        let now = self.now;
        // What our own network did proves nothing about the server, nor how long our sleep took.
        let ours = self.network.is_still() || attempt.since < self.network.up_at;
        let away = ours || attempt.since < self.sleep.woke_at;
        let took = if away { Duration::ZERO } else { now.since(attempt.since) };
        let breaker = self.calls.slab[attempt.call].breaker;
        let mode = self.mode(breaker);
        let record = &mut self.breakers.slab[breaker];
        let profile = self.policies.breaker(record.profile);
        let policy = &profile.gates;
        let (outcome, sample) = match verdict {
            Verdict::Succeeded => (Outcome::Success, Some(Sample::Ok).filter(|_| !away)),
            Verdict::Outrun | Verdict::Dropped => (Outcome::Dropped, None),
            Verdict::Failed(kind) => {
                *self.stats.attempt_failures.of(kind) += 1;
                judge(kind, ours, policy.opens_for(kind))
            }
        };
        if let Some(gates) = &mut record.gates {
            if let (Some(limit), Some(policy), Some(sample)) =
                (&mut gates.limit, &policy.limit, sample)
            {
                let in_flight = gates.bulkhead.in_use();
                limit.record(policy, sample, attempt.since, in_flight, now);
            }
            gates.bulkhead.leave();
            if matches!(outcome, Outcome::Failure | Outcome::OpenFor(_)) {
                gates.refused_at = Some(now);
            } else if let Some(throttle) = &mut gates.throttle {
                // Also where nothing is known: it says nothing against the server.
                throttle.accepted(now);
            }
            // One that was outrun would have taken at least this long. A hedge tells nothing: where it
            // wins it was a fast one, and where it loses it was cut short.
            let timed = matches!(verdict, Verdict::Succeeded | Verdict::Outrun);
            let timed = timed && !away && !attempt.hedge;
            if let (true, Some(hedge), Some(policy)) = (timed, &mut gates.hedge, &policy.hedge) {
                hedge.record(policy, took);
            }
        }
        let draws = Draws::new(self.policies.config.seed, record.id.0);
        let (_, transition) = record.breaker.record(
            profile.at(mode),
            attempt.permit,
            outcome,
            took,
            retry_after,
            now,
            &draws,
        );
        self.breaker_moved(breaker, transition, out);
    }
}

/// What a failure counts as before the breaker and before the limit.
fn judge(kind: CallFailure, ours: bool, opens_for: Option<Duration>) -> (Outcome, Option<Sample>) {
    if ours || kind == CallFailure::Local {
        return (Outcome::Dropped, None);
    }
    let sample = match kind {
        CallFailure::Timeout | CallFailure::Throttled | CallFailure::Unavailable => {
            Some(Sample::Dropped)
        }
        _ => None,
    };
    let outcome = match (kind, opens_for) {
        (CallFailure::Invalid, _) => Outcome::Ignored,
        (_, Some(span)) => Outcome::OpenFor(span),
        (_, None) => Outcome::Failure,
    };
    (outcome, sample)
}
