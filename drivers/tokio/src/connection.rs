//! The task of one connection: it dials, lives with it, and closes it.

use std::sync::Arc;

use steadfast::{ConnId, DialCause, LossCause, PingId};
use tokio::sync::oneshot;

use crate::inner::Inner;
use crate::link::Link;
use crate::transport::{Dial, Transport};

/// One connection in one shard. When it is dropped, whatever the reason, the manager knows that the
/// connection is gone.
pub(crate) struct Place<T: Transport> {
    inner: Arc<Inner<T>>,
    shard: usize,
    conn: ConnId,
}

impl<T: Transport> Place<T> {
    pub(crate) fn new(inner: &Arc<Inner<T>>, shard: usize, conn: ConnId) -> Self {
        Self { inner: Arc::clone(inner), shard, conn }
    }
}

impl<T: Transport> Drop for Place<T> {
    fn drop(&mut self) {
        let alive = self.inner.enter(self.shard, |core| core.conns.get(self.conn).is_some());
        if !alive {
            return;
        }
        if !std::thread::panicking() {
            // Nobody else drops a task in the middle: its runtime is shutting down.
            return self.inner.halt();
        }
        self.inner.enter(self.shard, |core| match core.is_up(self.conn) {
            true => core.lost(self.conn, LossCause::Local),
            false => core.dial_failed(self.conn, DialCause::Local, None),
        });
    }
}

/// Dials, and lives with what comes of it.
pub(crate) async fn dial<T: Transport>(
    place: Place<T>,
    dial: Dial<T::Address>,
    mut order: oneshot::Receiver<()>,
) {
    let dialed = tokio::select! {
        biased;
        _ = &mut order => return,
        dialed = place.inner.transport.connect(dial) => dialed,
    };
    match dialed {
        Ok(established) => {
            let connection = Arc::new(established.connection);
            let resumed = established.resumed;
            let wanted = place
                .inner
                .enter(place.shard, |core| core.connected(place.conn, &connection, resumed));
            if wanted {
                hold(place, connection, order).await;
            } else {
                Box::pin(close(Arc::clone(&place.inner), connection)).await;
            }
        }
        Err(error) => {
            place.inner.enter(place.shard, |core| {
                core.dial_failed(place.conn, error.cause, error.retry_after);
            });
        }
    }
}

/// Lives with a connection until it ends or is to be closed.
pub(crate) async fn hold<T: Transport>(
    place: Place<T>,
    connection: Arc<T::Connection>,
    mut order: oneshot::Receiver<()>,
) {
    let inner = Arc::clone(&place.inner);
    let link = link(&place);
    let cause = tokio::select! {
        biased;
        order = &mut order => {
            if order.is_ok() {
                Box::pin(close(inner, connection)).await;
            }
            return;
        }
        cause = inner.transport.run(Arc::clone(&connection), link) => cause,
    };
    inner.enter(place.shard, |core| core.lost(place.conn, cause));
}

fn link<T: Transport>(place: &Place<T>) -> Link {
    let (inner, shard, conn) = (Arc::clone(&place.inner), place.shard, place.conn);
    Link::new(conn, move |event| inner.step(shard, |core| core.is_up(conn).then_some(event)))
}

/// Closes in good order, for as long as that may take.
pub(crate) async fn close<T: Transport>(inner: Arc<Inner<T>>, connection: Arc<T::Connection>) {
    let closed = inner.transport.close(connection);
    // Whether it was in good order or not, it is over.
    let _ = tokio::time::timeout(inner.close_timeout, closed).await;
}

/// Asks once.
pub(crate) async fn ping<T: Transport>(
    inner: Arc<Inner<T>>,
    shard: usize,
    conn: ConnId,
    ping: PingId,
    connection: Arc<T::Connection>,
    mut stop: oneshot::Receiver<()>,
) {
    let answer = tokio::select! {
        biased;
        _ = &mut stop => return,
        answer = inner.transport.ping(connection) => answer,
    };
    inner.enter(shard, |core| match answer {
        Ok(()) => core.pong(ping, conn),
        Err(cause) => core.lost(conn, cause),
    });
}
