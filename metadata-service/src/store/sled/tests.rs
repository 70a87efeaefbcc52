//! What only this engine has: durable steps that can be held or failed, a disk that fills up, and files to reopen.

mod durability;
mod limits;
mod model;

use std::pin::Pin;
use std::task::Poll;

use tempfile::TempDir;

use super::*;
use crate::store::conformance::{self, commit, puts};
use crate::store::engine::Batch;
use crate::store::faulty::{DiskFaults, LogFaults};

/// An engine in a folder of its own, with the controllers of its faults.
struct Fixture {
    engine: Arc<SledEngine>,
    log: LogFaults,
    disk: DiskFaults,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(SledOptions::default())
    }

    fn with(options: SledOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let (log, disk) = (LogFaults::default(), DiskFaults::default());
        disk.set_free(u64::MAX);
        let opened = SledEngine::open_with(folder.path(), &options, log.wrap(), Some(Box::new(disk.clone())));
        Self { engine: Arc::new(opened.unwrap()), log, disk, folder }
    }

    /// Starts a commit whose sync is held, and returns once that sync has begun.
    async fn stall(&self, batch: Batch) -> Started<u64> {
        self.log.hold();
        let syncs = self.log.begun();
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
}
