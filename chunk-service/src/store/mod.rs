//! The chunk store: one flat folder of checksummed files, and the writes that are on their way into it.
//!
//! Owns every `.blob` and `.chk` of the folder, and what is in memory about them. Knows chunks, places and sums; knows
//! nothing of capabilities' signatures, gRPC or protos. Holds I1 (a sum is returned only for a durable chunk), I2
//! (nothing is read that does not match what the caller's permission says), I15 and I19 (see `latch`), I17 (see
//! `sessions`, `sink`).
//!
//! Whatever works on a chunk under its claim must run to its end, or a file job that still runs would meet the next
//! owner: callers put such calls into tasks of their own.
//!
//! Nothing is deleted at a start, and no folder is scanned: what a crash left is looked at when somebody asks for it.

/// Whether a test has put this mistake into the store; `false` in every other build.
#[cfg(test)]
macro_rules! seeded {
    ($disk:expr, $mistake:ident) => {
        $disk.mistake() == Some($crate::store::testing::mistakes::Mistake::$mistake)
    };
}
#[cfg(not(test))]
macro_rules! seeded {
    ($disk:expr, $mistake:ident) => {
        false
    };
}

pub(crate) mod chk;
mod direct;
pub(crate) mod disk;
pub(crate) mod durable;
pub(crate) mod folder_sync;
pub(crate) mod journal;
pub(crate) mod latch;
pub(crate) mod leftover;
pub(crate) mod listing;
pub(crate) mod open_write;
pub(crate) mod position;
pub(crate) mod reading;
pub(crate) mod sessions;
pub(crate) mod sink;
pub(crate) mod suspects;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod verify;
pub(crate) mod writing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::entropy::Entropy;
use proto::failpoint;
use proto::ids::ChunkId;
use proto::runtime::TaskGroup;
use proto::traffic::TrafficClass;
use tokio::sync::Semaphore;

use self::disk::{Disk, Space};
use self::folder_sync::FolderSync;
use self::journal::{ChunkJournal, Use};
use self::latch::Latch;
use self::open_write::{OpenWrite, UnsyncedOfAll};
use self::sessions::{Claim, Sessions};
use self::sink::{SinkShared, UnsyncedBounds};
use self::suspects::Suspects;
use crate::blocking::Blocking;
use crate::config::Tuning;
use crate::error::ChunkError;
use crate::fairness::Account;

/// What the metadata holds of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Described {
    /// Planned; no receipt of it is known.
    Open,
    /// Its place and sums are final.
    Sealed(ChunkBinding, ReadClaims),
    /// Nothing refers to it.
    Unknown,
}

/// Asks the metadata what it holds of a chunk.
pub(crate) trait Describe: fmt::Debug + Send + Sync {
    /// The answer, or [`ChunkError::MetadataUnreachable`].
    fn describe(&self, chunk: ChunkId) -> BoxFuture<'_, Result<Described, ChunkError>>;
}

/// Rebuilding of checksum files at once; a read that finds none free leaves it to a later read.
const HEALS_MAX: usize = 4;

/// Share of the buffers of writes that is gold's alone: one in so many.
const GOLD_BUFFERS: usize = 4;

/// What a store stands on: a folder whose journal, if it has one, was replayed.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) disk: Arc<dyn Disk>,
    /// Closed by the first fault of the disk.
    pub(crate) latch: Latch,
    pub(crate) journal: ChunkJournal,
}

impl Ground {
    /// Opens the folder's journal and makes durable what a crash kept from the files. Blocks.
    ///
    /// # Errors
    /// As [`ChunkJournal::open`].
    pub(crate) fn open(disk: Arc<dyn Disk>, wanted: Use, entropy: &dyn Entropy) -> Result<Self, ChunkError> {
        let latch = Latch::new();
        let journal = ChunkJournal::open(&disk, &latch, wanted, entropy)?;
        Ok(Self { disk, latch, journal })
    }

    /// A folder whose journal is left alone.
    pub(crate) fn without_journal(disk: Arc<dyn Disk>) -> Self {
        Self { disk, latch: Latch::new(), journal: ChunkJournal::none() }
    }
}

/// The store. Its methods may be called from any task. Clones are the same store; what they do may be on another account.
#[derive(Debug, Clone)]
pub(crate) struct ChunkStore {
    disk: Arc<dyn Disk>,
    blocking: Blocking,
    latch: Latch,
    folder_sync: Arc<FolderSync>,
    journal: ChunkJournal,
    sessions: Arc<Sessions>,
    budgets: Budgets,
    describe: Arc<dyn Describe>,
    heals: Arc<Semaphore>,
    suspects: Arc<Suspects>,
    tasks: TaskGroup,
    low_watermark: u64,
    session_kept: Duration,
    patience: Duration,
    unsynced_max: u64,
    unsynced_of_all: UnsyncedOfAll,
    unsynced_max_of_all: u64,
}

