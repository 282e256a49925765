//! Make before break: a second connection, dialed while the first one lasts, that takes its place.
//!
//! ```text
//! Due ──at──▶ Waiting ──admitted──▶ Dialing ──connected──▶ the old one is closed
//!  ▲             │ its breaker shut      │ failed
//!  └─────────────┴────── later ──────────┘
//! ```
//!
//! Three stories lead here: a preferred endpoint is well again (failback), the server is about to
//! leave (drain), the connection is silent and may be dead (race). Until the new one is up nothing
//! of the peer changes: it stays connected, and a failure of the new dial is no failure of the peer.

use core::time::Duration;

use crate::action::{Ignored, MoveCause, Notice};
use crate::breaker::{Outcome, State};
use crate::config::Priority;
use crate::draw::{Draws, Purpose, uniform};
use crate::event::{DialCause, LossCause};
use crate::id::ConnId;
use crate::manager::Manager;
use crate::manager::endpoints::EndpointRecord;
use crate::manager::out::Out;
use crate::manager::peers::NONE;
use crate::manager::replacements::{Replacement, Stage};
use crate::time::{Time, nanos};

/// For how long after its end a server that drained is avoided.
///
/// Source: twice the 30 s that Kubernetes gives a pod to end.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
/// Within what time a server that does not say when it leaves is left.
const UNTOLD_GRACE: Duration = Duration::from_secs(30);
/// The longest notice that is believed: what a remote party says must not keep its endpoint from
/// use, nor hold a replacement back, for ever.
///
/// Source: the longest that AWS's load balancers let a target drain (`deregistration_delay`, 3,600 s).
const LONGEST_NOTICE: Duration = Duration::from_secs(3_600);
/// The longest interval between two failbacks that failed, and for how long an endpoint is avoided
/// to which a failback did not last.
const LONGEST: Duration = Duration::from_secs(600);
/// A failback lasted if its connection did this many times as long as a stable one.
const LASTED: u32 = 6;

/// # Why a connection is to be replaced
impl Manager {
    /// The server will leave: another connection is dialed at a random moment before, so that those
    /// who were told together do not come together, and to another endpoint if there is one.
    pub(crate) fn on_go_away(
        &mut self,
        id: ConnId,
        leaves_in: Option<Duration>,
        reconnect_in: Duration,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.find_conn(id, out) else { return };
        if !self.conns.slab[slot].is_up() {
            return self.ignore(Ignored::NotUp(id), out);
        }
        self.stats.go_aways += 1;
        self.heard(slot, out);
        let (peer, endpoint) = (self.conns.slab[slot].peer, self.conns.slab[slot].endpoint);
        let leaves_in = leaves_in.map(|notice| notice.min(LONGEST_NOTICE));
        let leaves_at = leaves_in.map(|notice| self.now + notice);
        let breaker = self.endpoints.slab.get(endpoint).map(|endpoint| endpoint.breaker);
        let longest = breaker.map_or(Duration::MAX, |breaker| {
            let profile = self.breakers.slab[breaker].profile;
            self.policies.breaker(profile).normal.max_retry_after()
        });
        let earliest = self.now + reconnect_in.min(longest);
        if breaker.is_some() {
            let past = self.endpoints.pasts.get_mut(endpoint);
            past.avoid_until = leaves_at.unwrap_or(self.now) + AVOIDED_FOR;
            past.not_before = past.not_before.max(earliest);
        }
        let record = &self.peers.slab[peer];
        let (id, wanted) = (record.id, record.wanted && record.first_endpoint != NONE);
        let latest = leaves_in.map_or(earliest + UNTOLD_GRACE, |notice| {
            let dial_timeout = self.policies.peer(record.profile).profile.dial_timeout;
            // In time for the dial, but not all at once where the notice is short.
            self.now + notice.saturating_sub(dial_timeout).max(notice / 2)
        });
        let replace_at = wanted.then(|| {
            let random = self.draw_replacement(peer);
            earliest.plus_nanos(uniform(random, 0, nanos(latest.since(earliest))))
        });
        if let Some(at) = replace_at {
            self.plan_replacement(peer, MoveCause::Drained, at);
        }
        // What was planned already may come sooner, or be under way.
        let replace_at = replace_at.map(|_| self.replacement_due_at(peer).unwrap_or(self.now));
        let conn = self.conns.id(slot);
        out.notice(Notice::Draining { peer: id, conn, leaves_at, replace_at });
    }

