//! The first half of each flow: find whom the event is about, or say why it changes nothing.

use crate::action::{Ignored, Notice};
use crate::id::{BreakerId, ConnId, PeerId};
use crate::manager::Manager;
use crate::manager::out::Out;

impl Manager {
    pub(crate) fn find_peer(&mut self, id: PeerId, out: &mut Out<'_>) -> Option<u32> {
        let found = self.peers.find(id);
        if found.is_none() {
            self.ignore(Ignored::UnknownPeer(id), out);
        }
        found
    }

    pub(crate) fn find_breaker(&mut self, id: BreakerId, out: &mut Out<'_>) -> Option<u32> {
        let found = self.breakers.find(id);
        if found.is_none() {
            self.ignore(Ignored::UnknownBreaker(id), out);
        }
        found
    }

    /// The connection of that id, or a notice that it is gone.
    #[inline]
    pub(crate) fn find_conn(&mut self, id: ConnId, out: &mut Out<'_>) -> Option<u32> {
        let found = self.conns.find(id);
        if found.is_none() {
            self.stats.stale += 1;
            out.notice(Notice::Ignored(Ignored::StaleConn(id)));
        }
        found
    }

    pub(crate) fn ignore(&mut self, reason: Ignored, out: &mut Out<'_>) {
        self.stats.ignored += 1;
        out.notice(Notice::Ignored(reason));
    }
}
