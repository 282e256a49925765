//! A retry budget: retries are paid from what successes have earned.
//!
//! While most calls succeed there is plenty, and every failure is retried. In an outage nothing is
//! earned, the budget runs dry, and the load on the server stays what it was: a budget needs to
//! be told of no outage, and cannot prolong one.
//!
//! ```text
//! deposit    balance += ratio           a logical call succeeded, at its first attempt
//! refund     balance += 1               it succeeded at a retry: that one was worth its token
//! withdraw   balance −= 1               a retry, if there is a whole token
//! reserve    balance += count / per     by itself, so that a quiet client can retry at all
//! ```
//!
//! At a failure share f the retries settle at (ratio · (1 − f) + reserve) / f for each call, as far
//! as the attempts allow: 11 % more load at f = 0.1, 1 % at f = 0.9, none but the reserve at 1.
//!
//! The balance is kept in thousandths of a token; of the reserve also what is less than one, exactly,
//! so the moment named by a refusal is exactly the first at which a token is there.
//!
//! Rejected: a fixed surcharge (Finagle's 20 % never stops, not even at total failure), a switch
//! (gRPC's tokens above a half: at 10 % of failures no retry at all), a share of what is in flight
//! (Envoy: likewise for ever), starting full (a thousand clients with five tokens each multiply an
//! overload by 1.88).
//!
//! Source: the "standard" retry mode of the AWS SDKs, with Finagle's floor per second.

use crate::bucket::Rate;
use crate::error::ConfigError;
use crate::ratio::Ratio;
use crate::time::{Time, nanos};
use alloc::format;
use core::time::Duration;

/// A token, in the units of the balance.
const TOKEN: u64 = 1_000;
/// The most tokens that a budget may hold.
const MAX_CAPACITY: u32 = 1_000_000;

/// What a budget is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BudgetConfig {
    /// What a logical success earns, in tokens, rounded down to a thousandth; default 1/10. At
    /// most 1; 0 leaves the reserve alone.
    pub ratio: Ratio,
    /// How many tokens it holds; default 10, from 1 to 1,000,000.
    pub capacity: u32,
    /// How many it starts with; default none. At most `capacity`.
    pub initial: u32,
    /// Whether a retry that succeeded gets its token back; default yes.
    pub refund: bool,
    /// How fast tokens come by themselves; default one in five minutes, `None`: never.
    pub reserve: Option<Rate>,
}

/// Source: SRE and Linkerd for 10 %; AWS for the refund, which at 20 % of failures takes the calls
/// that fail in the end from 12.9 % to 0.8 %. Empty at the start, and a slow reserve, since both
/// multiply by the number of clients: a thousand add 3 retries a second at a token in five minutes.
/// If each has a call in ten seconds and half of these fail, that makes 1.14 times the load over
/// ten minutes; a token in a minute would make 1.38.
impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            ratio: Ratio::new(1, 10),
            capacity: 10,
            initial: 0,
            refund: true,
            reserve: Some(Rate { count: 1, per: Duration::from_secs(300) }),
        }
    }
}

impl BudgetConfig {
    /// Checks the settings and turns them into a policy.
    ///
    /// # Errors
    ///
    /// A `ratio` above 1, without a denominator, or so small that a success would earn nothing; a
    /// `capacity` out of bounds; an `initial` above it; a zero in `reserve`.
    pub fn validate(self) -> Result<BudgetPolicy, ConfigError> {
        let Self { ratio, capacity, initial, refund, reserve } = self;
        if ratio.denominator == 0 || ratio.numerator > ratio.denominator {
            return Err(ConfigError::new("ratio", format!("is {ratio}, must be from 0 to 1")));
        }
        let earned = ratio.of(TOKEN);
        if earned == 0 && ratio.numerator > 0 {
            let problem = format!("is {ratio}, must be 0 or at least 1/{TOKEN}");
            return Err(ConfigError::new("ratio", problem));
        }
        if capacity == 0 || capacity > MAX_CAPACITY {
            let problem = format!("is {capacity}, must be from 1 to {MAX_CAPACITY}");
            return Err(ConfigError::new("capacity", problem));
        }
        if initial > capacity {
            let problem = format!("is {initial}, must be at most the capacity, {capacity}");
            return Err(ConfigError::new("initial", problem));
        }
        let (mut gain, mut per_ns) = (0, 1);
        if let Some(rate) = reserve {
            if rate.count == 0 {
                return Err(ConfigError::new("reserve.count", "is 0, must be at least 1"));
            }
            (gain, per_ns) = (u64::from(rate.count) * TOKEN, nanos(rate.per));
            if per_ns == 0 {
                return Err(ConfigError::new("reserve.per", "is 0ns, must be at least 1ns"));
            }
        }
        let tokens = |count: u32| u64::from(count) * TOKEN;
        Ok(BudgetPolicy {
            earned,
            capacity: tokens(capacity),
            initial: tokens(initial),
            refund,
            gain,
            per_ns,
        })
    }
}

