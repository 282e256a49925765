//! A naive model: what must hold, recomputed from the history of events and actions alone.
//!
//! It knows no queue, no timer and no slot. Where it cannot know the one right answer (which of
//! several endpoints, which jitter) it knows the bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use steadfast::backoff::BackoffPolicy;
use steadfast::breaker::State;
use steadfast::config::{BreakerProfile, PeerProfile};
use steadfast::limit::{Limit, LimitPolicy};
use steadfast::strategy::Step;
use steadfast::{
    Action, BreakerId, Config, ConnId, DialCause, DialFailures, Endpoint, EndpointId, Event,
    Losses, Manager, Moves, Notice, PeerId, PeerState, PingId, Time,
};

use crate::calls::Calls;

mod actions;
mod events;
mod notices;
mod settled;

pub(crate) type Verdict = Result<(), String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Dialing,
    Up,
    Dead,
}

/// What the breaker makes of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// It counts.
    Plain,
    /// It decides.
    Probe,
    /// It was only let through because the breaker only watches.
    Inert,
}

#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) peer: PeerId,
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) breaker: Option<BreakerId>,
    pub(crate) permit: Permit,
    /// The breaker's generation under which it was dialed.
    pub(crate) generation: u64,
    pub(crate) stage: Stage,
    pub(crate) resume: bool,
    pub(crate) since: Time,
    pub(crate) last_heard: Time,
    pub(crate) heard: bool,
    pub(crate) doubted: bool,
    /// Whether at some moment of that doubt many were silent, so that it may have been waited for.
    pub(crate) amid_many: bool,
    pub(crate) suspected: bool,
    /// Whether its server said that it would leave.
    pub(crate) draining: bool,
    /// The ping that is out, and since when.
    pub(crate) ping: Option<(PingId, Time)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) profile: usize,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Whether it never had more than one endpoint, so that each failure ends a round.
    pub(crate) simple: bool,
    pub(crate) wanted: bool,
    pub(crate) coming_back: bool,
    pub(crate) own_failures: u32,
    pub(crate) failed: bool,
    pub(crate) told: PeerState,
    pub(crate) conn: Option<ConnId>,
    /// The dial that is to replace that connection.
    pub(crate) beside: Option<ConnId>,
    pub(crate) failures: u32,
    /// How many of them everybody had.
    pub(crate) excused: u32,
    pub(crate) previous: Duration,
    pub(crate) retry_at: Option<Time>,
    pub(crate) session_until: Time,
    /// When it was last with a connection or unwanted, on a clock that stands without a network.
    pub(crate) without_since: Time,
    /// Whether it was backing off after the last step, as `why` says.
    pub(crate) backing_off: bool,
    /// At which closed breaker it waited for its turn after the last step.
    pub(crate) waits: Option<BreakerId>,
    /// Since when it had waited then, at whatever breakers.
    pub(crate) waits_since: Option<Time>,
    /// What the next `RetryAt` of this step must lie between.
    /// Until when the server of its one endpoint asked to be left alone.
    pub(crate) asked: Time,
    pub(crate) expected_wait: Option<Wait>,
}

/// How long a peer must wait: what the server asked for, and a draw between two bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) hint: Duration,
    pub(crate) least: Duration,
    pub(crate) most: Duration,
    /// Whether the next decorrelated delay depends on this one.
    pub(crate) remembered: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    pub(crate) profile: usize,
    pub(crate) state: State,
    pub(crate) generation: u64,
    pub(crate) run: u32,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
    /// Where it must go in this step.
    pub(crate) due: Option<&'static str>,
    /// What the failure that opens it asked for.
    pub(crate) asked: Option<Duration>,
    pub(crate) watch_only: bool,
    /// Since when it admits a growing share, if it does.
    pub(crate) ramp_from: Option<Time>,
    /// How many dials in flight its server was found to take.
    pub(crate) window: Option<Limit>,
    /// How long its slowest successful dial took.
    pub(crate) slowest: Duration,
    pub(crate) losses: Vec<Time>,
    /// Whom it refused for reasons of its own, with no success since.
    pub(crate) refused: BTreeSet<PeerId>,
    /// When somebody was last suspected although many were silent.
    pub(crate) believed: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) dials: u64,
    pub(crate) succeeded: u64,
    pub(crate) cancelled: u64,
    pub(crate) adopted: u64,
    pub(crate) refused: u64,
    pub(crate) resumed: u64,
    pub(crate) sessions_lost: u64,
    pub(crate) given_up: u64,
    pub(crate) suspected: u64,
    pub(crate) cleared: u64,
    pub(crate) doubted: u64,
    pub(crate) mass_suspicions: u64,
    pub(crate) self_doubts: u64,
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    pub(crate) stale: u64,
    pub(crate) ignored: u64,
    pub(crate) backwards: u64,
    pub(crate) slept: u64,
    pub(crate) common_refusals: u64,
    pub(crate) failures: DialFailures,
    pub(crate) losses: Losses,
    pub(crate) go_aways: u64,
    pub(crate) moves: Moves,
}

pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) promised: Option<Time>,
    /// Whether the network cannot be used, because there is none or because the app is paused.
    pub(crate) down: bool,
    pub(crate) no_network: bool,
    pub(crate) paused: bool,
    /// Whether it has become another one meanwhile.
    pub(crate) changed: bool,
    pub(crate) renewed_at: Time,
    pub(crate) down_at: Time,
    pub(crate) up_at: Time,
    /// How long the network was down before this.
    pub(crate) offline: Duration,
    pub(crate) hold_until: Time,
    /// When it last found that the driver had slept.
    pub(crate) woke_at: Time,
    pub(crate) smoothed: u64,
    pub(crate) relaxed: bool,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    pub(crate) breakers: BTreeMap<BreakerId, Breaker>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    /// How much spoke against ourselves when something last did, and when.
    pub(crate) lateness: (u8, Time),
    /// What was last told of that.
    pub(crate) told_self_health: u8,
    /// When we may count as late again.
    pub(crate) late_from: Time,
    /// When pings were sent.
    pub(crate) pinged: Vec<Time>,
    /// Each ping ever sent, and on which connection.
    pub(crate) pings: BTreeMap<PingId, ConnId>,
    pub(crate) dials: Vec<(Time, BreakerId)>,
    /// The dials that this step's event puts an end to.
    pub(crate) dropped: Vec<ConnId>,
    /// The refusal that shows that everybody is refused, to be told.
    pub(crate) common_due: Option<(BreakerId, DialCause)>,
    pub(crate) counted: Counted,
    pub(crate) calls: Calls,
}

impl Model {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            now: Time::ZERO,
            promised: None,
            down: false,
            no_network: false,
            paused: false,
            changed: false,
            renewed_at: Time::ZERO,
            down_at: Time::ZERO,
            up_at: Time::ZERO,
            offline: Duration::ZERO,
            hold_until: Time::ZERO,
            woke_at: Time::ZERO,
            smoothed: 0,
            relaxed: false,
            peers: BTreeMap::new(),
            breakers: BTreeMap::new(),
            conns: BTreeMap::new(),
            lateness: (0, Time::ZERO),
            told_self_health: 0,
            late_from: Time::ZERO,
            pinged: Vec::new(),
            pings: BTreeMap::new(),
            dials: Vec::new(),
            dropped: Vec::new(),
            common_due: None,
            counted: Counted::default(),
            calls: Calls::default(),
        }
    }

    /// Follows one step and says what was wrong about it, if anything.
    pub(crate) fn follow(&mut self, step: &Step, manager: &Manager) -> Verdict {
        if step.at < self.now {
            self.counted.backwards += 1;
        }
        self.now = self.now.max(step.at);
        // A moment that was passed before counts as the latest one.
        let early = self.promised.is_none_or(|promised| self.now < promised);
        if step.event == Event::Tick && early {
            ensure!(step.actions.is_empty(), "acted before its deadline {:?}", self.promised);
        }
        self.dropped.clear();
        for peer in self.peers.values_mut() {
            peer.expected_wait = None;
        }
        let is_refusal = |action: &&Action| matches!(action, Action::Notice(Notice::Ignored(_)));
        let refusals = step.actions.iter().filter(is_refusal).count();
        let slept = |action: &Action| matches!(action, Action::Notice(Notice::Slept { .. }));
        if step.actions.iter().any(slept) {
            self.woke_at = self.now;
        }
        self.begin_calls();
        let accepted = self.take_event(&step.event);
        self.watch_hedges();
        ensure!(refusals == usize::from(!accepted), "accepted: {accepted}, {refusals} refusals");
        for (place, action) in step.actions.iter().enumerate() {
            self.take_action(action, step, place)
                .map_err(|problem| format!("{action:?}: {problem}"))?;
            self.watch_hedges();
            self.watch_crowds();
        }
        // Other events leave to the next tick what has not been due for a while.
        let late = if step.event == Event::Tick { 0 } else { 250_000_000 };
        self.settle(self.now.minus_nanos(late), manager)?;
        // And right after a sleep, what a caller waits for.
        let asleep = step.event != Event::Tick && self.now < self.hold_until;
        let promised = if asleep { Time::ZERO } else { self.now.minus_nanos(late) };
        self.settle_calls(self.now.minus_nanos(late), promised, manager)?;
        self.promised = manager.next_deadline();
        ensure!(self.promised.is_none_or(|next| next >= self.now), "promised the past");
        Ok(())
    }

    pub(crate) fn profile(&self, peer: &Peer) -> &PeerProfile {
        &self.config.peer_profiles[peer.profile]
    }

    pub(crate) fn breaker_profile(&self, breaker: &Breaker) -> &BreakerProfile {
        &self.config.breaker_profiles[breaker.profile]
    }

    fn policy(&self, peer: PeerId) -> BackoffPolicy {
        self.profile(&self.peers[&peer]).backoff.validate().unwrap()
    }
}

fn window_policy(profile: &BreakerProfile) -> Option<LimitPolicy> {
    profile.window.map(|window| window.validate().unwrap())
}

fn kind(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open { .. } => "open",
        State::HalfOpen => "half-open",
        State::ForcedOpen => "forced open",
        State::Disabled => "disabled",
    }
}
