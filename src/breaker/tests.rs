use super::config::MIN_TIME;
use super::*;
use crate::backoff::{BackoffConfig, Jitter};
use crate::window::Span;
use alloc::string::String;
use core::fmt::Write;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A breaker with its policy, its draws and a clock, so that tests read as prose.
struct Bench {
    policy: BreakerPolicy,
    breaker: Breaker,
    draws: Draws,
    now: Time,
}

impl Bench {
    fn new(config: BreakerConfig) -> Self {
        let policy = config.validate().unwrap();
        let breaker = Breaker::new(&policy, Time::ZERO);
        Self { policy, breaker, draws: Draws::new(1, 1), now: Time::ZERO }
    }

    fn permit(&mut self) -> Permit {
        match self.breaker.admit(&self.policy, self.now) {
            Admission::Admit(permit) => permit,
            refused => panic!("{refused:?} in {:?}", self.breaker),
        }
    }

    fn refused(&mut self) -> Option<Time> {
        assert!(!self.breaker.has_room(&self.policy));
        match self.breaker.admit(&self.policy, self.now) {
            Admission::Reject { retry_at } => retry_at,
            Admission::Admit(permit) => panic!("{permit:?} in {:?}", self.breaker),
        }
    }

    fn answer(&mut self, permit: Permit, outcome: Outcome) -> (Recorded, Option<Transition>) {
        self.answer_after(permit, outcome, Duration::ZERO)
    }

    fn answer_after(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        took: Duration,
    ) -> (Recorded, Option<Transition>) {
        let answer =
            self.breaker.record(&self.policy, permit, outcome, took, None, self.now, &self.draws);
        assert!(self.breaker.is_valid(&self.policy), "{:?}", self.breaker);
        answer
    }

    fn one(&mut self, outcome: Outcome) -> Option<Transition> {
        let permit = self.permit();
        let (recorded, transition) = self.answer(permit, outcome);
        assert_eq!(recorded, Recorded::Counted);
        transition
    }

    fn one_paced(&mut self, outcome: Outcome) -> Option<Transition> {
        match self.breaker.admit_paced(&self.policy, SECOND, self.now) {
            Admission::Admit(permit) => self.answer(permit, outcome).1,
            refused @ Admission::Reject { .. } => panic!("{refused:?} in {:?}", self.breaker),
        }
    }

    fn fail(&mut self, times: u32) {
        for _ in 0..times {
            self.one(Outcome::Failure);
        }
    }

    fn expire(&mut self) -> Option<Transition> {
        self.breaker.expire(&self.policy, self.now, &self.draws)
    }

    /// Waits for the end of the open period and returns how long that took.
    fn wait_half_open(&mut self) -> Duration {
        let until = self.breaker.deadline().unwrap();
        let waited = until.since(self.now);
        self.now = until;
        assert_eq!(self.expire().unwrap().to, State::HalfOpen);
        waited
    }

    fn state(&self) -> State {
        self.breaker.state()
    }
}

/// Trips at the first failure, opens for exactly 5, 10, 20, 40, 60 s.
fn plain() -> BreakerConfig {
    let default = BreakerConfig::default();
    BreakerConfig {
        consecutive_failures: Some(1),
        open_for: BackoffConfig { jitter: Jitter::None, ..default.open_for },
        ..default
    }
}

fn rates(rule: RateRule) -> BreakerConfig {
    BreakerConfig { consecutive_failures: None, rates: Some(rule), ..plain() }
}

#[test]
fn five_failures_in_a_row_trip_and_a_success_between_begins_anew() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.fail(4);
    assert_eq!(bench.one(Outcome::Success), None);
    bench.fail(4);
    assert_eq!(bench.state(), State::Closed);
    let transition = bench.one(Outcome::Failure).unwrap();
    assert_eq!(transition.from, State::Closed);
    let State::Open { until } = transition.to else { panic!() };
    assert!((Time::from_secs(4)..=Time::from_secs(6)).contains(&until));
    assert_eq!(bench.refused(), Some(until));
}

#[test]
fn ignored_and_dropped_outcomes_neither_count_nor_end_a_run() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.fail(4);
    assert_eq!(bench.one(Outcome::Ignored), None);
    assert_eq!(bench.one(Outcome::Dropped), None);
    assert!(bench.one(Outcome::Failure).is_some());
}

#[test]
fn a_rate_trips_when_reached_and_the_call_that_reaches_the_minimum_counts() {
    let mut bench = Bench::new(rates(RateRule { min_calls: 4, ..Default::default() }));
    bench.fail(2);
    assert_eq!(bench.one(Outcome::Success), None);
    // A success, and yet it makes two failures of four.
    assert!(bench.one(Outcome::Success).is_some());
}

#[test]
fn a_rate_of_one_can_trip() {
    let rule =
        RateRule { min_calls: 3, failure_rate: Some(Ratio::new(1, 1)), ..Default::default() };
    let mut bench = Bench::new(rates(rule));
    bench.fail(2);
    assert!(bench.one(Outcome::Failure).is_some());
}

#[test]
fn slow_outcomes_trip_by_their_own_share_and_together_with_failures() {
    let rule = RateRule {
        min_calls: 2,
        failure_rate: None,
        slow_rate: Some(Ratio::percent(50)),
        ..Default::default()
    };
    let mut bench = Bench::new(BreakerConfig { slow_after: Some(SECOND), ..rates(rule) });
    // Exactly as long as allowed is not slow.
    for took in [SECOND, SECOND] {
        let permit = bench.permit();
        assert_eq!(bench.answer_after(permit, Outcome::Success, took).1, None);
    }
    for expected in [false, true] {
        let permit = bench.permit();
        let (_, transition) = bench.answer_after(permit, Outcome::Success, SECOND * 2);
        assert_eq!(transition.is_some(), expected);
    }

    let rule = RateRule {
        min_calls: 4,
        failure_rate: None,
        unhealthy_rate: Some(Ratio::percent(75)),
        ..Default::default()
    };
    let mut bench = Bench::new(BreakerConfig { slow_after: Some(SECOND), ..rates(rule) });
    bench.fail(2);
    bench.one(Outcome::Success);
    let permit = bench.permit();
    assert!(bench.answer_after(permit, Outcome::Success, SECOND * 2).1.is_some());
}

