//! Policies: how a client behaves, as settings of the real manager and nothing else.
//!
//! A policy is a set of [`Settings`] over the core's defaults. `ours` changes none of them; the
//! popular clients are their published defaults, each with its source. A scenario may change any
//! of them under `[policies.NAME]`, or add one of its own.

mod calls;
mod settings;
mod words;

use steadfast::Ratio;
use steadfast::backoff::Jitter;
use steadfast::config::{Config, FirstRetry};

use crate::scenario::{Peers, Scenario, ScenarioError, Server};
use crate::units::{Rate, Span};

pub use calls::{BudgetWord, CallSettings, GateSettings, LimitWord, OuterSettings, ThrottleWord};
pub(crate) use settings::is_empty;
pub use settings::{
    BackoffSettings, BreakerSettings, PacerSettings, PeerSettings, Settings, SleepSettings,
};
pub use words::{Detector, Trip};
use words::{FirstRetryWord, JitterWord, RatioWord};

/// A built-in policy.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// What it stands for, and where its numbers are from.
    pub about: &'static str,
    /// What it says something about: dials, calls.
    about_dials: bool,
    about_calls: bool,
    settings: fn() -> Settings,
}

impl BuiltIn {
    /// Whether it says how to do what the scenario does. Where it does not it would be our own
    /// defaults under another name.
    fn fits(&self, scenario: &Scenario) -> bool {
        if scenario.calls.is_empty() { self.about_dials } else { self.about_calls }
    }
}

/// The built-in policies, the default first.
pub const BUILT_IN: [BuiltIn; 10] = [
    BuiltIn {
        name: "ours",
        about: "Steadfast's defaults, untouched",
        about_dials: true,
        about_calls: true,
        settings: Settings::default,
    },
    BuiltIn {
        name: "ours-told",
        about: "the same, told how many handshakes a second the server can do",
        about_dials: true,
        about_calls: false,
        settings: told,
    },
    BuiltIn {
        name: "naive",
        about: "no jitter, limit, breaker or budget: dials every second for ever, each 10 s; calls three \
                times, at once",
        about_dials: true,
        about_calls: true,
        settings: naive,
    },
    BuiltIn {
        name: "grpc",
        about: "gRPC: at once, then 1 s x 1.6 to 120 s, +-20 %; a dial takes max(20 s, delay); \
                reset on connect (doc/connection-backoff.md, grpc-go clientconn.go). Calls: 4 attempts, \
                0.1 s x 2 to 1 s, 10 tokens, 0.1 each success (gRFC A6, its example)",
        about_dials: true,
        about_calls: true,
        settings: grpc,
    },
    BuiltIn {
        name: "nats",
        about: "nats.go: at once, then 2 s + [0, 100 ms), 60 tries; a dial takes 2 s; reset on \
                connect (nats.go: DefaultReconnectWait, DefaultReconnectJitter, DefaultTimeout)",
        about_dials: true,
        about_calls: false,
        settings: nats,
    },
    BuiltIn {
        name: "aws-full",
        about: "AWS CRT MQTT5: uniform [1 s, d], d = 1 s x 2 to 120 s; reset after 30 s connected \
                (aws-c-mqtt: mqtt5 client options)",
        about_dials: true,
        about_calls: false,
        settings: aws_full,
    },
    BuiltIn {
        name: "resilience4j",
        about: "calls: 3 attempts 500 ms apart; breaker at 50 % of 100, 60 s, 10 probes (RetryConfig, \
                CircuitBreakerConfig defaults)",
        about_dials: false,
        about_calls: true,
        settings: calls::resilience4j,
    },
    BuiltIn {
        name: "polly",
        about: "calls: 4 attempts 2 s apart; breaker at 10 % of at least 100 in 30 s, 5 s, one probe \
                (Polly v8 RetryStrategyOptions, CircuitBreakerStrategyOptions)",
        about_dials: false,
        about_calls: true,
        settings: calls::polly,
    },
    BuiltIn {
        name: "finagle",
        about: "calls: 3 attempts at once, paid 20 % of the requests and 10/s; out for 5 s x 2 to 300 s \
                after 5 failures in a row (RetryBudget, FailureAccrualFactory)",
        about_dials: false,
        about_calls: true,
        settings: calls::finagle,
    },
    BuiltIn {
        name: "aws-sdk",
        about: "calls: 3 attempts, U(0, 1 s x 2 to 20 s); 500 tokens, 5 a retry, 10 after a timeout \
                (standard mode: botocore quota.py, smithy-rs)",
        about_dials: false,
        about_calls: true,
        settings: calls::aws_sdk,
    },
];

/// What clients without protection have in common: nothing holds them back, and when a server says
/// that it will go they tell the program at most (nats.go: `LameDuckModeHandler`). Of the host's network
/// they know nothing (grpc-java#2169: a channel waits out its backoff when the network is back).
fn unprotected() -> Settings {
    Settings {
        breaker: BreakerSettings {
            trip: Some(Trip::Off),
            max_in_flight: Some(u32::MAX),
            ..BreakerSettings::default()
        },
        pacer: PacerSettings { max_in_flight: Some(u32::MAX), ..PacerSettings::default() },
        doubts_itself: Some(false),
        drains: Some(false),
        network: Some(false),
        ..Settings::default()
    }
}

