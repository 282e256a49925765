//! The largest single steps: in a mass loss, in a herd of timers, in a steady second.
//!
//! A table of what one call of `step_into` takes, beside the tick of the naive design, which clones
//! its map and looks at everybody. CPU time of the thread, because the longest of a million spans of
//! the wall clock tells of the machine's other work. The same run is lived through three times, and
//! of each step the least counts, less what reading the CPU clock takes (half a microsecond, which
//! is also what the small figures are uncertain by): an interrupt does not strike the same step
//! three times, and what is left is the step's own work, page faults and growth included. So the
//! ratio does not show what a caller waits for on a busy machine, and not that the naive tick comes
//! every ten seconds while ours come as often as something is due.
//!
//! 100,000 peers, and 1,000,000 with `STEADFAST_BENCH_LARGE=1`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::panic)]

#[allow(dead_code, reason = "what the other benches want of a fleet")]
#[path = "../core/fleet.rs"]
mod fleet;

use std::hint::black_box;
use std::time::Duration;

use cpu_time::ThreadTime;
use steadfast::{Action, CallId, ConnId, Event, LossCause, Manager, Time};

const RUNS: usize = 3;
const MILLISECOND: u64 = 1_000_000;
/// Room for what one step orders and tells, used before, as a driver's is.
const ACTIONS: usize = 1 << 16;
/// After so long a silence a connection is doubted, and lost after half as much again.
const DOUBTED_AFTER: Duration = Duration::from_secs(20);

fn main() {
    let peers = match () {
        // As a test it runs small.
        () if !std::env::args().any(|arg| arg == "--bench") => 1_000,
        () if std::env::var_os("STEADFAST_BENCH_LARGE").is_some() => 1_000_000,
        () => 100_000,
    };
    println!("{peers} peers, CPU time in microseconds");
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "", "steps", "median", "p99.9", "largest");
    type Scenario = fn(&mut Steps, &[ConnId]);
    let scenarios: [(&str, Scenario); 4] = [
        ("all lost, spread, dialed, up", mass_loss),
        ("herd in 1 ns: all alive", herd_of_the_living),
        ("herd in 1 ns: all silent", herd_of_the_silent),
        ("steady second, one by one", steady_second),
    ];
    for (name, scenario) in scenarios {
        let runs = (0..RUNS).map(|_| {
            // Not a clone, which has no room to grow.
            let config = fleet::config(DOUBTED_AFTER * 3 / 2);
            let (manager, conns) = fleet::connect(config, peers, fleet::BREAKERS);
            let mut steps = Steps::of(manager);
            scenario(&mut steps, &conns);
            steps.took
        });
        report(name, runs.reduce(least).unwrap());
    }
    let rival = (0..RUNS).map(|_| naive_tick(peers));
    report("rival: the naive design's tick", rival.reduce(least).unwrap());
}

/// A manager whose steps are timed.
struct Steps {
    manager: Manager,
    now: Time,
    actions: Vec<Action>,
    /// Who is dialed, by the last steps.
    dials: Vec<ConnId>,
    is_timed: bool,
    took: Vec<Duration>,
}

impl Steps {
    fn of(manager: Manager) -> Self {
        let now = manager.now();
        let mut actions = vec![Action::Done { call: CallId(0) }; ACTIONS];
        actions.clear();
        Self { manager, now, actions, dials: Vec::new(), is_timed: false, took: Vec::new() }
    }

    fn step(&mut self, event: Event) {
        let start = self.is_timed.then(ThreadTime::now);
        self.manager.step_into(event, self.now, &mut self.actions);
        self.took.extend(start.map(|start| start.elapsed()));
        self.dials.extend(self.actions.drain(..).filter_map(fleet::dialed));
    }

