//! What a driver with a bug, or somebody far away who chooses ids, facts and times, can do to a
//! manager: be refused by name, and cost no more than the bounds allow.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

#[path = "golden/text.rs"]
mod text;

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use steadfast::breaker::RateRule;
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::budget::BudgetConfig;
use steadfast::bulkhead::BulkheadConfig;
use steadfast::config::{
    BreakerGroup, BreakerProfile, CallProfile, Detector, FirstRetry, GateConfig, OpenOn, Signs,
};
use steadfast::hedge::HedgeConfig;
use steadfast::limit::LimitConfig;
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;
use steadfast::throttle::ThrottleConfig;
use steadfast::{
    Action, AttemptId, BreakerId, BreakerProfileId, CallFailure, CallId, CallProfileId, Config,
    ConnId, DialCause, Endpoint, EndpointId, Event, Ignored, LossCause, Manager, MoveCause, Notice,
    PeerId, PeerProfileId, PingId, Ratio, RejectReason, RetryAfter, Target, Time,
};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts for the whole process, so these tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes that `work` keeps by being done again and again, the fewest of three such series, since the
/// test harness allocates meanwhile. Each has three times as many as all before it together, so that a
/// vector which grows with each must get larger in each.
fn kept(mut work: impl FnMut()) -> i128 {
    let mut done = 1;
    work();
    let measured = (0..3).map(|_| {
        let region = Region::new(GLOBAL);
        (0..3 * done).for_each(|_| work());
        done *= 4;
        let change = region.change();
        change.bytes_allocated as i128 - change.bytes_deallocated as i128
    });
    measured.min().unwrap()
}

/// What one unit of work of a step may lead to, and what the answer to an event may be.
const ACTIONS_PER_UNIT: usize = 8;
/// Ticks at one moment after which there should be nothing left to do.
const MAX_TICKS: u32 = 10_000;
const YEAR: Duration = Duration::from_secs(31_557_600);

/// A configuration in which everything that can be set is.
fn everything() -> Config {
    let mut config = Config::new(1);
    config.ping_rate = Some(BucketConfig { rate: Rate::per_second(50), burst: 20 });
    config.pacer.rate = Some(BucketConfig { rate: Rate::per_second(100), burst: 100 });
    config.mass_guard.as_mut().unwrap().min_peers = 4;
    let peer = &mut config.peer_profiles[0];
    peer.session_ttl = Some(Duration::from_secs(60));
    peer.max_attempts = Some(50);
    peer.give_up_after = Some(Duration::from_secs(3_600));
    peer.inbound = true;
    peer.health.signs = Signs::Pings(ProbeConfig::default());
    peer.health.max_latency = Some(Duration::from_millis(300));
    peer.health.max_loss = Some(50_000);
    let mut phi = peer.clone();
    phi.name = "phi".into();
    phi.first_retry = FirstRetry::Immediate;
    (phi.health.signs, phi.health.detector) =
        (Signs::Heartbeats, Detector::Phi(PhiConfig::default()));
    config.peer_profiles.push(phi);
    let dials = &mut config.breaker_profiles[0];
    dials.rate = Some(BucketConfig { rate: Rate::per_second(50), burst: 50 });
    dials.breaker.rates =
        Some(RateRule { window: steadfast::window::Span::Count(20), ..RateRule::default() });
    let mut calls = BreakerProfile::for_calls();
    let slow_rate = Some(Ratio::percent(50));
    calls.breaker.rates = Some(RateRule { slow_rate, ..RateRule::default() });
    calls.breaker.slow_after = Some(Duration::from_secs(1));
    calls.group = Some(BreakerGroup::default().name);
    calls.calls = GateConfig {
        bulkhead: BulkheadConfig {
            max_concurrent: 4,
            max_waiting: 4,
            max_wait: Some(Duration::from_secs(2)),
        },
        limit: Some(LimitConfig { initial: 4, ..LimitConfig::default() }),
        rate: Some(BucketConfig { rate: Rate::per_second(50), burst: 50 }),
        throttle: Some(ThrottleConfig::default()),
        budget: Some(BudgetConfig { initial: 5, ..BudgetConfig::default() }),
        hedge: Some(HedgeConfig::default()),
        open_on: vec![OpenOn { kind: CallFailure::Unavailable, open_for: Duration::from_secs(1) }],
    };
    config.breaker_profiles.push(calls);
    config.breaker_groups = vec![BreakerGroup::default()];
    let call = CallProfile { deadline: Some(Duration::from_secs(20)), ..CallProfile::hedged() };
    config.call_profiles = vec![call];
    config
}

