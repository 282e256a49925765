//! Doubt: about peers, about servers, and about ourselves.

use std::time::Duration;

use insta::assert_snapshot;
use steadfast::Config;
use steadfast::bucket::{BucketConfig, Rate};
use steadfast::config::{Detector, MassGuardConfig, OnSuspect, PeerProfile, Signs};
use steadfast::phi::PhiConfig;
use steadfast::probe::ProbeConfig;

use crate::story;
use crate::story::play;
use crate::{plain, secs};

/// [`plain`], with heartbeats, and something changed in its one peer profile.
fn with(change: impl FnOnce(&mut PeerProfile)) -> Config {
    let mut config = plain();
    config.peer_profiles[0].health.signs = Signs::Heartbeats;
    change(&mut config.peer_profiles[0]);
    config
}

/// [`with`], and a guard that takes two of three for many.
fn guarded(change: impl FnOnce(&mut PeerProfile)) -> Config {
    let mut config = with(change);
    let (min_peers, min_silent) = (3, 1);
    config.mass_guard = Some(MassGuardConfig { min_peers, min_silent, ..Default::default() });
    config
}

const THREE: &str = "breaker b1
     peer p1 b1
     peer p2 b1
     peer p3 b1
     connect p1
     connect p2
     connect p3
     connected p1
     connected p2
     connected p3
     ";

#[test]
fn an_expired_certificate_is_nobodys_own_fault_once_three_have_met_it() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(2);
    config.peer_profiles[0].backoff.cap = secs(2);
    config.peer_profiles[0].max_attempts = Some(2);
    let (timeline, manager) = play(
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
         +10ms dial-failed p1 tls
         dial-failed p2 tls
         dial-failed p3 tls
         dial-failed p4 tls
         why p4
         +1010ms dial-failed p2 tls
         dial-failed p3 tls
         why p3
         +2s connected p1
         connected p4
         +1s dial-failed p2 tls
         why p2",
    );
    assert_eq!(manager.stats().common_refusals, 1);
    assert_snapshot!(timeline);
}

#[test]
fn who_was_refused_like_all_others_was_not_refused_for_reasons_of_its_own() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(2);
    config.peer_profiles[0].backoff.cap = secs(2);
    config.peer_profiles[0].max_attempts = Some(2);
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
         +10ms dial-failed p1 tls
         dial-failed p2 tls
         dial-failed p3 tls
         dial-failed p4 tls
         +1010ms dial-failed p2 tls
         dial-failed p4 tls
         +2s connected p1
         +1s dial-failed p4 refused
         why p4"
    ));
}

#[test]
fn where_bad_passwords_are_usual_they_are_nobody_elses_trouble() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
    config.breaker_profiles[0].common_refusals = false;
    config.peer_profiles[0].max_attempts = Some(2);
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         peer p2 b1
         peer p3 b1
         connect p1
         connect p2
         connect p3
         +10ms dial-failed p1 auth
         dial-failed p2 auth
         dial-failed p3 auth
         why p3
         +30s wait"
    ));
}

#[test]
fn a_password_of_ones_own_is_ones_own_fault_as_long_as_others_get_in() {
    let mut config = plain();
    config.breaker_profiles[0].breaker.consecutive_failures = Some(1);
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
         dial-failed p1 auth
         dial-failed p2 auth
         connected p4
         dial-failed p3 auth
         +1010ms dial-failed p1 auth
         disconnect p4
         connect p4
         connected p4
         dial-failed p2 auth
         dial-failed p3 auth"
    ));
}

#[test]
fn a_silence_is_doubted_before_it_is_suspected() {
    assert_snapshot!(story(
        with(|_| ()),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +5s heartbeat p1
         +25s heartbeat p1
         +30s wait
         +1s wait"
    ));
}

