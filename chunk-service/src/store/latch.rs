//! The one-way fail-safe: after the first fault of the disk no write is taken any more (I15, I19).
//!
//! A sync that failed cannot be repeated: the kernel has reported the error once and may show, as if they were on the
//! disk, pages that are not. So the first fault is final for this process; the first reason wins; reads go on, since
//! each is verified.

use std::io;

use rustix::io::Errno;
use tokio::sync::watch;

use crate::error::ChunkError;

/// Open until the first fault. Clones are the same latch.
#[derive(Debug, Clone)]
pub(crate) struct Latch(watch::Sender<Option<String>>);

impl Latch {
    /// An open latch.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Refuses when a fault has ended writes.
    pub(crate) fn check(&self) -> Result<(), ChunkError> {
        match &*self.0.borrow() {
            None => Ok(()),
            Some(reason) => Err(ChunkError::ReadOnly(reason.clone())),
        }
    }

    /// Why no writes are taken; `None` while they are.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Sees when the latch closes.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }

    /// A sync failed: closes the latch, whatever the error.
    pub(crate) fn sync_failed(&self, action: &'static str, error: &io::Error) -> ChunkError {
        let reason = format!("cannot {action}: {error}");
        let first = self.0.send_if_modified(|held| {
            let first = held.is_none();
            if first {
                *held = Some(reason.clone());
            }
            first
        });
        if first {
            tracing::error!(%reason, "no more writes are taken; the disk needs an operator");
        }
        ChunkError::ReadOnly(self.reason().unwrap_or(reason))
    }

    /// An operation that changes the disk failed: a full disk and exhausted descriptors pass by themselves, a name that
    /// is taken, closed to us or on another disk, is no fault of this one, anything else closes the latch.
    pub(crate) fn write_failed(&self, action: &'static str, error: io::Error) -> ChunkError {
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => ChunkError::OutOfSpace(Some(error)),
            Some(Errno::MFILE | Errno::NFILE) => ChunkError::Overloaded("open files"),
            Some(
                Errno::EXIST | Errno::ISDIR | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP,
            ) => ChunkError::Io { action, source: error },
            Some(_) | None => self.sync_failed(action, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_wins_and_is_final() {
        let latch = Latch::new();
        assert!(latch.check().is_ok());
        latch.write_failed("write", Errno::IO.into());
        latch.sync_failed("sync", &Errno::NOSPC.into());
        let Err(ChunkError::ReadOnly(reason)) = latch.check() else { panic!("the latch is closed") };
        assert!(reason.starts_with("cannot write:"), "{reason}");
    }

    #[test]
    fn a_full_disk_and_too_many_files_pass_by_themselves_but_not_in_a_sync() {
        let latch = Latch::new();
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(matches!(latch.write_failed("write", errno.into()), ChunkError::OutOfSpace(_)));
        }
        assert!(matches!(latch.write_failed("open", Errno::MFILE.into()), ChunkError::Overloaded(_)));
        assert!(latch.check().is_ok());
        latch.sync_failed("sync", &Errno::NOSPC.into());
        assert!(latch.check().is_err());
        let latch = Latch::new();
        latch.write_failed("set a file aside", io::Error::other(Errno::NOSPC));
        assert!(latch.check().is_err(), "a sync within");
    }

    /// A folder in the place of a checksum file once ended all writes of the node when the file was to be rebuilt.
    #[test]
    fn a_name_that_cannot_be_used_is_no_fault_of_the_disk() {
        let latch = Latch::new();
        let unusable =
            [Errno::EXIST, Errno::ISDIR, Errno::NOTDIR, Errno::ACCESS, Errno::PERM, Errno::XDEV, Errno::LOOP];
        for errno in unusable {
            assert!(matches!(latch.write_failed("write", errno.into()), ChunkError::Io { .. }));
        }
        assert!(latch.check().is_ok());
    }
}
