//! The core's settings that are more than a number, as words of a scenario.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use steadfast::Ratio;
use steadfast::backoff::Jitter;
use steadfast::breaker::RateRule;
use steadfast::config::{FirstRetry, OnSuspect, Signs};
use steadfast::phi::{PhiConfig, Scale};
use steadfast::probe::ProbeConfig;
use steadfast::window;

use crate::units::{Call, ParseError, Span, as_text};

/// A setting of the core, as a word.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident($inner:ty), $expecting:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $inner);

        as_text!($name, $expecting);
    };
}

word! {
    /// A growth factor: `2`, `1.6`, `8/5`.
    RatioWord(Ratio), "a ratio in quotes, as \"1.6\""
}
word! {
    /// `none`, `full`, `equal`, `decorrelated` or `proportional(20%)`.
    JitterWord(Jitter), "a kind of jitter in quotes, as \"full\""
}
word! {
    /// `spread(120s)`, `backoff` or `immediate`.
    FirstRetryWord(FirstRetry), "a kind of first retry in quotes, as \"spread(120s)\""
}
word! {
    /// `unmonitored`, `heartbeats` or `pings(interval=10s, timeout=5s)`.
    SignsWord(Signs), "where signs of life come from, in quotes, as \"heartbeats\""
}
word! {
    /// `deadline(30s)` or `phi(threshold=8, interval=1s, pause=3s)`.
    Detector(steadfast::config::Detector), "a detector in quotes, as \"deadline(30s)\""
}
word! {
    /// `drop` or `notify`.
    OnSuspectWord(OnSuspect), "\"drop\" or \"notify\""
}

/// When a breaker opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// Never.
    Off,
    /// After so many failures in a row.
    Consecutive(u32),
    /// At a share of the outcomes.
    Rates(RateRule),
}

impl Trip {
    /// The core's rules for it.
    pub(super) const fn rules(self) -> (Option<u32>, Option<RateRule>) {
        match self {
            Self::Off => (None, None),
            Self::Consecutive(failures) => (Some(failures), None),
            Self::Rates(rates) => (None, Some(rates)),
        }
    }
}

as_text!(Trip, "when the breaker opens, in quotes, as \"consecutive(5)\" or \"off\"");

pub(super) fn call<'a>(text: &'a str, choices: &str) -> Result<Call<'a>, ParseError> {
    Call::parse(text).ok_or_else(|| none_of(text, choices))
}

pub(super) fn none_of(text: &str, choices: &str) -> ParseError {
    ParseError::new(format!("`{text}` is unknown; it may be {choices}"))
}

pub(super) fn span(duration: Duration) -> Span {
    Span::from_nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

impl fmt::Display for RatioWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for RatioWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self).map_err(|error| ParseError::new(format!("`{text}`: {error}")))
    }
}

impl fmt::Display for JitterWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Jitter::None => f.write_str("none"),
            Jitter::Proportional(share) => write!(f, "proportional({share})"),
            Jitter::Full => f.write_str("full"),
            Jitter::Equal => f.write_str("equal"),
            Jitter::Decorrelated => f.write_str("decorrelated"),
        }
    }
}

impl FromStr for JitterWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "none, full, equal, decorrelated, proportional(20%)";
        let mut call = call(text, choices)?;
        let jitter = match call.name {
            "none" => Jitter::None,
            "full" => Jitter::Full,
            "equal" => Jitter::Equal,
            "decorrelated" => Jitter::Decorrelated,
            "proportional" => Jitter::Proportional(call.need::<RatioWord>("")?.0),
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(Self(jitter))
    }
}

impl fmt::Display for FirstRetryWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FirstRetry::Spread { max } => write!(f, "spread({})", span(max)),
            FirstRetry::Backoff => f.write_str("backoff"),
            FirstRetry::Immediate => f.write_str("immediate"),
        }
    }
}