    /// Ticks until nothing more is due.
    fn tick(&mut self) {
        self.step(Event::Tick);
        while self.manager.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.step(Event::Tick);
        }
    }

    /// Everybody is heard, once there was time for all to be stable.
    fn hear_all(&mut self, conns: &[ConnId]) {
        self.now += DOUBTED_AFTER / 2;
        conns.iter().for_each(|&conn| self.step(Event::Heard { conn }));
    }
}

/// The connections break one after the other, and each comes back as soon as it may.
fn mass_loss(steps: &mut Steps, conns: &[ConnId]) {
    steps.hear_all(conns);
    steps.is_timed = true;
    for &conn in conns {
        steps.step(Event::Lost { conn, cause: LossCause::Reset });
    }
    while steps.manager.stats().peers.connected < conns.len() as u32 {
        let dials = std::mem::take(&mut steps.dials);
        if dials.is_empty() {
            steps.now = steps.manager.next_deadline().expect("somebody waits for a deadline");
            steps.step(Event::Tick);
        }
        for conn in dials {
            steps.step(Event::Connected { conn, resumed: false });
        }
    }
}

/// Everybody's timer is due at once, and finds that its peer was heard.
fn herd_of_the_living(steps: &mut Steps, conns: &[ConnId]) {
    steps.hear_all(conns);
    steps.now += DOUBTED_AFTER / 2;
    steps.is_timed = true;
    steps.tick();
    assert_eq!(steps.manager.stats().peers.connected, conns.len() as u32);
}

/// Everybody's timer is due at once: all are doubted, and in the end given up.
fn herd_of_the_silent(steps: &mut Steps, _: &[ConnId]) {
    steps.is_timed = true;
    while steps.manager.stats().peers.connected > 0 {
        steps.now = steps.manager.next_deadline().expect("somebody is to be judged");
        steps.tick();
    }
}

/// Everybody speaks once, in the second in which everybody's timer is due as well.
fn steady_second(steps: &mut Steps, conns: &[ConnId]) {
    let second = fleet::second_of_beats(conns.len() as u32);
    // All timers at 20 s, and from then on each when its peer's last beat is 20 s old.
    for at in 0..59 {
        steps.is_timed = at == 58;
        for beats in &second {
            steps.now = steps.now.plus_nanos(MILLISECOND);
            steps.tick();
            beats.iter().for_each(|&id| steps.step(Event::Heartbeat { conn: conns[id] }));
        }
    }
    assert_eq!(steps.manager.stats().peers.connected, conns.len() as u32);
}

/// A copy of the map, so that nothing is locked while everybody is looked at.
#[expect(clippy::disallowed_types, reason = "the map that most programs take")]
fn naive_tick(peers: u32) -> Vec<Duration> {
    type Conn = (Time, [u64; 7]);
    let conns: std::collections::HashMap<u64, Conn> =
        (0..peers).map(|id| (id.into(), (Time::from_secs(id.into()), [0; 7]))).collect();
    let start = ThreadTime::now();
    let copy = black_box(&conns).clone();
    let silent = copy.iter().filter(|(_, conn)| conn.0 < Time::from_nanos(1)).count();
    black_box((silent, copy));
    vec![start.elapsed()]
}

/// Of each step the shorter of two times.
fn least(mut one: Vec<Duration>, other: Vec<Duration>) -> Vec<Duration> {
    assert_eq!(one.len(), other.len(), "the same run");
    one.iter_mut().zip(other).for_each(|(one, other)| *one = other.min(*one));
    one
}

fn report(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let clock = clock_read();
    let at = |place: usize| took[place].saturating_sub(clock).as_nanos() as f64 / 1e3;
    let last = took.len() - 1;
    let (median, high) = (at(last / 2), at(last - took.len() / 1_000));
    println!("{name:<34} {:>9} {median:>9.2} {high:>9.2} {:>9.2}", took.len(), at(last));
}

/// What reading the CPU clock adds to each time.
fn clock_read() -> Duration {
    let mut reads: Vec<_> = (0..1_001).map(|_| ThreadTime::now().elapsed()).collect();
    reads.sort_unstable();
    reads[500]
}
