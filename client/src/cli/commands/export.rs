//! `export`: all metadata as of one moment, into a file that appears only once it has been verified to its end.
//!
//! Order: a temporary file beside the target (0600), every byte through the verifier, the end checked, the file synced,
//! renamed, its folder synced. A crash leaves the old file or the new one, and perhaps a `.<name>.partial-<random>`. A
//! device or a pipe gets the bytes as they come, like standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt as _;
use indicatif::HumanBytes;
use metadata_service::backup::{Decoder, Summary};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::cli::context::{Context, Session};
use crate::cli::failure::{Exit, Failure};

/// Save all metadata as of one moment, while the service goes on (admin)
///
/// The chunks are not part of it: they stay where they are, and an import finds them again. Without --include-secrets
/// the file may be kept like any other backup, but after an import every chunk service has to join once more and every
/// tenant needs a new token. With them the file opens everything: keep it like a key.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Where to; '-' for standard output. A file appears only once everything has been verified, readable by its owner
    /// only.
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Also the cluster's key and the hashes of all tokens, so that nodes and tokens go on after an import.
    #[arg(long)]
    include_secrets: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct ExportView<'a> {
    path: &'a Path,
    cluster_id: String,
    epoch: u64,
    sequence: u64,
    row_count: u64,
    commit_count: u64,
    size_bytes: u64,
    include_secrets: bool,
}

impl Export {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.admin(None)?;
        let summary = if self.output.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                return Err(Failure::new(Exit::Usage, "an export is not text: send it to a file or a pipe"));
            }
            self.receive(&session, |bytes| context.out.write(bytes)).await?
        } else if is_special(&self.output) {
            let failed = |error: io::Error| self.unwritable(&error);
            let mut device = OpenOptions::new().write(true).open(&self.output).map_err(failed)?;
            self.receive(&session, |bytes| device.write_all(bytes).map_err(failed)).await?
        } else {
            let (summary, target) = self.write_file(&session).await?;
            if context.out.json() {
                context.out.object(&self.view(&target, &summary))?;
            }
            summary
        };
        context.note(&in_words(&summary));
        Ok(())
    }

    async fn write_file(&self, session: &Session<'_>) -> Result<(Summary, PathBuf), Failure> {
        let failed = |error: io::Error| self.unwritable(&error);
        let target = match std::fs::canonicalize(&self.output) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.output.clone(),
            found => found.map_err(failed)?,
        };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = partial(&target, folder).map_err(failed)?;
        let summary = self.receive(session, |bytes| file.write_all(bytes).map_err(failed)).await?;
        let publish = || -> io::Result<()> {
            file.as_file().sync_all()?;
            file.persist(&target).map_err(|refused| refused.error)?;
            File::open(folder)?.sync_all()
        };
        publish().map_err(failed)?;
        Ok((summary, target))
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        Failure::local(format_args!("cannot write {}", self.output.display()), error)
    }

    /// Hands every byte on, and verifies the whole.
    async fn receive(
        &self,
        session: &Session<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Summary, Failure> {
        let failed = |error| session.failed("export", &error);
        let broken = |error| {
            let failure = Failure::local("the export did not arrive whole", &error);
            failure.hint("try again; a service that stops, or commits that come faster than they are sent, end one")
        };
        let pieces = session.client.export_metadata(self.include_secrets).await.map_err(failed)?;
        let (mut pieces, mut decoder) = (std::pin::pin!(pieces), Decoder::default());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(failed)?;
            decoder.push(&piece);
            while decoder.next_frame().map_err(broken)?.is_some() {}
            take(&piece)?;
        }
        decoder.finish().map_err(broken)
    }

    fn view<'a>(&self, path: &'a Path, summary: &Summary) -> ExportView<'a> {
        ExportView {
            path,
            cluster_id: summary.header.cluster.to_string(),
            epoch: summary.header.epoch,
            sequence: summary.sequence,
            row_count: summary.rows,
            commit_count: summary.commits,
            size_bytes: summary.bytes,
            include_secrets: self.include_secrets,
        }
    }
}

/// A device or a pipe, which is written to as it is: nothing may be renamed into its place.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn partial(target: &Path, folder: &Path) -> io::Result<NamedTempFile> {
    let Some(name) = target.file_name().filter(|_name| !target.is_dir()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let prefix = format!(".{}.partial-", name.to_string_lossy());
    // Readable by its owner only, as all files that tempfile makes.
    tempfile::Builder::new().prefix(&prefix).rand_bytes(8).tempfile_in(folder)
}

fn in_words(summary: &Summary) -> String {
    let Summary { header, sequence, rows, commits, bytes } = summary;
    let secrets = if header.cluster_key.is_some() { "with secrets: keep it like a key" } else { "without secrets" };
    format!(
        "exported cluster {} up to commit {sequence} of epoch {}: {rows} rows, {commits} parts of commits made meanwhile, \
         {}; {secrets}",
        header.cluster,
        header.epoch,
        HumanBytes(*bytes)
    )
}
