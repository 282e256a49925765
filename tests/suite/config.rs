//! Every configuration that must be refused is, by the path of its field and with what is wrong.

use std::fmt::Write as _;
use std::time::Duration;

use steadfast::backoff::{BackoffConfig, Jitter};
use steadfast::breaker::RateRule;
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::budget::BudgetConfig;
use steadfast::bulkhead::BulkheadConfig;
use steadfast::config::{
    BreakerGroup, BreakerProfile, CallProfile, Detector, GateConfig, HealthConfig, MassGuardConfig,
    OpenOn, PeerProfile, Signs,
};
use steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast::limit::LimitConfig;
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;
use steadfast::self_health::SelfHealthConfig;
use steadfast::throttle::ThrottleConfig;
use steadfast::window::Span;
use steadfast::{CallFailure, Config, Manager, Ratio};

const ZERO: Duration = Duration::ZERO;

type Change = fn(&mut Config);

fn peer(config: &mut Config) -> &mut PeerProfile {
    &mut config.peer_profiles[0]
}

fn breaker(config: &mut Config) -> &mut BreakerProfile {
    &mut config.breaker_profiles[0]
}

/// The rates that `change` makes of the default ones, on a breaker that knows slow from fast.
fn rates(config: &mut Config, change: impl FnOnce(&mut RateRule)) {
    let mut rule = RateRule::default();
    change(&mut rule);
    breaker(config).breaker.slow_after = Some(Duration::from_secs(1));
    breaker(config).breaker.rates = Some(rule);
}

fn pings(config: &mut Config, change: impl FnOnce(&mut ProbeConfig)) {
    let mut probe = ProbeConfig::default();
    change(&mut probe);
    peer(config).health.signs = Signs::Pings(probe);
}

fn phi(config: &mut Config, change: impl FnOnce(&mut PhiConfig)) {
    let mut phi = PhiConfig::default();
    change(&mut phi);
    peer(config).health = HealthConfig {
        signs: Signs::Heartbeats,
        detector: Detector::Phi(phi),
        ..Default::default()
    };
}

const ONE: Duration = Duration::from_secs(1);
const B: BulkheadConfig = BulkheadConfig { max_concurrent: 1, max_waiting: 0, max_wait: None };

fn call(config: &mut Config) -> &mut CallProfile {
    &mut config.call_profiles[0]
}

fn gates(config: &mut Config) -> &mut GateConfig {
    &mut breaker(config).calls
}

fn limit(config: &mut Config, change: impl FnOnce(&mut LimitConfig)) {
    change(gates(config).limit.insert(LimitConfig::default()));
}

fn throttle(config: &mut Config, change: impl FnOnce(&mut ThrottleConfig)) {
    change(gates(config).throttle.insert(ThrottleConfig::default()));
}

fn budget(config: &mut Config, change: impl FnOnce(&mut BudgetConfig)) {
    change(gates(config).budget.insert(BudgetConfig::default()));
}

fn hedge(config: &mut Config, change: impl FnOnce(&mut HedgeConfig)) {
    change(gates(config).hedge.insert(HedgeConfig::default()));
}

fn opens_on(config: &mut Config, kind: CallFailure, open_for: Duration) {
    gates(config).open_on = vec![OpenOn { kind, open_for }];
}

fn group(config: &mut Config, max_open: Ratio) {
    config.breaker_groups = vec![BreakerGroup { max_open, ..BreakerGroup::default() }];
}

fn rate(count: u32, per: Duration, burst: u32) -> Option<BucketConfig> {
    Some(BucketConfig { rate: Rate { count, per }, burst })
}

