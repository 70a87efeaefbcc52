//! `rotate-token`: makes a new token for a tenant; the one before stays valid, so that nobody is locked out meanwhile.

use clap::Args;

use super::register_tenant::keep_token;
use crate::cli::args::TenantArg;
use crate::cli::context::Context;
use crate::cli::credentials::Holder;
use crate::cli::failure::Failure;

/// Make a new token for a tenant; the one before stays valid
#[derive(Debug, Args)]
pub(crate) struct RotateToken {
    #[command(flatten)]
    pub(super) tenant: TenantArg,
}

impl RotateToken {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = &self.tenant.tenant;
        let session = context.tenant_or_admin(tenant)?;
        let rotated = session.client.rotate_tenant_token(Some(tenant)).await;
        let token = rotated.map_err(|error| session.failed("rotate-token", &error))?;
        keep_token(context, session.cluster_id().await, Holder::Tenant(tenant), token.as_str().into());
        Ok(())
    }
}
