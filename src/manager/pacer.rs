//! Who dials next: the ring of breakers, the limits in flight, the rates.

use crate::action::PeerCause;
use crate::bucket::{Bucket, BucketPolicy};
use crate::container::timers::TimerKind;
use crate::manager::Manager;
use crate::manager::breakers::{HELD_BACK, RING};
use crate::manager::out::Out;
use crate::mutant::Mutant;
use crate::time::Time;

/// What bounds dials over all breakers together.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    pub(crate) bucket: Option<Bucket>,
    /// Dials in flight.
    pub(crate) in_flight: u32,
    /// Whether its timer must fire before the next dial.
    pub(crate) blocked: bool,
}

/// The part of the places in flight that is kept for breakers which hold few.
const RESERVED: u32 = 8;

impl Pacer {
    pub(crate) fn new(rate: Option<&BucketPolicy>) -> Self {
        let bucket = rate.map(|rate| Bucket::full(rate, Time::ZERO));
        Self { bucket, in_flight: 0, blocked: false }
    }
}

impl Manager {
    pub(crate) fn can_pace(&self) -> bool {
        self.breakers.ring.front(RING).is_some()
            && !self.network.is_still()
            && !self.pacer.blocked
            && (self.pacer.in_flight < self.policies.config.pacer.max_in_flight
                || Mutant::NoPacer.lives())
    }

    /// Lets the first breaker of the ring dial for the first in its line; `false` if none may now.
    ///
    /// One dial a turn, then the breaker goes to the end of the ring: the 100,000 peers of one
    /// region cannot starve the ten of another.
    pub(crate) fn pace(&mut self, out: &mut Out<'_>) -> bool {
        if !self.can_pace() {
            return false;
        }
        let Some(slot) = self.breakers.ring.front(RING) else { return false };
        if let (Some(bucket), Some(rate)) = (&self.pacer.bucket, &self.policies.pacer_rate) {
            let at = bucket.ready_at(rate, self.now);
            if at > self.now {
                self.pacer.blocked = true;
                self.timers.arm(TimerKind::Pacer, 0, at);
                return false;
            }
        }
        if self.is_scarce() && self.holds_much(slot) {
            self.breakers.ring.unlink(slot);
            self.breakers.ring.push_back(HELD_BACK, slot);
            return true;
        }
        let record = &self.breakers.slab[slot];
        let profile = self.policies.breaker(record.profile);
        if let (Some(bucket), Some(rate)) = (&record.bucket, &profile.rate) {
            let at = bucket.ready_at(rate, self.now);
            if at > self.now {
                self.timers.arm(TimerKind::Pace, slot, at);
                self.refresh_ring(slot);
                return true;
            }
        }
        let Some(endpoint) = self.next_in_line(slot) else {
            self.breakers.ring.unlink(slot);
            return true;
        };
        let peer = self.endpoints.slab[endpoint].peer;
        let replaces = self.has_replacement(peer);
        if !replaces && !self.is_in_place(self.peers.slab[peer].first_endpoint, endpoint) {
            // It was parked here while the endpoint that it prefers was shut.
            self.place_again(endpoint, out);
            return true;
        }
        let not_before = self.endpoints.pasts.get(endpoint).not_before;
        if self.endpoints.slab[endpoint].tried && !replaces {
            // It stands here so that nobody forgets it, and waits for a probe elsewhere; that was not
            // to be had, so the round is over.
            self.end_round(peer, PeerCause::Asked, out);
            return true;
        }
        if not_before > self.now && !replaces {
            // Parked behind all its breakers, and this one's server asked to be left alone.
            self.back_off_until(peer, not_before, PeerCause::Asked, out);
            return true;
        }
        self.breakers.ring.unlink(slot);
        self.dial(endpoint, out);
        self.refresh_ring(slot);
        true
    }

    /// Whether only the last eighth of the places in flight is left. Those are for breakers that
    /// hold few: a region whose server hangs must not keep the others out.
    pub(crate) fn is_scarce(&self) -> bool {
        let max = self.policies.config.pacer.max_in_flight;
        self.pacer.in_flight >= max - max / RESERVED
    }

    /// Whether the breaker holds more than its part of those last places: a quarter of them.
    pub(crate) fn holds_much(&self, slot: u32) -> bool {
        let part = self.policies.config.pacer.max_in_flight / RESERVED / 4;
        self.breakers.slab[slot].in_flight >= part.max(1)
    }
}
