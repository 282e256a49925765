//! What a snapshot must be before anything in it is followed.

use alloc::format;
use alloc::string::String;

use crate::config::{DetectorPolicy, Policies};
use crate::container::timers::TimerKind;
use crate::id::MAX_GENERATION;
use crate::manager::calls::CallPhase;
use crate::manager::conns::ConnPhase;
use crate::manager::crowd::Trust;
use crate::manager::peers::Phase;
use crate::manager::replacements::Stage;
use crate::manager::snapshot::{RestoreError, Snapshot, damaged};
use crate::phi::Phi;
use crate::probe::Probe;
use crate::stats::Stats;
use crate::time::Time;

/// More numbers than anybody can use up, with room to go on.
const MAX_NUMBER: u64 = u64::MAX / 2;

impl Snapshot {
    /// Checks everything that the tables take for granted: slots that are followed are in use,
    /// profiles exist, leaves are in states that they can be in.
    pub(super) fn check_places(&self) -> Result<(), RestoreError> {
        let policies = Policies::new(&self.config).map_err(RestoreError::Config)?;
        let pacer = match (&self.pacer, &policies.pacer_rate) {
            (None, None) => true,
            (Some(bucket), Some(rate)) => bucket.is_valid(rate),
            _ => false,
        };
        held(pacer, &|| "pacer".into(), "does not fit pacer.rate")?;
        let pinger = match (&self.pinger, &policies.ping_rate) {
            (None, None) => true,
            (Some(bucket), Some(rate)) => bucket.is_valid(rate),
            _ => false,
        };
        held(pinger, &|| "pinger".into(), "does not fit ping_rate")?;
        let doubts = match &policies.self_health {
            Some(policy) => {
                self.self_health.is_valid(policy)
                    && self.self_health.score(policy, self.now) <= self.told_self_health
            }
            None => self.self_health.score_is_zero() && self.told_self_health == 0,
        };
        held(doubts, &|| "self_health".into(), "impossible state")?;
        held(self.load <= 1_000_000, &|| "load".into(), "more than 1,000,000")?;
        held(self.next_sequence <= MAX_NUMBER, &|| "next_sequence".into(), "no room to go on")?;
        let stats = self.stats.as_ref().is_none_or(Stats::is_valid);
        held(stats, &|| "stats".into(), "no room to go on counting")?;
        self.check_breakers(&policies)?;
        self.check_endpoints(&policies)?;
        self.check_replacements()?;
        self.check_peers(&policies)?;
        self.check_conns(&policies)?;
        self.check_calls(&policies)?;
        self.check_lists()?;
        self.check_call_lists()?;
        self.check_timers()
    }

    fn check_breakers(&self, policies: &Policies) -> Result<(), RestoreError> {
        for (slot, breaker) in self.breakers.iter() {
            let at = |field: &'static str| move || format!("breakers[{slot}].{field}");
            let Some(policy) = policies.breakers.get(usize::from(breaker.profile)) else {
                return Err(damaged(at("profile")(), "no such profile"));
            };
            // Not under the relaxed one: the two differ in thresholds, which no state depends on.
            held(breaker.breaker.is_valid(&policy.normal), &at("breaker"), "impossible state")?;
            let window = match (&breaker.window, &policy.window) {
                (None, None) => true,
                (Some(window), Some(limit)) => window.is_valid(limit),
                _ => false,
            };
            held(window, &at("window"), "does not fit the profile's window")?;
            let bucket = match (&breaker.bucket, &policy.rate) {
                (None, None) => true,
                (Some(bucket), Some(rate)) => bucket.is_valid(rate),
                _ => false,
            };
            held(bucket, &at("bucket"), "does not fit the profile's rate")?;
            let gates = breaker.gates.as_ref().is_none_or(|gates| gates.is_valid(&policy.gates));
            held(gates, &at("gates"), "impossible state")?;
            let guards = breaker.calls == 0 || breaker.gates.is_some();
            held(guards, &at("gates"), "missing, though there are calls")?;
            held(breaker.refusals.is_valid(), &at("refusals"), "impossible state")?;
            held(breaker.losses.is_valid(), &at("losses"), "impossible state")?;
            held(breaker.tickets <= MAX_NUMBER, &at("tickets"), "no room to go on")?;
        }
        Ok(())
    }

