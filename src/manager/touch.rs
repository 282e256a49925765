//! Reading ahead: the records that the next events need are fetched from memory all at once.
//!
//! A step that waits for three records one after the other takes three times as long as memory
//! does. Of events that are known ahead, one look at each record beforehand lets the processor fetch
//! them side by side. It changes no answer; below [`MANY`] connections all is in the cache anyway,
//! and nothing is touched.

use core::hint::black_box;

use crate::event::Event;
use crate::id::ConnId;
use crate::manager::Manager;

/// So many events are looked at ahead: about what a processor can fetch at once, twice.
pub(crate) const TOUCHED_AHEAD: usize = 32;

/// From so many connections on, their records do not fit into a core's own cache.
const MANY: u32 = 16_384;

impl Manager {
    /// Reads what the events are about.
    pub(crate) fn touch(&self, events: &[Event]) {
        if self.conns.slab.len() < MANY || events.len() < 2 {
            return;
        }
        let conns = || events.iter().filter_map(conn_of).map(ConnId::slot);
        black_box(conns().fold(0, |sum, slot| sum ^ self.conns.pulse(slot).process));
    }
}

/// The connection that the event is about.
const fn conn_of(event: &Event) -> Option<ConnId> {
    match *event {
        Event::Connected { conn, .. }
        | Event::DialFailed { conn, .. }
        | Event::Lost { conn, .. }
        | Event::GoAway { conn, .. }
        | Event::Heard { conn }
        | Event::Heartbeat { conn }
        | Event::Metrics { conn, .. } => Some(conn),
        _ => None,
    }
}
