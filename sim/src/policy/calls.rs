//! How calls are tried and guarded: settings of the core's call profiles and gates, and the built-in
//! policies' own.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::Ratio;
use steadfast::backoff::{BackoffConfig, Jitter};
use steadfast::breaker::RateRule;
use steadfast::budget::BudgetConfig;
use steadfast::config::{BreakerProfile, CallProfile, GateConfig};
use steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast::limit::LimitConfig;
use steadfast::throttle::ThrottleConfig;
use steadfast::window;
use toml::Spanned;

use super::settings::{BackoffSettings, Optional, Settings, bucket, core_rate, is_empty, settings};
use super::words::{JitterWord, RatioWord, Trip, call, none_of, set, span};
use crate::outer::ForeignBudget;
use crate::units::{ParseError, Rate, Span, as_text};

settings! {
    /// How one call is tried; see the core's `CallProfile`.
    CallSettings {
        /// Attempts in all, the first included.
        max_attempts: u32,
        /// How long one may take.
        attempt_timeout: Span,
        /// With less time left there is none.
        min_attempt: Span,
        /// How long a call may take.
        deadline: Span,
        /// The longest wait that a server may ask for.
        max_retry_after: Span,
        /// Whether a slow attempt is joined by another, see `gate.hedge_after`.
        hedged: bool,
        {
            /// The delay before each retry.
            backoff: BackoffSettings
        }
    }
}

settings! {
    /// What calls pass on their way; see the core's `GateConfig` and `BreakerConfig`.
    GateSettings {
        /// Attempts at once.
        max_concurrent: u32,
        /// Calls that wait for their turn.
        max_waiting: u32,
        /// For how long at most.
        max_wait: Span,
        /// A limit that finds itself.
        limit: LimitWord,
        /// Attempts per second.
        rate: Rate,
        /// How many may come at once, with `rate`.
        burst: Spanned<u32>,
        /// Leaving out what the server would refuse.
        throttle: ThrottleWord,
        /// What retries are paid from.
        budget: BudgetWord,
        /// After how long a slow attempt is joined by another.
        hedge_after: Span,
        /// When the breaker opens.
        trip: Trip,
        /// From when on an answer is slow.
        slow_after: Span,
        /// How many probes are out at once.
        probes: u32,
        /// How many successes close it.
        close_after: u32,
        /// How many failed probes are put up with.
        tolerate: u32,
        /// When a probe without an answer has failed.
        probe_timeout: Span,
        {
            /// How long it stays open.
            open_for: BackoffSettings
        }
    }
}

settings! {
    /// Another library's retries around the manager's calls: each is made up to `attempts` times.
    OuterSettings {
        /// Calls of the manager in all, the first included.
        attempts: Spanned<u32>,
        /// What the further ones are paid from.
        budget: ForeignBudget,
        {
            /// The delay before each of them.
            backoff: BackoffSettings
        }
    }
}

impl CallSettings {
    /// A profile of that name, with these settings.
    pub(super) fn profile(&self, name: &str) -> CallProfile {
        CallProfile { name: name.to_owned(), ..CallProfile::default() }
    }

    pub(crate) fn apply(&self, to: &mut CallProfile) {
        self.backoff.apply(&mut to.backoff);
        set(&mut to.max_attempts, self.max_attempts);
        set(&mut to.attempt_timeout, self.attempt_timeout);
        set(&mut to.min_attempt, self.min_attempt);
        to.deadline = self.deadline.map(Into::into).or(to.deadline);
        set(&mut to.max_retry_after, self.max_retry_after);
        set(&mut to.hedged, self.hedged);
    }
}

impl GateSettings {
    /// A profile of that name, with these settings.
    pub(super) fn profile(&self, name: &str) -> BreakerProfile {
        let mut to = BreakerProfile { name: name.to_owned(), ..BreakerProfile::default() };
        to.breaker = steadfast::breaker::BreakerConfig::default();
        self.apply(&mut to);
        to
    }

    pub(crate) fn apply(&self, to: &mut BreakerProfile) {
        self.apply_gates(&mut to.calls);
        if let Some(trip) = self.trip {
            (to.breaker.consecutive_failures, to.breaker.rates) = trip.rules();
        }
        to.breaker.slow_after = self.slow_after.map(Into::into).or(to.breaker.slow_after);
        set(&mut to.breaker.probes, self.probes);
        set(&mut to.breaker.close_after, self.close_after);
        set(&mut to.breaker.tolerate, self.tolerate);
        to.breaker.probe_timeout = self.probe_timeout.map(Into::into).or(to.breaker.probe_timeout);
        self.open_for.apply(&mut to.breaker.open_for);
    }

    fn apply_gates(&self, to: &mut GateConfig) {
        set(&mut to.bulkhead.max_concurrent, self.max_concurrent);
        set(&mut to.bulkhead.max_waiting, self.max_waiting);
        to.bulkhead.max_wait = self.max_wait.map(Into::into).or(to.bulkhead.max_wait);
        set(&mut to.limit, self.limit.map(|word| word.0));
        to.rate = bucket(self.rate, self.burst.as_ref()).or(to.rate);
        set(&mut to.throttle, self.throttle.map(|word| word.0));
        set(&mut to.budget, self.budget.map(|word| word.0));
        if let Some(after) = self.hedge_after {
            let delay = HedgeDelay::After(after.into());
            to.hedge = Some(HedgeConfig { delay, ..HedgeConfig::default() });
        }
    }
}

