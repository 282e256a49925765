//! Each fault of a network, made by a proxy between real sockets, leads to the state that it should
//! within the bound that the configuration gives.
//!
//! These take real time. Lower bounds are exact; upper ones have a slack for a slow machine.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "for tests")]

mod proxy;
mod real;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use proxy::{Flow, Proxy};
use real::{
    BACK, CALLS, Counted, DIALS, LONGEST, PINGS, SILENCE, all_up, ask, ends_well, impatient,
    noticed, opened, populate, suspected, until, within,
};
use steadfast_tokio::steadfast::breaker::{RateRule, State};
use steadfast_tokio::steadfast::bucket::{BucketConfig, Rate};
use steadfast_tokio::steadfast::config::Signs;
use steadfast_tokio::steadfast::window;
use steadfast_tokio::steadfast::{Config, Ratio, RejectReason};
use steadfast_tokio::tcp::{self, Tcp};
use steadfast_tokio::{
    Builder, CallError, CallProfileId, Dial, DialError, Established, Handle, Link, LossCause,
    PeerId, Transport,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

const PEERS: u32 = 20;

/// A server that says everything back, and the proxy before it.
async fn server() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    Proxy::before(address)
}

/// The peers, all connected through the proxy, by connections that count as stable.
async fn connected(proxy: &Proxy, config: Config) -> Handle<Tcp> {
    let handle = Builder::new(Tcp::pinging("PING\n")).config(config).start().unwrap();
    populate(&handle, u64::from(PEERS), &proxy.address.to_string());
    within(BACK, "all are connected", all_up(&handle, PEERS)).await;
    sleep(Duration::from_millis(1_500)).await;
    handle
}

#[tokio::test]
async fn refused_dials_count_as_refused_and_open_the_breaker_until_somebody_listens() {
    let mut proxy = server().await;
    let handle = connected(&proxy, impatient()).await;
    let mut notices = handle.notices();
    proxy.refuse().await;
    proxy.cut();
    within(BACK, "the breaker opens", noticed(&mut notices, opened(DIALS))).await;
    sleep(2 * LONGEST).await;
    let stats = handle.stats();
    assert_eq!((stats.peers.reconnecting, stats.losses.total()), (PEERS, u64::from(PEERS)));
    assert!(stats.dial_failures.refused >= 5, "{:?}", stats.dial_failures);
    assert_eq!(stats.dial_failures.total(), stats.dial_failures.refused);
    assert_eq!(proxy.arrivals().accepted.len(), 20, "nobody got through");

    proxy.accept();
    within(BACK, "all are back", all_up(&handle, PEERS)).await;
    assert_eq!(handle.breaker_state(DIALS), Some(State::Closed));
    assert_eq!(proxy.arrivals().accepted.len(), 40, "one dial each");
    ends_well(&handle, PEERS).await;
}

#[tokio::test]
async fn connections_that_are_reset_are_lost_as_reset_and_dialed_again() {
    let proxy = server().await;
    let handle = connected(&proxy, impatient()).await;
    proxy.reset();
    let lost = || handle.stats().losses.total() == u64::from(PEERS);
    within(Duration::ZERO, "all are lost", until(lost)).await;
    within(BACK, "all are back", all_up(&handle, PEERS)).await;
    let stats = handle.stats();
    assert_eq!(stats.losses.reset, u64::from(PEERS), "{:?}", stats.losses);
    assert_eq!((stats.dials, stats.dial_failures.total()), (2 * u64::from(PEERS), 0));
    ends_well(&handle, PEERS).await;
}

#[tokio::test]
async fn connections_that_are_closed_are_lost_as_ended_and_dialed_again() {
    let proxy = server().await;
    let mut calm = impatient();
    // A ping that is sent into the end would make a reset of it.
    calm.peer_profiles[0].health.signs = Signs::Unmonitored;
    let handle = connected(&proxy, calm).await;
    proxy.cut();
    let lost = || handle.stats().losses.total() == u64::from(PEERS);
    within(Duration::ZERO, "all are lost", until(lost)).await;
    within(BACK, "all are back", all_up(&handle, PEERS)).await;
    let stats = handle.stats();
    assert_eq!(stats.losses.eof, u64::from(PEERS), "{:?}", stats.losses);
    assert_eq!((stats.dials, stats.dial_failures.total()), (2 * u64::from(PEERS), 0));
    ends_well(&handle, PEERS).await;
}

