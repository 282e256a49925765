//! The whole state as plain data.
//!
//! The types here mirror the tables and change only with [`VERSION`]. Restoring trusts nothing: each
//! index is checked before it is followed (`validate`), and at the end the state must satisfy every
//! invariant (`restore`).

mod restore;
mod shape;
mod validate;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::action::{MoveCause, PeerState};
use crate::breaker::{Breaker, Permit};
use crate::bucket::Bucket;
use crate::config::Config;
use crate::container::list::Lists;
use crate::container::slab::Slab;
use crate::container::timers::Timer;
use crate::error::ConfigError;
use crate::event::CallFailure;
use crate::id::{AttemptId, BreakerId, CallId, ConnId, EndpointId, PeerId, PingId};
use crate::limit::Limit;
use crate::manager::Manager;
use crate::manager::breakers::{BreakerRecord, HELD_BACK, RING};
use crate::manager::calls::{
    self, Attempt, Call, CallPhase, DOOMED, MOVING, RELEASED, bound_for, waiting_for,
};
use crate::manager::conns::{ConnPhase, LIVE, ORPHANS, UNCHECKED, Whole};
use crate::manager::crowd::{Crowd, Trust};
use crate::manager::endpoints::{DISPLACED, EndpointRecord, Endpoints, Past, Wait};
use crate::manager::environment::Network;
use crate::manager::gates::Gates;
use crate::manager::peers::{
    BACKING_OFF, FAILED, NONE, Peer, Peers, Phase, Quality, Succession, Trouble, WOKEN,
};
use crate::manager::pinger::ASKING;
use crate::manager::refusals::Refusals;
use crate::manager::replacements::{Replacement, Stage};
use crate::phi::Phi;
use crate::probe::Probe;
use crate::self_health::SelfHealth;
use crate::stats::Stats;
use crate::time::Time;
use crate::window::Recent;

/// The version of the snapshots that this crate writes and reads.
///
/// 1 knew no calls, 2 no replacements and no doubts about ourselves, 3 had its fields in another
/// order, 4 another form of what stands in line, 5 no hedges among the attempts.
const VERSION: u32 = 6;

/// A manager at rest: store it, send it, and [`restore`](Manager::restore) it.
///
/// Its content is for machines: with the feature `serde` it can be written in any format.
#[derive(Clone, Debug, PartialEq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Snapshot {
    #[cfg_attr(feature = "serde", serde(deserialize_with = "read_version"))]
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
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pinger: Option<Bucket>,
    self_health: SelfHealth,
    told_self_health: u8,
    process: u32,
    peers: Table<PeerMirror>,
    replacements: Table<ReplacementMirror>,
    endpoints: Table<EndpointMirror>,
    conns: Table<ConnMirror>,
    generations: Vec<u64>,
    pings: Vec<u64>,
    breakers: Table<BreakerMirror>,
    calls: Table<CallMirror>,
    attempts: Table<AttemptMirror>,
    attempt_generations: Vec<u64>,
    lists: ListsMirror,
    timers: Vec<Timer>,
    next_sequence: u64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    stats: Option<Stats>,
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
    unchecked: Vec<u32>,
    /// The connections that wait for a ping.
    asking: Vec<u32>,
    displaced: Vec<u32>,
    /// Those who wait for each breaker, by its slot.
    queues: Vec<Vec<u32>>,
    ring: Vec<u32>,
    held_back: Vec<u32>,
    live_calls: Vec<u32>,
    orphan_calls: Vec<u32>,
    released: Vec<u32>,
    doomed: Vec<u32>,
    /// The calls that wait for their peer's connection, those of one peer in order.
    waiting: Vec<u32>,
    /// The other calls to peers, likewise.
    bound: Vec<u32>,
    moving: Vec<u32>,
}

/// Refuses another version before anything else is read: its fields are others.
#[cfg(feature = "serde")]
fn read_version<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<u32, D::Error> {
    let found = serde::Deserialize::deserialize(reader)?;
    if found == VERSION {
        return Ok(found);
    }
    Err(serde::de::Error::custom(RestoreError::Version { found, expected: VERSION }))
}

