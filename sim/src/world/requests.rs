//! Requests at their servers: queued, slowed by load, failed, answered.

use std::collections::VecDeque;

use steadfast::{AttemptId, CallFailure, Time};

use super::{Happening, World};
use crate::dist::{Dist, unit};
use crate::draws::Purpose;
use crate::plan::RequestPlan;
use crate::queue::Rank;
use crate::scenario::{Abandoned, Overflow};
use crate::units::{Share, Span};

/// A request on its way or at its server. It goes on when its client has given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) attempt: AttemptId,
    /// The client, and the number of its draws for this attempt.
    pub(super) who: u64,
    pub(super) n: u64,
    manager: u32,
    link: u32,
    /// The cache, by its server, that its answer would fill, and the key.
    pub(super) key: Option<(u32, u32)>,
}

/// How far the number of an attempt is from that of its call.
const CALL_SHIFT: u32 = 16;

impl Ask {
    /// Attempt `attempts` of call `number` of the client `who`.
    pub(super) fn new(
        manager: usize,
        attempt: AttemptId,
        (who, number, attempts): (u64, u32, u32),
        link: usize,
    ) -> Self {
        let n = u64::from(number) << CALL_SHIFT | u64::from(attempts);
        let small = |index| u32::try_from(index).unwrap_or(u32::MAX);
        Self { attempt, who, n, manager: small(manager), link: small(link), key: None }
    }

    pub(super) const fn manager(&self) -> usize {
        self.manager as usize
    }

    pub(super) const fn link(&self) -> usize {
        self.link as usize
    }
}

/// A server's requests, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Desk {
    /// Those in flight, by place; what is behind the client's back is found there too.
    inside: Vec<Option<Ask>>,
    free: Vec<usize>,
    in_flight: u64,
    /// Who waits for the desk, and who is at it.
    waiting: VecDeque<usize>,
    at_desk: Option<usize>,
    /// Raised whenever it is cleared, so that what was under way is void.
    epoch: u32,
    pub(super) failing: Vec<Share>,
    pub(super) sluggish: Vec<f64>,
    pub(super) capacity: Vec<Span>,
    /// How many faults make it stand still.
    pub(super) stalled: u32,
    /// Since when something is wrong with it.
    pub(super) bad_since: Option<Time>,
    /// Until when each key is in the cache.
    cached: Vec<Time>,
}

impl Desk {
    pub(super) fn new(plan: &RequestPlan) -> Self {
        let keys = plan.cache.map_or(0, |cache| cache.keys as usize);
        Self {
            inside: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            waiting: VecDeque::new(),
            at_desk: None,
            epoch: 0,
            failing: Vec::new(),
            sluggish: Vec::new(),
            capacity: Vec::new(),
            stalled: 0,
            bad_since: None,
            cached: vec![Time::MAX; keys],
        }
    }

    /// How many wait, and whether somebody is at the desk.
    pub(super) fn load(&self) -> (usize, bool) {
        (self.waiting.len(), self.at_desk.is_some())
    }

    fn enter(&mut self, ask: Ask) -> usize {
        self.in_flight += 1;
        match self.free.pop() {
            Some(place) => {
                self.inside[place] = Some(ask);
                place
            }
            None => {
                self.inside.push(Some(ask));
                self.inside.len() - 1
            }
        }
    }

    fn leave(&mut self, place: usize) -> Option<Ask> {
        let ask = self.inside.get_mut(place)?.take()?;
        self.free.push(place);
        self.in_flight -= 1;
        Some(ask)
    }

    /// Everything in it is void.
    fn clear(&mut self) -> Vec<Ask> {
        self.epoch += 1;
        (self.waiting, self.at_desk, self.in_flight) = (VecDeque::new(), None, 0);
        self.free.clear();
        std::mem::take(&mut self.inside).into_iter().flatten().collect()
    }
}

