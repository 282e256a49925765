//! Random scripts against a naive model, and managers that must not differ against each other.
//!
//! `PROPTEST_CASES=100000 cargo test --release --test model` for a long run. A failure leaves its
//! seed in `proptest-regressions/model.txt`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

mod calls;
mod lines;
mod reference;
#[path = "../golden/render.rs"]
mod render;
#[path = "../golden/story.rs"]
mod story;
#[path = "../golden/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use reference::Model;
use steadfast::backoff::{BackoffConfig, Jitter};
use steadfast::breaker::{BreakerConfig, RateRule, State};
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::budget::BudgetConfig;
use steadfast::bulkhead::BulkheadConfig;
use steadfast::config::{
    BreakerProfile, CallProfile, Detector, FirstRetry, GateConfig, HealthConfig, MassGuardConfig,
    NotConnected, OnSuspect, OpenOn, PeerProfile, Priority, Signs,
};
use steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast::limit::LimitConfig;
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;
use steadfast::self_health::SelfHealthConfig;
use steadfast::strategy::{Act, Op, Script, Shape, Step, World, Wrong};
use steadfast::throttle::ThrottleConfig;
use steadfast::window::Span;
use steadfast::{
    Action, AttemptId, Breach, BreakerId, CallFailure, CallId, CallProfileId, Config, Event,
    Ledger, Manager, Notice, Ratio, Target, Time,
};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model.txt");

/// As many cases as `PROPTEST_CASES` says, 256 if it says nothing.
fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        // Down to a few lines.
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

/// Small limits and short spans, so that scripts of a minute reach all of them; one profile of
/// each kind.
fn config() -> Config {
    let (ms, secs) = (Duration::from_millis, Duration::from_secs);
    let backoff = BackoffConfig { base: ms(500), cap: secs(8), ..BackoffConfig::default() };
    let plain = PeerProfile {
        backoff,
        dial_timeout: secs(3),
        failover_timeout: secs(1),
        max_dial_timeout: secs(6),
        stable_after: secs(2),
        failback_after: Some(secs(4)),
        session_ttl: Some(secs(5)),
        inbound: true,
        ..PeerProfile::default()
    };
    let probe = ProbeConfig {
        interval: secs(1),
        timeout: ms(700),
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        spread: true,
    };
    let pings = PeerProfile {
        name: "pings".into(),
        health: HealthConfig {
            signs: Signs::Pings(probe),
            detector: Detector::Deadline(secs(4)),
            max_latency: Some(secs(2)),
            max_loss: Some(100_000),
            ..HealthConfig::default()
        },
        ..plain.clone()
    };
    let phi = PeerProfile {
        name: "phi".into(),
        first_retry: FirstRetry::Immediate,
        backoff: BackoffConfig { jitter: Jitter::Equal, ..backoff },
        health: HealthConfig {
            signs: Signs::Heartbeats,
            detector: Detector::Phi(PhiConfig { acceptable_pause: secs(1), ..Default::default() }),
            on_suspect: OnSuspect::Notify,
            ..HealthConfig::default()
        },
        ..plain.clone()
    };
    let asked = PeerProfile {
        name: "asked".into(),
        priority: Priority::Background,
        health: HealthConfig { on_suspect: OnSuspect::Notify, ..pings.health },
        ..plain.clone()
    };
    let raced = PeerProfile {
        name: "raced".into(),
        health: HealthConfig { on_suspect: OnSuspect::Race, ..pings.health },
        ..plain.clone()
    };
    let quitter = PeerProfile {
        name: "quitter".into(),
        priority: Priority::Important,
        first_retry: FirstRetry::Backoff,
        backoff: BackoffConfig { jitter: Jitter::Decorrelated, ..backoff },
        max_attempts: Some(3),
        give_up_after: Some(secs(12)),
        inbound: false,
        health: HealthConfig {
            signs: Signs::Heartbeats,
            detector: Detector::Deadline(secs(3)),
            ..HealthConfig::default()
        },
        ..plain.clone()
    };
    let narrow = BreakerProfile {
        breaker: BreakerConfig { consecutive_failures: Some(2), ..BreakerConfig::for_dials() },
        max_in_flight: 2,
        window: Some(LimitConfig { initial: 1, min: 1, max: 3, ..LimitConfig::default() }),
        adaptive: true,
        ..BreakerProfile::default()
    };
    let paced = BreakerProfile {
        name: "paced".into(),
        breaker: BreakerConfig {
            consecutive_failures: Some(3),
            rates: Some(RateRule {
                window: Span::Count(8),
                min_calls: 4,
                slow_rate: Some(Ratio::percent(75)),
                ..RateRule::default()
            }),
            slow_after: Some(secs(1)),
            slow_in_flight: true,
            ramp_for: Some(secs(3)),
            probes: 2,
            close_after: 1,
            tolerate: 0,
            ..BreakerConfig::for_dials()
        },
        rate: Some(BucketConfig { rate: Rate::per_second(1), burst: 2 }),
        common_refusals: false,
        ..BreakerProfile::default()
    };
    let narrow = BreakerProfile { calls: tight_gates(), ..narrow };
    let paced = BreakerProfile { calls: adaptive_gates(), ..paced };
    let mut config = Config::new(42);
    config.limits.max_calls = 6;
    config.call_profiles = call_profiles();
    config.limits.max_peers = 5;
    config.limits.max_breakers = 3;
    config.pacer.max_in_flight = 4;
    config.pacer.fleet_size = 2;
    config.pacer.rate = Some(BucketConfig { rate: Rate::per_second(4), burst: 6 });
    config.ping_rate = Some(BucketConfig { rate: Rate::per_second(3), burst: 3 });
    // The model knows when we were late, and not who was mistaken.
    config.self_health = Some(SelfHealthConfig { min_mistakes: 1_000, ..Default::default() });
    config.mass_guard = Some(MassGuardConfig {
        min_peers: 2,
        min_silent: 1,
        believe_for: secs(8),
        ..MassGuardConfig::default()
    });
    config.peer_profiles = vec![plain, pings, phi, asked, raced, quitter];
    config.breaker_profiles = vec![narrow, paced];
    config
}

