//! Tests that look inside: what a step touches.

use super::*;
use crate::{
    Action, BreakerId, CallId, DialCause, Endpoint, EndpointId, LossCause, PeerId, Target,
};
use alloc::string::{String, ToString};
use alloc::vec;
use core::time::Duration;

#[test]
#[cfg(target_pointer_width = "64")]
fn the_records_stay_small() {
    let sizes = [
        ("Peer", size_of::<peers::Peer>()),
        ("EndpointRecord", size_of::<endpoints::EndpointRecord>()),
        ("Trouble", size_of::<peers::Trouble>()),
        ("Past", size_of::<endpoints::Past>()),
        ("Pulse", size_of::<conns::Pulse>()),
        ("Conn", size_of::<Option<conns::Conn>>()),
        ("Asked", size_of::<conns::Asked>()),
        ("BreakerRecord", size_of::<breakers::BreakerRecord>()),
        ("Call", size_of::<calls::Call>()),
        ("Attempt", size_of::<calls::Attempt>()),
        ("Gates", size_of::<gates::Gates>()),
        ("Timer", size_of::<Timer>()),
    ];
    let lines = sizes.map(|(name, size)| alloc::format!("{name:<16}{size:>4}"));
    insta::assert_snapshot!(lines.join("\n"));
}

/// A manager with `n` peers behind one breaker, all wanted.
fn fleet(n: u64) -> (Manager, Vec<Action>) {
    let config = Config::new(1);
    let profiles = (config.peer_profile("default").unwrap(), config.breaker_profile("default"));
    let mut manager = Manager::new(config, 2).unwrap();
    let breaker = BreakerId(1);
    let mut actions = Vec::new();
    let mut step = |event| manager.step_into(event, Time::ZERO, &mut actions);
    step(Event::AddBreaker { breaker, profile: profiles.1.unwrap() });
    for id in 0..n {
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
        step(Event::AddPeer { peer: PeerId(id), profile: profiles.0, endpoints });
        step(Event::Connect { peer: PeerId(id) });
    }
    (manager, actions)
}

fn dials(actions: &[Action]) -> Vec<crate::ConnId> {
    let dial = |action: &Action| match action {
        Action::Dial { conn, .. } => Some(*conn),
        _ => None,
    };
    actions.iter().filter_map(dial).collect()
}

#[test]
fn closing_a_breaker_releases_100_000_without_a_loop_over_them() {
    let (mut manager, actions) = fleet(100_000);
    let mut now = Time::from_secs(1);
    for conn in dials(&actions) {
        let failed = Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None };
        let _ = manager.step(failed, now);
    }
    manager.check().unwrap();
    assert_eq!(manager.stats().breakers.open, 1);
    // Two probes succeed; the second closes the breaker.
    let mut probes = Vec::new();
    while probes.len() < 2 {
        now = manager.next_deadline().unwrap();
        probes.extend(dials(&manager.step(Event::Tick, now)));
    }
    now += Duration::from_millis(10);
    let _ = manager.step(Event::Connected { conn: probes[0], resumed: false }, now);
    let visits = |manager: &Manager| {
        let (peers, endpoints) = (&manager.peers.slab, &manager.endpoints.slab);
        peers.visits.get() + endpoints.visits.get() + manager.conns.slab.visits.get()
    };
    let before = visits(&manager);
    let actions = manager.step(Event::Connected { conn: probes[1], resumed: false }, now);
    let work = visits(&manager) - before;
    assert_eq!(manager.stats().breakers.closed, 1);
    let released = dials(&actions).len();
    assert!((32..=64).contains(&released), "{released} dials at once");
    assert!(work < 50 * 64, "the step looked at {work} records");
    manager.check().unwrap();
}

