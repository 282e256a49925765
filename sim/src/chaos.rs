//! Chaos: what goes wrong, and under which settings, drawn by the seed.
//!
//! Each seed switches about half of the kinds of faults off and draws a few of the others, changes
//! some of the policy's settings, and gives the driver odd habits (swarm testing: a run that may do
//! everything does a little of it all, and the rare corners stay dark). The result is a scenario
//! like any other, with every fault spelled out: it can be printed, run by itself, and made smaller.
//!
//! A run has two halves. While faults come and go, only rules must hold. Then all of them heal, but
//! for some that never do: a server that is gone, a way on which nothing gets through. Whoever has
//! another way, the *core*, must be connected within the bound that policy and world promise; a world
//! in which everything heals at once would hide those who wait for the wrong one.
//!
//! Source: A. Groce et al., Swarm Testing, ISSTA 2012; the two halves from `TigerBeetle`'s simulator.

mod faults;
mod habits;
mod settings;

use rand_pcg::Pcg64Dxsm;
use rand_pcg::rand_core::Rng;
use toml::Spanned;

use crate::draws::{Draws, Purpose};
use crate::plan::Plan;
use crate::scenario::{Scenario, ScenarioError};
use crate::units::Span;

/// The highest level.
pub(crate) const HOSTILE: u32 = 3;

/// How often settings that make no sense together are drawn anew.
const TRIES: u64 = 16;
/// What a scenario goes on for after the moment at which all must be well.
const REST: Span = Span::from_secs(20);

/// The scenario with everything that `seed` draws written into it, and no chaos left; and its plan.
///
/// # Errors
///
/// A policy that makes no sense here.
pub(crate) fn materialised(
    scenario: &Scenario,
    policy: &str,
    seed: u64,
) -> Result<(Scenario, Plan), ScenarioError> {
    let level = scenario.chaos.as_ref().map_or(0, |chaos| *chaos.level.get_ref());
    let mut whole = Scenario { chaos: None, ..scenario.clone() };
    if level == 0 {
        let plan = Plan::new(&whole, policy)?;
        return Ok((whole, plan));
    }
    let duration = *scenario.duration.get_ref();
    let span = scenario.chaos.as_ref().and_then(|chaos| chaos.span.as_ref());
    let half = Span::from_nanos(duration.as_nanos() / 2);
    let span = span.map_or(half, |span| *span.get_ref());
    // What is expected of the plain outage is not of this one.
    whole.expect.clear();
    whole.highest_load = None;
    for calls in whole.calls.values_mut() {
        calls.until = calls.until.or(Some(duration));
    }
    let chance = |what, n| Chance(Draws::new(seed).generator(Purpose::Chaos, what, n));
    faults::draw(&mut whole, level, span, &mut chance(0, 0));
    habits::draw(&mut whole, &mut chance(1, 0));
    let own = whole.policies.get(policy).cloned();
    let mut planned = None;
    for n in 0..TRIES {
        let drawn = settings::draw(&mut chance(2, n), !whole.calls.is_empty());
        let over = own.clone().unwrap_or_default().overlaid(&drawn);
        whole.policies.insert(Spanned::new(0..0, policy.to_owned()), over);
        planned = Plan::new(&whole, policy).ok();
        if planned.is_some() {
            break;
        }
    }
    let mut plan = match planned {
        Some(plan) => plan,
        None => {
            whole.policies.remove(policy);
            if let Some(own) = own {
                whole.policies.insert(Spanned::new(0..0, policy.to_owned()), own);
            }
            Plan::new(&whole, policy)?
        }
    };
    let bounds = plan.groups.iter().filter_map(|group| plan.liveness(group));
    let bound = bounds.map(|bound| bound.total().as_nanos()).max().unwrap_or(0);
    let end = plan.heal.as_nanos().saturating_add(bound).saturating_add(REST.as_nanos());
    let end = Span::from_nanos(end).rounded_up(Span::from_secs(1));
    plan.duration = end.max(duration);
    whole.duration = Spanned::new(0..0, plan.duration);
    Ok((whole, plan))
}

/// Draws one after the other.
struct Chance(Pcg64Dxsm);

impl Chance {
    /// From `low` to `high`, both included.
    fn within(&mut self, low: u64, high: u64) -> u64 {
        steadfast::draw::uniform(self.0.next_u64(), low, high)
    }

    /// Once in so many.
    fn once_in(&mut self, times: u64) -> bool {
        self.within(1, times) == 1
    }

    /// One of them, all alike; `None` of none.
    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let last = all.len().checked_sub(1)? as u64;
        all.get(usize::try_from(self.within(0, last)).unwrap_or(0))
    }

    /// A span of whole milliseconds; each octave between the two is as likely as another.
    fn span(&mut self, low_ms: u64, high_ms: u64) -> Span {
        let octaves = u64::from((high_ms / low_ms.max(1)).max(1).ilog2());
        let from = low_ms.max(1) << self.within(0, octaves);
        let millis = self.within(from, from.saturating_mul(2)).min(high_ms);
        Span::from_nanos(millis * 1_000_000)
    }
}
