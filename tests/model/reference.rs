//! A naive model: what must hold, recomputed from the history of events and actions alone.
//!
//! It knows no queue, no timer and no slot. Where it cannot know the one right answer (which of
//! several endpoints, which jitter) it knows the bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use steadfast::backoff::BackoffPolicy;
use steadfast::breaker::State;
use steadfast::bucket::BucketConfig;
use steadfast::config::{BreakerProfile, Detector, FirstRetry, OnSuspect, PeerProfile, Signs};
use steadfast::limit::{Limit, LimitPolicy, Sample};
use steadfast::strategy::Step;
use steadfast::{
    Action, Blocked, BreakerCounts, BreakerId, Config, ConnId, DialCause, DialFailures, Endpoint,
    EndpointId, Event, Ignored, LossCause, Losses, Manager, MoveCause, Moves, Notice, PeerCause,
    PeerCounts, PeerId, PeerState, PingId, Time,
};

use crate::calls::Calls;

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

/// How long the answer to the check after a change of network may take at least.
const CHECK: Duration = Duration::from_millis(500);

/// After how long one who waits counts as a class higher.
const AGED: Duration = Duration::from_secs(30);

fn window_policy(profile: &BreakerProfile) -> Option<LimitPolicy> {
    profile.window.map(|window| window.validate().unwrap())
}

/// What events mean.
impl Model {
    /// Whether the event means something; if so, its consequences.
    fn take_event(&mut self, event: &Event) -> bool {
        let limits = self.config.limits;
        match event {
            Event::AddBreaker { breaker, profile } => {
                let profile = usize::from(profile.0);
                let ok = !self.breakers.contains_key(breaker)
                    && profile < self.config.breaker_profiles.len()
                    && self.breakers.len() < limits.max_breakers as usize;
                if ok {
                    let fresh = Breaker {
                        profile,
                        state: State::Closed,
                        generation: 0,
                        run: 0,
                        successes: 0,
                        failures: 0,
                        due: None,
                        asked: None,
                        watch_only: self.config.breaker_profiles[profile].watch_only,
                        ramp_from: None,
                        window: window_policy(&self.config.breaker_profiles[profile])
                            .map(|policy| Limit::new(&policy)),
                        slowest: Duration::ZERO,
                        losses: Vec::new(),
                        refused: BTreeSet::new(),
                        believed: None,
                    };
                    self.breakers.insert(*breaker, fresh);
                }
                ok
            }
            Event::RemoveBreaker { breaker } => {
                let used = self.endpoints_behind(*breaker) + self.calls_through(*breaker) > 0;
                let ok = !used && self.breakers.remove(breaker).is_some();
                if ok {
                    self.forget_gates(*breaker);
                }
                ok
            }
            Event::AddPeer { peer, profile, endpoints } => {
                let profile = usize::from(profile.0);
                let ok = !self.peers.contains_key(peer)
                    && profile < self.config.peer_profiles.len()
                    && self.peers.len() < limits.max_peers as usize
                    && self.are_valid(endpoints);
                if ok {
                    let fresh = Peer {
                        profile,
                        endpoints: endpoints.clone(),
                        simple: endpoints.len() <= 1,
                        wanted: false,
                        coming_back: false,
                        own_failures: 0,
                        failed: false,
                        told: PeerState::Disconnected,
                        conn: None,
                        failures: 0,
                        excused: 0,
                        previous: Duration::ZERO,
                        retry_at: None,
                        session_until: Time::ZERO,
                        without_since: self.online(),
                        beside: None,
                        backing_off: false,
                        waits: None,
                        waits_since: None,
                        asked: Time::ZERO,
                        expected_wait: None,
                    };
                    self.peers.insert(*peer, fresh);
                }
                ok
            }
            Event::SetEndpoints { peer, endpoints } => {
                let ok = self.peers.contains_key(peer)
                    && !endpoints.is_empty()
                    && self.are_valid(endpoints);
                if ok {
                    let record = self.peers.get_mut(peer).unwrap();
                    if record.endpoints != *endpoints {
                        // Another server, which has asked for nothing yet.
                        record.asked = Time::ZERO;
                    }
                    record.endpoints.clone_from(endpoints);
                    record.simple &= endpoints.len() == 1;
                    let gone: Vec<ConnId> = record.conn.into_iter().chain(record.beside).collect();
                    for id in gone {
                        let conn = self.conns.get_mut(&id).unwrap();
                        let is_its = |kept: &Endpoint| {
                            (Some(kept.id), Some(kept.breaker)) == (conn.endpoint, conn.breaker)
                        };
                        if endpoints.iter().any(is_its) {
                            continue;
                        }
                        if conn.stage == Stage::Up {
                            conn.breaker = None;
                        } else {
                            self.dropped.push(id);
                        }
                    }
                }
                ok
            }
            // Gone once it has been told: what is closed and cancelled comes first.
            Event::RemovePeer { peer } => match self.peers.get_mut(peer) {
                Some(record) => {
                    record.wanted = false;
                    record.failed = false;
                    self.dropped.extend(record.conn.into_iter().chain(record.beside));
                    self.doom_calls(*peer);
                    true
                }
                None => false,
            },
            Event::Connect { peer } => {
                let Some(record) = self.peers.get(peer) else { return false };
                let state = record.told;
                let ok = !record.endpoints.is_empty()
                    && (matches!(state, PeerState::Disconnected | PeerState::Failed)
                        || state == PeerState::Connected && !record.wanted);
                if ok {
                    let now = self.online();
                    let record = self.peers.get_mut(peer).unwrap();
                    record.want(now, state != PeerState::Connected);
                }
                ok
            }
            Event::Disconnect { peer } => {
                let Some(record) = self.peers.get_mut(peer) else { return false };
                if record.told == PeerState::Disconnected {
                    return false;
                }
                record.wanted = false;
                record.failed = false;
                record.session_until = Time::ZERO;
                self.dropped.extend(record.conn.into_iter().chain(record.beside));
                forget(record);
                true
            }
            Event::Connected { conn, resumed } => {
                if self.stage(*conn) != Stage::Dialing {
                    return false;
                }
                self.counted.succeeded += 1;
                self.counted.resumed += u64::from(*resumed);
                self.dial_ended(*conn, Some(true));
                self.come_up(*conn);
                let peer = self.conns[conn].peer;
                let record = self.peers.get_mut(&peer).unwrap();
                record.asked = Time::ZERO;
                if record.beside.take_if(|beside| beside == conn).is_some() {
                    // The old one must be closed before the step ends.
                    record.conn = Some(*conn);
                }
                true
            }
            Event::DialFailed { conn, cause, retry_after } => match self.stage(*conn) {
                Stage::Dialing => {
                    self.fail(*conn, *cause, *retry_after);
                    true
                }
                Stage::Up => {
                    self.lose(*conn, LossCause::Protocol);
                    true
                }
                Stage::Dead => false,
            },
            Event::Lost { conn, cause } => match self.stage(*conn) {
                Stage::Dialing => {
                    self.fail(*conn, DialCause::Unreachable, None);
                    true
                }
                Stage::Up => {
                    self.lose(*conn, *cause);
                    true
                }
                Stage::Dead => false,
            },
            Event::Heard { conn } | Event::Heartbeat { conn } | Event::Metrics { conn, .. } => {
                let up = self.stage(*conn) == Stage::Up;
                if up {
                    self.hear(*conn);
                }
                up
            }
            Event::GoAway { conn, reconnect_in, .. } => {
                let up = self.stage(*conn) == Stage::Up;
                if up {
                    self.counted.go_aways += 1;
                    self.hear(*conn);
                    let record = self.conns.get_mut(conn).unwrap();
                    record.draining = true;
                    let (peer, breaker) = (record.peer, record.breaker);
                    if let Some(breaker) = breaker {
                        let longest = self.breaker_profile(&self.breakers[&breaker]);
                        let longest = longest.breaker.max_retry_after;
                        let asked = self.now + (*reconnect_in).min(longest);
                        let peer = self.peers.get_mut(&peer).unwrap();
                        peer.asked = peer.asked.max(asked);
                    }
                }
                up
            }
            Event::Pong { ping } => {
                // Late or not: whoever answers is alive.
                let Some(conn) = self.pings.get(ping).copied() else { return false };
                let up = self.stage(conn) == Stage::Up;
                if up {
                    self.counted.pongs += 1;
                    self.hear(conn);
                }
                up
            }
            Event::Accepted { peer, .. } => {
                let Some(record) = self.peers.get(peer) else { return false };
                let (conn, beside) = (record.conn, record.beside);
                if !self.profile(record).inbound {
                    return false;
                }
                self.dropped.extend(conn.into_iter().chain(beside));
                if let Some(conn) = conn.filter(|conn| self.stage(*conn) == Stage::Up) {
                    *of_loss(&mut self.counted.losses, LossCause::Replaced) += 1;
                    self.conns.get_mut(&conn).unwrap().ping = None;
                }
                true
            }
            Event::NetworkDown => {
                let ok = !self.no_network;
                self.stand_still();
                self.no_network = true;
                ok
            }
            Event::NetworkUp => {
                let ok = core::mem::take(&mut self.no_network);
                self.go_on();
                ok
            }
            Event::Paused => {
                let ok = !self.paused;
                self.stand_still();
                self.paused = true;
                ok
            }
            Event::Resumed => {
                let ok = core::mem::take(&mut self.paused);
                self.changed |= ok;
                self.go_on();
                ok
            }
            Event::NetworkChanged => {
                self.changed |= self.down;
                if !self.down {
                    self.up_at = self.now;
                    self.renew();
                }
                true
            }
            Event::Load { load } => {
                self.smoothed = (3 * self.smoothed + u64::from(*load).min(1_000_000)) / 4;
                let bound = if self.relaxed { 300_000 } else { 800_000 };
                self.relaxed = self.smoothed > bound;
                true
            }
            Event::Restarted => {
                let alive = self.conns.iter().filter(|(_, conn)| conn.stage != Stage::Dead);
                let alive: Vec<(ConnId, Stage)> =
                    alive.map(|(&id, conn)| (id, conn.stage)).collect();
                // They are lost together, in whatever order: each may be spread among all.
                for (conn, _) in &alive {
                    let breaker = self.conns[conn].breaker;
                    if let Some(breaker) = breaker.and_then(|id| self.breakers.get_mut(&id)) {
                        breaker.losses.push(self.now);
                    }
                }
                for (conn, stage) in alive {
                    match stage {
                        Stage::Dialing => self.dial_ended(conn, None),
                        _ => self.lose(conn, LossCause::Local),
                    }
                }
                self.restart_calls();
                true
            }
            Event::Tick => true,
            Event::ForceOpen { breaker } => self.order(*breaker, State::ForcedOpen),
            Event::Disable { breaker } => self.order(*breaker, State::Disabled),
            Event::ResetBreaker { breaker } => self.order(*breaker, State::Closed),
            Event::Revive { peer: Some(peer) } => {
                let now = self.online();
                let Some(record) = self.peers.get_mut(peer) else { return false };
                let ok = record.failed || record.backing_off;
                if ok {
                    revive(record, now);
                }
                ok
            }
            Event::Revive { peer: None } => {
                let now = self.online();
                let failed = self.peers.values_mut().filter(|peer| peer.failed);
                failed.for_each(|peer| revive(peer, now));
                true
            }
            Event::WatchOnly { breaker, on } => {
                let record = self.breakers.get_mut(breaker).filter(|it| it.watch_only != *on);
                record.map(|record| record.watch_only = *on).is_some()
            }
            call => self.take_call_event(call),
        }
    }

