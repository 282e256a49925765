//! The same actions whatever the batching, the reading ahead, the room made and the budget of a step.

use std::time::Duration;

use steadfast::config::{Detector, HealthConfig, Signs};
use steadfast::{
    Action, BreakerId, BreakerProfileId, Config, ConnId, DialCause, Endpoint, EndpointId, Event,
    LossCause, Manager, PeerId, PeerProfileId, Time,
};

/// More than those below which nothing is read ahead.
const PEERS: u64 = 17_000;
const BREAKERS: u64 = 10;

/// How a driver hands over what a wake-up brought.
#[derive(Clone, Copy, Debug)]
struct Habit {
    /// So many at once.
    batch: usize,
    max_work_per_step: u32,
    ticks: Ticks,
    reserves: bool,
    /// Whether it goes on from a snapshot now and then.
    restores: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ticks {
    /// Once in a wake-up, whatever is left over.
    Once,
    /// In each wake-up until nothing more is due.
    Out,
    /// After each event until nothing more is due.
    Between,
}

fn config(habit: Habit) -> Config {
    let mut config = Config::new(7);
    config.limits.max_work_per_step = habit.max_work_per_step;
    config.pacer.max_in_flight = 3_000;
    config.breaker_profiles[0].max_in_flight = 500;
    config.peer_profiles[0].health = HealthConfig {
        signs: Signs::Heartbeats,
        detector: Detector::Deadline(Duration::from_secs(4)),
        ..HealthConfig::default()
    };
    config
}

/// A driver that answers everything at its next wake-up, and a million times the same way.
struct Driver {
    manager: Manager,
    habit: Habit,
    now: Time,
    /// All that was ordered, with its moment.
    log: Vec<(Time, Action)>,
    up: Vec<ConnId>,
    dials: Vec<ConnId>,
    draws: u64,
}

impl Driver {
    fn new(habit: Habit) -> Self {
        let mut manager = Manager::new(config(habit), 3).unwrap();
        if habit.reserves {
            manager.reserve(17_000, 34_000);
        }
        let now = Time::ZERO;
        let (log, up, dials) = (Vec::new(), Vec::new(), Vec::new());
        let mut driver = Self { manager, habit, now, log, up, dials, draws: 1 };
        let profile = BreakerProfileId(0);
        let breakers =
            (0..BREAKERS).map(|id| Event::AddBreaker { breaker: BreakerId(id), profile });
        driver.take(&breakers.collect::<Vec<_>>());
        let peers = (0..PEERS).flat_map(|id| {
            let endpoint = |own: u64| Endpoint {
                id: EndpointId(u32::try_from(own).unwrap()),
                breaker: BreakerId((id + own) % BREAKERS),
            };
            let (peer, profile) = (PeerId(id), PeerProfileId(0));
            let endpoints = vec![endpoint(0), endpoint(1)];
            [Event::AddPeer { peer, profile, endpoints }, Event::Connect { peer }]
        });
        driver.take(&peers.collect::<Vec<_>>());
        driver
    }

    /// Draws below a bound, the same for every habit.
    fn draw(&mut self, bound: u64) -> u64 {
        self.draws = self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.draws >> 33) % bound
    }

    /// Hands over what came in a wake-up, then whatever is due.
    fn take(&mut self, events: &[Event]) {
        let mut actions = Vec::new();
        for batch in events.chunks(self.habit.batch) {
            match batch {
                [event] => self.manager.step_into(event.clone(), self.now, &mut actions),
                _ => self.manager.step_batch(batch, self.now, &mut actions),
            }
            if self.habit.ticks == Ticks::Between {
                self.tick(&mut actions);
            }
        }
        self.tick(&mut actions);
        for action in actions {
            match &action {
                Action::Dial { conn, .. } => self.dials.push(*conn),
                Action::CancelDial { conn } => self.dials.retain(|dial| dial != conn),
                Action::Close { conn } => self.up.retain(|up| up != conn),
                _ => {}
            }
            self.log.push((self.now, action));
        }
    }

