//! A manager on bare metal: no `std`, an allocator over a fixed arena, a loop.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use core::panic::PanicInfo;

use steadfast::{Config, Event, Manager, Time};

#[global_allocator]
static ARENA: emballoc::Allocator<65_536> = emballoc::Allocator::new();

#[panic_handler]
fn stop(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// The whole driver of a board that only ticks.
pub extern "C" fn steadfast_tick(now: u64) -> u64 {
    let Ok(mut manager) = Manager::new(Config::new(1), 2) else { return 0 };
    let actions = manager.step(Event::Tick, Time::from_nanos(now));
    actions.len() as u64
}
