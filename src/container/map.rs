//! From the driver's ids to slots.
//!
//! The table holds slots alone; the id is read from the record, so the table is a third of a map's
//! size. The hash is keyed, because ids may be chosen by somebody else: two multiplications that
//! fold, as in wyhash. It is never iterated, so the key can change no output.

use hashbrown::HashTable;

use crate::container::slab::Slab;

/// A record that the driver has given a name.
pub(crate) trait Named {
    fn id(&self) -> u64;
}

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

    /// The slot of the record with this id.
    #[inline]
    pub(crate) fn find<T: Named>(&self, id: u64, slab: &Slab<T>) -> Option<u32> {
        let is_it = |&slot: &u32| slab.get(slot).is_some_and(|record| record.id() == id);
        self.table.find(Self::hash(self.key, id), is_it).copied()
    }

    /// Adds the record in `slot`; `false` if there is one of that id already.
    pub(crate) fn insert<T: Named>(&mut self, slot: u32, slab: &Slab<T>) -> bool {
        let id = slab.get(slot).map(Named::id);
        let fresh = id.is_some_and(|id| self.find(id, slab).is_none());
        if fresh {
            self.insert_fresh(slot, slab);
        }
        fresh
    }

    /// Adds the record in `slot`, of whose id there is none.
    pub(crate) fn insert_fresh<T: Named>(&mut self, slot: u32, slab: &Slab<T>) {
        let key = self.key;
        let hash_of = |&slot: &u32| slab.get(slot).map_or(0, |record| Self::hash(key, record.id()));
        self.table.insert_unique(hash_of(&slot), slot, hash_of);
    }

    /// Takes out the record in `slot`, before it goes.
    pub(crate) fn remove<T: Named>(&mut self, slot: u32, slab: &Slab<T>) {
        let Some(id) = slab.get(slot).map(Named::id) else { return };
        if let Ok(entry) = self.table.find_entry(Self::hash(self.key, id), |&known| known == slot) {
            entry.remove();
        }
    }

    /// Makes room for so many records in all.
    pub(crate) fn reserve<T: Named>(&mut self, records: usize, slab: &Slab<T>) {
        let key = self.key;
        let hash_of = |&slot: &u32| slab.get(slot).map_or(0, |record| Self::hash(key, record.id()));
        let _ = self.table.try_reserve(records.saturating_sub(self.table.len()), hash_of);
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
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    impl Named for u64 {
        fn id(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn it_finds_what_was_put_in_under_any_key() {
        for key in [0, 1, 42, u64::MAX] {
            let (mut map, mut slab) = (Map::new(key), Slab::new());
            for n in 0..1000_u64 {
                let slot = slab.insert((n << 32) | (n % 7));
                assert!(map.insert(slot, &slab));
            }
            let twin = slab.insert(slab[999]);
            assert!(!map.insert(twin, &slab), "one id twice");
            map.remove(3, &slab);
            assert_eq!(map.find(slab[3], &slab), None);
            assert_eq!(map.find(slab[999], &slab), Some(999));
            assert_eq!(map.find(5, &slab), None);
            assert_eq!(map.len(), 999);
        }
    }

    const MANY: u64 = 1 << 12;

    /// Ids as somebody would choose them who knows the table but not its key.
    fn chosen() -> Vec<(&'static str, Vec<u64>)> {
        let many = |id: fn(u64) -> u64| (0..MANY).map(id).collect();
        vec![
            ("in a row", many(|n| n)),
            ("equal in 16 bits", many(|n| n << 16)),
            ("equal in 32 bits", many(|n| n << 32 | 7)),
            ("equal in 52 bits", many(|n| n << 52)),
            ("from the end", many(|n| u64::MAX - n)),
            ("far steps", many(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            ("steps that undo the mixing", many(|n| n.wrapping_mul(0x94d0_49bb_1331_11eb))),
            ("steps of three bits", many(|n| n.wrapping_mul(1 << 63 | 1 << 31 | 1))),
            ("two bits of 64", many(|n| 1 << (n / 64) ^ 1 << (n % 64))),
        ]
    }

    /// The places of the table that the ids of one set would like to be in, and the bits that tell
    /// those of one place apart: how many share the fullest place, and how many both.
    fn crowding(ids: &[u64], key: [u64; 2]) -> (u16, u16) {
        let (mut places, mut twins) = (vec![0; 1 << 12], vec![0; 1 << 19]);
        for &id in ids {
            let hash = Map::hash(key, id);
            let place = usize::try_from(hash % MANY).unwrap();
            places[place] += 1;
            twins[place << 7 | usize::try_from(hash >> 57).unwrap()] += 1;
        }
        (places.into_iter().max().unwrap(), twins.into_iter().max().unwrap())
    }

    /// Of as many ids as places, the fullest place has some seven by chance, and ten once in a
    /// hundred tables; what a search must look at is bounded by what shares the other bits as well.
    #[test]
    fn ids_chosen_without_the_key_crowd_no_more_than_by_chance() {
        for secret in (0..64).map(|n| fold(n ^ 0x5851_f42d_4c95_7f2d, 0xda94_2042_e4dd_58b5)) {
            let key = Map::new(secret).key;
            for (how, mut ids) in chosen() {
                ids.sort_unstable();
                ids.dedup();
                let (places, twins) = crowding(&ids, key);
                assert!(places <= 14 && twins <= 4, "{how}: {places} in a place, {twins} twins");
            }
        }
    }

    #[test]
    fn ids_found_to_collide_under_one_key_do_not_under_another() {
        let known = Map::new(42).key;
        let ids: Vec<u64> =
            (0..).filter(|&id| Map::hash(known, id).is_multiple_of(512)).take(1 << 12).collect();
        assert!(crowding(&ids, known).0 > 300, "they collide where they were found");
        // Also under the keys that look most like it.
        for secret in [40, 41, 43, 44, 46, 58, !42, 42 << 1, 42 << 32, 42 | 1 << 63] {
            let (places, twins) = crowding(&ids, Map::new(secret).key);
            assert!(places <= 14 && twins <= 4, "{secret}: {places} in a place, {twins} twins");
        }
    }

    #[test]
    fn a_search_among_chosen_ids_looks_at_hardly_more_than_one_record() {
        for (how, ids) in chosen() {
            let (mut map, mut slab) = (Map::new(0x0123_4567_89ab_cdef), Slab::new());
            for &id in &ids {
                let slot = slab.insert(id);
                map.insert(slot, &slab);
            }
            let before = slab.visits.get();
            for &id in &ids {
                assert!(map.find(id, &slab).is_some());
                let _ = map.find(id ^ 0x00ff_00ff, &slab);
            }
            let visits = slab.visits.get() - before;
            assert!(
                visits <= 3 * MANY,
                "{how}: {visits} records for {MANY} ids and as many others"
            );
        }
    }
}
