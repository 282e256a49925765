//! What scripts are made of, at random.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use proptest::collection::vec as vec_of;
use proptest::option;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;

use super::{Act, Address, Fact, Op, Script, Wrong};
use crate::event::{CallFailure, DialCause, LossCause, RetryAfter};

/// How large and how wild the scripts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Peers; 4.
    pub peers: u8,
    /// Breakers, each of which may guard several peers' addresses; 2.
    pub breakers: u8,
    /// Addresses of one peer; 1 to 3.
    pub endpoints: RangeInclusive<u8>,
    /// How many peer profiles the configuration has; 1.
    pub peer_profiles: u8,
    /// How many breaker profiles it has; 1.
    pub breaker_profiles: u8,
    /// How many call profiles it has; 1. None: there are no calls.
    pub call_profiles: u8,
    /// Lines after the opening, in which breakers and peers are added; 1 to 60.
    pub lines: RangeInclusive<usize>,
    /// The longest time between two lines; 15 s. Most are much closer.
    pub longest: Duration,
    /// Whether the driver may be late and do what is [`Wrong`]; it may.
    pub faulty_driver: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            peers: 4,
            breakers: 2,
            endpoints: 1..=3,
            peer_profiles: 1,
            breaker_profiles: 1,
            call_profiles: 1,
            lines: 1..=60,
            longest: Duration::from_secs(15),
            faulty_driver: true,
        }
    }
}

impl Shape {
    /// Scripts of this shape. Each opens with all breakers and peers, every peer wanted.
    pub fn script(&self) -> impl Strategy<Value = Script> + use<> {
        (self.opening(), vec_of(self.op(), self.lines.clone())).prop_map(|(mut script, lines)| {
            script.extend(lines);
            script
        })
    }

    fn opening(&self) -> impl Strategy<Value = Script> + use<> {
        let (breakers, peers) = (self.breakers, self.peers);
        let breaker_profiles = vec_of(0..self.breaker_profiles.max(1), usize::from(breakers));
        let peer = (0..self.peer_profiles.max(1), self.addresses());
        (breaker_profiles, vec_of(peer, usize::from(peers))).prop_map(|(breakers, peers)| {
            let at_once = |act| Op { after: Duration::ZERO, act };
            let mut script = Vec::new();
            for (breaker, profile) in (0..).zip(breakers) {
                script.push(at_once(Act::AddBreaker { breaker, profile }));
            }
            for (peer, (profile, endpoints)) in (0..).zip(peers) {
                script.push(at_once(Act::AddPeer { peer, profile, endpoints }));
                script.push(at_once(Act::Connect { peer }));
            }
            script
        })
    }

    fn addresses(&self) -> impl Strategy<Value = Vec<Address>> + use<> {
        let (least, most) = (usize::from(*self.endpoints.start()), *self.endpoints.end());
        let breakers = self.breakers.max(1);
        vec_of(0..breakers, least..=usize::from(most).max(least)).prop_map(|breakers| {
            (0..).zip(breakers).map(|(id, breaker)| Address { id, breaker }).collect()
        })
    }

