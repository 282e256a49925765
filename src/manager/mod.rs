//! The manager: one match for events, one for timers, and the queues that settle.

mod attempt;
mod breaker;
mod breakers;
mod call;
mod calls;
mod check;
mod connection;
mod conns;
mod crowd;
mod dial;
mod endpoints;
mod environment;
mod find;
mod gate;
mod gates;
mod group;
mod health;
mod line;
mod membership;
mod operator;
mod out;
mod pacer;
mod peers;
mod phase;
mod pinger;
mod refusals;
mod replace;
mod replacements;
mod retry;
mod session;
mod snapshot;
mod suspicion;
#[cfg(test)]
mod tests;
mod touch;
mod view;

use alloc::vec::Vec;
use core::hash::Hash;

use crate::action::Action;
use crate::config::{Config, Policies};
use crate::container::slab::Slab;
use crate::container::timers::{Due, Timer, TimerKind, Timers};
use crate::digest::Digest;
use crate::error::ConfigError;
use crate::event::Event;
use crate::self_health::SelfHealth;
use crate::stats::Stats;
use crate::time::{Time, nanos};
use breakers::Breakers;
use calls::Calls;
use conns::Conns;
use endpoints::Endpoints;
use environment::{Load, Network, Sleep};
use group::Group;
use out::Out;
use pacer::Pacer;
use peers::Peers;
use pinger::Pinger;
use replacements::Replacement;
use touch::{EVENTS_AHEAD, TIMERS_AHEAD};

pub use check::Violation;
pub use snapshot::{RestoreError, Snapshot};
pub use view::{Blocked, GateView, Why, WhyCall};

/// Decides, for one to millions of peers, when to dial, when to wait and when to stop asking.
///
/// A manager is a function of its inputs: the same configuration and the same events at the same
/// times give the same actions, byte for byte, on every platform. It never reads a clock, opens a
/// socket, draws ambient randomness, spawns, locks or logs.
///
/// # The driver's side
///
/// - Carry out each action, in order. Report each fact under the id that came with the action.
/// - An id is dead from the moment that [`CancelDial`](Action::CancelDial) or
///   [`Close`](Action::Close) names it.
/// - Sleep at most until [`next_deadline`](Self::next_deadline). After waking, feed the I/O that
///   waits first, then [`Event::Tick`].
///
/// [`Ledger`](crate::Ledger) checks that a driver keeps to this.
///
/// # Examples
///
/// ```
/// use steadfast::{Action, BreakerId, Config, Endpoint, EndpointId, Event, Manager, PeerId, Time};
///
/// let config = Config::new(42);
/// let (peers, breakers) = (config.peer_profile("default"), config.breaker_profile("default"));
/// let mut manager = Manager::new(config, 7)?;
/// let (breaker, peer) = (BreakerId(1), PeerId(1));
/// let endpoints = vec![Endpoint { id: EndpointId(0), breaker }];
/// manager.step(Event::AddBreaker { breaker, profile: breakers.unwrap() }, Time::ZERO);
/// manager.step(Event::AddPeer { peer, profile: peers.unwrap(), endpoints }, Time::ZERO);
/// let actions = manager.step(Event::Connect { peer }, Time::ZERO);
/// assert!(actions.iter().any(|action| matches!(action, Action::Dial { .. })));
/// # Ok::<(), steadfast::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Manager {
    policies: Policies,
    /// The latest moment seen.
    now: Time,
    /// When something is due, as it was at the end of the last step.
    deadline: Option<Time>,
    sleep: Sleep,
    network: Network,
    load: Load,
    peers: Peers,
    replacements: Slab<Replacement>,
    endpoints: Endpoints,
    conns: Conns,
    breakers: Breakers,
    /// By their place in the configuration.
    groups: Vec<Group>,
    calls: Calls,
    pacer: Pacer,
    pinger: Pinger,
    self_health: SelfHealth,
    /// The score of our own health that was last told.
    told_self_health: u8,
    timers: Timers,
    stats: Stats,
    run: Digest,
}

/// What one step may put into sorting timers, in units of about a microsecond: more than it takes
/// unless thousands are due at once, so that a step's own work does not depend on how they stand.
const UPKEEP: u32 = 256;

