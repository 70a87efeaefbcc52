//! Sixty-four clients race for the edge of one tenant's quota, while the services die again and again.
//!
//! Real processes over real disks, built with failpoints. By rounds, the quota bounds bytes, blobs, open uploads, or all of
//! them and the largest blob, each far below what the clients want. They put, of known and unknown size, start, allocate,
//! abort, commit and abort at the same time, let uploads expire, delete and undelete. In each round a process is killed: at
//! a random instant, or by itself behind one of the metadata service's durable steps.
//!
//! * overshoot: what one look at the usage shows beyond a bound, where it did not shrink from being beyond it. A watcher
//!   looks all the time, across the deaths.
//! * differences: a usage that is not the sum of its rows, as the cluster's own check finds it under load and after each
//!   round; and one that is not what the list of blobs adds up to.
//! * wrong verdicts: at rest, an upload of exactly what is left must start, and one of a byte, a blob or an upload more must
//!   not.
//! * other: a refusal or failure that neither the quota nor a death explains.
//!
//! ```text
//! tests/quota_races/run short      each step once
//! tests/quota_races/run long       300 rounds
//! ```
//! `tests/quota_races/run long --rounds 50 --seed 7` does what it says. The figures are the last lines.

mod driver;
mod edge;
mod figures;
mod judge;
mod racer;

use std::io::Write as _;
use std::iter::once;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::driver::{Death, Driver};
use crate::edge::Edge;

/// The metadata service's durable steps that change what a tenant holds; those that take time to come about are last.
const STEPS: [&str; 16] = [
    "engine.group_decided",
    "engine.group_published",
    "journal.written",
    "engine.group_durable",
    "engine.group_shown",
    "checkpoint.sequence_written",
    "start_upload.durable",
    "allocate.durable",
    "commit.durable",
    "abort.durable",
    "delete.durable",
    "undelete.durable",
    "expire.durable",
    "collect.step_durable",
    "collect.chunk_deleted",
    "collect.rows_dropped",
];

/// Races for the edge of a quota while the services are killed
#[derive(Debug, Parser)]
struct Flags {
    /// Folder of the binaries, built with failpoints
    #[arg(long)]
    binaries: PathBuf,
    /// Go on for so many rounds; every step has its turn in any case
    #[arg(long, default_value_t = 0)]
    rounds: usize,
    /// For another sequence of kills and calls
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    let (runtime, began) = (Runtime::new()?, Instant::now());
    let folder = tempfile::Builder::new().prefix("mini-tectonic-quota-races.").tempdir()?;
    let mut driver = Driver::start(&runtime, &flags.binaries, folder.path(), flags.seed)?;
    let outcome = race(&mut driver, flags.rounds);
    let figures = driver.figures();
    writeln!(std::io::stdout(), "{figures}\nin {:.0?}", began.elapsed())?;
    let (sound, reached) = (figures.is_sound(), figures.never_died_at(&STEPS));
    if !sound || outcome.is_err() {
        // For whoever looks into it.
        drop(driver);
        writeln!(std::io::stdout(), "what is left is in {}", folder.keep().display())?;
    }
    outcome?;
    ensure!(sound, "a quota was overshot, or usage was not what it counts, or something else was wrong");
    ensure!(reached.is_empty(), "nothing died at {reached:?}");
    Ok(())
}

/// Deaths at steps and at random instants by turns, each edge in turn, until every step was died at and there were rounds
/// enough.
fn race(driver: &mut Driver<'_>, rounds: usize) -> Result<()> {
    let edges = Edge::ALL.into_iter().cycle();
    // Not a multiple of the edges: with each pass every step is died at with another one of them.
    let deaths: Vec<Death> =
        once(Death::AtRandom).chain(STEPS.into_iter().flat_map(|step| [Death::At(step), Death::AtRandom])).collect();
    for (round, (edge, death)) in edges.zip(deaths.iter().cycle()).enumerate() {
        if round >= rounds.max(deaths.len()) {
            return Ok(());
        }
        driver.round(edge, *death)?;
    }
    Ok(())
}
