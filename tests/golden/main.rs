//! Golden timelines: what the manager does, told as stories: scripts in, and what came of them beside
//! each line. To change one on purpose: `INSTA_UPDATE=always cargo test --test golden`, and read what
//! changed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod calls;
mod connections;
mod health;
mod reconnect;
mod render;
mod story;
mod text;

use std::time::Duration;

use steadfast::Config;
use steadfast::backoff::Jitter;
use steadfast::config::FirstRetry;

/// The timeline of a script.
fn story(config: Config, script: &str) -> String {
    story::play(config, script).0
}

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
