//! Which seeds a scenario is run under.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::units::ParseError;

/// Seeds, one after the other; at least one.
///
/// Written as a number, `30` for the seeds 1 to 30, or as a range that leaves out its end, as Rust's
/// do: `5..10` for 5 to 9.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(Range<u64>);

impl Seeds {
    /// The lowest of them.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.0.start
    }

    /// How many.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.0.end - self.0.start
    }

    /// So many of them from that one on, at least one, and none beyond the last that there is.
    #[must_use]
    pub fn starting(first: u64, count: u64) -> Self {
        Self(first.min(u64::MAX - 1)..first.saturating_add(count.max(1)))
    }

    /// All of them, from the lowest on.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.clone()
    }
}

/// The seeds 1 to 30.
impl Default for Seeds {
    fn default() -> Self {
        Self(1..31)
    }
}

/// In the shorter of the two ways.
impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Range { start: 1, end } => write!(f, "{}", end - 1),
            Range { start, end } => write!(f, "{start}..{end}"),
        }
    }
}

impl FromStr for Seeds {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            ParseError::new(format!(
                "`{text}` names no seeds; write 30 for the seeds 1 to 30, or 5..10 for 5 to 9"
            ))
        };
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let seeds = match text.split_once("..") {
            Some((start, end)) => number(start)?..number(end)?,
            None => 1..number(text)?.checked_add(1).ok_or_else(wrong)?,
        };
        if seeds.is_empty() { Err(wrong()) } else { Ok(Self(seeds)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_range_without_its_end() {
        let read = |text: &str| text.parse::<Seeds>().map(|seeds| seeds.0);
        assert_eq!(read("30"), Ok(1..31));
        assert_eq!(read("5..10"), Ok(5..10));
        assert_eq!(read("0 .. 1"), Ok(0..1));
        assert_eq!(
            read("18446744073709551614..18446744073709551615").map(|seeds| seeds.start),
            Ok(u64::MAX - 1)
        );
        for bad in [
            "",
            "0",
            "x",
            "-1",
            "1..",
            "..5",
            "5..5",
            "6..5",
            "1..=5",
            "1-5",
            "18446744073709551615",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for text in ["1", "30", "5..10", "0..3"] {
            assert_eq!(text.parse::<Seeds>().unwrap().to_string(), text);
        }
    }
}
