//! Pings under a budget: whoever is to be asked and may not yet stands in line.

use crate::action::Action;
use crate::bucket::{Acquire, Bucket, BucketPolicy};
use crate::config::WatchPolicy;
use crate::container::list::Lists;
use crate::container::timers::TimerKind;
use crate::draw::uniform;
use crate::manager::Manager;
use crate::manager::conns::Conn;
use crate::manager::out::Out;
use crate::probe::ProbePolicy;
use crate::time::{Time, nanos};

/// What bounds pings over all connections.
#[derive(Clone, Debug)]
pub(crate) struct Pinger {
    pub(crate) bucket: Option<Bucket>,
    /// The connections whose ping is overdue, the first to come first.
    pub(crate) line: Lists,
}

/// The list of the connections that wait for the budget.
pub(crate) const ASKING: u32 = 0;

impl Pinger {
    pub(crate) fn new(rate: Option<&BucketPolicy>) -> Self {
        Self { bucket: rate.map(|rate| Bucket::full(rate, Time::ZERO)), line: Lists::new() }
    }
}

impl Manager {
    /// Pings now if nobody waits and the budget allows, or lines up.
    pub(crate) fn want_ping(&mut self, slot: u32, out: &mut Out<'_>) {
        if self.pinger.bucket.is_none() {
            return self.ping(slot, out);
        }
        if !self.pinger.line.is_linked(slot) {
            self.pinger.line.push_back(ASKING, slot);
            // Hearing from it takes it out of the line again.
            self.conns.pulse_mut(slot).attentive = true;
        }
    }

    /// Whether the first in line may be looked at.
    pub(crate) fn can_ping(&self) -> bool {
        self.pinger.line.front(ASKING).is_some()
            && !self.network.is_still()
            && !self.timers.is_armed(TimerKind::PingPace, 0)
    }

    /// Pings the first in line, or waits for the next token. The timeout begins now, and so does
    /// what the peer could not know of: it was not asked.
    pub(crate) fn ping_next(&mut self, out: &mut Out<'_>) {
        let Some(slot) = self.pinger.line.front(ASKING) else { return };
        if let (Some(bucket), Some(rate)) = (&mut self.pinger.bucket, &self.policies.ping_rate) {
            let at = bucket.ready_at(rate, self.now);
            if at > self.now {
                return self.timers.arm(TimerKind::PingPace, 0, at);
            }
            // At the end of time all that is to come is now.
            let _: Acquire = bucket.acquire(rate, self.now);
        }
        self.pinger.line.unlink(slot);
        let profile = self.peers.slab[self.conns.slab[slot].peer].profile;
        if let Some(WatchPolicy { pings: Some(pings), .. }) = self.policies.peer(profile).watch {
            let since = self.now.minus_nanos(nanos(pings.interval()));
            let heard_at = self.heard_at(&self.conns.slab[slot]);
            let asked = self.conns.asked_mut(slot);
            if asked.probe.missed() == 0 && !asked.probe.is_unhealthy() {
                asked.excused = since.max(heard_at);
            }
        }
        self.ping(slot, out);
        self.arm_watch(slot);
    }

    fn ping(&mut self, slot: u32, out: &mut Out<'_>) {
        let now = self.now;
        let ping = self.conns.next_ping(slot);
        self.conns.pulse_mut(slot).attentive = true;
        let asked = self.conns.asked_mut(slot);
        asked.probe.pinged(now);
        asked.ping = ping;
        let id = self.conns.id(slot);
        if let Some(ping) = ping {
            self.stats.pings += 1;
            out.push(Action::Ping { ping, conn: id });
        }
    }

    /// Whether nothing was heard over the connection since the network came back or became another
    /// one, which may have cut it off.
    pub(crate) fn is_to_be_checked(&self, conn: &Conn) -> bool {
        self.conns.pulse(conn.slot).last_heard < self.network.renewed_at
    }

    /// When the next ping of the connection is due, or the answer to the one that is out.
    ///
    /// The first one after many came up together, or after the network came back to all of them,
    /// is due at a moment of the interval that is the peer's own.
    pub(crate) fn ping_due(&self, conn: &Conn, pings: &ProbePolicy) -> Time {
        let last = self.heard_at(conn);
        let probe = self.probe(conn);
        let due = probe.deadline(pings, last);
        let renewed = self.is_to_be_checked(conn);
        let heard = self.conns.pulse(conn.slot).heard;
        if heard && !renewed || probe.sent_at().is_some() || probe.is_unhealthy() {
            return due;
        }
        let random = self.draw_phase(conn.peer);
        if renewed {
            let within = nanos(self.policies.config.network.check_within);
            return due.min(self.network.renewed_at.plus_nanos(uniform(random, 0, within)));
        }
        due.min(last + pings.first_after(random))
    }
}
