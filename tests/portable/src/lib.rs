//! Lives through recordings of the simulator, wherever it is built for.
//!
//! A recording holds what a manager answered on the machine that wrote it. Here each event is fed
//! again, and the step is written down again: it must be the recorded line, byte for byte. Every now
//! and then each manager is replaced by what can be read of its snapshot's text, and goes on as that.
//! What comes of it is one line, the same on every platform: counts, digests, and a hash of all the
//! snapshots' bytes.
#![no_std]

extern crate alloc;

pub mod host;

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Display;
use core::mem::take;

use serde::{Deserialize, Serialize};
use steadfast::{Action, Config, Event, Manager, Time};

/// A snapshot is taken after so many steps, and whenever their number has doubled.
const FIRST_SNAPSHOT: u64 = 64;

/// The first line of a recording, as far as it is needed. The simulator's begin with new managers.
#[derive(Deserialize)]
struct Header {
    start: Start,
}

#[derive(Deserialize)]
struct Start {
    new: New,
}

#[derive(Deserialize)]
struct New {
    config: Config,
    seeds: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct Step {
    t: Time,
    #[serde(default, skip_serializing_if = "is_first")]
    manager: u32,
    event: Event,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    actions: Vec<Action>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_first(manager: &u32) -> bool {
    *manager == 0
}

/// The last line.
#[derive(Deserialize)]
struct Footer {
    end: Totals,
}

#[derive(Deserialize)]
struct Totals {
    steps: u64,
    digests: Vec<String>,
}

/// One recording on its way through new managers.
#[derive(Debug, Default)]
pub struct Player {
    line: Vec<u8>,
    lines: u64,
    managers: Vec<Manager>,
    steps: u64,
    actions: u64,
    snapshots: u64,
    bytes: Fnv,
    complete: bool,
    problem: Option<String>,
}

impl Player {
    /// The next byte of the recording. After a problem nothing more is read.
    pub fn put(&mut self, byte: u8) {
        if self.problem.is_some() {
            return;
        }
        if byte != b'\n' {
            return self.line.push(byte);
        }
        self.lines += 1;
        let line = take(&mut self.line);
        if let Err(problem) = self.play(&line) {
            self.problem = Some(format!("line {}: {problem}", self.lines));
        }
    }

    /// What came of it, in one line.
    ///
    /// # Errors
    ///
    /// The first line that another platform wrote otherwise, or that the recording is not whole.
    pub fn verdict(&self) -> Result<String, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if !self.complete {
            return Err("the recording has no end".into());
        }
        let (mut run, mut state) = (Fnv::default(), Fnv::default());
        for manager in &self.managers {
            run.write(&manager.run_digest().to_le_bytes());
            state.write(&manager.state_digest().to_le_bytes());
        }
        let Self { steps, actions, snapshots, bytes, .. } = self;
        let (Fnv(run), Fnv(state), Fnv(bytes)) = (run, state, bytes);
        Ok(format!(
            "{steps} steps, {actions} actions, run {run:016x}, state {state:016x}, \
             {snapshots} snapshots {bytes:016x}"
        ))
    }

    fn play(&mut self, line: &[u8]) -> Result<(), String> {
        if self.complete {
            return Err("more after the end".into());
        }
        if self.lines == 1 {
            return self.begin(line);
        }
        if line.starts_with(b"{\"end\"") {
            return self.end(line);
        }
        let mut step: Step = read(line)?;
        let place = usize::try_from(step.manager).map_err(told)?;
        let manager = self.managers.get_mut(place).ok_or("no such manager")?;
        step.actions = manager.step(step.event.clone(), step.t);
        self.steps += 1;
        self.actions += step.actions.len() as u64;
        let again = written(&step)?;
        if again != line {
            return Err(format!("here it is {}", String::from_utf8_lossy(&again)));
        }
        if self.steps >= FIRST_SNAPSHOT && self.steps.is_power_of_two() {
            self.restore()?;
        }
        Ok(())
    }

    fn begin(&mut self, line: &[u8]) -> Result<(), String> {
        let Header { start: Start { new: New { config, seeds } } } = read(line)?;
        let manager = |seed| Manager::new(Config { seed, ..config.clone() }, seed);
        self.managers = seeds.into_iter().map(manager).collect::<Result<_, _>>().map_err(told)?;
        Ok(())
    }

    /// Each manager goes on as what can be read of its snapshot, under another key.
    fn restore(&mut self) -> Result<(), String> {
        for manager in &mut self.managers {
            manager.check().map_err(told)?;
            let text = written(&manager.snapshot())?;
            self.snapshots += 1;
            self.bytes.write(&text);
            let copy = Manager::restore(read(&text)?, self.steps).map_err(told)?;
            if copy.state_digest() != manager.state_digest() {
                return Err("the restored manager is another one".into());
            }
            *manager = copy;
        }
        Ok(())
    }

    fn end(&mut self, line: &[u8]) -> Result<(), String> {
        let Footer { end } = read(line)?;
        let digest = |manager: &Manager| format!("{:016x}", manager.run_digest());
        let digests: Vec<String> = self.managers.iter().map(digest).collect();
        if (end.steps, &end.digests) != (self.steps, &digests) {
            return Err(format!("here there are {} steps and {digests:?}", self.steps));
        }
        self.complete = true;
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(told)
}

fn written(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(told)
}

fn told(problem: impl Display) -> String {
    problem.to_string()
}

/// FNV-1a, 64 bits.
#[derive(Clone, Copy, Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
