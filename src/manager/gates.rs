//! What stands before the calls of one breaker, beside the breaker itself.

use crate::bucket::Bucket;
use crate::budget::Budget;
use crate::bulkhead::Bulkhead;
use crate::config::GatePolicy;
use crate::hedge::Hedge;
use crate::limit::Limit;
use crate::throttle::Throttle;
use crate::time::Time;

/// The state of a breaker's gates; apart, since a breaker that guards dials never needs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Gates {
    pub(crate) bulkhead: Bulkhead,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) limit: Option<Limit>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) rate: Option<Bucket>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) throttle: Option<Throttle>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) budget: Option<Budget>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) hedge: Option<Hedge>,
    /// When the server last refused or failed an attempt. While it has refused none of late the
    /// throttle sheds nothing, so that a burst on which no answer has come yet passes.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) refused_at: Option<Time>,
    /// Numbers drawn for the throttle.
    pub(crate) throttle_draws: u64,
}

impl Gates {
    pub(crate) fn new(policy: &GatePolicy, now: Time) -> Self {
        Self {
            bulkhead: Bulkhead::new(),
            limit: policy.limit.as_ref().map(Limit::new),
            rate: policy.rate.as_ref().map(|rate| Bucket::full(rate, now)),
            throttle: policy.throttle.as_ref().map(|throttle| Throttle::new(throttle, now)),
            budget: policy.budget.as_ref().map(|budget| Budget::new(budget, now)),
            hedge: policy.hedge.as_ref().map(Hedge::new),
            refused_at: None,
            throttle_draws: 0,
        }
    }

    /// The same as of `now`, its times relative to that and its tickets to the first in line.
    pub(crate) fn shape(&mut self, policy: &GatePolicy, now: Time) {
        self.bulkhead.shape(now);
        if let Some(limit) = &mut self.limit {
            limit.shape(now);
        }
        if let (Some(bucket), Some(rate)) = (&mut self.rate, &policy.rate) {
            bucket.shape(rate, now);
        }
        if let Some(throttle) = &mut self.throttle {
            throttle.shape(now);
        }
        if let (Some(budget), Some(policy)) = (&mut self.budget, &policy.budget) {
            budget.shape(policy, now);
        }
        self.throttle_draws = 0;
    }

    /// How many attempts may run at once.
    pub(crate) fn limit(&self, policy: &GatePolicy) -> u32 {
        let most = policy.bulkhead.max_concurrent();
        self.limit.as_ref().map_or(most, |limit| limit.current().min(most))
    }

    /// Whether one more attempt may run.
    pub(crate) fn has_room(&self, policy: &GatePolicy) -> bool {
        self.bulkhead.has_room(self.limit(policy))
    }

    /// When the rate lets the `n`-th in line through.
    pub(crate) fn turn_at(&self, policy: &GatePolicy, n: u32, now: Time) -> Option<Time> {
        match (&self.rate, &policy.rate) {
            (Some(bucket), Some(rate)) => bucket.ready_for(rate, n, now),
            _ => Some(now),
        }
    }

    /// Whether these gates could have arisen under `policy`; for what was read from outside.
    pub(crate) fn is_valid(&self, policy: &GatePolicy) -> bool {
        fn agree<S, P>(state: Option<&S>, policy: Option<&P>, check: fn(&S, &P) -> bool) -> bool {
            match (state, policy) {
                (None, None) => true,
                (Some(state), Some(policy)) => check(state, policy),
                _ => false,
            }
        }
        self.bulkhead.is_valid(&policy.bulkhead)
            && agree(self.limit.as_ref(), policy.limit.as_ref(), Limit::is_valid)
            && agree(self.rate.as_ref(), policy.rate.as_ref(), Bucket::is_valid)
            && agree(self.throttle.as_ref(), policy.throttle.as_ref(), Throttle::is_valid)
            && agree(self.budget.as_ref(), policy.budget.as_ref(), Budget::is_valid)
            && agree(self.hedge.as_ref(), policy.hedge.as_ref(), Hedge::is_valid)
            && self.throttle_draws <= u64::MAX / 2
    }
}
