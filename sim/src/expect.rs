//! What a scenario expects: a measure, a bound, and whether it held.
//!
//! ```toml
//! [expect.ours]
//! all_up = "<= 1.1x ideal after heal"
//! peak_dials = "<= 2100/s"
//! up_share = "<= 5% at 600s after heal"
//! "false_suspicions.rural" = "== 179"
//! ```
//!
//! Times count from the heal, the moment when the last fault is over. An expectation that the run
//! could not decide (nothing was lost, or the end came first) is neither held nor violated.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::measure::Facts;
use crate::scenario::Scenario;
use crate::tally::{Back, CallFacts};
use crate::units::{ParseError, Rate, Span, as_text};

/// How a value and a limit are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtMost,
    AtLeast,
    Below,
    Above,
    Equal,
}

const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Equal),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Number(f64),
    Percent(f64),
    Span(Span),
    Rate(Rate),
    /// So many times the ideal time.
    Ideal(f64),
    /// So many times the bound that the policy and the world give.
    Bound(f64),
}

/// A bound on a measure, as the scenario words it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    text: String,
    comparison: Comparison,
    limit: Limit,
    /// When to look, after the heal.
    at: Option<Span>,
}

impl Bound {
    /// When to look, for a measure that is a function of time.
    pub(crate) const fn at(&self) -> Option<Span> {
        self.at
    }

    /// What is wrong with this bound for that measure, if anything.
    pub(crate) fn problem(&self, measure: &Measure) -> Option<String> {
        let fits = matches!(
            (measure.unit, self.limit),
            (Unit::Time, Limit::Span(_) | Limit::Ideal(_) | Limit::Bound(_))
                | (Unit::Rate, Limit::Rate(_))
                | (Unit::Number, Limit::Number(_))
                | (Unit::Share, Limit::Percent(_))
        );
        if !fits {
            let wants = match measure.unit {
                Unit::Time => "a span, as `<= 75s`, or a multiple of the ideal, as `<= 1.1x ideal`",
                Unit::Rate => "a rate, as `<= 2100/s`",
                Unit::Number => "a number, as `<= 1.2`",
                Unit::Share => "a share, as `<= 5%`",
            };
            return Some(format!("`{}` is bounded by {wants}", measure.name));
        }
        match (measure.timed, self.at) {
            (true, None) => Some(format!("`{}` needs a moment, as `at 600s`", measure.name)),
            (false, Some(_)) => Some(format!("`{}` has no moment", measure.name)),
            _ => None,
        }
    }

    /// The limit as a number in the measure's unit; `None` if it depends on what is unknown.
    fn limit(&self, facts: &Facts) -> Option<f64> {
        match self.limit {
            Limit::Number(number) => Some(number),
            Limit::Percent(percent) => Some(percent / 100.0),
            Limit::Span(span) => Some(span.as_secs_f64()),
            Limit::Rate(rate) => Some(rate.per_second()),
            Limit::Ideal(times) => facts.ideal_s.map(|ideal| ideal * times),
            Limit::Bound(times) => {
                let bound = facts.calls.as_ref().and_then(|calls| calls.bound.as_ref());
                bound.map(|bound| bound.total().as_secs_f64() * times)
            }
        }
    }

