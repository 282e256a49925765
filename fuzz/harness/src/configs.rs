//! Configurations in which scripts of a minute reach every limit.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use steadfast::Config;
use steadfast::backoff::{BackoffConfig, Jitter};
use steadfast::breaker::{BreakerConfig, RateRule};
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::budget::BudgetConfig;
use steadfast::bulkhead::BulkheadConfig;
use steadfast::config::{
    BreakerGroup, BreakerProfile, CallProfile, Detector, FirstRetry, GateConfig, HealthConfig,
    MassGuardConfig, NotConnected, OnSuspect, OpenOn, PeerProfile, Priority, Signs,
};
use steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast::limit::LimitConfig;
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;
use steadfast::throttle::ThrottleConfig;
use steadfast::window::Span;
use steadfast::{CallFailure, Ratio};

use crate::damage::damage;

/// One of these configurations, whose numbers the bytes may have changed.
pub(crate) fn config(bytes: &mut Unstructured<'_>) -> Result<Config> {
    let config = preset(bytes)?;
    let damages = bytes.arbitrary::<u8>()? % 8;
    if damages >= 4 {
        return Ok(config);
    }
    let mut tree = serde_json::from_slice(&serde_json::to_vec(&config).unwrap()).unwrap();
    for _ in 0..damages {
        damage(&mut tree, bytes)?;
    }
    let changed = serde_json::from_slice::<Config>(tree.to_string().as_bytes()).ok();
    Ok(changed.filter(|changed| changed.validate().is_ok()).unwrap_or(config))
}

/// One of these configurations as it is.
pub(crate) fn preset(bytes: &mut Unstructured<'_>) -> Result<Config> {
    let mut config = match bytes.arbitrary::<u8>()? % 4 {
        0 => Config::new(42),
        _ => varied(),
    };
    config.limits.max_work_per_step = *bytes.choose(&[256, 16])?;
    if bytes.ratio(1, 4)? {
        (config.self_health, config.mass_guard, config.pacer.rate) = (None, None, None);
    }
    Ok(config)
}

