//! Counts, kept by increments and equal at all times to a full recount.

use core::time::Duration;

use crate::action::{GiveUpReason, MoveCause, PeerState, RejectReason};
use crate::breaker::State;
use crate::event::{CallFailure, DialCause, LossCause};
use crate::histogram::Histogram;

/// What a manager has done and where everybody stands. Reading it is O(1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Stats {
    /// Peers by state.
    pub peers: PeerCounts,
    /// Breakers by state.
    pub breakers: BreakerCounts,
    /// Dials in flight now.
    pub dials_in_flight: u32,
    /// Dials begun.
    pub dials: u64,
    /// Dials that succeeded.
    pub dials_succeeded: u64,
    /// Dials that we cancelled.
    pub dials_cancelled: u64,
    /// Dials that failed, by cause.
    pub dial_failures: DialFailures,
    /// Connections that ended, by cause.
    pub losses: Losses,
    /// Times that refusals for the peers' own reasons turned out to be everybody's.
    pub common_refusals: u64,
    /// Servers that said that they would leave, by connection.
    pub go_aways: u64,
    /// Connections replaced while they lasted, by cause.
    pub moves: Moves,
    /// Inbound connections taken.
    pub adopted: u64,
    /// Inbound connections refused.
    pub refused: u64,
    /// Sessions that the server took up again.
    pub sessions_resumed: u64,
    /// Sessions that should have been alive and were not.
    pub sessions_lost: u64,
    /// Peers given up.
    pub given_up: u64,
    /// Suspicions, right or wrong.
    pub suspected: u64,
    /// Suspicions that turned out wrong because the connection spoke again.
    pub cleared: u64,
    /// Doubts: silences that were on the way to suspicion.
    pub doubted: u64,
    /// Doubts that ended before they became a suspicion.
    pub doubts_cleared: u64,
    /// Connections that were not suspected yet because too many were silent at once.
    pub held: u64,
    /// Times that so many were.
    pub mass_suspicions: u64,
    /// Times that more began to speak against ourselves.
    pub self_doubts: u64,
    /// Pings sent.
    pub pings: u64,
    /// Pongs heard, late ones included.
    pub pongs: u64,
    /// Calls now, by what they are doing.
    pub calls_now: CallCounts,
    /// Attempts in flight now.
    pub attempts_in_flight: u32,
    /// Calls asked for, the rejected ones included.
    pub calls: u64,
    /// Calls that succeeded.
    pub calls_done: u64,
    /// Calls rejected, by reason.
    pub rejections: Rejections,
    /// Calls given up, by reason.
    pub give_ups: GiveUps,
    /// Attempts begun, retries and hedges included.
    pub attempts: u64,
    /// Attempts that we cancelled, those that timed out included.
    pub attempts_cancelled: u64,
    /// Attempts that failed, by kind.
    pub attempt_failures: AttemptFailures,
    /// Retries decided on; one that a gate then refuses is no attempt.
    pub retries: u64,
    /// Attempts begun to join a slow one.
    pub hedges: u64,
    /// Retries and hedges that the budget did not pay for.
    pub budget_refusals: u64,
    /// Facts about connections, pings or attempts that are gone.
    pub stale: u64,
    /// Other events that changed nothing.
    pub ignored: u64,
    /// Steps whose `now` lay before the latest seen.
    pub clock_backwards: u64,
    /// Times that the driver came back too late.
    pub slept: u64,
    /// Peers with a measurement.
    pub measured: u32,
    /// Of those, the degraded.
    pub degraded: u32,
    /// The sum of their smoothed latencies in nanoseconds.
    pub latency_sum_ns: u128,
    /// The sum of their smoothed losses in parts per million.
    pub loss_sum: u64,
    /// All latencies reported.
    pub latency: Histogram,
    /// From a call's beginning to its success, of calls that succeeded.
    pub call_time: Histogram,
    /// From the loss of a connection to the next one, of peers that came back.
    pub time_to_recover: Histogram,
}

