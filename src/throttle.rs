//! Client-side throttling: send a server little more than it accepts.
//!
//! A breaker knows on and off. A server that takes 60 % of its load and refuses the rest needs
//! neither: it needs clients that send less. Each client sheds by chance, from what it has itself
//! seen accepted of late:
//!
//! ```text
//! p = max(0, (requests − K · accepted) / (requests + padding))        at most `max_reject`
//! ```
//!
//! Beyond what it takes, A, a server is then sent K · A however great the demand: with K = 2 it
//! refuses one for each that it accepts, with K = 1.1 one for ten, and recovery is noticed the later
//! the smaller K is.
//!
//! A request counts when it starts, the ones shed here included. Counting it when it ends lets a
//! hung server be sent everything until the first timeouts (go-zero#5011). For the same reason the
//! window must be longer than the slowest call.
//!
//! Rejected: shedding all (at least a tenth goes through, or a recovery would never be seen),
//! a decaying average (floats), the draw inside (it is the caller's, so that it can be repeated).
//!
//! Source: *Site Reliability Engineering*, ch. 21, "Client-Side Throttling"; the padding is that of
//! gRPC's RLS, so that the first few requests are not shed for one that was refused.

use crate::error::ConfigError;
use crate::ratio::Ratio;
use crate::time::Time;
use crate::window::{Span, Window};
use alloc::format;
use core::time::Duration;

/// The shortest window: ten buckets of a millisecond.
const MIN_WINDOW: Duration = Duration::from_millis(10);
/// The most that may be shed: a tenth always goes through.
const MAX_REJECT: Ratio = Ratio::new(9, 10);

/// What a throttle is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ThrottleConfig {
    /// K: how much is sent for what is accepted; default 2, at least 1.
    pub multiplier: Ratio,
    /// How far back it looks, in steps of a tenth; default two minutes, at least 10 ms.
    pub window: Duration,
    /// Added to the requests, so that a few refused ones make no great share; default 8.
    pub padding: u32,
    /// The share that is shed at most; default 9/10, above 0 and at most that.
    pub max_reject: Ratio,
}

/// Source: SRE for K = 2 over two minutes, gRPC's RLS for the padding of 8, Finagle and Failsafe
/// for a tenth that always goes through.
impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            multiplier: Ratio::new(2, 1),
            window: Duration::from_secs(120),
            padding: 8,
            max_reject: MAX_REJECT,
        }
    }
}

impl ThrottleConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// A `multiplier` below 1, a `window` below 10 ms, a `max_reject` of 0 or above 9/10; a ratio
    /// without a denominator.
    pub fn validate(self) -> Result<ThrottlePolicy, ConfigError> {
        let Self { multiplier, window, max_reject, .. } = self;
        if multiplier.denominator == 0 || !multiplier.is_at_least_one() {
            let problem = format!("is {multiplier}, must be at least 1");
            return Err(ConfigError::new("multiplier", problem));
        }
        if window < MIN_WINDOW {
            let problem = format!("is {window:?}, must be at least {MIN_WINDOW:?}");
            return Err(ConfigError::new("window", problem));
        }
        let over = u64::from(max_reject.numerator) * u64::from(MAX_REJECT.denominator);
        let bound = u64::from(max_reject.denominator) * u64::from(MAX_REJECT.numerator);
        if over == 0 || over > bound {
            let problem = format!("is {max_reject}, must be above 0 and at most {MAX_REJECT}");
            return Err(ConfigError::new("max_reject", problem));
        }
        Ok(ThrottlePolicy(self))
    }
}

/// The checked settings of a throttle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThrottlePolicy(ThrottleConfig);

impl ThrottlePolicy {
    /// How far back it looks.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.0.window
    }

    const fn span(&self) -> Span {
        Span::Time(self.0.window)
    }

    /// Whether the share of 2⁶⁴ that `random` is falls below p. Exact.
    fn sheds(&self, requests: u32, accepted: u32, random: u64) -> bool {
        let Ratio { numerator, denominator } = self.0.multiplier;
        let sent = u64::from(requests) * u64::from(denominator);
        let excess = sent.saturating_sub(u64::from(accepted) * u64::from(numerator));
        let whole = u64::from(requests.saturating_add(self.0.padding)) * u64::from(denominator);
        let Ratio { numerator, denominator } = self.0.max_reject;
        is_below(random, excess, whole)
            && is_below(random, u64::from(numerator), u64::from(denominator))
    }
}

