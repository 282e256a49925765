//! What calls are measured by: who was served, after how many attempts, and when.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use steadfast::{GiveUpReason, RejectReason, Time};

use crate::units::{Span, seconds};

const SECOND: u64 = 1_000_000_000;
/// How many seconds are looked at together, at the end and before the first fault.
const LOOK: usize = 10;
/// Goodput within this share of the twin's is goodput restored.
const BACK: f64 = 0.99;

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// Calls begun.
    pub(crate) begun: u64,
    /// Of those, the ones that were done in the end.
    pub(crate) good: u64,
    /// Calls done.
    pub(crate) done: u64,
    /// Attempts started.
    pub(crate) attempts: u64,
    /// Retries decided on, whenever they start.
    pub(crate) retries: u64,
}

/// A call, as far as it matters when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) at: Time,
    /// To a server that has been bad for a while, to one beside it that is not, or neither.
    pub(crate) side: Side,
}

/// On which side of a bad server a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Neither,
    Healthy,
    Bad,
}

/// The counts of a run in progress.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    start: Time,
    seconds: Vec<Second>,
    latencies: Vec<u64>,
    rejected: BTreeMap<RejectReason, u64>,
    given_up: BTreeMap<GiveUpReason, u64>,
    /// Failed in the end by the word of a retry layer around the manager.
    pub(crate) failed: u64,
    healthy: (u64, u64),
    bad: (u64, u64),
    pub(crate) attempts_to_bad: u64,
    pub(crate) wasted: u64,
    pub(crate) refused: u64,
    pub(crate) healthy_opens: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Requests by server and second.
    requests: Vec<Vec<u64>>,
}

impl Tally {
    pub(crate) fn begin(&mut self, start: Time, servers: usize) {
        *self = Self { start, requests: vec![Vec::new(); servers], ..Self::default() };
    }

    fn place(&self, at: Time) -> usize {
        usize::try_from(at.as_nanos().saturating_sub(self.start.as_nanos()) / SECOND).unwrap_or(0)
    }

    fn second(&mut self, at: Time) -> &mut Second {
        let place = self.place(at);
        if self.seconds.len() <= place {
            self.seconds.resize(place + 1, Second::default());
        }
        #[expect(clippy::indexing_slicing, reason = "just made so long")]
        &mut self.seconds[place]
    }

    pub(crate) fn begun(&mut self, call: Begun) {
        self.second(call.at).begun += 1;
        match call.side {
            Side::Neither => {}
            Side::Healthy => self.healthy.0 += 1,
            Side::Bad => self.bad.0 += 1,
        }
    }

    pub(crate) fn attempt(&mut self, now: Time, to_bad: bool) {
        self.second(now).attempts += 1;
        self.attempts_to_bad += u64::from(to_bad);
    }

    pub(crate) fn retries(&mut self, now: Time) {
        self.second(now).retries += 1;
    }

    pub(crate) fn done(&mut self, call: Begun, now: Time) {
        self.second(call.at).good += 1;
        self.second(now).done += 1;
        self.latencies.push(now.as_nanos().saturating_sub(call.at.as_nanos()));
        self.healthy.1 += u64::from(call.side == Side::Healthy);
    }

    pub(crate) fn rejected(&mut self, call: Begun, reason: RejectReason, unsent: bool) {
        *self.rejected.entry(reason).or_default() += 1;
        self.bad.1 += u64::from(unsent && call.side == Side::Bad);
    }

    pub(crate) fn given_up(&mut self, reason: GiveUpReason) {
        *self.given_up.entry(reason).or_default() += 1;
    }

    /// A request reaches a server.
    pub(crate) fn request(&mut self, server: usize, now: Time) {
        let place = self.place(now);
        if let Some(seconds) = self.requests.get_mut(server) {
            if seconds.len() <= place {
                seconds.resize(place + 1, 0);
            }
            if let Some(count) = seconds.get_mut(place) {
                *count += 1;
            }
        }
    }

    pub(crate) fn facts(
        mut self,
        duration: Span,
        servers: impl Iterator<Item = String>,
        faults: Option<(Span, Span)>,
        bound: Option<Bound>,
    ) -> CallFacts {
        let whole = usize::try_from(duration.as_nanos().div_ceil(SECOND)).unwrap_or(0);
        self.seconds.resize(whole.max(self.seconds.len()), Second::default());
        self.latencies.sort_unstable();
        let peaks = self.requests.iter().map(|seconds| seconds.iter().copied().max().unwrap_or(0));
        CallFacts {
            peak_requests: servers.zip(peaks).collect(),
            seconds: self.seconds,
            latencies: self.latencies,
            rejected: self.rejected,
            given_up: self.given_up,
            failed: self.failed,
            healthy: self.healthy,
            bad: self.bad,
            attempts_to_bad: self.attempts_to_bad,
            wasted: self.wasted,
            refused: self.refused,
            healthy_opens: self.healthy_opens,
            hits: self.hits,
            misses: self.misses,
            faults,
            bound,
            twin: None,
            highest: None,
        }
    }
}

