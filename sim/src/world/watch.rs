//! What is seen of a run: its notices, its invariants, its outcome.

use std::fmt;

use steadfast::breaker::State;
use steadfast::{Action, BreakerId, Event, LossCause, Notice, PeerCause, PeerState, Time};

use super::{Peer, Step, World};
use crate::dist::unit;
use crate::draws::Purpose;
use crate::marks::Marks;
use crate::measure::{Facts, GroupFacts, Watch};
use crate::plan::Way;
use crate::simulation::fold_digests;
use crate::units::Span;

/// A rule that was broken during a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule, and what was seen.
    pub rule: String,
    /// In which manager.
    pub manager: usize,
    /// After how many events, over all managers.
    pub step: u64,
    /// When, in scenario time.
    pub at: Span,
    /// After what.
    pub after: String,
}

impl Violation {
    /// The rule and what kind of thing broke it, without what differs from run to run: its number,
    /// and what was seen.
    #[must_use]
    pub fn kind(&self) -> String {
        let mut parts = self.rule.split(": ");
        let rule = parts.next().unwrap_or_default();
        let of = parts.next().filter(|_| rule.starts_with("invariant"));
        let of = of.map_or("", |of| of.split('[').next().unwrap_or_default());
        match of {
            "" => rule.to_owned(),
            of => format!("{rule} of {of}"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (manager {}, step {}", self.rule, self.manager, self.step)?;
        write!(f, ", at {:.9}s, after {})", self.at.as_secs_f64(), self.after)
    }
}

/// What a finished world leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) facts: Facts,
    pub(crate) digest: u64,
    pub(crate) digests: Vec<u64>,
    pub(crate) events: u64,
    pub(crate) actions: u64,
    pub(crate) invariant_checks: u64,
    pub(crate) virtual_ns: u64,
    pub(crate) watched: Vec<Watched>,
    pub(crate) violation: Option<Violation>,
    pub(crate) marks: Marks,
    /// Whether somebody who was waited for was down at the heal.
    pub(crate) was_down: bool,
}

/// A peer with a detector of its own, and what that said.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) group: String,
    pub(crate) place: u32,
    pub(crate) watch: Watch,
}

/// After how long without a loss all counts as well: longer than what a stable connection takes.
const WELL_AFTER_NS: u64 = 15_000_000_000;

impl World<'_> {
    pub(super) fn noticed(&mut self, manager: usize, notice: &Notice) {
        match *notice {
            Notice::Peer { peer, from, to, cause } => {
                let Some(index) = self.plan.peer(peer) else { return };
                if cause == PeerCause::Lost(LossCause::Suspected) && !self.warming {
                    match self.dead_since(index) {
                        Some(since) => self.measures.detections.add(self.now.since(since)),
                        None => self.watch(index).false_losses += 1,
                    }
                }
                if self.plan.groups[self.peers[index].group as usize].trace.is_some() {
                    return;
                }
                match (from == PeerState::Connected, to == PeerState::Connected) {
                    (false, true) => self.measures.came_up(index, self.now),
                    (true, false) => self.measures.went_down(index, self.now),
                    _ => {}
                }
                self.measures.given_up += u64::from(to == PeerState::Failed);
            }
            Notice::Suspected { peer, silence, .. } if !self.warming => {
                if let Some(index) = self.plan.peer(peer) {
                    let silence = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX);
                    self.watch(index).suspected(silence);
                }
            }
            Notice::Cleared { peer, suspected_for, .. } if !self.warming => {
                if let Some(index) = self.plan.peer(peer) {
                    let watch = self.watch(index);
                    watch.cleared += 1;
                    watch.suspected_ns += u64::try_from(suspected_for.as_nanos()).unwrap_or(0);
                }
            }
            Notice::CallRetries { .. } => self.tally.retries(self.now),
            Notice::Breaker { breaker, from, to } => self.breaker_moved(manager, breaker, from, to),
            _ => {}
        }
    }

    /// What the detector of this peer has said, or those of its group.
    fn watch(&mut self, index: usize) -> &mut Watch {
        let group = self.peers[index].group as usize;
        match self.plan.groups[group].trace {
            Some(_) => self.traced.entry(index).or_default(),
            None => &mut self.watches[group],
        }
    }

    /// Since when a peer's connection has led nowhere; `None` if all is well with it.
    ///
    /// The order to close comes with the notice of a loss, so the connection may be gone already.
    pub(super) fn dead_since(&self, index: usize) -> Option<Time> {
        let peer = &self.peers[index];
        let mut since = peer.dead_since;
        if let Some(Way { server, link }) =
            self.plan.groups[peer.group as usize].ways.get(peer.way as usize)
        {
            let silent_since = self.servers[*server].silent_since;
            since = since.min(silent_since).min(self.links[*link].blocked_since);
        }
        (since != Time::MAX).then_some(since)
    }

    /// Tells the measures of connections that lead nowhere and are still believed at the end.
    fn tell_undetected(&mut self) {
        for index in 0..self.peers.len() {
            let Peer { group, conn, .. } = self.peers[index];
            let traced = self.plan.groups[group as usize].trace.is_some();
            if let Some(since) = self.dead_since(index).filter(|_| conn.is_some() && !traced) {
                self.measures.detections.not_over(self.now.since(since));
            }
        }
    }

    pub(super) fn breaker_moved(
        &mut self,
        manager: usize,
        breaker: BreakerId,
        from: State,
        to: State,
    ) {
        let open = |state| i32::from(matches!(state, State::Open { .. } | State::ForcedOpen));
        let half = |state| i32::from(state == State::HalfOpen);
        let (opened, halved) = (open(to) - open(from), half(to) - half(from));
        if opened > 0 {
            let way = self.plan.workloads.iter().find_map(|workload| workload.way_of(breaker));
            let bad = |way: &Way| self.desks[way.server].bad_since.is_some();
            self.tally.healthy_opens += u64::from(way.is_some_and(|way| !way.is_some_and(bad)));
            let group = self
                .plan
                .groups
                .iter()
                .enumerate()
                .find_map(|(index, group)| group.behind(breaker).map(|places| (index, places)));
            if let Some((group, places)) = group
                && self.churns(group)
                && self.are_well(group, places)
            {
                self.measures.healthy_opens += 1;
            }
        }
        self.measures.breakers(opened, halved, self.now);
        self.half_open = self.half_open.saturating_add_signed(halved);
        if let Some(view) = self.breakers.get_mut(manager, breaker) {
            view.periods += u32::from(to == State::HalfOpen);
            view.half_open = if to == State::HalfOpen { view.periods } else { 0 };
            view.dials = 0;
            view.moved_at = self.now;
        }
    }

    /// A test's tick somewhere before the next event.
    pub(super) fn tick_before(&mut self, next: Time) -> Step {
        self.draws_of_tests += 1;
        let n = self.draws_of_tests;
        let random = |kind| self.draws.draw(Purpose::ExtraTick, kind, n);
        if unit(random(0)) >= self.options.extra_ticks {
            return Ok(());
        }
        let last = self.drivers.len().saturating_sub(1) as u64;
        let manager = steadfast::draw::uniform(random(1), 0, last);
        let manager = usize::try_from(manager).unwrap_or(0);
        let at = steadfast::draw::uniform(random(2), self.now.as_nanos(), next.as_nanos());
        // At the very moment of the next event its I/O must come first.
        let awake = self.drivers[manager].attends_to(&Event::Tick);
        if at < next.as_nanos() && awake {
            self.now = Time::from_nanos(at);
            self.measures.advance(self.now);
            self.tell(manager, Event::Tick)?;
        }
        Ok(())
    }

    pub(super) fn restore(&mut self, manager: usize, after: fmt::Arguments<'_>) -> Step {
        self.draws_of_tests += 1;
        let random = self.draws.draw(Purpose::Restore, manager as u64, self.draws_of_tests);
        if unit(random) >= self.options.restores {
            return Ok(());
        }
        // By habit seven in eight skip the text, which takes ten times as long as the rest.
        let by_habit = self.options.restores <= self.plan.habits.restores.as_f64();
        let in_text = !by_habit || random.is_multiple_of(8);
        let restored = self.drivers[manager].restore(random, in_text);
        restored.map_err(|problem| self.violation(manager, problem, after))
    }

    pub(super) fn check(&mut self, manager: usize, after: fmt::Arguments<'_>) -> Step {
        self.invariant_checks += 1;
        let checked = self.drivers[manager].manager.check();
        checked
            .map_err(|violation| self.violation(manager, format!("invariant {violation}"), after))
    }

    pub(super) fn check_step(&mut self, manager: usize, event: &Event, actions: &[Action]) -> Step {
        self.invariant_checks += 1;
        let checked = self.drivers[manager].manager.check_step(event, actions);
        let after = format_args!("{event:?}");
        checked
            .map_err(|violation| self.violation(manager, format!("invariant {violation}"), after))
    }

    /// Whether all who are promised a connection have had one for long enough to keep it, and all that
    /// was asked in the outage is answered.
    pub(super) fn is_well(&self) -> bool {
        let heal = self.measures.start().plus_nanos(self.plan.heal.as_nanos());
        let calm_since = Time::from_nanos(self.now.as_nanos().saturating_sub(WELL_AFTER_NS));
        if calm_since < heal || !self.are_answered(calm_since) {
            return false;
        }
        let core = self.plan.groups.iter().zip(&self.core).filter(|(_, core)| **core);
        let mut members =
            core.flat_map(|(group, _)| group.first..group.first + group.count as usize);
        members.all(|peer| self.measures.back_at(peer) <= calm_since)
    }

    pub(super) fn check_all(&mut self, when: &str) -> Step {
        (0..self.plan.managers).try_for_each(|manager| self.check(manager, format_args!("{when}")))
    }

    pub(super) fn violation(
        &self,
        manager: usize,
        rule: String,
        after: fmt::Arguments<'_>,
    ) -> Violation {
        let at = self.now.since(self.measures.start());
        Violation {
            rule,
            manager,
            step: self.events,
            at: Span::from_nanos(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)),
            after: after.to_string(),
        }
    }

    /// Tells the measures of half-open breakers that nobody waits for: they have no reason to move.
    fn tell_idle_breakers(&mut self) {
        if self.half_open == 0 {
            return;
        }
        let (mut idle, of_calls) = self.breakers.half_open_since();
        for (index, peer) in self.peers.iter().enumerate() {
            let group = &self.plan.groups[peer.group as usize];
            let state =
                self.drivers[peer.manager as usize].manager.peer_state(group.peer_id(peer.place));
            let waits = matches!(state, Some(PeerState::Connecting | PeerState::Reconnecting));
            for way in 0..group.ways.len() {
                let breaker = group.breaker_id(peer.place, way);
                let place = group.breaker_place(peer.manager as usize, breaker);
                let known = place.and_then(|place| idle[peer.group as usize].get_mut(place));
                let Some(idle) = known else { continue };
                if waits {
                    *idle = None;
                } else if let Some(since) = idle {
                    let back_at = self.measures.back_at(index);
                    *since = (*since).max(if back_at == Time::MAX { Time::ZERO } else { back_at });
                }
            }
        }
        for since in idle.into_iter().flatten().flatten().chain(of_calls) {
            self.measures.idle_since(since);
        }
    }

    pub(super) fn outcome(mut self, violation: Option<Violation>) -> Outcome {
        let digests: Vec<u64> =
            self.drivers.iter().map(|driver| driver.manager.run_digest()).collect();
        let digest = fold_digests(&digests);
        self.log.end(self.now, &digests);
        self.tell_idle_breakers();
        self.tell_awaited_hosts();
        self.tell_awaited_peers();
        self.tell_undetected();
        let mut groups: Vec<_> = {
            let groups = self.plan.groups.iter();
            groups.map(|group| GroupFacts::of(group, self.plan)).collect()
        };
        let mut watched = Vec::new();
        for (index, group) in self.plan.groups.iter().enumerate() {
            groups[index].watch.add(&self.watches[index]);
            for place in (0..group.count).filter(|_| group.trace.is_some()) {
                let watch = self.traced.get(&(group.first + place as usize)).copied();
                let (watch, name) = (watch.unwrap_or_default(), group.name.clone());
                groups[index].watch.add(&watch);
                watched.push(Watched { group: name, place, watch });
            }
        }
        let calls = (!self.plan.workloads.is_empty()).then(|| {
            let faults = self.plan.faults.iter().map(|fault| fault.schedule.at()).min();
            let faults = faults.map(|first| (first, self.plan.heal));
            let names = self.plan.servers.iter().map(|server| server.name.clone());
            let bound = self.plan.bound();
            std::mem::take(&mut self.tally).facts(self.plan.duration, names, faults, bound)
        });
        let virtual_ns = self.now.since(self.measures.start()).as_nanos();
        let mut facts = self.measures.facts(self.now, self.ideal_s, groups);
        facts.calls = calls;
        let servers = self.plan.servers.iter().zip(&self.balancers);
        let servers = servers.filter(|(server, _)| server.instances > 0);
        facts.instances =
            servers.map(|(server, balancer)| (server.name.clone(), balancer.loads())).collect();
        Outcome {
            digest,
            digests,
            events: self.events,
            actions: self.actions,
            invariant_checks: self.invariant_checks,
            virtual_ns: u64::try_from(virtual_ns).unwrap_or(u64::MAX),
            watched,
            violation,
            marks: self.marks,
            was_down: self.was_down,
            facts,
        }
    }
}