    fn check_endpoints(&self, policies: &Policies) -> Result<(), RestoreError> {
        for (slot, endpoint) in self.endpoints.iter() {
            let at = |field: &'static str| move || format!("endpoints[{slot}].{field}");
            let Some(peer) = self.peers.get(endpoint.peer) else {
                return Err(damaged(at("peer")(), "not there"));
            };
            held(self.breakers.get(endpoint.breaker).is_some(), &at("breaker"), "not there")?;
            let next = endpoint.next.is_none_or(|next| self.endpoints.get(next).is_some());
            held(next, &at("next"), "not there")?;
            let rhythm = fits(policies, peer.profile, endpoint.rhythm.as_deref());
            held(rhythm, &at("rhythm"), "impossible state")?;
        }
        Ok(())
    }

    fn check_replacements(&self) -> Result<(), RestoreError> {
        for (slot, replacement) in self.replacements.iter() {
            let at = |field: &'static str| move || format!("replacements[{slot}].{field}");
            held(self.peers.get(replacement.peer).is_some(), &at("peer"), "not there")?;
            let there = match replacement.stage {
                Stage::Due { .. } => true,
                Stage::Waiting { endpoint, .. } => self.endpoints.get(endpoint).is_some(),
                Stage::Dialing { conn } => self.conns.get(conn).is_some(),
            };
            held(there, &at("stage"), "not there")?;
        }
        for (slot, peer) in self.peers.iter() {
            let at = |field: &'static str| move || format!("peers[{slot}].{field}");
            let there = peer.replacement.is_none_or(|slot| self.replacements.get(slot).is_some());
            held(there, &at("replacement"), "not there")?;
        }
        Ok(())
    }

    fn check_peers(&self, policies: &Policies) -> Result<(), RestoreError> {
        for (slot, peer) in self.peers.iter() {
            let at = |field: &'static str| move || format!("peers[{slot}].{field}");
            let known = usize::from(peer.profile) < policies.peers.len();
            held(known, &at("profile"), "no such profile")?;
            let conn = match peer.phase {
                Phase::Dialing { conn } | Phase::Up { conn } => self.conns.get(conn).is_some(),
                _ => true,
            };
            held(conn, &at("phase.conn"), "not there")?;
            let there =
                |slot: Option<u32>| slot.is_none_or(|slot| self.endpoints.get(slot).is_some());
            held(there(peer.first_endpoint), &at("first_endpoint"), "not there")?;
            held(there(peer.last_endpoint), &at("last_endpoint"), "not there")?;
            let loss = peer.measured.is_none_or(|(_, loss)| loss <= 1_000_000);
            held(loss, &at("measured"), "a loss of more than 1,000,000")?;
        }
        Ok(())
    }

