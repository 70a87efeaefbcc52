//! Blocks, and where their chunks are.

use proto::capability::ReadClaims;
use proto::checksum::Sha256;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId, TenantId};

use super::Record;

/// Which block is at an index of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentRecord {
    /// The block.
    pub block: BlockId,
    /// Its size: while its upload is open, the most it may have.
    pub size_bytes: u64,
}

/// Layout of [`ExtentRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExtentRaw {
    #[prost(bytes = "vec", tag = "1")]
    block: Vec<u8>,
    #[prost(uint64, tag = "2")]
    size_bytes: u64,
}

impl Record for ExtentRecord {
    type Raw = ExtentRaw;
    const NAME: &'static str = "extent";

    fn to_raw(&self) -> ExtentRaw {
        ExtentRaw { block: self.block.as_bytes().to_vec(), size_bytes: self.size_bytes }
    }

    fn from_raw(raw: ExtentRaw) -> Option<Self> {
        Some(Self { block: BlockId::try_from(raw.block.as_slice()).ok()?, size_bytes: raw.size_bytes })
    }
}

/// How a block is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Whole copies.
    Replicated {
        /// How many.
        copies: u32,
    },
}

impl Encoding {
    /// Number of chunks of a block.
    pub fn chunk_count(self) -> u32 {
        match self {
            Self::Replicated { copies } => copies,
        }
    }
}

/// What is known of a block once it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSums {
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256, as its nodes computed it.
    pub sha256: Sha256,
}

/// A chunk of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRecord {
    /// The chunk.
    pub chunk: ChunkId,
    /// The node that holds it.
    pub node: NodeId,
    /// The metadata's epoch when it was planned.
    pub epoch: u64,
    /// The metadata's sequence when it was planned.
    pub sequence: u64,
    /// What the node's receipt said; `None` while there is no receipt.
    pub sums: Option<ReadClaims>,
}

/// A block: open until every chunk has its receipt, then sealed and never changed but by a new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRecord {
    /// Whose that is; `None` in a record that an older version wrote. Nothing else leads from a chunk to its tenant.
    pub tenant: Option<TenantId>,
    /// The blob or upload it belongs to.
    pub blob: BlobId,
    /// Its index within the blob.
    pub index: u64,
    /// How it is held.
    pub encoding: Encoding,
    /// Grows with every change of its chunks (I12).
    pub generation: u64,
    /// Set when it is sealed.
    pub sealed: Option<BlockSums>,
    /// Its chunks, by shard.
    pub chunks: Vec<ChunkRecord>,
}

impl BlockRecord {
    /// Whether one of its chunks is this one, at this node.
    pub fn holds(&self, node: NodeId, chunk: ChunkId) -> bool {
        self.chunks.iter().any(|one| one.node == node && one.chunk == chunk)
    }
}

/// Layout of [`ChunkRecord`].
#[derive(Clone, PartialEq, prost::Message)]
struct ChunkRaw {
    #[prost(bytes = "vec", tag = "1")]
    chunk: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    node: Vec<u8>,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(uint64, tag = "4")]
    sequence: u64,
    #[prost(message, optional, tag = "5")]
    sums: Option<SumsRaw>,
}

/// Layout of [`BlockSums`] and of what a receipt said.
#[derive(Clone, PartialEq, prost::Message)]
struct SumsRaw {
    #[prost(uint64, tag = "1")]
    size_bytes: u64,
    #[prost(bytes = "vec", tag = "2")]
    sha256: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pieces_sha256: Vec<u8>,
}

/// Layout of [`BlockRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlockRaw {
    #[prost(bytes = "vec", tag = "1")]
    blob: Vec<u8>,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint32, tag = "3")]
    copies: u32,
    #[prost(uint64, tag = "4")]
    generation: u64,
    #[prost(message, optional, tag = "5")]
    sealed: Option<SumsRaw>,
    #[prost(message, repeated, tag = "6")]
    chunks: Vec<ChunkRaw>,
    #[prost(string, optional, tag = "7")]
    tenant: Option<String>,
}

impl ChunkRecord {
    fn to_raw(self) -> ChunkRaw {
        ChunkRaw {
            chunk: self.chunk.as_bytes().to_vec(),
            node: self.node.as_bytes().to_vec(),
            epoch: self.epoch,
            sequence: self.sequence,
            sums: self.sums.map(|sums| SumsRaw {
                size_bytes: sums.size_bytes,
                sha256: sums.sha256.as_bytes().to_vec(),
                pieces_sha256: sums.pieces_sha256.as_bytes().to_vec(),
            }),
        }
    }

