//! The clock of the machine, for the benches that are about reading it.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench is a driver")]

use std::time::Instant;

use steadfast::Time;

#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(self.0.elapsed().as_nanos() as u64)
    }
}
