//! Two thousand connections, lost at once, come back in a ramp.

use std::sync::Arc;
use std::time::Duration;

use steadfast_tokio::steadfast::Ratio;
use steadfast_tokio::steadfast::breaker::State;
use steadfast_tokio::steadfast::bucket::{BucketConfig, Rate};
use steadfast_tokio::{Builder, Handle, PeerId, Transport};
use tokio::time::{Instant, sleep};

use crate::callers::{Ask, Callers, once};
use crate::counter::{self, Counter, Sample};
use crate::real::counted::Dialing;
use crate::real::{CALLS, Counted, all_up, ends_well, measured, populate, quick, until, within};
use crate::recorded;
use crate::server::{Kind, Server};

const PEERS: u32 = 2_000;
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The limit in flight that nobody has touched.
const IN_FLIGHT: u32 = 64;

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

/// Connects all, kills the server, starts it again, and holds what the server and the recording
/// tell against the limits.
pub(crate) async fn live_through<T: Ask>(
    name: &str,
    kind: Kind,
    transport: T,
    told: Option<BucketConfig>,
) {
    measured("run", name);
    let mut server = Server::start(kind);
    let counter = Counter::of(&server, kind).await;
    let mut config = quick();
    let [dials, calls, ..] = &mut config.breaker_profiles[..] else { panic!("two breakers") };
    assert_eq!(dials.max_in_flight, IN_FLIGHT, "untouched");
    dials.rate = told;
    // Calls are not the subject: their breaker may be as quick as that of dials.
    calls.breaker.open_for = dials.breaker.open_for;
    let transport = Counted::new(transport);
    let dialing = Arc::clone(&transport.dialing);
    let builder = Builder::new(transport).config(config).record(recorded::anew(name));
    let handle = builder.start().unwrap();

    populate(&handle, u64::from(PEERS), &server.address.to_string());
    ramp("connected", &handle, &dialing).await;
    sleep(SETTLES).await;
    assert_eq!((counter.accepted(), handle.stats().losses.total()), (u64::from(PEERS), 0));

    let callers = Callers::start(&handle, 8, u64::from(PEERS), PATIENCE);
    sleep(Duration::from_millis(500)).await;
    server.kill();
    outage(&handle).await;
    server.run();
    ramp("back", &handle, &dialing).await;
    let closed = || handle.breaker_state(CALLS) == Some(State::Closed);
    within(BACK, "calls get through", until(closed)).await;
    sleep(SETTLES).await;
    assert_eq!(counter.accepted(), u64::from(PEERS), "each came back once");
    assert_eq!(once(&handle, PeerId(0), 0, PATIENCE).await, "answered");

    let endings = callers.stop().await;
    for (ending, count) in &endings {
        measured("calls", format_args!("{count} {ending}"));
    }
    assert!(endings.contains_key("answered") && endings.len() > 1, "{endings:?}");
    measured("tasks", handle.underway().tasks);
    ends_well(&handle, PEERS).await;
    holds_against(name, &handle, &counter.lives(), told.is_some());
}

/// Waits until all are connected, under the limit in flight.
async fn ramp<T: Transport>(what: &str, handle: &Handle<T>, dialing: &Dialing) {
    let began = Instant::now();
    within(BACK, what, all_up(handle, PEERS)).await;
    let most = dialing.take_most();
    let took = began.elapsed();
    measured(what, format_args!("{took:.2?} for all, {most} dials in flight at the most"));
    assert!(most <= IN_FLIGHT, "{most}");
}

/// The server has been killed: all are lost, and few ask whether it is back.
async fn outage<T: Transport>(handle: &Handle<T>) {
    let killed_at = Instant::now();
    let lost = || handle.stats().losses.total() == u64::from(PEERS);
    within(Duration::ZERO, "all are lost", until(lost)).await;
    sleep(AWAY.saturating_sub(killed_at.elapsed())).await;
    assert_eq!(handle.stats().peers.connected, 0);
    let knocked = handle.stats().dial_failures.total();
    measured("asked while it was away", format_args!("{knocked} of {PEERS}"));
    // The breaker opens at the fifth failure, when others may be in flight; then there are three
    // probes after each of its pauses, the first three of which take longer than the outage.
    assert!(knocked < u64::from(5 + IN_FLIGHT + 3 * 3), "{knocked}");
}

/// What the server counted and what was recorded, against the limits.
fn holds_against<T: Ask>(name: &str, handle: &Handle<T>, lives: &[Vec<Sample>], told: bool) {
    assert_eq!(lives.len(), 2, "two processes");
    for life in lives {
        for window in [100, 1_000].map(Duration::from_millis) {
            let most = counter::most_within(life, window);
            measured("accepted", format_args!("{most} within {window:?} at the most"));
        }
    }
    let recorded = handle.recorded();
    assert_eq!((recorded[0].missed, &recorded[0].failed), (0, &None));
    let digest = handle.run_digests()[0];
    let dials = recorded::replayed(name, digest);
    measured("replayed", format_args!("{} dials, digest {digest:016x}", dials.len()));
    assert_eq!(dials.len() as u64, handle.stats().dials);
    if told {
        recorded::assert_within(&dials, told_within);
        for life in lives {
            // A dial lasts until the server has answered. So what is accepted in a window was begun
            // in it, or in flight when it began.
            counter::assert_within(life, |window| told_within(window) + u64::from(IN_FLIGHT));
        }
    }
}
