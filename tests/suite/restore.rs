//! Damaged, truncated and hostile snapshots: always an error that names the place, never a panic
//! and never a manager that cannot go on.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::budget::BudgetConfig;
use steadfast::bulkhead::BulkheadConfig;
use steadfast::config::{
    BreakerGroup, BreakerProfile, Detector, FirstRetry, GateConfig, HealthConfig, OnSuspect, Signs,
};
use steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast::limit::LimitConfig;
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;
use steadfast::strategy::{Act, Address, Op, Shape, World};
use steadfast::throttle::ThrottleConfig;
use steadfast::{
    Action, BreakerId, BreakerProfileId, CallFailure, CallId, CallProfileId, Config, ConnId,
    DialCause, Endpoint, EndpointId, Event, LossCause, Manager, PeerId, Ratio, RestoreError,
    Target, Time,
};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/restore.txt");

/// A manager in which every table, list and leaf holds something.
fn lively() -> Manager {
    let mut config = Config::new(1);
    let plain = config.peer_profiles[0].clone();
    let mut named = |name: &str, signs, detector| {
        let mut profile = plain.clone();
        profile.name = name.into();
        profile.session_ttl = Some(Duration::from_secs(60));
        profile.max_attempts = Some(2);
        let on_suspect = OnSuspect::Notify;
        profile.health = HealthConfig { signs, detector, on_suspect, ..HealthConfig::default() };
        config.peer_profiles.push(profile);
    };
    let deadline = Detector::Deadline(Duration::from_secs(3));
    named("pings", Signs::Pings(ProbeConfig::default()), deadline);
    named("phi", Signs::Heartbeats, Detector::Phi(PhiConfig::default()));
    config.ping_rate = Some(BucketConfig { rate: Rate::per_second(1), burst: 2 });
    config.pacer.rate = Some(BucketConfig { rate: Rate::per_second(100), burst: 100 });
    config.breaker_profiles[0].breaker.consecutive_failures = Some(2);
    config.breaker_profiles[0].rate = Some(BucketConfig { rate: Rate::per_second(50), burst: 50 });
    config.breaker_profiles[0].breaker.rates = Some(steadfast::breaker::RateRule {
        window: steadfast::window::Span::Count(10),
        ..Default::default()
    });
    let mut gates = BreakerProfile::for_calls();
    (gates.breaker.slow_after, gates.breaker.slow_in_flight) = (Some(Duration::from_secs(9)), true);
    gates.breaker.rates = Some(steadfast::breaker::RateRule {
        slow_rate: Some(Ratio::percent(50)),
        ..Default::default()
    });
    gates.calls = GateConfig {
        bulkhead: BulkheadConfig { max_concurrent: 2, max_waiting: 4, max_wait: None },
        limit: Some(LimitConfig { initial: 2, ..LimitConfig::default() }),
        rate: Some(BucketConfig { rate: Rate::per_second(50), burst: 50 }),
        throttle: Some(ThrottleConfig::default()),
        hedge: Some(HedgeConfig::default()),
        budget: Some(BudgetConfig { initial: 5, ..BudgetConfig::default() }),
        ..GateConfig::default()
    };
    gates.group = Some("default".into());
    config.breaker_groups = vec![BreakerGroup::default()];
    config.breaker_profiles.push(gates);
    config.call_profiles[0].backoff.min_delay = Some(Duration::from_millis(90));
    config.call_profiles[0].backoff.base = Duration::from_secs(9);
    config.call_profiles[0].hedged = true;
    let mut world = World::new(Manager::new(config, 7).unwrap());
    let mut play = |ms, act| {
        world.play(&Op { after: Duration::from_millis(ms), act });
    };
    let at = |breakers: &[u8]| {
        let address = |(id, &breaker): (u8, &u8)| Address { id, breaker };
        (0..).zip(breakers).map(address).collect::<Vec<_>>()
    };
    for breaker in 0..4 {
        play(0, Act::AddBreaker { breaker, profile: 0 });
    }
    for (peer, profile, breakers) in [
        (0, 1, &[0, 1][..]),
        (1, 2, &[0]),
        (2, 0, &[0]),
        (3, 1, &[2]),
        (4, 1, &[1]),
        (5, 0, &[3]),
        (6, 0, &[3, 1]),
        (7, 0, &[2, 3]),
        (8, 0, &[0]),
    ] {
        play(0, Act::AddPeer { peer, profile, endpoints: at(breakers) });
    }
    play(0, Act::AddBreaker { breaker: 4, profile: 1 });
    let call = |peer, breaker| Act::Call { peer, breaker, profile: 0, within: None };
    let refused = |dial| Act::DialFailed { dial, cause: DialCause::Refused, retry_after: None };
    play(0, Act::ForceOpen { breaker: 3 });
    for peer in 0..8 {
        play(1, Act::Connect { peer });
    }
    // Peers 0, 1 and 4 come up; the one of breaker 2 fails until it gives up.
    play(10, Act::Connected { dial: 0, resumed: false });
    play(0, Act::Connected { dial: 0, resumed: false });
    play(5, Act::Lost { conn: 1, cause: LossCause::Reset });
    for _ in 0..6 {
        play(400, refused(1));
        play(10, Act::Heartbeat { conn: 0 });
    }
    play(10_500, Act::Metrics { conn: 0, latency: Duration::from_millis(80), loss: 9 });
    play(700, Act::Connected { dial: 0, resumed: false });
    play(11_000, refused(0));
    // Calls that run, wait in line, for a connection and for their next attempt.
    for peer in [None, Some(0), None, Some(5), Some(3)] {
        play(20, call(peer, 4));
    }
    let (kind, retry_after) = (CallFailure::Error, None);
    play(20, Act::Failed { attempt: 0, kind, retry_after });
    play(250, Act::Succeeded { attempt: 0 });
    for peer in [Some(0), None, Some(0), None] {
        play(5, call(peer, 4));
    }
    play(5, Act::RemovePeer { peer: 8 });
    let manager = world.manager().clone();
    manager.check().unwrap();
    manager
}

