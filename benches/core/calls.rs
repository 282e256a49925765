//! A call through all gates, and the budget and the bulkhead alone, each beside what a Rust program
//! would take instead.
//!
//! Not like for like, and told so: the rivals hold their futures and read the clock; ours keeps a
//! record of each call, with its timer, and is given the time.

use std::cell::Cell;
use std::future::ready;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use steadfast::backoff::{BackoffConfig, Jitter};
use steadfast::bucket::{Acquire, Bucket, BucketConfig, Rate};
use steadfast::budget::{Budget, BudgetConfig, Withdrawal};
use steadfast::bulkhead::{Acquired, Bulkhead, BulkheadConfig};
use steadfast::config::BreakerProfile;
use steadfast::{
    Action, BreakerId, CallFailure, CallId, CallProfileId, Config, Event, Manager, Target, Time,
};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Service as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_retry::RetryLayer;

use crate::cpu_time::ThreadCpuTime;

const CALLS: u64 = 10_000;
const BREAKER: BreakerId = BreakerId(1);

/// What becomes of each call.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It succeeds at once.
    Ok,
    /// Its first attempt fails, the second succeeds.
    Retried,
    /// The breaker is open.
    Rejected,
}

const FATES: [(&str, Fate); 3] =
    [("ok", Fate::Ok), ("retried", Fate::Retried), ("rejected", Fate::Rejected)];

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("calls");
    group.throughput(Throughput::Elements(CALLS));
    for (name, fate) in FATES {
        group.bench_function(
            BenchmarkId::new("rival: tower-resilience retry + breaker + bulkhead", name),
            |bencher| rival_stack(bencher, fate),
        );
        // The second size shows that the cost does not grow with what else is in flight.
        for in_flight in [0, 100_000] {
            let id = BenchmarkId::new(format!("ours, {in_flight} others in flight"), name);
            group.bench_function(id, |bencher| ours(bencher, fate, in_flight));
        }
    }
    group.finish();
    budget(criterion);
    bulkhead(criterion);
    rate(criterion);
}

type Bencher<'a, 'b> = &'a mut criterion::Bencher<'b, ThreadCpuTime>;

fn ours(bencher: Bencher<'_, '_>, fate: Fate, in_flight: u64) {
    let mut config = Config::new(1);
    let mut guard = BreakerProfile::for_calls();
    guard.breaker.consecutive_failures = Some(1_000);
    guard.calls.bulkhead.max_concurrent = 1_000_000;
    guard.calls.rate = Some(BucketConfig { rate: Rate::per_second(1_000_000_000), burst: 1_000 });
    if let Some(budget) = &mut guard.calls.budget {
        budget.initial = budget.capacity;
    }
    config.breaker_profiles.push(guard);
    let backoff = BackoffConfig {
        jitter: Jitter::None,
        base: Duration::ZERO,
        cap: Duration::ZERO,
        ..BackoffConfig::default()
    };
    config.call_profiles[0].backoff = backoff;
    let profile = config.breaker_profile("calls").unwrap();
    let mut manager = Manager::new(config, 2).unwrap();
    let (mut actions, mut now) = (Vec::new(), Time::ZERO);
    manager.step_into(Event::AddBreaker { breaker: BREAKER, profile }, now, &mut actions);
    let mut name = 0;
    let call = |name: u64| Event::Call {
        call: CallId(name),
        target: Target::Breaker(BREAKER),
        profile: CallProfileId(0),
        deadline: Some(Time::MAX),
    };
    for _ in 0..in_flight {
        name += 1;
        manager.step_into(call(name), now, &mut actions);
    }
    if fate == Fate::Rejected {
        manager.step_into(Event::ForceOpen { breaker: BREAKER }, now, &mut actions);
    }
    let attempt = |actions: &mut Vec<Action>| match actions.pop() {
        Some(Action::StartAttempt { attempt, .. }) => attempt,
        other => panic!("{other:?}"),
    };
    bencher.iter(|| {
        for _ in 0..CALLS {
            now = now.plus_nanos(100);
            name += 1;
            actions.clear();
            manager.step_into(call(name), now, &mut actions);
            if fate != Fate::Rejected {
                let mut running = attempt(&mut actions);
                if fate == Fate::Retried {
                    let kind = CallFailure::Error;
                    let failed = Event::Failed { attempt: running, kind, retry_after: None };
                    manager.step_into(failed, now, &mut actions);
                    running = attempt(&mut actions);
                }
                manager.step_into(Event::Succeeded { attempt: running }, now, &mut actions);
            }
            black_box(&actions);
        }
    });
}

