//! The whole state as plain data, and back.
//!
//! The types here mirror the tables and change only with [`VERSION`]. Restoring trusts nothing: each
//! index is checked before it is followed, and at the end the state must satisfy every invariant. What
//! may be absent must say so: a field that is missing is damage, not `None`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::action::PeerState;
use crate::breaker::Breaker;
use crate::bucket::Bucket;
use crate::config::{Config, DetectorPolicy, Policies};
use crate::container::list::Lists;
use crate::container::slab::Slab;
use crate::container::timers::{Timer, TimerKind};
use crate::digest::Digest;
use crate::error::ConfigError;
use crate::id::{BreakerId, ConnId, EndpointId, MAX_GENERATION, PeerId, PingId};
use crate::manager::Manager;
use crate::manager::breakers::{BreakerRecord, RING};
use crate::manager::conns::{Conn, ConnPhase, LIVE, ORPHANS};
use crate::manager::endpoints::{DISPLACED, EndpointRecord, queue};
use crate::manager::environment::{Load, Network, Sleep};
use crate::manager::peers::{BACKING_OFF, FAILED, NONE, Peer, Phase, WOKEN};
use crate::phi::Phi;
use crate::probe::Probe;
use crate::stats::Stats;
use crate::time::{Time, nanos};
use crate::window::Recent;

/// The version of the snapshots that this crate writes and reads.
const VERSION: u32 = 1;
/// More numbers than anybody can use up, with room to go on.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// A manager at rest: store it, send it, and [`restore`](Manager::restore) it.
///
/// Its content is for machines: with the feature `serde` it can be written in any format.
#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Snapshot {
    version: u32,
    config: Config,
    now: Time,
    run: u64,
    woke_at: Time,
    hold_until: Time,
    network: NetworkMirror,
    load: u32,
    relaxed: bool,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pacer: Option<Bucket>,
    pacer_blocked: bool,
    process: u32,
    peers: Table<PeerMirror>,
    endpoints: Table<EndpointMirror>,
    conns: Table<ConnMirror>,
    generations: Vec<u64>,
    pings: Vec<u64>,
    breakers: Table<BreakerMirror>,
    lists: ListsMirror,
    timers: Vec<Timer>,
    next_sequence: u64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    stats: Option<Stats>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct NetworkMirror {
    down: bool,
    down_at: Time,
    up_at: Time,
    epoch: u32,
}

/// Slots, and the free ones in the order of their release.
#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Table<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

/// The members of each list, in order.
#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct ListsMirror {
    backing_off: Vec<u32>,
    woken: Vec<u32>,
    failed: Vec<u32>,
    live: Vec<u32>,
    orphans: Vec<u32>,
    displaced: Vec<u32>,
    ring: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct PeerMirror {
    id: PeerId,
    profile: u16,
    wanted: bool,
    coming_back: bool,
    slow_lane: bool,
    timed_out: bool,
    degraded: bool,
    told: PeerState,
    phase: Phase,
    since: Time,
    failures: u32,
    epoch: u32,
    previous_delay: Duration,
    without_since: Time,
    connected_at: Time,
    session_until: Time,
    backoff_draws: u32,
    retry_draws: u32,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    first_endpoint: Option<u32>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    last_endpoint: Option<u32>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    measured: Option<(u64, u32)>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct EndpointMirror {
    id: EndpointId,
    peer: u32,
    breaker: u32,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    next: Option<u32>,
    tried: bool,
    failures: u32,
    failed_at: Time,
    ticket: u64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    rhythm: Option<Phi>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct ConnMirror {
    id: ConnId,
    last_heard: Time,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    last_beat: Option<Time>,
    peer: u32,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    endpoint: Option<u32>,
    process: u32,
    heard: bool,
    attentive: bool,
    phase: ConnPhase,
    since: Time,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    suspected_at: Option<Time>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    rhythm: Option<Phi>,
    probe: Probe,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    ping: Option<PingId>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct BreakerMirror {
    id: BreakerId,
    profile: u16,
    breaker: Breaker,
    in_flight: u32,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    bucket: Option<Bucket>,
    losses: Recent,
    endpoints: u32,
    alternatives: u32,
    tickets: u64,
    queue: Vec<u32>,
}

/// Why a snapshot is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// It was written by another version, whose state means something else.
    Version {
        /// The version it carries.
        found: u32,
        /// The version this crate reads.
        expected: u32,
    },
    /// Its configuration is refused.
    Config(ConfigError),
    /// It holds a state that no manager can be in.
    Damaged {
        /// Where.
        place: String,
        /// What is wrong there.
        problem: String,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found, expected } => {
                write!(f, "the snapshot is of version {found}; this crate reads version {expected}")
            }
            Self::Config(error) => write!(f, "the snapshot's configuration: {error}"),
            Self::Damaged { place, problem } => {
                write!(f, "the snapshot is damaged at {place}: {problem}")
            }
        }
    }
}