#[test]
fn doubts_are_kept_to_ourselves_where_the_profile_says_so() {
    assert_snapshot!(story(
        with(|peer| {
            peer.health.tell_doubts = false;
            peer.health.on_suspect = OnSuspect::Notify;
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +25s heartbeat p1
         +31s wait"
    ));
}

#[test]
fn one_who_answers_no_ping_is_suspected_at_once_and_not_after_its_silence() {
    assert_snapshot!(story(
        asked_once_a_minute(),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +25s wait"
    ));
}

#[test]
fn one_looked_at_again_while_judgement_holds_is_suspected_when_that_ends() {
    // Doubted by a fact that came late, and looked at again by the change of network.
    assert_snapshot!(story(
        asked_once_a_minute(),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +19s pass
         late 1250ms load 1%
         late 2s load 2%
         network changed
         +3s wait"
    ));
}

/// There is no second token for a ping while a story lasts.
fn asked_once_a_minute() -> Config {
    let mut config = with(|peer| {
        let pings = ProbeConfig { unhealthy_threshold: 1, spread: false, ..ProbeConfig::default() };
        peer.health.signs = Signs::Pings(pings);
        peer.health.detector = Detector::Deadline(secs(300));
        peer.health.on_suspect = OnSuspect::Notify;
    });
    config.ping_rate = Some(BucketConfig { rate: Rate { count: 1, per: secs(60) }, burst: 1 });
    config
}

#[test]
fn phi_doubts_at_three_and_half_the_pause() {
    assert_snapshot!(story(
        with(|peer| peer.health.detector = Detector::Phi(PhiConfig::default())),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +1s heartbeat p1
         +1s heartbeat p1
         +1s heartbeat p1
         +1s heartbeat p1
         +6s wait"
    ));
}

#[test]
fn the_pause_before_a_suspicion_is_no_part_of_the_rhythm() {
    let beats = |n: usize| "+1s heartbeat p1\n".repeat(n);
    let config = with(|peer| {
        peer.health.detector = Detector::Phi(PhiConfig::default());
        peer.health.on_suspect = OnSuspect::Notify;
    });
    let script = "breaker b1\npeer p1 b1\nconnect p1\nconnected p1\n".to_owned()
        + &beats(8)
        + "+30s heartbeat p1\n"
        + &beats(8)
        + "+30s wait";
    assert_snapshot!(story(config, &script));
}

#[test]
fn an_observer_that_was_cut_off_loses_nobody() {
    assert_snapshot!(story(
        guarded(|_| ()),
        &format!(
            "{THREE}+1s heartbeat p1
             +1s heartbeat p2
             +1s heartbeat p3
             +40s heartbeat p1
             heartbeat p2
             heartbeat p3
             +10s wait"
        )
    ));
}

#[test]
fn a_dead_region_is_found_after_twice_the_time_once() {
    let (timeline, manager) = play(
        guarded(|peer| peer.health.on_suspect = OnSuspect::Notify),
        &format!(
            "{THREE}+1s heartbeat p1
             +1s heartbeat p2
             +1s heartbeat p3
             +70s heartbeat p1
             heartbeat p2
             heartbeat p3
             +31s wait"
        ),
    );
    let stats = manager.stats();
    assert_eq!([stats.mass_suspicions, stats.held], [1, 3]);
    assert_snapshot!(timeline);
}

#[test]
fn a_new_process_forgets_nobody_that_was_held() {
    assert_snapshot!(story(guarded(|_| ()), &format!("{THREE}+35s new-process\n+1s why p1")));
}

#[test]
fn among_many_who_are_silent_each_is_pinged_before_it_is_dropped() {
    let pings = ProbeConfig { spread: false, unhealthy_threshold: 1, ..ProbeConfig::default() };
    assert_snapshot!(story(
        guarded(|peer| peer.health.signs = Signs::Pings(pings)),
        &format!("{THREE}+25s pong p1\n+60s wait")
    ));
}

#[test]
fn mistaken_verdicts_make_us_doubt_ourselves() {
    let mut config = with(|peer| peer.health.on_suspect = OnSuspect::Notify);
    config.self_health.as_mut().unwrap().min_mistakes = 1;
    assert_snapshot!(story(
        config,
        &format!(
            "{THREE}+30s wait
             +500ms heartbeat p1
             heartbeat p2
             heartbeat p3
             +45s wait"
        )
    ));
}

#[test]
fn whoever_comes_late_is_more_patient_with_others_for_a_while() {
    assert_snapshot!(story(
        with(|peer| peer.health.detector = Detector::Deadline(secs(8))),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +5s heartbeat p1
         sleep 3s
         +20s wait
         connected p1
         +30s wait"
    ));
}

#[test]
fn pings_of_those_who_came_up_together_are_spread_over_the_interval() {
    assert_snapshot!(story(
        with(|peer| peer.health.signs = Signs::Pings(ProbeConfig::default())),
        &format!(
            "{THREE}+10s wait
             pong p1
             pong p2
             pong p3
             +10s wait"
        )
    ));
}

#[test]
fn pings_beyond_the_budget_wait_and_nobody_is_blamed_for_it() {
    let pings = ProbeConfig { spread: false, ..ProbeConfig::default() };
    let mut config = with(|peer| {
        peer.health.signs = Signs::Pings(pings);
        peer.health.detector = Detector::Deadline(secs(25));
    });
    config.ping_rate = Some(BucketConfig { rate: Rate { count: 1, per: secs(9) }, burst: 1 });
    assert_snapshot!(story(
        config,
        &format!(
            "{THREE}+10s wait
             pong p1
             +10s pong p2
             +9s wait
             heard p3
             +60s wait"
        )
    ));
}

#[test]
fn who_speaks_while_its_ping_waits_for_our_budget_is_not_asked_any_more() {
    let mut config = with(|peer| {
        let pings = ProbeConfig { spread: false, ..ProbeConfig::default() };
        peer.health.signs = Signs::Pings(pings);
    });
    config.ping_rate = Some(BucketConfig { rate: Rate { count: 1, per: secs(9) }, burst: 1 });
    assert_snapshot!(story(
        config,
        &format!(
            "{THREE}disconnect p3
             +10001ms pong p1
             +2s heard p2
             +9s wait"
        )
    ));
}

#[test]
fn gaps_between_pongs_are_a_rhythm_where_nothing_was_heard_in_between() {
    let config = with(|peer| {
        let pings = ProbeConfig { spread: false, ..ProbeConfig::default() };
        peer.health.signs = Signs::Pings(pings);
        let expected_interval = secs(10);
        peer.health.detector =
            Detector::Phi(PhiConfig { expected_interval, ..PhiConfig::default() });
    });
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +10200ms pong p1
         +10200ms pong p1
         +5s heard p1
         +10200ms pong p1
         +5s heard p1
         +10200ms pong p1
         +10200ms pong p1
         +50s wait"
    ));
}

