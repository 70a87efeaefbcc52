//! The answers of one ReadChunk call.
//!
//! While one frame is sent, a task of its own reads and verifies the next, once there is room for it to wait in; and
//! the transport takes that one only when the other is sent. So a stream holds at most two. The task ends, and with it the
//! descriptor and what it holds, when the client goes away, makes no progress for too long, or has read for too long.
//!
//! The place of the call lasts until the client has taken the last frame, though the task may be over long before: one that
//! takes nothing of short ranges could have as many as it likes otherwise. Only a stream that is cut gives its place back
//! at once; one frame of it may stay until the connection is closed for not taking it.
//!
//! A stream that is cut always ends with the reason, never as if it were complete: in the place of the frame that waits for
//! the client, or behind the last one that it took.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use proto::limits::{MIB, PIECE_BYTES};
use proto::pb::ReadChunkResponse;
use proto::status::to_status;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

use super::convert;
use crate::error::ChunkError;
use crate::node::Node;
use crate::pace::Pacer;
use crate::places::SharedPlace;
use crate::store::ChunkStore;
use crate::store::reading::RangeReader;

/// What the frames of all streams may hold together before they are made smaller.
const FRAMES_BYTES: u64 = 16 * MIB;

/// The frame size of one of so many streams: at most `largest`, and less, as far as whole pieces allow, when with two frames
/// each they would hold more than [`FRAMES_BYTES`].
pub(super) fn frame_bytes(largest: u64, streams: u64) -> u64 {
    let share = FRAMES_BYTES / (2 * streams.max(1));
    (share - share % PIECE_BYTES).max(PIECE_BYTES).min(largest)
}

type Answer = Result<ReadChunkResponse, ChunkError>;
/// An answer that its sender can still change.
type Waiting = Arc<Mutex<Option<Answer>>>;
/// Why the stream ended before its time, for a client that has taken every frame so far. Only whoever has sent the last
/// frame empties it: a task that ends in any other way has no chance to say why.
type Cut = Arc<Mutex<Option<ChunkError>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a stream has while it lasts.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its place among all streams.
    pub(crate) place: SharedPlace,
    /// Slows it down to its tenant's rate.
    pub(crate) pacer: Pacer,
}

/// The stream of answers.
#[derive(Debug)]
pub(crate) struct ReadStream {
    first: Option<ReadChunkResponse>,
    rest: Option<mpsc::Receiver<Waiting>>,
    cut: Cut,
}

impl ReadStream {
    /// The first answer, and those that `reader` still has.
    pub(crate) fn start(
        node: &Arc<Node>,
        store: Arc<ChunkStore>,
        first: ReadChunkResponse,
        reader: RangeReader,
        Held { place, pacer }: Held,
    ) -> Self {
        let sent = first.data.as_ref().map_or(0, |data| data.content.len() as u64);
        let goes_on_at = pacer.moved(sent);
        if !reader.has_more() {
            return Self { first: Some(first), rest: None, cut: Cut::default() };
        }
        let (stream, answers) = Self::followed(first);
        let life_ends = Instant::now() + node.tuning.stream_life;
        let cut = Arc::clone(&stream.cut);
        let pump = Pump { node: Arc::clone(node), store, answers, cut, life_ends, pacer, place };
        node.tasks.spawn("read", pump.run(reader, goes_on_at));
        stream
    }

    /// A stream with more answers behind its first one, and the way in for them.
    fn followed(first: ReadChunkResponse) -> (Self, mpsc::Sender<Waiting>) {
        let (answers, rest) = mpsc::channel(1);
        let cut = Arc::new(Mutex::new(Some(ChunkError::Panicked)));
        (Self { first: Some(first), rest: Some(rest), cut }, answers)
    }
}

impl Stream for ReadStream {
    type Item = Result<ReadChunkResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let answer = match ready!(rest.poll_recv(context)) {
            Some(waiting) => lock(&waiting).take(),
            None => lock(&self.cut).take().map(Err),
        };
        if !matches!(answer, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(answer.map(|answer| answer.map_err(|error| to_status(&error))))
    }
}

/// Reads ahead of a stream.
struct Pump {
    node: Arc<Node>,
    store: Arc<ChunkStore>,
    answers: mpsc::Sender<Waiting>,
    cut: Cut,
    life_ends: Instant,
    pacer: Pacer,
    place: SharedPlace,
}

