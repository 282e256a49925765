//! What happened on the way: the last events, and all that became of some peers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use steadfast::recording::{Difference, Step};
use steadfast::{Action, BreakerId, ConnId, Event, Ignored, Manager, Notice, PeerId, Target, Time};

use super::state::named;
use super::words;

/// Events that are shown before a moment.
const LAST: usize = 10;
/// Lines that are kept of a peer; earlier ones are counted.
const MOST: usize = 200;

/// What is remembered of the steps.
pub(super) struct History {
    several: bool,
    span: Option<(Time, Time)>,
    /// With the peer that each is about.
    last: VecDeque<(Step, Option<PeerId>)>,
    /// Whose each connection is: facts name the connection only.
    conns: BTreeMap<(usize, ConnId), PeerId>,
    peers: Vec<Life>,
}

/// What became of a peer.
struct Life {
    peer: PeerId,
    lines: VecDeque<String>,
    forgotten: u64,
}

impl History {
    pub(super) fn new(peers: BTreeSet<PeerId>, managers: &[Manager]) -> Self {
        let mut conns = BTreeMap::new();
        for (place, manager) in managers.iter().enumerate() {
            let up = manager.peers().filter_map(|peer| Some((manager.conn(peer)?, peer)));
            conns.extend(up.map(|(conn, peer)| ((place, conn), peer)));
        }
        let life = |peer| Life { peer, lines: VecDeque::new(), forgotten: 0 };
        let peers = peers.into_iter().map(life).collect();
        Self { several: managers.len() > 1, span: None, last: VecDeque::new(), conns, peers }
    }

    /// The first and the last moment.
    pub(super) const fn span(&self) -> Option<(Time, Time)> {
        self.span
    }

    pub(super) fn step(&mut self, step: Step) {
        let Step { at, manager, event, actions, .. } = &step;
        let (at, manager) = (*at, *manager);
        self.span = Some(self.span.map_or((at, at), |(first, last)| (first, last.max(at))));
        for action in actions {
            if let Action::Dial { conn, peer, .. } | Action::Adopt { conn, peer, .. } = action {
                self.conns.insert((manager, *conn), *peer);
            }
        }
        let about = peer_of_event(event, |conn| self.conns.get(&(manager, conn)).copied());
        if !self.peers.is_empty() {
            self.tell_peers(at, manager, event, actions);
        }
        if let Event::DialFailed { conn, .. } | Event::Lost { conn, .. } = event {
            self.conns.remove(&(manager, *conn));
        }
        for action in actions {
            if let Action::CancelDial { conn } | Action::Close { conn } = action {
                self.conns.remove(&(manager, *conn));
            }
        }
        // A tick that did nothing is none that one would want to see.
        if *event != Event::Tick || !actions.is_empty() {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back((step, about));
        }
    }

    fn tell_peers(&mut self, at: Time, manager: usize, event: &Event, actions: &[Action]) {
        let quiet =
            matches!(event, Event::Heard { .. } | Event::Heartbeat { .. } | Event::Metrics { .. });
        let whose = |conn| self.conns.get(&(manager, conn)).copied();
        let mut lines = Vec::new();
        for (place, life) in self.peers.iter().enumerate() {
            let by = if self.several { format!("manager {manager}  ") } else { String::new() };
            if !quiet && peer_of_event(event, whose) == Some(life.peer) {
                lines.push((place, format!("{by}{at}  {}", words::event(event))));
            }
            for action in actions.iter().filter(|action| peer_of(action, whose) == Some(life.peer))
            {
                lines.push((place, format!("{by}{at}    → {}", words::action(action))));
            }
        }
        for (place, line) in lines {
            let Some(life) = self.peers.get_mut(place) else { continue };
            if life.lines.len() == MOST {
                life.lines.pop_front();
                life.forgotten += 1;
            }
            life.lines.push_back(line);
        }
    }

    /// The step that was asked for, which is the last one.
    pub(super) fn show_step(&self, text: &mut String, step: &Step) {
        let _ = writeln!(text, "\nthe step");
        let last = self.last.back().filter(|(last, _)| last == step);
        self.show(text, step, last.and_then(|(_, about)| *about));
        if step.actions.is_empty() {
            let _ = writeln!(text, "    → nothing");
        }
    }

    /// The last events with their actions.
    pub(super) fn show_last(&self, text: &mut String) {
        let _ = writeln!(text, "\nthe last {} events", self.last.len());
        for (step, about) in &self.last {
            self.show(text, step, *about);
        }
    }

    fn show(&self, text: &mut String, step: &Step, about: Option<PeerId>) {
        let Step { line, at, manager, event, actions, .. } = step;
        let by = if self.several { format!(", manager {manager}") } else { String::new() };
        let words = words::event(event);
        let whose = about.filter(|_| names_only_conn(event));
        let whose = whose.map(|peer| format!(" ({peer})")).unwrap_or_default();
        let _ = writeln!(text, "  {at}  {words}{whose}  (line {line}{by})");
        for action in actions {
            let _ = writeln!(text, "    → {}", words::action(action));
        }
    }

