//! The simulator as a library: a scenario, a policy, a seed, a run.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::catalog;
use crate::chaos;
use crate::expect::{Expectation, Measured, judge};
use crate::highest::Highest;
use crate::log::{Forget, Log};
use crate::measure::Facts;
use crate::plan::Plan;
use crate::policy;
use crate::records::Records;
use crate::report::Timeline;
use crate::scenario::{Scenario, ScenarioError};
use crate::series::Series;
use crate::story::{Hero, Story};
use crate::study::Study;
use crate::tally::{CallFacts, CallSummary};
use crate::units::seconds;
use crate::world::{Options, Outcome, Violation, World};

/// A scenario that is ready to run, under one policy.
///
/// # Examples
///
/// ```
/// use steadfast_sim::Simulation;
///
/// let run = Simulation::from_scenario("herd-queueing")?
///     .set("peers.device.count=200")?
///     .policy("ours")?
///     .run(1)?;
/// assert!(run.expects().iter().all(|expect| expect.held == Some(true)));
/// println!("{}", run.timeline());
/// # Ok::<(), steadfast_sim::ScenarioError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Simulation {
    text: String,
    /// What errors call the text.
    origin: String,
    /// What the command calls the scenario.
    asked_for: String,
    sets: Vec<String>,
    scenario: Scenario,
    policy: String,
    options: Options,
}

impl Simulation {
    /// A built-in scenario by its name, under `ours`.
    ///
    /// # Errors
    ///
    /// A name that is none of them.
    pub fn from_scenario(name: &str) -> Result<Self, ScenarioError> {
        Self::from_scenario_with(name, &[])
    }

    fn from_scenario_with(name: &str, sets: &[String]) -> Result<Self, ScenarioError> {
        let text = catalog::text(name)?.to_owned();
        let built_in = Self::new(text, format!("{name}.toml"), sets)?;
        Ok(Self { asked_for: name.to_owned(), ..built_in })
    }

