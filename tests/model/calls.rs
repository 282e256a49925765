//! What the naive model knows of calls: who may start, who must wait, and how each may end.
//!
//! Tokens are counted in exact units, lines are vectors and permits are recounted from the attempts
//! that run. What chance decides (jitter, the throttle's and the ramp's draws) is checked against its
//! bounds only. It knows no groups, no slow outcomes, and no hedging by percentile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use steadfast::backoff::BackoffPolicy;
use steadfast::breaker::State;
use steadfast::bucket::BucketConfig;
use steadfast::budget::BudgetConfig;
use steadfast::config::{CallProfile, GateConfig, NotConnected};
use steadfast::hedge::HedgeDelay;
use steadfast::limit::LimitConfig;
use steadfast::strategy::Step;
use steadfast::{
    Action, AttemptId, BreakerId, CallCounts, CallFailure, CallId, CallProfileId, ConnId, Endpoint,
    Event, GiveUpReason, Manager, Notice, PeerId, PeerState, RejectReason, RetryAfter, Target,
    Time, WaitsFor,
};

use crate::reference::{Model, Peer, Permit, Stage, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Asked,
    Connection { until: Time, place: u64 },
    Turn { until: Time },
    BackingOff { until: Time },
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done,
    GiveUp(GiveUpReason),
}

#[derive(Clone, Debug)]
struct Call {
    profile: usize,
    breaker: BreakerId,
    peer: Option<PeerId>,
    /// Why there can be no such call, if so.
    void: Vec<RejectReason>,
    since: Time,
    deadline: Time,
    doing: Doing,
    attempts: u32,
    hedges: u32,
    hedge_at: Option<Time>,
    /// Whether something spoke against the hedge at some moment of this step.
    hedge_blocked: bool,
    hedge_too_dear: bool,
    last: Option<CallFailure>,
    /// Whether an attempt is paid for that has not begun.
    paid: bool,
    /// What the last delay drawn lies between.
    previous: (Duration, Duration),
    /// How this step's event must end it.
    ending: Option<Ending>,
    /// The failure of its last attempt, of which this step must make something.
    failed: Option<(CallFailure, Option<RetryAfter>)>,
    doomed: bool,
    /// Until when its server asked to be left alone; the end of time if for good.
    not_before: Time,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    call: CallId,
    pub(crate) breaker: BreakerId,
    pub(crate) generation: u64,
    pub(crate) permit: Permit,
    since: Time,
    times_out: Time,
    /// When a probe of it is too late.
    pub(crate) ends: Time,
    paid: bool,
}

/// The exact state of a breaker's gates.
#[derive(Clone, Debug)]
struct Gates {
    /// In units of 1/per of a token.
    credit: u128,
    credit_at: Time,
    /// In units of 1/per of a thousandth.
    budget: u128,
    budget_at: Time,
    limit: u32,
    successes: u32,
    decreased_at: Option<Time>,
    line: Vec<CallId>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    calls: BTreeMap<CallId, Call>,
    pub(crate) attempts: BTreeMap<AttemptId, Attempt>,
    used: BTreeSet<AttemptId>,
    gates: BTreeMap<BreakerId, Gates>,
    /// How often anybody began to wait for a connection.
    places: u64,
    asked: u64,
    done: u64,
    begun: u64,
    cancelled: u64,
    retries: u64,
    hedges: u64,
    refused_by_budget: u64,
    rejections: BTreeMap<String, u64>,
    give_ups: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
}

const TOKEN: u128 = 1_000;
/// How long a retry that a gate refused waits at least.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A reserve of so many thousandths in so many nanoseconds.
fn reserve(config: &BudgetConfig) -> (u128, u128) {
    config.reserve.map_or((0, 1), |rate| (u128::from(rate.count) * TOKEN, rate.per.as_nanos()))
}

fn name_of(reason: &impl serde::Serialize) -> String {
    match serde_json::to_value(reason).unwrap() {
        Value::String(name) => name,
        Value::Object(fields) => fields.keys().next().unwrap().clone(),
        other => panic!("{other}"),
    }
}

/// Whether the counts told are exactly these, and 0 elsewhere.
fn agree(told: &impl serde::Serialize, counted: &BTreeMap<String, u64>) -> bool {
    let Value::Object(told) = serde_json::to_value(told).unwrap() else { return false };
    told.iter().all(|(name, count)| {
        count.as_u64().unwrap() == counted.get(name).copied().unwrap_or_default()
    })
}

fn bounded(until: Time) -> Option<Time> {
    Some(until).filter(|until| *until < Time::MAX)
}

// The gates' arithmetic.
impl Gates {
    fn new(config: &GateConfig, now: Time) -> Self {
        let full = |rate: BucketConfig| u128::from(rate.burst) * rate.rate.per.as_nanos();
        let initial =
            |budget: BudgetConfig| u128::from(budget.initial) * TOKEN * reserve(&budget).1;
        Self {
            credit: config.rate.map_or(0, full),
            credit_at: now,
            budget: config.budget.map_or(0, initial),
            budget_at: now,
            limit: config.limit.map_or(0, |limit| limit.initial),
            successes: 0,
            decreased_at: None,
            line: Vec::new(),
        }
    }

    fn refill(&mut self, config: &GateConfig, now: Time) {
        if let Some(rate) = config.rate {
            let elapsed = now.since(self.credit_at).as_nanos();
            let most = u128::from(rate.burst) * rate.rate.per.as_nanos();
            self.credit = (self.credit + elapsed * u128::from(rate.rate.count)).min(most);
            self.credit_at = now;
        }
        if let Some(budget) = config.budget {
            let (gain, per) = reserve(&budget);
            let earned = now.since(self.budget_at).as_nanos() * gain;
            self.budget = (self.budget + earned).min(u128::from(budget.capacity) * TOKEN * per);
            self.budget_at = now;
        }
    }

