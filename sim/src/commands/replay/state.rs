//! Who waits for what at a moment.

use std::collections::BTreeMap;
use std::fmt::Write;

use steadfast::breaker::State;
use steadfast::{Blocked, BreakerId, Manager, PeerState, Stats, Time};

use super::words;

/// How many of a kind are listed one by one.
const MOST: usize = 20;

/// The state of all managers as they are, `title` being when that is.
pub(super) fn show(text: &mut String, managers: &[Manager], title: &str, next_at: Option<Time>) {
    let next = match next_at {
        Some(next) => format!("the next step is at {next}"),
        None => "nothing follows".to_owned(),
    };
    let _ = writeln!(text, "\n{title}; {next}");
    let mut stats = Stats::default();
    managers.iter().for_each(|manager| stats.merge(manager.stats()));
    let peers = [
        (stats.peers.connected, "connected"),
        (stats.peers.connecting, "connecting"),
        (stats.peers.reconnecting, "reconnecting"),
        (stats.peers.failed, "failed"),
        (stats.peers.disconnected, "disconnected"),
    ];
    let _ = writeln!(text, "{:<10} {}", "peers", counts(&peers));
    let _ = writeln!(text, "{:<10} {} in flight", "dials", stats.dials_in_flight);
    let calls = [
        (stats.calls_now.running, "running"),
        (stats.calls_now.connection, "waiting for a connection"),
        (stats.calls_now.turn, "waiting for their turn"),
        (stats.calls_now.backing_off, "waiting for their next attempt"),
    ];
    let _ = writeln!(text, "{:<10} {}", "calls", counts(&calls));
    let deadline = managers.iter().filter_map(Manager::next_deadline).min();
    let _ = writeln!(text, "{:<10} {}", "deadline", words::moment(deadline));

    let several = managers.len() > 1;
    let (mut behind, mut without) = (BTreeMap::new(), List::new());
    for (place, manager) in managers.iter().enumerate() {
        for peer in manager.peers() {
            let Some(why) = manager.why(peer) else { continue };
            if let Some(Blocked::Breaker { breaker, .. } | Blocked::Turn { breaker, .. }) =
                why.blocked
            {
                *behind.entry((place, breaker)).or_insert(0_u32) += 1;
            }
            if !matches!(why.state, PeerState::Connected | PeerState::Disconnected) {
                without.add(|| format!("{:<10} {}", named(several, place, peer), words::why(&why)));
            }
        }
    }
    let mut not_closed = List::new();
    for (place, manager) in managers.iter().enumerate() {
        for breaker in manager.breakers() {
            let Some(state) = manager.breaker_state(breaker) else { continue };
            if state != State::Closed {
                let waiting = waiting(manager, breaker, behind.get(&(place, breaker)));
                not_closed.add(|| {
                    let name = named(several, place, breaker);
                    format!("{name:<10} {}{waiting}", words::breaker(state))
                });
            }
        }
    }
    let closed = [(stats.breakers.closed, "closed"), (not_closed.count, "not closed")];
    not_closed.show(text, &format!("{:<10} {}", "breakers", counts(&closed)));
    let title = match without.count {
        0 => "nobody for a connection".to_owned(),
        1 => "1 peer for a connection".to_owned(),
        many => format!("{many} peers for a connection"),
    };
    without.show(text, &format!("{:<10} {title}", "waiting"));
}

/// Who stands behind a breaker.
fn waiting(manager: &Manager, breaker: BreakerId, peers: Option<&u32>) -> String {
    let calls = manager.gates(breaker).map_or(0, |gates| gates.waiting);
    let peers = peers.copied().unwrap_or(0);
    let waiting = [
        (peers, if peers == 1 { "peer" } else { "peers" }),
        (calls, if calls == 1 { "call" } else { "calls" }),
    ];
    match peers + calls {
        0 => String::new(),
        _ => format!("; in line: {}", counts(&waiting)),
    }
}

/// Those counts that are not zero.
fn counts(counts: &[(u32, &str)]) -> String {
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<String> = some.map(|(count, name)| format!("{count} {name}")).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

/// A name, and whose it is where there are several managers.
pub(super) fn named(several: bool, manager: usize, name: impl std::fmt::Display) -> String {
    if several { format!("{name} of manager {manager}") } else { name.to_string() }
}

/// The first few of many.
struct List {
    count: u32,
    lines: Vec<String>,
}

impl List {
    const fn new() -> Self {
        Self { count: 0, lines: Vec::new() }
    }

    fn add(&mut self, line: impl FnOnce() -> String) {
        self.count += 1;
        if self.lines.len() < MOST {
            self.lines.push(line());
        }
    }

    fn show(&self, text: &mut String, title: &str) {
        let _ = writeln!(text, "{title}");
        for line in &self.lines {
            let _ = writeln!(text, "  {line}");
        }
        let more = (self.count as usize).saturating_sub(self.lines.len());
        if more > 0 {
            let _ = writeln!(text, "  … and {more} more");
        }
    }
}
