//! The plain transport, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "for tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use steadfast_tokio::steadfast::config::Signs;
use steadfast_tokio::steadfast::probe::ProbeConfig;
use steadfast_tokio::tcp::{Tcp, dial, dial_cause};
use steadfast_tokio::{
    BreakerId, Builder, CallProfileId, DialCause, Endpoint, Failure, Handle, PeerId, config,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const PEER: PeerId = PeerId(0);
const DIALS: BreakerId = BreakerId(1);
const CALLS: BreakerId = BreakerId(2);

/// One peer, which is asked after 20 ms of silence, and may dial us.
fn start(tcp: Tcp, address: Option<SocketAddr>) -> Handle<Tcp> {
    let mut config = config(1);
    let often = Duration::from_millis(20);
    let profile = &mut config.peer_profiles[0];
    profile.inbound = true;
    let pings = ProbeConfig { interval: often, timeout: 10 * often, ..ProbeConfig::default() };
    profile.health.signs = Signs::Pings(pings);
    let handle = Builder::new(tcp).config(config).start().unwrap();
    handle.add_breaker(DIALS, "default").unwrap();
    handle.add_breaker(CALLS, "calls").unwrap();
    let endpoint = |address: SocketAddr| Endpoint::only(DIALS, address.to_string());
    handle.add_peer(PEER, "default", address.map(endpoint).into_iter().collect()).unwrap();
    if address.is_some() {
        handle.connect(PEER).unwrap();
    }
    handle
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers each `PING` and each request with what is expected.
async fn serve(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        let answer: &[u8] = if &buffer[..read] == b"PING\r\n" { b"PONG\r\n" } else { b"answer" };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// An address that is silent: a listener whose queue is full.
#[cfg(target_os = "linux")]
async fn silent() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
    }
    (listener, queued, address)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_silent_address_is_not_waited_for() {
    let (_full, _queued, silent) = silent().await;
    let (_listener, good) = listener().await;
    let began = Instant::now();
    let addresses: &[SocketAddr] = &[silent, good];
    let stream = timeout(Duration::from_secs(5), dial(addresses)).await.unwrap().unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
    let (gone, refusing) = listener().await;
    drop(gone);
    let (_listener, good) = listener().await;
    let began = Instant::now();
    let addresses: &[SocketAddr] = &[refusing, good];
    assert_eq!(dial(addresses).await.unwrap().peer_addr().unwrap(), good);
    assert!(began.elapsed() < Duration::from_millis(240), "{:?}", began.elapsed());
    let addresses: &[SocketAddr] = &[refusing, refusing];
    assert_eq!(dial(addresses).await.unwrap_err().cause, DialCause::Refused);
    let none: &[SocketAddr] = &[];
    assert_eq!(dial(none).await.unwrap_err().cause, DialCause::Resolve);
    assert_eq!(dial("no port").await.unwrap_err().cause, DialCause::Resolve);
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_used_up_here_is_no_servers_fault() {
    for errno in [12, 23, 24, 99, 105] {
        let error = std::io::Error::from_raw_os_error(errno);
        assert_eq!(dial_cause(&error), DialCause::Local, "{error}");
    }
    for (errno, cause) in
        [(111, DialCause::Refused), (110, DialCause::Timeout), (113, DialCause::Unreachable)]
    {
        assert_eq!(dial_cause(&std::io::Error::from_raw_os_error(errno)), cause);
    }
}

#[tokio::test]
async fn whoever_stops_in_the_middle_of_a_request_ends_the_connection() {
    let (listener, address) = listener().await;
    let handle = start(Tcp::pinging("PING\r\n"), Some(address));
    let (deaf, _) = listener.accept().await.unwrap();
    let connection = handle.connected(PEER).await.unwrap();
    let much = vec![0; 64 << 20];
    assert!(timeout(Duration::from_millis(100), connection.send(&much)).await.is_err());
    let error = connection.send(b"more").await.unwrap_err();
    assert_eq!(error.to_string(), "a sender before has left off in the middle");
    let lost = async {
        while handle.stats().losses.local == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(5), lost).await.unwrap();
    assert_eq!(connection.receive().await, None);
    drop((deaf, connection));
    let _again = timeout(Duration::from_secs(10), listener.accept()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_fill_up_with_answers_to_pings() {
    let (listener, address) = listener().await;
    let tcp = Tcp::pinging("PING\r\n").answered_by("PONG\r\n").max_unread(1);
    let handle = start(tcp, Some(address));
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    handle.connected(PEER).await.unwrap();
    while handle.stats().pongs < 10 {
        sleep(Duration::from_millis(5)).await;
    }
    let answer = handle
        .with_connection(PEER, CALLS, CallProfileId(0), |_, connection| async move {
            connection.send(b"question").await?;
            Ok::<_, Failure<std::io::Error>>(connection.receive().await)
        })
        .await
        .unwrap();
    assert_eq!(answer.as_deref(), Some(&b"answer"[..]));
    assert_eq!(handle.stats().losses.total(), 0);
}

#[tokio::test]
async fn a_peer_may_dial_us() {
    let (listener, address) = listener().await;
    // As many as there can be.
    let tcp = Tcp::pinging("PING\r\n").max_unread(usize::MAX);
    let handle = start(tcp.clone(), None);
    let dialed = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    handle.accept(PEER, tcp.wrap(stream)).unwrap();
    let connection = handle.connected(PEER).await.unwrap();
    tokio::spawn(serve(dialed));
    connection.send(b"question").await.unwrap();
    assert!(connection.receive().await.is_some());
    assert!(Arc::ptr_eq(&connection, &handle.connection(PEER).unwrap()));
    assert_eq!(handle.stats().losses.total(), 0);
}
