//! Rules that a manager's own invariants cannot see: what it owes to those outside.
//!
//! - `backoff`: a wait lies within what the policy allows after so many failures, and failures are
//!   forgotten only after a connection that lasted.
//! - `jitter`: waits do not pile up on the cap.
//! - `probe`: a probe without an answer is a failure after its time, and not for ever in the way.
//! - `stale`: what is told of a connection that is gone brings nobody up.
//! - `budget`: retries and hedges are paid from what successes earned.
//! - `suspicion`: a process that slept blames nobody else.
//! - `overdue`: a call is over by its deadline.

use std::collections::BTreeMap;

use steadfast::backoff::Jitter;
use steadfast::config::{Detector, PeerProfile, Signs};
use steadfast::{Action, ConnId, Event, Notice, PeerCause, PeerState, Time};

use super::{Peer, World};
use crate::plan::{Plan, Trouble};
use crate::units::{Share, Span};

/// What is kept of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Failures told with its last wait, since a connection that lasted.
    failures: u32,
    /// Since when it has been up.
    up_since: Time,
}

#[derive(Debug)]
pub(super) struct Oracle {
    /// By peer; nothing in worlds that are too large to be watched like this.
    memories: Vec<Memory>,
    /// By workload.
    purses: Vec<Paid>,
    /// Since when dials are out that a half-open breaker admitted.
    probes: BTreeMap<(usize, ConnId), Time>,
    /// Whether the managers' own hosts are always there.
    is_awake: bool,
    /// Whether nothing can go wrong with a connection that is up but a process that sleeps.
    is_calm: bool,
    broken: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Paid {
    /// Attempts beyond the first of each call.
    extra: u64,
    done: u64,
    /// Calls done after more than one.
    refunds: u64,
}

impl Oracle {
    pub(super) fn new(plan: &Plan, watches: bool) -> Self {
        let peers = if watches { plan.peers as usize } else { 0 };
        let harmless = |trouble: &Trouble| {
            matches!(
                trouble,
                Trouble::Pause(_) | Trouble::Resolve | Trouble::Leave(_) | Trouble::HangUp(_)
            )
        };
        let lossless = plan.links.iter().all(|link| link.loss == Share::default());
        Self {
            memories: vec![Memory::default(); peers],
            probes: BTreeMap::new(),
            is_awake: !plan.faults.iter().any(|fault| {
                fault.trouble.keeps_off() || matches!(fault.trouble, Trouble::Pause(_))
            }),
            purses: vec![Paid::default(); plan.workloads.len()],
            is_calm: watches
                && lossless
                && !plan.config.sleep.max_hold.is_zero()
                && plan.faults.iter().all(|fault| harmless(&fault.trouble)),
            broken: None,
        }
    }

    /// A half-open breaker admitted a dial.
    pub(super) fn probe_begins(&mut self, manager: usize, conn: ConnId, now: Time) {
        self.probes.insert((manager, conn), now);
    }

    fn breaks(&mut self, rule: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(rule());
        }
    }

    /// The first rule that was broken, if one was.
    pub(super) fn broken(&mut self) -> Option<String> {
        self.broken.take()
    }
}

