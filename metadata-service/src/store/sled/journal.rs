//! The journal's files, and what a start makes of them.
//!
//! Owns `journal.0` and `journal.1` beside the database. Each record is a group of commits (`record`), and says which
//! sequences it has; so a start knows which of them the database holds already, and that none is missing. A journal with a
//! damaged part that is not in the database yet, or with a gap, is refused: commits that somebody was answered for are
//! lost, and going on without them would be a lie about everything that came after.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use proto::entropy::OsEntropy;
use proto::runtime::journal::{self, HalfFile, OpenError, Opened, Shape};

use super::database::{LogSync, Sequence};
use super::latch::Latch;
use super::record::{self, Record};
use super::tables::Table;
use crate::store::engine::EngineError;

/// Names of the two halves.
pub(super) const NAMES: [&str; 2] = ["journal.0", "journal.1"];

/// Puts something of a test's around a sync.
pub(crate) type WrapSync = Box<dyn Fn(Box<dyn LogSync>) -> Box<dyn LogSync>>;

/// One of the halves.
#[derive(Debug)]
pub(super) struct Half {
    file: File,
    sync: Mutex<Box<dyn LogSync>>,
}

impl LogSync for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl HalfFile for Half {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, length, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner).sync()
    }
}

/// A record that does not follow on what came before it.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is malformed")]
    Malformed,
    #[error("commits are missing before {first}: the one before it that is there is {last}")]
    Gap { first: u64, last: u64 },
}

/// Opens the journal of a folder. One that is missing is made where the database knows of none.
///
/// # Errors
/// [`EngineError::Failed`].
pub(super) fn open(
    folder: &Path,
    shape: Shape,
    known: Sequence,
    wrap: &WrapSync,
    latch: &Latch,
) -> Result<Opened<Half>, EngineError> {
    let failed = |error: &dyn std::error::Error| latch.fail("open its journal", proto::status::chain(error));
    let half = |name| {
        let (path, must_exist) = (folder.join(name), known.has_journal);
        let file = OpenOptions::new().read(true).write(true).create(!must_exist).truncate(false).open(path)?;
        Ok(Half { sync: Mutex::new(wrap(Box::new(file.try_clone()?))), file })
    };
    let [first, second] = NAMES;
    let halves = half(first).and_then(|first| Ok([first, half(second)?]));
    let halves = halves.map_err(|error: io::Error| failed(&error))?;
    for half in &halves {
        // Each has had a head since before the database knew of it.
        if known.has_journal && half.size().map_err(|error| failed(&error))? == 0 {
            return Err(latch.fail("open its journal", "commits may be lost: one of its files is empty"));
        }
    }
    let opened = journal::open(halves, shape, &OsEntropy).map_err(|error| failed(&error))?;
    // Before the database gets any of it: a part of a commit must not outlive the commit.
    opened.make_durable().map_err(|error| failed(&error))?;
    match opened.damages() {
        [] => Ok(opened),
        _ if seeded!(DamagedJournalBelieved) => Ok(opened),
        damages => {
            let problem = format!("commits are lost: it is damaged at {damages:?}; restore an export of the metadata");
            Err(latch.fail("replay its journal", problem))
        }
    }
}

/// The commits of the journal that the database does not hold, and the sequence of the last.
///
/// # Errors
/// [`EngineError::Failed`].
pub(super) fn replay(opened: &Opened<Half>, known: Sequence, latch: &Latch) -> Result<(Table, u64), EngineError> {
    let (mut table, mut last) = (Table::default(), known.last);
    let replayed = opened.replay(|record| take(record, &mut table, &mut last));
    replayed.map_err(|error: OpenError<Unusable>| latch.fail("replay its journal", proto::status::chain(&error)))?;
    Ok((table, last))
}

fn take(bytes: &[u8], table: &mut Table, last: &mut u64) -> Result<(), Unusable> {
    let Record { first, last: end, writes } = record::parse(bytes).ok_or(Unusable::Malformed)?;
    if end <= *last {
        return Ok(());
    }
    if first != *last + 1 {
        return Err(Unusable::Gap { first, last: *last });
    }
    writes.into_iter().for_each(|(key, value)| table.set(&key, value));
    *last = end;
    Ok(())
}
