//! Hosts of peers that go away and come back, each for itself.
//!
//! A peer's server is then what stands between it and the network; who is dialed is its own host.

use steadfast::{ConnId, Time};

use super::{Happening, Who, World};
use crate::draws::Purpose;
use crate::plan::{Churn, Spells, Trouble};
use crate::queue::Rank;
use crate::scenario::Gone;

/// The hosts of a group; none if nothing happens to them.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Which fault has them go and come.
    fault: usize,
    /// By place of the peer.
    hosts: Vec<Host>,
}

/// A host.
#[derive(Clone, Copy, Debug)]
struct Host {
    here: bool,
    /// Since when it is here, or away.
    since: Time,
    /// How often it has gone or come.
    turns: u64,
    /// It has come back and its peer is not up yet.
    awaited: bool,
}

impl World<'_> {
    /// The hosts of a group begin to go and come.
    pub(super) fn churn(&mut self, fault: usize) {
        let plan = self.plan;
        let group = plan.faults[fault].on;
        let host = Host { here: true, since: self.now, turns: 0, awaited: false };
        let count = plan.groups[group].count;
        self.hosts[group] = Hosts { fault, hosts: vec![host; count as usize] };
        let first = plan.groups[group].first;
        for peer in first..first + count as usize {
            self.schedule_turn(peer);
        }
    }

    /// A host goes, or comes back.
    pub(super) fn turn(&mut self, index: usize) {
        let Who { group, place, .. } = self.peers[index].who();
        if let Some(host) = self.hosts[group].hosts.get(place as usize) {
            self.set_here(index, !host.here);
            self.schedule_turn(index);
        }
    }

    /// All hosts of a group are back, and stay.
    pub(super) fn return_all(&mut self, group: usize) {
        let first = self.plan.groups[group].first;
        for place in 0..self.hosts[group].hosts.len() {
            if !self.hosts[group].hosts[place].here {
                self.set_here(first + place, true);
            }
        }
    }

    fn set_here(&mut self, index: usize, here: bool) {
        let (Who { group, place, manager }, conn) =
            (self.peers[index].who(), self.peers[index].conn);
        let now = self.now;
        let Some(host) = self.hosts[group].hosts.get_mut(place as usize) else { return };
        host.turns += 1;
        (host.here, host.since, host.awaited) = (here, now, here);
        if let Some(conn) = conn.filter(|_| !here) {
            self.leave(manager, conn, group);
        }
    }

    /// A connection's host is gone, in its way.
    fn leave(&mut self, manager: usize, conn: ConnId, group: usize) {
        let news = self.cut_off(manager, conn);
        if let Some(at) = news.filter(|_| self.gone(group) == Gone::Down) {
            self.queue.push(at, Rank::World, Happening::Reset { manager, conn });
        }
    }

    /// Puts a host's next turn on the queue, unless all is over by then.
    fn schedule_turn(&mut self, index: usize) {
        let plan = self.plan;
        let Who { group, place, .. } = self.peers[index].who();
        let Hosts { fault, hosts } = &self.hosts[group];
        let Some(host) = hosts.get(place as usize) else { return };
        let fault = &plan.faults[*fault];
        let Trouble::Churn(Churn { spells, .. }) = &fault.trouble else { return };
        let start = self.measures.start();
        let at = match spells {
            Spells::Drawn { stays, away } => {
                let name = plan.groups[group].peer_id(place).0;
                let generator = &mut self.draws.generator(Purpose::Spell, name, host.turns);
                let spell = if host.here { stays } else { away }.sample(generator);
                self.now.plus_nanos(spell.as_nanos())
            }
            Spells::Recorded(turns) => {
                let turns = &turns[place as usize % turns.len()];
                let turn = usize::try_from(host.turns).ok().and_then(|turn| turns.get(turn));
                let Some(after) = turn else { return };
                let begins = start.plus_nanos(fault.schedule.at().as_nanos());
                begins.plus_nanos(after.as_nanos())
            }
        };
        if at < start.plus_nanos(fault.schedule.over().as_nanos()) {
            self.queue.push(at, Rank::World, Happening::Turn { peer: index });
        }
    }

    fn gone(&self, group: usize) -> Gone {
        match self.plan.faults.get(self.hosts[group].fault).map(|fault| &fault.trouble) {
            Some(Trouble::Churn(churn)) => churn.gone,
            _ => Gone::default(),
        }
    }

    /// How the host that this connection leads to is gone; `None` if it is here.
    pub(super) fn host_of(&mut self, manager: usize, conn: ConnId) -> Option<Gone> {
        let index = self.drivers[manager].conn(conn)?.peer();
        self.is_away(index).then(|| self.gone(self.peers[index].group as usize))
    }

    /// Whether a peer's own host is away.
    pub(super) fn is_away(&self, index: usize) -> bool {
        let Who { group, place, .. } = self.peers[index].who();
        self.hosts[group].hosts.get(place as usize).is_some_and(|host| !host.here)
    }

    /// A peer's connection is made: its host may be gone again, or have been waited for.
    pub(super) fn greet(&mut self, manager: usize, conn: ConnId, index: usize) {
        let Who { group, place, .. } = self.peers[index].who();
        let Some(host) = self.hosts[group].hosts.get_mut(place as usize) else { return };
        if !host.here {
            return self.leave(manager, conn, group);
        }
        if std::mem::take(&mut host.awaited) {
            self.measures.returns.add(self.now.since(host.since));
        }
    }

    /// Tells the measures of hosts that are back and whose peers are not up at the end.
    pub(super) fn tell_awaited_hosts(&mut self) {
        let hosts = self.hosts.iter().flat_map(|group| &group.hosts);
        for host in hosts.filter(|host| host.awaited) {
            self.measures.returns.not_over(self.now.since(host.since));
        }
    }

    /// Whether the hosts of these peers have all been here for a minute: as long as a dial may have
    /// been out that found one away.
    pub(super) fn are_well(&self, group: usize, places: std::ops::Range<u32>) -> bool {
        let hosts = &self.hosts[group].hosts;
        let hosts = hosts.get(places.start as usize..places.end as usize).unwrap_or_default();
        hosts.iter().all(|host| host.here && host.since + A_MINUTE <= self.now)
    }

    /// Whether anything happens to a group's hosts.
    pub(super) fn churns(&self, group: usize) -> bool {
        !self.hosts[group].hosts.is_empty()
    }
}

const A_MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
