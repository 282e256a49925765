//! Silence: doubted, held, believed.
//!
//! ```text
//! Full ──doubt_after──▶ Doubted ──suspect_after──▶ Suspected (dropped, or only told)
//!   ▲                     │   │                        ▲
//!   └──── heard ──────────┘   └─ too many at once ─▶ Held: one more detection time
//! ```
//!
//! Each state has a moment at which it ends by itself, and the connection's own timer is armed for
//! it; nobody looks at all peers. A timer that finds two moments passed at once (we were asleep)
//! takes one step only and comes again behind all others that are due, so that everybody who is
//! silent has been counted before the first is judged.
//!
//! Rejected: counting verdicts per second, and holding from the one that is too many (by then a
//! quarter of the connections has been dropped; and where heartbeats come every ten seconds a dead
//! link never has a quarter of its peers fall silent within one).

use core::time::Duration;

use crate::action::{Action, Conviction, Notice};
use crate::config::{DetectorPolicy, OnSuspect, WatchPolicy};
use crate::container::timers::TimerKind;
use crate::draw::{Draws, Purpose};
use crate::event::LossCause;
use crate::manager::Manager;
use crate::manager::conns::{Conn, ConnPhase};
use crate::manager::crowd::{Crowd, Trust};
use crate::manager::out::Out;
use crate::phi::Phi;
use crate::probe::{Heard, Probe, ProbePolicy, ProbeVerdict};
use crate::time::Time;

/// How many round trips the answer to the check after a change of network may take, and how long at
/// least.
///
/// Source: iroh's check of a path after a change.
const ROUND_TRIPS: u64 = 3;
const SHORTEST_CHECK: Duration = Duration::from_millis(500);

/// A verdict was a mistake if the peer speaks within this time of it.
const MISTAKE: Duration = Duration::from_secs(1);

/// # Silence
impl Manager {
    pub(crate) fn on_conn_timer(&mut self, slot: u32, out: &mut Out<'_>) {
        if self.glances(slot, out) {
            return;
        }
        match self.conns.slab[slot].phase() {
            ConnPhase::Dialing { deadline, .. } => self.on_dial_timer(slot, deadline, out),
            ConnPhase::Up if self.now < self.sleep.hold_until => {
                self.ask_while_held(slot, out);
                self.timers.arm(TimerKind::Conn, slot, self.sleep.hold_until);
            }
            ConnPhase::Up => self.look(slot, out),
        }
    }

    /// The whole look at a connection of which nothing is known but when it was last heard, if that
    /// was not too long ago: what most timers come to.
    fn glances(&mut self, slot: u32, out: &mut Out<'_>) -> bool {
        let pulse = self.conns.pulse(slot);
        let is_plain = pulse.only_notes(true) && self.now >= self.sleep.hold_until;
        let watch = self.policies.peer(pulse.profile).watch.as_ref();
        let Some(watch) = watch.filter(|watch| is_plain && watch.pings.is_none()) else {
            return false;
        };
        let doubt_at = pulse.last_heard.max(self.network.up_at) + span_of(&watch.doubt, None);
        if doubt_at <= self.now {
            return false;
        }
        self.self_health.fired(self.now);
        self.tell_self_health(out);
        self.timers.arm(TimerKind::Conn, slot, doubt_at);
        true
    }

    /// Judgement holds, but whoever is to be asked may be.
    fn ask_while_held(&mut self, slot: u32, out: &mut Out<'_>) {
        let conn = &self.conns.slab[slot];
        let profile = self.peers.slab[conn.peer].profile;
        let pings = self.policies.peer(profile).watch.and_then(|watch| watch.pings);
        let due = pings.is_some_and(|pings| {
            self.probe(conn).sent_at().is_none() && self.ping_due(conn, &pings) <= self.now
        });
        if due {
            self.want_ping(slot, out);
        }
    }

