//! On which threads a connection is served.
//!
//! Receiving, checking and sending bronze's bytes takes as much of the processor as writing them does. On the threads that
//! serve everybody it came before gold's calls as often as not: the system gives a thread its turn by what the thread has
//! used, and one that worked for both has used bronze's. So the connections of bronze are served by threads of their own,
//! of a lower priority, in another runtime of the same process. What a connection carries is known only when one of its
//! calls has shown what it may do, hence its tasks move: whichever is to be polled goes to where it belongs first. Sockets
//! and timers keep their driver, which only wakes them.
//!
//! A connection that carries both is served in front.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use tokio::runtime::Handle;

use crate::traffic::TrafficClass;

/// How long after a call of a better class bronze's do not send a connection to the background.
const KEPT_IN_FRONT: Duration = Duration::from_secs(1);

/// Where one connection is served. Clones are the same lane.
#[derive(Clone)]
pub struct Lane(Arc<Inner>);

struct Inner {
    front: Handle,
    background: Handle,
    is_behind: AtomicBool,
    opened: Instant,
    /// In milliseconds since it was opened.
    front_until_ms: AtomicU64,
}

impl Lane {
    /// A lane in front, of the runtime that this is called in, which may go to the background.
    pub(super) fn new(background: Handle) -> Self {
        let (front, opened) = (Handle::current(), Instant::now());
        let (is_behind, front_until_ms) = (AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(Inner { front, background, is_behind, opened, front_until_ms }))
    }

    /// Notes that the connection carries a call of this class.
    pub fn carry(&self, class: TrafficClass) {
        let now = self.0.opened.elapsed();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match class {
            TrafficClass::Gold | TrafficClass::Silver => {
                self.0.front_until_ms.store(ms(now + KEPT_IN_FRONT), Ordering::Relaxed);
                self.0.is_behind.store(false, Ordering::Relaxed);
            }
            TrafficClass::Bronze => {
                if ms(now) >= self.0.front_until_ms.load(Ordering::Relaxed) {
                    self.0.is_behind.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.0.is_behind.load(Ordering::Relaxed)
    }

    /// Starts a task of the connection.
    fn start(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let is_behind = self.is_behind();
        let runtime = if is_behind { &self.0.background } else { &self.0.front };
        // Its end is watched by whoever started the connection.
        drop(runtime.spawn(Moving { future: Some(future), lane: self.clone(), is_behind }));
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("is_behind", &self.is_behind()).finish_non_exhaustive()
    }
}

/// A task that moves with its connection.
struct Moving {
    /// `None` once it has moved.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    lane: Lane,
    is_behind: bool,
}

impl Future for Moving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_behind == self.lane.is_behind() {
            return self.future.as_mut().map_or(Poll::Ready(()), |future| future.as_mut().poll(cx));
        }
        if let Some(future) = self.future.take() {
            self.lane.start(future);
        }
        Poll::Ready(())
    }
}

/// Starts the tasks of a connection: in its lane, or where it is called if there are no two.
#[derive(Debug, Clone)]
pub(super) struct Tasks(pub(super) Option<Lane>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        match &self.0 {
            Some(lane) => lane.start(Box::pin(future)),
            None => drop(Handle::current().spawn(future)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    fn background() -> tokio::runtime::Runtime {
        let builder = &mut tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("behind").enable_all().build().unwrap()
    }

    fn is_behind() -> bool {
        std::thread::current().name() == Some("behind")
    }

    /// A task that says where it is whenever it is asked.
    fn telling(lane: &Lane) -> (Sender<()>, Receiver<bool>) {
        let ((ask, mut asked), (tell, told)) = (channel(1), channel(1));
        Tasks(Some(lane.clone())).execute(async move {
            while let Some(()) = asked.recv().await {
                tell.send(is_behind()).await.unwrap();
            }
        });
        (ask, told)
    }

    #[tokio::test]
    async fn a_task_moves_to_where_its_connection_belongs_and_back() {
        let runtime = background();
        let lane = Lane::new(runtime.handle().clone());
        let (ask, mut told) = telling(&lane);
        let mut where_it_is = async || {
            ask.send(()).await.unwrap();
            told.recv().await.unwrap()
        };
        assert!(!where_it_is().await, "in front, while nothing is known of it");
        lane.carry(TrafficClass::Bronze);
        assert!(where_it_is().await);
        for better in [TrafficClass::Silver, TrafficClass::Gold] {
            lane.carry(better);
            assert!(!where_it_is().await, "{better:?}");
        }
        lane.carry(TrafficClass::Bronze);
        assert!(!where_it_is().await, "gold's call was a moment ago");
        lane.0.front_until_ms.store(0, Ordering::Relaxed);
        lane.carry(TrafficClass::Bronze);
        assert!(where_it_is().await);
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn a_task_of_a_runtime_that_ends_ends_with_it() {
        let runtime = background();
        let lane = Lane::new(runtime.handle().clone());
        lane.carry(TrafficClass::Bronze);
        let (_ask, mut told) = telling(&lane);
        runtime.shutdown_background();
        assert_eq!(told.recv().await, None);
        let (_ask, mut told) = telling(&lane);
        assert_eq!(told.recv().await, None, "no task begins any more");
    }
}
