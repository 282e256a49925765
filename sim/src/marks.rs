//! Marks: corners that a run has been in.
//!
//! A sweep in which no breaker ever reopened says nothing of breakers that reopen. So a scenario
//! under chaos names what its seeds together must have met, and a sweep that missed one is no pass.
//!
//! Source: `FoundationDB`'s code probes, Antithesis's "sometimes" assertions.

use steadfast::breaker::State;
use steadfast::{
    Action, CallFailure, DialCause, GiveUpReason, Ignored, LossCause, MoveCause, Notice, PeerCause,
    PeerState, RejectReason, WaitsFor,
};

/// A corner that a run may have been in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its name.
    pub name: &'static str,
    /// What has been seen.
    pub about: &'static str,
}

/// The marks of a run, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u64);

/// Each mark with its name, what it means, and the action that leaves it.
macro_rules! marks {
    ($($seen:pat => $name:literal, $about:literal;)*) => {
        const ALL: &[Mark] = &[$(Mark { name: $name, about: $about }),*];

        /// The marks that an action leaves.
        fn left_by(action: &Action) -> u64 {
            let (mut left, mut bit) = (0, 1_u64);
            $(
                if matches!(action, $seen) {
                    left |= bit;
                }
                bit = bit.rotate_left(1);
            )*
            let _ = bit;
            left
        }
    };
}

macro_rules! failed {
    ($cause:ident) => {
        Action::Notice(Notice::Peer { cause: PeerCause::DialFailed(DialCause::$cause), .. })
    };
}
macro_rules! lost {
    ($cause:ident) => {
        Action::Notice(Notice::Peer {
            from: PeerState::Connected,
            cause: PeerCause::Lost(LossCause::$cause),
            ..
        })
    };
}
macro_rules! moved {
    ($cause:ident) => {
        Action::Notice(Notice::Moved { cause: MoveCause::$cause, .. })
    };
}
macro_rules! turned {
    ($from:pat, $to:pat) => {
        Action::Notice(Notice::Breaker { from: $from, to: $to, .. })
    };
}
macro_rules! waits {
    ($on:ident) => {
        Action::Notice(Notice::CallWaits { on: WaitsFor::$on, .. })
    };
}
macro_rules! gave_up {
    ($reason:ident) => {
        Action::GiveUp { reason: GiveUpReason::$reason, .. }
    };
}
macro_rules! rejected {
    ($reason:ident) => {
        Action::Reject { reason: RejectReason::$reason, .. }
    };
}

