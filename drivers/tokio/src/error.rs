//! What can go wrong: with a start, a request to the driver, a call, an attempt.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use steadfast::{
    BreakerId, CallFailure, ConfigError, GiveUpReason, Ignored, PeerId, RejectReason, RetryAfter,
};

/// Why a driver could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is refused.
    Config(ConfigError),
    /// There is no tokio runtime here, or its clock is not enabled.
    NoRuntime(&'static str),
    /// A shard would get less than one of something: more shards than the configuration has dials,
    /// peers, breakers or calls to divide.
    TooManyShards(usize),
    /// The recording cannot be written there.
    Record(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::NoRuntime(problem) => write!(f, "{problem}"),
            Self::TooManyShards(shards) => {
                write!(f, "{shards} shards cannot each have a share of the configured limits")
            }
            Self::Record(error) => write!(f, "the recording cannot be written: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Record(error) => Some(error),
            Self::NoRuntime(_) | Self::TooManyShards(_) => None,
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Why the driver refused what it was asked for; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The manager's own reason: a name in use, an unknown one, a bound reached.
    Ignored(Ignored),
    /// No profile of that name.
    UnknownProfile(String),
    /// The two breakers are of different shards, and a peer and its calls must be of one: see
    /// [`Builder::shard_by`](crate::Builder::shard_by).
    SplitOverShards(BreakerId, BreakerId),
    /// The driver is shutting down or is gone.
    ShutDown,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored(reason) => write!(f, "refused: {reason:?}"),
            Self::UnknownProfile(name) => write!(f, "no profile is called {name:?}"),
            Self::SplitOverShards(one, other) => {
                write!(f, "{one} and {other} are of different shards")
            }
            Self::ShutDown => f.write_str("the driver is shut down"),
        }
    }
}

impl Error for Refused {}

/// How an attempt failed: the program's own error, and what it counts as.
///
/// A plain error becomes one by `?` or `into()`, as [`CallFailure::Error`]: the server failed, and
/// another attempt may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<E> {
    /// In which class: it decides what the failure counts against, and whether it is retried.
    pub kind: CallFailure,
    /// How long the server asked callers to stay away.
    pub retry_after: Option<RetryAfter>,
    /// The error itself; the last one is given back with [`CallError::GaveUp`].
    pub error: E,
}

impl<E> Failure<E> {
    /// A failure of that class.
    #[must_use]
    pub const fn new(kind: CallFailure, error: E) -> Self {
        Self { kind, retry_after: None, error }
    }

    /// The same, with the server's wish to be left alone.
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: RetryAfter) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::new(CallFailure::Error, error)
    }
}

/// How a call ended that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError<E> {
    /// No attempt was made.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// When this reason ends at the earliest, where time alone ends it; add jitter of your own.
        retry_after: Option<Duration>,
    },
    /// There were attempts, and there is no further one.
    GaveUp {
        /// Why.
        reason: GiveUpReason,
        /// How the last attempt failed.
        last: Option<CallFailure>,
        /// The last error that an attempt returned. A later attempt may have ended without one: by
        /// its timeout, or with its connection.
        error: Option<E>,
    },
    /// No attempt was made, nor will there ever be one: the breaker is of another shard than the
    /// peer, see [`Builder::shard_by`](crate::Builder::shard_by).
    SplitOverShards {
        /// Whom the call was for.
        peer: PeerId,
        /// What guards dials to it; `None` for a peer without endpoints.
        dials: Option<BreakerId>,
        /// What was to guard the call.
        calls: BreakerId,
    },
    /// The driver is shutting down or is gone.
    ShutDown,
}

impl<E> CallError<E> {
    /// The error of the last attempt that returned one.
    #[must_use]
    pub fn into_error(self) -> Option<E> {
        match self {
            Self::GaveUp { error, .. } => error,
            Self::Rejected { .. } | Self::SplitOverShards { .. } | Self::ShutDown => None,
        }
    }

    /// When it makes sense to ask again, where that is known: what a server of one's own would put
    /// into its `Retry-After`.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected { retry_after, .. } => *retry_after,
            Self::GaveUp { .. } | Self::SplitOverShards { .. } | Self::ShutDown => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected { reason, retry_after: None } => write!(f, "rejected: {reason:?}"),
            Self::Rejected { reason, retry_after: Some(after) } => {
                write!(f, "rejected: {reason:?}, again after {after:?}")
            }
            Self::GaveUp { reason, last, error } => {
                write!(f, "given up: {reason:?}")?;
                if let Some(last) = last {
                    write!(f, ", last attempt: {last:?}")?;
                }
                match error {
                    Some(error) => write!(f, ": {error}"),
                    None => Ok(()),
                }
            }
            Self::SplitOverShards { peer, dials: Some(dials), calls } => {
                write!(f, "{calls} is of another shard than {dials}, and so than {peer}")
            }
            Self::SplitOverShards { peer, dials: None, calls } => {
                write!(f, "{calls} is of another shard than {peer}")
            }
            Self::ShutDown => f.write_str("the driver is shut down"),
        }
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::GaveUp { error: Some(error), .. } => Some(error),
            _ => None,
        }
    }
}
