//! A driver that says anything at all, at any moment.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use steadfast::{
    Action, AttemptId, BreakerId, BreakerProfileId, CallFailure, CallId, CallProfileId, ConnId,
    DialCause, Endpoint, EndpointId, Event, LossCause, Manager, PeerId, PeerProfileId, PingId,
    RetryAfter, Tag, Target, Time,
};

use crate::{MAX_TICKS, check, compare_with_twin, configs, damage, restored};

/// Steps of one run.
const MAX_STEPS: usize = 400;

pub(crate) fn play(bytes: &mut Unstructured<'_>) -> Result<()> {
    let config = configs::config(bytes)?;
    let mut manager = Manager::new(config.clone(), 7).unwrap();
    let mut given = Given::default();
    let mut told = Vec::new();
    let mut ticks = 0;
    while told.len() < MAX_STEPS && !bytes.is_empty() {
        if bytes.ratio(1, 32)? {
            manager = restored(&manager, bytes.arbitrary()?);
        }
        let at = moment(&manager, bytes)?;
        let event = given.event(bytes)?;
        step(&mut manager, event, at, &mut given, &mut told);
    }
    // And then it sleeps to each deadline, as it should.
    while let Some(due) = manager.next_deadline().filter(|&due| due < Time::MAX) {
        ticks = if due == manager.now() { ticks + 1 } else { 0 };
        assert!(ticks < MAX_TICKS, "woken {ticks} times at {due}");
        step(&mut manager, Event::Tick, due, &mut given, &mut told);
        if told.len() > 2 * MAX_STEPS {
            break;
        }
    }
    compare_with_twin(Manager::new(config, 8).unwrap(), told, &manager);
    Ok(())
}

fn step(
    manager: &mut Manager,
    event: Event,
    at: Time,
    given: &mut Given,
    told: &mut Vec<(Event, Time)>,
) {
    let actions = manager.step(event.clone(), at);
    check(manager, &(at, &event, &actions));
    given.note(&actions);
    told.push((event, at));
}

/// Some moment: mostly a little later than the last, or when it asked to be woken.
fn moment(manager: &Manager, bytes: &mut Unstructured<'_>) -> Result<Time> {
    let (now, next) = (manager.now(), manager.next_deadline().unwrap_or(manager.now()));
    Ok(match bytes.arbitrary::<u8>()? {
        0..=99 => now,
        100..=139 => now + Duration::from_millis(bytes.arbitrary::<u8>()?.into()),
        140..=179 => now + Duration::from_millis(bytes.arbitrary::<u16>()?.into()),
        180..=219 => next,
        220..=224 => next.minus_nanos(1),
        225..=234 => next.plus_nanos(bytes.arbitrary::<u32>()?.into()),
        235..=239 => now.plus_nanos(bytes.arbitrary::<u32>()?.into()),
        240..=245 => now.minus_nanos(bytes.arbitrary::<u32>()?.into()),
        246..=249 => now + Duration::from_secs(bytes.arbitrary::<u16>()?.into()),
        250 => Time::ZERO,
        251 => Time::MAX,
        252 => Time::MAX.minus_nanos(bytes.arbitrary::<u32>()?.into()),
        _ => Time::from_nanos(bytes.arbitrary()?),
    })
}

/// What the manager gave out, whatever became of it.
#[derive(Default)]
struct Given {
    conns: Vec<u64>,
    pings: Vec<u64>,
    attempts: Vec<u64>,
}

