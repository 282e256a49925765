//! `steadfast replay LOG --policy FILE`: the same events under other settings.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use steadfast::recording::Replay;
use steadfast_sim::{WhatIf, WhatIfError};

use super::{Failure, beginning, print};

pub(super) fn what_if(log: &Path, policy: &Path) -> Result<ExitCode, Failure> {
    let (name, origin) = (log.display().to_string(), policy.display().to_string());
    let text = match std::fs::read_to_string(policy) {
        Ok(text) => text,
        Err(error) => return Err(Failure::Io(origin, error)),
    };
    let what_if = WhatIf::parse(&text, &origin)?;
    // It is read twice, and of a pipe there would be nothing left.
    if std::fs::metadata(log).is_ok_and(|one| !one.is_file()) {
        let problem = format!("{name}: a what-if reads a recording twice: give it a plain file");
        return Err(Failure::Usage(problem));
    }
    let (first, second) = (open(log, &name)?, open(log, &name)?);
    let mut text = beginning(&first);
    match what_if.run(first, second) {
        Ok(report) => text += &report.to_string(),
        Err(WhatIfError::Settings(error)) => return Err(error.into()),
        Err(WhatIfError::Differs(difference)) => {
            let hint = "without --policy, `replay` shows where";
            text += &format!("{:<10} {}; {hint}", "differs:", WhatIfError::Differs(difference));
            print(text.trim_end())?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(Failure::Usage(format!("{name}: {error}"))),
    }
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn open(log: &Path, name: &str) -> Result<Replay<BufReader<File>>, Failure> {
    let file = match File::open(log) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(error) => return Err(Failure::Io(name.to_owned(), error)),
    };
    Replay::new(file).map_err(|error| Failure::Usage(format!("{name}: {error}")))
}
