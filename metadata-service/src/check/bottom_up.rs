//! Rows from the bottom up: every row has a reason to exist.
//!
//! Whose a blob is, its blocks' rows say; it is looked up there. A blob that came or went meanwhile looks wrong, so one
//! that is not there is looked for under every tenant, more than once, before it counts. A block whose extent is missing while its blob
//! is there proves the extent: that is put back. What nobody owns is dropped as it was found; chunks of it become orphans
//! on their nodes, and go the way of those. Where a blob is there and its block is not, the reverse rows are all that keeps
//! its chunks: they stay.

use proto::ids::{BlobId, BlockId, TenantId};

use super::Check;
use super::blobs::LOOKS;
use super::finding::{FindingKind, Subject};
use super::problem::{Problem, Repair};
use super::rows::{Found, Walk, find, read, senseless};
use crate::coordinator::owner;
use crate::error::MetadataError;
use crate::store::engine::Row;
use crate::store::keys::{self, Garbage};
use crate::store::records::{
    BlobRecord, BlockRecord, DamageRecord, DeletedRecord, ExtentRecord, GarbageChunkRecord, GarbageRecord, Holder,
    NameRecord, NodeRecord, RequestRecord, RetainedRecord, ReverseRecord, TenantRecord, TokenRecord, WorkerRecord,
};

/// A layer whose rows refer upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Extents,
    Blocks,
    Reverse,
    Names,
    Tokens,
    Tenants,
    Nodes,
    Requests,
    Retained,
    Garbage,
    Workers,
    Damage,
}

impl Layer {
    const ALL: [Self; 12] = [
        Self::Extents,
        Self::Blocks,
        Self::Reverse,
        Self::Names,
        Self::Tokens,
        Self::Tenants,
        Self::Nodes,
        Self::Requests,
        Self::Retained,
        Self::Garbage,
        Self::Workers,
        Self::Damage,
    ];

    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Extents => keys::EXTENTS,
            Self::Blocks => keys::BLOCKS,
            Self::Reverse => keys::REVERSE,
            Self::Names => keys::NAMES,
            Self::Tokens => keys::TOKENS,
            Self::Tenants => keys::TENANTS,
            Self::Nodes => keys::NODES,
            Self::Requests => keys::REQUESTS,
            Self::Retained => keys::RETAINED,
            Self::Garbage => keys::GARBAGE,
            Self::Workers => keys::WORKERS,
            Self::Damage => keys::DAMAGE,
        }
    }
}

