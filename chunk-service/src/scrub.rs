//! The scrub: reads every chunk of the node once within a period, whether anybody asks for it or not (I13).
//!
//! It goes through the node's chunks as the metadata lists them, in the order of their ids, page by page. So a file that is
//! gone is noticed like one that went bad, which no listing of the folder could do; and what a chunk must be is what the
//! metadata holds, so that a pair of files which is consistent and stale, or another chunk's, is noticed too. Files to
//! which no row refers are the collector's matter, and so are chunks that are still written: neither is listed.
//!
//! A bad checksum file over sound bytes is written again and the old one set aside. Damaged bytes stay where they are and
//! are reported; before that the metadata is asked once more whether it still holds the chunk (a delete may have
//! overtaken the scrub). Without an answer from the metadata nothing is concluded: the pass fails, and the next begins where
//! it was.
//!
//! It is one reader among many: one chunk at a time, a small step at a time, no faster than its pace, past the page cache
//! (see [`verify`](crate::store::verify)). The pace is the operator's; else the setting's; else twice what it takes to read
//! all that the disk holds within the period. A sweep that ends early rests until the period is over.
//!
//! One sweep at a time: while somebody waits for a run of their own, the timer leaves the sweep to that run; a second
//! run waits for the first, and then begins at the first chunk.
//!
//! Order: a chunk is looked at, what was found is reported, then the position moves. It is kept on the disk at the end of
//! a sweep, at a stop, and else only once in a while, since each time costs two syncs. Crash: the position is one that
//! was kept, or none; what was read since then, at most a minute's work or a gibibyte and one pass, is read again, which
//! does no harm.

mod control;
mod inspector;
mod visits;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::ids::ChunkId;
use proto::limits::MIB;
use proto::runtime::clock::millis;
use proto::runtime::worker::{Pace, Pass, Worker};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

pub(crate) use self::control::{Orders, Report as WorkReport, ScrubControl};
pub(crate) use self::inspector::Inspector;
use self::inspector::Verdict;
pub(crate) use self::visits::visit_suspects;
use crate::error::ChunkError;
use crate::store::position::{At, Position};
use crate::store::verify::{Finding, Step};
use crate::store::{ChunkStore, Describe};
use crate::time::NodeTime;

/// Bytes read between two looks at pace and pause.
const STEP_BYTES: u64 = MIB;
/// Bytes after which a pass ends.
const PASS_BYTES: u64 = 64 * MIB;
/// The position is kept after so many bytes, or so long, whichever comes first.
const KEEP_AFTER_BYTES: u64 = 1024 * MIB;
const KEEP_AFTER: Duration = Duration::from_secs(60);
/// What a chunk costs besides its bytes: its checksum file and the way to both.
const CHUNK_COST: u64 = 4096;
/// Slowest pace that is derived.
const PACE_MIN: u64 = MIB;

/// A chunk that the metadata says this node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The chunk and its place.
    pub(crate) place: ChunkBinding,
    /// What its bytes must be.
    pub(crate) claims: ReadClaims,
    /// It was reported missing or damaged, and not sound since.
    pub(crate) damaged: bool,
}

/// Some of the chunks that the metadata says this node holds, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldPage {
    /// The chunks; may be none although more follow.
    pub(crate) chunks: Vec<Held>,
    /// Where the next page begins; `None` on the last one.
    pub(crate) next: Option<ChunkId>,
}

/// What the scrub asks of the metadata, and tells it.
pub(crate) trait Ledger: Describe {
    /// The chunks behind `after`.
    fn held(&self, after: Option<ChunkId>) -> BoxFuture<'_, Result<HeldPage, ChunkError>>;
    /// Tells how chunks are.
    fn report(&self, chunk: ChunkId, finding: Finding) -> BoxFuture<'_, Result<(), ChunkError>>;
}

/// What is set once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScrubSettings {
    /// Within which everything is read.
    pub(crate) period: Duration,
    /// Bytes per second; 0 for a pace that follows from the period.
    pub(crate) pace: u64,
}