    /// When the `n`-th in line gets a token, if each takes one as soon as it is there.
    fn token_at(&self, config: &GateConfig, n: usize, now: Time) -> Time {
        let Some(rate) = config.rate else { return now };
        let (per, count) = (rate.rate.per.as_nanos(), u128::from(rate.rate.count));
        let mut bucket = self.clone();
        let mut at = now;
        for _ in 0..n {
            bucket.refill(config, at);
            let missing = per.saturating_sub(bucket.credit).div_ceil(count);
            at = at.plus_nanos(u64::try_from(missing).unwrap());
            bucket.refill(config, at);
            bucket.credit -= per;
        }
        at
    }

    fn has_token(&self, config: &GateConfig, now: Time) -> bool {
        self.token_at(config, 1, now) <= now
    }

    fn can_pay(&self, config: &GateConfig) -> bool {
        config.budget.is_none_or(|budget| self.budget >= TOKEN * reserve(&budget).1)
    }

    fn pay(&mut self, config: &GateConfig) {
        if let Some(budget) = config.budget {
            self.budget -= TOKEN * reserve(&budget).1;
        }
    }

    fn earn(&mut self, config: &GateConfig, thousandths: u128) {
        if let Some(budget) = config.budget {
            let per = reserve(&budget).1;
            let most = u128::from(budget.capacity) * TOKEN * per;
            self.budget = (self.budget + thousandths * per).min(most);
        }
    }

    fn limit(&self, config: &GateConfig) -> usize {
        let most = config.bulkhead.max_concurrent;
        config.limit.map_or(most, |_| self.limit.min(most)) as usize
    }

    /// One for each limit-full of successes, a share at the first drop of those under way.
    fn learn(&mut self, config: &LimitConfig, ok: bool, since: Time, running: usize, now: Time) {
        if self.decreased_at.is_some_and(|at| since <= at) {
            return;
        }
        if ok {
            if running * 2 >= self.limit as usize {
                self.successes += 1;
                if self.successes >= self.limit && self.limit < config.max {
                    (self.limit, self.successes) = (self.limit + 1, 0);
                }
                self.successes = self.successes.min(self.limit);
            }
        } else {
            let left = self.limit * config.decrease.numerator / config.decrease.denominator;
            self.limit = left.min(self.limit - 1).max(config.min);
            (self.successes, self.decreased_at) = (0, Some(now));
        }
    }
}

// Looking things up.
impl Model {
    fn gate_config(&self, breaker: BreakerId) -> GateConfig {
        self.breaker_profile(&self.breakers[&breaker]).calls.clone()
    }

    fn call_profile(&self, call: &Call) -> &CallProfile {
        &self.config.call_profiles[call.profile]
    }

    fn call_policy(&self, call: &Call) -> BackoffPolicy {
        self.call_profile(call).backoff.validate().unwrap()
    }

    fn call(&self, id: CallId) -> Result<&Call, String> {
        self.calls.calls.get(&id).ok_or_else(|| "no such call".into())
    }

    fn call_mut(&mut self, id: CallId) -> &mut Call {
        self.calls.calls.get_mut(&id).unwrap()
    }

    fn gates_mut(&mut self, breaker: BreakerId) -> &mut Gates {
        self.calls.gates.get_mut(&breaker).unwrap()
    }

    fn running(&self, breaker: BreakerId) -> usize {
        self.calls.attempts.values().filter(|attempt| attempt.breaker == breaker).count()
    }

    fn attempts_of(&self, call: CallId) -> Vec<AttemptId> {
        let attempts = self.calls.attempts.iter();
        attempts.filter(|(_, attempt)| attempt.call == call).map(|(id, _)| *id).collect()
    }

    pub(crate) fn calls_through(&self, breaker: BreakerId) -> usize {
        let real = self.calls.calls.values().filter(|call| call.void.is_empty());
        real.filter(|call| call.breaker == breaker).count()
    }

    /// The connection that is up.
    fn conn_of(&self, peer: PeerId) -> Option<ConnId> {
        let conn = self.peers.get(&peer)?.conn?;
        (self.stage(conn) == Stage::Up).then_some(conn)
    }

    fn is_reachable(&self, call: &Call) -> bool {
        !call.doomed && call.peer.is_none_or(|peer| self.conn_of(peer).is_some())
    }

    fn has_slot(&self, breaker: BreakerId) -> bool {
        self.running(breaker) < self.calls.gates[&breaker].limit(&self.gate_config(breaker))
    }

    fn has_token(&self, breaker: BreakerId) -> bool {
        self.calls.gates[&breaker].has_token(&self.gate_config(breaker), self.now)
    }

    /// Whether the breaker admits one more, the ramp aside.
    fn has_room(&self, breaker: BreakerId) -> bool {
        let record = &self.breakers[&breaker];
        match record.state {
            State::Closed | State::Disabled => true,
            State::Open { .. } => record.watch_only,
            State::HalfOpen => {
                let probes = self.breaker_profile(record).breaker.probes;
                record.watch_only || self.probes_out(breaker) < probes
            }
            State::ForcedOpen => false,
        }
    }

    fn admits_freely(&self, breaker: BreakerId) -> bool {
        let record = &self.breakers[&breaker];
        match record.state {
            State::Closed | State::Disabled => true,
            State::Open { .. } | State::HalfOpen => record.watch_only,
            State::ForcedOpen => false,
        }
    }

    fn has_time(&self, call: &Call, at: Time) -> bool {
        let left = call.deadline.since(at);
        !left.is_zero() && left >= self.call_profile(call).min_attempt
    }

    fn refill(&mut self) {
        let now = self.now;
        for (breaker, gates) in &mut self.calls.gates {
            let profile = self.breakers[breaker].profile;
            gates.refill(&self.config.breaker_profiles[profile].calls, now);
        }
    }
}

