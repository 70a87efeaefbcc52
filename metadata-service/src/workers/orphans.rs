//! Looks for orphans: chunks on the nodes' disks that nothing refers to, such as the files of writes that crashed (I7).
//!
//! Order, for each chunk: its node lists it, the metadata are asked **afterwards**. The other way round a chunk that is
//! planned and written in between would look like an orphan. An orphan has no reference (of a blob or of an open upload:
//! the same rows) and no garbage row, was so in two complete sweeps, and is older than an upload's lease, by the time in
//! its id, which this service drew by its own clock. It becomes garbage like any other: due after the grace, looked up
//! once more by the commit that queues it and by the collector before its node is asked.
//!
//! The reverse rows are asked because that is one read for each chunk, but the loss of one must not cost a chunk. So before
//! anything is queued all blocks are gone through, as bounded pages of one scan: what any block still lists is no orphan
//! but damage of the metadata. It is left alone, logged, counted as failed, and told until `fsck --repair` has put the row
//! back. The block's id is not taken from the checksum file, which a crashed write does not have. Most sweeps find nothing
//! to queue, and do without the scan.
//!
//! A pass sweeps one node. Only a list that is complete counts: after any error nothing of that node is queued, and what
//! was seen before is forgotten. That is meant so: an error says that disk or network are not to be believed at the moment,
//! and then neither is what they said last; two sweeps more are a low price for it. What the last sweep saw is kept in
//! memory, bounded; a restart costs one more sweep. What there was no room for is not queued, but counts when it is asked
//! whether a sweep wants too much.
//!
//! It holds back, whoever asks: while [`Service::collection_hold`] gives a reason; and from chunks of a time that an import
//! lost, as long as [`Service::is_kept`] says so (I16). It holds back unless somebody asks: for as long as a lease or the
//! grace after a jump of the wall clock. It holds back from a sweep that wants more than 5 % of a node's chunks and more
//! than 100, since that looks like lost metadata rather than like lost chunks, until an operator asks for a pass with his
//! [`Acceptance`](super::board::Acceptance).
//!
//! Ids that this service did not draw are left alone, and so are files that are no chunk's; both are told.

mod findings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use proto::ids::{ChunkId, NodeId};
use proto::runtime::worker::{Pace, Pass, Worker};
use tokio::time::Instant;

use self::findings::{Age, Findings, SUSPECTS_MAX, age};
use crate::coordinator::orphans::CHUNKS_PER_COMMIT;
use crate::error::MetadataError;
use crate::nodes::chunks::{ChunkFiles, ChunkPage, NodeError};
use crate::service::Service;
use crate::store::engine::{KeyRange, Row};
use crate::store::keys::{self, Garbage};
use crate::store::records::{BlockRecord, ChunkRecord};
use crate::store::rows::record_of;
use crate::workers::place::Place;

/// Longest wait for the pace before a page is looked at: a node cuts a list that is not taken.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);
/// Garbage rows that are read at once.
const GARBAGE_PER_PAGE: usize = 256;
/// Blocks that are read at once.
const BLOCKS_PER_PAGE: usize = 256;
/// Nodes whose trouble is told in full.
const NOTES_MAX: usize = 3;

/// See the module.
#[derive(Debug)]
pub struct OrphanSweeper {
    service: Service,
    pace: Pace,
    /// Suspects of one node that are remembered.
    room: usize,
    state: Mutex<State>,
}

/// What is known between passes.
#[derive(Debug, Default)]
struct State {
    /// The node that was swept last; `None` before the first.
    behind: Option<NodeId>,
    /// What the last sweep of each node found.
    suspects: BTreeMap<NodeId, BTreeSet<ChunkId>>,
    /// What an operator should know of a node.
    notes: BTreeMap<NodeId, String>,
    /// When the last sweep over all nodes ended.
    last_sweep: Option<Instant>,
    held_back: Option<String>,
}

