//! The small world: who is in it, under which settings, and all that can happen next.

use std::time::Duration;

use steadfast::backoff::{BackoffConfig, Jitter};
use steadfast::breaker::BreakerConfig;
use steadfast::budget::BudgetConfig;
use steadfast::bulkhead::BulkheadConfig;
use steadfast::config::{
    BreakerProfile, CallProfile, FirstRetry, GateConfig, NotConnected, PacerConfig, PeerProfile,
};
use steadfast::strategy::{Act, Address, Fact, Op, World, Wrong};
use steadfast::{CallFailure, Config, DialCause, LossCause, Manager, Ratio};

/// All spans are whole seconds and nothing is left to chance, so that a state comes again; and all
/// is so narrow that two peers and one call reach each bound.
fn config() -> Config {
    let secs = Duration::from_secs;
    let backoff = BackoffConfig {
        base: secs(1),
        factor: Ratio::new(2, 1),
        cap: secs(2),
        jitter: Jitter::None,
        min_delay: None,
    };
    let peers = PeerProfile {
        backoff,
        slow_lane: 1,
        first_retry: FirstRetry::Backoff,
        dial_timeout: secs(2),
        failover_timeout: secs(1),
        max_dial_timeout: secs(2),
        attempt_delay: secs(1),
        stable_after: secs(1),
        failback_after: None,
        ..PeerProfile::default()
    };
    let breakers = BreakerProfile {
        breaker: BreakerConfig {
            consecutive_failures: Some(2),
            open_for: backoff,
            stable_after: secs(1),
            probes: 1,
            close_after: 1,
            tolerate: 0,
            probe_timeout: Some(secs(3)),
            ..BreakerConfig::for_dials()
        },
        max_in_flight: 1,
        window: None,
        calls: GateConfig {
            bulkhead: BulkheadConfig { max_concurrent: 1, max_waiting: 1, max_wait: Some(secs(1)) },
            budget: Some(one_token()),
            ..GateConfig::default()
        },
        ..BreakerProfile::default()
    };
    let calls = CallProfile {
        max_attempts: 2,
        attempt_timeout: secs(2),
        deadline: Some(secs(4)),
        backoff,
        not_connected: NotConnected::Wait,
        max_wait: secs(2),
        ..CallProfile::default()
    };
    let mut config = Config::new(1);
    config.pacer = PacerConfig { max_in_flight: 1, ..PacerConfig::default() };
    config.self_health = None;
    config.mass_guard = None;
    config.peer_profiles = vec![peers];
    config.breaker_profiles = vec![breakers];
    config.call_profiles = vec![calls];
    config
}

/// Each success earns the one token that a retry costs.
fn one_token() -> BudgetConfig {
    BudgetConfig { ratio: Ratio::new(1, 1), capacity: 1, initial: 1, refund: true, reserve: None }
}

const NOW: Duration = Duration::ZERO;

/// Two peers with two endpoints each, all behind the one breaker, which guards the call as well.
pub(crate) fn beginning() -> World {
    let mut world = World::new(Manager::new(config(), 7).unwrap());
    let addresses = [0, 1].map(|id| Address { id, breaker: 0 });
    let mut told = vec![Act::AddBreaker { breaker: 0, profile: 0 }];
    for peer in [0, 1] {
        told.push(Act::AddPeer { peer, profile: 0, endpoints: addresses.to_vec() });
    }
    told.extend([0, 1].map(|peer| Act::Connect { peer }));
    told.into_iter().for_each(|act| _ = world.play(&Op { after: NOW, act }));
    world
}

/// Which kinds of events there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    All,
    /// No calls, nobody changes his mind, and the process lives.
    Dials,
}

/// Everything that can happen at this moment. The peers are alike, so it is enough that one of them
/// changes its mind and the other one has calls.
fn acts(cast: Cast, world: &World) -> Vec<Act> {
    let mut acts = vec![Act::NetworkDown, Act::NetworkUp];
    for dial in 0..count(world.dialing()) {
        acts.push(Act::Connected { dial, resumed: false });
        acts.push(Act::DialFailed { dial, cause: DialCause::Refused, retry_after: None });
    }
    for conn in 0..count(world.up()) {
        acts.push(Act::Lost { conn, cause: LossCause::Reset });
    }
    if cast == Cast::Dials {
        return acts;
    }
    acts.extend([Act::Connect { peer: 1 }, Act::Disconnect { peer: 1 }, Act::Restarted]);
    if world.calls().next().is_none() {
        for peer in [None, Some(0)] {
            acts.push(Act::Call { peer, breaker: 0, profile: 0, within: None });
        }
    } else {
        acts.push(Act::CancelCall { call: 0 });
    }
    for attempt in 0..u8::try_from(world.attempts().count()).unwrap() {
        let kind = CallFailure::Error;
        acts.push(Act::Succeeded { attempt });
        acts.push(Act::Failed { attempt, kind, retry_after: None });
        acts.push(Act::Dropped { attempt });
    }
    acts
}

impl Cast {
    /// All moves: each act now, and at the moment of the next deadline before the timers of that moment;
    /// these timers alone; and a driver that comes back a second late.
    pub(crate) fn moves(self, world: &World) -> Vec<Op> {
        let acts = acts(self, world);
        let mut moves: Vec<Op> = acts.iter().cloned().map(|act| Op { after: NOW, act }).collect();
        if let Some(due) = world.manager().next_deadline() {
            let after = due.since(world.now());
            if !after.is_zero() {
                moves.extend(acts.into_iter().map(|act| Op { after, act }));
            }
            moves.push(Op { after, act: Act::Tick });
            let late = Duration::from_secs(1);
            moves.push(Op { after: NOW, act: Act::Oversleep { late } });
        }
        moves
    }
}

/// What no driver would say, and what must change nothing.
pub(crate) fn wrongs() -> Vec<Act> {
    let mut wrongs = Vec::new();
    for conn in 0..3 {
        for fact in [Fact::Connected, Fact::DialFailed, Fact::Lost, Fact::Heard, Fact::GoAway] {
            wrongs.push(Wrong::Dead { conn, fact });
        }
    }
    for succeeded in [true, false] {
        wrongs.push(Wrong::DeadAttempt { attempt: 0, succeeded });
    }
    wrongs.push(Wrong::Backwards { by: Duration::from_secs(3) });
    wrongs.into_iter().map(Act::Wrong).collect()
}

/// From here on all goes well, one thing after the other; `None` when nothing is left to do.
pub(crate) fn good(world: &World) -> Option<Op> {
    let act = |act| Some(Op { after: NOW, act });
    if !world.dialing().is_empty() {
        return act(Act::Connected { dial: 0, resumed: false });
    }
    if world.attempts().next().is_some() {
        return act(Act::Succeeded { attempt: 0 });
    }
    let due = world.manager().next_deadline()?;
    Some(Op { after: due.since(world.now()), act: Act::Tick })
}

fn count<T>(of: &[T]) -> u8 {
    u8::try_from(of.len()).unwrap()
}
