//! A circuit breaker: stop asking who keeps failing, and find out cheaply when to ask again.
//!
//! *Closed*, it admits everything and watches. When a rule is reached it *opens* and refuses at
//! once, which spares the caller the wait and the server the load. After a while it is *half-open*
//! and admits a few probes: enough successes close it, a failure too many opens it for longer.
//!
//! ```text
//!             a rule is reached                        open_for is over (expire)
//!   closed ───────────────────────▶ open ─────────────────────────────────────▶ half-open
//!     ▲                              ▲   more than `tolerate` probes failed          │
//!     │                              └────────────────────────────────────────────── ┤
//!     └────────────────────────────────────────────────────────────────────────────── ┘
//!                                        `close_after` probes succeeded
//! ```
//!
//! Three things that others get wrong are built in. A probe that never answers is a failure when
//! its time is up; elsewhere it wedges the breaker half-open (resilience4j#2172, Polly#1979). A
//! permit carries the generation, raised at every transition, and a result of an earlier one is
//! inert: it neither counts nor gives back a probe of the next period. And a growing `open_for` is
//! forgotten only after a close that lasted, so a server that dies at every release is not asked
//! at the shortest interval for ever.
//!
//! Rejected: moving to half-open by the next caller (it needs traffic, and the caller who moves it
//! must be counted too), counting admissions per period instead of outstanding probes (every
//! ignored outcome leaks one), deciding by rates over probes (waits for the slowest), floats.

use crate::backoff::{BackoffConfig, BackoffPolicy, Jitter};
use crate::draw::{Draws, Purpose};
use crate::error::ConfigError;
use crate::ratio::Ratio;
use crate::time::{Time, nanos};
use crate::window::{Span, Window};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

/// The most outcomes a count window may hold: 16 KiB of bits.
const MAX_COUNT: u32 = 65_536;
/// The shortest time window: ten buckets of a millisecond.
const MIN_TIME: Duration = Duration::from_millis(10);
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
    /// timeout, see [`Breaker::admit_within`], or else 30 s; never not at all.
    pub probe_timeout: Option<Duration>,
    /// What a failure's own wait is cut to; default 300 s.
    pub max_retry_after: Duration,
}

/// Source: Polly for 5 s, Linkerd for 60 s, Polly and Hystrix for one probe that decides, Envoy
/// for the ceiling of 300 s on a server's hint.
impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            rates: None,
            slow_after: None,
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
    /// for `min_calls`; a slow rule without `slow_after`; whatever `open_for` refuses.
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
        for (field, span) in
            [("slow_after", self.slow_after), ("probe_timeout", self.probe_timeout)]
        {
            if span == Some(Duration::ZERO) {
                return Err(ConfigError::new(field, "is 0ns, must be at least 1ns"));
            }
        }
        if let Some(rule) = &self.rates {
            rule.check(self.slow_after.is_some()).map_err(|error| error.within("rates"))?;
        }
        Ok(BreakerPolicy {
            consecutive_failures: self.consecutive_failures,
            rates: self.rates,
            slow_after: self.slow_after,
            open_for,
            stable_after: self.stable_after,
            probes: self.probes,
            close_after: self.close_after,
            tolerate: self.tolerate,
            probe_timeout: self.probe_timeout,
            max_retry_after: self.max_retry_after,
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
    consecutive_failures: Option<u32>,
    rates: Option<RateRule>,
    slow_after: Option<Duration>,
    open_for: BackoffPolicy,
    stable_after: Duration,
    probes: u32,
    close_after: u32,
    tolerate: u32,
    probe_timeout: Option<Duration>,
    max_retry_after: Duration,
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

    fn is_slow(&self, took: Duration) -> bool {
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

/// What a breaker is doing, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum State {
    /// Admits everything and watches.
    Closed,
    /// Refuses everything.
    Open {
        /// When it becomes half-open; at this very moment, inclusive.
        until: Time,
    },
    /// Admits probes and decides by them.
    HalfOpen,
    /// Refuses everything until an operator says otherwise.
    ForcedOpen,
    /// Admits everything and watches nothing, until an operator says otherwise.
    Disabled,
}

/// The right to do one unit of work; its outcome comes back with it, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Permit {
    generation: u64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    probe: Option<u32>,
}

impl Permit {
    /// The breaker's generation when it was given.
    #[must_use]
    pub const fn generation(self) -> u64 {
        self.generation
    }

    /// Whether it is a probe's.
    #[must_use]
    pub const fn is_probe(self) -> bool {
        self.probe.is_some()
    }
}

/// Whether work may begin.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// It may.
    Admit(Permit),
    /// It may not.
    Reject {
        /// When the breaker will be half-open; `None` if that depends on probes or operators.
        retry_at: Option<Time>,
    },
}

