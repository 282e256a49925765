//! What the program holds: the driver's one public face.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use steadfast::{
    Breach, BreakerId, BreakerProfileId, CallProfileId, Config, EndpointId, Event, GateView,
    Ignored, PeerId, PeerProfileId, PeerState, Stats, Time, Violation, Why, breaker,
};
use tokio::runtime;
use tokio::sync::broadcast;

use crate::call::{self, Attempt, Call};
use crate::core::{Core, Effect, Noticed, Peer};
use crate::error::{CallError, Failure, Refused};
use crate::inner::{Halt, Inner};
use crate::states::States;
use crate::transport::Transport;

/// One of a peer's addresses, and the breaker that guards dials to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint<A> {
    /// Its name, unique within the peer; kept across [`Handle::set_endpoints`].
    pub id: EndpointId,
    /// The breaker that dials to it pass; it must have been added before.
    pub breaker: BreakerId,
    /// Where it is.
    pub address: A,
}

impl<A> Endpoint<A> {
    /// The only endpoint of a peer.
    #[must_use]
    pub const fn only(breaker: BreakerId, address: A) -> Self {
        Self { id: EndpointId(0), breaker, address }
    }
}

/// What is under way in the driver itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Underway {
    /// Tasks: one for each dial or connection, and one for each ping that is out.
    pub tasks: usize,
    /// Dials and connections.
    pub connections: usize,
    /// Calls.
    pub calls: usize,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[must_use = "it tells what was cut off"]
pub struct Shutdown {
    /// Calls that had not ended in time and were given up.
    pub calls_given_up: usize,
    /// Tasks of connections that had not ended in time and were let go of.
    pub tasks_left: usize,
}

/// A running driver.
///
/// Cheap to clone; the driver ends with [`shutdown`](Self::shutdown), in good order, or at once when
/// the last handle is dropped.
///
/// Every method decides in the caller's own task: it locks the shard, reads the clock inside, steps
/// the manager, and carries out what follows after the lock is released. Nothing here blocks on I/O.
pub struct Handle<T: Transport> {
    inner: Arc<Inner<T>>,
    config: Arc<Config>,
    _end: Arc<Halt<T>>,
}

impl<T: Transport> Clone for Handle<T> {
    fn clone(&self) -> Self {
        let (inner, config) = (Arc::clone(&self.inner), Arc::clone(&self.config));
        Self { inner, config, _end: Arc::clone(&self._end) }
    }
}

impl<T: Transport> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// # Who is there
impl<T: Transport> Handle<T> {
    pub(crate) fn new(inner: Arc<Inner<T>>, config: Config) -> Self {
        let end = Arc::new(Halt(Arc::clone(&inner)));
        Self { inner, config: Arc::new(config), _end: end }
    }

    #[cfg(test)]
    pub(crate) const fn inner(&self) -> &Arc<Inner<T>> {
        &self.inner
    }

    /// Adds a breaker, closed, with the settings of the breaker profile of that name.
    ///
    /// # Errors
    ///
    /// The name is in use, or there is no such profile.
    pub fn add_breaker(&self, breaker: BreakerId, profile: &str) -> Result<(), Refused> {
        let profile: BreakerProfileId =
            self.config.breaker_profile(profile).ok_or_else(|| unknown(profile))?;
        self.ask(self.inner.shard_of(breaker), Event::AddBreaker { breaker, profile })
    }

    /// Removes a breaker.
    ///
    /// # Errors
    ///
    /// There is none of that name, or an endpoint names it, or a call passes it.
    pub fn remove_breaker(&self, breaker: BreakerId) -> Result<(), Refused> {
        self.ask(self.inner.shard_of(breaker), Event::RemoveBreaker { breaker })
    }

