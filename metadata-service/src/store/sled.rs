//! The default engine: a journal in front of sled, both embedded, driven by one writer thread.
//!
//! Owns the files of both in the folder that it is given. Callers' commits queue up for the writer (`writer`), which
//! decides them in order and makes them durable in groups (`group`), each by one record (`record`) and one sync of the
//! journal (`journal`). sled gets them later and in bulk, in the order of their keys and without what has gone again
//! meanwhile (`checkpoint`); until then they are in tables over it (`tables`). So a commit waits for one short write and
//! one sync whatever sled has to do. Readers look through the tables and the database themselves and hold back what is not
//! durable yet (`shared`). `database` is the one that names sled, and says what sled needs so that a power cut loses
//! nothing, `files` what it must not find; `space` refuses commits before the disk is full; `latch` keeps the first
//! failure.
//!
//! Invariants: I3 (shown only when durable), I15 (nothing is answered before its sync), I19 (the first failure ends all
//! commits; reads go on), I20 (a commit is shown before it is answered).
//!
//! Locks and order: see `shared` for the one lock, `writer` and `checkpoint` for the order of durable steps and for what a
//! crash leaves. A start brings what the journal holds into the database before anybody reads it.
//!
//! Reads run on the caller's own thread, not on a blocking one: rows are small and mostly in a table, in sled's cache or
//! in the page cache, so a read takes microseconds, less than handing it over would.

mod checkpoint;
mod database;
mod files;
mod group;
mod journal;
mod latch;
pub(crate) mod record;
mod shared;
mod space;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use proto::failpoint;
use proto::limits::MIB;
use proto::runtime::folder::{self, FolderError};
use proto::runtime::journal::{GROWTH_BYTES, HALF_BYTES_MIN, Journal, Shape};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use self::checkpoint::{Checkpoints, Worker, bring_in};
pub(crate) use self::database::LogSync;
use self::database::{Database, Log};
use self::journal::Half;
pub(crate) use self::journal::WrapSync;
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
    /// Greatest size of each of the journal's two files, at least 5 MiB; what a start may have to go over again.
    pub journal_bytes: u64,
    /// When commits that are not in the database yet take so much memory, a checkpoint brings them there.
    pub checkpoint_bytes: u64,
    /// So much may come together while one is under way; then commits wait for it. At least as much.
    pub waiting_bytes: u64,
    /// With fewer bytes than this left on the disk, only commits that free space are taken.
    pub low_watermark_bytes: u64,
    /// With fewer bytes than this left on the disk, no commit that writes is taken.
    pub reserve_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 24 * MIB,
            queue_length: 4096,
            journal_bytes: 16 * MIB,
            checkpoint_bytes: 4 * MIB,
            waiting_bytes: 16 * MIB,
            low_watermark_bytes: 128 * MIB,
            reserve_bytes: 32 * MIB,
        }
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
pub(crate) struct Seams {
    /// Around each sync of the journal.
    pub(crate) journal: WrapSync,
    /// Around each sync of the database.
    pub(crate) database: WrapSync,
    /// Who tells the disk's free space; the file system unless said otherwise.
    pub(crate) disk: Option<Box<dyn FreeSpace>>,
}

impl Default for Seams {
    fn default() -> Self {
        Self { journal: Box::new(|real| real), database: Box::new(|real| real), disk: None }
    }
}

impl SledEngine {
    /// Opens the database in a folder, made if it is missing, and recovers it. Blocks until everything found there is
    /// durable.
    ///
    /// # Errors
    /// [`EngineError::Failed`], also when another process has it open.
    pub fn open(folder: &Path, options: &SledOptions) -> Result<Self, EngineError> {
        Self::open_with(folder, options, Seams::default())
    }

    /// Whether a folder holds a database.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn has_database(folder: &Path) -> Result<bool, FolderError> {
        files::has_log(folder)
    }

    /// As [`Self::open`], with what tests replace.
    pub(crate) fn open_with(folder: &Path, options: &SledOptions, seams: Seams) -> Result<Self, EngineError> {
        let latch = Arc::new(Latch::default());
        let database = Database::open(folder, options.cache_bytes, Arc::clone(&latch))?;
        let log = Log::open(&database, folder)?;
        let file = log.file()?;
        let watermarks = Watermarks {
            disk: seams.disk.unwrap_or(Box::new(DiskOf(log.file()?))),
            low_bytes: options.low_watermark_bytes,
            reserve_bytes: options.reserve_bytes,
        };
        let mut log = (seams.database)(Box::new(log));
        let half_bytes = options.journal_bytes.max(HALF_BYTES_MIN);
        let shape = Shape { half_bytes, growth_bytes: GROWTH_BYTES };
        let (journal, sequence) = recover(folder, shape, &database, log.as_mut(), &seams.journal, &latch)?;
        let shared = Arc::new(Shared::new(database.clone(), Arc::clone(&latch), sequence));
        let worker = Worker { shared: Arc::clone(&shared), database, log };
        let checkpoints = Checkpoints::start(worker, journal.generation().saturating_sub(1))?;
        let (queue, jobs) = mpsc::channel(options.queue_length.max(1));
        let writer = Writer {
            shared: Arc::clone(&shared),
            queue: jobs,
            journal,
            checkpoints,
            // An empty table is never due.
            checkpoint_bytes: options.checkpoint_bytes.max(1),
            waiting_bytes: options.waiting_bytes.max(options.checkpoint_bytes).max(1),
            watermarks,
            sequence,
            frozen: sequence,
            file,
        };
        let thread = std::thread::Builder::new().name("metadata-writer".to_owned());
        thread.spawn(|| writer.run()).map_err(|error| latch.fail("start its writer", error))?;
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

/// Brings what the journal holds into the database, and begins it. Returns it with the sequence of the last commit.
///
/// Order: what the journal holds is durable there; its rows and their sequence are in the database; the names of the
/// journal's files; then the journal may be overwritten, and only then does the database say that one belongs to it.
fn recover(
    folder: &Path,
    shape: Shape,
    database: &Database,
    log: &mut dyn LogSync,
    wrap: &WrapSync,
    latch: &Latch,
) -> Result<(Journal<Half>, u64), EngineError> {
    let known = database.sequence()?;
    let opened = journal::open(folder, shape, known, wrap, latch)?;
    let (table, sequence) = journal::replay(&opened, known, latch)?;
    if sequence > known.last {
        bring_in(database, log, latch, table.rows(), sequence)?;
        failpoint!("engine.journal_replayed");
        tracing::info!(commits = sequence - known.last, "the metadata's journal was replayed");
    }
    folder::sync_folder(folder).map_err(|error| latch.fail("sync its folder", proto::status::chain(&error)))?;
    let journal = opened.begin().map_err(|error| latch.fail("begin its journal", proto::status::chain(&error)))?;
    if !known.has_journal {
        bring_in(database, log, latch, std::iter::empty(), sequence)?;
    }
    Ok((journal, sequence))
}
