//! One number for a whole run or state, the same on every platform.

use core::hash::{Hash, Hasher};

/// A 64-bit hasher that writes no pointer width and no byte order into its result.
///
/// Not cryptographic: it finds accidents, not attackers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) const fn new(start: u64) -> Self {
        Self(start ^ 0x51ea_df45_7000_0001)
    }

    /// The digest that had this value.
    pub(crate) const fn resume(value: u64) -> Self {
        Self(value)
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }

    /// The digest of one value.
    pub(crate) fn of(value: &impl Hash) -> u64 {
        let mut digest = Self::new(0);
        value.hash(&mut digest);
        digest.0
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a product")]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ (product as u64).rotate_left(23) ^ word;
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
    fn write_u128(&mut self, word: u128) {
        self.write_u64((word >> 64) as u64);
        self.write_u64(word as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    #[expect(clippy::cast_sign_loss, reason = "a discriminant, bit by bit")]
    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as i64 as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnId;
    use crate::{Event, LossCause, PeerId, Time};
    use alloc::vec::Vec;

    #[test]
    fn the_digest_of_an_event_is_pinned() {
        let lost = Event::Lost { conn: ConnId::new(3, 7), cause: LossCause::Reset };
        let digests = [Digest::of(&lost), Digest::of(&Event::Connect { peer: PeerId(1) })];
        assert_ne!(digests[0], digests[1]);
        insta::assert_snapshot!(alloc::format!("{digests:016x?}"));
    }

    #[test]
    fn close_values_have_far_digests() {
        let mut seen: Vec<u64> =
            (0..100_000).map(|n| Digest::of(&Time::from_nanos(n)) >> 20).collect();
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 99_990, "{}", seen.len());
    }
}
