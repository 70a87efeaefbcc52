//! The one-way fail-safe: after the first fault of the disk no write is taken any more (I15, I19).
//!
//! A sync that failed cannot be repeated: the kernel has reported the error once and may show, as if they were on the
//! disk, pages that are not. So the first fault is final for this process; the first reason wins; reads go on, since
//! each is verified.
//!
//! The reason is told twice: to whoever is refused, what failed; to the operator (log, heartbeat, status), also at which
//! chunk, which may be another tenant's, and what to do.

use std::io;

use proto::ids::ChunkId;
use rustix::io::Errno;
use tokio::sync::watch;

use crate::error::ChunkError;

/// What to do, for people.
const ADVICE: &str = "look at the disk and the kernel's log, then restart this service";

/// What ended writes.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// For whoever is refused.
    what: String,
    /// For the operator.
    reason: String,
}

/// Open until the first fault. Clones are the same latch.
#[derive(Debug, Clone)]
pub(crate) struct Latch(watch::Sender<Option<Fault>>);

impl Latch {
    /// An open latch.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Refuses when a fault has ended writes.
    pub(crate) fn check(&self) -> Result<(), ChunkError> {
        match &*self.0.borrow() {
            None => Ok(()),
            Some(fault) => Err(ChunkError::ReadOnly(fault.what.clone())),
        }
    }

    /// Why no writes are taken, where it was noticed, and what to do, for the operator; `None` while they are taken.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.borrow().as_ref().map(|fault| fault.reason.clone())
    }

    /// Sees when the latch closes.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Fault>> {
        self.0.subscribe()
    }

    /// A sync failed: closes the latch, whatever the error. `chunk` is whose file it was, if it was a chunk's.
    pub(crate) fn sync_failed(
        &self,
        action: &'static str,
        chunk: impl Into<Option<ChunkId>>,
        error: &io::Error,
    ) -> ChunkError {
        let what = format!("cannot {action}: {error}");
        let of_chunk = chunk.into().map(|chunk| format!(" {chunk}")).unwrap_or_default();
        let reason = format!("cannot {action}{of_chunk}: {error}; {ADVICE}");
        let fault = Fault { what: what.clone(), reason };
        let first = self.0.send_if_modified(|held| held.is_none() && held.replace(fault.clone()).is_none());
        if first {
            tracing::error!(reason = %fault.reason, "no more writes are taken");
        }
        self.check().err().unwrap_or(ChunkError::ReadOnly(what))
    }

    /// An operation that changes the disk failed: a full disk, exhausted descriptors and the like pass by themselves, a
    /// name that is taken, closed to us or on another disk, is no fault of this one, anything else closes the latch.
    pub(crate) fn write_failed(
        &self,
        action: &'static str,
        chunk: impl Into<Option<ChunkId>>,
        error: io::Error,
    ) -> ChunkError {
        if let Some(passing) = ChunkError::passing(&error) {
            return passing;
        }
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => ChunkError::OutOfSpace(Some(error)),
            Some(
                Errno::EXIST | Errno::ISDIR | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP,
            ) => ChunkError::Io { action, source: error },
            Some(_) | None => self.sync_failed(action, chunk, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::world::place;

    #[test]
    fn the_first_fault_wins_and_is_final() {
        let latch = Latch::new();
        assert!(latch.check().is_ok());
        latch.write_failed("write", None, Errno::IO.into());
        latch.sync_failed("sync", None, &Errno::NOSPC.into());
        let Err(ChunkError::ReadOnly(reason)) = latch.check() else { panic!("the latch is closed") };
        assert!(reason.starts_with("cannot write:"), "{reason}");
    }

    /// The reason once did not say at which chunk the disk had failed, nor what to do.
    #[test]
    fn the_operator_is_told_which_chunk_and_what_to_do_and_a_caller_of_no_chunk() {
        let (latch, chunk) = (Latch::new(), place(1).chunk);
        let refused = latch.sync_failed("sync chunk", chunk, &Errno::IO.into()).to_string();
        let reason = latch.reason().unwrap();
        assert!(reason.starts_with(&format!("cannot sync chunk {chunk}: Input/output error")), "{reason}");
        assert!(reason.ends_with(ADVICE) && reason.len() < 256, "as much as a heartbeat holds: {reason}");
        assert!(!refused.contains(&chunk.to_string()), "it may be another tenant's: {refused}");
    }

    #[test]
    fn a_full_disk_and_too_many_files_pass_by_themselves_but_not_in_a_sync() {
        let latch = Latch::new();
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(matches!(latch.write_failed("write", None, errno.into()), ChunkError::OutOfSpace(_)));
        }
        assert!(matches!(latch.write_failed("open", None, Errno::MFILE.into()), ChunkError::Overloaded(_)));
        assert!(latch.check().is_ok());
        latch.sync_failed("sync", None, &Errno::NOSPC.into());
        assert!(latch.check().is_err());
        let latch = Latch::new();
        latch.write_failed("set a file aside", None, io::Error::other(Errno::NOSPC));
        assert!(latch.check().is_err(), "a sync within");
    }

    /// A folder in the place of a checksum file once ended all writes of the node when the file was to be rebuilt.
    #[test]
    fn a_name_that_cannot_be_used_is_no_fault_of_the_disk() {
        let latch = Latch::new();
        let unusable =
            [Errno::EXIST, Errno::ISDIR, Errno::NOTDIR, Errno::ACCESS, Errno::PERM, Errno::XDEV, Errno::LOOP];
        for errno in unusable {
            assert!(matches!(latch.write_failed("write", None, errno.into()), ChunkError::Io { .. }));
        }
        assert!(latch.check().is_ok());
    }
}
