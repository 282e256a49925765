//! Bad input gets an error that names the place.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use steadfast_sim::{Scenario, Simulation};

const GOOD: &str = r#"name = "good"
about = "nothing happens"
duration = "60s"

[servers.lb]
accept = "100/s"

[peers.device]
count = 10
endpoints = ["lb"]

[[faults]]
kind = "down"
on = "servers.lb"
at = "1s"
for = "5s"
"#;

/// The fault of the good scenario.
const FAULT: &str = "kind = \"down\"\non = \"servers.lb\"";

#[test]
fn a_wrong_scenario_is_refused_at_its_place() {
    let changes = [
        ("accept = ", "acept = "),
        ("\"100/s\"", "\"100 bananas\""),
        ("\"100/s\"", "100"),
        ("\"60s\"", "\"0s\""),
        ("\"60s\"", "\"8785h\""),
        ("\"60s\"", "\"60s\"\nmanagers = 0"),
        ("\"60s\"", "\"60s\"\nmanagers = 1_000_001"),
        ("count = 10", "count = 0"),
        ("count = 10", "count = -1"),
        ("count = 10", "count = 4_000_000_000"),
        ("count = 10", "heartbeat = \"50ns\""),
        ("for = \"5s\"", "for = \"1ns\"\nevery = \"2ns\"\ntimes = 1_000_001"),
        ("[\"lb\"]", "[\"lv\"]"),
        ("[\"lb\"]", "[]"),
        ("\"down\"", "\"dwon\""),
        ("servers.lb\"", "servers.lv\""),
        ("servers.lb\"", "links.device-lb\""),
        ("for = \"5s\"", ""),
        ("for = \"5s\"", "for = \"5s\"\nloss = 0.1"),
        ("for = \"5s\"", "for = \"5s\"\nevery = \"4s\"\ntimes = 3"),
        ("at = \"1s\"", "at = \"60s\""),
        ("for = \"5s\"", "for = \"5s\"\nevery = \"20s\"\ntimes = 4"),
        ("for = \"5s\"", "for = \"5s\"\n[links.device-lv]\nlatency = \"1ms\""),
        ("for = \"5s\"", "for = \"5s\"\n[links.device-lb]\nloss = 1.5"),
        ("for = \"5s\"", "for = \"5s\"\n[expect.ous]\nall_up = \"<= 5s\""),
        ("for = \"5s\"", "for = \"5s\"\n[expect.ours]\nal_up = \"<= 5s\""),
        ("for = \"5s\"", "for = \"5s\"\n[expect.ours]\nall_up = \"<= 5/s\""),
        ("for = \"5s\"", "for = \"5s\"\n[policies.mine]\nbase = \"our\""),
        (
            "for = \"5s\"",
            "for = \"5s\"\n[policies.mine]\nbase = \"ours\"\npeer.dial_timeout = \"0s\"",
        ),
        ("for = \"5s\"", "for = \"5s\"\n[policies.mine]\ntold = true"),
        ("for = \"5s\"", "for = \"5s\"\n[policies.every]\nbase = \"ours\""),
        ("for = \"5s\"", "for = \"5s\"\n[policies.ours]\nbreaker.burst = 5"),
        ("count = 10", "heartbeat = \"5s\"\nprofile.signs = \"unmonitored\""),
        ("count = 10", "profile.max_attempts = 0"),
        ("count = 10", "profile = { detector = \"phi(memory=0)\" }"),
        ("[\"lb\"]", "[\"lb\", \"lb\"]"),
        (
            "[peers.device]",
            "[servers.a-lb]\n[peers.device-a]\nendpoints = [\"lb\"]\n[peers.device]\nendpoints = [\"a-lb\"]\n[peers.c]",
        ),
        ("for = \"5s\"", "for = \"5s\"\n[policies.mine.peer.backoff]\njitter = \"ful\""),
        ("count = 10", "heartbeat_trace = \"nowhere.csv\""),
        ("count = 10", "detectors = [\"phi(treshold=8)\"]"),
        ("name = \"good\"", "name = \"good"),
        ("\"down\"", "\"reject\""),
        ("\"down\"", "\"reject\"\ncause = \"tsl\""),
        ("\"down\"", "\"down\"\ncause = \"tls\""),
        ("\"down\"", "\"dns-fail\"\nshare = 1.5"),
        ("\"down\"", "\"partition\"\ndirection = \"out\""),
        ("\"down\"", "\"down\"\ndirection = \"to-server\""),
        ("for = \"5s\"", "for = \"exp(5s)\""),
        ("for = \"5s\"", "for = \"1s\"\nevery = \"exp(5s)\""),
        ("for = \"5s\"", "for = \"1s\"\nevery = \"exp(5s)\"\nuntil = \"1s\""),
        ("for = \"5s\"", "for = \"1s\"\nevery = \"exp(5s)\"\nuntil = \"9s\"\ntimes = 2"),
        ("for = \"5s\"", "for = \"1s\"\nevery = \"exp(1us)\"\nuntil = \"9s\""),
        ("for = \"5s\"", "for = \"1s\"\nuntil = \"9s\""),
        ("\"100/s\"", "\"100/s\"\ninstances = 0"),
        ("\"100/s\"", "\"100/s\"\ninstances = 1_001"),
        (FAULT, "kind = \"drain\"\non = \"servers.lb\""),
        (FAULT, "kind = \"drain\"\non = \"servers.lb\"\nnotice = \"5s\""),
        ("\"down\"", "\"down\"\nnotice = \"5s\""),
        (FAULT, "kind = \"switch\"\non = \"servers.lb\""),
        (FAULT, "kind = \"offline\"\non = \"managers\"\nspread = \"59s\""),
        (FAULT, "kind = \"offline\"\non = \"managers\"\nshare = 2"),
        ("\"down\"", "\"down\"\nspread = \"5s\""),
        (
            "for = \"5s\"",
            "for = \"5s\"\n[[faults]]\nkind = \"background\"\non = \"managers\"\nat = \"1s\"",
        ),
        (FAULT, "kind = \"churn\"\non = \"servers.lb\""),
        (FAULT, "kind = \"churn\"\non = \"peers.device\""),
        (FAULT, "kind = \"churn\"\non = \"peers.device\"\nstays = \"1m\""),
        (FAULT, "kind = \"churn\"\non = \"peers.device\"\ntrace = \"spot_p4\""),
        (FAULT, "kind = \"churn\"\non = \"peers.device\"\nstays = \"1ns\"\naway = \"1ns\""),
        (FAULT, "kind = \"churn\"\non = \"peers.device\"\ntrace = \"spot_p3\"\nas = \"lost\""),
        (FAULT, "kind = \"churn\"\non = \"peers.device\"\ntrace = \"spot_p3\"\nuntil = \"9s\""),
    ];
    let mut errors = String::new();
    for (from, to) in changes {
        assert!(GOOD.contains(from), "{from}");
        let error = Scenario::parse(&GOOD.replacen(from, to, 1), "outage.toml").unwrap_err();
        let _ = writeln!(errors, "{error}\n");
    }
    insta::assert_snapshot!(errors);
}

