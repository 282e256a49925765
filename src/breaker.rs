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
//! After a close by probes it may admit by a ramp, a tenth at first, so that a server just back is
//! not met by all at once.
//!
//! Work that hangs ends nothing, so a breaker that hears of ends alone trips no sooner than the
//! timeouts do. Where the policy says so, work that is out for longer than `slow_after` counts as
//! slow at once, by [`Breaker::deadline`] and [`Breaker::expire`], and not again when it ends.
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

use crate::draw::{Draws, Purpose};
use crate::mutant::Mutant;
use crate::ratio::Ratio;
use crate::time::{Time, nanos};
use crate::window::Window;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use in_flight::{Ended, InFlight};

mod config;
mod in_flight;

pub use config::{BreakerConfig, BreakerPolicy, RateRule};

/// What a breaker is doing, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
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
    /// Of the work in flight, where that is watched.
    number: u64,
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
        /// When the breaker will be half-open, or its ramp after a close over; `None` if that
        /// depends on probes or operators.
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
    /// Badly, and it says all there is to know: the breaker opens at once, whatever the rules, for
    /// so long at least (at most the policy's `max_retry_after`). A server in maintenance.
    OpenFor(Duration),
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
    /// Apart likewise; what is out while closed, if the policy has that count.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    in_flight: Option<Box<InFlight>>,
    /// Trips since the last close that lasted: the exponent of the next one.
    level: u32,
    /// How long the last open was meant to be, for decorrelated jitter.
    opened_for: Duration,
    /// Trips ever: the number of draws.
    trips: u64,
    /// Whether it decides and reports as ever, but refuses nobody.
    watch_only: bool,
    /// What has been saved towards the next one to be let through, in thousandths: of the ramp
    /// after a close by probes, and otherwise a whole one.
    ramp: u16,
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
    since: Time,
    deadline: Time,
}

