//! Recordings: of heartbeats that arrived, of calls, of hosts that came and went.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use crate::units::Span;

/// The recordings that come with the simulator; `sim/traces/README.md` tells whose they are.
const BUILT_IN: [(&str, &str); 8] = [
    ("cicv_100ms_n8_01", include_str!("../traces/cicv_100ms_n8_01.csv")),
    ("cicv_30ms_n78_01", include_str!("../traces/cicv_30ms_n78_01.csv")),
    ("cicv_rural_v0_01", include_str!("../traces/cicv_rural_v0_01.csv")),
    ("cicv_rural_v0_03", include_str!("../traces/cicv_rural_v0_03.csv")),
    ("cicv_rural_v10_01", include_str!("../traces/cicv_rural_v10_01.csv")),
    ("cicv_rural_v10_03", include_str!("../traces/cicv_rural_v10_03.csv")),
    ("cicv_urban_n78_v20_02", include_str!("../traces/cicv_urban_n78_v20_02.csv")),
    ("cicv_urban_n8_v30_01", include_str!("../traces/cicv_urban_n8_v30_01.csv")),
];

/// The recorded arrivals of calls that come with it.
const CALLS: [(&str, &str); 1] = [("azure_llm_code", include_str!("../traces/azure_llm_code.csv"))];

/// When each call of a recording arrives, in milliseconds, in order.
///
/// `name` is a built-in recording, or a CSV file in `folder` with a column `t_ms`.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn arrivals_of_calls(name: &str, folder: &Path) -> Result<Vec<u64>, String> {
    read(name, folder, "t_ms", &CALLS)
}

/// The names of the built-in recordings.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// When each heartbeat of a recording arrived, in milliseconds, in order.
///
/// `name` is a built-in recording, or a CSV file in `folder` with a column `recv_ms`.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn arrivals(name: &str, folder: &Path) -> Result<Vec<u64>, String> {
    read(name, folder, "recv_ms", &BUILT_IN)
}

fn read(
    name: &str,
    folder: &Path,
    column: &str,
    built_in: &[(&str, &str)],
) -> Result<Vec<u64>, String> {
    parse(&load(name, folder, built_in)?, column)
}

/// The text of a recording.
fn load<'a>(
    name: &str,
    folder: &Path,
    built_in: &[(&str, &'a str)],
) -> Result<Cow<'a, str>, String> {
    if let Some((_, text)) = built_in.iter().find(|(known, _)| *known == name) {
        return Ok(Cow::Borrowed(text));
    }
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let known: Vec<_> = built_in.iter().map(|(name, _)| *name).collect();
        format!(
            "no built-in trace, and {}: {error} (built in: {})",
            path.display(),
            known.join(", ")
        )
    })?;
    Ok(Cow::Owned(text))
}

/// The recorded hosts that come with it.
const HOSTS: [(&str, &str); 1] = [("spot_p3", include_str!("../traces/spot_p3.csv"))];

/// When the hosts of a recording went and came, place by place: going, coming, going again.
///
/// `name` is a built-in recording, or a CSV file in `folder` with the columns `t_ms`, `event` and
/// `node`. A node that comes takes the first free place, as a new machine takes over the work of one
/// that is gone; all places count as taken before the recording begins.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn hosts(name: &str, folder: &Path) -> Result<Vec<Vec<Span>>, String> {
    parse_hosts(&load(name, folder, &HOSTS)?)
}

