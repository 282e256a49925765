//! When a fault comes, and for how long: by the clock, or by chance; to all managers at once, or to
//! each for itself.
//!
//! Both are pure functions of the scenario and the seed, so the world that lives through it and the
//! timeline that draws it need not tell each other. What comes by chance is cut off at `until`, so
//! that the heal is the same moment under every seed.

use crate::dist::{Dist, unit};
use crate::draws::{Draws, Purpose, group_hash};
use crate::scenario::Fault;
use crate::units::{Share, Span};

/// The times that a fault comes.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Tells its draws from those of other faults, whatever their order in the file.
    name: u64,
    at: Span,
    /// What comes before it as a notice, and is part of it.
    notice: Span,
    lasts: Dist,
    every: Option<Dist>,
    /// How often, if it is told so.
    times: u32,
    until: Option<Span>,
    /// Whether it is ever over.
    heals: bool,
    /// What part of the managers it happens to, and over what span, if to each for itself.
    each: Option<(Share, Span)>,
}

impl Schedule {
    pub(crate) fn of(fault: &Fault) -> Self {
        let (kind, on, at) = (fault.kind.get_ref(), fault.on.get_ref(), *fault.at.get_ref());
        let name = [format!("{kind} {on}"), format!("{at}")].map(|part| group_hash(&part));
        Self {
            name: u64::from(name[0]) << 32 | u64::from(name[1]),
            at,
            notice: fault.notice.unwrap_or_default(),
            lasts: fault.lasts.as_ref().map_or(Dist::default(), |lasts| *lasts.get_ref()),
            every: fault.every.as_ref().map(|every| *every.get_ref()),
            times: fault.times.max(1),
            until: fault.until.as_ref().map(|until| *until.get_ref()),
            heals: fault.heals,
            each: fault.kind.get_ref().is_of_managers().then_some(()).and_then(|()| {
                let spread = fault.spread.as_ref().map(|spread| *spread.get_ref());
                let all = Share::new(1.0).unwrap_or_default();
                let given = fault.share.is_some() || spread.is_some();
                given.then(|| (fault.share.unwrap_or(all), spread.unwrap_or_default()))
            }),
        }
    }

    /// When it first comes.
    pub(crate) const fn at(&self) -> Span {
        self.at
    }

    /// Whether it is ever over.
    pub(crate) const fn heals(&self) -> bool {
        self.heals
    }

    /// Whether it happens to each manager for itself.
    pub(crate) const fn is_each(&self) -> bool {
        self.each.is_some()
    }

