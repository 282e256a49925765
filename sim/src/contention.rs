//! Clients that contend for one row: the model behind AWS's figures on backoff and jitter.
//!
//! A client reads the row's version, writes with it, and starts over after a backoff if somebody else
//! wrote in between. All start together, each stops after its first success; the fewer clients try at
//! once, the fewer fail. Every message takes a network delay of its own.
//!
//! Source: M. Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog 2015, and its simulator
//! (aws-samples/aws-arch-backoff-simulator).

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::backoff::{BackoffConfig, BackoffPolicy, Jitter};
use steadfast::draw::uniform;
use steadfast::{ConfigError, Time};
use toml::Spanned;

use crate::dist::Dist;
use crate::draws::{Draws, Purpose};
use crate::queue::{Queue, Rank, Tied};
use crate::units::Span;

/// Clients that contend for one row.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contention {
    /// How many.
    pub clients: Spanned<u32>,
    /// How chance spreads their backoff.
    pub jitter: ContentionJitter,
    /// What doubles with each failure, the first included.
    pub base: Span,
    /// What no backoff exceeds.
    pub cap: Spanned<Span>,
    /// What each message takes.
    pub latency: Dist,
}

/// The kinds of backoff, in the words of the article.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum ContentionJitter {
    /// No backoff at all.
    None,
    /// A backoff without jitter.
    Exponential,
    /// Half of it fixed.
    EqualJitter,
    /// Anything up to it.
    FullJitter,
    /// min(cap, U(base, 3·previous)): the interval passes the cap and is clipped there. The core's
    /// own decorrelated form bounds the interval instead.
    Decorr,
}

/// What a run measures.
pub(crate) const FIGURES: [&str; 2] = ["elapsed", "writes"];

/// What became of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contended {
    /// When the last client had its answer.
    pub(crate) time_ns: u64,
    /// How many writes there were.
    pub(crate) writes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Message {
    Read { client: usize },
    Version { client: usize, version: u64 },
    Write { client: usize, version: u64 },
    Written { client: usize, well: bool },
}

impl Tied for Message {}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    messages: u64,
    failures: u32,
    previous: Duration,
}

/// The backoff of one kind: the core's leaf, but for the form that it does not have.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Nothing,
    Core(BackoffPolicy),
    Clipped { base_ns: u64, cap_ns: u64 },
}

impl Wait {
    fn new(contention: &Contention) -> Result<Self, ConfigError> {
        let jitter = match contention.jitter {
            ContentionJitter::None => return Ok(Self::Nothing),
            ContentionJitter::Decorr => {
                let (base_ns, cap_ns) =
                    (contention.base.as_nanos(), contention.cap.get_ref().as_nanos());
                return Ok(Self::Clipped { base_ns, cap_ns });
            }
            ContentionJitter::Exponential => Jitter::None,
            ContentionJitter::EqualJitter => Jitter::Equal,
            ContentionJitter::FullJitter => Jitter::Full,
        };
        let config = BackoffConfig {
            base: contention.base.into(),
            cap: (*contention.cap.get_ref()).into(),
            min_delay: Some(Duration::ZERO),
            jitter,
            ..BackoffConfig::default()
        };
        config.validate().map(Self::Core)
    }

    /// The wait after that many failures; the first one is doubled already.
    fn after(&self, failures: u32, previous: Duration, random: u64) -> Duration {
        match *self {
            Self::Nothing => Duration::ZERO,
            Self::Core(policy) => policy.jittered(failures, previous, random),
            Self::Clipped { base_ns, cap_ns } => {
                let previous = u64::try_from(previous.as_nanos()).unwrap_or(u64::MAX);
                let high = previous.max(base_ns).saturating_mul(3);
                Duration::from_nanos(uniform(random, base_ns, high).min(cap_ns))
            }
        }
    }
}

