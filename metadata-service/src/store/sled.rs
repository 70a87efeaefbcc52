//! The default engine: sled, embedded, driven by one writer thread.
//!
//! Owns the database's files in the folder that it is given. Callers' commits queue up for the writer (`writer`), which
//! decides them in order, and applies and syncs them in groups (`group`); readers read the database themselves and hold
//! back what is not durable yet (`shared`). `database` is the one that names sled, and says what sled needs so that a
//! power cut loses nothing, `files` what it must not find; `space` refuses commits before the disk is full; `latch` keeps
//! the first failure.
//!
//! Invariants: I3 (shown only when durable), I15 (nothing is answered before its sync), I19 (the first failure ends all
//! commits; reads go on), I20 (a commit is shown before it is answered).
//!
//! Locks and order: see `shared` for the one lock, `writer` for the order of durable steps and for what a crash leaves.
//!
//! Reads run on the caller's own thread, not on a blocking one: rows are small and mostly in sled's cache or the page
//! cache, so a read takes microseconds, less than handing it over would. It may have to wait until a group is applied,
//! a matter of milliseconds for the largest; sled makes readers wait for that anyway.

mod database;
mod files;
mod group;
mod latch;
mod shared;
mod space;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use proto::limits::MIB;
use proto::runtime::folder::FolderError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::database::LogSync;
use self::database::{Database, Log};
use self::latch::Latch;
use self::shared::Shared;
pub(crate) use self::space::FreeSpace;
use self::space::{DiskOf, Watermarks};
use self::writer::{Job, Writer};
use super::engine::{Decide, Engine, EngineError, KeyRange, Row};
use super::feed::Follower;

/// How the engine uses memory and disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SledOptions {
    /// Memory for pages.
    pub cache_bytes: u64,
    /// Commits that may wait; one more is refused as [`EngineError::Overloaded`].
    pub queue_length: usize,
    /// With fewer bytes than this left on the disk, only commits that free space are taken.
    pub low_watermark_bytes: u64,
    /// With fewer bytes than this left on the disk, no commit that writes is taken.
    pub reserve_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 48 * MIB, queue_length: 4096, low_watermark_bytes: 128 * MIB, reserve_bytes: 32 * MIB }
    }
}

/// The sled engine.
pub struct SledEngine {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
}

impl fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledEngine").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// What tests replace.
pub(crate) type WrapLog = Box<dyn FnOnce(Box<dyn LogSync>) -> Box<dyn LogSync>>;

impl SledEngine {
    /// Opens the database in a folder, made if it is missing, and recovers it. Blocks until everything found there is
    /// durable.
    ///
    /// # Errors
    /// [`EngineError::Failed`], also when another process has it open.
    pub fn open(folder: &Path, options: &SledOptions) -> Result<Self, EngineError> {
        Self::open_with(folder, options, Box::new(|log| log), None)
    }

    /// Whether a folder holds a database.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn has_database(folder: &Path) -> Result<bool, FolderError> {
        files::has_log(folder)
    }

    /// As [`Self::open`], with the log's sync wrapped and the disk's free space told by someone else.
    pub(crate) fn open_with(
        folder: &Path,
        options: &SledOptions,
        wrap_log: WrapLog,
        disk: Option<Box<dyn FreeSpace>>,
    ) -> Result<Self, EngineError> {
        let latch = Arc::new(Latch::default());
        let database = Database::open(folder, options.cache_bytes, Arc::clone(&latch))?;
        let sequence = database.sequence()?;
        let log = Log::open(&database, folder)?;
        let watermarks = Watermarks {
            disk: disk.unwrap_or(Box::new(DiskOf(log.file()?))),
            low_bytes: options.low_watermark_bytes,
            reserve_bytes: options.reserve_bytes,
        };
        let (queue, jobs) = mpsc::channel(options.queue_length.max(1));
        let shared = Arc::new(Shared::new(database.clone(), latch, sequence));
        let file = log.file()?;
        let log = wrap_log(Box::new(log));
        let writer = Writer { shared: Arc::clone(&shared), database, queue: jobs, log, watermarks, sequence, file };
        let thread = std::thread::Builder::new().name("metadata-writer".to_owned());
        thread.spawn(|| writer.run()).map_err(|error| shared.latch.fail("start its writer", error))?;
        Ok(Self { shared, queue })
    }

    /// Why an answer never came.
    async fn unanswered(&self) -> EngineError {
        tokio::select! {
            reason = self.shared.latch.failed() => EngineError::Latched(reason),
            () = self.shared.ended.cancelled() => EngineError::Closed,
        }
    }
}

#[async_trait]
impl Engine for SledEngine {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let (value, unsynced) = self.shared.get(key)?;
        self.shared.settled(unsynced).await?;
        Ok(value)
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        let (rows, unsynced) = self.shared.scan(range, limit)?;
        self.shared.settled(unsynced).await?;
        Ok(rows)
    }

    async fn commit(&self, decide: Decide) -> Result<u64, EngineError> {
        self.shared.latch.check()?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job::Commit { decide, answer }).map_err(|refused| match refused {
            TrySendError::Full(_) => EngineError::Overloaded,
            TrySendError::Closed(_) => EngineError::Closed,
        })?;
        match answered.await {
            Ok(outcome) => outcome,
            Err(_dropped) => Err(self.unanswered().await),
        }
    }

    fn sequence(&self) -> u64 {
        self.shared.sequence()
    }

    fn follow(&self) -> Result<Follower, EngineError> {
        self.shared.follow()
    }

    fn latched(&self) -> Option<String> {
        self.shared.latch.reason()
    }

    async fn failed(&self) -> String {
        self.shared.latch.failed().await
    }

    async fn close(&self) {
        // A closed queue means that somebody else has asked for it.
        drop(self.queue.send(Job::Close).await);
        self.shared.ended.cancelled().await;
    }
}
