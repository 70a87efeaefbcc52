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
//! Nothing is ever deleted here: rows that nothing refers to are dropped, chunks that nothing refers to are queued for the
//! collector, and damaged bytes stay where they are.

mod blobs;
mod bottom_up;
mod chunks;
mod files;
pub mod finding;
mod problem;
mod rows;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashSet;
use std::sync::Arc;

use proto::ids::{BlobId, NodeId};
use tokio::sync::mpsc;

use self::files::Listed;
pub use self::finding::{Finding, FindingKind, Subject, Summary};
use self::problem::Problem;
use self::rows::Walk;
use crate::error::MetadataError;
use crate::nodes::chunks::ChunkNodes;
use crate::service::Service;
use crate::store::engine::Engine;
use crate::store::keys::{self, Garbage};

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
    lost: HashSet<BlobId>,
    /// Nodes that did not answer.
    silent: HashSet<NodeId>,
    /// What the nodes list, when bytes are not to be read.
    listed: Option<Listed>,
    /// What is queued for collection.
    queued: HashSet<Garbage>,
    /// Uploads that were open in an export and may have been committed in the time that its import lost.
    kept_uploads: HashSet<BlobId>,
}

impl Check {
    /// A check of this service's metadata and of the chunks at these nodes. It waits while nobody takes its findings.
    pub fn new(
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
            lost: HashSet::new(),
            silent: HashSet::new(),
            listed: None,
            queued: HashSet::new(),
            kept_uploads: HashSet::new(),
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`MetadataError`] when the engine fails, or nobody takes the findings any more: the check is incomplete then.
    pub async fn run(mut self) -> Result<Summary, MetadataError> {
        if self.options.skip_bytes {
            self.list_sizes().await?;
        }
        self.queued = self.queue().await?;
        let owners = self.top_down().await?;
        self.bottom_up(&owners).await?;
        drop(owners);
        self.usages().await?;
        self.files().await?;
        self.summary.lost_blobs = self.lost.len() as u64;
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

    /// What is queued for collection now.
    async fn queue(&self) -> Result<HashSet<Garbage>, MetadataError> {
        let mut queued = HashSet::new();
        let mut walk = Walk::over(keys::GARBAGE);
        while let Some(rows) = walk.next(self.engine()).await? {
            queued.extend(rows.iter().filter_map(|row| Some(keys::garbage_of(&row.0)?.1)));
        }
        Ok(queued)
    }

    /// Whether something waits for its collection; the queue is read again where the one noted does not name it.
    async fn is_queued(&mut self, garbage: Garbage) -> Result<bool, MetadataError> {
        if !self.queued.contains(&garbage) {
            self.queued = self.queue().await?;
        }
        Ok(self.queued.contains(&garbage))
    }
}
