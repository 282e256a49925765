//! How a scenario writes quantities: `250ms`, `2000/s`, `0.1%`, `lognormal(p50=20ms, p99=200ms)`.
//!
//! Everything here is read by [`FromStr`] and printed by [`Display`](fmt::Display) in the same
//! grammar, so that `explain` prints what a file could have said.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A text that is not what it should be; the message says what would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl ParseError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// Makes a type a string for serde, through its `FromStr` and `Display`.
macro_rules! as_text {
    ($name:ty, $expecting:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                from.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use as_text;

/// A span of time: `250ms`, `1.5s`, `2m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// The units, longest first, in nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// That many nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// That many seconds, saturating.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The next whole number of `units`, saturating.
    #[must_use]
    pub(crate) const fn rounded_up(self, unit: Self) -> Self {
        Self(self.0.div_ceil(if unit.0 > 0 { unit.0 } else { 1 }).saturating_mul(unit.0))
    }

    /// In seconds, for printing and ratios.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        seconds(self.0)
    }
}

/// Nanoseconds as seconds; exact to a nanosecond up to three months.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "for printing")]
pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_nanos(span.0)
    }
}

/// In the longest unit in which it is a whole number.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let fits = UNITS.iter().find(|(_, nanos)| self.0.is_multiple_of(*nanos));
        match fits {
            Some((unit, nanos)) => write!(f, "{}{unit}", self.0 / nanos),
            None => write!(f, "{}ns", self.0),
        }
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            ParseError::new(format!("`{text}` is no span of time; write it as 250ms, 1.5s or 2m"))
        };
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || decimals.is_empty() || decimals.len() > 9 || decimals.contains('.') {
            return Err(wrong());
        }
        let mut scale = 1;
        for _ in 0..decimals.len() {
            scale *= 10;
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let decimals: u64 = decimals.parse().map_err(|_| wrong())?;
        // At most 9 decimals of an hour: no overflow in 128 bits.
        let rest = u128::from(decimals) * u128::from(*nanos) / scale;
        let total = u128::from(whole) * u128::from(*nanos) + rest;
        u64::try_from(total).map(Self).map_err(|_| wrong())
    }
}

as_text!(Span, "a span of time in quotes, as \"250ms\"");

/// So many per span: `2000/s`, `50000/m`, `1/250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Span,
}

impl Rate {
    /// The time between two, at least a nanosecond.
    #[must_use]
    pub fn period(self) -> Span {
        Span((self.per.0 / u64::from(self.count.max(1))).max(1))
    }

    /// How many a second, for printing and ratios.
    #[must_use]
    pub fn per_second(self) -> f64 {
        f64::from(self.count) / self.per.as_secs_f64()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = self.per.to_string();
        write!(f, "{}/{}", self.count, per.strip_prefix('1').filter(is_unit).unwrap_or(&per))
    }
}

fn is_unit(text: &&str) -> bool {
    UNITS.iter().any(|(unit, _)| unit == text)
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong =
            || ParseError::new(format!("`{text}` is no rate; write it as 2000/s or 50000/m"));
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        let count = count.trim().parse().map_err(|_| wrong())?;
        let per = per.trim();
        let per = if is_unit(&per) { format!("1{per}").parse() } else { per.parse::<Span>() };
        let per = per.map_err(|_| wrong())?;
        if count == 0 || per == Span::ZERO {
            return Err(ParseError::new(format!("`{text}`: a rate of zero; leave it out instead")));
        }
        Ok(Self { count, per })
    }
}

as_text!(Rate, "a rate in quotes, as \"2000/s\"");

/// A share of a whole: `0.001`, or `"0.1%"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// The share as a number from 0 to 1; `None` outside.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// From 0 to 1.
    #[must_use]
    pub const fn as_f64(self) -> f64 {
        self.0
    }

    /// Whether the draw of 64 uniform bits falls within this share.
    #[must_use]
    pub fn hits(self, random: u64) -> bool {
        crate::dist::unit(random) < self.0
    }
}

/// As a plain number.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Share {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (number, scale) = match text.trim().strip_suffix('%') {
            Some(percent) => (percent.trim(), 100.0),
            None => (text.trim(), 1.0),
        };
        let share = number.parse::<f64>().ok().and_then(|number| Self::new(number / scale));
        let wrong = || format!("`{text}` is no share; write it as 0.001 or 0.1%, from 0 to 1");
        share.ok_or_else(|| ParseError::new(wrong()))
    }
}

