//! A heartbeat in what a program would take instead: maps with locks, queues of delays, tasks.
//!
//! Heartbeats of random peers; nothing is ever due. The naive design is a map in tokio's `RwLock`
//! with the clock read for each event; the control is a plain map with one owner and the clock read
//! once in 32 events. Most of the distance between the naive design and ours is no merit of ours:
//! the control has it too, by its one owner and its one look at the clock. A clock read also keeps
//! the processor from fetching the next record meanwhile, so that the rows with one for each event
//! are the serial case. One thread: what the locks are for is not shown, nor what finding the silent
//! costs (`steady`, and `step_latency` for the naive design). The tasks are found by index, which is
//! a favour; so is ours, by the name that the driver keeps with its socket.

#![expect(clippy::disallowed_types, reason = "the map that most programs take")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use dashmap::DashMap;
use steadfast::{Event, Time};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, RwLock};
use tokio_util::time::DelayQueue;

use crate::clock::Clock;
use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

/// Heartbeats in one iteration, in random order.
const BEATS: usize = 100_000;
/// So many are read in one round of I/O.
const BATCH: usize = 32;
/// Nobody is silent for so long.
const LIMIT: Duration = Duration::from_secs(3_600);

/// What such a program keeps of a connection.
#[derive(Clone, Default)]
struct Conn {
    last_heard: Time,
    _rest: [u64; 7],
}

type Group<'a> = BenchmarkGroup<'a, ThreadCpuTime>;
/// Measures one of the rivals, with so many peers, by heartbeats in this order.
type Row = fn(&mut Group<'_>, BenchmarkId, u32, &[usize]);

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("heartbeat");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(BEATS as u64));
    for n in crate::sizes() {
        let order = fleet::random_below(n, BEATS);
        let rows: [(&str, Row); 6] = [
            ("rival: the naive design", naive),
            ("rival: Mutex<HashMap>", mutex),
            ("control: plain map, clock once in 32", plain_map),
            ("rival: DashMap", dash_map),
            ("rival: HashMap + DelayQueue", delay_queue),
            ("rival: a task, a sleep, a Notify each", tasks),
        ];
        for (name, row) in rows {
            row(&mut group, BenchmarkId::new(name, n), n, &order);
        }
        ours(&mut group, n, &order);
    }
    group.finish();
}

fn ours(group: &mut Group<'_>, n: u32, order: &[usize]) {
    let connect = || fleet::connect(fleet::config(LIMIT), n, fleet::BREAKERS);
    let (clock, mut actions) = (Clock::start(), Vec::new());
    let id = BenchmarkId::new("ours: step_into, clock for each", n);
    crate::row(group, id, connect, |(manager, conns)| {
        beat::<1>(order, clock, |id, now| {
            manager.step_into(Event::Heartbeat { conn: conns[id] }, now, &mut actions);
        });
    });
    let id = BenchmarkId::new("ours: step_into, clock once in 32", n);
    crate::row(group, id, connect, |(manager, conns)| {
        beat::<BATCH>(order, clock, |id, now| {
            manager.step_into(Event::Heartbeat { conn: conns[id] }, now, &mut actions);
        });
    });
    let mut events = Vec::with_capacity(BATCH);
    let id = BenchmarkId::new("ours: step_batch of 32", n);
    crate::row(group, id, connect, |(manager, conns)| {
        for batch in order.chunks(BATCH) {
            events.clear();
            events.extend(batch.iter().map(|&id| Event::Heartbeat { conn: conns[id] }));
            manager.step_batch(&events, clock.now(), &mut actions);
        }
    });
    assert!(actions.is_empty());
}

/// Hears each, with one look at the clock for so many of them.
fn beat<const BATCH: usize>(order: &[usize], clock: Clock, mut hear: impl FnMut(usize, Time)) {
    for batch in order.chunks(BATCH) {
        let now = clock.now();
        for &id in batch {
            hear(id, now);
        }
    }
}

