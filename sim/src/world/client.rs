//! The client's side of a connection: dialed, answered, closed.

use steadfast::{ConnId, DialCause, Event};

use super::{Answer, Happening, Step, WARM_UP_DIAL_NS, Who, World};
use crate::dist::unit;
use crate::draws::Purpose;
use crate::driver::{Conn, Phase};
use crate::plan::Way;
use crate::queue::Rank;

impl World<'_> {
    pub(super) fn dial(
        &mut self,
        manager: usize,
        id: ConnId,
        index: usize,
        way: usize,
        resume: bool,
    ) {
        let plan = self.plan;
        let peer = &mut self.peers[index];
        peer.dials += 1;
        let (attempt, group) = (u64::from(peer.dials), &plan.groups[peer.group as usize]);
        let name = group.peer_id(peer.place).0;
        let driver = &mut self.drivers[manager];
        driver.open(id, index, way, resume, peer.dials);
        if self.half_open > 0 {
            let breaker = group.breaker_id(peer.place, way);
            if let Some(view) = self.breakers.get_mut(manager, breaker)
                && view.half_open > 0
                && let Some(conn) = driver.conn(id)
            {
                conn.half_open = view.half_open;
                view.dials += 1;
                let most = &mut self.measures.half_open_dials;
                *most = (*most).max(u64::from(view.dials));
                self.oracle.probe_begins(manager, id, self.now);
            }
        }
        if self.warming || group.trace.is_some() {
            if let Some(conn) = driver.conn(id) {
                conn.phase = Phase::Answered;
            }
            if let Some(&Way { server, .. }) = group.ways.get(way) {
                self.balance(server, manager, id);
            }
            let answer = Answer::Accepted { resumed: false };
            let at = self.now.plus_nanos(WARM_UP_DIAL_NS);
            self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
            return;
        }
        self.measures.dialed(self.peers[index].group as usize, self.now);
        let Some(&Way { server, link }) = group.ways.get(way) else { return };
        let (offline, on) = (driver.offline > 0, driver.is_on());
        self.measures.offline_dials += u64::from(!on);
        let at =
            self.now.plus_nanos(self.latency(link, Purpose::DialOut, name, attempt).as_nanos());
        if offline {
            let answer = Answer::NoNetwork;
            self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
        } else if self.links[link].cut > 0 {
            let answer = Answer::Failed(DialCause::Unreachable);
            self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
        } else if self.is_unresolved(server, name, attempt) {
            let answer = Answer::Failed(DialCause::Resolve);
            self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
        } else if !self.is_lost(link, Purpose::LostOut, name, attempt) {
            self.queue.push(at, Rank::World, Happening::Arrive { manager, conn: id, server });
        }
    }

    /// Whether the server's name is looked up in vain.
    fn is_unresolved(&self, server: usize, who: u64, n: u64) -> bool {
        let unresolved = &self.servers[server].unresolved;
        let found = unresolved.iter().fold(1.0, |found, share| found * (1.0 - share.as_f64()));
        found < 1.0 && unit(self.draws.draw(Purpose::Lookup, who, n)) >= found
    }

    /// The client is done with a connection, however it came to that.
    pub(super) fn close(&mut self, manager: usize, id: ConnId) {
        let Some(conn) = self.drivers[manager].close(id) else { return };
        if !self.plan.workloads.is_empty() {
            self.break_attempts(manager, id);
        }
        self.probe_over(manager, id, &conn);
        if conn.phase.at_server() {
            self.unbalance(&conn);
            self.forget_session_later(conn.peer());
        }
        let peer = &mut self.peers[conn.peer()];
        if peer.conn == Some(id) {
            peer.conn = None;
        }
    }

    /// The server lost the peer's connection and keeps the session for a while.
    pub(super) fn forget_session_later(&mut self, peer: usize) {
        let group = &self.plan.groups[self.peers[peer].group as usize];
        if let Some(ttl) = group.session_ttl
            && let Some(until) = self.sessions.get_mut(peer)
        {
            *until = self.now.plus_nanos(ttl.as_nanos());
        }
    }

    /// A dial that a half-open breaker may have admitted is over.
    pub(super) fn probe_over(&mut self, manager: usize, id: ConnId, conn: &Conn) {
        if conn.half_open == 0 {
            return;
        }
        let Who { group, place, .. } = self.peers[conn.peer()].who();
        let breaker = self.plan.groups[group].breaker_id(place, conn.way());
        let view = self.breakers.get_mut(manager, breaker);
        let view = view.filter(|view| view.half_open == conn.half_open);
        let same = view.is_some();
        if let Some(view) = view {
            view.dials = view.dials.saturating_sub(1);
        }
        self.probe_ends(manager, id, group, same);
    }

    pub(super) fn answered(&mut self, manager: usize, conn: ConnId, answer: Answer) -> Step {
        let failed = |cause| Event::DialFailed { conn, cause, retry_after: None };
        let event = match answer {
            Answer::Accepted { resumed } => Event::Connected { conn, resumed },
            Answer::Failed(cause) => failed(cause),
            Answer::NoNetwork => return self.tell(manager, failed(DialCause::Unreachable)),
        };
        self.receive(manager, event)
    }
}
