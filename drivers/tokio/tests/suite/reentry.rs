//! The program's own code, wherever the driver runs it, may call the driver.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::support::{CALLS, DIALS, Fake, World, add_peers, start};
use steadfast_tokio::steadfast::Config;
use steadfast_tokio::{
    Builder, CallProfileId, Dial, DialError, Endpoint, EndpointId, Established, Failure, Handle,
    Link, LossCause, PeerId, PeerState, Transport, config,
};

const PEER: PeerId = PeerId(0);

/// Runs this in a thread of its own, under a paused clock; fails if it hangs.
fn ends<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(work());
        sender.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("it hangs, or failed"));
}

/// Calls the driver when it is woken, and when it is dropped.
struct Calls {
    handle: Handle<Fake>,
    woken: AtomicUsize,
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.handle.check().unwrap();
        self.woken.fetch_add(1, SeqCst);
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.handle.check().unwrap();
    }
}

fn calls(handle: &Handle<Fake>) -> (Arc<Calls>, Waker) {
    let calls = Arc::new(Calls { handle: handle.clone(), woken: AtomicUsize::new(0) });
    (Arc::clone(&calls), Waker::from(calls))
}

#[test]
fn whoever_looks_at_a_state_may_call_the_driver() {
    ends(|| async {
        let handle = start(&World::new(), config(1));
        add_peers(&handle, 1);
        handle.connected(PEER).await.unwrap();
        let mut states = handle.watch(PEER).unwrap();
        let asks = |_: &PeerState| handle.reset_breaker(DIALS).is_ok();
        assert_eq!(states.wait_for(asks).await, Some(PeerState::Connected));
        match states.now() {
            PeerState::Connected => handle.disconnect(PEER).unwrap(),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn whoever_is_woken_by_a_state_may_call_the_driver() {
    ends(|| async {
        let handle = start(&World::new(), config(1));
        add_peers(&handle, 1);
        handle.connected(PEER).await.unwrap();
        let mut states = handle.watch(PEER).unwrap();
        let (seen, waker) = calls(&handle);
        let mut changed = pin!(states.changed());
        assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        handle.disconnect(PEER).unwrap();
        assert_eq!(seen.woken.load(SeqCst), 1);
    });
}

#[test]
fn whoever_is_woken_by_the_end_of_a_peer_may_call_the_driver() {
    ends(|| async {
        let handle = start(&World::new(), config(1));
        add_peers(&handle, 1);
        handle.disconnect(PEER).unwrap();
        let mut states = handle.watch(PEER).unwrap();
        let (seen, waker) = calls(&handle);
        let mut changed = pin!(states.changed());
        assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        handle.remove_peer(PEER).unwrap();
        assert_eq!(seen.woken.load(SeqCst), 1);
    });
}

#[test]
fn whoever_is_woken_by_a_notice_may_call_the_driver() {
    ends(|| async {
        let handle = start(&World::new(), config(1));
        let mut notices = handle.notices();
        let (seen, waker) = calls(&handle);
        let mut next = pin!(notices.recv());
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        handle.force_open(CALLS).unwrap();
        assert_eq!(seen.woken.load(SeqCst), 1);
    });
}

#[test]
fn a_waker_that_is_let_go_of_may_call_the_driver() {
    ends(|| async {
        let handle = start(&World::new(), config(1));
        let hang = |_| std::future::pending::<Result<(), Failure<()>>>();
        let mut call = Box::pin(handle.with_retry(CALLS, CallProfileId(0), hang));
        for _ in 0..2 {
            let (_, waker) = calls(&handle);
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(call);
    });
}

/// Where dials go, and whom it calls when it is dropped.
struct Address(Arc<Mutex<Option<Handle<Addressed>>>>);

impl Drop for Address {
    fn drop(&mut self) {
        if let Some(handle) = &*self.0.lock().unwrap() {
            handle.check().unwrap();
        }
    }
}

struct Addressed;

impl Transport for Addressed {
    type Address = Address;
    type Connection = ();

    async fn connect(&self, _: Dial<Address>) -> Result<Established<()>, DialError> {
        Ok(Established::fresh(()))
    }

    async fn run(&self, _: Arc<()>, _: Link) -> LossCause {
        std::future::pending().await
    }

    async fn ping(&self, _: Arc<()>) -> Result<(), LossCause> {
        Ok(())
    }
}

fn addressed(config: Config) -> (Handle<Addressed>, impl Fn(u32) -> Vec<Endpoint<Address>>) {
    let handle = Builder::new(Addressed).config(config).start().unwrap();
    handle.add_breaker(DIALS, "default").unwrap();
    let own = Arc::new(Mutex::new(Some(handle.clone())));
    let endpoints = move |id| {
        vec![Endpoint { id: EndpointId(id), breaker: DIALS, address: Address(Arc::clone(&own)) }]
    };
    (handle, endpoints)
}

#[test]
fn an_address_that_is_let_go_of_may_call_the_driver() {
    ends(|| async {
        let (handle, endpoints) = addressed(config(1));
        handle.add_peer(PEER, "default", endpoints(0)).unwrap();
        handle.add_peer(PEER, "default", endpoints(1)).unwrap_err();
        handle.set_endpoints(PEER, endpoints(2)).unwrap();
        handle.set_endpoints(PeerId(1), endpoints(3)).unwrap_err();
        handle.remove_peer(PEER).unwrap();
    });
}
