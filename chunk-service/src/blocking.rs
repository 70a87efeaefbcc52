//! The one door to the disk: file work runs on threads that may block, a bounded number of them at a time, in the order
//! that the [scheduler](crate::fairness) decides. Only what needs no disk, since it is in memory, is read where it is asked
//! for, in a turn all the same.
//!
//! A job never waits for another job, so the bound cannot deadlock. A job that was started runs to its end whatever
//! becomes of the task that asked for it, and keeps its place until then. So whoever changes a chunk's files must own
//! the chunk until the job has ended: it runs in a task that no client can cancel. A panic in a job is fatal (I19): what it
//! guarded can no longer be trusted, so the service is asked to stop.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use proto::traffic::TrafficClass;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::background::Background;
use crate::error::ChunkError;
use crate::fairness::{Account, Closed, Rules, Scheduler, Turn};

impl From<Closed> for ChunkError {
    fn from(_closed: Closed) -> Self {
        Self::Draining
    }
}

/// Hands jobs to blocking threads, on somebody's account. Clones share the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Blocking {
    scheduler: Scheduler,
    account: Account,
    broken: CancellationToken,
    /// Where bronze's jobs run and where all others do, if these are two.
    threads: Option<Threads>,
}

/// Who asks for a job may run on bronze's threads itself, so both are named.
#[derive(Debug, Clone)]
struct Threads {
    front: Handle,
    background: Arc<Background>,
}

/// A job that is running.
#[derive(Debug)]
pub(crate) struct Job<T> {
    handle: JoinHandle<T>,
    broken: CancellationToken,
}

/// What a long job asks between two steps.
#[derive(Debug)]
pub(crate) struct Breath {
    /// `None` before anybody else may want one.
    turn: Option<Turn>,
    stop: CancellationToken,
}

impl Breath {
    /// For work at a start, when there is nobody to let in.
    pub(crate) fn undisturbed() -> Self {
        Self { turn: None, stop: CancellationToken::new() }
    }

    /// Notes that so many bytes were read or written.
    pub(crate) fn moved(&mut self, bytes: u64) {
        if let Some(turn) = &mut self.turn {
            turn.moved(bytes);
        }
    }

    /// Lets others have their turn, if they wait. Returns whether the job may go on.
    pub(crate) fn may_go_on(&mut self) -> bool {
        !self.stop.is_cancelled() && self.turn.as_mut().is_none_or(|turn| turn.breathe().is_ok())
    }
}

impl Blocking {
    /// Jobs of the services' own, by these rules; a panic in one fires `broken`.
    pub(crate) fn new(rules: Rules, broken: CancellationToken) -> Self {
        Self { scheduler: Scheduler::new(rules), account: Account::own(), broken, threads: None }
    }

    /// The same, with threads of their own for bronze's jobs. Those of others run where this is called.
    pub(crate) fn with_background(self, background: Background) -> Self {
        Self { threads: Some(Threads { front: Handle::current(), background: Arc::new(background) }), ..self }
    }

    /// Where all of bronze's work is done, if not where all others' is.
    pub(crate) fn background(&self) -> Option<Handle> {
        self.threads.as_ref().and_then(|threads| threads.background.handle())
    }

    /// The same for jobs on this account.
    pub(crate) fn on_account(&self, account: Account) -> Self {
        Self { account, ..self.clone() }
    }

