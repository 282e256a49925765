//! Calls: tried, judged, and tried again.

use std::time::Duration;

use insta::assert_snapshot;
use steadfast::backoff::Jitter;
use steadfast::breaker::RateRule;
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::config::{BreakerGroup, BreakerProfile, CallProfile, NotConnected, OpenOn};
use steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast::throttle::ThrottleConfig;
use steadfast::{CallFailure, Config, Ratio};

use crate::secs;
use crate::story;
use crate::story::play;

/// The defaults without chance, and with one second of backoff, so that the timelines read well.
fn plain() -> Config {
    let mut config = Config::new(1);
    let calls = &mut config.call_profiles[0];
    calls.backoff.base = secs(1);
    calls.backoff.jitter = Jitter::None;
    config.breaker_profiles[0] =
        BreakerProfile { name: "default".into(), ..BreakerProfile::for_calls() };
    config.breaker_profiles[0].breaker.open_for.jitter = Jitter::None;
    config.peer_profiles[0].backoff.jitter = Jitter::None;
    config
}

fn with(change: impl FnOnce(&mut CallProfile, &mut BreakerProfile)) -> Config {
    let mut config = plain();
    change(&mut config.call_profiles[0], &mut config.breaker_profiles[0]);
    config
}

/// With a budget that starts full, for stories that are not about it.
fn solvent(profile: &mut BreakerProfile) {
    if let Some(budget) = &mut profile.calls.budget {
        budget.initial = budget.capacity;
    }
}

#[test]
fn a_call_that_succeeds() {
    assert_snapshot!(story(
        plain(),
        "
        breaker b1
        call r1 b1
        why r1
        +20ms succeeded r1
        succeeded r1
        gates b1
        why r1
    "
    ));
}

#[test]
fn a_failed_attempt_is_tried_again_and_the_token_of_a_success_comes_back() {
    assert_snapshot!(story(
        with(|_, breaker| solvent(breaker)),
        "
        breaker b1
        call r1 b1
        +20ms failed r1 error
        gates b1
        why r1
        +2s succeeded r1
        gates b1
    "
    ));
}

#[test]
fn attempts_run_out_and_the_last_error_is_told() {
    assert_snapshot!(story(
        with(|_, breaker| solvent(breaker)),
        "
        breaker b1
        call r1 b1
        failed r1 error
        +2s failed r1 unavailable
        +4s failed r1 timeout
    "
    ));
}

#[test]
fn a_timeout_is_the_managers_and_counts_against_the_breaker() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.attempt_timeout = secs(2);
            breaker.breaker.consecutive_failures = Some(2);
        }),
        "
        breaker b1
        call r1 b1
        +3.5s succeeded r1
        +5s wait
        call r2 b1
    "
    ));
}

#[test]
fn a_budget_that_is_used_up_ends_a_call_at_once() {
    assert_snapshot!(story(
        with(|_, breaker| {
            if let Some(budget) = &mut breaker.calls.budget {
                budget.initial = 1;
            }
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        failed r1 error
        failed r2 error
        gates b1
        cancel r1
        gates b1
    "
    ));
}

#[test]
fn what_cannot_be_in_time_is_not_waited_for() {
    assert_snapshot!(story(
        with(|_, breaker| solvent(breaker)),
        "
        breaker b1
        call r1 b1 by 900ms
        +10ms failed r1 throttled
        call r2 b1 by 0s
        call r3 b1 by 5s
        +1s failed r3 throttled 6s
        gates b1
    "
    ));
}

#[test]
fn a_servers_hint_is_a_floor_with_a_ceiling_and_may_be_never() {
    assert_snapshot!(story(
        with(|_, breaker| solvent(breaker)),
        "
        breaker b1
        call r1 b1
        failed r1 throttled 5s
        call r2 b1
        failed r2 throttled 0s
        call r3 b1 by 1h
        failed r3 throttled 121s
        call r4 b1
        failed r4 unavailable never
        call r5 b1
        failed r5 invalid 5s
        call r6 b1
        failed r6 fatal
    "
    ));
}

#[test]
fn a_deadline_ends_what_runs_and_what_waits() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.calls.bulkhead.max_concurrent = 1;
            breaker.calls.bulkhead.max_waiting = 1;
        }),
        "
        breaker b1
        call r1 b1 by 3s
        call r2 b1 by 2s
        call r3 b1
        +5s wait
        gates b1
    "
    ));
}

