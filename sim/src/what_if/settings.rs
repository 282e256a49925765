//! The settings of a what-if: those of a policy, laid over a recording's own configuration.

use std::collections::BTreeSet;

use serde::Deserialize;
use steadfast::BreakerProfileId;
use steadfast::config::Config;

use super::known::Known;
use crate::policy::{
    BreakerSettings, CallSettings, GateSettings, PacerSettings, PeerSettings, SleepSettings,
    is_empty,
};
use crate::scenario::{ScenarioError, Source};

/// What of a scenario's `[policies.NAME]` makes sense without its world.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WhatIfSettings {
    peer: PeerSettings,
    breaker: BreakerSettings,
    call: CallSettings,
    gate: GateSettings,
    pacer: PacerSettings,
    sleep: SleepSettings,
}

impl WhatIfSettings {
    /// # Errors
    ///
    /// What is wrong with the text, at its place.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self, ScenarioError> {
        let source = Source::new(text, origin, &[]);
        let settings: Self = source.read()?;
        let bursts = [
            (settings.breaker.rate, &settings.breaker.burst),
            (settings.pacer.rate, &settings.pacer.burst),
            (settings.gate.rate, &settings.gate.burst),
        ];
        for (rate, burst) in bursts {
            if let (None, Some(burst)) = (rate, burst) {
                return Err(source.error("`burst` needs `rate`", &burst.span()));
            }
        }
        Ok(settings)
    }

    /// Lays them over `config`: `breaker` over profiles whose breakers guard dials, `gate` over
    /// those whose breakers guard calls, as the recording uses them. What was done, in words.
    pub(super) fn lay_over(&self, config: &mut Config, known: &Known) -> Vec<String> {
        let mut done = Vec::new();
        if !is_empty(&self.peer) {
            config.peer_profiles.iter_mut().for_each(|profile| self.peer.apply(profile));
            let names = config.peer_profiles.iter().map(|profile| &*profile.name);
            done.push(format!("peer.* over the peer profiles {}", listed(names)));
        }
        if !is_empty(&self.breaker) {
            let over = over(config, &known.guards_dials, |to| self.breaker.apply(to));
            done.push(told("breaker.*", "dials", &over));
        }
        if !is_empty(&self.gate) {
            let over = over(config, &known.guards_calls, |to| self.gate.apply(to));
            done.push(told("gate.*", "calls", &over));
        }
        if !is_empty(&self.breaker) && !is_empty(&self.gate) {
            let both: BTreeSet<_> =
                known.guards_dials.intersection(&known.guards_calls).copied().collect();
            let both = over(config, &both, |_| {});
            if !both.is_empty() {
                let both = listed(both.iter().map(String::as_str));
                done.push(format!(
                    "{both}: for dials and for calls, where gate.* has the last word"
                ));
            }
        }
        if !is_empty(&self.call) {
            config.call_profiles.iter_mut().for_each(|profile| self.call.apply(profile));
            let names = config.call_profiles.iter().map(|profile| &*profile.name);
            done.push(format!("call.* over the call profiles {}", listed(names)));
        }
        if !is_empty(&self.pacer) {
            self.pacer.apply(&mut config.pacer);
            done.push("pacer.*".to_owned());
        }
        if !is_empty(&self.sleep) {
            self.sleep.apply(&mut config.sleep);
            done.push("sleep.*".to_owned());
        }
        if done.is_empty() {
            done.push("nothing: the configuration is the recorded one".to_owned());
        }
        done
    }
}

/// Changes those profiles; their names.
fn over(
    config: &mut Config,
    which: &BTreeSet<BreakerProfileId>,
    mut change: impl FnMut(&mut steadfast::config::BreakerProfile),
) -> Vec<String> {
    let mut names = Vec::new();
    for id in which {
        if let Some(profile) = config.breaker_profiles.get_mut(usize::from(id.0)) {
            change(profile);
            names.push(profile.name.clone());
        }
    }
    names
}

fn told(what: &str, guards: &str, over: &[String]) -> String {
    if over.is_empty() {
        return format!("{what} over nothing: no breaker of the recording guards {guards}");
    }
    let names = listed(over.iter().map(String::as_str));
    format!("{what} over the breaker profiles {names}, which guard {guards}")
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
