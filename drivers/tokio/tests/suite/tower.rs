//! The contract of tower's services, kept by the layer. Under a paused clock.

use std::future::{Ready, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::{CALLS, Fake, World, at_rest, sound, start, with_budget};
use steadfast_tokio::steadfast::{GiveUpReason, RejectReason, breaker::State};
use steadfast_tokio::tower::{BoxedCallError, Guard, GuardLayer, Repeat, Verdict};
use steadfast_tokio::{Call, CallError, CallFailure, CallProfileId, Failure, Handle, config};
use tokio::time::{Instant, sleep, timeout};
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::{LoadShedLayer, error::Overloaded};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock::{self, Mock};

const DEFAULT: CallProfileId = CallProfileId(0);

fn layer(handle: &Handle<Fake>) -> GuardLayer<Fake> {
    GuardLayer::new(handle.clone(), Call::through(CALLS, DEFAULT))
}

/// A profile of one attempt.
fn single(handle: &Handle<Fake>) -> GuardLayer<Fake> {
    let profile = handle.call_profile("fail-fast").unwrap();
    GuardLayer::new(handle.clone(), Call::through(CALLS, profile))
}

type Mocked<P = Repeat> = Guard<Mock<&'static str, &'static str>, Fake, P>;

/// A mock that is not ready behind a guard.
fn mocked<P>(layer: &GuardLayer<Fake, P>) -> (Mocked<P>, mock::Handle<&'static str, &'static str>) {
    let (service, mut server) = mock::pair();
    server.allow(0);
    (layer.layer(service), server)
}

/// Opens the breaker; until when.
async fn open(handle: &Handle<Fake>) -> Duration {
    let failing = |_| async { Err::<(), _>(Failure::new(CallFailure::Fatal, "no")) };
    while handle.breaker_state(CALLS) == Some(State::Closed) {
        handle.with_retry(CALLS, DEFAULT, failing).await.unwrap_err();
    }
    match handle.breaker_state(CALLS) {
        Some(State::Open { until }) => until.since(handle.now()),
        state => panic!("{state:?}"),
    }
}

/// Ready when it is asked for the second time, each clone for itself; calling one that is not ready
/// fails the test.
#[derive(Debug)]
struct Strict {
    asked: u32,
    polls: Arc<AtomicUsize>,
    /// Calls that fail before one succeeds.
    failures: Arc<AtomicUsize>,
}

impl Strict {
    fn failing(failures: usize) -> Self {
        let failures = Arc::new(AtomicUsize::new(failures));
        Self { asked: 0, polls: Arc::default(), failures }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { asked: 0, polls: Arc::clone(&self.polls), failures: Arc::clone(&self.failures) }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Unboxed(&'static str);

impl<Req> Service<Req> for Strict {
    type Response = Req;
    type Error = Unboxed;
    type Future = Ready<Result<Req, Unboxed>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unboxed>> {
        self.polls.fetch_add(1, SeqCst);
        self.asked += 1;
        if self.asked > 1 {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(self.asked > 1, "this one is not ready");
        self.asked = 0;
        let fails = self.failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        ready(if fails { Err(Unboxed("failed")) } else { Ok(request) })
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_calls_the_very_clone_that_was_ready() {
    let handle = start(&World::new(), with_budget());
    let inner = Strict::failing(2);
    let polls = Arc::clone(&inner.polls);
    let mut service = layer(&handle).layer(inner);
    assert_eq!(ServiceExt::<u8>::ready(&mut service).await.unwrap().call(7).await, Ok(7));
    assert_eq!((polls.load(SeqCst), handle.stats().attempts), (6, 3));
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_passed_on_as_it_is() {
    fn same<S: Service<u8, Error = CallError<Unboxed>>>(service: S) -> S {
        service
    }
    let handle = start(&World::new(), with_budget());
    let service = same(layer(&handle).layer(Strict::failing(9)));
    let error = tokio::spawn(service.oneshot(7)).await.unwrap().unwrap_err();
    let (reason, last) = (GiveUpReason::TooManyAttempts, Some(CallFailure::Error));
    assert_eq!(error, CallError::GaveUp { reason, last, error: Some(Unboxed("failed")) });
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_refuses_before_the_service_is_asked_whether_it_is_ready() {
    let handle = start(&World::new(), config(1));
    open(&handle).await;
    let began = Instant::now();
    let (mut service, mut server) = mocked(&layer(&handle));
    let error = service.ready().await.unwrap().call("hello").await.unwrap_err();
    assert!(matches!(error, CallError::Rejected { reason: RejectReason::BreakerOpen, .. }));
    assert!(server.poll_request().is_pending());
    let inner = Strict::failing(0);
    let polls = Arc::clone(&inner.polls);
    layer(&handle).layer(inner).oneshot("hello").await.unwrap_err();
    assert_eq!((polls.load(SeqCst), began.elapsed()), (0, Duration::ZERO));
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_while_a_call_waits_for_readiness_refuses_the_next() {
    let handle = start(&World::new(), config(1));
    let (service, _server) = mocked(&single(&handle));
    let waiting = tokio::spawn(service.clone().oneshot("waits"));
    sleep(Duration::from_secs(1)).await;
    open(&handle).await;
    let refused = timeout(Duration::ZERO, service.oneshot("refused")).await.unwrap();
    assert!(matches!(refused, Err(CallError::Rejected { .. })), "{refused:?}");
    assert!(!waiting.is_finished());
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_never_ready_times_out_and_opens_the_breaker() {
    let handle = start(&World::new(), config(1));
    let (service, _server) = mocked(&single(&handle));
    let began = Instant::now();
    while handle.breaker_state(CALLS) == Some(State::Closed) {
        let error = service.clone().oneshot("hello").await.unwrap_err();
        let CallError::GaveUp { last: Some(CallFailure::Timeout), error: None, .. } = error else {
            panic!("{error:?}");
        };
    }
    assert!(began.elapsed() <= Duration::from_secs(60), "{:?}", began.elapsed());
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_passed_on_and_counts() {
    let handle = start(&World::new(), config(1));
    let (service, mut server) = mocked(&single(&handle));
    let call = tokio::spawn(service.oneshot("hello"));
    sleep(Duration::from_secs(1)).await;
    server.send_error("it is broken");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.into_error().unwrap().to_string(), "it is broken");
    assert_eq!(handle.stats().attempt_failures.error, 1);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_woken_by_readiness_and_by_the_answer() {
    let handle = start(&World::new(), config(1));
    let (mut service, mut server) = mocked(&layer(&handle));
    let mut call = tokio_test::task::spawn(service.call("hello"));
    assert!(call.poll().is_pending());
    assert!(!call.is_woken());
    assert!(server.poll_request().is_pending(), "a call was made on a service that is not ready");
    server.allow(1);
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    let Poll::Ready(Some((request, answer))) = server.poll_request() else { panic!("no request") };
    assert_eq!(request, "hello");
    answer.send_response("world");
    assert!(call.is_woken());
    assert_eq!(call.poll().map(Result::unwrap), Poll::Ready("world"));
    drop(call);
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_dropped_at_each_await_point() {
    let mut config = with_budget();
    let bulkhead = &mut config.breaker_profiles[1].calls.bulkhead;
    (bulkhead.max_concurrent, bulkhead.max_waiting) = (1, 1);
    bulkhead.max_wait = Some(Duration::from_secs(20));
    let handle = start(&World::new(), config);
    let (mut service, mut server) = mocked(&layer(&handle));
    let (running, waiting) =
        (|| handle.gates(CALLS).unwrap().running, || handle.gates(CALLS).unwrap().waiting);

    let never_polled = service.call("hello");
    drop(never_polled);
    assert_eq!(handle.stats().calls, 0);

    let mut unready = tokio_test::task::spawn(service.call("hello"));
    assert!(unready.poll().is_pending());
    let mut in_line = tokio_test::task::spawn(service.call("hello"));
    assert!(in_line.poll().is_pending());
    assert_eq!((running(), waiting()), (1, 1));
    drop(in_line);
    assert_eq!((running(), waiting()), (1, 0));
    drop(unready);
    at_rest(&handle);

    server.allow(1);
    let mut in_flight = tokio_test::task::spawn(service.call("hello"));
    assert!(in_flight.poll().is_pending());
    let Poll::Ready(Some((_, answer))) = server.poll_request() else { panic!("no request") };
    assert_eq!(running(), 1);
    drop(in_flight);
    answer.send_response("too late");
    at_rest(&handle);

    server.allow(1);
    let mut backing_off = tokio_test::task::spawn(service.call("hello"));
    assert!(backing_off.poll().is_pending());
    let Poll::Ready(Some((_, answer))) = server.poll_request() else { panic!("no request") };
    answer.send_error("no");
    assert!(backing_off.poll().is_pending());
    assert_eq!(handle.stats().calls_now.backing_off, 1);
    drop(backing_off);
    at_rest(&handle);

    server.allow(1);
    let call = tokio::spawn(service.oneshot("hello"));
    let (_, answer) = server.next_request().await.unwrap();
    answer.send_response("world");
    assert_eq!(call.await.unwrap().unwrap(), "world");
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_its_permit_back() {
    for in_flight in [false, true] {
        let mut config = config(1);
        config.breaker_profiles[1].breaker.probes = 1;
        config.breaker_profiles[1].breaker.close_after = 1;
        let handle = start(&World::new(), config);
        let (mut service, mut server) = mocked(&single(&handle));
        sleep(open(&handle).await).await;
        server.allow(u64::from(in_flight));
        let mut probe = tokio_test::task::spawn(service.call("probe"));
        assert!(probe.poll().is_pending());
        assert_eq!(server.poll_request().is_ready(), in_flight);
        assert_eq!(handle.breaker_state(CALLS), Some(State::HalfOpen));
        let refused = service.call("refused").await.unwrap_err();
        assert!(matches!(refused, CallError::Rejected { reason: RejectReason::BreakerOpen, .. }));
        drop(probe);
        server.allow(1);
        let next = tokio::spawn(service.oneshot("next"));
        let (request, answer) = server.next_request().await.unwrap();
        assert_eq!(request, "next");
        answer.send_response("world");
        assert_eq!(next.await.unwrap().unwrap(), "world");
        assert_eq!(handle.breaker_state(CALLS), Some(State::Closed));
        at_rest(&handle);
    }
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_permits_of_a_limit_within() {
    let handle = start(&World::new(), config(1));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&most);
    let work = service_fn(move |hangs: bool| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            if hangs {
                pending::<()>().await;
            }
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, SeqCst);
            Ok::<_, Unboxed>(())
        }
    });
    let service = ServiceBuilder::new()
        .layer(layer(&handle))
        .layer(ConcurrencyLimitLayer::new(2))
        .service(work);
    let hung: Vec<_> = (0..2).map(|_| tokio::spawn(service.clone().oneshot(true))).collect();
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let calls: Vec<_> = (0..6).map(|_| tokio::spawn(service.clone().oneshot(false))).collect();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(highest.load(SeqCst), 0, "the two that hang hold both permits");
    hung.iter().for_each(tokio::task::JoinHandle::abort);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(()));
    }
    assert_eq!((began.elapsed(), highest.load(SeqCst)), (Duration::from_secs(4), 2));
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_tried_again_do_not_lock_each_other_out() {
    let mut config = with_budget();
    let bulkhead = &mut config.breaker_profiles[1].calls.bulkhead;
    (bulkhead.max_concurrent, bulkhead.max_waiting) = (1, 9);
    bulkhead.max_wait = Some(Duration::from_secs(20));
    let handle = start(&World::new(), config);
    let service = ServiceBuilder::new()
        .layer(layer(&handle))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(Strict::failing(3));
    let began = Instant::now();
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(()));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn what_a_load_shedder_within_says_is_passed_on() {
    let handle = start(&World::new(), config(1));
    let (inner, mut server) = mock::pair::<(), ()>();
    server.allow(0);
    let judge = |answer: &Result<(), BoxError>| match answer {
        Err(error) if error.is::<Overloaded>() => CallFailure::Throttled.into(),
        Err(_) => CallFailure::Error.into(),
        Ok(()) => Verdict::Success,
    };
    let service = ServiceBuilder::new()
        .layer(single(&handle).policy(judge))
        .layer(LoadShedLayer::new())
        .service(inner);
    let began = Instant::now();
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(handle.stats().attempt_failures.throttled, 1);
    let error = BoxedCallError(error);
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.is::<Overloaded>(), "{source}");
    assert_eq!(error.to_string(), error.0.to_string());
    at_rest(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_guard_outlives_the_driver_and_says_so() {
    let handle = start(&World::new(), config(1));
    let service = layer(&handle).layer(Strict::failing(0));
    let _ = handle.shutdown(Duration::ZERO).await;
    assert_eq!(service.oneshot(7).await, Err(CallError::ShutDown));
}

#[tokio::test(start_paused = true)]
async fn a_stack_of_services_works_end_to_end() {
    let handle = start(&World::new(), with_budget());
    let shared = Arc::new(AtomicUsize::new(0));
    let service = ServiceBuilder::new()
        .load_shed()
        .map_err(BoxedCallError)
        .layer(layer(&handle))
        .load_shed()
        .concurrency_limit(3)
        .service_fn(move |request: String| {
            let number = shared.fetch_add(1, SeqCst);
            async move {
                sleep(Duration::from_millis(10)).await;
                if number == 0 { Err(BoxError::from("the first one fails")) } else { Ok(request) }
            }
        });
    let answer: Result<String, BoxError> = service.oneshot("hello".to_owned()).await;
    assert_eq!(answer.unwrap(), "hello");
    assert_eq!((handle.stats().attempts, handle.stats().calls_done), (2, 1));
    at_rest(&handle);
    let _ = handle.shutdown(Duration::from_secs(1)).await;
    sound(&handle);
}
