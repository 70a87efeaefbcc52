//! The node's line to the metadata service: joining, heartbeats, and what the metadata holds of a chunk.
//!
//! One lazily opened channel; every call has a deadline, since the other side may hang. The only file besides `grpc`
//! that knows protos.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::capability::{ChunkBinding, NodeKey, ReadClaims};
use proto::error::Reason;
use proto::ids::{ChunkId, NodeId};
use proto::pb;
use proto::pb::cluster_service_client::ClusterServiceClient;
use proto::runtime::clock::millis;
use proto::runtime::transport::ConnectionCounts;
use proto::runtime::worker::Pass;
use proto::secret::SecretKey;
use proto::status::{from_status, in_words};
use proto::tls::Dialer;
use proto::token::Token;
use proto::traffic::ClassLoad;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::error::ChunkError;
use crate::grpc::convert::condition;
use crate::identity::{KeyOrder, Membership};
use crate::scrub::{Held, HeldPage, Ledger, WorkReport};
use crate::store::disk::Space;
use crate::store::verify::Finding;
use crate::store::{Describe, Described};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Name of the scrub on the wire.
const SCRUB: &str = "scrub";
/// Longest text of what was found of a chunk.
const DETAIL_BYTES_MAX: usize = 255;
/// How long an answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A line to the metadata service.
#[derive(Debug)]
pub(crate) struct MetadataLink {
    client: ClusterServiceClient<Channel>,
    member: OnceLock<(NodeId, Token)>,
}

/// How the scrub is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScrubOrder {
    /// Not by itself.
    pub(crate) paused: bool,
    /// Bytes per second, 0 for no bound; `None` for as the node would.
    pub(crate) pace_per_second: Option<u64>,
    /// Grows with each run that an operator asks for.
    pub(crate) run_count: u64,
    /// When the last of them was asked for, by the metadata service's clock, in milliseconds since 1970.
    pub(crate) run_ms: Option<u64>,
}

/// What the metadata service answers to a heartbeat.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The time.
    pub(crate) pulse: Pulse,
    /// How the scrub is to run, if it says so.
    pub(crate) scrub: Option<ScrubOrder>,
    /// Which keys to hold.
    pub(crate) keys: KeyOrder,
}

/// What the metadata service says of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Its time, in milliseconds since 1970.
    pub(crate) server_ms: u64,
    /// How long to wait before the next heartbeat; `None` when it does not say.
    pub(crate) interval: Option<Duration>,
}

/// How a node presents itself.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    /// Its id.
    pub(crate) node: NodeId,
    /// Where clients reach it.
    pub(crate) endpoint: String,
    /// What fails together with it.
    pub(crate) failure_domain: String,
}

/// What a heartbeat tells besides the state of the disk.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// What the disk does for each class of traffic.
    pub(crate) loads: Vec<ClassLoad>,
    /// Numbers of the keys that the node holds.
    pub(crate) key_ids: Vec<u32>,
    /// What happened at the listener.
    pub(crate) connections: ConnectionCounts,
    /// What needs an operator.
    pub(crate) warnings: Vec<String>,
}

/// Why the metadata service did not do as asked.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// It cannot be reached, or is not ready; asking again may help.
    Unreachable(Status),
    /// It said no, and will say so again.
    Refused(Status),
    /// Its answer makes no sense.
    Nonsense(&'static str),
}

impl LinkError {
    fn of(status: Status) -> Self {
        let wire = from_status(&status);
        let passing = match wire.reason {
            Some(reason) => matches!(
                reason,
                Reason::Starting | Reason::Draining | Reason::ReadOnly | Reason::Overloaded | Reason::RateLimited
            ),
            // Without a reason of ours the answer comes from the transport, or from something else on that port.
            None => !matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument),
        };
        if passing { Self::Unreachable(status) } else { Self::Refused(status) }
    }

    /// The other side's words, for a log.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Unreachable(status) | Self::Refused(status) => in_words(status),
            Self::Nonsense(problem) => (*problem).to_owned(),
        }
    }
}

impl From<LinkError> for ChunkError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Unreachable(status) | LinkError::Refused(status) => {
                Self::MetadataUnreachable(Some(Box::new(status)))
            }
            LinkError::Nonsense(problem) => Self::MetadataUnreachable(Some(problem.into())),
        }
    }
}

impl MetadataLink {
    /// A line to this URL. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ChunkError::Setting`] when it is not a URL.
    pub(crate) fn new(url: &str, dialer: Dialer) -> Result<Self, ChunkError> {
        let refuse = |error: tonic::transport::Error| ChunkError::Setting {
            what: "--metadata",
            problem: format!("{url:?} is not a URL such as http://127.0.0.1:50051 ({error})"),
        };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(refuse)?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
        let channel = endpoint.connect_with_connector_lazy(dialer);
        Ok(Self { client: ClusterServiceClient::new(channel), member: OnceLock::new() })
    }

