//! A run as text.
//!
//! Everything here is a function of the scenario, the policy and the seed, so that it can be the
//! snapshot of a test. What the wall clock says is printed elsewhere.

mod calls;

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};

use crate::draws::Draws;
use crate::expect::Measured;
use crate::measure::{Column, Facts, Waits, skew};
use crate::schedule::Schedule;
use crate::simulation::{Run, Verdict, reproduce};
use crate::units::seconds;

/// A run, ready to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Timeline<'a> {
    run: &'a Run,
    ascii: bool,
    colour: bool,
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN: [char; 8] = ['_', '.', '-', ':', '=', '+', '*', '#'];
/// Columns between two marks of the time axis.
const MARK: usize = 10;
const SECOND: u64 = 1_000_000_000;

impl<'a> Timeline<'a> {
    pub(crate) const fn new(run: &'a Run) -> Self {
        Self { run, ascii: false, colour: false }
    }

    /// With plain characters only.
    #[must_use]
    pub const fn ascii(mut self, ascii: bool) -> Self {
        self.ascii = ascii;
        self
    }

    /// With terminal colours.
    #[must_use]
    pub const fn colour(mut self, colour: bool) -> Self {
        self.colour = colour;
        self
    }

    /// A level from 0 to 1 as one character.
    fn spark(self, level: f64) -> char {
        spark(level, self.ascii)
    }

    fn lanes(self, f: &mut fmt::Formatter<'_>, facts: &Facts) -> fmt::Result {
        let mut axis = String::new();
        for place in (0..facts.columns.len()).step_by(MARK) {
            let second = facts.column_s * u64::try_from(place).unwrap_or(0);
            let _ = write!(axis, "{:<MARK$}", format!("{second}s"));
        }
        writeln!(f, "t        {}", axis.trim_end())?;
        if facts.peers > 0 {
            self.peer_lanes(f, facts)?;
        }
        if let Some(calls) = &facts.calls {
            self.call_lanes(f, facts, calls)?;
        }
        let lane = |of: &dyn Fn(&Column) -> char| facts.columns.iter().map(of).collect::<String>();
        let many = self.run.breakers.div_ceil(2).max(1);
        let breaker = lane(&|column| match column {
            _ if column.open as usize >= many => 'O',
            _ if column.half_open as usize >= many => 'H',
            _ if column.open > 0 => 'o',
            _ if column.half_open > 0 => 'h',
            _ => self.nothing(),
        });
        let breakers = match self.run.breakers {
            1 => "1 breaker".to_owned(),
            n => format!("{} breakers", grouped(n as u64)),
        };
        let opens = grouped(facts.breaker_opens);
        writeln!(f, "breaker  {breaker}   {breakers}, opened {opens} times")?;
        let faults = self.faults(facts);
        if !self.run.scenario.faults.is_empty() {
            writeln!(f, "faults   {faults}   {}", self.kinds())?;
        }
        self.legend(f, &breaker, &faults)
    }

    /// Who is up, and how much is dialed.
    fn peer_lanes(self, f: &mut fmt::Formatter<'_>, facts: &Facts) -> fmt::Result {
        let lane = |of: &dyn Fn(&Column) -> char| facts.columns.iter().map(of).collect::<String>();
        let peers = f64::from(facts.peers.max(1));
        let up = lane(&|column| self.spark(f64::from(column.up) / peers));
        let lost = match facts.lost_at_s {
            Some(at) => format!("lost {} from {at:.1}s on", grouped(facts.lost.into())),
            None => "nobody lost".to_owned(),
        };
        let healed = match facts.healed_at_s {
            Some(at) => format!("healed at {at:.1}s"),
            None => "never healed".to_owned(),
        };
        writeln!(f, "up %     {up}   {lost}, {healed}")?;
        let most = facts.columns.iter().map(|column| column.dials).max().unwrap_or(0).max(1);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let dials = lane(&|column| self.spark(column.dials as f64 / most as f64));
        writeln!(f, "dials/s  {dials}   most in any second {}", grouped(facts.peak_dials))
    }

    /// In which columns a fault is active.
    fn faults(self, facts: &Facts) -> String {
        let column_ns = facts.column_s.max(1).saturating_mul(SECOND);
        let mut active = vec![false; facts.columns.len()];
        for fault in &self.run.scenario.faults {
            for (begin, end) in Schedule::of(fault).shown(Draws::new(self.run.seed)) {
                // One that takes no time is seen all the same.
                let begin = begin.as_nanos();
                let end = end.as_nanos().max(begin.saturating_add(1)).div_ceil(column_ns);
                let place = |columns: u64| usize::try_from(columns).unwrap_or(usize::MAX);
                let end = place(end).min(active.len());
                if let Some(columns) = active.get_mut(place(begin / column_ns)..end) {
                    columns.fill(true);
                }
            }
        }
        active.into_iter().map(|active| if active { 'x' } else { self.nothing() }).collect()
    }

