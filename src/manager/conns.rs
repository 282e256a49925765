//! Dials and connections, each in two records: the one that the hottest events touch, and the rest.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::breaker::Permit;
use crate::container::list::Lists;
use crate::container::slab::Slab;
use crate::container::sparse::Sparse;
use crate::id::{ConnId, MAX_GENERATION, PingId};
use crate::manager::crowd::Trust;
use crate::phi::Phi;
use crate::probe::Probe;
use crate::time::Time;

/// How far a connection is, as others are told and snapshots have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub(crate) enum ConnPhase {
    /// The dial is in flight, under the breaker's permit.
    Dialing {
        /// The permit of the endpoint's breaker.
        permit: Permit,
        /// Whether we asked for the old session.
        resume: bool,
        /// When it times out.
        deadline: Time,
    },
    /// It is up.
    Up,
}

/// What hearing from a connection touches as a rule, and its timer as a rule: half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(crate) struct Pulse {
    id: ConnId,
    /// When anything was last heard on it.
    pub(crate) last_heard: Time,
    /// The process that it belongs to; see [`Conns::restart`].
    pub(crate) process: u32,
    /// Its peer's.
    pub(crate) profile: u16,
    stage: Stage,
    /// Whether anything was heard since it came up.
    pub(crate) heard: bool,
    /// Whether hearing from it means more than noting the moment: it is doubted, or a ping is out or
    /// due.
    pub(crate) attentive: bool,
    /// Whether its detector learns from it.
    pub(crate) learns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has the slot.
    Free,
    Dialing,
    Up,
}

impl Pulse {
    const FREE: Self = Self {
        id: ConnId::from_raw(0),
        last_heard: Time::ZERO,
        process: 0,
        profile: 0,
        stage: Stage::Free,
        heard: false,
        attentive: false,
        learns: false,
    };

    /// Of a connection on which nothing was heard yet.
    fn new(id: ConnId, conn: &Conn, profile: u16, process: u32, now: Time) -> Self {
        let stage = if conn.is_up() { Stage::Up } else { Stage::Dialing };
        let learns = conn.rhythm().is_some();
        Self { id, last_heard: now, process, profile, stage, learns, ..Self::FREE }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    pub(crate) fn come_up(&mut self, learns: bool, now: Time) {
        (self.stage, self.learns, self.last_heard) = (Stage::Up, learns, now);
    }

    /// Whether hearing from it means no more than to note the moment; `beats`: at its pace.
    pub(crate) fn only_notes(&self, beats: bool) -> bool {
        self.is_up() && !self.attentive && !(beats && self.learns)
    }
}

/// The rest of a connection: one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Conn {
    /// Its own: under it stand the pulse, which has the id, and what its pings came to.
    pub(crate) slot: u32,
    pub(crate) peer: u32,
    /// The endpoint it leads to; none when the peer dialed us or the endpoint is gone.
    pub(crate) endpoint: u32,
    /// Whether a failback made it.
    pub(crate) failed_back: bool,
    /// When it was dialed, then when it came up.
    pub(crate) since: Time,
    course: Course,
}

/// What a connection needs while it is dialed, and while it is up, in the same place:
/// [`ConnPhase`] with what is known of one that is up.
#[derive(Clone, Debug)]
enum Course {
    Dialing { permit: Permit, resume: bool, deadline: Time },
    Up(Watched),
}

/// What is known of a connection that is up.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// When the last periodic sign of life came that its detector measures the next one from; never
    /// if none counts.
    pub(crate) last_beat: Time,
    /// What speaks against it.
    pub(crate) trust: Trust,
    /// What its detector learns; apart, since few profiles have one that does.
    pub(crate) rhythm: Option<Box<Phi>>,
}

impl Conn {
    /// A connection that begins now, on which nothing was heard yet.
    fn new(slot: u32, peer: u32, endpoint: u32, phase: ConnPhase, now: Time) -> Self {
        let course = match phase {
            ConnPhase::Dialing { permit, resume, deadline } => {
                Course::Dialing { permit, resume, deadline }
            }
            ConnPhase::Up => Course::Up(Watched::new(None, now)),
        };
        Self { slot, peer, endpoint, failed_back: false, since: now, course }
    }

