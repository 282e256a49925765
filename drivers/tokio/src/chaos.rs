//! A transport that makes trouble, for tests of one's own: dials that fail or hang, connections
//! that die or fall silent.
//!
//! ```text
//! dial:        delay ──▶ refused │ hangs │ fails by a cause │ the inner transport's own answer
//! connection:  ──── speaks ──── silent (half-open: no sign of life, no end) ────
//!              └──────────────── its life ────────────────┘ then lost by a cause
//! ```
//!
//! What happens to the n-th dial of a peer, and to the connection that comes of it, is a pure
//! function of the seed, the peer and n. So a test under tokio's paused clock repeats, and what one
//! peer does changes nothing for another. By hand, an outage is staged with a [`Control`].
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use steadfast_tokio::chaos::{Chaos, ChaosConfig};
//! use steadfast_tokio::steadfast::Ratio;
//! use steadfast_tokio::tcp::Tcp;
//! use steadfast_tokio::{Builder, LossCause};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let minute = Duration::from_secs(60);
//! let chaos = Chaos::new(Tcp::pinging("PING\r\n"), 7, ChaosConfig {
//!     refused: Ratio::percent(20),
//!     life: Some(minute..=10 * minute),
//!     ..ChaosConfig::default()
//! })?;
//! let control = chaos.control();
//! let handle = Builder::new(chaos).start()?;
//! // … breakers, peers, calls; then an outage:
//! control.refuse(true);
//! control.cut_all(LossCause::Reset);
//! # let _ = handle;
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steadfast::draw::{Draws, Purpose, uniform};
use steadfast::{ConfigError, DialCause, LossCause, PeerId, Ratio};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::link::Link;
use crate::transport::{Dial, DialError, Established, Transport};

/// What happens, and how often; by default nothing does.
///
/// Spans are drawn uniformly from their ranges, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChaosConfig {
    /// The share of dials that are refused.
    pub refused: Ratio,
    /// The share of dials that never answer.
    pub hung: Ratio,
    /// The share of dials that fail by [`failed_by`](Self::failed_by); the three together are at
    /// most 1.
    pub failed: Ratio,
    /// How those fail; [`DialCause::Unreachable`].
    pub failed_by: DialCause,
    /// How long a dial takes before any of this, or the inner transport's own dial, begins; 0.
    pub dial_delay: RangeInclusive<Duration>,
    /// How long connections live; `None`: as long as the inner transport's do.
    pub life: Option<RangeInclusive<Duration>>,
    /// How they are lost then; [`LossCause::Reset`].
    pub lost_by: LossCause,
    /// The share of connections that fall silent: no ping returns, nothing is heard, and their end
    /// is not seen.
    pub silent: Ratio,
    /// After how long those do; 0.
    pub silent_after: RangeInclusive<Duration>,
    /// How long each ping is held back; 0.
    pub ping_delay: RangeInclusive<Duration>,
}

impl Default for ChaosConfig {
    fn default() -> Self {
        let never = Ratio::new(0, 1);
        let at_once = Duration::ZERO..=Duration::ZERO;
        Self {
            refused: never,
            hung: never,
            failed: never,
            failed_by: DialCause::Unreachable,
            dial_delay: at_once.clone(),
            life: None,
            lost_by: LossCause::Reset,
            silent: never,
            silent_after: at_once.clone(),
            ping_delay: at_once,
        }
    }
}

/// Shares are drawn as parts of it.
const MILLION: u64 = 1_000_000;

impl ChaosConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let shares = [
            ("refused", self.refused),
            ("hung", self.hung),
            ("failed", self.failed),
            ("silent", self.silent),
        ];
        for (field, share) in shares {
            if share.denominator == 0 || share.numerator > share.denominator {
                return Err(ConfigError::new(field, format!("is {share}, must be from 0 to 1")));
            }
        }
        let dials = [self.refused, self.hung, self.failed].map(|share| share.of(MILLION));
        if dials.iter().sum::<u64>() > MILLION {
            return Err(ConfigError::new("failed", "is more than 1, with refused and hung"));
        }
        let ranges = [
            ("dial_delay", Some(&self.dial_delay)),
            ("life", self.life.as_ref()),
            ("silent_after", Some(&self.silent_after)),
            ("ping_delay", Some(&self.ping_delay)),
        ];
        for (field, range) in ranges {
            if let Some(range) = range.filter(|range| range.is_empty()) {
                return Err(ConfigError::new(field, format!("is {range:?}, which is empty")));
            }
        }
        Ok(())
    }
}

