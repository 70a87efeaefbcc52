//! What the collector asks of chunk services: that one chunk goes.
//!
//! A seam: the service implements it with a connection to each node, tests with nodes in memory. A deletion may be
//! repeated at any time, since no chunk id is ever used again.

use std::fmt;

use async_trait::async_trait;
use proto::capability::ChunkBinding;
use proto::ids::{NodeId, TenantId};

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

/// Reaches chunk services.
#[async_trait]
pub trait ChunkNodes: fmt::Debug + Send + Sync {
    /// Has a node delete a chunk: mints the permission, asks once, and returns within a bounded time.
    async fn delete(&self, chunk: &Condemned) -> Deletion;
}
