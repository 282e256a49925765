//! Snapshots as texts, and damaged ones.

use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use serde_json::Value;
use steadfast::{
    Action, CallFailure, CallId, CallProfileId, Event, LossCause, Manager, PeerId, Snapshot,
    Target, Time,
};

use crate::damage::damage;
use crate::states::{STATES, lively};
use crate::{MAX_TICKS, check, restored, tree, try_restored};

/// A snapshot, as text or as a state and what is done to it: an error, or a manager that holds every
/// invariant and goes on.
///
/// # Panics
///
/// If a promise is broken.
pub fn snapshots(bytes: &[u8]) {
    let snapshot = match bytes.split_first() {
        Some((0, choices)) => damaged(&mut Unstructured::new(choices)).ok().flatten(),
        _ => serde_json::from_slice::<Snapshot>(bytes).ok(),
    };
    let Some(snapshot) = snapshot else { return };
    match Manager::restore(snapshot, 1) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(manager) => exercise(manager),
    }
}

/// One of the states after one to four damages, if it still is a snapshot at all.
fn damaged(bytes: &mut Unstructured<'_>) -> Result<Option<Snapshot>> {
    static WHOLE: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let whole = |state| tree(&lively(state));
        (0..STATES).map(whole).collect()
    });
    let mut tree = bytes.choose(&WHOLE)?.clone();
    for _ in 0..bytes.int_in_range(1..=4_u8)? {
        let part = part(&mut tree, bytes.arbitrary()?);
        damage(part, bytes)?;
        if bytes.is_empty() {
            break;
        }
    }
    Ok(serde_json::from_slice(tree.to_string().as_bytes()).ok())
}

/// One of the tables and fields, or all of them: the configuration would be half of the places.
fn part(tree: &mut Value, chosen: u8) -> &mut Value {
    let Some(fields) = tree.as_object().filter(|_| chosen < 224) else { return tree };
    let name = fields.keys().nth(usize::from(chosen) % fields.len()).cloned();
    &mut tree[name.unwrap_or_default()]
}

/// Everybody is told of something, time goes on, and all are removed.
fn exercise(mut manager: Manager) {
    check(&manager, &"restoring");
    manager = restored(&manager, 2);
    let peers: Vec<PeerId> = manager.peers().take(8).collect();
    let breakers: Vec<_> = manager.breakers().take(8).collect();
    sleep(&mut manager, 12);
    for &peer in &peers {
        tell(&mut manager, Event::Connect { peer });
        let Some(conn) = manager.conn(peer) else { continue };
        tell(&mut manager, Event::Connected { conn, resumed: true });
        tell(&mut manager, Event::Heartbeat { conn });
        tell(&mut manager, Event::Metrics { conn, latency: Duration::from_secs(1), loss: 9 });
    }
    let mut attempts = Vec::new();
    for (call, &breaker) in (1 << 40..).zip(&breakers) {
        let peer = peers.first().copied().unwrap_or(PeerId(0));
        for (call, target) in
            [(call, Target::Breaker(breaker)), (call + 100, Target::Peer { peer, breaker })]
        {
            let (call, profile) = (CallId(call), CallProfileId(0));
            let event = Event::Call { call, target, profile, deadline: None };
            attempts.extend(tell(&mut manager, event).iter().filter_map(|action| match action {
                Action::StartAttempt { attempt, .. } => Some(*attempt),
                _ => None,
            }));
        }
    }
    sleep(&mut manager, 12);
    tell(&mut manager, Event::NetworkDown);
    tell(&mut manager, Event::NetworkUp);
    tell(&mut manager, Event::Load { load: 1_000_000 });
    tell(&mut manager, Event::Revive { peer: None });
    for &peer in &peers {
        let Some(conn) = manager.conn(peer) else { continue };
        tell(&mut manager, Event::Lost { conn, cause: LossCause::Reset });
    }
    sleep(&mut manager, 24);
    for &breaker in &breakers {
        tell(&mut manager, Event::ResetBreaker { breaker });
    }
    for attempt in attempts {
        let (kind, retry_after) = (CallFailure::Error, None);
        tell(&mut manager, Event::Failed { attempt, kind, retry_after });
    }
    tell(&mut manager, Event::Restarted);
    sleep(&mut manager, 24);
    for &peer in &peers {
        tell(&mut manager, Event::RemovePeer { peer });
    }
    sleep(&mut manager, 12);
    for &breaker in &breakers {
        tell(&mut manager, Event::RemoveBreaker { breaker });
    }
    if let Err(error) = try_restored(&manager, 3) {
        // Something that counts up was put just below its end.
        assert!(error.to_string().contains("no room to go on"), "{error}");
    }
}

fn tell(manager: &mut Manager, event: Event) -> Vec<Action> {
    let actions = manager.step(event.clone(), manager.now());
    check(manager, &(event, &actions));
    actions
}

/// Ticks at so many deadlines.
fn sleep(manager: &mut Manager, deadlines: u32) {
    let mut ticks = 0;
    for _ in 0..deadlines {
        while let Some(due) = manager.next_deadline().filter(|&due| due < Time::MAX) {
            let is_later = due > manager.now();
            ticks = if is_later { 0 } else { ticks + 1 };
            assert!(ticks < MAX_TICKS, "woken {ticks} times at {due}");
            let actions = manager.step(Event::Tick, due);
            check(manager, &(due, actions));
            if is_later {
                break;
            }
        }
    }
}