    /// A scenario from its text, under `ours`.
    ///
    /// # Errors
    ///
    /// The first thing in it that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        Self::new(text.to_owned(), "scenario.toml".to_owned(), &[])
    }

    /// A scenario from a file, under `ours`.
    ///
    /// # Errors
    ///
    /// That the file cannot be read, or the first thing in it that is wrong.
    pub fn from_file(path: &Path) -> Result<Self, ScenarioError> {
        Self::from_file_with(path, &[])
    }

    fn from_file_with(path: &Path, sets: &[String]) -> Result<Self, ScenarioError> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScenarioError::plain(format!("cannot read {origin}: {error}")))?;
        Self::new(text, origin, sets)
    }

    fn new(text: String, origin: String, sets: &[String]) -> Result<Self, ScenarioError> {
        let scenario = Scenario::parse_with(&text, &origin, sets)?;
        let policy = policy::BUILT_IN.first().map_or("ours", |policy| policy.name).to_owned();
        let options = Options::default();
        let asked_for = origin.clone();
        let sets = sets.to_vec();
        Ok(Self { text, origin, asked_for, sets, scenario, policy, options })
    }

    /// Changes one setting of the file, as `peers.device.count=100`.
    ///
    /// # Errors
    ///
    /// A path or value that makes no sense.
    pub fn set(self, change: &str) -> Result<Self, ScenarioError> {
        self.set_all(&[change.to_owned()])
    }

    /// Changes several settings together, where one alone would make no sense.
    ///
    /// # Errors
    ///
    /// A path or value that makes no sense.
    pub fn set_all(mut self, changes: &[String]) -> Result<Self, ScenarioError> {
        self.sets.extend_from_slice(changes);
        self.scenario = Scenario::parse_with(&self.text, &self.origin, &self.sets)?;
        Ok(self)
    }

    /// Runs under this policy.
    ///
    /// # Errors
    ///
    /// A policy that neither the scenario nor we know.
    pub fn policy(mut self, name: &str) -> Result<Self, ScenarioError> {
        policy::settings(&self.scenario, name)?;
        self.policy = name.to_owned();
        Ok(self)
    }

    /// Checks more, or less, while it runs.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The scenario with all changes made.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    pub(crate) const fn chosen_options(&self) -> Options {
        self.options
    }

    pub(crate) fn policy_name(&self) -> &str {
        &self.policy
    }

    /// What the command calls the scenario.
    pub(crate) fn asked_for(&self) -> &str {
        &self.asked_for
    }

    /// The changes made to the scenario.
    pub(crate) fn sets(&self) -> &[String] {
        &self.sets
    }

    /// The same with fewer checks, as suits many runs.
    pub(crate) fn unwatched(self) -> Self {
        let options = Options { invariants: Some(false), ledger: false, ..self.options };
        self.options(options)
    }

    /// Runs every row of the scenario's table.
    ///
    /// # Errors
    ///
    /// A scenario that is held to none, or a row that makes no sense of it.
    pub fn study(&self, seed: u64) -> Result<Study, ScenarioError> {
        self.study_watched(seed, &mut |_| {})
    }

    /// The same; `progress` is told the share of it that is over.
    ///
    /// # Errors
    ///
    /// As [`study`](Self::study).
    pub fn study_watched(
        &self,
        seed: u64,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Study, ScenarioError> {
        let none = || ScenarioError::plain("this scenario is held to no table");
        let reference = self.scenario.reference.as_ref().ok_or_else(none)?;
        Study::run(self, reference, seed, progress)
    }

    /// Lives through it.
    ///
    /// # Errors
    ///
    /// A policy that the core refuses, or an expectation of a moment after the end.
    pub fn run(&self, seed: u64) -> Result<Run, ScenarioError> {
        self.run_watched(seed, &mut |_| {})
    }

    /// The same; `progress` is told the share of the scenario that is over.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_watched(
        &self,
        seed: u64,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Run, ScenarioError> {
        let own = self.under(seed)?;
        own.run_on(&own.plan()?, seed, &mut Forget, progress, None)
    }

    /// The same, and writes a [recording](steadfast::recording) of it, which a
    /// [`Replay`](steadfast::recording::Replay) and `steadfast replay` read.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), or that the log could not be written.
    pub fn run_logged(
        &self,
        seed: u64,
        log: impl Write,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Run, ScenarioError> {
        let records = Records { log: Some(Box::new(log)), ..Records::default() };
        self.run_recorded(seed, records, progress)
    }

    /// By when after the heal each peer must be up, for each policy of ours and each group where
    /// something promises it: the policy, the group, and the bound term by term.
    ///
    /// # Errors
    ///
    /// A policy that makes no sense here.
    pub fn bounds(&self) -> Result<Vec<(&'static str, String, String)>, ScenarioError> {
        let mut bounds = Vec::new();
        for policy in OURS.into_iter().filter(|own| policy::names(&self.scenario).contains(own)) {
            let plan = Plan::new(&self.scenario, policy)?;
            for group in &plan.groups {
                if let Some(bound) = plan.liveness(group) {
                    bounds.push((policy, group.name.clone(), bound.to_string()));
                }
            }
        }
        Ok(bounds)
    }

    /// The same with all that `seed` draws written out: a scenario with every fault and setting in
    /// it, and no chaos left. Run with that seed it does the same.
    ///
    /// # Errors
    ///
    /// A policy that makes no sense here.
    pub fn materialised(&self, seed: u64) -> Result<Self, ScenarioError> {
        let (scenario, _) = chaos::materialised(&self.scenario, &self.policy, seed)?;
        self.with_text(scenario.to_string())
    }

    /// The same policy and options over another text.
    pub(crate) fn with_text(&self, text: String) -> Result<Self, ScenarioError> {
        let mut other = Self::new(text, self.origin.clone(), &[])?;
        other.scenario.folder.clone_from(&self.scenario.folder);
        policy::settings(&other.scenario, &self.policy)?;
        Ok(Self { policy: self.policy.clone(), options: self.options, ..other })
    }

    pub(crate) fn source_text(&self) -> &str {
        &self.text
    }

    /// Lives through it for what a sweep wants to know.
    pub(crate) fn outcome(&self, seed: u64) -> Result<Outcome, ScenarioError> {
        let (_, plan) = chaos::materialised(&self.scenario, &self.policy, seed)?;
        Ok(World::new(&plan, seed, self.options, &mut Forget)?.run(&mut |_| {}))
    }

    /// The run as one of many: the highest load is searched for only where this policy is held to it.
    pub(crate) fn run_one_of_many(&self, seed: u64) -> Result<Run, ScenarioError> {
        let own = self.under(seed)?;
        let tables = ["every", own.policy.as_str()];
        let mut expects = tables.iter().filter_map(|name| own.scenario.expect.get(*name));
        let is_held = expects.any(|bounds| bounds.contains_key("highest_load"));
        let asked = own.scenario.highest_load.as_ref().filter(|_| is_held);
        let asked = asked.map(|asked| asked.of(&own.policy).find(&own.scenario, seed));
        let highest = asked.transpose()?.unwrap_or_default();
        own.run_on(&own.plan()?, seed, &mut Forget, &mut |_| {}, Some(&highest))
    }

    /// With what the seed draws, where it draws anything.
    pub(crate) fn under(&self, seed: u64) -> Result<Cow<'_, Self>, ScenarioError> {
        let chaos = self.scenario.chaos.as_ref();
        if chaos.is_none_or(|chaos| *chaos.level.get_ref() == 0) {
            return Ok(Cow::Borrowed(self));
        }
        let (scenario, _) = chaos::materialised(&self.scenario, &self.policy, seed)?;
        // As a sweep checks it, whatever its size.
        let invariants = self.options.invariants.or(Some(true));
        let options = Options { invariants, ..self.options };
        Ok(Cow::Owned(Self { scenario, options, ..self.clone() }))
    }

    /// The scenario under its policy, with names turned into numbers.
    pub(crate) fn plan(&self) -> Result<Plan, ScenarioError> {
        let read_from = (self.text.as_str(), self.origin.as_str(), self.sets.as_slice());
        self.scenario.check_config(read_from, &self.policy)?;
        let plan = Plan::new(&self.scenario, &self.policy)?;
        self.scenario.check_moments(read_from, &self.policy, plan.heal)?;
        Ok(plan)
    }

    /// How to live through it once more, when it has been checked.
    pub(crate) fn unchecked(&self) -> Options {
        Options { invariants: Some(false), ledger: false, ..self.options }
    }

    /// `highest` is the highest load of each policy, if it is known.
    pub(crate) fn run_on(
        &self,
        plan: &Plan,
        seed: u64,
        log: &mut dyn Log,
        progress: &mut dyn FnMut(f64),
        highest: Option<&[Highest]>,
    ) -> Result<Run, ScenarioError> {
        let mut outcome = World::new(plan, seed, self.options, log)?.run(progress);
        if let Some(calls) = &mut outcome.facts.calls {
            calls.twin = plan.twin(seed, self.options)?;
        }
        let highest = match (highest, &self.scenario.highest_load) {
            (Some(known), _) => known.to_vec(),
            (None, Some(asked)) => asked.find(&self.scenario, seed)?,
            (None, None) => Vec::new(),
        };
        let own = highest.iter().find(|found| found.policy == self.policy);
        if let (Some(calls), Some(own)) = (&mut outcome.facts.calls, own) {
            calls.highest = Some(own.per_second.unwrap_or(0.0));
        }
        let scenario = &self.scenario;
        let tables = ["every", self.policy.as_str()];
        let bounds = tables.into_iter().filter_map(|name| scenario.expect.get(name)).flatten();
        let expects =
            bounds.map(|(name, bound)| judge(name.get_ref(), bound.get_ref(), &outcome.facts));
        Ok(Run {
            expects: expects.chain(promised(&self.policy, &outcome.facts)).collect(),
            scenario: scenario.clone(),
            asked_for: self.asked_for.clone(),
            sets: self.sets.clone(),
            policy: self.policy.clone(),
            seed,
            managers: plan.managers,
            breakers: plan.breaker_count(),
            highest,
            outcome,
            series: None,
            story: None,
            hero: None,
        })
    }
}