impl serde::Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;

        impl serde::de::Visitor<'_> for Number {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share, as 0.001 or \"0.1%\"")
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Share, E> {
                let wrong = || E::custom(format!("{number} is no share; it must be from 0 to 1"));
                Share::new(number).ok_or_else(wrong)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Share, E> {
                match number {
                    0 => Ok(Share(0.0)),
                    1 => Ok(Share(1.0)),
                    _ => Err(E::custom(format!("{number} is no share; it must be from 0 to 1"))),
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map_err(E::custom)
            }
        }

        from.deserialize_any(Number)
    }
}

/// `name`, `name(value)` or `name(key=value, …)`, split but not yet understood.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) name: &'a str,
    arguments: Vec<(&'a str, &'a str)>,
}

impl<'a> Call<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let Some((name, rest)) = text.split_once('(') else {
            return Some(Self { name: text, arguments: Vec::new() });
        };
        let inside = rest.strip_suffix(')')?.trim();
        let split = |argument: &'a str| match argument.split_once('=') {
            Some((key, value)) => (key.trim(), value.trim()),
            None => ("", argument.trim()),
        };
        let arguments = match inside {
            "" => Vec::new(),
            _ => inside.split(',').map(split).collect(),
        };
        Some(Self { name: name.trim(), arguments })
    }

    /// Takes the argument of that key (`""`: the one without a key) and reads it, if it is given.
    pub(crate) fn take<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, ParseError>
    where
        T::Err: fmt::Display,
    {
        let Some(place) = self.arguments.iter().position(|(name, _)| *name == key) else {
            return Ok(None);
        };
        let (_, value) = self.arguments.remove(place);
        value.parse().map(Some).map_err(|error: T::Err| ParseError::new(error.to_string()))
    }

    /// The same for an argument that must be there.
    pub(crate) fn need<T: FromStr>(&mut self, key: &str) -> Result<T, ParseError>
    where
        T::Err: fmt::Display,
    {
        let missing = match key {
            "" => format!("`{}` needs a value in brackets", self.name),
            _ => format!("`{}` needs {key}=…", self.name),
        };
        self.take(key)?.ok_or_else(|| ParseError::new(missing))
    }

    /// Refuses whatever was not taken.
    pub(crate) fn end(&self) -> Result<(), ParseError> {
        match self.arguments.first() {
            None => Ok(()),
            Some(("", value)) => {
                Err(ParseError::new(format!("`{}` takes no `{value}`", self.name)))
            }
            Some((key, _)) => Err(ParseError::new(format!("`{}` takes no `{key}`", self.name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read_exactly() {
        let nanos = |text: &str| text.parse::<Span>().map(Span::as_nanos);
        assert_eq!(nanos("250ms"), Ok(250_000_000));
        assert_eq!(nanos("1.5s"), Ok(1_500_000_000));
        assert_eq!(nanos("0.1s"), Ok(100_000_000));
        assert_eq!(nanos("2m"), Ok(120_000_000_000));
        assert_eq!(nanos("0s"), Ok(0));
        for bad in
            ["", "s", "5", "1.s", ".5s", "-1s", "1e3s", "5 bananas", "99999999999h", "1.2.3s"]
        {
            assert!(nanos(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_read_and_zero_is_refused() {
        let rate = "2000/s".parse::<Rate>().unwrap();
        assert_eq!(rate.period(), Span::from_nanos(500_000));
        assert_eq!("1/250ms".parse::<Rate>().unwrap().to_string(), "1/250ms");
        assert_eq!("6/1m".parse::<Rate>().unwrap().to_string(), "6/m");
        for bad in ["0/s", "5/0s", "5", "x/s", "5/", "/s", "-1/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_lies_between_nothing_and_all() {
        assert_eq!("0.1%".parse::<Share>().unwrap().as_f64(), 0.001);
        for bad in ["-1", "1.1", "101%", "NaN", "", "x"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert!(!Share(0.0).hits(0));
        assert!(Share(1.0).hits(u64::MAX));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos: u64, count in 1_u32.., per in 1_u64..) {
            let span = Span::from_nanos(nanos);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let rate = Rate { count, per: Span::from_nanos(per) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,24}") {
            let _ = text.parse::<Span>();
            let _ = text.parse::<Rate>();
            let _ = text.parse::<Share>();
            if let Some(mut call) = Call::parse(&text) {
                let _ = call.take::<Span>("");
                let _ = call.end();
            }
        }
    }
}
