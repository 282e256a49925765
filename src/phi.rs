//! Phi accrual failure detection: how surprising is this silence, given those before?
//!
//! A fixed deadline needs somebody to know the period of each peer's heartbeats. Phi learns it: it
//! keeps the mean and the variance of the gaps between heartbeats and expresses a silence as the
//! negative decimal logarithm of its probability, so that 1 is one in ten and 8 a hundred million.
//!
//! ```text
//! phi(t)        = −log₁₀ Q((t − mean' − pause) / std')          Q: upper tail of the scale
//! suspect_after = mean' + pause + z·std'                         z: phi(z) = threshold, solved once
//! mean' = max(mean, expected interval)                           std' = max(std, min_std)
//!
//! sample x:  d = min(x, 2·max(expected, mean)) − mean,  α = max(1/n, 1/memory)
//!            mean += α·d,  var = (1 − α)·(var + α·d²)
//! ```
//!
//! Because phi grows with the silence, suspicion is a moment that can be computed: a deadline like
//! any other, and nobody has to look at all peers every second. While n < memory the statistics
//! are exactly those of all samples so far; thereafter old ones fade. On a stable link this is no
//! better than a good deadline (nothing is); its worth is a period that nobody configured, and
//! links whose jitter itself changes.
//!
//! Only *periodic* heartbeats are samples. Traffic in bursts teaches it a mean of milliseconds, and
//! then every pause is a death.
//!
//! Rejected: a window of the last 1000 gaps (8 KB a peer for the same mistakes within 7 %);
//! Σx² − mean² (cancels below zero, then NaN, then "available for ever"); 1 − cdf (8 % wrong at
//! z = 8, infinite from 8.3); Cassandra's exponential scale (its threshold is a multiple of the
//! mean and ignores how regular the peer is); unclipped samples (one outage makes the next one
//! invisible); a clip at twice the *expected* gap (a peer slower than somebody once configured could
//! then never be learned: on a measured 5G link with beats every 39 ms instead of 30 it made 27 %
//! more mistakes).
//!
//! Source: Hayashibara et al., *The φ Accrual Failure Detector* (2004); Akka and Pekko
//! `PhiAccrualFailureDetector` for the pause, the floor of the deviation and the bootstrap.

use crate::error::ConfigError;
use crate::time::nanos;
use alloc::format;
use core::f64::consts::{FRAC_1_SQRT_2, LN_2, LN_10, PI};
use core::hash::{Hash, Hasher};
use core::time::Duration;

/// Which distribution the tail of a silence is taken from.
///
/// The two agree within 1 % up to phi 3 and part above: Akka's 8 is a true 7.06. Above some 6 no
/// threshold is a probability any more, it is a multiplier; so the choice matters for
/// compatibility alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Scale {
    /// The true normal distribution.
    #[default]
    Normal,
    /// Akka's logistic approximation of it, for thresholds that come from there.
    Logistic,
}

/// What a detector is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct PhiConfig {
    /// At which phi a peer is suspected, in thousandths; default 8,000. Above 310, at most 300,000.
    pub threshold_milli: u32,
    /// Which tail phi is read from; default the normal one.
    pub scale: Scale,
    /// How long the gap between heartbeats should be; default 1 s. The first estimate, and what
    /// `floor` and `clip` refer to.
    pub expected_interval: Duration,
    /// How much silence beyond the usual is always put up with; default 3 s.
    pub acceptable_pause: Duration,
    /// The least standard deviation to reckon with, above zero; `None` (default) is the larger of
    /// 100 ms and a tenth of the expected interval.
    pub min_std: Option<Duration>,
    /// Whether the mean counts as at least the expected interval; default yes.
    pub floor: bool,
    /// Whether a sample counts as at most twice the expected interval, or twice the mean where that
    /// is longer; default yes.
    pub clip: bool,
    /// After how many samples old ones begin to fade, at least 2; default 128.
    pub memory: u32,
}

