//! Attacks the services in every way of a list while twenty honest clients use them.
//!
//! Real processes over loopback: a metadata service, a chunk service, and one hostile process with a lower priority for
//! the processor, whose connections come from 127.0.0.2 to 127.0.0.9. It runs one attack after the other. Each attack
//! checks for itself that it was answered as it has to be ([`attack`]); meanwhile honest clients put, get and delete blobs
//! of 4 KiB to 3 MiB and compare every byte. Once more, the services have few descriptors.
//!
//! What is judged:
//! * honest clients have no error, whatever they are up against: the client library's own repeats have to do;
//! * no service ends or panics;
//! * memory stays within 256 MiB of what it was before everything;
//! * a minute after each attack there are no more connections, descriptors, threads, open writes and memory than before,
//!   but for what honest clients have under way and what an allocator keeps;
//! * in the long form, the 99th percentile of honest puts and gets that were under way during an attack stays within three
//!   times that of a quiet while just before it, which begins when the disk has settled.
//!
//! A disk that is busy for a fifth of a second holds up all twenty, and twenty operations are more than a hundredth of those
//! of ten seconds. So when honest clients were slow beside an attack, it is run again after another quiet while, a few times
//! at most, and all runs are judged together, against all quiet whiles: what an attack does each time stays in the
//! percentile, what befell one run does not. Each run is printed.
//!
//! ```text
//! tests/hostile/run short      about a minute; limits that take time are short ones
//! tests/hostile/run long       with the limits that are shipped; wants an idle machine
//! ```
//! `--only rapid-resets` runs one attack. The table is the last thing that is printed.

mod attack;
mod figures;
mod honest;
mod services;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};
use tokio::time::{Instant, sleep};

use crate::attack::{Attack, Hostile};
use crate::figures::{Row, is_back};
use crate::honest::{Done, Honest};
use crate::services::{Attacker, Services, Setting};
use crate::watch::{Gauge, Peaks, Usage};

/// Within which everything is as before.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// How long honest clients run before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// The same in the long form, whose baseline is that of services whose caches honest clients have filled.
const WARM_UP_LONG: Duration = Duration::from_secs(60);
/// How long they are measured before the attacks of the short form.
const BEFORE: Duration = Duration::from_secs(4);
/// How long the disk gets to settle after an attack of the long form, before they are measured again.
const SETTLE: Duration = Duration::from_secs(3);
/// How often an attack is run whose honest times are beyond their bound.
const RUNS_MAX: usize = 5;
/// Descriptors of each service in the round in which they are few.
const FEW_DESCRIPTORS: u32 = 1024;
/// Attacks that take descriptors.
const ON_DESCRIPTORS: [Attack; 3] = [Attack::SilentConnections, Attack::NeverReads, Attack::SlowUploads];

/// Attacks the services while honest clients use them
#[derive(Debug, Parser)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything
    Run(Run),
    /// Is the hostile process
    Attack(Hostile),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Folder of the services' binaries
    #[arg(long)]
    binaries: PathBuf,
    /// How long each attack goes on [default: 1; in the long form 10]
    #[arg(long)]
    seconds: Option<u64>,
    /// Where the storage folders are made
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Everything in full, and honest clients' times are judged
    #[arg(long)]
    long: bool,
    /// Only these attacks
    #[arg(long, value_enum)]
    only: Vec<Attack>,
}

impl Run {
    fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.long { 10 } else { 1 }))
    }

    fn picked(&self, attacks: &[Attack]) -> Vec<Attack> {
        attacks.iter().copied().filter(|attack| self.only.is_empty() || self.only.contains(attack)).collect()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Flags::parse().command {
        Command::Run(run) => Box::pin(measure(&run)).await,
        Command::Attack(hostile) => Box::pin(hostile.run()).await,
    }
}

async fn measure(run: &Run) -> Result<()> {
    let mut rows = round(run, None, &run.picked(Attack::value_variants())).await?;
    rows.extend(round(run, Some(FEW_DESCRIPTORS), &run.picked(&ON_DESCRIPTORS)).await?);
    let mut out = std::io::stdout();
    writeln!(out, "\n{}", figures::HEAD)?;
    rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
    let broken: Vec<String> = rows.iter().flat_map(|row| row.broken(run.long)).collect();
    broken.iter().try_for_each(|broken| writeln!(out, "MUST NOT BE: {broken}"))?;
    ensure!(broken.is_empty(), "{} things are not as they have to be", broken.len());
    writeln!(out, "{} attacks; no honest client noticed an error", rows.len())?;
    Ok(())
}

