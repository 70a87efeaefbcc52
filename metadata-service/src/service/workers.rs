//! Background work, steered and watched.

use proto::ids::{ChunkId, NodeId};
use proto::limits::PAGE_SIZE_MAX;
use proto::runtime::worker::Pass;

use super::{Front, Service};
use crate::coordinator::orphans;
use crate::error::MetadataError;
use crate::nodes::State;
use crate::nodes::damage::COUNTED_MAX;
use crate::store::records::WorkerRecord;
use crate::workers::board::{self, Board, Change, WorkerName, WorkerView};

impl Service {
    /// All background work.
    pub fn workers(&self) -> &Board {
        &self.shared.board
    }

    /// The workers of this service, then the nodes' in the order of their ids.
    pub fn list_workers(&self) -> Vec<(Option<NodeId>, WorkerView)> {
        let own = self.workers().own(self.now_ms()).into_iter().map(|worker| (None, worker));
        let nodes = self.registry().list(None, PAGE_SIZE_MAX).into_iter();
        let theirs = nodes.flat_map(|node| node.report.workers.into_iter().map(move |one| (Some(node.node), one)));
        own.chain(theirs).collect()
    }

    /// Has a worker run like this from now on: durably first, then in fact.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn update_worker(&self, name: WorkerName, change: Change) -> Result<WorkerRecord, MetadataError> {
        let (record, sequence) =
            self.decide(move |view, context| board::change(view, name, change, context.now_ms)).await?;
        self.workers().put(name, record, sequence);
        tracing::info!(worker = name.as_str(), ?record, "an operator's settings");
        Ok(record)
    }

    /// Runs a pass that begins after this call, and returns what it did; nodes are told with their next heartbeats.
    /// `accept_all` goes to the sweep for orphans: see [`orphans`](crate::workers::orphans).
    ///
    /// # Errors
    /// [`MetadataError::PassFailed`]; [`MetadataError`] when the run cannot be noted for the nodes.
    pub async fn run_worker(&self, name: WorkerName, accept_all: bool) -> Result<Option<Pass>, MetadataError> {
        let Some(handle) = self.workers().handle(name) else {
            self.update_worker(name, Change { run: true, ..Change::default() }).await?;
            return Ok(None);
        };
        let accepted = accept_all && name == WorkerName::Orphans;
        let _while_waiting = accepted.then(|| self.workers().acceptance.give());
        handle.run_now().await.map(Some).map_err(MetadataError::PassFailed)
    }

    /// See [`orphans::condemn`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub(crate) async fn condemn_orphans(&self, node: NodeId, chunks: Vec<ChunkId>) -> Result<u64, MetadataError> {
        self.decide(move |view, context| orphans::condemn(view, context, node, &chunks)).await
    }

    /// What needs an operator, in words.
    pub(super) fn warnings(&self, damaged_chunks: u64) -> Vec<String> {
        let latched = self.read_only_reason().map(|reason| {
            format!("the metadata service takes no writes: {reason}. Restart it after its disk was checked")
        });
        let nodes = self.registry().list(None, PAGE_SIZE_MAX);
        let of_nodes: Vec<_> = nodes
            .iter()
            .flat_map(|node| node.report.warnings.iter().map(|words| format!("node {}: {words}", node.node)))
            .collect();
        let nodes = nodes.into_iter().filter_map(|node| match node.state {
            State::Alive => None,
            State::ReadOnly => Some(format!(
                "node {} takes no writes: {}. Reads go on; restart it after its disk was checked",
                node.node, node.report.read_only_reason
            )),
            State::Lost => Some(format!("node {} at {} is lost: no heartbeat", node.node, node.record.endpoint)),
        });
        let workers = self.list_workers().into_iter().filter_map(|(node, worker)| worker.warning(node));
        let Front { tls, exposed, .. } = self.front();
        let exposed = exposed.iter().map(ToString::to_string).chain(tls.warnings());
        let audit = self.audit().trouble().map(|why| {
            format!("calls of the operator and about tokens are refused while they cannot be put on record: {why}")
        });
        let damage = (damaged_chunks > 0).then(|| damage_warning(damaged_chunks));
        latched
            .into_iter()
            .chain(exposed)
            .chain(audit)
            .chain(damage)
            .chain(self.collection_hold())
            .chain(nodes)
            .chain(of_nodes)
            .chain(workers)
            .collect()
    }
}

fn damage_warning(count: u64) -> String {
    let most = if count >= COUNTED_MAX as u64 { "at least " } else { "" };
    let are = if count == 1 { "chunk is" } else { "chunks are" };
    format!(
        "{most}{count} {are} missing or damaged: blobs cannot be read in full; 'status --damaged' says which and why. \
         The files stay as they are: restore them from a copy, or delete the blobs and put them again"
    )
}
