//! Names: the driver's for what it asks for, ours for what it reports back.

use core::fmt;

macro_rules! driver_id {
    ($(#[$doc:meta])* $name:ident($int:ty), $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(transparent))]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

driver_id! {
    /// A remote party that we want a connection to; chosen by the driver.
    PeerId(u64), "p"
}
driver_id! {
    /// A circuit breaker; chosen by the driver. It may guard one endpoint or a region of 100,000.
    BreakerId(u64), "b"
}
driver_id! {
    /// One of a peer's addresses; chosen by the driver, unique within the peer, kept across
    /// [`Event::SetEndpoints`](crate::Event::SetEndpoints).
    EndpointId(u32), "e"
}
driver_id! {
    /// The driver's mark on an inbound connection that the manager has not yet adopted.
    Tag(u64), "t"
}
driver_id! {
    /// One logical request, of one or more attempts; chosen by the driver, not in use by another.
    CallId(u64), "r"
}
driver_id! {
    /// A peer profile: its place in [`Config::peer_profiles`](crate::Config::peer_profiles).
    PeerProfileId(u16), "profile "
}
driver_id! {
    /// A breaker profile: its place in [`Config::breaker_profiles`](crate::Config::breaker_profiles).
    BreakerProfileId(u16), "profile "
}
driver_id! {
    /// A call profile: its place in [`Config::call_profiles`](crate::Config::call_profiles).
    CallProfileId(u16), "profile "
}

/// Bits of an issued id that name the slot; the rest is the generation.
const SLOT_BITS: u32 = 28;
/// How many slots there can be.
pub(crate) const MAX_SLOTS: u32 = 1 << SLOT_BITS;
/// The last generation; a slot that has reached it is retired, so no id is ever issued twice.
pub(crate) const MAX_GENERATION: u64 = (1 << (64 - SLOT_BITS)) - 1;

macro_rules! issued_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        ///
        /// A slot (28 bits) and a generation (36 bits): found by an index and a comparison, never
        /// issued twice.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(transparent))]
        pub struct $name(u64);

        impl $name {
            pub(crate) const fn new(slot: u32, generation: u64) -> Self {
                Self(generation << SLOT_BITS | slot as u64)
            }

            /// The slot: below the most that were ever alive at once, and of only one that is alive now.
            /// A driver may use it as an index into a table of its own.
            #[must_use]
            #[expect(clippy::cast_possible_truncation, reason = "masked to 28 bits")]
            pub const fn slot(self) -> u32 {
                (self.0 & (MAX_SLOTS as u64 - 1)) as u32
            }

            pub(crate) const fn generation(self) -> u64 {
                self.0 >> SLOT_BITS
            }

            /// The id as a number, for drivers that keep it outside Rust's types.
            #[must_use]
            pub const fn to_raw(self) -> u64 {
                self.0
            }

            /// The id that [`to_raw`](Self::to_raw) gave; any other number is merely stale.
            #[must_use]
            pub const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }
        }

        /// Slot and generation, as `c12.3`; the first generation is left out.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.slot())?;
                if self.generation() > 0 { write!(f, ".{}", self.generation()) } else { Ok(()) }
            }
        }
    };
}

issued_id! {
    /// One attempt to connect to one endpoint and, if it succeeds, the connection.
    ConnId, "c"
}
issued_id! {
    /// One ping over one connection.
    PingId, "g"
}

issued_id! {
    /// One attempt of a call.
    AttemptId, "a"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slot_and_the_last_generation_fill_an_id_and_are_read_back_from_it() {
        let last = ConnId::new(MAX_SLOTS - 1, MAX_GENERATION);
        assert_eq!(last.to_raw(), u64::MAX);
        assert_eq!((last.slot(), last.generation()), (MAX_SLOTS - 1, MAX_GENERATION));
        assert_eq!(ConnId::from_raw(u64::MAX), last);
        let (slot, generation) = (ConnId::new(MAX_SLOTS - 1, 0), ConnId::new(0, MAX_GENERATION));
        assert_eq!((slot.slot(), slot.generation()), (MAX_SLOTS - 1, 0));
        assert_eq!((generation.slot(), generation.generation()), (0, MAX_GENERATION));
    }
}
