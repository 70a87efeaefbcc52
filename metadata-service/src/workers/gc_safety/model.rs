//! What the schedule knows to be true: which chunks are on the nodes, what became of every blob, who may read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::ids::{BlobId, ChunkId, NodeId};
use tokio::time::Instant;

use crate::coordinator::PlannedBlock;

/// A chunk at a node.
pub(super) type At = (NodeId, ChunkId);

/// What became of an upload or blob, by the answers so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    Committed,
    Deleted,
    Over,
}

/// A block as it was planned.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) planned: PlannedBlock,
    pub(super) at: At,
    /// Until when its writer's permission lasts, by both clocks.
    pub(super) write_until: (u64, Instant),
    pub(super) written: bool,
}

/// An upload or blob.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) blob: BlobId,
    pub(super) declared: Option<u64>,
    pub(super) blocks: BTreeMap<u64, Block>,
    pub(super) fate: Fate,
    /// Of an open upload, until when it can be committed, by the wall clock.
    pub(super) lease_ms: u64,
    /// Of a blob, its size.
    pub(super) size_bytes: u64,
}

impl Known {
    pub(super) fn block_count(&self) -> u64 {
        self.size_bytes.div_ceil(super::world::BLOCK)
    }

    /// Whether losing this block's chunk would lose something.
    pub(super) fn needs(&self, index: u64, now_ms: u64) -> bool {
        match self.fate {
            Fate::Committed => index < self.block_count(),
            Fate::Open => now_ms < self.lease_ms,
            Fate::Deleted | Fate::Over => false,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) files: BTreeSet<At>,
    pub(super) known: Vec<Known>,
    pub(super) readers: Vec<(At, Instant)>,
    pub(super) deletions: u64,
    pub(super) violations: Vec<String>,
}

impl Model {
    pub(super) fn fate_of(&self, at: usize) -> (BlobId, Fate) {
        let known = &self.known[at];
        (known.blob, known.fate)
    }

    /// A node deletes a chunk, now.
    pub(super) fn delete(&mut self, at: At, now_ms: u64) {
        if !self.files.remove(&at) {
            return;
        }
        self.deletions += 1;
        let owner = self.known.iter().find_map(|known| {
            let found = known.blocks.iter().find(|(_, block)| block.at == at);
            found.map(|(index, _)| (known, *index))
        });
        match owner {
            Some((known, index)) if known.needs(index, now_ms) => {
                let violation = format!("block {index} of {} was deleted while it was {:?}", known.blob, known.fate);
                self.violations.push(violation);
            }
            Some(_garbage) => {}
            None => self.violations.push(format!("{at:?} was deleted and never planned")),
        }
        if self.readers.iter().any(|(read, until)| *read == at && Instant::now() < *until) {
            self.violations.push(format!("{at:?} was deleted while a reader had permission"));
        }
    }

    /// A reader got permission for a while.
    pub(super) fn permit(&mut self, at: At, life: Duration) {
        let now = Instant::now();
        self.readers.retain(|(_, until)| now < *until);
        self.readers.push((at, now + life));
    }

    /// The process ended after its clock had jumped, and cannot know that any more: what was permitted before is not
    /// protected by elapsed time, only by what the wall clock says.
    pub(super) fn forget_permissions(&mut self) {
        self.readers.clear();
        let now = Instant::now();
        for block in self.known.iter_mut().flat_map(|known| known.blocks.values_mut()) {
            block.write_until.1 = now;
        }
    }
}
