//! Reading ahead: the records that the next events and timers need are fetched from memory side by
//! side.
//!
//! A step that waits for twenty records one after the other takes twenty times as long as memory
//! does. Of events that are known ahead one look at each record lets the processor fetch them all at
//! once: first those that an event names, then those that these name. It changes no answer. Below
//! [`MANY`] connections all is in the cache anyway, and nothing is touched.

use core::hint::black_box;

use crate::container::timers::TimerKind;
use crate::event::Event;
use crate::id::ConnId;
use crate::manager::Manager;

/// So many events are looked at ahead.
pub(crate) const EVENTS_AHEAD: usize = 32;
/// So many timers are.
pub(crate) const TIMERS_AHEAD: usize = 16;

/// From so many connections on, their records do not fit into a core's own cache.
const MANY: u32 = 16_384;

impl Manager {
    fn is_large(&self) -> bool {
        self.conns.slab.len().max(self.peers.slab.len()) >= MANY
    }

    /// Reads what the events are about.
    pub(crate) fn touch_events(&self, events: &[Event]) {
        if events.len() < 2 || !self.is_large() {
            return;
        }
        let only_heard =
            |event: &Event| matches!(event, Event::Heard { .. } | Event::Heartbeat { .. });
        let slots = || events.iter().filter_map(Event::conn).map(ConnId::slot);
        black_box(slots().fold(0, |sum, slot| sum ^ u64::from(self.conns.pulse(slot).process)));
        if events.iter().all(only_heard) {
            return;
        }
        black_box(slots().fold(0, |sum, slot| sum ^ self.touch_conn(slot)));
        let peers = || slots().filter_map(|slot| Some(self.conns.slab.get(slot)?.peer));
        black_box(peers().fold(0, |sum, peer| sum ^ self.touch_peer(peer)));
        black_box(peers().fold(0, |sum, peer| sum ^ self.touch_first_endpoint(peer)));
    }

    /// Reads what the timers are about that will be taken next after one of this kind.
    pub(crate) fn touch_timers(&self, kind: TimerKind) {
        if !self.is_large() {
            return;
        }
        let slots = || {
            let next = self.timers.upcoming(kind).iter().take(TIMERS_AHEAD);
            next.filter(|timer| timer.kind == kind).map(|timer| timer.slot)
        };
        match kind {
            TimerKind::Conn => {
                // Mostly they find somebody alive, and need no more.
                let pulse = |slot| u64::from(self.conns.pulse(slot).process);
                black_box(slots().fold(0, |sum, slot| sum ^ pulse(slot)));
            }
            TimerKind::Peer => self.touch_backoffs(slots),
            _ => {}
        }
    }

    /// Reads the peers, and the slots that their dials take.
    fn touch_backoffs<P: Iterator<Item = u32>>(&self, peers: impl Fn() -> P) {
        black_box(peers().fold(0, |sum, peer| sum ^ self.touch_peer(peer)));
        black_box(peers().fold(0, |sum, peer| sum ^ self.touch_first_endpoint(peer)));
        let (_, free) = self.conns.slab.parts();
        let next = free.iter().rev().take(TIMERS_AHEAD);
        black_box(next.fold(0, |sum, &slot| sum ^ self.touch_conn(slot)));
    }

    fn touch_conn(&self, slot: u32) -> u64 {
        let pulse = u64::from(self.conns.pulse(slot).process);
        let links = self.conns.lists.touch(slot);
        let timer = self.timers.touch(TimerKind::Conn, slot);
        let conn = self.conns.slab.get(slot).map_or(0, |conn| u64::from(conn.peer));
        pulse ^ links ^ timer ^ conn
    }

    fn touch_peer(&self, slot: u32) -> u64 {
        let links = self.peers.lists.touch(slot);
        let timer = self.timers.touch(TimerKind::Peer, slot);
        let peer = self.peers.slab.get(slot).map_or(0, |peer| {
            let ends = peer.id.0 ^ u64::from(peer.first_endpoint) ^ u64::from(peer.wanted);
            ends ^ peer.since.as_nanos() ^ peer.session_until.as_nanos()
        });
        let trouble = u64::from(self.peers.troubles.get(slot).epoch);
        links ^ timer ^ peer ^ trouble
    }

    fn touch_first_endpoint(&self, peer: u32) -> u64 {
        let first = self.peers.slab.get(peer).map_or(u32::MAX, |peer| peer.first_endpoint);
        let links = self.endpoints.queues.touch(first);
        let record = self
            .endpoints
            .slab
            .get(first)
            .map_or(0, |endpoint| endpoint.ticket ^ u64::from(endpoint.breaker));
        let past = self.endpoints.pasts.get(first).not_before.as_nanos();
        links ^ record ^ past
    }
}
