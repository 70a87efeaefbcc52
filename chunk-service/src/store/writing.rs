//! Writes: how one begins, ends, is left, and is asked about.
//!
//! The caller owns the chunk through a [`Claim`] from beginning to end. A write ends in one blocking job (last bytes,
//! length, sums, sync, `.chk`) and one sync of the folder that it shares with others. Whoever runs
//! [`ChunkStore::complete`] must not be cancelled: it belongs into a task of its own.

use std::sync::Arc;

use proto::capability::ChunkBinding;
use proto::checksum::{ChunkSums, Sha256};
use proto::failpoint;
use proto::ids::{ChunkId, TenantId};

use super::ChunkStore;
use super::chk::Chk;
use super::disk::{Disk, DiskFile};
use super::durable::{self, Found, Pair};
use super::latch::Latch;
use super::open_write::{OpenWrite, Target};
use super::sessions::{Claim, Look, Purpose};
use super::sink::{Rest, Sink};
use crate::error::ChunkError;

/// What a writer says about the whole chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stated {
    /// Its size, said at the start.
    pub(crate) size_bytes: Option<u64>,
    /// Its SHA-256, said at the end.
    pub(crate) sha256: Option<Sha256>,
}

/// How far a chunk's write is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteStatus {
    /// So many bytes are there; a stream may go on behind them.
    Open(u64),
    /// The chunk is durable.
    Complete(ChunkSums),
}

/// What the disk offers to a write that begins.
enum Start {
    Fresh(Box<dyn DiskFile>),
    There(Pair),
    Leftover,
}

impl ChunkStore {
    /// Takes ownership of a chunk for a write from `offset`; see [`Sessions::claim`](super::sessions::Sessions::claim).
    pub(crate) async fn claim_for_write(&self, place: &ChunkBinding, offset: u64) -> Result<Claim, ChunkError> {
        self.sessions.claim(place.chunk, Purpose::WriteFrom(offset), self.patience).await
    }

    /// Begins a write at `offset`, or goes on with the one that waits in the claim.
    ///
    /// # Errors
    /// [`ChunkError::WriteOffsetMismatch`] when nothing, or something of another length, is there to go on with;
    /// [`ChunkError::Overloaded`], [`ChunkError::OutOfSpace`]; and those of a left-over.
    pub(crate) async fn begin(
        &self,
        claim: &mut Claim,
        tenant: &TenantId,
        place: ChunkBinding,
        offset: u64,
        announced: Option<u64>,
    ) -> Result<Sink, ChunkError> {
        let persisted = claim.parked_at().unwrap_or(0);
        if offset != 0 && offset != persisted {
            let persisted = if persisted == 0 { self.complete_size(place).await? } else { persisted };
            return Err(ChunkError::WriteOffsetMismatch { persisted });
        }
        if offset != 0
            && let Some(write) = claim.take()
        {
            return Ok(Sink::new(self.sink_shared(), write));
        }
        self.abandon(claim).await?;
        let ticket = self.sessions.admit(tenant)?;
        let target = match self.start(place, announced).await? {
            Start::Fresh(file) => Target::File(file),
            Start::There(pair) => self.compare_or_create(self.confirmed(place, pair).await?, place, announced).await?,
            Start::Leftover => self.compare_or_create(self.settle_leftover(place).await?, place, announced).await?,
        };
        let shared = self.sink_shared();
        let write = OpenWrite::new(place, target, ticket).counted_in(shared.unsynced.of_all.as_ref());
        Ok(Sink::new(shared, write))
    }

    /// The size of a chunk that is complete; 0 for any other.
    async fn complete_size(&self, place: ChunkBinding) -> Result<u64, ChunkError> {
        match self.find(place).await? {
            Found::Complete(pair) => Ok(pair.chk.sums.size_bytes),
            Found::Nothing | Found::Leftover => Ok(0),
        }
    }

    /// Looks for the chunk and, when nothing of it is there, makes its file, in one job.
    async fn start(&self, place: ChunkBinding, announced: Option<u64>) -> Result<Start, ChunkError> {
        let (disk, latch, low_watermark) = (Arc::clone(&self.disk), self.latch.clone(), self.low_watermark);
        let job = move || match durable::look_up(disk.as_ref(), &place)? {
            Found::Nothing => {
                durable::create(disk.as_ref(), &latch, place.chunk, announced, low_watermark).map(Start::Fresh)
            }
            Found::Complete(pair) => Ok(Start::There(pair)),
            Found::Leftover => Ok(Start::Leftover),
        };
        self.blocking.run(job).await?
    }

