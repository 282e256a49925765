//! The connections that are alive, dials included.

use std::sync::Arc;

use steadfast::{AttemptId, ConnId, PeerId};
use tokio::sync::oneshot;

/// One of them.
pub(crate) struct Conn<C> {
    pub(crate) id: ConnId,
    pub(crate) peer: PeerId,
    /// `None` while it is being dialed.
    pub(crate) connection: Option<Arc<C>>,
    /// Told: close in good order. Dropped: let go at once.
    pub(crate) order: oneshot::Sender<()>,
    /// Dropped: the ping that is out no longer matters.
    pub(crate) ping: Option<oneshot::Sender<()>>,
    /// The attempts that run over it.
    pub(crate) attempts: Vec<AttemptId>,
}

impl<C> Conn<C> {
    pub(crate) const fn new(
        id: ConnId,
        peer: PeerId,
        connection: Option<Arc<C>>,
        order: oneshot::Sender<()>,
    ) -> Self {
        Self { id, peer, connection, order, ping: None, attempts: Vec::new() }
    }
}

/// By the slot of their ids: an index and a comparison.
pub(crate) struct Conns<C> {
    slots: Vec<Option<Conn<C>>>,
    /// How many are alive.
    pub(crate) live: usize,
}

impl<C> Conns<C> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), live: 0 }
    }

    pub(crate) fn insert(&mut self, conn: Conn<C>) {
        let slot = conn.id.slot() as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            self.live += usize::from(place.is_none());
            *place = Some(conn);
        }
    }

    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut Conn<C>> {
        self.slots.get_mut(id.slot() as usize)?.as_mut().filter(|conn| conn.id == id)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn<C>> {
        let place = self.slots.get_mut(id.slot() as usize)?;
        let gone = place.take_if(|conn| conn.id == id);
        self.live -= usize::from(gone.is_some());
        gone
    }

    /// All of them, taken out.
    pub(crate) fn drain(&mut self) -> Vec<Conn<C>> {
        self.live = 0;
        std::mem::take(&mut self.slots).into_iter().flatten().collect()
    }
}
