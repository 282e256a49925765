//! A layer that guards any tower service by a breaker's gates.
//!
//! The guarded service is always ready. A request then asks the manager first, as by
//! [`Handle::call`]: it may be refused, wait in line, be tried again, as its [`Call`] says. Each
//! attempt takes a clone of the service, waits until that one is ready, and calls it. So readiness
//! is part of the attempt: a service that is never ready keeps no refusal from the caller, is
//! covered by the attempt's timeout and the deadline, and opens the breaker.
//!
//! Rejected: to be ready when the inner service is. The wait would have neither a timeout nor a
//! deadline, would not end when the breaker opens, and whoever then waited in line with the inner
//! service's permit in hand could hold up the one that the line waits for. Back-pressure is what
//! the gates are for: a bulkhead of 64 that lets nobody wait sheds load.
//!
//! # Examples
//!
//! ```
//! use steadfast_tokio::tower::{GuardLayer, Verdict};
//! use steadfast_tokio::{BreakerId, Builder, Call, CallFailure, CallsOnly};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let driver = Builder::new(CallsOnly).start()?;
//! let breaker = BreakerId(1);
//! driver.add_breaker(breaker, "calls")?;
//! let profile = driver.call_profile("default").ok_or("no such profile")?;
//!
//! // The inner service answers with a status.
//! let judge = |answer: &Result<u16, std::io::Error>| match answer {
//!     Ok(503) => CallFailure::Unavailable.into(),
//!     Ok(_) => Verdict::Success,
//!     Err(_) => CallFailure::Error.into(),
//! };
//! let guard = GuardLayer::new(driver.clone(), Call::through(breaker, profile)).policy(judge);
//! let service = ServiceBuilder::new()
//!     .layer(guard)
//!     .concurrency_limit(10)
//!     .service(service_fn(|status: u16| async move { Ok::<_, std::io::Error>(status) }));
//!
//! assert_eq!(service.oneshot(200).await?, 200);
//! assert_eq!(driver.stats().calls_done, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Source: tower-resilience's `docs/tower-contract-matrix.md`, and the ways in which it found itself
//! to break that contract.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use steadfast::{CallFailure, GiveUpReason, RetryAfter};
use tower_layer::Layer;
use tower_service::Service;

use crate::call::Call;
use crate::error::{CallError, Failure};
use crate::handle::Handle;
use crate::transport::Transport;

mod policy;

pub use policy::{Once, Policy, Repeat, Verdict};

/// Makes [`Guard`]s. It holds a handle, and so keeps the driver alive.
pub struct GuardLayer<T: Transport, P = Repeat> {
    handle: Handle<T>,
    call: Call,
    policy: Arc<P>,
}

impl<T: Transport> GuardLayer<T> {
    /// Each request is to be such a call, under the policy [`Repeat`].
    #[must_use]
    pub fn new(handle: Handle<T>, call: Call) -> Self {
        Self { handle, call, policy: Arc::new(Repeat) }
    }
}

impl<T: Transport, P> GuardLayer<T, P> {
    /// The same under another policy.
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> GuardLayer<T, Q> {
        GuardLayer { handle: self.handle, call: self.call, policy: Arc::new(policy) }
    }
}

impl<T: Transport, P, S> Layer<S> for GuardLayer<T, P> {
    type Service = Guard<S, T, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Guard { inner, layer: self.clone() }
    }
}

impl<T: Transport, P> Clone for GuardLayer<T, P> {
    fn clone(&self) -> Self {
        let (handle, policy) = (self.handle.clone(), Arc::clone(&self.policy));
        Self { handle, call: self.call, policy }
    }
}

impl<T: Transport, P> fmt::Debug for GuardLayer<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer").field("call", &self.call).finish_non_exhaustive()
    }
}

/// A service behind a breaker's gates.
///
/// A call ends as [`Handle::call`] would, its error not boxed; but where the manager gives up after
/// the service had answered, with a response that was judged to be a failure, the last such response
/// is what the caller gets. An error that was judged to be a success is given back with
/// [`GiveUpReason::NotRetryable`] and without a kind of failure.
///
/// The response future may be dropped at any await point. Each call allocates it.
pub struct Guard<S, T: Transport, P = Repeat> {
    inner: S,
    layer: GuardLayer<T, P>,
}

