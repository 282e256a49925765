//! The story of one peer, or of one call where there are no peers: what happened to it, in words.

use std::time::Duration;

use steadfast::breaker::State;
use steadfast::config::Config;
use steadfast::{
    Action, AttemptId, BreakerId, CallFailure, CallId, ConnId, Event, MoveCause, Notice, PeerId,
    PeerState, Time, WaitsFor,
};

use crate::log::Log;
use crate::phases::{Phase, Phases, Watcher};
use crate::plan::{Plan, Way};
use crate::units::{Span, seconds};

/// Lines that are kept at each end; what is between them is counted.
const ENDS: usize = 150;

/// Whom a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hero {
    /// The peer of that index.
    Peer(usize),
    /// The first call that begins then or later.
    Call(Span),
}

/// What happened to somebody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) who: String,
    /// Seconds since the scenario began, and what happened then.
    pub(crate) lines: Vec<(f64, String)>,
    /// After how many lines some are missing, and how many.
    pub(crate) gap: Option<(usize, usize)>,
    /// Since when a peer is in which phase, in seconds.
    pub(crate) phases: Vec<(f64, Phase)>,
}

/// Listens to a run for the sake of one story.
#[derive(Debug)]
pub(crate) struct Narrator<'a> {
    plan: &'a Plan,
    hero: Hero,
    /// Of a peer: its manager, its name, its breakers.
    own: Option<(usize, PeerId, Vec<BreakerId>)>,
    phases: Phases<'a>,
    path: Path,
    start: Option<Time>,
    story: Story,
    last: Vec<(f64, String)>,
    told: usize,
    /// The call, its manager, and its attempts so far.
    call: Option<(usize, CallId)>,
    attempts: Vec<AttemptId>,
}

/// The phases of one peer.
#[derive(Debug)]
struct Path {
    peer: Option<usize>,
    moves: Vec<(Time, Phase)>,
}

/// As many moves as are kept.
const MOVES: usize = 2_000;

impl Watcher for Path {
    fn moved(&mut self, peer: usize, at: Time, to: Phase) {
        if Some(peer) == self.peer && self.moves.len() < MOVES {
            self.moves.push((at, to));
        }
    }
}

impl<'a> Narrator<'a> {
    pub(crate) fn new(plan: &'a Plan, hero: Hero) -> Self {
        let (peer, who) = match hero {
            Hero::Peer(index) => (Some(index), plan.peer_name(index)),
            Hero::Call(_) => (None, "one call".to_owned()),
        };
        let own = peer.and_then(|index| {
            let (group, place) = plan.group_of(index)?;
            let breakers = (0..group.ways.len()).map(|way| group.breaker_id(place, way)).collect();
            Some((index % plan.managers.max(1), group.peer_id(place), breakers))
        });
        Self {
            plan,
            hero,
            own,
            phases: Phases::new(plan),
            path: Path { peer, moves: Vec::new() },
            start: None,
            story: Story { who, ..Story::default() },
            last: Vec::new(),
            told: 0,
            call: None,
            attempts: Vec::new(),
        }
    }

    /// The story; `None` if there never was such a call.
    pub(crate) fn finish(mut self) -> Option<Story> {
        let since = |at: Time| {
            let start = self.start.unwrap_or(Time::ZERO);
            seconds(at.as_nanos().saturating_sub(start.as_nanos()))
        };
        self.story.phases = self.path.moves.iter().map(|(at, to)| (since(*at), *to)).collect();
        let kept = self.story.lines.len() + self.last.len();
        let missing = self.told.saturating_sub(kept);
        if missing > 0 {
            self.story.gap = Some((self.story.lines.len(), missing));
        }
        self.story.lines.append(&mut self.last);
        let known = self.path.peer.is_some() || self.call.is_some();
        known.then_some(self.story)
    }

    fn tell(&mut self, now: Time, line: impl Into<String>) {
        let Some(start) = self.start else { return };
        let at = seconds(now.as_nanos().saturating_sub(start.as_nanos()));
        self.told += 1;
        if self.story.lines.len() < ENDS {
            self.story.lines.push((at, line.into()));
            return;
        }
        if self.last.len() == ENDS {
            self.last.remove(0);
        }
        self.last.push((at, line.into()));
    }

    fn is_of(&self, manager: usize, conn: ConnId) -> bool {
        self.path.peer.is_some() && self.phases.owner(manager, conn) == self.path.peer
    }

