//! Refusals that seem to be about one peer, until everybody gets them.

use crate::id::PeerId;

/// Whom the servers behind a breaker have refused for reasons of its own (a certificate, a
/// password), with no success since.
///
/// One such refusal tells of one peer and must not count against the others. Three different peers
/// in a row that are refused so have not all become wrong at once: it is the server's certificate
/// that has expired, or what it asks for passwords that is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Refusals {
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) first: Option<PeerId>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub(crate) second: Option<PeerId>,
    /// Whether a third one followed.
    common: bool,
}

/// Whose reason a refusal is.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The peer's.
    Own,
    /// Everybody's, and this is the refusal that shows it; the two that came before.
    BecameCommon([PeerId; 2]),
    /// Everybody's.
    Common,
}

impl Refusals {
    /// Takes in that `peer` was refused for a reason of its own.
    pub(crate) fn record(&mut self, peer: PeerId) -> Reason {
        match (self.common, self.first, self.second) {
            (true, ..) => Reason::Common,
            (false, Some(first), Some(second)) if peer != first && peer != second => {
                self.common = true;
                Reason::BecameCommon([first, second])
            }
            (false, Some(first), None) if peer != first => {
                self.second = Some(peer);
                Reason::Own
            }
            (false, None, _) => {
                self.first = Some(peer);
                Reason::Own
            }
            _ => Reason::Own,
        }
    }

    /// Takes in that somebody was let in.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether this could have arisen; for what was read from outside.
    pub(crate) fn is_valid(&self) -> bool {
        let in_order = self.first.is_some() || self.second.is_none();
        let different = self.first != self.second || self.first.is_none();
        in_order && different && (!self.common || self.second.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_different_peers_in_a_row_are_not_refused_for_reasons_of_their_own() {
        let mut refusals = Refusals::default();
        for peer in [1, 1, 2, 1, 2] {
            assert_eq!(refusals.record(PeerId(peer)), Reason::Own);
            assert!(refusals.is_valid());
        }
        let became = Reason::BecameCommon([PeerId(1), PeerId(2)]);
        assert_eq!(refusals.record(PeerId(3)), became);
        assert_eq!(refusals.record(PeerId(1)), Reason::Common);
        assert!(refusals.is_valid());
        refusals.clear();
        assert_eq!(refusals.record(PeerId(3)), Reason::Own);
    }
}