/// How a unit of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// Well.
    Success,
    /// Badly, and not by the caller's fault. A timeout is one of these.
    Failure,
    /// By the caller's fault: neither good nor bad, and it ends no run of failures.
    Ignored,
    /// The caller went away before the end; nothing is known.
    Dropped,
}

/// Whether an outcome was taken note of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Recorded {
    /// The permit was good, and is used up.
    Counted,
    /// The permit is of an earlier generation, or its probe has been settled: nothing happened.
    Stale,
}

/// A breaker went from one state to another, and its generation is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Transition {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
}

/// A circuit breaker.
///
/// Its owner calls [`expire`](Self::expire) when [`deadline`](Self::deadline) has come; nothing
/// else moves time. `now` must not go back: an earlier one makes ends earlier, no more.
///
/// # Examples
///
/// ```
/// use core::time::Duration;
/// use steadfast::{Time, draw::Draws};
/// use steadfast::breaker::{Admission, Breaker, BreakerConfig, Outcome, State};
///
/// let config = BreakerConfig { consecutive_failures: Some(1), ..Default::default() };
/// let (policy, draws, now) = (config.validate().unwrap(), Draws::new(7, 0), Time::ZERO);
/// let mut breaker = Breaker::new(&policy, now);
/// let Admission::Admit(permit) = breaker.admit(&policy, now) else { panic!() };
/// breaker.record(&policy, permit, Outcome::Failure, Duration::ZERO, None, now, &draws);
/// let end = breaker.deadline().unwrap();
/// assert_eq!(breaker.admit(&policy, now), Admission::Reject { retry_at: Some(end) });
/// assert_eq!(breaker.expire(&policy, end, &draws).unwrap().to, State::HalfOpen);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Breaker {
    phase: Phase,
    generation: u64,
    /// Empty unless half-open; kept beside the phase so that its memory is used again.
    probes: Vec<Out>,
    /// Apart, since most breakers have none and there may be a million of them.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    window: Option<Box<Window>>,
    /// Trips since the last close that lasted: the exponent of the next one.
    level: u32,
    /// How long the last open was meant to be, for decorrelated jitter.
    opened_for: Duration,
    /// Trips ever: the number of draws.
    trips: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Phase {
    Closed { since: Time, run: u32 },
    Open { until: Time },
    HalfOpen { given: u32, successes: u32, failures: u32 },
    ForcedOpen,
    Disabled,
}

/// A probe that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Out {
    probe: u32,
    deadline: Time,
}

/// After what a probe without any other timeout is a failure.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

// Work: admitted, and its outcome recorded.
impl Breaker {
    /// A closed breaker with an empty window.
    #[must_use]
    pub fn new(policy: &BreakerPolicy, now: Time) -> Self {
        let mut breaker = Self {
            phase: Phase::Closed { since: now, run: 0 },
            generation: 0,
            probes: Vec::new(),
            window: policy.rates.map(|rule| Box::new(Window::new(rule.window))),
            level: 0,
            opened_for: Duration::ZERO,
            trips: 0,
        };
        breaker.forget(now);
        breaker
    }

    /// Admits one unit of work if the state allows it; a probe is given 30 s if the policy sets no
    /// other timeout.
    ///
    /// Never changes the state: an open breaker whose end has passed refuses until
    /// [`expire`](Self::expire) has said so. O(1), no allocation outside half-open.
    #[inline]
    pub fn admit(&mut self, policy: &BreakerPolicy, now: Time) -> Admission {
        self.admit_within(policy, PROBE_TIMEOUT, now)
    }