    fn holds(&self, value: f64, limit: f64) -> bool {
        match self.comparison {
            Comparison::AtMost => value <= limit,
            Comparison::AtLeast => value >= limit,
            Comparison::Below => value < limit,
            Comparison::Above => value > limit,
            // Counts, and sums of whole milliseconds: they are equal or far apart.
            Comparison::Equal => (value - limit).abs() < 1e-9,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Bound {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            ParseError::new(format!(
                "`{text}` is no bound; write it as `<= 75s`, `<= 1.1x ideal after heal`, \
                 `<= 2100/s`, `== 0` or `<= 5% at 600s after heal`"
            ))
        };
        let trimmed = text.trim();
        let (sign, comparison) =
            COMPARISONS.iter().find(|(sign, _)| trimmed.starts_with(sign)).ok_or_else(wrong)?;
        let rest = trimmed.get(sign.len()..).unwrap_or_default().trim();
        let rest = rest.strip_suffix("after heal").unwrap_or(rest).trim();
        let (value, at) = match rest.split_once(" at ") {
            Some((value, at)) => (value.trim(), Some(at.trim().parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let number = |text: &str| {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(wrong)
        };
        let limit = if let Some(times) = value.strip_suffix("ideal") {
            Limit::Ideal(number(times.trim().strip_suffix('x').ok_or_else(wrong)?)?)
        } else if let Some(times) = value.strip_suffix("bound") {
            Limit::Bound(number(times.trim().strip_suffix('x').ok_or_else(wrong)?)?)
        } else if let Some(percent) = value.strip_suffix('%') {
            Limit::Percent(number(percent)?)
        } else if value.contains('/') {
            Limit::Rate(value.parse().map_err(|_| wrong())?)
        } else if let Ok(span) = value.parse() {
            Limit::Span(span)
        } else {
            Limit::Number(number(value)?)
        };
        Ok(Self { text: text.to_owned(), comparison: *comparison, limit, at })
    }
}

as_text!(Bound, "a bound in quotes, as \"<= 75s after heal\"");

/// What a measure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Time,
    Rate,
    Number,
    Share,
}

/// What the run says about a measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measured {
    /// This.
    Value(f64),
    /// This or more: the end came first.
    AtLeast(f64),
    /// Nothing.
    Unknown,
}

impl From<Option<f64>> for Measured {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Self::Unknown, Self::Value)
    }
}

/// Something that a run measures and a scenario can bound.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name in `[expect]`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    pub(crate) unit: Unit,
    /// Whether it is a function of time.
    pub(crate) timed: bool,
    /// Whether it can be asked of one group: `NAME.GROUP`.
    by_group: bool,
    /// The same of one server.
    by_server: bool,
    value: fn(&Facts, &Scope<'_>) -> Measured,
}

impl Measure {
    /// Whether it can be asked of the group or server of that name.
    pub(crate) fn can_be_asked_of(&self, scenario: &Scenario, name: &str) -> bool {
        (self.by_group && scenario.peers.contains_key(name))
            || (self.by_server && scenario.servers.contains_key(name))
    }
}

/// Of whom and when a measure is asked.
#[derive(Clone, Copy, Debug)]
struct Scope<'a> {
    group: Option<&'a str>,
    at: Option<Span>,
}