// What events mean.
impl Model {
    pub(crate) fn take_call_event(&mut self, event: &Event) -> bool {
        match *event {
            Event::Call { call, target, profile, deadline } => {
                self.ask(call, target, profile, deadline)
            }
            Event::CancelCall { call } => {
                let known = self.calls.calls.get_mut(&call);
                let ending = Some(Ending::GiveUp(GiveUpReason::Cancelled));
                known.map(|call| call.ending = ending).is_some()
            }
            Event::Succeeded { attempt } => {
                let Some(ended) = self.calls.attempts.get(&attempt).copied() else { return false };
                // How long it took while we were away says nothing.
                let away = self.down || ended.since < self.up_at || ended.since < self.woke_at;
                let sample = (!away).then_some(true);
                self.end_attempt(attempt, Some(true), sample, None, None);
                let config = self.gate_config(ended.breaker);
                if let Some(budget) = config.budget {
                    let refunds = ended.paid && budget.refund;
                    let ratio = budget.ratio;
                    let earned =
                        TOKEN * u128::from(ratio.numerator) / u128::from(ratio.denominator);
                    let gained = if refunds { TOKEN } else { earned };
                    self.gates_mut(ended.breaker).earn(&config, gained);
                }
                self.call_mut(ended.call).ending = Some(Ending::Done);
                true
            }
            Event::Failed { attempt, kind, retry_after } => {
                let known = self.calls.attempts.contains_key(&attempt);
                if known {
                    self.fail_attempt(attempt, kind, retry_after);
                }
                known
            }
            Event::Dropped { attempt } => {
                let Some(ended) = self.calls.attempts.get(&attempt).copied() else { return false };
                self.end_attempt(attempt, None, None, None, None);
                self.call_mut(ended.call).ending = Some(Ending::GiveUp(GiveUpReason::Dropped));
                true
            }
            _ => false,
        }
    }

    fn ask(
        &mut self,
        id: CallId,
        target: Target,
        profile: CallProfileId,
        deadline: Option<Time>,
    ) -> bool {
        if self.calls.calls.contains_key(&id) {
            return false;
        }
        self.calls.asked += 1;
        let (now, breaker) = (self.now, target.breaker());
        let profile = usize::from(profile.0);
        let peer = match target {
            Target::Peer { peer, .. } => Some(peer),
            Target::Breaker(_) => None,
        };
        let known = self.config.call_profiles.get(profile);
        let full = self.calls.calls.len() >= self.config.limits.max_calls as usize;
        let faults = [
            (!self.breakers.contains_key(&breaker), RejectReason::UnknownBreaker),
            (peer.is_some_and(|peer| !self.peers.contains_key(&peer)), RejectReason::UnknownPeer),
            (known.is_none(), RejectReason::UnknownProfile),
            (full, RejectReason::TooManyCalls),
        ];
        let faults = faults.into_iter().filter(|(is, _)| *is);
        let void: Vec<RejectReason> = faults.map(|(_, reason)| reason).collect();
        let span = known.and_then(|known| known.deadline);
        let deadline = deadline.or(span.map(|span| now + span)).unwrap_or(Time::MAX);
        if void.is_empty() && !self.calls.gates.contains_key(&breaker) {
            let fresh = Gates::new(&self.gate_config(breaker), now);
            self.calls.gates.insert(breaker, fresh);
        }
        let call = Call {
            profile,
            breaker,
            peer,
            void,
            since: now,
            deadline,
            doing: Doing::Asked,
            attempts: 0,
            hedges: 0,
            hedge_at: None,
            hedge_blocked: false,
            hedge_too_dear: false,
            not_before: Time::ZERO,
            last: None,
            paid: false,
            previous: (Duration::ZERO, Duration::ZERO),
            ending: None,
            failed: None,
            doomed: false,
        };
        self.calls.calls.insert(id, call);
        true
    }

    pub(crate) fn doom_calls(&mut self, peer: PeerId) {
        for call in self.calls.calls.values_mut().filter(|call| call.peer == Some(peer)) {
            call.doomed = true;
        }
    }

    pub(crate) fn restart_calls(&mut self) {
        for call in self.calls.calls.values_mut() {
            call.ending = Some(Ending::GiveUp(GiveUpReason::Restarted));
        }
    }

    pub(crate) fn forget_gates(&mut self, breaker: BreakerId) {
        self.calls.gates.remove(&breaker);
    }

    /// Takes an attempt out: well or badly for the breaker and for the limit, or neither.
    fn end_attempt(
        &mut self,
        id: AttemptId,
        outcome: Option<bool>,
        sample: Option<bool>,
        open_for: Option<Duration>,
        hint: Option<Duration>,
    ) {
        let attempt = self.calls.attempts[&id];
        let running = self.running(attempt.breaker);
        let (now, limit) = (self.now, self.gate_config(attempt.breaker).limit);
        if let (Some(limit), Some(ok)) = (limit, sample) {
            self.gates_mut(attempt.breaker).learn(&limit, ok, attempt.since, running, now);
        }
        self.calls.attempts.remove(&id);
        let Attempt { breaker, generation, permit, .. } = attempt;
        self.judge(breaker, generation, permit, outcome, open_for, hint);
    }

    /// What a failure of that kind says of the server: for the breaker, and for the limit.
    fn record_failure(&mut self, id: AttemptId, kind: CallFailure, hint: Option<Duration>) {
        *self.calls.failures.entry(name_of(&kind)).or_default() += 1;
        let attempt = self.calls.attempts[&id];
        let ours = self.down || attempt.since < self.up_at || kind == CallFailure::Local;
        let overload = matches!(
            kind,
            CallFailure::Timeout | CallFailure::Throttled | CallFailure::Unavailable
        );
        let counts = !ours && kind != CallFailure::Invalid;
        let rules = self.gate_config(attempt.breaker).open_on;
        let rule = rules.iter().find(|rule| rule.kind == kind).filter(|_| counts);
        let open_for = rule.map(|rule| rule.open_for);
        let sample = (!ours && overload).then_some(false);
        self.end_attempt(id, counts.then_some(false), sample, open_for, hint);
    }

