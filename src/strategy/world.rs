//! A driver and everything beyond it, as far as a script tells of it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::{Act, Address, Fact, Op, Wrong};
use crate::action::Action;
use crate::event::{CallFailure, Endpoint, Event, Target};
use crate::id::{
    AttemptId, BreakerId, BreakerProfileId, CallId, CallProfileId, ConnId, EndpointId, PeerId,
    PeerProfileId, PingId, Tag,
};
use crate::manager::Manager;
use crate::time::Time;

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
    /// The calls that are not over, by name, with what they went to.
    calls: BTreeMap<CallId, (Target, CallProfileId)>,
    /// How many there have been.
    named: u64,
    /// The attempts that run, each with its call, the oldest first.
    attempts: Vec<(AttemptId, CallId)>,
    /// Those of them that run over a connection, each with it.
    routes: Vec<(AttemptId, ConnId)>,
    over: Vec<AttemptId>,
    /// The latest moment of a step.
    told_at: Time,
    ticked_at: Option<Time>,
    /// Issued at this very moment: what is said of them was not waiting before the tick.
    fresh: Vec<ConnId>,
    fresh_attempts: Vec<AttemptId>,
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
            calls: BTreeMap::new(),
            named: 0,
            attempts: Vec::new(),
            routes: Vec::new(),
            over: Vec::new(),
            told_at: Time::ZERO,
            ticked_at: None,
            fresh: Vec::new(),
            fresh_attempts: Vec::new(),
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

    /// The calls that are not over.
    pub fn calls(&self) -> impl Iterator<Item = CallId> + use<'_> {
        self.calls.keys().copied()
    }

    /// The attempts that run, the oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = AttemptId> + use<'_> {
        self.attempts.iter().map(|(attempt, _)| *attempt)
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

    /// Everything is good from now on and for that long: the network is up and the app in the foreground, operators take their
    /// orders back and revive whoever gave up, each dial and each attempt of a call succeeds after
    /// 10 ms, and every connection has a heartbeat a second.
    ///
    /// # Panics
    ///
    /// As [`play`](Self::play).
    pub fn heal(&mut self, span: Duration) -> Vec<Step> {
        let mut steps = Vec::new();
        let until = self.now + span;
        steps.push(self.tell(Event::NetworkUp));
        steps.push(self.tell(Event::Resumed));
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
            let attempts: Vec<AttemptId> = self.attempts().collect();
            let idle = dials.is_empty() && attempts.is_empty();
            let answer_at = self.now + Duration::from_millis(10);
            let due = self.manager.next_deadline().filter(|&due| due > self.now);
            let wake = beat_at.min(if idle { Time::MAX } else { answer_at });
            let wake = wake.min(due.unwrap_or(Time::MAX)).clamp(self.now, until);
            self.sleep_until(wake, &mut |_: &Manager, step| steps.push(step));
            for conn in dials.into_iter().filter(|_| wake == answer_at) {
                if self.dialing.contains(&conn) {
                    steps.push(self.tell(Event::Connected { conn, resumed: false }));
                }
            }
            for attempt in attempts.into_iter().filter(|_| wake == answer_at) {
                if self.attempts().any(|running| running == attempt) {
                    steps.push(self.tell(Event::Succeeded { attempt }));
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
        let attempt = self.live_attempt(&event);
        let waited = conn.is_some_and(|conn| !self.fresh.contains(&conn))
            || attempt.is_some_and(|attempt| {
                !self.fresh_attempts.contains(&attempt) && !self.is_cut_off(attempt)
            });
        let late = self.ticked_at == Some(at) && waited;
        self.follow(&event);
        if at > self.told_at {
            self.fresh.clear();
            self.fresh_attempts.clear();
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
            Event::Heard { conn }
            | Event::Heartbeat { conn }
            | Event::GoAway { conn, .. }
            | Event::Metrics { conn, .. } => (conn, self.up.contains(conn)),
            _ => return None,
        };
        live.then_some(*conn)
    }

    /// The attempt that the event tells of, if it is one that may be told of.
    fn live_attempt(&self, event: &Event) -> Option<AttemptId> {
        let (Event::Succeeded { attempt }
        | Event::Failed { attempt, .. }
        | Event::Dropped { attempt }) = event
        else {
            return None;
        };
        self.attempts().find(|running| running == attempt)
    }

    /// Whether the connection that the attempt ran over is gone: then it is reported when it may be.
    fn is_cut_off(&self, attempt: AttemptId) -> bool {
        let over = self.routes.iter().find(|(routed, _)| *routed == attempt);
        over.is_some_and(|(_, conn)| !self.up.contains(conn))
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
                self.over.extend(self.attempts.drain(..).map(|(attempt, _)| attempt));
                self.routes.clear();
                self.calls.clear();
            }
            Event::Call { call, target, profile, .. } => {
                self.calls.entry(*call).or_insert((*target, *profile));
            }
            Event::Succeeded { attempt }
            | Event::Failed { attempt, .. }
            | Event::Dropped { attempt } => self.end_attempt(*attempt),
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
            Action::StartAttempt { attempt, call, conn } => {
                self.attempts.push((*attempt, *call));
                self.routes.extend(conn.map(|conn| (*attempt, conn)));
                self.fresh_attempts.push(*attempt);
            }
            Action::CancelAttempt { attempt } => self.end_attempt(*attempt),
            Action::Done { call } | Action::GiveUp { call, .. } | Action::Reject { call, .. } => {
                self.calls.remove(call);
            }
            Action::Refuse { .. } | Action::Notice(_) => {}
        }
    }

    fn end_attempt(&mut self, attempt: AttemptId) {
        let running = self.attempts.len();
        self.attempts.retain(|(known, _)| *known != attempt);
        self.routes.retain(|(known, _)| *known != attempt);
        if self.attempts.len() < running {
            self.over.push(attempt);
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
            Act::GoAway { conn, leaves_in, reconnect_in } => {
                Event::GoAway { conn: nth(&self.up, conn)?, leaves_in, reconnect_in }
            }
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
            Act::Call { peer: to, breaker: name, profile, within } => {
                self.named += 1;
                let breaker = breaker(name);
                let target = match to {
                    Some(to) => Target::Peer { peer: peer(to), breaker },
                    None => Target::Breaker(breaker),
                };
                let profile = CallProfileId(profile.into());
                let deadline = within.map(|within| self.now + within);
                Event::Call { call: CallId(self.named), target, profile, deadline }
            }
            Act::CancelCall { call } => {
                // Where there is none: the latest, which was over before its caller knew.
                Event::CancelCall { call: self.nth_call(call).unwrap_or(CallId(self.named)) }
            }
            Act::Succeeded { attempt } => Event::Succeeded { attempt: self.nth_attempt(attempt)? },
            Act::Failed { attempt, kind, retry_after } => {
                Event::Failed { attempt: self.nth_attempt(attempt)?, kind, retry_after }
            }
            Act::Dropped { attempt } => Event::Dropped { attempt: self.nth_attempt(attempt)? },
            Act::NetworkDown => Event::NetworkDown,
            Act::NetworkUp => Event::NetworkUp,
            Act::NetworkChanged => Event::NetworkChanged,
            Act::Paused => Event::Paused,
            Act::Resumed => Event::Resumed,
            Act::Load { load } => Event::Load { load },
            Act::Restarted => Event::Restarted,
            Act::Tick | Act::Oversleep { .. } => Event::Tick,
            Act::ForceOpen { breaker: name } => Event::ForceOpen { breaker: breaker(name) },
            Act::Disable { breaker: name } => Event::Disable { breaker: breaker(name) },
            Act::WatchOnly { breaker: name, on } => Event::WatchOnly { breaker: breaker(name), on },
            Act::ResetBreaker { breaker: name } => Event::ResetBreaker { breaker: breaker(name) },
            Act::Revive { peer: name } => Event::Revive { peer: name.map(peer) },
            Act::Wrong(ref wrong) => return self.wrong_event(wrong),
        };
        Some((event, false))
    }

    fn nth_call(&self, place: u8) -> Option<CallId> {
        let calls: Vec<CallId> = self.calls().collect();
        nth(&calls, place)
    }

    fn nth_attempt(&self, place: u8) -> Option<AttemptId> {
        nth(&self.attempts, place).map(|(attempt, _)| attempt)
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
            Wrong::DeadAttempt { attempt, succeeded } => {
                let attempt = nth(&self.over, attempt)?;
                if succeeded {
                    Event::Succeeded { attempt }
                } else {
                    Event::Failed { attempt, kind: CallFailure::Error, retry_after: None }
                }
            }
            Wrong::CallAgain { call } => {
                let call = self.nth_call(call)?;
                let (target, profile) = self.calls.get(&call).copied()?;
                return Some((Event::Call { call, target, profile, deadline: None }, false));
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
