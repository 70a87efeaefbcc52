//! Whole sessions with the real programs, as talkative as they can be, and then a search through everything that came out
//! of them for every secret that was in them (I18).
//!
//! A session has the services as one process without TLS, or as two that show each other certificates; tenants, tokens of
//! every kind made, used, rotated, ended, mistyped and misplaced; blobs put and got, by the command line and by single
//! calls; exports and imports; nodes that join; services that are killed, and that start over spoiled files.
//!
//! * secrets: every token that was shown or lies in a file, every key, capability and receipt, and what tenants store; each
//!   as a whole and in the parts that say as much, in each of the forms of [`vault`].
//! * places: logs at their most talkative, what commands print, what calls are answered, command lines and environments in
//!   `/proc`, the audit log, and every file but those whose purpose is to keep secrets, and these too where others can
//!   read them.
//! * hits: secrets where none may be. The one place where showing a secret is the purpose is excepted for that secret
//!   alone: the command or the call that hands it out.
//! * planted: what [`control`] hides is found by the same search.
//!
//! ```text
//! tests/secrets/run short      one session of each kind
//! tests/secrets/run long       20 of each, in random order, with processes killed in between
//! ```
//! The figures are the last lines.

mod calls;
mod control;
mod damage;
mod figures;
mod misuse;
mod places;
mod session;
mod site;
mod tracks;
mod transfers;
mod vault;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use tokio::time::Instant;

use crate::figures::Figures;
use crate::places::Kind;
use crate::session::STEPS;
use crate::site::{Shape, Site};

/// What is among the secrets of every session.
const EXPECTED: [&str; 11] = [
    "key in storage/metadata/cluster.key",
    "key in storage/chunks/node.key",
    "token in storage/chunks/node.key",
    "the next admin token",
    "token in storage/join.token",
    "token in credentials.toml",
    "certs/server.key",
    "a capability to write",
    "a capability to read",
    "a receipt",
    "a blob's bytes",
];

/// Drives sessions, and searches what came out for the secrets in them
#[derive(Debug, Parser)]
struct Flags {
    /// Folder of the binaries
    #[arg(long)]
    binaries: PathBuf,
    /// So many sessions of each kind; from the second on in random order, with processes killed in between
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// For another order, and other canaries
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let (flags, began) = (Flags::parse(), Instant::now());
    let folder = tempfile::Builder::new().prefix("mini-tectonic-secrets.").tempdir()?;
    let mut figures = Figures::default();
    let outcome = sessions(&flags, folder.path(), &mut figures);
    writeln!(std::io::stdout(), "{figures}\nin {:.0?}", began.elapsed())?;
    if outcome.is_err() || !figures.is_sound() {
        // For whoever looks into it.
        writeln!(std::io::stdout(), "what is left is in {}", folder.keep().display())?;
    }
    outcome?;
    ensure!(figures.is_sound(), "a secret came out, or the search does not find what it should");
    Ok(())
}

fn sessions(flags: &Flags, folder: &Path, figures: &mut Figures) -> Result<()> {
    figures.planted(control::run(folder)?);
    for round in 0..flags.rounds {
        for shape in [Shape::Together, Shape::Apart] {
            let home = folder.join(format!("{shape:?}-{round}"));
            let seed = flags.seed.wrapping_mul(1_000_003).wrapping_add(round);
            session(shape, &flags.binaries, &home, seed, round > 0, figures)
                .with_context(|| format!("round {round}, {shape:?}"))?;
            if figures.is_sound() {
                std::fs::remove_dir_all(&home)?;
            }
        }
    }
    Ok(())
}

/// One session, and the search through it.
fn session(
    shape: Shape,
    binaries: &Path,
    home: &Path,
    seed: u64,
    at_random: bool,
    figures: &mut Figures,
) -> Result<()> {
    let mut site = Site::start(shape, &std::path::absolute(binaries)?, home, seed)?;
    let mut steps = STEPS.to_vec();
    if at_random {
        // Shuffled from the end on.
        for at in (1..steps.len()).rev() {
            steps.swap(at, usize::try_from(site.random.below(at as u64 + 1))?);
        }
    }
    for (name, step) in steps {
        step(&mut site).with_context(|| format!("the step '{name}'"))?;
        site.check()?;
        site.learn()?;
        if at_random && site.random.below(4) == 0 {
            site.kill();
            site.launch()?;
        }
    }
    damage::starts(&mut site).context("starts over spoiled files")?;
    let (vault, places, started_by_commands) = site.end()?;
    ensure!(started_by_commands > 0, "no process was seen that a command starts");
    for kind in [Kind::Log, Kind::Output] {
        ensure!(places.have(kind, "TRACE"), "the programs were not as talkative as they can be");
    }
    for what in EXPECTED {
        ensure!(vault.iter().any(|(_text, secret)| secret.what == what), "no session is without a {what}");
    }
    let found = places.search(&vault)?;
    for hit in &found.hits {
        writeln!(std::io::stdout(), "HIT: {hit}")?;
    }
    figures.add(found);
    Ok(())
}
