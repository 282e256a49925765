//! A what-if as text: the two side by side, how the answers came about, and what it cannot tell.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};

use serde::Serialize;

use super::counts::{Answers, Shape};
use super::{Side, WhatIfReport};
use crate::report::{grouped, spark};
use crate::units::seconds;

/// The width of names.
const NAME: usize = 26;
/// What a level may lack of a full one and still be drawn as that.
const ROUNDING: f64 = 0.005;

impl fmt::Display for WhatIfReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (place, line) in self.done.iter().enumerate() {
            let title = if place == 0 { "what if" } else { "" };
            writeln!(f, "{title:<10} {line}")?;
        }
        if self.cut_off {
            writeln!(f, "{:<10} the recording has no end; it goes as far as that", "cut off:")?;
        }
        writeln!(f)?;
        self.table(f)?;
        writeln!(f)?;
        self.lanes(f)?;
        self.first_difference(f)?;
        self.answers(f)?;
        self.limits(f)
    }
}

impl WhatIfReport {
    /// Whether the other managers answered as the recorded ones did, byte for byte.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.counts.first_difference.is_none() && self.recorded.digest == self.other.digest
    }

    /// The run digests of all managers together: of the recorded ones, and of the others.
    #[must_use]
    pub const fn digests(&self) -> (u64, u64) {
        (self.recorded.digest, self.other.digest)
    }

    /// Dials begun: by the recorded managers, and by the others.
    #[must_use]
    pub const fn dials(&self) -> (u64, u64) {
        (self.recorded.stats.dials, self.other.stats.dials)
    }

    fn table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<NAME$} {:>14} {:>14}", "", "recorded", "what if")?;
        let [a, b] = [&self.recorded, &self.other];
        if a.shape.most > 0 {
            self.peers(f)?;
        }
        count(f, "breakers opened", a.opens, b.opens)?;
        if a.stats.calls > 0 {
            self.calls(f)?;
        }
        Ok(())
    }

    fn peers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [a, b] = [&self.recorded, &self.other];
        count(f, "dials", a.stats.dials, b.stats.dials)?;
        count(f, "  succeeded", a.stats.dials_succeeded, b.stats.dials_succeeded)?;
        counts(f, "  failed", &a.stats.dial_failures, &b.stats.dial_failures)?;
        counts(f, "connections lost", &a.stats.losses, &b.stats.losses)?;
        if a.stats.suspected + b.stats.suspected > 0 {
            count(f, "suspicions", a.stats.suspected, b.stats.suspected)?;
            count(f, "  that were wrong", a.stats.cleared, b.stats.cleared)?;
        }
        if a.stats.given_up + b.stats.given_up > 0 {
            count(f, "peers given up", a.stats.given_up, b.stats.given_up)?;
        }
        let up = |side: &Side| u64::from(side.stats.peers.connected);
        count(f, "connected at the end", up(a), up(b))?;
        row(f, "all connected from", &all_up(&a.shape), &all_up(&b.shape))?;
        let waited = |side: &Side| format!("{:.1}s", side.shape.waiting_s);
        row(f, "waited, all peers together", &waited(a), &waited(b))
    }

    fn calls(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [a, b] = [&self.recorded.stats, &self.other.stats];
        count(f, "calls", a.calls, b.calls)?;
        count(f, "  done", a.calls_done, b.calls_done)?;
        counts(f, "  rejected", &a.rejections, &b.rejections)?;
        counts(f, "  given up", &a.give_ups, &b.give_ups)?;
        count(f, "attempts", a.attempts, b.attempts)?;
        counts(f, "  failed", &a.attempt_failures, &b.attempt_failures)
    }

    /// Who was connected, over time.
    fn lanes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let most = self.recorded.shape.most.max(self.other.shape.most);
        if most == 0 {
            return Ok(());
        }
        let lane = |shape: &Shape| -> String {
            shape
                .up
                .iter()
                .map(|level| spark((level / f64::from(most) + ROUNDING).min(1.0), false))
                .collect()
        };
        writeln!(
            f,
            "connected, of {} peers, from {} to {}",
            grouped(most.into()),
            self.begin,
            self.end
        )?;
        writeln!(f, "  recorded  {}", lane(&self.recorded.shape))?;
        writeln!(f, "  what if   {}\n", lane(&self.other.shape))
    }

    fn first_difference(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let steps = grouped(self.steps);
        match self.counts.first_difference {
            Some((at, line)) => {
                writeln!(f, "{:<10} answers differ from {at} on, line {line}", "differs")?;
            }
            None => writeln!(f, "{:<10} all {steps} steps have the recorded answers", "same")?,
        }
        let (recorded, other) = self.digests();
        writeln!(f, "{:<10} recorded {recorded:016x}, what if {other:016x}", "digests")
    }

    /// What the answers that it got are worth.
    fn answers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        for (what, one, answers) in
            [("dials", "dial", &counts.dials), ("attempts", "attempt", &counts.attempts)]
        {
            if answers.all() > 0 {
                writeln!(f, "{:<10} {}", "known", known(what, one, answers))?;
            }
        }
        let (facts, dropped) = (grouped(counts.facts), grouped(counts.facts_dropped));
        writeln!(
            f,
            "{:<10} of {facts} recorded facts {dropped} had nobody to be told to",
            "facts"
        )?;
        if counts.orphans > 0 {
            let orphans = grouped(counts.orphans);
            writeln!(
                f,
                "{:<10} {orphans} times a connection was up where nothing recorded tells if it lived",
                ""
            )?;
        }
        Ok(())
    }

    fn limits(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_same() {
            return Ok(());
        }
        let lines = [
            "a recording does not hold what the servers would have done under fewer or more dials or",
            "calls: answers are those that were recorded, whatever the load. Callers ask when they",
            "asked. For the feedback of load, run a scenario: `steadfast run`, `steadfast compare`",
        ];
        for (place, line) in lines.into_iter().enumerate() {
            let title = if place == 0 { "limits" } else { "" };
            writeln!(f, "{title:<10} {line}")?;
        }
        Ok(())
    }
}

