//! `fsck`: checks metadata and chunks against each other, on running services or on a storage folder that nobody uses.
//!
//! Without `--repair` nothing is changed. Findings are told as they are found; the summary comes last, and a check that
//! could not look at everything says so and does not end with 0.

mod offline;
mod report;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use futures_util::TryStreamExt as _;
use mini_tectonic_client::CheckEvent;
use proto::pb;

use self::report::Report;
use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// What becomes of chunks that were written after the export from which the metadata were imported
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AfterRestore {
    /// They stay; garbage of before the export is collected again.
    Keep,
    /// They are orphans like others, and are collected.
    Discard,
}

/// Check that everything stored is there and sound, and that nothing is left over (admin)
///
/// Exit code 0: nothing is wrong, or everything was repaired. 1: something is wrong that is no loss. 6: not everything
/// could be looked at. 7: data of a blob are lost.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Check this storage folder instead of running services; neither service may be using it
    #[arg(long, value_name = "FOLDER", conflicts_with = "after_restore")]
    storage: Option<PathBuf>,
    /// Repair what can be repaired without guessing: checksum files, usage, the name index, orphans
    #[arg(long)]
    repair: bool,
    /// Look at names and sizes only; otherwise every byte is read
    #[arg(long)]
    quick: bool,
    /// After an import: decide what becomes of chunks that are newer than the export, and let collection begin
    #[arg(long, value_name = "DECISION", conflicts_with_all = ["repair", "quick"])]
    after_restore: Option<AfterRestore>,
}

impl Fsck {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(decision) = self.after_restore {
            return end_restore(context, decision).await;
        }
        let options = pb::CheckClusterRequest { repair: self.repair, skip_bytes: self.quick };
        match &self.storage {
            Some(storage) => offline::check(context, storage, options).await,
            None => online(context, options).await,
        }
    }
}

async fn online(context: &Context, options: pb::CheckClusterRequest) -> Result<(), Failure> {
    let session = context.admin(None)?;
    let failed = |error| session.failed("fsck", &error);
    let mut events = session.client.check_cluster(options).await.map_err(failed)?;
    let mut report = Report::new(context, options.repair);
    while let Some(event) = events.try_next().await.map_err(failed)? {
        match event {
            CheckEvent::Finding(finding) => report.finding(&finding)?,
            CheckEvent::Summary(summary) => report.summary(&summary)?,
        }
    }
    report.verdict()
}

async fn end_restore(context: &Context, decision: AfterRestore) -> Result<(), Failure> {
    let session = context.admin(None)?;
    let (lost_time, note) = match decision {
        AfterRestore::Keep => (pb::LostTime::Keep, "chunks that are newer than the export stay; collection begins"),
        AfterRestore::Discard => {
            (pb::LostTime::Discard, "chunks that are newer than the export are orphans now; collection begins")
        }
    };
    session.client.end_restore(lost_time).await.map_err(|error| session.failed("fsck --after-restore", &error))?;
    context.note(note);
    Ok(())
}
