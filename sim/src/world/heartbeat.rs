//! Signs of life: heartbeats of servers, pongs, and recorded arrivals.

use std::time::Duration;

use steadfast::{ConnId, Event, PingId, Time};

use super::{Happening, Step, WARM_UP_DIAL_NS, Who, World};
use crate::draws::Purpose;
use crate::driver::Phase;
use crate::plan::Way;
use crate::queue::Rank;
use crate::units::Span;

/// The heartbeats of a group, by where in the period they fall. Since all have one period, the
/// next one is always the next in the circle, and one place on the queue serves them all.
#[derive(Debug, Default)]
pub(super) struct Circle {
    /// Phase and peer, in order.
    pub(super) beats: Vec<(u64, usize)>,
    next: usize,
    round: u64,
}

/// How many of the next peers are looked at together, and in worlds of how many: in smaller ones all
/// is near anyway.
const AHEAD: usize = 32;
const MANY_PEERS: usize = 16_384;

impl Circle {
    /// The next peers after so many, as far as this round goes.
    fn ahead(&self, by: usize) -> impl Iterator<Item = usize> {
        self.beats.iter().skip(self.next + by).take(AHEAD).map(|(_, peer)| *peer)
    }
}

impl World<'_> {
    /// A group's heartbeats go round once more.
    pub(super) fn schedule_beats(&mut self, group: usize) {
        let Some(&(phase, _)) = self.circles[group].beats.first() else { return };
        let at = Time::from_nanos(phase);
        self.queue.push(at, Rank::World, Happening::Beat { group });
    }

    /// The server of the next peer in the circle sends it a sign of life.
    pub(super) fn beat(&mut self, index: usize) {
        let plan = self.plan;
        let group = &plan.groups[index];
        let Some(period) = group.heartbeat else { return };
        self.look_ahead(index);
        let circle = &mut self.circles[index];
        let (_, peer) = circle.beats[circle.next];
        circle.next += 1;
        if circle.next == circle.beats.len() {
            circle.next = 0;
            circle.round += 1;
        }
        let round = circle.round.saturating_mul(period.as_nanos());
        let next = Time::from_nanos(circle.beats[circle.next].0).plus_nanos(round);
        self.queue.push(next, Rank::World, Happening::Beat { group: index });
        let peer = &mut self.peers[peer];
        peer.beats += 1;
        let (manager, beats) = (peer.manager as usize, u64::from(peer.beats));
        let (name, id) = (group.peer_id(peer.place).0, peer.conn);
        let Some(id) = id else { return };
        let Some(conn) = self.drivers[manager].conn(id).copied() else { return };
        let Some(&Way { server, link }) = group.ways.get(conn.way()) else { return };
        let speaks = conn.phase == Phase::Up && self.servers[server].speaks();
        if speaks && !self.is_lost(link, Purpose::BeatLost, name, beats) {
            let latency = self.latency(link, Purpose::Beat, name, beats);
            let at = self.in_order(manager, id, latency);
            self.queue.push(at, Rank::World, Happening::Heard { manager, conn: id });
        }
    }

    /// Reads the records that the next beats of a circle will need, many at once: memory answers ten
    /// questions as fast as one, but each beat would ask its own and wait. It changes nothing.
    fn look_ahead(&self, index: usize) {
        let circle = &self.circles[index];
        if self.peers.len() < MANY_PEERS || !circle.next.is_multiple_of(AHEAD) {
            return;
        }
        let beats = circle.ahead(2 * AHEAD).map(|peer| u64::from(self.peers[peer].beats));
        // Of these the peers' own records were read the last time.
        let conns = circle.ahead(AHEAD).map(|peer| {
            let peer = &self.peers[peer];
            let ordered = |id| self.drivers[peer.manager as usize].ordered_until(id);
            peer.conn.map_or(0, |id| ordered(id).as_nanos())
        });
        std::hint::black_box(beats.chain(conns).fold(0, |sum, one| sum ^ one));
    }

    pub(super) fn ping(&mut self, manager: usize, id: ConnId, ping: PingId) {
        let Some(conn) = self.drivers[manager].conn(id).copied() else { return };
        let peer = &mut self.peers[conn.peer()];
        peer.pings += 1;
        let pings = u64::from(peer.pings);
        let group = &self.plan.groups[peer.group as usize];
        let name = group.peer_id(peer.place).0;
        let Some(&Way { server, link }) = group.ways.get(conn.way()) else { return };
        let online = self.drivers[manager].offline == 0;
        let speaks = online && conn.phase == Phase::Up && self.servers[server].speaks();
        if speaks && !self.is_lost(link, Purpose::PongLost, name, pings) {
            let there = self.latency(link, Purpose::Pong, name, 2 * pings);
            let back = self.latency(link, Purpose::Pong, name, 2 * pings + 1);
            let both = Span::from_nanos(there.as_nanos().saturating_add(back.as_nanos()));
            let at = self.in_order(manager, id, both);
            self.queue.push(at, Rank::World, Happening::Pong { manager, conn: id, ping });
        }
    }

    pub(super) fn schedule_traces(&mut self) {
        for index in 0..self.peers.len() {
            let group = &self.plan.groups[self.peers[index].group as usize];
            if let Some(first) = group.trace.as_ref().and_then(|trace| trace.first()) {
                // The connection is up at the very moment of the first arrival.
                let at = self.measures.start() + Duration::from_millis(*first);
                let at = at.minus_nanos(WARM_UP_DIAL_NS);
                self.queue.push(at, Rank::World, Happening::Traced { peer: index, place: 0 });
            }
        }
    }

    /// A recorded heartbeat: the first is the connection itself, after the last the peer leaves.
    pub(super) fn traced(&mut self, index: usize, place: usize) -> Step {
        let plan = self.plan;
        let (Who { group, place: own, manager }, conn) =
            (self.peers[index].who(), self.peers[index].conn);
        let group = &plan.groups[group];
        let peer = group.peer_id(own);
        if place == 0 {
            self.tell(manager, Event::Connect { peer })?;
        } else if let Some(conn) = conn {
            self.tell(manager, Event::Heartbeat { conn })?;
        }
        let next = group.trace.as_ref().and_then(|trace| trace.get(place + 1));
        let Some(next) = next else { return self.tell(manager, Event::Disconnect { peer }) };
        let at = self.measures.start() + Duration::from_millis(*next);
        let happening = Happening::Traced { peer: index, place: place + 1 };
        self.queue.push(at, Rank::World, happening);
        Ok(())
    }
}