    pub(crate) const fn phase(&self) -> ConnPhase {
        match self.course {
            Course::Dialing { permit, resume, deadline } => {
                ConnPhase::Dialing { permit, resume, deadline }
            }
            Course::Up(_) => ConnPhase::Up,
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.course, Course::Up(_))
    }

    /// It is up from now on; coming up counts as the first heartbeat.
    pub(crate) fn come_up(&mut self, rhythm: Option<Box<Phi>>, now: Time) {
        (self.since, self.course) = (now, Course::Up(Watched::new(rhythm, now)));
    }

    /// What is known of it, if it is up.
    pub(crate) const fn watched(&self) -> Option<&Watched> {
        match &self.course {
            Course::Dialing { .. } => None,
            Course::Up(watched) => Some(watched),
        }
    }

    /// Likewise, to be changed.
    pub(crate) const fn watched_mut(&mut self) -> Option<&mut Watched> {
        match &mut self.course {
            Course::Dialing { .. } => None,
            Course::Up(watched) => Some(watched),
        }
    }

    /// What speaks against it.
    pub(crate) const fn trust(&self) -> Trust {
        match &self.course {
            Course::Dialing { .. } => Trust::Full,
            Course::Up(watched) => watched.trust,
        }
    }

    /// When the last periodic sign of life came that counts; never if none does.
    pub(crate) const fn last_beat(&self) -> Time {
        match &self.course {
            Course::Dialing { .. } => Time::MAX,
            Course::Up(watched) => watched.last_beat,
        }
    }

    /// What its detector has learned.
    pub(crate) fn rhythm(&self) -> Option<&Phi> {
        self.watched()?.rhythm.as_deref()
    }

    /// The next interval between two signs of life counts for nothing.
    pub(crate) const fn forget_beat(&mut self) {
        if let Some(watched) = self.watched_mut() {
            watched.last_beat = Time::MAX;
        }
    }
}

impl Watched {
    const fn new(rhythm: Option<Box<Phi>>, now: Time) -> Self {
        let last_beat = if rhythm.is_some() { now } else { Time::MAX };
        Self { last_beat, trust: Trust::Full, rhythm }
    }
}

/// What asking the connection in a slot came to; apart, since few profiles have pings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) probe: Probe,
    /// The ping that is out.
    pub(crate) ping: Option<PingId>,
    /// Before this moment its silence does not count: it was to be pinged and was not.
    pub(crate) excused: Time,
    /// Pings that the slot had had before.
    before: u64,
    /// Pings that the slot has had.
    pings: u64,
}

impl Asked {
    const NEVER: Self =
        Self { probe: Probe::NEW, ping: None, excused: Time::ZERO, before: 0, pings: 0 };
}

/// Both records of a connection as one, which is how a snapshot has them.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) id: ConnId,
    pub(crate) last_heard: Time,
    pub(crate) last_beat: Option<Time>,
    pub(crate) peer: u32,
    pub(crate) endpoint: u32,
    pub(crate) process: u32,
    pub(crate) heard: bool,
    pub(crate) attentive: bool,
    pub(crate) failed_back: bool,
    pub(crate) phase: ConnPhase,
    pub(crate) since: Time,
    pub(crate) trust: Trust,
    pub(crate) excused: Time,
    pub(crate) rhythm: Option<Box<Phi>>,
    pub(crate) probe: Probe,
    pub(crate) ping: Option<PingId>,
    pub(crate) pings_before: u64,
}

impl Whole {
    fn into_parts(self, profile: u16) -> (Conn, Pulse) {
        let mut conn = Conn::new(self.id.slot(), self.peer, self.endpoint, self.phase, self.since);
        conn.failed_back = self.failed_back;
        if let Some(watched) = conn.watched_mut() {
            // Kept where a detector learns from it, and nowhere else.
            let last_beat = self.last_beat.filter(|_| self.rhythm.is_some());
            watched.last_beat = last_beat.unwrap_or(Time::MAX);
            (watched.trust, watched.rhythm) = (self.trust, self.rhythm);
        }
        let mut pulse = Pulse::new(self.id, &conn, profile, self.process, self.last_heard);
        (pulse.heard, pulse.attentive) = (self.heard, self.attentive);
        (conn, pulse)
    }
}

