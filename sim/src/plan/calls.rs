//! Workloads and the servers' requests, as numbers.

use steadfast::backoff::BackoffPolicy;
use steadfast::config::{BreakerProfile, CallProfile, Config};
use steadfast::{BreakerId, BreakerProfileId, CallId, CallProfileId};

use super::{FaultPlan, Group, Plan, Trouble, Way};
use crate::dist::Dist;
use crate::draws::group_hash;
use crate::outer::ForeignBudget;
use crate::policy::{self, OuterSettings};
use crate::scenario::{
    Abandoned, Balance, CallBreaker, Calls, Link, Name, Overflow, Requests, Scenario,
    ScenarioError, Spacing,
};
use crate::tally::Bound;
use crate::trace;
use crate::units::{Rate, Span};

/// A call's name is a part of its workload's hash, the request's number and that of the try.
const TRY_BITS: u32 = 6;
const CALL_BITS: u32 = 32 + TRY_BITS;
/// How many calls of the manager one request may be, with a retry layer around it.
pub(crate) const MOST_TRIES: u32 = 1 << TRY_BITS;

/// A workload; indices refer to the plan's lists.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    hash: u32,
    pub(crate) clients: u32,
    /// The servers that its calls go to, each with the link to it.
    pub(crate) ways: Vec<Way>,
    /// The index of the group over whose connections they go.
    pub(crate) group: Option<usize>,
    pub(crate) balance: Balance,
    pub(crate) scope: CallBreaker,
    pub(crate) breaker_profile: BreakerProfileId,
    pub(crate) profile: CallProfileId,
    pub(crate) load: Load,
    pub(crate) first: Option<Dist>,
    pub(crate) until: Span,
    pub(crate) deadline: Option<Span>,
    pub(crate) outer: Option<Outer>,
}

/// When calls are made.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// At this rate over all clients.
    Open { per_second: f64, spacing: Spacing },
    /// By so many callers, each after its answer and a pause.
    Closed { callers: u32, think: Dist },
    /// At these moments, in milliseconds.
    Recorded(Vec<u64>),
}

/// The retry layer around the manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    pub(crate) attempts: u32,
    pub(crate) budget: ForeignBudget,
    pub(crate) backoff: BackoffPolicy,
}

/// What a server does with requests.
#[derive(Clone, Debug)]
pub(crate) struct RequestPlan {
    /// For how long each occupies it; any number at once if none.
    pub(crate) turn: Option<Dist>,
    pub(crate) queue: usize,
    pub(crate) overflow: Overflow,
    pub(crate) time: Dist,
    pub(crate) per_in_flight: Span,
    pub(crate) fails: f64,
    pub(crate) abandoned: Abandoned,
    pub(crate) cache: Option<CachePlan>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CachePlan {
    /// The index of the server behind it.
    pub(crate) behind: usize,
    pub(crate) keys: u32,
    pub(crate) ttl: Option<Span>,
}

/// What becomes of calls that fail by chance alone and are retried without a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClosedForm {
    /// The mean and the variance, call by call.
    pub(crate) success: (f64, f64),
    pub(crate) attempts: (f64, f64),
}

impl Workload {
    /// The name of a client, which no other workload's clients have.
    pub(crate) fn client_name(&self, client: u32) -> u64 {
        u64::from(self.hash) << 32 | u64::from(client)
    }

    /// The breaker of a client's calls over that way.
    pub(crate) fn breaker_id(&self, client: u32, way: usize) -> BreakerId {
        let low = match self.scope {
            CallBreaker::Shared => 0,
            CallBreaker::PerServer => way as u64,
            CallBreaker::PerClient => u64::from(client),
        };
        BreakerId(u64::from(self.hash) << 32 | low)
    }

    /// The name of a call of the manager: the workload's own request number `request`, and which of
    /// its calls it is.
    pub(crate) fn call_id(&self, request: usize, tries: u32) -> CallId {
        let request = (request as u64) & 0xffff_ffff;
        CallId(self.call_prefix() << CALL_BITS | request << TRY_BITS | u64::from(tries))
    }

    /// Which request of it a call is for, if it is of this workload.
    pub(crate) fn request_of(&self, call: CallId) -> Option<usize> {
        let request = call.0 >> TRY_BITS & 0xffff_ffff;
        let own = call.0 >> CALL_BITS == self.call_prefix();
        own.then(|| usize::try_from(request).unwrap_or(usize::MAX))
    }