    /// Looks at the record: pings if a ping is due, and takes one step towards suspicion, or back,
    /// if the silence says so.
    fn look(&mut self, slot: u32, out: &mut Out<'_>) {
        let profile = self.peers.slab[self.conns.slab[slot].peer].profile;
        let Some(watch) = self.policies.peer(profile).watch else { return };
        self.self_health.fired(self.now);
        self.tell_self_health(out);
        let pings = watch.pings.map(|pings| self.patient(&self.conns.slab[slot], &pings));
        let missed = pings.is_some_and(|pings| self.check_ping(slot, &pings, out));
        let conn = &self.conns.slab[slot];
        let (now, last, trust) = (self.now, self.heard_at(conn), conn.trust());
        let unhealthy = self.probe(conn).is_unhealthy();
        let silent = unhealthy || last + self.suspect_after(conn, &watch) <= now;
        let quiet = unhealthy || missed || last + self.doubt_after(conn, &watch) <= now;
        match trust {
            Trust::Full if (quiet || silent) && !self.awaits_budget(slot) => self.doubt(slot, out),
            Trust::Doubted { .. } | Trust::Held { .. }
                if !quiet && self.probe(conn).missed() == 0 =>
            {
                // What there was of silence was our own network's.
                self.restore_trust(slot, out);
            }
            Trust::Doubted { .. } if silent && !self.awaits_budget(slot) => {
                return self.convict(slot, out);
            }
            Trust::Held { at } if silent && at + self.detection_time(conn, &watch) <= now => {
                let rest = self.policies.config.mass_guard.map(|guard| guard.believe_for);
                let until = now + rest.unwrap_or_default();
                self.change_crowd(slot, |crowd| crowd.believed_until = until);
                return self.suspect(slot, out);
            }
            _ => {}
        }
        self.arm_watch(slot);
    }

    /// Pings if a ping is due; `true` if one was missed.
    fn check_ping(&mut self, slot: u32, pings: &ProbePolicy, out: &mut Out<'_>) -> bool {
        let conn = &self.conns.slab[slot];
        if self.pinger.line.is_linked(slot) || self.now < self.ping_due(conn, pings) {
            return false;
        }
        if self.probe(conn).sent_at().is_none() {
            self.want_ping(slot, out);
            return false;
        }
        let (last, now) = (self.heard_at(conn), self.now);
        let asked = self.conns.asked_mut(slot);
        asked.ping = None;
        asked.probe.expire(pings, last, now) != ProbeVerdict::Wait
    }

    /// Whether a ping that it was never sent keeps it from being judged: it waits for our budget.
    fn awaits_budget(&self, slot: u32) -> bool {
        let probe = &self.conns.asked(slot).probe;
        self.pinger.line.is_linked(slot) && probe.missed() == 0 && !probe.is_unhealthy()
    }

    /// It has been silent for longer than usual, and is on the way to suspicion.
    fn doubt(&mut self, slot: u32, out: &mut Out<'_>) {
        self.set_trust(slot, Trust::Doubted { at: self.now });
        self.stats.doubted += 1;
        if self.tells_doubts(slot) {
            let conn = &self.conns.slab[slot];
            let silence = self.now.since(self.conns.pulse(slot).last_heard);
            let (peer, conn) = (self.peers.slab[conn.peer].id, self.conns.id(slot));
            out.notice(Notice::Doubted { peer, conn, silence });
        }
    }

    /// It has been silent for too long: suspects it, unless so many are silent that it may be us.
    fn convict(&mut self, slot: u32, out: &mut Out<'_>) {
        let guard = self.policies.config.mass_guard;
        let crowd = self.crowd_of(slot).copied();
        let Some((guard, crowd)) = guard.zip(crowd) else { return self.suspect(slot, out) };
        if !crowd.is_mass(&guard, self.now) {
            return self.suspect(slot, out);
        }
        self.set_trust(slot, Trust::Held { at: self.now });
        self.conns.slab[slot].forget_beat();
        self.stats.held += 1;
        if crowd.held == 0
            && let Some(endpoint) = self.endpoints.slab.get(self.conns.slab[slot].endpoint)
        {
            let breaker = self.breakers.slab[endpoint.breaker].id;
            self.stats.mass_suspicions += 1;
            let (silent, connected) = (crowd.doubted, crowd.up);
            out.notice(Notice::MassSuspicion { breaker, silent, connected });
        }
        let profile = self.peers.slab[self.conns.slab[slot].peer].profile;
        let pings = self.policies.peer(profile).watch.and_then(|watch| watch.pings);
        if pings.is_some() && self.conns.asked(slot).probe.sent_at().is_none() {
            self.want_ping(slot, out);
        }
        self.arm_watch(slot);
    }

