//! Five connections and a call, driven by one plain thread and a channel; `std` and nothing else.
//!
//! The server is in this program too. It is stopped, which loses everybody, and started again; then
//! a call is made that fails once. What happens is told in plain words.
//!
//! ```console
//! $ cargo run --example thread
//! ```
//!
//! Who adopts this for a program of their own takes [`Driver`]: all the rest is the server, and the
//! words. Its rule is in [`Driver::turn`]: whatever has come in goes first, with one `now`, and the
//! tick last.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a driver reads the clock"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use steadfast::backoff::BackoffConfig;
use steadfast::breaker::State;
use steadfast::budget::BudgetConfig;
use steadfast::config::BreakerProfile;
use steadfast::{
    Action, AttemptId, BreakerId, CallFailure, CallId, Config, ConnId, DialCause, Endpoint,
    EndpointId, Event, Ledger, LossCause, Manager, Notice, PeerCause, PeerId, PeerState, Target,
    Time,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PEERS: u32 = 5;
const DIALS: BreakerId = BreakerId(1);
const CALLS: BreakerId = BreakerId(2);
/// How long this program waits for anything before it says that it did not happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Outcome {
    let mut config = Config::new(42); // the seed of all jitter: different in each process
    for profile in &mut config.peer_profiles {
        // A demonstration is impatient: the default grows from 1 s to 120 s.
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        profile.backoff = BackoffConfig { base, cap, ..BackoffConfig::default() };
    }
    let mut for_calls = BreakerProfile::for_calls();
    // Retries are paid from what successes earn. The first call of all has earned nothing yet.
    for_calls.calls.budget = Some(BudgetConfig { initial: 1, ..BudgetConfig::default() });
    config.breaker_profiles.push(for_calls);
    let dials = config.breaker_profile("default").ok_or("no breaker profile")?;
    let calls = config.breaker_profile("calls").ok_or("no breaker profile for calls")?;
    let peers = config.peer_profile("default").ok_or("no peer profile")?;
    let call = config.call_profile("default").ok_or("no call profile")?;

    let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = server.address;
    let mut driver = Driver::new(Manager::new(config, 0x5ec2e7)?, address);
    let report = driver.report.clone(); // any thread may have one
    report.send(News::Event(Event::AddBreaker { breaker: DIALS, profile: dials }))?;
    report.send(News::Event(Event::AddBreaker { breaker: CALLS, profile: calls }))?;
    for peer in (1..=PEERS).map(|number| PeerId(number.into())) {
        let endpoints = vec![Endpoint { id: EndpointId(0), breaker: DIALS }];
        report.send(News::Event(Event::AddPeer { peer, profile: peers, endpoints }))?;
        report.send(News::Event(Event::Connect { peer }))?;
    }
    driver.run_until("all are connected", |manager| manager.stats().peers.connected == PEERS)?;

    println!("        -- the server stops --");
    server.stop();
    driver.run_until("all are lost, and the breaker has opened", |manager| {
        manager.stats().peers.connected == 0 && manager.stats().breakers.open == 1
    })?;

    println!("        -- the server is started again --");
    let server = Server::start(address)?;
    driver.run_until("all are back", |manager| manager.stats().peers.connected == PEERS)?;

    println!("        -- a call, which the server fails once --");
    let target = Target::Peer { peer: PeerId(3), breaker: CALLS };
    let asked = Event::Call { call: CallId(1), target, profile: call, deadline: None };
    report.send(News::Event(asked))?;
    driver.run_until("the call is done", |manager| manager.stats().calls_done == 1)?;
    server.stop();

    let stats = driver.manager.stats();
    if (stats.retries, stats.attempts) != (1, 2) {
        return Err(format!("{} attempts, {} retries", stats.attempts, stats.retries).into());
    }
    println!("{} dials, {} of them succeeded", stats.dials, stats.dials_succeeded);
    Ok(())
}

/// What comes in: what somebody wants, and what the threads that dial and read have to say.
enum News {
    Event(Event),
    Dialed(ConnId, io::Result<TcpStream>),
    Line(ConnId, String),
    Ended(ConnId, LossCause),
    Answered(AttemptId, Result<(), CallFailure>),
}

/// Carries out what the manager says and tells it what happened.
struct Driver {
    manager: Manager,
    /// Whether this driver keeps its side of the contract. A program in production leaves it out.
    ledger: Ledger,
    start: Instant,
    address: SocketAddr,
    report: Sender<News>,
    facts: Receiver<News>,
    /// The connections that are alive; `None` while one is being dialed. Nothing is said about any
    /// other: a thread may still report one that the manager has closed.
    links: BTreeMap<ConnId, Option<TcpStream>>,
    /// The attempts that are alive, and over which connection each runs.
    attempts: BTreeMap<AttemptId, ConnId>,
    /// What the manager is fed next: signs of life, or one other event.
    batch: Vec<Event>,
    /// Kept for its memory.
    actions: Vec<Action>,
}

