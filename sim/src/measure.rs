//! What a run is measured by: counts, series and moments, kept as it goes.

mod waits;

use std::collections::VecDeque;
use std::ops::Range;

use steadfast::Time;

use crate::expect::Measured;
use crate::plan::{Group, Plan};
use crate::tally::{Bound, CallFacts};
use crate::units::{Span, seconds};

pub(crate) use waits::Waits;

/// Columns of a timeline.
const COLUMNS: u64 = 60;
/// What one column may stand for.
const COLUMN_SPANS: [u64; 9] = [1, 2, 5, 10, 15, 30, 60, 120, 300];
const SECOND: u64 = 1_000_000_000;

/// One column of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Column {
    /// Peers up at its end.
    pub(crate) up: u32,
    /// Dials begun in it.
    pub(crate) dials: u64,
    /// Most breakers open, and half-open, at once.
    pub(crate) open: u32,
    pub(crate) half_open: u32,
}

/// What the detectors of some peers said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) suspicions: u64,
    pub(crate) cleared: u64,
    pub(crate) suspected_ns: u64,
    pub(crate) false_losses: u64,
    pub(crate) shortest_silence_ns: Option<u64>,
}

impl Watch {
    pub(crate) fn add(&mut self, other: &Self) {
        self.suspicions += other.suspicions;
        self.cleared += other.cleared;
        self.suspected_ns += other.suspected_ns;
        self.false_losses += other.false_losses;
        self.shortest_silence_ns =
            self.shortest_silence_ns.into_iter().chain(other.shortest_silence_ns).min();
    }

    pub(crate) fn suspected(&mut self, silence_ns: u64) {
        self.suspicions += 1;
        let shortest = self.shortest_silence_ns.map_or(silence_ns, |known| known.min(silence_ns));
        self.shortest_silence_ns = Some(shortest);
    }
}

/// The measures of a run in progress. Nothing counts before [`begin`](Self::begin).
#[derive(Debug)]
pub(crate) struct Measures {
    begun: bool,
    start: Time,
    heal: Time,
    column_ns: u64,
    column: Column,
    columns: Vec<Column>,
    peers: u32,
    up: u32,
    open: u32,
    half_open: u32,
    /// Dials of the last second.
    recent: VecDeque<Time>,
    peak_dials: u64,
    /// Dials in flight over all managers now, and the most there were.
    in_flight: u64,
    most_in_flight: u64,
    dials: u64,
    /// Those before the heal.
    outage_dials: u64,
    /// By group.
    group_dials: Vec<u64>,
    pub(crate) refused: u64,
    pub(crate) server_wasted: u64,
    pub(crate) given_up: u64,
    connects: u64,
    resumed: u64,
    losses: u64,
    /// Most peers down at once.
    most_down: u32,
    /// Connections that were told to go elsewhere.
    pub(crate) forced_moves: u64,
    /// From when a connection led nowhere until it was dropped for its silence.
    pub(crate) detections: Waits,
    /// From when a host was back until its peer was up.
    pub(crate) returns: Waits,
    /// From when our own host could reach anybody again until a peer was up.
    pub(crate) reconnects: Waits,
    /// Dials begun while it could not, or should not.
    pub(crate) offline_dials: u64,
    pub(crate) breaker_opens: u64,
    pub(crate) healthy_opens: u64,
    pub(crate) half_open_dials: u64,
    last_closed: Option<Time>,
    first_lost: Option<Time>,
    full_since: Option<Time>,
    /// When each peer came back last; `MAX` while a lost one is down, `ZERO` if it never was lost.
    back_at: Vec<Time>,
    lost: u32,
    /// Moments to look at the number of peers up, soonest first, and what was seen.
    looks: VecDeque<Time>,
    looked: Vec<(Time, u32)>,
}

impl Measures {
    /// For `peers` in so many `groups`, of which `traced` follow a recording and do not count.
    pub(crate) fn new(peers: u32, groups: usize, traced: u32) -> Self {
        Self {
            begun: false,
            start: Time::ZERO,
            heal: Time::ZERO,
            column_ns: SECOND,
            column: Column::default(),
            columns: Vec::new(),
            peers: peers.saturating_sub(traced),
            up: 0,
            open: 0,
            half_open: 0,
            recent: VecDeque::new(),
            peak_dials: 0,
            in_flight: 0,
            most_in_flight: 0,
            dials: 0,
            outage_dials: 0,
            group_dials: vec![0; groups],
            refused: 0,
            server_wasted: 0,
            given_up: 0,
            connects: 0,
            resumed: 0,
            losses: 0,
            most_down: 0,
            forced_moves: 0,
            detections: Waits::default(),
            returns: Waits::default(),
            reconnects: Waits::default(),
            offline_dials: 0,
            breaker_opens: 0,
            healthy_opens: 0,
            half_open_dials: 0,
            last_closed: None,
            first_lost: None,
            full_since: None,
            back_at: vec![Time::ZERO; usize::try_from(peers).unwrap_or(0)],
            lost: 0,
            looks: VecDeque::new(),
            looked: Vec::new(),
        }
    }

