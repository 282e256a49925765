//! What happens to the host: late wake-ups, the network, load, a new process.

use core::time::Duration;

use crate::action::{Ignored, Notice, PeerCause};
use crate::event::LossCause;
use crate::manager::Manager;
use crate::manager::conns::ConnPhase;
use crate::manager::out::Out;
use crate::manager::peers::{BACKING_OFF, Phase, WOKEN};
use crate::time::{Time, nanos};

/// When we were asleep, and until when judgement holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// When we last found ourselves late.
    pub(crate) woke_at: Time,
    pub(crate) hold_until: Time,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) down: bool,
    /// When it last went down.
    pub(crate) down_at: Time,
    /// When it last came back.
    pub(crate) up_at: Time,
    /// How often it came back: failures counted in an earlier epoch are forgotten.
    pub(crate) epoch: u32,
    /// How long it has been down all in all, the time since `down_at` not included.
    pub(crate) offline: u64,
}

impl Network {
    /// How long it has been down all in all until now, in nanoseconds.
    pub(crate) fn offline_ns(&self, now: Time) -> u64 {
        let current = if self.down { nanos(now.since(self.down_at)) } else { 0 };
        self.offline.saturating_add(current)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Smoothed, in parts per million.
    pub(crate) smoothed: u32,
    pub(crate) relaxed: bool,
}

/// Load above which adaptive thresholds relax, and below which they return.
const RELAX_ABOVE: u32 = 800_000;
const RETURN_BELOW: u32 = 300_000;

impl Manager {
    /// Moves time on, never back, and notices when the driver slept past what it was promised.
    ///
    /// Lateness, not the gap between steps: the manager may rightly sleep for a minute.
    pub(crate) fn observe(&mut self, now: Time, out: &mut Out<'_>) {
        if now < self.now {
            self.stats.clock_backwards += 1;
            return;
        }
        let promised = self.deadline;
        self.now = now;
        let Some(promised) = promised else { return };
        let late = now.since(promised);
        let sleep = self.policies.config.sleep;
        if late > sleep.late_after && !sleep.max_hold.is_zero() {
            self.sleep.woke_at = now;
            self.hold(late.min(sleep.max_hold));
            self.stats.slept += 1;
            out.notice(Notice::Slept { late, hold_until: self.sleep.hold_until });
            self.blame_ourselves(out);
        }
    }

    /// Detectors, probes and dial timeouts hold for that long.
    fn hold(&mut self, span: Duration) {
        self.sleep.hold_until = self.sleep.hold_until.max(self.now + span);
    }

    pub(crate) fn on_network_down(&mut self, out: &mut Out<'_>) {
        if self.network.down {
            return self.ignore(Ignored::AlreadySo, out);
        }
        self.network.down = true;
        self.network.down_at = self.now;
        self.timers.stop(true);
    }

    /// Failures are forgotten (by a new epoch, no loop), and those in backoff are woken, a few at a
    /// time; whoever fell due meanwhile already waits in line.
    pub(crate) fn on_network_up(&mut self, out: &mut Out<'_>) {
        if !self.network.down {
            return self.ignore(Ignored::AlreadySo, out);
        }
        self.network.offline = self.network.offline_ns(self.now);
        self.network.down = false;
        self.network.up_at = self.now;
        self.network.epoch = self.network.epoch.wrapping_add(1);
        self.timers.stop(false);
        let down_for = self.now.since(self.network.down_at);
        self.hold(down_for.min(self.policies.config.sleep.max_hold));
        self.peers.lists.splice(BACKING_OFF, WOKEN);
    }

    pub(crate) fn on_load(&mut self, load: u32, out: &mut Out<'_>) {
        let smoothed = (3 * u64::from(self.load.smoothed) + u64::from(load.min(1_000_000))) / 4;
        self.load.smoothed = u32::try_from(smoothed).unwrap_or(1_000_000);
        let bound = if self.load.relaxed { RETURN_BELOW } else { RELAX_ABOVE };
        let relaxed = self.load.smoothed > bound;
        if relaxed != self.load.relaxed {
            self.load.relaxed = relaxed;
            out.notice(Notice::Load { relaxed });
        }
    }

    pub(crate) fn on_restarted(&mut self) {
        self.conns.restart();
        self.calls.restart();
    }

    /// Takes leave of a connection whose process is gone: there is nothing to close, and it counts
    /// against nobody.
    pub(crate) fn take_orphan(&mut self, slot: u32, out: &mut Out<'_>) {
        match self.conns.slab[slot].phase {
            ConnPhase::Dialing { .. } => {
                self.void_dial(slot, PeerCause::Lost(LossCause::Local), out);
            }
            ConnPhase::Up => self.lose(slot, LossCause::Local, out),
        }
    }

    /// Brings one peer out of backoff, or out of failure.
    pub(crate) fn wake(&mut self, slot: u32, out: &mut Out<'_>) {
        match self.peers.slab[slot].phase {
            Phase::BackingOff { until } => {
                let delay = match self.draw_first_retry(slot) {
                    Some(delay) => delay,
                    None => self.draw_backoff(slot, 0),
                };
                let at = until.min(self.now + delay);
                self.back_off_until(slot, at, PeerCause::Asked, out);
            }
            _ => self.revive(slot, out),
        }
    }
}