impl core::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Version { .. } | Self::Damaged { .. } => None,
        }
    }
}

fn damaged(place: impl Into<String>, problem: impl Into<String>) -> RestoreError {
    RestoreError::Damaged { place: place.into(), problem: problem.into() }
}

/// # Snapshots
impl Manager {
    /// The whole state as plain data. O(n).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        let list = |lists: &Lists, anchor: u32| lists.iter(anchor).collect();
        let mut timers: Vec<Timer> = self.timers.iter().copied().collect();
        timers.sort_unstable();
        Snapshot {
            version: VERSION,
            config: self.policies.config.clone(),
            now: self.now,
            run: self.run.value(),
            woke_at: self.sleep.woke_at,
            hold_until: self.sleep.hold_until,
            network: NetworkMirror {
                down: self.network.down,
                down_at: self.network.down_at,
                up_at: self.network.up_at,
                epoch: self.network.epoch,
            },
            load: self.load.smoothed,
            relaxed: self.load.relaxed,
            pacer: self.pacer.bucket,
            pacer_blocked: self.pacer.blocked,
            process: self.conns.process,
            peers: table(&self.peers.slab, |_, peer| PeerMirror {
                id: peer.id,
                profile: peer.profile,
                wanted: peer.wanted,
                coming_back: peer.coming_back,
                slow_lane: peer.slow_lane,
                timed_out: peer.timed_out,
                degraded: peer.degraded,
                told: peer.told,
                phase: peer.phase,
                since: peer.since,
                failures: peer.failures,
                epoch: peer.epoch,
                previous_delay: peer.previous_delay,
                without_since: peer.without_since,
                connected_at: peer.connected_at,
                session_until: peer.session_until,
                backoff_draws: peer.backoff_draws,
                retry_draws: peer.retry_draws,
                first_endpoint: some(peer.first_endpoint),
                last_endpoint: some(peer.last_endpoint),
                measured: peer.measured,
            }),
            endpoints: table(&self.endpoints.slab, |_, endpoint| EndpointMirror {
                id: endpoint.id,
                peer: endpoint.peer,
                breaker: endpoint.breaker,
                next: some(endpoint.next),
                tried: endpoint.tried,
                failures: endpoint.failures,
                failed_at: endpoint.failed_at,
                ticket: endpoint.ticket,
                rhythm: endpoint.rhythm,
            }),
            conns: table(&self.conns.slab, |_, conn| ConnMirror {
                id: conn.id,
                last_heard: conn.last_heard,
                last_beat: conn.last_beat,
                peer: conn.peer,
                endpoint: some(conn.endpoint),
                process: conn.process,
                heard: conn.heard,
                attentive: conn.attentive,
                phase: conn.phase,
                since: conn.since,
                suspected_at: conn.suspected_at,
                rhythm: conn.rhythm,
                probe: conn.probe,
                ping: conn.ping,
            }),
            generations: self.conns.generations.clone(),
            pings: self.conns.pings.clone(),
            breakers: table(&self.breakers.slab, |slot, breaker| BreakerMirror {
                id: breaker.id,
                profile: breaker.profile,
                breaker: breaker.breaker.clone(),
                in_flight: breaker.in_flight,
                bucket: breaker.bucket,
                losses: breaker.losses,
                endpoints: breaker.endpoints,
                alternatives: breaker.alternatives,
                tickets: breaker.tickets,
                queue: list(&self.endpoints.queues, queue(slot)),
            }),
            lists: ListsMirror {
                backing_off: list(&self.peers.lists, BACKING_OFF),
                woken: list(&self.peers.lists, WOKEN),
                failed: list(&self.peers.lists, FAILED),
                live: list(&self.conns.lists, LIVE),
                orphans: list(&self.conns.lists, ORPHANS),
                displaced: list(&self.endpoints.queues, DISPLACED),
                ring: list(&self.breakers.ring, RING),
            },
            timers,
            next_sequence: self.timers.sequence(),
            stats: Some(self.stats.clone()),
        }
    }

    /// The manager that the snapshot was taken of: it answers every later event as the original
    /// would have.
    ///
    /// `hash_key` may differ from the original's. A new process then sends
    /// [`Event::Restarted`](crate::Event::Restarted), and its time goes on after the snapshot's.
    /// O(n); memory is bounded by the size of the snapshot.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] for a snapshot of another version, with a refused configuration, or with a
    /// state that no manager can be in, however it came to be.
    pub fn restore(snapshot: Snapshot, hash_key: u64) -> Result<Self, RestoreError> {
        if snapshot.version != VERSION {
            return Err(RestoreError::Version { found: snapshot.version, expected: VERSION });
        }
        snapshot.check_places()?;
        let mut manager = Self::new(snapshot.config, hash_key).map_err(RestoreError::Config)?;
        let slot_of = |slot: Option<u32>| slot.unwrap_or(NONE);
        manager.now = snapshot.now;
        manager.run = Digest::resume(snapshot.run);
        manager.sleep = Sleep { woke_at: snapshot.woke_at, hold_until: snapshot.hold_until };
        manager.network = Network {
            down: snapshot.network.down,
            down_at: snapshot.network.down_at,
            up_at: snapshot.network.up_at,
            epoch: snapshot.network.epoch,
        };
        manager.load = Load { smoothed: snapshot.load, relaxed: snapshot.relaxed };
        manager.pacer.bucket = snapshot.pacer;
        manager.pacer.blocked = snapshot.pacer_blocked;
        manager.stats = snapshot.stats.ok_or_else(|| damaged("stats", "missing"))?;

        let queues: Vec<Vec<u32>> = snapshot
            .breakers
            .slots
            .iter()
            .map(|entry| entry.as_ref().map(|breaker| breaker.queue.clone()).unwrap_or_default())
            .collect();
        manager.breakers.slab = rebuild("breakers", snapshot.breakers, |breaker| BreakerRecord {
            id: breaker.id,
            profile: breaker.profile,
            breaker: breaker.breaker,
            in_flight: breaker.in_flight,
            bucket: breaker.bucket,
            losses: breaker.losses,
            endpoints: breaker.endpoints,
            alternatives: breaker.alternatives,
            tickets: breaker.tickets,
        })?;
        manager.peers.slab = rebuild("peers", snapshot.peers, |peer| Peer {
            id: peer.id,
            profile: peer.profile,
            wanted: peer.wanted,
            coming_back: peer.coming_back,
            slow_lane: peer.slow_lane,
            timed_out: peer.timed_out,
            degraded: peer.degraded,
            told: peer.told,
            phase: peer.phase,
            since: peer.since,
            failures: peer.failures,
            epoch: peer.epoch,
            previous_delay: peer.previous_delay,
            without_since: peer.without_since,
            connected_at: peer.connected_at,
            session_until: peer.session_until,
            backoff_draws: peer.backoff_draws,
            retry_draws: peer.retry_draws,
            first_endpoint: slot_of(peer.first_endpoint),
            last_endpoint: slot_of(peer.last_endpoint),
            measured: peer.measured,
        })?;
        manager.endpoints.slab =
            rebuild("endpoints", snapshot.endpoints, |endpoint| EndpointRecord {
                id: endpoint.id,
                peer: endpoint.peer,
                breaker: endpoint.breaker,
                next: slot_of(endpoint.next),
                tried: endpoint.tried,
                failures: endpoint.failures,
                failed_at: endpoint.failed_at,
                ticket: endpoint.ticket,
                rhythm: endpoint.rhythm,
            })?;
        manager.conns.slab = rebuild("conns", snapshot.conns, |conn| Conn {
            id: conn.id,
            last_heard: conn.last_heard,
            last_beat: conn.last_beat,
            peer: conn.peer,
            endpoint: slot_of(conn.endpoint),
            process: conn.process,
            heard: conn.heard,
            attentive: conn.attentive,
            phase: conn.phase,
            since: conn.since,
            suspected_at: conn.suspected_at,
            rhythm: conn.rhythm,
            probe: conn.probe,
            ping: conn.ping,
        })?;
        manager.conns.generations = snapshot.generations;
        manager.conns.pings = snapshot.pings;
        manager.conns.process = snapshot.process;

        let lists = &snapshot.lists;
        fill(&mut manager.peers.lists, BACKING_OFF, &lists.backing_off, "lists.backing_off")?;
        fill(&mut manager.peers.lists, WOKEN, &lists.woken, "lists.woken")?;
        fill(&mut manager.peers.lists, FAILED, &lists.failed, "lists.failed")?;
        fill(&mut manager.conns.lists, LIVE, &lists.live, "lists.live")?;
        fill(&mut manager.conns.lists, ORPHANS, &lists.orphans, "lists.orphans")?;
        fill(&mut manager.breakers.ring, RING, &lists.ring, "lists.ring")?;
        fill(&mut manager.endpoints.queues, DISPLACED, &lists.displaced, "lists.displaced")?;
        for (slot, members) in (0..).zip(&queues) {
            let place = format!("breakers[{slot}].queue");
            fill(&mut manager.endpoints.queues, queue(slot), members, &place)?;
        }
        for (place, timer) in snapshot.timers.iter().enumerate() {
            if !manager.timers.restore(*timer) {
                return Err(damaged(format!("timers[{place}]"), "armed twice"));
            }
        }
        if manager.timers.sequence() > snapshot.next_sequence {
            return Err(damaged("next_sequence", "less than a timer's"));
        }
        manager.timers.set_sequence(snapshot.next_sequence);
        manager.timers.stop(manager.network.down);
        manager.index_ids()?;
        manager.check().map_err(|violation| damaged(violation.place(), violation.to_string()))?;
        Ok(manager)
    }

    /// Builds the id tables anew; two records of one id are refused.
    fn index_ids(&mut self) -> Result<(), RestoreError> {
        let peers: Vec<(u32, PeerId)> =
            self.peers.slab.iter().map(|(slot, peer)| (slot, peer.id)).collect();
        for (slot, id) in peers {
            if self.peers.find(id).is_some() {
                return Err(damaged(format!("peers[{slot}].id"), format!("{id} twice")));
            }
            let slab = &self.peers.slab;
            self.peers.map.insert(id.0, slot, |slot| slab[slot].id.0);
        }
        let breakers: Vec<(u32, BreakerId)> =
            self.breakers.slab.iter().map(|(slot, breaker)| (slot, breaker.id)).collect();
        for (slot, id) in breakers {
            if self.breakers.find(id).is_some() {
                return Err(damaged(format!("breakers[{slot}].id"), format!("{id} twice")));
            }
            let slab = &self.breakers.slab;
            self.breakers.map.insert(id.0, slot, |slot| slab[slot].id.0);
        }
        Ok(())
    }
}

