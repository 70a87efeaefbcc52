//! Durable commits per second of the sled engine, and how long a read takes beside them.
//!
//! `cargo run --release -p metadata-service --example engine_commits -- FOLDER`, where FOLDER lies on the disk to be
//! measured; a folder of its own is made in it and removed at the end. Each commit writes one row of 200 bytes and returns
//! after the sync; each client waits for its commit before it begins the next. Keys are once in the order of their
//! making, as most of the schema's are, and once random. One reader beside the clients reads a row every millisecond.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use metadata_service::store::engine::{Batch, Decision, Engine as _, EngineError, View};
use metadata_service::store::sled::{SledEngine, SledOptions};
use proto::entropy::{Entropy as _, OsEntropy};
use tokio::task::JoinSet;

const CLIENTS: [usize; 4] = [1, 16, 64, 256];
const PERIOD: Duration = Duration::from_secs(5);

/// Which key comes next.
#[derive(Debug)]
enum Keys {
    InOrder(AtomicU64),
    Random,
}

impl Keys {
    fn next(&self) -> Vec<u8> {
        match self {
            Self::InOrder(last) => last.fetch_add(1, Ordering::SeqCst).to_be_bytes().to_vec(),
            Self::Random => {
                let mut key = vec![0; 16];
                OsEntropy.fill(&mut key);
                key
            }
        }
    }
}

/// What one period showed.
#[derive(Debug)]
struct Figures {
    commits: usize,
    reads: Vec<Duration>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("which folder? it must lie on the disk to measure")?);
    let own = folder.join(format!("engine_commits.{}", std::process::id()));
    for (name, keys) in [("in order", Keys::InOrder(AtomicU64::new(0))), ("random", Keys::Random)] {
        measure(&own, name, Arc::new(keys)).await?;
        std::fs::remove_dir_all(&own)?;
    }
    Ok(())
}

async fn measure(folder: &Path, name: &str, keys: Arc<Keys>) -> Result<()> {
    let engine = Arc::new(SledEngine::open(folder, &SledOptions::default())?);
    let mut out = std::io::stdout();
    writeln!(out, "keys {name}\n{:>7} {:>10} {:>12} {:>12}", "clients", "commits/s", "read p50 us", "read p99 us")?;
    for clients in CLIENTS {
        let mut figures = run(&engine, &keys, clients).await?;
        figures.reads.sort_unstable();
        let commits = figures.commits as f64 / PERIOD.as_secs_f64();
        let read_us =
            |hundredths| figures.reads.get(figures.reads.len() * hundredths / 100).map_or(0, Duration::as_micros);
        writeln!(out, "{clients:>7} {commits:>10.0} {:>12} {:>12}", read_us(50), read_us(99))?;
    }
    engine.close().await;
    Ok(())
}

/// Lets the clients commit for a while, and one reader read beside them.
async fn run(engine: &Arc<SledEngine>, keys: &Arc<Keys>, clients: usize) -> Result<Figures> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..clients {
        writers.spawn(commit_until(Arc::clone(engine), Arc::clone(keys), Arc::clone(&stop)));
    }
    let mut readers = JoinSet::new();
    readers.spawn(read_until(Arc::clone(engine), Arc::clone(&stop)));
    tokio::time::sleep(PERIOD).await;
    stop.store(true, Ordering::SeqCst);
    let mut commits = 0;
    while let Some(done) = writers.join_next().await {
        commits += done??;
    }
    let reads = readers.join_next().await.context("there is a reader")???;
    Ok(Figures { commits, reads })
}

async fn commit_until(engine: Arc<SledEngine>, keys: Arc<Keys>, stop: Arc<AtomicBool>) -> Result<usize, EngineError> {
    let mut commits = 0;
    while !stop.load(Ordering::SeqCst) {
        let key = keys.next();
        let decide = move |_: &dyn View| {
            let mut batch = Batch::default();
            batch.put(key, vec![7; 200]);
            Ok(Decision::adds(batch))
        };
        engine.commit(Box::new(decide)).await?;
        commits += 1;
    }
    Ok(commits)
}

/// How long reads take, one a millisecond.
async fn read_until(engine: Arc<SledEngine>, stop: Arc<AtomicBool>) -> Result<Vec<Duration>, EngineError> {
    let mut reads = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let key = Keys::Random.next();
        let started = Instant::now();
        engine.get(&key).await?;
        reads.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(reads)
}
