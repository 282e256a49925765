//! Goes through every order of events, breadth first, and into no shape of state twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use steadfast::Manager;
use steadfast::strategy::{Op, World};

use crate::world::{self, Cast};

/// A way to a state: by which move, from which state before.
struct Origin {
    before: usize,
    by: Op,
}

/// All that was seen of a small world.
pub(crate) struct Explorer {
    cast: Cast,
    /// The shapes of all states seen.
    pub(crate) seen: BTreeSet<u64>,
    /// From which all is known to end well.
    well: BTreeSet<u64>,
    /// How each state was first come to, the first excepted.
    origins: Vec<Origin>,
    /// What may come next of some of them, by shape.
    nexts: BTreeMap<u64, BTreeSet<u64>>,
    pub(crate) transitions: u64,
}

/// Of so many states one is restored from a snapshot, and one is held to what its shape promises.
const SAMPLE: u64 = 16;

type Verdict = Result<(), String>;

impl Explorer {
    pub(crate) fn new(cast: Cast) -> Self {
        Self {
            cast,
            seen: BTreeSet::new(),
            well: BTreeSet::new(),
            origins: Vec::new(),
            nexts: BTreeMap::new(),
            transitions: 0,
        }
    }

    /// Goes to all states that lie within so many moves; tells how many are new at each depth.
    ///
    /// # Errors
    ///
    /// What does not hold in one of them, and the shortest way there.
    pub(crate) fn explore(&mut self, depth: usize) -> Result<Vec<usize>, String> {
        let first = world::beginning();
        self.seen.insert(first.manager().shape_digest());
        let mut frontier = vec![(0, first)];
        let mut counts = vec![1];
        for left in (0..depth).rev() {
            let (seen, mut next) = (self.seen.len(), Vec::new());
            for (place, world) in frontier {
                for op in self.cast.moves(&world) {
                    let (known, after) = self.take(place, &world, op)?;
                    // Nobody goes on from the last ones.
                    if left > 0 && !known {
                        next.push((self.origins.len(), after));
                    }
                }
            }
            counts.push(self.seen.len() - seen);
            frontier = next;
        }
        Ok(counts)
    }

    /// Makes a move. Whether it led to a shape that was known, and where.
    fn take(&mut self, place: usize, world: &World, op: Op) -> Result<(bool, World), String> {
        self.transitions += 1;
        let mut after = world.clone();
        after.play(&op);
        let shape = after.manager().shape_digest();
        let known = !self.seen.insert(shape);
        let verdict = if known { Ok(()) } else { self.holds(&after) };
        let verdict = verdict.and_then(|()| match shape.is_multiple_of(SAMPLE) {
            true => self.is_like_all_of_its_shape(shape, &after),
            false => Ok(()),
        });
        verdict.map_err(|problem| self.story(place, &op, &problem))?;
        if !known {
            self.origins.push(Origin { before: place, by: op });
        }
        Ok((known, after))
    }

    /// All that must hold in a state.
    fn holds(&mut self, world: &World) -> Verdict {
        world.manager().check().map_err(|violation| violation.to_string())?;
        nothing_wrong_counts(world)?;
        self.ends_well(world)
    }

    /// That not to go into a shape again loses nothing: from each state of it the same shapes follow.
    /// And a restored manager is as the original.
    fn is_like_all_of_its_shape(&mut self, shape: u64, world: &World) -> Verdict {
        let manager = world.manager();
        let restored =
            Manager::restore(manager.snapshot(), 1).map_err(|error| error.to_string())?;
        if restored.state_digest() != manager.state_digest() {
            return Err("restored as something else".into());
        }
        let next = |op: Op| {
            let mut after = world.clone();
            after.play(&op);
            after.manager().shape_digest()
        };
        let nexts: BTreeSet<u64> = self.cast.moves(world).into_iter().map(next).collect();
        match *self.nexts.entry(shape).or_insert_with(|| nexts.clone()) == nexts {
            true => Ok(()),
            false => Err("something else follows than from another state of the same shape".into()),
        }
    }

    /// Once the faults stop, everybody who wants is connected and the call is over.
    fn ends_well(&mut self, world: &World) -> Verdict {
        let mut on_the_way = BTreeSet::new();
        let mut world = world.clone();
        world.tell(steadfast::Event::NetworkUp);
        loop {
            let shape = world.manager().shape_digest();
            if self.well.contains(&shape) {
                self.well.append(&mut on_the_way);
                return Ok(());
            }
            if !on_the_way.insert(shape) {
                return Err("round and round, although all goes well".into());
            }
            let Some(op) = world::good(&world) else { break };
            world.play(&op);
            world.manager().check().map_err(|violation| format!("all going well: {violation}"))?;
        }
        let peers = world.manager().stats().peers;
        let waiting = peers.connecting + peers.reconnecting + peers.failed;
        let calls = world.calls().count();
        if waiting > 0 || calls > 0 {
            return Err(format!(
                "forgotten, although all goes well: {waiting} peers, {calls} calls"
            ));
        }
        self.well.append(&mut on_the_way);
        Ok(())
    }

    /// How it came to that, line by line.
    fn story(&self, mut place: usize, last: &Op, problem: &str) -> String {
        let mut ops = vec![last];
        while let Some(origin) = place.checked_sub(1).map(|place| &self.origins[place]) {
            ops.push(&origin.by);
            place = origin.before;
        }
        let mut text = format!("{problem}, by\n");
        for op in ops.iter().rev() {
            writeln!(text, "    +{:?} {:?}", op.after, op.act).unwrap();
        }
        text
    }
}

/// Whatever no driver would say leaves the shape as it is.
fn nothing_wrong_counts(world: &World) -> Verdict {
    let due = world.manager().next_deadline();
    if due.is_some_and(|due| due <= world.now()) {
        return Ok(());
    }
    let shape = world.manager().shape_digest();
    let mut after = world.clone();
    for act in world::wrongs() {
        after.play(&Op { after: Duration::ZERO, act });
    }
    match after.manager().shape_digest() == shape {
        true => Ok(()),
        false => Err("what no driver would say changed something".into()),
    }
}