impl Stats {
    /// Whether there is room to go on counting; for what was read from outside.
    pub(crate) fn is_valid(&self) -> bool {
        let counts = [
            self.dials,
            self.dials_succeeded,
            self.dials_cancelled,
            self.common_refusals,
            self.go_aways,
            self.adopted,
            self.refused,
            self.sessions_resumed,
            self.sessions_lost,
            self.given_up,
            self.suspected,
            self.cleared,
            self.doubted,
            self.doubts_cleared,
            self.held,
            self.mass_suspicions,
            self.self_doubts,
            self.pings,
            self.pongs,
            self.calls,
            self.calls_done,
            self.attempts,
            self.attempts_cancelled,
            self.retries,
            self.hedges,
            self.budget_refusals,
            self.stale,
            self.ignored,
            self.clock_backwards,
            self.slept,
        ];
        counts.iter().all(|&count| count <= MAX_COUNT)
            && self.dial_failures.is_valid()
            && self.losses.is_valid()
            && self.moves.is_valid()
            && self.rejections.is_valid()
            && self.give_ups.is_valid()
            && self.attempt_failures.is_valid()
    }

    /// Adds what another manager has counted, for programs that have several.
    ///
    /// Counts of what is now (peers by state, dials in flight) become those of all together.
    pub fn merge(&mut self, other: &Self) {
        // Without `..`: a new count must be added here too.
        let Self {
            peers,
            breakers,
            dials_in_flight,
            dials,
            dials_succeeded,
            dials_cancelled,
            dial_failures,
            losses,
            common_refusals,
            go_aways,
            moves,
            adopted,
            refused,
            sessions_resumed,
            sessions_lost,
            given_up,
            suspected,
            cleared,
            doubted,
            doubts_cleared,
            held,
            mass_suspicions,
            self_doubts,
            pings,
            pongs,
            calls_now,
            attempts_in_flight,
            calls,
            calls_done,
            rejections,
            give_ups,
            attempts,
            attempts_cancelled,
            attempt_failures,
            retries,
            hedges,
            budget_refusals,
            stale,
            ignored,
            clock_backwards,
            slept,
            measured,
            degraded,
            latency_sum_ns,
            loss_sum,
            latency,
            call_time,
            time_to_recover,
        } = other;
        self.peers.merge(peers);
        self.breakers.merge(breakers);
        self.dial_failures.merge(dial_failures);
        self.losses.merge(losses);
        self.moves.merge(moves);
        self.calls_now.merge(calls_now);
        self.rejections.merge(rejections);
        self.give_ups.merge(give_ups);
        self.attempt_failures.merge(attempt_failures);
        self.latency.merge(latency);
        self.call_time.merge(call_time);
        self.time_to_recover.merge(time_to_recover);
        self.latency_sum_ns = self.latency_sum_ns.saturating_add(*latency_sum_ns);
        for (count, more) in [
            (&mut self.dials_in_flight, dials_in_flight),
            (&mut self.attempts_in_flight, attempts_in_flight),
            (&mut self.measured, measured),
            (&mut self.degraded, degraded),
        ] {
            *count = count.saturating_add(*more);
        }
        for (count, more) in [
            (&mut self.dials, dials),
            (&mut self.dials_succeeded, dials_succeeded),
            (&mut self.dials_cancelled, dials_cancelled),
            (&mut self.common_refusals, common_refusals),
            (&mut self.go_aways, go_aways),
            (&mut self.adopted, adopted),
            (&mut self.refused, refused),
            (&mut self.sessions_resumed, sessions_resumed),
            (&mut self.sessions_lost, sessions_lost),
            (&mut self.given_up, given_up),
            (&mut self.suspected, suspected),
            (&mut self.cleared, cleared),
            (&mut self.doubted, doubted),
            (&mut self.doubts_cleared, doubts_cleared),
            (&mut self.held, held),
            (&mut self.mass_suspicions, mass_suspicions),
            (&mut self.self_doubts, self_doubts),
            (&mut self.pings, pings),
            (&mut self.pongs, pongs),
            (&mut self.calls, calls),
            (&mut self.calls_done, calls_done),
            (&mut self.attempts, attempts),
            (&mut self.attempts_cancelled, attempts_cancelled),
            (&mut self.retries, retries),
            (&mut self.hedges, hedges),
            (&mut self.budget_refusals, budget_refusals),
            (&mut self.stale, stale),
            (&mut self.ignored, ignored),
            (&mut self.clock_backwards, clock_backwards),
            (&mut self.slept, slept),
            (&mut self.loss_sum, loss_sum),
        ] {
            *count = count.saturating_add(*more);
        }
    }