#[test]
fn whoever_waits_goes_on_in_the_very_step_in_which_a_slot_comes_back() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.calls.bulkhead.max_concurrent = 1;
            breaker.calls.bulkhead.max_waiting = 9;
            breaker.calls.bulkhead.max_wait = Some(secs(4));
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        call r3 b1
        call r4 b1
        call r5 b1
        gates b1
        cancel r3
        +1s dropped r1
        +1s cancel r2
        +1s succeeded r4
        call r6 b1
        +5s wait
        gates b1
    "
    ));
}

#[test]
fn a_rate_names_the_wait_and_refuses_one_that_is_too_long() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.calls.rate = Some(BucketConfig { rate: Rate::per_second(1), burst: 1 });
            breaker.calls.bulkhead.max_waiting = 9;
            breaker.calls.bulkhead.max_wait = Some(secs(2));
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        call r3 b1
        call r4 b1
        call r5 b1 by 1s
        +500ms cancel r2
        call r6 b1
        +5s wait
    "
    ));
}

#[test]
fn without_a_line_a_refusal_says_when_to_come_back() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.calls.rate = Some(BucketConfig { rate: Rate::per_second(4), burst: 1 });
            breaker.calls.bulkhead.max_concurrent = 2;
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        +250ms call r3 b1
        +250ms call r4 b1
    "
    ));
}

#[test]
fn an_open_breaker_empties_the_line_and_a_retry_waits_for_its_end() {
    assert_snapshot!(story(
        with(|_, breaker| {
            solvent(breaker);
            breaker.breaker.consecutive_failures = Some(2);
            breaker.calls.bulkhead.max_concurrent = 2;
            breaker.calls.bulkhead.max_waiting = 9;
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1 by 4s
        call r3 b1
        call r4 b1
        failed r2 error
        failed r1 error
        call r5 b1
        +7s wait
        succeeded r1
        call r6 b1
    "
    ));
}

#[test]
fn a_failure_that_says_closed_for_maintenance_opens_the_breaker_at_once() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.calls.open_on =
                vec![OpenOn { kind: CallFailure::Unavailable, open_for: secs(60) }];
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        failed r1 unavailable
        failed r2 error
        call r3 b1
        +60s call r4 b1
    "
    ));
}

#[test]
fn a_call_waits_for_its_peer_and_goes_out_over_the_connection() {
    assert_snapshot!(story(
        plain(),
        "
        breaker b1
        breaker b2
        peer p1 b1
        call r1 p1@b2
        connect p1
        call r2 p1@b2
        call r3 p1@b2 by 2s
        +3s connected p1
        lost p1 reset
        failed r2 disconnected
    "
    ));
}

#[test]
fn a_call_connects_a_peer_that_nobody_wanted() {
    assert_snapshot!(story(
        with(|call, _| call.not_connected = NotConnected::Connect),
        "
        breaker b1
        breaker b2
        peer p1 b1
        call r1 p1@b2
        +20ms connected p1
        +20ms succeeded r1
        peer p2
        call r2 p2@b2
    "
    ));
}

#[test]
fn a_call_that_does_not_wait_is_told_when_the_peer_is_dialed_next() {
    assert_snapshot!(story(
        with(|call, _| call.not_connected = NotConnected::Reject),
        "
        breaker b1
        breaker b2
        peer p1 b1
        connect p1
        call r1 p1@b2
        dial-failed p1 refused
        call r2 p1@b2
    "
    ));
}