    fn stand_still(&mut self) {
        if !self.down {
            (self.down, self.down_at) = (true, self.now);
        }
    }

    fn go_on(&mut self) {
        if !self.down || self.no_network || self.paused {
            return;
        }
        let still_for = self.now.since(self.down_at);
        self.offline += still_for;
        (self.down, self.up_at) = (false, self.now);
        self.hold_until = self.hold_until.max(self.now + still_for.min(self.config.sleep.max_hold));
        if core::mem::take(&mut self.changed) || still_for >= self.config.network.debounce {
            self.renew();
        }
    }

    fn renew(&mut self) {
        self.renewed_at = self.now;
        for peer in self.peers.values_mut() {
            // A round that began before may still end without another failure.
            peer.failures = u32::from(!peer.simple);
            peer.retry_at = None;
        }
    }

    pub(crate) fn stage(&self, conn: ConnId) -> Stage {
        self.conns.get(&conn).map_or(Stage::Dead, |conn| conn.stage)
    }

    fn endpoints_behind(&self, breaker: BreakerId) -> usize {
        let all = self.peers.values().flat_map(|peer| &peer.endpoints);
        all.filter(|endpoint| endpoint.breaker == breaker).count()
    }

    fn are_valid(&self, endpoints: &[Endpoint]) -> bool {
        let ids: BTreeSet<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id).collect();
        ids.len() == endpoints.len()
            && ids.len() <= self.config.limits.max_endpoints as usize
            && endpoints.iter().all(|endpoint| self.breakers.contains_key(&endpoint.breaker))
    }

    fn order(&mut self, breaker: BreakerId, to: State) -> bool {
        let Some(record) = self.breakers.get_mut(&breaker) else { return false };
        if to == State::Closed {
            // Begins anew even where it was closed.
            record.generation += 1;
            record.run = 0;
            record.ramp_from = None;
        }
        if record.state == to {
            return to == State::Closed;
        }
        record.due = Some(kind(to));
        true
    }

    fn come_up(&mut self, conn: ConnId) {
        let now = self.now;
        let record = self.conns.get_mut(&conn).unwrap();
        record.stage = Stage::Up;
        (record.since, record.last_heard) = (now, now);
        let peer = self.peers.get_mut(&record.peer).unwrap();
        peer.session_until = Time::ZERO;
        (peer.coming_back, peer.own_failures) = (false, 0);
    }

    fn hear(&mut self, conn: ConnId) {
        let record = self.conns.get_mut(&conn).unwrap();
        record.last_heard = self.now;
        record.heard = true;
        record.ping = None;
    }

    /// A dial is over: `Some(true)` well, `Some(false)` badly, `None` as if it had not been.
    fn dial_ended(&mut self, id: ConnId, outcome: Option<bool>) {
        self.learn_pace(id, outcome);
        let conn = self.conns.get_mut(&id).unwrap();
        if outcome != Some(true) {
            conn.stage = Stage::Dead;
            let peer = self.peers.get_mut(&conn.peer).unwrap();
            if peer.beside.take_if(|beside| *beside == id).is_none() {
                peer.conn = None;
            }
        }
        let conn = &self.conns[&id];
        let (breaker, generation, permit) = (conn.breaker.unwrap(), conn.generation, conn.permit);
        if outcome == Some(true) {
            self.breakers.get_mut(&breaker).unwrap().refused.clear();
        }
        self.judge(breaker, generation, permit, outcome, None, None);
    }

    /// A closed breaker's window learns from each dial that counts.
    fn learn_pace(&mut self, id: ConnId, outcome: Option<bool>) {
        let (to, since) = (self.conns[&id].breaker.unwrap(), self.conns[&id].since);
        let others = self.conns.iter().filter(|(other, conn)| {
            **other != id && conn.stage == Stage::Dialing && conn.breaker == Some(to)
        });
        let in_flight = u32::try_from(others.count()).unwrap() + 1;
        let breaker = self.breakers.get_mut(&to).unwrap();
        if outcome == Some(true) {
            breaker.slowest = breaker.slowest.max(self.now.since(since));
        }
        let policy = window_policy(&self.config.breaker_profiles[breaker.profile]);
        if let (Some(window), Some(policy), Some(well), State::Closed) =
            (&mut breaker.window, policy, outcome, breaker.state)
        {
            let sample = if well { Sample::Ok } else { Sample::Dropped };
            window.record(&policy, sample, since, in_flight, self.now);
        }
    }

    /// What the end of a dial or an attempt does to its breaker: as above.
    pub(crate) fn judge(
        &mut self,
        id: BreakerId,
        generation: u64,
        permit: Permit,
        outcome: Option<bool>,
        open_for: Option<Duration>,
        hint: Option<Duration>,
    ) {
        let breaker = self.breakers.get_mut(&id).unwrap();
        if breaker.generation != generation || permit == Permit::Inert {
            return;
        }
        let config = &self.config.breaker_profiles[breaker.profile];
        let relaxed = self.relaxed && config.adaptive;
        let config = &config.breaker;
        breaker.asked = hint.max(open_for);
        match (breaker.state, outcome) {
            (State::Closed, Some(well)) => {
                breaker.run = if well { 0 } else { breaker.run + 1 };
                let threshold = config.consecutive_failures.unwrap();
                let threshold = threshold + if relaxed { threshold.div_ceil(2) } else { 0 };
                if breaker.run >= threshold || open_for.is_some() {
                    breaker.due = Some("open");
                }
            }
            (State::HalfOpen, Some(true)) => {
                breaker.successes += 1;
                if breaker.successes >= config.close_after {
                    breaker.due = Some("closed");
                }
            }
            (State::HalfOpen, Some(false)) => {
                breaker.failures += 1;
                if breaker.failures > config.tolerate || open_for.is_some() {
                    breaker.due = Some("open");
                }
            }
            _ => {}
        }
        if breaker.due != Some("open") {
            breaker.asked = None;
        }
    }

    fn fail(&mut self, id: ConnId, cause: DialCause, hint: Option<Duration>) {
        *of_failure(&mut self.counted.failures, cause) += 1;
        let conn = self.conns[&id].clone();
        let breaker = conn.breaker.unwrap();
        let own = self.peers[&conn.peer].endpoints.iter();
        let own = own.filter(|endpoint| endpoint.breaker == breaker).count();
        let shared = self.endpoints_behind(breaker) > own;
        let peer = self.peers.get_mut(&conn.peer).unwrap();
        let beside = peer.beside == Some(id);
        peer.coming_back |= !beside;
        let void = self.down || conn.since < self.up_at;
        let mut own = cause.is_peer_specific();
        let noticed = self.breaker_profile(&self.breakers[&breaker]).common_refusals;
        if own && shared && !void && noticed {
            let refused = &mut self.breakers.get_mut(&breaker).unwrap().refused;
            // Three are nobody's own reason, and the third is told.
            let before = refused.len();
            refused.insert(conn.peer);
            own = refused.len() < 3;
            self.common_due = (before < 3 && !own).then_some((breaker, cause));
            if before < 3 && !own {
                self.counted.common_refusals += 1;
            }
        }
        let uncounted = cause.is_ours() || own && shared;
        let counts = !void && !uncounted;
        self.dial_ended(id, counts.then_some(false));
        if void {
            return;
        }
        let longest = self.breaker_profile(&self.breakers[&breaker]).breaker.max_retry_after;
        let mut policy = self.policy(conn.peer);
        let hint = hint.unwrap_or_default().min(longest);
        let peer = self.peers.get_mut(&conn.peer).unwrap();
        if beside {
            // Its peer has a connection: one that was silent has had its chance, see `Close`.
            if !cause.is_ours() {
                peer.asked = self.now + hint;
            }
            return;
        }
        if cause.is_ours() {
            let (least, most) = policy.bounds(peer.own_failures, peer.previous);
            peer.own_failures += 1;
            peer.expected_wait =
                Some(Wait { hint: Duration::ZERO, least, most, remembered: false });
            return;
        }
        peer.own_failures = 0;
        if own {
            policy = policy.with_cap_times(10);
        }
        let (least, most) = policy.bounds(peer.failures, peer.previous);
        peer.asked = self.now + hint;
        peer.expected_wait = Some(Wait { hint, least, most, remembered: true });
        peer.failures += 1;
        peer.excused += u32::from(cause.is_peer_specific() && !own);
    }

    fn lose(&mut self, id: ConnId, cause: LossCause) {
        *of_loss(&mut self.counted.losses, cause) += 1;
        let (now, online) = (self.now, self.online());
        let conn = self.conns.get_mut(&id).unwrap();
        conn.stage = Stage::Dead;
        conn.ping = None;
        let conn = conn.clone();
        if let Some(breaker) = conn.breaker.and_then(|breaker| self.breakers.get_mut(&breaker)) {
            breaker.losses.push(now);
        }
        // Behind the breaker that will be asked first.
        let first = self.peers[&conn.peer].endpoints.first();
        let recent = first.map_or(0, |first| {
            let losses = self.breakers[&first.breaker].losses.iter();
            losses.filter(|at| now.since(**at).as_secs() < 5).count()
        });
        let policy = self.policy(conn.peer);
        let profile = self.profile(&self.peers[&conn.peer]).clone();
        let peer = self.peers.get_mut(&conn.peer).unwrap();
        // The dial that was to replace it is the peer's own now.
        peer.conn = peer.beside.take();
        let inherits = peer.conn.is_some();
        peer.session_until = profile.session_ttl.map_or(Time::ZERO, |ttl| now + ttl);
        if !peer.wanted {
            return;
        }
        peer.coming_back = true;
        peer.without_since = online;
        let lasted = now.since(conn.since) >= profile.stable_after;
        let stable = lasted && (conn.heard || profile.health.signs == Signs::Unmonitored);
        if stable {
            forget(peer);
        }
        if inherits {
            return;
        }
        if stable {
            match profile.first_retry {
                FirstRetry::Immediate => return,
                FirstRetry::Spread { max } => {
                    // At no less than one dial a second, and whatever the rate is told to be.
                    let fleet = u64::from(self.config.pacer.fleet_size);
                    let recent = Duration::from_secs(u64::try_from(recent).unwrap() * fleet);
                    let spread = recent.max(profile.backoff.base).min(max);
                    let (hint, least) = (Duration::ZERO, Duration::ZERO);
                    peer.expected_wait =
                        Some(Wait { hint, least, most: spread, remembered: false });
                    return;
                }
                FirstRetry::Backoff => {}
            }
        }
        let (least, most) = policy.bounds(peer.failures, peer.previous);
        let counts = cause != LossCause::Local && !self.down;
        let hint = if counts { peer.asked.since(now) } else { Duration::ZERO };
        peer.expected_wait = Some(Wait { hint, least, most, remembered: counts });
        peer.failures += u32::from(counts);
    }
}

