//! Time as the manager sees it: a number that the driver hands in.

use core::fmt;
use core::ops::{Add, AddAssign};
use core::time::Duration;

/// A moment: nanoseconds since an epoch of the driver's choice.
///
/// Any monotonic clock will do, and so will a simulated one. All arithmetic saturates, so the end
/// of time ([`Time::MAX`], some 584 years after the epoch) means "never" and is never passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Self = Self(0);
    /// The end of time; as a deadline: never.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the epoch, saturating.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The moment `secs` seconds after the epoch, saturating.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The span since `earlier`; zero if that lies later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `nanos` nanoseconds later, saturating.
    #[must_use]
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// The moment `nanos` nanoseconds earlier, but not before the epoch.
    #[must_use]
    pub const fn minus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }

    /// How far ahead of `now` it lies, as a moment; what has passed is zero, never stays never.
    pub(crate) fn ahead_of(self, now: Self) -> Self {
        if self == Self::MAX { self } else { Self(self.0.saturating_sub(now.0)) }
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        self.plus_nanos(nanos(span))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

/// Seconds with as many decimals as are needed, at least three: `1.250s`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAX {
            return f.pad("never");
        }
        let (secs, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest % 1_000_000 == 0 {
            write!(f, "{secs}.{:03}s", rest / 1_000_000)
        } else if rest % 1_000 == 0 {
            write!(f, "{secs}.{:06}s", rest / 1_000)
        } else {
            write!(f, "{secs}.{rest:09}s")
        }
    }
}

/// A span in nanoseconds, saturating.
#[must_use]
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// One eighth of the way from `old` to `sample`: the smoothing of TCP's round-trip time (RFC 6298).
pub(crate) fn smooth(old: u64, sample: u64) -> u64 {
    let sum = 7 * u128::from(old) + u128::from(sample);
    u64::try_from(sum / 8).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Time::MAX + Duration::MAX, Time::MAX);
        assert_eq!(Time::from_secs(u64::MAX), Time::MAX);
        assert_eq!(Time::ZERO.since(Time::MAX), Duration::ZERO);
    }

    #[test]
    fn what_lies_ahead_is_told_by_how_far_and_never_stays_never() {
        let now = Time::from_secs(3);
        assert_eq!(Time::from_secs(5).ahead_of(now), Time::from_secs(2));
        assert_eq!([now, Time::ZERO].map(|past| past.ahead_of(now)), [Time::ZERO; 2]);
        assert_eq!(Time::MAX.ahead_of(now), Time::MAX);
    }

    #[test]
    fn it_reads_as_seconds() {
        assert_eq!(Time::from_millis(1_250).to_string(), "1.250s");
        assert_eq!(Time::from_nanos(1_000_000_001).to_string(), "1.000000001s");
        assert_eq!(Time::from_nanos(2_000_001_000).to_string(), "2.000001s");
        assert_eq!(Time::MAX.to_string(), "never");
    }
}
