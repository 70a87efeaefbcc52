//! The database itself, and the one file that names sled.
//!
//! It holds every commit up to the sequence that its own row tells, and of later ones what an unfinished checkpoint has
//! written.
//!
//! What sled does not do by itself is done here: its `flush` survives the end of the process but not a power cut, so a
//! descriptor of our own on its log file is `fdatasync`ed after it (a failure on the same inode is reported to every
//! descriptor once, so sled's background thread cannot swallow ours); what a crash left of its files is made good before
//! it sees them (`files`); and the names of a new database and what recovery wrote are synced before anyone reads it.
//!
//! Any error of sled latches the engine (I19). Files, all of sled's kind: `db` (the log), `conf`, `blobs/` (empty as long
//! as values are short, which `Batch::check_bounds` sees to), `snap.*`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::checksum::crc32c;
use proto::failpoint;
use proto::runtime::folder;

use super::files;
use super::latch::Latch;
use crate::store::engine::{EngineError, KeyRange, Row};

/// The engine's own row: the sequence of the last commit. The key is refused to everyone else.
const SEQUENCE_KEY: &[u8] = b"";

/// Version of that row. A program that knows nothing of the journal refuses it, and so does not take for all commits what
/// may be the older ones.
const SEQUENCE_VERSION: u8 = 2;
/// Its version in a database to which no journal belongs: every commit is in it. Otherwise the same.
const SEQUENCE_VERSION_ALONE: u8 = 1;

/// How long sled's last threads may hold its files after it was closed.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);

/// An open database.
#[derive(Clone)]
pub(super) struct Database {
    db: sled::Db,
    latch: Arc<Latch>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not sled's own: that prints every row.
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Database {
    /// Opens or creates the database and recovers it. Blocks, in proportion to the log's length.
    pub(super) fn open(folder: &Path, cache_bytes: u64, latch: Arc<Latch>) -> Result<Self, EngineError> {
        folder::create(folder).map_err(|error| latch.fail("make its folder", proto::status::chain(&error)))?;
        files::prepare(folder).map_err(|error| latch.fail("prepare its files", proto::status::chain(&error)))?;
        let config = sled::Config::new().path(folder).cache_capacity(cache_bytes);
        // Some damage makes sled panic in place of an error.
        let db = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_panic| latch.fail("open its database", "sled panicked over its files"))?
            .map_err(|error| latch.fail("open its database", error))?;
        Ok(Self { db, latch })
    }

    fn failed(&self, action: &'static str) -> impl Fn(sled::Error) -> EngineError + use<> {
        let latch = Arc::clone(&self.latch);
        move |error| latch.fail(action, error)
    }

    /// The value of a key, durable or not.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if key == SEQUENCE_KEY {
            return Ok(None);
        }
        let value = self.db.get(key).map_err(self.failed("read a row"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The rows of a range in key order, durable or not, read as they are asked for.
    pub(super) fn rows(&self, range: &KeyRange) -> impl Iterator<Item = Result<Row, EngineError>> + use<> {
        let start = if range.start == SEQUENCE_KEY {
            Bound::Excluded(Vec::new())
        } else {
            Bound::Included(range.start.clone())
        };
        let end = range.end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let failed = self.failed("scan its rows");
        self.db.range((start, end)).map(move |row| {
            let (key, value) = row.map_err(&failed)?;
            Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        })
    }

    /// Writes a row, or removes it with `None`; not durable yet.
    pub(super) fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError> {
        let failed = self.failed("write a row");
        match value {
            Some(value) => self.db.insert(key, value).map(drop).map_err(failed),
            // It would write to its log that something has gone which never was there.
            None if self.db.contains_key(key).map_err(&failed)? => self.db.remove(key).map(drop).map_err(failed),
            None => Ok(()),
        }
    }

    /// Notes the sequence of the last commit whose rows are in it; not durable yet.
    pub(super) fn write_sequence(&self, sequence: u64) -> Result<(), EngineError> {
        let row = encode_sequence(sequence);
        self.db.insert(SEQUENCE_KEY, row).map(drop).map_err(self.failed("write its sequence"))
    }

    /// The sequence of the last commit whose rows are in it, and whether a journal belongs to it.
    pub(super) fn sequence(&self) -> Result<Sequence, EngineError> {
        let row = self.db.get(SEQUENCE_KEY).map_err(self.failed("read its sequence"))?;
        match row {
            Some(row) => decode_sequence(&row).map_err(|problem| self.latch.fail("read its sequence", problem)),
            None if self.db.is_empty() => Ok(Sequence { last: 0, has_journal: false }),
            None => Err(self.latch.fail("read its sequence", "there are rows but no sequence")),
        }
    }
}

/// What the engine's own row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The last commit whose rows are all there; 0 before the first.
    pub(super) last: u64,
    /// Later ones may be in a journal beside the database, and nowhere else.
    pub(super) has_journal: bool,
}

