//! How far a sweep has got in a range of rows. Only a hint: it is lost at a restart, and the next sweep begins anew.

use crate::coordinator::blobs::{Page, page};
use crate::error::MetadataError;
use crate::store::engine::{Engine, KeyRange, Row};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the first row.
    #[default]
    Start,
    /// Behind the row of this key.
    Behind(Vec<u8>),
    /// Behind the last row.
    End,
}

impl Place {
    /// The next rows of the range, at most `limit`, and moves behind them; none behind the end.
    pub(super) async fn next(
        &mut self,
        engine: &dyn Engine,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Row>, MetadataError> {
        let after = match self {
            Self::Start => None,
            Self::Behind(key) => Some(key.as_slice()),
            Self::End => return Ok(Vec::new()),
        };
        let Page { entries, next } = page(engine, range, after, limit).await?;
        *self = next.map_or(Self::End, Self::Behind);
        Ok(entries)
    }
}
