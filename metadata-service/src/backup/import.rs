//! Putting an export into an empty folder.
//!
//! The file is read twice. The first time everything in it is verified and nothing is written, so a file that is damaged
//! or does not fit leaves no trace. The second time its rows go through the engine, a bounded batch after the other, and
//! it is verified again, since it may have changed in between.
//!
//! What is new in the imported metadata: the epoch, so that no pair of epoch and sequence names two commits; and the note
//! of this import in the cluster's row, which holds all collection until the operator decides (I16).

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use proto::ids::ClusterId;
use proto::limits::BATCH_WRITES_MAX;
use proto::secret::SecretKey;
use tokio::sync::mpsc;

use super::{Decoder, ExportedWrite, Frame, ImportError, MalformedExport, Summary};
use crate::storage::Opening;
use crate::storage::import::{HalfMade, is_key_of};
use crate::store::engine::{Batch, Decision, Engine, EngineError};
use crate::store::keys;
use crate::store::records::{ClusterRecord, RESTORES_MAX, SCHEMA, decode};

/// Bytes of the file that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// Frames that are read ahead of the one that is being written.
const FRAMES_AHEAD: usize = 4;

/// What was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch that begins with this import.
    pub epoch: u64,
    /// The last commit that the export holds, of the epoch before.
    pub sequence: u64,
    /// When it was exported, in milliseconds since 1970.
    pub export_ms: u64,
    /// Whether nodes and tokens go on as they were.
    pub with_secrets: bool,
}

/// A frame's.
type Writes = Vec<ExportedWrite>;

/// Imports a file into the metadata folder below a storage folder; that must be absent or empty, or left by an import
/// that did not come to its end. No service may run on it.
///
/// # Errors
/// [`ImportError`]. Before the whole file has been verified nothing is written.
pub async fn import(storage: &Path, file: &Path, opening: Opening<'_>) -> Result<Imported, ImportError> {
    let source = Source { path: file.to_path_buf() };
    let verified = source.clone();
    let Plan { summary, row } = blocking(move || verified.verify()).await?;
    let row = row.imported(summary.sequence, opening.now_ms);
    let imported = Imported {
        cluster: row.cluster,
        epoch: row.epoch,
        sequence: summary.sequence,
        export_ms: summary.header.export_ms,
        with_secrets: summary.header.cluster_key.is_some(),
    };
    let target = HalfMade::begin(storage, opening).await?;
    if let Err(error) = fill(target.engine.as_ref(), source, storage).await {
        target.abandon().await;
        return Err(error);
    }
    let secret = summary.header.cluster_key.unwrap_or_else(|| SecretKey::generate(opening.entropy));
    target.finish(row, &secret, opening).await?;
    Ok(imported)
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, ImportError> + Send + 'static,
) -> Result<T, ImportError> {
    match tokio::task::spawn_blocking(job).await {
        Ok(outcome) => outcome,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// What the first reading found.
#[derive(Debug)]
pub(super) struct Plan {
    /// The file, verified to its end.
    pub(super) summary: Summary,
    /// The cluster's row as exported.
    row: ClusterRecord,
}

/// The file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) path: PathBuf,
}

impl Source {
    fn malformed(&self) -> impl Fn(MalformedExport) -> ImportError + '_ {
        |source| ImportError::Malformed { path: self.path.clone(), source }
    }

    fn unfit(&self, problem: impl Into<String>) -> ImportError {
        ImportError::Unfit { path: self.path.clone(), problem: problem.into() }
    }

    /// Reads the whole file and hands its writes over as they come.
    fn read(&self, mut take: impl FnMut(Writes) -> Result<(), ImportError>) -> Result<Summary, ImportError> {
        let failed = |source| ImportError::Read { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        let (mut decoder, mut buffer) = (Decoder::default(), vec![0; READ_BYTES]);
        loop {
            let length = file.read(&mut buffer).map_err(failed)?;
            if length == 0 {
                return decoder.finish().map_err(self.malformed());
            }
            decoder.push(buffer.get(..length).unwrap_or_default());
            while let Some(frame) = decoder.next_frame().map_err(self.malformed())? {
                match frame {
                    Frame::Header(_) => {}
                    Frame::Rows(rows) => take(rows.into_iter().map(|(key, value)| (key, Some(value))).collect())?,
                    Frame::Commit(writes) => take(writes)?,
                }
            }
        }
    }

    /// Reads the whole file, and looks whether what it holds can be imported.
    pub(super) fn verify(&self) -> Result<Plan, ImportError> {
        let mut row: Option<Vec<u8>> = None;
        let summary = self.read(|writes| {
            for (key, value) in writes {
                if key == keys::cluster() {
                    row = value;
                }
            }
            Ok(())
        })?;
        let row = row.map(|bytes| decode::<ClusterRecord>(&bytes)).transpose();
        let row = row.map_err(|error| self.unfit(format!("{error}; use another export")))?;
        let row = row.filter(|row| row.cluster == summary.header.cluster && row.epoch == summary.header.epoch);
        let row = row.ok_or_else(|| self.unfit("its row about the cluster is missing, or another cluster's"))?;
        if row.schema > SCHEMA {
            let found = row.schema;
            return Err(self.unfit(format!(
                "its rows are of schema version {found}, but this program knows versions up to {SCHEMA}; use a newer \
                 program"
            )));
        }
        if summary.header.cluster_key.as_ref().is_some_and(|key| !is_key_of(key, &row)) {
            return Err(self.unfit("the key in it is not that of its cluster"));
        }
        if row.restores.iter().filter(|restore| restore.keeps_lost_time()).count() >= RESTORES_MAX {
            return Err(self.unfit("too many imports before it were ended by 'keep'; end them by 'discard' first"));
        }
        Ok(Plan { summary, row })
    }
}

/// Writes the file's rows, all but the cluster's, which comes last.
pub(super) async fn fill(engine: &dyn Engine, source: Source, storage: &Path) -> Result<(), ImportError> {
    let (frames, mut read) = mpsc::channel::<Writes>(FRAMES_AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        // A closed channel means that a write failed, which is told there.
        source.read(|writes| frames.blocking_send(writes).map_or(Ok(()), Ok)).map(drop)
    });
    while let Some(mut writes) = read.recv().await {
        writes.retain(|(key, _)| *key != keys::cluster());
        write(engine, writes)
            .await
            .map_err(|source| ImportError::Write { folder: storage.join("metadata"), source })?;
    }
    match reading.await {
        Ok(outcome) => outcome,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn write(engine: &dyn Engine, writes: Writes) -> Result<(), EngineError> {
    let mut writes = writes.into_iter().peekable();
    while writes.peek().is_some() {
        let mut batch = Batch::default();
        for (key, value) in writes.by_ref().take(BATCH_WRITES_MAX) {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        engine.commit(Box::new(|_view| Ok(Decision::adds(batch)))).await?;
    }
    Ok(())
}
