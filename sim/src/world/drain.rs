//! Instances behind one address, and how one of them is drained.
//!
//! The balancer gives each connection to the instance that has the fewest, as long as that takes
//! any. An instance that drains says so over each of its connections, is given no more, ends those
//! that are left when its notice is over, and comes back empty.

use steadfast::{ConnId, Event, Time};

use super::{Happening, Step, World};
use crate::draws::Purpose;
use crate::driver::Conn;
use crate::plan::{ServerPlan, Way};
use crate::queue::Rank;
use crate::units::Span;

/// The instances of a server; none if they are not told apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Balancer {
    instances: Vec<Instance>,
    /// How many drains have begun.
    drains: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Instance {
    conns: u32,
    /// Whether it is given connections: it neither drains nor is away.
    serves: bool,
}

impl Balancer {
    pub(super) fn new(plan: &ServerPlan) -> Self {
        let instance = Instance { conns: 0, serves: true };
        Self { instances: vec![instance; plan.instances.into()], drains: 0 }
    }

    /// The instance that is given the next connection: of those with the fewest the first.
    fn next(&self) -> Option<u16> {
        let serving = (0..).zip(&self.instances).filter(|(_, instance)| instance.serves);
        serving.min_by_key(|(_, instance)| instance.conns).map(|(place, _)| place)
    }

    /// Which instance the drain that began last is about.
    fn drained(&self) -> usize {
        self.drains.saturating_sub(1) % self.instances.len().max(1)
    }

    /// How many connections each has.
    pub(super) fn loads(&self) -> Vec<u32> {
        self.instances.iter().map(|instance| instance.conns).collect()
    }
}

impl World<'_> {
    /// Gives a connection to an instance; `false` if there is none that takes it.
    pub(super) fn balance(&mut self, server: usize, manager: usize, id: ConnId) -> bool {
        let balancer = &mut self.balancers[server];
        if balancer.instances.is_empty() {
            return true;
        }
        let (Some(next), Some(conn)) = (balancer.next(), self.drivers[manager].conn(id)) else {
            return false;
        };
        balancer.instances[usize::from(next)].conns += 1;
        conn.instance = next;
        true
    }

    /// An instance no longer has a connection.
    pub(super) fn unbalance(&mut self, conn: &Conn) {
        let group = &self.plan.groups[self.peers[conn.peer()].group as usize];
        let Some(&Way { server, .. }) = group.ways.get(conn.way()) else { return };
        if let Some(instance) = self.balancers[server].instances.get_mut(usize::from(conn.instance))
        {
            instance.conns -= 1;
        }
    }

    /// The next instance says that it will go.
    pub(super) fn drain(&mut self, server: usize, notice: Span) {
        let balancer = &mut self.balancers[server];
        balancer.drains += 1;
        let place = balancer.drained();
        let Some(instance) = balancer.instances.get_mut(place) else { return };
        instance.serves = false;
        self.measures.forced_moves += u64::from(instance.conns);
        let instance = u16::try_from(place).unwrap_or(u16::MAX);
        let leaves_at = self.now.plus_nanos(notice.as_nanos());
        self.queue.push(leaves_at, Rank::World, Happening::Leaves { server, instance });
        if self.plan.drains {
            self.say_go_away(server, instance, leaves_at);
        }
    }

    fn say_go_away(&mut self, server: usize, instance: u16, leaves_at: Time) {
        let plan = self.plan;
        for manager in 0..self.drivers.len() {
            let live = self.drivers[manager].live();
            let held: Vec<_> = live
                .filter(|(_, conn)| conn.phase.at_server() && conn.instance == instance)
                .map(|(id, conn)| (id, conn.peer(), conn.way(), conn.attempt()))
                .collect();
            for (conn, peer, way, attempt) in held {
                let peer = &self.peers[peer];
                let group = &plan.groups[peer.group as usize];
                let Some(way) = group.ways.get(way).filter(|way| way.server == server) else {
                    continue;
                };
                if self.links[way.link].from_server > 0 {
                    continue;
                }
                let name = group.peer_id(peer.place).0;
                let latency = self.latency(way.link, Purpose::GoAway, name, attempt);
                let at = self.in_order(manager, conn, latency);
                let word = Happening::GoAway { manager, conn, leaves_at };
                self.queue.push(at, Rank::World, word);
            }
        }
    }

    /// A server's word that it will go arrives.
    pub(super) fn go_away(&mut self, manager: usize, conn: ConnId, leaves_at: Time) -> Step {
        let leaves_in = Some(leaves_at.since(self.now));
        let reconnect_in = std::time::Duration::ZERO;
        self.receive(manager, Event::GoAway { conn, leaves_in, reconnect_in })
    }

    /// The notice is over: whoever is left is thrown out.
    pub(super) fn instance_leaves(&mut self, server: usize, instance: u16) {
        self.cut_those(|way, conn| way.server == server && conn.instance == instance);
    }

    /// The instance that went last is back, empty.
    pub(super) fn instance_returns(&mut self, server: usize) {
        let balancer = &mut self.balancers[server];
        let place = balancer.drained();
        if let Some(instance) = balancer.instances.get_mut(place) {
            instance.serves = true;
        }
    }
}
