//! A run in the Chrome trace event format, which Perfetto and `chrome://tracing` open.
//!
//! Bounded: the faults, the first 200 breakers that move, the first 200 peers that are lost, three
//! counters in some two hundred points, and no more than 200,000 events; what did not fit is counted
//! at the file's end. Times are microseconds since the scenario began, printed from whole
//! nanoseconds: rounded floats make neighbours overlap.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;
use steadfast::config::Config;
use steadfast::{Action, Event, Notice, Time};

use crate::draws::Draws;
use crate::log::Log;
use crate::phases::{Is, Phase, Phases, Watcher};
use crate::plan::Plan;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::series::{Plotter, Series};

/// Peers, and breakers, with a track of their own.
const TRACKS: usize = 200;
/// Events of a file.
const EVENTS: usize = 200_000;
/// Of those, times that faults come.
const FAULTS: usize = 1_000;

/// What Chrome calls processes: groups of tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Faults = 1,
    Breakers,
    Peers,
    Counters,
    Notices,
}

impl Group {
    /// The number of a track, which none of another group has, nor any group itself.
    const fn tid(self, track: usize) -> usize {
        self as usize * 100_000 + track
    }
}

/// In the order in which they are shown.
const GROUPS: [(Group, &str); 5] = [
    (Group::Faults, "faults"),
    (Group::Counters, "counters"),
    (Group::Breakers, "breakers"),
    (Group::Notices, "notices"),
    (Group::Peers, "peers, the first that were lost"),
];

/// An event of the format.
#[derive(Clone, Debug)]
struct Mark {
    at_ns: u64,
    /// How long it lasts; a moment if it does not.
    lasts_ns: Option<u64>,
    group: Group,
    track: usize,
    name: Cow<'static, str>,
    /// Of a counter.
    value: Option<f64>,
}

/// Makes the trace of a run.
#[derive(Debug)]
pub(crate) struct Tracer<'a, W> {
    to: W,
    plan: &'a Plan,
    plotter: Plotter<'a>,
    phases: Phases<'a>,
    tracks: Tracks,
    /// Whether nothing has been written yet.
    first: bool,
    written: io::Result<()>,
}

/// The marks of a run, and the tracks that they are on.
#[derive(Debug, Default)]
struct Tracks {
    start: Option<Time>,
    marks: Vec<Mark>,
    missing: u64,
    names: BTreeMap<(Group, usize), String>,
    /// By peer: its track, and since when it is in its phase.
    peers: BTreeMap<usize, (usize, u64, Phase)>,
    breakers: BTreeMap<usize, (usize, u64, Is)>,
}

impl Tracks {
    fn since(&self, at: Time) -> u64 {
        at.as_nanos().saturating_sub(self.start.unwrap_or(Time::MAX).as_nanos())
    }

    fn mark(&mut self, mark: Mark) {
        if self.marks.len() < EVENTS {
            self.marks.push(mark);
        } else {
            self.missing += 1;
        }
    }

    fn span(&mut self, group: Group, track: usize, (from, to): (u64, u64), name: &'static str) {
        if from < to {
            let (name, lasts_ns) = (Cow::Borrowed(name), Some(to - from));
            self.mark(Mark { at_ns: from, lasts_ns, group, track, name, value: None });
        }
    }

    fn moment(&mut self, at: Time, group: Group, track: usize, name: String) {
        let (at_ns, name) = (self.since(at), Cow::Owned(name));
        self.mark(Mark { at_ns, lasts_ns: None, group, track, name, value: None });
    }

    /// Ends what lasts until the end.
    fn close(&mut self, end: u64) {
        for (track, since, phase) in std::mem::take(&mut self.peers).into_values() {
            self.span(Group::Peers, track, (since, end), phase_name(phase));
        }
        for (track, since, state) in std::mem::take(&mut self.breakers).into_values() {
            self.span(Group::Breakers, track, (since, end), state_name(state));
        }
    }
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Off => "not wanted, or given up",
        Phase::Waits => "waits for its breaker",
        Phase::BacksOff => "backs off",
        Phase::Dials => "dials",
        Phase::Up => "up",
    }
}

const fn state_name(state: Is) -> &'static str {
    match state {
        Is::Closed => "closed",
        Is::HalfOpen => "half-open",
        Is::Open => "open",
    }
}

