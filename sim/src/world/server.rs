//! Servers: one queue in front of one desk.

use std::collections::VecDeque;

use steadfast::{ConnId, DialCause, Time};

use super::{Answer, Happening, World};
use crate::draws::Purpose;
use crate::driver::Phase;
use crate::plan::{ServerPlan, Way};
use crate::queue::Rank;
use crate::scenario::{Abandoned, Gone, Overflow};
use crate::units::{Share, Span};

/// A dial at a server: whose, and which.
pub(super) type Caller = (usize, ConnId);

/// A server and what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// How long a handshake occupies the desk, usually.
    usual: Option<Span>,
    /// The same while a fault changes it; the one that began last counts.
    pub(super) capacity: Vec<Span>,
    waiting: VecDeque<Caller>,
    at_desk: Option<Caller>,
    /// Raised whenever the desk is cleared, so that what was under way there is void.
    epoch: u32,
    pub(super) down: u32,
    pub(super) silent: u32,
    /// Since when it is silent.
    pub(super) silent_since: Time,
    /// How handshakes end while a fault has them fail; the one that began last counts.
    pub(super) rejects: Vec<DialCause>,
    /// The shares of look-ups of its name that fail.
    pub(super) unresolved: Vec<Share>,
}

impl Server {
    pub(super) fn new(plan: &ServerPlan) -> Self {
        Self {
            usual: plan.turn,
            capacity: Vec::new(),
            waiting: VecDeque::new(),
            at_desk: None,
            epoch: 0,
            down: 0,
            silent: 0,
            silent_since: Time::MAX,
            rejects: Vec::new(),
            unresolved: Vec::new(),
        }
    }

    /// How long a handshake occupies the desk now.
    pub(super) fn turn(&self) -> Option<Span> {
        self.capacity.last().copied().or(self.usual)
    }

    /// How many wait, and whether somebody is at the desk.
    pub(super) fn load(&self) -> (usize, bool) {
        (self.waiting.len(), self.at_desk.is_some())
    }

    /// It falls silent, or speaks again.
    pub(super) fn silence(&mut self, begins: bool, now: Time) {
        self.silent = if begins { self.silent + 1 } else { self.silent - 1 };
        self.silent_since = if self.silent > 0 { self.silent_since.min(now) } else { Time::MAX };
    }

    /// Whether its connections say anything.
    pub(super) const fn speaks(&self) -> bool {
        self.down == 0 && self.silent == 0
    }

    /// Everybody who waits for it, who no longer does.
    pub(super) fn clear(&mut self) -> Vec<Caller> {
        self.epoch += 1;
        self.at_desk.take().into_iter().chain(self.waiting.drain(..)).collect()
    }
}

/// What the answer to a dial that is gone takes.
const LATE_ANSWER_NS: u64 = 20_000_000;

impl World<'_> {
    /// A dial reaches its server.
    pub(super) fn arrive(&mut self, index: usize, manager: usize, conn: ConnId) {
        let plan = &self.plan.servers[index];
        let server = &mut self.servers[index];
        if server.down > 0 {
            return self.refuse(manager, conn);
        }
        if server.silent > 0 {
            return;
        }
        match self.host_of(manager, conn) {
            Some(Gone::Silent) => return,
            Some(Gone::Down) => return self.refuse(manager, conn),
            None => {}
        }
        let server = &mut self.servers[index];
        if server.turn().is_none() {
            return self.accept(index, manager, conn);
        }
        if server.at_desk.is_none() {
            return self.serve(index, (manager, conn));
        }
        if server.waiting.len() < plan.queue {
            server.waiting.push_back((manager, conn));
        } else if plan.overflow == Overflow::Refuse {
            self.refuse(manager, conn);
        }
    }

    /// A handshake begins.
    fn serve(&mut self, index: usize, caller: Caller) {
        let server = &mut self.servers[index];
        server.at_desk = Some(caller);
        let at = self.now.plus_nanos(server.turn().map_or(0, Span::as_nanos));
        let (epoch, server) = (server.epoch, index);
        self.queue.push(at, Rank::World, Happening::Done { server, epoch });
    }

    /// A handshake is done.
    pub(super) fn done(&mut self, index: usize, epoch: u32) {
        let server = &mut self.servers[index];
        if server.epoch != epoch {
            return;
        }
        let Some((manager, conn)) = server.at_desk.take() else { return };
        self.accept(index, manager, conn);
        while let Some((manager, conn)) = self.servers[index].waiting.pop_front() {
            let gone = self.drivers[manager].conn(conn).is_none();
            if gone && self.plan.servers[index].abandoned == Abandoned::Skip {
                continue;
            }
            return self.serve(index, (manager, conn));
        }
    }

    fn accept(&mut self, index: usize, manager: usize, id: ConnId) {
        if let Some(cause) = self.servers[index].rejects.last().copied() {
            return self.reject(manager, id, cause);
        }
        match self.host_of(manager, id) {
            Some(Gone::Silent) => return,
            Some(Gone::Down) => return self.refuse(manager, id),
            None => {}
        }
        let driver = &mut self.drivers[manager];
        let Some(conn) = driver.conn(id) else {
            self.measures.server_wasted += 1;
            if self.plan.habits.late_facts > Share::default() {
                // The server cannot know, and a driver may tell.
                let answer = Answer::Accepted { resumed: false };
                let at = self.now.plus_nanos(LATE_ANSWER_NS);
                self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
            }
            return;
        };
        if conn.phase == Phase::Stale {
            self.measures.server_wasted += 1;
            return;
        }
        let (attempt, resume, owner, way) = (conn.attempt(), conn.resume, conn.peer(), conn.way());
        if !self.balance(index, manager, id) {
            return self.refuse(manager, id);
        }
        if let Some(conn) = self.drivers[manager].conn(id) {
            conn.phase = Phase::Answered;
        }
        let peer = &self.peers[owner];
        let group = &self.plan.groups[peer.group as usize];
        let name = group.peer_id(peer.place).0;
        let until = self.sessions.get(owner).copied().unwrap_or(Time::ZERO);
        let resumed = resume && self.now <= until;
        let Some(&Way { link, .. }) = group.ways.get(way) else { return };
        if self.is_lost(link, Purpose::LostBack, name, attempt) {
            return;
        }
        let generator = &mut self.draws.generator(Purpose::Service, name, attempt);
        let service = self.plan.servers[index].service.sample(generator).as_nanos();
        let back = self.latency(link, Purpose::DialBack, name, attempt).as_nanos();
        let at = self.in_order(manager, id, Span::from_nanos(service.saturating_add(back)));
        let answer = Answer::Accepted { resumed };
        self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
    }

    /// A server says no before a handshake.
    pub(super) fn refuse(&mut self, manager: usize, id: ConnId) {
        self.reject(manager, id, DialCause::Refused);
    }

    /// A server says no, for this reason.
    fn reject(&mut self, manager: usize, id: ConnId, cause: DialCause) {
        self.measures.refused += 1;
        let Some(conn) = self.drivers[manager].conn(id).copied() else { return };
        let peer = &self.peers[conn.peer()];
        let group = &self.plan.groups[peer.group as usize];
        let name = group.peer_id(peer.place).0;
        let Some(&Way { link, .. }) = group.ways.get(conn.way()) else { return };
        if !self.is_lost(link, Purpose::LostBack, name, conn.attempt()) {
            let back = self.latency(link, Purpose::DialBack, name, conn.attempt());
            let at = self.in_order(manager, id, back);
            let answer = Answer::Failed(cause);
            self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
        }
    }
}
