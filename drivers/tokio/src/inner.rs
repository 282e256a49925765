//! What all handles and tasks of one driver share, and the one way through the lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use steadfast::{BreakerId, Event, PeerId, Stats, Time};
use tokio::runtime;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::connection;
use crate::core::{Core, Effect, Noticed};
use crate::transport::Transport;

/// Which shard a breaker belongs to, before the number of shards divides it.
pub(crate) type ShardKey = Arc<dyn Fn(BreakerId) -> u64 + Send + Sync>;

/// One manager, and the bell of the task that keeps its deadlines.
pub(crate) struct Shard<T: Transport> {
    core: Mutex<Core<T>>,
    earlier: Notify,
}

pub(crate) struct Inner<T: Transport> {
    pub(crate) transport: T,
    pub(crate) runtime: runtime::Handle,
    pub(crate) close_timeout: Duration,
    pub(crate) notices: broadcast::Sender<Noticed>,
    #[cfg(feature = "metrics")]
    pub(crate) publisher: crate::publish::Publisher,
    shards: Vec<Shard<T>>,
    shard_by: Option<ShardKey>,
    /// In which shard a peer is, where there are several.
    homes: RwLock<BTreeMap<PeerId, usize>>,
    epoch: Instant,
    /// How often the clock was read.
    #[cfg(test)]
    readings: AtomicUsize,
    /// Nothing new is begun.
    closing: AtomicBool,
    /// Connections' and pings' tasks that run.
    tasks: AtomicUsize,
    /// A call or a task has ended while somebody waits for the last one.
    pub(crate) quieter: Notify,
}

impl<T: Transport> Inner<T> {
    pub(crate) fn new(
        transport: T,
        runtime: runtime::Handle,
        close_timeout: Duration,
        notices: broadcast::Sender<Noticed>,
        cores: Vec<Core<T>>,
        shard_by: Option<ShardKey>,
        epoch: Instant,
    ) -> Self {
        let shard = |core| Shard { core: Mutex::new(core), earlier: Notify::new() };
        Self {
            transport,
            runtime,
            close_timeout,
            notices,
            #[cfg(feature = "metrics")]
            publisher: crate::publish::Publisher::default(),
            shards: cores.into_iter().map(shard).collect(),
            shard_by,
            homes: RwLock::default(),
            epoch,
            #[cfg(test)]
            readings: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            tasks: AtomicUsize::new(0),
            quieter: Notify::new(),
        }
    }

    /// Works under a shard's lock, at the moment that the clock shows inside it, and carries out
    /// what follows once the lock is released. The clock is read once, for however many steps.
    pub(crate) fn enter<R>(
        self: &Arc<Self>,
        shard: usize,
        work: impl FnOnce(&mut Core<T>) -> R,
    ) -> R {
        self.enter_untimed(shard, |core| {
            core.at(self.elapsed());
            work(core)
        })
    }

    /// The same where nothing is stepped, so that no clock is needed.
    #[expect(clippy::indexing_slicing, reason = "shards are named by shard_of and home_of")]
    pub(crate) fn enter_untimed<R>(
        self: &Arc<Self>,
        shard: usize,
        work: impl FnOnce(&mut Core<T>) -> R,
    ) -> R {
        let place = &self.shards[shard];
        let mut core = lock(&place.core);
        let result = work(&mut core);
        let earlier = core.is_due_earlier();
        let effects = match core.effects.is_empty() {
            true => None,
            false => Some(std::mem::take(&mut core.effects)),
        };
        let unsent = !core.unsent.is_empty();
        #[cfg(feature = "tracing")]
        let told = std::mem::take(&mut core.told);
        drop(core);
        if earlier {
            place.earlier.notify_one();
        }
        if let Some(effects) = effects {
            Rest { inner: self, shard, effects: effects.into_iter() }.carry_out();
        }
        if unsent {
            self.send_notices(shard);
        }
        #[cfg(feature = "tracing")]
        if !std::thread::panicking() {
            told.into_iter().for_each(crate::trace::tell);
        }
        result
    }

    /// Works under a shard's lock where nothing is stepped and nothing follows.
    #[expect(clippy::indexing_slicing, reason = "shards are named by shard_of and home_of")]
    pub(crate) fn enter_quietly<R>(&self, shard: usize, work: impl FnOnce(&mut Core<T>) -> R) -> R {
        work(&mut lock(&self.shards[shard].core))
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        #[cfg(test)]
        self.readings.fetch_add(1, Ordering::Relaxed);
        self.epoch.elapsed()
    }

