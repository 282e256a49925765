//! What the layer makes of answers, and which requests it repeats. Under a paused clock.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{CALLS, Fake, World, at_rest, start, with_budget};
use steadfast_tokio::steadfast::GiveUpReason;
use steadfast_tokio::steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast_tokio::tower::{GuardLayer, Once, Policy, Verdict};
use steadfast_tokio::{Call, CallError, CallFailure, CallProfileId, Handle, RetryAfter, config};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt as _, service_fn};

const DEFAULT: CallProfileId = CallProfileId(0);

fn layer(handle: &Handle<Fake>) -> GuardLayer<Fake> {
    GuardLayer::new(handle.clone(), Call::through(CALLS, DEFAULT))
}

/// A profile of one attempt.
fn single(handle: &Handle<Fake>) -> GuardLayer<Fake> {
    let profile = handle.call_profile("fail-fast").unwrap();
    GuardLayer::new(handle.clone(), Call::through(CALLS, profile))
}

#[derive(Debug, PartialEq, Eq)]
struct Unboxed(&'static str);

/// Fails so many times, and then answers with the request itself.
fn failing<Req: Send + 'static>(
    times: usize,
) -> impl Service<Req, Response = Req, Error = Unboxed, Future: Send> + Clone + Send + 'static {
    let count = Arc::new(AtomicUsize::new(0));
    service_fn(move |request| {
        let fails = count.fetch_add(1, SeqCst) < times;
        ready(if fails { Err(Unboxed("failed")) } else { Ok(request) })
    })
}

/// Answers 503 so many times and then 200, each with the number of the attempt.
fn unavailable(
    times: usize,
) -> impl Service<(), Response = Status, Error = Unboxed, Future: Send> + Clone + Send + 'static {
    let count = Arc::new(AtomicUsize::new(0));
    service_fn(move |()| {
        let number = count.fetch_add(1, SeqCst) + 1;
        ready(Ok((number, if number <= times { 503 } else { 200 })))
    })
}

type Status = (usize, u16);

fn judge(answer: &Result<Status, Unboxed>) -> Verdict {
    let retry_after = Some(RetryAfter::After(Duration::from_secs(3)));
    match answer {
        Ok((_, 503)) => Verdict::Failed { kind: CallFailure::Unavailable, retry_after },
        _ => Verdict::Success,
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_judged_a_failure_is_tried_again_when_the_server_says() {
    let handle = start(&World::new(), with_budget());
    let began = Instant::now();
    let service = layer(&handle).policy(judge).layer(unavailable(1));
    assert_eq!(service.oneshot(()).await, Ok((2, 200)));
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn the_last_response_is_given_back_though_it_was_judged_a_failure() {
    let handle = start(&World::new(), with_budget());
    let service = layer(&handle).policy(judge).layer(unavailable(9));
    assert_eq!(service.oneshot(()).await, Ok((3, 503)));
    let stats = handle.stats();
    assert_eq!((stats.attempt_failures.unavailable, stats.give_ups.too_many_attempts), (3, 1));
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_judged_a_success_is_given_back_and_counts_as_one() {
    let handle = start(&World::new(), config(1));
    let lenient = |_: &Result<u8, Unboxed>| Verdict::Success;
    let service = layer(&handle).policy(lenient).layer(failing(1));
    let error = service.oneshot(7).await.unwrap_err();
    let (reason, last) = (GiveUpReason::NotRetryable, None);
    assert_eq!(error, CallError::GaveUp { reason, last, error: Some(Unboxed("failed")) });
    assert_eq!(handle.stats().calls_done, 1);
    at_rest(&handle);
}

/// A request that cannot be cloned.
#[derive(Debug, PartialEq, Eq)]
struct Stream;

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_cloned_is_made_once() {
    for failures in [0, 1] {
        let handle = start(&World::new(), with_budget());
        let service = layer(&handle).policy(Once).layer(failing(failures));
        let answer = service.oneshot(Stream).await;
        let (reason, last) = (GiveUpReason::ServerSaidNo, Some(CallFailure::Error));
        match failures {
            0 => assert_eq!(answer, Ok(Stream)),
            _ => {
                let error = Some(Unboxed("failed"));
                assert_eq!(answer, Err(CallError::GaveUp { reason, last, error }));
            }
        }
        assert_eq!((handle.stats().attempts, handle.stats().retries), (1, 0));
        at_rest(&handle);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_cloned_is_not_made_again_after_a_timeout() {
    let handle = start(&World::new(), with_budget());
    let hangs = service_fn(|_: Stream| pending::<Result<(), Unboxed>>());
    let error = layer(&handle).policy(Once).layer(hangs).oneshot(Stream).await.unwrap_err();
    let (reason, last) = (GiveUpReason::ServerSaidNo, Some(CallFailure::Local));
    assert_eq!(error, CallError::GaveUp { reason, last, error: None });
    assert_eq!(handle.stats().attempts, 2, "the second is where it is noticed");
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_joined_by_a_clone_or_goes_on_alone() {
    let mut config = with_budget();
    let delay = HedgeDelay::After(Duration::from_millis(50));
    config.breaker_profiles[1].calls.hedge = Some(HedgeConfig { delay, max_hedges: 1 });
    let handle = start(&World::new(), config);
    let hedged = Call::through(CALLS, handle.call_profile("hedged").unwrap());
    let layer = GuardLayer::new(handle.clone(), hedged);
    let count = Arc::new(AtomicUsize::new(0));
    let slow_at_first = service_fn(move |()| {
        let number = count.fetch_add(1, SeqCst);
        async move {
            sleep(Duration::from_millis(if number == 0 { 1_000 } else { 10 })).await;
            Ok::<_, Unboxed>(number)
        }
    });
    assert_eq!(layer.clone().layer(slow_at_first).oneshot(()).await, Ok(1));
    let slow = service_fn(|stream: Stream| async {
        sleep(Duration::from_secs(1)).await;
        Ok::<_, Unboxed>(stream)
    });
    assert_eq!(layer.policy(Once).layer(slow).oneshot(Stream).await, Ok(Stream));
    assert_eq!(handle.stats().hedges, 2);
    at_rest(&handle);
}

/// Counts how often a request was to be repeated.
struct Counting(Arc<AtomicUsize>);

impl Policy<u8, u8, Unboxed> for Counting {
    fn again(&self, request: &u8) -> Option<u8> {
        self.0.fetch_add(1, SeqCst);
        Some(*request)
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_cloned_for_an_attempt_that_the_profile_does_not_allow() {
    let handle = start(&World::new(), with_budget());
    for (layer, attempts, clones) in [(single(&handle), 1, 0), (layer(&handle), 3, 2)] {
        let counted = Arc::new(AtomicUsize::new(0));
        let before = handle.stats().attempts;
        let service = layer.policy(Counting(Arc::clone(&counted))).layer(failing(9));
        assert!(service.oneshot(7).await.is_err());
        assert_eq!(handle.stats().attempts - before, attempts);
        assert_eq!(counted.load(SeqCst), clones);
    }
    at_rest(&handle);
}
