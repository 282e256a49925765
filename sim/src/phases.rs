//! What each peer is doing, seen from outside: by the events that managers are told and by what they
//! answer.
//!
//! The core counts peers by state and tells a peer's phase when asked for it. To ask for each of a
//! million peers again and again would take longer than the run; here a phase changes when
//! something is said about it. A backoff ends without a word, so those are kept by when they end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use steadfast::breaker::State;
use steadfast::{Action, BreakerId, ConnId, Event, Notice, PeerState, Time};

use crate::plan::Plan;

/// What a peer is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not wanted, or given up.
    #[default]
    Off,
    /// It waits for its breaker: for it to close, or for its turn there.
    Waits,
    BacksOff,
    Dials,
    Up,
}

/// What a peer is doing, and if it waits, behind what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Up,
    Dials,
    /// It waits behind a closed breaker, which lets in as many at a time as the server takes.
    InLine,
    /// It waits behind one that is not closed.
    Parked,
    BacksOff,
    Off,
}

/// How many peers are doing what, in the order of [`Doing`].
pub(crate) type Counts = [u32; 6];

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    phase: Phase,
    /// That of its first endpoint, at which it is taken to wait.
    breaker: u32,
    /// When its backoff ends.
    until: Time,
}

#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    state: Is,
    waiting: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Is {
    #[default]
    Closed,
    HalfOpen,
    Open,
}

impl From<State> for Is {
    fn from(state: State) -> Self {
        match state {
            State::Closed | State::Disabled => Self::Closed,
            State::HalfOpen => Self::HalfOpen,
            State::Open { .. } | State::ForcedOpen => Self::Open,
        }
    }
}

/// Somebody who wants to know of each change.
pub(crate) trait Watcher {
    /// A peer, by its index, is in another phase from then on.
    fn moved(&mut self, _peer: usize, _at: Time, _to: Phase) {}
    /// A breaker, by its number, is in another state.
    fn breaker(&mut self, _breaker: usize, _at: Time, _to: Is) {}
}

/// The phases of all peers of a run; peers that follow a recording do not count.
#[derive(Debug)]
pub(crate) struct Phases<'a> {
    plan: &'a Plan,
    peers: Vec<Peer>,
    /// Whose each connection is, by manager and slot.
    conns: Vec<Vec<u32>>,
    numbers: BTreeMap<(usize, BreakerId), u32>,
    breakers: Vec<Breaker>,
    /// Ends of backoffs, soonest first; those that something else ended are still among them.
    ends: BinaryHeap<Reverse<(Time, u32)>>,
    pub(crate) counts: Counts,
    pub(crate) open: u32,
    pub(crate) half_open: u32,
}

