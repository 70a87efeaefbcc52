//! The answers of one ReadChunk call.
//!
//! While one frame is sent, the next is read and verified by a task of its own; one more waits between them, so a stream
//! holds at most three. The task ends, and with it the descriptor and what it holds, when the client goes away, makes
//! no progress for too long, or has read for too long. A client that does not read cannot be told so: the frame that
//! waits for it is replaced by the reason.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use proto::pb::ReadChunkResponse;
use proto::status::to_status;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

use super::convert;
use crate::error::ChunkError;
use crate::node::Node;
use crate::store::reading::{Frame, RangeReader};

type Answer = Result<ReadChunkResponse, ChunkError>;
/// An answer that its sender can still change.
type Waiting = Arc<Mutex<Option<Answer>>>;

/// The stream of answers.
#[derive(Debug)]
pub(crate) struct ReadStream {
    first: Option<ReadChunkResponse>,
    rest: Option<mpsc::Receiver<Waiting>>,
}

impl ReadStream {
    /// The first answer, and those that `reader` still has.
    pub(crate) fn start(
        node: &Arc<Node>,
        first: ReadChunkResponse,
        reader: RangeReader,
        place: OwnedSemaphorePermit,
    ) -> Self {
        if !reader.has_more() {
            return Self { first: Some(first), rest: None };
        }
        let (answers, rest) = mpsc::channel(1);
        let pump =
            Pump { node: Arc::clone(node), answers, last: None, life_ends: Instant::now() + node.tuning.stream_life };
        node.tasks.spawn("read", async move {
            pump.run(reader).await;
            drop(place);
        });
        Self { first: Some(first), rest: Some(rest) }
    }
}

impl Stream for ReadStream {
    type Item = Result<ReadChunkResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let waiting = ready!(rest.poll_recv(context));
        let answer = waiting.and_then(|waiting| waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
        if !matches!(answer, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(answer.map(|answer| answer.map_err(|error| to_status(&error))))
    }
}

/// Reads ahead of a stream.
struct Pump {
    node: Arc<Node>,
    answers: mpsc::Sender<Waiting>,
    /// What was sent last; it may still wait.
    last: Option<Waiting>,
    life_ends: Instant,
}

impl Pump {
    async fn run(mut self, mut reader: RangeReader) {
        while let Some((later, frame)) = self.read(reader).await {
            reader = later;
            if self.send(frame).await.is_none() {
                return;
            }
        }
    }

    async fn read(&mut self, reader: RangeReader) -> Option<(RangeReader, Frame)> {
        match self.node.store.next_frame(reader).await {
            Ok((reader, frame)) => frame.map(|frame| (reader, frame)),
            Err(error) => {
                self.send_answer(Err(error)).await;
                None
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> Option<()> {
        self.send_answer(Ok(convert::read_frame(frame))).await
    }

    /// `None` when the stream is over.
    async fn send_answer(&mut self, answer: Answer) -> Option<()> {
        let stalls_at = Instant::now() + self.node.tuning.stream_stall;
        let stop = self.node.tasks.stop_signal();
        let cut = tokio::select! {
            biased;
            () = stop.cancelled() => ChunkError::Draining,
            place = self.answers.reserve() => {
                let waiting = Arc::new(Mutex::new(Some(answer)));
                place.ok()?.send(Arc::clone(&waiting));
                self.last = Some(waiting);
                return Some(());
            }
            () = sleep_until(stalls_at.min(self.life_ends)) => ChunkError::Stalled("it was not read for too long, or has lived for too long"),
        };
        if let Some(last) = &self.last {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(cut));
        }
        None
    }
}
