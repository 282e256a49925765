//! Sessions that outlive their connection.

use crate::action::Notice;
use crate::manager::Manager;
use crate::manager::out::Out;
use crate::time::Time;

impl Manager {
    /// Whether the server should still have the peer's session.
    pub(crate) fn can_resume(&self, peer: u32) -> bool {
        self.peers.slab[peer].session_until > self.now
    }

    /// Whether the server keeps a session for the peer while it is connected.
    pub(crate) fn keeps_session(&self, peer: u32) -> bool {
        let profile = self.peers.slab[peer].profile;
        self.policies.peer(profile).profile.session_ttl.is_some()
    }

    /// The session outlives a lost connection for as long as the profile says; the time counts
    /// from the loss (MQTT 5: from the close of the network connection).
    pub(crate) fn keep_session(&mut self, slot: u32) {
        let peer = &mut self.peers.slab[slot];
        let ttl = self.policies.peer(peer.profile).profile.session_ttl;
        peer.session_until = ttl.map_or(Time::ZERO, |ttl| self.now + ttl);
    }

    /// The server's word is final: resumed or not.
    pub(crate) fn end_session(&mut self, slot: u32, asked: bool, resumed: bool, out: &mut Out<'_>) {
        let peer = &mut self.peers.slab[slot];
        peer.session_until = Time::ZERO;
        if resumed {
            self.stats.sessions_resumed += 1;
        } else if asked {
            self.stats.sessions_lost += 1;
            let peer = peer.id;
            out.notice(Notice::SessionLost { peer });
        }
    }
}