marks! {
    failed!(Refused) => "dial.refused", "a dial was refused";
    failed!(Timeout) => "dial.timeout", "a dial took too long";
    failed!(Unreachable) => "dial.unreachable", "there was no way there";
    failed!(Resolve) => "dial.resolve", "a name was looked up in vain";
    failed!(Throttled) => "dial.throttled", "a server wanted fewer dials";
    failed!(Auth) => "dial.auth", "a server did not know the peer";
    failed!(Incompatible) => "dial.incompatible", "versions did not fit";
    failed!(NotFound) => "dial.not-found", "a server knew nothing of it";
    Action::Notice(Notice::CommonRefusal { .. }) => "refusal.common", "what is a peer's own fault befell several in a row";
    lost!(Reset) => "lost.reset", "a connection was reset";
    lost!(Suspected) => "lost.suspected", "a silent connection was dropped";
    Action::Notice(Notice::FailedOver { .. }) => "peer.failed-over", "a peer went to another endpoint";
    moved!(FailedBack) => "peer.failed-back", "a peer went back to the one it prefers";
    moved!(Drained) => "peer.drained", "a peer left a server before that went";
    moved!(Raced) => "peer.raced", "another connection spoke before a silent one";
    Action::Dial { resume: true, .. } => "peer.resumed", "a peer asked for its session";
    Action::Notice(Notice::SessionLost { .. }) => "peer.session-lost", "a session was gone too early";
    Action::Notice(Notice::RetryAt { failures: 3.., .. }) => "peer.retried", "a peer backed off three times in a row";
    Action::CancelDial { .. } => "peer.cancelled", "a dial was called off";
    Action::Notice(Notice::Suspected { .. }) => "health.suspected", "a silent connection was suspected";
    Action::Notice(Notice::Cleared { .. }) => "health.cleared", "a suspected one spoke";
    Action::Notice(Notice::Doubted { .. }) => "health.doubted", "one was silent for longer than usual";
    Action::Notice(Notice::Trusted { .. }) => "health.trusted", "a doubted one spoke";
    Action::Notice(Notice::MassSuspicion { .. }) => "health.mass", "many fell silent together";
    Action::Notice(Notice::SelfHealth { score: 1.. }) => "health.self", "something spoke against ourselves";
    Action::Notice(Notice::Slept { .. }) => "slept", "the driver came late";
    Action::Notice(Notice::Ignored(Ignored::StaleConn(_))) => "stale.conn", "something was told of a connection that is gone";
    Action::Notice(Notice::Ignored(Ignored::StaleAttempt(_))) => "stale.attempt", "the same of an attempt";
    turned!(State::Closed, State::Open { .. }) => "breaker.opened", "a breaker opened";
    turned!(State::Open { .. }, State::HalfOpen) => "breaker.half-opened", "one half-opened";
    turned!(State::HalfOpen, State::Open { .. }) => "breaker.reopened", "its probes failed";
    turned!(State::HalfOpen, State::Closed) => "breaker.closed", "its probes succeeded";
    waits!(Connection) => "call.waited-connection", "a call waited for a connection";
    waits!(Turn) => "call.waited-turn", "a call waited for its turn";
    Action::Notice(Notice::CallRetries { .. }) => "call.retried", "an attempt failed and another was due";
    Action::CancelAttempt { .. } => "call.cut-off", "an attempt was called off";
    Action::GiveUp { last: Some(CallFailure::Timeout), .. } => "call.timed-out", "the last attempt took too long";
    gave_up!(TooManyAttempts) => "call.out-of-attempts", "all attempts failed";
    gave_up!(Deadline) => "call.deadline", "a call's time was up";
    gave_up!(BudgetExhausted) => "call.unpaid", "a retry could not be paid";
    gave_up!(Cancelled) => "call.cancelled", "a caller cancelled";
    gave_up!(Dropped) => "call.dropped", "a caller went away in an attempt";
    rejected!(BreakerOpen) => "call.refused-open", "a breaker refused a call";
    rejected!(BulkheadFull) => "call.refused-full", "a bulkhead did";
    rejected!(RateLimited) => "call.refused-rate", "a rate did";
    rejected!(WaitedTooLong) => "call.refused-waited", "a wait was too long";
    rejected!(Throttled) => "call.refused-throttled", "a throttle did";
}

/// All marks that there are.
pub fn all() -> impl Iterator<Item = Mark> {
    ALL.iter().copied()
}

impl Marks {
    /// Notes what an action tells.
    pub(crate) fn see(&mut self, action: &Action) {
        self.0 |= left_by(action);
    }

    /// Adds those of another run.
    pub const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether the mark of that name is among them.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// Their names, in the order of the list.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let set = move |place: &usize| self.0 & (1 << place) != 0;
        ALL.iter().enumerate().filter(move |(place, _)| set(place)).map(|(_, mark)| mark.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_bit_and_a_name_of_its_own() {
        let mut names: Vec<_> = all().map(|mark| mark.name).collect();
        assert!(names.len() <= 64, "{}", names.len());
        assert_eq!(Marks(u64::MAX).names().count(), names.len());
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn an_action_leaves_its_own() {
        let mut marks = Marks::default();
        marks.see(&Action::CancelDial { conn: steadfast::ConnId::from_raw(1) });
        assert_eq!(marks.names().collect::<Vec<_>>(), ["peer.cancelled"]);
        assert!(marks.has("peer.cancelled") && !marks.has("slept"));
    }
}
