//! Self-health: how far an observer may trust its own judgement of others.
//!
//! A process that is starved, swapped out or behind on its reading sees silence everywhere and
//! blames everybody. So an observer keeps a score of the evidence against itself, and while it has
//! one it is more patient with the others:
//!
//! ```text
//! +1   it came late by more than it should (at most once a second)
//! +1   in a second in which more than max(3, 10 %) of the detectors that fired were mistaken
//! −1   for each 20 s without either                                             score ∈ 0..=7
//!
//! patience = nominal + score · margin, at most `max_stretch` · nominal
//! ```
//!
//! `nominal` is what a detector waits for, `margin` the part of it that is caution and not the
//! other side's own rhythm: of phi the pause and the deviations, of a ping its whole timeout, of a
//! plain deadline one half, since whoever sets one sets at least twice the period he expects.
//!
//! The bound is what makes it safe to leave on. Without one, a process that stalls for a second now
//! and then stays at the highest score and finds a death after seven times as long, while holding
//! judgement until the waiting input is fed has already kept it from mistakes.
//!
//! Rejected: −1 for each success (Lifeguard's; made for one probe a second, with 100,000 peers it
//! undoes any score at once), a faster decay (one faster than the stalls' spacing is of no use:
//! at −1 a second nine in ten mistakes stay), a timer for the decay (it follows from the time).
//!
//! Source: Dadgar et al., *Lifeguard: Local Health Awareness for More Accurate Failure Detection*
//! (2018), local health multiplier, 0..=7 as in memberlist's `awareness_max_multiplier` 8.

use alloc::format;
use core::time::Duration;

use crate::error::ConfigError;
use crate::ratio::Ratio;
use crate::time::{Time, nanos};

/// When an observer doubts itself, and how patient that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct SelfHealthConfig {
    /// The highest score; 7. Zero: never doubts itself. At most 100.
    pub max_score: u8,
    /// After how long without evidence the score falls by one; 20 s.
    pub recover_after: Duration,
    /// Mistakes in one second that are never evidence; 3.
    pub min_mistakes: u32,
    /// The share of the detectors that fired that is never evidence; 10 %. At most 1.
    pub mistake_share: Ratio,
    /// The longest that a detection may take for it, in multiples of what it takes otherwise; 1.2.
    /// At least 1; (1 + `max_score`) and more is no bound.
    pub max_stretch: Ratio,
}

/// Source: memberlist for the score; the decay and the shares were measured, see above.
impl Default for SelfHealthConfig {
    fn default() -> Self {
        Self {
            max_score: 7,
            recover_after: Duration::from_secs(20),
            min_mistakes: 3,
            mistake_share: Ratio::percent(10),
            max_stretch: Ratio::new(6, 5),
        }
    }
}

impl SelfHealthConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// A score above 100, a decay of zero, a share above 1, a stretch below 1.
    pub fn validate(self) -> Result<SelfHealthPolicy, ConfigError> {
        if self.max_score > 100 {
            let problem = format!("is {}, must be at most 100", self.max_score);
            return Err(ConfigError::new("max_score", problem));
        }
        if self.recover_after.is_zero() {
            return Err(ConfigError::new("recover_after", "is 0ns, must be at least 1ns"));
        }
        let share = self.mistake_share;
        if share.denominator == 0 || share.numerator > share.denominator {
            let problem = format!("is {share}, must be at most 1");
            return Err(ConfigError::new("mistake_share", problem));
        }
        let stretch = self.max_stretch;
        if stretch.denominator == 0 || stretch.numerator < stretch.denominator {
            let problem = format!("is {stretch}, must be at least 1");
            return Err(ConfigError::new("max_stretch", problem));
        }
        Ok(SelfHealthPolicy(self))
    }
}

/// The checked settings of self-health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SelfHealthPolicy(SelfHealthConfig);

impl SelfHealthPolicy {
    /// How long an observer with this score waits where it would otherwise wait `nominal`, of which
    /// `margin` is caution.
    #[must_use]
    pub fn patience(&self, score: u8, nominal: Duration, margin: Duration) -> Duration {
        if score == 0 {
            return nominal;
        }
        let longest = Duration::from_nanos(self.0.max_stretch.of(nanos(nominal)));
        nominal.saturating_add(margin.saturating_mul(u32::from(score))).min(longest.max(nominal))
    }
}