impl World<'_> {
    /// A request reaches a server.
    pub(super) fn asked(&mut self, server: usize, ask: Ask) {
        let plan = &self.plan.requests[server];
        if self.servers[server].down > 0 {
            return self.answer(ask, Some(CallFailure::Unavailable));
        }
        if self.servers[server].silent > 0 {
            return;
        }
        self.tally.request(server, self.now);
        if let Some(cache) = plan.cache
            && ask.key.is_none()
        {
            let random = self.draws.draw(Purpose::CallKey, ask.who, ask.n >> CALL_SHIFT);
            let key = steadfast::draw::uniform(random, 0, u64::from(cache.keys) - 1);
            let key = u32::try_from(key).unwrap_or(0);
            let is_warm = self.desks[server].cached[key as usize] > self.now;
            self.tally.hits += u64::from(is_warm);
            self.tally.misses += u64::from(!is_warm);
            if !is_warm {
                let front = u32::try_from(server).unwrap_or(u32::MAX);
                let ask = Ask { key: Some((front, key)), ..ask };
                return self.asked(cache.behind, ask);
            }
        }
        let desk = &mut self.desks[server];
        if plan.turn.is_none() {
            let place = desk.enter(ask);
            return self.work(server, place);
        }
        if desk.at_desk.is_none() && desk.stalled == 0 {
            let place = desk.enter(ask);
            return self.sit(server, place);
        }
        if desk.waiting.len() < plan.queue {
            let place = desk.enter(ask);
            desk.waiting.push_back(place);
        } else {
            self.tally.refused += 1;
            if plan.overflow == Overflow::Refuse {
                self.answer(ask, Some(CallFailure::Unavailable));
            }
        }
    }

    /// A request comes to the desk.
    fn sit(&mut self, server: usize, place: usize) {
        let plan = &self.plan.requests[server];
        let desk = &mut self.desks[server];
        desk.at_desk = Some(place);
        let Some(ask) = desk.inside[place] else { return };
        let turn = desk.capacity.last().copied().map(Dist::Fixed).or(plan.turn);
        let generator = &mut self.draws.generator(Purpose::RequestTurn, ask.who, ask.n);
        let turn = turn.unwrap_or_default().sample(generator);
        let at = self.now.plus_nanos(slowed(turn, &desk.sluggish));
        let epoch = desk.epoch;
        self.queue.push(at, Rank::World, Happening::Turned { server, epoch });
    }

    /// The desk is done with a request.
    pub(super) fn turned(&mut self, server: usize, epoch: u32) {
        let desk = &mut self.desks[server];
        if desk.epoch != epoch {
            return;
        }
        let Some(place) = desk.at_desk.take() else { return };
        self.work(server, place);
        self.next_request(server);
    }

    /// The desk takes the next request, if it is free.
    pub(super) fn next_request(&mut self, server: usize) {
        let desk = &self.desks[server];
        if desk.stalled > 0 || desk.at_desk.is_some() {
            return;
        }
        while let Some(next) = self.desks[server].waiting.pop_front() {
            let Some(ask) = self.desks[server].inside[next] else { continue };
            let gone = !self.drivers[ask.manager()].is_out(ask.attempt);
            if gone && self.plan.requests[server].abandoned == Abandoned::Skip {
                self.desks[server].leave(next);
                continue;
            }
            return self.sit(server, next);
        }
    }

    /// What a request takes without occupying the desk.
    fn work(&mut self, server: usize, place: usize) {
        let plan = &self.plan.requests[server];
        let desk = &self.desks[server];
        let Some(ask) = desk.inside[place] else { return };
        let time = match plan.time {
            Dist::Fixed(time) => time,
            time => time.sample(&mut self.draws.generator(Purpose::RequestTime, ask.who, ask.n)),
        };
        let time = time.as_nanos();
        let load = plan.per_in_flight.as_nanos().saturating_mul(desk.in_flight);
        let time = Span::from_nanos(time.saturating_add(load));
        let epoch = desk.epoch;
        match slowed(time, &desk.sluggish) {
            0 => self.worked(server, place, epoch),
            nanos => {
                let at = self.now.plus_nanos(nanos);
                self.queue.push(at, Rank::World, Happening::Worked { server, place, epoch });
            }
        }
    }

    /// A request is done.
    pub(super) fn worked(&mut self, server: usize, place: usize, epoch: u32) {
        let desk = &mut self.desks[server];
        if desk.epoch != epoch {
            return;
        }
        let Some(ask) = desk.leave(place) else { return };
        let plan = &self.plan.requests[server];
        let well =
            desk.failing.iter().fold(1.0 - plan.fails, |well, share| well * (1.0 - share.as_f64()));
        let fails =
            well < 1.0 && unit(self.draws.draw(Purpose::RequestFails, ask.who, ask.n)) >= well;
        self.answer(ask, fails.then_some(CallFailure::Error));
    }

    /// A server answers.
    fn answer(&mut self, ask: Ask, failure: Option<CallFailure>) {
        if self.is_lost(ask.link(), Purpose::RequestLostBack, ask.who, ask.n) {
            return;
        }
        let latency = self.latency(ask.link(), Purpose::RequestBack, ask.who, ask.n);
        let at = self.now.plus_nanos(latency.as_nanos());
        self.queue.push(at, Rank::World, Happening::Reply { ask, failure });
    }

    /// The server crashes: whoever it worked for hears of it.
    pub(super) fn drop_requests(&mut self, server: usize) {
        for ask in self.desks[server].clear() {
            self.answer(ask, Some(CallFailure::Disconnected));
        }
    }

    /// The server hangs: whoever it worked for never hears of it.
    pub(super) fn forget_requests(&mut self, server: usize) {
        self.desks[server].clear();
    }

    /// A caller puts the answer into the cache.
    pub(super) fn fill(&mut self, server: usize, key: u32) {
        let ttl = self.plan.requests[server].cache.and_then(|cache| cache.ttl);
        let until = ttl.map_or(Time::MAX, |ttl| self.now.plus_nanos(ttl.as_nanos()));
        if let Some(cached) = self.desks[server].cached.get_mut(key as usize) {
            *cached = until;
        }
    }

    /// The cache is emptied.
    pub(super) fn cool(&mut self, server: usize) {
        self.desks[server].cached.fill(Time::ZERO);
    }

    /// Notes since when something is wrong with a server.
    pub(super) fn note_bad(&mut self, server: usize) {
        let Some(desk) = self.desks.get_mut(server) else { return };
        let gone = self.servers[server].down > 0 || self.servers[server].silent > 0;
        let bad = gone || desk.stalled > 0 || !desk.failing.is_empty() || !desk.sluggish.is_empty();
        desk.bad_since = match desk.bad_since {
            Some(since) if bad => Some(since),
            _ => bad.then_some(self.now),
        };
    }
}

/// A span, so many times as long.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a span in nanoseconds; the cast saturates"
)]
fn slowed(span: Span, times: &[f64]) -> u64 {
    match times.last() {
        Some(times) => (span.as_nanos() as f64 * times) as u64,
        None => span.as_nanos(),
    }
}
