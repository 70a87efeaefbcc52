//! The calls of nodes and operators.

use proto::capability::NodeKey;
use proto::failpoint;
use proto::ids::{ChunkId, ClusterId, NodeId};
use proto::limits::PAGE_SIZE_MAX;
use proto::runtime::clock::millis;
use proto::runtime::transport::ConnectionCounts;
use proto::token::{Token, TokenKeyId};

use super::Service;
use crate::coordinator::blobs::{Page, page};
use crate::error::MetadataError;
use crate::nodes::damage::{self, ChunkReport, DamagedChunk, NodeChunk};
use crate::nodes::keys as node_keys;
use crate::nodes::usecases::{self, Described, RegisterNode};
use crate::nodes::{NodeStatus, Report};
use crate::page_token::Listing;
use crate::store::engine::{Decision, KeyRange, View};
use crate::store::keys;
use crate::store::records::{RestoreRecord, UsageRecord, WorkerRecord};
use crate::store::rows::record_of;
use crate::tokens;
use crate::workers::board::WorkerName;

/// What a node is told with every answer to it.
#[derive(Debug, Clone)]
pub struct Beat {
    /// The time.
    pub now_ms: u64,
    /// How often to send a heartbeat.
    pub interval_ms: u64,
    /// How its background work is to run.
    pub workers: Vec<(WorkerName, WorkerRecord)>,
    /// Which keys it is to hold.
    pub keys: KeyOrder,
}

/// Which keys a node is to hold.
#[derive(Debug, Clone, Default)]
pub struct KeyOrder {
    /// Their numbers, the one to sign with first.
    pub hold: Vec<u32>,
    /// Those that it does not name.
    pub given: Vec<NodeKey>,
}

/// What a node gets when it joins.
#[derive(Debug)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's keys, the one to sign with first.
    pub keys: Vec<NodeKey>,
    /// Its token.
    pub token: Token,
    /// The time, and how often to send a heartbeat.
    pub beat: Beat,
}

/// The cluster as its operator sees it.
#[derive(Debug)]
pub struct ClusterStatus {
    /// Its id.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub epoch: u64,
    /// Commits since its metadata was made.
    pub sequence: u64,
    /// Why no writes are taken; empty when they are.
    pub read_only_reason: String,
    /// The nodes, at most a page of them.
    pub nodes: Vec<NodeStatus>,
    /// The tenants' usage added up.
    pub usage: UsageRecord,
    /// Number of tenants.
    pub tenants: u64,
    /// Chunks that are missing or damaged.
    pub damaged_chunks: u64,
    /// When this service started.
    pub start_ms: u64,
    /// The import about which the operator has to decide.
    pub restore: Option<RestoreRecord>,
    /// What needs an operator, in words.
    pub warnings: Vec<String>,
    /// What happened at this service's listener.
    pub connections: ConnectionCounts,
}

impl Service {
    fn beat(&self) -> Beat {
        let interval_ms = millis(self.tuning().heartbeat_interval);
        let (workers, keys) = (self.workers().of_nodes(), KeyOrder::default());
        Beat { now_ms: self.now_ms(), interval_ms, workers, keys }
    }

