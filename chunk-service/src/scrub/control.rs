//! The scrub as others see it: triggered, paused, paced and watched.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proto::entropy::Entropy;
use proto::runtime::TaskGroup;
use proto::runtime::worker::{self, Pace, Pass, Schedule, Settings, WorkerHandle, WorkerStatus};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{Inspector, Scrub, ScrubSettings, SharedProgress};
use crate::metadata_link::ScrubOrder;
use crate::store::ChunkStore;
use crate::time::NodeTime;

/// Runs that were asked for: one at work, and one that has not begun.
pub(super) const ORDERED_MAX: usize = 2;

/// What the scrub was told.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    restart: AtomicBool,
    /// Bytes per second that an operator asks for, 0 for no bound.
    ordered_pace: Mutex<Option<u64>>,
    own_pace: AtomicU64,
    /// The last run that an operator asked for, as far as this process has heard.
    run_count: Mutex<Option<u64>>,
}

impl Orders {
    pub(super) fn take_restart(&self) -> bool {
        self.restart.swap(false, Ordering::Relaxed)
    }

    pub(super) fn set_own_pace(&self, own: u64, pace: &Pace) {
        self.own_pace.store(own, Ordering::Relaxed);
        pace.set(self.effective_pace());
    }

    fn effective_pace(&self) -> u64 {
        let ordered = *self.ordered_pace.lock().unwrap_or_else(PoisonError::into_inner);
        ordered.unwrap_or_else(|| self.own_pace.load(Ordering::Relaxed))
    }

    /// The run that an operator has asked for since the last call.
    fn new_run(&self, order: ScrubOrder) -> Option<Run> {
        let mut known = self.run_count.lock().unwrap_or_else(PoisonError::into_inner);
        match known.replace(order.run_count) {
            Some(known) => (known < order.run_count).then_some(Run::Now),
            None => order.run_ms.map(Run::UnlessSince),
        }
    }
}

/// A run that is asked for.
#[derive(Debug, Clone, Copy)]
enum Run {
    /// It has been asked of this process.
    Now,
    /// It was asked for at this time, in milliseconds since 1970, perhaps of the process before this one.
    UnlessSince(u64),
}

/// Triggers, steers and watches the scrub. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ScrubControl {
    handle: WorkerHandle,
    orders: Arc<Orders>,
    paused: Arc<AtomicBool>,
    turn: Arc<AsyncMutex<()>>,
    /// Runs that operators asked for: one that sweeps and one that waits, which is then for all who asked meanwhile.
    pub(super) ordered: Arc<Semaphore>,
    progress: Arc<SharedProgress>,
    store: Arc<ChunkStore>,
    tasks: TaskGroup,
}

/// What the scrub is doing.
#[derive(Debug)]
pub(crate) struct Report {
    /// How it runs.
    pub(crate) settings: Settings,
    /// What its pace counts.
    pub(crate) pace_unit: &'static str,
    /// What it did.
    pub(crate) status: WorkerStatus,
    /// The node's time, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl ScrubControl {
    /// Starts the scrub.
    pub(crate) fn start(
        tasks: &TaskGroup,
        inspector: Arc<Inspector>,
        time: Arc<NodeTime>,
        settings: ScrubSettings,
        schedule: Schedule,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let (orders, paused) = (Arc::<Orders>::default(), Arc::<AtomicBool>::default());
        let (turn, progress) = (Arc::<AsyncMutex<()>>::default(), Arc::<SharedProgress>::default());
        let store = Arc::clone(&inspector.store);
        let scrub = Scrub {
            inspector,
            time,
            settings,
            pace: Pace::new("bytes"),
            orders: Arc::clone(&orders),
            paused: Arc::clone(&paused),
            turn: Arc::clone(&turn),
            progress: Arc::clone(&progress),
        };
        let handle = worker::start(tasks, scrub, schedule, entropy);
        let ordered = Arc::new(Semaphore::new(ORDERED_MAX));
        Self { handle, orders, paused, turn, ordered, progress, store, tasks: tasks.clone() }
    }

    /// Reads everything once, from the start, and returns what that came to. While another run is under way it waits
    /// for that one's end.
    ///
    /// # Errors
    /// Why a pass failed.
    pub(crate) async fn run(&self) -> Result<Pass, String> {
        let _turn = self.turn.lock().await;
        self.orders.restart.store(true, Ordering::Relaxed);
        let mut total = Pass::default();
        loop {
            let pass = self.handle.run_now().await?;
            total.examined += pass.examined;
            total.changed += pass.changed;
            total.skipped += pass.skipped;
            total.failed += pass.failed;
            if !pass.more {
                return Ok(total);
            }
        }
    }

    /// Keeps how far the sweep has come: the last thing when the scrub has stopped.
    pub(crate) async fn keep_position(&self) {
        self.progress.keep(&self.store).await;
    }

    /// Goes on with the sweep, or begins one, for one pass.
    #[cfg(test)]
    pub(crate) async fn run_a_pass(&self) -> Result<Pass, String> {
        self.handle.run_now().await
    }

    /// Does as an operator says: whether it runs by itself, how fast, and, when one was asked for that has not begun, a run
    /// now.
    pub(crate) fn obey(&self, order: ScrubOrder) {
        self.paused.store(order.paused, Ordering::Relaxed);
        *self.orders.ordered_pace.lock().unwrap_or_else(PoisonError::into_inner) = order.pace_per_second;
        self.handle.configure(Settings { paused: order.paused, pace_per_second: self.orders.effective_pace() });
        let Some(run) = self.orders.new_run(order) else { return };
        let Ok(place) = Arc::clone(&self.ordered).try_acquire_owned() else { return };
        let scrub = self.clone();
        self.tasks.spawn("scrub on request", async move {
            let stop = scrub.tasks.stop_signal();
            tokio::select! {
                () = stop.cancelled() => {}
                () = scrub.run_as_asked(run) => {}
            }
            drop(place);
        });
    }

    async fn run_as_asked(&self, run: Run) {
        if let Run::UnlessSince(asked_ms) = run {
            let position = self.progress.position(&self.store).await;
            if position.is_ok_and(|position| position.is_some_and(|position| position.started_ms >= asked_ms)) {
                return;
            }
        }
        let outcome = self.run().await;
        tracing::info!(?outcome, "the scrub that was asked for has ended");
    }

    /// What it is doing.
    pub(crate) fn report(&self, now_ms: u64) -> Report {
        let pace_per_second = self.orders.effective_pace();
        Report {
            settings: Settings { pace_per_second, ..self.handle.settings() },
            pace_unit: self.handle.pace_unit(),
            status: self.handle.status(),
            now_ms,
        }
    }
}
