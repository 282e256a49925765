//! What the other manager orders: found again in the recording, or answered by what the recording
//! knows of its like.

use std::collections::BTreeSet;
use std::time::Duration;

use steadfast::breaker::State;
use steadfast::{
    Action, AttemptId, BreakerId, CallFailure, CallId, ConnId, DialCause, EndpointId, Notice,
    PeerId, PingId, Time,
};

use super::bonds::Bond;
use super::known::{AttemptAnswer, DialAnswer};
use super::lane::{Attempt, Conn, Due, Lane};
use super::pairs::Pairs;
use super::recorded::RecordedConn;
use super::samples::{NEAR, Sample};

/// Less than this one has not waited in vain.
const VAIN: Duration = Duration::from_secs(1);
/// A dial so near in time says more than how a connection does.
const CLOSE: Duration = Duration::from_secs(2);

impl Lane<'_> {
    /// Does what the other manager orders.
    pub(super) fn carry_out(&mut self, action: &Action, pairs: &mut Pairs<'_>) {
        match action {
            Action::Dial { conn, peer, endpoint, resume } => {
                self.dial(*conn, *peer, *endpoint, *resume, pairs);
            }
            Action::Adopt { conn, peer, tag } => {
                self.begin(*conn, *peer, None);
                match pairs.adopt(*tag) {
                    Some(recorded) => self.bonds.bind(*conn, Bond::Same(recorded)),
                    None => self.bonds.bind(*conn, Bond::Orphan(None)),
                }
                self.up(*conn);
            }
            Action::CancelDial { conn } | Action::Close { conn } => {
                let recorded = self.bonds.of(*conn).and_then(Bond::to);
                let recorded = recorded.is_some_and(|recorded| pairs.ends(recorded));
                self.end_conn(*conn, recorded, CallFailure::Local);
            }
            Action::Ping { ping, conn } => self.ping(*ping, *conn, pairs),
            Action::StartAttempt { attempt, call, conn } => {
                self.start(*attempt, *call, *conn, pairs);
            }
            Action::CancelAttempt { attempt } => self.end_attempt(*attempt),
            Action::Done { call } | Action::GiveUp { call, .. } | Action::Reject { call, .. } => {
                self.calls.remove(call);
                self.guarding.remove(call);
            }
            Action::Notice(Notice::Breaker { to: State::Open { .. }, .. }) => {
                self.counts.opens += 1;
            }
            Action::Refuse { .. } | Action::Notice(_) => {}
        }
    }

    fn begin(&mut self, conn: ConnId, peer: PeerId, breaker: Option<BreakerId>) {
        let one = Conn { peer, breaker, up: false, attempts: BTreeSet::new(), took: None };
        self.conns.insert(conn, one);
        self.of_peers.entry(peer).or_default().insert(conn);
    }

    /// The other manager's dials and connections of a peer.
    pub(super) fn conns_of(&self, peer: PeerId) -> Vec<ConnId> {
        self.of_peers.get(&peer).map(|all| all.iter().copied().collect()).unwrap_or_default()
    }

    fn dial(
        &mut self,
        conn: ConnId,
        peer: PeerId,
        endpoint: EndpointId,
        resume: bool,
        pairs: &mut Pairs<'_>,
    ) {
        let breaker = self.recorded.guards.of(peer, endpoint);
        self.begin(conn, peer, breaker);
        if let Some(recorded) = pairs.dial(peer, endpoint) {
            self.counts.dials.recorded += 1;
            self.bonds.bind(conn, Bond::Same(recorded));
            return;
        }
        self.bonds.bind(conn, Bond::Orphan(breaker));
        let at = self.at;
        let own = (self.place, (peer, endpoint));
        let usable = |dial: &Sample<DialAnswer>, own: bool| match dial.answer {
            None => dial.waited >= VAIN,
            Some((_, DialAnswer::Failed { cause, .. })) => tells(cause, own),
            Some((after, DialAnswer::Up { lost, .. })) => {
                lost.is_none_or(|(lost, _)| lost > at + after)
            }
        };
        let dials = &self.known.dials;
        let nearest = |within| {
            let found = dials.nearest(&own, breaker.as_ref(), at, within, usable);
            found.map(|dial| (dial.answer, false))
        };
        // How a connection of that moment does says more than a dial of another one.
        let found = nearest(CLOSE)
            .or_else(|| Some((self.own_conn(peer)?, true)))
            .or_else(|| nearest(NEAR))
            .or_else(|| Some((Some(self.other_conn(conn, breaker?)?), true)));
        let answers = &mut self.counts.dials;
        match found {
            Some((_, false)) => answers.nearest += 1,
            Some((_, true)) => answers.standing += 1,
            None => answers.never += 1,
        }
        if let Some((Some((after, answer)), _)) = found {
            self.answer(conn, after, answer, resume);
        }
    }

    /// A dial will be answered as another one was, which took so long.
    fn answer(&mut self, conn: ConnId, after: Duration, answer: DialAnswer, resume: bool) {
        if let Some(one) = self.conns.get_mut(&conn) {
            one.took = Some(after);
        }
        self.plan(self.at + after, Due::Dial(conn, asked(answer, resume)));
    }

    /// The answer of the dial that made the peer's recorded connection, if it is up; while that is
    /// silent there is none, until it speaks again.
    fn own_conn(&self, peer: PeerId) -> Option<Option<(Duration, DialAnswer)>> {
        let recorded = self.recorded.of_peer(peer)?;
        let (after, answer) = self.made(recorded)?;
        let silent_until = self.known.silent_until(self.place, recorded, self.at);
        let after = after.max(silent_until.map_or(Duration::ZERO, |until| until.since(self.at)));
        match answer {
            _ if silent_until == Some(Time::MAX) => Some(None),
            DialAnswer::Up { lost: Some((lost, _)), .. } if lost <= self.at + after => None,
            answer => Some(Some((after, answer))),
        }
    }

    /// The same of another peer's behind the same breaker.
    fn other_conn(&self, conn: ConnId, breaker: BreakerId) -> Option<(Duration, DialAnswer)> {
        self.made(self.recorded.behind(breaker, conn)?)
    }

    /// The answer to the dial that made a recorded connection.
    fn made(&self, recorded: ConnId) -> Option<(Duration, DialAnswer)> {
        let RecordedConn { peer, endpoint, begun, .. } = self.recorded.conn(recorded)?;
        let own = (self.place, (peer, endpoint?));
        self.known.dials.last_of(&own, begun)?.answer
    }

    fn ping(&mut self, ping: PingId, conn: ConnId, pairs: &mut Pairs<'_>) {
        let Some(bond) = self.bonds.of(conn) else { return };
        let Some(recorded) = bond.to() else {
            // Until it is lost as the one was whose answer it got, it lives as that did.
            let took = self.conns.get(&conn).and_then(|one| one.took);
            if let (Bond::Orphan(_), Some(took)) = (bond, took) {
                self.plan(self.at + took, Due::Pong(ping, conn));
            }
            return;
        };
        if self.bonds.is_own(conn)
            && let Some(same) = pairs.ping(recorded)
        {
            self.same_pings.insert(same, (ping, conn));
            return;
        }
        let own = (self.place, recorded);
        let breaker = self.conns.get(&conn).and_then(|one| one.breaker);
        let known = &self.known.pings;
        let nearest = known.nearest(&own, breaker.as_ref(), self.at, NEAR, |_, own| own);
        let after = match nearest {
            Some(ping) => ping.answer.map(|(after, ())| after),
            // Nobody was asked near then; the recorded connection lives.
            None => self.round_trip(recorded),
        };
        if let Some(after) = after {
            self.plan(self.at + after, Due::Pong(ping, conn));
        }
    }

    /// About how long an answer over a recorded connection takes: as long as its dial did.
    fn round_trip(&self, recorded: ConnId) -> Option<Duration> {
        let RecordedConn { begun, up, .. } = self.recorded.conn(recorded)?;
        Some(up?.since(begun))
    }

    fn start(
        &mut self,
        attempt: AttemptId,
        call: CallId,
        conn: Option<ConnId>,
        pairs: &mut Pairs<'_>,
    ) {
        let same = pairs.attempt(call);
        self.attempts.insert(attempt, Attempt { call, conn, same });
        self.calls.entry(call).or_default().insert(attempt);
        if let Some(one) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            one.attempts.insert(attempt);
        }
        if let Some(same) = same {
            self.counts.attempts.recorded += 1;
            self.same_attempts.insert(same, attempt);
            return;
        }
        let (own, at) = ((self.place, call), self.at);
        let breaker = self.guarding.get(&call);
        let usable = |one: &Sample<AttemptAnswer>, _| one.answer.is_some() || one.waited >= VAIN;
        match self.known.attempts.nearest(&own, breaker, at, NEAR, usable) {
            Some(one) => {
                self.counts.attempts.nearest += 1;
                if let Some((after, answer)) = one.answer {
                    self.plan(at + after, Due::Attempt(attempt, answer));
                }
            }
            None => self.counts.attempts.never += 1,
        }
    }

    /// It is over, however.
    pub(super) fn end_attempt(&mut self, attempt: AttemptId) {
        let Some(Attempt { call, conn, same }) = self.attempts.remove(&attempt) else { return };
        if let Some(same) = same {
            self.same_attempts.remove(&same);
        }
        if let Some(attempts) = self.calls.get_mut(&call) {
            attempts.remove(&attempt);
        }
        if let Some(one) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            one.attempts.remove(&attempt);
        }
    }

    /// A connection is over, and so are the attempts over it: the recording tells of those that it
    /// has if `recorded`, and the others fail so.
    pub(super) fn end_conn(&mut self, conn: ConnId, recorded: bool, kind: CallFailure) {
        let Some(one) = self.conns.remove(&conn) else { return };
        self.bonds.release(conn);
        if let Some(conns) = self.of_peers.get_mut(&one.peer) {
            conns.remove(&conn);
        }
        for attempt in one.attempts {
            let Some(over) = self.attempts.get_mut(&attempt) else { continue };
            over.conn = None;
            if recorded && over.same.is_some() {
                continue;
            }
            if let Some(same) = over.same.take() {
                self.same_attempts.remove(&same);
            }
            let answer = AttemptAnswer::Failed { kind, retry_after: None };
            self.plan(self.at, Due::Attempt(attempt, answer));
        }
    }
}

/// Whether a failed dial tells what another one would have met.
const fn tells(cause: DialCause, own: bool) -> bool {
    !cause.is_ours() && (own || !cause.is_peer_specific())
}

/// The answer to a dial that asks for a session, or does not.
const fn asked(answer: DialAnswer, resume: bool) -> DialAnswer {
    match answer {
        DialAnswer::Up { resumed, lost } => {
            let taken_up = match resumed {
                Some(resumed) => resumed,
                None => true,
            };
            DialAnswer::Up { resumed: Some(resume && taken_up), lost }
        }
        failed @ DialAnswer::Failed { .. } => failed,
    }
}
