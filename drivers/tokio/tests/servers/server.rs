//! A server as a process of its own, without anything on disk.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
}

/// It is killed when this is dropped.
pub(crate) struct Server {
    kind: Kind,
    pub(crate) address: SocketAddr,
    /// Where it tells about itself: NATS has a port for that.
    pub(crate) monitor: SocketAddr,
    /// In which network namespace it runs, if not in ours.
    namespace: Option<String>,
    process: Option<Child>,
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        let address = free_address();
        let monitor = if kind == Kind::Nats { free_address() } else { address };
        let mut server = Self { kind, address, monitor, namespace: None, process: None };
        server.run();
        server
    }

    /// A Redis in a network namespace, at that address.
    pub(crate) fn redis_in(namespace: &str, address: SocketAddr) -> Self {
        let namespace = Some(namespace.to_owned());
        let (kind, monitor) = (Kind::Redis, address);
        let mut server = Self { kind, address, monitor, namespace, process: None };
        server.run();
        server
    }

    /// Starts the process, at the same port as ever.
    pub(crate) fn run(&mut self) {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let monitor = self.monitor.port().to_string();
        let line = match self.kind {
            Kind::Redis => format!(
                "redis-server --bind {host} --port {port} --save  --appendonly no \
                 --enable-debug-command yes --protected-mode no"
            ),
            Kind::Nats => format!("nats-server -a {host} -p {port} -m {monitor}"),
        };
        let line = match &self.namespace {
            Some(namespace) => format!("ip netns exec {namespace} {line}"),
            None => line,
        };
        // Two blanks stand around an empty word.
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(process.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// Kills the process (`kill -9`): its sockets are the kernel's to close.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops the process where it is (`kill -STOP`): the kernel still takes connections for it, as
    /// many as its backlog holds, and nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on: with all that has piled up meanwhile.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of the local host that nobody has, below those that outgoing connections are given:
/// otherwise one of these, or a dial that meets itself, could take it while its server is away.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, NEXT.fetch_add(1, Relaxed)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
