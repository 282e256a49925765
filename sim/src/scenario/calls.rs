//! Calls: who makes them, and what becomes of them at a server.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{Abandoned, Name, Overflow};
use crate::dist::Dist;
use crate::policy::{CallSettings, is_empty};
use crate::units::{Rate, Share, Span};

/// A workload: clients that call servers.
///
/// One of `rate`, `closed` and `arrivals` says when.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// The servers that calls go to, each to one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Name>,
    /// The group of peers over whose connections they go instead: each peer is a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Name>,
    /// To which.
    pub balance: Balance,
    /// How many clients there are, dealt over the managers; as many as managers if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Spanned<u32>>,
    /// How breakers, and with them bulkheads and retry budgets, are dealt out.
    pub breaker: CallBreaker,
    /// Calls by all clients together, whatever becomes of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Spanned<Rate>>,
    /// How they are spaced.
    pub spacing: Spacing,
    /// When a client's first call is; spaced as the others if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Dist>,
    /// So many callers instead, each of whom waits for an answer before the next call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<Spanned<u32>>,
    /// For `closed`: the pause between an answer and the next call, at least a millisecond.
    pub think: Dist,
    /// Recorded arrivals instead: a built-in name, or a CSV file with a column `t_ms`, beside the
    /// scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Name>,
    /// From when on there are no more calls; to the end if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
    /// Settings of these calls that hold under every policy.
    #[serde(skip_serializing_if = "are_none")]
    pub profile: Spanned<CallSettings>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            peers: None,
            balance: Balance::default(),
            clients: None,
            breaker: CallBreaker::default(),
            rate: None,
            spacing: Spacing::default(),
            first: None,
            closed: None,
            think: Dist::default(),
            arrivals: None,
            until: None,
            profile: Spanned::new(0..0, CallSettings::default()),
        }
    }
}

fn are_none(settings: &Spanned<CallSettings>) -> bool {
    is_empty(settings.get_ref())
}

/// To which of its servers a call goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Each client takes them in turn.
    #[default]
    RoundRobin,
    /// To any.
    Random,
}

/// How the breakers of a workload are dealt out, in each manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallBreaker {
    /// One for each server; over connections one for all.
    #[default]
    PerServer,
    /// One for the whole workload.
    Shared,
    /// One for each client.
    PerClient,
}

/// How the calls of an open workload are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// By chance, without memory.
    #[default]
    Poisson,
    /// All alike.
    Even,
}

/// How a server deals with requests.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requests {
    /// How many it can do, one after the other; any number at once if neither this nor `turn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Spanned<Rate>>,
    /// For how long each occupies it, instead of `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<Dist>,
    /// How many may wait for their turn.
    pub queue: u32,
    /// What becomes of the next one.
    pub overflow: Overflow,
    /// What a request takes beyond its turn, occupying nobody.
    pub time: Dist,
    /// What each request in flight adds to that, this one included.
    pub per_in_flight: Span,
    /// The share of requests that fail.
    pub fails: Share,
    /// What becomes of requests whose client has given up.
    pub abandoned: Abandoned,
    /// What it answers without the server behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            rate: None,
            turn: None,
            queue: 100_000,
            overflow: Overflow::default(),
            time: Dist::default(),
            per_in_flight: Span::ZERO,
            fails: Share::default(),
            abandoned: Abandoned::default(),
            cache: None,
        }
    }
}

pub(super) fn is_default(requests: &Requests) -> bool {
    let Requests { rate, turn, queue, overflow, time, per_in_flight, fails, abandoned, cache } =
        requests;
    let usual = Requests::default();
    rate.is_none()
        && turn.is_none()
        && cache.is_none()
        && *queue == usual.queue
        && *overflow == usual.overflow
        && *time == usual.time
        && *per_in_flight == usual.per_in_flight
        && *fails == usual.fails
        && *abandoned == usual.abandoned
}

/// A cache in front of another server, full at the start.
///
/// It is look-aside: what is missing is asked of the server behind, and the caller who gets the answer
/// in time puts it in. Nobody does that with an answer that came too late.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// The server behind it.
    pub behind: Name,
    /// How many keys there are; each call asks for one of them, all alike.
    pub keys: Spanned<u32>,
    /// How long a key is kept; for ever if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}
