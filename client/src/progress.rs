//! How far a transfer has come.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Upload: bytes handed over to the chunk services; a byte that has to be sent again counts once. Download: bytes
    /// that were verified.
    pub done_bytes: u64,
    /// All bytes of the transfer; `None` while the input's size is not known.
    pub total_bytes: Option<u64>,
}

/// Is told how far a transfer has come. `done_bytes` never falls; calls come one at a time, from any thread, and hold the
/// transfer up while they last.
pub type Progress = Arc<dyn Fn(Transferred) + Send + Sync>;

/// Adds up what the parts of one transfer report. Clones count together.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Shared>);

struct Shared {
    total_bytes: Option<u64>,
    listener: Option<Progress>,
    /// Held while the listener is told, so that what it sees never falls.
    done_bytes: Mutex<u64>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.0.done_bytes).finish()
    }
}

impl Meter {
    pub(crate) fn new(total_bytes: Option<u64>, listener: Option<Progress>) -> Self {
        Self(Arc::new(Shared { total_bytes, listener, done_bytes: Mutex::new(0) }))
    }

    pub(crate) fn add(&self, bytes: u64) {
        let Some(listener) = &self.0.listener else { return };
        let mut done_bytes = self.0.done_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *done_bytes += bytes;
        listener(Transferred { done_bytes: *done_bytes, total_bytes: self.0.total_bytes });
    }
}