/// Bytes of writes that may be in memory. Gold's are apart: those of others wait for turns that gold has first.
#[derive(Debug, Clone)]
struct Budgets {
    gold: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Budgets {
    fn new(bytes: u64) -> Self {
        let all = usize::try_from(bytes).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        let gold = all / GOLD_BUFFERS;
        Self { gold: Arc::new(Semaphore::new(gold)), others: Arc::new(Semaphore::new(all - gold)) }
    }

    fn of(&self, class: TrafficClass) -> &Arc<Semaphore> {
        match class {
            TrafficClass::Gold => &self.gold,
            TrafficClass::Silver | TrafficClass::Bronze => &self.others,
        }
    }
}

impl ChunkStore {
    /// A store over what a folder holds.
    pub(crate) fn new(
        ground: Ground,
        describe: Arc<dyn Describe>,
        blocking: Blocking,
        tuning: &Tuning,
        tasks: &TaskGroup,
    ) -> Self {
        let Ground { disk, latch, journal } = ground;
        Self {
            folder_sync: Arc::new(FolderSync::new(Arc::clone(&disk), latch.clone())),
            disk,
            blocking,
            latch,
            journal,
            sessions: Arc::new(Sessions::new(tuning.write_sessions_max, tuning.write_sessions_per_tenant)),
            budgets: Budgets::new(tuning.write_buffers),
            describe,
            heals: Arc::new(Semaphore::new(HEALS_MAX)),
            suspects: Arc::default(),
            tasks: tasks.clone(),
            low_watermark: tuning.chunk_low_watermark,
            session_kept: tuning.write_session_kept,
            patience: tuning.stream_stall,
            unsynced_max: tuning.unsynced_max,
            unsynced_of_all: UnsyncedOfAll::default(),
            unsynced_max_of_all: tuning.unsynced_max_of_all,
        }
    }

    /// The same store, whose work is on this account from now on. As made it is on that of the services' own work.
    pub(crate) fn on_account(&self, account: Account) -> Arc<Self> {
        Arc::new(Self { blocking: self.blocking.on_account(account), ..self.clone() })
    }

    /// Closed by the first fault of the disk.
    pub(crate) fn latch(&self) -> &Latch {
        &self.latch
    }

    /// Chunks that a read found missing or damaged.
    pub(crate) fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// Where file work runs.
    pub(crate) fn blocking(&self) -> &Blocking {
        &self.blocking
    }

    /// Room on the disk.
    pub(crate) async fn space(&self) -> Result<Space, ChunkError> {
        let disk = Arc::clone(&self.disk);
        self.blocking.run_urgent(move || disk.space()).await?.map_err(ChunkError::file("ask for the free space"))
    }

    /// Removes a chunk for good: durable on return, also when it was not there.
    pub(crate) async fn delete(&self, chunk: ChunkId) -> Result<(), ChunkError> {
        self.latch.check()?;
        let mut claim = self.sessions.claim(chunk, sessions::Purpose::Delete, self.patience).await?;
        drop(claim.take());
        let disk = Arc::clone(&self.disk);
        let removed = self.blocking.run(move || durable::remove(disk.as_ref(), chunk)).await?;
        removed.map_err(|error| self.latch.write_failed("remove chunk", chunk, error))?;
        self.sync_folder().await?;
        failpoint!("remove.folder_synced");
        if seeded!(self.disk, NotForgotten) { Ok(()) } else { self.journal.forget(chunk).await }
    }

    /// Returns when every name made or removed before is durable.
    async fn sync_folder(&self) -> Result<(), ChunkError> {
        self.folder_sync.sync(&self.blocking).await
    }

    /// Ends the writes whose writers did not come back in time. Returns how many.
    pub(crate) async fn reap(&self) -> Result<u64, ChunkError> {
        self.end_parked(self.session_kept).await
    }

    /// Ends every write that waits for its writer, and the journal: the last thing before the store is left alone.
    pub(crate) async fn close(&self) -> Result<u64, ChunkError> {
        let ended = self.end_parked(Duration::ZERO).await;
        self.journal.close().await;
        ended
    }

    /// Has the files of small chunks made durable that only the journal holds durably so far. Does not wait for it.
    pub(crate) async fn settle_soon(&self) {
        self.journal.settle_soon().await;
    }

    async fn end_parked(&self, kept: Duration) -> Result<u64, ChunkError> {
        let mut ended = 0;
        for mut claim in self.sessions.forsaken(kept) {
            self.abandon(&mut claim).await?;
            ended += 1;
        }
        Ok(ended)
    }

    /// Drops the write that waits in a claim, with its file.
    async fn abandon(&self, claim: &mut Claim) -> Result<(), ChunkError> {
        let Some(write) = claim.take().filter(OpenWrite::has_file) else { return Ok(()) };
        let disk = Arc::clone(&self.disk);
        self.blocking.run(move || durable::discard(disk.as_ref(), write.binding().chunk)).await
    }

    #[cfg(test)]
    pub(crate) fn journal(&self) -> &ChunkJournal {
        &self.journal
    }

    /// Whether nothing is open, waits or is held in memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_idle(&self) -> bool {
        let Budgets { gold, others } = Budgets::new(Tuning::default().write_buffers);
        let untouched = |here: &Semaphore, new: &Semaphore| here.available_permits() == new.available_permits();
        let synced = self.unsynced_of_all.load(std::sync::atomic::Ordering::Relaxed) == 0;
        synced
            && self.sessions.is_empty()
            && untouched(&self.budgets.gold, &gold)
            && untouched(&self.budgets.others, &others)
    }

    fn sink_shared(&self) -> SinkShared {
        let class = self.blocking.account().class;
        let any = |max: u64| if max == 0 { u64::MAX } else { max };
        let unsynced = match class {
            TrafficClass::Gold => UnsyncedBounds { max: u64::MAX, of_all: None, max_of_all: u64::MAX },
            TrafficClass::Silver | TrafficClass::Bronze => UnsyncedBounds {
                max: any(self.unsynced_max),
                of_all: Some(Arc::clone(&self.unsynced_of_all)),
                max_of_all: any(self.unsynced_max_of_all),
            },
        };
        let (blocking, latch) = (self.blocking.clone(), self.latch.clone());
        SinkShared { blocking, latch, budget: Arc::clone(self.budgets.of(class)), unsynced }
    }
}
