//! Golden timelines of doubt: about peers, about servers, and about ourselves. To change one on
//! purpose: `INSTA_UPDATE=always cargo test --test golden_health`, and read what changed.
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
use steadfast::config::FirstRetry;
use story::story;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The defaults without jitter, so that times are round.
fn plain() -> Config {
    let mut config = Config::new(1);
    config.peer_profiles[0].backoff.jitter = Jitter::None;
    config.peer_profiles[0].first_retry = FirstRetry::Immediate;
    config.breaker_profiles[0].breaker.open_for.jitter = Jitter::None;
    config
}

#[test]
fn an_expired_certificate_is_nobodys_own_fault_once_three_have_met_it() {
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
         why p4
         +1010ms dial-failed p2 tls
         dial-failed p3 tls
         why p3
         +2s connected p1
         connected p4
         +1s dial-failed p2 tls
         why p2"
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