#[test]
fn every_setting_that_is_refused_is_named_with_what_is_wrong() {
    let changes: &[(&str, Change)] = &[
        ("max_peers = 0", |c| c.limits.max_peers = 0),
        ("max_peers beyond the ids", |c| c.limits.max_peers = u32::MAX),
        ("max_breakers = 0", |c| c.limits.max_breakers = 0),
        ("max_endpoints = 0", |c| c.limits.max_endpoints = 0),
        ("max_endpoints = 65", |c| c.limits.max_endpoints = 65),
        ("max_work_per_step = 15", |c| c.limits.max_work_per_step = 15),
        ("a ping rate of 0", |c| c.ping_rate = rate(0, Duration::from_secs(1), 1)),
        ("a mass of more than all", |c| {
            let share = Ratio::percent(101);
            c.mass_guard = Some(MassGuardConfig { share, ..MassGuardConfig::default() });
        }),
        ("a detection that gets shorter", |c| {
            let max_stretch = Ratio::percent(99);
            c.self_health = Some(SelfHealthConfig { max_stretch, ..SelfHealthConfig::default() });
        }),
        ("no peer profile", |c| c.peer_profiles.clear()),
        ("no breaker profile", |c| c.breaker_profiles.clear()),
        ("two profiles of one name", |c| c.peer_profiles.push(PeerProfile::default())),
        ("two breakers of one name", |c| c.breaker_profiles.push(BreakerProfile::default())),
        ("global in flight = 0", |c| c.pacer.max_in_flight = 0),
        ("global rate of 0", |c| c.pacer.rate = rate(0, Duration::from_secs(1), 1)),
        ("global rate per 0 s", |c| c.pacer.rate = rate(1, ZERO, 1)),
        ("global burst = 0", |c| c.pacer.rate = rate(1, Duration::from_secs(1), 0)),
        ("assumed rate of 0", |c| c.pacer.assumed_rate.count = 0),
        ("fleet of 0", |c| c.pacer.fleet_size = 0),
        ("assumed rate per 0 s", |c| c.pacer.assumed_rate.per = ZERO),
        ("factor below 1", |c| peer(c).backoff.factor = Ratio::new(9, 10)),
        ("factor without denominator", |c| peer(c).backoff.factor = Ratio::new(2, 0)),
        ("factor hardly above 1", |c| peer(c).backoff.factor = Ratio::new(10_001, 10_000)),
        ("cap below base", |c| peer(c).backoff.cap = Duration::from_millis(1)),
        ("min_delay above base", |c| peer(c).backoff.min_delay = Some(Duration::from_secs(2))),
        ("jitter above a half", |c| {
            peer(c).backoff.jitter = Jitter::Proportional(Ratio::percent(51));
        }),
        ("jitter without denominator", |c| {
            peer(c).backoff.jitter = Jitter::Proportional(Ratio::new(0, 0));
        }),
        ("dial_timeout = 0", |c| peer(c).dial_timeout = ZERO),
        ("failover_timeout = 0", |c| peer(c).failover_timeout = ZERO),
        ("max_dial_timeout below", |c| peer(c).max_dial_timeout = Duration::from_secs(1)),
        ("slow_lane = 0", |c| peer(c).slow_lane = 0),
        ("slow_lane = 1,001", |c| peer(c).slow_lane = 1_001),
        ("max_attempts = 0", |c| peer(c).max_attempts = Some(0)),
        ("give_up_after = 0", |c| peer(c).give_up_after = Some(ZERO)),
        ("max_latency = 0", |c| peer(c).health.max_latency = Some(ZERO)),
        ("max_loss = 0", |c| peer(c).health.max_loss = Some(0)),
        ("max_loss above 1", |c| peer(c).health.max_loss = Some(1_000_001)),
        ("deadline = 0", |c| peer(c).health.detector = Detector::Deadline(ZERO)),
        ("ping interval = 0", |c| pings(c, |p| p.interval = ZERO)),
        ("ping timeout = 0", |c| pings(c, |p| p.timeout = ZERO)),
        ("unhealthy_threshold = 0", |c| pings(c, |p| p.unhealthy_threshold = 0)),
        ("healthy_threshold = 0", |c| pings(c, |p| p.healthy_threshold = 0)),
        ("phi threshold too low", |c| phi(c, |p| p.threshold_milli = 310)),
        ("phi threshold too high", |c| phi(c, |p| p.threshold_milli = 300_001)),
        ("phi expects every 0 s", |c| phi(c, |p| p.expected_interval = ZERO)),
        ("phi min_std = 0", |c| phi(c, |p| p.min_std = Some(ZERO))),
        ("phi memory = 1", |c| phi(c, |p| p.memory = 1)),
        ("probes = 0", |c| breaker(c).breaker.probes = 0),
        ("probes = 1025", |c| breaker(c).breaker.probes = 1_025),
        ("close_after = 0", |c| breaker(c).breaker.close_after = 0),
        ("consecutive_failures = 0", |c| breaker(c).breaker.consecutive_failures = Some(0)),
        ("slow_after = 0", |c| breaker(c).breaker.slow_after = Some(ZERO)),
        ("probe_timeout = 0", |c| breaker(c).breaker.probe_timeout = Some(ZERO)),
        ("ramp_for = 0", |c| breaker(c).breaker.ramp_for = Some(ZERO)),
        ("in flight, nothing is slow", |c| breaker(c).breaker.slow_in_flight = true),
        ("in flight, no slow rule", |c| {
            breaker(c).breaker.slow_after = Some(Duration::from_secs(1));
            breaker(c).breaker.slow_in_flight = true;
        }),
        ("open_for cap below base", |c| breaker(c).breaker.open_for.cap = ZERO),
        ("window of 0 outcomes", |c| rates(c, |r| r.window = Span::Count(0))),
        ("window of 65,537", |c| rates(c, |r| r.window = Span::Count(65_537))),
        ("window below its buckets", |c| {
            rates(c, |r| r.window = Span::Time(Duration::from_millis(9)));
        }),
        ("min_calls = 0", |c| rates(c, |r| r.min_calls = 0)),
        ("min_calls above the window", |c| rates(c, |r| r.min_calls = 101)),
        ("no rate at all", |c| rates(c, |r| r.failure_rate = None)),
        ("failure_rate = 0", |c| rates(c, |r| r.failure_rate = Some(Ratio::new(0, 1)))),
        ("failure_rate above 1", |c| rates(c, |r| r.failure_rate = Some(Ratio::percent(101)))),
        ("failure_rate of 0/0", |c| rates(c, |r| r.failure_rate = Some(Ratio::new(0, 0)))),
        ("slow_rate above 1", |c| rates(c, |r| r.slow_rate = Some(Ratio::percent(101)))),
        ("slow_rate, nothing is slow", |c| {
            rates(c, |r| r.slow_rate = Some(Ratio::percent(50)));
            breaker(c).breaker.slow_after = None;
        }),
        ("unhealthy_rate = 0", |c| rates(c, |r| r.unhealthy_rate = Some(Ratio::new(0, 9)))),
        ("in flight = 0", |c| breaker(c).max_in_flight = 0),
        ("window of 0", |c| breaker(c).window = Some(LimitConfig { min: 0, ..Default::default() })),
        ("rate of 0", |c| breaker(c).rate = rate(0, Duration::from_secs(1), 1)),
        ("burst = 0", |c| breaker(c).rate = rate(1, Duration::from_secs(1), 0)),
        ("max_calls = 0", |c| c.limits.max_calls = 0),
        ("no call profile", |c| c.call_profiles.clear()),
        ("two calls of one name", |c| c.call_profiles.push(CallProfile::default())),
        ("attempts = 0", |c| call(c).max_attempts = 0),
        ("attempts = 1,001", |c| call(c).max_attempts = 1_001),
        ("attempt_timeout = 0", |c| call(c).attempt_timeout = ZERO),
        ("min_attempt above timeout", |c| call(c).min_attempt = Duration::from_secs(11)),
        ("deadline = 0", |c| call(c).deadline = Some(ZERO)),
        ("deadline within min_attempt", |c| {
            call(c).deadline = Some(Duration::from_secs(1));
            call(c).min_attempt = Duration::from_secs(1);
        }),
        ("call backoff below 1", |c| call(c).backoff.factor = Ratio::new(1, 2)),
        ("retry of what is fatal", |c| call(c).retry_on = vec![CallFailure::Fatal]),
        ("hedges and one attempt", |c| {
            call(c).hedged = true;
            call(c).max_attempts = 1;
        }),
        ("max_wait = 0", |c| call(c).max_wait = ZERO),
        ("concurrent = 0", |c| gates(c).bulkhead.max_concurrent = 0),
        ("longest wait without line", |c| {
            gates(c).bulkhead.max_wait = Some(Duration::from_secs(1));
        }),
        ("longest wait = 0", |c| {
            gates(c).bulkhead = BulkheadConfig { max_waiting: 1, max_wait: Some(ZERO), ..B };
        }),
        ("limit above its bound", |c| limit(c, |l| l.min = 2_000)),
        ("limit min = 0", |c| limit(c, |l| l.min = 0)),
        ("limit starts outside", |c| limit(c, |l| l.initial = 2_000)),
        ("decrease = 0", |c| limit(c, |l| l.decrease = Ratio::new(0, 1))),
        ("decrease = 1", |c| limit(c, |l| l.decrease = Ratio::new(1, 1))),
        ("call rate of 0", |c| gates(c).rate = rate(0, Duration::from_secs(1), 1)),
        ("throttle below 1", |c| throttle(c, |t| t.multiplier = Ratio::new(9, 10))),
        ("throttle rejects all", |c| throttle(c, |t| t.max_reject = Ratio::new(1, 1))),
        ("throttle window too short", |c| throttle(c, |t| t.window = Duration::from_millis(9))),
        ("budget above 1", |c| budget(c, |b| b.ratio = Ratio::new(11, 10))),
        ("budget of 0/0", |c| budget(c, |b| b.ratio = Ratio::new(0, 0))),
        ("budget of nothing", |c| budget(c, |b| b.capacity = 0)),
        ("budget overfull", |c| budget(c, |b| b.initial = 11)),
        ("reserve of 0", |c| budget(c, |b| b.reserve = Some(Rate { count: 0, per: ONE }))),
        ("hedges = 0", |c| hedge(c, |h| h.max_hedges = 0)),
        ("hedge at all", |c| {
            hedge(c, |h| {
                let share = Ratio::new(1, 1);
                h.delay = HedgeDelay::Percentile { share, min_samples: 1, before: ONE };
            });
        }),
        ("opens on the caller's fault", |c| opens_on(c, CallFailure::Invalid, ONE)),
        ("opens twice on one kind", |c| {
            opens_on(c, CallFailure::Unavailable, ONE);
            let rule = gates(c).open_on[0];
            gates(c).open_on.push(rule);
        }),
        ("opens for 0 s", |c| opens_on(c, CallFailure::Unavailable, ZERO)),
        ("opens too long", |c| {
            opens_on(c, CallFailure::Unavailable, Duration::from_secs(301));
        }),
        ("no such group", |c| breaker(c).group = Some("replicas".into())),
        ("two groups of one name", |c| {
            c.breaker_groups = vec![BreakerGroup::default(), BreakerGroup::default()];
        }),
        ("group share = 0", |c| group(c, Ratio::new(0, 1))),
        ("group share above 1", |c| group(c, Ratio::new(3, 2))),
        ("burst for centuries", |c| breaker(c).rate = rate(1, Duration::MAX, 2)),
    ];
    let mut table = String::new();
    for (change, apply) in changes {
        let mut config = Config::new(1);
        apply(&mut config);
        match Manager::new(config.clone(), 2) {
            Ok(_) => writeln!(table, "{change:<28} TAKEN").unwrap(),
            Err(error) => {
                assert_eq!(config.validate(), Err(error.clone()));
                writeln!(table, "{change:<28} {}: {}", error.field(), error.problem()).unwrap();
            }
        }
    }
    insta::assert_snapshot!(table);
    assert!(!table.contains("TAKEN"));
}

