//! How far a command is, for whoever watches it.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use steadfast_sim::ScenarioError;

use super::Failure;

/// A progress bar of that length, drawn by that template; hidden where nobody can see it.
pub(crate) fn bar(length: u64, template: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(8),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

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
    let bar = bar(1_000, "{wide_bar} {percent}%  {elapsed}  {eta} left");
    let mut progress = |share: f64| {
        if began.elapsed().as_millis() > 500 {
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