fn snapshot() -> Value {
    crate::text::tree(&lively().snapshot())
}

/// What is wrong with the snapshot, or `None` if a manager came of it.
fn refusal(value: &Value) -> Option<String> {
    refusal_of(value.to_string().as_bytes())
}

fn refusal_of(text: &[u8]) -> Option<String> {
    // As text, the way it comes in: trees of values hide what a parser refuses.
    match crate::text::read(text) {
        Err(error) => Some(error.to_string()),
        Ok(snapshot) => Manager::restore(snapshot, 1).err().map(|error| error.to_string()),
    }
}

/// Calls `visit` with the pointer of every value in the tree.
fn walk(value: &Value, at: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(at, value);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                walk(field, &format!("{at}/{name}"), visit);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                walk(item, &format!("{at}/{place}"), visit);
            }
        }
        _ => {}
    }
}

fn pointers(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    walk(value, "", &mut |at, _| all.push(at.to_string()));
    all
}

fn remove(value: &mut Value, at: &str) {
    let (parent, name) = at.rsplit_once('/').unwrap();
    match value.pointer_mut(parent).unwrap() {
        Value::Object(fields) => {
            fields.remove(name);
        }
        Value::Array(items) => {
            items.remove(name.parse().unwrap());
        }
        _ => unreachable!(),
    }
}

/// The text of the tree with `"@"` in this place, for others to be put there, and what is there. To
/// copy the tree for each of them takes longer than all that is done with it.
fn marked(tree: &mut Value, at: &str) -> (String, Value) {
    let value = tree.pointer_mut(at).unwrap().take();
    *tree.pointer_mut(at).unwrap() = json!("@");
    let text = tree.to_string();
    *tree.pointer_mut(at).unwrap() = value.clone();
    assert_eq!(text.matches("\"@\"").count(), 1);
    (text, value)
}

