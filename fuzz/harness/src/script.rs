//! Scripts that a `World` plays: a driver that keeps to the contract, but for what it is told to do
//! wrong.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use steadfast::strategy::{Act, Address, Fact, Op, World, Wrong};
use steadfast::{CallFailure, Config, Event, Ledger, Manager, RetryAfter, Time};

use crate::raw::{DIAL_CAUSES, LOSS_CAUSES};
use crate::{check, compare_with_twin, configs, restored};

/// Steps of one run, after which no further line is read.
const MAX_STEPS: usize = 1_500;

pub(crate) fn play(bytes: &mut Unstructured<'_>) -> Result<()> {
    let config = configs::preset(bytes)?;
    let (world, told) = live(config.clone(), bytes)?;
    compare_with_twin(Manager::new(config, 8).unwrap(), told, world.manager());
    Ok(())
}

/// Plays the script that the bytes are. The ledger must accuse the driver of what it does wrong, and of
/// nothing else.
pub(crate) fn live(
    config: Config,
    bytes: &mut Unstructured<'_>,
) -> Result<(World, Vec<(Event, Time)>)> {
    let mut world = World::new(Manager::new(config, 7).unwrap());
    let mut ledger = Ledger::new();
    let mut told = Vec::new();
    let mut line = |world: &mut World, op: &Op, told: &mut Vec<(Event, Time)>| {
        world.play_watched(op, |manager, step| {
            check(manager, &step);
            let next = manager.next_deadline();
            let verdict = ledger.observe(&step.event, &step.actions, step.at, next);
            assert_eq!(verdict.is_err(), step.breach, "{verdict:?} for {step:?}");
            told.push((step.event, step.at));
        });
    };
    for op in opening() {
        line(&mut world, &op, &mut told);
    }
    while told.len() < MAX_STEPS && !bytes.is_empty() {
        if bytes.ratio(1, 64)? {
            let restored = restored(world.manager(), bytes.arbitrary()?);
            world.replace_manager(restored);
        }
        line(&mut world, &op(bytes)?, &mut told);
    }
    Ok((world, told))
}

/// Breakers, and a peer of each profile but the plain one, each wanted.
fn opening() -> Vec<Op> {
    let breakers = (0..2).map(|breaker| Act::AddBreaker { breaker, profile: breaker });
    let peers = (0..5).flat_map(|peer| {
        let first = Address { id: 0, breaker: peer % 2 };
        let second = Address { id: 1, breaker: 1 - peer % 2 };
        let endpoints = if peer % 3 == 0 { vec![first] } else { vec![first, second] };
        [Act::AddPeer { peer, profile: peer + 1, endpoints }, Act::Connect { peer }]
    });
    breakers.chain(peers).map(|act| Op { after: Duration::ZERO, act }).collect()
}

fn op(bytes: &mut Unstructured<'_>) -> Result<Op> {
    let after = match bytes.arbitrary::<u8>()? {
        0..=79 => 0,
        few @ 80..=159 => u64::from(few - 79),
        some @ 160..=239 => 25 * u64::from(some - 159),
        many => 600 * u64::from(many - 239),
    };
    Ok(Op { after: Duration::from_millis(after), act: act(bytes)? })
}

fn act(bytes: &mut Unstructured<'_>) -> Result<Act> {
    Ok(match bytes.arbitrary::<u8>()? % 96 {
        0 => Act::AddBreaker { breaker: few(bytes, 3)?, profile: few(bytes, 3)? },
        1 => Act::RemoveBreaker { breaker: few(bytes, 3)? },
        2 => Act::AddPeer {
            peer: few(bytes, 6)?,
            profile: few(bytes, 7)?,
            endpoints: addresses(bytes)?,
        },
        3 => Act::SetEndpoints { peer: few(bytes, 6)?, endpoints: addresses(bytes)? },
        4 => Act::RemovePeer { peer: few(bytes, 6)? },
        5..=7 => Act::Connect { peer: few(bytes, 6)? },
        8 => Act::Disconnect { peer: few(bytes, 6)? },
        9..=16 => {
            let chosen = bytes.arbitrary::<u8>()?;
            Act::Connected { dial: chosen & 15, resumed: chosen >= 128 }
        }
        17..=25 => Act::DialFailed {
            dial: bytes.arbitrary()?,
            cause: *bytes.choose(&DIAL_CAUSES)?,
            retry_after: hint(bytes)?,
        },
        26..=29 => Act::Lost { conn: bytes.arbitrary()?, cause: *bytes.choose(&LOSS_CAUSES)? },
        30..=31 => Act::Heard { conn: bytes.arbitrary()? },
        32..=34 => Act::Heartbeat { conn: bytes.arbitrary()? },
        35 => Act::GoAway {
            conn: bytes.arbitrary()?,
            leaves_in: hint(bytes)?,
            reconnect_in: 10 * millis(bytes)?,
        },
        36..=38 => Act::Pong { ping: bytes.arbitrary()? },
        39..=40 => Act::Metrics {
            conn: bytes.arbitrary()?,
            latency: 10 * millis(bytes)?,
            loss: 5_000 * u32::from(bytes.arbitrary::<u8>()?),
        },
        41 => Act::Accepted { peer: few(bytes, 6)? },
        42..=53 => Act::Call {
            peer: bytes.arbitrary::<bool>()?.then(|| few(bytes, 6)).transpose()?,
            breaker: few(bytes, 3)?,
            profile: few(bytes, 5)?,
            within: hint(bytes)?,
        },
        54 => Act::CancelCall { call: bytes.arbitrary()? },
        55..=59 => Act::Succeeded { attempt: bytes.arbitrary()? },
        60..=66 => Act::Failed {
            attempt: bytes.arbitrary()?,
            kind: *bytes.choose(&CallFailure::ALL)?,
            retry_after: match hint(bytes)? {
                Some(Duration::ZERO) => Some(RetryAfter::Never),
                after => after.map(RetryAfter::After),
            },
        },
        67 => Act::Dropped { attempt: bytes.arbitrary()? },
        68 => Act::NetworkDown,
        69..=70 => Act::NetworkUp,
        71 => Act::NetworkChanged,
        72 => Act::Paused,
        73 => Act::Resumed,
        74..=75 => Act::Load { load: 5_000 * u32::from(bytes.arbitrary::<u8>()?) },
        76 => Act::Restarted,
        77..=78 => Act::Tick,
        79 => Act::ForceOpen { breaker: few(bytes, 3)? },
        80 => Act::Disable { breaker: few(bytes, 3)? },
        81 => Act::WatchOnly { breaker: few(bytes, 3)?, on: bytes.arbitrary()? },
        82..=83 => Act::ResetBreaker { breaker: few(bytes, 3)? },
        84 => Act::Revive { peer: bytes.arbitrary::<bool>()?.then(|| few(bytes, 6)).transpose()? },
        85..=86 => Act::Oversleep { late: 40 * millis(bytes)? },
        _ => Act::Wrong(wrong(bytes)?),
    })
}