    /// A peer that came up on another endpoint than the one it prefers will try that one again.
    pub(crate) fn plan_failback(&mut self, peer: u32) {
        let record = &self.peers.slab[peer];
        let failback_after = self.policies.peer(record.profile).profile.failback_after;
        let Some(interval) = failback_after else { return };
        let current = self.endpoint_of(peer);
        let known = self.endpoints.slab.get(current).is_some();
        if !record.wanted
            || self.has_replacement(peer)
            || !known
            || current == record.first_endpoint
        {
            return;
        }
        let at = self.now + self.draw_failback(peer, interval, 0);
        self.plan_replacement(peer, MoveCause::FailedBack, at);
    }

    /// The connection is silent: whichever of it and another one speaks first is kept. `false` if
    /// there is no other to be had.
    pub(crate) fn race(&mut self, peer: u32) -> bool {
        let record = &self.peers.slab[peer];
        let can = record.wanted && record.first_endpoint != NONE;
        if can {
            self.plan_replacement(peer, MoveCause::Raced, self.now);
        }
        can
    }

    /// The silent connection spoke first. If its server is about to leave, that is still so.
    pub(crate) fn end_race(&mut self, peer: u32, out: &mut Out<'_>) {
        let Some((_, Replacement { cause: MoveCause::Raced, drain_at, .. })) =
            self.replacement_of(peer)
        else {
            return;
        };
        self.drop_replacement(peer, out);
        match drain_at {
            Some(at) => self.plan_replacement(peer, MoveCause::Drained, at.max(self.now)),
            None => self.plan_failback(peer),
        }
    }

    /// From now on the peer's connection is to be replaced at that moment, for this reason; one that
    /// is on its way already serves as well, and whoever is told twice does not begin anew.
    fn plan_replacement(&mut self, peer: u32, cause: MoveCause, at: Time) {
        let known = self.replacement_of(peer);
        let drained = (cause == MoveCause::Drained).then_some(at);
        let drain_at = known.and_then(|(_, it)| it.drain_at).into_iter().chain(drained).min();
        if let Some((slot, _)) = known {
            self.replacements[slot].drain_at = drain_at;
        }
        match known {
            Some((slot, Replacement { stage: Stage::Dialing { .. }, .. })) => {
                self.replacements[slot].cause = cause;
            }
            Some((slot, Replacement { cause: known, stage, .. })) if known == cause => {
                if let Stage::Due { at: planned } = stage {
                    self.replacements[slot].stage = Stage::Due { at: at.min(planned) };
                    self.arm_peer(peer);
                }
            }
            planned => {
                let slot = planned.map(|(slot, _)| slot);
                self.stand_aside(peer);
                let stage = Stage::Due { at };
                let planned = Replacement { peer, cause, stage, failures: 0, drain_at };
                match slot {
                    Some(slot) => self.replacements[slot] = planned,
                    None => {
                        let slot = self.replacements.insert(planned);
                        self.peers.successions.get_mut(peer).replacement = slot;
                    }
                }
                self.arm_peer(peer);
            }
        }
    }
}

/// # From stage to stage
impl Manager {
    /// The peer's timer has fired while it is up.
    pub(crate) fn on_replacement_due(&mut self, peer: u32, out: &mut Out<'_>) {
        match self.replacement_of(peer) {
            Some((_, Replacement { stage: Stage::Due { at }, .. })) if at <= self.now => {
                self.seek_replacement(peer, out);
            }
            _ => self.arm_peer(peer),
        }
    }