macro_rules! measures {
    ($($name:ident $([$group:ident])?: $unit:ident, $about:literal, $value:expr;)*) => {
        [$(Measure {
            name: stringify!($name),
            about: $about,
            unit: Unit::$unit,
            timed: false,
            by_group: measures!(@ $($group)?),
            by_server: false,
            value: $value,
        }),*]
    };
    (@ group) => { true };
    (@) => { false };
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn count(value: u64) -> Measured {
    Measured::Value(value as f64)
}

/// All measures that need no moment; those marked can be asked of a group.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
const WHOLE: [Measure; 54] = measures![
    all_up [group]: Time, "until every peer was up again for good",
        |facts, scope| match scope.group {
            None => facts.all_up(),
            group => facts.quantile(1.0, group),
        };
    p50 [group]: Time, "until half of the lost peers were", |facts, scope| facts.quantile(0.5, scope.group);
    p99 [group]: Time, "until 99 % of them were", |facts, scope| facts.quantile(0.99, scope.group);
    bound_used [group]: Share, "that time over the one by which policy and world promise it",
        |facts, scope| facts.bound_used(scope.group);
    efficiency: Number, "ideal time over all_up", |facts, _| facts.efficiency().into();
    dials: Number, "dials begun", |facts, _| count(facts.dials);
    dials_per_peer [group]: Number, "dials begun per peer",
        |facts, scope| Measured::Value(facts.dials_per_peer_of(scope.group));
    outage_dials_per_peer: Number, "those of them that were begun before the heal",
        |facts, _| Measured::Value(facts.outage_dials_per_peer());
    losses_per_peer: Number, "connections lost per peer", |facts, _| Measured::Value(facts.losses_per_peer());
    dials_per_loss: Number, "dials begun per connection lost", |facts, _| facts.dials_per_loss().into();
    most_down: Share, "most peers down at once", |facts, _| Measured::Value(facts.most_down_share());
    dials_per_move: Number, "dials begun per connection of an instance that drained", |facts, _| facts.dials_per_move().into();
    connects_per_peer: Number, "connections made per peer", |facts, _| Measured::Value(facts.connects_per_peer());
    peak_dials: Rate, "most dials in any one second", |facts, _| count(facts.peak_dials);
    in_flight: Number, "most dials in flight at once", |facts, _| count(facts.most_in_flight);
    refused: Number, "dials that a server refused", |facts, _| count(facts.refused);
    server_wasted: Number, "handshakes done for clients that had given up",
        |facts, _| count(facts.server_wasted);
    recovered [group]: Share, "peers up at the end",
        |facts, scope| Measured::Value(facts.recovered_share(scope.group));
    detection_p50: Time, "from when a connection led nowhere until it was dropped for its silence, half of the times",
        |facts, _| facts.detections.quantile(0.5);
    detection_p99: Time, "the same, 99 % of the times", |facts, _| facts.detections.quantile(0.99);
    detection_max: Time, "the longest of them", |facts, _| facts.detections.quantile(1.0);
    return_p50: Time, "from when a peer's own host was back until the peer was up, half of the times",
        |facts, _| facts.returns.quantile(0.5);
    return_p99: Time, "the same, 99 % of the times", |facts, _| facts.returns.quantile(0.99);
    return_max: Time, "the longest of them", |facts, _| facts.returns.quantile(1.0);
    reconnect_p50: Time, "from when our own host had a network again, or another, until a peer was up, half of the times",
        |facts, _| facts.reconnects.quantile(0.5);
    reconnect_p99: Time, "the same, 99 % of the times", |facts, _| facts.reconnects.quantile(0.99);
    reconnect_max: Time, "the longest of them", |facts, _| facts.reconnects.quantile(1.0);
    dials_while_offline: Number, "dials begun while our own host had no network, or the app was in the background",
        |facts, _| count(facts.offline_dials);
    given_up: Number, "peers given up by policy", |facts, _| count(facts.given_up);
    resumed: Share, "connections made that took up their old session", |facts, _| facts.resumed_share().into();
    breaker_opens: Number, "times that a breaker opened", |facts, _| count(facts.breaker_opens);
    half_open_dials: Number, "most dials at once through one half-open breaker",
        |facts, _| count(facts.half_open_dials);
    open_after_heal: Time, "until the last breaker was closed again", |facts, _| facts.open_after_heal();
    calls: Number, "calls begun", |facts, _| of_calls(facts, |calls| Some(calls.calls() as f64));
    success: Share, "calls that succeeded", |facts, _| of_calls(facts, CallFacts::success);
    attempts_per_call: Number, "attempts started per call", |facts, _| of_calls(facts, CallFacts::attempts_per_call);
    outage_attempts_per_call: Number, "the same from the first fault to the heal",
        |facts, _| of_calls(facts, CallFacts::outage_attempts_per_call);
    rejected: Share, "calls refused before any attempt", |facts, _| of_calls(facts, CallFacts::rejected_share);
    latency_p50: Time, "half of the calls that succeeded took less",
        |facts, _| of_calls(facts, |calls| calls.latency_s(0.5));
    latency_p99: Time, "99 % of them did", |facts, _| of_calls(facts, |calls| calls.latency_s(0.99));
    wasted: Number, "answers that nobody waited for any more", |facts, _| of_calls(facts, |calls| Some(calls.wasted as f64));
    shed: Number, "requests that found their server's queue full",
        |facts, _| of_calls(facts, |calls| Some(calls.refused as f64));
    early_goodput: Share, "calls done over calls begun, in the ten seconds before the first fault",
        |facts, _| of_calls(facts, CallFacts::early_goodput);
    tail_goodput: Share, "calls done over calls begun, in the last ten seconds",
        |facts, _| of_calls(facts, CallFacts::tail_goodput);
    tail_load: Number, "calls begun and retries decided on over calls begun, in the last ten seconds",
        |facts, _| of_calls(facts, CallFacts::tail_load);
    collapsed: Number, "1 if less than half of the calls were done in the last ten seconds",
        |facts, _| of_calls(facts, |calls| calls.tail_goodput().map(|good| f64::from(u8::from(good < 0.5))));
    tail_vs_twin: Share, "calls of the last ten seconds that succeeded, over those of the same run without faults",
        |facts, _| of_calls(facts, CallFacts::tail_goodput_vs_twin);
    back_to_twin: Time, "until as many calls succeeded as without faults, but for a hundredth",
        |facts, _| back_to_twin(facts);
    highest_load: Rate, "the highest load that the policy recovers from, see [highest_load]; 0 if none",
        |facts, _| of_calls(facts, |calls| calls.highest);
    healthy_served: Share, "calls to healthy servers beside a bad one that succeeded",
        |facts, _| of_calls(facts, CallFacts::healthy_served);
    bad_unsent: Share, "calls to a server that has been bad for 2 s that were refused unsent",
        |facts, _| of_calls(facts, CallFacts::bad_unsent);
    bad_share: Share, "attempts that went to a bad server", |facts, _| of_calls(facts, CallFacts::bad_share);
    healthy_opens: Number, "times that a breaker of a healthy server opened, or of a host that had been back for a minute",
        |facts, _| count(facts.healthy_opens + facts.calls.as_ref().map_or(0, |calls| calls.healthy_opens));
    cache_hits: Share, "calls that a cache answered", |facts, _| of_calls(facts, CallFacts::hit_share);
];

fn of_calls(facts: &Facts, value: impl Fn(&CallFacts) -> Option<f64>) -> Measured {
    facts.calls.as_ref().and_then(value).into()
}

fn back_to_twin(facts: &Facts) -> Measured {
    match facts.calls.as_ref().map_or(Back::Unknown, CallFacts::back_to_twin) {
        Back::After(after) => Measured::Value(after),
        Back::Never(least) => Measured::AtLeast(least),
        Back::Unknown => Measured::Unknown,
    }
}

/// All measures that need a moment or can be asked of a group or a server.
const PARTIAL: [Measure; 8] = [
    Measure {
        name: "skew",
        about: "connections at the end of the instance with the most, over those of the mean one",
        unit: Unit::Number,
        timed: false,
        by_group: false,
        by_server: true,
        value: |facts, scope| facts.skew(scope.group).into(),
    },
    Measure {
        name: "peak_requests",
        about: "most requests at a server, or at any of them, in one second",
        unit: Unit::Rate,
        timed: false,
        by_group: false,
        by_server: true,
        value: |facts, scope| of_calls(facts, |calls| calls.peak_requests(scope.group)),
    },
    Measure {
        name: "up_share",
        about: "peers up at a moment: `<= 5% at 600s`",
        unit: Unit::Share,
        timed: true,
        by_group: false,
        by_server: false,
        value: |facts, scope| facts.up_share(scope.at).into(),
    },
    Measure {
        name: "false_losses",
        about: "connections that the detector dropped although the other side was alive",
        unit: Unit::Number,
        timed: false,
        by_group: true,
        by_server: false,
        value: |facts, scope| count(facts.watch(scope.group).false_losses),
    },
    Measure {
        name: "suspicions",
        about: "connections suspected, rightly or not",
        unit: Unit::Number,
        timed: false,
        by_group: true,
        by_server: false,
        value: |facts, scope| count(facts.watch(scope.group).suspicions),
    },
    Measure {
        name: "false_suspicions",
        about: "suspicions of connections that spoke again",
        unit: Unit::Number,
        timed: false,
        by_group: true,
        by_server: false,
        value: |facts, scope| count(facts.watch(scope.group).cleared),
    },
    Measure {
        name: "suspected",
        about: "how long connections that spoke again were under suspicion, together",
        unit: Unit::Time,
        timed: false,
        by_group: true,
        by_server: false,
        value: |facts, scope| {
            Measured::Value(crate::units::seconds(facts.watch(scope.group).suspected_ns))
        },
    },
    Measure {
        name: "shortest_silence",
        about: "the shortest silence that was suspected",
        unit: Unit::Time,
        timed: false,
        by_group: true,
        by_server: false,
        value: |facts, scope| {
            let shortest = facts.watch(scope.group).shortest_silence_ns;
            shortest.map(crate::units::seconds).into()
        },
    },
];

/// Everything that can be bounded.
pub fn measures() -> impl Iterator<Item = &'static Measure> {
    WHOLE.iter().chain(&PARTIAL)
}

