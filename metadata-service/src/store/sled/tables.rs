//! Commits over the database that it does not hold yet, each of them durable in the journal.
//!
//! What was written in the journal's present generation is the *active* table, what was written in the one before, while
//! a checkpoint brings it into the database, the *frozen* one. A key is looked for in the newest first. A checkpoint
//! writes the frozen table's keys only, and that table hides them until it is done, so it changes nothing that anybody
//! reads, however far it has come.

use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::database::Database;
use crate::store::engine::{EngineError, KeyRange, Row};
use crate::store::feed::Writes;

/// About what a row of a table takes beside its bytes.
const ROW_OVERHEAD_BYTES: u64 = 96;

/// The commits of one generation; of several writes to a key the last.
#[derive(Debug, Default)]
pub(super) struct Table {
    writes: Writes,
    bytes: u64,
}

impl Table {
    /// Memory that it takes, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it says of keys, in their order; `None` where they are removed.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
        rows(&self.writes)
    }

    pub(super) fn set(&mut self, key: &[u8], value: Option<Bytes>) {
        self.bytes += cost(key, value.as_ref());
        if let Some(before) = self.writes.insert(key.to_vec(), value) {
            self.bytes -= cost(key, before.as_ref());
        }
    }

    /// Says nothing of a key any more.
    pub(super) fn forget(&mut self, key: &[u8]) {
        if let Some(before) = self.writes.remove(key) {
            self.bytes -= cost(key, before.as_ref());
        }
    }
}

fn rows(writes: &Writes) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
    writes.iter().map(|(key, value)| (key.as_slice(), value.as_ref()))
}

fn cost(key: &[u8], value: Option<&Bytes>) -> u64 {
    ROW_OVERHEAD_BYTES + key.len() as u64 + value.map_or(0, Bytes::len) as u64
}

/// A generation on its way into the database.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) generation: u64,
    /// Of its last commit.
    pub(super) sequence: u64,
    writes: Writes,
}

impl Frozen {
    /// As [`Table::rows`].
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
        rows(&self.writes)
    }
}

/// Both tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) active: Table,
    pub(super) frozen: Option<Arc<Frozen>>,
}

impl Tables {
    /// Freezes what has been written.
    pub(super) fn freeze(&mut self, generation: u64, sequence: u64) -> Arc<Frozen> {
        let writes = std::mem::take(&mut self.active).writes;
        Arc::clone(self.frozen.insert(Arc::new(Frozen { generation, sequence, writes })))
    }

    /// Both over the database, and newer writes over them.
    pub(super) fn layers<'a>(&'a self, newer: Option<&'a Writes>, database: &'a Database) -> Layers<'a> {
        Layers { over: [newer, Some(&self.active.writes), self.below_active()], database }
    }

    /// What the active table lies over.
    pub(super) fn below<'a>(&'a self, database: &'a Database) -> Layers<'a> {
        Layers { over: [None, None, self.below_active()], database }
    }

    fn below_active(&self) -> Option<&Writes> {
        self.frozen.as_ref().map(|frozen| &frozen.writes)
    }
}

/// The database and what lies over it, the newest first.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    over: [Option<&'a Writes>; 3],
    database: &'a Database,
}

impl Layers<'_> {
    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let written = self.over.iter().flatten().find_map(|writes| writes.get(key));
        written.map_or_else(|| self.database.get(key), |value| Ok(value.clone()))
    }

    /// The first rows of a range, in key order, at most `limit`.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    pub(super) fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        let over = self.over.map(|writes| writes.into_iter().flat_map(|writes| within(writes, range)).peekable());
        merge(over, self.database.rows(range), limit)
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

/// The first rows of what is stored with writes over it, the newest writes first; all are in key order.
fn merge<'a, W>(
    mut over: [Peekable<W>; 3],
    stored: impl Iterator<Item = Result<Row, EngineError>>,
    limit: usize,
) -> Result<Vec<Row>, EngineError>
where
    W: Iterator<Item = (&'a Vec<u8>, &'a Option<Bytes>)>,
{
    let mut stored = stored.peekable();
    let mut rows = Vec::new();
    while rows.len() < limit {
        let least = over.iter_mut().filter_map(|writes| writes.peek().map(|(key, _)| *key)).min();
        let before_stored = |key: &&Vec<u8>| match stored.peek() {
            Some(Ok((first, _))) => key.as_slice() <= first.as_ref(),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(key) = least.filter(before_stored) {
            // Each that writes the key goes on; the newest counts.
            let newest = over.each_mut().map(|writes| writes.next_if(|(next, _)| *next == key));
            let value = newest.into_iter().flatten().next().and_then(|(_, value)| value.clone());
            stored.next_if(|row| row.as_ref().is_ok_and(|(first, _)| first == key));
            rows.extend(value.map(|value| (Bytes::copy_from_slice(key), value)));
        } else if let Some(row) = stored.next() {
            rows.push(row?);
        } else {
            break;
        }
    }
    Ok(rows)
}