#[test]
fn with_the_peer_go_its_calls() {
    assert_snapshot!(story(
        with(|_, breaker| solvent(breaker)),
        "
        breaker b1
        breaker b2
        peer p1 b1
        connect p1
        call r1 p1@b2
        +1s connected p1
        call r2 p1@b2
        failed r2 error
        lost p1 eof
        call r3 p1@b2
        remove p1
        failed r1 disconnected
        gates b2
        remove-breaker b2
    "
    ));
}

#[test]
fn a_slow_attempt_is_joined_by_another_and_the_first_to_answer_wins() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.hedged = true;
            call.max_attempts = 4;
            breaker.calls.hedge = Some(HedgeConfig {
                delay: HedgeDelay::After(Duration::from_millis(100)),
                max_hedges: 2,
            });
        }),
        "
        breaker b1
        call r1 b1
        +500ms gates b1
        succeeded a1
        gates b1
        call r2 b1
        +150ms failed a0.1 error
        +250ms failed a2.1 error
        failed a0.2 fatal
    "
    ));
}

#[test]
fn network_loss_stops_the_judging_but_not_a_callers_clock() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.attempt_timeout = secs(2);
            breaker.breaker.consecutive_failures = Some(1);
        }),
        "
        breaker b1
        call r1 b1 by 5s
        call r2 b1 by 20s
        network down
        +6s wait
        +2s network up
        +10s wait
    "
    ));
}

#[test]
fn a_late_wake_up_blames_nobody_before_the_answers_are_fed() {
    assert_snapshot!(story(
        with(|call, _| call.attempt_timeout = secs(2)),
        "
        breaker b1
        call r1 b1
        call r2 b1
        sleep 8s
        +1s succeeded r1
        +5s wait
    "
    ));
}

#[test]
fn a_new_process_has_no_calls_and_the_breaker_remembers() {
    assert_snapshot!(story(
        with(|_, breaker| {
            solvent(breaker);
            breaker.breaker.consecutive_failures = Some(2);
            breaker.calls.bulkhead.max_concurrent = 2;
            breaker.calls.bulkhead.max_waiting = 9;
        }),
        "
        breaker b1
        call r1 b1
        failed r1 error
        call r2 b1
        call r3 b1
        call r4 b1
        new-process
        succeeded a0
        gates b1
        call r2 b1
        failed r2 error
    "
    ));
}

#[test]
fn a_call_takes_the_name_of_one_that_its_process_left_behind() {
    const CALLS: u64 = 40;
    let mut config = plain();
    config.limits.max_work_per_step = 16;
    let mut script = String::from("breaker b1\n");
    for call in 1..=CALLS {
        script += &format!("call r{call} b1\n");
    }
    script += &format!("restarted\ncall r{CALLS} b1\n+1s succeeded r{CALLS}\ngates b1");
    let (timeline, manager) = play(config, &script);
    // The last one is forgotten in silence, for its name means another call now.
    assert_eq!(timeline.matches("give up").count() as u64, CALLS - 1);
    assert_eq!(manager.stats().give_ups.restarted, CALLS);
    assert_eq!(manager.stats().calls_done, 1);
    assert_snapshot!(timeline.lines().rev().take(2).collect::<Vec<_>>().join("\n"));
}

#[test]
fn names_and_targets_that_do_not_exist() {
    assert_snapshot!(story(
        plain(),
        "
        call r1 b1
        breaker b1
        call r1 p9@b1
        call r1 b1
        call r1 b1
        cancel r2
        failed a7 error
        remove-breaker b1
    "
    ));
}

#[test]
fn a_breaker_that_shares_its_group_with_open_ones_stays_closed() {
    let mut config = with(|_, breaker| {
        breaker.breaker.consecutive_failures = Some(1);
        breaker.group = Some("replicas".into());
        solvent(breaker);
    });
    config.call_profiles[0].max_attempts = 1;
    config.breaker_groups =
        vec![BreakerGroup { name: "replicas".into(), ..BreakerGroup::default() }];
    assert_snapshot!(story(
        config,
        "
        breaker b1
        breaker b2
        call r1 b1
        failed r1 error
        call r2 b2
        failed r2 error
        call r3 b2
        +5s call r4 b1
        succeeded r4
        failed r3 error
    "
    ));
}

