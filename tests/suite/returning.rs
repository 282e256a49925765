//! Who comes back first when more come than a server can take: figures, not stories.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use steadfast::config::PeerProfile;
use steadfast::{
    Action, BreakerId, Config, ConnId, Endpoint, EndpointId, Event, LossCause, Manager, PeerId,
    Time,
};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// When they all lose their connections.
const LOST_AT: Time = Time::from_secs(60);
/// What a dial takes beside its turn at the server.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// Peers behind one server, which does so many handshakes a second, one after the other.
struct Region {
    peers: std::ops::Range<u64>,
    per_second: u32,
}

/// When each peer was up again, and whether its session was.
struct Back {
    at: BTreeMap<PeerId, Time>,
    resumed: usize,
}

/// Connects all peers, loses them all at once, and lets them come back to servers that are there.
/// Peers have the profiles in turn.
fn lose_all(config: Config, regions: &[Region]) -> Back {
    let profiles = u64::try_from(config.peer_profiles.len()).unwrap();
    let ttls: Vec<Option<Duration>> =
        config.peer_profiles.iter().map(|profile| profile.session_ttl).collect();
    let mut manager = Manager::new(config, 7).unwrap();
    let mut actions = Vec::new();
    let profile = manager.config().breaker_profile("default").unwrap();
    let mut up = Vec::new();
    for (place, region) in (1..).zip(regions) {
        let breaker = BreakerId(place);
        manager.step_into(Event::AddBreaker { breaker, profile }, Time::ZERO, &mut actions);
        for peer in region.peers.clone().map(PeerId) {
            let profile = steadfast::PeerProfileId(u16::try_from(peer.0 % profiles).unwrap());
            let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
            let _ = manager.step(Event::AddPeer { peer, profile, endpoints }, Time::ZERO);
            actions.extend(manager.step(Event::Connect { peer }, Time::ZERO));
            while let Some(action) = actions.pop() {
                if let Action::Dial { conn, .. } = action {
                    up.push(conn);
                    let connected = Event::Connected { conn, resumed: false };
                    manager.step_into(connected, Time::ZERO, &mut actions);
                }
            }
        }
    }
    for conn in up {
        manager.step_into(Event::Lost { conn, cause: LossCause::Reset }, LOST_AT, &mut actions);
    }
    let region_of =
        |peer: PeerId| regions.iter().position(|region| region.peers.contains(&peer.0)).unwrap();
    let mut free_at = vec![LOST_AT; regions.len()];
    let mut answers: BinaryHeap<Reverse<(Time, ConnId, PeerId, bool)>> = BinaryHeap::new();
    let mut back = Back { at: BTreeMap::new(), resumed: 0 };
    let mut now = LOST_AT;
    let all: u64 = regions.iter().map(|region| region.peers.end - region.peers.start).sum();
    while manager.stats().peers.connected < u32::try_from(all).unwrap() {
        for action in actions.drain(..) {
            if let Action::Dial { conn, peer, resume, .. } = action {
                let region = region_of(peer);
                let turn = secs(1) / regions[region].per_second;
                free_at[region] = free_at[region].max(now) + turn;
                answers.push(Reverse((free_at[region] + ROUND_TRIP, conn, peer, resume)));
            }
        }
        let due = manager.next_deadline().unwrap_or(Time::MAX);
        match answers.peek() {
            Some(&Reverse((at, conn, peer, resume))) if at <= due => {
                answers.pop();
                now = at;
                let ttl = ttls[usize::try_from(peer.0 % profiles).unwrap()];
                let resumed = resume && ttl.is_some_and(|ttl| now <= LOST_AT + ttl);
                back.resumed += usize::from(resumed);
                back.at.insert(peer, now);
                manager.step_into(Event::Connected { conn, resumed }, now, &mut actions);
            }
            _ => {
                now = due;
                manager.step_into(Event::Tick, now, &mut actions);
            }
        }
    }
    manager.check().unwrap();
    back
}

#[test]
fn a_region_of_100_000_does_not_delay_ten_peers_of_another() {
    let ten = || Region { peers: 0..10, per_second: 100 };
    let last_of_ten = |regions: &[Region]| {
        let back = lose_all(Config::new(5), regions);
        (0..10).map(|peer| back.at[&PeerId(peer)]).max().unwrap()
    };
    let alone = last_of_ten(&[ten()]);
    let many = Region { peers: 10..100_010, per_second: 2_000 };
    let beside = last_of_ten(&[ten(), many]);
    let late = beside.since(alone);
    println!("the last of ten: {alone} alone, {beside} beside 100,000");
    assert!(late <= secs(1), "{late:?} late");
}

#[test]
fn as_many_sessions_are_resumed_as_the_server_can_take_in_time() {
    const PEERS: u64 = 50_000;
    const PER_SECOND: u32 = 500;
    // Twice as many run out in a second as the server can take, from the tenth on.
    let ttls: Vec<Duration> = (0..500).map(|place| secs(10) + secs(50) * place / 500).collect();
    let mut config = Config::new(5);
    config.peer_profiles = ttls
        .iter()
        .map(|ttl| PeerProfile {
            name: format!("{ttl:?}"),
            session_ttl: Some(*ttl),
            ..PeerProfile::default()
        })
        .collect();
    let back = lose_all(config, &[Region { peers: 0..PEERS, per_second: PER_SECOND }]);
    // Of jobs that take one turn each, and are all there from the beginning, those in the order of
    // their deadlines that are in time are the most that can be.
    let mut optimum = 0;
    for peer in 0..PEERS {
        // Peers have the profiles in turn, so by the hundred they are in order of their deadlines.
        let ttl = ttls[usize::try_from(peer / (PEERS / 500)).unwrap()];
        let done = secs(1) * (optimum + 1) / PER_SECOND + ROUND_TRIP;
        optimum += u32::from(done <= ttl);
    }
    let share = back.resumed as f64 / f64::from(optimum);
    println!("{} of {optimum} resumed, {share:.4}", back.resumed);
    assert!(share >= 0.98, "{} of {optimum}", back.resumed);
}
