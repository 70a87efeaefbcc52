//! Garbage, one bounded commit at a time (I6, I7): what `workers::garbage` does step by step.
//!
//! Owns the rows of `gc/`. Blocks first become chunks: [`step`] takes blocks apart, 16 at a time, and the batch that drops
//! the rows which refer to a chunk adds the chunk's own garbage row, so that it is never without one of them. Then
//! [`chunks`] looks again that nothing refers to a chunk, its node deletes it, and only then its row goes. [`hasten`] makes
//! deleted blobs due early where a tenant keeps more of them than its quota.
//!
//! Of a deleted blob the first step only marks the tombstone: from that commit on it cannot be restored, before it nothing
//! of it was touched. The last step drops the tombstone and what it counts.
//!
//! The row of an upload that was open in an export waits, whatever its time, until the operator gives up what the import of
//! that export lost (I16).
//!
//! A row is believed only if what it is about confirms it: an upload that has ended, a tombstone that names this very row,
//! blocks behind a blob's end. Every step may be repeated, by two collectors at once too: it finds its row changed or gone.
//!
//! Crash: between two steps the row is still there, and the next step goes on where the last one ended. Between a node's
//! answer and the end of the row, the chunk is deleted once more; its id is never used again.

pub mod chunks;
pub mod hasten;

use proto::ids::{BlobId, BlockId, TenantId};
use proto::limits;

use super::{Context, Outcome, unchanged, usage};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, Row, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{
    BlobRecord, BlockRecord, ClusterRecord, DeletedRecord, ExtentRecord, GarbageChunkRecord, GarbageRecord,
    UploadRecord, UploadState, UsageRecord,
};
use crate::store::rows::{BatchExt as _, read, record_of};

/// Blocks that a step takes apart.
const BLOCKS_PER_STEP: usize = 16;
/// Chunks that these may have together.
const CHUNKS_PER_STEP: usize = 24;

const _: () = {
    let rows_of_block = 2; // extent, block
    let rows_of_chunk = 3; // reverse, damage, garbage
    let others = 4; // garbage, tombstone, its place by age, usage
    let writes = BLOCKS_PER_STEP * rows_of_block + CHUNKS_PER_STEP * rows_of_chunk + others;
    assert!(writes <= limits::BATCH_WRITES_MAX, "a step fits into one batch");
};

/// Blocks to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Not before this moment.
    pub not_before_ms: u64,
    /// Why.
    pub kind: GarbageKind,
    /// Of which blob or upload.
    pub blob: BlobId,
}

impl Blocks {
    fn key(&self) -> Vec<u8> {
        keys::garbage(self.not_before_ms, self.kind, self.blob)
    }
}

/// How a step left its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on with another one.
    More,
    /// The row is gone.
    Done,
    /// It is not due.
    NotDue,
    /// It was left alone: an import may have lost the commit that its blocks belong to.
    Kept,
}

/// What a row still has to do.
enum Task {
    /// Wait: what it is about stays until the operator gives it up (I16).
    Keep,
    /// Nothing: what it was about is no garbage, or no longer there.
    Nothing,
    /// Mark this tombstone.
    Mark(DeletedRecord),
    /// Take blocks apart, and then drop these rows, too.
    TakeApart(Last),
}

/// What goes with the last blocks.
enum Last {
    /// The garbage row alone.
    Row,
    /// An upload.
    Upload,
    /// A deleted blob.
    Tombstone(DeletedRecord),
}

/// Does the next bounded part of what a row asks for.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read, or refers to what is no garbage.
pub fn step(view: &dyn View, context: &Context<'_>, blocks: &Blocks) -> Outcome<Step> {
    let Some(row) = read::<GarbageRecord>(view, &blocks.key())? else { return unchanged(Step::Done) };
    if blocks.not_before_ms > context.now_ms && !seeded!(GraceSkipped) {
        return unchanged(Step::NotDue);
    }
    let mut batch = Batch::default();
    let step = match task(view, blocks, &row)? {
        Task::Keep => return unchanged(Step::Kept),
        Task::Nothing => {
            batch.delete(blocks.key());
            Step::Done
        }
        Task::Mark(tombstone) => {
            batch.set(keys::deleted(&row.tenant, blocks.blob), &DeletedRecord { collecting: true, ..tombstone });
            Step::More
        }
        Task::TakeApart(last) => {
            if take_apart(view, context, blocks.blob, &row, &mut batch)? {
                finish(view, blocks, &row.tenant, &last, &mut batch)?;
                Step::Done
            } else {
                Step::More
            }
        }
    };
    Ok((Decision::frees(batch), step))
}

fn task(view: &dyn View, blocks: &Blocks, row: &GarbageRecord) -> Result<Task, MetadataError> {
    let (tenant, blob) = (&row.tenant, blocks.blob);
    match blocks.kind {
        GarbageKind::Upload => match read::<UploadRecord>(view, &keys::upload(tenant, blob))? {
            Some(upload) if upload.state == UploadState::Pending => {
                Err(MetadataError::Bug("an open upload is listed as garbage (I6)"))
            }
            Some(over) if is_kept(view, &over)? => Ok(Task::Keep),
            Some(_over) => Ok(Task::TakeApart(Last::Upload)),
            None => Ok(Task::Nothing),
        },
        GarbageKind::Blob => Ok(match read::<DeletedRecord>(view, &keys::deleted(tenant, blob))? {
            // Restored, and perhaps deleted again: that delete has a row of its own.
            Some(other) if other.due_ms.is_some_and(|due_ms| due_ms != blocks.not_before_ms) => Task::Nothing,
            Some(tombstone) if tombstone.collecting => Task::TakeApart(Last::Tombstone(tombstone)),
            Some(tombstone) => Task::Mark(tombstone),
            None => Task::Nothing,
        }),
        GarbageKind::Surplus => match read::<BlobRecord>(view, &keys::blob(tenant, blob))? {
            Some(live) if row.first_block < live.block_count() => {
                Err(MetadataError::Bug("blocks of a blob are listed as garbage (I6)"))
            }
            Some(_live) => Ok(Task::TakeApart(Last::Row)),
            None => surplus_of_deleted(view, tenant, blob, row),
        },
    }
}