/// Why a node's sweep ended early.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl OrphanSweeper {
    /// Sweeps this service's nodes.
    pub fn new(service: Service) -> Self {
        Self { service, pace: Pace::new("chunks"), room: SUSPECTS_MAX, state: Mutex::default() }
    }

    // No panic leaves it half-changed, so a poisoned lock is used on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold_back(&self, reason: String) -> Pass {
        tracing::info!(reason, "no orphans are looked for");
        let mut state = self.state();
        *state = State { held_back: Some(reason), last_sweep: state.last_sweep, ..State::default() };
        Pass::held_back()
    }

    async fn pass(&self, accepted: bool) -> Result<Pass, MetadataError> {
        if let Some(reason) = self.service.collection_hold() {
            return Ok(self.hold_back(reason));
        }
        let after = {
            let mut state = self.state();
            state.held_back = None;
            state.behind
        };
        let mut nodes = self.service.registry().list(after, 2).into_iter().map(|status| status.node);
        let mut pass = Pass::default();
        if let Some(node) = nodes.next() {
            self.sweep(node, accepted, &mut pass).await?;
            self.state().behind = Some(node);
        }
        pass.more = nodes.next().is_some();
        if !pass.more {
            let mut state = self.state();
            (state.behind, state.last_sweep) = (None, Some(Instant::now()));
        }
        Ok(pass)
    }

    /// Sweeps one node; what its disk has to do with is noted, what the metadata have to do with ends the pass.
    async fn sweep(&self, node: NodeId, accepted: bool, pass: &mut Pass) -> Result<(), MetadataError> {
        let before = self.state().suspects.remove(&node).unwrap_or_default();
        let note = match self.find(node, pass).await {
            Ok(findings) => self.judge(node, findings, &before, accepted, pass).await?,
            Err(SweepError::Metadata(error)) => return Err(error),
            Err(SweepError::Node(error)) => {
                tracing::warn!(%node, %error, "a node could not be swept for orphans; nothing of it is touched");
                pass.failed += 1;
                Some(format!("node {node} could not be swept: {error}"))
            }
        };
        let mut state = self.state();
        match note {
            Some(note) => state.notes.insert(node, note),
            None => state.notes.remove(&node),
        };
        Ok(())
    }

    /// What a complete list of the node shows.
    async fn find(&self, node: NodeId, pass: &mut Pass) -> Result<Findings, SweepError> {
        let mut findings = Findings::default();
        let stale = if seeded!(MetadataBeforeDisk) { Some(self.references(node).await?) } else { None };
        let mut pages = self.service.chunk_nodes().list(node, self.service.keeps_lost_time());
        while let Some(page) = pages.next().await {
            let page = page?;
            let drawn = self.pace.draw(page.chunks.len() as u64);
            if tokio::time::timeout(PAGE_PATIENCE, drawn).await.is_err() {
                tracing::trace!("slower than this a node would cut its list");
            }
            self.look_up(node, page, stale.as_deref(), &mut findings).await?;
        }
        pass.examined += findings.listed;
        if !findings.suspects.is_empty() {
            self.leave_garbage(&mut findings).await?;
        }
        Ok(findings)
    }

    /// What refers to the node's chunks, as only a mistake would read it: before they are listed.
    async fn references(&self, node: NodeId) -> Result<Vec<Row>, MetadataError> {
        Ok(self.service.engine().scan(&KeyRange::prefix(&keys::node_chunks(node)), usize::MAX).await?)
    }

    /// Asks the metadata about each chunk of a page.
    async fn look_up(
        &self,
        node: NodeId,
        page: ChunkPage,
        stale: Option<&[Row]>,
        findings: &mut Findings,
    ) -> Result<(), MetadataError> {
        let now_ms = self.service.now_ms();
        findings.listed += page.chunks.len() as u64;
        findings.foreign += page.foreign_names.len() as u64;
        for files in page.chunks {
            let key = keys::reverse(node, files.chunk);
            let referenced = match stale {
                None => self.service.engine().get(&key).await?.is_some(),
                Some(rows) => rows.iter().any(|row| row.0 == key),
            };
            if referenced || self.is_of_kept_time(&files) {
                continue;
            }
            match age(files.chunk, now_ms, self.service.tuning().upload_lease) {
                Age::Foreign => findings.foreign += 1,
                Age::Young => {}
                Age::Old => findings.suspect(files.chunk),
            }
        }
        if !findings.closed && findings.suspects.len() >= self.room {
            // What is garbage already must not keep the others out, nor must it be looked for after every page.
            self.leave_garbage(findings).await?;
            findings.closed = findings.suspects.len() > self.room / 2;
        }
        Ok(())
    }

    /// Whether an import lost the time in which the chunk was planned, and its chunks stay. A chunk that does not say when
    /// counts as of that time if it may be.
    fn is_of_kept_time(&self, files: &ChunkFiles) -> bool {
        let told = files.checksum_file.map(|file| (file.binding.epoch, file.binding.sequence));
        let (epoch, sequence) = told.unwrap_or((u64::MAX, u64::MAX));
        self.service.is_kept(files.chunk, epoch, sequence)
    }

    /// Drops the suspects that are garbage already. Their rows came with the commits that dropped their references, so they
    /// are met here unless their chunks are gone by now.
    async fn leave_garbage(&self, findings: &mut Findings) -> Result<(), MetadataError> {
        let mut place = Place::Start;
        while place != Place::End {
            let range = KeyRange::prefix(keys::GARBAGE);
            for row in place.next(self.service.engine(), range, GARBAGE_PER_PAGE).await? {
                if let Some((_due, Garbage::Chunk(chunk))) = keys::garbage_of(&row.0) {
                    findings.suspects.remove(&chunk);
                }
            }
        }
        Ok(())
    }

    /// Drops the orphans that a block lists, and says so; returns how many.
    async fn leave_listed(&self, node: NodeId, orphans: &mut BTreeSet<ChunkId>) -> Result<u64, MetadataError> {
        let (mut place, before) = (Place::Start, orphans.len());
        while place != Place::End {
            let range = KeyRange::prefix(keys::BLOCKS);
            for row in place.next(self.service.engine(), range, BLOCKS_PER_PAGE).await? {
                for ChunkRecord { chunk, .. } in record_of::<BlockRecord>(&row)?.chunks {
                    if orphans.remove(&chunk) {
                        tracing::error!(%node, %chunk, "a block lists a chunk whose reverse row is missing; it stays");
                    }
                }
            }
        }
        Ok(before.abs_diff(orphans.len()) as u64)
    }

    /// Queues what was found twice; returns what an operator should know.
    async fn judge(
        &self,
        node: NodeId,
        mut findings: Findings,
        before: &BTreeSet<ChunkId>,
        accepted: bool,
        pass: &mut Pass,
    ) -> Result<Option<String>, MetadataError> {
        let mut orphans: BTreeSet<_> = findings.suspects.intersection(before).copied().collect();
        if !orphans.is_empty() {
            findings.contradicted = self.leave_listed(node, &mut orphans).await?;
            pass.failed += findings.contradicted;
        }
        let orphans: Vec<_> = orphans.into_iter().collect();
        let too_many = findings.is_too_much(orphans.len()) && !accepted;
        if too_many {
            pass.skipped += orphans.len() as u64;
        } else {
            for some in orphans.chunks(CHUNKS_PER_COMMIT) {
                let condemned = self.service.condemn_orphans(node, some.to_vec()).await?;
                tracing::info!(%node, chunks = condemned, "orphans become garbage");
                pass.changed += condemned;
                for chunk in some {
                    findings.suspects.remove(chunk);
                }
            }
        }
        let note = findings.note(node, too_many.then_some(orphans.len()));
        self.state().suspects.insert(node, findings.suspects);
        Ok(note)
    }
}

impl Worker for OrphanSweeper {
    type Error = MetadataError;

    fn name(&self) -> &'static str {
        "orphans"
    }

    async fn run_once(&self) -> Result<Pass, MetadataError> {
        let accepted = self.service.workers().acceptance.take();
        self.service.watch(self.pass(accepted).await)
    }

    async fn run_scheduled(&self) -> Result<Pass, MetadataError> {
        let tuning = self.service.tuning();
        if !self.service.clock_is_steady(tuning.upload_lease.max(tuning.garbage_grace)) {
            return Ok(self.hold_back("the clock has jumped; ages cannot be told for a while".to_owned()));
        }
        self.service.watch(self.pass(false).await)
    }

    fn pace(&self) -> Option<&Pace> {
        Some(&self.pace)
    }

    fn holds_back(&self) -> Option<String> {
        let state = self.state();
        let notes = state.held_back.iter().chain(state.notes.values().take(NOTES_MAX)).cloned();
        let notes: Vec<_> = notes.collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn last_sweep(&self, _ended: Option<Instant>) -> Option<Instant> {
        self.state().last_sweep
    }
}

#[cfg(test)]
mod tests;
