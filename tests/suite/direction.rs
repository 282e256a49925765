//! Which module may know which: read from the sources, so that nothing grows crosswise.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What each file of the core imports from the crate, by the first step of the path, outside tests.
fn imports() -> BTreeMap<String, Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    visit(&root, "", &mut found);
    assert!(found.len() > 30, "the sources are elsewhere: {found:?}");
    found
}

fn visit(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<String>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            visit(&path, &format!("{name}/"), found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            found.insert(name, of_crate(code));
        }
    }
}

/// The modules of the crate that the code names: `crate::time::Time` names `time`.
fn of_crate(code: &str) -> Vec<String> {
    let code = code.lines().map(|line| line.split("//").next().unwrap());
    let code: Vec<&str> = code.collect();
    let code = code.join("\n");
    let mut named: Vec<String> = code
        .split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap().split(',').map(first).collect(),
            None => vec![first(rest)],
        })
        .collect();
    named.sort();
    named.dedup();
    // A bug on purpose sits where such a bug would.
    named.retain(|name| name != "mutant");
    named
}

fn first(path: &str) -> String {
    let path = path.trim_start();
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    path[..end].to_string()
}

#[track_caller]
fn may_know(file: &str, imports: &[String], allowed: &[&str]) {
    for named in imports {
        assert!(allowed.contains(&named.as_str()), "{file} must not know {named}");
    }
}

/// What everybody may know: time, numbers, errors, and the pure draws.
const FOUNDATION: [&str; 4] = ["draw", "error", "ratio", "time"];

#[test]
fn the_foundation_stands_on_itself() {
    let imports = imports();
    for file in ["time.rs", "ratio.rs", "error.rs", "draw.rs", "digest.rs"] {
        may_know(file, &imports[file], &FOUNDATION);
    }
    may_know("id.rs", &imports["id.rs"], &[]);
}

#[test]
fn a_leaf_knows_no_id_no_event_no_timer_and_no_other_leaf() {
    let imports = imports();
    for leaf in ["backoff", "bucket", "histogram", "limit", "phi", "probe", "self_health", "window"]
    {
        may_know(leaf, &imports[&format!("{leaf}.rs")], &FOUNDATION);
    }
    // But for those that are made of another, or of a container, which knows nothing of them.
    for (leaf, parts) in [
        ("breaker", &["backoff", "container", "window"][..]),
        ("budget", &["bucket"]),
        ("bulkhead", &["container"]),
        ("hedge", &["histogram"]),
        ("throttle", &["window"]),
    ] {
        for (file, named) in imports.iter() {
            if file == &format!("{leaf}.rs") || file.starts_with(&format!("{leaf}/")) {
                may_know(file, named, &[&FOUNDATION[..], parts].concat());
            }
        }
    }
}

#[test]
fn the_containers_know_nothing_of_resilience() {
    for (file, named) in imports().iter().filter(|(file, _)| file.starts_with("container/")) {
        may_know(file, named, &["container", "id", "time"]);
    }
}

#[test]
fn the_configuration_knows_the_leaves_and_not_their_users() {
    let leaves = [
        "backoff",
        "breaker",
        "bucket",
        "budget",
        "bulkhead",
        "hedge",
        "limit",
        "phi",
        "probe",
        "self_health",
        "throttle",
        "window",
    ];
    let allowed = [&FOUNDATION[..], &leaves, &["config", "event", "id"]].concat();
    for file in ["config.rs", "config/breakers.rs", "config/calls.rs", "config/peers.rs"] {
        may_know(file, &imports()[file], &allowed);
    }
}

#[test]
fn what_is_told_knows_nobody_who_tells_it() {
    let imports = imports();
    may_know("event.rs", &imports["event.rs"], &["id", "time"]);
    may_know("action.rs", &imports["action.rs"], &["breaker", "event", "id", "time"]);
    let counted = ["action", "breaker", "event", "histogram"];
    may_know("stats.rs", &imports["stats.rs"], &counted);
    may_know("ledger.rs", &imports["ledger.rs"], &["action", "event", "id", "time"]);
}

#[test]
fn only_the_manager_the_scripts_and_the_recordings_know_the_manager() {
    for (file, named) in imports() {
        let inside = ["manager/", "strategy", "recording"];
        let outside = !inside.iter().any(|inside| file.starts_with(inside));
        let knows = named.iter().any(|named| named == "manager");
        assert!(!(outside && knows), "{file} knows the manager");
    }
}

#[test]
fn a_recording_knows_what_goes_in_and_out_and_who_answers() {
    let allowed = ["action", "config", "event", "manager", "time"];
    for (file, named) in imports().iter().filter(|(file, _)| file.starts_with("recording")) {
        may_know(file, named, &allowed);
    }
}

#[test]
fn the_tables_know_no_flow() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manager");
    for table in ["peers", "endpoints", "conns", "breakers", "calls", "gates", "out"] {
        let text = fs::read_to_string(root.join(format!("{table}.rs"))).unwrap();
        assert!(!text.contains("impl Manager"), "{table}.rs holds a flow");
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| line.trim_start().starts_with("use crate::manager"))
        {
            let known = ["peers::NONE", "gates::Gates", "refusals::Refusals", "crowd::"];
            assert!(known.iter().any(|known| line.contains(known)), "{table}.rs: {line}");
        }
    }
}

#[test]
fn only_the_out_of_a_step_is_pushed_to() {
    // Actions leave by one door, so the order of a step is the order in which its flows ran.
    for (file, text) in sources("manager/") {
        let pushes = text.contains("actions.push(");
        assert!(!pushes || file.ends_with("out.rs") || file.ends_with("tests.rs"), "{file}");
    }
}

#[test]
fn nobody_reads_a_clock_or_spawns() {
    for (file, text) in sources("") {
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
        let code = code.join("\n");
        for banned in
            ["Instant::now", "SystemTime", "std::thread", "std::env", "std::fs", "std::net"]
        {
            assert!(!code.contains(banned), "{file} uses {banned}");
        }
    }
}

fn sources(under: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = imports().into_keys().filter(|file| file.starts_with(under));
    files.map(|file| (file.clone(), fs::read_to_string(root.join(&file)).unwrap())).collect()
}
