//! A write in progress: where its bytes go, and the sums of those so far.
//!
//! Each byte is hashed once, from the same memory that is written. The two halves of a write, its [`Landing`] and its sums,
//! can be apart while a batch is written and hashed at the same time. A small chunk's bytes stay in memory until they are
//! all there. A write of a chunk that is complete already writes nothing: its bytes are only summed up, to be compared.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proto::capability::ChunkBinding;
use proto::checksum::{ChunkHasher, ChunkSums};
use proto::limits::MIB;

use super::disk::DiskFile;
use super::durable::Pair;
use super::sessions::Ticket;

/// So much is sent on its way to the disk at a time.
const WRITE_SOON_BYTES: u64 = MIB;

/// Where the bytes go.
#[derive(Debug)]
pub(crate) enum Target {
    /// Into this new file.
    File(Box<dyn DiskFile>),
    /// Nowhere yet: there are few, and the journal takes them.
    Memory(Vec<u8>),
    /// Nowhere: the chunk is there.
    Compare(Pair),
}

/// A write in progress.
#[derive(Debug)]
pub(crate) struct OpenWrite {
    landing: Landing,
    hasher: ChunkHasher,
}

/// The half of a write that holds what its bytes go to.
#[derive(Debug)]
pub(crate) struct Landing {
    /// The chunk and its place.
    binding: ChunkBinding,
    /// Where the bytes go.
    target: Target,
    /// Bytes that went there.
    landed: u64,
    /// Bytes of these that a sync has still to bring to the disk.
    unsynced: u64,
    /// So many bytes are on their way to the disk, or there.
    under_way: u64,
    /// What it adds to the unsynced bytes of all, where it is counted among them.
    share: Option<Share>,
    _ticket: Ticket,
}

/// Unsynced bytes of many writes together.
pub(crate) type UnsyncedOfAll = Arc<AtomicU64>;

/// What one write adds to them; taken back when it is synced, and when it is over.
#[derive(Debug)]
struct Share {
    of: UnsyncedOfAll,
    bytes: u64,
}

impl Share {
    fn becomes(&mut self, bytes: u64) {
        // Never below what others add: first the new, then the old.
        self.of.fetch_add(bytes, Ordering::Relaxed);
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.becomes(0);
    }
}

impl OpenWrite {
    /// A write of no bytes yet.
    pub(crate) fn new(binding: ChunkBinding, target: Target, ticket: Ticket) -> Self {
        let landing = Landing { binding, target, landed: 0, unsynced: 0, under_way: 0, share: None, _ticket: ticket };
        Self { landing, hasher: ChunkHasher::default() }
    }

    /// The same, whose unsynced bytes count among these.
    pub(crate) fn counted_in(mut self, all: Option<&UnsyncedOfAll>) -> Self {
        self.landing.share = all.map(|all| Share { of: Arc::clone(all), bytes: 0 });
        self
    }

    /// The chunk and its place.
    pub(crate) fn binding(&self) -> ChunkBinding {
        self.landing.binding
    }

    /// Bytes taken so far.
    pub(crate) fn received(&self) -> u64 {
        self.hasher.size_bytes()
    }

    /// Whether a later stream may go on with it.
    pub(crate) fn resumable(&self) -> bool {
        !matches!(self.landing.target, Target::Compare(_))
    }

    /// Whether there is a file that goes when the write is given up.
    pub(crate) fn has_file(&self) -> bool {
        self.landing.has_file()
    }

    /// Whether taking bytes touches no disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.landing.target, Target::Memory(_))
    }

    /// Takes the next bytes. After an error the write is of no use.
    pub(crate) fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        self.landing.land(parts)?;
        sum_up(&mut self.hasher, parts);
        Ok(())
    }

    /// Bytes that a sync of its file has still to bring to the disk.
    pub(crate) fn unsynced(&self) -> u64 {
        self.landing.unsynced
    }

    /// Syncs what was written so far. After an error the write is of no use.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.landing.sync()
    }

    /// Its halves, so that each can take the same bytes on a thread of its own.
    pub(crate) fn split(self) -> (Landing, ChunkHasher) {
        (self.landing, self.hasher)
    }

    /// The whole again. Halves that have not taken the same bytes are no write.
    pub(crate) fn join(landing: Landing, hasher: ChunkHasher) -> Option<Self> {
        (landing.landed == hasher.size_bytes()).then_some(Self { landing, hasher })
    }

    /// Ends the write: where the bytes went, and their sums.
    pub(crate) fn finish(self) -> (ChunkBinding, Target, ChunkSums) {
        let Landing { binding, target, .. } = self.landing;
        (binding, target, self.hasher.finish())
    }
}

/// Folds in the next bytes.
pub(crate) fn sum_up(hasher: &mut ChunkHasher, parts: &[Bytes]) {
    for part in parts {
        hasher.update(part);
    }
}

impl Landing {
    /// Writes the next bytes, unhashed. After an error it is of no use.
    pub(crate) fn land(&mut self, parts: &[Bytes]) -> io::Result<()> {
        match &mut self.target {
            Target::File(file) => self.unsynced += file.write_parts(parts, self.landed)?,
            Target::Memory(bytes) => parts.iter().for_each(|part| bytes.extend_from_slice(part)),
            Target::Compare(_) => {}
        }
        self.landed += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.write_soon();
        self.count();
        Ok(())
    }

    /// Keeps the disk busy while more is received: a sync that begins with everything is a sync that nothing overlaps.
    fn write_soon(&mut self) {
        let ahead = self.landed.saturating_sub(self.under_way);
        if let Target::File(file) = &self.target
            && ahead >= WRITE_SOON_BYTES
        {
            file.write_soon(self.under_way, ahead);
            self.under_way += ahead;
        }
    }

    fn count(&mut self) {
        if let Some(share) = &mut self.share {
            share.becomes(self.unsynced);
        }
    }

    fn has_file(&self) -> bool {
        matches!(self.target, Target::File(_))
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Target::File(file) = &self.target {
            file.sync()?;
        }
        self.unsynced = 0;
        self.count();
        Ok(())
    }
}