/// The policies that are the core's own.
pub(crate) const OURS: [&str; 2] = ["ours", "ours-told"];

/// What our own policies promise in every scenario: all are up again within the bound that policy
/// and world give.
fn promised(policy: &str, facts: &Facts) -> Option<Expectation> {
    const WITHIN: &str = "<= 100%";
    let is_ours = OURS.contains(&policy);
    let known = facts.bound_used(None) != Measured::Unknown;
    let within = WITHIN.parse().ok().filter(|_| is_ours && known)?;
    Some(judge("bound_used", &within, facts))
}

/// The line that makes the same run again.
pub(crate) fn reproduce_line(simulation: &Simulation, seed: u64) -> String {
    reproduce(&simulation.asked_for, seed, &simulation.policy, &simulation.sets)
}

/// The same from its parts.
pub(crate) fn reproduce(asked_for: &str, seed: u64, policy: &str, sets: &[String]) -> String {
    let (asked_for, policy) = (shell_word(asked_for), shell_word(policy));
    let mut line = format!("steadfast run {asked_for} --seed {seed} --policy {policy}");
    for set in sets {
        line += &format!(" --set {}", shell_word(set));
    }
    line
}

/// The text as a shell reads it as one word.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-=/%,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// One number for the run digests of all managers, in order.
#[must_use]
pub fn fold_digests(digests: &[u64]) -> u64 {
    digests.iter().fold(0, |digest: u64, one| {
        (digest.rotate_left(5) ^ one).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Whether a run was as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All expectations held.
    Held,
    /// One did not, or a rule was broken.
    Violated,
    /// None was violated, but one could not be told.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Violated => "violated",
            Self::Unknown => "unknown",
        })
    }
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Run {
    pub(crate) scenario: Scenario,
    /// What the scenario was called by.
    pub(crate) asked_for: String,
    pub(crate) sets: Vec<String>,
    pub(crate) policy: String,
    pub(crate) seed: u64,
    pub(crate) managers: usize,
    pub(crate) breakers: usize,
    pub(crate) highest: Vec<Highest>,
    pub(crate) expects: Vec<Expectation>,
    pub(crate) outcome: Outcome,
    /// What a page draws, if it was asked for.
    pub(crate) series: Option<Series>,
    pub(crate) story: Option<Story>,
    pub(crate) hero: Option<Hero>,
}

