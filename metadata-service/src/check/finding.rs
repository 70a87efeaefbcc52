//! What a check can find, and what it counts.

use proto::ids::{BlobId, ChunkId, NodeId, TenantId};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// A committed blob's bytes are gone or damaged, and no good copy is left.
    DataLost,
    /// A checksum file is missing, damaged or stale over sound bytes.
    ChecksumFileBad,
    /// A chunk that nothing refers to.
    OrphanChunk,
    /// A file in the chunk folder that no chunk service wrote.
    ForeignFile,
    /// A tenant's usage is not the sum of its rows.
    UsageWrong,
    /// A record that does not verify.
    RecordCorrupt,
    /// A row that refers to a row that is not there, or contradicts it.
    RowInconsistent,
    /// A row that nothing refers to.
    RowOrphaned,
    /// A chunk written after the export from which the metadata were restored.
    ChunkOfLostTime,
    /// A node could not be asked.
    NodeUnreachable,
    /// A tenant was written to all the time, so that its usage could not be compared with its rows.
    UsageNotCounted,
}

/// What it is about, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The tenant.
    pub tenant: Option<TenantId>,
    /// The blob or upload.
    pub blob: Option<BlobId>,
    /// The chunk.
    pub chunk: Option<ChunkId>,
    /// The node.
    pub node: Option<NodeId>,
}

impl Subject {
    /// A blob of a tenant.
    pub(super) fn blob(tenant: &TenantId, blob: BlobId) -> Self {
        Self { tenant: Some(tenant.clone()), blob: Some(blob), ..Self::default() }
    }

    /// A chunk at a node.
    pub(super) fn chunk(node: NodeId, chunk: ChunkId) -> Self {
        Self { node: Some(node), chunk: Some(chunk), ..Self::default() }
    }
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The same in words.
    pub detail: String,
    /// What it is about.
    pub subject: Subject,
    /// What a repair would do or has done; `None` when nothing can be done without guessing.
    pub repair: Option<&'static str>,
    /// It was repaired.
    pub repaired: bool,
}

/// What a check looked at, and what it found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tenants.
    pub tenants: u64,
    /// Committed blobs.
    pub blobs: u64,
    /// References of committed blobs to chunks.
    pub references: u64,
    /// Chunks whose bytes were read.
    pub verified_chunks: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// Chunks that have files.
    pub files: u64,
    /// Findings in all.
    pub findings: u64,
    /// Findings that were repaired.
    pub repaired: u64,
    /// Blobs of which data are lost.
    pub lost_blobs: u64,
}
