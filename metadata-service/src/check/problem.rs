//! A problem on its way to becoming a finding, and the repairs that need no guessing.
//!
//! Every repair is one commit that looks again: it puts a row only where there is none, and drops one only as it was
//! found. So a repair may be interrupted and run again at any point, beside a service that works.

use proto::capability::ChunkBinding;
use proto::ids::{BlobId, ChunkId, NodeId, TenantId};

use super::finding::{FindingKind, Subject};
use super::usage;
use crate::coordinator::{Context, Outcome};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{
    BlobRecord, DeletedRecord, GarbageChunkRecord, GarbageRecord, Record, UploadRecord, UploadState, encode,
};
use crate::store::rows::{BatchExt as _, read};

/// What would set a problem right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// Put the row that others prove.
    Put {
        /// What that means, for people.
        what: &'static str,
        /// Its key.
        key: Vec<u8>,
        /// Its record.
        value: Vec<u8>,
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
    Recount(TenantId),
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
    pub(super) fn put<R: Record>(what: &'static str, key: Vec<u8>, record: &R) -> Self {
        Self::Put { what, key, value: encode(record) }
    }

    /// What it does, for people.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Put { what, .. } | Self::Drop { what, .. } => what,
            Self::Recount(_) => "set the usage to the sum of the rows",
            Self::QueueBlocks { .. } => "queue them for collection",
            Self::Queue { .. } => "queue the chunk for collection",
        }
    }

    /// Decides it; the answer is whether it changed anything.
    pub(super) fn decide(self, view: &dyn View, context: &Context<'_>) -> Outcome<bool> {
        let mut decision = Decision { frees_space: true, ..Decision::default() };
        match self {
            Self::Put { key, value, .. } => {
                if view.get(&key)?.is_none() {
                    decision.batch.put(key, value);
                }
            }
            Self::Drop { key, value, .. } => {
                if view.get(&key)?.is_some_and(|now| now == value) {
                    decision.batch.delete(key);
                }
            }
            Self::Recount(tenant) => usage::recount(view, &tenant, &mut decision.batch)?,
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
        GarbageKind::Upload => match read::<UploadRecord>(view, &keys::upload(tenant, blob))? {
            Some(upload) if upload.state != UploadState::Pending => (context.tuning.garbage_due_ms(context.now_ms), 0),
            Some(_) | None => return Ok(()),
        },
        GarbageKind::Blob => {
            let key = keys::deleted(tenant, blob);
            let Some(tombstone) = read::<DeletedRecord>(view, &key)? else { return Ok(()) };
            let due_ms = tombstone.due_ms.unwrap_or_else(|| context.tuning.deleted_due_ms(tombstone.delete_ms));
            batch.set(key, &DeletedRecord { due_ms: Some(due_ms), ..tombstone });
            (due_ms, 0)
        }
        GarbageKind::Surplus => {
            let Some(live) = read::<BlobRecord>(view, &keys::blob(tenant, blob))? else { return Ok(()) };
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
