//! From a snapshot back to a manager.

use alloc::format;
use alloc::string::ToString;

use crate::container::list::Lists;
use crate::container::map::{Map, Named};
use crate::container::slab::Slab;
use crate::digest::Digest;
use crate::manager::Manager;
use crate::manager::breakers::{HELD_BACK, RING};
use crate::manager::calls::{self, DOOMED, MOVING, RELEASED, bound_for, waiting_for};
use crate::manager::conns::{LIVE, ORPHANS, UNCHECKED};
use crate::manager::endpoints::{DISPLACED, queue};
use crate::manager::environment::{Load, Sleep};
use crate::manager::peers::{BACKING_OFF, FAILED, WOKEN};
use crate::manager::pinger::ASKING;
use crate::manager::snapshot::{RestoreError, Snapshot, Table, VERSION, damaged};
use crate::mutant::Mutant;

/// # Restoring
impl Manager {
    /// The manager that the snapshot was taken of: it answers every later event as the original
    /// would have.
    ///
    /// `hash_key` may differ from the original's. A new process then sends
    /// [`Event::Restarted`](crate::Event::Restarted), and its time goes on after the snapshot's.
    /// O(n); memory is bounded by the size of the snapshot.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] for a snapshot of another version, with a refused configuration, or with a
    /// state that no manager can be in, however it came to be. What counts up may be at 2^63 - 1 at
    /// most, which no run comes to. A manager forged to be just below goes on, but when it has passed
    /// that, its own snapshots are refused.
    pub fn restore(snapshot: Snapshot, hash_key: u64) -> Result<Self, RestoreError> {
        if snapshot.version != VERSION {
            return Err(RestoreError::Version { found: snapshot.version, expected: VERSION });
        }
        snapshot.check_places()?;
        let mut manager = Self::new(snapshot.config, hash_key).map_err(RestoreError::Config)?;
        manager.now = snapshot.now;
        manager.timers.advance(snapshot.now);
        manager.run = Digest::resume(snapshot.run);
        manager.sleep = Sleep { woke_at: snapshot.woke_at, hold_until: snapshot.hold_until };
        (manager.network,) = snapshot.network.into_records();
        manager.load = Load { smoothed: snapshot.load, relaxed: snapshot.relaxed };
        manager.pacer.bucket = snapshot.pacer;
        manager.pacer.blocked = snapshot.pacer_blocked;
        manager.pinger.bucket = snapshot.pinger;
        manager.self_health = snapshot.self_health;
        manager.told_self_health = snapshot.told_self_health;
        manager.pacer.in_flight = snapshot.stats.as_ref().map_or(0, |stats| stats.dials_in_flight);
        if Mutant::ForgottenFlight.lives() {
            manager.pacer.in_flight = 0;
        }
        manager.stats = snapshot.stats.ok_or_else(|| damaged("stats", "missing"))?;

        manager.breakers.slab =
            rebuild("breakers", snapshot.breakers, |_, it| it.into_records().0)?;
        let peers = &mut manager.peers;
        peers.slab = rebuild("peers", snapshot.peers, |slot, it| {
            let (peer, trouble, succession, quality) = it.into_records();
            peers.troubles.set(slot, trouble);
            peers.successions.set(slot, succession);
            peers.qualities.set(slot, quality);
            peer
        })?;
        manager.replacements =
            rebuild("replacements", snapshot.replacements, |_, it| it.into_records().0)?;
        let endpoints = &mut manager.endpoints;
        endpoints.slab = rebuild("endpoints", snapshot.endpoints, |slot, it| {
            let (endpoint, past, wait) = it.into_records();
            endpoints.pasts.set(slot, past);
            endpoints.waits.set(slot, wait);
            endpoint
        })?;
        let conns = rebuild("conns", snapshot.conns, |_, it| it.into_records().0)?;
        manager.conns.set_all(conns, &snapshot.generations, &snapshot.pings, |peer| {
            manager.peers.slab.get(peer).map_or(0, |it| it.profile)
        });
        manager.conns.process = snapshot.process;
        manager.calls.slab = rebuild("calls", snapshot.calls, |_, it| it.into_records().0)?;
        manager.calls.attempts =
            rebuild("attempts", snapshot.attempts, |_, it| it.into_records().0)?;
        manager.calls.generations = snapshot.attempt_generations;
        manager.calls.process = snapshot.process;
        manager.count_groups();

        let lists = &snapshot.lists;
        fill(&mut manager.peers.lists, BACKING_OFF, &lists.backing_off, "lists.backing_off")?;
        fill(&mut manager.peers.lists, WOKEN, &lists.woken, "lists.woken")?;
        fill(&mut manager.peers.lists, FAILED, &lists.failed, "lists.failed")?;
        fill(&mut manager.conns.lists, LIVE, &lists.live, "lists.live")?;
        fill(&mut manager.conns.lists, ORPHANS, &lists.orphans, "lists.orphans")?;
        fill(&mut manager.conns.lists, UNCHECKED, &lists.unchecked, "lists.unchecked")?;
        fill(&mut manager.pinger.line, ASKING, &lists.asking, "lists.asking")?;
        fill(&mut manager.breakers.ring, RING, &lists.ring, "lists.ring")?;
        fill(&mut manager.breakers.ring, HELD_BACK, &lists.held_back, "lists.held_back")?;
        fill(&mut manager.endpoints.queues, DISPLACED, &lists.displaced, "lists.displaced")?;
        // Those that are still to be moved are among the sessions as well.
        for &endpoint in &lists.displaced {
            manager.endpoints.note_session(endpoint, manager.class_of(endpoint));
        }
        for (slot, members) in (0..).zip(&lists.queues) {
            let place = format!("lists.queues[{slot}]");
            for &endpoint in members {
                let class = manager.class_of(endpoint);
                let queue = queue(slot, class, manager.endpoints.slab[endpoint].several);
                fill(&mut manager.endpoints.queues, queue, &[endpoint], &place)?;
                manager.endpoints.note_session(endpoint, class);
            }
        }
        let Self { calls, .. } = &mut manager;
        fill(&mut calls.lists, calls::LIVE, &lists.live_calls, "lists.live_calls")?;
        fill(&mut calls.lists, calls::ORPHANS, &lists.orphan_calls, "lists.orphan_calls")?;
        fill(&mut calls.places, RELEASED, &lists.released, "lists.released")?;
        fill(&mut calls.places, DOOMED, &lists.doomed, "lists.doomed")?;
        for (anchor, members, place) in [
            (waiting_for as fn(u32) -> u32, &lists.waiting, "lists.waiting"),
            (bound_for, &lists.bound, "lists.bound"),
        ] {
            for &call in members {
                fill(&mut calls.places, anchor(calls.slab[call].peer), &[call], place)?;
            }
        }
        fill(&mut calls.lines, MOVING, &lists.moving, "lists.moving")?;
        for (place, timer) in snapshot.timers.iter().enumerate() {
            if !manager.timers.restore(*timer) {
                return Err(damaged(format!("timers[{place}]"), "armed twice"));
            }
        }
        if manager.timers.sequence() > snapshot.next_sequence {
            return Err(damaged("next_sequence", "less than a timer's"));
        }
        manager.timers.set_sequence(snapshot.next_sequence);
        manager.timers.stop(manager.network.is_still());
        index(&mut manager.peers.map, &manager.peers.slab, "peers")?;
        index(&mut manager.calls.map, &manager.calls.slab, "calls")?;
        index(&mut manager.breakers.map, &manager.breakers.slab, "breakers")?;
        manager.deadline = manager.first_due();
        manager.check().map_err(|violation| damaged(violation.place(), violation.to_string()))?;
        Ok(manager)
    }
}

/// Builds an id table anew; two records of one id are refused.
fn index<T: Named>(map: &mut Map, slab: &Slab<T>, name: &str) -> Result<(), RestoreError> {
    for (slot, record) in slab.iter() {
        if !map.insert(slot, slab) {
            return Err(damaged(format!("{name}[{slot}].id"), format!("{} twice", record.id())));
        }
    }
    Ok(())
}

fn rebuild<T, M>(
    name: &str,
    table: Table<M>,
    mut record: impl FnMut(u32, M) -> T,
) -> Result<Slab<T>, RestoreError> {
    let slots = (0..).zip(table.slots);
    let slots = slots.map(|(slot, entry)| entry.map(|it| record(slot, it))).collect();
    Slab::from_parts(slots, table.free)
        .ok_or_else(|| damaged(format!("{name}.free"), "does not name empty slots, each once"))
}

fn fill(lists: &mut Lists, anchor: u32, nodes: &[u32], place: &str) -> Result<(), RestoreError> {
    for (index, &node) in nodes.iter().enumerate() {
        if lists.is_linked(node) {
            return Err(damaged(
                format!("{place}[{index}]"),
                format!("{node} is on a list already"),
            ));
        }
        lists.push_back(anchor, node);
    }
    Ok(())
}
