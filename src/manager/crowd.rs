//! How many of those who are up behind one breaker are silent, and what that says.

use crate::config::MassGuardConfig;
use crate::time::Time;

/// What speaks against a connection that is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub(crate) enum Trust {
    /// Nothing.
    #[default]
    Full,
    /// It is on the way to suspicion.
    Doubted {
        /// Since when.
        at: Time,
    },
    /// It would be suspected if not so many others were as silent; it has one more detection time.
    Held {
        /// Since when.
        at: Time,
    },
    /// It has been silent for too long.
    Suspected {
        /// Since when.
        at: Time,
    },
}

impl Trust {
    pub(crate) const fn is_suspected(self) -> bool {
        matches!(self, Self::Suspected { .. })
    }

    pub(crate) const fn since_mut(&mut self) -> Option<&mut Time> {
        match self {
            Self::Full => None,
            Self::Doubted { at } | Self::Held { at } | Self::Suspected { at } => Some(at),
        }
    }
}

/// The connections behind one breaker: 24 bytes, counted by increments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Crowd {
    /// Those that are up.
    pub(crate) up: u32,
    /// Of those, the doubted, the held among them.
    pub(crate) doubted: u32,
    /// Of those, the held.
    pub(crate) held: u32,
    /// Until when a mass silence is believed at once, since one turned out to be true.
    pub(crate) believed_until: Time,
}

impl Crowd {
    /// Takes in a connection that is trusted so far.
    pub(crate) fn join(&mut self, trust: Trust) {
        self.up += 1;
        self.begin(trust);
    }

    /// Takes leave of one.
    pub(crate) fn leave(&mut self, trust: Trust) {
        self.up -= 1;
        self.end(trust);
    }

    pub(crate) fn change(&mut self, from: Trust, to: Trust) {
        self.end(from);
        self.begin(to);
    }

    fn begin(&mut self, trust: Trust) {
        self.doubted += u32::from(matches!(trust, Trust::Doubted { .. } | Trust::Held { .. }));
        self.held += u32::from(matches!(trust, Trust::Held { .. }));
    }

    fn end(&mut self, trust: Trust) {
        self.doubted -= u32::from(matches!(trust, Trust::Doubted { .. } | Trust::Held { .. }));
        self.held -= u32::from(matches!(trust, Trust::Held { .. }));
    }

    /// Whether so many are silent at once that it may be us.
    pub(crate) fn is_mass(&self, guard: &MassGuardConfig, now: Time) -> bool {
        let share = guard.share.of(u64::from(self.up));
        self.up >= guard.min_peers
            && u64::from(self.doubted) > share.max(u64::from(guard.min_silent))
            && now >= self.believed_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ratio::Ratio;

    #[test]
    fn it_may_be_us_once_more_are_silent_than_a_few_and_than_a_share() {
        let (min_peers, min_silent, share) = (4, 2, Ratio::percent(25));
        let guard = MassGuardConfig { min_peers, min_silent, share, ..Default::default() };
        let is_mass = |up, doubted, believed: u64| {
            let believed_until = Time::from_secs(believed);
            let crowd = Crowd { up, doubted, held: 0, believed_until };
            crowd.is_mass(&guard, Time::from_secs(9))
        };
        assert!(is_mass(4, 3, 0) && !is_mass(4, 2, 0), "a few");
        assert!(is_mass(40, 11, 0) && !is_mass(40, 10, 0), "a share");
        assert!(!is_mass(3, 3, 0), "too few in all");
        assert!(is_mass(4, 3, 9) && !is_mass(4, 3, 10), "believed for now");
    }
}
