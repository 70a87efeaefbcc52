//! The metadata engine alone, under far more writes than the services give it: rows are overwritten and removed all the
//! time, so that the log reuses its space, which is where a missing sync destroys what was durable long ago.
//!
//! The engine runs in a child process, which is this very test binary, and says of each commit that it was answered.
//! What commit `n` writes follows from `n` alone, so that the rows after a cut must be exactly those of the commits 1 to
//! some `c`, where `c` is no less than any that was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use metadata_service::store::engine::{Batch, Decision, Engine as _, EngineError, EngineExt as _, KeyRange, View};
use metadata_service::store::sled::{SledEngine, SledOptions};
use proto::limits::MIB;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::cut::Cut;
use crate::dice::{Dice, content};
use crate::image::{Image, Journal};
use crate::machine::Machine;
use crate::mount::{mount, unmount};

/// Name of the test that is the child as well.
pub(crate) const TEST: &str = "what_the_engine_acknowledged_survives_power_cuts";
/// The folder for a child.
pub(crate) const CHILD_FOLDER: &str = "MINI_TECTONIC_CUT_CHILD_FOLDER";
/// For a child that checks: the last commit that was acknowledged.
const CHILD_ACKED: &str = "MINI_TECTONIC_CUT_CHILD_ACKED";
const PREFIX: &str = "acked ";
const CHECKED: &str = "checked ";
const WRITERS: usize = 96;
/// So many, and so large, that a checkpoint spans several of the log's segments of 512 KiB: if it were synced at its end
/// alone, a hundred cuts would find losses.
const ROWS: usize = 1600;
const ROWS_OF_A_COMMIT: usize = 12;
/// Steps after which the power goes, at most: a group of commits is a few.
const STEPS_OF_A_LIFE: usize = 600;
const CUT_WITHIN: Duration = Duration::from_secs(20);

/// Checkpoints that begin and end several times in a life, and a journal that they hold up.
fn options() -> SledOptions {
    SledOptions { journal_bytes: 5 * MIB, checkpoint_bytes: 2 * MIB, waiting_bytes: 8 * MIB, ..SledOptions::default() }
}

/// One write: `None` removes.
type Write = (Vec<u8>, Option<Vec<u8>>);

/// What a commit writes, the last of a key counts; bytes are made only where `wanted`.
fn writes_of(number: u64, wanted: impl Fn(&[u8]) -> bool) -> Vec<Write> {
    let dice = Dice::new(number);
    let write = |_index| {
        let key = format!("row/{:04}", dice.below(ROWS)).into_bytes();
        let (size, seed, removed) = (dice.up_to(4000), dice.number(), dice.percent(20));
        let value = (!removed).then(|| if wanted(&key) { content(seed, size) } else { Vec::new() });
        (key, value)
    };
    (0..ROWS_OF_A_COMMIT).map(write).collect()
}

