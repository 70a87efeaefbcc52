//! A write in progress: where its bytes go, and the sums of those so far.
//!
//! Each byte is hashed once, in the same job that writes it. A write of a chunk that is complete already writes nothing:
//! its bytes are only summed up, to be compared.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proto::capability::ChunkBinding;
use proto::checksum::{ChunkHasher, ChunkSums};
use proto::failpoint;

use super::disk::DiskFile;
use super::durable::Pair;
use super::sessions::Ticket;

/// Where the bytes go.
#[derive(Debug)]
pub(crate) enum Target {
    /// Into this new file.
    File(Box<dyn DiskFile>),
    /// Nowhere: the chunk is there.
    Compare(Pair),
}

/// A write in progress.
#[derive(Debug)]
pub(crate) struct OpenWrite {
    /// The chunk and its place.
    pub(crate) binding: ChunkBinding,
    /// Where the bytes go.
    pub(crate) target: Target,
    hasher: ChunkHasher,
    synced: u64,
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
        Self { binding, target, hasher: ChunkHasher::default(), synced: 0, share: None, _ticket: ticket }
    }

    /// The same, whose unsynced bytes count among these.
    pub(crate) fn counted_in(mut self, all: Option<&UnsyncedOfAll>) -> Self {
        self.share = all.map(|all| Share { of: Arc::clone(all), bytes: 0 });
        self
    }

    /// Bytes taken so far.
    pub(crate) fn received(&self) -> u64 {
        self.hasher.size_bytes()
    }

    /// Whether a later stream may go on with it.
    pub(crate) fn resumable(&self) -> bool {
        matches!(self.target, Target::File(_))
    }

    /// Takes the next bytes. After an error the write is of no use.
    pub(crate) fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        for part in parts {
            if let Target::File(file) = &self.target {
                file.write_at(part, self.hasher.size_bytes())?;
                failpoint!("put.part_written");
            }
            self.hasher.update(part);
        }
        self.count();
        Ok(())
    }

    fn count(&mut self) {
        let unsynced = self.unsynced();
        if let Some(share) = &mut self.share {
            share.becomes(unsynced);
        }
    }

    /// Bytes written since the last sync; none of a comparison.
    pub(crate) fn unsynced(&self) -> u64 {
        if self.resumable() { self.received().saturating_sub(self.synced) } else { 0 }
    }

    /// Syncs what was written so far. After an error the write is of no use.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Target::File(file) = &self.target {
            file.sync()?;
        }
        self.synced = self.received();
        self.count();
        Ok(())
    }

    /// Ends the write: where the bytes went, and their sums.
    pub(crate) fn finish(self) -> (ChunkBinding, Target, ChunkSums) {
        (self.binding, self.target, self.hasher.finish())
    }
}
