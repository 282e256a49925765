//! By when each peer must be up again, derived from the policy and the world, term by term.
//!
//! ```text
//! found    how long a dead connection may go unnoticed, where one can die in silence, and what a slow
//!          link still holds
//! backoff  the longest wait that may be left, or the spread of a mass loss if that is wider
//! open     the breaker's longest interval: the one that the heal falls into, and another one after
//!          a probe that was caught in the outage
//! dial     a dial that hangs at the heal, one for each endpoint before a good one, and a probe
//! hung     the turns of those whose dials hang at what is silent for ever, where few may be in flight
//! line     all who may stand before: their turns at the server, or round trips of a window that
//!          grows from one; with what the server still has in its queue
//! ```
//!
//! A fault that never heals takes its endpoint out of all this, but for the dials that it costs: who
//! has no other is not waited for, nor who stands with it behind one breaker.
//!
//! Where dials are lost for good on the way there is no such bound but for a share of the seeds;
//! where connections can die in silence and nobody listens, there is none at all.

use std::time::Duration;

use steadfast::Ratio;
use steadfast::config::{BreakerProfile, Detector, FirstRetry, PeerProfile, Signs};
use steadfast::phi::Phi;

use super::{Group, Plan, Trouble, Way};
use crate::scenario::{BreakerScope, Direction};
use crate::tally::Bound;
use crate::units::Span;

/// What the most patient phi detector waits, in its first estimates: its own learn at most twice the
/// mean and the deviation.
const LEARNED: u32 = 2;

impl Plan {
    /// By when after the heal each peer of the group must be up, term by term; `None` where nothing
    /// promises it.
    pub(crate) fn liveness(&self, group: &Group) -> Option<Bound> {
        let lossy =
            |way: &Way| self.links.get(way.link).is_some_and(|link| link.loss.as_f64() > 0.0);
        if group.trace.is_some() || group.ways.is_empty() || group.ways.iter().any(lossy) {
            return None;
        }
        let broken = group.ways.iter().filter(|way| self.is_gone(way)).count();
        // Failures there open the breaker for everybody, time and again.
        let shared = broken > 0 && !matches!(group.scope, BreakerScope::PerEndpoint);
        if broken == group.ways.len() || shared {
            return None;
        }
        let guard = self.config.breaker_profiles.get(usize::from(group.breaker_profile.0))?;
        let profiles = (0..group.count).take(usize::from(group.profiles));
        let mut bound = Bound::default();
        for place in profiles {
            let profile = self.config.peer_profiles.get(usize::from(group.profile(place).0))?;
            for (name, span) in self.terms(group, profile, guard)? {
                bound.raise(name, span);
            }
        }
        Some(bound)
    }

    /// Whether nobody gets through there ever again.
    fn is_gone(&self, way: &Way) -> bool {
        self.faults.iter().filter(|fault| !fault.schedule.heals()).any(|fault| {
            match fault.trouble {
                Trouble::Partition(_) | Trouble::Cut => fault.on == way.link,
                _ => fault.on == way.server,
            }
        })
    }

