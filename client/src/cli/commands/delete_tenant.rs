//! `delete-tenant`: removes a tenant that holds nothing any more, and its credential.

use clap::Args;

use super::delete::Yes;
use crate::cli::args::TenantArg;
use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// Delete a tenant that holds no blobs (admin)
#[derive(Debug, Args)]
pub(crate) struct DeleteTenant {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    yes: Yes,
}

impl DeleteTenant {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = &self.tenant.tenant;
        let session = context.admin(Some(tenant))?;
        self.yes.or_ask(context, &format!("Delete tenant {tenant}?"))?;
        session.client.delete_tenant(tenant).await.map_err(|error| session.failed("delete-tenant", &error))?;
        let forgotten = context.credentials().and_then(|file| file.forget(context.endpoint(), tenant));
        if let Err(failure) = forgotten {
            context.warn(&format!("its token is still in the credentials file: {}", failure.message()));
        }
        Ok(())
    }
}
