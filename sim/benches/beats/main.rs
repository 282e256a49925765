//! The simulator with real managers, beside what any simulator must pay at least: a bare queue that
//! delivers the same beats.
//!
//! W1 to W3: peers that speak at a steady pace to one place, each at a moment of its own, over 10 ms
//! and up to 10 more; each beat is two events, the timer that sends it and the delivery. The floors
//! keep one number for each peer and a digest of the order. Ours is `steadfast run` on the files
//! beside this one: real managers with detectors, run digests on, invariants and ledger off. Its
//! warm-up (everybody connects, and some ten seconds of beats) is in its time and not in its events.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

#[path = "../../../benches/core/cpu_time.rs"]
mod cpu_time;
mod floor;

use std::hint::black_box;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use steadfast_sim::{Options, Simulation};

use cpu_time::ThreadCpuTime;
use floor::{Calendar, Heap, Load};

const SECOND: u64 = 1_000_000_000;

const LOADS: [(&str, &str, Load); 3] = [
    ("W1", include_str!("w1.toml"), Load { peers: 1_000, period: SECOND, seconds: 3_600 }),
    ("W2", include_str!("w2.toml"), Load { peers: 100_000, period: SECOND, seconds: 60 }),
    ("W3", include_str!("w3.toml"), Load { peers: 1_000_000, period: 10 * SECOND, seconds: 60 }),
];

fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let large = std::env::var_os("STEADFAST_BENCH_LARGE").is_some();
    // As a test each runs once, and short.
    let is_test = !std::env::args().any(|arg| arg == "--bench");
    for (name, text, load) in LOADS {
        if load.peers > 100_000 && !large {
            continue;
        }
        let seconds = if is_test { 2 } else { load.seconds };
        let load = Load { seconds, ..load };
        assert!(!is_test || floor::agree(&load), "the floors deliver different beats");
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(load.events()));
        let calendar = BenchmarkId::from_parameter("floor: calendar queue");
        group.bench_function(calendar, |bencher| {
            bencher.iter(|| load.run(Calendar::for_load(&load)));
        });
        let heap = BenchmarkId::from_parameter("floor: BinaryHeap");
        group.bench_function(heap, |bencher| bencher.iter(|| load.run(Heap::default())));
        let options = Options { invariants: Some(false), ledger: false, ..Options::default() };
        let simulation = Simulation::from_toml(text).unwrap().options(options);
        let simulation = simulation.set(&format!("duration={seconds}s")).unwrap();
        group.bench_function(BenchmarkId::from_parameter("ours: real managers"), |bencher| {
            bencher.iter(|| black_box(simulation.run(1).unwrap().digest()));
        });
        group.finish();
    }
}

criterion_group! {
    name = sim;
    config = Criterion::default().with_measurement(ThreadCpuTime).sample_size(10);
    targets = bench
}
criterion_main!(sim);
