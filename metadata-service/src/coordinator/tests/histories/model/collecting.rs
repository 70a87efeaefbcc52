//! What the collector does, step by step.

use proto::runtime::clock::millis;

use super::super::super::*;
use super::{Fate, Model};
use crate::coordinator::collect::{Blocks, Step as Collected};
use crate::store::keys::GarbageKind;
use crate::store::records::{DeletedRecord, GarbageChunkRecord};

/// Blocks that a step takes apart.
const BLOCKS_PER_STEP: usize = 16;

impl Model {
    /// The next step about a garbage row.
    pub(in super::super) fn collect(&mut self, blocks: &Blocks, now_ms: u64) -> Collected {
        let key = keys::garbage(blocks.not_before_ms, blocks.kind, blocks.blob);
        let Some((_, first_block)) = self.garbage.get(&key).copied() else { return Collected::Done };
        if blocks.not_before_ms > now_ms {
            return Collected::NotDue;
        }
        let at = self.known.iter().position(|known| known.blob == blocks.blob).expect("garbage is about what is known");
        if let (GarbageKind::Blob, Fate::Deleted(tombstone)) = (blocks.kind, &mut self.known[at].fate)
            && !tombstone.collecting
        {
            tombstone.collecting = true;
            return Collected::More;
        }
        if self.known[at].fate != Fate::Gone && !self.take_apart(at, first_block, now_ms) {
            return Collected::More;
        }
        if blocks.kind != GarbageKind::Surplus {
            self.known[at].fate = Fate::Gone;
        }
        self.garbage.remove(&key);
        Collected::Done
    }

    fn take_apart(&mut self, at: usize, first_block: u64, now_ms: u64) -> bool {
        let from = usize::try_from(first_block).expect("it is small");
        let there: Vec<_> =
            (from..self.known[at].blocks.len()).filter(|n| self.known[at].blocks[*n].is_some()).collect();
        for index in there.iter().take(BLOCKS_PER_STEP) {
            let block = self.known[at].blocks[*index].take().expect("it is there");
            self.condemn(&block, now_ms);
        }
        there.len() <= BLOCKS_PER_STEP
    }

    fn condemn(&mut self, block: &PlannedBlock, now_ms: u64) {
        let chunk = &block.record.chunks[0];
        let record = GarbageChunkRecord {
            node: chunk.node,
            tenant: Some(self.tenant.clone()),
            block: block.block,
            blob: block.record.blob,
            shard_index: 0,
            shard_count: 1,
            generation: 1,
            epoch: chunk.epoch,
            sequence: chunk.sequence,
        };
        self.chunks.insert((now_ms, chunk.chunk), record);
    }

    /// Deleted blobs beyond the quota become due; returns how many.
    pub(in super::super) fn hasten(&mut self, now_ms: u64) -> u64 {
        let Ok(Quota { max_bytes: Some(limit), .. }) = self.quota() else { return 0 };
        let excess = self.usage().retained_bytes.saturating_sub(limit);
        let mut by_age: Vec<_> = (0..self.known.len()).filter_map(|at| self.tombstone(at)).collect();
        by_age.sort_by_key(|(blob, tombstone, _)| (tombstone.delete_ms, *blob));
        let (mut leaving, mut hastened) = (0, 0);
        for (blob, tombstone, at) in by_age {
            let due_ms = tombstone.due_ms.expect("every tombstone here has one");
            let early_ms = tombstone.delete_ms + millis(self.tuning.garbage_grace);
            let kept = !tombstone.collecting && due_ms > now_ms;
            if leaving >= excess || (kept && early_ms > now_ms) {
                break;
            }
            leaving += tombstone.blob.size_bytes;
            if kept {
                self.garbage.remove(&keys::garbage(due_ms, GarbageKind::Blob, blob));
                self.queue(early_ms, GarbageKind::Blob, blob, 0);
                self.known[at].fate = Fate::Deleted(DeletedRecord { due_ms: Some(early_ms), ..tombstone });
                hastened += 1;
            }
        }
        hastened
    }

    pub(super) fn tombstone(&self, at: usize) -> Option<(BlobId, DeletedRecord, usize)> {
        match &self.known[at].fate {
            Fate::Deleted(tombstone) => Some((self.known[at].blob, tombstone.clone(), at)),
            Fate::Upload | Fate::Live(_) | Fate::Gone => None,
        }
    }
}
