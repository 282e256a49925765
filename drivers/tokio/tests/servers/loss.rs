//! A network that loses packets, and one that loses all of them.

use std::time::Duration;

use steadfast_tokio::{Builder, Handle};
use tokio::time::{Instant, sleep};

use crate::callers::Callers;
use crate::counter::Counter;
use crate::namespace::Namespace;
use crate::real::{
    BACK, DIALS, SILENCE, SLACK, all_up, ends_well, impatient, measured, noticed, opened, populate,
    suspected, within,
};
use crate::resp::Redis;
use crate::server::{Kind, Server};

const PEERS: u32 = 50;

/// A Redis at the other end of a cable; `None`, and a line that says why, if there can be none.
async fn far_away() -> Option<(Namespace, Server)> {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => {
            println!("skipped, since no network can be set up here: {why}");
            return None;
        }
    };
    let server = Server::redis_in(&namespace.name, namespace.address);
    drop(Counter::of(&server, Kind::Redis).await);
    Some((namespace, server))
}

#[tokio::test]
async fn with_a_third_of_its_packets_lost_everybody_is_connected_and_calls_succeed_by_retry() {
    let Some((network, server)) = far_away().await else { return };
    let mut config = impatient();
    // A lost dial is sent again by TCP after a second, and again two seconds later.
    config.peer_profiles[0].dial_timeout = Duration::from_secs(5);
    config.call_profiles[0].attempt_timeout = Duration::from_millis(500);
    config.call_profiles[0].max_attempts = 20;
    // Retries are the subject, not what keeps them in bounds.
    config.breaker_profiles[1].breaker.consecutive_failures = None;
    config.breaker_profiles[1].calls.budget = None;
    let handle = Builder::new(Redis).config(config).start().unwrap();
    network.lose(30);
    let began = Instant::now();
    populate(&handle, u64::from(PEERS), &server.address.to_string());
    within(Duration::from_secs(15), "all are connected", all_up(&handle, PEERS)).await;
    measured("connected at 30 % loss", format_args!("{:.2?}", began.elapsed()));
    let callers = Callers::start(&handle, 8, u64::from(PEERS), Duration::from_secs(20));
    sleep(Duration::from_secs(6)).await;
    let endings = callers.stop().await;
    let stats = handle.stats();
    for (ending, count) in &endings {
        measured("calls", format_args!("{count} {ending}"));
    }
    let lost = stats.losses.total();
    measured("attempts, retries", format_args!("{}, {}", stats.attempts, stats.retries));
    measured("connections that were found silent", format_args!("{lost} of {PEERS}"));
    assert!(endings.len() == 1 && endings.contains_key("answered"), "{endings:?}");
    assert!(stats.retries > 0);

    network.lose(0);
    within(BACK, "all are connected", all_up(&handle, PEERS)).await;
    ends_well(&handle, PEERS).await;
}

#[tokio::test]
async fn a_network_that_loses_everything_is_found_silent_and_everybody_is_back_after_it() {
    let Some((network, server)) = far_away().await else { return };
    let handle: Handle<Redis> = Builder::new(Redis).config(impatient()).start().unwrap();
    populate(&handle, u64::from(PEERS), &server.address.to_string());
    within(BACK, "all are connected", all_up(&handle, PEERS)).await;
    sleep(Duration::from_millis(1_500)).await;
    let (mut silences, mut breakers) = (handle.notices(), handle.notices());
    network.lose(100);
    let began = Instant::now();
    for _ in 0..PEERS {
        let silence = within(SILENCE, "silence is found", noticed(&mut silences, suspected)).await;
        assert!(silence >= SILENCE, "{silence:?}");
    }
    assert!(began.elapsed() <= SILENCE + SLACK, "{:?}", began.elapsed());
    measured("all found silent", format_args!("{:.2?}", began.elapsed()));
    within(BACK + SILENCE, "the breaker opens", noticed(&mut breakers, opened(DIALS))).await;
    let failures = handle.stats().dial_failures;
    assert!(failures.timeout >= 5 && failures.total() == failures.timeout, "{failures:?}");

    network.lose(0);
    let began = Instant::now();
    within(2 * BACK, "all are back", all_up(&handle, PEERS)).await;
    measured("back after total loss", format_args!("{:.2?}", began.elapsed()));
    ends_well(&handle, PEERS).await;
}