#[test]
fn a_server_that_hangs_opens_the_breaker_before_any_attempt_times_out() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.breaker.slow_after = Some(secs(1));
            breaker.breaker.slow_in_flight = true;
            breaker.breaker.rates = Some(RateRule {
                min_calls: 3,
                slow_rate: Some(Ratio::percent(50)),
                ..RateRule::default()
            });
        }),
        "
        breaker b1
        call r1 b1
        +100ms succeeded r1
        +100ms call r2 b1
        +100ms call r3 b1
        +100ms call r4 b1
        +2s call r5 b1
        why r2
        +5s wait
    "
    ));
}

#[test]
fn what_hung_while_the_network_was_away_is_not_held_against_the_server() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.breaker.slow_after = Some(secs(1));
            breaker.breaker.slow_in_flight = true;
            breaker.breaker.rates = Some(RateRule {
                min_calls: 1,
                slow_rate: Some(Ratio::percent(50)),
                ..RateRule::default()
            });
        }),
        "
        breaker b1
        call r1 b1
        +500ms network down
        +3s network up
        call r2 b1
        +5s wait
    "
    ));
}

#[test]
fn a_breaker_that_only_watches_tells_what_it_would_do_and_refuses_nobody() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.breaker.consecutive_failures = Some(2);
            breaker.watch_only = true;
        }),
        "
        breaker b1
        call r1 b1
        failed r1 error
        call r2 b1
        failed r2 error
        call r3 b1
        watch-only b1 off
        call r4 b1
        watch-only b1 on
        +5s call r5 b1
        call r6 b1
        succeeded r6
        succeeded r5
        watch-only b1 on
        force-open b1
        call r7 b1
    "
    ));
}

#[test]
fn after_it_closed_a_breaker_lets_the_load_grow_again() {
    assert_snapshot!(story(
        with(|call, breaker| {
            call.max_attempts = 1;
            breaker.breaker.consecutive_failures = Some(1);
            breaker.breaker.ramp_for = Some(secs(10));
        }),
        "
        breaker b1
        call r1 b1
        failed r1 error
        +5s call r2 b1
        succeeded r2
        call r3 b1
        +5s call r4 b1
        call r5 b1
        call r6 b1
        call r7 b1
        +5s call r8 b1
    "
    ));
}

#[test]
fn a_peer_that_will_not_be_dialed_in_time_is_not_waited_for() {
    assert_snapshot!(story(
        with(|_, breaker| breaker.breaker.consecutive_failures = Some(1)),
        "
        breaker b1
        breaker b2
        peer p1 b1
        connect p1
        dial-failed p1 refused
        call r1 p1@b2 by 900ms
        call r2 p1@b2 by 2s
        +1500ms call r3 p1@b2 by 3s
        call r4 p1@b2 by 4s
        force-open b1
        call r5 p1@b2 by 3s
        disconnect p1
    "
    ));
}