    /// The warm-up is over: from here on everything counts.
    ///
    /// `looks` are moments after the heal at which the share of peers up is wanted.
    pub(crate) fn begin(&mut self, now: Time, heal: Span, duration: Span, looks: &[Span]) {
        let seconds = duration.as_nanos().div_ceil(SECOND);
        let fits = |span: &&u64| seconds.div_ceil(**span) <= COLUMNS;
        let column = COLUMN_SPANS.iter().find(fits).copied();
        self.column_ns = column.unwrap_or(seconds.div_ceil(COLUMNS)) * SECOND;
        self.begun = true;
        self.start = now;
        self.heal = now.plus_nanos(heal.as_nanos());
        let mut looks: Vec<_> =
            looks.iter().map(|look| self.heal.plus_nanos(look.as_nanos())).collect();
        looks.sort_unstable();
        looks.dedup();
        self.looks = looks.into();
        // What the warm-up counted does not count.
        (self.refused, self.server_wasted, self.given_up) = (0, 0, 0);
        (self.connects, self.resumed) = (0, 0);
        (self.breaker_opens, self.half_open_dials) = (0, 0);
        self.most_in_flight = self.in_flight;
        self.last_closed = None;
        self.full_since = (self.up == self.peers).then_some(now);
    }

    /// When it began.
    pub(crate) const fn start(&self) -> Time {
        self.start
    }

    /// Everything before `now` has been told.
    pub(crate) fn advance(&mut self, now: Time) {
        if !self.begun {
            return;
        }
        while let Some(look) = self.looks.front().copied().filter(|look| *look < now) {
            self.looks.pop_front();
            self.looked.push((look, self.up));
        }
        let column_end = |columns: usize| {
            let done = u64::try_from(columns).unwrap_or(u64::MAX).saturating_add(1);
            self.start.plus_nanos(self.column_ns.saturating_mul(done))
        };
        let mut end = column_end(self.columns.len());
        while end <= now {
            self.columns.push(Column { up: self.up, ..self.column });
            self.column =
                Column { open: self.open, half_open: self.half_open, ..Column::default() };
            end = end.plus_nanos(self.column_ns);
        }
    }

