//! Calls under a paused clock: attempts, retries, hedges, and callers that go away.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{CALLS, World, add_peers, all_up, at_rest, sound, start, with_budget};
use steadfast_tokio::steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast_tokio::steadfast::{GiveUpReason, RejectReason, Target};
use steadfast_tokio::{
    BreakerId, Call, CallError, CallFailure, CallProfileId, Failure, LossCause, PeerId, RetryAfter,
    config,
};
use tokio::time::{Instant, sleep, timeout};

const PEER: PeerId = PeerId(0);
const DEFAULT: CallProfileId = CallProfileId(0);

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_is_tried_again_and_its_value_comes_back() {
    let handle = start(&World::new(), with_budget());
    let answer = handle
        .with_retry(CALLS, DEFAULT, |attempt| async move {
            match attempt.number {
                1 => Err(Failure::new(CallFailure::Unavailable, "away")),
                number => Ok(number),
            }
        })
        .await;
    assert_eq!(answer, Ok(2));
    assert_eq!((handle.stats().attempts, handle.stats().retries), (2, 1));
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_plain_error_is_passed_through_with_the_reason_of_giving_up() {
    let handle = start(&World::new(), with_budget());
    let failing = |attempt: steadfast_tokio::Attempt| async move {
        let number: Result<u32, String> = Err(format!("no {}", attempt.number));
        Ok(number?)
    };
    let error = handle.with_retry(CALLS, DEFAULT, failing).await.unwrap_err();
    let reason = GiveUpReason::TooManyAttempts;
    let last = Some(CallFailure::Error);
    assert_eq!(error, CallError::GaveUp { reason, last, error: Some("no 3".to_owned()) });
    assert_eq!(error.to_string(), "given up: TooManyAttempts, last attempt: Error: no 3");
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_dropped_at_its_timeout() {
    let handle = start(&World::new(), with_budget());
    let alive = Arc::new(());
    let began = Instant::now();
    let error = handle
        .with_retry(CALLS, DEFAULT, |_| {
            let alive = Arc::clone(&alive);
            async move {
                pending::<()>().await;
                drop(alive);
                Ok::<_, Failure<String>>(())
            }
        })
        .await
        .unwrap_err();
    let reason = GiveUpReason::Deadline;
    let last = Some(CallFailure::Timeout);
    assert_eq!(error, CallError::GaveUp { reason, last, error: None });
    assert!(began.elapsed() <= Duration::from_millis(30_001), "{:?}", began.elapsed());
    assert_eq!(Arc::strong_count(&alive), 1);
    assert_eq!(handle.stats().attempt_failures.timeout, 3);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_open_refuses_and_says_until_when() {
    let handle = start(&World::new(), config(1));
    let failing = |_| async { Err::<(), _>(Failure::new(CallFailure::Fatal, "no")) };
    for _ in 0..5 {
        handle.with_retry(CALLS, DEFAULT, failing).await.unwrap_err();
    }
    let error = handle.with_retry(CALLS, DEFAULT, failing).await.unwrap_err();
    let CallError::Rejected { reason: RejectReason::BreakerOpen, retry_after: Some(after) } = error
    else {
        panic!("{error:?}");
    };
    sleep(after).await;
    let answer = handle.with_retry(CALLS, DEFAULT, |_| async { Ok::<_, Failure<()>>(1) }).await;
    assert_eq!(answer, Ok(1), "whoever comes back when told gets in");
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn the_servers_hint_is_obeyed() {
    let handle = start(&World::new(), with_budget());
    let began = Instant::now();
    let answer = handle
        .with_retry(CALLS, DEFAULT, |attempt| async move {
            let hint = RetryAfter::After(Duration::from_secs(7));
            match attempt.number {
                1 => Err(Failure::new(CallFailure::Throttled, "later").with_retry_after(hint)),
                _ => Ok(()),
            }
        })
        .await;
    assert_eq!(answer, Ok(()));
    assert!(began.elapsed() >= Duration::from_secs(7));
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_joins_a_slow_attempt_and_the_loser_is_dropped() {
    let mut config = with_budget();
    let delay = HedgeDelay::After(Duration::from_millis(50));
    config.breaker_profiles[1].calls.hedge = Some(HedgeConfig { delay, max_hedges: 1 });
    let handle = start(&World::new(), config);
    let hedged = handle.call_profile("hedged").unwrap();
    let alive = Arc::new(());
    let began = Instant::now();
    let answer = handle
        .with_retry(CALLS, hedged, |attempt| {
            let alive = Arc::clone(&alive);
            async move {
                let _alive = alive;
                sleep(Duration::from_millis(if attempt.number == 1 { 1_000 } else { 10 })).await;
                Ok::<_, Failure<()>>(attempt.number)
            }
        })
        .await;
    assert_eq!(answer, Ok(2));
    assert!(began.elapsed() < Duration::from_millis(70), "{:?}", began.elapsed());
    assert_eq!(Arc::strong_count(&alive), 1);
    assert_eq!(handle.stats().hedges, 1);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_peer_and_is_given_the_connection() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    let conn = handle
        .with_connection(PEER, CALLS, DEFAULT, |_, conn| async move { Ok::<_, Failure<()>>(conn) })
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&conn, &handle.connection(PEER).unwrap()));
    let fail_fast = handle.call_profile("fail-fast").unwrap();
    handle.disconnect(PEER).unwrap();
    let refused = handle
        .with_connection(PEER, CALLS, fail_fast, |_, _| async { Ok::<_, Failure<()>>(()) })
        .await;
    let reason = RejectReason::NotConnected;
    assert_eq!(refused, Err(CallError::Rejected { reason, retry_after: None }));
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_with_its_connection_and_the_next_goes_over_the_new_one() {
    let world = World::new();
    let handle = start(&world, with_budget());
    add_peers(&handle, 3);
    all_up(&handle, 3).await;
    let calls: Vec<_> = (0..30_u64)
        .map(|call| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let peer = PeerId(call % 3);
                handle
                    .with_connection(peer, CALLS, DEFAULT, |attempt, conn| async move {
                        if attempt.number == 1 && peer == PEER {
                            pending::<()>().await;
                        }
                        assert!(!conn.is_over());
                        sleep(Duration::from_millis(100)).await;
                        Ok::<_, Failure<()>>(attempt.number)
                    })
                    .await
            })
        })
        .collect();
    sleep(Duration::from_millis(10)).await;
    let conn = handle.connection(PEER).unwrap();
    conn.end(LossCause::Reset);
    let mut attempts = 0;
    for call in calls {
        attempts += call.await.unwrap().map_or(0, |number| number);
    }
    assert_eq!(handle.stats().attempt_failures.disconnected, 10);
    assert_eq!(attempts, 20 + 10 * 2);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_before_the_end_of_its_connection_counts() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    handle.connected(PEER).await.unwrap();
    let answer = handle
        .with_connection(PEER, CALLS, DEFAULT, |attempt, conn| async move {
            let (sender, answer) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                sleep(Duration::from_millis(10)).await;
                conn.end(LossCause::Eof);
                sender.send(attempt.number).unwrap();
            });
            answer.await.map_err(Failure::from)
        })
        .await;
    assert_eq!(answer, Ok(1));
    assert_eq!(handle.stats().losses.eof, 1);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn attempts_over_a_connection_that_we_closed_count_against_nobody() {
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    handle.connected(PEER).await.unwrap();
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let hang = |_, _| pending::<Result<(), Failure<()>>>();
                handle.with_connection(PEER, CALLS, DEFAULT, hang).await
            })
        })
        .collect();
    sleep(Duration::from_millis(10)).await;
    handle.disconnect(PEER).unwrap();
    handle.connect(PEER).ok();
    for call in calls {
        assert!(call.await.unwrap().is_err());
    }
    assert_eq!(handle.stats().attempt_failures.local, 10);
    assert_eq!(handle.stats().breakers.open, 0);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_gives_everything_back_and_the_next_in_line_starts() {
    let mut config = config(1);
    let bulkhead = &mut config.breaker_profiles[1].calls.bulkhead;
    (bulkhead.max_concurrent, bulkhead.max_waiting) = (1, 10);
    bulkhead.max_wait = Some(Duration::from_secs(20));
    let handle = start(&World::new(), config);
    let (running, waiting) = (Arc::new(AtomicU32::new(0)), handle.clone());
    let first = handle.with_retry(CALLS, DEFAULT, |_| pending::<Result<(), Failure<()>>>());
    let mut first = Box::pin(first);
    assert!(timeout(Duration::ZERO, &mut first).await.is_err());
    let started = Arc::clone(&running);
    let second = tokio::spawn(async move {
        let run = |_| {
            started.fetch_add(1, SeqCst);
            async { Ok::<_, Failure<()>>(()) }
        };
        waiting.with_retry(CALLS, DEFAULT, run).await
    });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.load(SeqCst), 0, "it waits");
    drop(first);
    assert_eq!(second.await.unwrap(), Ok(()));
    assert_eq!(handle.stats().give_ups.dropped, 1);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_gives_everything_back() {
    let handle = start(&World::new(), config(1));
    let clone = handle.clone();
    let run = async move {
        let panics = |_| async { panic!("this attempt panics, as the test wants") };
        clone.with_retry::<(), (), _, _>(CALLS, DEFAULT, panics).await
    };
    assert!(tokio::spawn(run).await.unwrap_err().is_panic());
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_calls_own_comes_first() {
    let handle = start(&World::new(), config(1));
    let began = Instant::now();
    let call = Call { target: Target::Breaker(CALLS), profile: DEFAULT, within: None };
    let call = call.within(Duration::from_millis(300));
    let hang = |_, _| pending::<Result<(), Failure<()>>>();
    let error = handle.call(call, hang).await.unwrap_err();
    assert!(matches!(error, CallError::GaveUp { reason: GiveUpReason::Deadline, .. }), "{error:?}");
    assert!(began.elapsed() <= Duration::from_millis(301), "{:?}", began.elapsed());
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_calls_and_then_gives_them_up() {
    let handle = start(&World::new(), config(1));
    let spawn = |millis| {
        let handle = handle.clone();
        tokio::spawn(async move {
            let run = |_| async move {
                sleep(Duration::from_millis(millis)).await;
                Ok::<_, Failure<()>>(millis)
            };
            handle.with_retry(CALLS, DEFAULT, run).await
        })
    };
    let (short, long) = (spawn(500), spawn(5_000));
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    let shutdown = handle.shutdown(Duration::from_secs(1)).await;
    assert_eq!(shutdown.calls_given_up, 1);
    assert!(began.elapsed() <= Duration::from_millis(1_100), "{:?}", began.elapsed());
    assert_eq!(short.await.unwrap(), Ok(500));
    assert_eq!(long.await.unwrap(), Err(CallError::ShutDown));
    let late = handle.with_retry(CALLS, DEFAULT, |_| async { Ok::<_, Failure<()>>(()) }).await;
    assert_eq!(late, Err(CallError::ShutDown));
    assert_eq!(handle.underway(), steadfast_tokio::Underway::default());
}

#[tokio::test(start_paused = true)]
async fn two_attempts_over_one_broken_connection_both_fail_once() {
    let world = World::new();
    let mut config = with_budget();
    let delay = HedgeDelay::After(Duration::from_millis(50));
    config.breaker_profiles[1].calls.hedge = Some(HedgeConfig { delay, max_hedges: 1 });
    let handle = start(&world, config);
    add_peers(&handle, 1);
    handle.connected(PEER).await.unwrap();
    let hedged = handle.call_profile("hedged").unwrap();
    let alive = Arc::new(());
    let clone = (handle.clone(), Arc::clone(&alive));
    let call = tokio::spawn(async move {
        let (handle, alive) = clone;
        handle
            .with_connection(PEER, CALLS, hedged, |attempt, _| {
                let alive = Arc::clone(&alive);
                async move {
                    let _alive = alive;
                    if attempt.number <= 2 {
                        pending::<()>().await;
                    }
                    Ok::<_, Failure<()>>(attempt.number)
                }
            })
            .await
    });
    sleep(Duration::from_millis(100)).await;
    let stats = handle.stats();
    assert_eq!((stats.hedges, stats.attempts_in_flight), (1, 2));
    assert_eq!(Arc::strong_count(&alive), 1 + 1 + 2);
    assert_eq!(world.cut(LossCause::Reset), 1);
    sleep(Duration::from_millis(1)).await;
    let stats = handle.stats();
    assert_eq!((stats.attempt_failures.disconnected, stats.attempt_failures.total()), (2, 2));
    assert_eq!(stats.attempts_in_flight, 0);
    assert_eq!(Arc::strong_count(&alive), 1 + 1, "neither is left");
    let ended = call.await.unwrap();
    let attempts = handle.stats().attempts;
    match ended {
        Ok(number) => assert_eq!((number, attempts), (3, 3)),
        Err(CallError::GaveUp { last, .. }) => {
            assert_eq!((last, attempts), (Some(CallFailure::Disconnected), 2));
        }
        Err(other) => panic!("{other:?}"),
    }
    assert_eq!(handle.stats().attempt_failures.total(), 2);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn the_profiles_that_a_driver_starts_with_hedge_without_more_settings() {
    let mut config = config(1);
    assert_eq!(config.warnings(), []);
    let budget = config.breaker_profiles[2].calls.budget.as_mut().unwrap();
    budget.initial = budget.capacity;
    let handle = start(&World::new(), config);
    let breaker = BreakerId(3);
    handle.add_breaker(breaker, "hedged").unwrap();
    let hedged = handle.call_profile("hedged").unwrap();
    let answer = handle.with_retry(breaker, hedged, |attempt| async move {
        if attempt.number == 1 {
            pending::<()>().await;
        }
        Ok::<_, Failure<()>>(attempt.number)
    });
    assert_eq!(answer.await, Ok(2));
    assert_eq!(handle.stats().hedges, 1);
    sound(&handle);
}