impl Given {
    fn note(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Dial { conn, .. } | Action::Adopt { conn, .. } => {
                    self.conns.push(conn.to_raw());
                }
                Action::Ping { ping, .. } => self.pings.push(ping.to_raw()),
                Action::StartAttempt { attempt, .. } => self.attempts.push(attempt.to_raw()),
                _ => {}
            }
        }
    }

    fn conn(&self, bytes: &mut Unstructured<'_>) -> Result<ConnId> {
        one_of(&self.conns, bytes).map(ConnId::from_raw)
    }

    fn ping(&self, bytes: &mut Unstructured<'_>) -> Result<PingId> {
        one_of(&self.pings, bytes).map(PingId::from_raw)
    }

    fn attempt(&self, bytes: &mut Unstructured<'_>) -> Result<AttemptId> {
        one_of(&self.attempts, bytes).map(AttemptId::from_raw)
    }

    fn event(&self, bytes: &mut Unstructured<'_>) -> Result<Event> {
        Ok(match bytes.arbitrary::<u8>()? % 64 {
            0 => Event::AddBreaker {
                breaker: breaker(bytes)?,
                profile: BreakerProfileId(profile(bytes)?),
            },
            1 => Event::RemoveBreaker { breaker: breaker(bytes)? },
            2..=5 => Event::AddPeer {
                peer: peer(bytes)?,
                profile: PeerProfileId(profile(bytes)?),
                endpoints: endpoints(bytes)?,
            },
            6 => Event::SetEndpoints { peer: peer(bytes)?, endpoints: endpoints(bytes)? },
            7 => Event::RemovePeer { peer: peer(bytes)? },
            8..=12 => Event::Connect { peer: peer(bytes)? },
            13 => Event::Disconnect { peer: peer(bytes)? },
            14..=17 => Event::Call {
                call: CallId(name(bytes)?),
                target: target(bytes)?,
                profile: CallProfileId(profile(bytes)?),
                deadline: bytes.arbitrary::<bool>()?.then(|| time(bytes)).transpose()?,
            },
            18 => Event::CancelCall { call: CallId(name(bytes)?) },
            19..=24 => Event::Connected { conn: self.conn(bytes)?, resumed: bytes.arbitrary()? },
            25..=28 => Event::DialFailed {
                conn: self.conn(bytes)?,
                cause: *bytes.choose(&DIAL_CAUSES)?,
                retry_after: bytes.arbitrary::<bool>()?.then(|| span(bytes)).transpose()?,
            },
            29..=31 => Event::Lost { conn: self.conn(bytes)?, cause: *bytes.choose(&LOSS_CAUSES)? },
            32 => Event::GoAway {
                conn: self.conn(bytes)?,
                leaves_in: bytes.arbitrary::<bool>()?.then(|| span(bytes)).transpose()?,
                reconnect_in: span(bytes)?,
            },
            33 => Event::Heard { conn: self.conn(bytes)? },
            34..=36 => Event::Heartbeat { conn: self.conn(bytes)? },
            37..=38 => Event::Pong { ping: self.ping(bytes)? },
            39 => {
                let (conn, latency) = (self.conn(bytes)?, span(bytes)?);
                Event::Metrics { conn, latency, loss: million(bytes)? }
            }
            40..=41 => Event::Accepted { peer: peer(bytes)?, tag: Tag(bytes.arbitrary()?) },
            42..=43 => Event::Succeeded { attempt: self.attempt(bytes)? },
            44..=46 => Event::Failed {
                attempt: self.attempt(bytes)?,
                kind: *bytes.choose(&CallFailure::ALL)?,
                retry_after: match bytes.arbitrary::<u8>()? % 4 {
                    0 => Some(RetryAfter::Never),
                    1 => Some(RetryAfter::After(span(bytes)?)),
                    _ => None,
                },
            },
            47 => Event::Dropped { attempt: self.attempt(bytes)? },
            48 => Event::NetworkDown,
            49..=50 => Event::NetworkUp,
            51 => Event::NetworkChanged,
            52 => Event::Paused,
            53 => Event::Resumed,
            54 => Event::Load { load: million(bytes)? },
            55 => Event::Restarted,
            56 => Event::ForceOpen { breaker: breaker(bytes)? },
            57 => Event::Disable { breaker: breaker(bytes)? },
            58 => Event::WatchOnly { breaker: breaker(bytes)?, on: bytes.arbitrary()? },
            59 => Event::ResetBreaker { breaker: breaker(bytes)? },
            60 => {
                Event::Revive { peer: bytes.arbitrary::<bool>()?.then(|| peer(bytes)).transpose()? }
            }
            _ => Event::Tick,
        })
    }
}

