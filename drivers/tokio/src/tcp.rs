//! TCP: a dial with its failures classed, and a transport for plain byte streams.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use steadfast::{DialCause, LossCause};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore, mpsc};
use tokio::time::timeout;

use crate::link::Link;
use crate::transport::{Dial, DialError, Established, Transport};

/// What a failed attempt to connect counts as.
#[must_use]
pub fn dial_cause(error: &io::Error) -> DialCause {
    match error.kind() {
        ErrorKind::ConnectionRefused => DialCause::Refused,
        ErrorKind::TimedOut => DialCause::Timeout,
        // Somebody answered and hung up, as a balancer without servers does.
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => DialCause::Refused,
        ErrorKind::InvalidData => DialCause::Incompatible,
        ErrorKind::PermissionDenied
        | ErrorKind::AddrInUse
        | ErrorKind::AddrNotAvailable
        | ErrorKind::OutOfMemory
        | ErrorKind::QuotaExceeded => DialCause::Local,
        _ if is_own_fault(error) => DialCause::Local,
        _ => DialCause::Unreachable,
    }
}

/// Out of descriptors, of the process or the system, or of buffers: kinds that the standard library
/// has no name for. The first two numbers are the same on Linux, macOS and the BSDs.
fn is_own_fault(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 =
        if cfg!(any(target_os = "linux", target_os = "android")) { 105 } else { 55 };
    cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}

/// What the end of a connection by this error counts as.
#[must_use]
pub fn loss_cause(error: &io::Error) -> LossCause {
    match error.kind() {
        ErrorKind::UnexpectedEof => LossCause::Eof,
        ErrorKind::InvalidData => LossCause::Protocol,
        ErrorKind::OutOfMemory => LossCause::Local,
        _ => LossCause::Reset,
    }
}

/// How long an address may be silent before the next one is tried beside it. RFC 8305 §5.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// Connects to the first of the name's addresses that answers, without Nagle's delay. They are tried
/// in their order, each when the one before it has failed or has been silent for 250 ms; that one
/// may still win.
///
/// # Errors
///
/// [`DialCause::Resolve`] if the name has no address; otherwise the failure of the last address
/// that was tried, classed by [`dial_cause`].
pub async fn dial(address: impl ToSocketAddrs) -> Result<TcpStream, DialError> {
    let resolved = tokio::net::lookup_host(address).await;
    let mut addresses = resolved.map_err(|error| {
        // Who has no descriptor left cannot ask either.
        let ours = dial_cause(&error) == DialCause::Local;
        let cause = if ours { DialCause::Local } else { DialCause::Resolve };
        DialError::new(cause).with_source(error)
    })?;
    let mut failed = DialError::new(DialCause::Resolve);
    let mut dials = Vec::new();
    let mut next = addresses.next();
    loop {
        dials.extend(next.map(|address| Box::pin(TcpStream::connect(address))));
        next = addresses.next();
        let patience = if next.is_some() { NEXT_AFTER } else { Duration::MAX };
        match timeout(patience, first_of(&mut dials)).await {
            Ok(Some(Ok(stream))) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Err(error))) => failed = error.into(),
            Ok(None) => return Err(failed),
            Err(_) => {}
        }
    }
}

/// What the first of them comes to, which is taken out; `None` if there is none.
async fn first_of<F: Future>(all: &mut Vec<Pin<Box<F>>>) -> Option<F::Output> {
    poll_fn(|cx| {
        let ready =
            all.iter_mut().enumerate().find_map(|(place, future)| match future.as_mut().poll(cx) {
                Poll::Ready(output) => Some((place, output)),
                Poll::Pending => None,
            });
        match ready {
            Some((place, output)) => {
                drop(all.swap_remove(place));
                Poll::Ready(Some(output))
            }
            None if all.is_empty() => Poll::Ready(None),
            None => Poll::Pending,
        }
    })
    .await
}

/// A transport for plain byte streams, for protocols in which a request may come at any time: what
/// the peer sends goes to whoever [receives](Connection::receive) on the connection, and anything
/// that it sends is a sign of life.
///
/// It knows no messages, so it cannot tell whose answer is whose: one to a request whose attempt was
/// given up goes to whoever receives next, and so does one to a ping, unless it is
/// [known](Self::answered_by). It suits one caller at a time, and peers that push. Where many callers
/// share a connection a [`Transport`] of the protocol's own is needed, as the example `redis` has.
///
/// Addresses are `host:port`, resolved anew for each dial.
#[derive(Clone, Debug)]
pub struct Tcp {
    ping: Arc<[u8]>,
    pong: Option<Arc<[u8]>>,
    max_unread: usize,
}

impl Tcp {
    /// `ping`: what the peer answers with at least one byte, as `PING\r\n` is by Redis and NATS.
    #[must_use]
    pub fn pinging(ping: impl Into<Vec<u8>>) -> Self {
        Self { ping: ping.into().into(), pong: None, max_unread: 16 }
    }

    /// What the answer to a ping is, as `PONG\r\n`: one that comes by itself while a ping is out is
    /// kept from whoever receives. Without it an idle connection fills up with answers to pings, see
    /// [`max_unread`](Self::max_unread).
    #[must_use]
    pub fn answered_by(mut self, pong: impl Into<Vec<u8>>) -> Self {
        self.pong = Some(pong.into().into());
        self
    }

    /// How many pieces of what a peer sent, of up to 8 KiB each, wait to be received before nothing
    /// more is read from it; 16. Once nothing is read, its signs of life are not seen either, and a
    /// connection on which nobody receives will be found dead.
    #[must_use]
    pub const fn max_unread(mut self, pieces: usize) -> Self {
        self.max_unread = pieces;
        self
    }

