//! Many runs on many threads, and nothing of it shows in what comes out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use crate::scenario::ScenarioError;

/// How many threads are of use here.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Does `work` for each of `things`, on at most `jobs` threads at once; the results are in order.
///
/// `progress` is told the share that is over. Neither the results nor, where several fail, the
/// error depends on `jobs`: it is that of the first in order.
///
/// # Errors
///
/// That of the work, or that a thread panicked.
pub(crate) fn in_order<I: Sync, T: Send>(
    things: &[I],
    jobs: usize,
    work: impl Fn(&I) -> Result<T, ScenarioError> + Sync,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<T>, ScenarioError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Places are taken in order and each that is taken is worked on, whatever fails meanwhile: so
    // the first that fails is always among them.
    let take = |report: Sender<(usize, Result<T, ScenarioError>)>| {
        while !failed.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(thing) = things.get(place) else { return };
            let done = work(thing);
            failed.fetch_or(done.is_err(), Ordering::Relaxed);
            if report.send((place, done)).is_err() {
                return;
            }
        }
    };
    let mut done = BTreeMap::new();
    thread::scope(|scope| {
        let (report, reports) = mpsc::channel();
        let spawn =
            |report: Sender<_>| thread::Builder::new().spawn_scoped(scope, || take(report)).ok();
        let threads: Vec<_> =
            (0..jobs.clamp(1, things.len().max(1))).filter_map(|_| spawn(report.clone())).collect();
        drop(report);
        for (place, result) in reports {
            done.insert(place, result);
            #[expect(clippy::cast_precision_loss, reason = "for a progress bar")]
            progress(done.len() as f64 / things.len() as f64);
        }
        // One that panicked left a place empty, which is seen below.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    });
    let lost = || Err(ScenarioError::plain("a run panicked, or no thread could be started"));
    let results = (0..things.len()).map(|place| done.remove(&place).unwrap_or_else(lost));
    results.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: [u64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

    #[test]
    fn results_are_in_order_whoever_is_done_first() {
        for jobs in [1, 3, 8, 100] {
            let mut seen = Vec::new();
            let work = |thing: &u64| {
                thread::sleep(std::time::Duration::from_micros(50 * (10 - thing)));
                Ok(thing * thing)
            };
            let squares = in_order(&TEN, jobs, work, &mut |share| seen.push(share)).unwrap();
            assert_eq!(squares, TEN.map(|thing| thing * thing));
            assert_eq!((seen.len(), seen.last()), (10, Some(&1.0)));
        }
        assert_eq!(in_order(&[0; 0], 4, |thing: &u64| Ok(*thing), &mut |_| {}), Ok(Vec::new()));
    }

    #[test]
    fn of_several_errors_the_first_in_order_is_told() {
        for jobs in [1, 2, 7] {
            let work = |thing: &u64| match thing % 5 {
                3 => Err(ScenarioError::plain(thing.to_string())),
                _ => Ok(()),
            };
            let error = in_order(&TEN, jobs, work, &mut |_| {}).unwrap_err();
            assert_eq!(error.message(), "3");
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let work = |thing: &u64| {
            assert_ne!(*thing, 2, "this panic is meant");
            Ok(())
        };
        assert!(in_order(&TEN, 2, work, &mut |_| {}).is_err());
    }
}
