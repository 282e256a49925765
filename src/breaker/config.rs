//! What a breaker is made of: its rules, its probes, how long it stays open.

use crate::backoff::{BackoffConfig, BackoffPolicy, Jitter};
use crate::error::ConfigError;
use crate::ratio::Ratio;
use crate::window::Span;
use alloc::format;
use core::time::Duration;

/// The most outcomes a count window may hold: 16 KiB of bits.
const MAX_COUNT: u32 = 65_536;
/// The shortest time window: ten buckets of a millisecond.
pub(super) const MIN_TIME: Duration = Duration::from_millis(10);
/// The most probes that may be out at once.
const MAX_PROBES: u32 = 1_024;

/// Trips a breaker by shares of the outcomes in a window; reaching a share trips.
///
/// Source: resilience4j `failureRateThreshold`, `slowCallRateThreshold`, `minimumNumberOfCalls`;
/// the combined share was asked for in resilience4j#667.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct RateRule {
    /// How far back it looks; default the last 100. At most 65,536 outcomes; at least 10 ms.
    pub window: Span,
    /// How many outcomes there must be, the latest included; default 10. At least 1, and no more
    /// than a count window holds.
    pub min_calls: u32,
    /// The share of failures that trips, above 0 and at most 1; default a half.
    pub failure_rate: Option<Ratio>,
    /// The share of slow outcomes that trips; default none. Needs `slow_after`.
    pub slow_rate: Option<Ratio>,
    /// The share of outcomes that failed or were slow that trips; default none.
    pub unhealthy_rate: Option<Ratio>,
}

/// Source: resilience4j's 50 % of the last 100; its minimum of 100 makes quiet breakers blind.
impl Default for RateRule {
    fn default() -> Self {
        Self {
            window: Span::Count(100),
            min_calls: 10,
            failure_rate: Some(Ratio::percent(50)),
            slow_rate: None,
            unhealthy_rate: None,
        }
    }
}

/// What a breaker is made of.
///
/// The default is the one for calls; [`for_dials`](Self::for_dials) is the one for connecting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BreakerConfig {
    /// How many failures in a row trip; default 5. `None`: any number.
    pub consecutive_failures: Option<u32>,
    /// Rules about shares; default none.
    pub rates: Option<RateRule>,
    /// An outcome that took longer is slow; default never. In half-open slow is failed.
    pub slow_after: Option<Duration>,
    /// Whether work that is out for longer than `slow_after` counts as slow at once, before it
    /// ends; default no. Needs `slow_after` and a rule about slow outcomes. 8 bytes for each unit of
    /// work that began within `slow_after`.
    pub slow_in_flight: bool,
    /// How long it stays open, growing with successive trips; zero is legal.
    pub open_for: BackoffConfig,
    /// How long it must stay closed for the growth to be forgotten; default 10 s.
    pub stable_after: Duration,
    /// How many probes are out at once at most, from 1 to 1,024; default 1.
    pub probes: u32,
    /// How many successes close it; default 1.
    pub close_after: u32,
    /// How many failed probes of a period are put up with; default 0.
    pub tolerate: u32,
    /// When a probe that has not answered is a failure. `None` (default): after the attempt's own
    /// timeout, see [`Breaker::admit_within`](super::Breaker::admit_within), or else 30 s; never not at all.
    pub probe_timeout: Option<Duration>,
    /// What a failure's own wait is cut to; default 300 s.
    pub max_retry_after: Duration,
    /// After its probes have closed it: for how long it admits a share only, which grows evenly
    /// from a tenth to all. `None` (default): all at once. Dials are paced and know no ramp.
    pub ramp_for: Option<Duration>,
}

