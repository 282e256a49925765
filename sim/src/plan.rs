//! A scenario under one policy with its names turned into numbers: what a world is built from.

mod calls;
mod churn;
mod liveness;

use steadfast::config::Config;
use steadfast::{BreakerId, BreakerProfileId, DialCause, PeerId, PeerProfileId};

pub(crate) use churn::{Churn, Spells};

pub(crate) use calls::{Load, MOST_TRIES, RequestPlan, Workload};

use crate::dist::Dist;
use crate::draws::group_hash;
use crate::policy;
use crate::scenario::{
    Abandoned, BreakerScope, Direction, Fault, FaultKind, Habits, Link, Overflow, RejectCause,
    Scenario, ScenarioError, WakeOrder,
};
use crate::schedule::Schedule;
use crate::trace;
use crate::units::{Share, Span};

/// Everything that a world is made of; indices refer to its lists.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) managers: usize,
    pub(crate) duration: Span,
    /// When the last fault is over that ever is.
    pub(crate) heal: Span,
    pub(crate) servers: Vec<ServerPlan>,
    pub(crate) links: Vec<Link>,
    pub(crate) groups: Vec<Group>,
    /// What each server does with requests.
    pub(crate) requests: Vec<RequestPlan>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) faults: Vec<FaultPlan>,
    pub(crate) peers: u32,
    pub(crate) habits: Habits,
    /// Whether the clients do something when a server says that it will go.
    pub(crate) drains: bool,
    /// Whether they listen to what their hosts say about the network and the app.
    pub(crate) network: bool,
    /// Moments after the heal at which the share of peers up is wanted.
    pub(crate) looks: Vec<Span>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServerPlan {
    pub(crate) name: String,
    /// How long one handshake occupies it.
    pub(crate) turn: Option<Span>,
    pub(crate) queue: usize,
    pub(crate) overflow: Overflow,
    pub(crate) service: Dist,
    pub(crate) abandoned: Abandoned,
    /// How many instances share its connections; 0 if they are not told apart.
    pub(crate) instances: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    hash: u32,
    /// Its first peer's index.
    pub(crate) first: usize,
    pub(crate) count: u32,
    /// The servers that its peers may connect to, in order, each with the link to it.
    pub(crate) ways: Vec<Way>,
    scope: BreakerScope,
    pub(crate) breaker_profile: BreakerProfileId,
    /// The place of its first peer profile, and how many it has.
    first_profile: u16,
    profiles: u16,
    pub(crate) heartbeat: Option<Span>,
    pub(crate) session_ttl: Option<Span>,
    /// Arrivals in milliseconds, in place of the server's heartbeats.
    pub(crate) trace: Option<Vec<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) server: usize,
    pub(crate) link: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct FaultPlan {
    pub(crate) trouble: Trouble,
    /// The index of the server, link, group or workload; unused for the managers.
    pub(crate) on: usize,
    pub(crate) schedule: Schedule,
}

/// What goes wrong, with all that must be known about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trouble {
    Down,
    Silent,
    ResetAll,
    Capacity(Span),
    Slow(Dist),
    Lossy(Share),
    /// Nothing gets through this way; neither way if `None`.
    Partition(Option<Direction>),
    Cut,
    /// Handshakes end in this.
    Reject(DialCause),
    /// An instance goes after this notice.
    Drain(Span),
    /// So many look-ups of its name fail.
    Unresolved(Share),
    /// Hosts go and come.
    Churn(Churn),
    Pause(WakeOrder),
    Offline,
    /// Another address, after a time without any if `gap`.
    Switch {
        gap: bool,
    },
    Background,
    /// A share of the requests fails.
    Failing(Share),
    /// Requests take so many times as long.
    Sluggish(f64),
    /// The server can do requests at this pace.
    Requests(Span),
    /// The server takes no request from its queue.
    Stall,
    /// The cache is emptied.
    Cold,
    /// Calls come at this rate per second.
    Surge(f64),
    /// The first endpoint is no longer one.
    Resolve,
    /// So many of the peers are gone and forgotten.
    Leave(Share),
    /// So many of the callers go away.
    HangUp(Share),
}

impl Trouble {
    /// Whether it is over as soon as it begins.
    pub(crate) const fn is_instant(&self) -> bool {
        matches!(self, Self::ResetAll | Self::Cold | Self::HangUp(_) | Self::Switch { gap: false })
    }