impl Watcher for Tracks {
    fn moved(&mut self, peer: usize, at: Time, to: Phase) {
        if self.start.is_none() {
            return;
        }
        let (now, next) = (self.since(at), self.peers.len());
        match self.peers.get_mut(&peer) {
            Some(known) => {
                let (track, since, was) = std::mem::replace(known, (known.0, now, to));
                self.span(Group::Peers, track, (since, now), phase_name(was));
            }
            None if next < TRACKS => {
                self.peers.insert(peer, (next, 0, Phase::Up));
                self.moved(peer, at, to);
            }
            None => {}
        }
    }

    fn breaker(&mut self, breaker: usize, at: Time, to: Is) {
        if self.start.is_none() {
            return;
        }
        let (now, next) = (self.since(at), self.breakers.len());
        match self.breakers.get_mut(&breaker) {
            Some(known) => {
                let (track, since, was) = std::mem::replace(known, (known.0, now, to));
                self.span(Group::Breakers, track, (since, now), state_name(was));
            }
            None if next < TRACKS => {
                self.names.insert((Group::Breakers, next), format!("breaker {}", breaker + 1));
                self.breakers.insert(breaker, (next, 0, Is::Closed));
                self.breaker(breaker, at, to);
            }
            None => {}
        }
    }
}

impl<'a, W: Write> Tracer<'a, W> {
    pub(crate) fn new(plan: &'a Plan, scenario: &Scenario, seed: u64, to: W) -> Self {
        let mut tracks = Tracks::default();
        for (track, fault) in scenario.faults.iter().enumerate() {
            let name = format!("{} {}", fault.kind.get_ref(), fault.on.get_ref());
            tracks.names.insert((Group::Faults, track), name.clone());
            // Those of managers may overlap, each with the next; the earlier one is cut short.
            let spans = Schedule::of(fault).shown(Draws::new(seed));
            let next = spans.iter().skip(1).map(|(from, _)| from.as_nanos()).chain([u64::MAX]);
            for ((from, to), next) in spans.iter().zip(next).take(FAULTS) {
                let from = from.as_nanos();
                let end = scenario.duration.get_ref().as_nanos().min(next);
                let lasts = to.as_nanos().min(end).saturating_sub(from);
                let lasts_ns = Some(lasts).filter(|lasts| *lasts > 0);
                let name = Cow::Owned(name.clone());
                let group = Group::Faults;
                tracks.mark(Mark { at_ns: from, lasts_ns, group, track, name, value: None });
            }
            tracks.missing += spans.len().saturating_sub(FAULTS) as u64;
        }
        let (plotter, phases) = (Plotter::new(plan), Phases::new(plan));
        Self { to, plan, plotter, phases, tracks, first: true, written: Ok(()) }
    }

