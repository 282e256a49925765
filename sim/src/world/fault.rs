//! Faults: what each does when it begins, and how it is undone.

use steadfast::{ConnId, Event, LossCause, Time};

use super::{Happening, Step, World};
use crate::draws::Purpose;
use crate::driver::{Conn, Phase};
use crate::plan::{FaultPlan, Trouble, Way};
use crate::queue::Rank;
use crate::schedule::Schedule;

/// How many pieces of news wait in a list of their own: a place on the queue takes four times as much.
const MANY: usize = 10_000;

impl World<'_> {
    /// Puts all beginnings and ends on the queue, and the heal behind the last of them.
    pub(super) fn schedule_faults(&mut self) {
        let plan = self.plan;
        for (place, fault) in plan.faults.iter().enumerate() {
            if !fault.schedule.is_each() {
                let happening = |begins| Happening::Fault { fault: place, begins };
                self.schedule_fault(fault, &fault.schedule, happening);
                continue;
            }
            for manager in 0..plan.managers {
                if let Some(own) = fault.schedule.of_one(self.draws, manager) {
                    let happening = |begins| Happening::Own { fault: place, manager, begins };
                    self.schedule_fault(fault, &own, happening);
                }
            }
        }
        let heal = self.now.plus_nanos(self.plan.heal.as_nanos());
        self.queue.push(heal, Rank::World, Happening::Healed);
    }

    fn schedule_fault(
        &mut self,
        fault: &FaultPlan,
        schedule: &Schedule,
        happening: impl Fn(bool) -> Happening,
    ) {
        for (from, to) in schedule.spans(self.draws) {
            let at = self.now.plus_nanos(from.as_nanos());
            self.queue.push(at, Rank::World, happening(true));
            if !fault.trouble.is_instant() && schedule.heals() {
                let end = self.now.plus_nanos(to.as_nanos());
                self.queue.push(end, Rank::World, happening(false));
            }
        }
    }

    pub(super) fn fault(&mut self, number: usize, begins: bool) -> Step {
        let fault = &self.plan.faults[number];
        let on = fault.on;
        let count = |count: &mut u32| *count = if begins { *count + 1 } else { *count - 1 };
        match fault.trouble.clone() {
            Trouble::Down => {
                count(&mut self.servers[on].down);
                if begins {
                    for (manager, conn) in self.servers[on].clear() {
                        self.refuse(manager, conn);
                    }
                    self.cut(|way| way.server == on);
                    self.drop_requests(on);
                }
            }
            Trouble::Silent => {
                self.servers[on].silence(begins, self.now);
                if begins {
                    // Those who wait are never answered.
                    self.servers[on].clear();
                    self.forget_requests(on);
                }
            }
            Trouble::ResetAll => {
                self.cut(|way| way.server == on);
                self.drop_requests(on);
            }
            Trouble::Failing(share) => stack(&mut self.desks[on].failing, share, begins),
            Trouble::Sluggish(times) => stack(&mut self.desks[on].sluggish, times, begins),
            Trouble::Requests(turn) => stack(&mut self.desks[on].capacity, turn, begins),
            Trouble::Stall => {
                count(&mut self.desks[on].stalled);
                self.next_request(on);
            }
            Trouble::Cold => self.cool(on),
            Trouble::Resolve => self.resolve(on, begins)?,
            Trouble::Leave(share) => self.forget(on, share, begins)?,
            Trouble::HangUp(share) => self.hang_up(on, share)?,
            Trouble::Surge(rate) => stack(&mut self.flows[on].surges, rate, begins),
            Trouble::Capacity(turn) => stack(&mut self.servers[on].capacity, turn, begins),
            Trouble::Slow(latency) => stack(&mut self.links[on].slow, latency, begins),
            Trouble::Lossy(loss) => stack(&mut self.links[on].lossy, loss, begins),
            Trouble::Partition(direction) => {
                self.links[on].partition(direction, begins, self.now);
            }
            Trouble::Reject(cause) => stack(&mut self.servers[on].rejects, cause, begins),
            Trouble::Drain(notice) if begins => self.drain(on, notice),
            Trouble::Drain(_) => self.instance_returns(on),
            Trouble::Unresolved(share) => stack(&mut self.servers[on].unresolved, share, begins),
            Trouble::Churn(_) if begins => self.churn(number),
            Trouble::Churn(_) => self.return_all(on),
            Trouble::Cut => {
                count(&mut self.links[on].cut);
                if begins {
                    self.cut(|way| way.link == on);
                }
            }
            trouble @ (Trouble::Pause(_)
            | Trouble::Offline
            | Trouble::Switch { .. }
            | Trouble::Background) => {
                for manager in 0..self.plan.managers {
                    self.host_fault(manager, &trouble, begins)?;
                }
            }
        }
        let of_server = matches!(
            fault.trouble,
            Trouble::Down
                | Trouble::Silent
                | Trouble::Stall
                | Trouble::Failing(_)
                | Trouble::Sluggish(_)
        );
        if of_server {
            self.note_bad(on);
        }
        Ok(())
    }

    /// The servers lose their connections over these ways; the clients will hear of it.
    fn cut(&mut self, over: impl Fn(&Way) -> bool) {
        self.cut_those(|way, _| over(way));
    }

    /// The same for those of them that are meant.
    pub(super) fn cut_those(&mut self, meant: impl Fn(&Way, &Conn) -> bool) {
        // When each client hears of it, which is filled in below.
        let mut news: Vec<(Time, u32, ConnId)> = Vec::new();
        for (manager, driver) in (0..).zip(&self.drivers) {
            for (id, conn) in driver.live() {
                let group = &self.plan.groups[self.peers[conn.peer()].group as usize];
                let meant = |way: &Way| meant(way, conn);
                if conn.phase.at_server() && group.ways.get(conn.way()).is_some_and(meant) {
                    news.push((Time::ZERO, manager, id));
                }
            }
        }
        news.retain_mut(|(at, manager, id)| match self.cut_off(*manager as usize, *id) {
            Some(heard_at) => {
                *at = heard_at;
                true
            }
            None => false,
        });
        if news.len() < MANY {
            for (at, manager, conn) in news {
                let manager = manager as usize;
                self.queue.push(at, Rank::World, Happening::Reset { manager, conn });
            }
            return;
        }
        // Latest first, to be taken from the end.
        news.sort_unstable_by_key(|(at, manager, id)| {
            std::cmp::Reverse((*at, *manager, id.slot()))
        });
        self.news.push(news);
        self.next_news(self.news.len() - 1);
    }

    /// Puts the next of many pieces of news on the queue, which need not hold them all.
    fn next_news(&mut self, wave: usize) {
        if let Some((at, ..)) = self.news[wave].last() {
            self.queue.push(*at, Rank::World, Happening::News { wave });
        } else {
            self.news[wave] = Vec::new();
        }
    }

    /// One of many pieces of news arrives.
    pub(super) fn news(&mut self, wave: usize) -> Step {
        let Some((_, manager, conn)) = self.news[wave].pop() else { return Ok(()) };
        self.next_news(wave);
        self.receive(manager as usize, Event::Lost { conn, cause: LossCause::Reset })
    }

    /// The server's side of a connection is gone; when the client hears of it, if it does.
    pub(super) fn cut_off(&mut self, manager: usize, id: ConnId) -> Option<Time> {
        let conn = self.drivers[manager].conn(id)?;
        let was = *conn;
        conn.phase = Phase::Cut;
        let (index, attempt, way) = (conn.peer(), conn.attempt(), conn.way());
        if was.phase.at_server() {
            self.unbalance(&was);
        }
        self.forget_session_later(index);
        let peer = &mut self.peers[index];
        peer.dead_since = peer.dead_since.min(self.now);
        let group = &self.plan.groups[peer.group as usize];
        let name = group.peer_id(peer.place).0;
        let &Way { link, .. } = group.ways.get(way)?;
        (self.links[link].from_server == 0).then(|| {
            let latency = self.latency(link, Purpose::Reset, name, attempt);
            self.in_order(manager, id, latency)
        })
    }

    /// The last fault is over: who is down now must be brought back, at the servers' pace at best.
    pub(super) fn healed(&mut self) -> Step {
        let mut down = vec![0_u32; self.servers.len()];
        for peer in &self.peers {
            let group = &self.plan.groups[peer.group as usize];
            let conn =
                peer.conn.and_then(|id| self.drivers[peer.manager as usize].conn(id).copied());
            let up = conn.is_some_and(|conn| conn.phase == Phase::Up);
            self.was_down |= !up && self.core[peer.group as usize];
            if let Some(way) = group.ways.first().filter(|_| !up && group.trace.is_none()) {
                down[way.server] += 1;
            }
        }
        let ideal = self.servers.iter().zip(&down).filter(|(_, down)| **down > 0);
        let ideal = ideal.filter_map(|(server, down)| {
            let turn = server.turn()?;
            Some(turn.as_nanos().saturating_mul(u64::from(*down)))
        });
        self.ideal_s = ideal.max().map(crate::units::seconds);
        self.check_all("the heal")
    }
}

/// Puts on what a fault does, or takes off what that one put on.
fn stack<T: PartialEq>(stack: &mut Vec<T>, what: T, begins: bool) {
    if begins {
        stack.push(what);
    } else if let Some(place) = stack.iter().rposition(|other| *other == what) {
        stack.remove(place);
    }
}