/// Two at once and three in line, one more each second, and few retries.
fn tight_gates() -> GateConfig {
    GateConfig {
        bulkhead: BulkheadConfig {
            max_concurrent: 2,
            max_waiting: 3,
            max_wait: Some(Duration::from_secs(2)),
        },
        rate: Some(BucketConfig { rate: Rate::per_second(1), burst: 2 }),
        budget: Some(BudgetConfig { initial: 3, ..BudgetConfig::default() }),
        hedge: Some(HedgeConfig {
            delay: HedgeDelay::After(Duration::from_millis(800)),
            max_hedges: 2,
        }),
        open_on: vec![OpenOn { kind: CallFailure::Unavailable, open_for: Duration::from_secs(3) }],
        ..GateConfig::default()
    }
}

/// A limit that moves, and a throttle.
fn adaptive_gates() -> GateConfig {
    GateConfig {
        bulkhead: BulkheadConfig { max_concurrent: 6, max_waiting: 1, max_wait: None },
        limit: Some(LimitConfig { initial: 2, max: 4, ..LimitConfig::default() }),
        throttle: Some(ThrottleConfig {
            window: Duration::from_secs(5),
            padding: 1,
            ..ThrottleConfig::default()
        }),
        budget: Some(BudgetConfig { capacity: 2, initial: 2, ..BudgetConfig::default() }),
        ..GateConfig::default()
    }
}

