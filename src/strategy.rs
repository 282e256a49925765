//! Scripts of events, for property tests of policies of your own.
//!
//! A [`Script`] tells a story in relative terms: *a second later the third dial fails*. Moments are
//! spans since the line before and names are places, so a script from which proptest has taken half
//! the lines still tells a story, and a failure shrinks to one that can be read.
//!
//! A [`World`] plays it against a manager as a driver would: it sleeps exactly until each deadline,
//! carries out what it is told, and answers the dials, connections and pings that it really has.
//! About one line in eight is *wrong*: a fact about a connection that is gone, an answer given
//! twice, a clock that goes back. A manager must bear those; a driver must not send them.
//!
//! # Examples
//!
//! Whatever happens, with this policy everybody is back ten minutes after the faults stop (a server
//! may have sent somebody away for five):
//!
//! ```
//! use core::time::Duration;
//! use proptest::prelude::*;
//! use steadfast::strategy::{Shape, World};
//! use steadfast::{Config, Manager};
//!
//! let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) };
//! proptest!(config, |(script in Shape::default().script())| {
//!     let mut policy = Config::new(42);
//!     policy.peer_profiles[0].backoff.cap = Duration::from_secs(20);
//!     let mut world = World::new(Manager::new(policy, 7)?);
//!     for op in &script {
//!         world.play(op);
//!         world.manager().check()?;
//!     }
//!     world.heal(Duration::from_secs(600));
//!     let peers = world.manager().stats().peers;
//!     prop_assert_eq!(peers.connecting + peers.reconnecting + peers.failed, 0);
//! });
//! ```

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use proptest::collection::vec as vec_of;
use proptest::option;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;

use crate::action::Action;
use crate::event::{DialCause, Endpoint, Event, LossCause};
use crate::id::{
    BreakerId, BreakerProfileId, ConnId, EndpointId, PeerId, PeerProfileId, PingId, Tag,
};
use crate::manager::Manager;
use crate::time::Time;

/// A story, line by line.
pub type Script = Vec<Op>;

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The time since the line before.
    pub after: Duration,
    /// What happens then.
    pub act: Act,
}

/// What happens. Peers, breakers and addresses go by number; dials, connections and pings by their
/// place among those that are there, counted round and round. Where there is none nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the event of its name")]
#[non_exhaustive]
pub enum Act {
    AddBreaker {
        breaker: u8,
        profile: u8,
    },
    RemoveBreaker {
        breaker: u8,
    },
    AddPeer {
        peer: u8,
        profile: u8,
        endpoints: Vec<Address>,
    },
    SetEndpoints {
        peer: u8,
        endpoints: Vec<Address>,
    },
    RemovePeer {
        peer: u8,
    },
    Connect {
        peer: u8,
    },
    Disconnect {
        peer: u8,
    },
    Connected {
        dial: u8,
        resumed: bool,
    },
    DialFailed {
        dial: u8,
        cause: DialCause,
        retry_after: Option<Duration>,
    },
    Lost {
        conn: u8,
        cause: LossCause,
    },
    Heard {
        conn: u8,
    },
    Heartbeat {
        conn: u8,
    },
    Pong {
        ping: u8,
    },
    Metrics {
        conn: u8,
        latency: Duration,
        loss: u32,
    },
    Accepted {
        peer: u8,
    },
    NetworkDown,
    NetworkUp,
    Load {
        load: u32,
    },
    Restarted,
    Tick,
    ForceOpen {
        breaker: u8,
    },
    Disable {
        breaker: u8,
    },
    ResetBreaker {
        breaker: u8,
    },
    Revive {
        peer: Option<u8>,
    },
    /// The driver sleeps past the next deadline by that much, and then ticks.
    Oversleep {
        late: Duration,
    },
    /// What a driver must not do.
    Wrong(Wrong),
}

/// An address of a peer: its number and the number of the breaker that guards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The endpoint's id.
    pub id: u8,
    /// The breaker's.
    pub breaker: u8,
}