/// Source: Akka for threshold, interval, pause and 100 ms; the memory of 128 with clipping made
/// the fewest mistakes at equal detection time of all variants measured on recorded heartbeats.
impl Default for PhiConfig {
    fn default() -> Self {
        Self {
            threshold_milli: 8_000,
            scale: Scale::Normal,
            expected_interval: Duration::from_secs(1),
            acceptable_pause: Duration::from_secs(3),
            min_std: None,
            floor: true,
            clip: true,
            memory: 128,
        }
    }
}

impl PhiConfig {
    /// Checks the settings, solves for z, and turns them into a policy.
    ///
    /// # Errors
    ///
    /// A threshold outside 310 < x ≤ 300,000, an expected interval or `min_std` of zero, a memory
    /// below 2.
    pub fn validate(self) -> Result<PhiPolicy, ConfigError> {
        let interval_ns = nanos(self.expected_interval);
        if interval_ns == 0 {
            return Err(ConfigError::new("expected_interval", "is 0ns, must be at least 1ns"));
        }
        if self.min_std == Some(Duration::ZERO) {
            return Err(ConfigError::new("min_std", "is 0ns, must be at least 1ns"));
        }
        if self.memory < 2 {
            let problem = format!("is {}, must be at least 2", self.memory);
            return Err(ConfigError::new("memory", problem));
        }
        let tenth = self.expected_interval / 10;
        let min_std = self.min_std.unwrap_or(tenth.max(Duration::from_millis(100)));
        let interval = float(interval_ns);
        let policy = PhiPolicy {
            threshold_milli: 0,
            scale: self.scale,
            z: 0.0,
            interval,
            pause: float(nanos(self.acceptable_pause)),
            min_std: float(nanos(min_std)),
            min_mean: if self.floor { interval } else { 0.0 },
            clip: self.clip,
            min_sample_ns: (interval_ns / 10).max(1_000_000),
            min_alpha: 1.0 / f64::from(self.memory),
        };
        policy.at_threshold(self.threshold_milli)
    }
}

/// The checked settings of a detector, with z computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhiPolicy {
    threshold_milli: u32,
    scale: Scale,
    z: f64,
    interval: f64,
    pause: f64,
    min_std: f64,
    min_mean: f64,
    clip: bool,
    min_sample_ns: u64,
    min_alpha: f64,
}

impl PhiPolicy {
    /// As what a longer gap counts, for who has this mean.
    const fn max_sample(&self, mean: f64) -> f64 {
        if self.clip { 2.0 * self.interval.max(mean) } else { f64::INFINITY }
    }

    /// The same policy with another threshold; one detector can be read at several, as degraded at
    /// 3 and lost at 8.
    ///
    /// # Errors
    ///
    /// A threshold outside 310 < x ≤ 300,000.
    pub fn at_threshold(&self, threshold_milli: u32) -> Result<Self, ConfigError> {
        if threshold_milli <= 310 || threshold_milli > 300_000 {
            let problem = format!("is {threshold_milli}, must be above 310 and at most 300000");
            return Err(ConfigError::new("threshold_milli", problem));
        }
        let z = z_of_phi(f64::from(threshold_milli) / 1_000.0, self.scale);
        Ok(Self { threshold_milli, z, ..*self })
    }

    /// The same detector read early: at phi 3, or the threshold if that is lower, and with half the
    /// pause. What it finds is on the way to suspicion.
    ///
    /// Source: Akka warns at two thirds of the pause; `ScyllaDB` has several listeners on one detector.
    #[must_use]
    pub fn doubting(&self) -> Self {
        let threshold_milli = self.threshold_milli.min(3_000);
        let z = z_of_phi(f64::from(threshold_milli) / 1_000.0, self.scale);
        Self { threshold_milli, z, pause: self.pause / 2.0, ..*self }
    }

    /// At which phi a peer is suspected, in thousandths.
    #[must_use]
    pub const fn threshold_milli(&self) -> u32 {
        self.threshold_milli
    }
}