#[test]
fn the_snapshot_that_is_damaged_here_is_whole_and_lively() {
    let whole = snapshot();
    assert_eq!(refusal(&whole), None);
    for place in [
        "/lists/backing_off/0",
        "/lists/failed/0",
        "/lists/live/0",
        "/timers/3",
        "/conns/slots/0/id",
        "/endpoints/slots/0/rhythm",
        "/lists/queues/3/0",
        "/peers/free/0",
        "/pacer/credit",
        "/calls/slots/0/id",
        "/attempts/slots/0/id",
        "/attempts/slots/1/id",
        "/lists/waiting/0",
        "/lists/bound/0",
        "/breakers/slots/4/gates/bulkhead",
        "/breakers/slots/4/gates/hedge",
    ] {
        assert!(whole.pointer(place).is_some(), "{place} in {whole:#}");
    }
}

#[test]
fn a_missing_field_is_an_error_that_names_it() {
    let mut whole = snapshot();
    let mut missed = Vec::new();
    walk(&whole, "", &mut |at, value| {
        let Value::Object(fields) = value else { return };
        missed.extend(fields.keys().map(|name| (at.to_owned(), name.clone())));
    });
    for (within, name) in missed {
        let at = format!("{within}/{name}");
        let fields = whole.pointer_mut(&within).unwrap();
        let field = fields.as_object_mut().unwrap().remove(&name).unwrap();
        let refusal = refusal(&whole);
        whole.pointer_mut(&within).unwrap()[&name] = field;
        // What has a default, in the configuration, may be left out.
        if let Some(problem) = refusal {
            let named =
                problem.contains(&name) || problem.contains("line") || problem.contains("at ");
            // A group that is left out is missed by its breakers.
            let named = named || at == "/config/breaker_groups";
            assert!(named, "{at}: {problem}");
        } else {
            assert!(at.starts_with("/config/"), "{at} was not missed");
        }
    }
}

#[test]
fn a_value_of_another_type_is_an_error() {
    let mut whole = snapshot();
    // Of many slots one is enough.
    let mut seen = BTreeSet::new();
    let alike = |at: &String| at.replace(|digit: char| digit.is_ascii_digit(), "");
    for at in pointers(&whole).into_iter().filter(|at| seen.insert(alike(at))) {
        let (text, was) = marked(&mut whole, &at);
        for other in [json!(null), json!("text"), json!([]), json!({}), json!(-1), json!(1.5)] {
            let damaged = text.replacen("\"@\"", &other.to_string(), 1);
            // In the configuration all may be left to its default, and a profile has any name; an
            // empty slot that is not free is retired.
            let retired = at.ends_with("/free") && other == json!([]);
            let legal = was == other || other.is_null() || at.starts_with("/config/");
            let legal = legal || retired;
            assert!(refusal_of(damaged.as_bytes()).is_some() || legal, "{at}: {other} was taken");
        }
    }
}

/// A breaker opens, and the step has no work left for all who must find another place.
#[test]
fn a_snapshot_from_the_middle_of_an_outage_is_taken() {
    let mut config = Config::new(1);
    config.limits.max_work_per_step = 16;
    config.peer_profiles[0].session_ttl = Some(Duration::from_secs(60));
    config.peer_profiles[0].first_retry = FirstRetry::Immediate;
    config.breaker_profiles[0].max_in_flight = 1;
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    let (guard, profile) =
        (config.breaker_profile("default").unwrap(), config.peer_profile("default").unwrap());
    let mut manager = Manager::new(config, 1).unwrap();
    let breakers = [BreakerId(1), BreakerId(2)];
    for breaker in breakers {
        let _ = manager.step(Event::AddBreaker { breaker, profile: guard }, Time::ZERO);
    }
    let endpoints = [(1, breakers[0]), (2, breakers[1])];
    let endpoints = endpoints.map(|(id, breaker)| Endpoint { id: EndpointId(id), breaker });
    let mut up = Vec::new();
    for id in 0..60 {
        let (peer, endpoints) = (PeerId(id), endpoints.to_vec());
        let _ = manager.step(Event::AddPeer { peer, profile, endpoints }, Time::ZERO);
        let conn = dial(&manager.step(Event::Connect { peer }, Time::ZERO)).unwrap();
        let _ = manager.step(Event::Connected { conn, resumed: false }, Time::ZERO);
        up.push(conn);
    }
    let now = Time::from_secs(30);
    let lost = up.into_iter().map(|conn| Event::Lost { conn, cause: LossCause::Reset });
    let dials: Vec<_> = lost.filter_map(|event| dial(&manager.step(event, now))).collect();
    let refused = DialCause::Refused;
    let event = Event::DialFailed { conn: dials[0], cause: refused, retry_after: None };
    let _ = manager.step(event, now);
    assert_eq!(manager.next_deadline(), Some(now), "there was work for one step only");
    let text = crate::text::written(&manager.snapshot());
    let restored = Manager::restore(crate::text::read(&text).unwrap(), 2).unwrap();
    assert_eq!(restored.state_digest(), manager.state_digest());
}

