//! What is left for the collector.

use proto::capability::ChunkBinding;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId, TenantId};

use super::Record;

/// Blocks to collect; why, and of which blob, the row's key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarbageRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// First block that goes; all from here on do.
    pub first_block: u64,
}

/// Layout of [`GarbageRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct GarbageRaw {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(uint64, tag = "2")]
    first_block: u64,
}

impl Record for GarbageRecord {
    type Raw = GarbageRaw;
    const NAME: &'static str = "garbage";

    fn to_raw(&self) -> GarbageRaw {
        GarbageRaw { tenant: self.tenant.to_string(), first_block: self.first_block }
    }

    fn from_raw(raw: GarbageRaw) -> Option<Self> {
        Some(Self { tenant: raw.tenant.parse().ok()?, first_block: raw.first_block })
    }
}

/// A chunk to delete, which the row's key names: everything that the permission to delete it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarbageChunkRecord {
    /// The node that may hold it.
    pub node: NodeId,
    /// Whose it was; `None` when no row told.
    pub tenant: Option<TenantId>,
    /// Its block.
    pub block: BlockId,
    /// The blob or upload.
    pub blob: BlobId,
    /// Which shard, from 0.
    pub shard_index: u32,
    /// Number of shards or copies.
    pub shard_count: u32,
    /// The block's generation.
    pub generation: u64,
    /// The metadata's epoch when it was planned.
    pub epoch: u64,
    /// The metadata's sequence when it was planned.
    pub sequence: u64,
}

impl GarbageChunkRecord {
    /// A chunk with this place, at a node.
    pub fn new(node: NodeId, tenant: Option<TenantId>, binding: &ChunkBinding) -> Self {
        let ChunkBinding { chunk: _, block, blob, shard_index, shard_count, generation, epoch, sequence } = *binding;
        Self { node, tenant, block, blob, shard_index, shard_count, generation, epoch, sequence }
    }

    /// The chunk's place.
    pub fn binding(&self, chunk: ChunkId) -> ChunkBinding {
        let Self { block, blob, shard_index, shard_count, generation, epoch, sequence, .. } = *self;
        ChunkBinding { chunk, block, blob, shard_index, shard_count, generation, epoch, sequence }
    }
}

/// Layout of [`GarbageChunkRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct GarbageChunkRaw {
    #[prost(bytes = "vec", tag = "1")]
    node: Vec<u8>,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(bytes = "vec", tag = "3")]
    block: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    blob: Vec<u8>,
    #[prost(uint32, tag = "5")]
    shard_index: u32,
    #[prost(uint32, tag = "6")]
    shard_count: u32,
    #[prost(uint64, tag = "7")]
    generation: u64,
    #[prost(uint64, tag = "8")]
    epoch: u64,
    #[prost(uint64, tag = "9")]
    sequence: u64,
}

impl Record for GarbageChunkRecord {
    type Raw = GarbageChunkRaw;
    const NAME: &'static str = "garbage chunk";

    fn to_raw(&self) -> GarbageChunkRaw {
        GarbageChunkRaw {
            node: self.node.as_bytes().to_vec(),
            tenant: self.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
            block: self.block.as_bytes().to_vec(),
            blob: self.blob.as_bytes().to_vec(),
            shard_index: self.shard_index,
            shard_count: self.shard_count,
            generation: self.generation,
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }

    fn from_raw(raw: GarbageChunkRaw) -> Option<Self> {
        let tenant = Some(raw.tenant).filter(|tenant| !tenant.is_empty());
        Some(Self {
            node: NodeId::try_from(raw.node.as_slice()).ok()?,
            tenant: tenant.map(|tenant| tenant.parse()).transpose().ok()?,
            block: BlockId::try_from(raw.block.as_slice()).ok()?,
            blob: BlobId::try_from(raw.blob.as_slice()).ok()?,
            shard_index: raw.shard_index,
            shard_count: raw.shard_count,
            generation: raw.generation,
            epoch: raw.epoch,
            sequence: raw.sequence,
        })
    }
}
