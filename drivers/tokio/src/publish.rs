//! Statistics for any recorder of `metrics`.
//!
//! Nothing is counted twice: the managers count, and what they have counted is read now and then.
//! Names are as the field has them, `_total` for what only grows, durations in seconds. No label
//! has a value that the program chooses, but the driver's own name: a million peers are five
//! numbers.

use std::collections::BTreeMap;
use std::mem::replace;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use ::metrics::{gauge, histogram};
use steadfast::histogram::Histogram;
use steadfast::{
    AttemptFailures, BreakerCounts, CallCounts, DialFailures, GiveUps, Losses, Moves, PeerCounts,
    Rejections, Stats,
};
use tokio::time::sleep;

use crate::inner::Inner;
use crate::transport::Transport;

/// A driver's name, and what has been published of its histograms.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    name: Option<Arc<str>>,
    published: Mutex<[Buckets; 3]>,
}

/// How many durations there were, by the longest of their bucket.
type Buckets = BTreeMap<Duration, u64>;

impl<T: Transport> Inner<T> {
    pub(crate) fn called(mut self, name: Option<Arc<str>>) -> Self {
        self.publisher.name = name;
        self
    }

    /// Publishes now and then, and for the last time when the driver has ended.
    pub(crate) async fn keep_published(self: Arc<Self>, every: Duration) {
        let every = every.max(Duration::from_millis(10));
        let mut slept = Box::pin(sleep(every));
        loop {
            let quieter = self.quieter.notified();
            if !self.is_open() {
                return self.publish();
            }
            tokio::select! {
                () = quieter => {}
                () = &mut slept => {
                    self.publish();
                    slept.set(sleep(every));
                }
            }
        }
    }

    /// Hands the statistics to the recorder, which is the program's code: under no lock.
    pub(crate) fn publish(&self) {
        let (stats, durations) = self.publisher.take(|| self.stats());
        let driver = self.publisher.name.clone();
        let out = Out(driver.map(|name| Label::new("driver", name)));
        out.all(&stats);
        let [latency, call, recovery] = durations;
        out.durations("steadfast_latency_seconds", "Latencies reported.", &latency);
        out.durations("steadfast_call_seconds", "From a call's beginning to its success.", &call);
        out.durations(
            "steadfast_recovery_seconds",
            "From the loss of a connection to the next one.",
            &recovery,
        );
    }
}

impl Publisher {
    /// The statistics, and the durations that came since they were taken last.
    fn take(&self, stats: impl FnOnce() -> Stats) -> (Stats, [Buckets; 3]) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = stats();
        let now = [&stats.latency, &stats.call_time, &stats.time_to_recover];
        let mut new = now.map(|histogram: &Histogram| histogram.buckets().collect::<Buckets>());
        let before = replace(&mut *published, new.clone());
        for (new, before) in new.iter_mut().zip(&before) {
            for (span, count) in new {
                *count = count.saturating_sub(before.get(span).copied().unwrap_or(0));
            }
        }
        (stats, new)
    }
}

/// Each of these counts with its name: one that is new does not compile until it is here.
macro_rules! each {
    ($counts:ident as $Counts:ident { $($field:ident),* $(,)? }) => {{
        let $Counts { $($field),* } = *$counts;
        [$((stringify!($field), u64::from($field))),*]
    }};
}

/// The way to the recorder, and the label that all metrics have.
struct Out(Option<Label>);

