//! Background work as reconcilers.
//!
//! A worker takes no input: each pass looks at what is, does a bounded part of what is missing, and may be repeated at
//! any time. The driver owns timer, jitter, wake-up, cancellation between passes, and status; a pass that fails is
//! logged and the next tick is the retry.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::TaskGroup;
use crate::entropy::Entropy;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Things looked at.
    pub examined: u64,
    /// Things changed.
    pub changed: u64,
    /// Things left alone on purpose.
    pub skipped: u64,
    /// Things that could not be done.
    pub failed: u64,
    /// There is more to do at once.
    pub more: bool,
}

/// One kind of background work.
pub trait Worker: Send + Sync + 'static {
    /// Why a pass failed.
    type Error: std::error::Error + Send + 'static;

    /// Its name in logs and status.
    fn name(&self) -> &'static str;

    /// Does a bounded amount of work. Idempotent.
    fn run_once(&self) -> impl Future<Output = Result<Pass, Self::Error>> + Send;

    /// A pass that the timer starts and nobody asked for; like any other, unless the worker has a reason to hold back.
    fn run_scheduled(&self) -> impl Future<Output = Result<Pass, Self::Error>> + Send {
        self.run_once()
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerStatus {
    /// Passes ended so far.
    pub passes: u64,
    /// The last pass that succeeded.
    pub last_pass: Option<Pass>,
    /// Why the last pass failed, if it did.
    pub last_error: Option<String>,
}

/// Triggers and watches a worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle {
    requests: mpsc::Sender<oneshot::Sender<Result<Pass, String>>>,
    status: watch::Receiver<WorkerStatus>,
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerHandle").field("status", &*self.status.borrow()).finish()
    }
}

/// Callers of [`WorkerHandle::run_now`] that may wait at once.
const WAITING_MAX: usize = 16;

impl WorkerHandle {
    /// Runs a pass that begins after this call and returns what it did.
    ///
    /// # Errors
    /// The text of the pass's error, or that the worker has stopped.
    pub async fn run_now(&self) -> Result<Pass, String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || "the worker has stopped".to_owned();
        self.requests.send(answer).await.map_err(|_closed| stopped())?;
        answered.await.unwrap_or_else(|_dropped| Err(stopped()))
    }

    /// What the worker is doing.
    pub fn status(&self) -> WorkerStatus {
        self.status.borrow().clone()
    }
}

/// When a worker runs by itself.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Time between passes; `None` for only when asked, as in tests.
    pub interval: Option<Duration>,
}

/// Starts a worker in the group. A panic in it breaks the group.
pub fn start<W: Worker>(group: &TaskGroup, worker: W, schedule: Schedule, entropy: Arc<dyn Entropy>) -> WorkerHandle {
    let (requests, inbox) = mpsc::channel(WAITING_MAX);
    let (reports, status) = watch::channel(WorkerStatus::default());
    let driver = Driver { worker, schedule, inbox, reports, stop: group.stop_signal(), entropy };
    group.spawn_critical("worker", driver.run());
    WorkerHandle { requests, status }
}

struct Driver<W> {
    worker: W,
    schedule: Schedule,
    inbox: mpsc::Receiver<oneshot::Sender<Result<Pass, String>>>,
    reports: watch::Sender<WorkerStatus>,
    stop: CancellationToken,
    entropy: Arc<dyn Entropy>,
}