    /// Whether hosts may be without a network, or apps not allowed to use it.
    pub(crate) const fn keeps_off(&self) -> bool {
        matches!(self, Self::Offline | Self::Switch { .. } | Self::Background)
    }
}

impl Plan {
    /// # Errors
    ///
    /// A policy that does not exist or that the core refuses.
    pub(crate) fn new(scenario: &Scenario, policy: &str) -> Result<Self, ScenarioError> {
        let mut config = policy::config(scenario, policy)?;
        let settings = policy::settings(scenario, policy)?;
        let peers = scenario.peer_count();
        config.limits.max_peers = config.limits.max_peers.max(peers);

        let (groups, mut links) = groups(scenario)?;
        let workloads = calls::workloads(scenario, policy, &config, &groups, &mut links)?;
        let clients = workloads.iter().map(|workload| workload.clients).max().unwrap_or(0);
        let breakers = workloads.iter().fold(peers, |sum, workload| {
            sum.saturating_add(
                workload.clients.max(u32::try_from(workload.ways.len()).unwrap_or(u32::MAX)),
            )
        });
        config.limits.max_breakers = config.limits.max_breakers.max(breakers);
        let servers = scenario.servers.iter().map(|(name, server)| ServerPlan {
            name: name.get_ref().clone(),
            turn: server.accept.map(crate::units::Rate::period),
            queue: usize::try_from(server.queue).unwrap_or(usize::MAX),
            overflow: server.overflow,
            service: server.service,
            abandoned: server.abandoned,
            instances: server
                .instances
                .as_ref()
                .map_or(0, |instances| u16::try_from(*instances.get_ref()).unwrap_or(u16::MAX)),
        });
        let faults = scenario.faults.iter();
        let faults = faults.map(|fault| fault_plan(scenario, &groups, &workloads, fault));
        let faults = faults.collect::<Result<Vec<_>, _>>()?;
        let heal = faults.iter().map(|fault| fault.schedule.over()).max().unwrap_or(Span::ZERO);
        let expects = [policy, "every"].into_iter().filter_map(|name| scenario.expect.get(name));
        let looks =
            expects.flat_map(|bounds| bounds.values().filter_map(|bound| bound.get_ref().at()));
        Ok(Self {
            config,
            // A manager without peers would only idle.
            managers: (*scenario.managers.get_ref()).min(peers.max(clients).max(1)) as usize,
            duration: *scenario.duration.get_ref(),
            heal,
            servers: servers.collect(),
            links,
            faults,
            peers,
            habits: *scenario.drivers.get_ref(),
            network: settings.network.unwrap_or(true),
            drains: settings.drains.unwrap_or(true),
            looks: looks.collect(),
            groups,
            requests: calls::requests(scenario),
            workloads,
        })
    }

    /// How many breakers there are, over all managers.
    pub(crate) fn breaker_count(&self) -> usize {
        let of_group = |group: &Group| {
            let managers = self.managers.min(group.count as usize);
            match group.scope {
                BreakerScope::Shared => managers,
                BreakerScope::PerEndpoint => managers * group.ways.len(),
                BreakerScope::PerPeer => group.count as usize,
            }
        };
        let of_peers: usize = self.groups.iter().map(of_group).sum();
        let of_calls = self.workloads.iter().map(|workload| workload.breakers(self.managers));
        of_peers + of_calls.sum::<usize>()
    }

    /// The group of the peer of that index, and its place there.
    pub(crate) fn group_of(&self, index: usize) -> Option<(&Group, u32)> {
        let within = |group: &&Group| {
            let place = index.checked_sub(group.first);
            place.is_some_and(|place| place < group.count as usize)
        };
        let group = self.groups.iter().find(within)?;
        Some((group, u32::try_from(index - group.first).unwrap_or(u32::MAX)))
    }

    /// What people call the peer of that index.
    pub(crate) fn peer_name(&self, index: usize) -> String {
        match self.group_of(index) {
            Some((group, place)) => format!("{}.{place}", group.name),
            None => format!("peer {index}"),
        }
    }

    /// The index of the peer that people call so.
    pub(crate) fn peer_named(&self, name: &str) -> Option<usize> {
        let (group, place) = name.rsplit_once('.')?;
        let group = self.groups.iter().find(|known| known.name == group)?;
        let place = place.parse::<u32>().ok().filter(|place| *place < group.count)?;
        Some(group.first + place as usize)
    }

