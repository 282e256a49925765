//! From the driver's ids to slots.
//!
//! The table holds slots alone; the id is read from the record, so the table is a third of a map's
//! size. The hash is keyed, because ids may be chosen by somebody else: two multiplications that
//! fold, as in wyhash. It is never iterated, so the key can change no output.

use hashbrown::HashTable;

/// Ids to slots.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    table: HashTable<u32>,
    key: [u64; 2],
}

impl Map {
    pub(crate) fn new(hash_key: u64) -> Self {
        // The second key is the first after one step of splitmix64, so that neither is zero-like.
        let mixed = fold(hash_key ^ 0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);
        Self { table: HashTable::new(), key: [hash_key | 1, mixed | 1] }
    }

    fn hash(key: [u64; 2], id: u64) -> u64 {
        let [first, second] = key;
        fold(fold(id ^ first, second), first ^ 0x94d0_49bb_1331_11eb)
    }

    /// The slot of `id`; `id_of` reads a slot's id.
    #[inline]
    pub(crate) fn find(&self, id: u64, id_of: impl Fn(u32) -> u64) -> Option<u32> {
        self.table.find(Self::hash(self.key, id), |&slot| id_of(slot) == id).copied()
    }

    /// Adds an id that is not there.
    pub(crate) fn insert(&mut self, id: u64, slot: u32, id_of: impl Fn(u32) -> u64) {
        let key = self.key;
        self.table.insert_unique(Self::hash(key, id), slot, |&slot| Self::hash(key, id_of(slot)));
    }

    /// Takes `id` out, before its record goes.
    pub(crate) fn remove(&mut self, id: u64, id_of: impl Fn(u32) -> u64) {
        if let Ok(entry) =
            self.table.find_entry(Self::hash(self.key, id), |&slot| id_of(slot) == id)
        {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of a product")]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn it_finds_what_was_put_in_under_any_key() {
        for key in [0, 1, 42, u64::MAX] {
            let ids: Vec<u64> = (0..1000).map(|n: u64| (n << 32) | (n % 7)).collect();
            let id_of = |slot: u32| ids[slot as usize];
            let mut map = Map::new(key);
            for (slot, &id) in (0..).zip(&ids) {
                map.insert(id, slot, id_of);
            }
            map.remove(ids[3], id_of);
            assert_eq!(map.find(ids[3], id_of), None);
            assert_eq!(map.find(ids[999], id_of), Some(999));
            assert_eq!(map.find(5, id_of), None);
            assert_eq!(map.len(), 999);
        }
    }
}
