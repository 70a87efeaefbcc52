//! Exports.

use std::pin::Pin;
use std::task::{Context, Poll};

use proto::pb;
use proto::status::to_status;
use tokio_stream::Stream;
use tonic::Status;

use crate::service::ExportPieces;

/// The pieces of an export as messages.
#[derive(Debug)]
pub struct ExportStream(pub(in crate::grpc) ExportPieces);

impl Stream for ExportStream {
    type Item = Result<pb::ExportMetadataResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| {
            piece.map(|piece| piece.map(|data| pb::ExportMetadataResponse { data }).map_err(|error| to_status(&error)))
        })
    }
}
