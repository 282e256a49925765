//! The settings that a seed changes: each is left alone twice in three times.
//!
//! Source: `FoundationDB`'s knobs, which its simulator draws with the faults.

use std::str::FromStr;

use toml::Spanned;

use super::Chance;
use crate::policy::{
    BackoffSettings, BreakerSettings, CallSettings, GateSettings, PacerSettings, PeerSettings,
    Settings,
};

pub(super) fn draw(chance: &mut Chance, calls: bool) -> Settings {
    let mut settings = Settings {
        doubts_itself: word(chance, &["false", "true"]),
        peer: peer(chance),
        breaker: breaker(chance),
        pacer: PacerSettings {
            max_in_flight: word(chance, &["1", "3", "16"]),
            rate: word(chance, &["1/s", "5/s", "20/s"]),
            burst: None,
            assumed_rate: word(chance, &["1/s", "10/s", "1000/s"]),
            fleet_size: word(chance, &["2", "50"]),
        },
        ..Settings::default()
    };
    if calls {
        (settings.call, settings.gate) = (call(chance), gate(chance));
    }
    settings
}

/// One of the words, or most times none.
fn word<T: FromStr>(chance: &mut Chance, words: &[&str]) -> Option<T> {
    let word = chance.pick(words).filter(|_| chance.once_in(3));
    word.and_then(|word| word.parse().ok())
}

fn peer(chance: &mut Chance) -> PeerSettings {
    PeerSettings {
        first_retry: word(chance, &["spread(5s)", "backoff", "immediate"]),
        slow_lane: word(chance, &["1", "2"]),
        dial_timeout: word(chance, &["1s", "3s"]),
        failover_timeout: word(chance, &["500ms", "1s"]),
        max_dial_timeout: word(chance, &["5s", "20s"]),
        attempt_delay: word(chance, &["0s", "1s"]),
        stable_after: word(chance, &["0s", "1s", "5s"]),
        max_attempts: None,
        give_up_after: None,
        signs: word(
            chance,
            &[
                "pings(interval=2s, timeout=1s)",
                "pings(interval=5s, timeout=4s)",
                "pings(interval=10s, timeout=2s)",
            ],
        ),
        detector: word(
            chance,
            &["deadline(15s)", "deadline(60s)", "phi(threshold=8, interval=10s)"],
        ),
        on_suspect: word(chance, &["drop", "race"]),
        backoff: backoff(chance, &["100ms", "500ms", "3s"], &["2s", "10s", "30s"]),
    }
}

fn backoff(chance: &mut Chance, bases: &[&str], caps: &[&str]) -> BackoffSettings {
    BackoffSettings {
        base: word(chance, bases),
        factor: word(chance, &["1", "1.5", "3"]),
        cap: word(chance, caps),
        min_delay: word(chance, &["0s", "50ms"]),
        jitter: word(chance, &["none", "full", "equal", "decorrelated", "proportional(20%)"]),
    }
}

fn breaker(chance: &mut Chance) -> BreakerSettings {
    BreakerSettings {
        trip: word(
            chance,
            &["off", "consecutive(1)", "consecutive(2)", "rate(last=10, min=3, failed=50%)"],
        ),
        probes: word(chance, &["1", "2", "8"]),
        close_after: word(chance, &["1", "4"]),
        tolerate: word(chance, &["0", "2"]),
        probe_timeout: word(chance, &["300ms", "2s"]),
        max_in_flight: word(chance, &["1", "2", "8"]),
        rate: word(chance, &["1/s", "5/s", "20/s"]),
        burst: None,
        open_for: backoff(chance, &["200ms", "1s"], &["2s", "5s"]),
    }
}

fn call(chance: &mut Chance) -> CallSettings {
    CallSettings {
        max_attempts: word(chance, &["1", "2", "5"]),
        attempt_timeout: word(chance, &["100ms", "500ms", "3s"]),
        min_attempt: word(chance, &["0s", "50ms"]),
        deadline: word(chance, &["300ms", "2s", "10s"]),
        max_retry_after: None,
        hedged: word(chance, &["true"]),
        backoff: backoff(chance, &["10ms", "100ms"], &["200ms", "1s"]),
    }
}

fn gate(chance: &mut Chance) -> GateSettings {
    let rate = word(chance, &["2/s", "10/s"]);
    let burst = word::<u32>(chance, &["1", "5"]).filter(|_| rate.is_some());
    GateSettings {
        max_concurrent: word(chance, &["1", "3", "10"]),
        max_waiting: word(chance, &["0", "2", "20"]),
        max_wait: word(chance, &["50ms", "1s"]),
        limit: word(chance, &["aimd(initial=2, min=1, max=10)", "aimd(initial=5, latency=200ms)"]),
        rate,
        burst: burst.map(|burst| Spanned::new(0..0, burst)),
        throttle: word(chance, &["acceptance(multiplier=2)"]),
        budget: word(
            chance,
            &[
                "off",
                "earned(ratio=1/5, capacity=5)",
                "earned(ratio=1/10, capacity=10, initial=10)",
            ],
        ),
        hedge_after: word(chance, &["20ms", "200ms"]),
        trip: word(
            chance,
            &[
                "off",
                "consecutive(1)",
                "consecutive(3)",
                "rate(last=20, min=4, failed=50%, slow=50%)",
            ],
        ),
        slow_after: word(chance, &["50ms", "500ms"]),
        probes: word(chance, &["1", "2", "5"]),
        close_after: word(chance, &["1", "2"]),
        tolerate: word(chance, &["0", "1"]),
        probe_timeout: word(chance, &["200ms", "2s"]),
        open_for: backoff(chance, &["200ms", "1s"], &["2s", "10s"]),
    }
}
