//! The check of a whole cluster: metadata against itself, metadata against chunks, chunks against metadata.
//!
//! Read from what is stored, never from what a running service believes: every committed blob's rows are there and agree,
//! every reference has a chunk that verifies (I1, I2), every row and every chunk has a reason to exist (I6, I8), usage is
//! the sum of its rows (I11), generations and records are valid (I12). It runs beside a service that works as well as on
//! a folder that nobody uses; what changes meanwhile is looked at again before it counts.
//!
//! Without `repair` nothing is changed. With it, what can be set right without guessing is: see `problem`. Each repair
//! is one commit or one file, may be interrupted anywhere, and is found again by the next check if it was.
//!
//! Memory is bounded, whatever is stored (I17): rows are walked page by page in the order of their keys, what they refer
//! to is looked up, and what cannot be looked up (the queue, the files of nodes) is asked in lots of a fixed size.
//!
//! Nothing is ever deleted here: rows that nothing refers to are dropped, chunks that nothing refers to are queued for the
//! collector, and damaged bytes stay where they are.

mod blobs;
mod bottom_up;
mod chunks;
mod files;
pub mod finding;
mod needed;
mod problem;
mod queue;
mod rows;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashSet;
use std::sync::Arc;

use proto::ids::{BlobId, NodeId, TenantId};
use tokio::sync::mpsc;

use self::blobs::{Reference, Waiting};
pub use self::finding::{Finding, FindingKind, Subject, Summary};
use self::problem::Problem;
use self::queue::{HELD_MAX, Held};
use crate::error::MetadataError;
use crate::nodes::chunks::{ChunkFiles, ChunkNodes};
use crate::service::Service;
use crate::store::engine::Engine;

/// What a check does beyond looking at rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Repair what can be repaired without guessing.
    pub repair: bool,
    /// Look at names and sizes of chunks only.
    pub skip_bytes: bool,
}

/// A check, run once.
#[derive(Debug)]
pub struct Check {
    service: Service,
    nodes: Arc<dyn ChunkNodes>,
    options: Options,
    findings: mpsc::Sender<Finding>,
    summary: Summary,
    /// The last blob of which data are lost: all of one blob's chunks are looked at in a row.
    lost: Option<BlobId>,
    /// Nodes that did not answer.
    silent: HashSet<NodeId>,
    /// Whose the last blob was of which rows were found: they lie in a row.
    owner: Option<(BlobId, TenantId)>,
    /// What should be in the queue.
    waiting: Held<Waiting>,
    /// Chunks that the nodes should list, when bytes are not to be read.
    sought: Held<Reference>,
    /// Files of chunks that nothing refers to.
    unknown: Held<(NodeId, ChunkFiles)>,
}

impl Check {
    /// A check of this service's metadata and of the chunks at these nodes. It waits while nobody takes its findings.
    pub fn new(
        service: Service,
        nodes: Arc<dyn ChunkNodes>,
        options: Options,
        findings: mpsc::Sender<Finding>,
    ) -> Self {
        Self::holding(HELD_MAX, service, nodes, options, findings)
    }

    /// As [`Self::new`], with another bound of what is kept at once.
    fn holding(
        most: usize,
        service: Service,
        nodes: Arc<dyn ChunkNodes>,
        options: Options,
        findings: mpsc::Sender<Finding>,
    ) -> Self {
        Self {
            service,
            nodes,
            options,
            findings,
            summary: Summary::default(),
            lost: None,
            silent: HashSet::new(),
            owner: None,
            waiting: Held::at_most(most),
            sought: Held::at_most(most),
            unknown: Held::at_most(most),
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`MetadataError`] when the engine fails, or nobody takes the findings any more: the check is incomplete then.
    pub async fn run(mut self) -> Result<Summary, MetadataError> {
        self.top_down().await?;
        self.bottom_up().await?;
        self.usages().await?;
        self.files().await?;
        Ok(self.summary)
    }

    fn engine(&self) -> &dyn Engine {
        self.service.engine()
    }

    /// Repairs a problem if that is wanted and possible, and tells of it.
    async fn report(&mut self, problem: Problem) -> Result<(), MetadataError> {
        let Problem { kind, detail, subject, repair } = problem;
        let what = repair.as_ref().map(|repair| repair.what());
        let repaired = match repair.filter(|_possible| self.options.repair) {
            Some(repair) => self.service.decide(move |view, context| repair.decide(view, context)).await?,
            None => false,
        };
        self.tell(Finding { kind, detail, subject: *subject, repair: what, repaired }).await
    }

    async fn tell(&mut self, finding: Finding) -> Result<(), MetadataError> {
        self.summary.findings += 1;
        self.summary.repaired += u64::from(finding.repaired);
        self.findings.send(finding).await.map_err(|_nobody_listens| MetadataError::Draining)
    }
}
