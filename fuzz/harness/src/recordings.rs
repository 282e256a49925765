//! Recordings as files, and damaged ones.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use steadfast::recording::{Next, Recorder, Replay, Start};
use steadfast::{Event, Manager, Time};

use crate::damage::damage;
use crate::{check, configs, script, states};

/// How many recordings damage begins with: half of them begin in the middle of a run.
const RUNS: u8 = 8;

/// A recording, as a file or as one of ours and what is done to it: replayed to its end, or to the line
/// that makes no sense.
///
/// # Panics
///
/// If a promise is broken.
pub fn recordings(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, choices)) => {
            if let Ok(file) = damaged(&mut Unstructured::new(choices)) {
                replay(&file);
            }
        }
        _ => replay(bytes),
    }
}

fn replay(file: &[u8]) {
    let mut replay = match Replay::new(file) {
        Ok(replay) => replay,
        Err(error) => return assert_eq!(error.line(), 1, "{error}"),
    };
    let lines = file.split(|&byte| byte == b'\n').count() as u64;
    loop {
        let next = replay.next_at().and_then(|ahead| Ok((ahead, replay.next_step()?)));
        match next {
            Ok((ahead, Next::Same(step))) => assert_eq!(ahead, Some(step.at)),
            Ok((ahead, Next::Differs(difference))) => {
                assert_eq!(ahead, Some(difference.at));
                assert_ne!(difference.actions(), (None, None));
                assert!(!difference.to_string().is_empty());
            }
            Ok((ahead, Next::End(_))) => break assert_eq!(ahead, None),
            Err(error) => break assert!(error.line() <= lines, "{error}"),
        }
        assert!(replay.steps() <= lines);
        if replay.steps().is_multiple_of(16) {
            check_all(replay.managers());
        }
    }
    check_all(replay.managers());
}

fn check_all(managers: &[Manager]) {
    managers.iter().for_each(|manager| check(manager, &"a replayed step"));
}

/// One of ours after one to six changes.
fn damaged(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    static WHOLE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..RUNS).map(recorded).collect());
    let whole = bytes.choose(&WHOLE)?;
    let mut lines: Vec<Vec<u8>> = whole.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..bytes.int_in_range(1..=6_u8)? {
        let (one, other) = (bytes.choose_index(lines.len())?, bytes.choose_index(lines.len())?);
        match bytes.arbitrary::<u8>()? % 10 {
            0 => drop(lines.remove(one)),
            1 => lines.insert(other, lines[one].clone()),
            2 => lines.swap(one, other),
            3 => lines.truncate(one + 1),
            4 => {
                let end = bytes.choose_index(lines[one].len() + 1)?;
                lines[one].truncate(end);
            }
            5 => {
                let place = bytes.choose_index(lines[one].len().max(1))?;
                if let Some(byte) = lines[one].get_mut(place) {
                    *byte = bytes.arbitrary()?;
                }
            }
            _ => {
                if let Ok(mut tree) = serde_json::from_slice(&lines[one]) {
                    damage(&mut tree, bytes)?;
                    lines[one] = serde_json::to_vec(&tree).unwrap_or_default();
                }
            }
        }
        if lines.is_empty() || bytes.is_empty() {
            break;
        }
    }
    Ok(lines.join(&b'\n'))
}

/// A short run, always the same.
fn recorded(run: u8) -> Vec<u8> {
    let (mut manager, start, told) = if run.is_multiple_of(2) {
        let noise = states::noise(run.into(), 120);
        let told = script::live(configs::varied(), &mut Unstructured::new(&noise)).unwrap().1;
        let config = configs::varied();
        (Manager::new(config.clone(), 7).unwrap(), Start::new(&config), told)
    } else {
        let manager = states::world(run).manager().clone();
        let start = Start::restored([&manager]);
        (manager, start, vec![(Event::Restarted, Time::ZERO); 2])
    };
    let about = BTreeMap::from([("driver".to_owned(), "fuzz".to_owned())]);
    let mut recorder = Recorder::new(Vec::new(), &about, &start).unwrap();
    let mut step = |manager: &mut Manager, event: Event, at| {
        let actions = manager.step(event.clone(), at);
        recorder.step(0, at, &event, &actions).unwrap();
    };
    for (event, at) in told {
        step(&mut manager, event, at);
    }
    for _ in 0..20 {
        let Some(due) = manager.next_deadline() else { break };
        step(&mut manager, Event::Tick, due);
    }
    recorder.finish(&[manager.run_digest()]).unwrap()
}
