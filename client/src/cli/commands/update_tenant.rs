//! `update-tenant`: changes a tenant's quota, rates or traffic class.

use clap::Args;
use mini_tectonic_client::{Error, TenantChange, TrafficClass};
use proto::pb;

use crate::cli::args::TenantArg;
use crate::cli::bounds::BoundArgs;
use crate::cli::class::Class;
use crate::cli::context::{Context, Session};
use crate::cli::failure::{Exit, Failure};
use crate::cli::views::TenantView;

/// Change a tenant's quota, rates or traffic class (admin)
#[derive(Debug, Args)]
pub(crate) struct UpdateTenant {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    bounds: BoundArgs,
    /// How urgent its traffic is.
    #[arg(long, value_enum)]
    class: Option<Class>,
}

impl UpdateTenant {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = &self.tenant.tenant;
        if !self.bounds.of_quota() && !self.bounds.of_rates() && self.class.is_none() {
            return Err(Failure::new(Exit::Usage, "nothing to change: give a bound, a rate, or --class"));
        }
        let session = context.admin(Some(tenant))?;
        let failed = |error| session.failed("update-tenant", &error);
        let change = self.change(&session).await.map_err(failed)?;
        let updated = session.client.change_tenant(tenant, change).await.map_err(failed)?;
        if context.out.json() { context.out.object(&TenantView::from(&updated)) } else { Ok(()) }
    }

    /// What is named, over what there is: the service replaces a quota, and rates, as a whole.
    async fn change(&self, session: &Session<'_>) -> Result<TenantChange, Error> {
        let (of_quota, of_rates) = (self.bounds.of_quota(), self.bounds.of_rates());
        let class = self.class();
        if !of_quota && !of_rates {
            return Ok(TenantChange { class, ..TenantChange::default() });
        }
        let current = session.client.get_tenant(Some(&self.tenant.tenant)).await?;
        let quota = of_quota.then(|| self.bounds.quota(current.quota.unwrap_or_default()));
        let rates = of_rates.then(|| self.bounds.rates(current.rates.unwrap_or_default()));
        Ok(TenantChange { quota, class, rates })
    }

    fn class(&self) -> pb::TrafficClass {
        self.class.map_or(pb::TrafficClass::Unspecified, |class| TrafficClass::from(class).into())
    }
}
