//! A proxy in front of a TCP server, which does what networks and balancers do when they fail.
#![allow(dead_code, clippy::indexing_slicing, clippy::unwrap_used, reason = "for tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// How what is sent passes, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// At once.
    Pass,
    /// So much later, in order, however much is on its way.
    Delay(Duration),
    /// So many bytes at a time, one such piece in each interval.
    Drip(usize, Duration),
    /// Not at all, and neither does the end of the connection: both sides believe in it. What is
    /// held back passes later, as it does when a network heals.
    Silence,
}

/// How the proxy ends the connections that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Fin,
    Reset,
}

/// Connections that were accepted, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) accepted: Vec<Instant>,
    /// Open now.
    pub(crate) open: usize,
}

impl Arrivals {
    /// The most that came within any window of that length, both ends included.
    pub(crate) fn most_within(&self, window: Duration) -> usize {
        let (mut first, mut most) = (0, 0);
        for (last, at) in self.accepted.iter().enumerate() {
            while *at - self.accepted[first] > window {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }
}

/// The proxy's door.
enum Door {
    /// Somebody accepts.
    Open(JoinHandle<()>),
    /// Bound and not listening: connecting is refused, and nobody else can take the port.
    Shut(TcpSocket),
}

/// The proxy. It runs until it is dropped, and its connections with it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    door: Option<Door>,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    requests: watch::Sender<Flow>,
    answers: watch::Sender<Flow>,
    ending: watch::Sender<Ending>,
    arrivals: Mutex<Arrivals>,
}

impl Proxy {
    /// Everything passes, until told otherwise.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let shared = Shared {
            upstream,
            requests: watch::Sender::new(Flow::Pass),
            answers: watch::Sender::new(Flow::Pass),
            ending: watch::Sender::new(Ending::Fin),
            arrivals: Mutex::default(),
        };
        let address = socket.local_addr().unwrap();
        let mut proxy = Self { address, door: Some(Door::Shut(socket)), shared: Arc::new(shared) };
        proxy.accept();
        proxy
    }

    /// From now on connecting is refused; open connections stay.
    pub(crate) async fn refuse(&mut self) {
        if let Some(Door::Open(accepting)) = self.door.take() {
            accepting.abort();
            // The listener is closed once its task is gone.
            let _ = accepting.await;
            self.door = Some(Door::Shut(bound(self.address)));
        }
    }

    /// Accepts again, at the same port.
    pub(crate) fn accept(&mut self) {
        if let Some(Door::Shut(socket)) = self.door.take() {
            let listener = socket.listen(1_024).unwrap();
            self.door = Some(Door::Open(tokio::spawn(serve(listener, Arc::clone(&self.shared)))));
        }
    }

    /// Ends all open connections in good order.
    pub(crate) fn cut(&self) {
        self.shared.ending.send_replace(Ending::Fin);
    }

    /// Ends all open connections by a reset.
    pub(crate) fn reset(&self) {
        self.shared.ending.send_replace(Ending::Reset);
    }

    /// How everything passes from now on, what is on its way included.
    pub(crate) fn flow(&self, flow: Flow) {
        self.requests(flow);
        self.answers(flow);
    }

    /// The same for what clients send alone.
    pub(crate) fn requests(&self, flow: Flow) {
        self.shared.requests.send_replace(flow);
    }

    /// The same for what the server sends alone.
    pub(crate) fn answers(&self, flow: Flow) {
        self.shared.answers.send_replace(flow);
    }

    pub(crate) fn arrivals(&self) -> Arrivals {
        self.shared.arrivals().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(Door::Open(accepting)) = &self.door {
            accepting.abort();
        }
        self.cut();
    }
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap()
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    // Connections of the listener before it may still be there.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        {
            let mut arrivals = shared.arrivals();
            arrivals.accepted.push(Instant::now());
            arrivals.open += 1;
        }
        let ending = shared.ending.subscribe();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Whichever side ended it, it is over.
            let _ = carry(client, &shared, ending).await;
            shared.arrivals().open -= 1;
        });
    }
}

/// Carries one connection until a side ends it or it is to end.
async fn carry(
    mut client: TcpStream,
    shared: &Shared,
    mut ending: watch::Receiver<Ending>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let ended = tokio::select! {
        biased;
        _ = ending.changed() => *ending.borrow(),
        passed = async {
            tokio::try_join!(
                pass(client_read, server_write, shared.requests.subscribe()),
                pass(server_read, client_write, shared.answers.subscribe()),
            )
        } => return passed.map(|_| ()),
    };
    match ended {
        Ending::Reset => client.set_zero_linger(),
        Ending::Fin => client.shutdown().await,
    }
}

/// One direction: reads ahead, so that a delay holds nothing up but what is delayed.
async fn pass(
    mut from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    let (sender, pieces) = mpsc::unbounded_channel();
    let read = async move {
        let mut piece = [0; 4_096];
        loop {
            let length = from.read(&mut piece).await?;
            let came = piece.get(..length).filter(|came| !came.is_empty());
            let Some(came) = came else { return Ok(()) };
            // Its receiver lives as long as we do.
            let _ = sender.send((Instant::now(), came.to_vec()));
        }
    };
    tokio::try_join!(read, deliver(pieces, to, flow)).map(|_| ())
}

async fn deliver(
    mut pieces: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    mut to: WriteHalf<'_>,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    while let Some((read_at, piece)) = pieces.recv().await {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let (due_at, length) = match *flow.borrow_and_update() {
                Flow::Pass => (None, rest.len()),
                Flow::Delay(delay) => (Some(read_at + delay), rest.len()),
                Flow::Drip(bytes, every) => (Some(Instant::now() + every), rest.len().min(bytes)),
                Flow::Silence => (Some(Instant::now() + Duration::from_secs(3_600)), 0),
            };
            if let Some(due_at) = due_at
                && timeout_at(due_at, flow.changed()).await.is_ok()
            {
                continue;
            }
            let (now, later) = rest.split_at(length);
            to.write_all(now).await?;
            rest = later;
        }
    }
    // The end comes after all that was sent, and silence holds it back too.
    let _ = flow.wait_for(|flow| *flow != Flow::Silence).await;
    to.shutdown().await
}
