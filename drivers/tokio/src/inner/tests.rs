//! How often a wake-up takes the lock and reads the clock.

use std::future::pending;
use std::sync::atomic::AtomicU32;

use steadfast::config::{Detector, Signs};
use steadfast::{CallProfileId, PeerState};
use tokio::time::{advance, sleep};

use super::*;
use crate::call::{self, Call};
use crate::core::Core;
use crate::transport::{Dial, DialError, Established};
use crate::{Builder, Endpoint, Handle, Link, LossCause, config};

const DIALS: BreakerId = BreakerId(1);
const CALLS: BreakerId = BreakerId(2);
const PEER: PeerId = PeerId(1);
const SILENCE: Duration = Duration::from_secs(30);

/// The other side of the only connection.
#[derive(Default)]
struct Chat {
    /// Frames that its task finds when the bell is rung.
    frames: AtomicU32,
    bell: Notify,
    /// Whether a tick comes while the task is still at work, as from another core.
    ticks: AtomicBool,
    /// Frames that were read.
    read: AtomicU32,
    inner: std::sync::OnceLock<Arc<Inner<Chatty>>>,
}

struct Chatty(Arc<Chat>);

impl Transport for Chatty {
    type Address = ();
    type Connection = ();

    async fn connect(&self, _: Dial<()>) -> Result<Established<()>, DialError> {
        Ok(Established::fresh(()))
    }

    async fn run(&self, _: Arc<()>, link: Link) -> LossCause {
        loop {
            self.0.bell.notified().await;
            for _ in 0..self.0.frames.load(Ordering::Relaxed) {
                link.heard();
                self.0.read.fetch_add(1, Ordering::Relaxed);
            }
            if self.0.ticks.load(Ordering::Relaxed)
                && let Some(inner) = self.0.inner.get()
            {
                inner.step(0, |_| Some(Event::Tick));
            }
        }
    }

    async fn ping(&self, _: Arc<()>) -> Result<(), LossCause> {
        pending().await
    }
}

/// Runs this with one peer that is connected, under a paused clock.
fn with_peer<F: Future<Output = ()>>(work: impl FnOnce(Handle<Chatty>, Arc<Chat>) -> F) {
    let mut runtime = runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let chat = Arc::new(Chat::default());
        let mut config = config(1);
        config.peer_profiles[0].health.signs = Signs::Heartbeats;
        config.peer_profiles[0].health.detector = Detector::Deadline(SILENCE);
        config.peer_profiles[0].health.tell_doubts = false;
        let handle = Builder::new(Chatty(Arc::clone(&chat))).config(config).start().unwrap();
        let _ = chat.inner.set(Arc::clone(handle.inner()));
        handle.add_breaker(DIALS, "default").unwrap();
        handle.add_breaker(CALLS, "calls").unwrap();
        handle.add_peer(PEER, "default", vec![Endpoint::only(DIALS, ())]).unwrap();
        handle.connect(PEER).unwrap();
        handle.connected(PEER).await.unwrap();
        rest().await;
        work(handle, chat).await;
    });
}

/// Lets all that is ready run.
async fn rest() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// How often the lock was taken and the clock was read.
fn counts(inner: &Arc<Inner<Chatty>>) -> (usize, usize) {
    let locked = inner.enter_quietly(0, |core| core.locked.replace(0));
    (locked - 1, inner.readings.swap(0, Ordering::Relaxed))
}

#[test]
fn a_wakeup_that_brings_many_frames_takes_the_lock_and_reads_the_clock_once() {
    with_peer(|handle, chat| async move {
        for frames in [1, 2, 50, 64] {
            chat.frames.store(frames, Ordering::Relaxed);
            counts(handle.inner());
            chat.bell.notify_one();
            rest().await;
            assert_eq!(chat.read.swap(0, Ordering::Relaxed), frames);
            assert_eq!(counts(handle.inner()), (1, 1), "{frames} frames");
        }
    });
}

#[test]
fn each_wakeup_tells_anew() {
    with_peer(|handle, chat| async move {
        chat.frames.store(3, Ordering::Relaxed);
        counts(handle.inner());
        for _ in 0..5 {
            chat.bell.notify_one();
            rest().await;
        }
        assert_eq!(counts(handle.inner()), (5, 5));
    });
}

#[test]
fn a_wakeup_without_end_is_no_silence() {
    with_peer(|handle, chat| async move {
        chat.frames.store(64 * 3 + 1, Ordering::Relaxed);
        counts(handle.inner());
        chat.bell.notify_one();
        rest().await;
        assert_eq!(counts(handle.inner()), (4, 4));
    });
}

#[test]
fn whoever_else_has_the_link_tells_all() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let link = Link::new(steadfast::ConnId::from_raw(1), move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    (0..3).for_each(|_| link.heard());
    assert_eq!(told.load(Ordering::Relaxed), 3);
}

#[test]
fn a_frame_that_waits_at_the_deadline_is_heard_before_the_tick() {
    with_peer(|handle, chat| async move {
        chat.frames.store(1, Ordering::Relaxed);
        for _ in 0..5 {
            // Both become ready at once, and the timer task first.
            advance(SILENCE - Duration::from_millis(1)).await;
            chat.bell.notify_one();
            advance(Duration::from_millis(1)).await;
            rest().await;
            assert_eq!(handle.peer_state(PEER), Some(PeerState::Connected));
        }
        assert_eq!(handle.stats().suspected, 0);
        sleep(SILENCE * 2).await;
        assert!(handle.stats().suspected > 0, "or the test would prove nothing");
        assert_eq!(handle.breach(), None);
    });
}

#[test]
fn no_tick_comes_between_a_sign_of_life_and_the_end_of_its_wakeup() {
    with_peer(|handle, chat| async move {
        chat.frames.store(3, Ordering::Relaxed);
        chat.ticks.store(true, Ordering::Relaxed);
        for _ in 0..5 {
            advance(SILENCE - Duration::from_millis(1)).await;
            chat.bell.notify_one();
            advance(Duration::from_millis(1)).await;
            rest().await;
        }
        assert_eq!(handle.stats().suspected, 0);
        assert_eq!(handle.peer_state(PEER), Some(PeerState::Connected));
    });
}

#[test]
fn a_tick_takes_the_lock_and_reads_the_clock_once() {
    with_peer(|handle, chat| async move {
        chat.frames.store(1, Ordering::Relaxed);
        sleep(SILENCE / 2).await;
        chat.bell.notify_one();
        rest().await;
        counts(handle.inner());
        sleep(SILENCE * 3 / 4).await;
        let (locked, readings) = counts(handle.inner());
        assert!(readings > 0, "or there was no tick");
        assert_eq!(locked, readings);
        assert_eq!(handle.stats().suspected, 0);
    });
}

#[test]
fn a_call_reads_the_clock_when_it_begins_and_when_it_is_answered() {
    with_peer(|handle, _| async move {
        let inner = handle.inner();
        counts(inner);
        let call = Call::through(CALLS, CallProfileId(0));
        let answer = call::run(inner, call, |_, _| Some(async { Ok::<_, crate::Failure<()>>(7) }));
        assert_eq!(answer.await, Ok(7));
        assert_eq!(counts(inner), (2, 2));
    });
}

#[test]
fn the_end_of_all_is_one_step_for_each_shard() {
    with_peer(|handle, _| async move {
        let inner = handle.inner();
        counts(inner);
        assert_eq!(inner.enter(0, Core::wind_up), 0);
        assert_eq!(counts(inner), (1, 1));
    });
}