    /// What the names of its calls have in common.
    fn call_prefix(&self) -> u64 {
        u64::from(self.hash) >> TRY_BITS
    }

    /// The way that a breaker guards alone, if it is one of this workload's.
    pub(crate) fn way_of(&self, breaker: BreakerId) -> Option<Option<&Way>> {
        if breaker.0 >> 32 != u64::from(self.hash) {
            return None;
        }
        let way = usize::try_from(breaker.0 & 0xffff_ffff).unwrap_or(usize::MAX);
        Some(match self.scope {
            CallBreaker::PerServer => self.ways.get(way),
            _ => self.ways.first().filter(|_| self.ways.len() == 1),
        })
    }

    /// How many breakers it has, over so many managers.
    pub(crate) fn breakers(&self, managers: usize) -> usize {
        let managers = managers.min(self.clients as usize);
        match self.scope {
            CallBreaker::Shared => managers,
            CallBreaker::PerServer => managers * self.ways.len(),
            CallBreaker::PerClient => self.clients as usize,
        }
    }
}

/// Whether the breaker of those calls ever opens.
const fn trips(guard: &BreakerProfile) -> bool {
    guard.breaker.consecutive_failures.is_some() || guard.breaker.rates.is_some()
}

impl Plan {
    /// How long after the heal calls may go on failing that would not without the faults, term by
    /// term; `None` where there is no such bound: where retries are paid from nothing, or load leaves
    /// the server no room.
    ///
    /// open: the longest interval of the breaker that the outage can lead to; probe: an attempt's
    /// timeout, for a probe that was caught in the outage; drain: what may have queued up at the server,
    /// and all the retries that budgets hold, at the rate that load leaves.
    pub(crate) fn bound(&self) -> Option<Bound> {
        // How long a cache takes to fill, or a server that load slows to come back, is another matter.
        let fills = |fault: &FaultPlan| matches!(fault.trouble, Trouble::Cold | Trouble::Surge(_));
        let slows = |requests: &RequestPlan| requests.per_in_flight > Span::ZERO;
        if self.faults.iter().any(fills) || self.requests.iter().any(slows) {
            return None;
        }
        let mut bound = Bound::default();
        for workload in &self.workloads {
            let profile = self.config.call_profiles.get(usize::from(workload.profile.0))?;
            let guard = self.guard(workload)?;
            let timeout = u64::try_from(profile.attempt_timeout.as_nanos()).unwrap_or(u64::MAX);
            let timeout = Span::from_nanos(timeout);
            if trips(guard) {
                bound.raise("open", self.longest_open(&guard.breaker)?);
            }
            bound.raise("probe", timeout);
            for way in &workload.ways {
                bound.raise("drain", self.drain(way, workload, profile, timeout)?);
            }
        }
        (!bound.terms.is_empty()).then_some(bound)
    }

    fn guard(&self, workload: &Workload) -> Option<&BreakerProfile> {
        self.config.breaker_profiles.get(usize::from(workload.breaker_profile.0))
    }

    /// The longest open interval that the faults can lead to: it grows with every failed probe.
    pub(super) fn longest_open(&self, breaker: &steadfast::breaker::BreakerConfig) -> Option<Span> {
        let policy = breaker.open_for.validate().ok()?;
        let mut left = self.outage_ns();
        let mut longest = 0;
        for level in 0..64 {
            let (low, high) = policy.bounds(level, std::time::Duration::ZERO);
            let nanos =
                |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            longest = nanos(high);
            // The next level is reached only if this interval ends, at the earliest, in the outage.
            match left.checked_sub(nanos(low)) {
                Some(rest) if nanos(low) > 0 => left = rest,
                _ => break,
            }
        }
        Some(Span::from_nanos(longest))
    }