impl OuterSettings {
    /// The backoff between its calls: none unless told.
    pub(crate) fn backoff(&self) -> BackoffConfig {
        let mut backoff = no_backoff();
        self.backoff.apply(&mut backoff);
        backoff
    }
}

fn no_backoff() -> BackoffConfig {
    BackoffConfig {
        base: Duration::ZERO,
        min_delay: Some(Duration::ZERO),
        jitter: Jitter::None,
        ..BackoffConfig::default()
    }
}

/// `off`, or `earned(ratio=1/10, capacity=10, initial=0, refund=true, reserve=1/5m)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetWord(pub Option<BudgetConfig>);

/// `off`, or `aimd(initial=20, min=1, max=1000, decrease=9/10)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitWord(pub Option<LimitConfig>);

/// `off`, or `acceptance(multiplier=2, window=2m, padding=8)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleWord(pub Option<ThrottleConfig>);

as_text!(BudgetWord, "a budget in quotes, as \"earned(ratio=1/10, capacity=10)\" or \"off\"");
as_text!(LimitWord, "a limit in quotes, as \"aimd(initial=20)\" or \"off\"");
as_text!(ThrottleWord, "a throttle in quotes, as \"acceptance(multiplier=2)\" or \"off\"");

impl fmt::Display for BudgetWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(BudgetConfig { ratio, capacity, initial, refund, reserve }) = self.0 else {
            return f.write_str("off");
        };
        write!(f, "earned(ratio={ratio}, capacity={capacity}, initial={initial}, refund={refund}")?;
        match reserve {
            Some(rate) => {
                write!(f, ", reserve={})", Rate { count: rate.count, per: span(rate.per) })
            }
            None => f.write_str(", reserve=none)"),
        }
    }
}

impl FromStr for BudgetWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "off, earned(ratio=1/10, capacity=10, initial=0, refund=true, reserve=1/5m)";
        let mut call = call(text, choices)?;
        let budget = match call.name {
            "off" => None,
            "earned" => {
                let mut budget = BudgetConfig::default();
                set(&mut budget.ratio, call.take::<RatioWord>("ratio")?.map(|word| word.0));
                set(&mut budget.capacity, call.take::<u32>("capacity")?);
                set(&mut budget.initial, call.take::<u32>("initial")?);
                set(&mut budget.refund, call.take::<bool>("refund")?);
                match call.take::<String>("reserve")?.as_deref() {
                    None => {}
                    Some("none") => budget.reserve = None,
                    Some(rate) => budget.reserve = Some(core_rate(rate.parse()?)),
                }
                Some(budget)
            }
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(Self(budget))
    }
}

impl fmt::Display for LimitWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(LimitConfig { initial, min, max, decrease, latency }) = self.0 else {
            return f.write_str("off");
        };
        write!(f, "aimd(initial={initial}, min={min}, max={max}, decrease={decrease}")?;
        match latency {
            Some(latency) => write!(f, ", latency={})", span(latency)),
            None => f.write_str(")"),
        }
    }
}

impl FromStr for LimitWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "off, aimd(initial=20, min=1, max=1000, decrease=9/10, latency=1s)";
        let mut call = call(text, choices)?;
        let limit = match call.name {
            "off" => None,
            "aimd" => {
                let mut limit = LimitConfig::default();
                set(&mut limit.initial, call.take::<u32>("initial")?);
                set(&mut limit.min, call.take::<u32>("min")?);
                set(&mut limit.max, call.take::<u32>("max")?);
                set(&mut limit.decrease, call.take::<RatioWord>("decrease")?.map(|word| word.0));
                limit.latency = call.take::<Span>("latency")?.map(Into::into);
                Some(limit)
            }
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(Self(limit))
    }
}

impl fmt::Display for ThrottleWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ThrottleConfig { multiplier, window, padding, max_reject }) = self.0 else {
            return f.write_str("off");
        };
        write!(f, "acceptance(multiplier={multiplier}, window={}", span(window))?;
        write!(f, ", padding={padding}, max_reject={max_reject})")
    }
}

impl FromStr for ThrottleWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "off, acceptance(multiplier=2/1, window=2m, padding=8, max_reject=9/10)";
        let mut call = call(text, choices)?;
        let throttle = match call.name {
            "off" => None,
            "acceptance" => {
                let mut throttle = ThrottleConfig::default();
                let ratio = |word: RatioWord| word.0;
                set(&mut throttle.multiplier, call.take("multiplier")?.map(ratio));
                set(&mut throttle.window, call.take::<Span>("window")?);
                set(&mut throttle.padding, call.take::<u32>("padding")?);
                set(&mut throttle.max_reject, call.take("max_reject")?.map(ratio));
                Some(throttle)
            }
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(Self(throttle))
    }
}

