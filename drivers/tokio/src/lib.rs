//! Steadfast under tokio: real connections and calls, decided by a pure state machine.
//!
//! The [manager](steadfast::Manager) decides when to dial, when to wait, and which attempt to make;
//! this crate carries it out. A program says how a connection is made ([`Transport`]) and what it
//! wants ([`Handle`]); a thousand lost connections then come back in a ramp, and calls obey
//! breakers, budgets and deadlines.
//!
//! # Examples
//!
//! A server that is there, one peer, and a call over its connection:
//!
//! ```
//! use steadfast_tokio::tcp::Tcp;
//! use steadfast_tokio::{BreakerId, Builder, Endpoint, Failure, PeerId};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use tokio::net::TcpListener;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?.to_string();
//! tokio::spawn(async move {
//!     let (mut stream, _) = listener.accept().await?;
//!     let mut request = [0; 6];
//!     stream.read_exact(&mut request).await?;
//!     stream.write_all(b"PONG\r\n").await
//! });
//!
//! let redis = Tcp::pinging("PING\r\n").answered_by("PONG\r\n");
//! let driver = Builder::new(redis).start()?;
//! let (dials, calls, peer) = (BreakerId(1), BreakerId(2), PeerId(1));
//! driver.add_breaker(dials, "default")?; // guards connecting
//! driver.add_breaker(calls, "calls")?; // guards requests
//! driver.add_peer(peer, "default", vec![Endpoint::only(dials, address)])?;
//! driver.connect(peer)?; // from now on it is wanted, whatever happens
//!
//! let profile = driver.call_profile("default").ok_or("no such profile")?;
//! let answer = driver
//!     .with_connection(peer, calls, profile, |_, connection| async move {
//!         connection.send(b"PING\r\n").await?;
//!         Ok::<_, Failure<std::io::Error>>(connection.receive().await)
//!     })
//!     .await?;
//! assert_eq!(answer.as_deref(), Some(&b"PONG\r\n"[..]));
//! let _ = driver.shutdown(std::time::Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! - The manager is behind a lock. Whoever has something to tell (a caller, a connection's task)
//!   locks it, reads the clock inside, steps it, and carries out what follows after the lock is
//!   released: decisions are made in the caller's own task, and nothing runs under the lock that
//!   blocks or belongs to the program.
//! - One task for each shard sleeps until the manager's deadline (tokio's clock: to the
//!   millisecond), and is woken only when a deadline comes that is earlier. It lets what the sockets
//!   have ready be fed before it ticks.
//! - One task for each connection dials, lives with it, and closes it. However many frames it finds
//!   when it is woken, it tells once that it heard from the peer, with the first.
//! - A call runs in its caller's task and allocates nothing of its own but for hedges. It may be
//!   dropped at any await point.
//! - [Shards](Builder::shards) spread breakers over several managers, for programs whose calls keep
//!   several cores busy.
//! - In debug builds a [`Ledger`](steadfast::Ledger) watches that this driver keeps the contract.
//! - Time is tokio's: under a paused clock an outage of an hour takes milliseconds.
//!
//! # Features
//!
//! - `recording`: what reached the managers goes into files that rotate, if
//!   `Builder::record` says so; `steadfast replay` lives through them again.
//! - `metrics`: the statistics go to any recorder of that crate, as often as `Builder::metrics_every`
//!   says or whenever `Handle::publish_metrics` is called.
//! - `tower`: a layer that guards any tower service, in the module of that name.
//! - `tracing`: each notice is also an event of the target `steadfast_tokio`: a breaker that opens or
//!   a peer that is lost a warning, what ends that an information, what one call or peer does on its
//!   way for debugging. It is emitted in the task that caused it, and so within that one's span.
//!
//! # The map
//!
//! The [`guide`] goes on from here, from breakers and calls to the night of an outage.
//! [`Builder`] starts a driver and gives a [`Handle`], which is all that a program holds.
//! [`Transport`] is what it implements, [`Link`] what a connection reports to; [`tcp`] has plain TCP,
//! [`chaos`] makes trouble in tests, `tower` guards services that others have written.
//! [`Handle::notices`] and [`Handle::stats`] tell how it is doing; `tracing` and `metrics` carry the
//! same to where a program's logs and figures are.
//! [`Refused`], [`CallError`], [`Failure`] and [`DialError`] are what can go wrong.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]

mod builder;
mod call;
mod calls;
mod connection;
mod conns;
mod core;
mod divide;
mod error;
mod handle;
mod inner;
mod link;
#[cfg(feature = "metrics")]
mod publish;
#[cfg(feature = "recording")]
mod record;
mod states;
#[cfg(feature = "tracing")]
mod trace;
mod transport;

pub mod chaos;
pub mod guide;
pub mod tcp;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;

pub use builder::{Builder, config, random_seed};
pub use call::{Attempt, Call};
pub use core::Noticed;
pub use error::{CallError, Failure, Refused, StartError};
pub use handle::{Endpoint, Handle, Shutdown, Underway};
pub use link::Link;
#[cfg(feature = "recording")]
#[cfg_attr(docsrs, doc(cfg(feature = "recording")))]
pub use record::{Record, Recorded};
pub use states::States;
pub use transport::{CallsOnly, Dial, DialError, Established, Transport};

pub use steadfast;
pub use steadfast::{
    BreakerId, CallFailure, CallProfileId, DialCause, EndpointId, LossCause, PeerId, PeerState,
    RetryAfter,
};
