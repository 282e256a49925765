//! What the program around a manager does besides: it looks names up again, forgets peers and wants
//! them again, and its callers go away.

use steadfast::{Endpoint, EndpointId, Event};

use super::{Step, Who, World};
use crate::draws::Purpose;
use crate::units::Share;

impl World<'_> {
    /// A group's names lead to all its endpoints but the first from now on, or to all of them again.
    pub(super) fn resolve(&mut self, group: usize, begins: bool) -> Step {
        for index in self.members(group) {
            let Who { manager, .. } = self.peers[index].who();
            let endpoints = self.endpoints_of(index).skip(usize::from(begins)).collect();
            let peer = self.id_of(index);
            self.tell(manager, Event::SetEndpoints { peer, endpoints })?;
        }
        Ok(())
    }

    /// So many of a group's peers are forgotten from now on, or are new and wanted.
    pub(super) fn forget(&mut self, group: usize, share: Share, begins: bool) -> Step {
        for index in self.members(group) {
            let (Who { manager, .. }, peer) = (self.peers[index].who(), self.id_of(index));
            if !share.hits(self.draws.draw(Purpose::FaultShare, peer.0, 0)) {
                continue;
            }
            if begins {
                self.tell(manager, Event::RemovePeer { peer })?;
                continue;
            }
            let Who { group, place, .. } = self.peers[index].who();
            let profile = self.plan.groups[group].profile(place);
            let endpoints = self.endpoints_of(index).collect();
            self.tell(manager, Event::AddPeer { peer, profile, endpoints })?;
            self.tell(manager, Event::Connect { peer })?;
        }
        Ok(())
    }

    /// The peers of a group, by their indices.
    fn members(&self, group: usize) -> std::ops::Range<usize> {
        let group = &self.plan.groups[group];
        group.first..group.first + group.count as usize
    }

    fn id_of(&self, index: usize) -> steadfast::PeerId {
        let Who { group, place, .. } = self.peers[index].who();
        self.plan.groups[group].peer_id(place)
    }

    /// What a peer's name leads to, in order of preference.
    pub(super) fn endpoints_of(&self, index: usize) -> impl Iterator<Item = Endpoint> + use<'_> {
        let Who { group, place, .. } = self.peers[index].who();
        let group = &self.plan.groups[group];
        (0..).zip(0..group.ways.len()).map(move |(endpoint, way)| Endpoint {
            id: EndpointId(endpoint),
            breaker: group.breaker_id(place, way),
        })
    }
}