/// Small limits and short spans, and each kind of policy once.
pub(crate) fn varied() -> Config {
    let mut config = Config::new(42);
    config.limits.max_peers = 5;
    config.limits.max_breakers = 3;
    config.limits.max_calls = 6;
    config.pacer.max_in_flight = 4;
    config.pacer.fleet_size = 2;
    config.pacer.rate = rate(4, 6);
    config.ping_rate = rate(3, 3);
    config.mass_guard = Some(MassGuardConfig {
        min_peers: 2,
        min_silent: 1,
        believe_for: secs(8),
        ..MassGuardConfig::default()
    });
    config.peer_profiles = peers();
    config.breaker_profiles = breakers();
    config.breaker_groups = vec![BreakerGroup::default()];
    config.call_profiles = calls();
    config
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn rate(per_second: u32, burst: u32) -> Option<BucketConfig> {
    Some(BucketConfig { rate: Rate::per_second(per_second), burst })
}

fn peers() -> Vec<PeerProfile> {
    let backoff = BackoffConfig { base: ms(500), cap: secs(8), ..BackoffConfig::default() };
    let plain = PeerProfile {
        backoff,
        dial_timeout: secs(3),
        failover_timeout: secs(1),
        max_dial_timeout: secs(6),
        stable_after: secs(2),
        failback_after: Some(secs(4)),
        session_ttl: Some(secs(5)),
        inbound: true,
        ..PeerProfile::default()
    };
    let probe = ProbeConfig {
        interval: secs(1),
        timeout: ms(700),
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        spread: true,
    };
    let health = HealthConfig {
        signs: Signs::Pings(probe),
        detector: Detector::Deadline(secs(4)),
        max_latency: Some(secs(2)),
        max_loss: Some(100_000),
        ..HealthConfig::default()
    };
    let phi = Detector::Phi(PhiConfig { acceptable_pause: secs(1), ..PhiConfig::default() });
    let beats = HealthConfig {
        signs: Signs::Heartbeats,
        detector: phi,
        on_suspect: OnSuspect::Notify,
        ..health
    };
    let like = |name: &str| PeerProfile { name: name.into(), ..plain.clone() };
    vec![
        plain.clone(),
        PeerProfile { health, ..like("pings") },
        PeerProfile {
            first_retry: FirstRetry::Immediate,
            backoff: BackoffConfig { jitter: Jitter::Equal, ..backoff },
            health: beats,
            ..like("phi")
        },
        PeerProfile {
            priority: Priority::Background,
            health: HealthConfig { on_suspect: OnSuspect::Notify, ..health },
            ..like("asked")
        },
        PeerProfile {
            health: HealthConfig { on_suspect: OnSuspect::Race, ..health },
            ..like("raced")
        },
        PeerProfile {
            priority: Priority::Important,
            first_retry: FirstRetry::Backoff,
            backoff: BackoffConfig { jitter: Jitter::Decorrelated, ..backoff },
            max_attempts: Some(3),
            give_up_after: Some(secs(12)),
            inbound: false,
            health: HealthConfig {
                detector: Detector::Deadline(secs(3)),
                on_suspect: OnSuspect::Drop,
                ..beats
            },
            ..like("quitter")
        },
    ]
}

fn breakers() -> Vec<BreakerProfile> {
    let narrow = BreakerProfile {
        breaker: BreakerConfig { consecutive_failures: Some(2), ..BreakerConfig::for_dials() },
        max_in_flight: 2,
        window: Some(LimitConfig { initial: 1, min: 1, max: 3, ..LimitConfig::default() }),
        adaptive: true,
        calls: GateConfig {
            bulkhead: BulkheadConfig { max_concurrent: 2, max_waiting: 3, max_wait: Some(secs(2)) },
            rate: rate(1, 2),
            budget: Some(BudgetConfig { initial: 3, ..BudgetConfig::default() }),
            hedge: Some(HedgeConfig { delay: HedgeDelay::After(ms(800)), max_hedges: 2 }),
            open_on: vec![OpenOn { kind: CallFailure::Unavailable, open_for: secs(3) }],
            ..GateConfig::default()
        },
        ..BreakerProfile::default()
    };
    let paced = BreakerProfile {
        name: "paced".into(),
        breaker: BreakerConfig {
            consecutive_failures: Some(3),
            rates: Some(RateRule {
                window: Span::Count(8),
                min_calls: 4,
                slow_rate: Some(Ratio::percent(75)),
                ..RateRule::default()
            }),
            slow_after: Some(secs(1)),
            slow_in_flight: true,
            ramp_for: Some(secs(3)),
            probes: 2,
            close_after: 1,
            tolerate: 0,
            ..BreakerConfig::for_dials()
        },
        rate: rate(1, 2),
        common_refusals: false,
        calls: GateConfig {
            bulkhead: BulkheadConfig { max_concurrent: 6, max_waiting: 1, max_wait: None },
            limit: Some(LimitConfig { initial: 2, max: 4, ..LimitConfig::default() }),
            throttle: Some(ThrottleConfig {
                window: secs(5),
                padding: 1,
                ..ThrottleConfig::default()
            }),
            budget: Some(BudgetConfig { capacity: 2, initial: 2, ..BudgetConfig::default() }),
            hedge: Some(HedgeConfig::default()),
            ..GateConfig::default()
        },
        group: Some("default".into()),
        ..BreakerProfile::default()
    };
    vec![narrow, paced]
}

fn calls() -> Vec<CallProfile> {
    let plain = CallProfile {
        attempt_timeout: secs(2),
        deadline: Some(secs(10)),
        max_retry_after: secs(15),
        max_wait: secs(6),
        ..CallProfile::default()
    };
    let hedged = CallProfile {
        name: "hedged".into(),
        hedged: true,
        max_attempts: 4,
        min_attempt: ms(20),
        backoff: BackoffConfig { jitter: Jitter::Decorrelated, ..plain.backoff },
        not_connected: NotConnected::Connect,
        ..plain.clone()
    };
    let endless = CallProfile {
        name: "endless".into(),
        deadline: None,
        retry_on: vec![CallFailure::Error],
        ..plain.clone()
    };
    vec![plain, hedged, endless, CallProfile::fail_fast()]
}
