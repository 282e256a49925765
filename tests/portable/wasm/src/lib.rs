//! The player as a WebAssembly module, without `std`: an allocator, a panic handler, and what keeps
//! the three functions of its host.
//!
//! A name of one's own (`no_mangle`, `export_name`) counts as unsafe, so they go by the compiler's:
//! the linker is told to export all that is linked, and whoever plays looks for them by what their
//! names contain.
#![cfg_attr(target_family = "wasm", no_std)]

#[cfg(target_family = "wasm")]
mod module {
    extern crate alloc;

    use alloc::boxed::Box;
    use core::panic::PanicInfo;

    use steadfast_portable::host::{Played, player_open, player_put, player_take};

    #[global_allocator]
    static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

    #[used]
    static OPEN: extern "C" fn() -> Box<Played> = player_open;
    #[used]
    static PUT: extern "C" fn(&mut Played, u8) = player_put;
    #[used]
    static TAKE: extern "C" fn(&mut Played) -> i32 = player_take;

    #[panic_handler]
    fn stop(_: &PanicInfo<'_>) -> ! {
        core::arch::wasm32::unreachable()
    }
}
