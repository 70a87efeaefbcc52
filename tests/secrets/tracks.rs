//! What the processes of a session leave in `/proc` for everybody to see: command lines, and what they inherited.
//!
//! A thread looks again and again at every process that runs one of our programs, and at those that they start, whatever
//! program that is. A process that is just being started is a copy of the one that starts it, until it runs its own
//! program: what is seen of that takes the copy's place, and a copy that was gone before is none of what was seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

/// What was seen of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Track {
    /// The program's name.
    pub(crate) program: String,
    /// Its arguments, each ended by a zero.
    pub(crate) command_line: Vec<u8>,
    /// Its variables, each ended by a zero.
    pub(crate) environment: Vec<u8>,
    /// Which process started it.
    pub(crate) parent: u32,
}

impl Track {
    /// Whether it is, so far, the process that starts it once more.
    fn is_copy(&self, seen: &BTreeMap<u32, Self>) -> bool {
        seen.get(&self.parent).is_some_and(|parent| self.command_line == parent.command_line)
    }
}

type Seen = Arc<Mutex<BTreeMap<u32, Track>>>;

/// The thread that looks.
#[derive(Debug)]
pub(crate) struct Watcher {
    seen: Seen,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Begins to look for the programs in a folder.
    pub(crate) fn start(programs: &Path) -> Self {
        let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        let (programs, into, told) = (programs.to_path_buf(), Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                look(&programs, &into);
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        Self { seen, stop, thread }
    }

    /// Looks at a process at once: it has just been started, and may end soon.
    pub(crate) fn look_at(&self, pid: u32) {
        if let Some(track) = track(pid) {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, track);
        }
    }

    /// Waits until the thread has seen a process, which must not end before.
    pub(crate) fn wait_for(&self, pid: u32) {
        while !self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&pid) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Ends, and says what was seen.
    pub(crate) fn stop(self) -> Result<BTreeMap<u32, Track>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_panic| anyhow!("the thread that looks at processes panicked"))?;
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(seen.clone().into_iter().filter(|(_pid, track)| !track.is_copy(&seen)).collect())
    }
}

fn look(programs: &Path, seen: &Seen) {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Some(program) = program(pid) else { continue };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = seen.get(&pid).is_some_and(|known| program.file_name() == Some(known.program.as_ref()));
        let is_ours =
            program.parent() == Some(programs) || parent(pid).is_some_and(|parent| seen.contains_key(&parent));
        if is_ours
            && !is_known
            && let Some(track) = track(pid)
        {
            seen.insert(pid, track);
        }
    }
}

fn program(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// `None` of a process that has ended.
fn track(pid: u32) -> Option<Track> {
    let program = program(pid)?.file_name()?.to_string_lossy().into_owned();
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).ok().filter(|bytes| !bytes.is_empty());
    Some(Track { program, command_line: read("cmdline")?, environment: read("environ")?, parent: parent(pid)? })
}

/// The fourth field of `stat`, the second behind the name, which may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_name, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}
