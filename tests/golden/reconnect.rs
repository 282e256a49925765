//! Who reconnects when, and over what.

use insta::assert_snapshot;
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::config::{Detector, OnSuspect, PeerProfile, Priority, Signs};
use steadfast::probe::ProbeConfig;
use steadfast::{Config, Event};

use crate::story;
use crate::story::play;
use crate::{plain, secs};

/// [`plain`], and one dial at a time behind a breaker.
fn one_at_a_time() -> Config {
    let mut config = plain();
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
fn who_could_not_be_dialed_in_time_as_far_as_dials_take_waits_like_a_fresh_one() {
    let mut config = one_at_a_time();
    profile(&mut config, "brief", |profile| profile.session_ttl = Some(secs(10)));
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1 as brief
         connect p3
         +8s connected p3
         +20s connect p1
         connect p2
         lost p3 reset
         +10ms connected p1
         connected p2
         connected p3"
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

/// p1 dials, and behind it wait p2, long, p3 and p4.
const LONG_WAIT: &str = "breaker b1
         peer p1 b1
         peer p2 b1 as background
         peer p3 b1 as background
         peer p4 b1
         connect p3
         connected p3
         connect p1
         connect p2
         +20s lost p3 reset
         +5s connect p4
         ";

/// Found by the model: the turn went to a session of the class, again and again.
#[test]
fn a_long_wait_gives_its_turn_to_nobody_else() {
    let mut config = one_at_a_time();
    config.peer_profiles[0].dial_timeout = secs(60);
    config.peer_profiles[0].session_ttl = Some(secs(300));
    profile(&mut config, "background", |profile| profile.priority = Priority::Background);
    let script = format!(
        "{LONG_WAIT}+6s connected p1
         connected p2
         connected p4"
    );
    assert_snapshot!(story(config, &script));
}

#[test]
fn a_long_wait_gives_its_probe_to_nobody_else() {
    let mut config = one_at_a_time();
    config.peer_profiles[0].dial_timeout = secs(60);
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.probes = 1;
    profile(&mut config, "background", |profile| profile.priority = Priority::Background);
    let script = format!(
        "{LONG_WAIT}+6s dial-failed p1 refused
         disconnect p1
         +2s connected p2"
    );
    assert_snapshot!(story(config, &script));
}

#[test]
fn within_one_class_a_session_goes_before_the_longest_wait() {
    let mut config = one_at_a_time();
    config.peer_profiles[0].dial_timeout = secs(60);
    config.peer_profiles[0].session_ttl = Some(secs(300));
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p3
         connected p3
         connect p1
         connect p2
         +20s lost p3 reset
         +11s connected p1
         connected p3";
    assert_snapshot!(story(config, script));
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

#[test]
fn a_breaker_that_holds_few_places_again_is_held_back_no_longer() {
    let mut config = one_at_a_time();
    config.breaker_profiles[0].max_in_flight = 100;
    config.pacer.max_in_flight = 8;
    let mut script = String::from("breaker b1\nbreaker b2\nbreaker b3\n");
    for peer in 1..=7 {
        script += &format!("peer p{peer} b1\nconnect p{peer}\n");
    }
    script += "peer p8 b2
               peer p9 b2
               peer p10 b3
               connect p8
               connect p9
               +1s connected p1
               connect p10
               why p9
               +1s connected p8";
    assert_snapshot!(story(config, &script));
}

#[test]
fn a_breaker_holds_much_from_a_quarter_of_the_last_eighth_on() {
    let mut config = one_at_a_time();
    config.breaker_profiles[0].max_in_flight = 100;
    config.pacer.max_in_flight = 64;
    let mut script = String::from("breaker b1\nbreaker b2\n");
    for peer in 1..=55 {
        script += &format!("peer p{peer} b1\nconnect p{peer}\n");
    }
    script += "peer p56 b2
               peer p57 b2
               peer p58 b2
               connect p56
               connect p57
               connect p58";
    let timeline = story(config, &script);
    let (_, scarce) = timeline.split_once("  +0.000s  peer p56").unwrap();
    assert_snapshot!(scarce);
}

/// Without jitter, and one peer with two endpoints that fails back after a minute.
fn two_endpoints(change: impl FnOnce(&mut PeerProfile)) -> Config {
    let mut config = one_at_a_time();
    config.breaker_profiles[0].max_in_flight = 100;
    change(&mut config.peer_profiles[0]);
    config
}

const FAILED_OVER: &str = "breaker b1
     breaker b2
     peer p1 b1 b2
     connect p1
     dial-failed p1 refused
     +251ms connected p1";

#[test]
fn a_peer_fails_back_beside_its_connection_and_closes_it_then() {
    let script = format!(
        "{FAILED_OVER}
         +75s why p1
         connected c1
         +1m wait"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn a_failback_that_fails_is_tried_ever_more_rarely_and_costs_the_peer_nothing() {
    let script = format!(
        "{FAILED_OVER}
         +75s dial-failed c1 timeout
         +110s dial-failed c1.1 timeout
         why p1
         +250s lost c0.1 reset
         why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn a_peer_that_falls_over_again_after_a_failback_stays_where_it_is() {
    let script = format!(
        "{FAILED_OVER}
         +75s connected c1
         +20s lost c1 reset
         +251ms connected p1
         +9m wait
         +2m why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn a_server_that_drains_is_left_before_it_leaves_and_avoided_for_a_while() {
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         peer p2 b1 b2
         connect p1
         connect p2
         connected p1
         connected p2
         +1m go-away p1 in 60s
         go-away c1 in 60s not-before 10s
         +50s connected p1
         connected p2
         +10s wait
         +3m why p1";
    assert_snapshot!(story(two_endpoints(|_| {}), script));
}

#[test]
fn a_server_that_will_leave_in_a_century_is_left_within_the_hour_and_tried_again() {
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         connected p1
         +1m go-away p1 in 100years
         +2543s connected p1
         +20m why p1";
    assert_snapshot!(story(two_endpoints(|_| {}), script));
}

#[test]
fn a_server_that_leaves_while_its_successor_is_dialed_hands_the_dial_on() {
    let script = "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +1m go-away p1 in 4s
         +4s lost c0 eof
         why p1
         +1s connected p1";
    assert_snapshot!(story(two_endpoints(|_| {}), script));
}

#[test]
fn a_silent_connection_is_raced_and_whichever_speaks_first_is_kept() {
    let config = two_endpoints(|profile| {
        profile.health.signs = Signs::Heartbeats;
        profile.health.detector = Detector::Deadline(secs(5));
        profile.health.on_suspect = OnSuspect::Race;
        profile.failback_after = None;
    });
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         connected p1
         +6s heard c0
         +6s connected c1.1
         +6s dial-failed c0.1 timeout
         why p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn an_endpoint_that_lets_in_and_throws_out_is_left_for_another() {
    let config = two_endpoints(|profile| profile.failback_after = None);
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         connected p1
         +100ms lost p1 kicked
         +1001ms connected p1
         +100ms lost p1 kicked
         +2001ms connected p1
         +100ms lost p1 kicked
         why p1
         +251ms connected p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn an_endpoint_that_kept_a_peer_for_a_second_did_not_turn_it_away() {
    let config = two_endpoints(|profile| profile.failback_after = None);
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         connected p1
         +1s lost p1 kicked
         +1001ms connected p1
         +1s lost p1 kicked
         +2001ms connected p1
         +1s lost p1 kicked
         +4001ms why p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn endpoints_change_under_a_dial_that_replaces_a_connection() {
    let script = format!(
        "breaker b3
         {FAILED_OVER}
         +85s endpoints p1 b3 b2
         +1s connected p1
         why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

/// Without jitter, and pinged after 10 s of silence.
fn pinged() -> Config {
    two_endpoints(|profile| {
        profile.health.signs = Signs::Pings(ProbeConfig::default());
        profile.failback_after = None;
    })
}

#[test]
fn a_change_of_network_begins_dials_anew_and_asks_the_connected_soon() {
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         connected p1
         dial-failed p3 refused
         +60ms metrics p1 20ms 0%
         +100ms network changed
         +4s why p1
         why p2
         why p3";
    assert_snapshot!(story(pinged(), script));
}

#[test]
fn a_dial_that_begins_with_the_new_network_goes_over_it() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         +1s connect p2
         network changed"
    ));
}

#[test]
fn a_network_that_was_gone_for_a_moment_was_not_gone() {
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connect p2
         connected p1
         +1s network down
         +900ms network up
         +4s why p1
         why p2
         network down
         +1s network up
         +4s why p1
         why p2";
    assert_snapshot!(story(pinged(), script));
}

#[test]
fn a_paused_app_neither_dials_nor_asks_and_looks_around_when_it_is_back() {
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connected p1
         +1s paused
         connect p2
         network down
         +10m why p1
         why p2
         network up
         +1m resumed
         +3s why p1
         +1s pong p1";
    assert_snapshot!(story(pinged(), script));
}

#[test]
fn a_server_that_says_again_and_again_that_it_leaves_is_left_no_later() {
    let script = "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +1m go-away p1 in 60s
         +1s go-away c0 in 59s
         +1s go-away c0 in 58s
         +40s connected p1";
    assert_snapshot!(story(two_endpoints(|_| {}), script));
}

#[test]
fn a_peer_that_all_endpoints_throw_out_backs_off() {
    let config = two_endpoints(|peer| {
        peer.backoff.cap = secs(1);
        peer.max_attempts = Some(8);
    });
    let thrown_out = "+1100ms connected p1
         +100ms lost p1 reset
         ";
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         ";
    assert_snapshot!(story(config, &(script.to_owned() + &thrown_out.repeat(12))));
}

#[test]
fn a_half_open_breaker_is_probed_by_those_whose_server_leaves() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 refused
         +2s connected p1
         why p1
         go-away p1 in 30s
         +20s wait
         +1s connected p1"
    ));
}

/// Drops nobody at once: another connection is dialed beside the silent one.
fn racing(mut config: Config) -> Config {
    config.peer_profiles[0].health.signs = Signs::Heartbeats;
    config.peer_profiles[0].health.on_suspect = OnSuspect::Race;
    config
}

#[test]
fn whoever_finds_no_other_endpoint_for_a_race_lets_the_silent_connection_go() {
    assert_snapshot!(story(
        racing(plain()),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         force-open b1
         +40s wait
         why p1"
    ));
}

#[test]
fn a_race_that_the_old_connection_wins_leaves_its_server_no_less_about_to_go() {
    assert_snapshot!(story(
        racing(plain()),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         go-away p1 in 120s
         +31s heard c0
         +20s heard c0
         +20s heard c0
         +20s heard c0"
    ));
}

#[test]
fn an_outage_of_ours_after_a_failback_speaks_against_no_endpoint() {
    let script = format!(
        "{FAILED_OVER}
         +75s connected c1
         +5s network down
         +5s network up
         lost c1 reset
         +1s connected p1
         +1m why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn a_server_that_said_when_to_come_back_is_left_alone_after_it_has_gone() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +1m go-away p1 in 5s not-before 60s
         +5s lost p1 reset
         why p1
         +1m wait"
    ));
}

/// Adopted connections of a peer that nobody asked for.
fn inbound(change: impl FnOnce(&mut PeerProfile)) -> Config {
    two_endpoints(|profile| {
        profile.inbound = true;
        change(profile);
    })
}

#[test]
fn a_connection_that_nobody_wants_is_not_replaced_when_its_server_leaves() {
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         accepted p1 t1
         +1m go-away p1 in 60s
         +1m lost p1 eof
         +1m why p1";
    assert_snapshot!(story(inbound(|_| {}), script));
}

#[test]
fn a_connection_that_nobody_wants_is_not_raced_when_it_falls_silent() {
    let config = inbound(|profile| {
        profile.health.signs = Signs::Heartbeats;
        profile.health.detector = Detector::Deadline(secs(5));
        profile.health.on_suspect = OnSuspect::Race;
    });
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         accepted p1 t1
         +20s why p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn nobody_fails_back_to_a_server_that_has_not_been_well_for_long() {
    let mut config = two_endpoints(|profile| {
        profile.failback_after = Some(secs(20));
        profile.stable_after = secs(60);
    });
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.close_after = 1;
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         peer p2 b1
         connect p1
         dial-failed p1 refused
         connect p2
         +251ms connected p1
         +5s connected p2
         +40s why p1
         +40s why p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn a_failback_that_lasted_leaves_its_endpoint_in_favour() {
    let script = format!(
        "{FAILED_OVER}
         +75s connected c1
         +1h lost c1 reset
         +5s why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn another_network_begins_the_dial_of_a_replacement_anew() {
    let script = format!(
        "{FAILED_OVER}
         +75s wait
         network changed
         +53s connected c1.1
         why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn the_probe_of_a_server_goes_to_whoever_was_connected_last() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         connected p1
         +1s connected p2
         +1s dial-failed p3 refused
         lost p1 reset
         lost p2 reset
         why p1
         why p2
         +20s why p1
         why p2
         why p3";
    assert_snapshot!(story(config, script));
}

#[test]
fn who_is_in_line_at_a_server_that_is_watched_no_more_goes_to_another() {
    let mut config = two_endpoints(|_| {});
    config.breaker_profiles[0].max_in_flight = 1;
    config.breaker_profiles[0].window = None;
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    let script = "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b1
         peer p3 b1 b2
         watch-only b1 on
         connect p1
         connect p2
         connect p3
         dial-failed p1 refused
         why p3
         watch-only b1 off
         why p2
         why p3";
    assert_snapshot!(story(config, script));
}

#[test]
fn those_lost_together_are_spread_over_the_time_of_the_whole_fleet() {
    let mut config = Config::new(1);
    config.pacer.assumed_rate = Rate { count: 1, per: secs(1) };
    config.pacer.fleet_size = 10;
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connect p2
         connected p1
         connected p2
         +1m lost p1 reset
         lost p2 reset
         +5s wait";
    assert_snapshot!(story(config, script));
}

#[test]
fn a_failback_comes_after_whoever_has_no_connection() {
    let mut config = two_endpoints(|_| {});
    config.breaker_profiles[0].max_in_flight = 1;
    config.breaker_profiles[0].window = None;
    let script = format!(
        "{FAILED_OVER}
         peer p2 b1
         peer p3 b1
         +72s connect p2
         +2s connect p3
         why p3
         connected p2
         why p3
         connected p3
         +1s wait"
    );
    assert_snapshot!(story(config, &script));
}

#[test]
fn a_session_is_spread_over_no_more_than_a_quarter_of_what_is_left_of_it() {
    let mut config = Config::new(1);
    config.pacer.assumed_rate = Rate { count: 1, per: secs(1) };
    config.pacer.fleet_size = 100;
    config.peer_profiles[0].session_ttl = Some(secs(8));
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         connected p1
         connected p2
         connected p3
         +1m lost p1 reset
         lost p2 reset
         lost p3 reset
         +5s wait";
    assert_snapshot!(story(config, script));
}

#[test]
fn a_peer_gives_up_after_so_long_with_a_network_whatever_it_does_then() {
    let mut config = plain();
    config.peer_profiles[0].give_up_after = Some(secs(16));
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         +15s network down
         +1m why p1
         connect p2
         +1m network up
         +900ms why p1
         +1s why p1
         +20s why p2
         revive all
         +1s dial-failed p1 refused
         +20s why p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn a_backoff_goes_on_while_our_network_is_away_and_ends_with_its_return() {
    let config = two_endpoints(|profile| {
        profile.give_up_after = Some(secs(30));
        profile.backoff.base = secs(60);
    });
    let script = "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 refused
         +10s network down
         +45s why p1
         network up
         +1s why p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn who_comes_back_at_the_end_of_its_session_has_none() {
    let mut config = one_at_a_time();
    config.peer_profiles[0].session_ttl = Some(secs(10));
    let script = "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connected p1
         connect p3
         connect p2
         lost p1 reset
         +10s endpoints p1 e0@b1
         why p2
         connected p3
         connected p2
         connected p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn an_endpoint_that_failed_is_avoided_until_its_backoff_ends_and_no_longer() {
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         dial-failed p1 refused
         +1s disconnect p1
         connect p1";
    assert_snapshot!(story(two_endpoints(|_| {}), script));
}

#[test]
fn a_server_that_left_is_avoided_for_a_minute_and_no_longer() {
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         connected p1
         disconnect p1
         connect p1
         connected p1
         go-away p1 in 60s
         disconnect p1
         +119999ms connect p1
         disconnect p1
         +1ms connect p1";
    assert_snapshot!(story(two_endpoints(|_| {}), script));
}

#[test]
fn who_waited_behind_all_its_breakers_dials_the_first_of_those_that_admit() {
    let mut config = two_endpoints(|_| {});
    config.pacer.max_in_flight = 1;
    let script = "breaker b1
         breaker b2
         breaker b3
         breaker b4
         force-open b1
         force-open b2
         force-open b3
         peer p1 b1 b2 b3
         peer p2 b4
         connect p1
         connect p2
         reset b3
         reset b2
         connected p2";
    assert_snapshot!(story(config, script));
}

#[test]
fn new_endpoints_leave_a_planned_departure_as_it_was() {
    let script = format!(
        "{FAILED_OVER}
         go-away p1 in 30s
         endpoints p1 e0@b1 e1@b2
         +30s why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn new_endpoints_leave_a_dial_to_one_that_stays_as_it_was() {
    let script = format!(
        "{FAILED_OVER}
         +75s endpoints p1 e0@b1 e1@b2
         connected c1
         endpoints p1 e5@b2 e0@b1
         lost c1 reset
         +2s connected p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn nobody_fails_back_to_a_server_whose_breaker_is_open() {
    let script = format!(
        "{FAILED_OVER}
         force-open b1
         +5m reset b1
         +5m why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn a_long_outage_of_ours_costs_a_peer_that_has_little_time_left_few_wake_ups() {
    let mut config = plain();
    config.peer_profiles[0].give_up_after = Some(secs(10));
    let script = "breaker b1
         peer p1 b1
         connect p1
         +9999ms network down
         +10s wait";
    let (_, mut manager) = play(config, script);
    let minute = manager.now() + secs(60);
    let mut wake_ups = 0;
    while let Some(at) = manager.next_deadline().filter(|&at| at < minute) {
        assert!(manager.step(Event::Tick, at).is_empty());
        wake_ups += 1;
    }
    assert_eq!(wake_ups, 48);
}

#[test]
fn who_is_connected_to_an_address_of_no_endpoint_any_more_stays_there() {
    let script = format!(
        "{FAILED_OVER}
         endpoints p1 e0@b1
         +10m why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn a_failback_has_lasted_after_a_minute_exactly() {
    let script = format!(
        "{FAILED_OVER}
         +75s connected c1
         +60s lost c1 reset
         +5s why p1"
    );
    assert_snapshot!(story(two_endpoints(|_| {}), &script));
}

#[test]
fn an_endpoint_that_moves_to_another_breaker_is_dialed_anew() {
    let script = "breaker b1
         breaker b2
         peer p1 b1
         connect p1
         endpoints p1 e0@b2
         connected p1";
    assert_snapshot!(story(two_endpoints(|_| {}), script));
}

#[test]
fn a_breaker_that_is_watched_from_now_on_moves_nobody_who_stands_right() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.pacer.max_in_flight = 1;
    let script = "breaker b1
         breaker b2
         breaker b3
         peer p1 b1 b2
         peer p2 b1
         peer p3 b3
         connect p2
         dial-failed p2 refused
         disconnect p2
         connect p3
         connect p1
         +1001ms why p1
         watch-only b2 on
         connected p3";
    assert_snapshot!(story(config, script));
}

#[test]
fn a_peer_has_as_many_endpoints_as_the_limit_says() {
    let mut config = plain();
    config.limits.max_endpoints = 2;
    let script = "breaker b1
         peer p1 b1 b1
         peer p2 b1 b1 b1
         connect p1";
    assert_snapshot!(story(config, script));
}

#[test]
fn a_rate_of_all_dials_together_is_kept() {
    let mut config = plain();
    config.pacer.rate = Some(BucketConfig { rate: Rate { count: 1, per: secs(1) }, burst: 1 });
    let script = "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b2
         peer p3 b1
         connect p1
         connect p2
         connect p3
         +3s why p3";
    assert_snapshot!(story(config, script));
}

#[test]
fn who_has_tried_the_endpoint_that_is_open_and_gets_no_probe_of_the_other_backs_off() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.probes = 1;
    config.pacer.max_in_flight = 2;
    let script = "breaker b1
         breaker b2
         breaker b3
         peer p1 b1 b2
         peer p2 b2
         peer p3 b2
         peer p4 b3
         peer p5 b3
         connect p2
         dial-failed p2 refused
         disconnect p2
         +1001ms connect p1
         dial-failed p1 refused
         connect p4
         connect p5
         connect p3
         +260ms why p1
         reset b1
         connected p4
         connected p5";
    assert_snapshot!(story(config, script));
}