/// What a driver must not do, and a manager must bear.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// A fact about a connection that is gone.
    Dead {
        /// Its place among those that are gone.
        conn: u8,
        /// What is said of it.
        fact: Fact,
    },
    /// A fact about a connection that never was.
    Unborn {
        /// Its id.
        raw: u64,
        /// What is said of it.
        fact: Fact,
    },
    /// A fact about a connection that is up, as if it were still being dialed.
    Up {
        /// Its place.
        conn: u8,
        /// Whether it is said to be connected (again), or to have failed.
        connected: bool,
    },
    /// Something heard on a dial.
    Dialing {
        /// Its place.
        dial: u8,
        /// What is said of it.
        fact: Fact,
    },
    /// A pong for a ping that is not out.
    Pong {
        /// The ping's id.
        raw: u64,
    },
    /// Nothing, at a moment that is past.
    Backwards {
        /// How long past.
        by: Duration,
    },
}

/// What can be said of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the event of its name")]
pub enum Fact {
    Connected,
    DialFailed,
    Lost,
    Heard,
    Heartbeat,
    Metrics,
}

impl Fact {
    fn about(self, conn: ConnId) -> Event {
        match self {
            Self::Connected => Event::Connected { conn, resumed: false },
            Self::DialFailed => {
                Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None }
            }
            Self::Lost => Event::Lost { conn, cause: LossCause::Reset },
            Self::Heard => Event::Heard { conn },
            Self::Heartbeat => Event::Heartbeat { conn },
            Self::Metrics => {
                Event::Metrics { conn, latency: Duration::from_millis(3), loss: 1_000 }
            }
        }
    }
}

/// How large and how wild the scripts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Peers; 4.
    pub peers: u8,
    /// Breakers, each of which may guard several peers' addresses; 2.
    pub breakers: u8,
    /// Addresses of one peer; 1 to 3.
    pub endpoints: RangeInclusive<u8>,
    /// How many peer profiles the configuration has; 1.
    pub peer_profiles: u8,
    /// How many breaker profiles it has; 1.
    pub breaker_profiles: u8,
    /// Lines after the opening, in which breakers and peers are added; 1 to 60.
    pub lines: RangeInclusive<usize>,
    /// The longest time between two lines; 15 s. Most are much closer.
    pub longest: Duration,
    /// Whether the driver may be late and do what is [`Wrong`]; it may.
    pub faulty_driver: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            peers: 4,
            breakers: 2,
            endpoints: 1..=3,
            peer_profiles: 1,
            breaker_profiles: 1,
            lines: 1..=60,
            longest: Duration::from_secs(15),
            faulty_driver: true,
        }
    }
}

impl Shape {
    /// Scripts of this shape. Each opens with all breakers and peers, every peer wanted.
    pub fn script(&self) -> impl Strategy<Value = Script> + use<> {
        (self.opening(), vec_of(self.op(), self.lines.clone())).prop_map(|(mut script, lines)| {
            script.extend(lines);
            script
        })
    }

    fn opening(&self) -> impl Strategy<Value = Script> + use<> {
        let (breakers, peers) = (self.breakers, self.peers);
        let breaker_profiles = vec_of(0..self.breaker_profiles.max(1), usize::from(breakers));
        let peer = (0..self.peer_profiles.max(1), self.addresses());
        (breaker_profiles, vec_of(peer, usize::from(peers))).prop_map(|(breakers, peers)| {
            let at_once = |act| Op { after: Duration::ZERO, act };
            let mut script = Vec::new();
            for (breaker, profile) in (0..).zip(breakers) {
                script.push(at_once(Act::AddBreaker { breaker, profile }));
            }
            for (peer, (profile, endpoints)) in (0..).zip(peers) {
                script.push(at_once(Act::AddPeer { peer, profile, endpoints }));
                script.push(at_once(Act::Connect { peer }));
            }
            script
        })
    }

    fn addresses(&self) -> impl Strategy<Value = Vec<Address>> + use<> {
        let (least, most) = (usize::from(*self.endpoints.start()), *self.endpoints.end());
        let breakers = self.breakers.max(1);
        vec_of(0..breakers, least..=usize::from(most).max(least)).prop_map(|breakers| {
            (0..).zip(breakers).map(|(id, breaker)| Address { id, breaker }).collect()
        })
    }

