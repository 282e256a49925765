//! The rival of whole services: what a careful program would write by hand.
//!
//! A map of peers, a heap of deadlines, a breaker and a line for each server. A deadline that no
//! longer holds stays in the heap and is known by its round when it comes up; when there are too
//! many of those, they are swept out. It has no invariants, notices, sessions, rates or snapshots.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashMap;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
/// How long a connection must last for failures to be forgotten.
const STABLE: u64 = 10 * SECOND;
const OPEN_FOR: u64 = 5 * SECOND;
const TRIPS_AFTER: u32 = 5;
const MAX_IN_FLIGHT: u32 = 256;

/// In nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) silence: u64,
    pub(crate) dial_timeout: u64,
    pub(crate) backoff: u64,
    pub(crate) max_backoff: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Waiting,
    InLine,
    Dialing,
    Up,
}

struct Peer {
    phase: Phase,
    /// Raised with each phase: a deadline of an earlier round is void.
    round: u32,
    server: u32,
    failures: u32,
    since: u64,
    last_heard: u64,
}

#[derive(Default)]
struct Server {
    peers: u32,
    failures: u32,
    open_until: u64,
    in_flight: u32,
    line: VecDeque<u64>,
}

/// When, in what order, for whom, in which of its rounds.
type Deadline = Reverse<(u64, u64, u64, u32)>;

pub(crate) struct ByHand {
    limits: Limits,
    peers: HashMap<u64, Peer>,
    servers: Vec<Server>,
    deadlines: BinaryHeap<Deadline>,
    sequence: u64,
    random: u64,
    /// Who is to be dialed.
    pub(crate) dials: Vec<u64>,
}

impl ByHand {
    /// Everybody connected.
    pub(crate) fn connected(limits: Limits, n: u32, servers: u32) -> Self {
        let mut new = Self {
            limits,
            peers: HashMap::new(),
            servers: (0..servers).map(|_| Server::default()).collect(),
            deadlines: BinaryHeap::new(),
            sequence: 0,
            random: 1,
            dials: Vec::new(),
        };
        for id in 0..n {
            let server = id % servers;
            let (phase, round, failures) = (Phase::Up, 0, 0);
            let peer = Peer { phase, round, server, failures, since: 0, last_heard: 0 };
            new.peers.insert(id.into(), peer);
            new.servers[server as usize].peers += 1;
            new.arm(limits.silence, id.into(), 0);
        }
        new
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.peek().map(|Reverse((at, ..))| *at)
    }

    #[inline]
    pub(crate) fn heard(&mut self, id: u64, now: u64) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.phase == Phase::Up
        {
            peer.last_heard = now;
        }
    }

    pub(crate) fn lost(&mut self, id: u64, now: u64) {
        let random = self.draw();
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.phase == Phase::Up) else {
            return;
        };
        let delay = if now - peer.since >= STABLE {
            peer.failures = 0;
            // A mass loss is spread over what its server takes, 5,000 dials a second.
            let peers = u64::from(self.servers[peer.server as usize].peers);
            self.limits.backoff.max(peers * SECOND / 5_000)
        } else {
            peer.failures += 1;
            delay(&self.limits, peer.failures)
        };
        let round = enter(peer, Phase::Waiting, now);
        self.arm(now + random % delay, id, round);
    }

    pub(crate) fn connected_at(&mut self, id: u64, now: u64) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.phase == Phase::Dialing) else {
            return;
        };
        peer.last_heard = now;
        let (server, round) = (peer.server, enter(peer, Phase::Up, now));
        self.servers[server as usize].failures = 0;
        self.arm(now + self.limits.silence, id, round);
        self.dial_ended(server, now);
    }

    pub(crate) fn tick(&mut self, now: u64) {
        while let Some(&Reverse((at, _, id, round))) = self.deadlines.peek()
            && at <= now
        {
            self.deadlines.pop();
            let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.round == round) else {
                continue;
            };
            match peer.phase {
                Phase::Waiting => self.stand_in_line(id, now),
                Phase::Up if peer.last_heard + self.limits.silence > now => {
                    let until = peer.last_heard + self.limits.silence;
                    self.arm(until, id, round);
                }
                Phase::Up => self.lost(id, now),
                Phase::Dialing => self.timed_out(id, now),
                Phase::InLine => {}
            }
        }
        if self.deadlines.len() > 4 * self.peers.len() + 1_024 {
            let holds = |id: &u64, round: u32| self.peers.get(id).is_some_and(|p| p.round == round);
            self.deadlines.retain(|Reverse((_, _, id, round))| holds(id, *round));
        }
    }

    fn stand_in_line(&mut self, id: u64, now: u64) {
        let random = self.draw();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let server = &mut self.servers[peer.server as usize];
        if server.open_until > now {
            let (until, round) = (server.open_until, peer.round);
            self.arm(until + random % SECOND, id, round);
        } else if server.in_flight < MAX_IN_FLIGHT {
            self.dial(id, now);
        } else {
            enter(peer, Phase::InLine, now);
            server.line.push_back(id);
        }
    }

    fn dial(&mut self, id: u64, now: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let round = enter(peer, Phase::Dialing, now);
        self.servers[peer.server as usize].in_flight += 1;
        self.arm(now + self.limits.dial_timeout, id, round);
        self.dials.push(id);
    }

    fn timed_out(&mut self, id: u64, now: u64) {
        let random = self.draw();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.failures += 1;
        let delay = delay(&self.limits, peer.failures);
        let (number, round) = (peer.server, enter(peer, Phase::Waiting, now));
        let server = &mut self.servers[number as usize];
        server.failures += 1;
        if server.failures >= TRIPS_AFTER {
            (server.failures, server.open_until) = (0, now + OPEN_FOR);
        }
        self.arm(now + random % delay, id, round);
        self.dial_ended(number, now);
    }

    fn dial_ended(&mut self, server: u32, now: u64) {
        let server = &mut self.servers[server as usize];
        server.in_flight -= 1;
        if let Some(next) = server.line.pop_front() {
            self.dial(next, now);
        }
    }

    fn arm(&mut self, at: u64, id: u64, round: u32) {
        self.deadlines.push(Reverse((at, self.sequence, id, round)));
        self.sequence += 1;
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn enter(peer: &mut Peer, phase: Phase, now: u64) -> u32 {
    (peer.phase, peer.since) = (phase, now);
    peer.round += 1;
    peer.round
}

fn delay(limits: &Limits, failures: u32) -> u64 {
    limits.max_backoff.min(limits.backoff << (failures - 1).min(20))
}