/// # Stepping
impl Manager {
    /// A manager without peers.
    ///
    /// `hash_key` keeps whoever chooses ids from slowing the id tables down. Draw it afresh for
    /// each process and keep it secret; it changes no output.
    ///
    /// # Errors
    ///
    /// The first setting that is refused.
    pub fn new(config: Config, hash_key: u64) -> Result<Self, ConfigError> {
        let policies = Policies::new(&config)?;
        let run = Digest::new(config.seed);
        Ok(Self {
            pacer: Pacer::new(policies.pacer_rate.as_ref()),
            pinger: Pinger::new(policies.ping_rate.as_ref()),
            self_health: SelfHealth::default(),
            told_self_health: 0,
            groups: config.breaker_groups.iter().map(|_| Group::default()).collect(),
            policies,
            now: Time::ZERO,
            deadline: None,
            sleep: Sleep::default(),
            network: Network::default(),
            load: Load::default(),
            peers: Peers::new(hash_key),
            replacements: Slab::new(),
            endpoints: Endpoints::new(),
            conns: Conns::new(),
            breakers: Breakers::new(hash_key),
            calls: Calls::new(hash_key),
            timers: Timers::new(),
            stats: Stats::default(),
            run,
        })
    }

    /// Makes room for so many peers, with so many endpoints in all and a connection each.
    ///
    /// It changes no action. Without it records move whenever their number has doubled, and the step
    /// that meets this takes some 20 ms at a million peers. Where there is no memory for it, no room
    /// is made.
    pub fn reserve(&mut self, peers: u32, endpoints: u32) {
        let limits = &self.policies.config.limits;
        let peers = peers.min(limits.max_peers) as usize;
        let most = limits.max_endpoints as usize;
        self.peers.reserve(peers);
        self.endpoints.reserve((endpoints as usize).min(peers.saturating_mul(most)));
        self.conns.reserve(peers);
        self.timers.reserve(peers);
    }

    /// Takes one event and answers with what to do about it.
    ///
    /// `now`: any; earlier than the latest seen counts as the latest seen. Never fails: what makes
    /// no sense is ignored with a notice. See [`step_into`](Self::step_into) for the same without
    /// an allocation.
    #[must_use = "actions are orders"]
    pub fn step(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        self.step_into(event, now, &mut actions);
        actions
    }

    /// Takes one event and appends what to do about it to `actions`.
    ///
    /// Who is too late is judged by ticks: another event leaves detectors, dial timeouts and probes
    /// alone until they are overdue by [`late_after`](crate::config::SleepConfig::late_after), so
    /// that of all the I/O that waits none is judged before it was fed. A heartbeat that arrives
    /// exactly at the deadline is in time. Beyond the direct answer a step does at most
    /// [`max_work_per_step`](crate::config::Limits::max_work_per_step); the rest stays due.
    ///
    /// Cost: O(1) for facts about connections and for a timer that moves, O(log n) for one that does
    /// while there are fewer than 4,096.
    pub fn step_into(&mut self, event: Event, now: Time, actions: &mut Vec<Action>) {
        self.take(&event, now, actions);
    }

    /// Takes many events of one moment, in order: what a poll round or a wake-up brought.
    ///
    /// The same as [`step_into`](Self::step_into) for each of them, to the byte. With many peers it
    /// is faster, because the records of the next events are fetched from memory while this one's is
    /// worked on.
    ///
    /// A batch is said before any of its answers is known, so it is for signs of life, with
    /// [`Event::Tick`] as its last event at the most. What else happened is stepped alone and its
    /// actions are carried out, or the fact after it could be about what they have ended. A sign of
    /// life that comes too late for this reason is stale, and told by a notice.
    pub fn step_batch(&mut self, events: &[Event], now: Time, actions: &mut Vec<Action>) {
        for group in events.chunks(EVENTS_AHEAD) {
            self.touch_events(group);
            for event in group {
                self.take(event, now, actions);
            }
        }
    }

    #[inline]
    fn take(&mut self, event: &Event, now: Time, actions: &mut Vec<Action>) {
        if !self.notes(event, now) {
            self.act(event, now, actions);
        }
    }

