//! Twenty clients in good order that put, get and delete blobs all the time, and compare every byte.
//!
//! They are the client library as it is, with its own repeats: what counts as an error is what it gives back.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::{Buf as _, Bytes};
use mini_tectonic_client::{Client, DownloadOptions, Error, Sink, Source, UploadOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CLIENTS: usize = 20;
/// Sizes in turn; most blobs are small.
const SIZES: [usize; 8] = [4 << 10, 4 << 10, 64 << 10, 4 << 10, (256 << 10) + 1, 16 << 10, (1 << 20) - 1, 3 << 20];
/// Where all contents come from: each blob is another part of it.
const POOL_BYTES: usize = 8 << 20;
/// Between two operations of one client: the machine has to be left room in which an attack can be felt.
const PAUSE: Duration = Duration::from_millis(100);

/// Within which an operation ends, whatever happens to it: the client gives up long before.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// What the clients did in some period.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    puts: Vec<Duration>,
    gets: Vec<Duration>,
    /// What went wrong.
    pub(crate) errors: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    Get,
}

/// One operation that has ended.
#[derive(Debug, Clone, Copy)]
struct Operation {
    kind: Kind,
    began: Instant,
    ended: Instant,
}

/// What the clients have done and are doing.
#[derive(Debug, Default)]
struct Record {
    ended: Vec<Operation>,
    /// Since when each client is at what it is at.
    under_way: [Option<Instant>; CLIENTS],
    errors: Vec<String>,
}

/// Times of one kind of operation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Percentiles {
    /// How many there were.
    pub(crate) count: usize,
    /// Half were faster.
    pub(crate) p50: Duration,
    /// 99 of 100 were.
    pub(crate) p99: Duration,
}

impl Percentiles {
    fn of(times: &[Duration]) -> Self {
        let mut times = times.to_vec();
        times.sort_unstable();
        let at = |of_100: usize| times.get((times.len() * of_100).div_ceil(100).saturating_sub(1)).copied();
        Self { count: times.len(), p50: at(50).unwrap_or_default(), p99: at(99).unwrap_or_default() }
    }
}

impl Done {
    /// Adds what they did later.
    pub(crate) fn add(&mut self, later: Self) {
        self.puts.extend(later.puts);
        self.gets.extend(later.gets);
        self.errors.extend(later.errors);
    }

    /// Gets that took so long each.
    #[cfg(test)]
    pub(crate) fn of_gets(gets: Vec<Duration>) -> Self {
        Self { gets, ..Self::default() }
    }

    /// Times of puts.
    pub(crate) fn puts(&self) -> Percentiles {
        Percentiles::of(&self.puts)
    }

    /// Times of gets.
    pub(crate) fn gets(&self) -> Percentiles {
        Percentiles::of(&self.gets)
    }
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Honest {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// Takes out all that has ended, and gives what is wanted of it.
    fn take(&mut self, wanted: impl Fn(&Operation) -> bool) -> Done {
        let ended = std::mem::take(&mut self.ended);
        let times = |kind| {
            let of_kind = ended.iter().filter(|one| one.kind == kind && wanted(one));
            of_kind.map(|one| one.ended - one.began).collect()
        };
        Done { puts: times(Kind::Put), gets: times(Kind::Get), errors: std::mem::take(&mut self.errors) }
    }

    /// Whether something is under way that began before.
    fn is_at_what_began_before(&self, instant: Instant) -> bool {
        self.under_way.iter().flatten().any(|began| *began < instant)
    }
}

impl Honest {
    /// Starts them.
    pub(crate) fn start(new_client: impl Fn() -> Result<Client>) -> Result<Self> {
        let (record, stop) = (Arc::<Mutex<Record>>::default(), Arc::<AtomicBool>::default());
        let pool = crate::attack::pattern(POOL_BYTES);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let one = One {
                number,
                client: new_client()?,
                pool: pool.clone(),
                record: Arc::clone(&record),
                stop: Arc::clone(&stop),
            };
            clients.spawn(one.run());
        }
        Ok(Self { record, stop, clients })
    }

    /// Every operation that began between then and now, once they have ended.
    pub(crate) async fn begun_since(&self, then: Instant) -> Result<Done> {
        self.of_until_now(|one| one.began >= then).await
    }

    /// Every operation that was under way at some time between then and now, once they have ended: what held them up is
    /// told by those that began before it and ended after.
    pub(crate) async fn under_way_since(&self, then: Instant) -> Result<Done> {
        self.of_until_now(|one| one.ended >= then).await
    }