fn dial(actions: &[Action]) -> Option<ConnId> {
    actions.iter().find_map(|action| match action {
        Action::Dial { conn, .. } => Some(*conn),
        _ => None,
    })
}

#[test]
fn a_truncated_snapshot_is_an_error() {
    let text = snapshot().to_string();
    for end in (0..text.len()).step_by(97) {
        assert!(crate::text::read(&text.as_bytes()[..end]).is_err(), "{end}");
    }
}

/// Of many slots one is enough.
fn numbers(value: &Value) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let alike = |at: &str| at.replace(|digit: char| digit.is_ascii_digit(), "");
    let mut all = Vec::new();
    walk(value, "", &mut |at, value| {
        if value.is_number() && seen.insert(alike(at)) {
            all.push(at.to_string());
        }
    });
    all
}

#[test]
fn what_is_no_whole_number_is_an_error_wherever_a_number_stands() {
    let mut whole = snapshot();
    for at in numbers(&whole) {
        let (text, _) = marked(&mut whole, &at);
        for other in ["1e999", "1e3", "NaN", "340282366920938463463374607431768211456"] {
            let text = text.replace("\"@\"", other);
            let error = crate::text::read(text.as_bytes()).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(" at line 1 column "), "{at}: {error}");
        }
    }
}

#[test]
fn no_number_is_so_absurd_that_a_manager_with_it_cannot_go_on() {
    let mut whole = snapshot();
    for at in numbers(&whole) {
        let (text, _) = marked(&mut whole, &at);
        for absurd in [u64::MAX, (1 << 63) - 1, u64::from(u32::MAX), 65_535] {
            let damaged = text.replace("\"@\"", &absurd.to_string());
            let Ok(snapshot) = crate::text::read(damaged.as_bytes()) else { continue };
            match Manager::restore(snapshot, 1) {
                Err(error) => assert!(error.to_string().contains(": "), "{at}: {error}"),
                Ok(mut manager) => {
                    for _ in 0..20 {
                        let Some(due) = manager.next_deadline() else { break };
                        let _ = manager.step(Event::Tick, due);
                        assert_eq!(manager.check(), Ok(()), "{at} = {absurd}");
                    }
                }
            }
        }
    }
}

#[test]
fn no_flipped_bit_makes_it_panic() {
    let text = snapshot().to_string().into_bytes();
    for place in (0..text.len()).step_by(397) {
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[place] ^= 1 << bit;
            if let Ok(snapshot) = crate::text::read(&flipped) {
                let _ = Manager::restore(snapshot, 1);
            }
        }
    }
}

#[test]
fn a_field_that_nobody_knows_is_an_error() {
    let mut damaged = snapshot();
    damaged["colour"] = json!("red");
    insta::assert_snapshot!(refusal(&damaged).unwrap().split(", expected").next().unwrap());
}