/// # Which metrics there are
impl Out {
    #[rustfmt::skip]
    fn all(&self, stats: &Stats) {
        // Without `..`: a new count must be published too.
        let Stats {
            peers, breakers, dials_in_flight, dials, dials_succeeded, dials_cancelled,
            dial_failures, losses, go_aways, moves, adopted, refused, sessions_resumed, sessions_lost, given_up,
            suspected, cleared, pings, pongs, calls_now, attempts_in_flight, calls, calls_done,
            rejections, give_ups, attempts, attempts_cancelled, attempt_failures, retries, hedges,
            budget_refusals, stale, ignored, clock_backwards, slept, measured, degraded,
            latency_sum_ns: _, loss_sum: _, latency: _, call_time: _, time_to_recover: _,
        } = stats;

        self.gauges("steadfast_peers", "Peers now.", "state",
            each!(peers as PeerCounts {
                disconnected, connecting, connected, reconnecting, failed,
            }));
        self.gauges("steadfast_breakers", "Breakers now.", "state",
            each!(breakers as BreakerCounts { closed, open, half_open, forced_open, disabled }));
        self.gauge("steadfast_dials_in_flight", "Dials in flight now.", *dials_in_flight);
        self.counter("steadfast_dials_begun_total", "Dials begun.", *dials);
        self.counters("steadfast_dials_total", "Dials that ended.", "outcome", [
            ("succeeded", *dials_succeeded),
            ("failed", dial_failures.total()),
            ("cancelled", *dials_cancelled),
        ]);
        self.counters("steadfast_dial_failures_total", "Dials that failed.", "cause",
            each!(dial_failures as DialFailures {
                refused, timeout, unreachable, resolve, tls, throttled, auth, incompatible,
                not_found, local, cancelled,
            }));
        self.counters("steadfast_connections_lost_total", "Connections that ended.", "cause",
            each!(losses as Losses { eof, reset, replaced, kicked, protocol, suspected, local }));
        self.counter("steadfast_go_aways_total", "Connections whose server said it would leave.",
            *go_aways);
        self.counters("steadfast_connections_moved_total", "Connections replaced in time.", "cause",
            each!(moves as Moves { failed_back, drained, raced }));
        self.counters("steadfast_inbound_total", "Connections that peers made.", "outcome", [
            ("adopted", *adopted),
            ("refused", *refused),
        ]);
        self.counters("steadfast_sessions_total", "Sessions that were to go on.", "outcome", [
            ("resumed", *sessions_resumed),
            ("lost", *sessions_lost),
        ]);
        self.counter("steadfast_peers_given_up_total", "Peers given up.", *given_up);
        self.counter("steadfast_suspicions_total", "Connections under suspicion.", *suspected);
        self.counter("steadfast_suspicions_cleared_total", "Suspicions that were wrong.", *cleared);
        self.counter("steadfast_pings_total", "Pings sent.", *pings);
        self.counter("steadfast_pongs_total", "Pongs heard.", *pongs);
        self.gauge("steadfast_peers_measured", "Peers with a measured connection now.", *measured);
        self.gauge("steadfast_peers_degraded", "Of these, the degraded.", *degraded);
        self.seconds("steadfast_latency_mean_seconds", "Mean of these peers' smoothed latencies.",
            stats.mean_latency());
        self.ppm("steadfast_loss_mean_ratio", "Mean of these peers' smoothed losses.",
            stats.mean_loss());

        self.gauges("steadfast_calls_in_flight", "Calls now.", "phase",
            each!(calls_now as CallCounts { connection, turn, backing_off, running }));
        self.counter("steadfast_calls_begun_total", "Calls asked for.", *calls);
        self.counters("steadfast_calls_total", "Calls that ended.", "outcome", [
            ("succeeded", *calls_done),
            ("rejected", rejections.total()),
            ("given_up", give_ups.total()),
        ]);
        self.counters("steadfast_calls_rejected_total", "Calls without an attempt.", "reason",
            each!(rejections as Rejections {
                deadline, not_connected, bulkhead_full, rate_limited, waited_too_long, throttled,
                breaker_open, ramping_up, too_many_calls, unknown_peer, unknown_breaker,
                unknown_profile, peer_removed,
            }));
        self.counters("steadfast_calls_given_up_total", "Calls that failed.", "reason",
            each!(give_ups as GiveUps {
                too_many_attempts, deadline, not_retryable, budget_exhausted, server_said_no,
                refused, cancelled, dropped, peer_removed, restarted,
            }));
        self.gauge("steadfast_attempts_in_flight", "Attempts in flight now.", *attempts_in_flight);
        self.counter("steadfast_attempts_total", "Attempts begun.", *attempts);
        self.counter("steadfast_attempts_cancelled_total", "Attempts cancelled or timed out.",
            *attempts_cancelled);
        self.counters("steadfast_attempt_failures_total", "Attempts that failed.", "kind",
            each!(attempt_failures as AttemptFailures {
                error, timeout, throttled, unavailable, disconnected, invalid, fatal, local,
            }));
        self.counter("steadfast_retries_total", "Retries decided on.", *retries);
        self.counter("steadfast_hedges_total", "Attempts that joined a slow one.", *hedges);
        self.counter("steadfast_budget_refusals_total", "Retries and hedges not paid for.",
            *budget_refusals);

        self.counters("steadfast_events_ignored_total", "Events that changed nothing.", "reason", [
            ("stale", *stale),
            ("other", *ignored),
        ]);
        self.counter("steadfast_clock_backwards_total", "Steps before the latest moment seen.",
            *clock_backwards);
        self.counter("steadfast_slept_total", "Times that the driver came back too late.", *slept);
    }
}

/// # How they are told
impl Out {
    fn labels(&self, label: Option<(&'static str, &'static str)>) -> Vec<Label> {
        let label = label.map(|(name, value)| Label::from_static_parts(name, value));
        self.0.iter().cloned().chain(label).collect()
    }

    fn counter(&self, name: &'static str, what: &'static str, count: u64) {
        describe_counter!(name, Unit::Count, what);
        counter!(name, self.labels(None)).absolute(count);
    }

    fn counters<const N: usize>(
        &self,
        name: &'static str,
        what: &'static str,
        label: &'static str,
        counts: [(&'static str, u64); N],
    ) {
        describe_counter!(name, Unit::Count, what);
        for (value, count) in counts {
            counter!(name, self.labels(Some((label, value)))).absolute(count);
        }
    }

    fn gauge(&self, name: &'static str, what: &'static str, count: u32) {
        describe_gauge!(name, Unit::Count, what);
        gauge!(name, self.labels(None)).set(count);
    }

    fn gauges<const N: usize>(
        &self,
        name: &'static str,
        what: &'static str,
        label: &'static str,
        counts: [(&'static str, u64); N],
    ) {
        describe_gauge!(name, Unit::Count, what);
        for (value, count) in counts {
            gauge!(name, self.labels(Some((label, value)))).set(count as f64);
        }
    }

    fn seconds(&self, name: &'static str, what: &'static str, span: Duration) {
        describe_gauge!(name, Unit::Seconds, what);
        gauge!(name, self.labels(None)).set(span);
    }

    fn ppm(&self, name: &'static str, what: &'static str, millionths: u64) {
        describe_gauge!(name, what);
        gauge!(name, self.labels(None)).set(millionths as f64 / 1e6);
    }

    fn durations(&self, name: &'static str, what: &'static str, counted: &Buckets) {
        describe_histogram!(name, Unit::Seconds, what);
        let histogram = histogram!(name, self.labels(None));
        for (span, count) in counted.iter().filter(|(_, count)| **count > 0) {
            histogram.record_many(*span, usize::try_from(*count).unwrap_or(usize::MAX));
        }
    }
}
