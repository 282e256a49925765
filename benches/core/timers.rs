//! The timer queue under the hold model (pop one, arm one), beside the standard library's heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use steadfast::__bench::Hold;

use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

const HOLDS: usize = 100_000;

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("timers");
    group.throughput(Throughput::Elements(HOLDS as u64));
    for n in crate::sizes() {
        let spans = fleet::random_below(1_000_000_000, HOLDS);
        group.bench_function(BenchmarkId::new("rival: BinaryHeap", n), |bencher| {
            let mut heap = BinaryHeap::new();
            let mut sequence = 0_u64;
            for slot in 0..n {
                let deadline = spans[slot as usize % HOLDS] as u64;
                heap.push(Reverse((deadline, sequence, slot)));
                sequence += 1;
            }
            bencher.iter(|| {
                for &span in &spans {
                    let Some(Reverse((now, _, slot))) = heap.pop() else { break };
                    heap.push(Reverse((now + span as u64, sequence, slot)));
                    sequence += 1;
                }
                black_box(&heap);
            });
        });
        group.bench_function(BenchmarkId::new("Timers", n), |bencher| {
            let mut timers = Hold::default();
            for slot in 0..n {
                timers.arm(slot, spans[slot as usize % HOLDS] as u64);
            }
            bencher.iter(|| {
                for &span in &spans {
                    let Some((now, slot)) = timers.pop() else { break };
                    timers.arm(slot, now + span as u64);
                }
                black_box(&timers);
            });
        });
    }
    group.finish();
}