    /// Adds a peer, with the settings of the peer profile of that name, and without an intent to
    /// connect. One without endpoints can only dial us, see [`accept`](Self::accept); where there are
    /// several shards it is of the one of a breaker with its own number.
    ///
    /// # Errors
    ///
    /// The name is in use, a breaker or the profile is unknown, the breakers are of several shards.
    pub fn add_peer(
        &self,
        peer: PeerId,
        profile: &str,
        endpoints: Vec<Endpoint<T::Address>>,
    ) -> Result<(), Refused> {
        let profile: PeerProfileId =
            self.config.peer_profile(profile).ok_or_else(|| unknown(profile))?;
        let shard = self.shard_of(peer, &endpoints)?;
        if !self.inner.claim_home(peer, shard) {
            return Err(Refused::Ignored(Ignored::PeerExists(peer)));
        }
        let (plain, addresses) = split(endpoints);
        let event = Event::AddPeer { peer, profile, endpoints: plain };
        // What is not taken is dropped outside the lock.
        let mut addresses = Some(addresses);
        let added = self.work(shard, |core| {
            accepted(core.step(event))?;
            core.peers.insert(peer, Peer::new(addresses.take().unwrap_or_default()));
            Ok(())
        });
        if added.is_err() {
            self.inner.leave_home(peer);
        }
        added
    }

    /// The peer's endpoints are now these: its name was resolved again. One that keeps id and
    /// breaker keeps its memory; a connection over one that is gone stays.
    ///
    /// # Errors
    ///
    /// There is no such peer, the list is empty, or as for [`add_peer`](Self::add_peer).
    pub fn set_endpoints(
        &self,
        peer: PeerId,
        endpoints: Vec<Endpoint<T::Address>>,
    ) -> Result<(), Refused> {
        let home = self.home_of(peer)?;
        let shard = self.shard_of(peer, &endpoints)?;
        let (plain, addresses) = split(endpoints);
        if shard != home
            && let Some(there) = plain.first()
        {
            let here = self.work(home, |core| {
                let known = core.peers.get(&peer).ok_or(unknown_peer(peer))?;
                Ok(known.endpoints.first().map_or(namesake(peer), |(_, breaker, _)| *breaker))
            })?;
            return Err(Refused::SplitOverShards(here, there.breaker));
        }
        let event = Event::SetEndpoints { peer, endpoints: plain };
        // Until the lock is released these hold all addresses, so that none is dropped under it.
        let mut before = Vec::new();
        self.work(home, |core| {
            let known = core.peers.get_mut(&peer).ok_or(unknown_peer(peer))?;
            before.clone_from(&known.endpoints);
            // The step itself may dial over a new one, or, should it be refused, over an old one.
            known.endpoints.splice(0..0, addresses.iter().cloned());
            let answer = accepted(core.step(event));
            if let Some(known) = core.peers.get_mut(&peer) {
                known.endpoints.clone_from(if answer.is_ok() { &addresses } else { &before });
            }
            answer
        })
    }

    /// Removes a peer: its dial is cancelled, its connection closed, its calls end.
    ///
    /// # Errors
    ///
    /// There is no such peer.
    pub fn remove_peer(&self, peer: PeerId) -> Result<(), Refused> {
        let home = self.home_of(peer)?;
        self.work(home, |core| {
            accepted(core.step(Event::RemovePeer { peer }))?;
            let gone = core.peers.remove(&peer);
            core.effects.extend(gone.map(Effect::Gone));
            // Before anybody can be told that it is gone.
            self.inner.leave_home(peer);
            Ok(())
        })
    }
}

/// # Connections
impl<T: Transport> Handle<T> {
    /// From now on a connection to the peer is wanted: it is dialed when its turn comes, and again
    /// whenever it is lost. Revives one that gave up.
    ///
    /// # Errors
    ///
    /// There is no such peer, or it has no endpoint, or it is wanted already.
    pub fn connect(&self, peer: PeerId) -> Result<(), Refused> {
        self.ask(self.home_of(peer)?, Event::Connect { peer })
    }

    /// No connection is wanted any more; an existing one is closed.
    ///
    /// # Errors
    ///
    /// There is no such peer, or none was wanted.
    pub fn disconnect(&self, peer: PeerId) -> Result<(), Refused> {
        self.ask(self.home_of(peer)?, Event::Disconnect { peer })
    }

