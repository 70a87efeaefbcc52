//! Background work as reconcilers.
//!
//! A worker takes no input: each pass looks at what is, does a bounded part of what is missing, and may be repeated at
//! any time. The driver owns timer, jitter, wake-up, pause, cancellation, and status; a pass that fails is logged and the
//! next tick is the retry.
//!
//! Passes of one worker never run at once, whoever asks for them. A paused worker's timer starts none; whoever asks for
//! one gets it. A stop cuts a pass where it waits, as a kill would.

mod pace;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::pace::Pace;

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
    /// It did not do what it is for, on purpose: no sweep ends with it.
    pub held_back: bool,
}

impl Pass {
    /// A pass that did nothing, on purpose.
    pub fn held_back() -> Self {
        Self { held_back: true, ..Self::default() }
    }
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

    /// What bounds its speed, if anything does; it draws on it during its passes.
    fn pace(&self) -> Option<&Pace> {
        None
    }

    /// Why it holds back, or what it wants an operator to decide, in words; asked after each pass.
    fn holds_back(&self) -> Option<String> {
        None
    }

    /// When it last went through everything there is; asked after each pass. `ended` is when this one ended, if it was not
    /// held back and there is no more to do after it: the end of a sweep, unless the worker knows better.
    fn last_sweep(&self, ended: Option<Instant>) -> Option<Instant> {
        ended
    }
}

/// How a worker is to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Its timer starts no pass.
    pub paused: bool,
    /// Most units of work per second; 0 for no bound.
    pub pace_per_second: u64,
}

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerStatus {
    /// Passes ended so far.
    pub passes: u64,
    /// The last pass that succeeded.
    pub last_pass: Option<Pass>,
    /// When the last pass ended.
    pub last_pass_at: Option<Instant>,
    /// Why the last pass failed, if it did.
    pub last_error: Option<String>,
    /// Why it holds back, or what it wants an operator to decide.
    pub holds_back: Option<String>,
    /// When it last went through everything there is.
    pub last_sweep: Option<Instant>,
}

/// Triggers and watches a worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle {
    requests: mpsc::Sender<oneshot::Sender<Result<Pass, String>>>,
    status: watch::Receiver<WorkerStatus>,
    settings: watch::Sender<Settings>,
    pace: Option<Pace>,
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

    /// Has the worker run like this from now on, also within a pass.
    pub fn configure(&self, settings: Settings) {
        self.settings.send_replace(settings);
        if let Some(pace) = &self.pace {
            pace.set(settings.pace_per_second);
        }
    }

    /// How the worker is to run.
    pub fn settings(&self) -> Settings {
        *self.settings.borrow()
    }

    /// What its pace counts; empty when it has none.
    pub fn pace_unit(&self) -> &'static str {
        self.pace.as_ref().map_or("", Pace::unit)
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
    let (settings, settled) = watch::channel(Settings::default());
    let pace = worker.pace().cloned();
    let driver = Driver { worker, schedule, inbox, reports, settings: settled, stop: group.stop_signal(), entropy };
    group.spawn_critical("worker", driver.run());
    WorkerHandle { requests, status, settings, pace }
}

struct Driver<W> {
    worker: W,
    schedule: Schedule,
    inbox: mpsc::Receiver<oneshot::Sender<Result<Pass, String>>>,
    reports: watch::Sender<WorkerStatus>,
    settings: watch::Receiver<Settings>,
    stop: CancellationToken,
    entropy: Arc<dyn Entropy>,
}

impl<W: Worker> Driver<W> {
    async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            let pause = self.pause();
            tokio::select! {
                biased;
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

    /// Passes until there is no more to do; whoever asks for one in between gets it in turn.
    async fn drain(&mut self) {
        while !self.settings.borrow().paused {
            let outcome = self.worker.run_scheduled().await;
            if !self.report(outcome).is_ok_and(|pass| pass.more) {
                break;
            }
            if let Ok(answer) = self.inbox.try_recv() {
                self.answer(answer).await;
            }
        }
    }

    fn report(&self, outcome: Result<Pass, W::Error>) -> Result<Pass, String> {
        let outcome = outcome.map_err(|error| crate::status::chain(&error));
        if let Err(error) = &outcome {
            tracing::warn!(worker = self.worker.name(), %error, "a pass failed; the next one is its retry");
        }
        let now = Instant::now();
        let through = outcome.as_ref().is_ok_and(|pass| !pass.more && !pass.held_back).then_some(now);
        self.reports.send_modify(|status| {
            status.passes += 1;
            status.last_pass_at = Some(now);
            status.last_error = outcome.as_ref().err().cloned();
            status.last_pass = outcome.as_ref().ok().copied().or(status.last_pass);
            status.holds_back = self.worker.holds_back();
            status.last_sweep = self.worker.last_sweep(through).or(status.last_sweep);
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
mod tests;
