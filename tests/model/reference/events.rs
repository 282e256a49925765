//! What events mean.

use std::collections::BTreeSet;
use std::time::Duration;

use steadfast::breaker::State;
use steadfast::config::{FirstRetry, Signs};
use steadfast::limit::{Limit, Sample};
use steadfast::{
    BreakerId, ConnId, DialCause, DialFailures, Endpoint, EndpointId, Event, LossCause, Losses,
    PeerState, Time,
};

use crate::reference::{Breaker, Model, Peer, Permit, Stage, Wait, kind, window_policy};

impl Model {
    /// Whether the event means something; if so, its consequences.
    pub(super) fn take_event(&mut self, event: &Event) -> bool {
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

    pub(super) fn stand_still(&mut self) {
        if !self.down {
            (self.down, self.down_at) = (true, self.now);
        }
    }

    pub(super) fn go_on(&mut self) {
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

    pub(super) fn renew(&mut self) {
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

    pub(super) fn endpoints_behind(&self, breaker: BreakerId) -> usize {
        let all = self.peers.values().flat_map(|peer| &peer.endpoints);
        all.filter(|endpoint| endpoint.breaker == breaker).count()
    }

    pub(super) fn are_valid(&self, endpoints: &[Endpoint]) -> bool {
        let ids: BTreeSet<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id).collect();
        ids.len() == endpoints.len()
            && ids.len() <= self.config.limits.max_endpoints as usize
            && endpoints.iter().all(|endpoint| self.breakers.contains_key(&endpoint.breaker))
    }

    pub(super) fn order(&mut self, breaker: BreakerId, to: State) -> bool {
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

    pub(super) fn come_up(&mut self, conn: ConnId) {
        let now = self.now;
        let record = self.conns.get_mut(&conn).unwrap();
        record.stage = Stage::Up;
        (record.since, record.last_heard) = (now, now);
        let peer = self.peers.get_mut(&record.peer).unwrap();
        peer.session_until = Time::ZERO;
        (peer.coming_back, peer.own_failures) = (false, 0);
    }

    pub(super) fn hear(&mut self, conn: ConnId) {
        let record = self.conns.get_mut(&conn).unwrap();
        record.last_heard = self.now;
        record.heard = true;
        record.ping = None;
    }

    /// A dial is over: `Some(true)` well, `Some(false)` badly, `None` as if it had not been.
    pub(super) fn dial_ended(&mut self, id: ConnId, outcome: Option<bool>) {
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
    pub(super) fn learn_pace(&mut self, id: ConnId, outcome: Option<bool>) {
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

    pub(super) fn fail(&mut self, id: ConnId, cause: DialCause, hint: Option<Duration>) {
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

    pub(super) fn lose(&mut self, id: ConnId, cause: LossCause) {
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
