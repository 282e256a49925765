//! Signs of life, and peers that are up but no good.
//!
//! Hearing from a connection touches its record and no timer; the timer looks at the record when it
//! fires and arms itself for the moment that follows from it.

use core::hash::Hash;
use core::time::Duration;

use crate::action::{Ignored, Notice};
use crate::config::DetectorPolicy;
use crate::event::Event;
use crate::id::{ConnId, PingId};
use crate::manager::Manager;
use crate::manager::out::Out;
use crate::manager::peers::Quality;
use crate::time::{Time, nanos, smooth};

/// Samples from which on a detector's deadline moves on with each heartbeat, so that its timer is
/// never late. Before, the deviation can shrink so fast that the deadline comes nearer: by
/// z·std/2n a sample, with z ≤ 37 (phi 300) and std ≤ mean thanks to the clip.
const SETTLED: u32 = 20;

/// # What is heard
impl Manager {
    /// The whole step, if it is no more than to note the moment at which a connection was heard: it
    /// is up, nothing else depends on it, and nothing is due. `false`: nothing was done.
    #[inline]
    pub(crate) fn notes(&mut self, event: &Event, now: Time) -> bool {
        let (id, beats) = match *event {
            Event::Heard { conn } => (conn, false),
            Event::Heartbeat { conn } => (conn, true),
            _ => return false,
        };
        if now < self.now || self.deadline.is_some_and(|deadline| deadline <= now) {
            return false;
        }
        let Some(pulse) = self.conns.find(id).map(|slot| self.conns.pulse_mut(slot)) else {
            return false;
        };
        if !pulse.only_notes(beats) {
            return false;
        }
        (pulse.last_heard, pulse.heard) = (now, true);
        self.now = now;
        self.timers.advance(now);
        (now, event).hash(&mut self.run);
        true
    }

    #[inline]
    pub(crate) fn on_heard(&mut self, id: ConnId, out: &mut Out<'_>) {
        let Some(slot) = self.find_conn(id, out) else { return };
        self.heard(slot, out);
    }

    #[inline]
    pub(crate) fn heard(&mut self, slot: u32, out: &mut Out<'_>) {
        let now = self.now;
        let pulse = self.conns.pulse_mut(slot);
        if !pulse.is_up() {
            let id = self.conns.id(slot);
            return self.ignore(Ignored::NotUp(id), out);
        }
        pulse.last_heard = now;
        pulse.heard = true;
        if pulse.attentive {
            self.attend(slot, out);
        }
    }

    pub(crate) fn on_heartbeat(&mut self, id: ConnId, out: &mut Out<'_>) {
        let Some(slot) = self.find_conn(id, out) else { return };
        self.sample(slot, self.conns.slab[slot].last_beat());
        self.heard(slot, out);
        self.hasten(slot);
    }

    pub(crate) fn on_pong(&mut self, id: PingId, out: &mut Out<'_>) {
        let Some(slot) = self.conns.find_ping(id) else {
            self.stats.stale += 1;
            return out.notice(Notice::Ignored(Ignored::StalePing(id)));
        };
        self.stats.pongs += 1;
        if self.conns.asked(slot).ping != Some(id) {
            // Settled or given up before; but whoever answers late is alive.
            return self.heard(slot, out);
        }
        let now = self.now;
        let not_before = self.sleep.woke_at.max(self.network.up_at);
        // Traffic in between puts pings off: then the gap between two pongs is no period.
        let last_heard = self.conns.pulse(slot).last_heard;
        let conn = &self.conns.slab[slot];
        let peer = conn.peer;
        let last_beat = if conn.last_beat() == last_heard { last_heard } else { Time::MAX };
        // Across a sleep of our own it would tell how long we slept.
        let probe = &mut self.conns.asked_mut(slot).probe;
        let timed = probe.sent_at().is_some_and(|sent_at| sent_at >= not_before);
        let rtt = probe.pong(now).filter(|_| timed);
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
        if conn.is_up() {
            self.measure(conn.peer, latency, Some(loss.min(1_000_000)), out);
        }
        self.heard(slot, out);
    }

    /// Feeds the detector one interval between two periodic signs of life, unless something that
    /// is not the peer's doing fell into it.
    fn sample(&mut self, slot: u32, last_beat: Time) {
        let pulse = self.conns.pulse(slot);
        if !pulse.is_up() || !pulse.learns {
            return;
        }
        let not_before = self.sleep.woke_at.max(self.network.up_at);
        let conn = &mut self.conns.slab[slot];
        let profile = self.peers.slab[conn.peer].profile;
        let Some(watched) = conn.watched_mut() else { return };
        watched.last_beat = self.now;
        let watch = self.policies.peer(profile).watch;
        let detector = watch.map(|watch| watch.detector);
        if let (Some(DetectorPolicy::Phi(policy)), Some(rhythm)) =
            (detector, watched.rhythm.as_mut())
            && (not_before..Time::MAX).contains(&last_beat)
        {
            rhythm.sample(&policy, self.now.since(last_beat));
        }
    }

    /// Brings the timer forward for a detector that is still finding its rhythm.
    fn hasten(&mut self, slot: u32) {
        let pulse = self.conns.pulse(slot);
        let rhythm = || self.conns.slab[slot].rhythm();
        if pulse.is_up() && pulse.learns && rhythm().is_some_and(|it| it.samples() < SETTLED) {
            self.arm_watch(slot);
        }
    }
}

/// # Quality
impl Manager {
    /// Smooths the measurement in, and tells when the peer passes its limits or comes back well
    /// within them (four fifths, so that it does not flap around the limit).
    fn measure(&mut self, slot: u32, latency: Duration, loss: Option<u32>, out: &mut Out<'_>) {
        self.stats.latency.record(latency);
        let before = self.peers.qualities.get(slot).measured;
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
        let before = self.peers.qualities.get(slot).measured;
        self.peers.qualities.set(slot, Quality { measured });
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
