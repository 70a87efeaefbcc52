//! Power cuts: what the page cache would lose is really lost, under the real program, and nothing acknowledged is.
//!
//! `kill -9` keeps the page cache, so it cannot see a missing sync. Here the services' storage folder lies on a file
//! system of our own ([`mount`]) which knows what was synced and what was only written ([`image`]). Clients put, get,
//! list and delete blobs of mixed sizes until, between two steps of that disk, the power goes ([`machine`]): the
//! processes die, and of what was not synced nothing is left, or all, or some writes and some names, in any order, or
//! torn pieces ([`cut`]). Then the services start again on what is left and must be ready, show everything that was
//! acknowledged, byte for byte, nothing that was deleted, nothing that nobody put, and the usage that is the sum of it
//! ([`check`]). Some cuts come during a start, the first one included; some follow a `kill -9` whose page cache lived
//! on, so that what was never synced looks like something that was. What a client has been shown by a listing counts
//! as acknowledged. [`engine`] does the same to the metadata engine alone, under far more writes.
//!
//! The suite shows that it can fail: on a disk that answers a sync and does not do it, just as if the service did not
//! call it, it must find a violation.
//!
//! A few cuts by default. The long form, whose last lines are its figures:
//! `MINI_TECTONIC_CUTS=200 cargo test --release -p mini-tectonic-client --test power_cut -- --nocapture`; a seed
//! that it printed repeats its choices with `MINI_TECTONIC_CUT_SEED`.
#![cfg(target_os = "linux")]
#![expect(clippy::indexing_slicing, reason = "a test may stop at the first surprise")]

mod check;
mod clients;
mod cut;
mod dice;
mod engine;
mod file;
mod image;
mod ledger;
mod machine;
mod mount;
mod services;
mod site;

use std::io::Write as _;

use anyhow::{Result, ensure};
use proto::entropy::{Entropy as _, OsEntropy};

use crate::dice::Dice;
use crate::engine::EngineSite;
use crate::image::Journal;
use crate::machine::Lie;
use crate::site::{Site, Tally};

const CUTS: &str = "MINI_TECTONIC_CUTS";
const SEED: &str = "MINI_TECTONIC_CUT_SEED";
/// A new cluster begins after so many cuts, so that first starts are cut too.
const CUTS_OF_A_CLUSTER: u64 = 25;

/// Steps of the disk between two cuts at most: in the short form, and in the long one.
const STEPS_SHORT: usize = 500;
const STEPS_LONG: usize = 4_000;

/// The harshest disk more often than the usual one.
const JOURNALS: [Journal; 3] = [Journal::None, Journal::None, Journal::Shared];

fn say(words: &str) {
    writeln!(std::io::stdout(), "{words}").expect("standard output takes a line");
}

fn number_from(variable: &str) -> Result<Option<u64>> {
    std::env::var_os(variable).map(|text| Ok(text.to_string_lossy().parse()?)).transpose()
}

/// Whether there can be cuts here. Where there cannot, that is said aloud, and where somebody asked for a number of cuts
/// it is a failure: no figure may come of a suite that did not run.
fn cuts_are_possible() -> Result<bool> {
    let Err(error) = mount::try_to_mount() else { return Ok(true) };
    ensure!(std::env::var_os(CUTS).is_none(), "no power can be cut here: cannot mount through /dev/fuse: {error}");
    say(&format!("NOT RUN, NOTHING WAS TESTED: power cuts need /dev/fuse and the right to mount ({error})"));
    Ok(false)
}

fn seed() -> Result<u64> {
    let random = || {
        let mut bytes = [0; 8];
        OsEntropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    Ok(number_from(SEED)?.unwrap_or_else(random))
}

#[test]
fn what_was_acknowledged_survives_power_cuts() -> Result<()> {
    if !cuts_are_possible()? {
        return Ok(());
    }
    let (asked, seed) = (number_from(CUTS)?, seed()?);
    let (cuts, steps) = asked.map_or((6, STEPS_SHORT), |cuts| (cuts, STEPS_LONG));
    say(&format!("{cuts} cuts, {SEED}={seed}"));
    let dice = Dice::new(seed);
    let mut tally = Tally::default();
    while tally.cuts < cuts {
        let journal = *dice.pick(&JOURNALS);
        let mut site = Site::new(journal, steps, dice.number())?;
        let last = cuts.min(tally.cuts + CUTS_OF_A_CLUSTER);
        while tally.cuts < last {
            site.live_and_die(&mut tally)?;
        }
        site.live(&mut tally)?;
        say(&tally.to_string());
    }
    ensure!(!tally.violations.any(), "{}", tally.violations);
    Ok(())
}

/// Of the metadata's log only `fdatasync` was left out once; sled's own thread calls `fsync` twice a second, so on a slow
/// machine nothing was ever missing, and nothing found.
#[test]
fn a_sync_that_is_left_out_is_found() -> Result<()> {
    if !cuts_are_possible()? {
        return Ok(());
    }
    let seed = seed()?;
    say(&format!("left-out syncs, {SEED}={seed}"));
    let left_out = [
        ("sync of the metadata's log", Lie::FileSync("db")),
        ("sync of a chunk's bytes", Lie::FileSync(".blob")),
        ("fsync of the folder of chunks", Lie::FolderSync("chunks")),
    ];
    for (what, lie) in left_out {
        let mut tally = Tally::default();
        let mut site = Site::new(Journal::None, STEPS_SHORT, seed)?;
        site.live(&mut tally)?;
        site.lie(lie);
        while !tally.violations.any() {
            ensure!(tally.cuts < 20, "{what}: left out, and not found in {tally}");
            site.live_and_die(&mut tally)?;
            site.live(&mut tally)?;
        }
        say(&format!("{what}: left out, found after {} cuts: {}", tally.cuts, tally.violations));
    }
    Ok(())
}

#[test]
fn what_the_engine_acknowledged_survives_power_cuts() -> Result<()> {
    if let Some(folder) = std::env::var_os(engine::CHILD_FOLDER) {
        return engine::run_as_child(folder.as_ref());
    }
    if !cuts_are_possible()? {
        return Ok(());
    }
    let (cuts, seed) = (number_from(CUTS)?.unwrap_or(6), seed()?);
    say(&format!("{cuts} cuts of the engine, {SEED}={seed}"));
    let dice = Dice::new(seed);
    let (mut done, mut failed, mut most) = (0, 0, 0);
    while done < cuts {
        let journal = *dice.pick(&JOURNALS);
        let mut site = EngineSite::new(journal, dice.number())?;
        for _ in 0..CUTS_OF_A_CLUSTER.min(cuts - done) {
            done += 1;
            match site.live_and_die() {
                Ok(count) => most = most.max(count),
                Err(error) => {
                    failed += 1;
                    say(&format!("cut {done}: {error:#}"));
                    break;
                }
            }
        }
    }
    say(&format!("{cuts} cuts of the engine, {most} commits in one log at most, {failed} with a loss"));
    ensure!(failed == 0, "{failed} of {cuts} cuts");
    Ok(())
}
