//! Planning blocks: which come next, how much they may hold, and the rows that say so.
//!
//! Owns: `extent/`, `block/` and `node/` rows from their first write. A plan is a row of each kind; sealing changes the
//! block's row only, which is what keeps a batch with 64 receipts and 16 new blocks within its bound.
//!
//! Crash: a plan without receipts costs nothing; it goes when its upload ends.

use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId, ChunkId, TenantId};
use proto::limits;

use super::Context;
use crate::error::MetadataError;
use crate::placement::place;
use crate::store::engine::{Batch, View};
use crate::store::keys;
use crate::store::records::{BlockRecord, ChunkRecord, Encoding, ExtentRecord, ReverseRecord, UploadRecord};
use crate::store::rows::{BatchExt as _, read, record_of};

/// How new blocks are held, until there are more nodes to spread them over.
const ENCODING: Encoding = Encoding::Replicated { copies: 1 };
/// The generation of a block that was never changed.
const FIRST_GENERATION: u64 = 1;
/// Blocks of an upload of unknown size that StartUpload plans: what a client keeps in flight, so that a small one does
/// not reserve sixteen blocks.
pub(super) const FIRST_BLOCKS_OF_UNKNOWN_SIZE: u64 = 4;

const _: () = {
    let rows_of_planned_block = 3;
    let others = 4; // upload, usage, request, and one to spare
    let writes = limits::RECEIPTS_PER_CALL + limits::BLOCKS_PER_ALLOCATION as usize * rows_of_planned_block + others;
    assert!(writes <= limits::BATCH_WRITES_MAX, "receipts and plans of one call fit into one batch");
};

/// A block of an open upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBlock {
    /// The block.
    pub block: BlockId,
    /// Where it begins within the blob.
    pub offset_bytes: u64,
    /// Most bytes it may hold.
    pub max_bytes: u64,
    /// Its row.
    pub record: BlockRecord,
}

/// The upload for which blocks are planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) blob: BlobId,
}

/// How many blocks come next, and what they reserve beyond what is reserved already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) blocks: u64,
    pub(super) reserve_bytes: u64,
}

/// What can be planned of the blocks before `end`, with `left_bytes` of the quota left for it.
///
/// With a declared size everything is reserved already, and blocks end where it does. Otherwise each block reserves what
/// it may hold: the block size, or the rest of the quota, and then it is the last.
pub(super) fn next(upload: &UploadRecord, end: u64, left_bytes: u64) -> Next {
    if let Some(declared) = upload.declared_bytes {
        let total = declared.div_ceil(upload.block_size_bytes);
        return Next { blocks: end.min(total).saturating_sub(upload.planned_blocks), reserve_bytes: 0 };
    }
    if !upload.reserved_bytes.is_multiple_of(upload.block_size_bytes) {
        return Next { blocks: 0, reserve_bytes: 0 };
    }
    let left = left_bytes.min(limits::BLOB_BYTES_MAX.saturating_sub(upload.reserved_bytes));
    let wanted = end.saturating_sub(upload.planned_blocks);
    let reserve_bytes = wanted.saturating_mul(upload.block_size_bytes).min(left);
    Next { blocks: reserve_bytes.div_ceil(upload.block_size_bytes), reserve_bytes }
}

/// Plans the next blocks: places their chunks and adds their rows.
pub(super) fn plan(
    view: &dyn View,
    context: &Context<'_>,
    owner: Owner<'_>,
    upload: &mut UploadRecord,
    next: Next,
    batch: &mut Batch,
) -> Result<Vec<PlannedBlock>, MetadataError> {
    upload.reserved_bytes = upload.reserved_bytes.saturating_add(next.reserve_bytes);
    let first = upload.planned_blocks;
    upload.planned_blocks = first.saturating_add(next.blocks);
    (first..upload.planned_blocks).map(|index| plan_block(view, context, owner, upload, index, batch)).collect()
}

fn plan_block(
    view: &dyn View,
    context: &Context<'_>,
    Owner { tenant, blob }: Owner<'_>,
    upload: &UploadRecord,
    index: u64,
    batch: &mut Batch,
) -> Result<PlannedBlock, MetadataError> {
    let max_bytes = upload.max_bytes_of(index);
    let block = BlockId::generate(context.now_ms, context.entropy);
    let nodes = place(context.nodes, ENCODING.chunk_count(), max_bytes, context.entropy)?;
    let (epoch, sequence) = (context.epoch, view.sequence());
    let mut chunks = Vec::new();
    for (shard_index, node) in (0..).zip(nodes) {
        let chunk = if seeded!(ChunkIdReused) {
            ChunkId::generate(index, &SeededEntropy::new(index))
        } else {
            ChunkId::generate(context.now_ms, context.entropy)
        };
        let generation = FIRST_GENERATION;
        batch.set(keys::reverse(node, chunk), &ReverseRecord { block, blob, shard_index, generation, epoch, sequence });
        chunks.push(ChunkRecord { chunk, node, epoch, sequence, sums: None });
    }
    let (tenant, generation) = (Some(tenant.clone()), FIRST_GENERATION);
    let record = BlockRecord { tenant, blob, index, encoding: ENCODING, generation, sealed: None, chunks };
    batch.set(keys::extent(blob, index), &ExtentRecord { block, size_bytes: max_bytes });
    batch.set(keys::block(block), &record);
    Ok(PlannedBlock { block, offset_bytes: index * upload.block_size_bytes, max_bytes, record })
}