/// Seconds for which a suspicion can turn out to have been a mistake.
const A_SECOND: u64 = 1_000_000_000;

/// What an observer has against itself.
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::self_health::{SelfHealth, SelfHealthConfig};
///
/// let policy = SelfHealthConfig::default().validate().unwrap();
/// let mut health = SelfHealth::default();
/// health.late(&policy, Time::from_secs(100));
/// assert_eq!(health.score(&policy, Time::from_secs(119)), 1);
/// assert_eq!(health.score(&policy, Time::from_secs(120)), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SelfHealth {
    /// The score as of the last evidence.
    score: u8,
    /// Whether this second's mistakes have counted.
    counted: bool,
    /// When the last evidence came.
    since: Time,
    /// When it may count as late again.
    late_from: Time,
    /// The second that is counted.
    second: u64,
    fired: u32,
    fired_before: u32,
    mistakes: u32,
}

impl SelfHealth {
    /// How much speaks against us at `now`. O(1); changes nothing.
    #[must_use]
    pub fn score(&self, policy: &SelfHealthPolicy, now: Time) -> u8 {
        let fallen = nanos(now.since(self.since)) / nanos(policy.0.recover_after).max(1);
        self.score.saturating_sub(u8::try_from(fallen).unwrap_or(u8::MAX))
    }

    /// Notes that we came too late.
    pub fn late(&mut self, policy: &SelfHealthPolicy, now: Time) {
        if now >= self.late_from {
            self.late_from = now.plus_nanos(A_SECOND);
            self.raise(policy, now);
        }
    }

    /// Notes that a detector looked at a peer.
    pub fn fired(&mut self, now: Time) {
        self.turn(now);
        self.fired = self.fired.saturating_add(1);
    }

    /// Notes that a peer spoke that a detector had just given up. Whether it was just now is for
    /// the caller to know: a second is the measure.
    pub fn mistaken(&mut self, policy: &SelfHealthPolicy, now: Time) {
        self.turn(now);
        self.mistakes = self.mistakes.saturating_add(1);
        // A mistake shows up in the second of the verdict or in the next one.
        let fired = u64::from(self.fired) + u64::from(self.fired_before);
        let Ratio { numerator, denominator } = policy.0.mistake_share;
        let many = u128::from(self.mistakes) * u128::from(denominator)
            > u128::from(fired) * u128::from(numerator);
        if many && self.mistakes > policy.0.min_mistakes && !self.counted {
            self.counted = true;
            self.raise(policy, now);
        }
    }