    async fn compare_or_create(
        &self,
        pair: Option<Pair>,
        place: ChunkBinding,
        announced: Option<u64>,
    ) -> Result<Target, ChunkError> {
        if let Some(pair) = pair {
            return Ok(Target::Compare(pair));
        }
        let (disk, latch, low_watermark) = (Arc::clone(&self.disk), self.latch.clone(), self.low_watermark);
        let job = move || durable::create(disk.as_ref(), &latch, place.chunk, announced, low_watermark);
        self.blocking.run(job).await?.map(Target::File)
    }

    /// Leaves a write whose stream broke for the next stream, with every byte that was received.
    pub(crate) async fn park(&self, claim: Claim, sink: Sink) -> Result<(), ChunkError> {
        let chunk = claim.chunk();
        match self.drain(sink).await {
            Ok(write) if write.resumable() => {
                claim.park(write);
                Ok(())
            }
            Ok(_comparison) => Ok(()),
            Err(error) => {
                self.discard(chunk).await?;
                Err(error)
            }
        }
    }

    async fn drain(&self, sink: Sink) -> Result<OpenWrite, ChunkError> {
        let (mut write, rest) = sink.stop().await?;
        let chunk = write.binding.chunk;
        let written = self.blocking.run(move || rest.append_to(&mut write).map(|()| write)).await?;
        written.map_err(|error| self.latch.write_failed("write chunk", chunk, error))
    }

    /// Drops a write that failed, with its file. One that only compared has none.
    pub(crate) async fn give_up(&self, claim: &Claim, comparing: bool) -> Result<(), ChunkError> {
        if comparing { Ok(()) } else { self.discard(claim.chunk()).await }
    }

    async fn discard(&self, chunk: ChunkId) -> Result<(), ChunkError> {
        let disk = Arc::clone(&self.disk);
        self.blocking.run(move || durable::discard(disk.as_ref(), chunk)).await
    }

    /// Ends a write: checks it against what was stated and makes it durable.
    ///
    /// # Errors
    /// Whatever the error, the bytes of this write are gone; those of an earlier complete one stay.
    pub(crate) async fn complete(&self, claim: Claim, sink: Sink, stated: Stated) -> Result<ChunkSums, ChunkError> {
        claim.set_received(None);
        let chunk = claim.chunk();
        let comparing = sink.is_comparison();
        let outcome = self.complete_owned(sink, stated).await;
        if outcome.is_err() && !comparing {
            self.discard(chunk).await?;
        }
        outcome
    }

    async fn complete_owned(&self, sink: Sink, stated: Stated) -> Result<ChunkSums, ChunkError> {
        let (write, rest) = sink.stop().await?;
        let (disk, latch) = (Arc::clone(&self.disk), self.latch.clone());
        let sums = self.blocking.run(move || end(disk.as_ref(), &latch, write, rest, stated)).await??;
        self.sync_folder().await?;
        failpoint!("put.folder_synced");
        Ok(sums)
    }

    /// Says how far a chunk's write is; of a complete chunk only after it was made sure of.
    pub(crate) async fn write_status(&self, place: ChunkBinding) -> Result<WriteStatus, ChunkError> {
        let claim = match self.sessions.look(place.chunk, self.patience).await? {
            Look::Receiving(received) => return Ok(WriteStatus::Open(received)),
            Look::Claimed(claim) => claim,
        };
        if let Some(received) = claim.parked_at() {
            return Ok(WriteStatus::Open(received));
        }
        let Some(pair) = self.settled(place).await? else { return Ok(WriteStatus::Open(0)) };
        self.sync_folder().await?;
        Ok(WriteStatus::Complete(pair.chk.sums))
    }
}

/// The blocking half of [`ChunkStore::complete`].
fn end(
    disk: &dyn Disk,
    latch: &Latch,
    mut write: OpenWrite,
    rest: Rest,
    stated: Stated,
) -> Result<ChunkSums, ChunkError> {
    let chunk = write.binding.chunk;
    rest.append_to(&mut write).map_err(|error| latch.write_failed("write chunk", chunk, error))?;
    let (binding, target, sums) = write.finish();
    check(&sums, stated)?;
    match target {
        Target::File(file) => {
            failpoint!("put.bytes_written");
            let chk = Chk { binding, sums };
            durable::settle(disk, latch, file.as_ref(), &chk)?;
            Ok(chk.sums)
        }
        Target::Compare(pair) if pair.chk.sums == sums => Ok(sums),
        Target::Compare(_) => Err(ChunkError::AlreadyExists(binding.chunk)),
    }
}

fn check(sums: &ChunkSums, stated: Stated) -> Result<(), ChunkError> {
    if stated.size_bytes.is_some_and(|size| size != sums.size_bytes) {
        let problem = format!("the stream ended after {} bytes", sums.size_bytes);
        return Err(ChunkError::field("spec.size_bytes", problem));
    }
    if stated.sha256.is_some_and(|sha256| sha256 != sums.sha256) {
        return Err(ChunkError::ChecksumMismatch { what: "the chunk", sum: "sha256" });
    }
    Ok(())
}
