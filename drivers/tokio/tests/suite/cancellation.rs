//! Callers that go away at random moments, on several threads.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use crate::support::{CALLS, DIALS, Fake, World, add_peers, all_up, sound, start};
use steadfast_tokio::steadfast::backoff::Jitter;
use steadfast_tokio::steadfast::draw::{Draws, Purpose};
use steadfast_tokio::steadfast::hedge::{HedgeConfig, HedgeDelay};
use steadfast_tokio::{CallFailure, CallProfileId, Failure, Handle, PeerId, config};

const CALLERS: u64 = 50;
const CALLS_EACH: u64 = 2_000;

/// Polls the future so many times, and drops it then.
async fn polled<F: Future>(future: F, mut times: u64) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        if times == 0 {
            return Poll::Ready(None);
        }
        times -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// An attempt that takes some turns of the scheduler, or waits for a timer, and then fails or not.
async fn attempt(turns: u64, fails: bool, alive: Arc<()>) -> Result<u64, Failure<&'static str>> {
    for turn in 0..turns {
        match turn % 4 {
            3 => tokio::time::sleep(Duration::from_micros(200)).await,
            _ => tokio::task::yield_now().await,
        }
    }
    drop(alive);
    if fails { Err(Failure::new(CallFailure::Error, "failed")) } else { Ok(turns) }
}

async fn caller(handle: Handle<Fake>, id: u64, alive: Arc<()>, dropped: Arc<AtomicUsize>) {
    let hedged = handle.call_profile("hedged").unwrap();
    let draws = Draws::new(7, id);
    for call in 0..CALLS_EACH {
        let random = draws.draw(Purpose::Backoff, call);
        let (turns, polls) = (random % 7, random >> 8 & 7);
        let (fails, peer) = (random >> 16 & 3 == 0, PeerId(random >> 24 & 3));
        let profile = if random >> 32 & 1 == 0 { CallProfileId(0) } else { hedged };
        let ended = if random >> 40 & 1 == 0 {
            let make = |_| attempt(turns, fails, Arc::clone(&alive));
            polled(handle.with_retry(CALLS, profile, make), polls).await.is_some()
        } else {
            let make = |_, _| attempt(turns, fails, Arc::clone(&alive));
            polled(handle.with_connection(peer, CALLS, profile, make), polls).await.is_some()
        };
        dropped.fetch_add(usize::from(!ended), SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_thousand_callers_that_go_away_leave_nothing_behind() {
    let mut config = config(1);
    for profile in &mut config.call_profiles {
        profile.backoff.base = Duration::from_micros(100);
        profile.backoff.cap = Duration::from_millis(1);
        profile.backoff.jitter = Jitter::Full;
        profile.backoff.min_delay = Some(Duration::ZERO);
    }
    // One call in four fails: the breaker is not to make an end of it.
    config.breaker_profiles[1].breaker.consecutive_failures = Some(1_000);
    let calls = &mut config.breaker_profiles[1].calls;
    (calls.bulkhead.max_concurrent, calls.bulkhead.max_waiting) = (20, 20);
    let delay = HedgeDelay::After(Duration::from_micros(100));
    calls.hedge = Some(HedgeConfig { delay, max_hedges: 1 });
    let budget = calls.budget.as_mut().unwrap();
    budget.initial = budget.capacity;
    let world = World::new();
    let handle = start(&world, config);
    add_peers(&handle, 4);
    all_up(&handle, 4).await;

    let (alive, dropped) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
    let callers = (0..CALLERS).map(|id| {
        let (alive, dropped) = (Arc::clone(&alive), Arc::clone(&dropped));
        tokio::spawn(caller(handle.clone(), id, alive, dropped))
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(Arc::strong_count(&alive), 1, "no attempt is left");
    assert_eq!(handle.underway().calls, 0);
    let (stats, gates) = (handle.stats(), handle.gates(CALLS).unwrap());
    assert_eq!((gates.calls, gates.running, gates.waiting), (0, 0, 0));
    assert_eq!((stats.calls_now.total(), stats.attempts_in_flight), (0, 0));
    let ended = stats.calls_done + stats.rejections.total() + stats.give_ups.total();
    assert_eq!(stats.calls, ended, "each call ended once");
    assert!(dropped.load(SeqCst) > 10_000, "{} were dropped", dropped.load(SeqCst));
    assert!(stats.give_ups.dropped > 0 && stats.give_ups.cancelled > 0, "{:?}", stats.give_ups);
    assert!(stats.calls_done > 1_000, "{} were done", stats.calls_done);
    assert!(stats.retries > 0 && stats.hedges > 0, "{} {}", stats.retries, stats.hedges);
    assert!(handle.breaker_state(DIALS).is_some());
    sound(&handle);
    let shutdown = handle.shutdown(Duration::from_secs(5)).await;
    assert_eq!((shutdown.calls_given_up, shutdown.tasks_left), (0, 0));
}