    /// Mean of the measured peers' smoothed latencies; zero if none is measured.
    #[must_use]
    pub fn mean_latency(&self) -> Duration {
        let mean = self.latency_sum_ns.checked_div(u128::from(self.measured)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// Mean of the measured peers' smoothed losses in parts per million; zero if none is measured.
    #[must_use]
    pub fn mean_loss(&self) -> u64 {
        self.loss_sum.checked_div(u64::from(self.measured)).unwrap_or(0)
    }
}

/// More than anybody can count to, with room to go on.
const MAX_COUNT: u64 = u64::MAX / 64;

macro_rules! counts {
    ($(#[$doc:meta])* $name:ident($of:ident: $int:ty) { $($(#[$field_doc:meta])* $field:ident = $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $int,)*
        }

        impl $name {
            #[allow(dead_code, reason = "not every set of counts needs each verb")]
            pub(crate) const fn of(&mut self, kind: $of) -> &mut $int {
                match kind {
                    $($of::$variant { .. } => &mut self.$field,)*
                }
            }

            #[allow(dead_code, reason = "not every set of counts needs each verb")]
            fn is_valid(&self) -> bool {
                [$(u64::from(self.$field)),*].iter().all(|&count| count <= MAX_COUNT)
            }

            /// Adds what another has counted.
            pub const fn merge(&mut self, other: &Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)*
            }

            /// The sum of all.
            #[must_use]
            pub fn total(&self) -> u64 {
                0 $(+ u64::from(self.$field))*
            }
        }
    };
}

counts! {
    /// Peers by state.
    PeerCounts(PeerState: u32) {
        /// No connection, and none wanted.
        disconnected = Disconnected,
        /// On the way to the first connection.
        connecting = Connecting,
        /// With a connection.
        connected = Connected,
        /// Coming back.
        reconnecting = Reconnecting,
        /// Given up.
        failed = Failed,
    }
}

counts! {
    /// Breakers by state.
    BreakerCounts(State: u32) {
        /// Admitting.
        closed = Closed,
        /// Refusing until a moment.
        open = Open,
        /// Probing.
        half_open = HalfOpen,
        /// Refusing by order.
        forced_open = ForcedOpen,
        /// Admitting all by order.
        disabled = Disabled,
    }
}

counts! {
    /// Connections replaced while they lasted, by cause.
    Moves(MoveCause: u64) {
        /// To an endpoint that the peer prefers.
        failed_back = FailedBack,
        /// Away from a server that said that it would leave.
        drained = Drained,
        /// By one that spoke first.
        raced = Raced,
    }
}

/// Calls by what they are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CallCounts {
    /// Waiting for the peer's connection.
    pub connection: u32,
    /// Waiting for their turn.
    pub turn: u32,
    /// Waiting for their next attempt.
    pub backing_off: u32,
    /// With an attempt in flight.
    pub running: u32,
}

impl CallCounts {
    /// Adds what another has counted.
    pub const fn merge(&mut self, other: &Self) {
        let Self { connection, turn, backing_off, running } = other;
        self.connection = self.connection.saturating_add(*connection);
        self.turn = self.turn.saturating_add(*turn);
        self.backing_off = self.backing_off.saturating_add(*backing_off);
        self.running = self.running.saturating_add(*running);
    }

    /// The sum of all.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.connection as u64 + self.turn as u64 + self.backing_off as u64 + self.running as u64
    }
}

counts! {
    /// Failed attempts by kind.
    AttemptFailures(CallFailure: u64) {
        /// The server failed.
        error = Error,
        /// No answer in time.
        timeout = Timeout,
        /// The server said "not now".
        throttled = Throttled,
        /// The server said that it is away.
        unavailable = Unavailable,
        /// The connection broke.
        disconnected = Disconnected,
        /// The caller's own fault.
        invalid = Invalid,
        /// The server failed for good.
        fatal = Fatal,
        /// Our own fault.
        local = Local,
    }
}