    /// One line of such a script.
    pub fn op(&self) -> impl Strategy<Value = Op> + use<> {
        let longest = self.longest.max(Duration::from_millis(1));
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1);
        let after = prop_oneof![
            3 => Just(0),
            3 => 1..=longest_ms.min(50),
            3 => 1..=longest_ms.min(2_000),
            1 => 1..=longest_ms,
        ];
        let act = if self.faulty_driver {
            prop_oneof![28 => self.honest(), 4 => wrong(), 1 => oversleep()].boxed()
        } else {
            self.honest().boxed()
        };
        (after, act).prop_map(|(after, act)| Op { after: Duration::from_millis(after), act })
    }

    fn honest(&self) -> impl Strategy<Value = Act> + use<> {
        // One beyond what is there, so that some names are unknown.
        let (peer, breaker) = (0..=self.peers, 0..=self.breakers);
        let (any_peer, any_breaker) = (peer.clone(), breaker.clone());
        let peer_profile = 0..=self.peer_profiles.max(1);
        let breaker_profile = 0..=self.breaker_profiles.max(1);
        let twice = |mut addresses: Vec<Address>| {
            addresses.extend(addresses.first().copied());
            addresses
        };
        let any_addresses = prop_oneof![
            8 => self.addresses(),
            1 => Just(Vec::new()),
            1 => self.addresses().prop_map(twice),
        ]
        .boxed();
        let latency =
            prop_oneof![2 => 0..50_u64, 1 => 0..3_000_u64].prop_map(Duration::from_millis);
        let loss = prop_oneof![2 => Just(0), 1 => 0..=1_100_000_u32];
        let load = prop_oneof![3 => Just(1_000_000), 1 => 0..=1_100_000_u32];
        let facts = prop_oneof![
            6 => (any::<u8>(), any::<bool>())
                .prop_map(|(dial, resumed)| Act::Connected { dial, resumed }),
            8 => (any::<u8>(), dial_cause(), retry_after()).prop_map(|(dial, cause, retry_after)| {
                Act::DialFailed { dial, cause, retry_after }
            }),
            4 => (any::<u8>(), loss_cause()).prop_map(|(conn, cause)| Act::Lost { conn, cause }),
            2 => any::<u8>().prop_map(|conn| Act::Heard { conn }),
            2 => any::<u8>().prop_map(|conn| Act::Heartbeat { conn }),
            2 => any::<u8>().prop_map(|ping| Act::Pong { ping }),
            3 => (any::<u8>(), latency, loss)
                .prop_map(|(conn, latency, loss)| Act::Metrics { conn, latency, loss }),
            1 => any_peer.prop_map(|peer| Act::Accepted { peer }),
        ];
        let intents = prop_oneof![
            3 => peer.clone().prop_map(|peer| Act::Connect { peer }),
            1 => peer.clone().prop_map(|peer| Act::Disconnect { peer }),
        ];
        let membership = prop_oneof![
            (any_breaker.clone(), breaker_profile)
                .prop_map(|(breaker, profile)| Act::AddBreaker { breaker, profile }),
            any_breaker.clone().prop_map(|breaker| Act::RemoveBreaker { breaker }),
            (peer.clone(), peer_profile, any_addresses.clone())
                .prop_map(|(peer, profile, endpoints)| Act::AddPeer { peer, profile, endpoints }),
            (peer.clone(), any_addresses)
                .prop_map(|(peer, endpoints)| Act::SetEndpoints { peer, endpoints }),
            peer.clone().prop_map(|peer| Act::RemovePeer { peer }),
        ];
        let environment = prop_oneof![
            3 => Just(Act::NetworkDown),
            4 => Just(Act::NetworkUp),
            4 => load.prop_map(|load| Act::Load { load }),
            1 => Just(Act::Restarted),
            4 => Just(Act::Tick),
        ];
        let orders = prop_oneof![
            1 => breaker.clone().prop_map(|breaker| Act::ForceOpen { breaker }),
            1 => breaker.prop_map(|breaker| Act::Disable { breaker }),
            3 => any_breaker.prop_map(|breaker| Act::ResetBreaker { breaker }),
            3 => option::of(peer).prop_map(|peer| Act::Revive { peer }),
        ];
        prop_oneof![20 => facts, 3 => intents, 2 => membership, 3 => environment, 2 => orders]
    }
}

