//! Signs of life, pings, suspicion, and peers that are up but no good.
//!
//! Hearing from a connection touches its record and no timer; the timer looks at the record when it
//! fires and arms itself for the moment that follows from it.

use core::time::Duration;

use crate::action::{Action, Ignored, Notice};
use crate::config::{DetectorPolicy, OnSuspect, WatchPolicy};
use crate::container::timers::TimerKind;
use crate::event::LossCause;
use crate::id::{ConnId, PingId};
use crate::manager::Manager;
use crate::manager::conns::{Conn, ConnPhase};
use crate::manager::out::Out;
use crate::phi::Phi;
use crate::probe::{Heard, ProbeVerdict};
use crate::time::{Time, nanos, smooth};

/// Samples from which on a detector's deadline moves on with each heartbeat, so that its timer is
/// never late. Before, the deviation can shrink so fast that the deadline comes nearer: by
/// z·std/2n a sample, with z ≤ 37 (phi 300) and std ≤ mean thanks to the clip.
const SETTLED: u32 = 20;

/// # What is heard
impl Manager {
    #[inline]
    pub(crate) fn on_heard(&mut self, id: ConnId, out: &mut Out<'_>) {
        let Some(slot) = self.find_conn(id, out) else { return };
        self.heard(slot, out);
    }

    #[inline]
    pub(crate) fn heard(&mut self, slot: u32, out: &mut Out<'_>) {
        let now = self.now;
        let conn = &mut self.conns.slab[slot];
        if conn.phase != ConnPhase::Up {
            let id = conn.id;
            return self.ignore(Ignored::NotUp(id), out);
        }
        conn.last_heard = now;
        conn.heard = true;
        if conn.attentive {
            self.attend(slot, out);
        }
    }

    pub(crate) fn on_heartbeat(&mut self, id: ConnId, out: &mut Out<'_>) {
        let Some(slot) = self.find_conn(id, out) else { return };
        self.sample(slot, self.conns.slab[slot].last_beat);
        self.heard(slot, out);
        self.hasten(slot);
    }

    pub(crate) fn on_pong(&mut self, id: PingId, out: &mut Out<'_>) {
        let Some(slot) = self.conns.find_ping(id) else {
            self.stats.stale += 1;
            return out.notice(Notice::Ignored(Ignored::StalePing(id)));
        };
        self.stats.pongs += 1;
        if self.conns.slab[slot].ping != Some(id) {
            // Settled or given up before; but whoever answers late is alive.
            return self.heard(slot, out);
        }
        let now = self.now;
        let not_before = self.sleep.woke_at.max(self.network.up_at);
        let conn = &mut self.conns.slab[slot];
        // Across a sleep of our own it would tell how long we slept.
        let timed = conn.probe.sent_at().is_some_and(|sent_at| sent_at >= not_before);
        let rtt = conn.probe.pong(now).filter(|_| timed);
        // Traffic in between puts pings off: then the gap between two pongs is no period.
        let last_beat = conn.last_beat.filter(|&last| last == conn.last_heard);
        let peer = conn.peer;
        self.sample(slot, last_beat);
        if let Some(rtt) = rtt {
            self.measure(peer, rtt, None, out);
        }
        self.heard(slot, out);
        self.hasten(slot);
    }

    pub(crate) fn on_metrics(
        &mut self,
        id: ConnId,
        latency: Duration,
        loss: u32,
        out: &mut Out<'_>,
    ) {
        let Some(slot) = self.find_conn(id, out) else { return };
        let conn = &self.conns.slab[slot];
        if conn.phase == ConnPhase::Up {
            self.measure(conn.peer, latency, Some(loss.min(1_000_000)), out);
        }
        self.heard(slot, out);
    }

    /// Feeds the detector one interval between two periodic signs of life, unless something that
    /// is not the peer's doing fell into it.
    fn sample(&mut self, slot: u32, last_beat: Option<Time>) {
        let not_before = self.sleep.woke_at.max(self.network.up_at);
        let conn = &mut self.conns.slab[slot];
        if conn.phase != ConnPhase::Up {
            return;
        }
        conn.last_beat = Some(self.now);
        let profile = self.peers.slab[conn.peer].profile;
        let watch = self.policies.peer(profile).watch;
        let detector = watch.map(|watch| watch.detector);
        if let (Some(DetectorPolicy::Phi(policy)), Some(rhythm), Some(last)) =
            (detector, conn.rhythm.as_mut(), last_beat)
            && last >= not_before
        {
            rhythm.sample(&policy, self.now.since(last));
        }
    }