/// One of those given out, the latest first; or one like it; or any.
fn one_of(given: &[u64], bytes: &mut Unstructured<'_>) -> Result<u64> {
    let chosen = bytes.arbitrary::<u8>()?;
    let place = usize::from(chosen & 31).checked_rem(given.len());
    let known = place.and_then(|place| given.iter().rev().nth(place)).copied().unwrap_or_default();
    Ok(match chosen >> 5 {
        // The slot, in another generation.
        0 => known.wrapping_add(u64::from(bytes.arbitrary::<u8>()?) << 28),
        1 => bytes.arbitrary()?,
        _ => known,
    })
}

/// Mostly one of a few.
fn name(bytes: &mut Unstructured<'_>) -> Result<u64> {
    match bytes.arbitrary::<u8>()? {
        few @ 0..=251 => Ok(u64::from(few % 8)),
        _ => bytes.arbitrary(),
    }
}

fn peer(bytes: &mut Unstructured<'_>) -> Result<PeerId> {
    name(bytes).map(PeerId)
}

fn breaker(bytes: &mut Unstructured<'_>) -> Result<BreakerId> {
    match bytes.arbitrary::<u8>()? {
        few @ 0..=251 => Ok(BreakerId(u64::from(few % 4))),
        _ => bytes.arbitrary().map(BreakerId),
    }
}

fn profile(bytes: &mut Unstructured<'_>) -> Result<u16> {
    match bytes.arbitrary::<u8>()? {
        few @ 0..=251 => Ok(u16::from(few % 7)),
        _ => bytes.arbitrary(),
    }
}

fn endpoints(bytes: &mut Unstructured<'_>) -> Result<Vec<Endpoint>> {
    let count = match bytes.arbitrary::<u8>()? {
        few @ 0..=251 => few % 4,
        _ => 70,
    };
    let endpoint = |id| {
        let id = if bytes.ratio(1, 64)? { bytes.arbitrary()? } else { u32::from(id) };
        Ok(Endpoint { id: EndpointId(id), breaker: breaker(bytes)? })
    };
    (0..count).map(endpoint).collect()
}

fn target(bytes: &mut Unstructured<'_>) -> Result<Target> {
    let breaker = breaker(bytes)?;
    Ok(if bytes.arbitrary()? {
        Target::Peer { peer: peer(bytes)?, breaker }
    } else {
        Target::Breaker(breaker)
    })
}

fn time(bytes: &mut Unstructured<'_>) -> Result<Time> {
    damage::number(bytes).map(Time::from_nanos)
}

/// From nothing to more than time has.
fn span(bytes: &mut Unstructured<'_>) -> Result<Duration> {
    Ok(match bytes.arbitrary::<u8>()? {
        0..=127 => Duration::from_millis(bytes.arbitrary::<u16>()?.into()),
        128..=159 => Duration::ZERO,
        160..=191 => Duration::from_nanos(1),
        192..=223 => Duration::MAX,
        _ => Duration::from_nanos(bytes.arbitrary()?),
    })
}

fn million(bytes: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match bytes.arbitrary::<u8>()? {
        0..=127 => 1_000_000,
        128..=159 => 0,
        _ => bytes.arbitrary()?,
    })
}

pub(crate) const DIAL_CAUSES: [DialCause; 11] = [
    DialCause::Refused,
    DialCause::Timeout,
    DialCause::Unreachable,
    DialCause::Resolve,
    DialCause::Tls,
    DialCause::Throttled,
    DialCause::Auth,
    DialCause::Incompatible,
    DialCause::NotFound,
    DialCause::Local,
    DialCause::Cancelled,
];

pub(crate) const LOSS_CAUSES: [LossCause; 7] = [
    LossCause::Eof,
    LossCause::Reset,
    LossCause::Replaced,
    LossCause::Kicked,
    LossCause::Protocol,
    LossCause::Suspected,
    LossCause::Local,
];