    /// The same for work that has a timeout of its own, which then bounds the probe unless the
    /// policy has a `probe_timeout`.
    #[inline]
    pub fn admit_within(
        &mut self,
        policy: &BreakerPolicy,
        own_timeout: Duration,
        now: Time,
    ) -> Admission {
        let generation = self.generation;
        let full = !self.has_room(policy);
        match &mut self.phase {
            Phase::Closed { .. } | Phase::Disabled => {
                Admission::Admit(Permit { generation, probe: None })
            }
            Phase::Open { until } => Admission::Reject { retry_at: Some(*until) },
            Phase::ForcedOpen => Admission::Reject { retry_at: None },
            Phase::HalfOpen { .. } if full => Admission::Reject { retry_at: None },
            Phase::HalfOpen { given, .. } => {
                let probe = *given;
                *given = given.saturating_add(1);
                let deadline = now + policy.probe_timeout.unwrap_or(own_timeout);
                self.probes.push(Out { probe, deadline });
                Admission::Admit(Permit { generation, probe: Some(probe) })
            }
        }
    }

    /// Takes back a permit with the outcome of its work, and decides.
    ///
    /// `took`: from the permit to the outcome. `retry_after`: the wait that a failure asked for;
    /// if this failure trips, the breaker stays open at least so long (at most the policy's
    /// `max_retry_after`). The rules are evaluated on every outcome that counts, so a success
    /// that reaches `min_calls` may trip. O(probes).
    #[expect(
        clippy::too_many_arguments,
        reason = "an outcome is these, and no two belong together"
    )]
    #[inline]
    pub fn record(
        &mut self,
        policy: &BreakerPolicy,
        permit: Permit,
        outcome: Outcome,
        took: Duration,
        retry_after: Option<Duration>,
        now: Time,
        draws: &Draws,
    ) -> (Recorded, Option<Transition>) {
        if permit.generation != self.generation {
            return (Recorded::Stale, None);
        }
        let slow = policy.is_slow(took);
        let failed = match outcome {
            Outcome::Success => Some(false),
            Outcome::Failure => Some(true),
            Outcome::Ignored | Outcome::Dropped => None,
        };
        match (self.phase, permit.probe) {
            (Phase::Disabled, None) => (Recorded::Counted, None),
            (Phase::Closed { since, run }, None) => {
                let Some(failed) = failed else { return (Recorded::Counted, None) };
                let run = if failed { run.saturating_add(1) } else { 0 };
                self.phase = Phase::Closed { since, run };
                if let Some(window) = &mut self.window {
                    window.record(failed, slow, now);
                }
                let trips = self.is_tripped(policy, run, now);
                let hint = retry_after.filter(|_| failed);
                (Recorded::Counted, trips.then(|| self.trip(policy, hint, now, draws)))
            }
            (Phase::HalfOpen { .. }, Some(probe)) => {
                let Some(at) = self.probes.iter().position(|out| out.probe == probe) else {
                    return (Recorded::Stale, None);
                };
                self.probes.remove(at);
                let Some(failed) = failed else { return (Recorded::Counted, None) };
                let hint = retry_after.filter(|_| failed);
                let verdict = if failed || slow {
                    self.probes_failed(1, policy, hint, now, draws)
                } else {
                    self.probe_succeeded(policy, now)
                };
                (Recorded::Counted, verdict)
            }
            _ => (Recorded::Stale, None),
        }
    }

    /// Whether [`admit`](Self::admit) would admit now.
    #[must_use]
    #[inline]
    pub fn has_room(&self, policy: &BreakerPolicy) -> bool {
        match self.phase {
            Phase::Closed { .. } | Phase::Disabled => true,
            Phase::HalfOpen { .. } => self.outstanding() < policy.probes,
            Phase::Open { .. } | Phase::ForcedOpen => false,
        }
    }
}