/// A manager and the driver's part of its state.
#[derive(Clone)]
struct Driver {
    manager: Manager,
    now: Time,
    /// The answer to the last event.
    actions: Vec<Action>,
    dials: Vec<ConnId>,
    up: Vec<ConnId>,
    pings: Vec<PingId>,
    attempts: Vec<AttemptId>,
    calls: u64,
    steps: u64,
    /// The invariants are recounted after so many steps.
    check_every: u64,
}

impl Driver {
    fn new(config: Config) -> Self {
        Self {
            manager: Manager::new(config, 7).unwrap(),
            now: Time::ZERO,
            actions: Vec::with_capacity(10_000),
            dials: vec![],
            up: vec![],
            pings: vec![],
            attempts: vec![],
            calls: 0,
            steps: 0,
            check_every: 1,
        }
    }

    fn step(&mut self, event: Event) {
        self.actions.clear();
        self.manager.step_into(event, self.now, &mut self.actions);
        for action in &self.actions {
            match action {
                Action::Dial { conn, .. } => self.dials.push(*conn),
                Action::CancelDial { conn } => self.dials.retain(|dial| dial != conn),
                Action::Adopt { conn, .. } => self.up.push(*conn),
                Action::Close { conn } => self.up.retain(|up| up != conn),
                Action::Ping { ping, .. } => self.pings.push(*ping),
                Action::StartAttempt { attempt, .. } => self.attempts.push(*attempt),
                Action::CancelAttempt { attempt } => self.attempts.retain(|one| one != attempt),
                _ => {}
            }
        }
        self.steps += 1;
        let deadline = self.manager.next_deadline();
        assert!(deadline.is_none_or(|at| at >= self.manager.now()), "{deadline:?} is over");
        let work = self.manager.config().limits.max_work_per_step as usize;
        let most = work.saturating_add(2).saturating_mul(ACTIONS_PER_UNIT);
        assert!(self.actions.len() <= most, "{} actions of one step", self.actions.len());
        if self.steps.is_multiple_of(self.check_every) {
            self.manager.check().unwrap();
        }
    }

    /// Ticks until nothing is due at this moment.
    fn settle(&mut self) {
        for _ in 0..MAX_TICKS {
            self.step(Event::Tick);
            if self.manager.next_deadline().is_none_or(|at| at > self.now || at == Time::MAX) {
                return;
            }
        }
        panic!("at {} there is no end of work", self.now);
    }

    /// Ticks at the deadlines of this span, the first few of them.
    fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        for _ in 0..200 {
            let Some(due) = self.manager.next_deadline().filter(|&due| due <= until) else { break };
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    fn add(&mut self, peers: u64) {
        for breaker in [0, 1, 2] {
            let profile = BreakerProfileId(u16::from(breaker == 2));
            self.step(Event::AddBreaker { breaker: BreakerId(breaker), profile });
        }
        for peer in (0..peers).map(PeerId) {
            let profile = PeerProfileId(u16::from(!peer.0.is_multiple_of(2)));
            let endpoint = |id: u32| Endpoint { id: EndpointId(id), breaker: BreakerId(id.into()) };
            self.step(Event::AddPeer { peer, profile, endpoints: vec![endpoint(0), endpoint(1)] });
            self.step(Event::Connect { peer });
        }
    }

    fn connect_all(&mut self) {
        while let Some(conn) = self.dials.pop() {
            self.up.push(conn);
            self.step(Event::Connected { conn, resumed: false });
        }
    }

    fn fail_all(&mut self) {
        for conn in std::mem::take(&mut self.dials) {
            self.step(Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None });
        }
    }

    fn call(&mut self, peer: Option<u64>) {
        let (call, breaker) = (CallId(self.calls), BreakerId(2));
        let target = match peer.map(PeerId) {
            Some(peer) => Target::Peer { peer, breaker },
            None => Target::Breaker(breaker),
        };
        self.calls += 1;
        self.step(Event::Call { call, target, profile: CallProfileId(0), deadline: None });
    }