    /// When it comes to this manager, if it happens to each for itself; `None` if never.
    pub(crate) fn of_one(&self, draws: Draws, manager: usize) -> Option<Self> {
        let (share, spread) = self.each?;
        // A name of its own, so that whatever comes by chance is drawn for it alone.
        let own = (manager as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let name = self.name ^ own;
        if unit(draws.draw(Purpose::FaultShare, name, 0)) >= share.as_f64() {
            return None;
        }
        let random = draws.draw(Purpose::FaultSpread, name, 0);
        let later = steadfast::draw::uniform(random, 0, spread.as_nanos());
        let at = Span::from_nanos(self.at.as_nanos().saturating_add(later));
        Some(Self { name, at, each: None, ..self.clone() })
    }

    /// When it is there for anybody, to be shown.
    pub(crate) fn shown(&self, draws: Draws) -> Vec<(Span, Span)> {
        let Some((_, spread)) = self.each else { return self.spans(draws).collect() };
        let by_chance = self.lasts.is_chance() || self.every.is_some_and(|every| every.is_chance());
        if by_chance {
            return vec![(self.at, self.over())];
        }
        let latest = self.until.map_or(u64::MAX, Span::as_nanos);
        let end = |end: Span| {
            Span::from_nanos(end.as_nanos().saturating_add(spread.as_nanos()).min(latest))
        };
        self.spans(draws).map(|(from, to)| (from, end(to))).collect()
    }

    /// When it is over for good, or is there for good.
    pub(crate) fn over(&self) -> Span {
        if let Some(until) = self.until {
            return until;
        }
        let every = self.every.map_or(0, |every| every.mean().as_nanos());
        let last = every.saturating_mul(u64::from(self.times - 1));
        let spread = self.each.map_or(Span::ZERO, |(_, spread)| spread).as_nanos();
        let begin = self.at.as_nanos().saturating_add(last).saturating_add(spread);
        let end = begin.saturating_add(self.notice.as_nanos());
        Span::from_nanos(end.saturating_add(self.lasts.mean().as_nanos()))
    }

    /// About how often it comes.
    pub(crate) fn about_times(&self) -> u64 {
        let (Some(until), Some(every)) = (self.until, self.every) else {
            return u64::from(self.times);
        };
        let within = until.as_nanos().saturating_sub(self.at.as_nanos());
        within.div_ceil(every.mean().as_nanos().max(1))
    }

    /// From when to when it is there, in order. It comes again so long after it began, or when it
    /// is over if that is later.
    pub(crate) fn spans(&self, draws: Draws) -> impl Iterator<Item = (Span, Span)> {
        let latest = self.until.map_or(u64::MAX, Span::as_nanos);
        let times = if self.until.is_some() && self.every.is_some() {
            u64::MAX
        } else {
            u64::from(self.times)
        };
        let drawn = move |dist: Dist, purpose, n| {
            dist.sample(&mut draws.generator(purpose, self.name, n)).as_nanos()
        };
        let mut begin = self.at.as_nanos();
        let spans = (0..times).map(move |n| {
            let (from, lasts) = (begin, drawn(self.lasts, Purpose::FaultLength, n));
            let lasts = lasts.saturating_add(self.notice.as_nanos());
            let lasts = if self.heals { lasts } else { u64::MAX };
            let end = from.saturating_add(lasts).min(latest);
            let gap = self.every.map_or(0, |every| drawn(every, Purpose::FaultGap, n));
            begin = from.saturating_add(gap).max(end);
            (from, end)
        });
        let spans = spans.take_while(move |(from, _)| *from < latest);
        spans.map(|(from, end)| (Span::from_nanos(from), Span::from_nanos(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(lasts: &str, every: Option<&str>, times: u32, until: Option<u64>) -> Schedule {
        Schedule {
            name: 7,
            at: Span::from_secs(10),
            notice: Span::ZERO,
            lasts: lasts.parse().unwrap(),
            every: every.map(|every| every.parse().unwrap()),
            times,
            until: until.map(Span::from_secs),
            heals: true,
            each: None,
        }
    }

    fn spans(schedule: &Schedule, seed: u64) -> Vec<(u64, u64)> {
        let spans = schedule.spans(Draws::new(seed));
        spans.map(|(from, to)| (from.as_nanos(), to.as_nanos())).collect()
    }

    #[test]
    fn by_the_clock_it_comes_as_often_as_it_says() {
        let s = 1_000_000_000;
        let told = schedule("2s", Some("5s"), 3, None);
        assert_eq!(spans(&told, 1), [(10 * s, 12 * s), (15 * s, 17 * s), (20 * s, 22 * s)]);
        assert_eq!(told.over(), Span::from_secs(22));
        let until = schedule("2s", Some("5s"), 1, Some(21));
        assert_eq!(spans(&until, 1), [(10 * s, 12 * s), (15 * s, 17 * s), (20 * s, 21 * s)]);
    }

    #[test]
    fn by_chance_it_comes_as_often_as_it_should_and_never_twice_at_once() {
        let chance = schedule("exp(1s)", Some("exp(10s)"), 1, Some(100_010));
        let seen = spans(&chance, 1);
        assert!((9_000..10_500).contains(&seen.len()), "{}", seen.len());
        let lasted: u64 = seen.iter().map(|(from, to)| to - from).sum();
        let mean = lasted / seen.len() as u64;
        assert!((950_000_000..1_050_000_000).contains(&mean), "{mean}");
        assert!(seen.windows(2).all(|two| two[0].1 <= two[1].0));
        assert!(seen.iter().all(|(_, to)| *to <= chance.over().as_nanos()));
        assert_eq!(seen, spans(&chance, 1));
        assert_ne!(seen, spans(&chance, 2));
        assert_eq!(chance.about_times(), 10_000);
    }

    #[test]
    fn of_each_manager_it_is_true_by_itself() {
        let share = Share::new(0.5).unwrap();
        let each = Some((share, Span::from_secs(30)));
        let all = Schedule { each, ..schedule("2s..4s", None, 1, Some(60)) };
        let draws = Draws::new(1);
        let ones: Vec<_> = (0..1_000).filter_map(|one| all.of_one(draws, one)).collect();
        assert!((450..550).contains(&ones.len()), "{}", ones.len());
        let spans: Vec<_> = ones.iter().flat_map(|one| spans(one, 1)).collect();
        assert_eq!(spans.len(), ones.len());
        let s = 1_000_000_000;
        assert!(
            spans.iter().all(|(from, to)| (10 * s..=40 * s).contains(from) && *to - from >= 2 * s)
        );
        assert!(spans.iter().any(|(from, _)| *from < 12 * s));
        assert!(spans.iter().any(|(from, _)| *from > 38 * s));
        assert_ne!(spans[0].1 - spans[0].0, spans[1].1 - spans[1].0);
        assert_eq!(all.shown(draws), [(Span::from_secs(10), Span::from_secs(60))]);
    }
}
