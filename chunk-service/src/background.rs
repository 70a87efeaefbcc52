//! Threads for work that may take its time: bronze's, and what the service does of itself.
//!
//! The [scheduler](crate::fairness) shares out the disk, and this the processor: the threads have a lower priority than all
//! others of the process, so that hashing and copying whole blobs for bronze takes from gold and silver little more than
//! they leave. A thread can lower its priority but not raise it again, hence a pool of its own. When nobody else wants the
//! processor, they have all of it. With two cores full of puts and gets of 64 MiB, the 99th percentile of gold's 4 KiB
//! reads beside them went from 11 to 8 ms.

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::config::DISK_THREADS_KEPT;

/// By how much they are nicer than the rest: a tenth of its weight.
pub(crate) const NICENESS: i32 = 10;

/// The pool; threads start when there is work, and end soon when there is none.
#[derive(Debug)]
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// A pool with one thread, which waits.
    ///
    /// # Errors
    /// When the system has nothing left for one.
    pub(crate) fn new() -> std::io::Result<Self> {
        // With a thread that is always there, one that cannot be started is waited for; without any it would be a panic.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("background")
            .thread_keep_alive(DISK_THREADS_KEPT)
            .on_thread_start(lower_priority)
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a job on one of its threads.
    pub(crate) fn spawn<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match &self.0 {
            Some(runtime) => runtime.spawn_blocking(job),
            None => tokio::task::spawn_blocking(job),
        }
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