    fn check_conns(&self, policies: &Policies) -> Result<(), RestoreError> {
        for (slot, conn) in self.conns.iter() {
            let at = |field: &'static str| move || format!("conns[{slot}].{field}");
            let Some(peer) = self.peers.get(conn.peer) else {
                return Err(damaged(at("peer")(), "not there"));
            };
            let endpoint = conn.endpoint.is_none_or(|slot| self.endpoints.get(slot).is_some());
            held(endpoint, &at("endpoint"), "not there")?;
            let id = usize::try_from(conn.id.slot()).is_ok_and(|own| own == slot)
                && self.generations.get(slot) == Some(&conn.id.generation());
            held(id, &at("id"), "does not name its slot and generation")?;
            if let ConnPhase::Dialing { permit, .. } = conn.phase {
                let endpoint = conn.endpoint.and_then(|slot| self.endpoints.get(slot));
                let breaker = endpoint.and_then(|endpoint| self.breakers.get(endpoint.breaker));
                let given =
                    breaker.is_none_or(|record| permit.generation() <= record.breaker.generation());
                held(given, &at("phase.permit"), "was never given")?;
            }
            let policy = policies.peers.get(usize::from(peer.profile));
            let watch = policy.and_then(|policy| policy.watch);
            let probe = match watch.and_then(|watch| watch.pings) {
                Some(pings) => conn.probe.is_valid(&pings),
                None => conn.probe == Probe::default(),
            };
            let pings = self.pings.get(slot).copied().unwrap_or_default();
            held(probe, &at("probe"), "impossible state")?;
            held(conn.excused <= self.now, &at("excused"), "lies ahead")?;
            let pinged = watch.is_some_and(|watch| watch.pings.is_some());
            let excused = pinged || conn.excused == Time::ZERO;
            held(excused, &at("excused"), "of one that is never pinged")?;
            let rhythm = fits(policies, peer.profile, conn.rhythm.as_deref());
            held(rhythm, &at("rhythm"), "impossible state")?;
            let up = conn.phase == ConnPhase::Up;
            held(up || conn.rhythm.is_none(), &at("rhythm"), "of one that is not up")?;
            held(up || conn.trust == Trust::Full, &at("trust"), "of one that is not up")?;
            let ping = conn.ping.is_none_or(|ping| {
                ping.slot() == conn.id.slot()
                    && (conn.pings_before..pings).contains(&ping.generation())
            });
            held(ping, &at("ping"), "was never sent")?;
            let counted = conn.pings_before <= pings;
            held(counted, &at("pings_before"), "more than the slot had")?;
            let asked = conn.pings_before < pings || conn.probe == Probe::default();
            held(asked, &at("probe"), "of one that was never pinged")?;
        }
        let slots = self.conns.slots.len();
        let counted = self.generations.len() == slots && self.pings.len() == slots;
        held(counted, &|| "generations".into(), "not one for each connection slot")?;
        let bounded = self.generations.iter().all(|&generation| generation <= MAX_GENERATION)
            && self.pings.iter().all(|&pings| pings <= MAX_GENERATION + 1);
        held(bounded, &|| "generations".into(), "past the last one")?;
        Ok(())
    }

    fn check_lists(&self) -> Result<(), RestoreError> {
        let lists = &self.lists;
        for (name, members) in [
            ("backing_off", &lists.backing_off),
            ("woken", &lists.woken),
            ("failed", &lists.failed),
        ] {
            let known = members.iter().all(|&peer| self.peers.get(peer).is_some());
            held(known, &|| format!("lists.{name}"), "a peer that is not there")?;
        }
        for (name, members) in [
            ("live", &lists.live),
            ("orphans", &lists.orphans),
            ("unchecked", &lists.unchecked),
            ("asking", &lists.asking),
        ] {
            let known = members.iter().all(|&conn| self.conns.get(conn).is_some());
            held(known, &|| format!("lists.{name}"), "a connection that is not there")?;
        }
        let known = lists.displaced.iter().all(|&slot| self.endpoints.get(slot).is_some());
        held(known, &|| "lists.displaced".into(), "an endpoint that is not there")?;
        for (name, members) in [("ring", &lists.ring), ("held_back", &lists.held_back)] {
            let known = members.iter().all(|&slot| self.breakers.get(slot).is_some());
            held(known, &|| format!("lists.{name}"), "a breaker that is not there")?;
        }
        let queues = lists.queues.len() == self.breakers.slots.len();
        held(queues, &|| "lists.queues".into(), "not one for each breaker slot")?;
        for (slot, members) in lists.queues.iter().enumerate() {
            let used =
                members.is_empty() || self.breakers.slots.get(slot).is_some_and(Option::is_some);
            let known = members.iter().all(|&slot| self.endpoints.get(slot).is_some());
            let place = || format!("lists.queues[{slot}]");
            held(used && known, &place, "an endpoint or a breaker that is not there")?;
        }
        Ok(())
    }

