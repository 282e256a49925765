//! The peers' endpoints: what each remembers, and its place in its breaker's queue.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

use crate::config::Priority;
use crate::container::list::Lists;
use crate::container::slab::Slab;
use crate::container::sparse::Sparse;
use crate::id::EndpointId;
use crate::manager::peers::NONE;
use crate::phi::Phi;
use crate::time::Time;

#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointRecord {
    pub(crate) id: EndpointId,
    pub(crate) peer: u32,
    pub(crate) breaker: u32,
    /// The next one in the peer's order of preference.
    pub(crate) next: u32,
    /// Whether it was dialed in this round.
    pub(crate) tried: bool,
    /// Failures in a row; survives success elsewhere.
    pub(crate) failures: u32,
    /// Connections to it in a row that ended at once.
    pub(crate) hasty: u8,
    /// The number of its place in the queue, from its breaker's counter.
    pub(crate) ticket: u64,
    /// Whether its peer has other endpoints.
    pub(crate) several: bool,
}

/// What is known of an endpoint from its past.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Past {
    pub(crate) failed_at: Time,
    /// Until when its server asked to be left alone.
    pub(crate) not_before: Time,
    /// Until when another one is to be preferred, because it drained or a failback did not last.
    pub(crate) avoid_until: Time,
    /// What the detector learned on the last connection to it.
    pub(crate) rhythm: Option<Box<Phi>>,
}

impl Past {
    const NONE: Self = Self {
        failed_at: Time::ZERO,
        not_before: Time::ZERO,
        avoid_until: Time::ZERO,
        rhythm: None,
    };
}

/// What an endpoint that waits has beside its place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Until when its peer's session lives, while it waits among the sessions; else the epoch of
    /// time.
    pub(crate) resume_by: Time,
}

/// The list of endpoints whose breaker opened while their peer has another one to try.
pub(crate) const DISPLACED: u32 = 0;

/// How many classes there are.
const CLASSES: u32 = 3;
const _: () = assert!(Priority::ALL.len() == CLASSES as usize);

/// The list of endpoints that wait for the breaker in `slot`: of one class, those whose peer has no
/// other one or those whose peer has `several`. Together, by their tickets, they are the class's
/// line; apart, so that only the second need be moved when the breaker opens.
pub(crate) const fn queue(slot: u32, class: Priority, several: bool) -> u32 {
    1 + 2 * (CLASSES * slot + class as u32) + several as u32
}

/// Whose session ends when, among those that wait: breaker, class, end, ticket, endpoint.
type Session = (u32, Priority, Time, u64, u32);

#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    pub(crate) slab: Slab<EndpointRecord>,
    /// Beside the records, by slot: most endpoints have no past worth remembering, and most peers
    /// no session.
    pub(crate) pasts: Sparse<Past>,
    pub(crate) waits: Sparse<Wait>,
    pub(crate) queues: Lists,
    /// Beside their places in the queues: the sessions among them by the moment of their end.
    sessions: BTreeSet<Session>,
}

impl Endpoints {
    pub(crate) const fn new() -> Self {
        Self {
            slab: Slab::new(),
            pasts: Sparse::new(Past::NONE),
            waits: Sparse::new(Wait { resume_by: Time::ZERO }),
            queues: Lists::new(),
            sessions: BTreeSet::new(),
        }
    }

    pub(crate) fn reserve(&mut self, endpoints: usize) {
        self.slab.reserve(endpoints);
        self.queues.reserve(endpoints);
    }

    /// The chain that begins at `first`, in order of preference.
    pub(crate) fn chain(&self, first: u32) -> impl Iterator<Item = (u32, &EndpointRecord)> {
        let at = |slot: u32| self.slab.get(slot).map(|endpoint| (slot, endpoint));
        core::iter::successors(at(first), move |(_, endpoint)| at(endpoint.next))
    }

    /// Calls `change` on each endpoint of the chain that begins at `first`.
    pub(crate) fn each(&mut self, first: u32, mut change: impl FnMut(u32, &mut EndpointRecord)) {
        let mut slot = first;
        while slot != NONE {
            let Some(endpoint) = self.slab.get_mut(slot) else { return };
            let next = endpoint.next;
            change(slot, endpoint);
            slot = next;
        }
    }

    /// None of the chain that begins at `first` asks to be left alone any longer.
    pub(crate) fn let_in(&mut self, first: u32) {
        let mut slot = first;
        while let Some(endpoint) = self.slab.get(slot) {
            if let Some(past) = self.pasts.if_any(slot) {
                past.not_before = Time::ZERO;
            }
            slot = endpoint.next;
        }
    }

    /// Puts the endpoint at the end of its breaker's line for that class, under that ticket, and
    /// among its sessions if there is one to be resumed by then.
    pub(crate) fn line_up(&mut self, slot: u32, class: Priority, ticket: u64, resume_by: Time) {
        self.waits.set(slot, Wait { resume_by });
        let endpoint = &mut self.slab[slot];
        endpoint.ticket = ticket;
        let (breaker, several) = (endpoint.breaker, endpoint.several);
        self.queues.push_back(queue(breaker, class, several), slot);
        self.note_session(slot, class);
    }