/// How many units of work are judged at once.
const MAX_JUDGED: u32 = 1_024;
/// After what a probe without any other timeout is a failure.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// The share with which a ramp begins and the one with which it ends, in thousandths.
const RAMP_FROM: u16 = 100;
const RAMP_WHOLE: u16 = 1_000;

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
            in_flight: policy.slow_in_flight.then(Box::default),
            level: 0,
            opened_for: Duration::ZERO,
            trips: 0,
            watch_only: false,
            ramp: RAMP_WHOLE,
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
        if self.ramp < RAMP_WHOLE
            && !self.watch_only
            && let Some(end) = self.ramp_refuses(policy, now)
        {
            return Admission::Reject { retry_at: Some(end) };
        }
        self.admit_paced(policy, own_timeout, now)
    }

    /// The same for work that something else paces, such as dials: no ramp after a close.
    #[inline]
    pub fn admit_paced(
        &mut self,
        policy: &BreakerPolicy,
        own_timeout: Duration,
        now: Time,
    ) -> Admission {
        let generation = self.generation;
        let full = self.is_full(policy);
        let plain = Admission::Admit(Permit { generation, probe: None, number: 0 });
        match &mut self.phase {
            Phase::Closed { .. } => match (&mut self.in_flight, policy.slow_after) {
                (Some(in_flight), Some(slow_after)) => {
                    let number = in_flight.begin((now + slow_after).plus_nanos(1));
                    Admission::Admit(Permit { generation, probe: None, number })
                }
                _ => plain,
            },
            Phase::Disabled => plain,
            Phase::ForcedOpen => Admission::Reject { retry_at: None },
            // Inert in these two states: what counts here are probes.
            Phase::Open { .. } if self.watch_only => plain,
            Phase::HalfOpen { .. } if full && self.watch_only => plain,
            Phase::Open { until } => Admission::Reject { retry_at: Some(*until) },
            Phase::HalfOpen { .. } if full => Admission::Reject { retry_at: None },
            Phase::HalfOpen { given, .. } => {
                let probe = *given;
                *given = given.saturating_add(1);
                let mut deadline = now + policy.probe_timeout.unwrap_or(own_timeout);
                if Mutant::NoProbeTimeout.lives() {
                    deadline = Time::MAX;
                }
                self.probes.push(Out { probe, since: now, deadline });
                Admission::Admit(Permit { generation, probe: Some(probe), number: 0 })
            }
        }
    }

    /// Takes back a permit with the outcome of its work, and decides.
    ///
    /// `took`: from the permit to the outcome. `retry_after`: the wait that a failure asked for;
    /// if this failure trips, the breaker stays open at least so long (at most the policy's
    /// `max_retry_after`). The rules are evaluated on every outcome that counts, so a success
    /// that reaches `min_calls` may trip. What has counted as slow while it was in flight enters
    /// the window no second time, and only the run of failures. O(probes).
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
        let (failed, fatal) = match outcome {
            Outcome::Success => (Some(false), None),
            Outcome::Failure => (Some(true), None),
            Outcome::OpenFor(wait) => (Some(true), Some(wait)),
            Outcome::Ignored | Outcome::Dropped => (None, None),
        };
        let hint = retry_after.filter(|_| failed == Some(true)).max(fatal);
        let slow = policy.is_slow(took);
        match (&mut self.phase, permit.probe) {
            (Phase::Disabled, None) => (Recorded::Counted, None),
            (Phase::Closed { run, .. }, None) => {
                let ended = match &mut self.in_flight {
                    Some(in_flight) => in_flight.end(permit.number),
                    None => Ended::InTime,
                };
                if ended == Ended::Unknown {
                    return (Recorded::Stale, None);
                }
                let Some(failed) = failed else { return (Recorded::Counted, None) };
                *run = if failed { run.saturating_add(1) } else { 0 };
                let run = *run;
                if let Some(window) = &mut self.window
                    && ended == Ended::InTime
                {
                    window.record(failed, slow, now);
                }
                let trips = !policy.held && fatal.is_some() || self.is_tripped(policy, run, now);
                (Recorded::Counted, trips.then(|| self.trip(policy, hint, now, draws)))
            }
            (Phase::HalfOpen { .. }, Some(probe)) => {
                let Some(at) = self.probes.iter().position(|out| out.probe == probe) else {
                    return (Recorded::Stale, None);
                };
                if !(matches!(outcome, Outcome::Dropped) && Mutant::LeakedProbe.lives()) {
                    self.probes.remove(at);
                }
                let Some(failed) = failed else { return (Recorded::Counted, None) };
                let verdict = if fatal.is_some() {
                    Some(self.trip(policy, hint, now, draws))
                } else if failed || slow {
                    self.probes_failed(1, policy, hint, now, draws)
                } else {
                    self.probe_succeeded(policy, now)
                };
                (Recorded::Counted, verdict)
            }
            _ => (Recorded::Stale, None),
        }
    }

    /// Whether [`admit_paced`](Self::admit_paced) would admit now; a ramp may refuse the others yet.
    #[must_use]
    #[inline]
    pub fn has_room(&self, policy: &BreakerPolicy) -> bool {
        match self.phase {
            Phase::Closed { .. } | Phase::Disabled => true,
            Phase::HalfOpen { .. } => self.watch_only || !self.is_full(policy),
            Phase::Open { .. } => self.watch_only,
            Phase::ForcedOpen => false,
        }
    }

    /// Whether as many probes are out as may be.
    #[inline]
    fn is_full(&self, policy: &BreakerPolicy) -> bool {
        self.outstanding() >= policy.probes + u32::from(Mutant::ExtraProbe.lives())
    }

    /// Whether work passes as a matter of course: closed, disabled, or watch-only and not forced
    /// open.
    #[must_use]
    #[inline]
    pub const fn admits(&self) -> bool {
        match self.phase {
            Phase::Closed { .. } | Phase::Disabled => true,
            Phase::Open { .. } | Phase::HalfOpen { .. } => self.watch_only,
            Phase::ForcedOpen => false,
        }
    }
}

