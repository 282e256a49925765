//! A breaker alone: whether a call may begin, and how it ended, by three rules.
//!
//! Not like for like: the rivals can be shared between threads, and they read the clock, some only
//! when open; ours is `&mut` and is given the time. In a `Mutex`, locked twice for each call, ours
//! can be shared as well. Failsafe's rule over time is a moving average; tower-resilience's breaker
//! is a service with futures. One breaker, one thread, so all is in the cache.

use std::future::{Future as _, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use failsafe::CircuitBreaker as _;
use failsafe::failure_policy as failsafe_policy;
use steadfast::Time;
use steadfast::breaker::{Admission, Breaker, BreakerConfig, Outcome, RateRule};
use steadfast::draw::Draws;
use steadfast::window::Span;
use tower::{Layer, Service, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::cpu_time::ThreadCpuTime;

const CALLS: usize = 10_000;
const LONG: Duration = Duration::from_secs(3_600);

/// What becomes of the calls; one in five fails, never two in a row, so that nobody trips.
const FATES: [&str; 3] = ["ok", FAILURES, REJECTED];
const FAILURES: &str = "20 % failures";
const REJECTED: &str = "rejected";

type Group<'a> = BenchmarkGroup<'a, ThreadCpuTime>;

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("breaker");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(CALLS as u64));
    for fate in FATES {
        consecutive(&mut group, fate);
        last_100(&mut group, fate);
        ten_seconds(&mut group, fate);
    }
    group.finish();
}

fn consecutive(group: &mut Group<'_>, fate: &str) {
    let wait = failsafe::backoff::constant(LONG);
    let rival = failsafe_policy::consecutive_failures(5, wait);
    let rival = failsafe::Config::new().failure_policy(rival).build();
    row(group, "consecutive, rival: failsafe", fate, |fails| {
        !matches!(rival.call(|| answer(fails)), Err(failsafe::Error::Rejected))
    });
    let rival = CircuitBreakerLayer::builder().consecutive_failures(5);
    let rival = rival.wait_duration_in_open(LONG).build().unwrap();
    row(group, "consecutive, rival: tower-resilience", fate, tower_resilience(&rival));
    ours(group, "consecutive", fate, BreakerConfig::default());
}

fn last_100(group: &mut Group<'_>, fate: &str) {
    let rival = recloser::Recloser::custom().error_rate(0.5).closed_len(100).open_wait(LONG);
    let rival = rival.build();
    row(group, "last 100, rival: recloser", fate, |fails| {
        !matches!(rival.call(|| answer(fails)), Err(recloser::Error::Rejected))
    });
    let rival = CircuitBreakerLayer::builder().sliding_window_size(100).failure_rate_threshold(0.5);
    let rival = rival.wait_duration_in_open(LONG).build().unwrap();
    row(group, "last 100, rival: tower-resilience", fate, tower_resilience(&rival));
    ours(group, "last 100", fate, half_of(Span::Count(100)));
}

/// Tower-resilience's window over time adds up all its calls anew with each of them, so that no
/// figure of it means anything here; and failsafe's opens only after ten seconds of real time, so
/// that its rejections are those above.
fn ten_seconds(group: &mut Group<'_>, fate: &str) {
    let window = Duration::from_secs(10);
    if fate == REJECTED {
        let rival =
            CircuitBreakerLayer::builder().sliding_window_type(SlidingWindowType::TimeBased);
        let rival = rival.sliding_window_duration(window).minimum_number_of_calls(100);
        let rival = rival.failure_rate_threshold(0.5).wait_duration_in_open(LONG).build().unwrap();
        row(group, "10 x 1 s, rival: tower-resilience", fate, tower_resilience(&rival));
    } else {
        let wait = failsafe::backoff::constant(LONG);
        let rival = failsafe_policy::success_rate_over_time_window(0.5, 100, window, wait);
        let rival = failsafe::Config::new().failure_policy(rival).build();
        row(group, "10 x 1 s, rival: failsafe", fate, |fails| {
            !matches!(rival.call(|| answer(fails)), Err(failsafe::Error::Rejected))
        });
    }
    ours(group, "10 x 1 s", fate, half_of(Span::Time(window)));
}

/// Half of at least a hundred calls trip it.
fn half_of(window: Span) -> BreakerConfig {
    let rule = RateRule { window, min_calls: 100, ..RateRule::default() };
    BreakerConfig { consecutive_failures: None, rates: Some(rule), ..BreakerConfig::default() }
}

fn ours(group: &mut Group<'_>, rule: &str, fate: &str, config: BreakerConfig) {
    let policy = config.validate().unwrap();
    let draws = Draws::new(1, 1);
    let record = |breaker: &mut Breaker, permit, fails, now| {
        let outcome = if fails { Outcome::Failure } else { Outcome::Success };
        let took = Duration::from_nanos(50);
        black_box(&breaker.record(&policy, permit, outcome, took, None, now, &draws));
    };
    let (mut breaker, mut now) = (Breaker::new(&policy, Time::ZERO), Time::ZERO);
    row(group, &format!("{rule}, ours"), fate, |fails| {
        now = now.plus_nanos(100);
        let Admission::Admit(permit) = breaker.admit(&policy, now) else { return false };
        record(&mut breaker, permit, fails, now);
        true
    });
    let (breaker, mut now) = (Mutex::new(Breaker::new(&policy, Time::ZERO)), Time::ZERO);
    row(group, &format!("{rule}, ours in a Mutex"), fate, |fails| {
        now = now.plus_nanos(100);
        let admission = breaker.lock().unwrap().admit(&policy, now);
        let Admission::Admit(permit) = admission else { return false };
        record(&mut breaker.lock().unwrap(), permit, fails, now);
        true
    });
}

/// Its future never waits, so that it is done when it is first asked.
fn tower_resilience(layer: &CircuitBreakerLayer) -> impl FnMut(bool) -> bool {
    let mut service = layer.layer(service_fn(|fails| ready(answer(fails))));
    move |fails| {
        let mut context = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut context).is_ready());
        match pin!(service.call(fails)).poll(&mut context) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => !error.is_circuit_open(),
            Poll::Pending => panic!("it waits"),
        }
    }
}

fn answer(fails: bool) -> Result<(), ()> {
    if fails { Err(()) } else { Ok(()) }
}

/// Measures `call`, which is told whether it fails and tells whether it was let through.
fn row(group: &mut Group<'_>, name: &str, fate: &str, mut call: impl FnMut(bool) -> bool) {
    let every = if fate == FAILURES { 5 } else { usize::MAX };
    let fails: Vec<bool> = (1..=CALLS).map(|number| number % every == 0).collect();
    let is_rejected = fate == REJECTED;
    if is_rejected {
        let opened = (0..1_000).any(|_| !call(true));
        assert!(opened, "{name} does not open");
    }
    group.bench_function(BenchmarkId::new(name, fate), |bencher| {
        bencher.iter(|| {
            for &fails in &fails {
                assert_ne!(call(fails), is_rejected, "{name}");
            }
        });
    });
}
