//! Connections: dialed, watched, lost, and dialed again.

use std::time::Duration;

use insta::assert_snapshot;
use steadfast::Config;
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::config::{Detector, OnSuspect, Signs};
use steadfast::limit::LimitConfig;
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;

use crate::story;
use crate::story::play;
use crate::{plain, secs};

/// [`plain`], with something changed in its one peer profile.
fn with(change: impl FnOnce(&mut steadfast::config::PeerProfile)) -> Config {
    let mut config = plain();
    change(&mut config.peer_profiles[0]);
    config
}

/// Pings that do not spread, likewise.
fn punctual() -> ProbeConfig {
    ProbeConfig { spread: false, ..ProbeConfig::default() }
}

#[test]
fn a_first_connection() {
    assert_snapshot!(story(
        Config::new(1),
        "breaker b1
         peer p1 b1
         why p1
         +1s connect p1
         why p1
         +20ms connected p1
         why p1
         +1m disconnect p1"
    ));
}

#[test]
fn a_lone_loss_is_back_within_a_second_and_a_mass_loss_is_spread() {
    let mut config = Config::new(1);
    config.pacer.assumed_rate = Rate { count: 1, per: secs(1) };
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         peer p4 b1
         connect p1
         connect p2
         connect p3
         connect p4
         connected p1
         connected p2
         connected p3
         connected p4
         +1m lost p1 reset
         +10s connected p1
         +1m lost p1 reset
         lost p2 reset
         lost p3 reset
         lost p4 reset
         +5s wait"
    ));
}

#[test]
fn delays_double_up_to_the_cap() {
    assert_snapshot!(story(
        with(|peer| {
            peer.backoff.cap = secs(6);
            peer.dial_timeout = secs(2);
            peer.max_dial_timeout = secs(2);
        }),
        "breaker b1
         disable b1
         peer p1 b1
         connect p1
         +10ms dial-failed p1 refused
         +1010ms dial-failed p1 refused
         +2010ms dial-failed p1 refused
         why p1
         +4010ms dial-failed p1 refused
         +6010ms dial-failed p1 refused
         +6010ms connected p1"
    ));
}

#[test]
fn jitter_spreads_those_who_failed_together() {
    let mut config = Config::new(1);
    config.breaker_profiles[0].breaker.consecutive_failures = Some(9);
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         +10ms dial-failed p1 refused
         dial-failed p2 refused
         dial-failed p3 refused
         +2s wait"
    ));
}

#[test]
fn failures_are_forgotten_after_a_stable_connection_only() {
    assert_snapshot!(story(
        with(|peer| peer.health.signs = Signs::Heartbeats),
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 refused
         +1010ms connected p1
         heard p1
         +9s lost p1 eof
         +2010ms connected p1
         +20s lost p1 eof
         +4010ms connected p1
         +5s heard p1
         +5s lost p1 eof"
    ));
}

#[test]
fn a_breaker_trips_parks_its_peers_probes_and_releases_them() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(2);
    config.breaker_profiles[0].breaker.probes = 2;
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         peer p4 b1
         connect p1
         connect p2
         dial-failed p1 refused
         dial-failed p2 refused
         connect p3
         connect p4
         why p4
         +1s wait
         why p1
         +10ms connected p3
         +10ms connected p4
         why p1"
    ));
}

#[test]
fn a_failed_prober_goes_to_the_tail_and_too_many_open_again_for_longer() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.probes = 1;
    config.breaker_profiles[0].breaker.tolerate = 1;
    config.peer_profiles[0].backoff.base = secs(0);
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         dial-failed p1 refused
         connected p2
         connected p3
         +1010ms lost p3 reset
         +10ms dial-failed p1 refused
         why p1
         +10ms dial-failed p3 refused
         +1510ms connected p1"
    ));
}

#[test]
fn a_probe_that_never_answers_is_a_failure() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.probes = 1;
    config.breaker_profiles[0].breaker.tolerate = 0;
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 refused
         +30s why p1"
    ));
}

