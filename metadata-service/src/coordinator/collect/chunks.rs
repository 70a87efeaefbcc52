//! Single chunks: the last look before a node is asked, and the end of a row.

use proto::ids::{BlockId, ChunkId, NodeId};
use proto::limits::BATCH_WRITES_MAX;

use crate::coordinator::{Context, Outcome};
use crate::error::MetadataError;
use crate::nodes::Condemned;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::{BlockRecord, GarbageChunkRecord};
use crate::store::rows::read;

/// Chunks that one commit looks at.
pub const CHUNKS_PER_LOOK: usize = 64;

const _: () = assert!(CHUNKS_PER_LOOK <= BATCH_WRITES_MAX, "each of their rows may go in one batch");

/// A chunk's garbage row: from when on, and which chunk.
pub type ChunkRow = (u64, ChunkId);

/// Chunks of which a commit said that nothing refers to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unreferenced {
    /// The chunks, with their rows.
    pub chunks: Vec<(ChunkRow, Condemned)>,
    /// Rows that were dropped since something refers to their chunk: it is no garbage.
    pub referenced: u64,
    /// Chunks that their block's row lists while the row that leads back from them is missing. Their rows stay.
    pub contradicted: Vec<ChunkId>,
}

/// Looks again, in the commit's turn, that nothing refers to these chunks, at most [`CHUNKS_PER_LOOK`]. That holds from
/// then on: references are written for new chunks only, and no chunk id is used twice. Rows that are gone or not due are
/// passed over.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub fn unreferenced(view: &dyn View, context: &Context<'_>, rows: &[ChunkRow]) -> Outcome<Unreferenced> {
    let (mut batch, mut found) = (Batch::default(), Unreferenced::default());
    for row @ &(not_before_ms, chunk) in rows {
        let key = keys::garbage_chunk(not_before_ms, chunk);
        let Some(record) = read::<GarbageChunkRecord>(view, &key)? else { continue };
        if not_before_ms > context.now_ms {
            continue;
        }
        if view.get(&keys::reverse(record.node, chunk))?.is_some() && !seeded!(LateLookSkipped) {
            batch.delete(key);
            found.referenced += 1;
            continue;
        }
        if lists(view, record.block, record.node, chunk)? {
            found.contradicted.push(chunk);
            continue;
        }
        let condemned = Condemned { node: record.node, binding: record.binding(chunk), tenant: record.tenant };
        found.chunks.push((*row, condemned));
    }
    Ok((Decision::frees(batch), found))
}

/// Whether the block's row, if there is one, lists the chunk: a lost reverse row alone makes no garbage.
fn lists(view: &dyn View, block: BlockId, node: NodeId, chunk: ChunkId) -> Result<bool, MetadataError> {
    let block: Option<BlockRecord> = read(view, &keys::block(block))?;
    Ok(block.is_some_and(|block| block.holds(node, chunk)))
}

/// Drops the rows of chunks, at most [`CHUNKS_PER_LOOK`], that their nodes no longer have.
pub fn gone(rows: &[ChunkRow]) -> Decision {
    let mut batch = Batch::default();
    for (not_before_ms, chunk) in rows {
        batch.delete(keys::garbage_chunk(*not_before_ms, *chunk));
    }
    Decision::frees(batch)
}
