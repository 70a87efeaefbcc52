//! Has the journal's chunks settled now and then, so that a quiet service has nothing to replay.

use std::convert::Infallible;
use std::sync::Arc;

use proto::runtime::worker::{Pass, Worker};

use crate::store::ChunkStore;

/// The worker.
#[derive(Debug)]
pub(crate) struct Settling(pub(crate) Arc<ChunkStore>);

impl Worker for Settling {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        "settling"
    }

    async fn run_once(&self) -> Result<Pass, Infallible> {
        self.0.settle_soon().await;
        Ok(Pass::default())
    }
}
