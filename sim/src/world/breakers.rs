//! Breakers as their notices tell of them, each found by its place and not by its name: in a fleet
//! there is one for each peer, and every dial asks for its own.

use std::collections::BTreeMap;

use steadfast::{BreakerId, Time};

use crate::plan::Plan;

/// A breaker as seen through notices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BreakerView {
    /// Which half-open period it is in; 0 in none.
    pub(super) half_open: u32,
    pub(super) periods: u32,
    /// Dials out that this period admitted.
    pub(super) dials: u32,
    /// Whether its manager has it.
    is_known: bool,
    /// When it last moved.
    pub(super) moved_at: Time,
}

/// All breakers of a world.
#[derive(Debug)]
pub(super) struct Breakers<'a> {
    plan: &'a Plan,
    /// Those that guard dials, by group and place.
    dials: Vec<Vec<BreakerView>>,
    /// Those that guard calls.
    calls: BTreeMap<(usize, BreakerId), BreakerView>,
}

impl<'a> Breakers<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let views = |group: &crate::plan::Group| {
            vec![BreakerView::default(); group.breaker_places(plan.managers)]
        };
        let dials = plan.groups.iter().map(views).collect();
        Self { plan, dials, calls: BTreeMap::new() }
    }

    /// Adds one that guards dials; whether there was none of that name.
    pub(super) fn add(&mut self, manager: usize, breaker: BreakerId) -> bool {
        let view = self.get_mut(manager, breaker);
        view.is_some_and(|view| !std::mem::replace(&mut view.is_known, true))
    }

    /// Adds one that guards calls; whether there was none of that name.
    pub(super) fn add_of_calls(&mut self, manager: usize, breaker: BreakerId) -> bool {
        self.calls.insert((manager, breaker), BreakerView::default()).is_none()
    }

    pub(super) fn get_mut(
        &mut self,
        manager: usize,
        breaker: BreakerId,
    ) -> Option<&mut BreakerView> {
        for (group, views) in self.plan.groups.iter().zip(&mut self.dials) {
            if let Some(place) = group.breaker_place(manager, breaker) {
                return views.get_mut(place);
            }
        }
        self.calls.get_mut(&(manager, breaker))
    }

    /// Since when each half-open breaker is: of those that guard dials by group and place, of the
    /// others in any order.
    pub(super) fn half_open_since(&self) -> (Vec<Vec<Option<Time>>>, Vec<Time>) {
        let since = |view: &BreakerView| (view.half_open > 0).then_some(view.moved_at);
        let dials = self.dials.iter().map(|views| views.iter().map(since).collect()).collect();
        (dials, self.calls.values().filter_map(since).collect())
    }
}