    /// One line of such a script.
    pub fn op(&self) -> impl Strategy<Value = Op> + use<> {
        let longest = self.longest.max(Duration::from_millis(1));
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1);
        let after = prop_oneof![
            3 => Just(0),
            3 => 1..=longest_ms.min(50),
            3 => 1..=longest_ms.min(2_000),
            1 => 1..=longest_ms,
        ];
        let calls = u32::from(self.call_profiles.min(1));
        let honest = prop_oneof![9 => self.honest(), 7 * calls => self.calling()];
        let act = if self.faulty_driver {
            prop_oneof![28 => honest, 4 => wrong(calls), 1 => oversleep()].boxed()
        } else {
            honest.boxed()
        };
        (after, act).prop_map(|(after, act)| Op { after: Duration::from_millis(after), act })
    }

    fn calling(&self) -> impl Strategy<Value = Act> + use<> {
        // Now and then one that is unknown.
        let among = |known: u8| prop_oneof![20 => 0..known.max(1), 1 => Just(known)];
        let (peer, breaker) = (option::of(among(self.peers)), among(self.breakers));
        let within = prop_oneof![
            2 => Just(None),
            3 => (0..20_000_u64).prop_map(|ms| Some(Duration::from_millis(ms))),
        ];
        let profile = among(self.call_profiles);
        prop_oneof![
            12 => (peer, breaker, profile, within).prop_map(|(peer, breaker, profile, within)| {
                Act::Call { peer, breaker, profile, within }
            }),
            1 => any::<u8>().prop_map(|call| Act::CancelCall { call }),
            5 => any::<u8>().prop_map(|attempt| Act::Succeeded { attempt }),
            7 => (any::<u8>(), call_failure(), hint()).prop_map(|(attempt, kind, retry_after)| {
                Act::Failed { attempt, kind, retry_after }
            }),
            1 => any::<u8>().prop_map(|attempt| Act::Dropped { attempt }),
        ]
    }

    fn honest(&self) -> impl Strategy<Value = Act> + use<> {
        // One beyond what is there, so that some names are unknown.
        let (peer, breaker) = (0..=self.peers, 0..=self.breakers);
        let (any_peer, any_breaker) = (peer.clone(), breaker.clone());
        let peer_profile = 0..=self.peer_profiles.max(1);
        let breaker_profile = 0..=self.breaker_profiles.max(1);
        let twice = |mut addresses: Vec<Address>| {
            addresses.extend(addresses.first().copied());
            addresses
        };
        let any_addresses = prop_oneof![
            8 => self.addresses(),
            1 => Just(Vec::new()),
            1 => self.addresses().prop_map(twice),
        ]
        .boxed();
        let latency =
            prop_oneof![2 => 0..50_u64, 1 => 0..3_000_u64].prop_map(Duration::from_millis);
        let loss = prop_oneof![2 => Just(0), 1 => 0..=1_100_000_u32];
        let leaves_in = option::of((0..8_000_u64).prop_map(Duration::from_millis));
        let reconnect_in =
            prop_oneof![3 => Just(0), 1 => 0..4_000_u64].prop_map(Duration::from_millis);
        let load = prop_oneof![3 => Just(1_000_000), 1 => 0..=1_100_000_u32];
        let facts = prop_oneof![
            6 => (any::<u8>(), any::<bool>())
                .prop_map(|(dial, resumed)| Act::Connected { dial, resumed }),
            8 => (any::<u8>(), dial_cause(), retry_after()).prop_map(|(dial, cause, retry_after)| {
                Act::DialFailed { dial, cause, retry_after }
            }),
            4 => (any::<u8>(), loss_cause()).prop_map(|(conn, cause)| Act::Lost { conn, cause }),
            2 => any::<u8>().prop_map(|conn| Act::Heard { conn }),
            2 => any::<u8>().prop_map(|conn| Act::Heartbeat { conn }),
            2 => (any::<u8>(), leaves_in, reconnect_in).prop_map(
                |(conn, leaves_in, reconnect_in)| Act::GoAway { conn, leaves_in, reconnect_in },
            ),
            2 => any::<u8>().prop_map(|ping| Act::Pong { ping }),
            3 => (any::<u8>(), latency, loss)
                .prop_map(|(conn, latency, loss)| Act::Metrics { conn, latency, loss }),
            1 => any_peer.prop_map(|peer| Act::Accepted { peer }),
        ];
        let intents = prop_oneof![
            3 => peer.clone().prop_map(|peer| Act::Connect { peer }),
            1 => peer.clone().prop_map(|peer| Act::Disconnect { peer }),
        ];
        let membership = prop_oneof![
            (any_breaker.clone(), breaker_profile)
                .prop_map(|(breaker, profile)| Act::AddBreaker { breaker, profile }),
            any_breaker.clone().prop_map(|breaker| Act::RemoveBreaker { breaker }),
            (peer.clone(), peer_profile, any_addresses.clone())
                .prop_map(|(peer, profile, endpoints)| Act::AddPeer { peer, profile, endpoints }),
            (peer.clone(), any_addresses)
                .prop_map(|(peer, endpoints)| Act::SetEndpoints { peer, endpoints }),
            peer.clone().prop_map(|peer| Act::RemovePeer { peer }),
        ];
        let environment = prop_oneof![
            3 => Just(Act::NetworkDown),
            4 => Just(Act::NetworkUp),
            2 => Just(Act::NetworkChanged),
            1 => Just(Act::Paused),
            2 => Just(Act::Resumed),
            8 => load.prop_map(|load| Act::Load { load }),
            1 => Just(Act::Restarted),
            4 => Just(Act::Tick),
        ];
        let orders = prop_oneof![
            1 => breaker.clone().prop_map(|breaker| Act::ForceOpen { breaker }),
            1 => breaker.prop_map(|breaker| Act::Disable { breaker }),
            1 => (any_breaker.clone(), any::<bool>())
                .prop_map(|(breaker, on)| Act::WatchOnly { breaker, on }),
            3 => any_breaker.prop_map(|breaker| Act::ResetBreaker { breaker }),
            3 => option::of(peer).prop_map(|peer| Act::Revive { peer }),
        ];
        prop_oneof![20 => facts, 3 => intents, 2 => membership, 3 => environment, 2 => orders]
    }
}