#[test]
fn what_is_legal_and_hardly_meant_is_warned_of() {
    assert_eq!(Config::new(1).warnings(), []);
    let mut config = Config::new(1);
    call(&mut config).deadline = Some(Duration::from_secs(3));
    call(&mut config).hedged = true;
    let breaker = &mut breaker(&mut config).breaker;
    breaker.slow_after = Some(Duration::from_secs(10));
    breaker.stable_after = ZERO;
    let health = &mut peer(&mut config).health;
    health.signs =
        Signs::Pings(ProbeConfig { interval: Duration::from_secs(30), ..Default::default() });
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n"));
}

#[test]
fn nobody_is_warned_of_what_just_fits() {
    let mut config = Config::new(1);
    call(&mut config).deadline = Some(call(&mut config).attempt_timeout);
    let breaker = &mut breaker(&mut config).breaker;
    breaker.stable_after = breaker.open_for.base;
    let probe = ProbeConfig::default();
    let health = &mut peer(&mut config).health;
    health.signs = Signs::Pings(probe);
    health.detector = Detector::Deadline(probe.interval + probe.timeout);
    assert_eq!(config.warnings(), []);
}

#[test]
fn who_was_configured_before_there_was_a_setting_has_its_default() {
    let new = Config::new(1);
    let mut older = serde_json::to_value(&new).unwrap();
    let later =
        ["network", "self_health", "mass_guard", "ping_rate", "call_profiles", "breaker_groups"];
    for setting in later {
        assert!(older.as_object_mut().unwrap().remove(setting).is_some(), "{setting}");
    }
    let older: Config = serde_json::from_value(older).unwrap();
    assert_eq!(older, new);
    assert_eq!(older.self_health, Some(SelfHealthConfig::default()));
    assert_eq!(older.mass_guard, Some(MassGuardConfig::default()));
    assert_eq!(older.call_profiles, [CallProfile::default()]);
}

