//! A watch over the driver: does it keep its side of the contract?

use core::fmt;

use hashbrown::HashTable;

use crate::action::Action;
use crate::event::Event;
use crate::id::{ConnId, PingId};
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
    /// Time went backwards.
    Backwards {
        /// The latest moment seen.
        from: Time,
        /// The moment of this step.
        to: Time,
    },
    /// A tick came before the I/O of the same moment was fed.
    TickBeforeIo(ConnId),
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
            Self::Backwards { from, to } => write!(f, "time went back from {from} to {to}"),
            Self::TickBeforeIo(conn) => {
                write!(f, "a tick came before a fact about {conn} of the same moment")
            }
            Self::Overslept { deadline, now } => {
                write!(f, "asked to come back at {deadline}, the driver came at {now}")
            }
        }
    }
}

impl core::error::Error for Breach {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Dialing,
    /// With the ping that is out: one at a time, so that a newer one retires the older.
    Up(Option<PingId>),
}

/// Checks a driver against the contract, step by step, for tests and for debug builds.
///
/// It sees what the driver sees: the event, the manager's answer, the time, and the deadline that
/// the manager gave afterwards. Memory: one small entry for each dial or connection that is alive.
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
    conns: HashTable<(ConnId, Entry)>,
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
            self.note(action);
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
                let answered = self.entry(*conn);
                return match answered {
                    Some(Entry::Dialing) => {
                        self.set(*conn, Some(Entry::Up(None)));
                        self.after_tick(*conn, now)
                    }
                    Some(Entry::Up(_)) => Err(Breach::AnsweredTwice(*conn)),
                    None => Err(Breach::DeadConn(*conn)),
                };
            }
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => (*conn, true),
            Event::Heard { conn } | Event::Heartbeat { conn } | Event::Metrics { conn, .. } => {
                (*conn, false)
            }
            Event::Pong { ping } => {
                let out = Entry::Up(Some(*ping));
                let known = self.conns.find_mut(hash(ping.slot()), |(_, entry)| *entry == out);
                let Some((_, entry)) = known else { return Err(Breach::DeadPing(*ping)) };
                *entry = Entry::Up(None);
                return Ok(());
            }
            Event::Restarted => {
                self.conns.clear();
                return Ok(());
            }
            _ => return Ok(()),
        };
        let entry = self.entry(conn);
        if ends {
            self.set(conn, None);
        }
        match entry {
            None => Err(Breach::DeadConn(conn)),
            Some(Entry::Dialing) if !ends => Err(Breach::NotUp(conn)),
            Some(Entry::Up(_)) if matches!(event, Event::DialFailed { .. }) => {
                Err(Breach::AnsweredTwice(conn))
            }
            Some(_) => self.after_tick(conn, now),
        }
    }

    /// Waiting I/O is fed before the tick: a fact after a tick of the same moment came too late.
    fn after_tick(&self, conn: ConnId, now: Time) -> Result<(), Breach> {
        if self.ticked_at == Some(now) { Err(Breach::TickBeforeIo(conn)) } else { Ok(()) }
    }

    fn note(&mut self, action: &Action) {
        match action {
            Action::Dial { conn, .. } => self.set(*conn, Some(Entry::Dialing)),
            Action::Adopt { conn, .. } => self.set(*conn, Some(Entry::Up(None))),
            Action::CancelDial { conn } | Action::Close { conn } => self.set(*conn, None),
            Action::Ping { ping, conn } => self.set(*conn, Some(Entry::Up(Some(*ping)))),
            Action::Refuse { .. } | Action::Notice(_) => {}
        }
    }

    fn entry(&self, conn: ConnId) -> Option<Entry> {
        let known = self.conns.find(hash(conn.slot()), |(known, _)| *known == conn)?;
        Some(known.1)
    }

    fn set(&mut self, conn: ConnId, entry: Option<Entry>) {
        if let Ok(known) = self.conns.find_entry(hash(conn.slot()), |(known, _)| *known == conn) {
            known.remove();
        }
        if let Some(entry) = entry {
            let hash_of = |(conn, _): &(ConnId, Entry)| hash(conn.slot());
            self.conns.insert_unique(hash(conn.slot()), (conn, entry), hash_of);
        }
    }
}

/// Slots that we issued are no attacker's choice, so one multiplication mixes them enough.
const fn hash(slot: u32) -> u64 {
    let product = (slot as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}
