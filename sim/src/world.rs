//! The world: real managers, and around them what they cannot tell from the real thing.
//!
//! One loop takes the next thing that happens and lets it happen. What reaches a manager goes
//! through [`World::tell`]; what it orders comes back through [`World::obey`], which only ever
//! schedules, so that nothing recurses. Servers and faults are in files of their own.

#![expect(clippy::indexing_slicing, reason = "indices come from the plan, which made the lists")]

mod fault;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use steadfast::breaker::State;
use steadfast::{
    Action, BreakerId, ConnId, DialCause, Endpoint, EndpointId, Event, LossCause, Manager, Notice,
    PeerCause, PeerState, PingId, Time,
};

use crate::dist::unit;
use crate::draws::{Draws, Purpose};
use crate::driver::{Driver, Phase};
use crate::log::Recorder;
use crate::measure::{Facts, Measures, Watch};
use crate::plan::{Plan, Way};
use crate::queue::{Queue, Rank};
use crate::scenario::{Link, ScenarioError};
use crate::units::Span;
use server::Server;

/// How much is checked while a world runs. None of it changes what happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Whether the manager's invariants are checked after every step; `None`: in worlds of at most
    /// 1,000 peers. They are always checked before the first fault, after the last, and at the end.
    pub invariants: Option<bool>,
    /// The chance of a tick at some moment between two events, which must change nothing.
    pub extra_ticks: f64,
    /// The chance that a manager goes on from its own snapshot after a step, which must change
    /// nothing.
    pub restores: f64,
    /// The key of the managers' id tables, which must change nothing.
    pub hash_key: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { invariants: None, extra_ticks: 0.0, restores: 0.0, hash_key: 0x5eed }
    }
}

/// A rule that was broken during a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule, and what was seen.
    pub rule: String,
    /// In which manager.
    pub manager: u32,
    /// After how many events, over all managers.
    pub step: u64,
    /// When, in scenario time.
    pub at: Span,
    /// The event of that step.
    pub event: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (manager {}, step {}", self.rule, self.manager, self.step)?;
        write!(f, ", at {:.9}s, after {})", self.at.as_secs_f64(), self.event)
    }
}

/// What a finished world leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) facts: Facts,
    pub(crate) digest: u64,
    pub(crate) digests: Vec<u64>,
    pub(crate) events: u64,
    pub(crate) actions: u64,
    pub(crate) invariant_checks: u64,
    pub(crate) virtual_ns: u64,
    pub(crate) watched: Vec<Watched>,
    pub(crate) violation: Option<Violation>,
}

/// A peer with a detector of its own, and what that said.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) group: String,
    pub(crate) place: u32,
    pub(crate) watch: Watch,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Accepted { resumed: bool },
    Refused,
    Unreachable,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A dial reaches its server.
    Arrive { manager: u32, conn: ConnId, server: u16 },
    /// A server is done with the handshake at its desk.
    Done { server: u16, epoch: u32 },
    /// A dial's answer reaches the client.
    Answer { manager: u32, conn: ConnId, answer: Answer },
    /// The news that a connection is gone does.
    Reset { manager: u32, conn: ConnId },
    /// A server sends a peer its sign of life.
    Beat { peer: u32 },
    /// It reaches the client.
    Heard { manager: u32, conn: ConnId },
    /// A pong does.
    Pong { manager: u32, conn: ConnId, ping: PingId },
    /// A recorded heartbeat arrives.
    Traced { peer: u32, place: u32 },
    /// A fault begins, or ends.
    Fault { fault: u16, begins: bool },
    /// The last fault is over.
    Healed,
    /// A process that woke the wrong way round looks at its sockets at last.
    Reads { manager: u32 },
    /// A manager's alarm goes off.
    Alarm { manager: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    group: usize,
    place: u32,
    manager: u32,
    dials: u64,
    beats: u64,
    pings: u64,
    conn: Option<ConnId>,
    /// Until when the server remembers its session.
    session_until: Time,
    watch: Watch,
}

