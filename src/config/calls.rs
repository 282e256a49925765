//! The settings of calls: how each is tried, and the gates that all of them pass.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::{positive, within};
use crate::backoff::{BackoffConfig, BackoffPolicy};
use crate::breaker::BreakerPolicy;
use crate::bucket::{BucketConfig, BucketPolicy};
use crate::budget::{BudgetConfig, BudgetPolicy};
use crate::bulkhead::{BulkheadConfig, BulkheadPolicy};
use crate::error::ConfigError;
use crate::event::CallFailure;
use crate::hedge::{HedgeConfig, HedgePolicy};
use crate::limit::{LimitConfig, LimitPolicy};
use crate::throttle::{ThrottleConfig, ThrottlePolicy};

/// What becomes of a call to a peer that is not connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum NotConnected {
    /// It is refused.
    Reject,
    /// It waits for the connection.
    #[default]
    Wait,
    /// It waits, and the peer is wanted from now on, as if by
    /// [`Event::Connect`](crate::Event::Connect) when the call was asked for. A peer that gives up,
    /// or is disconnected, while the call waits is not wanted anew.
    Connect,
}

/// How calls are tried: the settings that [`Event::Call`](crate::Event::Call) refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct CallProfile {
    /// The name by which [`Config::call_profile`](crate::Config::call_profile) finds it.
    pub name: String,
    /// Attempts, the first and hedges included; 3 (gRPC, resilience4j, AWS). At least 1.
    pub max_attempts: u32,
    /// How long an attempt may take; 10 s (opossum).
    pub attempt_timeout: Duration,
    /// With less time than this to its deadline a call makes no attempt; zero.
    pub min_attempt: Duration,
    /// The deadline of calls that bring none, from their beginning; 30 s (Polly's total timeout).
    /// `None`: they may take for ever.
    pub deadline: Option<Duration>,
    /// The delay before each retry; 100 ms, doubling to 10 s, full jitter.
    pub backoff: BackoffConfig,
    /// The failures that are retried; all but the caller's fault and the fatal ones, which cannot
    /// be. A retry may repeat what the lost attempt has done: keep it empty where that does harm.
    pub retry_on: Vec<CallFailure>,
    /// A call whose server asked for a longer wait is given up at once; 120 s.
    pub max_retry_after: Duration,
    /// Whether a slow attempt is joined by another, as the target's
    /// [`hedge`](GateConfig::hedge) says; no. For requests that may be made twice.
    pub hedged: bool,
    /// What becomes of a call to a peer that is not connected; it waits.
    pub not_connected: NotConnected,
    /// How long it waits for the connection at the longest; 30 s.
    pub max_wait: Duration,
}

impl Default for CallProfile {
    fn default() -> Self {
        let final_ones = |kind: &CallFailure| !kind.is_final();
        Self {
            name: String::from("default"),
            max_attempts: 3,
            attempt_timeout: Duration::from_secs(10),
            min_attempt: Duration::ZERO,
            deadline: Some(Duration::from_secs(30)),
            backoff: BackoffConfig {
                base: Duration::from_millis(100),
                cap: Duration::from_secs(10),
                ..BackoffConfig::default()
            },
            retry_on: CallFailure::ALL.into_iter().filter(final_ones).collect(),
            max_retry_after: Duration::from_secs(120),
            hedged: false,
            not_connected: NotConnected::Wait,
            max_wait: Duration::from_secs(30),
        }
    }
}

impl CallProfile {
    /// For requests that are worthless later or must not be made twice: one attempt, and no wait.
    #[must_use]
    pub fn fail_fast() -> Self {
        Self {
            name: String::from("fail-fast"),
            max_attempts: 1,
            retry_on: vec![],
            not_connected: NotConnected::Reject,
            ..Self::default()
        }
    }

    /// For work that nobody looks at: five attempts in five minutes, and the peer is connected if it
    /// is not.
    #[must_use]
    pub fn patient() -> Self {
        Self {
            name: String::from("patient"),
            max_attempts: 5,
            attempt_timeout: Duration::from_secs(60),
            deadline: Some(Duration::from_secs(300)),
            backoff: BackoffConfig {
                base: Duration::from_secs(1),
                cap: Duration::from_secs(60),
                ..BackoffConfig::default()
            },
            not_connected: NotConnected::Connect,
            max_wait: Duration::from_secs(300),
            ..Self::default()
        }
    }

    /// For reads whose slowest answers matter: a slow attempt is joined by another.
    #[must_use]
    pub fn hedged() -> Self {
        Self { name: String::from("hedged"), hedged: true, ..Self::default() }
    }
}

/// A kind of failure that opens the breaker at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct OpenOn {
    /// Which.
    pub kind: CallFailure,
    /// For how long at least.
    pub open_for: Duration,
}

