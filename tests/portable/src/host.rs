//! The player for a host that knows no Rust: three functions over a pointer that it keeps.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Player;

/// A recording being played, and then the bytes of what came of it.
#[derive(Debug, Default)]
pub struct Played {
    player: Player,
    verdict: Option<Vec<u8>>,
    told: usize,
}

/// Begins a recording.
#[must_use]
pub extern "C" fn player_open() -> Box<Played> {
    Box::default()
}

/// The next byte of the recording.
pub extern "C" fn player_put(played: &mut Played, byte: u8) {
    played.player.put(byte);
}

/// The next byte of what came of it, which begins with `=` or, after a problem, with `!`; −1 at its
/// end.
pub extern "C" fn player_take(played: &mut Played) -> i32 {
    let Played { player, verdict, told } = played;
    let verdict = verdict.get_or_insert_with(|| {
        let (mark, text) = match player.verdict() {
            Ok(text) => (b'=', text),
            Err(problem) => (b'!', problem),
        };
        let mut bytes = alloc::vec![mark];
        bytes.extend(text.into_bytes());
        bytes
    });
    *told += 1;
    verdict.get(*told - 1).map_or(-1, |&byte| i32::from(byte))
}