/// Whether the operator keeps what an import's lost time left, and the upload may have become a blob in it.
fn is_kept(view: &dyn View, upload: &UploadRecord) -> Result<bool, MetadataError> {
    let cluster: Option<ClusterRecord> = read(view, &keys::cluster())?;
    let restores = cluster.map(|cluster| cluster.restores).unwrap_or_default();
    Ok(restores.iter().any(|restore| restore.keeps_lost_time() && upload.outlived(restore))
        && !seeded!(LostTimeCollected))
}

/// Of a deleted blob the surplus still goes by itself: the blob may be restored.
fn surplus_of_deleted(
    view: &dyn View,
    tenant: &TenantId,
    blob: BlobId,
    row: &GarbageRecord,
) -> Result<Task, MetadataError> {
    match read::<DeletedRecord>(view, &keys::deleted(tenant, blob))? {
        Some(deleted) if row.first_block < deleted.blob.block_count() => {
            Err(MetadataError::Bug("blocks of a deleted blob are listed as its surplus (I6)"))
        }
        Some(_deleted) => Ok(Task::TakeApart(Last::Row)),
        None => Ok(Task::Nothing),
    }
}

/// Makes the next blocks garbage chunks; returns whether they were the last.
fn take_apart(
    view: &dyn View,
    context: &Context<'_>,
    blob: BlobId,
    row: &GarbageRecord,
    batch: &mut Batch,
) -> Result<bool, MetadataError> {
    let extents = view.scan(&keys::extents_from(blob, row.first_block), BLOCKS_PER_STEP.saturating_add(1))?;
    let mut chunks = 0;
    for (taken, extent) in extents.iter().enumerate() {
        let (id, block) = block_of(view, blob, extent)?;
        chunks += block.chunks.len();
        let full = taken == BLOCKS_PER_STEP || (taken > 0 && chunks > CHUNKS_PER_STEP);
        if full {
            return Ok(false);
        }
        batch.delete(extent.0.to_vec());
        batch.delete(keys::block(id));
        condemn(context, &row.tenant, id, &block, batch);
    }
    Ok(true)
}

/// The block of an extent's row, if both say so.
fn block_of(view: &dyn View, blob: BlobId, extent: &Row) -> Result<(BlockId, BlockRecord), MetadataError> {
    let id = record_of::<ExtentRecord>(extent)?.block;
    let block: Option<BlockRecord> = read(view, &keys::block(id))?;
    let block = block.filter(|block| block.blob == blob && keys::extent_index(&extent.0) == Some(block.index));
    Ok((id, block.ok_or_else(|| MetadataError::missing("block"))?))
}

/// Each chunk's reference becomes its garbage row, due at once: the grace of what it belonged to has passed.
fn condemn(context: &Context<'_>, tenant: &TenantId, id: BlockId, block: &BlockRecord, batch: &mut Batch) {
    for (shard_index, chunk) in (0..).zip(&block.chunks) {
        let record = GarbageChunkRecord {
            node: chunk.node,
            tenant: Some(tenant.clone()),
            block: id,
            blob: block.blob,
            shard_index,
            shard_count: block.encoding.chunk_count(),
            generation: block.generation,
            epoch: chunk.epoch,
            sequence: chunk.sequence,
        };
        batch.delete(keys::reverse(chunk.node, chunk.chunk));
        batch.delete(keys::damage(chunk.node, chunk.chunk));
        if !seeded!(GarbageInSecondCommit) {
            batch.set(keys::garbage_chunk(context.now_ms, chunk.chunk), &record);
        }
    }
}

/// The garbage row goes, and with it the row that it was about.
fn finish(
    view: &dyn View,
    blocks: &Blocks,
    tenant: &TenantId,
    last: &Last,
    batch: &mut Batch,
) -> Result<(), MetadataError> {
    batch.delete(blocks.key());
    match last {
        Last::Row => Ok(()),
        Last::Upload => {
            batch.delete(keys::upload(tenant, blocks.blob));
            Ok(())
        }
        Last::Tombstone(tombstone) => {
            batch.delete(keys::deleted(tenant, blocks.blob));
            batch.delete(keys::retained(tenant, tombstone.delete_ms, blocks.blob));
            release(view, tenant, tombstone.blob.size_bytes, batch)
        }
    }
}

/// The bytes are no longer retained. What a deleted tenant holds is counted until it holds nothing.
fn release(view: &dyn View, tenant: &TenantId, bytes: u64, batch: &mut Batch) -> Result<(), MetadataError> {
    let key = keys::usage(tenant);
    let mut usage: UsageRecord = read(view, &key)?.ok_or_else(|| MetadataError::missing("usage"))?;
    usage::release_blob(&mut usage, bytes)?;
    if usage == UsageRecord::default() && view.get(&keys::tenant(tenant))?.is_none() {
        batch.delete(key);
    } else {
        batch.set(key, &usage);
    }
    Ok(())
}
