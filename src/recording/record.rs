//! Writing a recording.

use std::collections::BTreeMap;
use std::io::{Error, Result, Write};

use super::{Footer, HeaderOut, Start, StepOut, Totals, VERSION};
use crate::action::Action;
use crate::event::Event;
use crate::time::Time;

/// Writes a recording, step by step.
///
/// Each step is one write: give it a `BufWriter`, or a `Vec<u8>` that is emptied now and then
/// through [`get_mut`](Self::get_mut) by somebody who has the time to write to a disk. A recorder
/// that is dropped leaves a recording that was cut off, which replays as far as it goes.
#[derive(Debug)]
pub struct Recorder<W> {
    to: W,
    /// The line being written, kept for its memory.
    text: Vec<u8>,
    steps: u64,
    /// Whether a line is missing, or half there: nothing can follow it.
    broken: bool,
}

impl<W: Write> Recorder<W> {
    /// A recording of managers that begin so; `about` is for people: which program, why, what seed.
    ///
    /// # Errors
    ///
    /// That the header could not be written.
    pub fn new(to: W, about: &BTreeMap<String, String>, start: &Start) -> Result<Self> {
        let mut recorder = Self::behind_header(to);
        write_header(&mut recorder.to, about, start)?;
        Ok(recorder)
    }

    /// A recording whose first line somebody else writes, by [`write_header`]: whoever has the time
    /// for the snapshots in it.
    #[must_use]
    pub const fn behind_header(to: W) -> Self {
        Self { to, text: Vec::new(), steps: 0, broken: false }
    }

    /// A manager was told `event` at `now` and answered with `actions`.
    ///
    /// `manager`: its place in the start; `now`: as it was told, even if that went backwards.
    /// Allocates for the longest line so far, and what the writer does.
    ///
    /// # Errors
    ///
    /// That the line could not be written. Nothing can be written after it.
    pub fn step(
        &mut self,
        manager: usize,
        now: Time,
        event: &Event,
        actions: &[Action],
    ) -> Result<()> {
        self.line(|text| StepOut { t: now, manager, event, actions }.write_to(text))?;
        self.steps += 1;
        Ok(())
    }

    /// The run is over: `digests` are the managers' run digests, in order. Gives the writer back,
    /// flushed.
    ///
    /// # Errors
    ///
    /// That it, or a line before it, could not be written.
    pub fn finish(mut self, digests: &[u64]) -> Result<W> {
        let digests = digests.iter().map(|digest| format!("{digest:016x}")).collect();
        let end = Footer { end: Totals { steps: self.steps, digests } };
        self.line(|text| end.write_to(text))?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// Steps written.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The writer.
    #[must_use]
    pub const fn get_ref(&self) -> &W {
        &self.to
    }

    /// The writer: to flush it, or to take away what has gathered there. Between two calls it
    /// holds whole lines only.
    #[must_use]
    pub const fn get_mut(&mut self) -> &mut W {
        &mut self.to
    }

    fn line(&mut self, write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>) -> Result<()> {
        if self.broken {
            return Err(Error::other("an earlier line of the recording could not be written"));
        }
        self.text.clear();
        write(&mut self.text)?;
        self.text.push(b'\n');
        let written = self.to.write_all(&self.text);
        self.broken = written.is_err();
        written
    }
}

/// Writes the first line of a recording, whose steps come from a
/// [`Recorder::behind_header`]. O(n) in the snapshots.
///
/// # Errors
///
/// That it could not be written.
pub fn write_header(
    to: &mut impl Write,
    about: &BTreeMap<String, String>,
    start: &Start,
) -> Result<()> {
    HeaderOut { steadfast_log: VERSION, version: env!("CARGO_PKG_VERSION"), about, start }
        .write_to(to)?;
    to.write_all(b"\n")
}
