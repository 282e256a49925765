//! What it cost: a row for each run.

use std::fmt::{self, Write as _};

use super::headline::brief;
use super::text::{escaped, number, percent, spell, verdict_word};
use super::{Page, tag};
use crate::expect::Measured;
use crate::simulation::Run;
use crate::tally::{Back, CallFacts};

/// A column: its heading, and its cell in a run; nothing if it does not apply there.
type Column = (&'static str, fn(&Run) -> Option<String>);

const COLUMNS: [Column; 12] = [
    ("all up again, after the fault", |run| match run.facts().all_up() {
        Measured::Value(value) => Some(spell(value)),
        Measured::AtLeast(_) => Some("never".to_owned()),
        Measured::Unknown => None,
    }),
    ("the server needs at least", |run| {
        run.facts().ideal_s.filter(|ideal| *ideal >= 1.0).map(spell)
    }),
    ("dials per connection", |run| {
        (run.facts().peers > 0).then(|| number(run.facts().dials_per_peer()))
    }),
    ("most dials in a second", |run| {
        (run.facts().peers > 0).then(|| crate::report::grouped(run.facts().peak_dials))
    }),
    ("dials refused", |run| {
        (run.facts().peers > 0).then(|| crate::report::grouped(run.facts().refused))
    }),
    ("handshakes wasted", |run| {
        (run.facts().server_wasted > 0).then(|| crate::report::grouped(run.facts().server_wasted))
    }),
    ("calls that succeeded", |run| calls(run)?.success().map(percent)),
    ("99 % of them within", |run| calls(run)?.latency_s(0.99).map(brief)),
    ("as many as without the fault, after", |run| match calls(run)?.back_to_twin() {
        Back::After(after) => Some(spell(after)),
        Back::Never(_) => Some("never".to_owned()),
        Back::Unknown => None,
    }),
    ("requests per call", |run| calls(run)?.attempts_per_call().map(number)),
    ("requests per call in the outage", |run| calls(run)?.outage_attempts_per_call().map(number)),
    ("answers too late", |run| calls(run).map(|calls| crate::report::grouped(calls.wasted))),
];

fn calls(run: &Run) -> Option<&CallFacts> {
    run.facts().calls.as_ref()
}

impl Page<'_> {
    pub(super) fn table(&self, page: &mut String) -> fmt::Result {
        let used = |column: &&Column| self.runs.iter().any(|run| column.1(run).is_some());
        let columns: Vec<&Column> = COLUMNS.iter().filter(used).collect();
        if columns.is_empty() {
            return Ok(());
        }
        page.push_str("<section><h2>What it cost</h2>\n<table><thead><tr><th>client</th>");
        for (heading, _) in &columns {
            write!(page, "<th>{heading}</th>")?;
        }
        page.push_str("<th>expectations</th></tr></thead><tbody>\n");
        for (place, name, run) in self.each() {
            write!(page, "<tr><th>{}</th>", tag(place, name))?;
            for (heading, cell) in &columns {
                let cell = cell(run).unwrap_or_else(|| "–".to_owned());
                write!(page, "<td data-of=\"{heading}\">{}</td>", escaped(&cell))?;
            }
            let verdict = run.verdict();
            let word = match run.expects().is_empty() && run.violation().is_none() {
                true => "none",
                false => verdict_word(verdict),
            };
            writeln!(page, "<td data-of=\"expectations\" class=\"{verdict}\">{word}</td></tr>")?;
        }
        page.push_str("</tbody></table></section>\n");
        Ok(())
    }
}