fn call_profiles() -> Vec<CallProfile> {
    let secs = Duration::from_secs;
    let plain = CallProfile {
        attempt_timeout: secs(2),
        deadline: Some(secs(10)),
        max_retry_after: secs(15),
        max_wait: secs(6),
        ..CallProfile::default()
    };
    let hedged = CallProfile {
        name: "hedged".into(),
        hedged: true,
        max_attempts: 4,
        min_attempt: Duration::from_millis(20),
        backoff: BackoffConfig { jitter: Jitter::Decorrelated, ..plain.backoff },
        not_connected: NotConnected::Connect,
        ..plain.clone()
    };
    let endless = CallProfile {
        name: "endless".into(),
        deadline: None,
        retry_on: vec![CallFailure::Error],
        ..plain.clone()
    };
    vec![plain, hedged, endless, CallProfile::fail_fast()]
}

fn shape() -> Shape {
    Shape {
        peers: 5,
        breakers: 2,
        peer_profiles: 6,
        breaker_profiles: 2,
        call_profiles: 4,
        lines: 1..=120,
        longest: Duration::from_secs(9),
        ..Shape::default()
    }
}

/// Scripts of a driver that is never late and does not tick of its own accord, but may be wrong
/// otherwise: what it does does not depend on when it wakes.
fn punctual() -> impl Strategy<Value = Script> {
    shape().script().prop_map(|mut script| {
        let is_late = |act: &Act| {
            matches!(act, Act::Tick | Act::Oversleep { .. } | Act::Wrong(Wrong::Backwards { .. }))
        };
        script.retain(|op| !is_late(&op.act));
        apart(script)
    })
}

/// One fact a moment: between two of one moment a driver must not tick, for that would judge before
/// the second was fed.
fn apart(mut script: Script) -> Script {
    for op in &mut script {
        op.after = op.after.max(Duration::from_nanos(1));
    }
    script
}

fn play(script: &Script, config: Config) -> (World, Vec<Step>) {
    let mut world = World::new(Manager::new(config, 7).unwrap());
    let mut steps = Vec::new();
    for op in script {
        steps.extend(world.play(op));
    }
    steps.extend(world.wait(Duration::from_secs(20)));
    (world, steps)
}

/// Everything that was done, and when.
fn deeds(steps: &[Step]) -> Vec<(Time, Action)> {
    let of = |step: &Step| {
        let at = step.at;
        step.actions.clone().into_iter().map(move |action| (at, action))
    };
    steps.iter().flat_map(of).collect()
}

/// What the driver told, without its ticks.
fn told(steps: &[Step]) -> impl Iterator<Item = (Time, &Event)> {
    let told = steps.iter().filter(|step| step.event != Event::Tick);
    told.map(|step| (step.at, &step.event))
}

/// Steps a manager through what another one was told, ticking at each deadline; `before` is called
/// before each event and may do something else.
fn replay(
    mut manager: Manager,
    steps: &[Step],
    mut before: impl FnMut(&mut Manager, Time, &mut Vec<(Time, Action)>),
) -> (Manager, Vec<(Time, Action)>) {
    let mut done = Vec::new();
    for (at, event) in told(steps) {
        tick_until(&mut manager, at, &mut done);
        before(&mut manager, at, &mut done);
        step(&mut manager, event.clone(), at, &mut done);
        // What was too much for one step is done before time goes on.
        while manager.next_deadline() == Some(at) {
            step(&mut manager, Event::Tick, at, &mut done);
        }
    }
    let end = steps.last().map_or(Time::ZERO, |step| step.at);
    tick_until(&mut manager, end.plus_nanos(1), &mut done);
    (manager, done)
}

fn tick_until(manager: &mut Manager, until: Time, done: &mut Vec<(Time, Action)>) {
    while let Some(due) = manager.next_deadline().filter(|&due| due < until) {
        step(manager, Event::Tick, due, done);
    }
}

