//! `update-tenant`: changes a tenant's quota or traffic class.

use clap::{Args, ValueEnum};
use proto::pb;

use crate::cli::args::TenantArg;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::units::parse_size;
use crate::cli::views::TenantView;

/// Change a tenant's quota or traffic class (admin)
#[derive(Debug, Args)]
pub(crate) struct UpdateTenant {
    #[command(flatten)]
    tenant: TenantArg,
    /// Most bytes it may hold, for example 10GiB, or 'unlimited'. Less than it holds stops further writes.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| bound(text, parse_size))]
    max_bytes: Option<Bound>,
    /// Most blobs it may hold, or 'unlimited'.
    #[arg(long, value_name = "N", value_parser = |text: &str| bound(text, parse_count))]
    max_blobs: Option<Bound>,
    /// How urgent its traffic is.
    #[arg(long, value_enum)]
    class: Option<Class>,
}

/// A bound, or none.
#[derive(Debug, Clone, Copy)]
struct Bound(Option<u64>);

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Class {
    /// Latency comes first.
    Gold,
    /// Normal.
    Silver,
    /// Background.
    Bronze,
}

fn bound(text: &str, parse: impl Fn(&str) -> Result<u64, String>) -> Result<Bound, String> {
    if text == "unlimited" { Ok(Bound(None)) } else { parse(text).map(|most| Bound(Some(most))) }
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| error.to_string())
}

impl UpdateTenant {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = &self.tenant.tenant;
        if self.max_bytes.is_none() && self.max_blobs.is_none() && self.class.is_none() {
            return Err(Failure::new(Exit::Usage, "nothing to change: give --max-bytes, --max-blobs or --class"));
        }
        let session = context.admin(Some(tenant))?;
        let failed = |error| session.failed("update-tenant", &error);
        let current = session.client.get_tenant(Some(tenant)).await.map_err(failed)?.quota.unwrap_or_default();
        let updated = session.client.update_tenant(tenant, self.quota(current), self.class()).await.map_err(failed)?;
        if context.out.json() { context.out.object(&TenantView::from(&updated)) } else { Ok(()) }
    }

    /// The service replaces a quota as a whole, so the bound that is not named keeps its value here.
    fn quota(&self, current: pb::Quota) -> Option<pb::Quota> {
        if self.max_bytes.is_none() && self.max_blobs.is_none() {
            return None;
        }
        Some(pb::Quota {
            max_bytes: self.max_bytes.map_or(current.max_bytes, |bound| bound.0),
            max_blobs: self.max_blobs.map_or(current.max_blobs, |bound| bound.0),
        })
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
