//! Drivers that end at random moments while everybody is at work, on several threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{Conn, Fake, World, sound};
use steadfast_tokio::steadfast::draw::{Draws, Purpose};
use steadfast_tokio::{
    BreakerId, Builder, CallFailure, CallProfileId, Endpoint, Failure, Handle, LossCause, PeerId,
    Record, Underway, config,
};
use tokio::time::{sleep, timeout};

const SHARDS: u64 = 3;
const PEERS: u64 = 9;

fn driver(world: &Arc<World>, folder: &std::path::Path) -> Handle<Fake> {
    let mut config = config(1);
    config.peer_profiles[0].inbound = true;
    config.peer_profiles[0].backoff.base = Duration::from_millis(5);
    let builder = Builder::new(Fake(Arc::clone(world))).config(config).shards(3);
    let handle = builder.record(Record::to(folder.join("run"))).start().unwrap();
    for breaker in (0..2 * SHARDS).map(BreakerId) {
        let profile = if breaker.0 < SHARDS { "default" } else { "calls" };
        handle.add_breaker(breaker, profile).unwrap();
    }
    handle
}

/// Does what somebody might do, until the driver is gone.
async fn works(handle: Handle<Fake>, world: Arc<World>, id: u64, calls: Arc<AtomicU64>) {
    let draws = Draws::new(3, id);
    for turn in 0.. {
        let random = draws.draw(Purpose::Backoff, turn);
        let peer = PeerId(random % PEERS);
        let shard = peer.0 % SHARDS;
        match random >> 8 & 15 {
            0 => _ = handle.remove_peer(peer),
            1 | 2 => {
                let endpoint = Endpoint::only(BreakerId(shard), "there".to_owned());
                _ = handle.add_peer(peer, "default", vec![endpoint]);
                _ = handle.connect(peer);
            }
            3 => _ = handle.accept(peer, Arc::new(Conn::new())),
            4 => _ = world.cut(LossCause::Reset),
            5 => _ = timeout(Duration::from_millis(3), handle.connected(peer)).await,
            6 => _ = handle.disconnect(peer),
            _ => {
                let breaker = BreakerId(SHARDS + shard);
                let call =
                    handle.with_connection(peer, breaker, CallProfileId(0), |_, _| async move {
                        sleep(Duration::from_millis(random >> 16 & 3)).await;
                        match random >> 24 & 3 {
                            0 => Err(Failure::new(CallFailure::Unavailable, ())),
                            _ => Ok(()),
                        }
                    });
                if random >> 32 & 1 == 0 {
                    _ = timeout(Duration::from_millis(2), call).await;
                } else {
                    _ = call.await;
                }
                calls.fetch_add(1, SeqCst);
            }
        }
        let gone = handle.connect(peer) == Err(steadfast_tokio::Refused::ShutDown);
        if gone {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn whoever_is_at_work_when_the_driver_ends_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    for round in 0..30 {
        let world = World::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        // Those who work live in another runtime than the driver, which may go under them.
        let others = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let handle = runtime.block_on(async { driver(&world, folder.path()) });
        let workers: Vec<_> = (0..8)
            .map(|id| {
                let (handle, world) = (handle.clone(), Arc::clone(&world));
                others.spawn(works(handle, world, round * 8 + id, Arc::clone(&calls)))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20 + round * 7 % 30));
        match round % 3 {
            0 => drop(runtime),
            1 => {
                let shutdown = others.block_on(handle.shutdown(Duration::from_millis(5)));
                assert_eq!(shutdown.tasks_left, 0);
                drop(runtime);
            }
            _ => {
                let shutdown = runtime.block_on(handle.shutdown(Duration::from_secs(60)));
                assert_eq!((shutdown.calls_given_up, shutdown.tasks_left), (0, 0));
                drop(runtime);
            }
        }
        others.block_on(async {
            for worker in workers {
                timeout(Duration::from_secs(10), worker).await.unwrap().unwrap();
            }
        });
        assert_eq!(handle.underway(), Underway::default(), "round {round}");
        sound(&handle);
        drop(handle);
        assert!(world.conns().is_empty(), "round {round}");
        assert_eq!(Arc::strong_count(&world), 1, "round {round}: nobody holds the transport");
    }
    assert!(calls.load(SeqCst) > 200, "{}", calls.load(SeqCst));
}