    fn fail_attempt(&mut self, id: AttemptId, kind: CallFailure, retry_after: Option<RetryAfter>) {
        let call = self.calls.attempts[&id].call;
        let hint = match retry_after {
            Some(RetryAfter::After(hint)) => Some(hint),
            Some(RetryAfter::Never) | None => None,
        };
        self.record_failure(id, kind, hint);
        let alone = self.attempts_of(call).is_empty();
        let longest = self.call_profile(&self.calls.calls[&call]).max_retry_after;
        let now = self.now;
        let record = self.call_mut(call);
        record.last = Some(kind);
        let asked = match retry_after {
            None => Time::ZERO,
            Some(RetryAfter::After(hint)) if hint <= longest => now + hint,
            Some(_) => Time::MAX,
        };
        record.not_before = record.not_before.max(asked);
        // What an earlier attempt was told holds for those that follow.
        let retry_after = match record.not_before {
            Time::MAX => Some(RetryAfter::Never),
            at => Some(RetryAfter::After(at.since(now))),
        };
        if kind.is_final() {
            record.ending = Some(Ending::GiveUp(GiveUpReason::NotRetryable));
        } else if alone {
            record.failed = Some((kind, retry_after));
        }
    }
}

// What actions may be given.
impl Model {
    /// At the beginning of a step, after time has moved.
    pub(crate) fn begin_calls(&mut self) {
        self.refill();
        for call in self.calls.calls.values_mut() {
            (call.hedge_blocked, call.hedge_too_dear) = (false, false);
        }
    }

    /// Looks at whatever hedge is due, after the event and after each action.
    pub(crate) fn watch_hedges(&mut self) {
        let ids: Vec<CallId> = self.calls.calls.keys().copied().collect();
        for id in ids {
            let call = &self.calls.calls[&id];
            if call.hedge_at.is_none_or(|at| at > self.now) {
                continue;
            }
            let breaker = call.breaker;
            let too_dear = !self.calls.gates[&breaker].can_pay(&self.gate_config(breaker));
            let blocked = too_dear
                || !self.calls.gates[&breaker].line.is_empty()
                || !self.has_slot(breaker)
                || !self.has_token(breaker)
                || !matches!(self.breakers[&breaker].state, State::Closed | State::Disabled)
                || !self.is_reachable(call)
                || !self.has_time(call, self.now)
                || call.not_before > self.now
                || self.gate_config(breaker).throttle.is_some()
                || self.breakers[&breaker].ramp_from.is_some();
            let call = self.call_mut(id);
            call.hedge_blocked |= blocked;
            call.hedge_too_dear |= too_dear;
        }
    }

    pub(crate) fn take_call_action(
        &mut self,
        action: &Action,
        step: &Step,
        place: usize,
    ) -> Verdict {
        match *action {
            Action::StartAttempt { attempt, call, conn } => self.take_start(attempt, call, conn),
            Action::CancelAttempt { attempt } => {
                self.take_cancel(attempt, step.actions.get(place..).unwrap_or_default())
            }
            Action::Reject { call, reason, retry_after } => {
                let record = self.call(call)?;
                ensure!(record.attempts == 0, "there were attempts");
                ensure!(record.ending.is_none(), "should end otherwise: {:?}", record.ending);
                let told_again = self.check_refusal(call, reason, step)?;
                ensure!(retry_after == told_again, "retry after {told_again:?}");
                *self.calls.rejections.entry(name_of(&reason)).or_default() += 1;
                self.end_call(call)
            }
            Action::GiveUp { call, reason, last } => self.take_give_up(call, reason, last, step),
            Action::Done { call } => {
                let record = self.call(call)?;
                ensure!(record.ending == Some(Ending::Done), "nothing succeeded");
                self.calls.done += 1;
                self.end_call(call)
            }
            _ => Err("not about a call".into()),
        }
    }

    fn end_call(&mut self, id: CallId) -> Verdict {
        ensure!(self.attempts_of(id).is_empty(), "attempts still run");
        let call = self.calls.calls.remove(&id).unwrap();
        if !call.void.is_empty() {
            return Ok(());
        }
        let config = self.gate_config(call.breaker);
        let gates = self.gates_mut(call.breaker);
        gates.line.retain(|waiting| *waiting != id);
        if call.paid {
            gates.earn(&config, TOKEN);
        }
        Ok(())
    }

    fn take_start(&mut self, id: AttemptId, call_id: CallId, conn: Option<ConnId>) -> Verdict {
        let now = self.now;
        ensure!(self.calls.used.insert(id), "the id was used before");
        let call = self.call(call_id)?.clone();
        let (breaker, profile) = (call.breaker, self.call_profile(&call).clone());
        ensure!(call.void.is_empty() && !call.doomed, "it should be refused");
        ensure!(call.ending.is_none() && call.failed.is_none(), "it should end");
        ensure!(self.is_reachable(&call), "the peer is not up");
        let expected = call.peer.and_then(|peer| self.conn_of(peer));
        ensure!(conn == expected, "the connection is {expected:?}");
        ensure!(self.has_time(&call, now), "no time left");
        ensure!(call.attempts < profile.max_attempts, "{} attempts were made", call.attempts);
        ensure!(self.has_slot(breaker), "{} run already", self.running(breaker));
        ensure!(self.has_token(breaker), "the rate has no token");
        let permit = self.permit_for(breaker)?;
        let config = self.gate_config(breaker);
        let first = self.calls.gates[&breaker].line.first().copied();
        let hedges = call.doing == Doing::Running;
        match call.doing {
            Doing::Turn { .. } => {
                ensure!(first == Some(call_id), "{first:?} is the first in line");
                self.gates_mut(breaker).line.remove(0);
            }
            _ => ensure!(first.is_none(), "{first:?} waits in line"),
        }
        match call.doing {
            Doing::Connection { .. } => self.check_first_waiter(call_id)?,
            Doing::BackingOff { until } => ensure!(until <= now, "not before {until}"),
            Doing::Running => {
                ensure!(profile.hedged, "the profile is not hedged");
                let most = config.hedge.map_or(0, |hedge| hedge.max_hedges);
                ensure!(call.hedges < most, "{} hedges were made", call.hedges);
                ensure!(
                    call.hedge_at.is_some_and(|at| at <= now),
                    "not before {:?}",
                    call.hedge_at
                );
                ensure!(self.admits_freely(breaker), "a hedge is no probe");
                ensure!(self.calls.gates[&breaker].can_pay(&config), "nothing pays for it");
                self.gates_mut(breaker).pay(&config);
                self.calls.hedges += 1;
            }
            Doing::Asked | Doing::Turn { .. } => {}
        }
        let paid = hedges || call.paid;
        ensure!(call.attempts == 0 || paid, "nobody paid for it");
        if let Some(rate) = config.rate {
            self.gates_mut(breaker).credit -= rate.rate.per.as_nanos();
        }
        let times_out = now + profile.attempt_timeout;
        let attempt = Attempt {
            call: call_id,
            breaker,
            generation: self.breakers[&breaker].generation,
            permit,
            since: now,
            times_out,
            ends: times_out.min(call.deadline),
            paid,
        };
        self.calls.attempts.insert(id, attempt);
        self.calls.begun += 1;
        let record = self.call_mut(call_id);
        record.attempts += 1;
        record.hedges += u32::from(hedges);
        record.paid = false;
        record.doing = Doing::Running;
        let may_hedge = profile.hedged && record.attempts < profile.max_attempts;
        let hedge = config.hedge.filter(|hedge| may_hedge && record.hedges < hedge.max_hedges);
        record.hedge_at = hedge.map(|hedge| match hedge.delay {
            HedgeDelay::After(delay) => now + delay,
            HedgeDelay::Percentile { .. } => panic!("the model knows no percentiles"),
        });
        (record.hedge_blocked, record.hedge_too_dear) = (false, false);
        Ok(())
    }

