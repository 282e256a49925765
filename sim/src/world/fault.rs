//! Faults: what each does when it begins, and how it is undone.

use steadfast::{ConnId, Event, Time};

use super::{Happening, Step, World};
use crate::draws::Purpose;
use crate::driver::{Phase, Process};
use crate::plan::{Trouble, Way};
use crate::queue::Rank;
use crate::scenario::WakeOrder;

/// How long a process that woke the wrong way round is busy with its timers.
const BETWEEN_TICK_AND_READ_NS: u64 = 1_000_000;

impl World<'_> {
    /// Puts all beginnings and ends on the queue, and the heal behind the last of them.
    pub(super) fn schedule_faults(&mut self) {
        for (place, fault) in self.plan.faults.iter().enumerate() {
            for time in 0..u64::from(fault.times) {
                let after = fault.every.as_nanos().saturating_mul(time);
                let at = self.now.plus_nanos(fault.at.as_nanos().saturating_add(after));
                let begins = Happening::Fault { fault: place, begins: true };
                self.queue.push(at, Rank::World, begins);
                if !matches!(fault.trouble, Trouble::ResetAll | Trouble::Cold) {
                    let end = at.plus_nanos(fault.lasts.as_nanos());
                    let ends = Happening::Fault { fault: place, begins: false };
                    self.queue.push(end, Rank::World, ends);
                }
            }
        }
        let heal = self.now.plus_nanos(self.plan.heal.as_nanos());
        self.queue.push(heal, Rank::World, Happening::Healed);
    }

    pub(super) fn fault(&mut self, number: usize, begins: bool) -> Step {
        let fault = &self.plan.faults[number];
        let on = fault.on;
        let count = |count: &mut u32| *count = if begins { *count + 1 } else { *count - 1 };
        match fault.trouble {
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
                count(&mut self.servers[on].silent);
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
            Trouble::Surge(rate) => stack(&mut self.flows[on].surges, rate, begins),
            Trouble::Capacity(turn) => stack(&mut self.servers[on].capacity, turn, begins),
            Trouble::Slow(latency) => stack(&mut self.links[on].slow, latency, begins),
            Trouble::Lossy(loss) => stack(&mut self.links[on].lossy, loss, begins),
            Trouble::Partition => count(&mut self.links[on].partitioned),
            Trouble::Cut => {
                count(&mut self.links[on].cut);
                if begins {
                    self.cut(|way| way.link == on);
                }
            }
            Trouble::Pause(order) => {
                for manager in 0..self.plan.managers {
                    self.pause(manager, order, begins)?;
                }
            }
            Trouble::Offline => {
                for manager in 0..self.plan.managers {
                    self.offline(manager, begins)?;
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
        let mut cut: Vec<(usize, ConnId)> = Vec::new();
        for (manager, driver) in self.drivers.iter().enumerate() {
            for (id, conn) in driver.live() {
                let group = &self.plan.groups[self.peers[conn.peer].group];
                if conn.phase.at_server() && group.ways.get(conn.way).is_some_and(&over) {
                    cut.push((manager, id));
                }
            }
        }
        for (manager, id) in cut {
            let Some(conn) = self.drivers[manager].conn(id) else { continue };
            conn.phase = Phase::Cut;
            let (index, attempt, way) = (conn.peer, conn.attempt, conn.way);
            self.forget_session_later(index);
            let peer = &self.peers[index];
            let group = &self.plan.groups[peer.group];
            let Some(&Way { link, .. }) = group.ways.get(way) else { continue };
            if self.links[link].partitioned == 0 {
                let name = group.peer_id(peer.place).0;
                let latency = self.latency(link, Purpose::Reset, name, attempt);
                let at = self.in_order(manager, id, latency);
                self.queue.push(at, Rank::World, Happening::Reset { manager, conn: id });
            }
        }
    }

    /// The manager's process stops, or wakes in that order when no other pause holds it.
    ///
    /// Woken the wrong way round, it runs its timers first and comes to its sockets a moment later.
    fn pause(&mut self, manager: usize, order: WakeOrder, begins: bool) -> Step {
        let driver = &mut self.drivers[manager];
        let pauses = match driver.process {
            Process::Sleeps(pauses) => pauses,
            Process::Runs | Process::OnlyTicks => 0,
        };
        if begins {
            driver.process = Process::Sleeps(pauses + 1);
            driver.alarm = Time::MAX;
            return Ok(());
        }
        if pauses > 1 {
            driver.process = Process::Sleeps(pauses - 1);
            return Ok(());
        }
        match order {
            WakeOrder::TickFirst => {
                driver.process = Process::OnlyTicks;
                let at = self.now.plus_nanos(BETWEEN_TICK_AND_READ_NS);
                self.queue.push(at, Rank::World, Happening::Reads { manager });
                self.tell(manager, Event::Tick)
            }
            WakeOrder::IoFirst => {
                self.read_waiting(manager)?;
                self.tell(manager, Event::Tick)
            }
        }
    }

    /// A process that woke the wrong way round comes to its sockets, unless it sleeps again.
    pub(super) fn reads(&mut self, manager: usize) -> Step {
        match self.drivers[manager].process {
            Process::OnlyTicks => self.read_waiting(manager),
            Process::Runs | Process::Sleeps(_) => Ok(()),
        }
    }

    /// The driver feeds all that waits.
    fn read_waiting(&mut self, manager: usize) -> Step {
        let driver = &mut self.drivers[manager];
        driver.process = Process::Runs;
        for event in driver.take_waiting() {
            self.tell(manager, event)?;
        }
        self.set_alarm(manager);
        Ok(())
    }

    fn offline(&mut self, manager: usize, begins: bool) -> Step {
        let offline = &mut self.drivers[manager].offline;
        let others = if begins { *offline } else { *offline - 1 };
        *offline = others + u32::from(begins);
        if others > 0 {
            return Ok(());
        }
        self.tell(manager, if begins { Event::NetworkDown } else { Event::NetworkUp })?;
        if !begins {
            // News that could not be delivered meanwhile.
            let live = self.drivers[manager].live();
            let cut: Vec<_> =
                live.filter(|(_, conn)| conn.phase == Phase::Cut).map(|(id, _)| id).collect();
            for conn in cut {
                self.queue.push(self.now, Rank::World, Happening::Reset { manager, conn });
            }
        }
        Ok(())
    }

    /// The last fault is over: who is down now must be brought back, at the servers' pace at best.
    pub(super) fn healed(&mut self) -> Step {
        let mut down = vec![0_u32; self.servers.len()];
        for peer in &self.peers {
            let group = &self.plan.groups[peer.group];
            let conn = peer.conn.and_then(|id| self.drivers[peer.manager].conn(id).copied());
            let up = conn.is_some_and(|conn| conn.phase == Phase::Up);
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
