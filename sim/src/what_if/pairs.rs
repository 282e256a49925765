//! The orders of one recorded step, to be found again among those of the other manager.

use steadfast::{Action, AttemptId, CallId, ConnId, EndpointId, PeerId, PingId, Tag};

/// The recorded orders, each of which is one of the other manager's at most.
#[derive(Debug)]
pub(super) struct Pairs<'a> {
    actions: &'a [Action],
    claimed: Vec<bool>,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(actions: &'a [Action]) -> Self {
        Self { actions, claimed: vec![false; actions.len()] }
    }

    fn claim<T>(&mut self, find: impl Fn(&Action) -> Option<T>) -> Option<T> {
        let mut free = self.actions.iter().zip(&mut self.claimed).filter(|(_, claimed)| !**claimed);
        free.find_map(|(action, claimed)| {
            let found = find(action)?;
            *claimed = true;
            Some(found)
        })
    }

    pub(super) fn dial(&mut self, to: PeerId, at: EndpointId) -> Option<ConnId> {
        self.claim(|action| match action {
            Action::Dial { conn, peer, endpoint, .. } => {
                (*peer == to && *endpoint == at).then_some(*conn)
            }
            _ => None,
        })
    }

    pub(super) fn adopt(&mut self, of: Tag) -> Option<ConnId> {
        self.claim(|action| match action {
            Action::Adopt { conn, tag, .. } => (*tag == of).then_some(*conn),
            _ => None,
        })
    }

    pub(super) fn ping(&mut self, over: ConnId) -> Option<PingId> {
        self.claim(|action| match action {
            Action::Ping { ping, conn } => (*conn == over).then_some(*ping),
            _ => None,
        })
    }

    pub(super) fn attempt(&mut self, of: CallId) -> Option<AttemptId> {
        self.claim(|action| match action {
            Action::StartAttempt { attempt, call, .. } => (*call == of).then_some(*attempt),
            _ => None,
        })
    }

    /// Whether the recorded manager ended that connection in this step too.
    pub(super) fn ends(&self, which: ConnId) -> bool {
        self.actions.iter().any(|action| match action {
            Action::Close { conn } | Action::CancelDial { conn } => *conn == which,
            _ => false,
        })
    }
}
