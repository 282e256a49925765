//! The same run without its faults: what goodput is compared with.

use crate::log::Forget;
use crate::plan::Plan;
use crate::scenario::ScenarioError;
use crate::tally::Second;
use crate::world::{Options, World};

impl Plan {
    /// What calls would have come to, second by second; `None` where nothing goes wrong.
    pub(crate) fn twin(
        &self,
        seed: u64,
        options: Options,
    ) -> Result<Option<Vec<Second>>, ScenarioError> {
        if self.faults.is_empty() || self.workloads.is_empty() {
            return Ok(None);
        }
        let plan = Self { faults: Vec::new(), ..self.clone() };
        let options = Options { invariants: Some(false), ledger: false, ..options };
        let outcome = World::new(&plan, seed, options, &mut Forget)?.run(&mut |_| {});
        Ok(outcome.facts.calls.map(|calls| calls.seconds))
    }
}