fn step(manager: &mut Manager, event: Event, at: Time, done: &mut Vec<(Time, Action)>) {
    done.extend(manager.step(event, at).into_iter().map(|action| (at, action)));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_step_is_one_that_a_naive_model_allows(
        script in shape().script(),
    ) {
        let mut config = config();
        // The model knows no rates and nothing slow; the breaker's own tests have one that does.
        let breaker = &mut config.breaker_profiles[1].breaker;
        (breaker.rates, breaker.slow_after, breaker.slow_in_flight) = (None, None, false);
        let mut world = World::new(Manager::new(config.clone(), 7)?);
        let mut model = Model::new(config.clone());
        let mut verdict = Ok(());
        for (line, op) in script.iter().enumerate() {
            world.play_watched(op, |manager, step| {
                if verdict.is_ok() {
                    verdict = manager.check().map_err(|violation| violation.to_string());
                    verdict = verdict.clone().and_then(|()| model.follow(&step, manager));
                    verdict = verdict.clone().map_err(|problem| {
                        format!("line {line}, {} {:?}: {problem}\n{:?}", step.at, step.event, step.actions)
                    });
                }
            });
            // As a story that can be kept among the golden ones.
            let story = || lines::lines(&script[..=line], &config);
            prop_assert!(verdict.is_ok(), "{}\n\n{}", verdict.unwrap_err(), story());
        }
    }

    #[test]
    fn a_script_written_as_a_story_is_the_same_run(script in shape().script()) {
        let (world, _) = play(&script, config());
        // To the end of the 20 s that `play` waits.
        let lines = lines::lines(&script, &config()) + "+20s pass";
        let (timeline, manager) = story::play(config(), &lines);
        prop_assert_eq!(manager.run_digest(), world.manager().run_digest(), "{}", timeline);
        prop_assert_eq!(manager.state_digest(), world.manager().state_digest());
    }

    #[test]
    fn half_open_never_admits_more_than_its_probes_and_leaks_no_permit(script in probing()) {
        let breaker = BreakerId(0);
        let mut world = World::new(Manager::new(probed(), 7)?);
        let mut out = None;
        for op in &script {
            let mut most = 0;
            world.play_watched(op, |_, step| follow_probes(&step, &mut out, &mut most));
            prop_assert!(most <= 2, "{} probes are out after {:?}", most, op);
            world.manager().check()?;
        }
        world.heal(Duration::from_secs(60));
        let view = world.manager().gates(breaker).unwrap();
        prop_assert_eq!((view.calls, view.running, view.waiting), (0, 0, 0));
        // Also where nobody came to probe: two probes close it.
        for name in 0..2 {
            let call = CallId(u64::MAX - name);
            let (target, profile) = (Target::Breaker(breaker), CallProfileId(0));
            let step = world.tell(Event::Call { call, target, profile, deadline: None });
            let started = step.actions.iter().find_map(|action| match action {
                Action::StartAttempt { attempt, .. } => Some(*attempt),
                _ => None,
            });
            prop_assert!(started.is_some(), "{:?}", step);
            world.tell(Event::Succeeded { attempt: started.unwrap() });
        }
        prop_assert_eq!(world.manager().breaker_state(breaker), Some(State::Closed));
    }

    #[test]
    fn everybody_is_back_and_every_call_over_once_the_faults_stop(script in shape().script()) {
        let mut config = config();
        // The quitter gives up for good.
        config.peer_profiles.truncate(4);
        let (mut world, _) = play(&script, config);
        // A hint of 300 s, a slow lane of 80 s and open breakers are the longest ways back.
        let mut steps = world.heal(Duration::from_secs(500));
        let peers = world.manager().stats().peers;
        prop_assert_eq!(peers.connecting + peers.reconnecting + peers.failed, 0, "{:?}", steps.pop());
        // And no call is forgotten, nor anything that it held.
        let stats = world.manager().stats();
        prop_assert_eq!((stats.calls_now.total(), stats.attempts_in_flight), (0, 0));
    }

    #[test]
    fn the_ledger_accuses_a_driver_of_what_it_did_wrong_and_of_nothing_else(
        script in shape().script(),
    ) {
        let mut world = World::new(Manager::new(config(), 7)?);
        let mut ledger = Ledger::new();
        for op in &script {
            let mut verdicts = Vec::new();
            world.play_watched(op, |manager, step| {
                let next = manager.next_deadline();
                verdicts.push((ledger.observe(&step.event, &step.actions, step.at, next), step));
            });
            for (verdict, step) in verdicts {
                prop_assert_eq!(verdict.is_err(), step.breach, "{:?} for {:?}", verdict, step);
            }
        }
    }

    #[test]
    fn an_exact_ledger_accuses_whoever_oversleeps(script in shape().script()) {
        let mut world = World::new(Manager::new(config(), 7)?);
        let mut ledger = Ledger::exact();
        for op in &script {
            let mut overslept = false;
            let promised = world.manager().next_deadline();
            world.play_watched(op, |manager, step| {
                let next = manager.next_deadline();
                let verdict = ledger.observe(&step.event, &step.actions, step.at, next);
                overslept |= matches!(verdict, Err(Breach::Overslept { .. }));
            });
            let late = matches!(op.act, Act::Oversleep { .. }) && promised.is_some();
            prop_assert_eq!(overslept, late, "{:?}", op);
        }
    }

    #[test]
    fn a_run_that_begins_later_goes_through_the_same_shapes(
        script in shape().script(),
        seconds in 1..100_000_u64,
    ) {
        let mut worlds = [1, 1 + seconds].map(|begins| {
            let mut world = World::new(Manager::new(config(), 7).unwrap());
            world.wait(Duration::from_secs(begins));
            world
        });
        for op in &script {
            let [now, later] = worlds.each_mut().map(|world| {
                world.play(op);
                world.manager().shape_digest()
            });
            prop_assert_eq!(now, later, "{:?}", op);
        }
    }

    #[test]
    fn ticks_at_random_moments_change_nothing(
        script in punctual(),
        moments in prop::collection::vec(any::<u64>(), 1..50),
    ) {
        let (world, steps) = play(&script, config());
        let mut moments = moments.iter().cycle();
        let mut last = Time::ZERO;
        let (twin, done) = replay(Manager::new(config(), 7)?, &steps, |_, _, _| {});
        prop_assert_eq!(&done, &deeds(&steps));
        let (ticked, done) = replay(Manager::new(config(), 7)?, &steps, |manager, at, done| {
            // Strictly before the event, which would otherwise be too late for the tick.
            let gap = at.as_nanos() - manager.now().max(last).as_nanos();
            last = at;
            if gap > 1 {
                let moment = manager.now().plus_nanos(moments.next().unwrap() % gap);
                step(manager, Event::Tick, moment, done);
                step(manager, Event::Tick, moment, done);
            }
        });
        prop_assert_eq!(done, deeds(&steps));
        for manager in [&twin, &ticked] {
            prop_assert_eq!(manager.run_digest(), world.manager().run_digest());
        }
        prop_assert_eq!(twin.state_digest(), world.manager().state_digest());
    }

    #[test]
    fn a_restored_manager_goes_on_as_the_original_would_have(
        script in punctual(),
        places in prop::collection::btree_set(0..150_usize, 1..6),
    ) {
        let (world, steps) = play(&script, config());
        let mut place = 0;
        let (twin, done) = replay(Manager::new(config(), 7)?, &steps, |manager, _, _| {
            if places.contains(&place) {
                let text = text::written(&manager.snapshot());
                let restored = Manager::restore(text::read(&text).unwrap(), 99).unwrap();
                assert_eq!(restored.state_digest(), manager.state_digest());
                assert_eq!(restored.shape_digest(), manager.shape_digest());
                *manager = restored;
            }
            place += 1;
        });
        prop_assert_eq!(done, deeds(&steps));
        prop_assert_eq!(twin.state_digest(), world.manager().state_digest());
        prop_assert_eq!(twin.run_digest(), world.manager().run_digest());
    }

    #[test]
    fn the_hash_key_changes_nothing(script in shape().script(), key in any::<u64>()) {
        let (world, steps) = play(&script, config());
        let mut other = Manager::new(config(), key)?;
        for step in &steps {
            prop_assert_eq!(&other.step(step.event.clone(), step.at), &step.actions);
        }
        prop_assert_eq!(other.state_digest(), world.manager().state_digest());
        prop_assert_eq!(other.run_digest(), world.manager().run_digest());
    }

    #[test]
    fn a_small_budget_splits_the_work_and_reorders_nothing(script in crowd()) {
        let (mut large, mut small) = (config(), config());
        for config in [&mut large, &mut small] {
            config.limits.max_peers = 100;
            config.pacer.max_in_flight = 50;
            config.pacer.rate = None;
            config.breaker_profiles[0].max_in_flight = 40;
            config.breaker_profiles[1].rate = None;
        }
        small.limits.max_work_per_step = 16;
        let (world, steps) = play(&script, large);
        let (split, done) = replay(Manager::new(small, 7)?, &steps, |_, _, _| {});
        prop_assert_eq!(done, deeds(&steps));
        prop_assert_eq!(split.run_digest(), world.manager().run_digest());
    }

    #[test]
    fn the_end_of_time_is_survived(script in shape().script(), left in 0..40_u64) {
        let mut world = World::new(Manager::new(config(), 7)?);
        let long = Duration::from_nanos(u64::MAX) - Duration::from_secs(left);
        world.play(&Op { after: long, act: Act::Tick });
        for op in &script {
            world.play(op);
            world.manager().check()?;
        }
    }

    #[test]
    fn one_seed_gives_one_run(script in shape().script()) {
        let (one, steps) = play(&script, config());
        let (other, again) = play(&script, config());
        prop_assert_eq!(steps, again);
        prop_assert_eq!(one.manager().state_digest(), other.manager().state_digest());
    }
}

