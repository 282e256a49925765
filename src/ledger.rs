//! A watch over the driver: does it keep its side of the contract?

use core::fmt;

use hashbrown::HashTable;

use crate::action::Action;
use crate::event::Event;
use crate::id::{AttemptId, ConnId, PingId};
use crate::time::Time;

/// The rule that a driver broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Breach {
    /// A fact about a connection that was never issued, or that is dead: closed, cancelled, lost
    /// or failed before.
    DeadConn(ConnId),
    /// A dial was answered twice.
    AnsweredTwice(ConnId),
    /// Something was heard on a connection that is still being dialed.
    NotUp(ConnId),
    /// A ping was answered that was not sent, or answered before.
    DeadPing(PingId),
    /// A fact about an attempt that was never issued, or that is over: cancelled, or answered
    /// before.
    DeadAttempt(AttemptId),
    /// Time went backwards.
    Backwards {
        /// The latest moment seen.
        from: Time,
        /// The moment of this step.
        to: Time,
    },
    /// A tick came before the I/O of the same moment was fed.
    TickBeforeIo(ConnId),
    /// A tick came before the answer to an attempt, of the same moment, was fed.
    TickBeforeAnswer(AttemptId),
    /// The driver slept past the deadline that it had been given.
    Overslept {
        /// The deadline.
        deadline: Time,
        /// When it came back.
        now: Time,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadConn(conn) => write!(f, "a fact about {conn}, which is not alive"),
            Self::AnsweredTwice(conn) => write!(f, "{conn} was answered twice"),
            Self::NotUp(conn) => write!(f, "heard on {conn}, which is still being dialed"),
            Self::DeadPing(ping) => write!(f, "a pong for {ping}, which is not out"),
            Self::DeadAttempt(attempt) => write!(f, "a fact about {attempt}, which is over"),
            Self::Backwards { from, to } => write!(f, "time went back from {from} to {to}"),
            Self::TickBeforeIo(conn) => {
                write!(f, "a tick came before a fact about {conn} of the same moment")
            }
            Self::TickBeforeAnswer(attempt) => {
                write!(f, "a tick came before the answer to {attempt} of the same moment")
            }
            Self::Overslept { deadline, now } => {
                write!(f, "asked to come back at {deadline}, the driver came at {now}")
            }
        }
    }
}

impl core::error::Error for Breach {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Dialing,
    Up(Option<Pings>),
}

/// The pings of a connection: a later one may overtake the answer to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pings {
    first: PingId,
    last: PingId,
    last_answered: bool,
}

/// A connection that is alive.
#[derive(Clone, Copy, Debug)]
struct Entry {
    conn: ConnId,
    phase: Phase,
    /// When it was issued.
    since: Time,
}

/// An attempt that runs.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    id: AttemptId,
    /// Over which connection, if over one.
    conn: Option<ConnId>,
    since: Time,
}

/// Checks a driver against the contract, step by step, for tests and for debug builds.
///
/// It tells moments apart by `now`: on a clock so coarse that I/O can arrive after a tick and still
/// have the tick's `now`, [`Breach::TickBeforeIo`] accuses falsely.
///
/// It sees what the driver sees: the event, the manager's answer, the time, and the deadline that
/// the manager gave afterwards. Memory: one small entry for each dial, connection
/// and attempt that is alive.
///
/// # Examples
///
/// ```
/// use steadfast::{Breach, Config, ConnId, Event, Ledger, LossCause, Manager, Time};
///
/// let mut manager = Manager::new(Config::new(1), 2)?;
/// let mut ledger = Ledger::new();
/// let lost = Event::Lost { conn: ConnId::from_raw(9), cause: LossCause::Eof };
/// let actions = manager.step(lost.clone(), Time::ZERO);
/// let verdict = ledger.observe(&lost, &actions, Time::ZERO, manager.next_deadline());
/// assert_eq!(verdict, Err(Breach::DeadConn(ConnId::from_raw(9))));
/// # Ok::<(), steadfast::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By slot, which a connection shares with its pings.
    conns: HashTable<Entry>,
    /// The attempts that run.
    attempts: HashTable<Attempt>,
    now: Time,
    deadline: Option<Time>,
    ticked_at: Option<Time>,
    /// How late the driver may come; `None`: any lateness is allowed.
    slack_ns: Option<u64>,
}