fn wrong(bytes: &mut Unstructured<'_>) -> Result<Wrong> {
    Ok(match bytes.arbitrary::<u8>()? % 12 {
        0..=3 => Wrong::Dead { conn: bytes.arbitrary()?, fact: *bytes.choose(&FACTS)? },
        4 => Wrong::Unborn { raw: raw(bytes)?, fact: *bytes.choose(&FACTS)? },
        5 => Wrong::Up { conn: bytes.arbitrary()?, connected: bytes.arbitrary()? },
        6 => Wrong::Dialing { dial: bytes.arbitrary()?, fact: *bytes.choose(&FACTS[3..])? },
        7 => Wrong::Pong { raw: raw(bytes)? },
        8..=9 => Wrong::DeadAttempt { attempt: bytes.arbitrary()?, succeeded: bytes.arbitrary()? },
        10 => Wrong::CallAgain { call: bytes.arbitrary()? },
        _ => Wrong::Backwards { by: Duration::from_millis(1) + 40 * millis(bytes)? },
    })
}

/// Those of a dial first, which nothing wrong says of a dial.
const FACTS: [Fact; 7] = [
    Fact::Connected,
    Fact::DialFailed,
    Fact::Lost,
    Fact::Heard,
    Fact::Heartbeat,
    Fact::GoAway,
    Fact::Metrics,
];

fn few(bytes: &mut Unstructured<'_>, count: u8) -> Result<u8> {
    Ok(bytes.arbitrary::<u8>()? % count)
}

fn addresses(bytes: &mut Unstructured<'_>) -> Result<Vec<Address>> {
    let count = few(bytes, 4)?;
    // Now and then two of one name.
    let address = |id: u8| Ok(Address { id: id % 3, breaker: few(bytes, 2)? });
    (0..count).map(address).collect()
}

fn raw(bytes: &mut Unstructured<'_>) -> Result<u64> {
    let (slot, generation) = (few(bytes, 8)?, few(bytes, 4)?);
    Ok(match bytes.ratio(1, 4)? {
        true => bytes.arbitrary()?,
        false => u64::from(generation) << 28 | u64::from(slot),
    })
}

/// Up to a quarter of a second.
fn millis(bytes: &mut Unstructured<'_>) -> Result<Duration> {
    Ok(Duration::from_millis(bytes.arbitrary::<u8>()?.into()))
}

fn hint(bytes: &mut Unstructured<'_>) -> Result<Option<Duration>> {
    Ok(match bytes.arbitrary::<u8>()? {
        0..=159 => None,
        some @ 160..=249 => Some(200 * Duration::from_millis((some - 160).into())),
        _ => Some(Duration::MAX),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::Strategy;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use steadfast::strategy::Shape;

    use super::*;
    use crate::states::noise;

    /// The variant's name, and that of what is wrong.
    fn name(act: &Act) -> String {
        let text = format!("{act:?}");
        let names = text.split(['(', ' ']).map(str::trim);
        names.take(if text.starts_with("Wrong") { 2 } else { 1 }).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_bytes_reach_every_act_that_scripts_have() {
        let mut runner = TestRunner::deterministic();
        let drawn = (0..5_000).map(|_| Shape::default().op().new_tree(&mut runner).unwrap());
        let drawn: BTreeSet<String> = drawn.map(|tree| name(&tree.current().act)).collect();
        let bytes = noise(1, 100_000);
        let mut bytes = Unstructured::new(&bytes);
        let mut reached = BTreeSet::new();
        while !bytes.is_empty() {
            reached.insert(name(&op(&mut bytes).unwrap().act));
        }
        assert!(drawn.len() > 40, "{drawn:?}");
        let missed: Vec<_> = drawn.difference(&reached).collect();
        assert_eq!(missed, [""; 0]);
    }
}
