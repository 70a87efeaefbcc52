//! The collector: deletes what nothing needs any more (I6, I7).
//!
//! A sweep first makes deleted blobs due where a tenant keeps too many, then goes once through all garbage rows that are
//! due, in the order of their keys, in bounded passes. Rows about blocks are taken apart by commits (see
//! [`collect`](crate::coordinator::collect)); the rows of chunks that this makes are due at once, lie behind, and are met
//! by the same sweep. For a chunk the order is: a commit says that nothing refers to it; its node deletes it, durably;
//! the row goes. A crash in between leaves the row, and the next sweep repeats the rest.
//!
//! A chunk that its node refuses to delete keeps its row and is tried again by the next sweep. A node that does not answer
//! is left alone for a while; its rows are passed over. So neither holds up any other.
//!
//! Nothing is collected while [`Service::collection_hold`] gives a reason, whoever asks. After a jump of the wall clock a
//! pass that the timer starts collects nothing for as long as the grace: what became garbage before has then had it in
//! full. A pass that somebody asks for does, and asks every node again.

mod patience;

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream;
use proto::failpoint;
use proto::ids::{NodeId, TenantId};
use proto::runtime::worker::{Pace, Pass, Worker};
use tokio::time::Instant;

use self::patience::Patience;
use crate::coordinator::collect::chunks::{CHUNKS_PER_LOOK, ChunkRow, Unreferenced};
use crate::coordinator::collect::hasten::Walk;
use crate::coordinator::collect::{Blocks, Step};
use crate::error::MetadataError;
use crate::nodes::{Condemned, Deletion};
use crate::service::Service;
use crate::store::engine::{KeyRange, Row};
use crate::store::keys::{self, Garbage};
use crate::store::records::{GarbageChunkRecord, UsageRecord};
use crate::store::rows::record_of;
use crate::workers::place::Place;

/// Garbage rows that a pass looks at.
const ROWS_PER_PASS: usize = CHUNKS_PER_LOOK;
/// Commits by which a pass takes blocks apart.
const STEPS_PER_PASS: usize = 64;
/// Usage rows that a pass looks at.
const USAGES_PER_PASS: usize = 256;
/// Chunks whose deletion is under way at once: a chunk service syncs its folder once for several.
const DELETIONS_AT_ONCE: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct GarbageCollector {
    service: Service,
    sweep: Mutex<Sweep>,
    patience: Patience,
    pace: Pace,
}

/// How far the sweep has got: through all usage rows first, then through the garbage.
#[derive(Debug, Clone, Default)]
struct Sweep {
    usages: Place,
    garbage: Place,
}

impl GarbageCollector {
    /// Collects this service's garbage.
    pub fn new(service: Service) -> Self {
        Self { service, sweep: Mutex::default(), patience: Patience::default(), pace: Pace::new("chunks") }
    }

    fn clock_is_steady(&self) -> bool {
        self.service.clock_is_steady(self.service.tuning().garbage_grace)
    }

