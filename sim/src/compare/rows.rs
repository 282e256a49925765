//! Which rows there are: policies times the values of what is varied.

use std::ops::Range;

use super::CompareOptions;
use crate::policy;
use crate::scenario::{ScenarioError, path_end};
use crate::simulation::Simulation;

/// More than anybody reads.
const MAX_ROWS: usize = 64;

/// A policy under a variation, ready to run.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) policy: String,
    pub(super) varied: Vec<String>,
    pub(super) simulation: Simulation,
}

/// All rows, checked; the last of what is varied changes fastest.
pub(super) fn rows(
    simulation: &Simulation,
    options: &CompareOptions,
) -> Result<Vec<Row>, ScenarioError> {
    let varied = options.vary.iter().map(|vary| changes(vary));
    let varied = varied.collect::<Result<Vec<_>, _>>()?;
    let counts = varied.iter().map(Vec::len);
    let variations = counts.fold(1_usize, usize::saturating_mul);
    // Before they are made: a few options can ask for millions.
    bounded(variations)?;
    let mut combined = vec![Vec::new()];
    for changes in &varied {
        let longer = |combination: &Vec<String>| {
            let with =
                |change: &String| [combination.as_slice(), std::slice::from_ref(change)].concat();
            changes.iter().map(with).collect::<Vec<_>>()
        };
        combined = combined.iter().flat_map(longer).collect();
    }
    let varied_by = |changes: &[String]| {
        let varied = simulation.clone().unwatched().set_all(changes);
        varied.map_err(|error| in_option(error, changes))
    };
    let worlds = combined.iter().map(|changes| varied_by(changes).map(|world| (changes, world)));
    let worlds = worlds.collect::<Result<Vec<_>, _>>()?;
    let policies = policies(&worlds, options)?;
    bounded(variations.saturating_mul(policies.len()))?;
    let mut rows = Vec::new();
    for name in &policies {
        for (changes, world) in &worlds {
            let simulation = world.clone().policy(name)?;
            simulation.plan().map_err(|error| in_option(error, changes))?;
            rows.push(Row { policy: name.clone(), varied: (*changes).clone(), simulation });
        }
    }
    Ok(rows)
}

/// The policies that are asked for, or all that fit.
fn policies(
    worlds: &[(&Vec<String>, Simulation)],
    options: &CompareOptions,
) -> Result<Vec<String>, ScenarioError> {
    let asked = &options.policies;
    if asked.is_empty() {
        let fitting = worlds.first().map(|(_, world)| policy::names(world.scenario()));
        return Ok(fitting.unwrap_or_default().into_iter().map(str::to_owned).collect());
    }
    let twice = asked
        .iter()
        .enumerate()
        .find(|(place, name)| asked.get(..*place).is_some_and(|before| before.contains(name)));
    match twice {
        Some((_, name)) => Err(ScenarioError::plain(format!("policy `{name}` is asked for twice"))),
        None => Ok(asked.clone()),
    }
}

fn bounded(rows: usize) -> Result<(), ScenarioError> {
    if rows <= MAX_ROWS {
        return Ok(());
    }
    let rows = if rows == usize::MAX { "far too many".to_owned() } else { rows.to_string() };
    let help = "ask for fewer policies with --policy, or vary less";
    Err(ScenarioError::plain(format!("{rows} rows are more than {MAX_ROWS}; {help}")))
}

/// The error as one of `--vary`, if it quotes one of these changes.
fn in_option(error: ScenarioError, changes: &[String]) -> ScenarioError {
    changes.iter().fold(error, |error, change| error.called("--vary", change))
}

/// `PATH=V1,V2` as `PATH=V1` and `PATH=V2`.
fn changes(vary: &str) -> Result<Vec<String>, ScenarioError> {
    let wrong = |problem: &str, span| ScenarioError::at(problem, "--vary", vary, span);
    let Some(equals) = path_end(vary) else {
        return Err(wrong("what varies is written as PATH=VALUE,VALUE", 0..vary.len()));
    };
    let path = vary.get(..=equals).unwrap_or_default();
    let mut changes: Vec<String> = Vec::new();
    for span in values(vary, equals + 1)? {
        let value = vary.get(span.clone()).unwrap_or_default().trim();
        if value.is_empty() {
            return Err(wrong("there is no value here", span));
        }
        let change = format!("{path}{value}");
        if changes.contains(&change) {
            return Err(wrong("this value is there twice", span));
        }
        changes.push(change);
    }
    Ok(changes)
}

/// The places of the values from `start` on: what lies between commas, but not those within brackets
/// or quotes.
fn values(vary: &str, start: usize) -> Result<Vec<Range<usize>>, ScenarioError> {
    let wrong =
        |problem: &str, place| Err(ScenarioError::at(problem, "--vary", vary, place..place + 1));
    let mut brackets = Vec::new();
    let mut quote: Option<(usize, char)> = None;
    let mut escaped = false;
    let mut begin = start;
    let mut values = Vec::new();
    for (place, c) in vary.char_indices().filter(|(place, _)| *place >= start) {
        match (quote, c) {
            // Only these quotes know escapes, as in TOML.
            (Some((_, '"')), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some((_, open)), _) if open == c && !escaped => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some((place, c)),
            (None, '(' | '[' | '{') => brackets.push(place),
            (None, ')' | ']' | '}') => {
                if brackets.pop().is_none() {
                    return wrong("this bracket was never opened", place);
                }
            }
            (None, ',') if brackets.is_empty() => {
                values.push(begin..place);
                begin = place + 1;
            }
            (None, _) => {}
        }
        escaped = false;
    }
    if let Some((place, _)) = quote {
        return wrong("this quote is never closed", place);
    }
    if let Some(place) = brackets.last() {
        return wrong("this bracket is never closed", *place);
    }
    values.push(begin..vary.len());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_at_commas_outside_of_brackets_and_quotes() {
        let cut = |vary: &str| changes(vary).unwrap();
        assert_eq!(cut("a.b=1,2"), ["a.b=1", "a.b=2"]);
        assert_eq!(
            cut("a=5ms, lognormal(p50=5ms, p99=40ms)"),
            ["a=5ms", "a=lognormal(p50=5ms, p99=40ms)"]
        );
        assert_eq!(
            cut("a=[\"x\", \"y\"],{ b = 1, c = 2 }"),
            ["a=[\"x\", \"y\"]", "a={ b = 1, c = 2 }"]
        );
        assert_eq!(cut("a=\"x,\\\",y\",'z,\\'"), ["a=\"x,\\\",y\"", "a='z,\\'"]);
        assert_eq!(cut("a.\"b=,c\"=1"), ["a.\"b=,c\"=1"]);
    }

    #[test]
    fn what_cannot_be_cut_is_shown_at_its_place() {
        for (vary, mark) in [
            ("a", "^"),
            ("a=", "^"),
            ("a=1,,2", "     ^"),
            ("a=1,1", "    ^"),
            ("a=f(1,2", "   ^"),
            ("a=1),2", "   ^"),
            ("a=\"1,2", "  ^"),
        ] {
            let error = changes(vary).unwrap_err().to_string();
            assert!(error.contains("--vary"), "{error}");
            assert!(mark == "^" || error.contains(mark), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(vary in "[a-z.=,()\\[\\]\"'\\\\é ]{0,24}") {
            let _ = changes(&vary).map_err(|error| error.to_string());
        }
    }
}
