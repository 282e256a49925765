//! How long things take when chance decides: `10ms`, `10ms..20ms`, `exp(5ms)`,
//! `normal(mean=10ms, sd=2ms)`, `lognormal(p50=20ms, p99=200ms)`, or by nine measured quantiles,
//! `quantiles(p1=…, p5=…, p10=…, p25=…, p50=…, p75=…, p90=…, p95=…, p99=…)`.
//!
//! Sampled through `libm`, so that every platform gets the same nanoseconds.

use std::fmt;
use std::str::FromStr;

use rand_pcg::Pcg64Dxsm;
use rand_pcg::rand_core::Rng;

use crate::units::{Call, ParseError, Span, as_text};

/// A distribution over spans of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dist {
    /// Always the same.
    Fixed(Span),
    /// Anything from the one to the other, alike.
    Uniform(Span, Span),
    /// Exponential, by its mean: waiting without memory.
    Exp(Span),
    /// Normal; what would be negative counts with its sign turned.
    Normal {
        /// The mean.
        mean: Span,
        /// The standard deviation.
        sd: Span,
    },
    /// Lognormal, by its median and 99th percentile: the usual shape of a network's latency.
    LogNormal {
        /// The median.
        p50: Span,
        /// The 99th percentile.
        p99: Span,
    },
    /// By what was measured: its percentiles 1, 5, 10, 25, 50, 75, 90, 95 and 99, and between two of
    /// them geometrically. What is beyond the last counts as the last.
    Quantiles([Span; 9]),
}

impl Default for Dist {
    fn default() -> Self {
        Self::Fixed(Span::ZERO)
    }
}

/// The percentiles of [`Dist::Quantiles`].
const PERCENTILES: [(&str, f64); 9] = [
    ("p1", 0.01),
    ("p5", 0.05),
    ("p10", 0.10),
    ("p25", 0.25),
    ("p50", 0.50),
    ("p75", 0.75),
    ("p90", 0.90),
    ("p95", 0.95),
    ("p99", 0.99),
];

/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

impl Dist {
    /// One value. Whatever the draws, it is finite and not negative.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sample is rounded to a nanosecond; the cast saturates"
    )]
    pub(crate) fn sample(&self, generator: &mut Pcg64Dxsm) -> Span {
        match *self {
            Self::Fixed(span) => span,
            Self::Uniform(low, high) => {
                let random = generator.next_u64();
                Span::from_nanos(steadfast::draw::uniform(random, low.as_nanos(), high.as_nanos()))
            }
            Self::Exp(mean) => {
                let far = -libm::log(1.0 - unit(generator.next_u64()));
                times(mean, far)
            }
            Self::LogNormal { p50, p99 } => {
                let sigma = libm::log(p99.as_secs_f64() / p50.as_secs_f64()) / Z99;
                times(p50, libm::exp(sigma * standard_normal(generator)))
            }
            Self::Normal { mean, sd } => {
                let off = sd.as_nanos() as f64 * standard_normal(generator);
                Span::from_nanos(libm::fabs(mean.as_nanos() as f64 + off) as u64)
            }
            Self::Quantiles(spans) => between(&spans, unit(generator.next_u64())),
        }
    }

    /// What it is on average; of a normal, what it is told as its mean.
    pub(crate) fn mean(&self) -> Span {
        match *self {
            Self::Fixed(span) | Self::Exp(span) | Self::Normal { mean: span, .. } => span,
            Self::Uniform(low, high) => {
                Span::from_nanos(low.as_nanos() / 2 + high.as_nanos().div_ceil(2))
            }
            Self::LogNormal { p50, p99 } => {
                let sigma = libm::log(p99.as_secs_f64() / p50.as_secs_f64()) / Z99;
                times(p50, libm::exp(sigma * sigma / 2.0))
            }
            Self::Quantiles(spans) => {
                // Enough places for an estimate.
                let places = (0..1_000_u32).map(|place| (f64::from(place) + 0.5) / 1_000.0);
                let sum = places.fold(0_u64, |sum, place| {
                    sum.saturating_add(between(&spans, place).as_nanos() / 1_000)
                });
                Span::from_nanos(sum)
            }
        }
    }

    /// Whether it may be now this and now that.
    pub(crate) fn is_chance(&self) -> bool {
        !matches!(self, Self::Fixed(_))
    }
}