    /// The counts of all shards together.
    pub(crate) fn stats(&self) -> Stats {
        let mut all = Stats::default();
        for shard in 0..self.shards() {
            self.enter_quietly(shard, |core| all.merge(core.manager.stats()));
        }
        all
    }

    /// Steps a shard's manager, if there is still something to report.
    pub(crate) fn step(
        self: &Arc<Self>,
        shard: usize,
        fact: impl FnOnce(&mut Core<T>) -> Option<Event>,
    ) {
        self.enter(shard, |core| {
            if let Some(event) = fact(core) {
                core.step(event);
            }
        });
    }

    fn carry_out(self: &Arc<Self>, shard: usize, effect: Effect<T>) {
        match effect {
            Effect::Dial { conn, dial, order } => {
                let place = connection::Place::new(self, shard, conn);
                self.spawn(connection::dial(place, dial, order));
            }
            Effect::Hold { conn, connection, order } => {
                let place = connection::Place::new(self, shard, conn);
                self.spawn(connection::hold(place, connection, order));
            }
            Effect::Ping { ping, conn, connection, stop } => {
                let inner = Arc::clone(self);
                self.spawn(connection::ping(inner, shard, conn, ping, connection, stop));
            }
            Effect::Refuse(connection) => {
                self.spawn(connection::close(Arc::clone(self), connection));
            }
            // Its task may have gone with the runtime.
            Effect::Close(conn) => drop(conn.order.send(())),
            Effect::Forget(conn) => drop(conn),
            Effect::Unread(orders) => drop(orders),
            Effect::Wake(waker) => waker.wake(),
            Effect::Unneeded(waker) => drop(waker),
            // The state is there already.
            Effect::Changed(watched) => watched.send_modify(|_| {}),
            Effect::Gone(peer) => drop(peer),
            Effect::Unwatched(watched) => drop(watched),
        }
    }

    /// Sends those who read notices what they have not been sent, in order: whoever comes while
    /// somebody is at it, be it from a waker that is called here, leaves its own to that one.
    fn send_notices(&self, shard: usize) {
        let next = |first: bool| {
            self.enter_quietly(shard, |core| {
                let others = first && core.sending;
                let next = if others { VecDeque::new() } else { std::mem::take(&mut core.unsent) };
                core.sending = others || !next.is_empty();
                next
            })
        };
        let mut notices = next(true);
        while !notices.is_empty() {
            let sending = Sending { inner: self, shard };
            for notice in notices {
                // An error says that nobody listens any more.
                let _ = self.notices.send(notice);
            }
            std::mem::forget(sending);
            notices = next(false);
        }
    }

    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        let count = Count(Arc::clone(self));
        self.runtime.spawn(async move {
            let _count = count;
            task.await;
        });
    }

    /// Keeps a shard's deadlines: sleeps exactly until each, and is woken only when one comes that
    /// is earlier. `_end` goes with the task, even if that is never polled.
    pub(crate) async fn keep_time(self: Arc<Self>, shard: usize, _end: Halt<T>) {
        let Some(place) = self.shards.get(shard) else { return };
        let tick = || {
            self.enter(shard, |core| {
                core.step(Event::Tick);
                core.arm()
            })
        };
        let mut next = self.enter_quietly(shard, Core::arm);
        while let Some(deadline) = next {
            let slept = self.sleep_until(deadline);
            tokio::select! {
                biased;
                () = place.earlier.notified() => {
                    next = self.enter_quietly(shard, Core::arm);
                    continue;
                }
                () = slept => {}
            }
            // Facts come before ticks: whatever the sockets have ready is fed before anybody is judged.
            tokio::task::yield_now().await;
            // What panics is the program's own code, and time goes on; or else it was under the lock.
            next = match catch_unwind(AssertUnwindSafe(tick)) {
                Ok(next) => next,
                Err(_) if place.core.is_poisoned() => return,
                Err(_) => self.enter_quietly(shard, Core::arm),
            };
        }
    }

    async fn sleep_until(&self, deadline: Time) {
        match self.epoch.checked_add(deadline.since(Time::ZERO)) {
            Some(at) if deadline < Time::MAX => tokio::time::sleep_until(at).await,
            _ => std::future::pending().await,
        }
    }
}