impl Peer {
    /// From now on it is wanted; `fresh` if it had no connection.
    pub(crate) fn want(&mut self, now: Time, fresh: bool) {
        self.wanted = true;
        if fresh {
            self.coming_back = false;
            self.failed = false;
            self.without_since = now;
            self.expected_wait = None;
            forget(self);
        }
    }
}

fn forget(peer: &mut Peer) {
    peer.failures = 0;
    peer.excused = 0;
    peer.previous = Duration::ZERO;
    peer.retry_at = None;
}

fn revive(peer: &mut Peer, now: Time) {
    forget(peer);
    peer.asked = Time::ZERO;
    peer.failed = false;
    peer.without_since = now;
}

/// What actions may be given.
impl Model {
    fn take_action(&mut self, action: &Action, step: &Step, place: usize) -> Verdict {
        match action {
            Action::Dial { conn, peer, endpoint, resume } => {
                self.take_dial(*conn, *peer, *endpoint, *resume)
            }
            Action::CancelDial { conn } => {
                self.counted.cancelled += 1;
                ensure!(self.stage(*conn) == Stage::Dialing, "nothing to cancel");
                let peer = self.conns[conn].peer;
                let record = &self.peers[&peer];
                let beside = record.beside == Some(*conn);
                // The silent connection spoke first.
                let spoke = |action: &Action| match action {
                    Action::Notice(Notice::Cleared { conn, .. }) => record.conn == Some(*conn),
                    _ => false,
                };
                let needless = beside && step.actions[..place].iter().any(spoke);
                let ordered = self.dropped.contains(conn) || needless;
                // What is told of the peer next: a dial that times out is told otherwise.
                let of_peer = |action: &Action| match action {
                    Action::Notice(Notice::Peer { peer: named, cause, .. }) if *named == peer => {
                        Some(Some(*cause))
                    }
                    Action::Notice(Notice::RetryAt { peer: named, .. }) if *named == peer => {
                        Some(None)
                    }
                    _ => None,
                };
                let next = step.actions[place..].iter().find_map(of_peer).flatten();
                // What was dialed over another network is dialed again.
                let renewed = self.conns[conn].since < self.renewed_at;
                if ordered || renewed || next == Some(PeerCause::TooLong) {
                    self.dial_ended(*conn, None);
                    return Ok(());
                }
                let since = self.conns[conn].since;
                let profile = self.profile(&self.peers[&peer]);
                let least = profile.failover_timeout.min(profile.dial_timeout);
                ensure!(self.now >= since + least, "timed out too early");
                ensure!(self.now >= self.hold_until, "timed out while judgement held");
                ensure!(!self.down, "timed out while the network was down");
                if since < self.up_at {
                    self.dial_ended(*conn, None);
                } else {
                    self.fail(*conn, DialCause::Timeout, None);
                }
                Ok(())
            }
            Action::Close { conn } => {
                let late =
                    matches!(step.event, Event::Connected { conn: told, .. } if told == *conn);
                if late && self.stage(*conn) == Stage::Dead {
                    return Ok(());
                }
                ensure!(self.stage(*conn) == Stage::Up, "nothing to close");
                let record = self.conns.get_mut(conn).unwrap();
                if record.suspected && place > 0 && is_suspicion(&step.actions[place - 1], *conn) {
                    self.lose(*conn, LossCause::Suspected);
                    return Ok(());
                }
                let (suspected, peer) = (record.suspected, record.peer);
                let record = &self.peers[&peer];
                let raced = self.profile(record).health.on_suspect == OnSuspect::Race;
                let ordered = matches!(
                    step.event,
                    Event::Connected { .. }
                        | Event::Accepted { .. }
                        | Event::Disconnect { .. }
                        | Event::RemovePeer { .. }
                );
                if suspected && raced && !ordered && record.conn == Some(*conn) {
                    ensure!(record.beside.is_none(), "the race is not over");
                    self.lose(*conn, LossCause::Suspected);
                    return Ok(());
                }
                let record = self.conns.get_mut(conn).unwrap();
                record.stage = Stage::Dead;
                record.ping = None;
                self.peers.get_mut(&peer).unwrap().conn.take_if(|own| own == conn);
                Ok(())
            }
            Action::Ping { ping, conn } => {
                self.counted.pings += 1;
                ensure!(self.pings.insert(*ping, *conn).is_none(), "the ping's id was used before");
                ensure!(self.stage(*conn) == Stage::Up, "pings what is not up");
                ensure!(!self.down, "pings without a network");
                let record = &self.conns[conn];
                let profile = self.profile(&self.peers[&record.peer]);
                let Signs::Pings(pings) = profile.health.signs else {
                    return Err("pings whom it should not".into());
                };
                let silence = self.now.since(record.last_heard);
                // Whoever missed pings is asked again at once.
                let fresh = !record.heard || record.last_heard < self.up_at;
                let asked_early = silence < pings.interval && !record.suspected && !fresh;
                ensure!(!asked_early, "pings after {silence:?}");
                self.conns.get_mut(conn).unwrap().ping = Some((*ping, self.now));
                self.pinged.push(self.now);
                let rate = self.config.ping_rate.unwrap();
                for (pings, since) in (1_u128..).zip(self.pinged.iter().rev()) {
                    let earned = self.now.since(*since).as_nanos() * u128::from(rate.rate.count);
                    let allowed = u128::from(rate.burst) + earned / rate.rate.per.as_nanos();
                    ensure!(pings <= allowed, "{pings} pings since {since}, {allowed} allowed");
                }
                Ok(())
            }
            Action::Adopt { conn, peer, tag } => {
                self.counted.adopted += 1;
                let asked = Event::Accepted { peer: *peer, tag: *tag };
                ensure!(step.event == asked, "adopts without being asked");
                ensure!(!self.conns.contains_key(conn), "the id was used before");
                ensure!(self.peers[peer].conn.is_none(), "the peer has another one");
                let session = self.peers[peer].session_until;
                self.new_conn(*conn, *peer, None, (0, Permit::Plain), false);
                self.come_up(*conn);
                // Nobody was asked for the session.
                self.peers.get_mut(peer).unwrap().session_until = session;
                Ok(())
            }
            Action::Refuse { tag } => {
                self.counted.refused += 1;
                let asked =
                    matches!(step.event, Event::Accepted { tag: asked, .. } if asked == *tag);
                ensure!(asked, "refuses what was not offered");
                Ok(())
            }
            Action::Notice(notice) => self.take_notice(notice, step),
            call => self.take_call_action(call, step, place),
        }
    }

