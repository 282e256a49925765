//! A manager on bare metal: no `std`, an allocator over a fixed arena, and the loop of
//! `examples/bare` around it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use core::panic::PanicInfo;

use steadfast_bare::{Counter, Radio, Signal, Station};

#[global_allocator]
static ARENA: emballoc::Allocator<65_536> = emballoc::Allocator::new();

#[panic_handler]
fn stop(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// A board that has a counter and a radio, and neither does anything.
struct Board;

impl Counter for Board {
    const HZ: u32 = 32_768;

    fn ticks(&self) -> u32 {
        0
    }

    fn wait(&mut self, _: u32) {}
}

impl Radio for Board {
    fn associate(&mut self) {}

    fn leave(&mut self) {}

    fn ping(&mut self, _: u64) {}

    fn poll(&mut self) -> Option<Signal> {
        None
    }
}

/// What the board runs from reset on; it comes back only if the loop is broken.
pub extern "C" fn steadfast_run(seed: u64) -> u64 {
    let Ok(mut station) = Station::new(Board, Board, seed) else { return 0 };
    while station.turn(|_, _| ()).is_ok() {}
    station.time().as_nanos()
}