    /// Whether this could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub fn is_valid(&self, policy: &SelfHealthPolicy) -> bool {
        self.score <= policy.0.max_score && self.second <= Time::MAX.as_nanos() / A_SECOND
    }

    pub(crate) const fn score_is_zero(&self) -> bool {
        self.score == 0
    }

    /// The same with its times relative to `now`: of the second that it counts, how long ago it began.
    pub(crate) fn shape(mut self, relative: impl Fn(&mut Time), now: Time) -> Self {
        self.late_from = self.late_from.max(now);
        if self.score_is_zero() {
            self.since = now;
        }
        relative(&mut self.since);
        relative(&mut self.late_from);
        let began = nanos(now.since(Time::from_secs(self.second)));
        if began >= 2 * A_SECOND {
            (self.fired, self.fired_before, self.mistakes, self.counted) = (0, 0, 0, false);
        }
        let nothing =
            (self.fired, self.fired_before, self.mistakes, self.counted) == (0, 0, 0, false);
        self.second = if nothing { now.as_nanos() % A_SECOND } else { began };
        self
    }

    fn raise(&mut self, policy: &SelfHealthPolicy, now: Time) {
        self.score = self.score(policy, now).saturating_add(1).min(policy.0.max_score);
        self.since = now;
    }

    fn turn(&mut self, now: Time) {
        let second = now.as_nanos() / A_SECOND;
        if second > self.second {
            self.fired_before = if second == self.second + 1 { self.fired } else { 0 };
            (self.fired, self.mistakes, self.counted) = (0, 0, false);
            self.second = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> SelfHealthPolicy {
        SelfHealthConfig::default().validate().unwrap()
    }

    #[test]
    fn lateness_counts_once_a_second_up_to_seven_and_fades() {
        let (mut health, policy) = (SelfHealth::default(), policy());
        for tenth in 0..=100 {
            health.late(&policy, Time::from_millis(100 * tenth));
        }
        assert_eq!(health.score(&policy, Time::from_secs(10)), 7);
        assert_eq!(health.score(&policy, Time::from_secs(29)), 7);
        assert_eq!(health.score(&policy, Time::from_secs(30)), 6);
        assert_eq!(health.score(&policy, Time::from_secs(3_000)), 0);
        health.late(&policy, Time::from_secs(51));
        assert_eq!(health.score(&policy, Time::from_secs(51)), 6);
        assert!(health.is_valid(&policy));
    }

    #[test]
    fn a_few_mistakes_among_many_verdicts_are_nobodys_fault() {
        let (mut health, policy) = (SelfHealth::default(), policy());
        (0..50).for_each(|_| health.fired(Time::from_millis(10_900)));
        let now = Time::from_millis(11_100);
        (0..5).for_each(|_| health.mistaken(&policy, now));
        assert_eq!(health.score(&policy, now), 0);
        health.mistaken(&policy, now);
        assert_eq!(health.score(&policy, now), 1);
        (0..50).for_each(|_| health.mistaken(&policy, now));
        assert_eq!(health.score(&policy, now), 1, "once a second");
        let next = Time::from_secs(13);
        (0..3).for_each(|_| health.mistaken(&policy, next));
        assert_eq!(health.score(&policy, next), 1);
        health.mistaken(&policy, next);
        assert_eq!(health.score(&policy, next), 2);
    }

    #[test]
    fn patience_grows_by_the_margin_and_ends_at_the_stretch() {
        let secs = Duration::from_secs;
        let unbounded = SelfHealthConfig { max_stretch: Ratio::new(8, 1), ..Default::default() };
        let unbounded = unbounded.validate().unwrap();
        for (score, bounded, free) in [(0, 20, 20), (1, 24, 24), (2, 24, 28), (7, 24, 48)] {
            assert_eq!(policy().patience(score, secs(20), secs(4)), secs(bounded));
            assert_eq!(unbounded.patience(score, secs(20), secs(4)), secs(free));
        }
        assert_eq!(policy().patience(7, Duration::MAX, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let field = |change: fn(&mut SelfHealthConfig)| {
            let mut config = SelfHealthConfig::default();
            change(&mut config);
            config.validate().unwrap_err().field().to_owned()
        };
        assert_eq!(field(|c| c.max_score = 101), "max_score");
        assert_eq!(field(|c| c.recover_after = Duration::ZERO), "recover_after");
        assert_eq!(field(|c| c.mistake_share = Ratio::percent(101)), "mistake_share");
        assert_eq!(field(|c| c.max_stretch = Ratio::percent(99)), "max_stretch");
        let (all, least) = (Ratio::percent(100), Duration::from_nanos(1));
        let extreme = SelfHealthConfig {
            max_score: 100,
            recover_after: least,
            mistake_share: all,
            max_stretch: all,
            ..SelfHealthConfig::default()
        };
        assert!(extreme.validate().is_ok());
    }

    #[test]
    fn what_could_not_have_arisen_is_not_valid() {
        let mut last = SelfHealth::default();
        last.fired(Time::MAX);
        assert!(last.is_valid(&policy()));
        let beyond = SelfHealth { second: last.second + 1, ..last };
        assert!(!beyond.is_valid(&policy()), "after the end of time");
        assert!(SelfHealth { score: 7, ..last }.is_valid(&policy()));
        assert!(!SelfHealth { score: 8, ..last }.is_valid(&policy()), "above the highest score");
    }

    #[test]
    fn alike_are_those_who_will_recover_at_the_same_time_or_have_nothing_to_recover_from() {
        let secs = Time::from_secs;
        let shape = |late_at: u64, now: u64| {
            let mut health = SelfHealth::default();
            health.late(&policy(), secs(late_at));
            let now = secs(now);
            health.shape(|time| *time = Time::from_nanos(nanos(now.since(*time))), now)
        };
        assert_eq!(shape(10, 15), shape(110, 115));
        assert_ne!(shape(10, 15), shape(10, 16));
        let nobody = |since| SelfHealth { since, ..SelfHealth::default() }.shape(|_| {}, secs(9));
        assert_eq!(nobody(secs(1)), nobody(secs(2)));
    }
}