impl Driver {
    fn new(manager: Manager, address: SocketAddr) -> Self {
        let (report, facts) = mpsc::channel();
        let (links, attempts) = (BTreeMap::new(), BTreeMap::new());
        let (ledger, start) = (Ledger::new(), Instant::now());
        let (batch, actions) = (vec![], vec![]);
        Self { manager, ledger, start, address, report, facts, links, attempts, batch, actions }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    fn run_until(&mut self, what: &str, reached: impl Fn(&Manager) -> bool) -> Outcome {
        let give_up_at = self.now() + PATIENCE;
        while !reached(&self.manager) {
            if self.now() > give_up_at {
                return Err(format!("waited {PATIENCE:?} in vain until {what}").into());
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Sleeps until something comes in or is due; then all that came in, and only then the tick, so
    /// that nobody is judged while a sign of life lies unread.
    fn turn(&mut self) -> Outcome {
        let sleep = self.manager.next_deadline().map_or(PATIENCE, |due| due.since(self.now()));
        let first = self.facts.recv_timeout(sleep.min(PATIENCE)).ok();
        let now = self.now(); // once for all of one wake-up
        let news: Vec<News> = first.into_iter().chain(self.facts.try_iter()).collect();
        for news in news {
            self.feed(news, now)?;
        }
        self.step(Event::Tick, now)
    }

    /// Says what it means to the manager, unless it is about something that is dead. Signs of life
    /// are taken down until something else is said, or all has been.
    fn feed(&mut self, news: News, now: Time) -> Outcome {
        if !matches!(news, News::Line(..)) {
            self.hand_over(now)?; // which may end what this is about
        }
        match news {
            News::Event(event) => self.step(event, now)?,
            News::Dialed(conn, Ok(stream)) if self.links.contains_key(&conn) => {
                listen(conn, stream.try_clone()?, self.report.clone());
                self.links.insert(conn, Some(stream));
                self.step(Event::Connected { conn, resumed: false }, now)?;
            }
            News::Dialed(conn, Err(error)) if self.links.remove(&conn).is_some() => {
                let cause = dial_cause(&error);
                self.step(Event::DialFailed { conn, cause, retry_after: None }, now)?;
            }
            News::Line(conn, line) if self.links.contains_key(&conn) => {
                self.batch.push(Event::Heard { conn });
                if let Some((attempt, answer)) = parse_answer(&line) {
                    self.feed(News::Answered(attempt, answer), now)?;
                }
            }
            News::Ended(conn, cause) if self.links.remove(&conn).is_some() => {
                self.step(Event::Lost { conn, cause }, now)?;
                self.end_attempts_over(conn, CallFailure::Disconnected)?;
            }
            News::Answered(attempt, answer) if self.attempts.remove(&attempt).is_some() => {
                let event = match answer {
                    Ok(()) => Event::Succeeded { attempt },
                    Err(kind) => Event::Failed { attempt, kind, retry_after: None },
                };
                self.step(event, now)?;
            }
            News::Dialed(..) | News::Line(..) | News::Ended(..) | News::Answered(..) => {}
        }
        Ok(())
    }

    /// Any event may end a connection or an attempt; so nothing more is said until what follows from
    /// this one is carried out.
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
            self.carry_out(action, now)?;
        }
        self.actions = actions;
        Ok(())
    }

    fn carry_out(&mut self, action: Action, now: Time) -> Outcome {
        match action {
            Action::Dial { conn, .. } => {
                self.links.insert(conn, None);
                let (address, report) = (self.address, self.report.clone());
                thread::spawn(move || report.send(News::Dialed(conn, dial(address))));
            }
            Action::CancelDial { conn } => {
                self.links.remove(&conn);
            }
            Action::Close { conn } => {
                if let Some(Some(stream)) = self.links.remove(&conn) {
                    let _ = stream.shutdown(Shutdown::Both); // which also ends its reader
                }
                self.end_attempts_over(conn, CallFailure::Local)?;
            }
            Action::StartAttempt { attempt, conn: Some(conn), .. } => {
                self.attempts.insert(attempt, conn);
                let request = format!("call {}\n", attempt.to_raw());
                let stream = self.links.get_mut(&conn).and_then(Option::as_mut);
                if stream.is_none_or(|stream| stream.write_all(request.as_bytes()).is_err()) {
                    self.report.send(News::Answered(attempt, Err(CallFailure::Disconnected)))?;
                }
            }
            Action::CancelAttempt { attempt } => {
                self.attempts.remove(&attempt);
            }
            Action::Done { call } => println!("{:>7} call {call} is done", seconds(now)),
            Action::Reject { .. } | Action::GiveUp { .. } => {
                return Err(format!("the call failed: {action:?}").into());
            }
            Action::Notice(notice) => println!("{:>7} {}", seconds(now), in_words(&notice)),
            // No peer is pinged or may dial us, and every call goes to a peer.
            Action::Ping { .. }
            | Action::Adopt { .. }
            | Action::Refuse { .. }
            | Action::StartAttempt { conn: None, .. } => {
                return Err(format!("not expected: {action:?}").into());
            }
        }
        Ok(())
    }

    /// Attempts end with their connection, and the manager leaves it to us to say so.
    fn end_attempts_over(&self, conn: ConnId, kind: CallFailure) -> Outcome {
        for (attempt, _) in self.attempts.iter().filter(|(_, over)| **over == conn) {
            self.report.send(News::Answered(*attempt, Err(kind)))?;
        }
        Ok(())
    }
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    // While nobody listens there, a dial to a port of one's own host may be given that very port,
    // and is then connected to itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn dial_cause(error: &io::Error) -> DialCause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => DialCause::Refused,
        io::ErrorKind::TimedOut => DialCause::Timeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            DialCause::Unreachable
        }
        _ => DialCause::Local,
    }
}

