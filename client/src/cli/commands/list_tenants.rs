//! `list-tenants`: a table on a terminal, one id per line in a pipe.

use std::pin::pin;

use clap::Args;
use futures_util::StreamExt as _;
use indicatif::HumanBytes;
use proto::{limits, pb};

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{Align, Table};
use crate::cli::units::time_in_seconds;
use crate::cli::views::TenantView;

/// List the tenants (admin)
#[derive(Debug, Args)]
pub(crate) struct ListTenants {}

impl ListTenants {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.admin(None)?;
        let mut pages = pin!(session.client.list_tenants().ready_chunks(limits::PAGE_SIZE));
        let mut table = Table::new(&context.out, HEADINGS);
        while let Some(page) = pages.next().await {
            let page: Result<Vec<_>, _> = page.into_iter().collect();
            print(context, &mut table, &page.map_err(|error| session.failed("list-tenants", &error))?)?;
        }
        Ok(())
    }
}

const HEADINGS: [(&str, Align); 5] = [
    ("TENANT", Align::Left),
    ("BLOBS", Align::Right),
    ("USED", Align::Right),
    ("QUOTA", Align::Right),
    ("CREATED", Align::Left),
];

fn print(context: &Context, table: &mut Table<5>, page: &[pb::Tenant]) -> Result<(), Failure> {
    if context.out.json() {
        return page.iter().try_for_each(|tenant| context.out.object(&TenantView::from(tenant)));
    }
    if !context.out.terminal() {
        let ids: String = page.iter().map(|tenant| format!("{}\n", tenant.tenant_id)).collect();
        return context.out.write(ids.as_bytes());
    }
    let rows: Vec<_> = page.iter().map(row).collect();
    table.page(&rows)
}

fn row(tenant: &pb::Tenant) -> [String; 5] {
    let usage = tenant.usage.unwrap_or_default();
    let most = tenant.quota.and_then(|quota| quota.max_bytes);
    [
        tenant.tenant_id.clone(),
        usage.used_blobs.to_string(),
        HumanBytes(usage.used_bytes).to_string(),
        most.map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string()),
        time_in_seconds(tenant.create_time.as_ref()),
    ]
}
