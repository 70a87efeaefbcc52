//! `stat`: everything about a blob, or about a tenant when no blob is named.

use clap::Args;
use mini_tectonic_client::Blob;
use proto::ids::BlobId;
use proto::pb;

use crate::cli::args::TenantArg;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::escape;
use crate::cli::units::{blobs_in_full, size_in_full, time_in_seconds};
use crate::cli::views::{BlobView, TenantView};

/// Show a blob; without -b, the tenant with its quota, rates and usage
#[derive(Debug, Args)]
pub(crate) struct Stat {
    #[command(flatten)]
    tenant: TenantArg,
    /// The blob's id, as 'put' printed it.
    #[arg(short, long, value_name = "ID")]
    blob: Option<BlobId>,
}

impl Stat {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = &self.tenant.tenant;
        if let Some(blob) = self.blob {
            let session = context.tenant(tenant)?;
            let blob = session.client.get_blob(blob).await.map_err(|error| session.failed("stat", &error))?;
            return print_blob(context, &blob);
        }
        let session = context.tenant_or_admin(tenant)?;
        let found = session.client.get_tenant(Some(tenant)).await.map_err(|error| session.failed("stat", &error))?;
        print_tenant(context, &found)
    }
}

fn print_blob(context: &Context, blob: &Blob) -> Result<(), Failure> {
    if context.out.json() {
        return context.out.object(&BlobView::from(blob));
    }
    let labels: Vec<_> = blob.labels.iter().map(|(key, value)| escape(&format!("{key}={value}"))).collect();
    context.out.facts(&[
        ("id", blob.blob_id.to_string()),
        ("tenant", escape(&blob.tenant_id)),
        ("name", escape(&blob.display_name)),
        ("type", escape(&blob.content_type)),
        ("labels", labels.join(" ")),
        ("size", size_in_full(blob.size_bytes)),
        ("sha256", blob.sha256.to_string()),
        ("created", blob.create_time.to_string()),
        ("blocks", format!("{} of {}", blob.block_count, size_in_full(blob.block_size_bytes))),
    ])
}

fn print_tenant(context: &Context, tenant: &pb::Tenant) -> Result<(), Failure> {
    if context.out.json() {
        return context.out.object(&TenantView::from(tenant));
    }
    let (usage, quota) = (tenant.usage.unwrap_or_default(), tenant.quota.unwrap_or_default());
    let rates = tenant.rates.unwrap_or_default();
    let most = |bound: Option<String>| bound.map_or_else(|| "unlimited".to_owned(), |most| format!("at most {most}"));
    context.out.facts(&[
        ("tenant", escape(&tenant.tenant_id)),
        ("created", time_in_seconds(tenant.create_time.as_ref())),
        ("class", tenant.traffic_class().as_str_name().trim_start_matches("TRAFFIC_CLASS_").to_ascii_lowercase()),
        ("bytes", most(quota.max_bytes.map(size_in_full))),
        ("blobs", most(quota.max_blobs.map(|blobs| blobs.to_string()))),
        ("largest blob", most(quota.max_blob_bytes.map(size_in_full))),
        ("open uploads", most(quota.max_open_uploads.map(|uploads| uploads.to_string()))),
        ("requests", most(rates.requests_per_second.map(|requests| format!("{requests} a second")))),
        ("reads", most(rates.read_bytes_per_second.map(|bytes| format!("{} a second", size_in_full(bytes))))),
        ("writes", most(rates.write_bytes_per_second.map(|bytes| format!("{} a second", size_in_full(bytes))))),
        ("used", blobs_in_full(usage.used_blobs, usage.used_bytes)),
        (
            "reserved",
            format!("{} for uploads that are open", blobs_in_full(usage.reserved_blobs, usage.reserved_bytes)),
        ),
        (
            "retained",
            format!("{} deleted, not yet collected", blobs_in_full(usage.retained_blobs, usage.retained_bytes)),
        ),
    ])
}