    /// The peer has dialed us, and this is its connection. If the peer's profile does not allow that
    /// it is closed; otherwise it takes the place of a dial or an older connection.
    ///
    /// # Errors
    ///
    /// There is no such peer, or its profile takes no inbound connections.
    pub fn accept(&self, peer: PeerId, connection: T::Connection) -> Result<(), Refused> {
        let home = self.home_of(peer)?;
        // Dropped outside the lock if it is not taken.
        let mut connection = Some(Arc::new(connection));
        self.work(home, |core| {
            accepted(connection.take().and_then(|connection| core.accepted(peer, connection)))
        })
    }

    /// The peer's connection, if it is up.
    #[must_use]
    pub fn connection(&self, peer: PeerId) -> Option<Arc<T::Connection>> {
        let home = self.inner.home_of(peer)?;
        self.inner.enter_quietly(home, |core| core.connection(peer))
    }

    /// Waits until the peer is connected. It does not make it wanted, and has no timeout of its own.
    ///
    /// # Errors
    ///
    /// There is no such peer, it is removed while we wait, or the driver shuts down.
    pub async fn connected(&self, peer: PeerId) -> Result<Arc<T::Connection>, Refused> {
        let mut states = self.watch(peer)?;
        loop {
            if let Some(connection) = self.connection(peer) {
                return Ok(connection);
            }
            if states.changed().await.is_none() {
                let closing = self.inner.is_closing();
                return Err(if closing { Refused::ShutDown } else { unknown_peer(peer) });
            }
        }
    }

    /// The peer's state, now and whenever it changes; it ends when the peer is removed.
    ///
    /// # Errors
    ///
    /// There is no such peer.
    pub fn watch(&self, peer: PeerId) -> Result<States, Refused> {
        let home = self.home_of(peer)?;
        self.work(home, |core| core.watch(peer).map(States::new).ok_or(unknown_peer(peer)))
    }

    /// All that the managers tell from now on. Whoever reads too slowly misses the oldest, and is
    /// told how many.
    #[must_use]
    pub fn notices(&self) -> broadcast::Receiver<Noticed> {
        self.inner.notices.subscribe()
    }
}

/// # Calls
impl<T: Transport> Handle<T> {
    /// The call profile of that name.
    #[must_use]
    pub fn call_profile(&self, name: &str) -> Option<CallProfileId> {
        self.config.call_profile(name)
    }

    /// Makes a request through a breaker's gates, and again where the profile says so.
    ///
    /// Attempts run in the caller's own task. The future may be dropped at any await point: then
    /// its attempts end, uncounted, and permits, slots and waiting places are given back.
    ///
    /// # Errors
    ///
    /// Why there was no attempt, or no further one.
    pub async fn with_retry<R, E, F, A>(
        &self,
        breaker: BreakerId,
        profile: CallProfileId,
        mut attempt: F,
    ) -> Result<R, CallError<E>>
    where
        F: FnMut(Attempt) -> A,
        A: Future<Output = Result<R, Failure<E>>>,
    {
        let make = |number: Attempt, _| Some(attempt(number));
        call::run(&self.inner, Call::through(breaker, profile), make).await
    }

    /// Makes a request to a peer over its connection: waits for one, is refused, or has the peer
    /// dialed, as the profile says; otherwise as [`with_retry`](Self::with_retry).
    ///
    /// `breaker` guards the call, and is best not the one that guards dials. An attempt ends when
    /// its connection does, as [`Disconnected`](steadfast::CallFailure::Disconnected).
    ///
    /// # Errors
    ///
    /// Why there was no attempt, or no further one.
    pub async fn with_connection<R, E, F, A>(
        &self,
        peer: PeerId,
        breaker: BreakerId,
        profile: CallProfileId,
        mut attempt: F,
    ) -> Result<R, CallError<E>>
    where
        F: FnMut(Attempt, Arc<T::Connection>) -> A,
        A: Future<Output = Result<R, Failure<E>>>,
    {
        let make = |number, connection: Option<_>| Some(attempt(number, connection?));
        call::run(&self.inner, Call::to(peer, breaker, profile), make).await
    }