/// The list of this process's connections.
pub(crate) const LIVE: u32 = 0;
/// The list of the connections that an earlier process took down with it.
pub(crate) const ORPHANS: u32 = 1;
/// The list of the connections that are to be looked at because the network is another one.
pub(crate) const UNCHECKED: u32 = 2;

#[derive(Clone, Debug)]
pub(crate) struct Conns {
    pub(crate) slab: Slab<Conn>,
    /// By slot, as long as the slab's.
    pulses: Vec<Pulse>,
    pub(crate) lists: Lists,
    /// Beside the records, by slot: few profiles have pings.
    asked: Sparse<Asked>,
    pub(crate) process: u32,
}

impl Conns {
    pub(crate) const fn new() -> Self {
        Self {
            slab: Slab::new(),
            pulses: Vec::new(),
            lists: Lists::new(),
            asked: Sparse::new(Asked::NEVER),
            process: 0,
        }
    }

    pub(crate) fn reserve(&mut self, conns: usize) {
        self.slab.reserve(conns);
        let _ = self.pulses.try_reserve_exact(conns.saturating_sub(self.pulses.len()));
        self.lists.reserve(conns);
    }

    /// The slot of a connection that is there and belongs to this process.
    #[inline]
    pub(crate) fn find(&self, id: ConnId) -> Option<u32> {
        let pulse = self.pulses.get(id.slot() as usize)?;
        let own = pulse.id == id && pulse.stage != Stage::Free && pulse.process == self.process;
        own.then_some(id.slot())
    }

    /// The pulse of the connection in a slot; one that is free if nothing ever had it.
    #[inline]
    pub(crate) fn pulse(&self, slot: u32) -> &Pulse {
        self.pulses.get(slot as usize).unwrap_or(&Pulse::FREE)
    }

    /// The id of the connection in a slot.
    #[inline]
    pub(crate) fn id(&self, slot: u32) -> ConnId {
        self.pulse(slot).id
    }

    /// The pulse of the connection in a slot that is in use, to be changed.
    #[inline]
    #[expect(clippy::expect_used, reason = "a broken invariant of ours, not an input")]
    pub(crate) fn pulse_mut(&mut self, slot: u32) -> &mut Pulse {
        self.pulses.get_mut(slot as usize).expect("slot in use")
    }

    /// Whether no free slot has a pulse.
    pub(crate) fn are_free(&self) -> bool {
        let (slots, _) = self.slab.parts();
        let mut free = slots.iter().zip(&self.pulses).filter(|(conn, _)| conn.is_none());
        slots.len() == self.pulses.len() && free.all(|(_, pulse)| pulse.stage == Stage::Free)
    }

    /// Whether the two records of the connection in a slot agree, whose peer has this profile.
    pub(crate) fn has_pulse(&self, slot: u32, profile: u16) -> bool {
        let (pulse, conn) = (self.pulse(slot), self.slab.get(slot));
        conn.is_some_and(|conn| {
            let fresh = Pulse::new(pulse.id, conn, profile, pulse.process, pulse.last_heard);
            let all = |pulse: &Pulse| (pulse.profile, pulse.stage, pulse.learns);
            conn.slot == slot && pulse.id.slot() == slot && all(pulse) == all(&fresh)
        })
    }

    pub(crate) fn whole(&self, conn: &Conn) -> Whole {
        let (pulse, asked) = (self.pulse(conn.slot), self.asked(conn.slot));
        Whole {
            id: pulse.id,
            last_heard: pulse.last_heard,
            last_beat: (conn.last_beat() < Time::MAX).then_some(conn.last_beat()),
            peer: conn.peer,
            endpoint: conn.endpoint,
            process: pulse.process,
            heard: pulse.heard,
            attentive: pulse.attentive,
            failed_back: conn.failed_back,
            phase: conn.phase(),
            since: conn.since,
            trust: conn.trust(),
            excused: asked.excused,
            rhythm: conn.watched().and_then(|watched| watched.rhythm.clone()),
            probe: asked.probe,
            ping: asked.ping,
            pings_before: asked.before,
        }
    }