    /// Gives the replacement its place in line, or a later moment if no endpoint will do now.
    pub(crate) fn seek_replacement(&mut self, peer: u32, out: &mut Out<'_>) {
        self.stand_aside(peer);
        let Some((slot, Replacement { cause, .. })) = self.replacement_of(peer) else { return };
        let current = self.endpoint_of(peer);
        let endpoint = match cause {
            MoveCause::FailedBack
                if [NONE, self.peers.slab[peer].first_endpoint].contains(&current) =>
            {
                // It is where it wants to be, or at an address that is no longer its own.
                return self.drop_replacement(peer, out);
            }
            MoveCause::FailedBack => self.preferred_to(peer, current),
            MoveCause::Drained | MoveCause::Raced => self.other_than(peer, current),
        };
        match endpoint {
            Some(endpoint) => {
                self.replacements[slot].stage = Stage::Waiting { endpoint, since: self.now };
                self.line_up(endpoint);
            }
            None => {
                // A failback waits for a server to be well; the others' wait grows.
                self.put_off(peer, cause != MoveCause::FailedBack);
                self.lose_race(peer, cause, out);
            }
        }
    }

    /// An endpoint that the peer prefers to its current one and whose server has been well for a
    /// while, or is to be probed: if all had failed over, nobody else would.
    fn preferred_to(&self, peer: u32, current: u32) -> Option<u32> {
        let record = &self.peers.slab[peer];
        let stable_after = self.policies.peer(record.profile).profile.stable_after;
        let mut preferred =
            self.endpoints.chain(record.first_endpoint).take_while(|(slot, _)| *slot != current);
        let (slot, _) = preferred.find(|(slot, endpoint)| {
            let guard = &self.breakers.slab[endpoint.breaker];
            let well = match guard.breaker.state() {
                State::Closed => guard.breaker.closed_since().is_some_and(|since| {
                    // From the beginning on, or again and for long enough.
                    guard.breaker.trips() == 0 || self.now.since(since) >= stable_after
                }),
                State::HalfOpen => self.wants_probe(endpoint.breaker),
                State::Disabled => true,
                State::Open { .. } | State::ForcedOpen => false,
            };
            well && !self.is_shut_out(*slot) && !self.is_avoided(*slot, endpoint)
        })?;
        Some(slot)
    }

    /// The endpoint to go to from the current one: another that admits and is not avoided, or any
    /// that admits (behind a balancer the same address is another server). A dial may be a probe.
    fn other_than(&self, peer: u32, current: u32) -> Option<u32> {
        let first = self.peers.slab[peer].first_endpoint;
        let open = self.endpoints.chain(first).filter(|(slot, endpoint)| {
            let breaker = endpoint.breaker;
            !self.is_shut_out(*slot) && (self.admits(breaker) || self.wants_probe(breaker))
        });
        let rank = |(slot, endpoint): &(u32, &EndpointRecord)| {
            (self.is_avoided(*slot, endpoint), *slot == current)
        };
        Some(open.min_by_key(rank)?.0)
    }

    /// The endpoint's breaker admitted the dial of a replacement.
    pub(crate) fn replacement_dials(&mut self, peer: u32, conn: u32) {
        self.stand_aside(peer);
        if let Some((slot, _)) = self.replacement_of(peer) {
            self.replacements[slot].stage = Stage::Dialing { conn };
        }
        self.arm_peer(peer);
    }

    /// The new connection is up: it takes the old one's place, which is closed.
    pub(crate) fn take_over(&mut self, peer: u32, conn: u32, out: &mut Out<'_>) {
        let Some((slot, Replacement { cause, .. })) = self.replacement_of(peer) else { return };
        let (old, from) = (self.conn_of(peer), self.endpoint_of(peer));
        self.forget_replacement(peer, slot);
        let to = self.conns.slab[conn].endpoint;
        if let Some(old) = old {
            self.close(old, out);
            self.drop_conn(old);
        }
        self.conns.slab[conn].failed_back = cause == MoveCause::FailedBack;
        self.peers.slab[peer].last_endpoint = to;
        *self.stats.moves.of(cause) += 1;
        let peer = self.peers.slab[peer].id;
        let from = self.endpoints.slab.get(from).map(|from| from.id);
        let to = self.endpoints.slab[to].id;
        out.notice(Notice::Moved { peer, from, to, cause });
    }