    /// The general form: any target, and a deadline of the call's own. The connection is there for
    /// calls to peers.
    ///
    /// # Errors
    ///
    /// Why there was no attempt, or no further one.
    pub async fn call<R, E, F, A>(&self, call: Call, mut attempt: F) -> Result<R, CallError<E>>
    where
        F: FnMut(Attempt, Option<Arc<T::Connection>>) -> A,
        A: Future<Output = Result<R, Failure<E>>>,
    {
        call::run(&self.inner, call, |number, connection| Some(attempt(number, connection))).await
    }
}

/// # Orders of a person, and what the host is like
impl<T: Transport> Handle<T> {
    /// The breaker admits nothing until [reset](Self::reset_breaker).
    ///
    /// # Errors
    ///
    /// There is no such breaker, or it is so already.
    pub fn force_open(&self, breaker: BreakerId) -> Result<(), Refused> {
        self.ask(self.inner.shard_of(breaker), Event::ForceOpen { breaker })
    }

    /// The breaker admits everything and counts nothing until [reset](Self::reset_breaker).
    ///
    /// # Errors
    ///
    /// There is no such breaker, or it is so already.
    pub fn disable(&self, breaker: BreakerId) -> Result<(), Refused> {
        self.ask(self.inner.shard_of(breaker), Event::Disable { breaker })
    }

    /// The breaker decides and reports as ever and admits all, or no longer.
    ///
    /// # Errors
    ///
    /// There is no such breaker, or it is so already.
    pub fn watch_only(&self, breaker: BreakerId, on: bool) -> Result<(), Refused> {
        self.ask(self.inner.shard_of(breaker), Event::WatchOnly { breaker, on })
    }

    /// The breaker is closed and as new.
    ///
    /// # Errors
    ///
    /// There is no such breaker.
    pub fn reset_breaker(&self, breaker: BreakerId) -> Result<(), Refused> {
        self.ask(self.inner.shard_of(breaker), Event::ResetBreaker { breaker })
    }

    /// A peer that gave up, or is in backoff, tries again now and as if it had never failed.
    ///
    /// # Errors
    ///
    /// There is no such peer, or there is nothing to revive.
    pub fn revive(&self, peer: PeerId) -> Result<(), Refused> {
        self.ask(self.home_of(peer)?, Event::Revive { peer: Some(peer) })
    }

    /// The same for all peers that gave up.
    pub fn revive_all(&self) {
        self.tell_all(&Event::Revive { peer: None });
    }

    /// This host has no network: nothing is dialed, and nobody is judged, until it is
    /// [back](Self::network_up).
    pub fn network_down(&self) {
        self.tell_all(&Event::NetworkDown);
    }

    /// The network is back.
    pub fn network_up(&self) {
        self.tell_all(&Event::NetworkUp);
    }

    /// The host has another network (a new address, another route): dials begin anew, and connections
    /// with pings are asked soon whether they live.
    pub fn network_changed(&self) {
        self.tell_all(&Event::NetworkChanged);
    }

    /// The app is in the background: nothing is dialed or asked until it has [resumed](Self::resumed).
    pub fn paused(&self) {
        self.tell_all(&Event::Paused);
    }

    /// The app is in the foreground again, over who knows what network.
    pub fn resumed(&self) {
        self.tell_all(&Event::Resumed);
    }

    /// How busy this host is, in parts per million; for breakers with adaptive thresholds.
    pub fn load(&self, load: u32) {
        self.tell_all(&Event::Load { load });
    }
}