    /// Peers that are up, peers that back off, calls that run, wait and are retried, pings out,
    /// detectors with a rhythm, a breaker that is open.
    fn arm(&mut self) {
        self.add(10);
        self.now += Duration::from_millis(30);
        for conn in std::mem::take(&mut self.dials).into_iter().take(6) {
            self.up.push(conn);
            self.step(Event::Connected { conn, resumed: false });
        }
        for round in 0..3 {
            for conn in self.up.clone() {
                self.step(Event::Heartbeat { conn });
                let latency = Duration::from_millis(20 << (4 * round));
                self.step(Event::Metrics { conn, latency, loss: 30_000 * round });
            }
            self.wait(Duration::from_secs(4));
            self.fail_all();
        }
        for peer in [None, Some(0), Some(1), None, Some(9), None, None, None] {
            self.call(peer);
        }
        if let Some(attempt) = self.attempts.pop() {
            self.step(Event::Failed { attempt, kind: CallFailure::Error, retry_after: None });
        }
        if let Some(conn) = self.up.pop() {
            self.step(Event::Lost { conn, cause: LossCause::Reset });
        }
        self.fail_all();
    }

    /// What an armed manager goes through from there: an outage and its end.
    fn live(&mut self) {
        for _ in 0..3 {
            while let Some(ping) = self.pings.pop() {
                self.step(Event::Pong { ping });
            }
            for (place, attempt) in std::mem::take(&mut self.attempts).into_iter().enumerate() {
                self.step(match place % 3 {
                    0 => Event::Succeeded { attempt },
                    1 => Event::Dropped { attempt },
                    _ => {
                        let kind = CallFailure::Unavailable;
                        Event::Failed { attempt, kind, retry_after: None }
                    }
                });
            }
            self.wait(Duration::from_secs(15));
            self.connect_all();
            self.call(Some(3));
            self.call(None);
        }
        self.step(Event::NetworkDown);
        for conn in std::mem::take(&mut self.up) {
            self.step(Event::Lost { conn, cause: LossCause::Reset });
        }
        self.wait(Duration::from_secs(5));
        self.step(Event::NetworkUp);
        self.step(Event::Load { load: 900_000 });
        self.step(Event::Revive { peer: None });
        for _ in 0..4 {
            self.wait(Duration::from_secs(20));
            self.connect_all();
        }
    }

    /// The state as text, without what counts refusals and moments.
    fn state(&self) -> String {
        let mut state = text::tree(&self.manager.snapshot());
        for counter in ["stats", "run", "now"] {
            assert!(state.as_object_mut().unwrap().remove(counter).is_some());
        }
        state.to_string()
    }
}

fn armed() -> Driver {
    let mut driver = Driver::new(everything());
    driver.arm();
    assert!(driver.up.len() >= 3 && !driver.attempts.is_empty(), "{:?}", driver.manager.stats());
    driver
}

fn ids() -> impl Iterator<Item = u64> {
    (0..200).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63)
}

