//! A manager and the driver around it: its table of connections, its alarm, its waiting I/O.
//!
//! The driver does what the core's contract asks of any driver, and the core's `Ledger` watches it.

use std::io::Write;

use steadfast::{Action, AttemptId, ConnId, Event, Ledger, Manager, Snapshot, Time};

/// What became of one dial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conn {
    id: ConnId,
    peer: u32,
    way: u16,
    pub(crate) phase: Phase,
    /// Whether the client asked for its old session.
    pub(crate) resume: bool,
    attempt: u32,
    /// Which of the server's instances has it.
    pub(crate) instance: u16,
    /// In which half-open period of its breaker the dial began; 0 in none.
    pub(crate) half_open: u32,
    /// Messages from the server arrive in order: none before this.
    pub(crate) ordered_until: Time,
}

impl Conn {
    /// Whose it is.
    pub(crate) const fn peer(&self) -> usize {
        self.peer as usize
    }

    /// Which of the group's ways it takes.
    pub(crate) const fn way(&self) -> usize {
        self.way as usize
    }

    /// Which dial of its peer it is; what its draws are numbered by.
    pub(crate) fn attempt(&self) -> u64 {
        self.attempt.into()
    }
}

/// How far a connection has come, seen by somebody who sees both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Over for the client.
    Gone,
    /// The client waits.
    Dialing,
    /// The server has it; the answer is on its way.
    Answered,
    /// Both have it.
    Up,
    /// The server no longer has it; the client does not know.
    Cut,
    /// It began at an address that the host no longer has: nothing arrives, and nobody is told.
    Stale,
}

impl Phase {
    /// Whether the server holds the connection.
    pub(crate) const fn at_server(self) -> bool {
        matches!(self, Self::Answered | Self::Up)
    }
}

/// What a driver's process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// It looks at its sockets and at its alarm.
    Runs,
    /// It looks at its alarm only: it has woken the wrong way round.
    OnlyTicks,
    /// It sleeps until so many pauses are over.
    Sleeps(u32),
}

/// One manager's driver.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) manager: Manager,
    pub(crate) ledger: Ledger,
    /// By the slot of the id: a driver may use it as its table's index, the id tells old from new.
    conns: Vec<Conn>,
    /// The attempts that are out, likewise.
    attempts: Vec<Option<(AttemptId, Option<ConnId>)>>,
    /// The earliest alarm in the queue; `MAX` if there is none.
    pub(crate) alarm: Time,
    /// How often it ticked at the moment of the last tick.
    pub(crate) ticks: (Time, u32),
    pub(crate) process: Process,
    /// How many faults keep it off the network.
    pub(crate) offline: u32,
    /// How many keep its app in the background.
    pub(crate) background: u32,
    /// What came in while it slept.
    waiting: Vec<Event>,
}

/// The slot of an issued id: its lower 28 bits.
const fn slot(id: ConnId) -> usize {
    (id.to_raw() & 0xfff_ffff) as usize
}

const fn attempt_slot(id: AttemptId) -> usize {
    (id.to_raw() & 0xfff_ffff) as usize
}

impl Driver {
    pub(crate) fn new(manager: Manager) -> Self {
        Self {
            manager,
            ledger: Ledger::new(),
            conns: Vec::new(),
            attempts: Vec::new(),
            alarm: Time::MAX,
            ticks: (Time::ZERO, 0),
            process: Process::Runs,
            offline: 0,
            background: 0,
            waiting: Vec::new(),
        }
    }

