//! Sealing blocks by receipts (I5): the client's word counts for nothing, a node's signature for what it says.
//!
//! The signatures are checked before the commit; here a receipt is held against the plan. A block is sealed when each of
//! its chunks has its receipt, and is not changed by any later one.
//!
//! The sealed prefix is counted on by a bounded number of blocks in each commit, so that no order of receipts makes one
//! commit long: commits run one after the other. A writer that seals nearly in order never sees the bound, since a call
//! brings fewer receipts than that.

use std::collections::BTreeMap;

use proto::capability::ReadClaims;
use proto::ids::{BlobId, BlockId};
use proto::limits::RECEIPTS_PER_CALL;
use proto::receipt::Receipt;

use crate::error::MetadataError;
use crate::store::engine::{Batch, View};
use crate::store::keys;
use crate::store::records::{BlockRecord, BlockSums, ChunkRecord, Encoding, ExtentRecord, UploadRecord};
use crate::store::rows::{BatchExt as _, read};

/// Most blocks by which a commit counts the sealed prefix on.
pub(super) const PREFIX_STEP: u64 = 256;

const _: () = assert!(PREFIX_STEP > RECEIPTS_PER_CALL as u64, "the prefix keeps up with receipts in order");

/// Blocks whose rows change, by index.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    changed: BTreeMap<u64, (BlockId, BlockRecord)>,
    first_missing: Option<u64>,
}

fn invalid<T>(why: &'static str) -> Result<T, MetadataError> {
    Err(MetadataError::ReceiptInvalid(why))
}

/// Takes the receipts in: returns the changed blocks, and brings the upload's numbers up to date.
pub(super) fn seal(
    view: &dyn View,
    blob: BlobId,
    upload: &mut UploadRecord,
    receipts: &[Receipt],
) -> Result<Sealing, MetadataError> {
    let mut sealing = Sealing::default();
    for receipt in receipts {
        sealing.take(view, blob, upload, receipt)?;
    }
    sealing.count_prefix(view, blob, upload)?;
    Ok(sealing)
}

impl Sealing {
    fn take(
        &mut self,
        view: &dyn View,
        blob: BlobId,
        upload: &mut UploadRecord,
        receipt: &Receipt,
    ) -> Result<(), MetadataError> {
        let mut record = match self.changed.values().find(|(id, _)| *id == receipt.block) {
            Some((_, record)) => record.clone(),
            None => match read::<BlockRecord>(view, &keys::block(receipt.block))? {
                Some(record) => record,
                None => return invalid("its block was not planned for this upload"),
            },
        };
        if record.blob != blob || receipt.blob != blob {
            return invalid("its block was not planned for this upload");
        }
        let (max_bytes, exact) = (upload.max_bytes_of(record.index), upload.declared_bytes.is_some());
        if note(&mut record, max_bytes, exact, receipt)? {
            count(upload, &record)?;
            self.changed.insert(record.index, (receipt.block, record));
        }
        Ok(())
    }

    fn count_prefix(&mut self, view: &dyn View, blob: BlobId, upload: &mut UploadRecord) -> Result<(), MetadataError> {
        let end = upload.planned_blocks.min(upload.sealed_prefix.saturating_add(PREFIX_STEP));
        while upload.sealed_prefix < end {
            if !self.is_sealed(view, blob, upload.sealed_prefix)? {
                self.first_missing = Some(upload.sealed_prefix);
                break;
            }
            upload.sealed_prefix += 1;
        }
        Ok(())
    }

    /// The first planned block without all of its receipts, if counting the prefix came upon it.
    pub(super) fn first_missing(&self) -> Option<u64> {
        self.first_missing
    }

    /// The block at an index as it will be.
    pub(super) fn block(&self, view: &dyn View, blob: BlobId, index: u64) -> Result<BlockRecord, MetadataError> {
        if let Some((_, record)) = self.changed.get(&index) {
            return Ok(record.clone());
        }
        let extent: ExtentRecord =
            read(view, &keys::extent(blob, index))?.ok_or_else(|| MetadataError::missing("extent"))?;
        read(view, &keys::block(extent.block))?.ok_or_else(|| MetadataError::missing("block"))
    }

    // Each block is looked at once in an upload's life, but for the one at the prefix.
    fn is_sealed(&self, view: &dyn View, blob: BlobId, index: u64) -> Result<bool, MetadataError> {
        Ok(self.block(view, blob, index)?.sealed.is_some())
    }

    /// Adds the changed rows.
    pub(super) fn write(&self, batch: &mut Batch) {
        for (id, record) in self.changed.values() {
            batch.set(keys::block(*id), record);
        }
    }
}

/// Notes a receipt in the block's row; seals the block when it was the last one. Returns whether the row changed.
fn note(block: &mut BlockRecord, max_bytes: u64, exact: bool, receipt: &Receipt) -> Result<bool, MetadataError> {
    if receipt.generation != block.generation {
        return invalid("it is of another generation");
    }
    let planned = |chunk: &&mut ChunkRecord| chunk.chunk == receipt.chunk && chunk.node == receipt.node;
    let Some(chunk) = block.chunks.iter_mut().find(planned) else {
        return invalid("its chunk was not planned for that node");
    };
    let Receipt { size_bytes, sha256, pieces_sha256, .. } = *receipt;
    let sums = ReadClaims { size_bytes, sha256, pieces_sha256 };
    match chunk.sums {
        Some(known) if known == sums => return Ok(false),
        Some(_different) => return invalid("another receipt of the same chunk says otherwise"),
        None => chunk.sums = Some(sums),
    }
    if size_bytes == 0 || size_bytes > max_bytes || (exact && size_bytes != max_bytes) {
        return invalid("its size is not the planned one");
    }
    block.sealed = sums_of(block)?;
    Ok(true)
}

/// The block's own sums, once every chunk has its receipt.
fn sums_of(block: &BlockRecord) -> Result<Option<BlockSums>, MetadataError> {
    let Encoding::Replicated { .. } = block.encoding;
    let Some(all) = block.chunks.iter().map(|chunk| chunk.sums).collect::<Option<Vec<_>>>() else { return Ok(None) };
    match all.split_first() {
        Some((first, copies)) if copies.iter().all(|copy| copy == first) => {
            Ok(Some(BlockSums { size_bytes: first.size_bytes, sha256: first.sha256 }))
        }
        Some(_differing) => invalid("the copies of the block differ"),
        None => Err(MetadataError::missing("chunk")),
    }
}

/// Counts a block that has just been sealed.
fn count(upload: &mut UploadRecord, block: &BlockRecord) -> Result<(), MetadataError> {
    let Some(sums) = block.sealed else { return Ok(()) };
    upload.sealed_blocks += 1;
    upload.sealed_bytes = upload.sealed_bytes.saturating_add(sums.size_bytes);
    if upload.declared_bytes.is_none() && sums.size_bytes < upload.block_size_bytes {
        if upload.short_block.is_some() {
            return invalid("a second block is shorter than the block size; only the last may be");
        }
        upload.short_block = Some(block.index);
    }
    Ok(())
}
