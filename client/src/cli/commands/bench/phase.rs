//! One phase: workers that each do one operation after another, until the count or the time is used up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use mini_tectonic_client::Error;
use proto::runtime::TaskGroup;

/// What is measured: called with the worker's number and the operation's.
pub(super) type Operation = Arc<dyn Fn(usize, u64) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// When a phase ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most operations.
    pub(super) count: u64,
    /// Longest time; operations that have begun come to their end.
    pub(super) duration: Option<Duration>,
    /// Operations at once.
    pub(super) concurrency: usize,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// How long operations took that succeeded, in microseconds.
    pub(super) latencies_us: Histogram<u64>,
    /// Operations that failed.
    pub(super) errors: u64,
    /// How the first of them failed; absent also after a panic.
    pub(super) first_error: Option<Error>,
    /// From the first beginning to the last end.
    pub(super) elapsed: Duration,
}

/// Three significant digits: 1.23 ms is told from 1.24 ms.
const PRECISION: u8 = 3;

impl Measured {
    fn nothing() -> Self {
        let latencies_us = Histogram::new(PRECISION).expect("the precision is one that the histogram knows");
        Self { latencies_us, errors: 0, first_error: None, elapsed: Duration::ZERO }
    }

    fn add(&mut self, other: Self) {
        self.latencies_us.add(other.latencies_us).expect("a histogram that may grow takes any value");
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// Hands out the numbers of the operations.
#[derive(Debug)]
struct Tickets {
    next: AtomicU64,
    count: u64,
    deadline: Option<Instant>,
}

impl Tickets {
    fn next(&self) -> Option<u64> {
        let in_time = self.deadline.is_none_or(|deadline| Instant::now() < deadline);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (in_time && number < self.count).then_some(number)
    }
}

/// Runs a phase.
pub(super) async fn run(limits: Limits, operation: Operation) -> Measured {
    let began = Instant::now();
    let deadline = limits.duration.and_then(|duration| began.checked_add(duration));
    let tickets = Arc::new(Tickets { next: AtomicU64::new(0), count: limits.count, deadline });
    let group = TaskGroup::new();
    let start = |worker| group.spawn("bench", work(worker, Arc::clone(&tickets), Arc::clone(&operation)));
    let workers: Vec<_> = (0..limits.concurrency).map(start).collect();
    let mut all = Measured::nothing();
    for worker in workers {
        match worker.await {
            Ok(Some(measured)) => all.add(measured),
            Ok(None) | Err(_) => all.errors += 1,
        }
    }
    all.elapsed = began.elapsed();
    all
}

async fn work(worker: usize, tickets: Arc<Tickets>, operation: Operation) -> Measured {
    let mut measured = Measured::nothing();
    while let Some(number) = tickets.next() {
        let began = Instant::now();
        match operation(worker, number).await {
            Ok(()) => {
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                measured.latencies_us.record(micros).expect("a histogram that may grow takes any value");
            }
            Err(error) => {
                measured.errors += 1;
                measured.first_error.get_or_insert(error);
            }
        }
    }
    measured
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Latencies were once recorded by a call that never lets a histogram grow, so every percentile read 0.00 ms.
    #[tokio::test]
    async fn an_operation_s_time_is_recorded_as_long_as_it_was() {
        const AT_LEAST: Duration = Duration::from_millis(5);
        let operation: Operation = Arc::new(|_worker, _number| {
            Box::pin(async {
                tokio::time::sleep(AT_LEAST).await;
                Ok(())
            })
        });
        let limits = Limits { concurrency: 1, count: 3, duration: None };
        let measured = run(limits, operation).await;
        assert_eq!(measured.latencies_us.len(), 3);
        assert!(u128::from(measured.latencies_us.min()) >= AT_LEAST.as_micros() * 999 / 1000);
    }

    #[tokio::test]
    async fn every_number_is_done_once_and_failures_are_counted_apart() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let operation: Operation = Arc::new(move |_worker, number| {
            noted.lock().unwrap().push(number);
            let invalid = Error::Invalid { what: "number", problem: number.to_string() };
            let outcome = if number % 10 == 0 { Err(invalid) } else { Ok(()) };
            Box::pin(std::future::ready(outcome))
        });
        let measured = run(Limits { count: 100, duration: None, concurrency: 7 }, operation).await;
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!((measured.latencies_us.len(), measured.errors), (90, 10));
        assert!(measured.first_error.is_some());
    }

    #[tokio::test]
    async fn a_phase_ends_when_its_time_is_used_up() {
        let operation: Operation = Arc::new(|_worker, _number| {
            Box::pin(async {
                tokio::task::yield_now().await;
                Ok(())
            })
        });
        let limits = Limits { count: u64::MAX, duration: Some(Duration::from_millis(1)), concurrency: 2 };
        assert_eq!(run(limits, operation).await.errors, 0);
    }
}
