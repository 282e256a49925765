//! What two states of one shape have in common.

use alloc::collections::BTreeMap;

use crate::config::Policies;
use crate::id::{AttemptId, BreakerId, CallId, ConnId, PeerId, PingId};
use crate::manager::calls::CallPhase;
use crate::manager::conns::ConnPhase;
use crate::manager::peers::Phase;
use crate::manager::refusals::Refusals;
use crate::manager::replacements::Stage;
use crate::manager::snapshot::Snapshot;
use crate::time::{Time, nanos};

/// When what is over was, and what never was.
const OVER: Time = Time::from_nanos(1 << 63);

impl Snapshot {
    /// The snapshot with everything taken out that two states of one shape may differ in.
    pub(crate) fn into_shape(mut self, policies: &Policies) -> Self {
        let now = self.now;
        let offline = self.network.clone().into_records().0.offline_ns(now);
        // What lies ahead keeps its distance; what lies behind keeps its age, under the top bit.
        let relative = |time: &mut Time| {
            *time = match *time {
                Time::MAX => Time::MAX,
                time if time >= now => Time::from_nanos(nanos(time.since(now))),
                time => Time::from_nanos(nanos(now.since(time)) | (1 << 63)),
            };
        };
        // Whether it will be over matters, and not for how long it has been.
        let until = |time: &mut Time| match *time {
            at if at < now => *time = OVER,
            _ => relative(time),
        };
        // What never was is no older tomorrow.
        let since = |time: &mut Time| match *time {
            Time::ZERO => *time = OVER,
            _ => relative(time),
        };
        let buckets =
            [(&mut self.pacer, &policies.pacer_rate), (&mut self.pinger, &policies.ping_rate)];
        for (bucket, rate) in buckets {
            if let (Some(bucket), Some(rate)) = (bucket, rate) {
                bucket.shape(rate, now);
            }
        }
        self.run = 0;
        self.config.seed = 0;
        if !self.network.down && !self.network.paused {
            self.network.still_at = OVER;
        } else {
            relative(&mut self.network.still_at);
        }
        relative(&mut self.now);
        until(&mut self.hold_until);
        for time in [&mut self.woke_at, &mut self.network.renewed_at, &mut self.network.up_at] {
            since(time);
        }
        self.self_health = self.self_health.shape(relative, now);
        let (epoch, process) = (self.network.epoch, self.process);
        self.network.epoch = 0;
        self.network.offline = 0;
        self.process = 0;
        self.stats = None;
        self.generations.clear();
        self.pings.clear();
        self.attempt_generations.clear();
        self.next_sequence = 0;
        self.timers.sort_unstable_by_key(|timer| (timer.deadline, timer.sequence));
        for (rank, timer) in (0..).zip(&mut self.timers) {
            relative(&mut timer.deadline);
            timer.sequence = rank;
        }
        // What no setting asks for is left out as well.
        let profiles = &self.config.peer_profiles;
        let gives_up = profiles.iter().any(|profile| profile.give_up_after.is_some());
        let resumes = profiles.iter().any(|profile| profile.session_ttl.is_some());
        let remembered = profiles.iter().map(|profile| profile.stable_after).max();
        let remembered = remembered.unwrap_or_default();
        let mut places = BTreeMap::new();
        for (slot, entry) in (0..).zip(&mut self.peers.slots) {
            let Some(peer) = entry else { continue };
            places.insert(peer.id, PeerId(slot));
            peer.id = PeerId(slot);
            if peer.epoch != epoch {
                (peer.failures, peer.excused) = (0, 0);
            }
            peer.epoch = 0;
            peer.backoff_draws = 0;
            peer.retry_draws = 0;
            peer.replacement_draws = 0;
            match peer.phase {
                Phase::Waiting => relative(&mut peer.since),
                _ => peer.since = OVER,
            }
            relative(&mut peer.without_since);
            peer.offline_before = offline.saturating_sub(peer.offline_before);
            if !gives_up {
                (peer.without_since, peer.offline_before) = (OVER, 0);
            }
            since(&mut peer.connected_at);
            until(&mut peer.session_until);
            if let Phase::BackingOff { until } = &mut peer.phase {
                relative(until);
            }
        }
        for entry in self.replacements.slots.iter_mut().flatten() {
            if let Some(at) = &mut entry.drain_at {
                relative(at);
            }
            match &mut entry.stage {
                Stage::Due { at: time } | Stage::Waiting { since: time, .. } => relative(time),
                Stage::Dialing { .. } => {}
            }
        }
        for entry in self.endpoints.slots.iter_mut().flatten() {
            entry.ticket = 0;
            until(&mut entry.resume_by);
            until(&mut entry.avoid_until);
            until(&mut entry.not_before);
            match entry.failures {
                0 => entry.failed_at = OVER,
                _ => relative(&mut entry.failed_at),
            }
        }
        for (slot, entry) in (0..).zip(&mut self.conns.slots) {
            let Some(conn) = entry else { continue };
            conn.id = ConnId::new(slot, 0);
            conn.pings_before = 0;
            conn.process = u32::from(conn.process != process);
            conn.ping = conn.ping.map(|_| PingId::new(slot, 0));
            since(&mut conn.last_heard);
            relative(&mut conn.since);
            conn.probe.shape(relative);
            conn.last_beat.as_mut().map(relative);
            conn.trust.since_mut().map(relative);
            since(&mut conn.excused);
            if let ConnPhase::Dialing { deadline, permit, .. } = &mut conn.phase {
                relative(deadline);
                let endpoint = conn.endpoint.and_then(|slot| self.endpoints.get(slot));
                let breaker = endpoint.and_then(|endpoint| self.breakers.get(endpoint.breaker));
                if let Some(breaker) = breaker {
                    *permit = permit.shape(&breaker.breaker);
                }
            }
        }
        for (slot, entry) in (0..).zip(&mut self.calls.slots) {
            let Some(call) = entry else { continue };
            call.id = CallId(slot);
            // Whether its peer is still the one that it was asked for.
            let place = call.peer.map(|slot| PeerId(slot.into()));
            let known = place.is_some() && places.get(&call.peer_id).copied() == place;
            call.peer_id = PeerId(known.into());
            call.draws = 0;
            call.process = u32::from(call.process != process);
            relative(&mut call.since);
            relative(&mut call.deadline);
            until(&mut call.not_before);
            match &mut call.phase {
                CallPhase::Turn { ticket, until } => {
                    *ticket = 0;
                    relative(until);
                }
                CallPhase::Connection { until }
                | CallPhase::BackingOff { until }
                | CallPhase::Running { hedge_at: until } => relative(until),
                CallPhase::Asked => {}
            }
        }
        for (slot, entry) in (0..).zip(&mut self.attempts.slots) {
            let Some(attempt) = entry else { continue };
            attempt.id = AttemptId::new(slot, 0);
            relative(&mut attempt.since);
            let call = self.calls.get(attempt.call);
            let breaker = call.and_then(|call| self.breakers.get(call.breaker));
            if let Some(breaker) = breaker {
                attempt.permit = attempt.permit.shape(&breaker.breaker);
            }
        }
        for (slot, entry) in (0..).zip(&mut self.breakers.slots) {
            let Some(breaker) = entry else { continue };
            breaker.id = BreakerId(slot);
            until(&mut breaker.crowd.believed_until);
            breaker.losses.shape(now);
            if !resumes {
                breaker.dial_ns = 0;
            }
            let Refusals { first, second, .. } = &mut breaker.refusals;
            for peer in [first, second] {
                // One that was removed is like no other.
                *peer = peer.map(|id| places.get(&id).copied().unwrap_or(PeerId(u64::MAX)));
            }
            breaker.tickets = 0;
            let policy = policies.breaker(breaker.profile);
            breaker.breaker = breaker.breaker.clone().shape(&policy.normal, remembered, now);
            if let (Some(bucket), Some(rate)) = (&mut breaker.bucket, &policy.rate) {
                bucket.shape(rate, now);
            }
            if let Some(window) = &mut breaker.window {
                window.shape(now);
            }
            if let Some(gates) = &mut breaker.gates {
                gates.shape(&policy.gates, now);
                match (&gates.throttle, &mut gates.refused_at) {
                    (Some(_), Some(at)) => relative(at),
                    (_, at) => *at = None,
                }
            }
        }
        self
    }
}
