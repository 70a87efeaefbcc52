//! Exports, imports, and what the operator decides about the time between them (I16).
//!
//! An import puts the rows of the export under a new epoch, as the real one does, and starts a service on them. The same
//! export is never imported twice. What an export shows deleted and was restored after it is deleted again; what was
//! collected meanwhile is gone, whatever the export says.

use std::sync::Arc;

use proto::limits::BATCH_WRITES_MAX;

use super::model::{Block, Fate, Known};
use super::steps::Call;
use super::world::{Answered, World};
use crate::service::LostTime;
use crate::store::engine::{Batch, Decision, Engine as _, EngineExt as _, KeyRange, Row};
use crate::store::keys;
use crate::store::memory::MemoryEngine;
use crate::store::records::{ClusterRecord, decode, encode};
use crate::store::rows::RowError;

/// All metadata as of one commit, and what was known then.
pub(super) struct Export {
    rows: Vec<Row>,
    sequence: u64,
    known: Vec<Known>,
    answered: Vec<Answered>,
}

impl World {
    pub(super) async fn take_export(&mut self) {
        let rows = self.engine.scan(&KeyRange::prefix(b""), usize::MAX).await.unwrap();
        let (sequence, known) = (self.engine.sequence(), self.model().known.clone());
        self.export = Some(Export { rows, sequence, known, answered: self.answered.clone() });
    }

    pub(super) async fn lose_and_import(&mut self, calls: &[Call]) {
        if self.export.is_none() {
            self.take_export().await;
            for call in calls {
                self.call(*call).await;
            }
        }
        self.import().await;
    }

    /// The metadata's disk is lost, and the last export takes its place. Whoever had permission to read had it from a
    /// service of which nothing is left.
    async fn import(&mut self) {
        let Some(Export { rows, sequence, known, answered }) = self.export.take() else { return };
        self.nodes.deliver_all();
        self.engine = Arc::new(restored(rows, sequence, self.now_ms()).await);
        self.answered = answered;
        {
            let mut model = self.model();
            model.readers.clear();
            let mut strays = Vec::new();
            for (at, now) in model.known.iter_mut().enumerate() {
                strays.extend(import_one(now, known.get(at)));
            }
            for Block { at, planned, .. } in strays {
                let chunk = planned.record.chunks[0];
                model.litter.insert(at, Some((chunk.epoch, chunk.sequence)));
            }
            let files = model.files.clone();
            model.litter.retain(|at, _| files.contains(at));
            for block in model.known.iter_mut().flat_map(|known| known.blocks.values_mut()) {
                block.gone |= block.written && !files.contains(&block.at);
            }
        }
        self.open().await;
        self.done.imports += 1;
    }

    /// The operator decides, if there is anything to decide.
    pub(super) async fn decide(&mut self, keep: bool) {
        let lost_time = if keep { LostTime::Keep } else { LostTime::Discard };
        if self.service.end_restore(lost_time).await.is_err() {
            return;
        }
        self.done.decisions += 1;
        for known in self.model().known.iter_mut().filter(|known| !keep && known.fate == Fate::Lost) {
            known.fate = Fate::Forgotten;
        }
    }
}

/// What becomes of an upload or blob. Returns the blocks of an open upload that the import forgot: they are planned anew.
fn import_one(now: &mut Known, exported: Option<&Known>) -> Vec<Block> {
    now.fate = now.fate.imported(exported.map(|then| then.fate));
    let Some(then) = exported.filter(|_then| now.fate == Fate::Open) else { return Vec::new() };
    now.lease_ms = then.lease_ms;
    let forgotten = now.blocks.split_off(&(then.blocks.len() as u64));
    forgotten.into_values().collect()
}

/// An engine with the rows of an export.
async fn restored(rows: Vec<Row>, sequence: u64, now_ms: u64) -> MemoryEngine {
    let engine = MemoryEngine::new();
    for some in rows.chunks(BATCH_WRITES_MAX) {
        let mut batch = Batch::default();
        for (key, value) in some {
            let value = if **key == *keys::cluster() {
                let row: ClusterRecord = decode(value).unwrap();
                encode(&row.imported(sequence, now_ms))
            } else {
                value.to_vec()
            };
            batch.put(key.to_vec(), value);
        }
        let put = engine.decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
        put.await.unwrap();
    }
    engine
}