fn rival_stack(bencher: Bencher<'_, '_>, fate: Fate) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let attempts = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = Arc::clone(&attempts);
    let server = service_fn(move |call: u64| {
        let attempt = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let fails = match fate {
            Fate::Ok => false,
            Fate::Retried => attempt.is_multiple_of(2),
            Fate::Rejected => true,
        };
        ready(if fails { Err("failed".to_owned()) } else { Ok(call) })
    });
    let breaker = CircuitBreakerLayer::builder()
        .consecutive_failures(if fate == Fate::Rejected { 1 } else { 1_000 })
        .wait_duration_in_open(Duration::from_secs(3_600))
        .build()
        .unwrap();
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(1_000).build().unwrap();
    let guarded = ServiceBuilder::new().layer(breaker).layer(bulkhead).service(server);
    let guarded = guarded.map_err(|error| error.to_string());
    let retries = if fate == Fate::Rejected { 1 } else { 3 };
    let retry = RetryLayer::<u64, u64, String>::builder()
        .max_attempts(retries)
        .fixed_backoff(Duration::ZERO)
        .build();
    let mut service = ServiceBuilder::new().layer(retry).service(guarded);
    let mut batch = |calls| {
        runtime.block_on(async {
            for call in 0..calls {
                let answer = service.ready().await.unwrap().call(call).await;
                let _ = black_box(answer);
            }
        });
    };
    batch(10);
    bencher.iter(|| batch(CALLS));
}

fn budget(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("budget");
    group.throughput(Throughput::Elements(CALLS));
    // Nine successes earn what the tenth call's retry costs.
    let rival = TpsBudget::new(Duration::from_secs(10), 0, 0.2);
    group.bench_function("rival: tower TpsBudget", |bencher| {
        bencher.iter(|| {
            for call in 0..CALLS {
                rival.deposit();
                if call % 10 == 0 {
                    black_box(rival.withdraw());
                }
            }
        });
    });
    let policy = BudgetConfig { ratio: steadfast::Ratio::percent(20), ..BudgetConfig::default() };
    let policy = policy.validate().unwrap();
    let (mut budget, mut now) = (Budget::new(&policy, Time::ZERO), Time::ZERO);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            for call in 0..CALLS {
                now = now.plus_nanos(100);
                budget.deposit(&policy, now);
                if call % 10 == 0 {
                    let paid = budget.withdraw(&policy, now);
                    black_box(paid == Withdrawal::Granted);
                }
            }
        });
    });
    group.finish();
}

fn bulkhead(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("bulkhead");
    group.throughput(Throughput::Elements(CALLS));
    let rival = tokio::sync::Semaphore::new(100);
    group.bench_function("rival: tokio Semaphore, as in tower and tower-resilience", |bencher| {
        bencher.iter(|| {
            for _ in 0..CALLS {
                let permit = rival.try_acquire().unwrap();
                drop(black_box(permit));
            }
        });
    });
    let policy = BulkheadConfig { max_concurrent: 100, ..BulkheadConfig::default() };
    let policy = policy.validate().unwrap();
    let mut bulkhead = Bulkhead::new();
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            for call in 0..CALLS {
                let acquired = bulkhead.acquire(&policy, 100, call, Time::ZERO);
                assert_eq!(black_box(acquired), Acquired::Entered);
                bulkhead.leave();
            }
        });
    });
    group.finish();
}

fn rate(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("rate");
    group.throughput(Throughput::Elements(CALLS));
    let most = NonZeroU32::MAX;
    let clock = governor::clock::FakeRelativeClock::default();
    let rival = governor::RateLimiter::direct_with_clock(governor::Quota::per_second(most), clock);
    group.bench_function("rival: governor, with a clock that stands still", |bencher| {
        bencher.iter(|| {
            for _ in 0..CALLS {
                black_box(rival.check().is_ok());
            }
        });
    });
    let policy = BucketConfig { rate: Rate::per_second(u32::MAX), burst: u32::MAX };
    let policy = policy.validate().unwrap();
    let bucket = Cell::new(Bucket::full(&policy, Time::ZERO));
    group.bench_function("ours", |bencher| {
        let mut now = Time::ZERO;
        bencher.iter(|| {
            let mut own = bucket.get();
            for _ in 0..CALLS {
                now = now.plus_nanos(100);
                black_box(own.acquire(&policy, now) == Acquire::Granted);
            }
            bucket.set(own);
        });
    });
    group.finish();
}