#[test]
fn a_peer_fails_over_through_its_endpoints_and_remembers_which_failed() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         breaker b2
         breaker b3
         peer p1 b1 b2 b3
         connect p1
         +10ms dial-failed p1 refused
         +260ms dial-failed p1 refused
         +260ms connected p1
         +1m lost p1 reset
         connected p1
         +15m lost p1 reset"
    ));
}

#[test]
fn an_endpoint_is_avoided_for_longer_with_each_failure_until_they_are_ten_minutes_old() {
    let over = "+300ms connected p1
         disconnect p1
         ";
    let script = "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         dial-failed p1 refused
         "
    .to_owned()
        + over
        // Ten minutes after the first failure, and no more than that.
        + "+599700ms connect p1
         dial-failed p1 refused
         "
        + over
        + "+1200ms connect p1
         disconnect p1
         +600s connect p1
         dial-failed p1 refused
         "
        + over
        + "+1200ms connect p1";
    assert_snapshot!(story(plain(), &script));
}

#[test]
fn a_round_ends_when_every_endpoint_failed_once() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         +10ms dial-failed p1 refused
         +260ms dial-failed p1 throttled 10s
         why p1
         +15s connected p1"
    ));
}

#[test]
fn the_pace_of_dials_is_found_out_and_falls_once_for_one_bad_moment() {
    let mut config = plain();
    config.breaker_profiles[0].max_in_flight = 4;
    config.breaker_profiles[0].window =
        Some(LimitConfig { initial: 2, max: 4, ..LimitConfig::default() });
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         peer p4 b1
         peer p5 b1
         peer p6 b1
         peer p7 b1
         connect p1
         connect p2
         connect p3
         connect p4
         connect p5
         connect p6
         connect p7
         +20ms connected p1
         window b1
         connected p2
         window b1
         +20ms dial-failed p3 timeout
         dial-failed p4 timeout
         window b1
         +20ms connected p5
         window b1"
    ));
}

#[test]
fn peers_in_line_are_displaced_when_their_breaker_opens() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].max_in_flight = 1;
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b1 b2
         peer p3 b1
         connect p1
         connect p2
         connect p3
         why p2
         +10ms dial-failed p1 refused
         why p3"
    ));
}

#[test]
fn whoever_waits_behind_all_its_breakers_takes_the_first_that_heals() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1
         force-open b1
         force-open b2
         peer p2 b1 b2
         connect p2
         why p2
         reset b2
         connected p2"
    ));
}

#[test]
fn whoever_probed_one_endpoint_in_vain_probes_the_other_in_the_same_round() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         +10ms dial-failed p1 refused
         +1010ms dial-failed p1 refused
         +1010ms dial-failed p1 refused
         +300ms connected p1"
    ));
}

#[test]
fn a_round_ends_as_well_where_the_other_endpoint_is_being_probed() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.probes = 1;
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b1 b2
         connect p1
         dial-failed p1 refused
         +2s connect p2
         dial-failed p2 refused
         why p2"
    ));
}

#[test]
fn who_has_another_endpoint_keeps_its_place_when_a_breaker_begins_to_probe() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.probes = 1;
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         force-open b2
         peer p1 b1 b2
         peer p2 b1
         peer p3 b1
         connect p3
         dial-failed p3 refused
         disconnect p3
         connect p1
         connect p2
         +2s why p2"
    ));
}

#[test]
fn whoever_came_first_dials_first_with_one_endpoint_or_with_two() {
    let mut config = plain();
    config.breaker_profiles[0].max_in_flight = 1;
    config.breaker_profiles[0].window = None;
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b1 b2
         peer p3 b1
         peer p4 b1 b2
         connect p1
         connect p2
         connect p3
         connect p4
         connected p1
         connected p2
         connected p3"
    ));
}

#[test]
fn a_session_is_resumed_or_lost_or_expires() {
    assert_snapshot!(story(
        with(|peer| peer.session_ttl = Some(secs(30))),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +1m lost p1 reset
         +1s connected p1 resumed
         +1m lost p1 reset
         +1s connected p1
         +1m lost p1 reset
         dial-failed p1 unreachable
         +1010ms dial-failed p1 unreachable
         +2010ms connected p1
         +1m lost p1 reset
         +20s why p1
         +50s connected p1"
    ));
}

