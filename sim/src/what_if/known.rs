//! What a recording knows, gathered in one pass: how each dial, attempt and ping was answered, how
//! long each connection lasted, and what its breakers are for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::time::Duration;

use steadfast::recording::{End, Next, Replay, Step};
use steadfast::{
    Action, AttemptId, BreakerId, BreakerProfileId, CallFailure, CallId, ConnId, DialCause,
    Endpoint, EndpointId, Event, LossCause, PeerId, PingId, RetryAfter, Target, Time,
};

use super::WhatIfError;
use super::samples::Samples;

/// How a dial was answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum DialAnswer {
    Up {
        /// Whether the session was taken up, if that was asked for.
        resumed: Option<bool>,
        /// When the connection was lost, if it was.
        lost: Option<(Time, LossCause)>,
    },
    Failed {
        cause: DialCause,
        retry_after: Option<Duration>,
    },
}

/// How an attempt was answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttemptAnswer {
    Succeeded,
    Failed { kind: CallFailure, retry_after: Option<RetryAfter> },
}

/// Which manager, and a name of its own.
type Own<T> = (usize, T);

/// What a recording knows.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) dials: Samples<Own<(PeerId, EndpointId)>, BreakerId, DialAnswer>,
    pub(super) attempts: Samples<Own<CallId>, BreakerId, AttemptAnswer>,
    pub(super) pings: Samples<Own<ConnId>, BreakerId, ()>,
    /// The periodic signs of life of each connection.
    beats: BTreeMap<Own<ConnId>, Vec<Time>>,
    /// The breaker profiles that guard dials, and those that guard calls.
    pub(super) guards_dials: BTreeSet<BreakerProfileId>,
    pub(super) guards_calls: BTreeSet<BreakerProfileId>,
    pub(super) end: End,
    pub(super) ends_at: Time,
}

/// Which breaker guards the dials to an endpoint.
#[derive(Debug, Default)]
pub(super) struct Guards(BTreeMap<(PeerId, EndpointId), BreakerId>);

impl Guards {
    pub(super) fn learn(&mut self, event: &Event) {
        if let Event::AddPeer { peer, endpoints, .. } | Event::SetEndpoints { peer, endpoints } =
            event
        {
            for Endpoint { id, breaker } in endpoints {
                self.0.insert((*peer, *id), *breaker);
            }
        }
    }

    pub(super) fn of(&self, peer: PeerId, endpoint: EndpointId) -> Option<BreakerId> {
        self.0.get(&(peer, endpoint)).copied()
    }
}

/// A dial, or the connection that came of it.
#[derive(Clone, Copy, Debug)]
struct Dial {
    place: usize,
    breaker: Option<BreakerId>,
    /// Whether it asked for the old session.
    resume: bool,
}

/// What is under way in one manager while the recording is read.
#[derive(Debug, Default)]
struct Open {
    guards: Guards,
    profiles: BTreeMap<BreakerId, BreakerProfileId>,
    /// The places of their samples.
    conns: BTreeMap<ConnId, Dial>,
    attempts: BTreeMap<AttemptId, usize>,
    pings: BTreeMap<PingId, (usize, ConnId)>,
    calls: BTreeMap<CallId, BreakerId>,
}

impl Known {
    /// Reads a recording to its end.
    ///
    /// # Errors
    ///
    /// One that is not readable, or that this version answers otherwise.
    pub(super) fn learn<R: BufRead>(replay: &mut Replay<R>) -> Result<Self, WhatIfError> {
        let mut known = Self {
            dials: Samples::new(),
            attempts: Samples::new(),
            pings: Samples::new(),
            beats: BTreeMap::new(),
            guards_dials: BTreeSet::new(),
            guards_calls: BTreeSet::new(),
            end: End::CutOff { torn: false },
            ends_at: Time::ZERO,
        };
        let mut open: Vec<Open> = replay.managers().iter().map(|_| Open::default()).collect();
        loop {
            match replay.next_step()? {
                Next::Same(step) => {
                    known.ends_at = known.ends_at.max(step.at);
                    if let Some(open) = open.get_mut(step.manager) {
                        known.event(open, &step);
                        known.actions(open, &step);
                    }
                }
                Next::Differs(difference) => return Err(WhatIfError::Differs(difference)),
                Next::End(end) => {
                    known.end = end;
                    break;
                }
            }
        }
        // What is still out at the end was waited for until then.
        for open in open {
            open.conns.values().for_each(|dial| known.dials.give_up(dial.place, known.ends_at));
            open.attempts.values().for_each(|&place| known.attempts.give_up(place, known.ends_at));
        }
        known.dials.sort();
        known.attempts.sort();
        known.pings.sort();
        Ok(known)
    }

