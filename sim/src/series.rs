//! A run over time, in some two hundred points: what a page draws.
//!
//! It is told what managers are told and answer, as any [`Log`], so it changes nothing, and a run
//! that nobody draws does not have it.

use std::collections::VecDeque;

use steadfast::config::Config;
use steadfast::{Action, Event, Time};

use crate::log::Log;
use crate::phases::{Phases, Watcher};
use crate::plan::Plan;
use crate::units::Span;

/// Points of a series, at most.
const POINTS: u64 = 240;
const SECOND: u64 = 1_000_000_000;

/// One point: what there is at its end, or was between the one before and this.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// Peers up at its end.
    pub(crate) up: u32,
    /// Peers by what they were [doing](crate::phases::Doing), in the mean.
    pub(crate) doing: [f64; 6],
    /// Most dials in any one second that ends in it.
    pub(crate) dials: u64,
    /// Most that waited at one server at once.
    pub(crate) waiting: u64,
    /// For what share of it the busiest server was busy.
    pub(crate) busy: f64,
    /// Breakers open, and half-open, in the mean.
    pub(crate) open: f64,
    pub(crate) half_open: f64,
}

/// A run over time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// What one point stands for.
    pub(crate) span: Span,
    pub(crate) points: Vec<Point>,
}

impl Series {
    /// When a point ends, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
    pub(crate) fn at_s(&self, place: usize) -> f64 {
        self.span.as_secs_f64() * (place as f64 + 1.0)
    }
}

/// A server as it stands.
#[derive(Clone, Copy, Debug, Default)]
struct Server {
    waiting: u64,
    busy: bool,
    since: Time,
    /// Within the point.
    busy_ns: u64,
    most: u64,
}

impl Server {
    fn advance(&mut self, now: Time) {
        let lasted = now.as_nanos().saturating_sub(self.since.as_nanos());
        self.busy_ns += u64::from(self.busy) * lasted;
        self.since = now.max(self.since);
    }
}

/// Makes the series of a run.
#[derive(Debug)]
pub(crate) struct Plotter<'a> {
    phases: Phases<'a>,
    begun: bool,
    start: Time,
    series: Series,
    servers: Vec<Server>,
    recent: VecDeque<Time>,
    dials: u64,
    /// Until when peers and breakers were last counted.
    counted: Time,
    lasted: Lasted,
}

/// How long peers and breakers were what they were, within the point: each for itself, in sum.
#[derive(Clone, Copy, Debug, Default)]
struct Lasted {
    peers_ns: [u64; 6],
    open_ns: u64,
    half_open_ns: u64,
}

struct Nobody;

impl Watcher for Nobody {}

impl<'a> Plotter<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let span = plan.duration.as_nanos().div_ceil(POINTS).max(1);
        let series = Series { span: Span::from_nanos(span), points: Vec::new() };
        Self {
            phases: Phases::new(plan),
            begun: false,
            start: Time::ZERO,
            series,
            servers: vec![Server::default(); plan.servers.len()],
            recent: VecDeque::new(),
            dials: 0,
            counted: Time::ZERO,
            lasted: Lasted::default(),
        }
    }

    pub(crate) fn finish(self) -> Series {
        self.series
    }

    /// Ends the points that are over by then.
    fn advance(&mut self, now: Time) {
        if !self.begun {
            return;
        }
        loop {
            let done = u64::try_from(self.series.points.len()).unwrap_or(u64::MAX);
            let span = self.series.span.as_nanos();
            let end = self.start.plus_nanos(span.saturating_mul(done.saturating_add(1)));
            // What happens at its end belongs to it.
            if end >= now || done >= POINTS {
                return;
            }
            self.end_point(end, span);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for a drawing")]
    fn end_point(&mut self, end: Time, span: u64) {
        self.count(end);
        self.phases.advance(end, &mut Nobody);
        self.forget_dials(end);
        let (mut waiting, mut busy_ns) = (0, 0);
        for server in &mut self.servers {
            server.advance(end);
            (waiting, busy_ns) = (server.most.max(waiting), server.busy_ns.max(busy_ns));
            (server.most, server.busy_ns) = (server.waiting, 0);
        }
        let share = |ns: u64| ns as f64 / span as f64;
        let lasted = std::mem::take(&mut self.lasted);
        self.series.points.push(Point {
            up: self.phases.up(),
            doing: lasted.peers_ns.map(share),
            dials: std::mem::replace(&mut self.dials, self.recent.len() as u64),
            waiting,
            busy: share(busy_ns),
            open: share(lasted.open_ns),
            half_open: share(lasted.half_open_ns),
        });
    }

    fn count(&mut self, now: Time) {
        let passed = now.as_nanos().saturating_sub(self.counted.as_nanos());
        if passed == 0 {
            return;
        }
        self.counted = now;
        let add = |sum: &mut u64, count: u32| {
            *sum = sum.saturating_add(passed.saturating_mul(count.into()));
        };
        let lasted = &mut self.lasted;
        lasted.peers_ns.iter_mut().zip(self.phases.counts).for_each(|(sum, count)| add(sum, count));
        add(&mut lasted.open_ns, self.phases.open);
        add(&mut lasted.half_open_ns, self.phases.half_open);
    }

    /// Dials of more than a second ago.
    fn forget_dials(&mut self, now: Time) {
        while self.recent.front().is_some_and(|first| first.plus_nanos(SECOND) <= now) {
            self.recent.pop_front();
        }
    }
}

impl Log for Plotter<'_> {
    fn begin(&mut self, _: &Config, _: &[u64]) {}

    fn start(&mut self, now: Time) {
        (self.begun, self.start, self.counted) = (true, now, now);
        (self.lasted, self.dials) = (Lasted::default(), 0);
        self.servers.iter_mut().for_each(|server| server.since = now);
    }

    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        self.advance(now);
        let quiet = matches!(
            event,
            Event::Heard { .. } | Event::Heartbeat { .. } | Event::Pong { .. } | Event::Tick
        );
        if quiet && actions.is_empty() {
            return;
        }
        self.count(now);
        self.phases.step(manager, now, event, actions, &mut Nobody);
        let dials = actions.iter().filter(|action| {
            matches!(action, Action::Dial { peer, .. } if self.phases.index(*peer).is_some())
        });
        let dials = dials.count();
        if self.begun && dials > 0 {
            self.recent.extend(std::iter::repeat_n(now, dials));
            self.forget_dials(now);
            self.dials = self.dials.max(self.recent.len() as u64);
        }
    }

    fn server(&mut self, server: usize, now: Time, waiting: usize, busy: bool) {
        self.advance(now);
        if let Some(server) = self.servers.get_mut(server) {
            server.advance(now);
            (server.waiting, server.busy) = (waiting as u64, busy);
            server.most = server.most.max(server.waiting);
        }
    }

    fn end(&mut self, now: Time, _: &[u64]) {
        self.advance(now.plus_nanos(1));
    }
}
