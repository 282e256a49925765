//! The task of one connection: it dials, lives with it, and closes it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use steadfast::{ConnId, DialCause, Event, LossCause, PingId};
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
        let (inner, shard, conn) = (&self.inner, self.shard, self.conn);
        if std::thread::panicking() {
            inner.enter(shard, |core| match core.is_up(conn) {
                true => core.lost(conn, LossCause::Local),
                false => core.dial_failed(conn, DialCause::Local, None),
            });
        } else if inner.enter_quietly(shard, |core| core.conns.get(conn).is_some()) {
            // Nobody else drops a task in the middle: its runtime is shutting down.
            inner.halt();
        }
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
    let signs = Arc::new(Signs::at_rest());
    let ended = {
        let link = link(&place, Arc::clone(&signs));
        let mut life = pin!(inner.transport.run(Arc::clone(&connection), link));
        tokio::select! {
            biased;
            order = &mut order => Err(order),
            cause = poll_fn(|cx| signs.one_wakeup(|| life.as_mut().poll(cx))) => Ok(cause),
        }
    };
    match ended {
        Ok(cause) => inner.enter(place.shard, |core| core.lost(place.conn, cause)),
        Err(Ok(())) => Box::pin(close(inner, connection)).await,
        Err(Err(_)) => {}
    }
}

fn link<T: Transport>(place: &Place<T>, signs: Arc<Signs>) -> Link {
    let (inner, shard, conn) = (Arc::clone(&place.inner), place.shard, place.conn);
    Link::new(conn, move |event| {
        let only_a_sign = matches!(event, Event::Heard { .. });
        if signs.is_repeated() && only_a_sign {
            return;
        }
        inner.step(shard, |core| core.is_up(conn).then_some(event));
    })
}

/// How many signs of life a connection's task has found in the wake-up that it is at.
///
/// Of all frames that were there when the task was woken the first tells that the connection lives:
/// the others would cost a lock and a clock each to say it again a microsecond later. The first is
/// told at once and not at the end, so that no tick can come between.
///
/// Signs of several connections are not put together. Somebody would have to be woken when the last
/// of them is there, or they would lie until the next tick and be taken for that late; and to wake a
/// task costs two to six signs (`benches/signs.rs`), which is a loss whenever few come at once.
struct Signs(AtomicU32);

impl Signs {
    /// The task sleeps. Whoever else has the link tells all.
    const AT_REST: u32 = u32::MAX;
    /// One of so many is told, or a wake-up without end would look like silence.
    const TOLD_OF: u32 = 64;

    const fn at_rest() -> Self {
        Self(AtomicU32::new(Self::AT_REST))
    }

    fn one_wakeup<R>(&self, work: impl FnOnce() -> R) -> R {
        self.0.store(0, Relaxed);
        let result = work();
        self.0.store(Self::AT_REST, Relaxed);
        result
    }

    /// Counts one; whether another of this wake-up has told the same.
    fn is_repeated(&self) -> bool {
        let before = self.0.load(Relaxed);
        before != Self::AT_REST
            && self.0.compare_exchange(before, before + 1, Relaxed, Relaxed).is_ok()
            && !before.is_multiple_of(Self::TOLD_OF)
    }
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
