//! A problem on its way to becoming a finding, and the repairs that need no guessing.
//!
//! Every repair is one commit that looks again, in its turn: it puts a row only where there is none and the row that proves
//! it is still there, and makes it from that row as it is then; it drops one only as it was found and still without a
//! reason (`needed`). A repair whose proof is gone changes nothing. So a repair may be interrupted and run again at any
//! point, beside a service that works.

use proto::capability::ChunkBinding;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId, TenantId};

use super::blobs::place_of;
use super::finding::{FindingKind, Subject};
use super::needed::is_needed;
use super::rows::{Found, see};
use super::usage::{self, Count};
use crate::coordinator::{Context, Outcome};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{
    BlobRecord, BlockRecord, DeletedRecord, ExtentRecord, GarbageChunkRecord, GarbageRecord, NameRecord, Record,
    UploadRecord, UploadState,
};
use crate::store::rows::BatchExt as _;

/// What would set a problem right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// Put the entry of the name index that a blob proves.
    PutName {
        /// Whose it is.
        tenant: TenantId,
        /// The blob.
        blob: BlobId,
    },
    /// Put the extent that a block of a blob proves.
    PutExtent {
        /// Whose it is.
        tenant: TenantId,
        /// The block.
        block: BlockId,
    },
    /// Put the reverse row of a chunk that a block proves.
    PutReverse {
        /// The block.
        block: BlockId,
        /// The node that holds the chunk.
        node: NodeId,
        /// The chunk.
        chunk: ChunkId,
    },
    /// Drop a row that nothing refers to.
    Drop {
        /// What that means, for people.
        what: &'static str,
        /// Its key.
        key: Vec<u8>,
        /// Its value when it was found.
        value: Vec<u8>,
    },
    /// Set a tenant's usage to the sum of its rows.
    Recount {
        /// Whose usage.
        tenant: TenantId,
        /// What was found.
        counted: Count,
    },
    /// Queue blocks that nobody needs for collection.
    QueueBlocks {
        /// Whose they are.
        tenant: TenantId,
        /// Of which blob or upload.
        blob: BlobId,
        /// Why.
        kind: GarbageKind,
    },
    /// Queue a chunk that nothing refers to for collection.
    Queue {
        /// The node that has its files.
        node: NodeId,
        /// The chunk.
        chunk: ChunkId,
    },
}

impl Repair {
    /// What it does, for people.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::PutName { .. } => "add the entry to the name index",
            Self::PutExtent { .. } => "put the extent",
            Self::PutReverse { .. } => "put the reverse row",
            Self::Drop { what, .. } => what,
            Self::Recount { .. } => "set the usage to the sum of the rows",
            Self::QueueBlocks { .. } => "queue them for collection",
            Self::Queue { .. } => "queue the chunk for collection",
        }
    }

    /// Decides it; the answer is whether it changed anything.
    pub(super) fn decide(self, view: &dyn View, context: &Context<'_>) -> Outcome<bool> {
        let mut decision = Decision { frees_space: true, ..Decision::default() };
        match self {
            Self::PutName { tenant, blob } => put_name(view, &tenant, blob, &mut decision.batch)?,
            Self::PutExtent { tenant, block } => put_extent(view, &tenant, block, &mut decision.batch)?,
            Self::PutReverse { block, node, chunk } => put_reverse(view, block, node, chunk, &mut decision.batch)?,
            Self::Drop { key, value, .. } => {
                if view.get(&key)?.is_some_and(|now| now == value) && !is_needed(view, &key, &value)? {
                    decision.batch.delete(key);
                }
            }
            Self::Recount { tenant, counted } => usage::recount(view, &tenant, counted, &mut decision.batch)?,
            Self::QueueBlocks { tenant, blob, kind } => {
                queue_blocks(view, context, &tenant, blob, kind, &mut decision.batch)?;
            }
            Self::Queue { node, chunk } => {
                if view.get(&keys::reverse(node, chunk))?.is_none() {
                    let record = GarbageChunkRecord::new(node, None, &ChunkBinding { chunk, ..ChunkBinding::none() });
                    decision
                        .batch
                        .set(keys::garbage_chunk(context.tuning.garbage_due_ms(context.now_ms), chunk), &record);
                }
            }
        }
        let changed = !decision.batch.is_empty();
        Ok((decision, changed))
    }
}

