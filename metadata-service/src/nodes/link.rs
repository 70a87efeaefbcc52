//! The line to the chunk services: one lazily opened channel for each node, dropped when the node moves.
//!
//! Every call carries a capability of its own, signed with the node's key for that one operation (I10), and has a
//! deadline, since the other side may hang; a list has one for each page. An answer that does not parse is no answer. The
//! only file besides `grpc` that knows protos.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;
use proto::capability::{ChunkBinding, Permit, ReadClaims};
use proto::error::{Reason, Retry};
use proto::ids::{ChunkId, NodeId};
use proto::limits;
use proto::pb;
use proto::pb::chunk_service_client::ChunkServiceClient;
use proto::status::{from_status, in_words};
use proto::tls::Dialer;
use proto::tls::exposure::may_send_secrets;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::chunks::{
    ChecksumFile, ChunkFiles, ChunkNodes, ChunkPage, ChunkPages, Condemned, Condition, Deletion, NodeError, Verdict,
};
use crate::mint::{Mint, Own};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a delete may take: two unlinks and a sync of the folder.
const DELETE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a verification may take: the largest chunk, twice, from a slow disk.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a page of a list may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct NodeLink {
    mint: Mint,
    dialer: Dialer,
    insecure_plaintext: bool,
    lines: Mutex<HashMap<NodeId, Line>>,
}

/// A channel, and where it leads.
#[derive(Debug)]
struct Line {
    endpoint: String,
    channel: Channel,
}

type Client = ChunkServiceClient<Channel>;

impl NodeLink {
    /// A line to every node of the mint's registry. Nothing is sent yet.
    pub fn new(mint: Mint, dialer: Dialer, insecure_plaintext: bool) -> Self {
        Self { mint, dialer, insecure_plaintext, lines: Mutex::default() }
    }

    /// A client of the node, and the message with permission for it.
    fn prepare<T>(
        &self,
        node: NodeId,
        place: ChunkBinding,
        permit: Permit,
        message: T,
    ) -> Result<(Client, Request<T>), NodeError> {
        let unknown = || NodeError::Unavailable("it is not registered".to_owned());
        let Own { endpoint, capability } = self.mint.own(node, place, permit).ok_or_else(unknown)?;
        let bearer = MetadataValue::try_from(format!("Bearer {capability}"));
        let mut bearer = bearer.expect("base64url text is a valid header");
        bearer.set_sensitive(true);
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok((ChunkServiceClient::new(self.channel(node, endpoint)?), request))
    }

    async fn delete_chunk(&self, node: NodeId, place: ChunkBinding) -> Result<(), NodeError> {
        let message = pb::DeleteChunkRequest { chunk_id: place.chunk.to_string() };
        let (mut client, request) = self.prepare(node, place, Permit::Delete, message)?;
        match within(DELETE_TIMEOUT, client.delete_chunk(request)).await? {
            Ok(_deleted) => Ok(()),
            Err(status) if from_status(&status).reason == Some(Reason::ChunkMissing) => Ok(()),
            Err(status) => Err(refusal(&status)),
        }
    }