/// Until when goodput must be back after the heal, term by term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) terms: Vec<(&'static str, Span)>,
}

impl Bound {
    /// Adds a term, or makes the one of that name as long as this.
    pub(crate) fn raise(&mut self, name: &'static str, span: Span) {
        match self.terms.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = span.max(*known),
            None => self.terms.push((name, span)),
        }
    }

    pub(crate) fn total(&self) -> Span {
        let nanos = self.terms.iter().map(|(_, span)| span.as_nanos());
        Span::from_nanos(nanos.fold(0, u64::saturating_add))
    }
}

/// The sum, and what it is made of; terms of nothing are left out.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |span: Span| format!("{:.1}s", span.as_secs_f64());
        let terms = self.terms.iter().filter(|(_, span)| *span > Span::ZERO);
        let terms: Vec<_> = terms.map(|(name, span)| format!("{name} {}", shown(*span))).collect();
        write!(f, "{} = {}", shown(self.total()), terms.join(" + "))
    }
}

/// What a finished run says about its calls.
#[derive(Clone, Debug)]
pub(crate) struct CallFacts {
    pub(crate) seconds: Vec<Second>,
    latencies: Vec<u64>,
    pub(crate) rejected: BTreeMap<RejectReason, u64>,
    pub(crate) given_up: BTreeMap<GiveUpReason, u64>,
    pub(crate) failed: u64,
    /// Calls to healthy servers beside a bad one, and those of them that were served.
    healthy: (u64, u64),
    /// Calls to a bad server, and those of them that were refused unsent.
    bad: (u64, u64),
    attempts_to_bad: u64,
    pub(crate) wasted: u64,
    pub(crate) refused: u64,
    pub(crate) healthy_opens: u64,
    hits: u64,
    misses: u64,
    peak_requests: Vec<(String, u64)>,
    /// From the first fault to the heal.
    faults: Option<(Span, Span)>,
    pub(crate) bound: Option<Bound>,
    /// The same second by second without the faults.
    pub(crate) twin: Option<Vec<Second>>,
    /// The highest load that its policy recovers from, per second; 0 if none.
    pub(crate) highest: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The first whole second at or after a moment.
fn place(at: Span) -> usize {
    usize::try_from(at.as_nanos().div_ceil(SECOND)).unwrap_or(usize::MAX)
}

impl CallFacts {
    fn sum(&self, of: impl Fn(&Second) -> u64, from: usize, to: usize) -> u64 {
        let to = to.min(self.seconds.len());
        self.seconds.get(from.min(to)..to).unwrap_or_default().iter().map(of).sum()
    }

    fn all(&self, of: impl Fn(&Second) -> u64) -> u64 {
        self.sum(of, 0, usize::MAX)
    }

    fn tail(&self, of: impl Fn(&Second) -> u64) -> u64 {
        self.sum(of, self.seconds.len().saturating_sub(LOOK), usize::MAX)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.all(|second| second.begun)
    }

    /// Those of them that succeeded.
    pub(crate) fn succeeded(&self) -> u64 {
        self.all(|second| second.good)
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.all(|second| second.attempts)
    }

    pub(crate) fn success(&self) -> Option<f64> {
        share(self.all(|second| second.good), self.calls())
    }

    pub(crate) fn attempts_per_call(&self) -> Option<f64> {
        share(self.attempts(), self.calls())
    }

    /// Attempts per call from the first fault to the heal.
    pub(crate) fn outage_attempts_per_call(&self) -> Option<f64> {
        let (from, to) = self.faults?;
        let (from, to) = (place(from), place(to));
        share(
            self.sum(|second| second.attempts, from, to),
            self.sum(|second| second.begun, from, to),
        )
    }

    pub(crate) fn rejected_share(&self) -> Option<f64> {
        share(self.rejected.values().sum(), self.calls())
    }

