//! Files of many bytes, written past the page cache (`O_DIRECT`).
//!
//! A large chunk passes through the cache for nothing: the system takes a new page for every 4 KiB of it, throws out what
//! others read, and has to bring it all to the disk when anybody syncs. So whole pages go to the disk at once, from memory
//! that begins at a page, as the system asks; what is left before the first and behind the last goes through the cache, and
//! waits for the sync like everything else. The sync stays what makes the file durable: the disk may have a cache of its
//! own, and the file's length is in the file system's journal.
//!
//! Where a file system says that it does not do that, or refuses a write, the file is written like any other. One that takes
//! the flag and writes through its cache all the same, without saying so, has a sync at the end that finds more to do.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proto::failpoint;
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::io::Errno;

use super::disk::DiskFile;

/// Where bytes begin and end in file and memory: no disk that is in use has larger sectors. One that has refuses (`open(2)`),
/// and is written to through the cache.
const PAGE_BYTES: usize = 4096;
/// So much is written at a time. One write of 256 KiB after the other keeps a disk busy that does 1.2 GB/s; more in one
/// would only be more memory for each of them.
const PIECE_BYTES: usize = 256 * 1024;

/// Memory of so many pieces is kept while nobody writes: 2 MiB.
const IDLE_PIECES: usize = 8;

/// What pieces are gathered in: one for each write that is under way, and lent to the next. One for each thread were many
/// more: whose turn it is, and on which of the threads, changes from batch to batch.
#[derive(Debug, Default)]
pub(super) struct PieceMemory(Mutex<Vec<Vec<u8>>>);

impl PieceMemory {
    fn lend<T>(&self, write: impl FnOnce(&mut [u8]) -> io::Result<T>) -> io::Result<T> {
        let mut memory = self.idle().pop().unwrap_or_default();
        let written = aligned(&mut memory).and_then(write);
        let mut idle = self.idle();
        if idle.len() < IDLE_PIECES {
            idle.push(memory);
        }
        written
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the next write goes to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    PastCache,
    ThroughCache,
    /// Through the cache, since the file system takes nothing else.
    ThroughCacheOnly,
}

/// One file; written by one at a time.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: File,
    memory: Arc<PieceMemory>,
    way: Mutex<Way>,
}

/// A run of bytes that is written in one way.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    offset: u64,
    length: usize,
    is_whole_pages: bool,
}

impl DirectFile {
    /// A new file, to be written through this descriptor.
    pub(super) fn new(file: File, memory: Arc<PieceMemory>) -> Self {
        let way = if is_offered(&file) { Way::ThroughCache } else { Way::ThroughCacheOnly };
        Self { file, memory, way: Mutex::new(way) }
    }

    /// Writes all of a piece. Returns how many of its bytes are in the cache only.
    fn write(&self, way: &mut Way, piece: &Piece, bytes: &[u8]) -> io::Result<u64> {
        let wanted = if piece.is_whole_pages { Way::PastCache } else { Way::ThroughCache };
        self.switch(way, wanted)?;
        match self.file.write_all_at(bytes, piece.offset) {
            // Not what a full or broken disk says: so many bytes, there, from this memory, are not to its liking.
            Err(error) if *way == Way::PastCache && error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.switch(way, Way::ThroughCacheOnly)?;
                self.file.write_all_at(bytes, piece.offset)?;
            }
            written => written?,
        }
        Ok(if *way == Way::PastCache { 0 } else { bytes.len() as u64 })
    }

    fn switch(&self, way: &mut Way, wanted: Way) -> io::Result<()> {
        if *way == wanted || *way == Way::ThroughCacheOnly {
            return Ok(());
        }
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        let flags = if wanted == Way::PastCache { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
        *way = match rustix::fs::fcntl_setfl(&self.file, flags) {
            Ok(()) => wanted,
            Err(Errno::INVAL) if wanted == Way::PastCache => Way::ThroughCacheOnly,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

/// Whether the file system writes whole pages past its cache, as far as it says. ext4 that keeps data in its journal, for one,
/// takes the flag and does not.
fn is_offered(file: &File) -> bool {
    let Ok(stat) = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else { return true };
    // Of Linux 6.1 (`statx(2)`); before, the first write tells.
    let says = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
    let fits = |align: u32| (1..=PAGE_BYTES as u64).contains(&u64::from(align));
    !says || (fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align))
}

/// Cuts `total` bytes from `offset` on at pages.
fn pieces(offset: u64, total: usize) -> impl Iterator<Item = Piece> {
    let mut left = total;
    let mut at = offset;
    std::iter::from_fn(move || {
        let to_page = (at.next_multiple_of(PAGE_BYTES as u64) - at).min(left as u64);
        let length = match usize::try_from(to_page).unwrap_or(left) {
            0 if left >= PAGE_BYTES => PIECE_BYTES.min(left - left % PAGE_BYTES),
            0 => left,
            to_page => to_page,
        };
        let piece = Piece { offset: at, length, is_whole_pages: to_page == 0 && length >= PAGE_BYTES };
        left -= length;
        at += length as u64;
        (length > 0).then_some(piece)
    })
}

/// Hands out the bytes of several buffers one behind the other.
struct Gather<'a> {
    parts: std::slice::Iter<'a, Bytes>,
    current: &'a [u8],
}

impl Gather<'_> {
    fn fill(&mut self, mut room: &mut [u8]) {
        while !room.is_empty() {
            if self.current.is_empty() {
                let Some(part) = self.parts.next() else { return };
                self.current = part;
            }
            let (now, later) = self.current.split_at(self.current.len().min(room.len()));
            let (filled, empty) = room.split_at_mut(now.len());
            filled.copy_from_slice(now);
            (self.current, room) = (later, empty);
        }
    }
}

/// Memory of one piece that begins at a page.
fn aligned(memory: &mut Vec<u8>) -> io::Result<&mut [u8]> {
    memory.resize(PIECE_BYTES + PAGE_BYTES, 0);
    let start = memory.as_ptr().align_offset(PAGE_BYTES);
    memory.get_mut(start..start.saturating_add(PIECE_BYTES)).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl DiskFile for DirectFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_parts(&[Bytes::copy_from_slice(bytes)], offset).map(drop)
    }

    fn write_parts(&self, parts: &[Bytes], offset: u64) -> io::Result<u64> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if *way == Way::ThroughCacheOnly {
            return self.file.write_parts(parts, offset);
        }
        let mut gather = Gather { parts: parts.iter(), current: &[] };
        self.memory.lend(|memory| {
            let mut cached = 0;
            for piece in pieces(offset, parts.iter().map(Bytes::len).sum()) {
                let Some(bytes) = memory.get_mut(..piece.length) else { return Err(io::ErrorKind::OutOfMemory.into()) };
                gather.fill(bytes);
                cached += self.write(&mut way, &piece, bytes)?;
                failpoint!("put.part_written");
            }
            Ok(cached)
        })
    }

    fn read_at(&self, buffer: &mut Vec<u8>, length: usize, offset: u64) -> io::Result<()> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        self.switch(&mut way, Way::ThroughCache)?;
        DiskFile::read_at(&self.file, buffer, length, offset)
    }

    fn size(&self) -> io::Result<u64> {
        DiskFile::size(&self.file)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes)
    }

    fn write_soon(&self, offset: u64, bytes: u64) {
        // What went past the cache is written.
        if *self.way.lock().unwrap_or_else(PoisonError::into_inner) == Way::ThroughCacheOnly {
            self.file.write_soon(offset, bytes);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}

#[cfg(test)]
mod tests;