/// Found by the random scripts: the wait began anew at every turn, for ever.
#[test]
fn a_retry_behind_a_breaker_that_stands_still_with_the_network_is_given_up() {
    assert_snapshot!(story(
        with(|_, breaker| {
            solvent(breaker);
            breaker.breaker.consecutive_failures = Some(2);
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        failed r1 error
        failed r2 error
        +2s network down
        +10s wait
        call r3 b1
    "
    ));
}

/// Found by the random scripts: the two endpoints sent the peer to each other, for ever.
#[test]
fn a_half_open_endpoint_that_is_only_watched_is_no_probe_of_its_own() {
    let mut config = plain();
    config.peer_profiles[0].attempt_delay = Duration::ZERO;
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    assert_snapshot!(story(
        config,
        "
        breaker b1
        breaker b2
        peer p1 b1 b2
        watch-only b1 on
        connect p1
        dial-failed p1 refused
        connected p1
        +500ms lost p1 reset
        +6s dial-failed p1 refused
        connected p1
        lost p1 reset
        revive p1
        connected p1
    "
    ));
}

#[test]
fn a_hedge_that_the_breaker_refused_is_not_counted_as_one() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.hedged = true;
            breaker.breaker.consecutive_failures = Some(2);
            breaker.breaker.ramp_for = Some(secs(10));
            breaker.calls.hedge = Some(HedgeConfig {
                delay: HedgeDelay::After(Duration::from_millis(100)),
                max_hedges: 1,
            });
        }),
        "
        breaker b1
        call r1 b1
        failed r1 fatal
        call r2 b1
        failed r2 fatal
        +5s call r3 b1
        succeeded r3
        call r4 b1
        +9s gates b1
        failed r4 disconnected
        +2s gates b1
    "
    ));
}

#[test]
fn hedges_end_where_the_attempts_do() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.hedged = true;
            call.max_attempts = 2;
            breaker.calls.hedge = Some(HedgeConfig {
                delay: HedgeDelay::After(Duration::from_millis(100)),
                max_hedges: 2,
            });
        }),
        "
        breaker b1
        call r1 b1
        +1s gates b1
        failed r1 error
    "
    ));
}

#[test]
fn a_call_whose_connection_is_gone_is_not_hedged() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.hedged = true;
            breaker.calls.hedge = Some(HedgeConfig {
                delay: HedgeDelay::After(Duration::from_millis(100)),
                max_hedges: 1,
            });
        }),
        "
        breaker b1
        breaker b2
        peer p1 b1
        connect p1
        connected p1
        call r1 p1@b2
        +50ms lost p1 reset
        +1s gates b2
        failed r1 disconnected
    "
    ));
}

#[test]
fn the_statistics_count_each_order_that_was_given() {
    let config = with(|call, breaker| {
        call.hedged = true;
        call.attempt_timeout = secs(2);
        breaker.calls.budget.as_mut().unwrap().initial = 2;
        breaker.calls.hedge = Some(HedgeConfig {
            delay: HedgeDelay::After(Duration::from_millis(100)),
            max_hedges: 1,
        });
    });
    let (timeline, manager) = play(
        config,
        "
        breaker b1
        breaker b2
        peer p1 b2
        peer p2 b2
        connect p1
        call r1 b1
        +1s succeeded r1
        call r2 b1
        failed r2 error
        +1s network changed
        connect p2
        disconnect p2
        call r3 b1
        +1m wait
    ",
    );
    let stats = manager.stats();
    let orders = [" start a", " cancel a", " dial p", " cancel c", ", again +"];
    let told = orders.map(|order| timeline.matches(order).count() as u64);
    let (attempts, dials) = (stats.attempts, stats.dials);
    let (attempts_cancelled, dials_cancelled) = (stats.attempts_cancelled, stats.dials_cancelled);
    let counted = [attempts, attempts_cancelled, dials, dials_cancelled, stats.retries];
    assert_eq!(counted, told, "{timeline}");
    // Two that joined an attempt; for a third one, and for two retries, there was no token.
    assert_eq!((stats.hedges, stats.budget_refusals), (2, 3), "{timeline}");
    assert_snapshot!(timeline);
}

/// Found by the random scripts: a hedge was begun that had no time to be of use.
#[test]
fn a_hedge_that_would_have_too_little_time_is_not_begun() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.hedged = true;
            call.min_attempt = Duration::from_millis(50);
            breaker.calls.hedge = Some(HedgeConfig {
                delay: HedgeDelay::After(Duration::from_millis(100)),
                max_hedges: 1,
            });
        }),
        "
        breaker b1
        call r1 b1 by 150ms
        call r2 b1 by 149ms
        +1s gates b1
    "
    ));
}

