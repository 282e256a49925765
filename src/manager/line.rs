//! Standing in line: behind which breaker a peer waits, which endpoint it prefers, who is next.

use core::time::Duration;

use crate::action::PeerCause;
use crate::breaker::State;
use crate::config::Priority;
use crate::manager::Manager;
use crate::manager::endpoints::EndpointRecord;
use crate::manager::out::Out;
use crate::manager::peers::{NONE, Phase};
use crate::manager::replacements::{Replacement, Stage};
use crate::time::Time;

/// How many of those in line are looked at for a probe.
const PROBERS: usize = 8;

/// After how long a wait one counts as a class higher.
const AGED_AFTER: Duration = Duration::from_secs(30);

impl Manager {
    /// Gives the peer its place in line: behind the breaker of the endpoint it prefers among those
    /// that admit, or behind all of its breakers while none does (the first to admit it wins).
    pub(crate) fn enqueue(&mut self, slot: u32, cause: PeerCause, out: &mut Out<'_>) {
        let first = self.peers.slab[slot].first_endpoint;
        if self.network.is_still() {
            // A round ends by what the other side does, and now it can do nothing.
            self.endpoints.each(first, |_, endpoint| endpoint.tried = false);
        }
        let choice = self.choose(first);
        if choice.is_none()
            && self.endpoints.chain(first).any(|(_, endpoint)| endpoint.tried)
            && !self.is_any_left(first)
        {
            // The endpoint that was left to try has shut meanwhile: that ends the round.
            return self.end_round(slot, cause, out);
        }
        self.enter(slot, Phase::Waiting, cause, out);
        match choice {
            Some(endpoint) => {
                if let Some(probed) = self.probed_before(first, endpoint) {
                    self.line_up(probed);
                }
                self.line_up(endpoint);
            }
            None => {
                // Those that this round has tried come last, or it would probe them for ever.
                for tried in [false, true] {
                    let mut endpoint = first;
                    while endpoint != NONE {
                        let EndpointRecord { next, tried: own, .. } = self.endpoints.slab[endpoint];
                        if own == tried {
                            self.line_up(endpoint);
                        }
                        endpoint = next;
                    }
                }
            }
        }
    }

    /// Whether an endpoint is left to try in this round, as a matter of course or as a probe.
    pub(crate) fn is_any_left(&self, first: u32) -> bool {
        self.endpoints.chain(first).any(|(slot, endpoint)| {
            self.is_open_to(slot, endpoint) || self.is_to_be_probed(slot, endpoint)
        })
    }

    /// Whether the endpoint is left to try, and its breaker has room for a probe.
    fn is_to_be_probed(&self, slot: u32, endpoint: &EndpointRecord) -> bool {
        let breaker = endpoint.breaker;
        let probed = !self.admits(breaker) && self.wants_probe(breaker);
        probed && !endpoint.tried && !self.is_shut_out(slot)
    }

    pub(crate) fn line_up(&mut self, slot: u32) {
        let EndpointRecord { peer, breaker, .. } = self.endpoints.slab[slot];
        let record = &mut self.breakers.slab[breaker];
        let ticket = record.tickets;
        record.tickets += 1;
        let session = self.peers.slab[peer].session_until;
        let resume_by = if session > self.now { session } else { Time::ZERO };
        self.endpoints.line_up(slot, self.class_of(slot), ticket, resume_by);
        self.refresh_ring(breaker);
    }

    /// Takes the endpoint out of line; `false` if it was in none.
    pub(crate) fn leave_line(&mut self, slot: u32) -> bool {
        if self.endpoints.resume_by(slot) > Time::ZERO {
            self.endpoints.forget_session(slot, self.class_of(slot));
        }
        self.endpoints.queues.unlink(slot)
    }

    /// Before and after whom the endpoint's dial comes.
    pub(crate) fn class_of(&self, endpoint: u32) -> Priority {
        let peer = self.endpoints.slab[endpoint].peer;
        match self.replacement_of(peer) {
            Some((_, replacement)) => self.class_of_replacement(&replacement),
            None => self.policies.peer(self.peers.slab[peer].profile).profile.priority,
        }
    }

    /// Since when it has waited for its dial.
    fn waits_since(&self, endpoint: u32) -> Time {
        let peer = self.endpoints.slab[endpoint].peer;
        match self.replacement_of(peer) {
            Some((_, Replacement { stage: Stage::Waiting { since, .. }, .. })) => since,
            _ => self.peers.slab[peer].since,
        }
    }

    /// Whether it has waited for so long that it counts as a class higher.
    fn is_aged(&self, endpoint: u32) -> bool {
        self.now.since(self.waits_since(endpoint)) >= AGED_AFTER
    }

