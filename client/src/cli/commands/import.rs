//! `import`: metadata from an export into an empty folder, while no service runs on it.

use std::path::PathBuf;

use clap::Args;
use metadata_service::backup::{self, Imported};
use metadata_service::storage::Opening;
use proto::entropy::OsEntropy;
use proto::runtime::{Clock as _, SystemClock};
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::units::{parse_size, time_in_seconds};

/// Restore the metadata from an export, into an empty folder, while no service runs on it
///
/// The whole file is verified before anything is written. The chunks stay where they are. After an import nothing is
/// collected until 'fsck --after-restore' has said what becomes of the chunks that were written after the export.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The storage folder; its folder 'metadata' must not be there, or be empty.
    #[arg(long, value_name = "FOLDER", env = "MINI_TECTONIC_STORAGE", default_value = "./storage")]
    storage: PathBuf,
    /// With less free space than this on the metadata's disk nothing is imported.
    #[arg(long, value_name = "SIZE", env = "MINI_TECTONIC_METADATA_LOW_WATERMARK", default_value = "128MiB")]
    #[arg(value_parser = parse_size)]
    metadata_low_watermark: u64,
    /// The file that 'export' wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct ImportView {
    cluster_id: String,
    epoch: u64,
    exported_sequence: u64,
    include_secrets: bool,
}

impl Import {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tuning = metadata_service::Tuning {
            metadata_low_watermark: self.metadata_low_watermark,
            ..metadata_service::Tuning::default()
        };
        let opening = Opening { tuning: &tuning, entropy: &OsEntropy, now_ms: SystemClock.now_ms() };
        let imported = backup::import(&self.storage, &self.file, opening).await;
        let imported = imported
            .map_err(|error| Failure::new(Exit::Other, format!("import failed: {}", proto::status::chain(&error))))?;
        if context.out.json() {
            context.out.object(&ImportView {
                cluster_id: imported.cluster.to_string(),
                epoch: imported.epoch,
                exported_sequence: imported.sequence,
                include_secrets: imported.with_secrets,
            })?;
        }
        context.note(&in_words(&imported));
        Ok(())
    }
}

fn in_words(imported: &Imported) -> String {
    let Imported { cluster, epoch, sequence, export_ms, with_secrets } = imported;
    let credentials = if *with_secrets {
        "Tokens that were ended after the export are good again: end them anew with rotate-token and \
         --reissue-admin-token."
    } else {
        "The export held no secrets. Start each chunk service once with --rejoin (on this host: 'mini-tectonic-rs serve \
         --rejoin'); each needs a join token of its own, see --reissue-join-token. Make every tenant a new token: \
         'mini-tectonic-rs rotate-token -t TENANT --token-file admin.token', with the file from the storage folder."
    };
    let exported = prost_types::Timestamp { seconds: (export_ms / 1000).try_into().unwrap_or(i64::MAX), nanos: 0 };
    format!(
        "imported cluster {cluster} as of {}: commit {sequence} of the epoch before epoch {epoch}\n\
         {credentials}\n\
         Nothing is collected until you say what becomes of chunks written after the export: start the services, look \
         with 'mini-tectonic-rs fsck', then 'mini-tectonic-rs fsck --after-restore keep' or '--after-restore discard'.",
        time_in_seconds(Some(&exported))
    )
}
