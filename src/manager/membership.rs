//! Peers, endpoints and breakers come and go; what the driver wants of them.

use alloc::vec::Vec;

use crate::action::{Ignored, PeerCause, PeerState};
use crate::breaker::Breaker;
use crate::bucket::Bucket;
use crate::event::Endpoint;
use crate::id::{BreakerId, BreakerProfileId, EndpointId, PeerId, PeerProfileId};
use crate::limit::Limit;
use crate::manager::Manager;
use crate::manager::breakers::BreakerRecord;
use crate::manager::calls::{DOOMED, bound_for, waiting_for};
use crate::manager::crowd::Crowd;
use crate::manager::endpoints::{EndpointRecord, Past};
use crate::manager::out::Out;
use crate::manager::peers::{NONE, Peer, Phase};
use crate::manager::refusals::Refusals;
use crate::mutant::Mutant;
use crate::time::Time;
use crate::window::Recent;

/// An endpoint that is taken away, with what is remembered of it.
type Known = (EndpointRecord, Past);

impl Manager {
    pub(crate) fn on_add_breaker(
        &mut self,
        id: BreakerId,
        profile: BreakerProfileId,
        out: &mut Out<'_>,
    ) {
        if self.breakers.find(id).is_some() {
            return self.ignore(Ignored::BreakerExists(id), out);
        }
        let Some(policy) = self.policies.breakers.get(usize::from(profile.0)) else {
            return self.ignore(Ignored::UnknownBreakerProfile(id), out);
        };
        if self.breakers.slab.len() >= self.policies.config.limits.max_breakers {
            return self.ignore(Ignored::TooMany, out);
        }
        let mut breaker = Breaker::new(&policy.normal, self.now);
        breaker.watch_only(policy.watch_only);
        let state = breaker.state();
        *self.stats.breakers.of(state) += 1;
        self.breakers.insert(BreakerRecord {
            id,
            profile: profile.0,
            breaker,
            in_flight: 0,
            dial_ns: 0,
            window: policy.window.as_ref().map(Limit::new),
            bucket: policy.rate.as_ref().map(|rate| Bucket::full(rate, self.now)),
            refusals: Refusals::default(),
            crowd: Crowd::default(),
            losses: Recent::default(),
            endpoints: 0,
            calls: 0,
            gates: None,
            tickets: 0,
        });
        if let Some(group) = self.group_of(profile.0) {
            group.join(state);
        }
    }

    pub(crate) fn on_remove_breaker(&mut self, id: BreakerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_breaker(id, out) else { return };
        let record = &self.breakers.slab[slot];
        let (profile, state) = (record.profile, record.breaker.state());
        if record.endpoints > 0 || record.calls > 0 {
            return self.ignore(Ignored::BreakerInUse(id), out);
        }
        self.disarm_breaker(slot);
        *self.stats.breakers.of(state) -= 1;
        if let Some(group) = self.group_of(profile) {
            group.leave(state);
        }
        self.breakers.remove(slot);
    }

    pub(crate) fn on_add_peer(
        &mut self,
        id: PeerId,
        profile: PeerProfileId,
        endpoints: &[Endpoint],
        out: &mut Out<'_>,
    ) {
        if self.peers.find(id).is_some() {
            return self.ignore(Ignored::PeerExists(id), out);
        }
        if usize::from(profile.0) >= self.policies.peers.len() {
            return self.ignore(Ignored::UnknownPeerProfile(id), out);
        }
        if self.peers.slab.len() >= self.policies.config.limits.max_peers {
            return self.ignore(Ignored::TooMany, out);
        }
        if let Err(reason) = self.check_endpoints(id, endpoints) {
            return self.ignore(reason, out);
        }
        *self.stats.peers.of(PeerState::Disconnected) += 1;
        let slot = self.peers.insert(Peer {
            id,
            profile: profile.0,
            wanted: false,
            coming_back: false,
            slow_lane: false,
            timed_out: false,
            degraded: false,
            told: PeerState::Disconnected,
            phase: Phase::Idle,
            since: self.now,
            without_since: self.now,
            offline_before: self.network.offline_ns(self.now),
            connected_at: Time::ZERO,
            session_until: Time::ZERO,
            backoff_draws: 0,
            retry_draws: 0,
            first_endpoint: NONE,
            last_endpoint: NONE,
        });
        self.attach_endpoints(slot, endpoints, &[]);
    }

