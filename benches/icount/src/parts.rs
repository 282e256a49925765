//! Parts by themselves: the timers, a breaker.

use std::hint::black_box;
use std::time::Duration;

use steadfast::__bench::Hold;
use steadfast::breaker::{Admission, Breaker, BreakerConfig, Outcome, RateRule};
use steadfast::draw::Draws;
use steadfast::window::Span;
use steadfast::{Ratio, Time};

/// Timers in the queue at all times: more than one heap holds.
const TIMERS: u32 = 20_000;
const SECOND: u64 = 1_000_000_000;

/// Numbers below `n`, each as likely, by a linear congruential generator.
pub(crate) fn random_below(n: u64, count: usize) -> Vec<u64> {
    let mut state = 1_u64;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 32) * n) >> 32
    };
    (0..count).map(|_| draw()).collect()
}

/// Spans of up to a second.
pub(crate) fn timer_hold(n: u64) {
    let mut timers = Hold::default();
    let spans = random_below(SECOND, 10_000);
    for (slot, &span) in (0..TIMERS).zip(&spans) {
        timers.arm(slot, span);
    }
    for (&span, _) in spans.iter().cycle().zip(0..n) {
        let (now, slot) = timers.pop().unwrap();
        timers.arm(slot, now + span);
    }
}

pub(crate) fn breaker_ok(n: u64) {
    breaker(n, u64::MAX);
}

/// Never two in a row, so that it stays closed.
pub(crate) fn breaker_failing(n: u64) {
    breaker(n, 5);
}

/// Admits and records, counting failures in a row and the rate among the last hundred.
fn breaker(n: u64, fails_every: u64) {
    let rates = RateRule {
        window: Span::Count(100),
        min_calls: 100,
        failure_rate: Some(Ratio::percent(50)),
        slow_rate: None,
        unhealthy_rate: None,
    };
    let config = BreakerConfig { rates: Some(rates), ..BreakerConfig::default() };
    let (policy, draws) = (config.validate().unwrap(), Draws::new(1, 1));
    let (mut breaker, mut now) = (Breaker::new(&policy, Time::ZERO), Time::ZERO);
    for call in 1..=n {
        now = now.plus_nanos(100);
        let Admission::Admit(permit) = breaker.admit(&policy, now) else { panic!("it is closed") };
        let fails = call.is_multiple_of(black_box(fails_every));
        let outcome = if fails { Outcome::Failure } else { Outcome::Success };
        let took = Duration::from_nanos(50);
        black_box(breaker.record(&policy, permit, outcome, took, None, now, &draws));
    }
}

/// Opened by failures, and not for long enough to be half-open.
pub(crate) fn breaker_rejected(n: u64) {
    let (policy, draws) = (BreakerConfig::default().validate().unwrap(), Draws::new(1, 1));
    let (mut breaker, mut now) = (Breaker::new(&policy, Time::ZERO), Time::ZERO);
    while let Admission::Admit(permit) = breaker.admit(&policy, now) {
        let (outcome, took) = (Outcome::Failure, Duration::ZERO);
        black_box(breaker.record(&policy, permit, outcome, took, None, now, &draws));
    }
    for _ in 0..n {
        now = now.plus_nanos(100);
        let admission = black_box(breaker.admit(&policy, now));
        assert!(!matches!(admission, Admission::Admit(_)));
    }
}