#[test]
fn a_refused_configuration_is_told_as_the_reason() {
    let mut damaged = snapshot();
    damaged["config"]["pacer"]["max_in_flight"] = json!(0);
    let refused = crate::text::read(damaged.to_string().as_bytes()).unwrap();
    let error = Manager::restore(refused, 1).unwrap_err();
    let RestoreError::Config(reason) = &error else { panic!("{error:?}") };
    assert_eq!(error.source().map(ToString::to_string), Some(reason.to_string()));
    let other = RestoreError::Version { found: 1, expected: 2 };
    assert!(other.source().is_none());
}

#[test]
fn what_is_a_hedge_and_what_is_not_cannot_be_exchanged() {
    let mut config = Config::new(1);
    let delay = HedgeDelay::After(Duration::from_millis(100));
    config.breaker_profiles[0].calls.hedge = Some(HedgeConfig { delay, ..HedgeConfig::default() });
    config.breaker_profiles[0].calls.budget = None;
    config.call_profiles[0].hedged = true;
    let mut manager = Manager::new(config, 1).unwrap();
    let breaker = BreakerId(0);
    let (call, target) = (CallId(0), Target::Breaker(breaker));
    for event in [
        Event::AddBreaker { breaker, profile: BreakerProfileId(0) },
        Event::Call { call, target, profile: CallProfileId(0), deadline: None },
    ] {
        let _ = manager.step(event, Time::ZERO);
    }
    let _ = manager.step(Event::Tick, Time::from_nanos(100_000_000));
    let whole = serde_json::to_value(manager.snapshot()).unwrap();
    let hedges = |snapshot: &Value| {
        [0, 1].map(|slot| snapshot["attempts"]["slots"][slot]["hedge"].as_bool().unwrap())
    };
    assert_eq!((refusal(&whole), hedges(&whole)), (None, [false, true]));
    for (flags, problem) in [
        ([false, false], "no hedge, beside another"),
        ([true, false], "no hedge, beside another"),
        ([true, true], "2 hedges run, 1 were made"),
    ] {
        let mut damaged = whole.clone();
        for (slot, flag) in flags.into_iter().enumerate() {
            damaged["attempts"]["slots"][slot]["hedge"] = json!(flag);
        }
        let refused = refusal(&damaged).unwrap();
        assert!(refused.contains(problem), "{flags:?}: {refused}");
    }
}