    /// What became of the peers that were asked for, and how they stand.
    pub(super) fn show_peers(&self, text: &mut String, managers: &[Manager]) {
        for Life { peer, lines, forgotten } in &self.peers {
            let _ = writeln!(text, "\n{peer}");
            let mut found = false;
            for (place, manager) in managers.iter().enumerate() {
                if let Some(why) = manager.why(*peer) {
                    let name = named(self.several, place, peer);
                    let _ = writeln!(text, "  {name} is {}", words::why(&why));
                    found = true;
                }
            }
            if !found {
                let _ = writeln!(text, "  there is no such peer at that moment");
            }
            if *forgotten > 0 {
                let _ = writeln!(text, "  … {forgotten} earlier lines");
            }
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    }

    /// The peers and breakers that a difference tells of.
    pub(super) fn concerned(&self, step: &Difference) -> (BTreeSet<PeerId>, BTreeSet<BreakerId>) {
        let whose = |conn| self.conns.get(&(step.manager, conn)).copied();
        let (recorded, replayed) = step.actions();
        let actions: Vec<&Action> = recorded.into_iter().chain(replayed).collect();
        let peers = actions.iter().filter_map(|action| peer_of(action, whose));
        let mut peers: BTreeSet<PeerId> = peers.collect();
        peers.extend(peer_of_event(&step.event, whose));
        let breakers = actions.iter().filter_map(|action| match action {
            Action::Notice(
                Notice::Breaker { breaker, .. }
                | Notice::WatchOnly { breaker, .. }
                | Notice::CommonRefusal { breaker, .. }
                | Notice::MassSuspicion { breaker, .. },
            ) => Some(*breaker),
            _ => None,
        });
        let mut breakers: BTreeSet<BreakerId> = breakers.collect();
        breakers.extend(breaker_of_event(&step.event));
        (peers, breakers)
    }
}

/// Whom an event is about.
fn peer_of_event(event: &Event, whose: impl Fn(ConnId) -> Option<PeerId>) -> Option<PeerId> {
    match event {
        Event::AddPeer { peer, .. }
        | Event::SetEndpoints { peer, .. }
        | Event::RemovePeer { peer }
        | Event::Connect { peer }
        | Event::Disconnect { peer }
        | Event::Accepted { peer, .. }
        | Event::Call { target: Target::Peer { peer, .. }, .. } => Some(*peer),
        Event::Revive { peer } => *peer,
        Event::Connected { conn, .. }
        | Event::DialFailed { conn, .. }
        | Event::Lost { conn, .. }
        | Event::Heard { conn }
        | Event::Heartbeat { conn }
        | Event::GoAway { conn, .. }
        | Event::Metrics { conn, .. } => whose(*conn),
        _ => None,
    }
}

/// Whether one must know whose connection it is to know whom the event is about.
const fn names_only_conn(event: &Event) -> bool {
    matches!(
        event,
        Event::Connected { .. }
            | Event::DialFailed { .. }
            | Event::Lost { .. }
            | Event::Heard { .. }
            | Event::Heartbeat { .. }
            | Event::GoAway { .. }
            | Event::Metrics { .. }
    )
}

fn breaker_of_event(event: &Event) -> Option<BreakerId> {
    match event {
        Event::AddBreaker { breaker, .. }
        | Event::RemoveBreaker { breaker }
        | Event::ForceOpen { breaker }
        | Event::Disable { breaker }
        | Event::WatchOnly { breaker, .. }
        | Event::ResetBreaker { breaker } => Some(*breaker),
        Event::Call { target, .. } => Some(target.breaker()),
        _ => None,
    }
}

/// Whom an action is about, but for pings.
fn peer_of(action: &Action, whose: impl Fn(ConnId) -> Option<PeerId>) -> Option<PeerId> {
    match action {
        Action::Dial { peer, .. } | Action::Adopt { peer, .. } => Some(*peer),
        Action::CancelDial { conn } | Action::Close { conn } => whose(*conn),
        Action::Notice(
            Notice::Peer { peer, .. }
            | Notice::RetryAt { peer, .. }
            | Notice::FailedOver { peer, .. }
            | Notice::SessionLost { peer }
            | Notice::Draining { peer, .. }
            | Notice::Moved { peer, .. }
            | Notice::Suspected { peer, .. }
            | Notice::Cleared { peer, .. }
            | Notice::Doubted { peer, .. }
            | Notice::Trusted { peer, .. }
            | Notice::Degraded { peer, .. }
            | Notice::Recovered { peer }
            | Notice::Ignored(
                Ignored::UnknownPeer(peer)
                | Ignored::UnknownPeerProfile(peer)
                | Ignored::PeerExists(peer)
                | Ignored::DuplicateEndpoint(peer)
                | Ignored::NoEndpoints(peer)
                | Ignored::NotInbound(peer),
            ),
        ) => Some(*peer),
        _ => None,
    }
}
