//! A run as a file: the core's recording, written while a world runs.

use std::collections::BTreeMap;
use std::io::{Result, Write};

use steadfast::config::Config;
use steadfast::recording::{Recorder, Start};
use steadfast::{Action, Event, Time};

/// Somebody who is told all that the managers are told and answer.
pub(crate) trait Log {
    /// The run begins with managers of this configuration and these seeds.
    fn begin(&mut self, config: &Config, seeds: &[u64]);
    /// The warm-up is over: the scenario begins.
    fn start(&mut self, _now: Time) {}
    /// A manager has answered an event.
    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]);
    /// From now on so many wait at a server's desk, and somebody is at it or not.
    fn server(&mut self, _server: usize, _now: Time, _waiting: usize, _busy: bool) {}
    /// The run is over.
    fn end(&mut self, now: Time, digests: &[u64]);
}

/// A log that forgets.
#[derive(Debug)]
pub(crate) struct Forget;

impl Log for Forget {
    fn begin(&mut self, _: &Config, _: &[u64]) {}
    fn step(&mut self, _: usize, _: Time, _: &Event, _: &[Action]) {}
    fn end(&mut self, _: Time, _: &[u64]) {}
}

/// Several logs, each told everything.
pub(crate) struct Several<'a>(pub(crate) Vec<&'a mut dyn Log>);

impl Log for Several<'_> {
    fn begin(&mut self, config: &Config, seeds: &[u64]) {
        self.0.iter_mut().for_each(|log| log.begin(config, seeds));
    }

    fn start(&mut self, now: Time) {
        self.0.iter_mut().for_each(|log| log.start(now));
    }

    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        self.0.iter_mut().for_each(|log| log.step(manager, now, event, actions));
    }

    fn server(&mut self, server: usize, now: Time, waiting: usize, busy: bool) {
        self.0.iter_mut().for_each(|log| log.server(server, now, waiting, busy));
    }

    fn end(&mut self, now: Time, digests: &[u64]) {
        self.0.iter_mut().for_each(|log| log.end(now, digests));
    }
}

/// A log that is a recording. What fails on the way is told at the end: a run goes on without it.
pub(crate) struct Record<W> {
    about: BTreeMap<String, String>,
    state: State<W>,
}

enum State<W> {
    New(W),
    Running(Recorder<W>),
    Over(Result<()>),
}

impl<W: Write> Record<W> {
    pub(crate) const fn new(to: W, about: BTreeMap<String, String>) -> Self {
        Self { about, state: State::New(to) }
    }

    /// Whether all was written.
    pub(crate) fn finish(self) -> Result<()> {
        match self.state {
            State::Over(result) => result,
            State::New(_) | State::Running(_) => Ok(()),
        }
    }

    fn take(&mut self) -> State<W> {
        std::mem::replace(&mut self.state, State::Over(Ok(())))
    }
}

impl<W: Write> Log for Record<W> {
    fn begin(&mut self, config: &Config, seeds: &[u64]) {
        let start = Start::New { config: Box::new(config.clone()), seeds: seeds.to_vec() };
        if let State::New(to) = self.take() {
            self.state = match Recorder::new(to, &self.about, &start) {
                Ok(recorder) => State::Running(recorder),
                Err(error) => State::Over(Err(error)),
            };
        }
    }

    fn step(&mut self, manager: usize, now: Time, event: &Event, actions: &[Action]) {
        if let State::Running(recorder) = &mut self.state
            && let Err(error) = recorder.step(manager, now, event, actions)
        {
            self.state = State::Over(Err(error));
        }
    }

    fn end(&mut self, _: Time, digests: &[u64]) {
        match self.take() {
            State::Running(recorder) => {
                self.state = State::Over(recorder.finish(digests).map(|_| ()));
            }
            other => self.state = other,
        }
    }
}
