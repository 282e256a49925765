//! What happened to one peer, or one call, in each run.

use std::fmt::{self, Write as _};

use super::canvas::{Shade, band_colour, shades, stretched, time_axis};
use super::strips::marks;
use super::text::escaped;
use super::{Page, tag};
use crate::phases::Phase;
use crate::story::{Hero, Story};

/// Lines that are shown at once, from each end; the rest is folded away.
const SHOWN: usize = 8;

/// As finely as the phases of a peer are drawn, and as many lines as are kept, for all runs.
const ROOM: usize = 800;
/// Bands that a phase may look like.
const BANDS: usize = 6;

/// The band of the strips that looks like a phase.
const fn band(phase: Phase) -> u8 {
    match phase {
        Phase::Up => 0,
        Phase::Dials => 1,
        Phase::Waits => 2,
        Phase::BacksOff => 4,
        Phase::Off => 5,
    }
}

impl Page<'_> {
    fn room(&self) -> usize {
        ROOM / self.runs.len().max(2)
    }

    pub(super) fn stories(&self, page: &mut String) -> fmt::Result {
        let Some(first) = self.runs.iter().find(|run| run.story.is_some()) else { return Ok(()) };
        let whole = first.scenario.duration.get_ref().as_secs_f64();
        let who = first.story.as_ref().map(|story| story.who.as_str()).unwrap_or_default();
        let is_peer = first.story.as_ref().is_some_and(|story| !story.phases.is_empty());
        let many = self.runs.len() > 1;
        writeln!(page, "<section><h2>The story of {}</h2>", escaped(who))?;
        let last = match first.hero {
            Some(Hero::Peer(index)) if first.facts().last_back() == Some(index) => {
                format!(", the one that {} had back last", escaped(&first.policy))
            }
            _ => String::new(),
        };
        match (is_peer, many) {
            (true, true) => {
                writeln!(page, "<p class=\"was\">The same connection in each run{last}.</p>")?;
            }
            (true, false) => writeln!(page, "<p class=\"was\">One connection{last}.</p>")?,
            (false, _) => {
                page.push_str(
                    "<p class=\"was\">The first that is made after half of the outage.</p>\n",
                );
            }
        }
        if is_peer {
            self.paths(page, whole, &shades(first))?;
        }
        page.push_str("<div class=\"stories\">\n");
        for (place, name, run) in self.each() {
            writeln!(page, "<div><h3>{}</h3>", tag(place, name))?;
            match run.story.as_ref().filter(|story| !story.lines.is_empty()) {
                Some(story) => lines(page, story, self.room() / 2)?,
                None => page.push_str("<p class=\"was\">Nothing happened to it.</p>"),
            }
            page.push_str("</div>\n");
        }
        page.push_str("</div></section>\n");
        Ok(())
    }

    /// The phases of the peer in each run, under one legend and over one axis.
    fn paths(&self, page: &mut String, whole: f64, shades: &[Shade]) -> fmt::Result {
        const NAMES: [(u8, &str); 4] = [
            (band(Phase::Up), "connected"),
            (band(Phase::Dials), "dialing"),
            (band(Phase::Waits), "waiting at its breaker"),
            (band(Phase::BacksOff), "backing off"),
        ];
        page.push_str("<p class=\"legend\">");
        for (band, name) in NAMES {
            write!(page, "<span class=\"key b{band}\">{name}</span>")?;
        }
        page.push_str("</p><div class=\"strips\">\n");
        for (place, name, run) in self.each() {
            let Some(story) = &run.story else { continue };
            let path = path(story, whole, self.room())?;
            write!(page, "<div class=\"strip\"><b>{}</b>", tag(place, name))?;
            writeln!(page, "<div class=\"band thin\">{path}</div></div>")?;
        }
        page.push_str(&marks(shades, whole)?);
        time_axis(page, whole)?;
        page.push_str("</div>\n");
        Ok(())
    }
}

/// The phases of a peer over time, as finely as there is room: what is shorter becomes part of what
/// lasted longest beside it, and where dials are few each of them is marked.
fn path(story: &Story, whole: f64, room: usize) -> Result<String, fmt::Error> {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let least = whole / room as f64;
    let mut bars = vec![Vec::new(); BANDS];
    let (mut lasted, mut begin) = ([0.0; BANDS], 0.0);
    let ends = story.phases.iter().skip(1).map(|(at, _)| *at).chain([whole]);
    for ((from, phase), to) in story.phases.iter().zip(ends) {
        if let Some(lasted) = lasted.get_mut(usize::from(band(*phase))) {
            *lasted += to - from;
        }
        if to - begin >= least || to >= whole {
            let longest = lasted.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1));
            let longest = longest.map_or(0, |(place, _)| place);
            if let Some(bars) = bars.get_mut(longest) {
                bars.push((begin, to));
            }
            (lasted, begin) = ([0.0; BANDS], to);
        }
    }
    let dials = story.phases.iter().filter(|(_, phase)| *phase == Phase::Dials);
    let dials: Vec<_> = dials.map(|(at, _)| (*at, (at + least).min(whole))).collect();
    stretched((whole, 1.0), 20, |canvas| {
        let mut all = (0..).zip(&bars);
        all.try_for_each(|(band, bars)| canvas.bars(bars, 1.0, band_colour(band)))?;
        if dials.len() > room / 8 {
            return Ok(());
        }
        canvas.bars(&dials, 1.0, band_colour(band(Phase::Dials)))
    })
}

/// What happened, as a list whose middle is folded away when it is long, and cut when it is very
/// long.
fn lines(page: &mut String, story: &Story, most: usize) -> fmt::Result {
    let count = story.lines.len();
    let missing = story.gap.map_or(0, |(_, missing)| missing);
    let cut = count.saturating_sub(most) + missing;
    // From where to where lines are left out.
    let gap = match story.gap {
        _ if count > most => most / 2..count - most / 2,
        Some((after, _)) => after..after,
        None => 0..0,
    };
    let folded = count > 2 * SHOWN + 4 || cut > 0;
    let last = count.saturating_sub(SHOWN);
    page.push_str("<ol>");
    for (place, (at, line)) in story.lines.iter().enumerate() {
        if folded && place == SHOWN {
            let more = (count + missing).saturating_sub(2 * SHOWN);
            write!(page, "</ol><details><summary>{more} more such lines</summary><ol>")?;
        }
        if cut > 0 && place == gap.start {
            writeln!(page, "<li class=\"was\">… {cut} lines are left out here …</li>")?;
        }
        if folded && place == last {
            page.push_str("</ol></details><ol>");
        }
        if !gap.contains(&place) {
            writeln!(page, "<li><time>{at:.3} s</time> {}</li>", escaped(line))?;
        }
    }
    page.push_str("</ol>\n");
    Ok(())
}
