//! Shrinking: the smallest scenario that still fails, and fails in the same way.
//!
//! What a seed drew is written out first, so that everything is there to be taken away: faults,
//! settings, groups of peers, whole workloads, links' latencies; then counts are halved and times
//! rounded. Each candidate is run with the same seed. As all draws go by name, what is left of the
//! world has the luck that it had, so most of what has nothing to do with the failure goes at once.
//!
//! Lists are taken apart by delta debugging: halves first, then smaller and smaller parts, each alone
//! or all but each, then pairs, which one by one could not go.
//!
//! Source: A. Zeller, R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input, TSE 2002.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use crate::scenario::ScenarioError;
use crate::simulation::Simulation;
use crate::units::Span;

/// What a shrink came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest scenario that was found, ready to run.
    pub simulation: Simulation,
    /// The seed, the same as before.
    pub seed: u64,
    /// What both fail by.
    pub kind: String,
    /// How it fails now.
    pub rule: String,
    /// How many faults there were, and how many are left.
    pub faults: (usize, usize),
    /// How many runs it took.
    pub runs: u32,
    /// Whether it ended because nothing more could go, and not by its budget.
    pub is_minimal: bool,
}

impl Simulation {
    /// Makes a failing run smaller for as long as it fails in the same way; `None` if it does not fail.
    ///
    /// `goes_on` is asked before each run, with the number of those that were made.
    ///
    /// # Errors
    ///
    /// A scenario that makes no sense.
    pub fn shrink(
        &self,
        seed: u64,
        goes_on: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Option<Shrunk>, ScenarioError> {
        let whole = self.materialised(seed)?.checked();
        let Some((kind, rule)) = whole.fails(seed)? else { return Ok(None) };
        let table = whole.scenario().to_string().parse::<Table>();
        let table = table.map_err(|error| ScenarioError::plain(error.to_string()))?;
        let mut shrinking = Shrinking {
            base: &whole,
            seed,
            kind: kind.clone(),
            seen: BTreeMap::new(),
            runs: 1,
            stopped: false,
            goes_on,
            best: (table, rule),
        };
        let before = list(&shrinking.best.0, "faults").len();
        shrinking.all();
        let Shrinking { runs, stopped, best: (mut table, rule), .. } = shrinking;
        let name = format!("{}-{seed}", whole.scenario().name);
        table.insert("name".to_owned(), Value::String(name));
        table.insert("about".to_owned(), Value::String(rule.clone()));
        table.remove("source");
        let after = list(&table, "faults").len();
        let simulation = whole.with_text(written(&table))?;
        let faults = (before, after);
        Ok(Some(Shrunk { simulation, seed, kind, rule, faults, runs, is_minimal: !stopped }))
    }
}

/// A shrink in progress.
struct Shrinking<'a> {
    base: &'a Simulation,
    seed: u64,
    kind: String,
    /// Texts that were tried.
    seen: BTreeMap<String, bool>,
    runs: u32,
    stopped: bool,
    goes_on: &'a mut dyn FnMut(u32) -> bool,
    best: (Table, String),
}

/// A key of a table, a key of that, and so on; a number is a place in a list.
type Path = Vec<String>;

