//! Ends writes whose writers did not come back.

use std::sync::Arc;

use proto::runtime::worker::{Pass, Worker};

use crate::error::ChunkError;
use crate::store::ChunkStore;

/// The worker.
#[derive(Debug)]
pub(crate) struct Reaper(pub(crate) Arc<ChunkStore>);

impl Worker for Reaper {
    type Error = ChunkError;

    fn name(&self) -> &'static str {
        "reaper"
    }

    async fn run_once(&self) -> Result<Pass, ChunkError> {
        let changed = self.0.reap().await?;
        if changed > 0 {
            tracing::info!(changed, "writes without a writer were ended");
        }
        Ok(Pass { examined: changed, changed, ..Pass::default() })
    }
}
