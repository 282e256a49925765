//! Managers in the middle of things, to damage.

use std::time::Duration;

use arbitrary::Unstructured;
use steadfast::config::FirstRetry;
use steadfast::strategy::{Act, Address, Op, World};
use steadfast::{Manager, Snapshot};

use crate::{configs, script};

/// How many states there are.
pub(crate) const STATES: u8 = 32;
/// How many of them are crowds with more to do than one step does, the last ones.
const ENDS: u8 = 6;

/// The snapshot of a manager in the middle of things, for each number always the same.
///
/// # Panics
///
/// If a promise is broken on the way there.
#[must_use]
pub fn lively(state: u8) -> Snapshot {
    world(state).manager().snapshot()
}

/// A world in the middle of things.
pub(crate) fn world(state: u8) -> World {
    if let Some(end) = state.checked_sub(STATES - ENDS) {
        return crowd(end);
    }
    let noise = noise(state.into(), 60 + 12 * usize::from(state));
    script::live(configs::varied(), &mut Unstructured::new(&noise)).unwrap().0
}

/// Bytes without a meaning, always the same.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(draw).take(len).collect()
}

/// A world of forty peers, half of whose work after one more event is left.
fn crowd(end: u8) -> World {
    let mut config = configs::varied();
    (config.limits.max_peers, config.limits.max_calls) = (40, 60);
    config.limits.max_work_per_step = 16;
    (config.pacer.max_in_flight, config.pacer.rate) = (30, None);
    config.peer_profiles[1].first_retry = FirstRetry::Immediate;
    config.breaker_profiles[0].window = None;
    config.breaker_profiles[0].max_in_flight = 2;
    config.breaker_profiles[0].calls.bulkhead.max_waiting = 20;
    (config.breaker_profiles[0].calls.rate, config.breaker_profiles[0].breaker.ramp_for) =
        (None, None);
    let mut world = World::new(Manager::new(config, 7).unwrap());
    let mut play = |ms, act| _ = world.play(&Op { after: Duration::from_millis(ms), act });
    let call = |peer| Act::Call { peer, breaker: 0, profile: 0, within: None };
    for breaker in 0..3 {
        play(0, Act::AddBreaker { breaker, profile: 0 });
    }
    for peer in 0..40 {
        let endpoints = [(0, 0), (1, 1)].map(|(id, breaker)| Address { id, breaker }).to_vec();
        play(0, Act::AddPeer { peer, profile: if peer < 30 { 1 } else { 5 }, endpoints });
        play(1, Act::Connect { peer });
        if peer < 20 {
            play(2, Act::Connected { dial: 0, resumed: false });
        }
    }
    for _ in 0..20 {
        play(0, call(None));
        play(0, call(Some(25)));
    }
    match end {
        0 => play(1, Act::Restarted),
        1 => play(1, Act::RemovePeer { peer: 25 }),
        2 => play(1, Act::Connected { dial: 5, resumed: false }),
        3 => play(1, Act::ForceOpen { breaker: 0 }),
        4 => {
            play(1, Act::NetworkDown);
            play(2_000, Act::NetworkUp);
        }
        _ => {
            play(15_000, Act::NetworkDown);
            play(5_000, Act::NetworkUp);
            play(0, Act::Revive { peer: None });
        }
    }
    world.manager().check().unwrap();
    world
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_states_have_something_in_every_table_and_almost_every_list() {
        let mut filled = BTreeSet::new();
        let mut all = BTreeSet::new();
        for state in 0..STATES {
            let tree = crate::tree(&lively(state));
            for (name, table) in tree.as_object().unwrap() {
                let slots = table.get("slots").unwrap_or(table);
                let lists = table.as_object().filter(|_| name == "lists").into_iter().flatten();
                let tables = [(name, slots)].into_iter().filter(|(name, _)| *name != "lists");
                for (name, items) in tables.chain(lists) {
                    let Some(items) = items.as_array() else { continue };
                    all.insert(name.clone());
                    if items.iter().any(|item| !item.is_null()) {
                        filled.insert(name.clone());
                    }
                }
            }
        }
        let empty: Vec<_> = all.difference(&filled).collect();
        assert!(all.len() > 20, "{all:?}");
        // What hardly outlives a step.
        let fleeting = ["asking", "doomed", "failed", "held_back", "woken"];
        assert!(empty.iter().all(|name| fleeting.contains(&name.as_str())), "{empty:?}");
    }
}
