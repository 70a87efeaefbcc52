//! A start: from what the journal holds to files that hold the same (I1).
//!
//! Only the last record of a chunk counts: what came before it was replaced or forgotten. Files that hold what the record
//! says are left alone; so is a whole pair that says something else, which the journal knows nothing of. Anything else is
//! what a crash left of the files, and is written again. Nothing is begun before all of these are durable, so a crash in
//! the middle only means that the next start does it once more.

use std::collections::HashMap;

use proto::entropy::Entropy;
use proto::failpoint;
use proto::ids::ChunkId;
use proto::runtime::journal::{self, HALF_BYTES_MIN, Journal, OpenError, Opened, Shape};

use super::record::{Record, parse};
use super::{Half, NAMES, Use};
use crate::blocking::Breath;
use crate::error::ChunkError;
use crate::store::chk::Chk;
use crate::store::disk::Disk;
use crate::store::durable::{self, Found, blob_name, chk_name};
use crate::store::latch::Latch;

/// A record that is none, or what the folder says while one is used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is malformed")]
    Malformed,
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// Opens the journal, restores what a crash kept from its files, and begins. `None` when there is none and none is wanted.
pub(super) fn open(
    disk: &dyn Disk,
    latch: &Latch,
    wanted: Use,
    entropy: &dyn Entropy,
) -> Result<Option<Journal<Half>>, ChunkError> {
    let is_there = is_there(disk)?;
    if wanted.below == 0 && !is_there {
        return Ok(None);
    }
    let opened = match opened(disk, wanted.shape, entropy) {
        Err(error) if !is_there && is_full(&error) => {
            tracing::warn!(error = %proto::status::chain(&error), "there is no room for a journal; each small chunk is synced");
            return Ok(None);
        }
        opened => opened?,
    };
    disk.sync_folder().map_err(|error| latch.sync_failed("sync the folder", None, &error))?;
    for damage in opened.damages() {
        tracing::error!(
            ?damage,
            "a part of the journal is damaged: chunks of that time may be lost; check the cluster"
        );
    }
    let mut names = Vec::new();
    let mut written = 0_u64;
    each_last(&opened, |record| {
        let Record::Put(chk, content) = record else { return Ok(()) };
        written += u64::from(restore(disk, latch, &chk, content)?);
        names.extend([blob_name(chk.binding.chunk), chk_name(chk.binding.chunk)]);
        Ok(())
    })?;
    if opened.records() > 0 {
        disk.sync_all(&names).map_err(|error| latch.sync_failed("sync what the journal holds", None, &error))?;
        failpoint!("journal.restored");
        tracing::info!(chunks = names.len() / 2, written, "the journal was replayed");
    }
    let begun = opened.begin();
    begun.map(Some).map_err(|error| ChunkError::Journal { problem: "it cannot be begun", source: Box::new(error) })
}

/// How many chunks the journal holds whose files do not hold the same. Changes nothing.
///
/// # Errors
/// [`ChunkError::Journal`].
pub(crate) fn unsettled(disk: &dyn Disk, entropy: &dyn Entropy) -> Result<u64, ChunkError> {
    if !is_there(disk)? {
        return Ok(0);
    }
    let mut count = 0;
    let untouched = Shape { half_bytes: HALF_BYTES_MIN, growth_bytes: 0 };
    each_last(&opened(disk, untouched, entropy)?, |record| {
        if let Record::Put(chk, content) = record {
            count += u64::from(!is_settled(disk, &chk, content)?);
        }
        Ok(())
    })?;
    Ok(count)
}

fn is_there(disk: &dyn Disk) -> Result<bool, ChunkError> {
    for name in NAMES {
        if disk.stat(name).map_err(ChunkError::io("look for the journal"))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether it is for want of room.
fn is_full(error: &ChunkError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        }
        cause = error.source();
    }
    false
}

fn opened(disk: &dyn Disk, shape: Shape, entropy: &dyn Entropy) -> Result<Opened<Half>, ChunkError> {
    let half = |name| disk.open_or_create(name).map(Half).map_err(ChunkError::io("open the journal"));
    let [first, second] = NAMES;
    journal::open([half(first)?, half(second)?], shape, entropy).map_err(|error| failed(error.into()))
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> ChunkError {
    ChunkError::Journal { problem: "it cannot be replayed", source: error }
}

/// Hands over the last record of each chunk.
fn each_last(
    opened: &Opened<Half>,
    mut take: impl FnMut(Record<'_>) -> Result<(), ChunkError>,
) -> Result<(), ChunkError> {
    let mut last: HashMap<ChunkId, u64> = HashMap::new();
    replay(opened, |number, record| {
        last.insert(record.chunk(), number);
        Ok(())
    })?;
    replay(opened, |number, record| if last.get(&record.chunk()) == Some(&number) { take(record) } else { Ok(()) })
}

fn replay(
    opened: &Opened<Half>,
    mut take: impl FnMut(u64, Record<'_>) -> Result<(), ChunkError>,
) -> Result<(), ChunkError> {
    let mut number = 0;
    let taken = opened.replay(|record| {
        number += 1;
        take(number, parse(record).ok_or(Unusable::Malformed)?).map_err(Unusable::from)
    });
    taken.map_err(
        |error| {
            if let OpenError::Record(Unusable::Chunk(error)) = error { error } else { failed(error.into()) }
        },
    )
}

/// Makes the files hold what the record says. Returns whether they were written.
fn restore(disk: &dyn Disk, latch: &Latch, chk: &Chk, content: &[u8]) -> Result<bool, ChunkError> {
    if is_settled(disk, chk, content)? {
        return Ok(false);
    }
    let chunk = chk.binding.chunk;
    durable::remove(disk, chunk).map_err(|error| latch.write_failed("restore chunk", chunk, error))?;
    durable::lay_out(disk, latch, chk, content)?;
    failpoint!("journal.file_restored");
    Ok(true)
}

/// Whether the files hold what the record says, or are a whole pair that it knows nothing of.
fn is_settled(disk: &dyn Disk, chk: &Chk, content: &[u8]) -> Result<bool, ChunkError> {
    let pair = match durable::look_up(disk, &chk.binding) {
        Ok(Found::Complete(pair)) => pair,
        Ok(Found::Nothing | Found::Leftover) => return Ok(false),
        Err(error @ ChunkError::ChecksumFileTooNew { .. }) => {
            tracing::warn!(%error, "the journal leaves a chunk alone");
            return Ok(true);
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    let size = usize::try_from(pair.chk.sums.size_bytes).unwrap_or(usize::MAX);
    let same = pair.chk == *chk && pair.file.read_at(&mut found, size, 0).is_ok() && found == content;
    if same {
        return Ok(true);
    }
    let another = pair.chk.sums != chk.sums
        && durable::sum_up(pair.file.as_ref(), pair.chk.sums.size_bytes, &mut Breath::undisturbed())
            .is_ok_and(|sums| sums == pair.chk.sums);
    if another {
        tracing::warn!(chunk = %chk.binding.chunk, "a chunk has other bytes than the journal says; they are whole and stay");
    }
    Ok(another)
}