/// The checked settings of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetPolicy {
    /// These three in thousandths of a token.
    earned: u64,
    capacity: u64,
    initial: u64,
    refund: bool,
    /// The reserve: so many thousandths in so many nanoseconds; 0 in 1 if there is none.
    gain: u64,
    per_ns: u64,
}

impl BudgetPolicy {
    /// Whether a retry that succeeded gets its token back.
    #[must_use]
    pub const fn refund(&self) -> bool {
        self.refund
    }

    /// What a full budget holds, in thousandths of a token.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }
}

/// Whether a retry is paid for.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withdrawal {
    /// It is: there was a token, and it is taken.
    Granted,
    /// It is not: there was no whole token, and nothing is taken.
    Refused {
        /// The first moment at which the reserve alone will have made one; `None` without a reserve.
        ready_at: Option<Time>,
    },
}

/// A retry budget: 24 bytes.
///
/// `now` may be any time; one earlier than the latest seen counts as the latest seen. All verbs are
/// O(1).
///
/// # Examples
///
/// ```
/// use steadfast::Time;
/// use steadfast::budget::{Budget, BudgetConfig, Withdrawal};
///
/// let policy = BudgetConfig { reserve: None, ..Default::default() }.validate().unwrap();
/// let (mut budget, now) = (Budget::new(&policy, Time::ZERO), Time::ZERO);
/// (0..10).for_each(|_| budget.deposit(&policy, now));
/// assert_eq!(budget.withdraw(&policy, now), Withdrawal::Granted);
/// assert_eq!(budget.withdraw(&policy, now), Withdrawal::Refused { ready_at: None });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Budget {
    /// Thousandths of a token.
    balance: u64,
    /// What the reserve has brought beyond, in units of 1/`per_ns` of a thousandth; 0 when full.
    rest: u64,
    at: Time,
}

impl Budget {
    /// A budget with the policy's initial tokens.
    #[must_use]
    pub const fn new(policy: &BudgetPolicy, now: Time) -> Self {
        Self { balance: policy.initial, rest: 0, at: now }
    }

    /// Pays for a retry, or for a hedge, if there is a whole token; otherwise says when there will
    /// be one if nothing is earned.
    pub fn withdraw(&mut self, policy: &BudgetPolicy, now: Time) -> Withdrawal {
        *self = self.settled(policy, now);
        match self.balance.checked_sub(TOKEN) {
            Some(rest) => {
                self.balance = rest;
                Withdrawal::Granted
            }
            None => Withdrawal::Refused { ready_at: self.ready_at(policy) },
        }
    }

    /// Earns for one logical success, however many attempts it took.
    pub fn deposit(&mut self, policy: &BudgetPolicy, now: Time) {
        *self = self.settled(policy, now);
        self.add(policy, policy.earned);
    }

    /// Gives back the token of a retry that succeeded, if the policy refunds; tells whether.
    ///
    /// A refund takes the place of the [`deposit`](Self::deposit), which is due if there is none.
    pub fn refund(&mut self, policy: &BudgetPolicy, now: Time) -> bool {
        *self = self.settled(policy, now);
        if policy.refund {
            self.add(policy, TOKEN);
        }
        policy.refund
    }

    /// Gives back the token of a retry that never started.
    pub fn give_back(&mut self, policy: &BudgetPolicy) {
        self.add(policy, TOKEN);
    }

    /// What is there, in thousandths of a token.
    #[must_use]
    pub fn balance(&self, policy: &BudgetPolicy, now: Time) -> u64 {
        self.settled(policy, now).balance
    }

    /// Whether this budget could have arisen under `policy`; for what was read from outside.
    #[must_use]
    pub const fn is_valid(&self, policy: &BudgetPolicy) -> bool {
        self.balance <= policy.capacity
            && self.rest < policy.per_ns
            && (self.balance < policy.capacity || self.rest == 0)
    }

    /// The same as of `now`, which becomes the beginning of time.
    pub(crate) fn shape(&mut self, policy: &BudgetPolicy, now: Time) {
        *self = Self { at: Time::ZERO, ..self.settled(policy, now) };
    }