fn ids(n: u32) -> impl Iterator<Item = u64> {
    (0..n).map(u64::from)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Everybody, in whatever map.
fn conns<M: FromIterator<(u64, Conn)>>(n: u32) -> M {
    ids(n).map(|id| (id, Conn::default())).collect()
}

fn naive(group: &mut Group<'_>, id: BenchmarkId, n: u32, order: &[usize]) {
    let setup = || RwLock::new(conns::<HashMap<_, _>>(n));
    let (runtime, clock) = (runtime(), Clock::start());
    crate::row(group, id, setup, |conns| {
        runtime.block_on(async {
            for &id in order {
                if let Some(conn) = conns.write().await.get_mut(&(id as u64)) {
                    conn.last_heard = clock.now();
                }
            }
        });
    });
}

fn mutex(group: &mut Group<'_>, id: BenchmarkId, n: u32, order: &[usize]) {
    let setup = || Mutex::new(conns::<HashMap<_, _>>(n));
    crate::row(group, id, setup, |conns| {
        let conns = &*conns;
        beat::<1>(order, Clock::start(), |id, now| {
            if let Some(conn) = conns.lock().unwrap().get_mut(&(id as u64)) {
                conn.last_heard = now;
            }
        });
    });
}

fn plain_map(group: &mut Group<'_>, id: BenchmarkId, n: u32, order: &[usize]) {
    let setup = || conns::<hashbrown::HashMap<_, _>>(n);
    crate::row(group, id, setup, |conns| {
        beat::<BATCH>(order, Clock::start(), |id, now| {
            if let Some(conn) = conns.get_mut(&(id as u64)) {
                conn.last_heard = now;
            }
        });
        black_box(conns);
    });
}

fn dash_map(group: &mut Group<'_>, id: BenchmarkId, n: u32, order: &[usize]) {
    let setup = || conns::<DashMap<_, _>>(n);
    crate::row(group, id, setup, |conns| {
        beat::<1>(order, Clock::start(), |id, now| {
            if let Some(mut conn) = conns.get_mut(&(id as u64)) {
                conn.last_heard = now;
            }
        });
    });
}

fn delay_queue(group: &mut Group<'_>, id: BenchmarkId, n: u32, order: &[usize]) {
    let runtime = runtime();
    let _guard = runtime.enter();
    let setup = || {
        let mut delays = DelayQueue::with_capacity(n as usize);
        let keys: HashMap<u64, _> = ids(n).map(|id| (id, delays.insert(id, LIMIT))).collect();
        (delays, keys)
    };
    crate::row(group, id, setup, |(delays, keys)| {
        for &id in order {
            if let Some(key) = keys.get(&(id as u64)) {
                // Reads the clock itself.
                delays.reset(key, LIMIT);
            }
        }
    });
}

fn tasks(group: &mut Group<'_>, id: BenchmarkId, n: u32, order: &[usize]) {
    let runtime = runtime();
    // Each time as many tasks run as one turn of the runtime allows, at least a batch.
    let turns = |turns: u32| async move {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    let setup = || {
        let notifies: Vec<Arc<Notify>> = (0..n).map(|_| Arc::new(Notify::new())).collect();
        notifies.iter().for_each(|heard| drop(runtime.spawn(watch(Arc::clone(heard)))));
        runtime.block_on(turns(n / BATCH as u32 + 1));
        notifies
    };
    crate::row(group, id, setup, |notifies| {
        runtime.block_on(async {
            for batch in order.chunks(BATCH) {
                batch.iter().for_each(|&id| notifies[id].notify_one());
                turns(1).await;
            }
        });
    });
}

/// Ends when nothing is heard for too long.
async fn watch(heard: Arc<Notify>) {
    let sleep = tokio::time::sleep(LIMIT);
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            () = &mut sleep => break,
            () = heard.notified() => sleep.as_mut().reset(tokio::time::Instant::now() + LIMIT),
        }
    }
}