impl FromStr for FirstRetryWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "spread(120s), backoff, immediate";
        let mut call = call(text, choices)?;
        let first_retry = match call.name {
            "spread" => FirstRetry::Spread { max: call.need::<Span>("")?.into() },
            "backoff" => FirstRetry::Backoff,
            "immediate" => FirstRetry::Immediate,
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(Self(first_retry))
    }
}

impl fmt::Display for SignsWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Signs::Unmonitored => f.write_str("unmonitored"),
            Signs::Heartbeats => f.write_str("heartbeats"),
            Signs::Pings(probe) => {
                write!(
                    f,
                    "pings(interval={}, timeout={}",
                    span(probe.interval),
                    span(probe.timeout)
                )?;
                let (unhealthy, healthy) = (probe.unhealthy_threshold, probe.healthy_threshold);
                write!(f, ", unhealthy={unhealthy}, healthy={healthy})")
            }
        }
    }
}

impl FromStr for SignsWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "unmonitored, heartbeats, pings(interval=10s, timeout=5s)";
        let mut call = call(text, choices)?;
        let signs = match call.name {
            "unmonitored" => Signs::Unmonitored,
            "heartbeats" => Signs::Heartbeats,
            "pings" => {
                let mut probe = ProbeConfig::default();
                set(&mut probe.interval, call.take::<Span>("interval")?);
                set(&mut probe.timeout, call.take::<Span>("timeout")?);
                set(&mut probe.unhealthy_threshold, call.take::<u32>("unhealthy")?);
                set(&mut probe.healthy_threshold, call.take::<u32>("healthy")?);
                Signs::Pings(probe)
            }
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(Self(signs))
    }
}

/// Sets what is given.
pub(super) fn set<T, V: Into<T>>(place: &mut T, value: Option<V>) {
    if let Some(value) = value {
        *place = value.into();
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phi = match self.0 {
            steadfast::config::Detector::Deadline(deadline) => {
                return write!(f, "deadline({})", span(deadline));
            }
            steadfast::config::Detector::Phi(phi) => phi,
        };
        let (whole, milli) = (phi.threshold_milli / 1_000, phi.threshold_milli % 1_000);
        write!(f, "phi(threshold={whole}.{milli:03}")?;
        write!(f, ", interval={}", span(phi.expected_interval))?;
        write!(f, ", pause={}", span(phi.acceptable_pause))?;
        if let Some(min_std) = phi.min_std {
            write!(f, ", min_std={}", span(min_std))?;
        }
        let scale = if phi.scale == Scale::Normal { "normal" } else { "logistic" };
        write!(f, ", scale={scale}, floor={}, clip={}", phi.floor, phi.clip)?;
        write!(f, ", memory={})", phi.memory)
    }
}

impl FromStr for Detector {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "deadline(30s), phi(threshold=8)";
        let mut call = call(text, choices)?;
        let detector = match call.name {
            "deadline" => steadfast::config::Detector::Deadline(call.need::<Span>("")?.into()),
            "phi" => {
                let mut phi = PhiConfig::default();
                if let Some(threshold) = call.take::<RatioWord>("threshold")? {
                    let milli = threshold.0.of(1_000);
                    phi.threshold_milli = u32::try_from(milli).unwrap_or(u32::MAX);
                }
                set(&mut phi.expected_interval, call.take::<Span>("interval")?);
                set(&mut phi.acceptable_pause, call.take::<Span>("pause")?);
                phi.min_std = call.take::<Span>("min_std")?.map(Into::into).or(phi.min_std);
                phi.scale = match call.take::<String>("scale")?.as_deref() {
                    None | Some("normal") => Scale::Normal,
                    Some("logistic") => Scale::Logistic,
                    Some(other) => return Err(none_of(other, "normal, logistic")),
                };
                set(&mut phi.floor, call.take::<bool>("floor")?);
                set(&mut phi.clip, call.take::<bool>("clip")?);
                set(&mut phi.memory, call.take::<u32>("memory")?);
                steadfast::config::Detector::Phi(phi)
            }
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(Self(detector))
    }
}

