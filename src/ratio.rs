//! Exact ratios: growth factors, rates and shares without floats.

use core::fmt;
use core::str::FromStr;

/// A ratio of two integers, for factors (`2`, `1.6`) and shares (`0.5`, `50%`).
///
/// Floats would make a threshold depend on rounding; this one compares exactly, on every platform.
/// Equality is of the two numbers as written: `1/2` and `2/4` differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Ratio {
    /// The numerator.
    pub numerator: u32,
    /// The denominator; 0 is refused by whatever configuration uses the ratio.
    pub denominator: u32,
}

impl Ratio {
    /// The ratio `numerator / denominator`.
    #[must_use]
    pub const fn new(numerator: u32, denominator: u32) -> Self {
        Self { numerator, denominator }
    }

    /// The ratio `percent / 100`.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self::new(percent, 100)
    }

    /// Whether `part / whole` has reached this ratio; `false` while `whole` is 0.
    #[must_use]
    pub const fn is_reached_by(self, part: u32, whole: u32) -> bool {
        whole > 0 && part as u64 * self.denominator as u64 >= whole as u64 * self.numerator as u64
    }

    /// The ratio of `value`, rounded down, saturating; 0 if the denominator is 0.
    #[must_use]
    pub fn of(self, value: u64) -> u64 {
        let product = u128::from(value) * u128::from(self.numerator);
        let quotient = product.checked_div(u128::from(self.denominator)).unwrap_or_default();
        u64::try_from(quotient).unwrap_or(u64::MAX)
    }

    /// Whether it is at least one.
    #[must_use]
    pub const fn is_at_least_one(self) -> bool {
        self.numerator >= self.denominator
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

/// A text that is not a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseRatioError;

impl fmt::Display for ParseRatioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a ratio is written as 1.6, 8/5 or 15%, from 0, with at most six decimals")
    }
}

impl core::error::Error for ParseRatioError {}

/// Reads `1.6`, `8/5` and `15%`; exactly, never through a float.
impl FromStr for Ratio {
    type Err = ParseRatioError;

    fn from_str(text: &str) -> Result<Self, ParseRatioError> {
        if let Some((numerator, denominator)) = text.split_once('/') {
            let parse = |part: &str| part.trim().parse::<u32>().map_err(|_| ParseRatioError);
            return Ok(Self::new(parse(numerator)?, parse(denominator)?));
        }
        let (text, scale) = match text.strip_suffix('%') {
            Some(percent) => (percent.trim(), 100),
            None => (text.trim(), 1),
        };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        if decimals.len() > 6 {
            return Err(ParseRatioError);
        }
        // An empty text is no number either.
        let digits = |part: &str| {
            let plain = part.bytes().all(|byte| byte.is_ascii_digit());
            if plain {
                part.parse::<u32>().map_err(|_| ParseRatioError)
            } else {
                Err(ParseRatioError)
            }
        };
        let mut power = 1_u32;
        for _ in 0..decimals.len() {
            power *= 10;
        }
        let numerator = digits(whole)?
            .checked_mul(power)
            .and_then(|whole| whole.checked_add(digits(decimals).ok()?))
            .ok_or(ParseRatioError)?;
        let denominator = power * scale;
        let divisor = gcd(numerator, denominator);
        Ok(Self::new(numerator / divisor, denominator / divisor))
    }
}

/// The greatest common divisor; `b` is at least 1.
const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn it_reads_what_people_write_exactly() {
        assert_eq!("1.6".parse(), Ok(Ratio::new(8, 5)));
        assert_eq!("2".parse(), Ok(Ratio::new(2, 1)));
        assert_eq!("3/2".parse(), Ok(Ratio::new(3, 2)));
        assert_eq!("15%".parse(), Ok(Ratio::new(3, 20)));
        assert_eq!("0".parse(), Ok(Ratio::new(0, 1)));
        assert_eq!("1.234567".parse(), Ok(Ratio::new(1_234_567, 1_000_000)));
        let bad = ["", "NaN", "-1", "1.", ".5", ".", "%", "1.2345678", "99999999999", "1e3"];
        for bad in bad.into_iter().chain(["1.-5", "1.e", "+1", "a/b", "/"]) {
            assert_eq!(bad.parse::<Ratio>(), Err(ParseRatioError), "{bad}");
        }
        assert_eq!(
            ParseRatioError.to_string(),
            "a ratio is written as 1.6, 8/5 or 15%, from 0, with at most six decimals"
        );
    }

    #[test]
    fn a_share_is_reached_at_the_boundary_and_not_by_nothing() {
        let half = Ratio::percent(50);
        assert!(half.is_reached_by(1, 2));
        assert!(!half.is_reached_by(1, 3));
        assert!(!half.is_reached_by(0, 0));
        assert_eq!(Ratio::new(3, 2).of(5), 7);
        assert_eq!(Ratio::new(3, 0).of(5), 0);
        assert_eq!(Ratio::new(3, 1).of(u64::MAX), u64::MAX);
    }
}
