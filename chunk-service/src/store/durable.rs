//! How a chunk becomes durable, is found again, and goes.
//!
//! Order of a put (I1, I15): create `{uuid}.blob` exclusively; write it; sync it by the descriptor that wrote; publish
//! `{uuid}.blob.chk` and sync it; sync the folder, for many chunks at once (`folder_sync`); only then may a receipt be built.
//! Order of a delete: unlink the `.chk`, then the `.blob`, sync the folder, answer.
//!
//! A `.blob` is written under its final name. A temporary one and a rename would protect nothing: ids are never used
//! twice, nobody reads a chunk before its receipt, and a `.chk` that parses can exist only after its `.blob` was synced.
//! It is the `.chk` that publishes, and it comes by rename: a process that is killed leaves none, or a whole one, so that
//! `sha256sum -c *.chk` has nothing to complain of. Before the receipt it is synced like the bytes: what a receipt was
//! given for is a whole pair after any crash, so no later write of the same chunk can take it for a left-over and clear
//! it while somebody commits with that receipt. (Healing alone would not do: before the commit the metadata knows no sums.)
//!
//! What a crash leaves: nothing; a `.blob` of any length and content without a `.chk`, or with a torn one (a left-over,
//! settled by what the metadata says: see `leftover`); a complete pair that may be in the page cache only, so whoever
//! believes it syncs it again and reads it back first ([`confirm`]). Perhaps also a `.chk.tmp`, which the next attempt
//! replaces and a delete removes. After a delete: the pair, the `.blob` alone, or nothing.

use std::io;

use proto::capability::ChunkBinding;
use proto::checksum::{ChunkHasher, ChunkSums};
use proto::failpoint;
use proto::ids::ChunkId;
use proto::limits::{FRAME_BYTES, MIB};

use super::chk::{self, CHK_BYTES_MAX, Chk, ChkError};
use super::disk::{Disk, DiskFile};
use super::latch::Latch;
use crate::blocking::Breath;
use crate::error::ChunkError;

/// Chunks up to this size reserve no room before they are written: their first write does, at no extra cost.
const RESERVE_ABOVE_BYTES: u64 = MIB;

/// Name of a chunk's bytes.
pub(crate) fn blob_name(chunk: ChunkId) -> String {
    format!("{chunk}.blob")
}

/// Name of a chunk's checksum file.
pub(crate) fn chk_name(chunk: ChunkId) -> String {
    format!("{chunk}.blob.chk")
}

/// Name under which a checksum file is written before it is published.
pub(crate) fn chk_temporary_name(chunk: ChunkId) -> String {
    format!("{chunk}.blob.chk.tmp")
}

/// What the disk holds under a chunk's names.
#[derive(Debug)]
pub(crate) enum Found {
    /// Neither file.
    Nothing,
    /// A checksum file for this place, and as many bytes as it says.
    Complete(Pair),
    /// Anything else.
    Leftover,
}

/// A chunk's two files, which agree in place and size; the bytes are not verified yet.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The bytes.
    pub(crate) file: Box<dyn DiskFile>,
    /// What the checksum file says.
    pub(crate) chk: Chk,
}

/// Whether two bindings name the same place of the same chunk. Epoch and sequence only date the plan.
pub(crate) fn same_place(a: &ChunkBinding, b: &ChunkBinding) -> bool {
    let dated = |binding: &ChunkBinding| ChunkBinding { epoch: 0, sequence: 0, ..*binding };
    dated(a) == dated(b)
}

