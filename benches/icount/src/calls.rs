//! A call through a breaker, a bulkhead, a rate and a retry budget, with a deadline.

use std::time::Duration;

use steadfast::backoff::{BackoffConfig, Jitter};
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::config::BreakerProfile;
use steadfast::{
    Action, AttemptId, BreakerId, CallFailure, CallId, CallProfileId, Config, Event, Manager,
    Target, Time,
};

const BREAKER: BreakerId = BreakerId(1);

struct Caller {
    manager: Manager,
    now: Time,
    actions: Vec<Action>,
    calls: u64,
}

impl Caller {
    fn new() -> Self {
        let mut config = Config::new(1);
        let mut guard = BreakerProfile::for_calls();
        guard.breaker.consecutive_failures = Some(1_000);
        guard.calls.rate =
            Some(BucketConfig { rate: Rate::per_second(1_000_000_000), burst: 1_000 });
        if let Some(budget) = &mut guard.calls.budget {
            budget.initial = budget.capacity;
        }
        config.breaker_profiles.push(guard);
        // A retry goes out in the step in which the first attempt failed.
        config.call_profiles[0].backoff = BackoffConfig {
            jitter: Jitter::None,
            base: Duration::ZERO,
            cap: Duration::ZERO,
            ..BackoffConfig::default()
        };
        let profile = config.breaker_profile("calls").unwrap();
        let manager = Manager::new(config, 2).unwrap();
        let mut caller = Self { manager, now: Time::ZERO, actions: Vec::new(), calls: 0 };
        caller.step(Event::AddBreaker { breaker: BREAKER, profile });
        caller
    }

    fn step(&mut self, event: Event) {
        self.manager.step_into(event, self.now, &mut self.actions);
    }

    fn call(&mut self) {
        self.now = self.now.plus_nanos(100);
        self.calls += 1;
        self.actions.clear();
        self.step(Event::Call {
            call: CallId(self.calls),
            target: Target::Breaker(BREAKER),
            profile: CallProfileId(0),
            deadline: Some(Time::MAX),
        });
    }

    fn attempt(&self) -> AttemptId {
        match self.actions.last() {
            Some(Action::StartAttempt { attempt, .. }) => *attempt,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn ok(n: u64) {
    let mut caller = Caller::new();
    for _ in 0..n {
        caller.call();
        let attempt = caller.attempt();
        caller.step(Event::Succeeded { attempt });
    }
    assert_eq!(caller.manager.stats().calls_done, n);
}

pub(crate) fn retried(n: u64) {
    let mut caller = Caller::new();
    for _ in 0..n {
        caller.call();
        let (attempt, kind) = (caller.attempt(), CallFailure::Error);
        caller.step(Event::Failed { attempt, kind, retry_after: None });
        let attempt = caller.attempt();
        caller.step(Event::Succeeded { attempt });
    }
    assert_eq!(caller.manager.stats().retries, n);
}

pub(crate) fn rejected(n: u64) {
    let mut caller = Caller::new();
    caller.step(Event::ForceOpen { breaker: BREAKER });
    for _ in 0..n {
        caller.call();
    }
    assert_eq!(caller.manager.stats().attempts, 0);
}