    pub(crate) fn latency_s(&self, quantile: f64) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a list far below 2^53"
        )]
        let place = (self.latencies.len() as f64 * quantile) as usize;
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get(place.min(last)).map(|nanos| seconds(*nanos))
    }

    pub(crate) fn tail_goodput(&self) -> Option<f64> {
        share(self.tail(|second| second.done), self.tail(|second| second.begun))
    }

    pub(crate) fn tail_load(&self) -> Option<f64> {
        let tries = self.tail(|second| second.begun + second.retries);
        share(tries, self.tail(|second| second.begun))
    }

    pub(crate) fn early_goodput(&self) -> Option<f64> {
        let end = place(self.faults?.0);
        let from = end.saturating_sub(LOOK);
        let done = self.sum(|second| second.done, from, end);
        share(done, self.sum(|second| second.begun, from, end))
    }

    /// The calls of the last seconds that were served, over the twin's.
    pub(crate) fn tail_goodput_vs_twin(&self) -> Option<f64> {
        let twin = self.twin.as_ref()?;
        let from = self.seconds.len().saturating_sub(LOOK);
        let theirs = twin.get(from..).unwrap_or_default().iter().map(|second| second.good).sum();
        share(self.tail(|second| second.good), theirs)
    }

    /// How long after the heal goodput was back to the twin's for good: of all calls begun in any ten
    /// seconds from then on as many were served, but for a hundredth.
    pub(crate) fn back_to_twin(&self) -> Back {
        let (Some(twin), Some((_, heal))) = (&self.twin, self.faults) else { return Back::Unknown };
        let (heal, end) = (place(heal), self.seconds.len().min(twin.len()));
        // Calls of the last seconds are not over.
        let last = end.saturating_sub(LOOK);
        if heal > last {
            return Back::Unknown;
        }
        let goods = |of: &[Second], from: usize| -> u64 {
            of.get(from..from + LOOK).unwrap_or_default().iter().map(|second| second.good).sum()
        };
        let is_back = |from: &usize| {
            share(goods(&self.seconds, *from), goods(twin, *from)).is_none_or(|now| now >= BACK)
        };
        let back = (heal..=last).rev().take_while(is_back).last();
        #[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
        match back {
            Some(place) => Back::After((place - heal) as f64),
            None => Back::Never((last - heal) as f64),
        }
    }

    pub(crate) fn healthy_served(&self) -> Option<f64> {
        share(self.healthy.1, self.healthy.0)
    }

    pub(crate) fn bad_unsent(&self) -> Option<f64> {
        share(self.bad.1, self.bad.0)
    }

    pub(crate) fn bad_share(&self) -> Option<f64> {
        share(self.attempts_to_bad, self.attempts())
    }

    #[expect(clippy::cast_precision_loss, reason = "requests in one second")]
    pub(crate) fn peak_requests(&self, server: Option<&str>) -> Option<f64> {
        let of = |(name, peak): &(String, u64)| {
            server.is_none_or(|server| server == name).then_some(*peak as f64)
        };
        self.peak_requests.iter().filter_map(of).reduce(f64::max)
    }

    pub(crate) fn summary(&self) -> CallSummary {
        CallSummary {
            calls: self.calls(),
            success: self.success(),
            attempts: self.attempts(),
            attempts_per_call: self.attempts_per_call(),
            outage_attempts_per_call: self.outage_attempts_per_call(),
            latency_p50_s: self.latency_s(0.5),
            latency_p99_s: self.latency_s(0.99),
            rejected: self.rejected.clone(),
            given_up: self.given_up.values().sum(),
            given_up_by_layer: self.failed,
            wasted: self.wasted,
            back_to_twin_s: match self.back_to_twin() {
                Back::After(after) => Some(after),
                Back::Never(_) | Back::Unknown => None,
            },
            bound_s: self.bound.as_ref().map(|bound| bound.total().as_secs_f64()),
            tail_vs_twin: self.tail_goodput_vs_twin(),
        }
    }

    pub(crate) fn hit_share(&self) -> Option<f64> {
        share(self.hits, self.hits + self.misses)
    }
}

/// What a run says about its calls, for machines. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallSummary {
    /// Calls begun.
    pub calls: u64,
    /// The share of them that succeeded.
    pub success: Option<f64>,
    /// Attempts started.
    pub attempts: u64,
    /// The same per call.
    pub attempts_per_call: Option<f64>,
    /// The same from the first fault to the heal.
    pub outage_attempts_per_call: Option<f64>,
    /// Half of the calls that succeeded took less.
    pub latency_p50_s: Option<f64>,
    /// 99 % of them did.
    pub latency_p99_s: Option<f64>,
    /// Calls refused, by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
    /// Calls given up.
    pub given_up: u64,
    /// Of those, the ones that a retry layer around the manager gave up.
    pub given_up_by_layer: u64,
    /// Answers that nobody waited for any more.
    pub wasted: u64,
    /// Until goodput was that of the same run without faults again.
    pub back_to_twin_s: Option<f64>,
    /// Until when it must be.
    pub bound_s: Option<f64>,
    /// Calls of the last ten seconds that succeeded, over those without faults.
    pub tail_vs_twin: Option<f64>,
}

/// Whether and when goodput came back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Back {
    /// So many seconds after the heal.
    After(f64),
    /// Not in so many seconds.
    Never(f64),
    /// There is nothing to come back from, or to compare with.
    Unknown,
}
