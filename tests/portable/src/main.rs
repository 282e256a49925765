//! Plays recordings on this machine: `portable FILE…`, a line for each.

use std::path::Path;
use std::process::ExitCode;

use steadfast_portable::Player;

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in std::env::args().skip(1) {
        let verdict = play(Path::new(&file));
        let name = Path::new(&file).file_stem().unwrap_or_default().display();
        match verdict {
            Ok(verdict) => println!("{name}: {verdict}"),
            Err(problem) => {
                println!("{name}: {problem}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn play(file: &Path) -> Result<String, String> {
    let recording = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut player = Player::default();
    for byte in recording {
        player.put(byte);
    }
    player.verdict()
}