    /// Who decides whose turn it is.
    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// On whose account jobs are.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    fn spawn<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
        match self.background().filter(|_| self.account.class == TrafficClass::Bronze) {
            Some(background) => Job { handle: background.spawn_blocking(job), broken: self.broken.clone() },
            None => self.spawn_urgent(job),
        }
    }

    fn spawn_urgent<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
        let handle = match &self.threads {
            Some(threads) => threads.front.spawn_blocking(job),
            None => tokio::task::spawn_blocking(job),
        };
        Job { handle, broken: self.broken.clone() }
    }

    /// Waits for a turn and starts a job that reads or writes so many bytes.
    pub(crate) async fn start<T: Send + 'static>(
        &self,
        bytes: u64,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Job<T>, ChunkError> {
        let mut turn = self.scheduler.turn(&self.account, false).await?;
        Ok(self.spawn(move || {
            turn.begin(bytes);
            job()
        }))
    }

    /// Waits for a turn and starts two jobs in it, which run at the same time: one that reads or writes so many bytes, and
    /// one that touches no disk. The turn ends with the later of them.
    pub(crate) async fn start_both<T: Send + 'static, U: Send + 'static>(
        &self,
        bytes: u64,
        job: impl FnOnce() -> T + Send + 'static,
        beside: impl FnOnce() -> U + Send + 'static,
    ) -> Result<(Job<T>, Job<U>), ChunkError> {
        let mut turn = self.scheduler.turn(&self.account, false).await?;
        turn.begin(bytes);
        let turn = Arc::new(turn);
        let shared = Arc::clone(&turn);
        let job = self.spawn(move || {
            let outcome = job();
            drop(turn);
            outcome
        });
        let beside = self.spawn(move || {
            let outcome = beside();
            drop(shared);
            outcome
        });
        Ok((job, beside))
    }

    /// Starts a job that reads or writes so many bytes, and waits for its end.
    pub(crate) async fn run_of<T: Send + 'static>(
        &self,
        bytes: u64,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ChunkError> {
        self.start(bytes, job).await?.wait().await
    }

    /// Starts a job that moves next to nothing, and waits for its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ChunkError> {
        self.run_of(0, job).await
    }

    /// As [`Blocking::run`] for what anybody may be waiting for, of whatever class: its turn comes before all others.
    pub(crate) async fn run_urgent<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ChunkError> {
        let mut turn = self.scheduler.turn(&self.account, true).await?;
        let mut job = self.spawn_urgent(move || {
            turn.begin(0);
            job()
        });
        job.wait().await
    }

    /// As [`Blocking::run`] for a job of many steps, which breathes between them and ends when `stop` fires.
    pub(crate) async fn run_long<T: Send + 'static>(
        &self,
        stop: CancellationToken,
        job: impl FnOnce(&mut Breath) -> T + Send + 'static,
    ) -> Result<T, ChunkError> {
        let mut turn = self.scheduler.turn(&self.account, false).await?;
        let mut job = self.spawn(move || {
            turn.begin(0);
            job(&mut Breath { turn: Some(turn), stop })
        });
        job.wait().await
    }

    /// As [`Blocking::run_long`] for what may be at hand. `at_hand` looks for it in the same turn and on the caller's
    /// thread, whatever the class, so it must wait for no disk; it returns what it found and how many bytes it moved. The
    /// job runs only if that is nothing.
    pub(crate) async fn run_unless<T: Send + 'static>(
        &self,
        at_hand: impl FnOnce() -> Option<(u64, T)>,
        stop: CancellationToken,
        job: impl FnOnce(&mut Breath) -> T + Send + 'static,
    ) -> Result<T, ChunkError> {
        // Many that are at hand would hold the thread: each is a step after which the runtime may have others go on.
        tokio::task::coop::consume_budget().await;
        let mut turn = self.scheduler.turn(&self.account, false).await?;
        turn.begin(0);
        let found =
            catch_unwind(AssertUnwindSafe(at_hand)).map_err(|_payload| panicked(&self.broken, "on the spot"))?;
        if let Some((moved_bytes, found)) = found {
            turn.moved(moved_bytes);
            return Ok(found);
        }
        let mut job = self.spawn(move || {
            // What it waited for a thread is no use of the disk.
            turn.begin(0);
            job(&mut Breath { turn: Some(turn), stop })
        });
        job.wait().await
    }

    /// Ends the waiting for turns, now and later. Jobs that run are left to end.
    pub(crate) fn close(&self) {
        self.scheduler.close();
    }

    /// Waits until no job runs, at most this long. Returns whether none does.
    pub(crate) async fn quiet_within(&self, deadline: Duration) -> bool {
        self.scheduler.quiet_within(deadline).await
    }
}

/// A job panicked: has the service stopped.
fn panicked(broken: &CancellationToken, job: impl fmt::Display) -> ChunkError {
    tracing::error!(%job, "a job on the disk panicked");
    broken.cancel();
    ChunkError::Panicked
}

impl<T> Job<T> {
    /// Waits for the job's end.
    pub(crate) async fn wait(&mut self) -> Result<T, ChunkError> {
        (&mut self.handle).await.map_err(|error| panicked(&self.broken, error))
    }

    /// Whether the job has ended, so that waiting would not wait.
    pub(crate) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::background::NICENESS;

    #[tokio::test]
    async fn no_more_jobs_run_at_once_than_allowed() {
        let blocking = Blocking::new(Rules::new(2, true), CancellationToken::new());
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
        let blocking = Blocking::new(Rules::new(2, true), CancellationToken::new());
        let (hang, hung) = std::sync::mpsc::sync_channel::<()>(0);
        drop(blocking.start(0, move || hung.recv()).await.unwrap());
        assert!(!blocking.quiet_within(Duration::from_millis(1)).await);
        drop(hang);
        assert!(blocking.quiet_within(Duration::from_secs(60)).await);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn bronze_s_jobs_are_nicer_but_for_those_that_others_may_be_waiting_for() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let bronze =
            Blocking::new(Rules::new(2, true), CancellationToken::new()).with_background(Background::new().unwrap());
        let gold = bronze.on_account(Account { class: TrafficClass::Gold, tenant: None });
        let ours = niceness();
        assert_eq!(bronze.run(niceness).await.unwrap(), (ours + NICENESS).min(19));
        assert_eq!(bronze.run_urgent(niceness).await.unwrap(), ours);
        assert_eq!(gold.run(niceness).await.unwrap(), ours);
        // Whoever asks may be served by bronze's threads.
        let from_there = bronze.background().unwrap().spawn(async move {
            [bronze.run_urgent(niceness).await.unwrap(), gold.run(niceness).await.unwrap(), niceness()]
        });
        assert_eq!(from_there.await.unwrap(), [ours, ours, (ours + NICENESS).min(19)]);
    }

    #[tokio::test]
    async fn a_panic_in_a_job_stops_the_service() {
        let broken = CancellationToken::new();
        let blocking = Blocking::new(Rules::new(1, true), broken.clone());
        let outcome: Result<(), _> = blocking.run(|| panic!("as planned")).await;
        assert!(matches!(outcome, Err(ChunkError::Panicked)));
        assert!(broken.is_cancelled());
        assert_eq!(blocking.run(|| 7).await.unwrap(), 7);

        let broken = CancellationToken::new();
        let blocking = Blocking::new(Rules::new(1, true), broken.clone());
        let on_the_spot = || -> Option<(u64, ())> { panic!("as planned") };
        let outcome = blocking.run_unless(on_the_spot, CancellationToken::new(), |_breath| ()).await;
        assert!(matches!(outcome, Err(ChunkError::Panicked)));
        assert!(broken.is_cancelled());
    }
}
