//! One manager and the driver's own state around it: all that is behind one lock.
//!
//! Nothing here blocks, spawns, wakes, or runs code of the program's, destructors included: what
//! follows from a step is written down as effects, and carried out when the lock is released.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use steadfast::{
    Action, AttemptId, Breach, BreakerId, CallFailure, CallId, ConnId, DialCause, EndpointId,
    Event, Ignored, Ledger, LossCause, Manager, Notice, PeerId, PeerState, PingId, Tag, Time,
};
use tokio::sync::{broadcast, oneshot, watch};

use crate::calls::{Calls, End, Order};
use crate::conns::{Conn, Conns};
use crate::transport::{Dial, Transport};

/// A notice of the manager, and when it was given.
pub type Noticed = (Time, Notice);

/// What is to be done once the lock is released, in this order.
pub(crate) enum Effect<T: Transport> {
    /// Begin to connect.
    Dial { conn: ConnId, dial: Dial<T::Address>, order: oneshot::Receiver<()> },
    /// Live with a connection that the peer made.
    Hold { conn: ConnId, connection: Arc<T::Connection>, order: oneshot::Receiver<()> },
    /// Ask over the connection.
    Ping { ping: PingId, conn: ConnId, connection: Arc<T::Connection>, stop: oneshot::Receiver<()> },
    /// Close an inbound connection that nobody wants.
    Refuse(Arc<T::Connection>),
    /// Tell a connection's task to close in good order.
    Close(Conn<T::Connection>),
    /// Let go of a dial or a connection.
    Forget(Conn<T::Connection>),
    /// Let go of orders that nobody read.
    Unread(VecDeque<Order<T::Connection>>),
    /// Wake a call's future.
    Wake(Waker),
    /// Let go of a waker that is not needed any more.
    Unneeded(Waker),
    /// Wake those who watch a peer's state.
    Changed(watch::Sender<PeerState>),
    /// Let go of a peer, and tell those who watch it.
    Gone(Peer<T::Address>),
    /// Tell those who watch a peer that nothing more comes.
    Unwatched(watch::Sender<PeerState>),
}

/// A peer, as the driver knows it.
pub(crate) struct Peer<A> {
    pub(crate) endpoints: Vec<(EndpointId, BreakerId, Arc<A>)>,
    /// Its connection.
    pub(crate) up: Option<ConnId>,
    /// Who watches its state, if somebody ever did.
    watched: Option<watch::Sender<PeerState>>,
}

impl<A> Peer<A> {
    pub(crate) const fn new(endpoints: Vec<(EndpointId, BreakerId, Arc<A>)>) -> Self {
        Self { endpoints, up: None, watched: None }
    }
}

pub(crate) struct Core<T: Transport> {
    pub(crate) manager: Manager,
    pub(crate) peers: BTreeMap<PeerId, Peer<T::Address>>,
    pub(crate) conns: Conns<T::Connection>,
    pub(crate) calls: Calls<T::Connection>,
    /// Inbound connections that the manager has not yet taken.
    inbound: BTreeMap<Tag, Arc<T::Connection>>,
    next_tag: u64,
    /// False once the driver has gone: nothing is stepped any more.
    pub(crate) open: bool,
    ledger: Option<Ledger>,
    /// The first rule of the contract that this driver broke.
    pub(crate) breach: Option<Breach>,
    notices: broadcast::Sender<Noticed>,
    /// What those who read notices have not been sent yet, in order.
    pub(crate) unsent: VecDeque<Noticed>,
    /// Whether somebody is sending it.
    pub(crate) sending: bool,
    /// Kept for its memory.
    actions: Vec<Action>,
    now: Time,
    /// Whether the last step was a tick.
    ticked: bool,
    /// Until when the timer task sleeps.
    armed: Time,
    pub(crate) effects: Vec<Effect<T>>,
    /// How often the lock was taken.
    #[cfg(test)]
    pub(crate) locked: std::cell::Cell<usize>,
    /// What the program's subscriber is told after these.
    #[cfg(feature = "tracing")]
    pub(crate) told: Vec<Noticed>,
    #[cfg(feature = "recording")]
    pub(crate) tape: Option<crate::record::Tape>,
}

impl<T: Transport> Core<T> {
    pub(crate) fn new(
        manager: Manager,
        watched: bool,
        notices: broadcast::Sender<Noticed>,
    ) -> Self {
        Self {
            manager,
            peers: BTreeMap::new(),
            conns: Conns::new(),
            calls: Calls::new(),
            inbound: BTreeMap::new(),
            next_tag: 0,
            open: true,
            ledger: watched.then(Ledger::new),
            breach: None,
            notices,
            unsent: VecDeque::new(),
            sending: false,
            actions: Vec::new(),
            now: Time::ZERO,
            ticked: false,
            armed: Time::MAX,
            effects: Vec::new(),
            #[cfg(test)]
            locked: std::cell::Cell::new(0),
            #[cfg(feature = "tracing")]
            told: Vec::new(),
            #[cfg(feature = "recording")]
            tape: None,
        }
    }