fn wrong() -> impl Strategy<Value = Act> {
    let fact = || {
        select(vec![
            Fact::Connected,
            Fact::DialFailed,
            Fact::Lost,
            Fact::Heard,
            Fact::Heartbeat,
            Fact::Metrics,
        ])
    };
    let heard = select(vec![Fact::Heard, Fact::Heartbeat, Fact::Metrics]);
    let raw =
        || prop_oneof![0..8_u64, (0..8_u64, 0..4_u64).prop_map(|(a, b)| b << 28 | a), any::<u64>()];
    prop_oneof![
        6 => (any::<u8>(), fact()).prop_map(|(conn, fact)| Wrong::Dead { conn, fact }),
        2 => (raw(), fact()).prop_map(|(raw, fact)| Wrong::Unborn { raw, fact }),
        3 => (any::<u8>(), any::<bool>())
            .prop_map(|(conn, connected)| Wrong::Up { conn, connected }),
        2 => (any::<u8>(), heard).prop_map(|(dial, fact)| Wrong::Dialing { dial, fact }),
        2 => raw().prop_map(|raw| Wrong::Pong { raw }),
        1 => (1..100_000_u64).prop_map(|ms| Wrong::Backwards { by: Duration::from_millis(ms) }),
    ]
    .prop_map(Act::Wrong)
}

fn oversleep() -> impl Strategy<Value = Act> {
    prop_oneof![1..1_000_u64, 1..100_000_u64]
        .prop_map(|ms| Act::Oversleep { late: Duration::from_millis(ms) })
}

fn retry_after() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        8 => Just(None),
        2 => (0..20_000_u64).prop_map(|ms| Some(Duration::from_millis(ms))),
        1 => Just(Some(Duration::MAX)),
    ]
}

fn dial_cause() -> impl Strategy<Value = DialCause> {
    use DialCause::{
        Auth, Cancelled, Incompatible, Local, NotFound, Refused, Resolve, Throttled, Timeout, Tls,
        Unreachable,
    };
    prop_oneof![
        3 => select(vec![Refused, Timeout]),
        2 => select(vec![Unreachable, Resolve, Throttled, Tls, Auth, Incompatible, NotFound]),
        1 => select(vec![Local, Cancelled]),
    ]
}

fn loss_cause() -> impl Strategy<Value = LossCause> {
    use LossCause::{Eof, Kicked, Local, Protocol, Replaced, Reset, Suspected};
    select(vec![Eof, Reset, Replaced, Kicked, Protocol, Suspected, Local])
}

/// What was said to the manager at one moment, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Time,
    /// What it was told.
    pub event: Event,
    /// What it answered.
    pub actions: Vec<Action>,
    /// Whether a driver that keeps to the contract would never have said so.
    pub breach: bool,
}

/// A driver and everything beyond it, as far as a script tells of it.
#[derive(Clone, Debug)]
pub struct World {
    manager: Manager,
    now: Time,
    dialing: Vec<ConnId>,
    up: Vec<ConnId>,
    /// The ping that is out on each connection.
    pings: BTreeMap<ConnId, PingId>,
    dead: Vec<ConnId>,
    breakers: BTreeSet<BreakerId>,
    /// The latest moment of a step.
    told_at: Time,
    ticked_at: Option<Time>,
    /// Issued at this very moment: what is said of them was not waiting before the tick.
    fresh: Vec<ConnId>,
    tags: u64,
}

/// Ticks in a row, without anything else happening, after which a world gives up on its manager.
const MAX_TICKS: u32 = 100_000;

impl World {
    /// A world around a manager that has no connections yet.
    #[must_use]
    pub fn new(manager: Manager) -> Self {
        Self {
            now: manager.now(),
            manager,
            dialing: Vec::new(),
            up: Vec::new(),
            pings: BTreeMap::new(),
            dead: Vec::new(),
            breakers: BTreeSet::new(),
            told_at: Time::ZERO,
            ticked_at: None,
            fresh: Vec::new(),
            tags: 0,
        }
    }

