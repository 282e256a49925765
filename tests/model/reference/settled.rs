//! What must be true after each step.

use std::time::Duration;

use steadfast::breaker::State;
use steadfast::config::{Detector, Signs};
use steadfast::{Blocked, BreakerCounts, BreakerId, ConnId, Manager, PeerCounts, PeerState, Time};

use crate::reference::{Conn, Counted, Model, Stage, Verdict};

impl Model {
    /// A clock that stands while there is no network.
    pub(crate) fn online(&self) -> Time {
        let until = if self.down { self.down_at } else { self.now };
        Time::ZERO + until.since(Time::ZERO + self.offline)
    }

    /// It fades by one in twenty seconds.
    pub(super) fn self_health(&self) -> u8 {
        let (score, since) = self.lateness;
        let faded = self.now.since(since).as_secs() / 20;
        score.saturating_sub(u8::try_from(faded).unwrap_or(u8::MAX))
    }

    pub(super) fn settle(&mut self, judged: Time, manager: &Manager) -> Verdict {
        let ours = (manager.self_health(), self.self_health());
        ensure!(ours.0 == ours.1, "{ours:?} against ourselves");
        ensure!(self.common_due.is_none(), "not told: {:?}", self.common_due);
        for (id, breaker) in &self.breakers {
            ensure!(breaker.due.is_none(), "{id} should be {:?}", breaker.due);
            let state = manager.breaker_state(*id);
            ensure!(state == Some(breaker.state), "{id} is {state:?}, not {:?}", breaker.state);
            if let State::Open { until } = breaker.state {
                ensure!(until > judged || self.down, "{id} should be half-open since {until}");
            }
        }
        if judged == self.now {
            self.check_silences()?;
        }
        // Removed peers are told of as disconnected first.
        self.peers.retain(|id, peer| {
            let gone = manager.peer_state(*id).is_none();
            !(gone && !peer.wanted && peer.conn.is_none() && peer.told == PeerState::Disconnected)
        });
        let mut peers = PeerCounts::default();
        let (now, online, down) = (self.now, self.online(), self.down);
        for (id, peer) in &mut self.peers {
            let up = peer.conn.is_some_and(|conn| self.conns[&conn].stage == Stage::Up);
            let state = if peer.failed {
                PeerState::Failed
            } else if up {
                PeerState::Connected
            } else if !peer.wanted {
                PeerState::Disconnected
            } else if peer.coming_back {
                PeerState::Reconnecting
            } else {
                PeerState::Connecting
            };
            ensure!(peer.told == state, "{id} was told {:?}, is {state:?}", peer.told);
            let why = manager.why(*id).ok_or_else(|| format!("{id} is unknown"))?;
            ensure!(why.state == state, "{id} is {state:?}: {why:?}");
            let failures = why.failures;
            let right = failures == peer.failures || !peer.simple && failures <= peer.failures;
            ensure!(right, "{id} has {} failures: {why:?}", peer.failures);
            peer.backing_off = why.blocked == Some(Blocked::Backoff);
            (peer.waits, peer.waits_since) = match why.blocked {
                Some(Blocked::Turn { breaker, .. }) => (Some(breaker), Some(why.since)),
                Some(Blocked::Breaker { .. } | Blocked::Network | Blocked::Pause) => {
                    (None, Some(why.since))
                }
                _ => (None, None),
            };
            let idle = matches!(state, PeerState::Connected | PeerState::Disconnected);
            ensure!(why.blocked.is_none() == idle, "{id} is blocked by {:?}", why.blocked);
            ensure!(why.since <= now, "{id} since {}", why.since);
            let profile = &self.config.peer_profiles[peer.profile];
            if let (Some(span), false) = (profile.give_up_after, idle || peer.failed) {
                // Across an outage of ours it may take an eighth longer until that is noticed.
                let span = span + if self.offline.is_zero() { Duration::ZERO } else { span / 8 };
                ensure!(down || peer.without_since + span > online, "{id} should have given up");
            }
            if peer.backing_off {
                ensure!(why.until.is_some_and(|until| until > now), "{id} is late: {why:?}");
            }
            if down {
                let dials = matches!(why.blocked, Some(Blocked::Dial(_)));
                let waits = matches!(
                    why.blocked,
                    Some(Blocked::Network | Blocked::Pause | Blocked::Backoff)
                );
                ensure!(idle || peer.failed || dials || waits, "{id}: {why:?}");
            }
            match state {
                PeerState::Disconnected => peers.disconnected += 1,
                PeerState::Connecting => peers.connecting += 1,
                PeerState::Connected => peers.connected += 1,
                PeerState::Reconnecting => peers.reconnecting += 1,
                PeerState::Failed => peers.failed += 1,
            }
        }
        let mut breakers = BreakerCounts::default();
        for breaker in self.breakers.values() {
            match breaker.state {
                State::Closed => breakers.closed += 1,
                State::Open { .. } => breakers.open += 1,
                State::HalfOpen => breakers.half_open += 1,
                State::ForcedOpen => breakers.forced_open += 1,
                State::Disabled => breakers.disabled += 1,
            }
        }
        self.compare_stats(manager, peers, breakers)
    }

