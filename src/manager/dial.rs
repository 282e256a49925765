//! The way to a connection: standing in line, dialing, failing over, backing off, giving up.

use core::time::Duration;

use crate::action::{Action, Ignored, Notice, PeerCause};
use crate::breaker::{Admission, Outcome};
use crate::bucket::Acquire;
use crate::config::FirstRetry;
use crate::container::timers::TimerKind;
use crate::draw::{Draws, Purpose, uniform};
use crate::event::DialCause;
use crate::id::ConnId;
use crate::manager::Manager;
use crate::manager::conns::{Conn, ConnPhase};
use crate::manager::endpoints::{EndpointRecord, queue};
use crate::manager::out::Out;
use crate::manager::peers::{BACKING_OFF, FAILED, NONE, Phase};
use crate::probe::Probe;
use crate::time::{Time, nanos};

/// An endpoint's failures are forgotten when the last one is older than this.
const MEMORY: Duration = Duration::from_secs(600);

/// # Phases
impl Manager {
    /// Puts the peer into a phase, with the timer that this phase has, and tells what changed.
    pub(crate) fn enter(&mut self, slot: u32, phase: Phase, cause: PeerCause, out: &mut Out<'_>) {
        self.leave(slot);
        let peer = &mut self.peers.slab[slot];
        peer.phase = phase;
        peer.since = self.now;
        let to = peer.state();
        let from = core::mem::replace(&mut peer.told, to);
        let peer = peer.id;
        match phase {
            Phase::BackingOff { .. } => self.peers.lists.push_back(BACKING_OFF, slot),
            Phase::Failed => self.peers.lists.push_back(FAILED, slot),
            Phase::Idle | Phase::Waiting | Phase::Dialing { .. } | Phase::Up { .. } => {}
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
            if self.endpoints.queues.unlink(endpoint) {
                self.refresh_ring(breaker);
            }
            endpoint = next;
        }
    }

    fn arm_peer(&mut self, slot: u32) {
        let give_up_at = self.give_up_at(slot);
        let deadline = match self.peers.slab[slot].phase {
            Phase::Idle | Phase::Failed | Phase::Up { .. } => return,
            Phase::BackingOff { until } => until.min(give_up_at),
            Phase::Waiting | Phase::Dialing { .. } if give_up_at == Time::MAX => return,
            Phase::Waiting | Phase::Dialing { .. } => give_up_at,
        };
        self.timers.arm(TimerKind::Peer, slot, deadline);
    }

    fn give_up_at(&self, slot: u32) -> Time {
        let peer = &self.peers.slab[slot];
        let profile = &self.policies.peer(peer.profile).profile;
        profile.give_up_after.map_or(Time::MAX, |span| peer.without_since + span)
    }

    pub(crate) fn on_peer_timer(&mut self, slot: u32, out: &mut Out<'_>) {
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
    fn give_up(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        self.stats.given_up += 1;
        self.enter(slot, Phase::Failed, cause, out);
    }
}

/// # Standing in line
impl Manager {
    /// Gives the peer its place in line: behind the breaker of the endpoint it prefers among those
    /// that admit, or behind all of its breakers while none does (the first to admit it wins).
    pub(crate) fn enqueue(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        let first = self.peers.slab[slot].first_endpoint;
        let choice = self.choose(first);
        if choice.is_none() && self.endpoints.chain(first).any(|(_, endpoint)| endpoint.tried) {
            // The endpoint that was left to try has shut meanwhile: that ends the round.
            return self.end_round(slot, None, cause, out);
        }
        self.enter(slot, Phase::Waiting, cause, out);
        match choice {
            Some(endpoint) => self.line_up(endpoint),
            None => {
                let mut endpoint = first;
                while endpoint != NONE {
                    let next = self.endpoints.slab[endpoint].next;
                    self.line_up(endpoint);
                    endpoint = next;
                }
            }
        }
    }

    fn line_up(&mut self, slot: u32) {
        let endpoint = &mut self.endpoints.slab[slot];
        let breaker = &mut self.breakers.slab[endpoint.breaker];
        endpoint.ticket = breaker.tickets;
        breaker.tickets += 1;
        let breaker = endpoint.breaker;
        self.endpoints.queues.push_back(queue(breaker), slot);
        self.refresh_ring(breaker);
    }

