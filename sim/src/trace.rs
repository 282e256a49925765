//! Recorded arrivals of heartbeats.

use std::path::Path;

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
    if let Some((_, text)) = built_in.iter().find(|(known, _)| *known == name) {
        return parse(text, column);
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
    parse(&text, column)
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