// Time: what is due when.
impl Breaker {
    /// When [`expire`](Self::expire) has something to do: the end of an open period, or the
    /// earliest timeout of a probe. O(probes).
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::HalfOpen { .. } => self.probes.iter().map(|out| out.deadline).min(),
            _ => None,
        }
    }

    /// Does what is due at `now`: moves an open breaker to half-open, counts the probes whose time
    /// is up as failures. To be called again while the deadline has passed. O(probes).
    pub fn expire(
        &mut self,
        policy: &BreakerPolicy,
        now: Time,
        draws: &Draws,
    ) -> Option<Transition> {
        match self.phase {
            Phase::Open { until } if until <= now => {
                Some(self.enter(Phase::HalfOpen { given: 0, successes: 0, failures: 0 }))
            }
            Phase::HalfOpen { .. } => {
                let before = self.outstanding();
                self.probes.retain(|out| out.deadline > now);
                let late = before - self.outstanding();
                if late == 0 { None } else { self.probes_failed(late, policy, None, now, draws) }
            }
            _ => None,
        }
    }

    /// Gives the probes that are out until at least `until`; for when our side was asleep or
    /// offline and their answers could not be heard.
    pub fn postpone_probes(&mut self, until: Time) {
        for out in &mut self.probes {
            out.deadline = out.deadline.max(until);
        }
    }
}

// Operators. `None` means that the breaker was in that state already.
impl Breaker {
    /// Refuses everything until another order.
    pub fn force_open(&mut self, _policy: &BreakerPolicy, _now: Time) -> Option<Transition> {
        (self.phase != Phase::ForcedOpen).then(|| self.enter(Phase::ForcedOpen))
    }

    /// Admits everything and watches nothing until another order.
    pub fn disable(&mut self, _policy: &BreakerPolicy, _now: Time) -> Option<Transition> {
        (self.phase != Phase::Disabled).then(|| self.enter(Phase::Disabled))
    }

    /// Closes it, with everything forgotten, the growth of `open_for` too.
    ///
    /// A closed breaker begins anew as well, in a new generation, and that is no transition.
    pub fn reset(&mut self, _policy: &BreakerPolicy, now: Time) -> Option<Transition> {
        self.level = 0;
        self.opened_for = Duration::ZERO;
        let transition = self.close(now);
        (transition.from != transition.to).then_some(transition)
    }
}

// What can be read.
impl Breaker {
    /// What it is doing.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until } => State::Open { until },
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::Disabled => State::Disabled,
        }
    }

    /// Raised at every transition; permits of an earlier one are inert.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// How many probes are out.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        u32::try_from(self.probes.len()).unwrap_or(u32::MAX)
    }

    /// Whether the permit is that of a probe which is still out.
    #[must_use]
    pub fn awaits(&self, permit: Permit) -> bool {
        permit.generation == self.generation
            && self.probes.iter().any(|out| Some(out.probe) == permit.probe)
    }

    /// How often it has tripped, ever.
    #[must_use]
    pub const fn trips(&self) -> u64 {
        self.trips
    }

    /// Whether this breaker could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, policy: &BreakerPolicy) -> bool {
        let window = match (&self.window, policy.rates) {
            (None, None) => true,
            (Some(window), Some(rule)) => window.is_valid(rule.window),
            _ => false,
        };
        let phase = match self.phase {
            Phase::HalfOpen { given, successes, failures } => {
                self.outstanding() <= policy.probes
                    && self.probes.iter().all(|out| out.probe < given)
                    && self.probes.is_sorted_by(|one, next| one.probe < next.probe)
                    && successes < policy.close_after
                    && failures <= policy.tolerate
                    && u64::from(successes) + u64::from(failures) + u64::from(self.outstanding())
                        <= u64::from(given)
                    && given <= u32::MAX / 2
            }
            _ => self.probes.is_empty(),
        };
        // Each trip is a transition, and raises the level by one at most. Half of the numbers are
        // more than anybody can use up, and leave room to go on.
        window
            && phase
            && u64::from(self.level) <= self.trips
            && self.trips <= self.generation
            && self.generation <= u64::MAX / 2
    }
}

