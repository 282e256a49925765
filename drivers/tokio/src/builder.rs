//! How a driver is put together and started.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use steadfast::config::{BreakerProfile, CallProfile, PeerProfile, Signs};
use steadfast::hedge::HedgeConfig;
use steadfast::probe::ProbeConfig;
use steadfast::{BreakerId, Config, Manager};
use tokio::runtime;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::core::Core;
use crate::divide::divide;
use crate::error::StartError;
use crate::handle::Handle;
use crate::inner::{Halt, Inner, ShardKey};
use crate::transport::Transport;

/// The configuration that a driver starts from.
///
/// As [`Config::new`], and: the peer profile `default` asks over a connection after ten seconds of
/// silence; the breaker profile `calls` guards calls, and `hedged` those that may be hedged, for
/// which it remembers how long answers take (16 KiB for each such breaker); the call profiles
/// `fail-fast`, `patient` and `hedged` are there beside `default`.
///
/// `seed`: what all jitter is drawn from; different in each process, see [`random_seed`].
#[must_use]
pub fn config(seed: u64) -> Config {
    let mut config = Config::new(seed);
    let mut peers = PeerProfile::default();
    peers.health.signs = Signs::Pings(ProbeConfig::default());
    config.peer_profiles = vec![peers];
    let calls = BreakerProfile::for_calls();
    let mut hedged = BreakerProfile { name: "hedged".to_owned(), ..calls.clone() };
    hedged.calls.hedge = Some(HedgeConfig::default());
    config.breaker_profiles.extend([calls, hedged]);
    let more = [CallProfile::fail_fast(), CallProfile::patient(), CallProfile::hedged()];
    config.call_profiles.extend(more);
    config
}

/// A number that no other process has, from the operating system.
#[must_use]
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(())
}

/// Puts a driver together; [`start`](Self::start) brings it to life.
pub struct Builder<T: Transport> {
    transport: T,
    config: Config,
    shards: usize,
    shard_by: Option<ShardKey>,
    close_timeout: Duration,
    max_unread_notices: usize,
    watched: bool,
    #[cfg(feature = "metrics")]
    name: Option<Arc<str>>,
    #[cfg(feature = "metrics")]
    metrics_every: Option<Duration>,
    #[cfg(feature = "recording")]
    record: Option<crate::record::Record>,
}

impl<T: Transport> Builder<T> {
    /// A driver over this transport, with [`config`] under a [`random_seed`].
    #[must_use]
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            config: config(random_seed()),
            shards: 1,
            shard_by: None,
            close_timeout: Duration::from_secs(5),
            max_unread_notices: 1_024,
            watched: cfg!(debug_assertions),
            #[cfg(feature = "metrics")]
            name: None,
            #[cfg(feature = "metrics")]
            metrics_every: None,
            #[cfg(feature = "recording")]
            record: None,
        }
    }

    /// All settings of the managers.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How many managers share the work, each behind a lock of its own; 1.
    ///
    /// One decides some millions of events a second, so more are for programs whose calls keep
    /// several cores busy. Breakers are dealt out by their ids, or [as told](Self::shard_by), and a
    /// peer is where the breakers of its endpoints are. What the configuration bounds over all
    /// breakers (dials in flight and per second, peers, calls) is divided evenly; a breaker group
    /// counts the breakers of each shard by themselves.
    #[must_use]
    pub const fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Which breakers belong together: those with the same number are of one shard. Needed where a
    /// peer has endpoints, or calls, behind several breakers.
    #[must_use]
    pub fn shard_by(mut self, key: impl Fn(BreakerId) -> u64 + Send + Sync + 'static) -> Self {
        self.shard_by = Some(Arc::new(key));
        self
    }

    /// How long [`Transport::close`] may take; 5 s.
    #[must_use]
    pub const fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How many notices wait for whoever reads them slowly before the oldest are left out; 1,024.
    #[must_use]
    pub const fn max_unread_notices(mut self, notices: usize) -> Self {
        self.max_unread_notices = notices;
        self
    }

    /// Whether a [`Ledger`](steadfast::Ledger) watches that this driver keeps the contract; in debug
    /// builds it does. What it finds is [`Handle::breach`].
    #[must_use]
    pub const fn watched(mut self, watched: bool) -> Self {
        self.watched = watched;
        self
    }

    /// What this driver is called in metrics: they get a label `driver` with this value. Needed where
    /// a program has several, since otherwise their counts overwrite each other; without by default.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Publishes the statistics this often, and when the driver ends, as by
    /// [`Handle::publish_metrics`]; not by default. More often than every 10 ms is taken as that.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    #[must_use]
    pub const fn metrics_every(mut self, period: Duration) -> Self {
        self.metrics_every = Some(period);
        self
    }

    /// Writes down what reaches the managers and what they answer; nothing by default.
    #[cfg(feature = "recording")]
    #[cfg_attr(docsrs, doc(cfg(feature = "recording")))]
    #[must_use]
    pub fn record(mut self, record: crate::record::Record) -> Self {
        self.record = Some(record);
        self
    }

    /// Starts the driver on the tokio runtime that this is called in.
    ///
    /// # Errors
    ///
    /// A setting that is refused, or no runtime with a clock.
    pub fn start(self) -> Result<Handle<T>, StartError> {
        let runtime = runtime::Handle::try_current()
            .map_err(|_| StartError::NoRuntime("there is no tokio runtime here to start on"))?;
        // There is no way to ask.
        catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).map_err(|_| {
            StartError::NoRuntime("the tokio runtime has no clock: Builder::enable_time")
        })?;
        // The key of the id tables is a secret, and changes no output.
        let hash_key = random_seed();
        let (notices, _) = broadcast::channel(self.max_unread_notices.clamp(1, 1 << 20));
        let shards = self.shards.max(1);
        let mut cores = Vec::with_capacity(shards.min(1_024));
        for config in divide(&self.config, shards)? {
            let manager = Manager::new(config, hash_key)?;
            #[cfg_attr(not(feature = "recording"), expect(unused_mut, reason = "no tape"))]
            let mut core = Core::new(manager, self.watched, notices.clone());
            #[cfg(feature = "recording")]
            if let Some(record) = &self.record {
                let config = core.manager.config();
                let tape = crate::record::Tape::new(record, cores.len(), shards, config);
                core.tape = Some(tape.map_err(StartError::Record)?);
            }
            cores.push(core);
        }
        let inner = Inner::new(
            self.transport,
            runtime,
            self.close_timeout,
            notices,
            cores,
            self.shard_by,
            Instant::now(),
        );
        #[cfg(feature = "metrics")]
        let inner = inner.called(self.name);
        let inner = Arc::new(inner);
        for shard in 0..shards {
            let end = Halt(Arc::clone(&inner));
            inner.runtime.spawn(Arc::clone(&inner).keep_time(shard, end));
        }
        #[cfg(feature = "metrics")]
        if let Some(period) = self.metrics_every {
            inner.runtime.spawn(Arc::clone(&inner).keep_published(period));
        }
        Ok(Handle::new(inner, self.config))
    }
}

impl<T: Transport> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("shards", &self.shards).finish_non_exhaustive()
    }
}
