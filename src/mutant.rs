//! Bugs on purpose, to see whether the simulator's rules catch them.
//!
//! Each is one that the field has had: a rule that catches none of these would prove nothing. Only a
//! build with the private feature `__mutants` has them; in any other `Mutant::lives` is `false`, for
//! good and at compile time.

/// A bug that can be let loose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// A breaker that closes wakes nobody who waits for it.
    LostWakeUp = 1,
    /// A probe whose dial is called off keeps its permit.
    LeakedProbe,
    /// A probe that is never answered has no time limit.
    NoProbeTimeout,
    /// Any connection forgives all failures, one that lasts a moment too.
    ForgivenOnConnect,
    /// Jitter comes before the cap, so that all long waits are the cap.
    JitterBeforeCap,
    /// Nothing bounds the dials in flight.
    NoPacer,
    /// A peer that waits is forgotten when its endpoints change.
    ForgottenWaiter,
    /// An answer to a dial that is gone counts for the one in its place.
    StaleDial,
    /// Timers fire a nanosecond late.
    LateTimer,
    /// Who is removed is still counted.
    StatsDrift,
    /// A retry budget earns on failures too.
    EarnsOnFailure,
    /// Who slept blames others for it.
    IgnoredPause,
    /// A restored manager does not know of the dials that are in flight.
    ForgottenFlight,
    /// A half-open breaker admits one probe too many.
    ExtraProbe,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::LostWakeUp,
        Self::LeakedProbe,
        Self::NoProbeTimeout,
        Self::ForgivenOnConnect,
        Self::JitterBeforeCap,
        Self::NoPacer,
        Self::ForgottenWaiter,
        Self::StaleDial,
        Self::LateTimer,
        Self::StatsDrift,
        Self::EarnsOnFailure,
        Self::IgnoredPause,
        Self::ForgottenFlight,
        Self::ExtraProbe,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LostWakeUp => "lost-wake-up",
            Self::LeakedProbe => "leaked-probe",
            Self::NoProbeTimeout => "no-probe-timeout",
            Self::ForgivenOnConnect => "forgiven-on-connect",
            Self::JitterBeforeCap => "jitter-before-cap",
            Self::NoPacer => "no-pacer",
            Self::ForgottenWaiter => "forgotten-waiter",
            Self::StaleDial => "stale-dial",
            Self::LateTimer => "late-timer",
            Self::StatsDrift => "stats-drift",
            Self::EarnsOnFailure => "earns-on-failure",
            Self::IgnoredPause => "ignored-pause",
            Self::ForgottenFlight => "forgotten-flight",
            Self::ExtraProbe => "extra-probe",
        }
    }

    /// What it does.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::LostWakeUp => "a breaker that closes wakes nobody who waits for it",
            Self::LeakedProbe => "a probe whose dial is called off keeps its permit",
            Self::NoProbeTimeout => "a probe that is never answered has no time limit",
            Self::ForgivenOnConnect => "any connection forgives all failures",
            Self::JitterBeforeCap => "jitter comes before the cap, so long waits are all the cap",
            Self::NoPacer => "nothing bounds the dials in flight",
            Self::ForgottenWaiter => "a peer that waits is forgotten when its endpoints change",
            Self::StaleDial => "an answer to a dial that is gone counts for the one in its place",
            Self::LateTimer => "timers fire a nanosecond late",
            Self::StatsDrift => "who is removed is still counted",
            Self::EarnsOnFailure => "a retry budget earns on failures too",
            Self::IgnoredPause => "who slept blames others for it",
            Self::ForgottenFlight => "a restored manager knows of no dials in flight",
            Self::ExtraProbe => "a half-open breaker admits one probe too many",
        }
    }

    /// Whether the bug is loose, in all managers of this process.
    #[inline]
    #[cfg(feature = "__mutants")]
    pub(crate) fn lives(self) -> bool {
        LOOSE.load(core::sync::atomic::Ordering::Relaxed) == self as u8
    }

    /// Never.
    #[inline]
    #[cfg(not(feature = "__mutants"))]
    pub(crate) const fn lives(self) -> bool {
        let _ = self;
        false
    }
}

#[cfg(feature = "__mutants")]
static LOOSE: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Lets a bug loose in this process, in place of the one before, or none; `false` in a build that has
/// none.
#[must_use]
#[cfg(feature = "__mutants")]
pub fn let_loose(mutant: Option<Mutant>) -> bool {
    let number = mutant.map_or(0, |mutant| mutant as u8);
    LOOSE.store(number, core::sync::atomic::Ordering::Relaxed);
    true
}

/// Lets a bug loose; `false`, since this build has none.
#[must_use]
#[cfg(not(feature = "__mutants"))]
pub const fn let_loose(mutant: Option<Mutant>) -> bool {
    let _ = mutant;
    false
}
