//! Chance without a generator to carry about.
//!
//! A draw is a pure function of (seed, who, what for, how often before): take one peer, link or
//! fault out of a scenario and everybody else's luck stays as it was. That is what makes two
//! policies comparable draw by draw, and a failing scenario shrinkable.

use rand_pcg::Pcg64Dxsm;
use rand_pcg::rand_core::Rng;

/// What a number is drawn for. The core's own purposes are small numbers; these are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The seed of a manager.
    Manager = 0x1000,
    /// Latency of a dial, towards the server.
    DialOut,
    /// Latency of its answer.
    DialBack,
    /// Whether the dial is lost on the way.
    LostOut,
    /// Whether its answer is.
    LostBack,
    /// What the handshake takes beyond its place in the queue.
    Service,
    /// Latency of the news that a connection was reset.
    Reset,
    /// Where in its period a peer's heartbeat falls.
    BeatPhase,
    /// Latency of a heartbeat.
    Beat,
    /// Whether a heartbeat is lost.
    BeatLost,
    /// Latency of a ping and its pong together.
    Pong,
    /// Whether one of the two is lost.
    PongLost,
    /// When a client makes its next call.
    Call,
    /// To which server it goes.
    CallServer,
    /// For which key it asks.
    CallKey,
    /// Latency of a request.
    RequestOut,
    /// Latency of its answer.
    RequestBack,
    /// Whether the request is lost on the way.
    RequestLostOut,
    /// Whether its answer is.
    RequestLostBack,
    /// For how long a request occupies the server.
    RequestTurn,
    /// What it takes beyond that.
    RequestTime,
    /// Whether it fails.
    RequestFails,
    /// The pause of a retry layer around the manager.
    OuterBackoff,
    /// The seed of one of many runs.
    Run,
    /// Latency of a message of a client that contends for a row.
    Contention,
    /// Its backoff.
    ContentionBackoff,
    /// How long a fault that comes by chance lasts.
    FaultLength,
    /// How long after it began it comes again.
    FaultGap,
    /// Whether a name is looked up in vain.
    Lookup,
    /// For how long a host stays, or stays away.
    Spell,
    /// Whether a test ticks before an event, and when.
    ExtraTick,
    /// Whether a test takes a snapshot after an event and goes on from it.
    Restore,
    /// Latency of a server's word that it will go.
    GoAway,
    /// Whether a fault happens to a manager.
    FaultShare,
    /// How long after the first of them.
    FaultSpread,
    /// Whether a caller goes away.
    HangUp,
    /// Whether a driver tells what it should no longer.
    LateFact,
    /// What chaos draws.
    Chaos,
}

/// The draws of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    seed: u64,
}

impl Draws {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// 64 uniform bits: draw number `n` of `who` for `purpose`.
    pub(crate) fn draw(self, purpose: Purpose, who: u64, n: u64) -> u64 {
        self.generator(purpose, who, n).next_u64()
    }

    /// The generator that all bits of that draw come from, for distributions that need several.
    pub(crate) fn generator(self, purpose: Purpose, who: u64, n: u64) -> Pcg64Dxsm {
        let state = u128::from(self.seed) << 64 | u128::from(n);
        Pcg64Dxsm::new(state, (purpose as u128) << 64 | u128::from(who))
    }
}

/// The first half of a peer's name: the name of its group, hashed, so that another group added to
/// the scenario changes nobody's draws.
///
/// Source: FNV-1a, 32 bits.
pub(crate) fn group_hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_all_four_and_on_nothing_else() {
        let draws = Draws::new(7);
        let first = draws.draw(Purpose::Beat, 3, 0);
        assert_eq!(first, Draws::new(7).draw(Purpose::Beat, 3, 0));
        assert_ne!(first, Draws::new(8).draw(Purpose::Beat, 3, 0));
        assert_ne!(first, draws.draw(Purpose::BeatLost, 3, 0));
        assert_ne!(first, draws.draw(Purpose::Beat, 4, 0));
        assert_ne!(first, draws.draw(Purpose::Beat, 3, 1));
    }
}
