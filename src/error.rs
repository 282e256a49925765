//! What is wrong with a configuration, and where.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// A setting that is refused, by its path and the reason.
///
/// ```
/// use steadfast::backoff::BackoffConfig;
/// use core::time::Duration;
///
/// let config = BackoffConfig { base: Duration::from_secs(5), cap: Duration::from_secs(1), ..Default::default() };
/// let error = config.validate().unwrap_err();
/// assert_eq!(error.field(), "cap");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    field: String,
    problem: String,
}

impl ConfigError {
    /// `field` has `problem`; for those who write a leaf or a profile of their own.
    #[must_use]
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same error seen from the configuration around: `backoff` turns `cap` into `backoff.cap`.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }

    /// The path of the setting, as `peer_profiles.iot.backoff.cap`: profiles go by name.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What is wrong with it, with the value and the bound.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl core::error::Error for ConfigError {}