impl Pump {
    /// Goes on at `at`, or at once.
    async fn run(self, mut reader: RangeReader, mut at: Option<Instant>) {
        let mut last: Option<Waiting> = None;
        while reader.has_more() {
            let room = match self.room(at.take()).await {
                Ok(Some(room)) => room,
                Ok(None) => return,
                Err(cut) => return self.end(last.as_ref(), cut),
            };
            let (answer, later) = match self.store.next_frame(reader).await {
                Ok((later, Some(frame))) => {
                    at = self.pacer.moved(frame.bytes.len() as u64);
                    (Ok(convert::read_frame(frame)), Some(later))
                }
                Ok((_at_the_end, None)) => break,
                Err(error) => (Err(error), None),
            };
            let waiting = Arc::new(Mutex::new(Some(answer)));
            room.send(Arc::clone(&waiting));
            last = Some(waiting);
            let Some(later) = later else { return };
            reader = later;
        }
        *lock(&self.cut) = None;
    }

    /// Waits until the rate allows another answer and there is room for it; `None` when the client has gone away.
    async fn room(&self, at: Option<Instant>) -> Result<Option<mpsc::Permit<'_, Waiting>>, ChunkError> {
        if let Some(at) = at {
            let stop = self.node.tasks.stop_signal();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(ChunkError::Draining),
                () = self.answers.closed() => return Ok(None),
                () = sleep_until(at.min(self.life_ends)) => {}
            }
        }
        // Only from here on it is the client that is waited for.
        let stalls_at = Instant::now() + self.node.tuning.stream_stall;
        let stop = self.node.tasks.stop_signal();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ChunkError::Draining),
            () = sleep_until(self.life_ends) => Err(ChunkError::Stalled("it has lived for too long")),
            room = self.answers.reserve() => Ok(room.ok()),
            () = sleep_until(stalls_at) => Err(ChunkError::Stalled("it was not read for too long")),
        }
    }

    /// Leaves the reason where the client comes next: in the frame that still waits for it, or behind the last one.
    fn end(&self, last: Option<&Waiting>, cut: ChunkError) {
        let mut waiting = last.map(|last| lock(last)).filter(|waiting| waiting.is_some());
        match &mut waiting {
            Some(waiting) => **waiting = Some(Err(cut)),
            None => *lock(&self.cut) = Some(cut),
        }
        drop(waiting);
        self.place.give_back();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;

    #[test]
    fn frames_are_smaller_the_more_streams_there_are_but_never_less_than_a_piece() {
        const KIB: u64 = proto::limits::KIB;
        for (streams, bytes) in [(1, 512), (16, 512), (17, 448), (32, 256), (64, 128), (100, 64), (10_000, 64)] {
            assert_eq!(frame_bytes(512 * KIB, streams), bytes * KIB, "{streams} streams");
        }
        assert_eq!(frame_bytes(1, 1), 1, "as it was told");
    }

    /// A service that stopped in the middle of a read once ended the stream in good order when the client had just taken
    /// the last frame: the reason was left in a place where nobody looked any more, and bytes were missing with code OK.
    #[tokio::test]
    async fn a_stream_that_is_cut_ends_with_the_reason_also_when_no_frame_waits() {
        let cut: Cut = Arc::new(Mutex::new(Some(ChunkError::Draining)));
        let (answers, rest) = mpsc::channel(1);
        let mut stream = ReadStream { first: None, rest: Some(rest), cut };
        let frame = ReadChunkResponse { read_offset: 7, ..Default::default() };
        answers.send(Arc::new(Mutex::new(Some(Ok(frame))))).await.unwrap();
        drop(answers);
        assert_eq!(stream.next().await.unwrap().unwrap().read_offset, 7);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(stream.next().await.is_none());
    }

    /// A panic in the task that reads ahead once looked like the end of the range: bytes were missing with code OK.
    #[tokio::test]
    async fn a_stream_whose_task_is_gone_without_a_word_ends_with_an_error() {
        let (mut stream, answers) = ReadStream::followed(ReadChunkResponse::default());
        let reading = proto::runtime::TaskGroup::new().spawn("read", async move {
            let _answers = answers;
            panic!("as planned");
        });
        assert!(matches!(reading.await, Ok(None::<()>)));
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Internal);
        assert!(stream.next().await.is_none());
    }
}