/// Blocks that were planned before, in order, at most `count`.
pub(super) fn planned(
    view: &dyn View,
    blob: BlobId,
    upload: &UploadRecord,
    first: u64,
    count: u64,
) -> Result<Vec<PlannedBlock>, MetadataError> {
    let count = count.min(upload.planned_blocks.saturating_sub(first));
    let limit = usize::try_from(count).map_err(|_too_many| MetadataError::Bug("a count of blocks has no bound"))?;
    let rows = view.scan(&keys::extents_from(blob, first), limit)?;
    let blocks = (first..).zip(&rows).map(|(index, row)| {
        let extent: ExtentRecord = record_of(row)?;
        let record: BlockRecord =
            read(view, &keys::block(extent.block))?.ok_or_else(|| MetadataError::missing("block"))?;
        let (offset_bytes, max_bytes) = (index * upload.block_size_bytes, upload.max_bytes_of(index));
        Ok(PlannedBlock { block: extent.block, offset_bytes, max_bytes, record })
    });
    let blocks: Vec<_> = blocks.collect::<Result<_, MetadataError>>()?;
    if blocks.len() == limit { Ok(blocks) } else { Err(MetadataError::missing("extent")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::records::{Description, UploadState};

    fn upload(declared_bytes: Option<u64>, planned_blocks: u64, reserved_bytes: u64) -> UploadRecord {
        UploadRecord {
            state: UploadState::Pending,
            description: Description::default(),
            declared_bytes,
            block_size_bytes: 10,
            planned_blocks,
            reserved_bytes,
            sealed_blocks: 0,
            sealed_bytes: 0,
            sealed_prefix: 0,
            short_block: None,
            create_ms: 0,
            lease_expire_ms: 1,
            start_epoch: 1,
            end_epoch: None,
        }
    }

    #[test]
    fn a_known_size_ends_its_plan_and_reserves_nothing_more() {
        assert_eq!(next(&upload(Some(25), 0, 25), 16, 0), Next { blocks: 3, reserve_bytes: 0 });
        assert_eq!(next(&upload(Some(25), 3, 25), 16, 0), Next { blocks: 0, reserve_bytes: 0 });
        assert_eq!(next(&upload(Some(0), 0, 0), 16, 0), Next { blocks: 0, reserve_bytes: 0 });
    }

    #[test]
    fn the_quota_s_rest_makes_a_shorter_block_and_it_is_the_last() {
        assert_eq!(next(&upload(None, 0, 0), 4, 25), Next { blocks: 3, reserve_bytes: 25 });
        assert_eq!(next(&upload(None, 3, 25), 7, 1_000), Next { blocks: 0, reserve_bytes: 0 });
        assert_eq!(upload(None, 3, 25).max_bytes_of(2), 5);
        assert_eq!(next(&upload(None, 2, 20), 4, 0), Next { blocks: 0, reserve_bytes: 0 });
    }

    proptest! {
        #[test]
        fn planned_blocks_hold_exactly_what_is_reserved(
            declared in proptest::option::of(0u64..500), ends in proptest::collection::vec(0u64..40, 0..6), left in 0u64..300,
        ) {
            let mut upload = upload(declared, 0, declared.unwrap_or(0));
            for end in ends {
                let free = left.saturating_sub(upload.reserved_bytes);
                let next = next(&upload, end, free);
                prop_assert!(declared.is_some() || next.reserve_bytes <= free);
                upload.reserved_bytes += next.reserve_bytes;
                upload.planned_blocks += next.blocks;
                let held: u64 = (0..upload.planned_blocks).map(|index| upload.max_bytes_of(index)).sum();
                let whole = declared.is_none() || upload.planned_blocks == upload.reserved_bytes.div_ceil(10);
                prop_assert!(held == upload.reserved_bytes || !whole);
                prop_assert!(held <= upload.reserved_bytes);
                prop_assert!((0..upload.planned_blocks).all(|index| upload.max_bytes_of(index) > 0));
            }
        }
    }
}
