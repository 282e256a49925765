//! What a driver records is lived through again, file by file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{CALLS, DIALS, Fake, World, add_peers, all_up, sound};
use steadfast_tokio::steadfast::recording::{End, Next, Replay};
use steadfast_tokio::{Builder, Failure, Handle, LossCause, Record, StartError, config};

fn recorded(world: &Arc<World>, record: Record) -> Handle<Fake> {
    let builder = Builder::new(Fake(Arc::clone(world))).config(config(1));
    let handle = builder.record(record).start().unwrap();
    handle.add_breaker(DIALS, "default").unwrap();
    handle.add_breaker(CALLS, "calls").unwrap();
    handle
}

/// An outage of a hundred peers, and calls.
async fn outage(handle: &Handle<Fake>, world: &World) {
    add_peers(handle, 100);
    all_up(handle, 100).await;
    for _ in 0..3 {
        world.cut(LossCause::Reset);
        tokio::time::sleep(Duration::from_secs(30)).await;
        all_up(handle, 100).await;
        let profile = handle.call_profile("default").unwrap();
        for number in 0..50 {
            let call = |_| async move {
                if number % 10 == 0 { Err(Failure::from("no")) } else { Ok(number) }
            };
            let _ = handle.with_retry(CALLS, profile, call).await;
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Replays a file: how it ended, its steps, and the digest that came of it.
fn replay(file: &Path) -> (End, u64, u64) {
    let text = fs::read(file).unwrap();
    let mut replay = Replay::new(text.as_slice()).unwrap();
    let mut steps = 0;
    loop {
        match replay.next_step().unwrap() {
            Next::Same(_) => steps += 1,
            Next::Differs(difference) => panic!("{difference}"),
            Next::End(end) => return (end, steps, replay.managers()[0].run_digest()),
        }
    }
}

const COMPLETE: End = End::Complete { differing: vec![] };

#[tokio::test(start_paused = true)]
async fn an_outage_replays_to_the_same_actions_and_digest() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let handle = recorded(&world, Record::to(folder.path().join("fleet")));
    outage(&handle, &world).await;
    sound(&handle);
    let _ = handle.shutdown(Duration::from_secs(1)).await;
    assert_eq!(handle.recorded()[0].missed, 0);
    let files = files(folder.path());
    assert_eq!(files, [folder.path().join("fleet.0.000001.jsonl")]);
    let (end, steps, digest) = replay(&files[0]);
    assert_eq!((end, vec![digest]), (COMPLETE, handle.run_digests()));
    assert!(steps > 1_000, "{steps}");
}

#[tokio::test(start_paused = true)]
async fn files_rotate_and_each_replays_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet");
    for process in 1..=2 {
        let world = World::new();
        let record = Record::to(&path).max_bytes(50_000).max_files(3);
        let handle = recorded(&world, record);
        outage(&handle, &world).await;
        let _ = handle.shutdown(Duration::from_secs(1)).await;
        let files = files(folder.path());
        assert_eq!(files.len(), 3, "process {process}");
        let ends: Vec<_> = files.iter().map(|file| replay(file)).collect();
        assert!(ends.iter().all(|(end, ..)| *end == COMPLETE), "{ends:?}");
        assert_eq!(ends.last().map(|last| vec![last.2]), Some(handle.run_digests()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_too_slow_costs_a_gap_and_no_wait() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    // So little room that nearly every step is one too many.
    let record = Record::to(folder.path().join("fleet")).max_unwritten(2_000).max_files(1_000);
    let handle = recorded(&world, record);
    outage(&handle, &world).await;
    let _ = handle.shutdown(Duration::from_secs(1)).await;
    assert!(handle.recorded()[0].missed > 0);
    for file in files(folder.path()) {
        let (end, ..) = replay(&file);
        assert!(matches!(end, End::CutOff { torn: false }) || end == COMPLETE, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_not_there_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let record = Record::to(folder.path().join("nowhere").join("fleet"));
    let error = Builder::new(Fake(World::new())).record(record).start().unwrap_err();
    assert!(matches!(error, StartError::Record(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn drivers_that_share_a_path_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let record = Record::to(folder.path().join("fleet")).max_bytes(2_000).max_files(1_000);
    let worlds = [World::new(), World::new()];
    let handles = worlds.each_ref().map(|world| recorded(world, record.clone()));
    for _ in 0..1_000 {
        for handle in &handles {
            handle.force_open(CALLS).unwrap();
            handle.reset_breaker(CALLS).unwrap();
        }
    }
    for handle in &handles {
        let _ = handle.shutdown(Duration::from_secs(1)).await;
        let recorded = &handle.recorded()[0];
        assert_eq!((recorded.missed, &recorded.failed), (0, &None));
    }
    let files = files(folder.path());
    assert!(files.len() > 4, "{files:?}");
    assert!(files.iter().all(|file| replay(file).0 == COMPLETE));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_ends_the_recording_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let handle = recorded(&world, Record::to(folder.path().join("fleet")).max_bytes(2_000));
    folder.close().unwrap();
    outage(&handle, &world).await;
    let _ = handle.shutdown(Duration::from_secs(1)).await;
    let recorded = &handle.recorded()[0];
    assert!(
        recorded.failed.as_ref().is_some_and(|why| why.contains("No such file")),
        "{recorded:?}"
    );
    assert_eq!(handle.stats().calls_done, 3 * 45);
}