    /// The dial of a replacement failed: that counts behind the breaker and at the endpoint, and not
    /// against the peer, which has a connection.
    pub(crate) fn fail_replacement(
        &mut self,
        slot: u32,
        cause: DialCause,
        retry_after: Option<Duration>,
        out: &mut Out<'_>,
    ) {
        let endpoint = self.conns.slab[slot].endpoint;
        let (outcome, _) = self.outcome_of(endpoint, cause, out);
        let Some(conn) = self.end_dial(slot, outcome, retry_after, out) else { return };
        if cause.is_ours() {
            return self.put_off(conn.peer, true);
        }
        self.remember_failure(conn.endpoint, retry_after);
        let Some((_, Replacement { cause: known, .. })) = self.replacement_of(conn.peer) else {
            return;
        };
        self.put_off(conn.peer, true);
        self.lose_race(conn.peer, known, out);
    }

    /// There was no other connection to be had: one that was silent has had its chance.
    fn lose_race(&mut self, peer: u32, cause: MoveCause, out: &mut Out<'_>) {
        if let (MoveCause::Raced, Some(silent)) = (cause, self.conn_of(peer)) {
            self.close(silent, out);
            self.lose(silent, LossCause::Suspected, out);
        }
    }

    /// The dial of a replacement ends as if it had not been.
    pub(crate) fn void_replacement(&mut self, slot: u32, out: &mut Out<'_>) {
        if let Some(conn) = self.end_dial(slot, Outcome::Dropped, None, out) {
            self.put_off(conn.peer, false);
        }
    }

    /// Tries again later, ever later while it fails.
    fn put_off(&mut self, peer: u32, failed: bool) {
        let Some((slot, Replacement { cause, failures, .. })) = self.replacement_of(peer) else {
            return;
        };
        let profile = self.peers.slab[peer].profile;
        let policy = self.policies.peer(profile);
        let (failback_after, backoff) = (policy.profile.failback_after, policy.backoff);
        let failures = failures.saturating_add(u32::from(failed));
        let wait = match (cause, failback_after) {
            (MoveCause::FailedBack, Some(interval)) => self.draw_failback(peer, interval, failures),
            _ => {
                let random = self.draw_replacement(peer);
                backoff.jittered(failures.saturating_sub(1), Duration::ZERO, random)
            }
        };
        // A moment later at the earliest, or a step would never end.
        let at = (self.now + wait).max(self.now.plus_nanos(1));
        let replacement = &mut self.replacements[slot];
        (replacement.stage, replacement.failures) = (Stage::Due { at }, failures);
        self.arm_peer(peer);
    }
}

/// # Its end
impl Manager {
    /// There will be no replacement; its dial, if there is one, is cancelled.
    pub(crate) fn drop_replacement(&mut self, peer: u32, out: &mut Out<'_>) {
        self.stand_aside(peer);
        let Some((slot, Replacement { stage, .. })) = self.replacement_of(peer) else { return };
        self.forget_replacement(peer, slot);
        if let Stage::Dialing { conn } = stage {
            self.cancel_dial(conn, out);
        }
        self.arm_peer(peer);
    }

    /// The connection was lost: the dial that was to replace it is the peer's own now, if there is
    /// one; `None` if there is none, and none is planned any more.
    pub(crate) fn inherit(&mut self, peer: u32) -> Option<u32> {
        self.stand_aside(peer);
        let (slot, Replacement { stage, .. }) = self.replacement_of(peer)?;
        self.forget_replacement(peer, slot);
        let Stage::Dialing { conn } = stage else { return None };
        let endpoint = self.conns.slab[conn].endpoint;
        self.endpoints.slab[endpoint].tried = true;
        self.peers.slab[peer].last_endpoint = endpoint;
        Some(conn)
    }

    /// The endpoint that the replacement is dialed at goes: it is due again at once.
    pub(crate) fn cancel_replacing_dial(&mut self, peer: u32, out: &mut Out<'_>) {
        if let Some((slot, Replacement { stage: Stage::Dialing { conn }, .. })) =
            self.replacement_of(peer)
        {
            self.replacements[slot].stage = Stage::Due { at: self.now };
            self.cancel_dial(conn, out);
        }
    }

