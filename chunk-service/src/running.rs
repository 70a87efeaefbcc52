//! The handle to a running service, and its end.
//!
//! Order of a stop: no new calls; health off; calls in flight finish, or are cut when the drain is over; tasks end, each
//! leaving its write as a broken stream would; the scrub's position is kept; writes without a writer are dropped with
//! their files; who still waits for the disk is told that the service stops; the folder is unlocked, unless the disk hangs and a job may still change a file: then only the end of the process unlocks it. It promises no more than an end by force does: what a receipt was given for is durable, what was not is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::runtime::TaskGroup;
use proto::runtime::folder::FolderLock;
use proto::runtime::transport::{ConnectionCounts, Gate};
use proto::runtime::worker::Pass;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::node::Node;
use crate::scrub::ScrubControl;
use crate::starting::Health;

/// How long tasks may take to end after their stop signal: one write to the disk, or one sync.
const TASKS_END_WITHIN: Duration = Duration::from_secs(5);

/// A chunk service that is ready. Dropped without [`Running::shutdown`], it ends without waiting for anything.
#[derive(Debug)]
pub struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: String,
    pub(crate) node: Arc<Node>,
    pub(crate) health: Health,
    pub(crate) gate: Arc<Gate>,
    pub(crate) server: Server,
    pub(crate) scrub: ScrubControl,
    pub(crate) lock: FolderLock,
}

/// The task that listens.
#[derive(Debug)]
pub(crate) struct Server {
    /// Ends with whether every call had ended in time.
    pub(crate) task: JoinHandle<Option<bool>>,
    /// Asks it to stop.
    pub(crate) stop: CancellationToken,
    /// Fires when it ended.
    pub(crate) ended: CancellationToken,
    /// Stops everything when a start is called off, or a running service is dropped.
    pub(crate) guards: Guards,
}

/// Stops listening and tasks when dropped.
#[derive(Debug)]
pub(crate) struct Guards {
    _server: DropGuard,
    _tasks: DropGuard,
}

impl Guards {
    pub(crate) fn new(stop: &CancellationToken, tasks: &TaskGroup) -> Self {
        Self { _server: stop.clone().drop_guard(), _tasks: tasks.stop_signal().drop_guard() }
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL under which clients reach it.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// What happened at its listener so far.
    pub fn connections(&self) -> ConnectionCounts {
        self.gate.counts()
    }

    /// Reads every chunk of the node once, from the first on, and returns what that came to.
    ///
    /// # Errors
    /// Why a pass failed, for example that the metadata service does not answer.
    pub async fn scrub_now(&self) -> Result<Pass, String> {
        self.scrub.run().await
    }

    /// Resolves only when the service can no longer do its work, with the reason; then it should be shut down.
    pub async fn failed(&self) -> String {
        let broken = self.node.tasks.broken_signal();
        tokio::select! {
            () = broken.cancelled() => "a storage thread or a critical task panicked; the log has its message".to_owned(),
            () = self.server.ended.cancelled() => "the server stopped listening; the log has the reason".to_owned(),
        }
    }

    /// Stops the service. Returns whether every call ended by itself within the drain, and every task in time.
    pub async fn shutdown(self) -> bool {
        let Self { node, health, server: Server { task, stop, guards, .. }, scrub, lock, .. } = self;
        node.draining.cancel();
        health.all_off().await;
        stop.cancel();
        let drained = task.await.ok().flatten().unwrap_or(false);
        let ended = node.tasks.shutdown(TASKS_END_WITHIN).await;
        if tokio::time::timeout(TASKS_END_WITHIN, scrub.keep_position()).await.is_err() {
            tracing::debug!("the scrub's position could not be kept in time");
        }
        match tokio::time::timeout(TASKS_END_WITHIN, node.store.close()).await {
            Ok(Ok(_dropped)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %proto::status::chain(&error), "open writes could not be dropped");
            }
            Err(_elapsed) => tracing::warn!("open writes could not be dropped in time"),
        }
        // Whatever has not had its turn by now will not need it.
        node.store.blocking().close();
        let quiet = node.store.blocking().quiet_within(TASKS_END_WITHIN).await;
        drop(guards);
        unlock(lock, ended && quiet);
        drained && ended && quiet
    }
}

/// Gives the folder up, unless something may still work in it.
fn unlock(lock: FolderLock, unused: bool) {
    if unused {
        drop(lock);
    } else {
        tracing::error!("the disk hangs; the data folder stays locked until this process has ended");
        std::mem::forget(lock);
    }
}

#[cfg(test)]
mod tests {
    use proto::runtime::folder::{self, FolderError};

    use super::*;

    /// A service that was stopped while its disk hung once unlocked the folder after five seconds. The next one could
    /// start on it, and an unlink of the first that was still under way could meet a chunk of the second.
    #[test]
    fn a_folder_whose_disk_hangs_stays_locked() {
        let folder = tempfile::tempdir().unwrap();
        unlock(folder::lock(folder.path()).unwrap(), true);
        unlock(folder::lock(folder.path()).unwrap(), false);
        assert!(matches!(folder::lock(folder.path()), Err(FolderError::InUse(_))));
    }
}
