//! A board's loop: one radio, one link, no operating system; `no_std`, with `alloc` for the manager.
//!
//! The hardware is two traits, a [`Counter`] that ticks and wakes and a [`Radio`]. The loop is
//! [`Station::turn`]: sleep until the deadline or an interrupt, feed what the radio has, tick.
//!
//! The program beside this library plays the hardware in virtual time, and has the link fall silent:
//!
//! ```console
//! $ cargo run -p steadfast-bare
//! ```
//!
//! That the core and this loop need no `std` is checked by `tests/no_std`, which links both.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use steadfast::backoff::BackoffConfig;
use steadfast::config::{HealthConfig, PeerProfile, Signs};
use steadfast::probe::ProbeConfig;
use steadfast::{
    Action, Breach, BreakerId, BreakerProfileId, Config, ConfigError, ConnId, DialCause, Endpoint,
    EndpointId, Event, Ledger, LossCause, Manager, Notice, PeerId, PeerProfileId, PingId, Time,
};

/// A counter that runs for ever and wraps, with a compare interrupt.
pub trait Counter {
    /// Ticks per second.
    const HZ: u32;

    /// What it stands at.
    fn ticks(&self) -> u32;

    /// Sleeps for so many ticks, or until any interrupt (`wfi`).
    fn wait(&mut self, ticks: u32);
}

/// A radio with one access point in range, or none.
pub trait Radio {
    /// Begins to associate.
    fn associate(&mut self);

    /// Ends the association, or the attempt at one. What it had still to say is forgotten.
    fn leave(&mut self);

    /// Sends a number that the other side sends back.
    fn ping(&mut self, number: u64);

    /// What has happened, one thing at a time; `None` when that was all.
    fn poll(&mut self) -> Option<Signal>;
}

/// What the radio has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The association stands.
    Associated,
    /// There was nobody, or it was refused.
    Refused,
    /// The access point ended it.
    Gone,
    /// A ping came back.
    Pong(u64),
}

/// Why a station could not be built, or must stop.
#[derive(Debug)]
pub enum Fault {
    /// A setting is refused.
    Config(ConfigError),
    /// This loop broke the manager's contract.
    Breach(Breach),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Breach(breach) => breach.fmt(f),
        }
    }
}

impl core::error::Error for Fault {}

const PEER: PeerId = PeerId(1);
const BREAKER: BreakerId = BreakerId(1);

/// The board's program.
#[derive(Debug)]
pub struct Station<C, R> {
    counter: C,
    radio: R,
    manager: Manager,
    ledger: Ledger,
    /// What the radio is about, dialing or up.
    conn: Option<ConnId>,
    /// Ticks since the start, of which the counter shows the lower half.
    ticks: u64,
    /// What the manager is fed next: signs of life, or one other event. Kept, as are the actions, so
    /// that a step need not allocate.
    batch: Vec<Event>,
    actions: Vec<Action>,
}

