//! Notices as events of `tracing`. Under a paused clock.
#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "for tests")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use steadfast_tokio::steadfast::Config;
use steadfast_tokio::{
    BreakerId, CallFailure, CallProfileId, Failure, Handle, LossCause, PeerId, config,
};
use support::{CALLS, DIALS, Fake, Mode, World, add_peers, all_up, sound, start, with_budget};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{DefaultGuard, Interest, set_default};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// An event, its fields as text.
#[derive(Clone, Debug)]
struct Told {
    level: Level,
    target: String,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Collects what it is told, and asks the driver for its statistics meanwhile.
struct Collector {
    most: Level,
    told: Arc<Mutex<Vec<Told>>>,
    handle: Arc<Mutex<Option<Handle<Fake>>>>,
}

impl Subscriber for Collector {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most.into())
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let (level, target) = (*metadata.level(), metadata.target().to_owned());
        let mut told = Told { level, target, fields: BTreeMap::new() };
        event.record(&mut told);
        self.told.lock().unwrap().push(told);
        let handle = self.handle.lock().unwrap().clone();
        if let Some(handle) = handle {
            // It would hang if it was told under the lock.
            let _ = handle.stats();
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Wants to hear what has this field, and then does not know what to say.
struct Panics(&'static str);

impl Subscriber for Panics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.fields().field(self.0).is_some()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        panic!("this subscriber panics, as the test wants");
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What was told to this thread's subscriber.
struct Log {
    told: Arc<Mutex<Vec<Told>>>,
    handle: Arc<Mutex<Option<Handle<Fake>>>>,
    _subscribed: DefaultGuard,
}

impl Log {
    fn from(most: Level) -> Self {
        let (told, handle) = (Arc::default(), Arc::default());
        let (to, driver) = (Arc::clone(&told), Arc::clone(&handle));
        let _subscribed = set_default(Collector { most, told: to, handle: driver });
        Self { told, handle, _subscribed }
    }

    /// The events with this message, in order.
    fn of(&self, message: &str) -> Vec<Told> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|told| told.fields["message"] == message).cloned().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_notice_is_an_event_with_its_fields() {
    let log = Log::from(Level::DEBUG);
    let world = World::new();
    let handle = start(&world, with_budget());
    *log.handle.lock().unwrap() = Some(handle.clone());
    add_peers(&handle, 1);
    all_up(&handle, 1).await;
    world.cut(LossCause::Reset);
    tokio::time::sleep(Duration::from_millis(1)).await;
    all_up(&handle, 1).await;
    let peer = log.of("peer changed its state");
    let states: Vec<_> = peer.iter().map(|told| (told.level, told.fields["to"].as_str())).collect();
    assert_eq!(
        states,
        [
            (Level::DEBUG, "Connecting"),
            (Level::INFO, "Connected"),
            (Level::INFO, "Reconnecting"),
            (Level::INFO, "Connected"),
        ]
    );
    assert!(peer.iter().all(|told| told.fields["peer"] == "0"));
    assert!(peer.iter().all(|told| told.target == "steadfast_tokio"));
    assert_eq!(peer[2].fields["cause"], "Lost(Reset)");

    let failing = |_| async { Err::<(), _>(Failure::new(CallFailure::Error, "no")) };
    while handle.stats().breakers.open == 0 {
        handle.with_retry(CALLS, CallProfileId(0), failing).await.unwrap_err();
    }
    let opened = &log.of("breaker changed its state")[0];
    assert_eq!((opened.level, opened.fields["breaker"].as_str()), (Level::WARN, "2"));
    assert_eq!((&*opened.fields["from"], &*opened.fields["to"]), ("closed", "open"));
    assert!(opened.fields["open_for_ms"].parse::<u64>().unwrap() > 0);
    handle.reset_breaker(CALLS).unwrap();
    let closed = log.of("breaker changed its state").pop().unwrap();
    assert_eq!((closed.level, closed.fields["to"].as_str()), (Level::INFO, "closed"));
    let retries = log.of("call will be tried again");
    assert_eq!(retries.len() as u64, handle.stats().retries);
    assert_eq!((retries[0].level, retries[0].fields["failure"].as_str()), (Level::DEBUG, "Error"));

    handle.connect(PeerId(0)).unwrap_err();
    let ignored = &log.of("event was ignored")[0];
    assert_eq!((ignored.level, ignored.fields["reason"].as_str()), (Level::DEBUG, "AlreadySo"));
    assert!(log.of("notice").is_empty(), "each notice has words of its own");
    *log.handle.lock().unwrap() = None;
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_told_no_more_than_it_wants() {
    let log = Log::from(Level::WARN);
    let world = World::new();
    let handle = start(&world, config(1));
    add_peers(&handle, 3);
    all_up(&handle, 3).await;
    handle.force_open(DIALS).unwrap();
    handle.reset_breaker(BreakerId(9)).unwrap_err();
    assert_eq!(world.dials.load(SeqCst), 3);
    let told = log.told.lock().unwrap().clone();
    let to: Vec<_> = told.iter().map(|told| (told.level, told.fields["to"].as_str())).collect();
    assert_eq!(to, [(Level::WARN, "forced_open")]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_keeps_nobody_waiting() {
    let world = World::new();
    world.set(Mode::Hang);
    let handle = start(&world, config(1));
    add_peers(&handle, 1);
    let waits = handle.clone();
    let call = tokio::spawn(async move {
        let run = |_, _| async { Ok::<_, Failure<()>>(()) };
        waits.with_connection(PeerId(0), CALLS, CallProfileId(0), run).await
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(handle.stats().calls_now.connection, 1);
    let subscribed = set_default(Panics("peer"));
    catch_unwind(AssertUnwindSafe(|| handle.remove_peer(PeerId(0)))).unwrap_err();
    drop(subscribed);
    let answer = tokio::time::timeout(Duration::from_secs(60), call).await.unwrap().unwrap();
    answer.unwrap_err();
    sound(&handle);
}

/// A configuration that lets one call in, and others wait.
fn one_at_a_time() -> Config {
    let mut config = config(1);
    let bulkhead = &mut config.breaker_profiles[1].calls.bulkhead;
    (bulkhead.max_concurrent, bulkhead.max_waiting) = (1, 10);
    bulkhead.max_wait = Some(Duration::from_secs(20));
    config
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_costs_no_waiting_place() {
    let handle = start(&World::new(), one_at_a_time());
    let hang = |_| std::future::pending::<Result<(), Failure<()>>>();
    let mut first = Box::pin(handle.with_retry(CALLS, CallProfileId(0), hang));
    assert!(tokio::time::timeout(Duration::ZERO, &mut first).await.is_err());
    let subscribed = set_default(Panics("call"));
    let mut second = Box::pin(handle.with_retry(CALLS, CallProfileId(0), hang));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| second.as_mut().poll(&mut context)));
    drop(subscribed);
    assert!(polled.is_err(), "that it waits was told");
    drop(second);
    assert_eq!(handle.underway().calls, 1);
    assert_eq!(handle.gates(CALLS).unwrap().waiting, 0);
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_ends_no_driver() {
    let world = World::new();
    let handle = start(&world, config(1));
    world.set(Mode::Hang);
    add_peers(&handle, 1);
    let subscribed = set_default(Panics("peer"));
    // The dial times out, which the task that keeps the time tells.
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(subscribed);
    assert!(handle.stats().dial_failures.timeout > 0);
    world.set(Mode::Accept);
    let connected = tokio::time::timeout(Duration::from_secs(600), handle.connected(PeerId(0)));
    connected.await.unwrap().unwrap();
    sound(&handle);
}
