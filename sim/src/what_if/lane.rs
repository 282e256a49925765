//! One manager of the recording and its other self, side by side.
//!
//! The recorded events come in their order. Between two of them the other manager is woken at its own
//! deadlines, as long as the recorded driver was awake, and is told what is made up for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use steadfast::recording::Step;
use steadfast::{
    Action, AttemptId, BreakerId, CallFailure, CallId, ConnId, Event, LossCause, Manager, PeerId,
    PingId, Time,
};

use super::bonds::Bonds;
use super::counts::{Counts, Curve};
use super::known::{AttemptAnswer, DialAnswer, Known};
use super::pairs::Pairs;
use super::recorded::Recorded;

/// A dial or connection of the other manager.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) peer: PeerId,
    pub(super) breaker: Option<BreakerId>,
    pub(super) up: bool,
    pub(super) attempts: BTreeSet<AttemptId>,
    /// How long the dial took whose answer it got, if that was not its own.
    pub(super) took: Option<Duration>,
}

/// An attempt of the other manager.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) call: CallId,
    pub(super) conn: Option<ConnId>,
    /// The recorded one that it is.
    pub(super) same: Option<AttemptId>,
}

/// What the other manager is told that is not in the recording.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Dial(ConnId, DialAnswer),
    Lost(ConnId, LossCause),
    Pong(PingId, ConnId),
    Attempt(AttemptId, AttemptAnswer),
}

