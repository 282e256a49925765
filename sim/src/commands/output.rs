//! What a command writes beside its text.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::{Failure, print};

/// Makes a file, and tells what errors call it.
pub(crate) fn create(path: &Path) -> Result<(String, File), Failure> {
    let name = path.display().to_string();
    match File::create(path) {
        Ok(file) => Ok((name, file)),
        Err(error) => Err(Failure::Io(name, error)),
    }
}

/// Where the findings go as JSON: nowhere, to a file, or to the standard output in place of the text.
#[derive(Default)]
pub(crate) enum Json {
    #[default]
    Nowhere,
    Stdout,
    File(String, File),
}

impl Json {
    /// Opens what `--json` names, before the work begins: a wrong name is known at once. What the
    /// file holds stays until there is something else to write.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let path = match path {
            None => return Ok(Self::Nowhere),
            Some(path) if path.as_os_str() == "-" => return Ok(Self::Stdout),
            Some(path) => path,
        };
        let name = path.display().to_string();
        match File::options().write(true).create(true).truncate(false).open(path) {
            Ok(file) => Ok(Self::File(name, file)),
            Err(error) => Err(Failure::Io(name, error)),
        }
    }

    pub(crate) const fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    pub(crate) fn write(self, findings: &impl Serialize) -> Result<(), Failure> {
        let text = || {
            serde_json::to_string_pretty(findings)
                .map_err(|error| Failure::Io("the summary".to_owned(), error.into()))
        };
        match self {
            Self::Nowhere => Ok(()),
            Self::Stdout => print(&text()?),
            Self::File(name, mut file) => {
                let text = text()?;
                // A pipe or a terminal has no length to set.
                let _ = file.set_len(0);
                writeln!(file, "{text}").map_err(|error| Failure::Io(name, error))
            }
        }
    }
}