#[test]
fn what_looks_odd_and_is_legal_is_taken() {
    let changes: &[Change] = &[
        |c| peer(c).backoff = BackoffConfig { base: ZERO, cap: ZERO, ..Default::default() },
        |c| peer(c).backoff.factor = Ratio::new(7, 7),
        |c| peer(c).attempt_delay = ZERO,
        |c| peer(c).stable_after = ZERO,
        |c| peer(c).session_ttl = Some(Duration::MAX),
        |c| peer(c).dial_timeout = peer(c).max_dial_timeout,
        |c| breaker(c).breaker.consecutive_failures = None,
        |c| breaker(c).breaker.tolerate = u32::MAX,
        |c| c.sleep.max_hold = ZERO,
        |c| c.limits.max_endpoints = 64,
        |c| c.limits.max_peers = 1 << 27,
        |c| rates(c, |rule| rule.failure_rate = Some(Ratio::new(1, 1))),
    ];
    for (place, apply) in changes.iter().enumerate() {
        let mut config = Config::new(1);
        apply(&mut config);
        assert_eq!(config.validate(), Ok(()), "the one in place {place}");
    }
}

#[test]
fn an_unknown_key_is_refused() {
    let mut config = crate::text::tree_of(&Config::new(1));
    config["peer_profiles"][0]["backof"] = 1.into();
    let error = crate::text::read_config(&config).unwrap_err().to_string();
    assert!(error.contains("unknown field `backof`"), "{error}");
}
