//! The hottest event, beside the least that anybody could do: a map from id to slot and a slab.
//!
//! The control is what a program with one owner would take, a plain map that holds the record. Ours
//! is told the connection by the name that the manager gave it, and so needs no hash: what the
//! ratios do not show is the driver's own way to that name. The ids are known ahead here, so that a
//! processor fetches several records at once; where a clock is read between them it cannot, which
//! `heartbeat` shows.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use hashbrown::HashMap;
use steadfast::{Event, Time};

use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

/// Events in one iteration, in random order.
const EVENTS: usize = 100_000;
/// So many of one moment.
const BATCH: usize = 32;

/// What is kept of a connection: a cache line, of which the moment is written.
type Record = [u64; 8];

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("heard");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(EVENTS as u64));
    for n in crate::sizes() {
        let order = fleet::random_below(n, EVENTS);
        let id = |name| BenchmarkId::new(name, n);
        let floor = || {
            let map: HashMap<u64, u32> = (0..n).map(|slot| (u64::from(slot), slot)).collect();
            (map, vec![Record::default(); n as usize], 0)
        };
        crate::row(&mut group, id("floor: map + slab"), floor, |(map, slab, now)| {
            for &id in &order {
                *now += 1;
                if let Some(&slot) = map.get(&(id as u64)) {
                    slab[slot as usize][0] = *now;
                }
            }
            black_box(slab);
        });
        let control = || {
            let records = (0..n).map(|id| (u64::from(id), Record::default()));
            (records.collect::<HashMap<u64, Record>>(), 0)
        };
        crate::row(&mut group, id("control: plain map, now once in 32"), control, |(map, now)| {
            for batch in order.chunks(BATCH) {
                *now += 1;
                for &id in batch {
                    if let Some(record) = map.get_mut(&(id as u64)) {
                        record[0] = *now;
                    }
                }
            }
            black_box(map);
        });
        // Always before the first deadline: what is measured is hearing, not judging.
        let ours = || (fleet::connected(n), Time::ZERO);
        let mut actions = Vec::new();
        crate::row(&mut group, id("ours: step_into"), ours, |((manager, conns), now)| {
            for &id in &order {
                *now = now.plus_nanos(1);
                manager.step_into(Event::Heard { conn: conns[id] }, *now, &mut actions);
            }
        });
        let mut events = Vec::with_capacity(BATCH);
        crate::row(&mut group, id("ours: step_batch of 32"), ours, |((manager, conns), now)| {
            for batch in order.chunks(BATCH) {
                *now = now.plus_nanos(1);
                events.clear();
                events.extend(batch.iter().map(|&id| Event::Heard { conn: conns[id] }));
                manager.step_batch(&events, *now, &mut actions);
            }
        });
        assert!(actions.is_empty());
    }
    group.finish();
}
