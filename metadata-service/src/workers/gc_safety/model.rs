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
    /// Committed in a time that an import lost: nobody sees it, but it was acknowledged.
    Lost,
    /// An import brought its upload back, for which nobody has any use.
    Forgotten,
}

impl Fate {
    /// What an import makes of it, by what the export says; `None` for what that does not know.
    pub(super) fn imported(self, exported: Option<Self>) -> Self {
        match (exported, self) {
            (Some(Self::Open) | None, Self::Committed) => Self::Lost,
            (Some(Self::Open), Self::Deleted | Self::Over) => Self::Forgotten,
            (Some(back @ (Self::Committed | Self::Deleted | Self::Over)), _) => back,
            (None, Self::Open | Self::Deleted) => Self::Over,
            (Some(_) | None, stays) => stays,
        }
    }
}

/// A block as it was planned.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) planned: PlannedBlock,
    pub(super) at: At,
    /// Until when its writer's permission lasts, by both clocks.
    pub(super) write_until: (u64, Instant),
    pub(super) written: bool,
    /// It was deleted, rightly, before an import brought back what needs it.
    pub(super) gone: bool,
}

/// When a chunk was planned, as its checksum file says: epoch and sequence.
pub(super) type Planned = (u64, u64);

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
            Fate::Committed | Fate::Lost => index < self.block_count(),
            Fate::Open => now_ms < self.lease_ms,
            Fate::Deleted | Fate::Over | Fate::Forgotten => false,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) files: BTreeSet<At>,
    pub(super) known: Vec<Known>,
    /// Files that nobody ever needs, some without a checksum file.
    pub(super) litter: BTreeMap<At, Option<Planned>>,
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
        if self.litter.remove(&at).is_some() {
            return;
        }
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

    /// When a file's chunk was planned; `None` without a checksum file.
    pub(super) fn planned(&self, at: At) -> Option<Planned> {
        if let Some(litter) = self.litter.get(&at) {
            return *litter;
        }
        let mut blocks = self.known.iter().flat_map(|known| known.blocks.values());
        let chunk = blocks.find(|block| block.at == at)?.planned.record.chunks[0];
        Some((chunk.epoch, chunk.sequence))
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
