//! The hottest event, beside the least that anybody could do: a map from id to slot and a slab.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use hashbrown::HashMap;
use steadfast::{Event, Time};

use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

/// Events in one iteration, in random order.
const EVENTS: usize = 100_000;

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("heard");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for n in crate::sizes() {
        let order = fleet::random_below(n, EVENTS);
        let map: HashMap<u64, u32> = (0..n).map(|slot| (u64::from(slot), slot)).collect();
        // A record of one cache line, of which the moment is written.
        let mut slab = vec![[0_u64; 8]; n as usize];
        group.bench_function(BenchmarkId::new("floor: map + slab", n), |bencher| {
            let mut now = 0;
            bencher.iter(|| {
                for &id in &order {
                    now += 1;
                    if let Some(&slot) = map.get(&(id as u64)) {
                        slab[slot as usize][0] = now;
                    }
                }
                black_box(&mut slab);
            });
        });
        let (mut manager, conns) = fleet::connected(n);
        let mut actions = Vec::new();
        // Always before the first deadline: what is measured is hearing, not judging.
        let mut now = Time::ZERO;
        group.bench_function(BenchmarkId::new("Heard through step_into", n), |bencher| {
            bencher.iter(|| {
                for &id in &order {
                    now = now.plus_nanos(1);
                    manager.step_into(Event::Heard { conn: conns[id] }, now, &mut actions);
                }
                assert!(actions.is_empty());
            });
        });
    }
    group.finish();
}