/// A thread that reports what comes in over one connection, and its end.
fn listen(conn: ConnId, stream: TcpStream, report: Sender<News>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return report.send(News::Ended(conn, LossCause::Reset)) };
            report.send(News::Line(conn, line))?;
        }
        report.send(News::Ended(conn, LossCause::Eof))
    });
}

/// `done 7` or `busy 7`, where 7 is the attempt.
fn parse_answer(line: &str) -> Option<(AttemptId, Result<(), CallFailure>)> {
    let (word, number) = line.split_once(' ')?;
    let answer = match word {
        "done" => Ok(()),
        "busy" => Err(CallFailure::Unavailable),
        _ => return None,
    };
    Some((AttemptId::from_raw(number.parse().ok()?), answer))
}

fn in_words(notice: &Notice) -> String {
    match notice {
        Notice::Peer { peer, cause: PeerCause::Asked, .. } => format!("{peer} is asked for"),
        Notice::Peer { peer, to: PeerState::Connected, .. } => format!("{peer} is connected"),
        Notice::Peer { peer, cause: PeerCause::Lost(cause), .. } => {
            format!("{peer} lost its connection ({cause:?})")
        }
        Notice::RetryAt { peer, at, failures } => {
            format!("{peer} failed {failures} times, dials again at {}", seconds(*at))
        }
        Notice::Breaker { to: State::Open { until }, .. } => {
            format!("the breaker opened: nobody dials until {}", seconds(*until))
        }
        Notice::Breaker { to: State::HalfOpen, .. } => String::from("the breaker lets a few try"),
        Notice::Breaker { to: State::Closed, .. } => String::from("the breaker closed"),
        Notice::CallRetries { call, failure, at } => {
            format!("call {call} failed ({failure:?}), is tried again at {}", seconds(*at))
        }
        other => format!("{other:?}"),
    }
}

fn seconds(time: Time) -> String {
    format!("{:.3}s", time.since(Time::ZERO).as_secs_f64())
}

/// A server that greets and answers each call, the very first one with "busy".
struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<TcpStream>>>,
    listening: JoinHandle<()>,
}

impl Server {
    fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(Mutex::new(vec![]));
        let (stop, streams) = (stopped.clone(), accepted.clone());
        let listening = thread::spawn(move || {
            let busy = Arc::new(AtomicBool::new(true));
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (busy, copy) = (busy.clone(), stream.try_clone());
                streams.lock().unwrap_or_else(PoisonError::into_inner).extend(copy);
                thread::spawn(move || serve(stream, &busy));
            }
        });
        Ok(Self { address, stopped, accepted, listening })
    }

    /// Drops the listener and ends all connections.
    fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes it up
        let _ = self.listening.join();
        for stream in self.accepted.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut stream: TcpStream, busy: &AtomicBool) -> io::Result<()> {
    stream.write_all(b"welcome\n")?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = if busy.swap(false, Ordering::SeqCst) { "busy" } else { "done" };
        stream.write_all((line?.replace("call", answer) + "\n").as_bytes())?;
    }
    Ok(())
}