/// The measure that an expectation names, and the group behind the dot.
pub(crate) fn resolve(name: &str) -> Option<(&'static Measure, Option<&str>)> {
    let (measure, group) = match name.split_once('.') {
        Some((measure, group)) => (measure, Some(group)),
        None => (name, None),
    };
    measures().find(|known| known.name == measure).map(|known| (known, group))
}

/// An expectation, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expectation {
    /// The measure.
    pub name: String,
    /// The bound, as the scenario words it.
    pub bound: String,
    /// What was measured, in seconds, per second, or plain; none if nothing was.
    pub value: Option<f64>,
    /// Whether it held; none if the run could not tell.
    pub held: Option<bool>,
    /// The value with its unit.
    #[serde(skip)]
    pub(crate) shown: String,
}

/// What a run says about a measure.
pub(crate) fn measured(name: &str, facts: &Facts) -> Measured {
    resolve(name).map_or(Measured::Unknown, |(measure, group)| {
        (measure.value)(facts, &Scope { group, at: None })
    })
}

/// The same as a number; `None` if it says nothing.
pub(crate) fn value(name: &str, facts: &Facts) -> Option<f64> {
    match measured(name, facts) {
        Measured::Value(value) => Some(value),
        Measured::AtLeast(_) | Measured::Unknown => None,
    }
}