// Time: what is due when.
impl Breaker {
    /// When [`expire`](Self::expire) has something to do: the end of an open period, the earliest
    /// timeout of a probe, or the moment at which work in flight becomes slow. O(probes).
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::HalfOpen { .. } => self.probes.iter().map(|out| out.deadline).min(),
            Phase::Closed { .. } => self.in_flight.as_ref()?.deadline(),
            Phase::ForcedOpen | Phase::Disabled => None,
        }
    }

    /// Does what is due at `now`: moves an open breaker to half-open, counts the probes whose time
    /// is up as failures, and work that is out for too long as slow, at most 1,024 at a time. To
    /// be called again while the deadline has passed. O(probes), O(1) for each that is slow.
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
            Phase::Closed { run, .. } => self.judge_in_flight(policy, run, now, draws),
            _ => None,
        }
    }

    /// Judges no probe and no work in flight that began before `moment`, which come back by their own
    /// timeouts; for when our side was offline and the
    /// answers could not come. O(1), amortised.
    pub fn excuse_before(&mut self, policy: &BreakerPolicy, moment: Time) {
        for out in self.probes.iter_mut().filter(|out| out.since < moment) {
            out.deadline = Time::MAX;
        }
        if let (Some(in_flight), Some(slow_after)) = (&mut self.in_flight, policy.slow_after) {
            in_flight.excuse(moment + slow_after);
        }
    }

    /// Gives the probes that are out until at least `until`, and judges no work in flight before;
    /// for when our side was asleep or offline and their answers could not be heard.
    pub fn postpone_probes(&mut self, until: Time) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.hold(until);
        }
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

    /// Has it decide and report as ever but refuse nobody, or refuse again; whether that is a change.
    ///
    /// For trying out a breaker on traffic that it must not harm. What is admitted while it is open,
    /// and while half-open beside the probes, is inert. Only [`force_open`](Self::force_open) still
    /// refuses: that is no decision of its own.
    pub const fn watch_only(&mut self, on: bool) -> bool {
        let changed = self.watch_only != on;
        self.watch_only = on;
        changed
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

    /// Since when it is closed; `None` if it is not.
    #[must_use]
    pub const fn closed_since(&self) -> Option<Time> {
        match self.phase {
            Phase::Closed { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Whether it refuses nobody, see [`watch_only`](Self::watch_only).
    #[must_use]
    pub const fn is_watch_only(&self) -> bool {
        self.watch_only
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
        let in_flight = match &self.in_flight {
            Some(in_flight) => {
                let closed = matches!(self.phase, Phase::Closed { .. });
                policy.slow_in_flight && in_flight.is_valid() && (closed || in_flight.is_empty())
            }
            None => !policy.slow_in_flight,
        };
        let ramps = matches!(self.phase, Phase::Closed { .. }) && policy.ramp_for.is_some();
        let ramp = if ramps { self.ramp <= RAMP_WHOLE } else { self.ramp == RAMP_WHOLE };
        // Each trip is a transition, and raises the level by one at most. Half of the numbers are
        // more than anybody can use up, and leave room to go on.
        window
            && phase
            && ramp
            && in_flight
            && u64::from(self.level) <= self.trips
            && self.trips <= self.generation
            && self.generation <= u64::MAX / 2
    }
}

// Comparing: what two breakers that behave alike may differ in is taken out.
impl Breaker {
    /// The breaker with its times relative to `now`, and without its counts of the past. For how long
    /// it has been closed others ask as well, but not beyond `remembered`.
    pub(crate) fn shape(mut self, policy: &BreakerPolicy, remembered: Duration, now: Time) -> Self {
        self.generation = 0;
        self.trips = self.trips.min(1);
        for out in &mut self.probes {
            out.since = Time::ZERO;
            out.deadline = out.deadline.ahead_of(now);
        }
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.shape(now);
        }
        if let Some(window) = &mut self.window {
            window.shape(now);
        }
        match &mut self.phase {
            // How long it has been closed matters until it has been so for long.
            Phase::Closed { since, .. } => {
                let whole = policy.stable_after.max(policy.ramp_for.unwrap_or_default());
                let closed_for = now.since(*since).min(whole.max(remembered));
                *since = Time::from_nanos(nanos(closed_for));
                if closed_for >= policy.stable_after {
                    (self.level, self.opened_for) = (0, Duration::ZERO);
                }
            }
            Phase::Open { until } => *until = until.ahead_of(now),
            Phase::HalfOpen { .. } | Phase::ForcedOpen | Phase::Disabled => {}
        }
        self
    }
}

impl Permit {
    /// The permit as its breaker, before that is shaped, sees it: of its current generation and
    /// in its place, or inert.
    pub(crate) fn shape(self, breaker: &Breaker) -> Self {
        if self.generation != breaker.generation {
            return Self { generation: 1, probe: self.probe, number: 0 };
        }
        let in_flight = breaker.in_flight.as_ref();
        let number = in_flight.map_or(0, |in_flight| in_flight.shape_of(self.number));
        Self { generation: 0, probe: self.probe, number }
    }
}

// Transitions: each of them through `enter`.
impl Breaker {
    fn enter(&mut self, phase: Phase) -> Transition {
        let from = self.state();
        self.phase = phase;
        self.generation = self.generation.saturating_add(1);
        self.probes.clear();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.clear();
        }
        self.ramp = RAMP_WHOLE;
        Transition { from, to: self.state() }
    }

    fn close(&mut self, now: Time) -> Transition {
        self.forget(now);
        self.enter(Phase::Closed { since: now, run: 0 })
    }

    #[cold]
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
        (*successes >= policy.close_after).then(|| {
            let transition = self.close(now);
            if policy.ramp_for.is_some() {
                self.ramp = RAMP_WHOLE - RAMP_FROM;
            }
            transition
        })
    }

    /// Counts one that asks during the ramp: when the ramp ends, if that one is refused.
    ///
    /// Each adds the share of its moment, and whoever makes the sum whole is let through: the first
    /// of all, then every tenth, and later every second, as evenly as whole ones can be spread.
    #[cold]
    fn ramp_refuses(&mut self, policy: &BreakerPolicy, now: Time) -> Option<Time> {
        let (Phase::Closed { since, .. }, Some(span)) = (self.phase, policy.ramp_for) else {
            return None;
        };
        let (passed, whole) = (nanos(now.since(since)), nanos(span));
        if passed >= whole {
            self.ramp = RAMP_WHOLE;
            return None;
        }
        let grown = u128::from(RAMP_WHOLE - RAMP_FROM) * u128::from(passed) / u128::from(whole);
        let saved = self.ramp.saturating_add(RAMP_FROM);
        let saved = saved.saturating_add(u16::try_from(grown).unwrap_or(RAMP_WHOLE));
        let over = saved.checked_sub(RAMP_WHOLE);
        self.ramp = over.unwrap_or(saved);
        if over.is_some() { None } else { Some(since + span) }
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

    /// Counts as slow what has been out for too long, until that trips or there is no more.
    fn judge_in_flight(
        &mut self,
        policy: &BreakerPolicy,
        run: u32,
        now: Time,
        draws: &Draws,
    ) -> Option<Transition> {
        for _ in 0..MAX_JUDGED {
            if !self.in_flight.as_mut()?.take_slow(now) {
                return None;
            }
            if let Some(window) = &mut self.window {
                window.record(false, true, now);
            }
            if self.is_tripped(policy, run, now) {
                return Some(self.trip(policy, None, now, draws));
            }
        }
        None
    }

    #[inline]
    fn is_tripped(&self, policy: &BreakerPolicy, run: u32, now: Time) -> bool {
        if policy.held {
            return false;
        }
        if policy.consecutive_failures.is_some_and(|limit| run >= limit) {
            return true;
        }
        let (Some(window), Some(rule)) = (&self.window, &policy.rates) else { return false };
        window.look(now, |totals| {
            let reached = |rate: Option<Ratio>, part| {
                rate.is_some_and(|rate| rate.is_reached_by(part, totals.calls))
            };
            totals.calls >= rule.min_calls
                && (reached(rule.failure_rate, totals.failures)
                    || reached(rule.slow_rate, totals.slow)
                    || reached(rule.unhealthy_rate, totals.unhealthy))
        })
    }

    fn forget(&mut self, now: Time) {
        if let Some(window) = &mut self.window {
            window.clear(now);
        }
    }
}

#[cfg(test)]
mod tests;
