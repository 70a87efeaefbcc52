//! Writes: how one begins, ends, is left, and is asked about.
//!
//! The caller owns the chunk through a [`Claim`] from beginning to end. A write ends in one blocking job (last bytes,
//! length, sums, sync, `.chk`) and one sync of the folder that it shares with others. A small one touches no disk before
//! its end: then one job lays out both files, and the [journal](super::journal) makes them durable. Whoever runs
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
use super::journal::ChunkJournal;
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

/// What is known of a chunk's size when its write begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    /// Its size, if the writer said it.
    pub(crate) exact: Option<u64>,
    /// Most bytes that will be taken.
    pub(crate) most: u64,
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
        size: Announced,
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
        let target = if self.journal.takes(size.most) {
            Target::Memory(Vec::new())
        } else {
            self.target(place, size.exact).await?
        };
        let shared = self.sink_shared();
        let write = OpenWrite::new(place, target, ticket).counted_in(shared.unsynced.of_all.as_ref());
        Ok(Sink::new(shared, write))
    }

    async fn target(&self, place: ChunkBinding, announced: Option<u64>) -> Result<Target, ChunkError> {
        let pair = match self.start(place, announced).await? {
            Start::Fresh(file) => return Ok(Target::File(file)),
            Start::There(pair) => self.confirmed(place, pair).await?,
            Start::Leftover => self.settle_leftover(place).await?,
        };
        self.compare_or_create(pair, place, announced).await
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
        let has_file = sink.has_file();
        match self.drain(sink).await {
            Ok(write) if write.resumable() => {
                claim.park(write);
                Ok(())
            }
            Ok(_comparison) => Ok(()),
            Err(error) => {
                self.give_up(&claim, has_file).await?;
                Err(error)
            }
        }
    }

    async fn drain(&self, sink: Sink) -> Result<OpenWrite, ChunkError> {
        let (mut write, rest) = sink.stop().await?;
        let chunk = write.binding().chunk;
        let written = self.blocking.run(move || rest.append_to(&mut write).map(|()| write)).await?;
        written.map_err(|error| self.latch.write_failed("write chunk", chunk, error))
    }

    /// Drops a write that failed, with its file if it has one.
    pub(crate) async fn give_up(&self, claim: &Claim, has_file: bool) -> Result<(), ChunkError> {
        if has_file { self.discard(claim.chunk()).await } else { Ok(()) }
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
        let has_file = sink.has_file();
        let outcome = self.complete_owned(sink, stated).await;
        if outcome.is_err() {
            self.give_up(&claim, has_file).await?;
        }
        outcome
    }

    async fn complete_owned(&self, sink: Sink, stated: Stated) -> Result<ChunkSums, ChunkError> {
        let (write, rest) = sink.stop().await?;
        if write.is_in_memory() {
            return self.complete_small(write, stated).await;
        }
        let (disk, latch) = (Arc::clone(&self.disk), self.latch.clone());
        let (chunk, has_file) = (write.binding().chunk, write.has_file());
        let sums = self.blocking.run(move || end(disk.as_ref(), &latch, write, rest, stated)).await??;
        self.sync_folder().await?;
        if has_file {
            // What the journal knows of the chunk would otherwise take the place of these bytes after a crash.
            self.journal.forget(chunk).await?;
        }
        failpoint!("put.folder_synced");
        Ok(sums)
    }

    /// Ends the write of a small chunk: has the journal make it durable, and lays its files out.
    async fn complete_small(&self, write: OpenWrite, stated: Stated) -> Result<ChunkSums, ChunkError> {
        self.latch.check()?;
        let (binding, target, sums) = write.finish();
        check(&sums, stated)?;
        let Target::Memory(content) = target else { return Err(ChunkError::Panicked) };
        let small = Arc::new(Small { chk: Chk { binding, sums }, content });
        if self.put_small(&small).await? {
            return Ok(small.chk.sums.clone());
        }
        if let Some(pair) = self.settled(binding).await? {
            let sums = same_as(&pair, small.chk.sums.clone())?;
            self.sync_folder().await?;
            return Ok(sums);
        }
        // What was in the way is gone.
        if self.put_small(&small).await? {
            Ok(small.chk.sums.clone())
        } else {
            Err(ChunkError::AlreadyExists(binding.chunk))
        }
    }

    async fn put_small(&self, small: &Arc<Small>) -> Result<bool, ChunkError> {
        let (disk, latch, small) = (Arc::clone(&self.disk), self.latch.clone(), Arc::clone(small));
        let (bytes, journal, low_watermark) = (small.content.len() as u64, self.journal.clone(), self.low_watermark);
        self.blocking.run_of(bytes, move || put_small(disk.as_ref(), &latch, &journal, &small, low_watermark)).await?
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

/// A small chunk whose bytes are all here.
#[derive(Debug)]
struct Small {
    chk: Chk,
    content: Vec<u8>,
}

/// Makes a small chunk durable and writes its files. Returns whether it did: not when there is something under its names.
fn put_small(
    disk: &dyn Disk,
    latch: &Latch,
    journal: &ChunkJournal,
    Small { chk, content }: &Small,
    low_watermark: u64,
) -> Result<bool, ChunkError> {
    let chunk = chk.binding.chunk;
    durable::check_room(disk, content.len() as u64, low_watermark)?;
    if !durable::is_vacant(disk, chunk)? {
        return Ok(false);
    }
    let laying = journal.put_blocking(chk, content)?;
    let laid_out = durable::lay_out(disk, latch, chk, content);
    drop(laying);
    if laid_out.is_err() {
        // Else a start would bring back what was refused.
        journal.forget_blocking(chunk)?;
    }
    laid_out.map(|()| true)
}

/// The blocking half of [`ChunkStore::complete`].
fn end(
    disk: &dyn Disk,
    latch: &Latch,
    mut write: OpenWrite,
    rest: Rest,
    stated: Stated,
) -> Result<ChunkSums, ChunkError> {
    let chunk = write.binding().chunk;
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
        Target::Compare(pair) => same_as(&pair, sums),
        // Does not come here: it has no file to be ended.
        Target::Memory(_) => Err(ChunkError::Panicked),
    }
}

/// The sums, if they are those of the chunk that is there.
fn same_as(pair: &Pair, sums: ChunkSums) -> Result<ChunkSums, ChunkError> {
    if pair.chk.sums == sums { Ok(sums) } else { Err(ChunkError::AlreadyExists(pair.chk.binding.chunk)) }
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
