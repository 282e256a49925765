//! `steadfast replay`: lives through a recording again, and looks at it at any moment.

mod history;
mod state;
mod what_if;
mod words;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use steadfast::recording::{Difference, End, Next, RecordingError, Replay, Step};
use steadfast::{PeerId, Time};
use steadfast_sim::units::Span;
use steadfast_sim::{NoticeKind, fold_digests};

use super::{Failure, print};
use history::History;

/// The exit code if the step, or the notice, that was asked for is not in the recording.
const NOT_FOUND: u8 = 2;

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 the same, or the what-if ran, whatever came of it; 1 an answer \
                        differs; 2 the step or notice that was asked for is not there; 3 bad usage."
)]
pub(crate) struct ReplayArgs {
    /// A recording: what `run --log` or a driver wrote
    log: PathBuf,
    /// Stops after the last step until then, as 12.5s or 2m in the recording's own time, and shows
    /// who waits for what
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Stops after this step, counted from 1, and shows the same, and the step with its answer
    #[arg(long, value_name = "N", conflicts_with = "at", value_parser = clap::value_parser!(u64).range(1..))]
    step: Option<u64>,
    /// Stops at the first step whose answer holds such a notice, as breaker, suspected or breaker.open;
    /// with --at or --step, from there on
    #[arg(long, value_name = "KIND")]
    until_notice: Option<String>,
    /// Shows what became of this peer, until then or until the end; may be given many times
    #[arg(long, value_name = "N")]
    peer: Vec<u64>,
    /// What if the managers had been configured otherwise? A TOML file of settings as a scenario's
    /// [policies.NAME] holds them: peer.*, breaker.*, call.*, gate.*, pacer.*, sleep.*
    #[arg(long, value_name = "FILE", conflicts_with_all = ["at", "step", "until_notice", "peer"])]
    policy: Option<PathBuf>,
}

/// Where to stop.
struct Stop {
    at: Option<Time>,
    step: Option<u64>,
    notice: Option<NoticeKind>,
}

impl Stop {
    fn new(args: &ReplayArgs) -> Result<Self, Failure> {
        let at = args.at.as_deref().map(|text| match text.parse::<Span>() {
            Ok(span) => Ok(Time::from_nanos(span.as_nanos())),
            Err(error) => Err(Failure::Usage(format!("--at: {error}"))),
        });
        let notice = args.until_notice.as_deref().map(NoticeKind::parse).transpose()?;
        Ok(Self { at: at.transpose()?, step: args.step, notice })
    }

    /// Whether no step that is made at `next`, the next one's moment, is wanted.
    fn is_before(&self, next: Time) -> bool {
        self.notice.is_none() && self.at.is_some_and(|at| next > at)
    }

    /// Whether the step, the `count`th, is the one that was asked for.
    fn is_at(&self, step: &Step, count: u64) -> bool {
        match &self.notice {
            None => self.step == Some(count),
            Some(notice) => {
                let begun = self.at.is_none_or(|at| step.at >= at)
                    && self.step.is_none_or(|first| count >= first);
                begun && notice.is_in(&step.actions)
            }
        }
    }
}

pub(crate) fn replay(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let name = args.log.display().to_string();
    if let Some(policy) = &args.policy {
        return what_if::what_if(&args.log, policy);
    }
    let stop = Stop::new(args)?;
    let file = match File::open(&args.log) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(error) => return Err(Failure::Io(name, error)),
    };
    let wrong = |error: RecordingError| Failure::Usage(format!("{name}: {error}"));
    let mut replay = Replay::new(file).map_err(wrong)?;
    let peers = args.peer.iter().map(|&peer| PeerId(peer)).collect();
    let mut history = History::new(peers, replay.managers());
    let outcome = live(&mut replay, &mut history, &stop).map_err(wrong)?;
    let mut text = beginning(&replay);
    let mut code = match &outcome {
        Outcome::Differs(difference) => {
            differs(&mut text, &replay, &history, difference);
            ExitCode::FAILURE
        }
        Outcome::Same(end) => verdict(&mut text, &replay, &history, end.as_ref()),
        Outcome::Found(_) => verdict(&mut text, &replay, &history, None),
    };
    match &outcome {
        Outcome::Found(step) => {
            let next_at = replay.next_at().map_err(wrong)?;
            let title = format!("after step {}, at {}", replay.steps(), step.at);
            state::show(&mut text, replay.managers(), &title, next_at);
            history.show_step(&mut text, step);
            history.show_last(&mut text);
        }
        Outcome::Same(end) if end.is_some() && (stop.step.is_some() || stop.notice.is_some()) => {
            not_found(&mut text, &stop, args, replay.steps());
            if code == ExitCode::SUCCESS {
                code = ExitCode::from(NOT_FOUND);
            }
        }
        Outcome::Same(_) => {
            if let Some(at) = stop.at {
                let next_at = replay.next_at().map_err(wrong)?;
                state::show(&mut text, replay.managers(), &format!("at {at}"), next_at);
                history.show_last(&mut text);
            }
        }
        Outcome::Differs(_) => {}
    }
    history.show_peers(&mut text, replay.managers());
    print(text.trim_end())?;
    Ok(code)
}

/// The step, or the notice, that was asked for is not there.
fn not_found(text: &mut String, stop: &Stop, args: &ReplayArgs, steps: u64) {
    let there = match steps {
        1 => "1 step".to_owned(),
        many => format!("{many} steps"),
    };
    let Some(kind) = &args.until_notice else {
        let step = stop.step.unwrap_or_default();
        let _ =
            writeln!(text, "{:<10} there is no step {step}: the recording has {there}", "none:");
        return;
    };
    let from = match (stop.at, stop.step) {
        (Some(at), _) => format!(" from {at} on"),
        (None, Some(step)) => format!(" from step {step} on"),
        (None, None) => String::new(),
    };
    let _ = writeln!(text, "{:<10} no notice `{kind}`{from} in its {there}", "none:");
}

