//! Charts of one quantity over time, a line for each run, the faults behind them.

use std::fmt::{self, Write as _};

use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;

use super::canvas::{
    ASIDE, Line, Shade, fault_labels, run_colour, shades, stretched, thinned, time_axis,
};
use super::text::{escaped, short};
use super::{Page, tag};

/// Of a drawing, before it is stretched.
const HEIGHT: u32 = 400;
/// A logarithmic axis begins below one: what is nothing lies there.
const LEAST: f64 = 0.5;

/// What one chart shows.
pub(super) struct Chart {
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) about: String,
    /// By run.
    pub(super) lines: Vec<Line>,
    /// What they are compared with, and what that is called.
    pub(super) aside: Option<(&'static str, Line)>,
    /// The axis goes up to this at least.
    pub(super) least_top: f64,
}

/// The upper end of an axis, and whether it is logarithmic.
#[derive(Clone, Copy, Debug)]
struct Scale {
    top: f64,
    log: bool,
}

impl Scale {
    /// Logarithmic if the runs' peaks are so far apart that the lower could not be seen.
    fn of(chart: &Chart) -> Self {
        let peak = |line: &Line| line.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let aside = chart.aside.iter().map(|(_, line)| peak(line));
        let peaks = chart.lines.iter().map(peak).chain(aside);
        let (least, most) = peaks
            .filter(|peak| *peak > 0.0)
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), peak| {
                (least.min(peak), most.max(peak))
            });
        let most = most.max(chart.least_top);
        Self { top: most, log: most > 15.0 * least && most > 100.0 }
    }

    fn end(self) -> f64 {
        match self.log {
            true => libm::log10(self.top * 1.3 / LEAST),
            false => self.top * 1.06,
        }
    }

    /// Where on the axis, from 0 to [`end`](Self::end).
    fn place(self, value: f64) -> f64 {
        match self.log {
            true => libm::log10(value.max(LEAST) / LEAST),
            false => value,
        }
    }

    fn ticks(self) -> Vec<f64> {
        if !self.log {
            return RangedCoordf64::from(0.0..self.end()).key_points(5);
        }
        let decades = (0..12).map(|decade| (0..decade).fold(1.0, |value: f64, _| value * 10.0));
        let decades: Vec<f64> = decades.take_while(|value| *value <= self.top * 1.3).collect();
        let step = decades.len().div_ceil(5).max(1);
        decades.into_iter().step_by(step).collect()
    }
}

impl Page<'_> {
    pub(super) fn charts(&self, page: &mut String) -> fmt::Result {
        let Some(first) = self.runs.first() else { return Ok(()) };
        let whole = first.scenario.duration.get_ref().as_secs_f64();
        let shades = shades(first);
        let charts: Vec<Chart> = self.quantities().into_iter().flatten().collect();
        if charts.is_empty() || whole <= 0.0 {
            return Ok(());
        }
        page.push_str("<section class=\"over\"><h2>Over time</h2>\n<p class=\"legend\">");
        for (place, name, _) in self.each() {
            write!(page, "{} ", tag(place, name))?;
        }
        if !shades.is_empty() {
            page.push_str("<span class=\"key fault\">a fault is there</span>");
        }
        page.push_str("</p>\n<div class=\"charts\">\n");
        for chart in &charts {
            self.chart(page, chart, whole, &shades)?;
        }
        page.push_str("</div></section>\n");
        Ok(())
    }

    fn chart(&self, page: &mut String, chart: &Chart, whole: f64, shades: &[Shade]) -> fmt::Result {
        let scale = Scale::of(chart);
        let end = scale.end();
        let scaled = |line: &[(f64, f64)]| -> Vec<(f64, f64)> {
            let line: Vec<_> = line.iter().map(|(at, value)| (*at, scale.place(*value))).collect();
            thinned(&line)
        };
        let drawing = stretched((whole, end), HEIGHT, |canvas| {
            canvas.shade(shades, (whole, end))?;
            for tick in scale.ticks() {
                let height = scale.place(tick);
                canvas.rule((0.0, height), (whole, height))?;
            }
            if let Some((_, line)) = &chart.aside {
                canvas.line(&scaled(line), ASIDE)?;
            }
            // The first run is drawn last, over the others.
            for (place, line) in chart.lines.iter().enumerate().rev() {
                canvas.line(&scaled(line), run_colour(place))?;
            }
            Ok(())
        })?;
        let Chart { key, title, about, .. } = chart;
        let log = if scale.log { " · log scale" } else { "" };
        writeln!(
            page,
            "<figure data-key=\"{key}\"><figcaption><b>{title}</b> <span>{}{log}</span></figcaption>",
            escaped(about)
        )?;
        if let Some((name, _)) = &chart.aside {
            writeln!(page, "<p class=\"legend\"><span class=\"key aside\">{name}</span></p>")?;
        }
        page.push_str("<div class=\"plot\">\n");
        page.push_str(&drawing);
        for tick in scale.ticks() {
            let bottom = 100.0 * scale.place(tick) / end;
            write!(page, "<i class=\"y\" style=\"bottom:{bottom:.1}%\">{}</i>", short(tick))?;
        }
        fault_labels(page, shades, whole)?;
        page.push_str("</div>");
        time_axis(page, whole)?;
        page.push_str("<p class=\"read\"></p></figure>\n");
        self.values(page, chart)
    }

    /// The values for the read-out, that a script may find them.
    fn values(&self, page: &mut String, chart: &Chart) -> fmt::Result {
        let mut lines: Vec<(&str, usize, &Line)> = self
            .each()
            .filter_map(|(place, name, _)| Some((name, place, chart.lines.get(place)?)))
            .collect();
        if let Some((name, line)) = &chart.aside {
            lines.push((name, MOST_PLACE, line));
        }
        let lines = lines.into_iter().map(|(name, place, line)| {
            let end = line.last().map_or(0.0, |(at, _)| *at);
            let values: Vec<f64> = line.iter().map(|(_, value)| rounded(*value)).collect();
            serde_json::json!({ "name": name, "place": place, "end": end, "values": values })
        });
        let lines = serde_json::Value::from(lines.collect::<Vec<_>>());
        // Nothing in it may end the script.
        let lines =
            lines.to_string().replace(".0,", ",").replace(".0]", "]").replace('<', "\\u003c");
        let key = chart.key;
        writeln!(page, "<script type=\"application/json\" id=\"v-{key}\">{lines}</script>")
    }
}

/// The place of what is no run.
const MOST_PLACE: usize = Page::MOST;

fn rounded(value: f64) -> f64 {
    match value {
        value if value >= 100.0 => value.round(),
        value => (value * 10.0).round() / 10.0,
    }
}