impl Ledger {
    /// A ledger that allows any lateness, for a driver on a real clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A ledger that holds the driver to its deadlines exactly, for virtual time.
    #[must_use]
    pub fn exact() -> Self {
        Self { slack_ns: Some(0), ..Self::default() }
    }

    /// Observes one step; the first rule that was broken is the error. O(actions).
    ///
    /// `next_deadline`: what the manager says after the step.
    ///
    /// # Errors
    ///
    /// The [`Breach`]. The ledger goes on afterwards as if the fact had not been reported.
    pub fn observe(
        &mut self,
        event: &Event,
        actions: &[Action],
        now: Time,
        next_deadline: Option<Time>,
    ) -> Result<(), Breach> {
        let verdict = self.judge_time(event, now).and(self.judge_fact(event, now));
        for action in actions {
            self.note(action, now);
        }
        self.now = self.now.max(now);
        self.deadline = next_deadline;
        if *event == Event::Tick {
            self.ticked_at = Some(now);
        }
        verdict
    }

    fn judge_time(&self, event: &Event, now: Time) -> Result<(), Breach> {
        if now < self.now {
            return Err(Breach::Backwards { from: self.now, to: now });
        }
        let (Some(slack), Some(deadline)) = (self.slack_ns, self.deadline) else { return Ok(()) };
        if *event != Event::Restarted && now > deadline.plus_nanos(slack) {
            return Err(Breach::Overslept { deadline, now });
        }
        Ok(())
    }