    /// How many connections each slot has had.
    pub(crate) fn generations(&self) -> Vec<u64> {
        self.pulses.iter().map(|pulse| pulse.id.generation()).collect()
    }

    /// How many pings each slot has had.
    pub(crate) fn pings(&self) -> Vec<u64> {
        (0..).zip(&self.pulses).map(|(slot, _)| self.asked(slot).pings).collect()
    }

    /// Puts in place all connections of a snapshot; `profile` tells that of a peer, `generations` and
    /// `pings` how many of them each slot has had.
    pub(crate) fn set_all(
        &mut self,
        all: Slab<Whole>,
        generations: &[u64],
        pings: &[u64],
        profile: impl Fn(u32) -> u16,
    ) {
        let of = |(slot, &generation)| Pulse { id: ConnId::new(slot, generation), ..Pulse::FREE };
        self.pulses = (0..).zip(generations).map(of).collect();
        for (slot, &pings) in (0..).zip(pings).filter(|(_, pings)| **pings > 0) {
            (self.asked_mut(slot).before, self.asked_mut(slot).pings) = (pings, pings);
        }
        for (slot, whole) in all.iter() {
            let Whole { probe, ping, excused, pings_before: before, .. } = *whole;
            let pings = self.asked(slot).pings;
            if pings > 0 || excused > Time::ZERO {
                *self.asked_mut(slot) = Asked { probe, ping, excused, before, pings };
            }
        }
        let pulses = &mut self.pulses;
        self.slab = all.map(|whole| {
            let profile = profile(whole.peer);
            let (conn, pulse) = whole.into_parts(profile);
            if let Some(own) = pulses.get_mut(conn.slot as usize) {
                *own = pulse;
            }
            conn
        });
    }

    /// What asking the connection in a slot has come to.
    #[inline]
    pub(crate) fn asked(&self, slot: u32) -> &Asked {
        self.asked.get(slot)
    }

    /// Likewise, to be changed; `None` if it was never asked.
    pub(crate) fn if_asked(&mut self, slot: u32) -> Option<&mut Asked> {
        self.asked.if_any(slot)
    }

    /// Likewise, of one that is asked now.
    pub(crate) fn asked_mut(&mut self, slot: u32) -> &mut Asked {
        self.asked.get_mut(slot)
    }

    /// The slot of the connection that the ping was sent on.
    pub(crate) fn find_ping(&self, id: PingId) -> Option<u32> {
        self.slab.get(id.slot())?;
        let process = self.pulse(id.slot()).process;
        let asked = self.asked(id.slot());
        let own = (asked.before..asked.pings).contains(&id.generation());
        (own && process == self.process).then_some(id.slot())
    }

    /// Takes a slot for a connection of that peer's, which has this profile, to that endpoint.
    pub(crate) fn insert(
        &mut self,
        peer: u32,
        profile: u16,
        endpoint: u32,
        phase: ConnPhase,
        now: Time,
    ) -> u32 {
        let slot = self.slab.next_slot();
        let index = slot as usize;
        if self.pulses.len() <= index {
            self.pulses.push(Pulse { id: ConnId::new(slot, 0), ..Pulse::FREE });
        }
        let conn = Conn::new(slot, peer, endpoint, phase, now);
        if let Some(asked) = self.if_asked(slot) {
            *asked = Asked { before: asked.pings, pings: asked.pings, ..Asked::NEVER };
        }
        let process = self.process;
        let pulse = self.pulse_mut(slot);
        *pulse = Pulse::new(pulse.id, &conn, profile, process, now);
        let slot = self.slab.insert(conn);
        self.lists.push_back(LIVE, slot);
        slot
    }

