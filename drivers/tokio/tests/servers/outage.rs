//! Two thousand connections, lost at once, come back in a ramp: to a server that was killed, and to
//! one that was frozen.

use std::sync::Arc;
use std::time::Duration;

use steadfast_tokio::steadfast::breaker::State;
use steadfast_tokio::steadfast::bucket::{BucketConfig, Rate};
use steadfast_tokio::steadfast::{Config, Ratio, Time};
use steadfast_tokio::{Builder, Handle, PeerId, Transport};
use tokio::time::{Instant, sleep};

use crate::callers::{Ask, Callers, once};
use crate::counter::{self, Counter};
use crate::real::counted::Dialing;
use crate::real::{
    CALLS, Counted, SILENCE, all_up, ends_well, measured, populate, quick, until, within,
};
use crate::recorded;
use crate::server::{Kind, Server};

const PEERS: u32 = 2_000;
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The limit in flight that nobody has touched.
const IN_FLIGHT: u32 = 256;

/// For how long the server is away.
const AWAY: Duration = Duration::from_secs(3);

/// The longest pause of the breaker, and the time that all take at the rate told or assumed.
const BACK: Duration = Duration::from_secs(10 + 4);

/// A second to be stable, and time to hear from everybody.
const SETTLES: Duration = Duration::from_millis(2_500);

/// For those who know their server.
pub(crate) const TOLD: BucketConfig = BucketConfig { rate: Rate::per_second(500), burst: 50 };

/// What a bucket lets through in such a window.
fn told_within(window: Duration) -> u64 {
    let rate = Ratio::new(500, 1_000_000_000);
    u64::from(TOLD.burst) + rate.of(u64::try_from(window.as_nanos()).unwrap())
}

/// A server, what it counts, and all peers connected to it by connections that are stable.
struct Fleet<T: Transport> {
    server: Server,
    counter: Counter,
    handle: Handle<Counted<T>>,
    dialing: Arc<Dialing>,
}

impl<T: Ask> Fleet<T> {
    async fn connected(name: &str, kind: Kind, transport: T, config: Config) -> Self {
        measured("run", name);
        let server = Server::start(kind);
        let counter = Counter::of(&server, kind).await;
        assert_eq!(config.breaker_profiles[0].max_in_flight, IN_FLIGHT, "untouched");
        let transport = Counted::new(transport);
        let dialing = Arc::clone(&transport.dialing);
        let builder = Builder::new(transport).config(config).record(recorded::anew(name));
        let fleet = Self { server, counter, handle: builder.start().unwrap(), dialing };
        populate(&fleet.handle, u64::from(PEERS), &fleet.server.address.to_string());
        fleet.ramp("connected").await;
        assert_eq!(fleet.counter.accepted(), u64::from(PEERS));
        assert_eq!(fleet.handle.stats().losses.total(), 0);
        fleet
    }

    /// Waits until all are connected, under the limit in flight, and stay so.
    async fn ramp(&self, what: &str) {
        let began = Instant::now();
        within(BACK, what, all_up(&self.handle, PEERS)).await;
        let most = self.dialing.take_most();
        let took = began.elapsed();
        measured(what, format_args!("{took:.2?} for all, {most} dials in flight at the most"));
        assert!(most <= IN_FLIGHT, "{most}");
        sleep(SETTLES).await;
    }

    /// Waits until all are lost, which they must be in that time.
    async fn lost(&self, bound: Duration) {
        let began = Instant::now();
        let lost = || self.handle.stats().losses.total() == u64::from(PEERS);
        within(bound, "all are lost", until(lost)).await;
        measured("lost", format_args!("{:.2?} for all", began.elapsed()));
    }

    /// Nothing is left but what was recorded, which must come to the same again; when it dialed.
    async fn ends_well(&self, name: &str) -> Vec<Time> {
        measured("tasks", self.handle.underway().tasks);
        ends_well(&self.handle, PEERS).await;
        let recorded = self.handle.recorded();
        assert_eq!((recorded[0].missed, &recorded[0].failed), (0, &None));
        let digest = self.handle.run_digests()[0];
        let dials = recorded::replayed(name, digest);
        measured("replayed", format_args!("{} dials, digest {digest:016x}", dials.len()));
        assert_eq!(dials.len() as u64, self.handle.stats().dials);
        dials
    }
}

