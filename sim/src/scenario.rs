//! The scenario file: what there is, what goes wrong when, and what must hold.
//!
//! Plain data that mirrors the TOML. A key that is not known is an error with a suggestion, because
//! the worst bug of a scenario is a misspelt fault that never happens.

mod calls;
mod check;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::contention::Contention;
use crate::dist::Dist;
use crate::expect::Bound;
use crate::highest::HighestLoad;
use crate::policy::{Detector, PeerSettings, Settings};
use crate::reference::Reference;
use crate::units::{Rate, Share, Span};

pub use calls::{Balance, Cache, CallBreaker, Calls, Requests, Spacing};
pub use source::ScenarioError;
pub(crate) use source::{Source, path_end};

/// A name, and where in the file it stands.
pub(crate) type Name = Spanned<String>;

/// A whole scenario.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What happens and what it shows, in a sentence or two.
    pub about: String,
    /// The outage, issue or paper that it stands for.
    #[serde(default)]
    pub source: String,
    /// How long it lasts.
    #[serde(default = "no_duration", skip_serializing_if = "is_no_duration")]
    pub duration: Spanned<Span>,
    /// Over how many managers the peers and clients are dealt: one big client, or a fleet of small
    /// ones. No more than there are peers or clients.
    #[serde(default = "one_manager")]
    pub managers: Spanned<u32>,
    /// What peers connect to.
    #[serde(default)]
    pub servers: BTreeMap<Name, Server>,
    /// Groups of peers that are alike.
    #[serde(default)]
    pub peers: BTreeMap<Name, Peers>,
    /// Clients that call servers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<Name, Calls>,
    /// The way between a group or a workload and a server, named `group-server`; no time and no loss unless told.
    #[serde(default)]
    pub links: BTreeMap<Name, Link>,
    /// Clients that contend for one row, instead of a world of managers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contention: Option<Contention>,
    /// The figures of others that it is held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// Asks for the highest load that policies recover from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_load: Option<HighestLoad>,
    /// What drivers do that should change nothing.
    #[serde(default = "no_habits", skip_serializing_if = "are_no_habits")]
    pub drivers: Spanned<Habits>,
    /// What else goes wrong by chance, and under which settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chaos: Option<Chaos>,
    /// Policies of its own, and changes to the built-in ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<Name, Settings>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must hold, by policy; `every` is for all of them.
    #[serde(default)]
    pub expect: BTreeMap<Name, BTreeMap<Name, Spanned<Bound>>>,
    /// Where the file is; what traces are relative to.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

fn no_duration() -> Spanned<Span> {
    Spanned::new(0..0, Span::ZERO)
}

fn is_no_duration(duration: &Spanned<Span>) -> bool {
    *duration.get_ref() == Span::ZERO
}

const fn one() -> u32 {
    1
}

fn one_manager() -> Spanned<u32> {
    Spanned::new(0..0, 1)
}

/// A server, or a load balancer: one queue in front of one desk.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// How many handshakes it can do; each occupies it for that long. Any number if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<Rate>,
    /// How many dials may wait for their turn.
    pub queue: u32,
    /// What becomes of the next one.
    pub overflow: Overflow,
    /// What a handshake takes beyond its turn, occupying nobody.
    pub service: Dist,
    /// What becomes of dials whose client has given up.
    pub abandoned: Abandoned,
    /// How many instances stand behind its address, each with some of the connections; one if left
    /// out. Dials still wait in one queue, the balancer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<Spanned<u32>>,
    /// How it deals with requests.
    #[serde(skip_serializing_if = "calls::is_default")]
    pub requests: Requests,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            accept: None,
            queue: 4096,
            overflow: Overflow::default(),
            service: Dist::default(),
            abandoned: Abandoned::default(),
            instances: None,
            requests: Requests::default(),
        }
    }
}

/// What a server does with a dial when its queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// It says no at once, as a load balancer does, or a kernel told to abort on overflow.
    #[default]
    Refuse,
    /// It says nothing, as a full listen queue does by default.
    Drop,
}

/// What a server does with a dial whose client has given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Abandoned {
    /// It does the handshake all the same, for nobody: it cannot see that the client is gone.
    #[default]
    Serve,
    /// It sees that and takes the next one.
    Skip,
}