impl fmt::Display for OnSuspectWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == OnSuspect::Notify { "notify" } else { "drop" })
    }
}

impl FromStr for OnSuspectWord {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "drop" => Ok(Self(OnSuspect::Drop)),
            "notify" => Ok(Self(OnSuspect::Notify)),
            _ => Err(none_of(text, "drop, notify")),
        }
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Consecutive(failures) => write!(f, "consecutive({failures})"),
            Self::Rates(RateRule {
                window,
                min_calls,
                failure_rate,
                slow_rate,
                unhealthy_rate,
            }) => {
                match window {
                    window::Span::Count(last) => write!(f, "rate(last={last}")?,
                    window::Span::Time(within) => write!(f, "rate(within={}", span(*within))?,
                }
                write!(f, ", min={min_calls}")?;
                let rates =
                    [("failed", failure_rate), ("slow", slow_rate), ("unhealthy", unhealthy_rate)];
                for (name, rate) in rates {
                    if let Some(rate) = rate {
                        write!(f, ", {name}={rate}")?;
                    }
                }
                f.write_str(")")
            }
        }
    }
}

impl FromStr for Trip {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let choices = "off, consecutive(5), rate(last=100, min=10, failed=50%, slow=50%)";
        let mut call = call(text, choices)?;
        let trip = match call.name {
            "off" => Self::Off,
            "consecutive" => Self::Consecutive(call.need("")?),
            "rate" => {
                let mut rates = RateRule { failure_rate: None, ..RateRule::default() };
                set(&mut rates.window, call.take::<u32>("last")?.map(window::Span::Count));
                let within = call.take::<Span>("within")?;
                set(&mut rates.window, within.map(|span| window::Span::Time(span.into())));
                set(&mut rates.min_calls, call.take::<u32>("min")?);
                let mut rate = |name| call.take::<RatioWord>(name).map(|word| word.map(|w| w.0));
                rates.failure_rate = rate("failed")?;
                rates.slow_rate = rate("slow")?;
                rates.unhealthy_rate = rate("unhealthy")?;
                Self::Rates(rates)
            }
            _ => return Err(none_of(text, choices)),
        };
        call.end()?;
        Ok(trip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trips<T: FromStr<Err = ParseError> + fmt::Display>(texts: &[&str]) {
        for text in texts {
            let word = text.parse::<T>().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(word.to_string(), *text);
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        round_trips::<JitterWord>(&["none", "full", "equal", "decorrelated", "proportional(1/5)"]);
        round_trips::<FirstRetryWord>(&["spread(2m)", "backoff", "immediate"]);
        round_trips::<OnSuspectWord>(&["drop", "notify"]);
        round_trips::<Trip>(&["off", "consecutive(5)"]);
        round_trips::<Trip>(&[
            "rate(last=100, min=10, failed=1/2)",
            "rate(within=30s, min=1, slow=1/10)",
        ]);
        round_trips::<SignsWord>(&[
            "unmonitored",
            "heartbeats",
            "pings(interval=10s, timeout=5s, unhealthy=3, healthy=2)",
        ]);
        round_trips::<Detector>(&[
            "deadline(82ms)",
            "phi(threshold=8.000, interval=50ms, pause=0s, min_std=10ms, scale=logistic, \
             floor=false, clip=true, memory=128)",
        ]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!("proportional".parse::<JitterWord>().is_err());
        assert!("full(1)".parse::<JitterWord>().is_err());
        assert!("phi(treshold=8)".parse::<Detector>().is_err());
        assert!("phi(scale=cubic)".parse::<Detector>().is_err());
        assert!("deadline".parse::<Detector>().is_err());
        assert!("consecutive(x)".parse::<Trip>().is_err());
    }
}
