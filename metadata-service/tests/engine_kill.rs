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
use proto::limits::MIB;
use tempfile::TempDir;
use tokio::task::JoinSet;

const TEST: &str = "what_was_acknowledged_survives_kill_9";
const CHILD_FOLDER: &str = "MINI_TECTONIC_KILL_CHILD_FOLDER";
const ROUNDS: &str = "MINI_TECTONIC_KILL_ROUNDS";
const WRITERS: usize = 32;
const PREFIX: &str = "acked ";
/// Parts of a commit, and for how many commits they are kept: large enough that a group spans several of the files'
/// segments, so that a kill finds it half written.
const PARTS: u64 = 16;
const PART_BYTES: usize = 4000;
const PARTS_KEPT_FOR: u64 = 16;
const DEADLINE: Duration = Duration::from_secs(60);

/// Many checkpoints in a life, so that a kill finds one half done.
fn options() -> SledOptions {
    SledOptions { journal_bytes: 5 * MIB, checkpoint_bytes: MIB, waiting_bytes: 4 * MIB, ..SledOptions::default() }
}

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

/// 1 to 1,024: from the first commit to many groups.
fn random_count() -> usize {
    let mut random = [0; 2];
    OsEntropy.fill(&mut random);
    usize::from(u16::from_be_bytes(random) % 1024) + 1
}

async fn write_until_killed(folder: &Path) -> Result<()> {
    let engine = Arc::new(SledEngine::open(folder, &options())?);
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

/// Writes the row after the last one with its parts, and deletes the parts of an earlier one.
fn next_row(view: &dyn View) -> Result<(Decision, u64), EngineError> {
    let next = number(view.get(b"count")?) + 1;
    let mut batch = Batch::default();
    batch.put(b"count".to_vec(), next.to_be_bytes().to_vec());
    batch.put(key(b"row/", next), Vec::new());
    for part in 0..PARTS {
        batch.put(part_key(next, part), vec![7; PART_BYTES]);
        batch.delete(part_key(next.saturating_sub(PARTS_KEPT_FOR), part));
    }
    Ok((Decision::adds(batch), next))
}

fn part_key(number: u64, part: u64) -> Vec<u8> {
    key(&key(b"part/", number), part)
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
    let engine = SledEngine::open(folder, &options())?;
    let count = number(engine.get(b"count").await?);
    ensure!(engine.sequence() == count, "{count} commits, but the sequence is {}", engine.sequence());
    let rows = keys(&engine, b"row/").await?;
    ensure!(
        rows == (1..=count).map(|number| key(b"row/", number)).collect::<Vec<_>>(),
        "the rows are not 1 to {count}"
    );
    let kept = (count + 1).saturating_sub(PARTS_KEPT_FOR).max(1)..=count;
    let expected: Vec<_> = kept.flat_map(|number| (0..PARTS).map(move |part| part_key(number, part))).collect();
    ensure!(keys(&engine, b"part/").await? == expected, "the parts are not those of the last commits before {count}");
    let lost: Vec<_> = acked.iter().filter(|number| **number > count).collect();
    ensure!(lost.is_empty(), "{count} rows, but these were acknowledged: {lost:?}");
    engine.close().await;
    Ok(count)
}

async fn keys(engine: &SledEngine, prefix: &[u8]) -> Result<Vec<Vec<u8>>, EngineError> {
    let rows = engine.scan(&KeyRange::prefix(prefix), usize::MAX).await?;
    Ok(rows.into_iter().map(|(key, _)| key.to_vec()).collect())
}
