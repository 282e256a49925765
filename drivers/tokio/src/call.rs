//! One call, as a future: it makes the attempts that the manager orders.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use std::future::poll_fn;

use steadfast::{
    AttemptId, BreakerId, CallFailure, CallId, CallProfileId, Event, PeerId, RejectReason, Target,
};

use crate::calls::{End, Order};
use crate::error::{CallError, Failure};
use crate::inner::Inner;
use crate::transport::Transport;

/// What is to be called, and how it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Where it goes.
    pub target: Target,
    /// How it is tried and retried.
    pub profile: CallProfileId,
    /// How long it may take in all; `None`: as the profile says.
    pub within: Option<Duration>,
}

impl Call {
    /// A call of whatever the program reaches behind this breaker, over connections of its own.
    #[must_use]
    pub const fn through(breaker: BreakerId, profile: CallProfileId) -> Self {
        Self { target: Target::Breaker(breaker), profile, within: None }
    }

    /// A call to a peer, over its connection.
    #[must_use]
    pub const fn to(peer: PeerId, breaker: BreakerId, profile: CallProfileId) -> Self {
        Self { target: Target::Peer { peer, breaker }, profile, within: None }
    }

    /// The same, to be over in this time.
    #[must_use]
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

/// One attempt of a call: what its closure is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Its name in recordings.
    pub id: AttemptId,
    /// Which attempt of its call it is, from 1; hedges count.
    pub number: u32,
}

/// Makes the call. `make` makes one attempt's future, or none if an attempt is impossible without
/// the connection that is missing.
///
/// It may be dropped at any await point: the guard gives everything back.
pub(crate) async fn run<T, F, A, R, E>(
    inner: &Arc<Inner<T>>,
    call: Call,
    mut make: F,
) -> Result<R, CallError<E>>
where
    T: Transport,
    F: FnMut(Attempt, Option<Arc<T::Connection>>) -> Option<A>,
    A: Future<Output = Result<R, Failure<E>>>,
{
    let (mut guard, mut next_order) = Guard::begin(inner, call).ok_or(CallError::ShutDown)?;
    let mut attempts = 0;
    let mut error = None;
    let mut value = None;
    // Attempts whose connection has ended, until they have been looked at once more.
    let mut broken = Vec::new();
    // The only attempt that runs, in most calls: it needs no allocation.
    let mut single = pin!(None::<A>);
    let mut single_id = None;
    // Those that joined a slow one.
    let mut joined: Vec<(AttemptId, Pin<Box<A>>)> = Vec::new();
    let end = poll_fn(|cx| {
        loop {
            guard.running = single_id.or_else(|| joined.first().map(|(attempt, _)| *attempt));
            match next_order.take() {
                Some(Order::Start { attempt, connection }) => {
                    attempts += 1;
                    match make(Attempt { id: attempt, number: attempts }, connection) {
                        None => {
                            let failed = failed(attempt, CallFailure::Local);
                            next_order = guard.report(attempt, failed);
                        }
                        Some(future) if single_id.is_none() => {
                            single.set(Some(future));
                            single_id = Some(attempt);
                        }
                        Some(future) => joined.push((attempt, Box::pin(future))),
                    }
                    continue;
                }
                Some(Order::Cancel(attempt)) if single_id == Some(attempt) => {
                    single_id = None;
                    single.set(None);
                }
                Some(Order::Cancel(attempt)) => joined.retain(|(id, _)| *id != attempt),
                Some(Order::Broken { attempt, kind }) => broken.push((attempt, kind)),
                Some(Order::End(end)) => return Poll::Ready(end),
                None => {}
            }
            let answered = match poll_single(single.as_mut(), cx) {
                Some(result) => single_id.take().map(|attempt| (attempt, result)),
                None => poll_joined(&mut joined, cx),
            };
            match answered {
                Some((attempt, Ok(answer))) => {
                    value = Some(answer);
                    next_order = guard.report(attempt, Event::Succeeded { attempt });
                }
                Some((attempt, Err(failure))) => {
                    let Failure { kind, retry_after, error: reason } = failure;
                    error = Some(reason);
                    next_order =
                        guard.report(attempt, Event::Failed { attempt, kind, retry_after });
                }
                None => match broken.pop() {
                    Some((attempt, kind)) => {
                        if single_id == Some(attempt) {
                            single_id = None;
                            single.set(None);
                        }
                        joined.retain(|(id, _)| *id != attempt);
                        next_order = guard.report(attempt, failed(attempt, kind));
                    }
                    None => match guard.next_order(cx) {
                        Some(order) => next_order = Some(order),
                        None => return Poll::Pending,
                    },
                },
            }
        }
    })
    .await;
    match (end, value) {
        (End::Done, Some(value)) => Ok(value),
        (End::Rejected { reason, retry_after }, _) => {
            // Unknown in the shard that was asked.
            if reason == RejectReason::UnknownPeer
                && let Target::Peer { peer, breaker: calls } = call.target
                && let Some(dials) = inner.dials_elsewhere(peer, calls)
            {
                return Err(CallError::SplitOverShards { peer, dials, calls });
            }
            Err(CallError::Rejected { reason, retry_after })
        }
        (End::GaveUp { reason, last }, _) => Err(CallError::GaveUp { reason, last, error }),
        (End::Done | End::ShutDown, _) => Err(CallError::ShutDown),
    }
}

