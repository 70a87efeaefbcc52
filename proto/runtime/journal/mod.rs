//! A journal: records that become durable in groups, one write and one sync for as many as wait.
//!
//! Both services acknowledge small writes from one of these and bring them to their final place later, in bulk: a group
//! costs one write to blocks that the file already has and one `fdatasync` of one file, whatever the group holds. Since no
//! block is allocated for it, a file system need not commit its own journal for that sync, which would drag other files'
//! pages along.
//!
//! Two halves, files of equal greatest length, take turns. All that is written to one of them before the other's turn is a
//! *generation*. A generation is *released* when its records are durable where they belong; only then may the generation
//! after the next one overwrite it. Every group says up to which generation all are released, so a release is itself
//! durable with the next group, and costs nothing.
//!
//! Order, for each group: write it, sync it, then answer; the next group is written after that. So at most one group is in
//! flight, and whatever lies before a whole group was durable before it. From this follows how a replay judges (`replay`): a
//! broken group with a later one behind it was damaged (reported, all others are used); one with none behind it is the
//! write that a crash cut off, which nobody was answered for.
//!
//! Holds I15 together with its caller: after an error of a sync the journal refuses everything
//! ([`AppendError::Sync`]); it is of no use until it is opened, and replayed, anew. I16 is not its matter: a replay must be harmless however
//! often it happens, and whatever happened to the records' final place since.
//!
//! Crash: anywhere in a group loses that group or keeps it. A half is overwritten only after a group in the other one said
//! that it is released, so no crash brings a released record back. While the files are made: they are short, hold no
//! group, and are made again.

mod format;
mod replay;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use self::format::{BLOCK_BYTES, COUNT_MAX, GroupHead, HEAD_BYTES, blocks};
pub use self::replay::{Damage, OpenError, Opened, open};
use crate::checksum::crc32c;
use crate::failpoint;
use crate::limits::MIB;

/// Bytes of all records of one group, with what frames them; a record may have as many.
pub const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// By so much a half's file usually grows.
pub const GROWTH_BYTES: u64 = MIB;
/// Smallest greatest length of a half: its head, and the largest group twice.
pub const HALF_BYTES_MIN: u64 = 5 * MIB;

const _: () = assert!(HALF_BYTES_MIN > BLOCK_BYTES + 2 * (GROUP_BYTES_MAX as u64 + BLOCK_BYTES));

/// How large the halves become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Greatest length of each; at least [`HALF_BYTES_MIN`].
    pub half_bytes: u64,
    /// By so much each grows where it has to, so that its length changes once for many groups; usually
    /// [`GROWTH_BYTES`]. So much it has from the beginning, so that a full disk does not keep out what frees room.
    pub growth_bytes: u64,
}

/// One of the two files. The descriptor that writes is the one that syncs.
pub trait HalfFile: fmt::Debug + Send {
    /// The file's length.
    ///
    /// # Errors
    /// As the system says; so for all of these.
    fn size(&self) -> io::Result<u64>;
    /// Appends exactly so many bytes from there to the buffer.
    ///
    /// # Errors
    /// Also with `UnexpectedEof`.
    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()>;
    /// Writes all of the bytes there; the file grows where it has to.
    ///
    /// # Errors
    /// Nothing is known of the content there then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length durable.
    ///
    /// # Errors
    /// Nothing written since the last sync can be relied on then, and a repeat tells nothing.
    fn sync(&self) -> io::Result<()>;
}