impl Check {
    /// Walks every layer whose rows refer upwards.
    pub(super) async fn bottom_up(&mut self) -> Result<(), MetadataError> {
        for layer in Layer::ALL {
            let mut walk = Walk::over(layer.prefix());
            while let Some(rows) = walk.next(self.engine()).await? {
                for row in &rows {
                    if let Err(problem) = self.reason(layer, row).await? {
                        self.report(problem).await?;
                    } else if layer == Layer::Blocks {
                        self.chunks_of(row).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a row has a reason to exist.
    async fn reason(&mut self, layer: Layer, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let nothing = Subject::default();
        match layer {
            Layer::Extents => self.extent(row).await,
            Layer::Blocks => self.block(row).await,
            Layer::Reverse => self.reverse(row).await,
            Layer::Names => self.name(row).await,
            Layer::Tokens => self.token(row).await,
            Layer::Tenants => {
                self.summary.tenants += 1;
                Ok(read::<TenantRecord>(row, &nothing).map(drop))
            }
            Layer::Nodes => Ok(read::<NodeRecord>(row, &nothing).map(drop)),
            Layer::Requests => Ok(read::<RequestRecord>(row, &nothing).map(drop)),
            Layer::Retained => self.retained(row).await,
            Layer::Garbage => Ok(garbage(row)),
            Layer::Workers => Ok(read::<WorkerRecord>(row, &nothing).map(drop)),
            Layer::Damage => self.damage(row).await,
        }
    }

    async fn extent(&mut self, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let Some((blob, index)) = keys::extent_of(&row.0) else { return Ok(Err(senseless(row))) };
        let subject = Subject { blob: Some(blob), ..Subject::default() };
        let record = match read::<ExtentRecord>(row, &subject) {
            Ok(record) => record,
            Err(damage) => return Ok(Err(damage)),
        };
        if self.owner(blob, Some(record.block)).await?.is_some() || !self.is_still(row).await? {
            return Ok(Ok(()));
        }
        let what = "drop the extent";
        Ok(Err(orphaned(row, subject, format!("the extent of block {index} belongs to no blob"), what)))
    }

    async fn block(&mut self, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let Some(id) = keys::block_of(&row.0) else { return Ok(Err(senseless(row))) };
        let record = match read::<BlockRecord>(row, &Subject::default()) {
            Ok(record) => record,
            Err(damage) => return Ok(Err(damage)),
        };
        let subject = Subject { blob: Some(record.blob), ..Subject::default() };
        let key = keys::extent(record.blob, record.index);
        let extent = find::<ExtentRecord>(self.engine(), &key).await?;
        match extent {
            Found::Record(extent) if extent.block == id => return Ok(Ok(())),
            Found::Damaged(_reported_in_its_layer) => return Ok(Ok(())),
            Found::Record(_) | Found::Nothing => {}
        }
        if !self.is_still(row).await? {
            return Ok(Ok(()));
        }
        if extent == Found::Nothing
            && record.sealed.is_some()
            && let Some(tenant) = self.owner(record.blob, Some(id)).await?
        {
            let problem = Problem::inconsistent(&subject, format!("block {} has no extent", record.index));
            return Ok(Err(problem.with_repair(Repair::PutExtent { tenant, block: id })));
        }
        Ok(Err(orphaned(row, subject, format!("block {id} is in no blob"), "drop the block's row")))
    }

    /// Every chunk of a block has its reverse row: a chunk without one looks like an orphan.
    async fn chunks_of(&mut self, row: &Row) -> Result<(), MetadataError> {
        let (Some(id), Ok(block)) = (keys::block_of(&row.0), read::<BlockRecord>(row, &Subject::default())) else {
            return Ok(());
        };
        for chunk in &block.chunks {
            let key = keys::reverse(chunk.node, chunk.chunk);
            let subject = Subject { blob: Some(block.blob), ..Subject::chunk(chunk.node, chunk.chunk) };
            let problem = match find::<ReverseRecord>(self.engine(), &key).await? {
                Found::Record(reverse) if reverse.block == id && reverse.blob == block.blob => continue,
                Found::Damaged(_reported_in_its_layer) => continue,
                Found::Record(_other) => {
                    Problem::inconsistent(&subject, "the reverse row of a chunk names another block")
                }
                Found::Nothing => {
                    let put = Repair::PutReverse { block: id, node: chunk.node, chunk: chunk.chunk };
                    Problem::inconsistent(&subject, "the reverse row of a chunk is missing").with_repair(put)
                }
            };
            if self.is_still(row).await? {
                self.report(problem).await?;
            }
        }
        Ok(())
    }

    async fn reverse(&mut self, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let Some((node, chunk)) = keys::reverse_of(&row.0) else { return Ok(Err(senseless(row))) };
        let subject = Subject::chunk(node, chunk);
        let record = match read::<ReverseRecord>(row, &subject) {
            Ok(record) => record,
            Err(damage) => return Ok(Err(damage)),
        };
        let block = find::<BlockRecord>(self.engine(), &keys::block(record.block)).await?;
        let is_lost = match block {
            Found::Record(block) if block.chunks.iter().any(|one| one.node == node && one.chunk == chunk) => {
                return Ok(Ok(()));
            }
            Found::Damaged(_reported_in_its_layer) => return Ok(Ok(())),
            Found::Record(_) => false,
            Found::Nothing => self.owner(record.blob, None).await?.is_some(),
        };
        if !self.is_still(row).await? {
            return Ok(Ok(()));
        }
        if is_lost {
            let subject = Subject { blob: Some(record.blob), ..subject };
            let detail = format!("block {} of a chunk is missing while its blob is there", record.block);
            return Ok(Err(Problem::inconsistent(&subject, detail)));
        }
        let detail = format!("chunk {chunk} of node {node} is in no block");
        Ok(Err(orphaned(row, subject, detail, "drop the reverse row; the chunk is an orphan then")))
    }

    /// A place in the order of deletion: its blob is deleted, and was at that moment.
    async fn retained(&self, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let Some((tenant, delete_ms, blob)) = keys::retained_of(&row.0) else { return Ok(Err(senseless(row))) };
        let subject = Subject::blob(&tenant, blob);
        if let Err(damage) = read::<RetainedRecord>(row, &subject) {
            return Ok(Err(damage));
        }
        let meant = match find::<DeletedRecord>(self.engine(), &keys::deleted(&tenant, blob)).await? {
            Found::Record(tombstone) => tombstone.delete_ms == delete_ms,
            Found::Damaged(_reported_in_its_layer) => true,
            Found::Nothing => false,
        };
        if meant || !self.is_still(row).await? {
            return Ok(Ok(()));
        }
        let detail = "an entry among the deleted blobs names none";
        Ok(Err(orphaned(row, subject, detail, "drop the entry")))
    }

    async fn name(&self, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let Some((tenant, blob)) = keys::name_of(&row.0) else { return Ok(Err(senseless(row))) };
        let subject = Subject::blob(&tenant, blob);
        if let Err(damage) = read::<NameRecord>(row, &subject) {
            return Ok(Err(damage));
        }
        let named = match find::<BlobRecord>(self.engine(), &keys::blob(&tenant, blob)).await? {
            Found::Record(record) => keys::name(&tenant, &record.description.display_name, blob) == row.0,
            Found::Damaged(_) => true,
            Found::Nothing => false,
        };
        if named || !self.is_still(row).await? {
            return Ok(Ok(()));
        }
        Ok(Err(orphaned(row, subject, "an entry of the name index names no blob", "drop the entry")))
    }

    async fn token(&self, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let record = match read::<TokenRecord>(row, &Subject::default()) {
            Ok(record) => record,
            Err(damage) => return Ok(Err(damage)),
        };
        let Some(key_id) = keys::token_of(&row.0) else { return Ok(Err(senseless(row))) };
        let (subject, holder) = match record.holder {
            Holder::Admin | Holder::Join(_) => return Ok(Ok(())),
            Holder::Tenant(tenant) => {
                let stray = match find::<TenantRecord>(self.engine(), &keys::tenant(&tenant)).await? {
                    Found::Record(holder) => !holder.tokens().any(|own| own == key_id),
                    Found::Damaged(_) => false,
                    Found::Nothing => true,
                };
                (Subject { tenant: Some(tenant), ..Subject::default() }, stray)
            }
            Holder::Node(node) => {
                let holder = find::<NodeRecord>(self.engine(), &keys::node(node)).await?;
                (Subject { node: Some(node), ..Subject::default() }, matches!(holder, Found::Nothing))
            }
        };
        let gone = holder && self.is_still(row).await?;
        let detail = "a token's holder does not exist or does not know it";
        Ok(if gone { Err(orphaned(row, subject, detail, "drop the token's row")) } else { Ok(()) })
    }

    /// A node is told only of chunks that are referred to, so nobody would ever take back what a row says of another.
    async fn damage(&self, row: &Row) -> Result<Result<(), Problem>, MetadataError> {
        let Some((node, chunk)) = keys::damage_of(&row.0) else { return Ok(Err(senseless(row))) };
        let subject = Subject::chunk(node, chunk);
        if let Err(damage) = read::<DamageRecord>(row, &subject) {
            return Ok(Err(damage));
        }
        let referred = self.engine().get(&keys::reverse(node, chunk)).await?.is_some();
        if referred || !self.is_still(row).await? {
            return Ok(Ok(()));
        }
        let detail = "a row tells of damage to a chunk that nothing refers to";
        Ok(Err(orphaned(row, subject, detail, "drop the row")))
    }

    /// Whose a blob or upload is that may own a block. What cannot be read owns its blocks, too.
    pub(super) async fn owner(
        &mut self,
        blob: BlobId,
        block: Option<BlockId>,
    ) -> Result<Option<TenantId>, MetadataError> {
        if let Some((known, tenant)) = &self.owner
            && *known == blob
        {
            return Ok(Some(tenant.clone()));
        }
        for _look in 0..LOOKS {
            if let Some(tenant) = self.look_for_owner(blob, block).await? {
                self.owner = Some((blob, tenant.clone()));
                return Ok(Some(tenant));
            }
        }
        Ok(None)
    }

    async fn look_for_owner(&self, blob: BlobId, block: Option<BlockId>) -> Result<Option<TenantId>, MetadataError> {
        if let Some(block) = block
            && let Found::Record(block) = find::<BlockRecord>(self.engine(), &keys::block(block)).await?
            && let Some(tenant) = block.tenant
            && owner::holds(self.engine(), &tenant, blob).await?
        {
            return Ok(Some(tenant));
        }
        owner::search(self.engine(), blob).await
    }

    /// Whether a row is still as it was read.
    async fn is_still(&self, row: &Row) -> Result<bool, MetadataError> {
        Ok(self.engine().get(&row.0).await?.is_some_and(|now| now == row.1))
    }
}

/// What a row of the queue is about, the collector finds out; here it only has to be one.
fn garbage(row: &Row) -> Result<(), Problem> {
    let nothing = Subject::default();
    match keys::garbage_of(&row.0) {
        Some((_due, Garbage::Blocks(..))) => read::<GarbageRecord>(row, &nothing).map(drop),
        Some((_due, Garbage::Chunk(_))) => read::<GarbageChunkRecord>(row, &nothing).map(drop),
        None => Err(senseless(row)),
    }
}

fn orphaned(row: &Row, subject: Subject, detail: impl Into<String>, what: &'static str) -> Problem {
    let drop = Repair::Drop { what, key: row.0.to_vec(), value: row.1.to_vec() };
    Problem::new(FindingKind::RowOrphaned, subject, detail).with_repair(drop)
}