    /// Brings the timer forward for a detector that is still finding its rhythm.
    fn hasten(&mut self, slot: u32) {
        let conn = &self.conns.slab[slot];
        if conn.phase == ConnPhase::Up && conn.rhythm.is_some_and(|it| it.samples() < SETTLED) {
            self.arm_watch(slot);
        }
    }

    /// The rare half of hearing: a ping is settled, a suspicion was wrong.
    fn attend(&mut self, slot: u32, out: &mut Out<'_>) {
        let conn = &mut self.conns.slab[slot];
        conn.ping = None;
        if conn.probe.sent_at().is_some() {
            // A peer that missed pings must answer as many as the profile asks for.
            let _: Heard = conn.probe.heard();
        }
        let unhealthy = conn.probe.is_unhealthy();
        conn.attentive = unhealthy;
        if let Some(suspected_at) = conn.suspected_at.take_if(|_| !unhealthy) {
            self.stats.cleared += 1;
            let owner = conn.peer;
            let (peer, conn) = (self.peers.slab[owner].id, conn.id);
            let suspected_for = self.now.since(suspected_at);
            out.notice(Notice::Cleared { peer, conn, suspected_for });
            self.end_race(owner, out);
        }
        self.arm_watch(slot);
    }
}

/// # Silence
impl Manager {
    pub(crate) fn on_conn_timer(&mut self, slot: u32, out: &mut Out<'_>) {
        match self.conns.slab[slot].phase {
            ConnPhase::Dialing { deadline, .. } => self.on_dial_timer(slot, deadline, out),
            ConnPhase::Up if self.now < self.sleep.hold_until => {
                self.timers.arm(TimerKind::Conn, slot, self.sleep.hold_until);
            }
            ConnPhase::Up => self.judge(slot, out),
        }
    }

    /// Looks at the record: pings if a ping is due, suspects if the silence is too long.
    fn judge(&mut self, slot: u32, out: &mut Out<'_>) {
        let conn = &self.conns.slab[slot];
        let profile = self.peers.slab[conn.peer].profile;
        let policy = self.policies.peer(profile);
        let Some(watch) = policy.watch else { return };
        let on_suspect = policy.profile.health.on_suspect;
        let peer = conn.peer;
        let mut silent = conn.suspected_at.is_none()
            && self.heard_at(conn) + self.suspect_after(conn, &watch) <= self.now;
        if let Some(pings) = watch.pings {
            let last = self.heard_at(conn);
            let now = self.now;
            match self.conns.slab[slot].probe.expire(&pings, last, now) {
                ProbeVerdict::Wait => {}
                ProbeVerdict::Ping => self.ping(slot, out),
                ProbeVerdict::Missed => self.conns.slab[slot].ping = None,
                ProbeVerdict::Unhealthy => {
                    let conn = &mut self.conns.slab[slot];
                    conn.ping = None;
                    silent |= conn.suspected_at.is_none();
                }
            }
        }
        if !silent {
            return self.arm_watch(slot);
        }
        let raced = on_suspect == OnSuspect::Race && self.race(peer);
        let drop = !raced && on_suspect != OnSuspect::Notify;
        self.suspect(slot, drop, out);
        if !drop {
            self.arm_watch(slot);
        }
    }

    /// Tells of a connection that has been silent for too long, and drops it if the profile says so.
    fn suspect(&mut self, slot: u32, drop: bool, out: &mut Out<'_>) {
        let conn = &self.conns.slab[slot];
        let silence = self.now.since(conn.last_heard);
        let peer = &self.peers.slab[conn.peer];
        let phi = self.phi_of(conn, peer.profile);
        let (id, conn_id) = (peer.id, conn.id);
        let rhythm = conn.rhythm.as_ref();
        let (mean, std) = (rhythm.map(Phi::mean), rhythm.map(Phi::std));
        self.stats.suspected += 1;
        out.notice(Notice::Suspected { peer: id, conn: conn_id, silence, phi, mean, std });
        if drop {
            out.push(Action::Close { conn: conn_id });
            return self.lose(slot, LossCause::Suspected, out);
        }
        let conn = &mut self.conns.slab[slot];
        conn.suspected_at = Some(self.now);
        conn.last_beat = None;
        conn.attentive = true;
    }

    fn ping(&mut self, slot: u32, out: &mut Out<'_>) {
        let now = self.now;
        let ping = self.conns.next_ping(slot);
        let conn = &mut self.conns.slab[slot];
        conn.probe.pinged(now);
        conn.attentive = true;
        conn.ping = ping;
        let id = conn.id;
        if let Some(ping) = ping {
            self.stats.pings += 1;
            out.push(Action::Ping { ping, conn: id });
        }
    }

