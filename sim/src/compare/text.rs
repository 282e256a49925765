//! A comparison as text.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};

use super::column::Column;
use super::{Comparison, ComparisonCell, ComparisonRow, Difference, Verdicts};
use crate::expect::Unit;

/// Marks in the table's text that take no room (invisible operators of Unicode), so that it can be
/// laid out before it is coloured.
const BEST: char = '\u{2061}';
const CHANCE: char = '\u{2062}';
const WRONG: char = '\u{2063}';
const END: char = '\u{2064}';

/// How the values of a column are written, so that they can be read one below the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    factor: f64,
    unit: &'static str,
    decimals: usize,
}

impl Scale {
    /// For these values.
    pub(super) fn of<'a>(column: &Column, cells: impl Iterator<Item = &'a ComparisonCell>) -> Self {
        let means: Vec<f64> = cells.filter_map(|cell| cell.mean).map(libm::fabs).collect();
        let most = means.iter().copied().fold(0.0, f64::max);
        let (factor, unit) = match column.unit {
            Unit::Time if most > 0.0 && most < 1.0 => (1_000.0, "ms"),
            Unit::Time => (1.0, "s"),
            Unit::Rate => (1.0, "/s"),
            Unit::Share => (100.0, "%"),
            Unit::Number => (1.0, ""),
        };
        let values = || means.iter().map(|mean| mean * factor);
        let least = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        let decimals = match least {
            _ if values().all(|value| libm::floor(value) == value) => 0,
            10.0.. => 1,
            _ if column.unit == Unit::Rate => 1,
            _ if column.unit == Unit::Number && least < 1.0 => 3,
            _ => 2,
        };
        Self { factor, unit, decimals }
    }

    /// A value of the column.
    pub(super) fn shown(self, value: f64) -> String {
        let value = value * self.factor;
        format!("{}{}", number(value, of_use(value, self.decimals)), self.unit)
    }

    /// A difference and its interval, in the unit of the values and no finer than is of use.
    fn difference(self, difference: &Difference) -> String {
        if difference.is_nothing() {
            return "the same".to_owned();
        }
        let mean = difference.mean * self.factor;
        let sign = if mean > 0.0 { "+" } else { "" };
        let Some(half) = difference.plus_minus.map(|half| half * self.factor) else {
            return format!("{sign}{}", number(mean, self.decimals));
        };
        let decimals = match half {
            10.0.. => 0,
            1.0.. => 1,
            0.1.. => 2,
            _ => 3,
        };
        let decimals = of_use(mean, decimals.min(self.decimals + 1));
        format!("{sign}{} ±{}", number(mean, decimals), number(half, decimals))
    }
}

/// How many decimals of a number are worth reading.
fn of_use(value: f64, decimals: usize) -> usize {
    match libm::fabs(value) {
        1_000.0.. => 0,
        100.0.. => decimals.min(1),
        _ => decimals,
    }
}

/// A number with its thousands set apart.
fn number(value: f64, decimals: usize) -> String {
    let digits = format!("{:.decimals$}", libm::fabs(value));
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let is_nothing = digits.chars().all(|c| matches!(c, '0' | '.'));
    let mut number = String::from(if value < 0.0 && !is_nothing { "-" } else { "" });
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            number.push(',');
        }
        number.push(digit);
    }
    number + rest
}

impl Comparison {
    fn marked(&self, text: String, mark: char) -> String {
        if self.colour { format!("{mark}{text}{END}") } else { text }
    }

    /// A cell's lines: the mean, the difference to the first row, and what is missing in them.
    fn cell(&self, cell: &ComparisonCell, scale: Scale) -> String {
        let mut lines = Vec::new();
        if let Some(mean) = cell.mean {
            let mean = scale.shown(mean);
            lines.push(match cell.best {
                true => self.marked(format!("{mean} *"), BEST),
                false => mean,
            });
        }
        if let Some(difference) = &cell.difference {
            let text = scale.difference(difference);
            lines.push(match (difference.significant, difference.is_nothing()) {
                (true, _) => text,
                (false, true) => self.marked(text, CHANCE),
                (false, false) => self.marked(format!("~ {text}"), CHANCE),
            });
        }
        for (what, count) in [("never", cell.never), ("unknown", cell.unknown)] {
            if count > 0 && (what == "never" || count < self.seeds) {
                lines.push(format!("{what} in {count} of {}", self.seeds));
            }
        }
        if let Some(pairs) = cell.difference.map(|difference| difference.pairs)
            && pairs < self.seeds
        {
            lines.push(format!("{pairs} pair{}", if pairs == 1 { "" } else { "s" }));
        }
        if lines.is_empty() { "-".to_owned() } else { lines.join("\n") }
    }

