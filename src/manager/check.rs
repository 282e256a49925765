//! The invariants, each under its own name, recounted from scratch.
//!
//! For tests, the simulator and restored snapshots: O(n log n), and nothing here is taken for granted but
//! that slots which are followed are in use.

mod calls;
mod step;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::breaker::State;
use crate::container::timers::{Table, TimerKind};
use crate::manager::Manager;
use crate::manager::breakers::{HELD_BACK, RING};
use crate::manager::conns::{ConnPhase, LIVE, ORPHANS, UNCHECKED};
use crate::manager::crowd::{Crowd, Trust};
use crate::manager::endpoints::DISPLACED;
use crate::manager::peers::{BACKING_OFF, FAILED, Peers, Phase, WOKEN};
use crate::manager::replacements::Stage;
use crate::stats::{BreakerCounts, PeerCounts};
use crate::time::Time;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    invariant: &'static str,
    place: String,
    detail: String,
}

impl Violation {
    /// The invariant's name, as `one-phase`.
    #[must_use]
    pub const fn invariant(&self) -> &'static str {
        self.invariant
    }

    /// Whose state is wrong.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.invariant, self.place, self.detail)
    }
}

impl core::error::Error for Violation {}

/// The texts are written only of what does not hold.
#[inline]
fn hold(
    invariant: &'static str,
    ok: bool,
    place: impl FnOnce() -> String,
    detail: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if ok { Ok(()) } else { Err(Violation { invariant, place: place(), detail: detail() }) }
}

