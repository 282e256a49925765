//! How far a command is, for whoever watches it.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use steadfast_sim::ScenarioError;

use super::Failure;

/// Does it with a progress bar, where somebody can see it and for whom it takes a while; and how
/// long it took.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long it took, for people"
)]
pub(crate) fn timed<T>(
    work: impl FnOnce(&mut dyn FnMut(f64)) -> Result<T, ScenarioError>,
) -> Result<(T, f64), Failure> {
    let began = std::time::Instant::now();
    let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr_with_hz(8));
    let style = ProgressStyle::with_template("{wide_bar} {percent}%  {elapsed}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let visible = std::io::stderr().is_terminal();
    let mut progress = |share: f64| {
        if visible && began.elapsed().as_millis() > 500 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 1000"
            )]
            bar.set_position((share * 1_000.0) as u64);
        }
    };
    let done = work(&mut progress)?;
    bar.finish_and_clear();
    Ok((done, began.elapsed().as_secs_f64()))
}
