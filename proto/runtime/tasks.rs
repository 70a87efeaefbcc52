//! Every task of a service belongs to a group: it has a name, a panic in it is seen, and shutdown waits for it.
//!
//! A panic in a plain task is logged and counted, and the service lives. A panic in a critical one (a writer thread, a
//! worker) calls for the process to stop: what it guards can no longer be trusted.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with one stop signal. Clones are handles to the same group.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    stop: CancellationToken,
    broken: CancellationToken,
    panics: Arc<AtomicU64>,
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fires when the group shall stop; tasks watch it.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Fires when a critical task has panicked: the process must stop.
    pub fn broken_signal(&self) -> CancellationToken {
        self.broken.clone()
    }

    /// Panics seen so far.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Runs a task to its end, also when the caller goes away. The handle may be dropped.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.watch(name, task, None)
    }

    /// As [`TaskGroup::spawn`]; a panic in the task fires [`TaskGroup::broken_signal`].
    pub fn spawn_critical<F>(&self, name: &'static str, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.watch(name, task, Some(self.broken.clone()))
    }

    fn watch<F>(
        &self,
        name: &'static str,
        task: F,
        on_panic: Option<CancellationToken>,
    ) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let inner = tokio_spawn(task);
        let panics = Arc::clone(&self.panics);
        self.tracker.spawn(async move {
            match inner.await {
                Ok(output) => Some(output),
                Err(error) => {
                    report(name, error, &panics, on_panic.as_ref());
                    None
                }
            }
        })
    }

    /// Asks every task to stop and waits for them, at most this long. Returns whether all ended in time.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Detached from every group, for [`TaskGroup::watch`] alone.
fn tokio_spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks; its caller watches them")]
    tokio::spawn(task)
}

fn report(name: &'static str, error: JoinError, panics: &AtomicU64, on_panic: Option<&CancellationToken>) {
    let Ok(payload) = error.try_into_panic() else { return };
    panics.fetch_add(1, Ordering::Relaxed);
    tracing::error!(task = name, panic = panic_text(payload.as_ref()), "a task panicked");
    if let Some(broken) = on_panic {
        broken.cancel();
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_counted_and_only_a_critical_one_breaks_the_group() {
        let group = TaskGroup::new();
        let plain = group.spawn("plain", async { panic!("as planned") });
        assert!(matches!(plain.await, Ok(None::<()>)));
        assert_eq!((group.panics(), group.broken_signal().is_cancelled()), (1, false));
        let critical = group.spawn_critical("critical", async { panic!("as planned") });
        assert!(matches!(critical.await, Ok(None::<()>)));
        assert!(group.broken_signal().is_cancelled());
    }

    #[tokio::test]
    async fn shutdown_waits_for_tasks_and_says_when_one_did_not_end() {
        let group = TaskGroup::new();
        let stop = group.stop_signal();
        group.spawn("obedient", async move { stop.cancelled().await });
        assert!(group.shutdown(Duration::from_secs(10)).await);

        let group = TaskGroup::new();
        group.spawn("deaf", std::future::pending::<()>());
        assert!(!group.shutdown(Duration::from_millis(1)).await);
    }
}