impl<S, T, P, Req> Service<Req> for Guard<S, T, P>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    T: Transport,
    P: Policy<Req, S::Response, S::Error> + Send + Sync + 'static,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = ResponseFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let service = self.inner.clone();
        let GuardLayer { handle, call, policy } = self.layer.clone();
        let profile = handle.config().call_profiles.get(usize::from(call.profile.0));
        let max_attempts = profile.map_or(1, |profile| profile.max_attempts);
        let mut request = Some(request);
        ResponseFuture(Box::pin(async move {
            let ended = handle.call(call, move |attempt, _| {
                let last = attempt.number >= max_attempts;
                let spare = request.as_ref().filter(|_| !last).and_then(|it| policy.again(it));
                let this = std::mem::replace(&mut request, spare);
                let can_follow = last || request.is_some();
                try_once(service.clone(), this, Arc::clone(&policy), can_follow)
            });
            end(ended.await)
        }))
    }
}

impl<S: Clone, T: Transport, P> Clone for Guard<S, T, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, T: Transport, P> fmt::Debug for Guard<S, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// One attempt: the very clone that was ready is called.
///
/// `can_follow`: whether another attempt may be asked for; otherwise a failure is the end.
async fn try_once<S, P, Req>(
    mut service: S,
    request: Option<Req>,
    policy: Arc<P>,
    can_follow: bool,
) -> Result<Answer<S::Response, S::Error>, Failure<Failed<S::Response, S::Error>>>
where
    S: Service<Req>,
    P: Policy<Req, S::Response, S::Error>,
{
    let Some(request) = request else {
        let impossible = Failure::new(CallFailure::Local, None);
        return Err(impossible.with_retry_after(RetryAfter::Never));
    };
    let answer = match poll_fn(|cx| service.poll_ready(cx)).await {
        Ok(()) => service.call(request).await,
        Err(error) => Err(error),
    };
    match policy.judge(&answer) {
        Verdict::Success => Ok(answer),
        Verdict::Failed { kind, retry_after } => {
            let retry_after = if can_follow { retry_after } else { Some(RetryAfter::Never) };
            Err(Failure { kind, retry_after, error: Some(answer) })
        }
    }
}

/// What the service itself said, apart from how that was judged.
type Answer<R, E> = Result<R, E>;

/// The same of a failed attempt; `None` if the request was gone.
type Failed<R, E> = Option<Answer<R, E>>;

/// What the caller gets.
fn end<R, E>(ended: Result<Answer<R, E>, CallError<Failed<R, E>>>) -> Result<R, CallError<E>> {
    let (reason, last, answer) = match ended {
        Ok(answer) => (GiveUpReason::NotRetryable, None, Some(answer)),
        Err(CallError::GaveUp { reason, last, error }) => (reason, last, error.flatten()),
        Err(CallError::Rejected { reason, retry_after }) => {
            return Err(CallError::Rejected { reason, retry_after });
        }
        Err(CallError::SplitOverShards { peer, dials, calls }) => {
            return Err(CallError::SplitOverShards { peer, dials, calls });
        }
        Err(CallError::ShutDown) => return Err(CallError::ShutDown),
    };
    match answer {
        Some(Ok(response)) => Ok(response),
        Some(Err(error)) => Err(CallError::GaveUp { reason, last, error: Some(error) }),
        None => Err(CallError::GaveUp { reason, last, error: None }),
    }
}

/// The answer to come from a [`Guard`].
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<R, E>(Pin<Box<dyn Future<Output = Result<R, CallError<E>>> + Send>>);

impl<R, E> Future for ResponseFuture<R, E> {
    type Output = Result<R, CallError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<R, E> fmt::Debug for ResponseFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// A [`CallError`] around a boxed error, as an error of its own.
///
/// Many of tower's services have boxed errors, which are no `Error` themselves, and want one from
/// the service within. `.map_err(BoxedCallError)` above a guard joins the two.
#[derive(Debug)]
pub struct BoxedCallError(pub CallError<Box<dyn Error + Send + Sync>>);

impl fmt::Display for BoxedCallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for BoxedCallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            CallError::GaveUp { error: Some(error), .. } => Some(&**error),
            _ => None,
        }
    }
}