    /// Of those that waited for the same connection it waited longest.
    fn check_first_waiter(&self, id: CallId) -> Verdict {
        let place_of = |call: &Call| match call.doing {
            Doing::Connection { place, .. } => Some(place),
            _ => None,
        };
        let call = &self.calls.calls[&id];
        let before = self.calls.calls.iter().find(|(_, other)| {
            let earlier = place_of(other).is_some_and(|place| Some(place) < place_of(call));
            other.peer == call.peer && earlier
        });
        ensure!(before.is_none(), "{:?} waits longer", before.map(|(id, _)| id));
        Ok(())
    }

    fn take_cancel(&mut self, id: AttemptId, rest: &[Action]) -> Verdict {
        self.calls.cancelled += 1;
        let attempt = *self.calls.attempts.get(&id).ok_or("nothing to cancel")?;
        let call = self.call(attempt.call)?;
        let given_up = rest.iter().find_map(|action| match action {
            Action::GiveUp { call, reason, .. } if *call == attempt.call => Some(*reason),
            _ => None,
        });
        let doomed = call.doomed && given_up == Some(GiveUpReason::PeerRemoved);
        if call.ending.is_some() || doomed {
            ensure!(
                call.ending != Some(Ending::GiveUp(GiveUpReason::Restarted)),
                "its process is gone"
            );
            self.end_attempt(id, None, None, None, None);
            return Ok(());
        }
        if given_up == Some(GiveUpReason::Deadline) && call.deadline <= self.now {
            if self.now < self.hold_until {
                // The caller's time is up, but the answer may be waiting.
                self.end_attempt(id, None, None, None, None);
            } else {
                self.record_failure(id, CallFailure::Timeout, None);
            }
            self.call_mut(attempt.call).last = Some(CallFailure::Timeout);
            return Ok(());
        }
        ensure!(attempt.times_out <= self.now, "timed out before {}", attempt.times_out);
        ensure!(self.now >= self.hold_until, "timed out while judgement held");
        ensure!(!self.down, "timed out while the network was down");
        self.fail_attempt(id, CallFailure::Timeout, None);
        Ok(())
    }

    fn take_give_up(
        &mut self,
        id: CallId,
        reason: GiveUpReason,
        last: Option<CallFailure>,
        step: &Step,
    ) -> Verdict {
        let call = self.call(id)?.clone();
        ensure!(last == call.last, "the last failure was {:?}", call.last);
        ensure!(call.void.is_empty(), "it was never taken");
        if let Some(ending) = call.ending {
            ensure!(ending == Ending::GiveUp(reason), "should be {ending:?}");
            if reason == GiveUpReason::Restarted {
                for attempt in self.attempts_of(id) {
                    self.end_attempt(attempt, None, None, None, None);
                }
            }
        } else if let Some((kind, hint)) = call.failed {
            let least = self.check_after_failure(id, kind, hint);
            match least {
                Err(expected) => ensure!(expected.contains(&reason), "should be {expected:?}"),
                Ok((_, most)) => {
                    let late = !self.has_time(&call, self.now + most);
                    ensure!(late && reason == GiveUpReason::Deadline, "should be tried again");
                }
            }
        } else {
            ensure!(call.attempts > 0, "it was never tried");
            match reason {
                GiveUpReason::Deadline => {
                    let due = matches!(call.doing, Doing::BackingOff { until } if until <= self.now)
                        || matches!(call.doing, Doing::Turn { .. } | Doing::Connection { .. });
                    let short = due && !self.has_time(&call, self.now);
                    ensure!(call.deadline <= self.now || short, "there is time");
                }
                GiveUpReason::PeerRemoved => ensure!(call.doomed, "the peer is there"),
                GiveUpReason::Refused(reason) => {
                    self.check_refusal(id, reason, step)?;
                }
                other => return Err(format!("nothing says {other:?}")),
            }
        }
        *self.calls.give_ups.entry(name_of(&reason)).or_default() += 1;
        if reason == GiveUpReason::BudgetExhausted {
            self.calls.refused_by_budget += 1;
        }
        self.end_call(id)
    }

    /// The shortest and the longest delay before the next attempt, or why there is none.
    fn check_after_failure(
        &self,
        id: CallId,
        kind: CallFailure,
        retry_after: Option<RetryAfter>,
    ) -> Result<(Duration, Duration), Vec<GiveUpReason>> {
        let call = &self.calls.calls[&id];
        let profile = self.call_profile(call);
        if !profile.retry_on.contains(&kind) {
            return Err(vec![GiveUpReason::NotRetryable]);
        }
        if call.attempts >= profile.max_attempts {
            return Err(vec![GiveUpReason::TooManyAttempts]);
        }
        let hint = match retry_after {
            Some(RetryAfter::Never) => return Err(vec![GiveUpReason::ServerSaidNo]),
            Some(RetryAfter::After(hint)) => hint,
            None => Duration::ZERO,
        };
        if hint > profile.max_retry_after {
            return Err(vec![GiveUpReason::ServerSaidNo]);
        }
        let (least, most) = self.delay_bounds(call);
        let (least, most) = (least.max(hint), most.max(hint + hint / 10));
        if !self.has_time(call, self.now + least) {
            return Err(vec![GiveUpReason::Deadline]);
        }
        if !self.calls.gates[&call.breaker].can_pay(&self.gate_config(call.breaker)) {
            let mut reasons = vec![GiveUpReason::BudgetExhausted];
            // The delay drawn decides which it is.
            if !self.has_time(call, self.now + most) {
                reasons.push(GiveUpReason::Deadline);
            }
            return Err(reasons);
        }
        Ok((least, most))
    }

