//! A stream of calls, each of which must be answered once and in time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use steadfast_tokio::{Call, CallError, CallProfileId, Failure, Handle, PeerId, Transport};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::real::{CALLS, Counted, SLACK};

/// A transport over which something can be asked.
pub(crate) trait Ask: Transport<Address = String> {
    /// Asks for that number, and fails if something else comes back.
    fn ask(
        connection: Arc<Self::Connection>,
        number: u64,
    ) -> impl Future<Output = Result<(), Failure<io::Error>>> + Send;
}

impl<T: Ask> Ask for Counted<T> {
    fn ask(
        connection: Arc<Self::Connection>,
        number: u64,
    ) -> impl Future<Output = Result<(), Failure<io::Error>>> + Send {
        T::ask(connection, number)
    }
}

/// How calls ended.
pub(crate) type Endings = BTreeMap<String, u64>;

/// Callers that call one peer after the other.
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    issued: Arc<AtomicU64>,
    running: JoinSet<Endings>,
}

impl Callers {
    /// `within`: how long each call may take.
    pub(crate) fn start<T: Ask>(
        handle: &Handle<T>,
        callers: u64,
        peers: u64,
        within: Duration,
    ) -> Self {
        let (stop, issued) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut running = JoinSet::new();
        for caller in 0..callers {
            let (stop, issued) = (Arc::clone(&stop), Arc::clone(&issued));
            let handle = handle.clone();
            running.spawn(async move {
                let mut endings = Endings::new();
                while !stop.load(SeqCst) {
                    let number = issued.fetch_add(1, SeqCst);
                    let peer = PeerId((number + caller) % peers);
                    let ended = once(&handle, peer, number, within).await;
                    *endings.entry(ended).or_default() += 1;
                    sleep(Duration::from_millis(5)).await;
                }
                endings
            });
        }
        Self { stop, issued, running }
    }

    /// No further calls; how all that were issued ended.
    pub(crate) async fn stop(self) -> Endings {
        self.stop.store(true, SeqCst);
        let mut all = Endings::new();
        for (ending, count) in self.running.join_all().await.into_iter().flatten() {
            *all.entry(ending).or_default() += count;
        }
        assert_eq!(all.values().sum::<u64>(), self.issued.load(SeqCst), "each is answered once");
        all
    }
}

/// How a call ended, which it must have in time.
pub(crate) async fn once<T: Ask>(
    handle: &Handle<T>,
    peer: PeerId,
    number: u64,
    within: Duration,
) -> String {
    let began = Instant::now();
    let call = Call::to(peer, CALLS, CallProfileId(0)).within(within);
    let answer = handle.call(call, |_, connection| async move {
        T::ask(connection.ok_or(io::ErrorKind::NotConnected).map_err(io::Error::from)?, number)
            .await
    });
    let answer = answer.await;
    assert!(began.elapsed() <= within + SLACK, "{:?}: {answer:?}", began.elapsed());
    match answer {
        Ok(()) => "answered".to_owned(),
        Err(CallError::Rejected { reason, .. }) => format!("rejected: {reason:?}"),
        Err(CallError::GaveUp { reason, last, .. }) => {
            format!("given up: {reason:?} after {last:?}")
        }
        Err(error) => error.to_string(),
    }
}
