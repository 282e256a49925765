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
    /// The call whose future is at work under the lock, with nothing unread, and the order for it:
    /// most are read at once, and need no mailbox.
    at_work: Option<CallId>,
    handed: Option<Order<C>>,
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
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            attempts: Vec::new(),
            at_work: None,
            handed: None,
            live: 0,
        }
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
                });
                self.slots.len() - 1
            }
            None => return None,
        };
        let mailbox = self.slots.get_mut(slot)?;
        mailbox.generation = mailbox.generation.wrapping_add(1);
        mailbox.live = true;
        self.live += 1;
        let call = CallId(mailbox.generation << SLOT_BITS | slot as u64);
        self.at_work = Some(call);
        Some(call)
    }

    /// The call's future is over or gone: its name is free. What it had not yet taken is for the
    /// caller to drop, outside the lock.
    pub(crate) fn close(&mut self, call: CallId) -> VecDeque<Order<C>> {
        let Some(mailbox) = self.mailbox(call) else { return VecDeque::new() };
        mailbox.live = false;
        mailbox.waker = None;
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
        if self.at_work == Some(call) && self.handed.is_none() {
            self.handed = Some(order);
            return None;
        }
        let mailbox = self.mailbox(call)?;
        mailbox.orders.push_back(order);
        mailbox.waker.take()
    }

    /// The call's future is at work, and will [take](Self::take) its next order before it waits and
    /// before the lock is released.
    pub(crate) fn works(&mut self, call: CallId) {
        if let Some(mailbox) = self.mailbox(call) {
            mailbox.waker = None;
            self.at_work = Some(call).filter(|_| mailbox.orders.is_empty());
        }
    }

    /// The next order for the call.
    pub(crate) fn take(&mut self, call: CallId) -> Option<Order<C>> {
        if self.at_work.take() == Some(call)
            && let Some(order) = self.handed.take()
        {
            return Some(order);
        }
        self.mailbox(call)?.orders.pop_front()
    }

    /// Whether the call is over, and its future has not read so.
    pub(crate) fn is_over(&mut self, call: CallId) -> bool {
        let last = self.mailbox(call).and_then(|mailbox| mailbox.orders.back());
        matches!(last, Some(Order::End(_)))
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
    }

    /// An attempt is over, however; its call, and over which connection it ran and where in that
    /// one's list it stood. `None` if it was over before.
    pub(crate) fn end(&mut self, attempt: AttemptId) -> Option<(CallId, Option<(ConnId, usize)>)> {
        let place = self.attempts.get_mut(attempt.slot() as usize)?;
        let running = place.take_if(|running| running.id == attempt)?;
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

    /// The calls under way.
    pub(crate) fn names(&self) -> Vec<CallId> {
        let live = (0_u64..).zip(&self.slots).filter(|(_, mailbox)| mailbox.live);
        live.map(|(slot, mailbox)| CallId(mailbox.generation << SLOT_BITS | slot)).collect()
    }
}