    /// The manager, to look at.
    #[must_use]
    pub const fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Puts another manager in its place, as after a snapshot and its restoration.
    pub fn replace_manager(&mut self, manager: Manager) {
        self.manager = manager;
    }

    /// The present moment.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// The dials in flight, the oldest first.
    #[must_use]
    pub fn dialing(&self) -> &[ConnId] {
        &self.dialing
    }

    /// The connections that are up, the oldest first.
    #[must_use]
    pub fn up(&self) -> &[ConnId] {
        &self.up
    }

    /// Plays one line: sleeps, ticking at each deadline on the way, then lets the line happen.
    ///
    /// Returns every step that was taken.
    ///
    /// # Panics
    ///
    /// If the manager wants to be woken 100,000 times in a row: that is a livelock.
    pub fn play(&mut self, op: &Op) -> Vec<Step> {
        let mut steps = Vec::new();
        self.play_watched(op, |_, step| steps.push(step));
        steps
    }

    /// The same, and shows each step and the manager right after it to `watch`.
    ///
    /// # Panics
    ///
    /// As [`play`](Self::play).
    pub fn play_watched(&mut self, op: &Op, mut watch: impl FnMut(&Manager, Step)) {
        if let Act::Oversleep { late } = op.act {
            let deadline = self.manager.next_deadline().unwrap_or(self.now);
            self.now = deadline.max(self.now) + late;
            let step = self.step(Event::Tick, self.now, false);
            return watch(&self.manager, step);
        }
        self.sleep_until(self.now + op.after, &mut watch);
        if let Some((event, breach)) = self.event(&op.act) {
            let at = match op.act {
                Act::Wrong(Wrong::Backwards { by }) => {
                    let back = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
                    Time::from_nanos(self.now.as_nanos().saturating_sub(back))
                }
                _ => self.now,
            };
            let step = self.step(event, at, breach);
            watch(&self.manager, step);
        }
    }

    /// Lets time pass, ticking at each deadline.
    ///
    /// # Panics
    ///
    /// As [`play`](Self::play).
    pub fn wait(&mut self, span: Duration) -> Vec<Step> {
        let mut steps = Vec::new();
        self.sleep_until(self.now + span, &mut |_: &Manager, step| steps.push(step));
        steps
    }

    /// Everything is good from now on and for that long: the network is up, operators take their
    /// orders back and revive whoever gave up, each dial succeeds after 10 ms, and every connection
    /// has a heartbeat a second.
    ///
    /// # Panics
    ///
    /// As [`play`](Self::play).
    pub fn heal(&mut self, span: Duration) -> Vec<Step> {
        let mut steps = Vec::new();
        let until = self.now + span;
        steps.push(self.tell(Event::NetworkUp));
        for breaker in self.breakers.clone() {
            let state = self.manager.breaker_state(breaker);
            if state == Some(crate::breaker::State::ForcedOpen) {
                steps.push(self.tell(Event::ResetBreaker { breaker }));
            }
        }
        steps.push(self.tell(Event::Revive { peer: None }));
        let mut beat_at = self.now;
        while self.now < until {
            let dials = self.dialing.clone();
            let answer_at = self.now + Duration::from_millis(10);
            let due = self.manager.next_deadline().filter(|&due| due > self.now);
            let wake = beat_at.min(if dials.is_empty() { Time::MAX } else { answer_at });
            let wake = wake.min(due.unwrap_or(Time::MAX)).clamp(self.now, until);
            self.sleep_until(wake, &mut |_: &Manager, step| steps.push(step));
            for conn in dials.into_iter().filter(|_| wake == answer_at) {
                if self.dialing.contains(&conn) {
                    steps.push(self.tell(Event::Connected { conn, resumed: false }));
                }
            }
            if wake >= beat_at {
                beat_at = wake + Duration::from_secs(1);
                for conn in self.up.clone() {
                    steps.push(self.tell(Event::Heartbeat { conn }));
                }
            }
            // What is due at this very moment comes after the I/O.
            steps.push(self.tell(Event::Tick));
        }
        steps
    }

