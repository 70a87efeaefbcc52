//! Small chunks are acknowledged from a journal, and their files become durable later, many at a time.
//!
//! Owns `journal.0` and `journal.1` of the folder. A small chunk's record, with everything that its two files hold, goes
//! into the journal; when that is durable the files are written like any other's, but not synced, and the receipt is
//! given: one sync of one file for all chunks that come at the same time, instead of three for each. When a half of the
//! journal is full, or some time has passed, all files of its chunks are made durable by one call
//! ([`Disk::sync_all`](super::disk::Disk::sync_all)), and the half may be used again.
//!
//! Invariants: I1, I15 (an answer after the record's sync; after a failed one nobody is answered and the latch is closed),
//! I8 (what was deleted is not written again: see [`ChunkJournal::forget`]), I17 (what waits is bounded by the queue, the
//! two halves and the threads; writers wait while both halves are full).
//!
//! Order of a put, by whoever owns the chunk: a look that nothing is under its names; the record; its sync; the files,
//! complete; the receipt. So every file of a small chunk that a crash may tear is one that the journal writes again, and
//! what it writes again never was anything else. A half is settled when all files of its records were written
//! ([`Laying`]). Order of what takes a chunk away or replaces it by other means (a delete, a left-over that is cleared, a
//! larger write): the change, durable; a record that the journal forgets the chunk; its sync; the answer. A crash in between brings back
//! what nobody was told had gone.
//!
//! Crash: a start looks at the last record of every chunk whose files may not be durable, writes those files again that
//! do not hold what it says, makes all of them durable, and only then begins (`restore`). So a record whose files were
//! not written yet becomes a whole chunk that nobody was given a receipt for, as a crash of any put may leave one.

pub(crate) mod record;
mod restore;
mod settling;
mod writer;

use std::fmt;
use std::io;
use std::sync::Arc;

use proto::entropy::Entropy;
use proto::ids::ChunkId;
use proto::limits::PIECE_BYTES;
use proto::runtime::journal::{GROWTH_BYTES, HALF_BYTES_MIN, HalfFile, Shape};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::restore::unsettled;
pub(crate) use self::settling::Laying;
use self::settling::{Kind, Shared};
use self::writer::{Entry, Job, Writer};
use super::chk::Chk;
use super::disk::{Disk, DiskFile};
use super::latch::Latch;
use crate::error::ChunkError;

/// Names of the two halves.
pub(crate) const NAMES: [&str; 2] = ["journal.0", "journal.1"];
/// Largest chunk that goes through the journal; what is written twice should be little.
pub(crate) const CHUNK_BYTES_MAX: u64 = 4 * PIECE_BYTES;
/// Records that may wait for the journal's thread.
const QUEUE: usize = 1024;

/// What goes through the journal, and how large it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Chunks up to this size; none when 0.
    pub(crate) below: u64,
    /// Its halves.
    pub(crate) shape: Shape,
}

impl Use {
    /// Nothing goes through the journal; what it holds is replayed.
    pub(crate) const NONE: Self =
        Self { below: 0, shape: Shape { half_bytes: HALF_BYTES_MIN, growth_bytes: GROWTH_BYTES } };
}

/// One of the halves, as the journal wants it.
#[derive(Debug)]
struct Half(Box<dyn DiskFile>);

impl HalfFile for Half {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, length, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// The journal of a folder. Clones are the same one; when the last is dropped its threads end, and nothing more is settled.
#[derive(Clone)]
pub(crate) struct ChunkJournal {
    below: u64,
    /// `None` where there is no journal.
    inner: Option<(mpsc::Sender<Job>, Arc<Shared>)>,
}

impl fmt::Debug for ChunkJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkJournal").field("below", &self.below).finish_non_exhaustive()
    }
}

impl ChunkJournal {
    /// No journal: every chunk's files are synced before its receipt.
    pub(crate) fn none() -> Self {
        Self { below: 0, inner: None }
    }