    fn delay_bounds(&self, call: &Call) -> (Duration, Duration) {
        let policy = self.call_policy(call);
        let failed = call.attempts.saturating_sub(1);
        (policy.bounds(failed, call.previous.0).0, policy.bounds(failed, call.previous.1).1)
    }

    /// Whether a gate may refuse it so, and after how long it would not.
    fn check_refusal(
        &self,
        id: CallId,
        reason: RejectReason,
        step: &Step,
    ) -> Result<Option<Duration>, String> {
        let (now, call) = (self.now, self.call(id)?);
        if !call.void.is_empty() {
            ensure!(call.void.contains(&reason), "the reasons are {:?}", call.void);
            return Ok(None);
        }
        ensure!(call.failed.is_none(), "it has failed");
        let gates = &self.calls.gates[&call.breaker];
        let config = self.gate_config(call.breaker);
        let breaker = &self.breakers[&call.breaker];
        let elsewhere = gates.line.iter().take_while(|waiting| **waiting != id).count();
        let token_at = gates.token_at(&config, elsewhere + 1, now);
        match reason {
            RejectReason::Deadline => {
                ensure!(!self.has_time(call, now), "there is time");
                Ok(None)
            }
            RejectReason::NotConnected => {
                let peer = call.peer.ok_or("it goes to no peer")?;
                ensure!(self.conn_of(peer).is_none(), "the peer is connected");
                let profile = self.call_profile(call);
                let record = &self.peers[&peer];
                let at = record.retry_at.filter(|at| *at > now);
                let at = at.or_else(|| self.opens_at(record));
                let idle = !record.wanted || record.failed;
                let until = call.deadline.min(now + profile.max_wait);
                let asked = matches!(step.event, Event::Call { call, .. } if call == id);
                let connects = profile.not_connected == NotConnected::Connect
                    && asked
                    && !record.endpoints.is_empty();
                let hopeless = if idle { !connects } else { at.is_some_and(|at| at >= until) };
                let hopeless = hopeless && !self.profile(record).inbound;
                let rejects = profile.not_connected == NotConnected::Reject;
                ensure!(rejects || hopeless, "it could wait");
                // A peer that stands in line already has no moment to name.
                let told = match step
                    .actions
                    .iter()
                    .find(|action| matches!(action, Action::Reject { call, .. } if *call == id))
                {
                    Some(Action::Reject { retry_after, .. }) => *retry_after,
                    _ => None,
                };
                let exact = at.map(|at| at.since(now));
                ensure!(told.is_none() || told == exact, "the peer is dialed at {at:?}");
                // Nor has one whose backoff ends just now and who goes on in this very step.
                let known = asked && record.backing_off && record.retry_at != Some(now) && !idle;
                ensure!(!known || told == exact, "the peer is dialed at {at:?}");
                Ok(told)
            }
            RejectReason::BulkheadFull => {
                let most = config.bulkhead.max_waiting as usize;
                let full = gates.line.len() >= most && !self.has_slot(call.breaker);
                ensure!(full, "there is room");
                Ok(None)
            }
            RejectReason::RateLimited => {
                let longest = config.bulkhead.max_wait.map_or(Time::MAX, |wait| now + wait);
                let waits = config.bulkhead.max_waiting > 0;
                let until = if waits { call.deadline.min(longest) } else { now };
                let full = gates.line.len() >= config.bulkhead.max_waiting as usize
                    && self.has_slot(call.breaker);
                ensure!(token_at > until || full, "a token comes at {token_at}");
                self.check_no_wait(call, Some(token_at))?;
                Ok(Some(token_at.since(now)))
            }
            RejectReason::WaitedTooLong => {
                let (Doing::Connection { until, .. } | Doing::Turn { until }) = call.doing else {
                    return Err("it does not wait".into());
                };
                ensure!(until <= now, "it may wait until {until}");
                Ok(None)
            }
            RejectReason::Throttled => {
                ensure!(config.throttle.is_some(), "there is no throttle");
                Ok(None)
            }
            RejectReason::RampingUp => {
                let ramp_for = self.breaker_profile(breaker).breaker.ramp_for;
                let end = breaker.ramp_from.zip(ramp_for).map(|(from, span)| from + span);
                let end = end.filter(|end| *end > now && breaker.state == State::Closed);
                let end = end.ok_or("it does not ramp up")?;
                ensure!(!breaker.watch_only, "it only watches");
                self.check_no_wait(call, Some(end))?;
                Ok(Some(end.since(now)))
            }
            RejectReason::BreakerOpen => {
                ensure!(!self.has_room(call.breaker), "the breaker is {:?}", breaker.state);
                if breaker.state == State::HalfOpen {
                    self.check_no_wait(call, Some(now))?;
                }
                let State::Open { until } = breaker.state else { return Ok(None) };
                let end = Some(until).filter(|until| *until > now);
                self.check_no_wait(call, end)?;
                Ok(end.map(|end| end.since(now)))
            }
            RejectReason::PeerRemoved => {
                ensure!(call.doomed && call.attempts == 0, "has another name for that");
                Ok(None)
            }
            other => Err(format!("nothing says {other:?}")),
        }
    }