fn table<T, M>(slab: &Slab<T>, mirror: impl Fn(u32, &T) -> M) -> Table<M> {
    let (slots, free) = slab.parts();
    let slots = (0..).zip(slots).map(|(slot, entry)| entry.as_ref().map(|t| mirror(slot, t)));
    Table { slots: slots.collect(), free: free.to_vec() }
}

fn rebuild<T, M>(
    name: &str,
    table: Table<M>,
    record: impl Fn(M) -> T,
) -> Result<Slab<T>, RestoreError> {
    let slots = table.slots.into_iter().map(|entry| entry.map(&record)).collect();
    Slab::from_parts(slots, table.free)
        .ok_or_else(|| damaged(format!("{name}.free"), "does not name empty slots, each once"))
}

fn fill(lists: &mut Lists, anchor: u32, nodes: &[u32], place: &str) -> Result<(), RestoreError> {
    for (index, &node) in nodes.iter().enumerate() {
        if lists.is_linked(node) {
            return Err(damaged(
                format!("{place}[{index}]"),
                format!("{node} is on a list already"),
            ));
        }
        lists.push_back(anchor, node);
    }
    Ok(())
}

impl<T> Table<T> {
    fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }
}

/// # Validation
impl Snapshot {
    /// Checks everything that the tables take for granted: slots that are followed are in use,
    /// profiles exist, leaves are in states that they can be in.
    fn check_places(&self) -> Result<(), RestoreError> {
        let policies = Policies::new(&self.config).map_err(RestoreError::Config)?;
        let held = |ok: bool, place: &dyn Fn() -> String, problem: &str| {
            if ok { Ok(()) } else { Err(damaged(place(), problem)) }
        };
        let pacer = match (&self.pacer, &policies.pacer_rate) {
            (None, None) => true,
            (Some(bucket), Some(rate)) => bucket.is_valid(rate),
            _ => false,
        };
        held(pacer, &|| "pacer".into(), "does not fit pacer.rate")?;
        held(self.load <= 1_000_000, &|| "load".into(), "more than 1,000,000")?;
        held(self.next_sequence <= MAX_NUMBER, &|| "next_sequence".into(), "no room to go on")?;
        let stats = self.stats.as_ref().is_none_or(Stats::is_valid);
        held(stats, &|| "stats".into(), "no room to go on counting")?;

        for (slot, breaker) in self.breakers.iter() {
            let at = |field: &'static str| move || format!("breakers[{slot}].{field}");
            let Some(policy) = policies.breakers.get(usize::from(breaker.profile)) else {
                return Err(damaged(at("profile")(), "no such profile"));
            };
            // Not under the relaxed one: the two differ in thresholds, which no state depends on.
            held(breaker.breaker.is_valid(&policy.normal), &at("breaker"), "impossible state")?;
            let bucket = match (&breaker.bucket, &policy.rate) {
                (None, None) => true,
                (Some(bucket), Some(rate)) => bucket.is_valid(rate),
                _ => false,
            };
            held(bucket, &at("bucket"), "does not fit the profile's rate")?;
            held(breaker.losses.is_valid(), &at("losses"), "impossible state")?;
            held(breaker.tickets <= MAX_NUMBER, &at("tickets"), "no room to go on")?;
            let known =
                breaker.queue.iter().all(|&endpoint| self.endpoints.get(endpoint).is_some());
            held(known, &at("queue"), "an endpoint that is not there")?;
        }
        for (slot, endpoint) in self.endpoints.iter() {
            let at = |field: &'static str| move || format!("endpoints[{slot}].{field}");
            let Some(peer) = self.peers.get(endpoint.peer) else {
                return Err(damaged(at("peer")(), "not there"));
            };
            held(self.breakers.get(endpoint.breaker).is_some(), &at("breaker"), "not there")?;
            let next = endpoint.next.is_none_or(|next| self.endpoints.get(next).is_some());
            held(next, &at("next"), "not there")?;
            let rhythm = fits(&policies, peer.profile, endpoint.rhythm.as_ref());
            held(rhythm, &at("rhythm"), "impossible state")?;
        }
        for (slot, peer) in self.peers.iter() {
            let at = |field: &'static str| move || format!("peers[{slot}].{field}");
            let known = usize::from(peer.profile) < policies.peers.len();
            held(known, &at("profile"), "no such profile")?;
            let conn = match peer.phase {
                Phase::Dialing { conn } | Phase::Up { conn } => self.conns.get(conn).is_some(),
                _ => true,
            };
            held(conn, &at("phase.conn"), "not there")?;
            let there =
                |slot: Option<u32>| slot.is_none_or(|slot| self.endpoints.get(slot).is_some());
            held(there(peer.first_endpoint), &at("first_endpoint"), "not there")?;
            held(there(peer.last_endpoint), &at("last_endpoint"), "not there")?;
            let loss = peer.measured.is_none_or(|(_, loss)| loss <= 1_000_000);
            held(loss, &at("measured"), "a loss of more than 1,000,000")?;
        }
        for (slot, conn) in self.conns.iter() {
            let at = |field: &'static str| move || format!("conns[{slot}].{field}");
            let Some(peer) = self.peers.get(conn.peer) else {
                return Err(damaged(at("peer")(), "not there"));
            };
            let endpoint = conn.endpoint.is_none_or(|slot| self.endpoints.get(slot).is_some());
            held(endpoint, &at("endpoint"), "not there")?;
            let id = usize::try_from(conn.id.slot()).is_ok_and(|own| own == slot)
                && self.generations.get(slot) == Some(&conn.id.generation());
            held(id, &at("id"), "does not name its slot and generation")?;
            let policy = policies.peers.get(usize::from(peer.profile));
            let watch = policy.and_then(|policy| policy.watch);
            let probe = match watch.and_then(|watch| watch.pings) {
                Some(pings) => conn.probe.is_valid(&pings),
                None => conn.probe == Probe::default(),
            };
            held(probe, &at("probe"), "impossible state")?;
            let rhythm = fits(&policies, peer.profile, conn.rhythm.as_ref());
            held(rhythm, &at("rhythm"), "impossible state")?;
            let ping = conn.ping.is_none_or(|ping| {
                let next = self.pings.get(slot).copied().unwrap_or_default();
                ping.slot() == conn.id.slot() && ping.generation() < next
            });
            held(ping, &at("ping"), "was never sent")?;
        }
        let slots = self.conns.slots.len();
        let counted = self.generations.len() == slots && self.pings.len() == slots;
        held(counted, &|| "generations".into(), "not one for each connection slot")?;
        let bounded = self.generations.iter().all(|&generation| generation <= MAX_GENERATION)
            && self.pings.iter().all(|&pings| pings <= MAX_GENERATION + 1);
        held(bounded, &|| "generations".into(), "past the last one")?;

        let lists = &self.lists;
        for (name, members) in [
            ("backing_off", &lists.backing_off),
            ("woken", &lists.woken),
            ("failed", &lists.failed),
        ] {
            let known = members.iter().all(|&peer| self.peers.get(peer).is_some());
            held(known, &|| format!("lists.{name}"), "a peer that is not there")?;
        }
        for (name, members) in [("live", &lists.live), ("orphans", &lists.orphans)] {
            let known = members.iter().all(|&conn| self.conns.get(conn).is_some());
            held(known, &|| format!("lists.{name}"), "a connection that is not there")?;
        }
        let known = lists.displaced.iter().all(|&slot| self.endpoints.get(slot).is_some());
        held(known, &|| "lists.displaced".into(), "an endpoint that is not there")?;
        let known = lists.ring.iter().all(|&slot| self.breakers.get(slot).is_some());
        held(known, &|| "lists.ring".into(), "a breaker that is not there")?;
        for (place, timer) in self.timers.iter().enumerate() {
            let known = match timer.kind {
                TimerKind::Peer => self.peers.get(timer.slot).is_some(),
                TimerKind::Pace | TimerKind::Breaker => self.breakers.get(timer.slot).is_some(),
                TimerKind::Pacer => timer.slot == 0,
                TimerKind::Conn => self.conns.get(timer.slot).is_some(),
            };
            held(known, &|| format!("timers[{place}].slot"), "not there")?;
        }
        Ok(())
    }