    fn new_conn(
        &mut self,
        id: ConnId,
        peer: PeerId,
        to: Option<Endpoint>,
        (generation, permit): (u64, Permit),
        resume: bool,
    ) {
        let conn = Conn {
            peer,
            endpoint: to.map(|to| to.id),
            breaker: to.map(|to| to.breaker),
            generation,
            permit,
            stage: Stage::Dialing,
            resume,
            since: self.now,
            last_heard: self.now,
            heard: false,
            doubted: false,
            amid_many: false,
            suspected: false,
            draining: false,
            ping: None,
        };
        self.conns.insert(id, conn);
        let peer = self.peers.get_mut(&peer).unwrap();
        let place = if peer.conn.is_some() { &mut peer.beside } else { &mut peer.conn };
        *place = Some(id);
    }

    fn take_dial(
        &mut self,
        id: ConnId,
        peer: PeerId,
        endpoint: EndpointId,
        resume: bool,
    ) -> Verdict {
        self.counted.dials += 1;
        ensure!(!self.conns.contains_key(&id), "the id was used before");
        let record = self.peers.get(&peer).ok_or("no such peer")?;
        ensure!(record.wanted && !record.failed, "nobody wants it");
        ensure!(!self.down, "the network is down");
        let replaced = record.conn;
        let waits = record.retry_at.filter(|at| replaced.is_none() && *at > self.now);
        ensure!(waits.is_none(), "before {waits:?}");
        let alive = match replaced {
            Some(replaced) => {
                self.may_replace(record, replaced, endpoint)?;
                self.profile(record).session_ttl.is_some()
            }
            None => record.session_until > self.now,
        };
        ensure!(resume == alive, "session alive: {alive}");
        let known = record.endpoints.iter().find(|known| known.id == endpoint);
        let to = *known.ok_or("no such endpoint")?;
        let breaker_id = to.breaker;
        let breaker = &self.breakers[&breaker_id];
        let profile = self.breaker_profile(breaker);
        let in_flight = |wanted: &dyn Fn(&Conn) -> bool| {
            let dials = self.conns.values().filter(|conn| conn.stage == Stage::Dialing);
            u32::try_from(dials.filter(|conn| wanted(conn)).count()).unwrap()
        };
        let permit = self.permit_for(breaker_id)?;
        ensure!(in_flight(&|_| true) < self.config.pacer.max_in_flight, "too many in flight");
        let behind = in_flight(&|conn| conn.breaker == Some(breaker_id));
        let found = breaker.window.as_ref().map_or(u32::MAX, Limit::current);
        let room = profile.max_in_flight.min(found);
        ensure!(behind < room, "{behind} of {room} in flight behind {breaker_id}");
        if breaker.state == State::Closed && permit == Permit::Plain && replaced.is_none() {
            self.check_turn(peer, breaker_id)?;
        }
        let breaker = &self.breakers[&breaker_id];
        let generation = breaker.generation;
        let rates = [(profile.rate, Some(breaker_id)), (self.config.pacer.rate, None)];
        self.dials.push((self.now, breaker_id));
        for (rate, among) in rates {
            if let Some(rate) = rate {
                self.check_rate(&rate, among)?;
            }
        }
        self.new_conn(id, peer, Some(to), (generation, permit), resume);
        self.peers.get_mut(&peer).unwrap().retry_at = None;
        Ok(())
    }