counts! {
    /// Rejected calls by reason.
    Rejections(RejectReason: u64) {
        /// No time left.
        deadline = Deadline,
        /// No connection.
        not_connected = NotConnected,
        /// No slot.
        bulkhead_full = BulkheadFull,
        /// No token.
        rate_limited = RateLimited,
        /// Too long a wait.
        waited_too_long = WaitedTooLong,
        /// Left out.
        throttled = Throttled,
        /// Nobody admitted.
        breaker_open = BreakerOpen,
        /// Not yet admitted again.
        ramping_up = RampingUp,
        /// Too many at once.
        too_many_calls = TooManyCalls,
        /// No such peer.
        unknown_peer = UnknownPeer,
        /// No such breaker.
        unknown_breaker = UnknownBreaker,
        /// No such profile.
        unknown_profile = UnknownProfile,
        /// The peer was removed.
        peer_removed = PeerRemoved,
    }
}

counts! {
    /// Calls given up by reason.
    GiveUps(GiveUpReason: u64) {
        /// As many attempts as may be.
        too_many_attempts = TooManyAttempts,
        /// No time left.
        deadline = Deadline,
        /// Not of a kind that is retried.
        not_retryable = NotRetryable,
        /// Nothing left in the budget.
        budget_exhausted = BudgetExhausted,
        /// By the server's wish.
        server_said_no = ServerSaidNo,
        /// By a gate.
        refused = Refused,
        /// By the driver.
        cancelled = Cancelled,
        /// By the caller's leaving.
        dropped = Dropped,
        /// With the peer.
        peer_removed = PeerRemoved,
        /// With its process.
        restarted = Restarted,
    }
}

counts! {
    /// Failed dials by cause.
    DialFailures(DialCause: u64) {
        /// Nobody listens.
        refused = Refused,
        /// No answer in time.
        timeout = Timeout,
        /// No route.
        unreachable = Unreachable,
        /// The name did not resolve.
        resolve = Resolve,
        /// The TLS handshake failed.
        tls = Tls,
        /// The server said "not now".
        throttled = Throttled,
        /// The server said no.
        auth = Auth,
        /// No common protocol.
        incompatible = Incompatible,
        /// The server does not know what we ask for.
        not_found = NotFound,
        /// Our own fault.
        local = Local,
        /// The driver gave it up.
        cancelled = Cancelled,
    }
}