    /// Tells of a connection that has been silent for too long, and drops it if the profile says so.
    fn suspect(&mut self, slot: u32, out: &mut Out<'_>) {
        let conn = &self.conns.slab[slot];
        let silence = self.now.since(self.conns.pulse(slot).last_heard);
        let by =
            if self.probe(conn).is_unhealthy() { Conviction::Pings } else { Conviction::Silence };
        let record = &self.peers.slab[conn.peer];
        let phi = self.phi_of(conn, record.profile);
        let (peer, id) = (record.id, self.conns.id(slot));
        let rhythm = conn.rhythm();
        let (mean, std) = (rhythm.map(Phi::mean), rhythm.map(Phi::std));
        let self_health = self.self_health();
        let on_suspect = self.policies.peer(record.profile).profile.health.on_suspect;
        let owner = conn.peer;
        self.stats.suspected += 1;
        let told = Notice::Suspected { peer, conn: id, silence, phi, mean, std, self_health, by };
        out.notice(told);
        let raced = on_suspect == OnSuspect::Race && self.race(owner);
        if !raced && on_suspect != OnSuspect::Notify {
            out.push(Action::Close { conn: id });
            return self.lose(slot, LossCause::Suspected, out);
        }
        self.set_trust(slot, Trust::Suspected { at: self.now });
        self.conns.slab[slot].forget_beat();
        self.arm_watch(slot);
    }

    /// The rare half of hearing: a ping is settled, a doubt or a suspicion was wrong. A peer that must
    /// answer pings keeps its place among those that wait for one, or its talk would put that off.
    pub(crate) fn attend(&mut self, slot: u32, out: &mut Out<'_>) {
        if let Some(asked) = self.conns.if_asked(slot) {
            asked.ping = None;
            if asked.probe.sent_at().is_some() {
                // A peer that missed pings must answer as many as the profile asks for.
                let _: Heard = asked.probe.heard();
            }
        }
        let conn = &self.conns.slab[slot];
        let trust = conn.trust();
        match trust {
            Trust::Full => {}
            Trust::Doubted { .. } => self.restore_trust(slot, out),
            Trust::Held { at } => {
                self.judge_ourselves(at, out);
                self.restore_trust(slot, out);
            }
            Trust::Suspected { .. } if self.probe(conn).is_unhealthy() => {}
            Trust::Suspected { at } => {
                self.judge_ourselves(at, out);
                self.set_trust(slot, Trust::Full);
                self.stats.cleared += 1;
                let owner = self.conns.slab[slot].peer;
                let (peer, conn) = (self.peers.slab[owner].id, self.conns.id(slot));
                let suspected_for = self.now.since(at);
                out.notice(Notice::Cleared { peer, conn, suspected_for });
                self.end_race(owner, out);
            }
        }
        let trusted = self.conns.slab[slot].trust() == Trust::Full;
        self.conns.pulse_mut(slot).attentive = !trusted;
        if !self.conns.asked(slot).probe.is_unhealthy() {
            self.pinger.line.unlink(slot);
        }
        self.arm_watch(slot);
    }

    /// It is doubted no longer. Whatever pings it missed were missed by too few, or by us.
    fn restore_trust(&mut self, slot: u32, out: &mut Out<'_>) {
        let tells = self.tells_doubts(slot);
        if let Some(asked) = self.conns.if_asked(slot).filter(|asked| asked.probe.is_unhealthy()) {
            asked.probe = Probe::NEW;
        }
        let trust = self.set_trust(slot, Trust::Full);
        self.stats.doubts_cleared += 1;
        if let (true, Trust::Doubted { at } | Trust::Held { at }) = (tells, trust) {
            let conn = &self.conns.slab[slot];
            let (peer, conn) = (self.peers.slab[conn.peer].id, self.conns.id(slot));
            let doubted_for = self.now.since(at);
            out.notice(Notice::Trusted { peer, conn, doubted_for });
        }
    }