impl<'a> Phases<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let counted = plan.groups.iter().filter(|group| group.trace.is_none());
        let off = counted.map(|group| group.count).sum();
        Self {
            plan,
            peers: vec![Peer::default(); plan.peers as usize],
            conns: vec![Vec::new(); plan.managers],
            numbers: BTreeMap::new(),
            breakers: Vec::new(),
            ends: BinaryHeap::new(),
            counts: [0, 0, 0, 0, 0, off],
            open: 0,
            half_open: 0,
        }
    }

    /// The index of a peer that counts.
    pub(crate) fn index(&self, peer: steadfast::PeerId) -> Option<usize> {
        let index = self.plan.peer(peer)?;
        let (group, _) = self.plan.group_of(index)?;
        group.trace.is_none().then_some(index)
    }

    /// How many peers are up.
    pub(crate) fn up(&self) -> u32 {
        self.counts.first().copied().unwrap_or_default()
    }

    /// Whose a connection is.
    pub(crate) fn owner(&self, manager: usize, conn: ConnId) -> Option<usize> {
        let owner = self.conns.get(manager)?.get(conn.slot() as usize)?;
        (*owner != u32::MAX).then_some(*owner as usize)
    }

    /// Backoffs that end by then.
    pub(crate) fn advance(&mut self, now: Time, watcher: &mut impl Watcher) {
        while let Some(Reverse((end, index))) = self.ends.peek().copied() {
            if end > now {
                return;
            }
            self.ends.pop();
            let index = index as usize;
            let peer = self.peers.get(index).copied().unwrap_or_default();
            if peer.phase == Phase::BacksOff && peer.until == end {
                self.enter(index, end, Phase::Waits, watcher);
            }
        }
    }

    /// A manager has answered an event.
    pub(crate) fn step(
        &mut self,
        manager: usize,
        now: Time,
        event: &Event,
        actions: &[Action],
        watcher: &mut impl Watcher,
    ) {
        // What is due now ends in this very step, which says what comes after it.
        match event {
            Event::AddBreaker { breaker, .. } => {
                self.number(manager, *breaker);
            }
            Event::AddPeer { peer, endpoints, .. } => {
                let breaker = endpoints.first().map(|first| self.number(manager, first.breaker));
                let peer = self.index(*peer).and_then(|index| self.peers.get_mut(index));
                if let (Some(peer), Some(breaker)) = (peer, breaker) {
                    peer.breaker = breaker;
                }
            }
            Event::DialFailed { conn, .. } | Event::Lost { conn, .. } => {
                self.dial_over(manager, *conn, now, watcher);
            }
            _ => {}
        }
        for action in actions {
            self.act(manager, now, action, watcher);
        }
    }

    fn act(&mut self, manager: usize, now: Time, action: &Action, watcher: &mut impl Watcher) {
        match action {
            Action::Dial { conn, peer, .. } => {
                let Some(index) = self.index(*peer) else { return };
                self.own(manager, *conn, index);
                // A peer that is up dials only to change its connection.
                if self.phase(index) != Phase::Up {
                    self.enter(index, now, Phase::Dials, watcher);
                }
            }
            Action::CancelDial { conn } => self.dial_over(manager, *conn, now, watcher),
            Action::Notice(Notice::Peer { peer, to, .. }) => {
                let Some(index) = self.index(*peer) else { return };
                let is = self.phase(index);
                match to {
                    PeerState::Connected => self.enter(index, now, Phase::Up, watcher),
                    PeerState::Disconnected | PeerState::Failed => {
                        self.enter(index, now, Phase::Off, watcher);
                    }
                    PeerState::Connecting | PeerState::Reconnecting => {
                        if matches!(is, Phase::Up | Phase::Off) {
                            self.enter(index, now, Phase::Waits, watcher);
                        }
                    }
                }
            }
            Action::Notice(Notice::RetryAt { peer, at, .. }) => {
                let Some(index) = self.index(*peer) else { return };
                self.enter(index, now, Phase::BacksOff, watcher);
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.until = *at;
                    self.ends.push(Reverse((*at, u32::try_from(index).unwrap_or(u32::MAX))));
                }
            }
            Action::Notice(Notice::Breaker { breaker, to, .. }) => {
                let number = self.number(manager, *breaker) as usize;
                self.turn(number, Is::from(*to));
                watcher.breaker(number, now, Is::from(*to));
            }
            _ => {}
        }
    }

    fn phase(&self, index: usize) -> Phase {
        self.peers.get(index).copied().unwrap_or_default().phase
    }

    /// The number of a breaker over all managers.
    fn number(&mut self, manager: usize, breaker: BreakerId) -> u32 {
        let next = u32::try_from(self.breakers.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry((manager, breaker)).or_insert(next);
        if number == next {
            self.breakers.push(Breaker::default());
        }
        number
    }

    fn own(&mut self, manager: usize, conn: ConnId, index: usize) {
        let Some(conns) = self.conns.get_mut(manager) else { return };
        let slot = conn.slot() as usize;
        if conns.len() <= slot {
            conns.resize(slot + 1, u32::MAX);
        }
        if let Some(owner) = conns.get_mut(slot) {
            *owner = u32::try_from(index).unwrap_or(u32::MAX);
        }
    }

    fn dial_over(&mut self, manager: usize, conn: ConnId, now: Time, watcher: &mut impl Watcher) {
        let owner = self.owner(manager, conn);
        if let Some(index) = owner.filter(|index| self.phase(*index) == Phase::Dials) {
            self.enter(index, now, Phase::Waits, watcher);
        }
    }

    /// A breaker is in another state, and with it those that wait behind it.
    fn turn(&mut self, number: usize, to: Is) {
        let Some(breaker) = self.breakers.get_mut(number) else { return };
        let (was, waiting) = (std::mem::replace(&mut breaker.state, to), breaker.waiting);
        for (state, count) in [(Is::Open, &mut self.open), (Is::HalfOpen, &mut self.half_open)] {
            *count = (*count + u32::from(to == state)).saturating_sub(u32::from(was == state));
        }
        let (line, parked) = (Doing::InLine, Doing::Parked);
        match (was == Is::Closed, to == Is::Closed) {
            (true, false) => self.shift(line, parked, waiting),
            (false, true) => self.shift(parked, line, waiting),
            _ => {}
        }
    }

    fn shift(&mut self, from: Doing, to: Doing, peers: u32) {
        if let Some(count) = self.counts.get_mut(from as usize) {
            *count = count.saturating_sub(peers);
        }
        if let Some(count) = self.counts.get_mut(to as usize) {
            *count += peers;
        }
    }

    fn enter(&mut self, index: usize, at: Time, to: Phase, watcher: &mut impl Watcher) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (from, number) = (std::mem::replace(&mut peer.phase, to), peer.breaker as usize);
        if from == to {
            return;
        }
        let mut nobody = Breaker::default();
        let breaker = self.breakers.get_mut(number).unwrap_or(&mut nobody);
        breaker.waiting = (breaker.waiting + u32::from(to == Phase::Waits))
            .saturating_sub(u32::from(from == Phase::Waits));
        let closed = breaker.state == Is::Closed;
        self.shift(from.behind(closed), to.behind(closed), 1);
        watcher.moved(index, at, to);
    }
}

impl Phase {
    const fn behind(self, closed: bool) -> Doing {
        match self {
            Self::Off => Doing::Off,
            Self::Waits if closed => Doing::InLine,
            Self::Waits => Doing::Parked,
            Self::BacksOff => Doing::BacksOff,
            Self::Dials => Doing::Dials,
            Self::Up => Doing::Up,
        }
    }
}
