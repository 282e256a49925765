//! Connections to be made beside one that lasts, to take its place.

use crate::action::MoveCause;
use crate::time::Time;

/// What moves a replacement on; like a peer's phase, each stage has one timer or queue place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub(crate) enum Stage {
    /// Its peer's timer moves it on.
    Due {
        /// When.
        at: Time,
    },
    /// It has a place in line.
    Waiting {
        /// At the line of this endpoint's breaker.
        endpoint: u32,
        /// Since when.
        since: Time,
    },
    /// The dial's answer or timeout moves it on.
    Dialing {
        /// The slot of the dial.
        conn: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replacement {
    pub(crate) peer: u32,
    /// Why the connection that is there is to be replaced.
    pub(crate) cause: MoveCause,
    pub(crate) stage: Stage,
    /// Tries in a row that failed.
    pub(crate) failures: u32,
    /// When it is due because the server will leave, even if the cause is another one by now.
    pub(crate) drain_at: Option<Time>,
}
