//! The end of a schedule: when everything works again, what is not needed goes, and nothing else.

use proto::runtime::worker::Worker as _;

use super::model::Fate;
use super::world::{HOUR, World};
use crate::service::LostTime;
use crate::store::engine::{Engine as _, KeyRange};
use crate::store::keys;
use crate::store::records::UsageRecord;
use crate::store::rows::load;

/// Passes after which a sweep that has not ended never will.
const PASSES_MAX: usize = 10_000;
/// What only a sweep for orphans finds.
const LITTER: &str = "of a write that was broken off";

impl World {
    /// The nodes come back, and all graces pass. While an import is undecided nothing goes; once its lost time is kept,
    /// everything but that; once it is given up, that, too. The rest of the sweep that was going on and one whole sweep
    /// later nothing is left of what is not needed. A collector once left the chunks that it had found last to the sweep
    /// after that; and while no metadata were lost, the collector leaves nothing but broken writes to the sweep for orphans.
    pub(super) async fn finish(&mut self, when: &str) {
        self.nodes.calm();
        self.wait(96 * HOUR).await;
        if self.service.undecided_restore().is_some() {
            let files = self.model().files.clone();
            self.clean_up().await;
            assert_eq!(self.model().files, files, "{when}: undecided, everything stays");
            self.service.end_restore(LostTime::Keep).await.unwrap();
        }
        if self.done.imports == 0 {
            self.expire_and_collect().await;
            let left = self.left_behind();
            assert!(left.iter().all(|one| one.ends_with(LITTER)), "{when}: left to the sweep for orphans: {left:?}");
        }
        self.clean_up().await;
        self.check(when).await;
        if self.service.keeps_lost_time() {
            self.decide(false).await;
            self.clean_up().await;
            self.check(when).await;
        }
        self.nothing_is_left(when).await;
    }

    /// Sweeps of everything, as somebody asks for them, and the grace in between.
    async fn clean_up(&mut self) {
        self.expire_and_collect().await;
        // An orphan is one that two whole sweeps have seen; the first of three may be the rest of one.
        for _sweep in 0..3 {
            self.sweep_all_orphans().await;
        }
        self.wait(HOUR).await;
        for _sweep in 0..2 {
            self.collect_all().await;
        }
    }

    async fn expire_and_collect(&mut self) {
        while self.work.uploads.run_once().await.unwrap().more {}
        self.note_expiries().await;
        self.wait(HOUR).await;
        for _sweep in 0..2 {
            self.collect_all().await;
        }
    }

    async fn sweep_all_orphans(&mut self) {
        for _pass in 0..PASSES_MAX {
            let _given = self.service.workers().acceptance.give();
            let pass = self.work.orphans.run_once().await;
            if !self.count_sweep(pass) {
                return;
            }
        }
        panic!("a sweep for orphans does not end");
    }

    async fn collect_all(&mut self) {
        for _pass in 0..PASSES_MAX {
            let pass = self.work.collector.run_once().await.unwrap();
            self.done.passes += 1;
            if !pass.more {
                return;
            }
        }
        panic!("a sweep does not end");
    }

    /// Files, rows and usage are those of the committed blobs.
    async fn nothing_is_left(&self, when: &str) {
        let known = self.model().known.clone();
        let live: Vec<_> = known.iter().filter(|known| known.fate == Fate::Committed).collect();
        let blocks = live.iter().flat_map(|known| known.blocks.range(..known.block_count()));
        let blocks: Vec<_> = blocks.map(|(_, block)| block).collect();
        let files = blocks.iter().filter(|block| !block.gone).count();
        assert_eq!(self.left_behind(), Vec::<String>::new(), "{when}: files are left behind");
        assert_eq!(self.model().files.len(), files, "{when}");
        for layer in [keys::GARBAGE, keys::DELETED, keys::RETAINED, keys::UPLOADS] {
            assert_eq!(self.rows(layer).await, 0, "{when}: rows are left behind");
        }
        for layer in [keys::EXTENTS, keys::BLOCKS, keys::REVERSE] {
            assert_eq!(self.rows(layer).await, blocks.len(), "{when}: rows are left behind");
        }
        let used_bytes = live.iter().map(|known| known.size_bytes).sum();
        let usage: UsageRecord = load(self.engine.as_ref(), &keys::usage(&self.tenant)).await.unwrap().unwrap();
        assert_eq!(
            usage,
            UsageRecord { used_bytes, used_blobs: live.len() as u64, ..UsageRecord::default() },
            "{when}"
        );
    }

    /// Files that no blob needs, and whose they were.
    fn left_behind(&self) -> Vec<String> {
        let model = self.model();
        let blocks = model.known.iter().flat_map(|known| known.blocks.iter().map(move |block| (known, block)));
        let left = blocks
            .filter(|(known, (index, block))| model.files.contains(&block.at) && !known.needs(**index, self.now_ms()));
        let left = left.map(|(known, (index, _))| format!("block {index} of {}, {:?}", known.blob, known.fate));
        let litter = model.litter.keys().map(|at| format!("{at:?}, {LITTER}"));
        left.chain(litter).collect()
    }

    async fn rows(&self, layer: &[u8]) -> usize {
        self.engine.scan(&KeyRange::prefix(layer), usize::MAX).await.unwrap().len()
    }
}
