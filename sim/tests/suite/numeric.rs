//! The numeric scenarios: held to what others measured, and able to fail.

use std::fmt::Write as _;

use steadfast_sim::{Simulation, Verdict};

fn numeric(scenario: &str, sets: &[&str]) -> Simulation {
    let simulation = Simulation::from_scenario(scenario).unwrap();
    let set = |simulation: Simulation, set: &&str| simulation.set(set).unwrap();
    sets.iter().fold(simulation, set)
}

#[test]
fn backoff_costs_what_the_aws_article_says() {
    for seed in 1..=3 {
        let study = numeric("aws-backoff", &[]).study(seed).unwrap();
        assert_eq!(study.verdict(), Verdict::Held, "{study}");
    }
}

/// Ten seeds where the gate runs two hundred.
const FEW: &str = "reference.seeds=10";

#[test]
fn retries_and_their_budgets_do_what_brooker_measured() {
    let study = numeric("brooker-retries", &[FEW]).study(1).unwrap();
    assert_eq!(study.verdict(), Verdict::Held, "{study}");
    let exact = |row: &steadfast_sim::StudyRow| row.figures.iter().any(|figure| figure.exact);
    assert_eq!(study.rows.iter().filter(|row| exact(row)).count(), 28);
}

#[test]
fn retries_collapse_when_brooker_says() {
    let study = numeric("brooker-collapse", &["reference.seeds=30"]).study(1).unwrap();
    // With jitter few runs collapse, and among so few seeds perhaps none: those rows are the gate's.
    let rows = || study.rows.iter().filter(|row| row.row.starts_with("3_tries_no_backoff"));
    let far = rows().flat_map(|row| &row.figures).filter_map(|figure| figure.distance);
    assert_eq!((rows().count(), far.filter(|distance| *distance > 4.5).count()), (6, 0), "{study}");
}

#[test]
fn another_server_collapses_otherwise() {
    let sets = ["reference.seeds=30", "servers.api.requests.per_in_flight=9ms"];
    let study = numeric("brooker-collapse", &sets).study(1).unwrap();
    assert_eq!(study.verdict(), Verdict::Violated, "{study}");
}

#[test]
fn another_base_shows() {
    let study = numeric("aws-backoff", &["contention.base=10ms", "reference.seeds=50"]).study(1);
    let study = study.unwrap();
    assert_eq!(study.verdict(), Verdict::Violated, "{study}");
}

#[test]
fn one_seed_makes_one_study() {
    let study = |seed| numeric("aws-backoff", &["reference.seeds=3"]).study(seed).unwrap();
    assert_eq!(study(1), study(1));
    assert_ne!(study(1).digest, study(2).digest);
}

#[test]
fn a_table_that_does_not_fit_is_refused_at_its_place() {
    let changes = [
        "reference.table=nowhere.csv",
        "reference.seeds=1",
        "reference.runs_in=sedes",
        "reference.set.0=contention.clients={client}",
        "reference.figures.elapsed.mean=mean_time",
        "reference.figures.elapsde={ mean = \"mean_time_ms\" }",
        "contention.clients=0",
        "contention.cap=1ms",
        "contention.jitter=FulJitter",
        "contention={}",
        "servers={ lb = {} }",
    ];
    let mut errors = String::new();
    for change in changes {
        let error = Simulation::from_scenario("aws-backoff").unwrap().set(change).unwrap_err();
        let _ = writeln!(errors, "{error}\n");
    }
    insta::assert_snapshot!(errors);
}
