//! `steadfast run`: a scenario, its timeline, its files.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use steadfast_sim::{Follow, Page, Records, Run, Simulation, Verdict, find_with};

use super::output::{Json, create};
use super::progress::timed;
use super::{Failure, print, verify};

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// A TOML file, or the name of a built-in scenario
    pub(super) scenario: String,
    /// The seed: the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Changes a setting of the file, as peers.device.count=100; may be given many times. Items of
    /// a list go by their place, as faults.0.for=5s, and a key with dots in it by its quotes
    #[arg(long, value_name = "PATH=VALUE")]
    pub(super) set: Vec<String>,
    /// How the clients behave: a built-in policy, as `list` shows them, or one of the file's own
    #[arg(long, value_name = "NAME", default_value = "ours")]
    pub(super) policy: String,
    /// Writes the summary as JSON; - is the standard output, in place of the timeline
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Writes a recording to a file, not to -: every event and its answer; `replay` reads it
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Writes a page with charts to a file, not to -: what broke, what each client did, what it cost.
    /// It needs no network and no other file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Other policies that live through the same outage, to stand beside the first on the page: up to
    /// seven, as naive,grpc. The timeline, the verdict and all other files are the first one's
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "html")]
    beside: Vec<String>,
    /// Whose story the page tells, as device.7; the one that was back last if left out
    #[arg(long, value_name = "GROUP.N", requires = "html")]
    peer: Option<String>,
    /// Writes a trace to a file, not to -, which ui.perfetto.dev opens: faults, breakers, the first 200
    /// peers that were lost, counters
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Makes the run again in other ways, which must come to the same: once more, in a process of its
    /// own, from snapshots, with ticks between events, with another hash key; and with the ties of each
    /// moment shuffled, which must break no rule. Where one does not, the first step that differs is told
    #[arg(long)]
    verify: bool,
    /// Draws the timeline with plain characters
    #[arg(long)]
    ascii: bool,
}

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let simulation = find_with(&args.scenario, &args.set)?.policy(&args.policy)?;
    let studies = simulation.scenario().reference.is_some();
    let single = [
        ("--log", args.log.is_some()),
        ("--html", args.html.is_some()),
        ("--trace", args.trace.is_some()),
        ("--verify", args.verify),
    ];
    if let Some((name, _)) = single.iter().find(|(_, asked)| studies && *asked) {
        let problem = format!("{name} is for a single run; this scenario makes many");
        return Err(Failure::Usage(problem));
    }
    if args.beside.len() > 7 {
        return Err(Failure::Usage("--beside takes up to seven policies".to_owned()));
    }
    let mut files = Files::open(args)?;
    if studies {
        return study(args, &simulation, files);
    }
    let (runs, wall) = watched(args, &simulation, &mut files)?;
    let Some(run) = runs.first() else {
        return Err(Failure::Usage("nothing was run".to_owned()));
    };
    files.write_page(&runs)?;
    if !files.json.is_stdout() {
        let colour = std::io::stdout().is_terminal();
        print(&run.timeline().ascii(args.ascii).colour(colour).to_string())?;
    }
    files.json.write(&run.summary())?;
    let events = run.summary().events;
    #[expect(clippy::cast_precision_loss, reason = "for printing")]
    let rate = events as f64 / wall.max(1e-9) / 1e6;
    anstream::eprintln!("{wall:.2}s, {rate:.2}M events/s");
    let holds = !args.verify || verify::verify(args, &simulation, run.digest())?;
    Ok(exit_code(if holds { run.verdict() } else { Verdict::Violated }))
}

pub(crate) fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Held => ExitCode::SUCCESS,
        Verdict::Violated => ExitCode::from(1),
        Verdict::Unknown => ExitCode::from(2),
    }
}

/// Runs a scenario that is held to a table, every row of it.
fn study(args: &RunArgs, simulation: &Simulation, files: Files) -> Result<ExitCode, Failure> {
    let (study, wall) = timed(|progress| simulation.study_watched(args.seed, progress))?;
    let verdict = study.verdict();
    let quiet = files.json.is_stdout();
    files.json.write(&study)?;
    if !quiet {
        print(&study.colour(std::io::stdout().is_terminal()).to_string())?;
    }
    anstream::eprintln!("{wall:.2}s");
    Ok(exit_code(verdict))
}

/// What a run writes beside its timeline, opened before it begins: a wrong name is known at once.
struct Files {
    json: Json,
    log: Option<(String, File)>,
    html: Option<(String, File)>,
    trace: Option<(String, File)>,
}

impl Files {
    fn open(args: &RunArgs) -> Result<Self, Failure> {
        let json = Json::open(args.json.as_deref())?;
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut opened: Vec<(&str, PathBuf)> = Vec::new();
        opened.extend(
            args.json.iter().filter(|_| !json.is_stdout()).map(|path| ("--json", whole(path))),
        );
        let mut open = |option: &'static str, path: Option<&PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            if path.as_os_str() == "-" {
                return Err(Failure::Usage(format!("{option} needs a file, not -")));
            }
            // Those named before exist by now, or one of them has no other name.
            if let Some((other, _)) = opened.iter().find(|(_, known)| *known == whole(path)) {
                return Err(Failure::Usage(format!("{other} and {option} name the same file")));
            }
            let file = create(path)?;
            opened.push((option, whole(path)));
            Ok(Some(file))
        };
        Ok(Self {
            log: open("--log", args.log.as_ref())?,
            html: open("--html", args.html.as_ref())?,
            trace: open("--trace", args.trace.as_ref())?,
            json,
        })
    }

    fn write_page(&mut self, runs: &[Run]) -> Result<(), Failure> {
        let Some((name, mut file)) = self.html.take() else { return Ok(()) };
        let page = Page::new(&runs.iter().collect::<Vec<_>>()).to_string();
        file.write_all(page.as_bytes()).map_err(|error| Failure::Io(name, error))
    }
}

/// The run, and those beside it.
fn watched(
    args: &RunArgs,
    simulation: &Simulation,
    files: &mut Files,
) -> Result<(Vec<Run>, f64), Failure> {
    let written = |file: Option<(String, File)>| {
        file.map(|(_, file)| Box::new(BufWriter::new(file)) as Box<dyn Write>)
    };
    let page = files.html.is_some().then(|| match &args.peer {
        Some(peer) => Follow::Peer(peer.clone()),
        None => Follow::Last,
    });
    let log = written(files.log.take());
    let records = Records { log, trace: written(files.trace.take()), page };
    timed(|progress| simulation.run_beside(&args.beside, args.seed, records, progress))
}
