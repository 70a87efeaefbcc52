//! Where the bytes of a blob are.
//!
//! The rows of extents and blocks are read before the blob's row is looked at a second time: a delete in between shows
//! as a blob that is not there, never as half a layout.

use proto::ids::{BlobId, BlockId, TenantId};
use proto::limits::BLOCKS_PER_LAYOUT;

use super::blobs::{self, Blob};
use crate::error::MetadataError;
use crate::store::engine::Engine;
use crate::store::keys;
use crate::store::records::{BlobRecord, BlockRecord, BlockSums, ExtentRecord};
use crate::store::rows::{load, record_of};

/// A range of bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange {
    /// First byte wanted.
    pub offset: u64,
    /// How many; 0 for all that follow.
    pub limit: u64,
}

/// A sealed block of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBlock {
    /// The block.
    pub block: BlockId,
    /// Where it begins within the blob.
    pub offset_bytes: u64,
    /// Its size and SHA-256.
    pub sums: BlockSums,
    /// Its row.
    pub record: BlockRecord,
}

/// Where the bytes of a range are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The blob.
    pub blob: Blob,
    /// The blocks, in order.
    pub blocks: Vec<SealedBlock>,
    /// Where to go on; `None` when the range is complete.
    pub next_read_offset: Option<u64>,
}

/// The blocks that hold a range, at most [`BLOCKS_PER_LAYOUT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Covering {
    first: u64,
    count: usize,
    next_read_offset: Option<u64>,
}

fn cover(blob: &BlobRecord, range: ReadRange) -> Result<Covering, MetadataError> {
    let size_bytes = blob.size_bytes;
    if range.offset > size_bytes {
        return Err(MetadataError::ReadOffsetOutOfRange { size_bytes });
    }
    let end = match range.limit {
        0 => size_bytes,
        limit => range.offset.saturating_add(limit).min(size_bytes),
    };
    let first = range.offset / blob.block_size_bytes;
    // An empty range at a block's start ends where that block begins.
    let wanted = if end > range.offset { end.div_ceil(blob.block_size_bytes) - first } else { 0 };
    let count = usize::try_from(wanted).map_or(BLOCKS_PER_LAYOUT, |wanted| wanted.min(BLOCKS_PER_LAYOUT));
    let next = first + count as u64;
    let next_read_offset = (count as u64) < wanted;
    Ok(Covering { first, count, next_read_offset: next_read_offset.then_some(next * blob.block_size_bytes) })
}

/// Returns where the bytes of a range are.
///
/// # Errors
/// [`MetadataError::BlobNotFound`], [`MetadataError::ReadOffsetOutOfRange`].
pub async fn get(
    engine: &dyn Engine,
    tenant: &TenantId,
    blob: BlobId,
    range: ReadRange,
) -> Result<Layout, MetadataError> {
    let found = blobs::get(engine, tenant, blob).await?;
    let covering = cover(&found.record, range)?;
    let blocks = blocks(engine, blob, &found.record, covering).await;
    // Also when the blocks could not be read: of a blob that is gone nothing else may be said.
    blobs::get(engine, tenant, blob).await?;
    Ok(Layout { blob: found, blocks: blocks?, next_read_offset: covering.next_read_offset })
}

async fn blocks(
    engine: &dyn Engine,
    blob: BlobId,
    record: &BlobRecord,
    covering: Covering,
) -> Result<Vec<SealedBlock>, MetadataError> {
    let rows = engine.scan(&keys::extents_from(blob, covering.first), covering.count).await?;
    if rows.len() < covering.count {
        return Err(MetadataError::missing("extent"));
    }
    let mut blocks = Vec::with_capacity(rows.len());
    for (index, row) in (covering.first..).zip(&rows) {
        let extent: ExtentRecord = record_of(row)?;
        let block: Option<BlockRecord> = load(engine, &keys::block(extent.block)).await?;
        let block = block.filter(|block| block.blob == blob && block.index == index);
        let block = block.ok_or_else(|| MetadataError::missing("block"))?;
        let sums = block.sealed.ok_or_else(|| MetadataError::missing("block's sum"))?;
        let offset_bytes = index * record.block_size_bytes;
        blocks.push(SealedBlock { block: extent.block, offset_bytes, sums, record: block });
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::checksum::Sha256;

    use super::*;
    use crate::store::records::Description;

    fn blob(size_bytes: u64, block_size_bytes: u64) -> BlobRecord {
        let (description, sha256) = (Description::default(), Sha256::of(b""));
        BlobRecord { description, size_bytes, sha256, start_ms: 0, create_ms: 0, block_size_bytes }
    }

    #[test]
    fn a_range_behind_the_end_is_refused_and_one_at_the_end_is_empty() {
        let refused = cover(&blob(25, 10), ReadRange { offset: 26, limit: 0 });
        assert!(matches!(refused, Err(MetadataError::ReadOffsetOutOfRange { size_bytes: 25 })));
        for (size, offset) in [(25, 25), (30, 30), (0, 0)] {
            let at_end = cover(&blob(size, 10), ReadRange { offset, limit: 0 }).unwrap();
            assert_eq!((at_end.count, at_end.next_read_offset), (0, None), "{offset} of {size}");
        }
    }

    proptest! {
        #[test]
        fn following_next_read_offset_covers_every_wanted_byte_once(
            size in 0u64..100_000, block in 1u64..50, offset in 0u64..100_000, limit in 0u64..100_000,
        ) {
            let blob = blob(size, block);
            let offset = offset.min(size);
            let end = if limit == 0 { size } else { (offset + limit).min(size) };
            let (mut at, mut expected_first) = (offset, offset / block);
            loop {
                let limit = if limit == 0 { 0 } else { end - at };
                let step = cover(&blob, ReadRange { offset: at, limit }).unwrap();
                prop_assert!(step.count <= BLOCKS_PER_LAYOUT);
                prop_assert_eq!(step.first, expected_first);
                let behind = (step.first + step.count as u64) * block;
                let Some(next) = step.next_read_offset else {
                    prop_assert!(end == at || (behind >= end && behind - end < block));
                    break;
                };
                prop_assert!(next == behind && next < end && step.count > 0);
                (at, expected_first) = (next, next / block);
            }
        }
    }
}
