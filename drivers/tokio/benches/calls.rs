//! What a call costs on one core, beside what a Rust program would take instead and beside the bare
//! future, in one run.
//!
//! Times are CPU time of the thread, because machines are shared; what may be quoted are ratios
//! within one run. Each has its own defaults where these let the fate happen. Not like for
//! like, and told so: ours also keeps a deadline, a bulkhead, a retry budget, a time limit for each
//! attempt and the statistics, of which the last rival has two.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../../benches/core/cpu_time.rs"]
mod cpu_time;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cpu_time::ThreadCpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use failsafe::futures::CircuitBreaker as _;
use steadfast_tokio::steadfast::Ratio;
use steadfast_tokio::steadfast::backoff::{BackoffConfig, Jitter};
use steadfast_tokio::{BreakerId, Builder, CallsOnly, Handle, config};
use tokio::runtime::Runtime;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_retry::RetryLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

const BREAKER: BreakerId = BreakerId(1);

/// What becomes of each call.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It succeeds at once.
    Ok,
    /// It succeeds after the runtime was asked once: the future waits.
    Waits,
    /// Its first attempt fails, the second succeeds.
    Retried,
    /// The breaker is open.
    Rejected,
}

const FATES: [(&str, Fate); 4] = [
    ("ok", Fate::Ok),
    ("ok after a wait", Fate::Waits),
    ("retried", Fate::Retried),
    ("rejected", Fate::Rejected),
];

/// Whoever is called: one attempt after the other.
#[derive(Clone)]
struct Server {
    fate: Fate,
    attempts: Arc<AtomicU64>,
}

impl Fate {
    /// How many calls are measured at once: a rival waits for the timer's next millisecond before
    /// each retry.
    const fn calls(self) -> u64 {
        match self {
            Self::Retried => 500,
            Self::Ok | Self::Waits | Self::Rejected => 10_000,
        }
    }
}

impl Server {
    fn new(fate: Fate) -> Self {
        Self { fate, attempts: Arc::default() }
    }

    async fn serve(self, call: u64) -> Result<u64, String> {
        let attempt = self.attempts.fetch_add(1, Relaxed);
        let fails = match self.fate {
            Fate::Ok => false,
            Fate::Waits => {
                tokio::task::yield_now().await;
                false
            }
            Fate::Retried => attempt.is_multiple_of(2),
            Fate::Rejected => true,
        };
        if fails { Err(String::new()) } else { Ok(call) }
    }
}

fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("driver/calls");
    for (name, fate) in FATES {
        group.throughput(Throughput::Elements(fate.calls()));
        group.bench_function(BenchmarkId::new("floor: the bare future", name), |bencher| {
            bare(bencher, fate);
        });
        if fate != Fate::Retried {
            group.bench_function(BenchmarkId::new("rival: failsafe, no retry", name), |bencher| {
                failsafe(bencher, fate);
            });
        }
        let id = BenchmarkId::new("rival: tower-resilience breaker + retry", name);
        group.bench_function(id, |bencher| breaker_and_retry(bencher, fate));
        let id = BenchmarkId::new("rival: the same + bulkhead + time limit", name);
        group.bench_function(id, |bencher| with_bulkhead_and_time_limit(bencher, fate));
        group.bench_function(BenchmarkId::new("ours", name), |bencher| ours(bencher, fate));
    }
    group.finish();
}

type Bencher<'a, 'b> = &'a mut criterion::Bencher<'b, ThreadCpuTime>;

fn one_core() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn bare(bencher: Bencher<'_, '_>, fate: Fate) {
    let (runtime, server) = (one_core(), Server::new(fate));
    bencher.iter(|| {
        runtime.block_on(async {
            for call in 0..fate.calls() {
                let _ = black_box(server.clone().serve(call).await);
            }
        });
    });
}