    /// Whether a connection that lasts may be replaced by one to that endpoint.
    fn may_replace(&self, peer: &Peer, replaced: ConnId, to: EndpointId) -> Verdict {
        let conn = &self.conns[&replaced];
        ensure!(conn.stage == Stage::Up && peer.beside.is_none(), "one is there: {replaced}");
        let profile = self.profile(peer);
        let raced = conn.suspected && profile.health.on_suspect == OnSuspect::Race;
        if conn.draining || raced {
            return Ok(());
        }
        let place = |id: EndpointId| peer.endpoints.iter().position(|endpoint| endpoint.id == id);
        let current = conn.endpoint.filter(|_| conn.breaker.is_some()).and_then(place);
        let preferred = current.is_some_and(|current| place(to).is_some_and(|to| to < current));
        let interval = profile.failback_after.ok_or("no failback")?;
        ensure!(preferred, "it is not preferred to {current:?}");
        ensure!(self.now.since(conn.since) >= interval / 2, "fails back after a moment");
        Ok(())
    }

    /// Nobody who waited at the closed breaker was passed over: neither one of a higher class, unless
    /// this one has waited long, nor one of its class whose session would still be resumed.
    fn check_turn(&self, dialed: PeerId, breaker: BreakerId) -> Verdict {
        let own = &self.peers[&dialed];
        let aged = own.waits_since.is_some_and(|since| self.now.since(since) >= AGED);
        let in_time = self.now + self.breakers[&breaker].slowest * 2;
        let others = self.peers.iter().filter(|(id, other)| {
            let waits = other.waits == Some(breaker);
            // One whose server asked to be left alone has left the line in this step.
            let off = other.retry_at.is_some_and(|at| at > self.now);
            let still = other.wanted && !other.failed && other.conn.is_none() && !off;
            **id != dialed && waits && still && other.endpoints.len() == 1
        });
        for (id, other) in others {
            let (class, theirs) = (self.profile(own).priority, self.profile(other).priority);
            ensure!(aged || theirs >= class, "{id} is of a higher class");
            // Whoever comes before a higher class by its long wait comes before its own as well.
            let first = theirs == class && !aged && other.session_until > in_time;
            ensure!(!first || own.session_until > self.now, "{id} has a session to lose");
        }
        Ok(())
    }

    /// In no window that ends now were there more than its burst and its share of the rate.
    fn check_rate(&self, rate: &BucketConfig, among: Option<BreakerId>) -> Verdict {
        let counted =
            self.dials.iter().rev().filter(|(_, breaker)| among.is_none_or(|b| b == *breaker));
        for (dials, (since, _)) in (1_u128..).zip(counted) {
            let earned = self.now.since(*since).as_nanos() * u128::from(rate.rate.count);
            let allowed = u128::from(rate.burst) + earned / rate.rate.per.as_nanos();
            ensure!(dials <= allowed, "{dials} dials since {since}, {allowed} allowed");
        }
        Ok(())
    }

    /// With what permit the breaker admits one more.
    pub(crate) fn permit_for(&self, id: BreakerId) -> Result<Permit, String> {
        let breaker = &self.breakers[&id];
        let probes = self.breaker_profile(breaker).breaker.probes;
        // The breaker may have given up those whose time is up, just before they are cancelled.
        // (Where it only watches, a dial is taken at its word: one too many is no probe.)
        let late = if breaker.watch_only { 0 } else { self.overdue_probes(id) };
        let out = self.probes_out(id) - late;
        match breaker.state {
            State::Closed | State::Disabled => Ok(Permit::Plain),
            State::HalfOpen if out < probes => Ok(Permit::Probe),
            State::HalfOpen | State::Open { .. } if breaker.watch_only => Ok(Permit::Inert),
            State::HalfOpen => Err(format!("{out} probes are out")),
            shut => Err(format!("the breaker is {shut:?}")),
        }
    }

