//! A whole service in peace: a second in which everybody speaks once, timers included.
//!
//! A wake-up each millisecond: a tick, then the heartbeats of that millisecond. CPU time for each
//! heartbeat, so that it times the number of peers is the share of a core. Nobody is ever silent;
//! I/O and the clock are not in it, and neither is that the rival is ours to write and to test.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use steadfast::config::{Detector, HealthConfig, Signs};
use steadfast::phi::PhiConfig;
use steadfast::{Action, Config, ConnId, Event, Manager, Time};

use crate::by_hand::{ByHand, Limits};
use crate::cpu_time::ThreadCpuTime;
use crate::fleet;

const MILLISECOND: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_millis(4_500);
/// Until what was armed when all connected at once is spread, and phi has found its rhythm.
const SECONDS_BEFORE: u32 = 25;

pub(crate) fn bench(criterion: &mut Criterion<ThreadCpuTime>) {
    let mut group = criterion.benchmark_group("steady");
    let mut deadline = fleet::config(LIMIT);
    // The rival does not tell either.
    deadline.peer_profiles[0].health.tell_doubts = false;
    let mut phi = deadline.clone();
    phi.peer_profiles[0].health = HealthConfig {
        signs: Signs::Heartbeats,
        detector: Detector::Phi(PhiConfig::default()),
        ..HealthConfig::default()
    };
    for n in crate::sizes() {
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(n.into()));
        let second = fleet::second_of_beats(n);
        let id = BenchmarkId::new("rival: HashMap + BinaryHeap", n);
        let rival = || {
            let (silence, rest) = (LIMIT.as_nanos() as u64, 20_000 * MILLISECOND);
            let limits = Limits { silence, dial_timeout: rest, backoff: rest, max_backoff: rest };
            let (mut rival, mut now) = (ByHand::connected(limits, n, fleet::BREAKERS), 0);
            (0..SECONDS_BEFORE).for_each(|_| live_by_hand(&mut rival, &mut now, &second));
            (rival, now)
        };
        crate::row(&mut group, id, rival, |(rival, now)| live_by_hand(rival, now, &second));
        for (name, config, batches) in [
            ("ours: one by one", &deadline, false),
            ("ours: batches", &deadline, true),
            ("ours: batches, phi and doubts", &phi, true),
        ] {
            let ours = || {
                let mut service = Service::connected(config.clone(), n, batches);
                (0..SECONDS_BEFORE).for_each(|_| service.live(&second));
                service
            };
            crate::row(&mut group, BenchmarkId::new(name, n), ours, |ours| ours.live(&second));
        }
    }
    group.finish();
}

/// A second.
fn live_by_hand(rival: &mut ByHand, now: &mut u64, second: &[Vec<usize>]) {
    for beats in second {
        *now += MILLISECOND;
        rival.tick(*now);
        beats.iter().for_each(|&id| rival.heard(id as u64, *now));
    }
    assert!(rival.dials.is_empty());
}

struct Service {
    manager: Manager,
    conns: Vec<ConnId>,
    batches: bool,
    now: Time,
    events: Vec<Event>,
    actions: Vec<Action>,
}

impl Service {
    fn connected(config: Config, n: u32, batches: bool) -> Self {
        let (manager, conns) = fleet::connect(config, n, fleet::BREAKERS);
        let (events, actions) = (Vec::new(), Vec::new());
        Self { manager, conns, batches, now: Time::ZERO, events, actions }
    }

    /// A second.
    fn live(&mut self, second: &[Vec<usize>]) {
        let Self { manager, conns, now, events, actions, .. } = self;
        for beats in second {
            *now = now.plus_nanos(MILLISECOND);
            fleet::tick(manager, *now, actions);
            let beats = beats.iter().map(|&id| Event::Heartbeat { conn: conns[id] });
            if self.batches {
                events.clear();
                events.extend(beats);
                manager.step_batch(events, *now, actions);
            } else {
                beats.for_each(|event| manager.step_into(event, *now, actions));
            }
        }
        assert!(actions.is_empty(), "{:?}", actions[0]);
    }
}
