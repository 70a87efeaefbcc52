//! Reading the wanted bytes of one block, verified frame by frame, over as many streams as it takes.
//!
//! A frame is passed on only if it is where it belongs and its CRC-32C is right; so a stream that breaks, stalls or is
//! cut because nobody read it is opened anew at the byte reached. A copy that is damaged or gone is passed over for the
//! next one; only when none is left the blob is damaged (I2).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::checksum::crc32c;
use proto::error::{Kind, Reason, Retry};
use proto::ids::BlobId;
use proto::pb;
use proto::status::WireError;
use tonic::{Code, Response, Streaming};

use super::layout::{Block, LayoutSource, Part};
use crate::call::{attempt, bearer, request};
use crate::channel::Peer;
use crate::error::{Call, Error, Service};
use crate::progress::Meter;
use crate::retry::Budget;

/// How long to wait for the end of a stream whose bytes are all here.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads one part.
#[derive(Debug)]
pub(super) struct BlockReader {
    source: LayoutSource,
    part: Part,
    /// Next byte, within the block.
    position: u64,
    /// Which copy is read.
    copy: usize,
    /// Times that a copy turned out damaged.
    damages: usize,
    stream: Option<Open>,
    /// A message that is already here, and would be a stream's only one.
    ahead: Option<pb::ReadChunkResponse>,
    /// Why opening the stream ahead of time failed.
    failed: Option<Error>,
    meter: Meter,
    budget: Budget,
}

#[derive(Debug)]
struct Open {
    messages: Streaming<pb::ReadChunkResponse>,
    peer: Arc<Peer>,
    /// Messages received.
    received: u64,
}

impl BlockReader {
    pub(super) fn new(source: &LayoutSource, part: Part, meter: &Meter) -> Self {
        Self {
            budget: Budget::new(source.client.config().retry),
            source: source.clone(),
            position: part.start,
            part,
            copy: 0,
            damages: 0,
            stream: None,
            ahead: None,
            failed: None,
            meter: meter.clone(),
        }
    }

    /// With what a batch brought of it.
    pub(super) fn with(self, ahead: Option<pb::ReadChunkResponse>) -> Self {
        Self { ahead, ..self }
    }

    pub(super) fn part(&self) -> &Part {
        &self.part
    }

    pub(super) fn blob_id(&self) -> BlobId {
        self.source.blob_id
    }

    pub(super) fn left_bytes(&self) -> u64 {
        self.part.end - self.position
    }