    async fn of_until_now(&self, wanted: impl Fn(&Operation) -> bool) -> Result<Done> {
        let now = Instant::now();
        while lock(&self.record).is_at_what_began_before(now) {
            ensure!(now.elapsed() < ENDS_WITHIN, "an honest client's operation does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(lock(&self.record).take(|one| one.began < now && wanted(one)))
    }

    /// Has them finish what they are at.
    pub(crate) async fn stop(mut self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        Ok(lock(&self.record).take(|_| true))
    }
}

struct One {
    number: usize,
    client: Client,
    pool: Bytes,
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
}

impl One {
    async fn run(self) {
        for turn in self.number.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let size = SIZES.get(turn % SIZES.len()).copied().unwrap_or_default();
            let at = (turn * 7_919) % (POOL_BYTES - size);
            if let Err(error) = self.round(self.pool.slice(at..at + size)).await {
                lock(&self.record).errors.push(error);
            }
        }
    }

    /// Runs an operation and notes how long it takes if it succeeds.
    async fn timed<T>(&self, kind: Kind, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let began = Instant::now();
        self.is_at(Some(began));
        let outcome = operation.await;
        if outcome.is_ok() {
            lock(&self.record).ended.push(Operation { kind, began, ended: Instant::now() });
        }
        self.is_at(None);
        outcome
    }

    fn is_at(&self, something: Option<Instant>) {
        if let Some(at) = lock(&self.record).under_way.get_mut(self.number) {
            *at = something;
        }
    }

    /// One blob: put, got, deleted.
    async fn round(&self, bytes: Bytes) -> Result<(), String> {
        let told = |what: &'static str| move |error: Error| format!("{what}: {error:#?}");
        let source = Source::Reader(Box::new(bytes.clone().reader()));
        let put = Box::pin(self.client.upload(source, UploadOptions::default()));
        let blob = self.timed(Kind::Put, put).await.map_err(told("put"))?;
        tokio::time::sleep(PAUSE).await;
        let equal = Arc::new(AtomicUsize::new(0));
        let comparison = Comparison { expected: bytes.clone(), equal: Arc::clone(&equal) };
        let sink = Sink::Writer(Box::new(comparison));
        let get = Box::pin(self.client.download(blob.blob_id, DownloadOptions::default(), sink));
        self.timed(Kind::Get, get).await.map_err(told("get"))?;
        if equal.load(Ordering::Relaxed) != bytes.len() {
            return Err(format!("of {} bytes only {equal:?} came", bytes.len()));
        }
        self.client.delete_blob(blob.blob_id).await.map_err(told("delete"))?;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// Takes the bytes of a download and compares them.
struct Comparison {
    expected: Bytes,
    equal: Arc<AtomicUsize>,
}

impl Write for Comparison {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.expected.starts_with(bytes) {
            return Err(io::Error::other("a byte is wrong"));
        }
        self.expected.advance(bytes.len());
        self.equal.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_in_the_same_order_are_equal() {
        let equal = Arc::new(AtomicUsize::new(0));
        let mut comparison = Comparison { expected: Bytes::from_static(b"abc"), equal: Arc::clone(&equal) };
        comparison.write_all(b"ab").unwrap();
        assert!(comparison.write_all(b"d").is_err());
        comparison.write_all(b"c").unwrap();
        assert!(comparison.write_all(b"e").is_err());
        assert_eq!(equal.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_up_counts_for_the_period_that_held_it_up_and_for_none_that_it_did_not_begin_in() {
        let step = Duration::from_secs(1);
        let (before, began) = (Instant::now(), Instant::now() + 2 * step);
        let across = Operation { kind: Kind::Get, began: before + step, ended: began + step };
        let earlier = Operation { kind: Kind::Get, began: before, ended: before + step };
        let mut record = Record { ended: vec![earlier, across], ..Record::default() };
        record.under_way[7] = Some(began + step);
        assert!(!record.is_at_what_began_before(began + step) && record.is_at_what_began_before(began + 2 * step));
        let honest = Honest { record: Arc::new(Mutex::new(record)), stop: Arc::default(), clients: JoinSet::new() };
        tokio::time::advance(3 * step).await;
        lock(&honest.record).under_way[7] = None;
        let held_up = honest.under_way_since(began).await.unwrap();
        assert_eq!((held_up.gets().count, held_up.gets().p99), (1, 2 * step));
        lock(&honest.record).ended.push(across);
        assert_eq!(honest.begun_since(began).await.unwrap().gets().count, 0);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let Percentiles { count, p50, p99 } = Percentiles::of(&times);
        assert_eq!((count, p50.as_millis(), p99.as_millis()), (100, 50, 99));
        assert_eq!(Percentiles::of(&[]).p99, Duration::ZERO);
    }
}
