//! Rows from the top down: what a blob or an upload refers to is there and agrees (I1, I3, I12).
//!
//! Rows are read one after the other beside a service that changes them, so what looks wrong is looked at again from the
//! blob's own row on; only what is wrong every time is a finding. A blob that was deleted meanwhile is none.

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

/// Blocks that nobody needs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    tenant: TenantId,
    blob: BlobId,
    kind: GarbageKind,
}

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
    /// Walks uploads, blobs and deleted blobs, in the order in which one becomes the other.
    pub(super) async fn top_down(&mut self) -> Result<(), MetadataError> {
        for layer in [keys::UPLOADS, keys::BLOBS, keys::DELETED] {
            let mut walk = Walk::over(layer);
            while let Some(rows) = walk.next(self.engine()).await? {
                for row in &rows {
                    match tenant_and_blob(layer, row) {
                        Ok((tenant, blob)) => self.state(layer, row, tenant, blob).await?,
                        Err(problem) => self.report(problem).await?,
                    }
                }
            }
        }
        let sought = self.sought.take();
        self.seek(sought).await?;
        let waiting = self.waiting.take();
        self.settle_waiting(waiting).await
    }

    async fn state(&mut self, layer: &[u8], row: &Row, tenant: TenantId, blob: BlobId) -> Result<(), MetadataError> {
        let subject = Subject::blob(&tenant, blob);
        let (looked, kind) = if layer == keys::BLOBS {
            (read::<BlobRecord>(row, &subject).map(drop), GarbageKind::Surplus)
        } else if layer == keys::UPLOADS {
            (read::<UploadRecord>(row, &subject).map(drop), GarbageKind::Upload)
        } else {
            (read::<DeletedRecord>(row, &subject).map(drop), GarbageKind::Blob)
        };
        if let Err(damage) = looked {
            return self.report(damage).await;
        }
        if kind == GarbageKind::Surplus {
            self.committed(&tenant, blob).await?;
        }
        let waiting = Waiting { tenant, blob, kind };
        if self.waits(&waiting).await?
            && let Some(lot) = self.waiting.add(waiting)
        {
            self.settle_waiting(lot).await?;
        }
        Ok(())
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
        self.verify(references).await
    }

    /// Whether blocks wait to be collected, and their row is not where the tombstone says.
    async fn waits(&self, Waiting { tenant, blob, kind }: &Waiting) -> Result<bool, MetadataError> {
        let (engine, blob) = (self.engine(), *blob);
        match kind {
            GarbageKind::Upload => {
                let upload = find::<UploadRecord>(engine, &keys::upload(tenant, blob)).await?;
                Ok(matches!(upload, Found::Record(upload) if upload.state != UploadState::Pending))
            }
            GarbageKind::Blob => match find::<DeletedRecord>(engine, &keys::deleted(tenant, blob)).await? {
                Found::Record(DeletedRecord { due_ms: Some(due_ms), .. }) => {
                    Ok(engine.get(&keys::garbage(due_ms, *kind, blob)).await?.is_none())
                }
                Found::Record(_of_an_older_version) => Ok(true),
                Found::Nothing | Found::Damaged(_) => Ok(false),
            },
            GarbageKind::Surplus => match find::<BlobRecord>(engine, &keys::blob(tenant, blob)).await? {
                Found::Record(live) => {
                    Ok(!engine.scan(&keys::extents_from(blob, live.block_count()), 1).await?.is_empty())
                }
                Found::Nothing | Found::Damaged(_) => Ok(false),
            },
        }
    }

    /// What waits for the collector and is not in the queue waits for ever.
    async fn settle_waiting(&mut self, mut lot: Vec<Waiting>) -> Result<(), MetadataError> {
        for _look in 0..LOOKS {
            self.drop_queued(&mut lot, |waiting| Garbage::Blocks(waiting.kind, waiting.blob)).await?;
            let mut still = Vec::new();
            for waiting in lot {
                if self.waits(&waiting).await? {
                    still.push(waiting);
                }
            }
            lot = still;
        }
        for Waiting { tenant, blob, kind } in lot {
            let what = match kind {
                GarbageKind::Surplus => "blocks behind its end wait to be collected",
                GarbageKind::Upload | GarbageKind::Blob => "it waits to be collected",
            };
            let problem = Problem::inconsistent(&Subject::blob(&tenant, blob), format!("{what}, but not in the queue"));
            self.report(problem.with_repair(Repair::QueueBlocks { tenant, blob, kind })).await?;
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
        seen.problems.push(problem.with_repair(Repair::PutName { tenant: tenant.clone(), blob }));
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
    seen.problems.extend(disagreements(&subject, tenant, blob, record, index, &extent, &block));
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
    tenant: &TenantId,
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
        (block.tenant.as_ref().is_none_or(|named| named == tenant), "belongs to another tenant"),
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