/// A group of peers that are alike.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// How many; one, or as many as there are `detectors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Spanned<u32>>,
    /// The servers that each may connect to, in order of preference.
    pub endpoints: Vec<Name>,
    /// How breakers are dealt out.
    pub breaker: BreakerScope,
    /// How often the server sends each of them a sign of life; never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Spanned<Span>>,
    /// How long a server keeps the session of a lost connection; it keeps none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_ttl: Option<Span>,
    /// A recording of arrivals that plays instead of the server's heartbeats: a built-in name, or
    /// a CSV file with a column `recv_ms`, beside the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_trace: Option<Name>,
    /// Detectors of the peers in turn, whatever the policy says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detectors: Vec<Detector>,
    /// Settings of these peers that hold under every policy.
    #[serde(skip_serializing_if = "are_none")]
    pub profile: Spanned<PeerSettings>,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            count: None,
            endpoints: Vec::new(),
            breaker: BreakerScope::default(),
            heartbeat: None,
            session_ttl: None,
            heartbeat_trace: None,
            detectors: Vec::new(),
            profile: no_settings(),
        }
    }
}

fn no_settings() -> Spanned<PeerSettings> {
    Spanned::new(0..0, PeerSettings::default())
}

fn no_habits() -> Spanned<Habits> {
    Spanned::new(0..0, Habits::default())
}

fn are_no_habits(habits: &Spanned<Habits>) -> bool {
    *habits.get_ref() == Habits::default()
}

fn are_none(settings: &Spanned<PeerSettings>) -> bool {
    crate::policy::is_empty(settings.get_ref())
}

impl Peers {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        let detectors = u32::try_from(self.detectors.len()).unwrap_or(u32::MAX);
        self.count.as_ref().map_or(detectors.max(1), |count| *count.get_ref())
    }
}

/// How the breakers of a group are dealt out, in each manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerScope {
    /// One for the whole group.
    #[default]
    Shared,
    /// One for each server.
    PerEndpoint,
    /// One for each peer.
    PerPeer,
}

/// The way between a group and a server.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// The time that one message takes, one way.
    pub latency: Dist,
    /// The share of messages that are lost. News of a reset is always delivered.
    pub loss: Share,
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: Spanned<FaultKind>,
    /// With what: `servers.NAME`, `links.NAME`, `peers.NAME`, `calls.NAME`, or `managers`.
    pub on: Name,
    /// From when.
    pub at: Spanned<Span>,
    /// For how long; by chance only together with `until`.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Spanned<Dist>>,
    /// It comes again that long after it began, or when it is over if that is later; by chance only
    /// together with `until`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Spanned<Dist>>,
    /// How often it comes in all, with `every`.
    #[serde(default = "one")]
    pub times: u32,
    /// Instead of `times`: it comes until then, and is over then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Spanned<Span>>,
    /// For `slow`: what a message takes in addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Dist>,
    /// For `lossy`: the share of messages that are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Share>,
    /// For `capacity`: what the server can do meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Rate>,
    /// For `request-capacity` and `surge`: how many requests or calls meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// For `partition`: which way nothing gets through; neither if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// For `reject`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<RejectCause>,
    /// For `drain`: how long before it goes an instance says that it will. `for` is how long it is away
    /// then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Span>,
    /// For `churn`: how long a host stays before it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stays: Option<Dist>,
    /// For `churn`: how long it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<Dist>,
    /// For `churn`, instead of both: a recording of hosts that came and went, a built-in name or a CSV
    /// file beside the scenario with the columns `t_ms`, `event` (`up` or `down`) and `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Name>,
    /// For `churn`: how a host is gone.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
    /// For `failing` and `dns-fail`: the share of requests or look-ups that fail. For faults of
    /// managers: about how many of them it happens to, each for itself; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// For faults of managers: it happens to each for itself, the first time so long after `at` at most,
    /// and whatever comes by chance is drawn for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spanned<Span>>,
    /// For `sluggish`: how many times as long requests take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_slower: Option<f64>,
    /// For `pause`: in which order the process does things when it wakes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<WakeOrder>,
    /// Whether it is ever over. One that never heals, instead of `for`, stays as it is to the end: who
    /// has another way must find it, who has none is not waited for.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub heals: bool,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_yes(yes: &bool) -> bool {
    *yes
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The server is gone: its connections are reset, dials are refused.
    Down,
    /// The server hangs: it takes dials and never answers, connections stay and say nothing.
    Silent,
    /// The server resets all its connections and goes on.
    ResetAll,
    /// The server can do more or less than it could.
    Capacity,
    /// Messages take longer.
    Slow,
    /// Messages are lost.
    Lossy,
    /// Nothing gets through, and nobody is told.
    Partition,
    /// The way is gone, and both ends are told: connections are lost, dials find no route.
    Cut,
    /// The server says no at the end of every handshake. Connections that it has stay.
    Reject,
    /// One of the server's instances says that it will go, is given no more connections, ends those
    /// that are left and is away for a while; each time the next one.
    Drain,
    /// The server's name is looked up in vain: dials fail without reaching it.
    DnsFail,
    /// The peers' hosts go away and come back, each for itself; at the end all are back.
    Churn,
    /// The managers' process does not run; what comes in meanwhile waits in its sockets.
    Pause,
    /// The managers' host has no network, and knows it.
    Offline,
    /// The managers' host gets another address, after so long without a network if it is told how
    /// long: nothing arrives any more over the connections that it has, and nobody is told.
    Switch,
    /// The managers' app is in the background, and must not use the network.
    Background,
    /// Requests fail at once, so many of them.
    Failing,
    /// Requests take longer.
    Sluggish,
    /// The server can do more or fewer requests than it could.
    RequestCapacity,
    /// The server stands still: requests wait, and are worked off afterwards.
    Stall,
    /// The server's cache is emptied.
    Cold,
    /// Calls come faster, or slower.
    Surge,
    /// The first of the peers' endpoints is no longer among those that their name leads to.
    Resolve,
    /// Peers are no longer wanted and are forgotten; when it is over they are new, and wanted again.
    Leave,
    /// Callers that wait go away, so many of them.
    HangUp,
}

