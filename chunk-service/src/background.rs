//! Threads for work that may take its time: bronze's, and what the service does of itself.
//!
//! The [scheduler](crate::fairness) shares out the disk, and this the processor: the threads have a lower priority than all
//! others of the process, so that receiving, hashing and copying whole blobs for bronze takes from gold and silver little
//! more than they leave. A thread can lower its priority but not raise it again, hence a runtime of its own, for jobs on the
//! disk and for [connections](proto::runtime::transport::Lane). When nobody else wants the processor, they have all of it.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::config::DISK_THREADS_KEPT;

/// By how much they are nicer than the rest: a tenth of its weight.
pub(crate) const NICENESS: i32 = 10;

/// The runtime. Threads for jobs start when there is work, and end soon when there is none.
#[derive(Debug)]
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// A runtime whose threads wait.
    ///
    /// # Errors
    /// When the system has nothing left for them.
    pub(crate) fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name("background")
            .thread_keep_alive(DISK_THREADS_KEPT)
            .on_thread_start(lower_priority)
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// For tasks and jobs; `None` when it has ended.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed where this may be dropped; whoever stops waits for the jobs first.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// On Linux, where each thread has a priority of its own; elsewhere it would be the whole process's.
fn lower_priority() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICENESS)
    {
        tracing::warn!(%error, "background work has the priority of all other work");
    }
}
