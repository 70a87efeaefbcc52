//! Faults for tests: wrappers around the real log of an engine and around an engine, and their controllers.

pub(crate) mod engine;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tempfile::TempDir;

use super::sled::{FreeSpace, LogSync, Seams, WrapSync};

/// What a dying disk answers.
const EIO: i32 = 5;

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Controls the syncs of a log. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogFaults(Arc<(Mutex<LogState>, Condvar)>);

#[derive(Debug, Default)]
struct LogState {
    held: bool,
    /// Syncs that may end although they are held.
    passes: u64,
    fails: bool,
    /// Only the next sync fails.
    fails_once: bool,
    panics: bool,
    /// Syncs that have begun.
    begun: u64,
    /// A folder whose files are copied into the other after each sync.
    copied: Option<(PathBuf, PathBuf)>,
}

impl LogState {
    fn must_wait(&self) -> bool {
        self.held && self.passes == 0
    }
}

impl LogFaults {
    /// What puts the wrapper into an engine.
    pub(crate) fn wrap(&self) -> WrapSync {
        let faults = self.clone();
        Box::new(move |real| Box::new(FaultyLog { real, faults: faults.clone() }))
    }

    /// What puts it around the journal of an engine.
    pub(crate) fn seams(&self) -> Seams {
        Seams { journal: self.wrap(), ..Seams::default() }
    }

    /// The same with the disk's free space told by a test.
    pub(crate) fn seams_with(&self, disk: &DiskFaults) -> Seams {
        Seams { disk: Some(Box::new(disk.clone())), ..self.seams() }
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.0.lock().expect("nobody panics with the lock held")
    }

    fn change(&self, change: impl FnOnce(&mut LogState)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    /// From now on syncs do not end.
    pub(crate) fn hold(&self) {
        self.change(|state| state.held = true);
    }

    /// Lets one sync end; the next ones are held still.
    pub(crate) fn let_one_pass(&self) {
        self.change(|state| state.passes += 1);
    }

    /// Lets all syncs go on.
    pub(crate) fn release(&self) {
        self.change(|state| (state.held, state.passes) = (false, 0));
    }

    /// From now on syncs fail, as does one that is held.
    pub(crate) fn fail(&self) {
        self.change(|state| state.fails = true);
    }

    /// The next sync fails, as it does with a disk that forgets what it could not write.
    pub(crate) fn fail_once(&self) {
        self.change(|state| state.fails_once = true);
    }

    /// From now on syncs panic.
    pub(crate) fn panic(&self) {
        self.change(|state| state.panics = true);
    }

    /// After each sync from now on copies a folder's files: what a power cut before the next sync would leave.
    pub(crate) fn copy_after_sync(&self, from: &Path, to: &Path) {
        self.change(|state| state.copied = Some((from.to_path_buf(), to.to_path_buf())));
    }

    /// Syncs that have begun.
    pub(crate) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// Blocks until this many syncs have begun.
    pub(crate) fn wait_until_begun(&self, syncs: u64) {
        let (state, wait) = self.0.1.wait_timeout_while(self.lock(), DEADLINE, |state| state.begun < syncs).unwrap();
        assert!(!wait.timed_out(), "{} of {syncs} syncs have begun", state.begun);
    }
}

#[derive(Debug)]
struct FaultyLog {
    real: Box<dyn LogSync>,
    faults: LogFaults,
}

impl FaultyLog {
    fn sync_once(&mut self) -> io::Result<()> {
        self.faults.change(|state| state.begun += 1);
        let condition = &self.faults.0.1;
        let mut state = condition.wait_while(self.faults.lock(), |state| state.must_wait()).unwrap();
        state.passes = state.passes.saturating_sub(1);
        let fails = state.fails || std::mem::take(&mut state.fails_once);
        let (panics, copied) = (state.panics, state.copied.clone());
        drop(state);
        assert!(!panics, "as the test asked");
        if fails {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.real.sync()?;
        copied.map_or(Ok(()), |(from, to)| copy_files(&from, &to))
    }
}

impl LogSync for FaultyLog {
    fn sync(&mut self) -> io::Result<()> {
        let mut synced = self.sync_once();
        if seeded!(SyncRetried) {
            synced = synced.or_else(|_first| self.sync_once());
        }
        if seeded!(AckedWhateverTheSyncSaid) { Ok(()) } else { synced }
    }
}

pub(crate) fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Where a folder is in memory, if the system has that.
const MEMORY: &str = "/dev/shm";

/// A folder for a database whose syncs need not be slow.
pub(crate) fn memory_folder() -> TempDir {
    let memory = Path::new(MEMORY);
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// A disk whose free space a test sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiskFaults(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    /// `None` when nobody can tell.
    free_bytes: Option<u64>,
    looks: u64,
}

impl DiskFaults {
    /// From now on this many bytes are free.
    pub(crate) fn set_free(&self, bytes: u64) {
        self.0.lock().unwrap().free_bytes = Some(bytes);
    }

    /// From now on nobody can tell how many are.
    pub(crate) fn fail(&self) {
        self.0.lock().unwrap().free_bytes = None;
    }

    /// How often somebody has looked.
    pub(crate) fn looks(&self) -> u64 {
        self.0.lock().unwrap().looks
    }
}

impl FreeSpace for DiskFaults {
    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.0.lock().unwrap();
        state.looks += 1;
        state.free_bytes.ok_or_else(|| io::Error::from_raw_os_error(EIO))
    }
}
