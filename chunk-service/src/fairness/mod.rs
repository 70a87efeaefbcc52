//! Who gets the disk next: every job on the disk asks for a turn, and holds it while it runs.
//!
//! [`rota`] decides, by class and tenant, with time that comes in from outside; this module keeps those who wait, wakes
//! whoever's turn it is, measures what each job takes, and counts. It never holds its lock across a wake-up.
//!
//! A turn ends when its [`Turn`] is dropped, on whatever thread. A request that is no longer waited for gives its place
//! back. A job waits for nothing but turns, and whoever holds one needs no other, so turns cannot deadlock: a job that
//! [breathes](Turn::breathe) gives its turn up before it asks for the next. [`Scheduler::close`] wakes all who wait.
//!
//! With the rules that are not fair, turns come in the order of their requests.

mod rota;
mod waits;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::traffic::{ClassLoad, TrafficClass};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub(crate) use self::rota::{Account, Rules};
use self::rota::{Granted, Id, Rota};
use self::waits::Waits;

/// How long a job goes on before it looks whether others wait.
const BREATHES_AFTER: Duration = Duration::from_millis(5);
/// Jobs that have given up their turn in the middle and wait for the next: each of them keeps a thread.
const BREATHING_MAX: usize = 16;

/// The scheduler is closed: there are no turns any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// Counts of one class since the start, and its waits of late.
#[derive(Debug, Clone, Default)]
struct Figures {
    jobs: u64,
    moved_bytes: u64,
    disk_time: Duration,
    waits: Waits,
}

#[derive(Debug)]
struct State {
    rota: Rota,
    waiters: HashMap<Id, oneshot::Sender<Turn>>,
    figures: [Figures; 3],
    breathing: usize,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    state: Mutex<State>,
    idle: Notify,
}

/// Turns whose holders are to be woken, once the lock is free.
type Woken = Vec<(oneshot::Sender<Turn>, Turn)>;

/// See the module. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Scheduler(Arc<Shared>);

/// Permission to use the disk, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    shared: Arc<Shared>,
    id: Id,
    account: Account,
    moved_bytes: u64,
    began: Option<Instant>,
}

/// A request; dropped, it is taken back.
#[derive(Debug)]
struct Waiting {
    shared: Arc<Shared>,
    id: Id,
    account: Account,
    turn: oneshot::Receiver<Turn>,
}

impl Scheduler {
    pub(crate) fn new(rules: Rules) -> Self {
        let state = State {
            rota: Rota::new(rules),
            waiters: HashMap::new(),
            figures: <[Figures; 3]>::default(),
            breathing: 0,
            closed: false,
        };
        Self(Arc::new(Shared { started: Instant::now(), state: Mutex::new(state), idle: Notify::new() }))
    }

    /// Waits for a turn. An urgent one comes before all others: for what others of any class may be waiting for.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn turn(&self, account: &Account, urgent: bool) -> Result<Turn, Closed> {
        let mut waiting = self.0.request(account, urgent)?;
        (&mut waiting.turn).await.map_err(|_closed| Closed)
    }

    /// Ends all waiting, now and later. Jobs that run are left to end.
    pub(crate) fn close(&self) {
        let waiters = {
            let mut state = self.0.lock();
            state.closed = true;
            state.rota.clear();
            std::mem::take(&mut state.waiters)
        };
        drop(waiters);
    }

    /// Waits until no job runs, at most this long. Returns whether none does.
    pub(crate) async fn quiet_within(&self, deadline: Duration) -> bool {
        let quiet = async {
            loop {
                let idle = self.0.idle.notified();
                if self.0.lock().rota.running() == 0 {
                    return;
                }
                idle.await;
            }
        };
        tokio::time::timeout(deadline, quiet).await.is_ok()
    }

    /// What was done for each class, the most urgent first.
    pub(crate) fn loads(&self) -> [ClassLoad; 3] {
        let mut state = self.0.lock();
        let now = self.0.now();
        TrafficClass::ALL.map(|class| {
            let waiting = state.rota.waiting_of(class) as u64;
            let figures = of_class(&mut state.figures, class);
            let recent = figures.waits.summary(now);
            ClassLoad {
                class,
                jobs: figures.jobs,
                moved_bytes: figures.moved_bytes,
                disk_time_us: u64::try_from(figures.disk_time.as_micros()).unwrap_or(u64::MAX),
                waiting,
                recent_jobs: recent.count,
                queue_p50_us: recent.p50_us,
                queue_p99_us: recent.p99_us,
                queue_max_us: recent.max_us,
            }
        })
    }
}