#[test]
fn who_must_answer_a_ping_is_sent_one_however_much_it_talks() {
    let pings = ProbeConfig {
        interval: secs(10),
        timeout: secs(2),
        unhealthy_threshold: 1,
        spread: false,
        ..ProbeConfig::default()
    };
    let mut config = with(|peer| {
        peer.health.signs = Signs::Pings(pings);
        peer.health.on_suspect = OnSuspect::Notify;
    });
    config.mass_guard = None;
    config.ping_rate = Some(BucketConfig { rate: Rate { count: 1, per: secs(5) }, burst: 1 });
    assert_snapshot!(story(
        config,
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +12100ms heard p1
         +1s heard p1
         +1s heard p1
         +1s heard p1
         +1s pong p1"
    ));
}

#[test]
fn a_peer_is_degraded_beyond_its_limits_and_recovers_well_within_them() {
    assert_snapshot!(story(
        with(|peer| {
            peer.health.max_latency = Some(Duration::from_millis(100));
            peer.health.max_loss = Some(50_000);
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         metrics p1 100ms 5%
         metrics p1 101ms 5%
         metrics p1 80ms 4%
         metrics p1 80ms 4%
         +1s metrics p1 20ms 0%
         metrics p1 20ms 0%
         metrics p1 20ms 0%
         metrics p1 20ms 0%
         metrics p1 20ms 60%
         metrics p1 20ms 60%
         lost p1 reset
         +2s connected p1
         metrics p1 80ms 4%
         metrics p1 100ms 5%"
    ));
}

#[test]
fn the_round_trip_of_a_ping_measures_its_peer_and_a_late_answer_does_not() {
    let pings = ProbeConfig { spread: false, ..ProbeConfig::default() };
    assert_snapshot!(story(
        with(|peer| {
            peer.health.signs = Signs::Pings(pings);
            peer.health.max_latency = Some(Duration::from_millis(100));
        }),
        "breaker b1
         peer p1 b1
         connect p1
         connected p1
         +10200ms pong g0
         +25100ms pong g0.1"
    ));
}
