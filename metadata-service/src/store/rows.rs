//! Typed rows: keys of [`keys`](super::keys) with records of [`records`](super::records).

use super::engine::{Batch, Engine, EngineError, Row, View};
use super::records::{Record, RecordError, decode, encode};

/// Why a row cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RowError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The record is damaged or unknown.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A row as a commit's closure sees it.
///
/// # Errors
/// [`RowError`].
pub fn read<R: Record>(view: &dyn View, key: &[u8]) -> Result<Option<R>, RowError> {
    Ok(view.get(key)?.map(|bytes| decode(&bytes)).transpose()?)
}

/// A durable row.
///
/// # Errors
/// [`RowError`].
pub async fn load<R: Record>(engine: &dyn Engine, key: &[u8]) -> Result<Option<R>, RowError> {
    Ok(engine.get(key).await?.map(|bytes| decode(&bytes)).transpose()?)
}

/// The record of a row that a scan returned.
///
/// # Errors
/// [`RecordError`].
pub fn record_of<R: Record>(row: &Row) -> Result<R, RecordError> {
    decode(&row.1)
}

/// Typed writes.
pub trait BatchExt {
    /// Sets a row.
    fn set<R: Record>(&mut self, key: Vec<u8>, record: &R);
}

impl BatchExt for Batch {
    fn set<R: Record>(&mut self, key: Vec<u8>, record: &R) {
        self.put(key, encode(record));
    }
}
