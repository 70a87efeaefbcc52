//! One sync of the folder for many chunks.
//!
//! A caller is served by a sync that *began* after its names were made. While one sync runs, everybody who comes waits
//! for the next, which is then one for all of them; there is no artificial delay. A failed sync fails everybody whom
//! it would have served (I15), and closes the latch for those who come later.
//!
//! Whoever comes first makes the sync for all, of whatever class they are, so it takes the next turn there is; the time is
//! charged to the one who made it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use super::disk::Disk;
use super::latch::Latch;
use crate::blocking::Blocking;
use crate::error::ChunkError;

/// Groups syncs of one folder.
#[derive(Debug)]
pub(crate) struct FolderSync {
    disk: Arc<dyn Disk>,
    latch: Latch,
    /// Callers so far; each one's number is its place in line.
    callers: AtomicU64,
    /// The last caller that a sync has served. Whoever holds the lock syncs for all who have called by then.
    served: Mutex<u64>,
}

impl FolderSync {
    pub(crate) fn new(disk: Arc<dyn Disk>, latch: Latch) -> Self {
        Self { disk, latch, callers: AtomicU64::new(0), served: Mutex::new(0) }
    }

    /// How many have asked for a sync.
    #[cfg(test)]
    pub(crate) fn callers(&self) -> u64 {
        self.callers.load(Ordering::SeqCst)
    }

    /// Returns when every name made or removed before this call is durable.
    pub(crate) async fn sync(&self, blocking: &Blocking) -> Result<(), ChunkError> {
        let mine = self.callers.fetch_add(1, Ordering::SeqCst) + 1;
        let mut served = self.served.lock().await;
        if *served >= mine {
            return Ok(());
        }
        if !seeded!(self.disk, LatchIgnored) {
            self.latch.check()?;
        }
        let mut all = self.callers.load(Ordering::SeqCst);
        if seeded!(self.disk, GroupAckedBeforeSync) {
            *served = all;
        }
        let disk = Arc::clone(&self.disk);
        let outcome = blocking.run_urgent(move || disk.sync_folder()).await?;
        outcome.map_err(|error| self.latch.sync_failed("sync the folder", None, &error))?;
        if seeded!(self.disk, LatecomersServed) {
            all = self.callers.load(Ordering::SeqCst);
        }
        *served = all;
        Ok(())
    }
}