    /// The index of the peer of that name.
    pub(crate) fn peer(&self, id: PeerId) -> Option<usize> {
        let hash = (id.0 >> 32) as u32;
        let group = self.groups.iter().find(|group| group.hash == hash)?;
        Some(group.first + (id.0 & 0xffff_ffff) as usize)
    }
}

impl Group {
    /// The name of its peer number `place`, which no other group's peers have.
    pub(crate) fn peer_id(&self, place: u32) -> PeerId {
        PeerId(u64::from(self.hash) << 32 | u64::from(place))
    }

    /// The peers behind one of its breakers, by their places; `None` if that is none of its own.
    pub(crate) fn behind(&self, breaker: BreakerId) -> Option<std::ops::Range<u32>> {
        if (breaker.0 >> 32) as u32 != self.hash {
            return None;
        }
        match self.scope {
            BreakerScope::Shared | BreakerScope::PerEndpoint => Some(0..self.count),
            BreakerScope::PerPeer => {
                let place = (breaker.0 & 0xffff_ffff) as u32;
                Some(place..place.saturating_add(1))
            }
        }
    }

    /// The breaker of a peer's endpoint.
    pub(crate) fn breaker_id(&self, place: u32, way: usize) -> BreakerId {
        let low = match self.scope {
            BreakerScope::Shared => 0,
            BreakerScope::PerEndpoint => way as u64,
            BreakerScope::PerPeer => u64::from(place),
        };
        BreakerId(u64::from(self.hash) << 32 | low)
    }

    /// How many places for breakers it has, over so many managers.
    pub(crate) fn breaker_places(&self, managers: usize) -> usize {
        match self.scope {
            BreakerScope::Shared => managers,
            BreakerScope::PerEndpoint => managers * self.ways.len(),
            BreakerScope::PerPeer => self.count as usize,
        }
    }

    /// Which of them is that breaker's; `None` if it is none of its own.
    pub(crate) fn breaker_place(&self, manager: usize, breaker: BreakerId) -> Option<usize> {
        let low = (breaker.0 & 0xffff_ffff) as usize;
        let own = (breaker.0 >> 32) as u32 == self.hash;
        own.then(|| match self.scope {
            BreakerScope::Shared => manager,
            BreakerScope::PerEndpoint => manager * self.ways.len() + low,
            BreakerScope::PerPeer => low,
        })
    }

    /// The profile of its peer number `place`: they take turns.
    pub(crate) fn profile(&self, place: u32) -> PeerProfileId {
        let turn = u16::try_from(place % u32::from(self.profiles)).unwrap_or(0);
        PeerProfileId(self.first_profile + turn)
    }
}

fn groups(scenario: &Scenario) -> Result<(Vec<Group>, Vec<Link>), ScenarioError> {
    let mut groups: Vec<Group> = Vec::new();
    let mut links = Vec::new();
    let (mut first, mut first_profile) = (0, 0);
    for (place, (name, peers)) in scenario.peers.iter().enumerate() {
        let name = name.get_ref();
        let ways = peers.endpoints.iter().map(|server| {
            let server = server.get_ref();
            let link = scenario.links.get(format!("{name}-{server}").as_str());
            links.push(link.cloned().unwrap_or_default());
            let server = scenario.servers.keys().position(|known| known.get_ref() == server);
            Way { server: server.unwrap_or(0), link: links.len() - 1 }
        });
        let ways = ways.collect();
        let trace = peers.heartbeat_trace.as_ref().map(|trace| {
            trace::arrivals(trace.get_ref(), &scenario.folder).map_err(ScenarioError::plain)
        });
        let group = Group {
            name: name.clone(),
            hash: group_hash(name),
            first,
            count: peers.count(),
            ways,
            scope: peers.breaker,
            breaker_profile: BreakerProfileId(u16::try_from(place).unwrap_or(u16::MAX)),
            first_profile,
            profiles: u16::try_from(peers.detectors.len().max(1)).unwrap_or(u16::MAX),
            heartbeat: peers.heartbeat.as_ref().map(|heartbeat| *heartbeat.get_ref()),
            session_ttl: peers.session_ttl,
            trace: trace.transpose()?,
        };
        if let Some(twin) = groups.iter().find(|other| other.hash == group.hash) {
            let problem = format!("the groups `{name}` and `{}` hash alike; rename one", twin.name);
            return Err(ScenarioError::plain(problem));
        }
        first += group.count as usize;
        first_profile += group.profiles;
        groups.push(group);
    }
    Ok((groups, links))
}