#[derive(Debug)]
pub(super) struct Lane<'a> {
    pub(super) known: &'a Known,
    pub(super) place: usize,
    pub(super) manager: Manager,
    /// The latest moment that it was told.
    pub(super) at: Time,
    pub(super) recorded: Recorded,
    /// When the recorded manager was told something last, and asked to be woken.
    recorded_at: Time,
    recorded_deadline: Option<Time>,
    /// From which lateness on the recorded driver was asleep.
    late_after: Duration,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) of_peers: BTreeMap<PeerId, BTreeSet<ConnId>>,
    pub(super) bonds: Bonds,
    pub(super) attempts: BTreeMap<AttemptId, Attempt>,
    /// Its calls that are not over, with their attempts.
    pub(super) calls: BTreeMap<CallId, BTreeSet<AttemptId>>,
    /// The breakers of those.
    pub(super) guarding: BTreeMap<CallId, BreakerId>,
    /// Recorded attempts and pings, and what they are here.
    pub(super) same_attempts: BTreeMap<AttemptId, AttemptId>,
    pub(super) same_pings: BTreeMap<PingId, (PingId, ConnId)>,
    due: BTreeMap<(Time, u64), Due>,
    dues: u64,
    /// Whether it has answered otherwise: from then on the ids are others.
    pub(super) differs: bool,
    pub(super) counts: Counts,
    pub(super) curve: Curve,
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        known: &'a Known,
        place: usize,
        manager: Manager,
        late_after: Duration,
    ) -> Self {
        Self {
            known,
            place,
            manager,
            at: Time::ZERO,
            recorded: Recorded::default(),
            recorded_at: Time::ZERO,
            recorded_deadline: None,
            late_after,
            conns: BTreeMap::new(),
            of_peers: BTreeMap::new(),
            bonds: Bonds::default(),
            attempts: BTreeMap::new(),
            calls: BTreeMap::new(),
            guarding: BTreeMap::new(),
            same_attempts: BTreeMap::new(),
            same_pings: BTreeMap::new(),
            due: BTreeMap::new(),
            dues: 0,
            differs: false,
            counts: Counts::default(),
            curve: Curve::default(),
        }
    }

    /// A step of the recording, and when the recorded manager asks to be woken after it.
    pub(super) fn step(&mut self, step: &Step, deadline: Option<Time>) {
        self.advance(step.at, step.line);
        self.recorded.guards.learn(&step.event);
        let mut pairs = Pairs::new(&step.actions);
        let mut answers = Vec::new();
        for event in self.translate(&step.event) {
            answers.extend(self.tell(event, step.at, true, &mut pairs));
        }
        if answers != step.actions {
            self.differ(step.line, step.at);
        }
        let changes = self.recorded.step(step);
        self.rebind(&changes);
        self.recorded_at = self.recorded_at.max(step.at);
        self.recorded_deadline = deadline;
    }

    /// The recording ends.
    pub(super) fn finish(&mut self, at: Time, line: u64) {
        self.advance(at, line);
    }

    /// What happens to the other manager alone before a moment of the recording.
    fn advance(&mut self, until: Time, line: u64) {
        let awake_until = self.awake_until(until);
        loop {
            let tick = self.manager.next_deadline().map(|deadline| deadline.max(self.at));
            let tick = tick.filter(|tick| *tick < awake_until);
            let due = self.due.first_key_value().map(|((at, _), _)| (*at).max(self.at));
            // What came in while it slept is looked at when it wakes.
            let due = due.filter(|due| *due <= until);
            let due = due.map(|due| if due < awake_until { due } else { until });
            match (due, tick) {
                (Some(due), tick) if tick.is_none_or(|tick| due <= tick) => {
                    let Some((_, told)) = self.due.pop_first() else { return };
                    if let Some(event) = self.event_of(told) {
                        self.alone(event, due, line);
                    }
                }
                (_, Some(tick)) => {
                    self.counts.ticks += 1;
                    self.alone(Event::Tick, tick, line);
                }
                (_, None) => return,
            }
        }
    }

    /// Until when the recorded driver looked at its clock, as far as one can tell: one that came much
    /// later than it was asked to was asleep, since nobody knows when.
    fn awake_until(&self, until: Time) -> Time {
        match self.recorded_deadline {
            Some(deadline) if deadline < until => {
                let slept = until.since(deadline) > self.late_after;
                if slept { self.recorded_at } else { deadline }
            }
            _ => until,
        }
    }

    fn alone(&mut self, event: Event, at: Time, line: u64) {
        let is_tick = event == Event::Tick;
        let answers = self.tell(event, at, false, &mut Pairs::new(&[]));
        if !is_tick || !answers.is_empty() {
            self.differ(line, at);
        }
    }

    fn differ(&mut self, line: u64, at: Time) {
        self.differs = true;
        self.counts.first_difference.get_or_insert((at, line));
    }

    /// Tells the other manager something and does what it answers. `recorded`: whether the recording
    /// goes on to tell what follows of it.
    fn tell(
        &mut self,
        event: Event,
        at: Time,
        recorded: bool,
        pairs: &mut Pairs<'_>,
    ) -> Vec<Action> {
        self.at = self.at.max(at);
        match &event {
            Event::Connected { conn, .. } => self.up(*conn),
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => {
                self.end_conn(*conn, recorded, CallFailure::Disconnected);
            }
            Event::Succeeded { attempt }
            | Event::Failed { attempt, .. }
            | Event::Dropped { attempt } => self.end_attempt(*attempt),
            Event::Call { call, target, .. } => {
                self.calls.entry(*call).or_default();
                self.guarding.insert(*call, target.breaker());
            }
            Event::Restarted => self.restart(),
            _ => {}
        }
        let answers = self.manager.step(event, at);
        for action in &answers {
            self.carry_out(action, pairs);
        }
        self.curve.note(self.at, self.manager.stats());
        answers
    }

    /// A new process: nothing of the old one is out.
    fn restart(&mut self) {
        self.conns.clear();
        self.of_peers.clear();
        self.attempts.clear();
        self.calls.clear();
        self.guarding.clear();
        self.due.clear();
        self.bonds = Bonds::default();
    }

    pub(super) fn plan(&mut self, at: Time, due: Due) {
        self.due.insert((at, self.dues), due);
        self.dues += 1;
    }

    /// What is told, unless nobody waits for it any more.
    fn event_of(&mut self, due: Due) -> Option<Event> {
        match due {
            Due::Dial(conn, answer) => {
                self.conns.get(&conn).filter(|one| !one.up)?;
                Some(match answer {
                    DialAnswer::Up { resumed, lost } => {
                        if let Some((at, cause)) = lost {
                            self.plan(at, Due::Lost(conn, cause));
                        }
                        Event::Connected { conn, resumed: resumed == Some(true) }
                    }
                    DialAnswer::Failed { cause, retry_after } => {
                        Event::DialFailed { conn, cause, retry_after }
                    }
                })
            }
            Due::Lost(conn, cause) => {
                // One that shares its peer's recorded connection is lost with that.
                let alone = self.conns.contains_key(&conn) && !self.bonds.is_own(conn);
                alone.then_some(Event::Lost { conn, cause })
            }
            Due::Pong(ping, conn) => self.conns.contains_key(&conn).then_some(Event::Pong { ping }),
            Due::Attempt(attempt, answer) => {
                self.attempts.get(&attempt)?;
                Some(match answer {
                    AttemptAnswer::Succeeded => Event::Succeeded { attempt },
                    AttemptAnswer::Failed { kind, retry_after } => {
                        Event::Failed { attempt, kind, retry_after }
                    }
                })
            }
        }
    }
}
