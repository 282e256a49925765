//! After a failure: backing off, and the first retry after the loss of a stable connection.

use core::time::Duration;

use crate::action::{Notice, PeerCause};
use crate::config::FirstRetry;
use crate::draw::{Draws, Purpose, uniform};
use crate::manager::Manager;
use crate::manager::out::Out;
use crate::manager::peers::{Phase, Trouble};
use crate::time::{Time, nanos};

impl Manager {
    /// All endpoints that admit have failed once: back off, or give up.
    pub(crate) fn end_round(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        let first = self.peers.slab[slot].first_endpoint;
        self.endpoints.each(first, |_, endpoint| endpoint.tried = false);
        let failures = self.failures(slot);
        let delay = self.draw_backoff(slot, failures);
        let peer = &self.peers.slab[slot];
        // What befalls every peer alike gives none of them up.
        let common = !peer.slow_lane
            && matches!(cause, PeerCause::DialFailed(cause) if cause.is_peer_specific());
        let trouble = self.peers.troubles.get_mut(slot);
        let excused = if failures == 0 { 0 } else { trouble.excused };
        trouble.excused = excused.saturating_add(u32::from(common));
        trouble.failures = failures.saturating_add(1);
        trouble.epoch = self.network.epoch;
        trouble.previous_delay = delay;
        let own = trouble.failures.saturating_sub(trouble.excused);
        let max_attempts = self.policies.peer(peer.profile).profile.max_attempts;
        if !common && max_attempts.is_some_and(|max| own >= max) {
            return self.give_up(slot, PeerCause::TooManyAttempts, out);
        }
        // The jitter comes on top of the servers' hints: everybody was given the same one.
        let asked = self
            .endpoints
            .chain(first)
            .map(|(slot, _)| self.endpoints.pasts.get(slot).not_before)
            .min();
        let at = self.now.max(asked.unwrap_or(Time::ZERO)) + delay;
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
        backoff.jittered(failures, self.peers.troubles.get(slot).previous_delay, random)
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
        let used = self.endpoints.slab.get(peer.last_endpoint);
        let used = used.or_else(|| self.endpoints.slab.get(peer.first_endpoint));
        let breaker = used.map(|endpoint| endpoint.breaker);
        let lost_together = breaker.map_or(Duration::ZERO, |breaker| {
            let breaker = &self.breakers.slab[breaker];
            let policy = self.policies.breaker(breaker.profile);
            let lost = u64::from(breaker.losses.count(self.now));
            policy.time_for(lost * u64::from(self.policies.config.pacer.fleet_size))
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
        let trouble = self.peers.troubles.get(slot);
        if trouble.epoch == self.network.epoch { trouble.failures } else { 0 }
    }

    pub(crate) fn forget_failures(&mut self, slot: u32) {
        if let Some(trouble) = self.peers.troubles.if_any(slot) {
            *trouble = Trouble { own_failures: trouble.own_failures, ..Trouble::NONE };
        }
        let peer = &mut self.peers.slab[slot];
        peer.slow_lane = false;
        peer.timed_out = false;
        let first = peer.first_endpoint;
        self.endpoints.each(first, |_, endpoint| endpoint.tried = false);
    }
}