impl<C: Counter, R: Radio> Station<C, R> {
    /// A station that wants its link.
    ///
    /// `seed`: different on each board, from its serial number or a noise source.
    ///
    /// # Errors
    ///
    /// A setting that is refused.
    pub fn new(counter: C, radio: R, seed: u64) -> Result<Self, Fault> {
        let mut config = Config::new(seed);
        config.peer_profiles = vec![PeerProfile {
            backoff: BackoffConfig { cap: Duration::from_secs(30), ..BackoffConfig::default() },
            health: HealthConfig {
                signs: Signs::Pings(ProbeConfig {
                    interval: Duration::from_secs(5),
                    timeout: Duration::from_secs(1),
                    ..ProbeConfig::default()
                }),
                ..HealthConfig::default()
            },
            ..PeerProfile::default()
        }];
        // Nobody else chooses ids here, so the key of the id tables need not be a secret.
        let manager = Manager::new(config, seed).map_err(Fault::Config)?;
        let ticks = u64::from(counter.ticks());
        let (ledger, batch, actions) =
            (Ledger::new(), Vec::with_capacity(8), Vec::with_capacity(8));
        let mut station =
            Self { counter, radio, manager, ledger, conn: None, ticks, batch, actions };
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker: BREAKER }];
        for event in [
            Event::AddBreaker { breaker: BREAKER, profile: BreakerProfileId(0) },
            Event::AddPeer { peer: PEER, profile: PeerProfileId(0), endpoints },
            Event::Connect { peer: PEER },
        ] {
            station.step(event, station.time(), &mut |_, _| ()).map_err(Fault::Breach)?;
        }
        Ok(station)
    }

    /// Sleeps until something is due or has happened, then does what there is to do. A board calls
    /// it for ever.
    ///
    /// `log`: takes each notice, for a serial line.
    ///
    /// # Errors
    ///
    /// This loop has broken the manager's contract.
    pub fn turn(&mut self, mut log: impl FnMut(Time, &Notice)) -> Result<(), Fault> {
        self.counter.wait(self.ticks_to_sleep());
        self.ticks += u64::from(self.counter.ticks().wrapping_sub(low_half(self.ticks)));
        let now = self.time(); // once for all of one wake-up
        while let Some(signal) = self.radio.poll() {
            if !matches!(signal, Signal::Pong(_)) {
                self.hand_over(now, &mut log).map_err(Fault::Breach)?; // which may end the link
            }
            match self.meaning_of(signal) {
                Some(pong @ Event::Pong { .. }) => self.batch.push(pong),
                Some(event) => self.step(event, now, &mut log).map_err(Fault::Breach)?,
                None => {}
            }
        }
        self.step(Event::Tick, now, &mut log).map_err(Fault::Breach)
    }

    /// Whether there is a link now.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.manager.stats().peers.connected == 1
    }

    /// The counter's moment, rounded down to a nanosecond.
    #[must_use]
    pub fn time(&self) -> Time {
        let nanos = u128::from(self.ticks) * 1_000_000_000 / u128::from(C::HZ);
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Ticks until the deadline, rounded up: woken before it, there would be nothing to do.
    fn ticks_to_sleep(&self) -> u32 {
        let Some(due) = self.manager.next_deadline() else { return u32::MAX / 2 };
        let due_ticks = (u128::from(due.as_nanos()) * u128::from(C::HZ)).div_ceil(1_000_000_000);
        let ticks = due_ticks.saturating_sub(u128::from(self.ticks));
        // No longer than half a round of the counter, or a wrap would be missed.
        u32::try_from(ticks).unwrap_or(u32::MAX).min(u32::MAX / 2)
    }

    /// What a signal says about the connection that is alive; nothing if there is none.
    fn meaning_of(&mut self, signal: Signal) -> Option<Event> {
        let conn = self.conn?;
        Some(match signal {
            Signal::Associated => Event::Connected { conn, resumed: false },
            Signal::Pong(number) => Event::Pong { ping: PingId::from_raw(number) },
            Signal::Refused => {
                self.conn = None;
                Event::DialFailed { conn, cause: DialCause::Refused, retry_after: None }
            }
            Signal::Gone => {
                self.conn = None;
                Event::Lost { conn, cause: LossCause::Eof }
            }
        })
    }

    /// Any event may end the link; so nothing more is said until what follows from this one is
    /// carried out. Signs of life that were taken down go first.
    fn step(
        &mut self,
        event: Event,
        now: Time,
        log: &mut impl FnMut(Time, &Notice),
    ) -> Result<(), Breach> {
        self.batch.push(event);
        self.hand_over(now, log)
    }

    /// Feeds the manager what was taken down, all at once.
    fn hand_over(&mut self, now: Time, log: &mut impl FnMut(Time, &Notice)) -> Result<(), Breach> {
        let Some((last, before)) = self.batch.split_last() else { return Ok(()) };
        self.actions.clear();
        self.manager.step_batch(&self.batch, now, &mut self.actions);
        let deadline = self.manager.next_deadline();
        // All was said before any answer was known, and is judged so.
        for event in before {
            self.ledger.observe(event, &[], now, deadline)?;
        }
        self.ledger.observe(last, &self.actions, now, deadline)?;
        self.batch.clear();
        for action in &self.actions {
            match action {
                Action::Dial { conn, .. } => {
                    self.conn = Some(*conn);
                    self.radio.associate();
                }
                Action::CancelDial { conn } | Action::Close { conn } => {
                    if self.conn == Some(*conn) {
                        self.conn = None;
                        self.radio.leave();
                    }
                }
                Action::Ping { ping, .. } => self.radio.ping(ping.to_raw()),
                Action::Notice(notice) => log(now, notice),
                // One peer, which we dial, and no calls.
                Action::Adopt { .. }
                | Action::Refuse { .. }
                | Action::StartAttempt { .. }
                | Action::CancelAttempt { .. }
                | Action::Reject { .. }
                | Action::GiveUp { .. }
                | Action::Done { .. } => {}
            }
        }
        Ok(())
    }
}

/// What the counter stood at.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
const fn low_half(ticks: u64) -> u32 {
    ticks as u32
}
