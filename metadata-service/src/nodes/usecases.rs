//! Joining, moving, and being told what the metadata holds of a chunk.

use proto::capability::ReadClaims;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId};
use proto::token::TokenKeyId;

use crate::coordinator::{Context, Outcome};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, Engine, View};
use crate::store::keys;
use crate::store::records::{BlockRecord, Holder, NodeRecord, ReverseRecord, TokenRecord};
use crate::store::rows::{BatchExt as _, load, read};
use crate::tokens;

/// Makes a chunk service a node.
#[derive(Debug, Clone)]
pub struct RegisterNode {
    /// The id that it drew.
    pub node: NodeId,
    /// Where clients reach it.
    pub endpoint: String,
    /// What fails together with it; empty for the node alone.
    pub failure_domain: String,
}

/// Binds the join token to the node, and writes the node's row and its token's. A repeat for the same node gets the same
/// answer, and brings the endpoint up to date.
///
/// # Errors
/// [`MetadataError::ScopeMissing`] when another node used the join token first.
pub fn register(
    view: &dyn View,
    context: &Context<'_>,
    join: TokenKeyId,
    command: &RegisterNode,
) -> Outcome<NodeRecord> {
    let key = keys::token(join);
    let token: TokenRecord = read(view, &key)?.ok_or(MetadataError::TokenInvalid)?;
    match token.holder {
        Holder::Join(None) => {}
        Holder::Join(Some(first)) if first == command.node => {}
        Holder::Join(Some(_other)) => {
            let why = "another node used this join token first, and it is good for one; make a new one";
            return Err(MetadataError::ScopeMissing(why));
        }
        Holder::Admin | Holder::Tenant(_) | Holder::Node(_) => return Err(MetadataError::TokenInvalid),
    }
    let known: Option<NodeRecord> = read(view, &keys::node(command.node))?;
    let known = known.unwrap_or_else(|| NodeRecord { create_ms: context.now_ms, ..NodeRecord::default() });
    let (endpoint, failure_domain) = (command.endpoint.clone(), command.failure_domain.clone());
    let record = NodeRecord { endpoint, failure_domain, ..known };
    let own = tokens::of_node(context.secret, command.node);
    let mut batch = Batch::default();
    batch.set(key, &TokenRecord { holder: Holder::Join(Some(command.node)), ..token });
    batch.set(keys::token(own.key_id), &tokens::record(&own, Holder::Node(command.node)));
    batch.set(keys::node(command.node), &record);
    Ok((Decision::adds(batch), record))
}

/// Notes that a node is reached elsewhere now.
///
/// # Errors
/// [`MetadataError::Corrupt`] when the node has no row.
pub fn move_to(view: &dyn View, node: NodeId, endpoint: &str) -> Outcome<NodeRecord> {
    let key = keys::node(node);
    let known: NodeRecord = read(view, &key)?.ok_or_else(|| MetadataError::missing("node"))?;
    let record = NodeRecord { endpoint: endpoint.to_owned(), ..known };
    let mut batch = Batch::default();
    batch.set(key, &record);
    Ok((Decision::frees(batch), record))
}

/// What the metadata holds of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
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
    /// The metadata's epoch when the chunk was planned.
    pub epoch: u64,
    /// The metadata's sequence when the chunk was planned.
    pub sequence: u64,
    /// What its receipt said; `None` while no receipt is known.
    pub sums: Option<ReadClaims>,
}

/// Looks up one of a node's own chunks; `None` when nothing refers to it.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub async fn describe_chunk(
    engine: &dyn Engine,
    node: NodeId,
    chunk: ChunkId,
) -> Result<Option<Described>, MetadataError> {
    let Some(reverse) = load::<ReverseRecord>(engine, &keys::reverse(node, chunk)).await? else { return Ok(None) };
    let Some(block) = load::<BlockRecord>(engine, &keys::block(reverse.block)).await? else { return Ok(None) };
    let Some(planned) = block.chunks.iter().find(|one| one.chunk == chunk && one.node == node) else {
        return Ok(None);
    };
    let ReverseRecord { block: id, blob, shard_index, generation, epoch, sequence } = reverse;
    let shard_count = block.encoding.chunk_count();
    let sums = planned.sums;
    Ok(Some(Described { block: id, blob, shard_index, shard_count, generation, epoch, sequence, sums }))
}
