//! From a recorded event to what the other manager is told.
//!
//! What somebody wanted and what happened around is told as it was. A fact about a connection, a ping or
//! an attempt is told about the one that it is now; where there is none it is dropped, and counted.

use steadfast::{AttemptId, ConnId, Event, PingId};

use super::bonds::Bond;
use super::lane::Lane;

impl Lane<'_> {
    /// What the other manager is told.
    pub(super) fn translate(&mut self, event: &Event) -> Vec<Event> {
        let told = match event {
            Event::Connected { conn, .. }
            | Event::DialFailed { conn, .. }
            | Event::Lost { conn, .. }
            | Event::Heard { conn }
            | Event::Heartbeat { conn }
            | Event::GoAway { conn, .. }
            | Event::Metrics { conn, .. } => self.of_conn(*conn, event),
            Event::Pong { ping } => self.of_ping(*ping, event),
            Event::Succeeded { attempt } | Event::Failed { attempt, .. } => {
                self.of_attempt(*attempt, event)
            }
            Event::Dropped { attempt } => self.of_caller(*attempt, event),
            other => return vec![other.clone()],
        };
        self.counts.facts += 1;
        if told.is_empty() {
            self.counts.facts_dropped += 1;
        }
        told
    }

    /// A fact about nothing that was there: the same about nothing that is there, as long as the ids
    /// are the recorded ones.
    fn stale(&self, event: &Event) -> Vec<Event> {
        if self.differs { Vec::new() } else { vec![event.clone()] }
    }

    fn of_conn(&self, recorded: ConnId, event: &Event) -> Vec<Event> {
        let Some(was) = self.recorded.conn(recorded) else { return self.stale(event) };
        let is_sign = matches!(event, Event::Heard { .. } | Event::Heartbeat { .. });
        let followers = self.bonds.followers(recorded).into_iter().filter(|conn| {
            let concerned = match self.bonds.of(*conn) {
                Some(Bond::Same(_) | Bond::Own(_)) => true,
                Some(Bond::Borrowed(_)) => is_sign,
                _ => false,
            };
            let up = self.conns.get(conn).map(|one| one.up);
            concerned && up == Some(was.up.is_some())
        });
        followers.map(|conn| about(event, conn)).collect()
    }

    fn of_ping(&mut self, recorded: PingId, event: &Event) -> Vec<Event> {
        match self.same_pings.remove(&recorded) {
            Some((ping, conn)) if self.conns.contains_key(&conn) => vec![Event::Pong { ping }],
            Some(_) | None => self.stale(event),
        }
    }

    fn of_attempt(&mut self, recorded: AttemptId, event: &Event) -> Vec<Event> {
        let same = self.same_attempts.remove(&recorded);
        let Some(attempt) = same.filter(|same| self.attempts.contains_key(same)) else {
            let was_out = self.recorded.attempts.contains_key(&recorded);
            return if was_out { Vec::new() } else { self.stale(event) };
        };
        match event {
            Event::Failed { kind, retry_after, .. } => {
                vec![Event::Failed { attempt, kind: *kind, retry_after: *retry_after }]
            }
            _ => vec![Event::Succeeded { attempt }],
        }
    }

    /// The caller went away, whatever its call was doing here.
    fn of_caller(&mut self, recorded: AttemptId, event: &Event) -> Vec<Event> {
        let same = self.same_attempts.remove(&recorded);
        if let Some(attempt) = same.filter(|same| self.attempts.contains_key(same)) {
            return vec![Event::Dropped { attempt }];
        }
        let Some(&call) = self.recorded.attempts.get(&recorded) else { return self.stale(event) };
        match self.calls.get(&call).map(|attempts| attempts.first().copied()) {
            Some(Some(attempt)) => vec![Event::Dropped { attempt }],
            Some(None) => vec![Event::CancelCall { call }],
            None => Vec::new(),
        }
    }
}

/// The same event about another connection.
fn about(event: &Event, conn: ConnId) -> Event {
    let mut event = event.clone();
    match &mut event {
        Event::Connected { conn: place, .. }
        | Event::DialFailed { conn: place, .. }
        | Event::Lost { conn: place, .. }
        | Event::Heard { conn: place }
        | Event::Heartbeat { conn: place }
        | Event::GoAway { conn: place, .. }
        | Event::Metrics { conn: place, .. } => *place = conn,
        _ => {}
    }
    event
}
