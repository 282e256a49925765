//! A retry layer around the manager's calls, as other libraries have it: their budgets, as models.
//!
//! Where a policy's budget is not the core's, a request of the workload is one or more calls of the
//! manager, and this layer says whether there is another. It also shows what two retry layers make
//! of each other.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use steadfast::Time;

use crate::units::{Call, ParseError, Rate, Share, Span, as_text};

/// What another library pays retries from, as a word: `free`, `bucket(start=5, cap=5, earn=0.1)`,
/// `failure-share(0.1)`, `finagle(ratio=0.2, reserve=10/s, ttl=10s)`, `grpc(tokens=10, ratio=0.1)`,
/// `aws(tokens=500, cost=5, timeout_cost=10)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ForeignBudget {
    /// Nothing: every failure is retried.
    Free,
    /// A bucket that each call fills a little, its first attempt included; a retry needs more than one
    /// token and takes one.
    ///
    /// Source: M. Brooker, *Fixing retries with token buckets and circuit breakers*, `retry_sim`.
    Bucket {
        /// What it starts with.
        start: f64,
        /// What it holds.
        cap: f64,
        /// What a call earns.
        earn: f64,
    },
    /// None while failed attempts over calls are above the share, since the beginning.
    ///
    /// Source: the same.
    FailureShare(f64),
    /// Each request earns a share of a retry for a while, and some come by themselves.
    ///
    /// Source: Finagle `RetryBudget`; tower `TpsBudget` has the same.
    Finagle {
        /// What a request earns.
        ratio: f64,
        /// What comes by itself.
        reserve: Rate,
        /// How long both last.
        ttl: Span,
    },
    /// A failed attempt costs one, a success earns the ratio; no retry at half or below.
    ///
    /// Source: gRFC A6, retry throttling.
    Grpc {
        /// What it starts with, and the most it holds.
        tokens: f64,
        /// What a success earns.
        ratio: f64,
    },
    /// A retry costs, more after a timeout, and gets it back if it succeeds; a success at first earns
    /// one.
    ///
    /// Source: the AWS SDKs' standard retry mode (botocore `quota.py`, smithy-rs token bucket).
    Aws {
        /// What it starts with, and the most it holds.
        tokens: u32,
        /// What a retry costs.
        cost: u32,
        /// The same after a timeout.
        timeout_cost: u32,
    },
}

/// The state of one client's budget.
#[derive(Clone, Debug)]
pub(crate) struct Purse {
    budget: ForeignBudget,
    balance: f64,
    calls: f64,
    failures: f64,
    /// Finagle's: what was earned, less what was spent, by the second.
    slots: VecDeque<(u64, f64)>,
}

const SECOND: u64 = 1_000_000_000;

impl Purse {
    pub(crate) fn new(budget: ForeignBudget) -> Self {
        let balance = match budget {
            ForeignBudget::Bucket { start, .. } => start,
            ForeignBudget::Grpc { tokens, .. } => tokens,
            ForeignBudget::Aws { tokens, .. } => tokens.into(),
            _ => 0.0,
        };
        Self { budget, balance, calls: 0.0, failures: 0.0, slots: VecDeque::new() }
    }

    /// A request begins.
    pub(crate) fn begin(&mut self, now: Time) {
        self.calls += 1.0;
        match self.budget {
            ForeignBudget::Bucket { cap, earn, .. } => {
                self.balance = (self.balance + earn).min(cap);
            }
            ForeignBudget::Finagle { ratio, .. } => self.slot(now, ratio),
            _ => {}
        }
    }

    /// It succeeded, at the first attempt or after a retry that had cost so much.
    pub(crate) fn succeeded(&mut self, paid: f64) {
        match self.budget {
            ForeignBudget::Grpc { tokens, ratio } => {
                self.balance = (self.balance + ratio).min(tokens);
            }
            ForeignBudget::Aws { tokens, .. } => {
                let earned = if paid > 0.0 { paid } else { 1.0 };
                self.balance = (self.balance + earned).min(tokens.into());
            }
            _ => {}
        }
    }

    /// An attempt failed. What another one costs, if it may be made.
    pub(crate) fn failed(&mut self, now: Time, timeout: bool, is_last: bool) -> Option<f64> {
        self.failures += 1.0;
        if let ForeignBudget::Grpc { .. } = self.budget {
            self.balance = (self.balance - 1.0).max(0.0);
        }
        if is_last {
            return None;
        }
        match self.budget {
            ForeignBudget::Free => Some(0.0),
            ForeignBudget::Bucket { .. } => {
                let may = self.balance > 1.0;
                self.balance -= f64::from(u8::from(may));
                may.then_some(1.0)
            }
            ForeignBudget::FailureShare(share) => {
                (self.failures / self.calls <= share).then_some(0.0)
            }
            ForeignBudget::Finagle { reserve, ttl, .. } => {
                self.slot(now, 0.0);
                let floor = reserve.per_second() * ttl.as_secs_f64();
                let earned: f64 = self.slots.iter().map(|(_, tokens)| tokens).sum();
                let may = floor + earned >= 1.0;
                self.slot(now, if may { -1.0 } else { 0.0 });
                may.then_some(1.0)
            }
            ForeignBudget::Grpc { tokens, .. } => (self.balance > tokens / 2.0).then_some(0.0),
            ForeignBudget::Aws { cost, timeout_cost, .. } => {
                let cost = f64::from(if timeout { timeout_cost } else { cost });
                let may = self.balance >= cost;
                self.balance -= if may { cost } else { 0.0 };
                may.then_some(cost)
            }
        }
    }