fn put_name(view: &dyn View, tenant: &TenantId, blob: BlobId, batch: &mut Batch) -> Result<(), MetadataError> {
    let Found::Record(live) = see::<BlobRecord>(view, &keys::blob(tenant, blob))? else { return Ok(()) };
    put(view, keys::name(tenant, &live.description.display_name, blob), &NameRecord {}, batch)
}

fn put_extent(view: &dyn View, tenant: &TenantId, id: BlockId, batch: &mut Batch) -> Result<(), MetadataError> {
    let Found::Record(block) = see::<BlockRecord>(view, &keys::block(id))? else { return Ok(()) };
    let owners = [keys::upload, keys::blob, keys::deleted].map(|key| view.get(&key(tenant, block.blob)));
    let owned = owners.into_iter().collect::<Result<Vec<_>, _>>()?.iter().any(Option::is_some);
    let Some(sums) = block.sealed.filter(|_sums| owned) else { return Ok(()) };
    let extent = ExtentRecord { block: id, size_bytes: sums.size_bytes };
    put(view, keys::extent(block.blob, block.index), &extent, batch)
}

fn put_reverse(
    view: &dyn View,
    id: BlockId,
    node: NodeId,
    chunk: ChunkId,
    batch: &mut Batch,
) -> Result<(), MetadataError> {
    let Found::Record(block) = see::<BlockRecord>(view, &keys::block(id))? else { return Ok(()) };
    let planned = (0..).zip(&block.chunks).find(|(_, one)| one.node == node && one.chunk == chunk);
    let Some((shard_index, planned)) = planned else { return Ok(()) };
    put(view, keys::reverse(node, chunk), &place_of(id, &block, shard_index, planned), batch)
}

/// Puts a row where there is none.
fn put<R: Record>(view: &dyn View, key: Vec<u8>, record: &R, batch: &mut Batch) -> Result<(), MetadataError> {
    if view.get(&key)?.is_none() {
        batch.set(key, record);
    }
    Ok(())
}

/// Puts blocks back into the queue, if what they belong to still says that nobody needs them. A deleted blob's tombstone
/// names its row in the queue; one that has none yet gets it.
fn queue_blocks(
    view: &dyn View,
    context: &Context<'_>,
    tenant: &TenantId,
    blob: BlobId,
    kind: GarbageKind,
    batch: &mut Batch,
) -> Result<(), MetadataError> {
    let (due_ms, first_block) = match kind {
        GarbageKind::Upload => match see::<UploadRecord>(view, &keys::upload(tenant, blob))? {
            Found::Record(upload) if upload.state != UploadState::Pending => {
                (context.tuning.garbage_due_ms(context.now_ms), 0)
            }
            Found::Record(_) | Found::Nothing | Found::Damaged(_) => return Ok(()),
        },
        GarbageKind::Blob => {
            let key = keys::deleted(tenant, blob);
            let Found::Record(tombstone) = see::<DeletedRecord>(view, &key)? else { return Ok(()) };
            let due_ms = tombstone.due_ms.unwrap_or_else(|| context.tuning.deleted_due_ms(tombstone.delete_ms));
            batch.set(key, &DeletedRecord { due_ms: Some(due_ms), ..tombstone });
            (due_ms, 0)
        }
        GarbageKind::Surplus => {
            let Found::Record(live) = see::<BlobRecord>(view, &keys::blob(tenant, blob))? else { return Ok(()) };
            if view.scan(&keys::extents_from(blob, live.block_count()), 1)?.is_empty() {
                return Ok(());
            }
            (context.tuning.garbage_due_ms(context.now_ms), live.block_count())
        }
    };
    batch.set(keys::garbage(due_ms, kind, blob), &GarbageRecord { tenant: tenant.clone(), first_block });
    Ok(())
}

/// Something wrong, before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: FindingKind,
    pub(super) detail: String,
    pub(super) subject: Box<Subject>,
    pub(super) repair: Option<Box<Repair>>,
}

impl Problem {
    pub(super) fn new(kind: FindingKind, subject: Subject, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), subject: Box::new(subject), repair: None }
    }

    pub(super) fn inconsistent(subject: &Subject, detail: impl Into<String>) -> Self {
        Self::new(FindingKind::RowInconsistent, subject.clone(), detail)
    }

    #[must_use]
    pub(super) fn with_repair(self, repair: Repair) -> Self {
        Self { repair: Some(Box::new(repair)), ..self }
    }
}
