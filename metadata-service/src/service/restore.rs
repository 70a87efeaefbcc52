//! The time after an import (I16): the metadata are older than the chunks that they govern, so nothing is destroyed until
//! the operator has said what becomes of the chunks that were planned behind the export.
//!
//! The decision is in the cluster's row; what is kept here in memory follows it, and is read again at the next start.
//! Undecided, nothing expires and nothing is collected at all. Kept, the chunks of the lost time stay for ever and
//! everything else is collected again; that may still be turned into a discard. Discarded, they are orphans like others;
//! nothing can take that back.
//!
//! Uploads that were open at the export may have become blobs in the lost time. Once kept they expire, which releases what
//! they reserved, and their rows and chunks stay like those of the lost time.

use std::sync::{PoisonError, RwLock};

use proto::ids::ChunkId;

use super::Service;
use crate::coordinator::Outcome;
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::{ClusterRecord, RestoreEnd, RestoreRecord, UploadRecord};
use crate::store::rows::{BatchExt as _, read};

/// What becomes of the chunks of the lost time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostTime {
    /// They stay.
    Keep,
    /// They are collected.
    Discard,
}

/// The imports that matter, as the cluster's row has them.
#[derive(Debug, Default)]
pub(super) struct Restores(RwLock<Vec<RestoreRecord>>);

impl Restores {
    pub(super) fn new(restores: Vec<RestoreRecord>) -> Self {
        Self(RwLock::new(restores))
    }

    fn set(&self, restores: Vec<RestoreRecord>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = restores;
    }

    fn find(&self, wanted: impl Fn(&RestoreRecord) -> bool) -> Option<RestoreRecord> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().rev().find(|one| wanted(one)).copied()
    }
}

impl Service {
    /// The import about which the operator has not decided yet.
    pub fn undecided_restore(&self) -> Option<RestoreRecord> {
        self.shared.restores.find(|restore| restore.end == RestoreEnd::Undecided)
    }

    /// Why nothing may be collected, in words for the operator; `None` when it may.
    pub fn collection_hold(&self) -> Option<String> {
        let undecided = self.undecided_restore().filter(|_restore| !seeded!(HoldIgnored));
        undecided.map(|RestoreRecord { epoch, sequence, .. }| {
            format!(
                "the metadata were imported from an export that reaches to commit {sequence} of epoch {epoch}; nothing is \
                 collected until it is decided what becomes of chunks written after it: look with 'mini-tectonic-rs \
                 fsck', then 'mini-tectonic-rs fsck --after-restore keep' or '--after-restore discard'"
            )
        })
    }

    /// Whether any import lost a time whose chunks stay, or may stay.
    pub fn keeps_lost_time(&self) -> bool {
        self.shared.restores.find(RestoreRecord::keeps_lost_time).is_some()
    }

    /// Whether a chunk to which nothing refers must stay, because it was planned in a time that an import lost. Epoch
    /// and sequence are those of its checksum file.
    pub fn is_kept(&self, chunk: ChunkId, epoch: u64, sequence: u64) -> bool {
        let keeps = |restore: &RestoreRecord| restore.keeps_lost_time() && restore.lost(chunk, epoch, sequence);
        self.shared.restores.find(keeps).is_some()
    }

    /// Whether the blocks of an upload must stay, however it ended: it was open in an export that was imported, so it may
    /// have been committed in the time that the import lost. The collector decides the same by what is stored.
    pub fn is_kept_upload(&self, upload: &UploadRecord) -> bool {
        self.shared.restores.find(|restore| restore.keeps_lost_time() && upload.outlived(restore)).is_some()
    }

    /// Notes what the operator decided. A repeat changes nothing.
    ///
    /// # Errors
    /// [`MetadataError::NotRestored`] when there was no import, or its chunks were given up before.
    pub async fn end_restore(&self, lost_time: LostTime) -> Result<(), MetadataError> {
        let restores = self.decide(move |view, _context| decide(view, lost_time)).await?;
        tracing::warn!(?lost_time, "the time after the import has ended");
        self.shared.restores.set(restores);
        Ok(())
    }
}