#[test]
fn what_comes_too_late_is_ignored_and_leaks_no_socket() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         connect p1
         +20s wait
         connected c0
         dial-failed c0 timeout
         lost c0 eof
         heard c0
         +20s connected p1
         connected p1
         +1s heard c99
         connect p9"
    ));
}

#[test]
fn a_terminal_fact_of_the_wrong_kind_ends_the_connection_all_the_same() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         connect p1
         heard p1
         lost p1 reset
         +1010ms connected p1
         +1m dial-failed p1 refused"
    ));
}

#[test]
fn after_timeouts_a_dial_may_take_as_long_as_the_delay_has_become() {
    assert_snapshot!(story(
        with(|peer| {
            peer.dial_timeout = secs(2);
            peer.max_dial_timeout = secs(5);
        }),
        "breaker b1
         disable b1
         peer p1 b1
         connect p1
         +40s why p1"
    ));
}

#[test]
fn while_the_network_is_down_everything_stands_still() {
    let mut config = with(|peer| peer.health.signs = Signs::Heartbeats);
    config.breaker_profiles[0].breaker.consecutive_failures = Some(2);
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b2
         peer p3 b2
         peer p4 b1
         connect p1
         connected p1
         heard p1
         connect p2
         dial-failed p2 refused
         connect p3
         dial-failed p3 refused
         connect p4
         +500ms network down
         why p4
         +1m wait
         why p2
         +1m network up
         +10s heard p1
         +30s wait"
    ));
}

#[test]
fn who_slept_judges_nobody_until_the_waiting_io_has_spoken() {
    assert_snapshot!(story(
        with(|peer| peer.health.signs = Signs::Heartbeats),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connect p2
         connected p1
         connected p2
         heard p1
         heard p2
         sleep 1h
         +1s heard p1
         +10s wait"
    ));
}

#[test]
fn whoever_is_a_quarter_of_a_second_late_has_not_slept() {
    let late = |sleep: &str| {
        let script = "breaker b1\npeer p1 b1\nconnect p1\n".to_owned() + sleep;
        let (timeline, manager) = play(with(|peer| peer.dial_timeout = secs(2)), &script);
        (timeline, manager.stats().slept)
    };
    let (in_time, none) = late("sleep 2250ms");
    let (too_late, once) = late("sleep 2251ms");
    assert_eq!((none, once), (0, 1));
    assert_snapshot!(in_time + &too_late);
}

#[test]
fn time_that_goes_back_is_counted_and_changes_nothing() {
    let (timeline, manager) = play(
        plain(),
        "breaker b1
         peer p1 b1
         +5s connect p1
         back 3s
         dial-failed p1 refused
         +2s why p1",
    );
    assert_eq!(manager.stats().clock_backwards, 1);
    assert_snapshot!(timeline);
}

#[test]
fn an_inbound_connection_replaces_our_dial_and_then_the_older_one() {
    assert_snapshot!(story(
        with(|peer| peer.inbound = true),
        "breaker b1
         peer p1 b1
         peer p2
         accepted p2 t1
         connect p2
         connect p1
         +1s accepted p1 t2
         connected c1
         +1s accepted p1 t3
         +1m lost p1 eof
         lost p2 eof
         accepted p9 t4"
    ));
}

#[test]
fn inbound_connections_are_refused_unless_the_profile_takes_them() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         accepted p1 t1"
    ));
}

