//! Golden timelines of who reconnects when, and over what. To change one on purpose:
//! `INSTA_UPDATE=always cargo test --test golden_reconnect`, and read what changed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod story;

use std::time::Duration;

use insta::assert_snapshot;
use steadfast::Config;
use steadfast::backoff::Jitter;
use steadfast::config::{FirstRetry, PeerProfile, Priority};
use story::story;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The defaults without jitter, so that times are round, and one dial at a time behind a breaker.
fn one_at_a_time() -> Config {
    let mut config = Config::new(1);
    config.peer_profiles[0].backoff.jitter = Jitter::None;
    config.peer_profiles[0].first_retry = FirstRetry::Immediate;
    config.breaker_profiles[0].breaker.open_for.jitter = Jitter::None;
    config.breaker_profiles[0].max_in_flight = 1;
    config.breaker_profiles[0].window = None;
    config
}

fn profile(config: &mut Config, name: &str, change: impl FnOnce(&mut PeerProfile)) {
    let mut profile = PeerProfile { name: name.into(), ..config.peer_profiles[0].clone() };
    change(&mut profile);
    config.peer_profiles.push(profile);
}

#[test]
fn sessions_dial_first_by_their_end_and_those_too_late_wait_like_fresh_ones() {
    let mut config = one_at_a_time();
    profile(&mut config, "long", |profile| profile.session_ttl = Some(secs(60)));
    profile(&mut config, "short", |profile| profile.session_ttl = Some(secs(20)));
    profile(&mut config, "lost", |profile| profile.session_ttl = Some(secs(2)));
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1 as long
         peer p4 b1 as short
         peer p5 b1 as lost
         connect p1
         connect p2
         connect p3
         connect p4
         connect p5
         connected p1
         connected p2
         connected p3
         connected p4
         connected p5
         +1m lost p1 reset
         lost p2 reset
         lost p3 reset
         lost p4 reset
         lost p5 reset
         why p2
         why p3
         +3s connected p1
         +1s connected p4 resumed
         +1s connected p3 resumed
         +1s connected p2
         +1s connected p5"
    ));
}

#[test]
fn the_important_dial_first_and_a_long_wait_counts_as_a_class() {
    let mut config = one_at_a_time();
    config.peer_profiles[0].dial_timeout = secs(60);
    profile(&mut config, "important", |profile| profile.priority = Priority::Important);
    profile(&mut config, "background", |profile| profile.priority = Priority::Background);
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1 as background
         peer p3 b1
         peer p4 b1 as important
         connect p1
         connect p2
         connect p3
         connect p4
         why p2
         why p4
         +1s connected p1
         +1s connected p4
         peer p5 b1
         +27s connect p5
         +1s connected p3
         +1s connected p2"
    ));
}

#[test]
fn a_region_that_hangs_leaves_the_last_places_in_flight_to_others() {
    let mut config = one_at_a_time();
    config.breaker_profiles[0].max_in_flight = 100;
    config.pacer.max_in_flight = 8;
    let mut script = String::from("breaker b1\nbreaker b2\n");
    for peer in 1..=9 {
        script += &format!("peer p{peer} b1\nconnect p{peer}\n");
    }
    script += "peer p10 b2
               peer p11 b2
               connect p10
               connect p11
               +1s connected p10
               connected p11
               connected p1";
    assert_snapshot!(story(config, &script));
}
