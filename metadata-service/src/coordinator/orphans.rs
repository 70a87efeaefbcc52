//! Chunks that a sweep found on a node and that nothing refers to: into the garbage queue.
//!
//! The sweep looked at a metadata that goes on; this looks again in the commit's turn, and the collector once more before
//! it asks the node. That nothing refers to a chunk holds from then on: references are written for new chunks only.

use proto::capability::ChunkBinding;
use proto::ids::{ChunkId, NodeId};
use proto::limits::BATCH_WRITES_MAX;

use super::{Context, Outcome};
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::GarbageChunkRecord;
use crate::store::rows::BatchExt as _;

/// Chunks that one commit takes.
pub const CHUNKS_PER_COMMIT: usize = 64;

const _: () = assert!(CHUNKS_PER_COMMIT <= BATCH_WRITES_MAX, "a row for each fits into one batch");

/// Makes those of a node's chunks garbage that nothing refers to, at most [`CHUNKS_PER_COMMIT`], due when the grace is
/// over. Returns how many.
///
/// # Errors
/// [`MetadataError`](crate::error::MetadataError) when a row cannot be read.
pub fn condemn(view: &dyn View, context: &Context<'_>, node: NodeId, chunks: &[ChunkId]) -> Outcome<u64> {
    let not_before_ms = context.tuning.garbage_due_ms(context.now_ms);
    let (mut batch, mut condemned) = (Batch::default(), 0);
    for chunk in chunks.iter().copied() {
        if view.get(&keys::reverse(node, chunk))?.is_some() {
            continue;
        }
        let binding = ChunkBinding { chunk, ..ChunkBinding::none() };
        batch.set(keys::garbage_chunk(not_before_ms, chunk), &GarbageChunkRecord::new(node, None, &binding));
        condemned += 1;
    }
    Ok((Decision::frees(batch), condemned))
}