/// A link and what is wrong with it.
#[derive(Clone, Debug)]
struct Road {
    link: Link,
    slow: Vec<crate::dist::Dist>,
    lossy: Vec<f64>,
    partitioned: u32,
    cut: u32,
}

/// A breaker as seen through notices.
#[derive(Clone, Copy, Debug, Default)]
struct BreakerView {
    /// Which half-open period it is in; 0 in none.
    half_open: u32,
    periods: u32,
    /// Dials out that this period admitted.
    dials: u32,
}

/// A world in progress.
pub(crate) struct World<'a> {
    plan: &'a Plan,
    options: Options,
    draws: Draws,
    now: Time,
    queue: Queue<Happening>,
    drivers: Vec<Driver>,
    servers: Vec<Server>,
    links: Vec<Road>,
    peers: Vec<Peer>,
    breakers: BTreeMap<(u32, BreakerId), BreakerView>,
    half_open: u32,
    measures: Measures,
    ideal_s: Option<f64>,
    /// Dials succeed at once, before the scenario begins.
    warming: bool,
    check_always: bool,
    events: u64,
    actions: u64,
    invariant_checks: u64,
    draws_of_tests: u64,
    scratch: Vec<Action>,
    recorder: &'a mut dyn Recorder,
}

type Step = Result<(), Violation>;

/// What a dial takes in the warm-up, and before a recording.
const WARM_UP_DIAL_NS: u64 = 500;
/// How long the warm-up may take.
const LONGEST_WARM_UP: Time = Time::from_secs(3_600);
/// How often a manager may be ticked at one moment before time counts as standing still.
const MOST_TICKS: u32 = 100_000;

