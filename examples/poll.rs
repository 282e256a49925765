//! A hundred connections driven by one poll loop, on non-blocking sockets (`mio`).
//!
//! The server is a second loop in this program. First it goes on holding one connection and says
//! nothing more on it, which only pings can find out; then it is killed, and comes back.
//!
//! ```console
//! $ cargo run --example poll
//! ```
//!
//! The rule is in [`Driver::turn`]: the poll sleeps until the manager's deadline at the longest; all
//! that one wake-up brought is fed with one `now`, signs of life all at once; the tick comes last.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a driver reads the clock"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use steadfast::backoff::BackoffConfig;
use steadfast::breaker::State;
use steadfast::config::{HealthConfig, PeerProfile, Signs};
use steadfast::probe::ProbeConfig;
use steadfast::{
    Action, BreakerId, Config, ConnId, DialCause, Endpoint, EndpointId, Event, Ledger, LossCause,
    Manager, Notice, PeerId, PingId, Ratio, Time,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PEERS: u32 = 100;
/// How long this program waits for anything before it says that it did not happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is sent for a ping, and comes back: its number.
const FRAME: usize = 8;

fn main() -> Outcome {
    let mut config = Config::new(42); // the seed of all jitter: different in each process
    // A demonstration is impatient: these are 10 s and 10 s, and 1 s to 120 s, by default.
    let (interval, timeout) = (Duration::from_millis(250), Duration::from_millis(500));
    let probe = ProbeConfig { interval, timeout, ..ProbeConfig::default() };
    let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
    config.peer_profiles.push(PeerProfile {
        name: String::from("pinged"),
        backoff: BackoffConfig { base, cap, ..BackoffConfig::default() },
        stable_after: Duration::from_millis(100),
        health: HealthConfig { signs: Signs::Pings(probe), ..HealthConfig::default() },
        ..PeerProfile::default()
    });
    let breakers = config.breaker_profile("default").ok_or("no breaker profile")?;
    let profile = config.peer_profile("pinged").ok_or("no peer profile")?;

    let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = server.address;
    let mut driver = Driver::new(Manager::new(config, 0x5ec2e7)?, address)?;
    let breaker = BreakerId(1);
    driver.tell(Event::AddBreaker { breaker, profile: breakers })?;
    for peer in (1..=PEERS).map(|number| PeerId(number.into())) {
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
        driver.tell(Event::AddPeer { peer, profile, endpoints })?;
        driver.tell(Event::Connect { peer })?;
    }
    driver.run_until("all are connected", |driver| driver.connected() == PEERS)?;

    driver.say("the server falls silent on one connection");
    let muted = server.mute_one()?;
    let peer = driver.peer_at(muted).ok_or("the server muted nobody of ours")?;
    driver.run_until("the silent one is found", |driver| driver.suspected.contains(&peer))?;
    driver.run_until("it is back", |driver| driver.connected() == PEERS)?;

    driver.say("the server is killed");
    server.stop()?;
    driver.run_until("all are lost, and the breaker has opened", |driver| {
        driver.connected() == 0 && driver.manager.stats().breakers.open == 1
    })?;

    driver.say("the server is there again");
    let server = Server::start(address)?;
    driver.run_until("all are back", |driver| driver.connected() == PEERS)?;
    server.stop()?;

    let stats = driver.manager.stats();
    let slowest = stats.time_to_recover.quantile(Ratio::percent(100));
    println!("{} dials, {} pings, {} pongs", stats.dials, stats.pings, stats.pongs);
    println!("the slowest was without a connection for {slowest:.1?}");
    Ok(())
}

/// A socket, and who it is for.
struct Link {
    peer: PeerId,
    stream: TcpStream,
    up: bool,
    /// What came in of a frame that is not yet whole.
    rest: Vec<u8>,
}

/// Carries out what the manager says and tells it what happened.
struct Driver {
    manager: Manager,
    /// Whether this driver keeps its side of the contract. A program in production leaves it out.
    ledger: Ledger,
    start: Instant,
    address: SocketAddr,
    poll: Poll,
    /// Those that are alive; what the poll still has to say of any other is dropped.
    links: BTreeMap<ConnId, Link>,
    /// Ends that the manager has not been told of. What failed while it was being ordered is news for
    /// the next wake-up.
    failed: BTreeMap<ConnId, io::Error>,
    /// What the manager is fed next: signs of life, or one other event.
    batch: Vec<Event>,
    /// Kept for its memory.
    actions: Vec<Action>,
    suspected: Vec<PeerId>,
    /// How many were connected when that was last told.
    told: u32,
}

impl Driver {
    fn new(manager: Manager, address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            manager,
            ledger: Ledger::new(),
            start: Instant::now(),
            address,
            poll: Poll::new()?,
            links: BTreeMap::new(),
            failed: BTreeMap::new(),
            batch: vec![],
            actions: vec![],
            suspected: vec![],
            told: 0,
        })
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn connected(&self) -> u32 {
        self.manager.stats().peers.connected
    }

    fn peer_at(&self, local: SocketAddr) -> Option<PeerId> {
        let mut links = self.links.values();
        links.find(|link| link.stream.local_addr().ok() == Some(local)).map(|link| link.peer)
    }

    fn run_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) -> Outcome {
        let give_up_at = self.now() + PATIENCE;
        let mut events = Events::with_capacity(256);
        while !reached(self) {
            if self.now() > give_up_at {
                return Err(format!("waited {PATIENCE:?} in vain until {what}").into());
            }
            self.turn(&mut events)?;
        }
        self.say(what);
        Ok(())
    }

    /// Sleeps until something comes in or is due; then all that came in, and only then the tick, so
    /// that nobody is judged while a sign of life lies unread.
    fn turn(&mut self, events: &mut Events) -> Outcome {
        let sleep = self.manager.next_deadline().map_or(PATIENCE, |due| due.since(self.now()));
        let sleep = if self.failed.is_empty() { sleep.min(PATIENCE) } else { Duration::ZERO };
        match self.poll.poll(events, Some(sleep)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = self.now(); // once for all of one wake-up
        for event in &*events {
            let conn = ConnId::from_raw(event.token().0.try_into()?);
            if let Err(error) = self.look_at(conn, now)? {
                self.failed.insert(conn, error);
            }
        }
        self.hand_over(now)?;
        // What fails meanwhile comes next time, or a server that is gone would hold us here.
        for conn in self.failed.keys().copied().collect::<Vec<_>>() {
            self.end(conn, now)?;
        }
        self.step(Event::Tick, now)?;
        let connected = self.connected();
        if connected.abs_diff(self.told) >= PEERS / 4 {
            self.told = connected;
            self.say(&format!("{connected} are connected"));
        }
        Ok(())
    }

    /// Takes down whatever has come in over a connection; the inner error is its end.
    fn look_at(&mut self, conn: ConnId, now: Time) -> Outcome<io::Result<()>> {
        if self.links.get(&conn).is_some_and(|link| !link.up) {
            self.hand_over(now)?; // which may cancel this dial
        }
        let Some(link) = self.links.get_mut(&conn) else { return Ok(Ok(())) };
        if !link.up {
            match is_up(&link.stream) {
                Ok(false) => return Ok(Ok(())),
                Ok(true) => link.up = true,
                Err(error) => return Ok(Err(error)),
            }
            self.step(Event::Connected { conn, resumed: false }, now)?;
        }
        let mut buffer = [0; 1_024];
        // The manager may have closed it in answer: then there is nothing to read.
        while let Some(link) = self.links.get_mut(&conn) {
            let came_in = match link.stream.read(&mut buffer) {
                Ok(0) => return Ok(Err(ErrorKind::UnexpectedEof.into())),
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            link.rest.extend_from_slice(came_in);
            let pings = take_frames(&mut link.rest);
            self.batch.extend(pings.into_iter().map(|ping| Event::Pong { ping }));
        }
        Ok(Ok(()))
    }

    /// Reports the end of a dial or of a connection, if it has not been closed meanwhile.
    fn end(&mut self, conn: ConnId, now: Time) -> Outcome {
        let Some(error) = self.failed.remove(&conn) else { return Ok(()) };
        let event = if self.links.remove(&conn).is_some_and(|link| link.up) {
            let eof = error.kind() == ErrorKind::UnexpectedEof;
            Event::Lost { conn, cause: if eof { LossCause::Eof } else { LossCause::Reset } }
        } else {
            let cause = match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => DialCause::Refused,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    DialCause::Unreachable
                }
                ErrorKind::TimedOut => DialCause::Timeout,
                _ => DialCause::Local,
            };
            Event::DialFailed { conn, cause, retry_after: None }
        };
        self.step(event, now)
    }

    /// An intent, from outside the loop.
    fn tell(&mut self, event: Event) -> Outcome {
        self.step(event, self.now())
    }

    /// Any event may end a connection; so nothing more is said until what follows from this one is
    /// carried out. Signs of life that were taken down go first.
    fn step(&mut self, event: Event, now: Time) -> Outcome {
        self.batch.push(event);
        self.hand_over(now)
    }

    /// Feeds the manager what was taken down, all at once.
    fn hand_over(&mut self, now: Time) -> Outcome {
        let Some((last, before)) = self.batch.split_last() else { return Ok(()) };
        let mut actions = mem::take(&mut self.actions);
        self.manager.step_batch(&self.batch, now, &mut actions);
        let deadline = self.manager.next_deadline();
        // All was said before any answer was known, and is judged so.
        for event in before {
            self.ledger.observe(event, &[], now, deadline)?;
        }
        self.ledger.observe(last, &actions, now, deadline)?;
        self.batch.clear();
        for action in actions.drain(..) {
            self.carry_out(action)?;
        }
        self.actions = actions;
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Outcome {
        match action {
            Action::Dial { conn, peer, .. } => match TcpStream::connect(self.address) {
                Ok(mut stream) => {
                    // An issued id is a number; here it is the poll's token as well.
                    let token = Token(conn.to_raw().try_into()?);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    self.poll.registry().register(&mut stream, token, interest)?;
                    self.links.insert(conn, Link { peer, stream, up: false, rest: vec![] });
                }
                Err(error) => drop(self.failed.insert(conn, error)),
            },
            Action::CancelDial { conn } | Action::Close { conn } => {
                self.failed.remove(&conn);
                self.links.remove(&conn); // which closes it, and takes it out of the poll
            }
            Action::Ping { ping, conn } => {
                let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
                match link.stream.write(&ping.to_raw().to_be_bytes()) {
                    Ok(FRAME) => {}
                    // Nobody reads over there. The frame is torn, or is missed as a ping.
                    Ok(_) => drop(self.failed.insert(conn, ErrorKind::WriteZero.into())),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => drop(self.failed.insert(conn, error)),
                }
            }
            Action::Notice(Notice::Suspected { peer, silence, .. }) => {
                self.say(&format!("{peer} is suspected: silent for {silence:.1?}"));
                self.suspected.push(peer);
            }
            Action::Notice(Notice::Breaker { to, .. }) => self.say(match to {
                State::Closed => "the breaker closed",
                State::HalfOpen => "the breaker lets a few try",
                _ => "the breaker opened: nobody dials",
            }),
            Action::Notice(_) => {}
            // Nobody dials us, and nobody calls.
            Action::Adopt { .. }
            | Action::Refuse { .. }
            | Action::StartAttempt { .. }
            | Action::CancelAttempt { .. }
            | Action::Reject { .. }
            | Action::GiveUp { .. }
            | Action::Done { .. } => return Err(format!("not expected: {action:?}").into()),
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("{:6.3}s {what}", self.start.elapsed().as_secs_f64());
    }
}

/// Whether a dial has succeeded; not yet is no error.
fn is_up(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let Ok(there) = stream.peer_addr() else { return Ok(false) };
    // While nobody listens there, a dial to a port of one's own host may be given that very port,
    // and is then connected to itself.
    if stream.local_addr()? == there {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(true)
}

/// The pings that have come back whole; what is left waits for more.
fn take_frames(bytes: &mut Vec<u8>) -> Vec<PingId> {
    let (frames, _) = bytes.as_chunks::<FRAME>();
    let pings: Vec<PingId> =
        frames.iter().map(|frame| PingId::from_raw(u64::from_be_bytes(*frame))).collect();
    bytes.drain(..pings.len() * FRAME);
    pings
}

enum Order {
    /// Leave one connection unread from now on, and tell whose.
    Mute(Sender<SocketAddr>),
    Stop,
}

/// A server that sends back whatever comes in.
struct Server {
    address: SocketAddr,
    orders: Sender<Order>,
    waker: Waker,
    serving: JoinHandle<io::Result<()>>,
}

impl Server {
    const LISTENER: Token = Token(0);
    const ORDERS: Token = Token(1);

    fn start(address: SocketAddr) -> io::Result<Self> {
        let (poll, mut listener) = (Poll::new()?, TcpListener::bind(address)?);
        let address = listener.local_addr()?;
        poll.registry().register(&mut listener, Self::LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), Self::ORDERS)?;
        let (orders, inbox) = mpsc::channel();
        let serving = thread::spawn(move || Self::serve(poll, &listener, &inbox));
        Ok(Self { address, orders, waker, serving })
    }

    fn mute_one(&self) -> Outcome<SocketAddr> {
        let (reply, whose) = mpsc::channel();
        self.orders.send(Order::Mute(reply))?;
        self.waker.wake()?;
        Ok(whose.recv_timeout(PATIENCE)?)
    }

    /// Drops the listener and ends all connections.
    fn stop(self) -> Outcome {
        self.orders.send(Order::Stop)?;
        self.waker.wake()?;
        Ok(self.serving.join().map_err(|_| "the server panicked")??)
    }

    fn serve(mut poll: Poll, listener: &TcpListener, orders: &Receiver<Order>) -> io::Result<()> {
        let mut streams: BTreeMap<Token, TcpStream> = BTreeMap::new();
        let (mut to_mute, mut muted) = (None, None);
        let mut tokens = (2..).map(Token);
        let mut events = Events::with_capacity(256);
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for order in orders.try_iter() {
                match order {
                    Order::Stop => return Ok(()),
                    Order::Mute(reply) => to_mute = Some(reply),
                }
            }
            for token in events.iter().map(|event| event.token()) {
                if token == Self::LISTENER {
                    while let (Ok((mut stream, _)), Some(token)) =
                        (listener.accept(), tokens.next())
                    {
                        poll.registry().register(&mut stream, token, Interest::READABLE)?;
                        streams.insert(token, stream);
                    }
                } else if Some(token) != muted
                    && let Some(stream) = streams.get_mut(&token)
                    && echo(stream).is_err()
                {
                    streams.remove(&token);
                }
            }
            if let Some((token, stream)) = streams.first_key_value()
                && let Some(reply) = to_mute.take()
            {
                muted = Some(*token);
                let _ = reply.send(stream.peer_addr()?);
            }
        }
    }
}

/// Sends back what has come in; the error is the connection's end.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1_024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => stream.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
