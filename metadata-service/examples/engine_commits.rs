//! Durable commits per second of the sled engine, and how long a read takes beside them.
//!
//! `cargo run --release -p metadata-service --example engine_commits -- FOLDER`, where FOLDER lies on the disk to be
//! measured; a folder of its own is made in it and removed at the end. Each commit writes one row of 200 bytes under a
//! random key and returns after the sync; each client waits for its commit before it begins the next.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use metadata_service::store::engine::{Batch, Decision, Engine as _, EngineError};
use metadata_service::store::sled::{SledEngine, SledOptions};
use proto::entropy::{Entropy as _, OsEntropy};
use tokio::task::JoinSet;

const CLIENTS: [usize; 4] = [1, 16, 64, 256];
const PERIOD: Duration = Duration::from_secs(5);

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
    let engine = Arc::new(SledEngine::open(&own, &SledOptions::default())?);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>7} {:>16} {:>14} {:>12} {:>12}",
        "clients", "commits/s", "reads/s", "read p50 us", "read p99 us"
    )?;
    for clients in CLIENTS {
        let mut figures = run(&engine, clients).await?;
        figures.reads.sort_unstable();
        let seconds = PERIOD.as_secs_f64();
        let at = |hundredths: usize| {
            figures.reads.get(figures.reads.len() * hundredths / 100).map_or(0, Duration::as_micros)
        };
        let (commits, reads) = (figures.commits as f64 / seconds, figures.reads.len() as f64 / seconds);
        writeln!(out, "{clients:>7} {commits:>16.0} {reads:>14.0} {:>12} {:>12}", at(50), at(99))?;
    }
    engine.close().await;
    std::fs::remove_dir_all(own)?;
    Ok(())
}

/// Lets the clients commit for a while, and one reader read beside them.
async fn run(engine: &Arc<SledEngine>, clients: usize) -> Result<Figures> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..clients {
        writers.spawn(commit_until(Arc::clone(engine), Arc::clone(&stop)));
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

async fn commit_until(engine: Arc<SledEngine>, stop: Arc<AtomicBool>) -> Result<usize, EngineError> {
    let mut commits = 0;
    while !stop.load(Ordering::SeqCst) {
        let key = random_key();
        let decide = move |_: &dyn metadata_service::store::engine::View| {
            let mut batch = Batch::default();
            batch.put(key, vec![7; 200]);
            Ok(Decision { batch, frees_space: false })
        };
        engine.commit(Box::new(decide)).await?;
        commits += 1;
    }
    Ok(commits)
}

/// How long reads of rows that nobody writes take, at one per millisecond.
async fn read_until(engine: Arc<SledEngine>, stop: Arc<AtomicBool>) -> Result<Vec<Duration>, EngineError> {
    let mut reads = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let key = random_key();
        let started = Instant::now();
        engine.get(&key).await?;
        reads.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(reads)
}

fn random_key() -> Vec<u8> {
    let mut key = vec![0; 16];
    OsEntropy.fill(&mut key);
    key
}