#[test]
fn waking_20_000_is_split_over_steps_and_only_the_last_one_may_sleep() {
    let (mut manager, actions) = fleet(20_000);
    let mut conns = Vec::new();
    let mut ready = dials(&actions);
    while let Some(conn) = ready.pop() {
        conns.push(conn);
        ready.extend(dials(&manager.step(Event::Connected { conn, resumed: false }, Time::ZERO)));
    }
    let lost_at = Time::from_secs(60);
    for conn in conns {
        let _ = manager.step(Event::Lost { conn, cause: LossCause::Reset }, lost_at);
    }
    assert_eq!(manager.stats().peers.reconnecting, 20_000);
    let work = Config::new(1).limits.max_work_per_step as usize;
    let mut actions = manager.step(Event::NetworkChanged, lost_at);
    let mut steps = 1;
    while manager.next_deadline() == Some(lost_at) {
        assert!(actions.len() <= work + 1, "{} actions in one step", actions.len());
        manager.check().unwrap();
        actions = manager.step(Event::Tick, lost_at);
        steps += 1;
    }
    assert_eq!(steps, 20_000_usize.div_ceil(work));
}

#[test]
fn a_million_calls_run_at_once_and_end_one_by_one() {
    const CALLS: u64 = 1_000_000;
    let mut config = Config::new(1);
    config.breaker_profiles[0].calls.bulkhead.max_concurrent = 1_000_000;
    let breaker_profile = config.breaker_profile("default").unwrap();
    let profile = config.call_profile("default").unwrap();
    let mut manager = Manager::new(config, 2).unwrap();
    let mut actions = Vec::new();
    let breaker = BreakerId(1);
    manager.step_into(
        Event::AddBreaker { breaker, profile: breaker_profile },
        Time::ZERO,
        &mut actions,
    );
    let mut attempts = Vec::new();
    for call in (0..CALLS).map(CallId) {
        let now = Time::from_nanos(call.0);
        let target = Target::Breaker(breaker);
        manager.step_into(Event::Call { call, target, profile, deadline: None }, now, &mut actions);
        match actions.pop() {
            Some(Action::StartAttempt { attempt, .. }) => attempts.push(attempt),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(u64::from(manager.stats().attempts_in_flight), CALLS);
    // One too many for the bulkhead.
    let now = Time::from_secs(1);
    let target = Target::Breaker(breaker);
    let more = Event::Call { call: CallId(CALLS), target, profile, deadline: None };
    assert!(matches!(manager.step(more, now)[..], [Action::Reject { .. }]));
    // Those that nobody answers time out; all others are done.
    let unanswered = attempts.split_off(999_000);
    for attempt in attempts {
        manager.step_into(Event::Succeeded { attempt }, now, &mut actions);
        actions.clear();
    }
    assert_eq!(manager.stats().attempts_in_flight as usize, unanswered.len());
    manager.check().unwrap();
    while let Some(due) = manager.next_deadline() {
        manager.step_into(Event::Tick, due, &mut actions);
    }
    manager.check().unwrap();
    let stats = manager.stats();
    assert_eq!((stats.calls_done, stats.calls_now.total()), (999_000, 0));
    assert_eq!(stats.calls, CALLS + 1);
}

#[test]
#[cfg(feature = "serde")]
fn a_call_that_is_left_over_after_its_peer_is_of_another_shape_than_a_live_one() {
    let mut config = Config::new(1);
    config.limits.max_work_per_step = 16;
    let profile = config.call_profile("default").unwrap();
    let profiles = (config.peer_profile("default").unwrap(), config.breaker_profile("default"));
    let (breaker, peer) = (BreakerId(1), PeerId(1));
    let endpoints = || vec![Endpoint { id: EndpointId(0), breaker }];
    let add = |peer| Event::AddPeer { peer, profile: profiles.0, endpoints: endpoints() };
    let mut manager = Manager::new(config, 2).unwrap();
    let mut step = |event| drop(manager.step(event, Time::ZERO));
    step(Event::AddBreaker { breaker, profile: profiles.1.unwrap() });
    step(add(peer));
    step(Event::NetworkDown);
    step(Event::Connect { peer });
    for call in (0..100).map(CallId) {
        let target = Target::Peer { peer, breaker };
        step(Event::Call { call, target, profile, deadline: None });
    }
    step(Event::Disconnect { peer });
    let mut without = manager.clone();
    for event in [Event::RemovePeer { peer }, add(PeerId(2))] {
        let _ = manager.step(Event::Tick, Time::ZERO);
        let _ = without.step(event, Time::ZERO);
    }
    let left = |manager: &Manager| manager.stats().calls_now.total();
    assert_eq!((left(&manager), left(&without)), (52, 52));
    let shapes = [&manager, &without].map(Manager::shape_digest);
    assert_ne!(shapes[0], shapes[1]);
}

/// What `check` says once a sound manager has been bent.
fn said_of(manager: &Manager, bend: impl FnOnce(&mut Manager)) -> String {
    manager.check().unwrap();
    let mut bent = manager.clone();
    bend(&mut bent);
    bent.check().unwrap_err().to_string()
}

#[test]
fn the_records_of_a_connection_are_found_out_when_they_differ() {
    let (mut manager, actions) = fleet(2);
    let said = said_of(&manager, |bent| bent.conns.pulse_mut(1).profile += 1);
    assert_eq!(said, "connections: conns[1]: its records differ");
    let said = said_of(&manager, |bent| bent.conns.pulse_mut(1).come_up(false, Time::ZERO));
    assert_eq!(said, "connections: conns[1]: its records differ");
    let conn = dials(&actions)[0];
    let refused = Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None };
    let _ = manager.step(refused, Time::ZERO);
    let said = said_of(&manager, |bent| bent.conns.pulse_mut(0).come_up(false, Time::ZERO));
    assert_eq!(said, "connections: conns: a pulse without a record");
}

#[test]
fn a_session_that_is_not_among_the_others_is_found_out() {
    let mut config = Config::new(1);
    config.peer_profiles[0].session_ttl = Some(Duration::from_secs(60));
    config.peer_profiles[0].first_retry = crate::config::FirstRetry::Immediate;
    let profiles = (config.peer_profile("default").unwrap(), config.breaker_profile("default"));
    let mut manager = Manager::new(config, 2).unwrap();
    let (breaker, peer) = (BreakerId(1), PeerId(1));
    let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
    let _ = manager.step(Event::AddBreaker { breaker, profile: profiles.1.unwrap() }, Time::ZERO);
    let _ = manager.step(Event::AddPeer { peer, profile: profiles.0, endpoints }, Time::ZERO);
    let conn = dials(&manager.step(Event::Connect { peer }, Time::ZERO))[0];
    let _ = manager.step(Event::Connected { conn, resumed: false }, Time::ZERO);
    let later = Time::from_secs(60);
    let _ = manager.step(Event::ForceOpen { breaker }, later);
    let _ = manager.step(Event::Lost { conn, cause: LossCause::Reset }, later);
    let said = said_of(&manager, |bent| {
        // Another place in line, of which its session knows nothing.
        bent.endpoints.slab[0].ticket += 1;
        bent.breakers.slab[0].tickets += 1;
    });
    assert_eq!(said, "links: endpoints[0]: out of line with a session until 120.000s");
}

/// A manager with one peer that was last heard at `from` and is to be heard every 30 s.
fn watched(from: Time) -> Manager {
    let mut config = Config::new(1);
    config.peer_profiles[0].health.signs = crate::config::Signs::Heartbeats;
    let profiles = (config.peer_profile("default").unwrap(), config.breaker_profile("default"));
    let mut manager = Manager::new(config, 2).unwrap();
    let (breaker, peer) = (BreakerId(1), PeerId(1));
    let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
    let profile = profiles.1.unwrap();
    let _ = manager.step(Event::AddBreaker { breaker, profile }, from);
    let _ = manager.step(Event::AddPeer { peer, profile: profiles.0, endpoints }, from);
    let conn = dials(&manager.step(Event::Connect { peer }, from))[0];
    let _ = manager.step(Event::Connected { conn, resumed: false }, from);
    manager
}

#[test]
fn a_connection_that_no_timer_watches_is_found_out() {
    let manager = watched(Time::from_secs(1));
    let said = said_of(&manager, |bent| {
        bent.timers.disarm(TimerKind::Conn, 0);
        bent.deadline = bent.first_due();
    });
    assert_eq!(said, "connections: conns[0]: watched by no timer");
}

#[test]
#[cfg(feature = "serde")]
fn a_doubt_is_of_the_same_shape_an_hour_later() {
    let doubted = |from| {
        let mut manager = watched(from);
        while manager.stats().doubted == 0 {
            let due = manager.next_deadline().unwrap();
            let _ = manager.step(Event::Tick, due);
        }
        manager.shape_digest()
    };
    assert_eq!(doubted(Time::from_secs(1)), doubted(Time::from_secs(3_601)));
}