#[test]
fn a_failure_that_leaves_the_window_cannot_trip() {
    let rule = RateRule { window: Span::Time(SECOND * 10), min_calls: 2, ..Default::default() };
    let mut bench = Bench::new(rates(rule));
    bench.fail(1);
    bench.now = Time::from_secs(10);
    assert_eq!(bench.one(Outcome::Failure), None);
    assert!(bench.one(Outcome::Failure).is_some());
}

#[test]
fn the_window_is_empty_after_each_close() {
    let mut bench = Bench::new(rates(RateRule { min_calls: 2, ..Default::default() }));
    bench.fail(2);
    bench.wait_half_open();
    assert_eq!(bench.one(Outcome::Success).unwrap().to, State::Closed);
    bench.fail(1);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn the_end_of_an_open_period_is_inclusive_and_needs_a_timer_but_no_caller() {
    let mut bench = Bench::new(plain());
    bench.fail(1);
    let until = Time::from_secs(5);
    assert_eq!(bench.breaker.deadline(), Some(until));
    bench.now = Time::from_nanos(until.as_nanos() - 1);
    assert_eq!(bench.expire(), None);
    bench.now = until;
    assert_eq!(bench.refused(), Some(until));
    let transition = bench.expire().unwrap();
    assert_eq!(transition, Transition { from: State::Open { until }, to: State::HalfOpen });
    assert_eq!(bench.breaker.deadline(), None);
    bench.permit();
    assert_eq!(bench.refused(), None);
}

#[test]
fn two_of_three_probes_decide_and_one_bad_prober_locks_nobody_out() {
    let dials = BreakerConfig { consecutive_failures: Some(1), ..BreakerConfig::for_dials() };
    let mut bench = Bench::new(dials);
    bench.fail(1);
    bench.wait_half_open();
    let [first, second, third] = core::array::from_fn(|_| bench.permit());
    assert_eq!(bench.breaker.outstanding(), 3);
    assert_eq!(bench.refused(), None);
    assert_eq!(bench.answer(second, Outcome::Failure), (Recorded::Counted, None));
    assert_eq!(bench.answer(first, Outcome::Success), (Recorded::Counted, None));
    assert_eq!(bench.answer(third, Outcome::Success).1.unwrap().to, State::Closed);

    bench.fail(1);
    bench.wait_half_open();
    bench.fail(1);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.fail(1);
    assert!(matches!(bench.state(), State::Open { .. }));
}

#[test]
fn a_probe_that_never_returns_is_a_failure_and_its_late_answer_is_stale() {
    let mut bench = Bench::new(plain());
    bench.fail(1);
    bench.wait_half_open();
    let permit = bench.permit();
    let due = bench.now + SECOND * 30;
    assert_eq!(bench.breaker.deadline(), Some(due));
    bench.now = Time::from_nanos(due.as_nanos() - 1);
    assert_eq!(bench.expire(), None);
    bench.now = due;
    let transition = bench.expire().unwrap();
    assert_eq!(transition.to, State::Open { until: due + SECOND * 10 });
    assert_eq!(bench.answer(permit, Outcome::Success), (Recorded::Stale, None));
}

#[test]
fn a_probe_that_timed_out_within_tolerance_is_stale_though_the_period_goes_on() {
    let mut bench = Bench::new(BreakerConfig { tolerate: 1, ..plain() });
    bench.fail(1);
    bench.wait_half_open();
    let own = bench.breaker.admit_within(&bench.policy, SECOND * 3, bench.now);
    let Admission::Admit(permit) = own else { panic!() };
    assert_eq!(bench.breaker.deadline(), Some(bench.now + SECOND * 3));
    bench.now += SECOND * 3;
    assert_eq!(bench.expire(), None);
    assert_eq!(bench.state(), State::HalfOpen);
    assert_eq!(bench.answer(permit, Outcome::Success), (Recorded::Stale, None));
    assert!(bench.breaker.has_room(&bench.policy));
}

#[test]
fn the_policys_probe_timeout_goes_before_the_attempts_own() {
    let mut bench = Bench::new(BreakerConfig { probe_timeout: Some(SECOND), ..plain() });
    bench.fail(1);
    bench.wait_half_open();
    let _ = bench.breaker.admit_within(&bench.policy, SECOND * 3, bench.now);
    assert_eq!(bench.breaker.deadline(), Some(bench.now + SECOND));
}

#[test]
fn a_slow_probe_is_a_failed_probe() {
    let mut bench = Bench::new(BreakerConfig { slow_after: Some(SECOND), ..plain() });
    bench.fail(1);
    bench.wait_half_open();
    let permit = bench.permit();
    let (_, transition) = bench.answer_after(permit, Outcome::Success, SECOND * 2);
    assert!(matches!(transition.unwrap().to, State::Open { .. }));
}

#[test]
fn an_ignored_or_dropped_probe_gives_its_place_back_and_decides_nothing() {
    let mut bench = Bench::new(plain());
    bench.fail(1);
    bench.wait_half_open();
    for outcome in [Outcome::Ignored, Outcome::Dropped] {
        for _ in 0..100 {
            assert_eq!(bench.one(outcome), None);
        }
    }
    assert_eq!(bench.breaker.outstanding(), 0);
    assert_eq!(bench.one(Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn a_result_of_an_earlier_generation_is_inert() {
    let mut bench = Bench::new(plain());
    let straggler = bench.permit();
    bench.fail(1);
    let before = bench.breaker.clone();
    assert_eq!((straggler.generation(), before.generation()), (0, 1));
    assert_eq!(bench.answer(straggler, Outcome::Failure), (Recorded::Stale, None));
    assert_eq!(bench.breaker, before);
    bench.wait_half_open();
    let probe = bench.permit();
    assert_eq!((probe.generation(), bench.breaker.generation()), (2, 2));
    assert_eq!(bench.answer(straggler, Outcome::Success), (Recorded::Stale, None));
    assert_eq!(bench.breaker.outstanding(), 1);
    assert_eq!(bench.answer(probe, Outcome::Success).1.unwrap().to, State::Closed);
    // The same permit a second time.
    assert_eq!(bench.answer(probe, Outcome::Failure), (Recorded::Stale, None));
}

#[test]
fn the_open_period_grows_to_its_cap_and_is_forgotten_only_after_a_stable_close() {
    let mut bench = Bench::new(plain());
    bench.fail(1);
    for secs in [5, 10, 20, 40, 60, 60] {
        assert_eq!(bench.wait_half_open(), SECOND * secs);
        bench.fail(1);
    }
    bench.wait_half_open();
    bench.one(Outcome::Success);
    bench.now += Duration::from_nanos(9_999_999_999);
    bench.fail(1);
    assert_eq!(bench.wait_half_open(), SECOND * 60);
    bench.one(Outcome::Success);
    bench.now += SECOND * 10;
    bench.fail(1);
    assert_eq!(bench.wait_half_open(), SECOND * 5);
    assert_eq!(bench.breaker.trips(), 9);
}

#[test]
fn an_open_period_of_zero_is_half_open_at_the_same_moment() {
    let open_for = BackoffConfig { base: Duration::ZERO, cap: Duration::ZERO, ..plain().open_for };
    let mut bench = Bench::new(BreakerConfig { open_for, ..plain() });
    bench.fail(1);
    assert_eq!(bench.breaker.deadline(), Some(bench.now));
    assert_eq!(bench.wait_half_open(), Duration::ZERO);
}

#[test]
fn a_failure_may_bring_a_longer_wait_up_to_the_ceiling() {
    for (hint, wait) in [(1, 5), (90, 90), (u64::MAX, 300)] {
        let mut bench = Bench::new(plain());
        let permit = bench.permit();
        let hint = Some(Duration::from_secs(hint));
        let (policy, draws) = (bench.policy, bench.draws);
        bench.breaker.record(
            &policy,
            permit,
            Outcome::Failure,
            Duration::ZERO,
            hint,
            bench.now,
            &draws,
        );
        assert_eq!(bench.state(), State::Open { until: Time::from_secs(wait) });
        assert_eq!(bench.wait_half_open(), Duration::from_secs(wait));
        bench.fail(1);
        assert_eq!(bench.wait_half_open(), SECOND * 10, "a hint is no growth");
    }
}

#[test]
fn an_outcome_that_opens_at_once_needs_no_rule_and_lasts_as_long_as_it_says() {
    for (wait, lasts) in [(1, 5), (90, 90), (u64::MAX, 300)] {
        let mut bench = Bench::new(BreakerConfig { consecutive_failures: None, ..plain() });
        let transition = bench.one(Outcome::OpenFor(Duration::from_secs(wait))).unwrap();
        let until = Time::from_secs(lasts);
        assert_eq!(transition, Transition { from: State::Closed, to: State::Open { until } });
    }
}

#[test]
fn a_probe_that_opens_at_once_is_past_all_tolerance() {
    let mut bench = Bench::new(BreakerConfig { probes: 2, tolerate: 9, ..plain() });
    bench.fail(1);
    bench.wait_half_open();
    bench.permit();
    let transition = bench.one(Outcome::OpenFor(SECOND * 60)).unwrap();
    assert_eq!(transition.to, State::Open { until: bench.now + SECOND * 60 });
    assert_eq!(bench.breaker.outstanding(), 0);
}

#[test]
fn a_breaker_held_closed_by_its_group_counts_on_and_trips_once_released() {
    let rule = RateRule { min_calls: 4, ..Default::default() };
    let config = BreakerConfig { consecutive_failures: Some(3), rates: Some(rule), ..plain() };
    let mut bench = Bench::new(config);
    let policy = bench.policy;
    bench.policy = policy.held();
    bench.fail(2);
    assert_eq!(bench.one(Outcome::OpenFor(SECOND)), None);
    bench.fail(9);
    assert_eq!(bench.state(), State::Closed);
    bench.policy = policy;
    assert!(bench.one(Outcome::Success).is_some(), "eleven of twelve");

    bench.wait_half_open();
    bench.policy = policy.held();
    bench.fail(1);
    assert!(matches!(bench.state(), State::Open { .. }), "it was open already");
    assert_eq!(policy.held().relaxed(), policy.relaxed().held());
}

#[test]
fn a_probe_is_postponed_and_never_hastened() {
    let mut bench = Bench::new(plain());
    bench.fail(1);
    bench.breaker.postpone_probes(Time::from_secs(99));
    assert_eq!(bench.wait_half_open(), SECOND * 5, "an open period is no probe");
    bench.permit();
    bench.breaker.postpone_probes(Time::from_secs(10));
    assert_eq!(bench.breaker.deadline(), Some(Time::from_secs(35)));
    bench.breaker.postpone_probes(Time::from_secs(50));
    assert_eq!(bench.breaker.deadline(), Some(Time::from_secs(50)));
}

#[test]
fn what_began_before_the_moment_is_excused_and_what_began_at_it_is_not() {
    let mut bench = Bench::new(BreakerConfig { probes: 2, close_after: 2, ..plain() });
    bench.fail(1);
    bench.wait_half_open();
    bench.permit();
    let before = bench.breaker.deadline().unwrap();
    let moment = bench.now.plus_nanos(1);
    bench.now = moment;
    bench.permit();
    bench.breaker.excuse_before(&bench.policy, moment);
    assert_eq!(bench.breaker.deadline(), Some(before.plus_nanos(1)));
    bench.breaker.excuse_before(&bench.policy, moment.plus_nanos(1));
    assert_eq!(bench.breaker.deadline(), Some(Time::MAX));

    let mut bench = Bench::new(hanging(9));
    bench.permit();
    bench.now = moment;
    bench.permit();
    bench.breaker.excuse_before(&bench.policy, moment);
    assert_eq!(bench.breaker.deadline(), Some((moment + SECOND).plus_nanos(1)));
    bench.breaker.excuse_before(&bench.policy, moment.plus_nanos(1));
    assert_eq!(bench.breaker.deadline(), None);
}

#[test]
fn an_operators_orders_hold_until_the_next_one() {
    let mut bench = Bench::new(plain());
    let permit = bench.permit();
    let (policy, now) = (bench.policy, bench.now);
    let forced = bench.breaker.force_open(&policy, now).unwrap();
    assert_eq!(forced, Transition { from: State::Closed, to: State::ForcedOpen });
    assert_eq!(bench.breaker.force_open(&policy, now), None);
    assert_eq!(bench.refused(), None);
    assert_eq!(bench.breaker.deadline(), None);
    assert_eq!(bench.answer(permit, Outcome::Failure), (Recorded::Stale, None));
    assert_eq!(bench.breaker.disable(&policy, now).unwrap().to, State::Disabled);
    bench.fail(100);
    assert_eq!(bench.state(), State::Disabled);
    assert_eq!(bench.breaker.disable(&policy, now), None);
    assert_eq!(bench.breaker.reset(&policy, now).unwrap().to, State::Closed);
    let generation = bench.breaker.generation();
    assert_eq!(bench.breaker.reset(&policy, now), None);
    assert_eq!(bench.breaker.generation(), generation + 1);
}

#[test]
fn watching_only_it_decides_as_ever_and_refuses_nobody() {
    let mut bench = Bench::new(plain());
    assert!(bench.breaker.watch_only(true) && !bench.breaker.watch_only(true));
    bench.fail(1);
    assert!(matches!(bench.state(), State::Open { .. }));
    assert!(bench.breaker.admits() && bench.breaker.has_room(&bench.policy));
    let inert = bench.permit();
    assert!(!inert.is_probe());
    assert_eq!(bench.answer(inert, Outcome::Failure), (Recorded::Stale, None));

    bench.wait_half_open();
    let (probe, beside) = (bench.permit(), bench.permit());
    assert_eq!((probe.is_probe(), beside.is_probe()), (true, false));
    assert!(bench.breaker.admits() && bench.breaker.has_room(&bench.policy));
    assert_eq!(bench.answer(beside, Outcome::Failure), (Recorded::Stale, None));
    assert_eq!(bench.answer(probe, Outcome::Success).1.unwrap().to, State::Closed);

    bench.fail(1);
    assert!(bench.breaker.watch_only(false) && !bench.breaker.is_watch_only());
    assert!(bench.refused().is_some() && !bench.breaker.admits());
}

#[test]
fn an_operator_who_forces_it_open_is_obeyed_even_if_it_only_watches() {
    let mut bench = Bench::new(plain());
    bench.breaker.watch_only(true);
    let (policy, now) = (bench.policy, bench.now);
    bench.breaker.force_open(&policy, now);
    assert_eq!(bench.refused(), None);
    assert!(!bench.breaker.admits());
    bench.breaker.reset(&policy, now);
    assert!(bench.breaker.is_watch_only(), "that is another order");
}

/// Closed by a probe at 5 s, with a ramp of 9 s.
fn ramping() -> Bench {
    let mut bench = Bench::new(BreakerConfig { ramp_for: Some(SECOND * 9), ..plain() });
    bench.fail(1);
    bench.wait_half_open();
    assert_eq!(bench.one(Outcome::Success).unwrap().to, State::Closed);
    bench
}

/// How many of a hundred are let through, and the longest run of refused ones between.
fn let_through(bench: &mut Bench) -> (u32, u32) {
    let (mut admitted, mut gap, mut longest) = (0, 0, 0);
    for _ in 0..100 {
        match bench.breaker.admit(&bench.policy, bench.now) {
            Admission::Admit(permit) => {
                assert!(!permit.is_probe());
                (admitted, gap) = (admitted + 1, 0);
            }
            Admission::Reject { retry_at } => {
                assert_eq!(retry_at, Some(Time::from_secs(14)));
                gap += 1;
                longest = longest.max(gap);
            }
        }
        assert!(bench.breaker.is_valid(&bench.policy));
    }
    (admitted, longest)
}

#[test]
fn after_a_close_by_probes_an_evenly_spread_share_grows_from_a_tenth_to_all() {
    let mut bench = ramping();
    let closed = bench.now;
    bench.permit();
    assert_eq!(let_through(&mut bench), (10, 9));
    for (second, expected) in [(1, 20), (2, 30), (4, 50), (8, 90), (9, 100)] {
        bench.now = closed + SECOND * second;
        let (admitted, gap) = let_through(&mut bench);
        assert!(admitted.abs_diff(expected) <= 1, "{second} s: {admitted}");
        assert!(gap <= 99 / expected, "{second} s: {gap} refused in a row");
    }
    // It is over, and a clock that goes back does not begin it anew.
    bench.now = closed;
    assert_eq!(let_through(&mut bench), (100, 0));
}

#[test]
fn a_ramp_ends_with_a_trip_and_neither_a_reset_nor_a_new_breaker_has_one() {
    let mut bench = ramping();
    bench.permit();
    assert!(matches!(
        bench.one_paced(Outcome::Failure),
        Some(Transition { from: State::Closed, .. })
    ));
    bench.breaker.reset(&bench.policy, bench.now);
    assert_eq!(let_through(&mut bench), (100, 0));
    let mut bench = Bench::new(BreakerConfig { ramp_for: Some(SECOND * 9), ..plain() });
    assert_eq!(let_through(&mut bench), (100, 0));
}

#[test]
fn paced_work_and_a_breaker_that_only_watches_know_no_ramp() {
    let mut bench = ramping();
    for _ in 0..100 {
        let paced = bench.breaker.admit_paced(&bench.policy, SECOND, bench.now);
        assert!(matches!(paced, Admission::Admit(_)) && bench.breaker.has_room(&bench.policy));
    }
    bench.breaker.watch_only(true);
    assert_eq!(let_through(&mut bench), (100, 0));
}

/// Slow after a second, also in flight; trips when half of at least `min_calls` were slow.
fn hanging(min_calls: u32) -> BreakerConfig {
    let rule = RateRule {
        min_calls,
        failure_rate: None,
        slow_rate: Some(Ratio::percent(50)),
        ..Default::default()
    };
    BreakerConfig { slow_after: Some(SECOND), slow_in_flight: true, ..rates(rule) }
}

#[test]
fn a_hung_server_trips_before_anything_has_ended() {
    let mut bench = Bench::new(hanging(3));
    let permits = [(); 3].map(|()| bench.permit());
    // Exactly as long as allowed is not slow.
    bench.now = Time::from_secs(1);
    assert_eq!(bench.expire(), None);
    let due = bench.now.plus_nanos(1);
    assert_eq!(bench.breaker.deadline(), Some(due));
    bench.now = due;
    let until = due + SECOND * 5;
    assert_eq!(bench.expire().unwrap().to, State::Open { until });
    assert_eq!(bench.breaker.deadline(), Some(until), "nothing else is due");
    for permit in permits {
        assert_eq!(bench.answer(permit, Outcome::Failure), (Recorded::Stale, None));
    }
    bench.wait_half_open();
    bench.one(Outcome::Success);
    assert_eq!(bench.breaker.deadline(), None);
}

#[test]
fn what_counted_as_slow_in_flight_enters_no_window_again_but_the_run_it_does() {
    let mut bench = Bench::new(BreakerConfig { consecutive_failures: Some(3), ..hanging(9) });
    let permits: [Permit; 5] = core::array::from_fn(|_| bench.permit());
    bench.now = Time::from_secs(2);
    assert_eq!(bench.expire(), None);
    let seen = |bench: &Bench| {
        let totals = bench.breaker.window.as_ref().unwrap().totals(bench.now);
        (totals.calls, totals.failures, totals.slow)
    };
    assert_eq!(seen(&bench), (5, 0, 5));
    let took = SECOND * 2;
    let mut answer = |permit, outcome| bench.answer_after(permit, outcome, took).1;
    assert_eq!(answer(permits[0], Outcome::Failure), None);
    assert_eq!(answer(permits[1], Outcome::Success), None);
    assert_eq!(answer(permits[2], Outcome::Failure), None);
    assert_eq!(answer(permits[3], Outcome::Failure), None);
    assert_eq!(seen(&bench), (5, 0, 5));
    let transition = bench.answer_after(permits[4], Outcome::Failure, took).1;
    assert!(transition.is_some(), "three in a row after the success");
}

#[test]
fn work_that_ends_in_whatever_way_is_no_longer_awaited() {
    let mut bench = Bench::new(hanging(1));
    for outcome in [Outcome::Success, Outcome::Ignored, Outcome::Dropped] {
        let permit = bench.permit();
        assert!(bench.breaker.deadline().is_some());
        assert_eq!(bench.answer(permit, outcome), (Recorded::Counted, None));
        assert_eq!(bench.breaker.deadline(), None);
    }
    let (policy, now) = (bench.policy, bench.now);
    for order in [Breaker::force_open, Breaker::disable, Breaker::reset] {
        bench.permit();
        order(&mut bench.breaker, &policy, now);
        assert_eq!(bench.breaker.deadline(), None);
        assert!(bench.breaker.is_valid(&policy));
        bench.breaker.reset(&policy, now);
    }
}

#[test]
fn work_in_flight_is_not_judged_while_our_side_was_asleep() {
    let mut bench = Bench::new(hanging(1));
    let permit = bench.permit();
    bench.now = Time::from_secs(60);
    bench.breaker.postpone_probes(Time::from_secs(61));
    assert_eq!(bench.expire(), None);
    assert_eq!(bench.breaker.deadline(), Some(Time::from_secs(61)));
    assert_eq!(bench.answer(permit, Outcome::Success), (Recorded::Counted, None));
    bench.permit();
    assert_eq!(bench.breaker.deadline(), Some(Time::from_nanos(61_000_000_001)));
}

#[test]
fn a_million_that_hang_are_judged_a_thousand_at_a_time() {
    let mut bench = Bench::new(hanging(1));
    for _ in 0..1_000_000 {
        bench.permit();
    }
    let policy = bench.policy;
    bench.policy = policy.held();
    bench.now = Time::from_secs(2);
    let mut calls = 0;
    while bench.breaker.deadline().is_some_and(|due| due <= bench.now) {
        assert_eq!(bench.expire(), None, "held by its group");
        calls += 1;
    }
    assert_eq!(calls, 1_000_000_u32.div_ceil(1_024));
    bench.policy = policy;
    assert!(bench.one(Outcome::Success).is_some());
}

#[test]
fn relaxed_rules_are_half_as_high_again_and_do_not_compound() {
    let rule = RateRule {
        failure_rate: Some(Ratio::percent(50)),
        slow_rate: Some(Ratio::percent(80)),
        unhealthy_rate: Some(Ratio::new(u32::MAX / 2, u32::MAX)),
        ..Default::default()
    };
    let policy = BreakerConfig { rates: Some(rule), slow_after: Some(SECOND), ..plain() };
    let policy = BreakerConfig { consecutive_failures: Some(5), ..policy }.validate().unwrap();
    let relaxed = policy.relaxed();
    assert_eq!(relaxed.consecutive_failures, Some(8));
    let rule = relaxed.rates.unwrap();
    assert_eq!(rule.failure_rate, Some(Ratio::new(150, 200)));
    assert_eq!(rule.slow_rate, Some(Ratio::new(1, 1)));
    let rate = rule.unhealthy_rate.unwrap();
    assert!((f64::from(rate.numerator) / f64::from(rate.denominator) - 0.75).abs() < 1e-9);
    assert_eq!(policy.relaxed(), relaxed);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let field = |config: BreakerConfig| config.validate().map_err(|e| e.field().to_owned());
    let refused = |config, name: &str| assert_eq!(field(config), Err(name.into()));
    refused(BreakerConfig { probes: 0, ..plain() }, "probes");
    refused(BreakerConfig { probes: 1_025, ..plain() }, "probes");
    refused(BreakerConfig { close_after: 0, ..plain() }, "close_after");
    refused(BreakerConfig { consecutive_failures: Some(0), ..plain() }, "consecutive_failures");
    refused(BreakerConfig { slow_after: Some(Duration::ZERO), ..plain() }, "slow_after");
    refused(BreakerConfig { probe_timeout: Some(Duration::ZERO), ..plain() }, "probe_timeout");
    refused(BreakerConfig { ramp_for: Some(Duration::ZERO), ..plain() }, "ramp_for");
    let needs_slow = BreakerConfig { slow_in_flight: true, slow_after: None, ..plain() };
    refused(needs_slow, "slow_in_flight");
    let needs_rule = rates(RateRule::default());
    let needs_rule = BreakerConfig { slow_after: Some(SECOND), ..needs_rule };
    refused(BreakerConfig { slow_in_flight: true, ..needs_rule }, "slow_in_flight");
    let open_for = BackoffConfig { cap: Duration::ZERO, ..plain().open_for };
    refused(BreakerConfig { open_for, ..plain() }, "open_for.cap");

    let base = RateRule::default();
    let refused = |rule, name: &str| refused(rates(rule), name);
    refused(RateRule { window: Span::Count(0), ..base }, "rates.window");
    refused(RateRule { window: Span::Count(65_537), ..base }, "rates.window");
    refused(RateRule { window: Span::Time(MIN_TIME / 2), ..base }, "rates.window");
    refused(RateRule { min_calls: 0, ..base }, "rates.min_calls");
    refused(RateRule { min_calls: 101, ..base }, "rates.min_calls");
    for rate in [Ratio::new(0, 1), Ratio::new(0, 0), Ratio::new(1, 0), Ratio::percent(101)] {
        refused(RateRule { failure_rate: Some(rate), ..base }, "rates.failure_rate");
    }
    refused(RateRule { slow_rate: Some(Ratio::percent(1)), ..base }, "rates.slow_rate");
    refused(RateRule { unhealthy_rate: Some(Ratio::percent(1)), ..base }, "rates.unhealthy_rate");
    refused(RateRule { failure_rate: None, ..base }, "rates.failure_rate");
    assert!(field(BreakerConfig::for_dials()).is_ok());
}

#[test]
fn what_could_not_have_arisen_is_not_valid() {
    let mut bench = Bench::new(plain());
    bench.fail(1);
    bench.wait_half_open();
    bench.permit();
    let json = serde_json::to_string(&bench.breaker).unwrap();
    let same: Breaker = serde_json::from_str(&json).unwrap();
    assert_eq!(same, bench.breaker);
    for (from, to) in [
        ("\"given\":1", "\"given\":0"),
        ("\"failures\":0", "\"failures\":1"),
        ("\"successes\":0", "\"successes\":1"),
        ("\"probe\":0", "\"probe\":1"),
        ("\"given\":1", "\"given\":4294967295"),
        ("\"generation\":2", "\"generation\":18446744073709551615"),
        ("\"trips\":1", "\"trips\":0"),
        ("\"ramp\":1000", "\"ramp\":999"),
        ("\"ramp\":1000", "\"ramp\":1001"),
        ("\"trips\":1", "\"trips\":18446744073709551615"),
        (
            "\"window\":null",
            "\"window\":{\"Count\":{\"size\":0,\"next\":0,\"bits\":[],\"totals\":\
          {\"calls\":0,\"failures\":0,\"slow\":0,\"unhealthy\":0}}}",
        ),
    ] {
        assert!(json.contains(from), "{json}");
        let hostile: Breaker = serde_json::from_str(&json.replace(from, to)).unwrap();
        assert!(!hostile.is_valid(&bench.policy), "{to}");
    }
}

#[test]
fn probes_that_could_not_be_out_together_are_not_valid() {
    let config = BreakerConfig { probes: 3, close_after: 3, tolerate: 2, ..plain() };
    let mut bench = Bench::new(config);
    bench.fail(1);
    bench.wait_half_open();
    for outcome in [Outcome::Success, Outcome::Failure] {
        bench.one(outcome);
    }
    bench.permit();
    bench.permit();
    let json = serde_json::to_string(&bench.breaker).unwrap();
    let valid = |from: &str, to: &str| {
        assert!(json.contains(from), "{json}");
        let read: Breaker = serde_json::from_str(&json.replace(from, to)).unwrap();
        read.is_valid(&bench.policy)
    };
    assert!(valid("\"given\":4", "\"given\":5"), "one was dropped");
    assert!(!valid("\"given\":4", "\"given\":3"), "number 3 is out");
    assert!(!valid("\"probe\":3", "\"probe\":4"), "not given yet");
    assert!(!valid("\"probe\":3", "\"probe\":2"), "number 2 twice");
    assert!(!valid("\"probe\":2", "\"probe\":9"), "in no order");
    let most = "\"given\":9,\"successes\":2,\"failures\":2";
    let counts = "\"given\":4,\"successes\":1,\"failures\":1";
    assert!(valid(counts, most), "three were dropped");
    assert!(!valid(counts, &most.replace("res\":2", "res\":3")), "open again by then");
    assert!(!valid(counts, &most.replace("ses\":2", "ses\":3")), "closed by then");
    assert!(!valid("\"successes\":1", "\"successes\":2"), "five of four");
    assert!(!valid("\"failures\":1", "\"failures\":2"), "five of four");
}

#[test]
fn only_a_closed_breaker_whose_policy_has_a_ramp_may_be_on_one() {
    let mut bench = ramping();
    let valid =
        |bench: &Bench, ramp| Breaker { ramp, ..bench.breaker.clone() }.is_valid(&bench.policy);
    let on_ramps = [0, 999, 1_000, 1_001];
    assert_eq!(on_ramps.map(|ramp| valid(&bench, ramp)), [true, true, true, false]);
    bench.breaker.force_open(&bench.policy, bench.now);
    assert_eq!(on_ramps.map(|ramp| valid(&bench, ramp)), [false, false, true, false]);
    let bench = Bench::new(plain());
    assert_eq!(on_ramps.map(|ramp| valid(&bench, ramp)), [false, false, true, false]);
}

#[test]
fn work_in_flight_that_could_not_be_is_not_valid_and_harms_nobody() {
    let mut bench = Bench::new(hanging(9));
    let permits = [(); 3].map(|()| {
        bench.now += SECOND;
        bench.permit()
    });
    bench.answer(permits[1], Outcome::Dropped);
    let json = serde_json::to_string(&bench.breaker).unwrap();
    assert_eq!(serde_json::from_str::<Breaker>(&json).unwrap(), bench.breaker);
    let in_flight = serde_json::to_string(&bench.breaker.in_flight).unwrap();
    for (from, to) in [
        ("\"value\":2000000001", "\"value\":0"),
        ("\"value\":2000000001", "\"value\":9000000001"),
        ("\"next\":3", "\"next\":18446744073709551615"),
        ("\"gaps\":1", "\"gaps\":2"),
        (in_flight.as_str(), "null"),
        ("{\"Closed\":{\"since\":0,\"run\":0}}", "\"Disabled\""),
    ] {
        assert!(json.contains(from), "{json}");
        let mut hostile: Breaker = serde_json::from_str(&json.replace(from, to)).unwrap();
        assert!(!hostile.is_valid(&bench.policy), "{to}");
        let (policy, draws) = (bench.policy, bench.draws);
        let _ = hostile.admit(&policy, Time::MAX);
        hostile.expire(&policy, Time::MAX, &draws);
        hostile.record(&policy, permits[2], Outcome::Failure, SECOND, None, Time::MAX, &draws);
    }
    assert!(!bench.breaker.is_valid(&Bench::new(plain()).policy));
}

#[test]
fn a_breaker_without_rates_is_small() {
    assert!(size_of::<Breaker>() <= 96, "{}", size_of::<Breaker>());
    assert_eq!(size_of::<Permit>(), 24);
}

/// Every state against every input: the state after it, and `*` if the generation was raised.
#[test]
fn table_of_states_and_inputs() {
    type Reach = (&'static str, fn(&mut Bench));
    type Input = (&'static str, fn(&mut Bench, Option<Permit>));
    fn give(bench: &mut Bench, permit: Option<Permit>, outcome: Outcome) {
        if let Some(permit) = permit {
            bench.answer(permit, outcome);
        }
    }
    let inputs: [Input; 10] = [
        ("success", |bench, permit| give(bench, permit, Outcome::Success)),
        ("failure", |bench, permit| give(bench, permit, Outcome::Failure)),
        ("open for", |bench, permit| give(bench, permit, Outcome::OpenFor(SECOND))),
        ("ignored", |bench, permit| give(bench, permit, Outcome::Ignored)),
        ("dropped", |bench, permit| give(bench, permit, Outcome::Dropped)),
        ("stale", |bench, _| {
            let stale = Permit { generation: u64::MAX, probe: Some(0), number: 0 };
            give(bench, Some(stale), Outcome::Failure);
        }),
        ("expire", |bench, _| {
            if let Some(due) = bench.breaker.deadline() {
                bench.now = due;
            }
            bench.expire();
        }),
        ("force", |bench, _| {
            bench.breaker.force_open(&bench.policy, bench.now);
        }),
        ("disable", |bench, _| {
            bench.breaker.disable(&bench.policy, bench.now);
        }),
        ("reset", |bench, _| {
            bench.breaker.reset(&bench.policy, bench.now);
        }),
    ];
    let states: [Reach; 6] = [
        ("closed", |_| {}),
        ("open", |bench| bench.fail(1)),
        ("half-open, probe out", |bench| {
            bench.fail(1);
            bench.wait_half_open();
        }),
        ("half-open, unused", |bench| {
            bench.fail(1);
            bench.wait_half_open();
        }),
        ("forced open", |bench| {
            bench.breaker.force_open(&bench.policy, bench.now);
        }),
        ("disabled", |bench| {
            bench.breaker.disable(&bench.policy, bench.now);
        }),
    ];
    let mut table = String::new();
    write!(table, "{:<22}", "").unwrap();
    inputs.iter().for_each(|(name, _)| write!(table, "{name:<13}").unwrap());
    for (name, reach) in states {
        write!(table, "\n{name:<22}").unwrap();
        for (_, apply) in inputs {
            let mut bench = Bench::new(plain());
            reach(&mut bench);
            let permit = match name {
                "half-open, unused" => None,
                _ => match bench.breaker.admit(&bench.policy, bench.now) {
                    Admission::Admit(permit) => Some(permit),
                    Admission::Reject { .. } => None,
                },
            };
            let before = bench.breaker.generation();
            apply(&mut bench, permit);
            let state = match bench.state() {
                State::Closed => "closed",
                State::Open { .. } => "open",
                State::HalfOpen => "half-open",
                State::ForcedOpen => "forced-open",
                State::Disabled => "disabled",
            };
            let raised = if bench.breaker.generation() == before { "" } else { "*" };
            write!(table, "{:<13}", alloc::format!("{state}{raised}")).unwrap();
        }
    }
    let table: String = table.lines().map(|line| alloc::format!("{}\n", line.trim_end())).collect();
    insta::assert_snapshot!(table);
}

proptest! {
    /// Against everything: no input breaks an invariant, and nothing is admitted while open.
    #[test]
    fn no_story_breaks_it(
        story in proptest::collection::vec((0_u8..12, 0_u64..20_000, 0_usize..8), 1..200),
        probes in 1_u32..4,
        tolerate in 0_u32..3,
        close_after in 1_u32..4,
    ) {
        let rule = RateRule { window: Span::Count(6), min_calls: 4, ..Default::default() };
        let config = BreakerConfig {
            consecutive_failures: Some(3),
            rates: Some(rule),
            slow_after: Some(SECOND),
            probes,
            tolerate,
            close_after,
            ..BreakerConfig::for_dials()
        };
        let mut bench = Bench::new(config);
        let mut permits: Vec<Permit> = Vec::new();
        for (input, millis, which) in story {
            bench.now += Duration::from_millis(millis / 4);
            while bench.breaker.deadline().is_some_and(|due| due <= bench.now) {
                let generation = bench.breaker.generation();
                let transition = bench.expire();
                prop_assert_eq!(
                    bench.breaker.generation(),
                    generation + u64::from(transition.is_some())
                );
            }
            let (policy, now) = (bench.policy, bench.now);
            let outcome = match input {
                0..=4 => {
                    let room = bench.breaker.has_room(&policy);
                    let admission = bench.breaker.admit(&policy, now);
                    prop_assert_eq!(room, matches!(admission, Admission::Admit(_)));
                    if let Admission::Admit(permit) = admission {
                        permits.push(permit);
                    }
                    None
                }
                5 | 6 => Some(Outcome::Success),
                7 | 8 => Some(Outcome::Failure),
                9 => Some(Outcome::Dropped),
                10 => {
                    bench.breaker.force_open(&policy, now);
                    None
                }
                _ => {
                    bench.breaker.reset(&policy, now);
                    None
                }
            };
            if let Some(outcome) = outcome
                && !permits.is_empty()
            {
                let permit = permits.swap_remove(which % permits.len());
                let current = permit.generation() == bench.breaker.generation();
                let before = bench.breaker.clone();
                let took = Duration::from_millis(millis / 8);
                let (recorded, _) = bench.answer_after(permit, outcome, took);
                if recorded == Recorded::Stale {
                    prop_assert_eq!(&bench.breaker, &before);
                    prop_assert!(!current || permit.is_probe());
                }
            }
            prop_assert!(bench.breaker.is_valid(&policy));
            prop_assert!(bench.breaker.outstanding() <= probes);
            let is_open = matches!(bench.state(), State::Open { .. } | State::ForcedOpen);
            prop_assert!(!is_open || bench.breaker.outstanding() == 0);
        }
    }
}

/// A unit of work as the naive model sees it.
#[derive(Clone, Copy)]
struct Work {
    permit: Permit,
    started: Time,
    /// Whether it has been counted as slow.
    slow: bool,
}

proptest! {
    /// Against a model that keeps all that is out in a list and looks through it each time.
    #[test]
    fn slow_in_flight_is_as_a_naive_list_has_it(
        story in proptest::collection::vec((0_u8..10, 0_u64..700, 0_usize..16), 1..300),
        size in 1_u32..12,
        run_limit in 2_u32..6,
    ) {
        let slow_rate = Some(Ratio::percent(60));
        let rule = RateRule { window: Span::Count(size), min_calls: 1 + size / 2, slow_rate, ..Default::default() };
        let consecutive_failures = Some(run_limit);
        let config = BreakerConfig { consecutive_failures, rates: Some(rule), ..hanging(1) };
        let mut bench = Bench::new(config);
        let (mut out, mut seen, mut run): (Vec<Work>, Vec<(bool, bool)>, u32) = Default::default();
        let mut hold_until = Time::ZERO;
        let slow_at = |work: &Work| (work.started + SECOND).plus_nanos(1);
        let trips = |seen: &[(bool, bool)], run: u32| {
            let seen = &seen[seen.len().saturating_sub(size as usize)..];
            let failed = seen.iter().filter(|(failed, _)| *failed).count();
            let slow = seen.iter().filter(|(_, slow)| *slow).count();
            let enough = seen.len() > size as usize / 2;
            run >= run_limit || enough && (failed * 2 >= seen.len() || slow * 5 >= seen.len() * 3)
        };
        for (input, millis, which) in story {
            bench.now += Duration::from_millis(millis);
            let now = bench.now;
            // Whatever is due, in the order in which it began.
            let mut tripped = false;
            for work in &mut out {
                if !tripped && !work.slow && slow_at(work).max(hold_until) <= now {
                    work.slow = true;
                    seen.push((false, true));
                    tripped = trips(&seen, run);
                }
            }
            let mut opened = false;
            while !opened && bench.breaker.deadline().is_some_and(|due| due <= now) {
                opened = bench.expire().is_some();
            }
            prop_assert_eq!(opened, tripped);
            if !opened {
                let due = out.iter().filter(|work| !work.slow).map(slow_at).min();
                prop_assert_eq!(bench.breaker.deadline(), due.map(|due| due.max(hold_until)));
                match input {
                    0..=4 => out.push(Work { permit: bench.permit(), started: now, slow: false }),
                    5 => {
                        hold_until = hold_until.max(now + SECOND);
                        bench.breaker.postpone_probes(hold_until);
                    }
                    _ if !out.is_empty() => {
                        let work = out.remove(which % out.len());
                        let (outcome, failed) = match input {
                            6 | 7 => (Outcome::Success, Some(false)),
                            8 => (Outcome::Failure, Some(true)),
                            _ => (Outcome::Dropped, None),
                        };
                        let took = now.since(work.started);
                        let (recorded, transition) = bench.answer_after(work.permit, outcome, took);
                        prop_assert_eq!(recorded, Recorded::Counted);
                        if let Some(failed) = failed {
                            run = if failed { run + 1 } else { 0 };
                            if !work.slow {
                                seen.push((failed, took > SECOND));
                            }
                            tripped = trips(&seen, run);
                        }
                        prop_assert_eq!(transition.is_some(), tripped);
                        opened = tripped;
                    }
                    _ => {}
                }
            }
            if opened {
                bench.breaker.reset(&bench.policy, now);
                for work in out.drain(..) {
                    let stale = bench.answer(work.permit, Outcome::Failure);
                    prop_assert_eq!(stale, (Recorded::Stale, None));
                }
                (seen, run) = (Vec::new(), 0);
            }
        }
    }
}