/// # Reading
impl<T: Transport> Handle<T> {
    /// What the managers were configured with, before it was divided over shards.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counts of all shards together. O(shards), and a copy of a few kilobytes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Hands the statistics to the recorder of `metrics`, now.
    ///
    /// Counters are set to what the managers have counted, so it does not matter how often this is
    /// called; durations that came since the last time are added to the histograms, to within a
    /// sixteenth. Some hundred series, and none for each peer or breaker.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn publish_metrics(&self) {
        self.inner.publish();
    }

    /// What is under way in the driver itself.
    #[must_use]
    pub fn underway(&self) -> Underway {
        let mut underway = Underway { tasks: self.inner.tasks(), ..Underway::default() };
        self.each(|core| {
            underway.connections += core.conns.live;
            underway.calls += core.calls.live;
        });
        underway
    }

    /// Where the peer stands; `None` if there is no such peer.
    #[must_use]
    pub fn peer_state(&self, peer: PeerId) -> Option<PeerState> {
        self.inner.enter_quietly(self.inner.home_of(peer)?, |core| core.manager.peer_state(peer))
    }

    /// Why the peer is not connected; `None` if there is no such peer.
    #[must_use]
    pub fn why(&self, peer: PeerId) -> Option<Why> {
        self.inner.enter_quietly(self.inner.home_of(peer)?, |core| core.manager.why(peer))
    }

    /// What the breaker is doing; `None` if there is no such breaker.
    #[must_use]
    pub fn breaker_state(&self, breaker: BreakerId) -> Option<breaker::State> {
        let shard = self.inner.shard_of(breaker);
        self.inner.enter_quietly(shard, |core| core.manager.breaker_state(breaker))
    }

    /// What the breaker's gates for calls hold; `None` if there is no such breaker.
    #[must_use]
    pub fn gates(&self, breaker: BreakerId) -> Option<GateView> {
        let shard = self.inner.shard_of(breaker);
        self.inner.enter_quietly(shard, |core| core.manager.gates(breaker))
    }

    /// The moment that the driver's clock shows: the time since its start.
    #[must_use]
    pub fn now(&self) -> Time {
        self.inner.now()
    }

    /// One number for all that happened so far in each shard, see
    /// [`Manager::run_digest`](steadfast::Manager::run_digest).
    #[must_use]
    pub fn run_digests(&self) -> Vec<u64> {
        let mut digests = Vec::new();
        self.each(|core| digests.push(core.manager.run_digest()));
        digests
    }

    /// How the recording of each shard is going; nothing if there is none.
    #[cfg(feature = "recording")]
    #[cfg_attr(docsrs, doc(cfg(feature = "recording")))]
    #[must_use]
    pub fn recorded(&self) -> Vec<crate::record::Recorded> {
        let mut recorded = Vec::new();
        self.each(|core| recorded.extend(core.tape.as_ref().map(crate::record::Tape::recorded)));
        recorded
    }

    /// Recounts everything that the managers keep by increments, for tests. O(n), under the lock.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold: a bug of Steadfast.
    pub fn check(&self) -> Result<(), Violation> {
        let mut found = Ok(());
        self.each(|core| {
            if found.is_ok() {
                found = core.manager.check();
            }
        });
        found
    }

    /// The first rule of the contract that this driver broke, if it is
    /// [watched](crate::Builder::watched): a bug of this crate.
    #[must_use]
    pub fn breach(&self) -> Option<Breach> {
        let mut first = None;
        self.each(|core| first = first.or(core.breach));
        first
    }
}

