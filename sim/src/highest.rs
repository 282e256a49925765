//! The highest load from which a policy recovers, by bisection.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::log::Forget;
use crate::plan::Plan;
use crate::scenario::{Name, Scenario, ScenarioError};
use crate::units::Rate;
use crate::world::{Options, World};

/// Asks from which load the policies recover: the calls of the last ten seconds succeed as they do
/// without the faults, but for a hundredth.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HighestLoad {
    /// The workload whose rate is varied.
    pub calls: Name,
    /// The lowest rate that is tried.
    pub from: Spanned<Rate>,
    /// The highest.
    pub to: Spanned<Rate>,
    /// The policies that are asked about.
    pub policies: Vec<Name>,
}

/// How often the range is halved.
const HALVINGS: u32 = 5;
const RECOVERED: f64 = 0.99;

/// What was found for a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Highest {
    /// The policy.
    pub policy: String,
    /// The highest load that was tried and recovered from, per second; none if even the lowest was not.
    pub per_second: Option<f64>,
    /// Whether that is the highest of all that were to be tried.
    pub all: bool,
}

impl HighestLoad {
    /// Asks about one policy only, if it is among those that are asked about.
    pub(crate) fn of(&self, policy: &str) -> Self {
        let mut own = self.clone();
        own.policies.retain(|asked| asked.get_ref() == policy);
        own
    }

    pub(crate) fn find(
        &self,
        scenario: &Scenario,
        seed: u64,
    ) -> Result<Vec<Highest>, ScenarioError> {
        let policies = self.policies.iter().map(|policy| {
            let policy = policy.get_ref();
            let plan = Plan::new(scenario, policy)?;
            let recovers = |load: f64| self.recovers(&plan, load, seed);
            let (low, high) = (self.from.get_ref().per_second(), self.to.get_ref().per_second());
            let mut found = Highest { policy: policy.clone(), per_second: None, all: false };
            if recovers(high)? {
                (found.per_second, found.all) = (Some(high), true);
                return Ok(found);
            }
            if !recovers(low)? {
                return Ok(found);
            }
            let (mut well, mut badly) = (low, high);
            for _ in 0..HALVINGS {
                // Whole calls a second read better than fractions of one.
                let middle = libm::floor(f64::midpoint(well, badly));
                if recovers(middle)? {
                    well = middle;
                } else {
                    badly = middle;
                }
            }
            found.per_second = Some(well);
            Ok(found)
        });
        policies.collect()
    }

    fn recovers(&self, plan: &Plan, load: f64, seed: u64) -> Result<bool, ScenarioError> {
        let mut plan = plan.clone();
        plan.set_load(self.calls.get_ref(), load);
        let options = Options { invariants: Some(false), ledger: false, ..Options::default() };
        let outcome = World::new(&plan, seed, options, &mut Forget)?.run(&mut |_| {});
        let Some(mut calls) = outcome.facts.calls else { return Ok(false) };
        calls.twin = plan.twin(seed, options)?;
        Ok(calls.tail_goodput_vs_twin().is_some_and(|share| share >= RECOVERED))
    }
}
