//! Reading rows for a check: page by page, and a damaged one is a finding instead of an error.

use proto::ids::{BlobId, TenantId};

use super::finding::{FindingKind, Subject};
use super::problem::Problem;
use crate::error::MetadataError;
use crate::store::engine::{Engine, KeyRange, Row, View};
use crate::store::records::Record;
use crate::store::rows::{self, RowError, load, record_of};

/// Rows that are read at once.
const ROWS_PER_PAGE: usize = 256;

/// The rows of a range, page by page.
#[derive(Debug)]
pub(super) struct Walk {
    range: Option<KeyRange>,
}

impl Walk {
    pub(super) fn over(prefix: &[u8]) -> Self {
        Self { range: Some(KeyRange::prefix(prefix)) }
    }

    /// The next rows; `None` after the last.
    pub(super) async fn next(&mut self, engine: &dyn Engine) -> Result<Option<Vec<Row>>, MetadataError> {
        let Some(range) = self.range.take() else { return Ok(None) };
        let rows = engine.scan(&range, ROWS_PER_PAGE).await?;
        let full = rows.len() == ROWS_PER_PAGE;
        self.range = rows.last().filter(|_last| full).map(|(key, _)| range.after(key));
        Ok((!rows.is_empty()).then_some(rows))
    }
}

/// A row that may not be there, or may not be readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<R> {
    /// It is there.
    Record(R),
    /// It is not.
    Nothing,
    /// It is damaged; how.
    Damaged(String),
}

impl<R> Found<R> {
    /// The record, or what to say of it.
    pub(super) fn or_problem(self, subject: &Subject, what: &str) -> Result<R, Problem> {
        match self {
            Self::Record(record) => Ok(record),
            Self::Nothing => Err(Problem::inconsistent(subject, format!("{what} is missing"))),
            Self::Damaged(how) => {
                Err(Problem::new(FindingKind::RecordCorrupt, subject.clone(), format!("{what} cannot be read: {how}")))
            }
        }
    }
}

/// Reads a row.
pub(super) async fn find<R: Record>(engine: &dyn Engine, key: &[u8]) -> Result<Found<R>, MetadataError> {
    found(load(engine, key).await)
}

/// Reads a row in a commit's turn.
pub(super) fn see<R: Record>(view: &dyn View, key: &[u8]) -> Result<Found<R>, MetadataError> {
    found(rows::read(view, key))
}

fn found<R>(looked: Result<Option<R>, RowError>) -> Result<Found<R>, MetadataError> {
    match looked {
        Ok(Some(record)) => Ok(Found::Record(record)),
        Ok(None) => Ok(Found::Nothing),
        Err(RowError::Record(damage)) => Ok(Found::Damaged(damage.to_string())),
        Err(RowError::Engine(error)) => Err(error.into()),
    }
}

/// The record of a row of a walk.
pub(super) fn read<R: Record>(row: &Row, subject: &Subject) -> Result<R, Problem> {
    record_of(row).map_err(|damage| {
        let detail = format!("{damage} (key {})", printable(&row.0));
        Problem::new(FindingKind::RecordCorrupt, subject.clone(), detail)
    })
}

/// Tenant and blob of a key of a layer whose keys are `layer/tenant/blob`.
pub(super) fn tenant_and_blob(layer: &[u8], row: &Row) -> Result<(TenantId, BlobId), Problem> {
    let parsed = || {
        let (tenant, blob) = row.0.strip_prefix(layer)?.split_last_chunk::<16>()?;
        let tenant = std::str::from_utf8(tenant.strip_suffix(b"/")?).ok()?.parse().ok()?;
        Some((tenant, BlobId::try_from(blob.as_slice()).ok()?))
    };
    parsed().ok_or_else(|| senseless(row))
}

/// A key that is not of its layer's form.
pub(super) fn senseless(row: &Row) -> Problem {
    let detail = format!("the key {} makes no sense", printable(&row.0));
    Problem::new(FindingKind::RowInconsistent, Subject::default(), detail)
}

/// A key for people: its text, other bytes in hex.
pub(super) fn printable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}
