//! In the steady state a step allocates nothing.
//!
//! Its own binary with a counting allocator, and one test, so that nobody else allocates meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::alloc::System;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use steadfast::breaker::RateRule;
use steadfast::bucket::BucketConfig;
use steadfast::bulkhead::BulkheadConfig;
use steadfast::config::{BreakerProfile, Detector, GateConfig, Signs};
use steadfast::hedge::HedgeConfig;
use steadfast::limit::LimitConfig;
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;
use steadfast::throttle::ThrottleConfig;
use steadfast::{
    Action, AttemptId, BreakerId, CallFailure, CallId, CallProfileId, Config, ConnId, DialCause,
    Endpoint, EndpointId, Event, LossCause, Manager, PeerId, PeerProfileId, PingId, Ratio, Target,
    Time,
};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A manager, the vector that its actions go into, and what it asked for.
struct Driver {
    manager: Manager,
    actions: Vec<Action>,
    now: Time,
    dials: Vec<ConnId>,
    up: Vec<ConnId>,
    pings: Vec<PingId>,
    attempts: Vec<AttemptId>,
    calls: u64,
}

impl Driver {
    fn step(&mut self, event: Event) {
        self.actions.clear();
        self.manager.step_into(event, self.now, &mut self.actions);
        for action in &self.actions {
            match action {
                Action::Dial { conn, .. } => self.dials.push(*conn),
                Action::Ping { ping, .. } => self.pings.push(*ping),
                Action::CancelDial { conn } => self.dials.retain(|dial| dial != conn),
                Action::StartAttempt { attempt, .. } => self.attempts.push(*attempt),
                Action::CancelAttempt { attempt } => self.attempts.retain(|one| one != attempt),
                Action::Close { conn } => self.up.retain(|up| up != conn),
                _ => {}
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(due) = self.manager.next_deadline().filter(|&due| due <= until) {
            self.now = due;
            self.step(Event::Tick);
        }
        self.now = until;
    }

    fn connect_all(&mut self) {
        while let Some(conn) = self.dials.pop() {
            self.up.push(conn);
            self.step(Event::Connected { conn, resumed: false });
        }
    }

    /// Everybody speaks, answers pings, is measured.
    fn live(&mut self) {
        for place in 0..self.up.len() {
            let conn = self.up[place];
            self.step(Event::Heard { conn });
            self.step(Event::Heartbeat { conn });
            self.step(Event::Metrics { conn, latency: Duration::from_millis(20), loss: 100 });
        }
        self.wait(Duration::from_secs(11));
        while let Some(ping) = self.pings.pop() {
            self.step(Event::Pong { ping });
        }
        self.step(Event::Heard { conn: ConnId::from_raw(u64::MAX) });
        self.step(Event::Load { load: 500_000 });
    }

    /// Calls that succeed, fail and are retried, wait in line, are hedged, hang and are cancelled.
    fn call(&mut self) {
        for round in 0..40 {
            for breaker in [2, 3] {
                for deadline in [None, Some(self.now + Duration::from_secs(2))] {
                    let call = CallId(self.calls);
                    self.calls += 1;
                    let target = match breaker {
                        2 => Target::Breaker(BreakerId(2)),
                        _ => Target::Peer { peer: PeerId(round), breaker: BreakerId(3) },
                    };
                    self.step(Event::Call { call, target, profile: CallProfileId(0), deadline });
                }
            }
            self.wait(Duration::from_millis(150));
            for _ in 0..3 {
                let Some(attempt) = self.attempts.pop() else { break };
                self.step(match (self.calls + round) % 4 {
                    0 => Event::Failed { attempt, kind: CallFailure::Error, retry_after: None },
                    1 if round % 8 == 0 => Event::Dropped { attempt },
                    _ => Event::Succeeded { attempt },
                });
            }
            self.step(Event::CancelCall { call: CallId(self.calls - 1) });
        }
        self.wait(Duration::from_secs(40));
    }

    /// Everybody is lost; a few dials fail until the breakers open; all come back.
    fn outage(&mut self) {
        while let Some(conn) = self.up.pop() {
            self.step(Event::Lost { conn, cause: LossCause::Reset });
        }
        for _ in 0..20 {
            self.wait(Duration::from_millis(100));
            while let Some(conn) = self.dials.pop() {
                let cause = DialCause::Refused;
                self.step(Event::DialFailed { conn, cause, retry_after: None });
            }
        }
        self.step(Event::NetworkDown);
        self.wait(Duration::from_secs(5));
        self.step(Event::NetworkUp);
        for _ in 0..60 {
            self.wait(Duration::from_secs(1));
            self.connect_all();
            for place in 0..self.up.len() {
                let conn = self.up[place];
                self.step(Event::Heartbeat { conn });
            }
        }
    }
}

#[test]
fn a_step_in_the_steady_state_allocates_nothing() {
    let mut config = Config::new(1);
    config.peer_profiles[0].health.signs = Signs::Pings(ProbeConfig::default());
    let mut phi = config.peer_profiles[0].clone();
    phi.name = "phi".into();
    phi.health.signs = Signs::Heartbeats;
    let expected_interval = Duration::from_secs(10);
    phi.health.detector = Detector::Phi(PhiConfig { expected_interval, ..Default::default() });
    config.peer_profiles.push(phi);
    let breaker = &mut config.breaker_profiles[0].breaker;
    let slow_rate = Some(Ratio::percent(100));
    breaker.rates = Some(RateRule { slow_rate, ..RateRule::default() });
    (breaker.slow_after, breaker.slow_in_flight) = (Some(Duration::from_secs(1)), true);
    let mut gates = BreakerProfile::for_calls();
    gates.breaker = config.breaker_profiles[0].breaker.clone();
    gates.calls = GateConfig {
        bulkhead: BulkheadConfig { max_concurrent: 4, max_waiting: 4, max_wait: None },
        limit: Some(LimitConfig::default()),
        rate: Some(BucketConfig::default()),
        throttle: Some(ThrottleConfig::default()),
        hedge: Some(HedgeConfig::default()),
        ..GateConfig::default()
    };
    config.breaker_profiles.push(gates);
    config.call_profiles[0].hedged = true;
    let breaker_profile = config.breaker_profile("default").unwrap();
    let call_profile = config.breaker_profile("calls").unwrap();
    let mut driver = Driver {
        manager: Manager::new(config, 2).unwrap(),
        actions: Vec::with_capacity(10_000),
        now: Time::ZERO,
        dials: Vec::with_capacity(1_000),
        up: Vec::with_capacity(1_000),
        pings: Vec::with_capacity(1_000),
        attempts: Vec::with_capacity(1_000),
        calls: 0,
    };
    for id in [2, 3] {
        driver.step(Event::AddBreaker { breaker: BreakerId(id), profile: call_profile });
    }
    for id in 0..2 {
        driver.step(Event::AddBreaker { breaker: BreakerId(id), profile: breaker_profile });
    }
    for id in 0..200 {
        let breaker = |id: u64| BreakerId(id % 2);
        let endpoints = vec![
            Endpoint { id: EndpointId(0), breaker: breaker(id) },
            Endpoint { id: EndpointId(1), breaker: breaker(id + 1) },
        ];
        let profile = PeerProfileId(u16::try_from(id % 2).unwrap());
        driver.step(Event::AddPeer { peer: PeerId(id), profile, endpoints });
        driver.step(Event::Connect { peer: PeerId(id) });
    }
    driver.connect_all();
    // Once through everything: each table and heap has its size.
    for _ in 0..6 {
        driver.live();
        driver.call();
        driver.outage();
    }
    assert_eq!(driver.up.len(), 200);
    let (dials, pings) = (driver.manager.stats().dials, driver.manager.stats().pings);

    assert!(GLOBAL.stats().allocations > 200, "the allocator counts");
    let region = Region::new(GLOBAL);
    for _ in 0..5 {
        driver.live();
    }
    let living = region.change();
    driver.call();
    let calling = region.change();
    driver.outage();
    driver.live();
    let all = region.change();

    assert_eq!((living.allocations, living.reallocations), (0, 0), "{living:?}");
    assert_eq!((calling.allocations, calling.reallocations), (0, 0), "{calling:?}");
    assert_eq!((all.allocations, all.reallocations), (0, 0), "{all:?}");
    let stats = driver.manager.stats();
    assert!(stats.calls_done > 100 && stats.retries > 10 && stats.attempts_cancelled > 10);
    assert!(stats.dials > dials + 200 && stats.pings > pings && stats.breakers.closed >= 2);
    driver.manager.check().unwrap();
}
