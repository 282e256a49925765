//! Groups of breakers, of which only a share may be open at once.

use crate::breaker::State;
use crate::config::Mode;
use crate::manager::Manager;

/// How many breakers a group has, and how many of them are not closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) members: u32,
    pub(crate) open: u32,
}

impl Group {
    pub(crate) fn join(&mut self, state: State) {
        self.members += 1;
        self.open += u32::from(is_open(state));
    }

    pub(crate) fn leave(&mut self, state: State) {
        self.members -= 1;
        self.open -= u32::from(is_open(state));
    }
}

/// Whether it counts as open, half-open included.
pub(crate) const fn is_open(state: State) -> bool {
    matches!(state, State::Open { .. } | State::HalfOpen | State::ForcedOpen)
}

impl Manager {
    /// The group of a breaker with that profile.
    pub(crate) fn group_of(&mut self, profile: u16) -> Option<&mut Group> {
        self.groups.get_mut(self.policies.breaker(profile).group?)
    }

    /// Counts the members anew.
    pub(crate) fn count_groups(&mut self) {
        self.groups.fill(Group::default());
        for (_, record) in self.breakers.slab.iter() {
            let place = self.policies.breaker(record.profile).group;
            if let Some(group) = place.and_then(|place| self.groups.get_mut(place)) {
                group.join(record.breaker.state());
            }
        }
    }

    /// Which of the breaker's thresholds are in force.
    pub(crate) fn mode(&self, breaker: u32) -> Mode {
        let record = &self.breakers.slab[breaker];
        let held = self.policies.breaker(record.profile).group.is_some_and(|place| {
            let group = self.groups.get(place).copied().unwrap_or_default();
            let rule = self.policies.config.breaker_groups.get(place);
            !is_open(record.breaker.state())
                && rule.is_some_and(|rule| !rule.has_room(group.open, group.members))
        });
        Mode { relaxed: self.load.relaxed, held }
    }
}
