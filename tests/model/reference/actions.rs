//! What actions may be given.

use std::time::Duration;

use steadfast::breaker::State;
use steadfast::bucket::BucketConfig;
use steadfast::config::{OnSuspect, Signs};
use steadfast::limit::Limit;
use steadfast::strategy::Step;
use steadfast::{
    Action, BreakerId, ConnId, DialCause, Endpoint, EndpointId, Event, LossCause, Notice,
    PeerCause, PeerId, Time,
};

use crate::reference::{Conn, Model, Peer, Permit, Stage, Verdict};

/// After how long one who waits counts as a class higher.
const AGED: Duration = Duration::from_secs(30);

impl Model {
    pub(super) fn take_action(&mut self, action: &Action, step: &Step, place: usize) -> Verdict {
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

    pub(super) fn new_conn(
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

    pub(super) fn take_dial(
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
    pub(super) fn may_replace(&self, peer: &Peer, replaced: ConnId, to: EndpointId) -> Verdict {
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
    pub(super) fn check_turn(&self, dialed: PeerId, breaker: BreakerId) -> Verdict {
        let own = &self.peers[&dialed];
        let aged = own.waits_since.is_some_and(|since| self.now.since(since) >= AGED);
        // Whoever comes before a higher class by its long wait may come before its own as well.
        let higher = |other: &Peer| self.profile(other).priority < self.profile(own).priority;
        let lifted = aged && self.peers.values().any(|other| other.wanted && higher(other));
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
            let first = theirs == class && !lifted && other.session_until > in_time;
            ensure!(!first || own.session_until > self.now, "{id} has a session to lose");
        }
        Ok(())
    }

    /// In no window that ends now were there more than its burst and its share of the rate.
    pub(super) fn check_rate(&self, rate: &BucketConfig, among: Option<BreakerId>) -> Verdict {
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
    pub(super) fn overdue_probes(&self, id: BreakerId) -> u32 {
        self.count_probes(id, |ends| ends <= self.now)
    }

    pub(super) fn count_probes(&self, id: BreakerId, counts: impl Fn(Time) -> bool) -> u32 {
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
}

fn is_suspicion(action: &Action, of: ConnId) -> bool {
    matches!(action, Action::Notice(Notice::Suspected { conn, .. }) if *conn == of)
}
