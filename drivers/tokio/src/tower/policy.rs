//! What the layer makes of answers, and which requests it repeats.

use steadfast::{CallFailure, RetryAfter};

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Verdict {
    /// The server did its work, whatever it answered.
    Success,
    /// It did not.
    Failed {
        /// In which class: it decides what the failure counts against, and whether it is retried.
        kind: CallFailure,
        /// How long the server asked callers to stay away.
        retry_after: Option<RetryAfter>,
    },
}

/// Without a wish of the server's.
impl From<CallFailure> for Verdict {
    fn from(kind: CallFailure) -> Self {
        Self::Failed { kind, retry_after: None }
    }
}

/// How requests are repeated and answers judged.
///
/// Any `Fn(&Result<Res, Err>) -> Verdict` is one, for requests that can be cloned.
pub trait Policy<Req, Res, Err> {
    /// The request once more, for an attempt after this one; `None` if it cannot be made twice.
    ///
    /// Not asked for the last attempt that the call's profile allows, so a profile with one attempt,
    /// as `fail-fast`, repeats nothing. With any other, the failure of a request that cannot be
    /// repeated ends its call, by
    /// [`ServerSaidNo`](steadfast::GiveUpReason::ServerSaidNo).
    fn again(&self, request: &Req) -> Option<Req>;

    /// What the answer counts as; by default an error is a [`CallFailure::Error`].
    fn judge(&self, answer: &Result<Res, Err>) -> Verdict {
        match answer {
            Ok(_) => Verdict::Success,
            Err(_) => CallFailure::Error.into(),
        }
    }
}

/// Requests are cloned, and errors are failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Repeat;

impl<Req: Clone, Res, Err> Policy<Req, Res, Err> for Repeat {
    fn again(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// Each request is made once, and errors are failures. For requests that cannot be cloned; best with
/// a profile of one attempt, since with another one a call whose attempt timed out ends only when
/// the next would begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Once;

impl<Req, Res, Err> Policy<Req, Res, Err> for Once {
    fn again(&self, _: &Req) -> Option<Req> {
        None
    }
}

impl<F, Req: Clone, Res, Err> Policy<Req, Res, Err> for F
where
    F: Fn(&Result<Res, Err>) -> Verdict,
{
    fn again(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    fn judge(&self, answer: &Result<Res, Err>) -> Verdict {
        self(answer)
    }
}