    fn check_calls(&self, policies: &Policies) -> Result<(), RestoreError> {
        for (slot, call) in self.calls.iter() {
            let at = |field: &'static str| move || format!("calls[{slot}].{field}");
            let Some(policy) = policies.calls.get(usize::from(call.profile)) else {
                return Err(damaged(at("profile")(), "no such profile"));
            };
            let guarded = self.breakers.get(call.breaker);
            let guarded = guarded.is_some_and(|breaker| breaker.gates.is_some());
            held(guarded, &at("breaker"), "not there")?;
            let first = call.first_attempt.is_none_or(|slot| self.attempts.get(slot).is_some());
            held(first, &at("first_attempt"), "not there")?;
            let decided = call.phase != CallPhase::Asked;
            held(decided, &at("phase"), "no call rests in it")?;
            let counted = call.attempts <= policy.profile.max_attempts
                && call.hedges <= call.attempts.saturating_sub(1);
            held(counted, &at("attempts"), "more than the profile allows")?;
        }
        for (slot, attempt) in self.attempts.iter() {
            let at = |field: &'static str| move || format!("attempts[{slot}].{field}");
            held(self.calls.get(attempt.call).is_some(), &at("call"), "not there")?;
            let next = attempt.next.is_none_or(|next| self.attempts.get(next).is_some());
            held(next, &at("next"), "not there")?;
            let id = usize::try_from(attempt.id.slot()).is_ok_and(|own| own == slot)
                && self.attempt_generations.get(slot) == Some(&attempt.id.generation());
            held(id, &at("id"), "does not name its slot and generation")?;
            let call = self.calls.get(attempt.call);
            let breaker = call.and_then(|call| self.breakers.get(call.breaker));
            let given = breaker
                .is_some_and(|record| attempt.permit.generation() <= record.breaker.generation());
            held(given, &at("permit"), "was never given")?;
        }
        let counted = self.attempt_generations.len() == self.attempts.slots.len();
        held(counted, &|| "attempt_generations".into(), "not one for each attempt slot")?;
        let bounded = self.attempt_generations.iter().all(|&number| number <= MAX_GENERATION);
        held(bounded, &|| "attempt_generations".into(), "past the last one")
    }

    fn check_call_lists(&self) -> Result<(), RestoreError> {
        let lists = &self.lists;
        let one_list = [
            ("live_calls", &lists.live_calls),
            ("orphan_calls", &lists.orphan_calls),
            ("released", &lists.released),
            ("doomed", &lists.doomed),
        ];
        for (name, members) in one_list {
            let known = members.iter().all(|&call| self.calls.get(call).is_some());
            held(known, &|| format!("lists.{name}"), "a call that is not there")?;
        }
        let known = lists.moving.iter().all(|&slot| self.breakers.get(slot).is_some());
        held(known, &|| "lists.moving".into(), "a breaker that is not there")?;
        for (name, members) in [("waiting", &lists.waiting), ("bound", &lists.bound)] {
            let known = members.iter().all(|&slot| {
                let peer = self.calls.get(slot).and_then(|call| call.peer);
                peer.is_some_and(|peer| self.peers.get(peer).is_some())
            });
            held(known, &|| format!("lists.{name}"), "a call or a peer that is not there")?;
        }
        Ok(())
    }

    fn check_timers(&self) -> Result<(), RestoreError> {
        let mut before = None;
        for (place, timer) in self.timers.iter().enumerate() {
            // Two in one place would fire in an order that nothing tells.
            let later = before.replace(timer).is_none_or(|before| before < timer);
            held(later, &|| format!("timers[{place}]"), "not after the one before it")?;
            let known = match timer.kind {
                TimerKind::Peer => self.peers.get(timer.slot).is_some(),
                TimerKind::Pace | TimerKind::CallPace | TimerKind::Breaker => {
                    self.breakers.get(timer.slot).is_some()
                }
                TimerKind::Call => self.calls.get(timer.slot).is_some(),
                TimerKind::Attempt => self.attempts.get(timer.slot).is_some(),
                TimerKind::Pacer | TimerKind::PingPace => timer.slot == 0,
                TimerKind::Conn => self.conns.get(timer.slot).is_some(),
            };
            held(known, &|| format!("timers[{place}].slot"), "not there")?;
        }
        Ok(())
    }
}

fn held(ok: bool, place: &dyn Fn() -> String, problem: &str) -> Result<(), RestoreError> {
    if ok { Ok(()) } else { Err(damaged(place(), problem)) }
}

/// Whether a detector's memory could be that of a peer with this profile.
fn fits(policies: &Policies, profile: u16, rhythm: Option<&Phi>) -> bool {
    let watch = policies.peers.get(usize::from(profile)).and_then(|policy| policy.watch);
    match (watch.map(|watch| watch.detector), rhythm) {
        (_, None) => true,
        (Some(DetectorPolicy::Phi(policy)), Some(rhythm)) => rhythm.is_valid(&policy),
        _ => false,
    }
}