    /// The step of all that is more than a sign of life to be noted; apart, because that pays for none
    /// of what this needs.
    #[inline(never)]
    fn act(&mut self, event: &Event, now: Time, actions: &mut Vec<Action>) {
        let answered = actions.len();
        let out = &mut Out::new(actions, self.policies.config.limits.max_work_per_step);
        self.observe(now, out);
        let mut judged = self.now;
        let mut promised = judged;
        if !matches!(event, Event::Tick) {
            (self.now, event).hash(&mut self.run);
            judged = judged.minus_nanos(nanos(self.policies.config.sleep.late_after));
            // Right after a sleep only a tick says that all that waits has been fed.
            promised = if self.now < self.sleep.hold_until { Time::ZERO } else { judged };
        }
        match *event {
            Event::AddBreaker { breaker, profile } => self.on_add_breaker(breaker, profile, out),
            Event::RemoveBreaker { breaker } => self.on_remove_breaker(breaker, out),
            Event::AddPeer { peer, profile, ref endpoints } => {
                self.on_add_peer(peer, profile, endpoints, out);
            }
            Event::SetEndpoints { peer, ref endpoints } => {
                self.on_set_endpoints(peer, endpoints, out);
            }
            Event::RemovePeer { peer } => self.on_remove_peer(peer, out),
            Event::Connect { peer } => self.on_connect(peer, out),
            Event::Disconnect { peer } => self.on_disconnect(peer, out),
            Event::Call { call, target, profile, deadline } => {
                self.on_call(call, target, profile, deadline, out);
            }
            Event::CancelCall { call } => self.on_cancel_call(call, out),
            Event::Connected { conn, resumed } => self.on_connected(conn, resumed, out),
            Event::DialFailed { conn, cause, retry_after } => {
                self.on_dial_failed(conn, cause, retry_after, out);
            }
            Event::Lost { conn, cause } => self.on_lost(conn, cause, out),
            Event::GoAway { conn, leaves_in, reconnect_in } => {
                self.on_go_away(conn, leaves_in, reconnect_in, out);
            }
            Event::Heard { conn } => self.on_heard(conn, out),
            Event::Heartbeat { conn } => self.on_heartbeat(conn, out),
            Event::Pong { ping } => self.on_pong(ping, out),
            Event::Metrics { conn, latency, loss } => self.on_metrics(conn, latency, loss, out),
            Event::Accepted { peer, tag } => self.on_accepted(peer, tag, out),
            Event::Succeeded { attempt } => self.on_succeeded(attempt, out),
            Event::Failed { attempt, kind, retry_after } => {
                self.on_failed(attempt, kind, retry_after, out);
            }
            Event::Dropped { attempt } => self.on_dropped(attempt, out),
            Event::NetworkDown => self.on_network_down(out),
            Event::NetworkUp => self.on_network_up(out),
            Event::NetworkChanged => self.on_network_changed(),
            Event::Paused => self.on_paused(out),
            Event::Resumed => self.on_resumed(out),
            Event::Load { load } => self.on_load(load, out),
            Event::Restarted => self.on_restarted(),
            Event::Tick => {}
            Event::ForceOpen { breaker } => self.on_force_open(breaker, out),
            Event::Disable { breaker } => self.on_disable(breaker, out),
            Event::WatchOnly { breaker, on } => self.on_watch_only(breaker, on, out),
            Event::ResetBreaker { breaker } => self.on_reset_breaker(breaker, out),
            Event::Revive { peer } => self.on_revive(peer, out),
        }
        let settled = self.settle(judged, promised, out);
        self.deadline = if settled { self.first_timer() } else { self.first_due() };
        for action in actions.iter().skip(answered) {
            (self.now, action).hash(&mut self.run);
        }
    }

    /// The moment until which a driver may sleep; `None` while only an event can change anything.
    ///
    /// It may be early (what a timer was for can have gone away; with more than 4,096 timers, a crowd
    /// may have to be sorted first), never late: no action is ever due before it. Right after a step
    /// that ran out of work it is that step's `now`, if anything is still due. O(1).
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    pub(crate) fn first_due(&self) -> Option<Time> {
        if self.has_backlog() { Some(self.now) } else { self.first_timer() }
    }