#[test]
fn a_wrong_change_is_quoted_itself() {
    let changes = [
        "nonsense",
        "peers.device.cuont=5",
        "peers.device.count=x",
        "peers.device.count=4000000000",
        "managers=4000000000",
        "duration=400000h",
        "peers.device.heartbeat=1ns",
        "duration=500ms",
        "peers.devce.count=5",
        "servers.lb.accept=5 bananas",
        "faults.1.for=2s",
        "faults.0.kind=dwon",
        "duration.x=5",
        "policies.grcp.peer.dial_timeout=5s",
        "policies.mine.base=ours",
        "peers.device.profile.detector=phi(memory=0)",
        "peers.device.profile.max_attempts=0",
        "about=two\nlines",
        "servers.lb.accept=\u{7}",
        "servers.lb.accept=a\u{200b}\"\\",
        "expect.every.\"suspected.device=\"=<= 5s",
        "=5",
    ];
    let mut errors = String::new();
    for change in changes {
        let error = Simulation::from_toml(GOOD).unwrap().set(change).unwrap_err();
        let _ = writeln!(errors, "{error}\n");
    }
    insta::assert_snapshot!(errors);
}

#[test]
fn a_moment_after_the_end_is_refused_under_the_policy_that_asks_for_it() {
    let simulation = Simulation::from_toml(GOOD).unwrap();
    let simulation = simulation.set("expect.naive.up_share=>= 5% at 54500ms after heal").unwrap();
    assert!(simulation.run(1).is_ok());
    insta::assert_snapshot!(simulation.policy("naive").unwrap().run(1).unwrap_err());
}