#[test]
fn a_peer_that_misses_two_pings_is_dropped() {
    assert_snapshot!(story(
        with(|peer| {
            peer.health.signs = Signs::Pings(punctual());
            peer.health.detector = Detector::Deadline(secs(60));
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +10s wait
         +80ms pong p1
         +5s heard p1
         +12s heard p1
         pong p1
         +40s wait"
    ));
}

#[test]
fn a_suspicion_can_be_wrong() {
    let (timeline, manager) = play(
        with(|peer| {
            peer.health.signs = Signs::Heartbeats;
            peer.health.on_suspect = OnSuspect::Notify;
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +20s heartbeat p1
         +30s heartbeat p1
         +31s heartbeat p1
         +1m wait",
    );
    let stats = manager.stats();
    assert_eq!([stats.doubted, stats.doubts_cleared, stats.suspected, stats.cleared], [3, 1, 2, 1]);
    assert_snapshot!(timeline);
}

#[test]
fn a_silent_peer_is_dropped_by_the_deadline_detector() {
    assert_snapshot!(story(
        with(|peer| peer.health.signs = Signs::Heartbeats),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +20s heartbeat p1
         +31s connected p1"
    ));
}

#[test]
fn of_all_that_waits_nobody_is_judged_before_he_was_fed() {
    // Both are due at +30s, and so are the heartbeats of both, fed one after the other.
    assert_snapshot!(story(
        with(|peer| peer.health.signs = Signs::Heartbeats),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connect p2
         connected p1
         connected p2
         +30s heartbeat p1
         heartbeat p2
         +1s wait
         +29s heartbeat p1
         +1ms wait"
    ));
}

#[test]
fn a_server_that_healed_is_probed_by_those_who_have_another_one() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.close_after = 1;
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1 b2
         peer p2 b1
         connect p2
         dial-failed p2 refused
         disconnect p2
         connect p1
         connected p1
         +2s wait
         +60s lost p1 reset
         connected p1"
    ));
}

#[test]
fn what_our_own_side_did_gives_nobody_up() {
    assert_snapshot!(story(
        with(|peer| peer.max_attempts = Some(1)),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connect p2
         connected p1
         network down
         lost p1 reset
         +999ms network up
         +1ms dial-failed p2 unreachable
         +1s why p1
         why p2
         connected p2
         +1s lost p2 local
         why p2"
    ));
}

#[test]
fn a_server_that_asked_to_be_left_alone_is_while_another_is_tried() {
    assert_snapshot!(story(
        with(|_| ()),
        "breaker b1
         breaker b2
         peer p1 b1 b2
         connect p1
         dial-failed p1 throttled 60s
         +300ms dial-failed p1 refused
         +2s dial-failed p1 refused
         +60s why p1
         dial-failed p1 refused
         +100s wait"
    ));
}

#[test]
fn a_host_without_sockets_is_asked_ever_more_slowly() {
    assert_snapshot!(story(
        with(|_| ()),
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 local
         +1001ms dial-failed p1 local
         +2001ms dial-failed p1 local
         why p1"
    ));
}

#[test]
fn what_our_own_host_lacks_is_remembered_when_a_person_begins_anew() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 local
         +1010ms dial-failed p1 local
         revive p1
         dial-failed p1 local"
    ));
}