/// Peers of such clients: one failure is to them as another.
fn simple() -> PeerSettings {
    PeerSettings { slow_lane: Some(1), ..PeerSettings::default() }
}

fn told() -> Settings {
    Settings { told: Some(true), ..Settings::default() }
}

fn naive() -> Settings {
    let second = Some(Span::from_secs(1));
    let backoff = BackoffSettings {
        base: second,
        factor: Some(RatioWord(Ratio::new(1, 1))),
        cap: second,
        jitter: Some(JitterWord(Jitter::None)),
        ..BackoffSettings::default()
    };
    let peer = PeerSettings {
        backoff,
        first_retry: Some(FirstRetryWord(FirstRetry::Backoff)),
        dial_timeout: Some(Span::from_secs(10)),
        max_dial_timeout: Some(Span::from_secs(10)),
        stable_after: Some(Span::ZERO),
        ..simple()
    };
    let sleep = SleepSettings { max_hold: Some(Span::ZERO), ..SleepSettings::default() };
    Settings { peer, sleep, ..unprotected() }.overlaid(&calls::naive())
}

fn grpc() -> Settings {
    let backoff = BackoffSettings {
        base: Some(Span::from_secs(1)),
        factor: Some(RatioWord(Ratio::new(8, 5))),
        cap: Some(Span::from_secs(120)),
        jitter: Some(JitterWord(Jitter::Proportional(Ratio::percent(20)))),
        ..BackoffSettings::default()
    };
    let peer = PeerSettings {
        backoff,
        first_retry: Some(FirstRetryWord(FirstRetry::Immediate)),
        dial_timeout: Some(Span::from_secs(20)),
        max_dial_timeout: Some(Span::from_secs(120)),
        stable_after: Some(Span::ZERO),
        ..simple()
    };
    // A GOAWAY ends no call: new ones go out over a new connection.
    Settings { peer, drains: Some(true), ..unprotected() }.overlaid(&calls::grpc())
}

fn nats() -> Settings {
    // A constant 2 s plus [0, 100 ms) is 2.1 s less up to 2/42 of it.
    let wait = Some(Span::from_nanos(2_100_000_000));
    let backoff = BackoffSettings {
        base: wait,
        factor: Some(RatioWord(Ratio::new(1, 1))),
        cap: wait,
        jitter: Some(JitterWord(Jitter::Proportional(Ratio::new(1, 42)))),
        ..BackoffSettings::default()
    };
    let peer = PeerSettings {
        backoff,
        first_retry: Some(FirstRetryWord(FirstRetry::Immediate)),
        dial_timeout: Some(Span::from_secs(2)),
        max_dial_timeout: Some(Span::from_secs(2)),
        stable_after: Some(Span::ZERO),
        max_attempts: Some(60),
        ..simple()
    };
    Settings { peer, ..unprotected() }
}

fn aws_full() -> Settings {
    let backoff = BackoffSettings {
        base: Some(Span::from_secs(1)),
        factor: Some(RatioWord(Ratio::new(2, 1))),
        cap: Some(Span::from_secs(120)),
        min_delay: Some(Span::from_secs(1)),
        jitter: Some(JitterWord(Jitter::Full)),
    };
    let peer = PeerSettings {
        backoff,
        first_retry: Some(FirstRetryWord(FirstRetry::Backoff)),
        dial_timeout: Some(Span::from_secs(20)),
        max_dial_timeout: Some(Span::from_secs(20)),
        stable_after: Some(Span::from_secs(30)),
        ..simple()
    };
    Settings { peer, ..unprotected() }
}

/// The built-in policy of that name.
pub(crate) fn built_in(name: &str) -> Option<Settings> {
    BUILT_IN.iter().find(|policy| policy.name == name).map(|policy| (policy.settings)())
}

/// The names of all policies that a scenario can run under, the default first.
#[must_use]
pub fn names(scenario: &Scenario) -> Vec<&str> {
    let own = scenario.policies.keys().map(|name| name.get_ref().as_str());
    let new = own.filter(|name| built_in(name).is_none());
    let fitting = BUILT_IN.iter().filter(|policy| policy.fits(scenario));
    fitting.map(|policy| policy.name).chain(new).collect()
}

/// A policy's settings in a scenario: the scenario's own over the built-in ones.
///
/// # Errors
///
/// A policy that neither the scenario nor we know, or that says nothing about what the scenario does.
pub(crate) fn settings(scenario: &Scenario, name: &str) -> Result<Settings, ScenarioError> {
    let own = scenario.policies.get(name);
    let known = BUILT_IN.iter().find(|policy| policy.name == name);
    if own.is_none() && known.is_some_and(|policy| !policy.fits(scenario)) {
        let what = if scenario.calls.is_empty() { "dials" } else { "calls" };
        let fitting = names(scenario).join(", ");
        let problem = format!("policy `{name}` says nothing about {what}; try one of {fitting}");
        return Err(ScenarioError::plain(problem));
    }
    let base = own.and_then(|own| own.base.as_ref()).map_or(name, |base| base.get_ref());
    match (built_in(base), own) {
        (Some(base), Some(own)) => Ok(base.overlaid(own)),
        (Some(base), None) => Ok(base),
        (None, Some(own)) => Ok(own.clone()),
        (None, None) => Err(ScenarioError::unknown("policy", name, &names(scenario))),
    }
}