/// A record's mirror, field by field: `values` as they are; `options`, which a reader must find
/// even when they are empty; and `slots`, of which [`NONE`] becomes an empty option. What stands
/// beside the record is mirrored with it, as if it were part of it.
macro_rules! mirror {
    ($mirror:ident of $($record:ident {
        values { $($value:ident: $value_type:ty,)* }
        options { $($option:ident: $option_type:ty,)* }
        slots { $($slot:ident,)* }
    })and+) => {
        #[derive(Clone, Debug, PartialEq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
        struct $mirror {$(
            $($value: $value_type,)*
            $(#[cfg_attr(
                feature = "serde",
                serde(deserialize_with = "serde::Deserialize::deserialize")
            )]
            $option: Option<$option_type>,)*
            $(#[cfg_attr(
                feature = "serde",
                serde(deserialize_with = "serde::Deserialize::deserialize")
            )]
            $slot: Option<u32>,)*
        )+}

        impl $mirror {
            fn of(records: ($(&$record,)+)) -> Self {
                let ($($record { $($value,)* $($option,)* $($slot,)* },)+) = records;
                Self {$(
                    $($value: $value.clone(),)*
                    $($option: $option.clone(),)*
                    $($slot: (*$slot != NONE).then_some(*$slot),)*
                )+}
            }

            fn into_records(self) -> ($($record,)+) {
                let Self {$( $($value,)* $($option,)* $($slot,)* )+} = self;
                ($($record {
                    $($value,)*
                    $($option,)*
                    $($slot: $slot.unwrap_or(NONE),)*
                },)+)
            }
        }
    };
}

mirror! { NetworkMirror of Network {
    values {
        down: bool,
        paused: bool,
        changed: bool,
        still_at: Time,
        up_at: Time,
        renewed_at: Time,
        epoch: u32,
        offline: u64,
    }
    options {}
    slots {}
}}

mirror! { PeerMirror of Peer {
    values {
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
        without_since: Time,
        offline_before: u64,
        connected_at: Time,
        session_until: Time,
        backoff_draws: u32,
        retry_draws: u32,
    }
    options {}
    slots { first_endpoint, last_endpoint, }
} and Trouble {
    values {
        failures: u32,
        excused: u32,
        epoch: u32,
        own_failures: u32,
        previous_delay: Duration,
    }
    options {}
    slots {}
} and Succession {
    values { replacement_draws: u32, }
    options {}
    slots { replacement, }
} and Quality {
    values {}
    options { measured: (u64, u32), }
    slots {}
}}

mirror! { ReplacementMirror of Replacement {
    values { peer: u32, cause: MoveCause, stage: Stage, failures: u32, }
    options { drain_at: Time, }
    slots {}
}}

mirror! { EndpointMirror of EndpointRecord {
    values {
        id: EndpointId,
        peer: u32,
        breaker: u32,
        tried: bool,
        failures: u32,
        hasty: u8,
        ticket: u64,
        several: bool,
    }
    options {}
    slots { next, }
} and Past {
    values { failed_at: Time, not_before: Time, avoid_until: Time, }
    options { rhythm: Box<Phi>, }
    slots {}
} and Wait {
    values { resume_by: Time, }
    options {}
    slots {}
}}

mirror! { ConnMirror of Whole {
    values {
        id: ConnId,
        trust: Trust,
        excused: Time,
        last_heard: Time,
        peer: u32,
        process: u32,
        heard: bool,
        attentive: bool,
        failed_back: bool,
        phase: ConnPhase,
        since: Time,
        probe: Probe,
        pings_before: u64,
    }
    options { last_beat: Time, rhythm: Box<Phi>, ping: PingId, }
    slots { endpoint, }
}}

mirror! { BreakerMirror of BreakerRecord {
    values {
        id: BreakerId,
        profile: u16,
        breaker: Breaker,
        in_flight: u32,
        refusals: Refusals,
        crowd: Crowd,
        dial_ns: u64,
        losses: Recent,
        endpoints: u32,
        calls: u32,
        tickets: u64,
    }
    options { window: Limit, bucket: Bucket, gates: Box<Gates>, }
    slots {}
}}

mirror! { CallMirror of Call {
    values {
        id: CallId,
        profile: u16,
        breaker: u32,
        peer_id: PeerId,
        process: u32,
        since: Time,
        deadline: Time,
        phase: CallPhase,
        attempts: u32,
        hedges: u32,
        paid: bool,
        not_before: Time,
        previous_delay: Duration,
        draws: u32,
    }
    options { last: CallFailure, }
    slots { peer, first_attempt, }
}}