impl Contention {
    /// What is wrong with it, if anything, and where.
    pub(crate) fn problem(&self) -> Option<(String, Range<usize>)> {
        if !(1..=100_000).contains(self.clients.get_ref()) {
            let problem = format!("{} clients, from 1 to 100000", self.clients.get_ref());
            return Some((problem, self.clients.span()));
        }
        Wait::new(self).err().map(|error| (error.to_string(), self.cap.span()))
    }

    /// One run. The settings were checked.
    pub(crate) fn run(&self, seed: u64) -> Contended {
        let Ok(wait) = Wait::new(self) else { return Contended { time_ns: 0, writes: 0 } };
        let draws = Draws::new(seed);
        let count = usize::try_from(*self.clients.get_ref()).unwrap_or(0);
        let mut clients = vec![Client::default(); count];
        let mut queue = Queue::new(None);
        let delay = |client: usize, state: &mut Client| {
            state.messages += 1;
            let who = u64::try_from(client).unwrap_or(0);
            self.latency.sample(&mut draws.generator(Purpose::Contention, who, state.messages))
        };
        for (client, state) in clients.iter_mut().enumerate() {
            let at = Time::from_nanos(delay(client, state).as_nanos());
            queue.push(at, Rank::World, Message::Read { client });
        }
        let (mut now, mut version, mut writes) = (Time::ZERO, 0, 0);
        while let Some((at, message)) = queue.pop() {
            now = at;
            let (client, next, extra) = match message {
                Message::Read { client } => {
                    (client, Message::Version { client, version }, Duration::ZERO)
                }
                Message::Version { client, version } => {
                    (client, Message::Write { client, version }, Duration::ZERO)
                }
                Message::Write { client, version: seen } => {
                    writes += 1;
                    let well = seen == version;
                    version += u64::from(well);
                    (client, Message::Written { client, well }, Duration::ZERO)
                }
                Message::Written { well: true, .. } => continue,
                Message::Written { client, well: false } => {
                    let Some(state) = clients.get_mut(client) else { continue };
                    state.failures += 1;
                    let who = u64::try_from(client).unwrap_or(0);
                    let n = u64::from(state.failures);
                    let random = draws.draw(Purpose::ContentionBackoff, who, n);
                    state.previous = wait.after(state.failures, state.previous, random);
                    (client, Message::Read { client }, state.previous)
                }
            };
            let Some(state) = clients.get_mut(client) else { continue };
            let at = now + extra + delay(client, state).into();
            queue.push(at, Rank::World, next);
        }
        Contended { time_ns: now.as_nanos(), writes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contention(clients: u32, jitter: ContentionJitter) -> Contention {
        Contention {
            clients: Spanned::new(0..0, clients),
            jitter,
            base: "5ms".parse().unwrap(),
            cap: Spanned::new(0..0, "2s".parse().unwrap()),
            latency: "10ms".parse().unwrap(),
        }
    }

    #[test]
    fn one_client_reads_and_writes_once() {
        let run = contention(1, ContentionJitter::FullJitter).run(1);
        assert_eq!(run, Contended { time_ns: 40_000_000, writes: 1 });
    }

    #[test]
    fn two_in_step_without_jitter_need_three_writes() {
        // Both write at 30 ms; the loser hears of it at 40, waits 10 and needs 40 more.
        let run = contention(2, ContentionJitter::Exponential).run(1);
        assert_eq!(run, Contended { time_ns: 90_000_000, writes: 3 });
        let run = contention(2, ContentionJitter::None).run(1);
        assert_eq!(run, Contended { time_ns: 80_000_000, writes: 3 });
    }

    #[test]
    fn the_clipped_form_piles_up_at_its_cap() {
        let wait = Wait::new(&contention(1, ContentionJitter::Decorr)).unwrap();
        let cap = Duration::from_secs(2);
        assert_eq!(wait.after(9, cap, u64::MAX / 2), cap);
        assert!(wait.after(9, cap, u64::MAX / 4) < cap);
        assert_eq!(wait.after(1, Duration::ZERO, u64::MAX), Duration::from_millis(15));
    }
}