impl<W: Worker> Driver<W> {
    async fn run(mut self) {
        loop {
            let pause = self.pause();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some(answer) = self.inbox.recv() => self.answer(answer).await,
                () = pause => self.drain().await,
            }
        }
    }

    async fn answer(&mut self, answer: oneshot::Sender<Result<Pass, String>>) {
        let outcome = self.worker.run_once().await;
        let outcome = self.report(outcome);
        if answer.send(outcome).is_err() {
            tracing::debug!(worker = self.worker.name(), "whoever asked for this pass no longer waits");
        }
    }

    async fn drain(&mut self) {
        while !self.stop.is_cancelled() {
            let outcome = self.worker.run_scheduled().await;
            if !self.report(outcome).is_ok_and(|pass| pass.more) {
                break;
            }
        }
    }

    fn report(&self, outcome: Result<Pass, W::Error>) -> Result<Pass, String> {
        let outcome = outcome.map_err(|error| crate::status::chain(&error));
        if let Err(error) = &outcome {
            tracing::warn!(worker = self.worker.name(), %error, "a pass failed; the next one is its retry");
        }
        self.reports.send_modify(|status| {
            status.passes += 1;
            status.last_error = outcome.as_ref().err().cloned();
            status.last_pass = outcome.as_ref().ok().copied().or(status.last_pass);
        });
        outcome
    }

    /// The interval give or take a tenth, so that many nodes do not beat in step.
    fn pause(&self) -> impl Future<Output = ()> + Send + use<W> {
        let mut random = [0; 1];
        self.entropy.fill(&mut random);
        let permille = 900 + u32::from(random[0]) * 200 / 255;
        let pause = self.schedule.interval.map(|interval| interval * permille / 1000);
        async move {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    struct Counter(std::sync::atomic::AtomicU64);

    impl Worker for Counter {
        type Error = std::io::Error;
        fn name(&self) -> &'static str {
            "counter"
        }
        async fn run_once(&self) -> Result<Pass, Self::Error> {
            let before = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if before == 1 {
                Err(std::io::Error::other("as planned"))
            } else {
                Ok(Pass { changed: 1, ..Pass::default() })
            }
        }
    }

    #[tokio::test]
    async fn a_worker_runs_when_asked_and_a_failed_pass_does_not_end_it() {
        let group = TaskGroup::new();
        let entropy = Arc::new(SeededEntropy::new(1));
        let handle = start(&group, Counter(0.into()), Schedule { interval: None }, entropy);
        assert_eq!(handle.run_now().await, Ok(Pass { changed: 1, ..Pass::default() }));
        assert_eq!(handle.run_now().await, Err("as planned".to_owned()));
        assert_eq!(handle.status().last_error.as_deref(), Some("as planned"));
        assert!(handle.run_now().await.is_ok());
        assert_eq!((handle.status().passes, handle.status().last_error), (3, None));
        assert!(group.shutdown(Duration::from_secs(10)).await);
        assert!(handle.run_now().await.is_err());
    }

    struct Cautious;

    impl Worker for Cautious {
        type Error = std::io::Error;
        fn name(&self) -> &'static str {
            "cautious"
        }
        async fn run_once(&self) -> Result<Pass, Self::Error> {
            Ok(Pass { changed: 1, ..Pass::default() })
        }
        async fn run_scheduled(&self) -> Result<Pass, Self::Error> {
            Ok(Pass { skipped: 1, ..Pass::default() })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_can_hold_back_what_its_timer_starts_and_not_what_is_asked_for() {
        let group = TaskGroup::new();
        let schedule = Schedule { interval: Some(Duration::from_secs(60)) };
        let handle = start(&group, Cautious, schedule, Arc::new(SeededEntropy::new(1)));
        let mut status = handle.status.clone();
        let held_back = |status: &WorkerStatus| status.last_pass.is_some_and(|pass| pass.skipped == 1);
        status.wait_for(held_back).await.unwrap();
        assert_eq!(handle.run_now().await, Ok(Pass { changed: 1, ..Pass::default() }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_runs_by_itself_at_its_interval() {
        let group = TaskGroup::new();
        let entropy = Arc::new(SeededEntropy::new(1));
        let schedule = Schedule { interval: Some(Duration::from_secs(60)) };
        let handle = start(&group, Counter(0.into()), schedule, entropy);
        let mut status = handle.status.clone();
        status.wait_for(|status| status.passes == 3).await.unwrap();
    }
}
