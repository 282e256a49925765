//! What a connection's own task tells the manager.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use steadfast::{ConnId, Event};

/// The way from one connection to the manager: signs of life and measurements.
///
/// Cheap to clone. What it reports of a connection that is over is left out.
#[derive(Clone)]
pub struct Link {
    conn: ConnId,
    tell: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Link {
    pub(crate) fn new(conn: ConnId, tell: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { conn, tell: Arc::new(tell) }
    }

    /// The same connection's, but only what comes while `open` is true gets through.
    pub(crate) fn only_while(self, open: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self::new(self.conn, move |event| {
            if open() {
                (self.tell)(event);
            }
        })
    }

    /// Anything at all came in. O(1): a lock, a clock, an index and a comparison; an atomic for each
    /// further one while [`Transport::run`](crate::Transport::run) is polled, of which only every
    /// 64th is told.
    pub fn heard(&self) {
        (self.tell)(Event::Heard { conn: self.conn });
    }

    /// A *periodic* sign of life came in: heard, and a sample for the failure detector.
    pub fn heartbeat(&self) {
        (self.tell)(Event::Heartbeat { conn: self.conn });
    }

    /// The server said that it will leave (HTTP/2's `GOAWAY`, a lame duck, a drain): in how long, if
    /// it said, and how long it asked us to wait before we dial again. Another connection is made
    /// before it does, and this one closed then; also a sign of life.
    pub fn going_away(&self, leaves_in: Option<Duration>, reconnect_in: Duration) {
        (self.tell)(Event::GoAway { conn: self.conn, leaves_in, reconnect_in });
    }

    /// Tells what was measured: a latency, and a loss in parts per million. Also a sign of life.
    pub fn measured(&self, latency: Duration, loss: u32) {
        (self.tell)(Event::Metrics { conn: self.conn, latency, loss });
    }

    /// The connection's name in notices and recordings.
    #[must_use]
    pub const fn conn(&self) -> ConnId {
        self.conn
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.conn)
    }
}