    /// Reads the clock. On one that stands still, as a paused one does, what comes after a tick is
    /// a nanosecond later than it, so that I/O of the same moment does not seem to have been held
    /// back.
    pub(crate) fn at(&mut self, elapsed: Duration) {
        let elapsed = Time::ZERO + elapsed;
        self.now = elapsed.max(self.now.plus_nanos(u64::from(self.ticked)));
        self.ticked = false;
    }

    /// The moment of this step.
    pub(crate) const fn now(&self) -> Time {
        self.now
    }

    /// Until when the timer task may sleep; from here on it does. `None` once the driver has gone.
    pub(crate) fn arm(&mut self) -> Option<Time> {
        self.armed = self.manager.next_deadline().unwrap_or(Time::MAX);
        self.open.then_some(self.armed)
    }

    /// Whether the timer task must be woken, because something is due before it would wake.
    pub(crate) fn is_due_earlier(&mut self) -> bool {
        let next = self.manager.next_deadline().unwrap_or(Time::MAX);
        let earlier = next < self.armed;
        if earlier {
            self.armed = next;
        }
        earlier
    }

    /// Feeds the manager one event and takes down what it orders; why the event was ignored, if it
    /// was.
    pub(crate) fn step(&mut self, event: Event) -> Option<Ignored> {
        if !self.open {
            return None;
        }
        self.ticked |= matches!(event, Event::Tick);
        let mut actions = std::mem::take(&mut self.actions);
        if self.is_watched() {
            self.step_watched(event, &mut actions);
        } else {
            self.manager.step_into(event, self.now, &mut actions);
        }
        let mut answer = None;
        for action in actions.drain(..) {
            if let Action::Notice(Notice::Ignored(reason)) = &action {
                answer = answer.or(Some(*reason));
            }
            self.carry_out(action);
        }
        self.actions = actions;
        answer
    }

    const fn is_watched(&self) -> bool {
        #[cfg(feature = "recording")]
        if self.tape.is_some() {
            return true;
        }
        self.ledger.is_some()
    }

    /// The same step, shown to the ledger and to the recording.
    fn step_watched(&mut self, event: Event, actions: &mut Vec<Action>) {
        self.manager.step_into(event.clone(), self.now, actions);
        if let Some(ledger) = &mut self.ledger {
            let deadline = self.manager.next_deadline();
            let verdict = ledger.observe(&event, actions, self.now, deadline);
            self.breach = self.breach.or(verdict.err());
        }
        #[cfg(feature = "recording")]
        if let Some(tape) = &mut self.tape {
            tape.step(self.now, &event, actions, &self.manager);
        }
    }
}

