//! What nodes found of their own chunks.
//!
//! Owns: `damage/` rows. A row is there from the first report that a chunk is missing or damaged until a report that it is
//! sound, or until the collector takes the chunk's reference away, in whose batch the row goes too.
//!
//! Order: a report is decided in its turn, on the chunk's reverse row, so that a chunk which is no longer referred to (a
//! delete overtook its scrub) never counts as damage. Nothing else follows from a row: no reference is dropped, no chunk
//! deleted. Crash: a report is made again, by the next scrub at the latest.

use std::collections::HashMap;

use proto::ids::{BlobId, ChunkId, NodeId, TenantId};
use proto::limits::BATCH_WRITES_MAX;

use crate::coordinator::blobs::{Page, page};
use crate::coordinator::{Context, Outcome, owner};
use crate::error::MetadataError;
use crate::nodes::usecases::{Described, describe_chunk};
use crate::store::engine::{Batch, Decision, Engine, KeyRange, View};
use crate::store::keys;
use crate::store::records::{BlockRecord, Damage, DamageRecord, ReverseRecord};
use crate::store::rows::{BatchExt as _, load, read, record_of};

/// Chunks that one report may be about.
pub const REPORTS_MAX: usize = 100;
/// More rows than this are not counted.
pub const COUNTED_MAX: usize = 10_000;

const _: () = assert!(REPORTS_MAX <= BATCH_WRITES_MAX, "each of their rows fits into one batch");

/// How a node found one of its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkReport {
    /// The chunk.
    pub chunk: ChunkId,
    /// What is wrong with it; `None` when its bytes are sound.
    pub damage: Option<Damage>,
    /// What exactly was found, for people.
    pub detail: String,
    /// Whose it is, as far as rows tell: see [`name_tenants`].
    pub tenant: Option<TenantId>,
}

/// A chunk that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedChunk {
    /// The node that should hold it.
    pub node: NodeId,
    /// The chunk.
    pub chunk: ChunkId,
    /// What is known of it.
    pub record: DamageRecord,
}

/// Notes how a node found chunks of its own, at most [`REPORTS_MAX`]. Chunks that nothing refers to are passed over.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub fn report(view: &dyn View, context: &Context<'_>, node: NodeId, reports: &[ChunkReport]) -> Outcome<()> {
    let mut batch = Batch::default();
    for report in reports.iter().take(REPORTS_MAX) {
        let key = keys::damage(node, report.chunk);
        let known: Option<DamageRecord> = read(view, &key)?;
        let reverse: Option<ReverseRecord> = read(view, &keys::reverse(node, report.chunk))?;
        match (report.damage, reverse) {
            (Some(damage), Some(reverse)) => {
                let record = DamageRecord {
                    tenant: report.tenant.clone().or_else(|| known.as_ref().and_then(|known| known.tenant.clone())),
                    block: reverse.block,
                    blob: reverse.blob,
                    damage,
                    detail: report.detail.clone(),
                    find_ms: known.as_ref().map_or(context.now_ms, |known| known.find_ms),
                };
                if known.as_ref() != Some(&record) {
                    batch.set(key, &record);
                }
            }
            (None, _) | (Some(_), None) if known.is_some() => batch.delete(key),
            (None, _) | (Some(_), None) => {}
        }
    }
    Ok((Decision::frees(batch), ()))
}

/// Notes whose the damaged chunks of a batch of reports are, at most [`REPORTS_MAX`]. A chunk that was known to be
/// damaged costs one read, another two more, and one blob is looked up once.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub async fn name_tenants(engine: &dyn Engine, node: NodeId, reports: &mut [ChunkReport]) -> Result<(), MetadataError> {
    let mut known = HashMap::new();
    for report in reports.iter_mut().filter(|report| report.damage.is_some()).take(REPORTS_MAX) {
        report.tenant = tenant_of(engine, node, report.chunk, &mut known).await?;
    }
    Ok(())
}

/// Whose a node's chunk is: as its damage row says, else its block's row, else whoever has the blob.
async fn tenant_of(
    engine: &dyn Engine,
    node: NodeId,
    chunk: ChunkId,
    known: &mut HashMap<BlobId, Option<TenantId>>,
) -> Result<Option<TenantId>, MetadataError> {
    let noted: Option<DamageRecord> = load(engine, &keys::damage(node, chunk)).await?;
    if let Some(tenant) = noted.and_then(|noted| noted.tenant) {
        return Ok(Some(tenant));
    }
    let Some(reverse) = load::<ReverseRecord>(engine, &keys::reverse(node, chunk)).await? else { return Ok(None) };
    if let Some(tenant) = known.get(&reverse.blob) {
        return Ok(tenant.clone());
    }
    let block: Option<BlockRecord> = load(engine, &keys::block(reverse.block)).await?;
    let tenant = match block.and_then(|block| block.tenant) {
        Some(tenant) => Some(tenant),
        None => owner::search(engine, reverse.blob).await?,
    };
    known.insert(reverse.blob, tenant.clone());
    Ok(tenant)
}

/// Rows that tell of damage behind `after`, at most `size`, in the order of node and chunk.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub async fn list(engine: &dyn Engine, after: Option<&[u8]>, size: usize) -> Result<Page<DamagedChunk>, MetadataError> {
    let Page { entries, next } = page(engine, KeyRange::prefix(keys::DAMAGE), after, size).await?;
    let chunk = |row: &(bytes::Bytes, bytes::Bytes)| {
        let (node, chunk) = keys::damage_of(&row.0).ok_or_else(|| MetadataError::missing("damage"))?;
        Ok(DamagedChunk { node, chunk, record: record_of(row)? })
    };
    let entries = entries.iter().map(chunk).collect::<Result<Vec<_>, MetadataError>>()?;
    Ok(Page { entries, next })
}

/// How many chunks are missing or damaged, up to [`COUNTED_MAX`]. Counted and not kept, so that it cannot be wrong.
///
/// # Errors
/// [`MetadataError`] when rows cannot be read.
pub async fn count(engine: &dyn Engine) -> Result<u64, MetadataError> {
    let rows = engine.scan(&KeyRange::prefix(keys::DAMAGE), COUNTED_MAX).await?;
    Ok(rows.len() as u64)
}

/// A chunk that a node should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// What the metadata holds of it.
    pub described: Described,
    /// A row tells of damage.
    pub damaged: bool,
}

/// A node's chunks behind `after` whose sums are known, in the order of their ids; at most `size` rows are looked at.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub async fn node_chunks(
    engine: &dyn Engine,
    node: NodeId,
    after: Option<ChunkId>,
    size: usize,
) -> Result<(Vec<NodeChunk>, Option<ChunkId>), MetadataError> {
    let range = KeyRange::prefix(&keys::node_chunks(node));
    let after = after.map(|after| keys::reverse(node, after));
    let Page { entries, next } = page(engine, range, after.as_deref(), size).await?;
    let mut chunks = Vec::new();
    for (key, _) in &entries {
        let Some((_, chunk)) = keys::reverse_of(key) else { continue };
        let described = describe_chunk(engine, node, chunk).await?;
        if let Some(described) = described.filter(|described| described.sums.is_some()) {
            let damaged = engine.get(&keys::damage(node, chunk)).await?.is_some();
            chunks.push(NodeChunk { chunk, described, damaged });
        }
    }
    Ok((chunks, next.and_then(|key| keys::reverse_of(&key)).map(|(_, chunk)| chunk)))
}

#[cfg(test)]
mod tests;