/// Each damage done by hand, and what is said of it.
#[test]
fn what_no_manager_can_be_in_is_refused_by_its_place() {
    let huge = json!(u64::MAX);
    let far = json!(4_000_000_000_u32);
    let timers = &snapshot()["timers"];
    let mut twin = timers[1].clone();
    for field in ["deadline", "sequence"] {
        twin[field] = timers[0][field].clone();
    }
    let damages: Vec<(&str, Value)> = vec![
        ("/version", json!(1)),
        ("/config/pacer/max_in_flight", json!(0)),
        ("/peers/slots/0/id", json!(1)),
        ("/peers/slots/0/profile", json!(9)),
        ("/peers/slots/0/phase", json!({"up": {"conn": far}})),
        ("/peers/slots/0/phase", json!("idle")),
        ("/peers/slots/0/phase", json!({"backing_off": {"until": 5}})),
        ("/peers/slots/0/first_endpoint", far.clone()),
        ("/peers/slots/0/first_endpoint", json!(2)),
        ("/peers/slots/0/first_endpoint", json!(null)),
        ("/peers/slots/0/told", json!("failed")),
        ("/peers/slots/0/measured", json!([1, 2_000_000])),
        ("/peers/free", json!([far])),
        ("/peers/free", json!([0])),
        ("/peers/free", json!([8, 8])),
        ("/endpoints/slots/0/peer", far.clone()),
        ("/endpoints/slots/0/peer", json!(1)),
        ("/endpoints/slots/0/breaker", far.clone()),
        ("/endpoints/slots/0/breaker", json!(3)),
        ("/endpoints/slots/0/next", far.clone()),
        ("/endpoints/slots/0/next", json!(0)),
        ("/endpoints/slots/0/next", json!(1)),
        ("/endpoints/slots/1/next", json!(null)),
        ("/conns/slots/0/id", json!(1)),
        ("/conns/slots/0/peer", far.clone()),
        ("/conns/slots/0/endpoint", far.clone()),
        ("/conns/slots/0/process", json!(7)),
        ("/conns/slots/0/rhythm", json!({"mean": 1, "var": 1, "samples": 3})),
        ("/conns/slots/0/attentive", json!(false)),
        ("/conns/slots/0/trust", json!({"held": {"at": 5}})),
        ("/conns/slots/0/excused", huge.clone()),
        ("/breakers/slots/0/crowd/up", json!(7)),
        ("/breakers/slots/0/crowd/doubted", json!(7)),
        ("/breakers/slots/0/crowd/held", json!(7)),
        ("/breakers/slots/0/refusals/second", json!(3)),
        ("/breakers/slots/0/refusals/common", json!(true)),
        ("/pinger", json!(null)),
        ("/self_health/score", json!(8)),
        ("/self_health/score", json!(7)),
        ("/lists/asking", json!([far])),
        ("/lists/asking", json!([0, 0])),
        ("/lists/asking", json!([1])),
        ("/generations", json!([])),
        ("/generations/0", huge.clone()),
        ("/pings", json!([0])),
        ("/breakers/slots/0/id", json!(1)),
        ("/breakers/slots/0/profile", json!(3)),
        ("/breakers/slots/0/in_flight", json!(5)),
        ("/breakers/slots/0/endpoints", json!(77)),
        ("/breakers/slots/0/tickets", huge.clone()),
        ("/breakers/slots/3/tickets", json!(0)),
        ("/lists/queues/3", json!([0])),
        ("/lists/queues/3", json!([far])),
        ("/lists/queues/3", json!([])),
        ("/breakers/slots/0/bucket", json!(null)),
        ("/breakers/slots/0/bucket/credit", huge.clone()),
        ("/breakers/slots/0/breaker/generation", huge.clone()),
        ("/breakers/slots/0/breaker/window", json!(null)),
        ("/breakers/slots/0/losses/newest", huge.clone()),
        ("/lists/backing_off", json!([])),
        ("/lists/backing_off", json!([far])),
        ("/lists/failed", json!([0])),
        ("/lists/live", json!([0, 0])),
        ("/lists/orphans", json!([0])),
        ("/lists/displaced", json!([0])),
        ("/lists/ring", json!([0])),
        ("/lists/ring", json!([far])),
        ("/timers/0/slot", far.clone()),
        ("/timers/0/kind", json!("pacer")),
        ("/timers/0/deadline", huge.clone()),
        ("/timers/1", twin),
        ("/timers", json!([])),
        ("/next_sequence", json!(0)),
        ("/next_sequence", huge.clone()),
        ("/pacer", json!(null)),
        ("/pacer_blocked", json!(true)),
        ("/load", json!(1_000_001)),
        ("/stats", json!(null)),
        ("/stats/peers/connected", json!(9)),
        ("/stats/dials_in_flight", json!(9)),
        ("/calls/slots/0/id", json!(4)),
        ("/calls/slots/0/profile", json!(7)),
        ("/calls/slots/0/breaker", far.clone()),
        ("/calls/slots/0/breaker", json!(0)),
        ("/calls/slots/0/phase", json!("asked")),
        ("/calls/slots/0/phase", json!({"backing_off": {"until": 5}})),
        ("/calls/slots/0/first_attempt", far.clone()),
        ("/calls/slots/0/attempts", json!(9)),
        ("/calls/slots/0/process", json!(3)),
        ("/calls/free", json!([0])),
        ("/attempts/slots/0/id", json!(1)),
        ("/attempts/slots/0/call", far.clone()),
        ("/attempts/slots/0/next", json!(0)),
        ("/attempts/slots/0/hedge", json!(true)),
        ("/attempts/slots/0/permit/generation", huge.clone()),
        ("/attempt_generations", json!([])),
        ("/breakers/slots/4/calls", json!(1)),
        ("/breakers/slots/4/gates", json!(null)),
        ("/breakers/slots/4/gates/limit", json!(null)),
        ("/breakers/slots/4/gates/bulkhead/in_use", json!(3)),
        ("/lists/live_calls", json!([0, 0])),
        ("/lists/orphan_calls", json!([0])),
        ("/lists/released", json!([0])),
        ("/lists/doomed", json!([0])),
        ("/lists/waiting", json!([0])),
        ("/lists/waiting", json!([far])),
        ("/lists/bound", json!([])),
        ("/lists/waiting", json!([])),
        ("/lists/moving", json!([0])),
        ("/stats/calls", json!(3)),
        ("/stats/calls_now/running", json!(9)),
        ("/stats/attempts_in_flight", json!(9)),
        ("/stats/dials", huge.clone()),
        ("/stats/stale", huge),
    ];
    let whole = snapshot();
    let mut table = String::new();
    for (at, value) in damages {
        let mut damaged = whole.clone();
        let Some(place) = damaged.pointer_mut(at) else { panic!("no {at} in {whole:#}") };
        *place = value.clone();
        let said = refusal(&damaged).unwrap_or_else(|| "TAKEN".into());
        // A place in the text is none that a person looks for.
        let said = said.split(", expected").next().unwrap().split(" at line ").next().unwrap();
        table.push_str(&format!("{at} = {value}\n    {said}\n"));
    }
    insta::assert_snapshot!(table);
    assert!(!table.contains("TAKEN"));
}

