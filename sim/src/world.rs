//! The world: real managers, and around them what they cannot tell from the real thing.
//!
//! One loop takes the next thing that happens and lets it happen. What reaches a manager goes
//! through [`World::tell`]; what it orders comes back through [`World::obey`], which only ever
//! schedules, so that nothing recurses. Each kind of thing that happens has a file of its own.

#![expect(clippy::indexing_slicing, reason = "indices come from the plan, which made the lists")]

mod breakers;
mod calls;
mod churn;
mod client;
mod drain;
mod fault;
mod heartbeat;
mod host;
mod link;
mod oracle;
mod program;
mod requests;
mod server;
mod watch;

use std::collections::BTreeMap;

use steadfast::{
    Action, AttemptId, CallFailure, ConnId, DialCause, Endpoint, Event, LossCause, Manager, PingId,
    Time,
};

use crate::draws::{Draws, Purpose};
use crate::driver::{Driver, Phase};
use crate::log::Log;
use crate::marks::Marks;
use crate::measure::{Measures, Watch};
use crate::plan::Plan;
use crate::queue::{Queue, Rank, Tied};
use crate::scenario::ScenarioError;
use crate::tally::Tally;
use crate::units::{Share, Span};
use breakers::Breakers;
use calls::{Flow, RequestId};
use churn::Hosts;
use drain::Balancer;
use heartbeat::Circle;
use link::Road;
use oracle::Oracle;
use requests::{Ask, Desk};
use server::Server;
pub(crate) use watch::Outcome;
pub use watch::Violation;

/// How much is checked while a world runs. None of it changes what happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Whether the manager's invariants are checked after every step; `None`: in worlds of at most
    /// 1,000 peers those of whom a step concerned after each of the first 100,000, and all after
    /// every 1,009th. They are always checked before the first fault, after the last, and at the end.
    pub invariants: Option<bool>,
    /// Whether, where all would be checked after every step, only those are whom the step concerned, and
    /// all after every 128th.
    pub concerned: bool,
    /// Whether the core's `Ledger` watches the drivers, in worlds of at most 500,000 peers: it has a
    /// record of each connection.
    pub ledger: bool,
    /// The chance of a tick at some moment between two events, which must change nothing.
    pub extra_ticks: f64,
    /// The chance that a manager goes on from its own snapshot after a step, which must change
    /// nothing.
    pub restores: f64,
    /// The key of the managers' id tables, which must change nothing.
    pub hash_key: u64,
    /// Whether what happens in one moment happens in an order of chance, as far as it concerns different
    /// parties. This may change what happens.
    pub shuffles_ties: bool,
    /// Whether it ends as soon as all has been well for a while after the heal.
    pub until_well: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            invariants: None,
            concerned: false,
            ledger: true,
            extra_ticks: 0.0,
            restores: 0.0,
            hash_key: 0x5eed,
            shuffles_ties: false,
            until_well: false,
        }
    }
}

/// When the invariants are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    /// After every step.
    Always,
    /// Of those whom it concerned after every step, of all after some.
    Concerned,
    /// The same, but the former in the first of many steps only, and the latter more seldom.
    Often,
    /// At the few moments when they always are.
    Seldom,
}

