//! What a sign of life costs the driver at a thousand connections, beside the same tasks that tell
//! nobody what they hear.
//!
//! There is no network: a connection's task is woken, hears so many frames, and waits again. Once all
//! are woken in each round, as by a poll that finds all sockets ready; once one after the other, as
//! in a quiet hour. CPU time of the thread; the numbers of one run may be compared with each other
//! and with nothing else.
//!
//! ```console
//! $ cargo bench -p steadfast-tokio --bench signs
//! ```

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cpu_time::ThreadTime;
use steadfast_tokio::{
    BreakerId, Builder, Dial, DialError, Endpoint, Established, Link, LossCause, PeerId, Transport,
    config,
};
use tokio::sync::Notify;

/// The other side of all connections.
#[derive(Default)]
struct Peers {
    bells: Mutex<Vec<Arc<Notify>>>,
    /// Wake-ups that are over.
    heard: AtomicU64,
    /// A wake-up is over.
    over: Notify,
}

/// Hears so many frames a wake-up.
struct Chatty {
    peers: Arc<Peers>,
    frames: u32,
    tells: bool,
}

impl Transport for Chatty {
    type Address = ();
    type Connection = Arc<Notify>;

    async fn connect(&self, _: Dial<()>) -> Result<Established<Arc<Notify>>, DialError> {
        let bell = Arc::new(Notify::new());
        self.peers.bells.lock().unwrap().push(Arc::clone(&bell));
        Ok(Established::fresh(bell))
    }

    async fn run(&self, bell: Arc<Arc<Notify>>, link: Link) -> LossCause {
        loop {
            bell.notified().await;
            for _ in 0..self.frames {
                if black_box(self.tells) {
                    link.heard();
                }
            }
            self.peers.heard.fetch_add(1, Relaxed);
            self.peers.over.notify_one();
        }
    }

    async fn ping(&self, _: Arc<Arc<Notify>>) -> Result<(), LossCause> {
        Ok(())
    }
}

/// How connections are woken.
#[derive(Clone, Copy)]
enum Woken {
    Together,
    OneByOne,
}

fn main() {
    // `cargo test` only asks whether it runs.
    let benched = std::env::args().any(|arg| arg == "--bench");
    let (n, rounds) = if benched { (1_000, 300) } else { (10, 2) };
    println!("{n} connections; CPU time of a frame, its task's wake-up included, and without");
    println!("{:34} {:>10} {:>10} {:>12}", "", "floor", "ours", "difference");
    for (name, woken, frames) in [
        ("all at once, 1 frame each", Woken::Together, 1),
        ("all at once, 16 frames each", Woken::Together, 16),
        ("one by one, 1 frame", Woken::OneByOne, 1),
        ("one by one, 16 frames", Woken::OneByOne, 16),
    ] {
        // In turn, because the machine may be shared; the least of each.
        let mut least = [f64::MAX; 2];
        for _ in 0..if benched { 7 } else { 1 } {
            for (least, tells) in least.iter_mut().zip([false, true]) {
                *least = least.min(measure(n, rounds, woken, frames, tells));
            }
        }
        let [floor, ours] = least;
        println!("{name:34} {floor:>7.1} ns {ours:>7.1} ns {:>9.1} ns", ours - floor);
    }
}

/// Nanoseconds a frame.
fn measure(n: u32, rounds: u32, woken: Woken, frames: u32, tells: bool) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let peers = Arc::new(Peers::default());
        let transport = Chatty { peers: Arc::clone(&peers), frames, tells };
        let driver = Builder::new(transport).config(config(1)).watched(false).start().unwrap();
        let breaker = BreakerId(1);
        driver.add_breaker(breaker, "default").unwrap();
        for peer in (0..n).map(|peer| PeerId(peer.into())) {
            driver.add_peer(peer, "default", vec![Endpoint::only(breaker, ())]).unwrap();
            driver.connect(peer).unwrap();
        }
        while driver.stats().peers.connected < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let bells = std::mem::take(&mut *peers.bells.lock().unwrap());
        let round = async || match woken {
            Woken::Together => {
                let target = peers.heard.load(Relaxed) + u64::from(n);
                bells.iter().for_each(|bell| bell.notify_one());
                while peers.heard.load(Relaxed) < target {
                    peers.over.notified().await;
                }
            }
            Woken::OneByOne => {
                for bell in &bells {
                    bell.notify_one();
                    peers.over.notified().await;
                }
            }
        };
        round().await;
        let start = ThreadTime::now();
        for _ in 0..rounds {
            round().await;
        }
        start.elapsed().as_nanos() as f64 / (f64::from(n) * f64::from(rounds) * f64::from(frames))
    })
}
