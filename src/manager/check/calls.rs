//! The invariants of calls, attempts and gates.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Violation, bump, hold};
use crate::container::timers::{Table, TimerKind};
use crate::manager::Manager;
use crate::manager::calls::{
    Call, CallPhase, DOOMED, LIVE, MOVING, ORPHANS, RELEASED, bound_for, waiting_for,
};
use crate::manager::group::{Group, is_open};
use crate::manager::peers::NONE;
use crate::stats::CallCounts;
use crate::time::Time;

impl Manager {
    pub(super) fn check_calls(&self, timers: &Table) -> Result<(), Violation> {
        self.check_call_lists()?;
        self.check_attempts()?;
        self.check_gates()?;
        self.check_groups()?;
        for (slot, call) in self.calls.slab.iter() {
            self.check_call(slot, call, timers.get(&(TimerKind::Call, slot)).copied())?;
        }
        Ok(())
    }

    /// `links`: each call is on exactly the lists that its record says.
    fn check_call_lists(&self) -> Result<(), Violation> {
        const NAME: &str = "links";
        for (anchor, current) in [(LIVE, true), (ORPHANS, false)] {
            for slot in self.calls.lists.iter(anchor) {
                let ok = self.calls.is_live(slot) == current;
                hold(NAME, ok, || format!("calls[{slot}]"), || "of another process".into())?;
            }
        }
        for slot in self.calls.places.iter(RELEASED) {
            let waits = matches!(self.calls.slab[slot].phase, CallPhase::Connection { .. });
            hold(NAME, waits, || format!("calls[{slot}]"), || "released from no wait".into())?;
        }
        for slot in self.calls.places.iter(DOOMED) {
            let bound = self.calls.slab[slot].peer != NONE;
            hold(NAME, bound, || format!("calls[{slot}]"), || "doomed without a peer".into())?;
        }
        for (peer, _) in self.peers.slab.iter() {
            for (list, waiting) in [(waiting_for(peer), true), (bound_for(peer), false)] {
                for slot in self.calls.places.iter(list) {
                    let call = &self.calls.slab[slot];
                    let waits = matches!(call.phase, CallPhase::Connection { .. });
                    let ok = call.peer == peer && self.peer_of(call).is_some() && waits == waiting;
                    let place = || format!("calls[{slot}]");
                    hold(NAME, ok, place, || format!("in the wrong place at peers[{peer}]"))?;
                }
            }
        }
        for slot in self.calls.lines.iter(MOVING) {
            let used = self.breakers.slab.get(slot).is_some();
            hold(NAME, used, || format!("breakers[{slot}]"), || "moving, not there".into())?;
        }
        Ok(())
    }

    /// `one-phase`: a call is in one phase, with the one timer or place that moves it on; `timer`: when
    /// that timer is due.
    pub(super) fn check_call(
        &self,
        slot: u32,
        call: &Call,
        timer: Option<Time>,
    ) -> Result<(), Violation> {
        const NAME: &str = "one-phase";
        let place = || format!("calls[{slot}]");
        hold(NAME, self.calls.lists.is_linked(slot), place, || "of no process".into())?;
        let placed = self.calls.places.is_linked(slot) == (call.peer != NONE);
        hold(NAME, placed, place, || "at no peer, or at one that it does not go to".into())?;
        let due = match call.phase {
            CallPhase::Asked => Time::ZERO,
            CallPhase::Connection { until }
            | CallPhase::Turn { until, .. }
            | CallPhase::BackingOff { until } => until,
            CallPhase::Running { hedge_at } => hedge_at,
        };
        let due = due.min(call.deadline);
        let moved_on = if due < Time::MAX { timer == Some(due) } else { timer.is_none() };
        hold(NAME, moved_on, place, || format!("timer {timer:?} in {:?}", call.phase))?;
        let running = matches!(call.phase, CallPhase::Running { .. });
        hold(NAME, running == (call.first_attempt != NONE), place, || {
            format!("first attempt {} in {:?}", call.first_attempt, call.phase)
        })?;
        hold(NAME, !(running && call.paid), place, || "paid twice".into())?;
        Ok(())
    }

