//! Runs of one outage as a page: a file of its own that needs no network, no script and no other
//! file.
//!
//! The lines of the charts, their grids and the bands of the strips are drawn by `plotters`, which
//! also finds the ticks, without any text and in colours that stand for something: the style sheet
//! says what they look like in the light and in the dark. Drawings are stretched to the width that
//! there is. Text in them would be stretched too, and shrink to nothing on a phone, so all of it is
//! HTML beside them.
//!
//! The same runs give the same bytes.

mod canvas;
mod chart;
mod headline;
mod quantities;
mod story;
mod strips;
mod table;
mod text;

use std::fmt::{self, Write as _};

use crate::simulation::{Run, reproduce};
use text::{escaped, verdict_word};

/// Runs as a page, ready to be written: `page.to_string()` is the file.
///
/// # Examples
///
/// ```
/// use steadfast_sim::{Follow, Page, Records, Simulation};
///
/// let herd = Simulation::from_scenario("herd-queueing")?.set("peers.device.count=100")?;
/// let records = Records { page: Some(Follow::Last), ..Records::default() };
/// let runs = herd.run_beside(&["naive".to_owned()], 1, records, &mut |_| {})?;
/// let page = Page::new(&runs.iter().collect::<Vec<_>>()).to_string();
/// assert!(page.starts_with("<!doctype html>") && page.len() < 500_000);
/// # Ok::<(), steadfast_sim::ScenarioError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Page<'a> {
    runs: Vec<&'a Run>,
    names: Vec<String>,
}

impl<'a> Page<'a> {
    /// How many runs fit on one: as many as colours can tell apart.
    pub const MOST: usize = 8;

    /// One to eight runs of the same scenario and seed; more are left out. They are called by their
    /// policies. What [`Records::page`](crate::Records::page) would have kept is drawn if it was.
    #[must_use]
    pub fn new(runs: &[&'a Run]) -> Self {
        let runs: Vec<_> = runs.iter().copied().take(Self::MOST).collect();
        let names = runs.iter().map(|run| run.policy.clone()).collect();
        Self { runs, names }
    }

    /// Calls the runs otherwise, in their order: by the settings in which they differ, perhaps.
    #[must_use]
    pub fn names(mut self, names: &[String]) -> Self {
        for (name, new) in self.names.iter_mut().zip(names) {
            name.clone_from(new);
        }
        self
    }

    /// The runs with their names and colours.
    fn each(&self) -> impl Iterator<Item = (usize, &str, &'a Run)> {
        let named = self.names.iter().zip(&self.runs).enumerate();
        named.map(|(place, (name, run))| (place, name.as_str(), *run))
    }

    fn expects(&self, page: &mut String) -> fmt::Result {
        page.push_str("<section><h2>What was expected</h2>\n");
        page.push_str("<p class=\"was\">Of us that it goes well; of others, where it says so, that the outage is as bad as it must be.</p>\n");
        page.push_str("<div class=\"expects\">");
        for (place, name, run) in self.each() {
            let verdict = run.verdict();
            write!(page, "<div><h3>{}", tag(place, name))?;
            if !run.expects().is_empty() || run.violation().is_some() {
                write!(page, " <span class=\"{verdict}\">{}</span>", verdict_word(verdict))?;
            }
            page.push_str("</h3><ul>\n");
            for expect in run.expects() {
                let word = match expect.held {
                    Some(true) => "ok",
                    Some(false) => "FAIL",
                    None => "?",
                };
                let class = word.to_lowercase().replace('?', "unsure");
                let (name, bound) = (escaped(&expect.name), escaped(&expect.bound));
                let shown = escaped(&expect.shown);
                write!(page, "<li><b class=\"{class}\">{word}</b> <code>{name} {bound}</code>")?;
                writeln!(page, " <span class=\"was\">was {shown}</span></li>")?;
            }
            if run.expects().is_empty() {
                page.push_str("<li class=\"was\">Nothing, of this client.</li>");
            }
            if let Some(violation) = run.violation() {
                let violation = escaped(&violation.to_string());
                writeln!(page, "<li><b class=\"fail\">FAIL</b> {violation}</li>")?;
            }
            page.push_str("</ul></div>\n");
        }
        page.push_str("</div></section>\n");
        Ok(())
    }

    fn texts(&self, page: &mut String) -> fmt::Result {
        page.push_str("<section><h2>All figures, as text</h2>\n");
        for (place, name, run) in self.each() {
            let text = escaped(&run.timeline().to_string());
            writeln!(
                page,
                "<details><summary>{}</summary><pre>{text}</pre></details>",
                tag(place, name)
            )?;
        }
        page.push_str("</section>\n");
        Ok(())
    }

    fn reproduce(&self, page: &mut String) -> fmt::Result {
        page.push_str("<section><h2>Make it again</h2><ul class=\"again\">\n");
        for (place, name, run) in self.each() {
            let line = reproduce(&run.asked_for, run.seed, &run.policy, &run.sets);
            let (line, digest) = (escaped(&line), run.digest());
            writeln!(
                page,
                "<li>{} <code>{line}</code> <span class=\"was\">digest {digest:016x}</span></li>",
                tag(place, name)
            )?;
        }
        let version = env!("CARGO_PKG_VERSION");
        writeln!(
            page,
            "</ul><p class=\"was\">Steadfast {version}. The same command gives the same run, byte for byte: the same digest.</p></section>"
        )
    }

    fn write(&self, page: &mut String) -> fmt::Result {
        let Some(first) = self.runs.first() else { return Ok(()) };
        let title = escaped(&first.scenario.name);
        page.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
        page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
        // A browser that is told so asks nobody for anything, whatever a scenario's text may be.
        page.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n");
        writeln!(
            page,
            "<title>{title}</title>\n<style>\n{}</style>",
            include_str!("html/page.css")
        )?;
        page.push_str("</head><body><main>\n");
        self.headline(page)?;
        self.table(page)?;
        self.charts(page)?;
        self.strips(page)?;
        self.stories(page)?;
        self.expects(page)?;
        self.texts(page)?;
        self.reproduce(page)?;
        writeln!(
            page,
            "</main>\n<script>\n{}</script>\n</body></html>",
            include_str!("html/page.js")
        )
    }
}

/// A run's name with its colour.
fn tag(place: usize, name: &str) -> String {
    format!("<span class=\"run r{place}\">{}</span>", escaped(name))
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = String::new();
        self.write(&mut page)?;
        f.write_str(&page)
    }
}
