//! The deadline detector on measured arrivals, through a manager, against outside arithmetic.

use steadfast_sim::Simulation;

/// One row of `data/deadline_detector.csv`: a timeout, and what it makes of a trace.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    trace: String,
    timeout_ms: u64,
    false_suspicions: u64,
    suspected_ns: u64,
}

fn table() -> Vec<Row> {
    let table = include_str!("../data/deadline_detector.csv");
    let row = |line: &str| {
        let cells: Vec<_> = line.split(',').collect();
        Row {
            trace: cells[0].trim_end_matches(".csv").to_owned(),
            timeout_ms: cells[2].parse().unwrap(),
            false_suspicions: cells[3].parse().unwrap(),
            suspected_ns: cells[4].parse::<u64>().unwrap() * 1_000_000,
        }
    };
    table.lines().skip(1).map(row).collect()
}

#[test]
fn every_count_and_every_millisecond_of_the_table_comes_out() {
    let simulation = Simulation::from_scenario("trace-5g").unwrap();
    let run = simulation.run(1).unwrap();
    assert_eq!(run.violation(), None);
    assert!(run.expects().iter().all(|expect| expect.held == Some(true)), "{}", run.timeline());
    let scenario = simulation.scenario();
    let deadline = |detector: &str| {
        let ms = detector.strip_prefix("deadline(")?.strip_suffix(")")?;
        let span: steadfast_sim::units::Span = ms.parse().ok()?;
        Some(span.as_nanos() / 1_000_000)
    };
    let found = run.summary().watched.into_iter().filter_map(|peer| {
        let group = scenario.peers.get(peer.group.as_str())?;
        Some(Row {
            trace: group.heartbeat_trace.as_ref()?.get_ref().clone(),
            timeout_ms: deadline(&peer.detector)?,
            false_suspicions: peer.false_suspicions,
            suspected_ns: peer.suspected_ns,
        })
    });
    assert_eq!(found.collect::<Vec<_>>(), table());
}
