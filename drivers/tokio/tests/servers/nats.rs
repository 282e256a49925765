//! NATS, as far as a connection that talks to itself needs it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use steadfast_tokio::tcp::{dial, loss_cause};
use steadfast_tokio::{Dial, DialError, Established, Failure, Link, LossCause, Transport};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

use crate::callers::Ask;
use crate::outage::{TOLD, live_through_a_kill};
use crate::server::Kind;

struct Nats;

struct Connection {
    /// Locked for one small write at a time, which the socket takes whole.
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Taken by the connection's own task.
    read: Mutex<Option<BufReader<OwnedReadHalf>>>,
    /// Who waits for which message.
    waiting: Mutex<BTreeMap<String, oneshot::Sender<()>>>,
    ponged: Notify,
}

impl Connection {
    async fn send(&self, text: &str) -> io::Result<()> {
        self.write.lock().await.write_all(text.as_bytes()).await
    }
}

impl Transport for Nats {
    type Address = String;
    type Connection = Connection;

    async fn connect(&self, to: Dial<String>) -> Result<Established<Connection>, DialError> {
        let (read, mut write) = dial(to.address.as_str()).await?.into_split();
        let mut read = BufReader::with_capacity(512, read);
        // As any client does: its greeting, ours, and an answer that shows that it was taken.
        next_line(&mut read).await?;
        write.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await?;
        while next_line(&mut read).await? != "PONG" {}
        Ok(Established::fresh(Connection {
            write: tokio::sync::Mutex::new(write),
            read: Mutex::new(Some(read)),
            waiting: Mutex::default(),
            ponged: Notify::new(),
        }))
    }

    async fn run(&self, connection: Arc<Connection>, link: Link) -> LossCause {
        let read = connection.read.lock().unwrap().take();
        let Some(mut read) = read else { return LossCause::Local };
        loop {
            let line = match next_line(&mut read).await {
                Ok(line) => line,
                Err(error) => return loss_cause(&error),
            };
            link.heard();
            match line.as_str() {
                "PONG" => connection.ponged.notify_waiters(),
                "PING" => {
                    if let Err(error) = connection.send("PONG\r\n").await {
                        return loss_cause(&error);
                    }
                }
                // A message, or the line that announces one.
                other => {
                    let waiting = connection.waiting.lock().unwrap().remove(other);
                    // Whoever asked may have gone away.
                    waiting.map(|waiting| waiting.send(()));
                }
            }
        }
    }

    async fn ping(&self, connection: Arc<Connection>) -> Result<(), LossCause> {
        let ponged = connection.ponged.notified();
        connection.send("PING\r\n").await.map_err(|error| loss_cause(&error))?;
        ponged.await;
        Ok(())
    }
}

async fn next_line(read: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut line = String::new();
    if read.read_line(&mut line).await? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

impl Ask for Nats {
    /// Subscribes to one message, publishes it, and waits until it comes.
    async fn ask(connection: Arc<Connection>, number: u64) -> Result<(), Failure<io::Error>> {
        let (sender, came) = oneshot::channel();
        let (message, length) = (number.to_string(), number.to_string().len());
        connection.waiting.lock().unwrap().insert(message.clone(), sender);
        let subscribe = format!("SUB asked.{number} {number}\r\nUNSUB {number} 1\r\n");
        let publish = format!("PUB asked.{number} {length}\r\n{message}\r\n");
        connection.send(&(subscribe + &publish)).await?;
        came.await.map_err(|_| io::Error::from(ErrorKind::ConnectionReset).into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_come_back_to_a_nats_that_was_killed() {
    live_through_a_kill("nats", Kind::Nats, Nats, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_come_back_to_a_nats_at_the_rate_that_was_told() {
    live_through_a_kill("nats-told", Kind::Nats, Nats, Some(TOLD)).await;
}
