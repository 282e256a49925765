//! Bytes on the heap of a large fleet, as a table that must not change by itself.
//!
//! Its own binary with a counting allocator, and one test, so that nobody else allocates meanwhile.
#![cfg(target_pointer_width = "64")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::alloc::System;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use insta::assert_snapshot;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use steadfast::config::{Detector, HealthConfig, Signs};
use steadfast::{
    Action, BreakerId, BreakerProfileId, Config, ConnId, DialCause, Endpoint, EndpointId, Event,
    LossCause, Manager, PeerId, PeerProfileId, Time,
};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PEERS: u64 = 100_000;
const BREAKERS: u64 = 100;

fn live_bytes() -> usize {
    let stats = GLOBAL.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// A manager, and how much of the heap it began with.
struct Fleet {
    manager: Manager,
    actions: Vec<Action>,
    conns: Vec<ConnId>,
    now: Time,
    before: usize,
}

/// Bytes of a whole fleet.
#[derive(Clone, Copy)]
struct Bytes {
    /// As it grew, with the room of its vectors for more.
    grown: usize,
    /// As a copy takes them, without that room.
    exact: usize,
}

impl Bytes {
    fn less(self, other: Self) -> Self {
        Self { grown: self.grown - other.grown, exact: self.exact - other.exact }
    }
}

impl Fleet {
    /// Peers are judged by a deadline of 30 s if they are monitored.
    fn new(signs: Signs) -> Self {
        // Made before, with room for all, because the driver's vectors do not count.
        let (actions, conns) = (Vec::with_capacity(10_000), Vec::with_capacity(100_000));
        let before = live_bytes();
        let mut config = Config::new(1);
        let detector = Detector::Deadline(Duration::from_secs(30));
        config.peer_profiles[0].health = HealthConfig { signs, detector, ..Default::default() };
        let manager = Manager::new(config, 2).unwrap();
        Self { manager, actions, conns, now: Time::ZERO, before }
    }

    fn step(&mut self, event: Event) {
        self.actions.clear();
        self.manager.step_into(event, self.now, &mut self.actions);
        self.conns.extend(self.actions.iter().filter_map(|action| match action {
            Action::Dial { conn, .. } => Some(*conn),
            _ => None,
        }));
    }

    fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(due) = self.manager.next_deadline().filter(|&due| due <= until) {
            self.now = due;
            self.step(Event::Tick);
        }
        self.now = until;
    }

    fn add_breakers(&mut self, count: u64) {
        for id in 0..count {
            let (breaker, profile) = (BreakerId(id), BreakerProfileId(0));
            self.step(Event::AddBreaker { breaker, profile });
        }
    }

    fn add_peers(&mut self, endpoints: u64) {
        for id in 0..PEERS {
            let endpoint = |place| Endpoint {
                id: EndpointId(u32::try_from(place).unwrap()),
                breaker: BreakerId((id + place) % BREAKERS),
            };
            let (peer, profile) = (PeerId(id), PeerProfileId(0));
            let endpoints = (0..endpoints).map(endpoint).collect();
            self.step(Event::AddPeer { peer, profile, endpoints });
        }
    }

    /// One every tenth of a millisecond, so that their timers do not fall together.
    fn connect(&mut self) {
        for id in 0..PEERS {
            self.wait(Duration::from_micros(100));
            self.step(Event::Connect { peer: PeerId(id) });
            let conn = *self.conns.last().unwrap();
            self.step(Event::Connected { conn, resumed: false });
        }
        assert_eq!(u64::from(self.manager.stats().peers.connected), PEERS);
    }

    /// All are heard every ten seconds, one after the other.
    fn live(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for place in 0..self.conns.len() {
                self.wait(Duration::from_micros(100));
                let conn = self.conns[place];
                self.step(Event::Heard { conn });
            }
        }
        assert_eq!(u64::from(self.manager.stats().peers.connected), PEERS);
    }

    /// All are lost, and the next dial to each of a peer's two endpoints fails.
    fn fail_once(&mut self) {
        for id in 0..BREAKERS {
            self.step(Event::Disable { breaker: BreakerId(id) });
        }
        let mut failures = vec![0_u8; usize::try_from(PEERS).unwrap()];
        let mut dials = VecDeque::new();
        for conn in std::mem::take(&mut self.conns) {
            self.step(Event::Lost { conn, cause: LossCause::Reset });
            dials.extend(self.dials());
        }
        while u64::from(self.manager.stats().peers.connected) < PEERS {
            let event = match dials.pop_front() {
                None => {
                    self.now = self.manager.next_deadline().unwrap().max(self.now);
                    Event::Tick
                }
                Some((conn, peer)) => {
                    let failed = &mut failures[usize::try_from(peer.0).unwrap()];
                    *failed += 1;
                    let (cause, retry_after) = (DialCause::Unreachable, None);
                    match failed {
                        0..=2 => Event::DialFailed { conn, cause, retry_after },
                        _ => Event::Connected { conn, resumed: false },
                    }
                }
            };
            self.step(event);
            dials.extend(self.dials());
        }
        assert_eq!(self.manager.stats().dial_failures.unreachable, 2 * PEERS);
    }

    /// What the last step asked for.
    fn dials(&self) -> impl Iterator<Item = (ConnId, PeerId)> {
        self.actions.iter().filter_map(|action| match action {
            Action::Dial { conn, peer, .. } => Some((*conn, *peer)),
            _ => None,
        })
    }

    fn bytes(&self) -> Bytes {
        let now = live_bytes();
        let copy = self.manager.clone();
        let exact = live_bytes() - now;
        drop(copy);
        Bytes { grown: now - self.before, exact }
    }
}

#[test]
fn a_connected_peer_takes_so_many_bytes() {
    let mut table = String::from("bytes each                   grown  exact");
    let mut row = |name: &str, more: Bytes, than: Bytes| {
        let each = |more: usize, than: usize| (more as f64 - than as f64) / PEERS as f64;
        let (grown, exact) = (each(more.grown, than.grown), each(more.exact, than.exact));
        write!(table, "\n{name:<28}{grown:>6.0}{exact:>7.0}").unwrap();
    };

    let mut private = Fleet::new(Signs::Unmonitored);
    let none = private.bytes();
    private.add_breakers(PEERS);
    row("breaker", private.bytes(), none);
    drop(private);

    let mut plain = Fleet::new(Signs::Unmonitored);
    plain.add_breakers(BREAKERS);
    let empty = plain.bytes();
    plain.add_peers(1);
    let (one, peers) = (plain.bytes(), plain.manager.stats().peers.disconnected);
    assert_eq!(u64::from(peers), PEERS);
    plain.connect();
    let unmonitored = plain.bytes();
    drop(plain);

    let mut fleet = Fleet::new(Signs::Heartbeats);
    fleet.add_breakers(BREAKERS);
    fleet.add_peers(2);
    let two = fleet.bytes();
    fleet.connect();
    let connected = fleet.bytes();
    fleet.live(3);
    let lived = fleet.bytes();

    row("peer with one endpoint", one, empty);
    row("another endpoint", two, one);
    row("connection", unmonitored, one);
    row("its detector", connected.less(two), unmonitored.less(one));
    row("left behind by its timers", lived, connected);
    row("all of a connected peer", lived, empty);
    fleet.fail_once();
    row("left behind by failures", fleet.bytes(), lived);
    assert_snapshot!(table);
}
