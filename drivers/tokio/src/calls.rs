//! The calls that are under way: a mailbox for each, and which attempt belongs to which.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use steadfast::{AttemptId, CallFailure, CallId, ConnId, GiveUpReason, RejectReason};

/// What a call's own future is to do.
pub(crate) enum Order<C> {
    /// Make an attempt.
    Start { attempt: AttemptId, connection: Option<Arc<C>> },
    /// Drop an attempt.
    Cancel(AttemptId),
    /// The connection that an attempt ran over has ended: it fails so, unless its answer is there
    /// already.
    Broken { attempt: AttemptId, kind: CallFailure },
    /// The call is over.
    End(End),
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Rejected { reason: RejectReason, retry_after: Option<Duration> },
    GaveUp { reason: GiveUpReason, last: Option<CallFailure> },
    ShutDown,
}

struct Mailbox<C> {
    /// Which use of the slot this is.
    generation: u64,
    live: bool,
    orders: VecDeque<Order<C>>,
    waker: Option<Waker>,
    /// The attempts that run.
    running: Vec<AttemptId>,
}

/// An attempt that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: AttemptId,
    call: CallId,
    /// Over which connection, and where in its list of attempts this one stands.
    over: Option<(ConnId, usize)>,
}

/// The tables. A slot's memory is kept for its next user, so that in the steady state nothing is
/// allocated.
pub(crate) struct Calls<C> {
    slots: Vec<Mailbox<C>>,
    free: Vec<usize>,
    /// By the slot of their ids.
    attempts: Vec<Option<Running>>,
    /// How many calls are under way.
    pub(crate) live: usize,
}

/// Bits of a call's name that are its slot. The rest tells uses of the slot apart, and may wrap: a
/// name is only taken again once it is free.
const SLOT_BITS: u32 = 28;

const fn slot_of(call: CallId) -> usize {
    (call.0 & ((1 << SLOT_BITS) - 1)) as usize
}

impl<C> Calls<C> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), attempts: Vec::new(), live: 0 }
    }

    /// A name and a mailbox for a new call; `None` if there are more than anybody can name.
    pub(crate) fn open(&mut self) -> Option<CallId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() >> SLOT_BITS == 0 => {
                self.slots.push(Mailbox {
                    generation: 0,
                    live: false,
                    orders: VecDeque::new(),
                    waker: None,
                    running: Vec::new(),
                });
                self.slots.len() - 1
            }
            None => return None,
        };
        let mailbox = self.slots.get_mut(slot)?;
        mailbox.generation = mailbox.generation.wrapping_add(1);
        mailbox.live = true;
        self.live += 1;
        Some(CallId(mailbox.generation << SLOT_BITS | slot as u64))
    }

    /// The call's future is over or gone: its name is free. What it had not yet taken is for the
    /// caller to drop, outside the lock.
    pub(crate) fn close(&mut self, call: CallId) -> VecDeque<Order<C>> {
        let Some(mailbox) = self.mailbox(call) else { return VecDeque::new() };
        mailbox.live = false;
        mailbox.waker = None;
        mailbox.running.clear();
        let unread = match mailbox.orders.is_empty() {
            true => VecDeque::new(),
            false => std::mem::take(&mut mailbox.orders),
        };
        self.free.push(slot_of(call));
        self.live -= 1;
        unread
    }

    fn mailbox(&mut self, call: CallId) -> Option<&mut Mailbox<C>> {
        let mailbox = self.slots.get_mut(slot_of(call))?;
        let same = mailbox.generation << SLOT_BITS >> SLOT_BITS == call.0 >> SLOT_BITS;
        (mailbox.live && same).then_some(mailbox)
    }

    /// Puts an order into the call's mailbox; whom to wake, unless its future is at work already.
    pub(crate) fn order(&mut self, call: CallId, order: Order<C>) -> Option<Waker> {
        let mailbox = self.mailbox(call)?;
        mailbox.orders.push_back(order);
        mailbox.waker.take()
    }

    /// The call's future is at work, and will look into its mailbox before it waits.
    pub(crate) fn busy(&mut self, call: CallId) {
        if let Some(mailbox) = self.mailbox(call) {
            mailbox.waker = None;
        }
    }

    /// The next order for the call.
    pub(crate) fn take(&mut self, call: CallId) -> Option<Order<C>> {
        self.mailbox(call)?.orders.pop_front()
    }

    /// Whom to wake when there is another order.
    pub(crate) fn wait(&mut self, call: CallId, waker: &Waker) {
        if let Some(mailbox) = self.mailbox(call)
            && !mailbox.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            mailbox.waker = Some(waker.clone());
        }
    }

    /// An attempt begins.
    pub(crate) fn begin(
        &mut self,
        attempt: AttemptId,
        call: CallId,
        over: Option<(ConnId, usize)>,
    ) {
        let slot = attempt.slot() as usize;
        if self.attempts.len() <= slot {
            self.attempts.resize(slot + 1, None);
        }
        if let Some(place) = self.attempts.get_mut(slot) {
            *place = Some(Running { id: attempt, call, over });
        }
        if let Some(mailbox) = self.mailbox(call) {
            mailbox.running.push(attempt);
        }
    }

    /// An attempt is over, however; its call, and over which connection it ran and where in that
    /// one's list it stood. `None` if it was over before.
    pub(crate) fn end(&mut self, attempt: AttemptId) -> Option<(CallId, Option<(ConnId, usize)>)> {
        let place = self.attempts.get_mut(attempt.slot() as usize)?;
        let running = place.take_if(|running| running.id == attempt)?;
        if let Some(mailbox) = self.mailbox(running.call) {
            mailbox.running.retain(|known| *known != attempt);
        }
        Some((running.call, running.over))
    }

    /// The attempt now stands elsewhere in its connection's list.
    pub(crate) fn moved(&mut self, attempt: AttemptId, place: usize) {
        if let Some(Some(running)) = self.attempts.get_mut(attempt.slot() as usize)
            && let Some((_, at)) = &mut running.over
        {
            *at = place;
        }
    }

    /// The call of an attempt that runs.
    pub(crate) fn call_of(&self, attempt: AttemptId) -> Option<CallId> {
        let running = self.attempts.get(attempt.slot() as usize)?.as_ref();
        running.filter(|running| running.id == attempt).map(|running| running.call)
    }

    /// An attempt of the call that runs, if one does.
    pub(crate) fn running(&mut self, call: CallId) -> Option<AttemptId> {
        self.mailbox(call)?.running.first().copied()
    }

    /// The calls under way.
    pub(crate) fn names(&self) -> Vec<CallId> {
        let live = (0_u64..).zip(&self.slots).filter(|(_, mailbox)| mailbox.live);
        live.map(|(slot, mailbox)| CallId(mailbox.generation << SLOT_BITS | slot)).collect()
    }
}
