//! A whole reconnect cycle: everybody is lost, waits, stands in line, is dialed and is back.
//!
//! The network answers a dial after 20 ms, and the driver wakes up at whole milliseconds: what came
//! in meanwhile, then a tick. Nobody is refused, so the breakers stay closed. The rival does what
//! its author thought of; that it holds fewer promises (no fairness between breakers, no learned
//! pace, no notices) is not in the ratio.

use std::collections::VecDeque;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use steadfast::config::FirstRetry;
use steadfast::{Action, Config, ConnId, Event, LossCause, Manager, Time};

use crate::by_hand::{ByHand, Limits};
use crate::cpu_time::ThreadCpuTime;
use crate::fleet::{self, BREAKERS};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const ANSWERS_AFTER: Duration = Duration::from_millis(20);

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("reconnect");
    // Long enough that all were stable.
    let rest = Duration::from_secs(20);
    let config = fleet::config(Duration::from_secs(30));
    let limits = Limits {
        silence: 30 * SECOND,
        dial_timeout: 20 * SECOND,
        backoff: SECOND,
        max_backoff: 120 * SECOND,
    };
    for n in crate::sizes() {
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(n.into()));
        for (name, breakers) in [("shared breakers", BREAKERS), ("a breaker each", n)] {
            let id = |who| BenchmarkId::new(format!("{name}, {who}"), n);
            let by_hand = || Cycle::new(rival(limits, n, breakers));
            let who = id("rival: HashMap + BinaryHeap");
            crate::row(&mut group, who, by_hand, |cycle| cycle.run(rest));
            for (who, batches) in [("ours: one by one", false), ("ours: batches", true)] {
                let ours = || Cycle::new(ours(config.clone(), n, breakers, batches));
                crate::row(&mut group, id(who), ours, |cycle| cycle.run(rest));
            }
        }
    }
    group.finish();
}

/// Lost and back at once, time and again, with limits of a minute: deadlines that no longer hold
/// pile up wherever they are not taken out.
///
/// What the ratio does not show is memory: between two sweeps the rival holds four entries a peer.
pub(crate) fn flap(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("flap");
    let mut config = fleet::config(Duration::from_secs(60));
    let profile = &mut config.peer_profiles[0];
    profile.dial_timeout = Duration::from_secs(60);
    profile.first_retry = FirstRetry::Backoff;
    profile.backoff.cap = profile.backoff.base;
    let limits = Limits {
        silence: 60 * SECOND,
        dial_timeout: 60 * SECOND,
        backoff: SECOND,
        max_backoff: SECOND,
    };
    for n in crate::sizes() {
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(n.into()));
        let id = |who| BenchmarkId::new(who, n);
        let by_hand = || Cycle::new(rival(limits, n, BREAKERS));
        let who = id("rival: HashMap + BinaryHeap");
        crate::row(&mut group, who, by_hand, |cycle| cycle.run(Duration::ZERO));
        let ours = || Cycle::new(ours(config.clone(), n, BREAKERS, true));
        crate::row(&mut group, id("ours: batches"), ours, |cycle| cycle.run(Duration::ZERO));
    }
    group.finish();
}

/// Whoever reconnects, as a driver sees it.
trait Reconnects {
    /// What a dial and its connection are called.
    type Name: Copy;

    fn heard(&mut self, up: &[Self::Name], now: Time);
    fn lost(&mut self, up: &[Self::Name], now: Time);
    fn connected(&mut self, dialed: &[Self::Name], now: Time);
    fn tick(&mut self, now: Time);
    fn next_deadline(&self) -> Option<Time>;
    fn dials(&mut self) -> impl Iterator<Item = Self::Name>;
}

/// A driver and an obliging network.
struct Cycle<R: Reconnects> {
    who: R,
    now: Time,
    up: Vec<R::Name>,
    dialed: VecDeque<(Time, R::Name)>,
}

