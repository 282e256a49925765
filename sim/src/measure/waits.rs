//! Spans of time that were measured one by one.

use std::time::Duration;

use crate::expect::Measured;

/// How long something took, each time, and how long it has taken where it was not over at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    over: Vec<Duration>,
    not_over: Vec<Duration>,
}

impl Waits {
    pub(crate) fn add(&mut self, wait: Duration) {
        self.over.push(wait);
    }

    pub(crate) fn not_over(&mut self, so_far: Duration) {
        self.not_over.push(so_far);
    }

    /// That share of them took no longer; 1 for the longest.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list of at most 2^32"
    )]
    pub(crate) fn quantile(&self, share: f64) -> Measured {
        // Of two that are alike the one that is not over is the longer.
        let over = self.over.iter().map(|wait| (*wait, false));
        let mut all: Vec<_> = over.chain(self.not_over.iter().map(|wait| (*wait, true))).collect();
        let place = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
        if all.is_empty() {
            return Measured::Unknown;
        }
        match *all.select_nth_unstable(place).1 {
            (wait, false) => Measured::Value(wait.as_secs_f64()),
            (wait, true) => Measured::AtLeast(wait.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_over_is_only_known_from_below() {
        let mut waits = Waits::default();
        assert_eq!(waits.quantile(0.5), Measured::Unknown);
        for seconds in [4, 1, 3, 2] {
            waits.add(Duration::from_secs(seconds));
        }
        assert_eq!(
            (waits.quantile(0.5), waits.quantile(1.0)),
            (Measured::Value(3.0), Measured::Value(4.0))
        );
        waits.not_over(Duration::from_secs(9));
        assert_eq!(
            (waits.quantile(0.5), waits.quantile(1.0)),
            (Measured::Value(3.0), Measured::AtLeast(9.0))
        );
    }
}