/// Which probes are out after the step's event and each action, and how many at most. `None` unless
/// half-open.
fn follow_probes(step: &Step, out: &mut Option<BTreeSet<AttemptId>>, most: &mut usize) {
    if let Event::Succeeded { attempt } | Event::Failed { attempt, .. } | Event::Dropped { attempt } =
        &step.event
        && let Some(out) = out
    {
        out.remove(attempt);
    }
    let cancelled = step.actions.iter().filter_map(|action| match action {
        Action::CancelAttempt { attempt } => Some(attempt),
        _ => None,
    });
    if let Some(out) = out {
        // The breaker gives up a probe just before its attempt is cancelled, in the same step.
        cancelled.for_each(|attempt| _ = out.remove(attempt));
    }
    for action in &step.actions {
        match (action, &mut *out) {
            // Whatever began under another state is no probe of this period.
            (Action::Notice(Notice::Breaker { to, .. }), out) => {
                *out = (*to == State::HalfOpen).then(BTreeSet::new);
            }
            (Action::StartAttempt { attempt, .. }, Some(out)) => {
                out.insert(*attempt);
            }
            _ => {}
        }
        *most = (*most).max(out.as_ref().map_or(0, BTreeSet::len));
    }
}

/// Calls against one breaker that is soon half-open, and nothing else.
fn probing() -> impl Strategy<Value = Script> {
    use CallFailure::{Error, Invalid, Local, Timeout, Unavailable};
    let kind = prop::sample::select(vec![Error, Timeout, Unavailable, Invalid, Local]);
    let within = prop::option::of((1..4_000_u64).prop_map(Duration::from_millis));
    let act = prop_oneof![
        8 => (0..2_u8, within).prop_map(|(profile, within)| Act::Call {
            peer: None, breaker: 0, profile, within
        }),
        3 => any::<u8>().prop_map(|call| Act::CancelCall { call }),
        3 => any::<u8>().prop_map(|attempt| Act::Dropped { attempt }),
        3 => any::<u8>().prop_map(|attempt| Act::Succeeded { attempt }),
        6 => (any::<u8>(), kind).prop_map(|(attempt, kind)| Act::Failed {
            attempt, kind, retry_after: None
        }),
        1 => Just(Act::NetworkDown),
        1 => Just(Act::NetworkUp),
        1 => Just(Act::ResetBreaker { breaker: 0 }),
        1 => (1..3_000_u64).prop_map(|ms| Act::Oversleep { late: Duration::from_millis(ms) }),
    ];
    let after = prop_oneof![2 => Just(0), 2 => 1..40_u64, 1 => 1..1_500_u64];
    let op = (after, act).prop_map(|(ms, act)| Op { after: Duration::from_millis(ms), act });
    prop::collection::vec(op, 1..=150).prop_map(|mut script| {
        script.insert(
            0,
            Op { after: Duration::ZERO, act: Act::AddBreaker { breaker: 0, profile: 0 } },
        );
        script
    })
}