    fn sweep(&self) -> MutexGuard<'_, Sweep> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self) -> Result<Pass, MetadataError> {
        if let Some(reason) = self.service.collection_hold() {
            tracing::info!(reason, "no garbage is collected");
            return Ok(Pass::held_back());
        }
        let (mut sweep, mut pass) = (self.sweep().clone(), Pass::default());
        if sweep.usages == Place::End {
            self.collect(&mut sweep.garbage, &mut pass).await?;
        } else {
            self.hasten(&mut sweep.usages, &mut pass).await?;
        }
        pass.more = sweep.garbage != Place::End;
        *self.sweep() = if pass.more { sweep } else { Sweep::default() };
        Ok(pass)
    }

    /// Looks for tenants among the next usage rows that keep more deleted blobs than their quota.
    async fn hasten(&self, usages: &mut Place, pass: &mut Pass) -> Result<(), MetadataError> {
        let range = KeyRange::prefix(keys::USAGES);
        for row in usages.next(self.service.engine(), range, USAGES_PER_PASS).await? {
            pass.examined += 1;
            if record_of::<UsageRecord>(&row)?.retained_bytes > 0 {
                let tenant = keys::usage_of(&row.0).ok_or_else(|| MetadataError::missing("tenant's id"))?;
                pass.changed += self.hasten_of(&tenant).await?;
            }
        }
        Ok(())
    }

    async fn hasten_of(&self, tenant: &TenantId) -> Result<u64, MetadataError> {
        let mut walk = self.service.hasten_garbage(tenant.clone(), Walk::default()).await?;
        while walk.more {
            walk = self.service.hasten_garbage(tenant.clone(), walk).await?;
        }
        if walk.hastened > 0 {
            tracing::info!(%tenant, blobs = walk.hastened, "more is deleted than the quota keeps: the oldest blobs go");
        }
        Ok(walk.hastened)
    }

    /// Collects the next rows that are due.
    async fn collect(&self, place: &mut Place, pass: &mut Pass) -> Result<(), MetadataError> {
        let mut reached = place.clone();
        let due = keys::garbage_due(self.service.now_ms());
        let rows = place.next(self.service.engine(), due, ROWS_PER_PASS).await?;
        let (mut chunks, mut steps, mut taken_apart) = (Vec::new(), STEPS_PER_PASS, None);
        for row in &rows {
            pass.examined += 1;
            let here = Place::Behind(row.0.to_vec());
            match keys::garbage_of(&row.0).ok_or_else(|| MetadataError::missing("garbage's id"))? {
                (not_before_ms, Garbage::Chunk(chunk)) => {
                    chunks.extend(self.to_ask(row, (not_before_ms, chunk), pass)?);
                }
                (not_before_ms, Garbage::Blocks(kind, blob)) => {
                    if !self.take_apart(Blocks { not_before_ms, kind, blob }, &mut steps, pass).await? {
                        taken_apart = Some(reached);
                        break;
                    }
                    taken_apart = Some(here.clone());
                }
            }
            reached = here;
        }
        // The rows of chunks that this added lie behind the row that was taken apart, but maybe not behind the last one.
        if let Some(taken_apart) = taken_apart {
            *place = taken_apart;
        }
        self.delete(chunks, pass).await
    }

    /// The row, unless its node is left alone.
    fn to_ask(&self, row: &Row, about: ChunkRow, pass: &mut Pass) -> Result<Option<ChunkRow>, MetadataError> {
        let paused = self.patience.is_paused(record_of::<GarbageChunkRecord>(row)?.node, Instant::now());
        pass.skipped += u64::from(paused);
        Ok((!paused).then_some(about))
    }

    /// Takes blocks apart while there are steps left; returns whether the row is done.
    async fn take_apart(&self, blocks: Blocks, steps: &mut usize, pass: &mut Pass) -> Result<bool, MetadataError> {
        while *steps > 0 {
            *steps -= 1;
            match self.service.collect_blocks(blocks).await? {
                Step::More => pass.changed += 1,
                Step::Done => {
                    pass.changed += 1;
                    return Ok(true);
                }
                Step::NotDue => return Ok(true),
                Step::Kept => {
                    pass.skipped += 1;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Has chunks deleted that nothing refers to, and drops the rows of those that are gone.
    async fn delete(&self, rows: Vec<ChunkRow>, pass: &mut Pass) -> Result<(), MetadataError> {
        if rows.is_empty() {
            return Ok(());
        }
        let Unreferenced { chunks, referenced, contradicted } = self.service.unreferenced_garbage(rows).await?;
        for chunk in contradicted {
            tracing::error!(%chunk, "a block lists a garbage chunk whose reverse row is missing; it stays: run fsck");
            pass.failed += 1;
        }
        if referenced > 0 {
            tracing::error!(chunks = referenced, "chunks in use were listed as garbage; they stay");
            pass.skipped += referenced;
        }
        if seeded!(RowDroppedBeforeChunk) {
            self.service.drop_garbage(chunks.iter().map(|(row, _chunk)| *row).collect()).await?;
        }
        let mut deletions =
            stream::iter(chunks).map(|(row, chunk)| self.ask(row, chunk)).buffer_unordered(DELETIONS_AT_ONCE);
        let mut gone = Vec::new();
        while let Some((row, outcome)) = deletions.next().await {
            match outcome {
                Asked::Gone => gone.push(row),
                Asked::Failed => pass.failed += 1,
                Asked::Passed => pass.skipped += 1,
            }
        }
        pass.changed += gone.len() as u64;
        self.service.drop_garbage(gone).await
    }

    async fn ask(&self, row: ChunkRow, chunk: Condemned) -> (ChunkRow, Asked) {
        if self.patience.is_paused(chunk.node, Instant::now()) {
            return (row, Asked::Passed);
        }
        self.pace.draw(1).await;
        let outcome = match self.service.chunk_nodes().delete(&chunk).await {
            Deletion::Gone => {
                failpoint!("collect.chunk_deleted");
                self.patience.answered(chunk.node);
                Asked::Gone
            }
            Deletion::Refused(reason) => {
                self.patience.answered(chunk.node);
                Self::failed(&chunk, &reason)
            }
            Deletion::Unavailable(reason) => {
                self.patience.failed(chunk.node, Instant::now());
                Self::failed(&chunk, &reason)
            }
        };
        (row, outcome)
    }

    fn failed(chunk: &Condemned, reason: &str) -> Asked {
        let (node, chunk): (NodeId, _) = (chunk.node, chunk.binding.chunk);
        tracing::warn!(%node, %chunk, reason, "a garbage chunk could not be deleted; it is tried again");
        Asked::Failed
    }
}

/// How asking for a deletion went.
enum Asked {
    Gone,
    Failed,
    Passed,
}

impl Worker for GarbageCollector {
    type Error = MetadataError;

    fn name(&self) -> &'static str {
        "garbage"
    }

    fn pace(&self) -> Option<&Pace> {
        Some(&self.pace)
    }

    fn holds_back(&self) -> Option<String> {
        let jumped = || "the clock has jumped, and the grace has not passed since".to_owned();
        self.service.collection_hold().or_else(|| (!self.clock_is_steady()).then(jumped))
    }

    async fn run_once(&self) -> Result<Pass, MetadataError> {
        self.patience.forget();
        self.service.watch(self.pass().await)
    }

    async fn run_scheduled(&self) -> Result<Pass, MetadataError> {
        if self.clock_is_steady() { self.service.watch(self.pass().await) } else { Ok(Pass::held_back()) }
    }
}