/// # Checking
impl Manager {
    /// Verifies every invariant of the whole state. O(n log n).
    ///
    /// # Errors
    ///
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        self.check_deadline()?;
        self.check_lists()?;
        let timers = self.timers.table();
        self.check_peers(&timers)?;
        self.check_conns()?;
        self.check_breakers(&timers)?;
        self.check_calls(&timers)?;
        self.check_stats()?;
        self.check_call_stats()
    }

    /// `deadline`: nothing is due before the moment that was promised.
    fn check_deadline(&self) -> Result<(), Violation> {
        hold(
            "deadline",
            self.deadline == self.first_due(),
            || "next_deadline()".into(),
            || format!("{:?}, but it is {:?}", self.deadline, self.first_due()),
        )
    }

    /// `links`: each node is on exactly the list that its record says, and on no other.
    fn check_lists(&self) -> Result<(), Violation> {
        const NAME: &str = "links";
        let peers = &self.peers.lists;
        for (anchor, backing_off) in [(BACKING_OFF, true), (FAILED, false)] {
            for slot in peers.iter(anchor) {
                let phase = self.peers.slab[slot].phase;
                let ok = if backing_off {
                    matches!(phase, Phase::BackingOff { .. })
                } else {
                    phase == Phase::Failed
                };
                hold(
                    NAME,
                    ok,
                    || format!("peers[{slot}]"),
                    || format!("{phase:?} on list {anchor}"),
                )?;
            }
        }
        for slot in peers.iter(WOKEN) {
            let phase = self.peers.slab[slot].phase;
            let ok = matches!(phase, Phase::BackingOff { .. } | Phase::Failed);
            hold(NAME, ok, || format!("peers[{slot}]"), || format!("{phase:?} among the woken"))?;
        }
        for slot in self.endpoints.queues.iter(DISPLACED) {
            let waiting = self.is_in_line(self.endpoints.slab[slot].peer);
            hold(
                NAME,
                waiting,
                || format!("endpoints[{slot}]"),
                || "displaced, not waiting".into(),
            )?;
        }
        let awaited =
            self.breakers.slab.iter().filter(|(slot, _)| self.endpoints.is_awaited(*slot));
        for (slot, breaker) in awaited {
            let mut before = None;
            for member in self.endpoints.line(slot) {
                let endpoint = &self.endpoints.slab[member];
                let waiting = self.is_in_line(endpoint.peer);
                let in_order = before < Some(endpoint.ticket) && endpoint.ticket < breaker.tickets;
                let ok = endpoint.breaker == slot && waiting && in_order;
                before = Some(endpoint.ticket);
                hold(
                    NAME,
                    ok,
                    || format!("endpoints[{member}]"),
                    || format!("out of place in the queue of breakers[{slot}]"),
                )?;
            }
        }
        for slot in self.breakers.ring.iter(HELD_BACK) {
            let right = self.is_scarce() && self.holds_much(slot);
            hold(NAME, right, || format!("breakers[{slot}]"), || "held back for nobody".into())?;
        }
        let resume_by = |slot| self.endpoints.resume_by(slot);
        let sessions = self.endpoints.slab.iter().filter(|(slot, _)| resume_by(*slot) > Time::ZERO);
        let mut counted = 0;
        for (slot, _) in sessions {
            let noted = self.endpoints.has_session(slot, self.class_of(slot));
            let ok = noted && self.endpoints.queues.is_linked(slot);
            counted += 1;
            hold(
                NAME,
                ok,
                || format!("endpoints[{slot}]"),
                || format!("out of line with a session until {}", resume_by(slot)),
            )?;
        }
        hold(
            NAME,
            counted == self.endpoints.sessions(),
            || "sessions".into(),
            || format!("{} in order, counted {counted}", self.endpoints.sessions()),
        )?;
        for (anchor, current) in [(LIVE, true), (ORPHANS, false), (UNCHECKED, true)] {
            for slot in self.conns.lists.iter(anchor) {
                let ok = (self.conns.pulse(slot).process == self.conns.process) == current;
                hold(NAME, ok, || format!("conns[{slot}]"), || "of another process".into())?;
            }
        }
        Ok(())
    }

    /// `one-phase`: a peer is in one phase, with the one timer or queue place that moves it on.
    fn check_peers(&self, timers: &Table) -> Result<(), Violation> {
        const NAME: &str = "one-phase";
        let mut chained = vec![false; self.endpoints.slab.parts().0.len()];
        for (slot, peer) in self.peers.slab.iter() {
            self.check_peer(slot, timers.get(&(TimerKind::Peer, slot)).copied())?;
            for (member, _) in self.endpoints.chain(peer.first_endpoint) {
                let seen = chained.get_mut(member as usize);
                let seen = seen.map(|seen| core::mem::replace(seen, true));
                hold(
                    NAME,
                    seen == Some(false),
                    || format!("peers[{slot}]"),
                    || format!("endpoints[{member}] is another's too"),
                )?;
            }
        }
        let Peers { troubles, successions, qualities, .. } = &self.peers;
        let beside = troubles.slots().chain(successions.slots()).chain(qualities.slots());
        for slot in beside {
            let there = self.peers.slab.get(slot).is_some();
            hold(NAME, there, || format!("peers[{slot}]"), || "gone, and not forgotten".into())?;
        }
        for slot in self.endpoints.pasts.slots().chain(self.endpoints.waits.slots()) {
            let there = self.endpoints.slab.get(slot).is_some();
            hold(
                NAME,
                there,
                || format!("endpoints[{slot}]"),
                || "gone, and not forgotten".into(),
            )?;
        }
        let replaced =
            self.peers.slab.iter().filter(|(slot, _)| self.has_replacement(*slot)).count();
        hold(
            NAME,
            replaced == self.replacements.len() as usize,
            || "replacements".into(),
            || format!("{} of them, {replaced} peers have one", self.replacements.len()),
        )?;
        for (slot, _) in self.endpoints.slab.iter() {
            let known = chained.get(slot as usize).copied().unwrap_or_default();
            hold(NAME, known, || format!("endpoints[{slot}]"), || "of no peer".into())?;
        }
        Ok(())
    }

    /// `timer`: when its timer is due.
    fn check_peer(&self, slot: u32, timer: Option<Time>) -> Result<(), Violation> {
        const NAME: &str = "one-phase";
        let peer = &self.peers.slab[slot];
        let place = || format!("peers[{slot}]");
        hold(NAME, peer.told == peer.state(), place, || {
            format!("is {:?}, told {:?}", peer.state(), peer.told)
        })?;
        let idle = matches!(peer.phase, Phase::Idle);
        let up = matches!(peer.phase, Phase::Up { .. });
        hold(NAME, !(up && peer.coming_back), place, || "up and coming back".into())?;
        hold(NAME, peer.wanted != idle || up, place, || {
            format!("wanted: {}, in {:?}", peer.wanted, peer.phase)
        })?;
        let listed = matches!(peer.phase, Phase::BackingOff { .. } | Phase::Failed);
        hold(NAME, self.peers.lists.is_linked(slot) == listed, place, || {
            format!("on a list in {:?}", peer.phase)
        })?;
        let due = self.replacement_due_at(slot);
        let moved_on = match peer.phase {
            Phase::BackingOff { until } => timer.is_some_and(|deadline| deadline <= until),
            Phase::Idle | Phase::Failed => timer.is_none(),
            Phase::Up { .. } => timer == due,
            Phase::Waiting | Phase::Dialing { .. } => true,
        };
        hold(NAME, moved_on, place, || format!("timer {timer:?} in {:?}", peer.phase))?;
        if let Phase::Dialing { conn } | Phase::Up { conn } = peer.phase {
            let conn = &self.conns.slab[conn];
            let ok = conn.peer == slot && up == conn.is_up();
            hold(NAME, ok, place, || format!("its connection is {:?}", conn.phase()))?;
        }
        self.check_replacement(slot)?;
        self.check_chain(slot)
    }

    /// Whether the peer, or what is to replace its connection, waits for a dial.
    fn is_in_line(&self, peer: u32) -> bool {
        let replacement = self.replacement_of(peer).map(|(_, replacement)| replacement.stage);
        self.peers.slab[peer].phase == Phase::Waiting
            || matches!(replacement, Some(Stage::Waiting { .. }))
    }

    /// A connection is replaced while it lasts, by a dial or a place in line of its peer's own.
    fn check_replacement(&self, slot: u32) -> Result<(), Violation> {
        let peer = &self.peers.slab[slot];
        let place = || format!("peers[{slot}]");
        let Some((_, replacement)) = self.replacement_of(slot) else {
            let none = !self.has_replacement(slot);
            return hold("replacement", none, place, || "is not there".into());
        };
        let up = matches!(peer.phase, Phase::Up { .. }) && peer.wanted;
        let own = replacement.peer == slot;
        hold("replacement", up && own, place, || format!("{replacement:?} in {:?}", peer.phase))?;
        let in_order = match replacement.stage {
            Stage::Due { .. } => true,
            Stage::Waiting { endpoint, .. } => {
                self.endpoints.slab[endpoint].peer == slot
                    && self.endpoints.queues.is_linked(endpoint)
            }
            Stage::Dialing { conn } => {
                let conn = &self.conns.slab[conn];
                conn.peer == slot && !conn.is_up()
            }
        };
        hold("replacement", in_order, place, || format!("{:?}", replacement.stage))
    }

    fn check_chain(&self, slot: u32) -> Result<(), Violation> {
        const NAME: &str = "one-phase";
        let peer = &self.peers.slab[slot];
        let place = || format!("peers[{slot}]");
        let max = self.policies.config.limits.max_endpoints as usize;
        let displaced = self.endpoints.queues.front(DISPLACED).is_some();
        let (mut length, mut linked, mut admitted) = (0, 0, false);
        for (member, endpoint) in self.endpoints.chain(peer.first_endpoint).take(max + 1) {
            let ok = endpoint.peer == slot && length < max;
            hold(NAME, ok, place, || format!("endpoints[{member}] is not its own"))?;
            length += 1;
            if self.endpoints.queues.is_linked(member) {
                linked += 1;
                admitted |= displaced || self.admits(endpoint.breaker);
            }
        }
        let waiting = peer.phase == Phase::Waiting;
        let replaces = usize::from(!waiting && self.is_in_line(slot));
        let right = if waiting { linked > 0 } else { linked == replaces };
        hold(NAME, right, place, || format!("{linked} queue places in {:?}", peer.phase))?;
        // Either it stands where it was admitted, or in every line so that none can forget it.
        hold("nobody-forgotten", !waiting || admitted || linked == length, place, || {
            format!("waits behind {linked} of {length} breakers, and none admits")
        })
    }

    /// `connections`: each belongs to a peer that is with it, and is watched by a timer.
    fn check_conns(&self) -> Result<(), Violation> {
        let place = || String::from("conns");
        hold("connections", self.conns.are_free(), place, || "a pulse without a record".into())?;
        self.conns.slab.iter().try_for_each(|(slot, _)| self.check_connection(slot))
    }

    fn check_connection(&self, slot: u32) -> Result<(), Violation> {
        const NAME: &str = "connections";
        let conn = &self.conns.slab[slot];
        let place = || format!("conns[{slot}]");
        let held = self.conn_of(conn.peer) == Some(slot) || self.replaces(slot);
        hold(NAME, held, place, || format!("peers[{}] does not hold it", conn.peer))?;
        hold(NAME, self.conns.lists.is_linked(slot), place, || "on no list".into())?;
        let armed = self.timers.is_armed(TimerKind::Conn, slot);
        let endpoint = self.endpoints.slab.get(conn.endpoint);
        let own = endpoint.is_none_or(|endpoint| endpoint.peer == conn.peer);
        hold(NAME, own, place, || "leads to another peer's endpoint".into())?;
        let watch = self.policies.peer(self.peers.slab[conn.peer].profile).watch;
        match conn.phase() {
            ConnPhase::Dialing { .. } => {
                hold(NAME, armed && endpoint.is_some(), place, || "a dial without timeout".into())?;
            }
            ConnPhase::Up => {
                let pings = watch.is_some_and(|watch| watch.pings.is_some());
                let watched = watch.is_some() && (!conn.trust().is_suspected() || pings);
                // Its timer moves it on, or its place in the line of those to be pinged.
                let asking = self.pinger.line.is_linked(slot);
                hold(NAME, armed || asking || !watched, place, || "watched by no timer".into())?;
            }
        }
        let up = conn.is_up();
        let profile = self.peers.slab[conn.peer].profile;
        hold(NAME, self.conns.has_pulse(slot, profile), place, || "its records differ".into())?;
        let asking = self.pinger.line.is_linked(slot);
        let pinged = watch.is_some_and(|watch| watch.pings.is_some());
        let may_ask = up && pinged && self.probe(conn).sent_at().is_none();
        hold(NAME, !asking || may_ask, place, || "in line for a ping that is not due".into())?;
        let trusted = conn.trust() == Trust::Full;
        let fits = (up && watch.is_some()) || trusted;
        hold(NAME, fits, place, || format!("{:?}, and not watched", conn.trust()))?;
        let fits = !self.probe(conn).is_unhealthy() || !trusted;
        hold(NAME, fits, place, || "trusted though it missed its pings".into())?;
        let attentive = !trusted || self.conns.asked(slot).ping.is_some() || asking;
        hold(NAME, self.conns.pulse(slot).attentive || !attentive, place, || {
            "deaf to its answer".into()
        })?;
        Ok(())
    }

    /// `permits`, `limits`, `runnable`: a breaker holds what its state allows, in flight stays within
    /// bounds, and it stands in the ring exactly while it could let somebody through.
    fn check_breakers(&self, timers: &Table) -> Result<(), Violation> {
        let mut in_flight = vec![0_u32; self.breakers.slab.parts().0.len()];
        // A probe whose own timeout has passed is given up while its dial goes on.
        let mut probes = in_flight.clone();
        let mut awaited = Vec::new();
        let mut endpoints = in_flight.clone();
        let mut crowds = vec![Crowd::default(); in_flight.len()];
        for (_, conn) in self.conns.slab.iter() {
            let Some(endpoint) = self.endpoints.slab.get(conn.endpoint) else { continue };
            let slot = endpoint.breaker;
            let ConnPhase::Dialing { permit, .. } = conn.phase() else {
                if let Some(crowd) = crowds.get_mut(slot as usize) {
                    crowd.join(conn.trust());
                }
                continue;
            };
            bump(&mut in_flight, slot);
            if self.breakers.slab[slot].breaker.awaits(permit) {
                awaited.push((slot, permit));
                bump(&mut probes, slot);
            }
        }
        for (_, attempt) in self.calls.attempts.iter() {
            let slot = self.calls.slab[attempt.call].breaker;
            if self.breakers.slab[slot].breaker.awaits(attempt.permit) {
                awaited.push((slot, attempt.permit));
                bump(&mut probes, slot);
            }
        }
        awaited.sort_unstable();
        for pair in awaited.windows(2) {
            let [(slot, permit), other] = pair else { continue };
            hold(
                "permits",
                (*slot, *permit) != *other,
                || format!("breakers[{slot}]"),
                || format!("{permit:?} given twice"),
            )?;
        }
        for (slot, peer) in self.peers.slab.iter() {
            let several = self.endpoints.chain(peer.first_endpoint).count() > 1;
            for (_, endpoint) in self.endpoints.chain(peer.first_endpoint) {
                bump(&mut endpoints, endpoint.breaker);
                let right = endpoint.several == several;
                hold(
                    "links",
                    right,
                    || format!("peers[{slot}]"),
                    || "in the wrong half of a line".into(),
                )?;
            }
        }
        for (slot, record) in self.breakers.slab.iter() {
            let place = || format!("breakers[{slot}]");
            let counted = |counts: &[u32]| counts.get(slot as usize).copied().unwrap_or_default();
            let Crowd { up, doubted, held, .. } = record.crowd;
            let crowd = crowds.get(slot as usize).copied().unwrap_or_default();
            let right = (up, doubted, held) == (crowd.up, crowd.doubted, crowd.held);
            hold("crowds", right, place, || format!("{:?}, counted {crowd:?}", record.crowd))?;
            let outstanding = record.breaker.outstanding();
            hold("permits", outstanding == counted(&probes), place, || {
                format!("{outstanding} probes out, {} of them in flight", counted(&probes))
            })?;
            hold("permits", counted(&endpoints) == record.endpoints, place, || {
                format!("{} endpoints, counted {}", record.endpoints, counted(&endpoints))
            })?;
            hold("limits", record.in_flight == counted(&in_flight), place, || {
                format!("{} in flight, counted {}", record.in_flight, counted(&in_flight))
            })?;
            self.check_breaker(slot, timers.get(&(TimerKind::Breaker, slot)).copied())?;
        }
        for slot in self.breakers.ring.iter(RING) {
            let used = self.breakers.slab.get(slot).is_some();
            hold(
                "links",
                used,
                || format!("breakers[{slot}]"),
                || "in the ring, not there".into(),
            )?;
        }
        let blocked = self.timers.is_armed(TimerKind::Pacer, 0);
        hold("runnable", blocked == self.pacer.blocked, || "pacer".into(), || "no timer".into())
    }

    /// What one breaker holds, by its own record.
    /// `timer`: when its timer is due.
    fn check_breaker(&self, slot: u32, timer: Option<Time>) -> Result<(), Violation> {
        let record = &self.breakers.slab[slot];
        let place = || format!("breakers[{slot}]");
        let profile = self.policies.breaker(record.profile);
        let (state, outstanding) = (record.breaker.state(), record.breaker.outstanding());
        hold("permits", outstanding <= profile.normal.probes(), place, || {
            format!("{outstanding} probes out")
        })?;
        let deadline = record.breaker.deadline().filter(|&deadline| deadline < Time::MAX);
        let timed = match (deadline, timer) {
            (None, None) => true,
            (Some(deadline), Some(timer)) => timer <= deadline,
            _ => false,
        };
        hold("permits", timed, place, || format!("{state:?} with timer {timer:?}"))?;
        hold("limits", record.in_flight <= profile.max_in_flight, place, || {
            format!("{} in flight of {}", record.in_flight, profile.max_in_flight)
        })?;
        hold(
            "runnable",
            self.breakers.ring.is_linked(slot) == self.is_runnable(slot),
            place,
            || format!("{state:?}, in the ring: {}", self.breakers.ring.is_linked(slot)),
        )?;
        // A half-open breaker that somebody waits for has a probe out or room for one.
        let stuck = state == State::HalfOpen
            && outstanding == 0
            && self.endpoints.is_awaited(slot)
            && !record.breaker.has_room(&profile.normal);
        hold("permits", !stuck, place, || "half-open without probe or room".into())
    }

    /// `stats`: what is counted by increments equals a recount.
    fn check_stats(&self) -> Result<(), Violation> {
        const NAME: &str = "stats";
        let (mut peers, mut breakers) = (PeerCounts::default(), BreakerCounts::default());
        let (mut measured, mut degraded, mut latency, mut loss) = (0, 0, 0, 0);
        for (slot, peer) in self.peers.slab.iter() {
            *peers.of(peer.state()) += 1;
            degraded += u32::from(peer.degraded);
            if let Some((peer_latency, peer_loss)) = self.peers.qualities.get(slot).measured {
                measured += 1;
                latency += u128::from(peer_latency);
                loss += u64::from(peer_loss);
            }
        }
        for (_, record) in self.breakers.slab.iter() {
            *breakers.of(record.breaker.state()) += 1;
        }
        let dials = self.conns.slab.iter().filter(|(_, conn)| !conn.is_up());
        let in_flight = dials.count();
        let stats = &self.stats;
        let place = || String::from("stats");
        hold(NAME, stats.peers == peers, place, || format!("peers {:?} {peers:?}", stats.peers))?;
        hold(NAME, stats.breakers == breakers, place, || {
            format!("breakers {:?}, counted {breakers:?}", stats.breakers)
        })?;
        let counted = (stats.dials_in_flight, self.pacer.in_flight);
        let right = counted.0 as usize == in_flight && counted.1 as usize == in_flight;
        hold(NAME, right, place, || format!("{counted:?} dials in flight, counted {in_flight}"))?;
        let smoothed = (stats.measured, stats.degraded, stats.latency_sum_ns, stats.loss_sum);
        hold(NAME, smoothed == (measured, degraded, latency, loss), place, || {
            format!("measured {smoothed:?}, counted {:?}", (measured, degraded, latency, loss))
        })?;
        self.check_sums()
    }

    /// What can be seen of the sums without counting.
    fn check_sums(&self) -> Result<(), Violation> {
        const NAME: &str = "stats";
        let (stats, place) = (&self.stats, || String::from("stats"));
        let (peers, breakers) = (self.peers.slab.len(), self.breakers.slab.len());
        let known =
            self.peers.map.len() == peers as usize && self.breakers.map.len() == breakers as usize;
        hold(NAME, known, place, || "ids that lead nowhere".into())?;
        let sums = (stats.peers.total(), stats.breakers.total(), stats.dials_in_flight);
        let right = sums == (peers.into(), breakers.into(), self.pacer.in_flight);
        hold(NAME, right, place, || {
            format!(
                "{sums:?} peers, breakers, dials; {peers}, {breakers}, {}",
                self.pacer.in_flight
            )
        })?;
        let max = self.policies.config.pacer.max_in_flight;
        hold(
            "limits",
            self.pacer.in_flight <= max,
            || "pacer".into(),
            || format!("{} dials in flight of {max}", self.pacer.in_flight),
        )?;
        let all = stats.peers.total();
        hold(NAME, all <= u64::from(self.policies.config.limits.max_peers), place, || {
            format!("{all} peers")
        })
    }
}

fn bump(counts: &mut [u32], slot: u32) {
    if let Some(count) = counts.get_mut(slot as usize) {
        *count += 1;
    }
}