    /// Arms the timer for the moment at which the connection must be looked at next.
    pub(crate) fn arm_watch(&mut self, slot: u32) {
        let conn = &self.conns.slab[slot];
        let profile = self.peers.slab[conn.peer].profile;
        let deadline = self.policies.peer(profile).watch.and_then(|watch| {
            let last = self.heard_at(conn);
            let judged = conn.suspected_at.is_none();
            let suspect_at = judged.then(|| last + self.suspect_after(conn, &watch));
            let ping_at = watch.pings.map(|pings| conn.probe.deadline(&pings, last));
            suspect_at.into_iter().chain(ping_at).min()
        });
        match deadline {
            Some(deadline) => self.timers.arm(TimerKind::Conn, slot, deadline),
            None => self.timers.disarm(TimerKind::Conn, slot),
        }
    }

    /// From when silence counts: while the network was down nobody could speak.
    fn heard_at(&self, conn: &Conn) -> Time {
        conn.last_heard.max(self.network.up_at)
    }

    fn suspect_after(&self, conn: &Conn, watch: &WatchPolicy) -> Duration {
        match (&watch.detector, &conn.rhythm) {
            (DetectorPolicy::Deadline(deadline), _) => *deadline,
            (DetectorPolicy::Phi(policy), Some(rhythm)) => rhythm.suspect_after(policy),
            (DetectorPolicy::Phi(_), None) => Duration::MAX,
        }
    }

    /// Phi of the connection's silence in thousandths, if its profile has a phi detector.
    pub(crate) fn phi_of(&self, conn: &Conn, profile: u16) -> Option<u32> {
        match (self.policies.peer(profile).watch?.detector, &conn.rhythm) {
            (DetectorPolicy::Phi(policy), Some(rhythm)) => {
                Some(rhythm.phi_milli(&policy, self.now.since(self.heard_at(conn))))
            }
            _ => None,
        }
    }
}

/// # Quality
impl Manager {
    /// Smooths the measurement in, and tells when the peer passes its limits or comes back well
    /// within them (four fifths, so that it does not flap around the limit).
    fn measure(&mut self, slot: u32, latency: Duration, loss: Option<u32>, out: &mut Out<'_>) {
        self.stats.latency.record(latency);
        let before = self.peers.slab[slot].measured;
        let sample = nanos(latency);
        let (latency, loss) = match before {
            None => (sample, loss.unwrap_or_default()),
            Some((latency, old)) => {
                (smooth(latency, sample), loss.map_or(old, |loss| smooth_loss(old, loss)))
            }
        };
        self.set_measured(slot, Some((latency, loss)));
        let peer = &mut self.peers.slab[slot];
        let health = self.policies.peer(peer.profile).profile.health;
        let over = |tenths: u64| {
            let max_latency = health.max_latency.map(|max| nanos(max) / 10 * tenths);
            let max_loss = health.max_loss.map(|max| u64::from(max) * tenths / 10);
            max_latency.is_some_and(|max| latency > max)
                || max_loss.is_some_and(|max| u64::from(loss) > max)
        };
        let degraded = over(if peer.degraded { 8 } else { 10 });
        if degraded == peer.degraded {
            return;
        }
        peer.degraded = degraded;
        let peer = peer.id;
        if degraded {
            self.stats.degraded += 1;
            out.notice(Notice::Degraded { peer, latency: Duration::from_nanos(latency), loss });
        } else {
            self.stats.degraded -= 1;
            out.notice(Notice::Recovered { peer });
        }
    }

    fn set_measured(&mut self, slot: u32, measured: Option<(u64, u32)>) {
        let before = core::mem::replace(&mut self.peers.slab[slot].measured, measured);
        if let Some((latency, loss)) = before {
            self.stats.measured -= 1;
            self.stats.latency_sum_ns -= u128::from(latency);
            self.stats.loss_sum -= u64::from(loss);
        }
        if let Some((latency, loss)) = measured {
            self.stats.measured += 1;
            self.stats.latency_sum_ns += u128::from(latency);
            self.stats.loss_sum += u64::from(loss);
        }
    }

    /// What was measured belonged to the connection that is gone.
    pub(crate) fn forget_measurements(&mut self, slot: u32) {
        self.set_measured(slot, None);
        let peer = &mut self.peers.slab[slot];
        self.stats.degraded -= u32::from(core::mem::take(&mut peer.degraded));
    }
}

fn smooth_loss(old: u32, sample: u32) -> u32 {
    u32::try_from(smooth(u64::from(old), u64::from(sample))).unwrap_or(u32::MAX)
}