    /// Takes the connection out; its id is dead.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Conn> {
        self.lists.unlink(slot);
        let pulse = self.pulses.get_mut(slot as usize)?;
        let generation = pulse.id.generation();
        let exhausted = generation >= MAX_GENERATION;
        let next = generation.saturating_add(1).min(MAX_GENERATION);
        *pulse = Pulse { id: ConnId::new(slot, next), ..Pulse::FREE };
        let worn = self.asked(slot).pings > MAX_GENERATION;
        if exhausted || worn { self.slab.retire(slot) } else { self.slab.remove(slot) }
    }

    /// The next ping's id on the connection in `slot`; `None` once the slot has had them all.
    pub(crate) fn next_ping(&mut self, slot: u32) -> Option<PingId> {
        let asked = self.asked_mut(slot);
        let ping = (asked.pings <= MAX_GENERATION).then(|| PingId::new(slot, asked.pings))?;
        asked.pings += 1;
        Some(ping)
    }

    /// A new process begins: all connections are orphans, and whatever is said of them is stale.
    pub(crate) fn restart(&mut self) {
        self.process = self.process.wrapping_add(1);
        self.lists.splice(LIVE, ORPHANS);
        self.lists.splice(UNCHECKED, ORPHANS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::peers::NONE;
    use crate::phi::PhiConfig;
    use alloc::format;

    fn come_up(conns: &mut Conns) -> u32 {
        conns.insert(0, 0, NONE, ConnPhase::Up, Time::from_secs(9))
    }

    /// As from a snapshot.
    fn restored(conns: &Conns) -> Conns {
        let mut again = Conns::new();
        let all = conns.slab.clone().map(|conn| conns.whole(&conn));
        again.set_all(all, &conns.generations(), &conns.pings(), |_| 0);
        again
    }

    #[test]
    fn what_a_snapshot_has_of_connections_is_all_there_is() {
        let mut conns = Conns::new();
        let [learning, asked, excused, freed, plain] = [(); 5].map(|()| come_up(&mut conns));
        let (policy, now) = (PhiConfig::default().validate().unwrap(), Time::from_secs(10));
        conns.pulse_mut(learning).come_up(true, now);
        conns.slab[learning].come_up(Some(Box::new(Phi::new(&policy))), now);
        conns.asked_mut(asked).ping = conns.next_ping(asked);
        conns.asked_mut(excused).excused = now;
        conns.next_ping(freed).unwrap();
        conns.remove(freed).unwrap();
        assert_eq!(conns.whole(&conns.slab[plain]).last_beat, None, "that nobody measures from");
        let records = |conns: &mut Conns| {
            assert_eq!(come_up(conns), freed);
            let asked = (0..5).map(|slot| *conns.asked(slot)).collect::<Vec<_>>();
            format!("{:?}", (conns.slab.iter().collect::<Vec<_>>(), &conns.pulses, asked))
        };
        let again = records(&mut restored(&conns));
        assert_eq!(again, records(&mut conns));
    }

    #[test]
    fn records_that_stand_for_different_connections_do_not_agree() {
        let mut conns = Conns::new();
        let [one, other] = [(); 2].map(|()| come_up(&mut conns));
        assert!(conns.has_pulse(one, 0));
        conns.slab[one].slot = other;
        assert!(!conns.has_pulse(one, 0));
        conns.slab[one].slot = one;
        let id = conns.pulse(other).id;
        conns.pulse_mut(one).id = id;
        assert!(!conns.has_pulse(one, 0));
    }

    #[test]
    fn where_nobody_was_asked_a_snapshot_makes_no_room_for_it() {
        let mut conns = Conns::new();
        let slot = come_up(&mut conns);
        assert!(restored(&conns).if_asked(slot).is_none());
    }

    #[test]
    fn a_slot_is_used_until_it_has_had_all_its_pings() {
        let mut conns = Conns::new();
        let slot = come_up(&mut conns);
        conns.asked_mut(slot).pings = MAX_GENERATION;
        conns.remove(slot).unwrap();
        assert_eq!(come_up(&mut conns), slot);
        assert_eq!(conns.next_ping(slot), Some(PingId::new(slot, MAX_GENERATION)));
        assert_eq!(conns.next_ping(slot), None);
        conns.remove(slot).unwrap();
        assert_ne!(come_up(&mut conns), slot);
    }

    #[test]
    fn a_slot_is_used_until_it_has_had_all_its_connections() {
        let mut conns = Conns::new();
        let slot = come_up(&mut conns);
        conns.pulse_mut(slot).id = ConnId::new(slot, MAX_GENERATION - 1);
        conns.remove(slot).unwrap();
        assert_eq!(come_up(&mut conns), slot);
        conns.remove(slot).unwrap();
        assert_ne!(come_up(&mut conns), slot);
    }
}