/// What has been learned about the gaps between one peer's heartbeats.
///
/// # Examples
///
/// ```
/// use core::time::Duration;
/// use steadfast::phi::{Phi, PhiConfig};
///
/// let policy = PhiConfig::default().validate().unwrap();
/// let mut phi = Phi::new(&policy);
/// phi.sample(&policy, Duration::from_millis(1_020));
/// let silence = phi.suspect_after(&policy);
/// assert!(phi.phi_milli(&policy, silence) >= 8_000);
/// assert!(phi.phi_milli(&policy, silence - Duration::from_millis(1)) < 8_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Phi {
    /// Nanoseconds; written as bits, since decimal texts may lose the last of them.
    #[cfg_attr(feature = "serde", serde(with = "bits"))]
    mean: f64,
    #[cfg_attr(feature = "serde", serde(with = "bits"))]
    var: f64,
    samples: u32,
}

/// By the bits of the numbers, so that equal hashes mean the same behaviour.
impl Hash for Phi {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.mean.to_bits().hash(state);
        self.var.to_bits().hash(state);
        self.samples.hash(state);
    }
}

/// How many samples a detector still believes in after a reconnect.
const KEPT: u32 = 8;

impl Phi {
    /// A detector that has seen nothing: as if after two gaps, of ¾ and 5⁄4 of the expected one.
    ///
    /// Source: Akka's `firstHeartbeatEstimate`.
    #[must_use]
    pub fn new(policy: &PhiPolicy) -> Self {
        let deviation = policy.interval / 4.0;
        Self { mean: policy.interval, var: deviation * deviation, samples: 2 }
    }

    /// Learns from a gap between two heartbeats of one connection.
    ///
    /// A gap below 1 ms, or a tenth of the expected interval, is ignored: several heartbeats in
    /// one read are one. The caller leaves out gaps that ended in suspicion or crossed a pause of
    /// our own. O(1), no square root.
    pub fn sample(&mut self, policy: &PhiPolicy, silence: Duration) {
        let silence = nanos(silence);
        if silence < policy.min_sample_ns {
            return;
        }
        self.samples = self.samples.saturating_add(1);
        let alpha = (1.0 / f64::from(self.samples)).max(policy.min_alpha);
        let off = float(silence).min(policy.max_sample(self.mean)) - self.mean;
        self.mean += alpha * off;
        self.var = (1.0 - alpha) * (self.var + alpha * off * off);
    }

    /// The shortest silence at which phi reaches the threshold, to the nanosecond; saturating.
    #[must_use]
    pub fn suspect_after(&self, policy: &PhiPolicy) -> Duration {
        let margin = policy.pause + policy.z * self.deviation(policy);
        let silence = self.centre(policy) + margin;
        Duration::from_nanos(whole(libm::ceil(silence)))
    }

    /// The part of it that is caution: the pause and the deviations.
    #[must_use]
    pub fn margin(&self, policy: &PhiPolicy) -> Duration {
        Duration::from_nanos(whole(policy.pause + policy.z * self.deviation(policy)))
    }

    /// Phi of a silence in thousandths, rounded to the nearest; at most 1,000,000, never NaN.
    #[must_use]
    pub fn phi_milli(&self, policy: &PhiPolicy, silence: Duration) -> u32 {
        let mean = self.centre(policy) + policy.pause;
        let phi = phi_of(policy.scale, float(nanos(silence)), mean, self.deviation(policy));
        u32::try_from(whole(libm::round(phi * 1_000.0))).unwrap_or(1_000_000)
    }

