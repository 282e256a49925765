//! What may be told.

use std::time::Duration;

use steadfast::breaker::State;
use steadfast::config::{Detector, Signs};
use steadfast::strategy::Step;
use steadfast::{Event, Ignored, MoveCause, Moves, Notice, PeerCause, PeerState};

use crate::reference::{Model, Stage, Verdict, kind};

/// How long the answer to the check after a change of network may take at least.
const CHECK: Duration = Duration::from_millis(500);

impl Model {
    pub(super) fn take_notice(&mut self, notice: &Notice, step: &Step) -> Verdict {
        match notice {
            Notice::Peer { peer, from, to, cause } => {
                if (*to, *cause) == (PeerState::Connecting, PeerCause::Asked) {
                    self.connect_for_a_call(*peer);
                }
                let record = self.peers.get_mut(peer).ok_or("no such peer")?;
                ensure!(record.told == *from, "it was {:?}", record.told);
                record.told = *to;
                if *to != PeerState::Failed {
                    return Ok(());
                }
                self.counted.given_up += 1;
                record.failed = true;
                record.retry_at = None;
                let record = &self.peers[peer];
                let profile = self.profile(record);
                let enough = match cause {
                    PeerCause::TooManyAttempts => {
                        let own = record.failures - record.excused;
                        profile.max_attempts.is_some_and(|max| own >= max)
                    }
                    PeerCause::TooLong => profile
                        .give_up_after
                        .is_some_and(|span| record.without_since + span <= self.online()),
                    _ => false,
                };
                ensure!(enough, "gave up too early");
                Ok(())
            }
            Notice::RetryAt { peer, at, failures } => {
                let now = self.now;
                let record = self.peers.get_mut(peer).ok_or("no such peer")?;
                ensure!(*at > now, "retries in the past");
                ensure!(record.wanted && record.conn.is_none(), "nothing to wait for");
                record.retry_at = Some(*at);
                if !record.simple {
                    ensure!(*failures <= record.failures, "at most {}", record.failures);
                    return Ok(());
                }
                ensure!(*failures == record.failures, "{} by count", record.failures);
                let waits = at.since(now);
                if let Some(wait) = record.expected_wait {
                    let drawn = waits.saturating_sub(wait.hint);
                    ensure!((wait.least..=wait.most).contains(&drawn), "not within {wait:?}");
                    if wait.remembered {
                        record.previous = drawn;
                    }
                }
                Ok(())
            }
            Notice::FailedOver { from, to, .. } => {
                ensure!(from != to, "to the same one");
                Ok(())
            }
            Notice::SessionLost { peer } => {
                self.counted.sessions_lost += 1;
                let Event::Connected { conn, resumed } = step.event else {
                    return Err("nobody answered".into());
                };
                let conn = &self.conns[&conn];
                ensure!(conn.peer == *peer && conn.resume && !resumed, "it was not asked for");
                Ok(())
            }
            Notice::Suspected { peer, conn, silence, .. } => {
                self.counted.suspected += 1;
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                ensure!(record.stage == Stage::Up && record.peer == *peer, "not up");
                ensure!(!record.suspected, "it is suspected already");
                let heard = self.now.since(record.last_heard);
                ensure!(*silence == heard, "silent for {heard:?}");
                ensure!(record.doubted, "it was not doubted before");
                let (breaker, amid_many) = (record.breaker, record.amid_many);
                let checked = record.last_heard < self.renewed_at;
                let judged_from = record.last_heard.max(self.up_at);
                let health = self.profile(&self.peers[peer]).health;
                ensure!(self.now >= self.hold_until, "suspects while judgement holds");
                ensure!(!self.down, "suspects without a network");
                let long = match (health.signs, health.detector) {
                    (Signs::Unmonitored, _) => false,
                    (Signs::Heartbeats, Detector::Deadline(span)) => judged_from + span <= self.now,
                    (Signs::Pings(pings), Detector::Deadline(span)) => {
                        let shortest = if checked { CHECK } else { pings.timeout };
                        judged_from + span <= self.now
                            || heard >= shortest.min(pings.timeout) * pings.unhealthy_threshold
                    }
                    (_, Detector::Phi(phi)) => judged_from + phi.acceptable_pause <= self.now,
                };
                ensure!(long, "not silent for long");
                let is_mass = breaker.is_some_and(|breaker| self.is_mass(breaker));
                if let Some(breaker) = breaker.filter(|_| is_mass || amid_many) {
                    // Whoever is silent among many has twice as long, unless it was true just now,
                    // be it of one that was waited for until the others had spoken.
                    let believe_for = self.config.mass_guard.unwrap().believe_for;
                    let now = self.now;
                    let record = self.breakers.get_mut(&breaker).unwrap();
                    let believed = record.believed.replace(now);
                    let believed = believed.is_some_and(|at| now < at + believe_for);
                    if let (true, Signs::Heartbeats, Detector::Deadline(span)) =
                        (is_mass, health.signs, health.detector)
                    {
                        ensure!(believed || heard >= 2 * span, "suspected among many at once");
                    }
                }
                let record = self.conns.get_mut(conn).unwrap();
                (record.suspected, record.doubted) = (true, false);
                Ok(())
            }
            Notice::Doubted { peer, conn, silence } => {
                self.counted.doubted += 1;
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                ensure!(record.stage == Stage::Up && record.peer == *peer, "not up");
                ensure!(!record.doubted && !record.suspected, "it is doubted already");
                ensure!(*silence == self.now.since(record.last_heard), "not so silent");
                ensure!(self.now >= self.hold_until && !self.down, "judged while nothing is");
                record.doubted = true;
                Ok(())
            }
            Notice::Trusted { conn, .. } => {
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                let back = record.last_heard < self.up_at;
                ensure!(record.doubted && (record.last_heard == self.now || back), "why");
                (record.doubted, record.amid_many) = (false, false);
                Ok(())
            }
            Notice::MassSuspicion { breaker, silent, connected } => {
                self.counted.mass_suspicions += 1;
                let counted = self.crowd(*breaker);
                ensure!(counted == (*silent, *connected), "counted {counted:?}");
                ensure!(self.is_mass(*breaker), "these are not many");
                Ok(())
            }
            Notice::SelfHealth { score } => {
                ensure!(*score == self.self_health(), "it is {}", self.self_health());
                ensure!(*score != self.told_self_health, "it was told");
                self.counted.self_doubts += u64::from(*score > self.told_self_health);
                self.told_self_health = *score;
                Ok(())
            }
            Notice::Cleared { conn, .. } => {
                self.counted.cleared += 1;
                let record = self.conns.get_mut(conn).ok_or("no such connection")?;
                ensure!(record.suspected && record.last_heard == self.now, "nothing to clear");
                record.suspected = false;
                Ok(())
            }
            Notice::Draining { conn, .. } => {
                let told = matches!(step.event, Event::GoAway { conn: told, .. } if told == *conn);
                ensure!(told, "it did not say so");
                Ok(())
            }
            Notice::Moved { peer, cause, .. } => {
                *of_move(&mut self.counted.moves, *cause) += 1;
                let Event::Connected { conn, .. } = step.event else {
                    return Err("nothing came up".into());
                };
                ensure!(self.peers[peer].conn == Some(conn), "it is not the peer's");
                Ok(())
            }
            Notice::Degraded { .. } | Notice::Recovered { .. } => Ok(()),
            Notice::Breaker { breaker, from, to } => {
                let (now, down) = (self.now, self.down);
                let overdue = self.overdue_probes(*breaker);
                let record = self.breakers.get_mut(breaker).ok_or("no such breaker")?;
                let config = &self.config.breaker_profiles[record.profile].breaker;
                let tolerate = config.tolerate;
                ensure!(record.state == *from, "it was {:?}", record.state);
                match (*from, *to, record.due.take()) {
                    (State::Open { until }, State::HalfOpen, None) => {
                        ensure!(until <= now && !down, "half-open before {until}");
                    }
                    // A probe's own timeout may come just before its dial's.
                    (State::HalfOpen, State::Open { .. }, None) => {
                        let failed = record.failures + overdue;
                        ensure!(failed > tolerate, "{failed} probes failed");
                    }
                    (_, to, Some(due)) => ensure!(kind(to) == due, "should be {due}"),
                    (_, _, None) => return Err("for no reason".into()),
                }
                if let State::Open { until } = to {
                    ensure!(*until >= now, "open until the past");
                    let longest = config.max_retry_after;
                    let asked = record.asked.take().unwrap_or_default().min(longest);
                    ensure!(until.since(now) >= asked, "asked for {asked:?}");
                }
                let by_order =
                    matches!(step.event, Event::ResetBreaker { breaker: it } if it == *breaker);
                let ramps = (*from, *to) == (State::HalfOpen, State::Closed) && !by_order;
                record.ramp_from = (ramps && config.ramp_for.is_some()).then_some(now);
                record.state = *to;
                // A reset has raised the generation already; once more does not matter, since
                // nothing can have been dialed in between.
                record.generation += 1;
                (record.run, record.successes, record.failures) = (0, 0, 0);
                Ok(())
            }
            Notice::Load { relaxed } => {
                ensure!(*relaxed == self.relaxed, "load {}", self.smoothed);
                Ok(())
            }
            Notice::Slept { late, hold_until } => {
                self.counted.slept += 1;
                let promised = self.promised.ok_or("nothing was promised")?;
                ensure!(*late == self.now.since(promised), "promised {promised}");
                let held = self.now + (*late).min(self.config.sleep.max_hold);
                let held = self.hold_until.max(held);
                // A network that comes back in the same step holds too.
                ensure!(*hold_until <= held, "holds until {held}");
                self.hold_until = held;
                if self.now >= self.late_from {
                    self.lateness = ((self.self_health() + 1).min(7), self.now);
                    self.late_from = self.now + Duration::from_secs(1);
                }
                Ok(())
            }
            Notice::Ignored(
                Ignored::StaleConn(_) | Ignored::StalePing(_) | Ignored::StaleAttempt(_),
            ) => {
                self.counted.stale += 1;
                Ok(())
            }
            Notice::Ignored(_) => {
                self.counted.ignored += 1;
                Ok(())
            }
            Notice::CommonRefusal { breaker, cause } => {
                let due = self.common_due.take();
                ensure!(due == Some((*breaker, *cause)), "due is {due:?}");
                Ok(())
            }
            Notice::WatchOnly { breaker, on } => {
                let asked = Event::WatchOnly { breaker: *breaker, on: *on };
                ensure!(step.event == asked, "nobody asked");
                Ok(())
            }
            other => self.take_call_notice(other),
        }
    }
}

fn of_move(counts: &mut Moves, cause: MoveCause) -> &mut u64 {
    match cause {
        MoveCause::FailedBack => &mut counts.failed_back,
        MoveCause::Drained => &mut counts.drained,
        MoveCause::Raced => &mut counts.raced,
    }
}