const fn failed(attempt: AttemptId, kind: CallFailure) -> Event {
    Event::Failed { attempt, kind, retry_after: None }
}

/// The answer of the attempt, which is dropped then.
fn poll_single<A: Future>(
    mut single: Pin<&mut Option<A>>,
    cx: &mut Context<'_>,
) -> Option<A::Output> {
    let future = single.as_mut().as_pin_mut()?;
    let Poll::Ready(result) = future.poll(cx) else { return None };
    single.set(None);
    Some(result)
}

fn poll_joined<A: Future>(
    joined: &mut Vec<(AttemptId, Pin<Box<A>>)>,
    cx: &mut Context<'_>,
) -> Option<(AttemptId, A::Output)> {
    let (place, result) = joined.iter_mut().enumerate().find_map(|(place, (_, future))| {
        match future.as_mut().poll(cx) {
            Poll::Ready(result) => Some((place, result)),
            Poll::Pending => None,
        }
    })?;
    let (attempt, _) = joined.swap_remove(place);
    Some((attempt, result))
}

/// A call that is under way. Dropped before its end was read, it is the caller that went away.
struct Guard<'a, T: Transport> {
    inner: &'a Arc<Inner<T>>,
    shard: usize,
    call: CallId,
    /// An attempt that runs.
    running: Option<AttemptId>,
    over: bool,
}

impl<'a, T: Transport> Guard<'a, T> {
    /// The call begins; what is to be done first, if that is known. `None`: the driver goes.
    fn begin(inner: &'a Arc<Inner<T>>, call: Call) -> Option<(Self, Option<Order<T::Connection>>)> {
        let Call { target, profile, within } = call;
        let shard = inner.shard_of(target.breaker());
        if inner.is_closing() {
            return None;
        }
        let mut guard = None;
        let order = inner.enter(shard, |core| {
            let call = core.open_call()?;
            // Inside, so that it outlives a panic in what follows, as of a subscriber.
            guard = Some(Self { inner, shard, call, running: None, over: false });
            let deadline = within.map(|within| core.now() + within);
            core.step(Event::Call { call, target, profile, deadline });
            core.take_order(call)
        });
        let mut guard = guard?;
        guard.note(&order);
        Some((guard, order))
    }

    /// Tells what came of an attempt; what is to be done next, if that is known.
    fn report(&mut self, attempt: AttemptId, fact: Event) -> Option<Order<T::Connection>> {
        let (order, _unneeded) = self.inner.enter(self.shard, |core| {
            let unneeded = core.calls.works(self.call);
            core.report(attempt, fact);
            (core.take_order(self.call), unneeded)
        });
        self.note(&order);
        order
    }

    /// What is to be done next; if nothing is, the waker is called when something will be.
    fn next_order(&mut self, cx: &Context<'_>) -> Option<Order<T::Connection>> {
        let (order, _unneeded) =
            self.inner.enter_untimed(self.shard, |core| match core.take_order(self.call) {
                None => (None, core.calls.wait(self.call, cx.waker())),
                order => (order, None),
            });
        self.note(&order);
        order
    }

    fn note(&mut self, order: &Option<Order<T::Connection>>) {
        self.over |= matches!(order, Some(Order::End(_)));
    }
}

impl<T: Transport> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            self.inner.enter(self.shard, |core| core.abandon(self.call, self.running));
        }
        self.inner.grew_quieter();
    }
}
