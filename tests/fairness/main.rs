//! What tenants cost each other on one disk: a bronze one at full blast (puts and gets of 64 MiB) beside a gold one that
//! reads and writes 4 KiB, with the chunk service's scheduler on and off.
//!
//! Real processes: a metadata service, a chunk service, and load generators. Those of bronze have a lower priority for the
//! processor: clients have machines of their own, so what gold waits for must be the services and not bronze's clients.
//! Each combination of loads runs for a while after a warm-up: gold alone, bronze alone, both.
//!
//! What bronze puts is deleted at once and collected after 45 s, so the disk needs some 20 GiB for the long form.
//!
//! What is judged (`--judge`), with the scheduler on:
//! * gold's reads: their 99th percentile is at most twice that of gold alone, or 5 ms more;
//! * gold's durable writes: theirs is at most 50 ms more (a file system's journal makes them wait for bronze's pages);
//! * bronze has at least 80 % of the disk time that gold leaves. Jobs that run side by side are in each other's times, so
//!   both tenants' work is valued at what it took alone: gold leaves what bronze had alone, less its own.
//!
//! ```text
//! tests/fairness/run short      about half a minute; judges nothing
//! tests/fairness/run long       judges; wants an idle machine
//! ```

mod figures;
mod load;
mod services;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::figures::{Measured, Report};
use crate::load::{Kind, Load};
use crate::services::Services;

/// How long loads run before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures what tenants cost each other
#[derive(Debug, Parser)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures everything
    Run(Run),
    /// Makes one kind of load and prints what came of it
    Load(Load),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Folder of the services' binaries
    #[arg(long)]
    binaries: PathBuf,
    /// How long each combination of loads is measured
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Where the storage folders are made
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Fail when a bound is not kept
    #[arg(long)]
    judge: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Flags::parse().command {
        Command::Run(run) => measure(&run).await,
        Command::Load(load) => load.run().await,
    }
}

async fn measure(run: &Run) -> Result<()> {
    let mut reports = Vec::new();
    for scheduler in ["on", "off"] {
        reports.push(measure_one(run, scheduler).await?);
    }
    let mut out = std::io::stdout();
    for report in &reports {
        writeln!(out, "{report}")?;
    }
    let broken: Vec<String> =
        reports.iter().filter(|report| report.scheduler == "on").flat_map(Report::broken).collect();
    ensure!(!run.judge || broken.is_empty(), "bounds that are not kept: {}", broken.join("; "));
    Ok(())
}

async fn measure_one(run: &Run, scheduler: &'static str) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("mini-tectonic-fairness.").tempdir_in(&run.folder)?;
    let services = Services::start(&run.binaries, folder.path(), scheduler).await?;
    let lasts = Duration::from_secs(run.seconds);
    let gold = [Kind::GoldReads, Kind::GoldWrites];
    let bronze = [Kind::BronzePuts, Kind::BronzeGets];
    let report = Report {
        scheduler,
        gold: phase(&services, folder.path(), lasts, &gold).await?,
        bronze: phase(&services, folder.path(), lasts, &bronze).await?,
        both: phase(&services, folder.path(), lasts, &[gold, bronze].concat()).await?,
    };
    services.stop().await;
    Ok(report)
}

/// Runs loads side by side and measures what came of them, and what the disk did meanwhile.
async fn phase(services: &Services, folder: &Path, lasts: Duration, kinds: &[Kind]) -> Result<Measured> {
    let mut loads = Vec::new();
    for kind in kinds {
        loads.push(services.load(folder, *kind, WARM_UP, lasts)?);
    }
    for load in &mut loads {
        load.begun().await?;
    }
    tokio::time::sleep(WARM_UP).await;
    let before = services.class_loads().await?;
    tokio::time::sleep(lasts).await;
    let after = services.class_loads().await?;
    let mut outcomes = Vec::new();
    for load in loads {
        outcomes.push(load.outcome().await?);
    }
    Ok(Measured::new(lasts, outcomes, &before, &after))
}
