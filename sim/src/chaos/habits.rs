//! What a seed makes of the drivers: see [`Habits`].

use toml::Spanned;

use super::Chance;
use crate::scenario::{Habits, Scenario};
use crate::units::Share;

/// Gives some worlds drivers that tick when nothing is due, start anew from snapshots, or tell of
/// what is over.
pub(super) fn draw(scenario: &mut Scenario, chance: &mut Chance) {
    let share = |share| Share::new(share).unwrap_or_default();
    let habits = Habits {
        extra_ticks: if chance.once_in(4) { share(0.1) } else { Share::default() },
        // Each goes through text and back.
        restores: if chance.once_in(24) { share(0.005) } else { Share::default() },
        late_facts: if chance.once_in(2) { share(0.9) } else { Share::default() },
    };
    scenario.drivers = Spanned::new(0..0, habits);
}
