//! A connection's life: it comes up, is taken in, is lost.

use alloc::boxed::Box;
use core::time::Duration;

use crate::action::{Action, Ignored, PeerCause};
use crate::breaker::Outcome;
use crate::config::DetectorPolicy;
use crate::container::timers::TimerKind;
use crate::event::LossCause;
use crate::id::{ConnId, PeerId, Tag};
use crate::manager::Manager;
use crate::manager::conns::{Conn, ConnPhase};
use crate::manager::out::Out;
use crate::manager::peers::{NONE, Phase};
use crate::mutant::Mutant;
use crate::phi::Phi;
use crate::time::Time;

/// A connection that ends sooner was as good as refused, and after how many of them in a row.
///
/// Source: what a client id that is in use twice looks like: brokers throw out the older one.
const HASTY: Duration = Duration::from_secs(1);
const TURNED_AWAY: u8 = 3;

impl Manager {
    pub(crate) fn on_connected(&mut self, id: ConnId, resumed: bool, out: &mut Out<'_>) {
        let found = match Mutant::StaleDial.lives() {
            true => self.conns.slab.get(id.slot()).map(|_| id.slot()),
            false => self.find_conn(id, out),
        };
        let Some(slot) = found else {
            // It came too late: closing it keeps the driver from leaking a socket.
            return out.push(Action::Close { conn: id });
        };
        let conn = &self.conns.slab[slot];
        let ConnPhase::Dialing { permit, resume, .. } = conn.phase() else {
            return self.ignore(Ignored::AlreadyUp(id), out);
        };
        let (peer, endpoint, dialed_at) = (conn.peer, conn.endpoint, conn.since);
        let breaker = self.endpoints.slab[endpoint].breaker;
        self.settle_dial(breaker, permit, Outcome::Success, dialed_at, None, out);
        self.stats.dials_succeeded += 1;
        self.endpoints.slab[endpoint].failures = 0;
        let rhythm = self.endpoints.pasts.if_any(endpoint).and_then(|past| {
            past.not_before = Time::ZERO;
            past.rhythm.take()
        });
        if self.replaces(slot) {
            self.take_over(peer, slot, out);
        }
        self.come_up(slot, rhythm);
        self.end_session(peer, resume, resumed, out);
        self.enter(peer, Phase::Up { conn: slot }, PeerCause::Dialed, out);
        self.plan_failback(peer);
    }

    /// Takes in a connection that the peer dialed. Our own dial gives way to it, and so does an
    /// older connection: the peer would not dial again if it still had that one.
    pub(crate) fn on_accepted(&mut self, id: PeerId, tag: Tag, out: &mut Out<'_>) {
        let Some(peer) = self.find_peer(id, out) else { return self.refuse(tag, out) };
        let profile = self.peers.slab[peer].profile;
        if !self.policies.peer(profile).profile.inbound {
            self.ignore(Ignored::NotInbound(id), out);
            return self.refuse(tag, out);
        }
        self.drop_replacement(peer, out);
        match self.peers.slab[peer].phase {
            Phase::Dialing { conn } => self.cancel_dial(conn, out),
            Phase::Up { conn } => {
                self.close(conn, out);
                *self.stats.losses.of(LossCause::Replaced) += 1;
                self.drop_conn(conn);
            }
            Phase::Idle | Phase::Failed | Phase::BackingOff { .. } | Phase::Waiting => {}
        }
        self.stats.adopted += 1;
        let now = self.now;
        let slot = self.conns.insert(peer, profile, NONE, ConnPhase::Up, now);
        let conn = self.conns.id(slot);
        out.push(Action::Adopt { conn, peer: id, tag });
        self.come_up(slot, None);
        self.enter(peer, Phase::Up { conn: slot }, PeerCause::Accepted, out);
    }

    fn refuse(&mut self, tag: Tag, out: &mut Out<'_>) {
        self.stats.refused += 1;
        out.push(Action::Refuse { tag });
    }

    /// The connection in `slot` is up from now on, and watched.
    fn come_up(&mut self, slot: u32, remembered: Option<Box<Phi>>) {
        let peer_slot = self.conns.slab[slot].peer;
        let peer = &mut self.peers.slab[peer_slot];
        peer.timed_out = false;
        peer.slow_lane = false;
        peer.connected_at = self.now;
        if let Some(trouble) = self.peers.troubles.if_any(peer_slot) {
            trouble.own_failures = 0;
            if Mutant::ForgivenOnConnect.lives() {
                trouble.failures = 0;
            }
        }
        let (profile, first) = (peer.profile, peer.first_endpoint);
        if core::mem::take(&mut peer.coming_back) && peer.wanted {
            self.stats.time_to_recover.record(self.now.since(peer.without_since));
        }
        self.endpoints.each(first, |_, endpoint| endpoint.tried = false);
        let watch = self.policies.peer(profile).watch;
        let rhythm = watch.and_then(|watch| match watch.detector {
            DetectorPolicy::Deadline(_) => None,
            DetectorPolicy::Phi(phi) => Some(match remembered {
                Some(mut known) => {
                    known.reconnected();
                    known
                }
                None => Box::new(Phi::new(&phi)),
            }),
        });
        self.conns.pulse_mut(slot).come_up(rhythm.is_some(), self.now);
        self.conns.slab[slot].come_up(rhythm, self.now);
        self.join_crowd(slot);
        self.arm_watch(slot);
    }