    fn first_timer(&self) -> Option<Time> {
        self.timers.next().map(|deadline| deadline.max(self.now))
    }

    /// Buries what an earlier process left, fires due timers, moves the queues, and judges last: one
    /// unit of work at a time, always the first in this order, so that a small budget splits the
    /// work into more steps but never reorders it.
    ///
    /// `judged`: since when a verdict must have been due; `promised`: likewise, of what a caller
    /// waits for. `true` if only timers are left to wait for.
    fn settle(&mut self, judged: Time, promised: Time, out: &mut Out<'_>) -> bool {
        let mut upkeep = UPKEEP;
        while out.spend() {
            if let Some(conn) = self.conns.lists.front(conns::ORPHANS) {
                // Nothing that an earlier process began is judged or timed out.
                self.take_orphan(conn, out);
            } else if let Some(call) = self.calls.lists.front(calls::ORPHANS) {
                self.bury_call(call, out);
            } else {
                let mut due = self.timers.pop_due(self.now);
                if due == Due::Nothing {
                    if self.pump(out) {
                        continue;
                    }
                    due = self.timers.pop_verdict(judged, promised);
                }
                match due {
                    Due::Now(timer) => {
                        if self.timers.are_untouched(timer.kind, TIMERS_AHEAD) {
                            self.touch_timers(timer.kind);
                        }
                        self.on_timer(timer, out);
                    }
                    Due::Unknown(units) => {
                        out.give_back();
                        upkeep = upkeep.saturating_sub(units);
                        if upkeep == 0 {
                            return false;
                        }
                    }
                    Due::Nothing => return true,
                }
            }
        }
        false
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Out<'_>) {
        match timer.kind {
            TimerKind::Peer => self.on_peer_timer(timer.slot, out),
            TimerKind::Pace => self.refresh_ring(timer.slot),
            TimerKind::Pacer => self.pacer.blocked = false,
            // A token is there: the line of those to be pinged moves again.
            TimerKind::PingPace => {}
            TimerKind::Conn => self.on_conn_timer(timer.slot, out),
            TimerKind::Breaker => self.on_breaker_timer(timer.slot, out),
            TimerKind::Call => self.on_call_timer(timer.slot, out),
            TimerKind::Attempt => self.on_attempt_timer(timer.slot, out),
            TimerKind::CallPace => self.refresh_line(timer.slot),
        }
    }

    /// Moves one queue by one place; `false` if none can move.
    fn pump(&mut self, out: &mut Out<'_>) -> bool {
        if let Some(peer) = self.peers.lists.front(peers::WOKEN) {
            self.wake(peer, out);
        } else if let Some(conn) = self.conns.lists.front(conns::UNCHECKED) {
            self.check_conn(conn, out);
        } else if let Some(endpoint) = self.endpoints.queues.front(endpoints::DISPLACED) {
            self.place_again(endpoint, out);
        } else if let Some(call) = self.calls.places.front(calls::DOOMED) {
            self.doom(call, out);
        } else if let Some(call) = self.calls.places.front(calls::RELEASED) {
            self.pass_gates(call, out);
        } else if let Some(breaker) = self.calls.lines.front(calls::MOVING) {
            self.move_line(breaker, out);
        } else if self.can_ping() {
            self.ping_next(out);
        } else {
            return self.pace(out);
        }
        true
    }

    /// Whether a queue could move right now.
    fn has_backlog(&self) -> bool {
        self.conns.lists.front(conns::ORPHANS).is_some()
            || self.peers.lists.front(peers::WOKEN).is_some()
            || self.conns.lists.front(conns::UNCHECKED).is_some()
            || self.endpoints.queues.front(endpoints::DISPLACED).is_some()
            || self.calls.lists.front(calls::ORPHANS).is_some()
            || self.calls.places.front(calls::DOOMED).is_some()
            || self.calls.places.front(calls::RELEASED).is_some()
            || self.calls.lines.front(calls::MOVING).is_some()
            || self.can_ping()
            || self.can_pace()
    }
}
