//! What `kill -9` leaves of the sled engine: everything that was acknowledged, and nothing that was half done.
//!
//! Each round runs this very test as a child process, in which several writers commit numbered rows as fast as they can
//! and print each number once its commit has returned. At a random count the child is killed, the database is opened
//! here, and checked. The next round goes on in the same folder, so recovered databases are killed again.
//!
//! `kill -9` keeps the page cache: this shows that recovery and batches are sound, not that anything was synced.
//!
//! 10 rounds by default; for the long form set `MINI_TECTONIC_KILL_ROUNDS`, for example
//! `MINI_TECTONIC_KILL_ROUNDS=200 cargo test --release -p metadata-service --test engine_kill -- --nocapture`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use metadata_service::store::engine::{Batch, Decision, Engine as _, EngineError, EngineExt as _, KeyRange, View};
use metadata_service::store::sled::{SledEngine, SledOptions};
use proto::entropy::{Entropy as _, OsEntropy};
use tempfile::TempDir;
use tokio::task::JoinSet;

const TEST: &str = "what_was_acknowledged_survives_kill_9";
const CHILD_FOLDER: &str = "MINI_TECTONIC_KILL_CHILD_FOLDER";
const ROUNDS: &str = "MINI_TECTONIC_KILL_ROUNDS";
const WRITERS: usize = 32;
const PREFIX: &str = "acked ";
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() -> Result<()> {
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        return write_until_killed(Path::new(&folder)).await;
    }
    let rounds = std::env::var(ROUNDS).map_or(Ok(10), |rounds| rounds.parse::<u32>())?;
    let folder = TempDir::new()?;
    let mut total = 0;
    for round in 1..=rounds {
        let acked = run_and_kill(folder.path(), random_count())?;
        let committed = check(folder.path(), &acked).await.with_context(|| format!("round {round}"))?;
        total += acked.len();
        writeln!(std::io::stdout(), "round {round}: {} acknowledged, {committed} rows in all", acked.len())?;
    }
    writeln!(std::io::stdout(), "{rounds} kills, {total} acknowledged commits, 0 lost")?;
    Ok(())
}

/// 1 to 4,096: from the first commit to many groups.
fn random_count() -> usize {
    let mut random = [0; 2];
    OsEntropy.fill(&mut random);
    usize::from(u16::from_be_bytes(random) % 4096) + 1
}

async fn write_until_killed(folder: &Path) -> Result<()> {
    let engine = Arc::new(SledEngine::open(folder, &SledOptions::default())?);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let engine = Arc::clone(&engine);
        writers.spawn(async move {
            loop {
                let number = engine.decide(next_row).await?;
                // One write, so that a kill leaves no half of a line between two others.
                std::io::stdout().write_all(format!("{PREFIX}{number}\n").as_bytes())?;
            }
        });
    }
    writers.join_next().await.context("there are writers")??
}

/// Writes the row after the last one and moves the marker on to it: the numbers have no gap, the marker is one row.
fn next_row(view: &dyn View) -> Result<(Decision, u64), EngineError> {
    let last = number(view.get(b"count")?);
    let mut batch = Batch::default();
    batch.put(key(b"row/", last + 1), vec![7; 200]);
    batch.put(b"count".to_vec(), (last + 1).to_be_bytes().to_vec());
    batch.delete(key(b"marker/", last));
    batch.put(key(b"marker/", last + 1), Vec::new());
    Ok((Decision { batch, frees_space: false }, last + 1))
}

fn number(value: Option<Bytes>) -> u64 {
    value.and_then(|value| value.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn key(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

/// Runs the child until it has acknowledged this many commits, kills it, and returns all that it has acknowledged.
fn run_and_kill(folder: &Path, count: usize) -> Result<Vec<u64>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = lines_of(&mut child)?;
    let mut acked = Vec::new();
    while acked.len() < count {
        acked.push(lines.recv_timeout(DEADLINE).context("the child has stopped")?);
    }
    child.kill()?;
    child.wait()?;
    // What it had printed before it died.
    acked.extend(lines);
    Ok(acked)
}

fn lines_of(child: &mut Child) -> Result<Receiver<u64>> {
    let output = BufReader::new(child.stdout.take().context("it is piped")?);
    let (sender, lines) = sync_channel(1024);
    std::thread::spawn(move || {
        let acked = output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix(PREFIX)?.parse().ok());
        acked.take_while(|number| sender.send(*number).is_ok()).for_each(drop);
    });
    Ok(lines)
}

/// Checks the database and returns the number of its rows.
async fn check(folder: &Path, acked: &[u64]) -> Result<u64> {
    let engine = SledEngine::open(folder, &SledOptions::default())?;
    let count = number(engine.get(b"count").await?);
    ensure!(engine.sequence() == count, "{count} commits, but the sequence is {}", engine.sequence());
    let rows = engine.scan(&KeyRange::prefix(b"row/"), usize::MAX).await?;
    let complete =
        rows.iter().zip(1..).all(|((found, value), number)| *found == key(b"row/", number) && value.len() == 200);
    ensure!(complete && u64::try_from(rows.len())? == count, "{} rows, not 1 to {count}", rows.len());
    let markers = engine.scan(&KeyRange::prefix(b"marker/"), 2).await?;
    let keys: Vec<_> = markers.iter().map(|(found, _)| found.to_vec()).collect();
    ensure!(keys == [key(b"marker/", count)], "half of a batch: {keys:?}");
    let lost: Vec<_> = acked.iter().filter(|number| **number > count).collect();
    ensure!(lost.is_empty(), "{count} rows, but these were acknowledged: {lost:?}");
    engine.close().await;
    Ok(count)
}