/// # Who is where
impl<T: Transport> Inner<T> {
    pub(crate) const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shard of a breaker, of all that it guards and of all calls that pass it.
    pub(crate) fn shard_of(&self, breaker: BreakerId) -> usize {
        let key = self.shard_by.as_ref().map_or(breaker.0, |shard_by| shard_by(breaker));
        let shard = key.checked_rem(self.shards.len() as u64).unwrap_or(0);
        usize::try_from(shard).unwrap_or(0)
    }

    pub(crate) fn home_of(&self, peer: PeerId) -> Option<usize> {
        if self.shards.len() == 1 {
            return Some(0);
        }
        self.homes.read().unwrap_or_else(PoisonError::into_inner).get(&peer).copied()
    }

    /// If the peer is at home in another shard than the breaker: what guards dials to it, if
    /// anything does.
    pub(crate) fn dials_elsewhere(
        &self,
        peer: PeerId,
        breaker: BreakerId,
    ) -> Option<Option<BreakerId>> {
        let home = self.home_of(peer).filter(|home| *home != self.shard_of(breaker))?;
        self.enter_quietly(home, |core| {
            let endpoints = &core.peers.get(&peer)?.endpoints;
            Some(endpoints.first().map(|(_, breaker, _)| *breaker))
        })
    }

    /// The peer is at home there from now on; `false` if it has a home.
    pub(crate) fn claim_home(&self, peer: PeerId, home: usize) -> bool {
        // Where there is one shard only, its manager knows who is there.
        self.shards.len() == 1
            || match self.homes.write().unwrap_or_else(PoisonError::into_inner).entry(peer) {
                Entry::Vacant(place) => *place.insert(home) == home,
                Entry::Occupied(_) => false,
            }
    }

    /// The peer has no home any more.
    pub(crate) fn leave_home(&self, peer: PeerId) {
        self.homes.write().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }
}

/// # The end
impl<T: Transport> Inner<T> {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether any shard is still stepped: they end in order.
    pub(crate) fn is_open(&self) -> bool {
        self.enter_quietly(self.shards() - 1, |core| core.open)
    }

    /// Connections' and pings' tasks that run.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.load(Ordering::Acquire)
    }

    /// Somebody may be waiting for the end of calls and tasks.
    pub(crate) fn grew_quieter(&self) {
        if self.is_closing() {
            self.quieter.notify_waiters();
        }
    }

    /// Everything ends at once: connections are let go of, calls end as shut down.
    pub(crate) fn halt(self: &Arc<Self>) {
        self.begin_closing();
        for shard in 0..self.shards.len() {
            self.enter(shard, Core::halt);
            if let Some(place) = self.shards.get(shard) {
                place.earlier.notify_one();
            }
        }
        self.grew_quieter();
    }
}

impl<T: Transport> fmt::Debug for Inner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// Nothing panics under the lock, and if something did, the manager would still be whole.
fn lock<T: Transport>(core: &Mutex<Core<T>>) -> MutexGuard<'_, Core<T>> {
    let core = core.lock().unwrap_or_else(PoisonError::into_inner);
    #[cfg(test)]
    core.locked.set(core.locked.get() + 1);
    core
}

/// Effects that have not been carried out. Dropped by the panic of one, a waker or a destructor of
/// the program's, it carries out the others: nobody else is to wait for ever for that.
struct Rest<'a, T: Transport> {
    inner: &'a Arc<Inner<T>>,
    shard: usize,
    effects: std::vec::IntoIter<Effect<T>>,
}

impl<T: Transport> Rest<'_, T> {
    fn carry_out(&mut self) {
        for effect in self.effects.by_ref() {
            self.inner.carry_out(self.shard, effect);
        }
    }
}

impl<T: Transport> Drop for Rest<'_, T> {
    fn drop(&mut self) {
        self.carry_out();
    }
}

/// Dropped only by a waker's panic: the next one may send.
struct Sending<'a, T: Transport> {
    inner: &'a Inner<T>,
    shard: usize,
}

impl<T: Transport> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        self.inner.enter_quietly(self.shard, |core| core.sending = false);
    }
}

/// Counts a task as long as it lives.
struct Count<T: Transport>(Arc<Inner<T>>);

impl<T: Transport> Drop for Count<T> {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::AcqRel);
        self.0.grew_quieter();
    }
}

/// Halts the driver when it is dropped: with the task that keeps its time, so that nobody waits for
/// a runtime that is gone; or with the last handle.
pub(crate) struct Halt<T: Transport>(pub(crate) Arc<Inner<T>>);

impl<T: Transport> Drop for Halt<T> {
    fn drop(&mut self) {
        self.0.halt();
    }
}

#[cfg(test)]
mod tests;