    fn terms(
        &self,
        group: &Group,
        profile: &PeerProfile,
        guard: &BreakerProfile,
    ) -> Option<[(&'static str, Span); 6]> {
        if profile.max_attempts.is_some() || profile.give_up_after.is_some() {
            return None;
        }
        let ways = u32::try_from(group.ways.len()).unwrap_or(u32::MAX);
        let trips = guard.breaker.consecutive_failures.is_some() || guard.breaker.rates.is_some();
        let open = if trips { self.longest_open(&guard.breaker)? } else { Span::ZERO };
        let failovers = profile.failover_timeout.saturating_mul(ways.saturating_sub(1));
        let probe = if trips { profile.max_dial_timeout } else { Duration::ZERO };
        let dial = profile.max_dial_timeout.saturating_add(failovers).saturating_add(probe);
        let line = group.ways.iter().map(|way| self.line(way, guard)).max()?;
        Some([
            ("found", span(self.found(profile)?.saturating_add(self.news(group)))),
            ("backoff", span(self.longest_wait(profile, guard, ways))),
            ("open", Span::from_nanos(open.as_nanos().saturating_mul(2))),
            ("dial", span(dial)),
            ("hung", span(self.hung(ways, guard))),
            ("line", line),
        ])
    }

    /// How long others may take every place in flight with dials that nobody ever answers: each breaker
    /// in front of such a server has its turn between any two dials that somebody answers.
    fn hung(&self, ways: u32, guard: &BreakerProfile) -> Duration {
        let silent = |way: &Way| {
            self.faults.iter().filter(|fault| !fault.schedule.heals()).any(|fault| {
                match fault.trouble {
                    Trouble::Partition(_) => fault.on == way.link,
                    Trouble::Silent => fault.on == way.server,
                    _ => false,
                }
            })
        };
        let silent = self.groups.iter().flat_map(|group| &group.ways).filter(|way| silent(way));
        let silent = u32::try_from(silent.count()).unwrap_or(u32::MAX);
        if silent == 0 {
            return Duration::ZERO;
        }
        let own = guard.window.is_none().then_some(guard.max_in_flight);
        let limit = self.config.pacer.max_in_flight.min(own.unwrap_or(u32::MAX)).max(1);
        let managers = u32::try_from(self.managers).unwrap_or(u32::MAX).max(1);
        let dials = self.peers.div_ceil(managers).saturating_mul(ways);
        let turns = dials.saturating_mul(silent.saturating_add(1)).div_ceil(limit);
        let profiles = self.config.peer_profiles.iter();
        let longest = profiles.map(|profile| profile.max_dial_timeout).max().unwrap_or_default();
        longest.saturating_mul(turns.saturating_sub(1))
    }

    /// How long what was sent over a slow link may still be under way.
    fn news(&self, group: &Group) -> Duration {
        let of = |way: &Way| {
            let slow = self.faults.iter().filter(|fault| fault.on == way.link);
            let slow = slow.map(|fault| match fault.trouble {
                Trouble::Slow(latency) => latency.longest().into(),
                _ => Duration::ZERO,
            });
            slow.fold(Duration::ZERO, Duration::saturating_add)
        };
        group.ways.iter().map(of).max().unwrap_or_default()
    }

    /// How long a dead connection may go unnoticed.
    fn found(&self, profile: &PeerProfile) -> Option<Duration> {
        let silently = self.faults.iter().any(|fault| {
            matches!(
                fault.trouble,
                Trouble::Silent
                    | Trouble::Partition(_)
                    | Trouble::Churn(_)
                    | Trouble::Offline
                    | Trouble::Switch { .. }
            )
        });
        let nominal = match profile.health.detector {
            Detector::Deadline(deadline) => deadline,
            Detector::Phi(phi) => {
                let policy = phi.validate().ok()?;
                Phi::new(&policy).suspect_after(&policy).saturating_mul(LEARNED)
            }
        };
        let unheard = self
            .faults
            .iter()
            .any(|fault| fault.trouble == Trouble::Partition(Some(Direction::ToServer)));
        let nominal = match profile.health.signs {
            _ if !silently => return Some(Duration::ZERO),
            Signs::Unmonitored => return None,
            // Whoever only listens never learns that nobody hears him.
            Signs::Heartbeats if unheard => return None,
            Signs::Heartbeats => nominal,
            Signs::Pings(pings) => nominal.max(pings.validate().ok()?.detection_time()),
        };
        // While something speaks against ourselves.
        let stretch = self.config.self_health.map_or(Ratio::new(1, 1), |config| config.max_stretch);
        let patient = nominal.saturating_mul(stretch.numerator) / stretch.denominator;
        // Among many that fall silent at once it is asked again, for as long.
        let held = if self.config.mass_guard.is_some() { nominal } else { Duration::ZERO };
        Some(patient.saturating_add(held).saturating_add(self.config.sleep.max_hold))
    }

    /// The longest wait before a dial.
    fn longest_wait(&self, profile: &PeerProfile, guard: &BreakerProfile, ways: u32) -> Duration {
        let rejected = self.faults.iter().any(|fault| match fault.trouble {
            Trouble::Reject(cause) => cause.is_peer_specific(),
            _ => false,
        });
        let slower = if rejected { profile.slow_lane } else { 1 };
        let cap = profile.backoff.cap.saturating_mul(slower);
        let spread = match profile.first_retry {
            FirstRetry::Spread { max } => {
                let rate = guard.rate.or(self.config.pacer.rate).map(|told| told.rate);
                let rate = rate.unwrap_or(self.config.pacer.assumed_rate);
                let lost = self.peers.saturating_mul(self.config.pacer.fleet_size);
                (rate.per.saturating_mul(lost) / rate.count.max(1)).min(max)
            }
            FirstRetry::Backoff | FirstRetry::Immediate => Duration::ZERO,
        };
        let between = profile.attempt_delay.saturating_mul(ways.saturating_sub(1));
        cap.max(spread).saturating_add(between)
    }

    /// How long all who may stand before take.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a span in nanoseconds; the cast saturates"
    )]
    fn line(&self, way: &Way, guard: &BreakerProfile) -> Span {
        let before: u32 = self
            .groups
            .iter()
            .filter(|group| group.ways.iter().any(|other| other.server == way.server))
            .map(|group| group.count)
            .sum();
        let Some(server) = self.servers.get(way.server) else { return Span::ZERO };
        let link = self.links.get(way.link).cloned().unwrap_or_default();
        let trip = 2.0 * link.latency.mean().as_secs_f64() + server.service.mean().as_secs_f64();
        let last = 2.0 * link.latency.longest().as_secs_f64();
        let last = last + server.service.longest().as_secs_f64();
        let turn = server.turn.unwrap_or_default().as_secs_f64();
        // What hangs in the queue, and all who come.
        let turns = turn * (f64::from(before) + server.queue.min(before as usize) as f64);
        // A window that grows by one a round, until it is as wide as it may be.
        let per_manager = f64::from(before.div_ceil(u32::try_from(self.managers).unwrap_or(1)));
        let most = f64::from(guard.max_in_flight.min(self.config.pacer.max_in_flight).max(1));
        let growing = if guard.window.is_some() { libm::sqrt(2.0 * per_manager) } else { 0.0 };
        let rounds = growing.min(most) + per_manager / most + 1.0;
        let told = guard.rate.or(self.config.pacer.rate).map_or(0.0, |told| {
            f64::from(before) * told.rate.per.as_secs_f64() / f64::from(told.rate.count.max(1))
        });
        Span::from_nanos(((turns.max(told) + rounds * trip + last) * 1e9) as u64)
    }
}

fn span(span: Duration) -> Span {
    Span::from_nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}
