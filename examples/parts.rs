//! Only a backoff, only a breaker, only a budget, only a bulkhead: each of the manager's parts works
//! alone, in ten lines around a closure that can fail.
//!
//! ```console
//! $ cargo run --example parts
//! ```
//!
//! None of them reads a clock or keeps its settings: the time and the policy are arguments.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a driver reads the clock"
)]

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use steadfast::Time;
use steadfast::backoff::{BackoffConfig, BackoffPolicy};
use steadfast::breaker::{Admission, Breaker, BreakerConfig, BreakerPolicy, Outcome, State};
use steadfast::budget::{Budget, BudgetConfig, BudgetPolicy, Withdrawal};
use steadfast::bulkhead::{Acquired, Bulkhead, BulkheadConfig, BulkheadPolicy};
use steadfast::draw::{Draws, Purpose};

/// Only a backoff: tries again, later each time, until it works or `attempts` have failed.
///
/// `draws`: each request has its own id, or all of them wait equally long.
fn with_backoff<T, E>(
    policy: &BackoffPolicy,
    draws: Draws,
    attempts: u32,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let (mut failures, mut wait) = (0, Duration::ZERO);
    loop {
        match work() {
            Err(_) if failures + 1 < attempts => {}
            last => return last,
        }
        wait = policy.jittered(failures, wait, draws.draw(Purpose::Backoff, failures.into()));
        thread::sleep(wait);
        failures += 1;
    }
}

/// Only a breaker, and what it needs.
struct Guard {
    policy: BreakerPolicy,
    breaker: Breaker,
    draws: Draws,
}

impl Guard {
    /// Does the work, unless it has failed too often lately: then `None`, and at once.
    fn call<T, E>(
        &mut self,
        clock: impl Fn() -> Time,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let Self { policy, breaker, draws } = self;
        let began = clock();
        breaker.expire(policy, began, draws);
        let Admission::Admit(permit) = breaker.admit(policy, began) else { return None };
        let answer = work();
        let outcome = if answer.is_ok() { Outcome::Success } else { Outcome::Failure };
        let ended = clock();
        breaker.record(policy, permit, outcome, ended.since(began), None, ended, draws);
        Some(answer)
    }
}

/// Only a budget: one retry, if what succeeded before has paid for it.
fn with_budget<T, E>(
    policy: &BudgetPolicy,
    budget: &mut Budget,
    clock: impl Fn() -> Time,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut answer = work();
    let mut refunded = false;
    if answer.is_err() && budget.withdraw(policy, clock()) == Withdrawal::Granted {
        answer = work();
        refunded = answer.is_ok() && budget.refund(policy, clock());
    }
    if answer.is_ok() && !refunded {
        budget.deposit(policy, clock());
    }
    answer
}

/// Only a bulkhead: does the work, unless as many do as may; then `None`, and at once.
fn within_bulkhead<T>(
    policy: &BulkheadPolicy,
    bulkhead: &Mutex<Bulkhead>,
    work: impl FnOnce() -> T,
) -> Option<T> {
    let lock = || bulkhead.lock().unwrap_or_else(PoisonError::into_inner);
    let acquired = lock().acquire(policy, policy.max_concurrent(), 0, Time::ZERO);
    match acquired {
        Acquired::Entered => {}
        Acquired::Waiting { .. } | Acquired::Full => return None, // its policy has no line
    }
    let done = work();
    lock().leave();
    Some(done)
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let clock = || Time::ZERO + start.elapsed();

    let (base, cap) = (Duration::from_millis(20), Duration::from_millis(200));
    let policy = BackoffConfig { base, cap, ..BackoffConfig::default() }.validate()?;
    let mut server = Server::refusing(2);
    let answer = with_backoff(&policy, Draws::new(42, 1), 5, || server.answer());
    println!("backoff   {answer:?} after {} attempts", server.asked);
    check(answer.is_ok() && server.asked == 3, "the third attempt succeeds")?;

    let open_for = BackoffConfig { base, cap, ..BreakerConfig::default().open_for };
    let policy = BreakerConfig { open_for, ..BreakerConfig::default() }.validate()?;
    let mut server = Server::refusing(5);
    let breaker = Breaker::new(&policy, clock());
    let mut guard = Guard { policy, breaker, draws: Draws::new(42, 2) };
    let mut now = clock();
    while guard.breaker.state() == State::Closed {
        now = clock();
        let _ = guard.call(|| now, || server.answer());
    }
    let refused = guard.call(|| now, || server.answer()).is_none();
    println!("breaker   open after {} failures", server.asked);
    check(refused && server.asked == 5, "the sixth request does not reach the server")?;
    let until = guard.breaker.deadline().ok_or("the breaker is not open")?;
    thread::sleep(until.since(clock()));
    let answer = guard.call(clock, || server.answer());
    println!("breaker   {:?} after a probe: {answer:?}", guard.breaker.state());
    check(answer == Some(Ok("well")), "the first request after that does")?;

    // By default a token also comes by itself in five minutes.
    let policy = BudgetConfig { reserve: None, ..BudgetConfig::default() }.validate()?;
    let mut budget = Budget::new(&policy, clock());
    let mut healthy = Server::refusing(0);
    for _ in 0..20 {
        with_budget(&policy, &mut budget, clock, || healthy.answer())?;
    }
    let mut broken = Server::refusing(u32::MAX);
    for _ in 0..100 {
        let _ = with_budget(&policy, &mut budget, clock, || broken.answer());
    }
    println!("budget    100 requests in an outage became {}, not 200", broken.asked);
    check(broken.asked == 102, "twenty successes pay for two retries")?;

    let policy = BulkheadConfig { max_concurrent: 2, ..BulkheadConfig::default() }.validate()?;
    let bulkhead = Mutex::new(Bulkhead::new());
    let one_more = || within_bulkhead(&policy, &bulkhead, || "inside");
    let third =
        within_bulkhead(&policy, &bulkhead, || within_bulkhead(&policy, &bulkhead, one_more));
    let later = one_more();
    println!("bulkhead  the third at once: {third:?}; later: {later:?}");
    check(third == Some(Some(None)) && later == Some("inside"), "two are inside at most")?;
    Ok(())
}

/// A server that refuses so many requests, and answers all others.
struct Server {
    refuses: u32,
    asked: u32,
}

impl Server {
    const fn refusing(refuses: u32) -> Self {
        Self { refuses, asked: 0 }
    }

    fn answer(&mut self) -> Result<&'static str, &'static str> {
        self.asked += 1;
        if self.asked <= self.refuses { Err("refused") } else { Ok("well") }
    }
}

fn check(held: bool, what: &str) -> Result<(), String> {
    if held { Ok(()) } else { Err(format!("it is not so that {what}")) }
}