/// The quantile at `place`, from 0 to 1.
fn between(spans: &[Span; 9], place: f64) -> Span {
    let known = || spans.iter().zip(PERCENTILES);
    let below = known().take_while(|(_, (_, share))| *share <= place).last();
    let above = known().find(|(_, (_, share))| *share > place);
    match (below, above) {
        (Some((low, (_, from))), Some((high, (_, to)))) => {
            let ratio = high.as_secs_f64() / low.as_secs_f64();
            times(*low, libm::pow(ratio, (place - from) / (to - from)))
        }
        (Some((span, _)), None) | (None, Some((span, _))) => *span,
        (None, None) => Span::ZERO,
    }
}

/// Source: Box and Muller.
fn standard_normal(generator: &mut Pcg64Dxsm) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - unit(generator.next_u64())));
    let angle = 2.0 * std::f64::consts::PI * unit(generator.next_u64());
    radius * libm::cos(angle)
}

/// Maps 64 uniform bits to \[0, 1).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
pub(crate) fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sample is rounded to a nanosecond; the cast saturates"
)]
fn times(span: Span, factor: f64) -> Span {
    Span::from_nanos((span.as_nanos() as f64 * factor) as u64)
}

impl fmt::Display for Dist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(span) => write!(f, "{span}"),
            Self::Uniform(low, high) => write!(f, "{low}..{high}"),
            Self::Exp(mean) => write!(f, "exp({mean})"),
            Self::Normal { mean, sd } => write!(f, "normal(mean={mean}, sd={sd})"),
            Self::LogNormal { p50, p99 } => write!(f, "lognormal(p50={p50}, p99={p99})"),
            Self::Quantiles(spans) => {
                f.write_str("quantiles(")?;
                for (place, (span, (name, _))) in spans.iter().zip(PERCENTILES).enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{name}={span}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl FromStr for Dist {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some((low, high)) = text.split_once("..") {
            let (low, high) = (low.parse()?, high.parse()?);
            if low > high {
                return Err(ParseError::new(format!("`{text}` runs backwards")));
            }
            return Ok(Self::Uniform(low, high));
        }
        let wrong = || {
            ParseError::new(format!(
                "`{text}` is no distribution; write it as 10ms, 10ms..20ms, exp(5ms), \
                 normal(mean=10ms, sd=2ms) or lognormal(p50=20ms, p99=200ms)"
            ))
        };
        let mut call = Call::parse(text).ok_or_else(wrong)?;
        let dist = match call.name {
            "exp" => Self::Exp(call.need("")?),
            "normal" => Self::Normal { mean: call.need("mean")?, sd: call.need("sd")? },
            "lognormal" => {
                let (p50, p99) = (call.need("p50")?, call.need("p99")?);
                if p50 == Span::ZERO || p99 < p50 {
                    return Err(ParseError::new("lognormal needs 0 < p50 <= p99"));
                }
                Self::LogNormal { p50, p99 }
            }
            "quantiles" => {
                let mut spans = [Span::ZERO; 9];
                for (span, (name, _)) in spans.iter_mut().zip(PERCENTILES) {
                    *span = call.need(name)?;
                }
                if spans.first() == Some(&Span::ZERO) || !spans.is_sorted() {
                    return Err(ParseError::new("quantiles begin above 0 and do not fall"));
                }
                Self::Quantiles(spans)
            }
            _ => Self::Fixed(text.parse().map_err(|_| wrong())?),
        };
        call.end()?;
        Ok(dist)
    }
}

