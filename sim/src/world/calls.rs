//! Calls, from the side of those who make them.

use steadfast::{
    Action, AttemptId, CallFailure, CallId, ConnId, Event, GiveUpReason, RejectReason, Target, Time,
};

use super::requests::Ask;
use super::{Happening, Step, World};
use crate::dist::unit;
use crate::draws::Purpose;
use crate::driver::Process;
use crate::outer::Purse;
use crate::plan::{Load, Plan, Way, Workload};
use crate::queue::Rank;
use crate::scenario::{Balance, Spacing};
use crate::tally::{Begun, Side};
use crate::units::Share;

/// After how long a bad server should be known as one.
const GRACE_NS: u64 = 2_000_000_000;

/// Who is refused at once and does not think still takes that long to ask again.
const SHORTEST_PAUSE_NS: u64 = 1_000_000;

/// A workload in progress.
#[derive(Debug)]
pub(super) struct Flow {
    clients: Vec<Client>,
    /// In the order in which they were made.
    requests: Vec<Request>,
    /// Rates that hold for now, the last of them.
    pub(super) surges: Vec<f64>,
}

#[derive(Debug)]
struct Client {
    calls: u32,
    purse: Option<Purse>,
}

/// A request: its workload, and its number there.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId {
    workload: usize,
    number: usize,
}

/// A request of a workload: one call of the manager, or several with a retry layer around it.
#[derive(Clone, Copy, Debug)]
struct Request {
    client: u32,
    /// The number of the client's call.
    number: u32,
    way: usize,
    begun: Begun,
    attempts: u32,
    tries: u32,
    /// What the layer paid for the last of them.
    paid: f64,
    /// The last attempt.
    attempt: Option<AttemptId>,
    is_over: bool,
}

impl Flow {
    pub(super) fn new(workload: &Workload) -> Self {
        let purse = || workload.outer.map(|outer| Purse::new(outer.budget));
        let clients = (0..workload.clients).map(|_| Client { calls: 0, purse: purse() });
        Self { clients: clients.collect(), requests: Vec::new(), surges: Vec::new() }
    }
}

