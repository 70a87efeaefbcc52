//! Blobs that fit into one message: read and summed at once, written by WriteChunks.
//!
//! The node's statement is held against the sums of what was sent (I2), as for a stream. A write that fails says nothing
//! about the chunk: the same plan is good for a stream, which starts it again, and which has the patience.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use proto::checksum::{Sha256, crc32c};
use proto::pb;
use proto::pb::write_chunks_result::Outcome;
use proto::status::item_status;
use tonic::Request;

use super::producer::Whole;
use super::session::Session;
use crate::call::attempt;
use crate::error::{Call, Error};
use crate::gather::Writes;

/// A small blob's bytes, and their sums.
#[derive(Debug)]
pub(super) struct Small {
    content: Bytes,
    crc32c: u32,
    pub(super) whole: Whole,
}

impl Small {
    pub(super) fn of(content: Bytes) -> Self {
        let whole = Whole { size_bytes: content.len() as u64, sha256: Sha256::of(&content) };
        Self { crc32c: crc32c(&content), whole, content }
    }

    pub(super) fn content(&self) -> Bytes {
        self.content.clone()
    }
}

/// An upload that is open, and all that it is to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending<'a> {
    pub(super) session: &'a Session,
    pub(super) plans: &'a [pb::BlockPlan],
    pub(super) small: &'a Small,
}

/// Writes one, maybe with others that are under way at the same time, and returns its receipts; `None` when it could not
/// be written this way.
pub(super) async fn write_one(session: &Session, plans: &[pb::BlockPlan], small: &Small) -> Option<Vec<Bytes>> {
    let pending = Pending { session, plans, small };
    if pending.is_empty() {
        return Some(Vec::new());
    }
    let (chunk, item) = (pending.chunk()?, pending.item()?);
    let written = async {
        let client = &session.handle.client;
        let (peer, within) = (client.peers().node(&chunk.endpoint)?, client.config().call_timeout);
        let call = peer.call("write a small chunk");
        let answer = peer.writes.ask(Writes { peer: Arc::clone(&peer), within }, item);
        receipt(&call, &pending, attempt(&peer, &call, within, answer).await?)
    };
    match written.await {
        Ok(receipt) => Some(vec![receipt]),
        Err(error) => {
            tracing::debug!(%error, "a small blob goes on as a stream");
            None
        }
    }
}

/// Writes all, those of one node in one call, and returns the receipts of each in order.
pub(super) async fn write_all(pending: &[Pending<'_>]) -> Vec<Option<Vec<Bytes>>> {
    let mut nodes: HashMap<&str, Vec<(usize, Pending<'_>)>> = HashMap::new();
    let mut receipts: Vec<_> = pending.iter().map(|_| None).collect();
    for (index, (item, receipts)) in pending.iter().zip(&mut receipts).enumerate() {
        match item.chunk() {
            Some(chunk) => nodes.entry(&chunk.endpoint).or_default().push((index, *item)),
            None if item.is_empty() => *receipts = Some(Vec::new()),
            None => {}
        }
    }
    let calls = nodes.into_iter().map(|(endpoint, items)| write_to(endpoint, items));
    for outcome in join_all(calls).await {
        match outcome {
            Ok(written) => written.into_iter().for_each(|(index, receipt)| {
                if let Some(receipts) = receipts.get_mut(index) {
                    *receipts = Some(vec![receipt]);
                }
            }),
            Err(error) => tracing::debug!(%error, "small blobs go on as streams"),
        }
    }
    receipts
}

impl<'a> Pending<'a> {
    /// Nothing is to be written of a blob without bytes.
    fn is_empty(&self) -> bool {
        self.plans.is_empty() && self.small.whole.size_bytes == 0
    }

    /// Where its only block goes, if the plan is one for it.
    fn chunk(&self) -> Option<&'a pb::ChunkPlan> {
        let [pb::BlockPlan { block_index: 0, max_bytes, chunks, .. }] = self.plans else { return None };
        let [chunk] = &**chunks else { return None };
        (*max_bytes == self.small.whole.size_bytes).then_some(chunk)
    }

    fn item(&self) -> Option<pb::WriteChunksItem> {
        let chunk = self.chunk()?;
        let Small { content, crc32c, whole } = self.small;
        Some(pb::WriteChunksItem {
            chunk_id: chunk.chunk_id.clone(),
            capability: chunk.capability.clone(),
            data: Some(pb::ChunkData { content: content.clone(), crc32c: Some(*crc32c) }),
            checksums: Some(pb::ChunkChecksums { sha256: whole.sha256.to_string() }),
        })
    }
}

/// One call to one node. Returns the receipts of what it wrote.
async fn write_to(endpoint: &str, items: Vec<(usize, Pending<'_>)>) -> Result<Vec<(usize, Bytes)>, Error> {
    let Some((_, Pending { session, .. })) = items.first() else { return Ok(Vec::new()) };
    let client = &session.handle.client;
    let peer = client.peers().node(endpoint)?;
    let call = peer.call("write small chunks");
    let message = pb::WriteChunksRequest { chunks: items.iter().filter_map(|(_, item)| item.item()).collect() };
    let mut service = peer.chunk_client(session.handle.frame_bytes_max);
    let answer = service.write_chunks(Request::new(message));
    let answer = attempt(&peer, &call, client.config().call_timeout, answer).await?;
    let results = items.iter().zip(answer.into_inner().results);
    let receipts = results.filter_map(|((index, item), result)| match receipt_of(&call, item, result) {
        Ok(receipt) => Some((*index, receipt)),
        Err(error) => {
            tracing::debug!(%error, "a small blob goes on as a stream");
            None
        }
    });
    Ok(receipts.collect())
}

fn receipt_of(call: &Call, item: &Pending<'_>, result: pb::WriteChunksResult) -> Result<Bytes, Error> {
    match result.outcome {
        Some(Outcome::Answer(answer)) => receipt(call, item, answer),
        Some(Outcome::Error(error)) => Err(Error::from_call(call, item_status(&error))),
        None => Err(protocol(call, "a result without an outcome")),
    }
}

fn protocol(call: &Call, problem: &str) -> Error {
    Error::Protocol { call: Box::new(call.clone()), problem: problem.to_owned() }
}

/// Checks the node's statement against what was sent.
fn receipt(call: &Call, item: &Pending<'_>, answer: pb::WriteChunkResponse) -> Result<Bytes, Error> {
    let Whole { size_bytes, sha256 } = item.small.whole;
    let chunk_id = item.chunk().map(|chunk| chunk.chunk_id.as_str());
    if chunk_id != Some(&answer.chunk_id) || answer.persisted_size_bytes != size_bytes {
        return Err(protocol(call, "a receipt for something else"));
    }
    if answer.sha256 != sha256.to_string() {
        return Err(protocol(call, "another SHA-256 than that of the bytes sent"));
    }
    Ok(answer.receipt)
}