    /// How many gaps it has learned from, the two of the first estimate included.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.samples
    }

    /// The mean gap.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(whole(self.mean))
    }

    /// The standard deviation of the gaps.
    #[must_use]
    pub fn std(&self) -> Duration {
        Duration::from_nanos(whole(libm::sqrt(self.var)))
    }

    /// Goes on with a new connection to the same endpoint: what was learned stays, but soon gives
    /// way to what comes.
    pub fn reconnected(&mut self) {
        self.samples = self.samples.min(KEPT);
    }

    /// Whether this detector could have arisen under some policy; for what was read from outside.
    ///
    /// Not only under `policy`: what was learned may be older than it.
    #[must_use]
    pub fn is_valid(&self, _policy: &PhiPolicy) -> bool {
        let longest = float(u64::MAX);
        // NaN lies in no range.
        self.samples >= 2
            && (0.0..=longest).contains(&self.mean)
            && (0.0..=longest * longest).contains(&self.var)
    }

    fn centre(&self, policy: &PhiPolicy) -> f64 {
        self.mean.max(policy.min_mean)
    }

    fn deviation(&self, policy: &PhiPolicy) -> f64 {
        libm::sqrt(self.var).max(policy.min_std)
    }
}

/// Phi of a silence of `elapsed` after gaps with this mean and standard deviation, in 0..=1000;
/// 0 where the numbers make no sense.
///
/// # Examples
///
/// ```
/// use steadfast::phi::{Scale, phi_of};
///
/// assert!((phi_of(Scale::Logistic, 1_200.0, 1_000.0, 100.0) - 1.6).abs() < 0.1);
/// ```
#[must_use]
pub fn phi_of(scale: Scale, elapsed: f64, mean: f64, std: f64) -> f64 {
    phi_of_z((elapsed - mean) / std, scale)
}

/// Phi of a silence that is `z` standard deviations longer than the mean, in 0..=1000; 0 for NaN.
///
/// To 14 digits at any z: the tail is never computed as 1 − cdf.
#[must_use]
pub fn phi_of_z(z: f64, scale: Scale) -> f64 {
    let phi = match scale {
        Scale::Normal if -z > 1.0 => -libm::log1p(-libm::erfc(-z * FRAC_1_SQRT_2) / 2.0) / LN_10,
        Scale::Normal => -upper_tail(z).ln_q / LN_10,
        Scale::Logistic => {
            let slope = z * (LINEAR + CUBIC * z * z);
            if slope > 0.0 {
                (slope + libm::log1p(libm::exp(-slope))) / LN_10
            } else {
                libm::log1p(libm::exp(slope)) / LN_10
            }
        }
    };
    // NaN fails both comparisons.
    if phi > 1_000.0 {
        1_000.0
    } else if phi > 0.0 {
        phi
    } else {
        0.0
    }
}

/// How many standard deviations beyond the mean phi is reached.
///
/// A phi below 0.31 (or NaN) counts as 0.31 and one above 10,000 as that. On the normal scale
/// Newton's method on ln Q, which is concave, so that it descends to the root from an upper bound
/// in four to six steps; on the logistic one in closed form.
#[must_use]
pub fn z_of_phi(phi: f64, scale: Scale) -> f64 {
    let phi = if phi >= 0.31 { phi.min(10_000.0) } else { 0.31 };
    let target = phi * LN_10;
    match scale {
        Scale::Normal => {
            // Q(z) ≤ exp(−z²/2)/2, hence an upper bound.
            let mut z = libm::sqrt(2.0 * (target - LN_2));
            for _ in 0..16 {
                let tail = upper_tail(z);
                let next = z + (tail.ln_q + target) / tail.hazard;
                // Not lower any more, or not a number: rounding is all that is left.
                if next < z {
                    z = next;
                } else {
                    break;
                }
            }
            z
        }
        Scale::Logistic => {
            // The one real root of CUBIC·z³ + LINEAR·z = ln(10^phi − 1).
            let q = (target + libm::log1p(-libm::exp(-target))) / CUBIC;
            let s = libm::sqrt(LINEAR / CUBIC / 3.0);
            2.0 * s * libm::sinh(libm::asinh(q / (2.0 * s * s * s)) / 3.0)
        }
    }
}

/// Akka's approximation of the normal distribution: 1/(1 + exp(−z(1.5976 + 0.070566 z²))).
const LINEAR: f64 = 1.5976;
const CUBIC: f64 = 0.070_566;