impl Shrinking<'_> {
    fn all(&mut self) {
        self.cut_tail();
        let mut size = usize::MAX;
        // What one kind of step could not do alone, it may after another.
        while self.size() < size && !self.stopped {
            size = self.size();
            self.take_away(faults);
            self.take_away(|table| leaves(table, "policies"));
            self.take_away(|table| leaves(table, "drivers"));
            self.take_away(groups);
            self.take_away(|table| leaves(table, "links"));
            self.take_away(extras);
            self.halve_counts();
            self.round_times();
        }
    }

    fn size(&self) -> usize {
        self.best.0.to_string().len()
    }

    /// Nothing after the failure matters.
    fn cut_tail(&mut self) {
        let Ok(run) = self.base.run(self.seed) else { return };
        let Some(violation) = run.violation() else { return };
        let end = Span::from_nanos(violation.at.as_nanos().saturating_add(1));
        for unit in [Span::from_secs(1), Span::from_nanos(1_000_000)] {
            let mut table = self.best.0.clone();
            let end = end.rounded_up(unit).to_string();
            table.insert("duration".to_owned(), Value::String(end));
            retain_faults(&mut table, |fault| {
                span(fault.get("at")).is_none_or(|at| at <= violation.at)
            });
            if self.fails(table) {
                return;
            }
        }
    }

    /// Takes away as many of these as can go, and what refers to them.
    fn take_away(&mut self, items: impl Fn(&Table) -> Vec<Path>) {
        let mut left = items(&self.best.0);
        let mut parts = 2;
        while left.len() >= 2 && parts <= left.len() && !self.stopped {
            let size = left.len().div_ceil(parts);
            let gone = left.chunks(size).position(|part| self.fails_without(part));
            match gone {
                Some(_) => {
                    left = items(&self.best.0);
                    parts = 2.max(parts - 1);
                }
                None if parts == left.len() => break,
                None => parts = (parts * 2).min(left.len()),
            }
        }
        for place in (0..left.len()).rev() {
            if let Some(item) = left.get(place).cloned()
                && self.fails_without(&[item])
            {
                left = items(&self.best.0);
            }
        }
        self.take_pairs(items);
    }

    /// Two that hold each other up.
    fn take_pairs(&mut self, items: impl Fn(&Table) -> Vec<Path>) {
        const MOST: usize = 8;
        loop {
            let left = items(&self.best.0);
            if left.len() > MOST || self.stopped {
                return;
            }
            let places = 0..left.len();
            let pairs = places.flat_map(|one| (one + 1..left.len()).map(move |two| (one, two)));
            let pairs: Vec<[Path; 2]> = pairs
                .filter_map(|(one, two)| Some([left.get(one)?.clone(), left.get(two)?.clone()]))
                .collect();
            if !pairs.iter().any(|pair| self.fails_without(pair)) {
                return;
            }
        }
    }

    fn fails_without(&mut self, items: &[Path]) -> bool {
        let mut table = self.best.0.clone();
        // From the end, so that the places of the others stay.
        for path in items.iter().rev() {
            remove(&mut table, path);
        }
        tidy(&mut table);
        self.fails(table)
    }

    fn halve_counts(&mut self) {
        for path in counts(&self.best.0) {
            while let Some(count) = number(&self.best.0, &path).filter(|count| *count > 1) {
                let halved = [1, count / 2, count - 1].into_iter();
                let mut smaller = halved.filter(|less| *less < count && *less > 0);
                if !smaller.any(|less| self.fails_with(&path, Value::Integer(less))) {
                    break;
                }
            }
        }
    }

    fn round_times(&mut self) {
        for path in times(&self.best.0) {
            let Some(exact) = span(value(&self.best.0, &path)) else { continue };
            for unit in [Span::from_secs(1), Span::from_nanos(100_000_000)] {
                let up = exact.rounded_up(unit);
                let down = up.as_nanos().saturating_sub(unit.as_nanos());
                let rounded = [Span::from_nanos(down), up];
                let mut rounded = rounded.into_iter().filter(|span| *span != exact);
                if exact == up
                    || rounded.any(|span| self.fails_with(&path, Value::String(span.to_string())))
                {
                    break;
                }
            }
        }
    }

    fn fails_with(&mut self, path: &Path, to: Value) -> bool {
        let mut table = self.best.0.clone();
        if let Some(place) = value_mut(&mut table, path) {
            *place = to;
        }
        self.fails(table)
    }

    /// Whether this fails as the first did; then it is the best so far.
    fn fails(&mut self, table: Table) -> bool {
        let text = table.to_string();
        if self.stopped || self.seen.contains_key(&text) {
            return false;
        }
        let Ok(simulation) = self.base.with_text(text.clone()) else { return false };
        if !(self.goes_on)(self.runs) {
            self.stopped = true;
            return false;
        }
        self.runs += 1;
        let failure = simulation.fails(self.seed).ok().flatten();
        let rule = failure.filter(|(kind, _)| *kind == self.kind).map(|(_, rule)| rule);
        self.seen.insert(text, rule.is_some());
        match rule {
            Some(rule) => {
                self.best = (table, rule);
                true
            }
            None => false,
        }
    }
}

fn list<'t>(table: &'t Table, key: &str) -> &'t [Value] {
    table.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn retain_faults(table: &mut Table, keep: impl Fn(&Value) -> bool) {
    if let Some(Value::Array(faults)) = table.get_mut("faults") {
        faults.retain(|fault| keep(fault));
    }
}

fn faults(table: &Table) -> Vec<Path> {
    (0..list(table, "faults").len())
        .map(|place| vec!["faults".to_owned(), place.to_string()])
        .collect()
}

/// The settings below a key that hold no others.
fn leaves(table: &Table, key: &str) -> Vec<Path> {
    fn walk(value: &Value, path: &Path, leaves: &mut Vec<Path>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    let mut path = path.clone();
                    path.push(key.clone());
                    walk(value, &path, leaves);
                }
            }
            _ => leaves.push(path.clone()),
        }
    }
    let mut leaves = Vec::new();
    if let Some(value) = table.get(key) {
        walk(value, &vec![key.to_owned()], &mut leaves);
    }
    leaves
}