impl<'a> World<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        seed: u64,
        options: Options,
        recorder: &'a mut dyn Recorder,
    ) -> Result<Self, ScenarioError> {
        let draws = Draws::new(seed);
        let seeds: Vec<u64> = (0..plan.managers)
            .map(|manager| draws.draw(Purpose::Manager, u64::from(manager), 0))
            .collect();
        recorder.begin(&plan.config, &seeds);
        let drivers = seeds.iter().map(|seed| {
            let config = steadfast::config::Config { seed: *seed, ..plan.config.clone() };
            Manager::new(config, options.hash_key).map(Driver::new)
        });
        let drivers = drivers.collect::<Result<Vec<_>, _>>();
        let drivers = drivers.map_err(|error| ScenarioError::plain(error.to_string()))?;
        let mut peers = Vec::new();
        for (index, group) in plan.groups.iter().enumerate() {
            for place in 0..group.count {
                peers.push(Peer {
                    group: index,
                    place,
                    manager: (group.first + place) % plan.managers,
                    dials: 0,
                    beats: 0,
                    pings: 0,
                    conn: None,
                    session_until: Time::ZERO,
                    watch: Watch::default(),
                });
            }
        }
        let traced = plan.groups.iter().filter(|group| group.trace.is_some());
        let traced: u32 = traced.map(|group| group.count).sum();
        Ok(Self {
            options,
            draws,
            now: Time::ZERO,
            queue: Queue::new(),
            drivers,
            servers: plan.servers.iter().map(Server::new).collect(),
            links: plan
                .links
                .iter()
                .map(|link| Road {
                    link: link.clone(),
                    slow: Vec::new(),
                    lossy: Vec::new(),
                    partitioned: 0,
                    cut: 0,
                })
                .collect(),
            peers,
            breakers: BTreeMap::new(),
            half_open: 0,
            measures: Measures::new(plan.peers - traced),
            ideal_s: None,
            warming: true,
            check_always: options.invariants.unwrap_or(plan.peers <= 1_000),
            events: 0,
            actions: 0,
            invariant_checks: 0,
            draws_of_tests: 0,
            scratch: Vec::new(),
            recorder,
            plan,
        })
    }

    /// Lives through the scenario. `progress` is told the share of it that is over.
    pub(crate) fn run(mut self, progress: &mut dyn FnMut(f64)) -> Outcome {
        let violation = self.live(progress).err();
        self.outcome(violation)
    }

    fn live(&mut self, progress: &mut dyn FnMut(f64)) -> Step {
        self.populate()?;
        self.warm_up()?;
        let start = self.now;
        let (plan, duration) = (self.plan, self.plan.duration);
        self.measures.begin(start, plan.heal, duration, &plan.looks);
        self.schedule_faults();
        self.schedule_traces();
        self.check_all("the start of the scenario")?;
        let end = start.plus_nanos(duration.as_nanos());
        let share = 256_u32;
        for part in 1..=share {
            progress((f64::from(part) - 1.0) / f64::from(share));
            let until = duration.as_nanos() / u64::from(share) * u64::from(part);
            self.run_until(start.plus_nanos(until).min(end))?;
        }
        self.run_until(end)?;
        self.check_all("the end of the scenario")
    }

    /// Adds breakers and peers, and connects all that do not follow a recording.
    fn populate(&mut self) -> Step {
        let plan = self.plan;
        let mut breakers = BTreeSet::new();
        for index in 0..self.peers.len() {
            let Peer { group, place, manager, .. } = self.peers[index];
            let group = &plan.groups[group];
            let mut endpoints = Vec::new();
            for endpoint in 0..u32::try_from(group.ways.len()).unwrap_or(0) {
                let breaker = group.breaker_id(place, endpoint);
                if breakers.insert((manager, breaker)) {
                    self.breakers.insert((manager, breaker), BreakerView::default());
                    let profile = group.breaker_profile;
                    self.tell(manager, Event::AddBreaker { breaker, profile })?;
                }
                endpoints.push(Endpoint { id: EndpointId(endpoint), breaker });
            }
            let (peer, profile) = (group.peer_id(place), group.profile(place));
            self.tell(manager, Event::AddPeer { peer, profile, endpoints })?;
            if group.trace.is_none() {
                self.tell(manager, Event::Connect { peer })?;
            }
            if let Some(period) = group.heartbeat {
                let phase = self.draws.draw(Purpose::BeatPhase, peer.0, 0);
                let phase = steadfast::draw::uniform(phase, 0, period.as_nanos() - 1);
                let peer = u32::try_from(index).unwrap_or(u32::MAX);
                self.queue.push(Time::from_nanos(phase), Rank::World, Happening::Beat { peer });
            }
        }
        Ok(())
    }

    /// Lets everybody connect to servers that take no time, and then come to rest.
    fn warm_up(&mut self) -> Step {
        loop {
            let (up, wanting) = self.measures.is_up();
            if up == wanting {
                break;
            }
            if !self.happen(LONGEST_WARM_UP)? {
                let rule = format!("the warm-up brought up {up} of {wanting} peers");
                return Err(self.violation(0, rule, "the warm-up"));
            }
        }
        let stable = self.plan.config.peer_profiles.iter().map(|profile| profile.stable_after);
        let stable = stable.max().unwrap_or_default();
        let beat = self.plan.groups.iter().filter_map(|group| group.heartbeat).max();
        let rest = stable.as_secs().saturating_add(5);
        let rest = Span::from_secs(rest).as_nanos() + beat.map_or(0, Span::as_nanos);
        let second = 1_000_000_000;
        let start = self.now.plus_nanos(rest).as_nanos().div_ceil(second) * second;
        self.run_until(Time::from_nanos(start))?;
        self.warming = false;
        Ok(())
    }

    fn run_until(&mut self, end: Time) -> Step {
        while self.happen(end)? {}
        self.now = end;
        Ok(())
    }

    /// Lets the next thing happen, if it is due by `end`.
    fn happen(&mut self, end: Time) -> Result<bool, Violation> {
        let Some(next) = self.queue.next_at().filter(|next| *next <= end) else {
            return Ok(false);
        };
        if self.options.extra_ticks > 0.0 {
            self.tick_before(next)?;
        }
        let Some((at, happening)) = self.queue.pop() else { return Ok(false) };
        self.now = at;
        self.measures.advance(at);
        match happening {
            Happening::Arrive { manager, conn, server } => {
                self.arrive(usize::from(server), manager, conn);
            }
            Happening::Done { server, epoch } => self.done(usize::from(server), epoch),
            Happening::Answer { manager, conn, answer } => self.answered(manager, conn, answer)?,
            Happening::Reset { manager, conn } => {
                let lost = Event::Lost { conn, cause: LossCause::Reset };
                self.receive(manager, lost)?;
            }
            Happening::Beat { peer } => self.beat(peer as usize),
            Happening::Heard { manager, conn } => {
                self.receive(manager, Event::Heartbeat { conn })?;
            }
            Happening::Pong { manager, conn, ping } => {
                if self.drivers[manager as usize].conn(conn).is_some() {
                    self.receive(manager, Event::Pong { ping })?;
                }
            }
            Happening::Traced { peer, place } => self.traced(peer as usize, place)?,
            Happening::Fault { fault, begins } => self.fault(usize::from(fault), begins)?,
            Happening::Healed => self.healed()?,
            Happening::Reads { manager } => self.read_waiting(manager)?,
            Happening::Alarm { manager } => self.alarm(manager)?,
        }
        Ok(true)
    }

    /// Something comes in over the network, if there is one.
    fn receive(&mut self, manager: u32, event: Event) -> Step {
        if self.drivers[manager as usize].offline {
            return Ok(());
        }
        self.tell(manager, event)
    }

    /// The driver tells its manager, or keeps it while its process sleeps.
    fn tell(&mut self, manager: u32, event: Event) -> Step {
        let driver = &mut self.drivers[manager as usize];
        if !driver.attends_to(&event) {
            driver.hold(event);
            return Ok(());
        }
        if !driver.may_tell(&event) {
            self.measures.server_wasted += u64::from(matches!(event, Event::Connected { .. }));
            return Ok(());
        }
        match event {
            Event::Connected { conn: id, resumed } => {
                if let Some(conn) = driver.conn(id) {
                    if conn.phase == Phase::Answered {
                        conn.phase = Phase::Up;
                    }
                    let (peer, period) = (conn.peer, std::mem::take(&mut conn.half_open));
                    self.probe_over(manager, peer, period);
                    self.peers[peer].conn = Some(id);
                    self.measures.resumed += u64::from(resumed);
                }
            }
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => {
                self.close(manager, conn);
            }
            _ => {}
        }
        self.step(manager, event)
    }

    /// One step of a manager, with all that watches it.
    fn step(&mut self, manager: u32, event: Event) -> Step {
        let driver = &mut self.drivers[manager as usize];
        self.recorder.record(manager, self.now, &event);
        let name = self.check_always.then(|| format!("{event:?}"));
        let mut actions = std::mem::take(&mut self.scratch);
        let ledger = driver.step(event, self.now, &mut actions);
        self.events += 1;
        self.actions += actions.len() as u64;
        let name = name.as_deref().unwrap_or("an event");
        if let Err(breach) = ledger {
            return Err(self.violation(
                manager,
                format!("the driver broke a rule: {breach}"),
                name,
            ));
        }
        if self.check_always {
            self.check(manager, name)?;
        }
        if self.options.restores > 0.0 {
            self.restore(manager, name)?;
        }
        for action in actions.drain(..) {
            self.obey(manager, action);
        }
        self.scratch = actions;
        self.set_alarm(manager);
        Ok(())
    }

    fn obey(&mut self, manager: u32, action: Action) {
        match action {
            Action::Dial { conn, peer, endpoint, resume } => {
                if let Some(peer) = self.plan.peer(peer) {
                    self.dial(manager, conn, peer, endpoint.0 as usize, resume);
                }
            }
            Action::CancelDial { conn } | Action::Close { conn } => self.close(manager, conn),
            Action::Ping { ping, conn } => self.ping(manager, conn, ping),
            // Nobody dials us here.
            Action::Adopt { .. } | Action::Refuse { .. } => {}
            Action::Notice(notice) => self.noticed(manager, &notice),
        }
    }

    fn dial(&mut self, manager: u32, id: ConnId, index: usize, way: usize, resume: bool) {
        let plan = self.plan;
        let peer = &mut self.peers[index];
        peer.dials += 1;
        let (attempt, group) = (peer.dials, &plan.groups[peer.group]);
        let name = group.peer_id(peer.place).0;
        let driver = &mut self.drivers[manager as usize];
        driver.open(id, index, way, resume, attempt);
        if self.half_open > 0 {
            let breaker = group.breaker_id(peer.place, u32::try_from(way).unwrap_or(0));
            if let Some(view) = self.breakers.get_mut(&(manager, breaker))
                && view.half_open > 0
                && let Some(conn) = driver.conn(id)
            {
                conn.half_open = view.half_open;
                view.dials += 1;
                let most = &mut self.measures.half_open_dials;
                *most = (*most).max(u64::from(view.dials));
            }
        }
        if self.warming || group.trace.is_some() {
            if let Some(conn) = driver.conn(id) {
                conn.phase = Phase::Answered;
            }
            let answer = Answer::Accepted { resumed: false };
            let at = self.now.plus_nanos(WARM_UP_DIAL_NS);
            self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
            return;
        }
        self.measures.dialed(self.now);
        let Some(&Way { server, link }) = group.ways.get(way) else { return };
        let offline = driver.offline;
        let at =
            self.now.plus_nanos(self.latency(link, Purpose::DialOut, name, attempt).as_nanos());
        if offline || self.links[link].cut > 0 {
            let answer = Answer::Unreachable;
            self.queue.push(at, Rank::World, Happening::Answer { manager, conn: id, answer });
        } else if !self.is_lost(link, Purpose::LostOut, name, attempt) {
            let server = u16::try_from(server).unwrap_or(u16::MAX);
            self.queue.push(at, Rank::World, Happening::Arrive { manager, conn: id, server });
        }
    }

    /// The client is done with a connection, however it came to that.
    fn close(&mut self, manager: u32, id: ConnId) {
        let Some(conn) = self.drivers[manager as usize].close(id) else { return };
        self.probe_over(manager, conn.peer, conn.half_open);
        if conn.phase.at_server() {
            self.forget_session_later(conn.peer);
        }
        let peer = &mut self.peers[conn.peer];
        if peer.conn == Some(id) {
            peer.conn = None;
        }
    }

    /// The server lost the peer's connection and keeps the session for a while.
    fn forget_session_later(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        if let Some(ttl) = self.plan.groups[peer.group].session_ttl {
            peer.session_until = self.now.plus_nanos(ttl.as_nanos());
        }
    }

    /// A dial that a half-open breaker admitted is over.
    fn probe_over(&mut self, manager: u32, peer: usize, period: u32) {
        if period == 0 {
            return;
        }
        let Peer { group, place, .. } = self.peers[peer];
        let group = &self.plan.groups[group];
        for endpoint in 0..u32::try_from(group.ways.len()).unwrap_or(0) {
            let breaker = group.breaker_id(place, endpoint);
            if let Some(view) = self.breakers.get_mut(&(manager, breaker))
                && view.half_open == period
            {
                view.dials = view.dials.saturating_sub(1);
                return;
            }
        }
    }

    fn answered(&mut self, manager: u32, conn: ConnId, answer: Answer) -> Step {
        let failed = |cause| Event::DialFailed { conn, cause, retry_after: None };
        let event = match answer {
            Answer::Accepted { resumed } => Event::Connected { conn, resumed },
            Answer::Refused => failed(DialCause::Refused),
            Answer::Unreachable => failed(DialCause::Unreachable),
        };
        self.receive(manager, event)
    }

    fn beat(&mut self, index: usize) {
        let plan = self.plan;
        let peer = &mut self.peers[index];
        peer.beats += 1;
        let (manager, beats) = (peer.manager, peer.beats);
        let group = &plan.groups[peer.group];
        let (name, id) = (group.peer_id(peer.place).0, peer.conn);
        if let Some(period) = group.heartbeat {
            let peer = u32::try_from(index).unwrap_or(u32::MAX);
            let next = self.now.plus_nanos(period.as_nanos());
            self.queue.push(next, Rank::World, Happening::Beat { peer });
        }
        let Some(id) = id else { return };
        let Some(conn) = self.drivers[manager as usize].conn(id).copied() else { return };
        let Some(&Way { server, link }) = group.ways.get(conn.way) else { return };
        let speaks = conn.phase == Phase::Up && self.servers[server].speaks();
        if speaks && !self.is_lost(link, Purpose::BeatLost, name, beats) {
            let latency = self.latency(link, Purpose::Beat, name, beats);
            let at = self.in_order(manager, id, latency);
            self.queue.push(at, Rank::World, Happening::Heard { manager, conn: id });
        }
    }

    fn ping(&mut self, manager: u32, id: ConnId, ping: PingId) {
        let Some(conn) = self.drivers[manager as usize].conn(id).copied() else { return };
        let peer = &mut self.peers[conn.peer];
        peer.pings += 1;
        let pings = peer.pings;
        let group = &self.plan.groups[peer.group];
        let name = group.peer_id(peer.place).0;
        let Some(&Way { server, link }) = group.ways.get(conn.way) else { return };
        let speaks = conn.phase == Phase::Up && self.servers[server].speaks();
        if speaks && !self.is_lost(link, Purpose::PongLost, name, pings) {
            let there = self.latency(link, Purpose::Pong, name, 2 * pings);
            let back = self.latency(link, Purpose::Pong, name, 2 * pings + 1);
            let both = Span::from_nanos(there.as_nanos().saturating_add(back.as_nanos()));
            let at = self.in_order(manager, id, both);
            self.queue.push(at, Rank::World, Happening::Pong { manager, conn: id, ping });
        }
    }

    fn schedule_traces(&mut self) {
        for index in 0..self.peers.len() {
            let group = &self.plan.groups[self.peers[index].group];
            if let Some(first) = group.trace.as_ref().and_then(|trace| trace.first()) {
                // The connection is up at the very moment of the first arrival.
                let at = self.traced_at(index, *first).as_nanos() - WARM_UP_DIAL_NS;
                let at = Time::from_nanos(at);
                let peer = u32::try_from(index).unwrap_or(u32::MAX);
                self.queue.push(at, Rank::World, Happening::Traced { peer, place: 0 });
            }
        }
    }

    /// Each peer's recording begins a microsecond after the last one's, so that no two of them are
    /// heard at one moment: the first of two would fire the timer that the second comes to settle.
    fn traced_at(&self, index: usize, ms: u64) -> Time {
        let own = u64::try_from(index).unwrap_or(0).saturating_mul(1_000);
        self.measures.start()
            + std::time::Duration::from_millis(ms)
            + std::time::Duration::from_nanos(own)
    }

    /// A recorded heartbeat: the first is the connection itself, after the last the peer leaves.
    fn traced(&mut self, index: usize, place: u32) -> Step {
        let plan = self.plan;
        let Peer { group, place: own, manager, conn, .. } = self.peers[index];
        let group = &plan.groups[group];
        let peer = group.peer_id(own);
        if place == 0 {
            self.tell(manager, Event::Connect { peer })?;
        } else if let Some(conn) = conn {
            self.tell(manager, Event::Heartbeat { conn })?;
        }
        let next = group.trace.as_ref().and_then(|trace| trace.get(place as usize + 1));
        let Some(next) = next else { return self.tell(manager, Event::Disconnect { peer }) };
        let at = self.traced_at(index, *next);
        let peer = u32::try_from(index).unwrap_or(u32::MAX);
        self.queue.push(at, Rank::World, Happening::Traced { peer, place: place + 1 });
        Ok(())
    }

    fn noticed(&mut self, manager: u32, notice: &Notice) {
        match *notice {
            Notice::Peer { peer, from, to, cause } => {
                let Some(index) = self.plan.peer(peer) else { return };
                if cause == PeerCause::Lost(LossCause::Suspected) && self.was_alive(index) {
                    self.peers[index].watch.false_losses += u64::from(!self.warming);
                }
                if self.plan.groups[self.peers[index].group].trace.is_some() {
                    return;
                }
                match (from == PeerState::Connected, to == PeerState::Connected) {
                    (false, true) => self.measures.came_up(index, self.now),
                    (true, false) => self.measures.went_down(index, self.now),
                    _ => {}
                }
                self.measures.given_up += u64::from(to == PeerState::Failed);
            }
            Notice::Suspected { peer, silence, .. } if !self.warming => {
                if let Some(index) = self.plan.peer(peer) {
                    let silence = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX);
                    self.peers[index].watch.suspected(silence);
                }
            }
            Notice::Cleared { peer, suspected_for, .. } if !self.warming => {
                if let Some(index) = self.plan.peer(peer) {
                    let watch = &mut self.peers[index].watch;
                    watch.cleared += 1;
                    watch.suspected_ns += u64::try_from(suspected_for.as_nanos()).unwrap_or(0);
                }
            }
            Notice::Breaker { breaker, from, to } => self.breaker_moved(manager, breaker, from, to),
            _ => {}
        }
    }

    /// Whether the peer's server was there, and could be heard.
    fn was_alive(&self, index: usize) -> bool {
        let peer = &self.peers[index];
        // The order to close comes with the notice, so the connection may be gone already.
        let Some(Way { server, link }) = self.plan.groups[peer.group].ways.first() else {
            return false;
        };
        self.servers[*server].speaks() && self.links[*link].partitioned == 0
    }

    fn breaker_moved(&mut self, manager: u32, breaker: BreakerId, from: State, to: State) {
        let open = |state| i32::from(matches!(state, State::Open { .. } | State::ForcedOpen));
        let half = |state| i32::from(state == State::HalfOpen);
        let (opened, halved) = (open(to) - open(from), half(to) - half(from));
        self.measures.breakers(opened, halved, self.now);
        self.half_open = self.half_open.saturating_add_signed(halved);
        if let Some(view) = self.breakers.get_mut(&(manager, breaker)) {
            view.periods += u32::from(to == State::HalfOpen);
            view.half_open = if to == State::HalfOpen { view.periods } else { 0 };
            view.dials = 0;
        }
    }

    /// What one message takes: at least a nanosecond, since nothing is answered before it was asked.
    fn latency(&self, link: usize, purpose: Purpose, who: u64, n: u64) -> Span {
        let way = &self.links[link];
        let generator = &mut self.draws.generator(purpose, who, n);
        let mut nanos = way.link.latency.sample(generator).as_nanos();
        for slow in &way.slow {
            nanos = nanos.saturating_add(slow.sample(generator).as_nanos());
        }
        Span::from_nanos(nanos.max(1))
    }

    fn is_lost(&self, link: usize, purpose: Purpose, who: u64, n: u64) -> bool {
        let way = &self.links[link];
        if way.partitioned > 0 {
            return true;
        }
        let base = way.link.loss.as_f64();
        let kept = way.lossy.iter().fold(1.0 - base, |kept, loss| kept * (1.0 - loss));
        kept < 1.0 && unit(self.draws.draw(purpose, who, n)) >= kept
    }

    /// When a message of the server arrives: never before an earlier one.
    fn in_order(&mut self, manager: u32, id: ConnId, latency: Span) -> Time {
        let at = self.now.plus_nanos(latency.as_nanos());
        let Some(conn) = self.drivers[manager as usize].conn(id) else { return at };
        conn.ordered_until = conn.ordered_until.max(at);
        conn.ordered_until
    }

    /// Makes sure that the manager is woken at its deadline.
    fn set_alarm(&mut self, manager: u32) {
        let driver = &mut self.drivers[manager as usize];
        let Some(deadline) = driver.manager.next_deadline() else { return };
        let at = deadline.max(self.now);
        if at < driver.alarm && driver.attends_to(&Event::Tick) {
            driver.alarm = at;
            self.queue.push(at, Rank::Wake, Happening::Alarm { manager });
        }
    }

    fn alarm(&mut self, manager: u32) -> Step {
        let driver = &mut self.drivers[manager as usize];
        // An earlier alarm took its place, and has gone off.
        if driver.alarm != self.now || !driver.attends_to(&Event::Tick) {
            return Ok(());
        }
        driver.alarm = Time::MAX;
        match driver.manager.next_deadline() {
            Some(deadline) if deadline <= self.now => self.tick(manager),
            _ => {
                self.set_alarm(manager);
                Ok(())
            }
        }
    }

    fn tick(&mut self, manager: u32) -> Step {
        let driver = &mut self.drivers[manager as usize];
        let (at, ticks) = driver.ticks;
        driver.ticks = if at == self.now { (at, ticks + 1) } else { (self.now, 1) };
        if driver.ticks.1 > MOST_TICKS {
            let rule = format!("time stands still: {MOST_TICKS} ticks at one moment");
            return Err(self.violation(manager, rule, "Tick"));
        }
        self.tell(manager, Event::Tick)
    }

    /// A test's tick somewhere before the next event.
    fn tick_before(&mut self, next: Time) -> Step {
        self.draws_of_tests += 1;
        let n = self.draws_of_tests;
        let random = |kind| self.draws.draw(Purpose::ExtraTick, kind, n);
        if unit(random(0)) >= self.options.extra_ticks {
            return Ok(());
        }
        let managers = u64::from(self.plan.managers) - 1;
        let manager = steadfast::draw::uniform(random(1), 0, managers);
        let at = steadfast::draw::uniform(random(2), self.now.as_nanos(), next.as_nanos());
        // At the very moment of the next event its I/O must come first.
        if at < next.as_nanos() {
            self.now = Time::from_nanos(at);
            self.measures.advance(self.now);
            self.tell(u32::try_from(manager).unwrap_or(0), Event::Tick)?;
        }
        Ok(())
    }

    fn restore(&mut self, manager: u32, event: &str) -> Step {
        self.draws_of_tests += 1;
        let random = self.draws.draw(Purpose::Restore, u64::from(manager), self.draws_of_tests);
        if unit(random) >= self.options.restores {
            return Ok(());
        }
        let restored = self.drivers[manager as usize].restore(random);
        restored.map_err(|problem| self.violation(manager, problem, event))
    }

    fn check(&mut self, manager: u32, event: &str) -> Step {
        self.invariant_checks += 1;
        let checked = self.drivers[manager as usize].manager.check();
        checked
            .map_err(|violation| self.violation(manager, format!("invariant {violation}"), event))
    }

    fn check_all(&mut self, when: &str) -> Step {
        (0..self.plan.managers).try_for_each(|manager| self.check(manager, when))
    }

    fn violation(&self, manager: u32, rule: String, event: &str) -> Violation {
        let at = self.now.since(self.measures.start());
        Violation {
            rule,
            manager,
            step: self.events,
            at: Span::from_nanos(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)),
            event: event.to_owned(),
        }
    }

    fn outcome(self, violation: Option<Violation>) -> Outcome {
        let digests: Vec<u64> =
            self.drivers.iter().map(|driver| driver.manager.run_digest()).collect();
        let digest = digests.iter().fold(0, |digest: u64, one| {
            (digest.rotate_left(5) ^ one).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        self.recorder.end(self.events, &digests);
        let mut groups: Vec<_> =
            self.plan.groups.iter().map(|group| (group.name.clone(), Watch::default())).collect();
        let mut watched = Vec::new();
        for peer in &self.peers {
            let group = &self.plan.groups[peer.group];
            groups[peer.group].1.add(&peer.watch);
            if group.trace.is_some() {
                let (group, place) = (group.name.clone(), peer.place);
                watched.push(Watched { group, place, watch: peer.watch });
            }
        }
        let virtual_ns = self.now.since(self.measures.start()).as_nanos();
        Outcome {
            digest,
            digests,
            events: self.events,
            actions: self.actions,
            invariant_checks: self.invariant_checks,
            virtual_ns: u64::try_from(virtual_ns).unwrap_or(u64::MAX),
            watched,
            violation,
            facts: self.measures.facts(self.now, self.ideal_s, groups),
        }
    }
}