impl FaultKind {
    /// Whether it happens to the managers, and so may happen to each for itself.
    pub(crate) const fn is_of_managers(self) -> bool {
        matches!(self, Self::Pause | Self::Offline | Self::Switch | Self::Background)
    }
}

/// What drivers do that should change nothing: how often, of all chances to do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Habits {
    /// They tick at some moment between two events.
    pub extra_ticks: Share,
    /// They go on from a snapshot after an event, as a new process would.
    pub restores: Share,
    /// They tell of dials, losses and attempts that they were told to end: a race that the contract
    /// forbids and a driver may lose.
    pub late_facts: Share,
}

/// Faults and settings that each seed draws for itself: see [`Simulation::sweep`](crate::Simulation::sweep).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Chaos {
    /// How much: 0 nothing, 1 a few short faults, 2 several at once, 3 many and long.
    pub level: Spanned<u32>,
    /// For how long faults begin; half of the scenario if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Spanned<Span>>,
    /// What a sweep over many seeds must have met at least once, see `list`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Name>,
}

/// Which way messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    FromServer,
}

/// Why a server says no at the end of a handshake; the core's causes of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectCause {
    /// The certificate is not valid.
    Tls,
    /// Whoever dials is not known, or the server cannot tell.
    Auth,
    /// The versions do not fit.
    Incompatible,
    /// The server knows nothing of what was asked for.
    NotFound,
    /// The server wants fewer dials.
    Throttled,
}

/// How a host is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// As a server that is `silent`: nothing is heard of it any more, dials are never answered.
    #[default]
    Silent,
    /// As one that is `down`: its connections are reset, dials are refused.
    Down,
}

/// In which order a driver does things when its process wakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WakeOrder {
    /// What waits in the sockets first, as the driver's contract says.
    #[default]
    IoFirst,
    /// The alarm first: the order that makes healthy peers look dead.
    TickFirst,
}

/// As the file writes it.
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Scenario {
    /// Reads a scenario from `text`; `origin` is what errors call it.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place and, where there is one, a suggestion.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ScenarioError> {
        Self::parse_with(text, origin, &[])
    }

    /// The same after the changes `sets`, each `PATH=VALUE`, as `peers.device.count=100`.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse); a wrong change is quoted instead of the file.
    pub fn parse_with(text: &str, origin: &str, sets: &[String]) -> Result<Self, ScenarioError> {
        let source = Source::new(text, origin, sets);
        let mut scenario: Self = source.read()?;
        scenario.folder = source.folder().to_owned();
        check::check(&scenario, &source)?;
        Ok(scenario)
    }

    /// Reads the scenario of a file.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), or that the file cannot be read.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, ScenarioError> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScenarioError::plain(format!("cannot read {origin}: {error}")))?;
        Self::parse_with(&text, &origin, sets)
    }

    /// Refuses what only shows under a policy, which has this last heal: moments after the end.
    ///
    /// `text`, `origin` and `sets` are what the scenario was read from.
    pub(crate) fn check_moments(
        &self,
        (text, origin, sets): (&str, &str, &[String]),
        policy: &str,
        heal: Span,
    ) -> Result<(), ScenarioError> {
        check::check_moments(self, &Source::new(text, origin, sets), policy, heal)
    }

    /// Refuses what the core refuses under a policy, at its place.
    pub(crate) fn check_config(
        &self,
        (text, origin, sets): (&str, &str, &[String]),
        policy: &str,
    ) -> Result<(), ScenarioError> {
        check::check_config(self, &Source::new(text, origin, sets), policy, None)
    }

    /// How many peers there are; no more than fit, whatever the groups add up to.
    #[must_use]
    pub fn peer_count(&self) -> u32 {
        self.peers.values().fold(0, |sum: u32, group| sum.saturating_add(group.count()))
    }
}

/// The scenario as a file would have it, every default filled in.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}