    /// What the faults are, if they are few.
    fn kinds(self) -> String {
        let faults = &self.run.scenario.faults;
        if faults.len() > 3 {
            return format!("{} faults", faults.len());
        }
        let kinds = faults.iter().map(|fault| {
            let (kind, on) = (fault.kind.get_ref(), fault.on.get_ref());
            let schedule = Schedule::of(fault);
            if schedule.is_each() {
                return format!("{kind} {on} one by one");
            }
            match schedule.spans(Draws::new(self.run.seed)).count() {
                1 => format!("{kind} {on}"),
                times => format!("{kind} {on} {} times", grouped(times as u64)),
            }
        });
        kinds.collect::<Vec<_>>().join(", ")
    }

    /// What the marks of the lanes mean, as far as there are any.
    fn legend(self, f: &mut fmt::Formatter<'_>, breaker: &str, faults: &str) -> fmt::Result {
        let one = self.run.breakers == 1;
        let marks = [
            ('O', if one { "open" } else { "half of them or more open" }),
            ('o', "some open"),
            ('H', if one { "half-open" } else { "half of them or more half-open" }),
            ('h', "some half-open"),
        ];
        let marks = marks.into_iter().filter(|(mark, _)| breaker.contains(*mark));
        let fault = Some(('x', "a fault")).filter(|(mark, _)| faults.contains(*mark));
        let marks: Vec<_> =
            marks.chain(fault).map(|(mark, means)| format!("{mark} {means}")).collect();
        if marks.is_empty() {
            return Ok(());
        }
        writeln!(f, "         {}", marks.join("   "))
    }

    /// The mark of a lane where nothing is.
    const fn nothing(self) -> char {
        if self.ascii { '.' } else { '·' }
    }

    fn recovery(f: &mut fmt::Formatter<'_>, facts: &Facts) -> fmt::Result {
        let (back, lost) = (grouped(facts.recovered().into()), grouped(facts.lost.into()));
        write!(f, "recovered {back}/{lost}")?;
        let all = [
            ("p50", facts.quantile(0.5, None)),
            ("p99", facts.quantile(0.99, None)),
            ("all", facts.all_up()),
        ];
        let known = all.iter().any(|(_, measured)| *measured != Measured::Unknown);
        f.write_str(if known { "   after heal:" } else { "" })?;
        for (place, (name, measured)) in all.into_iter().enumerate() {
            let gap = if place == 0 { " " } else { "   " };
            match measured {
                Measured::Value(value) => write!(f, "{gap}{name} {value:.1}s")?,
                Measured::AtLeast(_) => write!(f, "{gap}{name} never")?,
                Measured::Unknown => {}
            }
        }
        if let Some(ideal) = facts.ideal_s {
            write!(f, "   ideal {ideal:.1}s")?;
        }
        if let Some(efficiency) = facts.efficiency() {
            write!(f, "   efficiency {efficiency:.2}")?;
        }
        writeln!(f)?;
        write!(f, "dials {}   per peer {:.2}", grouped(facts.dials), facts.dials_per_peer())?;
        write!(f, "   refused {}", grouped(facts.refused))?;
        write!(f, "   wasted {}", grouped(facts.server_wasted))?;
        if facts.given_up > 0 {
            write!(f, "   given up {}", grouped(facts.given_up))?;
        }
        if facts.resumed > 0 {
            write!(f, "   sessions resumed {}", grouped(facts.resumed))?;
        }
        writeln!(f)?;
        for group in &facts.groups {
            let used = match facts.bound_used(Some(group.name())) {
                Measured::Value(share) => format!("{:.0} %", 100.0 * share),
                Measured::AtLeast(share) => format!("more than {:.0} %", 100.0 * share),
                Measured::Unknown => continue,
            };
            if let Some(bound) = &group.bound {
                let of = if facts.groups.len() > 1 {
                    format!(" of {}", group.name())
                } else {
                    String::new()
                };
                writeln!(f, "bound{of} {bound}   used {used}")?;
            }
        }
        Self::instances(f, facts)?;
        Self::waits(f, "dead connections found after", &facts.detections)?;
        Self::waits(f, "peers up after their hosts were back", &facts.returns)?;
        Self::waits(f, "peers up after our own host had a network", &facts.reconnects)?;
        if facts.offline_dials > 0 {
            let dials = grouped(facts.offline_dials);
            writeln!(f, "dials without a network or in the background {dials}")?;
        }
        Ok(())
    }

