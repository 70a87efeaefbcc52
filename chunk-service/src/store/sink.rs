//! Between a stream and the disk: while one batch is written on a blocking thread and hashed on another, the next is
//! received.
//!
//! Small frames are gathered, so that a blocking thread is asked for a quarter of a mebibyte or more at a time. A stream
//! holds at most two batches; what all streams hold together is bounded by one budget, which a batch gives back when it
//! is written and hashed (I17). A small chunk that goes through the journal is no batch: its bytes are taken where they
//! arrive, and bounded by their size and by the number of open writes.
//!
//! A write that is not gold's syncs its file whenever so many bytes are unsynced. A file system that orders data before
//! its journal (ext4) writes the pages of all files when any is synced: without that bound the sync of a small gold chunk
//! would wait until the disk has taken whole chunks of others. The receipt rests on the last sync alone, as ever.
//! Measured on ext4 with two writers of 64 MiB beside one that creates 4 KiB and syncs: that one's 99th percentile was
//! 121 ms without a bound, 66, 44 and 32 ms with 32, 16 and 8 MiB, no less with 4 or 2; the writers lost a fifth with 8 MiB,
//! and two fifths with 2. Hence the default of 8 MiB. What many such writes leave unsynced together has a bound as well: while
//! there is more, each of them syncs what it has before it writes on, so that it adds one batch at most. What goes past the
//! page cache (`direct`) is written when it is handed over, and does not count: a sync of gold's leaves it to the disk's own
//! cache. Two bronze writers and two readers of 64 MiB beside gold's: its durable writes had 13.1 and 13.1 ms at the 99th
//! percentile with theirs past the cache, 12.7 and 14.1 through it; without a scheduler 15.8 and 14.9 against 17.8 and 19.4.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use proto::checksum::ChunkHasher;
use proto::ids::ChunkId;
use proto::limits::{FRAME_BYTES, KIB, MIB};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::latch::Latch;
use super::open_write::{Landing, OpenWrite, UnsyncedOfAll, sum_up};
use crate::blocking::{Blocking, Job};
use crate::error::ChunkError;

/// A batch of this size is written as soon as the one before it is.
const BATCH_BYTES: u64 = FRAME_BYTES;
/// A batch of this size waits for the one before it.
const BATCH_BYTES_MAX: u64 = MIB;
/// Frames below this size are copied together; larger ones are written as they came.
const GATHER_BELOW_BYTES: u64 = 64 * KIB;

/// What every sink of a store shares.
#[derive(Debug, Clone)]
pub(crate) struct SinkShared {
    /// Where batches are written.
    pub(crate) blocking: Blocking,
    /// Told of faults.
    pub(crate) latch: Latch,
    /// One permit for each byte that is held.
    pub(crate) budget: Arc<Semaphore>,
    /// What may wait to be synced.
    pub(crate) unsynced: UnsyncedBounds,
}

/// Bytes that may wait to be synced; see [`OpenWrite::unsynced`].
#[derive(Debug, Clone)]
pub(crate) struct UnsyncedBounds {
    /// Of one write.
    pub(crate) max: u64,
    /// Where those of all are counted; nowhere for writes that may leave any number.
    pub(crate) of_all: Option<UnsyncedOfAll>,
    /// Of all that are counted.
    pub(crate) max_of_all: u64,
}

impl UnsyncedBounds {
    /// Whether a write with so many must be synced before it goes on.
    fn are_met(&self, unsynced: u64) -> bool {
        let all = self.of_all.as_ref().map_or(0, |all| all.load(Ordering::Relaxed));
        unsynced >= self.max || (unsynced > 0 && all >= self.max_of_all)
    }
}

#[derive(Debug)]
enum Stage {
    /// Nothing is being written.
    Idle(Box<OpenWrite>),
    /// A batch is being written and hashed.
    Busy(Batching),
    /// A batch could not be written.
    Failed,
}

/// Both halves of a write, each with the same batch.
#[derive(Debug)]
struct Batching {
    landing: Job<std::io::Result<Landing>>,
    hashing: Job<ChunkHasher>,
}

/// Bytes received, not yet handed over.
#[derive(Debug, Default)]
struct Batch {
    parts: Vec<Bytes>,
    gathered: BytesMut,
    bytes: u64,
    permit: Option<OwnedSemaphorePermit>,
}

/// Takes a stream's frames to the disk.
#[derive(Debug)]
pub(crate) struct Sink {
    shared: SinkShared,
    chunk: ChunkId,
    comparing: bool,
    has_file: bool,
    received: u64,
    stage: Stage,
    batch: Batch,
}

impl Sink {
    pub(crate) fn new(shared: SinkShared, write: OpenWrite) -> Self {
        let (chunk, received) = (write.binding().chunk, write.received());
        let (comparing, has_file) = (!write.resumable(), write.has_file());
        let (stage, batch) = (Stage::Idle(Box::new(write)), Batch::default());
        Self { shared, chunk, comparing, has_file, received, stage, batch }
    }

    /// Whether the bytes are only compared with those of a complete chunk.
    pub(crate) fn is_comparison(&self) -> bool {
        self.comparing
    }

    /// Whether there is a file that goes when the write is given up.
    pub(crate) fn has_file(&self) -> bool {
        self.has_file
    }