/// Source: Polly for 5 s, Linkerd for 60 s, Polly and Hystrix for one probe that decides, Envoy
/// for the ceiling of 300 s on a server's hint.
impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            rates: None,
            slow_after: None,
            slow_in_flight: false,
            open_for: BackoffConfig {
                base: Duration::from_secs(5),
                cap: Duration::from_secs(60),
                jitter: Jitter::Proportional(Ratio::percent(20)),
                ..BackoffConfig::default()
            },
            stable_after: Duration::from_secs(10),
            probes: 1,
            close_after: 1,
            tolerate: 0,
            probe_timeout: None,
            max_retry_after: Duration::from_secs(300),
            ramp_for: None,
        }
    }
}

impl BreakerConfig {
    /// For a breaker in front of the dials of many peers: open for 1 s × 1.5 up to 10 s, and two
    /// of three probes decide, so that one bad prober does not lock out a region.
    #[must_use]
    pub fn for_dials() -> Self {
        let open_for = BackoffConfig {
            base: Duration::from_secs(1),
            factor: Ratio::new(3, 2),
            cap: Duration::from_secs(10),
            ..Self::default().open_for
        };
        Self { open_for, probes: 3, close_after: 2, tolerate: 1, ..Self::default() }
    }

    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// A count, share or timeout of zero; a share above 1; a window without a rule, or too small
    /// for `min_calls`; a slow rule without `slow_after`; `slow_in_flight` without a slow rule;
    /// whatever `open_for` refuses.
    pub fn validate(self) -> Result<BreakerPolicy, ConfigError> {
        let open_for = self.open_for.validate().map_err(|error| error.within("open_for"))?;
        let zero = |field: &str| Err(ConfigError::new(field, "is 0, must be at least 1"));
        if self.consecutive_failures == Some(0) {
            return zero("consecutive_failures");
        }
        if self.close_after == 0 {
            return zero("close_after");
        }
        if self.probes == 0 || self.probes > MAX_PROBES {
            let problem = format!("is {}, must be from 1 to {MAX_PROBES}", self.probes);
            return Err(ConfigError::new("probes", problem));
        }
        for (field, span) in [
            ("slow_after", self.slow_after),
            ("probe_timeout", self.probe_timeout),
            ("ramp_for", self.ramp_for),
        ] {
            if span == Some(Duration::ZERO) {
                return Err(ConfigError::new(field, "is 0ns, must be at least 1ns"));
            }
        }
        if let Some(rule) = &self.rates {
            rule.check(self.slow_after.is_some()).map_err(|error| error.within("rates"))?;
        }
        let by_slow = |rule: RateRule| rule.slow_rate.is_some() || rule.unhealthy_rate.is_some();
        if self.slow_in_flight && self.slow_after.is_none() {
            return Err(ConfigError::new("slow_in_flight", "is set, but slow_after is not"));
        }
        if self.slow_in_flight && !self.rates.is_some_and(by_slow) {
            let problem = "is set, but neither rates.slow_rate nor rates.unhealthy_rate is";
            return Err(ConfigError::new("slow_in_flight", problem));
        }
        Ok(BreakerPolicy {
            consecutive_failures: self.consecutive_failures,
            rates: self.rates,
            slow_after: self.slow_after,
            slow_in_flight: self.slow_in_flight,
            open_for,
            stable_after: self.stable_after,
            probes: self.probes,
            close_after: self.close_after,
            tolerate: self.tolerate,
            probe_timeout: self.probe_timeout,
            max_retry_after: self.max_retry_after,
            ramp_for: self.ramp_for,
            held: false,
        })
    }
}