fn wrong(calls: u32) -> impl Strategy<Value = Act> {
    let fact = || {
        select(vec![
            Fact::Connected,
            Fact::DialFailed,
            Fact::Lost,
            Fact::Heard,
            Fact::Heartbeat,
            Fact::GoAway,
            Fact::Metrics,
        ])
    };
    let heard = select(vec![Fact::Heard, Fact::Heartbeat, Fact::GoAway, Fact::Metrics]);
    let raw =
        || prop_oneof![0..8_u64, (0..8_u64, 0..4_u64).prop_map(|(a, b)| b << 28 | a), any::<u64>()];
    prop_oneof![
        6 => (any::<u8>(), fact()).prop_map(|(conn, fact)| Wrong::Dead { conn, fact }),
        2 => (raw(), fact()).prop_map(|(raw, fact)| Wrong::Unborn { raw, fact }),
        3 => (any::<u8>(), any::<bool>())
            .prop_map(|(conn, connected)| Wrong::Up { conn, connected }),
        2 => (any::<u8>(), heard).prop_map(|(dial, fact)| Wrong::Dialing { dial, fact }),
        2 => raw().prop_map(|raw| Wrong::Pong { raw }),
        3 * calls => (any::<u8>(), any::<bool>())
            .prop_map(|(attempt, succeeded)| Wrong::DeadAttempt { attempt, succeeded }),
        calls => any::<u8>().prop_map(|call| Wrong::CallAgain { call }),
        1 => (1..100_000_u64).prop_map(|ms| Wrong::Backwards { by: Duration::from_millis(ms) }),
    ]
    .prop_map(Act::Wrong)
}

fn oversleep() -> impl Strategy<Value = Act> {
    prop_oneof![1..1_000_u64, 1..100_000_u64]
        .prop_map(|ms| Act::Oversleep { late: Duration::from_millis(ms) })
}

fn retry_after() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        8 => Just(None),
        2 => (0..20_000_u64).prop_map(|ms| Some(Duration::from_millis(ms))),
        1 => Just(Some(Duration::MAX)),
    ]
}

fn hint() -> impl Strategy<Value = Option<RetryAfter>> {
    let after = retry_after().prop_map(|after| after.map(RetryAfter::After));
    prop_oneof![12 => after, 1 => Just(Some(RetryAfter::Never))]
}

fn call_failure() -> impl Strategy<Value = CallFailure> {
    use CallFailure::{
        Disconnected, Error, Fatal, Invalid, Local, Throttled, Timeout, Unavailable,
    };
    prop_oneof![
        3 => select(vec![Error, Timeout, Throttled, Unavailable]),
        1 => select(vec![Disconnected, Invalid, Fatal, Local]),
    ]
}

fn dial_cause() -> impl Strategy<Value = DialCause> {
    use DialCause::{
        Auth, Cancelled, Incompatible, Local, NotFound, Refused, Resolve, Throttled, Timeout, Tls,
        Unreachable,
    };
    prop_oneof![
        3 => select(vec![Refused, Timeout]),
        2 => select(vec![Unreachable, Resolve, Throttled, Tls, Auth, Incompatible, NotFound]),
        1 => select(vec![Local, Cancelled]),
    ]
}

fn loss_cause() -> impl Strategy<Value = LossCause> {
    use LossCause::{Eof, Kicked, Local, Protocol, Replaced, Reset, Suspected};
    select(vec![Eof, Reset, Replaced, Kicked, Protocol, Suspected, Local])
}