fn failsafe(bencher: Bencher<'_, '_>, fate: Fate) {
    let (runtime, server) = (one_core(), Server::new(fate));
    let pause = failsafe::backoff::constant(Duration::from_secs(3_600));
    let failures = if fate == Fate::Rejected { 1 } else { 1_000 };
    let policy = failsafe::failure_policy::consecutive_failures(failures, pause);
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    bencher.iter(|| {
        runtime.block_on(async {
            for call in 0..fate.calls() {
                let _ = black_box(breaker.call(server.clone().serve(call)).await);
            }
        });
    });
}

fn breaker(fate: Fate) -> CircuitBreakerLayer {
    let breaker = CircuitBreakerLayer::builder().wait_duration_in_open(Duration::from_secs(3_600));
    let breaker = match fate {
        Fate::Ok | Fate::Waits => breaker,
        Fate::Retried => breaker.consecutive_failures(1_000),
        Fate::Rejected => breaker.consecutive_failures(1),
    };
    breaker.build().unwrap()
}

fn breaker_and_retry(bencher: Bencher<'_, '_>, fate: Fate) {
    let server = Server::new(fate);
    let guarded = ServiceBuilder::new()
        .layer(breaker(fate))
        .service(service_fn(move |call: u64| server.clone().serve(call)));
    retried(bencher, guarded.map_err(|error| error.to_string()), fate);
}

/// What ours does, but for the budget and the statistics.
fn with_bulkhead_and_time_limit(bencher: Bencher<'_, '_>, fate: Fate) {
    let server = Server::new(fate);
    let guarded = ServiceBuilder::new()
        .layer(breaker(fate))
        .layer(BulkheadLayer::builder().max_concurrent_calls(100).build().unwrap())
        .layer(TimeLimiterLayer::standard().build())
        .service(service_fn(move |call: u64| server.clone().serve(call)));
    retried(bencher, guarded.map_err(|error| error.to_string()), fate);
}

fn retried<S>(bencher: Bencher<'_, '_>, guarded: S, fate: Fate)
where
    S: Service<u64, Response = u64, Error = String, Future: Send> + Clone + Send + 'static,
{
    let runtime = one_core();
    let retry = RetryLayer::<u64, u64, String>::builder()
        .max_attempts(if fate == Fate::Rejected { 1 } else { 3 })
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
    bencher.iter(|| batch(fate.calls()));
}

fn ours(bencher: Bencher<'_, '_>, fate: Fate) {
    let (runtime, server) = (one_core(), Server::new(fate));
    let driver = runtime.block_on(async { start(fate) });
    if fate == Fate::Rejected {
        driver.force_open(BREAKER).unwrap();
    }
    let profile = driver.call_profile("default").unwrap();
    bencher.iter(|| {
        runtime.block_on(async {
            for call in 0..fate.calls() {
                let attempt = |_| {
                    let answer = server.clone().serve(call);
                    async { Ok(answer.await?) }
                };
                let answer = driver.with_retry(BREAKER, profile, attempt).await;
                assert_eq!(answer.is_err(), fate == Fate::Rejected);
                let _ = black_box(answer);
            }
        });
    });
}

fn start(fate: Fate) -> Handle<CallsOnly> {
    let mut config = config(1);
    let (calls, retries) = (&mut config.breaker_profiles[1], &mut config.call_profiles[0]);
    if fate == Fate::Retried {
        // A server that fails every second attempt would open it otherwise.
        calls.breaker.consecutive_failures = Some(1_000);
        calls.breaker.rates = None;
    }
    if let Some(budget) = &mut calls.calls.budget {
        // Every second attempt is a retry, as with the rivals.
        budget.ratio = Ratio::percent(100);
        budget.initial = budget.capacity;
    }
    retries.backoff = BackoffConfig {
        jitter: Jitter::None,
        base: Duration::ZERO,
        cap: Duration::ZERO,
        ..BackoffConfig::default()
    };
    let driver = Builder::new(CallsOnly).config(config).start().unwrap();
    driver.add_breaker(BREAKER, "calls").unwrap();
    driver
}

criterion_group! {
    name = calls;
    config = Criterion::default().with_measurement(ThreadCpuTime).sample_size(20);
    targets = bench
}
criterion_main!(calls);