    fn verdicts(&self, verdicts: Verdicts) -> String {
        let Verdicts { held, violated, unknown, .. } = verdicts;
        let all = [(held, "held"), (violated, "violated"), (unknown, "unknown")];
        let lines = all.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| {
            let text = format!("{count} {word}");
            if word == "violated" { self.marked(text, WRONG) } else { text }
        });
        let lines = lines.collect::<Vec<_>>().join("\n");
        if lines.is_empty() { "-".to_owned() } else { lines }
    }

    /// The paths that vary, without their values.
    fn paths(&self) -> impl Iterator<Item = &str> {
        let varied = self.rows.first().map(|row| row.varied.as_slice()).unwrap_or_default();
        varied.iter().map(|change| halves(change).0)
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let titles = self.columns.iter().map(|column| column.title.as_str());
        let paths: Vec<_> = self.paths().map(in_two_lines).collect();
        let paths = paths.iter().map(String::as_str);
        let header = ["policy"].into_iter().chain(paths).chain(titles).chain(["expect"]);
        table.set_header(header);
        let scales = self.columns.iter().map(|column| {
            let scale = Scale::of(column, self.column(&column.measure));
            (column, scale)
        });
        let scales: Vec<_> = scales.collect();
        for row in &self.rows {
            let varied = row.varied.iter().map(|change| halves(change).1.to_owned());
            let cells = scales.iter().filter_map(|(column, scale)| {
                row.cells.get(&column.measure).map(|cell| self.cell(cell, *scale))
            });
            let line = [row.policy.clone()].into_iter().chain(varied).chain(cells);
            table.add_row(line.chain([self.verdicts(row.verdicts)]));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }

    /// Colours what is marked.
    fn coloured(&self, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let styles = [
            (BEST, Style::new().bold()),
            (CHANCE, AnsiColor::BrightBlack.on_default()),
            (WRONG, AnsiColor::Red.on_default().bold()),
        ];
        let painted = styles
            .into_iter()
            .fold(text.to_owned(), |text, (mark, style)| text.replace(mark, &style.to_string()));
        painted.replace(END, &format!("{:#}", Style::new().bold()))
    }

    /// What the marks in the table mean, those that are there.
    fn legend(&self) -> String {
        let cells = || self.rows.iter().flat_map(|row| row.cells.values());
        let differences = || cells().filter_map(|cell| cell.difference.as_ref());
        let mut legend = String::new();
        if differences().next().is_some() {
            let interval = match differences().any(|difference| difference.plus_minus.is_some()) {
                true => ", with its 95 % interval",
                false => "; one seed tells nothing about chance",
            };
            let below = "below a mean: the mean difference to the first row, seed by seed";
            let _ = writeln!(legend, "{below}{interval}");
        }
        if differences().any(|difference| !difference.significant && !difference.is_nothing()) {
            legend.push_str("~  may be chance: these seeds cannot tell it from no difference\n");
        }
        if cells().any(|cell| cell.best) {
            legend.push_str("*  the best of its column");
            if self.rows.iter().any(ComparisonRow::is_unfinished) {
                legend.push_str(", rows with a never left out");
            }
            legend.push('\n');
        }
        if cells().any(|cell| cell.never > 0) {
            legend.push_str("never: not by the end of the scenario; such runs are in no mean\n");
        }
        legend
    }

    /// Which expectations were violated, and where to look first.
    fn violated(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            for (what, seeds) in &row.violated {
                let (label, first) = (row.label(), seeds.first().copied().unwrap_or_default());
                let (count, all) = (seeds.len(), self.seeds);
                let _ = writeln!(
                    text,
                    "violated under {label}: {what}   in {count} of {all}, first under seed {first}"
                );
            }
        }
        text
    }
}

/// A path, which may be long for what stands below it.
fn in_two_lines(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((head, last)) => format!("{head}.\n{last}"),
        None => path.to_owned(),
    }
}

/// The path and the value of a change.
pub(super) fn halves(change: &str) -> (&str, &str) {
    let equals = crate::scenario::path_end(change).unwrap_or(change.len());
    let (path, value) = change.split_at(equals);
    (path, value.strip_prefix('=').unwrap_or(value))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bold = if self.colour { Style::new().bold() } else { Style::new() };
        let (name, first, digest) = (&self.scenario, self.first_seed, &self.digest);
        let seeds = match self.seeds {
            1 => format!("seed {first}"),
            count => format!("seeds {first} to {}", first + (count - 1)),
        };
        writeln!(f, "{bold}{name}{bold:#}  each row under {seeds}  digest {digest}\n")?;
        for line in self.table().lines() {
            writeln!(f, "{}", self.coloured(line.trim_end()))?;
        }
        writeln!(f)?;
        f.write_str(&self.legend())?;
        f.write_str(&self.violated())?;
        writeln!(f, "the first run of each row:")?;
        for row in &self.rows {
            writeln!(f, "  {}", row.reproduce)?;
        }
        write!(f, "reproduce: {}", self.reproduce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_exact_as_they_need_to_be() {
        let scale = Scale { factor: 1.0, unit: "s", decimals: 2 };
        assert_eq!(
            [0.5, 12.345, 123.45, 128_927.4].map(|value| scale.shown(value)),
            ["0.50s", "12.35s", "123.5s", "128,927s"]
        );
        let difference = |mean, half| {
            let difference = Difference { mean, plus_minus: half, pairs: 3, significant: true };
            scale.difference(&difference)
        };
        assert_eq!(difference(67.123, Some(2.345)), "+67.1 ±2.3");
        assert_eq!(difference(-0.001, Some(0.1234)), "0.00 ±0.12");
        assert_eq!(difference(-1_234.5, Some(12.0)), "-1,234 ±12");
        assert_eq!(difference(2.0, Some(0.0)), "+2.000 ±0.000");
        assert_eq!(difference(19_677.0, Some(0.0)), "+19,677 ±0");
        assert_eq!(difference(2.0, None), "+2.00");
        assert_eq!(difference(0.0, Some(0.0)), "the same");
    }
}