    fn server_name(&self, endpoint: usize) -> String {
        let group = self.path.peer.and_then(|index| self.plan.group_of(index));
        let way = group.and_then(|(group, _)| group.ways.get(endpoint));
        let server = way.and_then(|Way { server, .. }| self.plan.servers.get(*server));
        server.map_or_else(|| "its server".to_owned(), |server| server.name.clone())
    }

    fn peer_event(&mut self, manager: usize, now: Time, event: &Event) {
        let line = match event {
            Event::Connected { conn, resumed } if self.is_of(manager, *conn) => match resumed {
                true => "connected, and has its old session".to_owned(),
                false => "connected".to_owned(),
            },
            Event::DialFailed { conn, cause, .. } if self.is_of(manager, *conn) => {
                format!("the dial fails: {}", word(cause))
            }
            Event::Lost { conn, cause } if self.is_of(manager, *conn) => {
                format!("the connection is lost: {}", word(cause))
            }
            Event::GoAway { conn, .. } if self.is_of(manager, *conn) => {
                "the server says that it will go".to_owned()
            }
            Event::NetworkDown => "our host has no network".to_owned(),
            Event::NetworkUp => "our host has a network".to_owned(),
            Event::NetworkChanged => "our host has another network".to_owned(),
            Event::Paused => "our app goes into the background".to_owned(),
            Event::Resumed => "our app is in the foreground".to_owned(),
            _ => return,
        };
        self.tell(now, line);
    }

    fn peer_action(&mut self, now: Time, action: &Action, peer: PeerId, conns: &[ConnId]) {
        let line = match action {
            Action::Dial { peer: of, endpoint, resume, .. } if *of == peer => {
                let session = if *resume { ", to go on with its session" } else { "" };
                format!("dials {}{session}", self.server_name(endpoint.0 as usize))
            }
            Action::CancelDial { conn } if conns.contains(conn) => {
                "no answer in time: the dial is given up".to_owned()
            }
            Action::Close { conn } if conns.contains(conn) => "its connection is closed".to_owned(),
            Action::Notice(notice) => match self.notice(notice, peer) {
                Some(line) => line,
                None => return,
            },
            _ => return,
        };
        self.tell(now, line);
    }

    fn notice(&self, notice: &Notice, peer: PeerId) -> Option<String> {
        let start = self.start.unwrap_or(Time::ZERO);
        let moment = |at: Time| seconds(at.as_nanos().saturating_sub(start.as_nanos()));
        Some(match notice {
            Notice::RetryAt { peer: of, at, failures } if *of == peer => {
                let failed = match failures {
                    0 => String::new(),
                    1 => " (1 failure)".to_owned(),
                    n => format!(" ({n} failures in a row)"),
                };
                format!("waits until {:.3} s{failed}", moment(*at))
            }
            Notice::Peer { peer: of, to: PeerState::Failed, .. } if *of == peer => {
                "gives up for good".to_owned()
            }
            Notice::Suspected { peer: of, silence, .. } if *of == peer => {
                format!("silent for {}: taken for dead", shown(*silence))
            }
            Notice::Doubted { peer: of, silence, .. } if *of == peer => {
                format!("silent for {}: doubted", shown(*silence))
            }
            Notice::Cleared { peer: of, .. } if *of == peer => "speaks again".to_owned(),
            Notice::SessionLost { peer: of } if *of == peer => "its session is gone".to_owned(),
            Notice::Draining { peer: of, replace_at: Some(at), .. } if *of == peer => {
                format!("will move at {:.3} s, before the server goes", moment(*at))
            }
            Notice::Moved { peer: of, cause, .. } if *of == peer => match cause {
                MoveCause::Drained => "moved to a new connection, without a gap".to_owned(),
                _ => "moved to another connection".to_owned(),
            },
            Notice::Breaker { breaker, to, .. } => {
                self.own.as_ref().filter(|(.., breakers)| breakers.contains(breaker))?;
                match to {
                    State::Open { until } => {
                        format!("the breaker opens: nobody dials until {:.3} s", moment(*until))
                    }
                    State::HalfOpen => "the breaker lets a few probes through".to_owned(),
                    State::Closed => "the breaker closes: dials may go, in line".to_owned(),
                    State::ForcedOpen | State::Disabled => return None,
                }
            }
            _ => return None,
        })
    }