mirror! { AttemptMirror of Attempt {
    values { id: AttemptId, call: u32, permit: Permit, since: Time, paid: bool, hedge: bool, }
    options {}
    slots { next, }
}}

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
        let list = |lists: &Lists, anchor: u32| lists.iter(anchor).collect();
        let breakers = self.breakers.slab.parts().0.len();
        let breakers = 0..u32::try_from(breakers).unwrap_or(u32::MAX);
        let mut timers: Vec<Timer> = self.timers.iter().copied().collect();
        timers.sort_unstable();
        Snapshot {
            version: VERSION,
            config: self.policies.config.clone(),
            now: self.now,
            run: self.run.value(),
            woke_at: self.sleep.woke_at,
            hold_until: self.sleep.hold_until,
            network: NetworkMirror::of((&self.network,)),
            load: self.load.smoothed,
            relaxed: self.load.relaxed,
            pacer: self.pacer.bucket,
            pacer_blocked: self.pacer.blocked,
            pinger: self.pinger.bucket,
            self_health: self.self_health,
            told_self_health: self.told_self_health,
            process: self.conns.process,
            peers: Table::of(&self.peers.slab, |slot, peer| {
                let Peers { troubles, successions, qualities, .. } = &self.peers;
                let succession = successions.get(slot);
                PeerMirror::of((peer, troubles.get(slot), succession, qualities.get(slot)))
            }),
            replacements: Table::of(&self.replacements, |_, it| ReplacementMirror::of((it,))),
            endpoints: Table::of(&self.endpoints.slab, |slot, endpoint| {
                let Endpoints { pasts, waits, .. } = &self.endpoints;
                EndpointMirror::of((endpoint, pasts.get(slot), waits.get(slot)))
            }),
            conns: Table::of(&self.conns.slab, |_, conn| {
                ConnMirror::of((&self.conns.whole(conn),))
            }),
            generations: self.conns.generations(),
            pings: self.conns.pings(),
            breakers: Table::of(&self.breakers.slab, |_, it| BreakerMirror::of((it,))),
            calls: Table::of(&self.calls.slab, |_, it| CallMirror::of((it,))),
            attempts: Table::of(&self.calls.attempts, |_, it| AttemptMirror::of((it,))),
            attempt_generations: self.calls.generations.clone(),
            lists: ListsMirror {
                backing_off: list(&self.peers.lists, BACKING_OFF),
                woken: list(&self.peers.lists, WOKEN),
                failed: list(&self.peers.lists, FAILED),
                live: list(&self.conns.lists, LIVE),
                orphans: list(&self.conns.lists, ORPHANS),
                unchecked: list(&self.conns.lists, UNCHECKED),
                asking: list(&self.pinger.line, ASKING),
                displaced: list(&self.endpoints.queues, DISPLACED),
                queues: breakers.map(|slot| self.endpoints.line(slot).collect()).collect(),
                ring: list(&self.breakers.ring, RING),
                held_back: list(&self.breakers.ring, HELD_BACK),
                live_calls: list(&self.calls.lists, calls::LIVE),
                orphan_calls: list(&self.calls.lists, calls::ORPHANS),
                released: list(&self.calls.places, RELEASED),
                doomed: list(&self.calls.places, DOOMED),
                waiting: self.places_of_calls(waiting_for),
                bound: self.places_of_calls(bound_for),
                moving: list(&self.calls.lines, MOVING),
            },
            timers,
            next_sequence: self.timers.sequence(),
            stats: Some(self.stats.clone()),
        }
    }

    /// The calls on the lists of one kind of all peers.
    fn places_of_calls(&self, list: fn(u32) -> u32) -> Vec<u32> {
        let peers = self.peers.slab.iter();
        peers.flat_map(|(peer, _)| self.calls.places.iter(list(peer))).collect()
    }
}

impl<T> Table<T> {
    fn of<R>(slab: &Slab<R>, mirror: impl Fn(u32, &R) -> T) -> Self {
        let (slots, free) = slab.parts();
        let of = |(slot, entry): (u32, &Option<R>)| entry.as_ref().map(|it| mirror(slot, it));
        let slots = (0..).zip(slots).map(of).collect();
        Self { slots, free: free.to_vec() }
    }

    fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }
}