#[test]
fn a_flood_about_the_unknown_and_the_dead_is_refused_by_name_and_leaves_no_trace() {
    let _alone = alone();
    let mut driver = armed();
    let gone = driver.up[0];
    driver.step(Event::Lost { conn: gone, cause: LossCause::Eof });
    driver.fail_all();
    let (state, ignored) = (driver.state(), driver.manager.stats().ignored);
    let stale = driver.manager.stats().stale;
    let conns = || ids().map(ConnId::from_raw).chain([gone; 50]);
    let mut flood: Vec<(Event, Ignored)> = vec![];
    for conn in conns() {
        let is = Ignored::StaleConn(conn);
        let (leaves_in, reconnect_in) = (Some(Duration::MAX), Duration::MAX);
        let (cause, retry_after) = (DialCause::Throttled, Some(Duration::MAX));
        for event in [
            Event::Connected { conn, resumed: true },
            Event::DialFailed { conn, cause, retry_after },
            Event::Lost { conn, cause: LossCause::Kicked },
            Event::GoAway { conn, leaves_in, reconnect_in },
            Event::Heard { conn },
            Event::Heartbeat { conn },
            Event::Metrics { conn, latency: Duration::MAX, loss: u32::MAX },
        ] {
            flood.push((event, is));
        }
    }
    for id in ids() {
        let (peer, breaker, call) = (PeerId(id), BreakerId(id), CallId(id));
        let (ping, attempt) = (PingId::from_raw(id), AttemptId::from_raw(id));
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
        let retry_after = Some(RetryAfter::After(Duration::MAX));
        let failed = Event::Failed { attempt, kind: CallFailure::Error, retry_after };
        let (profile, known) = (PeerProfileId(0), PeerId(0));
        let add = |profile| Event::AddPeer { peer, profile, endpoints: endpoints.clone() };
        let unknown_peer = [
            Event::SetEndpoints { peer, endpoints: endpoints.clone() },
            Event::RemovePeer { peer },
            Event::Connect { peer },
            Event::Disconnect { peer },
            Event::Revive { peer: Some(peer) },
        ];
        let unknown_breaker = [
            add(profile),
            Event::SetEndpoints { peer: known, endpoints: endpoints.clone() },
            Event::RemoveBreaker { breaker },
            Event::ForceOpen { breaker },
            Event::Disable { breaker },
            Event::WatchOnly { breaker, on: true },
            Event::ResetBreaker { breaker },
        ];
        let stale = [Event::Succeeded { attempt }, failed, Event::Dropped { attempt }];
        flood.extend(unknown_peer.map(|event| (event, Ignored::UnknownPeer(peer))));
        flood.extend(unknown_breaker.map(|event| (event, Ignored::UnknownBreaker(breaker))));
        flood.extend(stale.map(|event| (event, Ignored::StaleAttempt(attempt))));
        flood.push((Event::Pong { ping }, Ignored::StalePing(ping)));
        flood.push((Event::CancelCall { call }, Ignored::UnknownCall(call)));
        flood.push((add(PeerProfileId(u16::MAX)), Ignored::UnknownPeerProfile(peer)));
        let profile = BreakerProfileId(u16::MAX);
        let is = Ignored::UnknownBreakerProfile(breaker);
        flood.push((Event::AddBreaker { breaker, profile }, is));
    }
    driver.check_every = 500;
    let told = flood.len() as u64;
    for (event, is) in flood {
        let text = format!("{event:?}");
        driver.step(event);
        assert_eq!(driver.actions[0], Action::Notice(Notice::Ignored(is)), "{text}");
        // Whoever says that it is up has a socket that nobody wants.
        match (&driver.actions[1..], is) {
            ([], _) => {}
            ([Action::Close { conn }], Ignored::StaleConn(of)) if *conn == of => {}
            (more, _) => panic!("{text}: {more:?}"),
        }
    }
    let stats = driver.manager.stats();
    assert_eq!(stats.ignored + stats.stale - ignored - stale, told);
    assert_eq!(driver.state(), state);
    driver.live();
    assert!(driver.manager.stats().peers.connected >= 8, "{:?}", driver.manager.stats());
}

#[test]
fn what_comes_twice_or_beyond_the_bounds_takes_no_memory() {
    let _alone = alone();
    let mut config = everything();
    (config.limits.max_peers, config.limits.max_breakers) = (10, 3);
    (config.limits.max_endpoints, config.limits.max_calls) = (4, 8);
    let mut driver = Driver::new(config);
    driver.arm();
    let (peer, breaker) = (PeerId(0), BreakerId(0));
    let endpoint = |id: u32| Endpoint { id: EndpointId(id), breaker };
    let absurd: Vec<Endpoint> = (0..100_000).map(endpoint).collect();
    let (profile, guard) = (PeerProfileId(0), BreakerProfileId(0));
    let one = vec![endpoint(0)];
    let twice = vec![endpoint(7), endpoint(7)];
    let flood = vec![
        (Event::AddBreaker { breaker, profile: guard }, Ignored::BreakerExists(breaker)),
        (Event::AddBreaker { breaker: BreakerId(9), profile: guard }, Ignored::TooMany),
        (Event::AddPeer { peer, profile, endpoints: vec![] }, Ignored::PeerExists(peer)),
        (Event::AddPeer { peer: PeerId(99), profile, endpoints: one }, Ignored::TooMany),
        (Event::SetEndpoints { peer, endpoints: vec![] }, Ignored::NoEndpoints(peer)),
        (Event::SetEndpoints { peer, endpoints: twice }, Ignored::DuplicateEndpoint(peer)),
        (Event::SetEndpoints { peer, endpoints: absurd }, Ignored::TooMany),
        (Event::RemoveBreaker { breaker }, Ignored::BreakerInUse(breaker)),
        (Event::Connect { peer }, Ignored::AlreadySo),
        (Event::NetworkUp, Ignored::AlreadySo),
        (Event::Resumed, Ignored::AlreadySo),
    ];
    let state = driver.state();
    driver.check_every = u64::MAX;
    for (event, is) in &flood {
        let bytes = kept(|| {
            for _ in 0..100 {
                driver.step(event.clone());
                assert_eq!(driver.actions, [Action::Notice(Notice::Ignored(*is))]);
            }
        });
        assert!(bytes <= 0, "{is:?} keeps {bytes} bytes");
        assert_eq!(driver.state(), state, "{is:?}");
    }
    driver.manager.check().unwrap();
}