fn known(what: &str, one: &str, answers: &Answers) -> String {
    let Answers { recorded, nearest, standing, never } = answers;
    let all = grouped(answers.all());
    let mut text = format!(
        "of {all} {what} {} were answered as recorded, {} from the nearest recorded {one}",
        grouped(*recorded),
        grouped(*nearest)
    );
    if *standing > 0 {
        text += &format!(", {} by how a recorded connection did that was up", grouped(*standing));
    }
    text + &format!(", {} were never answered", grouped(*never))
}

fn all_up(shape: &Shape) -> String {
    match shape.all_up {
        Some(at) => format!("{:.1}s", seconds(at.as_nanos())),
        None => "never".to_owned(),
    }
}

fn row(f: &mut Formatter<'_>, name: &str, recorded: &str, other: &str) -> fmt::Result {
    writeln!(f, "{name:<NAME$} {recorded:>14} {other:>14}")
}

fn count(f: &mut Formatter<'_>, name: &str, recorded: u64, other: u64) -> fmt::Result {
    row(f, name, &grouped(recorded), &grouped(other))
}

/// A line for the sum, where there is one, and one for each part of it.
fn counts(
    f: &mut Formatter<'_>,
    name: &str,
    recorded: &impl Serialize,
    other: &impl Serialize,
) -> fmt::Result {
    let (recorded, other) = (parts(recorded), parts(other));
    count(f, name, recorded.values().sum(), other.values().sum())?;
    let indent = " ".repeat(name.len() - name.trim_start().len());
    for (part, &first) in &recorded {
        let second = other.get(part).copied().unwrap_or(0);
        if first + second > 0 {
            count(f, &format!("{indent}  {}", part.replace('_', " ")), first, second)?;
        }
    }
    Ok(())
}

/// Counts by their names.
fn parts(counts: &impl Serialize) -> BTreeMap<String, u64> {
    let parts = serde_json::to_value(counts).ok();
    parts.and_then(|parts| serde_json::from_value(parts).ok()).unwrap_or_default()
}