/// Two probes, open for a twentieth of a second at first, and gates that are hardly in the way.
fn probed() -> Config {
    let ms = Duration::from_millis;
    let mut config = Config::new(42);
    config.breaker_profiles = vec![BreakerProfile {
        breaker: BreakerConfig {
            consecutive_failures: Some(2),
            open_for: BackoffConfig { base: ms(50), cap: ms(400), ..BackoffConfig::default() },
            probes: 2,
            close_after: 2,
            tolerate: 1,
            ..BreakerConfig::default()
        },
        calls: GateConfig {
            bulkhead: BulkheadConfig { max_concurrent: 4, max_waiting: 4, max_wait: None },
            budget: None,
            hedge: Some(HedgeConfig { delay: HedgeDelay::After(ms(30)), max_hedges: 2 }),
            ..GateConfig::default()
        },
        ..BreakerProfile::for_calls()
    }];
    let plain = CallProfile { attempt_timeout: ms(900), ..CallProfile::default() };
    let hedged = CallProfile { name: "hedged".into(), hedged: true, ..plain.clone() };
    config.call_profiles = vec![plain, hedged];
    config
}

/// Enough peers for more work than a small budget has.
fn crowd() -> impl Strategy<Value = Script> {
    let crowd = Shape { peers: 60, faulty_driver: false, lines: 1..=80, ..shape() };
    crowd.script().prop_map(|mut script| {
        script.retain(|op| op.act != Act::Tick);
        apart(script)
    })
}

/// A model test is worth what its scripts reach.
#[test]
fn the_scripts_reach_every_kind_of_action_notice_and_refusal() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..5_000 {
        let script = shape().script().new_tree(&mut runner).unwrap().current();
        let (_, steps) = play(&script, config());
        for action in steps.iter().flat_map(|step| &step.actions) {
            // The variants' names, down to the first that carries something else; and the reasons.
            let text = format!("{action:?}");
            let names = text.split(['(', ')', '{']).map(str::trim);
            let names = names.take_while(|name| name.chars().all(char::is_alphabetic));
            let name = names.take(3).collect::<Vec<_>>().join(" ");
            reached.insert(match action {
                Action::Reject { reason, .. } => format!("{name} {reason:?}"),
                Action::GiveUp { reason, .. } => format!("{name} {reason:?}"),
                Action::Notice(Notice::CallWaits { on, .. }) => format!("{name} {on:?}"),
                Action::Notice(Notice::Moved { cause, .. }) => format!("{name} {cause:?}"),
                _ => name,
            });
        }
    }
    insta::assert_snapshot!(reached.into_iter().collect::<Vec<_>>().join("\n"));
}
