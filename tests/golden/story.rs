//! A script in, a timeline out: one line an event, what came of it beside it.
//!
//! ```text
//! breaker b1                      peer p1 b1 b2 [as PROFILE]      endpoints p1 e0@b1 e7@b2
//! +2s connected p1 resumed        dial-failed p1 refused 10s      lost c3 reset
//! +1s wait                        sleep 10s (without a tick)      why p1
//! +1s pass (without a tick)       back 3s (a tick, too early)     restarted
//! call r1 b1 [as PROFILE] [by 5s] call r2 p1@b1                   cancel r1
//! late 2s succeeded r1 (the driver sleeps over its deadlines, and feeds that first)
//! succeeded r1                    failed a3 throttled [10s|never] dropped r1      gates b1
//! ```
//!
//! A line begins with the time since the one before; on the way there the driver ticks at each
//! deadline, and a tick that does something gets a line of its own. `p1` stands for the dial or the
//! connection of p1, `c3` for that one, whatever has become of it; `r1` for the latest attempt of that
//! call, `a3` for that one. Invariants are checked after each
//! step, and the driver's conduct by a ledger.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::render::{at, breaker_state, render, state, word};
use crate::text::{read, written};
use steadfast::{
    Action, AttemptId, Blocked, BreakerId, BreakerProfileId, CallFailure, CallId, CallProfileId,
    Config, ConnId, DialCause, Endpoint, EndpointId, Event, Ledger, LossCause, Manager, PeerId,
    PeerProfileId, PingId, RetryAfter, Tag, Target, Time,
};

/// Plays the script; its timeline, and the manager as it is then.
pub(crate) fn play(config: Config, script: &str) -> (String, Manager) {
    let manager = Manager::new(config, 7).unwrap();
    let mut teller = Teller {
        manager,
        ledger: Ledger::new(),
        now: Time::ZERO,
        conns: BTreeMap::new(),
        pings: BTreeMap::new(),
        attempts: BTreeMap::new(),
        timeline: String::new(),
    };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        teller.tell(line);
    }
    (teller.timeline, teller.manager)
}

struct Teller {
    manager: Manager,
    ledger: Ledger,
    now: Time,
    conns: BTreeMap<PeerId, ConnId>,
    pings: BTreeMap<ConnId, PingId>,
    attempts: BTreeMap<CallId, AttemptId>,
    timeline: String,
}

