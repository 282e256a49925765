//! A snapshot of 100,000 connected peers, taken and restored.
//!
//! The floor copies the manager's memory as it is; a snapshot has no slots and no addresses in it,
//! and restoring checks it. What it costs to write and read as text is not in the ratio.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use steadfast::Manager;

use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    const PEERS: u32 = 100_000;
    let mut group = criterion.benchmark_group("snapshot");
    group.throughput(Throughput::Elements(u64::from(PEERS)));
    let (manager, _) = fleet::connected(PEERS);
    // The floor: the manager's own memory, copied.
    group.bench_function("floor: clone", |bencher| {
        bencher.iter(|| black_box(manager.clone()));
    });
    group.bench_function("take", |bencher| bencher.iter(|| black_box(manager.snapshot())));
    let snapshot = manager.snapshot();
    group.bench_function("restore, checked", |bencher| {
        bencher.iter(|| black_box(Manager::restore(snapshot.clone(), 3)));
    });
    group.finish();
}
