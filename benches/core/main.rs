//! What a step costs, each beside a floor or a rival measured in the same run.
//!
//! Times are CPU time of the thread, because machines are shared; what may be quoted are ratios
//! within one run. Sizes: 1,000 and 100,000 peers, 1,000,000 with `STEADFAST_BENCH_LARGE=1`, and
//! 10,000,000 with `STEADFAST_BENCH_HUGE=1`, which for `heard` and `reconnect` takes 8 GB.
//! Where a thousand peers are a matter of tens of nanoseconds, placement in memory moves a figure by
//! half between two launches: of those, take the median of several.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::panic)]

mod breaker;
mod by_hand;
mod calls;
mod clock;
mod cpu_time;
mod fleet;
mod heard;
mod heartbeat;
mod reconnect;
mod snapshot;
mod steady;
mod timers;

use std::time::Duration;

use cpu_time::ThreadCpuTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};

/// How many peers.
fn sizes() -> Vec<u32> {
    // As a test each runs once, and small.
    if !std::env::args().any(|arg| arg == "--bench") {
        return vec![1_000];
    }
    let asked = |name| std::env::var_os(name).is_some();
    let large = asked("STEADFAST_BENCH_LARGE").then_some(1_000_000);
    let huge = asked("STEADFAST_BENCH_HUGE").then_some(10_000_000);
    [1_000, 100_000].into_iter().chain(large).chain(huge).collect()
}

/// Measures `once` on what `setup` makes: once for all samples, and only if the row runs.
fn row<S>(
    group: &mut BenchmarkGroup<'_, ThreadCpuTime>,
    id: BenchmarkId,
    setup: impl Fn() -> S,
    mut once: impl FnMut(&mut S),
) {
    let mut state = None;
    group.bench_function(id, |bencher| {
        let state = state.get_or_insert_with(&setup);
        bencher.iter(|| once(state));
    });
}

criterion_group! {
    name = core;
    config = Criterion::default()
        .with_measurement(ThreadCpuTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = heard::bench, heartbeat::bench, steady::bench, timers::bench, reconnect::bench,
        reconnect::flap, breaker::bench, calls::bench, snapshot::bench
}
criterion_main!(core);