    /// Ticks until nothing more is due.
    fn tick(&mut self, actions: &mut Vec<Action>) {
        self.manager.step_into(Event::Tick, self.now, actions);
        let ticks_out = self.habit.ticks != Ticks::Once;
        while ticks_out && self.manager.next_deadline().is_some_and(|due| due <= self.now) {
            self.manager.step_into(Event::Tick, self.now, actions);
        }
    }

    /// One wake-up of ten milliseconds, in which `ill` thousandths of what happens goes wrong.
    fn wake(&mut self, ill: u64) {
        self.now += Duration::from_millis(10);
        let mut events = Vec::new();
        let dials = core::mem::take(&mut self.dials);
        for conn in dials {
            if self.draw(1_000) < ill {
                let cause = DialCause::Refused;
                events.push(Event::DialFailed { conn, cause, retry_after: None });
            } else {
                self.up.push(conn);
                events.push(Event::Connected { conn, resumed: false });
            }
        }
        let up = core::mem::take(&mut self.up);
        for conn in up {
            if self.draw(1_000) * 8 < ill {
                events.push(Event::Lost { conn, cause: LossCause::Reset });
                continue;
            }
            if self.draw(100) == 0 {
                events.push(Event::Heard { conn });
            }
            self.up.push(conn);
        }
        self.take(&events);
    }

    /// Five seconds: it comes up, a fifth of a second is an outage, and it comes back.
    fn live(mut self) -> (Vec<(Time, Action)>, String, u64) {
        for wakeup in 0..500 {
            let ill = if (40..60).contains(&wakeup) { 700 } else { 0 };
            self.wake(ill);
            if self.habit.restores && wakeup % 23 == 0 {
                let snapshot = self.manager.snapshot();
                self.manager = Manager::restore(snapshot, 9).unwrap();
            }
            if wakeup % 100 == 0 {
                self.manager.check().unwrap();
            }
        }
        let stats = self.manager.stats();
        assert!(stats.peers.connected > 16_384, "most of them are read ahead");
        assert!(stats.suspected > 0 && stats.losses.reset > 10_000, "{stats:?}");
        (self.log, format!("{stats:?}"), self.manager.state_digest())
    }
}

/// Holds the habits to what the first of them leads to.
fn hold(habits: &[Habit]) {
    let (log, stats, digest) = Driver::new(habits[0]).live();
    for habit in &habits[1..] {
        let (own, own_stats, own_digest) = Driver::new(*habit).live();
        let differs = own.iter().zip(&log).position(|(own, other)| own != other);
        let place = differs.map(|at| (at, &own[at], &log[at]));
        assert!(place.is_none(), "{habit:?}: {place:?}");
        assert_eq!(own.len(), log.len(), "{habit:?}");
        assert_eq!(own_stats, stats, "{habit:?}");
        if habit.max_work_per_step == habits[0].max_work_per_step {
            // The limits are part of the state.
            assert_eq!(own_digest, digest, "{habit:?}");
        }
    }
}

const PLAIN: Habit =
    Habit { batch: 1, max_work_per_step: 256, ticks: Ticks::Out, reserves: false, restores: false };

#[test]
fn batches_and_reading_ahead_change_no_action() {
    hold(&[PLAIN, Habit { batch: 1_000, ..PLAIN }, Habit { batch: 7, reserves: true, ..PLAIN }]);
}

/// Where a driver hands over the next event before all work of the last one is done, it matters how
/// far a step gets; and that must not depend on how the timers stand.
#[test]
fn what_a_step_leaves_over_does_not_depend_on_where_timers_stand() {
    let once = Habit { ticks: Ticks::Once, max_work_per_step: 64, ..PLAIN };
    hold(&[once, Habit { reserves: true, ..once }, Habit { restores: true, ..once }]);
}

/// What a budget left over of one event's work is done before the next event here; a driver that
/// hands over the next event first has that one answered first.
#[test]
fn budgets_change_no_action() {
    let work = |max_work_per_step| Habit { max_work_per_step, ticks: Ticks::Between, ..PLAIN };
    hold(&[work(1 << 20), work(256), work(16)]);
}