#[test]
fn a_flood_of_calls_is_rejected_and_takes_no_memory() {
    let _alone = alone();
    let mut config = everything();
    config.limits.max_calls = 8;
    let mut driver = Driver::new(config);
    driver.arm();
    while driver.manager.why_call(CallId(driver.calls.wrapping_sub(1))).is_some() {
        driver.call(Some(9));
    }
    driver.check_every = u64::MAX;
    let bytes = kept(|| {
        for _ in 0..1_000 {
            driver.call(Some(9));
            let Some(Action::Reject { reason, .. }) = driver.actions.first() else {
                panic!("{:?}", driver.actions)
            };
            assert_eq!(*reason, RejectReason::TooManyCalls);
        }
    });
    assert!(bytes <= 0, "{bytes} bytes are kept");
    driver.manager.check().unwrap();
}

#[test]
fn ticks_before_the_deadline_do_nothing_and_cost_nothing() {
    let _alone = alone();
    let mut driver = armed();
    driver.settle();
    let until = driver.manager.next_deadline().unwrap();
    let (digest, state) = (driver.manager.run_digest(), driver.state());
    let span = until.since(driver.now) / 30_000;
    driver.check_every = u64::MAX;
    let bytes = kept(|| {
        for _ in 0..333 {
            driver.now += span;
            driver.step(Event::Tick);
            assert_eq!(driver.actions, []);
            assert_eq!(driver.manager.next_deadline(), Some(until));
        }
    });
    assert!(bytes <= 0, "{bytes} bytes are kept");
    assert_eq!((driver.manager.run_digest(), driver.state()), (digest, state));
}

#[test]
fn whatever_is_due_at_once_a_step_does_no_more_than_its_share() {
    let _alone = alone();
    let mut config = everything();
    config.limits.max_work_per_step = 16;
    (config.ping_rate, config.pacer.rate, config.breaker_profiles[0].rate) = (None, None, None);
    let mut driver = Driver::new(config);
    driver.check_every = 257;
    driver.add(3_000);
    while !driver.dials.is_empty() {
        driver.now += Duration::from_millis(1);
        driver.connect_all();
        driver.settle();
    }
    assert_eq!(driver.manager.stats().peers.connected, 3_000);
    // Everybody falls silent, then everybody is lost, breakers open, the network goes and comes.
    driver.now += Duration::from_secs(600);
    driver.settle();
    for conn in std::mem::take(&mut driver.up) {
        driver.step(Event::Lost { conn, cause: LossCause::Reset });
    }
    driver.fail_all();
    for event in [Event::NetworkDown, Event::NetworkUp, Event::Restarted] {
        driver.step(event);
        driver.now += Duration::from_secs(60);
        driver.settle();
        driver.fail_all();
    }
}

/// A moment, and what a driver may do when it is that late.
fn visit(driver: &mut Driver, moment: Time) {
    driver.now = moment;
    driver.settle();
    driver.fail_all();
    for conn in driver.up.clone() {
        driver.step(Event::Heard { conn });
        driver.step(Event::Heartbeat { conn });
    }
    driver.call(Some(1));
    driver.call(None);
    driver.settle();
    driver.connect_all();
    driver.settle();
}