#[test]
fn a_profile_that_fits_one_policy_only_is_refused_under_the_others() {
    let text =
        format!("{GOOD}[policies.mine]\nbase = \"ours\"\npeer.max_dial_timeout = \"200s\"\n");
    let text = text.replace("count = 10", "profile.dial_timeout = \"100s\"");
    let simulation = Simulation::from_toml(&text).unwrap();
    insta::assert_snapshot!(simulation.run(1).unwrap_err());
    assert!(simulation.policy("mine").unwrap().run(1).is_ok());
}

#[test]
fn changes_reach_every_key() {
    let changes = [
        "name=other",
        "peers.device.count=5",
        "servers.lb.accept=5/s",
        "faults.0.for=2s",
        "links.device-lb.latency=10ms..20ms",
        "expect.ours.all_up=<= 5s",
        "policies.ours.peer.backoff.jitter=none",
        "expect.every.\"suspected.device\"=<= 5s",
        "expect.'every'.\"false_losses.device\"=\"== 0\"",
    ];
    let simulation = Simulation::from_toml(GOOD).unwrap();
    let set = |simulation: Simulation, change| simulation.set(change).unwrap();
    insta::assert_snapshot!(changes.into_iter().fold(simulation, set).scenario());
}

proptest::proptest! {
    #[test]
    fn no_text_and_no_change_makes_it_panic(
        at in 0..GOOD.len(),
        cut in 0_usize..20,
        with in "[a-z0-9=\"\\[\\].\n -]{0,12}",
        change in "[a-z0-9.]{0,20}=?[a-z0-9\"/%<= ]{0,10}",
    ) {
        let mut text = GOOD.to_owned();
        text.replace_range(at..(at + cut).min(GOOD.len()), &with);
        if let Err(error) = Scenario::parse(&text, "outage.toml") {
            let _ = error.to_string();
        }
        if let Err(error) = Simulation::from_toml(GOOD).unwrap().set(&change) {
            let _ = error.to_string();
        }
    }
}

/// Wherever a digit stands there may be anything. Taken is what is a text, a comment or still a share.
#[test]
fn no_number_is_so_absurd_that_it_is_no_error() {
    let absurd =
        ["nan", "inf", "-inf", "1e999", "-1", "18446744073709551615", "9223372036854775807"];
    let small_world = include_str!("../../scenarios/small-world.toml");
    let (mut taken, mut refused) = (BTreeSet::new(), 0);
    for text in [GOOD, small_world] {
        let digit = |place: usize| text.as_bytes().get(place).is_some_and(u8::is_ascii_digit);
        for start in (0..text.len()).filter(|&place| digit(place) && !digit(place - 1)) {
            let rest = &text[start..];
            let end = start + rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            for other in absurd {
                let changed = format!("{}{other}{}", &text[..start], &text[end..]);
                let line = text[..start].lines().last().unwrap_or_default();
                match Scenario::parse(&changed, "outage.toml") {
                    Err(error) => {
                        let error = error.to_string();
                        let line = changed[..start].lines().count();
                        assert!(error.contains(&format!("outage.toml:{line}:")), "{error}");
                        refused += 1;
                    }
                    Ok(_) => _ = taken.insert(format!("{line}{other}")),
                }
            }
        }
    }
    assert!(refused > 200, "{refused}");
    insta::assert_snapshot!(taken.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_scenario_that_is_cut_off_or_has_a_flipped_bit_makes_nothing_panic() {
    for end in 0..GOOD.len() {
        if let Err(error) = Scenario::parse(&GOOD[..end], "outage.toml") {
            assert!(error.to_string().starts_with("error: "), "{error}");
        }
        for bit in 0..7 {
            let mut flipped = GOOD.as_bytes().to_vec();
            flipped[end] ^= 1 << bit;
            if let Err(error) = Scenario::parse(str::from_utf8(&flipped).unwrap(), "outage.toml") {
                assert!(error.to_string().starts_with("error: "), "{error}");
            }
        }
    }
}

#[test]
fn a_misspelt_name_is_answered_with_the_right_one() {
    let scenario = Simulation::from_scenario("herd-queuing").unwrap_err().to_string();
    assert!(scenario.contains("did you mean `herd-queueing`?"), "{scenario}");
    let policy = Simulation::from_toml(GOOD).unwrap().policy("our").unwrap_err().to_string();
    assert!(policy.contains("did you mean `ours`?"), "{policy}");
}