    fn tells_doubts(&self, slot: u32) -> bool {
        let profile = self.peers.slab[self.conns.slab[slot].peer].profile;
        self.policies.peer(profile).profile.health.tell_doubts
    }
}

/// # When
impl Manager {
    /// Arms the timer for the moment at which the connection must be looked at next. One that has
    /// passed is now, behind all others that are due.
    pub(crate) fn arm_watch(&mut self, slot: u32) {
        let conn = &self.conns.slab[slot];
        let profile = self.peers.slab[conn.peer].profile;
        let deadline = self.policies.peer(profile).watch.and_then(|watch| {
            let last = self.heard_at(conn);
            let asking = self.pinger.line.is_linked(slot);
            let judged = match conn.trust() {
                _ if self.awaits_budget(slot) && !matches!(conn.trust(), Trust::Held { .. }) => {
                    None
                }
                Trust::Full => Some(last + self.doubt_after(conn, &watch)),
                Trust::Doubted { .. } if self.probe(conn).is_unhealthy() => Some(self.now),
                Trust::Doubted { .. } => Some(last + self.suspect_after(conn, &watch)),
                Trust::Held { at } => {
                    let over = at + self.detection_time(conn, &watch);
                    let silent = last + self.suspect_after(conn, &watch);
                    Some(if self.probe(conn).is_unhealthy() { over } else { over.max(silent) })
                }
                Trust::Suspected { .. } => None,
            };
            let pings = watch.pings.filter(|_| !asking);
            let ping_at = pings.map(|pings| self.ping_due(conn, &self.patient(conn, &pings)));
            judged.into_iter().chain(ping_at).min()
        });
        match deadline {
            Some(deadline) => self.timers.arm(TimerKind::Conn, slot, deadline.max(self.now)),
            None => self.timers.disarm(TimerKind::Conn, slot),
        }
    }

    /// From when silence counts: while the network was down nobody could speak, and while a ping
    /// waited for our budget nobody was asked.
    pub(crate) fn heard_at(&self, conn: &Conn) -> Time {
        let last_heard = self.conns.pulse(conn.slot).last_heard;
        last_heard.max(self.network.up_at).max(self.conns.asked(conn.slot).excused)
    }

    /// What its pings say.
    pub(crate) fn probe(&self, conn: &Conn) -> &Probe {
        &self.conns.asked(conn.slot).probe
    }

    /// How long a silence is suspect, if nothing speaks against us.
    fn nominal(&self, conn: &Conn, watch: &WatchPolicy) -> Duration {
        span_of(&watch.detector, conn.rhythm())
    }

    /// How long it takes to find one who falls silent, by whatever finds it first.
    fn detection_time(&self, conn: &Conn, watch: &WatchPolicy) -> Duration {
        let nominal = self.nominal(conn, watch);
        watch.pings.map_or(nominal, |pings| pings.detection_time().min(nominal))
    }

    /// How long a silence is doubted.
    fn doubt_after(&self, conn: &Conn, watch: &WatchPolicy) -> Duration {
        span_of(&watch.doubt, conn.rhythm())
    }

    /// How long a silence is suspect.
    fn suspect_after(&self, conn: &Conn, watch: &WatchPolicy) -> Duration {
        let nominal = self.nominal(conn, watch);
        let margin = match (&watch.detector, conn.rhythm()) {
            (DetectorPolicy::Phi(policy), Some(rhythm)) => rhythm.margin(policy),
            _ => nominal / 2,
        };
        self.patience(nominal, margin)
    }

    /// The checks with the timeout that we allow as things stand with us: three round trips of a
    /// connection that another network may have cut off, where they are known.
    fn patient(&self, conn: &Conn, pings: &ProbePolicy) -> ProbePolicy {
        let measured = self.peers.qualities.get(conn.peer).measured;
        let timeout = match measured.filter(|_| self.is_to_be_checked(conn)) {
            Some((latency, _)) => {
                let trips = Duration::from_nanos(latency.saturating_mul(ROUND_TRIPS));
                trips.max(SHORTEST_CHECK).min(pings.timeout())
            }
            None => pings.timeout(),
        };
        pings.with_timeout(self.patience(timeout, timeout))
    }

