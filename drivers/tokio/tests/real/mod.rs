//! What the tests over real connections share: quick settings with the bounds that follow from
//! them, questions whose answers cannot be mistaken, and what must hold at the end of each run.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "for tests")]

pub(crate) mod counted;

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use steadfast_tokio::steadfast::backoff::BackoffConfig;
use steadfast_tokio::steadfast::config::Signs;
use steadfast_tokio::steadfast::probe::ProbeConfig;
use steadfast_tokio::steadfast::{Config, Notice, breaker};
use steadfast_tokio::tcp::Connection;
use steadfast_tokio::{BreakerId, Endpoint, Failure, Handle, Noticed, PeerId, Transport, config};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{sleep, timeout};

pub(crate) use counted::Counted;

pub(crate) const DIALS: BreakerId = BreakerId(1);
pub(crate) const CALLS: BreakerId = BreakerId(2);

/// A ping after a second of silence, a second to answer it, twice.
pub(crate) const PINGS: ProbeConfig = ProbeConfig {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    unhealthy_threshold: 2,
    healthy_threshold: 1,
    spread: true,
};

/// After so much silence a connection is suspect, and not before.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// Added to each bound: when this machine is late, judgement holds for so long at the most
/// (`SleepConfig::max_hold`).
pub(crate) const SLACK: Duration = Duration::from_secs(5);

/// The driver's own settings with quicker [`PINGS`]; a connection counts as stable after a second,
/// so that no test must wait for that.
pub(crate) fn quick() -> Config {
    let mut config = config(1);
    for peers in &mut config.peer_profiles {
        peers.health.signs = Signs::Pings(PINGS);
        peers.stable_after = Duration::from_secs(1);
    }
    config
}

/// The longest pause of a peer's backoff, and of a breaker, when [`impatient`].
pub(crate) const LONGEST: Duration = Duration::from_secs(1);
/// A server that is there again is found after the breaker's pause and then the peer's own.
pub(crate) const BACK: Duration = Duration::from_secs(2);

/// As [`quick`], with pauses and dials that are short too.
pub(crate) fn impatient() -> Config {
    let mut config = quick();
    let backoff = |base| BackoffConfig { base, cap: LONGEST, ..BackoffConfig::default() };
    for peers in &mut config.peer_profiles {
        peers.backoff = backoff(Duration::from_millis(100));
        peers.dial_timeout = Duration::from_secs(1);
    }
    for breakers in &mut config.breaker_profiles {
        breakers.breaker.open_for = backoff(Duration::from_millis(200));
    }
    config
}

/// Adds the two breakers, and so many peers at that address, each wanted at once.
pub(crate) fn populate<T: Transport>(handle: &Handle<T>, peers: u64, address: &T::Address)
where
    T::Address: Clone,
{
    handle.add_breaker(DIALS, "default").unwrap();
    handle.add_breaker(CALLS, "calls").unwrap();
    for peer in (0..peers).map(PeerId) {
        let endpoint = Endpoint::only(DIALS, address.clone());
        handle.add_peer(peer, "default", vec![endpoint]).unwrap();
        handle.connect(peer).unwrap();
    }
}

/// Waits for what must come in this time, and a [`SLACK`].
pub(crate) async fn within<R>(bound: Duration, what: &str, future: impl Future<Output = R>) -> R {
    let Ok(result) = timeout(bound + SLACK, future).await else {
        panic!("{what}: not within {bound:?} and a slack of {SLACK:?}");
    };
    result
}

/// Waits until that holds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until so many peers are connected.
pub(crate) async fn all_up<T: Transport>(handle: &Handle<T>, peers: u32) {
    until(|| handle.stats().peers.connected == peers).await;
}

/// For how long a connection had been silent when it was suspected.
pub(crate) const fn suspected(notice: &Notice) -> Option<Duration> {
    match notice {
        Notice::Suspected { silence, .. } => Some(*silence),
        _ => None,
    }
}

/// Waits for the notice that `wanted` finds something in.
pub(crate) async fn noticed<R>(
    notices: &mut Receiver<Noticed>,
    wanted: impl Fn(&Notice) -> Option<R>,
) -> R {
    loop {
        match notices.recv().await {
            Ok((_, notice)) => {
                if let Some(found) = wanted(&notice) {
                    return found;
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => panic!("the driver is gone"),
        }
    }
}

/// Whether a notice says that the breaker has opened.
pub(crate) fn opened(breaker: BreakerId) -> impl Fn(&Notice) -> Option<()> {
    move |notice| match notice {
        Notice::Breaker { breaker: which, to: breaker::State::Open { .. }, .. } => {
            (*which == breaker).then_some(())
        }
        _ => None,
    }
}

/// Sends the question, and waits for what only its answer contains. One at a time on a connection.
pub(crate) async fn ask(
    connection: &Connection,
    question: &str,
    answer: &str,
) -> Result<(), Failure<io::Error>> {
    connection.send(question.as_bytes()).await?;
    let mut came = String::new();
    while let Some(piece) = connection.receive().await {
        came.push_str(&String::from_utf8_lossy(&piece));
        if came.contains(answer) {
            return Ok(());
        }
    }
    Err(io::Error::from(ErrorKind::UnexpectedEof).into())
}

/// All are connected, and nothing else is under way; the contract was kept and the managers are
/// whole; each call ended once; and after the shutdown no task is left.
pub(crate) async fn ends_well<T: Transport>(handle: &Handle<T>, peers: u32) {
    let at_rest = || {
        let underway = handle.underway();
        underway.tasks == underway.connections && underway.calls == 0
    };
    within(Duration::from_secs(5), "nothing but connections", until(at_rest)).await;
    let stats = handle.stats();
    assert_eq!(stats.peers.connected, peers, "{:?}", stats.peers);
    assert_eq!(stats.peers.total(), u64::from(peers), "nobody is forgotten");
    assert_eq!(handle.underway().connections, usize::try_from(peers).unwrap());
    let ended = stats.calls_done + stats.rejections.total() + stats.give_ups.total();
    assert_eq!(stats.calls, ended, "each call ended once");
    sound(handle);
    let shutdown = handle.shutdown(Duration::from_secs(1)).await;
    assert_eq!((shutdown.calls_given_up, shutdown.tasks_left), (0, 0));
    assert_eq!(handle.underway().tasks, 0);
    sound(handle);
}

/// The driver kept its contract and the managers their invariants.
fn sound<T: Transport>(handle: &Handle<T>) {
    assert_eq!(handle.breach(), None);
    handle.check().unwrap();
}

/// A figure for whoever reads the output of a run.
pub(crate) fn measured(what: &str, figure: impl fmt::Display) {
    println!("{what:<44} {figure}");
}