// Comparing: what two breakers that behave alike may differ in is taken out.
impl Breaker {
    /// The breaker with its times relative to `now`, and without its counts of the past.
    pub(crate) fn shape(mut self, now: Time) -> Self {
        let relative = |time: Time| Time::from_nanos(nanos(time.since(now)));
        self.generation = 0;
        self.trips = 0;
        for out in &mut self.probes {
            out.deadline = relative(out.deadline);
        }
        match &mut self.phase {
            // How long it has been closed matters, and is told by the time itself.
            Phase::Closed { since, .. } => *since = Time::from_nanos(nanos(now.since(*since))),
            Phase::Open { until } => *until = relative(*until),
            Phase::HalfOpen { .. } | Phase::ForcedOpen | Phase::Disabled => {}
        }
        self
    }
}

impl Permit {
    /// The permit as the breaker sees it: of its current generation, or inert.
    pub(crate) const fn shape(self, current: u64) -> Self {
        let generation = if self.generation == current { 0 } else { 1 };
        Self { generation, probe: self.probe }
    }
}

// Transitions: each of them through `enter`.
impl Breaker {
    fn enter(&mut self, phase: Phase) -> Transition {
        let from = self.state();
        self.phase = phase;
        self.generation = self.generation.saturating_add(1);
        self.probes.clear();
        Transition { from, to: self.state() }
    }

    fn close(&mut self, now: Time) -> Transition {
        self.forget(now);
        self.enter(Phase::Closed { since: now, run: 0 })
    }

    fn trip(
        &mut self,
        policy: &BreakerPolicy,
        retry_after: Option<Duration>,
        now: Time,
        draws: &Draws,
    ) -> Transition {
        if let Phase::Closed { since, .. } = self.phase
            && now.since(since) >= policy.stable_after
        {
            self.level = 0;
            self.opened_for = Duration::ZERO;
        }
        let random = draws.draw(Purpose::OpenFor, self.trips);
        self.opened_for = policy.open_for.jittered(self.level, self.opened_for, random);
        self.level = self.level.saturating_add(1);
        self.trips = self.trips.saturating_add(1);
        let hint = retry_after.map_or(Duration::ZERO, |hint| hint.min(policy.max_retry_after));
        self.enter(Phase::Open { until: now.plus_nanos(nanos(self.opened_for.max(hint))) })
    }

    fn probe_succeeded(&mut self, policy: &BreakerPolicy, now: Time) -> Option<Transition> {
        let Phase::HalfOpen { successes, .. } = &mut self.phase else { return None };
        *successes = successes.saturating_add(1);
        (*successes >= policy.close_after).then(|| self.close(now))
    }

    fn probes_failed(
        &mut self,
        how_many: u32,
        policy: &BreakerPolicy,
        retry_after: Option<Duration>,
        now: Time,
        draws: &Draws,
    ) -> Option<Transition> {
        let Phase::HalfOpen { failures, .. } = &mut self.phase else { return None };
        *failures = failures.saturating_add(how_many);
        (*failures > policy.tolerate).then(|| self.trip(policy, retry_after, now, draws))
    }

    fn is_tripped(&self, policy: &BreakerPolicy, run: u32, now: Time) -> bool {
        if policy.consecutive_failures.is_some_and(|limit| run >= limit) {
            return true;
        }
        let (Some(window), Some(rule)) = (&self.window, policy.rates) else { return false };
        let totals = window.totals(now);
        let reached = |rate: Option<Ratio>, part| {
            rate.is_some_and(|rate| rate.is_reached_by(part, totals.calls))
        };
        totals.calls >= rule.min_calls
            && (reached(rule.failure_rate, totals.failures)
                || reached(rule.slow_rate, totals.slow)
                || reached(rule.unhealthy_rate, totals.unhealthy))
    }

    fn forget(&mut self, now: Time) {
        if let Some(window) = &mut self.window {
            window.clear(now);
        }
    }
}

#[cfg(test)]
mod tests;
