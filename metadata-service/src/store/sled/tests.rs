//! What only this engine has: durable steps that can be held or failed, a disk that fills up, and files to reopen.

mod checkpoints;
mod durability;
mod limits;
mod model;
mod recovery;

use std::pin::Pin;
use std::task::Poll;

use tempfile::TempDir;

use super::*;
use crate::store::conformance::{self, commit, puts};
use crate::store::engine::Batch;
use crate::store::faulty::{DiskFaults, LogFaults, copy_files};

/// An engine in a folder of its own, with the controllers of its faults.
struct Fixture {
    engine: Arc<SledEngine>,
    /// Of the journal.
    log: LogFaults,
    /// Of the database.
    database: LogFaults,
    /// Whether a checkpoint that is begun does not end.
    checkpoints_held: bool,
    disk: DiskFaults,
    folder: TempDir,
}

/// Every group is brought into the database as soon as that can be.
fn always_due() -> SledOptions {
    SledOptions { checkpoint_bytes: 1, ..SledOptions::default() }
}

impl Fixture {
    fn new() -> Self {
        Self::with(SledOptions::default())
    }

    fn with(options: SledOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let (log, database, disk) = (LogFaults::default(), LogFaults::default(), DiskFaults::default());
        disk.set_free(u64::MAX);
        let seams = Seams { database: database.wrap(), ..log.seams_with(&disk) };
        let opened = SledEngine::open_with(folder.path(), &options, seams);
        Self { engine: Arc::new(opened.unwrap()), log, database, checkpoints_held: false, disk, folder }
    }

    /// Starts a commit whose sync is held, and returns once that sync has begun.
    async fn stall(&self, batch: Batch) -> Started<u64> {
        // In this order, since the journal's turn is synced too, and nobody waits for that.
        let syncs = self.log.begun();
        self.log.hold();
        let stalled = start(commit_boxed(&self.engine, batch)).await;
        self.log.wait_until_begun(syncs + 1);
        stalled
    }
}

type Started<T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send>>;

fn commit_boxed(engine: &Arc<SledEngine>, batch: Batch) -> Started<u64> {
    let engine = Arc::clone(engine);
    Box::pin(async move { commit(&*engine, batch).await })
}

/// Polls a future once, which must not end it: its commit has queued up then, or its read waits.
async fn start<T>(mut future: Started<T>) -> Started<T> {
    assert!(poll_once(&mut future).await.is_pending());
    future
}

async fn poll_once<T>(future: &mut Started<T>) -> Poll<Result<T, EngineError>> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sled_engine_keeps_the_promises_of_every_engine() {
    let folder = TempDir::new().unwrap();
    conformance::suite(SledEngine::open(folder.path(), &SledOptions::default()).unwrap()).await;
    let folder = TempDir::new().unwrap();
    conformance::suite(SledEngine::open(folder.path(), &always_due()).unwrap()).await;
}

/// Waits until something is true.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < crate::store::faulty::DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

/// The folder's files as they are now, as a killed process would leave them. Not for while a checkpoint goes on, unless
/// in a sync that is held: files that are written meanwhile are not copied at one moment.
fn copy_of(folder: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    copy_files(folder, copy.path()).unwrap();
    copy
}