#[test]
fn a_talkative_peer_that_missed_pings_is_cleared_by_pings_it_answers() {
    let pings = ProbeConfig { healthy_threshold: 2, ..punctual() };
    assert_snapshot!(story(
        with(|peer| {
            peer.health.signs = Signs::Pings(pings);
            peer.health.on_suspect = OnSuspect::Notify;
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +31s heard p1
         +1s heard p1
         +1s heard p1
         +1s heard p1"
    ));
}

#[test]
fn phi_learns_the_rhythm_and_remembers_it_over_a_reconnect() {
    assert_snapshot!(story(
        with(|peer| {
            peer.health.signs = Signs::Heartbeats;
            peer.health.detector = Detector::Phi(PhiConfig::default());
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +1s heartbeat p1
         +1s heartbeat p1
         +1s heartbeat p1
         +1s heartbeat p1
         +6s connected p1
         +10s wait"
    ));
}

#[test]
fn a_silence_that_was_our_own_networks_is_doubted_no_more() {
    assert_snapshot!(story(
        with(|peer| {
            peer.health.signs = Signs::Pings(ProbeConfig { interval: secs(30), ..punctual() });
            peer.health.detector = Detector::Deadline(secs(20));
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +14s network down
         +2s network up
         +2001ms why p1"
    ));
}

#[test]
fn latency_and_loss_degrade_a_peer_with_hysteresis() {
    assert_snapshot!(story(
        with(|peer| {
            peer.health.max_latency = Some(Duration::from_millis(100));
            peer.health.max_loss = Some(50_000);
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         metrics p1 50ms 0%
         metrics p1 600ms 0%
         metrics p1 0ms 0%
         metrics p1 60ms 0%
         metrics p1 0ms 0%
         metrics p1 0ms 0%
         metrics p1 0ms 100%
         +20s lost p1 reset"
    ));
}

#[test]
fn an_adaptive_threshold_relaxes_under_load_and_returns() {
    let mut config = plain();
    config.breaker_profiles[0].adaptive = true;
    config.breaker_profiles[0].breaker.consecutive_failures = Some(2);
    config.peer_profiles[0].backoff.base = secs(0);
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         connect p1
         load 100%
         load 100%
         load 100%
         load 100%
         load 100%
         load 100%
         dial-failed p1 refused
         dial-failed p1 refused
         dial-failed p1 refused
         reset b1
         load 0%
         load 0%
         load 0%
         load 0%
         load 0%
         dial-failed p1 refused
         dial-failed p1 refused"
    ));
}

#[test]
fn a_removed_peer_leaves_nothing_behind() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connect p2
         connected p2
         remove p1
         remove p2
         connected c0
         lost c1 reset
         remove p1
         remove-breaker b1
         +1h wait"
    ));
}

#[test]
fn a_breaker_that_is_removed_while_it_is_open_leaves_nothing_behind() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    let (timeline, manager) = play(
        config,
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 refused
         remove p1
         remove-breaker b1
         +1m breaker b1",
    );
    assert_eq!(manager.next_deadline(), None);
    assert_snapshot!(timeline);
}

#[test]
fn only_who_was_wanted_and_away_has_recovered() {
    let (_, manager) = play(
        with(|peer| peer.inbound = true),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connected p1
         accepted p2 t1
         lost p2 reset
         accepted p2 t2
         +1m lost p1 reset
         +2s connected p1",
    );
    let recovered = &manager.stats().time_to_recover;
    assert_eq!(recovered.count(), 1);
    assert_eq!(manager.stats().dials, 2);
}

#[test]
fn an_operator_forces_a_breaker_open_and_disables_it() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         force-open b1
         connect p1
         +1h why p1
         disable b1
         dial-failed p1 refused
         +1010ms dial-failed p1 refused
         reset b1
         reset b1
         +2010ms dial-failed p1 refused"
    ));
}

#[test]
fn a_new_process_takes_over_sessions_and_backoffs_but_no_connections() {
    assert_snapshot!(story(
        with(|peer| peer.session_ttl = Some(secs(60))),
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         connected p1
         dial-failed p3 refused
         +12s dial-failed p3 refused
         +1s new-process
         connected c0
         connected p1 resumed"
    ));
}

#[test]
fn what_tells_of_one_peer_does_not_count_against_a_shared_breaker() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.peer_profiles[0].backoff.cap = secs(2);
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b1
         peer p3 b2
         connect p1
         dial-failed p1 auth
         +1010ms dial-failed p1 auth
         +2010ms dial-failed p1 auth
         +4010ms dial-failed p1 local
         connect p3
         dial-failed p3 tls"
    ));
}

#[test]
fn a_told_rate_is_kept_and_the_line_is_served_in_order() {
    let mut config = plain();
    config.breaker_profiles[0].rate = Some(BucketConfig { rate: Rate::per_second(2), burst: 1 });
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         why p3
         +2s wait"
    ));
}

#[test]
fn regions_take_turns() {
    let mut config = plain();
    config.pacer.max_in_flight = 1;
    assert_snapshot!(story(
        config,
        "breaker b1
         breaker b2
         peer p1 b1
         peer p2 b1
         peer p3 b1
         peer p4 b2
         connect p1
         connect p2
         connect p3
         connect p4
         connected p1
         connected p2
         connected p4
         connected p3"
    ));
}

#[test]
fn new_endpoints_during_a_dial() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         breaker b2
         peer p1 e0@b1
         connect p1
         endpoints p1 e5@b2 e0@b1
         endpoints p1 e5@b2
         connected c0
         connected p1
         endpoints p1 e6@b1
         endpoints p1
         endpoints p1 e6@b9
         endpoints p1 e6@b1 e6@b2
         +1m lost p1 reset
         remove-breaker b1
         remove-breaker b2"
    ));
}

