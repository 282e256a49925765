//! Plays the hardware of `steadfast_bare` in virtual time: two minutes within milliseconds.
//!
//! The radio works, then the other side falls silent for a while and nobody answers; then it works
//! again. It fails if the link was not found dead in the meantime, or is not back in the end.
//!
//! ```console
//! $ cargo run -p steadfast-bare
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::ops::Range;
use std::rc::Rc;

use steadfast::Notice;
use steadfast::breaker::State;
use steadfast_bare::{Counter, Radio, Signal, Station};

/// Ticks per second: a watch crystal.
const HZ: u32 = 32_768;
/// When the other side is away, in seconds.
const OUTAGE: Range<u64> = 20..50;
const END: u64 = 120;
/// The counter wraps in the middle of the outage.
const STARTS_AT: u32 = 0_u32.wrapping_sub(35 * HZ);

/// What counter and radio share: the time, and what will have happened.
#[derive(Debug, Default)]
struct World {
    ticks: u64,
    coming: VecDeque<(u64, Signal)>,
}

impl World {
    fn seconds(&self) -> u64 {
        self.ticks / u64::from(HZ)
    }

    /// A signal comes after a while.
    fn after(&mut self, millis: u64, signal: Signal) {
        self.coming.push_back((self.ticks + u64::from(HZ) * millis / 1_000, signal));
    }
}

#[derive(Debug, Clone)]
struct Hardware(Rc<RefCell<World>>);

impl Counter for Hardware {
    const HZ: u32 = HZ;

    fn ticks(&self) -> u32 {
        let passed = u32::try_from(self.0.borrow().ticks).unwrap_or(u32::MAX);
        STARTS_AT.wrapping_add(passed)
    }

    fn wait(&mut self, ticks: u32) {
        let world = &mut *self.0.borrow_mut();
        let alarm = world.ticks + u64::from(ticks);
        let interrupt = world.coming.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
        world.ticks = alarm.min(interrupt.max(world.ticks));
    }
}

impl Radio for Hardware {
    fn associate(&mut self) {
        let world = &mut *self.0.borrow_mut();
        let there = !OUTAGE.contains(&world.seconds());
        world.after(40, if there { Signal::Associated } else { Signal::Refused });
    }

    fn leave(&mut self) {
        self.0.borrow_mut().coming.clear();
    }

    fn ping(&mut self, number: u64) {
        let world = &mut *self.0.borrow_mut();
        if !OUTAGE.contains(&world.seconds()) {
            world.after(15, Signal::Pong(number));
        }
    }

    fn poll(&mut self) -> Option<Signal> {
        let world = &mut *self.0.borrow_mut();
        let due = world.coming.iter().position(|(at, _)| *at <= world.ticks)?;
        world.coming.remove(due).map(|(_, signal)| signal)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let world = Rc::new(RefCell::new(World::default()));
    let hardware = Hardware(Rc::clone(&world));
    let mut station = Station::new(hardware.clone(), hardware, 42)?;
    let start = station.time();
    let mut turns = 0_u32;
    let (mut linked_before, mut found_dead_at, mut back_at) = (false, None, None);
    while world.borrow().seconds() < END {
        station.turn(|now, notice| say(now.since(start).as_secs_f64(), notice))?;
        turns += 1;
        let passed = station.time().since(start);
        match station.is_linked() {
            true if found_dead_at.is_some() => back_at = back_at.or(Some(passed)),
            true => linked_before = true,
            false if linked_before => found_dead_at = found_dead_at.or(Some(passed)),
            false => {}
        }
    }
    let found_dead_at = found_dead_at.ok_or("the link was never up, or never found dead")?;
    let back_at = back_at.ok_or("the link did not come back")?;
    if !OUTAGE.contains(&found_dead_at.as_secs()) || OUTAGE.contains(&back_at.as_secs()) {
        return Err(format!("found dead after {found_dead_at:?}, back after {back_at:?}").into());
    }
    if !station.is_linked() {
        return Err("the link is not up at the end".into());
    }
    println!("silent from {}s on, found dead after {found_dead_at:.1?}", OUTAGE.start);
    println!("possible again from {}s on, back after {back_at:.1?}; {turns} turns", OUTAGE.end);
    Ok(())
}

fn say(seconds: f64, notice: &Notice) {
    match notice {
        Notice::Peer { to, cause, .. } => println!("{seconds:8.3}s {to:?}: {cause:?}"),
        Notice::Suspected { silence, .. } => println!("{seconds:8.3}s silent for {silence:.1?}"),
        Notice::RetryAt { failures, .. } => println!("{seconds:8.3}s {failures} failures so far"),
        Notice::Breaker { to: State::Open { .. }, .. } => println!("{seconds:8.3}s breaker open"),
        Notice::Breaker { to, .. } => println!("{seconds:8.3}s breaker {to:?}"),
        other => println!("{seconds:8.3}s {other:?}"),
    }
}