fn number(value: Option<Bytes>) -> u64 {
    value.and_then(|value| value.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn next_commit(view: &dyn View) -> Result<(Decision, u64), EngineError> {
    let next = number(view.get(b"count")?) + 1;
    let mut batch = Batch::default();
    for (key, value) in writes_of(next, |_key| true) {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch.put(b"count".to_vec(), next.to_be_bytes().to_vec());
    Ok((Decision::adds(batch), next))
}

async fn commit_until_killed(folder: &Path) -> Result<()> {
    let engine = Arc::new(SledEngine::open(folder, &options())?);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let engine = Arc::clone(&engine);
        writers.spawn(async move {
            loop {
                let number = engine.decide(next_commit).await?;
                // One write, so that a kill leaves no half of a line between two others.
                std::io::stdout().write_all(format!("{PREFIX}{number}\n").as_bytes())?;
            }
        });
    }
    writers.join_next().await.context("there are writers")??
}

/// A machine with an engine on it.
pub(crate) struct EngineSite {
    machine: Arc<Machine>,
    dice: Dice,
    mount_point: TempDir,
    /// The last commit that was acknowledged.
    acked: u64,
}

impl EngineSite {
    pub(crate) fn new(journal: Journal, seed: u64) -> Result<Self> {
        let machine = Arc::new(Machine::new(Image::new(journal)));
        Ok(Self { machine, dice: Dice::new(seed), mount_point: TempDir::new()?, acked: 0 })
    }

    fn folder(&self) -> PathBuf {
        self.mount_point.path().join("storage").join("metadata")
    }

    /// Runs the engine, cuts the power, and checks what is left. Returns how many commits there are.
    pub(crate) fn live_and_die(&mut self) -> Result<u64> {
        while self.dice.percent(20) {
            self.run()?;
        }
        self.run()?;
        let cut = Cut::draw(&self.dice);
        self.machine.lock().image.cut(cut, &self.dice);
        self.check().with_context(|| cut.to_string())
    }

    /// Runs the engine until the power goes, and leaves the page cache as it is.
    fn run(&mut self) -> Result<()> {
        self.machine.on();
        let session = mount(&self.machine, self.mount_point.path())?;
        self.machine.cut_after(self.dice.up_to(STEPS_OF_A_LIFE));
        let mut child = child(&self.folder()).stdout(Stdio::piped()).spawn()?;
        let lines = lines_of(&mut child)?;
        self.machine.wait_until_failing(CUT_WITHIN);
        child.kill()?;
        self.machine.off();
        child.wait()?;
        self.acked = lines.into_iter().fold(self.acked, u64::max);
        unmount(session)?;
        Ok(())
    }

    /// Opens the database in another child, which compares every row.
    fn check(&mut self) -> Result<u64> {
        self.machine.on();
        let session = mount(&self.machine, self.mount_point.path())?;
        let checked = child(&self.folder()).env(CHILD_ACKED, self.acked.to_string()).output()?;
        unmount(session)?;
        let told = String::from_utf8_lossy(&checked.stdout);
        let count = told.split_once(CHECKED).and_then(|(_, rest)| rest.lines().next());
        // From now on all of them are known to be durable.
        self.acked = count.with_context(|| told.to_string())?.parse()?;
        Ok(self.acked)
    }
}

/// This very test, as a child.
fn child(folder: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).env(CHILD_FOLDER, folder);
    command
}

/// The child, for one of its two tasks.
pub(crate) fn run_as_child(folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match std::env::var(CHILD_ACKED) {
        Ok(acked) => runtime.block_on(check_all(folder, acked.parse()?)),
        Err(_absent) => runtime.block_on(commit_until_killed(folder)),
    }
}

async fn check_all(folder: &Path, acked: u64) -> Result<()> {
    let engine = SledEngine::open(folder, &options())?;
    let rows = engine.scan(&KeyRange::prefix(b""), usize::MAX).await?;
    let rows = rows.into_iter().map(|(key, value)| (key.to_vec(), value)).collect::<BTreeMap<_, _>>();
    let count = number(rows.get(b"count".as_slice()).cloned());
    ensure!(count >= acked, "{count} commits, but {acked} were acknowledged");
    check_rows(&rows, count)?;
    writeln!(std::io::stdout(), "{CHECKED}{count}")?;
    Ok(())
}

fn check_rows(rows: &BTreeMap<Vec<u8>, Bytes>, count: u64) -> Result<()> {
    let mut last_writer = BTreeMap::new();
    for number in 1..=count {
        last_writer.extend(writes_of(number, |_key| false).into_iter().map(|(key, _value)| (key, number)));
    }
    let mut expected = BTreeMap::new();
    for (key, number) in last_writer {
        let writes = writes_of(number, |written| written == key);
        let value = writes.into_iter().rev().find(|(written, _)| *written == key).and_then(|(_, value)| value);
        expected.extend(value.map(|value| (key, Bytes::from(value))));
    }
    if count > 0 {
        expected.insert(b"count".to_vec(), Bytes::copy_from_slice(&count.to_be_bytes()));
    }
    let differing = |key: &&Vec<u8>| rows.get(*key) != expected.get(*key);
    let wrong: Vec<_> =
        rows.keys().chain(expected.keys()).filter(differing).map(|key| key.escape_ascii().to_string()).collect();
    ensure!(wrong.is_empty(), "after {count} commits these rows are wrong: {wrong:?}");
    Ok(())
}

fn lines_of(child: &mut Child) -> Result<Receiver<u64>> {
    let output = BufReader::new(child.stdout.take().context("it is piped")?);
    let (sender, lines) = sync_channel(1 << 20);
    std::thread::spawn(move || {
        let acked = output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix(PREFIX)?.parse().ok());
        acked.take_while(|number| sender.send(*number).is_ok()).for_each(drop);
    });
    Ok(lines)
}