/// Looks for a chunk.
///
/// # Errors
/// When a file cannot be opened, and as [`read_chk`]; a checksum file that the disk does not give out counts as damaged.
pub(crate) fn look_up(disk: &dyn Disk, place: &ChunkBinding) -> Result<Found, ChunkError> {
    let file = disk.open(&blob_name(place.chunk)).map_err(ChunkError::file("open a chunk"))?;
    let chk = disk.open(&chk_name(place.chunk)).map_err(ChunkError::file("open a chunk"))?;
    // Read also when it is alone: one of a later version is no left-over.
    let chk = chk.map(|chk| read_chk(place.chunk, chk.as_ref())).transpose()?;
    let (file, chk) = match (file, chk) {
        (None, None) => return Ok(Found::Nothing),
        (Some(file), Some(chk)) => (file, chk),
        (Some(_), None) | (None, Some(_)) => return Ok(Found::Leftover),
    };
    // A size that the disk does not tell says nothing about the chunk: an error, and no left-over.
    let size = file.size().map_err(ChunkError::file("ask for a chunk's size"))?;
    match chk {
        Some(chk) if same_place(&chk.binding, place) && size == chk.sums.size_bytes => {
            Ok(Found::Complete(Pair { file, chk }))
        }
        Some(_) | None => Ok(Found::Leftover),
    }
}

/// What a checksum file is.
enum ChkFile {
    Whole(Chk),
    Damaged,
    /// The disk does not give it out.
    Unreadable,
}

/// Reads a checksum file; `None` when it is damaged, or the disk does not give it out.
///
/// # Errors
/// [`ChunkError::ChecksumFileTooNew`]: it says something, but not to this program. [`ChunkError::Overloaded`]: nothing is
/// known of it now.
pub(crate) fn read_chk(chunk: ChunkId, file: &dyn DiskFile) -> Result<Option<Chk>, ChunkError> {
    match read_chk_file(chunk, file)? {
        ChkFile::Whole(chk) => Ok(Some(chk)),
        ChkFile::Damaged | ChkFile::Unreadable => Ok(None),
    }
}

fn read_chk_file(chunk: ChunkId, file: &dyn DiskFile) -> Result<ChkFile, ChunkError> {
    let read = || {
        let size = file.size()?.min(CHK_BYTES_MAX + 1);
        let mut bytes = Vec::new();
        file.read_at(&mut bytes, usize::try_from(size).map_err(io::Error::other)?, 0)?;
        Ok(match Chk::parse(&bytes) {
            Ok(chk) => Some(Ok(chk)),
            Err(ChkError::TooNew { found }) => Some(Err(found)),
            Err(ChkError::Damaged) => None,
        })
    };
    match twice(file, read, |_says_something| true) {
        Ok(Some(Ok(chk))) => Ok(ChkFile::Whole(chk)),
        Ok(Some(Err(found))) => Err(ChunkError::ChecksumFileTooNew { chunk, found, known: chk::VERSION }),
        Ok(None) => Ok(ChkFile::Damaged),
        Err(error) => ChunkError::passing(&error).map_or(Ok(ChkFile::Unreadable), Err),
    }
}

/// Refuses a chunk of so many bytes when it would leave less room than there must be.
pub(crate) fn check_room(disk: &dyn Disk, bytes: u64, low_watermark: u64) -> Result<(), ChunkError> {
    let space = disk.space().map_err(ChunkError::file("ask for the free space"))?;
    if space.free.saturating_sub(bytes) < low_watermark { Err(ChunkError::OutOfSpace(None)) } else { Ok(()) }
}

/// Makes a chunk's file, with room for as many bytes as are announced.
pub(crate) fn create(
    disk: &dyn Disk,
    latch: &Latch,
    chunk: ChunkId,
    announced: Option<u64>,
    low_watermark: u64,
) -> Result<Box<dyn DiskFile>, ChunkError> {
    check_room(disk, announced.unwrap_or(0), low_watermark)?;
    let name = blob_name(chunk);
    let file = match announced {
        Some(bytes) => disk.create_sized(&name, bytes),
        None => disk.create_new(&name),
    };
    let file = file.map_err(|error| latch.write_failed("create chunk", chunk, error))?;
    failpoint!("put.blob_created");
    if let Some(bytes) = announced.filter(|bytes| *bytes > RESERVE_ABOVE_BYTES)
        && let Err(error) = file.reserve(bytes)
    {
        discard(disk, chunk);
        return Err(latch.write_failed("reserve room for chunk", chunk, error));
    }
    Ok(file)
}

/// Syncs the bytes, then publishes the checksum file. What remains before a receipt is the sync of the folder.
pub(crate) fn settle(disk: &dyn Disk, latch: &Latch, file: &dyn DiskFile, chk: &Chk) -> Result<(), ChunkError> {
    file.sync().map_err(|error| latch.sync_failed("sync chunk", chk.binding.chunk, &error))?;
    failpoint!("put.blob_synced");
    publish_chk(disk, latch, chk)
}

