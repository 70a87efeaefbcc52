//! What is left of a request that was answered before it was read to its end.
//!
//! A refusal does not need the message. But whoever drops a request that has not ended has its stream reset, and what the
//! client had sent on its way by then comes to a stream that is no more. Each time that is the client's mistake, as HTTP/2
//! counts, and after [`HTTP2_LOCAL_RESETS_MAX`](crate::limits::HTTP2_LOCAL_RESETS_MAX) of them the connection ends: a client
//! whose token had expired was told so a hundred times, and then sent away. So the answer goes out, and the rest is read and
//! dropped, within bounds: as much as may be on its way, for as long as a request may stand still. Nothing is read of what
//! does not end within these; its stream is reset, as before.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::runtime::Handle;
use tonic::Status;
use tonic::body::Body;

use crate::limits::HTTP2_STREAM_WINDOW_BYTES;
use crate::runtime::TaskGroup;

/// A body whose rest is read by somebody.
pub(super) struct Read {
    body: Body,
    within: Duration,
}

impl Read {
    /// Within so long after the answer.
    pub(super) fn to_its_end(body: Body, within: Duration) -> Self {
        Self { body, within }
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        if self.body.is_end_stream() || Handle::try_current().is_err() {
            return;
        }
        let (body, within) = (std::mem::take(&mut self.body), self.within);
        // Both how long the stream stands, and whether it is ended or reset, are the client's business: nobody waits.
        TaskGroup::new().spawn("the rest of a request", tokio::time::timeout(within, read(body)));
    }
}

async fn read(mut body: Body) {
    let mut left = usize::try_from(HTTP2_STREAM_WINDOW_BYTES).unwrap_or(usize::MAX);
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

impl http_body::Body for Read {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