    /// A stream that was made elsewhere, as by a peer that dialed us: for
    /// [`Handle::accept`](crate::Handle::accept).
    #[must_use]
    pub fn wrap(&self, stream: TcpStream) -> Connection {
        let (read, half) = stream.into_split();
        let max_unread = self.max_unread.clamp(1, Semaphore::MAX_PERMITS);
        let (sender, unread) = mpsc::channel(max_unread);
        Connection {
            write: Mutex::new(Writing { half, torn: false }),
            torn: Notify::new(),
            read: Mutex::new(Some((read, sender))),
            unread: Mutex::new(unread),
            heard: Notify::new(),
            asked: AtomicUsize::new(0),
        }
    }
}

/// How much is read at once.
const MAX_PIECE: usize = 8 * 1024;

/// A connection made by [`Tcp`].
pub struct Connection {
    write: Mutex<Writing>,
    /// Rung when what was being sent was torn.
    torn: Notify,
    /// Taken by the connection's own task.
    read: Mutex<Option<(OwnedReadHalf, mpsc::Sender<Vec<u8>>)>>,
    unread: Mutex<mpsc::Receiver<Vec<u8>>>,
    /// Something came in.
    heard: Notify,
    /// Pings whose answer has not come.
    asked: AtomicUsize,
}

struct Writing {
    half: OwnedWriteHalf,
    /// A part of something was sent, and the rest never will be.
    torn: bool,
}

/// What is being sent.
struct Sending<'a> {
    torn: &'a Notify,
    writing: MutexGuard<'a, Writing>,
    begun: bool,
    left: &'a [u8],
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.begun && !self.left.is_empty() {
            self.writing.torn = true;
            self.torn.notify_one();
        }
    }
}

impl Connection {
    /// Sends all of `bytes`. One sender at a time: pieces do not mix.
    ///
    /// Dropped when a part of them is sent, as at an attempt's timeout, it ends the connection as
    /// [`LossCause::Local`]: the stream would make no sense to the peer any more. Dropped before
    /// that it has sent nothing.
    ///
    /// # Errors
    ///
    /// What the socket says, or that somebody before has left off in the middle.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let writing = self.write.lock().await;
        if writing.torn {
            let problem = "a sender before has left off in the middle";
            return Err(io::Error::new(ErrorKind::BrokenPipe, problem));
        }
        let mut sending = Sending { torn: &self.torn, writing, begun: false, left: bytes };
        while !sending.left.is_empty() {
            let sent = sending.writing.half.write(sending.left).await?;
            if sent == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            sending.begun = true;
            sending.left = sending.left.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// What came in next, as it came, of at least one byte; `None` when the connection is over.
    pub async fn receive(&self) -> Option<Vec<u8>> {
        self.unread.lock().await.recv().await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Transport for Tcp {
    type Address = String;
    type Connection = Connection;

    async fn connect(&self, to: Dial<String>) -> Result<Established<Connection>, DialError> {
        Ok(Established::fresh(self.wrap(dial(to.address.as_str()).await?)))
    }

    async fn run(&self, connection: Arc<Connection>, link: Link) -> LossCause {
        let Some((read, unread)) = connection.read.lock().await.take() else {
            return LossCause::Local;
        };
        tokio::select! {
            biased;
            () = connection.torn.notified() => LossCause::Local,
            cause = self.receive_all(&connection, link, read, unread) => cause,
        }
    }

    async fn ping(&self, connection: Arc<Connection>) -> Result<(), LossCause> {
        let heard = connection.heard.notified();
        let asking = Asking::new(&connection.asked);
        connection.send(&self.ping).await.map_err(|error| loss_cause(&error))?;
        asking.has_asked();
        heard.await;
        Ok(())
    }

    async fn close(&self, connection: Arc<Connection>) {
        // The peer may have hung up first.
        let _ = connection.write.lock().await.half.shutdown().await;
    }
}

/// Counts a ping as asked, unless it is dropped before it is sent.
struct Asking<'a>(&'a AtomicUsize);

impl<'a> Asking<'a> {
    fn new(asked: &'a AtomicUsize) -> Self {
        asked.fetch_add(1, Ordering::Relaxed);
        Self(asked)
    }

    fn has_asked(self) {
        std::mem::forget(self);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        take_one(self.0);
    }
}

/// Whether there was one.
fn take_one(asked: &AtomicUsize) -> bool {
    let one_less = |asked: usize| asked.checked_sub(1);
    asked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
}

impl Tcp {
    /// Whether it answers a ping; then one ping less is out.
    fn is_pong(&self, connection: &Connection, piece: &[u8]) -> bool {
        self.pong.as_deref() == Some(piece) && take_one(&connection.asked)
    }

    /// Hands on what comes in, until the connection ends.
    async fn receive_all(
        &self,
        connection: &Connection,
        link: Link,
        read: OwnedReadHalf,
        unread: mpsc::Sender<Vec<u8>>,
    ) -> LossCause {
        loop {
            if let Err(error) = read.readable().await {
                return loss_cause(&error);
            }
            // Not before there is something: an idle connection holds no buffer.
            let mut piece = Vec::with_capacity(MAX_PIECE);
            match read.try_read_buf(&mut piece) {
                Ok(0) => return LossCause::Eof,
                Ok(_) => {
                    link.heard();
                    connection.heard.notify_waiters();
                    if self.is_pong(connection, &piece) {
                        continue;
                    }
                    piece.shrink_to_fit();
                    // Its receiver is part of the connection, which we hold.
                    let _ = unread.send(piece).await;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return loss_cause(&error),
            }
        }
    }
}