    /// See [`usecases::register`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn register_node(&self, join: TokenKeyId, command: RegisterNode) -> Result<Joined, MetadataError> {
        let node = command.node;
        let decided = self
            .decide(move |view, context| Ok(with_sequence(view, usecases::register(view, context, join, &command)?)));
        let (record, sequence) = decided.await?;
        failpoint!("register_node.durable");
        self.registry().put(node, record, sequence);
        let (cluster, keys) = (self.cluster(), self.registry().keys_to_hold(node, self.now_ms()));
        Ok(Joined { cluster: cluster.id, keys, token: tokens::of_node(&cluster.secret, node), beat: self.beat() })
    }

    /// Notes a heartbeat of a node that holds these keys; a new endpoint is made durable, and only then told to clients.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn heartbeat(
        &self,
        node: NodeId,
        endpoint: String,
        held: Vec<u32>,
        report: Report,
    ) -> Result<Beat, MetadataError> {
        if !self.registry().heard(node, self.now_ms(), report) {
            return Err(MetadataError::missing("node"));
        }
        if self.registry().endpoint(node).is_some_and(|known| known != endpoint) {
            let decided =
                self.decide(move |view, _context| Ok(with_sequence(view, usecases::move_to(view, node, &endpoint)?)));
            let (record, sequence) = decided.await?;
            self.registry().put(node, record, sequence);
        }
        Ok(Beat { keys: self.key_order(node, held).await?, ..self.beat() })
    }

    /// Takes note of the keys that a node names, durably where it matters, and tells which it is to hold.
    async fn key_order(&self, node: NodeId, held: Vec<u32>) -> Result<KeyOrder, MetadataError> {
        if self.registry().changes_keys(node, &held, self.now_ms()) {
            let names = held.clone();
            let decided = self
                .decide(move |view, context| Ok(with_sequence(view, node_keys::heard(view, context, node, &names)?)));
            let (record, sequence) = decided.await?;
            failpoint!("rotate_key.durable");
            tracing::info!(%node, key_id = node_keys::current(&record), next = record.next_key_id, "the node's keys");
            self.registry().put(node, record, sequence);
        }
        let keys = self.registry().keys_to_hold(node, self.now_ms());
        let hold = keys.iter().map(|key| key.key_id).collect();
        let given = keys.into_iter().filter(|key| !held.is_empty() && !held.contains(&key.key_id)).collect();
        Ok(KeyOrder { hold, given })
    }

    /// Offers a node, or every node, its next key; they take it with their heartbeats. Returns the nodes and the numbers
    /// of the keys on offer.
    ///
    /// # Errors
    /// [`MetadataError::Field`] for an unknown node; [`MetadataError::TooManyKeys`]; [`MetadataError`].
    pub async fn rotate_node_keys(&self, node: Option<NodeId>) -> Result<Vec<(NodeId, u32)>, MetadataError> {
        let every = || self.registry().list(None, usize::MAX).into_iter().map(|status| status.node).collect();
        let nodes: Vec<NodeId> = node.map_or_else(every, |node| vec![node]);
        let mut offers = Vec::with_capacity(nodes.len());
        for node in nodes {
            let decided =
                self.decide(move |view, context| Ok(with_sequence(view, node_keys::offer(view, context, node)?)));
            let (record, sequence) = decided.await?;
            offers.push((node, record.next_key_id));
            self.registry().put(node, record, sequence);
        }
        Ok(offers)
    }

    /// See [`usecases::describe_chunk`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn describe_chunk(&self, node: NodeId, chunk: ChunkId) -> Result<Option<Described>, MetadataError> {
        self.watch(usecases::describe_chunk(self.engine(), node, chunk).await)
    }

    /// See [`damage::node_chunks`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn list_node_chunks(
        &self,
        node: NodeId,
        after: Option<ChunkId>,
        size: usize,
    ) -> Result<(Vec<NodeChunk>, Option<ChunkId>), MetadataError> {
        self.watch(damage::node_chunks(self.engine(), node, after, size).await)
    }

    /// Finds out whose the damaged chunks are, then see [`damage::report`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn report_chunks(&self, node: NodeId, mut reports: Vec<ChunkReport>) -> Result<(), MetadataError> {
        self.watch(damage::name_tenants(self.engine(), node, &mut reports).await)?;
        for report in reports.iter().filter(|report| report.damage.is_some()) {
            tracing::error!(%node, chunk = %report.chunk, detail = %report.detail, "a chunk is missing or damaged");
        }
        self.decide(move |view, context| damage::report(view, context, node, &reports)).await
    }

    /// Lists the chunks that are missing or damaged; returns them and the next page's token.
    ///
    /// # Errors
    /// [`MetadataError::Field`] for a page token of another listing; when a row cannot be read.
    pub async fn list_damaged_chunks(
        &self,
        size: usize,
        token: &str,
    ) -> Result<(Vec<DamagedChunk>, String), MetadataError> {
        let listing = Listing { tenant: "", method: "ListDamagedChunks", filter: "" };
        let after = listing.verify(&self.cluster().secret, token)?;
        let Page { entries, next } = self.watch(damage::list(self.engine(), after.as_deref(), size).await)?;
        Ok((entries, listing.sign(&self.cluster().secret, next.as_deref())))
    }

    /// Lists the nodes in the order of their ids; returns them and the next page's token.
    ///
    /// # Errors
    /// [`MetadataError::Field`] for a page token of another listing.
    pub fn list_nodes(&self, size: usize, token: &str) -> Result<(Vec<NodeStatus>, String), MetadataError> {
        let listing = Listing { tenant: "", method: "ListNodes", filter: "" };
        let after = listing.verify(&self.cluster().secret, token)?;
        let after = after.and_then(|key| NodeId::try_from(key.as_slice()).ok());
        let mut nodes = self.registry().list(after, size.saturating_add(1));
        let more = nodes.len() > size;
        nodes.truncate(size);
        let last = nodes.last().filter(|_last| more).map(|status| status.node);
        let next = last.as_ref().map(|node| node.as_bytes().as_slice());
        Ok((nodes, listing.sign(&self.cluster().secret, next)))
    }

    /// Returns the state of the whole cluster.
    ///
    /// # Errors
    /// [`MetadataError`] when a row cannot be read.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, MetadataError> {
        let (usage, tenants) = self.watch(self.total_usage().await)?;
        let damaged_chunks = self.watch(damage::count(self.engine()).await)?;
        let nodes = self.registry().list(None, PAGE_SIZE_MAX);
        Ok(ClusterStatus {
            cluster: self.cluster().id,
            epoch: self.cluster().epoch,
            sequence: self.engine().sequence(),
            read_only_reason: self.read_only_reason().unwrap_or_default(),
            warnings: self.warnings(damaged_chunks),
            nodes,
            usage,
            tenants,
            start_ms: self.start_ms(),
            restore: self.undecided_restore(),
            damaged_chunks,
            connections: self.front().gate.counts(),
        })
    }

    async fn total_usage(&self) -> Result<(UsageRecord, u64), MetadataError> {
        let mut total = UsageRecord::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let range = KeyRange::prefix(keys::USAGES);
            let Page { entries, next } = page(self.engine(), range, after.as_deref(), PAGE_SIZE_MAX).await?;
            for row in &entries {
                add(&mut total, record_of(row)?);
            }
            after = next;
            if after.is_none() {
                return Ok((total, self.count(keys::TENANTS).await?));
            }
        }
    }

    async fn count(&self, prefix: &[u8]) -> Result<u64, MetadataError> {
        let (mut count, mut after) = (0, None::<Vec<u8>>);
        loop {
            let range = KeyRange::prefix(prefix);
            let Page { entries, next } = page(self.engine(), range, after.as_deref(), PAGE_SIZE_MAX).await?;
            count += entries.len() as u64;
            after = next;
            if after.is_none() {
                return Ok(count);
            }
        }
    }
}

/// An answer with the sequence that its commit gets.
fn with_sequence<T>(view: &dyn View, (decision, answer): (Decision, T)) -> (Decision, (T, u64)) {
    (decision, (answer, view.sequence()))
}

fn add(total: &mut UsageRecord, one: UsageRecord) {
    total.used_bytes = total.used_bytes.saturating_add(one.used_bytes);
    total.used_blobs = total.used_blobs.saturating_add(one.used_blobs);
    total.reserved_bytes = total.reserved_bytes.saturating_add(one.reserved_bytes);
    total.reserved_blobs = total.reserved_blobs.saturating_add(one.reserved_blobs);
    total.retained_bytes = total.retained_bytes.saturating_add(one.retained_bytes);
    total.retained_blobs = total.retained_blobs.saturating_add(one.retained_blobs);
}
