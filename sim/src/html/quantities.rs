//! What the charts show, in their order.

use super::Page;
use super::canvas::Line;
use super::chart::Chart;
use super::text::number;
use crate::series::Point;
use crate::simulation::Run;
use crate::tally::Second;

impl Page<'_> {
    /// What there is to be drawn, in the order of the page.
    pub(super) fn quantities(&self) -> [Option<Chart>; 6] {
        [self.up(), self.goodput(), self.attempts(), self.dials(), self.waiting(), self.busy()]
    }

    fn points(&self, of: impl Fn(&Point) -> f64) -> Vec<Line> {
        let line = |run: &&Run| {
            let series = run.series.as_ref();
            let points = series.into_iter().flat_map(|series| {
                series
                    .points
                    .iter()
                    .enumerate()
                    .map(|(place, point)| (series.at_s(place), of(point)))
            });
            points.collect()
        };
        self.runs.iter().map(line).collect()
    }

    fn seconds(&self, of: impl Fn(&Second) -> u64) -> Vec<Line> {
        let line = |run: &&Run| {
            let calls = run.facts().calls.as_ref();
            calls.map(|calls| per_second(&calls.seconds, run, &of)).unwrap_or_default()
        };
        self.runs.iter().map(line).collect()
    }

    fn has_peers(&self) -> bool {
        let peers = self.runs.iter().any(|run| run.facts().peers > 0);
        peers && self.runs.iter().all(|run| run.series.is_some())
    }

    fn has_calls(&self) -> bool {
        self.runs.iter().any(|run| run.facts().calls.is_some())
    }

    fn up(&self) -> Option<Chart> {
        let peers = f64::from(self.runs.first()?.facts().peers);
        self.has_peers().then(|| Chart {
            key: "up",
            title: "Connections up",
            about: format!("of {}", number(peers)),
            lines: self.points(|point| f64::from(point.up)),
            aside: None,
            least_top: peers,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "for a drawing")]
    fn dials(&self) -> Option<Chart> {
        self.has_peers().then(|| Chart {
            key: "dials",
            title: "Dials per second",
            about: "most in any second".to_owned(),
            lines: self.points(|point| point.dials as f64),
            aside: None,
            least_top: 1.0,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "for a drawing")]
    fn waiting(&self) -> Option<Chart> {
        let lines = self.points(|point| point.waiting as f64);
        let some = lines.iter().flatten().any(|(_, value)| *value > 0.0);
        some.then(|| Chart {
            key: "waiting",
            title: "Waiting at the server",
            about: self.of_servers("its queue", "the longest queue of any"),
            lines,
            aside: None,
            least_top: 1.0,
        })
    }

    fn of_servers(&self, one: &str, several: &str) -> String {
        let servers = self.runs.first().map_or(0, |run| run.scenario.servers.len());
        if servers > 1 { several.to_owned() } else { one.to_owned() }
    }

    fn busy(&self) -> Option<Chart> {
        let lines = self.points(|point| point.busy * 100.0);
        let some = lines.iter().flatten().any(|(_, value)| *value > 2.0);
        some.then(|| Chart {
            key: "busy",
            title: "Server busy",
            about: self.of_servers("% of the time", "% of the time, the busiest of them"),
            lines,
            aside: None,
            least_top: 100.0,
        })
    }

    fn goodput(&self) -> Option<Chart> {
        let first = self.runs.first()?;
        let twin = first.facts().calls.as_ref().and_then(|calls| calls.twin.as_ref());
        let twin = twin.map(|twin| per_second(twin, first, &|second| second.good));
        self.has_calls().then(|| Chart {
            key: "good",
            title: "Calls that succeed, per second",
            about: "by when they began".to_owned(),
            lines: self.seconds(|second| second.good),
            aside: twin.map(|twin| ("the same without the fault", twin)),
            least_top: 1.0,
        })
    }

    fn attempts(&self) -> Option<Chart> {
        let first = self.runs.first()?;
        let calls = first.facts().calls.as_ref();
        let begun = calls.map(|calls| per_second(&calls.seconds, first, &|second| second.begun));
        self.has_calls().then(|| Chart {
            key: "attempts",
            title: "Requests sent, per second",
            about: "first tries and retries".to_owned(),
            lines: self.seconds(|second| second.attempts),
            aside: begun.map(|begun| ("calls made", begun)),
            least_top: 1.0,
        })
    }
}

/// Counts per second, in as many points as a drawing has room for.
#[expect(clippy::cast_precision_loss, reason = "for a drawing")]
fn per_second(seconds: &[Second], run: &Run, of: &dyn Fn(&Second) -> u64) -> Line {
    let whole = run.scenario.duration.get_ref().as_nanos().div_ceil(1_000_000_000);
    let whole = usize::try_from(whole).unwrap_or(usize::MAX).min(seconds.len());
    let width = whole.div_ceil(180).max(1);
    let chunks = seconds.get(..whole).unwrap_or_default().chunks(width);
    let mut end = 0;
    let points = chunks.map(|chunk| {
        end += chunk.len();
        let sum: u64 = chunk.iter().map(of).sum();
        (end as f64, sum as f64 / chunk.len() as f64)
    });
    points.collect()
}
