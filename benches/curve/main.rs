//! What a sign of life and a whole outage cost from a thousand peers to ten million.
//!
//! CPU time of the thread for each event or peer, the least of a few rounds. Connections speak at
//! random, and are lost at random: with a thousand everything is in the processor's own cache, with a
//! million each event fetches its records from memory, and with ten million from pages that the
//! processor has to look up as well. The outage is everybody's: lost, spread, dialed at the next
//! deadline, answered at once, up. Bytes are what the process grew by, the driver's list of connections
//! included. No rival: those are in `core`.
//!
//! 1,000 to 100,000 peers, 1,000,000 with `STEADFAST_BENCH_LARGE=1`, 10,000,000 with
//! `STEADFAST_BENCH_HUGE=1` (5 GB, some minutes).

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

#[allow(dead_code, reason = "what the other benches want of a fleet")]
#[path = "../core/fleet.rs"]
mod fleet;

use std::time::Duration;

use cpu_time::ThreadTime;
use steadfast::{Action, ConnId, Event, LossCause, Manager, Time};

/// Signs of life in a round.
const EVENTS: usize = 1_000_000;
const BATCH: usize = 32;
/// Long enough that all connections were stable.
const REST: Duration = Duration::from_secs(15);

fn main() {
    let asked = |name| std::env::var_os(name).is_some();
    // As a test it runs small.
    let sizes = match () {
        () if !std::env::args().any(|arg| arg == "--bench") => vec![1_000],
        () => {
            let large = asked("STEADFAST_BENCH_LARGE").then_some(1_000_000);
            let huge = asked("STEADFAST_BENCH_HUGE").then_some(10_000_000);
            [1_000, 10_000, 100_000].into_iter().chain(large).chain(huge).collect()
        }
    };
    println!("CPU nanoseconds for each event, for each peer of an outage; bytes for each peer");
    println!("| peers | heard | heard, 32 at once | outage | bytes |");
    println!("| --: | --: | --: | --: | --: |");
    for n in sizes {
        let before = resident();
        let (manager, conns) = fleet::connected(n);
        let bytes = (resident() - before) / f64::from(n);
        let mut fleet = Fleet { now: manager.now(), manager, conns, actions: Vec::new() };
        let rounds = if n > 1_000_000 { 1 } else { 5 };
        let order = fleet::random_below(n, EVENTS);
        let each = |took: Duration, count: usize| took.as_nanos() as f64 / count as f64;
        let heard = least(rounds, || each(fleet.hear(&order), EVENTS));
        let batch = least(rounds, || each(fleet.hear_batches(&order), EVENTS));
        let outage = least(rounds, || each(fleet.lose_all(), n as usize));
        println!("| {n} | {heard:.0} | {batch:.0} | {outage:.0} | {bytes:.0} |");
    }
}

fn least(rounds: u32, mut round: impl FnMut() -> f64) -> f64 {
    (0..rounds).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// Bytes of this process in memory; 0 where the system does not say.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() * 1024.0
}

struct Fleet {
    manager: Manager,
    conns: Vec<ConnId>,
    now: Time,
    actions: Vec<Action>,
}

impl Fleet {
    fn step(&mut self, event: Event) {
        self.manager.step_into(event, self.now, &mut self.actions);
    }

    fn hear(&mut self, order: &[usize]) -> Duration {
        let start = ThreadTime::now();
        for &place in order {
            self.now = self.now.plus_nanos(1);
            self.step(Event::Heard { conn: self.conns[place] });
        }
        start.elapsed()
    }

    fn hear_batches(&mut self, order: &[usize]) -> Duration {
        let start = ThreadTime::now();
        let mut events = Vec::with_capacity(BATCH);
        for batch in order.chunks(BATCH) {
            self.now = self.now.plus_nanos(1);
            events.clear();
            events.extend(batch.iter().map(|&place| Event::Heard { conn: self.conns[place] }));
            self.manager.step_batch(&events, self.now, &mut self.actions);
        }
        start.elapsed()
    }

    /// All are heard, then lost in no order, and the clock runs until all are back.
    fn lose_all(&mut self) -> Duration {
        self.now += REST;
        for place in 0..self.conns.len() {
            self.step(Event::Heard { conn: self.conns[place] });
        }
        let mut lost = std::mem::take(&mut self.conns);
        let peers = lost.len();
        for (place, other) in fleet::random_below(u32::MAX, peers).into_iter().enumerate() {
            lost.swap(place, other % peers);
        }
        let start = ThreadTime::now();
        for conn in lost {
            self.step(Event::Lost { conn, cause: LossCause::Reset });
        }
        while (self.manager.stats().peers.connected as usize) < peers {
            let dials = self.conns.len();
            self.conns.extend(self.actions.drain(..).filter_map(fleet::dialed));
            if dials == self.conns.len() {
                self.now = self.manager.next_deadline().expect("somebody waits");
                self.step(Event::Tick);
            }
            for place in dials..self.conns.len() {
                self.step(Event::Connected { conn: self.conns[place], resumed: false });
            }
        }
        self.actions.clear();
        start.elapsed()
    }
}
