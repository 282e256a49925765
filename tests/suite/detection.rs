//! How good detection is, measured: mistakes and detection times of the manager itself in front of
//! peers whose deaths are known, while our own process stalls.
//!
//! The full size, a thousand peer-days each, takes some minutes and prints a table:
//! `cargo test --release --test suite detection -- --ignored --nocapture`
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are rounded"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use steadfast::config::{Detector, OnSuspect, Signs};
use steadfast::draw::{Draws, Purpose};
use steadfast::phi::PhiConfig;
use steadfast::{
    Action, BreakerId, Config, ConnId, Endpoint, EndpointId, Event, Manager, Notice, PeerId, Time,
};

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// What a driver does first when it wakes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum First {
    Feeds,
    Ticks,
}

/// Draws, one after the other.
struct Dice(Draws, u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.1 += 1;
        (self.0.draw(Purpose::Backoff, self.1) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: u64) -> u64 {
        (-libm::log(1.0 - self.unit()) * mean as f64) as u64
    }
}

/// A peer beats every second, more or less, until it dies; it lives again on its next connection.
#[derive(Clone, Copy)]
struct Peer {
    conn: ConnId,
    /// When its last beat came in.
    beat_at: u64,
    dies_at: u64,
    dead: bool,
}

struct World {
    manager: Manager,
    dice: Dice,
    peers: Vec<Peer>,
    by_conn: BTreeMap<ConnId, usize>,
    /// When the next beat of whom comes in.
    beats: BinaryHeap<Reverse<(u64, usize)>>,
    mistakes: u64,
    /// How long each death went unnoticed, since the last beat.
    found_after: Vec<u64>,
}

impl World {
    fn new(config: Config, peers: u64) -> Self {
        let profiles = (config.peer_profile("default"), config.breaker_profile("default"));
        let breaker = BreakerId(0);
        let mut world = Self {
            manager: Manager::new(config, 1).unwrap(),
            dice: Dice(Draws::new(1, 7), 0),
            peers: Vec::new(),
            by_conn: BTreeMap::new(),
            beats: BinaryHeap::new(),
            mistakes: 0,
            found_after: Vec::new(),
        };
        let add = Event::AddBreaker { breaker, profile: profiles.1.unwrap() };
        world.step(add, 0);
        for id in 0..peers {
            let (peer, endpoints) = (PeerId(id), vec![Endpoint { id: EndpointId(0), breaker }]);
            let conn = ConnId::from_raw(u64::MAX);
            let dies_at = world.dice.exponential(DAY / 4);
            world.peers.push(Peer { conn, beat_at: 0, dies_at, dead: true });
            world.step(Event::AddPeer { peer, profile: profiles.0.unwrap(), endpoints }, 0);
            world.step(Event::Connect { peer }, 0);
        }
        world
    }

