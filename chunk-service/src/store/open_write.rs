//! A write in progress: where its bytes go, and the sums of those so far.
//!
//! Each byte is hashed once, in the same job that writes it. A write of a chunk that is complete already writes nothing:
//! its bytes are only summed up, to be compared.

use std::io;

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
    _ticket: Ticket,
}

impl OpenWrite {
    /// A write of no bytes yet.
    pub(crate) fn new(binding: ChunkBinding, target: Target, ticket: Ticket) -> Self {
        Self { binding, target, hasher: ChunkHasher::default(), synced: 0, _ticket: ticket }
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
        Ok(())
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
        Ok(())
    }

    /// Ends the write: where the bytes went, and their sums.
    pub(crate) fn finish(self) -> (ChunkBinding, Target, ChunkSums) {
        (self.binding, self.target, self.hasher.finish())
    }
}