/// How far it went.
enum Outcome {
    /// All that was replayed is as it was recorded, up to the end or to a moment before it.
    Same(Option<End>),
    /// So far, up to the step that was asked for.
    Found(Box<Step>),
    Differs(Box<Difference>),
}

fn live<R: BufRead>(
    replay: &mut Replay<R>,
    history: &mut History,
    stop: &Stop,
) -> Result<Outcome, RecordingError> {
    loop {
        if let Some(next) = replay.next_at()?
            && stop.is_before(next)
        {
            return Ok(Outcome::Same(None));
        }
        match replay.next_step()? {
            Next::Same(step) => {
                let found = stop.is_at(&step, replay.steps()).then(|| Box::new(step.clone()));
                history.step(step);
                if let Some(step) = found {
                    return Ok(Outcome::Found(step));
                }
            }
            Next::Differs(difference) => return Ok(Outcome::Differs(difference)),
            Next::End(end) => return Ok(Outcome::Same(Some(end))),
        }
    }
}

/// What the recording is.
fn beginning<R: BufRead>(replay: &Replay<R>) -> String {
    let mut text = String::new();
    for (key, value) in replay.about() {
        let _ = writeln!(text, "{key:<10} {value}");
    }
    let (written, reads) = (replay.version(), env!("CARGO_PKG_VERSION"));
    let by = match written == reads {
        true => format!("by version {written}"),
        false => format!("by version {written}; this is {reads}, which may decide otherwise"),
    };
    let _ = writeln!(text, "{:<10} {by}", "written");
    let managers = match replay.managers().len() {
        1 => "1 manager".to_owned(),
        several => format!("{several} managers"),
    };
    let begins = match replay.is_restored() {
        true => "it begins in the middle of a run, from snapshots",
        false => "new at the beginning",
    };
    let _ = writeln!(text, "{:<10} {managers}, {begins}", "of");
    text
}

/// What was replayed, when nothing differs.
fn verdict<R: BufRead>(
    text: &mut String,
    replay: &Replay<R>,
    history: &History,
    end: Option<&End>,
) -> ExitCode {
    let span = match history.span() {
        Some((first, last)) => format!(" from {first} to {last}"),
        None => String::new(),
    };
    let counted = format!("{} steps{span}, {} actions", replay.steps(), replay.actions());
    let digests: Vec<u64> = replay.managers().iter().map(|one| one.run_digest()).collect();
    // As `run` prints it, of one manager too.
    let digest = fold_digests(&digests);
    let _ = match end {
        Some(End::Complete { differing }) if !differing.is_empty() => {
            let managers: Vec<String> = differing.iter().take(20).map(usize::to_string).collect();
            let managers = managers.join(", ");
            let _ = writeln!(
                text,
                "{:<10} {counted} are the same, but not the digest of manager {managers}: the last \
                 line was changed, or digests are computed otherwise in this version",
                "differs:"
            );
            return ExitCode::FAILURE;
        }
        Some(End::CutOff { torn }) => {
            let cut = if *torn { "its last line is torn" } else { "its last line is missing" };
            let why = "whoever wrote it was killed, or still writes";
            let _ = writeln!(text, "{:<10} {cut}: {why}", "cut off:");
            writeln!(text, "{:<10} {counted}, digest {digest:016x}", "same:")
        }
        None => writeln!(text, "{:<10} {counted}, digest {digest:016x} so far", "same:"),
        Some(_) => writeln!(text, "{:<10} {counted}, digest {digest:016x}", "same:"),
    };
    ExitCode::SUCCESS
}

/// The first difference, and how those stand who are concerned.
fn differs<R: BufRead>(
    text: &mut String,
    replay: &Replay<R>,
    history: &History,
    difference: &Difference,
) {
    let Difference { line, at, manager, event, .. } = difference;
    let whose = match replay.managers().len() {
        1 => String::new(),
        _ => format!(", manager {manager}"),
    };
    let before = replay.steps().saturating_sub(1);
    let _ = writeln!(
        text,
        "{:<10} at line {line}, {at}{whose}; {before} steps before it are the same",
        "differs:"
    );
    let _ = writeln!(text, "{:<10} {}", "event", words::event(event));
    let (recorded, replayed) = difference.actions();
    let mut told = [recorded, replayed].map(|action| action.map_or("none".into(), words::action));
    if told[0] == told[1] {
        // What differs is too small for words.
        told = [recorded, replayed].map(|action| format!("{action:?}"));
    }
    let counts = [difference.recorded.len(), difference.replayed.len()];
    for (name, (told, count)) in ["recorded", "replayed"].iter().zip(told.iter().zip(counts)) {
        let place = difference.place() + 1;
        let _ = writeln!(text, "{name:<10} action {place} of {count}: {told}");
    }
    let Some(stepped) = replay.managers().get(*manager) else { return };
    let (peers, breakers) = history.concerned(difference);
    for peer in peers {
        let _ = match stepped.why(peer) {
            Some(why) => writeln!(text, "{:<10} {}", peer.to_string(), words::why(&why)),
            None => writeln!(text, "{:<10} is not there", peer.to_string()),
        };
    }
    for breaker in breakers {
        let _ = match stepped.breaker_state(breaker) {
            Some(state) => writeln!(text, "{:<10} {}", breaker.to_string(), words::breaker(state)),
            None => writeln!(text, "{:<10} is not there", breaker.to_string()),
        };
    }
}