    /// One step, and what the world makes of it: dials succeed at once.
    fn step(&mut self, event: Event, now: u64) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.manager.step(event, Time::from_nanos(now)) {
                match action {
                    Action::Dial { conn, peer, .. } => {
                        let index = peer.0 as usize;
                        let dies_at = now + self.dice.exponential(DAY / 4);
                        self.peers[index] = Peer { conn, beat_at: now, dies_at, dead: false };
                        self.by_conn.insert(conn, index);
                        let first = now + (self.dice.unit() * SECOND as f64) as u64;
                        self.beats.push(Reverse((first, index)));
                        events.push(Event::Connected { conn, resumed: false });
                    }
                    Action::Close { conn } => drop(self.by_conn.remove(&conn)),
                    Action::Notice(Notice::Suspected { peer, .. }) => {
                        let peer = &mut self.peers[peer.0 as usize];
                        if peer.dead {
                            self.found_after.push(now - peer.beat_at);
                        } else {
                            self.mistakes += 1;
                            peer.dead = true;
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Feeds what has come in by now.
    fn feed(&mut self, now: u64) {
        while let Some(&Reverse((at, index))) = self.beats.peek().filter(|beat| beat.0.0 <= now) {
            self.beats.pop();
            let peer = &mut self.peers[index];
            if peer.dead {
                continue;
            }
            if at >= peer.dies_at {
                peer.dead = true;
                continue;
            }
            peer.beat_at = at;
            let jitter = (self.dice.unit() - 0.5) * 0.1;
            self.beats.push(Reverse((at + ((1.0 + jitter) * SECOND as f64) as u64, index)));
            let conn = self.peers[index].conn;
            if self.by_conn.contains_key(&conn) {
                self.step(Event::Heartbeat { conn }, now);
            }
        }
    }

    /// Sleeps until something comes in or is due; stalls once in ten seconds for a second.
    fn run(&mut self, first: First, until: u64) {
        let mut now = 0;
        let mut stall_at = self.dice.exponential(10 * SECOND);
        while now < until {
            let due = self.manager.next_deadline().map_or(u64::MAX, Time::as_nanos);
            let beat = self.beats.peek().map_or(u64::MAX, |beat| beat.0.0);
            now = now.max(due.min(beat));
            if now >= stall_at {
                now = now.max(stall_at + self.dice.exponential(SECOND));
                stall_at = now + self.dice.exponential(10 * SECOND);
            }
            if first == First::Ticks {
                self.step(Event::Tick, now);
            }
            self.feed(now);
            if first == First::Feeds {
                self.step(Event::Tick, now);
            }
        }
    }
}

struct Figures {
    mistakes: u64,
    deaths: usize,
    median: f64,
    late: f64,
    worst: f64,
}

/// What comes of so many peers in so many days; times in multiples of `nominal`.
fn measure(config: &Config, peers: u64, days: u64, first: First, nominal: Duration) -> Figures {
    let mut world = World::new(config.clone(), peers);
    world.run(first, days * DAY);
    world.manager.check().unwrap();
    let mut found = world.found_after;
    found.sort_unstable();
    let times = |place: usize| found[place] as f64 / nominal.as_nanos() as f64;
    let deaths = found.len();
    Figures {
        mistakes: world.mistakes,
        deaths,
        median: times(deaths / 2),
        late: times(deaths * 99 / 100),
        worst: times(deaths - 1),
    }
}

fn config(detector: Detector) -> Config {
    let mut config = Config::new(1);
    let health = &mut config.peer_profiles[0].health;
    (health.signs, health.detector) = (Signs::Heartbeats, detector);
    config
}

/// Three heartbeats may be missing: what somebody would choose who wants it fast.
const DEADLINE: Duration = Duration::from_secs(4);
/// 1 s, a pause of 3 s, and 5.6 deviations of a tenth.
const PHI: Duration = Duration::from_millis(4_561);

#[test]
fn stalls_of_our_own_are_blamed_on_nobody_and_hide_no_death() {
    // Detectors of some seconds are late by the stalls themselves, and by the time that judgement
    // holds after each: now and then by a few seconds, whatever the detector.
    let half_a_minute = Duration::from_secs(30);
    for (detector, nominal, worst_allowed) in [
        (Detector::Deadline(half_a_minute), half_a_minute, 1.5),
        (Detector::Deadline(DEADLINE), DEADLINE, 5.0),
        (Detector::Phi(PhiConfig::default()), PHI, 5.0),
    ] {
        for first in [First::Feeds, First::Ticks] {
            let Figures { mistakes, deaths, median, late, worst } =
                measure(&config(detector), 5, 2, first, nominal);
            let figures = format!("{detector:?}, {first:?}: {deaths}, {median} {late} {worst}");
            assert_eq!(mistakes, 0, "{figures}");
            let found = deaths > 20 && median < 1.5 && worst < worst_allowed;
            assert!(found, "{figures}");
        }
    }
}

#[test]
#[ignore = "takes minutes; see above"]
fn a_thousand_peer_days_of_stalls() {
    println!("detector      guards      peers first   mistakes deaths  median   99 %  worst");
    let hasty = PhiConfig { acceptable_pause: Duration::ZERO, ..PhiConfig::default() };
    let half_a_minute = Duration::from_secs(30);
    let detectors = [
        ("deadline 30 s", Detector::Deadline(half_a_minute), half_a_minute),
        ("phi", Detector::Phi(PhiConfig::default()), PHI),
        ("phi, pause 0", Detector::Phi(hasty), Duration::from_millis(1_561)),
        ("deadline 4 s", Detector::Deadline(DEADLINE), DEADLINE),
    ];
    for (name, detector, nominal) in detectors {
        for (guards, peers) in [("default", 10), ("none", 10), ("unbounded", 10), ("default", 50)] {
            let mut config = config(detector);
            match guards {
                "none" => (config.self_health, config.mass_guard) = (None, None),
                "unbounded" => {
                    let health = config.self_health.as_mut().unwrap();
                    health.max_stretch = steadfast::Ratio::new(8, 1);
                }
                _ => {}
            }
            for first in [First::Feeds, First::Ticks] {
                let Figures { mistakes, deaths, median, late, worst } =
                    measure(&config, peers, 1_000 / peers, first, nominal);
                println!(
                    "{name:<13} {guards:<11} {peers:>5} {first:<7?} {mistakes:>8} {deaths:>6} \
                     {median:>7.2} {late:>6.2} {worst:>6.2}",
                    first = format!("{first:?}"),
                );
            }
        }
    }
}

#[test]
fn a_live_peer_that_talks_in_bursts_is_never_suspected_in_a_day() {
    let interval = Duration::from_secs(10);
    let phi = PhiConfig { expected_interval: interval, ..PhiConfig::default() };
    let mut config = config(Detector::Phi(phi));
    config.peer_profiles[0].health.on_suspect = OnSuspect::Notify;
    let mut world = World::new(config, 1);
    let conn = world.peers[0].conn;
    let (mut now, mut idle_from) = (0, 0);
    while now < DAY {
        // Requests of some twenty milliseconds in bursts, and a heartbeat after ten idle seconds.
        let burst_at = now + world.dice.exponential(20 * SECOND);
        while idle_from + 10 * SECOND < burst_at {
            idle_from += 10 * SECOND;
            world.wait_until(idle_from);
            world.step(Event::Heartbeat { conn }, idle_from);
        }
        now = burst_at;
        for _ in 0..1 + world.dice.exponential(10) {
            now += world.dice.exponential(SECOND / 50);
            world.wait_until(now);
            world.step(Event::Heard { conn }, now);
        }
        idle_from = now;
    }
    let stats = world.manager.stats();
    assert_eq!((stats.suspected, stats.doubted), (0, 0));
    assert!(world.manager.phi(conn).unwrap() < 1_000);
}

impl World {
    /// Ticks at each deadline on the way.
    fn wait_until(&mut self, until: u64) {
        while let Some(due) = self.manager.next_deadline().filter(|due| due.as_nanos() < until) {
            self.step(Event::Tick, due.as_nanos());
        }
    }
}
