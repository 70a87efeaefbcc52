//! What readers and the writer share: the database, and the group whose sync is under way.
//!
//! I3 rests on one order. The writer publishes a group's keys **before** it applies the group, and withdraws them only
//! after the sync; a reader reads first and looks **then**. So a value that is not durable is found in that set, and the
//! reader holds what it read back until the sync is done. It need not read again: one group is in flight at a time, so
//! all it read is durable then. After a failed sync the set stays for ever, and such reads fail.
//!
//! The lock makes a read a moment between two groups. It is held over reads and over the application of a group, never
//! over a sync, so it delays readers no more than sled's own lock around a batch does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::database::Database;
use super::group::within;
use super::latch::Latch;
use crate::store::engine::{EngineError, KeyRange, Row};
use crate::store::feed::{Committed, Feed, Follower, Writes};

/// The shared state.
#[derive(Debug)]
pub(super) struct Shared {
    state: RwLock<State>,
    pub(super) latch: Arc<Latch>,
    /// Of the last durable commit.
    sequence: AtomicU64,
    feed: Feed,
    /// Fires when the database is closed and its files are free.
    pub(super) ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// `None` once closed.
    database: Option<Database>,
    pending: Option<Pending>,
}

/// A group that is applied, or about to be, and not synced.
#[derive(Debug)]
struct Pending {
    writes: Arc<Writes>,
    synced: watch::Receiver<bool>,
}

/// Ends the wait of the readers of a group: well by [`Shared::settle`], badly by being dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    settled: watch::Sender<bool>,
    committed: Committed,
}

impl Shared {
    pub(super) fn new(database: Database, latch: Arc<Latch>, sequence: u64) -> Self {
        Self {
            state: RwLock::new(State { database: Some(database), pending: None }),
            latch,
            sequence: AtomicU64::new(sequence),
            feed: Feed::default(),
            ended: CancellationToken::new(),
        }
    }

    /// A panic under the lock latches the engine and leaves the pending set as it was published, so that the state is
    /// good for readers.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequence of the last durable commit.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// Publishes a group's keys, then applies it.
    pub(super) fn apply(&self, writes: Writes, sequence: u64) -> Result<InFlight, EngineError> {
        let (settled, synced) = watch::channel(false);
        let writes = Arc::new(writes);
        let committed = Committed { sequence, writes: Arc::clone(&writes) };
        let state = &mut *self.write();
        let database = state.database.as_ref().ok_or(EngineError::Closed)?;
        let pending = state.pending.insert(Pending { writes, synced });
        database.apply(&pending.writes, sequence)?;
        Ok(InFlight { settled, committed })
    }

    /// Shows a group that has become durable. Its sequence and its followers come first: whoever sees its rows finds
    /// that sequence, and will hear of the group.
    pub(super) fn settle(&self, in_flight: &InFlight) {
        let InFlight { settled, committed } = in_flight;
        self.feed.publish(committed, || self.sequence.store(committed.sequence, Ordering::SeqCst));
        self.write().pending = None;
        settled.send_replace(true);
    }

    /// Tells of every group from now on.
    pub(super) fn follow(&self) -> Result<Follower, EngineError> {
        self.feed.follow(|| self.sequence())
    }

    /// Closes the database; reads are refused from now on.
    pub(super) fn close(&self) {
        let database = self.write().database.take();
        drop(database);
    }

    /// Reads a key, and says what to wait for before the value may be shown.
    pub(super) fn get(&self, key: &[u8]) -> Result<(Option<Bytes>, Unsynced), EngineError> {
        let state = self.read();
        let value = state.database.as_ref().ok_or(EngineError::Closed)?.get(key)?;
        Ok((value, state.unsynced(|writes| writes.contains_key(key))))
    }

    /// Reads a range, and says what to wait for before the rows may be shown.
    pub(super) fn scan(&self, range: &KeyRange, limit: usize) -> Result<(Vec<Row>, Unsynced), EngineError> {
        let state = self.read();
        let rows = state.database.as_ref().ok_or(EngineError::Closed)?.rows(range).take(limit);
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        // A scan that its limit cut says nothing about what lies behind its last row.
        let last = (rows.len() == limit).then(|| rows.last().map(|(key, _)| key.clone())).flatten();
        let covered = |key: &[u8]| last.as_ref().is_none_or(|last| key <= last);
        let hit = |writes: &Writes| limit > 0 && within(writes, range).next().is_some_and(|(key, _)| covered(key));
        let unsynced = state.unsynced(hit);
        Ok((rows, unsynced))
    }

    /// Waits until what was read is durable.
    pub(super) async fn settled(&self, unsynced: Unsynced) -> Result<(), EngineError> {
        let Some(mut synced) = unsynced else { return Ok(()) };
        let durable = synced.wait_for(|synced| *synced).await.is_ok() || seeded!(ShownAfterFailedSync);
        if durable { Ok(()) } else { Err(EngineError::Latched(self.latch.failed().await)) }
    }
}

/// What a reader has to wait for, if anything.
pub(super) type Unsynced = Option<watch::Receiver<bool>>;

impl State {
    fn unsynced(&self, hit: impl FnOnce(&Writes) -> bool) -> Unsynced {
        self.pending
            .as_ref()
            .filter(|pending| hit(&pending.writes) && !seeded!(ShownBeforeSync))
            .map(|pending| pending.synced.clone())
    }
}
