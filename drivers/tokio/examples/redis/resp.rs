//! Redis as a [`Transport`]: requests of many callers go down one connection, one after the other,
//! and the answers come back in the same order.
//!
//! The connection's own task does all reading and writing. So a caller may go away at any moment: no
//! request is ever half sent, and the answer to one that nobody waits for is read and dropped.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};

use steadfast_tokio::tcp::{dial, loss_cause};
use steadfast_tokio::{Dial, DialCause, DialError, Established, Link, LossCause, Transport};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// What Redis answers; of its kinds of answers those that are not lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
}

/// Requests that wait to be written, of one connection.
const MAX_UNSENT: usize = 64;

/// The longest bulk answer that is taken.
const MAX_BULK: u64 = 1 << 20;

struct Request {
    bytes: Vec<u8>,
    answer: oneshot::Sender<Reply>,
}

/// A connection that is up.
pub(crate) struct Connection {
    requests: mpsc::Sender<Request>,
    /// Taken by the connection's own task.
    ends: Mutex<Option<Ends>>,
}

struct Ends {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    unsent: mpsc::Receiver<Request>,
}

impl Connection {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// The connection has ended; whether the request was carried out is unknown then.
    pub(crate) async fn request(&self, words: &[&str]) -> io::Result<Reply> {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::from(ErrorKind::ConnectionReset);
        let request = Request { bytes: encode(words), answer };
        self.requests.send(request).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Reaches Redis at addresses like `localhost:6379`.
pub(crate) struct Redis;

impl Transport for Redis {
    type Address = String;
    type Connection = Connection;

    async fn connect(&self, to: Dial<String>) -> Result<Established<Connection>, DialError> {
        let stream: TcpStream = dial(to.address.as_str()).await?;
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::with_capacity(512, read);
        // A server that is full, or still loads its data, takes connections and answers with an error.
        write.write_all(&encode(&["PING"])).await?;
        match receive(&mut read).await? {
            Reply::Status(_) => {}
            Reply::Error(error) => {
                let known = [
                    ("LOADING", DialCause::Throttled),
                    ("ERR max number of clients", DialCause::Throttled),
                    ("NOAUTH", DialCause::Auth),
                ];
                let cause = known.iter().find(|(start, _)| error.starts_with(start));
                let cause = cause.map_or(DialCause::Incompatible, |(_, cause)| *cause);
                return Err(DialError::new(cause).with_source(error));
            }
            other => {
                let odd = format!("{other:?} is no answer to PING");
                return Err(DialError::new(DialCause::Incompatible).with_source(odd));
            }
        }
        let (requests, unsent) = mpsc::channel(MAX_UNSENT);
        let ends = Mutex::new(Some(Ends { read, write, unsent }));
        Ok(Established::fresh(Connection { requests, ends }))
    }

    async fn run(&self, connection: Arc<Connection>, link: Link) -> LossCause {
        let ends = connection.ends.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Ends { read, write, unsent }) = ends else { return LossCause::Local };
        let (sent, unanswered) = mpsc::unbounded_channel();
        let ended = tokio::select! {
            ended = send_all(write, unsent, sent) => ended,
            ended = receive_all(read, unanswered, link) => ended,
        };
        ended.map_or_else(|error| loss_cause(&error), |()| LossCause::Local)
    }

    async fn ping(&self, connection: Arc<Connection>) -> Result<(), LossCause> {
        let answered = connection.request(&["PING"]).await;
        answered.map(drop).map_err(|error| loss_cause(&error))
    }
}

async fn send_all(
    mut write: OwnedWriteHalf,
    mut unsent: mpsc::Receiver<Request>,
    sent: mpsc::UnboundedSender<oneshot::Sender<Reply>>,
) -> io::Result<()> {
    while let Some(Request { bytes, answer }) = unsent.recv().await {
        // Whoever went away before it was sent has no request.
        if answer.is_closed() || sent.send(answer).is_err() {
            continue;
        }
        write.write_all(&bytes).await?;
    }
    Ok(())
}

async fn receive_all(
    mut read: BufReader<OwnedReadHalf>,
    mut unanswered: mpsc::UnboundedReceiver<oneshot::Sender<Reply>>,
    link: Link,
) -> io::Result<()> {
    loop {
        let reply = receive(&mut read).await?;
        link.heard();
        match unanswered.try_recv() {
            // Whoever asked may have gone away.
            Ok(answer) => drop(answer.send(reply)),
            Err(_) => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

async fn receive(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Reply> {
    let odd = || io::Error::from(ErrorKind::InvalidData);
    let mut line = String::new();
    // A line that is longer than this is none of Redis'.
    if (&mut *read).take(8 * 1024).read_line(&mut line).await? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix("\r\n").ok_or_else(odd)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(odd)?;
    match (kind, rest) {
        ("+", status) => Ok(Reply::Status(status.to_owned())),
        ("-", error) => Ok(Reply::Error(error.to_owned())),
        (":", integer) => integer.parse().map(Reply::Integer).map_err(|_| odd()),
        ("$", "-1") => Ok(Reply::Nil),
        ("$", length) => {
            let length: u64 = length.parse().map_err(|_| odd())?;
            if length > MAX_BULK {
                return Err(odd());
            }
            let mut bulk = Vec::new();
            let whole = length + 2;
            if (&mut *read).take(whole).read_to_end(&mut bulk).await? as u64 != whole {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            bulk.truncate(bulk.len() - 2);
            Ok(Reply::Bulk(bulk))
        }
        _ => Err(odd()),
    }
}
