//! What the metadata service itself asks of chunk services: that one chunk goes, how one is, what there is.
//!
//! A seam: the service implements it with a connection to each node, tests with nodes in memory. A deletion may be
//! repeated at any time, since no chunk id is ever used again.

use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::Sha256;
use proto::ids::{ChunkId, NodeId, TenantId};

/// A chunk at a node that has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// The node that may hold it.
    pub node: NodeId,
    /// Whose it was; `None` when no row told.
    pub tenant: Option<TenantId>,
    /// The chunk and its place: what the permission to delete it says.
    pub binding: ChunkBinding,
}

/// How an attempt to delete a chunk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// The node said, durably, that it has nothing of the chunk: deleted now, deleted before, or never written.
    Gone,
    /// The node answered, but could not delete this chunk; others may go. In words.
    Refused(String),
    /// The node did not answer, is not known, or deletes nothing at the moment. In words. Whether the chunk is gone is
    /// not known.
    Unavailable(String),
}

/// Why a node did not tell what it was asked. Nothing may be concluded from it about any chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It said no to this chunk, and mostly will say so again; others it may not refuse. In words.
    #[error("the node refused: {0}")]
    Refused(String),
    /// It did not answer, is not known, or cannot tell at the moment; asking again later may help. In words.
    #[error("the node cannot be asked: {0}")]
    Unavailable(String),
}

/// How a chunk was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Bytes and checksum file match what the metadata holds.
    Sound,
    /// The bytes match; the checksum file did not, and was written again.
    Rebuilt,
    /// The bytes match; the checksum file is missing or damaged.
    ChecksumFileBad,
    /// The bytes match; a later version of the program wrote the checksum file, which is left as it is.
    ChecksumFileTooNew,
    /// The bytes do not match.
    Corrupt,
    /// There are no bytes.
    Missing,
    /// The disk does not return the bytes.
    Unreadable,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How the chunk is.
    pub condition: Condition,
    /// What exactly was found, for people.
    pub detail: String,
}

/// What a checksum file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumFile {
    /// Which chunk it was written for, and its place.
    pub binding: ChunkBinding,
    /// Size of the bytes.
    pub size_bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
}

/// The files of one chunk on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFiles {
    /// The chunk.
    pub chunk: ChunkId,
    /// Size of its bytes; `None` when there are none.
    pub data_bytes: Option<u64>,
    /// It has a checksum file.
    pub has_checksum_file: bool,
    /// What that says; `None` when it was not asked for or does not parse.
    pub checksum_file: Option<ChecksumFile>,
}

/// Some of what a node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkPage {
    /// Chunks that have files.
    pub chunks: Vec<ChunkFiles>,
    /// Names in the folder that the chunk service did not write.
    pub foreign_names: Vec<String>,
}

/// All that a node holds, in pages. It ends without an error exactly when the list is complete.
pub type ChunkPages = BoxStream<'static, Result<ChunkPage, NodeError>>;

/// Reaches chunk services.
#[async_trait]
pub trait ChunkNodes: fmt::Debug + Send + Sync {
    /// Has a node delete a chunk: mints the permission, asks once, and returns within a bounded time.
    async fn delete(&self, chunk: &Condemned) -> Deletion;

    /// Has a node read a whole chunk and hold it against what the metadata says; `repair` writes the checksum file again
    /// where it is bad over sound bytes. Returns within a bounded time.
    ///
    /// # Errors
    /// [`NodeError`].
    async fn verify(
        &self,
        node: NodeId,
        place: ChunkBinding,
        claims: ReadClaims,
        repair: bool,
    ) -> Result<Verdict, NodeError>;

    /// Lists the chunks that have files, in no order, each once. Nothing is asked before the first page is; each page
    /// comes within a bounded time. Must be called within a runtime.
    fn list(&self, node: NodeId, with_checksum_files: bool) -> ChunkPages;
}
