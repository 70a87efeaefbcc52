//! `undelete`: restores a deleted blob.

use clap::Args;

use crate::cli::args::{BlobArg, TenantArg};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::views::BlobView;

/// Restore a deleted blob; 'list-blobs --deleted' shows which can be
#[derive(Debug, Args)]
pub(crate) struct Undelete {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    blob: BlobArg,
}

impl Undelete {
    /// Runs the command. As `delete`, it prints nothing; with `--json`, the blob.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.tenant(&self.tenant.tenant)?;
        let restored = session.client.undelete_blob(self.blob.blob).await;
        let restored = restored.map_err(|error| session.failed("undelete", &error))?;
        if context.out.json() { context.out.object(&BlobView::from(&restored)) } else { Ok(()) }
    }
}