impl Checks {
    const fn are_due(self, step: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Concerned => step.is_multiple_of(128),
            // A prime: whatever comes at regular intervals, it does not miss it for ever.
            Self::Often => step.is_multiple_of(1_009),
            Self::Seldom => false,
        }
    }

    /// Whether those whom the step concerned are checked where not all are.
    const fn are_due_of_some(self, step: u64) -> bool {
        match self {
            Self::Concerned => true,
            Self::Often => step <= 100_000,
            Self::Always | Self::Seldom => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Accepted {
        resumed: bool,
    },
    Failed(DialCause),
    /// There is no network: the host says so itself.
    NoNetwork,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A dial reaches its server.
    Arrive { manager: usize, conn: ConnId, server: usize },
    /// A server is done with the handshake at its desk.
    Done { server: usize, epoch: u32 },
    /// A dial's answer reaches the client.
    Answer { manager: usize, conn: ConnId, answer: Answer },
    /// The news that a connection is gone does.
    Reset { manager: usize, conn: ConnId },
    /// A server's word that it will go then does.
    GoAway { manager: usize, conn: ConnId, leaves_at: Time },
    /// An instance that said so goes.
    Leaves { server: usize, instance: u16 },
    /// The next of many such pieces of news does.
    News { wave: usize },
    /// A server sends the next peer of a group its sign of life.
    Beat { group: usize },
    /// It reaches the client.
    Heard { manager: usize, conn: ConnId },
    /// A pong does.
    Pong { manager: usize, conn: ConnId, ping: PingId },
    /// A recorded heartbeat arrives.
    Traced { peer: usize, place: usize },
    /// A client of a workload makes a call.
    Call { workload: usize, client: u32 },
    /// A retry layer around the manager makes another one of it.
    Again { request: RequestId },
    /// A request reaches its server.
    Ask { ask: Ask, server: usize },
    /// A server's desk is done with a request.
    Turned { server: usize, epoch: u32 },
    /// A server is done with one.
    Worked { server: usize, place: usize, epoch: u32 },
    /// Its answer reaches the client.
    Reply { ask: Ask, failure: Option<CallFailure> },
    /// An attempt's connection is gone.
    Broken { manager: usize, attempt: AttemptId },
    /// A peer's own host goes, or comes back.
    Turn { peer: usize },
    /// A fault begins, or ends.
    Fault { fault: usize, begins: bool },
    /// The same for one manager.
    Own { fault: usize, manager: usize, begins: bool },
    /// The last fault is over.
    Healed,
    /// A process that woke the wrong way round looks at its sockets at last.
    Reads { manager: usize },
    /// A manager's alarm goes off.
    Alarm { manager: usize },
}

impl Tied for Happening {
    fn is_free(&self) -> bool {
        // What the same connection brings keeps its order, and so do faults.
        matches!(
            self,
            Self::Arrive { .. }
                | Self::Done { .. }
                | Self::Call { .. }
                | Self::Ask { .. }
                | Self::Turned { .. }
                | Self::Worked { .. }
                | Self::Reply { .. }
                | Self::Alarm { .. }
        )
    }
}

/// A peer as the world sees it. There may be millions, so each is small.
#[derive(Clone, Copy, Debug)]
struct Peer {
    group: u16,
    /// Which of its group's ways the last connection took.
    way: u16,
    place: u32,
    manager: u32,
    dials: u32,
    beats: u32,
    pings: u32,
    conn: Option<ConnId>,
    /// Since when the other side of its connection is gone; `MAX` if it is not.
    dead_since: Time,
}

/// Where a peer belongs.
#[derive(Clone, Copy, Debug)]
struct Who {
    group: usize,
    /// Its place in the group.
    place: u32,
    manager: usize,
}

impl Peer {
    const fn who(self) -> Who {
        Who { group: self.group as usize, place: self.place, manager: self.manager as usize }
    }
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
    /// By server.
    balancers: Vec<Balancer>,
    links: Vec<Road>,
    /// By group.
    circles: Vec<Circle>,
    peers: Vec<Peer>,
    /// Until when servers remember the sessions of peers; nothing if no group has any.
    sessions: Vec<Time>,
    /// Since when each peer could be up again as far as its host is concerned; `MAX` if it is, or its
    /// host cannot. Nothing if no fault touches hosts.
    awaited: Vec<Time>,
    /// News of many lost connections, wave by wave, each wave latest first.
    news: Vec<Vec<(Time, u32, ConnId)>>,
    /// What detectors said, by group, and by peer where one follows a recording.
    watches: Vec<Watch>,
    traced: BTreeMap<usize, Watch>,
    /// By group; nothing where no fault touches them.
    hosts: Vec<Hosts>,
    /// By workload.
    flows: Vec<Flow>,
    /// By server.
    desks: Vec<Desk>,
    tally: Tally,
    breakers: Breakers<'a>,
    half_open: u32,
    measures: Measures,
    ideal_s: Option<f64>,
    /// Dials succeed at once, before the scenario begins.
    warming: bool,
    checks: Checks,
    events: u64,
    actions: u64,
    invariant_checks: u64,
    draws_of_tests: u64,
    /// How often a driver might have told what it should no longer.
    late_facts: u64,
    marks: Marks,
    oracle: Oracle,
    /// By group: whether something promises its peers a connection.
    core: Vec<bool>,
    /// Whether one of them was down at the heal.
    was_down: bool,
    scratch: Vec<Action>,
    log: &'a mut dyn Log,
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
        log: &'a mut dyn Log,
    ) -> Result<Self, ScenarioError> {
        let draws = Draws::new(seed);
        let habits = plan.habits;
        let options = Options {
            // It would name what a driver tells too late.
            ledger: options.ledger
                && plan.peers <= 500_000
                && habits.late_facts == Share::default(),
            extra_ticks: options.extra_ticks.max(habits.extra_ticks.as_f64()),
            restores: options.restores.max(habits.restores.as_f64()),
            ..options
        };
        let checks = match options.invariants {
            Some(true) if options.concerned => Checks::Concerned,
            Some(true) => Checks::Always,
            None if plan.peers <= 1_000 => Checks::Often,
            Some(false) | None => Checks::Seldom,
        };
        let managers = plan.managers as u64;
        let seeds: Vec<u64> =
            (0..managers).map(|manager| draws.draw(Purpose::Manager, manager, 0)).collect();
        log.begin(&plan.config, &seeds);
        let drivers = seeds.iter().map(|seed| {
            let config = steadfast::config::Config { seed: *seed, ..plan.config.clone() };
            Manager::new(config, options.hash_key).map(Driver::new)
        });
        let drivers = drivers.collect::<Result<Vec<_>, _>>();
        let drivers = drivers.map_err(|error| ScenarioError::plain(error.to_string()))?;
        let mut peers = Vec::with_capacity(plan.peers as usize);
        let managers = u32::try_from(plan.managers).unwrap_or(u32::MAX);
        for (index, group) in (0..).zip(&plan.groups) {
            for place in 0..group.count {
                peers.push(Peer {
                    group: index,
                    place,
                    manager: u32::try_from(peers.len()).unwrap_or(u32::MAX) % managers,
                    dials: 0,
                    beats: 0,
                    pings: 0,
                    way: 0,
                    conn: None,
                    dead_since: Time::MAX,
                });
            }
        }
        let traced = plan.groups.iter().filter(|group| group.trace.is_some());
        let traced: u32 = traced.map(|group| group.count).sum();
        Ok(Self {
            options,
            draws,
            now: Time::ZERO,
            queue: Queue::new(options.shuffles_ties.then_some(seed)),
            drivers,
            servers: plan.servers.iter().map(Server::new).collect(),
            balancers: plan.servers.iter().map(Balancer::new).collect(),
            links: plan.links.iter().map(Road::new).collect(),
            circles: plan.groups.iter().map(|_| Circle::default()).collect(),
            sessions: if plan.groups.iter().any(|group| group.session_ttl.is_some()) {
                vec![Time::ZERO; peers.len()]
            } else {
                Vec::new()
            },
            awaited: if plan.faults.iter().any(|fault| fault.trouble.keeps_off()) {
                vec![Time::MAX; peers.len()]
            } else {
                Vec::new()
            },
            peers,
            news: Vec::new(),
            watches: vec![Watch::default(); plan.groups.len()],
            traced: BTreeMap::new(),
            hosts: plan.groups.iter().map(|_| Hosts::default()).collect(),
            flows: plan.workloads.iter().map(Flow::new).collect(),
            desks: plan.requests.iter().map(Desk::new).collect(),
            tally: Tally::default(),
            breakers: Breakers::new(plan),
            half_open: 0,
            measures: Measures::new(plan.peers, plan.groups.len(), traced),
            ideal_s: None,
            warming: true,
            checks,
            marks: Marks::default(),
            core: plan.groups.iter().map(|group| plan.liveness(group).is_some()).collect(),
            was_down: false,
            oracle: Oracle::new(plan, checks != Checks::Seldom),
            events: 0,
            actions: 0,
            invariant_checks: 0,
            draws_of_tests: 0,
            late_facts: 0,
            scratch: Vec::new(),
            log,
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
        self.tally.begin(start, plan.servers.len());
        self.log.start(start);
        self.schedule_calls();
        self.schedule_faults();
        self.schedule_traces();
        self.check_all("the start of the scenario")?;
        let end = start.plus_nanos(duration.as_nanos());
        let share = 256_u32;
        for part in 1..=share {
            progress((f64::from(part) - 1.0) / f64::from(share));
            let until = duration.as_nanos() / u64::from(share) * u64::from(part);
            self.run_until(start.plus_nanos(until).min(end))?;
            if self.options.until_well && self.is_well() {
                break;
            }
        }
        if !self.options.until_well {
            self.run_until(end)?;
        }
        self.check_overdue()?;
        self.check_all("the end of the scenario")
    }

    /// Adds breakers and peers, and connects all that do not follow a recording.
    fn populate(&mut self) -> Step {
        let plan = self.plan;
        for index in 0..self.peers.len() {
            let Who { group, place, manager } = self.peers[index].who();
            let circle = group;
            let group = &plan.groups[group];
            let endpoints: Vec<_> = self.endpoints_of(index).collect();
            for &Endpoint { breaker, .. } in &endpoints {
                if self.breakers.add(manager, breaker) {
                    let profile = group.breaker_profile;
                    self.tell(manager, Event::AddBreaker { breaker, profile })?;
                }
            }
            let (peer, profile) = (group.peer_id(place), group.profile(place));
            self.tell(manager, Event::AddPeer { peer, profile, endpoints })?;
            if group.trace.is_none() {
                self.tell(manager, Event::Connect { peer })?;
            }
            if let Some(period) = group.heartbeat {
                let phase = self.draws.draw(Purpose::BeatPhase, peer.0, 0);
                let phase = steadfast::draw::uniform(phase, 0, period.as_nanos() - 1);
                self.circles[circle].beats.push((phase, index));
            }
        }
        for group in 0..self.circles.len() {
            self.circles[group].beats.sort_unstable();
            self.schedule_beats(group);
        }
        self.add_call_breakers()
    }

    /// Lets everybody connect to servers that take no time, and then come to rest.
    fn warm_up(&mut self) -> Step {
        if self.peers.is_empty() {
            self.warming = false;
            return Ok(());
        }
        loop {
            let (up, wanting) = self.measures.is_up();
            if up == wanting {
                break;
            }
            if !self.happen(LONGEST_WARM_UP)? {
                let rule = format!("the warm-up brought up {up} of {wanting} peers");
                return Err(self.violation(0, rule, format_args!("the warm-up")));
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
                self.arrive(server, manager, conn);
                self.log_server(server);
            }
            Happening::Done { server, epoch } => {
                self.done(server, epoch);
                self.log_server(server);
            }
            Happening::Answer { manager, conn, answer } => self.answered(manager, conn, answer)?,
            Happening::Reset { manager, conn } => {
                let lost = Event::Lost { conn, cause: LossCause::Reset };
                self.receive(manager, lost)?;
            }
            Happening::GoAway { manager, conn, leaves_at } => {
                self.go_away(manager, conn, leaves_at)?;
            }
            Happening::Leaves { server, instance } => self.instance_leaves(server, instance),
            Happening::News { wave } => self.news(wave)?,
            Happening::Beat { group } => self.beat(group),
            Happening::Heard { manager, conn } => {
                self.receive(manager, Event::Heartbeat { conn })?;
            }
            Happening::Pong { manager, conn, ping } => {
                let conn = self.drivers[manager].conn(conn);
                if conn.is_some_and(|conn| conn.phase != Phase::Stale) {
                    self.receive(manager, Event::Pong { ping })?;
                }
            }
            Happening::Traced { peer, place } => self.traced(peer, place)?,
            Happening::Call { workload, client } => self.call(workload, client)?,
            Happening::Again { request } => self.try_call(request)?,
            Happening::Ask { ask, server } => {
                self.asked(server, ask);
                self.log_server(server);
            }
            Happening::Turned { server, epoch } => {
                self.turned(server, epoch);
                self.log_server(server);
            }
            Happening::Worked { server, place, epoch } => self.worked(server, place, epoch),
            Happening::Broken { manager, attempt } => self.broken(manager, attempt)?,
            Happening::Reply { ask, failure } => self.replied(ask, failure)?,
            Happening::Turn { peer } => self.turn(peer),
            Happening::Fault { fault, begins } => {
                self.fault(fault, begins)?;
                (0..self.servers.len()).for_each(|server| self.log_server(server));
            }
            Happening::Own { fault, manager, begins } => {
                let trouble = self.plan.faults[fault].trouble.clone();
                self.host_fault(manager, &trouble, begins)?;
            }
            Happening::Healed => self.healed()?,
            Happening::Reads { manager } => self.reads(manager)?,
            Happening::Alarm { manager } => self.alarm(manager)?,
        }
        Ok(true)
    }

    /// Tells the log how a server stands, whose desk or queue has just changed.
    fn log_server(&mut self, server: usize) {
        let (dials, at_dial) = self.servers[server].load();
        let (requests, at_request) = self.desks.get(server).map_or((0, false), Desk::load);
        self.log.server(server, self.now, dials + requests, at_dial || at_request);
        let cache = self.plan.requests.get(server).and_then(|plan| plan.cache);
        if let Some(behind) = cache.map(|cache| cache.behind).filter(|behind| *behind != server) {
            self.log_server(behind);
        }
    }

    /// Something comes in over the network, if there is one.
    fn receive(&mut self, manager: usize, event: Event) -> Step {
        let driver = &mut self.drivers[manager];
        if driver.offline > 0 || driver.is_stale(&event) {
            return Ok(());
        }
        self.tell(manager, event)
    }

    /// The driver tells its manager, or keeps it while its process sleeps.
    fn tell(&mut self, manager: usize, event: Event) -> Step {
        let driver = &mut self.drivers[manager];
        if !driver.attends_to(&event) {
            driver.hold(event);
            return Ok(());
        }
        if !driver.may_tell(&event) {
            self.measures.server_wasted += u64::from(matches!(event, Event::Connected { .. }));
            return if self.tells_late() { self.step(manager, event, true) } else { Ok(()) };
        }
        match event {
            Event::Connected { conn: id, resumed } => {
                if let Some(conn) = driver.conn(id) {
                    if conn.phase == Phase::Answered {
                        conn.phase = Phase::Up;
                    }
                    let was = *conn;
                    conn.half_open = 0;
                    let (index, way, up) = (was.peer(), was.way(), was.phase == Phase::Up);
                    self.probe_over(manager, id, &was);
                    let peer = &mut self.peers[index];
                    (peer.conn, peer.way) = (Some(id), u16::try_from(way).unwrap_or(u16::MAX));
                    peer.dead_since = if up { Time::MAX } else { self.now };
                    self.greet(manager, id, index);
                    if up {
                        self.no_longer_awaited(index);
                    }
                    self.measures.connected(resumed);
                }
            }
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => {
                self.close(manager, conn);
            }
            Event::Succeeded { attempt }
            | Event::Failed { attempt, .. }
            | Event::Dropped { attempt } => {
                driver.finish(attempt);
            }
            _ => {}
        }
        self.step(manager, event, false)
    }

    /// Whether a driver tells what it should no longer.
    fn tells_late(&mut self) -> bool {
        let share = self.plan.habits.late_facts;
        if share == Share::default() {
            return false;
        }
        self.late_facts += 1;
        share.hits(self.draws.draw(Purpose::LateFact, 0, self.late_facts))
    }

    /// One step of a manager, with all that watches it; `late` if it is told of what is over.
    fn step(&mut self, manager: usize, event: Event, late: bool) -> Step {
        self.foresee(manager, &event);
        let mut actions = std::mem::take(&mut self.scratch);
        let driver = &mut self.drivers[manager];
        let before = driver.manager.stats().dials_in_flight;
        let ledger = driver.step(&event, self.now, &mut actions, self.options.ledger);
        self.log.step(manager, self.now, &event, &actions);
        self.measures.in_flight(before, driver.manager.stats().dials_in_flight);
        self.events += 1;
        self.actions += actions.len() as u64;
        let after = format_args!("{event:?}");
        if let Err(breach) = ledger {
            let rule = format!("the driver broke a rule: {breach}");
            return Err(self.violation(manager, rule, after));
        }
        if self.checks.are_due(self.events) {
            self.check(manager, after)?;
        } else if self.checks.are_due_of_some(self.events) {
            self.check_step(manager, &event, &actions)?;
        }
        if self.options.restores > 0.0 {
            self.restore(manager, after)?;
        }
        for action in actions.drain(..) {
            self.marks.see(&action);
            self.judge(&action, late);
            self.obey(manager, action);
        }
        self.scratch = actions;
        if let Some(rule) = self.oracle.broken() {
            return Err(self.violation(manager, rule, format_args!("{event:?}")));
        }
        self.set_alarm(manager);
        Ok(())
    }

    fn obey(&mut self, manager: usize, action: Action) {
        match action {
            Action::Dial { conn, peer, endpoint, resume } => {
                if let Some(peer) = self.plan.peer(peer) {
                    self.dial(manager, conn, peer, endpoint.0 as usize, resume);
                }
            }
            Action::CancelDial { conn } | Action::Close { conn } => self.close(manager, conn),
            Action::Ping { ping, conn } => self.ping(manager, conn, ping),
            Action::StartAttempt { attempt, call, conn } => {
                self.start_attempt(manager, attempt, call, conn);
            }
            Action::CancelAttempt { attempt } => self.drivers[manager].finish(attempt),
            Action::Done { .. } | Action::GiveUp { .. } | Action::Reject { .. } => {
                self.call_ended(&action);
            }
            // Nobody dials us here.
            Action::Adopt { .. } | Action::Refuse { .. } => {}
            Action::Notice(notice) => self.noticed(manager, &notice),
        }
    }

    /// Makes sure that the manager is woken at its deadline.
    fn set_alarm(&mut self, manager: usize) {
        let driver = &mut self.drivers[manager];
        let Some(deadline) = driver.manager.next_deadline() else { return };
        let at = deadline.max(self.now);
        if at < driver.alarm && driver.attends_to(&Event::Tick) {
            driver.alarm = at;
            self.queue.push(at, Rank::Wake, Happening::Alarm { manager });
        }
    }

    fn alarm(&mut self, manager: usize) -> Step {
        let driver = &mut self.drivers[manager];
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

    fn tick(&mut self, manager: usize) -> Step {
        let driver = &mut self.drivers[manager];
        let (at, ticks) = driver.ticks;
        driver.ticks = if at == self.now { (at, ticks + 1) } else { (self.now, 1) };
        if driver.ticks.1 > MOST_TICKS {
            let rule = format!("time stands still: {MOST_TICKS} ticks at one moment");
            return Err(self.violation(manager, rule, format_args!("Tick")));
        }
        self.tell(manager, Event::Tick)
    }
}