impl Teller {
    fn tell(&mut self, line: &str) {
        let (after, line) = match line.strip_prefix('+') {
            Some(timed) => {
                let (after, rest) = timed.split_once(' ').unwrap();
                (span(after), rest.trim())
            }
            None => (Duration::ZERO, line),
        };
        self.sleep_until(self.now + after);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["wait"] => self.step(Event::Tick, "tick", false),
            ["pass"] => {}
            ["back", by] => {
                let now = self.now;
                let back = u64::try_from(span(by).as_nanos()).unwrap();
                self.now = Time::from_nanos(now.as_nanos().saturating_sub(back));
                self.step(Event::Tick, line, true);
                self.now = now;
            }
            ["sleep", late] => {
                self.now += span(late);
                self.step(Event::Tick, line, true);
            }
            ["late", late, ref event @ ..] => {
                self.now += span(late);
                let event = self.event(event);
                self.step(event, line, true);
            }
            ["why", call] if call.starts_with('r') => {
                let answer = self.why_call(CallId(number(call)));
                self.write(line, &answer);
            }
            ["gates", breaker] => {
                let view = self.manager.gates(BreakerId(number(breaker))).unwrap();
                let budget =
                    view.budget.map(|b| format!(", budget {}.{:03}", b / 1_000, b % 1_000));
                let answer = format!(
                    "{} calls, {} of {} running, {} in line{}",
                    view.calls,
                    view.running,
                    view.limit,
                    view.waiting,
                    budget.unwrap_or_default()
                );
                self.write(line, &answer);
            }
            ["window", breaker] => {
                let dials = self.manager.dial_window(BreakerId(number(breaker))).unwrap();
                self.write(line, &format!("{dials} dials at once"));
            }
            ["why", peer] => {
                let answer = self.why(PeerId(number(peer)));
                self.write(line, &answer);
            }
            ["new-process"] => {
                let text = written(&self.manager.snapshot());
                self.manager = Manager::restore(read(&text).unwrap(), 8).unwrap();
                self.ledger = Ledger::new();
                self.step(Event::Restarted, line, true);
            }
            _ => {
                let event = self.event(&words);
                self.step(event, line, true);
            }
        }
    }

    fn sleep_until(&mut self, until: Time) {
        while let Some(deadline) = self.manager.next_deadline().filter(|&due| due < until) {
            self.now = deadline.max(self.now);
            self.step(Event::Tick, "tick", false);
        }
        self.now = until;
    }

    fn step(&mut self, event: Event, told: &str, always: bool) {
        let actions = self.manager.step(event.clone(), self.now);
        self.manager.check().unwrap();
        let verdict = self.ledger.observe(&event, &actions, self.now, self.manager.next_deadline());
        for action in &actions {
            match action {
                Action::Dial { conn, peer, .. } | Action::Adopt { conn, peer, .. } => {
                    self.conns.insert(*peer, *conn);
                }
                Action::Ping { ping, conn } => {
                    self.pings.insert(*conn, *ping);
                }
                Action::StartAttempt { attempt, call, .. } => {
                    self.attempts.insert(*call, *attempt);
                }
                _ => {}
            }
        }
        let mut answer: Vec<String> = actions.iter().map(render).collect();
        answer.extend(verdict.err().map(|breach| format!("BREACH: {breach}")));
        if always || !answer.is_empty() {
            self.write(told, &answer.join("; "));
        }
    }

    fn write(&mut self, told: &str, answer: &str) {
        let line = format!("{:>9}  {told:<32}  {answer}", at(self.now));
        writeln!(self.timeline, "{}", line.trim_end()).unwrap();
    }

    fn why(&self, peer: PeerId) -> String {
        let why = self.manager.why(peer).unwrap();
        let mut answer = format!("{} since {}", state(why.state), at(why.since));
        if let Some(until) = why.until {
            write!(answer, " until {}", at(until)).unwrap();
        }
        let blocked = why.blocked.map(|blocked| match blocked {
            Blocked::Backoff => "backing off".into(),
            Blocked::Dial(conn) => format!("dialing {conn}"),
            Blocked::Breaker { breaker, state, ahead } => {
                format!("waits for {breaker}, {}, {ahead} ahead", breaker_state(state))
            }
            Blocked::Turn { breaker, ahead } => {
                format!("waits for its turn at {breaker}, {ahead} ahead")
            }
            Blocked::Network => "waits for the network".into(),
            Blocked::Pause => "waits for the app".into(),
            Blocked::Revival => "waits to be revived".into(),
            other => format!("{other:?}"),
        });
        if let Some(blocked) = blocked {
            write!(answer, ", {blocked}").unwrap();
        }
        write!(answer, ", failures {}", why.failures).unwrap();
        answer
    }

    fn why_call(&self, call: CallId) -> String {
        let Some(why) = self.manager.why_call(call) else { return "no such call".into() };
        let mut answer = format!("{} attempts", why.attempts);
        if let Some(waits) = why.waits {
            write!(answer, ", waits for {}", word(waits)).unwrap();
        }
        if let Some(until) = why.until {
            write!(answer, " until {}", at(until)).unwrap();
        }
        if let Some(last) = why.last {
            write!(answer, ", last {}", word(last)).unwrap();
        }
        answer
    }

    /// `r1`: its latest attempt; `a3` or `a3.1`: that one.
    fn attempt(&self, word: &str) -> AttemptId {
        if word.starts_with('r') {
            return self.attempts[&CallId(number(word))];
        }
        AttemptId::from_raw(issued(word))
    }

    fn call(&self, name: &str, target: &str, words: &[&str]) -> Event {
        let target = match target.split_once('@') {
            Some((peer, breaker)) => {
                Target::Peer { peer: PeerId(number(peer)), breaker: BreakerId(number(breaker)) }
            }
            None => Target::Breaker(BreakerId(number(target))),
        };
        let (mut named, mut deadline) = ("default", None);
        for pair in words.chunks(2) {
            match *pair {
                ["as", name] => named = name,
                ["by", after] => deadline = Some(self.now + span(after)),
                _ => panic!("no such words: {pair:?}"),
            }
        }
        let found = self.manager.config().call_profile(named);
        let profile = profile(found, named, CallProfileId);
        Event::Call { call: CallId(number(name)), target, profile, deadline }
    }

    /// `p1`: its dial or connection; `c3` or `c3.1`: that one.
    fn conn(&self, word: &str) -> ConnId {
        if word.starts_with('p') {
            return self.conns[&PeerId(number(word))];
        }
        ConnId::from_raw(issued(word))
    }

    fn event(&self, words: &[&str]) -> Event {
        let config = self.manager.config();
        let breaker = |word: &str| BreakerId(number(word));
        match *words {
            ["breaker", name] => Event::AddBreaker {
                breaker: breaker(name),
                profile: config.breaker_profile("default").unwrap(),
            },
            ["breaker", name, "as", named] => Event::AddBreaker {
                breaker: breaker(name),
                profile: profile(config.breaker_profile(named), named, BreakerProfileId),
            },
            ["remove-breaker", name] => Event::RemoveBreaker { breaker: breaker(name) },
            ["peer", name, ref breakers @ ..] => {
                let (breakers, named) = match *breakers {
                    [ref breakers @ .., "as", named] => (breakers, named),
                    _ => (breakers, "default"),
                };
                Event::AddPeer {
                    peer: PeerId(number(name)),
                    profile: profile(config.peer_profile(named), named, PeerProfileId),
                    endpoints: endpoints(breakers),
                }
            }
            ["endpoints", name, ref breakers @ ..] => {
                Event::SetEndpoints { peer: PeerId(number(name)), endpoints: endpoints(breakers) }
            }
            ["remove", name] => Event::RemovePeer { peer: PeerId(number(name)) },
            ["connect", name] => Event::Connect { peer: PeerId(number(name)) },
            ["disconnect", name] => Event::Disconnect { peer: PeerId(number(name)) },
            ["connected", conn] => Event::Connected { conn: self.conn(conn), resumed: false },
            ["connected", conn, "resumed"] => {
                Event::Connected { conn: self.conn(conn), resumed: true }
            }
            ["dial-failed", conn, cause, ref hint @ ..] => Event::DialFailed {
                conn: self.conn(conn),
                cause: dial_cause(cause),
                retry_after: hint.first().map(|hint| span(hint)),
            },
            ["lost", conn, cause] => {
                Event::Lost { conn: self.conn(conn), cause: loss_cause(cause) }
            }
            ["heard", conn] => Event::Heard { conn: self.conn(conn) },
            ["heartbeat", conn] => Event::Heartbeat { conn: self.conn(conn) },
            ["go-away", conn, ref words @ ..] => {
                let (mut leaves_in, mut reconnect_in) = (None, Duration::ZERO);
                for pair in words.chunks(2) {
                    match *pair {
                        ["in", after] => leaves_in = Some(span(after)),
                        ["not-before", after] => reconnect_in = span(after),
                        _ => panic!("no such words: {pair:?}"),
                    }
                }
                Event::GoAway { conn: self.conn(conn), leaves_in, reconnect_in }
            }
            ["pong", ping] if ping.starts_with('g') => {
                Event::Pong { ping: PingId::from_raw(issued(ping)) }
            }
            ["pong", conn] => Event::Pong { ping: self.pings[&self.conn(conn)] },
            ["metrics", conn, latency, loss] => {
                Event::Metrics { conn: self.conn(conn), latency: span(latency), loss: share(loss) }
            }
            ["accepted", peer, tag] => {
                Event::Accepted { peer: PeerId(number(peer)), tag: Tag(number(tag)) }
            }
            ["call", name, target, ref words @ ..] => self.call(name, target, words),
            ["cancel", name] => Event::CancelCall { call: CallId(number(name)) },
            ["succeeded", attempt] => Event::Succeeded { attempt: self.attempt(attempt) },
            ["failed", attempt, kind, ref hint @ ..] => Event::Failed {
                attempt: self.attempt(attempt),
                kind: call_failure(kind),
                retry_after: hint.first().map(|hint| match *hint {
                    "never" => RetryAfter::Never,
                    hint => RetryAfter::After(span(hint)),
                }),
            },
            ["dropped", attempt] => Event::Dropped { attempt: self.attempt(attempt) },
            ["restarted"] => Event::Restarted,
            ["network", "down"] => Event::NetworkDown,
            ["network", "up"] => Event::NetworkUp,
            ["network", "changed"] => Event::NetworkChanged,
            ["paused"] => Event::Paused,
            ["resumed"] => Event::Resumed,
            ["load", load] => Event::Load { load: share(load) },
            ["force-open", name] => Event::ForceOpen { breaker: breaker(name) },
            ["disable", name] => Event::Disable { breaker: breaker(name) },
            ["watch-only", name, on] => Event::WatchOnly { breaker: breaker(name), on: on == "on" },
            ["reset", name] => Event::ResetBreaker { breaker: breaker(name) },
            ["revive", "all"] => Event::Revive { peer: None },
            ["revive", name] => Event::Revive { peer: Some(PeerId(number(name))) },
            _ => panic!("no such line: {words:?}"),
        }
    }
}