/// What a run found, for machines. Times are in seconds; those after the heal count from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The scenario.
    pub scenario: String,
    /// The policy.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// The run digests of all managers as [one](fold_digests), in hexadecimal.
    pub digest: String,
    /// How many peers there are.
    pub peers: u32,
    /// Over how many managers they are dealt.
    pub managers: usize,
    /// How long the scenario lasted.
    pub virtual_s: f64,
    /// Events that reached managers, the warm-up's included.
    pub events: u64,
    /// Actions that they answered.
    pub actions: u64,
    /// Dials begun, from the start of the scenario on.
    pub dials: u64,
    /// The same per peer.
    pub dials_per_peer: f64,
    /// The most dials in any one second.
    pub peak_dials_per_s: u64,
    /// When the first connection was lost.
    pub lost_at_s: Option<f64>,
    /// When the last fault was over; none if the end came first.
    pub healed_at_s: Option<f64>,
    /// Lost peers that were up at the end.
    pub recovered: u32,
    /// Until every peer was up again for good.
    pub all_up_s: Option<f64>,
    /// Until half of the lost peers were.
    pub p50_s: Option<f64>,
    /// Until 99 % of them were.
    pub p99_s: Option<f64>,
    /// The peers down at the heal over the rate of their servers.
    pub ideal_s: Option<f64>,
    /// Ideal over `all_up_s`.
    pub efficiency: Option<f64>,
    /// Handshakes done for clients that had given up.
    pub server_wasted: u64,
    /// How often invariants were checked, all or those of whom a step concerned.
    pub invariant_checks: u64,
    /// The rule that was broken, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
    /// What was expected, and whether it held.
    pub expects: Vec<Expectation>,
    /// What became of calls, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallSummary>,
    /// The highest load that each policy recovers from, where the scenario asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub highest_load: Vec<Highest>,
    /// What the detectors of peers with recorded heartbeats said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<WatchedPeer>,
}

/// A peer with recorded heartbeats, and what its detector said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchedPeer {
    /// Its group.
    pub group: String,
    /// Its detector, as the scenario words it.
    pub detector: String,
    /// How often it was suspected and then spoke again.
    pub false_suspicions: u64,
    /// For how long, together, in nanoseconds.
    pub suspected_ns: u64,
    /// The shortest silence that was suspected, in nanoseconds.
    pub shortest_silence_ns: Option<u64>,
}

