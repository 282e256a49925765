//! What a server itself says about how many connections it has accepted, read every now and then.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::server::{Kind, Server};

const EVERY: Duration = Duration::from_millis(50);

/// One answer of the server's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    asked_at: Instant,
    answered_at: Instant,
    /// Accepted since the process began, but for our own.
    pub(crate) accepted: u64,
}

/// Asks until it is dropped.
pub(crate) struct Counter {
    /// One list for each process.
    lives: Arc<Mutex<Vec<Vec<Sample>>>>,
    asking: JoinHandle<()>,
}

impl Counter {
    /// Begins to ask, and waits for the first answer.
    pub(crate) async fn of(server: &Server, kind: Kind) -> Self {
        let lives = Arc::new(Mutex::new(vec![]));
        let (address, told) = (server.monitor, Arc::clone(&lives));
        let asking = tokio::spawn(async move {
            loop {
                // An error says that this process is gone; whoever asks too early tries again.
                let _ = keep_asking(kind, address, &told).await;
                sleep(EVERY).await;
            }
        });
        let counter = Self { lives, asking };
        crate::real::until(|| !counter.lives().is_empty()).await;
        counter
    }

    pub(crate) fn lives(&self) -> Vec<Vec<Sample>> {
        self.lives.lock().unwrap().clone()
    }

    /// The last count of the process that runs.
    pub(crate) fn accepted(&self) -> u64 {
        self.lives().last().and_then(|life| life.last()).map_or(0, |sample| sample.accepted)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

/// Adds what one process answers, again and again, to a list of its own.
async fn keep_asking(
    kind: Kind,
    address: SocketAddr,
    lives: &Mutex<Vec<Vec<Sample>>>,
) -> io::Result<()> {
    let mut line = match kind {
        Kind::Redis => Line::Redis(TcpStream::connect(address).await?),
        Kind::Nats => Line::Nats(address),
    };
    let mut first = true;
    loop {
        let asked_at = Instant::now();
        let accepted = line.ask().await?;
        let sample = Sample { asked_at, answered_at: Instant::now(), accepted };
        {
            let mut lives = lives.lock().unwrap();
            if first {
                lives.push(vec![]);
            }
            lives.last_mut().unwrap().push(sample);
        }
        first = false;
        sleep(EVERY).await;
    }
}

/// The way to one process.
enum Line {
    Redis(TcpStream),
    /// Its monitor, by a connection for each question, which it does not count.
    Nats(SocketAddr),
}

impl Line {
    async fn ask(&mut self) -> io::Result<u64> {
        let mut text = String::new();
        match self {
            Self::Redis(stream) => {
                stream.write_all(b"INFO stats\r\n").await?;
                while !text.contains("total_commands_processed") {
                    read_more(stream, &mut text).await?;
                }
                // This connection is one of them.
                Ok(number_after(&text, "total_connections_received:")? - 1)
            }
            Self::Nats(address) => {
                let mut stream = TcpStream::connect(*address).await?;
                stream.write_all(b"GET /varz HTTP/1.0\r\n\r\n").await?;
                stream.read_to_string(&mut text).await?;
                number_after(&text, "\"total_connections\": ")
            }
        }
    }
}

async fn read_more(stream: &mut TcpStream, text: &mut String) -> io::Result<()> {
    let mut piece = [0; 4_096];
    match stream.read(&mut piece).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => {
            text.push_str(&String::from_utf8_lossy(&piece[..length]));
            Ok(())
        }
    }
}

fn number_after(text: &str, name: &str) -> io::Result<u64> {
    let rest = text.split_once(name).map(|(_, rest)| rest);
    let digits = rest.and_then(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The most accepted within any two samples that lie at most so far apart.
pub(crate) fn most_within(life: &[Sample], window: Duration) -> u64 {
    let spans = pairs(life).filter(|(first, last)| last.answered_at - first.asked_at <= window);
    spans.map(|(first, last)| last.accepted - first.accepted).max().unwrap_or(0)
}

/// Panics if more was accepted between any two samples than `bound` allows for the time between.
pub(crate) fn assert_within(life: &[Sample], bound: impl Fn(Duration) -> u64) {
    for (first, last) in pairs(life) {
        let span = last.answered_at - first.asked_at;
        let accepted = last.accepted - first.accepted;
        assert!(accepted <= bound(span), "{accepted} within {span:?}, not {}", bound(span));
    }
}

fn pairs(life: &[Sample]) -> impl Iterator<Item = (&Sample, &Sample)> {
    let firsts = life.iter().enumerate();
    firsts.flat_map(|(place, first)| life[place..].iter().map(move |last| (first, last)))
}
