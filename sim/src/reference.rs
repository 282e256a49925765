//! Tables of figures that others measured, which a numeric scenario is held to.
//!
//! ```toml
//! [reference]
//! table = "aws_backoff"                           # built in, or a CSV file beside the scenario
//! seeds = 200                                     # our runs for each row
//! runs = 60                                       # theirs; or runs_in = the column that tells
//! set = ["contention.clients={clients}"]          # how a row's cells change the scenario
//!
//! [reference.figures]
//! elapsed = { mean = "mean_time_ms", sd = "time_sd", unit = "1ms" }
//! ```
//!
//! A row's distance is that between the two means over their combined standard error.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::scenario::Name;
use crate::units::Span;

/// What a scenario is held to, row by row.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The table: a built-in name, or a CSV file beside the scenario.
    pub table: Name,
    /// Over how many seeds we run each row.
    pub seeds: Spanned<u32>,
    /// Over how many runs theirs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// The column that tells, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_in: Option<Name>,
    /// The policy of a row, as `"{strategy}"`; the command's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Name>,
    /// How a row changes the scenario, as `"contention.clients={clients}"`.
    #[serde(default)]
    pub set: Vec<Name>,
    /// Which measure stands in which column.
    pub figures: BTreeMap<Name, Columns>,
}

/// Where a table has a figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The column of its mean.
    pub mean: Name,
    /// The column of its standard deviation; where there is none it is taken to be ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd: Option<Name>,
    /// For times: what the table counts in; seconds if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Span>,
}

/// The tables that come with the simulator; `reference/README.md` tells whose models they are of.
const BUILT_IN: [(&str, &str); 4] = [
    ("aws_backoff", include_str!("../reference/aws_backoff.csv")),
    ("retry_sim_brooker", include_str!("../reference/retry_sim_brooker.csv")),
    ("collapse_sim_brooker", include_str!("../reference/collapse_sim_brooker.csv")),
    ("metastable_happysim", include_str!("../reference/metastable_happysim.csv")),
];

/// A table that was read: a map from column to cell for each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<BTreeMap<String, String>>,
}

impl Table {
    /// The built-in table of that name, or that of a CSV file in `folder`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub(crate) fn load(name: &str, folder: &Path) -> Result<Self, String> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(text);
        }
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let known: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            let (path, known) = (path.display(), known.join(", "));
            format!("no built-in table, and {path}: {error} (built in: {known})")
        })?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let cells = |line: &str| -> Vec<String> {
            line.split(',').map(|cell| cell.trim().to_owned()).collect()
        };
        let columns = cells(lines.next().ok_or("the table is empty")?);
        let mut rows = Vec::new();
        for (place, line) in lines.enumerate() {
            let row = cells(line);
            if row.len() != columns.len() {
                let (have, want) = (row.len(), columns.len());
                return Err(format!("row {} has {have} cells, not {want}", place + 1));
            }
            rows.push(columns.iter().cloned().zip(row).collect());
        }
        match rows.is_empty() {
            true => Err("the table has no rows".to_owned()),
            false => Ok(Self { columns, rows }),
        }
    }
}

/// The columns that a template names: those in braces.
pub(crate) fn placeholders(template: &str) -> Vec<&str> {
    let pieces = template.split('{').skip(1);
    pieces.filter_map(|piece| piece.split_once('}').map(|(name, _)| name)).collect()
}

/// A template with a row's cells in place of the braces.
pub(crate) fn filled(template: &str, row: &BTreeMap<String, String>) -> String {
    let fill = |text: String, name: &str| match row.get(name) {
        Some(cell) => text.replace(&format!("{{{name}}}"), cell),
        None => text,
    };
    placeholders(template).into_iter().fold(template.to_owned(), fill)
}

impl Reference {
    /// All columns that it wants to see in its table, each where it is named.
    pub(crate) fn wanted(&self) -> Vec<(&str, &Name)> {
        let templates = self.set.iter().chain(&self.policy);
        let mut wanted: Vec<_> = templates
            .flat_map(|name| placeholders(name.get_ref()).into_iter().map(move |one| (one, name)))
            .collect();
        for columns in self.figures.values() {
            let names = [Some(&columns.mean), columns.sd.as_ref()].into_iter().flatten();
            wanted.extend(names.map(|name| (name.get_ref().as_str(), name)));
        }
        wanted.extend(self.runs_in.iter().map(|name| (name.get_ref().as_str(), name)));
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_tables_are_whole() {
        let rows = |name: &str| Table::load(name, Path::new("")).unwrap().rows.len();
        assert_eq!(BUILT_IN.map(|(name, _)| rows(name)), [10, 56, 12, 21]);
    }

    #[test]
    fn a_broken_table_is_refused() {
        assert!(Table::parse("").is_err());
        assert!(Table::parse("a,b").is_err());
        assert_eq!(Table::parse("a,b\n1,2\n3").unwrap_err(), "row 2 has 1 cells, not 2");
    }

    #[test]
    fn a_template_takes_the_cells_of_its_row() {
        let table = Table::parse("n,kind\n5,full").unwrap();
        let row = table.rows.first().unwrap();
        assert_eq!(filled("a.b={n}s of {kind} {x}", row), "a.b=5s of full {x}");
        assert_eq!(placeholders("a.b={n}s of {kind}"), ["n", "kind"]);
    }
}
