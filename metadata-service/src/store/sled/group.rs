//! A group of commits being built: decided one after the other, applied and synced as one.

use std::ops::Bound;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::database::Database;
use super::space::Room;
use crate::store::engine::{Batch, Decide, Decision, EngineError, KeyRange, Row, View};
use crate::store::feed::Writes;

/// Where a commit's caller waits.
pub(super) type Answer = oneshot::Sender<Result<u64, EngineError>>;

/// Commits in one group at most.
const COMMITS_MAX: usize = 1024;

/// Bytes of keys and values at which a group is full: half a segment of sled's log (512 KiB).
///
/// sled takes a segment into use again once what it moved out of it was handed to the kernel, which is not yet on the
/// disk. A group that stays within the segment being written is synced before that can matter; a thousand commits of the
/// usual size fit.
const BYTES_MAX: usize = 256 * 1024;

/// Commits decided, not yet applied.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) writes: Writes,
    /// Of the last commit that was accepted.
    pub(super) sequence: u64,
    bytes: usize,
    /// Commits that it has looked at, refused ones too.
    taken: usize,
    waiting: Vec<(Answer, u64)>,
    /// Callers that do not wait for the sync.
    hasty: Vec<(Answer, u64)>,
}

impl Group {
    /// An empty group after the commit with this sequence.
    pub(super) fn after(sequence: u64) -> Self {
        Self { writes: Writes::new(), sequence, bytes: 0, taken: 0, waiting: Vec::new(), hasty: Vec::new() }
    }

    /// Whether no further commit should join. Refused ones count: else a stream of them would keep the accepted ones from
    /// their sync, and the look at the disk from being taken again.
    pub(super) fn is_full(&self) -> bool {
        self.taken >= COMMITS_MAX || self.bytes >= BYTES_MAX
    }

    /// Decides a commit against all that was accepted before it. A refused one is answered at once and leaves no trace.
    pub(super) fn take(&mut self, database: &Database, room: &Room, decide: Decide, answer: Answer) {
        self.taken += 1;
        match self.decided(database, room, decide) {
            Ok(decision) if decision.batch.is_empty() && seeded!(RepeatNotDurable) => tell(answer, Ok(self.sequence)),
            Ok(decision) => {
                self.accept(decision.batch);
                let waiting = if decision.answered_early { &mut self.hasty } else { &mut self.waiting };
                waiting.push((answer, self.sequence));
            }
            Err(refusal) => tell(answer, Err(refusal)),
        }
    }

    fn decided(&self, database: &Database, room: &Room, decide: Decide) -> Result<Decision, EngineError> {
        let decision = decide(&Accepted { database, writes: &self.writes, sequence: self.sequence + 1 })?;
        decision.batch.check_bounds()?;
        room.check(&decision)?;
        Ok(decision)
    }

    fn accept(&mut self, batch: Batch) {
        self.sequence += u64::from(!batch.is_empty());
        for (key, value) in batch.into_writes() {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            self.writes.insert(key, value.map(Bytes::from));
        }
    }

    /// Tells those who do not wait for the sync that the group is applied.
    pub(super) fn answer_early(&mut self) {
        self.hasty.drain(..).for_each(|(answer, sequence)| tell(answer, Ok(sequence)));
    }

    /// Tells every other caller how it ended.
    pub(super) fn answer(self, outcome: &Result<(), EngineError>) {
        for (answer, sequence) in self.waiting.into_iter().chain(self.hasty) {
            tell(answer, outcome.clone().map(|()| sequence));
        }
    }
}

/// A caller that has gone away changes nothing about its commit.
pub(super) fn tell(answer: Answer, outcome: Result<u64, EngineError>) {
    drop(answer.send(outcome));
}

/// The database with the group's writes over it.
struct Accepted<'a> {
    database: &'a Database,
    writes: &'a Writes,
    sequence: u64,
}

impl View for Accepted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.database.get(key),
        }
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        merge(self.database.rows(range), within(self.writes, range), limit)
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// The writes that lie in a range, in key order.
pub(super) fn within<'a>(
    writes: &'a Writes,
    range: &'a KeyRange,
) -> impl Iterator<Item = (&'a Vec<u8>, &'a Option<Bytes>)> {
    let from = writes.range::<[u8], _>((Bound::Included(range.start.as_slice()), Bound::Unbounded));
    from.take_while(|(key, _)| range.contains(key))
}

/// The first rows of what is stored with writes over it; both in key order.
fn merge<'a>(
    stored: impl Iterator<Item = Result<Row, EngineError>>,
    writes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Bytes>)>,
    limit: usize,
) -> Result<Vec<Row>, EngineError> {
    let (mut stored, mut writes) = (stored.peekable(), writes.peekable());
    let mut rows = Vec::new();
    while rows.len() < limit {
        let before_stored = |key: &[u8], row: &Result<Row, _>| row.as_ref().is_ok_and(|(stored, _)| key <= stored);
        let write = writes.next_if(|(key, _)| stored.peek().is_none_or(|row| before_stored(key, row)));
        if let Some((key, value)) = write {
            // It hides the stored row of the same key.
            stored.next_if(|row| row.as_ref().is_ok_and(|(stored, _)| stored == key));
            rows.extend(value.clone().map(|value| (Bytes::copy_from_slice(key), value)));
        } else if let Some(row) = stored.next() {
            rows.push(row?);
        } else {
            break;
        }
    }
    Ok(rows)
}
