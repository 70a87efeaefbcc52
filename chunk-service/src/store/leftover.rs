//! What a crash left of a chunk: files that do not make a pair.
//!
//! The disk alone cannot say whether they may go: a committed chunk may have lost its unsynced `.chk` in a power cut. So
//! the metadata is asked. *Open*: no receipt is known, the left-over goes (one with a `.chk` that parses is set aside) and
//! the chunk begins anew. *Sealed*: the bytes are summed up, compared with what was committed, and the `.chk` is written
//! again. No answer: nothing is touched. Nor is anything when a later version wrote the `.chk`: that is no left-over.

use std::sync::Arc;

use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::ChunkSums;
use proto::failpoint;

use super::chk::Chk;
use super::disk::Disk;
use super::durable::{self, Found, Pair, chk_name};
use super::latch::Latch;
use super::reading::sum_up_sealed;
use super::{ChunkStore, Described};
use crate::blocking::Breath;
use crate::error::ChunkError;

/// What becomes of the checksum file in whose place a new one is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldChk {
    /// The new one replaces it in one step.
    Replace,
    /// It is kept in quarantine. A crash between the two steps leaves none.
    SetAside,
}

/// Whether the sums of a chunk's bytes are those that the metadata holds.
pub(crate) fn agree(sums: &ChunkSums, claims: &ReadClaims) -> bool {
    sums.size_bytes == claims.size_bytes && sums.sha256 == claims.sha256 && sums.pieces_sha256() == claims.pieces_sha256
}

impl ChunkStore {
    /// The pair of a chunk that the caller owns, made sure of (see [`durable::confirm`]); `None` when there is nothing,
    /// or nothing that counts.
    ///
    /// # Errors
    /// [`ChunkError::MetadataUnreachable`] when a left-over cannot be settled; [`ChunkError::UploadOver`] when nothing
    /// refers to it; [`ChunkError::Corrupt`] or [`ChunkError::Missing`] when it was committed and is lost.
    pub(crate) async fn settled(&self, place: ChunkBinding) -> Result<Option<Pair>, ChunkError> {
        match self.find(place).await? {
            Found::Nothing => Ok(None),
            Found::Complete(pair) => self.confirmed(place, pair).await,
            Found::Leftover => self.settle_leftover(place).await,
        }
    }

    pub(crate) async fn find(&self, place: ChunkBinding) -> Result<Found, ChunkError> {
        let disk = Arc::clone(&self.disk);
        self.blocking.run(move || durable::look_up(disk.as_ref(), &place)).await?
    }

    pub(crate) async fn confirmed(&self, place: ChunkBinding, pair: Pair) -> Result<Option<Pair>, ChunkError> {
        self.latch.check()?;
        let (disk, latch, stop) = (Arc::clone(&self.disk), self.latch.clone(), self.tasks.stop_signal());
        let (pair, sound) = self
            .blocking
            .run_long(stop, move |breath| {
                let sound = durable::confirm(disk.as_ref(), &latch, &pair, breath);
                (pair, sound)
            })
            .await?;
        if sound? { Ok(Some(pair)) } else { self.settle_leftover(place).await }
    }

    pub(crate) async fn settle_leftover(&self, place: ChunkBinding) -> Result<Option<Pair>, ChunkError> {
        self.latch.check()?;
        match self.describe.describe(place.chunk).await? {
            Described::Open => self.clear(place).await,
            Described::Unknown => Err(ChunkError::UploadOver),
            Described::Sealed(binding, claims) => self.rebuild(binding, claims, OldChk::Replace).await.map(Some),
        }
    }

    async fn clear(&self, place: ChunkBinding) -> Result<Option<Pair>, ChunkError> {
        let (disk, latch) = (Arc::clone(&self.disk), self.latch.clone());
        if self.blocking.run(move || durable::clear(disk.as_ref(), &latch, place.chunk)).await?? {
            tracing::warn!(chunk = %place.chunk, "a whole chunk that changed before its commit was set aside");
        } else {
            tracing::info!(chunk = %place.chunk, "a left-over of an unfinished write is gone");
        }
        // Its names must not come back in a power cut, beside the bytes of the write that begins now.
        self.sync_folder().await?;
        self.journal.forget(place.chunk).await?;
        failpoint!("leftover.removed");
        Ok(None)
    }

    /// Sums up a sealed chunk's bytes and writes its checksum file again, durably. Until the sums are known to be those
    /// that were committed nothing is changed; a stop ends the summing up.
    ///
    /// # Errors
    /// [`ChunkError::Draining`], [`ChunkError::Overloaded`]; [`ChunkError::Corrupt`], [`ChunkError::Missing`].
    pub(crate) async fn rebuild(
        &self,
        binding: ChunkBinding,
        claims: ReadClaims,
        old: OldChk,
    ) -> Result<Pair, ChunkError> {
        self.latch.check()?;
        let (disk, latch, stop) = (Arc::clone(&self.disk), self.latch.clone(), self.tasks.stop_signal());
        let job = move |breath: &mut Breath| rebuild(disk.as_ref(), &latch, binding, &claims, old, breath);
        let pair = self.blocking.run_long(stop, job).await??;
        self.sync_folder().await?;
        tracing::warn!(chunk = %binding.chunk, "a checksum file was rebuilt from what the metadata holds");
        Ok(pair)
    }
}

/// The blocking half of [`ChunkStore::rebuild`].
fn rebuild(
    disk: &dyn Disk,
    latch: &Latch,
    binding: ChunkBinding,
    claims: &ReadClaims,
    old: OldChk,
    breath: &mut Breath,
) -> Result<Pair, ChunkError> {
    let chunk = binding.chunk;
    let summed = sum_up_sealed(disk, chunk, claims, breath);
    if seeded!(disk, BadCopyRemoved) && summed.is_err() {
        durable::discard(disk, chunk);
    }
    let (file, sums) = summed?;
    file.sync().map_err(|error| latch.sync_failed("sync chunk", chunk, &error))?;
    if old == OldChk::SetAside {
        let moved = disk.quarantine(&chk_name(chunk));
        moved.map_err(|error| latch.write_failed("set aside the damaged checksum file of chunk", chunk, error))?;
    }
    let chk = Chk { binding, sums };
    durable::publish_chk(disk, latch, &chk)?;
    Ok(Pair { file, chk })
}