    /// The budget as it is at `now`, with what the reserve has brought.
    fn settled(mut self, policy: &BudgetPolicy, now: Time) -> Self {
        if self.balance >= policy.capacity {
            self.at = self.at.max(now);
            return self;
        }
        let elapsed = nanos(now.since(self.at));
        let units = u128::from(elapsed) * u128::from(policy.gain) + u128::from(self.rest);
        let per_ns = u128::from(policy.per_ns.max(1));
        self.at = self.at.max(now);
        self.rest = u64::try_from(units % per_ns).unwrap_or_default();
        self.add(policy, u64::try_from(units / per_ns).unwrap_or(u64::MAX));
        self
    }

    fn add(&mut self, policy: &BudgetPolicy, thousandths: u64) {
        self.balance = self.balance.saturating_add(thousandths);
        if self.balance >= policy.capacity {
            self.balance = policy.capacity;
            self.rest = 0;
        }
    }

    fn ready_at(&self, policy: &BudgetPolicy) -> Option<Time> {
        let missing = u128::from(TOKEN.saturating_sub(self.balance)) * u128::from(policy.per_ns);
        let units = missing.saturating_sub(u128::from(self.rest));
        let gain = u128::from(policy.gain);
        let wait = (gain > 0).then(|| units.div_ceil(gain))?;
        Some(self.at.plus_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(reserve: Option<Rate>) -> BudgetConfig {
        BudgetConfig { reserve, ..Default::default() }
    }

    #[test]
    fn ten_successes_pay_for_one_retry_at_exactly_a_token() {
        let policy = config(None).validate().unwrap();
        let mut budget = Budget::new(&policy, Time::ZERO);
        for earned in 1..=9 {
            budget.deposit(&policy, Time::ZERO);
            assert_eq!(budget.balance(&policy, Time::ZERO), earned * 100);
            let refused = Withdrawal::Refused { ready_at: None };
            assert_eq!(budget.withdraw(&policy, Time::ZERO), refused);
        }
        budget.deposit(&policy, Time::ZERO);
        assert_eq!(budget.withdraw(&policy, Time::ZERO), Withdrawal::Granted);
        assert_eq!(budget.balance(&policy, Time::ZERO), 0);
    }

    #[test]
    fn the_moment_named_is_exactly_when_the_reserve_has_made_a_token() {
        // A thousandth takes a third of a millisecond: no whole number of nanoseconds.
        let policy = config(Some(Rate::per_second(3))).validate().unwrap();
        let mut budget = Budget::new(&policy, Time::ZERO);
        let ready_at = Some(Time::from_nanos(333_333_334));
        assert_eq!(budget.withdraw(&policy, Time::ZERO), Withdrawal::Refused { ready_at });
        let early = Time::from_nanos(333_333_333);
        assert_eq!(budget.withdraw(&policy, early), Withdrawal::Refused { ready_at });
        let mut late = budget;
        assert_eq!(late.withdraw(&policy, Time::from_nanos(333_333_334)), Withdrawal::Granted);
        // What was earned beyond the token is not lost: three tokens take one second.
        let ready_at = Some(Time::from_nanos(666_666_667));
        let at = Time::from_nanos(333_333_334);
        assert_eq!(late.withdraw(&policy, at), Withdrawal::Refused { ready_at });
    }

    #[test]
    fn a_retry_that_succeeds_is_refunded_where_the_policy_says_so() {
        for refund in [true, false] {
            let config = BudgetConfig { initial: 1, refund, ..config(None) };
            let policy = config.validate().unwrap();
            let mut budget = Budget::new(&policy, Time::ZERO);
            assert_eq!(policy.refund(), refund);
            assert_eq!(budget.withdraw(&policy, Time::ZERO), Withdrawal::Granted);
            assert_eq!(budget.refund(&policy, Time::ZERO), refund);
            assert_eq!(budget.balance(&policy, Time::ZERO), if refund { TOKEN } else { 0 });
        }
    }

    #[test]
    fn a_retry_that_never_started_costs_nothing_and_nothing_overfills() {
        let config = BudgetConfig { initial: 10, ..Default::default() };
        let policy = config.validate().unwrap();
        let full = Budget::new(&policy, Time::ZERO);
        let mut budget = full;
        assert_eq!(budget.withdraw(&policy, Time::ZERO), Withdrawal::Granted);
        budget.give_back(&policy);
        budget.give_back(&policy);
        budget.deposit(&policy, Time::ZERO);
        assert_eq!(budget, full);
        assert_eq!(budget.balance(&policy, Time::MAX), policy.capacity());
    }

    #[test]
    fn a_clock_that_goes_back_and_the_end_of_time_are_survived() {
        let reserve = Some(Rate { count: 1, per: Duration::MAX });
        let policy = config(reserve).validate().unwrap();
        let mut budget = Budget::new(&policy, Time::from_secs(10));
        let ready_at = Some(Time::MAX);
        assert_eq!(budget.withdraw(&policy, Time::ZERO), Withdrawal::Refused { ready_at });
        assert_eq!(budget.balance(&policy, Time::from_secs(10)), 0);
        let reserve = Some(Rate { count: u32::MAX, per: Duration::from_nanos(1) });
        let policy = config(reserve).validate().unwrap();
        assert_eq!(Budget::new(&policy, Time::ZERO).balance(&policy, Time::MAX), 10_000);
    }

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let field = |config: BudgetConfig| config.validate().map_err(|e| e.field().to_owned());
        let default = BudgetConfig::default();
        for ratio in [Ratio::new(11, 10), Ratio::new(1, 0), Ratio::new(0, 0), Ratio::new(1, 1_001)]
        {
            assert_eq!(field(BudgetConfig { ratio, ..default }), Err("ratio".into()));
        }
        for capacity in [0, 1_000_001] {
            assert_eq!(field(BudgetConfig { capacity, ..default }), Err("capacity".into()));
        }
        assert_eq!(field(BudgetConfig { initial: 11, ..default }), Err("initial".into()));
        let none = Rate { count: 0, per: Duration::from_secs(1) };
        assert_eq!(field(config(Some(none))), Err("reserve.count".into()));
        let at_once = Rate { count: 1, per: Duration::ZERO };
        assert_eq!(field(config(Some(at_once))), Err("reserve.per".into()));
        for ratio in [Ratio::new(0, 1), Ratio::new(1, 1)] {
            assert!(field(BudgetConfig { ratio, ..default }).is_ok());
        }
        for capacity in [1, 1_000_000] {
            assert!(field(BudgetConfig { capacity, initial: capacity, ..default }).is_ok());
        }
    }

    #[test]
    fn it_is_small_and_what_could_not_have_arisen_is_not_valid() {
        assert!(size_of::<Budget>() <= 24);
        let policy = BudgetConfig::default().validate().unwrap();
        let budget = Budget::new(&policy, Time::ZERO);
        let json = serde_json::to_string(&budget).unwrap();
        assert_eq!(json, r#"{"balance":0,"rest":0,"at":0}"#);
        assert_eq!(serde_json::from_str::<Budget>(&json).unwrap(), budget);
        let (full, per_ns) = (policy.capacity(), 300_000_000_000);
        for (balance, rest) in [(full, 0), (full - 1, per_ns - 1)] {
            assert!(Budget { balance, rest, at: Time::ZERO }.is_valid(&policy));
        }
        for (balance, rest) in
            [(full + 1, 0), (full, 1), (0, per_ns), (0, u64::MAX), (u64::MAX, u64::MAX)]
        {
            let mut hostile = Budget { balance, rest, at: Time::ZERO };
            assert!(!hostile.is_valid(&policy));
            let _ = hostile.withdraw(&policy, Time::MAX);
            hostile.give_back(&policy);
        }
    }

    proptest! {
        #[test]
        fn the_balance_is_what_came_less_what_went(
            count in 1_u32..50,
            per in 1_u64..5_000,
            numerator in 0_u32..=7,
            steps in proptest::collection::vec((0_u64..2_000, 0_u8..4), 1..200),
        ) {
            let reserve = Some(Rate { count, per: Duration::from_nanos(per) });
            let ratio = Ratio::new(numerator, 7);
            let policy = BudgetConfig { ratio, reserve, capacity: 4, ..Default::default() };
            let policy = policy.validate().unwrap();
            let mut budget = Budget::new(&policy, Time::ZERO);
            // In units of 1/per of a thousandth, so the model needs no remainder.
            let (mut now, mut model) = (0_u64, 0_u64);
            for (gap, verb) in steps {
                now += gap;
                let at = Time::from_nanos(now);
                let full = 4 * TOKEN * per;
                model = (model + gap * u64::from(count) * TOKEN).min(full);
                match verb {
                    0 => {
                        budget.deposit(&policy, at);
                        model = (model + ratio.of(TOKEN) * per).min(full);
                    }
                    1 => {
                        prop_assert!(budget.refund(&policy, at));
                        model = (model + TOKEN * per).min(full);
                    }
                    _ => match budget.withdraw(&policy, at) {
                        Withdrawal::Granted => model -= TOKEN * per,
                        Withdrawal::Refused { ready_at } => {
                            let missing = TOKEN * per - model;
                            let wait = missing.div_ceil(u64::from(count) * TOKEN);
                            prop_assert_eq!(ready_at, Some(at.plus_nanos(wait)));
                        }
                    },
                }
                prop_assert_eq!(budget.balance(&policy, at), model / per);
                prop_assert!(budget.is_valid(&policy));
            }
        }
    }
}