    /// Phi of the connection's silence in thousandths, if its profile has a phi detector.
    pub(crate) fn phi_of(&self, conn: &Conn, profile: u16) -> Option<u32> {
        match (self.policies.peer(profile).watch?.detector, conn.rhythm()) {
            (DetectorPolicy::Phi(policy), Some(rhythm)) => {
                Some(rhythm.phi_milli(&policy, self.now.since(self.heard_at(conn))))
            }
            _ => None,
        }
    }

    /// The moment of the ping interval that is this peer's own; the same after each outage.
    pub(crate) fn draw_phase(&self, peer: u32) -> u64 {
        let draws = Draws::new(self.policies.config.seed, self.peers.slab[peer].id.0);
        draws.draw(Purpose::PingPhase, 0)
    }
}

fn span_of(detector: &DetectorPolicy, rhythm: Option<&Phi>) -> Duration {
    match (detector, rhythm) {
        (DetectorPolicy::Deadline(deadline), _) => *deadline,
        (DetectorPolicy::Phi(policy), Some(rhythm)) => rhythm.suspect_after(policy),
        (DetectorPolicy::Phi(_), None) => Duration::MAX,
    }
}

/// # Ourselves
impl Manager {
    /// How long we wait as things stand with us.
    fn patience(&self, nominal: Duration, margin: Duration) -> Duration {
        match &self.policies.self_health {
            Some(policy) => policy.patience(self.self_health(), nominal, margin),
            None => nominal,
        }
    }

    /// A verdict of `at` was wrong; whose fault that is depends on how many were.
    fn judge_ourselves(&mut self, at: Time, out: &mut Out<'_>) {
        if let Some(policy) = &self.policies.self_health
            && self.now.since(at) <= MISTAKE
        {
            self.self_health.mistaken(policy, self.now);
            self.tell_self_health(out);
        }
    }

    /// We came too late.
    pub(crate) fn blame_ourselves(&mut self, out: &mut Out<'_>) {
        if let Some(policy) = &self.policies.self_health {
            self.self_health.late(policy, self.now);
            self.tell_self_health(out);
        }
    }

    fn tell_self_health(&mut self, out: &mut Out<'_>) {
        let score = self.self_health();
        if score != self.told_self_health {
            self.stats.self_doubts += u64::from(score > self.told_self_health);
            self.told_self_health = score;
            out.notice(Notice::SelfHealth { score });
        }
    }
}

/// # The crowd
impl Manager {
    /// What is known of those behind the breaker that the connection leads through.
    fn crowd_of(&self, slot: u32) -> Option<&Crowd> {
        let endpoint = self.endpoints.slab.get(self.conns.slab[slot].endpoint)?;
        Some(&self.breakers.slab[endpoint.breaker].crowd)
    }

    fn change_crowd(&mut self, slot: u32, change: impl FnOnce(&mut Crowd)) {
        self.change_crowd_at(self.conns.slab[slot].endpoint, change);
    }

    fn change_crowd_at(&mut self, endpoint: u32, change: impl FnOnce(&mut Crowd)) {
        if let Some(endpoint) = self.endpoints.slab.get(endpoint) {
            change(&mut self.breakers.slab[endpoint.breaker].crowd);
        }
    }

    /// Sets what speaks against the connection and returns what did before.
    fn set_trust(&mut self, slot: u32, to: Trust) -> Trust {
        let Some(watched) = self.conns.slab[slot].watched_mut() else { return Trust::Full };
        let from = core::mem::replace(&mut watched.trust, to);
        self.conns.pulse_mut(slot).attentive |= to != Trust::Full;
        self.change_crowd(slot, |crowd| crowd.change(from, to));
        from
    }

    /// The connection is up, or leads through another breaker from now on.
    pub(crate) fn join_crowd(&mut self, slot: u32) {
        let conn = &self.conns.slab[slot];
        let (endpoint, trust) = (conn.endpoint, conn.trust());
        self.change_crowd_at(endpoint, |crowd| crowd.join(trust));
    }

    /// The connection that led over the endpoint is gone, or leads elsewhere.
    pub(crate) fn leave_crowd(&mut self, endpoint: u32, trust: Trust) {
        self.change_crowd_at(endpoint, |crowd| crowd.leave(trust));
    }
}