impl<R: Reconnects> Cycle<R> {
    fn new((who, up): (R, Vec<R::Name>)) -> Self {
        Self { who, now: Time::ZERO, up, dialed: VecDeque::new() }
    }

    fn run(&mut self, rest: Duration) {
        let n = self.up.len();
        self.now += rest;
        if !rest.is_zero() {
            self.who.heard(&self.up, self.now);
        }
        self.who.lost(&self.up, self.now);
        self.up.clear();
        while self.up.len() < n {
            let answer = self.dialed.front().map(|(at, _)| *at);
            let due = self.who.next_deadline().into_iter().chain(answer).min();
            let due = due.expect("somebody waits for something").as_nanos();
            self.now = self.now.max(Time::from_nanos(due.next_multiple_of(MILLISECOND)));
            let answered = self.dialed.partition_point(|(at, _)| *at <= self.now);
            let before = self.up.len();
            self.up.extend(self.dialed.drain(..answered).map(|(_, name)| name));
            self.who.connected(&self.up[before..], self.now);
            self.who.tick(self.now);
            let answer = self.now + ANSWERS_AFTER;
            self.dialed.extend(self.who.dials().map(|name| (answer, name)));
        }
    }
}

struct Ours {
    manager: Manager,
    batches: bool,
    events: Vec<Event>,
    actions: Vec<Action>,
}

fn ours(config: Config, n: u32, breakers: u32, batches: bool) -> (Ours, Vec<ConnId>) {
    let (manager, conns) = fleet::connect(config, n, breakers);
    (Ours { manager, batches, events: Vec::new(), actions: Vec::new() }, conns)
}

impl Ours {
    fn feed(&mut self, now: Time, conns: &[ConnId], event: impl Fn(ConnId) -> Event) {
        let Self { manager, batches, events, actions } = self;
        let all = conns.iter().map(|&conn| event(conn));
        if *batches {
            events.clear();
            events.extend(all);
            manager.step_batch(events, now, actions);
        } else {
            all.for_each(|event| manager.step_into(event, now, actions));
        }
    }
}

impl Reconnects for Ours {
    type Name = ConnId;

    fn heard(&mut self, up: &[ConnId], now: Time) {
        self.feed(now, up, |conn| Event::Heard { conn });
    }

    fn lost(&mut self, up: &[ConnId], now: Time) {
        self.feed(now, up, |conn| Event::Lost { conn, cause: LossCause::Reset });
    }

    fn connected(&mut self, dialed: &[ConnId], now: Time) {
        self.feed(now, dialed, |conn| Event::Connected { conn, resumed: false });
    }

    fn tick(&mut self, now: Time) {
        fleet::tick(&mut self.manager, now, &mut self.actions);
    }

    fn next_deadline(&self) -> Option<Time> {
        self.manager.next_deadline()
    }

    fn dials(&mut self) -> impl Iterator<Item = ConnId> {
        self.actions.drain(..).filter_map(fleet::dialed)
    }
}

fn rival(limits: Limits, n: u32, servers: u32) -> (ByHand, Vec<u64>) {
    (ByHand::connected(limits, n, servers), (0..u64::from(n)).collect())
}

impl Reconnects for ByHand {
    type Name = u64;

    fn heard(&mut self, up: &[u64], now: Time) {
        up.iter().for_each(|&peer| self.heard(peer, now.as_nanos()));
    }

    fn lost(&mut self, up: &[u64], now: Time) {
        up.iter().for_each(|&peer| self.lost(peer, now.as_nanos()));
    }

    fn connected(&mut self, dialed: &[u64], now: Time) {
        dialed.iter().for_each(|&peer| self.connected_at(peer, now.as_nanos()));
    }

    fn tick(&mut self, now: Time) {
        self.tick(now.as_nanos());
    }

    fn next_deadline(&self) -> Option<Time> {
        self.next_deadline().map(Time::from_nanos)
    }

    fn dials(&mut self) -> impl Iterator<Item = u64> {
        self.dials.drain(..)
    }
}
