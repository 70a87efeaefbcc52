//! `update-tenant`: changes a tenant's quota or traffic class.

use clap::{Args, ValueEnum};
use mini_tectonic_client::Error;
use proto::pb;

use crate::cli::args::TenantArg;
use crate::cli::context::{Context, Session};
use crate::cli::failure::{Exit, Failure};
use crate::cli::quota::QuotaArgs;
use crate::cli::views::TenantView;

/// Change a tenant's quota or traffic class (admin)
#[derive(Debug, Args)]
pub(crate) struct UpdateTenant {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    quota: QuotaArgs,
    /// How urgent its traffic is.
    #[arg(long, value_enum)]
    class: Option<Class>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Class {
    /// Latency comes first.
    Gold,
    /// Normal.
    Silver,
    /// Background.
    Bronze,
}

impl UpdateTenant {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = &self.tenant.tenant;
        if !self.quota.any() && self.class.is_none() {
            return Err(Failure::new(Exit::Usage, "nothing to change: give a bound of the quota, or --class"));
        }
        let session = context.admin(Some(tenant))?;
        let failed = |error| session.failed("update-tenant", &error);
        let quota = self.quota(&session).await.map_err(failed)?;
        let updated = session.client.update_tenant(tenant, quota, self.class()).await.map_err(failed)?;
        if context.out.json() { context.out.object(&TenantView::from(&updated)) } else { Ok(()) }
    }

    /// The whole quota as it is to be, or nothing where it is to stay.
    async fn quota(&self, session: &Session<'_>) -> Result<Option<pb::Quota>, Error> {
        if !self.quota.any() {
            return Ok(None);
        }
        let current = session.client.get_tenant(Some(&self.tenant.tenant)).await?.quota.unwrap_or_default();
        Ok(Some(self.quota.over(current)))
    }

    fn class(&self) -> pb::TrafficClass {
        match self.class {
            None => pb::TrafficClass::Unspecified,
            Some(Class::Gold) => pb::TrafficClass::Gold,
            Some(Class::Silver) => pb::TrafficClass::Silver,
            Some(Class::Bronze) => pb::TrafficClass::Bronze,
        }
    }
}
