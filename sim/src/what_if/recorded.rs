//! How the recorded world stands while a recording is lived through: which connections there are,
//! and whose.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use steadfast::recording::Step;
use steadfast::{
    Action, AttemptId, BreakerId, CallId, ConnId, EndpointId, Event, Notice, PeerId, Time,
};

use super::known::Guards;

/// A connection of the recorded manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordedConn {
    pub(super) peer: PeerId,
    /// `None`: the peer had dialed us.
    pub(super) endpoint: Option<EndpointId>,
    pub(super) breaker: Option<BreakerId>,
    pub(super) begun: Time,
    /// Since when it is up.
    pub(super) up: Option<Time>,
    /// Whether it fell silent.
    suspected: bool,
}

/// How a recorded connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It failed or was lost: a fact.
    Told,
    /// The recorded manager gave it up; nobody knows how it would have gone on.
    GivenUp,
    /// The same, because it was silent.
    Silent,
}

/// What a recorded step changed that others look to.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) up: Vec<ConnId>,
    pub(super) ended: Vec<(ConnId, RecordedConn, Ended)>,
}

/// One recorded manager's connections and attempts.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) guards: Guards,
    conns: BTreeMap<ConnId, RecordedConn>,
    of_peers: BTreeMap<PeerId, ConnId>,
    behind: BTreeMap<BreakerId, BTreeSet<ConnId>>,
    pub(super) attempts: BTreeMap<AttemptId, CallId>,
}

impl Recorded {
    /// The connection, unless it is over.
    pub(super) fn conn(&self, conn: ConnId) -> Option<RecordedConn> {
        self.conns.get(&conn).copied()
    }

    /// The peer's connection, if it is up.
    pub(super) fn of_peer(&self, peer: PeerId) -> Option<ConnId> {
        self.of_peers.get(&peer).copied()
    }

    /// Some connection behind the breaker that is up: the first one after `near`.
    pub(super) fn behind(&self, breaker: BreakerId, near: ConnId) -> Option<ConnId> {
        let up = self.behind.get(&breaker)?;
        let after = up.range((Bound::Excluded(near), Bound::Unbounded)).next();
        after.or_else(|| up.first()).copied()
    }

    /// A step of the recording happened.
    pub(super) fn step(&mut self, step: &Step) -> Changes {
        let mut changes = Changes::default();
        match &step.event {
            Event::Connected { conn, .. } => self.up(*conn, step.at, &mut changes),
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => {
                self.end(*conn, Ended::Told, &mut changes);
            }
            Event::Succeeded { attempt }
            | Event::Failed { attempt, .. }
            | Event::Dropped { attempt } => {
                self.attempts.remove(attempt);
            }
            Event::Restarted => {
                *self = Self { guards: std::mem::take(&mut self.guards), ..Self::default() }
            }
            _ => {}
        }
        // Why a connection was closed may be told after it.
        for action in &step.actions {
            match action {
                Action::Notice(Notice::Suspected { conn, .. }) => self.suspect(*conn, true),
                Action::Notice(Notice::Cleared { conn, .. }) => self.suspect(*conn, false),
                _ => {}
            }
        }
        for action in &step.actions {
            self.action(action, step.at, &mut changes);
        }
        changes
    }

    fn action(&mut self, action: &Action, at: Time, changes: &mut Changes) {
        match action {
            Action::Dial { conn, peer, endpoint, .. } => {
                let breaker = self.guards.of(*peer, *endpoint);
                let endpoint = Some(*endpoint);
                self.begin(*conn, *peer, endpoint, breaker, at);
            }
            Action::Adopt { conn, peer, .. } => {
                self.begin(*conn, *peer, None, None, at);
                self.up(*conn, at, changes);
            }
            Action::CancelDial { conn } | Action::Close { conn } => {
                let silent = self.conns.get(conn).is_some_and(|one| one.suspected);
                let ended = if silent { Ended::Silent } else { Ended::GivenUp };
                self.end(*conn, ended, changes);
            }
            Action::StartAttempt { attempt, call, .. } => {
                self.attempts.insert(*attempt, *call);
            }
            Action::CancelAttempt { attempt } => {
                self.attempts.remove(attempt);
            }
            _ => {}
        }
    }

    fn begin(
        &mut self,
        conn: ConnId,
        peer: PeerId,
        endpoint: Option<EndpointId>,
        breaker: Option<BreakerId>,
        begun: Time,
    ) {
        let one = RecordedConn { peer, endpoint, breaker, begun, up: None, suspected: false };
        self.conns.insert(conn, one);
    }

    fn suspect(&mut self, conn: ConnId, suspected: bool) {
        if let Some(one) = self.conns.get_mut(&conn) {
            one.suspected = suspected;
        }
    }

    fn up(&mut self, conn: ConnId, at: Time, changes: &mut Changes) {
        let Some(one) = self.conns.get_mut(&conn).filter(|one| one.up.is_none()) else { return };
        one.up = Some(at);
        self.of_peers.insert(one.peer, conn);
        if let Some(breaker) = one.breaker {
            self.behind.entry(breaker).or_default().insert(conn);
        }
        changes.up.push(conn);
    }

    fn end(&mut self, conn: ConnId, ended: Ended, changes: &mut Changes) {
        let Some(one) = self.conns.remove(&conn) else { return };
        if self.of_peers.get(&one.peer) == Some(&conn) {
            self.of_peers.remove(&one.peer);
        }
        if let Some(up) = one.breaker.and_then(|breaker| self.behind.get_mut(&breaker)) {
            up.remove(&conn);
        }
        changes.ended.push((conn, one, ended));
    }
}
