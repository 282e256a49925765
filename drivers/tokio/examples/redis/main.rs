//! Fifty connections to a real Redis, and a stream of calls over them; try it with one that dies.
//!
//! ```console
//! $ REDIS_ADDR=127.0.0.1:6379 RUN_SECONDS=10 cargo run -p steadfast-tokio --example redis
//! ```
//!
//! Kill the server while it runs and start it again. It ends by itself, and fails if not everybody is
//! connected then. Who adopts this for a program of their own takes `resp.rs`.

mod resp;

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use resp::{Redis, Reply};
use steadfast_tokio::steadfast::breaker::State;
use steadfast_tokio::steadfast::config::Signs;
use steadfast_tokio::steadfast::probe::ProbeConfig;
use steadfast_tokio::steadfast::{Notice, Time};
use steadfast_tokio::{
    BreakerId, Builder, CallError, CallFailure, CallProfileId, Endpoint, Failure, Handle, PeerId,
    config, random_seed,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until};

const PEERS: u64 = 50;
/// Guards connecting.
const DIALS: BreakerId = BreakerId(1);
/// Guards requests.
const CALLS: BreakerId = BreakerId(2);

/// How the calls ended that ended since the last line.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    given_up: AtomicU64,
    rejected: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("REDIS_ADDR").unwrap_or_else(|_| "127.0.0.1:6379".to_owned());
    let seconds = env::var("RUN_SECONDS").map_or(Ok(5), |seconds| seconds.parse())?;

    let mut config = config(random_seed());
    for profile in &mut config.peer_profiles {
        // Ask after a second of silence instead of ten: this run is short.
        let second = Duration::from_secs(1);
        let often = ProbeConfig { interval: second, timeout: second, ..ProbeConfig::default() };
        profile.health.signs = Signs::Pings(often);
    }
    let driver = Builder::new(Redis).config(config).start()?;
    driver.add_breaker(DIALS, "default")?;
    driver.add_breaker(CALLS, "calls")?;
    for peer in (0..PEERS).map(PeerId) {
        driver.add_peer(peer, "default", vec![Endpoint::only(DIALS, address.clone())])?;
        driver.connect(peer)?;
    }
    println!("{PEERS} connections to Redis at {address}, for {seconds} seconds");

    let profile = driver.call_profile("default").ok_or("no such profile")?;
    let tally = Arc::new(Tally::default());
    for caller in 0..4 {
        tokio::spawn(call_on_and_on(driver.clone(), profile, caller, Arc::clone(&tally)));
    }
    tokio::spawn(tell_breakers(driver.clone()));

    let start = Instant::now();
    for half in 1..=2 * seconds {
        sleep_until(start + Duration::from_millis(500 * half)).await;
        tell(&driver, &tally);
    }

    let connected = u64::from(driver.stats().peers.connected);
    let end = driver.shutdown(Duration::from_secs(1)).await;
    let stats = driver.stats();
    let ended = stats.calls_done + stats.give_ups.total() + stats.rejections.total();
    println!("{} calls, {ended} ended; {} tasks left", stats.calls, end.tasks_left);
    driver.check()?;
    match driver.breach() {
        Some(breach) => Err(format!("the driver broke its contract: {breach:?}").into()),
        None if connected < PEERS => Err(format!("only {connected} are connected").into()),
        None if ended != stats.calls || end.tasks_left > 0 => Err("something was lost".into()),
        None => Ok(()),
    }
}

/// Calls one peer after the other until the driver ends.
async fn call_on_and_on(
    driver: Handle<Redis>,
    profile: CallProfileId,
    caller: u64,
    tally: Arc<Tally>,
) {
    for peer in (0..PEERS).cycle().map(|turn| PeerId((turn + caller * 13) % PEERS)) {
        let count = driver.with_connection(peer, CALLS, profile, |_, connection| async move {
            match connection.request(&["INCR", "steadfast:example"]).await {
                Ok(Reply::Integer(count)) => Ok(count),
                // Redis answered, and would answer the same again.
                Ok(other) => Err(Failure::new(CallFailure::Invalid, error(&other))),
                // Only the connection can fail.
                Err(error) => Err(Failure::new(CallFailure::Disconnected, error)),
            }
        });
        match count.await {
            Ok(_) => tally.answered.fetch_add(1, Relaxed),
            Err(CallError::GaveUp { .. }) => tally.given_up.fetch_add(1, Relaxed),
            Err(CallError::Rejected { .. }) => tally.rejected.fetch_add(1, Relaxed),
            Err(_) => return,
        };
        sleep(Duration::from_millis(5)).await;
    }
}

fn error(reply: &Reply) -> std::io::Error {
    std::io::Error::other(format!("no count: {reply:?}"))
}

fn tell(driver: &Handle<Redis>, tally: &Tally) {
    let stats = driver.stats();
    let ended = |count: &AtomicU64| count.swap(0, Relaxed);
    println!(
        "{:>6.1}s  connected {:>2}/{PEERS}  dialing {:>2}  \
         calls: {:>3} answered {:>3} given up {:>3} rejected {:>2} waiting",
        seconds(driver.now()),
        stats.peers.connected,
        stats.dials_in_flight,
        ended(&tally.answered),
        ended(&tally.given_up),
        ended(&tally.rejected),
        stats.calls_now.total() - u64::from(stats.attempts_in_flight),
    );
}

async fn tell_breakers(driver: Handle<Redis>) {
    let mut notices = driver.notices();
    loop {
        match notices.recv().await {
            Ok((at, Notice::Breaker { breaker, from, to })) => {
                println!(
                    "{:>6.1}s  breaker {breaker}: {} -> {}",
                    seconds(at),
                    words(from),
                    words(to)
                );
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => println!("        ({missed} notices missed)"),
            Err(RecvError::Closed) => return,
        }
    }
}

fn words(state: State) -> String {
    match state {
        State::Closed => "closed".to_owned(),
        State::Open { until } => format!("open until {:.1}s", seconds(until)),
        State::HalfOpen => "half-open".to_owned(),
        other => format!("{other:?}"),
    }
}

fn seconds(at: Time) -> f64 {
    at.since(Time::ZERO).as_secs_f64()
}