    pub(crate) fn on_lost(&mut self, id: ConnId, cause: LossCause, out: &mut Out<'_>) {
        let Some(slot) = self.find_conn(id, out) else { return };
        match self.conns.slab[slot].phase() {
            ConnPhase::Dialing { .. } => {
                self.fail_dial(slot, crate::DialCause::Unreachable, None, out);
            }
            ConnPhase::Up => self.lose(slot, cause, out),
        }
    }

    /// The connection is gone. After a stable one the peer starts afresh, spread among those lost
    /// with it; after one that did not last, the backoff goes on where it was.
    pub(crate) fn lose(&mut self, slot: u32, cause: LossCause, out: &mut Out<'_>) {
        let heard = self.conns.pulse(slot).heard;
        let Some(conn) = self.drop_conn(slot) else { return };
        *self.stats.losses.of(cause) += 1;
        if let Some(endpoint) = self.endpoints.slab.get(conn.endpoint) {
            self.breakers.slab[endpoint.breaker].losses.record(self.now);
        }
        self.keep_session(conn.peer);
        let told = PeerCause::Lost(cause);
        let lasted = self.now.since(conn.since);
        let profile = self.peers.slab[conn.peer].profile;
        // What our own side did, or our own network, counts against nobody.
        let ours = cause == LossCause::Local || self.network.is_still();
        if conn.failed_back && !ours && conn.since >= self.network.up_at {
            self.judge_failback(conn.endpoint, profile, lasted);
        }
        let peer = &mut self.peers.slab[conn.peer];
        if !peer.wanted {
            return self.enter(conn.peer, Phase::Idle, told, out);
        }
        peer.coming_back = true;
        peer.without_since = self.now;
        peer.offline_before = self.network.offline_ns(self.now);
        let policy = self.policies.peer(peer.profile);
        let stable = lasted >= policy.profile.stable_after && (heard || policy.watch.is_none());
        if stable {
            self.forget_failures(conn.peer);
        }
        if let Some(dial) = self.inherit(conn.peer) {
            return self.enter(conn.peer, Phase::Dialing { conn: dial }, told, out);
        }
        if !ours && self.is_turned_away(conn.endpoint, lasted) {
            if self.is_let_in_elsewhere(conn.peer, conn.endpoint) {
                return self.try_another(conn.peer, conn.endpoint, None, told, out);
            }
            self.ask_others_again(conn.peer, conn.endpoint);
        }
        let delay = match stable.then(|| self.draw_first_retry(conn.peer)).flatten() {
            Some(delay) => delay,
            None if ours => self.draw_backoff(conn.peer, self.failures(conn.peer)),
            None => return self.end_round(conn.peer, told, out),
        };
        self.back_off_until(conn.peer, self.now + delay, told, out);
    }

    /// Whether the endpoint has let us in and thrown us out at once as often as it takes to be of no
    /// use: a duplicate client id, a server that crashes on us.
    fn is_turned_away(&mut self, endpoint: u32, lasted: Duration) -> bool {
        let Some(endpoint) = self.endpoints.slab.get_mut(endpoint) else { return false };
        endpoint.hasty = if lasted < HASTY { endpoint.hasty.saturating_add(1) } else { 0 };
        endpoint.hasty >= TURNED_AWAY
    }

    /// Whether another endpoint is left to try that does not turn the peer away as well.
    fn is_let_in_elsewhere(&self, peer: u32, endpoint: u32) -> bool {
        let mut others = self.endpoints.chain(self.peers.slab[peer].first_endpoint);
        others.any(|(slot, other)| {
            slot != endpoint && other.hasty < TURNED_AWAY && self.is_open_to(slot, other)
        })
    }

    /// All turn the peer away, so this round is over; in the next one each other endpoint has one more
    /// chance.
    fn ask_others_again(&mut self, peer: u32, endpoint: u32) {
        let first = self.peers.slab[peer].first_endpoint;
        self.endpoints.each(first, |slot, other| {
            if slot != endpoint {
                other.hasty = other.hasty.min(TURNED_AWAY - 1);
            }
        });
    }

    /// Orders the driver to close the connection, unless it died with its process.
    pub(crate) fn close(&mut self, slot: u32, out: &mut Out<'_>) {
        let id = self.conns.id(slot);
        if self.conns.find(id).is_some() {
            out.push(Action::Close { conn: id });
        }
    }

    /// Takes the connection out, keeping what its detector learned; the peer's phase is for the
    /// caller to set.
    pub(crate) fn drop_conn(&mut self, slot: u32) -> Option<Conn> {
        self.timers.disarm(TimerKind::Conn, slot);
        self.pinger.line.unlink(slot);
        let mut conn = self.conns.remove(slot)?;
        self.leave_crowd(conn.endpoint, conn.trust());
        if self.endpoints.slab.get(conn.endpoint).is_some() {
            let rhythm = conn.watched_mut().and_then(|watched| watched.rhythm.take());
            if let Some(past) = self.endpoints.pasts.if_any(conn.endpoint) {
                past.rhythm = rhythm;
            } else if rhythm.is_some() {
                self.endpoints.pasts.get_mut(conn.endpoint).rhythm = rhythm;
            }
        }
        self.forget_measurements(conn.peer);
        Some(conn)
    }
}