/// Writes a checksum file, also in the place of a damaged one: no kill leaves half a file under its name. Its bytes are
/// durable on return.
pub(crate) fn publish_chk(disk: &dyn Disk, latch: &Latch, chk: &Chk) -> Result<(), ChunkError> {
    let chunk = chk.binding.chunk;
    let written =
        write_chk(disk, chk).map_err(|error| latch.write_failed("write the checksum file of chunk", chunk, error));
    // After the rename: a file system that commits both at once has nothing left to do when the folder is synced.
    written?.sync().map_err(|error| latch.sync_failed("sync the checksum file of chunk", chunk, &error))?;
    failpoint!("put.chk_synced");
    Ok(())
}

/// Whether nothing is under a chunk's names.
///
/// # Errors
/// When the disk does not say.
pub(crate) fn is_vacant(disk: &dyn Disk, chunk: ChunkId) -> Result<bool, ChunkError> {
    for name in [blob_name(chunk), chk_name(chunk)] {
        if disk.stat(&name).map_err(ChunkError::file("look for a chunk"))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes both files of a small chunk, which must not be there, and syncs neither: see `journal` for what makes them
/// durable. An error leaves nothing of it.
pub(crate) fn lay_out(disk: &dyn Disk, latch: &Latch, chk: &Chk, content: &[u8]) -> Result<(), ChunkError> {
    let chunk = chk.binding.chunk;
    let file = disk.create_new(&blob_name(chunk)).map_err(|error| latch.write_failed("create chunk", chunk, error))?;
    failpoint!("put.blob_created");
    let write = || {
        file.write_at(content, 0)?;
        failpoint!("put.bytes_written");
        write_chk(disk, chk).map(drop)
    };
    write().map_err(|error| {
        discard(disk, chunk);
        latch.write_failed("write chunk", chunk, error)
    })
}

fn write_chk(disk: &dyn Disk, chk: &Chk) -> io::Result<Box<dyn DiskFile>> {
    let temporary = chk_temporary_name(chk.binding.chunk);
    let file = match disk.create_new(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.unlink(&temporary)?;
            disk.create_new(&temporary)?
        }
        created => created?,
    };
    file.write_at(chk.print().as_bytes(), 0)?;
    failpoint!("put.chk_written");
    disk.rename(&temporary, &chk_name(chk.binding.chunk))?;
    failpoint!("put.chk_published");
    Ok(file)
}

/// Makes sure of a pair that a crash may have left in the page cache only: syncs both files, then reads the bytes back
/// past the cache. What remains is the sync of the folder. Returns whether the bytes are those of the checksum file.
///
/// The sync alone would not do: after an earlier failure of the disk it can succeed for pages that never got there.
pub(crate) fn confirm(disk: &dyn Disk, latch: &Latch, pair: &Pair, breath: &mut Breath) -> Result<bool, ChunkError> {
    let failed = |error| latch.sync_failed("sync chunk", pair.chk.binding.chunk, &error);
    pair.file.sync().map_err(failed)?;
    if let Some(chk) = disk.open(&chk_name(pair.chk.binding.chunk)).map_err(ChunkError::file("open a chunk"))? {
        chk.sync().map_err(failed)?;
    }
    failpoint!("repeat.synced");
    let file = pair.file.as_ref();
    // A cache that cannot be passed by says nothing about the bytes.
    file.drop_cache().map_err(ChunkError::file("read a chunk past the page cache"))?;
    let read = || sum_up(file, pair.chk.sums.size_bytes, breath).map(Some);
    match twice(file, read, |sums| *sums == pair.chk.sums) {
        Ok(sums) => Ok(sums.is_some()),
        Err(Unsummed::Stopped) => Err(ChunkError::Draining),
        Err(Unsummed::Failed(error)) => {
            tracing::warn!(chunk = %pair.chk.binding.chunk, %error, "a chunk cannot be read back");
            ChunkError::passing(&error).map_or(Ok(false), Err)
        }
    }
}

/// Why a file was not summed up.
pub(crate) enum Unsummed {
    /// The service stops.
    Stopped,
    /// The disk does not return the bytes.
    Failed(io::Error),
}

impl From<io::Error> for Unsummed {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Reads, and reads once more past the page cache when that failed or is not good. `None` when it never was good.
pub(crate) fn twice<T, E: From<io::Error>>(
    file: &dyn DiskFile,
    mut read: impl FnMut() -> Result<Option<T>, E>,
    good: impl Fn(&T) -> bool,
) -> Result<Option<T>, E> {
    match read() {
        Ok(Some(value)) if good(&value) => return Ok(Some(value)),
        Ok(_) | Err(_) => file.drop_cache()?,
    }
    Ok(read()?.filter(good))
}

/// Sums up the first `size` bytes of a file, a little at a time: neither others nor a stop wait for a large one on a slow
/// disk.
pub(crate) fn sum_up(file: &dyn DiskFile, size: u64, breath: &mut Breath) -> Result<ChunkSums, Unsummed> {
    let mut hasher = ChunkHasher::default();
    let mut buffer = Vec::new();
    while hasher.size_bytes() < size {
        if !breath.may_go_on() {
            return Err(Unsummed::Stopped);
        }
        let length = (size - hasher.size_bytes()).min(FRAME_BYTES);
        buffer.clear();
        file.read_at(&mut buffer, usize::try_from(length).map_err(io::Error::other)?, hasher.size_bytes())?;
        hasher.update(&buffer);
        breath.moved(length);
    }
    Ok(hasher.finish())
}

/// Removes a chunk's names, the checksum file first.
pub(crate) fn remove(disk: &dyn Disk, chunk: ChunkId) -> io::Result<()> {
    disk.unlink(&chk_name(chunk))?;
    failpoint!("remove.chk_unlinked");
    disk.unlink(&blob_name(chunk))?;
    failpoint!("remove.blob_unlinked");
    disk.unlink(&chk_temporary_name(chunk))?;
    Ok(())
}

/// Moves a chunk's files into quarantine, the bytes first: a checksum file that is left alone by a crash still says that
/// there was a whole chunk, so that what follows treats it with the same care. What remains is the sync of the folder.
pub(crate) fn quarantine(disk: &dyn Disk, chunk: ChunkId) -> io::Result<()> {
    disk.quarantine(&blob_name(chunk))?;
    disk.quarantine(&chk_name(chunk))?;
    disk.unlink(&chk_temporary_name(chunk))?;
    Ok(())
}

/// Clears the names of a left-over that nothing refers to. With a checksum file that parses it was a whole chunk once,
/// and somebody changed it since; with one that the disk does not give out it may be whole even now: either is set
/// aside, for whoever looks into that. Returns whether it was.
///
/// No receipt was ever given for what is removed here, so no commit can come to refer to it: a receipt follows the sync
/// of both files and of their names, and from then on a crash leaves a pair that is [`Found::Complete`].
///
/// # Errors
/// As [`read_chk`], with everything left as it is.
pub(crate) fn clear(disk: &dyn Disk, latch: &Latch, chunk: ChunkId) -> Result<bool, ChunkError> {
    let chk = disk.open(&chk_name(chunk)).map_err(ChunkError::file("open a chunk"))?;
    let was_whole = match chk.map(|chk| read_chk_file(chunk, chk.as_ref())).transpose()? {
        Some(ChkFile::Whole(_) | ChkFile::Unreadable) => true,
        Some(ChkFile::Damaged) | None => false,
    };
    let cleared = if was_whole { quarantine(disk, chunk) } else { remove(disk, chunk) };
    cleared.map_err(|error| latch.write_failed("clear a left-over of chunk", chunk, error))?;
    Ok(was_whole)
}

/// Removes what an abandoned write left, as far as it can: what stays is a left-over like that of a crash.
pub(crate) fn discard(disk: &dyn Disk, chunk: ChunkId) {
    if let Err(error) = remove(disk, chunk) {
        tracing::warn!(%chunk, %error, "an abandoned write could not be removed");
    }
}