    pub(crate) fn dialed(&mut self, group: usize, now: Time) {
        if !self.begun {
            return;
        }
        self.dials += 1;
        self.outage_dials += u64::from(now < self.heal);
        if let Some(dials) = self.group_dials.get_mut(group) {
            *dials += 1;
        }
        self.column.dials += 1;
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|first| first.plus_nanos(SECOND) <= now) {
            self.recent.pop_front();
        }
        self.peak_dials = self.peak_dials.max(u64::try_from(self.recent.len()).unwrap_or(0));
    }

    /// A manager that had `before` dials in flight has `after`.
    pub(crate) fn in_flight(&mut self, before: u32, after: u32) {
        self.in_flight = self.in_flight.saturating_add(after.into()).saturating_sub(before.into());
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
    }

    pub(crate) fn connected(&mut self, resumed: bool) {
        self.connects += 1;
        self.resumed += u64::from(resumed);
    }

    pub(crate) fn came_up(&mut self, peer: usize, now: Time) {
        self.up += 1;
        if self.up == self.peers && self.begun {
            self.full_since = Some(now);
        }
        if let Some(back_at) = self.back_at.get_mut(peer).filter(|at| **at != Time::ZERO) {
            *back_at = now;
        }
    }

    pub(crate) fn went_down(&mut self, peer: usize, now: Time) {
        self.up -= 1;
        if !self.begun {
            return;
        }
        self.losses += 1;
        self.most_down = self.most_down.max(self.peers.saturating_sub(self.up));
        self.full_since = None;
        self.first_lost.get_or_insert(now);
        if let Some(back_at) = self.back_at.get_mut(peer) {
            self.lost += u32::from(*back_at == Time::ZERO);
            *back_at = Time::MAX;
        }
    }

    /// How many breakers are now open, and half-open.
    pub(crate) fn breakers(&mut self, open: i32, half_open: i32, now: Time) {
        self.open = self.open.saturating_add_signed(open);
        self.half_open = self.half_open.saturating_add_signed(half_open);
        self.column.open = self.column.open.max(self.open);
        self.column.half_open = self.column.half_open.max(self.half_open);
        self.breaker_opens += u64::from(open > 0);
        if open + half_open < 0 {
            self.last_closed = Some(now);
        }
    }

    /// A breaker that is half-open at the end counts as closed from then on: nobody waits for it.
    pub(crate) fn idle_since(&mut self, at: Time) {
        self.half_open = self.half_open.saturating_sub(1);
        self.last_closed = self.last_closed.max(Some(at));
    }

    /// When a peer that was lost came back last; `ZERO` if it never was lost.
    pub(crate) fn back_at(&self, peer: usize) -> Time {
        self.back_at.get(peer).copied().unwrap_or(Time::ZERO)
    }

    pub(crate) const fn is_up(&self) -> (u32, u32) {
        (self.up, self.peers)
    }

    /// The facts of the finished run.
    pub(crate) fn facts(
        mut self,
        now: Time,
        ideal_s: Option<f64>,
        mut groups: Vec<GroupFacts>,
    ) -> Facts {
        self.advance(now.plus_nanos(1));
        for (group, dials) in groups.iter_mut().zip(&self.group_dials) {
            group.dials = *dials;
        }
        let since_heal = |at: Time| seconds(at.as_nanos().saturating_sub(self.heal.as_nanos()));
        let healed = self.heal <= now;
        let open_after_heal = match (self.open + self.half_open, self.last_closed) {
            _ if !healed => Measured::Unknown,
            (0, closed) => Measured::Value(closed.map_or(0.0, since_heal)),
            _ => Measured::AtLeast(since_heal(now)),
        };
        Facts {
            peers: self.peers,
            lost: self.lost,
            up: self.up,
            lost_at_s: self.first_lost.map(|at| seconds(at.as_nanos() - self.start.as_nanos())),
            healed_at_s: healed.then(|| seconds(self.heal.as_nanos() - self.start.as_nanos())),
            since_heal_s: since_heal(now),
            full_s: self.full_since.map(since_heal),
            heal: self.heal,
            ideal_s,
            dials: self.dials,
            outage_dials: self.outage_dials,
            peak_dials: self.peak_dials,
            refused: self.refused,
            server_wasted: self.server_wasted,
            given_up: self.given_up,
            connects: self.connects,
            resumed: self.resumed,
            losses: self.losses,
            most_down: self.most_down,
            forced_moves: self.forced_moves,
            instances: Vec::new(),
            detections: self.detections,
            returns: self.returns,
            reconnects: self.reconnects,
            offline_dials: self.offline_dials,
            breaker_opens: self.breaker_opens,
            healthy_opens: self.healthy_opens,
            half_open_dials: self.half_open_dials,
            most_in_flight: self.most_in_flight,
            open_after_heal,
            looked: self.looked.iter().map(|(at, up)| (since_heal(*at), *up)).collect(),
            back_at: self.back_at,
            groups,
            column_s: self.column_ns / SECOND,
            columns: self.columns,
            calls: None,
        }
    }
}

/// What a finished run found about a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupFacts {
    name: String,
    /// Its first peer's index.
    first: usize,
    count: u32,
    dials: u64,
    pub(crate) watch: Watch,
    /// By when after the heal its peers must be up, where something promises it.
    pub(crate) bound: Option<Bound>,
}