    /// Of those who are up behind the breaker, the doubted, and all.
    pub(super) fn crowd(&self, breaker: BreakerId) -> (u32, u32) {
        let up = |conn: &&Conn| conn.stage == Stage::Up && conn.breaker == Some(breaker);
        let count = |n: usize| u32::try_from(n).unwrap();
        let doubted = self.conns.values().filter(up).filter(|conn| conn.doubted).count();
        (count(doubted), count(self.conns.values().filter(up).count()))
    }

    pub(super) fn is_mass(&self, breaker: BreakerId) -> bool {
        let guard = self.config.mass_guard.unwrap();
        let (doubted, up) = self.crowd(breaker);
        let share = guard.share.of(u64::from(up)).max(u64::from(guard.min_silent));
        up >= guard.min_peers && u64::from(doubted) > share
    }

    /// Marks those whom the manager may be waiting for because many are silent.
    pub(super) fn watch_crowds(&mut self) {
        let doubted = self.conns.iter().filter(|(_, conn)| conn.doubted);
        let amid_many = |conn: &Conn| conn.breaker.is_some_and(|breaker| self.is_mass(breaker));
        let marked: Vec<ConnId> =
            doubted.filter(|(_, conn)| amid_many(conn)).map(|(id, _)| *id).collect();
        for id in marked {
            self.conns.get_mut(&id).unwrap().amid_many = true;
        }
    }

    /// Nobody who is silent is forgotten: a quarter longer for our own sake, and as long again if
    /// many are silent.
    pub(super) fn check_silences(&self) -> Verdict {
        for (id, conn) in self.conns.iter().filter(|(_, conn)| conn.stage == Stage::Up) {
            let health = self.profile(&self.peers[&conn.peer]).health;
            let (Signs::Heartbeats, Detector::Deadline(span)) = (health.signs, health.detector)
            else {
                continue;
            };
            let from = conn.last_heard.max(self.up_at);
            let end = (from + span + span / 4).max(self.hold_until) + span;
            let judged = conn.suspected || self.down || self.now < end;
            ensure!(judged, "{id} should have been suspected at {end}");
        }
        Ok(())
    }

    pub(super) fn compare_stats(
        &self,
        manager: &Manager,
        peers: PeerCounts,
        breakers: BreakerCounts,
    ) -> Verdict {
        let stats = manager.stats();
        ensure!(stats.peers == peers, "{:?}, counted {peers:?}", stats.peers);
        ensure!(stats.breakers == breakers, "{:?}, counted {breakers:?}", stats.breakers);
        let dialing = self.conns.values().filter(|conn| conn.stage == Stage::Dialing).count();
        ensure!(stats.dials_in_flight as usize == dialing, "{dialing} dials in flight");
        for (id, conn) in self.conns.iter().filter(|(_, conn)| conn.stage != Stage::Dead) {
            let peer = self.peers.get(&conn.peer);
            let held = peer.is_some_and(|peer| [peer.conn, peer.beside].contains(&Some(*id)));
            ensure!(held, "{id} is nobody's");
        }
        let told = Counted {
            dials: stats.dials,
            succeeded: stats.dials_succeeded,
            cancelled: stats.dials_cancelled,
            adopted: stats.adopted,
            refused: stats.refused,
            resumed: stats.sessions_resumed,
            sessions_lost: stats.sessions_lost,
            given_up: stats.given_up,
            suspected: stats.suspected,
            cleared: stats.cleared,
            doubted: stats.doubted,
            mass_suspicions: stats.mass_suspicions,
            self_doubts: stats.self_doubts,
            pings: stats.pings,
            pongs: stats.pongs,
            stale: stats.stale,
            ignored: stats.ignored,
            backwards: stats.clock_backwards,
            slept: stats.slept,
            common_refusals: stats.common_refusals,
            failures: stats.dial_failures,
            losses: stats.losses,
            go_aways: stats.go_aways,
            moves: stats.moves,
        };
        ensure!(told == self.counted, "stats {told:?}, counted {:?}", self.counted);
        Ok(())
    }
}