fn fault_plan(
    scenario: &Scenario,
    groups: &[Group],
    workloads: &[Workload],
    fault: &Fault,
) -> Result<FaultPlan, ScenarioError> {
    let share = fault.share.or(Share::new(1.0)).unwrap_or_default();
    let trouble = match *fault.kind.get_ref() {
        FaultKind::Down => Trouble::Down,
        FaultKind::Silent => Trouble::Silent,
        FaultKind::ResetAll => Trouble::ResetAll,
        FaultKind::Capacity => {
            Trouble::Capacity(fault.accept.map_or(Span::ZERO, crate::units::Rate::period))
        }
        FaultKind::Slow => Trouble::Slow(fault.latency.unwrap_or_default()),
        FaultKind::Lossy => Trouble::Lossy(fault.loss.unwrap_or_default()),
        FaultKind::Partition => Trouble::Partition(fault.direction),
        FaultKind::Cut => Trouble::Cut,
        FaultKind::Reject => Trouble::Reject(match fault.cause {
            None | Some(RejectCause::Tls) => DialCause::Tls,
            Some(RejectCause::Auth) => DialCause::Auth,
            Some(RejectCause::Incompatible) => DialCause::Incompatible,
            Some(RejectCause::NotFound) => DialCause::NotFound,
            Some(RejectCause::Throttled) => DialCause::Throttled,
        }),
        FaultKind::Drain => Trouble::Drain(fault.notice.unwrap_or_default()),
        FaultKind::DnsFail => Trouble::Unresolved(share),
        FaultKind::Churn => Trouble::Churn(Churn::new(fault, &scenario.folder)?),
        FaultKind::Pause => Trouble::Pause(fault.wake.unwrap_or_default()),
        FaultKind::Offline => Trouble::Offline,
        FaultKind::Switch => Trouble::Switch { gap: fault.lasts.is_some() },
        FaultKind::Background => Trouble::Background,
        FaultKind::Failing => Trouble::Failing(fault.share.unwrap_or_default()),
        FaultKind::Sluggish => Trouble::Sluggish(fault.times_slower.unwrap_or(1.0)),
        FaultKind::RequestCapacity => {
            Trouble::Requests(fault.rate.map_or(Span::ZERO, crate::units::Rate::period))
        }
        FaultKind::Stall => Trouble::Stall,
        FaultKind::Cold => Trouble::Cold,
        FaultKind::Surge => Trouble::Surge(fault.rate.map_or(0.0, crate::units::Rate::per_second)),
        FaultKind::Resolve => Trouble::Resolve,
        FaultKind::Leave => Trouble::Leave(share),
        FaultKind::HangUp => Trouble::HangUp(share),
    };
    Ok(FaultPlan {
        trouble,
        on: target(scenario, groups, workloads, fault.on.get_ref()).unwrap_or(0),
        schedule: Schedule::of(fault),
    })
}

/// The index that `servers.NAME`, `links.NAME`, `peers.NAME` or `calls.NAME` means.
fn target(
    scenario: &Scenario,
    groups: &[Group],
    workloads: &[Workload],
    on: &str,
) -> Option<usize> {
    let (kind, name) = on.split_once('.')?;
    if kind == "servers" {
        return scenario.servers.keys().position(|known| known.get_ref() == name);
    }
    if kind == "peers" {
        return groups.iter().position(|group| group.name == name);
    }
    if kind == "calls" {
        return workloads.iter().position(|workload| workload.name == name);
    }
    let servers: Vec<_> = scenario.servers.keys().map(|known| known.get_ref().as_str()).collect();
    let of_peers = groups.iter().map(|group| (&group.name, &group.ways));
    let of_calls = workloads.iter().map(|workload| (&workload.name, &workload.ways));
    let ways =
        of_peers.chain(of_calls).flat_map(|(from, ways)| ways.iter().map(move |way| (from, way)));
    ways.filter(|(from, way)| {
        let server = servers.get(way.server).copied().unwrap_or_default();
        format!("{from}-{server}") == name
    })
    .map(|(_, way)| way.link)
    .next()
}
