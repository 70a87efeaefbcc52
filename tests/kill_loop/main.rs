//! Kills the services under load, again and again, and reads back everything that they acknowledged.
//!
//! Real processes (`metadata-service` and `chunk-service`, or both in `mini-tectonic-rs serve`), built with failpoints,
//! over one storage folder that lives through all kills. Sixteen clients put, read, list, delete and undelete. Processes are killed
//! with SIGKILL: at random instants, and by themselves at each failpoint in turn, at first starts too. After each restart
//! the listings by id and by name, the usage, and the bytes of what was stored are held against an oracle (`ledger`):
//!
//! * lost: an acknowledged blob that is not listed or cannot be read; an acknowledged delete is never undone, either;
//! * partial: a blob of other bytes, another size or another id than were acknowledged;
//! * phantom: a blob that was refused, deleted, found absent, or never put;
//! * other: usage that is not the sum of what is listed, an error that no kill explains, a call that never ends.
//!
//! `kill -9` keeps the page cache: this shows that recovery, order and answers are right, not that anything was synced.
//!
//! ```text
//! tests/kill_loop/run short      about a minute: every failpoint once, and as many random kills
//! tests/kill_loop/run long       2,000 kills
//! ```
//! `tests/kill_loop/run long --kills 100 --seed 7` does what it says. The figures are the last lines.

mod check;
mod clients;
mod content;
mod driver;
mod first_start;
mod ledger;
mod points;
mod tally;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use kill_loop::{random, services};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::driver::Driver;
use crate::first_start::Trials;
use crate::points::{Point, When};
use crate::random::Random;
use crate::tally::{Report, Tally};

/// How often the run says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// After so many rounds the services change between two processes and one.
const ROUNDS_PER_FORM: u64 = 8;
/// A failpoint that nothing has come to gets so many chances.
const PASSES_AT_LEAST: u64 = 3;
/// After so many rounds everything is read back.
const ROUNDS_PER_FULL_CHECK: u64 = 100;

/// Kills the services under load and reads back what they acknowledged
#[derive(Debug, Parser)]
struct Flags {
    /// Folder of the three binaries, built with failpoints
    #[arg(long)]
    binaries: PathBuf,
    /// Go on until so many processes were killed; every failpoint has its turn in any case
    #[arg(long, default_value_t = 0)]
    kills: u64,
    /// For another sequence of kills and contents
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    let (runtime, began) = (Runtime::new()?, Instant::now());
    let folder = tempfile::Builder::new().prefix("mini-tectonic-kill-loop.").tempdir()?;
    let mut tally = Tally::default();
    let mut random = Random::new(flags.seed);
    let trials = Trials {
        binaries: &flags.binaries,
        folder: folder.path(),
        runtime: &runtime,
        tally: &mut tally,
        random: &mut random,
    };
    let kept = folder.path().display().to_string();
    first_starts(trials, flags.kills > 0)?;
    let mut driver = Driver::start(&runtime, &mut tally, &flags.binaries, folder.path(), flags.seed)?;
    let outcome = kill_all_the_time(&mut driver, &mut random, flags.kills, began).and_then(|()| driver.finish());
    let report = Report { tally: driver.tally(), ledger: driver.ledger(), took: began.elapsed() };
    writeln!(std::io::stdout(), "{report}")?;
    let sound = driver.ledger().violations().is_empty() && driver.tally().never_hit().is_empty();
    if !sound || outcome.is_err() {
        // For whoever looks into it.
        drop(driver);
        let kept_folder = folder.keep();
        writeln!(std::io::stdout(), "what is left is in {}", kept_folder.display())?;
    }
    outcome?;
    ensure!(sound, "something was lost, partial, phantom or wrong, or a failpoint was never hit (see {kept})");
    Ok(())
}

/// Dies once at every point of a first start; in the long form at each of its occasions, and as one process too.
fn first_starts(mut trials: Trials<'_>, long: bool) -> Result<()> {
    for point in points::all() {
        let times = match point.when {
            When::FirstStart { times } => times,
            When::Reissue | When::Import => 1,
            When::Start | When::Load | When::LoadAfter(_) | When::StartAfter(_) => continue,
        };
        if long {
            for count in 1..=times {
                trials.run(point, count, false)?;
                trials.run(point, count, true)?;
            }
        } else {
            let (count, as_one_process) = (1 + trials.random.below(times), trials.random.below(4) == 0);
            trials.run(point, count, as_one_process)?;
        }
    }
    Ok(())
}

/// Random kills and failpoints by turns, until every point under load has had its turn and there were kills enough.
fn kill_all_the_time(driver: &mut Driver<'_>, random: &mut Random, kills: u64, began: Instant) -> Result<()> {
    let (mut said, mut turns, mut passes) = (Instant::now(), Vec::new(), 0);
    for round in 1_u64.. {
        if turns.is_empty() {
            let (never_hit, enough) = (driver.tally().never_hit(), driver.tally().kills >= kills);
            if passes > 0 && enough && (never_hit.is_empty() || passes >= PASSES_AT_LEAST) {
                return Ok(());
            }
            turns = in_random_order(points_under_load(), random);
            // What did not happen to come by gets another chance.
            turns.retain(|point| passes == 0 || !enough || never_hit.contains(&point.name));
            passes += 1;
        }
        driver.random_round()?;
        if let Some(point) = turns.pop() {
            driver.failpoint_round(point)?;
        }
        if round.is_multiple_of(ROUNDS_PER_FORM) {
            driver.change_form()?;
        }
        if round.is_multiple_of(ROUNDS_PER_FULL_CHECK) {
            driver.check_all()?;
        }
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            let (kills, wrong) = (driver.tally().kills, driver.ledger().violations().len());
            writeln!(std::io::stdout(), "{:>5.0?}: {kills} kills, {wrong} violations", began.elapsed())?;
        }
    }
    Ok(())
}

fn points_under_load() -> Vec<Point> {
    let under_load = |point: &Point| match point.when {
        When::Start | When::Load | When::LoadAfter(_) | When::StartAfter(_) => true,
        When::FirstStart { .. } | When::Reissue | When::Import => false,
    };
    points::all().into_iter().filter(under_load).collect()
}

/// What needs some time to come about comes last: turns are taken from the end.
fn in_random_order(mut points: Vec<Point>, random: &mut Random) -> Vec<Point> {
    points.sort_by_cached_key(|point| (!point.takes_time(), random.draw()));
    points
}