/// Kills the server and starts it again, with everybody connected and a stream of calls, and holds
/// what the server counts and what was recorded against the limits.
pub(crate) async fn live_through_a_kill<T: Ask>(
    name: &str,
    kind: Kind,
    transport: T,
    told: Option<BucketConfig>,
) {
    let mut config = quick();
    let [dials, calls, ..] = &mut config.breaker_profiles[..] else { panic!("two breakers") };
    dials.rate = told;
    // Calls are not the subject: their breaker may be as quick as that of dials.
    calls.breaker.open_for = dials.breaker.open_for;
    let mut fleet = Fleet::connected(name, kind, transport, config).await;
    let callers = Callers::start(&fleet.handle, 8, u64::from(PEERS), PATIENCE);
    sleep(Duration::from_millis(500)).await;

    fleet.server.kill();
    let killed_at = Instant::now();
    fleet.lost(Duration::ZERO).await;
    sleep(AWAY.saturating_sub(killed_at.elapsed())).await;
    assert_eq!(fleet.handle.stats().peers.connected, 0);
    let asked = fleet.handle.stats().dial_failures.total();
    measured("asked while it was away", format_args!("{asked} of {PEERS}"));
    // The breaker opens at the fifth failure, with as many in flight as may be. After each of its
    // pauses, the first three of which take longer than the outage, three probes go out, and one more
    // when a first failure is put up with.
    let most = 4 + IN_FLIGHT + 3 * (3 + 1);
    assert!(asked <= u64::from(most), "{asked}, not {most}");

    fleet.server.run();
    fleet.ramp("back").await;
    assert_eq!(fleet.counter.accepted(), u64::from(PEERS), "each came back once");
    let closed = || fleet.handle.breaker_state(CALLS) == Some(State::Closed);
    within(BACK, "calls get through", until(closed)).await;
    assert_eq!(once(&fleet.handle, PeerId(0), 0, PATIENCE).await, "answered");
    let endings = callers.stop().await;
    for (ending, count) in &endings {
        measured("calls", format_args!("{count} {ending}"));
    }
    assert!(endings.contains_key("answered") && endings.len() > 1, "{endings:?}");

    let dials = fleet.ends_well(name).await;
    let lives = fleet.counter.lives();
    assert_eq!(lives.len(), 2, "two processes");
    for life in &lives {
        for window in [100, 1_000].map(Duration::from_millis) {
            let most = counter::most_within(life, window);
            measured("accepted", format_args!("{most} within {window:?} at the most"));
        }
    }
    if told.is_some() {
        recorded::assert_within(&dials, told_within);
        for life in &lives {
            // A dial lasts until the server has answered. So what is accepted in a window was begun
            // in it, or in flight when it began.
            counter::assert_within(life, |window| told_within(window) + u64::from(IN_FLIGHT));
        }
    }
}

/// Freezes the server, with everybody connected, and lets it go on: with all the dials on its hands
/// that nobody waits for any more.
pub(crate) async fn live_through_a_freeze<T: Ask>(name: &str, kind: Kind, transport: T) {
    let mut config = quick();
    config.peer_profiles[0].dial_timeout = Duration::from_secs(2);
    let fleet = Fleet::connected(name, kind, transport, config).await;
    fleet.server.freeze();
    fleet.lost(SILENCE).await;
    assert_eq!(fleet.handle.stats().losses.suspected, u64::from(PEERS));
    sleep(AWAY).await;
    let failures = fleet.handle.stats().dial_failures;
    measured(
        "dials timed out while it was frozen",
        format_args!("{} of {PEERS}", failures.timeout),
    );
    assert!(failures.timeout >= 5 && failures.total() == failures.timeout, "{failures:?}");
    // A dial that timed out is let go of when its task runs; its successor may have begun by then.
    assert!(fleet.dialing.take_most() <= 2 * IN_FLIGHT);

    fleet.server.thaw();
    fleet.ramp("back").await;
    let dials = fleet.ends_well(name).await;
    assert_eq!(fleet.counter.accepted(), dials.len() as u64, "no dial is unknown to the server");
    // One to connect at first, and to come back at most 1.1.
    assert!(dials.len() as u64 <= u64::from(PEERS + PEERS * 11 / 10), "{} dials", dials.len());
}