    /// Opens the journal of a folder, and makes durable what a crash kept from its files. Blocks. A journal that is there
    /// is replayed also where chunks shall not go through it any more.
    ///
    /// # Errors
    /// [`ChunkError::Journal`]; as the latch says when files cannot be written.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        latch: &Latch,
        wanted: Use,
        entropy: &dyn Entropy,
    ) -> Result<Self, ChunkError> {
        let journal = restore::open(disk.as_ref(), latch, wanted, entropy)?;
        let Some(journal) = journal.filter(|_journal| wanted.below > 0) else { return Ok(Self::none()) };
        let (queue, jobs) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::settled_up_to(journal.generation() - 1));
        let writer = Writer::new(Arc::clone(disk), latch.clone(), journal, jobs, Arc::clone(&shared));
        writer.start().map_err(ChunkError::io("start the journal's threads"))?;
        Ok(Self { below: wanted.below, inner: Some((queue, shared)) })
    }

    /// Whether a chunk of at most so many bytes goes through the journal.
    pub(crate) fn takes(&self, most_bytes: u64) -> bool {
        self.inner.is_some() && most_bytes <= self.below
    }

    /// Makes a chunk durable that has no files. They are to be written while what is returned lives; when that cannot be,
    /// the chunk is to be [forgotten](ChunkJournal::forget_blocking), after that has gone. Blocks.
    ///
    /// # Errors
    /// [`ChunkError::OutOfSpace`], [`ChunkError::Overloaded`]: it is not in the journal. [`ChunkError::ReadOnly`]: that is
    /// not known.
    pub(crate) fn put_blocking(&self, chk: &Chk, content: &[u8]) -> Result<Laying, ChunkError> {
        let (answered, job) = Entry::job(chk.binding.chunk, Kind::Put, record::put(chk, content));
        self.queue()?.blocking_send(job).map_err(|_ended| ChunkError::Draining)?;
        answered.blocking_recv().map_err(|_ended| ChunkError::Panicked)?
    }

    /// Has the journal forget a chunk, durably, if it would write its files again after a crash. To be called when they were
    /// removed, or replaced by other means than the journal, and before anybody is told.
    ///
    /// # Errors
    /// As [`ChunkJournal::put_blocking`].
    pub(crate) async fn forget(&self, chunk: ChunkId) -> Result<(), ChunkError> {
        if !self.would_restore(chunk) {
            return Ok(());
        }
        let (answered, job) = Entry::job(chunk, Kind::Forget, record::forget(chunk));
        self.queue()?.send(job).await.map_err(|_ended| ChunkError::Draining)?;
        answered.await.map_err(|_ended| ChunkError::Panicked)?.map(drop)
    }

    /// The same; blocks.
    ///
    /// # Errors
    /// As [`ChunkJournal::forget`].
    pub(crate) fn forget_blocking(&self, chunk: ChunkId) -> Result<(), ChunkError> {
        if !self.would_restore(chunk) {
            return Ok(());
        }
        let (answered, job) = Entry::job(chunk, Kind::Forget, record::forget(chunk));
        self.queue()?.blocking_send(job).map_err(|_ended| ChunkError::Draining)?;
        answered.blocking_recv().map_err(|_ended| ChunkError::Panicked)?.map(drop)
    }

    fn would_restore(&self, chunk: ChunkId) -> bool {
        self.inner.as_ref().is_some_and(|(_queue, shared)| shared.would_restore(chunk))
    }

    fn queue(&self) -> Result<&mpsc::Sender<Job>, ChunkError> {
        self.inner.as_ref().map(|(queue, _shared)| queue).ok_or(ChunkError::Draining)
    }

    /// Has the files of all chunks made durable that are in the journal by now, unless that is under way. Does not wait.
    pub(crate) async fn settle_soon(&self) {
        if let Some((queue, _shared)) = &self.inner {
            // A queue that is closed belongs to a journal that has settled everything.
            drop(queue.send(Job::Settle).await);
        }
    }

    /// Settles everything and ends the journal: a later start has nothing to restore.
    pub(crate) async fn close(&self) {
        let Some((queue, _shared)) = &self.inner else { return };
        let (done, ended) = oneshot::channel();
        if queue.send(Job::Close(done)).await.is_ok() {
            drop(ended.await);
        }
    }

    /// Whether all that is in it is durable where it belongs.
    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        self.inner.as_ref().is_none_or(|(_queue, shared)| shared.is_settled())
    }
}
