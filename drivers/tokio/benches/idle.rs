//! What an idle connection costs in memory and in CPU time: a peer of the driver's beside the least
//! that a program could do itself, one task that sleeps and pings.
//!
//! There is no network: a ping is answered at once. Both ask every ten seconds, under a paused clock,
//! so that a minute of idleness costs what its work costs. The numbers of one run may be compared
//! with each other and with nothing else.
//!
//! ```console
//! $ cargo bench -p steadfast-tokio --bench idle
//! ```

#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::System;
use std::future::pending;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cpu_time::ThreadTime;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use steadfast_tokio::{
    BreakerId, Builder, Dial, DialError, Endpoint, Established, Handle, Link, LossCause, PeerId,
    Transport, config,
};
use tokio::runtime::Runtime;
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const INTERVAL: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// The other side of all connections.
#[derive(Default)]
struct Peers {
    pings: AtomicU64,
}

impl Peers {
    async fn ping(&self) {
        tokio::task::yield_now().await;
        self.pings.fetch_add(1, Relaxed);
    }
}

struct Nearby(Arc<Peers>);

impl Transport for Nearby {
    type Address = ();
    type Connection = ();

    async fn connect(&self, _: Dial<()>) -> Result<Established<()>, DialError> {
        tokio::task::yield_now().await;
        Ok(Established::fresh(()))
    }

    async fn run(&self, _: Arc<()>, _: Link) -> LossCause {
        pending().await
    }

    async fn ping(&self, _: Arc<()>) -> Result<(), LossCause> {
        self.0.ping().await;
        Ok(())
    }
}

/// What a connection cost.
struct Cost {
    bytes: f64,
    /// CPU time of one minute.
    minute: Duration,
    pings: u64,
}

fn main() {
    // `cargo test` only asks whether it runs.
    let n: u32 = if std::env::args().any(|arg| arg == "--bench") { 50_000 } else { 500 };
    println!("{n} idle connections, each asked every {} s", INTERVAL.as_secs());
    println!("{:36} {:>12} {:>18} {:>8}", "", "bytes each", "CPU each, 1 min", "pings");
    let floor = measure(n, |peers| tasks(n, peers));
    tell("floor: a task that sleeps and pings", n, &floor);
    let ours = measure(n, |peers| driver(n, peers));
    tell("ours", n, &ours);
    println!(
        "{:36} {:>12.2} {:>18.2}",
        "ratio",
        ours.bytes / floor.bytes,
        ours.minute.as_secs_f64() / floor.minute.as_secs_f64()
    );
}

fn tell(name: &str, n: u32, cost: &Cost) {
    let each = cost.minute / n;
    println!("{name:36} {:>12.0} {:>15} ns {:>8}", cost.bytes, each.as_nanos(), cost.pings);
}

/// Brings `n` connections up, lets a first minute settle them, and measures a second one.
fn measure<K>(n: u32, up: impl AsyncFnOnce(Arc<Peers>) -> K) -> Cost {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let before = Region::new(ALLOCATOR);
        let peers = Arc::new(Peers::default());
        let kept = up(Arc::clone(&peers)).await;
        sleep(MINUTE).await;
        let held = before.change();
        let bytes = held.bytes_allocated as f64 - held.bytes_deallocated as f64;
        let (start, pings) = (ThreadTime::now(), peers.pings.load(Relaxed));
        sleep(MINUTE).await;
        let minute = start.elapsed();
        black_box(&kept);
        let pings = peers.pings.load(Relaxed) - pings;
        Cost { bytes: bytes / f64::from(n), minute, pings }
    })
}

async fn tasks(n: u32, peers: Arc<Peers>) {
    for peer in 0..n {
        let peers = Arc::clone(&peers);
        tokio::spawn(async move {
            // As far apart as the driver's, whose dials are spread.
            sleep(INTERVAL.mul_f64(f64::from(peer) / f64::from(n))).await;
            loop {
                sleep(INTERVAL).await;
                peers.ping().await;
            }
        });
    }
}

async fn driver(n: u32, peers: Arc<Peers>) -> Handle<Nearby> {
    let driver = Builder::new(Nearby(peers)).config(config(1)).start().unwrap();
    let breaker = BreakerId(1);
    driver.add_breaker(breaker, "default").unwrap();
    for peer in (0..n).map(|peer| PeerId(peer.into())) {
        driver.add_peer(peer, "default", vec![Endpoint::only(breaker, ())]).unwrap();
        driver.connect(peer).unwrap();
        tokio::task::yield_now().await;
    }
    while driver.stats().peers.connected < n {
        sleep(Duration::from_millis(10)).await;
    }
    driver
}