/// # What the manager orders
impl<T: Transport> Core<T> {
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Dial { conn, peer, endpoint, resume } => {
                self.dial(conn, peer, endpoint, resume);
            }
            Action::CancelDial { conn } => {
                if let Some(conn) = self.conns.remove(conn) {
                    self.effects.push(Effect::Forget(conn));
                }
            }
            Action::Close { conn } => self.close(conn),
            Action::Ping { ping, conn } => self.ping(ping, conn),
            Action::Adopt { conn, peer, tag } => self.adopt(conn, peer, tag),
            Action::Refuse { tag } => {
                if let Some(connection) = self.inbound.remove(&tag) {
                    self.effects.push(Effect::Refuse(connection));
                }
            }
            Action::StartAttempt { attempt, call, conn } => self.start(attempt, call, conn),
            Action::CancelAttempt { attempt } => {
                if let Some(call) = self.end_attempt(attempt) {
                    self.order(call, Order::Cancel(attempt));
                }
            }
            Action::Reject { call, reason, retry_after } => {
                self.order(call, Order::End(End::Rejected { reason, retry_after }));
            }
            Action::GiveUp { call, reason, last } => {
                self.order(call, Order::End(End::GaveUp { reason, last }));
            }
            Action::Done { call } => self.order(call, Order::End(End::Done)),
            Action::Notice(notice) => self.tell(notice),
        }
    }

    fn dial(&mut self, conn: ConnId, peer: PeerId, endpoint: EndpointId, resume: bool) {
        let known = self.peers.get(&peer).map(|peer| peer.endpoints.as_slice()).unwrap_or_default();
        let Some((_, _, address)) = known.iter().find(|(id, ..)| *id == endpoint) else {
            // Cannot be: the manager dials what it was given. If it were, the dial would time out.
            return;
        };
        let dial = Dial { peer, endpoint, address: Arc::clone(address), resume };
        let (sender, order) = oneshot::channel();
        self.conns.insert(Conn::new(conn, peer, None, sender));
        self.effects.push(Effect::Dial { conn, dial, order });
    }

    fn close(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(id) else { return };
        self.came_down(&conn);
        self.break_attempts_over(&conn, CallFailure::Local);
        self.effects.push(Effect::Close(conn));
    }

    /// Tells each call with an attempt over a connection that this has ended. The call's own future
    /// reports it: an answer that had come before the end still counts.
    fn break_attempts_over(&mut self, conn: &Conn<T::Connection>, kind: CallFailure) {
        for attempt in &conn.attempts {
            if let Some(call) = self.calls.call_of(*attempt) {
                self.order(call, Order::Broken { attempt: *attempt, kind });
            }
        }
    }

    fn ping(&mut self, ping: PingId, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let Some(connection) = &conn.connection else { return };
        let connection = Arc::clone(connection);
        let (sender, stop) = oneshot::channel();
        // The ping before it, if it is still out, is stopped by this.
        conn.ping = Some(sender);
        self.effects.push(Effect::Ping { ping, conn: id, connection, stop });
    }

    fn adopt(&mut self, conn: ConnId, peer: PeerId, tag: Tag) {
        let Some(connection) = self.inbound.remove(&tag) else { return };
        let (sender, order) = oneshot::channel();
        self.conns.insert(Conn::new(conn, peer, Some(Arc::clone(&connection)), sender));
        self.came_up(conn, peer);
        self.effects.push(Effect::Hold { conn, connection, order });
    }

    fn start(&mut self, attempt: AttemptId, call: CallId, conn: Option<ConnId>) {
        let mut over = None;
        let mut connection = None;
        if let Some(conn) = conn.and_then(|conn| self.conns.get(conn)) {
            over = Some((conn.id, conn.attempts.len()));
            conn.attempts.push(attempt);
            connection = conn.connection.clone();
        }
        self.calls.begin(attempt, call, over);
        self.order(call, Order::Start { attempt, connection });
    }

    fn order(&mut self, call: CallId, order: Order<T::Connection>) {
        if let Some(waker) = self.calls.order(call, order) {
            self.effects.push(Effect::Wake(waker));
        }
    }

    fn tell(&mut self, notice: Notice) {
        if let Notice::Peer { peer, to, .. } = &notice
            && let Some(Peer { watched: Some(watched), .. }) = self.peers.get(peer)
        {
            // Whoever waits is woken later.
            watched.send_if_modified(|state| {
                *state = *to;
                false
            });
            if watched.receiver_count() > 0 {
                self.effects.push(Effect::Changed(watched.clone()));
            }
        }
        #[cfg(feature = "tracing")]
        if crate::trace::is_wanted(&notice) {
            self.told.push((self.now, notice.clone()));
        }
        if self.notices.receiver_count() > 0 {
            self.unsent.push_back((self.now, notice));
        }
    }
}

/// # What happens outside
impl<T: Transport> Core<T> {
    /// The dial succeeded; `false` if nobody waits for it any more.
    pub(crate) fn connected(
        &mut self,
        id: ConnId,
        connection: &Arc<T::Connection>,
        resumed: bool,
    ) -> bool {
        let Some(conn) = self.conns.get(id).filter(|_| self.open) else { return false };
        conn.connection = Some(Arc::clone(connection));
        let peer = conn.peer;
        self.came_up(id, peer);
        self.step(Event::Connected { conn: id, resumed });
        self.conns.get(id).is_some()
    }

    pub(crate) fn dial_failed(
        &mut self,
        id: ConnId,
        cause: DialCause,
        retry_after: Option<Duration>,
    ) {
        if let Some(conn) = self.conns.remove(id) {
            self.effects.push(Effect::Forget(conn));
            self.step(Event::DialFailed { conn: id, cause, retry_after });
        }
    }

    /// The connection ended by itself, and with it the attempts that ran over it.
    pub(crate) fn lost(&mut self, id: ConnId, cause: LossCause) {
        let Some(conn) = self.conns.remove(id) else { return };
        self.came_down(&conn);
        self.step(Event::Lost { conn: id, cause });
        self.break_attempts_over(&conn, CallFailure::Disconnected);
        self.effects.push(Effect::Forget(conn));
    }

    pub(crate) fn pong(&mut self, ping: PingId, id: ConnId) {
        if self.conns.get(id).is_some() {
            self.step(Event::Pong { ping });
        }
    }