/// What something is drawn for.
#[derive(Clone, Copy)]
enum What {
    DialDelay,
    Dial,
    Life,
    Silent,
    SilentAfter,
    PingDelay,
}

/// The draws of one dial of one peer.
#[derive(Clone, Copy)]
struct Dice {
    draws: Draws,
    dial: u64,
}

impl Dice {
    fn new(seed: u64, peer: PeerId, dial: u64) -> Self {
        // Not what the manager draws its jitter from, should both be given the same seed.
        const APART: u64 = 0x6368_616f_7331_7365;
        Self { draws: Draws::new(seed ^ APART, peer.0), dial }
    }

    /// `nth`: which of several of the same dial, below 2²⁴.
    fn draw(self, what: What, nth: u64) -> u64 {
        let n = self.dial << 32 | nth << 8 | what as u64;
        self.draws.draw(Purpose::Backoff, n)
    }

    fn share(self, what: What) -> u64 {
        uniform(self.draw(what, 0), 0, MILLION - 1)
    }

    fn span(self, what: What, nth: u64, range: &RangeInclusive<Duration>) -> Duration {
        let nanos = |span: &Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(uniform(
            self.draw(what, nth),
            nanos(range.start()),
            nanos(range.end()),
        ))
    }
}

/// What is ordered by hand.
#[derive(Clone, Copy, Debug)]
struct Orders {
    refuse: bool,
    silent: bool,
    cuts: u64,
    cut_by: LossCause,
}

struct Shared {
    seed: u64,
    config: Mutex<Arc<ChaosConfig>>,
    /// How often each peer was dialed.
    dials: Mutex<BTreeMap<PeerId, u64>>,
    orders: watch::Sender<Orders>,
}

impl Shared {
    fn config(&self) -> Arc<ChaosConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn next_dial(&self, peer: PeerId) -> Dice {
        let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        let dial = dials.entry(peer).or_default();
        *dial += 1;
        Dice::new(self.seed, peer, *dial)
    }
}

/// A transport under which things go wrong.
pub struct Chaos<T> {
    inner: T,
    shared: Arc<Shared>,
}

impl<T: Transport> Chaos<T> {
    /// Wraps a transport.
    ///
    /// # Errors
    ///
    /// A share that is not from 0 to 1, or a range whose end is before its start.
    pub fn new(inner: T, seed: u64, config: ChaosConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let orders = Orders { refuse: false, silent: false, cuts: 0, cut_by: LossCause::Reset };
        let shared = Shared {
            seed,
            config: Mutex::new(Arc::new(config)),
            dials: Mutex::default(),
            orders: watch::Sender::new(orders),
        };
        Ok(Self { inner, shared: Arc::new(shared) })
    }

    /// What outages are staged with.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { shared: Arc::clone(&self.shared) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Chaos<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// The switch of a [`Chaos`], cheap to clone.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    /// From now on this happens, to dials that begin and to the connections that come of them.
    ///
    /// # Errors
    ///
    /// As for [`Chaos::new`]; then nothing changes.
    pub fn set(&self, config: ChaosConfig) -> Result<(), ConfigError> {
        config.check()?;
        *self.shared.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    /// Ends all connections there are now, silent ones too.
    pub fn cut_all(&self, cause: LossCause) {
        self.shared.orders.send_modify(|orders| {
            orders.cuts += 1;
            orders.cut_by = cause;
        });
    }

    /// All connections are silent from now on, or those that did not fall silent by themselves
    /// speak again: an end that was not seen in between is seen then.
    pub fn silence_all(&self, silent: bool) {
        self.shared.orders.send_modify(|orders| orders.silent = silent);
    }

    /// All dials are refused from now on, or no longer.
    pub fn refuse(&self, refuse: bool) {
        self.shared.orders.send_modify(|orders| orders.refuse = refuse);
    }

    /// A connection that was made elsewhere, for [`Handle::accept`](crate::Handle::accept): it obeys
    /// this switch, and nothing is drawn for it.
    pub fn wrap<C>(&self, connection: C) -> Connection<C> {
        Connection::new(&self.shared, connection)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("orders", &*self.shared.orders.borrow()).finish()
    }
}

/// The inner transport's connection, which may fall silent.
///
/// What the program itself sends over it is left alone; a test whose requests should vanish too asks
/// [`is_silent`](Self::is_silent).
pub struct Connection<C> {
    inner: Arc<C>,
    shared: Arc<Shared>,
    /// The cuts before it was made.
    cuts: u64,
    ends: Option<(Instant, LossCause)>,
    silent_from: Option<Instant>,
    pings: Option<(Dice, RangeInclusive<Duration>)>,
    pinged: AtomicU64,
}

impl<C> Connection<C> {
    fn new(shared: &Arc<Shared>, inner: C) -> Self {
        Self {
            inner: Arc::new(inner),
            shared: Arc::clone(shared),
            cuts: shared.orders.borrow().cuts,
            ends: None,
            silent_from: None,
            pings: None,
            pinged: AtomicU64::new(0),
        }
    }

