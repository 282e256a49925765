//! What is counted on the way.

use steadfast::{Stats, Time};

/// How dials or attempts were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// By the recorded fact: they are the recorded ones.
    pub(super) recorded: u64,
    /// As the nearest recorded one was.
    pub(super) nearest: u64,
    /// As a recorded connection that was up then lets expect.
    pub(super) standing: u64,
    /// Not at all: nothing is known.
    pub(super) never: u64,
}

impl Answers {
    pub(super) const fn all(&self) -> u64 {
        self.recorded + self.nearest + self.standing + self.never
    }

    fn add(&mut self, other: &Self) {
        self.recorded += other.recorded;
        self.nearest += other.nearest;
        self.standing += other.standing;
        self.never += other.never;
    }
}

/// What is counted of the other managers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) dials: Answers,
    pub(super) attempts: Answers,
    /// Recorded facts, and those that were about nothing that is there.
    pub(super) facts: u64,
    pub(super) facts_dropped: u64,
    /// Times that a connection had nobody to tell whether it lived.
    pub(super) orphans: u64,
    /// Ticks of their own.
    pub(super) ticks: u64,
    /// Times that breakers opened.
    pub(super) opens: u64,
    /// When they first answered otherwise, and before which line of the recording or with it.
    pub(super) first_difference: Option<(Time, u64)>,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.dials.add(&other.dials);
        self.attempts.add(&other.attempts);
        self.facts += other.facts;
        self.facts_dropped += other.facts_dropped;
        self.orphans += other.orphans;
        self.ticks += other.ticks;
        self.opens += other.opens;
        let differences = [self.first_difference, other.first_difference];
        self.first_difference = differences.into_iter().flatten().min();
    }
}

/// How many peers are connected, and how many wait to be, over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Curve {
    last: (u32, u32),
    /// By how much each changed.
    changes: Vec<(Time, i64, i64)>,
}

/// What a curve says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    /// Peers connected on average in each of so many equal parts.
    pub(super) up: Vec<f64>,
    /// The most that were wanted at once.
    pub(super) most: u32,
    /// Since when all who are wanted are connected, if they are at the end.
    pub(super) all_up: Option<Time>,
    /// Seconds that peers spent waiting, all together.
    pub(super) waiting_s: f64,
}

impl Curve {
    pub(super) fn note(&mut self, at: Time, stats: &Stats) {
        let peers = &stats.peers;
        let up = peers.connected;
        let missing = peers.connecting + peers.reconnecting + peers.failed;
        let (was_up, was_missing) = std::mem::replace(&mut self.last, (up, missing));
        if (was_up, was_missing) != (up, missing) {
            let change = |now: u32, was: u32| i64::from(now) - i64::from(was);
            self.changes.push((at, change(up, was_up), change(missing, was_missing)));
        }
    }

    /// The curves of all managers together, from `begin` to `end`, in so many parts.
    #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds, for printing")]
    pub(super) fn shape(curves: &[Self], begin: Time, end: Time, parts: u32) -> Shape {
        let all = curves.iter().flat_map(|curve| curve.changes.iter().copied());
        let mut changes: Vec<_> = all.collect();
        changes.sort_by_key(|(at, ..)| *at);
        let part_ns = end.since(begin).as_nanos() as f64 / f64::from(parts.max(1));
        let mut shape =
            Shape { up: vec![0.0; parts as usize], most: 0, all_up: None, waiting_s: 0.0 };
        let (mut up, mut missing, mut since) = (0_i64, 0_i64, begin);
        for (at, more_up, more_missing) in changes.into_iter().chain([(end, 0, 0)]) {
            let span = (since.since(begin).as_nanos() as f64, at.since(begin).as_nanos() as f64);
            shape.waiting_s += missing as f64 * (span.1 - span.0).max(0.0) / 1e9;
            fill(&mut shape.up, up as f64, span, part_ns);
            let was_missing = missing;
            up += more_up;
            missing += more_missing;
            shape.most = shape.most.max(u32::try_from(up + missing).unwrap_or(0));
            if missing == 0 && was_missing > 0 {
                shape.all_up = Some(at);
            } else if missing > 0 {
                shape.all_up = None;
            }
            since = since.max(at);
        }
        shape
    }
}

/// Adds a level that held over a span to the parts that it lies in, by its share of each.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place among a few parts; the cast saturates"
)]
fn fill(parts: &mut [f64], level: f64, (begin, end): (f64, f64), part_ns: f64) {
    if part_ns <= 0.0 || level <= 0.0 {
        return;
    }
    let first = (begin / part_ns) as usize;
    for (place, part) in parts.iter_mut().enumerate().skip(first) {
        let from = place as f64 * part_ns;
        if from >= end {
            return;
        }
        let within = end.min(from + part_ns) - begin.max(from);
        *part += level * within.max(0.0) / part_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_the_mean_of_each_part() {
        let at = Time::from_secs;
        let changes = vec![(at(0), 0, 2), (at(1), 1, -1), (at(3), 1, -1), (at(9), -1, 1)];
        let curve = Curve { last: (0, 0), changes };
        let twice = [curve.clone(), curve];
        let shape = Curve::shape(&twice[..1], at(0), at(10), 5);
        assert_eq!(shape.up, [0.5, 1.5, 2.0, 2.0, 1.5]);
        assert_eq!((shape.most, shape.all_up, shape.waiting_s), (2, None, 5.0));
        let shape = Curve::shape(&twice, at(0), at(10), 1);
        assert_eq!((shape.most, shape.waiting_s), (4, 10.0));
    }
}