    /// Leaves the line that the replacement waits in, if it does; it is due at once then.
    pub(crate) fn stand_aside(&mut self, peer: u32) {
        if let Some((slot, Replacement { stage: Stage::Waiting { endpoint, .. }, .. })) =
            self.replacement_of(peer)
        {
            self.leave_line(endpoint);
            self.replacements[slot].stage = Stage::Due { at: self.now };
            self.refresh_ring(self.endpoints.slab[endpoint].breaker);
        }
    }

    fn forget_replacement(&mut self, peer: u32, slot: u32) {
        self.replacements.remove(slot);
        self.peers.successions.get_mut(peer).replacement = NONE;
    }

    /// A connection that a failback had made was lost: if it did not last, the endpoint is left
    /// alone for a while, or the peer would go to and fro.
    pub(crate) fn judge_failback(&mut self, endpoint: u32, profile: u16, lasted: Duration) {
        let stable_after = self.policies.peer(profile).profile.stable_after;
        if lasted < stable_after.saturating_mul(LASTED)
            && self.endpoints.slab.get(endpoint).is_some()
        {
            self.endpoints.pasts.get_mut(endpoint).avoid_until = self.now + LONGEST;
        }
    }
}

/// # What is asked of it
impl Manager {
    /// The replacement of the peer's connection, by its slot.
    pub(crate) fn replacement_of(&self, peer: u32) -> Option<(u32, Replacement)> {
        let slot = self.peers.successions.get(peer).replacement;
        self.replacements.get(slot).map(|replacement| (slot, *replacement))
    }

    #[inline]
    pub(crate) fn has_replacement(&self, peer: u32) -> bool {
        self.peers.successions.get(peer).replacement != NONE
    }

    /// The dial that is to replace the peer's connection.
    pub(crate) fn replacing_dial(&self, peer: u32) -> Option<u32> {
        match self.replacement_of(peer)?.1.stage {
            Stage::Dialing { conn } => Some(conn),
            Stage::Due { .. } | Stage::Waiting { .. } => None,
        }
    }

    /// Whether the dial is to replace a connection of its peer's.
    pub(crate) fn replaces(&self, conn: u32) -> bool {
        self.replacing_dial(self.conns.slab[conn].peer) == Some(conn)
    }

    /// Who goes before it in line: a failback is nothing urgent.
    pub(crate) fn class_of_replacement(&self, replacement: &Replacement) -> Priority {
        let profile = self.peers.slab[replacement.peer].profile;
        match replacement.cause {
            MoveCause::FailedBack => Priority::Background,
            MoveCause::Drained | MoveCause::Raced => self.policies.peer(profile).profile.priority,
        }
    }

    /// When the replacement is due, if its peer's timer is to move it on.
    pub(crate) fn replacement_due_at(&self, peer: u32) -> Option<Time> {
        match self.replacement_of(peer)?.1.stage {
            Stage::Due { at } => Some(at),
            Stage::Waiting { .. } | Stage::Dialing { .. } => None,
        }
    }

    /// The endpoint of the peer's connection.
    fn endpoint_of(&self, peer: u32) -> u32 {
        self.conn_of(peer).map_or(NONE, |conn| self.conns.slab[conn].endpoint)
    }

    fn draw_replacement(&mut self, peer: u32) -> u64 {
        let draws = Draws::new(self.policies.config.seed, self.peers.slab[peer].id.0);
        let succession = self.peers.successions.get_mut(peer);
        let n = succession.replacement_draws;
        succession.replacement_draws = n.wrapping_add(1);
        draws.draw(Purpose::Replacement, u64::from(n))
    }

    /// Half to one and a half times the interval, which doubles with each failure.
    fn draw_failback(&mut self, peer: u32, interval: Duration, failures: u32) -> Duration {
        let longest = LONGEST.max(interval);
        let grown = interval.saturating_mul(1 << failures.min(16)).min(longest);
        let random = self.draw_replacement(peer);
        let half = nanos(grown) / 2;
        Duration::from_nanos(half.saturating_add(uniform(random, 0, nanos(grown))))
    }
}