/// Found by the random scripts: the answer was waiting, and the breaker opened.
#[test]
fn a_deadline_that_was_slept_through_is_not_held_against_the_server() {
    assert_snapshot!(story(
        with(|_, breaker| breaker.breaker.consecutive_failures = Some(1)),
        "
        breaker b1
        call r1 b1 by 2s
        call r2 b1
        sleep 3s
        succeeded r2
        call r3 b1 by 2s
        +2s wait
    "
    ));
}

#[test]
fn a_deadline_at_the_very_end_of_our_patience_is_held_against_the_server() {
    // Late by 1 s, so that judgement holds until +4s.
    assert_snapshot!(story(
        with(|_, breaker| breaker.breaker.consecutive_failures = Some(1)),
        "
        breaker b1
        call r1 b1 by 4s
        call r2 b1 by 2s
        sleep 3s
        +1s wait
    "
    ));
}

#[test]
fn at_the_end_of_our_patience_a_fact_ends_what_is_overdue_as_a_tick_does() {
    assert_snapshot!(story(
        plain(),
        "
        breaker b1
        call r1 b1 by 1s
        call r2 b1
        late 1300ms succeeded r2
        late 240ms load 1%
        late 60ms load 2%
    "
    ));
}

#[test]
fn a_probe_whose_time_is_up_at_the_very_end_of_our_patience_has_failed() {
    // Late by 1 s, so that judgement holds until +9s.
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.breaker.consecutive_failures = Some(1);
            breaker.breaker.probe_timeout = Some(secs(4));
            breaker.breaker.tolerate = 0;
        }),
        "
        breaker b1
        breaker b2
        call r1 b1
        failed r1 fatal
        +5s call r2 b1
        call r3 b2 by 2s
        sleep 3s
        +1s wait
    "
    ));
}

/// Found by the random scripts: it was told of as refused by a gate.
#[test]
fn a_retry_that_waits_for_a_peer_that_is_removed_goes_with_it() {
    assert_snapshot!(story(
        with(|_, breaker| solvent(breaker)),
        "
        breaker b1
        breaker b2
        peer p1 b1
        connect p1
        connected p1
        call r1 p1@b2
        failed r1 error
        lost p1 eof
        call r2 p1@b2
        +1.5s remove p1
    "
    ));
}

/// Found by reading: the hint of an attempt was forgotten while another one ran.
#[test]
fn what_one_attempt_was_told_holds_for_those_that_follow() {
    assert_snapshot!(story(
        with(|call, breaker| {
            solvent(breaker);
            call.hedged = true;
            call.max_attempts = 4;
            breaker.calls.hedge = Some(HedgeConfig {
                delay: HedgeDelay::After(Duration::from_millis(100)),
                max_hedges: 2,
            });
        }),
        "
        breaker b1
        call r1 b1
        +150ms failed a0 throttled never
        +500ms failed a1 error
        call r2 b1
        +150ms failed r2 throttled 4s
        +500ms failed a1.1 error
    "
    ));
}

#[test]
fn a_line_that_is_full_because_of_the_rate_says_so() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.calls.rate = Some(BucketConfig { rate: Rate::per_second(1), burst: 1 });
            breaker.calls.bulkhead.max_waiting = 1;
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        call r3 b1
    "
    ));
}

#[test]
fn a_call_that_waits_does_not_revive_a_peer_that_gave_up() {
    let mut config = with(|call, _| call.not_connected = NotConnected::Connect);
    config.peer_profiles[0].max_attempts = Some(1);
    assert_snapshot!(story(
        config,
        "
        breaker b1
        breaker b2
        peer p1 b1
        call r1 p1@b2
        dial-failed p1 refused
        call r2 p1@b2
    "
    ));
}

