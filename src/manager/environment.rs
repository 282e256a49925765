//! What happens to the host: late wake-ups, the network, load, a new process.

use core::time::Duration;

use crate::action::{Action, Ignored, Notice, PeerCause};
use crate::event::LossCause;
use crate::manager::Manager;
use crate::manager::conns::{ConnPhase, LIVE, UNCHECKED};
use crate::manager::out::Out;
use crate::manager::peers::{BACKING_OFF, Phase, WOKEN};
use crate::mutant::Mutant;
use crate::time::{Time, nanos};

/// When we were asleep, and until when judgement holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// When we last found ourselves late.
    pub(crate) woke_at: Time,
    pub(crate) hold_until: Time,
}

/// Whether anything can be reached at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// There is no network.
    pub(crate) down: bool,
    /// The app is in the background.
    pub(crate) paused: bool,
    /// It became another one while we could not use it.
    pub(crate) changed: bool,
    /// Since when we could not use it, the last time.
    pub(crate) still_at: Time,
    /// Since when we can use it again, or use another one.
    pub(crate) up_at: Time,
    /// When everything was looked at anew for that.
    pub(crate) renewed_at: Time,
    /// How often that happened: failures counted in an earlier epoch are forgotten.
    pub(crate) epoch: u32,
    /// How long we could not use it all in all, the time since `still_at` not included.
    pub(crate) offline: u64,
}

impl Network {
    /// Whether we neither dial nor ping, and judge nobody.
    pub(crate) const fn is_still(&self) -> bool {
        self.down || self.paused
    }

    /// How long we could not use it all in all until now, in nanoseconds.
    pub(crate) fn offline_ns(&self, now: Time) -> u64 {
        let current = if self.is_still() { nanos(now.since(self.still_at)) } else { 0 };
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
        self.timers.advance(now);
        let Some(promised) = promised else { return };
        let late = now.since(promised);
        let sleep = self.policies.config.sleep;
        if late > sleep.late_after && !sleep.max_hold.is_zero() && !Mutant::IgnoredPause.lives() {
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
        self.stand_still();
        self.network.down = true;
    }

    pub(crate) fn on_network_up(&mut self, out: &mut Out<'_>) {
        if !self.network.down {
            return self.ignore(Ignored::AlreadySo, out);
        }
        self.network.down = false;
        self.go_on();
    }

    pub(crate) fn on_paused(&mut self, out: &mut Out<'_>) {
        if self.network.paused {
            return self.ignore(Ignored::AlreadySo, out);
        }
        self.stand_still();
        self.network.paused = true;
    }

    /// Who knows over what network the host is now: as if it had become another one.
    pub(crate) fn on_resumed(&mut self, out: &mut Out<'_>) {
        if !self.network.paused {
            return self.ignore(Ignored::AlreadySo, out);
        }
        self.network.paused = false;
        self.network.changed = true;
        self.go_on();
    }

    pub(crate) fn on_network_changed(&mut self) {
        if self.network.is_still() {
            self.network.changed = true;
        } else {
            self.network.up_at = self.now;
            self.renew();
        }
    }

    fn stand_still(&mut self) {
        if !self.network.is_still() {
            self.network.still_at = self.now;
            self.timers.stop(true);
        }
    }

    /// We can use the network again. After a moment without it all is as it was; otherwise it counts
    /// as another one.
    fn go_on(&mut self) {
        if self.network.is_still() {
            return;
        }
        let still_for = self.now.since(self.network.still_at);
        self.network.offline = self.network.offline.saturating_add(nanos(still_for));
        self.network.up_at = self.now;
        self.timers.stop(false);
        self.hold(still_for.min(self.policies.config.sleep.max_hold));
        let changed = core::mem::take(&mut self.network.changed);
        if changed || still_for >= self.policies.config.network.debounce {
            self.renew();
        }
    }

    /// Failures are forgotten (by a new epoch, no loop); those in backoff are woken and all dials
    /// and connections looked at, a few at a time. Whoever fell due meanwhile waits in line already.
    fn renew(&mut self) {
        self.network.renewed_at = self.now;
        self.network.epoch = self.network.epoch.wrapping_add(1);
        self.peers.lists.splice(BACKING_OFF, WOKEN);
        self.conns.lists.splice(LIVE, UNCHECKED);
    }

    /// Looks at a connection that the network's change may have cut off: a dial begins anew, and
    /// whoever can be pinged soon is.
    pub(crate) fn check_conn(&mut self, slot: u32, out: &mut Out<'_>) {
        self.conns.lists.unlink(slot);
        self.conns.lists.push_back(LIVE, slot);
        let conn = &self.conns.slab[slot];
        match conn.phase() {
            ConnPhase::Dialing { .. } if conn.since < self.network.renewed_at => {
                out.push(Action::CancelDial { conn: self.conns.id(slot) });
                self.stats.dials_cancelled += 1;
                self.void_dial(slot, PeerCause::Asked, out);
            }
            ConnPhase::Dialing { .. } => {}
            ConnPhase::Up => self.arm_watch(slot),
        }
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
        match self.conns.slab[slot].phase() {
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