    fn peer_step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        let own = self.own.as_ref().filter(|(own, ..)| *own == manager);
        let Some((own, peer)) = own.map(|(own, peer, _)| (*own, *peer)) else { return };
        // A dial of this step is over in it, and a new one may have its connection's place.
        let over = actions.iter().filter_map(|action| match action {
            Action::CancelDial { conn } | Action::Close { conn } => Some(*conn),
            _ => None,
        });
        let conns: Vec<ConnId> = over.filter(|conn| self.is_of(own, *conn)).collect();
        self.peer_event(own, now, event);
        for action in actions {
            self.peer_action(now, action, peer, &conns);
        }
    }

    fn call_step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        let Hero::Call(from) = self.hero else { return };
        let Some(start) = self.start else { return };
        let (from, since) = (start.plus_nanos(from.as_nanos()), now);
        if let (Event::Call { call, .. }, None) = (event, self.call)
            && since >= from
        {
            self.call = Some((manager, *call));
            self.tell(now, "is made");
        }
        let Some((_, call)) = self.call.filter(|(own, _)| *own == manager) else { return };
        if let Some(line) = self.answered(event) {
            self.tell(now, line);
        }
        for action in actions {
            if let Some(line) = self.call_action(action, call, (start, now)) {
                self.tell(now, line);
            }
        }
    }

    fn attempt(&self, id: AttemptId) -> Option<usize> {
        self.attempts.iter().position(|known| *known == id).map(|place| place + 1)
    }

    fn answered(&self, event: &Event) -> Option<String> {
        match event {
            Event::Succeeded { attempt } => {
                Some(format!("attempt {} is answered", self.attempt(*attempt)?))
            }
            Event::Failed { attempt, kind, .. } => {
                Some(format!("attempt {} fails: {}", self.attempt(*attempt)?, word(kind)))
            }
            _ => None,
        }
    }

    fn call_action(
        &mut self,
        action: &Action,
        call: CallId,
        (start, now): (Time, Time),
    ) -> Option<String> {
        let moment = |at: Time| seconds(at.as_nanos().saturating_sub(start.as_nanos()));
        Some(match action {
            Action::StartAttempt { attempt, call: of, .. } if *of == call => {
                self.attempts.push(*attempt);
                format!("attempt {} goes out", self.attempts.len())
            }
            Action::CancelAttempt { attempt } => {
                format!("attempt {} is given up, unanswered", self.attempt(*attempt)?)
            }
            Action::Reject { call: of, reason, .. } if *of == call => {
                format!("is refused at once, unsent: {}", word(reason))
            }
            Action::GiveUp { call: of, reason, .. } if *of == call => {
                format!("fails for good: {}", word(reason))
            }
            Action::Done { call: of } if *of == call => "is done".to_owned(),
            Action::Notice(Notice::CallRetries { call: of, failure, at }) if *of == call => {
                let why = match failure {
                    CallFailure::Timeout => "no answer in time".to_owned(),
                    other => word(other),
                };
                match *at <= now {
                    true => format!("{why}: tries again at once"),
                    false => format!("{why}: will try again at {:.3} s", moment(*at)),
                }
            }
            Action::Notice(Notice::CallWaits { call: of, on, .. }) if *of == call => match on {
                WaitsFor::Backoff => return None,
                other => format!("waits: {}", word(other)),
            },
            _ => return None,
        })
    }
}

/// A variant's name as words.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    let text = match value {
        serde_json::Value::String(name) => name,
        other => {
            let text = other.to_string();
            text.chars().filter(|c| !"{}\"".contains(*c)).collect::<String>().replace(':', ", ")
        }
    };
    text.replace('_', " ")
}

fn shown(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

impl Log for Narrator<'_> {
    fn begin(&mut self, _: &Config, _: &[u64]) {}

    fn start(&mut self, now: Time) {
        self.start = Some(now);
        let up = self.path.moves.last().map_or(Phase::Off, |(_, to)| *to);
        self.path.moves.clear();
        if self.path.peer.is_some() {
            self.path.moves.push((now, up));
        }
    }

    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        match self.hero {
            Hero::Peer(_) => {
                self.phases.advance(now, &mut self.path);
                self.peer_step(manager, now, event, actions);
                self.phases.step(manager, now, event, actions, &mut self.path);
            }
            Hero::Call(_) => self.call_step(manager, now, event, actions),
        }
    }

    fn end(&mut self, _: Time, _: &[u64]) {}
}
