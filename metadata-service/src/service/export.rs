//! Exports: a task of its own takes each, a few pieces ahead of its reader.

use std::sync::Arc;

use bytes::Bytes;
use proto::limits::STREAM_STALL;
use tokio::sync::mpsc;

use super::Service;
use crate::backup::{ExportScope, Exporter};
use crate::error::MetadataError;

/// Pieces that are taken ahead of the reader.
const PIECES_AHEAD: usize = 2;

/// The pieces of an export in order. One that ends without an error is complete.
pub type ExportPieces = mpsc::Receiver<Result<Bytes, MetadataError>>;

impl Service {
    /// Begins an export; see [`backup`](crate::backup). It goes on as fast as it is read, and is given up when it is not
    /// read for long, when commits come faster than it is read, and at a stop of the service.
    ///
    /// # Errors
    /// [`MetadataError`] when it cannot begin.
    pub fn export(&self, include_secrets: bool) -> Result<ExportPieces, MetadataError> {
        let cluster = self.cluster();
        let scope = ExportScope {
            cluster: cluster.id,
            epoch: cluster.epoch,
            now_ms: self.now_ms(),
            cluster_key: include_secrets.then(|| cluster.secret.clone()),
        };
        let exporter = Exporter::begin(Arc::clone(&self.shared.engine), scope)?;
        let (pieces, taken) = mpsc::channel(PIECES_AHEAD);
        let stop = self.shared.tasks.stop_signal();
        tracing::info!(include_secrets, "an export begins");
        self.shared.tasks.spawn("export", async move {
            let stopped = tokio::select! {
                () = take(exporter, &pieces) => false,
                () = stop.cancelled() => true,
            };
            if stopped {
                hand_over(&pieces, Err(MetadataError::Draining)).await;
            }
        });
        Ok(taken)
    }
}

async fn take(mut exporter: Exporter, pieces: &mpsc::Sender<Result<Bytes, MetadataError>>) {
    loop {
        let piece = match exporter.next().await {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return,
            Err(error) => Err(MetadataError::from(error)),
        };
        let last = piece.is_err();
        if !hand_over(pieces, piece).await || last {
            return;
        }
    }
}

/// Whether the reader is still there, and awake.
async fn hand_over(pieces: &mpsc::Sender<Result<Bytes, MetadataError>>, piece: Result<Bytes, MetadataError>) -> bool {
    match tokio::time::timeout(STREAM_STALL, pieces.send(piece)).await {
        Ok(sent) => sent.is_ok(),
        Err(_elapsed) => {
            tracing::info!("nobody reads an export; it is given up");
            false
        }
    }
}
