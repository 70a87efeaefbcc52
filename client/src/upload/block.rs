//! Writing one block: one stream, or as many as it takes.
//!
//! Each frame is noted in the [`Replay`] before it is sent, so a stream may break at any moment. What the node has is then
//! asked for, and the next stream goes on there; a node that was restarted has nothing, and gets the block from its
//! start. The block is done when its receipt is here (I5), wherever it was asked for.

use bytes::Bytes;
use proto::checksum::Sha256;
use proto::error::Retry;
use proto::pb;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Response;

use super::input::Kept;
use super::intake::Intake;
use super::producer::{Frame, OpenBlock};
use super::replay::Replay;
use super::session::{Session, UploadHandle};
use super::target::Target;
use crate::call::{attempt, request};
use crate::config::ClientConfig;
use crate::error::Error;
use crate::progress::Meter;
use crate::retry::Budget;

/// Messages between the pump and the transport: one being encoded, one ready.
const MESSAGES_AHEAD: usize = 2;

/// A block that is durable.
#[derive(Debug)]
pub(super) struct SealedBlock {
    pub(super) size_bytes: u64,
    pub(super) sha256: Sha256,
    pub(super) receipt: Bytes,
}

/// Writes one block.
#[derive(Debug)]
pub(super) struct BlockWriter {
    handle: UploadHandle,
    index: u64,
    /// What the spec states: the block's size, when it is known before its bytes are.
    size_bytes: Option<u64>,
    target: Target,
    intake: Intake,
    meter: Meter,
    metered_bytes: u64,
    persisted_bytes: u64,
    budget: Budget,
    /// Held until the block is durable.
    _slot: OwnedSemaphorePermit,
}

enum Recovered {
    Sealed(SealedBlock),
    ResumeAt(u64),
}

impl BlockWriter {
    pub(super) fn new(
        session: &Session,
        plan: &pb::BlockPlan,
        block: OpenBlock,
        file: Option<Kept>,
        meter: Meter,
    ) -> Result<Self, Error> {
        let handle = session.handle.clone();
        let (index, offset) = (block.index, block.index * session.cut.block_bytes);
        if (plan.block_index, plan.offset_bytes) != (index, offset) || plan.max_bytes > session.cut.block_bytes {
            return Err(handle.malformed("a plan that does not follow the one before it"));
        }
        Ok(Self {
            target: Target::of(&handle, plan)?,
            index,
            size_bytes: file.is_some().then_some(plan.max_bytes),
            intake: Intake::new(
                offset,
                plan.max_bytes,
                block.pieces,
                Replay::new(session.cut.frame_bytes, offset, file),
            ),
            meter,
            metered_bytes: 0,
            persisted_bytes: 0,
            budget: Budget::new(handle.client.config().retry),
            _slot: block.slot,
            handle,
        })
    }

    /// Writes the block and returns what the node states about it.
    ///
    /// # Errors
    /// What cannot be repeated, or was repeated in vain.
    pub(super) async fn run(mut self) -> Result<(u64, SealedBlock), Error> {
        let mut start = 0;
        loop {
            let error = match self.stream_from(start).await {
                Ok(answer) => return self.sealed(answer).await.map(|sealed| (self.index, sealed)),
                Err(error) => error,
            };
            match self.recover(error).await? {
                Recovered::Sealed(sealed) => return Ok((self.index, sealed)),
                Recovered::ResumeAt(offset) => start = offset,
            }
        }
    }

    fn config(&self) -> &ClientConfig {
        self.handle.client.config()
    }

    /// One stream, to its answer.
    async fn stream_from(&mut self, start: u64) -> Result<pb::WriteChunkResponse, Error> {
        let target = self.target.clone();
        let mut service = target.peer.chunk_client(self.handle.frame_bytes_max);
        let (messages, body) = mpsc::channel(MESSAGES_AHEAD);
        let mut answer =
            std::pin::pin!(service.write_chunk(request(ReceiverStream::new(body), Some(&target.authorization))));
        let early = tokio::select! {
            answer = &mut answer => Some(answer),
            pumped = self.pump(start, messages) => pumped.map(|()| None)?,
        };
        let rest = async {
            match early {
                Some(answer) => answer,
                None => answer.await,
            }
        };
        let call = target.call("write chunk");
        attempt(&target.peer, &call, self.config().sync_timeout, rest).await.map(Response::into_inner)
    }

    /// Sends everything from this offset on. Ends early when the stream takes no more: its answer then says why.
    async fn pump(&mut self, start: u64, messages: mpsc::Sender<pb::WriteChunkRequest>) -> Result<(), Error> {
        let mut offset = start;
        let mut spec = Some(pb::WriteChunkSpec { chunk_id: self.target.chunk_id.clone(), size_bytes: self.size_bytes });
        while let Some(Frame { content, crc32c }) = self.intake.frame_at(offset).await? {
            let end = offset + content.len() as u64;
            let data = Some(pb::ChunkData { content, crc32c: Some(crc32c) });
            let message = pb::WriteChunkRequest { spec: spec.take(), write_offset: offset, data, ..Default::default() };
            if !self.hand_over(&messages, message).await? {
                return Ok(());
            }
            offset = end;
            self.meter_up_to(offset);
        }
        let sha256 = self.intake.sha256();
        let last = pb::WriteChunkRequest {
            spec,
            write_offset: offset,
            data: None,
            finish_write: true,
            checksums: sha256.map(|sha256| pb::ChunkChecksums { sha256: sha256.to_string() }),
        };
        self.hand_over(&messages, last).await.map(|_taken| ())
    }