    fn sleep_until(&mut self, until: Time, watch: &mut impl FnMut(&Manager, Step)) {
        let mut ticks = 0;
        // What is due at `until` itself is settled in the step that comes then.
        while let Some(deadline) = self.manager.next_deadline().filter(|&due| due < until) {
            self.now = deadline.max(self.now);
            let step = self.step(Event::Tick, self.now, false);
            watch(&self.manager, step);
            ticks += 1;
            assert!(ticks < MAX_TICKS, "woken {ticks} times before {until}, now at {deadline}");
        }
        self.now = until;
    }

    /// Tells the manager one thing and follows its orders.
    pub fn tell(&mut self, event: Event) -> Step {
        self.step(event, self.now, false)
    }

    fn step(&mut self, event: Event, at: Time, breach: bool) -> Step {
        let actions = self.manager.step(event.clone(), at);
        // Waiting I/O must be fed before the tick of the same moment.
        let conn = self.live_conn(&event);
        let late =
            self.ticked_at == Some(at) && conn.is_some_and(|conn| !self.fresh.contains(&conn));
        self.follow(&event);
        if at > self.told_at {
            self.fresh.clear();
        }
        for action in &actions {
            self.obey(action);
        }
        if event == Event::Tick {
            self.ticked_at = Some(at);
        }
        let backwards = at < self.told_at;
        self.told_at = self.told_at.max(at);
        Step { at, event, actions, breach: breach || late || backwards }
    }

    /// The connection that the event tells of, if it is one that may be told of.
    fn live_conn(&self, event: &Event) -> Option<ConnId> {
        let (conn, live) = match event {
            Event::Connected { conn, .. } => (conn, self.dialing.contains(conn)),
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => {
                (conn, self.dialing.contains(conn) || self.up.contains(conn))
            }
            Event::Heard { conn } | Event::Heartbeat { conn } | Event::Metrics { conn, .. } => {
                (conn, self.up.contains(conn))
            }
            _ => return None,
        };
        live.then_some(*conn)
    }

    fn follow(&mut self, event: &Event) {
        match event {
            Event::Connected { conn, .. } if self.dialing.contains(conn) => {
                self.dialing.retain(|dial| dial != conn);
                self.up.push(*conn);
            }
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => self.bury(*conn),
            Event::Pong { ping } => self.pings.retain(|_, out| out != ping),
            Event::Restarted => {
                self.dead.append(&mut self.dialing);
                self.dead.append(&mut self.up);
                self.pings.clear();
            }
            Event::AddBreaker { breaker, .. } => {
                self.breakers.insert(*breaker);
            }
            _ => {}
        }
    }

    fn obey(&mut self, action: &Action) {
        match action {
            Action::Dial { conn, .. } => {
                self.dialing.push(*conn);
                self.fresh.push(*conn);
            }
            Action::Adopt { conn, .. } => {
                self.up.push(*conn);
                self.fresh.push(*conn);
            }
            Action::CancelDial { conn } | Action::Close { conn } => self.bury(*conn),
            Action::Ping { ping, conn } => {
                self.pings.insert(*conn, *ping);
            }
            Action::Refuse { .. } | Action::Notice(_) => {}
        }
    }

    fn bury(&mut self, conn: ConnId) {
        let alive = self.dialing.len() + self.up.len();
        self.dialing.retain(|dial| *dial != conn);
        self.up.retain(|up| *up != conn);
        self.pings.remove(&conn);
        if self.dialing.len() + self.up.len() < alive {
            self.dead.push(conn);
        }
    }