    /// Whether all was written.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.written
    }

    fn note(&mut self, now: Time, notice: &Notice) {
        let peer = |peer| self.phases.index(peer).and_then(|index| self.tracks.peers.get(&index));
        let (track, name) = match notice {
            Notice::Suspected { peer: of, .. } => (peer(*of).map(|known| known.0), "suspected"),
            Notice::Cleared { peer: of, .. } => (peer(*of).map(|known| known.0), "speaks again"),
            Notice::SessionLost { peer: of } => (peer(*of).map(|known| known.0), "session lost"),
            Notice::Draining { peer: of, .. } => (peer(*of).map(|known| known.0), "told to move"),
            Notice::Moved { peer: of, .. } => (peer(*of).map(|known| known.0), "moved"),
            Notice::MassSuspicion { .. }
            | Notice::SelfHealth { .. }
            | Notice::CommonRefusal { .. }
            | Notice::Slept { .. } => {
                let name = format!("{notice:?}");
                return self.tracks.moment(now, Group::Notices, 0, name);
            }
            _ => return,
        };
        if let Some(track) = track {
            self.tracks.moment(now, Group::Peers, track, name.to_owned());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for a drawing")]
    fn count(&mut self, series: &Series) {
        let span = series.span.as_nanos();
        for (place, point) in (0..).zip(&series.points) {
            let values = [
                ("peers up", f64::from(point.up)),
                ("dials in the last second", point.dials as f64),
                ("most waiting at a server", point.waiting as f64),
            ];
            for (track, (name, value)) in values.into_iter().enumerate() {
                self.tracks.mark(Mark {
                    at_ns: span.saturating_mul(place + 1),
                    lasts_ns: None,
                    group: Group::Counters,
                    track,
                    name: Cow::Borrowed(name),
                    value: Some(value),
                });
            }
        }
    }

    /// Says something of a track, or without one of a group of them.
    fn name(
        &mut self,
        (group, track): (Group, Option<usize>),
        what: &str,
        args: &serde_json::Value,
    ) -> io::Result<()> {
        let (pid, tid) = (group as u8, track.map_or(0, |track| group.tid(track)));
        let line = json!({ "ph": "M", "pid": pid, "tid": tid, "name": what, "args": args });
        // A list begins without a comma.
        let comma = if std::mem::replace(&mut self.first, false) { "" } else { "," };
        writeln!(self.to, "{comma}{line}")
    }

    fn write(&mut self) -> io::Result<()> {
        // Of those that begin together the longest comes first, so that spans nest.
        self.tracks.marks.sort_by_key(|mark| (mark.at_ns, std::cmp::Reverse(mark.lasts_ns)));
        writeln!(self.to, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        for (place, (group, name)) in GROUPS.iter().enumerate() {
            self.name((*group, None), "process_name", &json!({ "name": name }))?;
            self.name((*group, None), "process_sort_index", &json!({ "sort_index": place }))?;
        }
        let names = std::mem::take(&mut self.tracks.names);
        for ((group, track), name) in &names {
            let of = (*group, Some(*track));
            self.name(of, "thread_name", &json!({ "name": name }))?;
            self.name(of, "thread_sort_index", &json!({ "sort_index": track }))?;
        }
        for mark in &self.tracks.marks {
            writeln!(self.to, ",{}", mark.line()?)?;
        }
        let other = json!({ "events that did not fit": self.tracks.missing });
        writeln!(self.to, "],\"otherData\":{other}}}")?;
        self.to.flush()
    }
}

impl Mark {
    fn line(&self) -> io::Result<String> {
        let micros = |ns: u64| format!("{}.{:03}", ns / 1_000, ns % 1_000);
        let (pid, tid) = (self.group as u8, self.group.tid(self.track));
        let name = serde_json::to_string(&self.name)?;
        let ts = micros(self.at_ns);
        let rest = match (self.value, self.lasts_ns) {
            (Some(value), _) => format!("\"ph\":\"C\",\"args\":{{\"value\":{value}}}"),
            (None, Some(lasts)) => format!("\"ph\":\"X\",\"dur\":{}", micros(lasts)),
            (None, None) => "\"ph\":\"i\",\"s\":\"t\"".to_owned(),
        };
        Ok(format!("{{\"name\":{name},\"pid\":{pid},\"tid\":{tid},\"ts\":{ts},{rest}}}"))
    }
}

impl<W: Write> Log for Tracer<'_, W> {
    fn begin(&mut self, config: &Config, seeds: &[u64]) {
        self.plotter.begin(config, seeds);
    }

    fn start(&mut self, now: Time) {
        self.plotter.start(now);
        self.tracks.start = Some(now);
    }

    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        self.plotter.step(manager, now, event, actions);
        self.phases.advance(now, &mut self.tracks);
        self.phases.step(manager, now, event, actions, &mut self.tracks);
        let begun = self.tracks.start.is_some();
        for action in actions.iter().filter(|_| begun) {
            if let Action::Notice(notice) = action {
                self.note(now, notice);
            }
        }
    }

    fn server(&mut self, server: usize, now: Time, waiting: usize, busy: bool) {
        self.plotter.server(server, now, waiting, busy);
    }

    fn end(&mut self, now: Time, digests: &[u64]) {
        self.plotter.end(now, digests);
        for (peer, (track, ..)) in &self.tracks.peers {
            self.tracks.names.insert((Group::Peers, *track), self.plan.peer_name(*peer));
        }
        self.tracks.close(self.tracks.since(now));
        let series = std::mem::replace(&mut self.plotter, Plotter::new(self.plan)).finish();
        self.count(&series);
        self.written = self.write();
    }
}