    /// Bytes taken so far, by this stream and those before it.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Takes a frame; waits only while two batches are full, or the budget of all streams is spent.
    ///
    /// # Errors
    /// When an earlier batch could not be written; the sink is of no use then.
    pub(crate) async fn push(&mut self, frame: Bytes) -> Result<(), ChunkError> {
        let length = frame.len() as u64;
        if let Stage::Idle(write) = &mut self.stage
            && write.is_in_memory()
        {
            self.received += length;
            return write.append(&[frame]).map_err(ChunkError::io("keep a chunk's bytes"));
        }
        let permit = self.permit(length).await?;
        self.received += length;
        self.batch.add(frame, permit);
        if self.batch.bytes >= BATCH_BYTES_MAX || (self.batch.bytes >= BATCH_BYTES && self.is_free()) {
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Whether bytes wait to be handed over.
    pub(crate) fn has_waiting(&self) -> bool {
        self.batch.bytes > 0
    }

    /// Starts to write what waits, unless something else is being written.
    ///
    /// # Errors
    /// As [`Sink::push`].
    pub(crate) async fn nudge(&mut self) -> Result<(), ChunkError> {
        if self.has_waiting() && self.is_free() { self.hand_over().await } else { Ok(()) }
    }

    /// Waits until the batch that is being written is, and returns the write together with what is still to be written.
    ///
    /// # Errors
    /// As [`Sink::push`].
    pub(crate) async fn stop(mut self) -> Result<(OpenWrite, Rest), ChunkError> {
        let write = self.settle().await?;
        Ok((*write, Rest(self.batch.seal())))
    }

    fn is_free(&self) -> bool {
        match &self.stage {
            Stage::Idle(_) => true,
            Stage::Busy(Batching { landing, hashing }) => landing.is_finished() && hashing.is_finished(),
            Stage::Failed => false,
        }
    }

    async fn permit(&mut self, bytes: u64) -> Result<OwnedSemaphorePermit, ChunkError> {
        let count = u32::try_from(bytes).map_err(|_too_many| ChunkError::Overloaded("bytes in one frame"))?;
        let budget = Arc::clone(&self.shared.budget);
        if let Ok(permit) = Arc::clone(&budget).try_acquire_many_owned(count) {
            return Ok(permit);
        }
        // Give back what this stream holds before it waits, or streams could wait for each other.
        if self.batch.bytes > 0 {
            self.hand_over().await?;
        }
        budget.acquire_many_owned(count).await.map_err(|_closed| ChunkError::Draining)
    }

    async fn hand_over(&mut self) -> Result<(), ChunkError> {
        let mut write = self.settle().await?;
        if self.shared.unsynced.are_met(write.unsynced()) {
            write = self.sync(write).await?;
        }
        let batch = Arc::new(self.batch.seal());
        let (bytes, hashed, blocking) = (batch.bytes, Arc::clone(&batch), &self.shared.blocking);
        let (mut landing, mut hasher) = write.split();
        let landing = move || {
            let outcome = landing.land(&batch.parts);
            drop(batch);
            outcome.map(|()| landing)
        };
        let hashing = move || {
            sum_up(&mut hasher, &hashed.parts);
            hasher
        };
        let (landing, hashing) = blocking.start_both(bytes, landing, hashing).await?;
        self.stage = Stage::Busy(Batching { landing, hashing });
        Ok(())
    }

    /// Syncs what was written so far: in a turn of its own, so that others come between.
    async fn sync(&self, mut write: Box<OpenWrite>) -> Result<Box<OpenWrite>, ChunkError> {
        let synced = self.shared.blocking.run(move || write.sync().map(|()| write)).await?;
        synced.map_err(|error| self.shared.latch.sync_failed("sync chunk", self.chunk, &error))
    }

    async fn settle(&mut self) -> Result<Box<OpenWrite>, ChunkError> {
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Idle(write) => Ok(write),
            Stage::Busy(Batching { mut landing, mut hashing }) => {
                let failed = |error| self.shared.latch.write_failed("write chunk", self.chunk, error);
                // Both are over, and hold nothing any more, before anybody hears of either.
                let (landing, hasher) = (landing.wait().await, hashing.wait().await);
                OpenWrite::join(landing?.map_err(failed)?, hasher?).map(Box::new).ok_or(ChunkError::Panicked)
            }
            Stage::Failed => Err(ChunkError::Panicked),
        }
    }
}

impl Batch {
    fn add(&mut self, frame: Bytes, permit: OwnedSemaphorePermit) {
        let length = frame.len() as u64;
        self.bytes += length;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        if length < GATHER_BELOW_BYTES {
            self.gathered.extend_from_slice(&frame);
        } else {
            self.close_gathered();
            self.parts.push(frame);
        }
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.parts.push(self.gathered.split().freeze());
        }
    }

    /// The whole batch, ready to be written; an empty one stays.
    fn seal(&mut self) -> Self {
        self.close_gathered();
        std::mem::take(self)
    }
}

/// The last bytes of a stream, to be written in the job that ends the write.
#[derive(Debug)]
pub(crate) struct Rest(Batch);

impl Rest {
    /// Writes them.
    pub(crate) fn append_to(self, write: &mut OpenWrite) -> std::io::Result<()> {
        write.append(&self.0.parts)
    }
}
