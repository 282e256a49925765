//! The plain transport, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "for tests")]

use std::net::SocketAddr;
use std::time::Duration;

use steadfast_tokio::DialCause;
use steadfast_tokio::tcp::{dial, dial_cause};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
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
