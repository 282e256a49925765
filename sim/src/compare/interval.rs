//! Means, paired differences and how sure they are.
//!
//! The interval of a mean difference d over n pairs is d ± t s / √n, with s the standard deviation of
//! the differences and t the quantile of Student's distribution with n - 1 degrees of freedom. It
//! presumes that the mean of the differences is about normal, which thirty of them are enough for.

use super::{ComparisonCell, Difference};
use crate::expect::Measured;

/// The quantiles 0.975 of Student's t, by degrees of freedom.
///
/// Source: NIST/SEMATECH e-Handbook of Statistical Methods, §1.3.6.7.2, critical values of Student's
/// t distribution.
const STUDENT: [(usize, f64); 37] = [
    (1, 12.706),
    (2, 4.303),
    (3, 3.182),
    (4, 2.776),
    (5, 2.571),
    (6, 2.447),
    (7, 2.365),
    (8, 2.306),
    (9, 2.262),
    (10, 2.228),
    (11, 2.201),
    (12, 2.179),
    (13, 2.160),
    (14, 2.145),
    (15, 2.131),
    (16, 2.120),
    (17, 2.110),
    (18, 2.101),
    (19, 2.093),
    (20, 2.086),
    (21, 2.080),
    (22, 2.074),
    (23, 2.069),
    (24, 2.064),
    (25, 2.060),
    (26, 2.056),
    (27, 2.052),
    (28, 2.048),
    (29, 2.045),
    (30, 2.042),
    (40, 2.021),
    (50, 2.009),
    (60, 2.000),
    (70, 1.994),
    (80, 1.990),
    (90, 1.987),
    (100, 1.984),
];

/// The quantile for so many degrees of freedom, or for the next fewer that the table has: an interval
/// may be a little too wide, never too narrow. `None` for none.
fn student(freedom: usize) -> Option<f64> {
    STUDENT.iter().rev().find(|(known, _)| *known <= freedom).map(|(_, quantile)| *quantile)
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Half of the mean's 95 % interval; `None` for fewer than two values.
#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
fn plus_minus(values: &[f64], mean: f64) -> Option<f64> {
    let freedom = values.len().checked_sub(1)?;
    let student = student(freedom)?;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let variance = squares / freedom as f64;
    Some(student * libm::sqrt(variance / values.len() as f64))
}

/// What one row saw of a measure, seed by seed, and how it differs from what the first row saw.
pub(super) fn cell(own: &[Measured], first: Option<&[Measured]>) -> ComparisonCell {
    let value = |measured: &Measured| match measured {
        Measured::Value(value) => Some(*value),
        Measured::AtLeast(_) | Measured::Unknown => None,
    };
    let count = |is: fn(&Measured) -> bool| own.iter().filter(|seen| is(seen)).count() as u64;
    let values: Vec<f64> = own.iter().filter_map(value).collect();
    let pairs = first.into_iter().flatten().zip(own);
    let differences: Vec<f64> =
        pairs.filter_map(|(first, own)| Some(value(own)? - value(first)?)).collect();
    let difference = mean(&differences).map(|mean| {
        let plus_minus = plus_minus(&differences, mean);
        Difference {
            mean,
            plus_minus,
            pairs: differences.len() as u64,
            significant: plus_minus.is_some_and(|half| libm::fabs(mean) > half),
        }
    });
    ComparisonCell {
        mean: mean(&values),
        known: values.len() as u64,
        never: count(|seen| matches!(seen, Measured::AtLeast(_))),
        unknown: count(|seen| matches!(seen, Measured::Unknown)),
        best: false,
        difference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Measured::{AtLeast, Unknown, Value};

    #[test]
    fn the_interval_is_the_one_computed_by_hand() {
        // Differences 2, 4, 4, 6: mean 4, variance (4 + 0 + 0 + 4) / 3 = 8/3, standard error
        // sqrt(8/3 / 4) = 0.816497, times 3.182 is 2.598092.
        let first = [Value(1.0), Value(2.0), Value(3.0), Value(4.0)];
        let own = [Value(3.0), Value(6.0), Value(7.0), Value(10.0)];
        let cell = cell(&own, Some(&first));
        let difference = cell.difference.unwrap();
        assert_eq!((cell.mean, cell.known), (Some(6.5), 4));
        assert_eq!((difference.mean, difference.pairs, difference.significant), (4.0, 4, true));
        assert!((difference.plus_minus.unwrap() - 2.598_092).abs() < 1e-6, "{difference:?}");
    }

    #[test]
    fn only_what_is_known_in_both_is_paired() {
        let first = [Value(1.0), AtLeast(9.0), Value(3.0), Value(4.0), Unknown];
        let own = [Value(2.0), Value(50.0), AtLeast(9.0), Value(5.0), Value(60.0)];
        let cell = cell(&own, Some(&first));
        assert_eq!((cell.known, cell.never, cell.unknown), (4, 1, 0));
        assert_eq!(cell.mean, Some(117.0 / 4.0));
        let both = Difference { mean: 1.0, plus_minus: Some(0.0), pairs: 2, significant: true };
        assert_eq!(cell.difference, Some(both));
    }

    #[test]
    fn what_never_came_to_an_end_has_no_mean() {
        let cell = cell(&[AtLeast(5.0), AtLeast(6.0)], Some(&[Value(1.0), Value(1.0)]));
        assert_eq!((cell.mean, cell.known, cell.never, cell.difference), (None, 0, 2, None));
    }

    #[test]
    fn one_pair_tells_nothing_about_chance() {
        let difference = cell(&[Value(5.0)], Some(&[Value(1.0)])).difference.unwrap();
        let one = Difference { mean: 4.0, plus_minus: None, pairs: 1, significant: false };
        assert_eq!(difference, one);
    }

    #[test]
    fn differences_that_may_be_chance_are_not_significant() {
        let first = [Value(1.0), Value(2.0), Value(3.0)];
        let same = cell(&first, Some(&first)).difference.unwrap();
        assert_eq!((same.mean, same.plus_minus, same.significant), (0.0, Some(0.0), false));
        let own = [Value(2.0), Value(1.0), Value(4.0)];
        let noisy = cell(&own, Some(&first)).difference.unwrap();
        assert!(!noisy.significant && noisy.mean > 0.0);
    }

    #[test]
    fn the_quantile_is_the_one_of_the_table_or_the_next_larger() {
        assert_eq!(
            [0, 1, 29, 35, 40, 5_000].map(student),
            [None, Some(12.706), Some(2.045), Some(2.042), Some(2.021), Some(1.984)]
        );
    }
}
