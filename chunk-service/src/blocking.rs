//! The one door to the disk: file work runs on threads that may block, a bounded number of them at a time.
//!
//! A job never waits for another job, so the bound cannot deadlock. A job that was started runs to its end whatever
//! becomes of the task that asked for it, and keeps its place until then. So whoever changes a chunk's files must own
//! the chunk until the job has ended: it runs in a task that no client can cancel. A panic in a job is fatal (I19): what it
//! guarded can no longer be trusted, so the service is asked to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::ChunkError;

/// Hands jobs to blocking threads. Clones share the bound.
#[derive(Debug, Clone)]
pub(crate) struct Blocking {
    places: Arc<Semaphore>,
    threads: usize,
    broken: CancellationToken,
}

/// A job that is running.
#[derive(Debug)]
pub(crate) struct Job<T> {
    handle: JoinHandle<T>,
    broken: CancellationToken,
}

impl Blocking {
    /// At most `threads` jobs at once; a panic in one fires `broken`.
    pub(crate) fn new(threads: usize, broken: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(threads)), threads, broken }
    }

    /// Waits for a free place and starts the job there.
    pub(crate) async fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Job<T>, ChunkError> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_closed| ChunkError::Draining)?;
        let handle = tokio::task::spawn_blocking(move || {
            let outcome = job();
            drop(place);
            outcome
        });
        Ok(Job { handle, broken: self.broken.clone() })
    }

    /// Starts the job and waits for its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ChunkError> {
        self.start(job).await?.wait().await
    }

    /// Waits until no job runs, at most this long. Returns whether none does.
    pub(crate) async fn quiet_within(&self, deadline: Duration) -> bool {
        let all = u32::try_from(self.threads).unwrap_or(u32::MAX);
        tokio::time::timeout(deadline, self.places.acquire_many(all)).await.is_ok()
    }
}

impl<T> Job<T> {
    /// Waits for the job's end.
    pub(crate) async fn wait(&mut self) -> Result<T, ChunkError> {
        (&mut self.handle).await.map_err(|error| {
            tracing::error!(%error, "a storage thread panicked");
            self.broken.cancel();
            ChunkError::Panicked
        })
    }

    /// Whether the job has ended, so that waiting would not wait.
    pub(crate) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_jobs_run_at_once_than_allowed() {
        let blocking = Blocking::new(2, CancellationToken::new());
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..16).map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            blocking.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for outcome in futures_util::future::join_all(jobs).await {
            outcome.unwrap();
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_job_that_hangs_is_noticed_also_when_nobody_waits_for_it() {
        let blocking = Blocking::new(2, CancellationToken::new());
        let (hang, hung) = std::sync::mpsc::sync_channel::<()>(0);
        drop(blocking.start(move || hung.recv()).await.unwrap());
        assert!(!blocking.quiet_within(Duration::from_millis(1)).await);
        drop(hang);
        assert!(blocking.quiet_within(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn a_panic_in_a_job_stops_the_service() {
        let broken = CancellationToken::new();
        let blocking = Blocking::new(1, broken.clone());
        let outcome: Result<(), _> = blocking.run(|| panic!("as planned")).await;
        assert!(matches!(outcome, Err(ChunkError::Panicked)));
        assert!(broken.is_cancelled());
        assert_eq!(blocking.run(|| 7).await.unwrap(), 7);
    }
}
