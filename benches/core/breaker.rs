//! A breaker alone (admit and record), beside the two that Rust programs use most.
//!
//! Not like for like, and told so: the rivals can be shared between threads and read the clock
//! when open; ours is `&mut` and is given the time.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use failsafe::CircuitBreaker as _;
use steadfast::Time;
use steadfast::breaker::{Admission, Breaker, BreakerConfig, Outcome, RateRule};
use steadfast::draw::Draws;
use steadfast::window::Span;

use crate::cpu_time::ThreadCpuTime;

const CALLS: usize = 10_000;

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("breaker");
    group.throughput(Throughput::Elements(CALLS as u64));
    // One in five fails, never two in a row, so that nobody trips.
    for (name, every) in [("ok", usize::MAX), ("20 % failures", 5)] {
        let fails: Vec<bool> = (1..=CALLS).map(|call| call % every == 0).collect();
        let answer = |&fail: &bool| if fail { Err(()) } else { Ok(()) };

        let backoff = failsafe::backoff::constant(Duration::from_secs(10));
        let policy = failsafe::failure_policy::consecutive_failures(5, backoff);
        let rival = failsafe::Config::new().failure_policy(policy).build();
        group.bench_function(BenchmarkId::new("rival: failsafe, consecutive", name), |bencher| {
            bencher.iter(|| {
                for fail in &fails {
                    let _ = black_box(rival.call(|| answer(fail)));
                }
            });
        });
        let rival = recloser::Recloser::custom().error_rate(0.5).closed_len(100).build();
        group.bench_function(BenchmarkId::new("rival: recloser, last 100", name), |bencher| {
            bencher.iter(|| {
                for fail in &fails {
                    let _ = black_box(rival.call(|| answer(fail)));
                }
            });
        });
        let half = Some(steadfast::Ratio::percent(50));
        let last_100 = RateRule {
            window: Span::Count(100),
            min_calls: 100,
            failure_rate: half,
            slow_rate: None,
            unhealthy_rate: None,
        };
        let consecutive = BreakerConfig::default();
        let rates = BreakerConfig {
            consecutive_failures: None,
            rates: Some(last_100),
            ..BreakerConfig::default()
        };
        for (rule, config) in [("ours, consecutive", consecutive), ("ours, last 100", rates)] {
            let policy = config.validate().expect("a valid configuration");
            let draws = Draws::new(1, 1);
            let mut breaker = Breaker::new(&policy, Time::ZERO);
            let mut now = Time::ZERO;
            group.bench_function(BenchmarkId::new(rule, name), |bencher| {
                bencher.iter(|| {
                    for fail in &fails {
                        now = now.plus_nanos(100);
                        let Admission::Admit(permit) = breaker.admit(&policy, now) else {
                            panic!("it never trips");
                        };
                        let outcome = if *fail { Outcome::Failure } else { Outcome::Success };
                        let took = Duration::from_nanos(50);
                        let verdict =
                            breaker.record(&policy, permit, outcome, took, None, now, &draws);
                        black_box(&verdict);
                    }
                });
            });
        }
    }
    group.finish();
}