    /// Whether the stream took the message.
    async fn hand_over(
        &self,
        messages: &mpsc::Sender<pb::WriteChunkRequest>,
        message: pb::WriteChunkRequest,
    ) -> Result<bool, Error> {
        let after = self.config().stall_timeout;
        match tokio::time::timeout(after, messages.send(message)).await {
            Ok(taken) => Ok(taken.is_ok()),
            Err(_elapsed) => Err(Error::TimedOut { call: Box::new(self.target.call("write chunk")), after }),
        }
    }

    fn meter_up_to(&mut self, bytes: u64) {
        self.meter.add(bytes.saturating_sub(self.metered_bytes));
        self.metered_bytes = self.metered_bytes.max(bytes);
    }

    /// After a failure: finds out what the node has, with fresh permission if need be.
    async fn recover(&mut self, mut error: Error) -> Result<Recovered, Error> {
        if self.intake.is_starved() && error.retryable() {
            // A stream without input is cut; it is opened anew when there is something to send.
            self.budget.progressed();
            self.intake.frame_at(self.intake.bytes()).await?;
        }
        loop {
            // A node that cannot be reached may have come back elsewhere.
            let refresh = error.retry() == Retry::Refresh || matches!(error, Error::Unreachable { .. });
            let spent = self.budget.spend(error, self.target.peer.has_answered())?;
            tokio::time::sleep(spent.pause).await;
            if refresh {
                self.refresh().await?;
            }
            match self.query().await {
                Ok(status) => return self.recovered(status).await,
                Err(failure) => error = failure,
            }
        }
    }

    /// Takes a fresh capability, and the node's present endpoint with it.
    async fn refresh(&mut self) -> Result<(), Error> {
        let plans = self.handle.clone().allocate(self.index, 1, Vec::new()).await?;
        let plan = plans.iter().find(|plan| plan.block_index == self.index);
        let target =
            Target::of(&self.handle, plan.ok_or_else(|| self.handle.malformed("no plan of a planned block"))?)?;
        if target.chunk_id != self.target.chunk_id {
            return Err(self.handle.malformed("another chunk for a block that is being written"));
        }
        self.target = target;
        Ok(())
    }

    async fn query(&self) -> Result<pb::QueryWriteStatusResponse, Error> {
        let Target { peer, chunk_id, authorization } = &self.target;
        let mut service = peer.chunk_client(self.handle.frame_bytes_max);
        let message = pb::QueryWriteStatusRequest { chunk_id: chunk_id.clone() };
        let answer = service.query_write_status(request(message, Some(authorization)));
        let call = self.target.call("query the write of chunk");
        attempt(peer, &call, self.config().call_timeout, answer).await.map(Response::into_inner)
    }

    async fn recovered(&mut self, status: pb::QueryWriteStatusResponse) -> Result<Recovered, Error> {
        if status.complete {
            let answer = pb::WriteChunkResponse {
                chunk_id: self.target.chunk_id.clone(),
                persisted_size_bytes: status.persisted_size_bytes,
                sha256: status.sha256,
                receipt: status.receipt,
            };
            return self.sealed(answer).await.map(Recovered::Sealed);
        }
        if status.persisted_size_bytes > self.persisted_bytes {
            self.persisted_bytes = status.persisted_size_bytes;
            self.budget.progressed();
        } else {
            self.budget.renew();
        }
        Ok(Recovered::ResumeAt(self.intake.resume_at(status.persisted_size_bytes)))
    }

    /// Checks the node's statement against the whole block. It may come before that was sent: a call that failed may have
    /// written the chunk all the same.
    async fn sealed(&mut self, answer: pb::WriteChunkResponse) -> Result<SealedBlock, Error> {
        self.intake.read_to_end().await?;
        let protocol = |problem: &str| Error::Protocol {
            call: Box::new(self.target.call("write chunk")),
            problem: problem.to_owned(),
        };
        if answer.chunk_id != self.target.chunk_id || answer.persisted_size_bytes != self.intake.bytes() {
            return Err(protocol("a receipt for something else"));
        }
        let sha256 = answer.sha256.parse().map_err(|_malformed| protocol("no SHA-256"))?;
        if self.intake.sha256().is_some_and(|expected| expected != sha256) {
            return Err(protocol("another SHA-256 than that of the bytes sent"));
        }
        Ok(SealedBlock { size_bytes: answer.persisted_size_bytes, sha256, receipt: answer.receipt })
    }
}