#[tokio::test]
async fn silence_is_found_when_the_last_ping_has_had_its_time_and_not_before() {
    let proxy = server().await;
    let handle = connected(&proxy, impatient()).await;
    let mut notices = handle.notices();
    proxy.flow(Flow::Silence);
    let silent_from = Instant::now();
    for _ in 0..PEERS {
        let suspected = noticed(&mut notices, suspected);
        let silence = within(SILENCE, "silence is found", suspected).await;
        assert!(silence >= SILENCE, "{silence:?}");
    }
    assert!(silent_from.elapsed() <= SILENCE + real::SLACK, "{:?}", silent_from.elapsed());
    assert_eq!(handle.stats().losses.total(), handle.stats().losses.suspected);

    proxy.flow(Flow::Pass);
    within(BACK, "all are back", all_up(&handle, PEERS)).await;
    let suspected = handle.stats().suspected;
    sleep(2 * SILENCE).await;
    assert_eq!(handle.stats().suspected, suspected, "nobody is found silent who is not");
    ends_well(&handle, PEERS).await;
}

/// Lives through two and a half times the [`SILENCE`] that would be found; what was lost.
async fn lives_with(config: Config, requests: Flow, answers: Flow) -> u64 {
    let proxy = server().await;
    let handle = connected(&proxy, config).await;
    proxy.requests(requests);
    proxy.answers(answers);
    sleep(SILENCE * 5 / 2).await;
    let lost = handle.stats().losses.total();
    assert_eq!(lost, handle.stats().suspected);
    proxy.flow(Flow::Pass);
    within(BACK, "all are up", all_up(&handle, PEERS)).await;
    ends_well(&handle, PEERS).await;
    lost
}

#[tokio::test]
async fn answers_that_are_late_but_within_the_timeout_lose_nothing() {
    let delay = Flow::Delay(PINGS.timeout / 4);
    assert_eq!(lives_with(impatient(), delay, delay).await, 0);
}

#[tokio::test]
async fn an_answer_later_than_one_timeout_but_not_than_all_is_still_a_sign_of_life() {
    assert_eq!(lives_with(impatient(), Flow::Pass, Flow::Delay(PINGS.timeout * 3 / 2)).await, 0);
}

#[tokio::test]
async fn answers_later_than_all_timeouts_are_silence() {
    // Of so many at once they would be waited for.
    let config = Config { mass_guard: None, self_health: None, ..impatient() };
    let (requests, answers) = (Flow::Delay(PINGS.timeout * 3 / 2), Flow::Delay(PINGS.timeout));
    let lost = lives_with(config, requests, answers).await;
    assert!(lost >= u64::from(PEERS), "{lost}");
}

#[tokio::test]
async fn an_answer_that_drips_is_a_sign_of_life_with_each_byte() {
    assert_eq!(lives_with(impatient(), Flow::Pass, Flow::Drip(1, PINGS.timeout / 2)).await, 0);
}

/// Connects, and waits for the server's first word.
struct Login;

impl Transport for Login {
    type Address = String;
    type Connection = TcpStream;

    async fn connect(&self, dial: Dial<String>) -> Result<Established<TcpStream>, DialError> {
        let mut stream = tcp::dial(dial.address.as_str()).await?;
        stream.write_all(b"hello\n").await?;
        stream.read_exact(&mut [0; 6]).await?;
        Ok(Established::fresh(stream))
    }

    async fn run(&self, _stream: Arc<TcpStream>, _link: Link) -> LossCause {
        pending().await
    }

