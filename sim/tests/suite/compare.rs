//! Policies side by side, as a library and as the command.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::process::{Command, Output};

use steadfast_sim::{CompareOptions, Comparison, Simulation};

/// A server that goes on with dials whose clients have given up.
const HERD: [&str; 4] = [
    "peers.device.count=60",
    "servers.broker.accept=5/s",
    "links.device-broker.latency=lognormal(p50=20ms, p99=90ms)",
    "duration=2m",
];

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn herd() -> Simulation {
    // The last two seconds of five minutes are too early for what is expected of nats.
    let sets = [&HERD[..], &["expect.nats={}"]].concat();
    Simulation::from_scenario("herd-queueing").unwrap().set_all(&strings(&sets)).unwrap()
}

fn options(policies: &[&str], vary: &[&str], seeds: &str) -> CompareOptions {
    CompareOptions {
        policies: strings(policies),
        vary: strings(vary),
        seeds: seeds.parse().unwrap(),
        ..CompareOptions::default()
    }
}

fn compare(policies: &[&str], vary: &[&str], seeds: &str) -> Comparison {
    herd().compare(&options(policies, vary, seeds)).unwrap_or_else(|error| panic!("{error}"))
}

fn steadfast(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    let sets = HERD.iter().chain(&["expect.nats={}"]).flat_map(|set| ["--set", set]);
    command.args(["compare", "herd-queueing"]).args(sets).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn policies_stand_side_by_side() {
    let comparison = compare(&["ours", "ours-told", "naive", "nats"], &[], "4");
    insta::assert_snapshot!(comparison);
}

#[test]
fn each_combination_of_values_is_a_row() {
    let vary = [
        "servers.broker.accept=5/s,10/s",
        "links.device-broker.latency=10ms,lognormal(p50=20ms, p99=90ms)",
    ];
    insta::assert_snapshot!(compare(&["ours"], &vary, "7..9"));
}

#[test]
fn calls_have_columns_of_their_own_and_what_never_ended_is_counted() {
    let sets = ["calls.web.rate=28/s", "servers.db.requests.rate=30/s", "duration=90s"];
    let storm = Simulation::from_scenario("retry-storm").unwrap().set_all(&strings(&sets)).unwrap();
    let comparison = storm.compare(&options(&["ours", "naive"], &[], "4")).unwrap();
    let cell = |row: usize, measure: &str| comparison.rows[row].cells[measure];
    assert!(cell(0, "success").best && !cell(1, "success").best);
    let back = cell(1, "back_to_twin");
    assert!(back.never > 0 && back.known > 0 && back.never + back.known == 4, "{comparison}");
    assert_eq!(back.difference.unwrap().pairs, back.known);
    insta::assert_snapshot!(comparison);
}

#[test]
fn a_row_is_what_its_runs_say_one_by_one() {
    let comparison = compare(&["ours", "nats"], &[], "3..6");
    let summaries = |policy: &str| {
        let own = herd().policy(policy).unwrap();
        [3, 4, 5].map(|seed| own.run(seed).unwrap().summary())
    };
    let (ours, nats) = (summaries("ours"), summaries("nats"));
    let mean = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
    let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
    for (row, summaries) in comparison.rows.iter().zip([&ours, &nats]) {
        let known: Vec<f64> = summaries.iter().filter_map(|summary| summary.all_up_s).collect();
        let all_up = row.cells["all_up"];
        assert_eq!((all_up.known, all_up.never), (known.len() as u64, 3 - known.len() as u64));
        let dials = [0, 1, 2].map(|place| summaries[place].dials_per_peer);
        assert!(near(row.cells["dials_per_peer"].mean.unwrap(), mean(dials)));
    }
    let dials = [0, 1, 2].map(|place| nats[place].dials_per_peer - ours[place].dials_per_peer);
    let difference = comparison.rows[1].cells["dials_per_peer"].difference.unwrap();
    let mean = mean(dials);
    assert!(near(difference.mean, mean));
    // Two degrees of freedom: the quantile is 4.303.
    let variance = dials.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / 2.0;
    assert!(near(difference.plus_minus.unwrap(), 4.303 * (variance / 3.0).sqrt()));
}

#[test]
fn the_first_row_is_compared_with_nothing_and_a_row_that_never_ends_is_best_in_nothing() {
    let comparison = compare(&["ours", "nats"], &["duration=20s,2m"], "2");
    let cells = |row: usize| comparison.rows[row].cells.values();
    assert!(cells(0).all(|cell| cell.difference.is_none()));
    // Sixty at five a second take twelve seconds, and a client that hammers never gets done.
    for row in [2, 3] {
        assert_eq!(comparison.rows[row].cells["all_up"].never, 2, "{comparison}");
        assert!(cells(row).all(|cell| !cell.best), "{comparison}");
    }
}

#[test]
fn it_is_the_same_on_any_number_of_threads() {
    let on = |jobs: usize| {
        let options = CompareOptions {
            jobs: NonZeroUsize::new(jobs),
            ..options(&["ours", "nats"], &["peers.device.count=20,40"], "3")
        };
        let mut told = Vec::new();
        let comparison = herd().compare_watched(&options, &mut |share| told.push(share)).unwrap();
        assert_eq!((told.len(), told.last()), (12, Some(&1.0)));
        (comparison.to_string(), serde_json::to_string(&comparison).unwrap())
    };
    let one = on(1);
    assert!([2, 5, 64].into_iter().all(|jobs| on(jobs) == one));
}

#[test]
fn a_row_can_be_run_again_alone() {
    let comparison = compare(&["ours", "naive"], &["peers.device.count=20,40"], "1");
    let row = &comparison.rows[3];
    assert_eq!(
        (row.policy.as_str(), &row.varied[..]),
        ("naive", &strings(&["peers.device.count=40"])[..])
    );
    let run = herd().set_all(&row.varied).unwrap().policy(&row.policy).unwrap();
    let run = run.run(row.first_seed).unwrap();
    assert_eq!(row.cells["all_up"].mean, run.summary().all_up_s);
    assert!(run.timeline().to_string().contains(&format!("reproduce: {}\n", row.reproduce)));
}

#[test]
fn one_seed_tells_differences_and_nothing_about_chance() {
    let text = compare(&["ours", "naive"], &[], "5..6").to_string();
    assert!(text.starts_with("herd-queueing  each row under seed 5  digest "), "{text}");
    assert!(text.contains("~ +") && !text.contains('±'), "{text}");
    assert!(text.contains("seed by seed; one seed tells nothing about chance\n"), "{text}");
}

#[test]
fn what_is_violated_is_named_with_its_seeds() {
    let changes = strings(&["expect.every.dials=== 5", "expect.ours={}"]);
    let strict = herd().set_all(&changes).unwrap();
    let comparison = strict.compare(&options(&["ours"], &[], "4..6")).unwrap();
    let row = &comparison.rows[0];
    assert_eq!((row.verdicts.held, row.verdicts.violated), (0, 2));
    assert_eq!(row.violated["dials == 5"], [4, 5]);
    let line = "violated under ours: dials == 5   in 2 of 2, first under seed 4";
    assert!(comparison.to_string().contains(line), "{comparison}");
}

#[test]
fn columns_can_be_chosen() {
    let options = CompareOptions {
        measures: strings(&["in_flight", "p50.device"]),
        ..options(&["ours", "naive"], &[], "1")
    };
    let comparison = herd().compare(&options).unwrap();
    assert_eq!(comparison.measures, options.measures);
    assert!(comparison.reproduce.contains(" --measure in_flight,p50.device "));
}

#[test]
fn what_makes_no_sense_is_refused_at_its_place() {
    let measure =
        |name: &str| CompareOptions { measures: strings(&[name]), ..options(&["ours"], &[], "1") };
    let many = ["peers.device.count=1,2,3,4,5,6,7,8,9", "duration=1m,2m,3m,4m,5m,6m,7m,8m"];
    let wrong = [
        options(&["ours", "our"], &[], "1"),
        options(&["polly"], &[], "1"),
        options(&["ours", "naive", "ours"], &[], "1"),
        options(&[], &["peers.device.cuont=5,6"], "1"),
        options(&[], &["peers.devce.count=5,6"], "1"),
        options(&[], &["peers.device.count=5,x"], "1"),
        options(&[], &["peers.device.count=5,,6"], "1"),
        options(&[], &["peers.device.count=5,5"], "1"),
        options(&[], &["peers.device.count"], "1"),
        options(&[], &["links.device-broker.latency=exp(5ms,6ms"], "1"),
        options(&[], &["peers.device.profile.max_attempts=1,0"], "1"),
        options(&["ours"], &many, "1"),
        options(&["ours"], &[], "10001"),
        measure("dails"),
        measure("up_share"),
        measure("p50.broker"),
    ];
    let mut errors = String::new();
    for options in wrong {
        let _ = writeln!(errors, "{}\n", herd().compare(&options).unwrap_err());
    }
    let table = Simulation::from_scenario("brooker-retries").unwrap();
    let _ = writeln!(errors, "{}", table.compare(&CompareOptions::default()).unwrap_err());
    insta::assert_snapshot!(errors);
}

#[test]
fn the_command_prints_the_table_and_how_to_make_it_again() {
    let output = steadfast(&["--policy", "ours,naive", "--seeds", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert_eq!(text, format!("{}\n", compare(&["ours", "naive"], &[], "2")));
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(
        "reproduce: steadfast compare herd-queueing --policy ours,naive --seeds 2 --set "
    ));
    assert!(!text.contains('\u{1b}') && !text.contains('\u{2064}'), "no colours into a pipe");
    assert!(
        !String::from_utf8(output.stderr).unwrap().contains('%'),
        "no progress bar into a pipe"
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let comparison = compare(&["ours", "naive"], &[], "2");
    let (plain, mut coloured) = (comparison.to_string(), comparison.colour(true).to_string());
    assert!(coloured.contains("\u{1b}[1m"));
    while let Some(start) = coloured.find('\u{1b}') {
        let length = coloured[start..].find('m').unwrap();
        coloured.replace_range(start..=start + length, "");
    }
    assert_eq!(coloured, plain);
}

#[test]
fn json_replaces_the_table() {
    let output = steadfast(&["--policy", "ours,naive", "--seeds", "2", "--json", "-"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&json["seeds"], &json["first_seed"]), (&2.into(), &1.into()));
    assert_eq!(json["rows"][1]["policy"], "naive");
    assert_eq!(json["rows"][1]["cells"]["peak_dials"]["difference"]["pairs"], 2);
}

#[test]
fn what_a_file_holds_stays_until_there_is_something_else_to_write() {
    let path = std::env::temp_dir().join(format!("steadfast-{}-rows.json", std::process::id()));
    let long = "of last night".repeat(1_000);
    std::fs::write(&path, &long).unwrap();
    let json = ["--seeds", "1", "--json", path.to_str().unwrap()];
    let wrong = steadfast(&[&json[..], &["--policy", "our"]].concat());
    assert_eq!(wrong.status.code(), Some(3));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), long);
    let right = steadfast(&[&json[..], &["--policy", "ours"]].concat());
    assert!(stdout(&right).starts_with("herd-queueing"));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["seeds"], 1);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn bad_usage_exits_with_3() {
    let wrong: [&[&str]; 9] = [
        &["--policy", "our"],
        &["--policy", ""],
        &["--vary", "peers.device.cuont=1,2"],
        &["--seeds", "x"],
        &["--seeds", "5..5"],
        &["--seeds", "0"],
        &["--jobs", "0"],
        &["--measure", "dails"],
        &["--json", "/nowhere/at-all"],
    ];
    for args in wrong {
        let output = steadfast(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}
