//! What peers and breakers were doing, run by run: bands whose heights are shares.

use std::fmt::{self, Write as _};

use super::canvas::{Shade, band_colour, shades, stretched, thinned, time_axis};
use super::{Page, tag};
use crate::phases::Doing;
use crate::series::{Point, Series};
use crate::simulation::Run;

const HEIGHT: u32 = 100;

/// A band: what the style sheet calls it, what people do, and its share of a point.
type Band = (u8, &'static str, fn(&Point, f64) -> f64);

/// Bands of peers, from the bottom up.
const PEERS: [Band; 6] = [
    (0, "connected", |point, all| doing(point, Doing::Up) / all),
    (1, "dialing", |point, all| doing(point, Doing::Dials) / all),
    (2, "in line for a dial", |point, all| doing(point, Doing::InLine) / all),
    (3, "held back by an open breaker", |point, all| doing(point, Doing::Parked) / all),
    (4, "backing off", |point, all| doing(point, Doing::BacksOff) / all),
    (5, "given up or not wanted", |point, all| doing(point, Doing::Off) / all),
];

fn doing(point: &Point, what: Doing) -> f64 {
    point.doing.get(what as usize).copied().unwrap_or_default()
}

/// Bands of breakers.
const BREAKERS: [Band; 3] = [
    (6, "closed (all pass)", |point, all| 1.0 - (point.open + point.half_open) / all),
    (7, "half-open (a few probes pass)", |point, all| point.half_open / all),
    (8, "open (nobody passes)", |point, all| point.open / all),
];

impl Page<'_> {
    pub(super) fn strips(&self, page: &mut String) -> fmt::Result {
        let Some(first) = self.runs.first() else { return Ok(()) };
        let whole = first.scenario.duration.get_ref().as_secs_f64();
        if whole <= 0.0 || self.runs.iter().any(|run| run.series.is_none()) {
            return Ok(());
        }
        let shades = shades(first);
        if self.runs.iter().any(|run| run.facts().lost > 0) {
            page.push_str("<section><h2>What the connections were doing</h2>\n");
            page.push_str("<p class=\"was\">Each column is all of them at that moment.</p>\n");
            let moves = |run: &Run| run.facts().lost > 0;
            let all = |run: &Run| f64::from(run.facts().peers.max(1));
            self.strip(page, &PEERS, (&shades, whole), all, moves)?;
        }
        if self.runs.iter().any(|run| run.facts().breaker_opens > 0) {
            page.push_str("<section><h2>Circuit breakers</h2>\n");
            let about = match first.breakers {
                1 => "One, for all of them.".to_owned(),
                n => {
                    let n = crate::report::grouped(n as u64);
                    format!("There are {n}; the height is the share of them in each state.")
                }
            };
            writeln!(page, "<p class=\"was\">{about}</p>")?;
            let moves = |run: &Run| run.facts().breaker_opens > 0;
            #[expect(clippy::cast_precision_loss, reason = "for a drawing")]
            let all = |run: &Run| run.breakers.max(1) as f64;
            self.strip(page, &BREAKERS, (&shades, whole), all, moves)?;
        }
        Ok(())
    }

    /// A strip for each run, under one legend and over one axis.
    fn strip(
        &self,
        page: &mut String,
        bands: &[Band],
        (shades, whole): (&[Shade], f64),
        all: impl Fn(&Run) -> f64,
        moves: impl Fn(&Run) -> bool,
    ) -> fmt::Result {
        page.push_str("<p class=\"legend\">");
        for (band, name, of) in bands {
            let some = self.runs.iter().any(|run| {
                let points = run.series.iter().flat_map(|series| &series.points);
                points.into_iter().any(|point| of(point, all(run)) > 0.0)
            });
            if some {
                write!(page, "<span class=\"key b{band}\">{name}</span>")?;
            }
        }
        if !shades.is_empty() {
            page.push_str("<span class=\"key fault\">a fault is there</span>");
        }
        page.push_str("</p>\n<div class=\"strips\">");
        for (place, name, run) in self.each() {
            let Some(series) = run.series.as_ref().filter(|_| moves(run)) else { continue };
            write!(page, "<div class=\"strip\"><b>{}</b><div class=\"band\">", tag(place, name))?;
            page.push_str(&bands_of((series, self.runs.len()), bands, all(run), whole)?);
            page.push_str("</div>");
            page.push_str("</div>\n");
        }
        page.push_str(&marks(shades, whole)?);
        time_axis(page, whole)?;
        page.push_str("</div>");
        let still = self.each().filter(|(_, _, run)| !moves(run));
        let still: Vec<String> = still.map(|(place, name, _)| tag(place, name)).collect();
        if !still.is_empty() {
            let first = bands.first().map_or("", |(_, name, _)| name);
            writeln!(page, "<p class=\"was\">Always {first}: {}</p>", still.join(" "))?;
        }
        page.push_str("</section>\n");
        Ok(())
    }
}

/// Where the faults are, as a thin line under the strips.
pub(super) fn marks(shades: &[Shade], whole: f64) -> Result<String, fmt::Error> {
    let drawing = stretched((whole, 1.0), 10, |canvas| canvas.shade(shades, (whole, 1.0)))?;
    Ok(format!("<div class=\"marks\">{drawing}</div>"))
}

/// The bands of a run, as finely as there is room for when there are `runs`.
fn bands_of(
    (series, runs): (&Series, usize),
    bands: &[Band],
    all: f64,
    whole: f64,
) -> Result<String, fmt::Error> {
    let coarse = runs.div_ceil(2).max(1);
    let chunks = series.points.chunks(coarse);
    let ends: Vec<f64> =
        (1..=chunks.len()).map(|place| series.at_s(place * coarse - 1).min(whole)).collect();
    stretched((whole, 1.0), HEIGHT, |canvas| {
        let mut floor = vec![0.0; chunks.len()];
        for (band, _, of) in bands {
            let mut ceiling = floor.clone();
            for (height, points) in ceiling.iter_mut().zip(chunks.clone()) {
                #[expect(clippy::cast_precision_loss, reason = "a few points")]
                let mean =
                    points.iter().map(|point| of(point, all)).sum::<f64>() / points.len() as f64;
                *height = (*height + mean).min(1.0);
            }
            let flat = floor.iter().zip(&ceiling).all(|(low, high)| high - low < 1e-9);
            if !flat {
                let (upper, lower) = (edge(&ends, &ceiling), edge(&ends, &floor));
                let outline = upper.into_iter().chain(lower.into_iter().rev());
                canvas.polygon(outline.collect(), band_colour(*band))?;
            }
            floor = ceiling;
        }
        Ok(())
    })
}

/// The edge of a band: a step up to each end.
fn edge(ends: &[f64], heights: &[f64]) -> Vec<(f64, f64)> {
    let begins = [0.0].into_iter().chain(ends.iter().copied());
    let steps = begins.zip(ends).zip(heights);
    let steps = steps.flat_map(|((begin, end), height)| [(begin, *height), (*end, *height)]);
    thinned(&steps.collect::<Vec<_>>())
}
