//! Jitter without a generator to carry about: a draw is a pure function of who draws and how often.
//!
//! A shared generator makes every peer's delay depend on every other peer's past: remove one and
//! all outages differ. Here a draw depends on the seed, the purpose, the id and how many draws of
//! that purpose came before, and on nothing else. So two policies can be compared draw by draw,
//! and a fleet split over many managers draws what one manager would.

use rand_pcg::Pcg64Dxsm;
use rand_pcg::rand_core::Rng;

/// What a number is drawn for; draws for different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The delay before the next dial of a peer.
    Backoff = 1,
    /// The delay before the first dial after the loss of a stable connection.
    FirstRetry = 2,
    /// How long a breaker stays open.
    OpenFor = 3,
    /// The delay before the next attempt of a call.
    CallBackoff = 4,
    /// Whether a request is shed, see [`throttle`](crate::throttle).
    Throttle = 5,
    /// What is added to the wait that a server asked for, since it asked all for the same.
    RetryAfter = 6,
    /// When a connection is replaced by another one while it lasts.
    Replacement = 7,
}

/// The draws of one id.
///
/// Source: PCG64-DXSM with one stream per purpose and id; the plain 32-bit PCG is measurably too
/// regular over consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draws {
    seed: u64,
    id: u64,
}

impl Draws {
    /// The draws of `id` under `seed`.
    #[must_use]
    pub const fn new(seed: u64, id: u64) -> Self {
        Self { seed, id }
    }

    /// The draw number `n` for `purpose`: 64 uniform bits. O(1).
    #[must_use]
    pub fn draw(&self, purpose: Purpose, n: u64) -> u64 {
        let state = u128::from(self.seed) << 64 | u128::from(n);
        let stream = (purpose as u128) << 64 | u128::from(self.id);
        Pcg64Dxsm::new(state, stream).next_u64()
    }
}

/// Maps 64 uniform bits to a whole number in `low..=high`; `low` if the two are the wrong way round.
///
/// By a widening multiply: the bias is below 2⁻⁶⁴ times the width, and no bits are drawn again.
#[must_use]
pub fn uniform(random: u64, low: u64, high: u64) -> u64 {
    let width = u128::from(high.saturating_sub(low)) + 1;
    let offset = (u128::from(random) * width) >> 64;
    low.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_all_four_and_on_nothing_else() {
        let draws = Draws::new(7, 42);
        let first = draws.draw(Purpose::Backoff, 0);
        assert_eq!(first, Draws::new(7, 42).draw(Purpose::Backoff, 0));
        assert_ne!(first, draws.draw(Purpose::Backoff, 1));
        assert_ne!(first, draws.draw(Purpose::FirstRetry, 0));
        assert_ne!(first, Draws::new(7, 43).draw(Purpose::Backoff, 0));
        assert_ne!(first, Draws::new(8, 42).draw(Purpose::Backoff, 0));
    }

    #[test]
    fn the_draws_of_consecutive_ids_fill_their_interval_evenly() {
        let mut bins = [0_u32; 64];
        for id in 0..64_000 {
            let draw = Draws::new(1, id).draw(Purpose::FirstRetry, 0);
            bins[usize::try_from(uniform(draw, 0, 63)).unwrap()] += 1;
        }
        // 63 degrees of freedom: mean 63, standard deviation 11; six of them either way.
        let chi: u32 = bins.iter().map(|&n| n.abs_diff(1000).pow(2)).sum::<u32>() / 1000;
        assert!((10..=130).contains(&chi), "chi square {chi}");
    }

    #[test]
    fn uniform_reaches_both_ends_and_never_leaves() {
        assert_eq!(uniform(0, 3, 9), 3);
        assert_eq!(uniform(u64::MAX, 3, 9), 9);
        assert_eq!(uniform(u64::MAX, 9, 3), 9);
        assert_eq!(uniform(u64::MAX, 0, u64::MAX), u64::MAX);
    }
}