    /// The one to dial next behind the breaker: of the highest class, where whoever has waited long
    /// counts as one higher, the one whose session ends first and could still be resumed, or else
    /// whoever came first. Only the heads of lines are compared. Where a head's long wait puts its
    /// class before a higher one, it is the turn of those alone who waited as long: others of the
    /// class would take it again and again while the head stays where it is.
    ///
    /// Probes go to whoever was connected most recently among the first in line: a peer that never
    /// got through says little about the server.
    pub(crate) fn next_in_line(&self, slot: u32) -> Option<u32> {
        let mut classes = self.endpoints.classes(slot);
        let highest = classes.next()?;
        let mut class = highest;
        if let Some(second) = classes.next() {
            let heads = [highest, second].into_iter().chain(classes).filter_map(|class| {
                let head = self.endpoints.first_of(slot, class)?;
                let rank = (class as u8).saturating_sub(u8::from(self.is_aged(head)));
                Some((rank, self.waits_since(head), class))
            });
            (_, _, class) = heads.min()?;
        }
        let is_its_turn = |endpoint: &u32| class == highest || self.is_aged(*endpoint);
        let record = &self.breakers.slab[slot];
        if record.breaker.state() == State::HalfOpen {
            let connected_at =
                |endpoint: u32| self.peers.slab[self.endpoints.slab[endpoint].peer].connected_at;
            let first = self.endpoints.class_line(slot, class).take(PROBERS);
            return first.filter(is_its_turn).reduce(|best, endpoint| {
                if connected_at(endpoint) > connected_at(best) { endpoint } else { best }
            });
        }
        // Who would be too late anyway waits like those without a session. Twice, because those who
        // are just in time are chosen first, and no two dials take the same time.
        let in_time = self.now.plus_nanos(record.dial_ns.saturating_mul(2));
        let session = self.endpoints.first_session(slot, class, in_time);
        session.filter(is_its_turn).or_else(|| self.endpoints.first_of(slot, class))
    }

    /// How many dial before this one that waits, at most, as the line stands now: those who left it
    /// from its middle are counted as if they were still there.
    pub(crate) fn ahead_of(&self, slot: u32) -> u64 {
        let EndpointRecord { breaker, ticket, .. } = self.endpoints.slab[slot];
        let own = self.class_of(slot);
        let head = |class| self.endpoints.first_of(breaker, class);
        let overtaken =
            Priority::ALL.into_iter().any(|class| class != own && head(class).is_some())
                || self.endpoints.has_sessions(breaker, own);
        let first = Priority::ALL.into_iter().filter_map(head);
        let first = first.map(|head| self.endpoints.slab[head].ticket).min().unwrap_or(ticket);
        let record = &self.breakers.slab[breaker];
        let last = if overtaken { record.tickets.saturating_sub(1) } else { ticket };
        last.saturating_sub(first)
    }

    /// The endpoint to dial next: the first that was not yet tried in this round and whose breaker
    /// admits; one that failed a short while ago comes after those that did not.
    pub(crate) fn choose(&self, first: u32) -> Option<u32> {
        let mut second_choice = None;
        for (slot, endpoint) in self.endpoints.chain(first) {
            if !self.is_open_to(slot, endpoint) {
                continue;
            }
            if !self.is_avoided(slot, endpoint) {
                return Some(slot);
            }
            second_choice = second_choice.or(Some(slot));
        }
        second_choice
    }

    /// An endpoint that comes before the chosen one and whose breaker has room for a probe. Without
    /// it a server that healed would never be asked again by those who have another one.
    fn probed_before(&self, first: u32, choice: u32) -> Option<u32> {
        let mut preferred = self.endpoints.chain(first).take_while(|(slot, _)| *slot != choice);
        let (slot, _) = preferred.find(|(slot, endpoint)| self.is_to_be_probed(*slot, endpoint))?;
        Some(slot)
    }

    /// Whether a peer that stands in line at this endpoint stands right: it is the one to dial
    /// next, or a probe of one that is preferred to that.
    pub(crate) fn is_in_place(&self, first: u32, slot: u32) -> bool {
        let Some(choice) = self.choose(first) else { return true };
        let mut up_to_choice = self.endpoints.chain(first).take_while(|(at, _)| *at != choice);
        choice == slot
            || up_to_choice.any(|(at, endpoint)| at == slot && !self.admits(endpoint.breaker))
    }

    /// Whether the endpoint is left to try in this round.
    pub(crate) fn is_open_to(&self, slot: u32, endpoint: &EndpointRecord) -> bool {
        !endpoint.tried && !self.is_shut_out(slot) && self.admits(endpoint.breaker)
    }

    /// Whether the endpoint's server asked to be left alone for now.
    #[inline]
    pub(crate) fn is_shut_out(&self, endpoint: u32) -> bool {
        self.endpoints.pasts.get(endpoint).not_before > self.now
    }

    /// Whether another endpoint is to be preferred for a while: it failed, drained, or threw us out.
    pub(crate) fn is_avoided(&self, slot: u32, endpoint: &EndpointRecord) -> bool {
        let past = self.endpoints.pasts.get(slot);
        if self.now < past.avoid_until {
            return true;
        }
        let Some(failures) = endpoint.failures.checked_sub(1) else { return false };
        let peer = &self.peers.slab[endpoint.peer];
        let delay = self.policies.peer(peer.profile).backoff.delay(failures);
        self.now < past.failed_at + delay
    }

    /// Finds another place for a peer whose breaker opened while it has other endpoints.
    pub(crate) fn place_again(&mut self, endpoint: u32, out: &mut Out<'_>) {
        let peer = self.endpoints.slab[endpoint].peer;
        if self.has_replacement(peer) {
            self.seek_replacement(peer, out);
        } else {
            self.enqueue(peer, PeerCause::Asked, out);
        }
    }
}