    fn from_raw(raw: &ChunkRaw) -> Option<Self> {
        let sums = match &raw.sums {
            Some(sums) => Some(ReadClaims {
                size_bytes: sums.size_bytes,
                sha256: Sha256::try_from(sums.sha256.as_slice()).ok()?,
                pieces_sha256: Sha256::try_from(sums.pieces_sha256.as_slice()).ok()?,
            }),
            None => None,
        };
        Some(Self {
            chunk: ChunkId::try_from(raw.chunk.as_slice()).ok()?,
            node: NodeId::try_from(raw.node.as_slice()).ok()?,
            epoch: raw.epoch,
            sequence: raw.sequence,
            sums,
        })
    }
}

impl Record for BlockRecord {
    type Raw = BlockRaw;
    const NAME: &'static str = "block";

    fn to_raw(&self) -> BlockRaw {
        let Encoding::Replicated { copies } = self.encoding;
        let sealed = self.sealed.map(|sums| SumsRaw {
            size_bytes: sums.size_bytes,
            sha256: sums.sha256.as_bytes().to_vec(),
            pieces_sha256: Vec::new(),
        });
        BlockRaw {
            blob: self.blob.as_bytes().to_vec(),
            index: self.index,
            copies,
            generation: self.generation,
            sealed,
            chunks: self.chunks.iter().map(|chunk| chunk.to_raw()).collect(),
            tenant: self.tenant.as_ref().map(TenantId::to_string),
        }
    }

    fn from_raw(raw: BlockRaw) -> Option<Self> {
        let chunks: Vec<_> = raw.chunks.iter().map(ChunkRecord::from_raw).collect::<Option<_>>()?;
        let sealed = match &raw.sealed {
            Some(sums) => {
                Some(BlockSums { size_bytes: sums.size_bytes, sha256: Sha256::try_from(sums.sha256.as_slice()).ok()? })
            }
            None => None,
        };
        let tenant = match &raw.tenant {
            Some(tenant) => Some(tenant.parse().ok()?),
            None => None,
        };
        let encoding = Encoding::Replicated { copies: raw.copies };
        let complete = usize::try_from(encoding.chunk_count()).ok()? == chunks.len() && !chunks.is_empty();
        complete.then_some(Self {
            tenant,
            blob: BlobId::try_from(raw.blob.as_slice()).ok()?,
            index: raw.index,
            encoding,
            generation: raw.generation,
            sealed,
            chunks,
        })
    }
}

/// Finds a chunk's block from the node that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReverseRecord {
    /// Its block.
    pub block: BlockId,
    /// The blob or upload.
    pub blob: BlobId,
    /// Which shard, from 0.
    pub shard_index: u32,
    /// The block's generation when it was planned.
    pub generation: u64,
    /// The metadata's epoch when it was planned.
    pub epoch: u64,
    /// The metadata's sequence when it was planned.
    pub sequence: u64,
}

/// Layout of [`ReverseRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReverseRaw {
    #[prost(bytes = "vec", tag = "1")]
    block: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    blob: Vec<u8>,
    #[prost(uint32, tag = "3")]
    shard_index: u32,
    #[prost(uint64, tag = "4")]
    generation: u64,
    #[prost(uint64, tag = "5")]
    epoch: u64,
    #[prost(uint64, tag = "6")]
    sequence: u64,
}

impl Record for ReverseRecord {
    type Raw = ReverseRaw;
    const NAME: &'static str = "reverse";

    fn to_raw(&self) -> ReverseRaw {
        ReverseRaw {
            block: self.block.as_bytes().to_vec(),
            blob: self.blob.as_bytes().to_vec(),
            shard_index: self.shard_index,
            generation: self.generation,
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }

    fn from_raw(raw: ReverseRaw) -> Option<Self> {
        Some(Self {
            block: BlockId::try_from(raw.block.as_slice()).ok()?,
            blob: BlobId::try_from(raw.blob.as_slice()).ok()?,
            shard_index: raw.shard_index,
            generation: raw.generation,
            epoch: raw.epoch,
            sequence: raw.sequence,
        })
    }
}