    /// Why these endpoints cannot be a peer's, if so.
    fn check_endpoints(&self, peer: PeerId, endpoints: &[Endpoint]) -> Result<(), Ignored> {
        if endpoints.len() > self.policies.config.limits.max_endpoints as usize {
            return Err(Ignored::TooMany);
        }
        for (place, endpoint) in endpoints.iter().enumerate() {
            if self.breakers.find(endpoint.breaker).is_none() {
                return Err(Ignored::UnknownBreaker(endpoint.breaker));
            }
            if endpoints.iter().take(place).any(|earlier| earlier.id == endpoint.id) {
                return Err(Ignored::DuplicateEndpoint(peer));
            }
        }
        Ok(())
    }

    /// Builds the peer's chain of endpoints; those that were known (`memory`) keep what they know.
    fn attach_endpoints(&mut self, peer: u32, endpoints: &[Endpoint], memory: &[Known]) {
        let (mut next, several) = (NONE, endpoints.len() > 1);
        for endpoint in endpoints.iter().rev() {
            let Some(breaker) = self.breakers.find(endpoint.breaker) else { continue };
            let known = memory
                .iter()
                .find(|(known, _)| (known.id, known.breaker) == (endpoint.id, breaker));
            let fresh = EndpointRecord {
                id: endpoint.id,
                peer,
                breaker,
                next,
                tried: false,
                failures: 0,
                hasty: 0,
                ticket: 0,
                several,
            };
            let record =
                known.map_or(fresh, |(known, _)| EndpointRecord { next, several, ..*known });
            self.breakers.slab[breaker].endpoints += 1;
            next = self.endpoints.slab.insert(record);
            if let Some((_, past)) = known {
                self.endpoints.pasts.set(next, past.clone());
            }
        }
        self.peers.slab[peer].first_endpoint = next;
    }

    /// Takes the peer's endpoints away and returns them.
    fn detach_endpoints(&mut self, peer: u32) -> Vec<Known> {
        let first = self.peers.slab[peer].first_endpoint;
        let slots: Vec<u32> = self.endpoints.chain(first).map(|(slot, _)| slot).collect();
        let mut records = Vec::with_capacity(slots.len());
        for slot in slots {
            self.leave_line(slot);
            let Some(record) = self.endpoints.slab.remove(slot) else { continue };
            self.breakers.slab[record.breaker].endpoints -= 1;
            self.refresh_ring(record.breaker);
            records.push((record, self.endpoints.pasts.take(slot)));
        }
        self.peers.slab[peer].first_endpoint = NONE;
        self.peers.slab[peer].last_endpoint = NONE;
        records
    }

    pub(crate) fn on_set_endpoints(
        &mut self,
        id: PeerId,
        endpoints: &[Endpoint],
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.find_peer(id, out) else { return };
        let refusal = if endpoints.is_empty() {
            Err(Ignored::NoEndpoints(id))
        } else {
            self.check_endpoints(id, endpoints)
        };
        if let Err(reason) = refusal {
            return self.ignore(reason, out);
        }
        // What it is doing refers to endpoints by their slots: by name it survives the exchange.
        let phase = self.peers.slab[slot].phase;
        let conns =
            [self.conn_of(slot), self.replacing_dial(slot)].map(|conn| conn.unwrap_or(NONE));
        let used = conns.map(|conn| self.endpoint_names(conn));
        let keeps = used.map(|used| {
            used.is_some_and(|(id, breaker)| {
                endpoints
                    .iter()
                    .any(|kept| kept.id == id && self.breakers.find(kept.breaker) == Some(breaker))
            })
        });
        // A dial holds a place behind its breaker: let go of it before the endpoint goes.
        let [own, replacing] = conns;
        let dials = matches!(phase, Phase::Dialing { .. });
        if dials && !keeps[0] {
            self.cancel_dial(own, out);
        }
        if replacing != NONE && !keeps[1] {
            self.cancel_replacing_dial(slot, out);
        }
        self.stand_aside(slot);
        let up = matches!(phase, Phase::Up { .. }).then_some(own);
        if let Some(up) = up {
            let conn = &self.conns.slab[up];
            self.leave_crowd(conn.endpoint, conn.trust());
        }
        let memory = self.detach_endpoints(slot);
        self.attach_endpoints(slot, endpoints, &memory);
        for ((conn, used), keeps) in conns.into_iter().zip(used).zip(keeps) {
            let first = self.peers.slab[slot].first_endpoint;
            let successor = used.filter(|_| keeps).and_then(|used| {
                let mut chain = self.endpoints.chain(first);
                chain.find(|(_, record)| (record.id, record.breaker) == used)
            });
            let successor = successor.map_or(NONE, |(slot, _)| slot);
            if let Some(conn) = self.conns.slab.get_mut(conn) {
                conn.endpoint = successor;
            }
            if conn == own {
                self.peers.slab[slot].last_endpoint = successor;
            }
        }
        if let Some(up) = up {
            self.join_crowd(up);
        }
        match phase {
            Phase::Waiting if Mutant::ForgottenWaiter.lives() => {}
            Phase::Waiting => self.enqueue(slot, PeerCause::Asked, out),
            Phase::Dialing { .. } if !keeps[0] => self.enqueue(slot, PeerCause::Asked, out),
            Phase::Up { .. } => {
                self.plan_failback(slot);
                self.arm_peer(slot);
            }
            _ => {}
        }
    }