impl HalfFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        let start = buffer.len();
        buffer.resize(start + length, 0);
        self.read_exact_at(buffer.get_mut(start..).unwrap_or_default(), offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Why a group was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The half is full; see [`Journal::rotate`].
    #[error("the journal's half is full")]
    Full,
    /// The group is larger than any may be: a bug of the caller.
    #[error("a journal's group of {0} bytes is too large")]
    TooLarge(usize),
    /// It could not be written. The journal is as it was; the same place is used next time.
    #[error("the journal cannot be written")]
    Write(#[source] io::Error),
    /// It could not be synced, now or before: the journal takes nothing any more.
    #[error("the journal cannot be synced")]
    Sync(#[source] io::Error),
}

/// One half.
#[derive(Debug)]
struct Half<F> {
    file: F,
    /// Its length.
    size: u64,
}

/// The writing end. Blocks; belongs to one thread at a time.
#[derive(Debug)]
pub struct Journal<F> {
    halves: [Half<F>; 2],
    shape: Shape,
    salt: u64,
    generation: u64,
    /// Where the next group goes within the generation's half.
    at: u64,
    /// Its number within the generation.
    group: u64,
    /// How many groups the generation before has.
    previous: u64,
    released: u64,
    /// As the last group says.
    durably_released: u64,
    /// As the last group of this generation says; 0 while there is none.
    said_here: u64,
    broken: bool,
    buffer: Vec<u8>,
}

impl<F: HalfFile> Journal<F> {
    /// The generation that the next group belongs to.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How much of the present half is used, in percent.
    pub fn used_percent(&self) -> u64 {
        self.at.saturating_mul(100) / self.shape.half_bytes
    }

    /// Appends a group; durable on return. One without records makes durable what was released.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append<R: AsRef<[u8]>>(&mut self, records: &[R]) -> Result<(), AppendError> {
        self.append_before(self.shape.half_bytes - BLOCK_BYTES, records)
    }

    /// Goes on in the other half, with the next generation. Returns whether that is possible now: the generation before
    /// this one must be released.
    ///
    /// # Errors
    /// [`AppendError`], when the release is not durable yet and cannot be made so.
    pub fn rotate(&mut self) -> Result<bool, AppendError> {
        let overwritten = self.generation.saturating_sub(1);
        if self.released < overwritten {
            return Ok(false);
        }
        // What says that it is released must not be what is overwritten.
        if self.said_here < overwritten {
            self.append_before::<&[u8]>(self.shape.half_bytes, &[])?;
        }
        if self.generation >= COUNT_MAX {
            return Err(AppendError::Write(io::Error::other("its generations are used up")));
        }
        self.said_here = 0;
        self.previous = std::mem::take(&mut self.group);
        self.generation += 1;
        self.at = BLOCK_BYTES;
        Ok(true)
    }

    /// Notes that the records of this generation and all before it are durable where they belong.
    pub fn release(&mut self, generation: u64) {
        self.released = self.released.max(generation);
    }

    /// Up to which generation a replay would hand over nothing.
    pub fn durably_released(&self) -> u64 {
        self.durably_released
    }

    fn half_of(&self, generation: u64) -> &F {
        let [even, odd] = &self.halves;
        if generation.is_multiple_of(2) { &even.file } else { &odd.file }
    }

    fn append_before<R: AsRef<[u8]>>(&mut self, end: u64, records: &[R]) -> Result<(), AppendError> {
        if self.broken {
            return Err(AppendError::Sync(io::Error::other("an earlier sync failed")));
        }
        let payload = records.iter().map(|record| record.as_ref().len() + size_of::<u32>()).sum::<usize>();
        if payload > GROUP_BYTES_MAX {
            return Err(AppendError::TooLarge(payload));
        }
        let bytes = blocks(HEAD_BYTES + payload);
        if self.at.saturating_add(bytes) > end || self.group > COUNT_MAX {
            return Err(AppendError::Full);
        }
        self.frame(records, payload);
        let (at, shape) = (self.at, self.shape);
        let [even, odd] = &mut self.halves;
        let half = if self.generation.is_multiple_of(2) { even } else { odd };
        // A group of records leaves a block of the file for the release.
        let spare = if records.is_empty() { 0 } else { BLOCK_BYTES };
        match half.write(&mut self.buffer, at, spare, shape) {
            // It cannot become longer; there may be room in the other one.
            Err(error) if is_full(&error) && at > BLOCK_BYTES => return Err(AppendError::Full),
            written => written.map_err(AppendError::Write)?,
        }
        failpoint!("journal.written");
        if let Err(error) = half.file.sync() {
            self.broken = true;
            return Err(AppendError::Sync(error));
        }
        self.at += bytes;
        self.group += 1;
        self.durably_released = self.released;
        self.said_here = self.released;
        Ok(())
    }

    /// Lays a group out in the buffer, up to the end of its last block.
    fn frame<R: AsRef<[u8]>>(&mut self, records: &[R], payload_bytes: usize) {
        self.buffer.clear();
        self.buffer.resize(HEAD_BYTES, 0);
        for record in records.iter().map(AsRef::as_ref) {
            self.buffer.extend_from_slice(&short(record.len()).to_be_bytes());
            self.buffer.extend_from_slice(record);
        }
        let (head, payload) = self.buffer.split_at_mut(HEAD_BYTES);
        let encoded = GroupHead {
            salt: self.salt,
            generation: self.generation,
            group: self.group,
            previous: self.previous,
            released: self.released,
            records: short(records.len()),
            payload_bytes: short(payload_bytes),
            payload_crc: crc32c(payload),
        };
        head.copy_from_slice(&encoded.encode());
        let end = self.buffer.len().next_multiple_of(usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX));
        self.buffer.resize(end, 0);
    }
}

/// A number that the bound on a group keeps small.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Whether the disk is full, or what its user may have of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl<F: HalfFile> Half<F> {
    /// Writes there; where the file does not go on for at least `spare` bytes, it is made longer by zeros at the buffer's
    /// end.
    fn write(&mut self, buffer: &mut Vec<u8>, at: u64, spare: u64, shape: Shape) -> io::Result<()> {
        let end = at + buffer.len() as u64 + spare;
        if end <= self.size {
            return self.file.write_at(buffer, at);
        }
        let grown = end.next_multiple_of(shape.growth_bytes.max(1)).min(shape.half_bytes.max(end));
        buffer.resize(usize::try_from(grown - at).map_err(io::Error::other)?, 0);
        self.file.write_at(buffer, at)?;
        self.size = grown;
        Ok(())
    }

    /// Makes it so long at least, if there is room on the disk; not durably yet.
    fn grow(&mut self, bytes: u64) -> io::Result<()> {
        if self.size >= bytes {
            return Ok(());
        }
        let zeros = vec![0; usize::try_from(bytes - self.size).map_err(io::Error::other)?];
        match self.file.write_at(&zeros, self.size) {
            Err(error) if is_full(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.size = bytes;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
