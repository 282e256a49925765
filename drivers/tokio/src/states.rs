//! How a peer is doing, for whoever waits for it.

use steadfast::PeerState;
use tokio::sync::watch;

/// A peer's state, and when it changes: what [`Handle::watch`](crate::Handle::watch) gives.
///
/// It holds no lock, so whoever looks at it may call the driver. Whoever looks rarely sees the last
/// state only.
#[derive(Clone, Debug)]
pub struct States(watch::Receiver<PeerState>);

impl States {
    pub(crate) const fn new(states: watch::Receiver<PeerState>) -> Self {
        Self(states)
    }

    /// The state now, or the last one of a peer that is gone.
    #[must_use]
    pub fn now(&self) -> PeerState {
        *self.0.borrow()
    }

    /// Waits until it changes, and gives the new state: the same as before if it has changed back
    /// meanwhile. `None` once the peer is removed or the driver is gone.
    ///
    /// It may be dropped at any await point, and misses nothing then.
    pub async fn changed(&mut self) -> Option<PeerState> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }

    /// Waits until it is as wanted, which it may be now, and gives that state. `None` if the peer is
    /// removed or the driver gone before.
    pub async fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&PeerState) -> bool,
    ) -> Option<PeerState> {
        let mut state = *self.0.borrow_and_update();
        while !wanted(&state) {
            state = self.changed().await?;
        }
        Some(state)
    }
}