    /// The endpoint that the connection leads to, by the names that survive an exchange.
    fn endpoint_names(&self, conn: u32) -> Option<(EndpointId, u32)> {
        let endpoint = self.conns.slab.get(conn)?.endpoint;
        self.endpoints.slab.get(endpoint).map(|record| (record.id, record.breaker))
    }

    pub(crate) fn on_remove_peer(&mut self, id: PeerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_peer(id, out) else { return };
        self.let_go(slot, out);
        for list in [waiting_for(slot), bound_for(slot)] {
            self.calls.places.splice(list, DOOMED);
        }
        self.forget_measurements(slot);
        self.detach_endpoints(slot);
        if !Mutant::StatsDrift.lives() {
            *self.stats.peers.of(PeerState::Disconnected) -= 1;
        }
        self.peers.remove(slot);
    }

    pub(crate) fn on_connect(&mut self, id: PeerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_peer(id, out) else { return };
        let peer = &mut self.peers.slab[slot];
        if peer.first_endpoint == NONE {
            return self.ignore(Ignored::NoEndpoints(id), out);
        }
        match peer.phase {
            Phase::Idle | Phase::Failed => {
                peer.wanted = true;
                peer.coming_back = false;
                peer.without_since = self.now;
                peer.offline_before = self.network.offline_ns(self.now);
                self.forget_failures(slot);
                self.enqueue(slot, PeerCause::Asked, out);
            }
            Phase::Up { .. } if !peer.wanted => peer.wanted = true,
            _ => self.ignore(Ignored::AlreadySo, out),
        }
    }

    pub(crate) fn on_disconnect(&mut self, id: PeerId, out: &mut Out<'_>) {
        let Some(slot) = self.find_peer(id, out) else { return };
        if self.peers.slab[slot].phase == Phase::Idle {
            return self.ignore(Ignored::AlreadySo, out);
        }
        self.let_go(slot, out);
    }

    /// Ends whatever the peer is doing; it is then idle and not wanted.
    fn let_go(&mut self, slot: u32, out: &mut Out<'_>) {
        self.drop_replacement(slot, out);
        match self.peers.slab[slot].phase {
            Phase::Dialing { conn } => self.cancel_dial(conn, out),
            Phase::Up { conn } => {
                self.close(conn, out);
                self.drop_conn(conn);
            }
            Phase::Idle | Phase::Failed | Phase::BackingOff { .. } | Phase::Waiting => {}
        }
        let peer = &mut self.peers.slab[slot];
        peer.wanted = false;
        peer.coming_back = false;
        peer.session_until = Time::ZERO;
        self.forget_failures(slot);
        self.enter(slot, Phase::Idle, PeerCause::Asked, out);
    }

    /// The peer's dial or connection.
    pub(crate) fn conn_of(&self, peer: u32) -> Option<u32> {
        match self.peers.slab[peer].phase {
            Phase::Dialing { conn } | Phase::Up { conn } => Some(conn),
            Phase::Idle | Phase::Failed | Phase::BackingOff { .. } | Phase::Waiting => None,
        }
    }
}