    pub(crate) fn is_up(&mut self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.connection.is_some())
    }

    /// A peer has dialed us; why its connection was refused, if it was.
    pub(crate) fn accepted(
        &mut self,
        peer: PeerId,
        connection: Arc<T::Connection>,
    ) -> Option<Ignored> {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        self.inbound.insert(tag, connection);
        self.step(Event::Accepted { peer, tag })
    }

    /// A name for a new call; `None` once the driver has gone.
    pub(crate) fn open_call(&mut self) -> Option<CallId> {
        if self.open { self.calls.open() } else { None }
    }

    /// What an attempt came to; left out if it was over before.
    pub(crate) fn report(&mut self, attempt: AttemptId, fact: Event) {
        if self.end_attempt(attempt).is_some() {
            self.step(fact);
        }
    }

    /// The next order for a call. With the last one its name is free.
    pub(crate) fn take_order(&mut self, call: CallId) -> Option<Order<T::Connection>> {
        let order = self.calls.take(call)?;
        if let Order::End(_) = order {
            self.forget_call(call);
        }
        Some(order)
    }

    /// The caller went away before it read that its call is over; an attempt that it still made.
    pub(crate) fn abandon(&mut self, call: CallId, running: Option<AttemptId>) {
        if !self.calls.is_over(call) {
            let dropped = running.filter(|attempt| self.end_attempt(*attempt).is_some());
            self.step(match dropped {
                Some(attempt) => Event::Dropped { attempt },
                None => Event::CancelCall { call },
            });
        }
        self.forget_call(call);
    }

    /// The call's future has read how it ended, or is gone.
    pub(crate) fn forget_call(&mut self, call: CallId) {
        let (unread, waker) = self.calls.close(call);
        if !unread.is_empty() {
            self.effects.push(Effect::Unread(unread));
        }
        self.effects.extend(waker.map(Effect::Unneeded));
    }

    /// The attempt is over; its call, unless it was over before.
    fn end_attempt(&mut self, attempt: AttemptId) -> Option<CallId> {
        let (call, over) = self.calls.end(attempt)?;
        if let Some((id, place)) = over
            && let Some(conn) = self.conns.get(id)
            && place < conn.attempts.len()
        {
            conn.attempts.swap_remove(place);
            if let Some(moved) = conn.attempts.get(place) {
                self.calls.moved(*moved, place);
            }
        }
        Some(call)
    }

    fn came_up(&mut self, conn: ConnId, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.up = Some(conn);
        }
    }

    fn came_down(&mut self, conn: &Conn<T::Connection>) {
        if let Some(peer) = self.peers.get_mut(&conn.peer) {
            peer.up.take_if(|up| *up == conn.id);
        }
    }

    /// The peer's state from now on.
    pub(crate) fn watch(&mut self, peer: PeerId) -> Option<watch::Receiver<PeerState>> {
        let now = self.manager.peer_state(peer)?;
        let watched = &mut self.peers.get_mut(&peer)?.watched;
        Some(watched.get_or_insert_with(|| watch::Sender::new(now)).subscribe())
    }

    /// The peer's connection, while it is up.
    pub(crate) fn connection(&mut self, peer: PeerId) -> Option<Arc<T::Connection>> {
        let up = self.peers.get(&peer)?.up?;
        self.conns.get(up)?.connection.clone()
    }

    /// Gives up the calls that are under way, and wants nobody any more; how many calls there were.
    pub(crate) fn wind_up(&mut self) -> usize {
        let calls = self.calls.names();
        for call in &calls {
            self.order(*call, Order::End(End::ShutDown));
            self.step(Event::CancelCall { call: *call });
        }
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            if self.manager.peer_state(peer) != Some(PeerState::Disconnected) {
                self.step(Event::Disconnect { peer });
            }
        }
        calls.len()
    }

    /// The driver goes: nothing is stepped any more, whoever waits is told, whatever is open is let
    /// go of.
    pub(crate) fn halt(&mut self) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        #[cfg(feature = "recording")]
        if let Some(tape) = &mut self.tape {
            tape.finish(&self.manager);
        }
        for call in self.calls.names() {
            self.order(call, Order::End(End::ShutDown));
        }
        let gone = self.conns.drain();
        self.effects.extend(gone.into_iter().map(Effect::Forget));
        let refused = std::mem::take(&mut self.inbound).into_values();
        self.effects.extend(refused.map(Effect::Refuse));
        for peer in self.peers.values_mut() {
            peer.up = None;
            self.effects.extend(peer.watched.take().map(Effect::Unwatched));
        }
    }
}
