//! Redis.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use steadfast_tokio::steadfast::breaker::{RateRule, State};
use steadfast_tokio::steadfast::{Ratio, window};
use steadfast_tokio::{Builder, CallFailure, Failure, PeerId, config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::callers::{Ask, Callers, once};
use crate::counter::Counter;
use crate::outage::{TOLD, live_through_a_freeze, live_through_a_kill};
use crate::real::{CALLS, all_up, ends_well, measured, noticed, opened, populate, until, within};
use crate::resp::{Connection, Redis, Reply};
use crate::server::{Kind, Server};

impl Ask for Redis {
    async fn ask(connection: Arc<Connection>, number: u64) -> Result<(), Failure<io::Error>> {
        let number = number.to_string();
        match connection.request(&["ECHO", &number]).await? {
            Reply::Bulk(echo) if echo == number.as_bytes() => Ok(()),
            other => {
                let other = io::Error::other(format!("{other:?} for {number}"));
                Err(Failure::new(CallFailure::Invalid, other))
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_come_back_to_a_redis_that_was_killed() {
    live_through_a_kill("redis", Kind::Redis, Redis, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_come_back_to_a_redis_at_the_rate_that_was_told() {
    live_through_a_kill("redis-told", Kind::Redis, Redis, Some(TOLD)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_come_back_to_a_redis_that_was_frozen() {
    live_through_a_freeze("redis-frozen", Kind::Redis, Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_opens_the_breaker_of_calls_before_it_answers() {
    const PEERS: u32 = 20;
    const PATIENCE: Duration = Duration::from_secs(10);
    let hangs_for = Duration::from_secs(2);
    let server = Server::start(Kind::Redis);
    let _ready = Counter::of(&server, Kind::Redis).await;
    // Its silence is shorter than anybody's patience but the calls'.
    let mut config = config(1);
    let breaker = &mut config.breaker_profiles[1].breaker;
    breaker.consecutive_failures = None;
    breaker.slow_after = Some(hangs_for / 8);
    breaker.slow_in_flight = true;
    breaker.open_for.base = hangs_for / 4;
    breaker.rates = Some(RateRule {
        window: window::Span::Count(10),
        min_calls: 5,
        failure_rate: None,
        slow_rate: Some(Ratio::percent(50)),
        unhealthy_rate: None,
    });
    let handle = Builder::new(Redis).config(config).start().unwrap();
    populate(&handle, u64::from(PEERS), &server.address.to_string());
    within(Duration::from_secs(1), "all are connected", all_up(&handle, PEERS)).await;
    let mut notices = handle.notices();
    let callers = Callers::start(&handle, 8, u64::from(PEERS), PATIENCE);
    sleep(Duration::from_millis(200)).await;

    let awake = Arc::new(AtomicBool::new(false));
    let hanging = tokio::spawn({
        let (awake, address) = (Arc::clone(&awake), server.address);
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let sleep = format!("DEBUG SLEEP {}\r\n", hangs_for.as_secs());
            stream.write_all(sleep.as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; 5]).await.unwrap();
            awake.store(true, SeqCst);
        }
    });
    within(hangs_for, "the breaker opens", noticed(&mut notices, opened(CALLS))).await;
    assert!(!awake.load(SeqCst), "by what is under way, before any of it has ended");
    assert_eq!(handle.stats().attempt_failures.total(), 0);
    let refused = once(&handle, PeerId(0), 0, PATIENCE).await;
    assert_eq!(refused, "rejected: BreakerOpen");
    hanging.await.unwrap();

    let closed = || handle.breaker_state(CALLS) == Some(State::Closed);
    within(2 * hangs_for, "the breaker closes", until(closed)).await;
    assert_eq!(once(&handle, PeerId(0), 1, PATIENCE).await, "answered");
    for (ending, count) in callers.stop().await {
        measured("calls", format_args!("{count} {ending}"));
    }
    assert_eq!(handle.stats().losses.total(), 0, "nobody was given up for it");
    ends_well(&handle, PEERS).await;
}