    /// Adds to the slot of this second, and forgets those that are too old.
    fn slot(&mut self, now: Time, tokens: f64) {
        let ForeignBudget::Finagle { ttl, .. } = self.budget else { return };
        let second = now.as_nanos() / SECOND;
        let oldest = second.saturating_sub(ttl.as_nanos() / SECOND);
        while self.slots.front().is_some_and(|(at, _)| *at <= oldest && *at < second) {
            self.slots.pop_front();
        }
        match self.slots.back_mut().filter(|(at, _)| *at == second) {
            Some((_, sum)) => *sum += tokens,
            None => self.slots.push_back((second, tokens)),
        }
    }
}

impl fmt::Display for ForeignBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::Bucket { start, cap, earn } => {
                write!(f, "bucket(start={start}, cap={cap}, earn={earn})")
            }
            Self::FailureShare(share) => write!(f, "failure-share({share})"),
            Self::Finagle { ratio, reserve, ttl } => {
                write!(f, "finagle(ratio={ratio}, reserve={reserve}, ttl={ttl})")
            }
            Self::Grpc { tokens, ratio } => write!(f, "grpc(tokens={tokens}, ratio={ratio})"),
            Self::Aws { tokens, cost, timeout_cost } => {
                write!(f, "aws(tokens={tokens}, cost={cost}, timeout_cost={timeout_cost})")
            }
        }
    }
}

/// A number that is finite and not negative.
struct Amount(f64);

impl FromStr for Amount {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e9).contains(number));
        number.map(Self).ok_or_else(|| ParseError::new(format!("`{text}` is no amount")))
    }
}

impl FromStr for ForeignBudget {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let unknown = || {
            ParseError::new(format!(
                "`{text}` is unknown; it may be free, bucket(start=5, cap=5, earn=0.1), \
                 failure-share(0.1), finagle(ratio=0.2, reserve=10/s, ttl=10s), \
                 grpc(tokens=10, ratio=0.1), aws(tokens=500, cost=5, timeout_cost=10)"
            ))
        };
        let mut call = Call::parse(text).ok_or_else(unknown)?;
        let budget = match call.name {
            "free" => Self::Free,
            "bucket" => Self::Bucket {
                start: call.need::<Amount>("start")?.0,
                cap: call.need::<Amount>("cap")?.0,
                earn: call.need::<Amount>("earn")?.0,
            },
            "failure-share" => Self::FailureShare(call.need::<Share>("")?.as_f64()),
            "finagle" => Self::Finagle {
                ratio: call.need::<Amount>("ratio")?.0,
                reserve: call.need("reserve")?,
                ttl: call.need("ttl")?,
            },
            "grpc" => Self::Grpc {
                tokens: call.need::<Amount>("tokens")?.0,
                ratio: call.need::<Amount>("ratio")?.0,
            },
            "aws" => Self::Aws {
                tokens: call.need("tokens")?,
                cost: call.need("cost")?,
                timeout_cost: call.need("timeout_cost")?,
            },
            _ => return Err(unknown()),
        };
        call.end()?;
        Ok(budget)
    }
}

as_text!(ForeignBudget, "a budget in quotes, as \"grpc(tokens=10, ratio=0.1)\"");

#[cfg(test)]
mod tests {
    use super::*;

    fn purse(text: &str) -> Purse {
        let budget: ForeignBudget = text.parse().unwrap();
        assert_eq!(budget.to_string().parse(), Ok(budget));
        Purse::new(budget)
    }

    /// How many of so many failures in a row are retried, each of another request.
    fn retries(purse: &mut Purse, failures: u32, timeout: bool) -> usize {
        let now = Time::from_secs(1);
        let one = |_| {
            purse.begin(now);
            purse.failed(now, timeout, false)
        };
        (0..failures).filter_map(one).count()
    }

    #[test]
    fn brookers_bucket_pays_five_and_then_one_in_ten() {
        let mut purse = purse("bucket(start=5, cap=5, earn=0.1)");
        assert_eq!(retries(&mut purse, 104, false), 5 + 10);
    }

    #[test]
    fn a_share_of_failures_stops_all_retries() {
        let mut purse = purse("failure-share(0.1)");
        for _ in 0..19 {
            purse.begin(Time::ZERO);
        }
        assert_eq!(retries(&mut purse, 5, false), 2);
    }

    #[test]
    fn finagle_pays_its_floor_and_a_fifth_for_ever() {
        let mut purse = purse("finagle(ratio=0.2, reserve=10/s, ttl=10s)");
        assert_eq!(retries(&mut purse, 1_000, false), 300);
        purse.begin(Time::from_secs(12));
        assert_eq!(purse.slots.len(), 1);
    }

    #[test]
    fn grpc_stops_at_half() {
        let mut purse = purse("grpc(tokens=10, ratio=0.1)");
        assert_eq!(retries(&mut purse, 20, false), 4);
        (0..70).for_each(|_| purse.succeeded(0.0));
        assert_eq!(retries(&mut purse, 20, false), 1);
    }

    #[test]
    fn aws_pays_double_for_timeouts_and_gives_back() {
        let word = "aws(tokens=500, cost=5, timeout_cost=10)";
        assert_eq!(retries(&mut purse(word), 200, false), 100);
        let mut purse = purse(word);
        assert_eq!(retries(&mut purse, 200, true), 50);
        purse.succeeded(10.0);
        assert_eq!(retries(&mut purse, 1, true), 1);
    }
}
