//! One WriteChunk stream, from its first message to the receipt or to the reason why there is none.
//!
//! Runs in a task of its own, so that a client that goes away cancels nothing: what was received is kept for its next
//! stream, and a write whose bytes are all there becomes durable (I1). Frames are checked as they come: place, length,
//! CRC-32C. What the stream may last is bounded by its own progress, by its life, and by its capability (I10, I17).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::checksum::{ChunkSums, Sha256, crc32c};
use proto::ids::ChunkId;
use proto::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::ChunkError;
use crate::node::{Node, WriteGrant};
use crate::pace::Pacer;
use crate::store::sessions::Claim;
use crate::store::sink::Sink;
use crate::store::writing::{Announced, Stated};

/// A stream that is silent for this long has what it sent so far written, whatever little it is.
const NUDGE: Duration = Duration::from_millis(50);
/// No capability is followed for longer than this, so that no sum of times can overflow.
const GRANT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a stream is about: its first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The chunk.
    pub(crate) chunk: ChunkId,
    /// Its size, when it is known.
    pub(crate) size_bytes: Option<u64>,
    /// The first message's own frame.
    pub(crate) frame: Frame,
}

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where its bytes begin.
    pub(crate) offset: u64,
    /// Its bytes; may be none.
    pub(crate) bytes: Bytes,
    /// Their CRC-32C, when the writer stated one.
    pub(crate) crc32c: Option<u32>,
    /// Set in the last message.
    pub(crate) finish: Option<Finish>,
}

/// What the last message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finish {
    /// The chunk's SHA-256, when the writer stated one.
    pub(crate) sha256: Option<Sha256>,
}

/// Why no frame comes.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// The stream broke.
    Broken,
    /// What came is not a frame.
    Invalid(ChunkError),
}

/// Where frames come from. Both methods may be cancelled without losing a message.
pub(crate) trait FrameSource: Send {
    /// The first message.
    fn opening(&mut self) -> impl Future<Output = Result<Opening, SourceError>> + Send;
    /// The next message; `None` at the end of the stream.
    fn next(&mut self) -> impl Future<Output = Result<Option<Frame>, SourceError>> + Send;
}

/// How the receiving of a stream ended.
enum End {
    /// With its last message.
    Finished(Finish),
    /// What came so far is good, and may be gone on with.
    Left(ChunkError),
    /// What came so far is of no use.
    Failed(ChunkError),
}

/// Receives one stream.
pub(crate) async fn run(
    node: Arc<Node>,
    grant: WriteGrant,
    pacer: Pacer,
    mut source: impl FrameSource,
    gone: CancellationToken,
) -> Result<ChunkSums, ChunkError> {
    let timers = Timers::new(&node, &grant);
    let opening = timers.opening(&mut source, &gone).await?;
    if opening.chunk != grant.place.chunk {
        return Err(ChunkError::CapabilityInvalid);
    }
    let max_bytes = permitted(&grant, opening.size_bytes)?;
    node.writable()?;
    let offset = opening.frame.offset;
    let store = node.store.on_account(grant.account());
    let mut claim = store.claim_for_write(&grant.place, offset).await?;
    let size = Announced { exact: opening.size_bytes, most: max_bytes };
    let sink = store.begin(&mut claim, &grant.tenant, grant.place, offset, size).await?;
    let mut stream = Stream { claim, sink, source, timers, pacer, goes_on_at: None, max_bytes, gone };
    stream.tell_received();
    stream.timers.progress();
    let end = stream.receive(opening.frame).await;
    let Stream { claim, sink, .. } = stream;
    match end {
        End::Finished(Finish { sha256 }) => {
            store.complete(claim, sink, Stated { size_bytes: opening.size_bytes, sha256 }).await
        }
        End::Left(error) => store.park(claim, sink).await.and(Err(error)),
        End::Failed(error) => store.give_up(&claim, sink.has_file()).await.and(Err(error)),
    }
}

fn permitted(grant: &WriteGrant, announced: Option<u64>) -> Result<u64, ChunkError> {
    let max = grant.max_bytes.min(CHUNK_BYTES_MAX);
    match announced {
        Some(size) if size > max => {
            Err(ChunkError::field("spec.size_bytes", format!("is more than the {max} bytes that are permitted")))
        }
        Some(size) => Ok(size),
        None => Ok(max),
    }
}

/// When a stream is cut.
#[derive(Debug)]
struct Timers {
    stall: Duration,
    life_ends: Instant,
    grant_ends: Instant,
    stalls_at: Instant,
    stop: CancellationToken,
}

impl Timers {
    fn new(node: &Node, grant: &WriteGrant) -> Self {
        let now = Instant::now();
        Self {
            stall: node.tuning.stream_stall,
            life_ends: now + node.tuning.stream_life,
            grant_ends: now + grant.holds_for.min(GRANT_MAX),
            stalls_at: now + node.tuning.stream_stall,
            stop: node.tasks.stop_signal(),
        }
    }

    fn progress(&mut self) {
        self.progress_until(Instant::now());
    }

    /// Until then nothing is expected to come.
    fn progress_until(&mut self, until: Instant) {
        self.stalls_at = until + self.stall;
    }

    /// Ends when the stream's time is over, with the reason.
    async fn cut(&self) -> ChunkError {
        loop {
            if let Some(over) = self.over() {
                return over;
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep_until(self.stalls_at.min(self.life_ends).min(self.grant_ends)) => {}
            }
        }
    }

