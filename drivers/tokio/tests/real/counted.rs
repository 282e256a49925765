//! Counts the dials that are in flight, whatever they are made with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use steadfast_tokio::{Dial, DialError, Established, Link, LossCause, Transport};

/// Dials whose future is alive.
#[derive(Debug, Default)]
pub(crate) struct Dialing {
    now: AtomicU32,
    most: AtomicU32,
}

impl Dialing {
    /// The most at once since the last time that this was asked.
    pub(crate) fn take_most(&self) -> u32 {
        self.most.swap(self.now.load(SeqCst), SeqCst)
    }
}

/// A transport, and how many dials of it are in flight.
pub(crate) struct Counted<T> {
    pub(crate) transport: T,
    pub(crate) dialing: Arc<Dialing>,
}

impl<T> Counted<T> {
    pub(crate) fn new(transport: T) -> Self {
        Self { transport, dialing: Arc::default() }
    }
}

struct Alive<'a>(&'a Dialing);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

impl<T: Transport> Transport for Counted<T> {
    type Address = T::Address;
    type Connection = T::Connection;

    async fn connect(&self, to: Dial<T::Address>) -> Result<Established<T::Connection>, DialError> {
        let now = self.dialing.now.fetch_add(1, SeqCst) + 1;
        self.dialing.most.fetch_max(now, SeqCst);
        let _alive = Alive(&self.dialing);
        self.transport.connect(to).await
    }

    async fn run(&self, connection: Arc<T::Connection>, link: Link) -> LossCause {
        self.transport.run(connection, link).await
    }

    async fn ping(&self, connection: Arc<T::Connection>) -> Result<(), LossCause> {
        self.transport.ping(connection).await
    }

    async fn close(&self, connection: Arc<T::Connection>) {
        self.transport.close(connection).await;
    }
}
