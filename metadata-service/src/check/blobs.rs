//! Rows from the top down: what a blob or an upload refers to is there and agrees (I1, I3, I12).
//!
//! Rows are read one after the other beside a service that changes them, so what looks wrong is looked at again from the
//! blob's own row on; only what is wrong every time is a finding. A blob that was deleted meanwhile is none.

use std::collections::HashSet;

use proto::capability::{ChunkBinding, ReadClaims};
use proto::ids::{BlobId, BlockId, NodeId, TenantId};

use super::Check;
use super::finding::Subject;
use super::problem::{Problem, Repair};
use super::rows::{Found, Walk, find, read, tenant_and_blob};
use crate::error::MetadataError;
use crate::store::engine::{Engine, Row};
use crate::store::keys::{self, Garbage, GarbageKind};
use crate::store::records::{
    BlobRecord, BlockRecord, ChunkRecord, DeletedRecord, ExtentRecord, NameRecord, ReverseRecord, TenantRecord,
    UploadRecord, UploadState,
};

/// How often something is looked at before it counts as wrong.
pub(super) const LOOKS: usize = 3;

/// Every blob and upload, in whatever state: who may own blocks.
pub(super) type Owners = HashSet<BlobId>;

/// A chunk that a committed blob needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) tenant: TenantId,
    pub(super) node: NodeId,
    pub(super) binding: ChunkBinding,
    pub(super) claims: ReadClaims,
}

/// What one look at a block found.
#[derive(Debug, Default)]
struct Seen {
    problems: Vec<Problem>,
    references: Vec<Reference>,
}

impl Check {
    /// Walks uploads, blobs and deleted blobs, in the order in which one becomes the other. Returns who may own blocks.
    pub(super) async fn top_down(&mut self) -> Result<Owners, MetadataError> {
        let mut owners = Owners::new();
        for layer in [keys::UPLOADS, keys::BLOBS, keys::DELETED] {
            let mut walk = Walk::over(layer);
            while let Some(rows) = walk.next(self.engine()).await? {
                for row in &rows {
                    match tenant_and_blob(layer, row) {
                        Ok((tenant, blob)) => self.owner(layer, row, &tenant, blob, &mut owners).await?,
                        Err(problem) => self.report(problem).await?,
                    }
                }
            }
        }
        Ok(owners)
    }

    async fn owner(
        &mut self,
        layer: &[u8],
        row: &Row,
        tenant: &TenantId,
        blob: BlobId,
        owners: &mut Owners,
    ) -> Result<(), MetadataError> {
        let subject = Subject::blob(tenant, blob);
        let looked = if layer == keys::BLOBS {
            read::<BlobRecord>(row, &subject).map(drop)
        } else if layer == keys::UPLOADS {
            read::<UploadRecord>(row, &subject).map(|upload| {
                if self.service.is_kept_upload(&upload) {
                    self.kept_uploads.insert(blob);
                }
            })
        } else {
            read::<DeletedRecord>(row, &subject).map(drop)
        };
        // Also what cannot be read owns its blocks: nothing of it is dropped.
        owners.insert(blob);
        match looked {
            Err(damage) => self.report(damage).await,
            Ok(()) if layer == keys::BLOBS => self.committed(tenant, blob).await,
            Ok(()) => self.ended(layer, tenant, blob).await,
        }
    }

    /// A committed blob: its name, its blocks, their chunks; and then the chunks themselves.
    async fn committed(&mut self, tenant: &TenantId, blob: BlobId) -> Result<(), MetadataError> {
        self.summary.blobs += 1;
        let mut references = Vec::new();
        for look in 1..=LOOKS {
            let Some(seen) = look_at(&self.service, tenant, blob).await? else { return Ok(()) };
            if !seen.problems.is_empty() && look < LOOKS {
                continue;
            }
            for problem in seen.problems {
                self.report(problem).await?;
            }
            references = seen.references;
            break;
        }
        self.surplus(tenant, blob).await?;
        self.verify(tenant, blob, references).await
    }

    /// Blocks that were planned behind a blob's end wait for the collector, too.
    async fn surplus(&mut self, tenant: &TenantId, blob: BlobId) -> Result<(), MetadataError> {
        for _look in 0..LOOKS {
            let record = find::<BlobRecord>(self.engine(), &keys::blob(tenant, blob)).await?;
            let Found::Record(record) = record else { return Ok(()) };
            let first_block = record.block_count();
            let behind = self.engine().scan(&keys::extents_from(blob, first_block), 1).await?;
            if behind.is_empty() || self.is_queued(Garbage::Blocks(GarbageKind::Surplus, blob)).await? {
                return Ok(());
            }
        }
        self.unqueued(tenant, blob, GarbageKind::Surplus, "blocks behind its end wait to be collected").await
    }

    /// Tells of something that waits to be collected and is not in the queue.
    async fn unqueued(
        &mut self,
        tenant: &TenantId,
        blob: BlobId,
        kind: GarbageKind,
        what: &str,
    ) -> Result<(), MetadataError> {
        let problem = Problem::inconsistent(&Subject::blob(tenant, blob), format!("{what}, but not in the queue"));
        self.report(problem.with_repair(Repair::QueueBlocks { tenant: tenant.clone(), blob, kind })).await
    }