    /// Probes that are out: dials and attempts of calls.
    pub(crate) fn probes_out(&self, id: BreakerId) -> u32 {
        self.count_probes(id, |_| true)
    }

    /// Those among them whose time is up.
    fn overdue_probes(&self, id: BreakerId) -> u32 {
        self.count_probes(id, |ends| ends <= self.now)
    }

    fn count_probes(&self, id: BreakerId, counts: impl Fn(Time) -> bool) -> u32 {
        let Some(breaker) = self.breakers.get(&id) else { return 0 };
        let dials = self.conns.values().filter(|conn| {
            let is_its = (conn.breaker, conn.generation) == (Some(id), breaker.generation);
            is_its && conn.stage == Stage::Dialing && conn.permit == Permit::Probe
        });
        let ends = dials.map(|conn| {
            let profile = self.profile(&self.peers[&conn.peer]);
            conn.since + profile.failover_timeout.min(profile.dial_timeout)
        });
        let attempts = self.calls.attempts.values().filter(|attempt| {
            let is_its = (attempt.breaker, attempt.generation) == (id, breaker.generation);
            is_its && attempt.permit == Permit::Probe
        });
        let ends = ends.chain(attempts.map(|attempt| attempt.ends));
        u32::try_from(ends.filter(|ends| counts(*ends)).count()).unwrap()
    }

    fn take_notice(&mut self, notice: &Notice, step: &Step) -> Verdict {
        match notice {
            Notice::Peer { peer, from, to, cause } => {
                if (*to, *cause) == (PeerState::Connecting, PeerCause::Asked) {
                    self.connect_for_a_call(*peer);
                }
                let record = self.peers.get_mut(peer).ok_or("no such peer")?;
                ensure!(record.told == *from, "it was {:?}", record.told);
                record.told = *to;
                if *to != PeerState::Failed {
                    return Ok(());
                }
                self.counted.given_up += 1;
                record.failed = true;
                record.retry_at = None;
                let record = &self.peers[peer];
                let profile = self.profile(record);
                let enough = match cause {
                    PeerCause::TooManyAttempts => {
                        let own = record.failures - record.excused;
                        profile.max_attempts.is_some_and(|max| own >= max)
                    }
                    PeerCause::TooLong => profile
                        .give_up_after
                        .is_some_and(|span| record.without_since + span <= self.online()),
                    _ => false,
                };
                ensure!(enough, "gave up too early");
                Ok(())
            }
            Notice::RetryAt { peer, at, failures } => {
                let now = self.now;
                let record = self.peers.get_mut(peer).ok_or("no such peer")?;
                ensure!(*at > now, "retries in the past");
                ensure!(record.wanted && record.conn.is_none(), "nothing to wait for");
                record.retry_at = Some(*at);
                if !record.simple {
                    ensure!(*failures <= record.failures, "at most {}", record.failures);
                    return Ok(());
                }
                ensure!(*failures == record.failures, "{} by count", record.failures);
                let waits = at.since(now);
                if let Some(wait) = record.expected_wait {
                    let drawn = waits.saturating_sub(wait.hint);
                    ensure!((wait.least..=wait.most).contains(&drawn), "not within {wait:?}");
                    if wait.remembered {
                        record.previous = drawn;
                    }
                }
                Ok(())
            }
            Notice::FailedOver { from, to, .. } => {
                ensure!(from != to, "to the same one");
                Ok(())
            }
            Notice::SessionLost { peer } => {
                self.counted.sessions_lost += 1;
                let Event::Connected { conn, resumed } = step.event else {
                    return Err("nobody answered".into());
                };
                let conn = &self.conns[&conn];
                ensure!(conn.peer == *peer && conn.resume && !resumed, "it was not asked for");
                Ok(())
            }
            Notice::Suspected { peer, conn, silence, .. } => {
                self.counted.suspected += 1;
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                ensure!(record.stage == Stage::Up && record.peer == *peer, "not up");
                ensure!(!record.suspected, "it is suspected already");
                let heard = self.now.since(record.last_heard);
                ensure!(*silence == heard, "silent for {heard:?}");
                ensure!(record.doubted, "it was not doubted before");
                let (breaker, amid_many) = (record.breaker, record.amid_many);
                let checked = record.last_heard < self.renewed_at;
                let judged_from = record.last_heard.max(self.up_at);
                let health = self.profile(&self.peers[peer]).health;
                ensure!(self.now >= self.hold_until, "suspects while judgement holds");
                ensure!(!self.down, "suspects without a network");
                let long = match (health.signs, health.detector) {
                    (Signs::Unmonitored, _) => false,
                    (Signs::Heartbeats, Detector::Deadline(span)) => judged_from + span <= self.now,
                    (Signs::Pings(pings), Detector::Deadline(span)) => {
                        let shortest = if checked { CHECK } else { pings.timeout };
                        judged_from + span <= self.now
                            || heard >= shortest.min(pings.timeout) * pings.unhealthy_threshold
                    }
                    (_, Detector::Phi(phi)) => judged_from + phi.acceptable_pause <= self.now,
                };
                ensure!(long, "not silent for long");
                let is_mass = breaker.is_some_and(|breaker| self.is_mass(breaker));
                if let Some(breaker) = breaker.filter(|_| is_mass || amid_many) {
                    // Whoever is silent among many has twice as long, unless it was true just now,
                    // be it of one that was waited for until the others had spoken.
                    let believe_for = self.config.mass_guard.unwrap().believe_for;
                    let now = self.now;
                    let record = self.breakers.get_mut(&breaker).unwrap();
                    let believed = record.believed.replace(now);
                    let believed = believed.is_some_and(|at| now < at + believe_for);
                    if let (true, Signs::Heartbeats, Detector::Deadline(span)) =
                        (is_mass, health.signs, health.detector)
                    {
                        ensure!(believed || heard >= 2 * span, "suspected among many at once");
                    }
                }
                let record = self.conns.get_mut(conn).unwrap();
                (record.suspected, record.doubted) = (true, false);
                Ok(())
            }
            Notice::Doubted { peer, conn, silence } => {
                self.counted.doubted += 1;
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                ensure!(record.stage == Stage::Up && record.peer == *peer, "not up");
                ensure!(!record.doubted && !record.suspected, "it is doubted already");
                ensure!(*silence == self.now.since(record.last_heard), "not so silent");
                ensure!(self.now >= self.hold_until && !self.down, "judged while nothing is");
                record.doubted = true;
                Ok(())
            }
            Notice::Trusted { conn, .. } => {
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                let back = record.last_heard < self.up_at;
                ensure!(record.doubted && (record.last_heard == self.now || back), "why");
                (record.doubted, record.amid_many) = (false, false);
                Ok(())
            }
            Notice::MassSuspicion { breaker, silent, connected } => {
                self.counted.mass_suspicions += 1;
                let counted = self.crowd(*breaker);
                ensure!(counted == (*silent, *connected), "counted {counted:?}");
                ensure!(self.is_mass(*breaker), "these are not many");
                Ok(())
            }
            Notice::SelfHealth { score } => {
                ensure!(*score == self.self_health(), "it is {}", self.self_health());
                ensure!(*score != self.told_self_health, "it was told");
                self.counted.self_doubts += u64::from(*score > self.told_self_health);
                self.told_self_health = *score;
                Ok(())
            }
            Notice::Cleared { conn, .. } => {
                self.counted.cleared += 1;
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                ensure!(record.suspected && record.last_heard == self.now, "nothing to clear");
                record.suspected = false;
                Ok(())
            }
            Notice::Draining { conn, .. } => {
                let told = matches!(step.event, Event::GoAway { conn: told, .. } if told == *conn);
                ensure!(told, "it did not say so");
                Ok(())
            }
            Notice::Moved { peer, cause, .. } => {
                *of_move(&mut self.counted.moves, *cause) += 1;
                let Event::Connected { conn, .. } = step.event else {
                    return Err("nothing came up".into());
                };
                ensure!(self.peers[peer].conn == Some(conn), "it is not the peer's");
                Ok(())
            }
            Notice::Degraded { .. } | Notice::Recovered { .. } => Ok(()),
            Notice::Breaker { breaker, from, to } => {
                let (now, down) = (self.now, self.down);
                let overdue = self.overdue_probes(*breaker);
                let record = self.breakers.get_mut(breaker).ok_or("no such breaker")?;
                let config = &self.config.breaker_profiles[record.profile].breaker;
                let tolerate = config.tolerate;
                ensure!(record.state == *from, "it was {:?}", record.state);
                match (*from, *to, record.due.take()) {
                    (State::Open { until }, State::HalfOpen, None) => {
                        ensure!(until <= now && !down, "half-open before {until}");
                    }
                    // A probe's own timeout may come just before its dial's.
                    (State::HalfOpen, State::Open { .. }, None) => {
                        let failed = record.failures + overdue;
                        ensure!(failed > tolerate, "{failed} probes failed");
                    }
                    (_, to, Some(due)) => ensure!(kind(to) == due, "should be {due}"),
                    (_, _, None) => return Err("for no reason".into()),
                }
                if let State::Open { until } = to {
                    ensure!(*until >= now, "open until the past");
                    let longest = config.max_retry_after;
                    let asked = record.asked.take().unwrap_or_default().min(longest);
                    ensure!(until.since(now) >= asked, "asked for {asked:?}");
                }
                let by_order =
                    matches!(step.event, Event::ResetBreaker { breaker: it } if it == *breaker);
                let ramps = (*from, *to) == (State::HalfOpen, State::Closed) && !by_order;
                record.ramp_from = (ramps && config.ramp_for.is_some()).then_some(now);
                record.state = *to;
                // A reset has raised the generation already; once more does not matter, since
                // nothing can have been dialed in between.
                record.generation += 1;
                (record.run, record.successes, record.failures) = (0, 0, 0);
                Ok(())
            }
            Notice::Load { relaxed } => {
                ensure!(*relaxed == self.relaxed, "load {}", self.smoothed);
                Ok(())
            }
            Notice::Slept { late, hold_until } => {
                self.counted.slept += 1;
                let promised = self.promised.ok_or("nothing was promised")?;
                ensure!(*late == self.now.since(promised), "promised {promised}");
                let held = self.now + (*late).min(self.config.sleep.max_hold);
                let held = self.hold_until.max(held);
                // A network that comes back in the same step holds too.
                ensure!(*hold_until <= held, "holds until {held}");
                self.hold_until = held;
                if self.now >= self.late_from {
                    self.lateness = ((self.self_health() + 1).min(7), self.now);
                    self.late_from = self.now + Duration::from_secs(1);
                }
                Ok(())
            }
            Notice::Ignored(
                Ignored::StaleConn(_) | Ignored::StalePing(_) | Ignored::StaleAttempt(_),
            ) => {
                self.counted.stale += 1;
                Ok(())
            }
            Notice::Ignored(_) => {
                self.counted.ignored += 1;
                Ok(())
            }
            Notice::CommonRefusal { breaker, cause } => {
                let due = self.common_due.take();
                ensure!(due == Some((*breaker, *cause)), "due is {due:?}");
                Ok(())
            }
            Notice::WatchOnly { breaker, on } => {
                let asked = Event::WatchOnly { breaker: *breaker, on: *on };
                ensure!(step.event == asked, "nobody asked");
                Ok(())
            }
            other => self.take_call_notice(other),
        }
    }
}