/// Whole groups of peers, workloads and servers.
fn groups(table: &Table) -> Vec<Path> {
    let of = |key: &'static str| {
        let names = table.get(key).and_then(Value::as_table).map(|table| table.keys());
        names.into_iter().flatten().map(move |name| vec![key.to_owned(), name.clone()])
    };
    of("calls").chain(of("peers")).chain(of("servers")).collect()
}

/// What servers, groups and faults have beyond what they need.
fn extras(table: &Table) -> Vec<Path> {
    let of_servers = leaves(table, "servers");
    let of_peers = leaves(table, "peers")
        .into_iter()
        .filter(|path| !matches!(path.last().map(String::as_str), Some("count" | "endpoints")));
    let of_faults = list(table, "faults").iter().enumerate().flat_map(|(place, fault)| {
        let keys = fault.as_table().map(|fault| fault.keys()).into_iter().flatten();
        let spare =
            keys.filter(|key| matches!(key.as_str(), "every" | "share" | "direction" | "wake"));
        spare.map(move |key| vec!["faults".to_owned(), place.to_string(), key.clone()])
    });
    let of_calls = leaves(table, "calls").into_iter().filter(|path| {
        !matches!(path.last().map(String::as_str), Some("servers" | "peers" | "rate" | "closed"))
    });
    of_servers.into_iter().chain(of_peers).chain(of_calls).chain(of_faults).collect()
}

fn counts(table: &Table) -> Vec<Path> {
    let key =
        |key: &str, name: &str, last: &str| vec![key.to_owned(), name.to_owned(), last.to_owned()];
    let named = |of: &str| -> Vec<String> {
        let table = table.get(of).and_then(Value::as_table);
        table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
    };
    let of_peers = named("peers").into_iter().map(|name| key("peers", &name, "count"));
    let of_calls = named("calls")
        .into_iter()
        .flat_map(|name| [key("calls", &name, "clients"), key("calls", &name, "closed")]);
    let of_faults =
        (0..list(table, "faults").len()).map(|place| key("faults", &place.to_string(), "times"));
    of_peers.chain(of_calls).chain(of_faults).chain([vec!["managers".to_owned()]]).collect()
}

fn times(table: &Table) -> Vec<Path> {
    let faults = 0..list(table, "faults").len();
    let of = |place: usize, key: &str| vec!["faults".to_owned(), place.to_string(), key.to_owned()];
    faults.flat_map(|place| ["at", "for", "every", "latency"].map(|key| of(place, key))).collect()
}

fn value<'t>(table: &'t Table, path: &Path) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(first)?, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        other => other.get(key.as_str()),
    })
}

fn value_mut<'t>(table: &'t mut Table, path: &Path) -> Option<&'t mut Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get_mut(first)?, |value, key| match value {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        other => other.get_mut(key.as_str()),
    })
}

fn number(table: &Table, path: &Path) -> Option<i64> {
    value(table, path).and_then(Value::as_integer)
}

fn span(value: Option<&Value>) -> Option<Span> {
    value.and_then(Value::as_str).and_then(|text| text.parse().ok())
}

fn remove(table: &mut Table, path: &Path) {
    let Some((last, parent)) = path.split_last() else { return };
    if parent.is_empty() {
        table.remove(last);
        return;
    }
    match value_mut(table, &parent.to_vec()) {
        Some(Value::Table(parent)) => {
            parent.remove(last);
        }
        Some(Value::Array(items)) => {
            if let Some(place) = last.parse().ok().filter(|place| *place < items.len()) {
                let _: Value = items.remove(place);
            }
        }
        _ => {}
    }
}