/// Decides every import that can still be decided that way.
fn decide(view: &dyn View, lost_time: LostTime) -> Outcome<Vec<RestoreRecord>> {
    let row: Option<ClusterRecord> = read(view, &keys::cluster())?;
    let mut row = row.ok_or(MetadataError::NotRestored)?;
    let (end, open) = match lost_time {
        LostTime::Keep => (RestoreEnd::Keep, [RestoreEnd::Undecided, RestoreEnd::Keep].as_slice()),
        LostTime::Discard => {
            (RestoreEnd::Discard, [RestoreEnd::Undecided, RestoreEnd::Keep, RestoreEnd::Discard].as_slice())
        }
    };
    let mut decided = 0;
    for restore in row.restores.iter_mut().filter(|restore| open.contains(&restore.end)) {
        (restore.end, decided) = (end, decided + 1);
    }
    if decided == 0 {
        return Err(MetadataError::NotRestored);
    }
    let mut batch = Batch::default();
    batch.set(keys::cluster(), &row);
    Ok((Decision::frees(batch), row.restores))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::checksum::Sha256;
    use proto::entropy::SeededEntropy;
    use proto::ids::ClusterId;
    use proto::runtime::ManualClock;

    use super::*;
    use crate::service::testing;
    use crate::store::engine::EngineExt as _;
    use crate::store::memory::MemoryEngine;
    use crate::store::records::SCHEMA;
    use crate::store::rows::RowError;

    /// A service whose cluster's row says these imports.
    async fn imported(restores: Vec<RestoreRecord>) -> Service {
        let service = testing::service(Arc::new(MemoryEngine::new()), Arc::new(ManualClock::at(1)));
        let cluster = ClusterId::generate(1, &SeededEntropy::new(1));
        let key_check = Sha256::of(b"");
        let row = ClusterRecord { cluster, epoch: 2, key_check, create_ms: 1, schema: SCHEMA, restores };
        service.shared.restores.set(row.restores.clone());
        let mut batch = Batch::default();
        batch.set(keys::cluster(), &row);
        let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
        put.await.unwrap();
        service
    }

    fn undecided() -> RestoreRecord {
        RestoreRecord { import_ms: 1_000, epoch: 1, sequence: 5, end: RestoreEnd::Undecided }
    }

    #[tokio::test]
    async fn i16_undecided_everything_is_held_kept_only_the_lost_time_and_discarded_nothing() {
        let chunk = ChunkId::generate(500, &SeededEntropy::new(2));
        let service = imported(vec![undecided()]).await;
        assert!(service.collection_hold().is_some() && service.is_kept(chunk, 1, 6) && !service.is_kept(chunk, 1, 5));
        service.end_restore(LostTime::Keep).await.unwrap();
        service.end_restore(LostTime::Keep).await.unwrap();
        assert!(service.collection_hold().is_none() && service.is_kept(chunk, 1, 6) && !service.is_kept(chunk, 1, 5));
        service.end_restore(LostTime::Discard).await.unwrap();
        service.end_restore(LostTime::Discard).await.unwrap();
        assert!(service.collection_hold().is_none() && !service.is_kept(chunk, 1, 6));
        let refused = service.end_restore(LostTime::Keep).await;
        assert!(matches!(refused, Err(MetadataError::NotRestored)), "what may be gone cannot be kept");
    }

    #[tokio::test]
    async fn without_an_import_there_is_nothing_to_decide() {
        for lost_time in [LostTime::Keep, LostTime::Discard] {
            let refused = imported(Vec::new()).await.end_restore(lost_time).await;
            assert!(matches!(refused, Err(MetadataError::NotRestored)));
        }
    }
}