impl World<'_> {
    /// An event is about to reach a manager.
    pub(super) fn foresee(&mut self, manager: usize, event: &Event) {
        if self.oracle.memories.is_empty() {
            return;
        }
        match *event {
            // All delays begin anew.
            Event::NetworkUp | Event::NetworkChanged | Event::Resumed => {
                let managers = self.plan.managers;
                for memory in self.oracle.memories.iter_mut().skip(manager).step_by(managers) {
                    memory.failures = 0;
                }
            }
            Event::Connect { peer } | Event::RemovePeer { peer } => {
                if let Some(index) = self.plan.peer(peer) {
                    self.oracle.memories[index] = Memory::default();
                }
            }
            _ => {}
        }
    }

    /// A manager answered; `late` if what it answered was told of something that is over.
    pub(super) fn judge(&mut self, action: &Action, late: bool) {
        let Action::Notice(notice) = action else { return };
        match *notice {
            Notice::Peer { peer, from, to, cause } if !self.oracle.memories.is_empty() => {
                let Some(index) = self.plan.peer(peer) else { return };
                let stable = self.profile_of(index).stable_after;
                let memory = &mut self.oracle.memories[index];
                if to == PeerState::Connected {
                    memory.up_since = self.now;
                    if late && matches!(cause, PeerCause::Dialed) {
                        let name = format!("stale: {peer} came up by a connection that is gone");
                        self.oracle.breaks(|| name);
                    }
                } else if from == PeerState::Connected && self.now.since(memory.up_since) >= stable
                {
                    memory.failures = 0;
                }
            }
            Notice::RetryAt { peer, at, failures } if !self.oracle.memories.is_empty() => {
                if let Some(index) = self.plan.peer(peer) {
                    self.judge_wait(index, at, failures);
                }
            }
            Notice::Suspected { peer, silence, .. } if self.oracle.is_calm && !self.warming => {
                let Some(index) = self.plan.peer(peer) else { return };
                if self.is_patient(index) && self.dead_since(index).is_none() {
                    self.oracle.breaks(|| {
                        format!("suspicion: {peer} was suspected after {silence:?}, and all that went wrong was a process that slept")
                    });
                }
            }
            _ => {}
        }
    }

    fn judge_wait(&mut self, index: usize, at: Time, failures: u32) {
        let (now, profile) = (self.now, self.profile_of(index));
        let cap = profile.backoff.cap;
        let (jitter, pause) = (profile.backoff.jitter, profile.attempt_delay);
        let Ok(policy) = profile.backoff.validate() else { return };
        let wait = at.since(now);
        let Peer { group, place, .. } = self.peers[index];
        let peer = self.plan.groups[group as usize].peer_id(place);
        let memory = &mut self.oracle.memories[index];
        let before = std::mem::replace(&mut memory.failures, failures);
        if failures < before {
            self.oracle.breaks(|| {
                format!("backoff: {peer} has {failures} failures after {before}, and no connection lasted")
            });
        }
        let Some(k) = failures.checked_sub(1) else { return };
        let (low, _) = policy.bounds(k, std::time::Duration::ZERO);
        // Before the next endpoint there is only a pause.
        let next = self.plan.groups[group as usize].ways.len() > 1;
        if wait < low && !next {
            let rule = format!(
                "backoff: {peer} waits {wait:?} after {failures} failures, at least {low:?}"
            );
            self.oracle.breaks(|| rule);
        }
        let spread = jitter != Jitter::None && low < cap;
        if spread && wait == cap && (!next || wait != pause) {
            self.oracle.breaks(|| format!("jitter: {peer} waits for the cap itself, {cap:?}"));
        }
    }

    fn profile_of(&self, index: usize) -> &PeerProfile {
        let Peer { group, place, .. } = self.peers[index];
        let id = self.plan.groups[group as usize].profile(place);
        &self.plan.config.peer_profiles[usize::from(id.0)]
    }

    /// It is over; `same` if the breaker is still in the half-open period that admitted it.
    pub(super) fn probe_ends(&mut self, manager: usize, conn: ConnId, group: usize, same: bool) {
        let Some(since) = self.oracle.probes.remove(&(manager, conn)) else { return };
        let guard = usize::from(self.plan.groups[group].breaker_profile.0);
        let guard = &self.plan.config.breaker_profiles[guard].breaker;
        let (out, tolerant) = (self.now.since(since), guard.tolerate > 0);
        if let Some(timeout) = guard.probe_timeout.filter(|timeout| *timeout < out)
            && same
            && !tolerant
            && self.oracle.is_awake
        {
            self.oracle.breaks(|| {
                format!("probe: {conn} was out for {out:?}, {timeout:?} is the limit, and its breaker waited")
            });
        }
    }

    /// A workload's call has an attempt, the first of which is free.
    pub(super) fn pay(&mut self, workload: usize, attempts: u32) {
        if attempts < 2 {
            return;
        }
        self.oracle.purses[workload].extra += 1;
        let plan = &self.plan.workloads[workload];
        let guard = self.plan.config.breaker_profiles.get(usize::from(plan.breaker_profile.0));
        let Some(budget) = guard.and_then(|guard| guard.calls.budget) else { return };
        if plan.outer.is_some() {
            return;
        }
        let Paid { extra, done, refunds } = self.oracle.purses[workload];
        let (extra, done, refunds) = (extra as f64, done as f64, refunds as f64);
        let reserve = budget.reserve.map_or(0.0, |rate| {
            self.now.since(Time::ZERO).as_secs_f64() * f64::from(rate.count)
                / rate.per.as_secs_f64().max(1e-9)
        });
        let each = f64::from(budget.initial) + reserve;
        let ratio = f64::from(budget.ratio.numerator) / f64::from(budget.ratio.denominator);
        let earned = ratio * done + refunds + each * plan.breakers(self.plan.managers) as f64;
        if extra > earned + 1e-6 {
            self.oracle.breaks(|| {
                format!(
                    "budget: {extra} retries and hedges of `{}`, paid for were {earned:.1}",
                    plan.name
                )
            });
        }
    }

    /// A workload's call was done.
    pub(super) fn earn(&mut self, workload: usize, attempts: u32) {
        let paid = &mut self.oracle.purses[workload];
        paid.done += 1;
        paid.refunds += u64::from(attempts > 1);
    }
}

impl World<'_> {
    /// Whether the peer's detector gives all that comes over its links the time to come, and a process
    /// that wakes the time to look at it.
    fn is_patient(&self, index: usize) -> bool {
        let group = &self.plan.groups[self.peers[index].group as usize];
        let profile = self.profile_of(index);
        let links = group.ways.iter().filter_map(|way| self.plan.links.get(way.link));
        let longest = links.map(|link| link.latency.longest()).max().unwrap_or(Span::ZERO);
        let trip = 2 * std::time::Duration::from(longest);
        let beat = group.heartbeat.map_or(std::time::Duration::ZERO, Into::into);
        let asks = match profile.health.signs {
            Signs::Pings(pings) => pings.timeout > trip && pings.timeout >= LEAST,
            Signs::Heartbeats | Signs::Unmonitored => true,
        };
        let Detector::Deadline(deadline) = profile.health.detector else { return false };
        asks && group.trace.is_none() && deadline >= 5 * LEAST && deadline > 2 * beat + trip
    }
}

/// What a process that wakes the wrong way round takes to come to its sockets is far below this.
const LEAST: std::time::Duration = std::time::Duration::from_secs(1);