    /// The endpoint to dial next: the first that was not yet tried in this round and whose breaker
    /// admits; one that failed a short while ago comes after those that did not.
    pub(crate) fn choose(&self, first: u32) -> Option<u32> {
        let mut second_choice = None;
        for (slot, endpoint) in self.endpoints.chain(first) {
            if !self.is_open_to(endpoint) {
                continue;
            }
            if !self.is_avoided(endpoint) {
                return Some(slot);
            }
            second_choice = second_choice.or(Some(slot));
        }
        second_choice
    }

    /// Whether the endpoint is left to try in this round.
    fn is_open_to(&self, endpoint: &EndpointRecord) -> bool {
        !endpoint.tried && self.admits(endpoint.breaker)
    }

    fn is_avoided(&self, endpoint: &EndpointRecord) -> bool {
        let Some(failures) = endpoint.failures.checked_sub(1) else { return false };
        let peer = &self.peers.slab[endpoint.peer];
        let delay = self.policies.peer(peer.profile).backoff.delay(failures);
        self.now < endpoint.failed_at + delay
    }

    /// Finds another place for a peer whose breaker opened while it has other endpoints.
    pub(crate) fn place_again(&mut self, endpoint: u32, out: &mut Out<'_>) {
        let peer = self.endpoints.slab[endpoint].peer;
        self.enqueue(peer, PeerCause::Asked, out);
    }
}

/// # Dialing
impl Manager {
    /// Dials the endpoint if its breaker admits it; the breaker is asked last.
    pub(crate) fn dial(&mut self, slot: u32, out: &mut Out<'_>) {
        let now = self.now;
        let EndpointRecord { id: to, breaker, peer, .. } = self.endpoints.slab[slot];
        let timeout = self.dial_timeout(slot);
        let record = &mut self.breakers.slab[breaker];
        let profile = self.policies.breaker(record.profile);
        let admission = record.breaker.admit_within(&profile.normal, timeout, now);
        let Admission::Admit(permit) = admission else { return };
        let own = record.bucket.as_mut().zip(profile.rate.as_ref());
        let global = self.pacer.bucket.as_mut().zip(self.policies.pacer_rate.as_ref());
        for (bucket, rate) in own.into_iter().chain(global) {
            // It was ready a moment ago; but at the end of time all that is to come is now.
            let _: Acquire = bucket.acquire(rate, now);
        }
        record.in_flight += 1;
        self.endpoints.slab[slot].tried = true;
        let resume = self.can_resume(peer);
        let deadline = now + timeout;
        let conn = self.conns.insert(|id, process| Conn {
            id,
            last_heard: now,
            last_beat: None,
            peer,
            endpoint: slot,
            process,
            heard: false,
            attentive: false,
            phase: ConnPhase::Dialing { permit, resume, deadline },
            since: now,
            suspected_at: None,
            rhythm: None,
            probe: Probe::default(),
            ping: None,
        });
        self.timers.arm(TimerKind::Conn, conn, deadline);
        self.stats.dials_in_flight += 1;
        self.stats.dials += 1;
        self.breaker_moved(breaker, None, out);
        let from = core::mem::replace(&mut self.peers.slab[peer].last_endpoint, slot);
        self.enter(peer, Phase::Dialing { conn }, PeerCause::Asked, out);
        let id = self.peers.slab[peer].id;
        if let Some(from) = self.endpoints.slab.get(from).map(|from| from.id)
            && from != to
        {
            out.notice(Notice::FailedOver { peer: id, from, to });
        }
        let conn = self.conns.slab[conn].id;
        out.push(Action::Dial { conn, peer: id, endpoint: to, resume });
    }