    /// How the connections of servers with instances are dealt at the end, and what draining cost.
    fn instances(f: &mut fmt::Formatter<'_>, facts: &Facts) -> fmt::Result {
        if facts.forced_moves > 0 {
            write!(f, "connections told to move {}", grouped(facts.forced_moves))?;
            write!(f, "   most peers down at once {}", grouped(facts.most_down.into()))?;
            writeln!(f, " ({:.2}%)", facts.most_down_share() * 100.0)?;
        }
        for (server, loads) in &facts.instances {
            let most = grouped(loads.iter().copied().max().unwrap_or(0).into());
            let fewest = grouped(loads.iter().copied().min().unwrap_or(0).into());
            write!(f, "instances of {server}: at the end {fewest} to {most} connections")?;
            if let Some(skew) = skew(loads) {
                write!(f, ", most over mean {skew:.2}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    /// How long something took, if it ever happened.
    fn waits(f: &mut fmt::Formatter<'_>, what: &str, waits: &Waits) -> fmt::Result {
        let shown = |share| match waits.quantile(share) {
            Measured::Value(value) => Some(format!("{value:.1}s")),
            Measured::AtLeast(least) => Some(format!("> {least:.1}s")),
            Measured::Unknown => None,
        };
        match (shown(0.5), shown(0.99), shown(1.0)) {
            (Some(half), Some(most), Some(all)) => {
                writeln!(f, "{what}: p50 {half}   p99 {most}   longest {all}")
            }
            _ => Ok(()),
        }
    }

    /// What the detectors of recorded peers said, a line each.
    fn watched(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = self.run.summary().watched;
        let width = watched.iter().map(|peer| peer.group.len()).max().unwrap_or(0);
        for peer in &watched {
            let suspected = seconds(peer.suspected_ns);
            write!(f, "{:width$}  false {:>5}", peer.group, peer.false_suspicions)?;
            writeln!(f, "  suspected {suspected:>8.3}s  {}", peer.detector)?;
        }
        Ok(())
    }

    fn expects(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.run.expects().is_empty() {
            writeln!(f, "expect   none for policy {}", self.run.policy)?;
        }
        for expect in self.run.expects() {
            let (word, colour) = match expect.held {
                Some(true) => ("ok  ", AnsiColor::Green),
                Some(false) => ("FAIL", AnsiColor::Red),
                None => ("?   ", AnsiColor::Yellow),
            };
            let style = if self.colour { colour.on_default().bold() } else { Style::new() };
            let (name, bound, shown) = (&expect.name, &expect.bound, &expect.shown);
            writeln!(f, "expect   {style}{word}{style:#}  {name} {bound}   ({shown})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Timeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (run, facts, outcome) = (self.run, self.run.facts(), &self.run.outcome);
        let bold = if self.colour { Style::new().bold() } else { Style::new() };
        let (name, peers) = (&run.scenario.name, run.scenario.peer_count());
        write!(f, "{bold}{name}{bold:#}  seed {}", run.seed)?;
        if peers > 0 || facts.calls.is_none() {
            write!(f, "  {} peers", grouped(peers.into()))?;
        }
        if let Some(calls) = &facts.calls {
            write!(f, "  {} calls", grouped(calls.calls()))?;
        }
        if run.managers > 1 {
            write!(f, " in {} managers", grouped(run.managers as u64))?;
        }
        writeln!(f, "  policy {}  digest {:016x}", run.policy, outcome.digest)?;
        if facts.peers > 0 || facts.calls.is_some() {
            self.lanes(f, facts)?;
        }
        if facts.peers > 0 {
            Self::recovery(f, facts)?;
        }
        if let Some(calls) = &facts.calls {
            Self::call_lines(f, calls)?;
        }
        self.highest(f)?;
        self.watched(f)?;
        self.expects(f)?;
        let (events, actions) = (grouped(outcome.events), grouped(outcome.actions));
        let (virtual_s, checks) = (seconds(outcome.virtual_ns), grouped(outcome.invariant_checks));
        writeln!(
            f,
            "{events} events, {actions} actions, {virtual_s:.0}s of time, {checks} checks"
        )?;
        if let Some(violation) = &outcome.violation {
            let style = if self.colour { AnsiColor::Red.on_default().bold() } else { Style::new() };
            writeln!(f, "{style}FAIL{style:#}     {violation}")?;
        }
        let line = reproduce(&run.asked_for, run.seed, &run.policy, &run.sets);
        writeln!(f, "reproduce: {line}")?;
        let verdict = run.verdict();
        let style = if self.colour { word_style(verdict) } else { Style::new() };
        write!(f, "verdict  {style}{verdict}{style:#}")
    }
}

const fn word_style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Held => AnsiColor::Green,
        Verdict::Violated => AnsiColor::Red,
        Verdict::Unknown => AnsiColor::Yellow,
    };
    colour.on_default().bold()
}

/// A level from 0 to 1 as one character; anything above nothing is more than the lowest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number, at least 0"
)]
pub(crate) fn spark(level: f64, ascii: bool) -> char {
    let place =
        (level.clamp(0.0, 1.0) * 7.0) as usize + usize::from(level > 0.0 && level < 1.0 / 7.0);
    let set = if ascii { PLAIN } else { BLOCKS };
    set.get(place).copied().unwrap_or(' ')
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
