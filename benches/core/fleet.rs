//! Fleets to measure: peers behind breakers, connected at once by an obliging network.

use std::time::Duration;

use steadfast::config::{Detector, HealthConfig, Signs};
use steadfast::{
    Action, BreakerId, BreakerProfileId, Config, ConnId, Endpoint, EndpointId, Event, Manager,
    PeerId, PeerProfileId, Time,
};

/// So many breakers, where peers share them.
pub(crate) const BREAKERS: u32 = 100;

/// A fleet whose connections may be silent for so long.
pub(crate) fn config(silence: Duration) -> Config {
    let mut config = Config::new(1);
    config.limits.max_peers = 10_000_000;
    config.limits.max_breakers = 10_000_000;
    config.pacer.max_in_flight = u32::MAX;
    config.breaker_profiles[0].max_in_flight = u32::MAX;
    config.peer_profiles[0].health = HealthConfig {
        signs: Signs::Heartbeats,
        detector: Detector::Deadline(silence),
        ..HealthConfig::default()
    };
    config
}

/// A connected fleet that may be silent for half a minute, behind a hundred breakers.
pub(crate) fn connected(n: u32) -> (Manager, Vec<ConnId>) {
    connect(config(Duration::from_secs(30)), n, BREAKERS)
}

/// A connected fleet, its connections in the order of their dials.
pub(crate) fn connect(config: Config, n: u32, breakers: u32) -> (Manager, Vec<ConnId>) {
    let mut manager = Manager::new(config, 2).unwrap();
    manager.reserve(n, n);
    let mut actions = Vec::new();
    let mut step = |event| manager.step_into(event, Time::ZERO, &mut actions);
    for id in 0..breakers {
        let (breaker, profile) = (BreakerId(id.into()), BreakerProfileId(0));
        step(Event::AddBreaker { breaker, profile });
    }
    for id in 0..n {
        let breaker = BreakerId((id % breakers).into());
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
        step(Event::AddPeer { peer: PeerId(id.into()), profile: PeerProfileId(0), endpoints });
        step(Event::Connect { peer: PeerId(id.into()) });
    }
    let mut conns = Vec::new();
    connect_all(&mut manager, Time::ZERO, &mut actions, &mut conns);
    assert_eq!(manager.stats().peers.connected, n);
    (manager, conns)
}

/// Answers every dial with success until nobody dials any more; leaves the connections in `conns`.
fn connect_all(
    manager: &mut Manager,
    now: Time,
    actions: &mut Vec<Action>,
    conns: &mut Vec<ConnId>,
) {
    let mut next = conns.len();
    loop {
        conns.extend(actions.drain(..).filter_map(dialed));
        match conns.get(next) {
            Some(&conn) => {
                next += 1;
                manager.step_into(Event::Connected { conn, resumed: false }, now, actions);
            }
            None if manager.next_deadline() == Some(now) => {
                manager.step_into(Event::Tick, now, actions);
            }
            None => return,
        }
    }
}

/// The connection that the action dials.
pub(crate) fn dialed(action: Action) -> Option<ConnId> {
    match action {
        Action::Dial { conn, .. } => Some(conn),
        _ => None,
    }
}

/// Steps until nothing more is due.
pub(crate) fn tick(manager: &mut Manager, now: Time, actions: &mut Vec<Action>) {
    manager.step_into(Event::Tick, now, actions);
    while manager.next_deadline().is_some_and(|deadline| deadline <= now) {
        manager.step_into(Event::Tick, now, actions);
    }
}

/// Numbers below `n`, each as likely, by a linear congruential generator.
pub(crate) fn random_below(n: u32, count: usize) -> Vec<usize> {
    let mut state = 1_u64;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((state >> 32) * u64::from(n)) >> 32) as usize
    };
    (0..count).map(|_| draw()).collect()
}

/// Who speaks in which millisecond of a second: everybody once, in no order.
pub(crate) fn second_of_beats(n: u32) -> Vec<Vec<usize>> {
    let mut milliseconds = vec![Vec::new(); 1_000];
    let mut everybody: Vec<usize> = (0..n as usize).collect();
    for (left, other) in (1..=n).rev().zip(random_below(u32::MAX, n as usize)) {
        let chosen = other % left as usize;
        milliseconds[left as usize % 1_000].push(everybody.swap_remove(chosen));
    }
    milliseconds
}