    /// Speaks for this node, with this credential, from now on.
    pub(crate) fn set_member(&self, node: NodeId, token: Token) {
        if self.member.set((node, token)).is_err() {
            tracing::debug!("the node's token is known already");
        }
    }

    /// Asks to be taken into the cluster. A repeat for the same node gives the same answer.
    pub(crate) async fn register(&self, presence: &Presence, join: &Token) -> Result<(Membership, Pulse), LinkError> {
        let request = pb::RegisterNodeRequest {
            node_id: presence.node.to_string(),
            endpoint: presence.endpoint.clone(),
            failure_domain: presence.failure_domain.clone(),
        };
        let request = with_token(request, Some(join))?;
        let answer = self.client.clone().register_node(request).await.map_err(LinkError::of)?.into_inner();
        let pulse = pulse(answer.server_time.as_ref(), answer.heartbeat_interval_ms)?;
        let membership = membership(&answer).ok_or(LinkError::Nonsense("the answer to RegisterNode is malformed"))?;
        Ok((membership, pulse))
    }

    /// Says that the node lives.
    pub(crate) async fn heartbeat(
        &self,
        presence: &Presence,
        space: Space,
        read_only_reason: Option<String>,
        scrub: Option<&WorkReport>,
        figures: Figures,
    ) -> Result<Answered, LinkError> {
        let request = pb::HeartbeatRequest {
            node_id: presence.node.to_string(),
            endpoint: presence.endpoint.clone(),
            capacity_bytes: space.capacity,
            free_bytes: space.free,
            read_only_reason: read_only_reason.unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workers: scrub.map(scrub_worker).into_iter().collect(),
            class_loads: figures.loads.into_iter().map(pb::ClassLoad::from).collect(),
            key_ids: figures.key_ids,
            connections: Some(figures.connections.into()),
            warnings: figures.warnings,
        };
        let request = with_token(request, self.token())?;
        let answer = self.client.clone().heartbeat(request).await.map_err(LinkError::of)?.into_inner();
        let pulse = pulse(answer.server_time.as_ref(), answer.heartbeat_interval_ms)?;
        let order = answer.worker_settings.into_iter().find(|settings| settings.name == SCRUB);
        let order = order.map(|settings| ScrubOrder {
            paused: settings.paused,
            pace_per_second: settings.pace_per_second,
            run_count: settings.run_count,
            run_ms: settings.run_time.as_ref().and_then(milliseconds),
        });
        let given = node_keys(&answer.keys).ok_or(LinkError::Nonsense("a key in the answer is malformed"))?;
        Ok(Answered { pulse, scrub: order, keys: KeyOrder { hold: answer.hold_key_ids, given } })
    }

    fn token(&self) -> Option<&Token> {
        self.member.get().map(|(_node, token)| token)
    }

    fn node_id(&self) -> String {
        self.member.get().map(|(node, _token)| node.to_string()).unwrap_or_default()
    }

    async fn list_held(&self, after: Option<ChunkId>) -> Result<HeldPage, LinkError> {
        let request = pb::ListNodeChunksRequest {
            node_id: self.node_id(),
            after_chunk_id: after.map(|after| after.to_string()).unwrap_or_default(),
            page_size: 0,
        };
        let request = with_token(request, self.token())?;
        let answer = self.client.clone().list_node_chunks(request).await.map_err(LinkError::of)?.into_inner();
        held_page(answer).ok_or(LinkError::Nonsense("the answer to ListNodeChunks is malformed"))
    }

    async fn tell(&self, chunk: ChunkId, finding: Finding) -> Result<(), LinkError> {
        let mut detail = finding.detail;
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        let report =
            pb::ChunkReport { chunk_id: chunk.to_string(), condition: condition(finding.condition).into(), detail };
        let request = pb::ReportChunksRequest { node_id: self.node_id(), reports: vec![report] };
        let request = with_token(request, self.token())?;
        self.client.clone().report_chunks(request).await.map_err(LinkError::of)?;
        Ok(())
    }

    async fn ask(&self, chunk: ChunkId) -> Result<Described, LinkError> {
        let request = with_token(pb::DescribeChunkRequest { chunk_id: chunk.to_string() }, self.token())?;
        let answer = self.client.clone().describe_chunk(request).await.map_err(LinkError::of)?.into_inner();
        described(chunk, &answer).ok_or(LinkError::Nonsense("the answer to DescribeChunk is malformed"))
    }
}

impl Describe for MetadataLink {
    fn describe(&self, chunk: ChunkId) -> BoxFuture<'_, Result<Described, ChunkError>> {
        self.ask(chunk).map(|answer| answer.map_err(ChunkError::from)).boxed()
    }
}

