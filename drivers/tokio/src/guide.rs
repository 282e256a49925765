//! A guide: from the first connection to the night of an outage.
//!
//! # Breakers come first
//!
//! A [breaker](crate::BreakerId) stands for whatever fails together: a server, a region, a
//! dependency. A program names it by a number of its own and gives it a profile. Two guards are
//! usual for one server, because connecting and answering fail apart from each other:
//!
//! | breaker | profile | what it does |
//! | --- | --- | --- |
//! | of dials | `default` | holds the line of peers that wait to be dialed, as many at a time as its server takes, at most 256 |
//! | of calls | `calls` | opens on failures, slow answers and calls that hang; bulkhead, budget |
//! | of calls that may be hedged | `hedged` | the same, and knows how long answers take |
//!
//! A peer's [endpoints](crate::Endpoint) each name the breaker that guards dialing them; with several
//! endpoints it fails over. Of one server's 100,000 peers all name the same breaker, and that is
//! what makes them one line instead of a herd.
//!
//! # Settings
//!
//! All of them are in one [`Config`](steadfast::Config), by profiles that have names. [`config`] is
//! where to start; whoever knows what the server can take says so, and everybody comes back as fast
//! as it allows:
//!
//! ```
//! use steadfast_tokio::steadfast::bucket::{BucketConfig, Rate};
//! use steadfast_tokio::{config, random_seed};
//!
//! let mut config = config(random_seed());
//! config.breaker_profiles[0].rate = Some(BucketConfig { rate: Rate::per_second(500), burst: 50 });
//! config.peer_profiles[0].dial_timeout = std::time::Duration::from_secs(3);
//! assert_eq!(config.warnings(), []); // settings that are allowed, and rarely meant
//! ```
//!
//! Times are spans, rates are events per time, shares are [`Ratio`](steadfast::Ratio)s. Each default
//! says where it comes from; [`start`](crate::Builder::start) refuses what makes no sense, and names
//! the place.
//!
//! # Calls
//!
//! [`with_connection`](crate::Handle::with_connection) goes to a peer, over its connection;
//! [`with_retry`](crate::Handle::with_retry) goes to whatever the closure reaches by itself, an HTTP
//! client's pool for example; [`tower`](crate::tower) puts the same around a service. Who wants these
//! alone starts a driver of [`CallsOnly`](crate::CallsOnly).
//!
//! The closure says how an attempt failed, because nobody else can know: a
//! [`Failure`](crate::Failure) has a [class](crate::CallFailure), which decides what it counts
//! against and whether another attempt may help. A plain error by `?` is the server's
//! ([`Error`](crate::CallFailure::Error)).
//!
//! | profile | attempts | where there is no connection |
//! | --- | --- | --- |
//! | `default` | 3 | waits for it |
//! | `fail-fast` | 1 | is rejected at once |
//! | `patient` | 5 | has the peer dialed, and waits |
//! | `hedged` | 3, one of them while another is slow | waits for it |
//!
//! A retry or a hedge is paid from a budget, per breaker, into which each success puts a tenth of a
//! token. It starts empty, so that a program which starts into an outage does not double it: the
//! first calls that fail are not retried. `budget.initial` gives some credit.
//!
//! A call ends once: with its answer, [given up](crate::CallError::GaveUp) after an attempt, or
//! [rejected](crate::CallError::Rejected) before any. A future that is dropped is a caller who went
//! away: its attempt counts for nothing, and all that it held comes back.
//!
//! # Watching
//!
//! [`stats`](crate::Handle::stats) counts everything, [`notices`](crate::Handle::notices) tells each
//! change, [`watch`](crate::Handle::watch) follows one peer, and [`why`](crate::Handle::why) answers
//! the question of three in the morning: what is this peer waiting for? The features `metrics` and
//! `tracing` carry the first two to where a program's others go.
//!
//! # The night of an outage
//!
//! With the feature `recording` and a [`Builder::record`](crate::Builder::record) every event that
//! reached the manager is in a file, and every answer. In the morning it is lived through again:
//!
//! ```console
//! $ steadfast replay incident.0.3.jsonl --at 12.5s --peer 4711
//! ```
//!
//! checks each answer against the recorded one, stops there, and shows who waited for what and why.
//!
//! # Before the outage
//!
//! Time is tokio's, so under a paused clock an hour takes milliseconds; a
//! [`Chaos`](crate::chaos::Chaos) makes the trouble, the same with each run:
//!
//! ```
//! use std::time::Duration;
//! use steadfast_tokio::chaos::{Chaos, ChaosConfig};
//! use steadfast_tokio::{BreakerId, Builder, Endpoint, LossCause, PeerId};
//! # use std::{future::pending, sync::Arc};
//! # use steadfast_tokio::{Dial, DialError, Established, Link, Transport};
//! # struct Mine;
//! # impl Transport for Mine {
//! #     type Address = ();
//! #     type Connection = ();
//! #     async fn connect(&self, _: Dial<()>) -> Result<Established<()>, DialError> {
//! #         Ok(Established::fresh(()))
//! #     }
//! #     async fn run(&self, _: Arc<()>, _: Link) -> LossCause { pending().await }
//! #     async fn ping(&self, _: Arc<()>) -> Result<(), LossCause> { Ok(()) }
//! # }
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)] // or #[tokio::test(start_paused = true)]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let chaos = Chaos::new(Mine, 7, ChaosConfig::default())?; // `Mine`: a transport
//!     let control = chaos.control();
//!     let driver = Builder::new(chaos).start()?;
//!     driver.add_breaker(BreakerId(1), "default")?;
//!     for peer in (0..1_000).map(PeerId) {
//!         driver.add_peer(peer, "default", vec![Endpoint::only(BreakerId(1), ())])?;
//!         driver.connect(peer)?;
//!     }
//!     tokio::time::sleep(Duration::from_secs(60)).await;
//!     assert_eq!(driver.stats().peers.connected, 1_000);
//!
//!     control.refuse(true); // the server is gone for ten minutes
//!     control.cut_all(LossCause::Reset);
//!     tokio::time::sleep(Duration::from_secs(600)).await;
//!     control.refuse(false);
//!     tokio::time::sleep(Duration::from_secs(60)).await;
//!     assert_eq!(driver.stats().peers.connected, 1_000);
//!     driver.check()?; // every invariant of the machine
//!     assert_eq!(driver.breach(), None); // and of this driver
//!     Ok(())
//! }
//! ```
//!
//! A million peers, a server with a queue, a region that fails: that is the simulator's, which runs
//! the same machine.
//!
//! # Many cores
//!
//! Decisions take about a microsecond under one lock. A program whose calls keep several cores busy
//! splits its breakers over [shards](crate::Builder::shards), each with a lock and a manager of its
//! own; limits are divided among them. What belongs together (a peer's endpoints, the calls to it)
//! must be of one shard: [`shard_by`](crate::Builder::shard_by) says what does.
//!
//! # The end
//!
//! [`shutdown`](crate::Handle::shutdown) lets calls end, closes connections in good order and returns
//! when no task is left. Dropping the last [`Handle`](crate::Handle) ends everything at once.
//!
//! [`config`]: crate::config()