as_text!(Dist, "a distribution in quotes, as \"10ms\" or \"lognormal(p50=20ms, p99=200ms)\"");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::{Draws, Purpose};
    use proptest::prelude::*;

    fn samples(dist: Dist) -> Vec<u64> {
        let draws = Draws::new(1);
        let one = |n| dist.sample(&mut draws.generator(Purpose::Beat, 0, n)).as_nanos();
        let mut samples: Vec<_> = (0..20_000).map(one).collect();
        samples.sort_unstable();
        samples
    }

    fn near(value: u64, wanted: f64, tolerance: f64) {
        let off = (value as f64 / wanted - 1.0).abs();
        assert!(off < tolerance, "{value} is not {wanted}");
    }

    #[test]
    fn a_lognormal_has_the_median_and_the_tail_that_it_was_told() {
        let sorted = samples("lognormal(p50=40ms, p99=300ms)".parse().unwrap());
        near(sorted[10_000], 40e6, 0.03);
        near(sorted[19_800], 300e6, 0.08);
    }

    #[test]
    fn an_exponential_has_its_mean() {
        let sorted = samples("exp(5ms)".parse().unwrap());
        near(sorted.iter().sum::<u64>() / 20_000, 5e6, 0.03);
        near(sorted[10_000], 5e6 * std::f64::consts::LN_2, 0.04);
    }

    #[test]
    fn a_normal_has_its_mean_and_its_deviation() {
        let sorted = samples("normal(mean=10ms, sd=2ms)".parse().unwrap());
        near(sorted.iter().sum::<u64>() / 20_000, 10e6, 0.01);
        near(sorted[16_827], 12e6, 0.01);
        near(sorted[3_173], 8e6, 0.01);
    }

    #[test]
    fn quantiles_are_met_at_their_places_and_never_left() {
        let dist: Dist =
            "quantiles(p1=1s, p5=1s, p10=2s, p25=4s, p50=10s, p75=60s, p90=5m, p95=1h, p99=9h)"
                .parse()
                .unwrap();
        let sorted = samples(dist);
        assert_eq!((sorted[0], sorted[19_999]), (1_000_000_000, 32_400_000_000_000));
        near(sorted[5_000], 4e9, 0.05);
        near(sorted[10_000], 10e9, 0.05);
        near(sorted[18_000], 300e9, 0.1);
        let mean = sorted.iter().map(|span| span / 20_000).sum();
        near(mean, dist.mean().as_nanos() as f64, 0.05);
    }

    #[test]
    fn each_kind_knows_its_mean() {
        for text in ["5ms", "exp(5ms)", "4ms..6ms", "normal(mean=5ms, sd=1ms)"] {
            let dist: Dist = text.parse().unwrap();
            assert_eq!(dist.mean(), "5ms".parse().unwrap(), "{text}");
        }
        let dist: Dist = "lognormal(p50=10ms, p99=50ms)".parse().unwrap();
        let drawn = samples(dist).iter().sum::<u64>() / 20_000;
        near(drawn, dist.mean().as_nanos() as f64, 0.02);
    }

    #[test]
    fn a_range_is_filled_from_end_to_end() {
        let sorted = samples("10ms..20ms".parse().unwrap());
        near(sorted[0], 10e6, 0.001);
        near(sorted[19_999], 20e6, 0.001);
        near(sorted[10_000], 15e6, 0.01);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "",
            "20ms..10ms",
            "exp()",
            "exp(5ms",
            "exp(5ms, 6ms)",
            "normal(1ms)",
            "lognormal(p50=20ms)",
            "lognormal(p50=0s, p99=1s)",
            "lognormal(p50=2s, p99=1s)",
            "lognormal(p50=1s, p99=2s, p50=3s)",
            "quantiles(p50=1s)",
            "quantiles(p1=0s, p5=1s, p10=1s, p25=1s, p50=1s, p75=1s, p90=1s, p95=1s, p99=1s)",
            "quantiles(p1=1s, p5=2s, p10=1s, p25=3s, p50=3s, p75=3s, p90=3s, p95=3s, p99=3s)",
        ] {
            assert!(bad.parse::<Dist>().is_err(), "{bad}");
        }
    }

    fn any_dist() -> impl Strategy<Value = Dist> {
        let span = || any::<u64>().prop_map(Span::from_nanos);
        prop_oneof![
            span().prop_map(Dist::Fixed),
            (span(), span()).prop_map(|(a, b)| Dist::Uniform(a.min(b), a.max(b))),
            span().prop_map(Dist::Exp),
            (span(), span()).prop_map(|(mean, sd)| Dist::Normal { mean, sd }),
            (1..u64::MAX, 0..u64::MAX).prop_map(|(p50, more)| Dist::LogNormal {
                p50: Span::from_nanos(p50),
                p99: Span::from_nanos(p50.saturating_add(more)),
            }),
            proptest::array::uniform9(1_u64..).prop_map(|mut nanos| {
                nanos.sort_unstable();
                Dist::Quantiles(nanos.map(Span::from_nanos))
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(dist in any_dist()) {
            prop_assert_eq!(dist.to_string().parse(), Ok(dist));
        }
    }
}