    /// An upload that is over or a deleted blob waits for the collector; without its garbage row for ever.
    async fn ended(&mut self, layer: &[u8], tenant: &TenantId, blob: BlobId) -> Result<(), MetadataError> {
        for look in 1..=LOOKS {
            let (kind, waits) = if layer == keys::UPLOADS {
                let upload = find::<UploadRecord>(self.engine(), &keys::upload(tenant, blob)).await?;
                let over = matches!(upload, Found::Record(upload) if upload.state != UploadState::Pending);
                (GarbageKind::Upload, over)
            } else {
                let deleted = find::<DeletedRecord>(self.engine(), &keys::deleted(tenant, blob)).await?;
                (GarbageKind::Blob, matches!(deleted, Found::Record(_)))
            };
            if !waits || self.is_queued(Garbage::Blocks(kind, blob)).await? {
                return Ok(());
            }
            if look == LOOKS {
                return self.unqueued(tenant, blob, kind, "it waits to be collected").await;
            }
        }
        Ok(())
    }
}

/// Looks at everything that a committed blob refers to; `None` when it is no longer there.
async fn look_at(
    service: &crate::service::Service,
    tenant: &TenantId,
    blob: BlobId,
) -> Result<Option<Seen>, MetadataError> {
    let engine = service.engine();
    let Found::Record(record) = find::<BlobRecord>(engine, &keys::blob(tenant, blob)).await? else { return Ok(None) };
    let subject = Subject::blob(tenant, blob);
    let mut seen = Seen::default();
    if let Err(problem) = find::<TenantRecord>(engine, &keys::tenant(tenant)).await?.or_problem(&subject, "its tenant")
    {
        seen.problems.push(problem);
    }
    let name = keys::name(tenant, &record.description.display_name, blob);
    if let Err(problem) = find::<NameRecord>(engine, &name).await?.or_problem(&subject, "its entry in the name index") {
        let repair = Repair::put("add the entry to the name index", name, &NameRecord {});
        seen.problems.push(problem.with_repair(repair));
    }
    for index in 0..record.block_count() {
        look_at_block(service, tenant, blob, &record, index, &mut seen).await?;
    }
    Ok(Some(seen))
}

async fn look_at_block(
    service: &crate::service::Service,
    tenant: &TenantId,
    blob: BlobId,
    record: &BlobRecord,
    index: u64,
    seen: &mut Seen,
) -> Result<(), MetadataError> {
    let (engine, subject) = (service.engine(), Subject::blob(tenant, blob));
    let extent = find::<ExtentRecord>(engine, &keys::extent(blob, index)).await?;
    let extent = match extent.or_problem(&subject, &format!("the extent of block {index}")) {
        Ok(extent) => extent,
        Err(problem) => {
            seen.problems.push(problem);
            return Ok(());
        }
    };
    let block = find::<BlockRecord>(engine, &keys::block(extent.block)).await?;
    let block = match block.or_problem(&subject, &format!("the row of block {index}")) {
        Ok(block) => block,
        Err(problem) => {
            seen.problems.push(problem);
            return Ok(());
        }
    };
    seen.problems.extend(disagreements(&subject, blob, record, index, &extent, &block));
    for (shard_index, chunk) in (0..).zip(&block.chunks) {
        let place = place_of(extent.block, &block, shard_index, chunk);
        if service.registry().access(chunk.node).is_none() {
            let subject = Subject { chunk: Some(chunk.chunk), node: Some(chunk.node), ..subject.clone() };
            seen.problems.push(Problem::inconsistent(&subject, "the node of a chunk is not registered"));
        }
        let shard_count = block.encoding.chunk_count();
        seen.references.extend(reference(tenant, chunk, &place, shard_count));
    }
    Ok(())
}

/// What a blob, an extent and a block say differently of the same block.
fn disagreements(
    subject: &Subject,
    blob: BlobId,
    record: &BlobRecord,
    index: u64,
    extent: &ExtentRecord,
    block: &BlockRecord,
) -> Vec<Problem> {
    let expected = record.size_bytes.saturating_sub(index.saturating_mul(record.block_size_bytes));
    let expected = expected.min(record.block_size_bytes);
    let sealed = block.sealed;
    let only_block = record.block_count() == 1;
    let rules = [
        (block.blob == blob && block.index == index, "belongs to another place"),
        (sealed.is_some(), "is not sealed"),
        (extent.size_bytes == expected, "has another size in its extent"),
        (sealed.is_none_or(|sums| sums.size_bytes == expected), "has another size in its row"),
        (!only_block || sealed.is_none_or(|sums| sums.sha256 == record.sha256), "has another SHA-256 than the blob"),
        (block.chunks.iter().all(|chunk| chunk.sums.is_some()), "has a chunk without a receipt"),
    ];
    let broken = rules.into_iter().filter(|(holds, _)| !holds);
    broken.map(|(_, how)| Problem::inconsistent(subject, format!("block {index} {how}"))).collect()
}

/// The reverse row that a block's row proves.
pub(super) fn place_of(id: BlockId, block: &BlockRecord, shard_index: u32, chunk: &ChunkRecord) -> ReverseRecord {
    ReverseRecord {
        block: id,
        blob: block.blob,
        shard_index,
        generation: block.generation,
        epoch: chunk.epoch,
        sequence: chunk.sequence,
    }
}

/// What to verify at the node; nothing without a receipt, which has been reported.
fn reference(tenant: &TenantId, chunk: &ChunkRecord, place: &ReverseRecord, shard_count: u32) -> Option<Reference> {
    let binding = ChunkBinding {
        chunk: chunk.chunk,
        block: place.block,
        blob: place.blob,
        shard_index: place.shard_index,
        shard_count,
        generation: place.generation,
        epoch: place.epoch,
        sequence: place.sequence,
    };
    let claims = chunk.sums?;
    Some(Reference { tenant: tenant.clone(), node: chunk.node, binding, claims })
}

/// Whether a blob is still there, so that what was found of it counts.
pub(super) async fn is_committed(engine: &dyn Engine, tenant: &TenantId, blob: BlobId) -> Result<bool, MetadataError> {
    Ok(!matches!(find::<BlobRecord>(engine, &keys::blob(tenant, blob)).await?, Found::Nothing))
}
