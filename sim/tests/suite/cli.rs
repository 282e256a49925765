//! The command, from outside.

use std::path::PathBuf;
use std::process::{Command, Output};

fn steadfast(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_steadfast")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file that only this test uses.
fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("steadfast-{}-{name}", std::process::id()))
}

const SMALL: [&str; 4] = ["run", "herd-queueing", "--set", "peers.device.count=200"];

#[test]
fn what_holds_exits_with_0_and_prints_a_timeline() {
    let output = steadfast(&SMALL);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("herd-queueing  seed 1  200 peers  policy ours  digest "), "{text}");
    let reproduce = "reproduce: steadfast run herd-queueing --seed 1 --policy ours --set peers.device.count=200";
    assert!(text.trim_end().ends_with(&format!("{reproduce}\nverdict  held")), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours into a pipe");
    assert!(!stderr(&output).contains('%'), "no progress bar into a pipe");
}

#[test]
fn what_is_violated_exits_with_1() {
    let output = steadfast(&[&SMALL[..], &["--set", "expect.ours.dials=== 5"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains("expect   FAIL  dials == 5   (200)"), "{}", stdout(&output));
    assert!(stdout(&output).ends_with("verdict  violated\n"), "{}", stdout(&output));
}

#[test]
fn what_cannot_be_told_exits_with_2() {
    let output = steadfast(&[&SMALL[..], &["--set", "faults=[]"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    let cut_off = ["--set", "duration=1s", "--set", "expect.ours.dials_per_peer=<= 2"];
    let output = steadfast(&[&SMALL[..], &cut_off].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
}

#[test]
fn a_run_of_which_nothing_is_expected_says_so() {
    let output = steadfast(&[&SMALL[..], &["--set", "expect={}", "--policy", "naive"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("\nexpect   none for policy naive\n"), "{text}");
    assert!(text.ends_with("\nverdict  held\n"), "{text}");
}

#[test]
fn bad_usage_exits_with_3() {
    let wrong: [&[&str]; 7] = [
        &["frobnicate"],
        &["run"],
        &["run", "herd-queuing"],
        &["run", "no-such-file.toml"],
        &["run", "herd-queueing", "--seed", "x"],
        &["run", "herd-queueing", "--policy", "our"],
        &["run", "herd-queueing", "--set", "peers.device.cuont=5"],
    ];
    for args in wrong {
        let output = steadfast(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [["--help"], ["--version"]] {
        let output = steadfast(&args);
        assert_eq!(output.status.code(), Some(0));
        assert!(!stdout(&output).is_empty());
    }
}

#[test]
fn json_goes_to_a_file_or_replaces_the_timeline() {
    let output = steadfast(&[&SMALL[..], &["--json", "-"]].concat());
    let summary: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&summary["peers"], &summary["recovered"]), (&200.into(), &200.into()));
    let path = file("summary.json");
    let output = steadfast(&[&SMALL[..], &["--json", path.to_str().unwrap()]].concat());
    assert!(stdout(&output).starts_with("herd-queueing"));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), summary);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_is_known_before_the_run() {
    let path = file("twice");
    let path = path.to_str().unwrap();
    let nowhere = "/nowhere/at-all";
    let wrong: [&[&str]; 4] = [
        &["--json", nowhere],
        &["--log", nowhere],
        &["--log", "-"],
        &["--json", path, "--log", path],
    ];
    for args in wrong {
        let output = steadfast(&[&SMALL[..], args].concat());
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{args:?}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_change_can_mend_a_broken_file() {
    let path = file("broken.toml");
    let text = stdout(&steadfast(&["explain", "herd-queueing"]));
    std::fs::write(&path, text.replace("count = 20000", "count = 0")).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(steadfast(&["explain", path]).status.code(), Some(3));
    let mended = steadfast(&["explain", path, "--set", "peers.device.count=5"]);
    assert_eq!(mended.status.code(), Some(0), "{}", stderr(&mended));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_of_ones_own_runs_like_a_built_in_one() {
    let path = file("own.toml");
    let text = stdout(&steadfast(&["explain", "herd-queueing"]));
    std::fs::write(&path, text).unwrap();
    let own = steadfast(&["run", path.to_str().unwrap(), "--set", "peers.device.count=200"]);
    let built_in = steadfast(&SMALL);
    let body = |output: &Output| {
        let text = stdout(output);
        text.lines().filter(|line| !line.starts_with("reproduce")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(body(&own), body(&built_in));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_list_names_scenarios_policies_and_measures() {
    let text = stdout(&steadfast(&["list"]));
    for name in steadfast_sim::built_in_names().chain(["ours-told", "aws-full", "server_wasted"]) {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn a_page_is_written_of_several_policies() {
    let (page, trace) = (file("page.html"), file("page.json"));
    let files = ["--html", page.to_str().unwrap(), "--trace", trace.to_str().unwrap()];
    let output = steadfast(&[&SMALL[..], &files, &["--beside", "naive,grpc"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("herd-queueing  seed 1  200 peers  policy ours"));
    let text = std::fs::read_to_string(&page).unwrap();
    for policy in ["ours", "naive", "grpc"] {
        assert!(text.contains(&format!("--policy {policy} ")), "{policy}");
    }
    let _: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&trace).unwrap()).unwrap();
    std::fs::remove_file(page).unwrap();
    std::fs::remove_file(trace).unwrap();
}

#[test]
fn a_page_that_makes_no_sense_is_bad_usage() {
    let path = file("unwritten.html");
    let page = ["--html", path.to_str().unwrap()];
    let wrong: [(&[&str], &str); 6] = [
        (&["--html", "-"], "--html needs a file, not -"),
        (&["--beside", "naive"], "--html"),
        (&["--trace", path.to_str().unwrap()], "--html and --trace name the same file"),
        (&["--beside", "nobody"], "nobody"),
        (&["--beside", "grpc,grpc,grpc,grpc,grpc,grpc,grpc,grpc"], "up to seven"),
        (&["--peer", "device.200"], "there is no peer `device.200`"),
    ];
    for (args, told) in wrong {
        let page = if told.starts_with("--html") && args[0] != "--trace" { &[][..] } else { &page };
        let output = steadfast(&[&SMALL[..], page, args].concat());
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", stdout(&output));
        assert!(stderr(&output).contains(told), "{args:?}: {}", stderr(&output));
    }
    let many = steadfast(&["run", "aws-backoff", page[0], page[1]]);
    assert_eq!(many.status.code(), Some(3));
    assert!(stderr(&many).contains("--html is for a single run"), "{}", stderr(&many));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn parts_of_a_sweep_add_up_and_only_those_of_the_same() {
    let folder = std::env::temp_dir().join(format!("steadfast-parts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let part = |part: &str, seeds: &str| {
        let sweep = ["sweep", "small-world", "--seeds", seeds, "--json", "--partition", part];
        let done = steadfast(&sweep);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        let path = folder.join(format!("{seeds}-{}", part.replace('/', "-")));
        std::fs::write(&path, &done.stdout).unwrap();
        path.display().to_string()
    };
    let parts = ["1/3", "2/3", "3/3"].map(|number| part(number, "60"));
    let whole = steadfast(&["sweep", "small-world", "--seeds", "60"]);
    let merged = steadfast(&["sweep", "--merge", &parts[2], &parts[0], &parts[1]]);
    assert_eq!(stdout(&merged), stdout(&whole));
    assert_eq!(merged.status.code(), whole.status.code());
    let wrong = |files: &[&str], problem: &str| {
        let done = steadfast(&[&["sweep", "--merge"], files].concat());
        assert_eq!(done.status.code(), Some(3));
        assert!(stderr(&done).contains(problem), "{}", stderr(&done));
    };
    wrong(&[&parts[0], &parts[2]], "of 3 parts these are missing: 2");
    wrong(&[&parts[0], &parts[0]], "this part was there before");
    wrong(&[&parts[0], &part("2/3", "61")], "a part of another sweep");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_sweep_says_what_is_wrong_with_it() {
    for (args, problem) in [
        (vec!["sweep", "small-world", "--seeds", "9..3"], "9..3"),
        (vec!["sweep", "small-world", "--partition", "1/3"], "--seeds"),
        (vec!["sweep", "small-world", "--seeds", "9", "--partition", "4/3"], "from 1/16 to 16/16"),
        (vec!["sweep", "small-world", "--chaos", "9"], "a level of 9, from 0 to 3"),
        (vec!["sweep", "brooker-retries"], "not held to in chaos"),
        (vec!["sweep", "small-world", "--seeds", "9", "--mutant", "ox"], "lost-wake-up"),
        (vec!["shrink", "small-word"], "did you mean `small-world`?"),
    ] {
        let done = steadfast(&args);
        assert_eq!(done.status.code(), Some(3), "{args:?}");
        assert!(stderr(&done).contains(problem), "{args:?}: {}", stderr(&done));
    }
    let healthy = steadfast(&["shrink", "small-world", "--set", "chaos.level=2"]);
    assert_eq!(healthy.status.code(), Some(2));
}