#[test]
fn time_may_jump_to_its_end_and_back_with_everything_armed() {
    let _alone = alone();
    let (year, century) = (Time::ZERO + YEAR, Time::ZERO + 100 * YEAR);
    let (end, last) = (Time::MAX, Time::from_nanos(u64::MAX - 1));
    let almost = last.minus_nanos(1_000_000);
    let journeys: [&[Time]; 9] = [
        &[Time::ZERO],
        &[year],
        &[century],
        &[last],
        &[end],
        &[year, Time::ZERO, century, last, Time::ZERO],
        &[almost, last, end, year],
        &[end, Time::ZERO, end],
        &[last, last, end, end],
    ];
    let armed = armed();
    for journey in journeys {
        let mut driver = armed.clone();
        for &moment in journey {
            visit(&mut driver, moment);
        }
        let restored = Manager::restore(driver.manager.snapshot(), 3).unwrap();
        assert_eq!(restored.state_digest(), driver.manager.state_digest(), "{journey:?}");
    }
}

#[test]
fn a_span_of_any_length_in_an_event_is_taken_for_what_it_is() {
    let _alone = alone();
    let armed = armed();
    let (conn, ping) = (armed.up[0], armed.pings.last().copied());
    let attempt = armed.attempts[0];
    let nanos = Duration::from_nanos;
    for span in [nanos(0), nanos(1), YEAR, nanos(u64::MAX - 1), nanos(u64::MAX), Duration::MAX] {
        let (leaves_in, reconnect_in) = (Some(span), span);
        let retry_after = Some(RetryAfter::After(span));
        let (cause, kind) = (DialCause::Throttled, CallFailure::Throttled);
        let (target, profile) = (Target::Breaker(BreakerId(2)), CallProfileId(0));
        let dialed = || {
            let mut driver = armed.clone();
            driver.wait(Duration::from_secs(30));
            let conn = *driver.dials.last().unwrap();
            (driver, Event::DialFailed { conn, cause, retry_after: Some(span) })
        };
        let mut runs = vec![
            (armed.clone(), Event::Metrics { conn, latency: span, loss: u32::MAX }),
            (armed.clone(), Event::GoAway { conn, leaves_in, reconnect_in }),
            (armed.clone(), Event::GoAway { conn, leaves_in: None, reconnect_in }),
            (armed.clone(), Event::Failed { attempt, kind, retry_after }),
            dialed(),
        ];
        for deadline in [Time::ZERO, armed.now, armed.now + span, Time::MAX] {
            let (call, deadline) = (CallId(u64::MAX), Some(deadline));
            runs.push((armed.clone(), Event::Call { call, target, profile, deadline }));
        }
        runs.extend(ping.map(|ping| {
            let mut late = armed.clone();
            late.now += span;
            (late, Event::Pong { ping })
        }));
        for (mut driver, event) in runs {
            driver.step(event);
            driver.settle();
            driver.live();
        }
    }
}

#[test]
fn a_server_that_says_it_leaves_has_no_say_over_more_than_the_next_hour() {
    let _alone = alone();
    let hour = Duration::from_secs(3_600);
    let mut config = Config::new(1);
    config.peer_profiles[0].failback_after = Some(Duration::from_secs(60));
    for span in [Duration::ZERO, hour, YEAR, Duration::from_nanos(u64::MAX), Duration::MAX] {
        let mut driver = Driver::new(config.clone());
        driver.add(1);
        driver.connect_all();
        let conn = driver.up[0];
        let now = driver.now;
        driver.step(Event::GoAway { conn, leaves_in: Some(span), reconnect_in: span });
        let told = driver.actions.iter().find_map(|action| match action {
            Action::Notice(Notice::Draining { leaves_at, replace_at, .. }) => {
                Some((leaves_at.unwrap(), replace_at.unwrap()))
            }
            _ => None,
        });
        let (leaves_at, replace_at) = told.unwrap();
        assert!(leaves_at <= now + hour && replace_at <= now + hour, "{span:?}: {told:?}");
        // Every ten seconds of the hour its successor may come up, and then the preferred one again.
        let (mut moved, mut back) = (0, 0);
        for _ in 0..720 {
            driver.wait(Duration::from_secs(10));
            driver.connect_all();
            for action in &driver.actions {
                if let Action::Notice(Notice::Moved { cause, .. }) = action {
                    match cause {
                        MoveCause::FailedBack => back += 1,
                        _ => moved += 1,
                    }
                }
            }
        }
        assert_eq!((moved, back), (1, 1), "{span:?}");
    }
}

