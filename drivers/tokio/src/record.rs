//! The flight recorder: what reached a manager and what it answered, into files that rotate.
//!
//! A step writes its line into memory, under the shard's lock; a thread of its own writes memory to
//! disk, and the snapshots with which files begin (under the lock they are only taken). A disk that is too slow costs a gap, never a wait: the file that was being written ends
//! where it is, and the next one begins with the manager's snapshot. So does each file after a
//! rotation, which is why each replays alone.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use steadfast::recording::{Recorder, Start, write_header};
use steadfast::{Action, Config, Event, Manager, Time};

/// Where a driver's recording goes, and how much of it is kept.
///
/// Files are called `PATH.SHARD.NUMBER.jsonl`; numbers go on where an earlier process stopped.
/// `steadfast replay` reads each of them alone. A path is best one driver's own: those that share
/// one take turns in the numbers, and forget each other's oldest files.
///
/// What was recorded in the last second may be missing where a process ends without
/// [`Handle::shutdown`](crate::Handle::shutdown), which waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    path: PathBuf,
    max_bytes: u64,
    max_files: usize,
    max_unwritten: usize,
}

impl Record {
    /// Recordings that begin with this path: four files of 64 MiB for each shard.
    #[must_use]
    pub fn to(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, max_bytes: 64 << 20, max_files: 4, max_unwritten: 16 << 20 }
    }

    /// How long a file grows before the next begins; 64 MiB.
    ///
    /// The next one begins with a snapshot of some 600 bytes a peer, so a file also grows to at least
    /// four times its own beginning. The shard stands still while it is taken, about 0.1 µs a peer.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many files of a shard are kept, those of earlier processes included; 4, at least 1.
    #[must_use]
    pub const fn max_files(mut self, files: usize) -> Self {
        self.max_files = files;
        self
    }

    /// How much may wait to be written before steps are left out; 16 MiB.
    #[must_use]
    pub const fn max_unwritten(mut self, bytes: usize) -> Self {
        self.max_unwritten = bytes;
        self
    }
}

/// How a recording is going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Steps that were left out because the disk was too slow.
    pub missed: u64,
    /// Why nothing more is written, if that is so.
    pub failed: Option<String>,
}

/// How often memory is written to disk.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// What a peer takes in a snapshot, about, in bytes.
const SNAPSHOT_OF_A_PEER: u64 = 600;
/// With so much the thread is woken earlier.
const FLUSH_AT: usize = 256 << 10;

/// A part of one file.
#[derive(Default)]
struct Piece {
    /// With what a new file begins; `None`: the piece goes on in the file that is open.
    start: Option<Start>,
    /// The lines that follow.
    lines: Vec<u8>,
}

/// What waits for the thread.
#[derive(Default)]
struct Waiting {
    /// In order.
    pieces: VecDeque<Piece>,
    /// Of all their lines.
    bytes: usize,
    done: bool,
    failed: Option<String>,
    finished: bool,
}

#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shard's recording, under its lock.
pub(crate) struct Tape {
    /// `None` in a gap.
    recorder: Option<Recorder<Vec<u8>>>,
    desk: Arc<Desk>,
    max_bytes: u64,
    max_unwritten: usize,
    /// Of this file: all, and its first line.
    bytes: u64,
    beginning: u64,
    missed: u64,
}

impl Tape {
    /// Opens the first file and starts the thread.
    pub(crate) fn new(
        record: &Record,
        shard: usize,
        shards: usize,
        config: &Config,
    ) -> io::Result<Self> {
        let mut files = Files::open(record, shard)?;
        let about = BTreeMap::from([
            ("driver".to_owned(), "steadfast-tokio".to_owned()),
            ("shard".to_owned(), format!("{shard} of {shards}")),
            ("began".to_owned(), began()),
        ]);
        let desk = Arc::new(Desk::default());
        let mut tape = Self {
            recorder: None,
            desk: Arc::clone(&desk),
            max_bytes: record.max_bytes,
            max_unwritten: record.max_unwritten,
            bytes: 0,
            beginning: 0,
            missed: 0,
        };
        tape.begin(Start::new(config), 0);
        thread::Builder::new().name("steadfast-record".to_owned()).spawn(move || {
            let written = write(&desk, &mut files, &about);
            let mut waiting = desk.lock();
            waiting.failed = written.err().map(|error| error.to_string());
            waiting.finished = true;
            desk.more.notify_all();
        })?;
        Ok(tape)
    }

    /// Writes down a step, and goes on in a new file if this one is long enough.
    pub(crate) fn step(&mut self, now: Time, event: &Event, actions: &[Action], after: &Manager) {
        if self.recorder.is_none() && !self.resume(after) {
            self.missed += 1;
            return;
        }
        let Some(recorder) = &mut self.recorder else { return };
        // Memory takes everything.
        let _ = recorder.step(0, now, event, actions);
        let bytes = std::mem::take(recorder.get_mut());
        self.bytes += bytes.len() as u64;
        if !self.push(&bytes) {
            self.recorder = None;
            self.missed += 1;
        } else if self.bytes >= self.max_bytes.max(4 * self.beginning) {
            self.end(after);
            self.begin_with(after);
        }
    }

    /// After a gap: once half of what waited is written, a new file can begin. This step's effect
    /// is in its snapshot already.
    fn resume(&mut self, after: &Manager) -> bool {
        let waiting = self.desk.lock();
        let room = waiting.failed.is_none() && waiting.bytes <= self.max_unwritten / 2;
        drop(waiting);
        if room {
            self.begin_with(after);
        }
        false
    }

