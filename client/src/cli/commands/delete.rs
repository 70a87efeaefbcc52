//! `delete`: deletes a blob, after asking when somebody is there to answer.

use std::io::{self, Write as _};

use clap::Args;

use crate::cli::args::{BlobArg, TenantArg};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};

/// Delete a blob
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    blob: BlobArg,
    #[command(flatten)]
    yes: Yes,
}

/// `-y`.
#[derive(Debug, Args)]
pub(crate) struct Yes {
    /// Do not ask. On a terminal the command asks, elsewhere it never does.
    #[arg(short, long)]
    yes: bool,
}

impl Delete {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.tenant(&self.tenant.tenant)?;
        let blob = self.blob.blob;
        self.yes.or_ask(context, &format!("Delete blob {blob} of tenant {}?", self.tenant.tenant))?;
        session.client.delete_blob(blob).await.map_err(|error| session.failed("delete", &error))
    }
}

impl Yes {
    /// Asks on a terminal, unless told not to.
    ///
    /// # Errors
    /// When the answer is not yes.
    pub(crate) fn or_ask(&self, context: &Context, question: &str) -> Result<(), Failure> {
        if self.yes || !context.can_ask() {
            return Ok(());
        }
        write!(io::stderr().lock(), "{question} [y/N] ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(|error| Failure::local("cannot read the answer", &error))?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(Failure::new(Exit::Other, "nothing was deleted"))
        }
    }
}
