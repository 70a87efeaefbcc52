//! Checkpoints: from a generation of the journal to rows of the database, in a thread of its own.
//!
//! Order: the rows, in key order, with a sync before so much has been written that sled could take a part of its log into
//! use again (see [`SYNC_EVERY_BYTES`]); a sync; the sequence of the generation's last commit; a sync; the frozen table is
//! dropped; the writer releases the generation, and the journal may overwrite it.
//!
//! Crash: the database holds some of the rows and the old sequence. All of the generation is in the journal still, and the
//! next start writes every row of it again, as it was at the generation's end.
//!
//! A failure latches the engine (I19). What was to be written stays frozen, so reads go on and are right.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use proto::failpoint;

use super::database::{Database, LogSync};
use super::latch::Latch;
use super::shared::Shared;
use super::tables::Frozen;
use crate::store::engine::EngineError;

/// Bytes of rows, each with [`ROW_LOG_BYTES`] more, after which sled's log is synced.
///
/// sled takes a segment of its log (512 KiB) into use again once the segment behind the one to which it moved what the
/// first held was begun, and what it moved was handed to the kernel, which is not yet on the disk. So a whole segment lies
/// between the two; a sync at least once for every segment that is written makes what was moved durable first. sled
/// writes more than it is given, since it writes pages anew and moves others: measured up to 5 times as much with rows of
/// 80 bytes all over 200,000, which this allows for twice. A removal, of which it is given the key alone, costs it about as
/// much as such a row.
const SYNC_EVERY_BYTES: usize = 64 * 1024;

/// So much more than its bytes a row counts.
const ROW_LOG_BYTES: usize = 64;

/// The writer's end.
#[derive(Debug)]
pub(super) struct Checkpoints {
    frozen: SyncSender<Arc<Frozen>>,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
    latch: Arc<Latch>,
    /// The last that was begun.
    begun: u64,
}

/// How far they have come.
#[derive(Debug, Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// The last generation that the database has all of.
    done: u64,
    /// There will be no more.
    ended: bool,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Checkpoints {
    /// Starts the thread; generations up to `done` are in the database.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    pub(super) fn start(worker: Worker, done: u64) -> Result<Self, EngineError> {
        let latch = Arc::clone(&worker.shared.latch);
        let progress = Arc::new(Progress { state: Mutex::new(State { done, ended: false }), ..Progress::default() });
        let (frozen, generations) = sync_channel(1);
        let told = Arc::clone(&progress);
        let thread = std::thread::Builder::new().name("metadata-checkpoint".to_owned());
        let thread = thread.spawn(move || worker.run(&generations, &told));
        let thread = thread.map_err(|error| latch.fail("start its checkpoints", error))?;
        Ok(Self { frozen, progress, thread, latch, begun: done })
    }

    /// Begins one.
    pub(super) fn begin(&mut self, frozen: Arc<Frozen>) {
        self.begun = frozen.generation;
        // A thread that has ended has latched the engine, and said that it ended.
        drop(self.frozen.send(frozen));
    }

    /// The last generation that the database has all of.
    pub(super) fn done(&self) -> u64 {
        self.progress.lock().done
    }

    /// Whether all that were begun are done.
    pub(super) fn is_idle(&self) -> bool {
        self.done() == self.begun
    }

    /// Waits until all that were begun are done, and returns the last.
    ///
    /// # Errors
    /// [`EngineError::Latched`].
    pub(super) fn wait(&self) -> Result<u64, EngineError> {
        let unfinished = |state: &mut State| state.done < self.begun && !state.ended;
        let waited = self.progress.changed.wait_while(self.progress.lock(), unfinished);
        let State { done, .. } = *waited.unwrap_or_else(PoisonError::into_inner);
        if done == self.begun {
            return Ok(done);
        }
        self.latch.check()?;
        Err(self.latch.fail("bring commits into its database", "its thread has ended"))
    }

    /// Ends the thread, which lets go of the database.
    pub(super) fn end(self) {
        drop(self.frozen);
        drop(self.thread.join());
    }
}

/// The thread's own state.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) database: Database,
    pub(super) log: Box<dyn LogSync>,
}

impl Worker {
    fn run(mut self, generations: &Receiver<Arc<Frozen>>, progress: &Progress) {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            while let Ok(frozen) = generations.recv() {
                let latch = &self.shared.latch;
                bring_in(&self.database, self.log.as_mut(), latch, frozen.rows(), frozen.sequence)?;
                self.shared.thaw();
                failpoint!("checkpoint.thawed");
                progress.change(|state| state.done = frozen.generation);
            }
            Ok::<_, EngineError>(())
        }));
        if let Err(panic) = &worked {
            self.shared.latch.fail("go on after a panic in a checkpoint", panic_text(&**panic));
        }
        progress.change(|state| state.ended = true);
    }
}

/// Writes rows, and that with them all commits up to `sequence` are there. Durable on return.
///
/// # Errors
/// [`EngineError::Failed`].
pub(super) fn bring_in<'a>(
    database: &Database,
    log: &mut dyn LogSync,
    latch: &Latch,
    rows: impl Iterator<Item = (&'a [u8], Option<&'a Bytes>)>,
    sequence: u64,
) -> Result<(), EngineError> {
    let mut sync = || log.sync().map_err(|error| latch.fail("sync its database", error));
    if seeded!(SequenceBeforeRows) {
        database.write_sequence(sequence)?;
    }
    let mut unsynced_bytes = 0;
    for (key, value) in rows {
        database.write(key, value.map(Bytes::as_ref))?;
        unsynced_bytes += ROW_LOG_BYTES + key.len() + value.map_or(0, Bytes::len);
        if unsynced_bytes >= SYNC_EVERY_BYTES {
            sync()?;
            unsynced_bytes = 0;
        }
    }
    failpoint!("checkpoint.rows_written");
    if unsynced_bytes > 0 {
        sync()?;
    }
    database.write_sequence(sequence)?;
    failpoint!("checkpoint.sequence_written");
    sync()
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