#[test]
fn a_peer_gives_up_and_is_revived() {
    assert_snapshot!(story(
        with(|peer| {
            peer.max_attempts = Some(2);
            peer.give_up_after = Some(secs(30));
        }),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         dial-failed p1 refused
         +1010ms dial-failed p1 refused
         why p1
         +1m connect p1
         +10s force-open b1
         +21s why p1
         connect p2
         +31s reset b1
         revive p1
         connected p1
         revive all
         revive p1"
    ));
}

#[test]
fn whoever_is_revived_dials_a_server_that_asked_to_be_left_alone() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 throttled 60s
         +1s revive p1
         why p1"
    ));
}

#[test]
fn load_relaxes_above_its_bound_and_returns_at_the_lower_one() {
    // Smoothed by a quarter: 80% and 30% to the millionth.
    assert_snapshot!(story(
        plain(),
        "load 100%
         load 100%
         load 100%
         load 100%
         load 100%
         load 911918ppm
         load 800004ppm
         load 0%
         load 0%
         load 0%
         load 187500ppm"
    ));
}

#[test]
fn a_peer_is_not_given_up_for_a_time_without_network() {
    assert_snapshot!(story(
        with(|peer| {
            peer.give_up_after = Some(secs(30));
            peer.dial_timeout = secs(60);
        }),
        "breaker b1
         peer p1 b1
         peer p2 b1
         +10s network down
         +10s connect p1
         +40s network up
         +10s network down
         +60s network up
         +1m why p1"
    ));
}

#[test]
fn a_dial_that_a_new_process_never_made_is_not_timed_out() {
    let mut config = plain();
    config.sleep.max_hold = Duration::ZERO;
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         connect p1
         +20s new-process
         connected p1"
    ));
}

#[test]
fn no_hint_of_a_server_parks_a_peer_for_ever() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         connect p1
         dial-failed p1 throttled 999years
         why p1"
    ));
}

#[test]
fn a_connection_that_came_up_has_left_the_slow_lane() {
    assert_snapshot!(story(
        with(|peer| peer.backoff.cap = secs(2)),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         dial-failed p1 auth
         +1010ms dial-failed p1 auth
         +2010ms dial-failed p1 auth
         +4010ms connected p1
         +1s lost p1 kicked"
    ));
}

#[test]
fn a_probe_that_an_outage_of_ours_cut_off_tells_nothing_about_the_server() {
    let mut config = with(|peer| peer.dial_timeout = secs(3));
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].breaker.tolerate = 0;
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         dial-failed p1 refused
         +2s wait
         sleep 6s
         connect p2
         +100ms network down
         +2400ms network up
         +1s connected p2
         +2s connected p1"
    ));
}

#[test]
fn an_answer_to_a_ping_on_an_earlier_connection_says_nothing_of_the_next_one() {
    assert_snapshot!(story(
        with(|peer| peer.health.signs = Signs::Pings(punctual())),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +11s lost p1 reset
         +1010ms connected p1
         pong g0
         +11s pong p1"
    ));
}

#[test]
fn a_ping_dies_with_its_connection() {
    assert_snapshot!(story(
        with(|peer| peer.health.signs = Signs::Pings(punctual())),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +11s lost p1 reset
         pong c0"
    ));
}

#[test]
fn a_sign_of_life_that_comes_late_brings_on_what_is_due() {
    assert_snapshot!(story(
        plain(),
        "breaker b1
         peer p1 b1
         peer p2 b1
         connect p1
         connect p2
         connected p2
         dial-failed p1 refused
         late 1200ms heard p2"
    ));
}

#[test]
fn a_rhythm_that_becomes_regular_is_held_to_it_at_once() {
    assert_snapshot!(story(
        with(|peer| {
            peer.health.signs = Signs::Heartbeats;
            let config = PhiConfig { threshold_milli: 3_000, clip: false, ..PhiConfig::default() };
            peer.health.detector = Detector::Phi(config);
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +4s heartbeat p1
         +200ms heartbeat p1
         +200ms heartbeat p1
         +200ms heartbeat p1
         +200ms heartbeat p1
         +200ms heartbeat p1
         +200ms heartbeat p1
         +200ms heartbeat p1
         +8s wait"
    ));
}