    /// Why the stream's time is over, if it is. Asked before each message: a stream that always has one at hand would
    /// not let a timer fire.
    fn over(&self) -> Option<ChunkError> {
        let now = Instant::now();
        if self.stop.is_cancelled() {
            Some(ChunkError::Draining)
        } else if now >= self.grant_ends {
            Some(ChunkError::CapabilityExpired)
        } else if now >= self.life_ends {
            Some(ChunkError::Stalled("it has lived for too long; go on with a new one"))
        } else if now >= self.stalls_at {
            Some(ChunkError::Stalled("it made no progress for too long; go on with a new one"))
        } else {
            None
        }
    }

    async fn opening(&self, source: &mut impl FrameSource, gone: &CancellationToken) -> Result<Opening, ChunkError> {
        tokio::select! {
            biased;
            () = gone.cancelled() => Err(broken()),
            opening = source.opening() => opening.map_err(|error| match error {
                SourceError::Broken => broken(),
                SourceError::Invalid(error) => error,
            }),
            error = self.cut() => Err(error),
        }
    }
}

fn broken() -> ChunkError {
    ChunkError::Stalled("the connection broke; go on with a new one")
}

struct Stream<S> {
    claim: Claim,
    sink: Sink,
    source: S,
    timers: Timers,
    pacer: Pacer,
    /// When the tenant's rate allows the next message, if not now.
    goes_on_at: Option<Instant>,
    max_bytes: u64,
    gone: CancellationToken,
}

impl<S: FrameSource> Stream<S> {
    async fn receive(&mut self, first: Frame) -> End {
        let mut frame = first;
        loop {
            match self.take(frame).await {
                Ok(None) => {}
                Ok(Some(finish)) => return self.expect_end(finish).await,
                Err(end) => return end,
            }
            frame = match self.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    let problem = "the stream ended without it; what came is kept for a while";
                    return End::Left(ChunkError::field("finish_write", problem));
                }
                Err(end) => return end,
            };
        }
    }

    /// Waits for the next message, and writes what is there when none comes for a moment.
    async fn next(&mut self) -> Result<Option<Frame>, End> {
        self.pause().await?;
        loop {
            let nudge = Instant::now() + NUDGE;
            let has_waiting = self.sink.has_waiting();
            tokio::select! {
                biased;
                () = self.claim.stop().cancelled() => return Err(End::Left(ChunkError::TakenOver)),
                () = self.gone.cancelled() => return Err(End::Left(broken())),
                error = self.timers.cut() => return Err(End::Left(error)),
                frame = self.source.next() => return frame.map_err(|error| End::Left(match error {
                    SourceError::Broken => broken(),
                    SourceError::Invalid(error) => error,
                })),
                () = sleep_until(nudge), if has_waiting => {}
            }
            self.sink.nudge().await.map_err(End::Failed)?;
        }
    }

    /// Waits until the tenant's rate allows more, without what others of them could use.
    async fn pause(&mut self) -> Result<(), End> {
        let Some(until) = self.goes_on_at.take() else { return Ok(()) };
        self.sink.nudge().await.map_err(End::Failed)?;
        // Nor is it the client's silence.
        self.timers.progress_until(until);
        tokio::select! {
            biased;
            () = self.claim.stop().cancelled() => Err(End::Left(ChunkError::TakenOver)),
            () = self.gone.cancelled() => Err(End::Left(broken())),
            error = self.timers.cut() => Err(End::Left(error)),
            () = sleep_until(until) => Ok(()),
        }
    }

    /// Checks a frame and takes its bytes.
    async fn take(&mut self, frame: Frame) -> Result<Option<Finish>, End> {
        self.check(&frame).map_err(End::Left)?;
        if !frame.bytes.is_empty() {
            self.goes_on_at = self.pacer.moved(frame.bytes.len() as u64);
            self.sink.push(frame.bytes).await.map_err(End::Failed)?;
            self.tell_received();
            // After the push: what the disk takes is not the client's silence.
            self.timers.progress();
        }
        Ok(frame.finish)
    }

    fn check(&self, frame: &Frame) -> Result<(), ChunkError> {
        let (length, persisted) = (frame.bytes.len() as u64, self.sink.received());
        if frame.offset != persisted {
            return Err(ChunkError::WriteOffsetMismatch { persisted });
        }
        if length > FRAME_BYTES_MAX {
            return Err(ChunkError::FrameTooLarge { max: FRAME_BYTES_MAX });
        }
        if persisted.saturating_add(length) > self.max_bytes {
            let problem = format!("ends behind the {} bytes that were announced or are permitted", self.max_bytes);
            return Err(ChunkError::field("data.content", problem));
        }
        if frame.crc32c.is_some_and(|stated| stated != crc32c(&frame.bytes)) {
            return Err(ChunkError::ChecksumMismatch { what: "the frame", sum: "crc32c" });
        }
        Ok(())
    }

    /// Behind the last message nothing may come.
    async fn expect_end(&mut self, finish: Finish) -> End {
        match self.next().await {
            Ok(None) => End::Finished(finish),
            Ok(Some(_)) => End::Left(ChunkError::field("finish_write", "nothing may follow the last message")),
            Err(end) => end,
        }
    }

    /// Lets QueryWriteStatus and a later stream know how far this one is.
    fn tell_received(&self) {
        if !self.sink.is_comparison() {
            self.claim.set_received(Some(self.sink.received()));
        }
    }
}

#[cfg(test)]
mod tests;