    /// How long the dial about to begin may take. After a timeout as long as the backoff has
    /// become: a fleet must not keep a slow server busy with dials that nobody waits for.
    fn dial_timeout(&self, endpoint: u32) -> Duration {
        let slot = self.endpoints.slab[endpoint].peer;
        let peer = &self.peers.slab[slot];
        let policy = self.policies.peer(peer.profile);
        let mut others = self.endpoints.chain(peer.first_endpoint);
        if others.any(|(other, record)| other != endpoint && self.is_open_to(record)) {
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
        match self.conns.slab[slot].phase {
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
        out.push(Action::CancelDial { conn: conn.id });
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
        if self.network.down {
            self.peers.slab[self.conns.slab[slot].peer].coming_back = true;
            return self.void_dial(slot, told, out);
        }
        let endpoint = self.conns.slab[slot].endpoint;
        let outcome = self.outcome_of(endpoint, cause);
        let breaker = self.breakers.slab[self.endpoints.slab[endpoint].breaker].profile;
        let longest = self.policies.breaker(breaker).normal.max_retry_after();
        let retry_after = retry_after.map(|hint| hint.min(longest));
        let Some(conn) = self.end_dial(slot, outcome, retry_after, out) else { return };
        let peer = &mut self.peers.slab[conn.peer];
        peer.coming_back = true;
        if cause.is_ours() {
            let delay = self.draw_backoff(conn.peer, 0);
            self.untry(conn.endpoint);
            return self.back_off_until(conn.peer, self.now + delay, told, out);
        }
        peer.timed_out = cause == DialCause::Timeout;
        peer.slow_lane = cause.is_peer_specific();
        let (profile, first) = (peer.profile, peer.first_endpoint);
        let endpoint = &mut self.endpoints.slab[conn.endpoint];
        let forgotten = self.now.since(endpoint.failed_at) > MEMORY;
        endpoint.failures = if forgotten { 1 } else { endpoint.failures.saturating_add(1) };
        endpoint.failed_at = self.now;
        if self.choose(first).is_some() {
            let at = self.now + self.policies.peer(profile).profile.attempt_delay;
            self.back_off_until(conn.peer, at, told, out);
        } else {
            self.end_round(conn.peer, retry_after, told, out);
        }
    }

    /// Ends a dial as if it had not been: nothing counts, and the peer stands in line again.
    pub(crate) fn void_dial(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        let Some(conn) = self.end_dial(slot, Outcome::Dropped, None, out) else { return };
        self.untry(conn.endpoint);
        self.enqueue(conn.peer, cause, out);
    }

    /// Cancels the dial; the peer's phase is for the caller to set.
    pub(crate) fn cancel_dial(&mut self, slot: u32, out: &mut Out<'_>) {
        let id = self.conns.slab[slot].id;
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
    fn end_dial(
        &mut self,
        slot: u32,
        outcome: Outcome,
        retry_after: Option<Duration>,
        out: &mut Out<'_>,
    ) -> Option<Conn> {
        self.timers.disarm(TimerKind::Conn, slot);
        let conn = self.conns.remove(slot)?;
        if let ConnPhase::Dialing { permit, .. } = conn.phase {
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

/// # Backing off
impl Manager {
    /// All endpoints that admit have failed once: back off, or give up.
    pub(crate) fn end_round(
        &mut self,
        slot: u32,
        retry_after: Option<Duration>,
        cause: PeerCause,
        out: &mut Out<'_>,
    ) {
        let first = self.peers.slab[slot].first_endpoint;
        self.endpoints.each(first, |_, endpoint| endpoint.tried = false);
        let failures = self.failures(slot);
        let delay = self.draw_backoff(slot, failures);
        let peer = &mut self.peers.slab[slot];
        peer.failures = failures.saturating_add(1);
        peer.epoch = self.network.epoch;
        peer.previous_delay = delay;
        let (failures, profile) = (peer.failures, peer.profile);
        if self.policies.peer(profile).profile.max_attempts.is_some_and(|max| failures >= max) {
            return self.give_up(slot, PeerCause::TooManyAttempts, out);
        }
        // The jitter comes on top of the server's hint: everybody was given the same one.
        let at = self.now + retry_after.unwrap_or_default() + delay;
        self.back_off_until(slot, at, cause, out);
    }

    pub(crate) fn back_off_until(
        &mut self,
        slot: u32,
        until: Time,
        cause: PeerCause,
        out: &mut Out<'_>,
    ) {
        if until <= self.now {
            return self.enqueue(slot, cause, out);
        }
        self.enter(slot, Phase::BackingOff { until }, cause, out);
        let (peer, failures) = (self.peers.slab[slot].id, self.failures(slot));
        out.notice(Notice::RetryAt { peer, at: until, failures });
    }

    /// Draws the delay after `failures` earlier failures.
    pub(crate) fn draw_backoff(&mut self, slot: u32, failures: u32) -> Duration {
        let peer = &mut self.peers.slab[slot];
        let draws = Draws::new(self.policies.config.seed, peer.id.0);
        let random = draws.draw(Purpose::Backoff, u64::from(peer.backoff_draws));
        peer.backoff_draws = peer.backoff_draws.wrapping_add(1);
        let policy = self.policies.peer(peer.profile);
        let backoff = if peer.slow_lane { &policy.slow_lane } else { &policy.backoff };
        backoff.jittered(failures, peer.previous_delay, random)
    }

    /// Draws the delay of the first retry after the loss of a stable connection; `None` if the
    /// profile treats it as any other retry.
    pub(crate) fn draw_first_retry(&mut self, slot: u32) -> Option<Duration> {
        let profile = self.peers.slab[slot].profile;
        match self.policies.peer(profile).profile.first_retry {
            FirstRetry::Immediate => Some(Duration::ZERO),
            FirstRetry::Backoff => None,
            FirstRetry::Spread { max } => {
                let spread = self.spread(slot, max);
                let peer = &mut self.peers.slab[slot];
                let draws = Draws::new(self.policies.config.seed, peer.id.0);
                let random = draws.draw(Purpose::FirstRetry, u64::from(peer.retry_draws));
                peer.retry_draws = peer.retry_draws.wrapping_add(1);
                Some(Duration::from_nanos(uniform(random, 0, nanos(spread))))
            }
        }
    }

    /// How far apart the first retries of those lost together are spread.
    fn spread(&self, slot: u32, max: Duration) -> Duration {
        let peer = &self.peers.slab[slot];
        let base = self.policies.peer(peer.profile).backoff.base();
        let breaker = self.endpoints.slab.get(peer.first_endpoint).map(|first| first.breaker);
        let lost_together = breaker.map_or(Duration::ZERO, |breaker| {
            let breaker = &self.breakers.slab[breaker];
            let policy = self.policies.breaker(breaker.profile);
            policy.time_for(breaker.losses.count(self.now))
        });
        let spread = lost_together.max(base).min(max);
        if self.can_resume(slot) {
            // The session must not run out while its peer waits for its turn.
            spread.min(peer.session_until.since(self.now) / 4)
        } else {
            spread
        }
    }

    /// Failed rounds since the last stable connection; none after the network came back.
    pub(crate) fn failures(&self, slot: u32) -> u32 {
        let peer = &self.peers.slab[slot];
        if peer.epoch == self.network.epoch { peer.failures } else { 0 }
    }

    pub(crate) fn forget_failures(&mut self, slot: u32) {
        let peer = &mut self.peers.slab[slot];
        peer.failures = 0;
        peer.epoch = self.network.epoch;
        peer.previous_delay = Duration::ZERO;
        peer.slow_lane = false;
        peer.timed_out = false;
        let first = peer.first_endpoint;
        self.endpoints.each(first, |_, endpoint| endpoint.tried = false);
    }

    /// The connection of that id, or a notice that it is gone.
    #[inline]
    pub(crate) fn find_conn(&mut self, id: ConnId, out: &mut Out<'_>) -> Option<u32> {
        let found = self.conns.find(id);
        if found.is_none() {
            self.stats.stale += 1;
            out.notice(Notice::Ignored(Ignored::StaleConn(id)));
        }
        found
    }

    pub(crate) fn ignore(&mut self, reason: Ignored, out: &mut Out<'_>) {
        self.stats.ignored += 1;
        out.notice(Notice::Ignored(reason));
    }
}