counts! {
    /// Ended connections by cause.
    Losses(LossCause: u64) {
        /// Closed by the other side.
        eof = Eof,
        /// Reset.
        reset = Reset,
        /// Another connection took its place.
        replaced = Replaced,
        /// Thrown out.
        kicked = Kicked,
        /// A broken protocol.
        protocol = Protocol,
        /// Given up by our failure detector.
        suspected = Suspected,
        /// Ended by our own side.
        local = Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use serde_json::Value;

    /// Statistics in which every count has a value of its own, from `first` on.
    fn counted(first: u64, millis: &[u64]) -> Stats {
        fn fill(value: &mut Value, next: &mut u64) {
            match value {
                Value::Object(fields) => fields.values_mut().for_each(|value| fill(value, next)),
                Value::Number(_) => {
                    *value = (*next).into();
                    *next += 1;
                }
                _ => {}
            }
        }
        let mut stats = serde_json::to_value(Stats::default()).unwrap();
        let fields = stats.as_object_mut().unwrap();
        for histogram in ["latency", "call_time", "time_to_recover"] {
            fields.remove(histogram);
        }
        let mut next = first;
        for value in fields.values_mut() {
            fill(value, &mut next);
        }
        for (place, name) in (1..).zip(["latency", "call_time", "time_to_recover"]) {
            let mut histogram = Histogram::new();
            millis.iter().for_each(|ms| histogram.record(Duration::from_millis(ms * place)));
            fields.insert(name.into(), serde_json::to_value(histogram).unwrap());
        }
        serde_json::from_value(stats).unwrap()
    }

    #[test]
    fn two_halves_merged_are_what_one_would_have_counted() {
        let (one, other) = (counted(1, &[5, 70]), counted(1_000, &[5, 900, 1]));
        let mut merged = one.clone();
        merged.merge(&other);
        let sums = |stats: &Stats| {
            let mut counts = Vec::new();
            fn collect(value: &Value, counts: &mut Vec<u64>) {
                match value {
                    Value::Object(fields) => {
                        fields.values().for_each(|value| collect(value, counts));
                    }
                    Value::Number(count) => counts.push(count.as_u64().unwrap()),
                    _ => {}
                }
            }
            let mut stats = serde_json::to_value(stats).unwrap();
            let fields = stats.as_object_mut().unwrap();
            fields
                .retain(|name, _| !["latency", "call_time", "time_to_recover"].contains(&&**name));
            collect(&stats, &mut counts);
            counts
        };
        let (one_sums, other_sums) = (sums(&one), sums(&other));
        assert!(one_sums.len() > 80, "{}", one_sums.len());
        let expected: Vec<u64> = one_sums.iter().zip(&other_sums).map(|(a, b)| a + b).collect();
        assert_eq!(sums(&merged), expected);
        let all = counted(1, &[5, 70, 5, 900, 1]);
        assert_eq!(merged.latency, all.latency);
        assert_eq!(merged.call_time, all.call_time);
        assert_eq!(merged.time_to_recover, all.time_to_recover);
        let mut same = one.clone();
        same.merge(&Stats::default());
        assert_eq!(same, one);
    }

    #[test]
    fn each_count_may_be_as_great_as_leaves_room_to_go_on_and_no_greater() {
        fn counts(value: &Value, path: &str, paths: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    fields.iter().for_each(|(name, value)| {
                        counts(value, &format!("{path}/{name}"), paths);
                    });
                }
                _ => paths.push(path.into()),
            }
        }
        let mut stats = serde_json::to_value(Stats::default()).unwrap();
        let mut paths = Vec::new();
        // Sums over what is now and histograms are checked by those who know the terms.
        let sums = ["latency_sum_ns", "loss_sum", "latency", "call_time", "time_to_recover"];
        for (name, value) in stats.as_object().unwrap() {
            if !sums.contains(&&**name) {
                counts(value, &format!("/{name}"), &mut paths);
            }
        }
        let mut checked = 0;
        for path in paths {
            let mut with = |count: u64| {
                *stats.pointer_mut(&path).unwrap() = count.into();
                serde_json::from_value::<Stats>(stats.clone()).map(|stats| stats.is_valid())
            };
            // Counts of what is now have 32 bits, and are counted again by those who read them.
            if let Ok(valid) = with(u64::MAX / 64) {
                assert!(valid && !with(u64::MAX / 64 + 1).unwrap(), "{path}");
                checked += 1;
            }
            with(0).unwrap();
        }
        assert!(checked > 70, "{checked}");
    }

    #[test]
    fn the_means_are_over_the_measured_and_zero_without_any() {
        let mut stats = Stats { latency_sum_ns: 7_000, loss_sum: 50, ..Stats::default() };
        assert_eq!((stats.mean_latency(), stats.mean_loss()), (Duration::ZERO, 0));
        stats.measured = 4;
        assert_eq!((stats.mean_latency(), stats.mean_loss()), (Duration::from_nanos(1_750), 12));
        let endless = Stats { measured: 1, latency_sum_ns: u128::MAX, ..Stats::default() };
        assert_eq!(endless.mean_latency(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_total_is_the_sum_of_all_however_great() {
        let calls = CallCounts { connection: 1, turn: 20, backing_off: 300, running: u32::MAX };
        assert_eq!(calls.total(), 321 + u64::from(u32::MAX));
        let peers = PeerCounts { connecting: 5, failed: u32::MAX, ..PeerCounts::default() };
        assert_eq!(peers.total(), 5 + u64::from(u32::MAX));
    }

    #[test]
    fn a_merge_of_full_counts_stays_full() {
        let mut full = Stats { dials: u64::MAX, dials_in_flight: u32::MAX, ..Stats::default() };
        full.merge(&full.clone());
        assert_eq!((full.dials, full.dials_in_flight), (u64::MAX, u32::MAX));
    }
}