/// Found by a reader: the throttle counted what the breaker refused, and outlived the outage.
#[test]
fn an_open_breaker_is_not_counted_by_the_throttle() {
    let mut script = String::from("breaker b1\ncall r1 b1\nfailed r1 error\n");
    for call in 2..=40 {
        script += &format!("+100ms call r{call} b1\n");
    }
    script += "+2s wait\ncall r41 b1\nsucceeded r41\ncall r42 b1\n";
    let config = with(|call, breaker| {
        call.max_attempts = 1;
        breaker.breaker.consecutive_failures = Some(1);
        breaker.calls.throttle = Some(ThrottleConfig::default());
    });
    let timeline = story(config, &script);
    assert!(!timeline.contains("throttled"), "{timeline}");
    assert_snapshot!(timeline.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
}

/// Found by a reader: cancelled calls, and a burst without an answer yet, looked like refusals.
#[test]
fn the_throttle_sheds_only_what_a_server_refuses() {
    let mut script = String::from("breaker b1\n");
    for call in 1..=30 {
        script += &format!("call r{call} b1\n");
    }
    for call in 1..=30 {
        script += &format!("cancel r{call}\n");
    }
    script += "call r31 b1\n";
    let config = with(|_, breaker| breaker.calls.throttle = Some(ThrottleConfig::default()));
    let timeline = story(config, &script);
    assert!(!timeline.contains("throttled"), "{timeline}");
}

#[test]
fn the_throttle_sheds_nothing_once_the_last_refusal_is_as_old_as_its_window() {
    let config = with(|call, breaker| {
        call.max_attempts = 1;
        let window = secs(10);
        breaker.calls.throttle = Some(ThrottleConfig { window, ..ThrottleConfig::default() });
    });
    let burst = |from: u64| {
        let calls = from..from + 30;
        calls.map(|call| format!("call r{call} b1\n")).collect::<String>()
    };
    let script = "breaker b1\ncall r1 b1\nfailed r1 error\n".to_owned() + &burst(10);
    let timeline = story(config.clone(), &script);
    assert!(timeline.contains("throttled"), "{timeline}");
    let script = "breaker b1\ncall r1 b1\nfailed r1 error\n+10s pass\n".to_owned() + &burst(10);
    let timeline = story(config, &script);
    assert!(!timeline.contains("throttled"), "{timeline}");
}

/// Found by a reader: all but one of those that had waited were given up when it half-opened.
#[test]
fn retries_go_on_waiting_while_probes_decide() {
    assert_snapshot!(story(
        with(|_, breaker| {
            solvent(breaker);
            breaker.breaker.consecutive_failures = Some(2);
        }),
        "
        breaker b1
        call r1 b1
        call r2 b1
        failed r1 error
        failed r2 error
        +7s why r2
        succeeded r1
        +5s wait
    "
    ));
}

/// Found by a reader: how long an answer took while we were away counted as slow.
#[test]
fn an_answer_that_came_over_our_own_outage_is_not_slow() {
    let slow = |breaker: &mut BreakerProfile| {
        breaker.breaker.slow_after = Some(secs(1));
        breaker.breaker.rates = Some(RateRule {
            min_calls: 1,
            slow_rate: Some(Ratio::percent(50)),
            ..RateRule::default()
        });
    };
    let over_an_outage = story(
        with(|_, breaker| slow(breaker)),
        "
        breaker b1
        call r1 b1
        +500ms network down
        +3s network up
        +10ms succeeded r1
    ",
    );
    let over_a_sleep = story(
        with(|_, breaker| slow(breaker)),
        "
        breaker b1
        call r1 b1
        sleep 20s
        +10ms succeeded r1
    ",
    );
    assert_snapshot!(over_an_outage + &over_a_sleep);
}

/// Found by a reader: the first answer that a late driver fed ended all other calls.
#[test]
fn a_driver_that_wakes_late_feeds_all_answers_before_anything_is_judged() {
    assert_snapshot!(story(
        plain(),
        "
        breaker b1
        call r1 b1 by 2s
        call r2 b1 by 2s
        call r3 b1 by 2s
        late 2300ms succeeded r1
        succeeded r2
        +10ms wait
    "
    ));
}

/// Found by a reader: a probe that our outage cut off opened the breaker again.
#[test]
fn a_probe_that_our_own_outage_cut_off_is_no_failure() {
    assert_snapshot!(story(
        with(|_, breaker| {
            breaker.breaker.probe_timeout = Some(secs(2));
            breaker.breaker.consecutive_failures = Some(1);
        }),
        "
        breaker b1
        call r1 b1
        failed r1 error
        +5s call r2 b1
        +500ms network down
        +1s network up
        +3s wait
        failed r2 disconnected
        call r3 b1
    "
    ));
}

#[test]
fn a_breaker_that_stands_still_with_the_network_says_no_moment_that_is_over() {
    assert_snapshot!(story(
        with(|_, breaker| breaker.breaker.consecutive_failures = Some(1)),
        "
        breaker b1
        call r1 b1
        failed r1 fatal
        +1s network down
        call r2 b1
        +4s call r3 b1
    "
    ));
}

#[test]
fn a_retry_that_could_begin_no_sooner_than_its_deadline_is_not_waited_for() {
    assert_snapshot!(story(
        with(|_, breaker| {
            solvent(breaker);
            breaker.breaker.consecutive_failures = Some(2);
        }),
        "
        breaker b1
        call r1 b1 by 6s
        call r2 b1 by 6001ms
        failed r1 error
        failed r2 error
        +2s wait
    "
    ));
}

#[test]
fn a_retry_that_the_rate_refuses_waits_for_it() {
    assert_snapshot!(story(
        with(|_, breaker| {
            solvent(breaker);
            let rate = Rate { count: 1, per: secs(5) };
            breaker.calls.rate = Some(BucketConfig { rate, burst: 1 });
        }),
        "
        breaker b1
        call r1 b1
        failed r1 error
        +7s succeeded r1
    "
    ));
}

/// Found by a reader: an order that cleared the count was said to have changed nothing.
#[test]
fn resetting_a_closed_breaker_clears_its_count() {
    assert_snapshot!(story(
        with(|call, breaker| {
            call.max_attempts = 1;
            breaker.breaker.consecutive_failures = Some(2);
        }),
        "
        breaker b1
        call r1 b1
        failed r1 error
        reset b1
        call r2 b1
        failed r2 error
        call r3 b1
        failed r3 error
    "
    ));
}

/// Of two answers at least, after half a second before.
fn hedged_at_the_median() -> Config {
    let share = Ratio::percent(50);
    let before = Duration::from_millis(500);
    with(|call, breaker| {
        solvent(breaker);
        call.hedged = true;
        breaker.calls.hedge = Some(HedgeConfig {
            delay: HedgeDelay::Percentile { share, min_samples: 2, before },
            max_hedges: 1,
        });
    })
}

#[test]
fn what_a_hedge_waits_for_is_not_learned_from_hedges() {
    assert_snapshot!(story(
        hedged_at_the_median(),
        "
        breaker b1
        call r1 b1
        +501ms succeeded a0
        call r2 b1
        +502ms succeeded r2
        call r3 b1
        +503ms succeeded r3
        call r4 b1
        +503ms failed a1.3 unavailable
        +1ms succeeded r4
        call r5 b1
        +600ms succeeded r5
    "
    ));
}

#[test]
fn what_a_hedge_waits_for_is_learned_from_whole_answers_alone() {
    assert_snapshot!(story(
        hedged_at_the_median(),
        "
        breaker b1
        call r1 b1
        +100ms succeeded r1
        call r2 b1
        +1ms failed r2 fatal
        call r3 b1
        network down
        +400ms network up
        +1ms succeeded r3
        call r4 b1
        late 800ms succeeded r4
        call r5 b1
        +600ms succeeded r5
        call r6 b1
        +200ms succeeded r6
    "
    ));
}
