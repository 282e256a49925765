//! What all drawings of a page share: lines, bars and bands by `plotters`, the faults behind them, the
//! moments under them.

use std::fmt::{self, Write as _};

use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    ChartBuilder, DrawingAreaErrorKind, IntoDrawingArea, LineSeries, PathElement, Polygon,
    RGBColor, SVGBackend,
};

use super::text::{escaped, moment};
use crate::draws::Draws;
use crate::schedule::Schedule;
use crate::simulation::Run;

/// Of a drawing, before it is stretched.
const WIDTH: u32 = 1_200;

/// Colours that stand for something; the style sheet says what they look like.
const FAULT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(1, 1, 2);
pub(super) const ASIDE: RGBColor = RGBColor(1, 1, 3);

pub(super) const fn run_colour(place: usize) -> RGBColor {
    #[expect(clippy::cast_possible_truncation, reason = "one of eight")]
    RGBColor(2, 2, place as u8)
}

pub(super) const fn band_colour(band: u8) -> RGBColor {
    RGBColor(3, 3, band)
}

/// Seconds and values.
pub(super) type Line = Vec<(f64, f64)>;

/// A fault as it is shown: from, to, what.
#[derive(Clone, Debug)]
pub(super) struct Shade {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) name: String,
}

/// When faults are there; those that touch or overlap are one.
pub(super) fn shades(run: &Run) -> Vec<Shade> {
    let mut shades: Vec<Shade> = Vec::new();
    let whole = run.scenario.duration.get_ref().as_secs_f64();
    let mut all: Vec<Shade> = Vec::new();
    for fault in &run.scenario.faults {
        let name = super::headline::label(fault);
        for (from, to) in Schedule::of(fault).shown(Draws::new(run.seed)) {
            let (from, to) = (from.as_secs_f64(), to.as_secs_f64().min(whole));
            if from < whole {
                all.push(Shade { from, to, name: name.clone() });
            }
        }
    }
    all.sort_by(|one, other| one.from.total_cmp(&other.from));
    // What is closer than can be seen is one.
    let gap = whole / 600.0;
    for shade in all {
        match shades.last_mut() {
            Some(last) if shade.from <= last.to + gap => {
                last.to = last.to.max(shade.to);
                if !last.name.contains(&shade.name) {
                    last.name = format!("{}, {}", last.name, shade.name);
                }
            }
            _ => shades.push(shade),
        }
    }
    shades
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A drawing that is stretched to the width that there is; what it draws is given from 0 to `end` in
/// both directions.
pub(super) fn stretched(
    (end, top): (f64, f64),
    height: u32,
    draw: impl FnOnce(&mut Canvas<'_, '_>) -> Drawn,
) -> Result<String, fmt::Error> {
    let mut drawing = String::new();
    {
        let root = SVGBackend::with_string(&mut drawing, (WIDTH, height)).into_drawing_area();
        let area = ChartBuilder::on(&root)
            .build_cartesian_2d(0.0..end.max(1e-9), 0.0..top.max(1e-9))
            .map_err(|_| fmt::Error)?;
        let mut canvas = Canvas { area };
        draw(&mut canvas).map_err(|_| fmt::Error)?;
        root.present().map_err(|_| fmt::Error)?;
    }
    // The element that plotters begins with has a fixed size.
    let inside = drawing.split_once('\n').map_or("", |(_, inside)| inside);
    let inside = inside.replace(" stroke-width=\"1\"", "").replace(" opacity=\"1\"", "");
    let open = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\n"
    );
    Ok(open + &inside)
}

type Area<'a, 'b> = plotters::chart::ChartContext<
    'a,
    SVGBackend<'b>,
    plotters::coord::cartesian::Cartesian2d<RangedCoordf64, RangedCoordf64>,
>;

/// Where a drawing is made.
pub(super) struct Canvas<'a, 'b> {
    area: Area<'a, 'b>,
}

impl Canvas<'_, '_> {
    /// Bars of that height, as one outline: there may be hundreds.
    pub(super) fn bars(&mut self, bars: &[(f64, f64)], top: f64, colour: RGBColor) -> Drawn {
        if bars.is_empty() {
            return Ok(());
        }
        let corners =
            |(from, to): &(f64, f64)| [(*from, 0.0), (*from, top), (*to, top), (*to, 0.0)];
        self.polygon(bars.iter().flat_map(corners).collect(), colour)
    }

    pub(super) fn line(&mut self, points: &[(f64, f64)], colour: RGBColor) -> Drawn {
        self.area.draw_series(LineSeries::new(points.to_vec(), colour)).map(|_| ())
    }

    pub(super) fn rule(&mut self, from: (f64, f64), to: (f64, f64)) -> Drawn {
        self.area.draw_series([PathElement::new(vec![from, to], GRID)]).map(|_| ())
    }

    pub(super) fn polygon(&mut self, points: Vec<(f64, f64)>, colour: RGBColor) -> Drawn {
        self.area.draw_series([Polygon::new(points, colour)]).map(|_| ())
    }

    /// Shows where faults are, over the whole height.
    pub(super) fn shade(&mut self, shades: &[Shade], (end, top): (f64, f64)) -> Drawn {
        // One that takes no time is seen all the same.
        let least = end / 300.0;
        let bars = shades.iter().map(|shade| {
            let to = shade.to.max(shade.from + least).min(end);
            (shade.from.min(end - least), to)
        });
        self.bars(&bars.collect::<Vec<_>>(), top, FAULT)
    }
}

/// A line without the points that lie on it.
pub(super) fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut thin: Vec<(f64, f64)> = Vec::new();
    for (place, point) in points.iter().enumerate() {
        let next = points.get(place + 1);
        let same = |one: &(f64, f64)| one.1.to_bits() == point.1.to_bits();
        if !(thin.last().is_some_and(same) && next.is_some_and(same)) {
            thin.push(*point);
        }
    }
    thin
}

/// What the faults are, each where it begins, as far as there is room.
pub(super) fn fault_labels(page: &mut String, shades: &[Shade], whole: f64) -> fmt::Result {
    if shades.len() > 4 {
        return Ok(());
    }
    // What a label may take, in parts of the width.
    const ROOM: f64 = 38.0;
    let mut free = 0.0;
    for shade in shades {
        let at = 100.0 * shade.from / whole;
        let fits = at + ROOM <= 100.0;
        let (from, to) = if fits { (at, at + ROOM) } else { (at - ROOM, at) };
        if from < free {
            continue;
        }
        free = to;
        let name = escaped(&shade.name);
        let (side, inset) = if fits { ("left", at) } else { ("right", 100.0 - at) };
        write!(page, "<i class=\"what\" style=\"{side}:{inset:.1}%\">{name}</i>")?;
    }
    Ok(())
}

/// Moments under a drawing.
pub(super) fn time_axis(page: &mut String, whole: f64) -> fmt::Result {
    page.push_str("<div class=\"x\">");
    // Whole minutes and hours, where the axis counts in those.
    let unit = match whole {
        whole if whole >= 14_400.0 => 3_600.0,
        whole if whole >= 600.0 => 60.0,
        _ => 1.0,
    };
    for tick in RangedCoordf64::from(0.0..whole / unit).key_points(6) {
        let left = 100.0 * tick * unit / whole;
        if left < 96.0 {
            write!(page, "<i style=\"left:{left:.2}%\">{}</i>", moment(tick * unit, whole))?;
        }
    }
    page.push_str("</div>\n");
    Ok(())
}
