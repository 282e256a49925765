//! A thousand peers behind a hundred breakers, connected at once by an obliging network.

use std::time::Duration;

use steadfast::config::{Detector, HealthConfig, Signs};
use steadfast::{
    Action, BreakerId, BreakerProfileId, Config, ConnId, Endpoint, EndpointId, Event, Manager,
    PeerId, PeerProfileId, Time,
};

pub(crate) const PEERS: u64 = 1_000;
const BREAKERS: u64 = 100;

/// A connected fleet, and what its driver holds.
pub(crate) struct Fleet {
    pub(crate) manager: Manager,
    pub(crate) conns: Vec<ConnId>,
    pub(crate) now: Time,
    pub(crate) actions: Vec<Action>,
}

impl Fleet {
    /// Judged by a deadline of 30 s: doubted after 20 s of silence.
    pub(crate) fn new() -> Self {
        Self::with(Detector::Deadline(Duration::from_secs(30)))
    }

    pub(crate) fn with(detector: Detector) -> Self {
        let mut config = Config::new(1);
        config.peer_profiles[0].health =
            HealthConfig { signs: Signs::Heartbeats, detector, ..HealthConfig::default() };
        let mut fleet = Self {
            manager: Manager::new(config, 2).unwrap(),
            conns: Vec::new(),
            now: Time::ZERO,
            actions: Vec::new(),
        };
        // So that its timers stand in calendars, as those of a large fleet do.
        fleet.manager.reserve(5_000, 5_000);
        for id in 0..BREAKERS {
            let (breaker, profile) = (BreakerId(id), BreakerProfileId(0));
            fleet.step(Event::AddBreaker { breaker, profile });
        }
        for id in 0..PEERS {
            let endpoint = |place: u64| Endpoint {
                id: EndpointId(u32::from(place > 0)),
                breaker: BreakerId((id + place) % BREAKERS),
            };
            let (peer, profile) = (PeerId(id), PeerProfileId(0));
            let endpoints = vec![endpoint(0), endpoint(1)];
            fleet.step(Event::AddPeer { peer, profile, endpoints });
            fleet.step(Event::Connect { peer });
        }
        fleet.connect_all();
        fleet
    }

    pub(crate) fn step(&mut self, event: Event) {
        self.manager.step_into(event, self.now, &mut self.actions);
    }

    /// Answers every dial with success, tick by tick, until everybody is connected.
    pub(crate) fn connect_all(&mut self) {
        let mut next = self.conns.len();
        loop {
            let dials = self.actions.drain(..).filter_map(|action| match action {
                Action::Dial { conn, .. } => Some(conn),
                _ => None,
            });
            self.conns.extend(dials);
            if let Some(&conn) = self.conns.get(next) {
                next += 1;
                self.step(Event::Connected { conn, resumed: false });
            } else if u64::from(self.manager.stats().peers.connected) < PEERS {
                self.now = self.manager.next_deadline().expect("somebody waits for a deadline");
                self.step(Event::Tick);
            } else {
                return;
            }
        }
    }

    /// Connections in random order, each as often as chance has it, by a linear congruential
    /// generator: the same at each run.
    pub(crate) fn at_random(&self, count: usize) -> Vec<ConnId> {
        let places = crate::parts::random_below(PEERS, count);
        places.into_iter().map(|place| self.conns[usize::try_from(place).unwrap()]).collect()
    }
}