/// The gates of all calls behind one breaker, in the order in which they are passed: bulkhead, rate,
/// throttle, and the breaker itself last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct GateConfig {
    /// How many attempts run at once, and how many calls wait for their turn.
    pub bulkhead: BulkheadConfig,
    /// A limit that finds itself, instead of the bulkhead's fixed one and never above it; none.
    pub limit: Option<LimitConfig>,
    /// Attempts per second; unlimited.
    pub rate: Option<BucketConfig>,
    /// Leaving out what the server would refuse; off.
    pub throttle: Option<ThrottleConfig>,
    /// What retries and hedges are paid from; a tenth of what succeeds. The token of an attempt that
    /// has begun is spent, also if its caller goes away. `None`: they are free, and
    /// an overload feeds itself.
    pub budget: Option<BudgetConfig>,
    /// When a slow attempt of a hedged call is joined by another; never. Where that is impossible at
    /// its moment (no slot, token or time, a breaker that is not closed) it is left out.
    pub hedge: Option<HedgeConfig>,
    /// Failures that open the breaker at once; none.
    pub open_on: Vec<OpenOn>,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            bulkhead: BulkheadConfig::default(),
            limit: None,
            rate: None,
            throttle: None,
            budget: Some(BudgetConfig::default()),
            hedge: None,
            open_on: vec![],
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct CallPolicy {
    pub(crate) profile: CallProfile,
    pub(crate) backoff: BackoffPolicy,
}

impl CallPolicy {
    pub(super) fn new(profile: &CallProfile) -> Result<Self, ConfigError> {
        within("max_attempts", profile.max_attempts, 1, 1_000)?;
        positive("attempt_timeout", profile.attempt_timeout)?;
        if let Some(deadline) = profile.deadline {
            positive("deadline", deadline)?;
            if deadline <= profile.min_attempt {
                let problem = format!(
                    "{deadline:?} leaves no time for an attempt of min_attempt, {:?}",
                    profile.min_attempt
                );
                return Err(ConfigError::new("deadline", problem));
            }
        }
        if profile.min_attempt > profile.attempt_timeout {
            let problem = format!(
                "{:?} is more than attempt_timeout, {:?}",
                profile.min_attempt, profile.attempt_timeout
            );
            return Err(ConfigError::new("min_attempt", problem));
        }
        if let Some(kind) = profile.retry_on.iter().find(|kind| kind.is_final()) {
            return Err(ConfigError::new("retry_on", format!("{kind:?} can never be retried")));
        }
        if profile.hedged && profile.max_attempts < 2 {
            let problem = format!("true, but max_attempts is {}", profile.max_attempts);
            return Err(ConfigError::new("hedged", problem));
        }
        if profile.not_connected != NotConnected::Reject {
            positive("max_wait", profile.max_wait)?;
        }
        let backoff = profile.backoff.validate().map_err(|error| error.within("backoff"))?;
        Ok(Self { profile: profile.clone(), backoff })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct GatePolicy {
    pub(crate) bulkhead: BulkheadPolicy,
    pub(crate) limit: Option<LimitPolicy>,
    pub(crate) rate: Option<BucketPolicy>,
    pub(crate) throttle: Option<ThrottlePolicy>,
    pub(crate) budget: Option<BudgetPolicy>,
    pub(crate) hedge: Option<HedgePolicy>,
    pub(crate) open_on: Vec<OpenOn>,
}

/// Validates an optional part under its name.
macro_rules! part {
    ($config:ident.$part:ident) => {
        match $config.$part.clone() {
            Some(part) => Some(part.validate().map_err(|error| error.within(stringify!($part)))?),
            None => None,
        }
    };
}

impl GatePolicy {
    pub(super) fn new(config: &GateConfig, breaker: &BreakerPolicy) -> Result<Self, ConfigError> {
        let bulkhead = config.bulkhead.validate().map_err(|error| error.within("bulkhead"))?;
        for (place, open_on) in config.open_on.iter().enumerate() {
            let field = format!("open_on[{place}]");
            if matches!(open_on.kind, CallFailure::Invalid | CallFailure::Local) {
                let problem = format!("{:?} counts against nobody", open_on.kind);
                return Err(ConfigError::new(format!("{field}.kind"), problem));
            }
            if config.open_on.iter().take(place).any(|earlier| earlier.kind == open_on.kind) {
                let problem = format!("{:?} twice", open_on.kind);
                return Err(ConfigError::new(format!("{field}.kind"), problem));
            }
            positive(&format!("{field}.open_for"), open_on.open_for)?;
            if open_on.open_for > breaker.max_retry_after() {
                let problem = format!(
                    "{:?} is more than the breaker's max_retry_after, {:?}",
                    open_on.open_for,
                    breaker.max_retry_after()
                );
                return Err(ConfigError::new(format!("{field}.open_for"), problem));
            }
        }
        Ok(Self {
            bulkhead,
            limit: part!(config.limit),
            rate: part!(config.rate),
            throttle: part!(config.throttle),
            budget: part!(config.budget),
            hedge: part!(config.hedge),
            open_on: config.open_on.clone(),
        })
    }

    /// For how long such a failure opens the breaker at once.
    pub(crate) fn opens_for(&self, kind: CallFailure) -> Option<Duration> {
        let rule = self.open_on.iter().find(|rule| rule.kind == kind)?;
        Some(rule.open_for)
    }
}