fn parse_hosts(text: &str) -> Result<Vec<Vec<Span>>, String> {
    let header = text.lines().next().unwrap_or_default();
    let columns: Vec<_> = header.split(',').map(str::trim).collect();
    if columns != ["t_ms", "event", "node"] {
        return Err("the trace needs the columns `t_ms,event,node`".to_owned());
    }
    let times = parse(text, "t_ms")?;
    // By place: whether it is taken, and when that changed.
    let mut places: Vec<(bool, Vec<Span>)> = Vec::new();
    let mut of_node = BTreeMap::new();
    for (place, (line, at)) in text.lines().skip(1).zip(times).enumerate() {
        let wrong = |what: &str| format!("line {} of the trace: {what}", place + 2);
        let at = Span::from_nanos(at.saturating_mul(1_000_000));
        let mut cells = line.split(',').skip(1).map(str::trim);
        let (event, node) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        match event {
            "up" if of_node.contains_key(node) => return Err(wrong("that node is up already")),
            "up" => {
                let free = places.iter().position(|(taken, _)| !taken);
                let free = free.unwrap_or_else(|| {
                    places.push((true, Vec::new()));
                    places.len() - 1
                });
                of_node.insert(node, free);
                let Some((taken, turns)) = places.get_mut(free) else { continue };
                // A place that was not there at the beginning was away until now.
                if at > Span::ZERO && turns.is_empty() {
                    turns.push(Span::ZERO);
                }
                if at > Span::ZERO {
                    turns.push(at);
                }
                *taken = true;
            }
            "down" => {
                let place = of_node.remove(node).ok_or_else(|| wrong("that node is not up"))?;
                let Some((taken, turns)) = places.get_mut(place) else { continue };
                turns.push(at);
                *taken = false;
            }
            _ => return Err(wrong("`event` is neither `up` nor `down`")),
        }
    }
    Ok(places.into_iter().map(|(_, turns)| turns).collect())
}

fn parse(text: &str, name: &str) -> Result<Vec<u64>, String> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split(',').position(|known| known.trim() == name);
    let column = column.ok_or_else(|| format!("the trace has no column `{name}`"))?;
    let mut arrivals: Vec<u64> = Vec::new();
    for (place, line) in lines.enumerate() {
        let wrong = |what: &str| format!("line {} of the trace: {what}", place + 2);
        let cell = line.split(',').nth(column).and_then(|cell| cell.trim().parse().ok());
        let at = cell.ok_or_else(|| wrong(&format!("`{name}` is no whole number")))?;
        if arrivals.last().is_some_and(|last| at < *last) {
            return Err(wrong("it arrived before the one above"));
        }
        arrivals.push(at);
    }
    if arrivals.is_empty() {
        return Err("the trace is empty".to_owned());
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_traces_are_whole() {
        let counts: Vec<_> =
            names().map(|name| arrivals(name, Path::new("")).unwrap().len()).collect();
        assert_eq!(counts, [2310, 6710, 1026, 1060, 2042, 2178, 6277, 4432]);
        assert_eq!(arrivals_of_calls("azure_llm_code", Path::new("")).unwrap().len(), 8819);
    }

    #[test]
    fn a_node_takes_the_place_of_one_that_is_gone() {
        let text = "t_ms,event,node\n0,up,a\n0,up,b\n5,down,a\n7,up,c\n7,up,d\n9,down,d\n";
        let ms = |ms: u64| Span::from_nanos(ms * 1_000_000);
        let places = parse_hosts(text).unwrap();
        assert_eq!(places, [vec![ms(5), ms(7)], vec![], vec![ms(0), ms(7), ms(9)]]);
        for (bad, what) in [
            ("t_ms,node\n", "columns"),
            ("t_ms,event,node\n0,down,a", "line 2"),
            ("t_ms,event,node\n0,up,a\n1,up,a", "line 3"),
            ("t_ms,event,node\n0,up,a\n1,gone,a", "line 3"),
        ] {
            assert!(parse_hosts(bad).unwrap_err().contains(what), "{bad}");
        }
    }

    #[test]
    fn the_built_in_hosts_are_those_of_the_recording() {
        let places = hosts("spot_p3", Path::new("")).unwrap();
        assert_eq!(places.len(), 32);
        // 177 joins, 18 of them at the beginning, 167 losses, and 14 places that were not there yet.
        assert_eq!(places.iter().map(Vec::len).sum::<usize>(), 177 - 18 + 167 + 14);
    }

    #[test]
    fn a_broken_trace_is_refused_with_its_line() {
        assert_eq!(
            parse("a,b\n1,2", "recv_ms"),
            Err("the trace has no column `recv_ms`".to_owned())
        );
        assert!(parse("recv_ms\n5\nx", "recv_ms").unwrap_err().starts_with("line 3"));
        assert!(parse("recv_ms\n5\n4", "recv_ms").unwrap_err().starts_with("line 3"));
        assert!(parse("recv_ms\n", "recv_ms").is_err());
    }
}