/// Runs attacks on services that are made for it.
async fn round(run: &Run, descriptors: Option<u32>, attacks: &[Attack]) -> Result<Vec<Row>> {
    if attacks.is_empty() {
        return Ok(Vec::new());
    }
    let folder = tempfile::Builder::new().prefix("mini-tectonic-hostile.").tempdir_in(&run.folder)?;
    let rows = Box::pin(round_in(run, folder.path(), descriptors, attacks)).await;
    if rows.is_err() {
        // For whoever looks into it.
        writeln!(std::io::stdout(), "what is left is in {}", folder.keep().display())?;
    }
    rows
}

async fn round_in(run: &Run, folder: &Path, descriptors: Option<u32>, attacks: &[Attack]) -> Result<Vec<Row>> {
    let setting = Setting { binaries: &run.binaries, folder, long: run.long, descriptors };
    let mut services = Services::start(setting).await?;
    let honest = Honest::start(|| services.client())?;
    let attacker = services.attacker(run.lasts(), run.long).await?;
    sleep(if run.long { WARM_UP_LONG } else { WARM_UP }).await;
    let alone = measure_honest(&honest, BEFORE).await?;
    let gauge = Gauge::new(&services);
    let baseline = gauge.read()?;
    let peaks = Peaks::start(gauge.clone());
    let mut field = Field { honest, attacker, gauge, peaks, baseline, alone };
    let mut rows = Vec::new();
    for attack in attacks {
        let row = field.attack(run, *attack, descriptors.is_some()).await?;
        services.check()?;
        // The table comes at the end; this is for whoever waits.
        writeln!(std::io::stdout(), "{row}")?;
        rows.push(row);
    }
    let last = field.honest.stop().await?;
    ensure!(last.errors.is_empty(), "an honest client failed at last: {:?}", last.errors);
    Ok(rows)
}

/// How long honest puts and gets take while nobody attacks.
async fn measure_honest(honest: &Honest, lasts: Duration) -> Result<Done> {
    let began = Instant::now();
    sleep(lasts).await;
    let done = honest.begun_since(began).await?;
    ensure!(done.errors.is_empty(), "an honest client failed while nobody attacked: {:?}", done.errors);
    Ok(done)
}

/// Everybody who takes part.
struct Field {
    honest: Honest,
    attacker: Attacker,
    gauge: Gauge,
    peaks: Peaks,
    baseline: Usage,
    /// What honest clients did before, while nobody attacked.
    alone: Done,
}

impl Field {
    /// Runs an attack, in the long form until it can be told whether it is felt.
    async fn attack(&mut self, run: &Run, attack: Attack, few_descriptors: bool) -> Result<Row> {
        let mut row = self.attack_once(run, attack, few_descriptors).await?;
        while run.long && row.runs < RUNS_MAX && row.back.is_ok() && !row.slower().is_empty() {
            writeln!(std::io::stdout(), "{row}  AGAIN")?;
            let again = self.attack_once(run, attack, few_descriptors).await?;
            writeln!(std::io::stdout(), "{again}")?;
            row.add(again);
        }
        Ok(row)
    }

    async fn attack_once(&mut self, run: &Run, attack: Attack, few_descriptors: bool) -> Result<Row> {
        if run.long {
            sleep(SETTLE).await;
            self.alone = measure_honest(&self.honest, run.lasts()).await?;
        }
        self.peaks.take();
        let began = Instant::now();
        let seen = self.attacker.run(attack).await?;
        let lasted = began.elapsed();
        let (peak, during) = (self.peaks.take(), self.honest.under_way_since(began).await?);
        let back = self.wait_for_baseline().await?;
        let attack = if few_descriptors { format!("{}*", attack.name()) } else { attack.name() };
        let alone = self.alone.clone();
        Ok(Row { attack, runs: 1, alone, during, baseline: self.baseline, peak, lasted, back, seen })
    }

    /// Waits until everything is as before. Returns how long that took, or what is left.
    async fn wait_for_baseline(&self) -> Result<Result<Duration, Usage>> {
        let began = Instant::now();
        loop {
            let now = self.gauge.read()?;
            if is_back(now, self.baseline) {
                return Ok(Ok(began.elapsed()));
            }
            if began.elapsed() > BACK_WITHIN {
                return Ok(Err(now));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
