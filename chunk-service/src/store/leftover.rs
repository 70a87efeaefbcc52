//! What a crash left of a chunk: files that do not make a pair.
//!
//! The disk alone cannot say whether they may go: a committed chunk may have lost its unsynced `.chk` in a power cut. So
//! the metadata is asked. *Open*: no receipt is known, the left-over goes (one with a `.chk` that parses is set aside) and
//! the chunk begins anew. *Sealed*: the bytes are summed up, compared with what was committed, and the `.chk` is written
//! again. No answer: nothing is touched.

use std::sync::Arc;

use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::ChunkSums;
use proto::failpoint;

use super::chk::Chk;
use super::durable::{self, Found, Pair};
use super::{ChunkStore, Described};
use crate::error::ChunkError;

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
        let (disk, latch) = (Arc::clone(&self.disk), self.latch.clone());
        let (pair, sound) = self
            .blocking
            .run(move || {
                let sound = durable::confirm(disk.as_ref(), &latch, &pair);
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
            Described::Sealed(binding, claims) => self.rebuild(binding, claims).await.map(Some),
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
        self.folder_sync.sync().await?;
        failpoint!("leftover.removed");
        Ok(None)
    }

    /// Sums up a sealed chunk's bytes and writes its checksum file again, durably.
    pub(crate) async fn rebuild(&self, binding: ChunkBinding, claims: ReadClaims) -> Result<Pair, ChunkError> {
        self.latch.check()?;
        let (disk, latch) = (Arc::clone(&self.disk), self.latch.clone());
        let pair = self
            .blocking
            .run(move || {
                let summed = super::reading::sum_up_sealed(disk.as_ref(), binding.chunk, &claims);
                if seeded!(disk, BadCopyRemoved) && summed.is_err() {
                    durable::discard(disk.as_ref(), binding.chunk);
                }
                let (file, sums) = summed?;
                file.sync().map_err(|error| latch.sync_failed("sync a chunk", &error))?;
                let chk = Chk { binding, sums };
                durable::publish_chk(disk.as_ref(), &chk)
                    .map_err(|error| latch.write_failed("rebuild a checksum file", error))?;
                Ok::<_, ChunkError>(Pair { file, chk })
            })
            .await??;
        self.folder_sync.sync().await?;
        tracing::warn!(chunk = %binding.chunk, "a checksum file was rebuilt from what the metadata holds");
        Ok(pair)
    }
}
