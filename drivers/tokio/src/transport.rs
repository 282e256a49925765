//! The program's side: how a peer is reached, what a connection is, how it ends.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use steadfast::{DialCause, EndpointId, LossCause, PeerId};

use crate::link::Link;

/// How connections are made, watched and ended; the connection is the program's own type.
///
/// Every method is called in a task of the driver and never under its lock. A future that is no
/// longer wanted (a dial that was cancelled, a connection that is to be closed) is dropped at an
/// await point, so each must be safe to drop there. A method that panics counts as a failure of our
/// own ([`DialCause::Local`], [`LossCause::Local`]).
///
/// # Examples
///
/// The smallest: a raw stream that is watched for its end. [`tcp::Tcp`](crate::tcp::Tcp) does more.
///
/// ```
/// use std::net::SocketAddr;
/// use std::sync::Arc;
/// use steadfast_tokio::{Dial, DialError, Established, Link, LossCause, Transport};
/// use tokio::net::TcpStream;
///
/// struct Raw;
///
/// impl Transport for Raw {
///     type Address = SocketAddr;
///     type Connection = TcpStream;
///
///     async fn connect(&self, dial: Dial<SocketAddr>) -> Result<Established<TcpStream>, DialError> {
///         Ok(Established::fresh(TcpStream::connect(*dial.address).await?))
///     }
///
///     async fn run(&self, stream: Arc<TcpStream>, link: Link) -> LossCause {
///         let mut buffer = [0; 1024];
///         loop {
///             if stream.readable().await.is_err() {
///                 return LossCause::Reset;
///             }
///             match stream.try_read(&mut buffer) {
///                 Ok(0) => return LossCause::Eof,
///                 Ok(_) => link.heard(),
///                 Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
///                 Err(_) => return LossCause::Reset,
///             }
///         }
///     }
///
///     async fn ping(&self, stream: Arc<TcpStream>) -> Result<(), LossCause> {
///         stream.writable().await.map_err(|_| LossCause::Reset) // ask the peer something here
///     }
/// }
/// ```
pub trait Transport: Send + Sync + Sized + 'static {
    /// How an endpoint is reached: a socket address, a name, a bundle of credentials.
    type Address: Send + Sync + 'static;
    /// What callers work with. It is shared between them, the driver's own task and pings.
    type Connection: Send + Sync + 'static;

    /// Connects, with all that is needed before requests may be sent: TLS, login, the session.
    ///
    /// The manager has a timeout of its own, at which this future is dropped.
    fn connect(
        &self,
        dial: Dial<Self::Address>,
    ) -> impl Future<Output = Result<Established<Self::Connection>, DialError>> + Send;

    /// Lives with the connection until it ends, and says why it did. Called once for each.
    ///
    /// It reports signs of life to `link`. It is dropped when the manager has the connection
    /// closed.
    fn run(
        &self,
        connection: Arc<Self::Connection>,
        link: Link,
    ) -> impl Future<Output = LossCause> + Send;

    /// Asks the peer for a sign of life, and returns when it has come.
    ///
    /// An error means that the connection is lost. No answer means nothing here: the manager has a
    /// timeout of its own, and this future is dropped when the next ping goes out.
    fn ping(
        &self,
        connection: Arc<Self::Connection>,
    ) -> impl Future<Output = Result<(), LossCause>> + Send;

    /// Ends a connection in good order: says goodbye, flushes. It has as long as
    /// [`Builder::close_timeout`](crate::Builder::close_timeout) allows.
    ///
    /// Callers may still hold the connection; their requests fail from here on. Without an
    /// implementation the connection ends when the last of them lets go of it.
    fn close(&self, connection: Arc<Self::Connection>) -> impl Future<Output = ()> + Send {
        drop(connection);
        std::future::ready(())
    }
}

/// What to connect to.
pub struct Dial<A> {
    /// For whom.
    pub peer: PeerId,
    /// Over which of its endpoints.
    pub endpoint: EndpointId,
    /// Where that is.
    pub address: Arc<A>,
    /// Whether to ask the server to take up the old session.
    pub resume: bool,
}

impl<A: fmt::Debug> fmt::Debug for Dial<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, endpoint, address, resume } = self;
        write!(f, "Dial({peer} {endpoint} at {address:?}, resume: {resume})")
    }
}

/// A connection that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established<C> {
    /// The connection.
    pub connection: C,
    /// Whether the server took up the old session; its word is final.
    pub resumed: bool,
}

impl<C> Established<C> {
    /// With a session of its own.
    #[must_use]
    pub const fn fresh(connection: C) -> Self {
        Self { connection, resumed: false }
    }

    /// With the session of the connection before it.
    #[must_use]
    pub const fn resumed(connection: C) -> Self {
        Self { connection, resumed: true }
    }
}

/// Why a dial failed.
#[derive(Debug)]
pub struct DialError {
    /// In which class: it decides what the failure counts against.
    pub cause: DialCause,
    /// How long the server asked us to stay away.
    pub retry_after: Option<Duration>,
    /// The failure itself, for logs.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl DialError {
    /// A failure of that class.
    #[must_use]
    pub const fn new(cause: DialCause) -> Self {
        Self { cause, retry_after: None, source: None }
    }

    /// The same, with the failure itself for the logs.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same, with the time for which the server asked us to stay away.
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the dial failed ({:?})", self.cause)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for DialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Classed by [`tcp::dial_cause`](crate::tcp::dial_cause).
impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::new(crate::tcp::dial_cause(&error)).with_source(error)
    }
}

/// No connections at all: for programs that only want calls to be guarded, over a client or a pool
/// that they have.
///
/// It has no address, so no peer can be dialed.
///
/// # Examples
///
/// ```
/// use steadfast_tokio::{BreakerId, Builder, CallsOnly, Failure};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let driver = Builder::new(CallsOnly).start()?;
/// let (breaker, profile) = (BreakerId(1), driver.call_profile("default").ok_or("no profile")?);
/// driver.add_breaker(breaker, "calls")?;
/// let answer = driver.with_retry(breaker, profile, |_| async { Ok::<_, Failure<()>>(42) }).await;
/// assert_eq!(answer, Ok(42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CallsOnly;

impl Transport for CallsOnly {
    type Address = Infallible;
    type Connection = Infallible;

    async fn connect(&self, to: Dial<Infallible>) -> Result<Established<Infallible>, DialError> {
        match *to.address {}
    }

    async fn run(&self, connection: Arc<Infallible>, _: Link) -> LossCause {
        match *connection {}
    }

    async fn ping(&self, connection: Arc<Infallible>) -> Result<(), LossCause> {
        match *connection {}
    }
}
