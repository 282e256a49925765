//! A what-if, as a library: the mapping of facts is sound if nothing else changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast::config::Signs;
use steadfast::probe::ProbeConfig;
use steadfast::recording::{Recorder, Replay, Start};
use steadfast::{
    Action, AttemptId, BreakerId, BreakerProfileId, CallFailure, CallId, CallProfileId, Config,
    ConnId, DialCause, Endpoint, EndpointId, Event, LossCause, Manager, PeerId, PeerProfileId,
    PingId, Tag, Target, Time,
};
use steadfast_sim::WhatIf;

/// What comes next, by chance: a driver that is late, and tells of what is long gone.
struct Chaos {
    state: u64,
    conns: Vec<ConnId>,
    pings: Vec<PingId>,
    attempts: Vec<AttemptId>,
}

impl Chaos {
    fn below(&mut self, most: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) % most
    }

    fn pick<T: Copy>(&mut self, of: fn(&Self) -> &Vec<T>) -> Option<T> {
        let last = of(self).len().checked_sub(1)?;
        // Mostly one of the last few, which may still be alive.
        let back = if self.below(8) == 0 { self.below(40) } else { self.below(4) };
        of(self).get(last.saturating_sub(usize::try_from(back).unwrap())).copied()
    }

    fn event(&mut self) -> Option<Event> {
        let (peer, breaker) = (PeerId(self.below(4)), BreakerId(self.below(2)));
        let (call, profile) = (CallId(self.below(6)), CallProfileId(0));
        let conn = self.pick(|all| &all.conns);
        let retry_after = None;
        Some(match self.below(30) {
            0..4 => Event::Connected { conn: conn?, resumed: false },
            4 | 5 => Event::DialFailed { conn: conn?, cause: DialCause::Refused, retry_after },
            6 | 7 => Event::Lost { conn: conn?, cause: LossCause::Reset },
            8 => Event::Heard { conn: conn? },
            9 => {
                let (leaves_in, reconnect_in) = (None, Duration::ZERO);
                Event::GoAway { conn: conn?, leaves_in, reconnect_in }
            }
            10 | 11 => Event::Pong { ping: self.pick(|all| &all.pings)? },
            12..14 => Event::Succeeded { attempt: self.pick(|all| &all.attempts)? },
            14 => {
                let (attempt, kind) = (self.pick(|all| &all.attempts)?, CallFailure::Error);
                Event::Failed { attempt, kind, retry_after: None }
            }
            15 => Event::Dropped { attempt: self.pick(|all| &all.attempts)? },
            16 => Event::Call { call, target: Target::Breaker(breaker), profile, deadline: None },
            17 | 18 => {
                let target = Target::Peer { peer, breaker };
                Event::Call { call, target, profile, deadline: None }
            }
            19 => Event::CancelCall { call },
            20 => Event::Disconnect { peer },
            21 => Event::RemovePeer { peer },
            22 => {
                let endpoint = |id| Endpoint { id: EndpointId(id), breaker };
                let endpoints = vec![endpoint(0), endpoint(1)];
                Event::AddPeer { peer, profile: PeerProfileId(0), endpoints }
            }
            23 => Event::Accepted { peer, tag: Tag(self.below(100)) },
            24 if self.below(4) == 0 => Event::NetworkDown,
            25 => Event::NetworkUp,
            26 if self.below(9) == 0 => Event::Restarted,
            _ => Event::Connect { peer },
        })
    }

    fn learn(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Dial { conn, .. } | Action::Adopt { conn, .. } => self.conns.push(*conn),
                Action::Ping { ping, .. } => self.pings.push(*ping),
                Action::StartAttempt { attempt, .. } => self.attempts.push(*attempt),
                _ => {}
            }
        }
    }
}

/// A recording of a driver that keeps to nothing.
fn chaotic(seed: u64) -> Vec<u8> {
    let mut config = Config::new(seed);
    config.peer_profiles[0].health.signs = Signs::Pings(ProbeConfig::default());
    config.peer_profiles[0].inbound = true;
    config.peer_profiles[0].dial_timeout = Duration::from_secs(2);
    let mut recorder = Recorder::new(Vec::new(), &BTreeMap::new(), &Start::new(&config)).unwrap();
    let mut manager = Manager::new(config, 7).unwrap();
    let mut chaos = Chaos { state: seed, conns: vec![], pings: vec![], attempts: vec![] };
    let mut now = Time::ZERO;
    let mut step = |manager: &mut Manager, now, event: Event, chaos: &mut Chaos| {
        let actions = manager.step(event.clone(), now);
        recorder.step(0, now, &event, &actions).unwrap();
        chaos.learn(&actions);
    };
    for breaker in [BreakerId(0), BreakerId(1)] {
        let event = Event::AddBreaker { breaker, profile: BreakerProfileId(0) };
        step(&mut manager, now, event, &mut chaos);
    }
    for _ in 0..600 {
        let wait = Duration::from_millis(chaos.below(800));
        let deadline = manager.next_deadline().filter(|deadline| *deadline <= now + wait);
        if let (Some(deadline), true) = (deadline, chaos.below(5) > 0) {
            // In time, a little late, or as after a sleep.
            let late = [0, 0, 1, 700][usize::try_from(chaos.below(4)).unwrap()];
            now = deadline + Duration::from_millis(late);
            step(&mut manager, now, Event::Tick, &mut chaos);
        } else if let Some(event) = chaos.event() {
            now += wait;
            step(&mut manager, now, event, &mut chaos);
        }
    }
    recorder.finish(&[manager.run_digest()]).unwrap()
}

#[test]
fn whatever_the_driver_did_an_empty_what_if_comes_to_the_recorded_answers() {
    let same = WhatIf::parse("", "empty").unwrap();
    let other =
        WhatIf::parse("peer.backoff = { base = \"100ms\", cap = \"2s\" }", "other").unwrap();
    let mut differing = 0;
    for seed in 0..60 {
        let recording = chaotic(seed);
        let replay = || Replay::new(recording.as_slice()).unwrap();
        let report = same.run(replay(), replay()).unwrap();
        assert!(report.is_same(), "seed {seed}: {report}");
        let report = other.run(replay(), replay()).unwrap();
        differing += u32::from(!report.is_same());
    }
    assert!(differing > 30, "{differing}");
}