/// The worker.
#[derive(Debug)]
pub(crate) struct Scrub {
    inspector: Arc<Inspector>,
    time: Arc<NodeTime>,
    settings: ScrubSettings,
    pace: Pace,
    orders: Arc<Orders>,
    paused: Arc<AtomicBool>,
    /// Held by whoever sweeps: a run that was asked for, or one pass of the timer's.
    turn: Arc<AsyncMutex<()>>,
    /// Passes do not run at once: the worker's driver sees to that.
    progress: Arc<SharedProgress>,
}

/// How far the scrub has come, also for whoever stops it.
#[derive(Debug, Default)]
struct SharedProgress(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    position: Option<Position>,
    loaded: bool,
    last_sweep: Option<Instant>,
    /// The position has moved since it was kept.
    moved: bool,
    kept_at: Option<Instant>,
    bytes_since_kept: u64,
}

impl SharedProgress {
    // Nothing under the lock can panic between two changes, so a poisoned one is used on.
    fn with<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the scrub is, as far as is known.
    async fn position(&self, store: &ChunkStore) -> Result<Option<Position>, ChunkError> {
        if !self.with(|progress| progress.loaded) {
            let kept = store.scrub_position().await?;
            self.with(|progress| progress.take(kept));
        }
        Ok(self.with(|progress| progress.position))
    }

    /// Keeps the position on the disk, if it has moved.
    async fn keep(&self, store: &ChunkStore) {
        let position = self.with(|progress| progress.position.filter(|_position| progress.moved));
        let Some(position) = position else { return };
        self.with(|progress| {
            (progress.moved, progress.kept_at, progress.bytes_since_kept) = (false, Some(Instant::now()), 0);
        });
        // A position that is not kept costs reading again, after a restart.
        if let Err(error) = store.keep_scrub_position(position).await {
            tracing::debug!(error = %proto::status::chain(&error), "the scrub's position was not kept");
        }
    }
}

impl Progress {
    /// Takes what was kept on the disk, unless another did so meanwhile and perhaps went on from there.
    fn take(&mut self, kept: Option<Position>) {
        if !std::mem::replace(&mut self.loaded, true) {
            self.position = kept;
        }
    }

    fn move_to(&mut self, position: Position, bytes: u64) {
        self.position = Some(position);
        self.moved = true;
        self.bytes_since_kept = self.bytes_since_kept.saturating_add(bytes);
        self.kept_at.get_or_insert_with(Instant::now);
        if position.at == At::End {
            self.last_sweep = Some(Instant::now());
        }
    }

    fn is_to_be_kept(&self) -> bool {
        self.position.is_some_and(|position| position.at == At::End)
            || self.bytes_since_kept >= KEEP_AFTER_BYTES
            || self.kept_at.is_some_and(|at| at.elapsed() >= KEEP_AFTER)
    }
}

impl Scrub {
    fn store(&self) -> &ChunkStore {
        &self.inspector.store
    }