impl GroupFacts {
    pub(crate) fn of(group: &Group, plan: &Plan) -> Self {
        let Group { name, first, count, .. } = group;
        Self {
            name: name.clone(),
            first: *first,
            count: *count,
            dials: 0,
            watch: Watch::default(),
            bound: plan.liveness(group),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What a finished run found.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) peers: u32,
    pub(crate) lost: u32,
    pub(crate) up: u32,
    pub(crate) lost_at_s: Option<f64>,
    /// When the last fault was over; `None` if the end came first, and nothing is known of after.
    pub(crate) healed_at_s: Option<f64>,
    pub(crate) since_heal_s: f64,
    full_s: Option<f64>,
    heal: Time,
    /// When each peer was back for good; `MAX` if it is not, `ZERO` if it never was lost.
    back_at: Vec<Time>,
    pub(crate) ideal_s: Option<f64>,
    pub(crate) dials: u64,
    outage_dials: u64,
    pub(crate) peak_dials: u64,
    pub(crate) refused: u64,
    pub(crate) server_wasted: u64,
    pub(crate) given_up: u64,
    connects: u64,
    pub(crate) resumed: u64,
    losses: u64,
    pub(crate) most_down: u32,
    pub(crate) forced_moves: u64,
    /// The servers with instances, and how many connections each of those has at the end.
    pub(crate) instances: Vec<(String, Vec<u32>)>,
    pub(crate) detections: Waits,
    pub(crate) returns: Waits,
    pub(crate) reconnects: Waits,
    pub(crate) offline_dials: u64,
    pub(crate) breaker_opens: u64,
    pub(crate) healthy_opens: u64,
    pub(crate) half_open_dials: u64,
    pub(crate) most_in_flight: u64,
    open_after_heal: Measured,
    looked: Vec<(f64, u32)>,
    pub(crate) groups: Vec<GroupFacts>,
    pub(crate) column_s: u64,
    pub(crate) columns: Vec<Column>,
    /// What became of calls, if there were workloads.
    pub(crate) calls: Option<CallFacts>,
}

impl Facts {
    pub(crate) fn all_up(&self) -> Measured {
        match self.full_s {
            _ if self.lost == 0 || self.healed_at_s.is_none() => Measured::Unknown,
            Some(full) => Measured::Value(full),
            None => Measured::AtLeast(self.since_heal_s),
        }
    }

    /// The peers of a group, or all, by their indices; those that follow a recording never were lost.
    fn places(&self, group: Option<&str>) -> Range<usize> {
        match group.and_then(|group| self.groups.iter().find(|known| known.name == group)) {
            Some(group) => group.first..group.first + group.count as usize,
            None => 0..self.back_at.len(),
        }
    }

    fn back_at(&self, group: Option<&str>) -> impl Iterator<Item = Time> {
        let back = self.back_at.get(self.places(group)).unwrap_or_default();
        back.iter().copied().filter(|at| *at != Time::ZERO)
    }

    /// The peer that was back last, or never; the first of them. `None` if none was lost.
    pub(crate) fn last_back(&self) -> Option<usize> {
        let lost = self.back_at.iter().enumerate().filter(|(_, at)| **at != Time::ZERO);
        lost.max_by_key(|(index, at)| (**at, std::cmp::Reverse(*index))).map(|(index, _)| index)
    }