/// Whether random / 2⁶⁴ < part / whole.
const fn is_below(random: u64, part: u64, whole: u64) -> bool {
    random as u128 * (whole as u128) < (part as u128) << 64
}

/// Whether a request is sent.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Throttled {
    /// It is.
    Pass,
    /// It is not: the server has refused too many of late.
    Shed,
}

/// A throttle: what was asked for and accepted of late.
///
/// `now` may be any time; one earlier than the latest seen counts as that. All verbs are O(1), in
/// ten steps.
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::throttle::{Throttle, ThrottleConfig, Throttled};
///
/// let policy = ThrottleConfig::default().validate().unwrap();
/// let (mut throttle, now) = (Throttle::new(&policy, Time::ZERO), Time::ZERO);
/// let half = 1 << 63; // the draw: a half of 2⁶⁴
/// let sent = (0..100).filter(|_| throttle.admit(&policy, half, now) == Throttled::Pass).count();
/// assert_eq!(sent, 9); // nothing was accepted: from then on p is above a half
/// (0..50).for_each(|_| throttle.accepted(now));
/// assert_eq!(throttle.admit(&policy, half, now), Throttled::Pass);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Throttle {
    /// Of both kinds: an acceptance is kept as an outcome that failed, a request as one that did not.
    window: Window,
}

impl Throttle {
    /// A throttle that has seen nothing, and so sheds nothing.
    #[must_use]
    pub fn new(policy: &ThrottlePolicy, now: Time) -> Self {
        let mut window = Window::new(policy.span());
        window.clear(now);
        Self { window }
    }

    /// The same with its times relative to `now`.
    pub(crate) fn shape(&mut self, now: Time) {
        self.window.shape(now);
    }

    /// Decides about a request and counts it, whether it is sent or not.
    ///
    /// `random`: 64 uniform bits, see [`Draws`](crate::draw::Draws).
    pub fn admit(&mut self, policy: &ThrottlePolicy, random: u64, now: Time) -> Throttled {
        let (requests, accepted) = self.counts(now);
        self.window.record(false, false, now);
        if policy.sheds(requests, accepted, random) { Throttled::Shed } else { Throttled::Pass }
    }

    /// Counts a request that the server accepted, whatever became of it.
    pub fn accepted(&mut self, now: Time) {
        self.window.record(true, false, now);
    }

    /// How many requests there were of late, and how many of them were accepted.
    #[must_use]
    pub fn counts(&self, now: Time) -> (u32, u32) {
        let totals = self.window.totals(now);
        (totals.calls.saturating_sub(totals.failures), totals.failures)
    }