impl RateRule {
    fn check(&self, knows_slow: bool) -> Result<(), ConfigError> {
        match self.window {
            Span::Count(size) if size == 0 || size > MAX_COUNT => {
                let problem = format!("is {size} outcomes, must be from 1 to {MAX_COUNT}");
                return Err(ConfigError::new("window", problem));
            }
            Span::Time(span) if span < MIN_TIME => {
                let problem = format!("is {span:?}, must be at least {MIN_TIME:?}");
                return Err(ConfigError::new("window", problem));
            }
            Span::Count(size) if self.min_calls > size => {
                let problem = format!("is {}, must be at most the window, {size}", self.min_calls);
                return Err(ConfigError::new("min_calls", problem));
            }
            _ => {}
        }
        if self.min_calls == 0 {
            return Err(ConfigError::new("min_calls", "is 0, must be at least 1"));
        }
        let rates = [
            ("failure_rate", self.failure_rate, false),
            ("slow_rate", self.slow_rate, true),
            ("unhealthy_rate", self.unhealthy_rate, true),
        ];
        if rates.iter().all(|(_, rate, _)| rate.is_none()) {
            return Err(ConfigError::new("failure_rate", "is not set, nor is any other rate"));
        }
        for (field, rate, needs_slow) in rates {
            let Some(rate) = rate else { continue };
            if rate.numerator == 0 || rate.numerator > rate.denominator {
                let problem = format!("is {rate}, must be above 0 and at most 1");
                return Err(ConfigError::new(field, problem));
            }
            if needs_slow && !knows_slow {
                return Err(ConfigError::new(field, "is set, but slow_after is not"));
            }
        }
        Ok(())
    }
}

/// The checked settings of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BreakerPolicy {
    pub(super) consecutive_failures: Option<u32>,
    pub(super) rates: Option<RateRule>,
    pub(super) slow_after: Option<Duration>,
    pub(super) slow_in_flight: bool,
    pub(super) open_for: BackoffPolicy,
    pub(super) stable_after: Duration,
    pub(super) probes: u32,
    pub(super) close_after: u32,
    pub(super) tolerate: u32,
    pub(super) probe_timeout: Option<Duration>,
    pub(super) max_retry_after: Duration,
    pub(super) ramp_for: Option<Duration>,
    /// Whether a closed breaker stays closed.
    pub(super) held: bool,
}

impl BreakerPolicy {
    /// The same policy with its trip rules raised by half: a run rounded up, shares at most 1.
    ///
    /// For a threshold that gives way while our own side is loaded. Always computed from the
    /// configured policy, so that repeated reports of load cannot compound.
    #[must_use]
    pub fn relaxed(&self) -> Self {
        let run = |run: u32| run.saturating_add(run.div_ceil(2));
        let rates = self.rates.map(|rule| RateRule {
            failure_rate: rule.failure_rate.map(raised),
            slow_rate: rule.slow_rate.map(raised),
            unhealthy_rate: rule.unhealthy_rate.map(raised),
            ..rule
        });
        Self { consecutive_failures: self.consecutive_failures.map(run), rates, ..*self }
    }

    /// The same policy, under which a closed breaker does not open.
    ///
    /// For a group that bounds how many of its breakers are open at once. Outcomes count as ever,
    /// so that the next one under the policy proper trips if a rule is reached; and a half-open
    /// breaker may open again, since it was among the open ones.
    #[must_use]
    pub const fn held(&self) -> Self {
        Self { held: true, ..*self }
    }

    /// How many probes are out at once at most.
    #[must_use]
    pub const fn probes(&self) -> u32 {
        self.probes
    }

    /// How long the breaker stays open, before a failure's own wait.
    #[must_use]
    pub const fn open_for(&self) -> &BackoffPolicy {
        &self.open_for
    }

    /// When an outcome counts as slow.
    #[must_use]
    pub const fn slow_after(&self) -> Option<Duration> {
        self.slow_after
    }

    /// What a failure's own wait is cut to.
    #[must_use]
    pub const fn max_retry_after(&self) -> Duration {
        self.max_retry_after
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_after.is_some_and(|limit| took > limit)
    }
}

/// A share times 3/2, at most 1.
fn raised(rate: Ratio) -> Ratio {
    let over = u64::from(rate.numerator) * 3;
    let under = u64::from(rate.denominator) * 2;
    // Where the exact terms no longer fit, both are halved; the share moves by 2⁻³¹ at most.
    let shift = u32::from(under > u64::from(u32::MAX));
    match (u32::try_from(over >> shift), u32::try_from(under >> shift)) {
        (Ok(over), Ok(under)) if over < under => Ratio::new(over, under),
        _ => Ratio::new(1, 1),
    }
}