    /// How long a server takes over what queued up and over the retries, beside the load that goes on.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a span in nanoseconds; the cast saturates"
    )]
    fn drain(
        &self,
        way: &Way,
        workload: &Workload,
        profile: &CallProfile,
        timeout: Span,
    ) -> Option<Span> {
        let guard = self.guard(workload)?;
        let retries = match &guard.calls.budget {
            _ if workload.outer.is_some() => return None,
            None if profile.max_attempts > 1 => return None,
            None => 0.0,
            Some(budget) => f64::from(budget.capacity) * workload.breakers(self.managers) as f64,
        };
        let requests = self.requests.get(way.server)?;
        let (Some(Dist::Fixed(turn)), Load::Open { per_second, .. }) =
            (requests.turn, &workload.load)
        else {
            return Some(Span::ZERO);
        };
        let load = per_second / workload.ways.len() as f64;
        let left = 1.0 / turn.as_secs_f64() - load;
        if left <= 0.0 {
            return None;
        }
        // A server that is gone or hangs forgets what it had; one that is slow keeps it, from what was
        // sent until the breaker knew.
        let keeps = |fault: &FaultPlan| {
            !matches!(fault.trouble, Trouble::Down | Trouble::Silent | Trouble::Failing(_))
        };
        let outage = self.outage_ns();
        let sent = match trips(guard) {
            true => timeout.as_secs_f64(),
            false => outage as f64 / 1e9,
        };
        let queued = if self.faults.iter().any(keeps) { load * sent } else { 0.0 };
        Some(Span::from_nanos(((queued + retries) / left * 1e9) as u64))
    }

    fn outage_ns(&self) -> u64 {
        let first = self.faults.iter().map(|fault| fault.schedule.at().as_nanos()).min();
        self.heal.as_nanos().saturating_sub(first.unwrap_or(0))
    }

    /// Changes the rate of an open workload.
    pub(crate) fn set_load(&mut self, name: &str, load: f64) {
        for workload in self.workloads.iter_mut().filter(|workload| workload.name == name) {
            if let Load::Open { per_second, .. } = &mut workload.load {
                *per_second = load;
            }
        }
    }

    /// The manager of a workload's client.
    pub(crate) fn manager_of(&self, workload: &Workload, client: u32) -> usize {
        let group = workload.group.and_then(|group| self.groups.get(group));
        (group.map_or(0, |group| group.first) + client as usize) % self.managers
    }

    /// What is known exactly about its calls, if anything: where one server fails by chance alone, and
    /// nothing but a number of attempts ends a call.
    pub(crate) fn closed_form(&self) -> Option<ClosedForm> {
        let [workload] = self.workloads.as_slice() else { return None };
        let [way] = workload.ways.as_slice() else { return None };
        let requests = self.requests.get(way.server)?;
        let profile = self.config.call_profiles.get(usize::from(workload.profile.0))?;
        let guard = self.guard(workload)?;
        let free = guard.calls.budget.is_none() && guard.breaker.rates.is_none();
        let free = free && guard.breaker.consecutive_failures.is_none();
        let free = free && requests.turn.is_none() && requests.per_in_flight == Span::ZERO;
        if !free || workload.outer.is_some() || !self.faults.is_empty() {
            return None;
        }
        // A call makes its attempt number n with the chance `left`; n attempts have n² = Σ (2i − 1).
        let (mut attempts, mut squares, mut left) = (0.0, 0.0, 1.0);
        for number in 1..=profile.max_attempts {
            attempts += left;
            squares += left * (2.0 * f64::from(number) - 1.0);
            left *= requests.fails;
        }
        Some(ClosedForm {
            success: (1.0 - left, left * (1.0 - left)),
            attempts: (attempts, squares - attempts * attempts),
        })
    }
}

pub(super) fn requests(scenario: &Scenario) -> Vec<RequestPlan> {
    let plan = |requests: &Requests| {
        let turn = requests.rate.as_ref().map(|rate| Dist::Fixed(rate.get_ref().period()));
        let cache = requests.cache.as_ref().map(|cache| CachePlan {
            behind: server(scenario, &cache.behind),
            keys: *cache.keys.get_ref(),
            ttl: cache.ttl,
        });
        RequestPlan {
            turn: turn.or(requests.turn),
            queue: usize::try_from(requests.queue).unwrap_or(usize::MAX),
            overflow: requests.overflow,
            time: requests.time,
            per_in_flight: requests.per_in_flight,
            fails: requests.fails.as_f64(),
            abandoned: requests.abandoned,
            cache,
        }
    };
    scenario.servers.values().map(|server| plan(&server.requests)).collect()
}