    /// The event of an act and whether it breaks the contract; `None` if there is nothing that it
    /// could be about.
    fn event(&mut self, act: &Act) -> Option<(Event, bool)> {
        let peer = |peer: u8| PeerId(peer.into());
        let breaker = |breaker: u8| BreakerId(breaker.into());
        let endpoints = |addresses: &[Address]| {
            let endpoint = |address: &Address| Endpoint {
                id: EndpointId(address.id.into()),
                breaker: breaker(address.breaker),
            };
            addresses.iter().map(endpoint).collect()
        };
        let event = match *act {
            Act::AddBreaker { breaker: name, profile } => Event::AddBreaker {
                breaker: breaker(name),
                profile: BreakerProfileId(profile.into()),
            },
            Act::RemoveBreaker { breaker: name } => Event::RemoveBreaker { breaker: breaker(name) },
            Act::AddPeer { peer: name, profile, endpoints: ref addresses } => Event::AddPeer {
                peer: peer(name),
                profile: PeerProfileId(profile.into()),
                endpoints: endpoints(addresses),
            },
            Act::SetEndpoints { peer: name, endpoints: ref addresses } => {
                Event::SetEndpoints { peer: peer(name), endpoints: endpoints(addresses) }
            }
            Act::RemovePeer { peer: name } => Event::RemovePeer { peer: peer(name) },
            Act::Connect { peer: name } => Event::Connect { peer: peer(name) },
            Act::Disconnect { peer: name } => Event::Disconnect { peer: peer(name) },
            Act::Connected { dial, resumed } => {
                Event::Connected { conn: nth(&self.dialing, dial)?, resumed }
            }
            Act::DialFailed { dial, cause, retry_after } => {
                Event::DialFailed { conn: nth(&self.dialing, dial)?, cause, retry_after }
            }
            Act::Lost { conn, cause } => Event::Lost { conn: nth(&self.up, conn)?, cause },
            Act::Heard { conn } => Event::Heard { conn: nth(&self.up, conn)? },
            Act::Heartbeat { conn } => Event::Heartbeat { conn: nth(&self.up, conn)? },
            Act::Pong { ping } => {
                let pings: Vec<PingId> = self.pings.values().copied().collect();
                Event::Pong { ping: nth(&pings, ping)? }
            }
            Act::Metrics { conn, latency, loss } => {
                Event::Metrics { conn: nth(&self.up, conn)?, latency, loss }
            }
            Act::Accepted { peer: name } => {
                self.tags += 1;
                Event::Accepted { peer: peer(name), tag: Tag(self.tags) }
            }
            Act::NetworkDown => Event::NetworkDown,
            Act::NetworkUp => Event::NetworkUp,
            Act::Load { load } => Event::Load { load },
            Act::Restarted => Event::Restarted,
            Act::Tick | Act::Oversleep { .. } => Event::Tick,
            Act::ForceOpen { breaker: name } => Event::ForceOpen { breaker: breaker(name) },
            Act::Disable { breaker: name } => Event::Disable { breaker: breaker(name) },
            Act::ResetBreaker { breaker: name } => Event::ResetBreaker { breaker: breaker(name) },
            Act::Revive { peer: name } => Event::Revive { peer: name.map(peer) },
            Act::Wrong(ref wrong) => return self.wrong_event(wrong),
        };
        Some((event, false))
    }

    fn wrong_event(&self, wrong: &Wrong) -> Option<(Event, bool)> {
        let lives = |conn: &ConnId| self.dialing.contains(conn) || self.up.contains(conn);
        let event = match *wrong {
            Wrong::Dead { conn, fact } => fact.about(nth(&self.dead, conn)?),
            Wrong::Unborn { raw, fact } => {
                fact.about(Some(ConnId::from_raw(raw)).filter(|conn| !lives(conn))?)
            }
            Wrong::Up { conn, connected } => {
                let fact = if connected { Fact::Connected } else { Fact::DialFailed };
                fact.about(nth(&self.up, conn)?)
            }
            Wrong::Dialing { dial, fact } => fact.about(nth(&self.dialing, dial)?),
            Wrong::Pong { raw } => {
                // A late answer over a connection that is up would not be wrong.
                let up = |ping: &PingId| self.up.iter().any(|conn| conn.slot() == ping.slot());
                Event::Pong { ping: Some(PingId::from_raw(raw)).filter(|ping| !up(ping))? }
            }
            Wrong::Backwards { .. } => return Some((Event::Tick, false)),
        };
        Some((event, true))
    }
}

/// The one at that place, counted round and round.
fn nth<T: Copy>(among: &[T], place: u8) -> Option<T> {
    among.get(usize::from(place).checked_rem(among.len())?).copied()
}