    /// The connection of that name, unless it is gone.
    pub(crate) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(slot(id))?;
        (conn.id == id && conn.phase != Phase::Gone).then_some(conn)
    }

    /// Until when messages of the server arrive in order.
    pub(crate) fn ordered_until(&self, id: ConnId) -> Time {
        self.conns.get(slot(id)).map_or(Time::ZERO, |conn| conn.ordered_until)
    }

    /// Whether it may use a network, and has one.
    pub(crate) const fn is_on(&self) -> bool {
        self.offline == 0 && self.background == 0
    }

    /// Whether this came over a connection to an address that the host no longer has.
    pub(crate) fn is_stale(&mut self, event: &Event) -> bool {
        let conn = match event {
            Event::Connected { conn, .. }
            | Event::DialFailed { conn, .. }
            | Event::Lost { conn, .. }
            | Event::Heard { conn }
            | Event::GoAway { conn, .. }
            | Event::Heartbeat { conn } => *conn,
            _ => return false,
        };
        self.conn(conn).is_some_and(|conn| conn.phase == Phase::Stale)
    }

    /// A dial begins.
    pub(crate) fn open(&mut self, id: ConnId, peer: usize, way: usize, resume: bool, attempt: u32) {
        let conn = Conn {
            id,
            peer: u32::try_from(peer).unwrap_or(u32::MAX),
            way: u16::try_from(way).unwrap_or(u16::MAX),
            phase: Phase::Dialing,
            resume,
            attempt,
            instance: 0,
            half_open: 0,
            ordered_until: Time::ZERO,
        };
        let slot = slot(id);
        while self.conns.len() <= slot {
            self.conns.push(Conn { phase: Phase::Gone, ..conn });
        }
        if let Some(place) = self.conns.get_mut(slot) {
            *place = conn;
        }
    }

    /// The connection is over; what it was.
    pub(crate) fn close(&mut self, id: ConnId) -> Option<Conn> {
        let conn = self.conn(id)?;
        let was = *conn;
        conn.phase = Phase::Gone;
        Some(was)
    }

    /// An attempt goes out.
    pub(crate) fn start(&mut self, id: AttemptId, conn: Option<ConnId>) {
        let slot = attempt_slot(id);
        if self.attempts.len() <= slot {
            self.attempts.resize(slot + 1, None);
        }
        if let Some(place) = self.attempts.get_mut(slot) {
            *place = Some((id, conn));
        }
    }

    /// Whether somebody still waits for it.
    pub(crate) fn is_out(&self, id: AttemptId) -> bool {
        let out = self.attempts.get(attempt_slot(id)).copied().flatten();
        out.is_some_and(|(out, _)| out == id)
    }

    /// It is over, however.
    pub(crate) fn finish(&mut self, id: AttemptId) {
        if self.is_out(id)
            && let Some(place) = self.attempts.get_mut(attempt_slot(id))
        {
            *place = None;
        }
    }

    /// The attempts that are out over a connection.
    pub(crate) fn attempts_over(&self, conn: ConnId) -> Vec<AttemptId> {
        let over = self.attempts.iter().flatten().filter(|(_, over)| *over == Some(conn));
        over.map(|(id, _)| *id).collect()
    }

    /// All connections that are not over.
    pub(crate) fn live(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        let live = self.conns.iter().filter(|conn| conn.phase != Phase::Gone);
        live.map(|conn| (conn.id, conn))
    }

    /// Whether the process attends to this now.
    pub(crate) fn attends_to(&self, event: &Event) -> bool {
        match self.process {
            Process::Runs => true,
            Process::OnlyTicks => *event == Event::Tick,
            Process::Sleeps(_) => false,
        }
    }

    /// Keeps what came in until the process attends to it.
    pub(crate) fn hold(&mut self, event: Event) {
        self.waiting.push(event);
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether the fact may still be told: the ids that the manager has given up are dead.
    pub(crate) fn may_tell(&mut self, event: &Event) -> bool {
        match event {
            Event::Connected { conn, .. }
            | Event::DialFailed { conn, .. }
            | Event::Lost { conn, .. }
            | Event::Heard { conn }
            | Event::GoAway { conn, .. }
            | Event::Heartbeat { conn } => self.conn(*conn).is_some(),
            Event::Succeeded { attempt }
            | Event::Failed { attempt, .. }
            | Event::Dropped { attempt } => self.is_out(*attempt),
            _ => true,
        }
    }

    /// One step of the manager, under the ledger's eyes if it is `watched`.
    ///
    /// # Errors
    ///
    /// The rule that this driver broke; that is a bug of the simulator.
    pub(crate) fn step(
        &mut self,
        event: &Event,
        now: Time,
        actions: &mut Vec<Action>,
        watched: bool,
    ) -> Result<(), String> {
        self.manager.step_into(event.clone(), now, actions);
        if !watched {
            return Ok(());
        }
        let deadline = self.manager.next_deadline();
        self.ledger.observe(event, actions, now, deadline).map_err(|breach| breach.to_string())
    }

    /// Goes on from a snapshot, as a new process would; `in_text`: one that was written and read.
    ///
    /// # Errors
    ///
    /// That it could not be restored; that is a bug of the core.
    pub(crate) fn restore(&mut self, hash_key: u64, in_text: bool) -> Result<(), String> {
        let mut snapshot = self.manager.snapshot();
        if in_text {
            let mut text = Vec::new();
            // As recordings write theirs: the code for that is there, and need not be made again.
            let to: &mut dyn Write = &mut text;
            serde_json::to_writer(to, &snapshot).map_err(|error| error.to_string())?;
            snapshot =
                serde_json::from_slice::<Snapshot>(&text).map_err(|error| error.to_string())?;
        }
        let restored = Manager::restore(snapshot, hash_key).map_err(|error| error.to_string())?;
        if restored.state_digest() != self.manager.state_digest() {
            return Err("the restored manager's state differs".to_owned());
        }
        self.manager = restored;
        Ok(())
    }
}