/// What must be true after each step.
impl Model {
    /// A clock that stands while there is no network.
    pub(crate) fn online(&self) -> Time {
        let until = if self.down { self.down_at } else { self.now };
        Time::ZERO + until.since(Time::ZERO + self.offline)
    }

    /// It fades by one in twenty seconds.
    fn self_health(&self) -> u8 {
        let (score, since) = self.lateness;
        let faded = self.now.since(since).as_secs() / 20;
        score.saturating_sub(u8::try_from(faded).unwrap_or(u8::MAX))
    }

    fn settle(&mut self, judged: Time, manager: &Manager) -> Verdict {
        let ours = (manager.self_health(), self.self_health());
        ensure!(ours.0 == ours.1, "{ours:?} against ourselves");
        ensure!(self.common_due.is_none(), "not told: {:?}", self.common_due);
        for (id, breaker) in &self.breakers {
            ensure!(breaker.due.is_none(), "{id} should be {:?}", breaker.due);
            let state = manager.breaker_state(*id);
            ensure!(state == Some(breaker.state), "{id} is {state:?}, not {:?}", breaker.state);
            if let State::Open { until } = breaker.state {
                ensure!(until > judged || self.down, "{id} should be half-open since {until}");
            }
        }
        if judged == self.now {
            self.check_silences()?;
        }
        // Removed peers are told of as disconnected first.
        self.peers.retain(|id, peer| {
            let gone = manager.peer_state(*id).is_none();
            !(gone && !peer.wanted && peer.conn.is_none() && peer.told == PeerState::Disconnected)
        });
        let mut peers = PeerCounts::default();
        let (now, online, down) = (self.now, self.online(), self.down);
        for (id, peer) in &mut self.peers {
            let up = peer.conn.is_some_and(|conn| self.conns[&conn].stage == Stage::Up);
            let state = if peer.failed {
                PeerState::Failed
            } else if up {
                PeerState::Connected
            } else if !peer.wanted {
                PeerState::Disconnected
            } else if peer.coming_back {
                PeerState::Reconnecting
            } else {
                PeerState::Connecting
            };
            ensure!(peer.told == state, "{id} was told {:?}, is {state:?}", peer.told);
            let why = manager.why(*id).ok_or_else(|| format!("{id} is unknown"))?;
            ensure!(why.state == state, "{id} is {state:?}: {why:?}");
            let failures = why.failures;
            let right = failures == peer.failures || !peer.simple && failures <= peer.failures;
            ensure!(right, "{id} has {} failures: {why:?}", peer.failures);
            peer.backing_off = why.blocked == Some(Blocked::Backoff);
            (peer.waits, peer.waits_since) = match why.blocked {
                Some(Blocked::Turn { breaker, .. }) => (Some(breaker), Some(why.since)),
                Some(Blocked::Breaker { .. } | Blocked::Network | Blocked::Pause) => {
                    (None, Some(why.since))
                }
                _ => (None, None),
            };
            let idle = matches!(state, PeerState::Connected | PeerState::Disconnected);
            ensure!(why.blocked.is_none() == idle, "{id} is blocked by {:?}", why.blocked);
            ensure!(why.since <= now, "{id} since {}", why.since);
            let profile = &self.config.peer_profiles[peer.profile];
            if let (Some(span), false) = (profile.give_up_after, idle || peer.failed) {
                // Across an outage of ours it may take an eighth longer until that is noticed.
                let span = span + if self.offline.is_zero() { Duration::ZERO } else { span / 8 };
                ensure!(down || peer.without_since + span > online, "{id} should have given up");
            }
            if peer.backing_off {
                ensure!(why.until.is_some_and(|until| until > now), "{id} is late: {why:?}");
            }
            if down {
                let dials = matches!(why.blocked, Some(Blocked::Dial(_)));
                let waits = matches!(
                    why.blocked,
                    Some(Blocked::Network | Blocked::Pause | Blocked::Backoff)
                );
                ensure!(idle || peer.failed || dials || waits, "{id}: {why:?}");
            }
            match state {
                PeerState::Disconnected => peers.disconnected += 1,
                PeerState::Connecting => peers.connecting += 1,
                PeerState::Connected => peers.connected += 1,
                PeerState::Reconnecting => peers.reconnecting += 1,
                PeerState::Failed => peers.failed += 1,
            }
        }
        let mut breakers = BreakerCounts::default();
        for breaker in self.breakers.values() {
            match breaker.state {
                State::Closed => breakers.closed += 1,
                State::Open { .. } => breakers.open += 1,
                State::HalfOpen => breakers.half_open += 1,
                State::ForcedOpen => breakers.forced_open += 1,
                State::Disabled => breakers.disabled += 1,
            }
        }
        self.compare_stats(manager, peers, breakers)
    }