/// A profile of calls whose breaker counts what hangs before it ends.
fn hanging() -> Config {
    let mut config = Config::new(1);
    let mut calls = BreakerProfile::for_calls();
    let slow_rate = Some(Ratio::percent(50));
    calls.breaker.rates = Some(RateRule { slow_rate, ..RateRule::default() });
    calls.breaker.slow_after = Some(Duration::from_secs(1));
    calls.breaker.slow_in_flight = true;
    config.breaker_profiles.push(calls);
    config.call_profiles = vec![CallProfile::default()];
    config
}

#[test]
fn what_ends_behind_an_attempt_that_hangs_takes_no_memory_though_time_stands() {
    let _alone = alone();
    for without_network in [false, true] {
        let mut driver = Driver::new(hanging());
        let (breaker, profile) = (BreakerId(2), BreakerProfileId(1));
        driver.step(Event::AddBreaker { breaker, profile });
        driver.call(None);
        let hangs = driver.attempts.pop().unwrap();
        if without_network {
            driver.step(Event::NetworkDown);
        }
        driver.check_every = u64::MAX;
        let bytes = kept(|| {
            for _ in 0..1_000 {
                driver.call(None);
                let attempt = driver.attempts.pop().unwrap();
                driver.step(Event::Succeeded { attempt });
            }
        });
        assert!(bytes <= 0, "{bytes} bytes are kept; without a network: {without_network}");
        driver.manager.check().unwrap();
        driver.step(Event::Dropped { attempt: hangs });
    }
}

/// Calls `visit` with the pointer of every number in the tree.
fn numbers(value: &Value, at: &str, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                numbers(field, &format!("{at}/{name}"), visit);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                numbers(item, &format!("{at}/{place}"), visit);
            }
        }
        Value::Number(_) => visit(at),
        _ => {}
    }
}

#[test]
fn a_setting_of_any_size_is_refused_by_its_name_or_costs_no_more_than_another() {
    let _alone = alone();
    let usual = everything();
    assert_eq!(usual.validate(), Ok(()));
    let whole = text::tree_of(&usual);
    let region = Region::new(GLOBAL);
    let mut driver = Driver::new(usual);
    driver.arm();
    driver.live();
    let bound = 8 * region.change().bytes_allocated;
    let mut places = vec![];
    numbers(&whole, "", &mut |at| places.push(at.to_string()));
    let (mut unreadable, mut refused, mut taken) = (0, 0, 0);
    for at in &places {
        for size in [0, 1, u64::from(u32::MAX), u64::MAX] {
            let mut changed = whole.clone();
            *changed.pointer_mut(at).unwrap() = json!(size);
            let Ok(config) = text::read_config(&changed) else {
                assert!(size >= u64::from(u32::MAX), "{at} = {size} cannot be read");
                unreadable += 1;
                continue;
            };
            let region = Region::new(GLOBAL);
            if let Err(error) = config.validate() {
                // By its own name or, of a choice, by that of what is chosen; if it is another one's
                // bound, in what is wrong with that.
                let units = ["secs", "nanos", "numerator", "denominator"];
                // Not the places in lists, of which any number tells.
                let tells = |step: &&str| {
                    !step.is_empty() && !units.contains(step) && step.parse::<u32>().is_err()
                };
                let fields: Vec<&str> = at.split('/').filter(tells).collect();
                let text = error.to_string();
                let named = fields.iter().rev().take(2).any(|field| text.contains(field));
                assert!(named, "{at} = {size}: {error}");
                refused += 1;
            } else {
                let mut driver = Driver::new(config);
                driver.check_every = 7;
                driver.arm();
                driver.live();
                driver.manager.check().unwrap();
                taken += 1;
            }
            let bytes = region.change().bytes_allocated;
            assert!(bytes <= bound, "{at} = {size}: {bytes} bytes, and {bound} are plenty");
        }
    }
    assert!(unreadable > 50 && refused > 50 && taken > 200, "{unreadable} {refused} {taken}");
}
