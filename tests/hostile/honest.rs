//! Twenty clients in good order that put, get and delete blobs all the time, and compare every byte.
//!
//! They are the client library as it is, with its own repeats: what counts as an error is what it gives back.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
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

/// What the clients did since somebody last asked.
#[derive(Debug, Default)]
pub(crate) struct Done {
    puts: Vec<Duration>,
    gets: Vec<Duration>,
    /// What went wrong.
    pub(crate) errors: Vec<String>,
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
    done: Arc<Mutex<Done>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

fn lock(done: &Mutex<Done>) -> MutexGuard<'_, Done> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Honest {
    /// Starts them.
    pub(crate) fn start(new_client: impl Fn() -> Result<Client>) -> Result<Self> {
        let (done, stop) = (Arc::<Mutex<Done>>::default(), Arc::<AtomicBool>::default());
        let pool = crate::attack::pattern(POOL_BYTES);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let one =
                One { client: new_client()?, pool: pool.clone(), done: Arc::clone(&done), stop: Arc::clone(&stop) };
            clients.spawn(one.run(number));
        }
        Ok(Self { done, stop, clients })
    }

    /// What they did since the last time.
    pub(crate) fn take(&self) -> Done {
        std::mem::take(&mut lock(&self.done))
    }

    /// Drops the times of what they did since the last time, but no error.
    pub(crate) fn forget_times(&self) {
        let mut done = lock(&self.done);
        done.puts.clear();
        done.gets.clear();
    }

    /// Has them finish what they are at.
    pub(crate) async fn stop(mut self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        Ok(self.take())
    }
}

struct One {
    client: Client,
    pool: Bytes,
    done: Arc<Mutex<Done>>,
    stop: Arc<AtomicBool>,
}

impl One {
    async fn run(self, number: usize) {
        for turn in number.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let size = SIZES.get(turn % SIZES.len()).copied().unwrap_or_default();
            let at = (turn * 7_919) % (POOL_BYTES - size);
            if let Err(error) = self.round(self.pool.slice(at..at + size)).await {
                lock(&self.done).errors.push(error);
            }
        }
    }

    /// One blob: put, got, deleted.
    async fn round(&self, bytes: Bytes) -> Result<(), String> {
        let told = |what: &'static str| move |error: Error| format!("{what}: {error:#?}");
        let began = Instant::now();
        let source = Source::Reader(Box::new(bytes.clone().reader()));
        let blob = self.client.upload(source, UploadOptions::default()).await.map_err(told("put"))?;
        lock(&self.done).puts.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        let equal = Arc::new(AtomicUsize::new(0));
        let comparison = Comparison { expected: bytes.clone(), equal: Arc::clone(&equal) };
        let sink = Sink::Writer(Box::new(comparison));
        self.client.download(blob.blob_id, DownloadOptions::default(), sink).await.map_err(told("get"))?;
        lock(&self.done).gets.push(began.elapsed());
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

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let Percentiles { count, p50, p99 } = Percentiles::of(&times);
        assert_eq!((count, p50.as_millis(), p99.as_millis()), (100, 50, 99));
        assert_eq!(Percentiles::of(&[]).p99, Duration::ZERO);
    }
}