struct Tail {
    /// ln Q(z)
    ln_q: f64,
    /// The density over Q(z).
    hazard: f64,
}

fn upper_tail(z: f64) -> Tail {
    if z < 26.0 {
        let q = libm::erfc(z * FRAC_1_SQRT_2) / 2.0;
        let density = libm::exp(-z * z / 2.0) / libm::sqrt(2.0 * PI);
        return Tail { ln_q: libm::log(q), hazard: density / q };
    }
    // erfc would underflow from 38 on; Q(z) = density/z · (1 − 1/z² + 3/z⁴ − …).
    let u = 1.0 / z / z;
    let less = u * (1.0 - 3.0 * u * (1.0 - 5.0 * u * (1.0 - 7.0 * u * (1.0 - 9.0 * u))));
    let ln_q = -z * z / 2.0 - libm::log(z) - libm::log(2.0 * PI) / 2.0 + libm::log1p(-less);
    Tail { ln_q, hazard: z / (1.0 - less) }
}

/// Nanoseconds as a float: exact up to 104 days.
#[expect(clippy::cast_precision_loss, reason = "beyond 104 days a microsecond does not matter")]
const fn float(nanos: u64) -> f64 {
    nanos as f64
}

/// A float as whole nanoseconds, rounded down; negative and NaN are 0, too large is the end.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such a cast saturates, and takes NaN to 0"
)]
const fn whole(nanos: f64) -> u64 {
    nanos as u64
}

