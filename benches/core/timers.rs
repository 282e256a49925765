//! The timer queue alone, beside the standard library's heap and tree.
//!
//! Each gives back timers in the exact order of (deadline, arming). Ours also knows where each timer
//! is, so that it can be moved; the heap cannot, and leaves what no longer holds behind, which no
//! workload here makes it do. Tokio's `DelayQueue` is not among them: it gives out a timer only when
//! tokio's own clock says so, by the millisecond and in no exact order; what a reset of it costs is
//! in `heartbeat`.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hint::black_box;

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use steadfast::__bench::Hold;

use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

const HOLDS: usize = 100_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

trait Queue: Default {
    fn arm(&mut self, slot: u32, deadline: u64);
    fn pop_due(&mut self, now: u64) -> Option<(u64, u32)>;
    /// The first, at its moment.
    fn pop(&mut self) -> Option<(u64, u32)>;
}

impl Queue for Hold {
    fn arm(&mut self, slot: u32, deadline: u64) {
        Self::arm(self, slot, deadline);
    }

    fn pop_due(&mut self, now: u64) -> Option<(u64, u32)> {
        Self::pop_due(self, now)
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        Self::pop(self)
    }
}

/// When, in what order, which.
type Entry = (u64, u64, u32);

#[derive(Default)]
struct Heap(BinaryHeap<Reverse<Entry>>, u64);

impl Queue for Heap {
    fn arm(&mut self, slot: u32, deadline: u64) {
        self.0.push(Reverse((deadline, self.1, slot)));
        self.1 += 1;
    }

    fn pop_due(&mut self, now: u64) -> Option<(u64, u32)> {
        self.0.peek().filter(|first| first.0.0 <= now)?;
        self.pop()
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        self.0.pop().map(|Reverse((deadline, _, slot))| (deadline, slot))
    }
}

#[derive(Default)]
struct Tree(BTreeSet<Entry>, u64);

impl Queue for Tree {
    fn arm(&mut self, slot: u32, deadline: u64) {
        self.0.insert((deadline, self.1, slot));
        self.1 += 1;
    }

    fn pop_due(&mut self, now: u64) -> Option<(u64, u32)> {
        self.0.first().filter(|first| first.0 <= now)?;
        self.pop()
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        self.0.pop_first().map(|(deadline, _, slot)| (deadline, slot))
    }
}

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("timers");
    group.sampling_mode(SamplingMode::Flat);
    rows::<Heap>(&mut group, "rival: BinaryHeap");
    rows::<Tree>(&mut group, "rival: BTreeSet");
    rows::<Hold>(&mut group, "ours");
    group.finish();
}

fn rows<Q: Queue>(group: &mut BenchmarkGroup<'_, ThreadCpuTime>, who: &str) {
    for n in crate::sizes() {
        let id = |what| BenchmarkId::new(format!("{what}, {who}"), n);
        group.throughput(Throughput::Elements(HOLDS as u64));
        for (what, spans) in [("hold uniform", uniform()), ("hold log-uniform", log_uniform())] {
            let armed = || {
                let mut queue = Q::default();
                (0..n).zip(spans.iter().cycle()).for_each(|(slot, span)| queue.arm(slot, *span));
                queue
            };
            crate::row(group, id(what), armed, |queue| hold(queue, &spans));
        }
        group.throughput(Throughput::Elements(n.into()));
        for (what, width) in [("herd in 1 ns", 1), ("herd in 10 ms", 10_000_000)] {
            let places = fleet::random_below(width, n as usize);
            let empty = || (Q::default(), 0);
            crate::row(group, id(what), empty, |(queue, now)| {
                *now += 20 * SECOND;
                herd(queue, &places, *now);
            });
        }
        let second = fleet::second_of_beats(n);
        for (what, limit) in [("lazy 1.6 s", 1_600), ("lazy 4.5 s", 4_500)] {
            let spread = || {
                let mut detectors = Lazy::<Q>::new(n, limit * MILLISECOND);
                (0..10).for_each(|_| detectors.live(&second));
                detectors
            };
            crate::row(group, id(what), spread, |detectors| detectors.live(&second));
        }
    }
}

/// Takes out the first and arms another, time and again.
fn hold(queue: &mut impl Queue, spans: &[u64]) {
    for span in spans {
        let (now, slot) = queue.pop().unwrap();
        queue.arm(slot, now + span);
    }
    black_box(queue);
}

/// Up to a second.
fn uniform() -> Vec<u64> {
    fleet::random_below(1_000_000_000, HOLDS).into_iter().map(|span| span as u64).collect()
}

/// From a millisecond to 2^16 of them, each power of two as likely.
fn log_uniform() -> Vec<u64> {
    let span = |draw: usize| {
        let (power, rest) = (draw >> 16, draw as u64 % (1 << 16));
        let least = MILLISECOND << power;
        least + ((least * rest) >> 16)
    };
    fleet::random_below(1 << 20, HOLDS).into_iter().map(span).collect()
}

/// Everybody is armed for nearly the same moment, and then it comes.
fn herd(queue: &mut impl Queue, places: &[usize], now: u64) {
    for (slot, place) in (0..).zip(places) {
        queue.arm(slot, now + *place as u64);
    }
    let last = places.iter().max().map_or(now, |last| now + *last as u64);
    for _ in places {
        black_box(queue.pop_due(last).unwrap());
    }
}

/// Detectors of peers that all speak once a second: hearing touches no timer, and a timer that finds
/// its peer alive arms itself for the moment that follows.
struct Lazy<Q> {
    queue: Q,
    last_heard: Vec<u64>,
    limit: u64,
    now: u64,
}

impl<Q: Queue> Lazy<Q> {
    fn new(n: u32, limit: u64) -> Self {
        let mut queue = Q::default();
        (0..n).for_each(|slot| queue.arm(slot, limit));
        Self { queue, last_heard: vec![0; n as usize], limit, now: 0 }
    }

    /// A second.
    fn live(&mut self, second: &[Vec<usize>]) {
        for beats in second {
            self.now += MILLISECOND;
            while let Some((_, slot)) = self.queue.pop_due(self.now) {
                let until = self.last_heard[slot as usize] + self.limit;
                assert!(until > self.now, "everybody speaks in time");
                self.queue.arm(slot, until);
            }
            for &slot in beats {
                self.last_heard[slot] = self.now;
            }
        }
    }
}