    /// The node's channel. Must be called within a runtime: a new connection's task is started there.
    fn channel(&self, node: NodeId, endpoint: String) -> Result<Channel, NodeError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&node).filter(|line| line.endpoint == endpoint) {
            return Ok(line.channel.clone());
        }
        may_send_secrets(&endpoint, self.insecure_plaintext)
            .map_err(|unencrypted| NodeError::Unavailable(unencrypted.to_string()))?;
        let settings = Endpoint::from_shared(endpoint.clone())
            .map_err(|error| NodeError::Unavailable(format!("{endpoint:?} is not a URL: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(limits::HTTP2_KEEPALIVE_INTERVAL)
            .keep_alive_timeout(limits::HTTP2_KEEPALIVE_TIMEOUT);
        let channel = settings.connect_with_connector_lazy(self.dialer.clone());
        lines.insert(node, Line { endpoint, channel: channel.clone() });
        Ok(channel)
    }
}

#[async_trait]
impl ChunkNodes for NodeLink {
    async fn delete(&self, chunk: &Condemned) -> Deletion {
        match self.delete_chunk(chunk.node, chunk.binding).await {
            Ok(()) => Deletion::Gone,
            Err(NodeError::Refused(words)) => Deletion::Refused(words),
            Err(NodeError::Unavailable(words)) => Deletion::Unavailable(words),
        }
    }

    async fn verify(
        &self,
        node: NodeId,
        place: ChunkBinding,
        claims: ReadClaims,
        repair: bool,
    ) -> Result<Verdict, NodeError> {
        let message = pb::VerifyChunkRequest { chunk_id: place.chunk.to_string(), repair };
        let (mut client, request) = self.prepare(node, place, Permit::Verify(claims), message)?;
        let answer = within(VERIFY_TIMEOUT, client.verify_chunk(request)).await?.map_err(|status| refusal(&status))?;
        verdict(answer.into_inner()).ok_or_else(|| nonsense("VerifyChunk"))
    }

    fn list(&self, node: NodeId, with_checksum_files: bool) -> ChunkPages {
        let message = pb::ListChunksRequest { with_checksum_files };
        let prepared = self.prepare(node, ChunkBinding::none(), Permit::List, message);
        stream::try_unfold(Listing::Prepared(Box::new(prepared)), Listing::next).boxed()
    }
}

/// How far a list has come.
enum Listing {
    Prepared(Box<Result<(Client, Request<pb::ListChunksRequest>), NodeError>>),
    Open(Box<Streaming<pb::ListChunksResponse>>),
    Complete,
}

impl Listing {
    async fn next(self) -> Result<Option<(ChunkPage, Self)>, NodeError> {
        let mut pages = match self {
            Self::Prepared(prepared) => {
                let (mut client, request) = (*prepared)?;
                let answer = within(PAGE_TIMEOUT, client.list_chunks(request)).await?;
                Box::new(answer.map_err(|status| refusal(&status))?.into_inner())
            }
            Self::Open(pages) => pages,
            Self::Complete => return Ok(None),
        };
        let message = within(PAGE_TIMEOUT, pages.message()).await?.map_err(|status| refusal(&status))?;
        let message = message.ok_or_else(|| NodeError::Unavailable("its list broke off".to_owned()))?;
        let rest = if message.complete { Self::Complete } else { Self::Open(pages) };
        let page = page(message).ok_or_else(|| nonsense("ListChunks"))?;
        Ok(Some((page, rest)))
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> Result<T, NodeError> {
    let late = |_elapsed| NodeError::Unavailable(format!("it did not answer within {limit:?}"));
    tokio::time::timeout(limit, call).await.map_err(late)
}

fn nonsense(method: &'static str) -> NodeError {
    NodeError::Unavailable(format!("its answer to {method} makes no sense"))
}

fn refusal(status: &Status) -> NodeError {
    let passing = match from_status(status).reason {
        // Somebody writes this very chunk: that says nothing about the node, and others need not wait for it.
        Some(Reason::ConcurrentWrite) => false,
        Some(reason) => reason == Reason::ReadOnly || reason.retry() != Retry::Never,
        // Without a reason of ours the answer comes from the transport, or from something else on that port.
        None => !matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented),
    };
    let words = in_words(status);
    if passing { NodeError::Unavailable(words) } else { NodeError::Refused(words) }
}

fn verdict(answer: pb::VerifyChunkResponse) -> Option<Verdict> {
    let condition = match answer.condition() {
        pb::ChunkCondition::Unspecified => return None,
        pb::ChunkCondition::Sound => Condition::Sound,
        pb::ChunkCondition::Rebuilt => Condition::Rebuilt,
        pb::ChunkCondition::ChecksumFileBad => Condition::ChecksumFileBad,
        pb::ChunkCondition::ChecksumFileTooNew => Condition::ChecksumFileTooNew,
        pb::ChunkCondition::Corrupt => Condition::Corrupt,
        pb::ChunkCondition::Missing => Condition::Missing,
        pb::ChunkCondition::Unreadable => Condition::Unreadable,
    };
    Some(Verdict { condition, detail: answer.detail })
}

fn page(message: pb::ListChunksResponse) -> Option<ChunkPage> {
    let chunks = message.chunks.iter().map(chunk_files).collect::<Option<_>>()?;
    Some(ChunkPage { chunks, foreign_names: message.foreign_names })
}

fn chunk_files(files: &pb::ChunkFiles) -> Option<ChunkFiles> {
    let chunk = files.chunk_id.parse().ok()?;
    let checksum_file = match &files.checksum_file {
        Some(file) => Some(checksum_file(chunk, file)?),
        None => None,
    };
    let has_checksum_file = files.has_checksum_file;
    Some(ChunkFiles { chunk, data_bytes: files.data_size_bytes, has_checksum_file, checksum_file })
}

fn checksum_file(chunk: ChunkId, file: &pb::ChecksumFile) -> Option<ChecksumFile> {
    let binding = ChunkBinding {
        chunk,
        block: file.block_id.parse().ok()?,
        blob: file.blob_id.parse().ok()?,
        shard_index: file.shard_index,
        shard_count: file.shard_count,
        generation: file.generation,
        epoch: file.epoch,
        sequence: file.sequence,
    };
    Some(ChecksumFile { binding, size_bytes: file.size_bytes, sha256: file.sha256.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use proto::status::to_status;

    use super::*;

    /// What a chunk service answers for one of these reasons.
    #[derive(Debug, Clone, Copy, thiserror::Error)]
    #[error("a test says so")]
    struct Answer(Reason);

    impl proto::error::Classify for Answer {
        fn reason(&self) -> Reason {
            self.0
        }
    }

    /// One chunk was being written while the collector asked for its deletion. The whole node was left alone for it, and
    /// all of its garbage waited.
    #[test]
    fn a_chunk_that_is_being_written_puts_off_itself_and_not_its_node() {
        let is_passing = |reason| matches!(refusal(&to_status(&Answer(reason))), NodeError::Unavailable(_));
        assert!(!is_passing(Reason::ConcurrentWrite));
        assert!(is_passing(Reason::ReadOnly) && is_passing(Reason::Draining) && is_passing(Reason::CapabilityExpired));
        assert!(!is_passing(Reason::CapabilityInvalid));
    }
}