    /// Puts an endpoint that is in line among the sessions, if it has one.
    pub(crate) fn note_session(&mut self, slot: u32, class: Priority) {
        let EndpointRecord { breaker, ticket, .. } = self.slab[slot];
        let resume_by = self.resume_by(slot);
        if resume_by > Time::ZERO {
            self.sessions.insert((breaker, class, resume_by, ticket, slot));
        }
    }

    /// Takes an endpoint of that class out from among the sessions.
    pub(crate) fn forget_session(&mut self, slot: u32, class: Priority) {
        let Wait { resume_by } = self.waits.take(slot);
        let EndpointRecord { breaker, ticket, .. } = self.slab[slot];
        self.sessions.remove(&(breaker, class, resume_by, ticket, slot));
    }

    /// Moves all that wait for the breaker and have another endpoint to the displaced; one link for
    /// each class.
    pub(crate) fn displace(&mut self, breaker: u32) {
        for class in Priority::ALL {
            self.queues.splice(queue(breaker, class, true), DISPLACED);
        }
    }

    /// Whether anybody waits for the breaker.
    pub(crate) fn is_awaited(&self, breaker: u32) -> bool {
        self.queues.used_from(queue(breaker, Priority::Important, false), 2 * CLASSES) != 0
    }

    /// The classes of which somebody waits for the breaker.
    pub(crate) fn classes(&self, breaker: u32) -> impl Iterator<Item = Priority> {
        let used = self.queues.used_from(queue(breaker, Priority::Important, false), 2 * CLASSES);
        let waits = move |class: &Priority| used & (3 << (2 * *class as u32)) != 0;
        Priority::ALL.into_iter().filter(waits)
    }

    /// The first of its class that waits for the breaker.
    pub(crate) fn first_of(&self, breaker: u32, class: Priority) -> Option<u32> {
        let [alone, several] =
            [false, true].map(|several| self.queues.front(queue(breaker, class, several)));
        let (Some(alone), Some(several)) = (alone, several) else { return alone.or(several) };
        let ticket = |endpoint: u32| self.slab[endpoint].ticket;
        Some(if ticket(alone) < ticket(several) { alone } else { several })
    }

    /// Of its class and of those with a session the one whose session ends first after `then`.
    pub(crate) fn first_session(&self, breaker: u32, class: Priority, then: Time) -> Option<u32> {
        if self.sessions.is_empty() {
            return None;
        }
        let from = (breaker, class, then.plus_nanos(1), 0, 0);
        let to = (breaker, class, Time::MAX, u64::MAX, u32::MAX);
        self.sessions.range(from..=to).next().map(|session| session.4)
    }

    /// Whether anybody of that class who waits for the breaker has a session.
    pub(crate) fn has_sessions(&self, breaker: u32, class: Priority) -> bool {
        self.first_session(breaker, class, Time::ZERO).is_some()
    }

    /// Whether the endpoint stands among the sessions of that class.
    pub(crate) fn has_session(&self, slot: u32, class: Priority) -> bool {
        let EndpointRecord { breaker, ticket, .. } = self.slab[slot];
        self.sessions.contains(&(breaker, class, self.resume_by(slot), ticket, slot))
    }

    /// Until when its peer's session lives, while it waits among the sessions.
    #[inline]
    pub(crate) fn resume_by(&self, slot: u32) -> Time {
        self.waits.get(slot).resume_by
    }

    /// How many wait among the sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// All of a class that wait for the breaker, the first to come first.
    pub(crate) fn class_line(&self, breaker: u32, class: Priority) -> impl Iterator<Item = u32> {
        self.merged(
            [(class, false), (class, true)]
                .map(move |(class, several)| queue(breaker, class, several)),
        )
    }

    /// All that wait for the breaker, the first to come first.
    pub(crate) fn line(&self, breaker: u32) -> impl Iterator<Item = u32> {
        let [important, normal, background] = Priority::ALL;
        self.merged([
            queue(breaker, important, false),
            queue(breaker, important, true),
            queue(breaker, normal, false),
            queue(breaker, normal, true),
            queue(breaker, background, false),
            queue(breaker, background, true),
        ])
    }

    /// The members of these queues by their tickets.
    fn merged<const N: usize>(&self, queues: [u32; N]) -> impl Iterator<Item = u32> {
        let mut queues = queues.map(|queue| self.queues.iter(queue).peekable());
        let ticket = |endpoint: u32| self.slab[endpoint].ticket;
        core::iter::from_fn(move || {
            let heads = queues.iter_mut().filter_map(|queue| {
                let head = queue.peek().copied()?;
                Some((ticket(head), queue))
            });
            heads.min_by_key(|(ticket, _)| *ticket)?.1.next()
        })
    }
}