/// Takes away what refers to what is gone, and what is empty.
fn tidy(table: &mut Table) {
    let names = |table: &Table, key: &str| -> Vec<String> {
        let inner = table.get(key).and_then(Value::as_table);
        inner.map(|inner| inner.keys().cloned().collect()).unwrap_or_default()
    };
    let servers = names(table, "servers");
    for (key, list) in [("peers", "endpoints"), ("calls", "servers")] {
        let Some(Value::Table(groups)) = table.get_mut(key) else { continue };
        for group in groups.iter_mut().filter_map(|(_, group)| group.as_table_mut()) {
            if let Some(Value::Array(used)) = group.get_mut(list) {
                used.retain(|name| {
                    name.as_str().is_some_and(|name| servers.iter().any(|known| known == name))
                });
            }
        }
        let is_left = |group: &Value| {
            let used = group.get(list).and_then(Value::as_array);
            used.is_none_or(|used| !used.is_empty())
        };
        groups.retain(|_, group| is_left(group));
    }
    let peers = names(table, "peers");
    if let Some(Value::Table(calls)) = table.get_mut("calls") {
        calls.retain(|_, calls| {
            let over = calls.get("peers").and_then(Value::as_str);
            over.is_none_or(|over| peers.iter().any(|known| known == over))
        });
    }
    let links: Vec<String> = ["peers", "calls"]
        .into_iter()
        .flat_map(|key| {
            let groups = table.get(key).and_then(Value::as_table).into_iter().flatten();
            groups.flat_map(|(name, group)| {
                let used =
                    group.get("endpoints").or(group.get("servers")).and_then(Value::as_array);
                let used = used.into_iter().flatten().filter_map(Value::as_str);
                used.map(|server| format!("{name}-{server}")).collect::<Vec<_>>()
            })
        })
        .collect();
    if let Some(Value::Table(known)) = table.get_mut("links") {
        known.retain(|name, link| {
            links.iter().any(|known| known == name)
                && link.as_table().is_some_and(|link| !link.is_empty())
        });
    }
    let calls = names(table, "calls");
    retain_faults(table, |fault| {
        let on = fault.get("on").and_then(Value::as_str).unwrap_or_default();
        let known = match on.split_once('.') {
            Some(("servers", _)) => &servers,
            Some(("links", _)) => &links,
            Some(("peers", _)) => &peers,
            Some(("calls", _)) => &calls,
            _ => return true,
        };
        known.iter().any(|name| on.split_once('.').is_some_and(|(_, own)| own == name))
    });
    if let Some(Value::Array(faults)) = table.get_mut("faults") {
        for fault in faults.iter_mut().filter_map(Value::as_table_mut) {
            if fault.get("every").is_none() {
                fault.remove("times");
            }
        }
    }
    drop_empty(table);
}

/// Tables without anything in them, but for those of servers, which stand for themselves.
fn drop_empty(table: &mut Table) {
    for (key, inner) in
        table.iter_mut().filter_map(|(key, value)| Some((key, value.as_table_mut()?)))
    {
        if key == "servers" {
            inner.iter_mut().filter_map(|(_, server)| server.as_table_mut()).for_each(prune);
        } else {
            prune(inner);
        }
    }
    table.retain(|_, value| match value {
        Value::Table(inner) => !inner.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    });
    if number(table, &vec!["managers".to_owned()]) == Some(1) {
        table.remove("managers");
    }
}

/// The scenario as somebody would write it: from what there is to what goes wrong.
fn written(table: &Table) -> String {
    const ORDER: [&str; 5] = ["servers", "peers", "calls", "links", "policies"];
    let (tables, plain): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        value.is_table() || items.first().is_some_and(Value::is_table)
    });
    let place = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
    let mut tables = tables;
    tables.sort_by_key(|(key, _)| place(key));
    let part = |items: Vec<(&String, &Value)>| {
        let table: Table =
            items.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        table.to_string()
    };
    let parts = std::iter::once(part(plain)).chain(tables.into_iter().map(|item| part(vec![item])));
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn prune(table: &mut Table) {
    table.retain(|_, value| match value {
        Value::Table(inner) => {
            prune(inner);
            !inner.is_empty()
        }
        _ => true,
    });
}

impl Shrunk {
    /// The scenario as a file, with what it shows above it.
    #[must_use]
    pub fn file(&self) -> String {
        let rule = self.rule.replace('\n', " ");
        format!(
            "# {rule}\n# Run it with --seed {}.\n\n{}",
            self.seed,
            self.simulation.source_text()
        )
    }

    /// A test that fails as long as the bug is there.
    #[must_use]
    pub fn test(&self) -> String {
        let name: String = self
            .simulation
            .scenario()
            .name
            .chars()
            .chain(['_'])
            .chain(self.kind.chars())
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .collect();
        let marks = "#".repeat(1 + longest_run(self.simulation.source_text()));
        let text = self.simulation.source_text();
        format!(
            "/// {}\n#[test]\nfn {name}() {{\n    let outage = r{marks}\"\n{text}\"{marks};\n    \
             let options = steadfast_sim::Options {{ invariants: Some(true), ..Default::default() }};\n    \
             let outage = steadfast_sim::Simulation::from_toml(outage).unwrap().options(options);\n    \
             let run = outage.run({}).unwrap();\n    \
             assert_eq!(run.violation(), None);\n    \
             assert!(run.expects().iter().all(|expect| expect.held != Some(false)), \"{{}}\", run.timeline());\n}}\n",
            self.rule.replace('\n', " "),
            self.seed,
        )
    }
}

/// How many number signs come in a row after a quote, at most.
fn longest_run(text: &str) -> usize {
    text.split('"')
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| *c == '#').count())
        .max()
        .unwrap_or(0)
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.faults;
        writeln!(f, "shrunk   {before} faults to {after}, in {} runs", self.runs)?;
        if !self.is_minimal {
            writeln!(f, "         the budget ended first: a larger one may find less")?;
        }
        write!(f, "fails by {}", self.rule)
    }
}