/// # The end
impl<T: Transport> Handle<T> {
    /// Ends the driver in good order: nothing new begins; calls that are under way have `grace` to
    /// end; then the rest is given up, connections are closed, and their tasks have as long as
    /// [`Builder::close_timeout`](crate::Builder::close_timeout) allows.
    ///
    /// Dropped before it is done it has stopped new calls, and nothing else. It may be awaited
    /// anywhere, outside of tokio too.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        let inner = &self.inner;
        inner.begin_closing();
        // Of a driver that is gone already they have been told.
        let none_left = || !inner.is_open() || self.underway().calls == 0;
        self.until(none_left, grace).await;
        let mut shutdown = Shutdown::default();
        for shard in 0..inner.shards() {
            shutdown.calls_given_up += inner.enter(shard, Core::wind_up);
        }
        let no_task = || inner.tasks() == 0;
        // Whoever closes late has a moment more than its own timeout.
        let patience = inner.close_timeout.saturating_add(Duration::from_secs(1));
        self.until(no_task, patience).await;
        shutdown.tasks_left = inner.tasks();
        inner.halt();
        #[cfg(feature = "recording")]
        self.recording_ended(patience).await;
        shutdown
    }

    /// Waits until the recording is on disk, or its disk has had its time.
    #[cfg(feature = "recording")]
    async fn recording_ended(&self, patience: Duration) {
        let mut endings = Vec::new();
        self.each(|core| endings.extend(core.tape.as_ref().map(crate::record::Tape::ending)));
        let wait = move || endings.iter().for_each(|ending| ending.wait(patience));
        // A runtime that goes does not wait either.
        let _ = self.inner.runtime.spawn_blocking(wait).await;
    }

    /// Waits until that is so, but no longer than that.
    async fn until(&self, done: impl Fn() -> bool, patience: Duration) {
        let so = async {
            loop {
                let quieter = self.inner.quieter.notified();
                if done() {
                    return;
                }
                quieter.await;
            }
        };
        // Outside of a runtime the clock is that of the driver's.
        let limited = {
            let outside = runtime::Handle::try_current().is_err();
            let _inside = outside.then(|| self.inner.runtime.enter());
            tokio::time::timeout(patience, so)
        };
        let _ = limited.await;
    }
}

impl<T: Transport> Handle<T> {
    /// Works under a shard's lock, unless the driver goes.
    fn work<R>(
        &self,
        shard: usize,
        work: impl FnOnce(&mut Core<T>) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        // Inside the lock, so that nothing begins after a shutdown has wound this shard up.
        self.inner.enter(shard, |core| match core.open && !self.inner.is_closing() {
            true => work(core),
            false => Err(Refused::ShutDown),
        })
    }

    fn ask(&self, shard: usize, event: Event) -> Result<(), Refused> {
        self.work(shard, |core| accepted(core.step(event)))
    }

    fn tell_all(&self, event: &Event) {
        for shard in 0..self.inner.shards() {
            self.inner.step(shard, |_| Some(event.clone()));
        }
    }

    fn each(&self, mut work: impl FnMut(&mut Core<T>)) {
        for shard in 0..self.inner.shards() {
            self.inner.enter_quietly(shard, &mut work);
        }
    }

    fn home_of(&self, peer: PeerId) -> Result<usize, Refused> {
        self.inner.home_of(peer).ok_or(unknown_peer(peer))
    }

    /// Where a peer with these endpoints is at home.
    fn shard_of(&self, peer: PeerId, endpoints: &[Endpoint<T::Address>]) -> Result<usize, Refused> {
        let first = endpoints.first().map_or(namesake(peer), |first| first.breaker);
        let shard = self.inner.shard_of(first);
        match endpoints.iter().find(|other| self.inner.shard_of(other.breaker) != shard) {
            Some(other) => Err(Refused::SplitOverShards(first, other.breaker)),
            None => Ok(shard),
        }
    }
}

/// The breaker whose shard a peer without endpoints shares; it need not be there.
const fn namesake(peer: PeerId) -> BreakerId {
    BreakerId(peer.0)
}

fn unknown(profile: &str) -> Refused {
    Refused::UnknownProfile(profile.to_owned())
}

/// As the manager itself says it.
const fn unknown_peer(peer: PeerId) -> Refused {
    Refused::Ignored(Ignored::UnknownPeer(peer))
}

fn accepted(answer: Option<Ignored>) -> Result<(), Refused> {
    answer.map_or(Ok(()), |reason| Err(Refused::Ignored(reason)))
}

/// The endpoints as the manager knows them, and as the driver does.
type Split<A> = (Vec<steadfast::Endpoint>, Vec<(EndpointId, BreakerId, Arc<A>)>);

fn split<A>(endpoints: Vec<Endpoint<A>>) -> Split<A> {
    let plain =
        |endpoint: &Endpoint<A>| steadfast::Endpoint { id: endpoint.id, breaker: endpoint.breaker };
    let known = endpoints.iter().map(plain).collect();
    let addresses = endpoints
        .into_iter()
        .map(|endpoint| (endpoint.id, endpoint.breaker, Arc::new(endpoint.address)))
        .collect();
    (known, addresses)
}
