//! A transport without a network, for tests under a paused clock.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use steadfast_tokio::steadfast::Config;
use steadfast_tokio::{
    BreakerId, Builder, Dial, DialCause, DialError, Endpoint, Established, Handle, Link, LossCause,
    PeerId, PeerState, Transport, config,
};
use tokio::sync::watch;

/// How the world treats a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Accept,
    Refuse,
    /// No answer, ever.
    Hang,
    Panic,
}

/// The other side of all connections.
#[derive(Debug)]
pub(crate) struct World {
    mode: Mutex<Mode>,
    conns: Mutex<Vec<Weak<Conn>>>,
    pub(crate) dials: AtomicUsize,
    /// Dials whose future is alive.
    pub(crate) dialing: AtomicUsize,
    pub(crate) pings: AtomicUsize,
    pub(crate) closed: AtomicUsize,
    pub(crate) close_hangs: AtomicBool,
    /// Where the last dial went.
    pub(crate) last_address: Mutex<String>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            mode: Mutex::new(Mode::Accept),
            conns: Mutex::default(),
            dials: AtomicUsize::new(0),
            dialing: AtomicUsize::new(0),
            pings: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            close_hangs: AtomicBool::new(false),
            last_address: Mutex::default(),
        })
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// All connections that somebody still holds.
    pub(crate) fn conns(&self) -> Vec<Arc<Conn>> {
        self.conns.lock().unwrap().iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends all connections from the other side; how many.
    pub(crate) fn cut(&self, cause: LossCause) -> usize {
        let alive = self.conns().into_iter().filter(|conn| conn.end(cause));
        alive.count()
    }
}

/// A connection to nowhere.
#[derive(Debug)]
pub(crate) struct Conn {
    ended: watch::Sender<Option<LossCause>>,
    /// Answers no ping.
    pub(crate) silent: AtomicBool,
    /// What it does next when it is asked to run.
    pub(crate) panics: AtomicBool,
}

impl Conn {
    pub(crate) fn new() -> Self {
        Self {
            ended: watch::Sender::new(None),
            silent: AtomicBool::new(false),
            panics: AtomicBool::new(false),
        }
    }

    pub(crate) fn end(&self, cause: LossCause) -> bool {
        self.ended.send_replace(Some(cause)).is_none()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ended.borrow().is_some()
    }
}

pub(crate) struct Fake(pub(crate) Arc<World>);

/// Counts a future as long as it lives.
struct Alive<'a>(&'a AtomicUsize);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Transport for Fake {
    type Address = String;
    type Connection = Arc<Conn>;

    async fn connect(&self, dial: Dial<String>) -> Result<Established<Arc<Conn>>, DialError> {
        self.0.dials.fetch_add(1, SeqCst);
        self.0.dialing.fetch_add(1, SeqCst);
        let _alive = Alive(&self.0.dialing);
        self.0.last_address.lock().unwrap().clone_from(&dial.address);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mode = *self.0.mode.lock().unwrap();
        match mode {
            Mode::Accept => {
                let conn = Arc::new(Conn::new());
                self.0.conns.lock().unwrap().push(Arc::downgrade(&conn));
                Ok(Established::fresh(conn))
            }
            Mode::Refuse => Err(DialError::new(DialCause::Refused)),
            Mode::Hang => std::future::pending().await,
            Mode::Panic => panic!("this dial panics, as the test wants"),
        }
    }

    async fn run(&self, conn: Arc<Arc<Conn>>, _link: Link) -> LossCause {
        let mut ended = conn.ended.subscribe();
        let cause = ended.wait_for(Option::is_some).await.unwrap().unwrap();
        assert!(!conn.panics.load(SeqCst), "this connection panics, as the test wants");
        cause
    }

    async fn ping(&self, conn: Arc<Arc<Conn>>) -> Result<(), LossCause> {
        self.0.pings.fetch_add(1, SeqCst);
        if conn.silent.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(())
    }

    async fn close(&self, conn: Arc<Arc<Conn>>) {
        if self.0.close_hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        conn.end(LossCause::Local);
        self.0.closed.fetch_add(1, SeqCst);
    }
}

pub(crate) const DIALS: BreakerId = BreakerId(1);
pub(crate) const CALLS: BreakerId = BreakerId(2);

/// A driver over the world, with a breaker for dials and one for calls.
pub(crate) fn start(world: &Arc<World>, config: Config) -> Handle<Fake> {
    let handle = Builder::new(Fake(Arc::clone(world))).config(config).start().unwrap();
    handle.add_breaker(DIALS, "default").unwrap();
    handle.add_breaker(CALLS, "calls").unwrap();
    handle
}

pub(crate) fn add_peers(handle: &Handle<Fake>, peers: u64) {
    for peer in (0..peers).map(PeerId) {
        let endpoint = Endpoint::only(DIALS, format!("peer-{}", peer.0));
        handle.add_peer(peer, "default", vec![endpoint]).unwrap();
        handle.connect(peer).unwrap();
    }
}

/// Waits until so many peers are connected.
pub(crate) async fn all_up(handle: &Handle<Fake>, peers: u32) {
    while handle.stats().peers.connected < peers {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the peer is in that state.
pub(crate) async fn state(handle: &Handle<Fake>, peer: PeerId, state: PeerState) {
    handle.watch(peer).unwrap().wait_for(|now| *now == state).await.unwrap();
}

/// The driver kept its contract and the managers their invariants.
pub(crate) fn sound(handle: &Handle<Fake>) {
    assert_eq!(handle.breach(), None);
    handle.check().unwrap();
}

/// A budget that is full from the start: what is paid from it is not the subject here.
pub(crate) fn with_budget() -> Config {
    let mut config = config(1);
    let budget = config.breaker_profiles[1].calls.budget.as_mut().unwrap();
    budget.initial = budget.capacity;
    config
}

/// Nothing is left of any call.
pub(crate) fn at_rest(handle: &Handle<Fake>) {
    let stats = handle.stats();
    assert_eq!(stats.calls_now.total(), 0);
    assert_eq!(stats.attempts_in_flight, 0);
    assert_eq!(handle.gates(CALLS).unwrap().running, 0);
    assert_eq!(handle.gates(CALLS).unwrap().waiting, 0);
    assert_eq!(handle.underway().calls, 0);
    let ended = stats.calls_done + stats.rejections.total() + stats.give_ups.total();
    assert_eq!(stats.calls, ended, "each call ended once");
    sound(handle);
}
