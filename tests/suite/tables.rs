//! Tables of the whole: sizes of what passes through a step, and what each state makes of each event.

use std::fmt::Write as _;
use std::time::Duration;

use insta::assert_snapshot;
use steadfast::breaker::{Breaker, Permit};
use steadfast::bucket::Bucket;
use steadfast::phi::Phi;
use steadfast::probe::Probe;
use steadfast::window::Recent;
use steadfast::{
    Action, BreakerId, Config, ConnId, DialCause, Endpoint, EndpointId, Event, Ignored, LossCause,
    Manager, Notice, PeerId, PeerState, Stats, Tag, Time, Why,
};

#[test]
#[cfg(target_pointer_width = "64")]
fn what_passes_through_a_step_is_small() {
    let mut table = String::new();
    macro_rules! size {
        ($($type:ty),* $(,)?) => {
            $(writeln!(table, "{:<10} {:>5}", stringify!($type), size_of::<$type>()).unwrap();)*
        };
    }
    size!(Event, Action, Notice, Ignored, Why, Time, ConnId, Endpoint);
    size!(Breaker, Permit, Bucket, Phi, Probe, Recent, Stats, Manager);
    assert_snapshot!(table);
}

/// Where a peer can stand.
#[derive(Clone, Copy)]
enum Stand {
    Disconnected,
    Dialing,
    Parked,
    BackingOff,
    Connected,
    Failed,
}

const STANDS: [(&str, Stand); 6] = [
    ("disconnected", Stand::Disconnected),
    ("dialing", Stand::Dialing),
    ("parked", Stand::Parked),
    ("backing off", Stand::BackingOff),
    ("connected", Stand::Connected),
    ("failed", Stand::Failed),
];

const PEER: PeerId = PeerId(1);
const BREAKER: BreakerId = BreakerId(1);

/// A manager whose one peer stands there, and the dial or connection that it has or last had.
fn stand(stand: Stand) -> (Manager, ConnId, Time) {
    let mut config = Config::new(1);
    config.peer_profiles[0].inbound = true;
    config.peer_profiles[0].backoff.jitter = steadfast::backoff::Jitter::None;
    config.peer_profiles[0].max_attempts = matches!(stand, Stand::Failed).then_some(1);
    let (peers, breakers) = (config.peer_profile("default"), config.breaker_profile("default"));
    let mut manager = Manager::new(config, 2).unwrap();
    let now = Time::from_secs(1);
    let endpoints = vec![Endpoint { id: EndpointId(0), breaker: BREAKER }];
    let add_breaker = Event::AddBreaker { breaker: BREAKER, profile: breakers.unwrap() };
    let add_peer = Event::AddPeer { peer: PEER, profile: peers.unwrap(), endpoints };
    let mut conn = ConnId::from_raw(0);
    let failed = |conn| Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None };
    let mut events = vec![add_breaker, add_peer, Event::Connect { peer: PEER }];
    match stand {
        Stand::Disconnected => events.push(Event::Disconnect { peer: PEER }),
        Stand::Dialing => {}
        Stand::Parked => events.insert(1, Event::ForceOpen { breaker: BREAKER }),
        Stand::BackingOff | Stand::Failed => events.push(failed(conn)),
        Stand::Connected => events.push(Event::Connected { conn, resumed: false }),
    }
    for event in events {
        for action in manager.step(event, now) {
            if let Action::Dial { conn: dialed, .. } = action {
                conn = dialed;
            }
        }
    }
    (manager, conn, now + Duration::from_millis(10))
}

#[test]
fn each_state_has_an_answer_to_each_event() {
    let other = Endpoint { id: EndpointId(7), breaker: BREAKER };
    let events = |conn: ConnId| {
        let cause = DialCause::Refused;
        vec![
            ("connect", Event::Connect { peer: PEER }),
            ("disconnect", Event::Disconnect { peer: PEER }),
            ("remove", Event::RemovePeer { peer: PEER }),
            ("endpoints", Event::SetEndpoints { peer: PEER, endpoints: vec![other] }),
            ("revive", Event::Revive { peer: Some(PEER) }),
            ("revive all", Event::Revive { peer: None }),
            ("connected", Event::Connected { conn, resumed: false }),
            ("dial-failed", Event::DialFailed { conn, cause, retry_after: None }),
            ("lost", Event::Lost { conn, cause: LossCause::Reset }),
            ("heard", Event::Heard { conn }),
            ("accepted", Event::Accepted { peer: PEER, tag: Tag(1) }),
            ("network down", Event::NetworkDown),
            ("network changed", Event::NetworkChanged),
            ("paused", Event::Paused),
            ("go away", Event::GoAway { conn, leaves_in: None, reconnect_in: Duration::ZERO }),
            ("restarted", Event::Restarted),
            ("force-open", Event::ForceOpen { breaker: BREAKER }),
            ("disable", Event::Disable { breaker: BREAKER }),
            ("reset", Event::ResetBreaker { breaker: BREAKER }),
            ("tick", Event::Tick),
        ]
    };
    let mut table = String::new();
    for (name, at) in STANDS {
        writeln!(table, "{name}").unwrap();
        let (_, conn, _) = stand(at);
        for (told, event) in events(conn) {
            let (mut manager, _, now) = stand(at);
            let actions = manager.step(event, now);
            manager.check().unwrap();
            let after = manager.peer_state(PEER).map_or("gone", |state| match state {
                PeerState::Disconnected => "disconnected",
                PeerState::Connecting => "connecting",
                PeerState::Connected => "connected",
                PeerState::Reconnecting => "reconnecting",
                PeerState::Failed => "failed",
            });
            // The notice of the peer's own state says what the column says.
            let told_otherwise = |action: &&Action| {
                !matches!(action, Action::Notice(Notice::Peer { .. } | Notice::RetryAt { .. }))
            };
            let done: Vec<String> =
                actions.iter().filter(told_otherwise).map(crate::render::render).collect();
            let line = format!("    {told:<14}{after:<14}{}", done.join("; "));
            writeln!(table, "{}", line.trim_end()).unwrap();
        }
    }
    assert_snapshot!(table);
}
