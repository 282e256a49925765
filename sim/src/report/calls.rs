//! What became of calls, as lanes and lines.

use std::fmt;

use super::{Timeline, grouped};
use crate::measure::Facts;
use crate::tally::{Back, CallFacts, Second};

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn level(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}%", share * 100.0))
}

impl Timeline<'_> {
    /// Goodput, calls and attempts over time.
    pub(super) fn call_lanes(
        self,
        f: &mut fmt::Formatter<'_>,
        facts: &Facts,
        calls: &CallFacts,
    ) -> fmt::Result {
        let width = usize::try_from(facts.column_s.max(1)).unwrap_or(usize::MAX);
        let columns: Vec<Second> = calls.seconds.chunks(width).map(sum).collect();
        let lane = |of: &dyn Fn(&Second) -> f64| {
            columns.iter().map(|column| self.spark(of(column))).collect::<String>()
        };
        let good = lane(&|column| level(column.good, column.begun));
        writeln!(f, "good %   {good}   of the calls begun, those that succeeded")?;
        let most = columns.iter().map(|column| column.attempts.max(column.begun)).max();
        let most = most.unwrap_or(0);
        let begun = lane(&|column| level(column.begun, most));
        let attempts = lane(&|column| level(column.attempts, most));
        let per_second =
            |of: fn(&Second) -> u64| grouped(calls.seconds.iter().map(of).max().unwrap_or(0));
        let most = per_second(|second| second.begun);
        writeln!(f, "calls/s  {begun}   at most {most}")?;
        let most = per_second(|second| second.attempts);
        writeln!(f, "tries/s  {attempts}   at most {most}")
    }

    /// The counts, and how goodput came back.
    pub(super) fn call_lines(f: &mut fmt::Formatter<'_>, calls: &CallFacts) -> fmt::Result {
        let all = calls.calls();
        write!(f, "calls {}   succeeded {}", grouped(all), percent(calls.success()))?;
        let per_call = calls.attempts_per_call().unwrap_or(0.0);
        write!(f, "   attempts {}   per call {per_call:.3}", grouped(calls.attempts()))?;
        if let Some(outage) = calls.outage_attempts_per_call() {
            write!(f, " ({outage:.3} in the outage)")?;
        }
        writeln!(f)?;
        let seconds = |quantile| {
            calls.latency_s(quantile).map_or_else(|| "-".to_owned(), |s| format!("{s:.3}s"))
        };
        write!(f, "latency p50 {}   p99 {}", seconds(0.5), seconds(0.99))?;
        let (wasted, shed) = (grouped(calls.wasted), grouped(calls.refused));
        writeln!(f, "   answers too late {wasted}   requests shed {shed}")?;
        let reasons = |counts: &mut dyn Iterator<Item = (String, u64)>| {
            let counts = counts.map(|(reason, count)| format!("{reason} {}", grouped(count)));
            counts.collect::<Vec<_>>().join("   ")
        };
        let rejected = calls.rejected.iter().map(|(reason, n)| (format!("{reason:?}"), *n));
        let given_up = calls.given_up.iter().map(|(reason, n)| (format!("{reason:?}"), *n));
        let rejected = reasons(&mut rejected.map(|(reason, n)| (words(&reason), n)));
        let given_up = reasons(&mut given_up.map(|(reason, n)| (words(&reason), n)));
        for (name, list) in [("refused", rejected), ("given up", given_up)] {
            if !list.is_empty() {
                writeln!(f, "{name}: {list}")?;
            }
        }
        let refused: u64 = calls.rejected.values().sum();
        let given_up: u64 = calls.given_up.values().sum();
        let open = all.saturating_sub(calls.succeeded() + refused + given_up);
        if open > 0 {
            writeln!(f, "still open at the end: {}", grouped(open))?;
        }
        Self::return_lines(f, calls)
    }

    /// The highest load that each policy recovers from.
    pub(super) fn highest(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.run.highest.is_empty() {
            return Ok(());
        }
        let found = self.run.highest.iter().map(|found| match found.per_second {
            Some(load) if found.all => format!("{} {load}/s and more", found.policy),
            Some(load) => format!("{} {load}/s", found.policy),
            None => format!("{} none", found.policy),
        });
        let found = found.collect::<Vec<_>>().join("   ");
        writeln!(f, "highest load that is recovered from by the end: {found}")
    }

    /// When goodput was that of the twin again, and what the bound is made of.
    fn return_lines(f: &mut fmt::Formatter<'_>, calls: &CallFacts) -> fmt::Result {
        match calls.back_to_twin() {
            Back::Unknown => return Ok(()),
            Back::After(after) => write!(f, "goodput as without faults {after:.0}s after heal")?,
            Back::Never(least) => {
                write!(f, "goodput as without faults never, in {least:.0}s after heal")?;
            }
        }
        let Some(bound) = &calls.bound else {
            return writeln!(f, "; no bound is known");
        };
        writeln!(f, "; bound {bound}")
    }
}

/// `Refused(BreakerOpen)` as `refused (breaker open)`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        match c {
            '(' => words.push_str(" ("),
            c if c.is_uppercase() => {
                if !words.is_empty() && !words.ends_with('(') {
                    words.push(' ');
                }
                words.extend(c.to_lowercase());
            }
            c => words.push(c),
        }
    }
    words
}

fn sum(seconds: &[Second]) -> Second {
    let mut sum = Second::default();
    for second in seconds {
        sum.begun += second.begun;
        sum.good += second.good;
        sum.done += second.done;
        sum.attempts += second.attempts;
        sum.retries += second.retries;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_words() {
        assert_eq!(words("BreakerOpen"), "breaker open");
        assert_eq!(words("Refused(BulkheadFull)"), "refused (bulkhead full)");
    }
}
