//! One phase: workers that each do one operation after another, until nothing is left or the time is used up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use mini_tectonic_client::Error;
use proto::runtime::TaskGroup;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Put,
    Get,
    Stat,
    Delete,
    List,
    Ping,
}

impl Kind {
    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Stat => "stat",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Ping => "ping",
        }
    }
}

/// An operation that succeeded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) kind: Kind,
    /// Bytes of objects that were moved.
    pub(super) bytes: u64,
    /// Entries of a page; else 0.
    pub(super) entries: u64,
    /// How long it took, without what the benchmark did to prepare it.
    pub(super) took: Duration,
}

/// What is measured: called with the worker's number and the operation's. `None`: nothing is left for this worker.
pub(super) type Operation = Arc<dyn Fn(usize, u64) -> BoxFuture<'static, Result<Option<Done>, Error>> + Send + Sync>;

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

/// Operations of one kind.
#[derive(Debug)]
pub(super) struct Tally {
    /// How long they took, in microseconds.
    pub(super) latencies_us: Histogram<u64>,
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// Three significant digits: 1.23 ms is told from 1.24 ms.
const PRECISION: u8 = 3;

impl Default for Tally {
    fn default() -> Self {
        let latencies_us = Histogram::new(PRECISION).expect("the precision is one that the histogram knows");
        Self { latencies_us, bytes: 0, entries: 0 }
    }
}

impl Tally {
    fn count(&mut self, done: &Done) {
        let micros = u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX);
        self.latencies_us.record(micros).expect("a histogram that may grow takes any value");
        self.bytes += done.bytes;
        self.entries += done.entries;
    }

    /// Adds others to these.
    pub(super) fn add(&mut self, other: &Self) {
        self.latencies_us.add(&other.latencies_us).expect("a histogram that may grow takes any value");
        self.bytes += other.bytes;
        self.entries += other.entries;
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Operations that succeeded.
    pub(super) kinds: BTreeMap<Kind, Tally>,
    /// Operations that failed.
    pub(super) errors: u64,
    /// How the first of them failed; absent also after a panic.
    pub(super) first_error: Option<Error>,
    /// From the first beginning to the last end.
    pub(super) elapsed: Duration,
}

impl Measured {
    fn add(&mut self, other: Self) {
        for (kind, tally) in &other.kinds {
            self.kinds.entry(*kind).or_default().add(tally);
        }
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// All kinds together.
    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.kinds.values().for_each(|tally| total.add(tally));
        total
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
    let mut all = Measured::default();
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
    let mut measured = Measured::default();
    while let Some(number) = tickets.next() {
        match operation(worker, number).await {
            Ok(Some(done)) => measured.kinds.entry(done.kind).or_default().count(&done),
            Ok(None) => break,
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

    fn done(kind: Kind, took: Duration) -> Done {
        Done { kind, bytes: 10, entries: 0, took }
    }

    #[tokio::test]
    async fn percentiles_are_those_of_the_times_that_operations_took() {
        let operation: Operation = Arc::new(|_worker, number| {
            let took = Duration::from_micros(1000 * (number + 1));
            Box::pin(std::future::ready(Ok(Some(done(Kind::Get, took)))))
        });
        let measured = run(Limits { concurrency: 3, count: 1000, duration: None }, operation).await;
        let latencies = &measured.kinds[&Kind::Get].latencies_us;
        for (quantile, expected) in
            [(0.5, 500_000), (0.9, 900_000), (0.99, 990_000), (0.999, 999_000), (1.0, 1_000_000)]
        {
            let found = latencies.value_at_quantile(quantile);
            assert!(found.abs_diff(expected) <= expected / 1000, "{found} at {quantile}");
        }
        assert_eq!(measured.total().bytes, 10_000);
    }

    #[tokio::test]
    async fn every_number_is_done_once_and_failures_are_counted_apart() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let operation: Operation = Arc::new(move |_worker, number| {
            noted.lock().unwrap().push(number);
            let invalid = Error::Invalid { what: "number", problem: number.to_string() };
            let kind = if number % 2 == 0 { Kind::Put } else { Kind::Get };
            let outcome = if number % 10 == 0 { Err(invalid) } else { Ok(Some(done(kind, Duration::ZERO))) };
            Box::pin(std::future::ready(outcome))
        });
        let measured = run(Limits { count: 100, duration: None, concurrency: 7 }, operation).await;
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        let count = |kind| measured.kinds[&kind].latencies_us.len();
        assert_eq!((count(Kind::Put), count(Kind::Get), measured.errors), (40, 50, 10));
        assert_eq!(measured.total().latencies_us.len(), 90);
        assert!(measured.first_error.is_some());
    }

    #[tokio::test]
    async fn a_worker_for_which_nothing_is_left_ends() {
        let operation: Operation = Arc::new(|_worker, number| {
            Box::pin(std::future::ready(Ok((number < 5).then(|| done(Kind::Delete, Duration::ZERO)))))
        });
        let measured = run(Limits { count: u64::MAX, duration: None, concurrency: 3 }, operation).await;
        assert_eq!((measured.total().latencies_us.len(), measured.errors), (5, 0));
    }

    #[tokio::test]
    async fn a_phase_ends_when_its_time_is_used_up() {
        let operation: Operation = Arc::new(|_worker, _number| {
            Box::pin(async {
                tokio::task::yield_now().await;
                Ok(Some(done(Kind::Ping, Duration::ZERO)))
            })
        });
        let limits = Limits { count: u64::MAX, duration: Some(Duration::from_millis(1)), concurrency: 2 };
        assert_eq!(run(limits, operation).await.errors, 0);
    }
}