fn of_class(figures: &mut [Figures; 3], class: TrafficClass) -> &mut Figures {
    let [gold, silver, bronze] = figures;
    match class {
        TrafficClass::Gold => gold,
        TrafficClass::Silver => silver,
        TrafficClass::Bronze => bronze,
    }
}

impl Shared {
    // Nothing under the lock can panic between two changes, so a poisoned one is used on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn request(self: &Arc<Self>, account: &Account, urgent: bool) -> Result<Waiting, Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        let waiting = self.enter(&mut state, account, urgent);
        let woken = self.dispatch(&mut state);
        drop(state);
        wake(woken);
        Ok(waiting)
    }

    fn enter(self: &Arc<Self>, state: &mut State, account: &Account, urgent: bool) -> Waiting {
        let id = state.rota.request(self.now(), account, urgent);
        let (sender, turn) = oneshot::channel();
        state.waiters.insert(id, sender);
        Waiting { shared: Arc::clone(self), id, account: account.clone(), turn }
    }

    /// Hands out all turns that can be had now.
    fn dispatch(self: &Arc<Self>, state: &mut State) -> Woken {
        let now = self.now();
        let mut woken = Woken::new();
        while let Some(Granted { id, account, waited }) = state.rota.next(now) {
            of_class(&mut state.figures, account.class).waits.note(now, waited);
            match state.waiters.remove(&id) {
                Some(waiter) => woken.push((waiter, Turn::new(self, id, account))),
                None => state.rota.end(now, id, Duration::ZERO),
            }
        }
        woken
    }

    /// Ends a turn that was used for so long, and hands out what is free now.
    fn end(self: &Arc<Self>, state: &mut State, turn: &mut Turn) -> Woken {
        let took = turn.began.take().map(|began| began.elapsed());
        state.rota.end(self.now(), turn.id, took.unwrap_or_default());
        if let Some(took) = took {
            let figures = of_class(&mut state.figures, turn.account.class);
            figures.jobs += 1;
            figures.moved_bytes += std::mem::take(&mut turn.moved_bytes);
            figures.disk_time += took;
        }
        let woken = self.dispatch(state);
        if state.rota.running() == 0 {
            self.idle.notify_waiters();
        }
        woken
    }
}

/// Without the lock: a turn whose holder has gone away is dropped here, and takes it.
fn wake(woken: Woken) {
    for (waiter, turn) in woken {
        drop(waiter.send(turn));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let woken = {
            let mut state = self.shared.lock();
            if state.waiters.remove(&self.id).is_none() {
                return;
            }
            state.rota.cancel(self.id, &self.account);
            // A gold request that goes away may have held others up.
            self.shared.dispatch(&mut state)
        };
        wake(woken);
    }
}

impl Turn {
    fn new(shared: &Arc<Shared>, id: Id, account: Account) -> Self {
        Self { shared: Arc::clone(shared), id, account, moved_bytes: 0, began: None }
    }

    /// From now on the disk is used.
    pub(crate) fn begin(&mut self, moved_bytes: u64) {
        self.moved_bytes = moved_bytes;
        self.began = Some(Instant::now());
    }

    /// Notes that the job has moved so many bytes more.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
    }

    /// For long jobs, between two steps: lets others have their turn, if the job has gone on for a while and somebody waits.
    /// Blocks the thread until it may go on.
    ///
    /// # Errors
    /// [`Closed`]: the job must end.
    pub(crate) fn breathe(&mut self) -> Result<(), Closed> {
        if self.began.is_none_or(|began| began.elapsed() < BREATHES_AFTER) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let (mut waiting, woken) = {
            let mut state = shared.lock();
            if state.closed {
                return Err(Closed);
            }
            if state.rota.waiting() == 0 || state.breathing >= BREATHING_MAX {
                return Ok(());
            }
            state.breathing += 1;
            let waiting = shared.enter(&mut state, &self.account, false);
            (waiting, shared.end(&mut state, self))
        };
        wake(woken);
        let next = waiting.turn_blocking();
        shared.lock().breathing -= 1;
        *self = next?;
        self.begin(0);
        Ok(())
    }
}

impl Waiting {
    fn turn_blocking(&mut self) -> Result<Turn, Closed> {
        let (_closed, never) = oneshot::channel();
        std::mem::replace(&mut self.turn, never).blocking_recv().map_err(|_closed| Closed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let woken = {
            let mut state = shared.lock();
            shared.end(&mut state, self)
        };
        wake(woken);
    }
}

#[cfg(test)]
mod tests;
