//! What a recording knows of dials, attempts and pings: each with its answer, to be found by who it
//! was for, by what guarded it, and by when it was.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast::Time;

/// How far away in time a recorded answer may lie.
pub(super) const NEAR: Duration = Duration::from_secs(30);
/// How many times nearer one's own counts.
const OWN: u32 = 4;
/// How many on each side are looked at until one is usable.
const LOOKED_AT: usize = 64;

/// One that was recorded.
#[derive(Clone, Debug)]
pub(super) struct Sample<T> {
    pub(super) begun: Time,
    /// After how long it was answered, and how; `None`: not until it was given up.
    pub(super) answer: Option<(Duration, T)>,
    /// How long it was waited for in vain.
    pub(super) waited: Duration,
}

/// All of a kind: `own` is who they were for, `group` what they have in common with others.
#[derive(Debug)]
pub(super) struct Samples<O, G, T> {
    all: Vec<Sample<T>>,
    own: BTreeMap<O, Vec<usize>>,
    groups: BTreeMap<G, Vec<usize>>,
}

impl<O: Ord, G: Ord, T> Samples<O, G, T> {
    pub(super) const fn new() -> Self {
        Self { all: Vec::new(), own: BTreeMap::new(), groups: BTreeMap::new() }
    }

    /// Begins one; its place.
    pub(super) fn begin(&mut self, own: O, group: Option<G>, begun: Time) -> usize {
        let place = self.all.len();
        self.all.push(Sample { begun, answer: None, waited: Duration::ZERO });
        self.own.entry(own).or_default().push(place);
        if let Some(group) = group {
            self.groups.entry(group).or_default().push(place);
        }
        place
    }

    /// The one at that place was answered.
    pub(super) fn answer(&mut self, place: usize, at: Time, answer: T) {
        if let Some(sample) = self.all.get_mut(place) {
            sample.answer = Some((at.since(sample.begun), answer));
        }
    }

    /// The one at that place was given up.
    pub(super) fn give_up(&mut self, place: usize, at: Time) {
        if let Some(sample) = self.all.get_mut(place) {
            sample.waited = at.since(sample.begun);
        }
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Sample<T>> {
        self.all.get_mut(place)
    }

    /// The last one that began until then.
    pub(super) fn last_of(&self, own: &O, at: Time) -> Option<&Sample<T>> {
        let places = self.own.get(own)?;
        let after = places.partition_point(|&place| self.begun(place) <= at);
        self.all.get(*places.get(after.checked_sub(1)?)?)
    }

    /// All are there: puts them into the order of time, which several managers' are not in.
    pub(super) fn sort(&mut self) {
        let all = &self.all;
        let begun = |&place: &usize| (all.get(place).map(|sample| sample.begun), place);
        self.own.values_mut().chain(self.groups.values_mut()).for_each(|list| {
            list.sort_by_key(begun);
        });
    }

    /// The usable one that is nearest in time, one's own counting as nearer; none beyond `within`.
    /// `usable` is also told whether it is one's own.
    pub(super) fn nearest(
        &self,
        own: &O,
        group: Option<&G>,
        at: Time,
        within: Duration,
        usable: impl Fn(&Sample<T>, bool) -> bool,
    ) -> Option<&Sample<T>> {
        let mine = self.own.get(own);
        let mine = mine.and_then(|list| self.nearest_of(list, at, within, |one| usable(one, true)));
        let others = group.and_then(|group| self.groups.get(group));
        let others =
            others.and_then(|list| self.nearest_of(list, at, within, |one| usable(one, false)));
        match (mine, others) {
            (Some(mine), Some(other)) if mine.0 / OWN > other.0 => Some(other.1),
            (Some((_, sample)), _) | (None, Some((_, sample))) => Some(sample),
            (None, None) => None,
        }
    }

    fn nearest_of(
        &self,
        list: &[usize],
        at: Time,
        within: Duration,
        usable: impl Fn(&Sample<T>) -> bool,
    ) -> Option<(Duration, &Sample<T>)> {
        let (before, after) =
            list.split_at_checked(list.partition_point(|&place| self.begun(place) <= at))?;
        let found = |places: &mut dyn Iterator<Item = &usize>| {
            let samples = places.take(LOOKED_AT).filter_map(|&place| self.all.get(place));
            let mut samples =
                samples.map(|one| (at.since(one.begun).max(one.begun.since(at)), one));
            samples.find(|(distance, one)| *distance <= within && usable(one))
        };
        let before = found(&mut before.iter().rev());
        let after = found(&mut after.iter());
        match (before, after) {
            (Some(before), Some(after)) if after.0 < before.0 => Some(after),
            (Some(one), _) | (None, Some(one)) => Some(one),
            (None, None) => None,
        }
    }

    fn begun(&self, place: usize) -> Time {
        self.all.get(place).map_or(Time::ZERO, |sample| sample.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_secs(secs)
    }

    /// Mine at 10 s, another's at 14 s, both answered after a second.
    fn two() -> Samples<u8, u8, char> {
        let mut samples = Samples::new();
        for (own, begun, answer) in [(1, 10, 'm'), (2, 14, 'o')] {
            let place = samples.begin(own, Some(0), at(begun));
            samples.answer(place, at(begun + 1), answer);
        }
        samples.sort();
        samples
    }

    fn nearest(samples: &Samples<u8, u8, char>, secs: u64) -> Option<char> {
        let found = samples.nearest(&1, Some(&0), at(secs), NEAR, |_, _| true)?;
        found.answer.map(|(after, answer)| {
            assert_eq!(after, Duration::from_secs(1));
            answer
        })
    }

    #[test]
    fn one_s_own_counts_as_nearer_and_what_is_far_away_not_at_all() {
        let samples = two();
        assert_eq!(
            [9, 13, 14, 15].map(|secs| nearest(&samples, secs)),
            [Some('m'), Some('m'), Some('o'), Some('o'),]
        );
        assert_eq!(nearest(&samples, 44), Some('o'));
        assert_eq!(nearest(&samples, 45), None);
    }

    #[test]
    fn what_is_not_usable_is_passed_over() {
        let samples = two();
        let found = samples.nearest(&1, Some(&0), at(11), NEAR, |sample, _| sample.begun != at(10));
        assert_eq!(found.map(|sample| sample.begun), Some(at(14)));
        assert_eq!(samples.last_of(&1, at(9)).map(|sample| sample.begun), None);
        assert_eq!(samples.last_of(&1, at(99)).map(|sample| sample.begun), Some(at(10)));
    }
}
