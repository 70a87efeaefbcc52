//! Taking an export: see [`backup`](super) for why what comes out is of one moment.

use std::sync::Arc;

use bytes::Bytes;
use proto::ids::ClusterId;
use proto::secret::SecretKey;

use super::Header;
use super::encode::Encoder;
use crate::store::engine::{Engine, EngineError, KeyRange, Row};
use crate::store::feed::{Committed, Follower};
use crate::store::keys;

/// Rows of one slice: with values of at most 4 KiB a frame of some 100 KiB.
const ROWS_PER_SLICE: usize = 64;
/// Bytes that [`Exporter::next`] returns at least, but for the last.
const PIECE_BYTES: usize = 256 * 1024;

/// What is exported, besides the rows.
#[derive(Debug, Clone)]
pub struct ExportScope {
    /// The cluster.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub epoch: u64,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The cluster's key; `None` leaves out all secrets.
    pub cluster_key: Option<SecretKey>,
}

/// An export under way.
#[derive(Debug)]
pub struct Exporter {
    engine: Arc<dyn Engine>,
    follower: Follower,
    encoder: Encoder,
    with_secrets: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The next slice begins here.
    Scanning(KeyRange),
    /// All rows are out; commits up to this one are not.
    Following(u64),
    Ended,
}

impl Exporter {
    /// Begins an export.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] when several are under way, [`EngineError::Closed`].
    pub fn begin(engine: Arc<dyn Engine>, scope: ExportScope) -> Result<Self, EngineError> {
        let ExportScope { cluster, epoch, now_ms, cluster_key } = scope;
        let follower = engine.follow()?;
        let with_secrets = cluster_key.is_some();
        let header = Header { cluster, epoch, begins_behind: follower.begins_behind(), export_ms: now_ms, cluster_key };
        let (encoder, stage) = (Encoder::new(&header), Stage::Scanning(KeyRange::prefix(b"")));
        Ok(Self { engine, follower, encoder, with_secrets, stage })
    }

    /// The next bytes; `None` behind the last.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::FellBehind`] when this was not called often enough to keep up with the commits.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        while self.encoder.len() < PIECE_BYTES && !matches!(self.stage, Stage::Ended) {
            self.step().await?;
        }
        Ok(Some(self.encoder.take()).filter(|bytes| !bytes.is_empty()))
    }

    async fn step(&mut self) -> Result<(), EngineError> {
        match &self.stage {
            Stage::Scanning(range) => {
                let range = range.clone();
                let rows = self.engine.scan(&range, ROWS_PER_SLICE).await?;
                self.slice(range, rows)
            }
            Stage::Following(end) if self.encoder.sequence() < *end => {
                let committed = self.follower.next().await?;
                self.commit(&committed);
                Ok(())
            }
            Stage::Following(_) => {
                self.encoder.end();
                self.stage = Stage::Ended;
                Ok(())
            }
            Stage::Ended => Ok(()),
        }
    }

    /// The rows first, then what was committed until they were read, and perhaps a little more.
    fn slice(&mut self, range: KeyRange, mut rows: Vec<Row>) -> Result<(), EngineError> {
        self.stage = match rows.last() {
            Some((key, _)) => Stage::Scanning(range.after(key)),
            None => Stage::Following(self.engine.sequence()),
        };
        rows.retain(|(key, _)| self.belongs(key));
        self.encoder.rows(&rows);
        while let Some(committed) = self.follower.take()? {
            self.commit(&committed);
        }
        Ok(())
    }

    fn commit(&mut self, committed: &Committed) {
        let with_secrets = self.with_secrets;
        let writes = committed.writes.iter().filter(|(key, _)| belongs(key, with_secrets));
        self.encoder.commit(committed.sequence, writes);
    }

    fn belongs(&self, key: &[u8]) -> bool {
        belongs(key, self.with_secrets)
    }
}

/// Whether a row belongs into the export.
fn belongs(key: &[u8], with_secrets: bool) -> bool {
    with_secrets || !(key.starts_with(keys::TOKENS) || key.starts_with(keys::REQUESTS))
}
