//! What follows from how a chunk was found.

use std::sync::Arc;

use proto::capability::{ChunkBinding, ReadClaims};

use super::Ledger;
use crate::error::ChunkError;
use crate::store::verify::{Condition, Finding};
use crate::store::{ChunkStore, Described};

/// Concludes, repairs and reports.
#[derive(Debug)]
pub(crate) struct Inspector {
    /// Where the chunks are.
    pub(crate) store: Arc<ChunkStore>,
    /// Who says what they must be.
    pub(crate) metadata: Arc<dyn Ledger>,
}

/// What became of a chunk that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was to be done.
    Sound,
    /// Its checksum file was written again.
    Repaired,
    /// The metadata no longer holds it.
    Gone,
    /// It is damaged, or its checksum file cannot be repaired, or not by this program.
    Bad,
}

impl Inspector {
    /// Repairs a checksum file, reports damage, and takes back what was reported before. `reported`: the metadata holds it
    /// for damaged.
    pub(super) async fn conclude(
        &self,
        place: ChunkBinding,
        claims: ReadClaims,
        finding: Finding,
        reported: bool,
    ) -> Result<Verdict, ChunkError> {
        let chunk = place.chunk;
        if finding.condition == Condition::Sound && !reported {
            return Ok(Verdict::Sound);
        }
        match self.metadata.describe(chunk).await? {
            Described::Sealed(_place, held) if held == claims => {}
            Described::Sealed(..) | Described::Open | Described::Unknown => return Ok(Verdict::Gone),
        }
        let finding = self.store.repaired_apart(place, claims, finding).await?;
        let verdict = match finding.condition {
            Condition::Sound => Verdict::Sound,
            Condition::Rebuilt => Verdict::Repaired,
            Condition::ChecksumFileBad
            | Condition::ChecksumFileTooNew
            | Condition::Corrupt
            | Condition::Missing
            | Condition::Unreadable => Verdict::Bad,
        };
        if verdict == Verdict::Bad {
            tracing::error!(%chunk, detail = %finding.detail, "a chunk of this node is not as it was committed");
        }
        if finding.condition.is_damage() || reported {
            let damaged = finding.condition.is_damage();
            self.metadata.report(chunk, finding).await?;
            if !damaged {
                self.store.suspects().forget(chunk);
            }
        }
        Ok(verdict)
    }
}
