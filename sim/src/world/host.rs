//! What happens to a manager's own host: its process sleeps, its network goes, its address changes,
//! its app is in the background.

use steadfast::{Event, Time};

use super::{Happening, Step, World};
use crate::driver::{Phase, Process};
use crate::plan::Trouble;
use crate::queue::Rank;
use crate::scenario::WakeOrder;

/// How long a process that woke the wrong way round is busy with its timers.
const BETWEEN_TICK_AND_READ_NS: u64 = 1_000_000;

impl World<'_> {
    /// A fault of this manager's begins, or ends.
    pub(super) fn host_fault(&mut self, manager: usize, trouble: &Trouble, begins: bool) -> Step {
        match *trouble {
            Trouble::Pause(order) => self.pause(manager, order, begins),
            Trouble::Switch { gap: true } if begins => self.offline(manager, true),
            Trouble::Switch { gap } => {
                self.rebind(manager);
                self.tell_of_host(manager, Event::NetworkChanged)?;
                if gap {
                    return self.offline(manager, false);
                }
                self.await_peers(manager);
                Ok(())
            }
            Trouble::Background => self.background(manager, begins),
            Trouble::Offline => self.offline(manager, begins),
            _ => Ok(()),
        }
    }

    /// What the host says, to a client that listens.
    fn tell_of_host(&mut self, manager: usize, event: Event) -> Step {
        if self.plan.network { self.tell(manager, event) } else { Ok(()) }
    }

    /// The host has another address. Whatever is under way at the old one leads nowhere: servers
    /// send their answers there, and what they had is of no use to them.
    fn rebind(&mut self, manager: usize) {
        let live: Vec<_> = self.drivers[manager].live().map(|(id, _)| id).collect();
        for id in live {
            let Some(conn) = self.drivers[manager].conn(id) else { continue };
            let was = *conn;
            conn.phase = Phase::Stale;
            if was.phase.at_server() {
                self.unbalance(&was);
                self.forget_session_later(was.peer());
            }
            let peer = &mut self.peers[was.peer()];
            if peer.conn == Some(id) {
                peer.dead_since = peer.dead_since.min(self.now);
            }
        }
    }

    /// The app is in the background from now on, or comes back when nothing else keeps it there.
    fn background(&mut self, manager: usize, begins: bool) -> Step {
        let background = &mut self.drivers[manager].background;
        let others = if begins { *background } else { *background - 1 };
        *background = others + u32::from(begins);
        if others > 0 {
            return Ok(());
        }
        self.tell_of_host(manager, if begins { Event::Paused } else { Event::Resumed })?;
        self.await_peers(manager);
        Ok(())
    }

    /// From now on its peers that are not up are waited for, or no longer, as the host cannot help it.
    fn await_peers(&mut self, manager: usize) {
        let on = self.drivers[manager].is_on();
        for index in (manager..self.peers.len()).step_by(self.plan.managers) {
            let conn = self.peers[index].conn;
            let conn = conn.and_then(|id| self.drivers[manager].conn(id));
            let up = conn.is_some_and(|conn| conn.phase == Phase::Up);
            if let Some(since) = self.awaited.get_mut(index) {
                *since = if on && !up { self.now } else { Time::MAX };
            }
        }
    }

    /// A peer is up, and both ends know it.
    pub(super) fn no_longer_awaited(&mut self, index: usize) {
        let Some(since) = self.awaited.get_mut(index) else { return };
        let since = std::mem::replace(since, Time::MAX);
        if since != Time::MAX {
            self.measures.reconnects.add(self.now.since(since));
        }
    }

    /// Tells the measures of peers that are waited for at the end.
    pub(super) fn tell_awaited_peers(&mut self) {
        for since in self.awaited.iter().filter(|since| **since != Time::MAX) {
            self.measures.reconnects.not_over(self.now.since(*since));
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
        self.tell_of_host(manager, if begins { Event::NetworkDown } else { Event::NetworkUp })?;
        self.await_peers(manager);
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
}