    async fn ping(&self, _stream: Arc<TcpStream>) -> Result<(), LossCause> {
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_a_dial_that_timed_out() {
    let proxy = server().await;
    proxy.flow(Flow::Silence);
    let config = impatient();
    let dial_timeout = config.peer_profiles[0].dial_timeout;
    let handle = Builder::new(Login).config(config).start().unwrap();
    let began = Instant::now();
    populate(&handle, 1, &proxy.address.to_string());
    let timed_out = || handle.stats().dial_failures.timeout == 1;
    within(dial_timeout, "the dial times out", until(timed_out)).await;
    assert!(began.elapsed() >= dial_timeout, "{:?}", began.elapsed());
    assert_eq!(handle.stats().dial_failures.total(), 1);
    assert!(handle.underway().connections <= 1, "{:?}", handle.underway());

    proxy.flow(Flow::Pass);
    // A dial that began in the silence may time out too, and is answered at last.
    within(BACK + dial_timeout, "it gets through", all_up(&handle, 1)).await;
    let closed = || proxy.arrivals().open == 1;
    within(Duration::ZERO, "those that timed out are closed", until(closed)).await;
    ends_well(&handle, 1).await;
}

#[tokio::test]
async fn a_told_rate_bounds_what_a_server_accepts_in_any_window() {
    const MANY: u32 = 300;
    let mut config = impatient();
    let told = BucketConfig { rate: Rate::per_second(200), burst: 20 };
    config.breaker_profiles[0].rate = Some(told);
    config.breaker_profiles[0].max_in_flight = 8;
    let proxy = server().await;
    // The server answers a while after it accepts, so that dials pile up as far as they may.
    proxy.answers(Flow::Delay(Duration::from_millis(20)));
    let counted = Counted::new(Login);
    let dialing = Arc::clone(&counted.dialing);
    let handle = Builder::new(counted).config(config).start().unwrap();
    populate(&handle, u64::from(MANY), &proxy.address.to_string());
    within(2 * BACK, "all are connected", all_up(&handle, MANY)).await;
    assert_eq!(dialing.take_most(), 8);
    let arrivals = proxy.arrivals();
    for window in [1, 10, 100, 500, 1_000].map(Duration::from_millis) {
        // What is accepted in it was begun in it, or in flight when it began.
        let told = 20 + 200 * window.as_millis() / 1_000 + 8;
        let most = arrivals.most_within(window);
        assert!(most as u128 <= told, "{most} within {window:?}, not {told}");
    }
    ends_well(&handle, MANY).await;
}

#[tokio::test]
async fn a_slow_server_trips_the_breaker_of_calls_until_it_is_fast_again() {
    let proxy = server().await;
    let mut config = impatient();
    let slow_after = Duration::from_millis(500);
    let breaker = &mut config.breaker_profiles[1].breaker;
    breaker.consecutive_failures = None;
    breaker.slow_after = Some(slow_after);
    breaker.rates = Some(RateRule {
        window: window::Span::Count(10),
        min_calls: 5,
        failure_rate: None,
        slow_rate: Some(Ratio::percent(50)),
        unhealthy_rate: None,
    });
    let handle = connected(&proxy, config).await;
    let call = async |number: u32| {
        let (peer, question) = (PeerId(0), format!("number {number}\n"));
        let profile = CallProfileId(0);
        handle
            .with_connection(peer, CALLS, profile, |_, connection| {
                let question = question.clone();
                async move { ask(&connection, &question, &question).await }
            })
            .await
    };
    proxy.answers(Flow::Delay(slow_after));
    let mut answered = 0;
    let refused = loop {
        match call(answered).await {
            Ok(()) => answered += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(answered, 5, "slow ones succeed, and the fifth trips");
    let CallError::Rejected { reason: RejectReason::BreakerOpen, retry_after: Some(after) } =
        refused
    else {
        panic!("{refused:?}");
    };
    assert!(after <= Duration::from_millis(200), "{after:?}");
    assert_eq!(handle.stats().losses.total(), 0, "a slow server is no lost one");

    sleep(after).await;
    assert_eq!(call(answered).await.ok(), Some(()), "whoever comes back when told gets in");
    let state = handle.breaker_state(CALLS);
    assert!(matches!(state, Some(State::Open { .. })), "a slow probe is a failed one: {state:?}");

    proxy.flow(Flow::Pass);
    let closed = async {
        while handle.breaker_state(CALLS) != Some(State::Closed) {
            let _ = call(1_000).await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(LONGEST, "a fast answer closes it", closed).await;
    assert_eq!(call(2_000).await.ok(), Some(()));
    ends_well(&handle, PEERS).await;
}
