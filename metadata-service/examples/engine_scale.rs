//! What the engine costs as it grows: time, memory, disk and start, at 10 thousand, 100 thousand and a million blobs.
//!
//! `cargo run --release -p metadata-service --example engine_scale -- FOLDER [BLOBS]...`, where FOLDER lies on the disk to
//! be measured; a folder of its own is made in it and removed at the end. A blob is what an upload of one block leaves: five
//! rows, with the schema's keys and values as long as its records usually are; the upload's own row comes with one commit
//! and goes with the next. Twenty blobs share a commit, as in a batch. Each figure of the columns behind `start` is of a
//! process that has just opened the database.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use metadata_service::store::engine::{Batch, Decision, Engine as _, EngineError, KeyRange};
use metadata_service::store::keys;
use metadata_service::store::sled::{SledEngine, SledOptions};
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId, TenantId};
use tokio::task::JoinSet;

const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const BLOBS_PER_COMMIT: u64 = 20;
const COMMITS_AT_ONCE: usize = 16;
const ROWS_PER_SCAN: usize = 1_000;
const READS: usize = 20_000;
/// Tells the process that measures a start.
const STARTED: &str = "--started";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().context("which folder? it must lie on the disk to measure")?);
    let rest: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    if rest.first().is_some_and(|first| first == STARTED) {
        return started(&folder).await;
    }
    let sizes = rest.iter().map(|size| size.parse()).collect::<Result<Vec<u64>, _>>()?;
    let sizes = if sizes.is_empty() { SIZES.to_vec() } else { sizes };
    print(&format!(
        "{:>9} {:>8} {:>7} {:>8} {:>8} | {:>8} {:>8} {:>7} {:>9} {:>9}",
        "blobs", "blobs/s", "CPU us", "disk MiB", "mem MiB", "start ms", "mem MiB", "get us", "page ms", "last ms"
    ))?;
    for size in sizes {
        let own = folder.join(format!("engine_scale.{}", std::process::id()));
        // A process of its own, so that memory is that of this size alone.
        filled(&own, size).await?;
        let status = Command::new(std::env::current_exe()?).arg(&own).arg(STARTED).status()?;
        ensure!(status.success(), "the process that measures a start failed");
        std::fs::remove_dir_all(&own)?;
    }
    Ok(())
}

fn print(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Puts so many blobs, and prints the first half of the line.
async fn filled(folder: &Path, blobs: u64) -> Result<()> {
    let engine = Arc::new(SledEngine::open(folder, &SledOptions::default())?);
    let (started, cpu_before) = (Instant::now(), cpu_us()?);
    let mut clients = JoinSet::new();
    for client in 0..COMMITS_AT_ONCE {
        let engine = Arc::clone(&engine);
        clients.spawn(async move {
            for commit in (0..blobs / BLOBS_PER_COMMIT).skip(client).step_by(COMMITS_AT_ONCE) {
                put(&engine, commit).await?;
            }
            Ok::<_, EngineError>(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let (took, cpu) = (started.elapsed(), cpu_us()? - cpu_before);
    let memory = memory_mib()?;
    engine.close().await;
    let disk = std::fs::metadata(folder.join("db"))?.len() >> 20;
    let each = |total: f64| total / blobs as f64;
    let line = format!(
        "{blobs:>9} {:>8.0} {:>7.0} {disk:>8} {memory:>8} | ",
        1.0 / each(took.as_secs_f64()),
        each(cpu as f64)
    );
    write!(std::io::stdout(), "{line}")?;
    Ok(std::io::stdout().flush()?)
}

async fn put(engine: &SledEngine, commit: u64) -> Result<(), EngineError> {
    let tenant: TenantId = "posts".parse().map_err(|_malformed| EngineError::Closed)?;
    let entropy = SeededEntropy::new(commit);
    let ids: Vec<_> = (0..BLOBS_PER_COMMIT).map(|_n| BlobId::generate(commit, &entropy)).collect();
    let mut plan = Batch::default();
    ids.iter().for_each(|blob| plan.put(keys::upload(&tenant, *blob), vec![1; 200]));
    plan.put(keys::usage(&tenant), vec![2; 60]);
    engine.commit(Box::new(move |_view| Ok(Decision { answered_early: true, ..Decision::adds(plan) }))).await?;
    let node = NodeId::generate(0, &SeededEntropy::new(0));
    let mut seal = Batch::default();
    for blob in ids {
        let (block, chunk) = (BlockId::generate(commit, &entropy), ChunkId::generate(commit, &entropy));
        seal.delete(keys::upload(&tenant, blob));
        seal.put(keys::blob(&tenant, blob), vec![3; 120]);
        seal.put(keys::extent(blob, 0), vec![4; 40]);
        seal.put(keys::block(block), vec![5; 150]);
        seal.put(keys::reverse(node, chunk), vec![6; 40]);
        seal.put(keys::name(&tenant, "a name.jpg", blob), vec![7; 10]);
    }
    seal.put(keys::usage(&tenant), vec![2; 60]);
    engine.commit(Box::new(move |_view| Ok(Decision::adds(seal)))).await.map(drop)
}

/// Opens, reads and lists, and prints the second half.
async fn started(folder: &Path) -> Result<()> {
    let began = Instant::now();
    let engine = SledEngine::open(folder, &SledOptions::default())?;
    let (start, memory) = (began.elapsed().as_millis(), memory_mib()?);
    let mut pages = Vec::new();
    let mut found = Vec::new();
    let mut range = KeyRange::prefix(&keys::blobs(&"posts".parse()?));
    loop {
        let began = Instant::now();
        let rows = engine.scan(&range, ROWS_PER_SCAN).await?;
        let Some((last, _)) = rows.last() else { break };
        range = range.after(last);
        pages.push(began.elapsed());
        found.extend(rows.into_iter().map(|(key, _)| key));
    }
    let began = Instant::now();
    for read in 0..READS {
        // All over the place, each as likely: a step that shares no factor with the count.
        let key = found.get(read * 7_919 % found.len().max(1)).context("there are blobs")?;
        engine.get(key).await?.context("a blob is there")?;
    }
    let get_us = began.elapsed().as_micros() / READS as u128;
    let some = pages.len().clamp(1, 10);
    let mean_ms = |some_pages: &mut dyn Iterator<Item = &Duration>| {
        some_pages.take(some).map(Duration::as_secs_f64).sum::<f64>() * 1e3 / some as f64
    };
    let (first, last) = (mean_ms(&mut pages.iter()), mean_ms(&mut pages.iter().rev()));
    print(&format!("{start:>8} {memory:>8} {get_us:>7} {first:>9.2} {last:>9.2}"))?;
    engine.close().await;
    Ok(())
}

fn memory_mib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the system tells the memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib >> 10)
}

/// Processor time of this process so far.
fn cpu_us() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_name, fields) = stat.rsplit_once(')').context("the system tells the processor time")?;
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>().context("numbers")?;
    // A hundred ticks a second on every Linux.
    Ok(ticks.iter().sum::<u64>() * 10_000)
}