impl Ledger for MetadataLink {
    fn held(&self, after: Option<ChunkId>) -> BoxFuture<'_, Result<HeldPage, ChunkError>> {
        self.list_held(after).map(|answer| answer.map_err(ChunkError::from)).boxed()
    }

    fn report(&self, chunk: ChunkId, finding: Finding) -> BoxFuture<'_, Result<(), ChunkError>> {
        self.tell(chunk, finding).map(|answer| answer.map_err(ChunkError::from)).boxed()
    }
}

fn held_page(answer: pb::ListNodeChunksResponse) -> Option<HeldPage> {
    let next = Some(answer.next_after_chunk_id).filter(|next| !next.is_empty());
    let held = |one: pb::NodeChunk| match described(one.chunk_id.parse().ok()?, &one.description?)? {
        Described::Sealed(place, claims) => Some(Held { place, claims, damaged: one.damaged }),
        Described::Open | Described::Unknown => None,
    };
    Some(HeldPage {
        chunks: answer.chunks.into_iter().map(held).collect::<Option<_>>()?,
        next: next.map(|next| next.parse()).transpose().ok()?,
    })
}

fn scrub_worker(report: &WorkReport) -> pb::Worker {
    let WorkReport { settings, pace_unit, status, now_ms } = report;
    let ago = |at: tokio::time::Instant| timestamp(now_ms.saturating_sub(millis(at.elapsed())));
    let pass = |pass: Pass| pb::WorkerPass {
        examined: pass.examined,
        changed: pass.changed,
        skipped: pass.skipped,
        failed: pass.failed,
        more: pass.more,
    };
    pb::Worker {
        name: SCRUB.to_owned(),
        node_id: String::new(),
        paused: settings.paused,
        pace_per_second: settings.pace_per_second,
        pace_unit: (*pace_unit).to_owned(),
        pass_count: status.passes,
        last_pass: status.last_pass.map(pass),
        last_pass_time: status.last_pass_at.and_then(ago),
        last_error: status.last_error.clone().unwrap_or_default(),
        holds_back: status.holds_back.clone().unwrap_or_default(),
        last_sweep_time: status.last_sweep.and_then(ago),
    }
}

fn timestamp(ms: u64) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(ms % 1000 * 1_000_000).ok()?;
    Some(prost_types::Timestamp { seconds: i64::try_from(ms / 1000).ok()?, nanos })
}

fn milliseconds(time: &prost_types::Timestamp) -> Option<u64> {
    let seconds = u64::try_from(time.seconds).ok()?.checked_mul(1000)?;
    seconds.checked_add(u64::try_from(time.nanos).ok()? / 1_000_000)
}

fn with_token<T>(message: T, token: Option<&Token>) -> Result<Request<T>, LinkError> {
    let token = token.ok_or(LinkError::Nonsense("the node has no token yet"))?;
    let bearer = zeroize::Zeroizing::new(format!("Bearer {}", token.expose().as_str()));
    let malformed = |_error| LinkError::Nonsense("the token is not text that can be sent");
    let mut value = MetadataValue::try_from(bearer.as_str()).map_err(malformed)?;
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

fn pulse(time: Option<&prost_types::Timestamp>, interval_ms: u64) -> Result<Pulse, LinkError> {
    let server_ms = time.and_then(milliseconds).ok_or(LinkError::Nonsense("the answer tells no time"))?;
    let interval = (interval_ms > 0).then(|| Duration::from_millis(interval_ms));
    Ok(Pulse { server_ms, interval })
}

fn membership(answer: &pb::RegisterNodeResponse) -> Option<Membership> {
    Membership::new(answer.cluster_id.parse().ok()?, node_keys(&answer.keys)?, answer.node_token.parse().ok()?)
}

fn node_keys(keys: &[pb::NodeKey]) -> Option<Vec<NodeKey>> {
    let key = |key: &pb::NodeKey| Some(NodeKey { key_id: key.key_id, secret: SecretKey::from_slice(&key.secret)? });
    keys.iter().map(key).collect()
}

fn described(chunk: ChunkId, answer: &pb::DescribeChunkResponse) -> Option<Described> {
    match answer.state() {
        pb::ChunkState::Unspecified => None,
        pb::ChunkState::Open => Some(Described::Open),
        pb::ChunkState::Unknown => Some(Described::Unknown),
        pb::ChunkState::Sealed => {
            let binding = ChunkBinding {
                chunk,
                block: answer.block_id.parse().ok()?,
                blob: answer.blob_id.parse().ok()?,
                shard_index: answer.shard_index,
                shard_count: answer.shard_count,
                generation: answer.generation,
                epoch: answer.epoch,
                sequence: answer.sequence,
            };
            let claims = ReadClaims {
                size_bytes: answer.size_bytes,
                sha256: answer.sha256.parse().ok()?,
                pieces_sha256: answer.pieces_sha256.parse().ok()?,
            };
            Some(Described::Sealed(binding, claims))
        }
    }
}