#[test]
fn a_rhythm_that_is_no_number_is_refused() {
    let whole = snapshot();
    let mut places = Vec::new();
    walk(&whole, "", &mut |at, value| {
        if at.ends_with("/rhythm") && value.is_object() {
            places.push(at.to_string());
        }
    });
    assert!(!places.is_empty());
    for at in places {
        for absurd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::MAX] {
            for field in ["mean", "var"] {
                let mut damaged = whole.clone();
                damaged.pointer_mut(&at).unwrap()[field] = json!(absurd.to_bits());
                let problem = refusal(&damaged).unwrap();
                assert!(problem.contains("rhythm"), "{at}/{field} = {absurd}: {problem}");
            }
        }
    }
}

/// One thing done to a snapshot.
#[derive(Clone, Debug)]
enum Damage {
    Remove(Index),
    Number(Index, u64),
    Copy(Index, Index),
    Double(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let number = prop_oneof![
        3 => 0..12_u64,
        1 => Just(u64::MAX),
        1 => Just(u64::from(u32::MAX)),
        1 => Just(1 << 63),
        2 => any::<u32>().prop_map(u64::from),
        1 => any::<u64>(),
    ];
    prop_oneof![
        1 => any::<Index>().prop_map(Damage::Remove),
        6 => (any::<Index>(), number).prop_map(|(at, number)| Damage::Number(at, number)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Copy(from, to)),
        1 => any::<Index>().prop_map(Damage::Double),
    ]
}

fn inflict(value: &mut Value, damage: &Damage) {
    let all = |keep: &dyn Fn(&Value) -> bool| {
        let mut all = Vec::new();
        walk(value, "", &mut |at, value| {
            if !at.is_empty() && keep(value) {
                all.push(at.to_string());
            }
        });
        all
    };
    match damage {
        Damage::Remove(at) => {
            let at = at.get(&all(&|_| true)).clone();
            remove(value, &at);
        }
        Damage::Number(at, number) => {
            let at = at.get(&all(&Value::is_number)).clone();
            *value.pointer_mut(&at).unwrap() = json!(number);
        }
        Damage::Copy(from, to) => {
            let numbers = all(&Value::is_number);
            let copied = value.pointer(from.get::<String>(&numbers)).unwrap().clone();
            *value.pointer_mut(to.get::<String>(&numbers)).unwrap() = copied;
        }
        Damage::Double(at) => {
            let filled = all(&|value| value.as_array().is_some_and(|items| !items.is_empty()));
            let items =
                value.pointer_mut(at.get::<String>(&filled)).unwrap().as_array_mut().unwrap();
            items.push(items[0].clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_restored_of_a_damaged_snapshot_can_go_on(
        damages in prop::collection::vec(damage(), 1..3),
        script in prop::collection::vec(
            Shape { peers: 8, breakers: 4, peer_profiles: 3, ..Shape::default() }.op(), 50,
        ),
    ) {
        let mut damaged = snapshot();
        for damage in &damages {
            inflict(&mut damaged, damage);
        }
        let Ok(snapshot) = crate::text::read_tree(&damaged) else { return Ok(()) };
        match Manager::restore(snapshot, 1) {
            Err(error) => prop_assert!(!error.to_string().is_empty()),
            Ok(manager) => {
                manager.check()?;
                let mut world = World::new(manager);
                for op in &script {
                    world.play(op);
                    world.manager().check()?;
                }
            }
        }
    }
}

/// What a peer has that never failed, and one that is forgiven, is the same: whether there is a
/// place for it in memory may not show, since a restored manager has fewer of them.
#[test]
fn what_was_forgotten_before_is_forgotten_in_the_copy_as_well() {
    let config = Config::new(1);
    let (guard, profile) =
        (config.breaker_profile("default").unwrap(), config.peer_profile("default").unwrap());
    let mut manager = Manager::new(config, 1).unwrap();
    let breaker = BreakerId(1);
    let mut now = Time::ZERO;
    let _ = manager.step(Event::AddBreaker { breaker, profile: guard }, now);
    for peer in [PeerId(0), PeerId(1)] {
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
        let _ = manager.step(Event::AddPeer { peer, profile, endpoints }, now);
    }
    let conn = dial(&manager.step(Event::Connect { peer: PeerId(1) }, now)).unwrap();
    let failed = Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None };
    for event in [failed, Event::Disconnect { peer: PeerId(1) }] {
        let _ = manager.step(event, now);
    }
    let mut copy = Manager::restore(manager.snapshot(), 2).unwrap();
    for event in [
        Event::NetworkChanged,
        Event::Tick,
        Event::Connect { peer: PeerId(0) },
        Event::Disconnect { peer: PeerId(0) },
        Event::RemovePeer { peer: PeerId(1) },
    ] {
        now += Duration::from_secs(2);
        assert_eq!(manager.step(event.clone(), now), copy.step(event.clone(), now));
        assert_eq!(manager.state_digest(), copy.state_digest(), "after {event:?}");
        manager.check().unwrap();
    }
}

#[test]
fn a_dial_with_what_only_a_connection_has_is_refused() {
    let mut config = Config::new(1);
    let detector = Detector::Phi(PhiConfig::default());
    config.peer_profiles[0].health =
        HealthConfig { signs: Signs::Heartbeats, detector, ..HealthConfig::default() };
    let (guard, profile) =
        (config.breaker_profile("default").unwrap(), config.peer_profile("default").unwrap());
    let mut manager = Manager::new(config, 1).unwrap();
    let breaker = BreakerId(1);
    let _ = manager.step(Event::AddBreaker { breaker, profile: guard }, Time::ZERO);
    let mut dials = Vec::new();
    for peer in [PeerId(0), PeerId(1)] {
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
        let _ = manager.step(Event::AddPeer { peer, profile, endpoints }, Time::ZERO);
        dials.extend(dial(&manager.step(Event::Connect { peer }, Time::ZERO)));
    }
    let _ = manager.step(Event::Connected { conn: dials[0], resumed: false }, Time::ZERO);
    let whole = crate::text::tree(&manager.snapshot());
    assert_eq!(refusal(&whole), None);
    for (field, value) in [
        ("rhythm", whole["conns"]["slots"][0]["rhythm"].clone()),
        ("trust", json!({"doubted": {"at": 0}})),
    ] {
        let mut damaged = whole.clone();
        damaged["conns"]["slots"][1][field] = value;
        let place = format!("the snapshot is damaged at conns[1].{field}: of one that is not up");
        assert_eq!(refusal(&damaged), Some(place));
    }
}
