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
            let number = u16::try_from(place).unwrap_or(u16::MAX);
            for time in 0..u64::from(fault.times) {
                let after = fault.every.as_nanos().saturating_mul(time);
                let at = self.now.plus_nanos(fault.at.as_nanos().saturating_add(after));
                let begins = Happening::Fault { fault: number, begins: true };
                self.queue.push(at, Rank::World, begins);
                if fault.trouble != Trouble::ResetAll {
                    let end = at.plus_nanos(fault.lasts.as_nanos());
                    let ends = Happening::Fault { fault: number, begins: false };
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
                }
            }
            Trouble::Silent => {
                count(&mut self.servers[on].silent);
                if begins {
                    // Those who wait are never answered.
                    self.servers[on].clear();
                }
            }
            Trouble::ResetAll => self.cut(|way| way.server == on),
            Trouble::Capacity(turn) => {
                let usual = self.plan.servers[on].turn;
                self.servers[on].turn = if begins { Some(turn) } else { usual };
            }
            Trouble::Slow(latency) if begins => self.links[on].slow.push(latency),
            Trouble::Slow(latency) => {
                let slow = &mut self.links[on].slow;
                if let Some(place) = slow.iter().position(|other| *other == latency) {
                    slow.remove(place);
                }
            }
            Trouble::Lossy(loss) if begins => self.links[on].lossy.push(loss),
            Trouble::Lossy(loss) => {
                let lossy = &mut self.links[on].lossy;
                if let Some(place) = lossy.iter().position(|other| *other == loss) {
                    lossy.remove(place);
                }
            }
            Trouble::Partition => count(&mut self.links[on].partitioned),
            Trouble::Cut => {
                count(&mut self.links[on].cut);
                if begins {
                    self.cut(|way| way.link == on);
                }
            }
            Trouble::Pause(order) => {
                for manager in 0..self.plan.managers {
                    self.pause(manager, begins.then_some(order))?;
                }
            }
            Trouble::Offline => {
                for manager in 0..self.plan.managers {
                    self.offline(manager, begins)?;
                }
            }
        }
        Ok(())
    }

    /// The servers lose their connections over these ways; the clients will hear of it.
    fn cut(&mut self, over: impl Fn(&Way) -> bool) {
        let mut cut: Vec<(u32, ConnId)> = Vec::new();
        for (manager, driver) in self.drivers.iter().enumerate() {
            let manager = u32::try_from(manager).unwrap_or(u32::MAX);
            for (id, conn) in driver.live() {
                let group = &self.plan.groups[self.peers[conn.peer].group];
                if conn.phase.at_server() && group.ways.get(conn.way).is_some_and(&over) {
                    cut.push((manager, id));
                }
            }
        }
        for (manager, id) in cut {
            let Some(conn) = self.drivers[manager as usize].conn(id) else { continue };
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

    /// The manager's process stops, or wakes.
    ///
    /// Woken the wrong way round, it runs its timers first and comes to its sockets a moment later.
    fn pause(&mut self, manager: u32, sleeps: Option<WakeOrder>) -> Step {
        let driver = &mut self.drivers[manager as usize];
        match (sleeps, driver.process) {
            (Some(order), _) => {
                driver.process = Process::Sleeps(order);
                driver.alarm = Time::MAX;
                Ok(())
            }
            (None, Process::Sleeps(WakeOrder::TickFirst)) => {
                driver.process = Process::OnlyTicks;
                let at = self.now.plus_nanos(BETWEEN_TICK_AND_READ_NS);
                self.queue.push(at, Rank::World, Happening::Reads { manager });
                self.tell(manager, Event::Tick)
            }
            (None, _) => {
                self.read_waiting(manager)?;
                self.tell(manager, Event::Tick)
            }
        }
    }

    /// The driver feeds all that waits.
    pub(super) fn read_waiting(&mut self, manager: u32) -> Step {
        let driver = &mut self.drivers[manager as usize];
        driver.process = Process::Runs;
        for event in driver.take_waiting() {
            self.tell(manager, event)?;
        }
        self.set_alarm(manager);
        Ok(())
    }

    fn offline(&mut self, manager: u32, begins: bool) -> Step {
        self.drivers[manager as usize].offline = begins;
        self.tell(manager, if begins { Event::NetworkDown } else { Event::NetworkUp })?;
        if !begins {
            // News that could not be delivered meanwhile.
            let live = self.drivers[manager as usize].live();
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
            let conn =
                peer.conn.and_then(|id| self.drivers[peer.manager as usize].conn(id).copied());
            let up = conn.is_some_and(|conn| conn.phase == Phase::Up);
            if let Some(way) = group.ways.first().filter(|_| !up && group.trace.is_none()) {
                down[way.server] += 1;
            }
        }
        let ideal = self.servers.iter().zip(&down).filter(|(_, down)| **down > 0);
        let ideal = ideal.filter_map(|(server, down)| {
            let turn = server.turn?;
            Some(turn.as_nanos().saturating_mul(u64::from(*down)))
        });
        self.ideal_s = ideal.max().map(crate::units::seconds);
        self.check_all("the heal")
    }
}