/// `version (1) | sequence (8, big-endian) | crc32c of the former (4, big-endian)`.
fn encode_sequence(sequence: u64) -> Vec<u8> {
    let mut row = vec![SEQUENCE_VERSION];
    row.extend_from_slice(&sequence.to_be_bytes());
    row.extend_from_slice(&crc32c(&row).to_be_bytes());
    row
}

fn decode_sequence(row: &[u8]) -> Result<Sequence, String> {
    let damaged = || "the row is damaged".to_owned();
    let (content, sum) = row.split_last_chunk::<4>().ok_or_else(damaged)?;
    let (version, sequence) = content.split_first().ok_or_else(damaged)?;
    if crc32c(content) != u32::from_be_bytes(*sum) {
        return Err(damaged());
    }
    let has_journal = *version == SEQUENCE_VERSION;
    if !has_journal && *version != SEQUENCE_VERSION_ALONE {
        return Err(format!("the row has format version {version}, but this program knows version {SEQUENCE_VERSION}"));
    }
    let last = sequence.try_into().map(u64::from_be_bytes).map_err(|_length| damaged())?;
    Ok(Sequence { last, has_journal })
}

/// Makes everything that was written so far to a file durable. A seam, so that tests can hold or fail it.
pub(crate) trait LogSync: fmt::Debug + Send {
    /// Returns when it is on the disk.
    ///
    /// # Errors
    /// When that is not certain; then it must not be tried again.
    fn sync(&mut self) -> io::Result<()>;
}

/// sled's log, with a descriptor of our own.
#[derive(Debug)]
pub(super) struct Log {
    database: Database,
    file: File,
}

impl Log {
    /// Opens the log of an open database and makes durable what is there, names included.
    pub(super) fn open(database: &Database, folder: &Path) -> Result<Self, EngineError> {
        let open = || -> io::Result<Self> {
            let file = OpenOptions::new().read(true).write(true).open(folder.join("db"))?;
            let mut log = Self { database: database.clone(), file };
            log.sync()?;
            File::open(folder)?.sync_all()?;
            Ok(log)
        };
        open().map_err(|error| database.latch.fail("sync its files", error))
    }

    /// Another handle on the log's file.
    pub(super) fn file(&self) -> Result<File, EngineError> {
        self.file.try_clone().map_err(|error| self.database.latch.fail("open its log", error))
    }
}

impl LogSync for Log {
    fn sync(&mut self) -> io::Result<()> {
        self.database.db.flush().map_err(io::Error::other)?;
        failpoint!("engine.log_flushed");
        self.file.sync_data()?;
        failpoint!("engine.log_synced");
        Ok(())
    }
}

/// Waits until sled has let go of its files, so that whoever opens them next finds them free.
///
/// sled's lock goes with its last handle on the file, which an I/O thread of its own may hold a little longer than the
/// database lives. That lock and one taken through our descriptor exclude each other, so getting it is the proof.
pub(super) fn wait_until_released(file: &File) -> io::Result<()> {
    let started = Instant::now();
    while let Err(error) = file.try_lock() {
        if started.elapsed() > RELEASE_WITHIN {
            return Err(error.into());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    file.unlock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_row_is_read_back_and_no_damaged_one_is() {
        let row = encode_sequence(0x0102_0304_0506_0708);
        assert_eq!(decode_sequence(&row), Ok(Sequence { last: 0x0102_0304_0506_0708, has_journal: true }));
        for length in 0..row.len() {
            assert!(decode_sequence(&row[..length]).is_err());
        }
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_sequence(&damaged).is_err(), "bit {bit}");
        }
        let of_version = |version| {
            let mut other = row[..row.len() - 4].to_vec();
            other[0] = version;
            other.extend_from_slice(&crc32c(&other).to_be_bytes());
            decode_sequence(&other)
        };
        assert_eq!(of_version(1), Ok(Sequence { last: 0x0102_0304_0506_0708, has_journal: false }));
        assert!(of_version(3).unwrap_err().contains("format version 3, but this program knows version 2"));
    }
}
