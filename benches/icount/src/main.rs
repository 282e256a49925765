//! Workloads whose instructions are counted: `icount WORKLOAD N` performs one N times.
//!
//! Instructions are the one figure of speed that a busy machine does not change, so `.ci/budgets`
//! can hold each to a budget: it runs N and 2 N and divides the difference, which leaves out what
//! setting up takes. Nothing here reads a clock or draws at random. Alone, `icount` lists the
//! workloads, each with an N that is enough.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod calls;
mod connections;
mod fleet;
mod parts;

/// A name, an N that is enough, what one of N is, and the code.
type Workload = (&'static str, u64, &'static str, fn(u64));

const WORKLOADS: [Workload; 14] = [
    ("heard", 50_000, "a sign of life, by itself", connections::heard),
    ("heard-batch", 48_000, "a sign of life, in batches of 32", connections::heard_batch),
    ("heartbeat-phi", 10_000, "a heartbeat under a phi detector", connections::heartbeat_phi),
    ("detector-alive", 20_000, "a detector's timer that finds its peer heard", connections::alive),
    ("reconnect", 5_000, "a peer's way back from a mass loss", connections::reconnect),
    ("snapshot", 5_000, "a peer's part of a snapshot", connections::snapshot),
    ("restore", 5_000, "a peer's part of restoring a copied one", connections::restore),
    ("timer-hold", 20_000, "a timer taken out and one armed (hold model)", parts::timer_hold),
    ("breaker-ok", 20_000, "a success through a breaker alone", parts::breaker_ok),
    ("breaker-failing", 20_000, "the same, of which every fifth fails", parts::breaker_failing),
    ("breaker-rejected", 20_000, "a refusal by an open breaker alone", parts::breaker_rejected),
    ("call-ok", 5_000, "a call through all gates that succeeds", calls::ok),
    ("call-retried", 5_000, "one that succeeds at its second attempt", calls::retried),
    ("call-rejected", 5_000, "one that an open breaker refuses", calls::rejected),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &str| WORKLOADS.iter().find(|workload| workload.0 == name);
    match words.as_slice() {
        [] => {
            for (name, enough, what, _) in WORKLOADS {
                println!("{name:<18}{enough:>7}  {what}");
            }
        }
        [name, n] => {
            let (.., run) = known(name).expect("a workload of the list");
            run(n.parse().expect("how often"));
        }
        _ => panic!("icount WORKLOAD N, or nothing for the list"),
    }
}