    /// When that share of the lost peers was back.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list of at most 2^32"
    )]
    pub(crate) fn quantile(&self, share: f64, group: Option<&str>) -> Measured {
        let mut back: Vec<Time> = self.back_at(group).collect();
        let place = ((back.len() as f64 * share) as usize).min(back.len().saturating_sub(1));
        if self.healed_at_s.is_none() || back.is_empty() {
            return Measured::Unknown;
        }
        match *back.select_nth_unstable(place).1 {
            Time::MAX => Measured::AtLeast(self.since_heal_s),
            at => Measured::Value(seconds(at.as_nanos().saturating_sub(self.heal.as_nanos()))),
        }
    }

    /// How much of its bound the group took, or the slowest of all groups that have one.
    pub(crate) fn bound_used(&self, group: Option<&str>) -> Measured {
        let asked =
            self.groups.iter().filter(|known| group.is_none_or(|group| known.name == group));
        let shares = asked.filter_map(|known| {
            let bound = known.bound.as_ref()?.total().as_secs_f64();
            Some(match self.quantile(1.0, Some(&known.name)) {
                Measured::Value(all_up) => Measured::Value(all_up / bound),
                Measured::AtLeast(least) => Measured::AtLeast(least / bound),
                Measured::Unknown => return None,
            })
        });
        let at_least = |measured: &Measured| match measured {
            Measured::Value(share) | Measured::AtLeast(share) => *share,
            Measured::Unknown => 0.0,
        };
        shares
            .max_by(|one, other| at_least(one).total_cmp(&at_least(other)))
            .unwrap_or(Measured::Unknown)
    }

    pub(crate) fn efficiency(&self) -> Option<f64> {
        match (self.all_up(), self.ideal_s) {
            (Measured::Value(all_up), Some(ideal)) if all_up > 0.0 => Some(ideal / all_up),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn per_peer(&self, count: u64) -> f64 {
        count as f64 / f64::from(self.peers.max(1))
    }

    pub(crate) fn dials_per_peer(&self) -> f64 {
        self.per_peer(self.dials)
    }

    pub(crate) fn dials_per_peer_of(&self, group: Option<&str>) -> f64 {
        match group.and_then(|group| self.groups.iter().find(|known| known.name == group)) {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            Some(group) => group.dials as f64 / f64::from(group.count.max(1)),
            None => self.dials_per_peer(),
        }
    }

    pub(crate) fn outage_dials_per_peer(&self) -> f64 {
        self.per_peer(self.outage_dials)
    }

    pub(crate) fn losses_per_peer(&self) -> f64 {
        self.per_peer(self.losses)
    }

    pub(crate) fn connects_per_peer(&self) -> f64 {
        self.per_peer(self.connects)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn dials_per_loss(&self) -> Option<f64> {
        (self.losses > 0).then(|| self.dials as f64 / self.losses as f64)
    }

    pub(crate) fn most_down_share(&self) -> f64 {
        f64::from(self.most_down) / f64::from(self.peers.max(1))
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn dials_per_move(&self) -> Option<f64> {
        (self.forced_moves > 0).then(|| self.dials as f64 / self.forced_moves as f64)
    }

    /// The most connections of one instance over those of the mean one, of a server or of whichever
    /// is worst.
    pub(crate) fn skew(&self, server: Option<&str>) -> Option<f64> {
        let of =
            self.instances.iter().filter(|(name, _)| server.is_none_or(|wanted| wanted == name));
        of.filter_map(|(_, loads)| skew(loads)).max_by(f64::total_cmp)
    }

    /// Lost peers that were up at the end.
    pub(crate) fn recovered(&self) -> u32 {
        let back = self.back_at(None).filter(|at| *at != Time::MAX).count();
        u32::try_from(back).unwrap_or(u32::MAX)
    }

    /// The peers of a group, or of all that do not follow a recording, that are up.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn recovered_share(&self, group: Option<&str>) -> f64 {
        if group.is_none() {
            return f64::from(self.up) / f64::from(self.peers.max(1));
        }
        let down = self.back_at(group).filter(|at| *at == Time::MAX).count() as f64;
        1.0 - down / self.places(group).len().max(1) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn resumed_share(&self) -> Option<f64> {
        (self.connects > 0).then(|| self.resumed as f64 / self.connects as f64)
    }

    pub(crate) const fn open_after_heal(&self) -> Measured {
        self.open_after_heal
    }

    pub(crate) fn up_share(&self, at: Option<Span>) -> Option<f64> {
        let at = at?.as_secs_f64();
        let look = self.looked.iter().find(|(looked_at, _)| (looked_at - at).abs() < 1e-9);
        look.map(|(_, up)| f64::from(*up) / f64::from(self.peers.max(1)))
    }

    /// What the detectors of a group said, or all of them together.
    pub(crate) fn watch(&self, group: Option<&str>) -> Watch {
        let mut sum = Watch::default();
        for known in &self.groups {
            if group.is_none_or(|group| group == known.name) {
                sum.add(&known.watch);
            }
        }
        sum
    }
}

/// The largest over the mean; `None` if all are nothing.
#[expect(clippy::cast_precision_loss, reason = "at most 65,535 instances")]
pub(crate) fn skew(loads: &[u32]) -> Option<f64> {
    let sum: f64 = loads.iter().copied().map(f64::from).sum();
    let most = f64::from(loads.iter().copied().max()?);
    (sum > 0.0).then(|| most * loads.len() as f64 / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_any_second_not_of_a_clock_second() {
        let mut measures = Measures::new(1, 1, 0);
        measures.begin(Time::ZERO, Span::ZERO, Span::from_secs(10), &[]);
        for ms in [900, 950, 1_050, 1_100, 1_950] {
            measures.dialed(0, Time::from_millis(ms));
        }
        assert_eq!(measures.facts(Time::from_secs(10), None, Vec::new()).peak_dials, 4);
    }

    #[test]
    fn a_peer_is_back_when_it_came_back_last() {
        let mut measures = Measures::new(2, 1, 0);
        measures.came_up(0, Time::ZERO);
        measures.came_up(1, Time::ZERO);
        let look = [Span::from_secs(1)];
        measures.begin(Time::ZERO, Span::from_secs(5), Span::from_secs(60), &look);
        measures.went_down(0, Time::from_secs(1));
        measures.came_up(0, Time::from_secs(4));
        measures.went_down(0, Time::from_secs(6));
        measures.advance(Time::from_secs(7));
        measures.came_up(0, Time::from_secs(8));
        let facts = measures.facts(Time::from_secs(60), None, Vec::new());
        assert_eq!(facts.all_up(), Measured::Value(3.0));
        assert_eq!(facts.quantile(0.5, None), Measured::Value(3.0));
        assert_eq!((facts.lost, facts.lost_at_s), (1, Some(1.0)));
        assert_eq!(facts.up_share(Some(look[0])), Some(0.5));
        assert_eq!(facts.columns.len(), 60);
    }
}