    /// Of those who are up behind the breaker, the doubted, and all.
    fn crowd(&self, breaker: BreakerId) -> (u32, u32) {
        let up = |conn: &&Conn| conn.stage == Stage::Up && conn.breaker == Some(breaker);
        let count = |n: usize| u32::try_from(n).unwrap();
        let doubted = self.conns.values().filter(up).filter(|conn| conn.doubted).count();
        (count(doubted), count(self.conns.values().filter(up).count()))
    }

    fn is_mass(&self, breaker: BreakerId) -> bool {
        let guard = self.config.mass_guard.unwrap();
        let (doubted, up) = self.crowd(breaker);
        let share = guard.share.of(u64::from(up)).max(u64::from(guard.min_silent));
        up >= guard.min_peers && u64::from(doubted) > share
    }

    /// Marks those whom the manager may be waiting for because many are silent.
    fn watch_crowds(&mut self) {
        let doubted = self.conns.iter().filter(|(_, conn)| conn.doubted);
        let amid_many = |conn: &Conn| conn.breaker.is_some_and(|breaker| self.is_mass(breaker));
        let marked: Vec<ConnId> =
            doubted.filter(|(_, conn)| amid_many(conn)).map(|(id, _)| *id).collect();
        for id in marked {
            self.conns.get_mut(&id).unwrap().amid_many = true;
        }
    }

    /// Nobody who is silent is forgotten: a quarter longer for our own sake, and as long again if
    /// many are silent.
    fn check_silences(&self) -> Verdict {
        for (id, conn) in self.conns.iter().filter(|(_, conn)| conn.stage == Stage::Up) {
            let health = self.profile(&self.peers[&conn.peer]).health;
            let (Signs::Heartbeats, Detector::Deadline(span)) = (health.signs, health.detector)
            else {
                continue;
            };
            let from = conn.last_heard.max(self.up_at);
            let end = (from + span + span / 4).max(self.hold_until) + span;
            let judged = conn.suspected || self.down || self.now < end;
            ensure!(judged, "{id} should have been suspected at {end}");
        }
        Ok(())
    }

    fn compare_stats(
        &self,
        manager: &Manager,
        peers: PeerCounts,
        breakers: BreakerCounts,
    ) -> Verdict {
        let stats = manager.stats();
        ensure!(stats.peers == peers, "{:?}, counted {peers:?}", stats.peers);
        ensure!(stats.breakers == breakers, "{:?}, counted {breakers:?}", stats.breakers);
        let dialing = self.conns.values().filter(|conn| conn.stage == Stage::Dialing).count();
        ensure!(stats.dials_in_flight as usize == dialing, "{dialing} dials in flight");
        for (id, conn) in self.conns.iter().filter(|(_, conn)| conn.stage != Stage::Dead) {
            let peer = self.peers.get(&conn.peer);
            let held = peer.is_some_and(|peer| [peer.conn, peer.beside].contains(&Some(*id)));
            ensure!(held, "{id} is nobody's");
        }
        let told = Counted {
            dials: stats.dials,
            succeeded: stats.dials_succeeded,
            cancelled: stats.dials_cancelled,
            adopted: stats.adopted,
            refused: stats.refused,
            resumed: stats.sessions_resumed,
            sessions_lost: stats.sessions_lost,
            given_up: stats.given_up,
            suspected: stats.suspected,
            cleared: stats.cleared,
            doubted: stats.doubted,
            mass_suspicions: stats.mass_suspicions,
            self_doubts: stats.self_doubts,
            pings: stats.pings,
            pongs: stats.pongs,
            stale: stats.stale,
            ignored: stats.ignored,
            backwards: stats.clock_backwards,
            slept: stats.slept,
            common_refusals: stats.common_refusals,
            failures: stats.dial_failures,
            losses: stats.losses,
            go_aways: stats.go_aways,
            moves: stats.moves,
        };
        ensure!(told == self.counted, "stats {told:?}, counted {:?}", self.counted);
        Ok(())
    }
}

fn is_suspicion(action: &Action, of: ConnId) -> bool {
    matches!(action, Action::Notice(Notice::Suspected { conn, .. }) if *conn == of)
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

fn of_failure(counts: &mut DialFailures, cause: DialCause) -> &mut u64 {
    match cause {
        DialCause::Refused => &mut counts.refused,
        DialCause::Timeout => &mut counts.timeout,
        DialCause::Unreachable => &mut counts.unreachable,
        DialCause::Resolve => &mut counts.resolve,
        DialCause::Tls => &mut counts.tls,
        DialCause::Throttled => &mut counts.throttled,
        DialCause::Auth => &mut counts.auth,
        DialCause::Incompatible => &mut counts.incompatible,
        DialCause::NotFound => &mut counts.not_found,
        DialCause::Local => &mut counts.local,
        _ => &mut counts.cancelled,
    }
}

fn of_move(counts: &mut Moves, cause: MoveCause) -> &mut u64 {
    match cause {
        MoveCause::FailedBack => &mut counts.failed_back,
        MoveCause::Drained => &mut counts.drained,
        MoveCause::Raced => &mut counts.raced,
    }
}

fn of_loss(counts: &mut Losses, cause: LossCause) -> &mut u64 {
    match cause {
        LossCause::Eof => &mut counts.eof,
        LossCause::Reset => &mut counts.reset,
        LossCause::Replaced => &mut counts.replaced,
        LossCause::Kicked => &mut counts.kicked,
        LossCause::Protocol => &mut counts.protocol,
        LossCause::Suspected => &mut counts.suspected,
        _ => &mut counts.local,
    }
}
