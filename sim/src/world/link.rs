//! Links: how long a message takes, and whether it arrives.

use steadfast::{ConnId, Time};

use super::World;
use crate::dist::{Dist, unit};
use crate::draws::Purpose;
use crate::scenario::{Direction, Link};
use crate::units::{Share, Span};

/// A link and what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Road {
    link: Link,
    pub(super) slow: Vec<Dist>,
    pub(super) lossy: Vec<Share>,
    /// How many faults let nothing through, each way, and since when one does.
    pub(super) to_server: u32,
    pub(super) from_server: u32,
    pub(super) blocked_since: Time,
    pub(super) cut: u32,
}

impl Road {
    pub(super) fn new(link: &Link) -> Self {
        let link = link.clone();
        Self {
            link,
            slow: Vec::new(),
            lossy: Vec::new(),
            to_server: 0,
            from_server: 0,
            blocked_since: Time::MAX,
            cut: 0,
        }
    }

    /// A partition in this direction, or in both, begins or ends.
    pub(super) fn partition(&mut self, direction: Option<Direction>, begins: bool, now: Time) {
        let count = |count: &mut u32| *count = if begins { *count + 1 } else { *count - 1 };
        if direction != Some(Direction::FromServer) {
            count(&mut self.to_server);
        }
        if direction != Some(Direction::ToServer) {
            count(&mut self.from_server);
        }
        let blocked = self.to_server + self.from_server > 0;
        self.blocked_since = if blocked { self.blocked_since.min(now) } else { Time::MAX };
    }

    /// Whether a message for this purpose gets nowhere, whatever chance says.
    const fn blocks(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::LostOut | Purpose::RequestLostOut => self.to_server > 0,
            Purpose::LostBack | Purpose::BeatLost | Purpose::RequestLostBack => {
                self.from_server > 0
            }
            // There and back.
            _ => self.to_server + self.from_server > 0,
        }
    }
}

impl World<'_> {
    /// What one message takes: at least a nanosecond, since nothing is answered before it was asked.
    pub(super) fn latency(&self, link: usize, purpose: Purpose, who: u64, n: u64) -> Span {
        let way = &self.links[link];
        let generator = &mut self.draws.generator(purpose, who, n);
        let mut nanos = way.link.latency.sample(generator).as_nanos();
        for slow in &way.slow {
            nanos = nanos.saturating_add(slow.sample(generator).as_nanos());
        }
        Span::from_nanos(nanos.max(1))
    }

    pub(super) fn is_lost(&self, link: usize, purpose: Purpose, who: u64, n: u64) -> bool {
        let way = &self.links[link];
        if way.blocks(purpose) {
            return true;
        }
        let base = way.link.loss.as_f64();
        let kept = way.lossy.iter().fold(1.0 - base, |kept, loss| kept * (1.0 - loss.as_f64()));
        kept < 1.0 && unit(self.draws.draw(purpose, who, n)) >= kept
    }

    /// When a message of the server arrives: never before an earlier one.
    pub(super) fn in_order(&mut self, manager: usize, id: ConnId, latency: Span) -> Time {
        let at = self.now.plus_nanos(latency.as_nanos());
        let Some(conn) = self.drivers[manager].conn(id) else { return at };
        conn.ordered_until = conn.ordered_until.max(at);
        conn.ordered_until
    }
}
