//! `register-tenant`: makes a tenant, shows its token once, and keeps it for later calls.

use std::path::PathBuf;

use clap::Args;
use mini_tectonic_client::RegisteredTenant;
use proto::pb;

use crate::cli::args::TenantArg;
use crate::cli::bounds::BoundArgs;
use crate::cli::context::{Context, say};
use crate::cli::credentials::{Credential, Holder, Secret};
use crate::cli::failure::Failure;
use crate::cli::views::TenantView;

/// Register a tenant; its token is shown once, and kept for later calls (admin)
#[derive(Debug, Args)]
pub(crate) struct RegisterTenant {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    bounds: BoundArgs,
}

impl RegisterTenant {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = &self.tenant.tenant;
        let session = context.admin(Some(tenant))?;
        let (quota, rates) = (self.bounds.quota(pb::Quota::default()), self.bounds.rates(pb::Rates::default()));
        let registered = session.client.register_tenant_with(tenant, quota, rates).await;
        let registered = registered.map_err(|error| session.failed("register-tenant", &error))?;
        let cluster_id = session.cluster_id().await;
        keep_token(context, cluster_id, Holder::Tenant(tenant), registered.token.as_str().into());
        print(context, &registered)
    }
}

fn print(context: &Context, registered: &RegisteredTenant) -> Result<(), Failure> {
    if context.out.json() {
        context.out.object(&TenantView::from(&registered.tenant))
    } else {
        context.out.line(&registered.tenant.tenant_id)
    }
}

/// Keeps a new token in the credentials file and shows it, the only time that it can be seen. `-q` hides it once it has
/// been kept. A file that cannot be written is no failure of the command: the service made the token.
pub(crate) fn keep_token(context: &Context, cluster_id: String, holder: Holder<'_>, token: Secret) {
    let kept = keep(context, cluster_id, holder, token.clone());
    if kept.is_err() || !context.quiet() {
        say(&format!("token: {}", token.expose()));
    }
    match kept {
        Ok(path) => {
            context.note(&format!("It is shown only this once, and kept in {} for later calls.", path.display()))
        }
        Err(failure) => context.warn(&format!("keep the token yourself, it could not be saved: {}", failure.message())),
    }
}

fn keep(context: &Context, cluster_id: String, holder: Holder<'_>, token: Secret) -> Result<PathBuf, Failure> {
    let file = context.credentials()?;
    file.save(context.endpoint(), holder, Credential { token, cluster_id })?;
    Ok(file.path().to_path_buf())
}