    /// The snapshot with everything taken out that two states of one shape may differ in.
    pub(crate) fn into_shape(mut self) -> Self {
        let now = self.now;
        // What lies ahead keeps its distance; what lies behind keeps its age, under the top bit.
        let relative = |time: &mut Time| {
            *time = match *time {
                Time::MAX => Time::MAX,
                time if time >= now => Time::from_nanos(nanos(time.since(now))),
                time => Time::from_nanos(nanos(now.since(time)) | (1 << 63)),
            };
        };
        self.run = 0;
        self.config.seed = 0;
        for time in [
            &mut self.now,
            &mut self.woke_at,
            &mut self.hold_until,
            &mut self.network.down_at,
            &mut self.network.up_at,
        ] {
            relative(time);
        }
        let (epoch, process) = (self.network.epoch, self.process);
        self.network.epoch = 0;
        self.process = 0;
        self.stats = None;
        self.generations.clear();
        self.pings.clear();
        self.next_sequence = 0;
        self.timers.sort_unstable_by_key(|timer| (timer.deadline, timer.sequence));
        for (rank, timer) in (0..).zip(&mut self.timers) {
            relative(&mut timer.deadline);
            timer.sequence = rank;
        }
        for (slot, entry) in (0..).zip(&mut self.peers.slots) {
            let Some(peer) = entry else { continue };
            peer.id = PeerId(slot);
            peer.failures = if peer.epoch == epoch { peer.failures } else { 0 };
            peer.epoch = 0;
            peer.backoff_draws = 0;
            peer.retry_draws = 0;
            relative(&mut peer.since);
            relative(&mut peer.without_since);
            relative(&mut peer.connected_at);
            relative(&mut peer.session_until);
            if let Phase::BackingOff { until } = &mut peer.phase {
                relative(until);
            }
        }
        for entry in self.endpoints.slots.iter_mut().flatten() {
            entry.ticket = 0;
            relative(&mut entry.failed_at);
        }
        for (slot, entry) in (0..).zip(&mut self.conns.slots) {
            let Some(conn) = entry else { continue };
            conn.id = ConnId::new(slot, 0);
            conn.process = u32::from(conn.process != process);
            conn.ping = conn.ping.map(|_| PingId::new(slot, 0));
            relative(&mut conn.last_heard);
            relative(&mut conn.since);
            conn.last_beat.as_mut().map(relative);
            conn.suspected_at.as_mut().map(relative);
            if let ConnPhase::Dialing { deadline, permit, .. } = &mut conn.phase {
                relative(deadline);
                let endpoint = conn.endpoint.and_then(|slot| self.endpoints.get(slot));
                let breaker = endpoint.and_then(|endpoint| self.breakers.get(endpoint.breaker));
                let current = breaker.map_or(0, |breaker| breaker.breaker.generation());
                *permit = permit.shape(current);
            }
        }
        for (slot, entry) in (0..).zip(&mut self.breakers.slots) {
            let Some(breaker) = entry else { continue };
            breaker.id = BreakerId(slot);
            breaker.tickets = 0;
            breaker.breaker = breaker.breaker.clone().shape(now);
        }
        self
    }
}

fn fits(policies: &Policies, profile: u16, rhythm: Option<&Phi>) -> bool {
    let watch = policies.peers.get(usize::from(profile)).and_then(|policy| policy.watch);
    match (watch.map(|watch| watch.detector), rhythm) {
        (_, None) => true,
        (Some(DetectorPolicy::Phi(policy)), Some(rhythm)) => rhythm.is_valid(&policy),
        _ => false,
    }
}