    fn with_progress<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        self.progress.with(change)
    }

    fn now_ms(&self) -> u64 {
        self.time.now().now_ms
    }

    /// Moves the position over so many bytes more.
    async fn move_to(&self, position: Position, bytes: u64) {
        let keep = self.with_progress(|progress| {
            progress.move_to(position, bytes);
            progress.is_to_be_kept()
        });
        if keep {
            self.progress.keep(self.store()).await;
        }
    }

    /// The sweep to go on with; `None` when the last one has ended and the next is not due.
    async fn sweep(&self, due_only: bool) -> Result<Option<Position>, ChunkError> {
        let now_ms = self.now_ms();
        let begin = Position { started_ms: now_ms, at: At::Start };
        let position = match self.progress.position(self.store()).await? {
            _any if self.orders.take_restart() => begin,
            None => begin,
            Some(ended @ Position { at: At::End, .. }) => {
                let rests = ended.started_ms <= now_ms && now_ms - ended.started_ms < millis(self.settings.period);
                if due_only && rests {
                    return Ok(None);
                }
                begin
            }
            Some(under_way) => under_way,
        };
        // A sweep that was asked for is begun, also when its first pass fails.
        if position.at == At::Start {
            self.with_progress(|progress| progress.position = Some(position));
        }
        self.settle_pace().await?;
        Ok(Some(position))
    }

    /// Decides at which pace a pass goes unless the operator says so: anew for each, since a restart goes on in the middle
    /// of a sweep, and the disk fills while one is under way.
    async fn settle_pace(&self) -> Result<(), ChunkError> {
        let space = self.store().space().await?;
        let used = space.capacity.saturating_sub(space.free);
        let derived = used.saturating_mul(2) / self.settings.period.as_secs().max(1);
        let own = if self.settings.pace > 0 { self.settings.pace } else { derived.max(PACE_MIN) };
        self.orders.set_own_pace(own, &self.pace);
        Ok(())
    }

    /// Goes on with a sweep for a while. `may_go_on` is asked between steps.
    async fn go_on(&self, from: Position, may_go_on: impl Fn() -> bool) -> Result<Pass, ChunkError> {
        let after = match from.at {
            At::Start => None,
            At::After(chunk) => Some(chunk),
            At::End => return Ok(Pass::default()),
        };
        let HeldPage { chunks, next } = self.inspector.metadata.held(after).await?;
        let (mut pass, mut reached, mut cost) = (Pass { more: true, ..Pass::default() }, from, 0);
        let mut whole_page = true;
        for held in &chunks {
            if cost >= PASS_BYTES {
                whole_page = false;
                break;
            }
            let looked = self.look_at(held, &may_go_on, &mut pass).await;
            if !matches!(looked, Ok(true)) {
                if reached != from {
                    self.move_to(reached, cost).await;
                }
                return looked.map(|_cut_short| pass);
            }
            cost += held.claims.size_bytes.saturating_add(CHUNK_COST);
            reached.at = At::After(held.place.chunk);
        }
        if whole_page {
            reached.at = next.map_or(At::End, At::After);
            pass.more = next.is_some();
        }
        self.move_to(reached, cost).await;
        Ok(pass)
    }

    /// Looks at a chunk. Returns whether it came to an end.
    async fn look_at(&self, held: &Held, may_go_on: &impl Fn() -> bool, pass: &mut Pass) -> Result<bool, ChunkError> {
        let mut examination = self.store().examination(held.place, held.claims);
        self.pace.draw(CHUNK_COST).await;
        let finding = loop {
            if !may_go_on() {
                return Ok(false);
            }
            let (step, read) = self.store().examine_on(examination, STEP_BYTES).await?;
            self.pace.draw(read).await;
            match step {
                Step::More(rest) => examination = rest,
                Step::End(finding) => break finding,
            }
        };
        pass.examined += 1;
        match self.inspector.conclude(held.place, held.claims, finding, held.damaged).await? {
            Verdict::Sound => {}
            Verdict::Repaired => pass.changed += 1,
            Verdict::Gone => pass.skipped += 1,
            Verdict::Bad => pass.failed += 1,
        }
        Ok(true)
    }
}

impl Worker for Scrub {
    type Error = ChunkError;

    fn name(&self) -> &'static str {
        "scrub"
    }

    /// Goes on with the sweep, or begins one.
    async fn run_once(&self) -> Result<Pass, ChunkError> {
        match self.sweep(false).await? {
            Some(position) => self.go_on(position, || true).await,
            None => Ok(Pass::default()),
        }
    }

    /// Goes on with the sweep, or begins one if it is time to, unless a run is under way that was asked for.
    async fn run_scheduled(&self) -> Result<Pass, ChunkError> {
        let Ok(_turn) = self.turn.try_lock() else { return Ok(Pass::default()) };
        match self.sweep(true).await? {
            Some(position) => self.go_on(position, || !self.paused.load(Ordering::Relaxed)).await,
            None => Ok(Pass::default()),
        }
    }

    fn pace(&self) -> Option<&Pace> {
        Some(&self.pace)
    }

    fn holds_back(&self) -> Option<String> {
        let position = self.with_progress(|progress| progress.position)?;
        let late =
            position.at != At::End && self.now_ms().saturating_sub(position.started_ms) > millis(self.settings.period);
        late.then(|| {
            let period = humantime::format_duration(self.settings.period);
            format!("not everything was read within {period}: raise the pace of 'scrub', or the period")
        })
    }

    fn last_sweep(&self, _ended: Option<Instant>) -> Option<Instant> {
        self.with_progress(|progress| progress.last_sweep)
    }
}

#[cfg(test)]
mod tests;
