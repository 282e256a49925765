//! Statistics as metrics, read by a recorder of the test's own. Under a paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{CALLS, DIALS, Fake, World, add_peers, all_up, sound, start, with_budget};
use metrics::atomics::AtomicU64;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use steadfast_tokio::{
    BreakerId, Builder, CallFailure, CallProfileId, Failure, Handle, LossCause, config,
};
use tokio::time::sleep;

/// What a recorder holds: each series by its name and labels as text.
#[derive(Default)]
struct Recorded {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Durations>>>,
    described: Mutex<BTreeMap<String, Option<Unit>>>,
}

/// Seconds, and how often.
#[derive(Default)]
struct Durations(Mutex<Vec<(f64, usize)>>);

impl HistogramFn for Durations {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.0.lock().unwrap().push((value, count));
    }
}

fn series(key: &Key) -> String {
    let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
    format!("{}{{{}}}", key.name(), labels.collect::<Vec<_>>().join(","))
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), unit);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, what: SharedString) {
        self.describe_counter(key, unit, what);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, what: SharedString) {
        self.describe_counter(key, unit, what);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.counters.lock().unwrap().entry(series(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(self.gauges.lock().unwrap().entry(series(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(histograms.entry(series(key)).or_default()))
    }
}

impl Recorded {
    fn count(&self, series: &str) -> u64 {
        let counters = self.counters.lock().unwrap();
        counters.get(series).unwrap_or_else(|| panic!("no {series}")).load(SeqCst)
    }

    fn gauge(&self, series: &str) -> f64 {
        let gauges = self.gauges.lock().unwrap();
        f64::from_bits(gauges.get(series).unwrap_or_else(|| panic!("no {series}")).load(SeqCst))
    }

    /// How many durations were recorded.
    fn durations(&self, series: &str) -> usize {
        let histograms = self.histograms.lock().unwrap();
        histograms[series].0.lock().unwrap().iter().map(|(_, count)| count).sum()
    }

    /// The sum over all series of a name, and how many there are.
    fn sum(&self, name: &str) -> (u64, usize) {
        let counters = self.counters.lock().unwrap();
        let of = format!("{name}{{");
        let found = counters.iter().filter(|(series, _)| series.starts_with(&of));
        found.fold((0, 0), |(sum, n), (_, count)| (sum + count.load(SeqCst), n + 1))
    }

    fn all(&self) -> BTreeSet<String> {
        let (counters, gauges) = (self.counters.lock().unwrap(), self.gauges.lock().unwrap());
        let histograms = self.histograms.lock().unwrap();
        counters.keys().chain(gauges.keys()).chain(histograms.keys()).cloned().collect()
    }
}

/// Peers that come and go, and calls that succeed, fail and are refused.
async fn live(handle: &Handle<Fake>, world: &World, peers: u64) {
    let here = handle.stats().peers.connected;
    add_peers(handle, peers);
    all_up(handle, here + u32::try_from(peers).unwrap()).await;
    world.cut(LossCause::Reset);
    sleep(Duration::from_millis(1)).await;
    all_up(handle, here + u32::try_from(peers).unwrap()).await;
    let call = |attempt: steadfast_tokio::Attempt| async move {
        sleep(Duration::from_millis(100)).await;
        if attempt.number == 1 { Err(Failure::new(CallFailure::Error, "no")) } else { Ok(()) }
    };
    for _ in 0..3 {
        handle.with_retry(CALLS, CallProfileId(0), call).await.unwrap();
    }
    let fatal = |_| async { Err::<(), _>(Failure::new(CallFailure::Fatal, "no")) };
    for _ in 0..9 {
        handle.with_retry(CALLS, CallProfileId(0), fatal).await.unwrap_err();
    }
    handle.force_open(DIALS).unwrap();
    handle.add_peer(steadfast_tokio::PeerId(0), "default", vec![]).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_what_the_statistics_say() {
    let recorded = Recorded::default();
    let _recording = set_default_local_recorder(&recorded);
    let world = World::new();
    let handle = start(&world, with_budget());
    live(&handle, &world, 5).await;
    handle.publish_metrics();
    let stats = handle.stats();
    assert_eq!(recorded.gauge("steadfast_peers{state=connected}"), 5.0);
    assert_eq!(recorded.gauge("steadfast_peers{state=failed}"), 0.0);
    assert_eq!(recorded.gauge("steadfast_breakers{state=forced_open}"), 1.0);
    assert_eq!(recorded.gauge("steadfast_breakers{state=open}"), f64::from(stats.breakers.open));
    assert_eq!(recorded.count("steadfast_dials_total{outcome=succeeded}"), 10);
    assert_eq!(recorded.count("steadfast_connections_lost_total{cause=reset}"), 5);
    assert_eq!(recorded.count("steadfast_calls_total{outcome=succeeded}"), 3);
    assert_eq!(recorded.count("steadfast_attempts_total{}"), stats.attempts);
    assert_eq!(recorded.count("steadfast_retries_total{}"), 3);
    assert_eq!(recorded.count("steadfast_events_ignored_total{reason=other}"), stats.ignored);
    let refused = recorded.count("steadfast_calls_rejected_total{reason=breaker_open}");
    assert!(refused > 0 && refused == stats.rejections.breaker_open);
    for (name, total, series) in [
        ("steadfast_dials_total", stats.dials, 3),
        ("steadfast_dial_failures_total", stats.dial_failures.total(), 11),
        ("steadfast_connections_lost_total", stats.losses.total(), 7),
        ("steadfast_calls_total", stats.calls, 3),
        ("steadfast_calls_rejected_total", stats.rejections.total(), 13),
        ("steadfast_calls_given_up_total", stats.give_ups.total(), 10),
        ("steadfast_attempt_failures_total", stats.attempt_failures.total(), 8),
    ] {
        assert_eq!(recorded.sum(name), (total, series), "{name}");
    }
    sound(&handle);
}

#[tokio::test(start_paused = true)]
async fn each_duration_is_recorded_once_however_often_they_are_published() {
    let recorded = Recorded::default();
    let _recording = set_default_local_recorder(&recorded);
    let world = World::new();
    let handle = start(&world, with_budget());
    live(&handle, &world, 5).await;
    for _ in 0..3 {
        handle.publish_metrics();
    }
    assert_eq!(recorded.durations("steadfast_recovery_seconds{}"), 5);
    assert_eq!(recorded.durations("steadfast_call_seconds{}"), 3);
    handle.reset_breaker(CALLS).unwrap();
    let call = |_| async {
        sleep(Duration::from_secs(2)).await;
        Ok::<_, Failure<()>>(())
    };
    handle.with_retry(CALLS, CallProfileId(0), call).await.unwrap();
    handle.publish_metrics();
    let calls = Arc::clone(&recorded.histograms.lock().unwrap()["steadfast_call_seconds{}"]);
    let (seconds, count) = *calls.0.lock().unwrap().last().unwrap();
    assert_eq!((count, recorded.durations("steadfast_call_seconds{}")), (1, 4));
    assert!((2.0..2.125).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_series_for_many_peers_and_breakers_than_for_few() {
    let mut all = Vec::new();
    for peers in [1, 200] {
        let recorded = Recorded::default();
        let _recording = set_default_local_recorder(&recorded);
        let world = World::new();
        let handle = start(&world, with_budget());
        for breaker in 100..100 + peers {
            handle.add_breaker(BreakerId(breaker), "default").unwrap();
        }
        live(&handle, &world, peers).await;
        handle.publish_metrics();
        let described = recorded.described.lock().unwrap().clone();
        for series in recorded.all() {
            let (name, labels) = series.split_once('{').unwrap();
            assert!(name.starts_with("steadfast_"), "{name}");
            assert!(described.contains_key(name), "{name} is not described");
            let seconds = described[name] == Some(Unit::Seconds);
            assert_eq!(name.ends_with("_seconds"), seconds, "{name}");
            let label = labels.trim_end_matches('}').split('=').next().unwrap();
            let known = ["", "state", "phase", "outcome", "cause", "reason", "kind"];
            assert!(known.contains(&label), "{label}");
            assert!(!labels.contains(|c: char| c.is_ascii_digit()), "{labels}");
        }
        assert!(recorded.counters.lock().unwrap().keys().all(|name| name.contains("_total{")));
        all.push(recorded.all());
    }
    assert_eq!(all[0], all[1]);
    assert!(all[0].len() < 120, "{}", all[0].len());
}

#[tokio::test(start_paused = true)]
async fn drivers_of_different_names_do_not_overwrite_each_other() {
    let recorded = Recorded::default();
    let _recording = set_default_local_recorder(&recorded);
    let mut handles = Vec::new();
    for (name, peers) in [("inner", 1), ("outer", 3)] {
        let driver = Builder::new(Fake(World::new())).config(config(1)).name(name);
        let handle = driver.start().unwrap();
        handle.add_breaker(DIALS, "default").unwrap();
        add_peers(&handle, peers);
        all_up(&handle, u32::try_from(peers).unwrap()).await;
        handle.publish_metrics();
        handles.push(handle);
    }
    assert_eq!(recorded.count("steadfast_dials_total{driver=inner,outcome=succeeded}"), 1);
    assert_eq!(recorded.count("steadfast_dials_total{driver=outer,outcome=succeeded}"), 3);
    assert!(recorded.all().iter().all(|series| series.contains("{driver=")));
}

#[tokio::test(start_paused = true)]
async fn they_are_published_as_often_as_asked_and_once_more_at_the_end() {
    let recorded = Recorded::default();
    let _recording = set_default_local_recorder(&recorded);
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for by_shutdown in [true, false] {
        let driver = Builder::new(Fake(World::new())).config(config(1)).shards(2);
        let handle = driver.metrics_every(Duration::from_secs(10)).start().unwrap();
        handle.add_breaker(BreakerId(1), "default").unwrap();
        sleep(Duration::from_secs(9)).await;
        assert_eq!(recorded.all().is_empty(), by_shutdown, "not before its time");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(recorded.gauge("steadfast_breakers{state=closed}"), 1.0);
        handle.add_breaker(BreakerId(2), "default").unwrap();
        assert_eq!(handle.underway().tasks, 0);
        if by_shutdown {
            let _ = handle.shutdown(Duration::from_secs(1)).await;
        } else {
            drop(handle);
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(recorded.gauge("steadfast_breakers{state=closed}"), 2.0);
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_period_of_nothing_is_no_busy_loop() {
    let driver = Builder::new(Fake(World::new())).config(config(1));
    let handle = driver.metrics_every(Duration::ZERO).start().unwrap();
    sleep(Duration::from_secs(1)).await;
    sound(&handle);
}