    /// A retry that time may help waits for that while it has time.
    fn check_no_wait(&self, call: &Call, from: Option<Time>) -> Verdict {
        let Some(from) = from.filter(|_| call.attempts > 0) else { return Ok(()) };
        let longest = self.delay_bounds(call).1.max(SHORTEST_WAIT);
        ensure!(from + longest >= call.deadline, "it could wait from {from}");
        Ok(())
    }

    pub(crate) fn take_wait(&mut self, id: CallId, on: WaitsFor, until: Option<Time>) -> Verdict {
        let (now, call) = (self.now, self.call(id)?.clone());
        ensure!(call.void.is_empty() && !call.doomed, "it should be refused");
        ensure!(call.ending.is_none() && call.failed.is_none(), "it should end");
        ensure!(call.doing != Doing::Running, "it runs");
        if let Doing::BackingOff { until } = call.doing {
            ensure!(until <= now, "not before {until}");
        }
        let config = self.gate_config(call.breaker);
        if let Doing::Turn { .. } = call.doing {
            let first = self.calls.gates[&call.breaker].line.first();
            ensure!(first == Some(&id), "{first:?} is the first in line");
            self.gates_mut(call.breaker).line.remove(0);
        }
        if on == WaitsFor::Turn {
            ensure!(self.is_reachable(&call), "its peer is not connected");
            if let Doing::Connection { .. } = call.doing {
                self.check_first_waiter(id)?;
            }
        }
        let doing = match on {
            WaitsFor::Connection => {
                let profile = self.call_profile(&call);
                ensure!(call.peer.is_some() && !self.is_reachable(&call), "its peer is connected");
                ensure!(profile.not_connected != NotConnected::Reject, "it does not wait");
                let expected = call.deadline.min(now + profile.max_wait);
                ensure!(until == bounded(expected), "until {expected}");
                self.calls.places += 1;
                Doing::Connection { until: expected, place: self.calls.places }
            }
            WaitsFor::Turn => {
                let longest = config.bulkhead.max_wait.map_or(Time::MAX, |wait| now + wait);
                let expected = call.deadline.min(longest);
                ensure!(until == bounded(expected), "until {expected}");
                let free = self.has_slot(call.breaker) && self.has_token(call.breaker);
                let gates = &self.calls.gates[&call.breaker];
                ensure!(!free || !gates.line.is_empty(), "it is its turn");
                let most = config.bulkhead.max_waiting as usize;
                ensure!(gates.line.len() < most, "{} wait already", gates.line.len());
                let turn_at = gates.token_at(&config, gates.line.len() + 1, now);
                ensure!(turn_at <= expected, "its token comes at {turn_at}");
                ensure!(self.has_room(call.breaker), "the breaker admits nothing");
                self.gates_mut(call.breaker).line.push(id);
                Doing::Turn { until: expected }
            }
            WaitsFor::Breaker | WaitsFor::Backoff => {
                ensure!(call.attempts > 0, "nothing was tried");
                let breaker = &self.breakers[&call.breaker];
                let ramp_for = self.breaker_profile(breaker).breaker.ramp_for;
                let from = match (on, breaker.state) {
                    (WaitsFor::Backoff, _) => {
                        let gates = &self.calls.gates[&call.breaker];
                        gates.token_at(&config, gates.line.len() + 1, now)
                    }
                    (_, State::Open { until }) => until,
                    (_, State::HalfOpen) => now,
                    _ => {
                        let ramp = breaker.ramp_from.zip(ramp_for);
                        ramp.map(|(from, span)| from + span).ok_or("the breaker has no end")?
                    }
                };
                let until = until.ok_or("for ever")?;
                ensure!(until >= from, "not before {from}");
                let (least, most) = self.delay_bounds(&call);
                let bounds = least.max(SHORTEST_WAIT)..=most.max(SHORTEST_WAIT);
                let drawn = until.since(from);
                ensure!(bounds.contains(&drawn), "not within {least:?} and {most:?}");
                ensure!(until < call.deadline, "the deadline comes first");
                self.call_mut(id).previous = (least.min(drawn), drawn);
                Doing::BackingOff { until }
            }
            other => return Err(format!("nobody waits for {other:?}")),
        };
        self.call_mut(id).doing = doing;
        Ok(())
    }

    pub(crate) fn take_retry(&mut self, id: CallId, failure: CallFailure, at: Time) -> Verdict {
        let call = self.call(id)?.clone();
        ensure!(call.ending.is_none(), "should be {:?}", call.ending);
        let (kind, hint) = call.failed.ok_or("nothing failed")?;
        ensure!(failure == kind, "it failed by {kind:?}");
        let (least, most) = self
            .check_after_failure(id, kind, hint)
            .map_err(|reasons| format!("should be given up: {reasons:?}"))?;
        let delay = at.since(self.now);
        ensure!((least..=most).contains(&delay), "not within {least:?} and {most:?}");
        ensure!(self.has_time(&call, at), "no time is left then");
        let config = self.gate_config(call.breaker);
        self.gates_mut(call.breaker).pay(&config);
        self.calls.retries += 1;
        let (drawn_least, drawn_most) = self.delay_bounds(&call);
        let asked = match hint {
            Some(RetryAfter::After(hint)) => hint + hint / 10,
            Some(RetryAfter::Never) | None => Duration::ZERO,
        };
        // A longer hint hides what was drawn.
        let drawn =
            if delay > asked { (delay, delay) } else { (drawn_least, delay.min(drawn_most)) };
        let record = self.call_mut(id);
        (record.failed, record.paid, record.previous) = (None, true, drawn);
        record.doing = Doing::BackingOff { until: at };
        record.hedge_at = None;
        Ok(())
    }

    /// When the first of a waiting peer's breakers is half-open, if all of them are open.
    fn opens_at(&self, peer: &Peer) -> Option<Time> {
        let opens_at = |endpoint: &Endpoint| match self.breakers[&endpoint.breaker].state {
            State::Open { until } if until > self.now => Some(until),
            _ => None,
        };
        let all: Option<Vec<Time>> = peer.endpoints.iter().map(opens_at).collect();
        all?.into_iter().min().filter(|_| peer.wanted && !peer.failed)
    }

