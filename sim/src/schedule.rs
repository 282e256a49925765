//! When a fault comes, and for how long: by the clock, or by chance.
//!
//! Both are pure functions of the scenario and the seed, so the world that lives through it and the
//! timeline that draws it need not tell each other. What comes by chance is cut off at `until`, so
//! that the heal is the same moment under every seed.

use crate::dist::Dist;
use crate::draws::{Draws, Purpose, group_hash};
use crate::scenario::Fault;
use crate::units::Span;

/// The times that a fault comes.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Tells its draws from those of other faults, whatever their order in the file.
    name: u64,
    at: Span,
    lasts: Dist,
    every: Option<Dist>,
    /// How often, if it is told so.
    times: u32,
    until: Option<Span>,
}

impl Schedule {
    pub(crate) fn of(fault: &Fault) -> Self {
        let (kind, on, at) = (fault.kind.get_ref(), fault.on.get_ref(), *fault.at.get_ref());
        let name = [format!("{kind} {on}"), format!("{at}")].map(|part| group_hash(&part));
        Self {
            name: u64::from(name[0]) << 32 | u64::from(name[1]),
            at,
            lasts: fault.lasts.as_ref().map_or(Dist::default(), |lasts| *lasts.get_ref()),
            every: fault.every.as_ref().map(|every| *every.get_ref()),
            times: fault.times.max(1),
            until: fault.until.as_ref().map(|until| *until.get_ref()),
        }
    }

    /// When it first comes.
    pub(crate) const fn at(&self) -> Span {
        self.at
    }

    /// When it is over for good.
    pub(crate) fn over(&self) -> Span {
        if let Some(until) = self.until {
            return until;
        }
        let every = self.every.map_or(0, |every| every.mean().as_nanos());
        let last = every.saturating_mul(u64::from(self.times - 1));
        let end = self.at.as_nanos().saturating_add(last);
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
            lasts: lasts.parse().unwrap(),
            every: every.map(|every| every.parse().unwrap()),
            times,
            until: until.map(Span::from_secs),
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
}