impl Run {
    /// The run as text, made to be read and to go into a snapshot: the same for the same seed.
    #[must_use]
    pub fn timeline(&self) -> Timeline<'_> {
        Timeline::new(self)
    }

    /// What was lived through, with all that the seed drew.
    #[must_use]
    pub const fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// What was expected, and whether it held.
    #[must_use]
    pub fn expects(&self) -> &[Expectation] {
        &self.expects
    }

    /// The rule that was broken, if one was.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.outcome.violation.as_ref()
    }

    /// The run digests of all managers as [one](fold_digests).
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.outcome.digest
    }

    /// The managers' own run digests.
    #[must_use]
    pub fn digests(&self) -> &[u64] {
        &self.outcome.digests
    }

    /// Whether it was as expected.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let held = |wanted| self.expects.iter().any(|expect| expect.held == wanted);
        if self.outcome.violation.is_some() || held(Some(false)) {
            Verdict::Violated
        } else if held(None) {
            Verdict::Unknown
        } else {
            Verdict::Held
        }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.outcome.facts
    }

    /// What was found, for machines.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let (facts, outcome) = (self.facts(), &self.outcome);
        let known = |measured| match measured {
            Measured::Value(value) => Some(value),
            Measured::AtLeast(_) | Measured::Unknown => None,
        };
        Summary {
            scenario: self.scenario.name.clone(),
            policy: self.policy.clone(),
            seed: self.seed,
            digest: format!("{:016x}", outcome.digest),
            peers: self.scenario.peer_count(),
            managers: self.managers,
            virtual_s: seconds(outcome.virtual_ns),
            events: outcome.events,
            actions: outcome.actions,
            dials: facts.dials,
            dials_per_peer: facts.dials_per_peer(),
            peak_dials_per_s: facts.peak_dials,
            lost_at_s: facts.lost_at_s,
            healed_at_s: facts.healed_at_s,
            recovered: facts.recovered(),
            all_up_s: known(facts.all_up()),
            p50_s: known(facts.quantile(0.5, None)),
            p99_s: known(facts.quantile(0.99, None)),
            ideal_s: facts.ideal_s,
            efficiency: facts.efficiency(),
            server_wasted: facts.server_wasted,
            invariant_checks: outcome.invariant_checks,
            violation: outcome.violation.as_ref().map(ToString::to_string),
            expects: self.expects.clone(),
            calls: facts.calls.as_ref().map(CallFacts::summary),
            highest_load: self.highest.clone(),
            watched: self.watched(),
        }
    }

    fn watched(&self) -> Vec<WatchedPeer> {
        let peers = self.outcome.watched.iter().map(|peer| {
            let group = self.scenario.peers.get(peer.group.as_str());
            let detectors = group.map(|group| group.detectors.as_slice()).unwrap_or_default();
            let own = detectors.get(peer.place as usize % detectors.len().max(1));
            WatchedPeer {
                group: peer.group.clone(),
                detector: own.map_or_else(|| "policy".to_owned(), ToString::to_string),
                false_suspicions: peer.watch.cleared,
                suspected_ns: peer.watch.suspected_ns,
                shortest_silence_ns: peer.watch.shortest_silence_ns,
            }
        });
        peers.collect()
    }
}

/// The scenario of that name or path: a built-in one if there is one, else a file.
///
/// # Errors
///
/// Neither exists, or the file is wrong.
pub fn find(name: &str) -> Result<Simulation, ScenarioError> {
    find_with(name, &[])
}

/// The same with changes, which may mend what is wrong with it.
///
/// # Errors
///
/// As [`find`], or a change that makes no sense.
pub fn find_with(name: &str, changes: &[String]) -> Result<Simulation, ScenarioError> {
    let path = PathBuf::from(name);
    match catalog::text(name) {
        Err(_) if path.exists() || name.ends_with(".toml") => {
            Simulation::from_file_with(&path, changes)
        }
        _ => Simulation::from_scenario_with(name, changes),
    }
}
