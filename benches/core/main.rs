//! What a step costs, each beside a floor or a rival measured in the same run.
//!
//! Times are CPU time of the thread, because machines are shared; what may be quoted are ratios
//! within one run. Sizes: 1,000 and 100,000 peers, and 1,000,000 with `STEADFAST_BENCH_LARGE=1`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::panic)]

mod breaker;
mod calls;
mod cpu_time;
mod fleet;
mod heard;
mod reconnect;
mod snapshot;
mod timers;

use cpu_time::ThreadCpuTime;
use criterion::{Criterion, criterion_group, criterion_main};

/// How many peers.
fn sizes() -> Vec<u32> {
    let large = std::env::var_os("STEADFAST_BENCH_LARGE").is_some();
    if large { vec![1_000, 100_000, 1_000_000] } else { vec![1_000, 100_000] }
}

criterion_group! {
    name = core;
    config = Criterion::default().with_measurement(ThreadCpuTime).sample_size(20);
    targets = heard::bench, timers::bench, reconnect::bench, breaker::bench, calls::bench,
        snapshot::bench
}
criterion_main!(core);