    /// When a recorded connection that is silent at that moment speaks again, `MAX` if it never does;
    /// `None`: it is not silent, or nobody knows how often it speaks.
    pub(super) fn silent_until(&self, lane: usize, conn: ConnId, at: Time) -> Option<Time> {
        let beats = self.beats.get(&(lane, conn))?;
        let heard = beats.partition_point(|beat| *beat <= at);
        let (first, last) = (beats.first()?, beats.get(heard.checked_sub(1)?)?);
        let usual = last.since(*first) / u32::try_from(heard - 1).ok().filter(|gaps| *gaps > 0)?;
        match beats.get(heard) {
            // One that was lost on the way is no silence.
            Some(next) => (next.since(*last) > usual * 9 / 4).then_some(*next),
            None => (at.since(*last) > usual * 9 / 8).then_some(Time::MAX),
        }
    }

    fn event(&mut self, open: &mut Open, step: &Step) {
        open.guards.learn(&step.event);
        let at = step.at;
        match &step.event {
            Event::AddBreaker { breaker, profile } => {
                open.profiles.insert(*breaker, *profile);
            }
            Event::AddPeer { endpoints, .. } | Event::SetEndpoints { endpoints, .. } => {
                let guards = endpoints.iter().filter_map(|one| open.profiles.get(&one.breaker));
                self.guards_dials.extend(guards);
            }
            Event::Call { call, target, .. } => {
                let breaker = match target {
                    Target::Breaker(breaker) | Target::Peer { breaker, .. } => *breaker,
                };
                self.guards_calls.extend(open.profiles.get(&breaker));
                open.calls.insert(*call, breaker);
            }
            Event::Connected { conn, resumed } => {
                if let Some(dial) = open.conns.get(conn) {
                    let resumed = dial.resume.then_some(*resumed);
                    self.dials.answer(dial.place, at, DialAnswer::Up { resumed, lost: None });
                }
            }
            Event::DialFailed { conn, cause, retry_after } => {
                if let Some(dial) = open.conns.remove(conn) {
                    let (cause, retry_after) = (*cause, *retry_after);
                    self.dials.answer(dial.place, at, DialAnswer::Failed { cause, retry_after });
                }
            }
            Event::Lost { conn, cause } => {
                let dial = open.conns.remove(conn);
                if let Some(sample) = dial.and_then(|dial| self.dials.get_mut(dial.place))
                    && let Some((_, DialAnswer::Up { lost, .. })) = &mut sample.answer
                {
                    *lost = Some((at, *cause));
                }
            }
            Event::Heartbeat { conn } => {
                self.beats.entry((step.manager, *conn)).or_default().push(at);
            }
            Event::Pong { ping } => {
                if let Some((place, conn)) = open.pings.remove(ping) {
                    self.pings.answer(place, at, ());
                    self.beats.entry((step.manager, conn)).or_default().push(at);
                }
            }
            Event::Succeeded { attempt } => {
                if let Some(place) = open.attempts.remove(attempt) {
                    self.attempts.answer(place, at, AttemptAnswer::Succeeded);
                }
            }
            Event::Failed { attempt, kind, retry_after } => {
                if let Some(place) = open.attempts.remove(attempt) {
                    let (kind, retry_after) = (*kind, *retry_after);
                    self.attempts.answer(place, at, AttemptAnswer::Failed { kind, retry_after });
                }
            }
            _ => {}
        }
    }

    fn actions(&mut self, open: &mut Open, step: &Step) {
        let (lane, at) = (step.manager, step.at);
        for action in &step.actions {
            match action {
                Action::Dial { conn, peer, endpoint, resume } => {
                    let breaker = open.guards.of(*peer, *endpoint);
                    let place = self.dials.begin((lane, (*peer, *endpoint)), breaker, at);
                    open.conns.insert(*conn, Dial { place, breaker, resume: *resume });
                }
                Action::CancelDial { conn } => {
                    if let Some(dial) = open.conns.remove(conn) {
                        self.dials.give_up(dial.place, at);
                    }
                }
                Action::Close { conn } => {
                    open.conns.remove(conn);
                }
                Action::Ping { ping, conn } => {
                    let breaker = open.conns.get(conn).and_then(|dial| dial.breaker);
                    let place = self.pings.begin((lane, *conn), breaker, at);
                    open.pings.insert(*ping, (place, *conn));
                }
                Action::StartAttempt { attempt, call, .. } => {
                    let breaker = open.calls.get(call).copied();
                    let place = self.attempts.begin((lane, *call), breaker, at);
                    open.attempts.insert(*attempt, place);
                }
                Action::CancelAttempt { attempt } => {
                    if let Some(place) = open.attempts.remove(attempt) {
                        self.attempts.give_up(place, at);
                    }
                }
                Action::Done { call }
                | Action::GiveUp { call, .. }
                | Action::Reject { call, .. } => {
                    open.calls.remove(call);
                }
                Action::Adopt { .. } | Action::Refuse { .. } | Action::Notice(_) => {}
            }
        }
    }
}
