//! Settings that change some of the core's and leave the rest.

use serde::{Deserialize, Serialize};
use steadfast::backoff::BackoffConfig;
use steadfast::bucket::{BucketConfig, Rate as CoreRate};
use steadfast::config::{BreakerProfile, PacerConfig, PeerProfile, SleepConfig};
use toml::Spanned;

use super::calls::{CallSettings, GateSettings, OuterSettings};
use super::words::{
    Detector, FirstRetryWord, JitterWord, OnSuspectWord, RatioWord, SignsWord, Trip, set,
};
use crate::scenario::Name;
use crate::units::{Rate, Span};

/// Settings that may be left out.
pub(crate) trait Optional {
    /// Whether all of them are.
    fn is_empty(&self) -> bool;
}

/// Whether there is nothing to write; for serde.
pub(crate) fn is_empty(settings: &impl Optional) -> bool {
    settings.is_empty()
}

/// A struct of optional settings, and how one is laid over another.
macro_rules! settings {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $ty:ty,)*
        $({ $(#[$inner_doc:meta])* $inner:ident: $inner_ty:ty })*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$ty>,)*
            $($(#[$inner_doc])* #[serde(skip_serializing_if = "is_empty")]
            pub $inner: $inner_ty,)*
        }

        impl Optional for $name {
            fn is_empty(&self) -> bool {
                true $(&& self.$field.is_none())* $(&& self.$inner.is_empty())*
            }
        }

        impl $name {
            /// These settings with those of `over` in their place, where there are any.
            #[must_use]
            pub fn overlaid(&self, over: &Self) -> Self {
                Self {
                    $($field: over.$field.clone().or_else(|| self.$field.clone()),)*
                    $($inner: self.$inner.overlaid(&over.$inner),)*
                }
            }
        }
    };
}

pub(super) use settings;

settings! {
    /// A policy: what differs from the built-in one of its name, or of the one named `base`, or
    /// from the core's defaults.
    Settings {
        /// The policy that it starts from, if that has another name.
        base: Name,
        /// Whether the client knows how many handshakes a second its servers can do, and keeps to
        /// its share of them.
        told: bool,
        /// Whether it doubts its own judgement: its health, a silence of many at once, a refusal for a
        /// peer's own fault that one after the other gets.
        doubts_itself: bool,
        /// Whether the client makes another connection when a server says that it will go; one that
        /// does not stays until it is thrown out.
        drains: bool,
        /// Whether the client listens to its host: that there is no network, or another one, or that the
        /// app is in the background. One that does not goes on as if nothing were.
        network: bool,
        {
            /// How peers are dialed and watched.
            peer: PeerSettings
        }
        {
            /// How breakers work.
            breaker: BreakerSettings
        }
        {
            /// How calls are tried.
            call: CallSettings
        }
        {
            /// What calls pass on their way.
            gate: GateSettings
        }
        {
            /// A retry layer around them.
            outer: OuterSettings
        }
        {
            /// What bounds dials over all breakers together.
            pacer: PacerSettings
        }
        {
            /// What happens when the process slept.
            sleep: SleepSettings
        }
    }
}

settings! {
    /// Settings of peers; see the core's `PeerProfile`.
    PeerSettings {
        /// When a peer tries again after the loss of a stable connection.
        first_retry: FirstRetryWord,
        /// How many times longer the cap of the delay is after a failure of the peer's own.
        slow_lane: u32,
        /// How long a dial may take.
        dial_timeout: Span,
        /// How long it may take while another endpoint is left.
        failover_timeout: Span,
        /// How long it may take at most, when it grows with the backoff.
        max_dial_timeout: Span,
        /// The pause before the next endpoint.
        attempt_delay: Span,
        /// After how long a connection counts as stable.
        stable_after: Span,
        /// Failed rounds after which it is given up.
        max_attempts: u32,
        /// Time after which it is given up.
        give_up_after: Span,
        /// Where signs of life come from.
        signs: SignsWord,
        /// How silence is judged.
        detector: Detector,
        /// What to do then.
        on_suspect: OnSuspectWord,
        {
            /// The delay after each failed round.
            backoff: BackoffSettings
        }
    }
}

settings! {
    /// A growing delay; see the core's `BackoffConfig`.
    BackoffSettings {
        /// The first delay.
        base: Span,
        /// By what it grows.
        factor: RatioWord,
        /// What no wait exceeds.
        cap: Span,
        /// The floor of full jitter.
        min_delay: Span,
        /// How chance spreads it.
        jitter: JitterWord,
    }
}

settings! {
    /// Settings of breakers; see the core's `BreakerProfile`.
    BreakerSettings {
        /// When it opens.
        trip: Trip,
        /// How many probes are out at once.
        probes: u32,
        /// How many successes close it.
        close_after: u32,
        /// How many failed probes are put up with.
        tolerate: u32,
        /// When a probe without an answer has failed.
        probe_timeout: Span,
        /// Dials in flight at once; with it the bound is given and not found out.
        max_in_flight: u32,
        /// Dials per second.
        rate: Rate,
        /// How many may come at once, with `rate`.
        burst: Spanned<u32>,
        {
            /// How long it stays open.
            open_for: BackoffSettings
        }
    }
}

settings! {
    /// What bounds dials over all breakers; see the core's `PacerConfig`.
    PacerSettings {
        /// Dials in flight at once.
        max_in_flight: u32,
        /// Dials per second.
        rate: Rate,
        /// How many may come at once, with `rate`.
        burst: Spanned<u32>,
        /// From which rate the first retries are spread when none is told.
        assumed_rate: Rate,
        /// How many managers like this one share the servers, as far as the client knows.
        fleet_size: u32,
    }
}

settings! {
    /// What happens when the process slept; see the core's `SleepConfig`.
    SleepSettings {
        /// Lateness from which it counts as asleep.
        late_after: Span,
        /// For how long judgement then holds at most.
        max_hold: Span,
    }
}

impl PeerSettings {
    /// A profile of that name, with these settings.
    pub(super) fn profile(&self, name: &str) -> PeerProfile {
        let mut profile = PeerProfile { name: name.to_owned(), ..PeerProfile::default() };
        self.apply(&mut profile);
        profile
    }

    pub(crate) fn apply(&self, to: &mut PeerProfile) {
        self.backoff.apply(&mut to.backoff);
        set(&mut to.first_retry, self.first_retry.map(|word| word.0));
        set(&mut to.slow_lane, self.slow_lane);
        set(&mut to.dial_timeout, self.dial_timeout);
        set(&mut to.failover_timeout, self.failover_timeout);
        set(&mut to.max_dial_timeout, self.max_dial_timeout);
        set(&mut to.attempt_delay, self.attempt_delay);
        set(&mut to.stable_after, self.stable_after);
        to.max_attempts = self.max_attempts.or(to.max_attempts);
        to.give_up_after = self.give_up_after.map(Into::into).or(to.give_up_after);
        set(&mut to.health.signs, self.signs.map(|word| word.0));
        set(&mut to.health.detector, self.detector.map(|word| word.0));
        set(&mut to.health.on_suspect, self.on_suspect.map(|word| word.0));
    }
}

impl BackoffSettings {
    pub(crate) fn apply(&self, to: &mut BackoffConfig) {
        set(&mut to.base, self.base);
        set(&mut to.factor, self.factor.map(|word| word.0));
        set(&mut to.cap, self.cap);
        to.min_delay = self.min_delay.map(Into::into).or(to.min_delay);
        set(&mut to.jitter, self.jitter.map(|word| word.0));
    }
}

impl BreakerSettings {
    /// A profile of that name, with these settings.
    pub(super) fn profile(&self, name: &str) -> BreakerProfile {
        let mut to = BreakerProfile { name: name.to_owned(), ..BreakerProfile::default() };
        self.apply(&mut to);
        to
    }

    pub(crate) fn apply(&self, to: &mut BreakerProfile) {
        if let Some(trip) = self.trip {
            (to.breaker.consecutive_failures, to.breaker.rates) = trip.rules();
        }
        self.open_for.apply(&mut to.breaker.open_for);
        set(&mut to.breaker.probes, self.probes);
        set(&mut to.breaker.close_after, self.close_after);
        set(&mut to.breaker.tolerate, self.tolerate);
        to.breaker.probe_timeout = self.probe_timeout.map(Into::into).or(to.breaker.probe_timeout);
        if let Some(max_in_flight) = self.max_in_flight {
            (to.max_in_flight, to.window) = (max_in_flight, None);
        }
        to.rate = bucket(self.rate, self.burst.as_ref()).or(to.rate);
    }
}

impl PacerSettings {
    pub(crate) fn apply(&self, to: &mut PacerConfig) {
        set(&mut to.max_in_flight, self.max_in_flight);
        to.rate = bucket(self.rate, self.burst.as_ref()).or(to.rate);
        set(&mut to.assumed_rate, self.assumed_rate.map(core_rate));
        set(&mut to.fleet_size, self.fleet_size);
    }
}

impl SleepSettings {
    pub(crate) fn apply(&self, to: &mut SleepConfig) {
        set(&mut to.late_after, self.late_after);
        set(&mut to.max_hold, self.max_hold);
    }
}

pub(super) fn core_rate(rate: Rate) -> CoreRate {
    CoreRate { count: rate.count, per: rate.per.into() }
}

pub(super) fn bucket(rate: Option<Rate>, burst: Option<&Spanned<u32>>) -> Option<BucketConfig> {
    let mut bucket = BucketConfig { rate: core_rate(rate?), ..BucketConfig::default() };
    set(&mut bucket.burst, burst.map(|burst| *burst.get_ref()));
    Some(bucket)
}
