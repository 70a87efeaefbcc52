//! What readers and the writer share: the database, the tables over it, and the group whose sync is under way.
//!
//! I3 rests on one order. The writer publishes a group **before** it writes it to the journal, and moves it into the
//! active table only after the sync. A reader takes from that group as from any other layer, and when it met one of its
//! keys holds what it read back until the sync is done. It need not read again: one group is in flight at a time, so all
//! it read is durable then. After a failed sync the group stays in flight for ever, and such reads fail.
//!
//! The lock makes a read a moment between two groups. It is held over reads, decisions, and the moving of a group or a
//! generation, never over a sync or over what a checkpoint writes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::database::Database;
use super::latch::Latch;
use super::tables::{Frozen, Layers, Tables, within};
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
    tables: Tables,
    pending: Option<Pending>,
}

/// A group that is being written, or not synced yet.
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
            state: RwLock::new(State { database: Some(database), tables: Tables::default(), pending: None }),
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

    /// Has a closure look at everything that is durable, with newer writes over it. Not for while a group is in flight.
    pub(super) fn under<T>(&self, newer: &Writes, look: impl FnOnce(Layers<'_>) -> T) -> Result<T, EngineError> {
        let state = &*self.read();
        let database = state.database.as_ref().ok_or(EngineError::Closed)?;
        Ok(look(state.tables.layers(Some(newer), database)))
    }

    /// Publishes a group.
    pub(super) fn publish(&self, writes: Writes, sequence: u64) -> InFlight {
        let (settled, synced) = watch::channel(false);
        let writes = Arc::new(writes);
        self.write().pending = Some(Pending { writes: Arc::clone(&writes), synced });
        InFlight { settled, committed: Committed { sequence, writes } }
    }

    /// Shows a group that has become durable. Its sequence and its followers come first: whoever sees its rows finds
    /// that sequence, and will hear of the group.
    pub(super) fn settle(&self, in_flight: &InFlight) {
        let InFlight { settled, committed } = in_flight;
        self.feed.publish(committed, || self.sequence.store(committed.sequence, Ordering::SeqCst));
        let gone = self.gone_altogether(&committed.writes);
        let state = &mut *self.write();
        for (key, value) in committed.writes.iter() {
            if value.is_none() && (gone.contains(key.as_slice()) || seeded!(RemovalForgotten)) {
                state.tables.active.forget(key);
            } else {
                state.tables.active.set(key, value.clone());
            }
        }
        state.pending = None;
        settled.send_replace(true);
    }

    /// The keys that are removed and that nothing below the active table has: what lived for less than a generation
    /// leaves no trace there. Only a checkpoint changes what lies below, and never for a reader.
    fn gone_altogether<'a>(&self, writes: &'a Writes) -> HashSet<&'a [u8]> {
        let state = &*self.read();
        let Some(database) = &state.database else { return HashSet::new() };
        let below = state.tables.below(database);
        let removed = writes.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.as_slice());
        removed.filter(|key| below.get(key).is_ok_and(|value| value.is_none())).collect()
    }

    /// Memory that the active table takes.
    pub(super) fn active_bytes(&self) -> u64 {
        self.read().tables.active.bytes()
    }

    /// Whether a generation is on its way into the database.
    #[cfg(test)]
    pub(super) fn is_frozen(&self) -> bool {
        self.read().tables.frozen.is_some()
    }

    /// Freezes the active table, for a checkpoint; the one before must have thawed.
    pub(super) fn freeze(&self, generation: u64, sequence: u64) -> Arc<Frozen> {
        self.write().tables.freeze(generation, sequence)
    }

    /// Drops the frozen table: the database has all of it.
    pub(super) fn thaw(&self) {
        let frozen = self.write().tables.frozen.take();
        drop(frozen);
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
        let value = state.layers()?.get(key)?;
        Ok((value, state.unsynced(|writes| writes.contains_key(key))))
    }

    /// Reads a range, and says what to wait for before the rows may be shown.
    pub(super) fn scan(&self, range: &KeyRange, limit: usize) -> Result<(Vec<Row>, Unsynced), EngineError> {
        let state = self.read();
        let rows = state.layers()?.scan(range, limit)?;
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
    /// Everything, also what is in flight.
    fn layers(&self) -> Result<Layers<'_>, EngineError> {
        let database = self.database.as_ref().ok_or(EngineError::Closed)?;
        Ok(self.tables.layers(self.pending.as_ref().map(|pending| pending.writes.as_ref()), database))
    }

    fn unsynced(&self, hit: impl FnOnce(&Writes) -> bool) -> Unsynced {
        self.pending
            .as_ref()
            .filter(|pending| hit(&pending.writes) && !seeded!(ShownBeforeSync))
            .map(|pending| pending.synced.clone())
    }
}