    /// `one-phase`: an attempt belongs to one call, and times out by itself or with it.
    fn check_attempts(&self) -> Result<(), Violation> {
        const NAME: &str = "one-phase";
        let mut chained = vec![false; self.calls.attempts.parts().0.len()];
        for (slot, _) in self.calls.slab.iter() {
            let most = self.calls.attempts.len() as usize + 1;
            let mut hedges = 0;
            for (attempt, record) in self.calls.attempts_of(slot).take(most) {
                let seen = chained.get_mut(attempt as usize);
                let seen = seen.map(|seen| core::mem::replace(seen, true));
                let ok = record.call == slot && seen == Some(false);
                let place = || format!("attempts[{attempt}]");
                hold(NAME, ok, place, || format!("not of calls[{slot}] alone"))?;
                let call = &self.calls.slab[slot];
                let timeout = self.policies.call(call.profile).profile.attempt_timeout;
                let timed = self.timers.is_armed(TimerKind::Attempt, attempt)
                    || call.deadline < Time::MAX
                    || record.since + timeout == Time::MAX;
                hold(NAME, timed, place, || "without timeout".into())?;
                hedges += u32::from(record.hedge);
                // What is no hedge begins where nothing runs, and hedges stand before it.
                let stands = record.hedge || record.next == NONE;
                hold(NAME, stands, place, || "no hedge, beside another".into())?;
            }
            let made = self.calls.slab[slot].hedges;
            hold(
                NAME,
                hedges <= made,
                || format!("calls[{slot}]"),
                || format!("{hedges} hedges run, {made} were made"),
            )?;
        }
        for (slot, _) in self.calls.attempts.iter() {
            let known = chained.get(slot as usize).copied().unwrap_or_default();
            hold(NAME, known, || format!("attempts[{slot}]"), || "of no call".into())?;
        }
        Ok(())
    }

    /// `limits`, `runnable`: gates hold exactly what their calls took, and a line moves while it can.
    fn check_gates(&self) -> Result<(), Violation> {
        let mut calls = vec![0_u32; self.breakers.slab.parts().0.len()];
        let (mut running, mut waiting) = (calls.clone(), calls.clone());
        for (_, call) in self.calls.slab.iter() {
            bump(&mut calls, call.breaker);
            if let CallPhase::Turn { .. } = call.phase {
                bump(&mut waiting, call.breaker);
            }
        }
        for (_, attempt) in self.calls.attempts.iter() {
            bump(&mut running, self.calls.slab[attempt.call].breaker);
        }
        for (slot, record) in self.breakers.slab.iter() {
            let place = || format!("breakers[{slot}]");
            let counted = |counts: &[u32]| counts.get(slot as usize).copied().unwrap_or_default();
            let right = record.calls == counted(&calls);
            hold("limits", right, place, || {
                format!("{} calls, counted {}", record.calls, counted(&calls))
            })?;
            let moving = self.calls.lines.is_linked(slot);
            hold("runnable", moving == self.is_moving(slot), place, || {
                format!("its line is among the moving: {moving}")
            })?;
            let Some(gates) = &record.gates else { continue };
            let (in_use, in_line) = (gates.bulkhead.in_use(), gates.bulkhead.waiting());
            hold("limits", in_use == counted(&running), place, || {
                format!("{in_use} slots in use, {} attempts", counted(&running))
            })?;
            hold("limits", in_line == counted(&waiting), place, || {
                format!("{in_line} in line, {} calls wait", counted(&waiting))
            })?;
            for (ticket, key) in gates.bulkhead.waiters() {
                let call = u32::try_from(key).ok().and_then(|call| self.calls.slab.get(call));
                let waits = call.is_some_and(|call| match call.phase {
                    CallPhase::Turn { ticket: own, .. } => own == ticket && call.breaker == slot,
                    _ => false,
                });
                hold("links", waits, place, || format!("place {ticket} in line is nobody's"))?;
            }
            let policy = &self.policies.breaker(record.profile).gates;
            let most = policy.bulkhead.max_concurrent();
            hold("limits", in_use <= most, place, || format!("{in_use} slots of {most}"))?;
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), Violation> {
        let mut counted: Vec<Group> = self.groups.iter().map(|_| Group::default()).collect();
        for (_, record) in self.breakers.slab.iter() {
            let place = self.policies.breaker(record.profile).group;
            if let Some(group) = place.and_then(|place| counted.get_mut(place)) {
                group.members += 1;
                group.open += u32::from(is_open(record.breaker.state()));
            }
        }
        hold(
            "limits",
            counted == self.groups,
            || "groups".into(),
            || format!("{:?}, counted {counted:?}", self.groups),
        )
    }

    pub(super) fn check_call_stats(&self) -> Result<(), Violation> {
        let mut counts = CallCounts::default();
        for (_, call) in self.calls.slab.iter() {
            if let Some(count) = call.phase.count(&mut counts) {
                *count += 1;
            }
        }
        let stats = &self.stats;
        let place = || String::from("stats");
        hold("stats", stats.calls_now == counts, place, || {
            format!("calls {:?}, counted {counts:?}", stats.calls_now)
        })?;
        let running = self.calls.attempts.len();
        hold("stats", stats.attempts_in_flight == running, place, || {
            format!("{} attempts in flight, counted {running}", stats.attempts_in_flight)
        })?;
        let known = self.calls.map.len() == self.calls.slab.len() as usize;
        hold("stats", known, place, || "call ids that lead nowhere".into())?;
        let ended = stats.calls_done + stats.rejections.total() + stats.give_ups.total();
        let all = ended + u64::from(self.calls.slab.len());
        hold("stats", stats.calls == all, place, || {
            format!("{} calls asked for, {ended} of {all} ended", stats.calls)
        })
    }
}