    fn begin_with(&mut self, after: &Manager) {
        let peers = after.peers().count() as u64;
        self.begin(Start::restored([after]), peers.saturating_mul(SNAPSHOT_OF_A_PEER));
    }

    /// A new file begins, with a first line of about that length.
    fn begin(&mut self, start: Start, beginning: u64) {
        let piece = Piece { start: Some(start), lines: Vec::new() };
        self.desk.lock().pieces.push_back(piece);
        (self.beginning, self.bytes) = (beginning, beginning);
        self.recorder = Some(Recorder::behind_header(Vec::new()));
    }

    /// The last line of this file.
    fn end(&mut self, after: &Manager) {
        if let Some(recorder) = self.recorder.take()
            && let Ok(bytes) = recorder.finish(&[after.run_digest()])
        {
            self.push(&bytes);
        }
    }

    /// Nothing more will come.
    pub(crate) fn finish(&mut self, after: &Manager) {
        self.end(after);
        self.desk.lock().done = true;
        self.desk.more.notify_all();
    }

    /// Adds lines to the file, if there is room for them.
    fn push(&self, bytes: &[u8]) -> bool {
        let mut waiting = self.desk.lock();
        if waiting.failed.is_some() || waiting.bytes > self.max_unwritten {
            return false;
        }
        waiting.bytes += bytes.len();
        match waiting.pieces.back_mut() {
            Some(piece) => piece.lines.extend_from_slice(bytes),
            None => waiting.pieces.push_back(Piece { start: None, lines: bytes.to_vec() }),
        }
        let many = waiting.bytes >= FLUSH_AT;
        drop(waiting);
        if many {
            self.desk.more.notify_all();
        }
        true
    }

    pub(crate) fn recorded(&self) -> Recorded {
        Recorded { missed: self.missed, failed: self.desk.lock().failed.clone() }
    }

    /// What tells whether all is on disk.
    pub(crate) fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.desk))
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.desk.lock().done = true;
        self.desk.more.notify_all();
    }
}

/// Waits for a recording's last byte.
pub(crate) struct Ending(Arc<Desk>);

impl Ending {
    /// Blocks until all is on disk, or nothing more will be, or that takes too long.
    pub(crate) fn wait(&self, patience: Duration) {
        let unfinished = |waiting: &mut Waiting| !waiting.finished;
        drop(self.0.more.wait_timeout_while(self.0.lock(), patience, unfinished));
    }
}

/// The thread: memory to disk, until nothing more comes.
fn write(desk: &Desk, files: &mut Files, about: &BTreeMap<String, String>) -> io::Result<()> {
    let mut first = true;
    loop {
        let mut waiting = desk.lock();
        if !waiting.done && waiting.bytes < FLUSH_AT {
            let slept = desk.more.wait_timeout(waiting, FLUSH_EVERY);
            waiting = slept.unwrap_or_else(PoisonError::into_inner).0;
        }
        let pieces = std::mem::take(&mut waiting.pieces);
        let written = std::mem::take(&mut waiting.bytes);
        let done = waiting.done;
        // Until it is on disk it takes room.
        waiting.bytes += written;
        drop(waiting);
        for Piece { start, lines } in pieces {
            if let Some(start) = start {
                if !std::mem::take(&mut first) {
                    files.next()?;
                }
                let mut file = BufWriter::new(&mut files.current);
                write_header(&mut file, about, &start)?;
                file.flush()?;
            }
            files.current.write_all(&lines)?;
        }
        let mut waiting = desk.lock();
        waiting.bytes -= written;
        if done && waiting.bytes == 0 {
            return files.current.sync_all();
        }
    }
}

/// The files of one shard.
struct Files {
    folder: PathBuf,
    prefix: String,
    max_files: usize,
    number: u64,
    current: File,
}

impl Files {
    fn open(record: &Record, shard: usize) -> io::Result<Self> {
        let folder = match record.path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = record.path.file_name().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the recording's path has no file name")
        })?;
        let prefix = format!("{}.{shard}.", name.to_string_lossy());
        let last = numbers(&folder, &prefix)?.last().copied().unwrap_or(0);
        let (number, current) = create(&folder, &prefix, last)?;
        let files = Self { folder, prefix, max_files: record.max_files.max(1), number, current };
        files.forget_oldest()?;
        Ok(files)
    }

    fn next(&mut self) -> io::Result<()> {
        (self.number, self.current) = create(&self.folder, &self.prefix, self.number)?;
        self.forget_oldest()
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let numbers = numbers(&self.folder, &self.prefix)?;
        let surplus = numbers.len().saturating_sub(self.max_files);
        for number in numbers.iter().take(surplus) {
            match fs::remove_file(place(&self.folder, &self.prefix, *number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // Or somebody else was faster.
                _ => {}
            }
        }
        Ok(())
    }
}

/// A new file of the next number that is free: another driver may record there too.
fn create(folder: &Path, prefix: &str, last: u64) -> io::Result<(u64, File)> {
    let mut number = last;
    loop {
        number = number.saturating_add(1);
        match File::create_new(place(folder, prefix, number)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u64::MAX => {}
            created => return Ok((number, created?)),
        }
    }
}

fn place(folder: &Path, prefix: &str, number: u64) -> PathBuf {
    folder.join(format!("{prefix}{number:06}.jsonl"))
}

/// The numbers of the files that are there, in order.
fn numbers(folder: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let number = number.and_then(|rest| rest.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The moment of day at which this recording's time is zero, or nearly.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "for people who look for last night; nothing is decided by it"
)]
fn began() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    format!("{} s after 1970-01-01T00:00:00Z", since.unwrap_or_default().as_secs())
}