/// The configuration of one manager, but for its seed: a breaker profile for each group of peers,
/// and a peer profile for each group and detector, in order.
///
/// # Errors
///
/// A setting that the core refuses.
pub(crate) fn config(scenario: &Scenario, policy: &str) -> Result<Config, ScenarioError> {
    let settings = settings(scenario, policy)?;
    let mut config = Config::new(0);
    if !scenario.peers.is_empty() {
        config.peer_profiles.clear();
        config.breaker_profiles.clear();
    }
    for (name, group) in &scenario.peers {
        let mut breaker = settings.breaker.profile(name.get_ref());
        if settings.told == Some(true)
            && let Some(told) = told_limit(scenario, group)
            && told.in_flight() > 0
        {
            (breaker.rate, breaker.max_in_flight) = (Some(told.bucket()), told.in_flight());
            breaker.window = None;
        }
        breaker.common_refusals = settings.doubts_itself != Some(false);
        config.breaker_profiles.push(breaker);
        let mut profile = settings.peer.profile(name.get_ref());
        group.profile.get_ref().apply(&mut profile);
        profile.session_ttl = group.session_ttl.map(Into::into).or(profile.session_ttl);
        if group.heartbeat.is_some() || group.heartbeat_trace.is_some() {
            profile.health.signs = steadfast::config::Signs::Heartbeats;
        }
        if group.detectors.is_empty() {
            config.peer_profiles.push(profile);
            continue;
        }
        for (place, detector) in group.detectors.iter().enumerate() {
            let mut profile = profile.clone();
            profile.name = format!("{}-{place}", name.get_ref());
            profile.health.detector = detector.0;
            config.peer_profiles.push(profile);
        }
    }
    if !scenario.calls.is_empty() {
        config.call_profiles.clear();
    }
    for (name, group) in &scenario.calls {
        let name = format!("calls.{}", name.get_ref());
        config.breaker_profiles.push(settings.gate.profile(&name));
        let mut profile = settings.call.profile(&name);
        settings.call.apply(&mut profile);
        group.profile.get_ref().apply(&mut profile);
        config.call_profiles.push(profile);
    }
    settings.pacer.apply(&mut config.pacer);
    settings.sleep.apply(&mut config.sleep);
    // Detectors on a trace are watched one by one, however many of them one peer has.
    let watched = scenario.peers.values().any(|group| group.heartbeat_trace.is_some());
    if settings.doubts_itself == Some(false) || watched {
        (config.self_health, config.mass_guard) = (None, None);
    }
    if settings.told == Some(true)
        && let Some(told) = told_limit_of(scenario, scenario.servers.values())
    {
        // A share of less than one a second is no pace to keep: the tokens of a fleet would all
        // come due together. It is still what the first retries are spread by.
        if told.in_flight() > 0 {
            config.pacer.rate = Some(told.bucket());
            config.pacer.max_in_flight = told.in_flight();
        }
        config.pacer.assumed_rate = told.rate();
    }
    config.validate().map_err(|error| {
        ScenarioError::plain(format!("policy `{policy}` makes no sense here: {error}"))
    })?;
    Ok(config)
}

/// What a client that knows its servers keeps to.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Handshakes a second that the servers can do.
    per_second: u32,
    /// How many clients share them.
    managers: u32,
}

impl Told {
    /// The client's share of the rate.
    fn rate(self) -> steadfast::bucket::Rate {
        let per = Span::from_secs(u64::from(self.managers));
        steadfast::bucket::Rate { count: self.per_second, per: per.into() }
    }

    /// The same, with a burst of a twentieth of a second.
    fn bucket(self) -> steadfast::bucket::BucketConfig {
        let burst = (self.in_flight() / 20).max(1);
        steadfast::bucket::BucketConfig { rate: self.rate(), burst }
    }

    /// One second's worth; 0 where the share is less than one a second.
    fn in_flight(self) -> u32 {
        self.per_second / self.managers
    }
}

fn told_limit(scenario: &Scenario, group: &Peers) -> Option<Told> {
    let servers = group.endpoints.iter().filter_map(|name| scenario.servers.get(name));
    told_limit_of(scenario, servers)
}

/// The sum over `servers`; `None` if one of them has no limit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate per second, rounded down; the cast saturates"
)]
fn told_limit_of<'a>(
    scenario: &Scenario,
    servers: impl Iterator<Item = &'a Server>,
) -> Option<Told> {
    let rates: Option<Vec<Rate>> = servers.map(|server| server.accept).collect();
    let per_second: f64 = rates?.iter().map(|rate| rate.per_second()).sum();
    (per_second >= 1.0).then_some(Told {
        per_second: per_second as u32,
        managers: (*scenario.managers.get_ref()).min(scenario.peer_count()).max(1),
    })
}