    fn drawn(mut self, dice: Dice, config: &ChaosConfig) -> Self {
        let now = Instant::now();
        let life = config.life.as_ref().map(|range| dice.span(What::Life, 0, range));
        self.ends = life.and_then(|life| Some((now.checked_add(life)?, config.lost_by)));
        if dice.share(What::Silent) < config.silent.of(MILLION) {
            let after = dice.span(What::SilentAfter, 0, &config.silent_after);
            self.silent_from = now.checked_add(after);
        }
        self.pings = Some((dice, config.ping_delay.clone()));
        self
    }

    /// Whether its signs of life vanish.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.shared.orders.borrow().silent
            || self.silent_from.is_some_and(|from| from <= Instant::now())
    }

    /// Returns when it is not silent, which for one that fell silent by itself is never.
    async fn speaks(&self) {
        let mut orders = self.shared.orders.subscribe();
        while self.is_silent() {
            // The sender is ours.
            let _ = orders.changed().await;
        }
    }

    /// Returns when it is cut by hand.
    async fn cut(&self) -> LossCause {
        let mut orders = self.shared.orders.subscribe();
        loop {
            let Orders { cuts, cut_by, .. } = *orders.borrow_and_update();
            if cuts > self.cuts {
                return cut_by;
            }
            let _ = orders.changed().await;
        }
    }

    /// Returns at the end of its drawn life.
    async fn dies(&self) -> LossCause {
        let Some((at, cause)) = self.ends else { return std::future::pending().await };
        tokio::time::sleep_until(at).await;
        cause
    }

    fn ping_delay(&self) -> Duration {
        let Some((dice, range)) = &self.pings else { return Duration::ZERO };
        dice.span(What::PingDelay, self.pinged.fetch_add(1, Ordering::Relaxed), range)
    }
}

impl<C> Deref for Connection<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.inner
    }
}

impl<C: fmt::Debug> fmt::Debug for Connection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("inner", &self.inner)
            .field("silent", &self.is_silent())
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Transport for Chaos<T> {
    type Address = T::Address;
    type Connection = Connection<T::Connection>;

    async fn connect(
        &self,
        dial: Dial<T::Address>,
    ) -> Result<Established<Self::Connection>, DialError> {
        let config = self.shared.config();
        let dice = self.shared.next_dial(dial.peer);
        wait(dice.span(What::DialDelay, 0, &config.dial_delay)).await;
        if self.shared.orders.borrow().refuse {
            return Err(DialError::new(DialCause::Refused));
        }
        let fate = dice.share(What::Dial);
        let refused = config.refused.of(MILLION);
        let hung = refused + config.hung.of(MILLION);
        let failed = hung + config.failed.of(MILLION);
        if fate < refused {
            return Err(DialError::new(DialCause::Refused));
        }
        if fate < hung {
            return std::future::pending().await;
        }
        if fate < failed {
            return Err(DialError::new(config.failed_by));
        }
        let Established { connection, resumed } = self.inner.connect(dial).await?;
        let connection = Connection::new(&self.shared, connection).drawn(dice, &config);
        Ok(Established { connection, resumed })
    }

    async fn run(&self, connection: Arc<Self::Connection>, link: Link) -> LossCause {
        let muted = Arc::clone(&connection);
        let link = link.only_while(move || !muted.is_silent());
        let ends = async {
            let cause = tokio::select! {
                biased;
                cause = connection.dies() => cause,
                cause = self.inner.run(Arc::clone(&connection.inner), link) => cause,
            };
            connection.speaks().await;
            cause
        };
        tokio::select! {
            biased;
            cause = connection.cut() => cause,
            cause = ends => cause,
        }
    }

    async fn ping(&self, connection: Arc<Self::Connection>) -> Result<(), LossCause> {
        wait(connection.ping_delay()).await;
        connection.speaks().await;
        let answer = self.inner.ping(Arc::clone(&connection.inner)).await;
        connection.speaks().await;
        answer
    }

    async fn close(&self, connection: Arc<Self::Connection>) {
        self.inner.close(Arc::clone(&connection.inner)).await;
    }
}

/// A sleep of nothing would still be a millisecond, tokio's granularity.
async fn wait(span: Duration) {
    if span > Duration::ZERO {
        tokio::time::sleep(span).await;
    }
}