    /// Whether a call wants that peer connected which nobody else wants.
    pub(crate) fn is_wanted_by_a_call(&self, peer: PeerId) -> bool {
        self.calls.calls.values().any(|call| {
            let known = call.void.is_empty() && call.peer == Some(peer);
            known && self.call_profile(call).not_connected == NotConnected::Connect
        })
    }
}

// What must be true after each step.
impl Model {
    pub(crate) fn settle_calls(
        &mut self,
        judged: Time,
        promised: Time,
        manager: &Manager,
    ) -> Verdict {
        let next = manager.next_deadline();
        let mut counts = CallCounts::default();
        let mut lapsed = 0;
        let ids: Vec<CallId> = self.calls.calls.keys().copied().collect();
        for id in ids {
            let call = self.calls.calls[&id].clone();
            ensure!(call.ending.is_none(), "{id} should end: {:?}", call.ending);
            ensure!(call.failed.is_none(), "{id} has failed, and nothing followed");
            ensure!(!call.doomed, "{id} has lost its peer, and lives");
            ensure!(call.deadline > promised, "{id} has missed its deadline, {}", call.deadline);
            let until = match call.doing {
                Doing::Asked => return Err(format!("{id} was not answered")),
                Doing::Connection { until, .. } => {
                    counts.connection += 1;
                    ensure!(!self.is_reachable(&call), "{id} waits for a peer that is up");
                    until
                }
                Doing::Turn { until } => {
                    counts.turn += 1;
                    until
                }
                Doing::BackingOff { until } => {
                    counts.backing_off += 1;
                    until
                }
                Doing::Running => {
                    counts.running += 1;
                    ensure!(!self.attempts_of(id).is_empty(), "{id} runs without an attempt");
                    Time::MAX
                }
            };
            ensure!(until > promised, "{id} has waited since {until}");
            if call.hedge_at.is_some_and(|at| at <= promised) {
                ensure!(call.hedge_blocked, "{id} should have been hedged at {:?}", call.hedge_at);
                lapsed += u64::from(call.hedge_too_dear);
                self.call_mut(id).hedge_at = None;
            }
            let why = manager.why_call(id).ok_or_else(|| format!("{id} is unknown"))?;
            let told = (why.since, why.deadline, why.attempts, why.last);
            let known = (call.since, bounded(call.deadline), call.attempts, call.last);
            ensure!(told == known, "{id} is {known:?}: {why:?}");
        }
        for (id, attempt) in &self.calls.attempts {
            let due = attempt.times_out.max(self.hold_until);
            ensure!(self.down || due > judged, "{id} has timed out at {due}");
        }
        self.check_gates(manager, next)?;
        let stats = manager.stats();
        ensure!(stats.calls_now == counts, "{:?}, counted {counts:?}", stats.calls_now);
        let by_budget = self.calls.refused_by_budget..=self.calls.refused_by_budget + lapsed;
        ensure!(by_budget.contains(&stats.budget_refusals), "{by_budget:?} refused by the budget");
        self.calls.refused_by_budget = stats.budget_refusals;
        let told = [
            u64::from(stats.attempts_in_flight),
            stats.calls,
            stats.calls_done,
            stats.attempts,
            stats.attempts_cancelled,
            stats.retries,
            stats.hedges,
            stats.call_time.count(),
        ];
        let calls = &self.calls;
        let counted = [
            calls.attempts.len() as u64,
            calls.asked,
            calls.done,
            calls.begun,
            calls.cancelled,
            calls.retries,
            calls.hedges,
            calls.done,
        ];
        ensure!(told == counted, "stats {told:?}, counted {counted:?}");
        ensure!(agree(&stats.rejections, &calls.rejections), "counted {:?}", calls.rejections);
        ensure!(agree(&stats.give_ups, &calls.give_ups), "counted {:?}", calls.give_ups);
        ensure!(agree(&stats.attempt_failures, &calls.failures), "counted {:?}", calls.failures);
        Ok(())
    }

    fn check_gates(&self, manager: &Manager, next: Option<Time>) -> Verdict {
        for &breaker in self.breakers.keys() {
            let view = manager.gates(breaker).ok_or("no gates")?;
            let config = self.gate_config(breaker);
            let fresh = Gates::new(&config, self.now);
            let gates = self.calls.gates.get(&breaker).unwrap_or(&fresh);
            let told = (view.calls as usize, view.running as usize, view.waiting as usize);
            let counted = (self.calls_through(breaker), self.running(breaker), gates.line.len());
            ensure!(told == counted, "{breaker}: {view:?}, counted {counted:?}");
            ensure!(
                view.limit as usize == gates.limit(&config),
                "{breaker}: limit {}",
                gates.limit
            );
            let budget = config.budget.map(|budget| gates.budget / reserve(&budget).1);
            ensure!(view.budget.map(u128::from) == budget, "{breaker}: {view:?}, {budget:?}");
            if gates.line.is_empty() {
                continue;
            }
            ensure!(self.has_room(breaker), "{breaker} is shut and {:?} wait", gates.line);
            if self.has_slot(breaker) {
                let turn_at = gates.token_at(&config, 1, self.now);
                ensure!(turn_at > self.now, "{breaker}: {:?} were forgotten", gates.line);
                ensure!(
                    next.is_some_and(|next| next <= turn_at),
                    "{breaker}: sleeps past {turn_at}"
                );
            }
        }
        Ok(())
    }

    /// Whether the peer became wanted because a call is to be made.
    pub(crate) fn connect_for_a_call(&mut self, peer: PeerId) {
        let now = self.online();
        if self.is_wanted_by_a_call(peer) {
            let record = self.peers.get_mut(&peer).unwrap();
            if !record.wanted && !record.endpoints.is_empty() && record.conn.is_none()
                || record.failed
            {
                let fresh = record.told != PeerState::Connected;
                record.want(now, fresh);
            }
        }
    }

    pub(crate) fn take_call_notice(&mut self, notice: &Notice) -> Verdict {
        match *notice {
            Notice::CallWaits { call, on, until } => self.take_wait(call, on, until),
            Notice::CallRetries { call, failure, at } => self.take_retry(call, failure, at),
            ref other => Err(format!("the model does not know {other:?}")),
        }
    }
}