fn server(scenario: &Scenario, name: &Name) -> usize {
    let found = scenario.servers.keys().position(|known| known.get_ref() == name.get_ref());
    found.unwrap_or(0)
}

/// The workloads in order; their links are added to `links`.
pub(super) fn workloads(
    scenario: &Scenario,
    policy: &str,
    config: &Config,
    groups: &[Group],
    links: &mut Vec<Link>,
) -> Result<Vec<Workload>, ScenarioError> {
    let settings = policy::settings(scenario, policy)?;
    let outer = outer(&settings.outer, policy)?;
    let mut workloads: Vec<Workload> = Vec::new();
    for (place, (name, calls)) in scenario.calls.iter().enumerate() {
        let name = name.get_ref();
        let ways = calls.servers.iter().map(|to| {
            let link = scenario.links.get(format!("{name}-{}", to.get_ref()).as_str());
            links.push(link.cloned().unwrap_or_default());
            Way { server: server(scenario, to), link: links.len() - 1 }
        });
        let mut ways: Vec<_> = ways.collect();
        let group = calls
            .peers
            .as_ref()
            .and_then(|peers| groups.iter().position(|group| group.name == *peers.get_ref()));
        let over = group.and_then(|group| groups.get(group));
        if let Some(over) = over {
            ways.clone_from(&over.ways);
        }
        let scope = match calls.breaker {
            CallBreaker::PerServer if over.is_some() => CallBreaker::Shared,
            scope => scope,
        };
        let place = u16::try_from(place).unwrap_or(u16::MAX);
        let peers = u16::try_from(scenario.peers.len()).unwrap_or(u16::MAX);
        let profile = config.call_profiles.get(usize::from(place));
        let deadline = profile.and_then(|profile| profile.deadline);
        let deadline = deadline.and_then(|span| u64::try_from(span.as_nanos()).ok());
        let hash = group_hash(&format!("calls.{name}"));
        let twin = |other: &&Workload| other.hash >> TRY_BITS == hash >> TRY_BITS;
        if let Some(twin) = workloads.iter().find(twin) {
            let problem =
                format!("the workloads `{name}` and `{}` hash alike; rename one", twin.name);
            return Err(ScenarioError::plain(problem));
        }
        workloads.push(Workload {
            name: name.clone(),
            hash,
            clients: over.map_or_else(|| clients(scenario, calls), |group| group.count),
            ways,
            group,
            balance: calls.balance,
            scope,
            // Where there are no peers, the core's own profile keeps its place.
            breaker_profile: BreakerProfileId(peers.max(1) + place),
            profile: CallProfileId(place),
            load: load(scenario, calls)?,
            first: calls.first,
            until: calls.until.unwrap_or(*scenario.duration.get_ref()),
            deadline: deadline.map(Span::from_nanos),
            outer,
        });
    }
    Ok(workloads)
}

/// How many clients a workload has.
fn clients(scenario: &Scenario, calls: &Calls) -> u32 {
    calls.clients.as_ref().map_or(*scenario.managers.get_ref(), |clients| *clients.get_ref())
}

fn load(scenario: &Scenario, calls: &Calls) -> Result<Load, ScenarioError> {
    if let Some(name) = &calls.arrivals {
        let arrivals = trace::arrivals_of_calls(name.get_ref(), &scenario.folder);
        return arrivals.map(Load::Recorded).map_err(ScenarioError::plain);
    }
    Ok(match (&calls.rate, &calls.closed) {
        (_, Some(callers)) => Load::Closed { callers: *callers.get_ref(), think: calls.think },
        (rate, None) => Load::Open {
            per_second: rate.as_ref().map_or(0.0, |rate| Rate::per_second(*rate.get_ref())),
            spacing: calls.spacing,
        },
    })
}

fn outer(settings: &OuterSettings, policy: &str) -> Result<Option<Outer>, ScenarioError> {
    let Some(attempts) = &settings.attempts else { return Ok(None) };
    let backoff = settings.backoff().validate().map_err(|error| {
        ScenarioError::plain(format!("policy `{policy}` makes no sense: outer.backoff.{error}"))
    })?;
    let budget = settings.budget.unwrap_or(ForeignBudget::Free);
    Ok(Some(Outer { attempts: *attempts.get_ref(), budget, backoff }))
}