#[cfg(feature = "serde")]
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        number.to_bits().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn policy(config: PhiConfig) -> PhiPolicy {
        config.validate().unwrap()
    }

    /// As Akka has it: no floor, no clip, no pause.
    fn akka() -> PhiPolicy {
        policy(PhiConfig {
            scale: Scale::Logistic,
            acceptable_pause: Duration::ZERO,
            floor: false,
            clip: false,
            memory: 1_000,
            ..PhiConfig::default()
        })
    }

    fn near(actual: f64, expected: f64, tolerance: f64) {
        assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected}");
    }

    #[test]
    fn z_table_to_eight_digits_on_both_scales() {
        let table = [
            (1.0, 1.281_551_57, 1.282_215_34, 1.0005),
            (2.0, 2.326_347_87, 2.322_745_54, 1.996),
            (3.0, 3.090_232_31, 3.058_937_82, 2.954),
            (5.0, 4.264_890_79, 4.119_191_49, 4.721),
            (8.0, 5.612_001_24, 5.225_986_64, 7.062),
            (10.0, 6.361_340_90, 5.799_024_71, 8.477),
            (12.0, 7.034_483_83, 6.292_124_10, 9.805),
            (14.0, 7.650_628_09, 6.727_704_44, 11.065),
            (16.0, 8.222_082_22, 7.119_680_93, 12.267),
            (30.0, 11.464_024_7, 9.170_745_13, 19.63),
        ];
        for (phi, normal, logistic, true_phi) in table {
            near(z_of_phi(phi, Scale::Normal) / normal, 1.0, 5e-9);
            near(z_of_phi(phi, Scale::Logistic) / logistic, 1.0, 5e-9);
            near(phi_of_z(logistic, Scale::Normal) / true_phi, 1.0, 1e-3);
        }
    }

    #[test]
    fn z_and_phi_are_inverse_over_the_whole_range() {
        for scale in [Scale::Normal, Scale::Logistic] {
            let mut before = 0.0;
            for step in 0..3_000_u32 {
                let phi = 0.311 + f64::from(step) * 0.1;
                let z = z_of_phi(phi, scale);
                near(phi_of_z(z, scale) / phi, 1.0, 1e-13);
                assert!(z > before, "{scale:?} {phi}");
                before = z;
            }
        }
    }

    #[test]
    fn the_two_ways_to_the_tail_meet() {
        let (low, high) = (26_f64.next_down(), 26.0);
        near(upper_tail(low).ln_q / upper_tail(high).ln_q, 1.0, 1e-14);
        near(upper_tail(low).hazard / upper_tail(high).hazard, 1.0, 1e-12);
        near(phi_of_z(-1.0 - 1e-12, Scale::Normal), phi_of_z(-1.0, Scale::Normal), 1e-12);
    }

    #[test]
    fn neither_far_below_the_mean_nor_far_above_it_do_digits_get_lost() {
        // Q(10), as tables print it: how much less than 1 the probability of so short a silence is.
        let tail = 7.619_853_024_160_527e-24;
        near(phi_of_z(-10.0, Scale::Normal) * LN_10 / tail, 1.0, 1e-14);
        for scale in [Scale::Normal, Scale::Logistic] {
            near(phi_of_z(z_of_phi(999.0, scale), scale) / 999.0, 1.0, 1e-13);
            near(phi_of_z(z_of_phi(1_001.0, scale), scale), 1_000.0, 0.0);
        }
    }

    #[test]
    fn no_number_makes_it_nan_or_leaves_its_range() {
        let odd = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.0,
            -0.0,
            1e300,
            -1e300,
            f64::MIN_POSITIVE,
        ];
        for scale in [Scale::Normal, Scale::Logistic] {
            for a in odd {
                assert!(z_of_phi(a, scale).is_finite(), "{a}");
                for b in odd {
                    for c in odd {
                        let phi = phi_of(scale, a, b, c);
                        assert!((0.0..=1_000.0).contains(&phi), "{a} {b} {c}: {phi}");
                    }
                }
            }
        }
    }

    // Akka: PhiAccrualFailureDetectorSpec.

    #[test]
    fn akka_cdf_of_its_logistic_fit() {
        // The cumulative normal distribution at y, as tables print it.
        let table = [
            (0.6, 0.7257),
            (1.5, 0.9332),
            (2.0, 0.9772),
            (2.5, 0.9938),
            (3.5, 0.9998),
            (4.0, 0.9999),
        ];
        for (y, cdf) in table {
            for scale in [Scale::Normal, Scale::Logistic] {
                near(1.0 - libm::exp(-phi_of_z(y, scale) * LN_10), cdf, 1e-3);
            }
        }
    }

    #[test]
    fn akka_phi_of_a_second_and_a_tenth() {
        let table = [
            (0.0, 0.0),
            (500.0, 0.1),
            (1_000.0, 0.3),
            (1_200.0, 1.6),
            (1_400.0, 4.7),
            (1_600.0, 10.8),
            (1_700.0, 15.3),
        ];
        for (elapsed, phi) in table {
            near(phi_of(Scale::Logistic, elapsed, 1_000.0, 100.0), phi, 0.1);
        }
        near(phi_of(Scale::Logistic, 10.0, 0.0, 1.0), 38.0, 1.0);
        near(phi_of(Scale::Logistic, -25.0, 0.0, 1.0), 0.0, 0.0);
    }

    #[test]
    fn akka_phi_after_one_heartbeat_comes_from_the_estimate() {
        let policy = akka();
        let phi = Phi::new(&policy);
        let at = |millis| f64::from(phi.phi_milli(&policy, ms(millis))) / 1_000.0;
        near(at(1_000), 0.3, 0.2);
        near(at(2_000), 4.5, 0.3);
        assert!(at(3_000) > 15.0);
    }

    #[test]
    fn akka_mean_and_variance_of_all_samples() {
        let policy =
            policy(PhiConfig { expected_interval: ms(100), clip: false, ..Default::default() });
        let mut phi = Phi { mean: 1e8, var: 0.0, samples: 1 };
        for millis in [200, 125, 340, 130] {
            phi.sample(&policy, ms(millis));
        }
        near(phi.mean / 1e6, 179.0, 1e-9);
        near(phi.var / 1e12, 7_584.0, 1e-6);
    }

    // Behaviour.

    #[test]
    fn the_default_suspects_after_mean_pause_and_z_deviations() {
        let policy = policy(PhiConfig::default());
        let mut phi = Phi::new(&policy);
        // 1 s + 3 s + 5.612 · 250 ms
        assert_eq!(phi.suspect_after(&policy).as_millis(), 5_403);
        assert_eq!(phi.margin(&policy).as_millis(), 4_403);
        assert_eq!(phi.samples(), 2);
        for _ in 0..1_000 {
            phi.sample(&policy, ms(1_000));
        }
        // The deviation has sunk to its floor of 100 ms.
        assert_eq!(phi.suspect_after(&policy).as_millis(), 4_561);
        assert_eq!(phi.margin(&policy).as_millis(), 3_561);
        assert_eq!(phi.samples(), 1_002);
        assert_eq!((phi.mean(), phi.std()), (ms(1_000), phi.std().min(ms(20))));
    }

    #[test]
    fn the_floor_keeps_a_burst_of_traffic_from_shortening_the_patience() {
        let config = PhiConfig { acceptable_pause: Duration::ZERO, ..Default::default() };
        let (with, without) = (policy(config), policy(PhiConfig { floor: false, ..config }));
        let mut phi = Phi::new(&with);
        for _ in 0..1_000 {
            phi.sample(&with, ms(100));
        }
        assert!(phi.suspect_after(&with) > ms(1_500));
        assert!(phi.suspect_after(&without) < ms(700));
    }

    #[test]
    fn several_heartbeats_in_one_read_are_one() {
        let policy = policy(PhiConfig::default());
        let mut phi = Phi::new(&policy);
        let before = phi;
        for silence in [Duration::ZERO, ms(1), ms(99)] {
            phi.sample(&policy, silence);
        }
        assert_eq!(phi, before);
        phi.sample(&policy, ms(100));
        assert_ne!(phi, before);
    }

    #[test]
    fn a_long_gap_counts_as_twice_the_expected_one() {
        let policy = policy(PhiConfig::default());
        let (mut long, mut twice) = (Phi::new(&policy), Phi::new(&policy));
        long.sample(&policy, Duration::MAX);
        twice.sample(&policy, ms(2_000));
        assert_eq!(long, twice);
    }

    #[test]
    fn a_lower_threshold_is_reached_earlier_by_the_same_detector() {
        let lost = policy(PhiConfig::default());
        let degraded = lost.at_threshold(3_000).unwrap();
        let phi = Phi::new(&lost);
        assert!(phi.suspect_after(&degraded) < phi.suspect_after(&lost));
        assert_eq!(degraded.threshold_milli(), 3_000);
        let doubting = lost.doubting();
        assert_eq!(doubting.threshold_milli(), 3_000);
        // 1 s + 1.5 s + 3.0902 · 250 ms
        assert_eq!(phi.suspect_after(&doubting).as_millis(), 3_272);
        assert_eq!(lost.at_threshold(500).unwrap().doubting().threshold_milli(), 500);
    }

    #[test]
    fn detectors_have_the_same_hash_if_they_are_the_same_in_all_that_they_know() {
        let hash = |phi: &Phi| {
            let mut hasher = std::hash::DefaultHasher::new();
            phi.hash(&mut hasher);
            hasher.finish()
        };
        let phi = Phi::new(&policy(PhiConfig::default()));
        let next = |number: f64| number.next_up();
        for other in [
            Phi { mean: next(phi.mean), ..phi },
            Phi { var: next(phi.var), ..phi },
            Phi { samples: 3, ..phi },
        ] {
            assert_ne!(hash(&other), hash(&phi), "{other:?}");
        }
        assert_eq!(hash(&phi.clone()), hash(&phi));
    }

    #[test]
    fn a_reconnect_lets_new_gaps_weigh_more_and_forgets_nothing_at_once() {
        let policy = policy(PhiConfig::default());
        let mut phi = Phi::new(&policy);
        for _ in 0..1_000 {
            phi.sample(&policy, ms(1_000));
        }
        let mut again = phi;
        again.reconnected();
        assert_eq!(again.mean(), phi.mean());
        phi.sample(&policy, ms(1_800));
        again.sample(&policy, ms(1_800));
        assert!(again.mean() > phi.mean());
        let mut fresh = Phi::new(&policy);
        fresh.reconnected();
        assert_eq!(fresh, Phi::new(&policy));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let field = |config: PhiConfig| config.validate().map_err(|e| e.field().to_owned());
        let default = PhiConfig::default();
        for threshold_milli in [0, 310, 300_001, u32::MAX] {
            let config = PhiConfig { threshold_milli, ..default };
            assert_eq!(field(config), Err("threshold_milli".into()));
        }
        for threshold_milli in [311, 300_000] {
            assert!(field(PhiConfig { threshold_milli, ..default }).is_ok());
        }
        let zero = PhiConfig { expected_interval: Duration::ZERO, ..default };
        assert_eq!(field(zero), Err("expected_interval".into()));
        let zero = PhiConfig { min_std: Some(Duration::ZERO), ..default };
        assert_eq!(field(zero), Err("min_std".into()));
        assert_eq!(field(PhiConfig { memory: 1, ..default }), Err("memory".into()));
        assert!(field(PhiConfig { memory: 2, ..default }).is_ok());
        let longest = PhiConfig {
            expected_interval: Duration::MAX,
            acceptable_pause: Duration::MAX,
            ..default
        };
        let policy = longest.validate().unwrap();
        assert_eq!(Phi::new(&policy).suspect_after(&policy), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_stored_detector_is_the_same_to_the_last_bit_and_a_hostile_one_is_not_valid() {
        let policy = policy(PhiConfig::default());
        let mut phi = Phi::new(&policy);
        for millis in (900..1_100).step_by(7) {
            phi.sample(&policy, ms(millis));
        }
        let json = serde_json::to_string(&phi).unwrap();
        assert_eq!(serde_json::from_str::<Phi>(&json).unwrap(), phi);
        assert!(phi.is_valid(&policy));
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e30] {
            assert!(!Phi { mean: bad, ..phi }.is_valid(&policy), "mean {bad}");
        }
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e60] {
            assert!(!Phi { var: bad, ..phi }.is_valid(&policy), "var {bad}");
        }
        assert!(!Phi { samples: 1, ..phi }.is_valid(&policy));
        let hostile = Phi { mean: f64::NAN, var: f64::NAN, samples: 0 };
        assert!(hostile.phi_milli(&policy, ms(1_000)) <= 1_000_000);
        let _ = (hostile.suspect_after(&policy), hostile.mean(), hostile.std());
    }

    proptest! {
        #[test]
        fn suspicion_is_the_moment_at_which_phi_reaches_the_threshold(
            gaps in proptest::collection::vec(any::<u32>(), 0..200),
            interval in 1_u64..100_000_000_000,
            threshold_milli in 311_u32..100_000,
            logistic in any::<bool>(),
            floor in any::<bool>(),
            clip in any::<bool>(),
            silence in any::<u64>(),
        ) {
            let policy = policy(PhiConfig {
                threshold_milli,
                scale: if logistic { Scale::Logistic } else { Scale::Normal },
                expected_interval: Duration::from_nanos(interval),
                floor,
                clip,
                ..Default::default()
            });
            let mut phi = Phi::new(&policy);
            for gap in gaps {
                phi.sample(&policy, Duration::from_micros(gap.into()));
            }
            prop_assert!(phi.is_valid(&policy), "{:?}", phi);
            let after = phi.suspect_after(&policy);
            prop_assert!(phi.phi_milli(&policy, after) >= threshold_milli);
            let early = after.mul_f64(0.99);
            prop_assert!(phi.phi_milli(&policy, early) <= threshold_milli);
            prop_assert!(phi.phi_milli(&policy, Duration::from_nanos(silence)) <= 1_000_000);
        }
    }
}