/// `b1 b2`: endpoints e0 and e1 behind them; `e7@b1`: that one.
fn endpoints(words: &[&str]) -> Vec<Endpoint> {
    let endpoint = |(place, word): (u32, &&str)| {
        let (id, breaker) = match word.split_once('@') {
            Some((id, breaker)) => (id[1..].parse().unwrap(), breaker),
            None => (place, *word),
        };
        Endpoint { id: EndpointId(id), breaker: BreakerId(number(breaker)) }
    };
    (0..).zip(words).map(endpoint).collect()
}

/// `c3`, `a3.1`, `g0.2`: an id of the manager's, by its slot and generation.
fn issued(word: &str) -> u64 {
    let (slot, generation) = word[1..].split_once('.').unwrap_or((&word[1..], "0"));
    generation.parse::<u64>().unwrap() << 28 | slot.parse::<u64>().unwrap()
}

/// A profile, by its name or else by its place.
fn profile<T>(found: Option<T>, word: &str, place: fn(u16) -> T) -> T {
    found.unwrap_or_else(|| place(word.parse().unwrap()))
}

fn number(word: &str) -> u64 {
    word[1..].parse().unwrap()
}

fn span(word: &str) -> Duration {
    let (digits, unit) = word.split_at(word.find(|c: char| c.is_alphabetic()).unwrap());
    let unit: u128 = match unit {
        "ns" => 1,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "years" => 31_557_600_000_000_000,
        _ => panic!("no such unit: {word}"),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let part = if decimals.is_empty() { 0 } else { decimals.parse::<u128>().unwrap() * unit };
    let scale = 10_u128.pow(u32::try_from(decimals.len()).unwrap());
    let nanos = whole.parse::<u128>().unwrap() * unit + part / scale;
    let second = 1_000_000_000;
    Duration::new(u64::try_from(nanos / second).unwrap(), u32::try_from(nanos % second).unwrap())
}

/// `50%` or `500000ppm`, in parts per million.
fn share(word: &str) -> u32 {
    if let Some(millionths) = word.strip_suffix("ppm") {
        return millionths.parse().unwrap();
    }
    word.strip_suffix('%').unwrap().parse::<u32>().unwrap() * 10_000
}

fn dial_cause(word: &str) -> DialCause {
    serde_json::from_value(word.replace('-', "_").into()).unwrap()
}

fn loss_cause(word: &str) -> LossCause {
    serde_json::from_value(word.replace('-', "_").into()).unwrap()
}

fn call_failure(word: &str) -> CallFailure {
    serde_json::from_value(word.replace('-', "_").into()).unwrap()
}