    /// Opens the stream ahead of the first read. A failure is dealt with then.
    pub(super) async fn opened(mut self) -> Self {
        match self.open().await {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => self.failed = Some(error),
        }
        self
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// What cannot be repeated, or was repeated in vain.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left_bytes() == 0 {
            self.close().await;
            return Ok(None);
        }
        loop {
            let error = match self.receive().await {
                Ok(content) => {
                    self.position += content.len() as u64;
                    self.meter.add(content.len() as u64);
                    return Ok(Some(content));
                }
                Err(error) => error,
            };
            self.recover(error).await?;
        }
    }

    async fn receive(&mut self) -> Result<Bytes, Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(message) = self.ahead.take() {
            return self.verified(message, true);
        }
        let call = self.call();
        let mut open = match self.stream.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        let stall = self.source.client.config().stall_timeout;
        let message = attempt(&open.peer, &call, stall, open.messages.message()).await;
        let first = open.received == 0;
        open.received += u64::from(message.is_ok());
        self.stream = Some(open);
        // A service that stops may end its streams in good order.
        let message = message?.ok_or(Error::Broken { call: Box::new(call), source: None })?;
        self.verified(message, first)
    }

    async fn open(&self) -> Result<Open, Error> {
        let location = self.location();
        let peer = self.peer(location)?;
        let malformed = || self.source.malformed("a malformed capability");
        let authorization = bearer(&location.capability).ok_or_else(malformed)?;
        let message = pb::ReadChunkRequest {
            chunk_id: location.chunk_id.clone(),
            read_offset: self.position,
            read_limit: self.left_bytes(),
        };
        let mut service = peer.chunk_client(self.source.frame_bytes_max);
        let answer = service.read_chunk(request(message, Some(&authorization)));
        let within = self.source.client.config().call_timeout;
        let messages = attempt(&peer, &self.call(), within, answer).await.map(Response::into_inner)?;
        Ok(Open { messages, peer: Arc::clone(&peer), received: 0 })
    }

    /// Ends a stream whose bytes are all here, so that the node sees a complete call. How it ends does not matter.
    async fn close(&mut self) {
        if let Some(mut open) = self.stream.take() {
            drop(tokio::time::timeout(CLOSE_TIMEOUT, open.messages.message()).await);
        }
    }

    /// The content of a message, if it is what was asked for.
    fn verified(&self, message: pb::ReadChunkResponse, first: bool) -> Result<Bytes, Error> {
        let Block { size_bytes, sha256, .. } = self.part.block;
        if first {
            let info = message.chunk.ok_or_else(|| self.protocol("nothing about the chunk"))?;
            if info.chunk_id != self.location().chunk_id || info.size_bytes != size_bytes {
                return Err(self.protocol("another chunk"));
            }
            if info.sha256 != sha256.to_string() {
                return Err(self.damaged("has another SHA-256 than the metadata holds"));
            }
        }
        let data = message.data.ok_or_else(|| self.protocol("a frame without data"))?;
        let bytes = data.content.len() as u64;
        if message.read_offset != self.position || bytes == 0 || bytes > self.left_bytes() {
            return Err(self.protocol("other bytes than asked for"));
        }
        let stated = data.crc32c.ok_or_else(|| self.protocol("a frame without its CRC-32C"))?;
        if crc32c(&data.content) != stated {
            return Err(self.damaged(&format!("does not match its CRC-32C at byte {}", self.position)));
        }
        Ok(data.content)
    }

    /// Prepares for another attempt, unless the failure is final.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        match self.stream.take() {
            Some(open) if open.received > 0 => self.budget.progressed(),
            // It was open, so the node was there: that it is cut now, perhaps after a long wait for its turn, is new.
            Some(_) => self.budget.renew(),
            None => {}
        }
        if is_damage(&error) {
            return self.pass_over(error);
        }
        let answered = self.peer(self.location()).is_ok_and(|peer| peer.has_answered());
        let spent = self.budget.spend(error, answered)?;
        tokio::time::sleep(spent.pause).await;
        self.copy += 1;
        let unreachable = matches!(spent.error, Error::Unreachable { .. });
        if unreachable || spent.error.retry() == Retry::Refresh || spent.error.reason() == Some(Reason::NoChunkNode) {
            self.refresh(unreachable).await?;
        }
        Ok(())
    }

    /// Goes on with the next copy; a sum that was wrong once may be right the second time, since it may have been the
    /// network.
    fn pass_over(&mut self, error: Error) -> Result<(), Error> {
        let repeats = usize::from(matches!(error, Error::Damaged { .. }));
        self.damages += 1;
        self.copy += 1;
        if self.damages >= self.part.block.copies.len() + repeats { Err(error) } else { Ok(()) }
    }

    /// Takes fresh capabilities and endpoints. Where a node could not be reached, the old ones may do.
    async fn refresh(&mut self, optional: bool) -> Result<(), Error> {
        match self.source.refresh(&self.part.block).await {
            Ok(block) => self.part.block = block,
            Err(error) if optional && error.retryable() => tracing::debug!(%error, "going on with the old layout"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn location(&self) -> &pb::ChunkLocation {
        let copies = &self.part.block.copies;
        copies.get(self.copy % copies.len().max(1)).expect("a block without copies is refused when its layout is read")
    }

    fn peer(&self, location: &pb::ChunkLocation) -> Result<Arc<Peer>, Error> {
        if location.endpoint.is_empty() {
            return Err(self.no_endpoint());
        }
        self.source.client.peers().node(&location.endpoint)
    }

    fn call(&self) -> Call {
        let location = self.location();
        let operation = format!("read chunk {} of blob {}", location.chunk_id, self.source.blob_id);
        Call { operation, service: Service::Chunk, endpoint: location.endpoint.clone() }
    }

    /// The metadata service has not heard of the node since its start: it will, shortly.
    fn no_endpoint(&self) -> Error {
        let answer = WireError {
            code: Code::Unavailable,
            reason: Some(Reason::NoChunkNode),
            message: format!("node {} has not reported yet", self.location().node_id),
            facts: HashMap::new(),
            retry_after: None,
            request_id: None,
        };
        Error::Refused { call: Box::new(self.call()), answer: Box::new(answer) }
    }

    fn protocol(&self, problem: &str) -> Error {
        Error::Protocol { call: Box::new(self.call()), problem: problem.to_owned() }
    }

    fn damaged(&self, problem: &str) -> Error {
        let problem = format!("chunk {} of block {} {problem}", self.location().chunk_id, self.part.block.index);
        Error::Damaged { blob_id: self.source.blob_id, problem }
    }
}

/// Whether the failure is one of the copy, not of the way to it.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. }) || error.reason().is_some_and(|reason| reason.kind() == Kind::DataLoss)
}