impl World<'_> {
    /// The breakers that calls pass.
    pub(super) fn add_call_breakers(&mut self) -> Step {
        let plan = self.plan;
        for workload in &plan.workloads {
            for client in 0..workload.clients {
                let manager = plan.manager_of(workload, client);
                for way in 0..workload.ways.len() {
                    let breaker = workload.breaker_id(client, way);
                    if self.breakers.add_of_calls(manager, breaker) {
                        let profile = workload.breaker_profile;
                        self.tell(manager, Event::AddBreaker { breaker, profile })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Every workload begins.
    pub(super) fn schedule_calls(&mut self) {
        let plan = self.plan;
        for (index, workload) in plan.workloads.iter().enumerate() {
            match &workload.load {
                Load::Open { .. } => {
                    for client in 0..workload.clients {
                        let gap = match workload.first {
                            Some(first) => {
                                let name = workload.client_name(client);
                                let generator = &mut self.draws.generator(Purpose::Call, name, 0);
                                Some(first.sample(generator).as_nanos())
                            }
                            None => self.gap(index, client),
                        };
                        self.schedule_call(index, client, gap);
                    }
                }
                Load::Closed { callers, .. } => {
                    for caller in 0..*callers {
                        let client = caller % workload.clients;
                        let pause = self.pause_of(index, client, u64::from(caller) << 32);
                        self.schedule_call(index, client, Some(pause));
                    }
                }
                Load::Recorded(arrivals) => {
                    for (place, at) in (0..workload.clients).cycle().zip(arrivals) {
                        let nanos = at.saturating_mul(1_000_000);
                        self.schedule_call(index, place, Some(nanos));
                    }
                }
            }
        }
    }

    fn schedule_call(&mut self, workload: usize, client: u32, after: Option<u64>) {
        let Some(after) = after else { return };
        let at = self.now.plus_nanos(after);
        let until =
            self.measures.start().plus_nanos(self.plan.workloads[workload].until.as_nanos());
        if at < until {
            self.queue.push(at, Rank::World, Happening::Call { workload, client });
        }
    }

    /// The time to a client's next call, at the rate that holds now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a span in nanoseconds; the cast saturates"
    )]
    fn gap(&self, index: usize, client: u32) -> Option<u64> {
        let workload = &self.plan.workloads[index];
        let Load::Open { per_second, spacing } = &workload.load else { return None };
        let flow = &self.flows[index];
        let rate = flow.surges.last().copied().unwrap_or(*per_second);
        if rate <= 0.0 {
            return None;
        }
        let mean = f64::from(workload.clients) / rate * 1e9;
        let far = match spacing {
            Spacing::Even => 1.0,
            Spacing::Poisson => {
                let number = u64::from(flow.clients[client as usize].calls) + 1;
                let random = self.draws.draw(Purpose::Call, workload.client_name(client), number);
                -libm::log(1.0 - unit(random))
            }
        };
        Some((mean * far) as u64)
    }

    fn pause_of(&self, index: usize, client: u32, number: u64) -> u64 {
        let workload = &self.plan.workloads[index];
        let Load::Closed { think, .. } = &workload.load else { return 0 };
        let name = workload.client_name(client);
        let pause = think.sample(&mut self.draws.generator(Purpose::Call, name, number));
        pause.as_nanos().max(SHORTEST_PAUSE_NS)
    }

    /// A client makes a call.
    pub(super) fn call(&mut self, index: usize, client: u32) -> Step {
        let workload = &self.plan.workloads[index];
        let name = workload.client_name(client);
        let state = &mut self.flows[index].clients[client as usize];
        state.calls += 1;
        let number = state.calls;
        if let Some(purse) = &mut state.purse {
            purse.begin(self.now);
        }
        let ways = workload.ways.len() as u64;
        let way = match workload.balance {
            Balance::RoundRobin => (u64::from(client) + u64::from(number)) % ways,
            Balance::Random => {
                let random = self.draws.draw(Purpose::CallServer, name, number.into());
                steadfast::draw::uniform(random, 0, ways - 1)
            }
        };
        let way = usize::try_from(way).unwrap_or(0);
        if matches!(workload.load, Load::Open { .. }) {
            let gap = self.gap(index, client);
            self.schedule_call(index, client, gap);
        }
        let begun = Begun { at: self.now, side: self.side(workload, way) };
        self.tally.begun(begun);
        let request = Request {
            client,
            number,
            way,
            begun,
            attempts: 0,
            tries: 0,
            paid: 0.0,
            attempt: None,
            is_over: false,
        };
        let requests = &mut self.flows[index].requests;
        requests.push(request);
        let number = requests.len() - 1;
        self.try_call(RequestId { workload: index, number })
    }

    fn request(&mut self, id: RequestId) -> &mut Request {
        &mut self.flows[id.workload].requests[id.number]
    }

    /// The request that a call of the manager is for.
    fn request_of(&self, call: CallId) -> Option<RequestId> {
        let mut workloads = self.plan.workloads.iter().enumerate();
        workloads.find_map(|(workload, plan)| {
            plan.request_of(call).map(|number| RequestId { workload, number })
        })
    }

    /// On which side of a bad server a call over that way is.
    fn side(&self, workload: &Workload, way: usize) -> Side {
        let bad_since = |way: &Way| self.desks[way.server].bad_since;
        match workload.ways.get(way).and_then(bad_since) {
            Some(since) if since.plus_nanos(GRACE_NS) <= self.now => Side::Bad,
            None if workload.ways.iter().any(|way| bad_since(way).is_some()) => Side::Healthy,
            _ => Side::Neither,
        }
    }

    /// A request's next call of the manager.
    pub(super) fn try_call(&mut self, id: RequestId) -> Step {
        let Request { client, way, begun, tries, .. } = *self.request(id);
        let workload = &self.plan.workloads[id.workload];
        let manager = self.plan.manager_of(workload, client);
        let deadline = workload.deadline.map(|span| begun.at.plus_nanos(span.as_nanos()));
        let breaker = workload.breaker_id(client, way);
        let target = match workload.group {
            Some(group) => Target::Peer { peer: self.plan.groups[group].peer_id(client), breaker },
            None => Target::Breaker(breaker),
        };
        let event = Event::Call {
            call: workload.call_id(id.number, tries),
            target,
            profile: workload.profile,
            deadline,
        };
        self.tell(manager, event)
    }

    /// The manager orders an attempt.
    pub(super) fn start_attempt(
        &mut self,
        manager: usize,
        attempt: AttemptId,
        call: CallId,
        conn: Option<ConnId>,
    ) {
        let Some(id) = self.request_of(call) else { return };
        let plan: &Plan = self.plan;
        let request = self.request(id);
        request.attempts += 1;
        request.attempt = Some(attempt);
        let request = *request;
        let (number, attempts) = (request.number, request.attempts);
        self.pay(id.workload, attempts);
        let workload = &plan.workloads[id.workload];
        self.drivers[manager].start(attempt, conn);
        // Over a connection a call goes where that goes.
        let over = conn.and_then(|conn| self.drivers[manager].conn(conn)).map(|conn| conn.way());
        let Some(&Way { server, link }) = workload.ways.get(over.unwrap_or(request.way)) else {
            return;
        };
        let who = workload.client_name(request.client);
        let ask = Ask::new(manager, attempt, (who, number, attempts), link);
        self.tally.attempt(self.now, self.desks[server].bad_since.is_some());
        let latency = self.latency(link, Purpose::RequestOut, ask.who, ask.n).as_nanos();
        let at = self.now.plus_nanos(latency);
        let happening = if self.drivers[manager].offline > 0 || self.links[link].cut > 0 {
            let failure = Some(CallFailure::Disconnected);
            Happening::Reply { ask, failure }
        } else if self.is_lost(link, Purpose::RequestLostOut, ask.who, ask.n) {
            return;
        } else {
            Happening::Ask { ask, server }
        };
        self.queue.push(at, Rank::World, happening);
    }

    /// So many of a workload's callers that wait go away. Those of every other request cancel the
    /// call; the others drop the attempt that runs.
    pub(super) fn hang_up(&mut self, workload: usize, share: Share) -> Step {
        for number in 0..self.flows[workload].requests.len() {
            let id = RequestId { workload, number };
            let Request { client, tries, attempt, is_over, .. } = *self.request(id);
            let plan = &self.plan.workloads[workload];
            let random = self.draws.draw(Purpose::HangUp, plan.client_name(client), number as u64);
            if is_over || !share.hits(random) {
                continue;
            }
            let manager = self.plan.manager_of(plan, client);
            let attempt = attempt.filter(|attempt| self.drivers[manager].is_out(*attempt));
            let event = match attempt.filter(|_| number % 2 == 0) {
                Some(attempt) => Event::Dropped { attempt },
                None => Event::CancelCall { call: plan.call_id(number, tries) },
            };
            self.tell(manager, event)?;
        }
        Ok(())
    }

    /// Whether no call runs that a fault may have touched.
    pub(super) fn are_answered(&self, since: Time) -> bool {
        let requests = self.flows.iter().flat_map(|flow| &flow.requests);
        requests.rev().all(|request| request.is_over || request.begun.at >= since)
    }

    /// `overdue`: no call goes on beyond its deadline.
    pub(super) fn check_overdue(&self) -> Step {
        for (workload, flow) in self.plan.workloads.iter().zip(&self.flows) {
            let Some(deadline) = workload.deadline else { continue };
            let overdue = |request: &&Request| {
                let manager = self.plan.manager_of(workload, request.client);
                !request.is_over
                    && request.begun.at.plus_nanos(deadline.as_nanos()) < self.now
                    && self.drivers[manager].process == Process::Runs
            };
            if let Some(request) = flow.requests.iter().find(overdue) {
                let Request { client, number, .. } = request;
                let rule = format!(
                    "overdue: call {number} of client {client} of `{}` goes on after its deadline",
                    workload.name
                );
                let manager = self.plan.manager_of(workload, *client);
                return Err(self.violation(manager, rule, format_args!("the end")));
            }
        }
        Ok(())
    }

    /// A connection is gone: the driver reports every attempt that ran over it.
    pub(super) fn break_attempts(&mut self, manager: usize, conn: ConnId) {
        for attempt in self.drivers[manager].attempts_over(conn) {
            self.queue.push(self.now, Rank::World, Happening::Broken { manager, attempt });
        }
    }

    /// The driver reports an attempt whose connection is gone.
    pub(super) fn broken(&mut self, manager: usize, attempt: AttemptId) -> Step {
        let kind = CallFailure::Disconnected;
        self.tell(manager, Event::Failed { attempt, kind, retry_after: None })
    }

    /// An answer reaches the client.
    pub(super) fn replied(&mut self, ask: Ask, failure: Option<CallFailure>) -> Step {
        let (manager, attempt) = (ask.manager(), ask.attempt);
        if self.drivers[manager].offline > 0 {
            return Ok(());
        }
        if !self.drivers[manager].is_out(attempt) {
            self.tally.wasted += 1;
            return Ok(());
        }
        if let (None, Some((server, key))) = (failure, ask.key) {
            self.fill(server as usize, key);
        }
        self.tell(
            manager,
            match failure {
                None => Event::Succeeded { attempt },
                Some(kind) => Event::Failed { attempt, kind, retry_after: None },
            },
        )
    }

    /// A call of the manager ended.
    pub(super) fn call_ended(&mut self, action: &Action) {
        let (call, end) = match *action {
            Action::Done { call } => (call, End::Done),
            Action::GiveUp { call, reason, last } => (call, End::GivenUp(reason, last)),
            Action::Reject { call, reason, .. } => (call, End::Rejected(reason)),
            _ => return,
        };
        let Some(id) = self.request_of(call) else { return };
        let Request { client, begun, paid, attempts, .. } = *self.request(id);
        let plan: &Plan = self.plan;
        if end == End::Done {
            self.earn(id.workload, attempts);
        }
        let purse = self.flows[id.workload].clients[client as usize].purse.as_mut();
        if end == End::Done {
            if let Some(purse) = purse {
                purse.succeeded(paid);
            }
            self.tally.done(begun, self.now);
            return self.ended(id);
        }
        let gone = matches!(end, End::GivenUp(GiveUpReason::Cancelled | GiveUpReason::Dropped, _));
        if plan.workloads[id.workload].outer.is_some() && !gone && self.again(id, end) {
            return;
        }
        match end {
            End::Rejected(reason) => {
                let unsent = self.request(id).attempts == 0;
                self.tally.rejected(begun, reason, unsent);
            }
            End::GivenUp(reason, _) => self.tally.given_up(reason),
            End::Done => {}
        }
        self.ended(id);
    }

    /// Whether the retry layer around the manager makes another call of a request that failed.
    fn again(&mut self, id: RequestId, end: End) -> bool {
        let Request { client, number, begun, tries, .. } = *self.request(id);
        let workload = &self.plan.workloads[id.workload];
        let Some(outer) = workload.outer else { return false };
        let timeout = matches!(end, End::GivenUp(_, Some(CallFailure::Timeout)));
        let is_last = tries + 1 >= outer.attempts;
        let purse = self.flows[id.workload].clients[client as usize].purse.as_mut();
        let Some(purse) = purse else { return false };
        let Some(paid) = purse.failed(self.now, timeout, is_last) else {
            self.tally.failed += 1;
            return false;
        };
        let n = u64::from(number) << 16 | u64::from(tries);
        let name = workload.client_name(client);
        let random = self.draws.draw(Purpose::OuterBackoff, name, n);
        let wait = outer.backoff.jittered(tries, std::time::Duration::ZERO, random);
        let at = self.now + wait;
        let deadline = workload.deadline.map(|span| begun.at.plus_nanos(span.as_nanos()));
        if deadline.is_some_and(|deadline| at >= deadline) {
            self.tally.failed += 1;
            return false;
        }
        self.tally.retries(self.now);
        let request = self.request(id);
        (request.tries, request.paid) = (tries + 1, paid);
        self.queue.push(at, Rank::World, Happening::Again { request: id });
        true
    }

    /// A request is over, however; a caller of a closed workload pauses and makes the next.
    fn ended(&mut self, id: RequestId) {
        let request = self.request(id);
        request.is_over = true;
        let Request { client, number, .. } = *request;
        let workload = id.workload;
        if matches!(self.plan.workloads[workload].load, Load::Closed { .. }) {
            let pause = self.pause_of(workload, client, number.into());
            self.schedule_call(workload, client, Some(pause));
        }
    }
}

/// How a call of the manager ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    GivenUp(GiveUpReason, Option<CallFailure>),
    Rejected(RejectReason),
}