/// No guard at all: no budget, no breaker, any number at once.
fn unguarded() -> GateSettings {
    GateSettings {
        budget: Some(BudgetWord(None)),
        trip: Some(Trip::Off),
        max_concurrent: Some(u32::MAX),
        ..GateSettings::default()
    }
}

fn constant(delay: Span) -> BackoffSettings {
    BackoffSettings {
        base: Some(delay),
        factor: Some(RatioWord(Ratio::new(1, 1))),
        cap: Some(delay.max(Span::from_nanos(1))),
        jitter: Some(JitterWord(Jitter::None)),
        min_delay: Some(Span::ZERO),
    }
}

fn growing(base: Span, factor: Ratio, cap: Span, jitter: Jitter) -> BackoffSettings {
    BackoffSettings {
        base: Some(base),
        factor: Some(RatioWord(factor)),
        cap: Some(cap),
        jitter: Some(JitterWord(jitter)),
        min_delay: Some(Span::ZERO),
    }
}

const fn millis(millis: u64) -> Span {
    Span::from_nanos(millis * 1_000_000)
}

const TWO: Ratio = Ratio::new(2, 1);

/// One attempt for each call of the manager, and a retry layer around it.
fn layered(attempts: u32, budget: ForeignBudget, backoff: BackoffSettings) -> Settings {
    Settings {
        call: CallSettings { max_attempts: Some(1), ..CallSettings::default() },
        gate: unguarded(),
        outer: OuterSettings {
            attempts: Some(Spanned::new(0..0, attempts)),
            budget: Some(budget),
            backoff,
        },
        ..Settings::default()
    }
}

/// Three attempts, one right after the other, whatever happens.
pub(super) fn naive() -> Settings {
    let backoff = constant(Span::ZERO);
    Settings {
        call: CallSettings { max_attempts: Some(3), backoff, ..CallSettings::default() },
        gate: unguarded(),
        ..Settings::default()
    }
}

pub(super) fn resilience4j() -> Settings {
    let rates = RateRule {
        window: window::Span::Count(100),
        min_calls: 100,
        failure_rate: Some(Ratio::percent(50)),
        ..RateRule::default()
    };
    Settings {
        call: CallSettings {
            max_attempts: Some(3),
            backoff: constant(millis(500)),
            ..CallSettings::default()
        },
        gate: GateSettings {
            trip: Some(Trip::Rates(rates)),
            open_for: constant(Span::from_secs(60)),
            // Ten probes decide; half of them failed open it again.
            probes: Some(10),
            close_after: Some(6),
            tolerate: Some(4),
            ..unguarded()
        },
        ..Settings::default()
    }
}

pub(super) fn polly() -> Settings {
    let rates = RateRule {
        window: window::Span::Time(Duration::from_secs(30)),
        min_calls: 100,
        failure_rate: Some(Ratio::percent(10)),
        ..RateRule::default()
    };
    Settings {
        call: CallSettings {
            max_attempts: Some(4),
            backoff: constant(Span::from_secs(2)),
            ..CallSettings::default()
        },
        gate: GateSettings {
            trip: Some(Trip::Rates(rates)),
            open_for: constant(Span::from_secs(5)),
            ..unguarded()
        },
        ..Settings::default()
    }
}

pub(super) fn finagle() -> Settings {
    let reserve = Rate { count: 10, per: Span::from_secs(1) };
    let budget = ForeignBudget::Finagle { ratio: 0.2, reserve, ttl: Span::from_secs(10) };
    let mut settings = layered(3, budget, BackoffSettings::default());
    settings.gate.trip = Some(Trip::Consecutive(5));
    settings.gate.open_for = growing(Span::from_secs(5), TWO, Span::from_secs(300), Jitter::Equal);
    settings
}

pub(super) fn grpc() -> Settings {
    let budget = ForeignBudget::Grpc { tokens: 10.0, ratio: 0.1 };
    layered(4, budget, growing(millis(100), TWO, Span::from_secs(1), Jitter::Full))
}

pub(super) fn aws_sdk() -> Settings {
    let budget = ForeignBudget::Aws { tokens: 500, cost: 5, timeout_cost: 10 };
    layered(3, budget, growing(Span::from_secs(1), TWO, Span::from_secs(20), Jitter::Full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        let budget = "earned(ratio=1/10, capacity=10, initial=0, refund=true, reserve=1/5m)";
        assert_eq!(budget.parse::<BudgetWord>().unwrap().to_string(), budget);
        let limit = "aimd(initial=20, min=1, max=1000, decrease=9/10)";
        assert_eq!(limit.parse::<LimitWord>().unwrap().to_string(), limit);
        let throttle = "acceptance(multiplier=2/1, window=2m, padding=8, max_reject=9/10)";
        assert_eq!(throttle.parse::<ThrottleWord>().unwrap().to_string(), throttle);
        assert_eq!("off".parse::<BudgetWord>().unwrap(), BudgetWord(None));
        assert!("earned(raito=1)".parse::<BudgetWord>().is_err());
        assert!("vegas".parse::<LimitWord>().is_err());
    }
}
