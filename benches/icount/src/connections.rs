//! What connections cost: their signs of life, their detectors, their loss, their snapshot.

use std::hint::black_box;
use std::time::Duration;

use steadfast::config::Detector;
use steadfast::phi::PhiConfig;
use steadfast::{Event, LossCause, Manager};

use crate::fleet::{Fleet, PEERS};

/// How many signs of life come in one order, which is then repeated: a multiple of the batch.
const ORDER: usize = 3_200;
const BATCH: usize = 32;

/// Before any deadline, at random.
pub(crate) fn heard(n: u64) {
    let mut fleet = Fleet::new();
    let order = fleet.at_random(ORDER);
    for (&conn, _) in order.iter().cycle().zip(0..n) {
        fleet.now = fleet.now.plus_nanos(1);
        fleet.step(Event::Heard { conn });
    }
    assert!(fleet.actions.is_empty());
}

/// The same connections in the same order.
pub(crate) fn heard_batch(n: u64) {
    let mut fleet = Fleet::new();
    let order = fleet.at_random(ORDER);
    let events: Vec<Event> = order.into_iter().map(|conn| Event::Heard { conn }).collect();
    let batches = n / BATCH as u64;
    for (batch, _) in events.chunks(BATCH).cycle().zip(0..batches) {
        fleet.now = fleet.now.plus_nanos(1);
        fleet.manager.step_batch(batch, fleet.now, &mut fleet.actions);
    }
    assert!(fleet.actions.is_empty());
}

/// At random, so that gaps differ, a millisecond on average as is expected; before any deadline.
pub(crate) fn heartbeat_phi(n: u64) {
    let expected_interval = Duration::from_millis(1);
    let phi = PhiConfig { expected_interval, ..PhiConfig::default() };
    let mut fleet = Fleet::with(Detector::Phi(phi));
    // Enough for each to have found its rhythm: until then a heartbeat moves its timer.
    for place in 0..25 * PEERS {
        fleet.now = fleet.now.plus_nanos(1_000);
        let conn = fleet.conns[usize::try_from(place % PEERS).unwrap()];
        fleet.step(Event::Heartbeat { conn });
    }
    let order = fleet.at_random(ORDER);
    for (&conn, _) in order.iter().cycle().zip(0..n) {
        fleet.now = fleet.now.plus_nanos(1_000);
        fleet.step(Event::Heartbeat { conn });
    }
    assert!(fleet.actions.is_empty());
}

/// Each is heard every 15 s, one after the other, so that its timer of 20 s finds it heard once for
/// each time that it is: one of N is a sign of life and a tick.
pub(crate) fn alive(n: u64) {
    let mut fleet = Fleet::new();
    let mut ticks = 0;
    for place in 0..n {
        fleet.now = fleet.now.plus_nanos(15_000_000_000 / PEERS);
        while fleet.manager.next_deadline().is_some_and(|due| due <= fleet.now) {
            fleet.step(Event::Tick);
            ticks += 1;
        }
        let conn = fleet.conns[usize::try_from(place % PEERS).unwrap()];
        fleet.step(Event::Heard { conn });
    }
    assert!(fleet.actions.is_empty() && ticks > n - 3 * PEERS, "{ticks} ticks");
}

/// All are lost, which breakers, the spread of first retries and the limits of the pacer are for.
pub(crate) fn reconnect(n: u64) {
    let mut fleet = Fleet::new();
    for _ in 0..n / PEERS {
        // Long enough that the connections were stable, and that all were heard.
        fleet.now += Duration::from_secs(15);
        for conn in fleet.conns.clone() {
            fleet.step(Event::Heard { conn });
        }
        for conn in std::mem::take(&mut fleet.conns) {
            fleet.step(Event::Lost { conn, cause: LossCause::Reset });
        }
        fleet.connect_all();
    }
}

pub(crate) fn snapshot(n: u64) {
    let fleet = Fleet::new();
    for _ in 0..n / PEERS {
        black_box(fleet.manager.snapshot());
    }
}

pub(crate) fn restore(n: u64) {
    let snapshot = Fleet::new().manager.snapshot();
    for _ in 0..n / PEERS {
        black_box(Manager::restore(snapshot.clone(), 3).unwrap());
    }
}