    fn judge_fact(&mut self, event: &Event, now: Time) -> Result<(), Breach> {
        let (conn, ends) = match event {
            Event::Connected { conn, .. } => {
                let Some(entry) = self.entry(*conn) else { return Err(Breach::DeadConn(*conn)) };
                return match entry.phase {
                    Phase::Dialing => {
                        self.set(*conn, Some((Phase::Up(None), entry.since)));
                        self.after_tick(entry, now)
                    }
                    Phase::Up(_) => Err(Breach::AnsweredTwice(*conn)),
                };
            }
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => (*conn, true),
            Event::Heard { conn }
            | Event::Heartbeat { conn }
            | Event::GoAway { conn, .. }
            | Event::Metrics { conn, .. } => (*conn, false),
            Event::Pong { ping } => {
                let same_slot = |entry: &Entry| entry.conn.slot() == ping.slot();
                let entry = self.conns.find_mut(hash(ping.slot()), same_slot);
                return match entry.map(|entry| &mut entry.phase) {
                    Some(Phase::Up(Some(sent)))
                        if (sent.first..sent.last).contains(ping)
                            || *ping == sent.last && !sent.last_answered =>
                    {
                        sent.last_answered |= *ping == sent.last;
                        Ok(())
                    }
                    _ => Err(Breach::DeadPing(*ping)),
                };
            }
            Event::Succeeded { attempt }
            | Event::Failed { attempt, .. }
            | Event::Dropped { attempt } => return self.answered(*attempt, now),
            Event::Restarted => {
                self.conns.clear();
                self.attempts.clear();
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(entry) = self.entry(conn) else { return Err(Breach::DeadConn(conn)) };
        if ends {
            self.set(conn, None);
        }
        match entry.phase {
            Phase::Dialing if !ends => Err(Breach::NotUp(conn)),
            Phase::Up(_) if matches!(event, Event::DialFailed { .. }) => {
                Err(Breach::AnsweredTwice(conn))
            }
            Phase::Dialing | Phase::Up(_) => self.after_tick(entry, now),
        }
    }

    /// An attempt is answered once.
    fn answered(&mut self, attempt: AttemptId, now: Time) -> Result<(), Breach> {
        let Some(Attempt { conn, since, .. }) = self.end_attempt(attempt) else {
            return Err(Breach::DeadAttempt(attempt));
        };
        // What ran over a connection that the tick closed is reported after it.
        let cut_off = conn.is_some_and(|conn| self.entry(conn).is_none());
        if self.ticked_at == Some(now) && since < now && !cut_off {
            return Err(Breach::TickBeforeAnswer(attempt));
        }
        Ok(())
    }

    /// Forgets the attempt.
    fn end_attempt(&mut self, attempt: AttemptId) -> Option<Attempt> {
        let same = |known: &Attempt| known.id == attempt;
        let found = self.attempts.find_entry(hash(attempt.slot()), same).ok()?;
        Some(found.remove().0)
    }

    /// Waiting I/O is fed before the tick: a fact after a tick of the same moment came too late,
    /// unless the connection is of that moment itself.
    fn after_tick(&self, entry: Entry, now: Time) -> Result<(), Breach> {
        if self.ticked_at == Some(now) && entry.since < now {
            return Err(Breach::TickBeforeIo(entry.conn));
        }
        Ok(())
    }

    fn note(&mut self, action: &Action, now: Time) {
        match action {
            Action::Dial { conn, .. } => self.set(*conn, Some((Phase::Dialing, now))),
            Action::Adopt { conn, .. } => self.set(*conn, Some((Phase::Up(None), now))),
            Action::CancelDial { conn } | Action::Close { conn } => self.set(*conn, None),
            Action::Ping { ping, conn } => {
                if let Some(entry) = self.entry(*conn) {
                    let first = match entry.phase {
                        Phase::Up(Some(sent)) => sent.first,
                        _ => *ping,
                    };
                    let sent = Pings { first, last: *ping, last_answered: false };
                    self.set(*conn, Some((Phase::Up(Some(sent)), entry.since)));
                }
            }
            Action::StartAttempt { attempt, conn, .. } => {
                let hash_of = |known: &Attempt| hash(known.id.slot());
                let started = Attempt { id: *attempt, conn: *conn, since: now };
                self.attempts.insert_unique(hash(attempt.slot()), started, hash_of);
            }
            Action::CancelAttempt { attempt } => {
                self.end_attempt(*attempt);
            }
            Action::Refuse { .. }
            | Action::Reject { .. }
            | Action::GiveUp { .. }
            | Action::Done { .. }
            | Action::Notice(_) => {}
        }
    }

    fn entry(&self, conn: ConnId) -> Option<Entry> {
        self.conns.find(hash(conn.slot()), |known| known.conn == conn).copied()
    }

    fn set(&mut self, conn: ConnId, state: Option<(Phase, Time)>) {
        let hash_of = |entry: &Entry| hash(entry.conn.slot());
        if let Ok(known) = self.conns.find_entry(hash(conn.slot()), |known| known.conn == conn) {
            known.remove();
        }
        if let Some((phase, since)) = state {
            let entry = Entry { conn, phase, since };
            self.conns.insert_unique(hash(conn.slot()), entry, hash_of);
        }
    }
}

/// Slots that we issued are no attacker's choice, so one multiplication mixes them enough.
const fn hash(slot: u32) -> u64 {
    let product = (slot as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DialCause, EndpointId, LossCause, PeerId};

    const CONN: ConnId = ConnId::new(3, 1);

    #[test]
    fn what_ran_over_a_connection_that_a_tick_closed_is_reported_after_it() {
        let mut ledger = Ledger::exact();
        dialed(&mut ledger, Time::ZERO);
        let (attempt, call) = (AttemptId::new(1, 1), crate::CallId(1));
        let start = Action::StartAttempt { attempt, call, conn: Some(CONN) };
        let connected = Event::Connected { conn: CONN, resumed: false };
        ledger.observe(&connected, &[start], Time::ZERO, None).unwrap();
        let closes = [Action::Close { conn: CONN }];
        ledger.observe(&Event::Tick, &closes, Time::from_millis(5), None).unwrap();
        let kind = crate::CallFailure::Disconnected;
        let failed = Event::Failed { attempt, kind, retry_after: None };
        assert_eq!(fact(&mut ledger, &failed, 5), Ok(()));
    }

    fn dialed(ledger: &mut Ledger, now: Time) {
        let dial =
            Action::Dial { conn: CONN, peer: PeerId(1), endpoint: EndpointId(0), resume: false };
        assert_eq!(ledger.observe(&Event::Connect { peer: PeerId(1) }, &[dial], now, None), Ok(()));
    }

    fn fact(ledger: &mut Ledger, event: &Event, millis: u64) -> Result<(), Breach> {
        ledger.observe(event, &[], Time::from_millis(millis), None)
    }

    #[test]
    fn a_dial_is_answered_once() {
        let mut ledger = Ledger::new();
        dialed(&mut ledger, Time::ZERO);
        let connected = Event::Connected { conn: CONN, resumed: false };
        let failed = Event::DialFailed { conn: CONN, cause: DialCause::Refused, retry_after: None };
        assert_eq!(fact(&mut ledger, &Event::Heard { conn: CONN }, 1), Err(Breach::NotUp(CONN)));
        assert_eq!(fact(&mut ledger, &connected, 1), Ok(()));
        assert_eq!(fact(&mut ledger, &connected, 2), Err(Breach::AnsweredTwice(CONN)));
        assert_eq!(fact(&mut ledger, &failed, 3), Err(Breach::AnsweredTwice(CONN)));
    }

    #[test]
    fn nothing_may_be_said_of_what_was_closed_or_of_an_earlier_process() {
        for order in [Action::Close { conn: CONN }, Action::CancelDial { conn: CONN }] {
            let mut ledger = Ledger::new();
            dialed(&mut ledger, Time::ZERO);
            ledger.observe(&Event::Tick, &[order], Time::from_millis(1), None).unwrap();
            let lost = Event::Lost { conn: CONN, cause: LossCause::Eof };
            assert_eq!(fact(&mut ledger, &lost, 2), Err(Breach::DeadConn(CONN)));
        }
        let mut ledger = Ledger::new();
        dialed(&mut ledger, Time::ZERO);
        fact(&mut ledger, &Event::Restarted, 1).unwrap();
        let heard = Event::Heard { conn: CONN };
        assert_eq!(fact(&mut ledger, &heard, 2), Err(Breach::DeadConn(CONN)));
    }

    #[test]
    fn a_ping_is_answered_once_and_a_newer_one_may_overtake_its_answer() {
        let mut ledger = Ledger::new();
        dialed(&mut ledger, Time::ZERO);
        fact(&mut ledger, &Event::Connected { conn: CONN, resumed: false }, 0).unwrap();
        let (first, second) = (PingId::new(3, 0), PingId::new(3, 1));
        for ping in [first, second] {
            let order = Action::Ping { ping, conn: CONN };
            ledger.observe(&Event::Tick, &[order], Time::ZERO, None).unwrap();
        }
        let pong = |ping| Event::Pong { ping };
        let mut in_order = ledger.clone();
        assert_eq!(fact(&mut ledger, &pong(second), 1), Ok(()));
        assert_eq!(fact(&mut ledger, &pong(second), 1), Err(Breach::DeadPing(second)));
        assert_eq!(fact(&mut ledger, &pong(first), 1), Ok(()));
        assert_eq!(fact(&mut ledger, &pong(second), 1), Err(Breach::DeadPing(second)));
        for ping in [first, second] {
            assert_eq!(fact(&mut in_order, &pong(ping), 1), Ok(()));
        }
        let never_sent = PingId::new(3, 2);
        assert_eq!(fact(&mut ledger, &pong(never_sent), 1), Err(Breach::DeadPing(never_sent)));
    }

    #[test]
    fn io_comes_before_the_tick_and_the_driver_comes_in_time() {
        let mut ledger = Ledger::exact();
        dialed(&mut ledger, Time::ZERO);
        let at = Time::from_millis(5);
        ledger.observe(&Event::Tick, &[], at, Some(Time::from_millis(7))).unwrap();
        let connected = Event::Connected { conn: CONN, resumed: false };
        assert_eq!(fact(&mut ledger, &connected, 5), Err(Breach::TickBeforeIo(CONN)));
        let back = Breach::Backwards { from: at, to: Time::from_millis(4) };
        assert_eq!(fact(&mut ledger, &Event::Tick, 4), Err(back));
        let due = Some(Time::from_millis(7));
        ledger.observe(&Event::Tick, &[], at, due).unwrap();
        ledger.observe(&Event::Tick, &[], Time::from_millis(7), due).unwrap();
        let late = Breach::Overslept { deadline: Time::from_millis(7), now: Time::from_millis(8) };
        assert_eq!(fact(&mut ledger, &Event::Tick, 8), Err(late));
    }

    #[test]
    fn what_a_tick_ordered_may_be_answered_at_once() {
        let mut ledger = Ledger::exact();
        dialed(&mut ledger, Time::from_millis(5));
        fact(&mut ledger, &Event::Tick, 5).unwrap();
        assert_eq!(fact(&mut ledger, &Event::Connected { conn: CONN, resumed: false }, 5), Ok(()));
    }
}