/// Judges one expectation; an unknown measure was refused when the scenario was read.
pub(crate) fn judge(name: &str, bound: &Bound, facts: &Facts) -> Expectation {
    let Some((measure, group)) = resolve(name) else {
        return Expectation {
            name: name.to_owned(),
            bound: bound.to_string(),
            value: None,
            held: None,
            shown: "unknown".to_owned(),
        };
    };
    let measured = (measure.value)(facts, &Scope { group, at: bound.at });
    let limit = bound.limit(facts);
    let (value, held) = match (measured, limit) {
        (Measured::Value(value), Some(limit)) => (Some(value), Some(bound.holds(value, limit))),
        (Measured::Value(value), None) => (Some(value), None),
        (Measured::AtLeast(_) | Measured::Unknown, None) | (Measured::Unknown, Some(_)) => {
            (None, None)
        }
        // The true value is this or more, and that may be enough to tell.
        (Measured::AtLeast(least), Some(limit)) => {
            let held = match bound.comparison {
                Comparison::AtMost | Comparison::Equal => (least > limit).then_some(false),
                Comparison::Below => (least >= limit).then_some(false),
                Comparison::AtLeast => (least >= limit).then_some(true),
                Comparison::Above => (least > limit).then_some(true),
            };
            (None, held)
        }
    };
    let shown = match (measured, measure.unit) {
        (Measured::Unknown, _) => "nothing measured".to_owned(),
        (Measured::AtLeast(least), _) => format!("> {least:.1}s, not over at the end"),
        (Measured::Value(value), Unit::Time) => format!("{value:.3}s"),
        (Measured::Value(value), Unit::Rate) => format!("{value}/s"),
        (Measured::Value(value), Unit::Share) => format!("{:.2}%", value * 100.0),
        (Measured::Value(value), Unit::Number) if value.fract() == 0.0 => format!("{value}"),
        (Measured::Value(value), Unit::Number) => format!("{value:.3}"),
    };
    Expectation { name: name.to_owned(), bound: bound.to_string(), value, held, shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_in_every_unit() {
        let limit = |text: &str| text.parse::<Bound>().unwrap().limit;
        assert_eq!(limit("<= 1.1x ideal after heal"), Limit::Ideal(1.1));
        assert_eq!(limit("<= 75s after heal"), Limit::Span(Span::from_secs(75)));
        assert_eq!(limit("< 5%"), Limit::Percent(5.0));
        assert_eq!(limit("== 355"), Limit::Number(355.0));
        assert!(matches!(limit("<= 2100/s"), Limit::Rate(_)));
        let at = "<= 5% at 600s after heal".parse::<Bound>().unwrap();
        assert_eq!((at.limit, at.at), (Limit::Percent(5.0), Some(Span::from_secs(600))));
        for bad in ["", "75s", "<=", "<= x", "<= 1.1 ideal", "~ 5", "<= 5% at noon", "<= NaN"] {
            assert!(bad.parse::<Bound>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bound_must_fit_its_measure() {
        let problem = |name: &str, bound: &str| {
            bound.parse::<Bound>().unwrap().problem(resolve(name).unwrap().0)
        };
        assert_eq!(problem("all_up", "<= 1.1x ideal"), None);
        assert_eq!(problem("up_share", "<= 5% at 600s"), None);
        assert!(problem("all_up", "<= 5").is_some());
        assert!(problem("up_share", "<= 5%").is_some());
        assert!(problem("peak_dials", "<= 5").is_some());
        assert!(problem("dials", "<= 5 at 600s").is_some());
        assert!(resolve("al_up").is_none());
    }
}
