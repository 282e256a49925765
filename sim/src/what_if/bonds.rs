//! Which recorded connection tells of each connection of the other manager.

use std::collections::{BTreeMap, BTreeSet};

use steadfast::{BreakerId, ConnId};

use super::lane::Lane;
use super::recorded::{Changes, Ended};

/// From where a connection's facts come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bond {
    /// It is that recorded one: begun in the same step, to the same endpoint.
    Same(ConnId),
    /// From its peer's recorded connection of that time.
    Own(ConnId),
    /// Its signs of life, from another peer's behind the same breaker.
    Borrowed(ConnId),
    /// From none: nobody is connected there.
    Orphan(Option<BreakerId>),
    /// From none, for good: the recorded one was given up for its silence.
    Silent,
}

impl Bond {
    pub(super) const fn to(self) -> Option<ConnId> {
        match self {
            Self::Same(conn) | Self::Own(conn) | Self::Borrowed(conn) => Some(conn),
            Self::Orphan(_) | Self::Silent => None,
        }
    }
}

/// All bonds, from both sides.
#[derive(Debug, Default)]
pub(super) struct Bonds {
    of: BTreeMap<ConnId, Bond>,
    followers: BTreeMap<ConnId, BTreeSet<ConnId>>,
    orphans: BTreeMap<BreakerId, BTreeSet<ConnId>>,
}

impl Bonds {
    pub(super) fn of(&self, conn: ConnId) -> Option<Bond> {
        self.of.get(&conn).copied()
    }

    /// Whether the recording tells of it, or of the peer's other connection.
    pub(super) fn is_own(&self, conn: ConnId) -> bool {
        matches!(self.of(conn), Some(Bond::Same(_) | Bond::Own(_)))
    }

    pub(super) fn bind(&mut self, conn: ConnId, bond: Bond) {
        self.release(conn);
        self.of.insert(conn, bond);
        if let Some(to) = bond.to() {
            self.followers.entry(to).or_default().insert(conn);
        }
        if let Bond::Orphan(Some(breaker)) = bond {
            self.orphans.entry(breaker).or_default().insert(conn);
        }
    }

    pub(super) fn release(&mut self, conn: ConnId) {
        let Some(bond) = self.of.remove(&conn) else { return };
        if let Some(to) = bond.to()
            && let Some(followers) = self.followers.get_mut(&to)
        {
            followers.remove(&conn);
            if followers.is_empty() {
                self.followers.remove(&to);
            }
        }
        if let Bond::Orphan(Some(breaker)) = bond
            && let Some(orphans) = self.orphans.get_mut(&breaker)
        {
            orphans.remove(&conn);
        }
    }

    /// Who follows that recorded connection.
    pub(super) fn followers(&self, recorded: ConnId) -> Vec<ConnId> {
        let followers = self.followers.get(&recorded);
        followers.map(|all| all.iter().copied().collect()).unwrap_or_default()
    }

    fn orphans(&self, breaker: BreakerId) -> Vec<ConnId> {
        let orphans = self.orphans.get(&breaker);
        orphans.map(|all| all.iter().copied().collect()).unwrap_or_default()
    }
}

impl Lane<'_> {
    /// A connection is up: from now on somebody tells of it.
    pub(super) fn up(&mut self, conn: ConnId) {
        let Some(one) = self.conns.get_mut(&conn) else { return };
        one.up = true;
        if !matches!(self.bonds.of(conn), Some(Bond::Same(_))) {
            self.bind_best(conn);
        }
    }

    /// Binds one that is up to the peer's own recorded connection, or to another one.
    pub(super) fn bind_best(&mut self, conn: ConnId) {
        let Some(one) = self.conns.get(&conn) else { return };
        let own = self.recorded.of_peer(one.peer).map(Bond::Own);
        let other = || {
            let breaker = one.breaker?;
            self.recorded.behind(breaker, conn).map(Bond::Borrowed)
        };
        let bond = own.or_else(other).unwrap_or(Bond::Orphan(one.breaker));
        if matches!(bond, Bond::Orphan(_)) {
            self.counts.orphans += 1;
        }
        self.bonds.bind(conn, bond);
    }

    /// Recorded connections came and went.
    pub(super) fn rebind(&mut self, changes: &Changes) {
        for recorded in &changes.up {
            let Some(one) = self.recorded.conn(*recorded) else { continue };
            for conn in self.conns_of(one.peer) {
                let bound = self.bonds.of(conn);
                let is_up = self.conns.get(&conn).is_some_and(|one| one.up);
                if is_up && !matches!(bound, Some(Bond::Same(_))) {
                    self.bonds.bind(conn, Bond::Own(*recorded));
                }
            }
            for conn in one.breaker.map(|breaker| self.bonds.orphans(breaker)).unwrap_or_default() {
                if self.conns.get(&conn).is_some_and(|one| one.up) {
                    self.bonds.bind(conn, Bond::Borrowed(*recorded));
                }
            }
        }
        for (recorded, _, ended) in &changes.ended {
            for conn in self.bonds.followers(*recorded) {
                self.left_alone(conn, *ended);
            }
        }
    }

    /// The recorded connection that told of this one is over, and this one is not.
    fn left_alone(&mut self, conn: ConnId, ended: Ended) {
        let Some(one) = self.conns.get(&conn) else { return };
        let breaker = one.breaker;
        if !one.up {
            // It waits longer than the recorded one did.
            self.counts.dials.recorded = self.counts.dials.recorded.saturating_sub(1);
            self.counts.dials.never += 1;
            self.bonds.bind(conn, Bond::Orphan(breaker));
        } else if ended == Ended::Silent && self.bonds.is_own(conn) {
            self.bonds.bind(conn, Bond::Silent);
        } else {
            self.bind_best(conn);
        }
    }
}