    /// Whether this throttle could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, policy: &ThrottlePolicy) -> bool {
        self.window.is_valid(policy.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> ThrottlePolicy {
        ThrottleConfig { padding: 0, ..Default::default() }.validate().unwrap()
    }

    /// A throttle that has seen so many requests, and so many accepted.
    fn throttle(requests: u32, accepted: u32) -> Throttle {
        let mut throttle = Throttle::new(&policy(), Time::ZERO);
        for _ in 0..requests {
            let _ = throttle.admit(&policy(), u64::MAX, Time::ZERO);
        }
        (0..accepted).for_each(|_| throttle.accepted(Time::ZERO));
        assert_eq!(throttle.counts(Time::ZERO), (requests, accepted));
        throttle
    }

    #[test]
    fn nothing_is_shed_while_half_is_accepted() {
        for requests in [0, 1, 2, 10, 101] {
            let mut throttle = throttle(requests, requests.div_ceil(2));
            assert_eq!(throttle.admit(&policy(), 0, Time::ZERO), Throttled::Pass);
        }
        assert_eq!(throttle(3, 1).admit(&policy(), 0, Time::ZERO), Throttled::Shed);
    }

    #[test]
    fn the_share_shed_is_exact_to_the_last_bit_of_the_draw() {
        // (100 − 2 · 25) / 100 is a half.
        let seen = throttle(100, 25);
        let half = 1_u64 << 63;
        assert_eq!(seen.clone().admit(&policy(), half - 1, Time::ZERO), Throttled::Shed);
        assert_eq!(seen.clone().admit(&policy(), half, Time::ZERO), Throttled::Pass);
        // With a padding of 28 it is 50/128.
        let padded = ThrottleConfig { padding: 28, ..Default::default() }.validate().unwrap();
        let share = 50_u64 << 57;
        assert_eq!(seen.clone().admit(&padded, share - 1, Time::ZERO), Throttled::Shed);
        assert_eq!(seen.clone().admit(&padded, share, Time::ZERO), Throttled::Pass);
    }

    #[test]
    fn a_multiplier_that_is_no_whole_number_is_exact_too() {
        let multiplier = Ratio::new(3, 2);
        let seen = throttle(100, 50);
        for (padding, share) in [(0, 1_u64 << 62), (100, 1 << 61)] {
            let config = ThrottleConfig { multiplier, padding, ..Default::default() };
            let policy = config.validate().unwrap();
            // (100 − 3/2 · 50) / (100 + padding) is a quarter, or an eighth.
            assert_eq!(seen.clone().admit(&policy, share - 1, Time::ZERO), Throttled::Shed);
            assert_eq!(seen.clone().admit(&policy, share, Time::ZERO), Throttled::Pass);
        }
    }

    #[test]
    fn a_tenth_goes_through_even_if_nothing_is_accepted() {
        let nine_tenths = u64::try_from((9_u128 << 64).div_ceil(10)).unwrap();
        let mut dead = throttle(1_000, 0);
        assert_eq!(dead.admit(&policy(), nine_tenths - 1, Time::ZERO), Throttled::Shed);
        assert_eq!(dead.admit(&policy(), nine_tenths, Time::ZERO), Throttled::Pass);
    }

    #[test]
    fn what_is_shed_counts_as_asked_for() {
        let mut dead = throttle(10, 0);
        assert_eq!(dead.admit(&policy(), 0, Time::ZERO), Throttled::Shed);
        assert_eq!(dead.counts(Time::ZERO), (11, 0));
    }

    #[test]
    fn a_refusal_is_forgotten_when_the_window_has_passed() {
        let mut dead = throttle(1_000, 0);
        let late = Time::from_secs(120);
        assert_eq!(dead.counts(late.minus_nanos(1)), (1_000, 0));
        assert_eq!(dead.counts(late), (0, 0));
        assert_eq!(dead.admit(&policy(), 0, late), Throttled::Pass);
    }

    #[test]
    fn the_greatest_numbers_are_compared_exactly() {
        let multiplier = Ratio::new(u32::MAX, u32::MAX);
        let config = ThrottleConfig { multiplier, padding: u32::MAX, ..Default::default() };
        let policy = config.validate().unwrap();
        assert!(policy.sheds(u32::MAX, 0, 0));
        assert!(!policy.sheds(u32::MAX, u32::MAX, 0));
        assert!(!policy.sheds(u32::MAX, 0, u64::MAX));
        assert!(!policy.sheds(0, u32::MAX, 0));
    }

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let field = |config: ThrottleConfig| config.validate().map_err(|e| e.field().to_owned());
        let default = ThrottleConfig::default();
        for multiplier in [Ratio::new(9, 10), Ratio::new(1, 0), Ratio::new(0, 0)] {
            assert_eq!(field(ThrottleConfig { multiplier, ..default }), Err("multiplier".into()));
        }
        let window = Duration::from_millis(9);
        assert_eq!(field(ThrottleConfig { window, ..default }), Err("window".into()));
        let window = Duration::from_millis(10);
        assert!(field(ThrottleConfig { window, ..default }).is_ok());
        for max_reject in [Ratio::new(0, 1), Ratio::percent(91), Ratio::new(1, 0)] {
            assert_eq!(field(ThrottleConfig { max_reject, ..default }), Err("max_reject".into()));
        }
        assert!(field(ThrottleConfig { max_reject: Ratio::percent(90), ..default }).is_ok());
    }

    #[test]
    fn what_could_not_have_arisen_is_not_valid() {
        let policy = policy();
        let seen = throttle(3, 1);
        let json = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Throttle>(&json).unwrap(), seen);
        assert!(seen.is_valid(&policy));
        let shorter = ThrottleConfig { window: Duration::from_secs(1), ..Default::default() };
        assert!(!seen.is_valid(&shorter.validate().unwrap()));
        // More accepted than there were events at all.
        let hostile = json.replace("\"failures\":1", "\"failures\":9");
        let mut hostile: Throttle = serde_json::from_str(&hostile).unwrap();
        assert!(!hostile.is_valid(&policy));
        assert_eq!(hostile.admit(&policy, 0, Time::MAX), Throttled::Pass);
    }
}
